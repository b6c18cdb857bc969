//! Tidy: the rules of ARCHITECTURE.md that the compiler does not keep.
//!
//! Who may depend on whom is read from the manifests; who may name a clock, `unsafe`, HTTP or a
//! private key is read from the sources. A rule that has to give way is changed here, in the open.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every `.rs` file below `place`, with its path from the root and its code without comments.
fn sources(place: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(place)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target" && name != "node_modules") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                let code = fs::read_to_string(&path).unwrap();
                // Unit tests may do what their code may not; they stand at the end of a file.
                let code = code.split("#[cfg(test)]").next().unwrap_or("");
                let code: Vec<&str> = code.lines().map(|line| line.split("//").next().unwrap_or("")).collect();
                found.push((name, code.join("\n")));
            }
        }
    }
    assert!(!found.is_empty(), "no sources below {place}: is the rule still about something?");
    found
}

/// Files below `places` that contain one of `words`, apart from `allowed` prefixes.
fn offenders(places: &[&str], words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for place in places {
        for (name, code) in sources(place) {
            if allowed.iter().any(|prefix| name.starts_with(prefix)) {
                continue;
            }
            for word in words {
                if code.contains(word) {
                    found.push(format!("{name} says `{word}`"));
                }
            }
        }
    }
    found
}

fn check_none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

/// Names in the `[dependencies]` table of a manifest.
fn dependencies(manifest: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(manifest)).unwrap();
    let mut inside = false;
    let mut names = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            inside = line.trim() == "[dependencies]";
        } else if inside && let Some((name, _)) = line.split_once(['.', '=']) {
            names.push(name.trim().to_owned());
        }
    }
    names
}

const TESTS: &[&str] = &[
    "mta/tests/",
    "mta/host/tests/",
    "mta/smtp/tests/",
    "mta/scheduler/tests/",
    "mta/simulate/tests/",
    "mta/simulate/examples/",
    "labeler/tests/",
    "labeler/atproto/tests/",
    "labeler/fuzz/tests/",
];

#[test]
fn only_host_is_unsafe() {
    let word = concat!("uns", "afe ");
    // The labeler cannot use `host` (ARCHITECTURE: it uses only atproto), and opening an LMDB
    // environment and letting go of its map have no safe form: the calls stand in a file of their own.
    let allowed = [&["mta/host/", "labeler/src/store/env.rs"], TESTS].concat();
    check_none("only host may be unsafe", &offenders(&["mta", "labeler", "loadtest/src"], &[word], &allowed));
}

#[test]
fn only_host_reads_clocks_and_throws_dice() {
    let words =
        [concat!("SystemTime::", "now"), concat!("Instant::", "now"), "SystemRandom", " rand::", "Timestamp::now", "Zoned::now"];
    let allowed = [&["mta/host/", "labeler/src/outside.rs", "mta/cli/", "mta/src/sign/"], TESTS].concat();
    check_none("only host knows the time", &offenders(&["mta", "labeler"], &words, &allowed));
    let clocks = [concat!("SystemTime::", "now"), concat!("Instant::", "now")];
    check_none("signing is told the time", &offenders(&["mta/src/sign"], &clocks, &[]));
}

#[test]
fn the_pure_crates_have_no_way_to_do_io() {
    for manifest in [
        "mta/smtp/Cargo.toml",
        "mta/scheduler/Cargo.toml",
        "mta/simulate/Cargo.toml",
        "labeler/atproto/Cargo.toml",
        "labeler/vouch/Cargo.toml",
    ] {
        for name in dependencies(manifest) {
            let impure = [
                "tokio",
                "tokio-uring",
                "hyper",
                "axum",
                "hickory-resolver",
                "heed",
                "host",
                "mta",
                "labeler",
                "rustls",
                "socket2",
            ];
            assert!(!impure.contains(&name.as_str()), "{manifest} depends on {name}");
        }
    }
    let words = ["std::net::Tcp", "std::net::Udp", "std::fs", "std::thread", "async fn"];
    check_none(
        "pure means pure",
        &offenders(
            &["mta/smtp/src", "mta/scheduler/src", "mta/simulate/src", "labeler/atproto/src", "labeler/vouch/src"],
            &words,
            &[],
        ),
    );
}

#[test]
fn crates_know_only_whom_they_may() {
    let ours = ["smtp", "scheduler", "simulate", "host", "atproto", "vouch", "mta", "labeler", "fuzz", "loadtest"];
    let table: &[(&str, &[&str])] = &[
        ("mta/smtp/Cargo.toml", &[]),
        ("mta/scheduler/Cargo.toml", &[]),
        ("mta/simulate/Cargo.toml", &["scheduler"]),
        ("mta/host/Cargo.toml", &[]),
        ("labeler/atproto/Cargo.toml", &[]),
        ("labeler/vouch/Cargo.toml", &["atproto"]),
        ("labeler/Cargo.toml", &["atproto", "vouch"]),
        ("labeler/fuzz/Cargo.toml", &["smtp", "atproto", "labeler"]),
        // The console tries a plan before it is put in force.
        ("mta/Cargo.toml", &["smtp", "scheduler", "simulate", "host", "atproto"]),
        ("mta/cli/Cargo.toml", &["smtp", "simulate", "host", "atproto", "vouch", "mta", "labeler", "loadtest"]),
        // The daemons themselves only for their stores: millions of messages, and labels, are put there without a session for each.
        ("loadtest/Cargo.toml", &["smtp", "scheduler", "host", "atproto", "mta", "labeler"]),
    ];
    for (manifest, may) in table {
        for name in dependencies(manifest) {
            assert!(!ours.contains(&name.as_str()) || may.contains(&name.as_str()), "{manifest} may not depend on {name}");
        }
    }
}

#[test]
fn host_knows_no_mail() {
    check_none("host knows no mail", &offenders(&["mta/host/src"], &["RCPT", "Mailbox", "smtp::", "scheduler::"], &[]));
}

#[test]
fn http_stays_in_control() {
    let words = ["axum::", " hyper::", "hyper_util::", "hyper_rustls::", "redis::", "rskafka::"];
    check_none("only mta/src/control speaks HTTP", &offenders(&["mta/src"], &words, &["mta/src/control/"]));
}

#[test]
fn private_keys_stay_in_sign() {
    let words = ["aws_lc_rs", "ring::signature", "Ed25519KeyPair", "RsaKeyPair"];
    check_none(
        "only mta/src/sign touches private keys",
        &offenders(&["mta/src", "mta/smtp", "mta/scheduler"], &words, &["mta/src/sign/"]),
    );
}

#[test]
fn no_test_is_switched_off() {
    let words = [concat!("#[ig", "nore"), concat!("to", "do!("), concat!("unimpl", "emented!(")];
    check_none("a test runs or does not exist", &offenders(&["mta", "labeler", "loadtest", "benches"], &words, &[]));
}

#[test]
fn the_top_level_is_as_agreed() {
    let agreed = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "mta",
        "labeler",
        "lexicons",
        "benches",
        "loadtest",
        "systemd",
        "target",
    ];
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with('.') || agreed.contains(&name.as_str()), "{name} does not belong at the top");
    }
}
