//! `backlog`: a queue with a great many deferred messages, and the daemon that starts on it.
//!
//! The queue's directory is filled through `mta::queue` itself: every message was enqueued, tried once, and deferred for
//! hours. One site's messages come due soon after the start: a large provider that is back. Then the real `tradewind-mta` is
//! started on the directory, and measured are
//!
//! - the time from `exec` to `ready`, and to the first `250` for a new message, with the files in the page cache and without;
//! - memory: `RssAnon` is the daemon's own; `RssFile` is what it has touched of its program and of LMDB's map, which is page
//!   cache and leaves when somebody else needs the memory;
//! - how long an operator waits for an answer, over the admin socket, and with the command's own start;
//! - how fast, and at what cost, the one site's messages leave.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use mta::queue::{Filter, Options};
use scheduler::QueueId;

use crate::churn::disk_bytes;
use crate::daemon::{Daemon, MEMBER_DOMAIN, Setup};
use crate::ledger::Ledger;
use crate::outside::Outside;
use crate::sink::{Provider, Script};
use crate::source::{Client, Target};
use crate::store::{Bodies, Sizes, Store, deferred, message};
use crate::tls::Certificate;
use crate::{cpu, dns, process};

/// The site that comes back.
const BIG: &str = "big.test";
/// A site whose mail an operator holds and releases, and one whose mail is cancelled.
const SMALL: &str = "d0.test";
const UNWANTED: &str = "d1.test";
/// Messages that wait for the writer at once while the queue is filled: what its channel holds.
const TOGETHER: usize = 1024;
/// The big site's messages are due so long after the queue was filled; until then everything else is measured.
const COMES_BACK: Duration = Duration::from_secs(60);
/// A delivery that is due later than this is not tried while we measure.
const DEFERRED: Duration = Duration::from_secs(6 * 3600);
/// Times that each question is asked.
const QUESTIONS: usize = 50;
/// Nothing arrived for so long: the site is drained, or it never will be.
const QUIET: Duration = Duration::from_secs(20);
/// Enough for all that ever happened to these messages: two for each.
const EVENTS: &str = "[events]\nkeep = \"20000000\"\n";

