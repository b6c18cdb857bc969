//! The log: one line an attempt, and nobody in it whom the settings do not let in.

use std::cell::RefCell;
use std::io::Write;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use loadtest::sink::{Act, Rule, Script, Stage};
use serde_json::Value;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;

use super::parts::World;

const MINUTE: Duration = Duration::from_secs(60);
const ALICE: &str = "alice.b@strict.example";
const OPEN: &str = "[log]\nrecipients = \"whole\"\nsenders = \"whole\"\nmessage_ids = \"whole\"\n";

thread_local! {
    /// What this thread's world writes; other threads' is nobody's.
    static LINES: RefCell<Option<Lines>> = const { RefCell::new(None) };
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Gets what this thread writes to its log from now on, at the debug level too. One subscriber serves the whole process: those that come
    /// and go with a thread lose events to each other, because what is worth an event's while is remembered for all threads.
    fn listen() -> Self {
        static LOG: Once = Once::new();
        LOG.call_once(|| {
            let wanted = dynamic_filter_fn(|event, _| {
                *event.level() <= tracing::Level::DEBUG && LINES.with_borrow(|lines| lines.is_some())
            });
            let json = fmt::layer().json().flatten_event(true).with_writer(|| ThisThread).with_filter(wanted);
            tracing::subscriber::set_global_default(tracing_subscriber::registry().with(json)).unwrap();
        });
        let lines = Lines::default();
        LINES.set(Some(lines.clone()));
        lines
    }

    /// Since the last time: all of it, and the lines of attempts.
    fn take(&self) -> (String, Vec<Value>) {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let attempts = lines.filter(|line| line["message"] == "attempt").collect();
        (text, attempts)
    }
}

struct ThisThread;

impl Write for ThisThread {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        LINES.with_borrow(|lines| lines.as_ref().map_or(Ok(octets.len()), |lines| lines.0.lock().unwrap().write(octets)))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a world's daemon says to its log while a message meets a host that repeats the address it refuses.
fn said(settings: &str, more: &'static str) -> [(String, Vec<Value>); 2] {
    let lines = Lines::listen();
    let refuses = "550 5.1.1 <alice.b@strict.example>: no alice.b here; try postmaster@strict.example";
    let mut world = World::seed(90)
        .settings(settings)
        .provider("strict.example", Script::accepts_all().with(Rule::new(Stage::Rcpt, Act::Reply(refuses.into()))))
        .provider("big.example", Script::accepts_all())
        .provider("member.example", Script::accepts_all());
    let said = Arc::new(Mutex::new(Vec::new()));
    let noted = said.clone();
    world.live(10 * MINUTE, |day| async move {
        let send = async |n: u64| {
            day.submit(n, &[ALICE, "bob@big.example"]).await;
            tokio::time::sleep(MINUTE).await;
            noted.lock().unwrap().push(lines.take());
        };
        send(1).await;
        day.reload(more, "").await.unwrap();
        send(2).await;
    });
    LINES.set(None);
    let said = said.lock().unwrap().clone();
    said.try_into().unwrap()
}

#[test]
fn every_attempt_leaves_one_line_and_nobodys_address() {
    let [(text, attempts), (later, attempts_later)] = said("", OPEN);
    // Two of the message, and one of the notice to its sender.
    let of = |attempts: &[Value], domain: &str| {
        let found: Vec<_> = attempts.iter().filter(|line| line["domain"] == domain).cloned().collect();
        assert_eq!(found.len(), 1, "{domain}: {attempts:?}");
        found[0].clone()
    };
    assert_eq!(attempts.len(), 3, "{text}");
    let refused = of(&attempts, "strict.example");
    assert_eq!(refused["reply"], "550 5.1.1 <…@strict.example>: no … here; try …@strict.example");
    assert_eq!((&refused["from"], &refused["verdict"]), (&"…@member.example".into(), &"Failed".into()));
    assert_eq!((&refused["member"], &refused["nth"], &refused["source"]), (&1.into(), &1.into(), &"ip-a".into()));
    assert_eq!((&refused["to"], &refused["message_id"]), (&Value::Null, &Value::Null));
    assert_eq!(of(&attempts, "member.example")["from"], "<>");
    assert_eq!(of(&attempts, "big.example")["verdict"], "Delivered");
    // Also at the debug level, and whatever the line.
    for hidden in ["alice.b", "bob@", "app@", "postmaster@", "1@member", "hello", "one-time code"] {
        assert!(!text.contains(hidden), "{hidden}: {text}");
    }

    // Who wants more says so, and a reload is enough.
    let refused = of(&attempts_later, "strict.example");
    assert_eq!((&refused["to"], &refused["from"]), (&ALICE.into(), &"app@member.example".into()));
    assert_eq!(refused["message_id"], "2@member.example");
    assert!(refused["reply"].as_str().unwrap().contains("no alice.b here"), "{refused}");
    for hidden in ["hello", "one-time code"] {
        assert!(!later.contains(hidden), "{hidden}: {later}");
    }
}

#[test]
fn by_its_hash_a_recipient_is_found_again_and_not_known() {
    let hashed = "[log]\nrecipients = \"hash\"\nmessage_ids = \"hash\"\n";
    let [(text, attempts), (later, again)] = said(hashed, "");
    let to = |attempts: &[Value]| {
        let line = attempts.iter().find(|line| line["domain"] == "strict.example").unwrap();
        (line["to"].as_str().unwrap().to_owned(), line["message_id"].as_str().unwrap().to_owned())
    };
    let ((first, id), (second, other_id)) = (to(&attempts), to(&again));
    assert_eq!(first, second);
    assert_ne!(id, other_id);
    assert!(first.ends_with("@strict.example") && first.len() == 24 + "@strict.example".len(), "{first}");
    let said = format!("550 5.1.1 <{first}>: no … here");
    assert!(attempts.iter().any(|line| line["reply"].as_str().unwrap().contains(&said)), "{text}");
    for hidden in ["alice.b", "bob@", "app@", "postmaster@"] {
        assert!(!text.contains(hidden) && !later.contains(hidden), "{hidden}: {text}");
    }
}
