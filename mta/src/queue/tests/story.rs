//! Events read again, and how they leave.

use super::*;
use crate::events::What;

fn numbers(found: &crate::queue::EventsFound) -> Vec<u64> {
    found.events.iter().map(|(number, _)| *number).collect()
}

#[tokio::test(start_paused = true)]
async fn events_leave_by_age_and_their_index_with_them() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, Options { events_age_max: Some(Duration::from_secs(3600)), ..options() });
    let old = bench.queue.enqueue(message(&["a@one.example"], "x")).await.unwrap();
    bench.queue.settle(vec![delivered(old, "one.example")]).await.unwrap();
    assert_eq!(bench.reader.story(old, 9).unwrap().len(), 2);
    tokio::time::advance(Duration::from_secs(3601)).await;
    let new = bench.queue.enqueue(message(&["a@one.example"], "y")).await.unwrap();
    assert!(bench.reader.story(old, 9).unwrap().is_empty());
    assert_eq!(bench.reader.story(new, 9).unwrap().iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3]);
    let kept = bench.reader.read(|txn, tables| Ok(tables.story.len(txn)?)).unwrap();
    assert_eq!(kept, 1);
    // A reader that had seen nothing is told where the list begins now.
    let found = bench.reader.events(Some(0), None, None, 10).unwrap();
    assert_eq!((numbers(&found), found.oldest, found.next), (vec![3], 3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_reader_goes_on_where_it_stopped_whatever_it_looks_for() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let mut ids = Vec::new();
    for nth in 0..60 {
        let new = NewMessage { member: nth % 3, ..message(&["a@one.example"], "x") };
        ids.push(bench.queue.enqueue(new).await.unwrap());
    }
    for (member, expected) in [(None, (1..=60).collect::<Vec<u64>>()), (Some(2), (1..=20).map(|nth| 3 * nth).collect())] {
        let (mut seen, mut all) = (0, Vec::new());
        loop {
            let found = bench.reader.events(Some(seen), member, None, 7).unwrap();
            all.extend(numbers(&found));
            seen = found.next;
            if !found.more {
                break;
            }
        }
        assert_eq!((all, seen), (expected, 60));
        assert_eq!(numbers(&bench.reader.events(None, member, None, 2).unwrap()).last(), Some(&60));
    }
    bench.queue.settle(vec![delivered(ids[4], "one.example")]).await.unwrap();
    let found = bench.reader.events(Some(0), None, Some(ids[4]), 1).unwrap();
    assert_eq!((numbers(&found), found.next, found.more), (vec![5], 5, true));
    let found = bench.reader.events(Some(5), None, Some(ids[4]), 1).unwrap();
    assert_eq!((numbers(&found), found.more, found.events[0].1.what), (vec![61], false, What::Delivered));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_events_hears_of_the_next_commit_and_holds_nobody_up() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let queue = bench.queue.clone();
    let waiting = tokio::spawn(async move { queue.stats().events.beyond(1).await });
    bench.queue.enqueue(message(&["a@one.example"], "x")).await.unwrap();
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "it has seen that one");
    bench.queue.enqueue(message(&["a@one.example"], "x")).await.unwrap();
    waiting.await.unwrap();
    // After a restart the bell knows what is there.
    bench.close().await;
    let bench = Bench::open(&dir, options());
    bench.queue.stats().events.beyond(1).await;
}
