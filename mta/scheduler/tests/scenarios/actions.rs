//! What the scheduler does about trouble by itself: a scenario for each kind of measure, with its id, cause and end, what it
//! does, and what cancelling, extending and a restart make of it.

use std::time::{Duration, SystemTime};

use scheduler::{
    Change, Config, Decision, Lane, MeasureKind, Object, Outcome, Reaction, Reason, ReplyClass, Scope, SourceHealth, Threshold,
    Whereabouts,
};

use crate::check::{Fate, Key};
use crate::world::*;

fn says(scope: Scope, class: ReplyClass) -> Outcome {
    Outcome { class: Some(class), ..deferred(scope) }
}

fn rule(class: ReplyClass, threshold: Threshold, act: MeasureKind) -> Reaction {
    let (name, lasts) = (format!("{act} on {class}").into(), 2 * HOUR);
    Reaction { name, class, provider: None, threshold, within: HOUR, act, lasts, alone: None }
}

fn with_rules(sources: &[&str], rules: Vec<Reaction>) -> Config {
    Config { sources: sources.iter().map(|name| source(name, 1)).collect(), rules: rules.into(), ..Config::default() }
}

/// A message every ten seconds for so long.
fn trickle(world: &mut World, domain: &str, span: Duration) -> Vec<Key> {
    let every = Duration::from_secs(10);
    (0..span.as_secs() / 10).map(|nth| world.submit_at(world.now + every * nth as u32, domain, Lane::Notice, 5 * DAY)).collect()
}

fn tries_from(world: &World, source: u16, since: SystemTime) -> usize {
    world.log.iter().filter(|(time, _, _, from)| from.0 == source && *time > since).count()
}

fn held_by(world: &World, domain: &str) -> Option<u64> {
    match world.scheduler.explain(world.now, domain, 1, Lane::Notice)? {
        Decision::Hold(hold) => match hold.reason {
            Reason::SiteSuspended { action, .. } | Reason::SourceSuspended { action, .. } => action,
            Reason::SourcePaused { action, .. } | Reason::MemberHeld { action } => Some(action),
            Reason::WindowFull { action, .. } => action,
            _ => None,
        },
        Decision::Send { .. } => None,
    }
}

#[test]
fn a_site_that_is_left_alone_has_an_action_until_it_is_well() {
    let up = start() + 3 * HOUR;
    let down = move |_: &mut Luck, attempt: &Try| {
        (SECOND, if attempt.now < up { says(Scope::Site, ReplyClass::Host) } else { ACCEPTED })
    };
    let mut world = World::seed(1).site("mx", &["a.test"], Box::new(down));
    trickle(&mut world, "a.test", 2 * MINUTE);
    world.run(20 * MINUTE);
    let measure = world.measure(MeasureKind::LeaveSite);
    assert_eq!(measure.object, Object::Site("mx".into()));
    assert_eq!((&*measure.rule, &*measure.cause), ("suspend", "451 4.7.1 it speaks of host"));
    assert!(measure.expires > world.now && measure.again >= 3, "one outage is one action: {measure:?}");
    assert_eq!(held_by(&world, "a.test"), Some(measure.id), "`why` names it");
    // Extended: not even a probe goes.
    let tries = world.log.len();
    assert!(world.scheduler.extend_measure(world.now, measure.id, HOUR, "op: provider asked").is_some());
    world.run(HOUR);
    assert_eq!(world.log.len(), tries);
    // A restart keeps it, with its id.
    world.scheduler.extend_measure(world.now, measure.id, HOUR, "op: again");
    world.run(SECOND);
    world.start_anew(99);
    world.run(50 * MINUTE);
    assert_eq!((world.log.len(), world.measure(MeasureKind::LeaveSite).id), (tries, measure.id));
    // Cancelled: one goes and sees, and finds it as it was; that is another action.
    assert!(world.scheduler.cancel_measure(world.now, measure.id, "op: try").is_some());
    assert!(world.scheduler.cancel_measure(world.now, measure.id, "op: try").is_none());
    world.check.lift("mx", world.now);
    world.run(10 * SECOND);
    assert_eq!(world.log.len(), tries + 1);
    let second = world.measure(MeasureKind::LeaveSite).id;
    assert!(second > measure.id);
    world.run(DAY);
    assert_eq!(world.changes(second).last(), Some(&Change::Expired));
    assert!(world.scheduler.measures().next().is_none());
    assert_eq!(world.changes(measure.id).first(), Some(&Change::Started));
    assert_eq!(world.changes(measure.id).last(), Some(&Change::Cancelled("op: try".into())));
    world.check_empty();
}

