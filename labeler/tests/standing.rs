//! What an MTA of the co-op, and everybody else, sees of `reportSending` and `getStanding`.
#![allow(clippy::unwrap_used, reason = "tests end where something is wrong")]

mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use atproto::did::{Did, SigningKey, caller_document};
use atproto::jwt;
use atproto::sending::{Counts, Day, DoubtKind, GET_STANDING, REPORT_SENDING, Report, Reported, Sending, Severity, Standings};
use loadtest::atnet::Account;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::{BOTH, LABELER, World};

/// An MTA with a did:web of its own, served here.
struct Mta {
    did: Did,
    key: SigningKey,
}

impl Mta {
    async fn start(octet: u8) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let did: Did = format!("did:web:localhost%3A{}", listener.local_addr().unwrap().port()).parse().unwrap();
        let key = SigningKey::from_octets(&[octet; 32]).unwrap();
        let document = caller_document(&did, &key.verifying_key());
        let serve = move || {
            let document = document.clone();
            async move { axum::Json(document) }
        };
        let router = axum::Router::new().route("/.well-known/did.json", axum::routing::get(serve));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { did, key }
    }

    /// Another token each time.
    fn token(&self, method: &str) -> String {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let jti = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
        jwt::issue(&self.key, &self.did, &format!("{LABELER}#atproto_labeler"), method, SystemTime::now(), &jti)
    }

    async fn report(&self, world: &World, reports: Vec<Report>) -> Reported {
        let body = serde_json::to_vec(&Sending { reports }).unwrap();
        let (status, answer) = post(world, Some(&self.token(REPORT_SENDING)), &body).await;
        assert_eq!(status, 200, "{answer}");
        serde_json::from_value(answer).unwrap()
    }

    async fn standings(&self, world: &World, accounts: &[&Account]) -> Standings {
        let dids: Vec<_> = accounts.iter().map(|account| format!("dids={}", account.did.as_str())).collect();
        let (status, answer) = get(world, Some(&self.token(GET_STANDING)), &dids.join("&")).await;
        assert_eq!(status, 200, "{answer}");
        serde_json::from_value(answer).unwrap()
    }
}

async fn start(mta: &Mta) -> World {
    World::start_with(&format!("[standing]\nmtas = [{:?}]", mta.did.as_str())).await
}

async fn post(world: &World, token: Option<&str>, body: &[u8]) -> (u16, Value) {
    send(world, &format!("POST /xrpc/{REPORT_SENDING}"), token, body).await
}

async fn get(world: &World, token: Option<&str>, query: &str) -> (u16, Value) {
    send(world, &format!("GET /xrpc/{GET_STANDING}?{query}"), token, b"").await
}

