//! `labeler speed`: beside @skyware/labeler, with the same data, in one run.
//!
//! | measured | how |
//! |---|---|
//! | issuing | labels a second that are on the disk: ours with the findings that they follow from, in the batches that its rounds settle, and issued again in the batches of its upkeep; theirs one by one (they have no other way) |
//! | queries | exact-DID `queryLabels` over all labels, connections kept, as fast as it goes: requests per CPU second of the server, p99 |
//! | subscribers | so many at once from `cursor=0` to the last label: memory of ours |
//! | poll | our MTA's own poll of all members, when it knows nothing yet and after a restart; pages of `*` |
//!
//! Every server, and issuing, has one core and the client another, where there are two; requests are counted by the CPU time
//! of the server alone.
//!
//! What is unlike: theirs has no index on `uri`, and reads all labels for each query; `queried, skyware+index` is theirs with
//! one that we made. Their labels have no `exp`. Both commit to the disk before they answer (what theirs is set to is
//! printed), ours so many at a time as a round does.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use ::labeler::judge::{Judgement, Verdict};
use ::labeler::store::{Found, Lane, Patience, Store, Terms, Touch};
use anyhow::{Context, Result, bail, ensure};
use atproto::Did;
use atproto::key::SigningKey;
use atproto::label::read_query_labels;
use hdrhistogram::Histogram;
use serde::Deserialize;

use super::client::{Connection, subscribe, wait_until_open};
use super::poll::poll;
use super::{Peers, settings};
use crate::process::{self, Running};
use crate::{cpu, ledger};

pub(super) const DID: &str = "did:web:labeler.example.test";
const SECRET: [u8; 32] = [0x11; 32];
/// What the labeler's rounds look at at the same time unless told otherwise, and so settle together.
const BATCH: usize = 96;
/// Of the servers, and of the clients.
const CORES: [&str; 2] = ["0", "1"];
/// The bars.
const TIMES_MIN: f64 = 20.0;
const QUERY_P99_MAX: Duration = Duration::from_millis(2);
const SUBSCRIBERS_RSS_MIB_MAX: u64 = 256;
const POLL_MAX: Duration = Duration::from_secs(2);

/// How much.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Members, each with one label.
    #[arg(long, default_value_t = 100_000)]
    members: usize,
    /// Subscribers at once.
    #[arg(long, default_value_t = 1_000)]
    subscribers: usize,
    /// Connections that query.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Seconds of queries, each.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Labels that skyware issues by itself; the rest of them it finds there, so that nobody waits for minutes.
    #[arg(long, default_value_t = 10_000)]
    issued: usize,
    /// Without @skyware/labeler: only ours.
    #[arg(long)]
    alone: bool,
}

#[derive(Clone, Copy, Deserialize)]
pub(super) struct Issued {
    seconds: f64,
    cpu_seconds: f64,
}

/// What theirs says of itself.
#[derive(Deserialize)]
struct Theirs {
    #[serde(flatten)]
    issued: Issued,
    journal_mode: String,
    synchronous: u32,
}

struct Queried {
    per_cpu_second: f64,
    per_second: f64,
    p99: Duration,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    raise_descriptor_limit(2 * arguments.subscribers + 200)?;
    let peers = (!arguments.alone).then(Peers::install).transpose()?;
    let temporary = tempfile::Builder::new().prefix("tradewind-labeler-").tempdir()?;
    let at = temporary.path();
    let count = arguments.members;
    println!(
        "{count} members with a label each; {}",
        if cfg!(debug_assertions) { "DEBUG BUILD: no bar applies" } else { "release" }
    );