#[test]
fn without_mail_the_action_of_a_site_ends_by_itself() {
    let mut world = World::seed(2).site("mx", &["a.test"], Box::new(|_, _| (SECOND, says(Scope::Site, ReplyClass::Host))));
    world.submit("a.test", Lane::Notice, 10 * SECOND);
    world.run(5 * SECOND);
    let measure = world.measure(MeasureKind::LeaveSite);
    world.run(HOUR);
    assert_eq!(world.changes(measure.id), [Change::Started, Change::Expired]);
}

#[test]
fn a_pause_by_rule_spares_a_site_one_source_and_says_so() {
    let rules = vec![rule(ReplyClass::Rate, Threshold::Count(20), MeasureKind::PauseSite)];
    // Each recipient is told off by itself, so that nothing but the rule stops it.
    let tells = |_: &mut Luck, attempt: &Try| {
        (SECOND, if attempt.source.0 == 1 { says(Scope::Recipient, ReplyClass::Rate) } else { ACCEPTED })
    };
    let mut world = World::with(3, with_rules(&["good", "bad"], rules)).site("mx", &["a.test"], Box::new(tells));
    trickle(&mut world, "a.test", 4 * HOUR);
    world.run(20 * MINUTE);
    let measure = world.measure(MeasureKind::PauseSite);
    assert_eq!(measure.object, Object::AtSite { source: "bad".into(), site: "mx".into() });
    assert_eq!((&*measure.rule, &*measure.cause), ("pause_site on rate", "451 4.7.1 it speaks of rate"));
    assert_eq!(measure.expires.duration_since(measure.started).unwrap(), 2 * HOUR);
    let health = world.scheduler.source_health(world.now);
    let of = |source: &str, provider: Option<&str>| {
        let found = health.iter().find(|view| &*view.source == source && view.provider.as_deref() == provider);
        found.map(|view| view.health)
    };
    assert_eq!((of("good", None), of("bad", None)), (Some(SourceHealth::Healthy), Some(SourceHealth::Degraded)));
    assert_eq!(of("bad", Some("other")), Some(SourceHealth::Degraded));
    let since = world.now;
    world.run(HOUR);
    assert_eq!(tries_from(&world, 1, since), 0);
    assert!(tries_from(&world, 0, since) > 300);
    world.run(DAY);
    assert!(world.changes(measure.id).contains(&Change::Expired));
    world.run(5 * DAY);
    world.check_empty();
}

#[test]
fn a_window_that_is_narrowed_stays_so_until_the_action_ends() {
    let rules = vec![rule(ReplyClass::Rate, Threshold::Count(5), MeasureKind::Narrow)];
    let mut told = 0;
    let script = move |_: &mut Luck, _: &Try| {
        told += 1;
        (SECOND, if told > 300 && told <= 305 { says(Scope::Recipient, ReplyClass::Rate) } else { ACCEPTED })
    };
    let mut world = World::with(4, with_rules(&["a"], rules)).site("mx", &["a.test"], Box::new(script));
    (0..5_000).for_each(|_| drop(world.submit("a.test", Lane::Notice, DAY)));
    world.run(20 * SECOND);
    let measure = world.measure(MeasureKind::Narrow);
    let cap = measure.window.unwrap();
    let window = |world: &World| world.scheduler.site_view("mx").unwrap().sources[0].window;
    assert!(cap <= 25 && window(&world) == cap, "{cap}");
    world.run(20 * SECOND);
    assert_eq!(window(&world), cap, "success does not widen it");
    assert_eq!(held_by(&world, "a.test"), Some(measure.id));
    world.scheduler.cancel_measure(world.now, measure.id, "op: it was us");
    assert!(window(&world) > cap, "cancelled, it is what feedback allows");
    world.run(DAY);
    world.check_empty();
}

