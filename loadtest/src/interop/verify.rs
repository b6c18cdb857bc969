//! DKIM signatures verified by others: dkimpy, and opendkim.
//!
//! Both get the message as Postfix wrote it to the maildir. dkimpy asks the scripted DNS server; opendkim cannot be told a
//! port, so its keys come from a file that holds the same records.

use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::install::Tools;
use crate::process;

/// What one verifier says about each signature of a message.
#[derive(Debug)]
pub(super) struct Verdicts {
    verifier: &'static str,
    /// Algorithm or selector, domain, and whether it verified.
    signatures: Vec<(String, bool)>,
}

impl Verdicts {
    /// Signatures that verified.
    pub(super) fn good(&self) -> usize {
        self.signatures.iter().filter(|(_, good)| *good).count()
    }

    /// Signatures found.
    pub(super) fn all(&self) -> usize {
        self.signatures.len()
    }

    /// What did not verify, and why.
    pub(super) fn bad(&self) -> String {
        let bad: Vec<&str> = self.signatures.iter().filter(|(_, good)| !good).map(|(what, _)| what.as_str()).collect();
        bad.join("; ")
    }
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {}", self.verifier, self.good(), self.all())
    }
}

/// dkimpy: RSA and Ed25519.
pub(super) fn dkimpy(tools: &Tools, nameserver: SocketAddr, message: &[u8]) -> Result<Verdicts> {
    let mut command = tools.python("verify.py");
    command.arg(nameserver.ip().to_string()).arg(nameserver.port().to_string());
    let said = with_input(&mut command, message)?;
    let signatures = said
        .lines()
        .map(|line| {
            let (verdict, what) = line.split_once(' ').unwrap_or((line, ""));
            (what.trim().to_owned(), verdict == "ok")
        })
        .collect();
    Ok(Verdicts { verifier: "dkimpy", signatures })
}

/// The published keys as opendkim reads them: `name value`, one a line.
pub(super) fn write_opendkim_keys(directory: &Path, keys: &[(String, String)]) -> Result<()> {
    let lines: String = keys.iter().map(|(name, value)| format!("{} {value}\n", name.trim_end_matches('.'))).collect();
    std::fs::write(directory.join("opendkim.keys"), lines)?;
    let at = directory.display();
    let config = format!(
        "Mode v\nTestDNSData {at}/opendkim.keys\nAlwaysAddARHeader yes\nInternalHosts none\nUserID root\nSyslog no\n\
         RequireSafeKeys no\nOn-BadSignature accept\n"
    );
    std::fs::write(directory.join("opendkim.conf"), config)?;
    Ok(())
}

/// opendkim in its test mode. It stops at nothing: every signature is tried.
pub(super) fn opendkim(directory: &Path, message: &[u8]) -> Result<Verdicts> {
    let program = process::find("opendkim").context("opendkim is not installed: apt-get install opendkim")?;
    let file = directory.join("opendkim.eml");
    std::fs::write(&file, message)?;
    let mut command = Command::new(program);
    command.arg("-x").arg(directory.join("opendkim.conf")).arg("-vvv").arg("-t").arg(&file);
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).replace(['\n', '\t'], " ");
    if !said.contains("Authentication-Results") {
        bail!("opendkim says no result:\n{said}{}", String::from_utf8_lossy(&output.stderr));
    }
    let signatures = said
        .split(';')
        .filter_map(|result| {
            let result = result.trim().strip_prefix("dkim=")?;
            let property = |name: &str| result.split(' ').find_map(|word| word.strip_prefix(name)).unwrap_or("?");
            let what = format!("{} {} {}", property("header.a="), property("header.d="), property("header.s="));
            Some((what, result.starts_with("pass ")))
        })
        .collect();
    Ok(Verdicts { verifier: "opendkim", signatures })
}

fn with_input(command: &mut Command, octets: &[u8]) -> Result<String> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no input")?.write_all(octets)?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{command:?} ended with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
