use super::*;
use host::dns::Zone;

const ADDRESS: &str = "192.0.2.7";

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn named(set: impl Fn(&Zone)) -> Verdict {
    let zone = Zone::new();
    set(&zone);
    run(verdict(&Resolver::scripted(zone), ip(ADDRESS), "A.relay.test"))
}

#[test]
fn a_source_s_name_must_lead_there_and_back_and_be_the_one_of_ehlo() {
    let good = |zone: &Zone| {
        zone.ptr(ip(ADDRESS), "a.relay.test").address("a.relay.test", ip(ADDRESS));
    };
    assert_eq!(named(good), Verdict::Good);
    assert_eq!(named(|_| {}), Verdict::Nameless);
    let gone = named(|zone| {
        zone.ptr(ip(ADDRESS), "old.relay.test").address("a.relay.test", ip(ADDRESS));
    });
    assert_eq!(gone, Verdict::Unconfirmed("old.relay.test".into()));
    let other = named(|zone| {
        good(zone);
        zone.fail("a.relay.test", "no server");
    });
    assert!(matches!(other, Verdict::Unknown(_)), "{other:?}");
    let generic = named(|zone| {
        zone.ptr(ip(ADDRESS), "host7.isp.test").address("host7.isp.test", ip(ADDRESS)).address("a.relay.test", ip(ADDRESS));
    });
    assert_eq!(generic, Verdict::OtherName("host7.isp.test".into()));
    let elsewhere = named(|zone| {
        zone.ptr(ip(ADDRESS), "host7.isp.test").address("host7.isp.test", ip(ADDRESS)).address("a.relay.test", ip("192.0.2.8"));
    });
    assert_eq!(elsewhere, Verdict::EhloElsewhere);
    let source = Source { index: 0, name: "ip-a".into(), address: ip(ADDRESS), ehlo: "a.relay.test".into() };
    for wrong in [Verdict::Nameless, gone, generic, elsewhere] {
        let told = wrong.trouble(&source).unwrap();
        assert!(told.contains("a.relay.test") && told.contains(ADDRESS), "{told}");
    }
    assert_eq!(run(verdict(&Resolver::scripted(Zone::new()), ip("127.0.0.9"), "a")), Verdict::Loopback);
}

#[test]
fn block_lists_are_asked_by_octets_and_nibbles_in_reverse() {
    assert_eq!(question(ip("192.0.2.99"), "bl.test."), "99.2.0.192.bl.test");
    // The example of RFC 5782 §2.4.
    assert_eq!(
        question(ip("2001:db8:1:2:3:4:567:89ab"), "ugly.example.com"),
        "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ugly.example.com"
    );
}

#[test]
fn only_what_a_block_list_says_of_the_address_is_a_listing() {
    let zone = Zone::new();
    let resolver = Resolver::scripted(zone.clone());
    let start = SystemTime::UNIX_EPOCH;
    let ask = |before: Option<&Listing>, now| run(listing(&resolver, ip(ADDRESS), "bl.test", before, now));
    let name = question(ip(ADDRESS), "bl.test");
    assert_eq!(ask(None, start), Listing::Clean);
    zone.address(&name, ip("127.0.0.2"));
    let listed = ask(None, start);
    assert_eq!(listed, Listing::Listed(ip("127.0.0.2"), start));
    assert_eq!(ask(Some(&listed), start + Duration::from_secs(900)), listed, "since when is kept");
    for (answer, is) in
        [("127.255.255.254", "refused"), ("127.0.0.1", "unknown"), ("198.51.100.1", "unknown"), ("127.0.0.10", "listed")]
    {
        zone.remove(&name).address(&name, ip(answer));
        let found = match ask(None, start) {
            Listing::Clean => "clean",
            Listing::Listed(..) => "listed",
            Listing::Refused(_) => "refused",
            Listing::Unknown(_) => "unknown",
        };
        assert_eq!(found, is, "{answer}");
    }
    zone.fail(&name, "no server");
    assert!(matches!(ask(Some(&listed), start), Listing::Unknown(_)));
}
