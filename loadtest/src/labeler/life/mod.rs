//! `labeler life`: everything that may happen to members, with a real PLC directory and two real PDSes; and after each event,
//! what the labeler says.
//!
//! Each row is an event, the labels that must follow, those that did, and after how long. A row is wrong when the labels are
//! others or late, when more or fewer labels were issued on the way than the event asks for (the account of it is kept here),
//! when @atproto's own packages do not verify every label or find another state in the stream than in queryLabels
//! (`interop/labels.mjs`), and when an MTA that polls the labeler does not admit or refuse the member accordingly.
//!
//! Real: the directory, both PDSes and the firehose of one, the labeler, the MTA. Scripted: DNS, and in front of both PDSes a
//! relay and a Jetstream (`interop/relay.mjs`), because neither comes as a package of npm, PyPI or Debian; as the relay
//! believes everything, what a PDS says of an account that it does not hold any more reaches the labeler.

mod consumer;
mod members;
mod moves;
mod world;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use self::world::Life;
use crate::interop::install::Tools;

/// From an event that the stream tells until its label.
const SOON: Duration = Duration::from_secs(2);
/// How much longer a row waits, to say how late it was.
const LATE: Duration = Duration::from_secs(15);
/// From a label until the MTA acts on it; it polls every second.
const POLLED: Duration = Duration::from_secs(6);
/// The labels of a member in order.
const BOTH: [&str; 2] = ["relay-member", "verified-mail-operator"];
const NONE: [&str; 0] = [];

/// Nothing to choose.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Keep logs in this directory instead of a temporary one.
    #[arg(long)]
    directory: Option<std::path::PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let began = Instant::now();
    let tools = Tools::install()?;
    let temporary = tempfile::Builder::new().prefix("tradewind-life-").tempdir()?;
    let at = arguments.directory.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(at)?;
    let mut life = Life::build(&tools, at)?;
    println!("everything runs after {:.0} s\n", began.elapsed().as_secs_f64());
    println!("{}", line(["step", "expected", "seen", "after", "MTA"]));
    let done = members::all(&mut life).and_then(|()| moves::all(&mut life));
    println!("\n{} rows, {} wrong, after {:.0} s", life.rows, life.wrong, began.elapsed().as_secs_f64());
    done.with_context(|| format!("the labeler's last lines:\n{}", life.labeler.running.last_lines()))?;
    ensure!(life.wrong == 0, "{} rows are wrong; the labeler's last lines:\n{}", life.wrong, life.labeler.running.last_lines());
    Ok(())
}

impl Life {
    /// Something happens to a member: these labels must follow, within this time.
    fn step(
        &mut self,
        name: &str,
        who: usize,
        expected: &[&str],
        within: Duration,
        act: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let began = Instant::now();
        act(self)?;
        let expected: BTreeSet<String> = expected.iter().map(|value| (*value).to_owned()).collect();
        let (seen, took) = loop {
            let seen = self.labeler.in_force(&self.members[who].account.did).unwrap_or_default();
            let took = began.elapsed();
            if seen == expected || took > within + LATE {
                break (seen, took);
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut faults = Vec::new();
        if seen == expected && took > within {
            faults.push(format!("later than {within:?}"));
        }
        let member = &mut self.members[who];
        member.issued += member.force.symmetric_difference(&expected).count();
        member.force = expected;
        self.row(name, who, &seen, took, faults)
    }

    /// Something happens to a member that takes and gives no labels. `until` is when the labeler has looked: what getStatus
    /// says then.
    fn stays(
        &mut self,
        name: &str,
        who: usize,
        until: impl Fn(&Value) -> bool,
        within: Duration,
        act: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let began = Instant::now();
        act(self)?;
        let mut faults = Vec::new();
        loop {
            let status = self.labeler.status(&self.members[who].account.did).unwrap_or_default();
            if until(&status) {
                break;
            }
            if began.elapsed() > within + LATE {
                faults.push(format!("it was not looked at: {status}"));
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let took = began.elapsed();
        let seen = self.labeler.in_force(&self.members[who].account.did)?;
        self.row(name, who, &seen, took, faults)
    }

    /// What all others see, and the row.
    fn row(&mut self, name: &str, who: usize, seen: &BTreeSet<String>, took: Duration, mut faults: Vec<String>) -> Result<()> {
        let verdict = self.consumer.look()?;
        faults.extend(verdict.wrong);
        for member in &self.members {
            let did = &member.account.did;
            let (force, issued) = (verdict.force.get(did).cloned().unwrap_or_default(), verdict.said.get(did).copied());
            if force != member.force {
                faults.push(format!("the stream gives {} {force:?}, not {:?}", member.name, member.force));
            }
            if issued.unwrap_or(0) != member.issued {
                faults.push(format!("{} labels of {} were issued, not {}", issued.unwrap_or(0), member.name, member.issued));
            }
        }
        let total: usize = self.members.iter().map(|member| member.issued).sum();
        if verdict.frames != total || verdict.last != total {
            faults.push(format!("{} frames up to number {}, not {total}", verdict.frames, verdict.last));
        }
        let expected = self.members[who].force.clone();
        let admits = expected.len() == BOTH.len();
        let mta = self.until_mta(who, admits)?;
        if mta.starts_with("admits") != admits {
            faults.push(format!("the MTA {mta}"));
        }
        let show = |labels: &BTreeSet<String>| match labels.len() {
            0 => "none".to_owned(),
            2 => "both".to_owned(),
            _ => labels.iter().cloned().collect::<Vec<_>>().join(" "),
        };
        if *seen != expected && faults.is_empty() {
            faults.push("other labels".into());
        }
        let took = format!("{:.2} s", took.as_secs_f64());
        println!("{}", line([name, &show(&expected), &show(seen), &took, &mta]));
        faults.iter().for_each(|fault| println!("    WRONG: {fault}"));
        self.rows += 1;
        self.wrong += usize::from(!faults.is_empty());
        Ok(())
    }

    /// Waits until the MTA does so, or long enough, and says what it does.
    fn until_mta(&self, who: usize, admits: bool) -> Result<String> {
        let began = Instant::now();
        loop {
            let said = self.mail(who)?;
            if said.starts_with("admits") == admits || began.elapsed() > POLLED {
                return Ok(said);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Whether a check of this kind, in any domain, says so.
fn says(status: &Value, kind: &str, words: &str) -> bool {
    checks(status, kind).any(|check| check["why"].as_str().is_some_and(|why| why.contains(words)))
}

/// Whether a check of this kind, in any domain, has seen just this.
fn shows(status: &Value, kind: &str, seen: &str) -> bool {
    checks(status, kind).any(|check| check["seen"][0] == seen)
}

fn checks<'a>(status: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let checks = |domain: &'a Value| domain["checks"].as_array().into_iter().flatten();
    status["domains"].as_array().into_iter().flatten().flat_map(checks).filter(move |check| check["kind"] == kind)
}

/// How a domain stands.
fn state(status: &Value, domain: &str) -> String {
    let found = status["domains"].as_array().into_iter().flatten().find(|it| it["domain"] == domain);
    found.and_then(|it| it["state"].as_str()).unwrap_or_default().to_owned()
}

fn line(columns: [&str; 5]) -> String {
    let [step, expected, seen, after, mta] = columns;
    format!("{step:66} {expected:22} {seen:22} {after:>8}  {mta}")
}
