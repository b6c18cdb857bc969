//! The watch over our own sources, with a block list that lists one and lets it go.

use std::time::Duration;

use loadtest::sink::Script;
use mta::control::admin::Operations;
use mta::egress::watch::question;

use super::HOUR;
use super::parts::World;

const MINUTE: Duration = Duration::from_secs(60);
const SETTINGS: &str = "[[source]]\nname = \"ip-b\"\naddress = \"2001:db8::12\"\nehlo = \"b.relay.world.test\"\n\
                        [dnsbl]\nzones = [\"bl.test\", \"shy.test\"]\ninterval = \"5m\"\n";

#[test]
fn a_listed_source_is_shown_sends_less_and_is_well_again_when_it_is_delisted() {
    let mut world = World::seed(70).settings(SETTINGS).provider("big.example", Script::accepts_all());
    let zone = world.zone();
    let (a, b) = ("192.0.2.11".parse().unwrap(), "2001:db8::12".parse().unwrap());
    zone.ptr(a, "a.relay.world.test").address("a.relay.world.test", a);
    zone.address(&question(b, "bl.test"), "127.0.0.4".parse().unwrap());
    zone.address(&question(a, "shy.test"), "127.255.255.254".parse().unwrap());
    let listed = question(b, "bl.test");
    world.live(HOUR, |day| async move {
        let desk = day.desk();
        let shown = async || {
            let rows = desk.sources().await.unwrap();
            let says = |row: &mta::control::api::SourceRow| row.zones.iter().map(|zone| zone.says.clone()).collect::<Vec<_>>();
            let overall = |row: &mta::control::api::SourceRow| {
                row.health.iter().find(|row| row.provider.is_none()).map(|row| row.health.clone()).unwrap()
            };
            rows.iter().map(|row| (row.ptr.clone(), says(row).join(" "), overall(row))).collect::<Vec<_>>()
        };
        let is = |ptr: &str, zones: &str, health: &str| (ptr.to_owned(), zones.to_owned(), health.to_owned());
        tokio::time::sleep(MINUTE).await;
        // What a zone will not say is no listing.
        assert_eq!(shown().await, [is("good", "clean refused", "healthy"), is("nameless", "listed clean", "degraded")]);
        let rows = desk.sources().await.unwrap();
        assert!(rows[1].trouble.as_ref().unwrap().contains("has no PTR record"), "{rows:?}");
        assert_eq!(rows[1].zones[0].answer.as_deref(), Some("127.0.0.4"));
        assert_eq!((rows[0].pools[0].pool.as_str(), rows[0].pools[0].weight), ("default", 1));

        // While nobody can say, what was known holds for a while, and no longer.
        zone.fail(&listed, "no server");
        tokio::time::sleep(10 * MINUTE).await;
        assert_eq!(shown().await[1], is("nameless", "unknown clean", "degraded"));
        zone.recover(&listed);
        tokio::time::sleep(6 * MINUTE).await;
        assert_eq!(shown().await[1], is("nameless", "listed clean", "degraded"));

        zone.remove(&listed);
        tokio::time::sleep(6 * MINUTE).await;
        assert_eq!(shown().await[1], is("nameless", "clean clean", "healthy"));
        day.submit(1, &["someone@big.example"]).await;
    });
    world.check_all_arrived_once();
}
