//! The rule as a table: a line is a month of mail and what follows from it, on both sides of each bound.

use super::*;

const TODAY: Day = Day::MAX;
const A: &str = "did:web:a.example";
const B: &str = "did:web:b.example";

fn told(by: &'static str, ago: u32, counts: Counts) -> Told<'static> {
    Told { by, day: TODAY.back(ago), counts }
}

fn counts(delivered: u64, failed: u64, complaints: u64) -> Counts {
    Counts { delivered, failed, complaints: Some(complaints), ..Counts::default() }
}

/// These numbers in all, over so many days, yesterday the last of them.
fn month(days: u32, delivered: u64, failed: u64, complaints: u64) -> Vec<Told<'static>> {
    let mut all: Vec<_> = (1..days).map(|ago| told(A, ago + 1, counts(1, 0, 0))).collect();
    all.push(told(A, 1, counts(delivered - u64::from(days - 1), failed, complaints)));
    all
}

fn ruled(granted: bool, told: &[Told<'_>]) -> Ruling {
    rule(&CleanRule::default(), granted, TODAY, told)
}

#[test]
fn clean_sender_is_granted_and_withdrawn_at_its_bounds() {
    use Ruling::*;
    // days, delivered, failed, complaints → who does not have it, who has it
    for (days, delivered, failed, complaints, without, with) in [
        (7, 500, 0, 0, Granted, Kept),
        (7, 499, 0, 0, TooLittle, Kept),
        (7, 499, 1, 0, Granted, Kept),
        (6, 500, 0, 0, TooFewDays, Kept),
        (7, 250, 0, 0, TooLittle, Kept),
        (7, 249, 0, 0, TooLittle, TooLittle),
        (1, 250, 0, 0, TooLittle, Kept),
        // Complaints: granted below 0.1 %, withdrawn from 0.3 %, and one alone withdraws nothing.
        (7, 1001, 0, 1, Granted, Kept),
        (7, 1000, 0, 1, Complaints, Kept),
        (7, 500, 0, 1, Complaints, Kept),
        (7, 300, 0, 1, TooLittle, Kept),
        (7, 1000, 0, 2, Complaints, Kept),
        (7, 667, 0, 2, Complaints, Kept),
        (7, 666, 0, 2, Complaints, Complaints),
        (7, 1000, 0, 3, Complaints, Complaints),
        (7, 1001, 0, 3, Complaints, Kept),
        // Failures: granted below 2 %, withdrawn from 5 %.
        (7, 981, 19, 0, Granted, Kept),
        (7, 980, 20, 0, Failures, Kept),
        (7, 951, 49, 0, Failures, Kept),
        (7, 950, 50, 0, Failures, Failures),
    ] {
        let told = month(days, delivered, failed, complaints);
        let case = format!("{days} days, {delivered} delivered, {failed} failed, {complaints} complaints");
        assert_eq!(ruled(false, &told), without, "without: {case}");
        assert_eq!(ruled(true, &told), with, "with: {case}");
    }
}

#[test]
fn it_ends_when_reports_stop_and_old_days_do_not_count() {
    let at = |ago: u32| month(7, 1000, 0, 0).iter().map(|it| Told { day: it.day.back(ago - 1), ..*it }).collect::<Vec<_>>();
    for (ago, expected) in [(1, Ruling::Kept), (13, Ruling::Kept), (14, Ruling::Silent), (40, Ruling::Silent)] {
        assert_eq!(ruled(true, &at(ago)), expected, "{ago} days ago");
    }
    assert_eq!(ruled(true, &[]), Ruling::Silent);
    // Thirty days count, today among them; and tomorrow of whoever has it already.
    let mut told = month(7, 1000, 0, 0);
    told.push(self::told(A, 29, counts(0, 0, 4)));
    assert_eq!(ruled(true, &told), Ruling::Complaints);
    told.pop();
    told.push(self::told(A, 30, counts(0, 0, 4)));
    assert_eq!(ruled(true, &told), Ruling::Kept);
}

#[test]
fn complaints_that_nobody_would_learn_of_are_not_none() {
    let deaf = |told: Vec<Told<'static>>| {
        let deafen = |it: Told<'static>| Told { counts: Counts { complaints: None, ..it.counts }, ..it };
        told.into_iter().map(deafen).collect::<Vec<_>>()
    };
    let told = deaf(month(7, 1000, 0, 0));
    assert_eq!((ruled(false, &told), ruled(true, &told)), (Ruling::ComplaintsUnknown, Ruling::ComplaintsUnknown));
    let lenient = CleanRule { complaints_required: false, ..CleanRule::default() };
    assert_eq!(rule(&lenient, false, TODAY, &told), Ruling::Granted);
    // Half of the mail that is needed, through one that does learn of them, is enough; and theirs are held against their mail.
    let mut both = told.clone();
    both.push(Told { by: B, ..self::told(B, 1, counts(249, 0, 0)) });
    assert_eq!(ruled(false, &both), Ruling::ComplaintsUnknown);
    both.push(self::told(B, 2, counts(1, 0, 0)));
    assert_eq!(ruled(false, &both), Ruling::Granted);
    both.push(self::told(B, 3, counts(0, 0, 2)));
    assert_eq!(ruled(true, &both), Ruling::Complaints, "2 of 250, not 2 of 1250");
}

