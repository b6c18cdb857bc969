//! `churn`: months of mail in minutes. Messages are queued and settled in random order at a steady backlog, while a slow
//! reader holds the database open now and then; file sizes and commit times must level off.
//!
//! No daemon: what is measured is `mta::queue` alone. Twenty lines tell how it went; the figures of each are those of its
//! twentieth part. *Used* is what the tables occupy, *live* the octets of bodies that wait. *Copied* are bodies that were
//! copied forward so that their segment could be used again, for each octet that was new.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use mta::queue::{Fate, Options, Reader, RecipientFate, Settlement};
use scheduler::QueueId;

use crate::ledger::new_histogram;
use crate::store::{Bodies, Sizes, Store, done, message};

/// Messages queued, and as many settled, at once.
const TOGETHER: usize = 64;
/// Lines of the report.
const PARTS: u64 = 20;
/// Recipient domains.
const DOMAINS: usize = 5_000;
/// One delivery in so many is deferred before it ends.
const DEFERRED: usize = 10;
/// Between two looks of the slow reader.
const READER_REST: Duration = Duration::from_secs(10);

/// How much mail.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Messages to queue and settle.
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Messages that wait at any time.
    #[arg(long, default_value_t = 10_000)]
    backlog: usize,
    /// Median size of a body; one in a thousand is larger, up to 2 MiB.
    #[arg(long, default_value_t = 8192)]
    bytes: usize,
    /// How long a slow reader holds its read transaction. 0: there is none.
    #[arg(long, default_value_t = 3)]
    reader_secs: u64,
    /// Chooses sizes and order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the queue is made; must be a real disk. Default: the system's temporary directory.
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// One line of the report.
struct Part {
    database_bytes: u64,
    used_bytes: u64,
    segment_bytes: u64,
    live_bytes: u64,
    commit: Histogram<u64>,
    messages_per_sec: f64,
}

/// Churns and prints.
pub fn run(arguments: &Arguments) -> Result<()> {
    let place = arguments.directory.clone().unwrap_or_else(std::env::temp_dir);
    let directory = tempfile::Builder::new().prefix("tradewind-churn-").tempdir_in(place)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(churn(arguments, directory.path()))
}

async fn churn(arguments: &Arguments, directory: &Path) -> Result<()> {
    ensure!(arguments.messages >= PARTS * TOGETHER as u64, "fewer messages than a line of the report needs");
    // Events that are kept are no leak: let their number be reached early.
    let events_max = Options::default().events_max.min(arguments.messages / 10);
    let store = Store::open(directory, Options { events_max, ..Options::default() })?;
    let mut bodies = Bodies::new(Sizes::around(arguments.bytes).with_large(), arguments.seed);
    let stop = Arc::new(AtomicBool::new(false));
    let reader = SlowReader::start(store.reader.clone(), arguments.reader_secs, stop.clone());
    println!(
        "{} messages through a backlog of {}, bodies around {} octets and some up to 2 MiB, {TOGETHER} at a time",
        arguments.messages, arguments.backlog, arguments.bytes
    );
    println!("  part  lmdb MiB  used MiB  segments MiB  live MiB  p50 ms  p99 ms  max ms  messages/s");

    let mut waiting: Vec<(QueueId, u32)> = Vec::with_capacity(arguments.backlog + TOGETHER);
    let mut parts: Vec<Part> = Vec::new();
    let (mut number, mut new_bytes) = (0u64, 0u64);
    let mut last: Vec<Settlement> = Vec::new();
    for nth in 0..PARTS {
        let until = arguments.messages * (nth + 1) / PARTS;
        let (mut commit, began, first) = (new_histogram(), Instant::now(), number);
        while number < until {
            let now = SystemTime::now();
            let mut batch = Vec::with_capacity(TOGETHER);
            let mut domains = Vec::with_capacity(TOGETHER);
            for _ in 0..TOGETHER {
                let domain = bodies.dice.below(DOMAINS) as u32;
                let message = message(&mut bodies, number, &name(domain), now)?;
                new_bytes += message.octets.iter().map(|piece| piece.len() as u64).sum::<u64>();
                batch.push(message);
                domains.push(domain);
                number += 1;
            }
            let asked = Instant::now();
            let (ids, settled) = tokio::join!(store.enqueue_all(batch), store.queue.settle(std::mem::take(&mut last)));
            settled?;
            waiting.extend(ids?.into_iter().zip(domains));
            commit.saturating_record(u64::try_from(asked.elapsed().as_micros())?);
            while waiting.len() > arguments.backlog {
                let nth = bodies.dice.below(waiting.len());
                if bodies.dice.below(DEFERRED) == 0 && last.iter().all(|other| other.id != waiting[nth].0) {
                    // It goes on waiting, until its turn comes again.
                    let (id, domain) = waiting[nth];
                    last.push(crate::store::deferred(id, &name(domain), now + Duration::from_secs(3600)));
                    continue;
                }
                let (id, domain) = waiting.swap_remove(nth);
                last.push(ended(id, &name(domain)));
            }
        }
        let counts = store.reader.counts()?;
        let part = Part {
            database_bytes: disk_bytes(&directory.join("lmdb"))?,
            used_bytes: counts.database_bytes,
            segment_bytes: disk_bytes(&directory.join("segments"))?,
            live_bytes: counts.live_bytes,
            commit,
            messages_per_sec: (number - first) as f64 / began.elapsed().as_secs_f64(),
        };
        println!("{}", part.describe(nth + 1));
        parts.push(part);
    }
    store.queue.settle(last).await?;
    let copied = store.queue.stats().copied_bytes.load(Relaxed);
    stop.store(true, Relaxed);
    let looks = reader.join()?;
    let copied = copied as f64 / new_bytes as f64;
    println!("copied forward {copied:.3} octets for each new one; a slow reader looked {looks} times");
    let counts = store.reader.counts()?;
    ensure!(counts.messages == waiting.len() as u64, "{} messages wait, not {}", counts.messages, waiting.len());
    for (id, domain) in waiting.iter().step_by(100.max(waiting.len() / 1000)) {
        store.reader.fetch(*id, &name(*domain)).with_context(|| format!("message {id} is gone"))?;
    }
    store.close().await?;
    level_off(&parts)
}

