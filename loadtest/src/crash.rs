//! What a crash may make arrive twice, and what arrived twice without that excuse.
//!
//! A delivery is *in flight* when the daemon dies if it has begun at the sink and the daemon's durable record does not
//! yet say what became of it: its transaction is open, or the sink's `250` was written and its settlement is not
//! committed. Only such a message may come again, once, in the next life (RFC 1047).
//!
//! What has begun is the sink's account, kept in the [`Ledger`]. What is not settled is read from the dead daemon's
//! database, by its key alone and without the daemon's code: table `deliveries`, keys of eight octets of queue id, big end
//! first, and the domain. The two are joined by the queue id in the trace field of what arrived.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use heed::CommitOrAbort;
use heed::types::{Bytes, DecodeIgnore};

use crate::ledger::Ledger;
use crate::sink::Provider;

/// What the daemon lets be in flight or wait for its settlement, all sites together (the scheduler's `in_flight_max`).
const IN_FLIGHT_MAX: usize = 4096;
/// Room for the database; as large as the daemon's own map.
pub(crate) const MAP_BYTES: usize = 64 << 30;
pub(crate) const TABLES_MAX: u32 = 32;
/// Sessions at the sink end when the process that held the other end is gone.
const SESSIONS_WAIT: Duration = Duration::from_secs(30);

/// The account over all lives of a daemon.
pub struct Account {
    life_began: Instant,
    /// Copies that crashes so far explain, by message.
    explained: HashMap<u64, u32>,
    crashes: Vec<Crash>,
}

/// What one crash left undecided.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// Deliveries in the queue.
    pub queued: usize,
    /// Of them those that the sink has in full.
    pub in_flight: usize,
    /// How long before the crash the sink had the oldest of them.
    pub oldest: Duration,
}

impl Default for Account {
    fn default() -> Self {
        Self { life_began: Instant::now(), explained: HashMap::new(), crashes: Vec::new() }
    }
}

impl Account {
    /// The daemon with its queue in `queue` died at `at`, and is gone. Call it before the next start.
    pub fn crashed(&mut self, at: Instant, queue: &Path, ledger: &Ledger, provider: &Provider) -> Result<Crash> {
        wait_for_sessions(provider)?;
        let queued = queued(queue)?;
        let found = ledger.arrived_of(&queued, self.life_began);
        ensure!(found.len() <= IN_FLIGHT_MAX, "{} deliveries were in flight, more than the daemon may have", found.len());
        let oldest = found.iter().map(|(_, arrived)| at.saturating_duration_since(*arrived)).max().unwrap_or_default();
        for (id, _) in &found {
            *self.explained.entry(*id).or_default() += 1;
        }
        let crash = Crash { queued: queued.len(), in_flight: found.len(), oldest };
        self.crashes.push(crash);
        self.life_began = Instant::now();
        Ok(crash)
    }

    /// All crashes so far.
    pub fn crashes(&self) -> &[Crash] {
        &self.crashes
    }

    /// Copies of messages beyond what the crashes explain.
    pub fn unexplained(&self, ledger: &Ledger) -> Vec<u64> {
        let excess = |(id, copies): (u64, u32)| (copies > self.explained.get(&id).copied().unwrap_or(0)).then_some(id);
        ledger.doubled().into_iter().filter_map(excess).collect()
    }

    /// Prints what was in flight and what came twice. An error when more came twice than was in flight.
    pub fn report(&self, ledger: &Ledger) -> Result<()> {
        let in_flight: usize = self.crashes.iter().map(|crash| crash.in_flight).sum();
        let most = self.crashes.iter().map(|crash| crash.in_flight).max().unwrap_or(0);
        let unexplained = self.unexplained(ledger);
        let duplicates = ledger.duplicates();
        println!("deliveries in flight at a crash {in_flight}, at most {most} at once");
        println!("duplicates                      {duplicates}");
        println!("  of them not in flight         {}", unexplained.len());
        let mut ages: Vec<Duration> = self.crashes.iter().map(|crash| crash.oldest).collect();
        ages.sort();
        if let (Some(oldest), Some(median)) = (ages.last(), ages.get(ages.len() / 2)) {
            let millis = |age: &Duration| age.as_secs_f64() * 1000.0;
            println!("  the oldest in flight arrived  {:.1} ms before (median {:.1} ms)", millis(oldest), millis(median));
        }
        let few = &unexplained[..unexplained.len().min(20)];
        ensure!(unexplained.is_empty(), "messages {few:?} … came twice although they were not in flight");
        Ok(())
    }
}

