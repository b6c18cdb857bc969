//! `interop`: tradewind among real programs, on loopback.
//!
//! A real PLC directory and a real PDS; our labeler; our MTA; Postfix as the receiving MX; swaks, msmtp, nodemailer and
//! Python's smtplib as members; dkimpy and opendkim as verifiers. One account of the PDS attests its sending domain by a
//! real record, publishes what `tradewind member add` printed, and is labeled; then the PDS sends its password-reset mail,
//! the others submit by 587 and 465 and under every user name that a member may write, and every message is fetched from
//! Postfix's maildirs and its signatures are verified; with an octet more, neither verifier may find one good.
//!
//! One line a peer; a failure of one does not stop the others. Then our MTA delivers to Postfix, Exim, OpenSMTPD, Haraka and
//! aiosmtpd (`receivers`). `interop/install` installs what is missing.

pub(crate) mod install;
pub(crate) mod network;
mod peers;
pub mod receivers;
mod verify;
pub(crate) mod xrpc;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use self::install::Tools;
use self::network::{Account, Mail, Network};
use self::peers::{Peer, Security, Submission};
use crate::daemon::{Daemon, DnsRecord, Enrolled, Setup, Signatures};
use crate::dns::{self, Record, Zone};
use crate::postfix::{Postfix, Role};
use crate::process::{self, Running};
use crate::tls::Certificate;

const DOMAIN: &str = "member.test";
const FROM: &str = "noreply@member.test";
const COOP: &str = "relay.test";
/// Of the PDS's account; not its sending domain.
const HANDLE: &str = "harbour.test";
const LABELER_DID: &str = "did:web:labeler.test";
/// Signatures that every message must carry: the member's RSA and Ed25519, the co-op's RSA.
const SIGNATURES: usize = 3;
/// How the PDS is told to submit: as published instructions say, and as `member add` says.
const PDS_SECURITY: [Security; 2] = [Security::TlsOn587, Security::StartTls];
/// From an attestation or a submission until its effect is seen.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to try.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Only these peers, such as `pds` or `swaks`, and receiving hosts, such as `exim`.
    #[arg(long)]
    only: Vec<String>,
    /// Keep logs and mail in this directory instead of a temporary one.
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// Sets the world up and lets every peer try.
pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(why) = Postfix::unavailable().filter(|why| why.contains("root")) {
        bail!("{why}; run: sudo -E cargo interop");
    }
    let tools = Tools::install()?;
    let temporary = tempfile::Builder::new().prefix("tradewind-interop-").tempdir()?;
    let directory = arguments.directory.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(directory)?;
    // Postfix's daemons must be able to pass through.
    std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut world = World::build(&tools, directory)?;

    let mut failed = 0;
    let mut report = |peer: &str, outcome: Result<String>| match outcome {
        Ok(said) => println!("peer {peer:32} ok      {said}"),
        Err(error) => {
            failed += 1;
            println!("peer {peer:32} FAILED  {error:#}");
        }
    };
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name);
    for security in PDS_SECURITY.into_iter().filter(|_| wanted("pds")) {
        report(&format!("pds, {}", security.name()), world.pds(security));
    }
    for peer in Peer::ALL.into_iter().filter(|peer| wanted(peer.name())) {
        for security in Security::ALL {
            let name = format!("{}, {}", peer.name(), security.name());
            report(&name, world.submit(&name, peer, security, &world.enrolled.username));
        }
    }
    for (peer, what, username) in user_names(&world.account.did).into_iter().filter(|(peer, ..)| wanted(peer.name())) {
        let name = format!("{}, {what}", peer.name());
        report(&name, world.submit(&name, peer, Security::StartTls, &username));
    }
    let failure = (failed > 0).then(|| {
        let (mta, postfix) = (world.mta.last_lines(), world.postfix.log());
        format!("{failed} peers failed; the daemon's last lines:\n{mta}\npostfix:\n{postfix}")
    });
    // One Postfix at a time.
    drop(world);
    let received = receivers::Arguments::of(&arguments.only, Some(directory)).map_or(Ok(()), |hosts| receivers::run(&hosts));
    match (failure, received) {
        (None, received) => received,
        (Some(failure), Ok(())) => bail!(failure),
        (Some(failure), Err(error)) => Err(error.context(failure)),
    }
}

