//! Who vouches for a message: asked of the labeler, and of the network as the command does.
#![allow(clippy::unwrap_used, reason = "tests end where something is wrong")]

mod world;

use std::time::SystemTime;

use atproto::lexicon::ATTESTATION;
use bytes::Bytes;
use labeler::config::{Dns, Identity};
use labeler::vouching::{Source, verify_message};
use loadtest::atnet::{Account, Trouble};
use loadtest::dns::{Failure, Record, RecordType};
use mta::sign::dkim::{BodyHash, sign};
use mta::sign::header::Header;
use mta::sign::prepare::{Trace, prepare};
use mta::sign::{Algorithm, SigningKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vouch::{NamedBy, Report, Verdict, When};
use world::{LABELER, World};

const METHOD: &str = "/xrpc/coop.tradewind.verifyMessage";

/// A member whose key this is, labelled.
async fn member(world: &World, handle: &str, domain: &str) -> (Account, SigningKey) {
    let key = SigningKey::generate(domain, "s1", Algorithm::Ed25519).unwrap();
    let account = world.net.create_account(handle);
    world.publish(&account, domain, &[]);
    world.zone.set(&format!("s1._domainkey.{domain}"), vec![Record::Txt(key.dns_value().unwrap())]);
    world.net.attest(&account, domain, &["s1"], true);
    world.until_labels(&account, &world::BOTH).await;
    (account, key)
}

/// As the MTA sends it.
fn sent(key: SigningKey, did: Option<&str>) -> Vec<u8> {
    let domain = key.domain().to_owned();
    let text = format!("From: noreply@{domain}\r\nTo: bob@example.org\r\nSubject: hello\r\n\r\nbody\r\n");
    let trace = Trace {
        hostname: "relay.example",
        ehlo: "pds.test",
        with: "ESMTPSA",
        id: "1",
        only_recipient: None,
        domain: &domain,
        did,
        class: "otp",
        now: SystemTime::now(),
    };
    let prepared = prepare(&Header::parse(&Bytes::from(text)).unwrap(), &trace).unwrap();
    let mut body = BodyHash::begin();
    body.update(&prepared.rest[prepared.body_at..]);
    let (ours, theirs) =
        (Header::parse(&prepared.head).unwrap(), Header::parse(&prepared.rest.slice(..prepared.body_at)).unwrap());
    let signature = sign(&[key.into()], ours.fields().chain(theirs.fields()), &body.finish(), trace.now).unwrap();
    [&signature[..], &prepared.head, &prepared.rest].concat()
}

async fn post(world: &World, fields: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = tokio::net::TcpStream::connect(world.labeler.as_ref().unwrap().local_addr()).await.unwrap();
    let head =
        format!("POST {METHOD} HTTP/1.1\r\nHost: labeler\r\n{fields}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // One that is refused early is not read to its end.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let end = answer.windows(4).position(|octets| octets == b"\r\n\r\n").unwrap();
    let body = answer.split_off(end + 4);
    let head = String::from_utf8(answer).unwrap().to_lowercase();
    (head[9..12].parse().unwrap(), head, body)
}

const MESSAGE: &str = "Content-Type: message/rfc822\r\n";

async fn ask(world: &World, message: &[u8]) -> Report {
    let (status, _, body) = post(world, MESSAGE, message).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

async fn ask_network(world: &World, message: &[u8]) -> Report {
    let config = world.config();
    let source = Source {
        labeler: LABELER.parse().unwrap(),
        labeler_url: Some(format!("http://{}", world.labeler.as_ref().unwrap().local_addr()).parse().unwrap()),
        identity: Identity { plc_url: config.identity.plc_url, ..Identity::default() },
        dns: Dns { nameservers: config.dns.nameservers, ..Dns::default() },
    };
    verify_message(message.to_vec(), &source).await.unwrap()
}

#[tokio::test]
async fn a_members_message_is_vouched_for_until_its_record_is_gone() {
    let world = World::start().await;
    let (alice, key) = member(&world, "alice.test", "member.example").await;
    let message = sent(key, Some(alice.did.as_str()));
    for report in [ask(&world, &message).await, ask_network(&world, &message).await] {
        assert_eq!(report.verdict, Verdict::Vouched, "{report:#?}");
        assert_eq!((report.did.as_ref(), report.named_by), (Some(&alice.did), Some(NamedBy::SignedField)));
        let binding = report.binding.unwrap();
        assert_eq!((binding.attested, binding.at_signature, binding.selectors), (When::Yes, When::Yes, vec!["s1".to_owned()]));
        assert_eq!(binding.labels.len(), 2);
    }
    let spoiled = [&message[..], b"more\r\n"].concat();
    assert_eq!(ask(&world, &spoiled).await.verdict, Verdict::NotVouched);
    world.net.delete_record(&alice, ATTESTATION, "member.example");
    world.until_labels(&alice, &[]).await;
    let reports = [ask(&world, &message).await, ask_network(&world, &message).await];
    for (report, reason) in reports.into_iter().zip(["does not attest member.example", "does not call"]) {
        assert_eq!(report.verdict, Verdict::NotVouched, "{report:#?}");
        assert!(report.reasons.iter().any(|it| it.contains(reason)), "{report:#?}");
    }
}

#[tokio::test]
async fn an_account_has_its_own_domains_word_only() {
    let world = World::start().await;
    let (alice, key) = member(&world, "alice.test", "member.example").await;
    let (mallory, _) = member(&world, "mallory.test", "other.example").await;
    // Mallory attests a domain that names Alice, beside an own one that earns labels.
    world.net.attest(&mallory, "member.example", &["s1"], false);
    world.until_reason(&mallory, "names").await;
    let unnamed = sent(SigningKey::from_pem("member.example", "s1", key.to_pem().unwrap().as_bytes()).unwrap(), None);
    for report in [ask(&world, &unnamed).await, ask_network(&world, &unnamed).await] {
        assert_eq!(
            (report.verdict, report.did, report.named_by),
            (Verdict::Vouched, Some(alice.did.clone()), Some(NamedBy::Domain))
        );
    }
    let forged = sent(key, Some(mallory.did.as_str()));
    for (report, reason) in [(ask(&world, &forged).await, "not in order"), (ask_network(&world, &forged).await, "names")] {
        assert_eq!(report.verdict, Verdict::NotVouched, "{report:#?}");
        assert!(report.reasons.iter().any(|it| it.contains(reason)), "{report:#?}");
    }
}

#[tokio::test]
async fn who_cannot_be_reached_decides_nothing() {
    let world = World::start().await;
    let (alice, key) = member(&world, "alice.test", "member.example").await;
    let message = sent(key, Some(alice.did.as_str()));
    world.net.set_trouble(&alice, Some(Trouble::PdsFails));
    assert_eq!(ask(&world, &message).await.verdict, Verdict::Vouched, "the labeler has proven it before");
    assert_eq!(ask_network(&world, &message).await.verdict, Verdict::Unknown);
    world.net.set_trouble(&alice, None);
    world.zone.fail("_atproto.member.example", Some(RecordType::TXT), Failure::ServFail);
    assert_eq!(ask_network(&world, &message).await.verdict, Verdict::Unknown);
    world.zone.fail("s1._domainkey.member.example", Some(RecordType::TXT), Failure::ServFail);
    assert_eq!(ask(&world, &message).await.verdict, Verdict::Unknown);
}

#[tokio::test]
async fn what_is_no_message_or_too_much_is_refused() {
    let world = World::start().await;
    let report = ask(&world, b"no message at all\r\n").await;
    assert_eq!(report.verdict, Verdict::NotVouched);
    assert_eq!(ask(&world, b"").await.reasons, ["the message has no From field"]);
    assert_eq!(post(&world, "Content-Type: text/plain\r\n", b"From: a@b.example\r\n").await.0, 400);
    assert_eq!(world.get(METHOD).await.0, 405);
    let (status, _, body) = post(&world, MESSAGE, &vec![b'a'; (2 << 20) + 1]).await;
    assert_eq!((status, String::from_utf8_lossy(&body).contains("MessageTooLarge")), (413, true));
    let from = |client: &str| format!("{MESSAGE}X-Forwarded-For: {client}\r\n");
    let mut answers = Vec::new();
    for _ in 0..30 {
        answers.push(post(&world, &from("203.0.113.9"), b"").await);
    }
    assert!(answers.iter().take(20).all(|(status, ..)| *status == 200));
    assert!(answers.iter().any(|(status, head, _)| *status == 429 && head.contains("retry-after:")));
    assert_eq!(post(&world, &from("203.0.113.10"), b"").await.0, 200, "others are not to blame");
}

#[tokio::test]
async fn since_when_a_domain_is_bound_is_kept_over_a_restart() {
    let mut world = World::start().await;
    let (alice, key) = member(&world, "alice.test", "member.example").await;
    let message = sent(key, Some(alice.did.as_str()));
    let since = ask(&world, &message).await.binding.unwrap().since.unwrap();
    world.stop_labeler().await;
    world.start_labeler().await;
    world.net.prod(&alice);
    world.until_labels(&alice, &world::BOTH).await;
    assert_eq!(ask(&world, &message).await.binding.unwrap().since, Some(since));
}
