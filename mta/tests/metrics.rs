//! Metrics: what the code counts is in the table, and whoever looks at metrics asks for what is counted.
//!
//! The code is read as text, so that a name or a label beside the table is found before anybody scrapes it.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use mta::control::metrics::{self, Kind, Metric, Sizes, TABLE};

fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(crate_dir().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The daemon's sources without its tests.
fn sources() -> Vec<(PathBuf, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![crate_dir().join("src")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            match path.extension() {
                _ if stem == "tests" || stem.ends_with("_tests") => {}
                None => folders.push(path),
                Some(ending) if ending == "rs" => {
                    let code = fs::read_to_string(&path).unwrap();
                    found.push((path, code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()));
                }
                Some(_) => {}
            }
        }
    }
    found
}

/// What stands between the parenthesis that was just opened and the one that closes it.
fn within(code: &str) -> &str {
    let mut depth = 1;
    let end = code.find(|c| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth == 0
    });
    &code[..end.unwrap()]
}

/// Labels of a call: words in quotes before an arrow.
fn labels(call: &str) -> Vec<&str> {
    let before_arrows = call.match_indices("=>").map(|(at, _)| &call[..at]);
    before_arrows.filter_map(|before| before.trim_end().strip_suffix('"')?.rsplit('"').next()).collect()
}

#[test]
fn whoever_counts_does_it_by_the_table() {
    let mut used = BTreeSet::new();
    for (path, code) in sources() {
        for kind in ["counter", "gauge", "histogram"] {
            let whole = format!("{kind}!(");
            for (at, _) in code.match_indices(&whole) {
                if code[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
                    continue; // describe_counter!
                }
                let call = within(&code[at + whole.len()..]);
                let name = call.split(',').next().unwrap().trim();
                let constant = name.rsplit("::").next().unwrap();
                let place = path.display();
                let Some(metric) = TABLE.iter().find(|metric| metric.constant == constant && name.contains("::")) else {
                    panic!("{place}: {kind}!({name}): the name is to be one of the table in control/metrics.rs");
                };
                let its_kind = match metric.kind {
                    Kind::Counter => "counter",
                    Kind::Gauge => "gauge",
                    Kind::Histogram(_) => "histogram",
                };
                assert_eq!(kind, its_kind, "{place}: {name}");
                let expected: Vec<&str> = metric.labels.iter().map(|(label, _)| *label).collect();
                assert_eq!(labels(call), expected, "{place}: {name}");
                used.insert(metric.constant);
            }
        }
    }
    let unused: Vec<&Metric> = TABLE.iter().filter(|metric| !used.contains(metric.constant)).collect();
    assert!(unused.is_empty(), "nobody counts {unused:?}");
}

#[test]
fn the_page_is_what_the_table_says() {
    let (path, page) = (crate_dir().join("docs/metrics.md"), metrics::page());
    if std::env::var_os("WRITE_METRICS_PAGE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    assert!(read("docs/metrics.md") == page, "make it anew: WRITE_METRICS_PAGE=1 cargo test --workspace --test metrics");
}

#[test]
fn series_follow_the_configuration() {
    let some = Sizes { sources: 4, providers: 33, zones: 4, climbs: 16 };
    let more = Sizes { climbs: 17, ..some };
    let each_climb: usize = metrics::series_max(more) - metrics::series_max(some);
    // Five gauges, codes beyond the allowance, and decisions by rule.
    assert_eq!(each_climb, 5 + 1 + 13);
    assert!(metrics::series_max(some) < 1000, "{}", metrics::series_max(some));
}

#[test]
fn alerts_and_dashboard_ask_for_what_is_counted() {
    for file in ["monitoring/alerts.yml", "monitoring/alerts.test.yml", "monitoring/dashboard.json"] {
        let text = read(file);
        let mut found = 0;
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("mta_")) {
            let known = TABLE.iter().any(|metric| match (metric.kind, word.strip_prefix(metric.name)) {
                (Kind::Histogram(_), Some(rest)) => ["_bucket", "_sum", "_count"].contains(&rest),
                (_, rest) => rest == Some(""),
            });
            assert!(known, "{file} asks for {word}, which nobody counts");
            found += 1;
        }
        assert!(found > 10, "{file} asks for next to nothing");
    }
}

#[test]
fn every_alert_has_its_incident() {
    let (alerts, tests) = (read("monitoring/alerts.yml"), read("monitoring/alerts.test.yml"));
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 10);
    for name in names {
        let fires = tests.lines().any(|line| line.trim() == format!("alertname: {name}"));
        let quiet = tests.lines().any(|line| line.contains(&format!("alertname: {name}, exp_alerts: []")));
        assert!(fires && quiet, "{name}: alerts.test.yml is to show it firing, and quiet in a normal week");
    }
}