/// How large a backlog.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Messages in the queue; give it again for another row. Default: 10,000, 100,000 and 1,000,000.
    #[arg(long)]
    messages: Vec<u64>,
    /// A row of 5,000,000 as well, with bodies of 1 KiB at most: they would fill 40 GB otherwise.
    #[arg(long)]
    large: bool,
    /// Recipient domains, each a site of its own; at most half as many as messages.
    #[arg(long, default_value_t = 50_000)]
    sites: usize,
    /// Median size of a body.
    #[arg(long, default_value_t = 8192)]
    bytes: usize,
    /// Messages for the one site that comes back; at most a tenth of all.
    #[arg(long, default_value_t = 20_000)]
    come_back: u64,
    /// `uring`, `epoll` or `auto`.
    #[arg(long, default_value = "auto")]
    io: String,
    /// Where the queue is made. Default: the system's temporary directory.
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// One row of the table.
struct Row {
    messages: u64,
    sites: usize,
    bytes: usize,
    filled_per_sec: f64,
    database_mib: u64,
    segments_mib: u64,
    warm: Start,
    cold: Start,
    memory: [(&'static str, Memory); 3],
    questions: Vec<(String, Duration, Duration)>,
    drained: u64,
    drained_per_sec: f64,
    drain_cpu_secs_per_1000: f64,
}

/// From `exec` to …
#[derive(Clone, Copy)]
struct Start {
    ready: Duration,
    accepted: Duration,
}

/// In MiB.
#[derive(Clone, Copy)]
struct Memory {
    anon: u64,
    file: u64,
    pss: u64,
}

/// Fills, starts, measures, prints.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut rows: Vec<(u64, usize)> = arguments.messages.iter().map(|messages| (*messages, arguments.bytes)).collect();
    if rows.is_empty() {
        rows = [10_000, 100_000, 1_000_000].map(|messages| (messages, arguments.bytes)).to_vec();
    }
    if arguments.large {
        rows.push((5_000_000, arguments.bytes.min(1024)));
    }
    let mut measured = Vec::new();
    for (messages, bytes) in rows {
        let row = measure(arguments, messages, bytes).with_context(|| format!("with {messages} messages"))?;
        println!("{}", row.describe());
        measured.push(row);
    }
    print_table(&measured);
    Ok(())
}

fn measure(arguments: &Arguments, messages: u64, bytes: usize) -> Result<Row> {
    let place = arguments.directory.clone().unwrap_or_else(std::env::temp_dir);
    // Mean of the log-normal, the rows, and as much again for what is not yet packed.
    let need = messages * (bytes as u64 * 13 / 10 + 1200);
    let free = host::disk::free_bytes(&place)?;
    ensure!(need + (1 << 30) < free, "{} MiB are needed in {}, {} are free", need >> 20, place.display(), free >> 20);
    let directory = tempfile::Builder::new().prefix("tradewind-backlog-").tempdir_in(place)?;

    let ledger = Arc::new(Ledger::new(messages + 1));
    let provider = Provider::for_load(Script::accepts_all(), Some(ledger.clone()));
    let outside = Outside::start(provider, &[BIG])?;
    outside.zone.fail("new.test", None, dns::Failure::ServFail);
    // What an operator releases there is due, and stays.
    outside.zone.fail(SMALL, None, dns::Failure::ServFail);
    let setup = Setup { more: EVENTS, ..outside.setup(&arguments.io) };
    // Enrols the member whose mail this is.
    let mut daemon = Daemon::start(directory.path(), &setup, &Certificate::generate(&["relay.test"])?)?;
    daemon.kill()?;

    let sites = arguments.sites.min(usize::try_from(messages / 2)?).max(1);
    let come_back = arguments.come_back.min(messages / 10).max(1);
    let queue = directory.path().join("data/queue");
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let filling = Filling { messages, sites, come_back };
    let filled = runtime.block_on(fill(&queue, filling, Bodies::new(Sizes::around(bytes), messages)))?;
    let filled_per_sec = messages as f64 / began.elapsed().as_secs_f64();
    drop(runtime);

    // Without the page cache first: what comes back soon is not due yet.
    forget_pages(&queue)?;
    let cold = start(&mut daemon)?;
    daemon.kill()?;
    let warm = start(&mut daemon)?;
    let started = Memory::of(daemon.pid())?;
    let mut questions = ask(&daemon, directory.path(), &filled)?;
    let asked = Memory::of(daemon.pid())?;

    wait_until(filled.due);
    let (began, used) = (ledger.arrivals(), cpu::process(daemon.pid()));
    ensure!(began == 0, "{began} messages arrived before they were due");
    let drained = drain(&ledger, come_back)?;
    let used = cpu::process(daemon.pid()).saturating_sub(used);
    let after = Memory::of(daemon.pid())?;
    // Last, because nothing is released again: that would make it due.
    questions.push(hold_member(directory.path())?);
    ensure!(ledger.duplicates() == 0, "{} messages arrived twice", ledger.duplicates());
    ensure!(drained.arrived == come_back, "{} of {come_back} arrived\n{}", drained.arrived, daemon.last_lines());
    daemon.stop()?;
    Ok(Row {
        messages,
        sites,
        bytes,
        filled_per_sec,
        database_mib: disk_bytes(&queue.join("lmdb"))? >> 20,
        segments_mib: disk_bytes(&queue.join("segments"))? >> 20,
        warm,
        cold,
        memory: [("started", started), ("asked", asked), ("drained", after)],
        questions,
        drained: drained.arrived,
        drained_per_sec: drained.arrived as f64 / drained.took.as_secs_f64(),
        drain_cpu_secs_per_1000: used.as_secs_f64() * 1000.0 / drained.arrived.max(1) as f64,
    })
}

#[derive(Clone, Copy)]
pub(crate) struct Filling {
    pub(crate) messages: u64,
    pub(crate) sites: usize,
    pub(crate) come_back: u64,
}

pub(crate) struct Filled {
    /// One that an operator might ask about.
    a_message: QueueId,
    /// What an operator cancels.
    unwanted: Vec<QueueId>,
    /// When the big site is due.
    due: SystemTime,
}

/// Numbers from 0 are for the big site, so that the ledger need not know which they are.
pub(crate) async fn fill(queue: &Path, filling: Filling, mut bodies: Bodies) -> Result<Filled> {
    let Filling { messages, sites, come_back } = filling;
    let store = Store::open(queue, Options { events_max: 20_000_000, ..Options::default() })?;
    let now = SystemTime::now();
    let mut number = come_back;
    let mut settlements = Vec::new();
    while number < messages {
        let domains: Vec<String> = (0..TOGETHER).map(|_| format!("d{}.test", bodies.dice.below(sites))).collect();
        let mut batch = Vec::with_capacity(TOGETHER);
        for domain in domains.iter().take(usize::try_from(messages - number)?) {
            batch.push(message(&mut bodies, number, domain, now)?);
            number += 1;
        }
        // The last batch is deferred while this one is queued.
        let (ids, settled) = tokio::join!(store.enqueue_all(batch), store.queue.settle(std::mem::take(&mut settlements)));
        settled?;
        for (id, domain) in ids?.into_iter().zip(&domains) {
            let wait = DEFERRED + Duration::from_secs(bodies.dice.below(3600) as u64);
            settlements.push(deferred(id, domain, now + wait));
        }
    }
    store.queue.settle(settlements).await?;
    let small = Filter { domain: Some(SMALL.to_owned()), ..Filter::default() };
    let page = store.reader.list(&small, None, TOGETHER)?;
    let a_message = page.entries.last().context("nothing was queued")?.id;
    let unwanted = Filter { domain: Some(UNWANTED.to_owned()), ..Filter::default() };
    let unwanted = store.reader.list(&unwanted, None, QUESTIONS)?.entries.iter().map(|entry| entry.id).collect();

    let mut ids = Vec::new();
    for from in (0..come_back).step_by(TOGETHER) {
        let numbers = from..come_back.min(from + TOGETHER as u64);
        let batch = numbers.map(|number| message(&mut bodies, number, BIG, now)).collect::<Result<_>>()?;
        ids.extend(store.enqueue_all(batch).await?);
    }
    let due = SystemTime::now() + COMES_BACK;
    for ids in ids.chunks(TOGETHER) {
        store.queue.settle(ids.iter().map(|id| deferred(*id, BIG, due)).collect()).await?;
    }
    let counts = store.reader.counts()?;
    ensure!(counts.messages == messages, "{} messages are queued, not {messages}", counts.messages);
    store.close().await?;
    Ok(Filled { a_message, unwanted, due })
}

/// Starts the daemon while a client already knocks.
fn start(daemon: &mut Daemon) -> Result<Start> {
    let began = Instant::now();
    let relay = daemon.relay;
    let accepted = std::thread::spawn(move || first_accepted(relay, began));
    daemon.start_again()?;
    let ready = began.elapsed();
    let accepted = accepted.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
    Ok(Start { ready, accepted })
}

fn first_accepted(relay: SocketAddr, began: Instant) -> Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let from = format!("noreply@{MEMBER_DOMAIN}");
        let octets = format!("From: {from}\r\nTo: new@new.test\r\nSubject: A test\r\n\r\nHello.\r\n");
        loop {
            match Client::connect(&Target::plain(relay)).await {
                Ok(mut client) => {
                    // No DNS server answers for this domain, so it never arrives and is not counted.
                    client.send(&from, &["new@new.test"], octets.as_bytes()).await?;
                    return Ok(began.elapsed());
                }
                Err(_) if began.elapsed() < Duration::from_secs(60) => tokio::time::sleep(Duration::from_millis(2)).await,
                Err(error) => return Err(error.into()),
            }
        }
    })
}

