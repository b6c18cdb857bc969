//! What the queue does when nothing goes wrong.

use super::*;
use crate::events::What;

#[tokio::test(start_paused = true)]
async fn a_message_is_there_after_a_restart_with_all_that_came_with_it() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let mut new = message(&["a@one.example", "b@two.example", "c@one.example"], "");
    new.octets = vec![Bytes::from_static(b"Received: x\r\n"), Bytes::from_static(b"Subject: y\r\n\r\nz\r\n")];
    new.parameters = Parameters {
        ret: Some(Ret::Headers),
        envid: Some("QQ314159".to_owned()),
        smtputf8: true,
        eight_bit: true,
        deliver_by: Some(DeliverBy { at: later(600), mode: ByMode::Return, trace: false }),
        priority: Some(4),
        tls: TlsWish::Required,
    };
    new.recipients[1].notify = Some(Notify { success: true, failure: true, delay: false });
    new.recipients[1].orcpt = Some("rfc822;b@other.example".to_owned());
    let id = bench.queue.enqueue(new).await.unwrap();
    bench.crash().await;

    let bench = Bench::open(&dir, options());
    assert_eq!(bench.backlog.flows, [(name("one.example"), 1, start()), (name("two.example"), 1, start())]);
    let one = bench.reader.fetch(id, "one.example").unwrap();
    assert_eq!(octets_of(&one), "Received: x\r\nSubject: y\r\n\r\nz\r\n");
    assert_eq!(mailboxes(&one), ["a@one.example", "c@one.example"]);
    assert_eq!(one.recipients.iter().map(|r| r.index).collect::<Vec<_>>(), [0, 2]);
    let two = bench.reader.fetch(id, "two.example").unwrap();
    assert_eq!(two.recipients[0].notify, Some(Notify { success: true, failure: true, delay: false }));
    assert_eq!(two.recipients[0].orcpt.as_deref(), Some("rfc822;b@other.example"));
    assert_eq!(two.message.parameters.envid.as_deref(), Some("QQ314159"));
    assert_eq!(two.message.parameters.ret, Some(Ret::Headers));
    assert_eq!(two.message.parameters.tls, TlsWish::Required);
    assert!(two.message.parameters.smtputf8 && two.message.parameters.eight_bit);
    assert_eq!(two.message.reverse_path.as_str(), "sender@member.example");
    assert_eq!((two.message.received_at, two.message.deadline), (start(), later(86_400)));
    assert_eq!((two.message.member, two.message.credential), (1, 2));
    assert!(matches!(bench.reader.fetch(id, "three.example"), Err(QueueError::Unknown(_))));
}

#[tokio::test(start_paused = true)]
async fn ids_rise_over_restarts_even_if_the_clock_steps_back_and_the_queue_is_empty() {
    let dir = TempDir::new().unwrap();
    let mut last = QueueId(0);
    for start in [later(1000), later(500), later(0), later(2000)] {
        let bench = Bench::open_at(dir.path(), options(), start);
        for _ in 0..3 {
            let id = bench.queue.enqueue(message(&["a@one.example"], "x")).await.unwrap();
            assert!(id > last, "{id} after {last}");
            last = id;
            bench.queue.settle(vec![delivered(id, "one.example")]).await.unwrap();
        }
        bench.close().await;
    }
    assert_eq!(last.time(), later(2000));
}

#[tokio::test(start_paused = true)]
async fn settling_removes_every_row_and_segments_are_used_again() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let body = "0123456789abcdef".repeat(512);
    let mut written = 0;
    for _ in 0..40 {
        let mut ids = Vec::new();
        for _ in 0..10 {
            ids.push(bench.queue.enqueue(message(&["a@one.example"], &body)).await.unwrap());
            written += body.len() as u64;
        }
        for id in ids {
            assert_eq!(octets_of(&bench.reader.fetch(id, "one.example").unwrap()), body);
            bench.queue.settle(vec![delivered(id, "one.example")]).await.unwrap();
        }
    }
    let counts = bench.reader.counts().unwrap();
    assert_eq!((counts.messages, counts.deliveries, counts.pending, counts.live_bytes), (0, 0, 0, 0));
    let (files, bytes) = segment_files(&dir);
    assert!(files <= 4 && bytes * 10 < written, "{files} files of {bytes} octets for {written} written");
}

