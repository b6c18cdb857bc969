//! Who takes part: the network, the labeler, an MTA that polls it, and the members.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use atproto::label::{fold, read_query_labels};
use serde_json::{Value, json};

use super::consumer::Consumer;
use crate::daemon::{Daemon, Enrolled, Setup, Signatures};
use crate::dns::{self, Record, Zone};
use crate::interop::install::Tools;
use crate::interop::network::{Account, Mail, Network, Pds};
use crate::interop::xrpc;
use crate::labeler::setup::receive_mail;
use crate::process::{self, Running};
use crate::source::{Client, Target, Tls, Trouble};
use crate::tls::{Certificate, client_that_trusts_all};

const COLLECTION: &str = "email.atmos.attestation";
/// Short enough to wait for, and longer than what the stream tells takes.
const VERIFY: &str = "[verify]\ninterval = \"20s\"\nfailures = 3\nfailing_for = \"12s\"\n";
/// Of domains that were not enrolled at the MTA.
const DKIM_KEY: &str = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const READY_WAIT: Duration = Duration::from_secs(30);

/// The members by what happens to them.
pub(super) const NAMES: [&str; 8] = ["early", "patient", "plain", "records", "account", "handle", "mover", "keys"];
pub(super) const EARLY: usize = 0;
pub(super) const PATIENT: usize = 1;
pub(super) const PLAIN: usize = 2;
pub(super) const RECORDS: usize = 3;
pub(super) const ACCOUNT: usize = 4;
pub(super) const HANDLE: usize = 5;
pub(super) const MOVER: usize = 6;
pub(super) const KEYS: usize = 7;

/// All of it.
pub(super) struct Life {
    pub(super) tools: Tools,
    pub(super) at: PathBuf,
    pub(super) network: Network,
    pub(super) other: Pds,
    pub(super) dns: dns::Server,
    pub(super) mail: Receiver<String>,
    pub(super) labeler: Labeler,
    pub(super) consumer: Consumer,
    pub(super) members: Vec<Member>,
    pub(super) rows: usize,
    pub(super) wrong: usize,
    mta: Daemon,
    tls: Arc<rustls::ClientConfig>,
}

/// One member, and what must be true of its labels.
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) domain: String,
    pub(super) account: Account,
    /// It lives on the other PDS.
    pub(super) moved: bool,
    /// Labels in force.
    pub(super) force: BTreeSet<String>,
    /// Labels that were issued, negations included.
    pub(super) issued: usize,
    enrolled: Enrolled,
}

/// A labeler as a process.
pub(super) struct Labeler {
    at: PathBuf,
    name: &'static str,
    listen: SocketAddr,
    pub(super) running: Running,
}

