use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{SystemTime, UNIX_EPOCH};

use atproto::Did;
use atproto::key::SigningKey;
use atproto::stream::{Frame, read};

use super::*;
use crate::judge::{Judgement, Verdict};
use crate::store::{Found, Lane, Patience, Store, Terms, Touch};

/// A subscriber: what it was sent, how much of that it takes, what it says.
#[derive(Default)]
struct Wire {
    sent: Vec<Message>,
    takes: usize,
    says: VecDeque<Message>,
    wakers: Vec<Waker>,
}

#[derive(Clone)]
struct Peer(Arc<Mutex<Wire>>);

impl Peer {
    fn takes(count: usize) -> Self {
        Self(Arc::new(Mutex::new(Wire { takes: count, ..Wire::default() })))
    }

    fn change(&self, change: impl FnOnce(&mut Wire)) {
        let mut wire = self.0.lock().unwrap();
        change(&mut wire);
        wire.wakers.drain(..).for_each(Waker::wake);
    }

    /// The numbers of the frames that it has, and the names of remarks and errors.
    fn has(&self) -> Vec<String> {
        let frame = |message: &Message| match message {
            Message::Binary(octets) => Some(match read(octets).unwrap() {
                Frame::Labels { seq, .. } => seq.to_string(),
                Frame::Info(name) | Frame::Error(name) => name,
                Frame::Unknown => "unknown".into(),
            }),
            Message::Close(_) => Some("close".into()),
            Message::Ping(_) => Some("ping".into()),
            _ => None,
        };
        self.0.lock().unwrap().sent.iter().filter_map(frame).collect()
    }

