//! Limits of shaping, each in virtual time: no more than it says, no less than it lets, and the word of whoever set it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use scheduler::{
    Clears, Config, Decision, From, Hold, Knob, Lane, MemberPools, Outcome, Place, Pool, Rate, Reason, Route, Routed, Rule, Set,
    SetBy, Shaping, SourceId, Value, WindowLimits,
};

use crate::world::*;

/// One rule, of layer 1, written in `x:1`.
fn rule(place: Place, from: From, sets: &[(Knob, Value)]) -> Rule {
    let set = |(knob, value): &(Knob, Value)| (*knob, Set { value: *value, by: "x:1".into() });
    Rule { place, from, layer: 1, sets: sets.iter().map(set).collect() }
}

fn config(rules: Vec<Rule>) -> Config {
    Config { sources: vec![source("a", 1)], shaping: Arc::new(Shaping { rules }), ..Config::default() }
}

fn everywhere(sets: &[(Knob, Value)]) -> Config {
    config(vec![rule(Place::Everywhere, From::Any, sets)])
}

fn per(count: u32, secs: u64) -> Value {
    Value::Rate(count, Duration::from_secs(secs))
}

fn hold(world: &World, domain: &str, lane: Lane) -> Hold {
    match world.scheduler.explain(world.now, domain, 1, lane) {
        Some(Decision::Hold(hold)) => hold,
        other => panic!("{other:?}"),
    }
}

fn by_shaping(knob: Knob) -> SetBy {
    SetBy::Shaping(knob, "x:1".into())
}

/// Most tries that fall into any `span`.
fn most_in(world: &World, span: Duration, of: impl Fn(&str) -> bool) -> usize {
    let times: Vec<SystemTime> = world.log.iter().filter(|(_, key, ..)| of(&key.1)).map(|(time, ..)| *time).collect();
    (0..times.len()).map(|nth| times[nth..].iter().take_while(|time| **time < times[nth] + span).count()).max().unwrap_or(0)
}

/// A domain at a site of its own, of a provider.
fn at_provider(world: World, site: &'static str, domain: &'static str, latency: Duration) -> World {
    let world = world.site(site, &[], accepts_in(latency));
    world.domain(domain, move |now| {
        Routed::Route(Arc::new(Route { provider: "big".into(), ..Route::clone(&route(site, now + HOUR)) }))
    })
}

#[test]
fn connections_are_the_most_that_a_window_reaches_and_the_layer_is_named() {
    let sets = [(Knob::Connections, Value::Count(3)), (Knob::WindowInitial, Value::Count(2))];
    let mut world = World::with(1, everywhere(&sets)).site("mx", &["a.test"], accepts_in(SECOND));
    (0..100).for_each(|_| drop(world.submit("a.test", Lane::Notice, DAY)));
    world.run(SECOND / 2);
    assert_eq!(world.check.window_most["mx"], 2);
    world.run(10 * SECOND);
    assert_eq!(world.check.window_most["mx"], 3);
    let hold = hold(&world, "a.test", Lane::Notice);
    assert_eq!(hold.set_by, by_shaping(Knob::Connections));
    assert_eq!(hold.clears, Clears::WithNextAnswer);
    world.run(MINUTE);
    world.check_empty();
}

