//! The two threads that own the database's connections, and what they run.

mod fetch;
mod reader;
mod wake;
mod writer;

pub(super) use fetch::{Fetch, Fetched, Want};
pub(super) use reader::Reader;
pub(super) use writer::{Failure, Writer, refuse};