#[test]
fn a_narrowed_window_outlives_a_restart_and_ends_on_time() {
    let rules = vec![rule(ReplyClass::Rate, Threshold::Count(5), MeasureKind::Narrow)];
    let early = start() + MINUTE;
    let script = move |_: &mut Luck, attempt: &Try| {
        (SECOND, if attempt.now < early { says(Scope::Recipient, ReplyClass::Rate) } else { ACCEPTED })
    };
    let mut world = World::with(5, with_rules(&["a"], rules)).site("mx", &["a.test"], Box::new(script));
    trickle(&mut world, "a.test", 3 * MINUTE);
    world.run(10 * MINUTE);
    let measure = world.measure(MeasureKind::Narrow);
    world.start_anew(7);
    world.submit("a.test", Lane::Notice, DAY);
    world.run(SECOND * 5);
    let window = world.scheduler.site_view("mx").unwrap().sources[0].window;
    assert_eq!(Some(window), measure.window);
    world.run(3 * HOUR);
    assert_eq!(world.changes(measure.id).last(), Some(&Change::Expired));
}

#[test]
fn a_source_that_a_provider_thinks_badly_of_is_paused_at_all_its_sites_and_the_other_takes_over() {
    let rules = vec![rule(ReplyClass::Reputation, Threshold::Share { percent: 50, sample: 20 }, MeasureKind::PauseProvider)];
    let tells = |_: &mut Luck, attempt: &Try| {
        (SECOND, if attempt.source.0 == 1 { says(Scope::Recipient, ReplyClass::Reputation) } else { ACCEPTED })
    };
    let mut world = World::with(6, with_rules(&["good", "bad"], rules)).site("mx1", &["a.test"], Box::new(tells)).site(
        "mx2",
        &["b.test"],
        accepts_in(SECOND),
    );
    trickle(&mut world, "a.test", HOUR);
    world.run(20 * MINUTE);
    let measure = world.measure(MeasureKind::PauseProvider);
    assert_eq!(measure.object, Object::AtProvider { source: "bad".into(), provider: "other".into() });
    assert_eq!((measure.class, &*measure.cause), (Some(ReplyClass::Reputation), "451 4.7.1 it speaks of reputation"));
    let since = world.now;
    (0..200).for_each(|_| drop(world.submit("b.test", Lane::Notice, DAY)));
    world.run(10 * MINUTE);
    assert_eq!((tries_from(&world, 1, since), world.waiting() < 100), (0, true), "both sites have one provider");
    world.submit("b.test", Lane::Notice, DAY);
    world.run(2 * SECOND);
    let survey = world.scheduler.survey(world.now, "b.test", None);
    let bad = survey.sources.iter().find(|source| source.id.0 == 1).unwrap();
    let hold = bad.hold.as_ref().unwrap();
    assert_eq!(hold.reason, Reason::SourcePaused { source: bad.id, action: measure.id });
    assert_eq!(hold.clears_at(), Some(measure.expires));
    world.start_anew(1);
    (0..200).for_each(|_| drop(world.submit("b.test", Lane::Notice, DAY)));
    world.run(10 * MINUTE);
    assert_eq!(tries_from(&world, 1, since), 0, "after a restart too");
    // Extended it lasts longer, cancelled it is over at once.
    let extended = world.scheduler.extend_measure(world.now, measure.id, HOUR, "op: wait").unwrap();
    assert_eq!(extended.expires, measure.expires + HOUR);
    world.scheduler.cancel_measure(world.now, measure.id, "op: delisted");
    (0..200).for_each(|_| drop(world.submit("b.test", Lane::Notice, DAY)));
    world.run(MINUTE);
    assert!(tries_from(&world, 1, since) > 50);
    let changes = world.changes(measure.id);
    assert_eq!(changes.first(), Some(&Change::Started));
    assert!(changes.contains(&Change::Extended("op: wait".into())));
    assert_eq!(changes.last(), Some(&Change::Cancelled("op: delisted".into())));
}

#[test]
fn without_another_source_mail_waits_for_the_end_of_a_pause_and_then_goes() {
    let rules = vec![rule(ReplyClass::Reputation, Threshold::Count(10), MeasureKind::PauseProvider)];
    let early = start() + HOUR;
    let script = move |_: &mut Luck, attempt: &Try| {
        (SECOND, if attempt.now < early { says(Scope::Recipient, ReplyClass::Reputation) } else { ACCEPTED })
    };
    let mut world = World::with(7, with_rules(&["a"], rules)).site("mx", &["a.test"], Box::new(script));
    trickle(&mut world, "a.test", 10 * MINUTE);
    world.run(10 * MINUTE);
    let measure = world.measure(MeasureKind::PauseProvider);
    assert_eq!(held_by(&world, "a.test"), Some(measure.id));
    let tries = world.log.len();
    world.run(measure.expires.duration_since(world.now).unwrap() - SECOND);
    assert_eq!(world.log.len(), tries);
    world.run(DAY);
    world.check_empty();
    assert_eq!(world.fates(Fate::Done), 60);
}