/// Takes the files below `folder` out of the page cache: the next look reads the disk.
fn forget_pages(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            forget_pages(&path)?;
        } else {
            let mut dd = Command::new("dd");
            process::output(dd.arg(format!("if={}", path.display())).args(["iflag=nocache", "count=0", "status=none"]))?;
        }
    }
    Ok(())
}

impl Memory {
    fn of(pid: u32) -> Result<Self> {
        let mib = |field| Some(cpu::status_kib(pid, field)? / 1024);
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.split_ascii_whitespace().next()?.parse::<u64>().ok());
        match (mib("RssAnon"), mib("RssFile"), pss) {
            (Some(anon), Some(file), Some(pss)) => Ok(Self { anon, file, pss: pss / 1024 }),
            _ => bail!("the daemon's memory cannot be read"),
        }
    }
}

/// Asks what operators ask: (question, median, longest).
fn ask(daemon: &Daemon, directory: &Path, filled: &Filled) -> Result<Vec<(String, Duration, Duration)>> {
    let socket = directory.join("data/admin.sock");
    let id = filled.a_message;
    let mut answers = Vec::new();
    for (name, path) in [
        ("list", "/v1/queue?limit=100".to_owned()),
        ("list --site", format!("/v1/queue?site={BIG}&limit=100")),
        ("list --member", format!("/v1/queue?member={MEMBER_DOMAIN}&limit=100")),
        ("show", format!("/v1/queue/{id}")),
        ("list --held", "/v1/queue?held=true&limit=100".to_owned()),
        ("why", format!("/v1/why/{id}")),
        ("where", format!("/v1/where/{BIG}")),
        ("events", "/v1/events?limit=100".to_owned()),
        ("events --id", format!("/v1/events?after=0&id={id}")),
        ("events --member", format!("/v1/events?after=0&member={MEMBER_DOMAIN}&limit=100")),
        ("status", "/v1/status".to_owned()),
    ] {
        answers.push(time(name, QUESTIONS, || get(&socket, &path))?);
    }
    // In pairs, so that each round finds what it needs.
    for (name, wish) in [("ID", format!("{{\"id\":\"{id}\"}}")), ("--domain", format!("{{\"domain\":\"{SMALL}\"}}"))] {
        let (mut did, mut undid) = (Vec::new(), Vec::new());
        for _ in 0..QUESTIONS {
            did.push(once(|| post(&socket, "/v1/queue/hold", &wish).map(drop))?);
            undid.push(once(|| post(&socket, "/v1/queue/release", &wish).map(drop))?);
        }
        answers.push(summary(&format!("hold {name}"), did));
        answers.push(summary(&format!("release {name}"), undid));
    }
    let small = format!("{{\"site\":\"{SMALL}\"}}");
    answers.push(time("flush --site", QUESTIONS, || post(&socket, "/v1/queue/flush", &small).map(drop))?);
    let mut cancelled = Vec::new();
    for id in &filled.unwanted {
        cancelled.push(once(|| post(&socket, "/v1/queue/cancel", &format!("{{\"id\":\"{id}\"}}")).map(drop))?);
    }
    if !cancelled.is_empty() {
        answers.push(summary("cancel ID", cancelled));
    }
    let id = id.to_string();
    answers.push(time("tradewind queue show", 5, || daemon.tradewind(&["queue", "show", &id]).map(drop))?);
    Ok(answers)
}

