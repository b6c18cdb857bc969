//! A real PLC directory and real PDSes on loopback, used as their operator uses them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use bytes::Bytes;
use serde_json::{Value, json};

use super::install::Tools;
use super::xrpc;
use crate::process::{self, Running};

const READY_WAIT: Duration = Duration::from_secs(60);
/// Of every account.
pub(crate) const PASSWORD: &str = "correct horse battery staple";
const ADMIN_PASSWORD: &str = "admin of a test";

/// What the first PDS signs operations of its accounts' DIDs with.
pub(crate) const ROTATION_KEY_HEX: &str = "1111111111111111111111111111111111111111111111111111111111111111";
/// And the second.
const OTHER_ROTATION_KEY_HEX: &str = "2222222222222222222222222222222222222222222222222222222222222222";

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
    plc_url: String,
    pds: Pds,
    _plc: Running,
}

/// One PDS.
pub(crate) struct Pds {
    tools: Tools,
    directory: PathBuf,
    name: &'static str,
    rotation_key: &'static str,
    plc_url: String,
    port: u16,
    url: String,
    running: Running,
}

/// An account of a PDS with an open session.
#[derive(Clone)]
pub(crate) struct Account {
    pub(crate) did: String,
    pub(crate) token: String,
}

impl Network {
    /// Starts both; the PDS does not send mail yet.
    pub(crate) fn start(tools: &Tools, directory: &Path) -> Result<Self> {
        Self::start_with(tools, directory, None)
    }

    /// Starts both, the PDS with these mail settings.
    pub(crate) fn start_with(tools: &Tools, directory: &Path, mail: Option<&Mail<'_>>) -> Result<Self> {
        let port = process::free_address()?.port();
        let mut command = tools.node("plc.mjs");
        command.env("PLC_PORT", port.to_string());
        let mut plc = Running::start("plc", command, &directory.join("plc.log"))?;
        plc.wait_for_line("ready", 0, READY_WAIT)?;
        let plc_url = format!("http://127.0.0.1:{port}");
        let pds = Pds::start(tools, directory, "pds", ROTATION_KEY_HEX, &plc_url, mail)?;
        Ok(Self { plc_url, pds, _plc: plc })
    }

    /// Another PDS with the same directory, and with a rotation key of its own.
    pub(crate) fn start_other_pds(&self) -> Result<Pds> {
        Pds::start(&self.pds.tools, &self.pds.directory, "other-pds", OTHER_ROTATION_KEY_HEX, &self.plc_url, None)
    }

    /// Starts the PDS again on the same data, with these mail settings.
    pub(crate) fn restart_pds(&mut self, mail: &Mail<'_>) -> Result<()> {
        self.pds.restart(mail)
    }

    /// The PDS.
    pub(crate) fn pds(&self) -> &Pds {
        &self.pds
    }

    /// Where DIDs are looked up.
    pub(crate) fn plc_url(&self) -> &str {
        &self.plc_url
    }

    /// Where the PDS is.
    pub(crate) fn pds_url(&self) -> &str {
        &self.pds.url
    }

    /// The DID document of an account, as the directory gives it.
    pub(crate) fn document(&self, account: &Account) -> Result<Value> {
        xrpc::get(&format!("{}/{}", self.plc_url, account.did))
    }

    /// A record of an account's repository, as the PDS gives it.
    pub(crate) fn record(&self, account: &Account, collection: &str, key: &str) -> Result<Value> {
        let query = format!("repo={}&collection={collection}&rkey={key}", account.did);
        xrpc::get(&format!("{}/xrpc/com.atproto.repo.getRecord?{query}", self.pds.url))
    }

    /// Where `com.atproto.sync.subscribeRepos` is.
    pub(crate) fn firehose_url(&self) -> String {
        self.pds.firehose_url()
    }

    /// A new account, with a real did:plc.
    pub(crate) fn create_account(&self, handle: &str, email: &str) -> Result<Account> {
        self.pds.create_account(&json!({ "handle": handle, "email": email, "password": PASSWORD }), None)
    }

    /// Writes a record into the account's repository.
    pub(crate) fn put_record(&self, account: &Account, collection: &str, key: &str, record: &Value) -> Result<()> {
        self.pds.put_record(account, collection, key, record)
    }

    /// Somebody forgot the password: the PDS sends mail, and answers when its SMTP server has.
    pub(crate) fn request_password_reset(&self, email: &str) -> Result<()> {
        self.pds
            .call("com.atproto.server.requestPasswordReset", &json!({ "email": email }), None)
            .map(drop)
            .with_context(|| format!("the PDS says:\n{}", self.pds.running.last_lines()))
    }
}

impl Pds {
    fn start(
        tools: &Tools,
        directory: &Path,
        name: &'static str,
        rotation_key: &'static str,
        plc_url: &str,
        mail: Option<&Mail<'_>>,
    ) -> Result<Self> {
        let port = process::free_address()?.port();
        let running = start_pds(tools, directory, name, rotation_key, port, plc_url, mail)?;
        let (tools, directory, plc_url) = (tools.clone(), directory.to_owned(), plc_url.to_owned());
        let url = format!("http://127.0.0.1:{port}");
        Ok(Self { tools, directory, name, rotation_key, plc_url, port, url, running })
    }

    fn restart(&mut self, mail: &Mail<'_>) -> Result<()> {
        self.running.stop(Duration::from_secs(15))?;
        let Self { tools, directory, name, rotation_key, plc_url, port, .. } = self;
        self.running = start_pds(tools, directory, name, rotation_key, *port, plc_url, Some(mail))?;
        Ok(())
    }

