//! A large backlog: what a start reads of it, how long the scheduler is told of it, and how fast it decides while it drains.
//!
//! `BACKLOG` is the number of deliveries, 200,000 unless set, over a twentieth as many domains and four members; all were
//! deferred. Floor of the start: one seek for each flow. Floor of the drain: the same decisions without a backlog
//! (`scheduler`).
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use host::Clock;
use mta::queue::{NewMessage, NewRecipient, Options, Parameters, Reader, Writer};
use scheduler::{Action, Config, Delivery, Demand, Host, Lane, Outcome, QueueId, Route, Routed, Scheduler, Source, TlsPolicy};
use smtp::address::ReversePath;

const MEMBERS: usize = 4;
/// Recipients in each message, each in a domain of its own.
const RECIPIENTS: usize = 100;

fn size() -> usize {
    std::env::var("BACKLOG").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000)
}

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_400_000)
}

fn message(nth: usize, domains: usize, body: &Bytes) -> NewMessage {
    let recipient = |n: usize| {
        let mailbox = format!("a@d{}.example", (nth * RECIPIENTS + n) % domains).parse().unwrap();
        NewRecipient { mailbox, notify: None, orcpt: None }
    };
    NewMessage {
        id: None,
        member: (1 + nth * MEMBERS / (size() / RECIPIENTS)) as u32,
        credential: 1,
        admission: None,
        reverse_path: ReversePath::Mailbox("app@member.example".parse().unwrap()),
        parameters: Parameters::default(),
        lane: Lane::Notice,
        received_at: start(),
        due: start() + Duration::from_millis((nth * 7919 % 3_600_000) as u64),
        delay_notice_at: None,
        deadline: start() + Duration::from_secs(5 * 86_400),
        recipients: (0..RECIPIENTS).map(recipient).collect(),
        octets: vec![body.clone()],
    }
}

fn fill(reader_of: impl FnOnce(&Reader)) {
    let folder = tempfile::tempdir().unwrap();
    let (notes, mut taken) = tokio::sync::mpsc::channel(64);
    let (writer, queue, reader) = Writer::open(folder.path(), Clock::system(), Options::default(), notes).unwrap();
    host::thread("queue", move || writer.run()).map(drop).unwrap();
    host::thread("notes", move || async move { while taken.recv().await.is_some() {} }).map(drop).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (body, domains) = (Bytes::from(vec![b'x'; 64]), size() / 20);
    let all: Vec<usize> = (0..size() / RECIPIENTS).collect();
    for some in all.chunks(256) {
        runtime.block_on(async {
            let enqueue = |nth: &usize| {
                let (queue, message) = (queue.clone(), message(*nth, domains, &body));
                tokio::spawn(async move { queue.enqueue(message).await.unwrap() })
            };
            for task in some.iter().map(enqueue).collect::<Vec<_>>() {
                task.await.unwrap();
            }
        });
    }
    reader_of(&reader);
}

fn scheduler() -> Scheduler {
    let source = Source { name: "ip-a".into(), address: "192.0.2.1".parse().unwrap(), weight: 1 };
    Scheduler::new(Config { sources: vec![source], ..Config::default() }, 1)
}

fn begin(flows: &[(Arc<str>, u32, SystemTime)]) -> Scheduler {
    let mut scheduler = scheduler();
    for (domain, member, due) in flows {
        scheduler.handle_backlog(start() - Duration::from_secs(7200), domain, *member, *due);
    }
    scheduler
}

/// What lies on disk, for each flow.
type Disk = HashMap<(Arc<str>, u32), Vec<Delivery>>;

/// Everything is delivered at once, to sites of ten domains each. How many deliveries there were.
fn drain(scheduler: &mut Scheduler, disk: &mut Disk, now: SystemTime) -> usize {
    let mut delivered = 0;
    let mut members: HashMap<(QueueId, Arc<str>), u32> = HashMap::new();
    while let Some(action) = scheduler.poll(now) {
        match action {
            Action::Resolve { domain } => {
                let nth: usize = domain[1..].split('.').next().unwrap().parse().unwrap();
                let name: Arc<str> = format!("mx{}.example", nth / 10).into();
                let addresses = vec!["198.51.100.1".parse().unwrap()];
                let host = Host { name: name.clone(), preference: 0, addresses, demand: Demand::Opportunistic };
                let route = Route {
                    site: name,
                    provider: "other".into(),
                    hosts: vec![host],
                    tls: TlsPolicy::default(),
                    valid_until: now + Duration::from_secs(9),
                };
                scheduler.handle_route(now, &domain, Routed::Route(Arc::new(route)));
            }
            Action::Load { domain, member, max } => {
                let flow = &disk[&(domain.clone(), member)];
                let window: Vec<Delivery> = flow.iter().take(max).cloned().collect();
                members.extend(window.iter().map(|delivery| ((delivery.id, domain.clone()), member)));
                let next_due = flow.get(max).map(|delivery| delivery.due);
                scheduler.handle_window(now, &domain, member, window, next_due);
            }
            Action::Deliver { id, domain, .. } => {
                scheduler.handle_outcome(now, id, &domain, Outcome::ACCEPTED, "");
                delivered += 1;
            }
            Action::Settle { id, domain, .. } => {
                let member = members.remove(&(id, domain.clone())).unwrap();
                disk.get_mut(&(domain.clone(), member)).unwrap().retain(|delivery| delivery.id != id);
                scheduler.handle_settled(now, id, &domain, member, None);
            }
        }
    }
    delivered
}

fn backlog(c: &mut Criterion) {
    fill(|reader| {
        let backlog = reader.backlog().unwrap();
        println!("{} deliveries, {} flows, {} seeks", backlog.deliveries, backlog.flows.len(), backlog.looked_at);
        let mut group = c.benchmark_group("backlog");
        group.sample_size(10);
        group.throughput(Throughput::Elements(backlog.flows.len() as u64));
        group.bench_function("a start reads the index", |b| b.iter(|| reader.backlog().unwrap()));
        group.bench_function("a start tells the scheduler", |b| {
            b.iter_with_large_drop(|| begin(&backlog.flows));
        });
        let now = start() + Duration::from_secs(7200);
        let mut disk = Disk::new();
        for (domain, member, _) in &backlog.flows {
            let (window, _) = reader.load(domain, *member, now, usize::MAX).unwrap();
            disk.insert((domain.clone(), *member), window);
        }
        group.throughput(Throughput::Elements(backlog.deliveries));
        group.bench_function("all of it comes due and is delivered", |b| {
            b.iter_batched(
                || (begin(&backlog.flows), disk.clone()),
                |(mut scheduler, mut disk)| assert_eq!(drain(&mut scheduler, &mut disk, now) as u64, backlog.deliveries),
                BatchSize::PerIteration,
            );
        });
        group.throughput(Throughput::Elements(1));
        let (domain, member, _) = backlog.flows.last().unwrap();
        group.bench_function("one window is read", |b| b.iter(|| reader.load(domain, *member, now, 256).unwrap()));
        group.finish();
    });
}

criterion_group!(benches, backlog);
criterion_main!(benches);
