//! tradewind under test: the real `tradewind-mta` with a configuration, data directory and ports of its own, and its
//! operator's command. It is used as an operator uses it: a configuration file, a process, `tradewind member add`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::manager::Manager;
use crate::process::{self, Running};
use crate::tls::Certificate;

/// Whose mail the relay listener takes.
pub const MEMBER_DID: &str = "did:web:host.member.test";
/// The domain that this member sends from.
pub const MEMBER_DOMAIN: &str = "member.test";
/// From starting the process until it says `ready`.
const READY_WAIT: Duration = Duration::from_secs(30);

/// Which signatures each message gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signatures {
    /// None.
    None,
    /// The member's RSA-2048.
    One,
    /// The member's RSA-2048 and Ed25519, and the co-op's RSA-2048.
    Three,
}

impl Signatures {
    /// How many DKIM-Signature fields that makes.
    pub fn count(self) -> usize {
        match self {
            Self::None => 0,
            Self::One => 1,
            Self::Three => 3,
        }
    }
}

/// What to start.
pub struct Setup<'a> {
    /// `uring`, `epoll` or `auto`.
    pub io: &'a str,
    /// Which signatures.
    pub signatures: Signatures,
    /// Who answers its DNS questions.
    pub nameserver: SocketAddr,
    /// The port where mailbox providers listen.
    pub egress_port: u16,
    /// Its members and their domains; the first one is the relay listener's.
    pub members: &'a [(&'a str, &'a str)],
    /// Further lines of the configuration, such as a `[labeler]` table.
    pub more: &'a str,
}

/// What `tradewind member add --json` says.
#[derive(Clone, Debug, Deserialize)]
pub struct Enrolled {
    /// The member.
    pub did: String,
    /// Its domain.
    pub domain: String,
    /// For AUTH.
    pub username: String,
    /// For AUTH; said once.
    pub password: String,
    /// What a PDS takes as `PDS_EMAIL_SMTP_URL`.
    pub smtp_url: String,
    /// What the member publishes.
    pub dns_records: Vec<DnsRecord>,
}

/// One record to publish.
#[derive(Clone, Debug, Deserialize)]
pub struct DnsRecord {
    /// Owner.
    pub name: String,
    /// `TXT`, mostly.
    #[serde(rename = "type")]
    pub kind: String,
    /// Value as in a zone file.
    pub value: String,
}

/// A running daemon; stopped when dropped.
pub struct Daemon {
    directory: PathBuf,
    config: PathBuf,
    program: PathBuf,
    command: PathBuf,
    /// Variables beside our own.
    environment: Vec<(OsString, OsString)>,
    running: Running,
    /// Takes mail from loopback without AUTH.
    pub relay: SocketAddr,
    /// STARTTLS.
    pub submission: SocketAddr,
    /// TLS from the first octet.
    pub submissions: SocketAddr,
    /// Status page, metrics.
    pub admin: SocketAddr,
    /// Its members' credentials, in the order of the set-up.
    pub enrolled: Vec<Enrolled>,
}

impl Daemon {
    /// Writes the configuration below `directory`, starts the daemon and enrols the members.
    pub fn start(directory: &Path, setup: &Setup<'_>, certificate: &Certificate) -> Result<Self> {
        Self::start_as(directory, setup, certificate, Vec::new(), None)
    }

    /// The same with a configuration that `edit` changes first.
    pub fn start_edited(
        directory: &Path,
        setup: &Setup<'_>,
        certificate: &Certificate,
        edit: impl FnOnce(String) -> String,
    ) -> Result<Self> {
        Self::start_by(directory, setup, certificate, Vec::new(), None, edit)
    }

    /// The same with more variables in the daemon's environment, at this start and at later ones.
    pub fn start_within(
        directory: &Path,
        setup: &Setup<'_>,
        certificate: &Certificate,
        environment: Vec<(OsString, OsString)>,
    ) -> Result<Self> {
        Self::start_as(directory, setup, certificate, environment, None)
    }