struct World {
    tools: Tools,
    directory: PathBuf,
    ca: PathBuf,
    dns: dns::Server,
    network: Network,
    _labeler: Running,
    mta: Daemon,
    account: Account,
    enrolled: Enrolled,
    postfix: Postfix,
}

impl World {
    fn build(tools: &Tools, directory: &Path) -> Result<Self> {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let dns = dns::Server::start(anywhere, Zone::new())?;
        let zone = dns.zone();
        let postfix = Postfix::start(directory, process::free_address()?, &Role::Receiver { mailboxes: &mailboxes() })?;
        zone.mail_domain("receiver.test", "mx.receiver.test", postfix.address().ip());
        say(&format!("Postfix {} receives for receiver.test", Postfix::version()?));

        let network = Network::start(tools, directory)?;
        let account = network.create_account(HANDLE, "operator@receiver.test")?;
        say(&format!("a PLC directory and a PDS run; the PDS's account is {}", account.did));
        let (labeler, labeler_url) = start_labeler(directory, &network, dns.address())?;
        let certificate = Certificate::generate(&["localhost", COOP])?;
        let more = format!(
            "\n[labeler]\nurl = \"{labeler_url}\"\ndid = \"{LABELER_DID}\"\npoll_interval = \"1s\"\n\n\
             [identity]\nplc_url = \"{}\"\n",
            network.plc_url()
        );
        let setup = Setup {
            io: "auto",
            signatures: Signatures::Three,
            nameserver: dns.address(),
            egress_port: postfix.address().port(),
            members: &[(&account.did, DOMAIN)],
            more: &more,
        };
        let mta = Daemon::start(&directory.join("mta"), &setup, &certificate)?;
        let enrolled = mta.enrolled.first().cloned().context("nobody was enrolled")?;
        let coop = coop_records(&mta)?;
        let published = publish(zone, &enrolled.dns_records, &coop)?;
        verify::write_opendkim_keys(directory, &published)?;
        say(&format!("labeler and MTA run; {} records of `tradewind member add` are published", enrolled.dns_records.len()));

        attest(&network, &account, &enrolled)?;
        let began = Instant::now();
        wait_for_admission(&mta, &labeler, &account.did)?;
        say(&format!("attested, labeled and admitted in {:.1} s", began.elapsed().as_secs_f64()));
        let directory = directory.to_owned();
        let ca = mta.directory().join("ca.pem");
        Ok(Self { tools: tools.clone(), directory, ca, dns, network, _labeler: labeler, mta, account, enrolled, postfix })
    }

    /// The real thing: a user of the PDS forgot the password.
    fn pds(&mut self, security: Security) -> Result<String> {
        // The operator pastes the URL; only the port is not the one of the world outside.
        let (_, rest) = self.enrolled.smtp_url.split_once("://").context("smtp_url is no URL")?;
        let (credential, _) = rest.rsplit_once('@').context("smtp_url has no credential")?;
        let (scheme, port) = (security.scheme(), self.server(security).port());
        let smtp_url = format!("{scheme}://{credential}@localhost:{port}");
        self.network.restart_pds(&Mail { smtp_url: &smtp_url, from: FROM, ca: &self.ca })?;
        let to = mailbox(&format!("pds, {}", security.name()));
        self.network.create_account(&format!("user-of-{}.test", security.scheme()), &to)?;
        let began = Instant::now();
        self.network.request_password_reset(&to)?;
        let accepted = began.elapsed();
        let message = self.receive(&to)?;
        ensure!(memchr::memmem::find(&message, b"Password Reset").is_some(), "what arrived is not the password-reset mail");
        self.verify(&message, accepted, began.elapsed())
    }

