//! `tradewind-labeler setup`: makes the world know that this DID is a labeler, and what its labels mean.
//!
//! 1. The DID document names the signing key (`#atproto_label`) and the endpoint (`#atproto_labeler`). A did:plc is changed by an operation, signed by
//!    a rotation key that the operator holds, or by the account's PDS, which mails a code first. A did:web is served by the labeler itself, or by
//!    whoever has that name: what the world is served is fetched and compared, and where something is missing the document is printed.
//! 2. The account's record `app.bsky.labeler.service/self` defines the values. Protocol and mail need none of it; applications and other people do.
//! 3. If asked: the lexicons of a folder as records `com.atproto.lexicon.schema`, for whoever holds the domain that they are named after.
//!
//! What is right already is left alone, so it can be run again, and must be when the key or the endpoint changes.

mod http;
mod record;
mod web;

use std::path::{Path, PathBuf};

use atproto::did::{Document, labeler_document, web_document_url, web_origin};
use atproto::key::SigningKey;
use atproto::plc::{Labeler, PlcError};
use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use serde_json::{Value, json};
use url::Url;

use crate::{Config, key, outside};
use http::{Client, Refused};

const SERVICE: &str = "app.bsky.labeler.service";
const LEXICON: &str = "com.atproto.lexicon.schema";
/// Octets of a lexicon.
const LEXICON_BYTES_MAX: u64 = 256 << 10;

/// What the operator says besides the configuration.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where the world reaches the labeler: `https://labeler.example.org`. A did:web has it in its name.
    pub endpoint: Option<Url>,
    /// The account's PDS; default: what its DID document says.
    pub pds: Option<Url>,
    /// The account's password, or an app password if a rotation key signs.
    pub password: Option<String>,
    /// The code that the PDS has mailed.
    pub token: Option<String>,
    /// A rotation key of the DID: 64 hexadecimal digits.
    pub rotation_key: Option<String>,
    /// A folder of lexicons to publish.
    pub lexicons: Option<PathBuf>,
}

/// Why it is not done.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Say it on the command line.
    #[error("{0}")]
    Missing(String),
    /// The key of the configuration is of no use.
    #[error("signing_key {0}: {1}")]
    Key(PathBuf, String),
    /// Nobody answered, or with something else.
    #[error("{0}: {1}")]
    Http(String, String),
    /// A did:web is served with something else in it: put this right, and run setup again.
    #[error("{0} differs: {1}")]
    Served(String, String),
    /// The PDS or the directory does not want it.
    #[error("{0} is refused: {1}")]
    Refused(String, String),
    /// The DID's operation cannot be made.
    #[error("{0}")]
    Plc(#[from] PlcError),
    /// A lexicon cannot be read.
    #[error("{0}: {1}")]
    Lexicon(PathBuf, String),
}

/// Does what is not done yet; `say` hears of each step.
pub async fn setup(config: &Config, options: &Options, say: &mut dyn FnMut(&str)) -> Result<(), SetupError> {
    let signing = key::open(&config.signing_key).map_err(|why| SetupError::Key(config.signing_key.clone(), why))?;
    let plc_url = config.identity.plc_url.as_str().trim_end_matches('/').to_owned();
    let mut setup = Setup { config, options, plc_url, key: signing, client: Client::new()?, session: None };
    setup.identity(say).await?;
    setup.records(say).await
}

struct Setup<'a> {
    config: &'a Config,
    options: &'a Options,
    plc_url: String,
    key: SigningKey,
    client: Client,
    session: Option<Session>,
}

/// Logged in at a PDS.
struct Session {
    pds: String,
    token: String,
}