    let two = std::thread::available_parallelism().is_ok_and(|cores| cores.get() >= CORES.len());
    let [servers, clients] = CORES.map(|core| two.then_some(core));
    stand_on(servers)?;
    let ours = issue(&at.join("data"), count)?;
    let ours_again = issue_again(&at.join("again"), count)?;
    stand_on(clients)?;
    let mut labeler = start(at, servers)?;
    let (mut ours_server, address) = (labeler.0.pid(), labeler.1);
    let mut bars = Bars::default();
    show_issued("issued, ours", count, ours);
    show_issued("issued again, ours", count, ours_again);
    let queried = query(address, ours_server, arguments)?;
    show("queried, ours", &queried);
    bars.at_most("p99 of a query, ms", queried.p99.as_secs_f64() * 1e3, QUERY_P99_MAX.as_secs_f64() * 1e3);
    if let Some(peers) = &peers {
        let issued = arguments.issued.min(count);
        let (server, address, theirs) = start_skyware(peers, servers, at, [issued, count])?;
        show_issued("issued, skyware", issued, theirs.issued);
        line("", &format!("journal_mode = {}, synchronous = {}", theirs.journal_mode, theirs.synchronous));
        let times = |ours: f64, theirs: f64| rate(count, ours) / rate(issued, theirs);
        bars.at_least("times skyware, with findings, labels/s", times(ours.seconds, theirs.issued.seconds), TIMES_MIN);
        bars.at_least("times skyware, again, labels/s", times(ours_again.seconds, theirs.issued.seconds), TIMES_MIN);
        let per_cpu_second = times(ours.cpu_seconds, theirs.issued.cpu_seconds);
        line("", &format!("with findings, times skyware per CPU second: {per_cpu_second:.1}"));
        let their_queries = query(address, server.pid(), arguments)?;
        show("queried, skyware", &their_queries);
        bars.at_least("times skyware, requests per CPU second", queried.per_cpu_second / their_queries.per_cpu_second, TIMES_MIN);
        drop(server);
        let (server, address, _) = start_skyware(peers, servers, at, [0, 0])?;
        let their_queries = query(address, server.pid(), arguments)?;
        show("queried, skyware+index", &their_queries);
        line("", &format!("times that: {:.1}", queried.per_cpu_second / their_queries.per_cpu_second));
    }

    polls(at, address, count, &mut bars)?;
    // A server that has done nothing else: its peak is of the streams.
    labeler.0.stop(Duration::from_secs(10))?;
    labeler = start(at, servers)?;
    (ours_server, _) = (labeler.0.pid(), labeler.1);
    let began = Instant::now();
    let octets = replay(labeler.1, arguments.subscribers, count)?;
    let seconds = began.elapsed().as_secs_f64();
    let peak = cpu::status_kib(ours_server, "VmHWM").context("the labeler is gone")? / 1024;
    let frames = arguments.subscribers * count;
    line(
        "replayed",
        &format!(
            "{} subscribers, {frames} frames, {} MB in {seconds:.1} s, {:.1} CPU seconds",
            arguments.subscribers,
            octets / 1_000_000,
            cpu::process(ours_server).as_secs_f64()
        ),
    );
    bars.at_most("peak RSS with subscribers, MiB", peak as f64, SUBSCRIBERS_RSS_MIB_MAX as f64);
    bars.end()
}

/// Labels for everybody, as the daemon's rounds issue them. Seeing the attestations is not counted.
pub(super) fn issue(data: &Path, count: usize) -> Result<Issued> {
    let (store, key, now) = seen(data, count)?;
    let judgement = Judgement { verdict: Verdict::Pass, checks: Vec::new() };
    let found = Found::Judged { judgement, relay: false, rev: None };
    let patience = Patience {
        interval: Duration::from_secs(86_400),
        failures: 1,
        failing_for: Duration::ZERO,
        silent_for: Duration::from_secs(7 * 86_400),
    };
    let issued = timed(|| {
        loop {
            let due = store.due(Lane::Fresh, now, &Default::default(), BATCH, false)?;
            if due.is_empty() {
                return Ok(());
            }
            store.settle_all(due.iter().map(|task| (task, &found)), patience, now, &key)?;
        }
    })?;
    ensure!(store.last_seq()? == count as u64, "{} labels were issued, not {count}", store.last_seq()?);
    // The key as the daemon finds it.
    std::fs::write(data.with_file_name("labeler.key"), format!("{}\n", data_encoding::HEXLOWER.encode(&SECRET)))?;
    Ok(issued)
}

/// The same labels again, as the daemon's upkeep issues them before they run out. Issuing them the first time is not counted.
fn issue_again(data: &Path, count: usize) -> Result<Issued> {
    issue(data, count)?;
    let key = SigningKey::from_octets(&SECRET)?;
    let store = Store::open(data, &DID.parse().map_err(anyhow::Error::msg)?, &key, Terms::default(), SystemTime::now())?;
    let later = SystemTime::now() + Terms::default().expires_after;
    let again = timed(|| {
        while store.upkeep(later, &key)?.more {}
        Ok(())
    })?;
    ensure!(store.last_seq()? == 2 * count as u64, "{} labels were issued, not {count} twice", store.last_seq()?);
    Ok(again)
}

