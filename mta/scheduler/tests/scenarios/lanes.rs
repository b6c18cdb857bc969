//! Order: lanes, turns, and what lies on disk.

use std::num::NonZeroU16;
use std::sync::Arc;

use scheduler::{Config, Lane, Weights, WindowLimits};

use crate::world::*;

#[test]
fn one_message_goes_at_once_and_is_done() {
    let mut world = World::seed(1).site("mx", &["example.test"], accepts_in(SECOND));
    let key = world.submit("example.test", Lane::Transactional, DAY);
    world.run(2 * SECOND);
    assert_eq!(world.tries(&key).len(), 1);
    world.check_empty();
}

#[test]
fn a_one_time_code_overtakes_everything_that_waits_at_its_site() {
    let mut world = World::seed(2).site("mx", &["a.test", "b.test"], accepts_in(SECOND));
    for _ in 0..1_000 {
        world.submit("a.test", Lane::Notice, DAY);
        world.submit("b.test", Lane::Transactional, DAY);
    }
    world.run(5 * SECOND);
    let before = world.now;
    let otp = world.submit("b.test", Lane::Otp, 10 * MINUTE);
    world.run(5 * MINUTE);
    let tried = world.tries(&otp)[0];
    // The next delivery that ends makes room for it.
    assert!(tried.duration_since(before).unwrap() <= SECOND + MINUTE / 1000, "{:?}", tried.duration_since(before));
    world.check_empty();
}

#[test]
fn a_one_time_code_of_a_window_full_of_notices_is_kept_in_memory() {
    let mut world = World::seed(3).site("mx", &["a.test"], accepts_in(SECOND));
    (0..5_000).for_each(|_| drop(world.submit("a.test", Lane::Notice, DAY)));
    world.run(SECOND);
    let reads = world.reads;
    let otp = world.submit("a.test", Lane::Otp, 10 * MINUTE);
    world.run(SECOND + SECOND / 10);
    assert_eq!(world.tries(&otp).len(), 1, "after {} reads", world.reads - reads);
    world.run(HOUR);
    world.check_empty();
}

#[test]
fn a_one_time_code_does_not_wait_for_a_window_full_of_slow_mail() {
    let mut world = World::seed(8).site("mx", &["a.test", "b.test"], accepts_in(10 * MINUTE));
    (0..5_000).for_each(|_| drop(world.submit("a.test", Lane::Notice, 9 * DAY)));
    world.run(MINUTE);
    assert_eq!(world.check.in_flight.len(), usize::from(world.config.window.initial));
    let before = world.now;
    let otp = world.submit("b.test", Lane::Otp, 10 * MINUTE);
    world.run(SECOND);
    assert!(world.tries(&otp)[0].duration_since(before).unwrap() < SECOND / 10);
    // The one place more is taken, so the next one waits for the first that ends.
    let next = world.submit("b.test", Lane::Otp, 10 * MINUTE);
    world.run(9 * MINUTE);
    assert_eq!(world.tries(&next).len(), 1);
}

#[test]
fn a_better_lane_is_fetched_from_disk_although_the_window_is_full_of_a_lesser_one() {
    let mut world = World::seed(4).site("mx", &["a.test"], accepts_in(10 * SECOND));
    (0..2_000).for_each(|_| drop(world.lies_on_disk("a.test", Lane::Notice, start(), 30 * DAY)));
    world.restart();
    world.run(5 * SECOND);
    let key = world.submit("a.test", Lane::Transactional, DAY);
    world.run(20 * SECOND);
    assert_eq!(world.tries(&key).len(), 1);
}

#[test]
fn domains_of_a_site_take_turns() {
    let config =
        Config { window: WindowLimits { initial: 2, min: 1, max: 2 }, sources: vec![source("a", 1)], ..Config::default() };
    let mut world = World::with(5, config).site("mx", &["big.test", "small.test"], accepts_in(SECOND));
    (0..200).for_each(|_| drop(world.submit("big.test", Lane::Notice, DAY)));
    (0..10).for_each(|_| drop(world.submit("small.test", Lane::Notice, DAY)));
    world.run(SECOND / 2);
    world.run(12 * SECOND);
    assert_eq!(world.tries_of_domain("small.test"), 10, "not one turn each: {}", world.tries_of_domain("big.test"));
    world.run(HOUR);
    world.check_empty();
}

#[test]
fn what_lies_on_disk_goes_in_the_order_of_lane_and_due_time() {
    let mut world = World::seed(6).site("mx", &["a.test"], accepts_in(SECOND));
    let mut expected = Vec::new();
    for nth in 0..3_000u64 {
        let lane = Lane::from_index(nth as usize % 3).unwrap();
        let due = start() - MINUTE - SECOND * (nth * 7919 % 3_000) as u32;
        let key = world.lies_on_disk("a.test", lane, due, DAY);
        expected.push((lane, due, key));
    }
    world.restart();
    world.run(2 * HOUR);
    expected.sort_by_key(|(lane, due, key)| (*lane, *due, key.0));
    let went: Vec<_> = world.log.iter().map(|(_, key, ..)| key.clone()).collect();
    assert_eq!(went, expected.into_iter().map(|(_, _, key)| key).collect::<Vec<_>>());
    world.check_empty();
    assert!(world.reads < 60, "{} reads for 3000 deliveries", world.reads);
}

#[test]
fn new_mail_does_not_keep_older_mail_on_disk_waiting() {
    let mut world = World::seed(7).site("mx", &["a.test"], accepts_in(SECOND));
    let old: Vec<_> = (0..1_000).map(|_| world.lies_on_disk("a.test", Lane::Notice, start(), 30 * DAY)).collect();
    world.restart();
    // As much comes as may go: 50 a second.
    for nth in 0..6_000u32 {
        world.submit_at(start() + SECOND * nth / 50, "a.test", Lane::Notice, DAY);
    }
    world.run(100 * SECOND);
    let left = old.iter().filter(|key| world.fate(key).is_none()).count();
    assert_eq!(left, 0, "of 1000 that were there first");
    world.run(HOUR);
    world.check_empty();
}

#[test]
fn nothing_is_idle_while_mail_waits_and_windows_and_the_node_have_room() {
    for seed in 0..20 {
        let in_flight_max = if seed % 2 == 0 { 4096 } else { 16 };
        let config = Config { sources: vec![source("a", 1), source("b", 2)], in_flight_max, ..Config::default() };
        let mut world = World::with(seed, config)
            .site("mx1", &["a.test", "b.test"], Box::new(|luck, _| (luck.millis(2_000), ACCEPTED)))
            .site("mx2", &["c.test"], Box::new(|luck, _| (luck.millis(9_000), ACCEPTED)));
        world.never_idle = true;
        let weights: Weights = [(1, NonZeroU16::new(1 + seed as u16).unwrap())].into_iter().collect();
        world.scheduler.handle_weights(Arc::new(weights));
        for _ in 0..400 {
            let lane = Lane::from_index(world.luck.below(3) as usize).unwrap();
            let domain = ["a.test", "b.test", "c.test"][world.luck.below(3) as usize];
            let (member, time) = (world.luck.below(4) as u32, start() + world.luck.millis(20_000));
            world.submit_of(member, time, domain, lane, DAY);
        }
        world.run(HOUR);
        world.check_empty();
    }
}
