//! Kafka at `FOREBAY_TEST_KAFKA` (host:port). Tests share the server, which goes on.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use broker::config::{File, ProcessEnvironment};
use broker::conformance::Harness;
use broker::kafka::{Config, connect};
use broker::{
    AckToken, Broker, Consumer, Delivery, Event, Limit, Outcome, Subscription, Topic, TopicSpec,
};

mod attempts;
mod marks;
mod membership;
mod retention;
mod tombstones;

struct Kafka {
    config: String,
}

impl Kafka {
    /// The server that the environment names; without one the test can't run.
    fn found() -> Option<Self> {
        let Ok(servers) = std::env::var("FOREBAY_TEST_KAFKA") else {
            let missing = "FOREBAY_TEST_KAFKA is not set: start a server with scripts/servers";
            assert!(std::env::var_os("FOREBAY_REQUIRE_SERVERS").is_none(), "{missing}");
            eprintln!("not run: {missing}");
            return None;
        };
        let config = format!(
            "[kafka]\nbootstrap.servers = {servers}\nsession.timeout.ms = 6000\n\
             heartbeat.interval.ms = 500\n"
        );
        Some(Self { config })
    }

    /// The same server, with more in the section.
    fn found_with(lines: &str) -> Option<Self> {
        let found = Self::found()?;
        Some(Self { config: format!("{}{lines}", found.config) })
    }

    /// The group protocol of Kafka 4, in which brokers share out the partitions and say how
    /// long a session lasts.
    fn new_protocol() -> Option<Self> {
        let config = Self::found()?.config;
        let (servers, _) = config.split_once("session.timeout.ms")?;
        Some(Self { config: format!("{servers}group.protocol = consumer\n") })
    }
}

async fn open(config: &str) -> Arc<dyn Broker> {
    let file = File::parse(Path::new("kafka.ini"), config, &ProcessEnvironment).unwrap();
    connect(Config::from_section(&mut file.section("kafka")).unwrap()).await.unwrap()
}

#[async_trait]
impl Harness for Kafka {
    async fn broker(&self) -> Arc<dyn Broker> {
        open(&self.config).await
    }

    /// Other tests need the server to go on.
    async fn restart_server(&self) {}

    /// A static member that joins anew takes the place of the one before, which is fenced.
    async fn usurp(&self, subscription: &Subscription) -> Box<dyn Consumer> {
        assert!(subscription.instance.is_some(), "only a static member can be usurped");
        self.broker().await.subscribe(subscription.clone()).await.unwrap()
    }
}

/// A topic of its own.
async fn make_topic(broker: &Arc<dyn Broker>, name: &str, partitions: u32) -> Topic {
    let topic = Topic::new(&unique(name)).unwrap();
    broker.admin().create_topic(&TopicSpec::new(&topic, partitions)).await.unwrap();
    topic
}

fn unique(name: &str) -> String {
    format!("{name}-{:x}", broker::Timestamp::now().as_micros())
}

/// Receives until something came, with what happened before.
async fn receive(consumer: &mut dyn Consumer, events: &mut Vec<Event>) -> Vec<Delivery> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let limit = Limit::new(100, Duration::from_secs(1));
        let deliveries = consumer.receive(limit).await.unwrap();
        events.extend(consumer.events());
        if !deliveries.is_empty() {
            return deliveries;
        }
        assert!(Instant::now() < until, "nothing comes; events: {events:?}");
    }
}

fn outcomes(deliveries: Vec<Delivery>) -> Vec<(AckToken, Outcome)> {
    deliveries.into_iter().map(|delivery| (delivery.into_token(), Outcome::Ack)).collect()
}

broker::conformance_tests!(Kafka::found());

/// What depends on how partitions are shared out. A static member of this protocol can't be
/// usurped: brokers keep its name for as long as its session lasts.
mod new_protocol {
    use super::*;

    broker::conformance_tests! { @tests(Kafka::new_protocol());
        groups: [
            each_group_sees_everything,
            members_share_without_overlap_and_own_every_partition,
            a_member_that_leaves_frees_its_partitions_and_what_it_held,
            a_joining_member_takes_its_share_and_nothing_comes_twice,
            more_members_than_partitions_do_no_harm,
            a_group_consumes_several_topics,
        ]
        order: [
            a_group_that_has_a_position_ignores_the_start,
            a_group_that_started_at_the_latest_keeps_its_place,
        ]
        settle: [
            an_acknowledged_message_does_not_come_again,
            acknowledgements_out_of_order_commit_only_the_prefix,
            seeking_back_replays,
        ]
        lifecycle: [
            shutdown_flushes_what_was_settled,
            a_receive_that_is_dropped_loses_nothing,
        ]
        admin: [
            groups_are_listed_by_name,
            lag_counts_what_a_group_has_before_it,
            a_group_is_described_with_its_members,
            a_stopped_group_is_reset,
            a_stopped_group_is_deleted,
        ]
        transactions: [
            a_commit_publishes_and_settles_as_one,
            an_abort_leaves_nothing_and_the_deliveries_come_again,
            tokens_of_another_assignment_are_fenced,
            a_chain_of_transactions_gives_each_result_once,
        ]
        failure: [
            a_restart_resumes_from_the_committed_point,
        ]
    }
}

/// The delivery layer moves dead letters in Kafka's transactions.
mod delivery_layer {
    use super::*;
    use crate::layered::Layered;

    broker::conformance_tests! { @tests(Kafka::found().map(Layered));
        transactions: [
            a_commit_publishes_and_settles_as_one,
            nothing_is_visible_before_the_commit,
            an_abort_leaves_nothing_and_the_deliveries_come_again,
            a_dropped_transaction_is_aborted,
            tokens_of_another_assignment_are_fenced,
            a_commit_after_the_partition_was_lost_is_fenced,
            a_refused_message_fails_the_whole_transaction,
            a_chain_of_transactions_gives_each_result_once,
            a_reader_has_no_transactions,
        ]
    }
}
