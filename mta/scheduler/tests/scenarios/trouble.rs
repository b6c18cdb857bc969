//! Trouble: deferrals, sites that are down, deadlines.

use std::time::Duration;

use scheduler::{Decision, Lane, Outcome, Reason, Scope, Verdict};

use crate::check::Fate;
use crate::world::*;

#[test]
fn a_greylisted_recipient_is_tried_again_and_the_site_stays_open_to_others() {
    let mut world = World::seed(1).site(
        "mx",
        &["a.test"],
        Box::new(|_, attempt| {
            let young = attempt.now < start() + 5 * MINUTE;
            (SECOND, if young { deferred(Scope::Recipient) } else { ACCEPTED })
        }),
    );
    let keys: Vec<_> = (0..40).map(|_| world.submit("a.test", Lane::Transactional, DAY)).collect();
    world.run(HOUR);
    world.check_empty();
    for key in &keys {
        let tries = world.tries(key);
        assert!((3..=4).contains(&tries.len()), "{tries:?}");
        assert!(tries[1].duration_since(tries[0]).unwrap() >= Duration::from_secs(54));
    }
}

#[test]
fn a_site_that_is_down_for_a_day_gets_only_probes_and_drains_afterwards() {
    let up = start() + DAY;
    let mut world = World::seed(2).site(
        "mx",
        &["a.test", "b.test"],
        Box::new(move |luck, attempt| {
            let latency = SECOND + luck.millis(1_000);
            (latency, if attempt.now < up { deferred(Scope::Site) } else { ACCEPTED })
        }),
    );
    (0..2_000).for_each(|nth| drop(world.submit(["a.test", "b.test"][nth % 2], Lane::Transactional, 5 * DAY)));
    world.run(DAY);
    // The first windowful, then one try for each wait of about half an hour.
    let tries = world.log.len();
    assert!((50..80).contains(&tries), "{tries} tries in a day");
    assert!(matches!(
        world.scheduler.explain(world.now, "a.test", 1, Lane::Transactional),
        Some(Decision::Hold(hold)) if matches!(hold.reason, Reason::SiteSuspended { .. })
    ));
    world.run(5 * HOUR);
    world.check_empty();
    assert_eq!(world.fates(Fate::Done), 2_000);
    let others = world.check.fates.len() - world.log.iter().filter(|(time, ..)| *time < up).count();
    let once = world.check.fates.keys().filter(|key| world.tries(key).len() == 1).count();
    assert!(once >= others, "trouble of the site cost others an attempt: {once} of {others}");
}

#[test]
fn one_host_of_several_leaves_the_site_open_until_three_failed_in_a_row() {
    let mut world = World::seed(3).site(
        "mx1,mx2,mx3,mx4",
        &["a.test"],
        Box::new(|luck, _| (SECOND, if luck.below(4) == 0 { deferred(Scope::Host) } else { ACCEPTED })),
    );
    (0..1_000).for_each(|_| drop(world.submit("a.test", Lane::Notice, DAY)));
    world.run(20 * MINUTE);
    assert!(world.fates(Fate::Done) > 800, "{}", world.fates(Fate::Done));
    world.run(DAY);
    world.check_empty();
}

#[test]
fn a_source_that_is_refused_is_left_alone_at_that_site_while_the_other_goes_on() {
    let config = scheduler::Config { sources: vec![source("good", 1), source("bad", 1)], ..Default::default() };
    let mut world = World::with(4, config)
        .site(
            "picky",
            &["a.test"],
            Box::new(|_, attempt| (SECOND, if attempt.source.0 == 1 { deferred(Scope::Source) } else { ACCEPTED })),
        )
        .site("kind", &["b.test"], accepts_in(SECOND));
    for nth in 0..3_000u32 {
        world.submit_at(start() + SECOND * nth, ["a.test", "b.test"][nth as usize % 2], Lane::Notice, DAY);
    }
    world.run(HOUR);
    let bad = |site: &str| world.log.iter().filter(|(_, _, at, source)| &**at == site && source.0 == 1).count();
    assert!(bad("picky") <= 10, "{}", bad("picky"));
    assert!(bad("kind") > 600, "{}", bad("kind"));
    world.run(DAY);
    world.check_empty();
    assert_eq!(world.fates(Fate::Done), 3_000);
}