#[tokio::test(start_paused = true)]
async fn after_a_rush_most_empty_segments_go_back_to_the_disk() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let body = "x".repeat(30_000);
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(bench.queue.enqueue(message(&["a@one.example"], &body)).await.unwrap());
    }
    assert!(segment_files(&dir).0 >= 30);
    for id in ids {
        bench.queue.settle(vec![delivered(id, "one.example")]).await.unwrap();
    }
    // One leaves with each commit.
    for _ in 0..40 {
        bench.queue.transact(|_, _| Ok(())).await.unwrap();
    }
    assert!(segment_files(&dir).0 <= 6, "{:?}", segment_files(&dir));
    assert_eq!(bench.reader.counts().unwrap().segments as usize, segment_files(&dir).0);
}

#[tokio::test(start_paused = true)]
async fn a_body_larger_than_a_segment_gets_a_larger_one() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let body = "large ".repeat(50_000);
    let id = bench.queue.enqueue(message(&["a@one.example"], &body)).await.unwrap();
    let empty = bench.queue.enqueue(message(&["a@one.example"], "")).await.unwrap();
    assert_eq!(octets_of(&bench.reader.fetch(id, "one.example").unwrap()), body);
    assert_eq!(octets_of(&bench.reader.fetch(empty, "one.example").unwrap()), "");
}

#[tokio::test(start_paused = true)]
async fn a_message_to_a_thousand_recipients_has_one_body() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let body = "to all of you ".repeat(1000);
    let recipients: Vec<String> = (0..1000).map(|n| format!("r{n}@d{}.example", n % 400)).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let id = bench.queue.enqueue(message(&recipients, &body)).await.unwrap();
    let counts = bench.reader.counts().unwrap();
    assert_eq!((counts.messages, counts.deliveries, counts.live_bytes), (1, 400, 32 + body.len() as u64));
    let used = written_octets(&dir, b"to all of you ");
    assert_eq!(used, 1000, "the body lies in the segments once");
    let mut reached = 0;
    for n in 0..400 {
        let domain = format!("d{n}.example");
        let stored = bench.reader.fetch(id, &domain).unwrap();
        assert_eq!(octets_of(&stored), body);
        assert_eq!(bench.reader.counts().unwrap().live_bytes, 32 + body.len() as u64);
        reached += stored.recipients.len();
        let fates = stored.recipients.iter().map(|recipient| fate(recipient.index, Fate::Delivered)).collect();
        bench.queue.settle(vec![settlement(id, &domain, fates, Next::Done)]).await.unwrap();
    }
    assert_eq!(reached, 1000);
    let counts = bench.reader.counts().unwrap();
    assert_eq!((counts.messages, counts.deliveries, counts.live_bytes), (0, 0, 0), "with the last recipient it leaves");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_at_once_need_few_commits() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let queue = bench.queue.clone();
            tokio::spawn(async move { queue.enqueue(message(&["a@one.example"], &format!("body {n}"))).await.unwrap() })
        })
        .collect();
    let mut ids = Vec::new();
    for task in tasks {
        ids.push(task.await.unwrap());
    }
    assert!(bench.commits() <= 3, "{} commits", bench.commits());
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 100);
    assert_eq!(bench.reader.counts().unwrap().messages, 100);
}

