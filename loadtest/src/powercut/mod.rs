//! `powercut`: the power goes under load, again and again, and the disk shows what a disk may show. What got `250` arrives.
//!
//! The daemon runs with a library in front of its system calls ([`shim`]) that ends it at a write, a sync, a change of a
//! name, before it, in the middle of it or after it, and that has noted how to undo whatever was not synced. Then
//! [`undo`] lets each sector that was not synced be there or not, and the daemon starts again. Some orders hit the start
//! itself, and in some lives a sync fails before.
//!
//! With `--lying-disk` syncs succeed and make nothing durable, as cheap disks do it. Then mail must be lost: a run that does
//! not see it would see nothing else either, and fails.
//!
//! Not simulated: damage to what was synced, writes that go elsewhere, and a sector torn although it was written alone
//! (LMDB's meta page relies on that, like everything that is kept on disks).

mod shim;
mod undo;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use host::Dice;
use host::sim::disk::{Kindness, Sectors};

use crate::crash::Account;
use crate::daemon::{Daemon, MEMBER_DOMAIN};
use crate::ledger::Ledger;
use crate::outside::{Outside, some_domains};
use crate::sink::{Act, Provider, Rule, Script, Stage};
use crate::source::{self, Load, Target};
use crate::tls::Certificate;
use shim::{Order, Shim};
use undo::Loss;

/// The sink thinks so long before its `250`, so that there are deliveries in flight to lose.
const SINK_DELAY: Duration = Duration::from_millis(5);
/// With a disk that lies: messages that have got 250 and not arrived when the power goes, and the longest wait for them.
const AT_STAKE: usize = 8;
const STAKE_WAIT: Duration = Duration::from_secs(5);
/// An order is carried out sooner, or else the process is killed where it is.
const ORDER_WAIT: Duration = Duration::from_secs(3);
/// Nothing arrived for so long after the last start: what is missing is lost.
const QUIET: Duration = Duration::from_secs(60);
/// The same where losses are expected.
const QUIET_LYING: Duration = Duration::from_secs(3);
/// Far more than can be submitted in the time.
const MESSAGES_MAX: u64 = 2_000_000;
/// Calls after which the power goes: up to so many while starting, and later.
const CALLS_AT_START_MAX: u64 = 60;
const CALLS_MAX: u64 = 1500;
/// Syncs after which one fails, where one fails.
const SYNCS_MAX: u64 = 15;

/// A disk that lies and keeps nearly everything would not be found out.
const UNKIND: Kindness = Kindness { kept: 1, of: 10 };

/// How to cut.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Times that the power goes.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Sessions that submit.
    #[arg(long, default_value_t = 20)]
    connections: usize,
    /// `uring`, `epoll` or `auto`.
    #[arg(long, default_value = "auto")]
    io: String,
    /// Chooses the moments and what the disk shows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The disk says that it has synced and has not. The run succeeds if it finds that mail was lost.
    #[arg(long)]
    lying_disk: bool,
}

