//! `tradewind demo`: the whole system on loopback, in one process, with nothing outside needed.
//!
//! A scripted atproto network (directory and PDS), a DNS server and two mailbox providers stand in for the world;
//! labeler and MTA are the real ones, started as their daemons start them. One member enrols, attests, is
//! verified and labelled, and its PDS's mail travels to the providers, where the signatures are checked by a
//! verifier that asks the demo's DNS, as a provider's would.

mod verify;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use loadtest::atnet::AtNet;
use loadtest::dns::{Record, Server, Zone};
use loadtest::sink::{Message, Provider, Script, Sink};
use loadtest::source::{Client as Submitter, Target, Tls};
use loadtest::tls::{Certificate, client_that_trusts_all};
use mta::config::Config;
use mta::control::api::{AddMember, AddToken, Enrolled, Key, Member, NewToken, Role, Status};
use mta::daemon::{self, Environment};

use crate::client::{Client, escape};

/// The member's domain, and its handle: what the sample mails are from.
const DOMAIN: &str = "pds.test";
/// Mails that a real PDS sent, and to whom they go here.
const MAILS: [(&str, &str, &[u8]); 5] = [
    ("password reset", "alice@big.test", include_bytes!("../../samples/pds-reset.eml")),
    ("email confirmation", "bob@big.test", include_bytes!("../../samples/pds-confirm.eml")),
    ("account deletion", "carol@small.test", include_bytes!("../../samples/pds-delete.eml")),
    ("PLC operation", "dave@small.test", include_bytes!("../../samples/pds-plc-operation.eml")),
    ("moderation", "erin@big.test", include_bytes!("../../samples/pds-moderation.eml")),
];
const SIGNATURES: usize = 3;
/// Nothing here takes a second; whoever waits longer waits for something that does not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the demo; `once`: ends when the mail has been checked, otherwise stays up until interrupted.
pub(crate) fn run(once: bool) -> anyhow::Result<()> {
    // Warnings only: the story is told by the lines below.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, story(once))
}

/// Prints a step and how long it took since the last one.
struct Teller(Instant);

impl Teller {
    fn tell(&mut self, step: &str, what: &str) {
        let took = self.0.elapsed();
        println!("{:>9.1} ms  {step:<11} {what}", took.as_secs_f64() * 1000.0);
        self.0 = Instant::now();
    }
}