/// A store that has seen everybody's attestation.
fn seen(data: &Path, count: usize) -> Result<(Store, SigningKey, SystemTime)> {
    let key = SigningKey::from_octets(&SECRET)?;
    let issuer: Did = DID.parse().map_err(anyhow::Error::msg)?;
    let now = SystemTime::now();
    let store = Store::open(data, &issuer, &key, Terms::default(), now)?;
    for chunk in (0..count).collect::<Vec<_>>().chunks(1000) {
        let touched =
            chunk.iter().map(|n| Ok(Touch::Record(member(*n)?, "member.example".into()))).collect::<Result<Vec<_>>>()?;
        store.touch(&touched, None, now)?;
    }
    Ok((store, key, now))
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Issued> {
    let (began, cpu_before) = (Instant::now(), cpu::process(std::process::id()));
    work()?;
    let used = cpu::process(std::process::id()) - cpu_before;
    Ok(Issued { seconds: began.elapsed().as_secs_f64(), cpu_seconds: used.as_secs_f64() })
}

fn member(n: usize) -> Result<Did> {
    name(n).parse().map_err(anyhow::Error::msg)
}

fn name(n: usize) -> String {
    format!("did:plc:{:a>24}", n)
}

fn start(at: &Path, core: Option<&str>) -> Result<(Running, SocketAddr)> {
    let address = process::free_address()?;
    let more = "[serve]\nrequests_per_minute = 100000000\nsubscriptions_per_address = 100000\nsubscribers_max = 100000\n\
                [verify]\ninterval = \"240h\"\n";
    let config = at.join("labeler.toml");
    std::fs::write(&config, settings(at, DID, &address.to_string(), "http://127.0.0.1:9", more))?;
    let mut command = on(core, process::own("tradewind-labeler")?);
    command.arg("--config").arg(&config).env("RUST_LOG", "error");
    let log = at.join("labeler.log");
    let from = std::fs::metadata(&log).map_or(0, |file| file.len());
    let mut running = Running::start("tradewind-labeler", command, &log)?;
    running.wait_for_line("ready", from, Duration::from_secs(60))?;
    Ok((running, address))
}

/// Theirs with so many labels that it issues, and so many in the end; with none more it goes on with those that there are, and an
/// index.
fn start_skyware(
    peers: &Peers,
    core: Option<&str>,
    at: &Path,
    [issued, count]: [usize; 2],
) -> Result<(Running, SocketAddr, Theirs)> {
    let address = process::free_address()?;
    let mut command = on(core, peers.program());
    command.current_dir(peers.folder()).arg(peers.folder().join("skyware.mjs")).arg(at.join("skyware.db"));
    command.arg(address.port().to_string()).args([issued, count].map(|labels| labels.to_string()));
    let log = at.join(format!("skyware-{count}.log"));
    let mut running = Running::start("skyware", command, &log)?;
    running.wait_for_line("ready", 0, Duration::from_secs(60 + count as u64 / 50))?;
    wait_until_open(address)?;
    let said = std::fs::read_to_string(&log)?;
    let issued = said.lines().find_map(|line| serde_json::from_str(line).ok()).context("skyware did not say what it took")?;
    Ok((running, address, issued))
}

/// Exact DIDs in no order, as fast as the server answers.
fn query(address: SocketAddr, server: u32, arguments: &Arguments) -> Result<Queried> {
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let (began, cpu_before) = (Instant::now(), cpu::tree(server).0);
    let mut latencies = ledger::new_histogram();
    let parts: Vec<Result<Histogram<u64>>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..arguments.connections).map(|n| scope.spawn(move || asker(address, n, arguments.members, end))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("an asker panicked"))).collect()
    });
    for part in parts {
        latencies.add(part?)?;
    }
    let used = (cpu::tree(server).0 - cpu_before).as_secs_f64().max(0.01);
    Ok(Queried {
        per_cpu_second: latencies.len() as f64 / used,
        per_second: latencies.len() as f64 / began.elapsed().as_secs_f64(),
        p99: Duration::from_micros(latencies.value_at_quantile(0.99)),
    })
}

fn asker(address: SocketAddr, first: usize, members: usize, end: Instant) -> Result<Histogram<u64>> {
    let mut connection = Connection::open(address)?;
    let (mut latencies, mut body) = (ledger::new_histogram(), Vec::new());
    // A step that is coprime to nearly every count visits everybody, and nobody's neighbour next.
    let mut n = first * 7919;
    loop {
        let did = name(n % members);
        let began = Instant::now();
        connection.get(&format!("/xrpc/com.atproto.label.queryLabels?uriPatterns={did}"), &mut body)?;
        let took = began.elapsed();
        latencies.saturating_record(u64::try_from(took.as_micros())?);
        if latencies.len() % 64 == 1 {
            let page = read_query_labels(&body)?;
            ensure!(
                page.labels.len() == 1 && page.labels[0].uri == did,
                "the answer about {did} is {}",
                String::from_utf8_lossy(&body)
            );
        }
        if began > end {
            return Ok(latencies);
        }
        n += 104_729;
    }
}

