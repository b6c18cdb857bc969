//! The receiving hosts: each with a configuration of ours on an address of its own, all on one port.
//!
//! Each takes mail for its domain, refuses the mailbox `refused@`, and offers what it can, STARTTLS among it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::interop::install::Tools;
use crate::postfix::{Postfix, Role};
use crate::process::{self, Running};
use crate::sink::{Provider, Script, Sink};
use crate::tls::Certificate;

/// Who receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Postfix,
    Exim,
    OpenSmtpd,
    Haraka,
    Aiosmtpd,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [Self::Postfix, Self::Exim, Self::OpenSmtpd, Self::Haraka, Self::Aiosmtpd];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Postfix => "postfix",
            Self::Exim => "exim",
            Self::OpenSmtpd => "opensmtpd",
            Self::Haraka => "haraka",
            Self::Aiosmtpd => "aiosmtpd",
        }
    }

    /// What it takes mail for.
    pub(super) fn domain(self) -> String {
        format!("{}.test", self.name())
    }

    /// Its own loopback address.
    pub(super) fn address(self) -> IpAddr {
        IpAddr::from([127, 0, 0, 11 + self as u8])
    }
}

/// A running host; stopped when dropped.
pub(super) struct Host {
    pub(super) kind: Kind,
    pub(super) address: SocketAddr,
    keeps: Keeps,
}

/// Where what it took is found.
enum Keeps {
    Postfix(Box<Postfix>),
    /// A file a message.
    Folder(PathBuf, Running),
    /// It hands everything on: its own ways to a mailbox need more of a system than it has here.
    Onwards(Sink, Running),
}

impl Host {
    pub(super) fn start(kind: Kind, tools: &Tools, parent: &Path, port: u16, certificate: &Certificate) -> Result<Self> {
        let address = SocketAddr::new(kind.address(), port);
        let folder = parent.join(kind.name());
        fs::create_dir_all(folder.join("mail"))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        certificate.write_to(&folder)?;
        let mail = folder.join("mail");
        let keeps = match kind {
            Kind::Postfix => {
                let mailboxes = super::MAILBOXES.map(|user| format!("{user}@{}", kind.domain()));
                Keeps::Postfix(Box::new(Postfix::start(parent, address, &Role::Receiver { mailboxes: &mailboxes })?))
            }
            Kind::Exim => {
                fs::create_dir_all(folder.join("spool"))?;
                // Outside of the folder: Exim does not read a configuration that its own user could have written.
                let config = parent.join("exim.conf");
                fs::write(&config, exim_conf(&folder, address))?;
                let mut command = tools.beside(&folder, "Debian-exim", "usr/sbin/exim4");
                command.arg("-C").arg(&config).arg("-bdf");
                Keeps::Folder(mail.join("new"), Running::start("exim", command, &parent.join("exim.log"))?)
            }
            Kind::OpenSmtpd => {
                let provider = Provider::new(Script::accepts_all());
                let sink = Sink::start(SocketAddr::from(([127, 0, 0, 1], 0)), provider, None)?;
                let config = folder.join("smtpd.conf");
                fs::write(&config, smtpd_conf(&folder, address, sink.address()))?;
                let mut command = tools.beside(&folder, "root", "usr/sbin/smtpd");
                command.arg("-d").arg("-f").arg(&config);
                Keeps::Onwards(sink, Running::start("opensmtpd", command, &parent.join("opensmtpd.log"))?)
            }
            Kind::Haraka => {
                for name in ["config", "plugins"] {
                    fs::create_dir_all(folder.join(name))?;
                }
                let config = folder.join("config");
                fs::write(config.join("smtp.ini"), format!("listen={address}\nnodes=0\n"))?;
                fs::write(config.join("plugins"), "tls\nreceive\n")?;
                fs::write(config.join("me"), "mx.haraka.test\n")?;
                fs::copy(folder.join("cert.pem"), config.join("tls_cert.pem"))?;
                fs::copy(folder.join("key.pem"), config.join("tls_key.pem"))?;
                // Its default folds lines of more than 992 octets, which RFC 5321 allows up to 998, and breaks their signatures.
                let connection = fs::read_to_string(tools.haraka("config/connection.ini"))?;
                let connection = connection.replace("data_line_length=992", "data_line_length=1000");
                fs::write(config.join("connection.ini"), connection)?;
                fs::copy(Tools::script("receive-haraka.js"), folder.join("plugins/receive.js"))?;
                let mut command = tools.node_itself();
                command.arg(tools.haraka("bin/haraka")).arg("-c").arg(&folder).env("RECEIVE_FOLDER", &mail);
                Keeps::Folder(mail, Running::start("haraka", command, &parent.join("haraka.log"))?)
            }
            Kind::Aiosmtpd => {
                let mut command = tools.python("receive-aiosmtpd.py");
                command.arg(address.ip().to_string()).arg(port.to_string());
                command.arg(folder.join("cert.pem")).arg(folder.join("key.pem")).arg(&mail);
                Keeps::Folder(mail, Running::start("aiosmtpd", command, &parent.join("aiosmtpd.log"))?)
            }
        };
        let host = Self { kind, address, keeps };
        process::wait_for_listener(address, Duration::from_secs(20)).map_err(|error| error.context(host.last_lines()))?;
        Ok(host)
    }

