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
async fn a_store_in_use_exits_1_and_says_so() {
    let world = World::start().await;
    let mut child = program(&world.folder().join("labeler.toml"));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(said.contains("another process has it open"), "{said}");
}
