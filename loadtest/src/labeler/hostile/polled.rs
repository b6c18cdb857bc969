//! A labeler, or somebody in its place, that lies to an MTA's own poll: `mta::control::labels`, with what an earlier poll of it knew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use atproto::did::{Did, labeler_document};
use atproto::key::SigningKey;
use atproto::label::{Label, Signature};
use axum::{Json, Router, routing::get};
use host::Clock;
use mta::config::Config;
use mta::control::fetch::Fetch;
use mta::control::labels::{Desk, LabelPoll, Row as Kept};
use mta::policy::standing::Standing;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::Row;
use super::signed::{did, high_s, key};
use super::world::LABELER;

const PATIENCE: Duration = Duration::from_secs(20);
const VALUE: &str = "relay-member";

/// What an MTA keeps, in memory.
struct Memory {
    members: Vec<String>,
    rows: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    published: UnboundedSender<Arc<Standing>>,
}

impl Desk for Memory {
    async fn members(&self) -> Vec<String> {
        self.members.clone()
    }

    async fn load(&self) -> Result<Vec<Kept>, String> {
        Ok(self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone().into_iter().collect())
    }

    async fn save(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), String> {
        let mut kept = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, row) in rows {
            match row {
                Some(row) => drop(kept.insert(key, row)),
                None => drop(kept.remove(&key)),
            }
        }
        Ok(())
    }

    fn publish(&self, standing: Arc<Standing>) {
        // Whoever waits may have gone.
        let _ = self.published.send(standing);
    }
}

/// What is said of a member at the first poll, and at the second.
type Said = (Vec<Label>, Vec<Label>);

/// What the labeler says about one member: at the first poll, at the second; and how many labels hold then.
struct Case {
    name: &'static str,
    before: Vec<Label>,
    then: Vec<Label>,
    holds: usize,
}

fn cases(now: SystemTime) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |name, holds, make: &dyn Fn(&Did) -> Said| {
        let (before, then) = make(&member(cases.len()));
        cases.push(Case { name, before, then, holds });
    };
    let issue = |about: &Did, ago: u64, signer: &SigningKey, change: &dyn Fn(&mut Label)| {
        let mut label = Label::account(did(LABELER), about, VALUE, atproto::datetime(now - Duration::from_secs(ago)));
        change(&mut label);
        label.sign(signer);
        label
    };
    let (ours, other) = (key(0x11), key(0x12));
    let good = |about: &Did| issue(about, 100, &ours, &|_| {});
    let spoiled = |about: &Did, change: &dyn Fn(&mut Label)| {
        let mut label = good(about);
        change(&mut label);
        label
    };
    case("a label in order", 1, &|it| (vec![], vec![good(it)]));
    case("a label by another key", 0, &|it| (vec![], vec![issue(it, 100, &other, &|_| {})]));
    case("a label by another key beside the right one", 1, &|it| (vec![], vec![issue(it, 50, &other, &|_| {}), good(it)]));
    case("another key where a label is known", 1, &|it| (vec![good(it)], vec![issue(it, 50, &other, &|_| {})]));
    case("a negation by another key", 1, &|it| (vec![good(it)], vec![issue(it, 50, &other, &|label| label.neg = Some(true))]));
    case("a negation in order", 0, &|it| (vec![good(it)], vec![issue(it, 50, &ours, &|label| label.neg = Some(true))]));
    case("a negation, and the old label again", 0, &|it| {
        (vec![good(it)], vec![issue(it, 50, &ours, &|label| label.neg = Some(true)), good(it)])
    });
    case("a negation with its neg taken out", 0, &|it| {
        let mut label = issue(it, 50, &ours, &|label| label.neg = Some(true));
        label.neg = None;
        (vec![], vec![label])
    });
    case("a label with high s", 0, &|it| {
        (vec![], vec![spoiled(it, &|label| label.sig = label.sig.take().map(|sig| Signature(high_s(&sig.0))))])
    });
    case("a label without signature", 0, &|it| (vec![], vec![spoiled(it, &|label| label.sig = None)]));
    case("another value than was signed", 0, &|it| {
        (vec![], vec![spoiled(it, &|label| label.val = "verified-mail-operator".into())])
    });
    case("the label of another member", 0, &|it| {
        let mut label = good(&member(0));
        label.uri = it.as_str().into();
        (vec![], vec![label])
    });
    case("a label that another labeler issued", 0, &|it| {
        (vec![], vec![issue(it, 100, &ours, &|label| label.src = did("did:web:other.example"))])
    });
    case("a label that has run out", 0, &|it| {
        let ended = atproto::datetime(now - Duration::from_secs(1));
        (vec![], vec![issue(it, 100, &ours, &|label| label.exp = Some(ended.clone()))])
    });
    case("version 2", 0, &|it| (vec![], vec![issue(it, 100, &ours, &|label| label.ver = Some(2))]));
    cases
}

fn member(nth: usize) -> Did {
    did(&format!("did:plc:{nth:a>24}"))
}

pub(super) async fn rows() -> Result<Vec<Row>> {
    let now = SystemTime::now();
    let cases = cases(now);
    let says: Arc<Mutex<Vec<Label>>> = Arc::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let document = labeler_document(&did(LABELER), &key(0x11).verifying_key(), &url);
    let shared = says.clone();
    let query = move || async move {
        let labels: Vec<_> = shared.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Label::to_json).collect();
        Json(json!({ "labels": labels }))
    };
    let router = Router::new()
        .route("/xrpc/com.atproto.label.queryLabels", get(query))
        .route("/.well-known/did.json", get(move || async move { Json(document) }));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let folder = tempfile::Builder::new().prefix("tradewind-hostile-").tempdir()?;
    let text = format!(
        "hostname = \"relay.example.test\"\ndata_dir = {:?}\n[[listen]]\naddress = \"127.0.0.1:0\"\nrole = \"relay\"\n\
         trusted_networks = [\"127.0.0.0/8\"]\nmember = {:?}\n[[source]]\nname = \"a\"\naddress = \"127.0.0.2\"\nehlo = \"a.example\"\n\
         [labeler]\nurl = {url:?}\ndid = {LABELER:?}\npoll_interval = \"1h\"\n",
        folder.path(),
        member(0).as_str(),
    );
    let config = Config::parse(folder.path(), &text)?;
    let (published, mut done) = unbounded_channel();
    let members = (0..cases.len()).map(|nth| member(nth).as_str().to_owned()).collect();
    let desk = Arc::new(Memory { members, rows: Mutex::default(), published });
    let mut standing = Arc::default();
    for which in [|case: &Case| case.before.clone(), |case: &Case| case.then.clone()] {
        *says.lock().unwrap_or_else(PoisonError::into_inner) = cases.iter().flat_map(which).collect();
        let poll = LabelPoll::new(&config, Fetch::new()?, Clock::system(), desk.clone(), Arc::default());
        let mut poll = poll.context("there is a labeler in the settings")?;
        poll.restore().await;
        // What was known is published first, and then what the poll found.
        while done.try_recv().is_ok() {}
        let running = tokio::spawn(poll.run());
        standing = tokio::time::timeout(PATIENCE, done.recv()).await.context("the poll does not end")?.context("no poll")?;
        running.abort();
        let _ = running.await;
    }
    let row = |(nth, case): (usize, &Case)| {
        let holds = standing.labels(member(nth).as_str(), now).count();
        let name = format!("an MTA polls: {}", case.name);
        Row::new(name, format!("{} in force", case.holds), format!("{holds} in force"), holds == case.holds)
    };
    Ok(cases.iter().enumerate().map(row).collect())
}
