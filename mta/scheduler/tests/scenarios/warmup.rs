//! Warmup in virtual time: what young sources may send they send, and not one message more, whatever happens.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use scheduler::warmup::{Assignment, ClimbState, Days, Idle, Pace, Plan, Rule, Stages, Stop, Troubles, Zone};
use scheduler::{ClimbWish, Config, Decision, Hold, Lane, Pool, Reason, Source, WindowLimits};

use crate::warmup_world::Young;
use crate::world::{DAY, HOUR, Luck, MINUTE, World, source, start};

fn wide() -> Config {
    Config {
        sources: vec![source("cold", 1), source("warm", 1)],
        window: WindowLimits { initial: 1000, min: 1, max: 1000 },
        ..Config::default()
    }
}

fn climb(source: &str, provider: &str, plan: Plan) -> Assignment {
    Assignment { source: source.into(), provider: provider.into(), plan: Arc::new(plan), start: 0 }
}

fn daily(stages: &[u64]) -> Plan {
    Plan::of("p", Stages::Daily(stages.to_vec()))
}

/// Only the cold source, with this plan at `big`.
fn alone(plan: Plan) -> Config {
    Config { sources: vec![source("cold", 1)], warmup: [climb("cold", "big", plan)].into(), ..wide() }
}

fn plan_zone(luck: &mut Luck) -> Zone {
    let noon = start().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + 3 * 86_400;
    match luck.below(3) {
        0 => Zone::utc(),
        1 => Zone::new("summer", vec![(0, 3600), (noon, 7200)]),
        _ => Zone::new("winter", vec![(0, -4 * 3600), (noon, -5 * 3600)]),
    }
}

fn any_plan(luck: &mut Luck) -> Plan {
    let mut stages = vec![1 + luck.below(30)];
    for _ in 0..luck.below(6) {
        let last = stages[stages.len() - 1];
        stages.push(last + 1 + luck.below(last * 2));
    }
    let some = |luck: &mut Luck, most| (luck.below(2) == 0).then(|| 1 + luck.below(most) as u32);
    Plan {
        pace: Pace { hours: [1, 1, 4, 24][luck.below(4) as usize], burst: luck.below(10) },
        zone: Arc::new(plan_zone(luck)),
        days: if luck.below(3) == 0 { Days::Calendar } else { Days::Sending },
        utilisation: 100 + luck.below(900) as u32,
        hold: Troubles { deferred: some(luck, 300), refused: None, unknown: some(luck, 100), ..Troubles::default() },
        regress: Troubles { deferred: some(luck, 600), refused: None, unknown: some(luck, 300), ..Troubles::default() },
        sample: 1 + luck.below(20),
        regress_stages: 1 + luck.below(3) as u32,
        cool_days: 1 + luck.below(3) as u32,
        codes: if luck.below(2) == 0 { vec!["TSS04".into()] } else { Vec::new() },
        oversend_otp: luck.below(2) == 0,
        first: [false, luck.below(2) == 0, luck.below(2) == 0],
        idle: (luck.below(2) == 0).then_some(Idle { after_days: 2, cold_days: 5 }),
        ..daily(&stages)
    }
}

/// The first has IPv4, so that all domains are reached.
fn any_source(luck: &mut Luck, nth: u64) -> Source {
    let ipv6 = nth > 0 && luck.below(3) == 0;
    let address = if ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    Source { address, ..source(&format!("s{nth}"), 1 + luck.below(3) as u32) }
}

