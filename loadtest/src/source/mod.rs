//! Load from members: many sessions that submit numbered messages as fast as they are accepted, or at a fixed rate.
//!
//! [`Client`] is one session, for tests and measurements that need a single one. [`run`] is the load: it blocks its thread
//! until the messages are spent or it is told to stop, and writes into a [`Ledger`] what was begun and accepted.

mod client;

pub use client::{Client, Reply, Target, Tls, Trouble};

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::task::LocalSet;

use crate::ledger::{HEADER, Ledger};

/// Reasons kept word by word in a [`Report`].
const REASONS_KEPT: usize = 10;
/// Pause before a new connection after one broke, so that a server that is away is not hammered.
const RECONNECT_WAIT: Duration = Duration::from_millis(20);

/// What to submit and how.
#[derive(Clone)]
pub struct Load {
    /// The server.
    pub target: Target,
    /// Sessions at the same time.
    pub connections: usize,
    /// Several messages a session; otherwise a session for each, as a PDS does it.
    pub keep_alive: bool,
    /// Octets of each message, header included.
    pub message_bytes: usize,
    /// Reverse-path and From.
    pub from: String,
    /// Recipient domains, taken in turn.
    pub domains: Vec<String>,
    /// `X-Atmos-Category` of each message; `None`: what the credential says.
    pub category: Option<&'static str>,
    /// Messages per second; `None`: as fast as they are accepted.
    pub rate: Option<f64>,
    /// Go on after broken connections (the server is being killed) instead of giving the session up.
    pub persistent: bool,
}

/// What became of a load.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Messages answered 250.
    pub accepted: u64,
    /// Messages answered otherwise.
    pub refused: u64,
    /// Messages whose connection broke: unknown to us.
    pub broken: u64,
    /// Messages never begun because no session could be opened (persistent loads only: the server was away).
    pub unsent: u64,
    /// From the first to the last.
    pub elapsed: Duration,
    /// Some of the refusals and breaks, word by word.
    pub reasons: Vec<String>,
}

impl Report {
    fn add(&mut self, trouble: &Trouble) {
        match trouble {
            Trouble::Refused { .. } => self.refused += 1,
            Trouble::Broken(_) => self.broken += 1,
        }
        if self.reasons.len() < REASONS_KEPT {
            self.reasons.push(trouble.to_string());
        }
    }
}

/// Submits until the ledger has no free number or `stop` is set.
pub fn run(load: &Load, ledger: &Arc<Ledger>, stop: &AtomicBool) -> io::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = body(load.message_bytes);
    let began = Instant::now();
    let report = Rc::new(RefCell::new(Report::default()));
    LocalSet::new().block_on(&runtime, async {
        let sessions = (0..load.connections).map(|_| session(load, ledger, stop, &body, began, &report));
        futures_util::future::join_all(sessions).await;
    });
    let mut report = report.take();
    report.elapsed = began.elapsed();
    Ok(report)
}

async fn session(load: &Load, ledger: &Ledger, stop: &AtomicBool, body: &[u8], began: Instant, report: &RefCell<Report>) {
    let mut client = None;
    let mut octets = Vec::with_capacity(load.message_bytes + 512);
    while !stop.load(Relaxed) {
        let Some(id) = ledger.take_id() else { break };
        let due = match load.rate {
            Some(rate) => began + Duration::from_secs_f64((id - ledger.first()) as f64 / rate),
            None => Instant::now(),
        };
        tokio::time::sleep_until(due.into()).await;
        ledger.begun(id, due.max(began));
        let recipient = format!("user{}@{}", id % 1000, load.domains[id as usize % load.domains.len()]);
        message(&mut octets, load, id, &recipient, body, ledger.marked_body(id, load.message_bytes));
        let session = match client.take() {
            Some(session) => Ok(session),
            None => Client::connect(&load.target).await,
        };
        let away = load.persistent && matches!(session, Err(Trouble::Broken(_)));
        let submitted = match session {
            Ok(session) => submit(load, session, &recipient, &octets).await,
            Err(trouble) => Err(trouble),
        };
        match submitted {
            Ok(kept) => {
                client = kept;
                ledger.accepted(id);
                report.borrow_mut().accepted += 1;
                continue;
            }
            Err(_) if away => report.borrow_mut().unsent += 1,
            Err(trouble) => report.borrow_mut().add(&trouble),
        }
        if !load.persistent {
            break;
        }
        tokio::time::sleep(RECONNECT_WAIT).await;
    }
    if let Some(client) = client {
        let _ = Client::quit(client).await;
    }
}

/// Submits one message; what comes back is the session when it goes on.
async fn submit(load: &Load, mut session: Client, recipient: &str, octets: &[u8]) -> Result<Option<Client>, Trouble> {
    session.send(&load.from, &[recipient], octets).await?;
    if load.keep_alive {
        return Ok(Some(session));
    }
    // The message is in: what becomes of the goodbye changes nothing.
    let _ = session.quit().await;
    Ok(None)
}

fn message(octets: &mut Vec<u8>, load: &Load, id: u64, recipient: &str, body: &[u8], marked: Option<String>) {
    octets.clear();
    if let Some(category) = load.category {
        octets.extend_from_slice(format!("X-Atmos-Category: {category}\r\n").as_bytes());
    }
    octets.extend_from_slice(header(&load.from, id, recipient).as_bytes());
    if let Some(marked) = marked {
        return octets.extend_from_slice(marked.as_bytes());
    }
    let lines = load.message_bytes.saturating_sub(octets.len()) / LINE.len() * LINE.len();
    octets.extend_from_slice(&body[..lines.min(body.len())]);
}

/// The header of a numbered message, with the empty line that ends it.
pub fn header(from: &str, id: u64, recipient: &str) -> String {
    let domain = from.split_once('@').map_or("localhost", |(_, domain)| domain);
    format!(
        "From: {from}\r\nTo: {recipient}\r\nSubject: Load {id}\r\nMessage-ID: <{id}.load@{domain}>\r\n\
         Date: Thu, 01 Jan 2026 00:00:00 +0000\r\n{HEADER}: {id}\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\n"
    )
}

const LINE: &[u8] = b"The quick brown fox jumps over the lazy dog, and the dog lets it pass by.\r\n";

fn body(octets: usize) -> Vec<u8> {
    LINE.iter().copied().cycle().take(octets.next_multiple_of(LINE.len())).collect()
}

#[cfg(test)]
mod tests;
