//! Windows, slots, weights, and the bounds of memory and node. Slots and windows are checked at every delivery.

use std::time::Duration;

use scheduler::{Config, Decision, Lane, Reason, WindowLimits};

use crate::world::*;

#[test]
fn a_fast_site_soon_gets_all_that_the_window_allows() {
    let mut world = World::seed(1).site("mx", &["a.test"], accepts_in(SECOND / 10));
    (0..5_000).for_each(|_| drop(world.submit("a.test", Lane::Notice, DAY)));
    world.run(2 * SECOND);
    // The last place is kept for one-time codes.
    assert_eq!(world.check.window_most["mx"], usize::from(world.config.window.max) - 1);
    world.submit("a.test", Lane::Otp, 10 * MINUTE);
    world.run(SECOND / 20);
    assert_eq!(world.check.window_most["mx"], usize::from(world.config.window.max));
    world.run(MINUTE);
    world.check_empty();
}

#[test]
fn two_domains_of_one_site_share_its_window() {
    let mut world =
        World::seed(2).site("mx", &["a.test", "b.test"], accepts_in(30 * SECOND)).site("other", &["c.test"], accepts_in(SECOND));
    for domain in ["a.test", "b.test", "c.test"] {
        (0..100).for_each(|_| drop(world.submit(domain, Lane::Notice, DAY)));
    }
    world.run(20 * SECOND);
    assert_eq!(world.check.window_most["mx"], usize::from(world.config.window.initial));
    world.run(HOUR);
    world.check_empty();
}

#[test]
fn mail_is_shared_among_sources_by_weight() {
    let config = Config { sources: vec![source("a", 1), source("b", 3), source("c", 0)], ..Config::default() };
    let mut world = World::with(3, config);
    for nth in 0..2_000 {
        let (site, domain) = (format!("mx{nth}"), format!("d{nth}.test"));
        world = world.site(&site, &[&domain], accepts_in(SECOND));
        world.submit(&domain, Lane::Notice, DAY);
    }
    world.run(MINUTE);
    world.check_empty();
    let mut seen = [0; 3];
    world.log.iter().for_each(|(.., source)| seen[usize::from(source.0)] += 1);
    assert_eq!(seen[2], 0, "a source without weight sends nothing");
    assert!((430..570).contains(&seen[0]), "{seen:?}");
}

#[test]
fn when_one_source_is_full_the_other_takes_over() {
    let window = WindowLimits { initial: 5, min: 1, max: 5 };
    let config = Config { sources: vec![source("a", 1000), source("b", 1)], window, ..Config::default() };
    let mut world = World::with(4, config).site("mx", &["a.test"], accepts_in(SECOND));
    (0..100).for_each(|_| drop(world.submit("a.test", Lane::Notice, DAY)));
    world.run(SECOND / 2);
    assert_eq!(world.check.window_most["mx"], 2 * 4);
    world.run(MINUTE);
    world.check_empty();
}

#[test]
fn the_node_takes_no_more_than_its_bound_and_keeps_a_part_of_it_for_one_time_codes() {
    let config = Config { sources: vec![source("a", 1)], in_flight_max: 64, ..Config::default() };
    let mut world = World::with(5, config);
    for nth in 0..40 {
        world = world.site(&format!("mx{nth}"), &[&format!("d{nth}.test")], accepts_in(MINUTE));
    }
    world = world.site("mx", &["otp.test"], accepts_in(SECOND));
    for nth in 0..400 {
        world.submit(&format!("d{}.test", nth % 40), Lane::Notice, DAY);
    }
    world.run(SECOND);
    assert_eq!(world.check.in_flight.len(), 60);
    assert!(matches!(
        world.scheduler.explain(world.now, "d39.test", 1, Lane::Notice),
        Some(Decision::Hold(hold)) if hold.reason == Reason::NodeFull { max: 60 }
    ));
    let otp = world.submit("otp.test", Lane::Otp, 10 * MINUTE);
    world.run(SECOND);
    assert_eq!(world.tries(&otp).len(), 1);
    world.run(HOUR);
    world.check_empty();
}

#[test]
fn memory_stays_within_its_bound_and_nobody_starves() {
    let config = Config { sources: vec![source("a", 1)], in_memory_max: 400, ..Config::default() };
    let mut world = World::with(6, config);
    for nth in 0..100 {
        let latency = if nth < 50 { 20 * SECOND } else { SECOND };
        world = world.site(&format!("mx{nth}"), &[&format!("d{nth}.test")], accepts_in(latency));
        for _ in 0..100 {
            world.submit(&format!("d{nth}.test"), Lane::Notice, DAY);
        }
    }
    for _ in 0..400 {
        world.run(SECOND);
        let counts = world.scheduler.counts();
        assert!(counts.queued + counts.in_flight + counts.settling <= 400, "{counts:?}");
    }
    world.run(HOUR);
    world.check_empty();
}

#[test]
fn a_million_deferred_deliveries_cost_the_memory_of_their_domains_only() {
    let mut world = World::seed(7);
    let due = start() + HOUR;
    for nth in 0..50_000 {
        world.scheduler.handle_backlog(start(), &format!("d{nth}.test"), 1, due + Duration::from_millis(nth));
    }
    assert!(world.scheduler.poll(start()).is_none());
    assert_eq!(world.scheduler.next_timeout(), Some(due));
    let counts = world.scheduler.counts();
    assert_eq!((counts.domains, counts.queued, counts.sites), (50_000, 0, 0));
    // All of them come due: no more is asked for at once than is allowed.
    world.now = due + MINUTE;
    let mut asked = 0;
    while world.scheduler.poll(world.now).is_some() {
        asked += 1;
    }
    assert_eq!(asked, world.config.loads_max);
}

#[test]
fn a_reload_keeps_what_is_going_on_and_a_removed_source_finishes() {
    let mut world = World::with(8, Config { sources: vec![source("a", 1), source("b", 1)], ..Config::default() });
    world = world.site("mx", &["a.test"], accepts_in(10 * SECOND));
    (0..200).for_each(|_| drop(world.submit("a.test", Lane::Notice, DAY)));
    world.run(SECOND);
    assert!(world.log.iter().any(|(.., source)| source.0 == 1));
    let tries = world.log.len();
    world.configure(Config {
        sources: vec![source("a", 1)],
        window: WindowLimits { initial: 1, min: 1, max: 12 },
        ..world.config.clone()
    });
    world.run(HOUR);
    assert!(world.log[tries..].iter().all(|(.., source)| source.0 == 0), "a removed source takes nothing new");
    world.check_empty();
}

#[test]
fn without_a_source_mail_waits_until_there_is_one() {
    let mut world = World::with(9, Config::default()).site("mx", &["a.test"], accepts_in(SECOND));
    let key = world.submit("a.test", Lane::Notice, DAY);
    world.run(HOUR);
    assert!(world.tries(&key).is_empty());
    assert!(matches!(
        world.scheduler.explain(world.now, "a.test", 1, Lane::Notice),
        Some(Decision::Hold(hold)) if hold.reason == Reason::NoSource
    ));
    world.configure(Config { sources: vec![source("a", 1)], ..Config::default() });
    world.run(MINUTE);
    world.check_empty();
}
