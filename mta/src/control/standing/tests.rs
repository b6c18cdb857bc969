//! Counting, reporting and reading against a real queue, with a labeler of the test's that keeps its own books.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use atproto::did::Document;
use atproto::jwt::{Expected, Token};
use atproto::sending::{Counts, Day, Doubt, DoubtKind, RefusedReport, Severity, Wrong};
use axum::{Json, Router, body::Bytes, http::HeaderMap, routing::any};
use scheduler::{Lane, QueueId};
use serde_json::Value;
use smtp::address::{Mailbox, ReversePath};
use tokio::task::JoinHandle;

use super::*;
use crate::{
    control::{
        admin::Operations,
        api::{AddMember, Member},
        daemon::Parts,
    },
    egress::{question::questions, resolver::route_questions},
    queue::{Fate, NewMessage, NewRecipient, Next, Options, Queue, QueueError, RecipientFate, Settlement, Writer},
};

const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
const OTHER: &str = "did:plc:other";
/// Noon of a day.
const NOON: u64 = 1_790_000_000 / 86_400 * 86_400 + 43_200;
pub(super) const DAY: Duration = Duration::from_secs(86_400);

pub(super) struct World {
    pub(super) daemon: Daemon,
    queue: Queue,
    pub(super) config: Config,
    writer: JoinHandle<Result<(), QueueError>>,
}

pub(super) fn settings(folder: &Path, more: &str) -> Config {
    let text = format!(
        "hostname = \"relay.example.test\"\ndata_dir = \"{}\"\n\
         [[listen]]\naddress = \"127.0.0.1:2587\"\nrole = \"submission\"\n[tls]\ncertificate = \"c\"\nprivate_key = \"k\"\n\
         [[source]]\nname = \"a\"\naddress = \"192.0.2.7\"\nehlo = \"a.example.test\"\n[signing]\nrequired = false\n\
         [labeler]\nurl = \"http://127.0.0.1:3100\"\ndid = \"did:web:labeler.example.test\"\nrequire = []\n\
         [standing]\ndid = \"did:web:relay.example.test\"\nsigning_key = \"{0}/standing.key\"\n{more}",
        folder.display()
    );
    Config::parse(Path::new("test"), &text).unwrap()
}

impl World {
    fn start(folder: &Path, clock: &Clock, more: &str) -> World {
        World::open(folder, clock, settings(folder, more))
    }

    pub(super) fn open(folder: &Path, clock: &Clock, config: Config) -> World {
        let (notes, _) = tokio::sync::mpsc::channel(1 << 12);
        let options = Options { map_bytes: 64 << 20, segment_bytes: 1 << 20, free_bytes_floor: 0, ..Options::default() };
        let (writer, queue, reader) = Writer::open(folder, clock.clone(), options, notes).unwrap();
        let parts = Parts {
            config: Arc::new(config.clone()),
            queue: queue.clone(),
            reader,
            scheduler: questions().0,
            routes: route_questions().0,
            clock: clock.clone(),
            dice: Dice::seeded(7),
            io: "epoll".into(),
        };
        World { daemon: Daemon::open(parts).unwrap(), queue, config, writer: tokio::spawn(writer.run()) }
    }

    pub(super) async fn stop(self) {
        self.queue.stop().await;
        drop((self.daemon, self.queue));
        self.writer.await.unwrap().unwrap();
    }

    pub(super) async fn add(&self, did: &str, domain: &str) {
        let new = AddMember { did: did.into(), domain: domain.into(), class: Vec::new(), tier: None };
        self.daemon.add_member(new).await.unwrap();
    }

    async fn member(&self) -> Member {
        self.daemon.member(DID).await.unwrap()
    }

    async fn enqueue(&self, member: u32) -> QueueId {
        let now = self.daemon.now();
        let message = NewMessage {
            id: None,
            member,
            credential: 1,
            admission: None,
            reverse_path: ReversePath::Null,
            parameters: Default::default(),
            lane: Lane::Otp,
            received_at: now,
            due: now,
            delay_notice_at: None,
            deadline: now + DAY * 9,
            recipients: vec![NewRecipient {
                mailbox: Mailbox::parse("a@example.org", false).unwrap(),
                notify: None,
                orcpt: None,
            }],
            octets: vec!["Subject: 123456\r\n\r\n".into()],
        };
        self.queue.enqueue(message).await.unwrap()
    }

