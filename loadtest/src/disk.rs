//! `disk`: what a disk can do to the queue of a running daemon, one line a case.
//!
//! The disk is full, is as full as can be, is full at a start, becomes read-only, reports errors, or gives back other
//! octets than were written. In each case the account of source and sink says what got `250` and what arrived: nothing may
//! be missing, and what could not be kept must not have been accepted.
//!
//! File systems are made for it: a small tmpfs, and ext4 on a loop device whose backing file cannot grow any more. Root, and
//! a mount namespace of its own (`unshare`), so that nothing is left mounted.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::daemon::{Daemon, MEMBER_DOMAIN};
use crate::ledger::{self, Ledger};
use crate::outside::Outside;
use crate::process;
use crate::sink::{Act, Provider, Rule, Script, Stage};
use crate::source::{Client, Target, Trouble};
use crate::tls::Certificate;

/// Tells the program that it is in its own mount namespace.
const INSIDE: &str = "TRADEWIND_DISK_INSIDE";
/// Messages submitted before the trouble begins.
const BEFORE: u64 = 600;
/// Messages tried while it lasts.
const MEANWHILE: u64 = 20;
/// The sink thinks so long about each message before the trouble begins: then most of them still wait.
const SINK_SLOW: Duration = Duration::from_secs(3);
/// And from then on.
const SINK_FAST: Duration = Duration::from_millis(50);
/// Nothing arrived for so long: what is missing is lost. A deferred delivery is tried again after a minute.
const QUIET: Duration = Duration::from_secs(100);
/// Most messages of a case.
const MESSAGES_MAX: u64 = 10_000;

/// Which troubles.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Only cases whose name contains this word.
    #[arg(long)]
    only: Option<String>,
    /// `uring`, `epoll` or `auto`.
    #[arg(long, default_value = "auto")]
    io: String,
}

type Case = fn(&mut Trial) -> Result<String>;

/// Runs every case.
pub fn run(arguments: &Arguments) -> Result<()> {
    if std::env::var_os(INSIDE).is_none() {
        return in_own_namespace();
    }
    let cases: [(&str, Kind, Case); 6] = [
        ("less space than is kept back", Kind::Tmpfs, less_than_is_kept_back),
        ("not an octet left", Kind::Tmpfs, not_an_octet_left),
        ("full at a start", Kind::Tmpfs, full_at_a_start),
        ("read-only", Kind::Loop, read_only),
        ("input/output errors", Kind::Loop, errors),
        ("a damaged body", Kind::Tmpfs, damaged_body),
    ];
    let mut failed = 0;
    for (name, kind, case) in cases {
        if arguments.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let outcome = Trial::start(kind, &arguments.io).and_then(|mut trial| {
            match case(&mut trial).and_then(|said| Ok(format!("{said}; {}", trial.balance()?))) {
                Ok(said) => Ok(said),
                Err(error) => bail!("{error:#}\nThe daemon's last lines:\n{}", trial.daemon.last_lines()),
            }
        });
        match outcome {
            Ok(said) => println!("ok    {name}: {said}"),
            Err(error) => {
                failed += 1;
                println!("FAILED {name}: {error:#}");
            }
        }
    }
    ensure!(failed == 0, "{failed} cases failed");
    Ok(())
}

fn in_own_namespace() -> Result<()> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    let status = unshare.env(INSIDE, "1").status().context("run unshare")?;
    ensure!(status.success(), "not every case went well, or this user may not mount file systems: root may");
    Ok(())
}

/// What the queue lies on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Of 640 MiB.
    Tmpfs,
    /// Ext4 on a loop device, whose backing file lies on a tmpfs: full, it gives errors.
    Loop,
}

/// A daemon whose data lies on a file system made for it.
struct Trial {
    daemon: Daemon,
    ledger: Arc<Ledger>,
    provider: Arc<Provider>,
    refused: Vec<String>,
    /// Messages that had arrived when the trouble began.
    arrived_before: u64,
    _outside: Outside,
    disk: Disk,
}

