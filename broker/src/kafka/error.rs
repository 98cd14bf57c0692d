//! What librdkafka reports, as errors of the contract.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::error::{Error, ErrorKind};

/// Translates an error met while doing `operation`.
pub(super) fn translate(operation: &'static str, error: KafkaError) -> Error {
    match error {
        // The value may be a secret, so that neither it nor the source is kept.
        KafkaError::ClientConfig(_, problem, key, value) => {
            let problem = if value.is_empty() { problem } else { problem.replace(&value, "…") };
            Error::new(ErrorKind::ConfigInvalid, operation, problem).with("key", key)
        }
        KafkaError::ClientCreation(problem) => {
            Error::new(ErrorKind::ConfigInvalid, operation, problem)
        }
        KafkaError::AdminOpCreation(problem) => {
            Error::new(ErrorKind::ConfigInvalid, operation, problem)
        }
        KafkaError::Nul(_) => {
            Error::new(ErrorKind::ConfigInvalid, operation, "a name or value holds a NUL")
        }
        KafkaError::Canceled => Error::new(ErrorKind::Closed, operation, "the client was closed"),
        KafkaError::AdminOp(code) => from_code(operation, code).with_source(error),
        _ => match error.rdkafka_error_code() {
            Some(code) => from_code(operation, code).with_source(error),
            None => Error::new(ErrorKind::Unexpected, operation, error.to_string()),
        },
    }
}

/// Translates a bare code.
pub(super) fn from_code(operation: &'static str, code: RDKafkaErrorCode) -> Error {
    let error = Error::new(kind(code), operation, text(code));
    // The name of a static member that died is free once its session has run out.
    let frees_itself = code == RDKafkaErrorCode::UnreleasedInstanceId;
    if frees_itself { error.with_retryable(true) } else { error }
}

fn text(code: RDKafkaErrorCode) -> String {
    let mut text = code.to_string();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    text
}

fn kind(code: RDKafkaErrorCode) -> ErrorKind {
    use RDKafkaErrorCode as C;
    match code {
        C::UnknownTopic
        | C::UnknownTopicOrPartition
        | C::UnknownPartition
        | C::GroupIdNotFound
        | C::ResourceNotFound => ErrorKind::NotFound,
        C::TopicAlreadyExists => ErrorKind::AlreadyExists,
        C::Authentication
        | C::SaslAuthenticationFailed
        | C::IllegalSASLState
        | C::UnsupportedSASLMechanism
        | C::SSL
        | C::TopicAuthorizationFailed
        | C::GroupAuthorizationFailed
        | C::ClusterAuthorizationFailed
        | C::TransactionalIdAuthorizationFailed => ErrorKind::PermissionDenied,
        C::MessageSizeTooLarge | C::MessageBatchTooLarge | C::InvalidMessageSize => {
            ErrorKind::TooLarge
        }
        C::Fenced
        | C::FencedInstanceId
        | C::ProducerFenced
        | C::InvalidProducerEpoch
        | C::IllegalGeneration
        | C::UnknownMemberId
        | C::FencedMemberEpoch
        | C::StaleMemberEpoch
        | C::AssignmentLost => ErrorKind::Fenced,
        C::NonEmptyGroup | C::GroupSubscribedToTopic | C::UnreleasedInstanceId => ErrorKind::InUse,
        C::QueueFull | C::ThrottlingQuotaExceeded => ErrorKind::Throttled,
        C::MessageTimedOut | C::OperationTimedOut | C::RequestTimedOut | C::TimedOutQueue => {
            ErrorKind::Timeout
        }
        code if is_outage(code) => ErrorKind::Unavailable,
        C::BadMessage | C::InvalidMessage | C::BadCompression => ErrorKind::Corrupt,
        C::PurgeQueue | C::PurgeInflight => ErrorKind::Closed,
        code if is_unsupported(code) => ErrorKind::Unsupported,
        code if is_refused_config(code) => ErrorKind::ConfigInvalid,
        _ => ErrorKind::Unexpected,
    }
}

/// What passes once brokers, leaders or coordinators are back.
fn is_outage(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as C;
    matches!(
        code,
        C::BrokerTransportFailure
            | C::AllBrokersDown
            | C::BrokerDestroy
            | C::Resolve
            | C::NetworkException
            | C::BrokerNotAvailable
            | C::LeaderNotAvailable
            | C::ReplicaNotAvailable
            | C::PreferredLeaderNotAvailable
            | C::EligibleLeadersNotAvailable
            | C::NotLeaderForPartition
            | C::FencedLeaderEpoch
            | C::UnknownLeaderEpoch
            | C::OffsetNotAvailable
            | C::UnstableOffsetCommit
            | C::CoordinatorLoadInProgress
            | C::CoordinatorNotAvailable
            | C::NotCoordinator
            | C::WaitingForCoordinator
            | C::NotController
            | C::RebalanceInProgress
            | C::NotEnoughReplicas
            | C::NotEnoughReplicasAfterAppend
            | C::ISRInsufficient
            | C::KafkaStorageError
    )
}

fn is_unsupported(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as C;
    matches!(
        code,
        C::UnsupportedFeature
            | C::UnsupportedVersion
            | C::UnsupportedForMessageFormat
            | C::UnsupportedCompressionType
            | C::NotImplemented
            | C::TopicDeletionDisabled
            | C::SecurityDisabled
    )
}

