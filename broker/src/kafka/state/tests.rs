//! What the two sides of a consumer may rely on.

use std::time::Duration;

use super::*;

fn link(is_reader: bool) -> Link {
    let second = Duration::from_secs(1);
    Link::new(Bounds { ack_deadline: second, messages_max: 16, bytes_max: 1 << 20 }, is_reader)
}

fn at(partition: u32, fetch: u64, deliver: u64, end: u64) -> Begin {
    let committed = Some(Place { offset: deliver, starts: 0 });
    Begin { partition, fetch, deliver, gone: None, committed, end }
}

/// Commits what is to be committed, with success.
fn commit(link: &Link) -> Vec<(u32, u64, u32)> {
    let commits = link.lock().commits(Commits::Current);
    link.committed(&commits, true);
    places(&commits)
}

fn places(commits: &[Commit]) -> Vec<(u32, u64, u32)> {
    commits.iter().map(|c| (c.number, c.place.offset, c.place.starts)).collect()
}

/// Takes what is there, once its start is counted.
fn take_counted(link: &Link) -> Vec<Delivery> {
    let first = take(link);
    if !first.is_empty() || !link.lock().urgent {
        return first;
    }
    commit(link);
    take(link)
}

fn arrive(link: &Link, partition: u32, offsets: &[u64]) {
    link.arrive(partition, offsets, vec![Message::new("body"); offsets.len()]);
}

fn take(link: &Link) -> Vec<Delivery> {
    let taken = link.lock().take(&Topic::new("topic").unwrap(), 100);
    taken.map(Result::unwrap).unwrap_or_default()
}

fn offsets(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.position().offset()).collect()
}

fn acks(deliveries: Vec<Delivery>) -> Vec<(AckToken, Outcome)> {
    deliveries.into_iter().map(|delivery| (delivery.into_token(), Outcome::Ack)).collect()
}

#[test]
fn only_what_is_settled_without_a_hole_is_committed_and_only_once() {
    let link = link(false);
    link.lock().begin(&at(0, 5, 5, 8));
    arrive(&link, 0, &[5, 6, 7]);
    let mut deliveries = take_counted(&link);
    let last = deliveries.split_off(1);
    link.lock().settle(&acks(last));
    assert_eq!(commit(&link), []);
    link.lock().settle(&acks(deliveries));
    let commits = link.lock().commits(Commits::Current);
    assert_eq!(places(&commits), [(0, 8, 1)]);
    assert_eq!(commit(&link), []);
    link.committed(&commits, false);
    assert_eq!(commit(&link), [(0, 8, 1)]);
}

#[test]
fn tokens_of_a_partition_that_went_and_came_back_do_nothing() {
    let link = link(false);
    link.lock().begin(&at(0, 0, 0, 1));
    arrive(&link, 0, &[0]);
    let stale = take_counted(&link);
    link.lock().remove(&[0]);
    link.lock().begin(&at(0, 0, 0, 1));
    arrive(&link, 0, &[0]);
    let again = take_counted(&link);
    link.lock().settle(&acks(stale));
    assert_eq!(commit(&link), []);
    link.lock().settle(&acks(again));
    assert_eq!(commit(&link), [(0, 1, 1)]);
}

#[test]
fn a_leaving_partition_delivers_nothing_new_and_still_settles() {
    let link = link(false);
    link.lock().begin(&at(0, 0, 0, 3));
    arrive(&link, 0, &[0]);
    let out = take_counted(&link);
    link.lock().leave(&[0]);
    arrive(&link, 0, &[1, 2]);
    assert!(take_counted(&link).is_empty());
    assert_eq!(link.lock().room(0), 0);
    assert!(link.lock().in_flight(&[0]));
    link.lock().settle(&acks(out));
    assert!(!link.lock().in_flight(&[0]));
    let commits = link.lock().commits(Commits::Leaving(&[0]));
    assert_eq!(places(&commits), [(0, 1, 0)], "it leaves in order");
}

