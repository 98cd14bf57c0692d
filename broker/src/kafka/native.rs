//! What the safe wrapper does not pass on of librdkafka: whether an undelivered message may be
//! stored, the notes that offsets were committed with, groups as both of Kafka's group
//! protocols show them, and what is wrong with a certificate.
//!
//! These are the backend's only calls into the C library. Everything that it hands out is
//! copied before it is freed.
#![allow(unsafe_code)]

use std::error::Error as StdError;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};
use std::{ptr, slice};

use rdkafka::bindings as sys;
use rdkafka::client::OAuthToken;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, ClientContext, TopicPartitionList};
use sys::rd_kafka_admin_op_t as Op;

use super::control::Client;
use super::start::ASK_TIMEOUT;

/// Whether the message was never handed to a broker, or was refused by one.
pub(super) fn is_not_persisted(message: &BorrowedMessage<'_>) -> bool {
    // SAFETY: `ptr` points to the message of a delivery report, which `message` borrows, and
    // the call only reads it.
    let status = unsafe { sys::rd_kafka_message_status(message.ptr()) };
    status == sys::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED
}

/// A partition with what is told of it.
#[derive(Debug)]
pub(super) struct Element {
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) offset: Option<u64>,
    /// Whatever bytes the offset was committed with.
    pub(super) metadata: Vec<u8>,
    pub(super) error: Option<RDKafkaErrorCode>,
}

/// The elements of a list; unlike the wrapper's own it takes metadata of any bytes.
pub(super) fn elements(list: &TopicPartitionList) -> Vec<Element> {
    // SAFETY: the list owns what it points to for as long as it is borrowed.
    unsafe { read_list(list.ptr()) }
}

/// A member of a group, and its partitions by topic.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) partitions: Vec<(String, u32)>,
}

/// A group as its coordinator sees it.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// No assignment is under way.
    pub(super) is_stable: bool,
    pub(super) members: Vec<Member>,
}

/// The names of all groups of consumers.
pub(super) fn groups(client: &Client) -> KafkaResult<Vec<String>> {
    let event = ask(client, Op::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS, |rk, options, queue| {
        // SAFETY: all three live until the event has come.
        unsafe { sys::rd_kafka_ListConsumerGroups(rk, options, queue) }
    })?;
    // SAFETY: the event is the answer to this question and outlives all that is read of it.
    unsafe {
        let result = sys::rd_kafka_event_ListConsumerGroups_result(event.raw);
        let mut count = 0;
        let errors = sys::rd_kafka_ListConsumerGroups_result_errors(result, &mut count);
        if let Some(first) = array(errors, count).first() {
            return Err(KafkaError::AdminOp(sys::rd_kafka_error_code(*first).into()));
        }
        let groups = sys::rd_kafka_ListConsumerGroups_result_valid(result, &mut count);
        let groups = array(groups, count).iter();
        Ok(groups.map(|group| text(sys::rd_kafka_ConsumerGroupListing_group_id(*group))).collect())
    }
}

/// The members of a group; none also where there is no such group.
pub(super) fn members<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    group: &str,
) -> KafkaResult<Members> {
    let name = CString::new(group)?;
    let op = Op::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
    let event = ask(client, op, |rk, options, queue| {
        let mut names = [name.as_ptr()];
        // SAFETY: all live until the event has come, and the names are copied.
        unsafe {
            sys::rd_kafka_DescribeConsumerGroups(rk, names.as_mut_ptr(), 1, options, queue);
        }
    })?;
    // SAFETY: the event is the answer to this question and outlives all that is read of it.
    unsafe {
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event.raw);
        let mut count = 0;
        let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
        let Some(group) = array(groups, count).first().copied() else {
            return Ok(Members::default());
        };
        let error = sys::rd_kafka_ConsumerGroupDescription_error(group);
        if !error.is_null() {
            return match sys::rd_kafka_error_code(error).into() {
                RDKafkaErrorCode::GroupIdNotFound => Ok(Members::default()),
                code => Err(KafkaError::AdminOp(code)),
            };
        }
        let count = sys::rd_kafka_ConsumerGroupDescription_member_count(group);
        let member = |index| sys::rd_kafka_ConsumerGroupDescription_member(group, index);
        let members = (0..count).map(member).filter(|member| !member.is_null());
        let members = members.map(|member| read_member(member)).collect();
        let state = sys::rd_kafka_ConsumerGroupDescription_state(group);
        let is_stable =
            state == sys::rd_kafka_consumer_group_state_t::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE;
        Ok(Members { is_stable, members })
    }
}

