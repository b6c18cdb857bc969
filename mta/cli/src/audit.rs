//! Who changed what.

use clap::Args;
use mta::control::api::{AuditPage, AuditRow};

use crate::client::{Client, escape};
use crate::show::{Show, print, table};

/// Which rows.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Only of this operator
    #[arg(long)]
    who: Option<String>,
    /// Only about what begins so, as /v1/members
    #[arg(long, value_name = "PATH")]
    about: Option<String>,
    /// Those before this number
    #[arg(long, value_name = "N")]
    before: Option<u64>,
    /// At most so many [default: 100]
    #[arg(long)]
    limit: Option<u32>,
}

pub(crate) async fn run(args: AuditArgs, daemon: &Client, json: bool) -> anyhow::Result<()> {
    let AuditArgs { who, about, before, limit } = args;
    let word = |name: &str, value: Option<String>| value.map(|value| format!("{name}={}", escape(&value)));
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    let query =
        [word("who", who), word("about", about), word("before", number(before)), word("limit", number(limit.map(u64::from)))];
    let query: Vec<String> = query.into_iter().flatten().collect();
    print(&daemon.get::<AuditPage>(&format!("/v1/audit?{}", query.join("&"))).await?, json)
}

impl Show for AuditPage {
    fn show(&self) -> String {
        if self.rows.is_empty() {
            return "nothing was changed\n".to_owned();
        }
        let row = |it: &AuditRow| {
            [it.number.to_string(), it.at.clone(), it.who.clone(), it.outcome.clone(), it.about.clone(), it.says()]
        };
        let mut out = table(["NUMBER", "WHEN", "WHO", "OUTCOME", "ABOUT", "WHAT"], self.rows.iter().map(row));
        if let Some(next) = self.next {
            out.push_str(&format!("… and older: --before {next}\n"));
        }
        out
    }
}