    async fn settle(&self, id: QueueId, fate: Option<Fate>, reply: &str) {
        let fates = fate.map(|fate| RecipientFate { index: 0, fate, reply: reply.into() }).into_iter().collect();
        let settlement = Settlement {
            id,
            domain: "example.org".into(),
            fates,
            delay_told: Vec::new(),
            next: if fate.is_some() { Next::Done } else { Next::RetryAt(self.daemon.now() + DAY) },
            last_reply: reply.into(),
            source: "a".into(),
            host: "mx.example.org".into(),
            dsn: None,
            ledger: Vec::new(),
        };
        self.queue.settle(vec![settlement]).await.unwrap();
    }

    /// So many messages of a member come to this end.
    pub(super) async fn send(&self, member: u32, count: usize, fate: Fate) {
        for _ in 0..count {
            let id = self.enqueue(member).await;
            self.settle(id, Some(fate), "550 5.1.1 no such user").await;
        }
    }

    /// Counts and reports, as the daemon does every minute.
    pub(super) async fn tell(&self, to: &impl Counterpart) -> Result<(), String> {
        tell_news(&self.daemon, to, Duration::ZERO, &mut None).await
    }

    pub(super) async fn read(&self, from: &impl Counterpart) -> Result<(), String> {
        self.daemon.read_standing(from, self.config.standing.as_ref().unwrap()).await
    }

    fn rows(&self) -> (u64, u64) {
        self.daemon.parts.reader.read(|txn, tables| Ok((tables.sending.len(txn)?, tables.standing.len(txn)?))).unwrap()
    }
}

/// A labeler: what it was told, newest revision only, and what it doubts.
#[derive(Default)]
struct Books {
    told: Mutex<BTreeMap<(String, Day), (u64, Counts)>>,
    calls: Mutex<Vec<usize>>,
    doubts: Mutex<BTreeMap<String, Vec<Doubt>>>,
    refuses: Mutex<Option<Wrong>>,
    away: AtomicBool,
    /// Takes the report, and the answer is lost.
    deaf: AtomicBool,
}

impl Books {
    fn sums(&self) -> Vec<(u64, u64, u64, u64)> {
        let told = self.told.lock().unwrap();
        told.values().map(|(_, it)| (it.delivered, it.failed, it.expired, it.deferred)).collect()
    }

    fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    fn doubt(&self, severity: Option<Severity>) {
        let doubt =
            |severity| Doubt { kind: DoubtKind::Complaints, severity, since: Day::from_number(20_000), of: 3000, count: 12 };
        self.doubts.lock().unwrap().insert(DID.into(), severity.map(doubt).into_iter().collect());
    }
}

impl Counterpart for Books {
    async fn report(&self, reports: Vec<Report>) -> Result<Reported, String> {
        if self.away.load(Ordering::SeqCst) {
            return Err("away".into());
        }
        self.calls.lock().unwrap().push(reports.len());
        let mut done = Reported::default();
        for it in reports {
            if let Some(reason) = *self.refuses.lock().unwrap() {
                done.refused.push(RefusedReport { did: it.did, day: it.day, reason });
                continue;
            }
            let mut told = self.told.lock().unwrap();
            let known = told.entry((it.did.as_str().to_owned(), it.day)).or_default();
            assert!(it.revision > known.0 || it.counts == known.1, "one revision says one thing");
            if it.revision > known.0 {
                *known = (it.revision, it.counts);
            }
            done.taken += 1;
        }
        if self.deaf.load(Ordering::SeqCst) { Err("the answer was lost".into()) } else { Ok(done) }
    }

    async fn read(&self, dids: &[String]) -> Result<Vec<Standing>, String> {
        if self.away.load(Ordering::SeqCst) {
            return Err("away".into());
        }
        let doubts = self.doubts.lock().unwrap();
        let standing =
            |did: &String| Standing { did: did.parse().unwrap(), doubts: doubts.get(did).cloned().unwrap_or_default() };
        // One more, whom nobody asked about.
        Ok(dids.iter().chain([&"did:plc:nobody".to_owned()]).map(standing).collect())
    }
}

fn clock() -> Clock {
    Clock::simulated(SystemTime::UNIX_EPOCH + Duration::from_secs(NOON))
}

