//! The rules that every backend keeps, one function each, to run against any of them.
//!
//! A backend implements [`Harness`] and writes one line, [`conformance_tests!`]; every rule
//! then appears as a test of its own. Rules share a server and run side by side, so each
//! makes topics and groups of unique names. A rule that needs a capability which the backend
//! lacks asserts that the matching call answers `Unsupported`: it is never skipped. Those who
//! run the suite outside a test take the rules from [`RULES`].
//!
//! [`conformance_tests!`]: crate::conformance_tests
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "this is a test library: a broken rule is reported by a panic"
)]

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::LocalBoxFuture;

use crate::contract::{Broker, Consumer};
use crate::policy::Policy;
use crate::subscription::Subscription;

pub mod absent;
pub mod admin;
pub mod changelog;
pub mod compaction;
pub mod dead_letters;
pub mod failure;
pub mod faults;
pub mod groups;
pub mod lifecycle;
pub mod load;
pub mod order;
pub mod payload;
pub mod readers;
pub mod settle;
mod stage;
pub mod transactions;
pub mod typed;

pub use stage::is_of_this_run;

/// How long one rule may run before it counts as hung.
const RULE_TIME_MAX: Duration = Duration::from_secs(180);

/// What the rules need of a backend. Each test makes a harness of its own.
#[async_trait]
pub trait Harness: Send + Sync {
    /// A fresh connection to the same data, as another process would make it.
    async fn broker(&self) -> Arc<dyn Broker>;

    /// A fresh connection under the delivery layer, with a default policy.
    async fn delivery_layer(&self, default: Policy) -> Arc<dyn Broker> {
        crate::layers::Delivery::wrap(self.broker().await, default)
    }

    /// Restarts the server, after which only fresh connections are used. Does nothing where
    /// the tests share a server that must go on: then the rule only connects anew.
    async fn restart_server(&self);

    /// Whether a compacted topic of a few messages is compacted while a rule waits.
    fn compacts_soon(&self) -> bool {
        false
    }

    /// Makes the backend take the group's only member for dead while it lives, as a long stall
    /// would, and returns the member that takes its place. Both subscribed alike.
    async fn usurp(&self, subscription: &Subscription) -> Box<dyn Consumer>;
}

/// A rule as a value, for those who run the suite outside a test.
pub struct Rule {
    /// What it is about.
    pub group: &'static str,
    /// What it says: a sentence in snake case.
    pub name: &'static str,
    /// The rule's function.
    play: for<'a> fn(&'a dyn Harness) -> LocalBoxFuture<'a, ()>,
}

/// All rules, in the order in which they make sense to a reader.
pub const RULES: &[Rule] = crate::conformance_tests! { @rules list() };

impl Rule {
    /// Holds a backend to the rule; the error says what is broken. A rule that hangs is broken.
    ///
    /// The process's panic hook runs for a broken rule, as in a test.
    pub async fn play(&self, harness: &dyn Harness) -> Result<(), String> {
        let outcome = AssertUnwindSafe(within_time((self.play)(harness))).catch_unwind().await;
        outcome.map_err(|panic| match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(panic) => {
                let message = panic.downcast_ref::<&str>().copied();
                message.unwrap_or("the rule is broken").to_owned()
            }
        })
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.group, self.name)
    }
}

/// Ends a rule that hangs.
#[doc(hidden)]
pub async fn within_time(rule: impl Future<Output = ()>) {
    tokio::time::timeout(RULE_TIME_MAX, rule).await.expect("the rule hangs");
}

