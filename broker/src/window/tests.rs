//! The window's rules, each on a small log.

use super::*;
use crate::message::Message;

const DEADLINE: Duration = Duration::from_secs(8);

fn window(keys: &[&'static str]) -> Window {
    let bounds = Bounds { ack_deadline: DEADLINE, messages_max: 100, bytes_max: 1 << 20 };
    let mut window = Window::new(bounds, 0, 0);
    add(&mut window, keys);
    window
}

fn add(window: &mut Window, keys: &[&'static str]) {
    let from = window.next();
    let messages = keys.iter().map(|key| Message::new("payload").with_key(*key)).collect();
    let offsets = from..;
    window.extend(offsets.zip(Shared::all(messages)), from + keys.len() as u64);
}

fn deliver(window: &mut Window, now: Instant) -> Vec<(u64, u32)> {
    let mut all = Vec::new();
    window.deliver(now, 100, |offset, attempt, _| all.push((offset, attempt)));
    all
}

#[test]
fn only_the_settled_prefix_is_committed() {
    let mut window = window(&["a", "b", "c"]);
    let now = Instant::now();
    assert_eq!(deliver(&mut window, now), [(0, 1), (1, 1), (2, 1)]);
    window.ack(1, 1);
    assert_eq!(window.settled(), 0);
    window.ack(0, 1);
    assert_eq!(window.settled(), 2);
    window.advance();
    assert_eq!(window.settled(), 2);
    window.ack(2, 1);
    assert_eq!(window.settled(), 3);
}

#[test]
fn silence_brings_a_delivery_again_and_a_late_ack_does_nothing() {
    let mut window = window(&["a", "b"]);
    let now = Instant::now();
    deliver(&mut window, now);
    window.ack(1, 1);
    let later = now + DEADLINE * 2;
    assert_eq!(deliver(&mut window, later), [(0, 2)]);
    window.ack(0, 1);
    assert_eq!(window.settled(), 0, "the first delivery's token is stale");
    window.ack(0, 2);
    assert_eq!(window.settled(), 2);
}

#[test]
fn extending_keeps_a_delivery_out_for_longer() {
    let mut window = window(&["a"]);
    let now = Instant::now();
    deliver(&mut window, now);
    window.postpone(0, 1, now + DEADLINE * 4);
    assert!(deliver(&mut window, now + DEADLINE * 2).is_empty());
    assert_eq!(deliver(&mut window, now + DEADLINE * 5), [(0, 2)]);
}

#[test]
fn a_held_message_holds_later_ones_of_its_key_only() {
    let mut window = window(&["a"]);
    let now = Instant::now();
    deliver(&mut window, now);
    window.retry(0, 1, now + Duration::from_secs(1));
    add(&mut window, &["b", "a", "b"]);
    assert_eq!(deliver(&mut window, now), [(1, 1), (3, 1)]);
    assert_eq!(window.next_wake(), Some(now + Duration::from_secs(1)));
    let later = now + Duration::from_secs(2);
    assert_eq!(deliver(&mut window, later), [(0, 2), (2, 1)]);
}

#[test]
fn a_failed_commit_brings_the_messages_again() {
    let mut window = window(&["a", "b"]);
    let now = Instant::now();
    deliver(&mut window, now);
    window.ack(0, 1);
    window.reopen(0, 1);
    assert_eq!(window.settled(), 0);
    assert_eq!(deliver(&mut window, now), [(0, 2)]);
}

#[test]
fn a_crashed_owners_deliveries_count() {
    let bounds = Bounds { ack_deadline: DEADLINE, messages_max: 100, bytes_max: 1 << 20 };
    let mut window = Window::new(bounds, 7, 1);
    add(&mut window, &["a", "b"]);
    assert_eq!(deliver(&mut window, Instant::now()), [(7, 2), (8, 1)]);
}

#[test]
fn the_bounds_leave_no_room_until_the_prefix_settles() {
    let bounds = Bounds { ack_deadline: DEADLINE, messages_max: 2, bytes_max: 1 << 20 };
    let mut window = Window::new(bounds, 0, 0);
    add(&mut window, &["a", "b"]);
    deliver(&mut window, Instant::now());
    assert_eq!(window.room(), 0);
    window.ack(0, 1);
    window.advance();
    assert_eq!(window.room(), 1);
}

#[test]
fn offsets_with_gaps_are_found() {
    let bounds = Bounds { ack_deadline: DEADLINE, messages_max: 9, bytes_max: 1 << 20 };
    let mut window = Window::new(bounds, 0, 0);
    let messages = Shared::all(vec![Message::new("x"); 3]);
    window.extend([2, 5, 9].into_iter().zip(messages), 12);
    deliver(&mut window, Instant::now());
    window.ack(5, 1);
    window.ack(2, 1);
    assert_eq!(window.settled(), 9);
    window.ack(9, 1);
    assert_eq!(window.settled(), 12);
}

#[test]
fn what_is_out_stays_within_the_bytes_but_one_message_always_goes() {
    let bounds = Bounds { ack_deadline: DEADLINE, messages_max: 9, bytes_max: 10 };
    let mut window = Window::new(bounds, 0, 0);
    add(&mut window, &["a", "b"]);
    let large = vec![Message::new("more than ten bytes")];
    window.extend([2].into_iter().zip(Shared::all(large)), 3);
    let now = Instant::now();
    for offset in 0..3 {
        assert_eq!(deliver(&mut window, now), [(offset, 1)]);
        assert!(deliver(&mut window, now).is_empty());
        window.ack(offset, 1);
    }
    assert_eq!(window.settled(), 3);
}

#[test]
fn after_two_crashes_at_one_offset_messages_go_singly() {
    let bounds = Bounds { ack_deadline: DEADLINE, messages_max: 2, bytes_max: 1 << 20 };
    let mut window = Window::new(bounds, 7, 2);
    let now = Instant::now();
    add(&mut window, &["a", "b"]);
    assert_eq!(deliver(&mut window, now), [(7, 3)]);
    assert!(deliver(&mut window, now).is_empty());
    window.ack(7, 3);
    assert_eq!(deliver(&mut window, now), [(8, 1)]);
    window.ack(8, 1);
    window.advance();
    add(&mut window, &["c", "d"]);
    assert_eq!(deliver(&mut window, now), [(9, 1), (10, 1)], "the suspects have passed");
}

#[test]
fn innocent_messages_go_in_rounds_that_grow() {
    let bounds = Bounds { ack_deadline: DEADLINE, messages_max: 10_000, bytes_max: 1 << 20 };
    let mut window = Window::new(bounds, 0, 2);
    let now = Instant::now();
    add(&mut window, &["key"; 5000]);
    let mut rounds = Vec::new();
    while window.settled() < 5000 {
        let mut out = Vec::new();
        window.deliver(now, 10_000, |offset, attempt, _| out.push((offset, attempt)));
        let given = out.len();
        window.deliver(now, 10_000, |offset, attempt, _| out.push((offset, attempt)));
        assert_eq!(out.len(), given, "a round ends before the next begins");
        assert!(out.iter().all(|(offset, attempt)| window.ack(*offset, *attempt)));
        window.advance();
        rounds.push(given);
    }
    let singles = rounds.iter().take_while(|given| **given == 1).count();
    assert!(singles >= 16 && rounds.len() < 32, "{rounds:?}");
}

#[test]
fn an_ack_counts_until_the_message_is_out_again() {
    let mut window = window(&["a", "b"]);
    let now = Instant::now();
    deliver(&mut window, now);
    window.reopen(0, 1);
    window.ack(0, 1);
    assert_eq!(window.settled(), 1);
    assert!(deliver(&mut window, now).is_empty());
}

#[test]
fn suspects_are_counted_by_messages_though_offsets_have_gaps() {
    let bounds = Bounds { ack_deadline: DEADLINE, messages_max: 2, bytes_max: 1 << 20 };
    let mut window = Window::new(bounds, 7, 2);
    let now = Instant::now();
    window.extend([7, 90].into_iter().zip(Shared::all(vec![Message::new("x"); 2])), 91);
    assert_eq!(deliver(&mut window, now), [(7, 3)]);
    assert!(deliver(&mut window, now).is_empty(), "the second may be the culprit too");
    assert!(window.ack(7, 3));
    assert_eq!(deliver(&mut window, now), [(90, 1)]);
}

#[test]
fn a_stale_settlement_says_so() {
    let mut window = window(&["a"]);
    let now = Instant::now();
    deliver(&mut window, now);
    assert_eq!(deliver(&mut window, now + DEADLINE * 2), [(0, 2)]);
    assert!(!window.ack(0, 1) && !window.retry(0, 1, now));
    assert!(window.ack(0, 2));
    assert!(!window.ack(0, 2), "it is settled");
}
