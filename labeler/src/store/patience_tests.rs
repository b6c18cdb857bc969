//! What takes labels away, what does not, and when: against the store, with a clock of the tests.

use std::collections::HashSet;
use std::time::Duration;

use super::*;
use crate::judge::{Check, Judgement, Kind, Verdict};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const WEEK: Duration = Duration::from_secs(7 * 86_400);
const PATIENCE: Patience = Patience { interval: DAY, failures: 3, failing_for: HOUR, silent_for: WEEK };

struct Bench {
    store: Store,
    key: SigningKey,
    now: SystemTime,
    _folder: tempfile::TempDir,
}

fn did() -> Did {
    "did:plc:alice".parse().unwrap()
}

fn dns(verdict: Verdict) -> Found {
    found(match verdict {
        Verdict::Pass => Check::pass(Kind::Dmarc, "_dmarc.a.example"),
        Verdict::Fail => Check::fail(Kind::Dmarc, "_dmarc.a.example", "no record"),
        Verdict::Unknown => Check::unknown(Kind::Dmarc, "_dmarc.a.example", "SERVFAIL"),
    })
}

fn found(check: Check) -> Found {
    Found::Judged { judgement: Judgement::only(check), relay: false, rev: None }
}

impl Bench {
    /// With one member who stands.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::from_octets(&[0x11; 32]).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let issuer = "did:web:labeler.example.test".parse().unwrap();
        let store = Store::open(folder.path(), &issuer, &key, Terms::default(), now).unwrap();
        let mut bench = Self { store, key, now, _folder: folder };
        bench.store.touch(&[Touch::Record(did(), "a.example".into())], None, now).unwrap();
        assert_eq!(bench.look(&dns(Verdict::Pass)), ["verified-mail-operator"]);
        bench
    }

    fn next(&self) -> SystemTime {
        let due = Lane::ALL.into_iter().filter_map(|lane| self.store.next_due(lane, &HashSet::new()).unwrap());
        due.min().unwrap()
    }

    /// Goes on to when the next look is due, and finds this.
    fn look(&mut self, found: &Found) -> Vec<String> {
        self.now = self.now.max(self.next());
        let mut issued = Vec::new();
        for lane in Lane::ALL {
            for task in self.store.due(lane, self.now, &HashSet::new(), 10, false).unwrap() {
                issued.extend(self.store.settle(&task, found, PATIENCE, self.now, &self.key).unwrap());
            }
        }
        issued.iter().map(|label| format!("{}{}", if label.negates() { "!" } else { "" }, label.val)).collect()
    }

    /// What a look takes. (Labels that stand are said again when half of their time is over.)
    fn taken(&mut self, found: &Found) -> Vec<String> {
        let issued = self.look(found);
        issued.into_iter().filter(|label| label.starts_with('!')).collect()
    }

    fn row(&self) -> Row {
        self.store.rows(&did()).unwrap().remove(0).1
    }
}

#[test]
fn a_record_that_is_missing_takes_labels_only_after_several_looks_and_an_hour() {
    let mut bench = Bench::new();
    assert_eq!(bench.look(&dns(Verdict::Fail)), [""; 0]);
    let first = bench.now;
    assert_eq!((bench.row().state, bench.row().stands), (State::Fail, true));
    assert!(bench.row().reasons[0].contains("no record"), "the reason is kept from the first look on");
    let mut looks = 1;
    let issued = loop {
        looks += 1;
        let issued = bench.look(&dns(Verdict::Fail));
        if !issued.is_empty() {
            break issued;
        }
        assert!(bench.now < first + HOUR, "no later than the settings say");
    };
    assert_eq!(issued, ["!verified-mail-operator"]);
    assert_eq!(bench.now, first + HOUR);
    assert!(looks >= 3, "{looks}");
    assert_eq!(bench.look(&dns(Verdict::Pass)), ["verified-mail-operator"], "once is enough to come back");
}

#[test]
fn a_record_that_is_missing_for_a_while_takes_nothing() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        for _ in 0..6 {
            assert_eq!(bench.look(&dns(Verdict::Fail)), [""; 0]);
        }
        assert_eq!(bench.look(&dns(Verdict::Pass)), [""; 0]);
    }
}

#[test]
fn servers_that_do_not_answer_take_nothing_for_a_week_and_then_all() {
    // Name servers, the PDS, the directory: whatever could not be asked.
    for silent in [
        dns(Verdict::Unknown),
        found(Check::unknown(Kind::Pds, "https://pds.example", "no answer within 10 s")),
        found(Check::unknown(Kind::Identity, "did:plc:alice", "the document is answered with 500")),
    ] {
        let mut bench = Bench::new();
        assert_eq!(bench.taken(&silent), [""; 0]);
        let first = bench.now;
        for nth in 0..100 {
            assert_eq!(bench.taken(&silent), [""; 0], "{nth}");
        }
        assert!(bench.now > first + DAY * 3, "and they are asked ever more rarely");
        assert_eq!((bench.row().state, bench.row().stands), (State::Unknown, true));
        let issued = loop {
            let issued = bench.taken(&silent);
            if !issued.is_empty() {
                break issued;
            }
            assert!(bench.now < first + WEEK, "no later than the settings say, and the pause between two looks");
        };
        assert_eq!(issued, ["!verified-mail-operator"]);
        assert!(bench.now >= first + WEEK && bench.now <= first + WEEK + HOUR);
        for _ in 0..2 {
            let since = atproto::datetime(first);
            let reasons = bench.row().reasons;
            assert!(reasons[1].contains(&format!("no look has confirmed it since {}", since.as_str())), "{reasons:?}");
            assert_eq!(bench.taken(&silent), [""; 0], "said once");
        }
        assert_eq!(bench.look(&dns(Verdict::Pass)), ["verified-mail-operator"], "once is enough to come back");
        assert_eq!((bench.row().unconfirmed_since_ms, bench.row().reasons.len()), (0, 0));
    }
}

