//! What an operator does to queued mail.

use super::*;
use crate::events::What;
use crate::queue::{Operation, Which, Wish};

impl Bench {
    /// The whole wish, share by share: deliveries changed.
    pub(super) async fn operate(&self, wish: Wish, which: Which) -> u64 {
        let (mut changed, mut after) = (0, None);
        loop {
            let operation = Operation { wish, which: which.clone(), by: "the test".to_owned(), after };
            let done = self.queue.operate(operation).await.unwrap();
            changed += done.changed;
            match done.next {
                Some(next) => after = Some(next),
                None => return changed,
            }
        }
    }

    /// What the scheduler would be given then, of all members.
    fn due_at(&self, domain: &str, now: SystemTime) -> Vec<QueueId> {
        let flows = self.reader.backlog().unwrap().flows;
        let members = flows.into_iter().filter(|(of, ..)| **of == *domain).map(|(_, member, _)| member);
        let load = |member| self.reader.load(domain, member, now, usize::MAX).unwrap().0;
        let mut found: Vec<_> = members.flat_map(load).map(|found| (found.lane, found.due, found.id)).collect();
        found.sort();
        found.into_iter().map(|(.., id)| id).collect()
    }

    pub(super) fn held(&self) -> Vec<(QueueId, String)> {
        let held = self.list(&Filter { held: true, ..Filter::default() });
        assert!(held.iter().all(|found| found.held.as_ref().is_some_and(|held| held.by == "the test")));
        held.into_iter().map(|found| (found.id, found.domain)).collect()
    }
}

fn of(member: u32, recipient: &str) -> NewMessage {
    NewMessage { member, ..message(&[recipient], "body") }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_out_of_sight_until_it_is_released_and_a_restart_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let id = bench.queue.enqueue(message(&["a@one.example", "b@two.example"], "x")).await.unwrap();
    let other = bench.queue.enqueue(message(&["a@one.example"], "y")).await.unwrap();
    assert_eq!(bench.operate(Wish::Hold, Which::Message(id)).await, 2);
    assert_eq!(bench.operate(Wish::Hold, Which::Message(id)).await, 0, "it is held already");
    assert_eq!(bench.due_at("one.example", later(1)), [other]);
    bench.close().await;

    let mut bench = Bench::open(&dir, options());
    assert_eq!(bench.backlog.flows, [(name("one.example"), 1, start()), (name("two.example"), 1, later(86_400))]);
    assert_eq!(bench.held(), [(id, "one.example".to_owned()), (id, "two.example".to_owned())]);
    assert_eq!(bench.reader.counts().unwrap().held, 2);
    assert_eq!(bench.operate(Wish::Release, Which::Message(id)).await, 2);
    assert!(bench.held().is_empty());
    assert_eq!(bench.due_at("one.example", later(1)), [id, other]);
    let due: Vec<_> = bench
        .notes()
        .into_iter()
        .filter_map(|note| if let Note::Due { domain, at, .. } = note { Some((domain, at)) } else { None })
        .collect();
    assert_eq!(due, [(name("one.example"), start()), (name("two.example"), start())]);
    let story: Vec<What> = bench.reader.story(id, 100).unwrap().into_iter().map(|(_, event)| event.what).collect();
    assert_eq!(story, [What::Accepted, What::Held, What::Held, What::Released, What::Released]);
}

