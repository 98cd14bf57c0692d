//! Ini files: read, with secrets from the environment, and checked key by key.
//!
//! Every key that nobody asked for is an error which names the file, the section, the key
//! and the nearest valid one, so that a typing mistake never passes for a default.

mod file;
mod parse;
mod section;

pub use file::{Environment, File, ProcessEnvironment};
pub use parse::{ByteSize, Parse};
pub use section::Section;

#[cfg(test)]
mod tests;
