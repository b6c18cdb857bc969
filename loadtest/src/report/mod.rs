//! `report`: what a message costs, beside Postfix and, where it is installed, Exim, in the same run.
//!
//! The workload: relay role (no AUTH), 50 connections kept alive, messages of 4 KB, 50 recipient domains behind one MX on
//! loopback, no TLS, durable before `250`. Generator and sink are in this process and wait for every reply, so that both
//! peers hold the same dialogue; tradewind asks a scripted DNS server, Postfix has a relayhost and asks nobody.
//!
//! Peers take turns, run by run, each on a fresh queue: what the machine does besides disturbs all of them alike. Each run
//! warms up first, then counts the CPU time of the peer's process tree alone (see [`crate::cpu`]) from before the first
//! message until the last one has arrived and the peer has cleaned up behind it. Then 20 messages a second tell the latency,
//! at last beside a flood of bulk mail. Besides, the same messages are submitted as a PDS does it: STARTTLS and AUTH for each.
//!
//! With `--starttls` both legs are under TLS: the generator keeps its connections (and says AUTH once on each to tradewind), the
//! sink offers STARTTLS, and each peer uses it outwards as it does when told no more than that it may.

mod peers;
mod table;
pub mod watched;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;

use crate::daemon::{MEMBER_DOMAIN, Signatures};
use crate::ledger::Ledger;
use crate::postfix::Postfix;
use crate::sink::{Provider, Script, Sink};
use crate::source::{self, Load, Target};
use crate::tls::Certificate;
use crate::{cpu, dns};
use peers::{Peer, Started, Way};
use table::table;

/// Connections of the workload.
const CONNECTIONS: usize = 50;
/// Recipient domains of the workload, all behind one MX.
const DOMAINS: usize = 50;
/// Messages a second of the latency run: an evening's one-time codes.
const LATENCY_RATE: f64 = 20.0;
/// Messages of the latency run: ten seconds of it.
const LATENCY_MESSAGES: u64 = 200;
/// Each phase has numbers of its own, and so Message-IDs of its own: what is submitted again is not sent again.
const PHASE: u64 = 1 << 24;
/// Bulk messages while one-time codes are timed: more than can be submitted in that time, and how many make a rush.
const RUSH_MAX: u64 = 400_000;
const RUSH_BEGUN: u64 = 500;
/// Time after the last arrival in which a peer removes what it delivered; that work belongs to the messages too.
const CLEANUP: Duration = Duration::from_millis(500);
/// Nothing arrived for so long: what is missing is lost.
const QUIET: Duration = Duration::from_secs(20);

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// One run of 1,500 messages instead of five of 6,000: for a look, not for a claim.
    #[arg(long)]
    quick: bool,
    /// Messages of a run.
    #[arg(long)]
    messages: Option<u64>,
    /// Runs; the median is reported.
    #[arg(long)]
    runs: Option<usize>,
    /// Octets of a message.
    #[arg(long, default_value_t = 4096)]
    bytes: usize,
    /// Only peers whose name contains one of these words, such as `postfix` or `uring`.
    #[arg(long)]
    only: Vec<String>,
    /// A connection for each message, as a PDS sends, instead of connections kept alive.
    #[arg(long)]
    no_keep_alive: bool,
    /// STARTTLS on both legs, tradewind and Postfix only.
    #[arg(long)]
    starttls: bool,
    /// Where queues are made; must be a real disk. Default: the system's temporary directory.
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// One run of one peer.
struct Run {
    cpu_secs_per_1000: f64,
    own_cpu_secs_per_1000: f64,
    messages_per_sec: f64,
    /// From submission to arrival at [`LATENCY_RATE`], microseconds.
    latency: Option<Histogram<u64>>,
    /// The same while [`CONNECTIONS`] submit bulk mail without pause.
    rush: Option<Histogram<u64>>,
}