    /// The same under a service manager, which makes the socket of the relay listener itself.
    pub fn start_under(directory: &Path, setup: &Setup<'_>, certificate: &Certificate, manager: &Manager) -> Result<Self> {
        Self::start_as(directory, setup, certificate, Vec::new(), Some(manager))
    }

    fn start_as(
        directory: &Path,
        setup: &Setup<'_>,
        certificate: &Certificate,
        environment: Vec<(OsString, OsString)>,
        manager: Option<&Manager>,
    ) -> Result<Self> {
        Self::start_by(directory, setup, certificate, environment, manager, |configuration| configuration)
    }

    fn start_by(
        directory: &Path,
        setup: &Setup<'_>,
        certificate: &Certificate,
        environment: Vec<(OsString, OsString)>,
        manager: Option<&Manager>,
        edit: impl FnOnce(String) -> String,
    ) -> Result<Self> {
        fs::create_dir_all(directory)?;
        certificate.write_to(directory)?;
        let program = process::own("tradewind-mta")?;
        let command = process::own("tradewind")?;
        let addresses = [(); 4].map(|()| process::free_address());
        let [relay, submission, submissions, admin] = addresses;
        let (relay, submission, submissions, admin) = (relay?, submission?, submissions?, admin?);
        let config = directory.join("mta.toml");
        fs::write(&config, edit(mta_toml(setup, directory, [relay, submission, submissions, admin])))?;
        if let Some(manager) = manager {
            manager.hold("tradewind-mta.socket", std::net::TcpListener::bind(relay)?.into())?;
        }
        let running = start(command_line(&program, &config, &environment, manager)?, &directory.join("mta.log"))?;
        let directory = directory.to_owned();
        let enrolled = Vec::new();
        let mut daemon =
            Self { directory, config, program, command, environment, running, relay, submission, submissions, admin, enrolled };
        for (did, domain) in setup.members {
            let json = daemon.tradewind(&["member", "add", "--did", did, "--domain", domain, "--json"])?;
            let enrolled: Enrolled =
                serde_json::from_str(&json).with_context(|| "`tradewind member add --json` is not what the contract says")?;
            match setup.signatures {
                Signatures::None => drop(daemon.tradewind(&["key", "remove", "--domain", domain, "--all"])?),
                Signatures::One => {
                    drop(daemon.tradewind(&["key", "remove", "--domain", domain, "--algorithm", "ed25519"])?);
                }
                Signatures::Three => {}
            }
            daemon.enrolled.push(enrolled);
        }
        Ok(daemon)
    }