fn is_refused_config(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as C;
    matches!(
        code,
        C::InvalidArgument
            | C::InvalidConfig
            | C::InvalidTopic
            | C::InvalidPartitions
            | C::InvalidReplicationFactor
            | C::InvalidReplicaAssignment
            | C::InvalidGroupId
            | C::InvalidSessionTimeout
            | C::InconsistentGroupProtocol
            | C::PolicyViolation
    )
}

#[cfg(test)]
mod tests {
    use rdkafka::types::RDKafkaConfRes;

    use super::*;

    #[test]
    fn each_code_has_its_kind_and_says_whether_to_retry() {
        use RDKafkaErrorCode as C;
        let rows = [
            (C::UnknownTopic, ErrorKind::NotFound, false),
            (C::UnknownTopicOrPartition, ErrorKind::NotFound, false),
            (C::UnknownPartition, ErrorKind::NotFound, false),
            (C::GroupIdNotFound, ErrorKind::NotFound, false),
            (C::TopicAlreadyExists, ErrorKind::AlreadyExists, false),
            (C::Authentication, ErrorKind::PermissionDenied, false),
            (C::SaslAuthenticationFailed, ErrorKind::PermissionDenied, false),
            (C::TopicAuthorizationFailed, ErrorKind::PermissionDenied, false),
            (C::GroupAuthorizationFailed, ErrorKind::PermissionDenied, false),
            (C::ClusterAuthorizationFailed, ErrorKind::PermissionDenied, false),
            (C::MessageSizeTooLarge, ErrorKind::TooLarge, false),
            (C::MessageBatchTooLarge, ErrorKind::TooLarge, false),
            (C::Fenced, ErrorKind::Fenced, false),
            (C::FencedInstanceId, ErrorKind::Fenced, false),
            (C::InvalidProducerEpoch, ErrorKind::Fenced, false),
            (C::IllegalGeneration, ErrorKind::Fenced, false),
            (C::UnknownMemberId, ErrorKind::Fenced, false),
            (C::ProducerFenced, ErrorKind::Fenced, false),
            (C::StaleMemberEpoch, ErrorKind::Fenced, false),
            (C::NonEmptyGroup, ErrorKind::InUse, false),
            (C::UnreleasedInstanceId, ErrorKind::InUse, true),
            (C::QueueFull, ErrorKind::Throttled, true),
            (C::ThrottlingQuotaExceeded, ErrorKind::Throttled, true),
            (C::MessageTimedOut, ErrorKind::Timeout, true),
            (C::OperationTimedOut, ErrorKind::Timeout, true),
            (C::RequestTimedOut, ErrorKind::Timeout, true),
            (C::BrokerTransportFailure, ErrorKind::Unavailable, true),
            (C::AllBrokersDown, ErrorKind::Unavailable, true),
            (C::BrokerDestroy, ErrorKind::Unavailable, true),
            (C::Resolve, ErrorKind::Unavailable, true),
            (C::LeaderNotAvailable, ErrorKind::Unavailable, true),
            (C::CoordinatorNotAvailable, ErrorKind::Unavailable, true),
            (C::NotEnoughReplicas, ErrorKind::Unavailable, true),
            (C::RebalanceInProgress, ErrorKind::Unavailable, true),
            (C::KafkaStorageError, ErrorKind::Unavailable, true),
            (C::InvalidMessage, ErrorKind::Corrupt, false),
            (C::BadCompression, ErrorKind::Corrupt, false),
            (C::PurgeQueue, ErrorKind::Closed, false),
            (C::PurgeInflight, ErrorKind::Closed, false),
            (C::UnsupportedVersion, ErrorKind::Unsupported, false),
            (C::TopicDeletionDisabled, ErrorKind::Unsupported, false),
            (C::InvalidTopic, ErrorKind::ConfigInvalid, false),
            (C::InvalidReplicationFactor, ErrorKind::ConfigInvalid, false),
            (C::InvalidSessionTimeout, ErrorKind::ConfigInvalid, false),
            (C::Fatal, ErrorKind::Unexpected, false),
            (C::InvalidRecord, ErrorKind::Unexpected, false),
        ];
        for (code, kind, retryable) in rows {
            for error in [KafkaError::Global(code), KafkaError::AdminOp(code)] {
                let error = translate("publish", error);
                assert_eq!((error.kind(), error.is_retryable()), (kind, retryable), "{code:?}");
                assert_eq!(error.operation(), "publish");
            }
        }
    }

    #[test]
    fn a_refused_key_is_named_and_its_value_is_not() {
        let refused = KafkaError::ClientConfig(
            RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "Invalid value \"s3cret\"".into(),
            "sasl.password".into(),
            "s3cret".into(),
        );
        let error = translate("connect", refused);
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
        let shown = format!("{error:?}");
        assert!(shown.contains("sasl.password") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn errors_without_a_code_keep_their_text() {
        let error = translate("seek", KafkaError::Seek("Local: Erroneous state".into()));
        assert_eq!(error.kind(), ErrorKind::Unexpected);
        assert!(error.to_string().contains("Erroneous state"), "{error}");
        assert_eq!(translate("x", KafkaError::Canceled).kind(), ErrorKind::Closed);
    }
}