/// Measures and prints the table.
pub fn run(arguments: &Arguments) -> Result<()> {
    let messages = arguments.messages.unwrap_or(if arguments.quick { 1_500 } else { 6_000 });
    let runs = arguments.runs.unwrap_or(if arguments.quick { 1 } else { 5 }).max(1);
    let mut peers = if arguments.starttls { Peer::all_with_starttls() } else { Peer::all() };
    peers.retain(|peer| arguments.only.is_empty() || arguments.only.iter().any(|word| peer.name().contains(word.as_str())));
    let mut notes = Vec::new();
    peers.retain(|peer| match peer.unavailable() {
        None => true,
        Some(why) => {
            notes.push(format!("{} was NOT measured: {why}", peer.name()));
            false
        }
    });
    ensure!(!peers.is_empty(), "nothing to measure: {}", notes.join("; "));
    let bench = Bench::new(arguments, messages)?;
    println!("{}", bench.describe(runs));
    let before = rsa_per_core_second()?;
    let mut results: Vec<Vec<Run>> = peers.iter().map(|_| Vec::new()).collect();
    for turn in 1..=runs {
        for (peer, results) in peers.iter().zip(&mut results) {
            match bench.measure(*peer) {
                Ok(run) => {
                    eprintln!("run {turn}: {:36} {:.3} CPU-s per 1000", peer.name(), run.cpu_secs_per_1000);
                    results.push(run);
                }
                // One peer that fails must not hide what the others did, nor pass unseen.
                Err(error) => notes.push(format!("{} FAILED in run {turn}: {error:#}", peer.name())),
            }
        }
    }
    println!("{}", table(&peers, &results));
    println!(
        "RSA-2048 signatures a core-second, here and now: {before:.0} before, {:.0} after. A signed message cannot cost less.",
        rsa_per_core_second()?
    );
    for note in &notes {
        println!("{note}");
    }
    if arguments.starttls {
        println!("The goal under STARTTLS: no more than 0.2 of Postfix's CPU, `postfix/` of 5 or more.");
    }
    if notes.iter().any(|note| note.contains("FAILED")) {
        bail!("not every run succeeded");
    }
    Ok(())
}

struct Bench {
    directory: tempfile::TempDir,
    messages: u64,
    bytes: usize,
    keep_alive: bool,
    starttls: bool,
    certificate: Certificate,
}

impl Arguments {
    /// The workload as it stands, with so many messages.
    pub(crate) fn of_messages(messages: u64) -> Self {
        let (messages, runs) = (Some(messages), Some(1));
        Self {
            quick: false,
            messages,
            runs,
            bytes: 4096,
            only: Vec::new(),
            no_keep_alive: false,
            starttls: false,
            directory: None,
        }
    }
}

/// What one run cost, for those who look at it while it runs.
pub(crate) struct Watched {
    pub(crate) cpu_secs_per_1000: f64,
    pub(crate) messages_per_sec: f64,
}

/// One run of the workload, without latencies; `begin` is told the daemon's process id after the warm-up.
pub(crate) fn watch(
    arguments: &Arguments,
    io: &'static str,
    signatures: Signatures,
    begin: impl FnOnce(u32) -> Result<()>,
) -> Result<Watched> {
    let messages = arguments.messages.unwrap_or(6_000);
    let bench = Bench::new(arguments, messages)?;
    println!("{}", bench.describe(1));
    let stage = bench.stage(Peer::Tradewind(io, signatures, Way::Relay))?;
    begin(stage.started.pid())?;
    let (run, _) = bench.full(&stage)?;
    stage.started.stop()?;
    Ok(run)
}

/// A peer that runs and is warm, and where its mail goes.
struct Stage {
    provider: Arc<Provider>,
    started: Started,
    target: Target,
    way: Way,
    _sink: Sink,
    _dns: dns::Server,
}

impl Bench {
    fn new(arguments: &Arguments, messages: u64) -> Result<Self> {
        let parent = arguments.directory.clone().unwrap_or_else(std::env::temp_dir);
        let directory = tempfile::Builder::new().prefix("tradewind-report-").tempdir_in(parent)?;
        // Postfix's daemons must be able to pass through.
        fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let certificate = Certificate::generate(&["relay.test", "localhost"])?;
        let (bytes, keep_alive, starttls) = (arguments.bytes, !arguments.no_keep_alive, arguments.starttls);
        Ok(Self { directory, messages, bytes, keep_alive, starttls, certificate })
    }

