//! What hosts lack, and what follows: another host of the route, or the end.

use std::time::Duration;

use loadtest::sink::Script;

use super::HOUR;
use super::parts::World;

/// Takes no message of ours: the header section alone is larger.
fn tiny() -> Script {
    Script { message_bytes_max: Some(100), ..Script::default() }
}

#[test]
fn a_message_too_large_for_one_host_goes_to_the_next() {
    let mut world = World::seed(600).provider("big.example", tiny()).backup("big.example", "roomy", Script::accepts_all());
    world.live(HOUR, |day| async move {
        for n in 0..5 {
            day.submit(n, &["someone@big.example"]).await;
        }
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
    assert_eq!(world.arrived_at("roomy").len(), 5);
    assert_eq!(world.refusals(), 0, "SIZE is compared before anything is sent");
}

#[test]
fn a_message_too_large_for_all_hosts_fails_at_once() {
    let mut world = World::seed(601)
        .provider("big.example", tiny())
        .backup("big.example", "tiny", tiny())
        .provider("member.example", Script::accepts_all());
    world.live(Duration::from_secs(60), |day| async move {
        day.submit(1, &["someone@big.example"]).await;
    });
    world.check_queue_is_empty();
    let notices = world.arrived_at("member.example");
    let text = String::from_utf8_lossy(&notices[0].octets).into_owned();
    assert!(notices.len() == 1 && text.contains("Status: 5.3.4"), "{text}");
    assert_eq!(world.refusals(), 0, "SIZE is compared before anything is sent");
}

#[test]
fn while_another_host_cannot_be_asked_the_message_waits_for_it() {
    let mut world = World::seed(602).provider("big.example", tiny()).backup("big.example", "roomy", Script::accepts_all());
    world.live(12 * HOUR, |day| async move {
        day.cut("roomy");
        day.submit(1, &["someone@big.example"]).await;
        tokio::time::sleep(2 * HOUR).await;
        day.restore("roomy");
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
    assert_eq!(world.arrived_at("roomy").len(), 1);
}