#[tokio::test(start_paused = true)]
async fn batches_are_bounded_and_otp_mail_is_first_in_each() {
    let dir = TempDir::new().unwrap();
    let (to_scheduler, mut notes) = mpsc::channel(64);
    let options = Options { batch_requests: 4, ..options() };
    let opened = Writer::open(dir.path(), Clock::simulated(start()), options, to_scheduler).unwrap();
    let (writer, queue, _reader) = opened;
    // All of it arrives before the writer looks.
    let enqueue = |lane| {
        let (queue, message) = (queue.clone(), NewMessage { lane, ..message(&["a@one.example"], "x") });
        tokio::spawn(async move { queue.enqueue(message).await.unwrap() })
    };
    let slow: Vec<_> = (0..6).map(|_| enqueue(Lane::Notice)).collect();
    let fast: Vec<_> = (0..2).map(|_| enqueue(Lane::Otp)).collect();
    tokio::task::yield_now().await;
    tokio::spawn(writer.run());
    let (mut slow_ids, mut fast_ids) = (Vec::new(), Vec::new());
    for task in slow {
        slow_ids.push(task.await.unwrap());
    }
    for task in fast {
        fast_ids.push(task.await.unwrap());
    }
    assert!(fast_ids.iter().max() < slow_ids.iter().min());
    let mut sizes = Vec::new();
    let mut lanes = Vec::new();
    for _ in 0..2 {
        let batch = notes.recv().await.unwrap();
        sizes.push(batch.len());
        lanes.extend(batch.iter().map(|note| match note {
            Note::Enqueued { delivery, stored } => {
                assert_eq!(octets_of(stored), "x");
                delivery.lane
            }
            Note::Settled { .. } | Note::Due { .. } => panic!("nothing was settled"),
        }));
    }
    assert_eq!(sizes, [4, 4]);
    assert_eq!(lanes[..3], [Lane::Otp, Lane::Otp, Lane::Notice]);
}