#[test]
fn no_more_messages_go_to_a_site_than_its_rate_says_and_none_waits_longer() {
    let sets = [(Knob::Rate, per(60, 60)), (Knob::Burst, Value::Count(5))];
    let mut world = World::with(2, everywhere(&sets)).site("mx", &["a.test", "b.test"], accepts_in(SECOND / 10)).site(
        "other",
        &["c.test"],
        accepts_in(SECOND / 10),
    );
    for domain in ["a.test", "b.test", "c.test"] {
        (0..100).for_each(|_| drop(world.submit(domain, Lane::Notice, DAY)));
    }
    world.run(30 * SECOND);
    let hold = hold(&world, "a.test", Lane::Notice);
    let rate = Rate { count: 60, per: MINUTE, burst: 5 };
    assert_eq!((hold.reason, hold.set_by), (Reason::RateReached { source: SourceId(0), rate }, by_shaping(Knob::Rate)));
    let Clears::At(clears) = hold.clears else { panic!("{hold:?}", hold = hold.clears) };
    assert!(clears > world.now && clears <= world.now + SECOND);
    // A one-time code is bounded too, and next.
    let code = world.submit("a.test", Lane::Otp, 10 * MINUTE);
    world.run(2 * SECOND);
    assert_eq!((world.tries(&code).len(), world.passed_by(&code) <= 3), (1, true));
    assert!(world.tries(&code)[0] <= clears + SECOND);
    world.run(HOUR);
    world.check_empty();
    assert_eq!(most_in(&world, MINUTE, |domain| domain != "c.test"), 64, "sixty a minute, and four more after a pause");
    assert_eq!(most_in(&world, MINUTE, |domain| domain == "c.test"), 64, "each site by itself");
    let last = world.log.iter().map(|(time, ..)| *time).max().unwrap();
    assert!(last < start() + 200 * SECOND, "201 messages at one a second, five at once");
}

#[test]
fn a_connection_that_is_kept_needs_none_and_others_are_begun_no_faster_than_their_rate() {
    let sets = [(Knob::ConnectRate, per(6, 60)), (Knob::Burst, Value::Count(1))];
    let mut world = World::with(3, everywhere(&sets)).site("mx", &["a.test"], accepts_in(SECOND));
    (0..60).for_each(|_| drop(world.submit("a.test", Lane::Notice, DAY)));
    world.run(5 * SECOND);
    assert_eq!(world.check.window_most["mx"], 1, "one connection, used again and again");
    assert!(world.log.len() >= 4);
    world.run(10 * SECOND);
    assert_eq!(world.check.window_most["mx"], 2, "ten seconds later there is a second");
    world.run(MINUTE);
    world.check_empty();
    // After a pause the connections are gone: the first may go, the second waits.
    world.run(MINUTE);
    (0..2).for_each(|_| drop(world.submit("a.test", Lane::Notice, DAY)));
    world.run(SECOND / 2);
    let hold = hold(&world, "a.test", Lane::Notice);
    assert!(matches!(hold.reason, Reason::ConnectRateReached { rate: Rate { count: 6, burst: 1, .. }, .. }), "{hold:?}");
    assert_eq!(hold.set_by, by_shaping(Knob::ConnectRate));
    world.run(MINUTE);
    world.check_empty();
}

#[test]
fn every_connection_that_was_begun_counts_and_none_that_was_only_expected() {
    let sets = [(Knob::ConnectRate, per(60, 3600)), (Knob::Burst, Value::Count(1))];
    // Hosts that hang up, so that each message takes three connections; and one that needs none, because they are all kept.
    for (begun, most) in [(3, 20..=21), (0, 200..=200)] {
        let taken = Outcome { connections: Some(begun), ..ACCEPTED };
        let mut world = World::with(3, everywhere(&sets)).site("mx", &["a.test"], Box::new(move |_, _| (SECOND, taken)));
        for nth in 0..200u32 {
            world.submit_at(start() + nth * 18 * SECOND, "a.test", Lane::Notice, DAY);
        }
        world.run(HOUR);
        assert!(most.contains(&world.log.len()), "{begun} connections each: {} messages in an hour", world.log.len());
    }
}

