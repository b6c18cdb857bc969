//! Routes from a scripted zone.

use std::time::UNIX_EPOCH;

use host::dns::Zone;

use super::*;

fn router(zone: Zone, own: &[&str]) -> Router {
    Router {
        resolver: Resolver::scripted(zone),
        dice: Dice::seeded(1),
        surroundings: Arc::new(ArcSwap::from_pointee(Surroundings {
            own_names: vec!["relay.example".to_owned()],
            own_addresses: own.iter().map(|address| address.parse().unwrap()).collect(),
            families: Families { v4: true, v6: true },
            ..Surroundings::default()
        })),
        allow_private_addresses: true,
        port: 25,
    }
}

fn route(zone: Zone, own: &[&str], domain: &str) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match runtime.block_on(router(zone, own).route(domain, UNIX_EPOCH)) {
        Routed::Route(route) => Ok(route.hosts.iter().map(|host| host.name.to_string()).collect()),
        Routed::Trouble(trouble) => Err(format!("{:?} {:?} {}", trouble.verdict, trouble.code, trouble.text)),
    }
}

fn zone() -> Zone {
    let zone = Zone::new();
    for (preference, host, address) in
        [(10, "mx1", "192.0.2.1"), (20, "mx2", "192.0.2.2"), (20, "mx3", "192.0.2.3"), (30, "mx4", "192.0.2.4")]
    {
        let host = format!("{host}.example");
        zone.mx("big.example", preference, &host).address(&host, address.parse().unwrap());
    }
    zone
}

#[test]
fn a_host_that_is_ourselves_by_address_ends_the_route_before_it() {
    assert_eq!(route(zone(), &[], "big.example").unwrap().len(), 4);
    // RFC 5321 §5.1: neither ourselves nor whoever is as preferred or less.
    assert_eq!(route(zone(), &["192.0.2.2"], "big.example").unwrap(), ["mx1.example"]);
    assert_eq!(route(zone(), &["192.0.2.4"], "big.example").unwrap().len(), 3);
}

#[test]
fn mail_that_would_come_back_fails() {
    let said = route(zone(), &["192.0.2.1"], "big.example").unwrap_err();
    assert_eq!(said, "Failed (5, 4, 6) mail for big.example loops back to this host as mx1.example");
    assert_eq!(route(zone(), &["192.0.2.1"], "[192.0.2.1]").unwrap_err(), "Failed (5, 4, 6) [192.0.2.1] is this host");
    assert_eq!(route(zone(), &["192.0.2.1"], "[192.0.2.9]").unwrap(), ["[192.0.2.9]"]);
}

#[tokio::test(start_paused = true)]
async fn the_hosts_of_a_route_are_looked_up_side_by_side_and_stay_in_their_order() {
    let zone = zone();
    zone.set_latency(Duration::from_secs(2));
    // One after the other it would be ten seconds and more.
    let routed = tokio::time::timeout(Duration::from_secs(7), router(zone, &[]).route("big.example", UNIX_EPOCH)).await;
    let Ok(Routed::Route(route)) = routed else { panic!("no route in time") };
    let preferences: Vec<u16> = route.hosts.iter().map(|host| host.preference).collect();
    assert_eq!(preferences, [10, 20, 20, 30]);
}
