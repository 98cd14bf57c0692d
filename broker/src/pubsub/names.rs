//! Names of topics and groups as Pub/Sub takes them.
//!
//! A subscription is called `TOPIC~GROUP`: our own names hold no `~`, so that it can be taken
//! apart again. What Pub/Sub would refuse is refused here, with the reason.

use crate::error::{Error, ErrorKind, Result};
use crate::name::{Group, Topic};

/// The longest id of a topic or subscription.
const ID_LENGTH_MAX: usize = 255;
/// The shortest one.
const ID_LENGTH_MIN: usize = 3;
/// Stands between a topic and a group.
const SEPARATOR: char = '~';
/// How much of a topic's name a reader's subscription shows.
const READER_TOPIC_LENGTH_MAX: usize = 200;

/// The project, which every name begins with.
#[derive(Debug, Clone)]
pub(super) struct Project(pub(super) String);

impl Project {
    /// What lists are asked for.
    pub(super) fn path(&self) -> String {
        format!("projects/{}", self.0)
    }

    /// The topic's full name.
    pub(super) fn topic(&self, operation: &'static str, topic: &Topic) -> Result<String> {
        let name = topic.as_str();
        let problem = if name.len() < ID_LENGTH_MIN {
            "pubsub takes no topic whose name is shorter than 3 characters"
        } else if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            "pubsub takes no topic whose name begins with anything but a letter"
        } else if name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("goog")) {
            "pubsub takes no topic whose name begins with goog"
        } else {
            return Ok(format!("projects/{}/topics/{name}", self.0));
        };
        Err(Error::new(ErrorKind::ConfigInvalid, operation, problem).with("topic", topic))
    }

    /// The full name of a group's subscription.
    pub(super) fn group(
        &self,
        operation: &'static str,
        topic: &Topic,
        group: &Group,
    ) -> Result<String> {
        self.topic(operation, topic)?;
        let id = format!("{topic}{SEPARATOR}{group}");
        if id.len() > ID_LENGTH_MAX {
            let problem = "the names of topic and group are together longer than 254 bytes";
            let error = Error::new(ErrorKind::ConfigInvalid, operation, problem);
            return Err(error.with("topic", topic).with("group", group));
        }
        Ok(self.subscription(&id))
    }

    /// A full name for a new reader's subscription, which no group has.
    pub(super) fn reader(&self, topic: &Topic) -> String {
        let name = topic.as_str();
        let shown = &name[..name.len().min(READER_TOPIC_LENGTH_MAX)];
        self.subscription(&format!("{shown}{SEPARATOR}{SEPARATOR}{:016x}", fastrand::u64(..)))
    }

    fn subscription(&self, id: &str) -> String {
        format!("projects/{}/subscriptions/{id}", self.0)
    }
}

/// The last part of a full name.
pub(super) fn id(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The topic and the group that a subscription stands for; `None` for a reader's or a foreign one.
pub(super) fn of_group(path: &str) -> Option<(Topic, Group)> {
    let (topic, group) = id(path).split_once(SEPARATOR)?;
    Some((Topic::new(topic).ok()?, Group::new(group).ok()?))
}

/// Whether this backend made the subscription, for a group or a reader.
pub(super) fn is_ours(path: &str) -> bool {
    id(path).contains(SEPARATOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> Project {
        Project("p".into())
    }

    #[test]
    fn names_that_pubsub_refuses_are_refused_with_the_reason() {
        let rows = [("ab", "3 characters"), ("1abc", "a letter"), ("Google-x", "goog")];
        for (name, reason) in rows {
            let error = project().topic("publish", &Topic::new(name).unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
            let shown = error.to_string();
            assert!(shown.contains(reason) && shown.contains(name), "{shown}");
        }
        let topic = Topic::new("images").unwrap();
        assert_eq!(project().topic("publish", &topic).unwrap(), "projects/p/topics/images");
    }

    #[test]
    fn a_groups_subscription_can_be_taken_apart() {
        let (topic, group) = (Topic::new("images").unwrap(), Group::new("a.b_c-9").unwrap());
        let path = project().group("subscribe", &topic, &group).unwrap();
        assert_eq!(path, "projects/p/subscriptions/images~a.b_c-9");
        assert_eq!(of_group(&path), Some((topic.clone(), group)));
        let long = Group::new(&"g".repeat(249)).unwrap();
        let error = project().group("subscribe", &topic, &long).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
    }

    #[test]
    fn a_readers_subscription_is_ours_and_no_groups() {
        let path = project().reader(&Topic::new(&"t".repeat(249)).unwrap());
        assert!(id(&path).len() <= ID_LENGTH_MAX && is_ours(&path), "{path}");
        assert_eq!(of_group(&path), None);
        assert!(!is_ours("projects/p/subscriptions/foreign"));
    }
}
