//! Who is told what, and when: RFC 3461 §5.2 line by line.

use bytes::Bytes;
use scheduler::{QueueId, Scope};
use smtp::envelope::Ret;
use smtp::reply::Reply;

use super::super::trouble::RecipientOutcome;
use super::*;
use crate::queue::{DeliverBy, Parameters};

fn at(secs: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_400_000 + secs)
}

const NONE: Option<Notify> = None;
const NEVER: Option<Notify> = Some(Notify::NEVER);
const SUCCESS: Option<Notify> = Some(Notify { success: true, ..Notify::NEVER });
const FAILURE: Option<Notify> = Some(Notify { failure: true, ..Notify::NEVER });
const DELAY: Option<Notify> = Some(Notify { delay: true, ..Notify::NEVER });

/// A message that came at 0, is late at 100 and fails at 1000, to one recipient for each of these.
fn stored(notify: &[Option<Notify>], reverse_path: &str, parameters: Parameters) -> StoredDelivery {
    let recipient = |(nth, notify): (usize, &Option<Notify>)| Recipient {
        index: nth as u16,
        mailbox: format!("r{nth}@dest.example").parse().unwrap(),
        notify: *notify,
        orcpt: None,
        delay_told: false,
        fate: None,
    };
    StoredDelivery {
        message: Arc::new(StoredMessage {
            id: QueueId(7),
            member: 1,
            credential: 1,
            reverse_path: reverse_path.parse().unwrap(),
            parameters,
            lane: Lane::Otp,
            received_at: at(0),
            delay_notice_at: Some(at(100)),
            deadline: at(1000),
            octets: Bytes::from_static(b"From: a@member.example\r\nMessage-ID: <7@member.example>\r\n\r\nbody\r\n"),
        }),
        domain: "dest.example".into(),
        attempts: 3,
        last_reply: String::new(),
        recipients: notify.iter().enumerate().map(recipient).collect(),
    }
}

fn attempt(stored: &StoredDelivery, dsn: bool, verdict: Verdict) -> Attempt {
    let reply = match verdict {
        Verdict::Delivered => Reply::new(250, (2, 0, 0), "taken"),
        Verdict::Deferred => Reply::new(451, (4, 3, 0), "later"),
        Verdict::Failed => Reply::new(550, (5, 1, 1), "nobody"),
    };
    let outcome = |recipient: &Recipient| RecipientOutcome {
        index: recipient.index,
        verdict,
        reply: reply.clone(),
        from_peer: true,
        stage: smtp::client::Stage::Body,
        scope: Scope::Recipient,
    };
    let outcomes = stored.recipients.iter().map(outcome).collect();
    Attempt {
        outcomes,
        scope: Scope::Recipient,
        verdict,
        host: Some("mx.dest.example".into()),
        tls: None,
        dsn,
        tls_results: Vec::new(),
        connections: 1,
        unconnected: false,
        told: None,
        dialogue: None,
    }
}

fn settled(stored: &StoredDelivery, attempt: Option<&Attempt>, next: Next, now: SystemTime) -> (Settlement, Vec<Report>) {
    let cause = if attempt.is_some() { Cause::Attempted } else { Cause::Expired };
    settlement(&Closing { stored, cause: &cause, next, attempt, source: "ip-a", now })
}

/// Which recipients are told of, with the action.
fn told(reports: &[Report]) -> Vec<(&str, Action)> {
    reports.iter().map(|report| (report.recipient.split('@').next().unwrap(), report.action)).collect()
}

const ALL: [Option<Notify>; 5] = [NONE, NEVER, SUCCESS, FAILURE, DELAY];

