//! What the two sides of a consumer may rely on.

use std::time::Duration;

use super::*;

fn link(is_reader: bool) -> Link {
    let second = Duration::from_secs(1);
    Link::new(Bounds { ack_deadline: second, messages_max: 16, bytes_max: 1 << 20 }, is_reader)
}

fn at(partition: u32, fetch: u64, deliver: u64, end: u64) -> Begin {
    Begin { partition, fetch, deliver, gone: None, committed: Some(deliver), end }
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
    let mut deliveries = take(&link);
    let last = deliveries.split_off(1);
    link.lock().settle(&acks(last));
    assert_eq!(link.lock().commits(None), []);
    link.lock().settle(&acks(deliveries));
    assert_eq!(link.lock().commits(None), [(0, 8)]);
    assert_eq!(link.lock().commits(None), []);
    link.lock().uncommit([0]);
    assert_eq!(link.lock().commits(None), [(0, 8)]);
}

#[test]
fn tokens_of_a_partition_that_went_and_came_back_do_nothing() {
    let link = link(false);
    link.lock().begin(&at(0, 0, 0, 1));
    arrive(&link, 0, &[0]);
    let stale = take(&link);
    link.lock().remove(&[0]);
    link.lock().begin(&at(0, 0, 0, 1));
    arrive(&link, 0, &[0]);
    let again = take(&link);
    link.lock().settle(&acks(stale));
    assert_eq!(link.lock().commits(None), []);
    link.lock().settle(&acks(again));
    assert_eq!(link.lock().commits(None), [(0, 1)]);
}

#[test]
fn a_leaving_partition_delivers_nothing_new_and_still_settles() {
    let link = link(false);
    link.lock().begin(&at(0, 0, 0, 3));
    arrive(&link, 0, &[0]);
    let out = take(&link);
    link.lock().leave(&[0]);
    arrive(&link, 0, &[1, 2]);
    assert!(take(&link).is_empty());
    assert_eq!(link.lock().room(0), 0);
    assert!(link.lock().in_flight(&[0]));
    link.lock().settle(&acks(out));
    assert!(!link.lock().in_flight(&[0]));
    assert_eq!(link.lock().commits(Some(&[0])), [(0, 1)]);
}

#[test]
fn messages_before_the_wanted_offset_are_passed_over() {
    let link = link(false);
    link.lock().begin(&at(0, 3, 5, 3));
    arrive(&link, 0, &[3, 4]);
    assert!(take(&link).is_empty());
    assert_eq!(link.lock().positions(), BTreeMap::from([(0, 5)]));
    arrive(&link, 0, &[5, 6]);
    assert_eq!(offsets(&take(&link)), [5, 6]);
}

#[test]
fn a_reader_catches_up_once_over_all_partitions_and_places_without_messages() {
    let link = link(true);
    link.lock().begin(&at(0, 0, 0, 2));
    link.lock().begin(&at(1, 0, 0, 2));
    arrive(&link, 0, &[0, 1]);
    arrive(&link, 1, &[0]);
    assert_eq!(take(&link).len(), 3);
    assert!(link.lock().take_events().is_empty(), "the end of partition 1 is not reached");
    link.lock().reached_end(1);
    assert!(take(&link).is_empty());
    assert_eq!(link.lock().take_events(), [Event::CaughtUp]);
    arrive(&link, 1, &[2]);
    assert_eq!(take(&link).len(), 1);
    assert!(link.lock().take_events().is_empty());
}

#[test]
fn a_hole_that_retention_left_keeps_the_tokens_good() {
    let link = link(false);
    link.lock().begin(&at(0, 0, 0, 9));
    arrive(&link, 0, &[0]);
    let before = take(&link);
    link.lock().skip_to(0, 7);
    arrive(&link, 0, &[7, 8]);
    let behind = take(&link);
    assert_eq!(offsets(&behind), [7, 8]);
    link.lock().settle(&acks(behind));
    assert_eq!(link.lock().commits(None), []);
    link.lock().settle(&acks(before));
    assert_eq!(link.lock().commits(None), [(0, 9)]);
}

#[test]
fn partitions_take_turns() {
    let link = link(false);
    for number in 0..3 {
        link.lock().begin(&at(number, 0, 0, 9));
        arrive(&link, number, &[0, 1, 2]);
    }
    let topic = Topic::new("topic").unwrap();
    let one = || link.lock().take(&topic, 1).unwrap().unwrap()[0].position().partition();
    assert_eq!([one(), one(), one(), one()], [0, 1, 2, 0]);
}
