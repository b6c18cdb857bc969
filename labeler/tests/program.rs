//! The program: ready, signals, exit codes.
#![allow(clippy::unwrap_used, reason = "tests end where something is wrong")]

mod world;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use world::{BOTH, World};

fn program(config: &std::path::Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tradewind-labeler"));
    command.arg("--config").arg(config).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn it_says_ready_stops_on_sigterm_and_keeps_what_it_knew() {
    let mut world = World::start().await;
    let account = world.member("alice.test", "member.example").await;
    world.stop_labeler().await;
    let mut child = program(&world.folder().join("labeler.toml"));
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    for _ in 0..2 {
        line.clear();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        if child.try_wait().unwrap().is_none() {
            signal(&child, "-HUP");
        }
    }
    signal(&child, "-TERM");
    assert!(child.wait().unwrap().success());
    world.start_labeler().await;
    world.until_labels(&account, &BOTH).await;
}

#[tokio::test]
async fn a_wrong_configuration_exits_2_with_file_line_and_key() {
    let world = World::start().await;
    let file = world.folder().join("wrong.toml");
    std::fs::write(&file, world.settings().replace("interval", "intervall")).unwrap();
    let mut child = program(&file);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    assert!(said.contains("wrong.toml:13: key `verify.intervall`"), "{said}");
}

#[tokio::test]
async fn a_dry_run_says_what_to_publish_and_its_exit_status_whether_all_is_in_order() {
    let world = World::start().await;
    let account = world.net.create_account("alice.test");
    world.publish(&account, "member.example", &["s1"]);
    let config = world.folder().join("labeler.toml");
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tradewind-labeler"));
        let output =
            command.args(["check", "Member.Example", "--selector", "s1", "--config"]).arg(&config).args(more).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = run(&[]);
    assert_eq!((code, said.lines().next()), (0, Some("member.example: all is in order")), "{said}");
    let (code, said) = run(&["--did", "did:plc:other", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &json["verdict"]), (1, &"fail".into()));
    let control = json["checks"].as_array().unwrap().iter().find(|check| check["kind"] == "control").unwrap();
    assert_eq!(control["publish"]["value"], "did=did:plc:other");
    world.zone.remove("s1._domainkey.member.example");
    let (code, said) = run(&["--did", account.did.as_str()]);
    assert!(code == 1 && said.contains("publish: s1._domainkey.member.example TXT v=DKIM1"), "{said}");
    assert_eq!(run(&["--did", "nobody"]).0, 2);
}

#[tokio::test]
async fn a_store_in_use_exits_1_and_says_so() {
    let world = World::start().await;
    let mut child = program(&world.folder().join("labeler.toml"));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(said.contains("another process has it open"), "{said}");
}

#[tokio::test]
async fn a_backup_is_taken_while_it_runs_and_put_in_place_while_it_does_not() {
    let mut world = World::start().await;
    let account = world.member("alice.test", "member.example").await;
    let (config, copy) = (world.folder().join("labeler.toml"), world.folder().join("copy"));
    let run = |verb: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tradewind-labeler"));
        let output = command.arg("--config").arg(&config).arg(verb).arg(&copy).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run("backup"), (0, String::new()));
    let (code, said) = run("backup");
    assert!(code == 1 && said.contains("exists already"), "{said}");
    let (code, said) = run("restore");
    assert!(code == 1 && said.contains("another process has it open"), "{said}");
    world.stop_labeler().await;
    let (code, said) = run("restore");
    assert!(code == 1 && said.contains("move it away first"), "{said}");
    std::fs::rename(world.folder().join("data"), world.folder().join("lost")).unwrap();
    assert_eq!(run("restore"), (0, String::new()));
    world.start_labeler().await;
    world.until_labels(&account, &BOTH).await;
    // Both are looked at and said again, with numbers that were never used.
    while world.labeler.as_ref().unwrap().store().last_seq().unwrap() != (1 << 32) + 4 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    world.until_labels(&account, &BOTH).await;
}
