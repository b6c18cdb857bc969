//! Bodies copied forward: segments come back, and nobody notices.

use super::*;

/// A body that fills a sixteenth of a segment, and is no other's.
fn body(nth: usize) -> String {
    format!("{nth:8}").repeat(500)
}

/// Queues `count` messages and settles all but every `nth`, at once: what is left keeps every segment until the next
/// commit.
async fn leave_some(bench: &Bench, count: usize, nth: usize) -> Vec<(QueueId, String)> {
    let (mut left, mut settled) = (Vec::new(), Vec::new());
    for number in 0..count {
        let id = bench.queue.enqueue(message(&["a@one.example"], &body(number))).await.unwrap();
        match number % nth {
            0 => left.push((id, body(number))),
            _ => settled.push(delivered(id, "one.example")),
        }
    }
    bench.queue.settle(settled).await.unwrap();
    left
}

/// Commits that have nothing else to do.
async fn quiet_commits(bench: &Bench, count: usize) {
    for _ in 0..count {
        bench.queue.transact(|_, _| Ok(())).await.unwrap();
    }
}

fn check(bench: &Bench, left: &[(QueueId, String)]) {
    for (id, body) in left {
        assert_eq!(octets_of(&bench.reader.fetch(*id, "one.example").unwrap()), body, "{id}");
    }
    let live = left.iter().map(|(_, body)| (32 + body.len() as u64).next_multiple_of(8)).sum::<u64>();
    let counts = bench.reader.counts().unwrap();
    assert_eq!((counts.messages as usize, counts.live_bytes), (left.len(), live));
}

#[tokio::test(start_paused = true)]
async fn a_few_old_messages_do_not_keep_many_segments() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let mut left = leave_some(&bench, 640, 16).await;
    quiet_commits(&bench, 100).await;
    check(&bench, &left);
    // Forty bodies fit into three segments; without copying each would keep one of forty.
    let (files, _) = segment_files(&dir);
    assert!(files <= 12, "{files} segments");
    // None moved twice, and once in order, it stays as it is.
    let copied = bench.queue.stats().copied_bytes.load(Ordering::Relaxed);
    assert!(copied > 0 && copied <= 40 * 4000, "{copied} octets copied");
    quiet_commits(&bench, 100).await;
    assert_eq!(bench.queue.stats().copied_bytes.load(Ordering::Relaxed), copied);
    bench.close().await;
    let bench = Bench::open(&dir, options());
    check(&bench, &left);
    for (id, _) in left.drain(..) {
        bench.queue.settle(vec![delivered(id, "one.example")]).await.unwrap();
    }
    check(&bench, &[]);
}

#[tokio::test(start_paused = true)]
async fn small_messages_that_each_took_a_page_are_packed() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let mut left = Vec::new();
    for number in 0..400 {
        let body = format!("small {number}");
        left.push((bench.queue.enqueue(message(&["a@one.example"], &body)).await.unwrap(), body));
    }
    quiet_commits(&bench, 200).await;
    check(&bench, &left);
    assert!(segment_files(&dir).0 <= 8, "{:?}", segment_files(&dir));
}

#[tokio::test(start_paused = true)]
async fn a_body_settled_by_the_commit_that_would_move_it_is_gone() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, Options { segment_bytes: 8 << 10, ..options() });
    let mut left = Vec::new();
    // Until there is need, nothing moves; then what is settled next is what would have moved first.
    for number in 0..200 {
        left.push((bench.queue.enqueue(message(&["a@one.example"], &body(number))).await.unwrap(), body(number)));
    }
    while left.len() > 3 {
        let (id, _) = left.remove(left.len() / 3);
        bench.queue.settle(vec![delivered(id, "one.example")]).await.unwrap();
        check(&bench, &left);
    }
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_while_bodies_move_loses_none() {
    let dir = TempDir::new().unwrap();
    let options = options();
    let mut bench = Bench::open(&dir, options.clone());
    let left = leave_some(&bench, 640, 32).await;
    for round in 0..20 {
        let fault = [Fault::StopBeforeCommit, Fault::StopAfterCommit][round % 2];
        options.faults.set(fault);
        assert!(bench.queue.transact(|_, _| Ok(())).await.is_err());
        bench.crash().await;
        options.faults.clear();
        bench = Bench::open(&dir, options.clone());
        check(&bench, &left);
    }
    quiet_commits(&bench, 50).await;
    check(&bench, &left);
    assert!(segment_files(&dir).0 <= 12, "{:?}", segment_files(&dir));
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_fails_while_bodies_move_costs_nobody_anything() {
    let dir = TempDir::new().unwrap();
    let options = options();
    let bench = Bench::open(&dir, options.clone());
    let mut left = leave_some(&bench, 320, 16).await;
    options.faults.set(Fault::SyncFails);
    // The copies cannot be written; the message that came with them can, elsewhere.
    left.push((bench.queue.enqueue(message(&["a@one.example"], "new")).await.unwrap(), "new".to_owned()));
    quiet_commits(&bench, 50).await;
    check(&bench, &left);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_body_is_not_moved_and_the_others_are() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let mut left = leave_some(&bench, 16, 16).await;
    super::trouble::flip(&dir, &left[0].1);
    let (bad, _) = left.remove(0);
    left.extend(leave_some(&bench, 640, 16).await.into_iter().skip(1));
    let first = bench.list(&Filter::default())[1].id;
    bench.queue.settle(vec![delivered(first, "one.example")]).await.unwrap();
    quiet_commits(&bench, 100).await;
    assert!(matches!(bench.reader.fetch(bad, "one.example"), Err(QueueError::Corrupt(_))));
    for (id, body) in &left {
        assert_eq!(octets_of(&bench.reader.fetch(*id, "one.example").unwrap()), body);
    }
    assert!(segment_files(&dir).0 <= 13, "{:?}", segment_files(&dir));
    // The operator gives it up, and the last octets of its segment with it.
    bench.queue.settle(vec![delivered(bad, "one.example")]).await.unwrap();
    check(&bench, &left);
}
