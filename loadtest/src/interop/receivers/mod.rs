//! `receivers`: the real daemon delivers to real hosts on loopback: Postfix, Exim, OpenSMTPD, Haraka, aiosmtpd.
//!
//! Each gets three messages: one with dots at the beginning of lines and a line of 998 octets, for three recipients of whom the
//! host refuses one; one with octets above 127; one to an address that needs SMTPUTF8, if it offers that. What has arrived is
//! compared octet by octet below the header section, its three signatures are verified by dkimpy, and the trace field of the
//! host says whether it came under TLS. The sender must be told of the refused recipient, and of the address where SMTPUTF8 is
//! not offered. What each host offers is printed.
//!
//! OpenSMTPD as Debian 12 ships it offers STARTTLS and then fails every handshake with the daemon, with an elliptic and with an RSA key
//! (its way of keeping keys apart does not work with OpenSSL 3). Nothing was promised, so to it mail must arrive in clear text,
//! and it does. Haraka is told to leave long lines alone.

mod hosts;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use self::hosts::{Host, Kind};
use super::install::Tools;
use super::{PATIENCE, SIGNATURES, coop_records, publish, verify};
use crate::daemon::{Daemon, MEMBER_DID, MEMBER_DOMAIN, Setup, Signatures};
use crate::dns::{self, Zone};
use crate::postfix::Postfix;
use crate::sink::{Provider, Script, Sink};
use crate::source::{Client, Target, Tls};
use crate::tls::{Certificate, client_that_trusts_all};

/// Users that every host has.
const MAILBOXES: [&str; 3] = ["one", "two", "jürgen"];

/// What to try.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Only these hosts, such as `exim`.
    #[arg(long)]
    only: Vec<String>,
    /// Keep logs and mail in this directory instead of a temporary one.
    #[arg(long)]
    directory: Option<PathBuf>,
}

impl Arguments {
    /// Those that are wanted of `only`; everything if that is empty. None: nothing of it is a host.
    pub(super) fn of(only: &[String], directory: Option<&Path>) -> Option<Self> {
        let hosts: Vec<String> = only.iter().filter(|name| Kind::ALL.iter().any(|kind| kind.name() == **name)).cloned().collect();
        let directory = directory.map(|path| path.join("receivers"));
        (only.is_empty() || !hosts.is_empty()).then_some(Self { only: hosts, directory })
    }
}

/// Delivers to each host and prints a line for it; an error when one failed.
pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(why) = Postfix::unavailable().filter(|why| why.contains("root")) {
        bail!("{why}; run as root");
    }
    let tools = Tools::install()?;
    tools.install_receivers()?;
    let temporary = tempfile::Builder::new().prefix("tradewind-receivers-").tempdir()?;
    let directory = arguments.directory.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(directory)?;
    std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let world = World::build(directory)?;
    let mut failed = 0;
    let wanted = |kind: &Kind| arguments.only.is_empty() || arguments.only.iter().any(|only| only == kind.name());
    for kind in Kind::ALL.into_iter().filter(wanted) {
        match world.deliver(kind, &tools, directory) {
            Ok(said) => println!("host {:10} ok      {said}", kind.name()),
            Err(error) => {
                failed += 1;
                println!("host {:10} FAILED  {error:#}", kind.name());
            }
        }
    }
    ensure!(failed == 0, "{failed} hosts failed; the daemon's last lines:\n{}", world.mta.last_lines());
    Ok(())
}

struct World {
    port: u16,
    certificate: Certificate,
    dns: dns::Server,
    mta: Daemon,
    /// Where the member is told what did not arrive.
    notices: Arc<Provider>,
    _sink: Sink,
}

/// What is submitted, and what must arrive.
struct Parcel {
    parameters: &'static str,
    recipients: Vec<String>,
    /// Below the header section.
    body: Vec<u8>,
    /// Copies that must be in the host's mailboxes, at least.
    copies: usize,
    /// A word of the notice that must come, if one must.
    notice: Option<&'static str>,
}

