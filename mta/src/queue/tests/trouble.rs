//! Full disks, failed syncs, damaged octets, power cuts.

use std::os::unix::fs::FileExt;

use super::*;

#[tokio::test(start_paused = true)]
async fn what_was_not_acknowledged_before_a_power_cut_is_not_there_and_the_rest_is() {
    let dir = TempDir::new().unwrap();
    let options = options();
    let faults = options.faults.clone();
    let mut bench = Bench::open(&dir, options.clone());
    let mut kept = vec![bench.queue.enqueue(message(&["a@one.example"], "kept 0")).await.unwrap()];
    for round in 1..6 {
        faults.set(Fault::StopBeforeCommit);
        let lost = bench.queue.enqueue(message(&["a@one.example"], "lost")).await;
        assert!(matches!(lost, Err(QueueError::Stopped)));
        bench.crash().await;
        faults.clear();
        bench = Bench::open(&dir, options.clone());
        let found: Vec<_> = bench.list(&Filter::default()).into_iter().map(|entry| entry.id).collect();
        assert_eq!(found, kept);
        kept.push(bench.queue.enqueue(message(&["a@one.example"], &format!("kept {round}"))).await.unwrap());
    }
    for (round, id) in kept.iter().enumerate() {
        assert_eq!(octets_of(&bench.reader.fetch(*id, "one.example").unwrap()), format!("kept {round}"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_committed_and_not_answered_is_there() {
    let dir = TempDir::new().unwrap();
    let options = options();
    let bench = Bench::open(&dir, options.clone());
    options.faults.set(Fault::StopAfterCommit);
    assert!(matches!(bench.queue.enqueue(message(&["a@one.example"], "x")).await, Err(QueueError::Stopped)));
    bench.crash().await;
    options.faults.clear();
    assert_eq!(Bench::open(&dir, options).backlog.messages, 1);
}

/// Turns one octet of a body over, in the segment file.
pub(super) fn flip(dir: &TempDir, body: &str) {
    for file in std::fs::read_dir(dir.path().join("segments")).unwrap() {
        let path = file.unwrap().path();
        let octets = std::fs::read(&path).unwrap();
        if let Some(at) = octets.windows(body.len()).position(|window| window == body.as_bytes()) {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            return file.write_all_at(&[octets[at] ^ 0x20], at as u64).unwrap();
        }
    }
    panic!("no such body");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_body_is_set_aside_and_the_others_go_on() {
    let dir = TempDir::new().unwrap();
    let mut bench = Bench::open(&dir, options());
    let good = bench.queue.enqueue(message(&["a@one.example"], "good body")).await.unwrap();
    let bad = bench.queue.enqueue(message(&["a@one.example", "b@two.example"], "bad body")).await.unwrap();
    flip(&dir, "bad body");
    assert_eq!(octets_of(&bench.reader.fetch(good, "one.example").unwrap()), "good body");
    assert!(matches!(bench.reader.fetch(bad, "one.example"), Err(QueueError::Corrupt(id)) if id == bad));
    bench.notes();
    bench.queue.set_aside(bad, "its body fails the checksum").await.unwrap();
    assert_eq!(bench.notes().len(), 2, "the scheduler hears that both deliveries are gone");
    let (found, _) = bench.reader.load("one.example", 1, later(1), 9).unwrap();
    assert_eq!(found.iter().map(|delivery| delivery.id).collect::<Vec<_>>(), [good]);
    let shown = bench.reader.show(bad).unwrap().unwrap();
    assert_eq!(shown.aside.as_deref(), Some("its body fails the checksum"));
    assert_eq!(bench.reader.counts().unwrap().aside, 1);
    // An attempt that was in flight meanwhile still counts, and does not bring it back.
    bench.queue.settle(vec![settlement(bad, "one.example", vec![], Next::RetryAt(later(9)))]).await.unwrap();
    assert_eq!(bench.reader.load("one.example", 1, later(99), 9).unwrap().0.len(), 1);
    // The operator gives it up: everything of it leaves.
    let give_up = |domain| settlement(bad, domain, vec![], Next::Done);
    bench.queue.settle(vec![give_up("one.example"), give_up("two.example")]).await.unwrap();
    let counts = bench.reader.counts().unwrap();
    assert_eq!((counts.messages, counts.aside, counts.pending), (1, 0, 1));
    assert!(matches!(bench.queue.set_aside(bad, "again").await, Err(QueueError::Unknown(_))));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_row_is_set_aside_by_the_settlement_that_meets_it() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let good = bench.queue.enqueue(message(&["a@one.example"], "good")).await.unwrap();
    let bad = bench.queue.enqueue(message(&["a@one.example"], "bad")).await.unwrap();
    let key = [&bad.0.to_be_bytes()[..], b"one.example"].concat();
    bench.queue.transact(move |txn, tables| Ok(tables.deliveries.put(txn, &key, b"\x01nonsense")?)).await.unwrap();
    assert!(matches!(bench.reader.fetch(bad, "one.example"), Err(QueueError::Corrupt(_))));
    bench.queue.settle(vec![delivered(bad, "one.example"), delivered(good, "one.example")]).await.unwrap();
    let counts = bench.reader.counts().unwrap();
    assert_eq!((counts.messages, counts.aside, counts.pending), (1, 1, 0));
    assert!(matches!(bench.reader.fetch(good, "one.example"), Err(QueueError::Unknown(_))));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_new_mail_while_settlements_go_on() {
    let dir = TempDir::new().unwrap();
    let options = Options { free_bytes_floor: 1, ..options() };
    let bench = Bench::open(&dir, options.clone());
    let id = bench.queue.enqueue(message(&["a@one.example"], "x")).await.unwrap();
    options.faults.set(Fault::DiskFull);
    assert!(matches!(bench.queue.enqueue(message(&["a@one.example"], "y")).await, Err(QueueError::Full(_))));
    let notice = NewMessage { reverse_path: ReversePath::Null, ..message(&["sender@member.example"], "failed") };
    let failed = Settlement { dsn: Some(notice), ..settlement(id, "one.example", vec![fate(0, Fate::Failed)], Next::Done) };
    bench.queue.settle(vec![failed]).await.unwrap();
    let all = bench.list(&Filter::default());
    assert_eq!(all.len(), 1, "the notice went in");
    bench.queue.settle(vec![delivered(all[0].id, "member.example")]).await.unwrap();
    assert_eq!(bench.queue.stats().refused_full.load(Ordering::Relaxed), 1);
    options.faults.clear();
    bench.queue.enqueue(message(&["a@one.example"], "z")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_database_refuses_new_mail_until_settlements_have_made_room() {
    let dir = TempDir::new().unwrap();
    // A batch in no order changes a page of every index for each message: more than small maps have to spare.
    let options = Options { map_bytes: 10 << 20, events_max: 100, ..options() };
    let bench = Bench::open(&dir, options);
    for round in 0..2 {
        let mut ids = Vec::new();
        let mut refused = None;
        while refused.is_none() {
            assert!(ids.len() < 100_000, "a database of 10 MiB cannot hold this");
            let enqueue = |_| {
                let queue = bench.queue.clone();
                tokio::spawn(async move { queue.enqueue(message(&["a@one.example", "b@two.example"], "x")).await })
            };
            for task in (0..200).map(enqueue).collect::<Vec<_>>() {
                match task.await.unwrap() {
                    Ok(id) => ids.push(id),
                    Err(error) => refused = Some(error),
                }
            }
        }
        assert!(matches!(refused, Some(QueueError::Full(_))), "{refused:?}");
        assert!(ids.len() > 100, "only {} fitted in round {round}", ids.len());
        // All deferred once, longer replies and all, then settled, in an order of no order.
        let defer = |id: &QueueId| settlement(*id, "one.example", vec![], Next::RetryAt(later(60)));
        for ids in ids.chunks(50) {
            bench.queue.settle(ids.iter().map(defer).collect()).await.unwrap();
        }
        ids.sort_by_key(|id| id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let second = |id: &QueueId| settlement(*id, "two.example", vec![fate(1, Fate::Delivered)], Next::Done);
        for ids in ids.chunks(50) {
            let both = ids.iter().flat_map(|id| [delivered(*id, "one.example"), second(id)]);
            bench.queue.settle(both.collect()).await.unwrap();
        }
        assert_eq!(bench.reader.counts().unwrap().messages, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_fails_its_batch_and_the_next_one_goes_to_a_fresh_segment() {
    let dir = TempDir::new().unwrap();
    let options = options();
    let bench = Bench::open(&dir, options.clone());
    let before = bench.queue.enqueue(message(&["a@one.example"], "before")).await.unwrap();
    options.faults.set(Fault::SyncFails);
    // New mail and a settlement in one batch: only the mail suffers.
    let (lost, deferred) = tokio::join!(
        bench.queue.enqueue(message(&["a@one.example"], "lost")),
        bench.queue.settle(vec![settlement(before, "one.example", vec![], Next::RetryAt(later(5)))]),
    );
    assert!(matches!(lost, Err(QueueError::Unwritable(_))));
    deferred.unwrap();
    assert_eq!(segment_files(&dir).0, 1);
    let after = bench.queue.enqueue(message(&["a@one.example"], "after")).await.unwrap();
    assert_eq!(segment_files(&dir).0, 2, "nothing more is written where a sync failed");
    for (id, body) in [(before, "before"), (after, "after")] {
        assert_eq!(octets_of(&bench.reader.fetch(id, "one.example").unwrap()), body);
    }
    // With its last body the broken file goes.
    bench.queue.settle(vec![delivered(before, "one.example")]).await.unwrap();
    bench.queue.transact(|_, _| Ok(())).await.unwrap();
    assert_eq!(segment_files(&dir).0, 1);
    assert_eq!(octets_of(&bench.reader.fetch(after, "one.example").unwrap()), "after");
}

#[tokio::test(start_paused = true)]
async fn while_bodies_cannot_be_written_settlements_go_on_and_afterwards_everything_does() {
    let dir = TempDir::new().unwrap();
    let options = options();
    let bench = Bench::open(&dir, options.clone());
    let before = bench.queue.enqueue(message(&["a@one.example"], "before")).await.unwrap();
    options.faults.set(Fault::WritesFail);
    for _ in 0..10 {
        let (lost, deferred) = tokio::join!(
            bench.queue.enqueue(message(&["a@one.example"], "lost")),
            bench.queue.settle(vec![settlement(before, "one.example", vec![], Next::RetryAt(later(5)))]),
        );
        assert!(matches!(lost, Err(QueueError::Unwritable(_))), "{lost:?}");
        deferred.unwrap();
    }
    options.faults.clear();
    let after = bench.queue.enqueue(message(&["a@one.example"], "after")).await.unwrap();
    for (id, body) in [(before, "before"), (after, "after")] {
        assert_eq!(octets_of(&bench.reader.fetch(id, "one.example").unwrap()), body);
    }
    assert_eq!(bench.reader.counts().unwrap().messages, 2);
    // Files that took no more bodies go, one with each commit.
    for _ in 0..20 {
        bench.queue.transact(|_, _| Ok(())).await.unwrap();
    }
    assert!(segment_files(&dir).0 <= 3, "{:?}", segment_files(&dir));
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_fails_leaves_everything_as_it_was_and_the_next_one_is_whole() {
    for fault in [Fault::CommitsFindNoSpace, Fault::CommitsFail] {
        let dir = TempDir::new().unwrap();
        let options = options();
        let bench = Bench::open(&dir, options.clone());
        let before = bench.queue.enqueue(message(&["a@one.example"], "before")).await.unwrap();
        options.faults.set(fault);
        for _ in 0..3 {
            let (lost, settled) = tokio::join!(
                bench.queue.enqueue(message(&["a@one.example"], "lost")),
                bench.queue.settle(vec![delivered(before, "one.example")]),
            );
            match fault {
                Fault::CommitsFindNoSpace => assert!(matches!(lost, Err(QueueError::Full(_))), "{lost:?}"),
                _ => assert!(matches!(lost, Err(QueueError::Unwritable(_))), "{lost:?}"),
            }
            settled.unwrap_err();
            assert_eq!(octets_of(&bench.reader.fetch(before, "one.example").unwrap()), "before");
        }
        options.faults.clear();
        // The same pages are written again, because nobody was told that they held anything.
        let after = bench.queue.enqueue(message(&["a@one.example"], "after")).await.unwrap();
        bench.queue.settle(vec![delivered(before, "one.example")]).await.unwrap();
        bench.crash().await;
        let bench = Bench::open(&dir, options);
        assert_eq!(bench.list(&Filter::default()).into_iter().map(|entry| entry.id).collect::<Vec<_>>(), [after]);
        assert_eq!(octets_of(&bench.reader.fetch(after, "one.example").unwrap()), "after");
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_segment_file_damages_its_own_bodies_only() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let body = "x".repeat(40_000);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(bench.queue.enqueue(message(&["a@one.example"], &body)).await.unwrap());
    }
    bench.close().await;
    std::fs::remove_file(dir.path().join("segments/000002.seg")).unwrap();
    std::fs::write(dir.path().join("segments/000099.seg"), "left by a crash").unwrap();
    let bench = Bench::open(&dir, options());
    let fetched: Vec<bool> = ids.iter().map(|id| bench.reader.fetch(*id, "one.example").is_ok()).collect();
    assert_eq!(fetched, [true, false, true, true]);
    bench.queue.enqueue(message(&["a@one.example"], &body)).await.unwrap();
    for id in ids {
        bench.queue.settle(vec![delivered(id, "one.example")]).await.unwrap();
    }
    assert!(!dir.path().join("segments/000099.seg").exists());
}
