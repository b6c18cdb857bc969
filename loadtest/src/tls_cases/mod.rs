//! `tls`: what the daemon demands of receiving hosts' TLS, case by case, against real TLS servers and signed zones.
//!
//! Every row of the first table (`dane.rs`) has a recipient domain with a zone of its own, signed by Knot with the algorithm that
//! it wants, or spoiled; its hosts show the certificate, or the lack of one, that it wants. The daemon runs twice: once it
//! checks signatures itself from the root of our zones on (dnssec = "validate"), once it trusts the AD bit of an Unbound that
//! does (dnssec = "trust-ad"). A message goes to each domain; what became of it is read in the daemon's log, in `tradewind
//! where`, and in what the hosts say that they got. Where TLSA records count, Postfix's posttls-finger is asked about the
//! same domain and must come to the same verdict. Some rows ask for reports (`reports/`), which come when a day has passed. A second
//! table (`sts/`) is about policies of MTA-STS and about REQUIRETLS.

mod case;
mod dane;
mod finger;
mod reports;
mod servers;
mod sts;
mod zones;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::case::{Case, Expect, Wish};
use self::servers::Servers;
use self::zones::Names;
use crate::daemon::{Daemon, MEMBER_DID, MEMBER_DOMAIN, Setup, Signatures};
use crate::process;
use crate::tls::Certificate;

/// From a submission until its first attempt, or until the daemon knows that there is no way.
const PATIENCE: Duration = Duration::from_secs(90);
/// What has not been tried by then may have no way: `where` is asked.
const NO_ATTEMPT: Duration = Duration::from_secs(8);

/// What to try.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Only rows whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Only `validate` or `trust-ad`.
    #[arg(long)]
    dnssec: Option<String>,
    /// Keep zones, logs and settings in this directory instead of a temporary one.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Without Postfix's posttls-finger, and so without being root.
    #[arg(long)]
    without_postfix: bool,
    /// Only the rows that need neither Knot nor Unbound nor Postfix: those of MTA-STS and REQUIRETLS.
    #[arg(long)]
    only_sts: bool,
}

/// What became of mail, in the words of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Delivered { tls: bool, host: String },
    Deferred(String),
    Failed(String),
    Nothing,
}

/// Sets up the world, tries all rows, and compares.
pub fn run(arguments: &Arguments) -> Result<()> {
    let temporary = tempfile::Builder::new().prefix("tradewind-tls-").tempdir()?;
    let directory = arguments.directory.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(directory)?;
    let directory = &directory.canonicalize()?;

    let mut wrong = sts::compare(directory, arguments.only.as_deref())?;
    if !arguments.only_sts {
        wrong += signed(arguments, directory)?;
    }
    ensure!(wrong == 0, "{wrong} verdicts are not as expected");
    println!("\nall as expected");
    Ok(())
}

/// The rows whose zones are signed, or spoiled; says how many verdicts are not as expected.
fn signed(arguments: &Arguments, directory: &Path) -> Result<usize> {
    let mut cases = [dane::rows(), reports::cases()].concat();
    if let Some(only) = &arguments.only {
        let named: Vec<_> = cases.iter().filter(|case| case.name.contains(only)).map(|case| case.shares).collect();
        let chosen: Vec<_> = cases.iter().filter(|case| case.name.contains(only)).cloned().collect();
        let wanted = |case: &Case| case.name.contains(only) || named.contains(&Some(case.name));
        cases.retain(|case| wanted(case) || reports::is_needed(case, &chosen));
    }
    if cases.is_empty() {
        return Ok(0);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/install-dns");
    ensure!(Command::new(&script).status()?.success(), "Knot and Unbound could not be installed; see above");
    let port = process::free_address()?.port();
    let published = dane::BESIDE.map(|(domain, mx)| sts::Published {
        domain: domain.to_owned(),
        page: sts::Page::Policy("enforce", mx, 604_800),
        shows: sts::PolicyHost::Good,
    });
    let policies = sts::Beside::start(published.into_iter().chain(reports::policies()).collect(), reports::WEB)?;
    for line in cases.iter_mut().flat_map(|case| &mut case.lines) {
        *line = line.replace("{policy_port}", &policies.port.to_string());
    }
    let mut servers = Servers::start(&cases, port)?;
    servers.trusted.push_str(&policies.trusted);
    let names = Names::start(directory, &cases, &servers, port)?;
    println!("{} rows; {} zones signed by Knot; hosts listen on port {port}", cases.len(), cases.len() + 4);

    let mut wrong = 0;
    for dnssec in ["validate", "trust-ad"].into_iter().filter(|it| arguments.dnssec.as_deref().is_none_or(|only| only == *it)) {
        let cases: Vec<_> = cases.iter().filter(|case| case.only_with.is_none_or(|only| only == dnssec)).cloned().collect();
        let mut run = Run::start(directory, dnssec, &cases, &servers, &names, (port, policies.port))?;
        let verdicts = run.verdicts()?;
        println!("\ndnssec = \"{dnssec}\"");
        for (case, (seen, demand)) in cases.iter().zip(&verdicts) {
            let arrived = servers.arrived(&recipient(dnssec, case)).map(|message| message.tls);
            let right = agrees(case, &cases, seen, demand, arrived);
            wrong += usize::from(!right);
            let mark = if right { "ok" } else { "WRONG" };
            println!("{mark:5} {:20} {:10} expected {}, {}", case.name, case.rule, case.demand, told(case.expect));
            println!("{:37} seen     {demand}, {}", "", told_seen(seen));
        }
        println!("\ntwo days later");
        wrong += reports::compare(&mut run.daemon, directory, dnssec, &cases, (&servers, &policies))?;
    }
    if !arguments.without_postfix {
        wrong += finger::compare(directory, &cases, &names, port)?;
    }
    Ok(wrong)
}

/// One daemon and its verdicts.
struct Run<'a> {
    dnssec: &'a str,
    cases: &'a [Case],
    daemon: Daemon,
    log: PathBuf,
}

