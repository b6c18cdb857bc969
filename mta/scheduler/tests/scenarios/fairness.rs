//! Fairness: a member's mail, however much it is and wherever it lies, delays another's by one turn.

use std::num::NonZeroU16;
use std::sync::Arc;

use scheduler::{Config, Lane, Weights, WindowLimits};

use crate::world::*;

const MANY: usize = 100_000;
/// The member with the many messages, and the one with the one.
const A: u32 = 1;
const B: u32 = 2;

fn weights(of: &[(u32, u16)]) -> Arc<Weights> {
    Arc::new(of.iter().map(|(member, weight)| (*member, NonZeroU16::new(*weight).unwrap())).collect())
}

/// One domain, and a window that does not widen.
fn one_domain(seed: u64) -> World {
    let window = WindowLimits { initial: 3, min: 1, max: 3 };
    let config = Config { sources: vec![source("a", 1)], window, ..Config::default() };
    World::with(seed, config).site("mx", &["big.test"], Box::new(|luck, _| (SECOND / 2 + luck.millis(500), ACCEPTED)))
}

/// Domains of A, all of one site, and one of B.
fn one_site(seed: u64, domains: usize) -> World {
    let mut world = World::seed(seed).site("mx", &["b.test"], accepts_in(SECOND));
    for nth in 0..domains {
        world = world.site("mx", &[&format!("a{nth}.test")], accepts_in(SECOND));
    }
    world
}

#[test]
fn a_hundred_thousand_messages_delay_another_members_one_to_the_same_domain_by_one_turn() {
    let mut world = one_domain(1);
    (0..MANY).for_each(|_| drop(world.submit_of(A, start(), "big.test", Lane::Notice, 9 * DAY)));
    world.run(10 * SECOND);
    let key = world.submit_of(B, world.now, "big.test", Lane::Notice, DAY);
    world.run(2 * SECOND);
    assert!(world.passed_by(&key) <= 1, "{} went before", world.passed_by(&key));
    // A turn is as long as the weight says, and no longer.
    world.scheduler.handle_weights(weights(&[(A, 5)]));
    let key = world.submit_of(B, world.now, "big.test", Lane::Notice, DAY);
    world.run(5 * SECOND);
    assert!((1..=5).contains(&world.passed_by(&key)), "{} went before", world.passed_by(&key));
}

#[test]
fn fifty_thousand_domains_of_a_site_delay_another_members_one_by_one_turn() {
    let mut world = one_site(2, 50_000);
    for nth in 0..50_000 {
        let domain = format!("a{nth}.test");
        (0..2).for_each(|_| drop(world.submit_of(A, start(), &domain, Lane::Notice, 9 * DAY)));
    }
    world.run(SECOND / 50);
    // Most of A's domains are still to be looked up; B's stands behind one of them.
    let asked = world.asked.len();
    assert!(asked < 25_000, "{asked} lookups already: this is no test");
    let key = world.submit_of(B, world.now, "b.test", Lane::Notice, DAY);
    world.run(20 * SECOND);
    let before = world.asked[..].iter().filter(|(domain, _)| &**domain == "b.test").count();
    assert_eq!(before, 1);
    assert!(world.passed_by(&key) <= 25, "{} went while B's domain was looked up", world.passed_by(&key));
    // With its route known it is one turn.
    let key = world.submit_of(B, world.now, "b.test", Lane::Notice, DAY);
    world.run(2 * SECOND);
    assert!(world.passed_by(&key) <= 1, "{} went before", world.passed_by(&key));
}

#[test]
fn a_lookup_waits_for_one_lookup_of_another_member() {
    let config = Config { sources: vec![source("a", 1)], resolves_max: 4, ..Config::default() };
    let mut world = World::with(3, config);
    world.disk_millis = 1_000;
    for domain in (0..2_000).map(|nth| format!("a{nth}.test")).chain(["b.test".into()]) {
        world = world.site("mx", &[&domain], accepts_in(SECOND));
        let member = if domain == "b.test" { B } else { A };
        world.submit_of(member, start() + SECOND * u32::from(member == B), &domain, Lane::Notice, DAY);
    }
    world.run(HOUR);
    world.check_empty();
    let place = world.asked.iter().position(|(domain, _)| &**domain == "b.test").unwrap();
    assert!(place < 40, "B's lookup was the {place}th");
}

