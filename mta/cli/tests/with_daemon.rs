//! The command against a daemon's admin socket, with a real queue behind it.

// Clippy takes the helpers of an integration test for product code.
#![allow(clippy::unwrap_used)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use host::{Clock, Dice};
use mta::{
    config::Config,
    control::{
        admin::{Admin, AdminSocket, Stage},
        daemon::{Daemon, Parts},
    },
    egress::{question::questions, resolver::route_questions},
    queue::{Options, Writer},
};
use serde_json::Value;

const SETTINGS: &str = r#"hostname = "relay.example.test"
data_dir = "data"
[[listen]]
address = "127.0.0.1:2587"
role = "submission"
[tls]
certificate = "cert.pem"
private_key = "key.pem"
[[source]]
name = "ip-a"
address = "192.0.2.7"
ehlo = "a.relay.example.test"
[[tier]]
name = "small"
messages_per_hour = 60
messages_per_day = 500
queue_messages_max = 100
"#;

/// Serves on a thread until the test's process ends.
fn start(folder: &Path) -> PathBuf {
    let file = folder.join("mta.toml");
    std::fs::write(&file, SETTINGS).unwrap();
    let config = Arc::new(Config::load_alone(&file).unwrap());
    let (bound, is_bound) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let (notes, _) = tokio::sync::mpsc::channel(64);
            let options = Options { map_bytes: 64 << 20, segment_bytes: 1 << 20, free_bytes_floor: 0, ..Options::default() };
            let (writer, queue, reader) = Writer::open(&config.data_dir, Clock::system(), options, notes).unwrap();
            tokio::task::spawn_local(writer.run());
            let socket = AdminSocket::bind(&config.admin_socket()).await.unwrap();
            let (scheduler, routes) = (questions().0, route_questions().0);
            let (clock, dice) = (Clock::system(), Dice::system());
            let parts = Parts { config, queue, reader, scheduler, routes, clock, dice, io: "epoll".into() };
            let (_stage, stage) = tokio::sync::watch::channel(Stage::Ready);
            let operations = Arc::new(Daemon::open(parts).unwrap());
            bound.send(()).unwrap();
            let gate = operations.gate();
            socket.serve(Admin::new(operations, None, stage, gate)).await;
        });
    });
    is_bound.recv().unwrap();
    file
}

struct Run {
    code: i32,
    out: String,
    err: String,
}

