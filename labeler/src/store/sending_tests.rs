//! Reports against the store: each counts once, labels follow in the same transaction, and nothing stays that need not.

use std::time::Duration;

use atproto::sending::{Counts, Day, DoubtKind, Report, Wrong};

use super::*;
use crate::judge::sending::Rule;
use crate::judge::{Check, Judgement, Kind};

const MTA: &str = "did:web:mta.example";
const DAY: Duration = Duration::from_secs(86_400);
const PATIENCE: Patience =
    Patience { interval: DAY, failures: 1, failing_for: Duration::ZERO, silent_for: Duration::from_secs(7 * 86_400) };

struct Bench {
    folder: tempfile::TempDir,
    store: Option<Store>,
    key: SigningKey,
    now: SystemTime,
}

fn did(text: &str) -> Did {
    text.parse().unwrap()
}

fn open(path: &Path, key: &SigningKey, now: SystemTime) -> Store {
    Store::open(path, &did("did:web:labeler.example.test"), key, Terms::default(), now).unwrap()
}

impl Bench {
    fn new() -> Self {
        let (folder, key) = (tempfile::tempdir().unwrap(), SigningKey::from_octets(&[0x11; 32]).unwrap());
        let now = UNIX_EPOCH + Duration::from_secs(20_783 * 86_400 + 3600);
        let store = Some(open(&folder.path().join("store"), &key, now));
        let bench = Self { folder, store, key, now };
        bench.look("did:plc:alice", Check::pass(Kind::Dmarc, "x"));
        bench
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Looks at the account's attestation, and finds this.
    fn look(&self, account: &str, check: Check) {
        self.store().touch(&[Touch::Record(did(account), "a.example".into())], None, self.now).unwrap();
        let found = Found::Judged { judgement: Judgement::only(check), relay: true, rev: None };
        for lane in Lane::ALL {
            for task in self.store().due(lane, self.now, &std::collections::HashSet::new(), 10, false).unwrap() {
                self.store().settle(&task, &found, PATIENCE, self.now, &self.key).unwrap();
            }
        }
    }

    fn report(&self, ago: u32, revision: u64, counts: Counts) -> (u64, u64, Vec<Wrong>, Vec<bool>) {
        self.report_of("did:plc:alice", ago, revision, counts)
    }

    /// Taken, unchanged, reasons of refusals, and of each label issued whether it grants.
    fn report_of(&self, account: &str, ago: u32, revision: u64, counts: Counts) -> (u64, u64, Vec<Wrong>, Vec<bool>) {
        let report = Report { did: did(account), day: Day::of(self.now).back(ago), revision, counts };
        let done = self.store().report(&did(MTA), &[report], &Rule::default(), self.now, &self.key).unwrap();
        let refused = done.0.refused.iter().map(|refused| refused.reason).collect();
        (done.0.taken, done.0.unchanged, refused, done.1.iter().map(|label| !label.negates()).collect())
    }

    /// A week that is good enough.
    fn good_week(&self) -> Vec<bool> {
        (1..=7).flat_map(|ago| self.report(ago, 1, counts(100, 0)).3).collect()
    }

    fn clean(&self) -> bool {
        let txn = self.store().env.read_txn().unwrap();
        let newest = self.store().newest(&txn, "did:plc:alice", "clean-sender").unwrap();
        newest.is_some_and(|label| label.in_force(self.now))
    }

    fn doubts(&self) -> Vec<(DoubtKind, u64)> {
        let doubts = self.store().doubts(&[did("did:plc:alice")], &Rule::default(), self.now).unwrap();
        doubts[0].iter().map(|doubt| (doubt.kind, doubt.count)).collect()
    }

    /// A round; how many accounts were forgotten.
    fn round(&self) -> usize {
        let done = self.store().rule_some(b"", &Rule::default(), self.now, &self.key).unwrap();
        assert_eq!(done.next, None);
        done.forgotten
    }

    fn rows(&self) -> (u64, u64) {
        let txn = self.store().env.read_txn().unwrap();
        (self.store().sending.len(&txn).unwrap(), self.store().standing.len(&txn).unwrap())
    }
}

fn counts(delivered: u64, complaints: u64) -> Counts {
    Counts { delivered, complaints: Some(complaints), ..Counts::default() }
}

#[test]
fn a_report_counts_once_and_the_higher_revision_counts() {
    let bench = Bench::new();
    assert_eq!(bench.report(1, 5, counts(1000, 4)), (1, 0, vec![], vec![]));
    for revision in [5, 4, 1] {
        assert_eq!(bench.report(1, revision, counts(1000, 9)), (0, 1, vec![], vec![]), "{revision}");
    }
    assert_eq!(bench.doubts(), [(DoubtKind::Complaints, 4)]);
    assert_eq!(bench.report(1, 6, counts(1000, 3)), (1, 0, vec![], vec![]), "a correction takes the place of what was said");
    assert_eq!(bench.doubts(), [(DoubtKind::Complaints, 3)]);
    assert_eq!(bench.rows(), (1, 1));
}

#[test]
fn of_whom_nothing_is_attested_and_of_other_days_nothing_is_kept() {
    let bench = Bench::new();
    assert_eq!(bench.report_of("did:plc:stranger", 1, 1, counts(1, 0)).2, [Wrong::UnknownAccount]);
    assert_eq!(bench.report_of(&format!("did:web:{}", "a.".repeat(400)), 1, 1, counts(1, 0)).2, [Wrong::UnknownAccount]);
    assert_eq!(bench.report(31, 1, counts(1, 0)).2, [Wrong::TooOld]);
    assert_eq!(bench.report(1, 0, counts(1, 0)).2, [Wrong::OutOfRange]);
    assert_eq!(bench.rows(), (0, 0));
}

#[test]
fn good_reports_grant_clean_sender_and_bad_ones_withdraw_it_at_once() {
    let bench = Bench::new();
    assert_eq!(bench.good_week(), [true]);
    assert!(bench.clean());
    assert_eq!(bench.report(0, 1, counts(100, 1)).3, [true; 0], "one complaint alone takes nothing");
    assert_eq!(bench.report(0, 2, counts(100, 3)).3, [false]);
    assert!(!bench.clean());
    assert_eq!(bench.report(0, 3, counts(100, 1)).3, [true; 0], "and what is above the lower bound does not give it back");
    assert_eq!(bench.report(0, 4, counts(100, 0)).3, [true]);
}

#[test]
fn who_is_not_verified_earns_nothing_until_it_is() {
    let bench = Bench::new();
    bench.look("did:plc:alice", Check::fail(Kind::Record, "x", "gone"));
    assert_eq!(bench.good_week(), [true; 0]);
    bench.look("did:plc:alice", Check::pass(Kind::Dmarc, "x"));
    assert!(!bench.clean());
    bench.round();
    assert!(bench.clean());
    bench.look("did:plc:alice", Check::fail(Kind::Record, "x", "gone"));
    assert!(!bench.clean(), "it falls with what it stands on");
}

#[test]
fn when_reports_stop_it_ends_and_what_is_old_is_dropped() {
    let mut bench = Bench::new();
    bench.good_week();
    for (days, clean, rows) in [(0, true, 7), (12, true, 7), (1, false, 7), (14, false, 3), (4, false, 0)] {
        bench.now += DAY * days;
        bench.look("did:plc:alice", Check::pass(Kind::Dmarc, "x"));
        bench.round();
        assert_eq!((bench.clean(), bench.rows().0), (clean, rows), "after {days} more days");
    }
    assert_eq!(bench.rows(), (0, 0));
}

#[test]
fn an_account_that_is_gone_is_forgotten_after_a_week_and_not_by_coming_back_at_once() {
    let mut bench = Bench::new();
    bench.report(0, 1, counts(100, 3));
    bench.look("did:plc:alice", Check::fail(Kind::Identity, "x", "deleted"));
    assert_eq!(bench.round(), 0);
    bench.now += DAY * 6;
    assert_eq!((bench.round(), bench.doubts().len()), (0, 1), "six days later the doubt still stands");
    bench.now += DAY;
    assert_eq!((bench.round(), bench.rows()), (1, (0, 0)));
    // One that comes back in time goes on as before.
    bench.look("did:plc:alice", Check::pass(Kind::Dmarc, "x"));
    bench.report(0, 9, counts(100, 3));
    bench.look("did:plc:alice", Check::fail(Kind::Identity, "x", "deleted"));
    bench.round();
    bench.look("did:plc:alice", Check::pass(Kind::Dmarc, "x"));
    bench.round();
    bench.now += DAY * 7;
    assert_eq!((bench.round(), bench.rows()), (0, (1, 1)));
}

#[test]
fn a_copy_holds_what_was_reported_and_says_its_rulings_again() {
    let mut bench = Bench::new();
    bench.good_week();
    let copy = bench.folder.path().join("copy");
    bench.store().backup(&copy).unwrap();
    bench.store = None;
    let restored = bench.folder.path().join("restored");
    restore(&copy, &restored).unwrap();
    bench.now += Duration::from_secs(3600);
    bench.store = Some(open(&restored, &bench.key, bench.now));
    assert_eq!(bench.rows(), (7, 1));
    let said = |bench: &Bench| bench.store().rule_some(b"", &Rule::default(), bench.now, &bench.key).unwrap().issued.len();
    bench.look("did:plc:alice", Check::pass(Kind::Dmarc, "x"));
    assert_eq!((said(&bench), said(&bench)), (1, 0), "once, later than whatever was said meanwhile");
    assert!(bench.clean());
}

#[test]
fn a_round_goes_through_all_in_parts() {
    let bench = Bench::new();
    for nth in 0..250 {
        let account = format!("did:plc:m{nth:03}");
        bench.store().touch(&[Touch::Record(did(&account), "a.example".into())], None, bench.now).unwrap();
        assert_eq!(bench.report_of(&account, 1, 1, counts(1, 0)).0, 1);
    }
    let (mut after, mut parts) = (Vec::new(), 0);
    loop {
        parts += 1;
        match bench.store().rule_some(&after, &Rule::default(), bench.now, &bench.key).unwrap().next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(parts, 3);
}
