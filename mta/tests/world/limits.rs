//! What a member's tier allows, and clients that try again, as the daemon's own code lives through it.

use std::collections::BTreeSet;
use std::time::Duration;

use loadtest::sink::Script;
use mta::queue::Fault;

use super::HOUR;
use super::parts::World;

const MINUTE: Duration = Duration::from_secs(60);
const SMALL: &str = "[[tier]]\nname = \"small\"\nmessages_per_hour = 60\nburst = 10\n";

#[test]
fn one_member_at_its_limit_is_told_when_to_come_back_and_another_is_unharmed() {
    let mut world =
        World::seed(20).settings(SMALL).member("busy.example", "small").provider("big.example", Script::accepts_all());
    world.live(3 * HOUR, |day| async move {
        let (mut taken, mut refused) = (0, 0);
        let began = tokio::time::Instant::now();
        // The busy one tries every ten seconds for two hours, the other sends one a minute.
        for n in 0..720 {
            let said = day.submit_from("busy.example", n, &["someone@big.example"]).await.unwrap();
            if said.starts_with("250") {
                taken += 1;
            } else {
                refused += 1;
                let minute = said.starts_with("451 4.7.1 busy.example may send 60 an hour; room again in ");
                assert!(minute && said.trim_end().ends_with(" s"), "{said}");
            }
            if n % 6 == 0 {
                let said = day.submit_from("member.example", 10_000 + n, &["someone@big.example"]).await.unwrap();
                assert!(said.starts_with("250"), "{said}");
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        let minutes = began.elapsed().as_secs() / 60;
        assert!((minutes..=10 + minutes).contains(&taken) && refused > 500, "{taken} taken, {refused} refused");
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
}

#[test]
fn a_message_to_many_is_as_many() {
    let mut world =
        World::seed(21).settings(SMALL).member("busy.example", "small").provider("big.example", Script::accepts_all());
    world.live(HOUR, |day| async move {
        let users: Vec<String> = (0..11).map(|n| format!("user{n}@big.example")).collect();
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        let said = day.submit_from("busy.example", 1, &users).await.unwrap();
        assert!(said.starts_with("452 4.5.3 busy.example may send to 10 recipients at once"), "{said}");
        // Nothing was spent on it.
        let said = day.submit_from("busy.example", 2, &users[..10]).await.unwrap();
        assert!(said.starts_with("250"), "{said}");
        let said = day.submit_from("busy.example", 3, &users[..1]).await.unwrap();
        assert!(said.starts_with("451 4.7.1 busy.example may send 60 an hour; room again in 60 s"), "{said}");
        tokio::time::sleep(2 * MINUTE).await;
        let said = day.submit_from("busy.example", 4, &users[..3]).await.unwrap();
        assert!(said.starts_with("451 4.7.1"), "two have come back, and three are wanted: {said}");
        let said = day.submit_from("busy.example", 5, &users[..2]).await.unwrap();
        assert!(said.starts_with("250"), "{said}");
    });
    world.check_queue_is_empty();
}

#[test]
fn a_day_s_allowance_is_given_once_however_often_the_daemon_is_killed() {
    let mut world = World::seed(22)
        .settings("[[tier]]\nname = \"daily\"\nmessages_per_day = 30\n")
        .member("busy.example", "daily")
        .provider("big.example", Script::accepts_all());
    let refusal = "451 4.7.1 busy.example may send 30 a day; room again in ";
    for life in 0..4 {
        world.live(HOUR, move |day| async move {
            for n in 0..20 {
                if n == 7 {
                    day.fault([Fault::StopBeforeCommit, Fault::StopAfterCommit][life as usize % 2]);
                }
                let said = day.submit_from("busy.example", 100 * life + n, &["someone@big.example"]).await;
                assert!(said.is_none_or(|said| said.starts_with("250") || said.starts_with("421") || said.starts_with(refusal)));
            }
        });
    }
    world.live(HOUR, move |day| async move {
        for n in 500..550 {
            let said = day.submit_from("busy.example", n, &["someone@big.example"]).await.unwrap();
            assert!(said.starts_with("250") || said.starts_with(refusal), "{said}");
        }
        // The other member, which has no such limit, is not asked to wait.
        let said = day.submit_from("member.example", 600, &["someone@big.example"]).await.unwrap();
        assert!(said.starts_with("250"), "{said}");
    });
    let arrived: BTreeSet<u64> = world.arrivals().into_iter().filter(|n| *n < 600).collect();
    assert_eq!(arrived.len(), 30, "each day's allowance is given whole, and once");
    world.live(24 * HOUR, |_| async {});
    world.live(HOUR, |day| async move {
        let said = day.submit_from("busy.example", 700, &["someone@big.example"]).await.unwrap();
        assert!(said.starts_with("250"), "the next day has an allowance of its own: {said}");
    });
}

#[test]
fn a_member_that_fills_its_share_of_the_queue_waits_until_mail_leaves() {
    let mut world = World::seed(23)
        .settings("[[tier]]\nname = \"small\"\nqueue_messages_max = 5\n")
        .member("busy.example", "small")
        .provider("down.example", Script::accepts_all());
    world.live(12 * HOUR, |day| async move {
        day.cut("down.example");
        for n in 0..5 {
            let said = day.submit_from("busy.example", n, &["someone@down.example"]).await.unwrap();
            assert!(said.starts_with("250"), "{said}");
        }
        let said = day.submit_from("busy.example", 5, &["someone@down.example"]).await.unwrap();
        assert!(said.starts_with("452 4.3.1 busy.example may have 5 messages in the queue, and has; "), "{said}");
        let said = day.submit_from("member.example", 100, &["someone@down.example"]).await.unwrap();
        assert!(said.starts_with("250"), "{said}");
        day.restore("down.example");
        tokio::time::sleep(6 * HOUR).await;
        let said = day.submit_from("busy.example", 6, &["someone@down.example"]).await.unwrap();
        assert!(said.starts_with("250"), "{said}");
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
}

#[test]
fn a_client_that_tries_again_after_a_crash_is_served_once() {
    for (seed, fault) in [(30, Fault::StopAfterCommit), (31, Fault::StopBeforeCommit), (32, Fault::StopAfterCommit)] {
        let mut world = World::seed(seed).provider("big.example", Script::accepts_all());
        world.live(MINUTE, move |day| async move {
            // So that none is being delivered when the daemon dies: those could arrive twice, and not by the client's doing.
            day.cut("big.example");
            for n in 0..10 {
                if n == seed - 25 {
                    day.fault(fault);
                }
                day.submit(n, &["someone@big.example"]).await;
            }
        });
        let unanswered = world.unanswered();
        assert!(!unanswered.is_empty(), "seed {seed}: everything was answered, so nothing is tested");
        world.live(24 * HOUR, move |day| async move {
            for n in unanswered {
                let said = day.submit_from("member.example", n, &["someone@big.example"]).await.unwrap();
                assert!(said.starts_with("250"), "{said}");
            }
        });
        world.check_all_arrived_once();
        assert_eq!(world.arrivals().len(), 10, "seed {seed}");
        world.check_queue_is_empty();
    }
}

#[test]
fn of_two_that_submit_the_same_at_the_same_time_both_get_the_one_id() {
    let mut world = World::seed(33).provider("big.example", Script::accepts_all());
    world.live(HOUR, |day| async move {
        for n in 0..30 {
            let submit = || day.submit_from("member.example", n, &["someone@big.example"]);
            let (one, two) = tokio::join!(submit(), submit());
            assert!(one.as_ref().is_some_and(|said| said.starts_with("250 2.0.0 queued as ")), "{one:?}");
            assert_eq!(one, two);
            // And once more when it has long been delivered.
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(submit().await, one);
        }
        tokio::time::sleep(Duration::from_secs(61 * 60) / 2).await;
    });
    world.check_all_arrived_once();
    assert_eq!(world.arrivals().len(), 30);
    // Past the window it is another message; switched off, nothing is suppressed.
    world.live(HOUR, |day| async move { day.submit(0, &["someone@big.example"]).await });
    assert_eq!(world.arrivals().len(), 31);
    let mut world = World::seed(34).settings("[duplicates]\nsuppress = false\n").provider("big.example", Script::accepts_all());
    world.live(HOUR, |day| async move {
        day.submit(1, &["someone@big.example"]).await;
        day.submit(1, &["someone@big.example"]).await;
    });
    assert_eq!(world.arrivals().len(), 2);
}

#[test]
fn a_client_that_names_its_transaction_may_write_the_date_anew_and_is_not_robbed_of_its_next_message() {
    let mut world = World::seed(35).provider("big.example", Script::accepts_all());
    world.live(HOUR, |day| async move {
        let submit = |n: u64, envid: &str, fields: &str| {
            let (from, fields) = (format!("<app@member.example>{envid}"), fields.to_owned());
            let day = day.clone();
            async move { day.submit_as("member.example", n, &from, &["<someone@big.example>".to_owned()], &fields).await }
        };
        let first = submit(1, " ENVID=QQ314159", "Date: Mon, 23 Nov 2026 09:42:19 +0000\r\n").await;
        assert!(first.as_ref().is_some_and(|said| said.starts_with("250")), "{first:?}");
        assert_eq!(submit(1, " ENVID=QQ314159", "Date: Mon, 23 Nov 2026 09:43:20 +0000\r\n").await, first);
        // The same ENVID for another code, and the same message without the name of its transaction.
        assert_ne!(submit(2, " ENVID=QQ314159", "").await, first);
        let unnamed = submit(3, "", "Date: Mon, 23 Nov 2026 09:42:19 +0000\r\n").await;
        assert_ne!(submit(3, "", "Date: Mon, 23 Nov 2026 09:43:20 +0000\r\n").await, unnamed);
    });
    let mut arrived = world.arrivals();
    arrived.sort_unstable();
    assert_eq!(arrived, [1, 2, 3, 3]);
}