fn wait_for_sessions(provider: &Provider) -> Result<()> {
    let began = Instant::now();
    while provider.counts().sessions > 0 {
        ensure!(began.elapsed() < SESSIONS_WAIT, "sessions at the sink outlive the daemon");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Queue ids of all deliveries that a stopped daemon holds.
fn queued(queue: &Path) -> Result<HashSet<u64>> {
    let env = host::disk::open_env(&queue.join("lmdb"), MAP_BYTES, TABLES_MAX).context("open the dead daemon's database")?;
    let opened = env.open_databases_and_commit(env.read_txn()?, |opener, txn| -> heed::Result<_> {
        let table = opener.open_database::<Bytes, DecodeIgnore>(txn, Some("deliveries"))?;
        Ok(table.map_or(CommitOrAbort::Abort(()), CommitOrAbort::Commit))
    })?;
    let table = opened.commit().context("the queue has no table `deliveries`")?;
    let txn = env.read_txn()?;
    let mut ids = HashSet::new();
    for entry in table.iter(&txn)? {
        let id = entry?.0.first_chunk().context("a key of `deliveries` is too short")?;
        ids.insert(u64::from_be_bytes(*id));
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Script;

    /// A queue in which deliveries with these ids wait.
    fn queue_with(ids: &[u64]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("lmdb")).unwrap();
        let env = host::disk::open_env(&dir.path().join("lmdb"), MAP_BYTES, TABLES_MAX).unwrap();
        let made = env.create_databases_and_commit(env.write_txn().unwrap(), |opener, txn| -> heed::Result<_> {
            opener.create_database::<Bytes, Bytes>(txn, Some("deliveries")).map(CommitOrAbort::<_, ()>::Commit)
        });
        let table = made.unwrap().unwrap_commit();
        let mut txn = env.write_txn().unwrap();
        for id in ids {
            table.put(&mut txn, &[&id.to_be_bytes()[..], b"d.test"].concat(), b"row").unwrap();
        }
        txn.commit().unwrap();
        dir
    }

    #[test]
    fn only_what_arrived_and_was_still_queued_may_come_again_and_only_once() {
        let ledger = Ledger::new(4);
        let provider = Provider::for_load(Script::accepts_all(), None);
        let mut account = Account::default();
        (0..4).for_each(|id| assert_eq!(ledger.take_id(), Some(id)));
        ledger.arrived(0, Some(100)); // Settled before the crash.
        ledger.arrived(1, Some(101)); // In flight.
        let queue = queue_with(&[101, 102]);
        let crash = account.crashed(Instant::now(), queue.path(), &ledger, &provider).unwrap();
        assert_eq!((crash.queued, crash.in_flight), (2, 1));
        ledger.arrived(1, Some(101));
        ledger.arrived(2, Some(102));
        assert_eq!(account.unexplained(&ledger), Vec::<u64>::new());
        account.report(&ledger).unwrap();
        ledger.arrived(0, Some(100));
        assert_eq!(account.unexplained(&ledger), [0]);
        ledger.arrived(1, Some(101));
        assert_eq!(account.unexplained(&ledger), [0, 1], "one crash explains one copy");
        account.report(&ledger).unwrap_err();
    }

    #[test]
    fn a_second_crash_explains_a_copy_only_if_the_message_arrived_in_that_life() {
        let ledger = Ledger::new(1);
        let provider = Provider::for_load(Script::accepts_all(), None);
        let mut account = Account::default();
        assert_eq!(ledger.take_id(), Some(0));
        ledger.arrived(0, Some(7));
        let queue = queue_with(&[7]);
        assert_eq!(account.crashed(Instant::now(), queue.path(), &ledger, &provider).unwrap().in_flight, 1);
        assert_eq!(account.crashed(Instant::now(), queue.path(), &ledger, &provider).unwrap().in_flight, 0);
        ledger.arrived(0, Some(7));
        ledger.arrived(0, Some(7));
        assert_eq!(account.unexplained(&ledger), [0]);
    }
}
