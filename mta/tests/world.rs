//! The seeded world: the daemon's own code on a simulated network, in virtual time, against scripted
//! providers. Days pass in milliseconds, and a seed that fails fails again.
//!
//! The checkers keep their own count: what got 250 is noted by the client that read the 250, and what
//! arrived by the providers. Nothing is asked of the code under test but the length of its queue.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

#[path = "world/answers.rs"]
mod answers;
#[path = "world/limits.rs"]
mod limits;
#[path = "world/log.rs"]
mod log;
#[path = "world/memory.rs"]
mod memory;
#[path = "world/notices.rs"]
mod notices;
#[path = "world/outward.rs"]
mod outward;
#[path = "world/parts.rs"]
mod parts;
#[path = "world/providers.rs"]
mod providers;
#[path = "world/reactions.rs"]
mod reactions;
#[path = "world/reload.rs"]
mod reload;
#[path = "../src/control/admin/schema_check.rs"]
mod schema_check;
#[path = "world/series.rs"]
mod series;
#[path = "world/settings.rs"]
mod settings;
#[path = "world/stopping.rs"]
mod stopping;
#[path = "world/sts.rs"]
mod sts;
#[path = "world/tls.rs"]
mod tls;
#[path = "world/warmup.rs"]
mod warmup;
#[path = "world/watch.rs"]
mod watch;

use std::time::Duration;