impl Setup<'_> {
    async fn identity(&mut self, say: &mut dyn FnMut(&str)) -> Result<(), SetupError> {
        let did = &self.config.did;
        if let Some(origin) = web_origin(did) {
            let endpoint = self.options.endpoint.as_ref().map_or(origin, origin_of);
            return self.served(&labeler_document(did, &self.key.verifying_key(), &endpoint), say).await;
        }
        let endpoint = self.options.endpoint.as_ref().map(origin_of);
        let endpoint =
            endpoint.ok_or_else(|| missing("--endpoint https://labeler.example.org: where the world reaches this labeler"))?;
        let wanted = Labeler { key: self.key.verifying_key(), endpoint };
        let state = self.plc("data").await?;
        if wanted.is_in(&state) {
            say(&format!("{} names the key and the endpoint already", did.as_str()));
            return Ok(());
        }
        match &self.options.rotation_key {
            Some(secret) => {
                let key = HEX.decode(secret.trim().as_bytes()).ok().and_then(|octets| SigningKey::from_octets(&octets).ok());
                let key = key.ok_or_else(|| missing("a rotation key of 64 hexadecimal digits (secp256k1)"))?;
                let operation = wanted.operation(&self.plc("log/last").await?, &key)?;
                let url = format!("{}/{}", self.plc_url, did.as_str());
                accept("the operation", self.client.ask(&url, Some(&operation), None).await?)?;
            }
            None => self.ask_pds_to_sign(&wanted, &state, say).await?,
        }
        if !wanted.is_in(&self.plc("data").await?) {
            return Err(SetupError::Http(self.plc_url.clone(), "the directory took the operation, and does not show it".into()));
        }
        say(&format!("{} now names key {} and endpoint {}", did.as_str(), wanted.key, wanted.endpoint));
        Ok(())
    }

    /// Whether the world is served this document of a did:web; whoever is not there yet is no error, since that may be this labeler before its start.
    async fn served(&self, wanted: &Value, say: &mut dyn FnMut(&str)) -> Result<(), SetupError> {
        let did = &self.config.did;
        let url = web_document_url(did).unwrap_or_default();
        let found = match self.client.ask(&url, None, None).await {
            Ok(Ok(found)) => Ok(web::differences(&found, wanted)),
            Ok(Err(refused)) => Err(refused.message),
            Err(SetupError::Http(_, why)) => Err(why),
            Err(other) => return Err(other),
        };
        if found.as_ref().is_ok_and(Vec::is_empty) {
            say(&format!("{} names the key and the endpoint: {url} is right", did.as_str()));
            return Ok(());
        }
        say(&format!(
            "{} is this labeler's to serve, at /.well-known/did.json. Where another server has that name, it serves:",
            did.as_str()
        ));
        say(&serde_json::to_string_pretty(wanted).unwrap_or_default());
        match found {
            Ok(differences) => Err(SetupError::Served(url, differences.join("; "))),
            Err(why) => {
                say(&format!("{url} could not be read ({why}). Run this again when it is served, to have it compared."));
                Ok(())
            }
        }
    }

    /// Two runs: the first has a code mailed to the account's address, the second brings it.
    async fn ask_pds_to_sign(&mut self, wanted: &Labeler, state: &Value, say: &mut dyn FnMut(&str)) -> Result<(), SetupError> {
        let Some(token) = self.options.token.clone() else {
            self.call("com.atproto.identity.requestPlcOperationSignature", &Value::Null).await?;
            say("The PDS has mailed a code to the account's address.");
            return Err(missing("the code, as --token CODE; or a rotation key, as --rotation-key FILE"));
        };
        let (methods, services) = wanted.added_to(state);
        let body = json!({ "token": token.trim(), "verificationMethods": methods, "services": services });
        let signed = self.call("com.atproto.identity.signPlcOperation", &body).await?;
        self.call("com.atproto.identity.submitPlcOperation", &json!({ "operation": signed["operation"] })).await?;
        Ok(())
    }

    async fn records(&mut self, say: &mut dyn FnMut(&str)) -> Result<(), SetupError> {
        if self.options.password.is_none() {
            say("Without --password-file, no record is published: applications will not know what the labels mean.");
            return Ok(());
        }
        let known = self.record(SERVICE, "self").await?;
        let created = known.as_ref().and_then(|known| known["createdAt"].as_str()).map(str::to_owned);
        let created = created.unwrap_or_else(|| atproto::datetime(outside::now()).as_str().to_owned());
        self.put(SERVICE, "self", known, record::service(&created), say).await?;
        let Some(folder) = self.options.lexicons.clone() else { return Ok(()) };
        for (id, lexicon) in lexicons(&folder)? {
            let known = self.record(LEXICON, &id).await?;
            self.put(LEXICON, &id, known, lexicon, say).await?;
            say(&format!("publish in DNS: {} TXT \"did={}\"", record::lexicon_name(&id), self.config.did.as_str()));
        }
        Ok(())
    }

    async fn put(
        &mut self,
        collection: &str,
        rkey: &str,
        known: Option<Value>,
        record: Value,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), SetupError> {
        if known.as_ref() == Some(&record) {
            say(&format!("{collection}/{rkey} is published already"));
            return Ok(());
        }
        let body = json!({ "repo": self.config.did.as_str(), "collection": collection, "rkey": rkey, "record": record });
        let put = self.call("com.atproto.repo.putRecord", &body).await?;
        say(&format!(
            "published {} ({})",
            put["uri"].as_str().unwrap_or(rkey),
            put["validationStatus"].as_str().unwrap_or("not validated")
        ));
        Ok(())
    }

    async fn record(&mut self, collection: &str, rkey: &str) -> Result<Option<Value>, SetupError> {
        let pds = self.session().await?.pds.clone();
        let repo = self.config.did.as_str();
        let url = format!("{pds}/xrpc/com.atproto.repo.getRecord?repo={repo}&collection={collection}&rkey={rkey}");
        match self.client.ask(&url, None, None).await? {
            Ok(found) => Ok(Some(found["value"].clone())),
            Err(refused) if refused.name == "RecordNotFound" => Ok(None),
            Err(refused) => Err(SetupError::Refused("reading the record".into(), refused.message)),
        }
    }

    /// A procedure of the account's PDS.
    async fn call(&mut self, method: &str, body: &Value) -> Result<Value, SetupError> {
        let Session { pds, token } = self.session().await?;
        let (url, token) = (format!("{pds}/xrpc/{method}"), token.clone());
        accept(method, self.client.ask(&url, Some(body), Some(&token)).await?)
    }

    async fn session(&mut self) -> Result<&Session, SetupError> {
        if self.session.is_none() {
            let password = self
                .options
                .password
                .clone()
                .ok_or_else(|| missing("--password-file FILE: the password of the labeler's account"))?;
            let pds = match &self.options.pds {
                Some(pds) => origin_of(pds),
                None => self.pds_of_document().await?,
            };
            let body = json!({ "identifier": self.config.did.as_str(), "password": password });
            let url = format!("{pds}/xrpc/com.atproto.server.createSession");
            let session = accept("logging in", self.client.ask(&url, Some(&body), None).await?)?;
            let token = session["accessJwt"].as_str().unwrap_or_default().to_owned();
            self.session = Some(Session { pds, token });
        }
        self.session.as_ref().ok_or_else(|| missing("a session"))
    }

    async fn pds_of_document(&self) -> Result<String, SetupError> {
        let ask = || missing("--pds URL: the DID document names no PDS");
        if !self.config.did.as_str().starts_with("did:plc:") {
            return Err(ask());
        }
        let document = self.plc("").await?.to_string();
        let document = Document::parse(document.as_bytes(), &self.config.did);
        document.ok().and_then(|document| document.pds()).ok_or_else(ask)
    }

    /// What the directory has of the DID.
    async fn plc(&self, what: &str) -> Result<Value, SetupError> {
        let url = format!("{}/{}/{what}", self.plc_url, self.config.did.as_str());
        accept("looking up the DID", self.client.ask(url.trim_end_matches('/'), None, None).await?)
    }
}