fn time(name: &str, times: usize, mut question: impl FnMut() -> Result<()>) -> Result<(String, Duration, Duration)> {
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        took.push(once(&mut question).with_context(|| name.to_owned())?);
    }
    Ok(summary(name, took))
}

fn once(mut question: impl FnMut() -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    question()?;
    Ok(began.elapsed())
}

fn summary(name: &str, mut took: Vec<Duration>) -> (String, Duration, Duration) {
    took.sort_unstable();
    (name.to_owned(), took[took.len() / 2], took[took.len() - 1])
}

/// The first parts of holding all that a member has: a request works for a while and says where to go on.
fn hold_member(directory: &Path) -> Result<(String, Duration, Duration)> {
    let socket = directory.join("data/admin.sock");
    let mut took = Vec::new();
    let mut after = String::new();
    for _ in 0..QUESTIONS {
        let wish = format!("{{\"member\":\"{MEMBER_DOMAIN}\"{after}}}");
        let began = Instant::now();
        let answer = post(&socket, "/v1/queue/hold", &wish)?;
        took.push(began.elapsed());
        let done: serde_json::Value = serde_json::from_str(&answer).context("the answer is not JSON")?;
        match done["next"].as_str() {
            Some(next) => after = format!(",\"after\":\"{next}\""),
            None => break,
        }
    }
    Ok(summary("hold --member, a part", took))
}