impl Life {
    pub(super) fn build(tools: &Tools, at: &Path) -> Result<Self> {
        let dns = dns::Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), Zone::new())?;
        let (address, mail) = receive_mail()?;
        let certificate = Certificate::generate(&["localhost", "relay.test"])?;
        certificate.write_to(at)?;
        let (smtp_url, ca) = (format!("smtp://{address}"), at.join("ca.pem"));
        let sends = Mail { smtp_url: &smtp_url, from: "pds@harbour.test", ca: &ca };
        let network = Network::start_with(tools, at, Some(&sends))?;
        let other = network.start_other_pds()?;
        let mut accounts = Vec::new();
        for name in NAMES {
            let account = network.create_account(&format!("{name}-member.test"), &format!("{name}@harbour.test"))?;
            accounts.push((account, format!("{name}-mail.example")));
        }
        let ingest = format!("firehose = \"{}\"", network.firehose_url());
        let labeler = Labeler::start(at, "labeler", network.plc_url(), &dns, &ingest)?;
        let consumer = Consumer::start(tools, &labeler.url(), &labeler.did())?;
        let more = format!(
            "\n[labeler]\nurl = \"{}\"\ndid = \"{}\"\npoll_interval = \"1s\"\n\n[identity]\nplc_url = \"{}\"\n",
            labeler.url(),
            labeler.did(),
            network.plc_url()
        );
        let enrol: Vec<(&str, &str)> = accounts.iter().map(|(account, domain)| (account.did.as_str(), domain.as_str())).collect();
        let setup = Setup {
            io: "auto",
            signatures: Signatures::Three,
            nameserver: dns.address(),
            egress_port: process::free_address()?.port(),
            members: &enrol,
            more: &more,
        };
        let mta = Daemon::start(&at.join("mta"), &setup, &certificate)?;
        let members = NAMES.into_iter().zip(accounts).zip(&mta.enrolled).map(|((name, (account, domain)), enrolled)| {
            let (force, enrolled) = (BTreeSet::new(), enrolled.clone());
            Member { name, domain, account, moved: false, force, issued: 0, enrolled }
        });
        let members = members.collect();
        let (tools, at, tls) = (tools.clone(), at.to_owned(), client_that_trusts_all(false)?);
        Ok(Self { tools, at, network, other, dns, mail, labeler, consumer, members, rows: 0, wrong: 0, mta, tls })
    }

    /// Where a member's account is.
    pub(super) fn pds(&self, who: usize) -> &Pds {
        if self.members[who].moved { &self.other } else { self.network.pds() }
    }

    /// What `tradewind member add` told a member to publish, and where it receives mail.
    pub(super) fn publish(&self, who: usize) -> Result<()> {
        let member = &self.members[who];
        let zone = self.dns.zone();
        zone.set(&member.domain, vec![Record::Mx(10, "mx.harbour.test".to_owned())]);
        for record in &member.enrolled.dns_records {
            zone.remove(&record.name);
        }
        zone.set(&member.domain, vec![Record::Mx(10, "mx.harbour.test".to_owned())]);
        for record in &member.enrolled.dns_records {
            ensure!(zone.add_text(&record.name, &record.kind, &record.value), "cannot be published: {record:?}");
        }
        Ok(())
    }

    /// The same for a domain that only the labeler knows.
    pub(super) fn publish_domain(&self, who: usize, domain: &str) {
        let txt = |text: &str| vec![Record::Txt(text.into())];
        let zone = self.dns.zone();
        zone.set(domain, vec![Record::Mx(10, "mx.harbour.test".into()), Record::Txt("v=spf1 ip4:192.0.2.1 -all".into())]);
        zone.set(&format!("_atproto.{domain}"), txt(&format!("did={}", self.members[who].account.did)));
        zone.set(&format!("_dmarc.{domain}"), txt("v=DMARC1; p=reject"));
        zone.set(&format!("s1._domainkey.{domain}"), txt(DKIM_KEY));
    }

    /// Writes a member's attestation of its domain.
    pub(super) fn attest(&self, who: usize, relay: bool) -> Result<()> {
        let member = &self.members[who];
        let suffix = format!("._domainkey.{}", member.domain);
        let names = member.enrolled.dns_records.iter().map(|record| record.name.trim_end_matches('.'));
        let selectors: Vec<&str> = names.filter_map(|name| name.strip_suffix(&suffix)).collect();
        self.attest_domain(who, &member.domain, &selectors, relay)
    }

    /// And of any domain.
    pub(super) fn attest_domain(&self, who: usize, domain: &str, selectors: &[&str], relay: bool) -> Result<()> {
        let record = json!({
            "$type": COLLECTION,
            "domain": domain,
            "dkimSelectors": selectors,
            "relayMember": relay,
            "createdAt": jiff::Timestamp::now().to_string(),
        });
        self.pds(who).put_record(&self.members[who].account, COLLECTION, domain, &record)
    }

    /// Deletes an attestation.
    pub(super) fn withdraw(&self, who: usize, domain: &str) -> Result<()> {
        let account = &self.members[who].account;
        let body = json!({ "repo": account.did, "collection": COLLECTION, "rkey": domain });
        self.pds(who).call("com.atproto.repo.deleteRecord", &body, Some(&account.token)).map(drop)
    }

    /// What the MTA makes of the member who wants to submit.
    pub(super) fn mail(&self, who: usize) -> Result<String> {
        let member = &self.members[who];
        let target = Target::plain(self.mta.submission)
            .with_tls(Tls::StartTls(self.tls.clone()))
            .with_credentials(&member.enrolled.username, &member.enrolled.password);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut client = match Client::connect(&target).await {
                Ok(client) => client,
                Err(Trouble::Refused { command, reply }) => return Ok(format!("refuses {command} {}", reply.code)),
                Err(error) => return Err(error.into()),
            };
            let reply = client.say(&format!("MAIL FROM:<noreply@{}>\r\n", member.domain)).await?;
            drop(client.quit().await);
            Ok(match reply.code {
                250 => "admits".to_owned(),
                code => format!("refuses {code}"),
            })
        })
    }

    /// The labeler with other streams; its store stays.
    pub(super) fn watch_other_streams(&mut self, ingest: &str) -> Result<()> {
        self.labeler.write_settings(self.network.plc_url(), &self.dns, ingest)?;
        let from = self.labeler.running.output_len();
        let status = Command::new("kill").args(["-HUP", &self.labeler.running.pid().to_string()]).status()?;
        ensure!(status.success(), "kill -HUP");
        self.labeler.running.wait_for_line("ready", from, READY_WAIT)
    }
}

