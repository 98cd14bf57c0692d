//! Whether a message that was not delivered may be stored nevertheless.
//!
//! librdkafka knows, but the safe wrapper does not pass it on: this is the backend's one
//! call into the C library.
#![allow(unsafe_code)]

use rdkafka::bindings::{rd_kafka_message_status, rd_kafka_msg_status_t};
use rdkafka::message::BorrowedMessage;

/// Whether the message was never handed to a broker, or was refused by one.
pub(super) fn is_not_persisted(message: &BorrowedMessage<'_>) -> bool {
    // SAFETY: `ptr` points to the message of a delivery report, which `message` borrows, and
    // the call only reads it.
    let status = unsafe { rd_kafka_message_status(message.ptr()) };
    status == rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED
}
