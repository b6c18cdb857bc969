//! What the driver may say in another order than one would like: answers that are older than the news.

use std::time::SystemTime;

use scheduler::{Action, Cause, Config, Delivery, Lane, Next, Outcome, QueueId, Routed, Scheduler};

use crate::world::*;

fn delivery(counter: u32) -> Delivery {
    Delivery {
        id: QueueId::new(start(), counter),
        domain: "a.test".into(),
        lane: Lane::Notice,
        member: 1,
        due: start(),
        deadline: start() + DAY,
        late_at: None,
        attempts: 0,
        recipients: 1,
        bytes: 4096,
    }
}

fn scheduler() -> Scheduler {
    Scheduler::new(Config { sources: vec![source("a", 1)], ..Config::default() }, 1)
}

/// Polls to the end, answers lookups, and returns what else was asked for.
fn poll(scheduler: &mut Scheduler, now: SystemTime) -> Vec<Action> {
    let mut actions = Vec::new();
    while let Some(action) = scheduler.poll(now) {
        match action {
            Action::Resolve { domain } => scheduler.handle_route(now, &domain, Routed::Route(route("mx", now + HOUR))),
            other => actions.push(other),
        }
    }
    actions
}

fn deliveries(actions: &[Action]) -> Vec<QueueId> {
    actions.iter().filter_map(|action| if let Action::Deliver { id, .. } = action { Some(*id) } else { None }).collect()
}

#[test]
fn what_was_loaded_before_we_were_told_of_it_goes_once() {
    let mut scheduler = scheduler();
    scheduler.handle_backlog(start(), "a.test", 1, start());
    assert!(matches!(poll(&mut scheduler, start())[..], [Action::Load { .. }]));
    let window: Vec<Delivery> = (0..20).map(delivery).collect();
    scheduler.handle_window(start(), "a.test", 1, window.clone(), None);
    // Ten are in flight and ten wait, when we are told of all of them.
    assert_eq!(deliveries(&poll(&mut scheduler, start())).len(), 10);
    for late in window {
        assert!(scheduler.handle_enqueued(start(), late));
    }
    let counts = scheduler.counts();
    assert_eq!((counts.queued, counts.in_flight), (10, 10));
    assert!(poll(&mut scheduler, start()).is_empty());
}

#[test]
fn what_was_settled_while_a_load_was_read_does_not_come_back() {
    let mut scheduler = scheduler();
    assert!(scheduler.handle_enqueued(start(), delivery(1)));
    assert_eq!(deliveries(&poll(&mut scheduler, start())), [delivery(1).id]);
    scheduler.handle_backlog(start(), "a.test", 1, start());
    assert!(matches!(poll(&mut scheduler, start())[..], [Action::Load { max, .. }] if max > 1));
    // The disk is read now; what was read arrives after the delivery was settled.
    let read = vec![delivery(1), delivery(2)];
    scheduler.handle_outcome(start(), delivery(1).id, "a.test", ACCEPTED, "");
    assert!(matches!(poll(&mut scheduler, start())[..], [Action::Settle { .. }]));
    scheduler.handle_settled(start(), delivery(1).id, "a.test", 1, None);
    scheduler.handle_window(start(), "a.test", 1, read, None);
    assert_eq!(deliveries(&poll(&mut scheduler, start())), [delivery(2).id]);
}

#[test]
fn what_an_operator_took_away_does_not_go() {
    let mut scheduler = scheduler();
    (0..12).for_each(|nth| assert!(scheduler.handle_enqueued(start(), delivery(nth))));
    let first = deliveries(&poll(&mut scheduler, start()));
    assert_eq!(first.len(), 10);
    scheduler.handle_settled(start(), delivery(10).id, "a.test", 1, None);
    // Another one is held, and released after an hour.
    scheduler.handle_settled(start(), delivery(11).id, "a.test", 1, Some(start() + HOUR));
    for id in first {
        scheduler.handle_outcome(start(), id, "a.test", ACCEPTED, "");
        poll(&mut scheduler, start());
        scheduler.handle_settled(start(), id, "a.test", 1, None);
    }
    assert!(poll(&mut scheduler, start()).is_empty());
    assert!(matches!(poll(&mut scheduler, start() + HOUR)[..], [Action::Load { .. }]));
}

