//! `profile`: where the CPU of a message goes, sampled by perf while the workload of `report` runs.
//!
//! Each sample is put under the thread that it was taken in and under what that thread was doing: a purpose that the
//! innermost telling frame names. So "disk" in the kernel is what an fsync costs in CPU, not how long it waits.
//! The samples say the shares; the kernel's account of CPU time (see [`crate::cpu`]) says how much there was to share.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::daemon::Signatures;
use crate::process::{self, Running};
use crate::report::{Arguments as ReportArguments, Watched, watch};

/// How to get perf.
const INSTALL: &str = "apt-get install linux-perf";
/// Samples a second and thread: a prime, so that it does not beat with timers.
const FREQUENCY: &str = "997";
/// Columns of the longest bar.
const BAR: f64 = 50.0;

/// What to profile.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Messages.
    #[arg(long, default_value_t = 20_000)]
    messages: u64,
    /// `uring` or `epoll`.
    #[arg(long, default_value = "uring")]
    io: String,
    /// Signatures on each message: 0, 1 or 3.
    #[arg(long, default_value_t = 3)]
    signatures: u8,
    /// Keep perf's data here, for perf report or a flame graph.
    #[arg(long)]
    keep: Option<PathBuf>,
}

/// Runs the load under perf and prints the picture.
pub fn run(arguments: &Arguments) -> Result<()> {
    let perf = process::find("perf").with_context(|| format!("perf is not installed: {INSTALL}"))?;
    let signatures = match arguments.signatures {
        0 => Signatures::None,
        1 => Signatures::One,
        3 => Signatures::Three,
        other => bail!("{other} signatures cannot be had: 0, 1 or 3"),
    };
    let io = match arguments.io.as_str() {
        "uring" => "uring",
        "epoll" => "epoll",
        other => bail!("io is uring or epoll, not {other}"),
    };
    let directory = tempfile::Builder::new().prefix("tradewind-profile-").tempdir()?;
    let data = arguments.keep.clone().unwrap_or_else(|| directory.path().join("perf.data"));
    let mut recorder = None;
    let watched = watch(&ReportArguments::of_messages(arguments.messages), io, signatures, |pid| {
        let mut command = Command::new(&perf);
        command.args(["record", "-q", "-e", "cpu-clock", "-F", FREQUENCY, "-g", "-p"]).arg(pid.to_string()).arg("-o").arg(&data);
        recorder = Some(Running::start("perf", command, &directory.path().join("perf.log"))?);
        Ok(())
    })?;
    let mut recorder = recorder.context("perf was not started")?;
    // It ends with the process that it watches.
    let began = std::time::Instant::now();
    while recorder.is_running() && began.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let script = process::output(Command::new(&perf).args(["script", "-F", "comm,ip,sym", "-i"]).arg(&data))
        .with_context(|| recorder.last_lines())?;
    println!("{}", picture(&count(&script), &watched)?);
    Ok(())
}

/// Samples by thread and purpose.
type Shares = BTreeMap<String, BTreeMap<&'static str, u64>>;

fn count(script: &str) -> Shares {
    let mut shares = Shares::new();
    for sample in script.split("\n\n") {
        let mut lines = sample.lines().filter(|line| !line.is_empty());
        let Some(thread) = lines.next() else { continue };
        // Ring threads and signers are several of a kind.
        let thread = thread.trim().trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-').to_owned();
        let frames: Vec<&str> = lines.filter_map(|line| line.trim().split_once(' ').map(|(_, symbol)| symbol)).collect();
        *shares.entry(thread).or_default().entry(purpose(&frames)).or_default() += 1;
    }
    shares
}

