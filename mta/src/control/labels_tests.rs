//! The poll against a small labeler of our own, with labels that a test key signed.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use atproto::did::{SigningKey, labeler_document};
use axum::{Json, Router, extract::RawQuery, http::StatusCode, routing::get};
use serde_json::{Value, json};

use super::*;
use crate::policy::standing::Judgement;

const LABELER: &str = "did:web:labeler.example.test";
const GOOD: &str = "did:plc:good";
const HALF: &str = "did:plc:half";
const NOW: u64 = 1_790_000_000;

fn at(secs: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
}

fn did(text: &str) -> Did {
    text.parse().unwrap()
}

fn key(octet: u8) -> SigningKey {
    SigningKey::from_octets(&[octet; 32]).unwrap()
}

/// A label as the test's labeler makes it; `edit` changes fields before it is signed.
fn label(about: &str, val: &str, cts: u64, edit: impl FnOnce(&mut Label)) -> Label {
    let mut label = Label::account(did(LABELER), &did(about), val, atproto::datetime(at(cts)));
    edit(&mut label);
    label.sign(&key(0x11));
    label
}

fn plain(about: &str, val: &str) -> Label {
    label(about, val, NOW - 100, |_| {})
}

type Pages = dyn Fn(&Query) -> Value + Send + Sync;

/// What a request of queryLabels asked.
struct Query {
    patterns: Vec<String>,
    cursor: Option<String>,
    raw: String,
}

impl Query {
    fn read(raw: String) -> Query {
        let decode = |text: &str| text.replace("%3A", ":").replace("%25", "%");
        let values = |name: &str| -> Vec<String> {
            raw.split('&').filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(decode).collect()
        };
        Query { patterns: values("uriPatterns"), cursor: values("cursor").pop(), raw }
    }
}

/// Answers on loopback, counts, and may be told to answer otherwise.
struct Server {
    url: String,
    pages: Arc<Mutex<Arc<Pages>>>,
    document: Arc<Mutex<Value>>,
    asked: Arc<Mutex<Vec<Query>>>,
    documents: Arc<AtomicUsize>,
}

