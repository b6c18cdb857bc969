//! Random worlds: every kind of outcome, changing routes, restarts of nothing but luck. Whatever happens, each delivery
//! is settled exactly once, none is lost, none is sent twice, and the bounds hold (`check`).

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use scheduler::{Config, Lane, Outcome, Routed, Scope, Verdict, Weights, WindowLimits};

use crate::check::Fate;
use crate::world::*;

fn any_outcome(luck: &mut Luck, hosts: bool) -> Outcome {
    let scope = match luck.below(if hosts { 5 } else { 4 }) {
        0 => Scope::Recipient,
        1 => Scope::Message,
        2 => Scope::Site,
        3 => Scope::Source,
        _ => Scope::Host,
    };
    match luck.below(20) {
        0..8 => ACCEPTED,
        8 => Outcome { open: true, ..ACCEPTED },
        9 | 10 => Outcome { scope, verdict: Verdict::Failed, ..ACCEPTED },
        11 => Outcome { retry_after: Some(luck.millis(7_200_000)), ..deferred(scope) },
        _ => deferred(scope),
    }
}

/// One world from one number.
fn live(seed: u64) -> World {
    let mut luck_of_config = World::seed(seed).luck;
    let luck = &mut luck_of_config;
    let max = 1 + luck.below(30) as u16;
    let config = Config {
        sources: (0..1 + luck.below(3)).map(|nth| source(&format!("s{nth}"), 1 + luck.below(4) as u32)).collect(),
        window: WindowLimits { initial: 1 + luck.below(u64::from(max)) as u16, min: 1, max },
        in_flight_max: 2 + luck.below(100) as usize,
        in_memory_max: 20 + luck.below(1_000) as usize,
        loads_max: 1 + luck.below(8) as usize,
        resolves_max: 1 + luck.below(8) as usize,
        ..Config::default()
    };
    let mut world = World::with(seed, config);
    world.disk_millis = [0, 3, 50, 2_000][world.luck.below(4) as usize];
    let (sites, domains) = (1 + world.luck.below(5), 1 + world.luck.below(12));
    for nth in 0..sites {
        let (hosts, bad, slow) = (world.luck.below(2) == 0, world.luck.below(100), 1 + world.luck.below(30_000));
        let script = move |luck: &mut Luck, _: &Try| {
            let outcome = if luck.below(100) < bad { any_outcome(luck, hosts) } else { ACCEPTED };
            (luck.millis(slow), outcome)
        };
        world = world.site(&format!("mx{nth}"), &[], Box::new(script));
    }
    for nth in 0..domains {
        let mut turn = world.luck.below(1000);
        let lasts = Duration::from_secs(1 + world.luck.below(7_200));
        world = world.domain(&format!("d{nth}.test"), move |now| {
            turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match (turn >> 40) % 10 {
                0 => no_route(Verdict::Deferred),
                1 if nth % 4 == 0 => no_route(Verdict::Failed),
                // Its MX changes from time to time.
                other => Routed::Route(route(&format!("mx{}", (nth + other / 7) % sites), now + lasts)),
            }
        });
    }
    let days = 2 * DAY;
    for _ in 0..world.luck.below(300) {
        let (member, lane, domain, due, lifetime) = any_message(&mut world.luck, domains);
        world.lies_on_disk_of(member, &domain, lane, start() + due, due + lifetime);
    }
    let weights: Weights = (0..3).map(|member| (member, NonZeroU16::new(1 + world.luck.below(9) as u16).unwrap())).collect();
    world.scheduler.handle_weights(Arc::new(weights));
    world.restart();
    for _ in 0..world.luck.below(500) {
        let (member, lane, domain, due, lifetime) = any_message(&mut world.luck, domains);
        // A third of it in one burst.
        let due = if world.luck.below(3) == 0 { HOUR } else { due };
        world.submit_of(member, start() + due, &domain, lane, lifetime);
    }
    world.run(days);
    if world.luck.below(2) == 0 {
        let mut config = world.config.clone();
        config.sources.push(source("new", 3));
        config.sources.remove(0);
        world.configure(config);
    }
    world.run(10 * days);
    world
}

fn any_message(luck: &mut Luck, domains: u64) -> (u32, Lane, String, Duration, Duration) {
    let lane = Lane::from_index(luck.below(3) as usize).unwrap();
    let lifetime = if lane == Lane::Otp { 10 * MINUTE } else { Duration::from_secs(60 + luck.below(5 * 86_400)) };
    // One member has most of the mail.
    let member = luck.below(6).saturating_sub(2) as u32;
    (member, lane, format!("d{}.test", luck.below(domains)), luck.millis(2 * 86_400_000), lifetime)
}

#[test]
fn two_hundred_random_worlds_lose_nothing_and_send_nothing_twice() {
    let mut total = [0; 3];
    for seed in 0..200 {
        let world = std::panic::catch_unwind(|| {
            let world = live(seed);
            world.check_empty();
            world
        });
        let world = world.unwrap_or_else(|_| panic!("seed {seed}"));
        for (nth, fate) in [Fate::Done, Fate::Expired, Fate::Unroutable].into_iter().enumerate() {
            total[nth] += world.fates(fate);
        }
        assert_eq!(world.scheduler.counts(), Default::default(), "seed {seed}: something is not forgotten");
    }
    assert!(total.iter().all(|n| *n > 1_000), "these worlds are too simple: {total:?}");
}

#[test]
fn the_same_seed_is_the_same_world() {
    let (one, other) = (live(11), live(11));
    assert_eq!(one.log, other.log);
    assert!(!one.log.is_empty());
}