#[tokio::test(start_paused = true)]
async fn every_end_of_mail_is_reported_once_when_its_day_is_over() {
    let (folder, clock, books) = (tempfile::tempdir().unwrap(), clock(), Books::default());
    let mut world = World::start(folder.path(), &clock, "");
    world.add(DID, "host.example.test").await;
    world.send(1, 3, Fate::Delivered).await;
    world.send(1, 1, Fate::Failed).await;
    world.send(1, 1, Fate::Expired).await;
    world.send(0, 5, Fate::Delivered).await;
    let id = world.enqueue(1).await;
    world.settle(id, None, "421 4.7.0 your IP address has a poor reputation and is temporarily deferred").await;
    world.settle(id, None, "450 4.2.1 mailbox busy").await;
    world.tell(&books).await.unwrap();
    assert_eq!(books.calls(), 0, "the day is not over");

    // Over restarts, before and after it was told, nothing counts twice.
    world.stop().await;
    world = World::start(folder.path(), &clock, "");
    tokio::time::advance(DAY).await;
    world.send(1, 2, Fate::Delivered).await;
    books.away.store(true, Ordering::SeqCst);
    assert!(world.tell(&books).await.is_err());
    world.stop().await;
    world = World::start(folder.path(), &clock, "");
    books.away.store(false, Ordering::SeqCst);
    for _ in 0..3 {
        world.tell(&books).await.unwrap();
    }
    assert_eq!((books.sums(), books.calls()), (vec![(3, 1, 1, 1)], 1));

    // An answer that is lost has the report sent again, which changes nothing.
    tokio::time::advance(DAY).await;
    books.deaf.store(true, Ordering::SeqCst);
    assert!(world.tell(&books).await.is_err());
    books.deaf.store(false, Ordering::SeqCst);
    world.tell(&books).await.unwrap();
    assert_eq!((books.sums(), books.calls()), (vec![(3, 1, 1, 1), (2, 0, 0, 0)], 3));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_labeler_does_not_want_is_not_told_again_and_what_is_early_is() {
    let (folder, clock, books) = (tempfile::tempdir().unwrap(), clock(), Books::default());
    let world = World::start(folder.path(), &clock, "");
    world.add(DID, "host.example.test").await;
    world.send(1, 1, Fate::Delivered).await;
    tokio::time::advance(DAY).await;
    *books.refuses.lock().unwrap() = Some(Wrong::InTheFuture);
    world.tell(&books).await.unwrap();
    *books.refuses.lock().unwrap() = Some(Wrong::UnknownAccount);
    world.tell(&books).await.unwrap();
    assert_eq!(books.calls(), 2);
    world.tell(&books).await.unwrap();
    assert_eq!(books.calls(), 2);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn days_are_dropped_when_they_are_old_and_a_members_with_the_member() {
    let (folder, clock, books) = (tempfile::tempdir().unwrap(), clock(), Books::default());
    let world = World::start(folder.path(), &clock, "");
    world.add(DID, "host.example.test").await;
    world.add(OTHER, "other.example.test").await;
    world.send(1, 1, Fate::Delivered).await;
    world.send(2, 1, Fate::Delivered).await;
    // Our own, which is nobody's.
    world.send(crate::queue::OWN, 1, Fate::Delivered).await;
    books.doubt(Some(Severity::Watch));
    world.tell(&books).await.unwrap();
    world.read(&books).await.unwrap();
    assert_eq!(world.rows(), (3, 2), "a row of each, and the number");
    world.daemon.remove_member(OTHER).await.unwrap();
    assert_eq!(world.rows(), (2, 1));
    tokio::time::advance(DAY * 31).await;
    world.send(1, 1, Fate::Delivered).await;
    world.tell(&books).await.unwrap();
    assert_eq!(world.rows(), (2, 1));
    assert_eq!(books.calls(), 0, "nobody is told of what is too old");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_doubt_that_pauses_puts_new_mail_off_until_it_ends_or_is_too_old() {
    let (folder, clock, books) = (tempfile::tempdir().unwrap(), clock(), Books::default());
    let mut world = World::start(folder.path(), &clock, "");
    world.add(DID, "host.example.test").await;
    world.read(&books).await.unwrap();
    assert!(world.member().await.admitted);

    books.doubt(Some(Severity::Watch));
    world.read(&books).await.unwrap();
    let shown = world.member().await;
    assert!(shown.admitted, "what is only watched stops nobody");
    assert_eq!(shown.doubts, ["complaints: 12 of 3000 since 2024-10-04"]);

    books.doubt(Some(Severity::Pause));
    world.read(&books).await.unwrap();
    let paused = "451 4.7.1 new mail of did:plc:ewvi7nxzyoun6zhxrhs64oiz waits: complaints: 12 of 3000 since 2024-10-04; \
                  ask the relay's operator, or try again later";
    assert_eq!(world.member().await.reason.as_deref(), Some(paused));

    // It counts after a restart too, before anybody was asked; and no longer than the labeler's word.
    world.stop().await;
    world = World::start(folder.path(), &clock, "");
    assert_eq!(world.member().await.reason.as_deref(), Some(paused));
    books.away.store(true, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(24 * 3600 - 1)).await;
    assert!(world.read(&books).await.is_err());
    assert!(!world.member().await.admitted);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(world.read(&books).await.is_err());
    let shown = world.member().await;
    assert!(shown.admitted && shown.doubts.is_empty(), "{shown:?}");

    books.away.store(false, Ordering::SeqCst);
    world.read(&books).await.unwrap();
    assert!(!world.member().await.admitted);
    books.doubt(None);
    world.read(&books).await.unwrap();
    assert!(world.member().await.admitted);

    // An operator may want to see it only.
    books.doubt(Some(Severity::Pause));
    world.read(&books).await.unwrap();
    world.daemon.handle_config(Arc::new(settings(folder.path(), "on_pause = \"show\"")));
    let shown = world.member().await;
    assert!(shown.admitted && shown.doubts.len() == 1, "{shown:?}");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn sums_are_looked_through_once_a_day_and_whenever_one_that_was_told_has_changed() {
    let (folder, clock, books) = (tempfile::tempdir().unwrap(), clock(), Books::default());
    let world = World::start(folder.path(), &clock, "");
    world.add(DID, "host.example.test").await;
    let mut told = None;
    let mut tell = async || tell_news(&world.daemon, &books, Duration::from_secs(600), &mut told).await;
    tell().await.unwrap();
    world.send(1, 1, Fate::Delivered).await;
    // Ten minutes after midnight, and not before.
    for (after, calls) in [(43_200, 0), (599, 0), (1, 1), (60, 1)] {
        tokio::time::advance(Duration::from_secs(after)).await;
        tell().await.unwrap();
        assert_eq!(books.calls(), calls, "after {after} s more");
    }
    world.send(1, 2, Fate::Delivered).await;
    for (after, calls) in [(0, 1), (86_339, 1), (1, 2)] {
        tokio::time::advance(Duration::from_secs(after)).await;
        tell().await.unwrap();
        assert_eq!(books.calls(), calls, "after {after} s more of the next day");
    }
    assert_eq!(books.sums(), [(1, 0, 0, 0), (2, 0, 0, 0)]);
    world.stop().await;
}

/// Answers every method with what `answer` makes of a verified call, on loopback.
async fn labeler(document: Value, clock: Clock, answer: &'static str) -> String {
    let did: Did = "did:web:relay.example.test".parse().unwrap();
    let document = Document::parse(document.to_string().as_bytes(), &did).unwrap();
    let handle = move |uri: axum::http::Uri, headers: HeaderMap, body: Bytes| {
        let document = document.clone();
        let now = clock.now();
        async move {
            let audience: Did = "did:web:labeler.example.test".parse().unwrap();
            let method = uri.path().strip_prefix("/xrpc/").unwrap();
            let token = headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
            let expected = Expected { audience: &audience, service: SERVICE, method, now };
            Token::parse(token).unwrap().verify(&document, expected).unwrap();
            assert_eq!(body.is_empty(), method == GET_STANDING);
            if method == REPORT_SENDING {
                serde_json::from_slice::<Sending>(&body).unwrap();
            } else {
                assert_eq!(uri.query(), Some("dids=did%3Aplc%3Aewvi7nxzyoun6zhxrhs64oiz"));
            }
            let answer: Value = serde_json::from_str(answer).unwrap();
            let status = if answer["error"].is_null() { 200 } else { 403 };
            (axum::http::StatusCode::from_u16(status).unwrap(), Json(answer))
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(any(handle))).await });
    url
}

#[tokio::test]
async fn calls_bear_tokens_that_the_document_proves_and_refusals_are_told() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::system());
    let open = |url: &str| {
        let mut config = settings(folder.path(), "");
        config.labeler.as_mut().unwrap().url = url.to_owned();
        Caller::open(&config, Fetch::new().unwrap(), clock.clone(), Dice::system()).unwrap().unwrap()
    };
    open("http://127.0.0.1:1");
    let document: Value = serde_json::from_slice(&std::fs::read(folder.path().join("did.json")).unwrap()).unwrap();
    let url = labeler(document.clone(), clock.clone(), r#"{"taken":0,"unchanged":0,"refused":[]}"#).await;
    assert_eq!(open(&url).report(Vec::new()).await, Ok(Reported::default()));

    let url = labeler(document.clone(), clock.clone(), r#"{"standings":[]}"#).await;
    assert_eq!(open(&format!("{url}/")).read(&[DID.to_owned()]).await, Ok(Vec::new()));
    let url = labeler(document, clock.clone(), r#"{"error":"NotPermitted"}"#).await;
    let refused = open(&url).read(&[DID.to_owned()]).await.unwrap_err();
    assert_eq!(refused, "the labeler answered 403 Forbidden: {\"error\":\"NotPermitted\"}");
    assert!(open("http://127.0.0.1:1").read(&[DID.to_owned()]).await.is_err());
}
