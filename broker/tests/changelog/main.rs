//! What only several processes show: state that follows its partition through kills and moves,
//! a store that is upgraded by many at once, a message that kills whoever takes it.
//!
//! The processes are this test binary again, in one of the roles of the module `child`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panics")]

mod child;
mod counting;
mod faults;
mod moves;