    fn submit(&self, name: &str, peer: Peer, security: Security, username: &str) -> Result<String> {
        let to = mailbox(name);
        let submission = Submission {
            server: self.server(security),
            security,
            ca: &self.ca,
            username,
            password: &self.enrolled.password,
            from: FROM,
            to: &to,
        };
        let began = Instant::now();
        peer.submit(&self.tools, &submission)?;
        let accepted = began.elapsed();
        let message = self.receive(&to)?;
        self.verify(&message, accepted, began.elapsed())
    }

    fn server(&self, security: Security) -> SocketAddr {
        match security {
            Security::TlsOn587 | Security::StartTls => self.mta.submission,
            Security::Tls => self.mta.submissions,
        }
    }

    /// The one message in a mailbox of Postfix's.
    fn receive(&self, mailbox: &str) -> Result<Vec<u8>> {
        let began = Instant::now();
        loop {
            let mut messages = self.postfix.received(mailbox)?;
            match messages.pop() {
                Some(message) if messages.is_empty() => return Ok(message),
                Some(_) => bail!("{} copies arrived", messages.len() + 1),
                None if began.elapsed() > PATIENCE => bail!("accepted, but nothing arrived within {PATIENCE:?}"),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn verify(&self, message: &[u8], accepted: Duration, delivered: Duration) -> Result<String> {
        let mut said = format!(
            "accepted in {:.0} ms, in the maildir after {:.0} ms",
            accepted.as_secs_f64() * 1e3,
            delivered.as_secs_f64() * 1e3
        );
        let verifiers = |message: &[u8]| {
            let dkimpy = verify::dkimpy(&self.tools, self.dns.address(), message)?;
            anyhow::Ok([dkimpy, verify::opendkim(&self.directory, message)?])
        };
        let all = verifiers(message)?;
        for verdicts in &all {
            let _ = write!(said, "; {verdicts}");
        }
        let bad = all.iter().find(|verdicts| verdicts.good() != SIGNATURES || verdicts.all() != SIGNATURES);
        if let Some(verdicts) = bad {
            bail!("{said}, not {SIGNATURES}: {}\n{}", verdicts.bad(), String::from_utf8_lossy(message));
        }
        let changed = verifiers(&[message, b"!\n"].concat())?;
        ensure!(changed.iter().all(|verdicts| verdicts.good() == 0), "{said}; but a changed message verifies, too: {changed:?}");
        Ok(said)
    }
}

fn start_labeler(directory: &Path, network: &Network, nameserver: SocketAddr) -> Result<(Running, String)> {
    let program = process::own("tradewind-labeler")?;
    let listen = process::free_address()?;
    let (at, plc, firehose) = (directory.display(), network.plc_url(), network.firehose_url());
    let toml = format!(
        "did = \"{LABELER_DID}\"\nsigning_key = \"{at}/labeler.key\"\ndata_dir = \"{at}/labeler\"\nlisten = \"{listen}\"\n\
         [identity]\nplc_url = \"{plc}\"\n[ingest]\nfirehose = \"{firehose}\"\n[dns]\nnameservers = [\"{nameserver}\"]\n\
         [verify]\ninterval = \"24h\"\n"
    );
    let config = directory.join("labeler.toml");
    std::fs::write(&config, toml)?;
    let mut command = Command::new(program);
    command.arg("--config").arg(&config);
    let mut labeler = Running::start("tradewind-labeler", command, &directory.join("labeler.log"))?;
    labeler.wait_for_line("ready", 0, Duration::from_secs(30))?;
    Ok((labeler, format!("http://{listen}")))
}

/// The records of the co-op's own keys.
fn coop_records(mta: &Daemon) -> Result<Vec<DnsRecord>> {
    let keys: Vec<Value> = serde_json::from_str(&mta.tradewind(&["key", "list", "--json"])?)?;
    let of_coop = keys.into_iter().filter(|key| key["domain"] == COOP);
    of_coop.map(|key| Ok(serde_json::from_value(key["dns_record"].clone())?)).collect()
}

/// Publishes what was printed, an MX for the member's domain beside it, and returns all DKIM keys.
fn publish(zone: &Zone, member: &[DnsRecord], coop: &[DnsRecord]) -> Result<Vec<(String, String)>> {
    zone.add(DOMAIN, Record::Mx(10, "mx.receiver.test".to_owned()));
    let mut keys = Vec::new();
    for record in member.iter().chain(coop) {
        let read = Record::parse(&record.kind, &record.value)
            .with_context(|| format!("a record that cannot be published: {} {} {}", record.name, record.kind, record.value))?;
        if let (Record::Txt(text), true) = (&read, record.name.contains("._domainkey.")) {
            keys.push((record.name.clone(), text.clone()));
        }
        zone.add(&record.name, read);
    }
    ensure!(keys.len() == SIGNATURES, "{} DKIM keys to publish, not {SIGNATURES}: {member:?} {coop:?}", keys.len());
    Ok(keys)
}

/// A real record in the account's repository, naming the selectors that `member add` printed.
fn attest(network: &Network, account: &Account, enrolled: &Enrolled) -> Result<()> {
    let suffix = format!("._domainkey.{DOMAIN}");
    let names = enrolled.dns_records.iter().map(|record| record.name.trim_end_matches('.'));
    let selectors: Vec<&str> = names.filter_map(|name| name.strip_suffix(&suffix)).collect();
    let record = json!({
        "$type": "email.atmos.attestation",
        "domain": DOMAIN,
        "dkimSelectors": selectors,
        "relayMember": true,
        "createdAt": jiff::Timestamp::now().to_string(),
    });
    network.put_record(account, "email.atmos.attestation", DOMAIN, &record)
}

fn wait_for_admission(mta: &Daemon, labeler: &Running, did: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let member: Value = serde_json::from_str(&mta.tradewind(&["member", "show", did, "--json"])?)?;
        if member["admitted"] == true {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            let (labeler, mta) = (labeler.last_lines(), mta.last_lines());
            bail!("not admitted after {PATIENCE:?}: {member}\nthe labeler says:\n{labeler}\nthe MTA says:\n{mta}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a member may write as its user name besides its domain. nodemailer gets it in a URL, where it cannot hold a colon:
/// it takes `did` for the user and `plc:…:secret` for the password, even when the colons are encoded.
fn user_names(did: &str) -> [(Peer, &'static str, String); 4] {
    [
        (Peer::Nodemailer, "DID in the URL", did.to_owned()),
        (Peer::Nodemailer, "DID in the URL, encoded", did.replace(':', "%3A")),
        (Peer::Smtplib, "DID", did.to_owned()),
        // The MTA learns it from the directory when the member is enrolled.
        (Peer::Smtplib, "handle", HANDLE.to_owned()),
    ]
}

/// Each try's own, so that nothing can be mistaken for another's mail.
fn mailbox(name: &str) -> String {
    let user: String =
        name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' }).collect();
    format!("{user}@receiver.test")
}

fn mailboxes() -> Vec<String> {
    let pds = PDS_SECURITY.map(|security| format!("pds, {}", security.name()));
    let peers =
        Peer::ALL.into_iter().flat_map(|peer| Security::ALL.map(|security| format!("{}, {}", peer.name(), security.name())));
    let names = user_names("").map(|(peer, what, _)| format!("{}, {what}", peer.name()));
    pds.into_iter().chain(peers).chain(names).map(|name| mailbox(&name)).collect()
}

fn say(what: &str) {
    println!("{what}");
}