fn tradewind(file: &Path, line: &str) -> Run {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tradewind"));
    // From another folder: paths in the file are relative to the file.
    let command = command.arg("--config").arg(file).args(line.split(' ')).current_dir("/");
    let output = command.output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    Run { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn json(file: &Path, line: &str) -> Value {
    let run = tradewind(file, &format!("{line} --json"));
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{line}");
    serde_json::from_str(&run.out).unwrap()
}

#[test]
fn the_operator_enrols_looks_rotates_and_removes() {
    let folder = tempfile::tempdir().unwrap();
    let file = start(folder.path());

    let added = json(&file, "member add --did did:plc:abc --domain host.example --class otp,transactional");
    let password = added["password"].as_str().unwrap();
    assert_eq!(added["username"], "host.example");
    assert_eq!(added["smtp_url"], format!("smtp://host.example:{password}@relay.example.test:2587"));
    for record in added["dns_records"].as_array().unwrap() {
        let mut keys: Vec<_> = record.as_object().unwrap().keys().collect();
        keys.sort();
        assert_eq!(keys, ["name", "type", "value"]);
    }
    let shown = tradewind(&file, "member add --did did:web:localhost%3A3100 --domain other.example").out;
    assert!(shown.contains("\nPDS_EMAIL_SMTP_URL=smtp://other.example:tw_"), "{shown}");
    assert!(shown.contains("\n_atproto.other.example. TXT \"did=did:web:localhost%3A3100\"\n"), "{shown}");

    assert_eq!(json(&file, "member list").as_array().unwrap().len(), 2);
    assert_eq!(json(&file, "member show did:web:localhost%3A3100")["domains"][0], "other.example");
    assert_eq!(json(&file, "member suspend host.example")["suspended"], true);
    let list = tradewind(&file, "member list").out;
    let words: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[1], ["did:plc:abc", "host.example", "suspended", "default"], "{list}");
    assert_eq!(json(&file, "member resume host.example")["admitted"], true);

    let second = json(&file, "member add --did did:plc:abc --domain host.example");
    let all = json(&file, "credential list host.example");
    let [first, newest] = &all.as_array().unwrap()[..] else { panic!("{all}") };
    let renewed = json(&file, &format!("credential rotate host.example {} --why changed", newest["id"]));
    assert!(renewed["username"] == "host.example" && renewed["password"] != second["password"], "{renewed}");
    let gone = tradewind(&file, &format!("credential revoke did:plc:abc {} --why leaked", newest["id"]));
    assert_eq!(gone.out, format!("nobody can sign in with credential {} of host.example any more\n", newest["id"]));
    let left = json(&file, "credential list host.example");
    assert_eq!((left.as_array().unwrap().len(), &left[0]["id"]), (1, &first["id"]));
    let audit = json(&file, "audit");
    assert!(audit["rows"][0]["why"] == "leaked" && audit["rows"][1]["why"] == "changed", "{audit}");

    let set = json(&file, "member set host.example --tier small");
    assert_eq!((&set["tier"], &set["spending"]["messages_per_day"]), (&Value::from("small"), &Value::from(500)));
    let shown = tradewind(&file, "member show host.example").out;
    for line in [
        "tier      small, weight 1\n",
        "rate      60 an hour, 50 at once; 50 now\n",
        "today     0 sent of 500\n",
        "queue     0 messages of 100, 0 octets\n",
    ] {
        assert!(shown.contains(line), "{line:?} in {shown}");
    }
    let unknown = tradewind(&file, "member set host.example --tier huge");
    assert_eq!(unknown.err, "tradewind: there is no tier \"huge\"; the settings have: small, default\n");

    assert_eq!(json(&file, "key list").as_array().unwrap().len(), 4);
    assert_eq!(json(&file, "key rotate --domain host.example").as_array().unwrap().len(), 2);
    assert_eq!(json(&file, "key remove --domain host.example --algorithm rsa").as_array().unwrap().len(), 2);
    assert_eq!(json(&file, "queue list")["deliveries"].as_array().unwrap().len(), 0);
    assert_eq!(tradewind(&file, "queue list --site big.example").out, "nothing is queued\n");
    assert_eq!(json(&file, "status")["members"], 2);

    let gone = tradewind(&file, "member remove did:plc:abc");
    assert_eq!((gone.code, gone.out.as_str()), (0, "did:plc:abc is no longer a member; what it had queued still goes out\n"));
    let unknown = tradewind(&file, "member show did:plc:abc");
    assert_eq!((unknown.code, unknown.out.as_str()), (1, ""));
    assert_eq!(unknown.err, "tradewind: did:plc:abc is no member; `tradewind member list` shows them all\n");
}

#[test]
fn the_audit_says_who_changed_what_the_newest_first() {
    let folder = tempfile::tempdir().unwrap();
    let file = start(folder.path());
    assert_eq!(tradewind(&file, "audit").out, "nothing was changed\n");
    let password = json(&file, "member add --did did:plc:abc --domain host.example")["password"].as_str().unwrap().to_owned();
    json(&file, "member set host.example --tier small");
    json(&file, "key rotate --domain host.example");
    assert_eq!(tradewind(&file, "member set host.example --tier huge").code, 1);

    let page = json(&file, "audit");
    let rows = page["rows"].as_array().unwrap();
    let is = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let numbers: Vec<_> = rows.iter().map(|row| row["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [4, 3, 2, 1], "{page}");
    let outcomes: Vec<_> = rows.iter().map(|row| is(row, "outcome")).collect();
    assert_eq!(outcomes, ["refused", "done", "done", "done"], "{page}");
    assert_eq!((&rows[2]["before"]["tier"], &rows[2]["after"]["tier"]), (&"default".into(), &"small".into()), "{page}");
    assert!(!page.to_string().contains(&password), "no secret is kept");

    // The same for people, in columns.
    let text = tradewind(&file, "audit").out;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("NUMBER") && lines[0].ends_with("WHAT") && lines.len() == 5, "{text}");
    assert!(lines[3].starts_with('2') && lines[3].contains("\"small\""), "{text}");

    // Filters, and pages.
    let who = is(&rows[0], "who");
    let count = |line: &str| json(&file, line)["rows"].as_array().unwrap().len();
    assert_eq!((count(&format!("audit --who {}", who.replace(' ', "_"))), count("audit --about /v1/keys")), (0, 1));
    assert_eq!((count("audit --about /v1/members"), count("audit --about /v1/plans")), (3, 0));
    let first = tradewind(&file, "audit --limit 3");
    assert!(first.out.ends_with("… and older: --before 2\n"), "{}", first.out);
    let rest = json(&file, "audit --limit 3 --before 2");
    assert_eq!((rest["rows"].as_array().unwrap().len(), &rest["rows"][0]["number"]), (1, &1.into()));
}
