//! Routes: looked up when needed, shared as sites, changed on the way, or not there at all.

use std::net::IpAddr;
use std::sync::Arc;

use scheduler::{Config, Decision, Lane, Outcome, Reason, Route, Routed, Scope, Source, Verdict};

use crate::check::Fate;
use crate::world::*;

#[test]
fn a_domain_is_looked_up_once_while_its_route_is_good() {
    let mut world = World::seed(1).site("mx", &["a.test"], accepts_in(SECOND));
    for nth in 0..60 {
        world.submit_at(start() + nth * SECOND, "a.test", Lane::Transactional, DAY);
    }
    world.run(2 * MINUTE);
    assert_eq!(world.lookups, 1);
    world.run(DAY);
    world.check_empty();
    assert_eq!(world.scheduler.counts().domains, 0, "a domain without mail is forgotten");
    assert_eq!(world.scheduler.counts().sites, 0, "a site that nobody needs is forgotten");
}

#[test]
fn a_domain_that_changes_its_mx_moves_to_the_new_site_with_all_that_waits() {
    let changes = start() + 10 * MINUTE;
    let mut world = World::seed(2)
        .site("old", &["other.test"], accepts_in(20 * SECOND))
        .site("new", &[], accepts_in(SECOND))
        .domain("a.test", move |now| Routed::Route(route(if now < changes { "old" } else { "new" }, now + MINUTE)));
    (0..3_000).for_each(|_| drop(world.submit("a.test", Lane::Notice, DAY)));
    (0..10).for_each(|_| drop(world.submit("other.test", Lane::Notice, DAY)));
    world.run(DAY);
    world.check_empty();
    let late = world
        .log
        .iter()
        .filter(|(time, key, site, _)| *time > changes + 2 * MINUTE && &**site == "old" && &*key.1 == "a.test")
        .count();
    assert_eq!(late, 0, "went to the old site");
    assert!(world.log.iter().any(|(_, _, site, _)| &**site == "new"));
}

#[test]
fn a_domain_that_takes_no_mail_fails_all_of_it_without_a_try() {
    let mut world = World::seed(3).domain("null.test", |_| no_route(Verdict::Failed));
    (0..1_000).for_each(|_| drop(world.lies_on_disk("null.test", Lane::Notice, start(), DAY)));
    world.restart();
    world.submit("null.test", Lane::Otp, 10 * MINUTE);
    world.run(MINUTE);
    world.check_empty();
    assert_eq!((world.fates(Fate::Unroutable), world.log.len()), (1_001, 0));
    assert!(world.lookups <= 2, "{} lookups", world.lookups);
}

#[test]
fn a_domain_whose_dns_is_silent_waits_costs_no_attempt_and_goes_when_it_answers() {
    let answers = start() + 6 * HOUR;
    let mut world = World::seed(4).site("mx", &[], accepts_in(SECOND)).domain("a.test", move |now| match now < answers {
        true => no_route(Verdict::Deferred),
        false => Routed::Route(route("mx", now + HOUR)),
    });
    let keys: Vec<_> = (0..100).map(|_| world.submit("a.test", Lane::Transactional, DAY)).collect();
    let otp = world.submit("a.test", Lane::Otp, 10 * MINUTE);
    world.run(10 * MINUTE + SECOND);
    assert_eq!(world.fate(&otp), Some(Fate::Expired), "its ten minutes are over");
    assert!(matches!(
        world.scheduler.explain(world.now, "a.test", 1, Lane::Transactional),
        Some(Decision::Hold(hold)) if matches!(hold.reason, Reason::Unroutable(_)) && hold.clears_at().is_some()
    ));
    world.run(5 * HOUR);
    assert!(world.lookups < 40, "{} lookups in five hours", world.lookups);
    assert!(world.log.is_empty() && world.fates(Fate::Done) == 0);
    world.run(90 * MINUTE);
    world.check_empty();
    assert!(keys.iter().all(|key| world.tries(key).len() == 1 && world.fate(key) == Some(Fate::Done)));
}