impl<'a> Run<'a> {
    fn start(
        directory: &Path,
        dnssec: &'a str,
        cases: &'a [Case],
        servers: &Servers,
        names: &Names,
        (port, policy_port): (u16, u16),
    ) -> Result<Self> {
        let directory = directory.join(dnssec);
        std::fs::create_dir_all(&directory)?;
        let trusted = directory.join("public.pem");
        std::fs::write(&trusted, &servers.trusted)?;
        let (nameserver, resolution) = match dnssec {
            "validate" => (names.passing, format!("dnssec = \"validate\"\ntrust_anchor = \"{}\"", names.anchor.display())),
            _ => (names.validating, "dnssec = \"trust-ad\"".to_owned()),
        };
        let members = [(MEMBER_DID, MEMBER_DOMAIN)];
        let setup =
            Setup { io: "auto", signatures: Signatures::None, nameserver, egress_port: port, members: &members, more: "" };
        let certificate = Certificate::generate(&["relay.test"])?;
        let daemon = Daemon::start_edited(&directory, &setup, &certificate, |configuration| {
            let private = "allow_private_addresses = true";
            reports::settings(&configuration, dnssec)
                .replace("dnssec = \"off\"", &resolution)
                .replace(private, &format!("{private}\nsts_port = {policy_port}\ntrust_anchors = \"{}\"", trusted.display()))
        })?;
        Ok(Run { dnssec, cases, daemon, log: directory.join("mta.log") })
    }

