//! A small atproto network on loopback: a PLC directory and a PDS, for the demo and for tests.
//!
//! Accounts have real keys; their repositories are signed search trees, so that proofs are genuine and can be checked, or spoiled on
//! purpose ([`Trouble`]). Changes go out on a firehose with a cursor, as `#commit`, `#identity` and `#account` frames.
//!
//! ```no_run
//! # async fn demo() -> std::io::Result<()> {
//! let net = loadtest::atnet::AtNet::start().await?;
//! let alice = net.create_account("alice.test");
//! net.attest(&alice, "member.example", &["s1"], true);
//! // A labeler with plc_url = net.plc_url() and firehose = net.firehose_url() sees it at once.
//! # Ok(()) }
//! ```
//!
//! Not here: sessions, blobs, writing over XRPC, relays. For those there is the real PDS (`interop`).

mod repo;
mod serve;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use atproto::did::Did;
use atproto::key::SigningKey;
use atproto::lexicon::{ATTESTATION, Attestation};
use ipld_core::cid::Cid;
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::background::Background;
pub(crate) use repo::Repo;
use repo::encode;

pub use repo::cid_of;

/// The running network. Everything stops when it is dropped.
pub struct AtNet {
    world: World,
    plc: SocketAddr,
    pds: SocketAddr,
    other_pds: SocketAddr,
    web: SocketAddr,
    _background: Background,
}

/// Somebody with a repository on this network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Who it is.
    pub did: Did,
    /// The handle at creation.
    pub handle: String,
}

/// How a server misbehaves about one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Commits in proofs are signed by a key that is not the account's.
    ForgedProof,
    /// The PDS answers 500.
    PdsFails,
    /// The PDS accepts the request and never answers.
    PdsSilent,
    /// The PLC directory answers 500.
    PlcFails,
    /// The PDS shows the oldest state of the record that there was: rightly signed, and long gone.
    PdsOldest,
}

/// What the PDS says about an account (`com.atproto.sync.subscribeRepos#account`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Served.
    Active,
    /// By its holder.
    Deactivated,
    /// By the PDS.
    Takendown,
    /// By the PDS, for a while.
    Suspended,
    /// Gone.
    Deleted,
}

/// How the firehose speaks of what is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wording {
    /// A `#commit` with the path.
    #[default]
    Commit,
    /// A `#commit` that is `tooBig`, which names nothing.
    TooBig,
    /// A `#sync`, which names nothing.
    Sync,
}

#[derive(Clone, Default)]
struct World(Arc<Mutex<State>>);

struct State {
    accounts: HashMap<String, Entry>,
    /// Every frame since the start; a frame's sequence number is its place, counted from 1.
    frames: Vec<Vec<u8>>,
    /// The same as version 2 of Jetstream says it.
    events: Vec<Value>,
    grown: watch::Sender<usize>,
    /// Frames before it are not given out any more.
    window: usize,
    /// With which cursor the list of repositories was asked for.
    lists: Vec<String>,
    lists_break: bool,
    wording: Wording,
    last_tid: u64,
    plc_requests: u64,
    pds_requests: u64,
}

struct Entry {
    handle: String,
    key: SigningKey,
    repo: Repo,
    status: Status,
    trouble: Option<Trouble>,
    /// It has moved to the other PDS.
    moved: bool,
    /// The first proof of each path after it was written.
    oldest: HashMap<String, Vec<u8>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            accounts: HashMap::new(),
            frames: Vec::new(),
            events: Vec::new(),
            grown: watch::Sender::new(0),
            window: 0,
            lists: Vec::new(),
            lists_break: false,
            wording: Wording::default(),
            last_tid: 0,
            plc_requests: 0,
            pds_requests: 0,
        }
    }
}