use loadtest::sink::{Act, Rule, Script, Stage};
use mta::queue::Fault;
use parts::World;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn mail_to_a_willing_provider_arrives_once_and_the_queue_is_empty() {
    let mut world = World::seed(1).provider("big.example", Script::accepts_all());
    world.live(HOUR, |day| async move {
        for n in 0..200 {
            day.submit(n, &["someone@big.example"]).await;
        }
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
}

#[test]
fn a_greylisting_provider_gets_its_mail_after_the_wait() {
    let mut world = World::seed(2).provider("grey.example", Script::greylists(Duration::from_secs(300)));
    world.live(6 * HOUR, |day| async move {
        for n in 0..20 {
            day.submit(n, &[&format!("user{n}@grey.example")]).await;
        }
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
    assert!(world.refusals() >= 20, "the provider never said no: nothing was tested");
}

#[test]
fn a_link_that_dies_delays_mail_and_loses_none() {
    let mut world = World::seed(3).provider("far.example", Script::accepts_all());
    world.live(12 * HOUR, |day| async move {
        for n in 0..30 {
            day.submit(n, &["someone@far.example"]).await;
            if n == 10 {
                day.cut("far.example");
            }
        }
        tokio::time::sleep(2 * HOUR).await;
        day.restore("far.example");
    });
    world.check_none_lost();
    world.check_duplicates_within(30);
    world.check_queue_is_empty();
}

#[test]
fn a_refused_recipient_makes_one_notice_to_the_sender_and_none_about_the_notice() {
    let mut world = World::seed(4)
        .provider("strict.example", Script::accepts_all().refuses("@strict.example"))
        // Notices go to the member's own domain, which refuses them too: the end of it.
        .provider("member.example", Script::accepts_all().refuses("nobody@member.example"));
    world.live(HOUR, |day| async move {
        day.submit(1, &["gone@strict.example"]).await;
    });
    world.check_queue_is_empty();
    let notices = world.arrived_at("member.example");
    assert_eq!(notices.len(), 1, "one notice");
    assert_eq!(notices[0].reverse_path, "", "a notice has a null reverse-path (RFC 5321 §6.1)");
    let text = String::from_utf8_lossy(&notices[0].octets).into_owned();
    assert!(text.contains("Final-Recipient: rfc822; gone@strict.example"), "{text}");
    assert!(text.contains("Diagnostic-Code: smtp; 550 5.1.1"), "{text}");
    assert!(!text.contains("one-time code"), "the body must not come back: {text}");
}

#[test]
fn mail_that_nobody_takes_expires_with_a_notice() {
    let mut world = World::seed(5)
        .provider(
            "down.example",
            Script::accepts_all().with(Rule::new(Stage::Connect, Act::ReplyAndClose("421 4.3.2 not now".into()))),
        )
        .provider("member.example", Script::accepts_all());
    world.live(24 * 4 * HOUR, |day| async move {
        day.submit(1, &["someone@down.example"]).await;
    });
    world.check_queue_is_empty();
    let notices = world.arrived_at("member.example");
    assert_eq!(notices.len(), 2, "late, then over");
    assert!(String::from_utf8_lossy(&notices[0].octets).contains("Action: delayed"));
    assert!(String::from_utf8_lossy(&notices[1].octets).contains("Status: 4.4.7"));
}

#[test]
fn a_crash_between_commit_and_reply_loses_nothing() {
    for (seed, fault) in
        [(10, Fault::StopBeforeCommit), (11, Fault::StopAfterCommit), (12, Fault::StopBeforeCommit), (13, Fault::StopAfterCommit)]
    {
        let mut world = World::seed(seed).provider("big.example", Script::accepts_all());
        world.live(Duration::from_secs(60), move |day| async move {
            for n in 0..40 {
                if n == 5 + seed {
                    day.fault(fault);
                }
                day.submit(n, &["someone@big.example"]).await;
            }
        });
        let overlap = world.delivered_and_still_queued();
        world.live(24 * HOUR, |_| async {});
        world.check_none_lost();
        world.check_duplicates_within(overlap);
        world.check_queue_is_empty();
    }
}

#[test]
fn in_a_dozen_random_worlds_each_recipient_has_one_final_event() {
    for seed in 400..412 {
        // Which mailboxes are refused, which provider asks for patience, and whether the power goes, is the seed's.
        let grumpy = Rule::new(Stage::Rcpt, Act::reply("451 4.2.1 not today")).to("user3@");
        let mut world = World::seed(seed)
            .provider("big.example", Script::accepts_all().refuses(&format!("user{}@", seed % 4)).with(grumpy))
            .provider("grey.example", Script::greylists(Duration::from_secs(60 * (seed % 7))))
            .provider("member.example", Script::accepts_all().refuses("nobody@member.example"));
        world.live(Duration::from_secs(60 + seed % 60), move |day| async move {
            for n in 0..20 {
                if n == 8 && seed.is_multiple_of(2) {
                    day.fault([Fault::StopBeforeCommit, Fault::StopAfterCommit][(seed / 2 % 2) as usize]);
                }
                let to = |user: u64, domain| format!("user{}@{domain}", (seed + user) % 5);
                let recipients = [to(n, "big.example"), to(n + 1, "big.example"), to(n, "grey.example"), to(n, "none.example")];
                let count = 1 + (seed + n) as usize % 4;
                day.submit(n, &recipients.iter().take(count).map(String::as_str).collect::<Vec<_>>()).await;
            }
        });
        world.check_one_final_event_each();
        world.live(24 * 6 * HOUR, |_| async {});
        world.check_queue_is_empty();
    }
}

/// A day on which mail waits on disk (its provider wants to see it twice) until the power goes at the `nth` operation.
fn live_until_the_power_goes(world: &mut World, seed: u64, nth: u64) {
    world.live(Duration::from_secs(90), move |day| async move {
        day.disk().cut_in(nth);
        if seed.is_multiple_of(3) {
            day.disk().fail_sync_in(1 + seed % 7);
        }
        if seed.is_multiple_of(5) {
            day.slow_disk(Duration::from_millis(300));
        }
        let senders = (0..4_u64).map(|sender| {
            let day = day.clone();
            host::spawn_local(async move {
                for n in 0..15 {
                    let domain = ["grey.example", "big.example"][((seed + n) % 2) as usize];
                    day.submit(seed << 16 | sender << 8 | n, &[&format!("user{n}@{domain}")]).await;
                }
            })
        });
        for sender in senders.collect::<Vec<_>>() {
            sender.await.unwrap();
        }
    });
}

#[test]
fn losses_of_power_lose_nothing_that_got_250() {
    let mut sectors = [0; 3];
    for seed in 200..208 {
        let mut world = World::seed(seed)
            .provider("grey.example", Script::greylists(Duration::from_secs(300)))
            .provider("big.example", Script::accepts_all());
        let mut overlap = 0;
        // The same disk loses its power three times, so that bodies are written where lost ones lay.
        for life in 0..3 {
            live_until_the_power_goes(&mut world, seed + 100 * life, 1 + (seed * 7 + life * 13) % 50);
            overlap += world.delivered_and_still_queued();
        }
        world.live(24 * HOUR, |_| async {});
        world.check_none_lost();
        world.check_duplicates_within(overlap);
        world.check_queue_is_empty();
        let found = world.sectors();
        sectors = [sectors[0] + found.lost, sectors[1] + found.kept, sectors[2] + found.torn];
    }
    assert!(sectors.iter().all(|count| *count > 0), "lost, kept and torn: {sectors:?}; not everything was tried");
}

#[test]
fn a_disk_that_lies_about_its_syncs_loses_mail_and_the_checkers_see_it() {
    let lost = (300..304).map(|seed| {
        let mut world =
            World::seed(seed).with_a_lying_disk().provider("grey.example", Script::greylists(Duration::from_secs(300)));
        live_until_the_power_goes(&mut world, seed, 60);
        world.live(24 * HOUR, |_| async {});
        world.lost()
    });
    assert!(lost.sum::<usize>() > 0, "nothing was lost: then the other tests prove nothing");
}

#[test]
fn worlds_of_many_seeds_lose_nothing() {
    for seed in 100..112 {
        let mut world = World::seed(seed)
            .provider("a.example", Script::accepts_all().defers(2))
            .provider("b.example", Script::greylists(Duration::from_secs(60)))
            .provider("c.example", Script { messages_per_connection_max: Some(3), chunking: true, ..Script::default() })
            .provider("d.example", Script { pipelining: false, ..Script::accepts_all() });
        world.live(24 * HOUR, move |day| async move {
            let mut state = seed;
            for n in 0..40 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let domain = ["a.example", "b.example", "c.example", "d.example"][(state >> 33) as usize % 4];
                day.submit(n, &[&format!("user{n}@{domain}")]).await;
                if state >> 40 & 15 == 0 {
                    day.cut(domain);
                    tokio::time::sleep(Duration::from_secs(state >> 50)).await;
                    day.restore(domain);
                }
            }
        });
        world.check_none_lost();
        world.check_queue_is_empty();
    }
}
