//! The network's HTTP: PLC directory, PDS, the document of the did:web, and the firehose.

use std::io;
use std::net::SocketAddr;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Status, Trouble, World};

#[derive(Clone)]
struct Servers {
    world: World,
    pds: [SocketAddr; 2],
    web_port: u16,
    /// This is the PDS to which accounts move.
    is_other: bool,
}

pub(super) async fn run(
    world: World,
    plc: std::net::TcpListener,
    [(pds, address), (other, other_address)]: [(std::net::TcpListener, SocketAddr); 2],
    web: std::net::TcpListener,
) -> io::Result<()> {
    let servers = Servers { world, pds: [address, other_address], web_port: web.local_addr()?.port(), is_other: false };
    let plc_routes = Router::new().route("/{did}", get(plc_document)).with_state(servers.clone());
    let pds_routes = Router::new()
        .route("/xrpc/com.atproto.sync.getRecord", get(proof))
        .route("/xrpc/com.atproto.repo.getRecord", get(record))
        .route("/xrpc/com.atproto.repo.listRecords", get(records))
        .route("/xrpc/com.atproto.sync.listReposByCollection", get(|| async { error(StatusCode::BAD_REQUEST, "InvalidRequest") }))
        .route("/xrpc/com.atproto.sync.subscribeRepos", get(subscribe))
        .route("/xrpc/network.bsky.jetstream.subscribeEvents", get(subscribe_events))
        .route("/xrpc/com.atproto.server.describeServer", get(describe))
        .route("/xrpc/_health", get(|| async { Json(json!({ "version": "atnet" })) }))
        .with_state(servers.clone());
    let other_servers = Servers { is_other: true, ..servers.clone() };
    let other_routes = Router::new()
        .route("/xrpc/com.atproto.sync.getRecord", get(proof))
        .route("/xrpc/com.atproto.sync.listReposByCollection", get(repos))
        .with_state(other_servers);
    let web_routes = Router::new().route("/.well-known/did.json", get(web_document)).with_state(servers);
    let (plc, pds, web) = (TcpListener::from_std(plc)?, TcpListener::from_std(pds)?, TcpListener::from_std(web)?);
    let other = TcpListener::from_std(other)?;
    let pdses = async { tokio::try_join!(axum::serve(pds, pds_routes), axum::serve(other, other_routes)) };
    tokio::try_join!(axum::serve(plc, plc_routes), pdses, axum::serve(web, web_routes)).map(|_| ())
}

fn error(status: StatusCode, name: &str) -> Response {
    (status, Json(json!({ "error": name, "message": name }))).into_response()
}

fn trouble(servers: &Servers, did: &str) -> Option<Trouble> {
    servers.world.lock().accounts.get(did).and_then(|entry| entry.trouble)
}

async fn plc_document(State(servers): State<Servers>, Path(did): Path<String>) -> Response {
    servers.world.lock().plc_requests += 1;
    if trouble(&servers, &did) == Some(Trouble::PlcFails) {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError");
    }
    match document(&servers, &did) {
        Some(document) => Json(document).into_response(),
        None => (StatusCode::NOT_FOUND, Json(json!({ "message": format!("DID not registered: {did}") }))).into_response(),
    }
}