impl AtNet {
    /// Starts the network on free loopback ports. It runs on a thread of its own.
    pub async fn start() -> io::Result<Self> {
        let bind = || -> io::Result<(std::net::TcpListener, SocketAddr)> {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let ((plc_socket, plc), (web_socket, web)) = (bind()?, bind()?);
        let (first, other) = (bind()?, bind()?);
        let (pds, other_pds) = (first.1, other.1);
        let world = World::default();
        let shared = world.clone();
        let background = Background::start("atnet", move || serve::run(shared, plc_socket, [first, other], web_socket))?;
        Ok(Self { world, plc, pds, other_pds, web, _background: background })
    }

    /// Base URL of the PLC directory.
    pub fn plc_url(&self) -> String {
        format!("http://{}", self.plc)
    }

    /// Base URL of the PDS.
    pub fn pds_url(&self) -> String {
        format!("http://{}", self.pds)
    }

    /// Base URL of the firehose, as `[ingest] firehose` wants it.
    pub fn firehose_url(&self) -> String {
        format!("ws://{}", self.pds)
    }

    /// A new account with a did:plc.
    pub fn create_account(&self, handle: &str) -> Account {
        let seed = random();
        let name = data_encoding::BASE32_NOPAD.encode(ring::digest::digest(&ring::digest::SHA256, &seed).as_ref()).to_lowercase();
        self.create(format!("did:plc:{}", &name[..24]), handle)
    }

    /// The account with the did:web of this network, `did:web:localhost%3A…`: there is one, created when first asked for.
    pub fn create_web_account(&self, handle: &str) -> Account {
        self.create(format!("did:web:localhost%3A{}", self.web.port()), handle)
    }

    fn create(&self, did: String, handle: &str) -> Account {
        let Ok(parsed) = did.parse() else { unreachable!("made of the allowed characters") };
        let mut state = self.world.lock();
        if !state.accounts.contains_key(&did) {
            let (key, rev) = (new_key(), state.tid());
            let repo = Repo::new(&did, key.clone(), rev);
            let entry = Entry {
                handle: handle.into(),
                key,
                repo,
                status: Status::Active,
                trouble: None,
                moved: false,
                oldest: HashMap::new(),
            };
            state.accounts.insert(did.clone(), entry);
            state.announce_identity(&did);
            state.announce_account(&did);
        }
        Account { did: parsed, handle: handle.into() }
    }

    /// Writes the attestation of `domain` with these DKIM selectors.
    pub fn attest(&self, account: &Account, domain: &str, selectors: &[&str], relay_member: bool) {
        let attestation = Attestation {
            kind: ATTESTATION.into(),
            domain: domain.into(),
            dkim_selectors: selectors.iter().map(|selector| (*selector).to_owned()).collect(),
            created_at: atproto::datetime(SystemTime::now()),
            relay_member: relay_member.then_some(true),
        };
        self.put_record(account, ATTESTATION, domain, attestation.to_cbor());
    }

    /// Writes a record, given as DAG-CBOR.
    pub fn put_record(&self, account: &Account, collection: &str, rkey: &str, record: Vec<u8>) {
        self.world.lock().write(account.did.as_str(), &format!("{collection}/{rkey}"), Some(record));
    }

    /// Deletes a record.
    pub fn delete_record(&self, account: &Account, collection: &str, rkey: &str) {
        self.world.lock().write(account.did.as_str(), &format!("{collection}/{rkey}"), None);
    }

    /// Changes the handle that the DID document claims, and says so on the firehose.
    pub fn set_handle(&self, account: &Account, handle: &str) {
        let mut state = self.world.lock();
        if let Some(entry) = state.accounts.get_mut(account.did.as_str()) {
            entry.handle = handle.into();
            state.announce_identity(account.did.as_str());
        }
    }

    /// Moves the account to another PDS, as its DID document then says, and says so on the firehose. The first one serves it no more.
    pub fn move_account(&self, account: &Account) {
        let mut state = self.world.lock();
        let rev = state.tid();
        if let Some(entry) = state.accounts.get_mut(account.did.as_str()) {
            entry.moved = true;
            entry.repo.commit(rev);
            state.announce_identity(account.did.as_str());
            state.announce_account(account.did.as_str());
        }
    }

    /// URL of a Jetstream of version 2, as `[ingest] jetstream` wants it.
    pub fn jetstream_url(&self) -> String {
        format!("ws://{}/xrpc/network.bsky.jetstream.subscribeEvents", self.pds)
    }

    /// Base URL of who lists repositories by collection, two in a page.
    pub fn relay_url(&self) -> String {
        format!("http://{}", self.other_pds)
    }

    /// The firehose forgets what it has said so far.
    pub fn forget_frames(&self) {
        let mut state = self.world.lock();
        state.window = state.frames.len();
    }

    /// From now on every page of the list but the first is answered 500, or no more.
    pub fn break_lists(&self, broken: bool) {
        self.world.lock().lists_break = broken;
    }

    /// The cursors with which the list was asked for, in order; empty for none.
    pub fn lists(&self) -> Vec<String> {
        self.world.lock().lists.clone()
    }

    /// Host and port of the PDS to which accounts move.
    pub fn other_pds(&self) -> SocketAddr {
        self.other_pds
    }

    /// Changes the account's status, and says so on the firehose.
    pub fn set_status(&self, account: &Account, status: Status) {
        let mut state = self.world.lock();
        if let Some(entry) = state.accounts.get_mut(account.did.as_str()) {
            entry.status = status;
            state.announce_account(account.did.as_str());
        }
    }

    /// From now on the servers misbehave about this account; `None` ends it. Nothing is said on the firehose.
    pub fn set_trouble(&self, account: &Account, trouble: Option<Trouble>) {
        if let Some(entry) = self.world.lock().accounts.get_mut(account.did.as_str()) {
            entry.trouble = trouble;
        }
    }

    /// From now on what is written is said so.
    pub fn set_wording(&self, wording: Wording) {
        self.world.lock().wording = wording;
    }

    /// Says `#identity` on the firehose without a change: whoever keeps anything about the account looks again.
    pub fn prod(&self, account: &Account) {
        self.world.lock().announce_identity(account.did.as_str());
    }

    /// Requests so far to the PLC directory and to the PDS.
    pub fn requests(&self) -> (u64, u64) {
        let state = self.world.lock();
        (state.plc_requests, state.pds_requests)
    }
}

impl World {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bodies of the frames (`com.atproto.sync.subscribeRepos`).
#[derive(Serialize)]
struct CommitFrame<'a> {
    seq: i64,
    repo: &'a str,
    rev: &'a str,
    since: Option<String>,
    commit: Cid,
    time: &'a str,
    ops: Vec<Op<'a>>,
    #[serde(with = "serde_bytes")]
    blocks: Vec<u8>,
    blobs: [Cid; 0],
    rebase: bool,
    #[serde(rename = "tooBig")]
    too_big: bool,
}

#[derive(Serialize)]
struct Op<'a> {
    action: &'a str,
    path: &'a str,
    cid: Option<Cid>,
}

