use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use atproto::label::{Label, read_query_labels};
use atproto::stream;

use super::*;
use crate::judge::{Check, Judgement, Kind, Verdict};

const TERMS: Terms = Terms { expires_after: Duration::from_secs(8 * 86_400), history: Duration::from_secs(30 * 86_400) };
const INTERVAL: Duration = Duration::from_secs(86_400);
/// A definite failure counts at once: what is forgiven has tests of its own.
const PATIENCE: Patience =
    Patience { interval: INTERVAL, failures: 1, failing_for: Duration::ZERO, silent_for: Duration::from_secs(7 * 86_400) };

struct Bench {
    folder: tempfile::TempDir,
    store: Option<Store>,
    key: SigningKey,
    now: SystemTime,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            folder: tempfile::tempdir().unwrap(),
            store: None,
            key: SigningKey::from_octets(&[0x11; 32]).unwrap(),
            now: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        };
        bench.reopen();
        bench
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(Store::open(&self.folder.path().join("store"), &issuer(), &self.key, TERMS, self.now).unwrap());
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn touch(&self, name: &str, domain: &str) {
        let refused = self.store().touch(&[Touch::Record(did(name), domain.into())], None, self.now).unwrap();
        assert_eq!(refused, Vec::<String>::new());
    }

    fn due(&self) -> Vec<Task> {
        Lane::ALL.into_iter().flat_map(|lane| self.store().due(lane, self.now, &HashSet::new(), 100, false).unwrap()).collect()
    }

    fn next_due(&self) -> SystemTime {
        let due = Lane::ALL.into_iter().filter_map(|lane| self.store().next_due(lane, &HashSet::new()).unwrap());
        due.min().unwrap()
    }

    /// What is due is found so; returns the values issued, negations with a `!`.
    fn settle(&self, found: &Found) -> Vec<String> {
        let mut issued = Vec::new();
        for task in self.due() {
            for label in self.store().settle(&task, found, PATIENCE, self.now, &self.key).unwrap() {
                label.verify(&issuer(), &self.key.verifying_key()).unwrap();
                issued.push(format!("{}{}", if label.negates() { "!" } else { "" }, label.val));
            }
        }
        issued
    }

    fn labels(&self, patterns: &[&str]) -> Vec<Label> {
        let patterns: Vec<Pattern> = patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        self.query(&patterns, None, 250).0
    }

    fn query(&self, patterns: &[Pattern], cursor: Option<&Cursor>, limit: usize) -> (Vec<Label>, Option<String>) {
        let page = read_query_labels(&self.store().query(patterns, cursor, limit).unwrap()).unwrap();
        assert_eq!(page.refused, []);
        (page.labels, page.cursor)
    }

    /// Everything that a subscriber gets from `from` on: the number and the label of each frame.
    fn stream(&self, from: u64) -> Vec<(u64, Label)> {
        let (mut next, mut seen) = (from, Vec::new());
        loop {
            let page = self.store().frames(next).unwrap();
            if page.frames.is_empty() {
                return seen;
            }
            assert!(page.next > next);
            next = page.next;
            for frame in &page.frames {
                let stream::Frame::Labels { seq, mut labels } = stream::read(frame).unwrap() else { panic!("labels") };
                seen.push((seq, labels.remove(0).unwrap()));
            }
        }
    }

    fn row(&self, name: &str) -> Row {
        self.store().rows(&did(name)).unwrap().remove(0).1
    }
}

fn issuer() -> Did {
    "did:web:labeler.example.test".parse().unwrap()
}

fn did(name: &str) -> Did {
    format!("did:plc:{name}").parse().unwrap()
}

fn judged(verdict: Verdict, relay: bool) -> Found {
    let check = match verdict {
        Verdict::Pass => Check::pass(Kind::Mx, "a.example"),
        Verdict::Fail => Check::fail(Kind::Mx, "a.example", "why"),
        Verdict::Unknown => Check::unknown(Kind::Mx, "a.example", "why"),
    };
    Found::Judged { judgement: Judgement::only(check), relay, rev: None }
}