async fn web_document(State(servers): State<Servers>) -> Response {
    match document(&servers, &format!("did:web:localhost%3A{}", servers.web_port)) {
        Some(document) => Json(document).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn document(servers: &Servers, did: &str) -> Option<Value> {
    let state = servers.world.lock();
    let entry = state.accounts.get(did)?;
    Some(json!({
        "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"],
        "id": did,
        "alsoKnownAs": [format!("at://{}", entry.handle)],
        "verificationMethod": [{
            "id": format!("{did}#atproto"),
            "type": "Multikey",
            "controller": did,
            "publicKeyMultibase": entry.key.verifying_key().multikey(),
        }],
        "service": [{ "id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": format!("http://{}", servers.pds[usize::from(entry.moved)]) }],
    }))
}

#[derive(Deserialize)]
struct RecordQuery {
    #[serde(alias = "repo")]
    did: String,
    collection: String,
    rkey: String,
}

async fn proof(State(servers): State<Servers>, Query(query): Query<RecordQuery>) -> Response {
    servers.world.lock().pds_requests += 1;
    match trouble(&servers, &query.did) {
        Some(Trouble::PdsFails) => return error(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
        Some(Trouble::PdsSilent) => return std::future::pending().await,
        _ => {}
    }
    let state = servers.world.lock();
    let Some(entry) = state.accounts.get(&query.did) else {
        return error(StatusCode::BAD_REQUEST, "RepoNotFound");
    };
    if entry.moved != servers.is_other {
        // After a migration the old server keeps the account, deactivated.
        return error(StatusCode::BAD_REQUEST, if entry.moved { "RepoDeactivated" } else { "RepoNotFound" });
    }
    match entry.status {
        Status::Active => {}
        Status::Deactivated => return error(StatusCode::BAD_REQUEST, "RepoDeactivated"),
        Status::Takendown => return error(StatusCode::BAD_REQUEST, "RepoTakendown"),
        Status::Suspended => return error(StatusCode::BAD_REQUEST, "RepoSuspended"),
        Status::Deleted => return error(StatusCode::BAD_REQUEST, "RepoNotFound"),
    }
    let path = format!("{}/{}", query.collection, query.rkey);
    let car = match entry.trouble {
        Some(Trouble::ForgedProof) => entry.repo.proof_with(&path, &super::new_key()),
        Some(Trouble::PdsOldest) => entry.oldest.get(&path).cloned().unwrap_or_else(|| entry.repo.proof(&path)),
        _ => entry.repo.proof(&path),
    };
    ([(header::CONTENT_TYPE, "application/vnd.ipld.car")], car).into_response()
}

/// As JSON, without a proof: for those who look with a browser.
async fn record(State(servers): State<Servers>, Query(query): Query<RecordQuery>) -> Response {
    let state = servers.world.lock();
    let path = format!("{}/{}", query.collection, query.rkey);
    let octets = state.accounts.get(&query.did).and_then(|entry| entry.repo.record(&path));
    match octets.map(|octets| (super::cid_of(octets), serde_ipld_dagcbor::from_slice::<Value>(octets))) {
        Some((cid, Ok(value))) => {
            Json(json!({ "uri": format!("at://{}/{path}", query.did), "cid": cid.to_string(), "value": value })).into_response()
        }
        _ => error(StatusCode::BAD_REQUEST, "RecordNotFound"),
    }
}

#[derive(Deserialize)]
struct ListQuery {
    repo: String,
    collection: String,
}

/// All records of a collection, without proofs.
async fn records(State(servers): State<Servers>, Query(query): Query<ListQuery>) -> Response {
    let state = servers.world.lock();
    let Some(entry) = state.accounts.get(&query.repo).filter(|entry| entry.status == Status::Active && !entry.moved) else {
        return error(StatusCode::BAD_REQUEST, "InvalidRequest");
    };
    let paths = entry.repo.paths(&query.collection);
    let records: Vec<Value> =
        paths.map(|path| json!({ "uri": format!("at://{}/{path}", query.repo), "cid": "", "value": {} })).collect();
    Json(json!({ "records": records })).into_response()
}

#[derive(Deserialize)]
struct ReposQuery {
    collection: String,
    cursor: Option<String>,
}

/// As a relay does: whoever has records of the collection, ordered by DID; the cursor is the last one of a page.
async fn repos(State(servers): State<Servers>, Query(query): Query<ReposQuery>) -> Response {
    let mut state = servers.world.lock();
    let cursor = query.cursor.unwrap_or_default();
    state.lists.push(cursor.clone());
    if state.lists_break && !cursor.is_empty() {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError");
    }
    let attests = |(_, entry): &(&String, &super::Entry)| entry.repo.paths(&query.collection).next().is_some();
    let mut dids: Vec<&String> = state.accounts.iter().filter(attests).map(|(did, _)| did).filter(|did| **did > cursor).collect();
    dids.sort();
    let more = dids.len() > 2;
    dids.truncate(2);
    let repos: Vec<Value> = dids.iter().map(|did| json!({ "did": did })).collect();
    let mut page = json!({ "repos": repos });
    if let (true, Some(last)) = (more, dids.last()) {
        page["cursor"] = json!(last);
    }
    Json(page).into_response()
}

async fn describe() -> Response {
    Json(json!({ "did": "did:web:localhost", "availableUserDomains": [".test"], "inviteCodeRequired": false })).into_response()
}

#[derive(Deserialize)]
struct Cursor {
    cursor: Option<usize>,
}

async fn subscribe(State(servers): State<Servers>, Query(query): Query<Cursor>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(move |socket| stream(servers.world, query.cursor, socket))
}

/// As version 2 of Jetstream: the cursor is inclusive, one from 10^15 on is a time, one that is too old is refused. It filters nothing.
async fn subscribe_events(State(servers): State<Servers>, Query(query): Query<Cursor>, upgrade: WebSocketUpgrade) -> Response {
    let (oldest, newest) = {
        let state = servers.world.lock();
        (state.window, state.events.len())
    };
    let next = match query.cursor {
        None => newest,
        Some(time) if time >= 1_000_000_000_000_000 => oldest,
        Some(seq) if seq.saturating_sub(1) < oldest => return error(StatusCode::BAD_REQUEST, "CursorTooOld"),
        Some(seq) => seq.saturating_sub(1).min(newest),
    };
    upgrade.on_upgrade(move |socket| stream_events(servers.world, next, socket))
}

async fn stream_events(world: World, mut next: usize, mut socket: WebSocket) {
    let mut grown = world.lock().grown.subscribe();
    loop {
        let events: Vec<String> = world.lock().events.iter().skip(next).take(100).map(Value::to_string).collect();
        next += events.len();
        for event in &events {
            if socket.send(Message::Text(event.as_str().into())).await.is_err() {
                return;
            }
        }
        if events.is_empty() {
            tokio::select! {
                changed = grown.changed() => if changed.is_err() { return },
                read = socket.recv() => if !matches!(read, Some(Ok(_))) { return },
            }
        }
    }
}

/// Sends the frames after the cursor, then each as it comes. Without a cursor only what comes.
async fn stream(world: World, cursor: Option<usize>, mut socket: WebSocket) {
    let mut grown = world.lock().grown.subscribe();
    let known = world.lock().frames.len();
    let mut next = cursor.unwrap_or(known);
    if next > known {
        let frame = super::encode(&json!({ "op": -1 })).into_iter().chain(super::encode(&json!({ "error": "FutureCursor" })));
        let _ = socket.send(Message::Binary(frame.collect::<Vec<u8>>().into())).await;
        return;
    }
    let window = world.lock().window;
    if next < window {
        next = window;
        let frame = super::encode(&json!({ "op": 1, "t": "#info" }))
            .into_iter()
            .chain(super::encode(&json!({ "name": "OutdatedCursor" })));
        if socket.send(Message::Binary(frame.collect::<Vec<u8>>().into())).await.is_err() {
            return;
        }
    }
    loop {
        let frames: Vec<Vec<u8>> = world.lock().frames.iter().skip(next).take(100).cloned().collect();
        next += frames.len();
        for frame in &frames {
            if socket.send(Message::Binary(frame.clone().into())).await.is_err() {
                return;
            }
        }
        if frames.is_empty() {
            tokio::select! {
                changed = grown.changed() => if changed.is_err() { return },
                // Pings are answered by being read; anything else from a subscriber is of no interest.
                read = socket.recv() => if !matches!(read, Some(Ok(_))) { return },
            }
        }
    }
}