/// The partitions that a group has a position in.
pub(super) fn positions(client: &Client, group: &str) -> KafkaResult<Vec<Element>> {
    let name = CString::new(group)?;
    // SAFETY: the name is copied, and no list of partitions stands for all of them.
    let request = unsafe { sys::rd_kafka_ListConsumerGroupOffsets_new(name.as_ptr(), ptr::null()) };
    let request = Owned { raw: request, free: sys::rd_kafka_ListConsumerGroupOffsets_destroy };
    let op = Op::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
    let event = ask(client, op, |rk, options, queue| {
        let mut requests = [request.raw];
        // SAFETY: all live until the event has come, and the request is copied.
        unsafe {
            sys::rd_kafka_ListConsumerGroupOffsets(rk, requests.as_mut_ptr(), 1, options, queue);
        }
    })?;
    // SAFETY: the event is the answer to this question and outlives all that is read of it.
    unsafe {
        let result = sys::rd_kafka_event_ListConsumerGroupOffsets_result(event.raw);
        let mut count = 0;
        let groups = sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &mut count);
        let Some(group) = array(groups, count).first().copied() else { return Ok(Vec::new()) };
        let error = sys::rd_kafka_group_result_error(group);
        if !error.is_null() {
            return match sys::rd_kafka_error_code(error).into() {
                RDKafkaErrorCode::GroupIdNotFound => Ok(Vec::new()),
                code => Err(KafkaError::AdminOp(code)),
            };
        }
        Ok(read_list(sys::rd_kafka_group_result_partitions(group)))
    }
}

/// Gives a client its token, or the cause why there is none.
pub(super) fn set_token<C: ClientContext>(
    client: &rdkafka::client::Client<C>,
    token: Result<OAuthToken, Box<dyn StdError>>,
) {
    let rk = client.native_ptr();
    let token = token.and_then(|token| {
        Ok((CString::new(token.token)?, CString::new(token.principal_name)?, token.lifetime_ms))
    });
    let mut problem: [c_char; 256] = [0; 256];
    // SAFETY: the client lives while it is borrowed, and the texts are copied.
    let code = unsafe {
        match &token {
            Ok((token, principal, lifetime)) => sys::rd_kafka_oauthbearer_set_token(
                rk,
                token.as_ptr(),
                *lifetime,
                principal.as_ptr(),
                ptr::null_mut(),
                0,
                problem.as_mut_ptr(),
                problem.len(),
            ),
            Err(error) => {
                let cause = CString::new(error.to_string()).unwrap_or_default();
                sys::rd_kafka_oauthbearer_set_token_failure(rk, cause.as_ptr())
            }
        }
    };
    // SAFETY: the text ends with a NUL: it was all NULs before.
    let problem = unsafe { text(problem.as_ptr()) };
    if RDKafkaErrorCode::from(code) != RDKafkaErrorCode::NoError {
        tracing::warn!(problem, "a token of OAUTHBEARER is refused");
    }
}

/// How long the search for a certificate's fault may take.
const PROBE_MAX: Duration = Duration::from_secs(2);

/// What OpenSSL found wrong with a certificate; zero for nothing.
#[derive(Default)]
struct Fault(AtomicI32);

impl ClientContext for Fault {}

/// What is wrong with the brokers' certificate: librdkafka tells only that something is. It is
/// looked at once more, by a client that shows no credentials.
pub(super) fn certificate_fault(settings: &ClientConfig) -> Option<String> {
    let mut settings = settings.clone();
    settings.set("security.protocol", "ssl");
    settings.remove("sasl.mechanism").remove("sasl.mechanisms").remove("sasl.password");
    let native = settings.create_native_config().ok()?;
    // SAFETY: the configuration lives, and the client that takes it over calls `verify` only
    // with the context as its opaque value.
    unsafe { sys::rd_kafka_conf_set_ssl_cert_verify_cb(native.ptr(), Some(verify)) };
    let kind = rdkafka::types::RDKafkaType::RD_KAFKA_PRODUCER;
    let client = rdkafka::client::Client::new(&settings, native, kind, Fault::default()).ok()?;
    let until = Instant::now() + PROBE_MAX;
    while Instant::now() < until {
        let answered = client.fetch_metadata(None, Duration::from_millis(100)).is_ok();
        let code = client.context().0.load(Ordering::Acquire);
        if answered || code != 0 {
            return (code != 0).then(|| name_fault(code));
        }
    }
    None
}

/// The numbers are OpenSSL's `X509_V_ERR_*`.
fn name_fault(code: i32) -> String {
    match code {
        9 => "it is not valid yet".into(),
        10 => "it has expired".into(),
        2 | 18..=21 => "its issuer is unknown: see ssl.ca.location".into(),
        23 => "it was revoked".into(),
        62 | 64 => "it was made for another host name".into(),
        code => format!("OpenSSL refuses it by its number {code}"),
    }
}

