//! `idle`: a thousand idle TLS sessions and two hundred slow-loris clients, and a member who just wants to submit.
//!
//! Measured: the memory of an idle TLS session, the time from `connect` to `250` of new submissions on both ports in the
//! meantime, and when the server cuts the dribblers off. Half of the idle sessions are authenticated, half are not yet.
//! Dribblers send one octet a second and never finish: a command before TLS, a ClientHello, a command after AUTH, a message.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::daemon::{Daemon, Enrolled, MEMBER_DOMAIN, Setup, Signatures};
use crate::ledger::new_histogram;
use crate::outside::Outside;
use crate::sink::{Provider, Script};
use crate::source::{Client, Target, Tls};
use crate::tls::{Certificate, client_that_trusts_all};
use crate::{cpu, process};

/// Between two octets of a dribbler.
const DRIBBLE: Duration = Duration::from_secs(1);
/// The bars: p99 of a submission, and memory of an idle session.
const SUBMIT_P99_MAX: Duration = Duration::from_millis(50);
const IDLE_KIB_MAX: f64 = 64.0;

/// How many of each.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Idle TLS sessions.
    #[arg(long, default_value_t = 1_000)]
    idle: usize,
    /// Slow-loris clients.
    #[arg(long, default_value_t = 200)]
    dribblers: usize,
    /// Submissions measured, on 465 and 587 by turns.
    #[arg(long, default_value_t = 400)]
    submissions: usize,
    /// Submissions a second.
    #[arg(long, default_value_t = 20)]
    rate: u32,
    /// Longest wait for the dribblers' end: RFC 5321 §4.5.3.2 gives a command five minutes.
    #[arg(long, default_value_t = 660)]
    dribble_secs_max: u64,
    /// `uring`, `epoll` or `auto`.
    #[arg(long, default_value = "auto")]
    io: String,
}

/// What a dribbler never finishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unfinished {
    PlainCommand,
    ClientHello,
    Command,
    Message,
}

impl Unfinished {
    const ALL: [Self; 4] = [Self::PlainCommand, Self::ClientHello, Self::Command, Self::Message];

    fn name(self) -> &'static str {
        match self {
            Self::PlainCommand => "a command before TLS",
            Self::ClientHello => "a ClientHello",
            Self::Command => "a command after AUTH",
            Self::Message => "a message",
        }
    }
}

/// Opens, measures, prints.
pub fn run(arguments: &Arguments) -> Result<()> {
    raise_descriptor_limit(arguments.idle + arguments.dribblers + 200)?;
    let certificate = Certificate::generate(&["relay.test", "localhost"])?;
    let provider = Provider::for_load(Script::accepts_all(), None);
    let outside = Outside::start(provider, &["example.test"])?;
    let directory = tempfile::Builder::new().prefix("tradewind-idle-").tempdir()?;
    let setup = Setup { signatures: Signatures::Three, ..outside.setup(&arguments.io) };
    let daemon = Daemon::start(directory.path(), &setup, &certificate)?;
    let enrolled = daemon.enrolled.first().context("no member")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, measure(arguments, &daemon, enrolled))?;
    drop(runtime);
    daemon.stop()
}