#[test]
fn a_backlog_on_disk_delays_another_members_mail_by_one_turn_wherever_that_lies() {
    for seed in 0..4 {
        let mut world = one_domain(seed);
        (0..MANY).for_each(|_| drop(world.lies_on_disk_of(A, "big.test", Lane::Notice, start() - DAY, 9 * DAY)));
        let on_disk = world.lies_on_disk_of(B, "big.test", Lane::Notice, start(), DAY);
        world.restart();
        world.run(5 * SECOND);
        assert!(world.passed_by(&on_disk) <= 1, "{} went before", world.passed_by(&on_disk));
        let new = world.submit_of(B, world.now, "big.test", Lane::Notice, DAY);
        world.run(2 * SECOND);
        assert!(world.passed_by(&new) <= 1, "{} went before", world.passed_by(&new));
    }
}

#[test]
fn many_domains_on_disk_are_read_in_turns_too() {
    let config = Config { sources: vec![source("a", 1)], in_memory_max: 2_000, ..Config::default() };
    let mut world = World::with(5, config).site("mx", &["b.test"], accepts_in(MINUTE));
    for nth in 0..5_000 {
        let domain = format!("a{nth}.test");
        world = world.site("mx", &[&domain], accepts_in(MINUTE));
        (0..20).for_each(|_| drop(world.lies_on_disk_of(A, &domain, Lane::Notice, start() - DAY, 9 * DAY)));
    }
    let key = world.lies_on_disk_of(B, "b.test", Lane::Notice, start(), DAY);
    world.restart();
    world.run(5 * MINUTE);
    let place = world.asked.iter().position(|asked| *asked == ("b.test".into(), Some(B))).unwrap();
    assert!(place <= 2 * world.config.loads_max, "B's mail was the {place}th to be read");
    assert!(world.passed_by(&key) <= 12, "{} went before", world.passed_by(&key));
}

#[test]
fn a_member_that_fills_the_memory_leaves_room_for_the_others() {
    let config = Config { sources: vec![source("a", 1)], in_memory_max: 1_000, ..Config::default() };
    let mut world = World::with(6, config);
    for nth in 0..200 {
        world = world.site(&format!("mx{nth}"), &[&format!("a{nth}.test")], accepts_in(HOUR));
        (0..100).for_each(|_| drop(world.submit_of(A, start(), &format!("a{nth}.test"), Lane::Notice, 9 * DAY)));
    }
    world = world.site("mx", &["b.test"], accepts_in(SECOND));
    world.run(SECOND);
    let reads = world.reads;
    let keys: Vec<_> = (0..50).map(|_| world.submit_of(B, world.now, "b.test", Lane::Notice, DAY)).collect();
    world.run(10 * SECOND);
    assert!(keys.iter().all(|key| world.fate(key).is_some()), "B's mail waits for A's");
    assert_eq!(world.asked.iter().filter(|(domain, member)| &**domain == "b.test" && member.is_some()).count(), 0);
    assert!(world.reads - reads < 100, "{} reads in vain", world.reads - reads);
}