fn post(socket: &Path, path: &str, body: &str) -> Result<String> {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\nContent-Type: application/json\r\n");
    exchange(socket, &format!("{head}Content-Length: {length}\r\n\r\n{body}"))
}

fn get(socket: &Path, path: &str) -> Result<()> {
    exchange(socket, &format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")).map(drop)
}

/// The body of a good answer.
fn exchange(socket: &Path, request: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..answer.len().min(300)]));
    let text = String::from_utf8_lossy(&answer);
    Ok(text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

fn wait_until(at: SystemTime) {
    std::thread::sleep(at.duration_since(SystemTime::now()).unwrap_or_default());
}

struct Drained {
    arrived: u64,
    /// From the first arrival to the last.
    took: Duration,
}

fn drain(ledger: &Ledger, expected: u64) -> Result<Drained> {
    let mut seen = 0;
    let mut first = None;
    let mut last = Instant::now();
    while seen < expected && last.elapsed() < QUIET {
        std::thread::sleep(Duration::from_millis(1));
        let arrived = ledger.arrivals();
        if arrived > seen {
            last = Instant::now();
            first.get_or_insert(last);
            seen = arrived;
        }
    }
    let first = first.context("nothing arrived from the site that came back")?;
    // The daemon writes down what it delivered; that belongs to the messages too.
    std::thread::sleep(Duration::from_millis(500));
    Ok(Drained { arrived: ledger.arrivals(), took: last.saturating_duration_since(first).max(Duration::from_millis(1)) })
}

impl Row {
    fn describe(&self) -> String {
        let mut text = format!(
            "\n{} messages over {} sites, bodies around {} octets, queued and deferred once at {:.0} messages/s\n",
            self.messages, self.sites, self.bytes, self.filled_per_sec
        );
        for (name, memory) in &self.memory {
            let Memory { anon, file, pss } = memory;
            text += &format!("  memory when {name:8} RssAnon {anon} MiB, RssFile {file} MiB, PSS {pss} MiB\n");
        }
        for (name, median, longest) in &self.questions {
            let (median, longest) = (median.as_secs_f64() * 1e3, longest.as_secs_f64() * 1e3);
            text += &format!("  {name:22} median {median:.2} ms, longest {longest:.2} ms\n");
        }
        text
    }
}

fn print_table(rows: &[Row]) {
    println!("messages   ready s  250 s  (cold: ready  250)  RssAnon  RssFile MiB  drain/s  CPU-s/1000  lmdb MiB  segments MiB");
    for row in rows {
        let secs = |duration: Duration| format!("{:.2}", duration.as_secs_f64());
        let most = |which: fn(&Memory) -> u64| row.memory.iter().map(|(_, memory)| which(memory)).max().unwrap_or(0);
        println!(
            "{:<10} {:>7} {:>6} {:>13} {:>6} {:>8} {:>12} {:>8.0} {:>11.3} {:>9} {:>13}",
            row.messages,
            secs(row.warm.ready),
            secs(row.warm.accepted),
            secs(row.cold.ready),
            secs(row.cold.accepted),
            most(|memory| memory.anon),
            most(|memory| memory.file),
            row.drained_per_sec,
            row.drain_cpu_secs_per_1000,
            row.database_mib,
            row.segments_mib,
        );
    }
    let drained: Vec<u64> = rows.iter().map(|row| row.drained).collect();
    println!("drained from one site: {drained:?} messages");
}
