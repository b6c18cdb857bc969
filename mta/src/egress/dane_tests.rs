//! The ways from a domain to the TLSA records of its hosts, and what each demands.

use std::time::SystemTime;

use host::Dice;
use host::dns::{Tlsa as Record, Zone};
use scheduler::{Route, Routed};

use super::*;
use crate::egress::plan::Surroundings;
use crate::egress::route::{Families, Router};
use arc_swap::ArcSwap;

/// A signed domain with one host that has a record.
fn signed() -> Zone {
    let zone = Zone::new();
    zone.mx("dest.test", 10, "mx.dest.test").sign("dest.test");
    zone.address("mx.dest.test", "198.51.100.1".parse().unwrap()).tlsa("_25._tcp.mx.dest.test", record(3));
    zone
}

fn record(usage: u8) -> Record {
    Record { usage, selector: 1, matching: 1, data: vec![7; 32] }
}

fn route(zone: &Zone) -> Routed {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let router = Router {
        resolver: Resolver::scripted(zone.clone()),
        dice: Dice::seeded(1),
        surroundings: Arc::new(ArcSwap::from_pointee(Surroundings {
            families: Families { v4: true, v6: true },
            ..Default::default()
        })),
        allow_private_addresses: true,
        port: 25,
    };
    runtime.block_on(router.route("dest.test", SystemTime::UNIX_EPOCH))
}

fn found(zone: &Zone) -> Arc<Route> {
    match route(zone) {
        Routed::Route(route) => route,
        Routed::Trouble(trouble) => panic!("{trouble:?}"),
    }
}

/// What is demanded of the first host: its base domain and names, or what it is called.
fn demanded(zone: &Zone) -> String {
    match &found(zone).hosts[0].demand {
        Demand::Dane(dane) => format!("dane {} {}", dane.base, dane.names.join(" ")).trim_end().to_owned(),
        other => other.name().to_owned(),
    }
}

#[test]
fn records_count_where_the_whole_way_is_signed() {
    assert_eq!(demanded(&signed()), "dane mx.dest.test");
    let zone = signed();
    zone.unsign("dest.test");
    assert_eq!(demanded(&zone), "opportunistic");
    // The host is signed and the domain is not: who forges the MX records names another host.
    zone.sign("mx.dest.test").sign("_25._tcp.mx.dest.test");
    assert_eq!(demanded(&zone), "opportunistic");
    // The domain is signed and its host is not.
    let zone = Zone::new();
    zone.mx("dest.test", 10, "mx.host.test").sign("dest.test");
    zone.address("mx.host.test", "198.51.100.1".parse().unwrap()).tlsa("_25._tcp.mx.host.test", record(3));
    assert_eq!(demanded(&zone), "opportunistic");
    zone.sign("host.test");
    assert_eq!(demanded(&zone), "dane mx.host.test");
}

#[test]
fn a_host_without_records_demands_nothing_and_the_policy_says_which_has_some() {
    let zone = signed();
    zone.mx("dest.test", 20, "backup.dest.test").address("backup.dest.test", "198.51.100.2".parse().unwrap());
    let route = found(&zone);
    assert_eq!(route.hosts[1].demand, Demand::Opportunistic);
    assert_eq!(route.tls.name(), "dane");
    assert_eq!(*route.tls.strings[0], *format!("_25._tcp.mx.dest.test. IN TLSA 3 1 1 {}", "07".repeat(32)));
    assert_eq!(*route.site, *"backup.dest.test,mx.dest.test");
    zone.remove("_25._tcp.mx.dest.test");
    assert_eq!(found(&zone).tls.name(), "opportunistic");
}

#[test]
fn records_that_cannot_be_used_demand_tls_and_no_certificate() {
    let zone = signed();
    zone.remove("_25._tcp.mx.dest.test").tlsa("_25._tcp.mx.dest.test", record(1)).tlsa("_25._tcp.mx.dest.test", record(0));
    assert_eq!(demanded(&zone), "encrypted");
    zone.tlsa("_25._tcp.mx.dest.test", record(3));
    assert_eq!(demanded(&zone), "dane mx.dest.test");
}

