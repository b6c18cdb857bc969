//! A daemon that is told to stop, in virtual time: what it waits for, and what it leaves for the next one.

use std::time::Duration;

use loadtest::sink::{Act, Rule, Script, Stage};

use super::parts::World;

/// A provider that thinks for a while before it says 250.
fn thinks(secs: u64) -> Script {
    Script::accepts_all().with(Rule::new(Stage::EndOfData, Act::Delay(Duration::from_secs(secs))))
}

#[test]
fn a_stop_finishes_what_a_host_has_begun_to_take_and_leaves_what_none_answers() {
    let mut world = World::seed(20).provider("slow.example", thinks(3)).provider("far.example", Script::accepts_all());
    let took = world.live_and_stop(|day| async move {
        day.cut("far.example");
        day.submit(1, &["someone@slow.example"]).await;
        day.submit(2, &["someone@far.example"]).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    });
    assert!(took < Duration::from_secs(5), "a host that does not answer was waited for: {took:?}");
    assert_eq!(world.arrived_at("slow.example").len(), 1, "what the host had in its hands was finished");
    // As if it had not been tried: a delivery that had failed would wait for longer than this.
    world.live(Duration::from_secs(20), |_| async {});
    world.check_all_arrived_once();
    world.check_queue_is_empty();
}

#[test]
fn a_stop_does_not_wait_for_ever_and_loses_nothing_by_that() {
    let mut world = World::seed(21).provider("slow.example", thinks(60));
    let took = world.live_and_stop(|day| async move {
        day.submit(1, &["someone@slow.example"]).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    });
    // drain_secs by default, and a moment for last words.
    assert!((Duration::from_secs(15)..Duration::from_secs(20)).contains(&took), "{took:?}");
    world.live(Duration::from_secs(600), |_| async {});
    world.check_none_lost();
    world.check_duplicates_within(1);
    world.check_queue_is_empty();
}

#[test]
fn a_stop_with_nothing_to_do_takes_no_time() {
    let mut world = World::seed(22).provider("big.example", Script::accepts_all());
    let took = world.live_and_stop(|day| async move {
        day.submit(1, &["someone@big.example"]).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    });
    assert!(took < Duration::from_secs(1), "{took:?}");
    world.check_all_arrived_once();
}
