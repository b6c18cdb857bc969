use std::net::SocketAddr;

use super::*;
use crate::sink::{Act, Provider, Rule, Script, Sink, Stage};
use crate::tls::{Certificate, client_that_trusts_all};

fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn load(target: Target) -> Load {
    Load {
        target,
        connections: 5,
        keep_alive: true,
        message_bytes: 4096,
        from: "noreply@member.test".into(),
        domains: vec!["a.test".into(), "b.test".into()],
        category: None,
        rate: None,
        persistent: false,
    }
}

#[test]
fn every_message_of_a_load_arrives_once() {
    for keep_alive in [true, false] {
        let ledger = Arc::new(Ledger::new(200));
        let provider = Provider::for_load(Script::accepts_all(), Some(ledger.clone()));
        let sink = Sink::start(anywhere(), provider.clone(), None).unwrap();
        let load = Load { keep_alive, ..load(Target::plain(sink.address())) };
        let report = run(&load, &ledger, &AtomicBool::new(false)).unwrap();
        assert_eq!((report.accepted, report.refused, report.broken), (200, 0, 0), "{:?}", report.reasons);
        assert!(ledger.wait_for_all(Duration::from_secs(1)));
        assert_eq!((ledger.arrivals(), ledger.duplicates()), (200, 0));
        assert_eq!(provider.counts().connections, if keep_alive { 5 } else { 200 });
        assert!(provider.counts().octets > 200 * 3900 && provider.counts().octets <= 200 * 4096);
        assert_eq!(ledger.accept_latency().len(), 200);
    }
}

#[test]
fn members_submit_under_tls_with_their_password() {
    let certificate = Certificate::generate(&["localhost"]).unwrap();
    let script = Script { starttls: true, auth: Some(("member".into(), "secret".into())), ..Script::default() };
    let provider = Provider::new(script);
    let starttls = Sink::start(anywhere(), provider.clone(), Some(&certificate)).unwrap();
    let implicit = Sink::start_implicit_tls(anywhere(), provider.clone(), &certificate).unwrap();
    let config = client_that_trusts_all(false).unwrap();
    for (address, tls) in
        [(starttls.address(), Tls::StartTls(config.clone())), (implicit.address(), Tls::Implicit(config.clone()))]
    {
        let target = Target::plain(address).with_tls(tls).with_credentials("member", "secret");
        let ledger = Arc::new(Ledger::new(10));
        let report = run(&load(target), &ledger, &AtomicBool::new(false)).unwrap();
        assert_eq!(report.accepted, 10, "{:?}", report.reasons);
    }
    assert!(provider.messages().iter().all(|message| message.tls));
    assert_eq!(provider.violations(), Vec::<String>::new());
    let target = Target::plain(starttls.address()).with_tls(Tls::StartTls(config)).with_credentials("member", "wrong");
    let report = run(&load(target), &Arc::new(Ledger::new(10)), &AtomicBool::new(false)).unwrap();
    assert_eq!(report.accepted, 0);
    assert!(report.reasons[0].contains("535"), "{:?}", report.reasons);
}

#[test]
fn a_persistent_load_goes_on_after_broken_connections() {
    let ledger = Arc::new(Ledger::new(50));
    let script = Script::accepts_all().with(Rule::new(Stage::EndOfData, Act::LoseReply).first(7));
    let provider = Provider::for_load(script, Some(ledger.clone()));
    let sink = Sink::start(anywhere(), provider, None).unwrap();
    let load = Load { persistent: true, ..load(Target::plain(sink.address())) };
    let report = run(&load, &ledger, &AtomicBool::new(false)).unwrap();
    assert_eq!((report.accepted, report.broken), (43, 7));
    assert_eq!((ledger.arrivals(), ledger.missing().len()), (50, 0));
}

#[test]
fn a_fixed_rate_spreads_the_messages() {
    let ledger = Arc::new(Ledger::new(20));
    let sink = Sink::start(anywhere(), Provider::for_load(Script::accepts_all(), Some(ledger.clone())), None).unwrap();
    let load = Load { rate: Some(100.0), ..load(Target::plain(sink.address())) };
    let report = run(&load, &ledger, &AtomicBool::new(false)).unwrap();
    assert!(report.elapsed >= Duration::from_millis(190), "{:?}", report.elapsed);
    assert_eq!(report.accepted, 20);
}
