//! Limits, one by one and from many threads.

use std::time::UNIX_EPOCH;

use super::super::rate::Rate;
use super::*;

fn at(secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(20_000 * 86_400 + secs)
}

fn account(tier: Tier) -> Account {
    Account::new(Arc::new(tier), Arc::default())
}

fn tier() -> Tier {
    Tier::unlimited("small")
}

fn nothing() -> Held {
    Held::default()
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, Limit>) -> String {
    answer.unwrap_err().reply("member.example").to_string()
}

#[test]
fn each_limit_is_named_with_the_time_to_come_back() {
    let hourly = account(Tier { rate: Some(Rate::per_hour(100, 10)), ..tier() });
    hourly.take(at(0), 10, 1, nothing).unwrap().keep();
    assert_eq!(
        refusal(hourly.look(at(0), 6, 1, nothing())),
        "451 4.7.1 member.example may send 100 an hour; room again in 4 min"
    );
    assert_eq!(refusal(hourly.take(at(0), 1, 1, nothing)), "451 4.7.1 member.example may send 100 an hour; room again in 36 s");
    assert_eq!(
        refusal(hourly.look(at(0), 11, 1, nothing())),
        "452 4.5.3 member.example may send to 10 recipients at once; send the rest in another transaction"
    );

    let daily = account(Tier { messages_per_day: Some(50), ..tier() });
    daily.take(at(6 * 3600), 50, 1, nothing).unwrap().keep();
    assert_eq!(
        refusal(daily.look(at(6 * 3600), 1, 1, nothing())),
        "451 4.7.1 member.example may send 50 a day; room again in 18 h"
    );
    assert_eq!(daily.look(at(0), 51, 1, nothing()), Err(Limit::Burst(50)), "no day has so many");

    let share = account(Tier { queue_messages_max: Some(20), queue_bytes_max: Some(100_000), ..tier() });
    let held = Held { messages: 20, bytes: 90_000, leaves_in: Some(Duration::from_secs(150)) };
    assert_eq!(
        refusal(share.look(at(0), 1, 1, held)),
        "452 4.3.1 member.example may have 20 messages in the queue, and has; the next is likely to leave in 3 min"
    );
    let held = Held { messages: 2, bytes: 99_000, leaves_in: None };
    assert_eq!(
        refusal(share.look(at(0), 1, 2_000, held)),
        "452 4.3.1 member.example may have 100000 octets in the queue, and has; come back when some are delivered"
    );
    assert_eq!(
        refusal(share.look(at(0), 1, 100_001, nothing())),
        "552 5.3.4 the message is larger than all that member.example may have in the queue: 100000 octets"
    );
    share.take(at(0), 1, 100_000, nothing).unwrap().keep();
}

#[test]
fn a_refused_message_spends_nothing_of_any_limit() {
    let account =
        account(Tier { rate: Some(Rate::per_hour(100, 10)), messages_per_day: Some(12), queue_messages_max: Some(1), ..tier() });
    let full = || Held { messages: 1, ..Held::default() };
    for _ in 0..50 {
        account.take(at(0), 3, 1, full).unwrap_err();
        account.look(at(0), 11, 1, nothing()).unwrap_err();
        // Taken, and then the queue said no.
        drop(account.take(at(0), 10, 1, nothing).unwrap());
    }
    assert_eq!((account.available(at(0)), account.spent_today(at(0))), (Some(10), 0));
    account.take(at(0), 10, 1, nothing).unwrap().keep();
    // The hour has room again for three, the day has not: what the hour gave comes back.
    account.take(at(3600), 3, 1, nothing).unwrap_err();
    assert_eq!((account.available(at(3600)), account.spent_today(at(3600))), (Some(2), 10));
    account.take(at(3600), 2, 1, nothing).unwrap().keep();
}

#[test]
fn spending_goes_on_under_another_tier() {
    let meter = Arc::<Meter>::default();
    let small = Account::new(Arc::new(Tier { messages_per_day: Some(10), ..tier() }), meter.clone());
    small.take(at(0), 10, 1, nothing).unwrap().keep();
    let large = Account::new(Arc::new(Tier { messages_per_day: Some(15), ..tier() }), meter);
    assert_eq!(large.available(at(0)), Some(5));
    large.take(at(0), 6, 1, nothing).unwrap_err();
}

/// A queue that is seen as it was committed, by sixteen threads that enqueue into it.
#[test]
fn sixteen_threads_fill_a_share_and_never_overfill_it() {
    const MAX: u64 = 1000;
    let account = account(Tier { queue_messages_max: Some(MAX), messages_per_day: Some(MAX), ..tier() });
    let (queued, most) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..16u64 {
            let (account, queued, most) = (&account, &queued, &most);
            scope.spawn(move || {
                for nth in 0..2_000 {
                    let held = || Held { messages: queued.load(Ordering::Acquire), ..Held::default() };
                    let Ok(spent) = account.take(at(0), 1, 1, held) else { continue };
                    if (thread + nth) % 5 == 0 {
                        continue; // Refused after all.
                    }
                    // Committed, then answered.
                    most.fetch_max(queued.fetch_add(1, Ordering::AcqRel) + 1, Ordering::Relaxed);
                    spent.keep();
                }
            });
        }
    });
    let held = || Held { messages: queued.load(Ordering::Acquire), ..Held::default() };
    while let Ok(spent) = account.take(at(0), 1, 1, held) {
        most.fetch_max(queued.fetch_add(1, Ordering::AcqRel) + 1, Ordering::Relaxed);
        spent.keep();
    }
    assert_eq!((most.into_inner(), account.spent_today(at(0))), (MAX, MAX));
}