async fn story(once: bool) -> anyhow::Result<()> {
    println!("tradewind demo: a PDS, a labeler, an MTA and two mailbox providers, all on loopback\n");
    let folder = tempfile::tempdir()?;
    let began = Instant::now();
    let mut teller = Teller(began);

    // The world outside.
    let zone = Zone::new();
    let dns = Server::start("127.0.0.1:0".parse()?, zone.clone()).context("the demo's DNS server")?;
    let network = AtNet::start().await.context("the demo's atproto network")?;
    let certificate = Certificate::generate(&["localhost", "mx.big.test", "mx.small.test"])?;
    certificate.write_to(folder.path())?;
    let script = |name: &str, chunking| Script { hostname: name.to_owned(), starttls: true, chunking, ..Script::default() };
    let (big, small) = (Provider::new(script("mx.big.test", true)), Provider::new(script("mx.small.test", false)));
    let big_sink = Sink::start("127.0.0.11:0".parse()?, big.clone(), Some(&certificate)).context("provider big.test")?;
    let port = big_sink.address().port();
    let _small_sink = Sink::start(SocketAddr::new("127.0.0.12".parse()?, port), small.clone(), Some(&certificate))?;
    zone.mail_domain("big.test", "mx.big.test", IpAddr::from([127, 0, 0, 11]));
    zone.mail_domain("small.test", "mx.small.test", IpAddr::from([127, 0, 0, 12]));
    teller.tell(
        "world",
        &format!("DNS {}, PDS {}, providers big.test and small.test on port {port}", dns.address(), network.pds_url()),
    );

    // The labeler.
    let labeler = labeler::start(labeler_config(folder.path(), &network, dns.address())?).await.context("the labeler")?;
    teller.tell("labeler", &format!("did:web:labeler.test answers at http://{}", labeler.local_addr()));

    // The MTA.
    let path = folder.path().join("mta.toml");
    std::fs::write(&path, mta_config(folder.path(), dns.address(), labeler.local_addr(), port, &network.plc_url()))?;
    let config = Arc::new(Config::load(&path)?);
    let metrics = mta::control::metrics::install()?;
    let (environment, fallback) = Environment::of_machine(&config)?;
    let io = environment.io.to_string();
    let running = daemon::start(config.clone(), environment).await.context("the MTA")?;
    let control = running.control(Some(metrics)).await.context("the MTA's control thread")?;
    control.set_stage(mta::control::admin::Stage::Ready);
    let [submission, submissions] = running.addresses[..] else { bail!("the MTA listens on {:?}", running.addresses) };
    let why = fallback.map(|why| format!(" ({why})")).unwrap_or_default();
    teller.tell("mta", &format!("listens on {submission} (STARTTLS) and {submissions} (TLS), io {io}{why}"));

    // The member enrols, publishes, attests.
    let client = Client::new(&config, &path);
    let account = network.create_account(DOMAIN);
    let did = account.did.as_str().to_owned();
    let add = AddMember { did: did.clone(), domain: DOMAIN.to_owned(), class: Vec::new(), tier: None };
    let enrolled: Enrolled = client.post("/v1/members", &add).await?;
    teller.tell("enrol", &format!("{did} may send from {DOMAIN}, with a password that is shown once"));
    let before = submit(submission, &enrolled, MAILS[0].1, MAILS[0].2).await;
    match before {
        Err(refusal) => teller.tell("refused", &format!("mail before any label: {refusal}")),
        Ok(_) => bail!("the MTA took mail of a member without labels"),
    }
    // The co-op's own key is published by its operator.
    publish(&zone, &enrolled, &client.get::<Vec<Key>>("/v1/keys").await?)?;
    teller.tell("dns", &format!("{} records published: DKIM, SPF, DMARC, _atproto, MX", enrolled.dns_records.len() + 1));
    let selectors = selectors(&enrolled);
    let selectors: Vec<&str> = selectors.iter().map(String::as_str).collect();
    network.attest(&account, DOMAIN, &selectors, true);
    teller.tell("record", &format!("email.atmos.attestation for {DOMAIN}, selectors {}", selectors.join(" ")));
    let labelled = wait_for(|| async { Ok(labels(&labeler, &account.did)?.len() >= 2) }).await?;
    if !labelled {
        bail!("no label: {}", explain(&labeler, &account.did)?);
    }
    teller.tell("checks", &explain(&labeler, &account.did)?);
    teller.tell("label", &labels(&labeler, &account.did)?.join(", "));
    let member = format!("/v1/members/{}", escape(&did));
    if !wait_for(|| async { Ok(client.get::<Member>(&member).await?.admitted) }).await? {
        bail!("the MTA does not admit {did}: {:?}", client.get::<Member>(&member).await?.reason);
    }
    teller.tell("admitted", "the MTA has polled the labels and verified their signatures");

    // Its PDS sends.
    for (what, recipient, sample) in MAILS {
        let reply = submit(submission, &enrolled, recipient, sample).await.map_err(anyhow::Error::msg)?;
        teller.tell("submitted", &format!("{what} to {recipient}: {reply}"));
    }
    let expected = MAILS.len() as u64;
    if !wait_for(|| async { Ok(big.counts().messages + small.counts().messages >= expected) }).await? {
        bail!("{} of {expected} messages arrived", big.counts().messages + small.counts().messages);
    }
    teller.tell(
        "delivered",
        &format!("{} to big.test, {} to small.test, over TLS", big.counts().messages, small.counts().messages),
    );

    // What a provider sees.
    let arrived: Vec<Message> = big.messages().into_iter().chain(small.messages()).collect();
    let mut verified = Vec::new();
    for message in &arrived {
        verified.push(verify::signatures(&message.octets, dns.address()).await?);
    }
    let worst = verified.iter().map(|signatures| signatures.passed.len()).min().unwrap_or(0);
    if let Some(signatures) = verified.first() {
        teller.tell("verified", &signatures.passed.join(", "));
    }
    for message in &arrived {
        let report = verify::vouched(&message.octets, &network.plc_url(), dns.address(), labeler.local_addr()).await?;
        if report.verdict != vouch::Verdict::Vouched || report.did.as_ref() != Some(&account.did) {
            bail!("nobody vouches for a message that arrived: {}", report.reasons.join("; "));
        }
    }
    teller.tell("vouched", &format!("{did} stands behind each of them, says did:web:labeler.test"));
    let clear = arrived.iter().filter(|message| !message.tls).count();
    let settled = wait_for(|| async { Ok(client.get::<Status>("/v1/status").await?.deliveries == 0) }).await?;
    if clear > 0 || !settled || arrived.len() as u64 != expected {
        bail!("{} messages arrived, {clear} in clear text; the queue is empty: {settled}", arrived.len());
    }
    let status = config.admin.as_ref().map_or(String::new(), |_| format!("http://{}/", control.address().unwrap_or(submission)));
    let add = AddToken { name: "demo".to_owned(), role: Role::Admin };
    let operator: NewToken = client.post("/v1/tokens", &add).await?;
    println!("\nConsole: {status}  sign in with {}", operator.token);
    println!(
        "Delivered {} of {expected} messages in {:.0} ms from nothing; the queue is empty.",
        arrived.len(),
        began.elapsed().as_secs_f64() * 1000.0
    );
    if worst < SIGNATURES {
        for failure in verified.iter().flat_map(|signatures| &signatures.failed) {
            println!("  {failure}");
        }
        bail!("only {worst} of {SIGNATURES} signatures verified");
    }
    println!("{worst} of {SIGNATURES} signatures verified on each message.");

    if !once {
        println!("\nStays up until you press Ctrl-C. Try: tradewind --config {} queue list", path.display());
        tokio::signal::ctrl_c().await?;
    }
    control.set_stage(mta::control::admin::Stage::Draining);
    running.stop().await;
    labeler.stop().await;
    Ok(())
}

