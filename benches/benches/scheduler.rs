//! Decisions: a delivery enqueued, sent, finished and settled, over 1,000 active sites. Floor: looking a domain
//! up in a hash table once, which every decision has to do.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scheduler::warmup::{Assignment, Plan, Stages};
use scheduler::{
    Action, Config, Delivery, Demand, From, Host, Knob, Lane, Outcome, Place, Pool, QueueId, Route, Routed, Rule, Scheduler, Set,
    Shaping, Source, TlsPolicy, Value,
};

const SITES: u64 = 1000;

/// One source and no rules.
fn plain() -> Config {
    let source = Source { name: "ip-a".into(), address: "192.0.2.1".parse().unwrap(), weight: 1 };
    Config { sources: vec![source], ..Config::default() }
}

/// Ten sources in two pools, the shipped rules and a hundred of an operator, and rates of every kind to count.
fn shaped() -> Config {
    let sources: Vec<Source> = (1..=10)
        .map(|n| Source { name: format!("ip-{n}").into(), address: format!("192.0.2.{n}").parse().unwrap(), weight: 1 })
        .collect();
    let pool = |name: &str, sources: &[Source]| Pool {
        name: name.into(),
        sources: sources.iter().map(|source| (source.name.clone(), 1)).collect(),
    };
    let rate = |knob| (knob, Set { value: Value::Rate(1_000_000, Duration::from_secs(1)), by: "bench:1".into() });
    let rule = |place, sets| Rule { place, from: From::Any, layer: 1, sets };
    let mut rules = Shaping::clone(&mta::config::shaping::Shaped::shipped().shaping).rules;
    rules.push(rule(Place::Everywhere, vec![rate(Knob::Rate), rate(Knob::ConnectRate)]));
    rules.push(rule(Place::Provider("big".into()), vec![rate(Knob::ProviderRate)]));
    rules.extend((0..100).map(|n| rule(Place::Site(format!("mx{n}.example").into()), vec![rate(Knob::Rate)])));
    Config {
        pools: vec![pool("default", &sources[..8]), pool("otp", &sources[8..])],
        lane_pools: [Some("otp".into()), None, None],
        shaping: Arc::new(Shaping { rules }),
        sources,
        ..Config::default()
    }
}

/// The same, and every source warms up at the provider: with hours, conditions and lanes that go first, as shipped plans have them.
fn warming() -> Config {
    let shaped = shaped();
    let shipped = mta::config::warmup::plans(&[], &[]).unwrap();
    // It has to be counted, and holds nothing.
    let plan = Arc::new(Plan { stages: Stages::Daily(vec![1 << 40]), ..Plan::clone(&shipped["gentle"]) });
    let climb =
        |source: &Source| Assignment { source: source.name.clone(), provider: "big".into(), plan: plan.clone(), start: 0 };
    Config { warmup: shaped.sources.iter().map(climb).collect(), ..shaped }
}

fn decisions(c: &mut Criterion) {
    let mut group = c.benchmark_group("scheduler");
    group.throughput(Throughput::Elements(1));
    for (name, config, provider) in [
        ("a delivery from enqueued to settled", plain(), "other"),
        ("the same with shaping, ten sources and a provider's rate", shaped(), "big"),
        ("the same, and all ten sources warm up", warming(), "big"),
    ] {
        let mut life = life(config, provider);
        group.bench_function(name, |b| b.iter(&mut life));
    }
    let table: HashMap<Arc<str>, u64> = (0..SITES).map(|n| (format!("d{n}.example").into(), n)).collect();
    let mut nth = 0;
    group.bench_function("floor: one look-up", |b| {
        b.iter(|| {
            nth = (nth + 1) % SITES;
            table.get(format!("d{nth}.example").as_str()).copied()
        });
    });
    group.finish();
}

/// The life of one delivery, at the next of a thousand sites that are active.
fn life(config: Config, provider: &'static str) -> impl FnMut() {
    let mut now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_400_000);
    let mut scheduler = Scheduler::new(config, 1);
    let domains: Vec<Arc<str>> = (0..SITES).map(|n| format!("d{n}.example").into()).collect();
    let mut next = 0;
    let mut step = move || {
        next += 1;
        // Rates have to be counted, and hold nothing.
        now += Duration::from_millis(1);
        let domain = domains[(next % SITES) as usize].clone();
        scheduler.handle_enqueued(
            now,
            Delivery {
                id: QueueId(next),
                domain,
                lane: Lane::Transactional,
                member: 1,
                due: now,
                deadline: now + Duration::from_secs(86_400),
                late_at: None,
                attempts: 0,
                recipients: 1,
                bytes: 4096,
            },
        );
        while scheduler.poll_warmup().is_some() {}
        while let Some(action) = scheduler.poll(now) {
            match action {
                Action::Resolve { domain } => {
                    let host = Host {
                        name: format!("mx.{domain}").into(),
                        preference: 0,
                        addresses: vec!["198.51.100.1".parse().unwrap()],
                        demand: Demand::Opportunistic,
                    };
                    let valid_until = now + Duration::from_secs(86_400);
                    let route = Route {
                        site: host.name.clone(),
                        provider: provider.into(),
                        hosts: vec![host],
                        tls: TlsPolicy::default(),
                        valid_until,
                    };
                    scheduler.handle_route(now, &domain, Routed::Route(Arc::new(route)));
                }
                Action::Load { domain, member, .. } => scheduler.handle_window(now, &domain, member, Vec::new(), None),
                Action::Deliver { id, domain, .. } => {
                    scheduler.handle_outcome(now, id, &domain, Outcome::ACCEPTED, "");
                }
                Action::Settle { id, domain, .. } => scheduler.handle_settled(now, id, &domain, 1, None),
            }
        }
    };
    for _ in 0..SITES {
        step();
    }
    step
}

criterion_group!(benches, decisions);
criterion_main!(benches);
