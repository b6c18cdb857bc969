//! `economy`: how many connections much mail takes, and what a site that has nothing to do costs.
//!
//! First a load to fifty domains behind one set of MX hosts: as few connections as the window allows, each used for hundreds of
//! messages. Then the same load to hundreds of sites. Then a few messages each to as many others, and to those again. What
//! messages leave behind (their fingerprints) the last load leaves, too. So by how much more the daemon's memory has grown over
//! the first of these two than over the second, with all connections closed, is what the sites cost.
//!
//! The memory is what the daemon says that it holds (`mta_heap_bytes`). What the system shows (`RssAnon`) is printed beside it
//! and decides nothing: with 500 sites it goes up and down by ten megabytes from one load to the next, which is what the
//! allocator keeps of what was freed, and would be 20 KB a site.
//!
//! A site may get a second connection where a second message is ready before the first is done: nobody waits for another's
//! answer while the window has room. How many do depends on how fast mail comes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::daemon::{Daemon, MEMBER_DID, MEMBER_DOMAIN, Setup, Signatures};
use crate::ledger::Ledger;
use crate::sink::{Provider, Script, Sink};
use crate::source::{self, Load, Target};
use crate::tls::Certificate;
use crate::{cpu, dns};

/// Domains of the first load, all behind the same hosts.
const DOMAINS: usize = 50;
/// The goals: messages over a connection, and octets of an idle site.
const MESSAGES_PER_CONNECTION: u64 = 200;
const SITE_BYTES_MAX: f64 = 4096.0;
/// Messages to each site whose memory is measured.
const MESSAGES_PER_SITE: u64 = 4;
/// Fewer messages than this say nothing of either.
const MESSAGES_MIN: u64 = 5_000;
/// Nothing arrived for so long: what is missing is lost.
const QUIET: Duration = Duration::from_secs(30);
/// Longer than a connection is kept.
const IDLE: Duration = Duration::from_secs(15);
/// Longer than a gauge is old.
const GAUGES: Duration = Duration::from_secs(6);

/// How much.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Messages of each load.
    #[arg(long, default_value_t = 10_000)]
    messages: u64,
    /// Sites of the others.
    #[arg(long, default_value_t = 500)]
    sites: usize,
    /// Hosts offer STARTTLS.
    #[arg(long)]
    starttls: bool,
    /// `uring`, `epoll` or `auto`.
    #[arg(long, default_value = "auto")]
    io: String,
    /// Where the queue is made. Default: the system's temporary directory.
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// Measures and prints.
pub fn run(arguments: &Arguments) -> Result<()> {
    let parent = arguments.directory.clone().unwrap_or_else(std::env::temp_dir);
    let directory = tempfile::Builder::new().prefix("tradewind-economy-").tempdir_in(parent)?;
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let certificate = Certificate::generate(&["relay.test", "localhost"])?;
    let script = Script { starttls: arguments.starttls, ..Script::accepts_all() };
    let provider = Provider::for_load(script, None);
    let sink = Sink::start(anywhere, provider.clone(), arguments.starttls.then_some(&certificate))?;
    let zone = dns::Zone::new();
    // Nothing that is known of a site is forgotten until the end.
    zone.set_ttl(3600);
    let shared: Vec<String> = (0..DOMAINS).map(|n| format!("d{n}.test")).collect();
    let (first, second): (Vec<_>, Vec<_>) = (0..arguments.sites).map(|n| (format!("a{n}.test"), format!("b{n}.test"))).unzip();
    for domain in &shared {
        zone.mail_domain(domain, "mx.big.test", sink.address().ip());
    }
    for domain in first.iter().chain(&second) {
        zone.mail_domain(domain, &format!("mx.{domain}"), sink.address().ip());
    }
    let dns = dns::Server::start(anywhere, zone)?;
    let setup = Setup {
        io: &arguments.io,
        signatures: Signatures::None,
        nameserver: dns.address(),
        egress_port: sink.address().port(),
        members: &[(MEMBER_DID, MEMBER_DOMAIN)],
        more: "",
    };
    let daemon = Daemon::start(directory.path(), &setup, &certificate)?;
    let memory = || cpu::status_kib(daemon.pid(), "RssAnon").context("the daemon is gone");
    let messages = arguments.messages;
    let mut phase = 0;
    let mut send = |domains: &[String], messages: u64| -> Result<u64> {
        let before = provider.counts().connections;
        phase += 1;
        let ledger = Arc::new(Ledger::numbered_from(phase << 24, messages));
        provider.set_ledger(ledger.clone());
        let load = Load {
            target: Target::plain(daemon.relay),
            connections: 20,
            keep_alive: true,
            message_bytes: 2048,
            from: format!("noreply@{MEMBER_DOMAIN}"),
            domains: domains.to_vec(),
            category: None,
            rate: None,
            persistent: false,
        };
        let report = source::run(&load, &ledger, &AtomicBool::new(false))?;
        ensure!(
            report.refused + report.broken == 0,
            "{} refused, {} broken: {:?}",
            report.refused,
            report.broken,
            report.reasons
        );
        ensure!(ledger.wait_for_all(QUIET), "{} messages got 250 and did not arrive", ledger.missing().len());
        Ok(provider.counts().connections - before)
    };

    let connections = send(&shared, messages)?.max(1);
    println!(
        "{messages} messages to {DOMAINS} domains on one MX set: {connections} connections, {} messages over each (goal: \
         {MESSAGES_PER_CONNECTION})",
        messages / connections
    );
    let to_many = send(&first, messages)?;
    let busy = memory()?;
    let held = || -> Result<(f64, u64)> {
        idle(&provider)?;
        // To be asked is what frees the samples that histograms have gathered.
        daemon.metric("mta_heap_bytes")?;
        std::thread::sleep(GAUGES);
        Ok((daemon.metric("mta_heap_bytes")?, memory()?))
    };
    // What grows with how much is on its way at once has grown by now: these are too few to let it grow further.
    let few = MESSAGES_PER_SITE * arguments.sites as u64;
    let before = held()?;
    send(&second, few)?;
    let after = held()?;
    send(&second, few)?;
    let again = held()?;
    let each = (2.0 * after.0 - before.0 - again.0) / arguments.sites.max(1) as f64;
    println!(
        "{messages} messages to {} sites: {to_many} connections; {each:.0} octets an idle site (goal: {SITE_BYTES_MAX:.0})",
        arguments.sites
    );
    let shown = [("some sites", before), ("as many others", after), ("those again", again)];
    println!("held, and RssAnon (with idle connections {busy} KiB):");
    for (what, (held, resident)) in shown {
        println!("  after {what:<15} {:>8.0} KiB {resident:>8} KiB", held / 1024.0);
    }
    daemon.stop()?;
    if messages < MESSAGES_MIN {
        println!("Too little for a verdict: at least {MESSAGES_MIN} messages.");
        return Ok(());
    }
    ensure!(messages / connections >= MESSAGES_PER_CONNECTION, "too many connections");
    ensure!(each <= SITE_BYTES_MAX, "an idle site costs too much");
    Ok(())
}

/// Waits until no connection is kept any more.
fn idle(provider: &Provider) -> Result<()> {
    let began = Instant::now();
    while provider.counts().sessions > 0 {
        ensure!(began.elapsed() < 2 * IDLE, "{} connections are still open after {IDLE:?}", provider.counts().sessions);
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