/// Cuts and counts.
pub fn run(arguments: &Arguments) -> Result<()> {
    let ledger = Arc::new(Ledger::with_marked_bodies(MESSAGES_MAX));
    let script = Script::accepts_all().with(Rule::new(Stage::EndOfData, Act::Delay(SINK_DELAY)));
    let provider = Provider::for_load(script, Some(ledger.clone()));
    let domains = some_domains();
    let outside = Outside::start(provider.clone(), &domains)?;
    let folder = tempfile::Builder::new().prefix("tradewind-powercut-").tempdir()?;
    let directory = folder.path().canonicalize()?;
    let shim = Shim::build(&directory)?;
    let setup = outside.setup(&arguments.io);
    let environment = shim.environment(&directory.join("data"), arguments.lying_disk);
    let certificate = Certificate::generate(&["relay.test"])?;
    let daemon = Daemon::start_within(&directory, &setup, &certificate, environment)?;
    let load = Load {
        target: Target { patience: Duration::from_secs(10), ..Target::plain(daemon.relay) },
        connections: arguments.connections,
        keep_alive: true,
        message_bytes: 32 << 10,
        from: format!("noreply@{MEMBER_DOMAIN}"),
        domains,
        rate: None,
        category: None,
        persistent: true,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let source = std::thread::spawn({
        let (ledger, stop) = (ledger.clone(), stop.clone());
        move || source::run(&load, &ledger, &stop)
    });
    let dice = Dice::seeded(arguments.seed);
    let mut run = Run {
        arguments,
        daemon,
        shim,
        dice,
        account: Account::default(),
        ledger,
        provider,
        cuts: BTreeMap::new(),
        total: Loss::default(),
    };
    let outcome = run.rounds();
    stop.store(true, Relaxed);
    let report = source.join().map_err(|_| anyhow::anyhow!("the source panicked"))??;
    if arguments.lying_disk { run.found_out(outcome, &report) } else { outcome.and_then(|()| run.check(&report)) }
}

struct Run<'a> {
    arguments: &'a Arguments,
    daemon: Daemon,
    shim: Shim,
    dice: Dice,
    account: Account,
    ledger: Arc<Ledger>,
    provider: Arc<Provider>,
    /// How often the power went at which kind of call.
    cuts: BTreeMap<String, u32>,
    total: Loss,
}