    /// Where it is, as the DID documents of its accounts say.
    pub(crate) fn public_url(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// Where `com.atproto.sync.subscribeRepos` is.
    pub(crate) fn firehose_url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// Who it is, for tokens that are meant for it.
    pub(crate) fn did(&self) -> String {
        service_did(self.port)
    }

    /// Where it keeps what belongs to one account.
    pub(crate) fn folder_of(&self, account: &Account) -> PathBuf {
        let hash = data_encoding::HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, account.did.as_bytes()).as_ref());
        let prefix = hash.get(..2).unwrap_or_default();
        self.directory.join(self.name).join("actors").join(prefix).join(&account.did)
    }

    /// A new account, or one that moves here: then `token` is of the PDS that it comes from.
    pub(crate) fn create_account(&self, body: &Value, token: Option<&str>) -> Result<Account> {
        let session = self.call("com.atproto.server.createAccount", body, token)?;
        let field = |name: &str| session[name].as_str().map(str::to_owned).with_context(|| format!("no {name} in {session}"));
        Ok(Account { did: field("did")?, token: field("accessJwt")? })
    }

    /// Writes a record into the account's repository.
    pub(crate) fn put_record(&self, account: &Account, collection: &str, key: &str, record: &Value) -> Result<()> {
        let body = json!({ "repo": account.did, "collection": collection, "rkey": key, "record": record });
        self.call("com.atproto.repo.putRecord", &body, Some(&account.token)).map(drop)
    }

    /// Calls a procedure.
    pub(crate) fn call(&self, method: &str, body: &Value, token: Option<&str>) -> Result<Value> {
        xrpc::post(&self.xrpc(method), body, token)
    }

    /// Calls a procedure that takes nothing.
    pub(crate) fn order(&self, method: &str, account: &Account) -> Result<Value> {
        let url = self.xrpc(method);
        let authorization = Some(format!("Bearer {}", account.token));
        xrpc::json(&url, &xrpc::post_octets(&url, "", Bytes::new(), authorization)?)
    }

    /// Calls a procedure as its operator.
    pub(crate) fn administer(&self, method: &str, body: &Value) -> Result<()> {
        let credentials = base64::engine::general_purpose::STANDARD.encode(format!("admin:{ADMIN_PASSWORD}"));
        let body = serde_json::to_vec(body)?.into();
        xrpc::post_octets(&self.xrpc(method), "application/json", body, Some(format!("Basic {credentials}"))).map(drop)
    }

    /// Asks a query of an account.
    pub(crate) fn query(&self, method: &str, query: &str, account: &Account) -> Result<Value> {
        let url = format!("{}?{query}", self.xrpc(method));
        xrpc::json(&url, &xrpc::get_octets(&url, Some(&account.token))?)
    }

    /// The whole repository of an account.
    pub(crate) fn repository(&self, account: &Account) -> Result<Bytes> {
        xrpc::get_octets(&format!("{}?did={}", self.xrpc("com.atproto.sync.getRepo"), account.did), None)
    }

    /// Takes one in.
    pub(crate) fn import(&self, account: &Account, repository: Bytes) -> Result<()> {
        let authorization = Some(format!("Bearer {}", account.token));
        xrpc::post_octets(&self.xrpc("com.atproto.repo.importRepo"), xrpc::CAR, repository, authorization).map(drop)
    }

    fn xrpc(&self, method: &str) -> String {
        format!("{}/xrpc/{method}", self.url)
    }
}

fn service_did(port: u16) -> String {
    format!("did:web:localhost%3A{port}")
}

fn start_pds(
    tools: &Tools,
    directory: &Path,
    name: &str,
    rotation_key: &str,
    port: u16,
    plc_url: &str,
    mail: Option<&Mail<'_>>,
) -> Result<Running> {
    let data = directory.join(name);
    std::fs::create_dir_all(&data)?;
    let mut command: Command = tools.node("pds.mjs");
    command
        .env("PDS_PORT", port.to_string())
        .env("PDS_HOSTNAME", "localhost")
        .env("PDS_SERVICE_DID", service_did(port))
        .env("PDS_DEV_MODE", "true")
        .env("PDS_DATA_DIRECTORY", &data)
        .env("PDS_BLOBSTORE_DISK_LOCATION", data.join("blobs"))
        // It looks up nobody at a host without a name.
        .env("PDS_DID_PLC_URL", plc_url.replace("127.0.0.1", "localhost"))
        .env("PDS_SERVICE_HANDLE_DOMAINS", ".test")
        .env("PDS_INVITE_REQUIRED", "false")
        .env("PDS_DISABLE_SSRF_PROTECTION", "true")
        .env("PDS_JWT_SECRET", "secret of a test")
        .env("PDS_ADMIN_PASSWORD", ADMIN_PASSWORD)
        .env("PDS_PLC_ROTATION_KEY_K256_PRIVATE_KEY_HEX", rotation_key)
        .env("LOG_ENABLED", "true");
    if let Some(mail) = mail {
        command
            .env("PDS_EMAIL_SMTP_URL", mail.smtp_url)
            .env("PDS_EMAIL_FROM_ADDRESS", mail.from)
            .env("NODE_EXTRA_CA_CERTS", mail.ca);
    }
    let log = directory.join(format!("{name}.log"));
    let from = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
    let mut pds = Running::start(name, command, &log)?;
    pds.wait_for_line("ready", from, READY_WAIT)?;
    Ok(pds)
}