/// Submits a sample as its PDS did: STARTTLS, AUTH PLAIN, one message. The reply's text, or the refusal's.
async fn submit(address: SocketAddr, enrolled: &Enrolled, recipient: &str, sample: &[u8]) -> Result<String, String> {
    let text = String::from_utf8_lossy(sample).replace("alice@member.example", recipient);
    let target = Target::plain(address)
        .with_tls(Tls::StartTls(client_that_trusts_all(false).map_err(|error| error.to_string())?))
        .with_credentials(&enrolled.username, &enrolled.password);
    let mut client = Submitter::connect(&target).await.map_err(|trouble| trouble.to_string())?;
    let from = format!("noreply@{DOMAIN}");
    let reply = client.send(&from, &[recipient], text.as_bytes()).await.map_err(|trouble| trouble.to_string())?;
    // The message has its answer; how the session ends does not matter to it.
    let _ = client.quit().await;
    if reply.code == 250 { Ok(reply.text) } else { Err(format!("{} {}", reply.code, reply.text)) }
}

fn publish(zone: &Zone, enrolled: &Enrolled, keys: &[Key]) -> anyhow::Result<()> {
    for record in enrolled.dns_records.iter().chain(keys.iter().map(|key| &key.dns_record)) {
        if !zone.add_text(&record.name, &record.kind, &record.value) {
            bail!("the DNS record {} {} makes no sense", record.name, record.kind);
        }
    }
    zone.mail_domain(DOMAIN, &format!("mx.{DOMAIN}"), IpAddr::from([127, 0, 0, 13]));
    zone.add(&format!("mx.{DOMAIN}"), Record::address(IpAddr::from([127, 0, 0, 13])));
    Ok(())
}

/// The labels that the labeler has signed for a DID.
fn labels(labeler: &labeler::Running, did: &atproto::Did) -> anyhow::Result<Vec<String>> {
    let pattern = labeler::store::Pattern::parse(did.as_str()).map_err(anyhow::Error::msg)?;
    let page = atproto::label::read_query_labels(&labeler.store().query(&[pattern], None, 50)?)?;
    Ok(page.labels.iter().filter(|label| label.neg != Some(true)).map(|label| label.val.clone()).collect())
}

/// What the labeler has found out about each domain of a DID.
fn explain(labeler: &labeler::Running, did: &atproto::Did) -> anyhow::Result<String> {
    let rows = labeler.store().rows(did)?;
    let found = rows.iter().map(|(domain, row)| match row.reasons.as_slice() {
        [] => format!("{domain}: domain control, MX, SPF, DKIM, DMARC: {:?}", row.state),
        reasons => format!("{domain}: {:?}: {}", row.state, reasons.join("; ")),
    });
    Ok(found.collect::<Vec<_>>().join(", "))
}

/// The selectors that `member add` told the member to publish.
fn selectors(enrolled: &Enrolled) -> Vec<String> {
    let suffix = format!("._domainkey.{}", enrolled.domain);
    let names = enrolled.dns_records.iter().map(|record| record.name.trim_end_matches('.'));
    names.filter_map(|name| name.strip_suffix(&suffix)).map(str::to_owned).collect()
}

/// Asks again until it is so. False: it did not come to be within [`PATIENCE`].
async fn wait_for<F>(mut ask: impl FnMut() -> F) -> anyhow::Result<bool>
where
    F: Future<Output = anyhow::Result<bool>>,
{
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if ask().await? {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(false)
}

fn labeler_config(folder: &Path, network: &AtNet, dns: SocketAddr) -> anyhow::Result<labeler::Config> {
    let text = format!(
        r#"
did         = "did:web:labeler.test"
signing_key = "labeler.key"
data_dir    = "labeler-data"
listen      = "127.0.0.1:0"
[identity]
plc_url = "{}"
[ingest]
firehose = "{}"
[dns]
nameservers = ["{dns}"]
"#,
        network.plc_url(),
        network.firehose_url()
    );
    let path = folder.join("labeler.toml");
    std::fs::write(&path, text)?;
    Ok(labeler::Config::read(&path)?)
}

fn mta_config(folder: &Path, dns: SocketAddr, labeler: SocketAddr, port: u16, plc_url: &str) -> String {
    format!(
        r#"
hostname = "relay.test"
data_dir = "{data}"
[[listen]]
address = "127.0.0.1:0"
role    = "submission"
[[listen]]
address = "127.0.0.1:0"
role    = "submissions"
[tls]
certificate = "cert.pem"
private_key = "key.pem"
[dns]
nameservers = ["{dns}"]
[signing]
domain = "relay.test"
[egress]
port = {port}
allow_private_addresses = true
[[source]]
name    = "ip-a"
address = "127.0.0.2"
ehlo    = "a.relay.test"
[labeler]
url           = "http://{labeler}"
did           = "did:web:labeler.test"
poll_interval = "100ms"
[identity]
plc_url = "{plc_url}"
[admin]
address = "127.0.0.1:0"
"#,
        data = folder.join("data").display()
    )
}