#[test]
fn a_pass_is_labelled_once_and_a_failure_takes_it_back() {
    let mut bench = Bench::new();
    bench.touch("alice", "a.example");
    assert_eq!(bench.settle(&judged(Verdict::Pass, true)), ["verified-mail-operator", "relay-member"]);
    bench.now += INTERVAL;
    assert_eq!(bench.settle(&judged(Verdict::Pass, true)), [""; 0], "nothing changed, nothing is said");
    bench.now += INTERVAL;
    assert_eq!(bench.settle(&judged(Verdict::Pass, false)), ["!relay-member"]);
    bench.now += INTERVAL;
    assert_eq!(bench.settle(&judged(Verdict::Fail, false)), ["!verified-mail-operator"]);
    assert_eq!((bench.row("alice").state, bench.row("alice").reasons), (State::Fail, vec!["mx: why".to_owned()]));
    assert_eq!(
        bench.labels(&["did:plc:alice"]).iter().filter(|label| label.negates()).count(),
        2,
        "negations are given too, one row a key"
    );
}

#[test]
fn what_could_not_be_found_out_changes_no_label() {
    let mut bench = Bench::new();
    bench.touch("alice", "a.example");
    assert_eq!(bench.settle(&judged(Verdict::Unknown, true)), [""; 0]);
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.settle(&judged(Verdict::Pass, true)).len(), 2);
    bench.now += INTERVAL;
    for _ in 0..50 {
        assert_eq!(bench.settle(&judged(Verdict::Unknown, false)), [""; 0]);
        assert_eq!(bench.row("alice").state, State::Unknown);
        bench.now += RETRY_LAST_AND_MORE;
    }
}

const RETRY_LAST_AND_MORE: Duration = Duration::from_secs(3601);

#[test]
fn the_labels_stand_while_any_domain_of_the_did_passes() {
    let mut bench = Bench::new();
    bench.touch("alice", "a.example");
    bench.settle(&judged(Verdict::Pass, false));
    bench.touch("alice", "b.example");
    assert_eq!(bench.settle(&judged(Verdict::Pass, true)), ["relay-member"]);
    bench.touch("alice", "a.example");
    assert_eq!(bench.settle(&judged(Verdict::Fail, false)), [""; 0]);
    bench.touch("alice", "b.example");
    assert_eq!(bench.settle(&Found::Absent), ["!verified-mail-operator", "!relay-member"]);
    assert_eq!(bench.store().rows(&did("alice")).unwrap().len(), 1, "a record that is gone is forgotten");
    bench.now += INTERVAL;
    bench.touch("bob", "a.example");
    assert_eq!(bench.store().rows(&did("bob")).unwrap().len(), 1, "accounts do not touch each other");
}

#[test]
fn times_and_numbers_grow_though_the_clock_goes_back() {
    let mut bench = Bench::new();
    let mut seen = Vec::new();
    for turn in 0..6 {
        bench.touch("alice", "a.example");
        let found = if turn % 2 == 0 { judged(Verdict::Pass, false) } else { judged(Verdict::Fail, false) };
        assert_eq!(bench.settle(&found).len(), 1);
        let label = bench.labels(&["did:plc:alice"]).remove(0);
        assert_eq!(label.negates(), turn % 2 == 1);
        seen.push(label.cts.as_str().to_owned());
        assert_eq!(bench.store().last_seq().unwrap(), turn + 1);
        bench.now -= Duration::from_secs(5);
        bench.reopen();
    }
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
}