#[test]
fn the_only_source_is_paused_in_short_steps_and_mail_flows_soon_after_the_provider_relents() {
    // As the shipped rule has it: half an hour where another source takes over, five minutes where none does.
    let disliked = Reaction {
        within: 15 * MINUTE,
        lasts: 30 * MINUTE,
        alone: Some(5 * MINUTE),
        ..rule(ReplyClass::Reputation, Threshold::Share { percent: 50, sample: 20 }, MeasureKind::PauseProvider)
    };
    for (sources, lasts) in [(&["a"][..], 5 * MINUTE), (&["a", "b"][..], 30 * MINUTE)] {
        let relents = start() + HOUR;
        let script = move |_: &mut Luck, attempt: &Try| {
            let dislikes = attempt.source.0 == 0 && attempt.now < relents;
            (SECOND, if dislikes { says(Scope::Recipient, ReplyClass::Reputation) } else { ACCEPTED })
        };
        let mut world = World::with(13, with_rules(sources, vec![disliked.clone()]))
            .site("mx", &["a.test"], Box::new(script))
            .site("mx2", &["b.test"], accepts_in(SECOND));
        trickle(&mut world, "a.test", HOUR);
        world.run(20 * MINUTE);
        let measure = world.measure(MeasureKind::PauseProvider);
        assert_eq!(measure.expires.duration_since(measure.started).unwrap(), lasts, "{sources:?}");
        assert_eq!(measure.object, Object::AtProvider { source: "a".into(), provider: "other".into() });
        // Later pauses are as short: they begin while the provider dislikes us, and end soon after it does not any more.
        world.run(HOUR - 20 * MINUTE + 6 * MINUTE);
        assert!(sources.len() > 1 || tries_from(&world, 0, relents) > 0, "it is tried again within a step");
        world.run(DAY);
        world.check_empty();
        assert_eq!(world.fates(Fate::Done), 360);
    }
}

#[test]
fn a_listed_source_is_paused_while_another_one_sends_and_the_last_one_is_only_degraded() {
    let mut world = World::with(8, with_rules(&["a", "b"], Vec::new())).site("mx", &["a.test"], accepts_in(SECOND));
    let listed = "127.0.0.2 of zen.example";
    world.scheduler.set_source_health(world.now, "a", SourceHealth::Paused, listed, DAY);
    world.run(SECOND);
    let measure = world.measure(MeasureKind::PauseSource);
    assert_eq!((&measure.object, &*measure.cause, &*measure.rule), (&Object::Source("a".into()), listed, "watch"));
    world.scheduler.set_source_health(world.now, "b", SourceHealth::Paused, listed, DAY);
    world.run(SECOND);
    let second = world.measure(MeasureKind::DegradeSource);
    assert_eq!(second.object, Object::Source("b".into()));
    trickle(&mut world, "a.test", HOUR);
    world.run(HOUR);
    assert_eq!((tries_from(&world, 0, start()), tries_from(&world, 1, start())), (0, 360));
    // The watch says the same again: one action, a later end.
    world.scheduler.set_source_health(world.now, "a", SourceHealth::Paused, listed, DAY);
    world.run(SECOND);
    assert_eq!((world.measure(MeasureKind::PauseSource).id, world.measure(MeasureKind::PauseSource).again), (measure.id, 1));
    world.start_anew(3);
    assert_eq!(world.scheduler.source_health(world.now)[0].health, SourceHealth::Paused);
    // Delisted.
    world.scheduler.set_source_health(world.now, "a", SourceHealth::Healthy, "no longer listed", DAY);
    let since = world.now;
    trickle(&mut world, "a.test", HOUR);
    world.run(HOUR);
    let (a, b) = (tries_from(&world, 0, since), tries_from(&world, 1, since));
    assert!(a > 100 && b > 100, "weights of one are not divided below one: {a} {b}");
    world.scheduler.set_source_health(world.now, "nobody", SourceHealth::Paused, listed, DAY);
    world.run(SECOND);
    assert_eq!(world.scheduler.measures().count(), 1, "an unknown source is nobody's");
}