    /// Waits until it has so many messages.
    async fn until(&self, count: usize) {
        std::future::poll_fn(|context| {
            let mut wire = self.0.lock().unwrap();
            if wire.sent.len() >= count {
                return Poll::Ready(());
            }
            wire.wakers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Stream for Peer {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut wire = self.0.lock().unwrap();
        if let Some(message) = wire.says.pop_front() {
            return Poll::Ready(Some(Ok(message)));
        }
        wire.wakers.push(context.waker().clone());
        Poll::Pending
    }
}

impl Sink<Message> for Peer {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut wire = self.0.lock().unwrap();
        if wire.takes > 0 {
            return Poll::Ready(Ok(()));
        }
        wire.wakers.push(context.waker().clone());
        Poll::Pending
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        self.change(|wire| {
            wire.takes -= 1;
            wire.sent.push(message);
        });
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
}

struct Bench {
    store: Arc<Store>,
    key: SigningKey,
    now: SystemTime,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::from_octets(&[0x11; 32]).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let issuer: Did = "did:web:labeler.example.test".parse().unwrap();
        let store = Store::open(folder.path(), &issuer, &key, Terms::default(), now).unwrap();
        Self { store: Arc::new(store), key, now, _folder: folder }
    }

    /// One label about each; who has it already gets its negation.
    fn issue(&self, names: std::ops::Range<u32>, verdict: Verdict) {
        for n in names {
            let did: Did = format!("did:plc:m{n}").parse().unwrap();
            self.store.touch(&[Touch::Record(did, "a.example".into())], None, self.now).unwrap();
        }
        let found = Found::Judged { judgement: Judgement { verdict, checks: Vec::new() }, relay: false, rev: None };
        let due = |lane| self.store.due(lane, self.now, &Default::default(), 1000, false).unwrap();
        let due: Vec<_> = Lane::ALL.into_iter().flat_map(due).collect();
        let due: Vec<_> = due.iter().map(|task| (task, &found)).collect();
        let patience = Patience {
            interval: Duration::from_secs(86_400),
            failures: 1,
            failing_for: Duration::ZERO,
            silent_for: Duration::from_secs(7 * 86_400),
        };
        self.store.settle_all(due, patience, self.now, &self.key).unwrap();
    }

    fn follow(&self, peer: &Peer, cursor: Option<u64>) -> tokio::task::JoinHandle<End> {
        let (mut peer, store) = (peer.clone(), self.store.clone());
        tokio::spawn(async move {
            let end = follow(&mut peer, &store, cursor, PATIENCE).await;
            let _ = timeout(FAREWELL_MAX, farewell(&mut peer, end)).await;
            end
        })
    }
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|seq| seq.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_gets_what_was_and_what_comes_without_a_gap() {
    let bench = Bench::new();
    bench.issue(0..200, Verdict::Pass);
    for (cursor, first) in [(Some(0), 1), (Some(1), 1), (Some(150), 150), (Some(200), 200), (None, 201)] {
        let peer = Peer::takes(1000);
        let task = bench.follow(&peer, cursor);
        let last = bench.store.last_seq().unwrap();
        let first = if cursor.is_none() { last + 1 } else { first };
        peer.until(usize::try_from(last + 1 - first).unwrap()).await;
        tokio::task::yield_now().await;
        let new = u32::try_from(last).unwrap();
        bench.issue(new..new + 2, Verdict::Pass);
        peer.until(usize::try_from(last + 3 - first).unwrap()).await;
        assert_eq!(peer.has(), numbers(first..=last + 2), "from {cursor:?}");
        peer.change(|wire| wire.says.push_back(Message::Close(None)));
        assert_eq!(task.await.unwrap(), End::Gone);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_of_the_future_ends_the_stream_and_one_of_the_past_is_remarked_upon() {
    let mut bench = Bench::new();
    bench.issue(0..3, Verdict::Pass);
    let peer = Peer::takes(1000);
    assert_eq!(bench.follow(&peer, Some(4)).await.unwrap(), End::Future);
    assert_eq!(peer.has(), ["FutureCursor", "close"]);
    bench.issue(0..2, Verdict::Fail);
    bench.now += Terms::default().history;
    // The terms are up: labels in force were issued again, numbers 1 and 2 are forgotten.
    let done = bench.store.upkeep(bench.now, &bench.key).unwrap();
    assert_eq!((done.renewed, done.forgotten), (1, 2));
    for (cursor, expected) in [
        (Some(1), vec!["OutdatedCursor", "3", "4", "5", "6"]),
        (Some(2), vec!["OutdatedCursor", "3", "4", "5", "6"]),
        (Some(3), vec!["3", "4", "5", "6"]),
        (Some(0), vec!["3", "4", "5", "6"]),
    ] {
        let peer = Peer::takes(1000);
        let task = bench.follow(&peer, cursor);
        peer.until(expected.len()).await;
        assert_eq!(peer.has(), expected, "from {cursor:?}");
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_is_told_so_and_let_go_and_who_is_slow_is_only_behind() {
    let bench = Bench::new();
    bench.issue(0..300, Verdict::Pass);
    let stuck = Peer::takes(5);
    let task = bench.follow(&stuck, Some(0));
    let slow = Peer::takes(5);
    let other = bench.follow(&slow, Some(0));
    // Ten a second: a page takes half of what is put up with.
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        slow.change(|wire| wire.takes += 10);
    }
    slow.until(300).await;
    assert_eq!(slow.has(), numbers(1..=300));
    other.abort();
    assert_eq!(task.await.unwrap(), End::TooSlow);
    assert_eq!(stuck.has(), numbers(1..=5));
}

#[tokio::test(start_paused = true)]
async fn the_last_word_to_who_is_too_slow_is_why() {
    let bench = Bench::new();
    bench.issue(0..10, Verdict::Pass);
    let peer = Peer::takes(5);
    let task = bench.follow(&peer, Some(0));
    tokio::time::sleep(PATIENCE.stall + FAREWELL_MAX / 2).await;
    peer.change(|wire| wire.takes = 10);
    assert_eq!(task.await.unwrap(), End::TooSlow);
    assert_eq!(peer.has()[5..], ["ConsumerTooSlow", "close"]);
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_is_pinged_and_let_go_when_nothing_comes_back() {
    let bench = Bench::new();
    let alive = Peer::takes(1000);
    let living = bench.follow(&alive, None);
    let dead = Peer::takes(1000);
    let dying = bench.follow(&dead, None);
    for count in 1..=10 {
        alive.until(count).await;
        alive.change(|wire| wire.says.push_back(Message::Pong(Bytes::new())));
    }
    assert!(!living.is_finished());
    living.abort();
    assert_eq!(dying.await.unwrap(), End::Gone);
    assert_eq!(dead.has(), ["ping", "ping"]);
}

#[test]
fn an_address_has_so_many_streams_and_all_have_so_many() {
    let settings = Serve { subscriptions_per_address: 2, subscribers_max: 3, ..Serve::default() };
    let (_stop, stopped) = watch::channel(false);
    let subscribers = Subscribers::new(&settings, stopped);
    let place = |text: &str| subscribers.place(Asker(text.parse().unwrap()));
    let (one, two) = (place("192.0.2.1"), place("192.0.2.1"));
    assert!(one.is_some() && two.is_some() && place("192.0.2.1").is_none());
    let three = place("192.0.2.2");
    assert!(three.is_some() && place("192.0.2.3").is_none(), "no room");
    drop(one);
    assert!(place("192.0.2.1").is_some(), "a place is free again, twice over");
    drop((two, three));
    assert!(subscribers.of_address.lock().unwrap().is_empty());
    assert_eq!(cursor("cursor=7"), Ok(Some(7)));
    assert_eq!(cursor("x=1"), Ok(None));
    assert!(cursor("cursor=-1").is_err() && cursor("cursor=").is_err() && cursor("cursor=1e3").is_err());
}
