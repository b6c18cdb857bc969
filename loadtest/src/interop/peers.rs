//! Programs that submit mail, each in its own way: by 587 with STARTTLS, by 465 with TLS, and by 587 with TLS from the first
//! octet, because published instructions for PDS operators say so.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::install::Tools;
use crate::process;

/// How the session becomes TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Security {
    /// Port 587, although its clients should wait for a greeting.
    TlsOn587,
    /// Port 587.
    StartTls,
    /// Port 465.
    Tls,
}

impl Security {
    pub(super) const ALL: [Self; 3] = [Self::TlsOn587, Self::StartTls, Self::Tls];

    /// The port that stands for it in the world outside, and what is odd about it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TlsOn587 => "smtps on 587",
            Self::StartTls => "587",
            Self::Tls => "465",
        }
    }

    /// The scheme of a URL.
    pub(super) fn scheme(self) -> &'static str {
        if self == Self::StartTls { "smtp" } else { "smtps" }
    }
}

/// A program that submits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Swaks,
    Msmtp,
    Nodemailer,
    Smtplib,
}

/// What is to be submitted, and where.
pub(super) struct Submission<'a> {
    pub(super) server: SocketAddr,
    pub(super) security: Security,
    pub(super) ca: &'a Path,
    pub(super) username: &'a str,
    pub(super) password: &'a str,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
}

impl Peer {
    pub(super) const ALL: [Self; 4] = [Self::Swaks, Self::Msmtp, Self::Nodemailer, Self::Smtplib];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Swaks => "swaks",
            Self::Msmtp => "msmtp",
            Self::Nodemailer => "nodemailer",
            Self::Smtplib => "smtplib",
        }
    }

    /// Submits one message; an error is the program's own words.
    pub(super) fn submit(self, tools: &Tools, submission: &Submission<'_>) -> Result<()> {
        match self {
            Self::Swaks => swaks(submission),
            Self::Msmtp => msmtp(submission),
            Self::Nodemailer => nodemailer(tools, submission),
            Self::Smtplib => smtplib(tools, submission),
        }
    }
}

fn swaks(it: &Submission<'_>) -> Result<()> {
    let mut command = Command::new(process::find("swaks").context("swaks is not installed: apt-get install swaks")?);
    command
        .args(["--server", "localhost", "--port", &it.server.port().to_string()])
        .arg(if it.security == Security::StartTls { "--tls" } else { "--tls-on-connect" })
        .args(["--tls-verify", "--tls-ca-path"])
        .arg(it.ca)
        .args(["--auth", "PLAIN", "--auth-user", it.username, "--auth-password", it.password])
        .args(["--from", it.from, "--to", it.to, "--header", "Subject: Hello from swaks"])
        .args(["--body", "A line.\\n.\\n..two dots\\nThe end."]);
    process::output(&mut command).map(drop)
}

fn msmtp(it: &Submission<'_>) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("msmtprc");
    let starttls = if it.security == Security::StartTls { "on" } else { "off" };
    let text = format!(
        "account default\nhost localhost\nport {}\ntls on\ntls_starttls {starttls}\ntls_trust_file {}\nauth plain\n\
         user {}\npassword {}\nfrom {}\n",
        it.server.port(),
        it.ca.display(),
        it.username,
        it.password,
        it.from
    );
    std::fs::write(&config, text)?;
    // msmtp insists on it.
    std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    // No Date, no Message-ID: a submission server adds them (RFC 6409 §8). Unix line ends, as `mail` pipes them.
    let message = format!("From: {}\nTo: {}\nSubject: Hello from msmtp\n\nA line.\n.\nThe end.\n", it.from, it.to);
    let file = directory.path().join("message");
    std::fs::write(&file, message)?;
    let mut command = Command::new(process::find("msmtp").context("msmtp is not installed: apt-get install msmtp")?);
    command.arg("--file").arg(&config).arg(it.to).stdin(Stdio::from(std::fs::File::open(&file)?));
    let output = command.output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn nodemailer(tools: &Tools, it: &Submission<'_>) -> Result<()> {
    let scheme = it.security.scheme();
    let url = format!("{scheme}://{}:{}@localhost:{}", it.username, it.password, it.server.port());
    let mut command = tools.node("submit-nodemailer.mjs");
    command.env("NODE_EXTRA_CA_CERTS", it.ca).args([&url, it.from, it.to]);
    process::output(&mut command).map(drop)
}

fn smtplib(tools: &Tools, it: &Submission<'_>) -> Result<()> {
    let mut command = tools.python("submit-smtplib.py");
    command
        .args(["localhost", &it.server.port().to_string()])
        .arg(if it.security == Security::StartTls { "starttls" } else { "tls" })
        .arg(it.ca)
        .args([it.username, it.password, it.from, it.to]);
    process::output(&mut command).map(drop)
}