#[test]
fn a_degraded_source_has_a_quarter_of_its_share() {
    let config = Config { sources: vec![source("a", 8), source("b", 8)], ..Config::default() };
    let mut world = World::with(9, config).site("mx", &["a.test"], accepts_in(SECOND));
    world.scheduler.set_source_health(world.now, "a", SourceHealth::Degraded, "a complaint", DAY);
    trickle(&mut world, "a.test", 5 * HOUR);
    world.run(6 * HOUR);
    let (a, b) = (tries_from(&world, 0, start()), tries_from(&world, 1, start()));
    assert!((3 * a..6 * a).contains(&b), "{a} {b}");
}

#[test]
fn what_one_source_may_not_deliver_is_tried_once_from_another() {
    let rules = vec![rule(ReplyClass::Reputation, Threshold::Count(1), MeasureKind::OtherSource)];
    let tells = |_: &mut Luck, attempt: &Try| {
        (SECOND, if attempt.now < start() + DAY { says(Scope::Recipient, ReplyClass::Reputation) } else { ACCEPTED })
    };
    let mut world = World::with(10, with_rules(&["a", "b"], rules)).site("mx", &["a.test"], Box::new(tells));
    let keys: Vec<Key> = (0..20).map(|_| world.submit("a.test", Lane::Notice, 5 * DAY)).collect();
    world.run(5 * SECOND);
    let measures: Vec<_> = world.scheduler.measures().cloned().collect();
    assert_eq!(measures.len(), 20);
    let first = measures.iter().find(|m| matches!(&m.object, Object::Delivery { id, .. } if *id == keys[0].0)).unwrap();
    assert_eq!((first.kind, &*first.cause), (MeasureKind::OtherSource, "451 4.7.1 it speaks of reputation"));
    // One is cancelled: that delivery goes from wherever.
    world.scheduler.cancel_measure(world.now, first.id, "op: no");
    world.run(HOUR);
    let from =
        |key: &Key| world.log.iter().filter(|(_, other, ..)| other == key).map(|(.., source)| source.0).collect::<Vec<_>>();
    for key in &keys[1..] {
        let from = from(key);
        assert_ne!(from[0], from[1], "{from:?}");
    }
    assert_eq!(world.scheduler.measures().count(), 0, "once tried they are over, and once is enough");
    let again: usize = keys[1..].iter().filter(|key| from(key)[1] == from(key)[2]).count();
    assert!((3..17).contains(&again), "the third try may come from either: {again}");
    world.run(6 * DAY);
    world.check_empty();
}

#[test]
fn a_greylisted_delivery_stays_with_its_source_and_waits_as_it_was_told() {
    let mut seen = std::collections::HashMap::new();
    // As a greylisting host does: the tuple of source and message must come back after five minutes.
    let script = move |_: &mut Luck, attempt: &Try| {
        let first = *seen.entry(attempt.source).or_insert(attempt.now);
        let known = attempt.now >= first + 5 * MINUTE;
        (SECOND, if known { ACCEPTED } else { says(Scope::Recipient, ReplyClass::Greylist) })
    };
    let sources = ["a", "b", "c", "d", "e", "f"];
    let mut world = World::with(11, with_rules(&sources, Vec::new())).site("mx", &["a.test"], Box::new(script));
    let key = world.submit("a.test", Lane::Transactional, DAY);
    let otp = world.submit("a.test", Lane::Otp, 20 * MINUTE);
    world.run(HOUR);
    for (key, wait) in [(&key, 5 * MINUTE), (&otp, 9 * SECOND)] {
        let from: Vec<u16> = world.log.iter().filter(|(_, other, ..)| other == key).map(|(.., source)| source.0).collect();
        assert!(from.len() >= 2 && from.iter().all(|source| *source == from[0]), "{from:?}");
        let tries = world.tries(key);
        assert!(tries[1].duration_since(tries[0]).unwrap() >= wait, "{tries:?}");
    }
    assert_eq!(world.tries(&key).len(), 2);
    world.check_empty();
}