#[tokio::test(start_paused = true)]
async fn what_was_under_way_when_it_was_held_ends_by_itself_and_what_it_leaves_open_stays_held() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let id = bench.queue.enqueue(message(&["a@one.example", "b@one.example", "c@two.example"], "x")).await.unwrap();
    bench.operate(Wish::Hold, Which::Message(id)).await;
    let attempt = settlement(id, "one.example", vec![fate(0, Fate::Delivered)], Next::RetryAt(later(60)));
    bench.queue.settle(vec![attempt, settlement(id, "two.example", vec![fate(2, Fate::Delivered)], Next::Done)]).await.unwrap();
    assert_eq!(bench.held(), [(id, "one.example".to_owned())]);
    assert!(bench.due_at("one.example", later(3600)).is_empty());
    assert_eq!(bench.due_at("one.example", later(86_400)), [id], "it comes back to expire");
    bench.operate(Wish::Release, Which::Message(id)).await;
    assert_eq!(bench.due_at("one.example", later(0)), [id]);
    assert_eq!(bench.reader.fetch(id, "one.example").unwrap().attempts, 1);
    bench.queue.settle(vec![settlement(id, "one.example", vec![fate(1, Fate::Failed)], Next::Done)]).await.unwrap();
    let counts = bench.reader.counts().unwrap();
    assert_eq!((counts.messages, counts.pending, counts.held), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_member_s_or_a_domain_s_mail_is_held_in_shares_and_nobody_else_s() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    for nth in 0..1500 {
        let domain = ["one.example", "one.example.org", "two.example"][nth % 3];
        bench.queue.enqueue(of(1 + (nth % 2) as u32, &format!("r{nth}@{domain}"))).await.unwrap();
    }
    let share = Operation { wish: Wish::Hold, which: Which::Member(1), by: "the test".to_owned(), after: None };
    let share = bench.queue.operate(share).await.unwrap();
    assert!(share.changed < 750 && share.next.is_some(), "{share:?}");
    assert_eq!(share.changed + bench.operate(Wish::Hold, Which::Member(1)).await, 750);
    assert_eq!(bench.operate(Wish::Hold, Which::Domain("one.example".to_owned())).await, 250);
    assert_eq!(bench.held().len(), 1000);
    assert_eq!(bench.due_at("one.example", later(1)).len(), 0);
    assert_eq!(bench.due_at("one.example.org", later(1)).len(), 250);
    let filter = Filter { member: Some(2), ..Filter::default() };
    let of_two = bench.list(&filter);
    assert_eq!((of_two.len(), of_two.iter().filter(|found| found.held.is_some()).count()), (750, 250));
    assert!(of_two.iter().all(|found| found.member == 2));
    assert_eq!(bench.operate(Wish::Release, Which::Domain("one.example".to_owned())).await, 500);
    assert_eq!(bench.operate(Wish::Release, Which::Member(2)).await, 0);
    assert_eq!(bench.operate(Wish::Release, Which::Member(1)).await, 500);
    assert!(bench.held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_flush_makes_due_what_was_deferred_and_leaves_what_is_held_or_was_never_tried() {
    let dir = TempDir::new().unwrap();
    let mut bench = Bench::open(&dir, options());
    let mut ids = Vec::new();
    for nth in 0..600 {
        let id = bench.queue.enqueue(message(&[&format!("r{nth}@one.example")], "x")).await.unwrap();
        bench.queue.settle(vec![settlement(id, "one.example", vec![], Next::RetryAt(later(600)))]).await.unwrap();
        ids.push(id);
    }
    let future = NewMessage { due: later(500), ..message(&["f@one.example"], "x") };
    let future = bench.queue.enqueue(future).await.unwrap();
    bench.operate(Wish::Hold, Which::Message(ids[7])).await;
    bench.notes();
    assert_eq!(bench.operate(Wish::Flush, Which::Domain("one.example".to_owned())).await, 599);
    ids.remove(7);
    assert_eq!(bench.due_at("one.example", start()), ids);
    assert!(bench.due_at("one.example", later(500)).contains(&future));
    let notes = bench.notes();
    assert!(notes.len() <= 3, "one word a share, not {}", notes.len());
    assert_eq!(bench.operate(Wish::Flush, Which::Domain("one.example".to_owned())).await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_cancelled_ends_with_one_event_a_recipient() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let id = bench.queue.enqueue(message(&["a@one.example", "b@one.example", "c@two.example"], "x")).await.unwrap();
    bench.operate(Wish::Hold, Which::Message(id)).await;
    let cancel = |domain| Settlement { last_reply: "root".to_owned(), ..settlement(id, domain, vec![], Next::Cancelled) };
    let delivered = settlement(id, "one.example", vec![fate(0, Fate::Delivered)], Next::Cancelled);
    bench.queue.settle(vec![delivered, cancel("two.example")]).await.unwrap();
    let finals: Vec<_> =
        bench.events().into_iter().filter(|event| event.what.is_final()).map(|event| (event.what, event.recipient)).collect();
    let expected = [(What::Delivered, "a@one.example"), (What::Cancelled, "b@one.example"), (What::Cancelled, "c@two.example")];
    assert_eq!(finals, expected.map(|(what, recipient)| (what, recipient.to_owned())));
    let counts = bench.reader.counts().unwrap();
    assert_eq!((counts.messages, counts.deliveries, counts.held, counts.live_bytes), (0, 0, 0, 0));
    assert!(bench.list(&Filter { member: Some(1), ..Filter::default() }).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_queue_without_an_index_of_members_gets_one() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let id = bench.queue.enqueue(of(9, "a@one.example")).await.unwrap();
    bench.queue.transact(|txn, tables| Ok(tables.by_member.clear(txn)?)).await.unwrap();
    let filter = Filter { member: Some(9), ..Filter::default() };
    assert!(bench.list(&filter).is_empty());
    bench.close().await;
    let bench = Bench::open(&dir, options());
    assert_eq!(bench.list(&filter).iter().map(|found| found.id).collect::<Vec<_>>(), [id]);
}
