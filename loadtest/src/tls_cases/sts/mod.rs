//! MTA-STS and REQUIRETLS, case by case: the rows that need no signed zone.
//!
//! Each row has a recipient domain, a record at `_mta-sts`, a policy host that is a real HTTPS server with the certificate and
//! the answer that the row wants, and a receiving host that is a real SMTP server with its own certificate. One message goes
//! to each. Then records and policies change, the daemon is killed and started again on the same data, and a second message
//! goes to those rows that say what must become of it: so it is seen what was kept.

mod hosts;
mod rows;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::hosts::Hosts;
use self::rows::{Expect, Row, Wish};
use super::{Seen, attempts, told_seen};
use crate::daemon::{Daemon, MEMBER_DID, MEMBER_DOMAIN, Setup, Signatures};
use crate::process;
use crate::tls::Certificate;

/// From a submission until what became of it is known.
const PATIENCE: Duration = Duration::from_secs(90);
/// What has not been tried by then may have no way: `where` is asked.
const NO_ATTEMPT: Duration = Duration::from_secs(8);
/// The second act begins no sooner than this after the first: by then short-lived policies are over.
const LIFETIME: Duration = Duration::from_secs(5);

pub(super) use self::hosts::{Beside, Post, Published, submit_requiring};
pub(super) use self::rows::{Page, Shows as PolicyHost};

/// Plays both acts; says how many verdicts are not as expected.
pub(super) fn compare(directory: &Path, only: Option<&str>) -> Result<usize> {
    let mut rows = rows::rows();
    rows.retain(|row| only.is_none_or(|only| row.name.contains(only)));
    if rows.is_empty() {
        return Ok(0);
    }
    let (port, policy_port) = (process::free_address()?.port(), process::free_address()?.port());
    let hosts = Hosts::start(&rows, port, policy_port)?;
    let directory = directory.join("sts");
    std::fs::create_dir_all(&directory)?;
    let trusted = directory.join("public.pem");
    std::fs::write(&trusted, &hosts.trusted)?;
    let members = [(MEMBER_DID, MEMBER_DOMAIN)];
    let (signatures, nameserver) = (Signatures::None, hosts.nameserver());
    let setup = Setup { io: "auto", signatures, nameserver, egress_port: port, members: &members, more: "" };
    let certificate = Certificate::generate(&["relay.test"])?;
    let mut daemon = Daemon::start_edited(&directory, &setup, &certificate, |configuration| {
        let private = "allow_private_addresses = true";
        let more = format!("{private}\nsts_port = {policy_port}\ntrust_anchors = \"{}\"", trusted.display());
        configuration.replace(private, &more)
    })?;

    println!("\n{} rows of MTA-STS and REQUIRETLS; hosts listen on port {port}, policy hosts on {policy_port}", rows.len());
    let began = Instant::now();
    let mut wrong = act(&daemon, &hosts, &rows, 1)?;
    std::thread::sleep(LIFETIME.saturating_sub(began.elapsed()));
    rows.retain(|row| row.then.is_some());
    hosts.change(&rows)?;
    daemon.kill()?;
    // What the first process wrote is not told again.
    std::fs::rename(directory.join("mta.log"), directory.join("mta.first.log"))?;
    daemon.start_again()?;
    println!("\nthe same daemon, killed and started again, {} rows later", rows.len());
    wrong += act(&daemon, &hosts, &rows, 2)?;
    daemon.stop()?;
    Ok(wrong)
}

/// One message to each row, and what became of it.
fn act(daemon: &Daemon, hosts: &Hosts, rows: &[Row], number: usize) -> Result<usize> {
    let log = daemon.directory().join("mta.log");
    for row in rows {
        hosts.submit(daemon, row, &recipient(row, number)).with_context(|| format!("submit for {}", row.name))?;
    }
    let submitted = Instant::now();
    let mut seen: BTreeMap<&str, Seen> = BTreeMap::new();
    while seen.len() < rows.len() && submitted.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(200));
        let tried = attempts(&log)?;
        for row in rows {
            if let Some(attempt) = tried.get(&row.domain()) {
                seen.entry(row.name).or_insert_with(|| attempt.clone());
            } else if submitted.elapsed() > NO_ATTEMPT && !seen.contains_key(row.name) {
                let answer = daemon.tradewind(&["where", &row.domain(), "--json"])?;
                let answer: serde_json::Value = serde_json::from_str(&answer)?;
                seen.extend(answer["trouble"].as_str().map(|trouble| (row.name, Seen::Deferred(trouble.to_owned()))));
            }
        }
    }
    let mut wrong = 0;
    for row in rows {
        let expected = if number == 1 { row.expect } else { row.then.as_ref().map_or(row.expect, |then| then.expect) };
        let seen = seen.remove(row.name).unwrap_or(Seen::Nothing);
        let arrived = hosts.arrived(row, &recipient(row, number));
        let right = agrees(expected, &seen, arrived);
        wrong += usize::from(!right);
        println!("{:5} {:20} {:12} expected {}", if right { "ok" } else { "WRONG" }, row.name, row.rule, told(expected));
        println!("{:39} seen     {}", "", told_seen(&seen));
    }
    Ok(wrong)
}

fn recipient(row: &Row, act: usize) -> String {
    format!("act{act}@{}", row.domain())
}

fn agrees(expected: Expect, seen: &Seen, arrived: Option<bool>) -> bool {
    match (expected, seen) {
        (Expect::Tls, Seen::Delivered { tls, .. }) => *tls && arrived == Some(true),
        (Expect::Clear, Seen::Delivered { tls, .. }) => !tls && arrived == Some(false),
        (Expect::Deferred(words), Seen::Deferred(text)) | (Expect::Failed(words), Seen::Failed(text)) => {
            text.contains(words) && arrived.is_none()
        }
        _ => false,
    }
}

fn told(expect: Expect) -> String {
    match expect {
        Expect::Tls => "delivered under TLS".to_owned(),
        Expect::Clear => "delivered in clear text".to_owned(),
        Expect::Deferred(words) => format!("deferred: …{words}…"),
        Expect::Failed(words) => format!("failed: …{words}…"),
    }
}

impl Hosts {
    /// By the relay listener, or where REQUIRETLS is wanted by the one that has TLS.
    fn submit(&self, daemon: &Daemon, row: &Row, recipient: &str) -> Result<()> {
        match row.wish {
            Wish::None => super::submit(daemon.relay, recipient),
            Wish::Waived => super::submit_with(daemon.relay, recipient, "TLS-Required: No\r\n"),
            Wish::Required => match daemon.enrolled.first() {
                Some(member) => hosts::submit_requiring(daemon.submissions, member, recipient),
                None => bail!("nobody is enrolled"),
            },
        }
    }
}