#[test]
fn a_provider_s_limits_count_all_of_its_sites_and_members_take_turns_for_them() {
    let place = || Place::Provider("big".into());
    let sets = [(Knob::ProviderRate, per(60, 60)), (Knob::ProviderConnections, Value::Count(2)), (Knob::Burst, Value::Count(1))];
    let mut world = World::with(4, config(vec![rule(place(), From::Any, &sets)]));
    let names: Vec<(&'static str, &'static str)> =
        (0..50).map(|nth| (&*format!("mx{nth}").leak(), &*format!("d{nth}.test").leak())).collect();
    for (site, domain) in &names {
        world = at_provider(world, site, domain, SECOND / 10);
    }
    world = world.site("small", &["small.test"], accepts_in(SECOND));
    // One member mails all fifty sites, twenty each; another has three messages, and comes later.
    for (_, domain) in &names {
        (0..20).for_each(|_| drop(world.submit(domain, Lane::Notice, DAY)));
    }
    world.run(30 * SECOND);
    assert!((28..=32).contains(&world.log.len()), "{}", world.log.len());
    let held = hold(&world, "d49.test", Lane::Notice);
    assert!(matches!(held.reason, Reason::ProviderRateReached { rate: Rate { count: 60, .. }, .. }), "{held:?}");
    assert_eq!(held.set_by, by_shaping(Knob::ProviderRate));
    let late: Vec<_> = (0..3).map(|nth| world.submit_of(2, world.now, names[nth].1, Lane::Notice, DAY)).collect();
    let elsewhere = world.submit("small.test", Lane::Notice, DAY);
    world.run(10 * SECOND);
    assert_eq!(world.tries(&elsewhere).len(), 1, "another provider is not held by this one's limit");
    for key in &late {
        assert!(world.tries(key).len() == 1 && world.passed_by(key) <= 8, "{key:?}: a turn each");
    }
    let code = world.submit("d40.test", Lane::Otp, 10 * MINUTE);
    world.run(3 * SECOND);
    assert!(world.passed_by(&code) <= 2);
    assert_eq!(most_in(&world, MINUTE, |domain| domain != "small.test"), world.log.len() - 1);
    world.run(HOUR);
    world.check_empty();
    assert!((58..=61).contains(&most_in(&world, MINUTE, |domain| domain != "small.test")));
}

#[test]
fn a_provider_bears_so_many_at_once_and_the_next_goes_as_soon_as_one_ends() {
    let sets = [(Knob::ProviderConnections, Value::Count(4))];
    let mut world = World::with(5, config(vec![rule(Place::Provider("big".into()), From::Any, &sets)]));
    let names: Vec<(&'static str, &'static str)> =
        (0..20).map(|nth| (&*format!("mx{nth}").leak(), &*format!("d{nth}.test").leak())).collect();
    for (site, domain) in &names {
        world = at_provider(world, site, domain, SECOND);
    }
    for (_, domain) in &names {
        (0..10).for_each(|_| drop(world.submit(domain, Lane::Notice, DAY)));
    }
    for _ in 0..40 {
        world.run(SECOND / 2);
        assert_eq!(world.check.in_flight.len(), 4);
    }
    let held = hold(&world, "d7.test", Lane::Notice);
    assert_eq!(
        (held.reason, held.set_by),
        (Reason::ProviderFull { source: SourceId(0), max: 4 }, by_shaping(Knob::ProviderConnections))
    );
    world.run(40 * SECOND);
    world.check_empty();
}

#[test]
fn a_spent_rate_is_not_forgotten_with_its_site() {
    let sets = [(Knob::Rate, per(2, 24 * 3600)), (Knob::Burst, Value::Count(2))];
    let mut world = World::with(6, everywhere(&sets)).site("mx", &["a.test"], accepts_in(SECOND));
    (0..2).for_each(|_| drop(world.submit("a.test", Lane::Notice, 3 * DAY)));
    world.run(5 * HOUR);
    world.check_empty();
    let third = world.submit("a.test", Lane::Notice, 3 * DAY);
    world.run(6 * HOUR);
    assert!(world.tries(&third).is_empty());
    world.run(2 * HOUR);
    assert_eq!(world.tries(&third).len(), 1);
    world.run(5 * DAY);
    assert_eq!(world.scheduler.counts().sites, 0);
}