#[test]
fn shares_of_a_window_are_as_the_weights_say() {
    for (seed, on_disk) in [(7, false), (8, true)] {
        let mut world = World::seed(seed).site(
            "mx",
            &["a.test", "b.test", "both.test"],
            Box::new(|luck, _| (SECOND + luck.millis(1_000), ACCEPTED)),
        );
        world.scheduler.handle_weights(weights(&[(B, 3)]));
        for nth in 0..6_000 {
            // A has twice as many domains, and twice as much mail.
            for (member, domain) in [(A, ["a.test", "both.test"][nth % 2]), (A, "a.test"), (B, "both.test")] {
                match on_disk {
                    true => world.lies_on_disk_of(member, domain, Lane::Notice, start(), 9 * DAY),
                    false => world.submit_of(member, start(), domain, Lane::Notice, 9 * DAY),
                };
            }
        }
        world.restart();
        world.run(2 * MINUTE);
        // From when both were known until B had nothing more.
        let (first, last) = (100, world.members.len().min(7_000));
        assert!(last > 3_000);
        let of_b = world.members[first..last].iter().filter(|member| **member == B).count();
        let share = of_b * 1_000 / (last - first);
        assert!((740..=760).contains(&share), "{share} of 1000 instead of 750");
    }
}

/// Many slow sites, and a node that is full with a small part of them.
fn full_node(seed: u64) -> World {
    let config = Config { sources: vec![source("a", 1)], in_flight_max: 64, ..Config::default() };
    let mut world = World::with(seed, config).site("mx", &["b.test"], accepts_in(SECOND));
    for nth in 0..300 {
        let slow = Box::new(|luck: &mut Luck, _: &Try| (SECOND * 30 + luck.millis(30_000), ACCEPTED));
        world = world.site(&format!("mx{nth}"), &[&format!("a{nth}.test"), &format!("too{nth}.test")], slow);
    }
    world
}

#[test]
fn a_node_full_of_one_members_mail_delays_another_members_by_one_turn() {
    let mut world = full_node(10);
    for nth in 0..6_000 {
        world.submit_of(A, start(), &format!("a{}.test", nth % 300), Lane::Notice, 9 * DAY);
    }
    world.run(5 * MINUTE);
    assert_eq!(world.check.in_flight.len(), 60);
    // To a site of its own, and to a site and a domain that A's mail waits for too.
    for domain in ["b.test", "too7.test", "a7.test"] {
        let key = world.submit_of(B, world.now, domain, Lane::Notice, DAY);
        world.run(MINUTE);
        assert!(world.passed_by(&key) <= 2, "{} went before the one to {domain}", world.passed_by(&key));
    }
    world.run(3 * HOUR);
    world.check_empty();
}

#[test]
fn shares_of_a_full_node_are_as_the_weights_say() {
    let mut world = full_node(11);
    world.scheduler.handle_weights(weights(&[(B, 3)]));
    for nth in 0..3_000 {
        world.submit_of(A, start(), &format!("a{}.test", nth % 300), Lane::Notice, 9 * DAY);
        world.submit_of(B, start(), &format!("{}{}.test", ["a", "too"][nth % 2], nth % 40), Lane::Notice, 9 * DAY);
    }
    world.run(HOUR);
    let of_b = world.members[200..2_200].iter().filter(|member| **member == B).count();
    assert!((1_440..=1_560).contains(&of_b), "{of_b} of 2000 instead of 1500");
}

#[test]
fn turns_are_taken_inside_a_lane_and_one_time_codes_of_a_member_do_not_delay_those_of_another() {
    let mut world = one_domain(9);
    for lane in [Lane::Transactional, Lane::Otp] {
        (0..1_000).for_each(|_| drop(world.submit_of(A, start(), "big.test", lane, 9 * DAY)));
    }
    world.run(10 * SECOND);
    let [notice, transactional, otp] =
        [Lane::Notice, Lane::Transactional, Lane::Otp].map(|lane| world.submit_of(B, world.now, "big.test", lane, 9 * DAY));
    world.run(2 * SECOND);
    assert!(world.passed_by(&otp) <= 1, "{} went before", world.passed_by(&otp));
    world.run(HOUR);
    world.check_empty();
    let place = |key| world.log.iter().position(|(_, other, ..)| other == key).unwrap();
    assert!((1_001..=1_002).contains(&place(&transactional)), "the {}th", place(&transactional));
    assert_eq!(place(&notice), 2_002);
}
