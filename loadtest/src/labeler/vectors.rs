//! `labeler vectors`: labels and frames octet for octet, theirs by us and ours by them.
//!
//! Theirs: random labels with every optional field, odd times and values, signed by Ozone's `signLabel` and, with `neg: false`, by skyware's. We
//! must read them from JSON and from their frame, find the same octets under the signature, make the same signature with the same key, and write the
//! same JSON and the same frame. Ours: the other way round, frames through the parser of @atproto/xrpc-server, remarks and errors among them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use atproto::key::SigningKey;
use atproto::label::Label;
use atproto::stream::{self, Frame, error_frame, info_frame, labels_frame};
use data_encoding::HEXLOWER as HEX;
use serde_json::{Value, json};

use super::Peers;
use crate::process;

/// Of both sides.
const SECRET: [u8; 32] = [0x11; 32];

/// How many, and where to keep them.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// Labels of each side.
    #[arg(long, default_value_t = 1000)]
    count: usize,
    /// What decides the random ones.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write theirs into this file, too: the tests of the crate `atproto` keep some.
    #[arg(long)]
    write: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let peers = Peers::install()?;
    let (count, seed) = (arguments.count.to_string(), arguments.seed.to_string());
    let theirs = process::output(peers.node("vectors.mjs").args(["make", &count, &seed]))?;
    if let Some(file) = &arguments.write {
        std::fs::write(file, &theirs).with_context(|| file.display().to_string())?;
    }
    let key = SigningKey::from_octets(&SECRET)?;
    let mut lines = theirs.lines();
    let head: Value = serde_json::from_str(lines.next().context("no labels")?)?;
    ensure!(head["key"] == key.verifying_key().did_key(), "their key is another: {head}");
    let mut read = 0;
    for line in lines {
        check(&serde_json::from_str(line)?, &key).with_context(|| line.to_owned())?;
        read += 1;
    }
    ensure!(read == arguments.count, "{read} labels of theirs, not {}", arguments.count);
    println!("theirs {read:6} labels: read, verified and written again, octet for octet");

    let ours = ours(arguments.count, arguments.seed, &key)?;
    let mut checker = peers.node("vectors.mjs").arg("check").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = checker.stdin.take().context("no input")?;
    // It answers at the end only, so that nobody waits for anybody.
    input.write_all(ours.as_bytes())?;
    drop(input);
    let output = checker.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !said.starts_with("ok ") {
        bail!("they do not accept ours: {said}");
    }
    println!(
        "ours   {:6} labels: accepted by @atproto/xrpc-server, @atproto/crypto and @atproto/ozone ({})",
        arguments.count,
        said.trim()
    );
    Ok(())
}

/// One of theirs.
fn check(theirs: &Value, key: &SigningKey) -> Result<()> {
    let label = Label::from_json(&theirs["label"])?;
    label.verify(&label.src, &key.verifying_key())?;
    ensure!(theirs["cbor"] == HEX.encode(&label.signed_octets()), "other octets under the signature");
    let mut again = label.clone();
    again.sig = None;
    again.sign(key);
    ensure!(again.sig == label.sig, "another signature");
    ensure!(label.to_json() == theirs["label"], "other JSON: {}", label.to_json());
    ensure!(serde_json::from_str::<Value>(&label.to_json_text())? == theirs["label"], "other JSON as text");
    let seq = theirs["seq"].as_u64().context("no number")?;
    let frame = HEX.decode(theirs["frame"].as_str().unwrap_or_default().as_bytes())?;
    ensure!(labels_frame(seq, &label.to_cbor()) == frame, "another frame");
    ensure!(stream::read(&frame)? == Frame::Labels { seq, labels: vec![Ok(label)] }, "the frame is read otherwise");
    Ok(())
}

/// Ours, one a line, and a remark and an error at the end.
fn ours(count: usize, seed: u64, key: &SigningKey) -> Result<String> {
    let mut dice = Dice(seed);
    let mut lines = String::new();
    for _ in 0..count {
        let mut label = random(&mut dice)?;
        label.sign(key);
        let seq = dice.next() >> (11 + dice.below(50));
        let line = json!({
            "key": key.verifying_key().did_key(),
            "label": label.to_json(),
            "cbor": HEX.encode(&label.signed_octets()),
            "seq": seq,
            "frame": HEX.encode(&labels_frame(seq, &label.to_cbor())),
        });
        writeln!(lines, "{line}")?;
    }
    let info = info_frame(stream::OUTDATED_CURSOR, "a remark");
    writeln!(lines, "{}", json!({ "info": stream::OUTDATED_CURSOR, "frame": HEX.encode(&info) }))?;
    for name in [stream::FUTURE_CURSOR, stream::CONSUMER_TOO_SLOW] {
        writeln!(lines, "{}", json!({ "error": name, "frame": HEX.encode(&error_frame(name, "an error")) }))?;
    }
    Ok(lines)
}

fn random(dice: &mut Dice) -> Result<Label> {
    let account = if dice.below(2) == 0 {
        format!("did:plc:{}", dice.text(24))
    } else {
        let length = 1 + dice.below(200);
        format!("did:web:{}.example", dice.text(length))
    };
    let values = ["verified-mail-operator", "relay-member", "clean-sender"];
    let value = values[usize::try_from(dice.below(3))?];
    let mut time = || std::time::UNIX_EPOCH + std::time::Duration::from_millis(dice.next() % 4_000_000_000_000);
    let (cts, exp) = (atproto::datetime(time()), atproto::datetime(time()));
    let mut label = Label::account(
        "did:web:labeler.example.test".parse().map_err(anyhow::Error::msg)?,
        &account.parse().map_err(anyhow::Error::msg)?,
        value,
        cts,
    );
    // As our labeler writes them: what is taken back has no end.
    match dice.below(3) {
        0 => label.neg = Some(true),
        1 => label.exp = Some(exp),
        _ => {}
    }
    Ok(label)
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    fn text(&mut self, length: u64) -> String {
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
        (0..length).map(|_| char::from(LETTERS[usize::try_from(self.below(32)).unwrap_or(0)])).collect()
    }
}
