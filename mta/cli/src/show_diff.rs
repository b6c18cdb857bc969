//! `config check --diff`: what a reload would change in shaping, pools, sources, what is known of replies, and plans.

use std::{collections::BTreeMap, fmt::Write, path::Path, process::ExitCode};

use mta::{
    config::{self, Config},
    control::api::ShapingRow,
};
use serde_json::json;

use crate::{client::Client, show::plain};

/// A value that would be another: of what, which, the old one and the new one with whose word each is.
struct Change {
    of: String,
    key: String,
    old: Option<(String, String)>,
    new: Option<(String, String)>,
}

/// Asks the daemon what it has, and compares it with the files.
pub(crate) fn run(config: &Config, path: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let old: Vec<ShapingRow> = runtime.block_on(Client::new(config, path).get("/v1/shaping"))?;
    let changes = changes(old, config::effective::effective(config));
    if json {
        let rows: Vec<_> = changes
            .iter()
            .map(|Change { of, key, old, new }| {
                let side = |side: &Option<(String, String)>| side.as_ref().map(|(value, by)| json!({ "value": value, "by": by }));
                json!({ "of": of, "key": key, "old": side(old), "new": side(new) })
            })
            .collect();
        println!("{}", json!({ "ok": true, "file": path, "problems": [], "changes": rows }));
    } else {
        print!("{}: ok\n{}", path.display(), text(&changes));
    }
    Ok(ExitCode::SUCCESS)
}

fn changes(old: Vec<ShapingRow>, new: Vec<ShapingRow>) -> Vec<Change> {
    type Sides = (Option<(String, String)>, Option<(String, String)>);
    let mut rows: BTreeMap<(String, String), Sides> = BTreeMap::new();
    for ShapingRow { of, key, value, by } in old {
        rows.entry((of, key)).or_default().0 = Some((value, by));
    }
    for ShapingRow { of, key, value, by } in new {
        rows.entry((of, key)).or_default().1 = Some((value, by));
    }
    let value = |side: &Option<(String, String)>| side.as_ref().map(|(value, _)| value.clone());
    let changed = rows.into_iter().filter(|(_, (old, new))| value(old) != value(new));
    changed.map(|((of, key), (old, new))| Change { of, key, old, new }).collect()
}

fn text(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "a reload changes nothing in shaping, pools, sources, replies, rules and plans\n".to_owned();
    }
    let mut out = String::from("a reload changes:\n");
    for Change { of, key, old, new } in changes {
        let side = |side: &Option<(String, String)>| match side {
            Some((value, by)) => format!("{value} ({by})"),
            None => "nothing".to_owned(),
        };
        let _ = writeln!(out, "  {}", plain(&format!("{of}: {key}: {} -> {}", side(old), side(new))));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(of: &str, key: &str, value: &str, by: &str) -> ShapingRow {
        ShapingRow { of: of.into(), key: key.into(), value: value.into(), by: by.into() }
    }

    #[test]
    fn what_is_another_is_told_and_what_only_moved_is_not() {
        let old = vec![
            row("everywhere", "connections", "20", "shipped"),
            row("domain a.test", "rate", "1/1m", "local.toml:3"),
            row("provider x", "tls", "required", "local.toml:9"),
        ];
        let new = vec![
            row("everywhere", "connections", "30", "coop.toml:2"),
            row("domain a.test", "rate", "1/1m", "local.toml:4"),
            row("site b.test", "burst", "5", "local.toml:8"),
        ];
        assert_eq!(
            text(&changes(old, new)),
            "a reload changes:\n  everywhere: connections: 20 (shipped) -> 30 (coop.toml:2)\n  \
             provider x: tls: required (local.toml:9) -> nothing\n  site b.test: burst: nothing -> 5 (local.toml:8)\n"
        );
        assert_eq!(
            text(&changes(Vec::new(), Vec::new())),
            "a reload changes nothing in shaping, pools, sources, replies, rules and plans\n"
        );
    }
}
