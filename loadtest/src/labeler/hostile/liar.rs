//! Who stands before the network: DID documents and proofs pass through, changed where a case wants it; and a Jetstream that makes things up.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::routing::get;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::atnet::AtNet;

/// Addresses of loopback that a lying PDS may have.
const HOSTS: u8 = 40;

/// What is done with an answer.
#[derive(Clone)]
pub(super) enum Lie {
    /// The document is changed.
    Document(fn(&mut Value, SocketAddr)),
    /// The body of the proof is changed.
    Proof(fn(Vec<u8>) -> Vec<u8>),
    /// Another body altogether.
    Body(Vec<u8>),
    /// These octets instead of any answer.
    Octets(Vec<u8>),
    /// The proof of another account.
    Of(String),
    /// An answer that begins well, and comes an octet at a time.
    Drip,
    /// A body without an end.
    Endless,
}

#[derive(Default)]
struct State {
    documents: HashMap<String, Lie>,
    proofs: HashMap<String, Lie>,
    asked: HashMap<String, usize>,
    looked_up: HashMap<String, usize>,
    /// Where the PDS of a DID is said to be: each at an address of its own, as the labeler leaves hosts alone that fail.
    hosts: HashMap<String, SocketAddr>,
}

pub(super) struct Liar {
    state: Arc<Mutex<State>>,
    addresses: Vec<SocketAddr>,
    jetstream: SocketAddr,
    made_up: Arc<Mutex<Vec<String>>>,
}

impl Liar {
    pub(super) async fn start(net: &AtNet) -> Result<Self> {
        let strip = |url: String| url.trim_start_matches("http://").parse::<SocketAddr>();
        let (plc, pds) = (strip(net.plc_url())?, strip(net.pds_url())?);
        let state = Arc::new(Mutex::new(State::default()));
        let mut addresses = Vec::new();
        for nth in 0..HOSTS {
            let listener = TcpListener::bind((Ipv4Addr::new(127, nth, nth, 1), 0)).await?;
            addresses.push(listener.local_addr()?);
            let shared = state.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let state = shared.clone();
                    tokio::spawn(async move { answer(stream, &state, plc, pds).await });
                }
            });
        }
        let made_up = Arc::new(Mutex::new(Vec::<String>::new()));
        let (sockets, said) = (TcpListener::bind("127.0.0.1:0").await?, made_up.clone());
        let jetstream = sockets.local_addr()?;
        let upgrade = move |upgrade: WebSocketUpgrade| async move {
            upgrade.on_upgrade(move |mut socket| async move {
                let mut next = 0;
                loop {
                    let message = said.lock().unwrap_or_else(PoisonError::into_inner).get(next).cloned();
                    let Some(text) = message else {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    };
                    if socket.send(Message::Text(text.into())).await.is_err() {
                        return;
                    }
                    next += 1;
                }
            })
        };
        tokio::spawn(async move { axum::serve(sockets, Router::new().route("/subscribe", get(upgrade))).await });
        Ok(Self { state, addresses, jetstream, made_up })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.addresses[0])
    }

    pub(super) fn jetstream_url(&self) -> String {
        format!("ws://{}/subscribe", self.jetstream)
    }

    /// From now on the directory lies about this DID.
    pub(super) fn document(&self, did: &str, lie: Lie) {
        let mut state = self.lock();
        let nth = 1 + state.hosts.len() % (self.addresses.len() - 1);
        state.hosts.entry(did.into()).or_insert(self.addresses[nth]);
        state.documents.insert(did.into(), lie);
    }

    /// From now on the PDS of this DID is the liar's, and lies.
    pub(super) fn proof(&self, did: &str, lie: Lie) {
        self.document(
            did,
            Lie::Document(|document, liar| document["service"][0]["serviceEndpoint"] = format!("http://{liar}").into()),
        );
        self.lock().proofs.insert(did.into(), lie);
    }

    /// How often its PDS was asked about this DID.
    pub(super) fn asked(&self, did: &str) -> usize {
        self.lock().asked.get(did).copied().unwrap_or(0)
    }

    /// How often the directory was asked about this DID.
    pub(super) fn looked_up(&self, did: &str) -> usize {
        self.lock().looked_up.get(did).copied().unwrap_or(0)
    }

    /// The Jetstream says this.
    pub(super) fn say(&self, text: impl Into<String>) {
        self.made_up.lock().unwrap_or_else(PoisonError::into_inner).push(text.into());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(mut stream: TcpStream, state: &Mutex<State>, plc: SocketAddr, pds: SocketAddr) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 10_000 {
        head.push(stream.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&head).into_owned();
    let path = line.split(' ').nth(1).context("no path")?.to_owned();
    let of_pds = path.starts_with("/xrpc/");
    let did = if of_pds { path.split("did=").nth(1).and_then(|rest| rest.split('&').next()) } else { path.strip_prefix('/') };
    let did = did.unwrap_or_default().replace("%3A", ":");
    let (lie, address) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let count = if of_pds { &mut state.asked } else { &mut state.looked_up };
        *count.entry(did.clone()).or_default() += 1;
        let lie = if of_pds { state.proofs.get(&did).cloned() } else { state.documents.get(&did).cloned() };
        (lie, state.hosts.get(&did).copied().unwrap_or(pds))
    };
    let honest = if of_pds { pds } else { plc };
    match lie {
        None => {
            let (status, body) = fetch(honest, &path).await?;
            send(&mut stream, &status, &body).await
        }
        Some(Lie::Of(other)) => {
            let (status, body) = fetch(honest, &path.replace(&did.replace(':', "%3A"), &other.replace(':', "%3A"))).await?;
            send(&mut stream, &status, &body).await
        }
        Some(Lie::Proof(change)) => {
            let (status, body) = fetch(honest, &path).await?;
            send(&mut stream, &status, &change(body)).await
        }
        Some(Lie::Document(change)) => {
            let (status, body) = fetch(honest, &path).await?;
            let mut document: Value = serde_json::from_slice(&body)?;
            change(&mut document, address);
            send(&mut stream, &status, document.to_string().as_bytes()).await
        }
        Some(Lie::Body(body)) => send(&mut stream, "200 OK", &body).await,
        Some(Lie::Octets(octets)) => Ok(stream.write_all(&octets).await?),
        Some(Lie::Drip) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").await?;
            loop {
                stream.write_all(b"x").await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Some(Lie::Endless) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'x'; 65536]).await?;
            }
        }
    }
}

async fn send(stream: &mut TcpStream, status: &str, body: &[u8]) -> Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    Ok(())
}

/// Status line without the version, and body.
async fn fetch(from: SocketAddr, path: &str) -> Result<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect(from).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {from}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut octets = Vec::new();
    stream.read_to_end(&mut octets).await?;
    let end = octets.windows(4).position(|four| four == b"\r\n\r\n").context("no head")?;
    let body = octets.split_off(end + 4);
    let head = String::from_utf8_lossy(&octets).into_owned();
    let status = head.lines().next().and_then(|line| line.split_once(' ')).context("no status")?.1.to_owned();
    Ok((status, body))
}
