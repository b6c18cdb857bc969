//! What is shown is the table's, and says what happened.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::judge::Answer;
use crate::rounds::{Look, Looker, Turn};
use crate::store::{Found, Lane, Task, Terms, Touch};
use atproto::key::SigningKey;
use axum::http::StatusCode;

const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

#[derive(Clone)]
struct Finds(Result<Found, SystemTime>);

impl Looker for Finds {
    async fn look(&self, _: &Task, _: impl Fn(&str) -> Turn + Send + Sync) -> Look {
        Look { host: None, outcome: self.0.clone(), host_works: None }
    }
}

fn instruments(folder: &std::path::Path) -> Instruments {
    let key = SigningKey::from_octets(&[0x11; 32]).unwrap();
    let store = Store::open(folder, &"did:web:x".parse().unwrap(), &key, Terms::default(), now()).unwrap();
    let stream = |name, path: &str, is_time| Stream {
        name,
        url: format!("wss://relay.example/{path}").parse().unwrap(),
        is_time,
        at: None,
        since: now() - Duration::from_secs(90),
    };
    Instruments {
        store: Arc::new(store),
        counts: Arc::default(),
        resolvers: vec![("nameservers".into(), Arc::default()), ("elsewhere".into(), Arc::default())],
        subscribers: Box::new(|| 7),
        streams: Mutex::new(vec![stream("firehose", "", false), stream("jetstream", "subscribe", true)]),
        clock: now,
    }
}

/// Series and their values, in the order of the text.
fn shown(it: &Instruments) -> Vec<(String, f64)> {
    let text = metrics::render(it).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

#[tokio::test]
async fn what_happened_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let it = instruments(folder.path());
    let value = |name: &str| shown(&it).into_iter().find(|(shown, _)| shown == name).map(|(_, value)| value);
    assert_eq!(value("labeler_attestations"), Some(0.0));
    assert_eq!(value("labeler_looks_total{result=\"gone\"}"), None);

    let alice: atproto::Did = "did:plc:alice".parse().unwrap();
    let due = now() - Duration::from_secs(60);
    it.store.touch(&[Touch::Record(alice.clone(), "alice.example".into())], Some(("wss://relay.example/", 41)), due).unwrap();
    assert_eq!(value("labeler_due{lane=\"fresh\"}"), Some(1.0));
    assert_eq!(value("labeler_due_oldest_seconds{lane=\"fresh\"}"), Some(60.0));
    assert_eq!((value("labeler_due{lane=\"standing\"}"), value("labeler_attestations")), (Some(0.0), Some(1.0)));

    let task = it.store.due(Lane::Fresh, now(), &Default::default(), 1, false).unwrap().remove(0);
    for outcome in [Ok(Found::Absent), Ok(Found::Absent), Ok(Found::Records(Vec::new())), Err(now())] {
        Counted { looker: Finds(outcome), counts: it.counts.clone(), clock: now }.look(&task, |_| Turn::Now).await;
    }
    let looks = ["gone", "listed", "later", "pass"].map(|result| value(&format!("labeler_looks_total{{result=\"{result}\"}}")));
    assert_eq!(looks, [Some(2.0), Some(1.0), Some(1.0), None]);
    assert_eq!(value("labeler_last_look_timestamp_seconds{lane=\"fresh\"}"), Some(NOW as f64));
    assert_eq!(value("labeler_last_look_timestamp_seconds{lane=\"standing\"}"), None);

    it.counts.request("/xrpc/com.atproto.label.queryLabels", StatusCode::OK);
    it.counts.request("/xrpc/com.atproto.label.queryLabels", StatusCode::TOO_MANY_REQUESTS);
    it.counts.request("/status/did:plc:alice", StatusCode::OK);
    for unknown in ["/xrpc/coop.tradewind.getSecrets", "/", "/wp-login.php"] {
        it.counts.request(unknown, StatusCode::IM_A_TEAPOT);
    }
    let requests =
        |method: &str, status: &str| value(&format!("labeler_requests_total{{method=\"{method}\",status=\"{status}\"}}"));
    assert_eq!((requests("queryLabels", "200"), requests("queryLabels", "429")), (Some(1.0), Some(1.0)));
    assert_eq!((requests("status", "200"), requests("other", "other")), (Some(1.0), Some(3.0)));

    it.resolvers[1].1.answer(&Answer::<IpAddr>::Unknown("it sleeps".into()));
    it.resolvers[1].1.answer(&Answer::Found(vec![Ipv4Addr::LOCALHOST]));
    let questions = |answer: &str| value(&format!("labeler_dns_questions_total{{resolver=\"elsewhere\",answer=\"{answer}\"}}"));
    assert_eq!((questions("unknown"), questions("found"), questions("absent")), (Some(1.0), Some(1.0), None));
    assert_eq!(value("labeler_subscribers"), Some(7.0));

    // Both have not moved for 90 s until somebody looks.
    let idle = |stream: &str| value(&format!("labeler_stream_idle_seconds{{stream=\"{stream}\"}}"));
    assert_eq!((idle("firehose"), value("labeler_stream_cursor{stream=\"firehose\"}")), (Some(90.0), None));
    it.store.set_cursor("wss://relay.example/subscribe", Some((NOW as i64 - 5) * 1_000_000)).unwrap();
    it.look_at_streams();
    assert_eq!((idle("firehose"), value("labeler_stream_cursor{stream=\"firehose\"}")), (Some(0.0), Some(41.0)));
    assert_eq!(value("labeler_stream_lag_seconds{stream=\"jetstream\"}"), Some(5.0));
    assert_eq!(value("labeler_stream_lag_seconds{stream=\"firehose\"}"), None);
    let (used, size) = (value("labeler_store_used_bytes").unwrap(), value("labeler_store_size_bytes").unwrap());
    assert!(used >= 4096.0 && used < size, "{used} of {size}");
}