fn lexicons(folder: &Path) -> Result<Vec<(String, Value)>, SetupError> {
    let failed = |path: &Path, why: String| SetupError::Lexicon(path.into(), why);
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|error| failed(&folder, error.to_string()))? {
            let path = entry.map_err(|error| failed(&folder, error.to_string()))?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                let size = std::fs::metadata(&path).map_or(0, |file| file.len());
                if size > LEXICON_BYTES_MAX {
                    return Err(failed(&path, "too large for a lexicon".into()));
                }
                let text = std::fs::read(&path).map_err(|error| failed(&path, error.to_string()))?;
                let lexicon: Value = serde_json::from_slice(&text).map_err(|error| failed(&path, error.to_string()))?;
                found.push(
                    record::lexicon(lexicon)
                        .ok_or_else(|| failed(&path, "not a lexicon: `lexicon` is 1, `id` its name".into()))?,
                );
            }
        }
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found)
}

fn accept(what: &str, answer: Result<Value, Refused>) -> Result<Value, SetupError> {
    answer.map_err(|refused| SetupError::Refused(what.into(), format!("{} {}", refused.name, refused.message).trim().to_owned()))
}

fn missing(what: &str) -> SetupError {
    SetupError::Missing(format!("needed: {what}"))
}

fn origin_of(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn the_document_of_a_did_web_is_compared_when_it_is_served() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let did = format!("did:web:localhost%3A{}", listener.local_addr().unwrap().port());
        let served = Arc::new(Mutex::new(None::<Value>));
        let serve = |served: Arc<Mutex<Option<Value>>>| async move {
            served.lock().unwrap().clone().map(axum::Json).ok_or(axum::http::StatusCode::NOT_FOUND)
        };
        let route = axum::routing::get({
            let served = served.clone();
            move || serve(served.clone())
        });
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/.well-known/did.json", route)).await });
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "did = {did:?}\nsigning_key = {:?}\ndata_dir = \"data\"\nlisten = \"127.0.0.1:0\"\n[ingest]\nfirehose = \"ws://127.0.0.1:1\"\n",
            folder.path().join("key")
        );
        let config = Config::parse(&text, Path::new("labeler.toml")).unwrap();
        let run = async || {
            let mut said = Vec::new();
            let done = setup(&config, &Options::default(), &mut |line| said.push(line.to_owned())).await;
            (done.map_err(|error| error.to_string()), said)
        };
        let (done, said) = run().await;
        assert_eq!(done, Ok(()), "nothing is there yet");
        assert!(said.iter().any(|line| line.contains("404") && line.contains("Run this again")), "{said:?}");
        let mut document: Value = said.iter().find_map(|line| serde_json::from_str(line).ok()).unwrap();

        *served.lock().unwrap() = Some(document.clone());
        let (done, said) = run().await;
        assert_eq!(done, Ok(()));
        assert!(said[0].contains("did.json is right"), "{said:?}");

        document["service"][0]["serviceEndpoint"] = json!("https://old.example");
        *served.lock().unwrap() = Some(document);
        let (done, said) = run().await;
        assert!(done.unwrap_err().contains("`serviceEndpoint` of `#atproto_labeler` is \"https://old.example\", not"));
        assert!(said.iter().any(|line| line.contains("publicKeyMultibase")), "what is right is printed: {said:?}");
    }
}
