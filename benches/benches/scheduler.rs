//! Decisions: a delivery enqueued, sent, finished and settled, over 1,000 active sites. Floor: looking a domain
//! up in a hash table once, which every decision has to do.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scheduler::{
    Action, Config, Delivery, Demand, Host, Lane, Outcome, QueueId, Route, Routed, Scheduler, Scope, Source, TlsPolicy, Verdict,
};

const SITES: u64 = 1000;

fn decisions(c: &mut Criterion) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_400_000);
    let source = Source { name: "ip-a".into(), address: "192.0.2.1".parse().unwrap(), weight: 1 };
    let mut scheduler = Scheduler::new(Config { sources: vec![source], ..Config::default() }, 1);
    let domains: Vec<Arc<str>> = (0..SITES).map(|n| format!("d{n}.example").into()).collect();
    let mut next = 0;
    let mut step = |scheduler: &mut Scheduler| {
        next += 1;
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
                        provider: "other".into(),
                        hosts: vec![host],
                        tls: TlsPolicy::default(),
                        valid_until,
                    };
                    scheduler.handle_route(now, &domain, Routed::Route(Arc::new(route)));
                }
                Action::Load { domain, member, .. } => scheduler.handle_window(now, &domain, member, Vec::new(), None),
                Action::Deliver { id, domain, .. } => {
                    let outcome = Outcome {
                        scope: Scope::Recipient,
                        verdict: Verdict::Delivered,
                        retry_after: None,
                        open: false,
                        class: None,
                    };
                    scheduler.handle_outcome(now, id, &domain, outcome, "");
                }
                Action::Settle { id, domain, .. } => scheduler.handle_settled(now, id, &domain, 1, None),
            }
        }
    };
    for _ in 0..SITES {
        step(&mut scheduler);
    }
    let mut group = c.benchmark_group("scheduler");
    group.throughput(Throughput::Elements(1));
    group.bench_function("a delivery from enqueued to settled", |b| b.iter(|| step(&mut scheduler)));
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

criterion_group!(benches, decisions);
criterion_main!(benches);
