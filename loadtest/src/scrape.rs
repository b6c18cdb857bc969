//! `scrape`: what a scrape of `/metrics` takes, and how many series there are, once mail has gone to a thousand sites.
//!
//! One message to each of ten sites, then one to each of all others, and a hundred scrapes one after another, each timed from the
//! connection to the end of the answer. Series are of the configuration and not of sites, so there are as many in the end as after
//! the first ten.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::daemon::{Daemon, MEMBER_DOMAIN};
use crate::ledger::Ledger;
use crate::outside::Outside;
use crate::sink::{Provider, Script};
use crate::source::{self, Load, Target};
use crate::tls::Certificate;

/// Sites of the first scrape.
const FEW: usize = 10;
/// Scrapes that are timed.
const SCRAPES: usize = 100;
/// The goal, for the slowest of them.
const SCRAPE_MAX: Duration = Duration::from_millis(20);
/// Nothing arrived for so long: what is missing is lost.
const QUIET: Duration = Duration::from_secs(30);
/// Longer than a gauge is old.
const GAUGES: Duration = Duration::from_secs(6);

/// How much.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Sites that mail goes to.
    #[arg(long, default_value_t = 1000)]
    sites: usize,
}

/// Measures and prints.
pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.sites > FEW, "more than {FEW} sites are needed to see what they add");
    let directory = tempfile::Builder::new().prefix("tradewind-scrape-").tempdir()?;
    let certificate = Certificate::generate(&["relay.test", "localhost"])?;
    let provider = Provider::for_load(Script::accepts_all(), None);
    let outside = Outside::start(provider.clone(), &[""; 0])?;
    let domains: Vec<String> = (0..arguments.sites).map(|n| format!("s{n}.test")).collect();
    for domain in &domains {
        outside.zone.mail_domain(domain, &format!("mx.{domain}"), Ipv4Addr::LOCALHOST.into());
    }
    let daemon = Daemon::start(directory.path(), &outside.setup("auto"), &certificate)?;
    let mut began_at = 0;
    let mut send = |domains: &[String]| -> Result<usize> {
        let messages = domains.len() as u64;
        let ledger = Arc::new(Ledger::numbered_from(began_at, messages));
        began_at += 1 << 24;
        provider.set_ledger(ledger.clone());
        let load = Load {
            target: Target::plain(daemon.relay),
            connections: 10,
            keep_alive: true,
            message_bytes: 2048,
            from: format!("noreply@{MEMBER_DOMAIN}"),
            domains: domains.to_vec(),
            category: None,
            rate: None,
            persistent: false,
        };
        let report = source::run(&load, &ledger, &AtomicBool::new(false))?;
        ensure!(report.refused + report.broken == 0, "not everything was accepted: {:?}", report.reasons);
        ensure!(ledger.wait_for_all(QUIET), "{} messages got 250 and did not arrive", ledger.missing().len());
        std::thread::sleep(GAUGES);
        Ok(daemon.scrape()?.lines().filter(|line| line.starts_with("mta_")).count())
    };
    let (few, many) = (send(&domains[..FEW])?, send(&domains[FEW..])?);
    let mut took = Vec::with_capacity(SCRAPES);
    let mut bytes = 0;
    for _ in 0..SCRAPES {
        let began = Instant::now();
        bytes = daemon.scrape()?.len();
        took.push(began.elapsed());
    }
    took.sort();
    daemon.stop()?;
    let (median, slowest) = (took[SCRAPES / 2], took[SCRAPES - 1]);
    println!(
        "after {} sites: {many} series (after {FEW}: {few}), {bytes} octets; {SCRAPES} scrapes: median {:.2} ms, slowest {:.2} ms \
         (goal: {} ms)",
        arguments.sites,
        median.as_secs_f64() * 1e3,
        slowest.as_secs_f64() * 1e3,
        SCRAPE_MAX.as_millis()
    );
    ensure!(many == few, "sites add series");
    ensure!(slowest < SCRAPE_MAX, "a scrape takes too long");
    Ok(())
}