#[test]
fn a_failure_is_told_unless_notify_leaves_it_out() {
    let stored = stored(&ALL, "a@member.example", Parameters::default());
    let (settlement, reports) = settled(&stored, Some(&attempt(&stored, true, Verdict::Failed)), Next::Done, at(1));
    assert_eq!(told(&reports), [("r0", Action::Failed), ("r3", Action::Failed)]);
    assert_eq!((settlement.fates.len(), reports[0].status.as_str(), reports[0].given_up), (5, "5.1.1", None));
    let (_, reports) = settled(&stored, None, Next::Expired, at(1000));
    assert_eq!(told(&reports), [("r0", Action::Failed), ("r3", Action::Failed)]);
    assert_eq!(
        (reports[0].status.as_str(), reports[0].given_up, reports[0].last_attempt),
        ("4.4.7", Some(GivenUp::Expired), None)
    );
}

#[test]
fn success_is_told_as_relayed_only_where_the_next_host_does_not_offer_dsn() {
    let stored = stored(&ALL, "a@member.example", Parameters::default());
    let silent = attempt(&stored, false, Verdict::Delivered);
    let (_, reports) = settled(&stored, Some(&silent), Next::Done, at(1));
    assert_eq!(told(&reports), [("r2", Action::Relayed)]);
    assert!(!ends_in_silence(&stored, &silent));
    let willing = attempt(&stored, true, Verdict::Delivered);
    assert_eq!(told(&settled(&stored, Some(&willing), Next::Done, at(1)).1), []);
    assert!(ends_in_silence(&stored, &willing));
}

#[test]
fn a_trace_is_told_by_every_hop_but_not_to_those_who_want_nothing() {
    let deliver_by = Some(DeliverBy { at: at(500), mode: ByMode::Notify, trace: true });
    let stored = stored(&ALL, "a@member.example", Parameters { deliver_by, ..Default::default() });
    let willing = attempt(&stored, true, Verdict::Delivered);
    let (_, reports) = settled(&stored, Some(&willing), Next::Done, at(1));
    assert_eq!(told(&reports).iter().map(|(who, _)| *who).collect::<Vec<_>>(), ["r0", "r2", "r3", "r4"]);
    assert!(!ends_in_silence(&stored, &willing));
}

#[test]
fn a_delay_is_told_once_and_not_before_its_time() {
    let mut stored = stored(&ALL, "a@member.example", Parameters::default());
    let late = attempt(&stored, true, Verdict::Deferred);
    let (_, reports) = settled(&stored, Some(&late), Next::RetryAt(at(400)), at(99));
    assert_eq!(told(&reports), []);
    let (settlement, reports) = settled(&stored, Some(&late), Next::RetryAt(at(400)), at(100));
    assert_eq!(told(&reports), [("r0", Action::Delayed), ("r4", Action::Delayed)]);
    assert_eq!((settlement.delay_told, reports[0].will_retry_until), (vec![0, 4], Some(at(1000))));
    // What has failed is told as that alone.
    let (settlement, reports) = settled(&stored, Some(&late), Next::Expired, at(1000));
    assert_eq!((told(&reports)[0], settlement.delay_told.len()), (("r0", Action::Failed), 0));
    for recipient in &mut stored.recipients {
        recipient.delay_told = true;
    }
    assert_eq!(told(&settled(&stored, Some(&late), Next::RetryAt(at(400)), at(200)).1), []);
}

#[test]
fn mail_comes_due_when_it_becomes_late_so_that_the_notice_is_in_time() {
    let next = |notify: &[Option<Notify>], reverse_path: &str, retry, now| {
        let stored = stored(notify, reverse_path, Parameters::default());
        let late = attempt(&stored, true, Verdict::Deferred);
        settled(&stored, Some(&late), Next::RetryAt(retry), now).0.next
    };
    let retry = queue::Next::RetryAt;
    assert_eq!(next(&ALL, "a@member.example", at(400), at(10)), retry(at(100)));
    assert_eq!(next(&ALL, "a@member.example", at(90), at(10)), retry(at(90)));
    assert_eq!(next(&ALL, "a@member.example", at(400), at(99)), retry(at(100)));
    assert_eq!(next(&ALL, "a@member.example", at(400), at(100)), retry(at(400)));
    assert_eq!(next(&[NEVER, FAILURE], "a@member.example", at(400), at(10)), retry(at(400)));
    assert_eq!(next(&ALL, "", at(400), at(10)), retry(at(400)));
}