impl Trial {
    fn start(kind: Kind, io: &str) -> Result<Self> {
        let disk = Disk::make(kind)?;
        let ledger = Arc::new(Ledger::new(MESSAGES_MAX));
        let provider = Provider::for_load(thinks_for(SINK_SLOW), Some(ledger.clone()));
        let outside = Outside::start(provider.clone(), &["big.test"])?;
        let daemon = Daemon::start(disk.directory.path(), &outside.setup(io), &Certificate::generate(&["relay.test"])?)?;
        Ok(Self { daemon, ledger, provider, refused: Vec::new(), arrived_before: 0, _outside: outside, disk })
    }

    /// Submits `count` messages one after another: how many got their 250. What is not a reply is an error.
    fn submit(&mut self, count: u64) -> Result<u64> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let from = format!("noreply@{MEMBER_DOMAIN}");
            let target = Target { patience: Duration::from_secs(20), ..Target::plain(self.daemon.relay) };
            let mut client = Client::connect(&target).await?;
            let mut accepted = 0;
            for _ in 0..count {
                let id = self.ledger.take_id().context("the ledger is full")?;
                let octets = format!(
                    "From: {from}\r\nTo: user@big.test\r\nSubject: A test\r\n{}: {id}\r\n\r\n{}",
                    ledger::HEADER,
                    "Hello.\r\n".repeat(500)
                );
                self.ledger.begun(id, Instant::now());
                match client.send(&from, &["user@big.test"], octets.as_bytes()).await {
                    Ok(_) => {
                        self.ledger.accepted(id);
                        accepted += 1;
                    }
                    Err(Trouble::Refused { reply, .. }) => {
                        ensure!(reply.code / 100 == 4, "refused for good: {reply}");
                        self.refused.push(reply.to_string());
                        // A session with many errors is ended; that is not what is looked at here.
                        client = Client::connect(&target).await?;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(accepted)
        })
    }

    /// Tries while the trouble lasts: all must be refused with a reply that begins so.
    fn all_refused(&mut self, reply: &str) -> Result<()> {
        self.arrived_before = self.ledger.arrivals();
        self.provider.set_script(thinks_for(SINK_FAST));
        let before = self.refused.len();
        let accepted = self.submit(MEANWHILE)?;
        let replies = &self.refused[before..];
        ensure!(accepted == 0, "{accepted} of {MEANWHILE} messages were accepted all the same");
        let other = replies.iter().find(|found| !found.starts_with(reply));
        ensure!(other.is_none(), "expected {reply}, got {other:?}");
        Ok(())
    }

