//! A labeler in this process, and around it a scripted atproto network and a scripted DNS.
#![allow(dead_code, clippy::unwrap_used, reason = "tests end where something is wrong, and each uses a part of this")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use atproto::did::{Did, Document};
use atproto::label::{Label, fold, read_query_labels};
use labeler::{Config, Running};
use loadtest::atnet::{Account, AtNet};
use loadtest::dns::{Record, Server, Zone};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) const LABELER: &str = "did:web:labeler.example.test";
pub(crate) const BOTH: [&str; 2] = ["relay-member", "verified-mail-operator"];
/// Far above what anything here takes; reached only by what never happens.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) net: AtNet,
    pub(crate) zone: Zone,
    pub(crate) labeler: Option<Running>,
    dns: Server,
    folder: tempfile::TempDir,
    extra: String,
    /// All of `[ingest]`, when it is not the firehose alone.
    pub(crate) ingest: String,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// `extra` goes into `[identity]`.
    pub(crate) async fn start_with(extra: &str) -> Self {
        let mut world = Self::without_labeler(extra).await;
        world.start_labeler().await;
        world
    }

    /// For [`World::start_labeler`] later.
    pub(crate) async fn without_labeler(extra: &str) -> Self {
        let zone = Zone::new();
        zone.set_ttl(0);
        let dns = Server::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), zone.clone()).unwrap();
        let net = AtNet::start().await.unwrap();
        let (folder, ingest) = (tempfile::tempdir().unwrap(), String::new());
        Self { net, zone, labeler: None, dns, folder, extra: extra.into(), ingest }
    }

    pub(crate) async fn start_labeler(&mut self) {
        self.labeler = Some(labeler::start(self.config()).await.unwrap());
    }

    pub(crate) async fn stop_labeler(&mut self) {
        self.labeler.take().unwrap().stop().await;
    }

    /// What `labeler.toml` says here.
    pub(crate) fn settings(&self) -> String {
        format!(
            "did = {LABELER:?}\nsigning_key = \"labeler.key\"\ndata_dir = \"data\"\nlisten = \"127.0.0.1:0\"\n\
             [identity]\nplc_url = {:?}\n{}\n[ingest]\n{}\n[dns]\nnameservers = [{:?}]\n[verify]\ninterval = \"1h\"\nfailures = 1\n",
            self.net.plc_url(),
            self.extra,
            if self.ingest.is_empty() { format!("firehose = {:?}", self.net.firehose_url()) } else { self.ingest.clone() },
            self.dns.address().to_string(),
        )
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config(&self) -> Config {
        let file = self.folder().join("labeler.toml");
        std::fs::write(&file, self.settings()).unwrap();
        Config::read(&file).unwrap()
    }

    /// Everything that a member's domain has to publish.
    pub(crate) fn publish(&self, account: &Account, domain: &str, selectors: &[&str]) {
        let txt = |text: &str| vec![Record::Txt(text.into())];
        self.zone.set(domain, vec![Record::Mx(10, format!("mx.{domain}")), Record::Txt("v=spf1 ip4:192.0.2.1 -all".into())]);
        self.zone.set(&format!("_atproto.{domain}"), txt(&format!("did={}", account.did.as_str())));
        self.zone.set(&format!("_dmarc.{domain}"), txt("v=DMARC1; p=reject"));
        for selector in selectors {
            self.zone.set(
                &format!("{selector}._domainkey.{domain}"),
                txt("v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="),
            );
        }
    }

    /// A member with everything right, labelled.
    pub(crate) async fn member(&self, handle: &str, domain: &str) -> Account {
        let account = self.net.create_account(handle);
        self.publish(&account, domain, &["s1"]);
        self.net.attest(&account, domain, &["s1"], true);
        self.until_labels(&account, &BOTH).await;
        account
    }

    /// Asks the labeler as any consumer does, verifies each label with the key of its document, and folds.
    pub(crate) async fn labels(&self, account: &Account) -> Vec<Label> {
        let (issuer, key) = self.issuer().await;
        let mut labels = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!(
                "/xrpc/com.atproto.label.queryLabels?uriPatterns={}&limit=1{cursor}",
                account.did.as_str().replace('%', "%25")
            );
            let (status, body) = self.get(&path).await;
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
            let page = read_query_labels(&body).unwrap();
            assert_eq!(page.refused, []);
            labels.extend(page.labels);
            match page.cursor {
                Some(next) => cursor = format!("&cursor={}", next.replace('%', "%25").replace(' ', "+")),
                None => break,
            }
        }
        for label in &labels {
            label.verify(&issuer, &key).unwrap();
        }
        labels
    }

    async fn issuer(&self) -> (Did, atproto::key::VerifyingKey) {
        let issuer: Did = LABELER.parse().unwrap();
        let (status, document) = self.get("/.well-known/did.json").await;
        assert_eq!(status, 200);
        let document = Document::parse(&document, &issuer).unwrap();
        assert_eq!(document.labeler().as_deref(), Some("https://labeler.example.test"));
        let key = document.label_key().unwrap();
        assert_eq!(key.did_key(), self.labeler.as_ref().unwrap().did_key());
        (issuer, key)
    }

    /// Waits until exactly these labels are in force.
    pub(crate) async fn until_labels(&self, account: &Account, expected: &[&str]) {
        let began = Instant::now();
        loop {
            let labels = self.labels(account).await;
            let in_force: Vec<String> =
                fold(&labels, std::time::SystemTime::now()).iter().map(|label| label.val.clone()).collect();
            if in_force == expected {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{in_force:?} instead of {expected:?}; {:?}", self.reasons(account));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The reasons kept of every domain.
    pub(crate) fn reasons(&self, account: &Account) -> String {
        let rows = self.labeler.as_ref().unwrap().store().rows(&account.did).unwrap();
        rows.iter().map(|(domain, row)| format!("{domain}: {:?} {}\n", row.state, row.reasons.join("; "))).collect()
    }

    /// Waits until the reasons of a refusal say this.
    pub(crate) async fn until_reason(&self, account: &Account, expected: &str) {
        let began = Instant::now();
        while !self.reasons(account).contains(expected) {
            assert!(began.elapsed() < PATIENCE, "not said: {expected}; {}", self.reasons(account));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// GET from the labeler: status and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let (status, _, body) = self.ask(&format!("GET {path}"), "").await;
        (status, body)
    }

    /// Any request, with more fields for its head; the answer's status, head in lower case, and body.
    pub(crate) async fn ask(&self, line: &str, fields: &str) -> (u16, String, Vec<u8>) {
        self.ask_at(self.labeler.as_ref().unwrap().local_addr(), line, fields).await
    }

    /// The same of another listener.
    pub(crate) async fn ask_at(&self, address: SocketAddr, line: &str, fields: &str) -> (u16, String, Vec<u8>) {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nHost: labeler\r\n{fields}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|octets| octets == b"\r\n\r\n").unwrap();
        let body = answer.split_off(end + 4);
        let head = String::from_utf8(answer).unwrap().to_lowercase();
        (head[9..12].parse().unwrap(), head, body)
    }
}
