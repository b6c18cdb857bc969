//! A firehose whose numbers jump and go back, that leaves events out, sends what is none, and forgets who we are.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use atproto::lexicon::ATTESTATION;
use axum::Router;
use axum::extract::RawQuery;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::routing::get;
use serde_json::{Value, json};

use super::Row;
use super::world::{Case, Setup, World};
use crate::atnet::Account;

/// Pauses between connections double from a quarter of a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// What each connection is told, one after the other; then it is closed, but for the last.
type Script = Arc<Mutex<Vec<Vec<Vec<u8>>>>>;

/// A firehose by script.
struct Firehose {
    address: SocketAddr,
    script: Script,
    /// With what cursor each connection came.
    cursors: Arc<Mutex<Vec<String>>>,
}

impl Firehose {
    async fn start() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (script, cursors) = (Script::default(), Arc::<Mutex<Vec<String>>>::default());
        let (says, came) = (script.clone(), cursors.clone());
        let upgrade = move |RawQuery(query): RawQuery, upgrade: WebSocketUpgrade| async move {
            upgrade.on_upgrade(move |mut socket| async move {
                let nth = {
                    let mut came = came.lock().unwrap_or_else(PoisonError::into_inner);
                    came.push(query.unwrap_or_default());
                    came.len() - 1
                };
                let mut said = 0;
                loop {
                    let (next, last) = {
                        let says = says.lock().unwrap_or_else(PoisonError::into_inner);
                        (says.get(nth).and_then(|frames| frames.get(said)).cloned(), nth + 1 >= says.len())
                    };
                    match next {
                        Some(frame) if socket.send(Message::Binary(frame.clone().into())).await.is_err() => return,
                        Some(_) => said += 1,
                        None if last => tokio::time::sleep(Duration::from_millis(20)).await,
                        None => return,
                    }
                }
            })
        };
        let router = Router::new().route("/xrpc/com.atproto.sync.subscribeRepos", get(upgrade));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, script, cursors })
    }

    /// The connection that there is ends, and the next one is told this.
    fn then(&self, frames: Vec<Vec<u8>>) {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).push(frames);
    }

    fn cursor(&self, nth: usize) -> Option<String> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner).get(nth).cloned()
    }
}

fn frame(header: &Value, body: &Value) -> Vec<u8> {
    let encode = |value| serde_ipld_dagcbor::to_vec(value).unwrap_or_default();
    [encode(header), encode(body)].concat()
}

fn commit(seq: i64, account: &Account, domain: &str) -> Vec<u8> {
    let op = json!({"action": "create", "path": format!("{ATTESTATION}/{domain}"), "cid": null});
    frame(&json!({"op": 1, "t": "#commit"}), &json!({"seq": seq, "repo": account.did.as_str(), "ops": [op]}))
}

pub(super) async fn rows() -> Result<Vec<Row>> {
    let firehose = Firehose::start().await?;
    let url = format!("ws://{}", firehose.address);
    let world = World::set_up(Setup { firehose: Some(&url), ..Setup::default() }).await?;
    let attested = |name: &str| {
        let (account, domain) = world.member(name);
        world.net.attest(&account, &domain, &["s1"], true);
        (account, domain)
    };
    let case = |name: &str, account: &Account| Case { name: name.into(), account: account.clone(), reason: "Pass", labels: 2 };
    let events = [("in order", 5), ("2^62 ahead", 1 << 62), ("back again", 3), ("below 0", -7), ("the same twice", 3)];
    let mut frames = vec![
        Vec::new(),
        vec![0xff; 1000],
        vec![0x81; 100_000],
        frame(&json!({"op": 1, "t": "#commit"}), &json!({"seq": "six"})),
        frame(&json!({"op": 7, "t": "#other"}), &json!({})),
    ];
    let mut cases = Vec::new();
    for (nth, (name, seq)) in events.into_iter().enumerate() {
        let (account, domain) = attested(&format!("gap{nth}"));
        frames.push(commit(seq, &account, &domain));
        cases.push(case(&format!("a firehose's numbers: {name}, after rubbish"), &account));
    }
    firehose.then(frames);
    let mut rows = world.judge(cases).await?;

    // It says nothing of somebody, but that there was more than it has.
    let (left_out, _) = attested("leftout");
    firehose.then(vec![frame(&json!({"op": 1, "t": "#info"}), &json!({"name": "OutdatedCursor"}))]);
    rows.extend(world.judge(vec![case("an attestation in a gap is found by the list", &left_out)]).await?);

    // It takes our place for one that it has not come to: everything from the beginning.
    firehose.then(vec![frame(&json!({"op": -1}), &json!({"error": "FutureCursor"}))]);
    let (last, domain) = attested("last");
    firehose.then(vec![commit(1, &last, &domain)]);
    rows.extend(world.judge(vec![case("a firehose that was reset is read on", &last)]).await?);
    let began = tokio::time::Instant::now();
    while firehose.cursor(3).is_none() && began.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let seen = firehose.cursor(3).context("it has not come again")?;
    rows.push(Row::new("and from its beginning", "cursor=0", seen.clone(), seen == "cursor=0"));
    Ok(rows)
}