#[test]
fn a_host_that_no_source_can_reach_holds_only_its_domain() {
    let six = |now| {
        let mut route = Route::clone(&route("mx", now));
        route.hosts[0].addresses = vec![IpAddr::from([0u16, 0, 0, 0, 0, 0, 0, 1])];
        Routed::Route(Arc::new(route))
    };
    let mut world =
        World::seed(5).site("mx", &["four.test"], accepts_in(SECOND)).domain("six.test", move |now| six(now + MINUTE));
    let held = world.submit("six.test", Lane::Otp, HOUR);
    world.run(SECOND);
    let others: Vec<_> = (0..50).map(|_| world.submit("four.test", Lane::Otp, HOUR)).collect();
    world.run(MINUTE);
    assert!(others.iter().all(|key| world.fate(key) == Some(Fate::Done)));
    let decision = world.scheduler.explain(world.now, "six.test", 1, Lane::Otp);
    assert!(matches!(decision, Some(Decision::Hold(hold)) if matches!(hold.reason, Reason::NoAddress(_))));
    world.run(HOUR);
    assert_eq!(world.fate(&held), Some(Fate::Expired));
    world.check_empty();
}

#[test]
fn an_address_family_that_leads_nowhere_costs_a_delivery_one_connect_and_no_wait() {
    let six = IpAddr::from([0u16, 0, 0, 0, 0, 0, 0, 1]);
    let both = move |now| {
        let mut route = Route::clone(&route("mx", now));
        route.hosts[0].addresses.push(six);
        Routed::Route(Arc::new(route))
    };
    let sources =
        vec![source("four", 1), Source { address: six, ..source("six", 20) }, Source { address: six, ..source("6", 20) }];
    let script = |_: &mut Luck, attempt: &Try| match attempt.source.0 {
        0 => (SECOND, ACCEPTED),
        _ => (5 * SECOND, Outcome { unconnected: true, ..deferred(Scope::Source) }),
    };
    let mut world = World::with(7, Config { sources, ..Config::default() })
        .site("mx", &[], Box::new(script))
        .domain("a.test", move |now| both(now + HOUR));
    let keys: Vec<_> = (0..200).map(|_| world.submit("a.test", Lane::Notice, DAY)).collect();
    world.run(30 * SECOND);
    world.check_empty();
    assert!(keys.iter().all(|key| world.fate(key) == Some(Fate::Done)));
    let astray = world.log.iter().filter(|(.., source)| source.0 != 0).count();
    assert!((1..=40).contains(&astray), "{astray}: what had begun before the first one came back");
}

#[test]
fn a_site_that_neither_family_leads_to_is_tried_at_the_usual_pace() {
    let six = IpAddr::from([0u16, 0, 0, 0, 0, 0, 0, 1]);
    let sources = vec![source("four", 1), Source { address: six, ..source("six", 1) }];
    let down = |_: &mut Luck, _: &Try| (5 * SECOND, Outcome { unconnected: true, ..deferred(Scope::Source) });
    let mut world =
        World::with(8, Config { sources, ..Config::default() }).site("mx", &[], Box::new(down)).domain("a.test", move |now| {
            let mut route = Route::clone(&route("mx", now + HOUR));
            route.hosts[0].addresses.push(six);
            Routed::Route(Arc::new(route))
        });
    let key = world.submit("a.test", Lane::Notice, DAY);
    world.run(DAY + HOUR);
    assert_eq!(world.fate(&key), Some(Fate::Expired));
    assert!((5..60).contains(&world.tries(&key).len()), "{} tries", world.tries(&key).len());
}

#[test]
fn mail_that_waits_for_a_site_that_is_down_follows_the_domain_when_it_moves() {
    let moves = start() + 3 * HOUR;
    let down = Box::new(|_: &mut Luck, _: &Try| (SECOND, deferred(Scope::Site)));
    let mut world = World::seed(6)
        .site("old", &[], down)
        .site("new", &[], accepts_in(SECOND))
        .domain("a.test", move |now| Routed::Route(route(if now < moves { "old" } else { "new" }, now + MINUTE)));
    (0..100).for_each(|_| drop(world.submit("a.test", Lane::Notice, DAY)));
    world.run(DAY);
    world.check_empty();
    assert_eq!(world.fates(Fate::Done), 100);
    let late = world.log.iter().filter(|(time, _, site, _)| *time > moves && &**site == "old").count();
    assert_eq!(late, 0, "a route that had run out hours ago was used");
}