#[derive(Serialize)]
struct AccountFrame<'a> {
    seq: i64,
    did: &'a str,
    time: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
}

impl State {
    /// As with a real PDS, writing what is there already changes nothing and says nothing.
    fn write(&mut self, did: &str, path: &str, record: Option<Vec<u8>>) {
        let (rev, seq) = (self.tid(), self.next_seq());
        let Some(entry) = self.accounts.get_mut(did) else { return };
        let action = match (entry.repo.record(path), &record) {
            (None, None) => return,
            (Some(before), Some(after)) if before == after => return,
            (None, Some(_)) => "create",
            (Some(_), Some(_)) => "update",
            (Some(_), None) => "delete",
        };
        let since = Some(entry.repo.rev().to_owned());
        let cid = entry.repo.write(path, record, rev);
        let proof = entry.repo.proof(path);
        entry.oldest.entry(path.into()).or_insert(proof);
        let time = atproto::datetime(SystemTime::now());
        if self.wording == Wording::Sync {
            let body = encode(&AccountFrame { seq, did, time: time.as_str(), handle: None, active: None, status: None });
            return self.announce("#sync", body, json!({ "did": did, "time": time.as_str() }));
        }
        let too_big = self.wording == Wording::TooBig;
        let frame = CommitFrame {
            seq,
            repo: did,
            rev: entry.repo.rev(),
            since,
            commit: entry.repo.head(),
            time: time.as_str(),
            ops: if too_big { Vec::new() } else { vec![Op { action, path, cid }] },
            blocks: entry.repo.proof(path),
            blobs: [],
            rebase: false,
            too_big,
        };
        let body = encode(&frame);
        let (collection, rkey) = path.split_once('/').unwrap_or((path, ""));
        let event = json!({
            "did": did, "rev": entry.repo.rev(), "operation": action, "collection": collection, "rkey": rkey, "time": time.as_str(),
        });
        self.announce("#commit", body, event);
    }