/// What names a purpose, innermost frame first; within a frame the first that fits.
const PURPOSES: &[(&str, &[&str])] = &[
    ("RSA", &["rsaz", "RSA_", "rsa_", "bn_", "BN_", "amm52", "mont_"]),
    ("Ed25519", &["25519", "ge_scalarmult", "fe_mul", "sc_muladd"]),
    ("SHA-256", &["sha256", "SHA256"]),
    ("DKIM: canonical form, fields", &["mail_auth", "mta::sign"]),
    ("TLS", &["rustls", "aes_gcm", "gcm_", "x25519", "ecp_nistz", "p256"]),
    ("kernel: disk", &["ext4", "xfs_", "fsync", "fdatasync", "blk_", "jbd2", "vfs_write", "vfs_iocb", "filemap_"]),
    ("kernel: network", &["tcp_", "inet_", "sock_", "__sys_send", "__sys_recv", "sys_accept", "ip_", "io_send", "io_recv"]),
    ("kernel: waking and waiting", &["futex", "eventfd", "epoll", "ep_", "schedule", "io_cqring", "hrtimer", "clock_nanosleep"]),
    ("LMDB", &["mdb_", "heed"]),
    ("queue: rows, segments, batches", &["mta::queue"]),
    ("scheduler", &["scheduler::"]),
    ("dialogue, server and client", &["smtp::"]),
    ("ingress and policy", &["mta::ingress", "mta::policy"]),
    ("egress", &["mta::egress"]),
    ("memory: allocation", &["mi_", "malloc"]),
    ("memory: copies", &["memmove", "memcpy", "memset"]),
    ("sockets and buffers (host)", &["host::"]),
    ("metrics and log", &["metrics", "tracing", "quanta"]),
    ("tokio, io_uring in user space", &["tokio", "io_uring", "mio::", "core::future"]),
];

fn purpose(frames: &[&str]) -> &'static str {
    let named = frames.iter().find_map(|frame| {
        PURPOSES.iter().find(|(_, marks)| marks.iter().any(|mark| frame.contains(mark))).map(|(purpose, _)| *purpose)
    });
    named.unwrap_or("other")
}

fn picture(shares: &Shares, watched: &Watched) -> Result<String> {
    let total: u64 = shares.values().flat_map(BTreeMap::values).sum();
    ensure!(total > 0, "perf took no samples");
    let micros = watched.cpu_secs_per_1000 * 1_000.0;
    let most = shares.values().flat_map(BTreeMap::values).max().copied().unwrap_or(1) as f64;
    let mut out = format!(
        "\n{:.3} CPU-s per 1000 messages ({micros:.0} µs a message), {:.0} messages/s, {total} samples\n",
        watched.cpu_secs_per_1000, watched.messages_per_sec
    );
    let mut threads: Vec<_> =
        shares.iter().map(|(thread, purposes)| (purposes.values().sum::<u64>(), thread, purposes)).collect();
    threads.sort_by_key(|(samples, ..)| std::cmp::Reverse(*samples));
    for (samples, thread, purposes) in threads {
        let part = samples as f64 / total as f64;
        let _ = writeln!(out, "\n{thread:34} {:>5.1} %  {:>6.1} µs", part * 100.0, part * micros);
        let mut purposes: Vec<_> = purposes.iter().collect();
        purposes.sort_by_key(|(_, samples)| std::cmp::Reverse(**samples));
        for (purpose, samples) in purposes {
            let part = *samples as f64 / total as f64;
            // What nobody would see is left out of the picture, not out of the sums.
            if part < 0.004 {
                continue;
            }
            let bar = "█".repeat((*samples as f64 / most * BAR).round() as usize);
            let _ = writeln!(out, "  {purpose:32} {:>5.1} %  {:>6.1} µs  {bar}", part * 100.0, part * micros);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_counts_for_the_innermost_frame_that_tells_its_purpose() {
        let script = "signer \n\t ffff aws_lc_0_39_0_rsaz_amm52x20_x1_ifma256 \n\t aaaa mta::sign::dkim::sign \n\n\
                      ring-0 \n\t 1 _raw_spin_unlock \n\t 2 tcp_sendmsg \n\t 3 io_send \n\t 4 host::uring::send \n\n\
                      ring-1 \n\t 1 nobody_knows \n\n";
        let shares = count(script);
        assert_eq!(shares["signer"], BTreeMap::from([("RSA", 1)]));
        assert_eq!(shares["ring"], BTreeMap::from([("kernel: network", 1), ("other", 1)]));
        let watched = Watched { cpu_secs_per_1000: 0.3, messages_per_sec: 1000.0 };
        let picture = picture(&shares, &watched).unwrap();
        assert!(picture.contains("33.3 %   100.0 µs"), "{picture}");
        assert!(super::picture(&Shares::new(), &watched).is_err());
    }
}
