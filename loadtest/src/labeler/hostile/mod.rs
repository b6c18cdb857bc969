//! `labeler hostile`: who would deceive a labeler, exhaust it, or send it where it should not go, as one table: case, expected, seen.
//!
//! Labelers in this process, a scripted DNS, and a scripted atproto network, in front of which stands somebody who lies ([`liar`]): DID
//! documents and proofs go through his hands. Everything is on loopback, and cases of one kind go at the same time. What is expected stands
//! in the table, not in the labeler: a reason that members read, the labels in force at the end, an answer of HTTP.

mod accounts;
mod callers;
mod domains;
mod gaps;
mod liar;
mod places;
mod polled;
mod readers;
mod signed;
mod world;

use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// For all of them; most of it is waiting for what a labeler lets go after half a minute.
const TIME_MAX: Duration = Duration::from_secs(180);

/// Which.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only cases whose name has this in it are shown; all are run.
    #[arg(long)]
    only: Option<String>,
}

/// One line of the table.
pub(super) struct Row {
    case: String,
    expected: String,
    seen: String,
    fine: bool,
}

impl Row {
    pub(super) fn new(case: impl Into<String>, expected: impl Into<String>, seen: impl Into<String>, fine: bool) -> Self {
        Self { case: case.into(), expected: expected.into(), seen: seen.into(), fine }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let began = std::time::Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rows = signed::rows();
    // Labelers of their own; nearly all of the time is spent waiting for what hangs.
    let looks = async {
        tokio::try_join!(
            domains::rows(),
            accounts::rows(),
            places::rows(),
            gaps::rows(),
            readers::rows(),
            readers::never_reads(),
            callers::rows(),
            polled::rows()
        )
    };
    // A timeout is made where its runtime runs.
    let parts = runtime.block_on(async { tokio::time::timeout(TIME_MAX, looks).await });
    let parts = parts.context("a case hangs")??;
    rows.extend(<[Vec<Row>; 8]>::from(parts).into_iter().flatten());
    let short = |text: &str, chars: usize| {
        let cut: String = text.chars().filter(|it| !it.is_control()).take(chars).collect();
        if cut.len() < text.len() { format!("{cut}…") } else { cut }
    };
    for row in rows.iter().filter(|row| arguments.only.as_ref().is_none_or(|only| row.case.contains(only.as_str()))) {
        let fine = if row.fine { "ok   " } else { "WRONG" };
        println!("{fine} {:46} {:52} {}", short(&row.case, 45), short(&row.expected, 51), short(&row.seen, 110));
    }
    let wrong = rows.iter().filter(|row| !row.fine).count();
    println!("{} cases, {wrong} wrong, {:.0} s", rows.len(), began.elapsed().as_secs_f64());
    ensure!(rows.len() >= 60, "the table has at least sixty cases");
    ensure!(wrong == 0, "{wrong} of {} cases did not end as they should", rows.len());
    Ok(())
}