#[test]
fn records_that_cannot_be_seen_bar_the_host_and_leave_the_site_as_it_is() {
    let (failing, forged) = (signed(), signed());
    failing.fail("_25._tcp.mx.dest.test", "SERVFAIL");
    forged.forge("_25._tcp.mx.dest.test", "signature expired");
    for (zone, why) in [(failing, "no answer now: SERVFAIL"), (forged, "forged, or badly signed: signature expired")] {
        let route = found(&zone);
        let Demand::Barred(barred) = &route.hosts[0].demand else { panic!("{route:?}") };
        assert!(barred.text.ends_with(why), "{}", barred.text);
        assert_eq!(barred.failure, TlsFailure::DnssecInvalid);
        assert_eq!((&*route.site, route.valid_until), ("mx.dest.test", SystemTime::UNIX_EPOCH + BARRED_TTL));
    }
}

#[test]
fn forged_mx_records_and_addresses_lead_nowhere() {
    let zone = signed();
    zone.forge("dest.test", "signature expired");
    let Routed::Trouble(trouble) = route(&zone) else { panic!() };
    assert_eq!((trouble.verdict, trouble.code), (scheduler::Verdict::Deferred, (4, 4, 3)));
    zone.recover("dest.test").forge("mx.dest.test", "signature expired");
    let Routed::Trouble(trouble) = route(&zone) else { panic!() };
    assert_eq!((trouble.verdict, trouble.code), (scheduler::Verdict::Deferred, (4, 4, 3)));
}

#[test]
fn an_alias_is_asked_for_its_target_s_records_first_and_then_for_its_own() {
    let zone = Zone::new();
    zone.mx("dest.test", 10, "mx.dest.test").alias("mx.dest.test", "real.host.test").sign("dest.test").sign("host.test");
    zone.address("real.host.test", "198.51.100.1".parse().unwrap());
    assert_eq!(demanded(&zone), "opportunistic");
    zone.tlsa("_25._tcp.mx.dest.test", record(3));
    assert_eq!(demanded(&zone), "dane mx.dest.test");
    zone.tlsa("_25._tcp.real.host.test", record(3));
    assert_eq!(demanded(&zone), "dane real.host.test");
    // The target is not signed: the alias itself is, so its own records count.
    zone.unsign("host.test");
    assert_eq!(demanded(&zone), "dane mx.dest.test");
    zone.unsign("dest.test");
    assert_eq!(demanded(&zone), "opportunistic");
}

#[test]
fn a_failure_at_the_target_is_not_followed_by_the_alias_s_own_records() {
    let zone = Zone::new();
    zone.mx("dest.test", 10, "mx.dest.test").alias("mx.dest.test", "real.dest.test").sign("dest.test");
    zone.address("real.dest.test", "198.51.100.1".parse().unwrap());
    zone.tlsa("_25._tcp.mx.dest.test", record(3)).fail("_25._tcp.real.dest.test", "SERVFAIL");
    assert_eq!(demanded(&zone), "barred");
}

#[test]
fn a_trust_anchor_s_certificates_may_name_the_domain_and_what_it_is_an_alias_of() {
    let zone = signed();
    zone.tlsa("_25._tcp.mx.dest.test", record(2));
    assert_eq!(demanded(&zone), "dane mx.dest.test dest.test");
    // The domain is an alias.
    let zone = Zone::new();
    zone.alias("dest.test", "real.test").mx("real.test", 10, "mx.real.test").sign("dest.test").sign("real.test");
    zone.address("mx.real.test", "198.51.100.1".parse().unwrap()).tlsa("_25._tcp.mx.real.test", record(2));
    assert_eq!(demanded(&zone), "dane mx.real.test dest.test real.test");
}

#[test]
fn a_domain_without_mx_records_is_its_own_host() {
    let zone = Zone::new();
    zone.address("dest.test", "198.51.100.1".parse().unwrap()).tlsa("_25._tcp.dest.test", record(2)).sign("dest.test");
    assert_eq!(demanded(&zone), "dane dest.test");
    zone.unsign("dest.test");
    assert_eq!(demanded(&zone), "opportunistic");
}