    /// What became of each row's mail, and what was demanded of its first host.
    fn verdicts(&self) -> Result<Vec<(Seen, String)>> {
        let mut seen: BTreeMap<&str, Seen> = BTreeMap::new();
        let mut submitted: BTreeMap<&str, Instant> = BTreeMap::new();
        let began = Instant::now();
        while seen.len() < self.cases.len() && began.elapsed() < PATIENCE {
            for case in self.cases {
                let may_go = case.after.is_none_or(|name| seen.contains_key(name));
                if may_go && !submitted.contains_key(case.name) {
                    self.submit(case)?;
                    submitted.insert(case.name, Instant::now());
                }
            }
            let attempts = attempts(&self.log)?;
            for case in self.cases.iter().filter(|case| submitted.contains_key(case.name)) {
                if seen.contains_key(case.name) {
                    continue;
                }
                if let Some(attempt) = attempts.get(&case.domain()) {
                    seen.insert(case.name, attempt.clone());
                } else if submitted.get(case.name).is_some_and(|since| since.elapsed() > NO_ATTEMPT) {
                    let trouble = self.ask_where(case)?["trouble"].as_str().map(str::to_owned);
                    seen.extend(trouble.map(|trouble| (case.name, Seen::Deferred(trouble))));
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let mut verdicts = Vec::new();
        for case in self.cases {
            let found = self.ask_where(case)?;
            let demand = found["hosts"][0]["demand"].as_str().unwrap_or("-").to_owned();
            verdicts.push((seen.remove(case.name).unwrap_or(Seen::Nothing), demand));
        }
        Ok(verdicts)
    }

    /// By the relay listener, or where REQUIRETLS is wanted by the one that has TLS.
    fn submit(&self, case: &Case) -> Result<()> {
        let recipient = recipient(self.dnssec, case);
        match case.wish {
            Wish::None => submit(self.daemon.relay, &recipient),
            Wish::Waived => submit_with(self.daemon.relay, &recipient, "TLS-Required: No\r\n"),
            Wish::Required => {
                let member = self.daemon.enrolled.first().context("nobody is enrolled")?;
                sts::submit_requiring(self.daemon.submissions, member, &recipient)
            }
        }
    }

    fn ask_where(&self, case: &Case) -> Result<Value> {
        let answer = self.daemon.tradewind(&["where", &case.domain(), "--json"])?;
        Ok(serde_json::from_str(&answer)?)
    }
}

fn recipient(dnssec: &str, case: &Case) -> String {
    format!("{dnssec}@{}", case.domain())
}

fn agrees(case: &Case, cases: &[Case], seen: &Seen, demand: &str, arrived: Option<bool>) -> bool {
    let owner = case.shares.and_then(|name| cases.iter().find(|other| other.name == name)).unwrap_or(case);
    let as_expected = match (case.expect, seen) {
        (Expect::Tls(nth), Seen::Delivered { tls: true, host }) => *host == owner.mx_name(nth),
        (Expect::Clear, Seen::Delivered { tls: false, .. }) => true,
        (Expect::Deferred(words), Seen::Deferred(text)) | (Expect::Failed(words), Seen::Failed(text)) => text.contains(words),
        _ => false,
    };
    // The hosts tell the same.
    let as_told = match case.expect {
        Expect::Tls(_) => arrived == Some(true),
        Expect::Clear => arrived == Some(false),
        Expect::Deferred(_) | Expect::Failed(_) => arrived.is_none(),
    };
    as_expected && as_told && (case.demand.is_empty() || demand.split_whitespace().next() == Some(case.demand))
}

fn told(expect: Expect) -> String {
    match expect {
        Expect::Tls(nth) => format!("delivered under TLS to host {nth}"),
        Expect::Clear => "delivered in clear text".to_owned(),
        Expect::Deferred(words) => format!("deferred: …{words}…"),
        Expect::Failed(words) => format!("failed: …{words}…"),
    }
}

fn told_seen(seen: &Seen) -> String {
    match seen {
        Seen::Delivered { tls: true, host } => format!("delivered under TLS to {host}"),
        Seen::Delivered { tls: false, host } => format!("delivered in clear text to {host}"),
        Seen::Deferred(text) => format!("deferred: {text}"),
        Seen::Failed(text) => format!("failed: {text}"),
        Seen::Nothing => "nothing".to_owned(),
    }
}

/// The first attempt for each domain, from the daemon's log.
fn attempts(log: &Path) -> Result<BTreeMap<String, Seen>> {
    let mut found = BTreeMap::new();
    for line in std::fs::read_to_string(log)?.lines().filter(|line| line.contains("\"attempt\"")) {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let fields = line.get("fields").unwrap_or(&line);
        let text = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
        let seen = match &*text("verdict") {
            "Delivered" => Seen::Delivered { tls: text("tls").starts_with("TLS"), host: text("host") },
            "Deferred" => Seen::Deferred(text("reply")),
            _ => Seen::Failed(text("reply")),
        };
        found.entry(text("domain")).or_insert(seen);
    }
    Ok(found)
}

/// Hands one message to the relay listener.
fn submit(relay: SocketAddr, recipient: &str) -> Result<()> {
    submit_with(relay, recipient, "")
}

/// The same with more fields in its header section.
fn submit_with(relay: SocketAddr, recipient: &str, fields: &str) -> Result<()> {
    let stream = TcpStream::connect(relay)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let mut expect = |digit: char| -> Result<()> {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).context("read from the relay listener")?;
            if !line.starts_with(digit) {
                bail!("the relay listener says {}", line.trim());
            }
            if line.as_bytes().get(3) == Some(&b' ') {
                return Ok(());
            }
        }
    };
    expect('2')?;
    let from = format!("app@{MEMBER_DOMAIN}");
    for (command, digit) in [
        ("EHLO client.test".to_owned(), '2'),
        (format!("MAIL FROM:<{from}>"), '2'),
        (format!("RCPT TO:<{recipient}>"), '2'),
        ("DATA".to_owned(), '3'),
        (format!("From: <{from}>\r\nTo: <{recipient}>\r\nSubject: a case\r\n{fields}\r\nHello.\r\n."), '2'),
        ("QUIT".to_owned(), '2'),
    ] {
        writer.write_all(format!("{command}\r\n").as_bytes())?;
        expect(digit)?;
    }
    Ok(())
}
