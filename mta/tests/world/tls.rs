//! What was promised of TLS to one domain, on hosts that other domains share.

use std::time::Duration;

use host::dns::Tlsa;
use host::tls;
use loadtest::sink::Script;
use ring::digest::{SHA256, digest};

use super::HOUR;
use super::parts::World;

/// A certificate of its own making, and the record that vouches for its key.
fn certificate() -> (tls::Server, Tlsa) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["elsewhere.example".to_owned()]).unwrap();
    let server = tls::Server::from_pem(params.self_signed(&key).unwrap().pem().as_bytes(), key.serialize_pem().as_bytes());
    let data = digest(&SHA256, &rcgen::PublicKeyData::subject_public_key_info(&key)).as_ref().to_vec();
    (server.unwrap(), Tlsa { usage: 3, selector: 1, matching: 1, data })
}

fn offers_tls() -> Script {
    Script { starttls: true, ..Script::accepts_all() }
}

/// `strict.example` and its host are signed; `careless.example` has the same host and is not.
fn shared_host(seed: u64, script: Script) -> (World, Tlsa) {
    let (server, record) = certificate();
    let world = World::seed(seed).provider("strict.example", script).certificate("strict.example", server);
    world.zone().mx("careless.example", 10, "mx.strict.example").sign("strict.example").set_ttl(Duration::from_secs(60));
    (world, record)
}

#[test]
fn what_one_domain_demands_is_kept_on_a_host_that_another_is_careless_about() {
    // Somebody strips STARTTLS.
    let (mut world, record) = shared_host(700, Script::accepts_all());
    world.zone().tlsa("_25._tcp.mx.strict.example", record);
    let provider = world.provider_of("strict.example");
    world.live(24 * HOUR, |day| async move {
        for n in 0..20 {
            // By turns, so that connections of the careless one lie idle when the strict one's turn comes.
            day.submit(n, &[if n % 2 == 0 { "a@careless.example" } else { "b@strict.example" }]).await;
        }
        tokio::time::sleep(3 * HOUR).await;
        let messages = provider.messages();
        let careless = |message: &loadtest::sink::Message| message.recipients == ["a@careless.example"] && !message.tls;
        assert!(messages.len() == 10 && messages.iter().all(careless), "{} arrived", messages.len());
        provider.set_script(offers_tls());
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
    let strict: Vec<_> =
        world.arrived_at("strict.example").into_iter().filter(|it| it.recipients == ["b@strict.example"]).collect();
    assert!(strict.len() == 10 && strict.iter().all(|message| message.tls), "{} arrived", strict.len());
}

#[test]
fn no_session_is_resumed_past_the_records_that_do_not_vouch_for_its_certificate() {
    // The careless one shakes hands first, again and again; what it may resume is not the strict one's.
    let (mut world, record) = shared_host(701, offers_tls());
    let wrong = Tlsa { data: vec![0; 32], ..record.clone() };
    let (zone, provider) = (world.zone(), world.provider_of("strict.example"));
    zone.tlsa("_25._tcp.mx.strict.example", wrong);
    world.live(24 * HOUR, |day| async move {
        for n in 0..20 {
            day.submit(n, &[if n % 2 == 0 { "a@careless.example" } else { "b@strict.example" }]).await;
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        assert!(provider.messages().iter().all(|message| message.recipients == ["a@careless.example"]));
        assert_eq!(provider.messages().len(), 10);
        // The domain publishes the right record.
        zone.remove("_25._tcp.mx.strict.example").tlsa("_25._tcp.mx.strict.example", record);
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
}

#[test]
fn much_mail_to_a_host_that_breaks_its_promise_makes_few_connections() {
    let (mut world, record) = shared_host(704, Script::accepts_all());
    world.zone().tlsa("_25._tcp.mx.strict.example", record);
    let provider = world.provider_of("strict.example");
    world.live(24 * HOUR, |day| async move {
        for n in 0..100 {
            day.submit(n, &["b@strict.example"]).await;
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        // As many as were begun before the first had failed, and one a minute since.
        let connections = provider.counts().connections;
        assert!((1..20).contains(&connections), "{connections} connections");
        provider.set_script(offers_tls());
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
}

#[test]
fn where_one_host_fails_its_promise_the_next_is_tried() {
    let (server, record) = certificate();
    let mut world = World::seed(702)
        .provider("strict.example", Script::accepts_all())
        .backup("strict.example", "second", offers_tls())
        .certificate("second", server);
    let zone = world.zone();
    zone.sign("strict.example").tlsa("_25._tcp.mx.strict.example", record.clone());
    zone.sign("mx.second").tlsa("_25._tcp.mx.second", record);
    world.live(HOUR, |day| async move {
        for n in 0..5 {
            day.submit(n, &["b@strict.example"]).await;
        }
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
    let arrived = world.arrived_at("second");
    assert!(arrived.len() == 5 && arrived.iter().all(|message| message.tls));
}

#[test]
fn a_host_whose_records_cannot_be_seen_gets_no_mail_until_they_can() {
    let (mut world, record) = shared_host(703, offers_tls());
    let (zone, provider) = (world.zone(), world.provider_of("strict.example"));
    zone.tlsa("_25._tcp.mx.strict.example", record).forge("_25._tcp.mx.strict.example", "signature expired");
    world.live(24 * HOUR, |day| async move {
        day.submit(1, &["b@strict.example"]).await;
        day.submit(2, &["a@careless.example"]).await;
        tokio::time::sleep(2 * HOUR).await;
        assert_eq!(provider.counts().messages, 1);
        zone.recover("_25._tcp.mx.strict.example");
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
}