#[test]
fn nothing_is_sent_after_its_deadline_and_its_expiry_is_told_on_time() {
    let mut world = World::seed(5).site("mx", &["a.test"], Box::new(|_, _| (SECOND, deferred(Scope::Site))));
    (0..100).for_each(|_| drop(world.submit("a.test", Lane::Transactional, DAY)));
    world.run(2 * HOUR);
    let otp = world.submit("a.test", Lane::Otp, 10 * MINUTE);
    world.run(10 * MINUTE - SECOND);
    assert_eq!(world.fate(&otp), None);
    world.run(2 * SECOND);
    assert_eq!(world.fate(&otp), Some(Fate::Expired), "although its site is suspended");
    world.run(DAY);
    world.check_empty();
    assert_eq!(world.fates(Fate::Expired), 101);
}

#[test]
fn the_last_try_comes_just_before_the_deadline() {
    let mut world = World::seed(6).site("mx", &["a.test"], Box::new(|_, _| (SECOND, deferred(Scope::Recipient))));
    let key = world.submit("a.test", Lane::Transactional, 3 * HOUR);
    world.run(DAY);
    let last = *world.tries(&key).last().unwrap();
    let before = (start() + 3 * HOUR).duration_since(last).unwrap();
    assert!(before <= MINUTE + SECOND, "{before:?} before the deadline");
    assert_eq!(world.fate(&key), Some(Fate::Expired));
    world.check_empty();
}

#[test]
fn a_site_that_asks_for_time_gets_it() {
    let asks = Outcome { retry_after: Some(3 * HOUR), ..deferred(Scope::Site) };
    let up = start() + HOUR;
    let mut world = World::seed(7).site(
        "mx",
        &["a.test"],
        Box::new(move |_, attempt| (SECOND, if attempt.now < up { asks } else { ACCEPTED })),
    );
    (0..50).for_each(|_| drop(world.submit("a.test", Lane::Transactional, DAY)));
    world.run(DAY);
    let early = world.log.iter().filter(|(time, ..)| *time > start() + SECOND && *time < start() + 3 * HOUR).count();
    assert_eq!(early, 0);
    world.check_empty();
}

#[test]
fn a_message_with_some_recipients_deferred_is_tried_again_and_then_done() {
    let partial = Outcome { open: true, ..ACCEPTED };
    let mut tries = 0;
    let mut world = World::seed(8).site(
        "mx",
        &["a.test"],
        Box::new(move |_, _| {
            tries += 1;
            (SECOND, if tries < 3 { partial } else { ACCEPTED })
        }),
    );
    let key = world.submit("a.test", Lane::Otp, HOUR);
    world.run(10 * MINUTE);
    assert_eq!((world.tries(&key).len(), world.fate(&key)), (3, Some(Fate::Done)));
    world.check_empty();
}

#[test]
fn a_refusal_for_ever_is_done_at_once() {
    let no = Outcome { scope: Scope::Recipient, verdict: Verdict::Failed, ..ACCEPTED };
    let mut world = World::seed(9).site("mx", &["a.test"], Box::new(move |_, _| (SECOND, no)));
    let key = world.submit("a.test", Lane::Notice, DAY);
    world.run(MINUTE);
    assert_eq!((world.tries(&key).len(), world.fate(&key)), (1, Some(Fate::Done)));
}

#[test]
fn under_pressure_a_site_that_is_down_gives_its_memory_to_others() {
    let config = scheduler::Config { sources: vec![source("a", 1)], in_memory_max: 1_000, ..Default::default() };
    let mut world = World::with(10, config).site("up", &["good.test"], accepts_in(SECOND));
    for nth in 0..20 {
        let script = Box::new(move |_: &mut Luck, attempt: &Try| {
            (SECOND, if attempt.now < start() + 12 * HOUR { deferred(Scope::Site) } else { ACCEPTED })
        });
        world = world.site(&format!("down{nth}"), &[&format!("d{nth}.test")], script);
        (0..200).for_each(|_| drop(world.submit(&format!("d{nth}.test"), Lane::Notice, 5 * DAY)));
    }
    world.run(HOUR);
    let keys: Vec<_> = (0..2_000).map(|_| world.submit("good.test", Lane::Notice, DAY)).collect();
    world.run(10 * MINUTE);
    let done = keys.iter().filter(|key| world.fate(key) == Some(Fate::Done)).count();
    assert_eq!(done, 2_000, "the site that is well starves: {:?}", world.scheduler.counts());
    world.run(3 * DAY);
    world.check_empty();
}