/// Makes every rule a test. The expression is evaluated in each; it gives a
/// `Option<impl Harness>`, with `None` (which it has explained on its own) where the test
/// cannot run. The calling crate needs tokio with `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! conformance_tests {
    ($harness:expr) => {
        $crate::conformance_tests! { @rules tests($harness) }
    };
    // The one list of rules, for whatever is to be made of it.
    (@rules $what:ident($($harness:expr)?)) => {
        $crate::conformance_tests! { @$what($($harness)?);
            payload: [
                an_empty_payload_round_trips,
                every_byte_round_trips,
                the_largest_message_round_trips,
                one_byte_too_many_is_refused_while_the_rest_is_written,
                headers_keep_bytes_order_and_repeats,
                a_key_an_empty_key_and_no_key_are_told_apart,
                a_timestamp_round_trips_to_the_millisecond,
                an_absent_timestamp_is_filled_in,
                an_empty_batch_is_published_as_nothing,
            ]
            order: [
                a_key_keeps_its_order_over_batches_and_partitions,
                equal_keys_share_the_partition_that_java_clients_choose,
                a_start_at_the_earliest_sees_everything,
                a_start_at_the_latest_sees_only_what_comes_after,
                a_start_at_an_offset_sees_it_first,
                a_start_beyond_the_end_waits_for_that_offset,
                a_start_at_a_time_sees_the_first_message_of_then,
                a_group_that_has_a_position_ignores_the_start,
                a_group_that_started_at_the_latest_keeps_its_place,
            ]
            groups: [
                each_group_sees_everything,
                members_share_without_overlap_and_own_every_partition,
                a_member_that_leaves_frees_its_partitions_and_what_it_held,
                a_joining_member_takes_its_share_and_nothing_comes_twice,
                more_members_than_partitions_do_no_harm,
                a_group_consumes_several_topics,
            ]
            readers: [
                a_reader_sees_everything_and_is_told_that_it_caught_up,
                a_reader_of_an_empty_topic_is_told_that_it_caught_up,
                a_reader_goes_on_after_it_caught_up,
                two_readers_do_not_disturb_each_other,
                a_reader_settles_nothing,
            ]
            settle: [
                an_acknowledged_message_does_not_come_again,
                a_retry_comes_again_after_its_delay_with_a_higher_attempt,
                a_retry_holds_back_its_key_and_no_other,
                silence_brings_a_message_again_after_the_deadline,
                a_late_acknowledgement_does_nothing_and_is_no_failure,
                an_extended_delivery_stays_out_longer,
                acknowledgements_out_of_order_commit_only_the_prefix,
                seeking_back_replays,
                seeking_forward_skips,
                seeking_a_partition_of_others_is_not_found,
            ]
            lifecycle: [
                a_missing_topic_is_not_found_at_first_use,
                a_topic_is_made_only_once,
                of_several_who_make_a_topic_at_once_one_succeeds,
                a_deleted_topic_is_not_found,
                a_topic_made_anew_starts_from_nothing,
                everything_is_closed_after_shutdown,
                shutdown_flushes_what_was_published,
                shutdown_flushes_what_was_settled,
                a_receive_that_is_dropped_loses_nothing,
                receive_waits_as_long_as_it_was_told,
                receive_returns_as_soon_as_a_message_is_there,
                messages_come_though_nobody_takes_the_events,
                a_receive_that_must_not_wait_brings_what_is_there,
            ]
            admin: [
                describe_tells_the_bounds_of_each_partition,
                topics_are_listed_by_name,
                groups_are_listed_by_name,
                lag_counts_what_a_group_has_before_it,
                a_group_is_described_with_its_members,
                starts_are_resolved_to_offsets,
                a_stopped_group_is_reset,
                a_stopped_group_is_deleted,
            ]
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
            failure: [
                a_restart_resumes_from_the_committed_point,
                a_restart_keeps_what_was_written,
                a_member_taken_for_dead_settles_nothing,
                health_tells_whether_the_broker_answers,
            ]
            load: [
                many_publishers_and_members_lose_and_invent_nothing,
                a_batch_of_many_megabytes_is_written_whole_and_in_order,
                a_slow_consumer_never_holds_more_than_its_bound,
                a_slow_consumer_never_holds_more_bytes_than_its_bound,
            ]
            faults: [
                a_nul_in_a_headers_value_is_kept,
                a_nul_in_a_headers_name_is_kept_or_refused,
                a_key_over_the_limit_is_refused_while_the_rest_is_written,
                a_backlog_in_one_partition_starves_no_other,
            ]
            compaction: [
                the_last_message_of_each_key_is_kept_at_its_offset,
                a_group_settles_a_compacted_topic_to_its_end,
                a_message_without_a_key_is_refused,
                a_tombstone_is_told_from_an_empty_message,
            ]
            changelog: [
                state_follows_its_partition,
                an_aborted_step_leaves_no_state,
                an_owner_of_before_writes_no_state,
            ]
            dead_letters: [
                a_rejected_message_goes_to_the_dead_letters_as_it_was,
                the_stream_goes_on_behind_a_rejected_message,
                a_message_out_of_attempts_goes_to_the_dead_letters,
                a_message_that_meets_silence_runs_out_of_attempts_too,
                the_largest_message_fits_as_a_dead_letter,
                a_dead_letter_that_is_refused_leaves_its_source_unsettled,
                the_default_policy_serves_where_the_subscription_has_none,
            ]
            typed: [
                a_typed_value_round_trips,
                a_cloud_event_survives_in_binary_mode,
                a_cloud_event_survives_in_structured_mode,
                a_bad_payload_is_a_reject_with_its_cause,
            ]
            absent: [
                lag_is_told_or_unsupported,
                partitions_are_made_or_unsupported,
                offsets_are_found_or_unsupported,
                transactions_begin_or_are_unsupported,
            ]
        }
    };
    (@list(); $($group:ident: [$($rule:ident,)*])*) => {
        &[$($($crate::conformance::Rule {
            group: stringify!($group),
            name: stringify!($rule),
            play: |harness| Box::pin($crate::conformance::$group::$rule(harness)),
        },)*)*]
    };
    (@tests($harness:expr); $($group:ident: [$($rule:ident,)*])*) => {
        $(
            mod $group {
                use super::*;
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $rule() {
                        let Some(harness) = $harness else { return };
                        let rule = $crate::conformance::$group::$rule(&harness);
                        $crate::conformance::within_time(rule).await;
                    }
                )*
            }
        )*
    };
}