#[test]
fn a_member_whose_mail_is_refused_for_what_it_says_is_held_and_others_are_not() {
    let rules = vec![rule(ReplyClass::Content, Threshold::Share { percent: 50, sample: 50 }, MeasureKind::HoldMember)];
    let spam =
        Outcome { scope: Scope::Message, verdict: scheduler::Verdict::Failed, class: Some(ReplyClass::Content), ..ACCEPTED };
    let mut world = World::with(12, with_rules(&["a"], rules))
        .site("mx", &["a.test"], Box::new(move |_, _| (SECOND, spam)))
        .site("ok", &["b.test"], accepts_in(SECOND));
    trickle(&mut world, "a.test", HOUR);
    world.run(15 * MINUTE);
    let measure = world.measure(MeasureKind::HoldMember);
    assert_eq!((&measure.object, measure.class), (&Object::Member(1), Some(ReplyClass::Content)));
    let tries = world.log.len();
    let mine = world.submit("b.test", Lane::Notice, DAY);
    let others = world.submit_of(2, world.now, "b.test", Lane::Notice, DAY);
    world.run(HOUR);
    assert_eq!((world.fate(&mine), world.fate(&others), world.log.len()), (None, Some(Fate::Done), tries + 1));
    let whereabouts = world.scheduler.whereabouts(world.now, mine.0, &mine.1, 1, Lane::Notice, world.now);
    let Whereabouts::Waiting { decision: Decision::Hold(hold), .. } = whereabouts else { panic!("{whereabouts:?}") };
    assert_eq!(hold.reason, Reason::MemberHeld { action: measure.id });
    world.start_anew(5);
    world.run(20 * MINUTE);
    assert_eq!((world.fate(&mine), world.log.len()), (None, tries + 1), "after a restart too");
    world.scheduler.cancel_measure(world.now, measure.id, "op: talked to them");
    world.run(MINUTE);
    assert_eq!(world.fate(&mine), Some(Fate::Done));
    world.run(DAY);
    world.check_empty();
}

#[test]
fn a_hold_ends_on_time() {
    let rules = vec![rule(ReplyClass::Content, Threshold::Count(3), MeasureKind::HoldMember)];
    let early = start() + MINUTE;
    let script = move |_: &mut Luck, attempt: &Try| {
        (SECOND, if attempt.now < early { says(Scope::Message, ReplyClass::Content) } else { ACCEPTED })
    };
    let mut world = World::with(13, with_rules(&["a"], rules)).site("mx", &["a.test"], Box::new(script));
    let keys = trickle(&mut world, "a.test", 10 * MINUTE);
    world.run(30 * MINUTE);
    let measure = world.measure(MeasureKind::HoldMember);
    assert!(keys.iter().all(|key| world.fate(key).is_none()));
    world.run(DAY);
    assert_eq!(world.changes(measure.id).last(), Some(&Change::Expired));
    assert_eq!(world.fates(Fate::Done), keys.len());
}

#[test]
fn rules_of_another_provider_do_not_act_and_a_cancelled_one_starts_to_count_anew() {
    let mut rules = vec![rule(ReplyClass::Rate, Threshold::Count(10), MeasureKind::PauseProvider)];
    rules.push(Reaction {
        provider: Some("google".into()),
        ..rule(ReplyClass::Rate, Threshold::Count(1), MeasureKind::HoldMember)
    });
    let tells = |_: &mut Luck, _: &Try| (SECOND, says(Scope::Recipient, ReplyClass::Rate));
    let mut world = World::with(14, with_rules(&["a"], rules)).site("mx", &["a.test"], Box::new(tells));
    trickle(&mut world, "a.test", HOUR);
    world.run(10 * MINUTE);
    let measure = world.measure(MeasureKind::PauseProvider);
    assert_eq!(world.scheduler.measures().count(), 1);
    let tries = world.log.len();
    world.scheduler.cancel_measure(world.now, measure.id, "op: not that");
    world.run(20 * SECOND);
    assert!(world.log.len() >= tries + 10, "{tries} {}", world.log.len());
    assert!(world.measure(MeasureKind::PauseProvider).id > measure.id);
}