#[test]
fn messages_before_the_wanted_offset_are_passed_over() {
    let link = link(false);
    link.lock().begin(&at(0, 3, 5, 3));
    arrive(&link, 0, &[3, 4]);
    assert!(take_counted(&link).is_empty());
    assert_eq!(link.lock().positions(), BTreeMap::from([(0, 5)]));
    arrive(&link, 0, &[5, 6]);
    assert_eq!(offsets(&take_counted(&link)), [5, 6]);
}

#[test]
fn a_reader_catches_up_once_over_all_partitions_and_places_without_messages() {
    let link = link(true);
    link.lock().begin(&at(0, 0, 0, 2));
    link.lock().begin(&at(1, 0, 0, 2));
    arrive(&link, 0, &[0, 1]);
    arrive(&link, 1, &[0]);
    assert_eq!(take_counted(&link).len(), 3);
    assert!(link.lock().take_events().is_empty(), "the end of partition 1 is not reached");
    link.lock().reached_end(1, 2);
    assert!(take_counted(&link).is_empty());
    assert_eq!(link.lock().take_events(), [Event::CaughtUp]);
    arrive(&link, 1, &[2]);
    assert_eq!(take_counted(&link).len(), 1);
    assert!(link.lock().take_events().is_empty());
}

#[test]
fn a_member_settles_the_marks_behind_the_last_message() {
    let link = link(false);
    let committed = Some(Place { offset: 5, starts: 1 });
    link.lock().begin(&Begin { committed, ..at(0, 5, 5, 8) });
    link.lock().reached_end(0, 6);
    arrive(&link, 0, &[6]);
    let deliveries = take_counted(&link);
    assert_eq!(deliveries[0].attempt(), 2, "offset 5 is a mark, and the count is of the next");
    link.lock().reached_end(0, 8);
    assert_eq!(commit(&link), []);
    link.lock().settle(&acks(deliveries));
    assert_eq!(commit(&link), [(0, 8, 1)]);
    link.lock().reached_end(0, 3);
    assert_eq!(commit(&link), [], "an end of before tells nothing");
}

#[test]
fn a_hole_that_retention_left_keeps_the_tokens_good() {
    let link = link(false);
    link.lock().begin(&at(0, 0, 0, 9));
    arrive(&link, 0, &[0]);
    let before = take_counted(&link);
    link.lock().skip_to(0, 7);
    arrive(&link, 0, &[7, 8]);
    let behind = take_counted(&link);
    assert_eq!(offsets(&behind), [7, 8]);
    link.lock().settle(&acks(behind));
    assert_eq!(commit(&link), []);
    link.lock().settle(&acks(before));
    assert_eq!(commit(&link), [(0, 9, 1)]);
}

#[test]
fn partitions_take_turns() {
    let link = link(false);
    for number in 0..3 {
        link.lock().begin(&at(number, 0, 0, 9));
        arrive(&link, number, &[0, 1, 2]);
    }
    let topic = Topic::new("topic").unwrap();
    assert!(take(&link).is_empty());
    commit(&link);
    let one = || link.lock().take(&topic, 1).unwrap().unwrap()[0].position().partition();
    let turns = [one(), one(), one(), one()];
    assert_eq!(turns, [turns[3], (turns[0] + 1) % 3, (turns[0] + 2) % 3, turns[0]]);
}

#[test]
fn nothing_is_delivered_before_its_start_is_counted() {
    let link = link(false);
    link.lock().begin(&at(0, 5, 5, 8));
    arrive(&link, 0, &[5, 6]);
    assert!(take(&link).is_empty());
    let commits = link.lock().commits(Commits::Current);
    assert_eq!(places(&commits), [(0, 5, 1)]);
    assert!(take(&link).is_empty(), "the commit is on its way");
    link.committed(&commits, false);
    assert!(take(&link).is_empty(), "the commit failed");
    assert_eq!(commit(&link), [(0, 5, 1)]);
    assert_eq!(offsets(&take(&link)), [5, 6]);
}