#[test]
fn a_domain_with_a_rule_of_its_own_is_counted_by_itself() {
    let sets = [(Knob::Rate, per(6, 60)), (Knob::Burst, Value::Count(1))];
    let mut world = World::with(7, config(vec![rule(Place::Domain("slow.test".into()), From::Any, &sets)])).site(
        "mx",
        &["slow.test", "a.test"],
        accepts_in(SECOND),
    );
    for domain in ["slow.test", "a.test"] {
        (0..30).for_each(|_| drop(world.submit(domain, Lane::Notice, DAY)));
    }
    world.run(55 * SECOND);
    assert_eq!((world.tries_of_domain("a.test"), world.tries_of_domain("slow.test")), (30, 6));
    assert!(matches!(hold(&world, "slow.test", Lane::Notice).reason, Reason::RateReached { .. }));
    // Without the rule it shares what the site bears.
    world.configure(config(Vec::new()));
    world.run(MINUTE);
    assert_eq!(world.tries_of_domain("slow.test"), 30);
    world.check_empty();
}

#[test]
fn a_reload_changes_limits_at_once_and_keeps_what_was_learned() {
    let sets = |most| [(Knob::Connections, Value::Count(most)), (Knob::WindowInitial, Value::Count(2))];
    let mut world = World::with(8, everywhere(&sets(30))).site("mx", &["a.test"], accepts_in(SECOND));
    (0..600).for_each(|_| drop(world.submit("a.test", Lane::Notice, DAY)));
    world.run(8 * SECOND);
    assert_eq!(world.check.in_flight.len(), 29);
    world.configure(everywhere(&sets(5)));
    world.run(3 * SECOND / 2);
    assert_eq!(world.check.in_flight.len(), 4);
    world.configure(everywhere(&sets(30)));
    world.run(SECOND / 10);
    assert!(world.check.in_flight.len() > 20, "the window remembers what the site has borne");
    world.run(HOUR);
    world.check_empty();
}

fn pool(name: &str, sources: &[(&str, u32)]) -> Pool {
    Pool { name: name.into(), sources: sources.iter().map(|(source, weight)| ((*source).into(), *weight)).collect() }
}

fn pools() -> Config {
    Config {
        sources: vec![source("a", 1), source("b", 1), source("c", 1)],
        pools: vec![pool("default", &[("a", 1), ("b", 3)]), pool("fast", &[("c", 1)]), pool("apart", &[("b", 1)])],
        lane_pools: [Some("fast".into()), None, None],
        ..Config::default()
    }
}

fn sources_of(world: &World, of: impl Fn(usize) -> bool) -> [usize; 3] {
    let mut seen = [0; 3];
    for (nth, (.., source)) in world.log.iter().enumerate().filter(|(nth, _)| of(*nth)) {
        let _ = nth;
        seen[usize::from(source.0)] += 1;
    }
    seen
}

#[test]
fn mail_goes_by_its_member_s_pool_else_by_its_class_s_else_by_the_default_one_by_weight() {
    let mut world = World::with(9, pools());
    for nth in 0..800 {
        let (site, domain) = (format!("mx{nth}"), format!("d{nth}.test"));
        world = world.site(&site, &[&domain], accepts_in(SECOND));
        let (member, lane) = [(1, Lane::Notice), (1, Lane::Otp), (2, Lane::Notice), (2, Lane::Otp)][nth % 4];
        world.submit_of(member, world.now, &domain, lane, 10 * MINUTE);
    }
    let apart: MemberPools = [(2, Arc::from("apart")), (3, Arc::from("gone"))].into_iter().collect();
    world.scheduler.handle_pools(world.now, Arc::new(apart));
    world.run(MINUTE);
    world.check_empty();
    let members = world.members.clone();
    assert_eq!(sources_of(&world, |nth| members[nth] == 2), [0, 400, 0], "with everything it sends");
    let [a, b, c] = sources_of(&world, |nth| members[nth] == 1);
    assert_eq!((a + b, c), (200, 200));
    assert!((30..70).contains(&a), "one in four: {a}");
}