async fn measure(arguments: &Arguments, daemon: &Daemon, enrolled: &Enrolled) -> Result<()> {
    let config = client_that_trusts_all(false)?;
    let starttls = target(daemon.submission, Tls::StartTls(config.clone()), enrolled);
    let implicit = target(daemon.submissions, Tls::Implicit(config), enrolled);

    // What the first sessions cost once (buffers, key schedules, pages of code) is no session's memory.
    let quiet = submissions(&starttls, &implicit, 40, arguments.rate).await?;
    let rss = || cpu::status_kib(daemon.pid(), "VmRSS").context("the daemon is gone");
    let before = rss()?;
    let mut idle = Vec::with_capacity(arguments.idle);
    for n in 0..arguments.idle {
        let target = if n % 2 == 0 { &starttls } else { &implicit };
        let client = if n % 4 < 2 { Client::connect(target).await } else { Client::connect_before_auth(target).await };
        idle.push(client.with_context(|| format!("idle session {n}"))?);
    }
    let opened = rss()?;
    let kib = opened.saturating_sub(before) as f64 / arguments.idle as f64;
    println!("\n{} idle TLS sessions, half of them authenticated: RSS {before} → {opened} KiB, {kib:.1} KiB each", idle.len());

    let cut_off: Rc<RefCell<Vec<(Unfinished, Duration)>>> = Rc::default();
    let mut dribblers = Vec::new();
    for n in 0..arguments.dribblers {
        let what = Unfinished::ALL[n % Unfinished::ALL.len()];
        let (starttls, implicit, cut_off) = (starttls.clone(), implicit.clone(), cut_off.clone());
        dribblers.push(tokio::task::spawn_local(async move {
            let began = Instant::now();
            match dribble(what, &starttls, &implicit).await {
                Ok(()) | Err(_) => cut_off.borrow_mut().push((what, began.elapsed())),
            }
        }));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let busy = submissions(&starttls, &implicit, arguments.submissions, arguments.rate).await?;
    println!("submissions, connect to 250, a connection with TLS and AUTH each, {} a second:", arguments.rate);
    for (when, histogram) in [("before", &quiet), ("meanwhile", &busy)] {
        let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        let (p50, p99, max) = (ms(0.5), ms(0.99), ms(1.0));
        println!("  {when:10} {:4}: p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms", histogram.len());
    }

    println!("waiting up to {} s for the dribblers to be cut off …", arguments.dribble_secs_max);
    let all = futures_util::future::join_all(dribblers);
    let in_time = tokio::time::timeout(Duration::from_secs(arguments.dribble_secs_max), all).await.is_ok();
    let mut cut = cut_off.borrow().clone();
    cut.sort();
    for what in Unfinished::ALL {
        let times: Vec<_> = cut.iter().filter(|(of, _)| *of == what).map(|(_, after)| after.as_secs_f64()).collect();
        let range = match (times.first(), times.last()) {
            (Some(first), Some(last)) => format!("after {first:.1}–{last:.1} s"),
            _ => "never".to_owned(),
        };
        println!("  {:22} {:4} cut off, {range}", what.name(), times.len());
    }
    drop(idle);
    let p99 = Duration::from_micros(busy.value_at_quantile(0.99));
    ensure!(p99 <= SUBMIT_P99_MAX, "p99 {p99:?} is above {SUBMIT_P99_MAX:?}");
    ensure!(kib <= IDLE_KIB_MAX, "{kib:.1} KiB an idle session are above {IDLE_KIB_MAX} KiB");
    ensure!(in_time, "{} of {} dribblers were not cut off", arguments.dribblers - cut.len(), arguments.dribblers);
    Ok(())
}

fn target(address: SocketAddr, tls: Tls, enrolled: &Enrolled) -> Target {
    Target::plain(address).with_tls(tls).with_credentials(&enrolled.username, &enrolled.password)
}

/// New members come one after another at a fixed rate, whatever became of those before them.
async fn submissions(starttls: &Target, implicit: &Target, count: usize, rate: u32) -> Result<hdrhistogram::Histogram<u64>> {
    let began = tokio::time::Instant::now();
    let all = (0..count).map(|n| {
        let target = if n % 2 == 0 { starttls } else { implicit };
        async move {
            tokio::time::sleep_until(began + Duration::from_secs(1) * n as u32 / rate).await;
            let begun = Instant::now();
            let mut client = Client::connect(target).await?;
            let from = format!("noreply@{MEMBER_DOMAIN}");
            let octets = format!(
                "From: {from}\r\nTo: user@example.test\r\nSubject: Password Reset Requested\r\n\
                 Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <{n}@{MEMBER_DOMAIN}>\r\n\r\nHello.\r\n"
            );
            client.send(&from, &["user@example.test"], octets.as_bytes()).await?;
            let took = begun.elapsed();
            client.quit().await?;
            anyhow::Ok(took)
        }
    });
    let mut histogram = new_histogram();
    for took in futures_util::future::join_all(all).await {
        histogram.saturating_record(u64::try_from(took.context("a submission failed")?.as_micros())?);
    }
    Ok(histogram)
}

/// Sends an octet a second until the server closes; an error is an end, too.
async fn dribble(what: Unfinished, starttls: &Target, implicit: &Target) -> io::Result<()> {
    match what {
        Unfinished::PlainCommand => dribble_plain(starttls.address, b"EHLO a").await,
        // A TLS record header that announces 512 octets of handshake.
        Unfinished::ClientHello => dribble_plain(implicit.address, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]).await,
        Unfinished::Command | Unfinished::Message => {
            let mut client = Client::connect(implicit).await.map_err(io::Error::other)?;
            if what == Unfinished::Message {
                for line in ["MAIL FROM:<noreply@member.test>\r\n", "RCPT TO:<user@example.test>\r\n", "DATA\r\n"] {
                    client.say(line).await.map_err(io::Error::other)?;
                }
            }
            loop {
                client.write(if what == Unfinished::Message { b"x" } else { b"N" }).await?;
                // A reply before the end (a 421, say) is not the end yet; silence is what we expect.
                if let Ok(Err(error)) = tokio::time::timeout(DRIBBLE, client.reply()).await {
                    return Err(error);
                }
            }
        }
    }
}

async fn dribble_plain(address: SocketAddr, head: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let mut octets = head.iter().copied().chain(std::iter::repeat(b'x'));
    let mut inbox = [0; 512];
    loop {
        stream.write_all(&[octets.next().unwrap_or(b'x')]).await?;
        match tokio::time::timeout(DRIBBLE, stream.read(&mut inbox)).await {
            Ok(Ok(0)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(_)) | Err(_) => {}
        }
    }
}

/// Both we and the daemon, which inherits it, need a descriptor a session.
fn raise_descriptor_limit(needed: usize) -> Result<()> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok());
    if soft.is_some_and(|soft: usize| soft >= needed) {
        return Ok(());
    }
    let own = std::process::id().to_string();
    let limit = format!("--nofile={needed}:");
    if let Err(error) = process::output(Command::new("prlimit").args(["--pid", &own, &limit])) {
        bail!("the limit of open files cannot be raised to {needed}: {error:#}; raise it: ulimit -n {needed}");
    }
    Ok(())
}
