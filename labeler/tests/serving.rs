//! What a client sees of the labeler: streams, methods, limits, headers.
#![allow(clippy::unwrap_used, reason = "tests end where something is wrong")]

mod world;

use std::io::Read;

use atproto::label::{fold, read_query_labels};
use atproto::stream::{Frame, read};
use futures_util::StreamExt;
use loadtest::atnet::Status;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use world::{BOTH, World};

const STREAM: &str = "/xrpc/com.atproto.label.subscribeLabels";
const QUERY: &str = "/xrpc/com.atproto.label.queryLabels?uriPatterns=*";

struct Subscriber(WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>);

impl Subscriber {
    async fn connect(world: &World, query: &str) -> Result<Self, Error> {
        let address = world.labeler.as_ref().unwrap().local_addr();
        connect_async(format!("ws://{address}{STREAM}{query}")).await.map(|(socket, _)| Self(socket))
    }

    /// The next frame; none when the stream has ended.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.0.next().await? {
                Ok(Message::Binary(octets)) => return Some(read(&octets).unwrap()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn labels(&mut self, count: usize) -> Vec<(u64, atproto::label::Label)> {
        let mut labels = Vec::new();
        while labels.len() < count {
            let Some(Frame::Labels { seq, labels: new }) = self.next().await else { panic!("labels") };
            labels.extend(new.into_iter().map(|label| (seq, label.unwrap())));
        }
        labels
    }
}

#[tokio::test]
async fn a_subscriber_ends_with_the_same_labels_as_who_asks() {
    let world = World::start().await;
    let account = world.member("alice.test", "member.example").await;
    let mut subscriber = Subscriber::connect(&world, "?cursor=0").await.unwrap();
    let mut heard = subscriber.labels(2).await;
    world.net.set_status(&account, Status::Deactivated);
    heard.extend(subscriber.labels(2).await);
    assert_eq!(heard.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let asked = world.labels(&account).await;
    let heard: Vec<_> = heard.into_iter().map(|(_, label)| label).collect();
    assert_eq!(heard[2..], [asked[1].clone(), asked[0].clone()]);
    assert!(fold(&heard, std::time::SystemTime::now()).is_empty());
    world.net.set_status(&account, Status::Active);
    world.until_labels(&account, &BOTH).await;
    let mut late = Subscriber::connect(&world, "?cursor=4").await.unwrap();
    assert_eq!(late.labels(3).await.first().map(|(seq, _)| *seq), Some(4));
}

#[tokio::test]
async fn a_cursor_of_the_future_is_told_so_and_closed() {
    let world = World::start().await;
    let mut subscriber = Subscriber::connect(&world, "?cursor=7").await.unwrap();
    assert_eq!(subscriber.next().await, Some(Frame::Error("FutureCursor".into())));
    assert_eq!(subscriber.next().await, None);
}

#[tokio::test]
async fn stopping_ends_streams_and_the_store_can_be_opened_again_at_once() {
    let mut world = World::start().await;
    let account = world.member("alice.test", "member.example").await;
    let mut subscriber = Subscriber::connect(&world, "?cursor=0").await.unwrap();
    subscriber.labels(2).await;
    world.stop_labeler().await;
    assert_eq!(subscriber.next().await, None);
    world.start_labeler().await;
    world.until_labels(&account, &BOTH).await;
}

#[tokio::test]
async fn methods_and_statuses_are_those_of_xrpc() {
    let world = World::start().await;
    world.member("alice.test", "member.example").await;
    let (status, head, body) = world.ask(&format!("HEAD {QUERY}"), "").await;
    assert_eq!((status, body.len()), (200, 0));
    assert!(head.contains("content-type: application/json"), "{head}");
    let (status, head, body) = world.ask(&format!("POST {QUERY}"), "Content-Length: 0\r\n").await;
    assert_eq!(status, 405);
    assert!(head.contains("allow: get, head, options") && body.starts_with(b"{\"error\":"), "{head}");
    let (status, head, body) = world.ask(&format!("GET {STREAM}"), "").await;
    assert_eq!(status, 426);
    assert!(head.contains("upgrade: websocket") && body.starts_with(b"{\"error\":"), "{head}");
    assert_eq!(world.get(&format!("{STREAM}?cursor=x")).await.0, 400);
    assert_eq!(world.get("/xrpc/com.example.other").await.0, 501);
    assert_eq!(world.get("/other").await.0, 404);
    for wrong in ["", "&limit=251", "&cursor=7", "&uriPatterns=a*b"] {
        let path = if wrong.is_empty() { QUERY.split('?').next().unwrap().to_owned() } else { format!("{QUERY}{wrong}") };
        let (status, _, body) = world.ask(&format!("GET {path}"), "").await;
        assert_eq!(status, 400, "{wrong}");
        assert!(body.starts_with(b"{\"error\":\"InvalidRequest\""), "{wrong}");
    }
    let (_, body) = world.get(&format!("{QUERY}&sources=did:web:other.example")).await;
    assert_eq!(read_query_labels(&body).unwrap().labels.len(), 0);
    let (status, head, _) = world.ask(&format!("OPTIONS {QUERY}"), "Origin: https://app.example\r\n").await;
    assert_eq!(status, 204);
    assert!(head.contains("access-control-allow-origin: *") && head.contains("access-control-allow-methods: get"), "{head}");
}

#[tokio::test]
async fn a_long_answer_is_compressed_for_who_takes_it() {
    let world = World::start().await;
    for n in 0..6 {
        world.member(&format!("m{n}.test"), &format!("m{n}.example")).await;
    }
    let (_, plain) = world.get(QUERY).await;
    let (status, head, packed) = world.ask(&format!("GET {QUERY}"), "Accept-Encoding: br, gzip\r\n").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-encoding: gzip") && head.contains("vary: accept-encoding"), "{head}");
    assert!(packed.len() < plain.len(), "{} of {}", packed.len(), plain.len());
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain);
    assert_eq!(read_query_labels(&plain).unwrap().labels.len(), 12);
}

#[tokio::test]
async fn who_asks_too_often_is_told_to_wait_and_others_are_not() {
    let world = World::start_with("[serve]\nrequests_per_minute = 3\nsubscriptions_per_address = 1").await;
    let ask = async |from: &str| {
        let (status, head, _) = world.ask("GET /xrpc/_health", &format!("X-Forwarded-For: 203.0.113.9, {from}\r\n")).await;
        (status, head.contains("retry-after: "))
    };
    for _ in 0..3 {
        assert_eq!(ask("192.0.2.1").await, (200, false));
    }
    assert_eq!(ask("192.0.2.1").await, (429, true));
    assert_eq!(ask("192.0.2.2").await, (200, false));
    let first = Subscriber::connect(&world, "").await.unwrap();
    let Err(Error::Http(refused)) = Subscriber::connect(&world, "").await else { panic!("one is enough") };
    assert_eq!(refused.status().as_u16(), 429);
    drop(first);
}

#[tokio::test]
async fn the_operator_sees_how_it_is_and_nobody_else_does() {
    let world = World::start_with("[admin]\naddress = \"127.0.0.1:0\"").await;
    let account = world.member("alice.test", "member.example").await;
    let subscriber = Subscriber::connect(&world, "").await.unwrap();
    let admin = world.labeler.as_ref().unwrap().admin_addr().unwrap();
    let scrape = async || {
        let (status, head, text) = world.ask_at(admin, "GET /metrics", "").await;
        assert!(status == 200 && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        String::from_utf8(text).unwrap()
    };
    let value = |text: &str, series: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        found.and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0)
    };
    // The log is followed, and streams are looked at, now and then.
    let issued = "labeler_labels_issued_total{value=\"relay-member\",negated=\"false\"}";
    let mut text = scrape().await;
    for _ in 0..1000 {
        if value(&text, issued) >= 1.0 {
            break;
        }
        text = scrape().await;
    }
    for (series, least) in [
        ("labeler_looks_total{result=\"pass\"}", 1.0),
        (issued, 1.0),
        ("labeler_attestations", 1.0),
        ("labeler_statements", 2.0),
        ("labeler_last_sequence_number", 2.0),
        ("labeler_subscribers", 1.0),
        ("labeler_requests_total{method=\"queryLabels\",status=\"200\"}", 2.0),
        ("labeler_requests_total{method=\"subscribeLabels\",status=\"101\"}", 1.0),
        ("labeler_dns_questions_total{resolver=\"nameservers\",answer=\"found\"}", 4.0),
        ("labeler_store_used_bytes", 4096.0),
    ] {
        assert!(value(&text, series) >= least, "{series}: {text}");
    }
    for private in [account.did.as_str(), "member.example", "alice.test"] {
        assert!(!text.contains(private), "{private}: {text}");
    }
    assert_eq!(world.ask_at(admin, "GET /healthz", "").await.0, 200);
    assert_eq!(world.ask_at(admin, &format!("GET {QUERY}"), "").await.0, 404);
    for hidden in ["/metrics", "/healthz"] {
        assert_eq!(world.get(hidden).await.0, 404, "{hidden}");
    }
    drop(subscriber);
    let mut world = world;
    world.stop_labeler().await;
}
