//! The names of keys.

use std::sync::Arc;

use crate::name::{Group, Topic};

/// Where the set of all topics is.
pub(super) fn topics(prefix: &str) -> String {
    format!("{prefix}topics")
}

/// The hash that describes a topic.
pub(super) fn topic(prefix: &str, topic: &Topic) -> String {
    format!("{prefix}{{{topic}}}")
}

/// The hash of a topic's members; in the slot of the topic's own hash.
pub(super) fn members(prefix: &str, name: &Topic) -> String {
    format!("{}:members", topic(prefix, name))
}

/// The stream of a partition.
pub(super) fn stream(prefix: &str, topic: &Topic, partition: u32) -> String {
    format!("{prefix}{{{topic}/{partition}}}")
}

/// The lease of a group on a stream; in the stream's slot.
pub(super) fn lease(stream: &str, group: &Group) -> String {
    format!("{stream}:{group}")
}

/// A topic with the keys of its partitions, in the order of their numbers.
#[derive(Debug)]
pub(super) struct TopicKeys {
    pub(super) topic: Topic,
    pub(super) description: String,
    pub(super) members: String,
    pub(super) streams: Vec<Arc<str>>,
}

impl TopicKeys {
    pub(super) fn new(prefix: &str, name: &Topic, partitions: u32) -> Self {
        Self {
            topic: name.clone(),
            description: topic(prefix, name),
            members: members(prefix, name),
            streams: (0..partitions).map(|number| stream(prefix, name, number).into()).collect(),
        }
    }

    /// The streams with their numbers.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (u32, &Arc<str>)> {
        (0..).zip(&self.streams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partitions_keys_share_a_tag_and_a_tagged_prefix_comes_first() {
        let (topic, group) = (Topic::new("images").unwrap(), Group::new("g").unwrap());
        let stream = stream("forebay:", &topic, 3);
        assert_eq!(stream, "forebay:{images/3}");
        assert_eq!(lease(&stream, &group), "forebay:{images/3}:g");
        assert_eq!(members("forebay:", &topic), "forebay:{images}:members");
        assert_eq!(super::stream("{all}:", &topic, 0), "{all}:{images/0}");
    }
}