async fn send(world: &World, line: &str, token: Option<&str>, body: &[u8]) -> (u16, Value) {
    let mut stream = tokio::net::TcpStream::connect(world.labeler.as_ref().unwrap().local_addr()).await.unwrap();
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!("{line} HTTP/1.1\r\nHost: l\r\n{token}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // Who is refused early need not take all of it.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
}

fn report(account: &Account, ago: u32, revision: u64, delivered: u64, complaints: u64) -> Report {
    let counts = Counts { delivered, complaints: Some(complaints), ..Counts::default() };
    Report { did: account.did.clone(), day: Day::of(SystemTime::now()).back(ago), revision, counts }
}

fn week(account: &Account) -> Vec<Report> {
    (1..=7).map(|ago| report(account, ago, 1, 100, 0)).collect()
}

#[tokio::test]
async fn reports_grant_clean_sender_to_all_the_world_and_doubts_are_told_to_mtas_only() {
    let mta = Mta::start(0x31).await;
    let mut world = start(&mta).await;
    let account = world.member("alice.test", "member.example").await;
    let reported = mta.report(&world, week(&account)).await;
    assert_eq!((reported.taken, reported.unchanged, reported.refused.len()), (7, 0, 0));
    let clean = ["clean-sender", BOTH[0], BOTH[1]];
    world.until_labels(&account, &clean).await;
    assert_eq!(mta.standings(&world, &[&account]).await.standings[0].doubts, []);

    // Said again it changes nothing, also after a restart.
    world.stop_labeler().await;
    world.start_labeler().await;
    let reported = mta.report(&world, week(&account)).await;
    assert_eq!((reported.taken, reported.unchanged), (0, 7));
    world.until_labels(&account, &clean).await;

    // Mail that nobody wants.
    mta.report(&world, vec![report(&account, 0, 1, 100, 9)]).await;
    world.until_labels(&account, &BOTH).await;
    let standings = mta.standings(&world, &[&account]).await;
    let doubt = standings.standings[0].pause().unwrap();
    assert_eq!((doubt.kind, doubt.severity, doubt.count), (DoubtKind::Complaints, Severity::Pause, 9));
    // Nobody else is told more than that the label is gone.
    let did = account.did.as_str();
    for path in [format!("/xrpc/coop.tradewind.getStatus?did={did}"), format!("/status/{did}")] {
        let (status, body) = world.get(&path).await;
        let text = String::from_utf8(body).unwrap().to_lowercase();
        assert!(status == 200 && !text.contains("complaint") && !text.contains("doubt"), "{text}");
    }
    let values: Vec<_> = world.labels(&account).await.into_iter().map(|label| label.val).collect();
    assert_eq!(values.len(), 3, "no label but those three: {values:?}");

    // A correction.
    mta.report(&world, vec![report(&account, 0, 2, 100, 0)]).await;
    world.until_labels(&account, &clean).await;
    assert_eq!(mta.standings(&world, &[&account]).await.standings[0].doubts, []);
}

#[tokio::test]
async fn many_accounts_are_asked_about_at_once_and_strangers_have_no_doubts() {
    let mta = Mta::start(0x31).await;
    let world = start(&mta).await;
    let (alice, stranger) = (world.member("alice.test", "member.example").await, world.net.create_account("bob.test"));
    let reported = mta.report(&world, vec![report(&alice, 0, 1, 100, 5), report(&stranger, 0, 1, 100, 5)]).await;
    assert_eq!((reported.taken, reported.refused[0].did.as_str()), (1, stranger.did.as_str()));
    let standings = mta.standings(&world, &[&stranger, &alice]).await.standings;
    assert_eq!((standings[0].did.clone(), standings[0].doubts.len()), (stranger.did, 0));
    assert_eq!((standings[1].did.clone(), standings[1].doubts.len()), (alice.did, 1));
}

#[tokio::test]
async fn everything_that_is_not_as_it_must_be_is_refused_and_changes_nothing() {
    let (mta, stranger) = (Mta::start(0x31).await, Mta::start(0x32).await);
    let world = start(&mta).await;
    let account = world.member("alice.test", "member.example").await;
    let aud = format!("{LABELER}#atproto_labeler");
    let issue = |key: &SigningKey, did: &Did, aud: &str, method: &str, now: SystemTime, jti: &str| {
        jwt::issue(key, did, aud, method, now, jti)
    };
    let now = SystemTime::now();
    let fine = serde_json::to_vec(&Sending { reports: vec![report(&account, 1, 1, 1000, 9)] }).unwrap();
    let long = vec![b' '; 100 << 10];
    let many = serde_json::to_vec(&json!({ "reports": vec![report(&account, 1, 1, 1, 0); 201] })).unwrap();
    let (key, did) = (&mta.key, &mta.did);
    let used = mta.token(REPORT_SENDING);
    assert_eq!(post(&world, Some(&used), b"{\"reports\":[]}").await.0, 200);
    let other_key = SigningKey::from_octets(&[0x33; 32]).unwrap();
    for (case, token, body, expected) in [
        ("no token", None, &fine, (401, "AuthenticationRequired")),
        ("rubbish", Some("rubbish".into()), &fine, (401, "BadJwt")),
        (
            "another service",
            Some(issue(key, did, "did:web:other.example#atproto_labeler", REPORT_SENDING, now, "a")),
            &fine,
            (401, "BadJwtAudience"),
        ),
        (
            "another service of ours",
            Some(issue(key, did, &format!("{LABELER}#other"), REPORT_SENDING, now, "b")),
            &fine,
            (401, "BadJwtAudience"),
        ),
        ("another method", Some(mta.token(GET_STANDING)), &fine, (401, "BadJwtLexiconMethod")),
        ("expired", Some(issue(key, did, &aud, REPORT_SENDING, now - Duration::from_secs(61), "c")), &fine, (401, "JwtExpired")),
        (
            "of the future",
            Some(issue(key, did, &aud, REPORT_SENDING, now + Duration::from_secs(600), "d")),
            &fine,
            (401, "BadJwt"),
        ),
        ("another key", Some(issue(&other_key, did, &aud, REPORT_SENDING, now, "e")), &fine, (401, "BadJwtSignature")),
        ("a stranger", Some(stranger.token(REPORT_SENDING)), &fine, (403, "NotPermitted")),
        (
            "a stranger in its name",
            Some(issue(&stranger.key, did, &aud, REPORT_SENDING, now, "f")),
            &fine,
            (401, "BadJwtSignature"),
        ),
        ("used before", Some(used), &fine, (401, "TokenReplayed")),
        ("too long", Some(mta.token(REPORT_SENDING)), &long, (413, "PayloadTooLarge")),
        ("too many", Some(mta.token(REPORT_SENDING)), &many, (400, "InvalidRequest")),
        ("no JSON", Some(mta.token(REPORT_SENDING)), &b"{".to_vec(), (400, "InvalidRequest")),
        (
            "negative",
            Some(mta.token(REPORT_SENDING)),
            &String::from_utf8(fine.clone()).unwrap().replace(":1000", ":-1").into_bytes(),
            (400, "InvalidRequest"),
        ),
    ] {
        let (status, answer) = post(&world, token.as_deref(), body).await;
        assert_eq!((status, answer["error"].as_str().unwrap()), expected, "{case}: {answer}");
    }
    assert_eq!(mta.standings(&world, &[&account]).await.standings[0].doubts, [], "nothing of that was kept");

    for (case, token, query, expected) in [
        ("no token", None, "dids=did:plc:a".to_owned(), (401, "AuthenticationRequired")),
        ("another method", Some(mta.token(REPORT_SENDING)), "dids=did:plc:a".to_owned(), (401, "BadJwtLexiconMethod")),
        ("a stranger", Some(stranger.token(GET_STANDING)), "dids=did:plc:a".to_owned(), (403, "NotPermitted")),
        ("of nobody", Some(mta.token(GET_STANDING)), String::new(), (400, "InvalidRequest")),
        ("of what is no DID", Some(mta.token(GET_STANDING)), "dids=alice".to_owned(), (400, "InvalidRequest")),
        ("of too many", Some(mta.token(GET_STANDING)), vec!["dids=did:plc:a"; 101].join("&"), (400, "InvalidRequest")),
    ] {
        let (status, answer) = get(&world, token.as_deref(), &query).await;
        assert_eq!((status, answer["error"].as_str().unwrap()), expected, "{case}: {answer}");
    }
    let (status, answer) = send(&world, &format!("GET /xrpc/{REPORT_SENDING}"), None, b"").await;
    assert_eq!((status, answer["message"].as_str().unwrap()), (405, "this is asked with POST"));
}

#[tokio::test]
async fn a_labeler_without_mtas_says_that_it_does_not_offer_it() {
    let (mta, world) = (Mta::start(0x31).await, World::start().await);
    let (status, answer) = post(&world, Some(&mta.token(REPORT_SENDING)), b"{\"reports\":[]}").await;
    assert_eq!((status, answer["error"].as_str().unwrap()), (501, "MethodNotImplemented"));
    let (status, answer) = get(&world, Some(&mta.token(GET_STANDING)), "dids=did:plc:a").await;
    assert_eq!((status, answer["error"].as_str().unwrap()), (501, "MethodNotImplemented"));
}

#[tokio::test]
async fn an_mta_whose_document_cannot_be_had_is_told_to_come_again() {
    let world = World::start_with("[standing]\nmtas = [\"did:web:localhost%3A1\"]").await;
    let gone = Mta { did: "did:web:localhost%3A1".parse().unwrap(), key: SigningKey::from_octets(&[0x31; 32]).unwrap() };
    let (status, answer) = post(&world, Some(&gone.token(REPORT_SENDING)), b"{\"reports\":[]}").await;
    assert_eq!((status, answer["error"].as_str().unwrap()), (503, "CallerUnresolved"));
}

#[tokio::test]
async fn a_token_that_was_used_before_a_restart_is_not_used_again_after_it() {
    let mta = Mta::start(0x34).await;
    let mut world = start(&mta).await;
    let account = world.member("alice.test", "member.example").await;
    let query = format!("dids={}", account.did.as_str());
    let (used, fresh) = (mta.token(GET_STANDING), mta.token(GET_STANDING));
    assert_eq!(get(&world, Some(&used), &query).await.0, 200);
    for _ in 0..2 {
        world.stop_labeler().await;
        world.start_labeler().await;
        let (status, answer) = get(&world, Some(&used), &query).await;
        assert_eq!((status, &answer["error"]), (401, &json!("TokenReplayed")));
    }
    assert_eq!(get(&world, Some(&fresh), &query).await.0, 200);
}