impl Run<'_> {
    fn rounds(&mut self) -> Result<()> {
        for round in 1..=self.arguments.rounds {
            let before = self.ledger.arrivals();
            let at = self.wait_for_cut()?;
            // Dice of its own: how many are thrown depends on what was written, and the orders are to be the same again.
            let dice = Dice::seeded(self.arguments.seed << 32 | u64::from(round));
            let kindness = if self.arguments.lying_disk { UNKIND } else { Kindness::throw(&dice) };
            let loss = undo::after_power_cut(self.shim.log(), &dice, kindness)?;
            self.tell(round, before, kindness, &loss);
            if !self.arguments.lying_disk {
                let crash = self.account.crashed(at, &self.daemon.queue(), &self.ledger, &self.provider)?;
                eprintln!(
                    "    {} queued, {} of them at the sink, the oldest for {:.1?}",
                    crash.queued, crash.in_flight, crash.oldest
                );
            }
            self.start_again(round < self.arguments.rounds)?;
        }
        Ok(())
    }

    /// Orders the power to be cut in the running daemon, if that was not done before its start, and waits for it.
    fn wait_for_cut(&mut self) -> Result<Instant> {
        if self.arguments.lying_disk {
            self.wait_for_something_to_lose();
        } else {
            if self.daemon.is_running() {
                let order = self.throw_order(CALLS_MAX);
                self.shim.order(order)?;
            }
            let began = Instant::now();
            while self.daemon.is_running() && began.elapsed() < ORDER_WAIT {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let at = Instant::now();
        self.daemon.kill()?;
        Ok(at)
    }

    /// A disk that forgets everything is found out only by mail that got 250 and has not arrived. (After the first cut nobody
    /// is enrolled any more, and nothing gets 250: then the wait is for nothing.)
    fn wait_for_something_to_lose(&self) {
        let began = Instant::now();
        while self.ledger.missing().len() < AT_STAKE && began.elapsed() < STAKE_WAIT {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Small numbers of calls are as likely as large ones.
    fn throw_order(&self, calls_max: u64) -> Order {
        let scale = 2 + self.dice.below(u64::from(calls_max.ilog2()));
        let fail_after = if self.dice.below(4) == 0 { 1 + self.dice.below(SYNCS_MAX) } else { 0 };
        Order { cut_after: 1 + self.dice.below((1 << scale).min(calls_max)), fail_after, phase: self.dice.below(3) }
    }

    /// Starts the daemon; if `may_cut`, the power may go in the middle of it, which is no error.
    fn start_again(&mut self, may_cut: bool) -> Result<()> {
        let cut = may_cut && self.dice.below(4) == 0;
        let order = if cut { Order { fail_after: 0, ..self.throw_order(CALLS_AT_START_MAX) } } else { Order::default() };
        self.shim.order(order)?;
        match self.daemon.start_again() {
            Err(_) if cut && undo::was_cut(self.shim.log())? => Ok(()),
            started => started.context("start after a loss of power"),
        }
    }

    fn tell(&mut self, round: u32, before: u64, kindness: Kindness, loss: &Loss) {
        let arrived = self.ledger.arrivals() - before;
        let cut = loss.cut.as_deref().unwrap_or("at no call in particular");
        let Loss { sectors: Sectors { kept, lost, torn }, names_lost, names_kept, syncs_failed, .. } = *loss;
        eprintln!(
            "cut {round}: {cut}; {arrived} arrived since the last; a disk that keeps {} of {}: sectors {lost} lost, {kept} kept, \
             {torn} torn; names {names_lost} lost, {names_kept} kept; {syncs_failed} syncs failed",
            kindness.kept, kindness.of,
        );
        // "before pwritev of queue/segments/000001.seg" → "pwritev of queue/segments".
        let what = cut.split_once("/0").map_or(cut, |(folder, _)| folder);
        *self.cuts.entry(what.to_owned()).or_default() += 1;
        self.total.sectors.kept += kept;
        self.total.sectors.lost += lost;
        self.total.sectors.torn += torn;
        self.total.names_kept += names_kept;
        self.total.names_lost += names_lost;
        self.total.syncs_failed += syncs_failed;
    }

    fn print(&self, report: &source::Report) {
        println!("\n{} losses of power, seed {}, io {}", self.arguments.rounds, self.arguments.seed, self.arguments.io);
        for (what, count) in &self.cuts {
            println!("  {count:>5}  {what}");
        }
        let Loss { sectors: Sectors { kept, lost, torn }, names_lost, names_kept, syncs_failed, .. } = self.total;
        println!("sectors not synced              {lost} lost, {kept} kept, {torn} torn");
        println!("names not synced                {names_lost} lost, {names_kept} kept");
        println!("syncs that failed               {syncs_failed}");
        println!("messages that got 250           {}", self.ledger.accepted_ids().len());
        println!("  of them missing               {}", self.ledger.missing().len());
        println!("  that arrived damaged          {}", self.ledger.damaged());
        println!("messages refused for a time     {}", report.refused);
        println!("messages whose 250 was cut off  {}", report.broken);
        println!("messages not begun while away   {}", report.unsent);
    }

    fn check(self, report: &source::Report) -> Result<()> {
        ensure!(self.ledger.take_id().is_some(), "the ledger was full before the last cut: fewer --rounds, please");
        self.ledger.wait_for_all(QUIET);
        self.print(report);
        let copies = self.account.report(&self.ledger);
        let missing = self.ledger.missing();
        let few = &missing[..missing.len().min(20)];
        ensure!(missing.is_empty(), "LOST: messages {few:?} …\n{}", self.daemon.last_lines());
        ensure!(self.ledger.damaged() == 0, "{} messages arrived damaged", self.ledger.damaged());
        let violations = self.provider.violations();
        ensure!(violations.is_empty(), "breaches of RFC 5321: {violations:?}");
        copies?;
        self.daemon.stop()
    }

    /// With a disk that lies: whether that was noticed.
    fn found_out(self, outcome: Result<()>, report: &source::Report) -> Result<()> {
        if outcome.is_ok() {
            self.ledger.wait_for_all(QUIET_LYING);
        }
        self.print(report);
        let missing = self.ledger.missing().len();
        match outcome {
            Err(error) => println!("\nthe disk lied, and the daemon could not go on: {error:#}"),
            Ok(()) if missing > 0 => println!("\nthe disk lied, and {missing} messages are lost: as it must be"),
            Ok(()) => bail!("the disk lied, and nothing is missing: this run proves nothing"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
