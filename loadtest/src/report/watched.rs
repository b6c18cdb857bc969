//! `watched`: what it costs the mail that somebody looks: the console's live overview open, and a scrape every five seconds.
//!
//! One daemon under the workload of `report`, in pairs of rounds of the same mail: one that nobody looks at, one that is watched, first
//! the one and then the other, by turns. Within a pair little else changes, so the ratio of the two tells what noise of the machine hides
//! from figures of runs apart.
//!
//! What looks does what a browser with the page does: it reads the stream of events, and asks for the page's part again when there is
//! news, every two seconds at most.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::peers::{Peer, Started, Way};
use super::{Arguments as ReportArguments, Bench, PHASE};
use crate::daemon::{Daemon, Signatures};

/// Between two scrapes.
const SCRAPE_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at the overview (`hx-trigger="sse:news throttle:2s"`).
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How soon those who look hear that they may go home.
const TICK: Duration = Duration::from_millis(100);
/// The goal.
const RATIO_MAX: f64 = 1.03;

/// How much.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Messages of a round: enough for ten seconds and more.
    #[arg(long, default_value_t = 20_000)]
    messages: u64,
    /// Pairs of rounds.
    #[arg(long, default_value_t = 8)]
    pairs: u64,
    /// Signatures on each message: 0, 1 or 3.
    #[arg(long, default_value_t = 1)]
    signatures: usize,
    /// `uring` or `epoll`.
    #[arg(long, default_value = "uring", value_parser = ["uring", "epoll"])]
    io: String,
}

/// Measures and prints.
pub fn run(arguments: &Arguments) -> Result<()> {
    let all = [Signatures::None, Signatures::One, Signatures::Three];
    let signatures = all.into_iter().find(|signatures| signatures.count() == arguments.signatures);
    let signatures = signatures.context("signatures are 0, 1 or 3")?;
    let io = if arguments.io == "epoll" { "epoll" } else { "uring" };
    let bench = Bench::new(&ReportArguments::of_messages(arguments.messages), arguments.messages)?;
    println!("{}", bench.describe(2 * usize::try_from(arguments.pairs)?));
    let stage = bench.stage(Peer::Tradewind(io, signatures, Way::Relay))?;
    let Started::Tradewind(daemon, _) = &stage.started else { bail!("not our daemon") };
    let said = daemon.tradewind(&["token", "add", "--name", "watcher", "--role", "read", "--json"])?;
    let token = serde_json::from_str::<Token>(&said)?.token;

    let (mut ratios, mut costs) = (Vec::new(), [0.0, 0.0]);
    for pair in 0..arguments.pairs {
        let mut cost = [0.0, 0.0];
        let mut seen = Seen::default();
        for turn in [pair % 2, 1 - pair % 2] {
            let watched = turn == 1;
            let round = || bench.full_of(&stage, (2 * pair + turn + 1) * PHASE);
            let (run, _) = if watched {
                let stop = AtomicBool::new(false);
                std::thread::scope(|scope| -> Result<_> {
                    let watcher = scope.spawn(|| watch(daemon.admin, &token, &stop));
                    let scraper = scope.spawn(|| scrape(daemon, &stop));
                    let run = round();
                    stop.store(true, Relaxed);
                    seen = watcher.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))??;
                    seen.scrapes = scraper.join().map_err(|_| anyhow::anyhow!("the scraper panicked"))??;
                    run
                })?
            } else {
                round()?
            };
            cost[usize::from(watched)] = run.cpu_secs_per_1000;
        }
        ensure!(seen.looks > 0 && seen.scrapes > 0, "nobody looked: {seen:?}; give more --messages");
        let ratio = cost[1] / cost[0];
        println!(
            "pair {:2}: {:.4} unwatched, {:.4} watched CPU-s per 1000: {ratio:.3} ({} looks, {} events, {} scrapes)",
            pair + 1,
            cost[0],
            cost[1],
            seen.looks,
            seen.events,
            seen.scrapes
        );
        ratios.push(ratio);
        costs = [costs[0] + cost[0], costs[1] + cost[1]];
    }
    stage.started.stop()?;
    ratios.sort_by(f64::total_cmp);
    let at = |share: usize| ratios.get(ratios.len() * share / 4).or(ratios.last()).copied().unwrap_or(f64::NAN);
    println!(
        "watched costs {:.3} times as much: median of {} pairs (quarters {:.3} to {:.3}); all together {:.3} (goal: {RATIO_MAX})",
        at(2),
        ratios.len(),
        at(1),
        at(3),
        costs[1] / costs[0]
    );
    ensure!(at(2) <= RATIO_MAX, "looking costs too much");
    Ok(())
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

#[derive(Debug, Default)]
struct Seen {
    events: u64,
    looks: u64,
    scrapes: u64,
}

/// The page that is open.
fn watch(admin: SocketAddr, token: &str, stop: &AtomicBool) -> Result<Seen> {
    let mut seen = Seen::default();
    look(admin, token, "/")?;
    let events = ask(admin, token, "/v1/stream?news_only=true")?;
    events.set_read_timeout(Some(TICK))?;
    let (mut events, mut line) = (BufReader::new(events), String::new());
    let (mut looked, mut news) = (Instant::now(), false);
    while !stop.load(Relaxed) {
        match events.read_line(&mut line) {
            Ok(0) => bail!("the stream has ended"),
            Ok(_) => {
                if line.starts_with("event: news") {
                    seen.events += 1;
                    news = true;
                }
                line.clear();
            }
            // What was read of a line stays in it.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        if news && looked.elapsed() >= LOOK_EVERY {
            look(admin, token, "/part/overview")?;
            seen.looks += 1;
            (looked, news) = (Instant::now(), false);
        }
    }
    Ok(seen)
}

fn scrape(daemon: &Daemon, stop: &AtomicBool) -> Result<u64> {
    let mut scrapes = 0;
    loop {
        daemon.scrape()?;
        scrapes += 1;
        let began = Instant::now();
        while began.elapsed() < SCRAPE_EVERY {
            if stop.load(Relaxed) {
                return Ok(scrapes);
            }
            std::thread::sleep(TICK);
        }
    }
}

/// A page, to its end.
fn look(admin: SocketAddr, token: &str, path: &str) -> Result<()> {
    let mut answer = String::new();
    ask(admin, token, path)?.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{path}: {}", answer.lines().next().unwrap_or_default());
    Ok(())
}

fn ask(admin: SocketAddr, token: &str, path: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(admin)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n")?;
    Ok(stream)
}