impl Server {
    async fn start(pages: impl Fn(&Query) -> Value + Send + Sync + 'static) -> Server {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let document = labeler_document(&did(LABELER), &key(0x11).verifying_key(), &url);
        let server = Server {
            url,
            pages: Arc::new(Mutex::new(Arc::new(pages))),
            document: Arc::new(Mutex::new(document)),
            asked: Arc::default(),
            documents: Arc::default(),
        };
        let (pages, asked) = (server.pages.clone(), server.asked.clone());
        let query = move |RawQuery(raw): RawQuery| async move {
            let query = Query::read(raw.unwrap_or_default());
            let pages = pages.lock().unwrap().clone();
            let answer = pages(&query);
            asked.lock().unwrap().push(query);
            let status = answer.get("status").and_then(Value::as_u64).unwrap_or(200);
            (StatusCode::from_u16(status as u16).unwrap(), Json(answer))
        };
        let (document, documents) = (server.document.clone(), server.documents.clone());
        let describe = move || async move {
            documents.fetch_add(1, Ordering::SeqCst);
            Json(document.lock().unwrap().clone())
        };
        let router = Router::new()
            .route("/xrpc/com.atproto.label.queryLabels", get(query))
            .route("/.well-known/did.json", get(describe.clone()))
            .route("/plc/{did}", get(describe));
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    fn now_answers(&self, pages: impl Fn(&Query) -> Value + Send + Sync + 'static) {
        *self.pages.lock().unwrap() = Arc::new(pages);
    }

    fn requests(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn page(labels: &[Label], cursor: Option<&str>) -> Value {
    let labels: Vec<_> = labels.iter().map(Label::to_json).collect();
    match cursor {
        Some(cursor) => json!({ "cursor": cursor, "labels": labels }),
        None => json!({ "labels": labels }),
    }
}

#[derive(Default)]
struct TestDesk {
    members: Mutex<Vec<String>>,
    rows: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    saves: AtomicUsize,
    standing: ArcSwap<Standing>,
}

impl Desk for TestDesk {
    async fn members(&self) -> Vec<String> {
        self.members.lock().unwrap().clone()
    }
    async fn load(&self) -> Result<Vec<Row>, String> {
        Ok(self.rows.lock().unwrap().clone().into_iter().collect())
    }
    async fn save(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), String> {
        self.saves.fetch_add(1, Ordering::SeqCst);
        let mut kept = self.rows.lock().unwrap();
        for (key, value) in rows {
            match value {
                Some(value) => kept.insert(key, value),
                None => kept.remove(&key),
            };
        }
        Ok(())
    }
    fn publish(&self, standing: Arc<Standing>) {
        self.standing.store(standing);
    }
}

struct World {
    server: Server,
    desk: Arc<TestDesk>,
    poll: LabelPoll<TestDesk>,
}

impl World {
    async fn start(pages: impl Fn(&Query) -> Value + Send + Sync + 'static) -> World {
        let server = Server::start(pages).await;
        let desk = Arc::new(TestDesk::default());
        desk.members.lock().unwrap().extend([GOOD, HALF].map(str::to_owned));
        let poll = poll_of(&server, &desk, LABELER);
        World { server, desk, poll }
    }

    async fn polled(&mut self) -> Vec<String> {
        self.poll.poll(false).await;
        self.labels(GOOD)
    }

    fn labels(&self, did: &str) -> Vec<String> {
        self.desk.standing.load().labels(did, at(NOW)).map(str::to_owned).collect()
    }

    fn trouble(&self) -> Option<String> {
        self.poll.state().load().trouble.clone()
    }
}

fn poll_of(server: &Server, desk: &Arc<TestDesk>, labeler: &str) -> LabelPoll<TestDesk> {
    let text = format!(
        "hostname = \"relay.example.test\"\ndata_dir = \"data\"\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\nrole = \"relay\"\ntrusted_networks = [\"127.0.0.0/8\"]\nmember = \"{GOOD}\"\n\
         [[source]]\nname = \"a\"\naddress = \"127.0.0.2\"\nehlo = \"a.example\"\n\
         [labeler]\nurl = \"{url}\"\ndid = \"{labeler}\"\n[identity]\nplc_url = \"{url}/plc\"\n",
        url = server.url,
    );
    let config = Config::parse(std::path::Path::new("test"), &text).unwrap();
    // Virtual time stands still unless a test moves it; sockets are real.
    let clock = Clock::simulated(at(NOW));
    LabelPoll::new(&config, Fetch::new().unwrap(), clock, desk.clone(), Arc::default()).unwrap()
}

#[tokio::test]
async fn labels_of_all_pages_count_and_only_the_members_are_asked_about() {
    let pages = [plain(GOOD, "verified-mail-operator"), plain(GOOD, "relay-member")];
    let mut world = World::start(move |query| match query.cursor.as_deref() {
        None => page(&pages[..1], Some("one")),
        Some("one") => page(&pages[1..], Some("two")),
        Some(_) => page(&[], None),
    })
    .await;
    assert_eq!(world.polled().await, ["relay-member", "verified-mail-operator"]);
    assert_eq!(world.labels(HALF), [""; 0]);
    let asked = world.server.asked.lock().unwrap();
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[0].patterns, [GOOD, HALF]);
    assert!(asked[0].raw.contains("&sources=did%3Aweb%3Alabeler.example.test&limit=250"), "{}", asked[0].raw);
    let required = ["relay-member".to_owned()];
    let standing = world.desk.standing.load();
    assert_eq!(standing.judge(HALF, &required, Duration::from_secs(60), at(NOW)), Judgement::Missing("relay-member".into()));
}

#[tokio::test]
async fn a_cursor_that_repeats_ends_the_pages() {
    // skyware: history oldest first, the last id again and again, "0" when there is nothing.
    let labels = [plain(GOOD, "relay-member")];
    let mut world = World::start(move |_| page(&labels, Some("17"))).await;
    assert_eq!(world.polled().await, ["relay-member"]);
    assert_eq!(world.server.requests(), 2);
    world.server.now_answers(|_| page(&[], Some("0")));
    assert_eq!(world.polled().await, [""; 0]);
    assert_eq!(world.server.requests(), 3);
    assert_eq!(world.trouble(), None);
}

#[tokio::test]
async fn a_labeler_without_an_end_has_not_answered() {
    let mut world = World::start(|_| page(&[plain(GOOD, "relay-member")], None)).await;
    assert_eq!(world.polled().await, ["relay-member"]);
    world.server.now_answers(|query| {
        let next = query.cursor.as_deref().unwrap_or("0").parse::<u64>().unwrap() + 1;
        page(&[plain(GOOD, "other")], Some(&next.to_string()))
    });
    assert_eq!(world.polled().await, ["relay-member"], "what was known stands");
    assert_eq!(world.server.requests(), 1 + PAGES_MAX);
    assert!(world.trouble().unwrap().contains("pages"));
}

#[tokio::test]
async fn the_newest_counts_whatever_the_order_and_may_negate_or_have_run_out() {
    let neg = |label: &mut Label| label.neg = Some(true);
    let history = [
        label(GOOD, "taken-back", NOW - 5, neg),
        label(GOOD, "taken-back", NOW - 50, |_| {}),
        label(GOOD, "given-again", NOW - 50, neg),
        label(GOOD, "given-again", NOW - 5, |_| {}),
        label(GOOD, "expired", NOW - 50, |it| it.exp = Some(atproto::datetime(at(NOW - 1)))),
        label(GOOD, "expiring", NOW - 50, |it| it.exp = Some(atproto::datetime(at(NOW + 60)))),
        // skyware signs what it sends, and it sends `neg: false`.
        label(GOOD, "false-neg", NOW - 50, |it| it.neg = Some(false)),
    ];
    let mut world = World::start(move |_| page(&history, None)).await;
    assert_eq!(world.polled().await, ["expiring", "false-neg", "given-again"]);
    assert_eq!(world.desk.standing.load().labels(GOOD, at(NOW + 60)).collect::<Vec<_>>(), ["false-neg", "given-again"]);
    assert_eq!(world.polled().await, ["expiring", "false-neg", "given-again"]);
}

#[tokio::test]
async fn a_label_that_is_not_the_labeler_s_does_not_count() {
    let mut forged = plain(GOOD, "forged");
    forged.val = "relay-member".into();
    let mut unsigned = plain(GOOD, "unsigned");
    unsigned.sig = None;
    let mut other_source = Label::account(did("did:web:other.example"), &did(GOOD), "other-source", atproto::datetime(at(NOW)));
    other_source.sign(&key(0x11));
    let mut old_version = plain(GOOD, "old-version");
    old_version.ver = None;
    old_version.sign(&key(0x11));
    let record = label(GOOD, "record", NOW - 1, |it| it.cid = Some("bafyreib2rxk3rh6kzwq".into()));
    let labels = [
        forged,
        unsigned,
        other_source,
        old_version,
        record,
        plain("did:plc:stranger", "relay-member"),
        plain(GOOD, "verified-mail-operator"),
    ];
    let mut world = World::start(move |_| page(&labels, None)).await;
    assert_eq!(world.polled().await, ["verified-mail-operator"]);
    assert_eq!(world.labels("did:plc:stranger"), [""; 0]);
    assert_eq!(world.trouble(), None);
    assert_eq!(world.server.documents.load(Ordering::SeqCst), 2, "a wrong signature looks the key up again, once a poll");
}

#[tokio::test]
async fn a_forged_negation_takes_nothing_away() {
    let mut world = World::start(|_| page(&[plain(GOOD, "relay-member")], None)).await;
    assert_eq!(world.polled().await, ["relay-member"]);
    world.server.now_answers(|_| {
        let mut forged = label(GOOD, "relay-member", NOW, |it| it.neg = Some(true));
        forged.sign(&key(0x22));
        page(&[forged], None)
    });
    assert_eq!(world.polled().await, ["relay-member"]);
}

#[tokio::test]
async fn a_rotated_key_is_looked_up() {
    let mut world = World::start(|_| page(&[plain(GOOD, "relay-member")], None)).await;
    assert_eq!(world.polled().await, ["relay-member"]);
    *world.server.document.lock().unwrap() = labeler_document(&did(LABELER), &key(0x33).verifying_key(), &world.server.url);
    world.server.now_answers(|_| {
        let mut label = plain(GOOD, "verified-mail-operator");
        label.sign(&key(0x33));
        page(&[label], None)
    });
    assert_eq!(world.polled().await, ["verified-mail-operator"]);
    assert_eq!(world.server.documents.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_did_plc_is_looked_up_in_the_directory() {
    let plc = "did:plc:labeler";
    let signed = || {
        let mut label = Label::account(did(plc), &did(GOOD), "relay-member", atproto::datetime(at(NOW)));
        label.sign(&key(0x11));
        page(&[label], None)
    };
    let mut world = World::start(move |_| signed()).await;
    *world.server.document.lock().unwrap() = labeler_document(&did(plc), &key(0x11).verifying_key(), &world.server.url);
    world.poll = poll_of(&world.server, &world.desk, plc);
    assert_eq!(world.polled().await, ["relay-member"]);
    // The document of somebody else is none.
    *world.server.document.lock().unwrap() = labeler_document(&did(LABELER), &key(0x11).verifying_key(), &world.server.url);
    world.poll = poll_of(&world.server, &world.desk, plc);
    world.polled().await;
    assert!(world.trouble().unwrap().contains("did:plc:labeler"), "{:?}", world.trouble());
}

#[tokio::test]
async fn last_known_labels_serve_while_the_labeler_is_away_and_after_a_restart() {
    let mut world = World::start(|_| page(&[plain(GOOD, "relay-member")], None)).await;
    assert_eq!(world.polled().await, ["relay-member"]);
    let polled_at = world.poll.state().load().polled_at;
    assert!(polled_at.is_some_and(|polled| polled >= at(NOW)));
    for answer in [json!({"status": 503}), json!({"labels": 7}), json!({"pad": "x".repeat(PAGE_BYTES_MAX)})] {
        world.server.now_answers(move |_| answer.clone());
        assert_eq!(world.polled().await, ["relay-member"]);
        assert!(world.trouble().is_some());
    }
    // A new poll over the same rows: the daemon was restarted.
    world.desk.standing.store(Arc::default());
    world.poll = poll_of(&world.server, &world.desk, LABELER);
    world.poll.restore().await;
    assert_eq!(world.labels(GOOD), ["relay-member"]);
    assert!(world.desk.standing.load().asked(GOOD).is_some_and(|asked| asked <= polled_at.unwrap()));
    assert_eq!(world.polled().await, ["relay-member"]);
    world.server.now_answers(|_| page(&[], None));
    assert_eq!(world.polled().await, [""; 0]);
    assert_eq!(world.trouble(), None);
}

#[tokio::test]
async fn a_poll_without_news_writes_nothing() {
    let mut world = World::start(|_| page(&[plain(GOOD, "relay-member")], None)).await;
    for _ in 0..3 {
        world.polled().await;
    }
    assert_eq!(world.desk.saves.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn members_are_asked_about_in_batches_new_ones_at_once_and_forgotten_when_gone() {
    let mut world =
        World::start(|query| page(&query.patterns.iter().map(|did| plain(did, "relay-member")).collect::<Vec<_>>(), None)).await;
    let many: Vec<_> = (0..300).map(|nth| format!("did:plc:m{nth:03}")).collect();
    *world.desk.members.lock().unwrap() = many.clone();
    world.polled().await;
    assert_eq!(world.server.requests(), 3);
    assert_eq!(world.labels("did:plc:m299"), ["relay-member"]);

    world.desk.members.lock().unwrap().push("did:web:localhost%3A3100".into());
    world.poll.poll(true).await;
    assert_eq!(world.server.requests(), 4);
    assert_eq!(world.server.asked.lock().unwrap()[3].patterns, ["did:web:localhost%3A3100"]);
    assert_eq!(world.labels("did:web:localhost%3A3100"), ["relay-member"]);

    *world.desk.members.lock().unwrap() = many[..2].to_vec();
    world.polled().await;
    assert_eq!(world.labels("did:plc:m299"), [""; 0]);
    assert_eq!(world.desk.rows.lock().unwrap().len(), 2);
}

#[test]
fn a_batch_fits_in_a_request_line_of_8_kib_however_long_the_names() {
    let long: Vec<_> = (0..40).map(|nth| format!("did:web:{}%3A{nth:04}", "x".repeat(150))).collect();
    let huge = [format!("did:web:{}", "y".repeat(9000))];
    let usual: Vec<_> = (0..240).map(|nth| format!("did:plc:{nth:024}")).collect();
    for (members, requests) in [(&long[..], 2), (&huge, 1), (&usual, 2), (&[], 0)] {
        let batches = batches(members);
        assert_eq!(batches.concat(), members, "everybody, once, in order");
        assert_eq!(batches.len(), requests);
        for batch in batches {
            let octets: usize = batch.iter().map(|did| pattern(did).len() + 1).sum();
            assert!(octets <= 6144 || batch.len() == 1, "{octets}");
        }
    }
}

#[tokio::test]
async fn a_label_that_was_given_before_is_not_verified_again_and_a_forgery_beside_it_is() {
    let mut world = World::start(|_| page(&[plain(GOOD, "relay-member"), plain(HALF, "relay-member")], None)).await;
    let remembered = |world: &World| world.poll.known.values().map(|known| known.verified.len()).sum::<usize>();
    assert_eq!(world.polled().await, ["relay-member"]);
    assert_eq!(remembered(&world), 2);
    // The signature of a label that is known by heart, over a label that it does not cover.
    world.server.now_answers(|_| {
        let mut stretched = plain(GOOD, "relay-member");
        stretched.uri = HALF.into();
        let mut negated = plain(GOOD, "relay-member");
        negated.neg = Some(true);
        negated.cts = atproto::datetime(at(NOW));
        page(&[plain(GOOD, "relay-member"), negated, stretched], None)
    });
    assert_eq!(world.polled().await, ["relay-member"]);
    assert_eq!(remembered(&world), 1, "what is not given any more is forgotten, and a forgery is not kept");
    assert_eq!(world.labels(HALF), ["relay-member"], "nothing new is known of it");
    // The key changes, the labels do not: they are nobody's now.
    *world.server.document.lock().unwrap() = labeler_document(&did(LABELER), &key(0x33).verifying_key(), &world.server.url);
    world.poll.key = None;
    world.server.now_answers(|_| page(&[plain(GOOD, "clean-sender"), plain(GOOD, "relay-member")], None));
    assert_eq!(world.polled().await, ["relay-member"], "as last known, and nothing more");
    assert_eq!(remembered(&world), 0);
}

#[tokio::test]
async fn what_was_verified_before_a_restart_counts_after_it_only_as_it_was_and_while_it_holds() {
    let ending = || {
        let mut label = plain(GOOD, "relay-member");
        label.exp = Some(atproto::datetime(at(NOW) + Duration::from_secs(60)));
        label.sign(&key(0x11));
        label
    };
    let mut world = World::start(move |_| page(&[plain(GOOD, "verified-mail-operator"), ending()], None)).await;
    assert_eq!(world.polled().await, ["relay-member", "verified-mail-operator"]);
    let restart = |world: &World, labeler: &str| poll_of(&world.server, &world.desk, labeler);
    let remembered = |poll: &LabelPoll<TestDesk>| poll.known.values().map(|known| known.verified.len()).sum::<usize>();

    world.poll = restart(&world, LABELER);
    world.poll.restore().await;
    assert_eq!(remembered(&world.poll), 2);
    let key_now = key(0x11).verifying_key();
    // A forgery that nobody could tell from what was verified but by its signature.
    let mut forged = ending();
    forged.exp = None;
    assert_eq!(world.poll.check(&forged, &key_now), Err(LabelError::BadSignature));
    assert!(world.poll.check(&ending(), &key_now).is_ok());
    assert_eq!(world.polled().await, ["relay-member", "verified-mail-operator"]);

    // Its time runs out while the MTA is away.
    world.poll = restart(&world, LABELER);
    world.poll.clock = Clock::simulated(at(NOW + 61));
    world.poll.restore().await;
    world.poll.poll(false).await;
    assert_eq!(world.desk.standing.load().labels(GOOD, at(NOW + 61)).collect::<Vec<_>>(), ["verified-mail-operator"]);

    // The key changes while the MTA is away: nothing new is believed, and nothing verified is left.
    *world.server.document.lock().unwrap() = labeler_document(&did(LABELER), &key(0x33).verifying_key(), &world.server.url);
    world.poll = restart(&world, LABELER);
    world.poll.restore().await;
    assert_eq!(remembered(&world.poll), 2);
    world.poll.poll(false).await;
    assert_eq!((world.poll.refused, remembered(&world.poll)), (2, 0));
}

#[tokio::test]
async fn the_running_poll_asks_about_a_new_member_before_the_interval_is_over() {
    let World { server, desk, mut poll } =
        World::start(|query| page(&query.patterns.iter().map(|did| plain(did, "relay-member")).collect::<Vec<_>>(), None)).await;
    desk.members.lock().unwrap().clear();
    let wake = Arc::new(Notify::new());
    poll.wake = wake.clone();
    let state = poll.state();
    let running = tokio::spawn(poll.run());
    // The first poll has nobody to ask about; from here on the interval is 30 s.
    while state.load().polled_at.is_none() {
        tokio::task::yield_now().await;
    }
    desk.members.lock().unwrap().push(GOOD.into());
    wake.notify_one();
    let known = async {
        while desk.standing.load().asked(GOOD).is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), known).await.expect("asked well before the 30 s are over");
    assert_eq!(server.requests(), 1);
    running.abort();
}