impl Labeler {
    pub(super) fn start(at: &Path, name: &'static str, plc: &str, dns: &dns::Server, ingest: &str) -> Result<Self> {
        let listen = process::free_address()?;
        let settings = at.join(format!("{name}.toml"));
        write_settings(at, name, listen, plc, dns, ingest)?;
        let running = start(at, name, &settings)?;
        Ok(Self { at: at.to_owned(), name, listen, running })
    }

    fn write_settings(&self, plc: &str, dns: &dns::Server, ingest: &str) -> Result<()> {
        write_settings(&self.at, self.name, self.listen, plc, dns, ingest)
    }

    /// On the same data, after it was killed.
    pub(super) fn start_again(&mut self) -> Result<()> {
        self.running = start(&self.at, self.name, &self.at.join(format!("{}.toml", self.name)))?;
        Ok(())
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    pub(super) fn did(&self) -> String {
        did(self.listen)
    }

    /// Labels of an account in force, as queryLabels has them.
    pub(super) fn in_force(&self, did: &str) -> Result<BTreeSet<String>> {
        let url = format!("{}/xrpc/com.atproto.label.queryLabels?uriPatterns={did}", self.url());
        let page = read_query_labels(&xrpc::get_octets(&url, None)?)?;
        Ok(fold(&page.labels, SystemTime::now()).into_iter().map(|label| label.val.clone()).collect())
    }

    /// What it tells the member.
    pub(super) fn status(&self, did: &str) -> Result<Value> {
        xrpc::get(&format!("{}/xrpc/coop.tradewind.getStatus?did={did}", self.url()))
    }

    /// The page that people read.
    pub(super) fn page(&self, subject: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&xrpc::get_octets(&format!("{}/status/{subject}", self.url()), None)?).into_owned())
    }
}

fn did(listen: SocketAddr) -> String {
    format!("did:web:localhost%3A{}", listen.port())
}

fn start(at: &Path, name: &str, settings: &Path) -> Result<Running> {
    let log = at.join(format!("{name}.log"));
    let from = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
    let mut command = Command::new(process::own("tradewind-labeler")?);
    command.arg("--config").arg(settings);
    let mut running = Running::start(name, command, &log)?;
    running.wait_for_line("ready", from, READY_WAIT).context("the labeler does not start")?;
    Ok(running)
}

fn write_settings(at: &Path, name: &str, listen: SocketAddr, plc: &str, dns: &dns::Server, ingest: &str) -> Result<()> {
    let toml = format!(
        "did = \"{}\"\nsigning_key = \"{name}.key\"\ndata_dir = \"{name}\"\nlisten = \"{listen}\"\n\
         [identity]\nplc_url = \"{plc}\"\n\
         [ingest]\n{ingest}\n[dns]\nnameservers = [\"{}\"]\n{VERIFY}",
        did(listen),
        dns.address()
    );
    Ok(std::fs::write(at.join(format!("{name}.toml")), toml)?)
}
