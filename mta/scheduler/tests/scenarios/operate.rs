//! What an operator asks and wants: the answers come from the checks that decide.

use scheduler::{Action, Cancellation, Cancelled, Cause, Clears, Decision, Lane, Next, Reason, Routed, Scope, Whereabouts};

use crate::check::Fate;
use crate::world::*;

fn wish() -> Cancellation {
    Cancellation { by: "the test".into(), notify: false }
}

#[test]
fn a_suspension_that_is_lifted_lets_one_go_first_and_the_rest_when_that_went_well() {
    let mut world = World::seed(31).site(
        "mx",
        &["a.test"],
        Box::new(|_, attempt| (SECOND, if attempt.now < start() + 10 * SECOND { deferred(Scope::Site) } else { ACCEPTED })),
    );
    (0..40).for_each(|_| drop(world.submit("a.test", Lane::Notice, DAY)));
    world.run(5 * SECOND);
    assert!(world.scheduler.site_view("mx").unwrap().suspended_until.is_some());
    let tried = world.log.len();
    // Well before the suspension ends by itself.
    world.run(6 * SECOND);
    assert_eq!(world.log.len(), tried);
    world.check.lift("mx", world.now);
    assert!(world.scheduler.handle_lift(world.now, "mx"));
    assert!(!world.scheduler.handle_lift(world.now, "mx"), "once is enough");
    assert!(!world.scheduler.handle_lift(world.now, "nowhere"));
    world.run(SECOND / 2);
    assert_eq!(world.log.len(), tried + 1, "the probe");
    world.run(20 * SECOND);
    assert!(world.log.len() >= 40);
    world.run(HOUR);
    world.check_empty();
}

#[test]
fn what_is_cancelled_while_it_waits_does_not_go_and_what_is_in_flight_ends_by_itself() {
    let mut world = World::seed(32).site("mx", &["a.test"], accepts_in(MINUTE));
    let keys: Vec<_> = (0..30).map(|_| world.submit("a.test", Lane::Notice, DAY)).collect();
    world.run(SECOND);
    let began = world.log.len();
    let answers: Vec<_> =
        keys.iter().map(|(id, domain)| world.scheduler.handle_cancel(world.now, *id, domain, 1, Lane::Notice, wish())).collect();
    let count = |what| answers.iter().filter(|answer| **answer == what).count();
    assert_eq!((count(Cancelled::InFlight), count(Cancelled::Withdrawn)), (began, 30 - began));
    world.run(HOUR);
    world.check_empty();
    assert_eq!((world.fates(Fate::Done), world.fates(Fate::Cancelled)), (began, 30 - began));
    assert_eq!(world.log.len(), began);
}

#[test]
fn what_a_cancelled_attempt_leaves_open_is_cancelled_and_not_deferred() {
    let mut world = World::seed(33).site("mx", &["a.test"], Box::new(|_, _| (MINUTE, deferred(Scope::Recipient))));
    let key = world.submit("a.test", Lane::Otp, HOUR);
    world.run(SECOND);
    let answer = world.scheduler.handle_cancel(world.now, key.0, &key.1, 1, Lane::Otp, wish());
    assert_eq!(answer, Cancelled::InFlight);
    assert!(matches!(
        world.scheduler.whereabouts(world.now, key.0, "a.test", 1, Lane::Otp, start()),
        Whereabouts::InFlight { cancelled: true, .. }
    ));
    world.run(DAY);
    world.check_empty();
    assert_eq!((world.fate(&key), world.tries(&key).len()), (Some(Fate::Cancelled), 1));
}

#[test]
fn what_lies_on_disk_is_cancelled_without_being_loaded() {
    let mut scheduler = scheduler::Scheduler::new(scheduler::Config { sources: vec![source("a", 1)], ..Default::default() }, 1);
    let id = scheduler::QueueId::new(start(), 7);
    assert_eq!(scheduler.handle_cancel(start(), id, "a.test", 1, Lane::Notice, wish()), Cancelled::Withdrawn);
    assert_eq!(scheduler.handle_cancel(start(), id, "a.test", 1, Lane::Notice, wish()), Cancelled::Settling);
    let Some(Action::Settle { cause: Cause::Cancelled(_), next: Next::Done, .. }) = scheduler.poll(start()) else {
        panic!("it is not settled")
    };
    scheduler.handle_settled(start(), id, "a.test", 1, None);
    assert_eq!(scheduler.poll(start()), None);
    assert_eq!(scheduler.counts(), Default::default());
}

#[test]
fn an_operator_is_told_what_the_machine_does() {
    let mut world = World::seed(34).site("mx", &["a.test"], accepts_in(MINUTE));
    let keys: Vec<_> = (0..14).map(|_| world.submit("a.test", Lane::Notice, DAY)).collect();
    // Nothing is known of it yet: a lookup for this question serves.
    let fresh = Routed::Route(route("mx", start() + HOUR));
    let survey = world.scheduler.survey(start(), "a.test", Some(&fresh));
    assert!(matches!(survey.decisions[2], Decision::Send { slot: 0, .. }), "{:?}", survey.decisions);
    world.run(SECOND);
    let (mut flying, mut waiting) = (0, Vec::new());
    for (id, domain) in &keys {
        match world.scheduler.whereabouts(world.now, *id, domain, 1, Lane::Notice, start()) {
            Whereabouts::InFlight { flight, .. } => {
                assert_eq!((&*flight.site, flight.began.is_some()), ("mx", true));
                flying += 1;
            }
            Whereabouts::Waiting { ahead, decision, turn, .. } => {
                assert_eq!(turn.as_deref(), Some("a.test"));
                assert!(matches!(&decision, Decision::Hold(hold) if matches!(hold.reason, Reason::WindowFull { .. })
                    && hold.clears == Clears::WithNextAnswer));
                waiting.push(ahead);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(flying, world.log.len());
    assert_eq!(waiting, (0..14 - flying).collect::<Vec<_>>());
    let survey = world.scheduler.survey(world.now, "a.test", None);
    assert_eq!(usize::from(survey.sources[0].in_flight), flying);
    assert!(matches!(&survey.decisions[2], Decision::Hold(hold) if matches!(hold.reason, Reason::WindowFull { .. })));
    assert_eq!(world.scheduler.domains_of_site("mx", 0, 100), (vec!["a.test".into()], None));
    world.run(HOUR);
    world.check_empty();
}

#[test]
fn a_flush_asks_dns_again_for_a_domain_that_had_no_route() {
    let fixed = start() + 2 * SECOND;
    let mut world = World::seed(35).site("mx", &[], accepts_in(SECOND)).domain("a.test", move |now| {
        if now < fixed { no_route(scheduler::Verdict::Deferred) } else { Routed::Route(route("mx", now + HOUR)) }
    });
    let key = world.submit("a.test", Lane::Notice, DAY);
    world.run(5 * SECOND);
    assert_eq!(world.log.len(), 0, "the domain waits before it is looked up again");
    world.scheduler.handle_flush(world.now, "a.test");
    world.run(2 * SECOND);
    assert_eq!(world.tries(&key).len(), 1);
}