#[test]
fn one_answer_in_a_week_is_enough_and_a_failure_is_no_confirmation() {
    let mut bench = Bench::new();
    for _ in 0..4 {
        let began = bench.now;
        while bench.now < began + DAY * 6 {
            assert_eq!(bench.taken(&dns(Verdict::Unknown)), [""; 0]);
        }
        assert_eq!(bench.taken(&dns(Verdict::Pass)), [""; 0]);
    }
    // Two failures and silence before, between and after them.
    let mut since = None;
    for nth in 0.. {
        assert!(nth < 200, "it ends");
        let verdict = if nth == 20 || nth == 90 { Verdict::Fail } else { Verdict::Unknown };
        let issued = bench.taken(&dns(verdict));
        let since = *since.get_or_insert(bench.now);
        if !issued.is_empty() {
            assert!(bench.now >= since + WEEK && bench.now <= since + WEEK + HOUR);
            break;
        }
    }
}

#[test]
fn days_when_the_labeler_did_not_run_are_nobodys_silence() {
    let mut bench = Bench::new();
    let down_for = |bench: &mut Bench, days: u32| bench.now += DAY * days;
    for _ in 0..6 {
        bench.taken(&dns(Verdict::Unknown));
    }
    down_for(&mut bench, 9);
    let back = bench.now;
    for nth in 0..40 {
        assert_eq!(bench.taken(&dns(Verdict::Unknown)), [""; 0], "its network may be what does not work: {nth}");
    }
    while bench.taken(&dns(Verdict::Unknown)).is_empty() {
        assert!(bench.now < back + WEEK, "from then on it counts");
    }
    assert!(bench.now >= back + WEEK);

    // Looks that are rare because many wait for the same host count all the same.
    let mut bench = Bench::new();
    bench.taken(&dns(Verdict::Unknown));
    let first = bench.now;
    let mut looks = 1;
    loop {
        down_for(&mut bench, 2);
        looks += 1;
        if !bench.taken(&dns(Verdict::Unknown)).is_empty() {
            break;
        }
    }
    assert_eq!((looks, bench.now), (5, first + DAY * 8));
}

#[test]
fn rows_of_earlier_versions_are_read_and_their_silence_begins_with_the_next_look() {
    let mut bench = Bench::new();
    bench.look(&dns(Verdict::Unknown));
    let mut json = serde_json::to_value(bench.row()).unwrap();
    assert!(json.as_object_mut().unwrap().remove("unconfirmed_since_ms").is_some());
    let old: Row = serde_json::from_value(json).unwrap();
    assert_eq!((old.unconfirmed_since_ms, old.stands, old.failures), (0, true, 1));
    let mut txn = bench.store.env.write_txn().unwrap();
    bench.store.attested.put(&mut txn, &rows::row_key(&did(), "a.example"), &serde_json::to_vec(&old).unwrap()).unwrap();
    txn.commit().unwrap();
    bench.now += DAY;
    bench.look(&dns(Verdict::Unknown));
    assert_eq!(bench.row().unconfirmed_since_ms, millis(bench.now));
}

#[test]
fn one_failure_long_ago_and_silence_since_take_nothing() {
    let mut bench = Bench::new();
    bench.look(&dns(Verdict::Fail));
    let began = bench.now;
    for _ in 0..50 {
        assert_eq!(bench.look(&dns(Verdict::Unknown)), [""; 0]);
    }
    assert!(
        bench.now > began + HOUR * 24,
        "servers that do not answer are asked ever more rarely: {:?}",
        bench.now.duration_since(began)
    );
    assert_eq!(bench.look(&dns(Verdict::Fail)), [""; 0], "two are not three");
    let second = bench.now;
    assert_eq!(bench.look(&dns(Verdict::Fail)), ["!verified-mail-operator"], "three are");
    assert_eq!(bench.now, second + Duration::from_secs(1), "and nothing but the third was missing");
}