#[test]
fn an_address_that_catches_spam_withdraws_it() {
    let mut told = month(7, 1000, 0, 0);
    told.push(self::told(B, 20, Counts { spam_traps: Some(1), ..Counts::default() }));
    assert_eq!((ruled(false, &told), ruled(true, &told)), (Ruling::SpamTraps, Ruling::SpamTraps));
}

#[test]
fn two_mtas_are_added_up() {
    let halves = |by: &'static str| (1..=7).map(move |ago| told(by, ago, counts(40, 0, 0)));
    let one: Vec<_> = halves(A).collect();
    let two: Vec<_> = halves(A).chain(halves(B)).collect();
    assert_eq!((ruled(false, &one), ruled(false, &two)), (Ruling::TooLittle, Ruling::Granted));
}

#[test]
fn doubts_begin_at_their_bounds_and_end_with_their_days() {
    use DoubtKind::*;
    use Severity::*;
    for (delivered, failed, complaints, expected) in [
        (1000, 0, 0, vec![]),
        // One complaint alone is none.
        (1000, 0, 1, vec![]),
        (2001, 0, 2, vec![]),
        (2000, 0, 2, vec![(Complaints, Watch)]),
        (100, 0, 2, vec![(Complaints, Watch)]),
        (1001, 0, 3, vec![(Complaints, Watch)]),
        (1000, 0, 3, vec![(Complaints, Pause)]),
        // Failures of a few say nothing.
        (0, 199, 0, vec![]),
        (189, 10, 0, vec![]),
        (190, 10, 0, vec![(Failures, Watch)]),
        (191, 9, 0, vec![]),
        (181, 19, 0, vec![(Failures, Watch)]),
        (180, 20, 0, vec![(Failures, Pause)]),
        (180, 20, 3, vec![(Complaints, Pause), (Failures, Pause)]),
    ] {
        let found = |ago| {
            let found = doubts(&DoubtRule::default(), TODAY, &[told(A, ago, counts(delivered, failed, complaints))]);
            found.iter().map(|doubt| (doubt.kind, doubt.severity)).collect::<Vec<_>>()
        };
        let case = format!("{delivered} delivered, {failed} failed, {complaints} complaints");
        assert_eq!((found(0), found(6)), (expected.clone(), expected), "{case}");
        assert_eq!(found(7), [], "{case}, a week ago");
    }
}

#[test]
fn a_doubt_says_what_it_rests_on() {
    let told = [
        told(A, 3, counts(500, 1, 1)),
        told(A, 5, counts(0, 0, 0)),
        told(B, 2, counts(500, 0, 3)),
        told(B, 9, counts(9, 9, 9)),
        told(B, 4, Counts { spam_traps: Some(2), ..Counts::default() }),
    ];
    let found = doubts(&DoubtRule::default(), TODAY, &told);
    let since = TODAY.back(3);
    assert_eq!(
        found,
        [
            Doubt { kind: DoubtKind::Complaints, severity: Severity::Pause, since, of: 1000, count: 4 },
            Doubt { kind: DoubtKind::SpamTraps, severity: Severity::Watch, since: TODAY.back(4), of: 1001, count: 2 },
        ]
    );
}

#[test]
fn a_suspension_elsewhere_is_only_watched_and_ends_with_the_mtas_next_word() {
    let suspended = Counts { suspended: true, ..counts(10, 0, 0) };
    let one = [told(A, 3, suspended), told(B, 1, counts(10, 0, 0))];
    let expected = Doubt { kind: DoubtKind::Suspended, severity: Severity::Watch, since: TODAY.back(3), of: 2, count: 1 };
    assert_eq!(doubts(&DoubtRule::default(), TODAY, &one), [expected]);
    let ended = [told(A, 2, counts(10, 0, 0)), told(A, 3, suspended)];
    assert_eq!(doubts(&DoubtRule::default(), TODAY, &ended), []);
}

#[test]
fn sums_of_the_largest_counts_are_not_a_panic() {
    let most = u64::MAX;
    let all = Counts {
        delivered: most,
        failed: most,
        expired: most,
        deferred: most,
        complaints: Some(most),
        spam_traps: Some(most),
        suspended: true,
    };
    let told = vec![told(A, 0, all); 40];
    assert_eq!(ruled(true, &told), Ruling::SpamTraps);
    assert_eq!(doubts(&DoubtRule::default(), TODAY, &told).len(), 4);
}