#[tokio::test]
async fn labels_are_counted_whatever_issues_them() {
    let folder = tempfile::tempdir().unwrap();
    let it = Arc::new(instruments(folder.path()));
    let key = SigningKey::from_octets(&[0x11; 32]).unwrap();
    let following = it.clone();
    let follower = tokio::spawn(async move { following.follow_labels().await });
    // It has subscribed when it waits.
    tokio::task::yield_now().await;
    let alice: atproto::Did = "did:plc:alice".parse().unwrap();
    let task = || {
        it.store.touch(&[Touch::Record(alice.clone(), "alice.example".into())], None, now()).unwrap();
        let due = |lane| it.store.due(lane, now(), &Default::default(), 1, false).unwrap();
        Lane::ALL.into_iter().flat_map(due).next().unwrap()
    };
    let patience = crate::store::Patience {
        interval: Duration::from_secs(60),
        failures: 1,
        failing_for: Duration::ZERO,
        silent_for: Duration::from_secs(7 * 86_400),
    };
    let passed = crate::judge::Judgement::of(Vec::new());
    it.store.settle(&task(), &Found::Judged { judgement: passed, relay: true, rev: None }, patience, now(), &key).unwrap();
    it.store.settle(&task(), &Found::Absent, patience, now(), &key).unwrap();
    let count = |value: &str, negated: bool| {
        let series = format!("labeler_labels_issued_total{{value=\"{value}\",negated=\"{negated}\"}}");
        shown(&it).into_iter().find(|(name, _)| *name == series).map(|(_, value)| value)
    };
    // The follower has its turns meanwhile; some are enough.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    follower.abort();
    for value in ["verified-mail-operator", "relay-member"] {
        assert_eq!((count(value, false), count(value, true)), (Some(1.0), Some(1.0)), "{value}");
    }
    assert_eq!(count("clean-sender", false), None);
}

#[test]
fn whatever_is_shown_is_of_the_table_and_says_words_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let it = instruments(folder.path());
    it.counts.fill();
    it.resolvers.iter().for_each(|(_, asked)| asked.fill());
    it.streams.lock().unwrap().iter_mut().for_each(|stream| stream.at = Some(1));
    let text = metrics::render(&it).unwrap();
    let series = shown(&it);
    // Everything has happened, and no Jetstream of a firehose's kind: one series less.
    let most: usize = TABLE.iter().map(|metric| metric.series_max(2, 2)).sum();
    assert_eq!(series.len(), most - 1, "{text}");
    for metric in TABLE {
        assert!(text.contains(&format!("# HELP {} {}", metric.name, metric.help)), "{}: {text}", metric.name);
        let kind = if metric.kind == Kind::Counter { "counter" } else { "gauge" };
        assert!(text.contains(&format!("# TYPE {} {kind}\n", metric.name)), "{}", metric.name);
        assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
        assert!(metric.name.starts_with("labeler_") && !metric.help.contains('|'), "{}", metric.name);
    }
    for (name, _) in series {
        let bare = name.split('{').next().unwrap();
        let metric = TABLE.iter().find(|metric| metric.name == bare).unwrap_or_else(|| panic!("{name} is not in the table"));
        for (label, _) in metric.labels {
            assert!(name.contains(&format!("{label}=\"")), "{name}");
        }
    }
}

#[test]
fn an_address_that_others_reach_is_refused_unless_they_may() {
    let read = |text: &str| toml::from_str::<Admin>(text).map_err(|error| error.message().to_owned());
    assert_eq!(read("address = \"127.0.0.1:3101\"").unwrap().address.port(), 3101);
    assert!(read("address = \"[::1]:3101\"").is_ok());
    let refused = read("address = \"0.0.0.0:3101\"").unwrap_err();
    assert_eq!(
        refused,
        "others can reach 0.0.0.0:3101; write \"127.0.0.1:3101\", or allow_clear_text = true if the network is private"
    );
    assert!(read("address = \"192.0.2.1:3101\"\nallow_clear_text = true").is_ok());
    assert!(read("address = \"127.0.0.1:1\"\nport = 1").unwrap_err().contains("unknown field `port`"));
}

#[test]
fn the_page_is_what_the_table_says() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("METRICS.md");
    if std::env::var_os("WRITE_METRICS_PAGE").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let anew = "make it anew: WRITE_METRICS_PAGE=1 cargo test --workspace --lib admin::";
    assert!(std::fs::read_to_string(path).unwrap() == page(), "{anew}");
}

#[test]
fn alerts_ask_for_what_is_shown() {
    for file in ["alerts.yml", "alerts.test.yml"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../mta/monitoring").join(file);
        let text = std::fs::read_to_string(path).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("labeler_"));
        let asked: Vec<&str> = words.collect();
        assert!(asked.len() > 10, "{file} asks for next to nothing");
        for word in asked {
            assert!(TABLE.iter().any(|metric| metric.name == word), "{file} asks for {word}, which nobody shows");
        }
    }
}