#[test]
fn answers_to_what_was_never_asked_change_nothing() {
    let mut scheduler = scheduler();
    scheduler.handle_route(start(), "a.test", Routed::Route(route("mx", start() + HOUR)));
    scheduler.handle_window(start(), "a.test", 1, vec![delivery(1)], Some(start()));
    scheduler.handle_outcome(start(), delivery(1).id, "a.test", Outcome { open: true, ..ACCEPTED }, "");
    scheduler.handle_settled(start(), delivery(1).id, "a.test", 1, None);
    assert!(poll(&mut scheduler, start()).is_empty());
    assert_eq!(scheduler.counts(), Default::default());
}

#[test]
fn a_disk_that_answers_nothing_is_not_asked_in_a_circle() {
    let mut scheduler = scheduler();
    scheduler.handle_backlog(start(), "a.test", 1, start());
    let (mut now, mut reads) = (start(), 0);
    while now < start() + MINUTE {
        for action in poll(&mut scheduler, now) {
            assert!(matches!(action, Action::Load { .. }));
            reads += 1;
            scheduler.handle_window(now, "a.test", 1, Vec::new(), Some(start()));
        }
        now = scheduler.next_timeout().unwrap().max(now);
    }
    assert!((50..=61).contains(&reads), "{reads} reads in a minute");
}

#[test]
fn what_is_older_goes_first_although_it_was_loaded_later() {
    let mut scheduler = scheduler();
    scheduler.handle_backlog(start(), "a.test", 1, start() - MINUTE);
    assert!(matches!(poll(&mut scheduler, start())[..], [Action::Load { .. }]));
    // New mail may wait in memory while the disk is read.
    (100..112).for_each(|nth| assert!(scheduler.handle_enqueued(start(), delivery(nth))));
    let old = (0..12).map(|nth| Delivery { due: start() - MINUTE, ..delivery(nth) });
    scheduler.handle_window(start(), "a.test", 1, old.collect(), None);
    let went = deliveries(&poll(&mut scheduler, start()));
    assert_eq!(went, (0..10).map(|nth| delivery(nth).id).collect::<Vec<_>>());
}

/// What is asked for, but for lookups and loads, which nobody answers here.
fn settles(scheduler: &mut Scheduler, now: std::time::SystemTime) -> Vec<(QueueId, Cause, Next)> {
    let mut found = Vec::new();
    while let Some(action) = scheduler.poll(now) {
        if let Action::Settle { id, cause, next, .. } = action {
            found.push((id, cause, next));
        }
    }
    found
}

#[test]
fn what_waits_is_told_late_at_its_time_and_expires_at_its_deadline_although_it_cannot_be_sent() {
    let mut scheduler = scheduler();
    let (late, deadline) = (start() + HOUR, start() + 2 * HOUR);
    let waiting = Delivery { late_at: Some(late), deadline, ..delivery(1) };
    assert!(scheduler.handle_enqueued(start(), waiting.clone()));
    assert_eq!(settles(&mut scheduler, late - SECOND), []);
    assert!(scheduler.next_timeout().is_some_and(|at| at <= late));
    assert_eq!(settles(&mut scheduler, late), [(waiting.id, Cause::Late, Next::RetryAt(late))]);
    scheduler.handle_settled(late, waiting.id, "a.test", waiting.member, Some(late));
    while let Some(action) = scheduler.poll(late) {
        if matches!(action, Action::Load { .. }) {
            let told = Delivery { late_at: None, due: late, ..waiting.clone() };
            scheduler.handle_window(late, "a.test", waiting.member, vec![told], None);
        }
    }
    assert_eq!(settles(&mut scheduler, deadline - SECOND), []);
    assert_eq!(settles(&mut scheduler, deadline), [(waiting.id, Cause::Expired, Next::Expired)]);
}

#[test]
fn what_the_driver_finds_overdue_on_disk_is_settled_once() {
    let mut scheduler = scheduler();
    let now = start() + 2 * DAY;
    let (expired, late) = (delivery(1), Delivery { late_at: Some(start() + DAY), deadline: now + DAY, ..delivery(2) });
    // One waits in memory all the same, and the driver looks twice before anything is written down.
    assert!(scheduler.handle_enqueued(start(), late.clone()));
    for _ in 0..2 {
        scheduler.handle_overdue(now, &expired);
        scheduler.handle_overdue(now, &late);
    }
    let found = settles(&mut scheduler, now);
    assert_eq!(found, [(expired.id, Cause::Expired, Next::Expired), (late.id, Cause::Late, Next::RetryAt(now))]);
    scheduler.handle_settled(now, expired.id, "a.test", expired.member, None);
    assert_eq!(settles(&mut scheduler, now), []);
}