/// Growth has ended: the last quarter is not much larger than the second one. Times are printed and not judged.
fn level_off(parts: &[Part]) -> Result<()> {
    let quarter = parts.len() / 4;
    let most = |parts: &[Part], of: fn(&Part) -> u64| parts.iter().map(of).max().unwrap_or(0);
    let (early, late) = (&parts[quarter..2 * quarter], &parts[3 * quarter..]);
    for (what, of) in [
        ("the database file", (|part| part.database_bytes) as fn(&Part) -> u64),
        ("the segment files", |part| part.segment_bytes),
    ] {
        let (early, late) = (most(early, of), most(late, of));
        // A quarter of play: the machine has other things to do, and a reader may have looked at a bad moment.
        ensure!(late <= early + early / 4, "{what} has not levelled off: {early}, then {late}");
    }
    println!("file sizes have levelled off");
    Ok(())
}

impl Part {
    fn describe(&self, nth: u64) -> String {
        let mib = |bytes: u64| bytes >> 20;
        let ms = |quantile| self.commit.value_at_quantile(quantile) as f64 / 1000.0;
        format!(
            "{:>4} % {:>9} {:>9} {:>13} {:>9} {:>7.2} {:>7.2} {:>7.1} {:>11.0}",
            nth * 100 / PARTS,
            mib(self.database_bytes),
            mib(self.used_bytes),
            mib(self.segment_bytes),
            mib(self.live_bytes),
            ms(0.5),
            ms(0.99),
            ms(1.0),
            self.messages_per_sec
        )
    }
}

/// Somebody who reads slowly, as an operator's page over a bad line would if it read straight from the database.
struct SlowReader(std::thread::JoinHandle<()>, Arc<AtomicU64>);

impl SlowReader {
    fn start(reader: Reader, secs: u64, stop: Arc<AtomicBool>) -> Self {
        let looks = Arc::new(AtomicU64::new(0));
        let counted = looks.clone();
        let thread = std::thread::spawn(move || {
            let stopped = |wait: Duration| {
                let until = Instant::now() + wait;
                while Instant::now() < until && !stop.load(Relaxed) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                stop.load(Relaxed)
            };
            while secs > 0 && !stopped(READER_REST) {
                counted.fetch_add(1, Relaxed);
                let held = reader.read(|_txn, _tables| {
                    stopped(Duration::from_secs(secs));
                    Ok(())
                });
                if let Err(error) = held {
                    tracing::error!(%error, "the slow reader cannot read");
                }
            }
        });
        Self(thread, looks)
    }

    fn join(self) -> Result<u64> {
        self.0.join().map_err(|_| anyhow::anyhow!("the slow reader panicked"))?;
        Ok(self.1.load(Relaxed))
    }
}

fn name(domain: u32) -> String {
    format!("d{domain}.test")
}

fn ended(id: QueueId, domain: &str) -> Settlement {
    let reply = "250 2.0.0 taken".to_owned();
    let fates = vec![RecipientFate { index: 0, fate: Fate::Delivered, reply: reply.clone() }];
    Settlement { fates, ..done(id, domain, &reply) }
}

/// What the files below `folder` take on disk.
pub(crate) fn disk_bytes(folder: &Path) -> Result<u64> {
    let mut blocks = 0;
    for entry in fs::read_dir(folder)? {
        // A segment may leave between the two looks.
        blocks += entry?.metadata().map_or(0, |metadata| metadata.blocks());
    }
    Ok(blocks * 512)
}
