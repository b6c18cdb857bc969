//! A labeler in this process with everything around it, and what is asked of it in most cases.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use ::labeler::{Config, Running};
use anyhow::{Context, Result};
use atproto::label::{fold, read_query_labels};

use super::Row;
use super::liar::Liar;
use crate::atnet::{Account, AtNet};
use crate::dns::{Record, Server, Zone};

pub(super) const LABELER: &str = "did:web:labeler.example.test";
/// Above the longest that one look may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is expected of one account.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) account: Account,
    /// A part of what is said of it.
    pub(super) reason: &'static str,
    /// How many labels are in force in the end.
    pub(super) labels: usize,
}

/// What is not as it mostly is.
#[derive(Default)]
pub(super) struct Setup<'a> {
    /// In `[identity]`.
    pub(super) identity: &'a str,
    /// At the end; `{dns}` in it is a second name server.
    pub(super) more: &'a str,
    /// The zone of that one.
    pub(super) second: Option<Zone>,
    /// Labels in the store at the start, each of another member whom nobody looks at again.
    pub(super) labels: usize,
    /// Another firehose than the network's.
    pub(super) firehose: Option<&'a str>,
}

pub(super) struct World {
    pub(super) net: AtNet,
    pub(super) zone: Zone,
    pub(super) liar: Liar,
    pub(super) labeler: Running,
    _dns: Vec<Server>,
    _folder: tempfile::TempDir,
}

impl World {
    pub(super) async fn start() -> Result<Self> {
        Self::set_up(Setup::default()).await
    }

    pub(super) async fn set_up(setup: Setup<'_>) -> Result<Self> {
        let zone = Zone::new();
        zone.set_ttl(0);
        let dns = Server::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), zone.clone())?;
        let other = Server::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), setup.second.unwrap_or_else(|| zone.clone()))?;
        let net = AtNet::start().await?;
        let liar = Liar::start(&net).await?;
        let folder = tempfile::Builder::new().prefix("tradewind-hostile-").tempdir()?;
        let text = format!(
            "did = {LABELER:?}\nsigning_key = \"labeler.key\"\ndata_dir = \"data\"\nlisten = \"127.0.0.1:0\"\n[identity]\nplc_url = {:?}\n\
             {}\n[ingest]\nfirehose = {:?}\nbackfill = {:?}\njetstream = {:?}\n[dns]\nnameservers = [{:?}]\n[verify]\ninterval = \"1h\"\nfailures = 1\n{}",
            liar.url(),
            setup.identity,
            setup.firehose.map_or_else(|| net.firehose_url(), str::to_owned),
            net.relay_url(),
            liar.jetstream_url(),
            dns.address().to_string(),
            setup.more.replace("{dns}", &format!("{:?}", other.address().to_string()))
        );
        let file = folder.path().join("labeler.toml");
        std::fs::write(&file, text)?;
        if setup.labels > 0 {
            super::super::speed::issue(&folder.path().join("data"), setup.labels)?;
        }
        let config = Config::read(&file).map_err(|error| anyhow::anyhow!("{error}"))?;
        let labeler = ::labeler::start(config).await?;
        Ok(Self { net, zone, liar, labeler, _dns: vec![dns, other], _folder: folder })
    }

    /// Everything that a member's domain has to publish.
    pub(super) fn publish(&self, account: &Account, domain: &str) {
        publish(&self.zone, account, domain);
    }

    /// An account with an attested domain in order.
    pub(super) fn member(&self, name: &str) -> (Account, String) {
        let (account, domain) = (self.net.create_account(&format!("{name}.test")), format!("{name}.example"));
        self.publish(&account, &domain);
        (account, domain)
    }

    /// Says that something is new about the account, and waits until its document is fetched.
    pub(super) async fn look_again(&self, account: &Account) -> Result<()> {
        let before = self.liar.looked_up(account.did.as_str());
        self.net.prod(account);
        self.looked_up(account, before).await
    }

    /// Waits until the account's document has been fetched more often than that.
    pub(super) async fn looked_up(&self, account: &Account, before: usize) -> Result<()> {
        let look = async {
            while self.liar.looked_up(account.did.as_str()) <= before {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.context("it is not looked at again")
    }

    /// What the labeler says of the account's domains, a line each.
    pub(super) fn said(&self, account: &Account) -> String {
        let rows = self.labeler.store().rows(&account.did).unwrap_or_default();
        let checks = |domain: &str| -> String {
            let checked = self.labeler.store().checked(&account.did, domain).ok().flatten();
            let why = checked.into_iter().flat_map(|checked| checked.checks).filter_map(|check| check.why);
            why.map(|why| format!("({why}) ")).collect()
        };
        let line = |(domain, row): (String, ::labeler::store::Row)| {
            format!("{domain}: {:?} {} {}", row.state, row.reasons.join("; "), checks(&domain))
        };
        rows.into_iter().map(line).collect()
    }

    /// Labels in force.
    pub(super) async fn labels(&self, account: &Account) -> Result<usize> {
        let path = format!("/xrpc/com.atproto.label.queryLabels?uriPatterns={}&limit=250", account.did.as_str());
        let answer = super::readers::get(self.labeler.local_addr(), &path).await?;
        let body = answer.split_once("\r\n\r\n").context("an answer without a body")?.1;
        let page = read_query_labels(body.as_bytes()).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(fold(&page.labels, SystemTime::now()).len())
    }

    /// Waits until each case has what is expected of it, and tells what there was.
    pub(super) async fn judge(&self, cases: Vec<Case>) -> Result<Vec<Row>> {
        let began = Instant::now();
        let mut rows = Vec::new();
        for case in cases {
            loop {
                let (said, labels) = (self.said(&case.account), self.labels(&case.account).await?);
                let fine = said.contains(case.reason) && !said.contains(": New") && labels == case.labels;
                if fine || began.elapsed() > PATIENCE {
                    let at = said.find(case.reason).unwrap_or(0);
                    let seen = format!("{labels} labels; {}", said.get(at..).unwrap_or(&said));
                    rows.push(Row::new(case.name, format!("{} labels; {}", case.labels, case.reason), seen, fine));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(rows)
    }
}

pub(super) fn publish(zone: &Zone, account: &Account, domain: &str) {
    let txt = |text: &str| vec![Record::Txt(text.into())];
    zone.set(domain, vec![Record::Mx(10, "mx.relay.test".into()), Record::Txt("v=spf1 ip4:192.0.2.1 -all".into())]);
    zone.set("mx.relay.test", vec![Record::A([203, 0, 113, 1].into())]);
    zone.set(&format!("_atproto.{domain}"), txt(&format!("did={}", account.did.as_str())));
    zone.set(&format!("_dmarc.{domain}"), txt("v=DMARC1; p=reject"));
    zone.set(&format!("s1._domainkey.{domain}"), txt("v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="));
}