    /// Every message that it has kept, in no order.
    pub(super) fn received(&self) -> Result<Vec<Vec<u8>>> {
        match &self.keeps {
            Keeps::Postfix(postfix) => {
                let mut all = Vec::new();
                for user in super::MAILBOXES {
                    all.extend(postfix.received(&format!("{user}@{}", self.kind.domain()))?);
                }
                Ok(all)
            }
            Keeps::Onwards(sink, _) => Ok(sink.provider().messages().iter().map(|message| message.octets.to_vec()).collect()),
            Keeps::Folder(folder, _) => {
                let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
                let mut all = Vec::new();
                for entry in entries {
                    let entry = entry?;
                    let name = entry.file_name().to_string_lossy().into_owned();
                    // What is not renamed yet is not written yet.
                    if !name.starts_with('.') && !name.ends_with(".part") {
                        all.push(fs::read(entry.path())?);
                    }
                }
                Ok(all)
            }
        }
    }

    pub(super) fn last_lines(&self) -> String {
        match &self.keeps {
            Keeps::Postfix(postfix) => postfix.log(),
            Keeps::Folder(_, running) | Keeps::Onwards(_, running) => running.last_lines(),
        }
    }
}

fn exim_conf(folder: &Path, address: SocketAddr) -> String {
    let at = folder.display();
    format!(
        "exim_path = /var/lib/exim4\nspool_directory = {at}/spool\nlog_file_path = {at}/spool/%slog\npid_file_path = {at}/spool/exim.pid\n\
         primary_hostname = mx.exim.test\nlocal_interfaces = {}\ndaemon_smtp_ports = {}\nhost_lookup =\n\
         rfc1413_query_timeout = 0s\nacl_smtp_rcpt = check_rcpt\nacl_smtp_data = accept\nkeep_environment =\n\
         tls_advertise_hosts = *\ntls_certificate = {at}/cert.pem\ntls_privatekey = {at}/key.pem\n\
         smtputf8_advertise_hosts = *\nchunking_advertise_hosts = *\ndsn_advertise_hosts = *\nmessage_size_limit = 1M\n\
         begin acl\ncheck_rcpt:\n  deny local_parts = refused\n       message = no such mailbox\n\
         \x20 accept domains = exim.test\n  deny\n\
         begin routers\nlocal:\n  driver = accept\n  transport = files\n\
         begin transports\nfiles:\n  driver = appendfile\n  directory = {at}/mail\n  maildir_format\n  user = Debian-exim\n",
        address.ip(),
        address.port(),
    )
}

fn smtpd_conf(folder: &Path, address: SocketAddr, onwards: SocketAddr) -> String {
    let at = folder.display();
    format!(
        "pki receiver cert \"{at}/cert.pem\"\npki receiver key \"{at}/key.pem\"\nsmtp max-message-size 1M\n\
         listen on {} port {} tls pki receiver hostname mx.opensmtpd.test\n\
         action \"onwards\" relay host smtp://{onwards}\nmatch from any for rcpt-to regex \"^refused@\" reject\n\
         match from any for domain \"opensmtpd.test\" action \"onwards\"\n",
        address.ip(),
        address.port(),
    )
}

impl Tools {
    /// Runs the script `interop/install-receivers`, which does nothing when all is there.
    pub(super) fn install_receivers(&self) -> Result<()> {
        let script = Self::script("install-receivers");
        let status = Command::new(&script).status()?;
        anyhow::ensure!(status.success(), "the receiving hosts could not be installed; see above");
        Ok(())
    }

    /// A program of an unpacked package, in a namespace where `folder` is its `owner`'s.
    fn beside(&self, folder: &Path, owner: &str, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command.arg("--mount").arg(Self::script("beside")).arg(folder).arg(owner).arg(self.cached("debian").join(program));
        command
    }

    fn haraka(&self, file: &str) -> PathBuf {
        self.cached("haraka/node_modules/haraka").join(file)
    }
}