#[test]
fn what_the_account_says_itself_counts_at_once() {
    for check in [
        Check::fail(Kind::Pds, "https://pds.example", "RepoDeactivated"),
        Check::fail(Kind::Identity, "did:plc:alice", "there is no document"),
        Check::fail(Kind::Record, "at://", "not an attestation"),
        Check { seen: vec!["did=did:plc:other".into()], ..Check::fail(Kind::Control, "_atproto.a.example", "names another") },
    ] {
        let mut bench = Bench::new();
        assert_eq!(bench.look(&found(check.clone())), ["!verified-mail-operator"], "{check:?}");
    }
    let mut bench = Bench::new();
    assert_eq!(bench.look(&found(Check::fail(Kind::Control, "_atproto.a.example", "nothing there"))), [""; 0]);
    assert_eq!(bench.look(&Found::Absent), ["!verified-mail-operator"]);
    assert_eq!(bench.store.checked(&did(), "a.example").unwrap(), None, "nothing is kept of a record that is gone");
}

#[test]
fn a_new_server_that_does_not_serve_the_account_yet_does_not_decide() {
    let shown = |pds: &str| {
        let checks = vec![Check::pass(Kind::Pds, pds), Check::pass(Kind::Dmarc, "_dmarc.a.example")];
        Found::Judged { judgement: Judgement::of(checks), relay: false, rev: None }
    };
    let not_served = |pds: &str| found(Check::fail(Kind::Pds, pds, "RepoDeactivated"));
    let (old, new) = ("https://old.example", "https://new.example");
    let mut bench = Bench::new();
    bench.look(&shown(old));
    assert_eq!(bench.look(&not_served(new)), [""; 0], "the directory names the new one, and it is activated there in a moment");
    assert_eq!(bench.look(&shown(new)), [""; 0]);
    assert_eq!(bench.look(&not_served(new)), ["!verified-mail-operator"], "it was served there before");

    let mut bench = Bench::new();
    bench.look(&shown(old));
    let began = bench.now;
    while bench.look(&not_served(new)).is_empty() {
        assert!(bench.now < began + PATIENCE.interval + HOUR * 2, "it never is");
    }
    assert!(bench.now >= began + HOUR);
}

#[test]
fn checks_are_kept_for_the_member() {
    let mut bench = Bench::new();
    bench.look(&dns(Verdict::Fail));
    let checked = bench.store.checked(&did(), "a.example").unwrap().unwrap();
    assert_eq!((checked.verdict, checked.at_ms), (Verdict::Fail, millis(bench.now)));
    assert_eq!(checked.checks[0].why.as_deref(), Some("no record"));
    assert_eq!(bench.store.checked(&did(), &"x".repeat(600)).unwrap(), None);
}

#[test]
fn lanes_keep_who_stands_who_waits_and_who_is_new_apart() {
    let bench = Bench::new();
    let others: Vec<Touch> = ["b.example", "c.example"].iter().map(|name| Touch::Record(did(), (*name).into())).collect();
    bench.store.touch(&others, None, bench.now).unwrap();
    let in_lane = |bench: &Bench, lane, newest| {
        let tasks = bench.store.due(lane, bench.now + HOUR * 48, &HashSet::new(), 10, newest).unwrap();
        tasks.into_iter().map(|task| task.rkey).collect::<Vec<_>>()
    };
    assert_eq!(in_lane(&bench, Lane::Standing, false), ["a.example"]);
    assert_eq!(in_lane(&bench, Lane::Fresh, false), ["b.example", "c.example"]);
    assert_eq!(in_lane(&bench, Lane::Fresh, true), ["c.example", "b.example"]);
    let task = bench.store.due(Lane::Fresh, bench.now, &HashSet::new(), 1, false).unwrap().remove(0);
    let task = Task { host: Some("pds.example".into()), ..task };
    bench.store.postpone(&[(task, bench.now + HOUR)]).unwrap();
    assert_eq!(in_lane(&bench, Lane::Waiting, false), ["b.example"], "its host is known now");
    assert_eq!(bench.store.next_due(Lane::Waiting, &HashSet::new()).unwrap(), Some(bench.now + HOUR));
}

#[test]
fn a_strangers_repository_is_given_up_after_days_without_an_answer_and_a_members_attestation_is_not() {
    let mut bench = Bench::new();
    let stranger: Did = "did:plc:stranger".parse().unwrap();
    bench.store.touch(&[Touch::Repo(stranger.clone()), Touch::Repo(did())], None, bench.now).unwrap();
    assert!(bench.store.knows(&stranger).unwrap() && !bench.store.attests(&stranger).unwrap());
    assert!(bench.store.attests(&did()).unwrap());
    let waiting = |bench: &Bench| bench.store.due(Lane::Fresh, bench.now, &HashSet::new(), 10, false).unwrap();
    let repos: Vec<String> = waiting(&bench).into_iter().filter(Task::is_repo).map(|task| task.did.as_str().to_owned()).collect();
    assert_eq!(repos, [stranger.as_str(), did().as_str()]);
    let began = bench.now;
    while bench.store.knows(&stranger).unwrap() {
        bench.look(&found(Check::unknown(Kind::Pds, "https://pds.example", "no answer")));
        assert!(bench.now < began + HOUR * 24 * 4, "given up in the end");
    }
    assert!(bench.now > began + HOUR * 24 * 2, "{:?}", bench.now.duration_since(began));
    assert!(bench.store.attests(&did()).unwrap());
    assert_eq!(bench.store.rows(&did()).unwrap().len(), 1);
}
