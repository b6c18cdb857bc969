//! `report`: what a message costs, beside Postfix, in the same run.
//!
//! The workload: relay role (no AUTH), 50 connections kept alive, messages of 4 KB, 50 recipient domains behind one MX on
//! loopback, no TLS, durable before `250`. Generator and sink are in this process and wait for every reply, so that both
//! peers hold the same dialogue; tradewind asks a scripted DNS server, Postfix has a relayhost and asks nobody.
//!
//! Peers take turns, run by run, each on a fresh queue: what the machine does besides disturbs all of them alike. Each run
//! warms up first, then counts the CPU time of the peer's process tree alone (see [`crate::cpu`]) from before the first
//! message until the last one has arrived and the peer has cleaned up behind it. Then 20 messages a second tell the latency.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::daemon::{Daemon, MEMBER_DID, MEMBER_DOMAIN, Setup, Signatures};
use crate::ledger::Ledger;
use crate::postfix::{Postfix, Role};
use crate::process;
use crate::sink::{Provider, Script, Sink};
use crate::source::{self, Load, Target};
use crate::tls::Certificate;
use crate::{cpu, dns};

/// Connections of the workload.
const CONNECTIONS: usize = 50;
/// Recipient domains of the workload, all behind one MX.
const DOMAINS: usize = 50;
/// Messages a second of the latency run: an evening's one-time codes.
const LATENCY_RATE: f64 = 20.0;
/// Time after the last arrival in which a peer removes what it delivered; that work belongs to the messages too.
const CLEANUP: Duration = Duration::from_millis(500);
/// Nothing arrived for so long: what is missing is lost.
const QUIET: Duration = Duration::from_secs(20);

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// One run of 1,500 messages instead of three of 6,000: for a look, not for a claim.
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
    /// Where queues are made; must be a real disk. Default: the system's temporary directory.
    #[arg(long)]
    directory: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Tradewind(&'static str, Signatures),
    Postfix,
}

impl Peer {
    fn all() -> Vec<Self> {
        let mut all = vec![Self::Postfix];
        for signatures in [Signatures::None, Signatures::One, Signatures::Three] {
            all.extend(["uring", "epoll"].map(|io| Self::Tradewind(io, signatures)));
        }
        all
    }

    fn name(self) -> String {
        match self {
            Self::Postfix => "postfix".to_owned(),
            Self::Tradewind(io, Signatures::None) => format!("tradewind {io}, unsigned"),
            Self::Tradewind(io, Signatures::One) => format!("tradewind {io}, one RSA"),
            Self::Tradewind(io, Signatures::Three) => format!("tradewind {io}, three signatures"),
        }
    }
}