/// All labels of all members, as an MTA asks, and page by page.
fn polls(at: &Path, address: SocketAddr, count: usize, bars: &mut Bars) -> Result<()> {
    let folder = at.join("mta");
    std::fs::create_dir_all(&folder)?;
    let members: Vec<_> = (0..count).map(name).collect();
    for (what, bar) in
        [("polled, knowing none", "an MTA's first poll of everybody, s"), ("polled, restarted", "an MTA's poll, s")]
    {
        let polled = poll(&folder, address, &members)?;
        line(what, &format!("{:9.2} s  {:9.2} CPU seconds of the MTA", polled.seconds, polled.cpu_seconds));
        bars.at_most(bar, polled.seconds, POLL_MAX.as_secs_f64());
    }
    let mut connection = Connection::open(address)?;
    let (mut body, began, mut seen, mut cursor) = (Vec::new(), Instant::now(), 0, String::new());
    loop {
        connection.get(&format!("/xrpc/com.atproto.label.queryLabels?uriPatterns=*&limit=250{cursor}"), &mut body)?;
        seen += memchr::memmem::find_iter(&body, b"\"sig\"").count();
        let tail = String::from_utf8_lossy(&body[body.len().saturating_sub(200)..]).into_owned();
        match tail.rsplit_once("\"cursor\":\"") {
            Some((_, next)) => cursor = format!("&cursor={}", next.trim_end_matches("\"}").replace(' ', "+").replace(':', "%3A")),
            None => break,
        }
    }
    ensure!(seen == count, "the pages held {seen} labels, not {count}");
    line("paged", &format!("{:9.2} s, 250 labels a page", began.elapsed().as_secs_f64()));
    Ok(())
}

/// This process goes to a core of its own, if there are two.
fn stand_on(core: Option<&str>) -> Result<()> {
    let Some(core) = core else { return Ok(()) };
    process::output(Command::new("taskset").args(["-acp", core, &std::process::id().to_string()])).map(drop)
}

/// A program on that core.
fn on(core: Option<&str>, program: impl AsRef<OsStr>) -> Command {
    let Some(core) = core else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program);
    command
}

fn replay(address: SocketAddr, subscribers: usize, frames: usize) -> Result<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // A task each: within one, some would be read so rarely that the labeler lets them go.
        let (mut streams, mut octets) = (tokio::task::JoinSet::new(), 0);
        for _ in 0..subscribers {
            streams.spawn(subscribe(address, "/xrpc/com.atproto.label.subscribeLabels?cursor=0", frames));
        }
        while let Some(stream) = streams.join_next().await {
            octets += stream??;
        }
        Ok(octets)
    })
}

fn raise_descriptor_limit(wanted: usize) -> Result<()> {
    let (own, limit) = (std::process::id().to_string(), format!("--nofile={wanted}:"));
    match process::output(Command::new("prlimit").args(["--pid", &own, &limit])) {
        Ok(_) => Ok(()),
        Err(error) => bail!("{wanted} descriptors are needed: {error}"),
    }
}

fn rate(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds.max(1e-6)
}

pub(super) fn line(what: &str, said: &str) {
    println!("{what:20} {said}");
}

fn show_issued(what: &str, count: usize, issued: Issued) {
    let (per_second, per_cpu_second) = (rate(count, issued.seconds), rate(count, issued.cpu_seconds));
    line(what, &format!("{per_second:9.0} labels/s   {per_cpu_second:9.0} per CPU second"));
}

fn show(what: &str, queried: &Queried) {
    let p99 = queried.p99.as_secs_f64() * 1e3;
    line(what, &format!("{:9.0} requests/s {:9.0} per CPU second  p99 {p99:.2} ms", queried.per_second, queried.per_cpu_second));
}

/// What was promised, and whether it was kept.
#[derive(Default)]
pub(super) struct Bars {
    broken: usize,
}

impl Bars {
    fn at_least(&mut self, what: &str, found: f64, least: f64) {
        self.say(what, found, "at least", least, found >= least);
    }

    pub(super) fn at_most(&mut self, what: &str, found: f64, most: f64) {
        self.say(what, found, "at most", most, found <= most);
    }

    fn say(&mut self, what: &str, found: f64, how: &str, bar: f64, kept: bool) {
        self.broken += usize::from(!kept);
        println!("{:4} {what}: {found:.2}, {how} {bar}", if kept { "ok" } else { "MISS" });
    }

    pub(super) fn end(self) -> Result<()> {
        if self.broken > 0 && !cfg!(debug_assertions) {
            bail!("{} of what is asked for was missed", self.broken);
        }
        Ok(())
    }
}