#[tokio::test(start_paused = true)]
async fn while_many_messages_are_signed_a_batch_is_gathered_but_not_for_a_one_time_code() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let clock = Clock::simulated(start());
    let one_after_another = async |last: Lane| {
        let (before, began) = (bench.commits(), clock.now());
        let tasks: Vec<_> = [Lane::Notice, last]
            .into_iter()
            .map(|lane| {
                let (queue, message) = (bench.queue.clone(), NewMessage { lane, ..message(&["a@one.example"], "x") });
                tokio::spawn(async move {
                    if lane == last {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    queue.enqueue(message).await.unwrap()
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        (bench.commits() - before, clock.now().duration_since(began).unwrap().as_millis())
    };
    assert_eq!(one_after_another(Lane::Transactional).await, (2, 1), "nobody is expected");
    let expected: Vec<_> = (0..16).map(|_| bench.queue.expect()).collect();
    assert_eq!(one_after_another(Lane::Transactional).await, (1, 2));
    assert_eq!(one_after_another(Lane::Otp).await, (1, 1));
    drop(expected);
    assert_eq!(one_after_another(Lane::Transactional).await, (2, 1), "they came");
}

#[tokio::test(start_paused = true)]
async fn a_window_is_loaded_by_lane_then_due_and_says_when_the_next_is_due() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    for (lane, due) in [(Lane::Notice, 1), (Lane::Otp, 9), (Lane::Transactional, 3), (Lane::Otp, 2), (Lane::Notice, 20)] {
        let new = NewMessage { lane, due: later(due), ..message(&["a@one.example"], "x") };
        bench.queue.enqueue(new).await.unwrap();
    }
    // A domain that sorts right behind and begins alike, and other members.
    bench.queue.enqueue(message(&["a@one.example.org"], "x")).await.unwrap();
    for member in [0, 2, 256] {
        bench.queue.enqueue(NewMessage { member, ..message(&["a@one.example"], "x") }).await.unwrap();
    }
    let load = |now, max| {
        let (found, next) = bench.reader.load("one.example", 1, now, max).unwrap();
        (due_of(&found), next)
    };
    let all = vec![
        (Lane::Otp, later(2)),
        (Lane::Otp, later(9)),
        (Lane::Transactional, later(3)),
        (Lane::Notice, later(1)),
        (Lane::Notice, later(20)),
    ];
    assert_eq!(load(later(100), 10), (all.clone(), None));
    assert_eq!(load(later(100), 3), (all[..3].to_vec(), Some(later(1))));
    assert_eq!(load(later(5), 10), (vec![all[0], all[2], all[3]], Some(later(9))));
    assert_eq!(load(start(), 10), (vec![], Some(later(1))));
    assert_eq!(bench.reader.load("absent.example", 1, later(9), 9).unwrap(), (vec![], None));
}

#[tokio::test(start_paused = true)]
async fn a_start_skips_from_member_to_member_and_from_domain_to_domain() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let mut enqueued = Vec::new();
    for n in 0..10_000u64 {
        let queue = bench.queue.clone();
        // Of each domain's ten messages one is of member 2.
        let (lane, member) = (Lane::ALL[n as usize % 3], 1 + u32::from(n < 1000));
        let recipient = format!("a@d{}.example", n % 1000);
        let new = NewMessage { lane, member, due: later(10_000 - n), ..message(&[&recipient], "x") };
        enqueued.push(tokio::spawn(async move { queue.enqueue(new).await.unwrap() }));
    }
    for task in enqueued {
        task.await.unwrap();
    }
    bench.close().await;
    let bench = Bench::open(&dir, options());
    assert_eq!((bench.backlog.messages, bench.backlog.flows.len()), (10_000, 2 * 1000));
    assert!(bench.backlog.looked_at <= (3 + 1) * 1000, "{} looked at", bench.backlog.looked_at);
    for (domain, member, due) in &bench.backlog.flows {
        let nth: u64 = domain[1..].split('.').next().unwrap().parse().unwrap();
        // The last one enqueued for a domain was received first.
        let last = if *member == 1 { 9000 + nth } else { nth };
        assert_eq!(*due, later(10_000 - last), "{domain}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_recipient_has_one_final_event_and_keeps_its_first_fate() {
    let dir = TempDir::new().unwrap();
    let mut bench = Bench::open(&dir, options());
    let id = bench.queue.enqueue(message(&["a@one.example", "b@one.example", "c@two.example"], "x")).await.unwrap();
    let retry = settlement(id, "one.example", vec![fate(1, Fate::Failed)], Next::RetryAt(later(60)));
    bench.queue.settle(vec![retry]).await.unwrap();
    let stored = bench.reader.fetch(id, "one.example").unwrap();
    assert_eq!((mailboxes(&stored), stored.attempts), (vec!["a@one.example"], 1));
    assert_eq!(stored.last_reply, "451 4.7.1 come back");
    let (found, _) = bench.reader.load("one.example", 1, later(60), 9).unwrap();
    assert_eq!((found[0].attempts, found[0].recipients, found[0].due), (1, 1, later(60)));
    // A second fate for b, one for a stranger, and the last one for a.
    let fates = vec![fate(1, Fate::Delivered), fate(2, Fate::Delivered), fate(0, Fate::Delivered)];
    bench.queue.settle(vec![settlement(id, "one.example", fates, Next::RetryAt(later(90)))]).await.unwrap();
    // Done with somebody open: that one fails, with an event.
    bench.queue.settle(vec![settlement(id, "two.example", vec![], Next::Done)]).await.unwrap();
    // Settled twice: nothing.
    bench.queue.settle(vec![settlement(id, "two.example", vec![fate(2, Fate::Delivered)], Next::Done)]).await.unwrap();
    let story: Vec<_> = bench.events().into_iter().map(|event| (event.what, event.recipient, event.recipients)).collect();
    let expected = [
        (What::Accepted, "", 3),
        (What::Failed, "b@one.example", 1),
        (What::Deferred, "", 1),
        (What::Delivered, "a@one.example", 1),
        (What::Failed, "c@two.example", 1),
    ];
    assert_eq!(story, expected.map(|(what, who, count)| (what, who.to_owned(), count)));
    assert_eq!(bench.reader.counts().unwrap().messages, 0);
    let settled = |note| match note {
        Note::Settled { domain, next_due, .. } => Some((domain, next_due)),
        Note::Enqueued { .. } | Note::Due { .. } => None,
    };
    let notes: Vec<_> = bench.notes().into_iter().filter_map(settled).collect();
    let (one, two) = (name("one.example"), name("two.example"));
    assert_eq!(notes, [(one.clone(), Some(later(60))), (one, None), (two.clone(), None), (two, None)]);
}

#[tokio::test(start_paused = true)]
async fn a_notice_is_queued_by_the_transaction_that_fails_its_message() {
    let dir = TempDir::new().unwrap();
    let options = options();
    let faults = options.faults.clone();
    let mut bench = Bench::open(&dir, options.clone());
    let id = bench.queue.enqueue(message(&["a@one.example"], "x")).await.unwrap();
    let notice =
        NewMessage { reverse_path: ReversePath::Null, lane: Lane::Notice, ..message(&["sender@member.example"], "it failed") };
    let spent = |count| LedgerCount { source: name("ip-a"), provider: name("other"), day: 20_700, hour: 9, count };
    let failed = Settlement {
        dsn: Some(notice.clone()),
        ledger: vec![spent(2), spent(1)],
        ..settlement(id, "one.example", vec![fate(0, Fate::Failed)], Next::Done)
    };
    // The power fails before the commit: neither happened.
    faults.set(Fault::StopBeforeCommit);
    assert!(matches!(bench.queue.settle(vec![failed.clone()]).await, Err(QueueError::Stopped)));
    bench.crash().await;
    faults.clear();
    bench = Bench::open(&dir, options);
    assert_eq!(bench.reader.counts().unwrap().messages, 1);
    assert_eq!(bench.reader.ledger("ip-a", "other", 0).unwrap(), []);
    // Now both do.
    bench.queue.settle(vec![failed]).await.unwrap();
    assert_eq!(bench.commits(), 1);
    assert!(matches!(bench.reader.fetch(id, "one.example"), Err(QueueError::Unknown(_))));
    assert_eq!(bench.reader.ledger("ip-a", "other", 0).unwrap(), [(20_700, 9, 3)]);
    let all = bench.list(&Filter::default());
    assert_eq!(all.len(), 1);
    let stored = bench.reader.fetch(all[0].id, "member.example").unwrap();
    assert_eq!((octets_of(&stored), stored.message.reverse_path.as_str()), ("it failed", ""));
    assert!(matches!(&bench.notes()[..], [Note::Settled { next_due: None, .. }, Note::Enqueued { .. }]));
    // The notice itself fails: no notice about it (RFC 5321 §4.5.5).
    let failed =
        Settlement { dsn: Some(notice), ..settlement(all[0].id, "member.example", vec![fate(0, Fate::Failed)], Next::Done) };
    bench.queue.settle(vec![failed]).await.unwrap();
    assert_eq!(bench.reader.counts().unwrap().messages, 0);
}

#[tokio::test(start_paused = true)]
async fn lists_go_by_domain_or_member_in_pages() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let mut by_member = [Vec::new(), Vec::new()];
    for n in 0..40 {
        let new = NewMessage { member: n % 2, ..message(&["a@one.example", &format!("b@d{n}.example")], "x") };
        by_member[n as usize % 2].push(bench.queue.enqueue(new).await.unwrap());
    }
    assert_eq!(bench.list(&Filter::default()).len(), 80);
    let one = bench.list(&Filter { domain: Some("one.example".to_owned()), member: None, held: false });
    assert_eq!(one.len(), 40);
    let odd = bench.list(&Filter { domain: Some("one.example".to_owned()), member: Some(1), held: false });
    assert_eq!(odd.iter().map(|entry| entry.id).collect::<Vec<_>>(), by_member[1]);
    let even = bench.list(&Filter { domain: None, member: Some(0), held: false });
    assert_eq!(even.len(), 40);
    let shown = bench.reader.show(by_member[0][3]).unwrap().unwrap();
    assert_eq!((shown.deliveries.len(), shown.recipients, shown.bytes, shown.aside), (2, 2, 1, None));
    assert!(bench.reader.show(QueueId(1)).unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn old_events_leave_and_readers_notice_the_gap() {
    let dir = TempDir::new().unwrap();
    let options = Options { events_max: 10, ..options() };
    let mut bench = Bench::open(&dir, options.clone());
    for round in 0..2 {
        for _ in 0..30 {
            bench.queue.enqueue(message(&["a@one.example"], "x")).await.unwrap();
        }
        let events = bench.reader.events_after(0, 100).unwrap();
        assert_eq!(events.first().unwrap().0, 30 * (round + 1) - 9);
        assert_eq!(events.last().unwrap().0, 30 * (round + 1));
        assert_eq!(bench.reader.events_after(events[7].0, 100).unwrap().len(), 2);
        bench.close().await;
        bench = Bench::open(&dir, options.clone());
    }
}

#[tokio::test(start_paused = true)]
async fn work_of_others_commits_with_the_batch_and_its_error_undoes_itself_alone() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let put = |key: &'static [u8], fail: bool| {
        bench.queue.transact(move |txn, tables| {
            tables.members.put(txn, key, b"v")?;
            if fail { Err(QueueError::Invalid("changed my mind")) } else { Ok(key.len()) }
        })
    };
    let (a, b, c) = tokio::join!(put(b"good", false), put(b"bad", true), put(b"also good", false));
    assert_eq!((a.unwrap(), c.unwrap()), (4, 9));
    assert!(matches!(b, Err(QueueError::Invalid("changed my mind"))));
    assert_eq!(bench.commits(), 1);
    let found = |key: &[u8]| bench.reader.read(|txn, tables| Ok(tables.members.get(txn, key)?.is_some())).unwrap();
    assert!(found(b"good") && found(b"also good") && !found(b"bad"));
}

#[tokio::test(start_paused = true)]
async fn stop_lets_what_has_arrived_be_committed() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let queue = bench.queue.clone();
    let last = tokio::spawn(async move { queue.enqueue(message(&["a@one.example"], "x")).await });
    tokio::task::yield_now().await;
    bench.queue.stop().await;
    assert!(last.await.unwrap().is_ok());
    bench.writer.await.unwrap().unwrap();
    assert!(matches!(bench.queue.enqueue(message(&["a@one.example"], "x")).await, Err(QueueError::Stopped)));
}

#[tokio::test]
async fn a_queue_is_opened_once_at_a_time_and_refuses_what_it_cannot_keep() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let (notes, _) = mpsc::channel(1);
    assert!(Writer::open(dir.path(), Clock::system(), options(), notes).is_err());
    assert!(matches!(bench.queue.enqueue(message(&[], "x")).await, Err(QueueError::Invalid(_))));
    let many = NewMessage {
        recipients: vec![message(&["a@one.example"], "x").recipients.remove(0); RECIPIENTS_MAX + 1],
        ..message(&[], "x")
    };
    assert!(matches!(bench.queue.enqueue(many).await, Err(QueueError::Invalid(_))));
}

#[tokio::test(start_paused = true)]
async fn what_is_overdue_is_found_part_by_part_wherever_it_stands() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let mut expected = Vec::new();
    for n in 0..30u64 {
        let mut new = message(&[&format!("a@d{n:02}.example")], "x");
        // Every third has expired, every fifth is late, and of those that are late every second was not to be told.
        new.deadline = if n % 3 == 0 { later(50) } else { later(5000) };
        new.delay_notice_at = (n % 5 == 0).then(|| later(50));
        new.recipients[0].notify = (n % 2 == 0).then_some(Notify::NEVER);
        let id = bench.queue.enqueue(new).await.unwrap();
        if n % 3 == 0 || (n % 5 == 0 && n % 2 == 1) {
            expected.push(id);
        }
    }
    let round = |now, rows, max| {
        let (mut found, mut after, mut parts) = (Vec::new(), Vec::new(), 0);
        loop {
            let (some, next) = bench.reader.overdue(&after, now, rows, max).unwrap();
            assert!(some.len() <= max);
            found.extend(some.into_iter().map(|delivery| delivery.id));
            parts += 1;
            match next {
                Some(next) => after = next,
                None => return (found, parts),
            }
        }
    };
    assert_eq!(round(later(49), 100, 100), (vec![], 1));
    assert_eq!(round(later(50), 100, 100), (expected.clone(), 1));
    assert_eq!(round(later(50), 7, 100), (expected.clone(), 5));
    assert_eq!(round(later(50), 100, 2).0, expected);
    // Told once, it is not found again.
    let late = expected[1..].iter().copied().find(|id| bench.reader.show(*id).unwrap().unwrap().deadline == later(5000)).unwrap();
    let domain = bench.reader.show(late).unwrap().unwrap().deliveries[0].summary.domain.clone();
    let told = Settlement { delay_told: vec![0], ..settlement(late, &domain, vec![], Next::RetryAt(later(60))) };
    bench.queue.settle(vec![told]).await.unwrap();
    assert!(!round(later(50), 100, 100).0.contains(&late));
    assert!(bench.reader.fetch(late, &domain).unwrap().recipients[0].delay_told);
}