/// One run of one peer.
#[derive(Clone, Copy)]
struct Run {
    cpu_secs_per_1000: f64,
    own_cpu_secs_per_1000: f64,
    messages_per_sec: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Measures and prints the table.
pub fn run(arguments: &Arguments) -> Result<()> {
    let messages = arguments.messages.unwrap_or(if arguments.quick { 1_500 } else { 6_000 });
    let runs = arguments.runs.unwrap_or(if arguments.quick { 1 } else { 3 }).max(1);
    let mut peers = Peer::all();
    peers.retain(|peer| arguments.only.is_empty() || arguments.only.iter().any(|word| peer.name().contains(word.as_str())));
    let mut notes = Vec::new();
    if let (true, Some(why)) = (peers.contains(&Peer::Postfix), Postfix::unavailable()) {
        notes.push(format!("postfix was NOT measured: {why}"));
        peers.retain(|peer| *peer != Peer::Postfix);
    }
    ensure!(!peers.is_empty(), "nothing to measure: {}", notes.join("; "));
    let bench = Bench::new(arguments, messages)?;
    println!("{}", bench.describe(runs));
    let before = rsa_per_core_second()?;
    let mut results: Vec<Vec<Run>> = vec![Vec::new(); peers.len()];
    for turn in 1..=runs {
        for (peer, results) in peers.iter().zip(&mut results) {
            match bench.measure(*peer) {
                Ok(run) => {
                    eprintln!("run {turn}: {:34} {:.3} CPU-s per 1000", peer.name(), run.cpu_secs_per_1000);
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
    certificate: Certificate,
}

impl Bench {
    fn new(arguments: &Arguments, messages: u64) -> Result<Self> {
        let parent = arguments.directory.clone().unwrap_or_else(std::env::temp_dir);
        let directory = tempfile::Builder::new().prefix("tradewind-report-").tempdir_in(parent)?;
        // Postfix's daemons must be able to pass through.
        fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let certificate = Certificate::generate(&["relay.test", "localhost"])?;
        let (bytes, keep_alive) = (arguments.bytes, !arguments.no_keep_alive);
        Ok(Self { directory, messages, bytes, keep_alive, certificate })
    }

    fn describe(&self, runs: usize) -> String {
        let kept = if self.keep_alive { "kept alive" } else { "of one message each" };
        let filesystem = filesystem_of(self.directory.path());
        let postfix = Postfix::version().unwrap_or_else(|_| "absent".to_owned());
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        format!(
            "Relay role, {CONNECTIONS} connections {kept}, {} octets, {DOMAINS} domains on one MX, no TLS, no pipelining by \
             the generator.\n{runs} run(s) of {} messages a peer, interleaved; medians. {cores} cores shared with generator \
             and sink. Queues on {filesystem}. Postfix {postfix}.\nCPU: user + system of the peer's process tree, ended \
             children included, 10 ms ticks; not counted: syslog, kernel threads.\n{}",
            self.bytes,
            self.messages,
            if filesystem == "tmpfs" { "WARNING: on tmpfs nothing is durable; choose a disk with --directory.\n" } else { "" }
        )
    }

    fn measure(&self, peer: Peer) -> Result<Run> {
        let warmup = (self.messages / 10).clamp(200, 1_000);
        let latency = (LATENCY_RATE * 10.0) as u64;
        let ledgers = [warmup, self.messages, latency].map(|messages| Arc::new(Ledger::new(messages)));
        let [warmup, full, slow] = &ledgers;
        let script = Script::accepts_all();
        // One listener for the whole run; the ledger behind it changes between its phases.
        let provider = Provider::for_load(script, Some(warmup.clone()));
        let sink = Sink::start(SocketAddr::from(([127, 0, 0, 1], 0)), provider.clone(), None)?;
        let zone = dns::Zone::new();
        for domain in domains() {
            zone.mail_domain(&domain, "mx.big.test", sink.address().ip());
        }
        let dns = dns::Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), zone)?;
        let started = self.start(peer, &sink, &dns)?;
        let (pid, address) = started.place();

        self.submit(address, warmup, None)?;
        provider.set_ledger(full.clone());
        // What the warm-up left behind is cleaned up before the count begins.
        std::thread::sleep(CLEANUP);
        let before = (cpu::tree(pid).0, cpu::process(std::process::id()));
        self.submit(address, full, None)?;
        std::thread::sleep(CLEANUP);
        let after = (cpu::tree(pid).0, cpu::process(std::process::id()));
        provider.set_ledger(slow.clone());
        self.submit(address, slow, Some(LATENCY_RATE))?;

        if let Peer::Tradewind(_, signatures) = peer {
            let sample = provider.sample().context("the sink kept no sample")?;
            let found = memchr::memmem::find_iter(&sample.octets, b"DKIM-Signature:").count();
            ensure!(found == signatures.count(), "{found} signatures on a message instead of {}", signatures.count());
        }
        let violations = provider.violations();
        ensure!(violations.is_empty(), "breaches of RFC 5321: {violations:?}");
        started.stop()?;
        let latency = slow.delivery_latency();
        let thousands = self.messages as f64 / 1_000.0;
        Ok(Run {
            cpu_secs_per_1000: (after.0 - before.0).as_secs_f64() / thousands,
            own_cpu_secs_per_1000: (after.1 - before.1).as_secs_f64() / thousands,
            messages_per_sec: self.messages as f64 / full.span().as_secs_f64(),
            p50_ms: latency.value_at_quantile(0.5) as f64 / 1_000.0,
            p99_ms: latency.value_at_quantile(0.99) as f64 / 1_000.0,
        })
    }

    fn start(&self, peer: Peer, sink: &Sink, dns: &dns::Server) -> Result<Started> {
        Ok(match peer {
            Peer::Postfix => {
                let role = Role::Relay { next_hop: sink.address() };
                Started::Postfix(Postfix::start(self.directory.path(), process::free_address()?, &role)?)
            }
            Peer::Tradewind(io, signatures) => {
                let setup = Setup {
                    io,
                    signatures,
                    nameserver: dns.address(),
                    egress_port: sink.address().port(),
                    members: &[(MEMBER_DID, MEMBER_DOMAIN)],
                    more: "",
                };
                let directory = tempfile::Builder::new().prefix("tradewind-").tempdir_in(self.directory.path())?;
                let daemon = Daemon::start(directory.path(), &setup, &self.certificate)?;
                Started::Tradewind(Box::new(daemon), directory)
            }
        })
    }

    /// Submits a ledger's messages and waits until they have all arrived, once.
    fn submit(&self, address: SocketAddr, ledger: &Arc<Ledger>, rate: Option<f64>) -> Result<()> {
        let load = Load {
            target: Target::plain(address),
            connections: if rate.is_some() { 10 } else { CONNECTIONS },
            keep_alive: self.keep_alive,
            message_bytes: self.bytes,
            from: format!("noreply@{MEMBER_DOMAIN}"),
            domains: domains(),
            rate,
            persistent: false,
        };
        let report = source::run(&load, ledger, &AtomicBool::new(false))?;
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
}

enum Started {
    Postfix(Postfix),
    Tradewind(Box<Daemon>, tempfile::TempDir),
}

impl Started {
    fn place(&self) -> (u32, SocketAddr) {
        match self {
            Self::Postfix(postfix) => (postfix.pid(), postfix.address()),
            Self::Tradewind(daemon, _) => (daemon.pid(), daemon.relay),
        }
    }

    fn stop(self) -> Result<()> {
        match self {
            Self::Postfix(postfix) => drop(postfix),
            Self::Tradewind(daemon, directory) => {
                daemon.stop()?;
                directory.close()?;
            }
        }
        Ok(())
    }
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

fn table(peers: &[Peer], results: &[Vec<Run>]) -> String {
    let median = |runs: &[Run], of: fn(&Run) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let postfix = peers
        .iter()
        .position(|peer| *peer == Peer::Postfix)
        .and_then(|index| median(&results[index], |run| run.cpu_secs_per_1000));
    let mut out = format!(
        "\n{:34} {:>10} {:>15} {:>11} {:>11} {:>9} {:>9} {:>10}\n",
        "peer", "CPU-s/1000", "min–max", "vs postfix", "messages/s", "p50 ms", "p99 ms", "gen+sink"
    );
    for (peer, runs) in peers.iter().zip(results) {
        let Some(cpu) = median(runs, |run| run.cpu_secs_per_1000) else {
            let _ = writeln!(out, "{:34} no result", peer.name());
            continue;
        };
        let of = |of| median(runs, of).unwrap_or(f64::NAN);
        let min = runs.iter().map(|run| run.cpu_secs_per_1000).fold(f64::INFINITY, f64::min);
        let max = runs.iter().map(|run| run.cpu_secs_per_1000).fold(0.0, f64::max);
        let ratio = postfix.map_or("–".to_owned(), |postfix| format!("{:.1} ×", postfix / cpu));
        let _ = writeln!(
            out,
            "{:34} {cpu:>10.3} {:>15} {ratio:>11} {:>11.0} {:>9.2} {:>9.2} {:>10.3}",
            peer.name(),
            format!("{min:.3}–{max:.3}"),
            of(|run| run.messages_per_sec),
            of(|run| run.p50_ms),
            of(|run| run.p99_ms),
            of(|run| run.own_cpu_secs_per_1000),
        );
    }
    out.push_str("vs postfix: how many times less CPU a message costs than Postfix's. p50, p99: from the beginning of a ");
    out.push_str("submission to its arrival at the sink, at 20 messages/s.\n");
    out
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
