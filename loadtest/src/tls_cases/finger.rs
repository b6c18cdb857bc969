//! Postfix's verdict on the same domains: posttls-finger at level `dane`, in a mount namespace of its own whose
//! /etc/resolv.conf names our validating Unbound.
//!
//! Compared are the rows in which TLSA records count: where both can say whether the host is whom the records name.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::case::{Case, Expect, Wish};
use super::zones::{Names, PLAIN_PORT_ADDRESS};
use crate::process;

/// Why a row's mail is deferred, where no certificate was seen.
const WITHOUT_TLS: [&str; 3] = ["does not offer STARTTLS", "STARTTLS was refused", "TLS handshake"];

/// Prints both verdicts for every row that can be compared; how many differ.
pub(super) fn compare(directory: &Path, cases: &[Case], _names: &Names, port: u16) -> Result<usize> {
    let resolv = directory.join("resolv.conf");
    std::fs::write(&resolv, format!("nameserver {PLAIN_PORT_ADDRESS}\noptions trust-ad edns0\n"))?;
    let version = process::output(
        Command::new(process::find("postconf").context("Postfix is not installed")?).args(["-h", "mail_version"]),
    )?;
    println!("\nPostfix {} (posttls-finger -l dane)", version.trim());
    let mut wrong = 0;
    // It knows nothing of what senders say, and what it asks is an Unbound.
    let comparable = |case: &&Case| case.wish == Wish::None && case.only_with != Some("validate");
    let counts = |case: &&Case| ["dane", "encrypted"].contains(&case.demand);
    for case in cases.iter().filter(comparable).filter(counts) {
        let said = ask(&resolv, &case.domain(), port)?;
        let ours = match case.expect {
            // It delivers nothing, so it stops at the first host, whatever that is like.
            _ if case.hosts.len() > 1 => "unverified",
            Expect::Tls(_) if case.demand == "dane" => "verified",
            Expect::Deferred(words) if WITHOUT_TLS.contains(&words) => "without TLS",
            Expect::Tls(_) | Expect::Deferred(_) | Expect::Failed(_) | Expect::Clear => "unverified",
        };
        let theirs = verdict(&said);
        let mark = if ours == theirs { "ok" } else { "WRONG" };
        wrong += usize::from(ours != theirs);
        println!("{mark:5} {:20} {:10} ours {ours:11} posttls-finger {theirs}", case.name, case.rule);
        if ours != theirs {
            println!("{said}");
        }
    }
    Ok(wrong)
}

fn ask(resolv: &Path, domain: &str, port: u16) -> Result<String> {
    let finger = process::find("posttls-finger").context("posttls-finger is not installed")?;
    let script = "mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(resolv)
        .arg(finger)
        .args(["-c", "-l", "dane", "-t", "10", "-T", "10", "-o", "inet_protocols=ipv4"])
        .arg(format!("{domain}:{port}"))
        .stdin(Stdio::null())
        .output()
        .context("run unshare")?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(!said.contains("Operation not permitted"), "posttls-finger needs root: {said}");
    Ok(said)
}

/// What it makes of the host. Verified counts only by a record that it names.
fn verdict(said: &str) -> &'static str {
    if !said.contains("TLS connection established") {
        "without TLS"
    } else if said.contains("Verified TLS connection established") && said.contains("Matched DANE") {
        "verified"
    } else {
        "unverified"
    }
}