impl World {
    fn build(directory: &Path) -> Result<Self> {
        let notices = Provider::new(Script::accepts_all());
        let sink = Sink::start(SocketAddr::from(([127, 0, 0, 1], 0)), notices.clone(), None)?;
        let port = sink.address().port();
        let dns = dns::Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), Zone::new())?;
        let zone = dns.zone();
        for kind in Kind::ALL {
            zone.mail_domain(&kind.domain(), &format!("mx.{}", kind.domain()), kind.address());
        }
        zone.mail_domain("receiver.test", "mx.receiver.test", sink.address().ip());
        let names: Vec<String> = Kind::ALL.map(|kind| format!("mx.{}", kind.domain())).into();
        let names: Vec<&str> = names.iter().map(String::as_str).chain(["localhost", "relay.test"]).collect();
        let certificate = Certificate::generate(&names)?;
        let setup = Setup {
            io: "auto",
            signatures: Signatures::Three,
            nameserver: dns.address(),
            egress_port: port,
            members: &[(MEMBER_DID, MEMBER_DOMAIN)],
            more: "",
        };
        let mta = Daemon::start(&directory.join("mta"), &setup, &certificate)?;
        let enrolled = mta.enrolled.first().context("nobody was enrolled")?;
        publish(zone, &enrolled.dns_records, &coop_records(&mta)?)?;
        Ok(Self { port, certificate, dns, mta, notices, _sink: sink })
    }

    fn deliver(&self, kind: Kind, tools: &Tools, directory: &Path) -> Result<String> {
        let host = Host::start(kind, tools, directory, self.port, &self.certificate)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tls_works = kind != Kind::OpenSmtpd;
        let offers = runtime.block_on(offers(host.address, tls_works))?;
        let domain = kind.domain();
        let parcels = parcels(&domain, offers.contains("SMTPUTF8"));
        let mut arrived = HashSet::new();
        for (nth, parcel) in parcels.iter().enumerate() {
            let marker = format!("{}-{nth}", kind.name());
            runtime.block_on(self.submit(&marker, parcel)).with_context(|| format!("submit {marker}"))?;
            let began = Instant::now();
            let messages = loop {
                let messages: Vec<_> = host.received()?.into_iter().filter(|message| names(message, &marker)).collect();
                if messages.len() >= parcel.copies && self.told(&marker, parcel) {
                    break messages;
                }
                ensure!(
                    began.elapsed() < PATIENCE,
                    "{} of {} copies of {marker} arrived, told of what did not: {}\n{}",
                    messages.len(),
                    parcel.copies,
                    self.told(&marker, parcel),
                    host.last_lines()
                );
                std::thread::sleep(Duration::from_millis(20));
            };
            // Some keep one for all recipients, some one for each.
            ensure!(messages.len() <= parcel.recipients.len(), "{} copies of {marker}", messages.len());
            for message in &messages {
                let verdicts = verify::dkimpy(tools, self.dns.address(), message)?;
                ensure!(verdicts.good() == SIGNATURES, "{marker}: {verdicts}: {}", verdicts.bad());
                ensure!(
                    body(message) == unix(&parcel.body),
                    "{marker}: the body is another: {:?}",
                    String::from_utf8_lossy(message)
                );
                arrived.insert(under_tls(message));
            }
        }
        ensure!(arrived == HashSet::from([tls_works]), "under TLS: {arrived:?}, expected {tls_works}");
        let mut offers: Vec<&str> = offers.iter().map(String::as_str).collect();
        offers.sort_unstable();
        let how = if tls_works { "under TLS" } else { "in clear text, since its handshakes fail" };
        Ok(format!("{} messages {how}, {SIGNATURES} signatures good on each; offers {}", parcels.len(), offers.join(" ")))
    }

    async fn submit(&self, marker: &str, parcel: &Parcel) -> Result<()> {
        let mut client = Client::connect(&Target::plain(self.mta.relay)).await?;
        let header = format!("From: noreply@{MEMBER_DOMAIN}\r\nTo: {marker}:;\r\nSubject: {marker}\r\n\r\n");
        let octets = [header.as_bytes(), &parcel.body].concat();
        let recipients: Vec<&str> = parcel.recipients.iter().map(String::as_str).collect();
        client.send_with(&format!("noreply@{MEMBER_DOMAIN}"), parcel.parameters, &recipients, &octets).await?;
        client.quit().await?;
        Ok(())
    }

    /// Whether the sender knows what did not arrive.
    fn told(&self, marker: &str, parcel: &Parcel) -> bool {
        let Some(word) = parcel.notice else { return true };
        self.notices.messages().iter().any(|notice| names(&notice.octets, marker) && names(&notice.octets, word))
    }
}

fn parcels(domain: &str, smtputf8: bool) -> [Parcel; 3] {
    let long = "x".repeat(998);
    let dots = format!(".\r\n..\r\n.hidden\r\nQUIT\r\n\r\n{long}\r\n.\r\n");
    let to = |users: &[&str]| users.iter().map(|user| format!("{user}@{domain}")).collect::<Vec<_>>();
    [
        Parcel {
            parameters: "",
            recipients: to(&["one", "refused", "two"]),
            body: dots.into_bytes(),
            copies: 1,
            notice: Some("refused@"),
        },
        Parcel {
            parameters: " BODY=8BITMIME",
            recipients: to(&["one"]),
            body: "Grüße aus der Ferne: äöüß €\r\n".into(),
            copies: 1,
            notice: None,
        },
        Parcel {
            parameters: " BODY=8BITMIME SMTPUTF8",
            recipients: to(&["jürgen"]),
            body: "Hello\r\n".into(),
            copies: usize::from(smtputf8),
            notice: (!smtputf8).then_some("5.6.7"),
        },
    ]
}

/// What a host offers in its reply to EHLO, under TLS if that works.
async fn offers(address: SocketAddr, tls: bool) -> Result<HashSet<String>> {
    let plain = Client::connect(&Target::plain(address)).await?;
    let mut offered = HashSet::new();
    let known = ["PIPELINING", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", "SIZE", "STARTTLS", "ENHANCEDSTATUSCODES"];
    for extension in known {
        if plain.offers(extension) {
            offered.insert(extension.to_owned());
        }
    }
    plain.quit().await?;
    if tls {
        let target = Target::plain(address).with_tls(Tls::StartTls(client_that_trusts_all(false)?));
        Client::connect(&target).await?.quit().await?;
    }
    Ok(offered)
}

fn names(message: &[u8], word: &str) -> bool {
    memchr::memmem::find(message, word.as_bytes()).is_some()
}

/// Below the header section, with line ends as Unix has them: maildirs have those.
fn body(message: &[u8]) -> Vec<u8> {
    let text = unix(message);
    memchr::memmem::find(&text, b"\n\n").map(|at| text[at + 2..].to_vec()).unwrap_or_default()
}

fn unix(octets: &[u8]) -> Vec<u8> {
    octets.iter().copied().filter(|octet| *octet != b'\r').collect()
}

/// The first trace field is the host's.
fn under_tls(message: &[u8]) -> bool {
    let text = String::from_utf8_lossy(message).to_ascii_uppercase();
    let first = text.split("RECEIVED:").nth(1).unwrap_or("");
    first.contains("ESMTPS") || first.contains("UTF8SMTPS")
}
