//! `labeler setup`: an account of a real PDS, with a did:plc of a real directory, becomes a labeler by `tradewind-labeler setup`.
//!
//! Twice, as an operator may do it: with a rotation key, and with the code that the PDS mails. Then the DID document must name the key that the
//! labeler signs with, the record must be one that the PDS finds valid, and a second run must find nothing to do.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use atproto::did::Document;
use serde_json::Value;

use super::settings;
use crate::interop::install::Tools;
use crate::interop::network::{Account, Mail, Network, PASSWORD, ROTATION_KEY_HEX};
use crate::process;
use crate::tls::Certificate;

const ENDPOINT: &str = "https://labeler.example.test";
const MAIL_WAIT: Duration = Duration::from_secs(30);

/// Nothing to choose.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments) -> Result<()> {
    let tools = Tools::install()?;
    let temporary = tempfile::Builder::new().prefix("tradewind-setup-").tempdir()?;
    let at = temporary.path();
    let mut network = Network::start(&tools, at)?;
    let (address, mail) = receive_mail()?;
    // Any authority will do: this mail goes without TLS.
    Certificate::generate(&["localhost"])?.write_to(at)?;
    let ca = at.join("ca.pem");
    network.restart_pds(&Mail { smtp_url: &format!("smtp://{address}"), from: "pds@member.test", ca: &ca })?;
    std::fs::write(at.join("password"), PASSWORD)?;
    std::fs::write(at.join("rotation.key"), ROTATION_KEY_HEX)?;

    let account = network.create_account("labeler-one.test", "one@member.test")?;
    let said = setup(&network, at, "one", &account, &["--rotation-key", "rotation.key"])?;
    check(&network, at, "one", &account, &said)?;
    println!("setup with a rotation key            ok");

    let account = network.create_account("labeler-two.test", "two@member.test")?;
    while mail.try_recv().is_ok() {}
    let refused = setup(&network, at, "two", &account, &[]);
    ensure!(refused.as_ref().is_err_and(|error| error.to_string().contains("--token")), "no code was asked for: {refused:?}");
    let code = loop {
        let text = mail.recv_timeout(MAIL_WAIT).context("no mail of the PDS came")?;
        if let Some(code) = code_in(&text) {
            break code;
        }
    };
    let said = setup(&network, at, "two", &account, &["--token", &code])?;
    check(&network, at, "two", &account, &said)?;
    println!("setup with the code that was mailed  ok");
    Ok(())
}

/// Runs the command; what it says, or an error with it.
fn setup(network: &Network, at: &Path, name: &str, account: &Account, more: &[&str]) -> Result<String> {
    let folder = at.join(name);
    std::fs::create_dir_all(&folder)?;
    let config = folder.join("labeler.toml");
    std::fs::write(&config, settings(&folder, &account.did, "127.0.0.1:0", network.plc_url(), ""))?;
    let lexicons = concat!(env!("CARGO_MANIFEST_DIR"), "/../lexicons");
    let mut command = Command::new(process::own("tradewind-labeler")?);
    command.current_dir(at).arg("--config").arg(&config).args(["setup", "--endpoint", ENDPOINT, "--pds", network.pds_url()]);
    command.args(["--password-file", "password", "--publish-lexicons", lexicons]).args(more);
    process::output(&mut command)
}

fn check(network: &Network, at: &Path, name: &str, account: &Account, said: &str) -> Result<()> {
    ensure!(said.contains("app.bsky.labeler.service/self (valid)"), "the record is not one that the PDS finds valid:\n{said}");
    ensure!(said.contains("_lexicon.atmos.email TXT"), "the lexicons were not published:\n{said}");
    let document = network.document(account)?;
    let did = account.did.parse().map_err(anyhow::Error::msg)?;
    let document = Document::parse(document.to_string().as_bytes(), &did)?;
    let secret = std::fs::read_to_string(at.join(name).join("labeler.key"))?;
    let secret = data_encoding::HEXLOWER.decode(secret.trim().as_bytes())?;
    let key = atproto::key::SigningKey::from_octets(&secret)?.verifying_key();
    ensure!(document.label_key()? == key, "the document names another key");
    ensure!(document.labeler().as_deref() == Some(ENDPOINT), "the document names {:?}", document.labeler());
    ensure!(document.pds().is_some() && document.atproto_key().is_ok(), "the account lost its own key or PDS");
    let again = setup(network, at, name, account, &[])?;
    ensure!(
        again.matches("already").count() >= 3 && !again.contains("published at://"),
        "a second run changed something:\n{again}"
    );
    let record: Value = network.record(account, "app.bsky.labeler.service", "self")?;
    ensure!(record["value"]["policies"]["labelValues"].as_array().is_some_and(|values| values.len() == 3), "{record}");
    Ok(())
}

/// The code is of five letters and digits, a hyphen, and five.
pub(super) fn code_in(mail: &str) -> Option<String> {
    let plain = mail.replace("=\n", "");
    let of_code = |octet: u8| octet.is_ascii_uppercase() || (b'2'..=b'7').contains(&octet);
    let code = |word: &&str| {
        let octets = word.as_bytes();
        octets.len() == 11 && octets[5] == b'-' && octets.iter().enumerate().all(|(n, octet)| n == 5 || of_code(*octet))
    };
    plain.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-').find(code).map(str::to_owned)
}

/// A server that accepts all mail and hands it on.
pub(super) fn receive_mail() -> Result<(SocketAddr, Receiver<String>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A session that breaks off is the PDS's to repeat.
            let _ = converse(stream, &sender);
        }
    });
    Ok((address, receiver))
}

fn converse(stream: TcpStream, mail: &Sender<String>) -> Result<()> {
    let mut out = stream.try_clone()?;
    let mut lines = BufReader::new(stream).lines();
    out.write_all(b"220 sink\r\n")?;
    while let Some(line) = lines.next() {
        match line?.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
            "DATA" => {
                out.write_all(b"354 go on\r\n")?;
                let mut text = String::new();
                loop {
                    let line = lines.next().context("a message breaks off")??;
                    if line == "." {
                        break;
                    }
                    text.push_str(&line);
                    text.push('\n');
                }
                mail.send(text)?;
                out.write_all(b"250 ok\r\n")?;
            }
            "QUIT" => {
                out.write_all(b"221 bye\r\n")?;
                return Ok(());
            }
            _ => out.write_all(b"250 ok\r\n")?,
        }
    }
    bail!("the session breaks off")
}