/// SAFETY: `error` points to OpenSSL's verdict and `opaque` to the client's [`Fault`].
#[allow(clippy::too_many_arguments, reason = "librdkafka calls it so")]
unsafe extern "C" fn verify(
    _client: *mut sys::rd_kafka_t,
    _broker: *const c_char,
    _id: i32,
    error: *mut c_int,
    _depth: c_int,
    _certificate: *const c_char,
    _bytes: usize,
    _reason: *mut c_char,
    _reason_bytes: usize,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: as the caller promises; both outlive the call.
    let (code, fault) = unsafe { (*error, &*opaque.cast_const().cast::<Fault>()) };
    if code != 0 {
        fault.0.store(code, Ordering::Release);
    }
    c_int::from(code == 0)
}

/// What librdkafka made, with the call that frees it.
struct Owned<T> {
    raw: *mut T,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: `raw` came from the call that `free` belongs to, and is freed only here.
            unsafe { (self.free)(self.raw) }
        }
    }
}

/// Asks a question of the administrative kind and waits for its answer.
fn ask<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    op: Op,
    send: impl FnOnce(
        *mut sys::rd_kafka_t,
        *mut sys::rd_kafka_AdminOptions_t,
        *mut sys::rd_kafka_queue_t,
    ),
) -> KafkaResult<Owned<sys::rd_kafka_event_t>> {
    let rk = client.client().native_ptr();
    let millis = c_int::try_from(ASK_TIMEOUT.as_millis()).unwrap_or(c_int::MAX);
    let mut problem: [c_char; 256] = [0; 256];
    // SAFETY: the client lives while it is borrowed; queue and options are freed by `Owned`,
    // the queue after the event that came by it.
    let event = unsafe {
        let queue = Owned { raw: sys::rd_kafka_queue_new(rk), free: sys::rd_kafka_queue_destroy };
        let options = sys::rd_kafka_AdminOptions_new(rk, op);
        let options = Owned { raw: options, free: sys::rd_kafka_AdminOptions_destroy };
        sys::rd_kafka_AdminOptions_set_request_timeout(
            options.raw,
            millis,
            problem.as_mut_ptr(),
            problem.len(),
        );
        send(rk, options.raw, queue.raw);
        // The request's own timeout comes first and says more.
        let event = sys::rd_kafka_queue_poll(queue.raw, millis.saturating_mul(2));
        Owned { raw: event, free: sys::rd_kafka_event_destroy }
    };
    if event.raw.is_null() {
        return Err(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut));
    }
    // SAFETY: the event lives, and the call only reads it.
    let code: RDKafkaErrorCode = unsafe { sys::rd_kafka_event_error(event.raw) }.into();
    if code == RDKafkaErrorCode::NoError { Ok(event) } else { Err(KafkaError::AdminOp(code)) }
}

/// SAFETY: the member lives until this returns.
unsafe fn read_member(member: *const sys::rd_kafka_MemberDescription_t) -> Member {
    // SAFETY: the calls only read the member, of which the assignment is a part.
    unsafe {
        let name = text(sys::rd_kafka_MemberDescription_consumer_id(member));
        let assignment = sys::rd_kafka_MemberDescription_assignment(member);
        let partitions = read_list(sys::rd_kafka_MemberAssignment_partitions(assignment));
        let partitions = partitions.into_iter().map(|one| (one.topic, one.partition));
        Member { name, partitions: partitions.collect() }
    }
}

/// SAFETY: the list is null or lives until this returns.
unsafe fn read_list(list: *const sys::rd_kafka_topic_partition_list_t) -> Vec<Element> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: a list holds `cnt` elements, each with a topic and `metadata_size` bytes.
    unsafe {
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        let read = |one: &sys::rd_kafka_topic_partition_t| {
            let code: RDKafkaErrorCode = one.err.into();
            Element {
                topic: text(one.topic),
                partition: u32::try_from(one.partition).unwrap_or(0),
                offset: u64::try_from(one.offset).ok(),
                metadata: array(one.metadata.cast(), one.metadata_size).to_vec(),
                error: (code != RDKafkaErrorCode::NoError).then_some(code),
            }
        };
        array((*list).elems, count).iter().map(read).collect()
    }
}

/// SAFETY: `first` is null or points to `count` values that live as long as what is returned.
unsafe fn array<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(first, count) }
}

/// SAFETY: the text is null or ends with a NUL.
unsafe fn text(raw: *const c_char) -> String {
    if raw.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(raw) }.to_string_lossy().into_owned()
}