#[test]
fn nothing_is_told_to_a_null_reverse_path() {
    let deliver_by = Some(DeliverBy { at: at(500), mode: ByMode::Notify, trace: true });
    let stored = stored(&ALL, "", Parameters { deliver_by, ..Default::default() });
    for (verdict, next) in
        [(Verdict::Delivered, Next::Done), (Verdict::Failed, Next::Done), (Verdict::Deferred, Next::RetryAt(at(900)))]
    {
        let made = attempt(&stored, false, verdict);
        let (settlement, reports) = settled(&stored, Some(&made), next, at(500));
        assert!(reports.is_empty() && settlement.delay_told.is_empty());
        assert!(notice(&stored, &reports, "relay.example", at(500)).is_none());
    }
    assert!(ends_in_silence(&stored, &attempt(&stored, false, Verdict::Delivered)));
}

#[test]
fn the_time_of_a_returning_by_expires_for_good() {
    for (by, status) in [(1000, "5.4.7"), (2000, "4.4.7")] {
        let deliver_by = Some(DeliverBy { at: at(by), mode: ByMode::Return, trace: false });
        let stored = stored(&[NONE], "a@member.example", Parameters { deliver_by, ..Default::default() });
        assert_eq!(settled(&stored, None, Next::Expired, at(1000)).1[0].status, status);
    }
}

#[test]
fn a_notice_about_mail_with_requiretls_gives_nothing_of_it_away_and_may_go_by_any_way() {
    for (tls, from, body) in [(TlsWish::Policy, true, true), (TlsWish::Waived, true, true), (TlsWish::Required, false, false)] {
        let parameters = Parameters { ret: Some(Ret::Full), tls, ..Default::default() };
        let stored = stored(&[NONE], "a@member.example", parameters);
        let failed = attempt(&stored, false, Verdict::Failed);
        let (_, reports) = settled(&stored, Some(&failed), Next::Done, at(200));
        let octets = notice(&stored, &reports, "relay.example", at(200)).unwrap();
        let text = String::from_utf8(octets.clone()).unwrap();
        assert_eq!((text.contains("From: a@member.example"), text.contains("\r\nbody\r\n")), (from, body), "{tls:?}: {text}");
        assert!(text.contains("Message-ID: <7@member.example>"), "{text}");
        let message = notice_message(&stored, &reports, vec![octets.into()], at(200)).unwrap();
        assert_eq!(message.parameters.tls, TlsWish::Policy);
    }
}

#[test]
fn notices_of_failure_are_waited_for_and_each_has_its_own_name() {
    let parameters = Parameters { ret: Some(Ret::Headers), envid: Some("a+20b".into()), ..Default::default() };
    let stored = stored(&[NONE], "a@member.example", parameters);
    let late = attempt(&stored, false, Verdict::Deferred);
    let message = |stored: &StoredDelivery, next| {
        let (_, reports) = settled(stored, Some(&late), next, at(200));
        let octets = notice(stored, &reports, "relay.example", at(200)).unwrap();
        let message = notice_message(stored, &reports, vec![octets.clone().into()], at(200)).unwrap();
        (message.lane, message.reverse_path, String::from_utf8(octets).unwrap())
    };
    let (lane, path, delayed) = message(&stored, Next::RetryAt(at(900)));
    assert_eq!((lane, path), (Lane::Notice, ReversePath::Null));
    assert!(delayed.contains("\r\nOriginal-Envelope-Id: a b\r\n"), "{delayed}");
    let (lane, _, failed) = message(&stored, Next::Expired);
    assert_eq!(lane, Lane::Transactional);
    let id = |text: &str| text.lines().find(|line| line.starts_with("Message-ID:")).unwrap().to_owned();
    assert_ne!(id(&delayed), id(&failed));
}