/// One world from one number: eight days.
fn live(seed: u64) -> Young {
    let mut dice = World::seed(seed).luck;
    let luck = &mut dice;
    let sources = 1 + luck.below(3);
    let providers = ["big", "small"];
    let warmup = |luck: &mut Luck| -> Arc<[Assignment]> {
        let pairs = (0..sources).flat_map(|nth| providers.map(|provider| (format!("s{nth}"), provider)));
        let pairs: Vec<_> = pairs.collect();
        // The last source is warm with `small` in half of the worlds.
        let all = pairs.len() - luck.below(2) as usize;
        pairs[..all].iter().map(|(source, provider)| climb(source, provider, any_plan(luck))).collect()
    };
    let config = Config { sources: (0..sources).map(|nth| any_source(luck, nth)).collect(), warmup: warmup(luck), ..wide() };
    let mut world = Young::new(seed, config.clone());
    world.troubles = [luck.below(300), luck.below(60), luck.below(1000)];
    world.short_routes = true;
    for _ in 0..8 {
        for _ in 0..luck.below(80) {
            let lane = [Lane::Otp, Lane::Transactional, Lane::Transactional, Lane::Notice][luck.below(4) as usize];
            let domain = format!("d{}.{}", luck.below(5), providers[luck.below(2) as usize]);
            let recipients = if luck.below(4) == 0 { 1 + luck.below(5) as u16 } else { 1 };
            world.submit(luck.millis(86_400_000), &domain, lane, recipients);
        }
        for _ in 0..1 + luck.below(3) {
            world.run(luck.millis(20 * 3_600_000));
            match luck.below(6) {
                0 | 1 => world.crash(),
                2 => world.step_clock(luck.below(40 * 3600) as i64 - 20 * 3600),
                3 => world.step_clock(luck.below(7200) as i64 - 3600),
                // Other plans, other zones; and one that had none may get one, or lose it.
                4 => {
                    let warmup = warmup(&mut world.luck);
                    world.reload(Config { warmup, ..config.clone() });
                }
                _ => {}
            }
        }
    }
    world
}

#[test]
fn in_a_thousand_worlds_no_allowance_is_overspent_by_one_message_and_none_lies_idle() {
    let (mut delivered, mut crashes, mut over, mut steps) = (0, 0, 0, 0);
    for seed in 0..1000 {
        let world = std::panic::catch_unwind(|| live(seed)).unwrap_or_else(|_| panic!("seed {seed}"));
        delivered += world.delivered;
        crashes += world.crashes;
        over += world.over;
        steps += world.steps.len();
    }
    let seen = (delivered, crashes, over, steps);
    assert!(delivered > 50_000 && crashes > 1_000 && over > 100 && steps > 5_000, "these worlds are too simple: {seen:?}");
}

#[test]
fn a_domain_that_one_source_does_not_reach_does_not_stand_before_one_that_it_does() {
    let six = Source { address: Ipv6Addr::LOCALHOST.into(), ..source("six", 1) };
    let paced = Plan { pace: Pace { hours: 4, burst: 0 }, ..daily(&[40]) };
    let warmup = [climb("four", "big", daily(&[3])), climb("six", "big", paced)].into();
    let mut world = Young::new(11, Config { sources: vec![source("four", 1), six], warmup, ..wide() });
    world.submit_all(20, MINUTE, "d2.big", Lane::Notice, 1);
    world.submit_all(60, 2 * MINUTE, "d1.big", Lane::Notice, 1);
    world.run(5 * HOUR);
    let spent: Vec<u64> = world.scheduler.climbs(world.now()).map(|view| view.figures.spent).collect();
    assert_eq!((world.delivered, spent), (43, vec![3, 40]));
}

