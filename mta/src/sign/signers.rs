//! The pool of signers. RSA takes longer than everything else that a message needs, so it never runs on
//! a ring thread: sessions hand a prepared message over and await the signed one.
//!
//! Each signer has two bounded channels, and takes from `otp`'s first: a one-time code overtakes whatever
//! waits. A full channel makes `sign` wait, and with it the submitting session: that is the backpressure,
//! and the session's own deadline bounds it.
//!
//! A one-time code that meets two idle signers is signed by both: the co-op's RSA on one, the member's on the other. That
//! halves the longest step of its way, and costs the hashing twice, which is little; while signers are busy it would gain
//! nothing, and is not done.
//!
//! Not here: reading keys from disk (`store.rs`), what goes into a signature (`dkim.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use smtp::reply::Reply;
use tokio::sync::{mpsc, oneshot};

use super::dkim::{self, BodyHash};
use super::header::{Header, Malformed};
use super::key::KeyError;
use super::prepare::Prepared;
use super::store::KeyRing;

/// Messages that wait in one channel of one signer: about a tenth of a second of RSA. Past it `sign` waits.
const WAITING_MAX: usize = 64;

/// A message to be signed.
#[derive(Debug, Clone)]
pub struct Job {
    /// Overtakes what is not urgent: class `otp`.
    pub urgent: bool,
    /// What to sign.
    pub message: Prepared,
    /// Whose keys sign besides the co-op's: the domain of From. None: a notice of our own.
    pub domain: Option<String>,
    /// Goes into `t=`.
    pub now: SystemTime,
}

/// A signed message: `head`, then `rest`.
#[derive(Debug, Clone)]
pub struct Signed {
    /// Signatures, our fields, and the header section if it was copied.
    pub head: Bytes,
    /// A slice of what was submitted.
    pub rest: Bytes,
    /// How many signatures it bears.
    pub signatures: usize,
    /// Octets of `head` that are signatures.
    pub signature_bytes: usize,
    /// The member's domain has no key and `signing.required` is false: warn and count.
    pub member_unsigned: bool,
}

/// Why a message was not signed. Nothing is lost: [`SignError::reply`] asks the client to try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The operator has to make or import keys.
    #[error("{0} has no DKIM key and signing.required is set: make one with `tradewind key rotate --domain {0}`")]
    NoKey(String),
    /// The library refused.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Our own fields are well-formed, so this is a promise broken in `prepare`.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The daemon is stopping.
    #[error("the signers have stopped")]
    Stopped,
}

impl SignError {
    /// What the client is told: ours to mend, so it tries again.
    pub fn reply(&self) -> Reply {
        match self {
            Self::NoKey(domain) => {
                Reply::new(451, (4, 3, 5), format!("{domain} has no DKIM key here yet; the operator has been told"))
            }
            Self::Key(_) | Self::Malformed(_) => Reply::new(451, (4, 3, 0), "the message could not be signed; try again later"),
            Self::Stopped => Reply::new(421, (4, 3, 2), "shutting down; try again later"),
        }
    }
}

/// Handle to the pool.
#[derive(Debug, Clone)]
pub struct Signers {
    lanes: Arc<[Lanes]>,
    keys: Arc<ArcSwap<KeyRing>>,
}

/// Which of a message's signatures a signer makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    All,
    Coop,
    Member,
}

