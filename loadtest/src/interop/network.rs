//! A real PLC directory and a real PDS on loopback, used as their operator uses them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::install::Tools;
use super::xrpc;
use crate::process::{self, Running};

const READY_WAIT: Duration = Duration::from_secs(60);
/// Of every account.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// What the PDS signs operations of its accounts' DIDs with.
pub(crate) const ROTATION_KEY_HEX: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// The mail settings of a PDS: without them it sends none.
pub(crate) struct Mail<'a> {
    /// `PDS_EMAIL_SMTP_URL`.
    pub(crate) smtp_url: &'a str,
    /// `PDS_EMAIL_FROM_ADDRESS`.
    pub(crate) from: &'a str,
    /// The authority behind the SMTP server's certificate.
    pub(crate) ca: &'a Path,
}

/// PLC directory and PDS.
pub(crate) struct Network {
    tools: Tools,
    directory: PathBuf,
    plc_url: String,
    pds_url: String,
    pds_port: u16,
    pds: Running,
    _plc: Running,
}

/// An account of the PDS with an open session.
pub(crate) struct Account {
    pub(crate) did: String,
    token: String,
}

impl Network {
    /// Starts both; the PDS does not send mail yet.
    pub(crate) fn start(tools: &Tools, directory: &Path) -> Result<Self> {
        let port = process::free_address()?.port();
        let mut command = tools.node("plc.mjs");
        command.env("PLC_PORT", port.to_string());
        let mut plc = Running::start("plc", command, &directory.join("plc.log"))?;
        plc.wait_for_line("ready", 0, READY_WAIT)?;
        let pds_port = process::free_address()?.port();
        let plc_url = format!("http://127.0.0.1:{port}");
        let pds = start_pds(tools, directory, pds_port, &plc_url, None)?;
        let pds_url = format!("http://127.0.0.1:{pds_port}");
        Ok(Self { tools: tools.clone(), directory: directory.to_owned(), plc_url, pds_url, pds_port, pds, _plc: plc })
    }

    /// Starts the PDS again on the same data, with these mail settings.
    pub(crate) fn restart_pds(&mut self, mail: &Mail<'_>) -> Result<()> {
        self.pds.stop(Duration::from_secs(15))?;
        self.pds = start_pds(&self.tools, &self.directory, self.pds_port, &self.plc_url, Some(mail))?;
        Ok(())
    }

    /// Where DIDs are looked up.
    pub(crate) fn plc_url(&self) -> &str {
        &self.plc_url
    }

    /// Where the PDS is.
    pub(crate) fn pds_url(&self) -> &str {
        &self.pds_url
    }

    /// The DID document of an account, as the directory gives it.
    pub(crate) fn document(&self, account: &Account) -> Result<Value> {
        xrpc::get(&format!("{}/{}", self.plc_url, account.did))
    }

    /// A record of an account's repository, as the PDS gives it.
    pub(crate) fn record(&self, account: &Account, collection: &str, key: &str) -> Result<Value> {
        let query = format!("repo={}&collection={collection}&rkey={key}", account.did);
        xrpc::get(&format!("{}/xrpc/com.atproto.repo.getRecord?{query}", self.pds_url))
    }

    /// Where `com.atproto.sync.subscribeRepos` is.
    pub(crate) fn firehose_url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.pds_port)
    }

    /// A new account, with a real did:plc.
    pub(crate) fn create_account(&self, handle: &str, email: &str) -> Result<Account> {
        let body = json!({ "handle": handle, "email": email, "password": PASSWORD });
        let session = self.call("com.atproto.server.createAccount", &body, None)?;
        let field = |name: &str| session[name].as_str().map(str::to_owned).with_context(|| format!("no {name} in {session}"));
        Ok(Account { did: field("did")?, token: field("accessJwt")? })
    }

    /// Writes a record into the account's repository.
    pub(crate) fn put_record(&self, account: &Account, collection: &str, key: &str, record: &Value) -> Result<()> {
        let body = json!({ "repo": account.did, "collection": collection, "rkey": key, "record": record });
        self.call("com.atproto.repo.putRecord", &body, Some(&account.token)).map(drop)
    }

    /// Somebody forgot the password: the PDS sends mail, and answers when its SMTP server has.
    pub(crate) fn request_password_reset(&self, email: &str) -> Result<()> {
        self.call("com.atproto.server.requestPasswordReset", &json!({ "email": email }), None)
            .map(drop)
            .with_context(|| format!("the PDS says:\n{}", self.pds.last_lines()))
    }

    fn call(&self, method: &str, body: &Value, token: Option<&str>) -> Result<Value> {
        xrpc::post(&format!("{}/xrpc/{method}", self.pds_url), body, token)
    }
}

fn start_pds(tools: &Tools, directory: &Path, port: u16, plc_url: &str, mail: Option<&Mail<'_>>) -> Result<Running> {
    let data = directory.join("pds");
    std::fs::create_dir_all(&data)?;
    let mut command: Command = tools.node("pds.mjs");
    command
        .env("PDS_PORT", port.to_string())
        .env("PDS_HOSTNAME", "localhost")
        .env("PDS_DEV_MODE", "true")
        .env("PDS_DATA_DIRECTORY", &data)
        .env("PDS_BLOBSTORE_DISK_LOCATION", data.join("blobs"))
        .env("PDS_DID_PLC_URL", plc_url)
        .env("PDS_SERVICE_HANDLE_DOMAINS", ".test")
        .env("PDS_INVITE_REQUIRED", "false")
        .env("PDS_DISABLE_SSRF_PROTECTION", "true")
        .env("PDS_JWT_SECRET", "secret of a test")
        .env("PDS_ADMIN_PASSWORD", "admin of a test")
        .env("PDS_PLC_ROTATION_KEY_K256_PRIVATE_KEY_HEX", ROTATION_KEY_HEX)
        .env("LOG_ENABLED", "true");
    if let Some(mail) = mail {
        command
            .env("PDS_EMAIL_SMTP_URL", mail.smtp_url)
            .env("PDS_EMAIL_FROM_ADDRESS", mail.from)
            .env("NODE_EXTRA_CA_CERTS", mail.ca);
    }
    let log = directory.join("pds.log");
    let from = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
    let mut pds = Running::start("pds", command, &log)?;
    pds.wait_for_line("ready", from, READY_WAIT)?;
    Ok(pds)
}
