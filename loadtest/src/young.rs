//! A source that warms up, through `kill -9`: its allowance is never overspent, and what was spent is never forgotten.
//!
//! The daemon gets a second source that is through. Before each life the plan is edited so that the day has some more, and the young
//! source takes mail until that is used. After each crash three accounts are laid side by side: what the plan allows, what the sink
//! accepted from the young source's address, and what the dead daemon's table `ledger` says, read by its key alone and without the
//! daemon's code: source, 0, provider, 0, four octets of day, big end first, and one of hour;
//! the count stands in the last eight octets of the row, little end first.
//!
//! The rule: ledger ≤ allowance, ledger ≤ sink, and sink ≤ ledger + what was in flight at crashes so far. A reservation lives in
//! memory, and what the sink accepted without its settlement being committed is in no ledger (RFC 1047 has no better answer).

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use heed::CommitOrAbort;
use heed::types::Bytes;

use crate::crash::{MAP_BYTES, TABLES_MAX};
use crate::daemon::Daemon;
use crate::sink::Provider;

/// Room for a day's allowance in each life.
const STEP: u64 = 400;
const SOURCE: &str = "ip-a";
/// What the sink sees of it.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Whoever is in no list.
const PROVIDER: &str = "other";

/// The account over all lives of a daemon.
#[derive(Default)]
pub(crate) struct Young {
    allowance: u64,
    in_flight: u64,
    spent: u64,
    accepted: u64,
    /// Lives that used the whole allowance.
    full: u32,
}

impl Young {
    /// A configuration with a young source and one that is through.
    pub(crate) fn edit(configuration: &str) -> String {
        let edited = configuration.replace("sources = [\"ip-a\"]", "sources = [\"ip-a\", \"ip-b\"]");
        format!(
            "{edited}\n[[source]]\nname = \"ip-b\"\naddress = \"127.0.0.2\"\nehlo = \"b.relay.test\"\n\
             [warmup]\nfiles = [\"plans.toml\"]\n\
             [[climb]]\nsource = \"{SOURCE}\"\nprovider = \"{PROVIDER}\"\nplan = \"kill\"\n"
        )
    }

    /// For the next life: the day has more.
    pub(crate) fn grow(&mut self, directory: &Path) -> Result<()> {
        self.allowance += STEP;
        // Should midnight of UTC pass, there are stages to come.
        let (first, second, third) = (self.allowance, self.allowance + 1, self.allowance + 2);
        let plan = format!("[[plan]]\nname = \"kill\"\nstages = [{first}, {second}, {third}]\n");
        Ok(fs::write(directory.join("plans.toml"), plan)?)
    }

    /// The daemon is dead; `in_flight` deliveries were undecided, from all its sources together.
    pub(crate) fn crashed(&mut self, daemon: &Daemon, provider: &Provider, in_flight: usize) -> Result<()> {
        self.in_flight += in_flight as u64;
        let days = ledger(&daemon.queue())?;
        let most = days.values().copied().max().unwrap_or(0);
        ensure!(most <= self.allowance + 2, "the ledger has {most} on one day, and {} are allowed", self.allowance);
        let spent = days.values().sum::<u64>();
        ensure!(spent >= self.spent, "{spent} are spent, and {} were before: a crash gave some back", self.spent);
        let accepted = provider.accepted_from(ADDRESS);
        ensure!(spent <= accepted, "{spent} are spent, and the sink has accepted only {accepted}");
        let most = spent + self.in_flight;
        ensure!(accepted <= most, "the sink accepted {accepted}, {spent} are spent and {} were in flight", self.in_flight);
        self.full += u32::from(spent == self.allowance);
        (self.spent, self.accepted) = (spent, accepted);
        Ok(())
    }

    /// The daemon lives again: what it says itself.
    pub(crate) fn alive(&self, daemon: &Daemon) -> Result<()> {
        let shown: serde_json::Value = serde_json::from_str(&daemon.tradewind(&["warmup", "show", "--json"])?)?;
        let climb = shown["climbs"].get(0).context("`tradewind warmup show` shows no climb")?;
        let count = |key: &str| climb[key].as_u64().with_context(|| format!("a climb has no {key}"));
        let (spent, reserved, allowance) = (count("spent")?, count("reserved")?, count("allowance")?);
        ensure!(spent + reserved <= allowance, "{spent} spent and {reserved} reserved of {allowance}");
        // On a new day it begins anew, and the stage has risen.
        let same_day = climb["stage"].as_u64() == Some(1);
        ensure!(!same_day || spent >= self.spent, "the daemon says {spent} after its start, its ledger {}", self.spent);
        Ok(())
    }

    /// Prints the accounts.
    pub(crate) fn report(&self) -> Result<()> {
        println!("allowance of the young source   {}", self.allowance);
        println!("  spent, as the ledger says     {}", self.spent);
        println!("  accepted, as the sink says    {}", self.accepted);
        println!("  lives that used all of it     {}", self.full);
        ensure!(self.full > 0, "the allowance was never used up, so nothing was held back");
        Ok(())
    }
}

/// Recipients by day.
fn ledger(queue: &Path) -> Result<BTreeMap<u32, u64>> {
    let env = host::disk::open_env(&queue.join("lmdb"), MAP_BYTES, TABLES_MAX).context("open the dead daemon's database")?;
    let opened = env.open_databases_and_commit(env.read_txn()?, |opener, txn| -> heed::Result<_> {
        let table = opener.open_database::<Bytes, Bytes>(txn, Some("ledger"))?;
        Ok(table.map_or(CommitOrAbort::Abort(()), CommitOrAbort::Commit))
    })?;
    let table = opened.commit().context("the queue has no table `ledger`")?;
    let txn = env.read_txn()?;
    let prefix = [SOURCE.as_bytes(), b"\0", PROVIDER.as_bytes(), b"\0"].concat();
    let mut days = BTreeMap::new();
    for entry in table.prefix_iter(&txn, &prefix)? {
        let (key, row) = entry?;
        let day = key.get(prefix.len()..).and_then(|rest| rest.first_chunk()).context("a key of `ledger` is too short")?;
        let count = row.last_chunk().context("a row of `ledger` is too short")?;
        *days.entry(u32::from_be_bytes(*day)).or_default() += u64::from_le_bytes(*count);
    }
    Ok(days)
}