fn hold(world: &Young, domain: &str, lane: Lane) -> Hold {
    let found = (0..3).find_map(|member| world.scheduler.explain(world.now(), domain, member, lane));
    match found {
        Some(Decision::Hold(hold)) => hold,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_day_has_its_allowance_and_the_next_stage_follows_at_midnight_with_the_reason() {
    let mut world = Young::new(1, alone(daily(&[5, 10, 20])));
    world.submit_all(60, HOUR, "d.big", Lane::Transactional, 1);
    world.run(5 * HOUR);
    let hold = hold(&world, "d.big", Lane::Transactional);
    assert!(matches!(&hold.reason, Reason::Warmup { stop: Stop::Day { allowance: 5, spent: 5, reserved: 0 }, .. }), "{hold:?}");
    let midnight = world.scheduler.climbs(world.now()).next().unwrap().day_ends;
    assert_eq!(hold.clears_at(), Some(midnight));
    world.run(3 * DAY);
    let spent: Vec<u64> = world.accepted.values().copied().collect();
    assert_eq!(spent[..3], [5, 10, 20]);
    let reasons: Vec<_> = world.steps.iter().map(|(_, step)| (step.rule, step.reason.to_string())).collect();
    assert_eq!(reasons[0], (Rule::Advance, "5 of 5 used (100 %); warming, stage 1 to 2, 10 a day".to_owned()));
    assert_eq!(reasons[2].0, Rule::Finish);
    assert_eq!((world.delivered, world.waiting()), (60, 0), "warm: the rest goes");
}

#[test]
fn a_restart_a_crash_and_a_clock_set_back_do_not_begin_the_day_again() {
    let mut world = Young::new(2, alone(daily(&[10, 11])));
    world.submit_all(50, HOUR, "d.big", Lane::Transactional, 1);
    world.run(2 * HOUR);
    assert_eq!(world.delivered, 10);
    world.crash();
    world.run(HOUR);
    world.step_clock(-30 * 3600);
    world.run(HOUR);
    world.crash();
    world.run(HOUR);
    assert_eq!(world.delivered, 10);
    world.step_clock(30 * 3600);
    world.run(DAY);
    assert_eq!(world.delivered, 21);
}

#[test]
fn one_time_codes_go_by_weight_and_from_a_warm_source_when_they_are_in_a_hurry_or_were_deferred() {
    let warmup = [climb("cold", "big", daily(&[500, 600]))].into();
    let config = Config { sources: vec![source("cold", 1000), source("warm", 1)], warmup, ..wide() };
    let from_cold = |world: &Young| world.tries.iter().filter(|(_, source)| &**source == "cold").count();
    let run = |lifetime, troubles| {
        let mut world = Young::new(21, config.clone());
        world.troubles = troubles;
        for _ in 0..20 {
            world.submit_as((1, lifetime), MINUTE, "d.big", Lane::Otp, 1);
        }
        world.run(20 * MINUTE);
        world
    };
    assert!(from_cold(&run(10 * MINUTE, [0; 3])) >= 19, "there is time: it learns from codes too");
    assert_eq!(from_cold(&run(2 * MINUTE, [0; 3])), 0);
    let deferred = run(10 * MINUTE, [1000, 0, 0]);
    assert!(deferred.tries[..20].iter().filter(|(_, source)| &**source == "cold").count() >= 19);
    assert!(deferred.tries.len() > 40 && deferred.tries[20..].iter().all(|(_, source)| &**source == "warm"));
}

#[test]
fn a_young_source_that_was_greylisted_is_the_one_that_comes_back() {
    let warmup = [climb("cold", "big", daily(&[50, 100]))].into();
    let mut world = Young::new(22, Config { sources: vec![source("cold", 1), source("warm", 1000)], warmup, ..wide() });
    world.greylists = true;
    let codes: Vec<_> = (0..20).map(|_| world.submit(MINUTE, "d.big", Lane::Transactional, 1)).collect();
    world.run(HOUR);
    assert_eq!(world.delivered, 20);
    for id in codes {
        let sources: Vec<_> = world.tries.iter().filter(|(other, _)| *other == id).map(|(_, source)| &**source).collect();
        assert_eq!(sources, ["cold", "cold"]);
    }
    assert_eq!(world.row("cold", "big").figures.deferred, 0, "greylisting says nothing of reputation");
}

#[test]
fn members_share_an_allowance_that_is_scarce_however_much_each_sends() {
    let mut world = Young::new(23, alone(Plan { pace: Pace { hours: 10, burst: 0 }, ..daily(&[90]) }));
    let mut of = std::collections::HashMap::new();
    for (member, domain, count) in [(1, "d1.big", 300), (1, "d2.big", 300), (2, "d1.big", 40), (3, "d3.big", 40)] {
        for _ in 0..count {
            of.insert(world.submit_as((member, 3 * DAY), MINUTE, domain, Lane::Notice, 1), member);
        }
    }
    world.run(11 * HOUR);
    let mut shares = [0; 4];
    world.tries.iter().for_each(|(id, _)| shares[of[id] as usize] += 1);
    // The first hour's nine went as they came.
    assert_eq!(shares, [0, 9 + 27, 27, 27]);
}

#[test]
fn lines_for_other_sources_take_turns_at_the_one_that_both_wait_for() {
    let six = Source { address: Ipv6Addr::LOCALHOST.into(), ..source("six", 1) };
    let paced = Plan { pace: Pace { hours: 10, burst: 0 }, ..daily(&[100]) };
    let warmup = [climb("four", "big", paced), climb("six", "big", daily(&[1]))].into();
    let mut world = Young::new(24, Config { sources: vec![source("four", 1), six], warmup, ..wide() });
    let mut both = std::collections::HashSet::new();
    for _ in 0..300 {
        both.insert(world.submit_as((1, 3 * DAY), MINUTE, "d1.big", Lane::Notice, 1));
        world.submit_as((2, 3 * DAY), MINUTE, "d2.big", Lane::Notice, 1);
    }
    world.run(11 * HOUR);
    let share = world.tries.iter().filter(|(id, _)| both.contains(id)).count();
    assert_eq!(world.tries.len(), 101);
    assert!((40..=62).contains(&share), "{share}");
}

#[test]
fn the_young_source_goes_first_and_the_warm_one_takes_the_rest() {
    let config = Config { warmup: [climb("cold", "big", daily(&[5, 10]))].into(), ..wide() };
    let mut world = Young::new(3, config);
    let ids: Vec<_> = (0..20).map(|_| world.submit(MINUTE, "d.big", Lane::Transactional, 1)).collect();
    world.run(HOUR);
    let from = |world: &Young, name: &str| world.tries.iter().filter(|(_, source)| **source == *name).count();
    assert_eq!((from(&world, "cold"), from(&world, "warm")), (5, 15));
    assert!(world.tries[..5].iter().all(|(id, source)| ids.contains(id) && &**source == "cold"));
}

#[test]
fn what_a_young_source_was_deferred_for_goes_once_from_a_warm_one() {
    let config = Config { warmup: [climb("cold", "big", daily(&[50, 100]))].into(), ..wide() };
    let mut world = Young::new(4, config);
    world.troubles = [1000, 0, 1000];
    let id = world.submit(MINUTE, "d.big", Lane::Transactional, 1);
    world.run(10 * MINUTE);
    let sources: Vec<_> = world.tries.iter().filter(|(other, _)| *other == id).map(|(_, source)| source.to_string()).collect();
    assert_eq!(sources[..2], ["cold", "warm"]);
    assert_eq!(world.row("cold", "big").figures.spent, 0, "given back");
}

#[test]
fn the_named_pool_carries_what_the_sources_of_the_own_one_may_not() {
    let plan = Plan { overflow_pool: Some("rest".into()), ..daily(&[3, 6]) };
    let pool = |name: &str, source: &str| Pool { name: name.into(), sources: vec![(source.into(), 1)] };
    let pools = vec![pool("default", "cold"), pool("rest", "warm")];
    let mut world = Young::new(5, Config { pools, warmup: [climb("cold", "big", plan)].into(), ..wide() });
    world.submit_all(10, MINUTE, "d.big", Lane::Notice, 1);
    world.run(HOUR);
    assert_eq!(world.delivered, 10);
    assert_eq!(world.tries.iter().filter(|(_, source)| &**source == "cold").count(), 3);
}

#[test]
fn codes_that_nobody_else_can_carry_go_beyond_the_allowance_only_where_the_plan_says_so() {
    for (oversend_otp, delivered) in [(true, 8), (false, 3)] {
        let mut world = Young::new(6, alone(Plan { oversend_otp, ..daily(&[3]) }));
        world.never_idle = false;
        world.submit_all(8, MINUTE, "d.big", Lane::Otp, 1);
        world.run(HOUR);
        assert_eq!(world.delivered, delivered);
        assert_eq!(world.row("cold", "big").climb.state, ClimbState::Warming);
        // It is told once a day, not once a code.
        let told: Vec<_> = world.steps.iter().filter(|(_, step)| step.rule == Rule::Over).collect();
        assert_eq!(told.len(), usize::from(oversend_otp), "{told:?}");
    }
}

#[test]
fn of_a_message_to_many_as_many_recipients_go_as_may() {
    let mut world = Young::new(7, alone(daily(&[4, 5, 6])));
    world.submit(MINUTE, "d.big", Lane::Notice, 11);
    world.run(3 * DAY);
    let spent: Vec<u64> = world.accepted.values().copied().collect();
    assert_eq!((spent, world.waiting()), (vec![4, 5, 2], 0));
}

#[test]
fn a_named_reply_takes_the_stage_back_at_once() {
    let plan = Plan { codes: vec!["TSS04".into()], cool_days: 2, ..daily(&[5, 10, 20]) };
    let mut world = Young::new(8, alone(plan));
    world.submit_all(9, MINUTE, "d.big", Lane::Notice, 1);
    world.run(DAY + HOUR);
    assert_eq!(world.row("cold", "big").climb.stage, 1);
    world.troubles = [1000, 0, 1000];
    world.submit(MINUTE, "d.big", Lane::Notice, 1);
    world.run(23 * HOUR + HOUR);
    let climb = world.row("cold", "big").climb;
    assert_eq!(climb.stage, 0, "{:?}", world.steps);
    assert!(world.steps.iter().any(|(_, step)| step.rule == Rule::Code && step.reason.contains("TSS04")));
}

#[test]
fn complaints_are_counted_on_the_day_on_which_they_are_heard_of_and_outlive_a_crash() {
    let hold = Troubles { complained: Some(100), ..Troubles::default() };
    let mut world = Young::new(12, alone(Plan { hold, complaint_sample: 10, ..daily(&[20, 40]) }));
    world.submit_all(60, MINUTE, "d.big", Lane::Notice, 1);
    world.run(2 * HOUR);
    let now = world.now();
    assert!(!world.scheduler.handle_complaints(now, "cold", "small", 1), "it does not climb there");
    assert!(world.scheduler.handle_complaints(now, "cold", "big", 2));
    world.run(MINUTE);
    world.crash();
    world.run(DAY);
    let row = world.row("cold", "big");
    assert_eq!((row.climb.state, row.climb.stage, row.figures.complained), (ClimbState::Holding, 0, 0));
    let step = &world.steps.last().unwrap().1;
    assert_eq!((step.rule, step.figures.complained, step.figures.spent), (Rule::Complained, 2, 20));
}

#[test]
fn a_warm_source_that_sends_is_not_idle_and_a_named_reply_takes_it_back() {
    let idle = Some(Idle { after_days: 2, cold_days: 5 });
    let mut world = Young::new(13, alone(Plan { idle, codes: vec!["TSS04".into()], ..daily(&[3, 5]) }));
    for day in 0..9 {
        world.submit_all(20, HOUR + day * DAY, "d.big", Lane::Notice, 1);
    }
    world.run(9 * DAY);
    assert_eq!((world.delivered, world.row("cold", "big").climb.state), (180, ClimbState::Warm));
    world.troubles = [1000, 0, 1000];
    world.submit(MINUTE, "d.big", Lane::Notice, 1);
    world.run(HOUR);
    let climb = world.scheduler.climbs(world.now()).next().unwrap().climb;
    assert_eq!((climb.state, climb.stage), (ClimbState::Regressed, 0));
}

#[test]
fn an_operator_pauses_resumes_pins_skips_and_rewinds_and_it_is_written_down() {
    let mut world = Young::new(9, alone(daily(&[5, 10, 20])));
    world.submit_all(100, MINUTE, "d.big", Lane::Notice, 1);
    let wish = |world: &mut Young, wish| {
        let now = world.now();
        world.scheduler.wish_climb(now, "cold", "big", wish, "anna: to try it").map(|view| view.allowance)
    };
    assert_eq!(wish(&mut world, ClimbWish::Resume), None, "it is not paused");
    assert_eq!(wish(&mut world, ClimbWish::Pause), Some(Some(0)));
    world.run(HOUR);
    assert_eq!(world.delivered, 0);
    assert_eq!(wish(&mut world, ClimbWish::Resume), Some(Some(5)));
    world.run(HOUR);
    assert_eq!(world.delivered, 5);
    assert_eq!(wish(&mut world, ClimbWish::Pin(Some(7))), Some(Some(7)));
    world.run(HOUR);
    assert_eq!(world.delivered, 7);
    assert_eq!(wish(&mut world, ClimbWish::Pin(None)), Some(Some(5)));
    assert_eq!(wish(&mut world, ClimbWish::Skip), Some(Some(10)));
    world.run(HOUR);
    assert_eq!(world.delivered, 10);
    assert_eq!(wish(&mut world, ClimbWish::Set(2)), Some(Some(20)));
    assert_eq!(wish(&mut world, ClimbWish::Rewind(1)), Some(Some(10)));
    world.run(HOUR);
    assert_eq!(world.delivered, 10);
    let last = &world.steps.last().unwrap().1;
    assert_eq!((last.rule, &*last.reason), (Rule::Operator, "rewound to stage 2"));
    assert_eq!((last.by.as_deref(), last.from.1, last.to.1, last.figures.spent), (Some("anna: to try it"), 2, 1, 10));
    assert!(world.scheduler.wish_climb(world.now(), "cold", "small", ClimbWish::Skip, "x").is_none());
}