#[test]
fn what_holds_one_pool_holds_no_other() {
    let sets = [(Knob::Rate, per(1, 3600))];
    let rules = vec![rule(Place::Everywhere, From::Pool("default".into()), &sets)];
    let mut world =
        World::with(10, Config { shaping: Arc::new(Shaping { rules }), ..pools() }).site("mx", &["a.test"], accepts_in(SECOND));
    let apart: MemberPools = [(2, Arc::from("apart"))].into_iter().collect();
    world.scheduler.handle_pools(world.now, Arc::new(apart));
    (0..50).for_each(|_| drop(world.submit_of(1, world.now, "a.test", Lane::Notice, DAY)));
    world.run(10 * SECOND);
    (0..50).for_each(|_| drop(world.submit_of(2, world.now, "a.test", Lane::Notice, DAY)));
    world.run(MINUTE);
    assert_eq!(world.members.iter().filter(|member| **member == 2).count(), 50);
    assert_eq!(world.members.iter().filter(|member| **member == 1).count(), 2, "one from each of its sources");
    assert!(matches!(hold(&world, "a.test", Lane::Notice).reason, Reason::RateReached { .. }));
    // Put into the other pool, what waits goes at once.
    let both: MemberPools = [1, 2].map(|member| (member, Arc::from("apart"))).into_iter().collect();
    world.scheduler.handle_pools(world.now, Arc::new(both));
    world.run(MINUTE);
    world.check_empty();
}

#[test]
fn a_source_serves_only_addresses_of_its_family() {
    let mut config = Config { sources: vec![source("v4", 1), source("v6", 1)], ..Config::default() };
    config.sources[1].address = "2001:db8::1".parse().unwrap();
    config.pools = vec![pool("default", &[("v4", 1), ("v6", 1)]), pool("six", &[("v6", 1)])];
    let mut world = World::with(11, config).site("mx", &["a.test"], accepts_in(SECOND));
    (0..20).for_each(|_| drop(world.submit("a.test", Lane::Notice, DAY)));
    world.run(MINUTE);
    world.check_empty();
    assert!(world.log.iter().all(|(.., source)| *source == SourceId(0)), "the site has no IPv6 address");
    let six: MemberPools = [(1, Arc::from("six"))].into_iter().collect();
    world.scheduler.handle_pools(world.now, Arc::new(six));
    world.submit("a.test", Lane::Notice, HOUR);
    world.run(MINUTE);
    assert!(matches!(hold(&world, "a.test", Lane::Notice).reason, Reason::NoAddress(SourceId(1))));
}

#[test]
fn limits_of_a_source_bind_that_source() {
    let rules = vec![
        rule(Place::Everywhere, From::Any, &[(Knob::Connections, Value::Count(8)), (Knob::WindowInitial, Value::Count(8))]),
        rule(Place::Everywhere, From::Source("b".into()), &[(Knob::Connections, Value::Count(2))]),
    ];
    let config = Config { sources: vec![source("a", 1), source("b", 1)], ..config(rules) };
    let mut world = World::with(12, config).site("mx", &["a.test"], accepts_in(SECOND));
    (0..200).for_each(|_| drop(world.submit("a.test", Lane::Notice, DAY)));
    world.run(SECOND / 2);
    assert_eq!(sources_of(&world, |_| true), [7, 2, 0]);
    world.run(HOUR);
    world.check_empty();
}

#[test]
fn a_window_without_rules_is_the_configuration_s() {
    let window = WindowLimits { initial: 4, min: 1, max: 4 };
    let mut world = World::with(13, Config { window, ..config(Vec::new()) }).site("mx", &["a.test"], accepts_in(SECOND));
    (0..20).for_each(|_| drop(world.submit("a.test", Lane::Notice, DAY)));
    world.run(SECOND / 2);
    assert_eq!(hold(&world, "a.test", Lane::Notice).set_by, SetBy::Setting("window"));
    world.run(MINUTE);
    world.check_empty();
}