#[test]
fn a_site_with_a_hard_limit_is_annoyed_less_and_less() {
    // More than ten at a time are told to go away; who is let in stays for a second.
    let ends = std::cell::RefCell::new(Vec::<SystemTime>::new());
    let refused = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let counts = refused.clone();
    let script = move |_: &mut Luck, attempt: &Try| {
        let mut ends = ends.borrow_mut();
        ends.retain(|end| *end > attempt.now);
        if ends.len() < 10 {
            ends.push(attempt.now + SECOND);
            return (SECOND, ACCEPTED);
        }
        counts.borrow_mut().push(attempt.now);
        (Duration::from_millis(50), says(Scope::Source, ReplyClass::Rate))
    };
    let mut world = World::with(15, with_rules(&["a"], Vec::new())).site("mx", &["a.test"], Box::new(script));
    (0..40_000).for_each(|_| drop(world.submit("a.test", Lane::Notice, 5 * DAY)));
    world.run(3 * HOUR);
    let within = |from: u32, to: u32| {
        let (from, to) = (start() + MINUTE * from, start() + MINUTE * to);
        refused.borrow().iter().filter(|time| **time >= from && **time < to).count()
    };
    // A window that only halves and rises comes back to the limit every six seconds.
    let (first, later) = (within(0, 1), within(30, 60));
    assert!(later <= 45, "in the first minute {first}, then {later} in half an hour");
    assert!(world.fates(Fate::Done) > 39_000, "and the mail flows: {}", world.fates(Fate::Done));
    assert_eq!(world.measure_news.len(), 0, "going slower was answer enough: {:?}", world.measure_news);
}

#[test]
fn a_pause_of_a_site_is_prolonged_kept_over_a_restart_and_cancelled() {
    let rules = vec![rule(ReplyClass::Rate, Threshold::Count(5), MeasureKind::PauseSite)];
    let early = start() + MINUTE;
    let script = move |_: &mut Luck, attempt: &Try| {
        (SECOND, if attempt.now < early { says(Scope::Recipient, ReplyClass::Rate) } else { ACCEPTED })
    };
    let mut world = World::with(16, with_rules(&["a"], rules)).site("mx", &["a.test"], Box::new(script));
    trickle(&mut world, "a.test", 10 * MINUTE);
    world.run(30 * MINUTE);
    let (measure, tries) = (world.measure(MeasureKind::PauseSite), world.log.len());
    assert_eq!(held_by(&world, "a.test"), Some(measure.id));
    let longer = world.scheduler.extend_measure(world.now, measure.id, 2 * HOUR, "op: not yet").unwrap();
    assert_eq!(longer.expires, measure.expires + 2 * HOUR);
    world.run(SECOND);
    world.start_anew(8);
    world.run(3 * HOUR);
    assert_eq!((world.log.len(), world.measure(MeasureKind::PauseSite)), (tries, longer), "past its first end, after a restart");
    world.scheduler.cancel_measure(world.now, measure.id, "op: they are well");
    world.run(HOUR);
    assert_eq!(world.fates(Fate::Done), 60);
    world.check_empty();
}

#[test]
fn another_source_is_tried_although_the_daemon_was_restarted_and_the_wish_expires() {
    let rules = vec![rule(ReplyClass::Reputation, Threshold::Count(1), MeasureKind::OtherSource)];
    let never = |_: &mut Luck, _: &Try| (SECOND, says(Scope::Recipient, ReplyClass::Reputation));
    let mut world = World::with(17, with_rules(&["a", "b"], rules)).site("mx", &["a.test"], Box::new(never));
    let key = world.submit("a.test", Lane::Notice, 5 * DAY);
    world.run(5 * SECOND);
    let measure = world.measure(MeasureKind::OtherSource);
    assert_eq!(measure.expires.duration_since(measure.started).unwrap(), 2 * HOUR);
    let longer = world.scheduler.extend_measure(world.now, measure.id, HOUR, "op: slow").unwrap();
    assert_eq!(longer.expires, measure.expires + HOUR);
    world.run(SECOND);
    world.start_anew(9);
    world.run(20 * MINUTE);
    let from: Vec<u16> = world.log.iter().filter(|(_, other, ..)| *other == key).map(|(.., source)| source.0).collect();
    assert_ne!(from[0], from[1], "{from:?}");
    assert_eq!(world.changes(measure.id).last(), Some(&Change::Expired));
    let started = world.measure_news.iter().filter(|(_, news)| news.change == Change::Started).count();
    assert_eq!(started, 1, "once is enough, over a restart too");
}