    fn describe(&self, runs: usize) -> String {
        let kept = if self.keep_alive { "kept alive" } else { "of one message each" };
        let filesystem = filesystem_of(self.directory.path());
        let postfix = Postfix::version().unwrap_or_else(|_| "absent".to_owned());
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        format!(
            "Relay role, {CONNECTIONS} connections {kept}, {} octets, {DOMAINS} domains on one MX, {}, no pipelining by \
             the generator.\n{runs} run(s) of {} messages a peer, interleaved; medians. {cores} cores shared with generator \
             and sink. Queues on {filesystem}. Postfix {postfix}.\nCPU: user + system of the peer's process tree, ended \
             children included, 10 ms ticks; not counted: syslog, kernel threads.\n{}",
            self.bytes,
            if self.starttls { "STARTTLS on both legs" } else { "no TLS" },
            self.messages,
            if filesystem == "tmpfs" { "WARNING: on tmpfs nothing is durable; choose a disk with --directory.\n" } else { "" }
        )
    }

    fn measure(&self, peer: Peer) -> Result<Run> {
        let stage = self.stage(peer)?;
        let (cost, own_cpu_secs_per_1000) = self.full(&stage)?;
        let Stage { provider, started, target, way, .. } = stage;
        let slow = Arc::new(Ledger::numbered_from(2 * PHASE, LATENCY_MESSAGES));
        provider.set_ledger(slow.clone());
        self.submit(&target, way, &slow, Some(LATENCY_RATE))?;

        if let Some(signatures) = peer.signatures() {
            let sample = provider.sample().context("the sink kept no sample")?;
            let found = memchr::memmem::find_iter(&sample.octets, b"DKIM-Signature:").count();
            ensure!(found == signatures.count(), "{found} signatures on a message instead of {}", signatures.count());
        }
        let rush = match peer {
            Peer::Tradewind(_, Signatures::Three, Way::Relay) => Some(self.rush(&target, &provider)?),
            _ => None,
        };
        let counts = provider.counts();
        let in_clear = counts.connections.saturating_sub(counts.tls_sessions);
        ensure!(
            !self.starttls || in_clear == 0,
            "{in_clear} of {} connections to the sink were in clear text",
            counts.connections
        );
        let violations = provider.violations();
        ensure!(violations.is_empty(), "breaches of RFC 5321: {violations:?}");
        started.stop()?;
        Ok(Run {
            cpu_secs_per_1000: cost.cpu_secs_per_1000,
            own_cpu_secs_per_1000,
            messages_per_sec: cost.messages_per_sec,
            latency: Some(slow.delivery_latency()),
            rush,
        })
    }