    /// Waits until mail goes through again.
    fn recovers(&mut self) -> Result<Duration> {
        let began = Instant::now();
        while self.submit(1)? == 0 {
            ensure!(began.elapsed() < Duration::from_secs(30), "still refused: {:?}", self.refused.last());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(began.elapsed())
    }

    /// Waits until so many more have arrived since the trouble began.
    fn goes_on(&self, more: u64) -> Result<()> {
        let (from, began) = (self.arrived_before, Instant::now());
        while self.ledger.arrivals() < from + more {
            ensure!(began.elapsed() < QUIET, "only {} more arrived", self.ledger.arrivals() - from);
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The account at the end: everything that got 250 arrived.
    fn balance(&self) -> Result<String> {
        self.ledger.wait_for_all(QUIET);
        let missing = self.ledger.missing();
        ensure!(missing.is_empty(), "LOST: {} messages that got 250: {missing:?}", missing.len());
        ensure!(self.provider.violations().is_empty(), "breaches of RFC 5321: {:?}", self.provider.violations());
        let (accepted, twice) = (self.ledger.accepted_ids().len(), self.ledger.duplicates());
        Ok(format!("{accepted} got 250, missing 0, refused {}, arrived twice {twice}", self.refused.len()))
    }

    fn data(&self) -> PathBuf {
        self.disk.directory.path().join("data")
    }
}

fn less_than_is_kept_back(trial: &mut Trial) -> Result<String> {
    ensure!(trial.submit(BEFORE)? == BEFORE, "refused before there was any trouble: {:?}", trial.refused);
    trial.disk.leave_free(100 << 20)?;
    trial.all_refused("452 4.3.1")?;
    trial.goes_on(100)?;
    trial.disk.give_back()?;
    let after = trial.recovers()?;
    ensure!(trial.ledger.duplicates() == 0, "something arrived twice");
    Ok(format!("452 and 100 more delivered meanwhile; 250 again {} ms after space was there", after.as_millis()))
}

fn not_an_octet_left(trial: &mut Trial) -> Result<String> {
    ensure!(trial.submit(BEFORE)? == BEFORE, "refused before there was any trouble: {:?}", trial.refused);
    trial.disk.leave_free(0)?;
    trial.all_refused("452 4.3.1")?;
    trial.goes_on(300)?;
    trial.disk.give_back()?;
    trial.recovers()?;
    ensure!(trial.ledger.duplicates() == 0, "something arrived twice");
    Ok("452 and 300 more delivered and settled meanwhile".to_owned())
}

fn full_at_a_start(trial: &mut Trial) -> Result<String> {
    trial.submit(BEFORE)?;
    trial.disk.leave_free(0)?;
    trial.daemon.kill()?;
    trial.daemon.start_again()?;
    trial.all_refused("452 4.3.1")?;
    trial.goes_on(100)?;
    trial.disk.give_back()?;
    trial.recovers()?;
    Ok("killed and started on the full disk; 100 more delivered before there was space".to_owned())
}

fn read_only(trial: &mut Trial) -> Result<String> {
    trial.submit(BEFORE)?;
    trial.disk.abort()?;
    trial.all_refused("45")?;
    let said = trial.refused.last().cloned().unwrap_or_default();
    trial.daemon.kill()?;
    trial.disk.mount_again()?;
    trial.daemon.start_again()?;
    trial.recovers()?;
    Ok(format!("refused with {said:?}; went on after a repair and a start"))
}

fn errors(trial: &mut Trial) -> Result<String> {
    trial.submit(BEFORE)?;
    trial.disk.leave_free(0)?;
    // Until the pages that the backing file has already are used up, writing works.
    let began = Instant::now();
    while trial.submit(50)? == 50 {
        ensure!(began.elapsed() < Duration::from_secs(60), "no error came");
    }
    trial.all_refused("45")?;
    let said = trial.refused.last().cloned().unwrap_or_default();
    trial.disk.give_back()?;
    let alone = trial.recovers().is_ok();
    if !alone {
        trial.daemon.kill()?;
        trial.disk.mount_again()?;
        trial.daemon.start_again()?;
        trial.recovers()?;
    }
    Ok(format!("refused with {said:?}; went on {}", if alone { "by itself" } else { "after a repair and a start" }))
}

fn damaged_body(trial: &mut Trial) -> Result<String> {
    let accepted = trial.submit(BEFORE)?;
    trial.daemon.kill()?;
    let victim = trial.damage_one()?;
    trial.provider.set_script(thinks_for(SINK_FAST));
    trial.daemon.start_again()?;
    // Everything but that one.
    let began = Instant::now();
    while trial.ledger.missing() != [victim] {
        ensure!(began.elapsed() < QUIET, "missing: {:?}, damaged: {victim}", trial.ledger.missing());
        std::thread::sleep(Duration::from_millis(20));
    }
    // The others are written down as delivered soon after they were.
    let id = loop {
        let listed: serde_json::Value = serde_json::from_str(&trial.daemon.tradewind(&["queue", "list", "--json"])?)?;
        match listed["deliveries"].as_array().map(Vec::as_slice) {
            Some([only]) => break only["id"].as_str().context("a listed message has no id")?.to_owned(),
            Some([_, _, ..]) if began.elapsed() < QUIET => std::thread::sleep(Duration::from_millis(100)),
            other => bail!("the damaged message is not kept for the operator: {other:?}"),
        }
    };
    let shown = trial.daemon.tradewind(&["queue", "show", &id])?;
    ensure!(shown.contains("damaged") || shown.contains("set aside"), "`queue show` does not tell of the damage:\n{shown}");
    // Its 250 was kept as far as a disk allows: the operator knows of it. It counts as known, not as lost.
    trial.ledger.arrived(victim, None);
    Ok(format!("{} others delivered, and `queue show` tells of the one", accepted - 1))
}

impl Trial {
    /// Turns an octet of a body over that has not arrived; its number.
    fn damage_one(&self) -> Result<u64> {
        let missing = self.ledger.missing();
        let victim = *missing.last().context("everything arrived before the kill")?;
        let needle = format!("{}: {victim}\r\n", ledger::HEADER);
        for entry in fs::read_dir(self.data().join("queue/segments"))? {
            let path = entry?.path();
            let octets = fs::read(&path)?;
            if let Some(at) = memchr::memmem::find(&octets, needle.as_bytes()) {
                let file = fs::OpenOptions::new().write(true).open(&path)?;
                let at = at + needle.len() + 10;
                file.write_all_at(&[octets[at] ^ 0x20], at as u64)?;
                return Ok(victim);
            }
        }
        bail!("message {victim} is in no segment")
    }
}

fn thinks_for(time: Duration) -> Script {
    Script::accepts_all().with(Rule::new(Stage::EndOfData, Act::Delay(time)))
}

/// A file system of our own at `data` in a directory of our own.
struct Disk {
    directory: tempfile::TempDir,
    kind: Kind,
    /// What else fills it.
    ballast: PathBuf,
}

impl Disk {
    fn make(kind: Kind) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("tradewind-disk-").tempdir()?;
        let (data, under) = (directory.path().join("data"), directory.path().join("under"));
        fs::create_dir(&data)?;
        let full = if kind == Kind::Tmpfs { &data } else { &under };
        fs::create_dir_all(full)?;
        let size = if kind == Kind::Tmpfs { "size=640m" } else { "size=200m" };
        process::output(Command::new("mount").args(["-t", "tmpfs", "-o", size, "none"]).arg(full))?;
        let disk = Self { ballast: full.join("ballast"), directory, kind };
        if kind == Kind::Loop {
            let image = disk.image();
            fs::File::create(&image)?.set_len(1 << 30)?;
            // Its own tables and journal are written now, so that only the files' octets meet the full backing file.
            let lazy = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
            process::output(Command::new("mkfs.ext4").args(["-q", "-F", "-N", "1024", "-J", "size=8", "-E", lazy]).arg(&image))?;
            disk.mount()?;
        }
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("under/image")
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn mount(&self) -> Result<()> {
        process::output(Command::new("mount").args(["-o", "loop,errors=continue"]).arg(self.image()).arg(self.data()))?;
        Ok(())
    }

    /// Fills it until so much is free.
    fn leave_free(&self, free: u64) -> Result<()> {
        let folder = self.ballast.parent().context("no folder")?;
        let file = host::disk::File::create(&self.ballast)?;
        let take = host::disk::free_bytes(folder)?.saturating_sub(free);
        // The rest page by page: the daemon writes meanwhile.
        let mut at = take.saturating_sub(1 << 20);
        file.allocate(at)?;
        let page = [0; 4096];
        while free == 0 && file.write_all_at(&page, at).is_ok() {
            at += page.len() as u64;
        }
        Ok(())
    }

    fn give_back(&self) -> Result<()> {
        Ok(fs::remove_file(&self.ballast)?)
    }

    /// The kernel's own end of a file system with errors: read-only, whoever has files open.
    fn abort(&self) -> Result<()> {
        process::output(Command::new("mount").args(["-o", "remount,abort"]).arg(self.data()))?;
        Ok(())
    }

    /// After a repair.
    fn mount_again(&self) -> Result<()> {
        process::output(Command::new("umount").arg(self.data()))?;
        // 1: errors were corrected.
        let status = Command::new("e2fsck").args(["-p", "-f"]).arg(self.image()).output()?.status;
        ensure!(status.code().is_some_and(|code| code <= 1), "e2fsck ended with {status}");
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let mut folders: Vec<&Path> = Vec::new();
        let (data, under) = (self.data(), self.directory.path().join("under"));
        folders.push(&data);
        if self.kind == Kind::Loop {
            folders.push(&under);
        }
        for folder in folders {
            // Lazily: the daemon may be on its way out. The namespace ends with us in any case.
            let _ = Command::new("umount").arg("-l").arg(folder).status();
        }
    }
}