#[derive(Debug)]
struct Lanes {
    urgent: mpsc::Sender<Request>,
    ordinary: mpsc::Sender<Request>,
    /// Handed over and not yet answered: the least loaded signer gets the next.
    load: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Request {
    job: Job,
    share: Share,
    reply: oneshot::Sender<Result<Signed, SignError>>,
    load: Load,
}

/// One unit of load, given back when the request is gone, however it went.
#[derive(Debug)]
struct Load(Arc<AtomicUsize>);

impl Load {
    fn new(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Signers {
    /// A pool of `count` signers (at least one); each must be run, on a thread of its own.
    pub fn new(count: usize, keys: Arc<ArcSwap<KeyRing>>, required: bool) -> (Self, Vec<Signer>) {
        let (lanes, signers) = (0..count.max(1))
            .map(|_| {
                let (urgent, urgent_rx) = mpsc::channel(WAITING_MAX);
                let (ordinary, ordinary_rx) = mpsc::channel(WAITING_MAX);
                let lanes = Lanes { urgent, ordinary, load: Arc::default() };
                (lanes, Signer { urgent: urgent_rx, ordinary: ordinary_rx, keys: Arc::clone(&keys), required })
            })
            .unzip::<_, _, Vec<_>, Vec<_>>();
        (Self { lanes: lanes.into(), keys }, signers)
    }

    /// Waits for a place in the least loaded signer's channel, and for its answer.
    pub async fn sign(&self, job: Job) -> Result<Signed, SignError> {
        if let Some([one, other]) = self.two_idle_for(&job) {
            let (coop, member) = tokio::join!(ask(one, job.clone(), Share::Coop), ask(other, job, Share::Member));
            return Ok(join(coop?, member?));
        }
        let lanes = self.lanes.iter().min_by_key(|lanes| lanes.load()).ok_or(SignError::Stopped)?;
        ask(lanes, job, Share::All).await
    }

    /// Two signers that have nothing else to do, if this message gains by having both.
    fn two_idle_for(&self, job: &Job) -> Option<[&Lanes; 2]> {
        let mut idle = self.lanes.iter().filter(|lanes| job.urgent && lanes.load() == 0);
        let two = [idle.next()?, idle.next()?];
        let keys = self.keys.load();
        let signs_twice = keys.coop().is_some() && !keys.member(job.domain.as_deref()?).is_empty();
        signs_twice.then_some(two)
    }

    /// Messages handed over and not yet answered.
    pub fn waiting(&self) -> usize {
        self.lanes.iter().map(Lanes::load).sum()
    }
}

impl Lanes {
    fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }
}

async fn ask(lanes: &Lanes, job: Job, share: Share) -> Result<Signed, SignError> {
    let channel = if job.urgent { &lanes.urgent } else { &lanes.ordinary };
    let (reply, answer) = oneshot::channel();
    let request = Request { job, share, reply, load: Load::new(&lanes.load) };
    channel.send(request).await.map_err(|_| SignError::Stopped)?;
    answer.await.map_err(|_| SignError::Stopped)?
}

/// One message of two shares: signatures do not cover each other, so the co-op's simply stand above.
fn join(coop: Signed, member: Signed) -> Signed {
    let mut head = BytesMut::from(&coop.head[..coop.signature_bytes]);
    head.extend_from_slice(&member.head);
    Signed {
        head: head.freeze(),
        signatures: coop.signatures + member.signatures,
        signature_bytes: coop.signature_bytes + member.signature_bytes,
        ..member
    }
}

/// One actor of the pool.
pub struct Signer {
    urgent: mpsc::Receiver<Request>,
    ordinary: mpsc::Receiver<Request>,
    keys: Arc<ArcSwap<KeyRing>>,
    required: bool,
}

impl Signer {
    /// Signs until every handle is gone.
    pub async fn run(mut self) {
        loop {
            let request = tokio::select! {
                biased;
                Some(request) = self.urgent.recv() => request,
                Some(request) = self.ordinary.recv() => request,
                else => return,
            };
            // Whoever asked may have given up; then it is not worth a millisecond.
            let Request { job, share, reply, load } = request;
            if !reply.is_closed() {
                let answer = sign_share(&self.keys.load(), self.required, job, share);
                drop(load);
                let _ = reply.send(answer);
            }
            // In the simulation all share one thread: let an urgent one in between.
            tokio::task::yield_now().await;
        }
    }
}

/// Signs on this thread: co-op RSA on top, then the member's Ed25519, the member's RSA lowest.
pub fn sign(keys: &KeyRing, required: bool, job: Job) -> Result<Signed, SignError> {
    sign_share(keys, required, job, Share::All)
}

fn sign_share(keys: &KeyRing, required: bool, job: Job, share: Share) -> Result<Signed, SignError> {
    let Job { message, domain, now, .. } = job;
    let member = domain.as_deref().map_or(&[][..], |domain| keys.member(domain));
    let member_unsigned = domain.is_some() && member.is_empty();
    if let (true, true, Some(domain)) = (member_unsigned, required, domain) {
        return Err(SignError::NoKey(domain));
    }
    let coop = keys.coop().into_iter().filter(|_| share != Share::Member);
    let member = member.iter().rev().filter(|_| share != Share::Coop);
    let keys: Vec<_> = coop.chain(member).cloned().collect();
    if keys.is_empty() {
        return Ok(Signed { head: message.head, rest: message.rest, signatures: 0, signature_bytes: 0, member_unsigned });
    }

    let mut body = BodyHash::begin();
    body.update(&message.rest[message.body_at..]);
    let ours = Header::parse(&message.head)?;
    let theirs = Header::parse(&message.rest.slice(..message.body_at))?;
    let mut head = dkim::sign(&keys, ours.fields().chain(theirs.fields()), &body.finish(), now)?;
    let signature_bytes = head.len();
    head.extend_from_slice(&message.head);
    Ok(Signed { head: head.into(), rest: message.rest, signatures: keys.len(), signature_bytes, member_unsigned })
}