    fn announce_identity(&mut self, did: &str) {
        let seq = self.next_seq();
        let Some(entry) = self.accounts.get(did) else { return };
        let time = atproto::datetime(SystemTime::now());
        let body =
            encode(&AccountFrame { seq, did, time: time.as_str(), handle: Some(&entry.handle), active: None, status: None });
        let upstream = json!({ "did": did, "handle": entry.handle, "seq": seq, "time": time.as_str() });
        self.announce("#identity", body, json!({ "did": did, "time": time.as_str(), "identity": upstream }));
    }

    fn announce_account(&mut self, did: &str) {
        let seq = self.next_seq();
        let Some(entry) = self.accounts.get(did) else { return };
        let time = atproto::datetime(SystemTime::now());
        let (active, status) = (Some(entry.status == Status::Active), entry.status.name());
        let body = encode(&AccountFrame { seq, did, time: time.as_str(), handle: None, active, status });
        let upstream = json!({ "did": did, "active": active, "status": status, "seq": seq, "time": time.as_str() });
        self.announce("#account", body, json!({ "did": did, "time": time.as_str(), "account": upstream }));
    }

    fn announce(&mut self, t: &str, body: Vec<u8>, mut event: Value) {
        #[derive(Serialize)]
        struct Header<'a> {
            op: i64,
            t: &'a str,
        }
        event["$type"] = json!(format!("network.bsky.jetstream.subscribeEvents{t}"));
        event["seq"] = json!(self.next_seq());
        self.events.push(json!({ "$type": "message", "payload": event }));
        self.frames.push([encode(&Header { op: 1, t }), body].concat());
        self.grown.send_replace(self.frames.len());
    }

    fn next_seq(&self) -> i64 {
        self.frames.len() as i64 + 1
    }

    /// A timestamp identifier: microseconds and ten bits of clock number, in sortable base32. Always later than the last.
    fn tid(&mut self) -> String {
        const ALPHABET: &[u8; 32] = b"234567abcdefghijklmnopqrstuvwxyz";
        let micros = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        self.last_tid = (micros << 10).max(self.last_tid + 1);
        (0..13).rev().map(|place| char::from(ALPHABET[(self.last_tid >> (5 * place) & 31) as usize])).collect()
    }
}

impl Status {
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Active => None,
            Self::Deactivated => Some("deactivated"),
            Self::Takendown => Some("takendown"),
            Self::Suspended => Some("suspended"),
            Self::Deleted => Some("deleted"),
        }
    }
}

fn random() -> [u8; 32] {
    let mut octets = [0; 32];
    if SystemRandom::new().fill(&mut octets).is_err() {
        unreachable!("Linux has randomness");
    }
    octets
}

fn new_key() -> SigningKey {
    loop {
        if let Ok(key) = SigningKey::from_octets(&random()) {
            return key;
        }
    }
}
