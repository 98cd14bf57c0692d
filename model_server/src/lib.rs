//! Models on a stream of images: `model_server_sub` consumes and predicts, the result queue
//! keeps the order, `model_server_pub` publishes.
//!
//! What all of Forebay's programs share is here too: the ini file ([`settings`]), the life of
//! a process ([`process`]) and the record of a prediction ([`prediction`]).

pub mod prediction;
pub mod process;
pub mod publisher;
pub mod queue;
pub mod settings;
pub mod subscriber;