    /// Starts a peer and warms it up.
    fn stage(&self, peer: Peer) -> Result<Stage> {
        let way = peer.way();
        let warmup = Arc::new(Ledger::new((self.messages / 10).clamp(200, 1_000)));
        // One listener for the whole run; the ledger behind it changes between its phases.
        let script = Script { starttls: self.starttls, ..Script::accepts_all() };
        let provider = Provider::for_load(script, Some(warmup.clone()));
        let certificate = self.starttls.then_some(&self.certificate);
        let sink = Sink::start(SocketAddr::from(([127, 0, 0, 1], 0)), provider.clone(), certificate)?;
        let zone = dns::Zone::new();
        for domain in domains() {
            zone.mail_domain(&domain, "mx.big.test", sink.address().ip());
        }
        let dns = dns::Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), zone)?;
        let started = Started::start(self, peer, &sink, &dns)?;
        let target = started.target(way, self.starttls)?;
        self.submit(&target, way, &warmup, None)?;
        Ok(Stage { provider, started, target, way, _sink: sink, _dns: dns })
    }

    /// As fast as it goes: what the peer used, and what generator and sink did.
    fn full(&self, stage: &Stage) -> Result<(Watched, f64)> {
        self.full_of(stage, PHASE)
    }

    /// The same with messages of these numbers.
    fn full_of(&self, stage: &Stage, numbered_from: u64) -> Result<(Watched, f64)> {
        let full = Arc::new(Ledger::numbered_from(numbered_from, self.messages));
        stage.provider.set_ledger(full.clone());
        // What the warm-up left behind is cleaned up before the count begins.
        std::thread::sleep(CLEANUP);
        let used = || (cpu::tree(stage.started.pid()).0, cpu::process(std::process::id()));
        let before = used();
        self.submit(&stage.target, stage.way, &full, None)?;
        std::thread::sleep(CLEANUP);
        let after = used();
        let thousands = self.messages as f64 / 1_000.0;
        let watched = Watched {
            cpu_secs_per_1000: (after.0 - before.0).as_secs_f64() / thousands,
            messages_per_sec: self.messages as f64 / full.span().as_secs_f64(),
        };
        Ok((watched, (after.1 - before.1).as_secs_f64() / thousands))
    }

    /// Submits a ledger's messages and waits until they have all arrived, once.
    fn submit(&self, target: &Target, way: Way, ledger: &Arc<Ledger>, rate: Option<f64>) -> Result<()> {
        let load = self.load(target, way, rate);
        account(&source::run(&load, ledger, &AtomicBool::new(false))?, ledger)
    }

    fn load(&self, target: &Target, way: Way, rate: Option<f64>) -> Load {
        Load {
            target: target.clone(),
            connections: if rate.is_some() { 10 } else { CONNECTIONS },
            keep_alive: self.keep_alive && way != Way::Pds,
            message_bytes: self.bytes,
            from: format!("noreply@{MEMBER_DOMAIN}"),
            domains: domains(),
            category: rate.map(|_| "mfa-otp"),
            rate,
            persistent: false,
        }
    }

    /// One-time codes at their evening's pace while bulk mail saturates the machine.
    fn rush(&self, target: &Target, provider: &Provider) -> Result<Histogram<u64>> {
        let bulk = Arc::new(Ledger::numbered_from(3 * PHASE, RUSH_MAX));
        let codes = Arc::new(Ledger::numbered_from(4 * PHASE, LATENCY_MESSAGES));
        provider.set_ledgers(vec![bulk.clone(), codes.clone()]);
        let stop = Arc::new(AtomicBool::new(false));
        let flood = std::thread::spawn({
            let load = Load { category: Some("bulk"), ..self.load(target, Way::Relay, None) };
            let (bulk, stop) = (bulk.clone(), stop.clone());
            move || source::run(&load, &bulk, &stop)
        });
        let began = Instant::now();
        while bulk.arrivals() < RUSH_BEGUN && began.elapsed() < QUIET {
            std::thread::sleep(Duration::from_millis(10));
        }
        let outcome = self.submit(target, Way::Relay, &codes, Some(LATENCY_RATE));
        let during = bulk.arrivals();
        stop.store(true, Relaxed);
        let report = flood.join().map_err(|_| anyhow::anyhow!("the flood panicked"))??;
        outcome?;
        ensure!(during > RUSH_BEGUN && bulk.arrivals() < RUSH_MAX, "the flood was over before the codes were: {during} arrived");
        account(&report, &bulk)?;
        Ok(codes.delivery_latency())
    }
}

/// Whether all of a load was accepted and has arrived, once.
fn account(report: &source::Report, ledger: &Ledger) -> Result<()> {
    ensure!(
        report.refused + report.broken == 0,
        "{} refused, {} broken: {}",
        report.refused,
        report.broken,
        report.reasons.join(" | ")
    );
    ensure!(ledger.wait_for_all(QUIET), "{} messages got 250 and did not arrive", ledger.missing().len());
    ensure!(ledger.duplicates() == 0, "{} messages arrived twice", ledger.duplicates());
    Ok(())
}

/// What this machine gives today: shared cores and clock rates move this figure by a half, and signed messages with it.
fn rsa_per_core_second() -> Result<f64> {
    let key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048)?;
    let dice = aws_lc_rs::rand::SystemRandom::new();
    let mut signature = vec![0; key.public_modulus_len()];
    let (began, before) = (Instant::now(), cpu::process(std::process::id()));
    let mut count = 0.0;
    while began.elapsed() < Duration::from_secs(1) {
        key.sign(&aws_lc_rs::signature::RSA_PKCS1_SHA256, &dice, b"a header", &mut signature)?;
        count += 1.0;
    }
    Ok(count / (cpu::process(std::process::id()) - before).as_secs_f64())
}

fn domains() -> Vec<String> {
    (0..DOMAINS).map(|n| format!("d{n}.test")).collect()
}

/// The kind of file system that holds a directory, from the longest mount point above it.
fn filesystem_of(directory: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (point, kind) = (words.nth(1)?, words.next()?);
            directory.starts_with(point).then(|| (point.len(), kind.to_owned()))
        })
        .max()
        .map_or_else(|| "an unknown file system".to_owned(), |(_, kind)| kind)
}
