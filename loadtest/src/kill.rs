//! `kill`: `kill -9` under load, again and again. What got `250` must arrive; copies are at most what was in flight.
//!
//! Members submit without pause over many connections while the daemon is killed at moments chosen by the seed, and started
//! again on the same data. The ledger of source and sink, not the daemon, says what was accepted and what arrived.
//!
//! Which deliveries were in flight, and so may come twice, is found by [`crate::crash`]; any other copy fails the run.
//! With `--warmup` one of two sources has an allowance, and its account is kept by `young.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::crash::Account;
use crate::daemon::{Daemon, MEMBER_DOMAIN};
use crate::ledger::Ledger;
use crate::outside::{Outside, some_domains};
use crate::sink::{Act, Provider, Rule, Script, Stage};
use crate::source::{self, Load, Target};
use crate::tls::Certificate;
use crate::young::Young;

/// The sink thinks so long before its `250`, so that there are deliveries in flight to lose.
const SINK_DELAY: Duration = Duration::from_millis(5);
/// Nothing arrived for so long after the last start: what is missing is lost.
const QUIET: Duration = Duration::from_secs(60);
/// Far more than can be submitted in the time.
const MESSAGES_MAX: u64 = 2_000_000;

/// How to kill it.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Times to kill it.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Sessions that submit.
    #[arg(long, default_value_t = 20)]
    connections: usize,
    /// `uring`, `epoll` or `auto`.
    #[arg(long, default_value = "auto")]
    io: String,
    /// Chooses the moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One source warms up: its allowance, which grows with each life, is never overspent, and nothing spent is forgotten.
    #[arg(long)]
    warmup: bool,
}

/// Kills and counts.
pub fn run(arguments: &Arguments) -> Result<()> {
    let ledger = Arc::new(Ledger::new(MESSAGES_MAX));
    let script = Script::accepts_all().with(Rule::new(Stage::EndOfData, Act::Delay(SINK_DELAY)));
    let provider = Provider::for_load(script, Some(ledger.clone()));
    let domains = some_domains();
    let outside = Outside::start(provider.clone(), &domains)?;
    let directory = tempfile::Builder::new().prefix("tradewind-kill-").tempdir()?;
    let setup = outside.setup(&arguments.io);
    let certificate = Certificate::generate(&["relay.test"])?;
    let mut young = arguments.warmup.then(Young::default);
    let mut daemon = match &mut young {
        None => Daemon::start(directory.path(), &setup, &certificate)?,
        Some(young) => {
            young.grow(directory.path())?;
            Daemon::start_edited(directory.path(), &setup, &certificate, |configuration| Young::edit(&configuration))?
        }
    };
    let load = Load {
        target: Target { patience: Duration::from_secs(10), ..Target::plain(daemon.relay) },
        connections: arguments.connections,
        keep_alive: true,
        message_bytes: 4096,
        from: format!("noreply@{MEMBER_DOMAIN}"),
        domains,
        category: None,
        rate: None,
        persistent: true,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let source = std::thread::spawn({
        let (ledger, stop) = (ledger.clone(), stop.clone());
        move || source::run(&load, &ledger, &stop)
    });
    let mut account = Account::default();
    let outcome = rounds(arguments, &mut daemon, (&provider, &ledger), (&mut account, young.as_mut()));
    stop.store(true, Relaxed);
    let report = source.join().map_err(|_| anyhow::anyhow!("the source panicked"))??;
    outcome?;
    ensure!(ledger.take_id().is_some(), "the ledger was full before the last kill: fewer --rounds, please");
    ledger.wait_for_all(QUIET);

    let missing = ledger.missing();
    println!("\n{} kills, seed {}, io {}", account.crashes().len(), arguments.seed, arguments.io);
    println!("messages that got 250           {}", ledger.accepted_ids().len());
    println!("  of them missing               {}", missing.len());
    println!("messages whose 250 was cut off  {}", report.broken);
    println!("messages not begun while away   {}", report.unsent);
    let copies = account.report(&ledger);
    let overspent = young.as_ref().map_or(Ok(()), Young::report);
    let violations = provider.violations();
    ensure!(violations.is_empty(), "breaches of RFC 5321: {violations:?}");
    ensure!(report.refused == 0, "{} messages were refused: {}", report.refused, report.reasons.join(" | "));
    ensure!(missing.is_empty(), "LOST: messages {:?} …\n{}", &missing[..missing.len().min(20)], daemon.last_lines());
    copies?;
    overspent?;
    daemon.stop()
}

fn rounds(
    arguments: &Arguments,
    daemon: &mut Daemon,
    (provider, ledger): (&Provider, &Ledger),
    (account, mut young): (&mut Account, Option<&mut Young>),
) -> Result<()> {
    let mut dice = arguments.seed | 1;
    for round in 1..=arguments.rounds {
        // Xorshift: a fresh moment each time, the same for the same seed.
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let before = ledger.arrivals();
        std::thread::sleep(Duration::from_millis(100 + dice % 900));
        let at = Instant::now();
        let open = provider.counts().open;
        daemon.kill()?;
        let took = at.elapsed();
        let crash = account.crashed(at, &daemon.queue(), ledger, provider)?;
        eprintln!(
            "kill {round}: {} arrived since the last, {open} being sent, {} queued, {} of them at the sink, the oldest for {:.1?} (it took {took:.1?})",
            ledger.arrivals() - before,
            crash.queued,
            crash.in_flight,
            crash.oldest
        );
        if let Some(young) = &mut young {
            young.crashed(daemon, provider, crash.in_flight)?;
            young.grow(daemon.directory())?;
        }
        daemon.start_again()?;
        // Asking takes as long as using the allowance up: every other life is killed in the midst of that.
        if let Some(young) = young.as_ref().filter(|_| round % 2 == 0) {
            young.alive(daemon)?;
        }
    }
    // The last start gets time to prove itself under load, too.
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}
