//! `tradewind-labeler check DOMAIN --did DID`: what the labeler would find, and what to publish instead.

use std::io::Write;
use std::process::ExitCode;

use atproto::Did;
use labeler::Config;
use labeler::explain::{self, DryRun, Request};
use labeler::judge::{Record, Status, Verdict};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The domain that mail is sent from.
    domain: String,
    /// Who would attest it. Default: whom the domain names.
    #[arg(long)]
    did: Option<String>,
    /// A DKIM selector; once for each.
    #[arg(long = "selector")]
    selectors: Vec<String>,
    /// As one who asks for the co-op's relay.
    #[arg(long)]
    relay: bool,
    /// The answer of `coop.tradewind.checkDomain`, as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(config: Option<&Config>, arguments: Arguments) -> ExitCode {
    let Arguments { domain, did, selectors, relay, json } = arguments;
    let did: Option<Did> = match did.map(|did| did.parse()).transpose() {
        Ok(did) => did,
        Err(error) => {
            eprintln!("--did: {error}");
            return ExitCode::from(2);
        }
    };
    let run = match explain::check(config, Request { domain, did, selectors, relay }).await {
        Ok(run) => run,
        Err(why) => {
            eprintln!("tradewind-labeler: {why}");
            return ExitCode::from(2);
        }
    };
    let text = if json { as_json(&run) } else { as_text(&run) };
    // Whoever reads may have seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if run.verdict == Verdict::Pass { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn as_json(run: &DryRun) -> String {
    let Ok(json) = serde_json::to_string_pretty(run) else { unreachable!("a dry run is strings and flags") };
    json + "\n"
}

fn as_text(run: &DryRun) -> String {
    let verdict = match run.verdict {
        Verdict::Pass => "all is in order",
        Verdict::Fail => "not in order",
        Verdict::Unknown => {
            "not everything could be found out (labels stand for a week of that, unless the labeler says otherwise)"
        }
    };
    let mut lines = vec![format!("{}: {verdict}", run.domain)];
    for check in &run.checks {
        let status = match check.status {
            Status::Pass => "ok",
            Status::Warn => "warning",
            Status::Fail => "WRONG",
            Status::Unknown => "unknown",
            Status::Note => "note",
        };
        lines.push(format!("{status:<8} {:<12} {}", check.kind.as_str(), check.name));
        lines.extend(check.why.iter().map(|why| format!("{:<21} {why}", "")));
        lines.extend(check.seen.iter().map(|seen| format!("{:<21} seen: {seen}", "")));
        if let Some(Record { name, kind, value }) = &check.publish {
            lines.push(format!("{:<21} publish: {name} {kind} {value}", ""));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}