#[test]
fn what_was_pointed_at_meanwhile_is_looked_at_again() {
    let bench = Bench::new();
    bench.touch("alice", "a.example");
    let task = bench.due().remove(0);
    bench.touch("alice", "a.example");
    bench.store().settle(&task, &Found::Absent, PATIENCE, bench.now, &bench.key).unwrap();
    assert_eq!(bench.due().len(), 1, "the absence may be older than the second hint");
    assert_eq!(bench.settle(&Found::Absent), [""; 0]);
    assert!(bench.due().is_empty());
    assert!(Lane::ALL.into_iter().all(|lane| bench.store().next_due(lane, &HashSet::new()).unwrap().is_none()));
}

#[test]
fn checks_that_do_not_pass_are_repeated_ever_more_rarely() {
    let mut bench = Bench::new();
    bench.touch("alice", "a.example");
    let mut waits = Vec::new();
    for _ in 0..18 {
        bench.settle(&judged(Verdict::Fail, false));
        let due = bench.next_due();
        waits.push(due.duration_since(bench.now).unwrap().as_secs_f64());
        bench.now = due;
    }
    for (nth, wait) in waits.iter().enumerate() {
        let whole = f64::from(1_u32 << nth).min(6.0 * 3600.0);
        assert!(*wait <= whole && *wait >= whole * 0.9, "{nth}: {wait}");
    }
    bench.settle(&judged(Verdict::Pass, false));
    let due = bench.next_due().duration_since(bench.now).unwrap();
    assert!(due <= INTERVAL && due > INTERVAL * 9 / 10 - Duration::from_secs(1), "{due:?}");
}

#[test]
fn work_and_cursor_survive_a_restart_together() {
    let mut bench = Bench::new();
    bench.store().touch(&[Touch::Record(did("alice"), "a.example".into())], Some(("ws://relay", 42)), bench.now).unwrap();
    bench.reopen();
    assert_eq!(bench.store().cursor("ws://relay").unwrap(), Some(42));
    assert_eq!(bench.store().cursor("ws://other").unwrap(), None);
    assert_eq!(bench.due().len(), 1);
    bench.store().set_cursor("ws://relay", None).unwrap();
    assert_eq!(bench.store().cursor("ws://relay").unwrap(), None);
}

#[test]
fn an_account_touches_what_is_known_of_it_only() {
    let mut bench = Bench::new();
    bench.touch("alice", "a.example");
    bench.touch("alicia", "a.example");
    bench.settle(&judged(Verdict::Pass, false));
    bench.now += Duration::from_secs(10);
    bench.store().touch(&[Touch::Account(did("alice")), Touch::Account(did("nobody"))], None, bench.now).unwrap();
    assert_eq!(bench.due().iter().map(|task| task.did.as_str()).collect::<Vec<_>>(), ["did:plc:alice"]);
}

#[test]
fn one_account_cannot_fill_the_store() {
    let bench = Bench::new();
    for n in 0..DOMAINS_MAX {
        bench.touch("alice", &format!("{n}.example"));
    }
    let more = [Touch::Record(did("alice"), "more.example".into()), Touch::Record(did("bob"), "x".repeat(254))];
    assert_eq!(bench.store().touch(&more, None, bench.now).unwrap().len(), 2);
    assert_eq!(bench.due().len(), DOMAINS_MAX);
    bench.touch("alice", "7.example");
}

