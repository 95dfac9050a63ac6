//! What a failed delivery means.

use rdkafka::error::RDKafkaErrorCode as Code;

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Something outside is missing: wait, and send it again, as long as it takes.
    Outage,
    /// This message will never be taken.
    Refused,
    /// It may be either: send it again some times.
    Unclear,
}

/// What an error says about the message that it was the answer to. Codes are those of Kafka's protocol guide, "Error codes", and
/// (with negative numbers there) librdkafka's own.
pub(super) fn verdict(code: Code) -> Verdict {
    use Code::{
        AllBrokersDown, Authentication, BrokerDestroy, BrokerNotAvailable, BrokerTransportFailure,
        ClusterAuthorizationFailed, CoordinatorLoadInProgress, CoordinatorNotAvailable, InvalidMessageSize,
        InvalidRecord, InvalidTimestamp, KafkaStorageError, LeaderNotAvailable, MessageSizeTooLarge, MessageTimedOut,
        NetworkException, NotCoordinator, NotEnoughReplicas, NotEnoughReplicasAfterAppend, NotLeaderForPartition,
        PolicyViolation, PurgeInflight, PurgeQueue, QueueFull, ReplicaNotAvailable, RequestTimedOut, Resolve, SSL,
        SaslAuthenticationFailed, ThrottlingQuotaExceeded, TopicAuthorizationFailed, UnknownPartition, UnknownTopic,
        UnknownTopicOrPartition, WaitingForCoordinator,
    };
    match code {
        MessageSizeTooLarge | InvalidMessageSize | InvalidRecord | InvalidTimestamp | PolicyViolation => {
            Verdict::Refused
        }
        AllBrokersDown
        | Authentication
        | BrokerDestroy
        | BrokerNotAvailable
        | BrokerTransportFailure
        | ClusterAuthorizationFailed
        | CoordinatorLoadInProgress
        | CoordinatorNotAvailable
        | KafkaStorageError
        | LeaderNotAvailable
        | MessageTimedOut
        | NetworkException
        | NotCoordinator
        | NotEnoughReplicas
        | NotEnoughReplicasAfterAppend
        | NotLeaderForPartition
        | PurgeInflight
        | PurgeQueue
        | QueueFull
        | ReplicaNotAvailable
        | RequestTimedOut
        | Resolve
        | SaslAuthenticationFailed
        | SSL
        | ThrottlingQuotaExceeded
        | TopicAuthorizationFailed
        | UnknownPartition
        | UnknownTopic
        | UnknownTopicOrPartition
        | WaitingForCoordinator => Verdict::Outage,
        _ => Verdict::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_waited_for_and_what_the_message_is_to_blame_for_is_not() {
        for code in [Code::MessageTimedOut, Code::UnknownTopicOrPartition, Code::TopicAuthorizationFailed] {
            assert_eq!(verdict(code), Verdict::Outage);
        }
        for code in [Code::MessageSizeTooLarge, Code::InvalidRecord] {
            assert_eq!(verdict(code), Verdict::Refused);
        }
        assert_eq!(verdict(Code::Unknown), Verdict::Unclear);
    }
}