    /// Runs the operator's command against this daemon.
    pub fn tradewind(&self, arguments: &[&str]) -> Result<String> {
        process::output(Command::new(&self.command).arg("--config").arg(&self.config).args(arguments))
            .with_context(|| format!("the daemon's last lines:\n{}", self.running.last_lines()))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// What it says of a metric that has no labels.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let answer = self.scrape()?;
        let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse().ok()).with_context(|| format!("the daemon tells no {name}"))
    }

    /// All that it says of its metrics, with the head of the answer.
    pub fn scrape(&self) -> Result<String> {
        let mut stream = TcpStream::connect(self.admin)?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        self.running.is_running()
    }

    /// `kill -9`; nothing happens to one that has ended.
    pub fn kill(&mut self) -> Result<()> {
        Ok(self.running.kill()?)
    }

    /// Starts it again on the same data after [`Daemon::kill`].
    pub fn start_again(&mut self) -> Result<()> {
        self.running = start(self.command_line(None)?, &self.directory.join("mta.log"))?;
        Ok(())
    }

    /// Stops it cleanly and starts it again on the same data, from now on with these variables in its environment as well.
    pub fn restart_within(&mut self, environment: Vec<(OsString, OsString)>) -> Result<()> {
        self.running.terminate();
        self.running.ends_well(Duration::from_secs(60))?;
        self.environment.extend(environment);
        self.start_again()
    }

    fn command_line(&self, manager: Option<&Manager>) -> Result<CommandLine> {
        command_line(&self.program, &self.config, &self.environment, manager)
    }

    /// Starts another process that takes this one's place; says how long that took.
    pub fn take_over(&mut self) -> Result<Duration> {
        let began = Instant::now();
        let mut line = self.command_line(None)?;
        line.0.arg("--take-over");
        let mut old = std::mem::replace(&mut self.running, start(line, &self.directory.join("mta.log"))?);
        let took = began.elapsed();
        old.ends_well(Duration::from_secs(1))?;
        Ok(took)
    }

    /// Stops it and starts it again, as `systemctl restart` does; says how long each took.
    pub fn restart(&mut self, manager: &Manager) -> Result<(Duration, Duration)> {
        let began = Instant::now();
        self.running.terminate();
        self.running.ends_well(Duration::from_secs(60))?;
        let stopped = began.elapsed();
        let line = self.command_line(Some(manager))?;
        self.running = start(line, &self.directory.join("mta.log"))?;
        Ok((stopped, began.elapsed() - stopped))
    }

    /// SIGTERM; an error when it does not end cleanly by itself.
    pub fn stop(mut self) -> Result<()> {
        if !self.running.stop(Duration::from_secs(30))? {
            bail!("tradewind-mta did not end within 30 s of SIGTERM:\n{}", self.running.last_lines());
        }
        Ok(())
    }

    /// The end of its log.
    pub fn last_lines(&self) -> String {
        self.running.last_lines()
    }

    /// Where its queue lies.
    pub fn queue(&self) -> PathBuf {
        self.directory.join("data/queue")
    }

    /// Where its configuration, data and log lie.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// A command and what must stay open until it is started.
type CommandLine = (Command, Vec<OwnedFd>);

fn command_line(
    program: &Path,
    config: &Path,
    environment: &[(OsString, OsString)],
    manager: Option<&Manager>,
) -> Result<CommandLine> {
    let (mut command, open) = match manager {
        Some(manager) => manager.command(program)?,
        None => (Command::new(program), Vec::new()),
    };
    command.arg("--config").arg(config).envs(environment.iter().cloned());
    Ok((command, open))
}

fn start((command, open): CommandLine, log: &Path) -> Result<Running> {
    let from = fs::metadata(log).map_or(0, |metadata| metadata.len());
    let mut running = Running::start("tradewind-mta", command, log)?;
    drop(open);
    running.wait_for_line("ready", from, READY_WAIT)?;
    Ok(running)
}

fn mta_toml(setup: &Setup<'_>, directory: &Path, listeners: [SocketAddr; 4]) -> String {
    let [relay, submission, submissions, admin] = listeners;
    let at = directory.display();
    let mut toml = format!(
        r#"hostname = "relay.test"
data_dir = "{at}/data"
io = "{}"

[[listen]]
address = "{submission}"
role = "submission"
[[listen]]
address = "{submissions}"
role = "submissions"
"#,
        setup.io
    );
    if let Some((did, _)) = setup.members.first() {
        let _ = write!(
            toml,
            "[[listen]]\naddress = \"{relay}\"\nrole = \"relay\"\ntrusted_networks = [\"127.0.0.0/8\"]\nmember = \"{did}\"\n"
        );
    }
    let _ = write!(
        toml,
        r#"
[tls]
certificate = "{at}/cert.pem"
private_key = "{at}/key.pem"

[dns]
nameservers = ["{}"]
dnssec = "off"

[egress]
port = {}
allow_private_addresses = true

[[source]]
name = "ip-a"
address = "127.0.0.1"
ehlo = "a.relay.test"

[[pool]]
name = "default"
sources = ["ip-a"]

[admin]
address = "{admin}"

[signing]
"#,
        setup.nameserver, setup.egress_port
    );
    toml.push_str(match setup.signatures {
        Signatures::Three => "domain = \"relay.test\"\nselector = \"coop\"\nrequired = true\n",
        Signatures::One | Signatures::None => "required = false\n",
    });
    toml.push_str(setup.more);
    toml
}