#[test]
fn patterns_and_pages() {
    let bench = Bench::new();
    for n in 0..30 {
        bench.touch(&format!("m{n:02}"), "a.example");
    }
    bench.settle(&judged(Verdict::Pass, true));
    assert_eq!(bench.labels(&["*"]).len(), 60);
    assert_eq!(bench.labels(&["did:plc:m1*"]).len(), 20);
    assert_eq!(bench.labels(&["did:plc:m1"]).len(), 0, "exact is exact");
    assert_eq!(bench.labels(&["did:plc:m11", "did:plc:m1*", "did:plc:m11", "did:plc:m25"]).len(), 22, "each once");
    for wrong in ["", "a*b", "**", "*a"] {
        assert!(Pattern::parse(wrong).is_err(), "{wrong}");
    }
    let patterns = [Pattern::parse("did:plc:m0*").unwrap(), Pattern::parse("did:plc:m2*").unwrap()];
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let (labels, next) = bench.query(&patterns, cursor.as_ref(), 7);
        seen.extend(labels.iter().map(|label| format!("{} {}", label.uri, label.val)));
        match next {
            Some(next) => cursor = Some(Cursor::parse(&next).unwrap()),
            None => break,
        }
    }
    assert_eq!(seen.len(), 40);
    assert!(seen.is_sorted(), "and none twice: {seen:?}");
    let long = "x".repeat(600);
    assert_eq!(bench.labels(&[&long, &format!("{long}*"), "did:plc:m01"]).len(), 2);
    for wrong in [&format!("{long} x"), "rubbish", ""] {
        assert!(Cursor::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn another_issuer_or_process_does_not_get_in() {
    let mut bench = Bench::new();
    let open = |issuer: &str, bench: &Bench| {
        Store::open(&bench.folder.path().join("store"), &issuer.parse().unwrap(), &bench.key, TERMS, bench.now)
    };
    assert!(open("did:web:labeler.example.test", &bench).is_err(), "it is open already");
    bench.store = None;
    assert!(matches!(open("did:web:other.example", &bench), Err(StoreError::OtherIssuer(_))));
}

#[test]
fn a_new_key_signs_the_old_statements_with_their_old_times() {
    let mut bench = Bench::new();
    // More than a part.
    for n in 0..20 {
        bench.touch(&format!("m{n}"), "a.example");
    }
    bench.settle(&judged(Verdict::Pass, true));
    let before = bench.labels(&["*"]);
    bench.key = SigningKey::from_octets(&[0x22; 32]).unwrap();
    bench.reopen();
    let after = bench.labels(&["*"]);
    assert_eq!(after.len(), 40);
    for (before, after) in before.iter().zip(&after) {
        after.verify(&issuer(), &bench.key.verifying_key()).unwrap();
        assert_eq!((before.key(), before.cts.as_str()), (after.key(), after.cts.as_str()));
    }
    assert_eq!(bench.store().last_seq().unwrap(), 80);
}

#[test]
fn an_opening_that_was_cut_off_is_done_again_and_says_the_same() {
    let mut bench = Bench::new();
    for n in 0..20 {
        bench.touch(&format!("m{n}"), "a.example");
    }
    bench.settle(&judged(Verdict::Pass, true));
    let before = bench.labels(&["*"]);
    // As if the last transaction of an opening had not been written: all that says that its work is done is missing.
    let store = bench.store();
    let mut txn = store.env.write_txn().unwrap();
    store.meta.delete(&mut txn, FORMAT).unwrap();
    store.meta.put(&mut txn, COPY, b"").unwrap();
    store.meta.put(&mut txn, KEY, b"did:key:another").unwrap();
    txn.commit().unwrap();
    bench.reopen();
    let after = bench.labels(&["*"]);
    let said = |labels: &[Label]| {
        labels.iter().map(|it| (it.uri.clone(), it.val.clone(), it.cts.as_str().to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(said(&before), said(&after));
    assert_eq!(bench.due().len(), 20, "all are asked about once");
    let last = bench.store().last_seq().unwrap();
    assert!(last > COPY_GAP);
    bench.reopen();
    assert_eq!(bench.store().last_seq().unwrap(), last, "and then it is done");
}

#[test]
fn labels_run_out_unless_they_are_issued_again_and_those_taken_back_are_not() {
    let mut bench = Bench::new();
    for n in 0..3 {
        bench.touch(&format!("m{n}"), "a.example");
    }
    bench.settle(&judged(Verdict::Pass, true));
    bench.touch("m2", "a.example");
    bench.settle(&judged(Verdict::Fail, true));
    for label in bench.labels(&["*"]) {
        let lasts = label.exp.as_ref().map(|exp| atproto::instant(exp).duration_since(atproto::instant(&label.cts)).unwrap());
        assert_eq!(lasts, (!label.negates()).then_some(TERMS.expires_after));
    }
    assert_eq!(bench.store().upkeep(bench.now, &bench.key).unwrap(), Upkeep::default(), "nothing to do yet");
    let dead = bench.labels(&["*"]);
    bench.now += TERMS.expires_after / 2;
    assert_eq!(bench.store().upkeep(bench.now, &bench.key).unwrap().renewed, 4);
    assert_eq!(bench.store().upkeep(bench.now, &bench.key).unwrap().renewed, 0, "once is enough");
    bench.now += TERMS.expires_after / 2;
    assert_eq!(atproto::label::fold(&dead, bench.now).len(), 0, "the word of a dead labeler ends");
    assert_eq!(atproto::label::fold(&bench.labels(&["*"]), bench.now).len(), 4);
    for label in bench.labels(&["*"]) {
        label.verify(&issuer(), &bench.key.verifying_key()).unwrap();
    }
    // Nobody kept it up for long: what ran out is said again when it is found again.
    bench.now += TERMS.expires_after;
    bench.touch("m1", "a.example");
    bench.settle(&judged(Verdict::Pass, true));
    assert_eq!(atproto::label::fold(&bench.labels(&["did:plc:m1"]), bench.now).len(), 2);
}

#[test]
fn a_stream_gives_every_number_once_and_in_order_from_wherever_it_begins() {
    let mut bench = Bench::new();
    for n in 0..200 {
        bench.touch(&format!("m{n:03}"), "a.example");
        if n % 50 == 0 {
            // A reader at the end of the log must not keep others, or itself, from what comes after.
            bench.stream(0);
        }
    }
    for _ in 0..2 {
        bench.settle(&judged(Verdict::Pass, true));
    }
    let all: Vec<u64> = bench.stream(0).iter().map(|(seq, _)| *seq).collect();
    assert_eq!(all, (1..=400).collect::<Vec<_>>());
    for from in [1, 2, 127, 128, 129, 399, 400] {
        assert_eq!(bench.stream(from).iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (from..=400).collect::<Vec<_>>());
    }
    assert_eq!(bench.stream(401), []);
    bench.now += Duration::from_secs(1);
    bench.touch("m000", "a.example");
    bench.settle(&judged(Verdict::Fail, true));
    assert_eq!(bench.stream(401).len(), 2);
    assert_eq!(bench.stream(300).len(), 103);
    assert!(Arc::ptr_eq(&bench.store().frames(0).unwrap(), &bench.store().frames(0).unwrap()), "one copy for all");
}

#[test]
fn superseded_labels_are_forgotten_late_and_the_newest_never() {
    let mut bench = Bench::new();
    bench.touch("alice", "a.example");
    bench.settle(&judged(Verdict::Pass, false));
    bench.touch("alice", "a.example");
    bench.settle(&judged(Verdict::Fail, false));
    bench.now += TERMS.history - Duration::from_secs(1);
    assert_eq!(bench.store().upkeep(bench.now, &bench.key).unwrap().forgotten, 0);
    assert_eq!((bench.stream(0).len(), bench.store().floor().unwrap()), (2, 0));
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.store().upkeep(bench.now, &bench.key).unwrap().forgotten, 1);
    bench.reopen();
    let rest = bench.stream(0);
    assert_eq!((rest.len(), rest[0].0, rest[0].1.negates(), bench.store().floor().unwrap()), (1, 2, true, 1));
    assert_eq!(bench.labels(&["*"]).len(), 1);
}

#[test]
fn a_store_from_a_backup_uses_no_number_twice_and_says_everything_again() {
    let mut bench = Bench::new();
    bench.touch("alice", "a.example");
    for n in 0..20 {
        bench.touch(&format!("m{n}"), "b.example");
    }
    bench.settle(&judged(Verdict::Pass, false));
    let copy = bench.folder.path().join("copy");
    bench.store().backup(&copy).unwrap();
    assert!(matches!(bench.store().backup(&copy), Err(BackupError::Exists(_))));
    // What the copy does not know: alice was found wanting, and consumers heard of it.
    bench.now += Duration::from_secs(10);
    bench.touch("alice", "a.example");
    bench.settle(&judged(Verdict::Fail, false));
    let mut heard = bench.stream(0);
    let last = bench.store().last_seq().unwrap();

    let data = bench.folder.path().join("store");
    assert!(matches!(restore(&copy, &data), Err(BackupError::Store(..))), "a labeler has it open");
    bench.store = None;
    assert!(matches!(restore(&copy, &data), Err(BackupError::Occupied(_))), "it could be the better one");
    std::fs::rename(&data, bench.folder.path().join("lost")).unwrap();
    restore(&copy, &data).unwrap();
    bench.now += Duration::from_secs(10);
    bench.reopen();
    assert!(bench.store().last_seq().unwrap() > last, "a cursor from before is not of the future");
    assert_eq!(bench.due().len(), 21);
    assert_eq!(bench.settle(&judged(Verdict::Pass, false)).len(), 21, "all are said again");
    let new = bench.stream(last + 1);
    assert_eq!(new.len(), 21);
    heard.extend(new);
    let labels: Vec<Label> = heard.iter().map(|(_, label)| label.clone()).collect();
    assert_eq!(atproto::label::fold(&labels, bench.now).len(), 21, "who heard both ends with what is true now");
    let before = bench.store().last_seq().unwrap();
    bench.reopen();
    assert_eq!(bench.store().last_seq().unwrap(), before, "only the first opening counts");
}

#[test]
fn a_copy_says_of_itself_that_it_is_one_where_its_file_does_not() {
    let bench = Bench::new();
    bench.touch("alice", "a.example");
    bench.settle(&judged(Verdict::Pass, false));
    let copy = bench.folder.path().join("copy");
    bench.store().backup(&copy).unwrap();
    // As if the copy's file had come by the number of the original's.
    let env::Opened { env, tables: [meta], lock } = env::open(&copy, ["meta"]).unwrap();
    let mut txn = env.write_txn().unwrap();
    meta.put(&mut txn, FILE, &env::file_identity(&copy).unwrap()).unwrap();
    txn.commit().unwrap();
    env.prepare_for_closing().wait();
    drop(lock);
    let store = Store::open(&copy, &issuer(), &bench.key, TERMS, bench.now).unwrap();
    assert!(store.last_seq().unwrap() > COPY_GAP);
}

#[test]
fn a_copy_that_somebody_made_by_hand_is_found_out() {
    let mut bench = Bench::new();
    bench.touch("alice", "a.example");
    bench.settle(&judged(Verdict::Pass, false));
    bench.store = None;
    let data = bench.folder.path().join("store").join("data.mdb");
    let aside = data.with_extension("aside");
    std::fs::copy(&data, &aside).unwrap();
    std::fs::rename(&aside, &data).unwrap();
    bench.reopen();
    assert!(bench.store().last_seq().unwrap() > 1 << 32);
    assert_eq!(bench.due().len(), 1);
}

#[test]
fn clean_sender_is_for_who_is_verified() {
    let mut bench = Bench::new();
    let grant = |bench: &Bench, clean| {
        bench.store().set_clean_sender(&did("alice"), clean, bench.now, &bench.key).unwrap().map(|label| label.negates())
    };
    assert_eq!(grant(&bench, true), None);
    bench.touch("alice", "a.example");
    bench.settle(&judged(Verdict::Pass, false));
    assert_eq!((grant(&bench, true), grant(&bench, true), grant(&bench, false)), (Some(false), None, Some(true)));
    assert_eq!(grant(&bench, true), Some(false));
    bench.now += Duration::from_secs(5);
    bench.touch("alice", "a.example");
    assert_eq!(bench.settle(&judged(Verdict::Fail, false)), ["!verified-mail-operator", "!clean-sender"]);
}