#[test]
fn an_owner_that_delivered_nothing_is_not_counted() {
    let link = link(false);
    let committed = Some(Place { offset: 5, starts: 2 });
    link.lock().begin(&Begin { committed, ..at(0, 5, 5, 8) });
    arrive(&link, 0, &[5]);
    for which in [Commits::Current, Commits::Leaving(&[0]), Commits::Last] {
        assert_eq!(link.lock().commits(which), []);
    }
}

#[test]
fn an_owner_that_panics_is_counted_and_one_that_leaves_is_not() {
    let left = |panicked| {
        let link = link(false);
        link.lock().begin(&at(0, 5, 5, 8));
        arrive(&link, 0, &[5, 6]);
        assert_eq!(take_counted(&link).len(), 2);
        link.lock().panicked = panicked;
        let commits = link.lock().commits(Commits::Last);
        places(&commits)
    };
    assert_eq!(left(false), [(0, 5, 0)]);
    assert_eq!(left(true), []);
}

#[test]
fn after_two_deaths_each_message_is_committed_before_it_is_delivered_alone() {
    let link = link(false);
    let committed = Some(Place { offset: 5, starts: 2 });
    link.lock().begin(&Begin { committed, ..at(0, 5, 5, 8) });
    // Offset 5 is a place without a message: the count is of the one behind it.
    arrive(&link, 0, &[6, 7]);
    assert!(take(&link).is_empty());
    assert_eq!(commit(&link), [(0, 6, 3)]);
    let first = take(&link);
    assert_eq!((offsets(&first), first[0].attempt()), (vec![6], 3));
    link.lock().settle(&acks(first));
    assert!(take(&link).is_empty());
    assert_eq!(commit(&link), [(0, 7, 1)]);
    let second = take(&link);
    assert_eq!((offsets(&second), second[0].attempt()), (vec![7], 1));
}

fn begin(link: &Link, outcomes: &[(AckToken, Outcome)]) -> Result<Vec<Commit>> {
    link.begin_transaction(outcomes, Duration::from_secs(9))
}

#[test]
fn a_transaction_commits_alone_and_settles_at_its_end() {
    let link = link(false);
    link.lock().begin(&at(0, 5, 5, 8));
    arrive(&link, 0, &[5, 6, 7]);
    let outcomes = acks(take_counted(&link));
    let commits = begin(&link, &outcomes).unwrap();
    assert_eq!(places(&commits), [(0, 8, 1)]);
    assert_eq!(link.lock().commits(Commits::Current), []);
    link.lock().end_transaction(&outcomes, Some(&commits));
    assert_eq!(commit(&link), [], "it is committed");
    assert!(!link.lock().in_flight(&[0]));
}

#[test]
fn what_a_failed_transaction_was_to_settle_comes_again() {
    let link = link(false);
    link.lock().begin(&at(0, 5, 5, 8));
    arrive(&link, 0, &[5, 6]);
    let outcomes = acks(take_counted(&link));
    begin(&link, &outcomes).unwrap();
    link.lock().end_transaction(&outcomes, None);
    let again = take(&link);
    assert_eq!((offsets(&again), again[1].attempt()), (vec![5, 6], 2));
    assert_eq!(commit(&link), []);
}

#[test]
fn a_transaction_refuses_gaps_and_stale_tokens() {
    let link = link(false);
    link.lock().begin(&at(0, 5, 5, 8));
    arrive(&link, 0, &[5, 6]);
    let mut deliveries = take_counted(&link);
    let last = acks(deliveries.split_off(1));
    let kind = |outcomes: &[(AckToken, Outcome)]| begin(&link, outcomes).unwrap_err().kind();
    assert_eq!(kind(&last), ErrorKind::Unsupported);
    link.lock().begin(&at(0, 5, 5, 8));
    assert_eq!(kind(&acks(deliveries)), ErrorKind::Fenced);
    assert!(!link.lock().transacting);
}
