//! `labeler round`: what it costs to look at all members again.
//!
//! A network of so many accounts, each with a domain in a scripted DNS; a labeler of its own process, which labels them all.
//! Then its store is put back from a backup, which makes everybody due at once: that round is measured, in CPU time of the
//! labeler and its peak of memory. The network and the name server share the machine and do not count.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ::labeler::store;
use anyhow::{Context, Result, ensure};

use super::settings;
use super::speed::{Bars, DID, line};
use crate::atnet::AtNet;
use crate::cpu;
use crate::dns::{Record, Server, Zone};
use crate::process::{self, Running};

/// The bars: a round of 100,000 members.
const CPU_SECONDS_MAX: f64 = 600.0;
const RSS_MIB_MAX: f64 = 300.0;
const MEMBERS_OF_THE_BARS: f64 = 100_000.0;

/// How much.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Members, each with an account and a domain.
    #[arg(long, default_value_t = 100_000)]
    members: usize,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let count = arguments.members;
    let temporary = tempfile::Builder::new().prefix("tradewind-round-").tempdir()?;
    let at = temporary.path();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let net = runtime.block_on(AtNet::start())?;
    let zone = Zone::new();
    let dns = Server::start("127.0.0.1:0".parse()?, zone.clone())?;
    people(&net, &zone, count);
    println!("{count} members; {}", if cfg!(debug_assertions) { "DEBUG BUILD: no bar applies" } else { "release" });

    let first = labeler(at, &net, &dns, count, 1)?;
    line("first looks", &first.said(count));
    let (data, copy, old) = (at.join("data"), at.join("copy"), at.join("old"));
    store::backup(&data, &copy)?;
    std::fs::rename(&data, &old)?;
    store::restore(&copy, &data)?;
    let again = labeler(at, &net, &dns, count, 2)?;
    line("a round", &again.said(count));

    let share = count as f64 / MEMBERS_OF_THE_BARS;
    let mut bars = Bars::default();
    bars.at_most("CPU seconds of a round", again.cpu_seconds, CPU_SECONDS_MAX * share);
    bars.at_most("peak RSS, MiB", again.peak_mib, RSS_MIB_MAX);
    bars.end()
}

/// Everybody has an account, an attestation, and a zone in order.
fn people(net: &AtNet, zone: &Zone, count: usize) {
    let txt = |text: String| vec![Record::Txt(text)];
    zone.set("mx.relay.test", vec![Record::A([203, 0, 113, 1].into())]);
    // What is only noted is not there: without this, each such question would be a search through all names.
    zone.set("*.example", txt("nothing".into()));
    for nth in 0..count {
        let domain = format!("m{nth}.example");
        let account = net.create_account(&format!("m{nth}.test"));
        zone.set(&domain, vec![Record::Mx(10, "mx.relay.test".into()), Record::Txt("v=spf1 ip4:192.0.2.0/24 -all".into())]);
        zone.set(&format!("_atproto.{domain}"), txt(format!("did={}", account.did.as_str())));
        zone.set(&format!("_dmarc.{domain}"), txt("v=DMARC1; p=reject".into()));
        let key = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        zone.set(&format!("s1._domainkey.{domain}"), txt(key.into()));
        net.attest(&account, &domain, &["s1"], true);
    }
}

struct Round {
    seconds: f64,
    cpu_seconds: f64,
    peak_mib: f64,
    /// The highest that was seen of our own memory, and of mapped files.
    parts_mib: [f64; 2],
}

impl Round {
    fn said(&self, count: usize) -> String {
        let each = self.cpu_seconds * 1e3 / count as f64;
        let (peak, [own, mapped]) = (self.peak_mib, self.parts_mib);
        let memory = format!("peak {peak:.0} MiB (own at most {own:.0}, mapped {mapped:.0})");
        format!("{:7.1} s, {:7.1} CPU seconds ({each:.2} ms each), {memory}", self.seconds, self.cpu_seconds)
    }
}

/// Runs a labeler until everybody was looked at so many times since the network began.
fn labeler(at: &Path, net: &AtNet, dns: &Server, count: usize, times: u64) -> Result<Round> {
    let address = process::free_address()?;
    let config = at.join("labeler.toml");
    let text = settings(at, DID, &address.to_string(), &net.plc_url(), "[verify]\ninterval = \"240h\"\nper_host = 1000000\n");
    let text = text.replace("ws://127.0.0.1:9", &net.firehose_url());
    std::fs::write(&config, text.replace("[\"127.0.0.1:9\"]", &format!("[\"{}\"]", dns.address())))?;
    let mut command = Command::new(process::own("tradewind-labeler")?);
    command.arg("--config").arg(&config).env("RUST_LOG", "error");
    let log = at.join("labeler.log");
    let from = std::fs::metadata(&log).map_or(0, |file| file.len());
    let began = Instant::now();
    let mut running = Running::start("tradewind-labeler", command, &log)?;
    running.wait_for_line("ready", from, Duration::from_secs(60))?;
    let patience = Duration::from_secs(120 + count as u64 / 20);
    let mut parts_mib = [0_f64; 2];
    while net.requests().1 < times * count as u64 {
        ensure!(running.is_running(), "the labeler is gone: {}", running.last_lines());
        ensure!(began.elapsed() < patience, "only {} of {} looks came", net.requests().1, times * count as u64);
        for (highest, field) in parts_mib.iter_mut().zip(["RssAnon", "RssFile"]) {
            *highest = highest.max(cpu::status_kib(running.pid(), field).unwrap_or(0) as f64 / 1024.0);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // The last of them are settled within a moment; who was asked about last may still be waiting for an answer of DNS.
    let mut quiet = cpu::process(running.pid());
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = cpu::process(running.pid());
        if now - quiet < Duration::from_millis(20) {
            break;
        }
        quiet = now;
    }
    let seconds = began.elapsed().as_secs_f64();
    let peak_mib = cpu::status_kib(running.pid(), "VmHWM").context("the labeler is gone")? as f64 / 1024.0;
    let cpu_seconds = quiet.as_secs_f64();
    running.stop(Duration::from_secs(10))?;
    Ok(Round { seconds, cpu_seconds, peak_mib, parts_mib })
}
