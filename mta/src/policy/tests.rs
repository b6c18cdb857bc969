//! Tables of who is admitted and who is not.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use smtp::address::{Mailbox, ReversePath};
use smtp::reply::Reply;

use super::admit::{authenticate, header_from, may_send, on_behalf_of, reverse_path};
use super::throttle::{ADDRESS_FAILURES_MAX, DELAY_MAX, MEMORY, Penalty, USERNAME_FAILURES_MAX};
use super::*;
use crate::sign::header::Header;

const STALE: Duration = Duration::from_secs(6 * 3600);

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_426_939 + seconds)
}

/// alice: one domain, two credentials. web: did:web with a port, two domains. idn: an internationalized domain.
struct World {
    key: CredentialKey,
    members: Vec<Member>,
    credentials: Vec<Credential>,
    standing: Standing,
}

impl World {
    fn new() -> Self {
        let member = |id, did: &str, handle: Option<&str>, domains: &[&str]| Member {
            id,
            did: did.into(),
            handle: handle.map(str::to_owned),
            suspended: None,
            tier: None,
            pool: None,
            domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
        };
        let key = CredentialKey::new(&[7; 32]);
        let credential = |id, member, domain: &str, secret: &str| Credential {
            id,
            member,
            domain: domain.into(),
            class: Class::Transactional,
            classes: vec![],
            hash: key.hash(secret),
        };
        let members = vec![
            member(1, "did:plc:alice", Some("Alice.Social.Example"), &["alice.example"]),
            member(2, "did:web:localhost%3A2583", None, &["one.example", "two.example"]),
            member(3, "did:plc:idn", None, &["xn--bcher-kva.example"]),
        ];
        let credentials = vec![
            credential(10, 1, "alice.example", "tw_alice1"),
            credential(11, 1, "alice.example", "tw_alice2"),
            credential(20, 2, "one.example", "tw_one"),
            credential(21, 2, "two.example", "tw_two"),
            credential(30, 3, "xn--bcher-kva.example", "tw_idn"),
            credential(99, 1, "sold.example", "tw_sold"),
        ];
        let mut standing = Standing::default();
        let labels = ["did:plc:alice", "did:plc:idn"].into_iter().flat_map(|did| {
            ["verified-mail-operator", "relay-member"].map(|val| Label { did: did.into(), val: val.into(), exp: None })
        });
        let asked = ["did:plc:alice", "did:plc:idn"].map(str::to_owned);
        standing.handle_answer(at(0), asked, labels);
        Self { key, members, credentials, standing }
    }

    fn directory(&self) -> Directory {
        let requirement = Requirement {
            labels: vec!["verified-mail-operator".into(), "relay-member".into()],
            labeler_url: "http://127.0.0.1:3100/".into(),
            stale_after: STALE,
        };
        Directory::new(self.members.clone(), self.credentials.clone(), Arc::new(self.standing.clone()), Some(requirement))
    }

    fn sender(&self, username: &str, password: &str) -> Result<Sender, Reply> {
        authenticate(&self.directory(), &self.key, username, password)
    }
}

fn check(answer: Result<(), Reply>, expected: &str, what: &str) {
    let seen = answer.map_or_else(|reply| reply.to_string(), |()| "ok".into());
    assert!(seen.starts_with(expected), "{what}\n  expected {expected}\n  seen     {seen}");
}

#[test]
fn user_names_in_all_their_forms() {
    let world = World::new();
    for (username, password, expected) in [
        ("alice.example", "tw_alice1", Some(10)),
        ("alice.example", "tw_alice2", Some(11)),
        ("ALICE.Example", "tw_alice1", Some(10)),
        ("alice.social.example", "tw_alice1", Some(10)),
        ("did:plc:alice", "tw_alice2", Some(11)),
        ("did%3Aplc%3Aalice", "tw_alice1", Some(10)),
        ("did%3aplc%3aalice", "tw_alice1", Some(10)),
        ("did%253Aplc%253Aalice", "tw_alice1", Some(10)),
        // What nodemailer makes of smtp://did:plc:alice:tw_alice1@host, encoded or not.
        ("did", "plc:alice:tw_alice1", Some(10)),
        ("did", "plc:alice:tw_alice2", Some(11)),
        ("did", "web:localhost%3A2583:tw_two", Some(21)),
        ("did", "web:localhost:2583:tw_one", Some(20)),
        // A DID with several domains: the secret tells which.
        ("did:web:localhost%3A2583", "tw_one", Some(20)),
        ("did:web:localhost%3A2583", "tw_two", Some(21)),
        ("did%3Aweb%3Alocalhost%253A2583", "tw_two", Some(21)),
        ("did:web:localhost:2583", "tw_two", Some(21)),
        ("bücher.example", "tw_idn", Some(30)),
        ("xn--bcher-kva.example", "tw_idn", Some(30)),
        // Nobody, or not theirs.
        ("alice.example", "tw_one", None),
        ("alice.example", "tw_alice", None),
        ("alice.example", "", None),
        ("did", "tw_alice1", None),
        ("did", "plc:alice:", None),
        ("did", "plc:alice", None),
        ("did", "plc:bob:tw_alice1", None),
        ("did:plc:alice", "plc:alice:tw_alice1", None),
        ("did:plc:bob", "tw_alice1", None),
        ("", "tw_alice1", None),
        ("example", "tw_alice1", None),
        ("sub.alice.example", "tw_alice1", None),
        // The member no longer has that domain.
        ("sold.example", "tw_sold", None),
        ("did:plc:alice", "tw_sold", None),
    ] {
        match (world.sender(username, password), expected) {
            (Ok(sender), Some(id)) => assert_eq!(sender.credential.unwrap().id, id, "{username} {password}"),
            (Err(reply), None) => assert!(reply.to_string().starts_with("535 5.7.8 "), "{reply}"),
            (seen, _) => panic!("{username} {password}: {seen:?}"),
        }
    }
    let long = format!("did:plc:{}", "%25".repeat(100_000));
    assert!(world.sender(&long, "x").is_err() && world.sender("did", &format!("{long}:x")).is_err());
}

#[test]
fn who_claims_another_s_handle_locks_nobody_out() {
    let mut world = World::new();
    world.members[1].handle = Some("alice.social.example".into());
    let credential = |secret| world.sender("alice.social.example", secret).map(|sender| sender.credential.unwrap().id);
    assert_eq!(credential("tw_alice1").ok(), Some(10));
    assert_eq!(credential("tw_one").ok(), Some(20));
    assert!(credential("tw_idn").is_err());
}

#[test]
fn the_number_of_comparisons_is_bounded() {
    let mut world = World::new();
    let many: Vec<_> = (0..100).map(|n| Credential { id: 100 + n, ..world.credentials[0].clone() }).collect();
    world.credentials.extend(many);
    let directory = world.directory();
    assert_eq!(directory.candidates("alice.example", "x").0.len(), super::directory::CANDIDATES_MAX);
}

#[test]
fn standing_decides_at_mail() {
    let world = World::new();
    let alice = world.sender("alice.example", "tw_alice1").unwrap();
    let web = world.sender("one.example", "tw_one").unwrap();
    check(may_send(&world.directory(), &alice, at(0)), "ok", "labelled");
    check(may_send(&world.directory(), &alice, at(30 * 86400)), "ok", "last known labels serve");
    let wait = "451 4.7.1 the labels of did:web:localhost%3A2583 are not known yet: the labeler http://127.0.0.1:3100/";
    check(may_send(&world.directory(), &web, at(0)), wait, "never asked about");

    let mut world = World::new();
    let label = |val: &str| Label { did: "did:web:localhost%3A2583".into(), val: val.into(), exp: None };
    world.standing.handle_answer(at(0), ["did:web:localhost%3A2583".into()], [label("verified-mail-operator")]);
    let missing = "550 5.7.1 label relay-member is missing for did:web:localhost%3A2583; see http://127.0.0.1:3100/xrpc/";
    check(may_send(&world.directory(), &web, at(0)), missing, "half labelled");
    check(may_send(&world.directory(), &web, at(STALE.as_secs())), "451 4.7.1 ", "half labelled and stale");

    let mut world = World::new();
    world.members[0].suspended = Some("too many bounces, see ticket 7".into());
    check(may_send(&world.directory(), &alice, at(0)), "550 5.7.1 did:plc:alice is suspended: too many bounces", "suspended");

    let mut world = World::new();
    world.credentials.remove(0);
    check(may_send(&world.directory(), &alice, at(0)), "550 5.7.1 the credential for alice.example was revoked", "revoked");
    world.members.remove(0);
    check(may_send(&world.directory(), &alice, at(0)), "550 5.7.1 did:plc:alice is no longer a member", "removed");

    let world = World::new();
    let unlabelled = Directory::new(world.members.clone(), world.credentials.clone(), Arc::default(), None);
    check(may_send(&unlabelled, &web, at(0)), "ok", "labels are not consulted");
    let keyless = world.directory().requiring_keys(["other.example".to_owned()]);
    check(may_send(&keyless, &alice, at(0)), "451 4.3.5 alice.example has no DKIM key", "no keys");
    let keyed = world.directory().requiring_keys(["alice.example".to_owned()]);
    check(may_send(&keyed, &alice, at(0)), "ok", "keys");
}

#[test]
fn reverse_paths() {
    let world = World::new();
    let alice = world.sender("alice.example", "tw_alice1").unwrap();
    let relay = on_behalf_of(&world.directory(), "did:web:localhost%3A2583").unwrap();
    let stranger = "550 5.7.1 reverse-path is in";
    for (sender, path, expected) in [
        (&alice, "a@alice.example", "ok"),
        (&alice, "a@ALICE.example", "ok"),
        (&alice, "", "ok"),
        (&alice, "a@evil.example", "550 5.7.1 reverse-path is in evil.example, but this credential is for alice.example"),
        (&alice, "a@sub.alice.example", stranger),
        (&alice, "a@alice.example.evil.example", stranger),
        (&alice, "a@[127.0.0.1]", stranger),
        (&alice, "\"a@alice.example\"@evil.example", stranger),
        (&relay, "a@one.example", "ok"),
        (&relay, "a@two.example", "ok"),
        (
            &relay,
            "a@alice.example",
            "550 5.7.1 reverse-path is in alice.example, but this listener is for one.example, two.example",
        ),
    ] {
        let path = if path.is_empty() { ReversePath::Null } else { Mailbox::parse(path, true).unwrap().into() };
        check(reverse_path(sender, &path), expected, &path.to_string());
    }
    let unknown = on_behalf_of(&world.directory(), "did:plc:nobody").unwrap_err();
    assert!(unknown.to_string().starts_with("451 4.3.5 did:plc:nobody"), "{unknown}");
}

#[test]
fn nobody_writes_in_anothers_name() {
    let world = World::new();
    let alice = world.sender("alice.example", "tw_alice1").unwrap();
    let idn = world.sender("xn--bcher-kva.example", "tw_idn").unwrap();
    let evil = "550 5.7.1 From is in evil.example, but this credential is for alice.example";
    let crooked = "550 5.6.0 the From field cannot be accepted: ";
    for (sender, fields, expected) in [
        // What mail programs write.
        (&alice, "From: a@alice.example", "ok"),
        (&alice, "FROM: <a@Alice.EXAMPLE>", "ok"),
        (&alice, "From: Alice <a@alice.example>", "ok"),
        (&alice, "From: \"Alice, PDS\" <a@alice.example>", "ok"),
        (&alice, "From: J. R. Alice <a.b+c@alice.example>", "ok"),
        (&alice, "From: =?utf-8?q?Al=C3=AFce?= <a@alice.example>", "ok"),
        (&alice, "From: =?utf-8?B?QWw=?=\r\n =?utf-8?B?aWNl?=\r\n <a@alice.example>", "ok"),
        (&alice, "From: Älice <a@alice.example>", "ok"),
        (&alice, "From: a@alice.example (Alice)", "ok"),
        (&alice, "From: a@alice.example, B <b@alice.example>", "ok"),
        (&alice, "From:a@alice.example", "ok"),
        (&alice, "From: \r\n a@alice.example", "ok"),
        // A display name is not an address.
        (&alice, "From: \"ceo@evil.example\" <a@alice.example>", "ok"),
        (&alice, "From: \"ceo@evil.example <ceo@evil.example>\" <a@alice.example>", "ok"),
        (&alice, "From: =?utf-8?q?ceo=40evil=2Eexample?= <a@alice.example>", "ok"),
        (&alice, "From: a@alice.example (b@evil.example)", "ok"),
        (&alice, "From: (b@evil.example) a@alice.example", "ok"),
        // Other domains.
        (&alice, "From: a@evil.example", evil),
        (&alice, "From: \"a@alice.example\" <a@evil.example>", evil),
        (&alice, "From: =?utf-8?q?a=40alice=2Eexample?= <a@evil.example>", evil),
        (&alice, "From: a@evil.example (a@alice.example)", evil),
        (&alice, "From: a@alice.example, b@evil.example", evil),
        (&alice, "From: b@evil.example, a@alice.example", evil),
        (&alice, "From: a@sub.alice.example", "550 5.7.1 From is in sub.alice.example, but"),
        (&alice, "From: a@alice.example.evil.example", "550 5.7.1 From is in alice.example.evil.example"),
        (&alice, "From: a@xn--bcher-kva.example", "550 5.7.1 From is in xn--bcher-kva.example"),
        (&alice, "From: a@аlice.example", "550 5.7.1 From is in xn--"), // Cyrillic а.
        (&idn, "From: a@bücher.example", "ok"),
        (&idn, "From: a@BÜCHER.example", "ok"),
        (&idn, "From: a@xn--bcher-kva.example", "ok"),
        // No From, or too many.
        (&alice, "To: a@alice.example", "550 5.6.0 the message has no From field"),
        (&alice, "From: a@alice.example\r\nFrom: b@evil.example", "550 5.6.0 the message has 2 From fields"),
        (&alice, "from: b@evil.example\r\nTo: x@y\r\nFROM: a@alice.example", "550 5.6.0 the message has 2 From fields"),
        (&alice, "From: a@alice.example\r\nFrom: a@alice.example", "550 5.6.0 the message has 2 From fields"),
        // More than one reading, or none.
        (&alice, "From:", crooked),
        (&alice, "From: Alice", crooked),
        (&alice, "From: <>", crooked),
        (&alice, "From: Team: a@alice.example;", crooked),
        (&alice, "From: Team: a@alice.example, b@evil.example;", crooked),
        (&alice, "From: undisclosed:;", crooked),
        (&alice, "From: <@evil.example:a@alice.example>", crooked),
        (&alice, "From: b@evil.example <a@alice.example>", crooked),
        (&alice, "From: a@alice.example <b@evil.example>", crooked),
        (&alice, "From: <a@alice.example> <b@evil.example>", crooked),
        (&alice, "From: <b@evil.example> a@alice.example", crooked),
        (&alice, "From: <a@alice.example", crooked),
        (&alice, "From: a@alice.example>", crooked),
        (&alice, "From: <<a@alice.example>>", crooked),
        (&alice, "From: a@alice.example; b@evil.example", crooked),
        (&alice, "From: a@alice.example b@evil.example", crooked),
        (&alice, "From: a@evil.example@alice.example", crooked),
        (&alice, "From: \"b@evil.example>\"@alice.example", crooked),
        (&alice, "From: <\"b@evil.example> \"@alice.example>", crooked),
        (&alice, "From: <=?utf-8?q?b=40evil.example=3E?=@alice.example>", crooked),
        (&alice, "From: =?utf-8?q?=3Cb=40evil.example=3E?=", crooked),
        (&alice, "From: a @ alice.example", crooked),
        (&alice, "From: a@alice.example.", crooked),
        (&alice, "From: a@[127.0.0.1]", crooked),
        (&alice, "From: a@alice.example (unclosed", crooked),
        (&alice, "From: a@alice.example \"unclosed", crooked),
        (&alice, "From: \"unclosed <a@alice.example>", crooked),
        (&alice, "From: \\\"x <a@alice.example>", crooked),
        (&alice, "From: a@alice.example,", crooked),
        (&alice, "From: ,a@alice.example", crooked),
        (&alice, "From: a@alice.example\x0b", crooked),
        (&alice, "From: a@alice.example\u{2028}<b@evil.example>", crooked),
    ] {
        let octets = Bytes::from(format!("Subject: x\r\n{fields}\r\nTo: z@example.org\r\n\r\nFrom: body@evil.example\r\n"));
        let header = Header::parse(&octets).unwrap();
        check(header_from(sender, &header).map(|_| ()), expected, fields);
    }
    let many = vec!["a@alice.example"; 17].join(", ");
    let deep = format!("{}x{} a@alice.example", "(".repeat(50_000), ")".repeat(50_000));
    for value in [many, deep] {
        let header = Header::parse(&Bytes::from(format!("From: {value}\r\n\r\n"))).unwrap();
        check(header_from(&alice, &header).map(|_| ()), crooked, &value[..40]);
    }
    let latin1 = Header::parse(&Bytes::from_static(b"From: \xfc <a@alice.example>\r\n\r\n")).unwrap();
    check(header_from(&alice, &latin1).map(|_| ()), crooked, "latin-1");
}

#[test]
fn a_relayed_message_is_signed_by_the_domain_of_its_author() {
    let world = World::new();
    let relay = on_behalf_of(&world.directory(), "did:web:localhost%3A2583").unwrap();
    let from = |value: &str| header_from(&relay, &Header::parse(&Bytes::from(format!("From: {value}\r\n\r\n"))).unwrap());
    assert_eq!(from("a@one.example").unwrap(), "one.example");
    assert_eq!(from("a@two.example").unwrap(), "two.example");
    check(from("a@one.example, b@two.example").map(|_| ()), "550 5.7.1 From is in one.example and in two.example", "both");
    check(
        from("a@alice.example").map(|_| ()),
        "550 5.7.1 From is in alice.example, but this listener is for one.example",
        "other",
    );
}

fn peer(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn delay(penalty: &Penalty) -> Duration {
    match penalty {
        Penalty::Delay(delay) | Penalty::Close(delay, _) => *delay,
    }
}

#[test]
fn guessing_becomes_slow_and_then_impossible() {
    let mut throttle = Throttle::default();
    let mut last = Duration::ZERO;
    for nth in 1..=ADDRESS_FAILURES_MAX {
        assert_eq!(throttle.refuses(at(0), peer("192.0.2.1")), None, "failure {nth}");
        let penalty = throttle.handle_failure(at(0), peer("192.0.2.1"), &format!("user{nth}.example"));
        assert!(delay(&penalty) > last || delay(&penalty) == DELAY_MAX, "failure {nth}: {penalty:?}");
        assert_eq!(matches!(penalty, Penalty::Close(..)), nth == ADDRESS_FAILURES_MAX, "failure {nth}");
        last = delay(&penalty);
    }
    let refused = throttle.refuses(at(0), peer("192.0.2.1")).unwrap();
    assert!(refused.to_string().starts_with("421 4.7.0 "), "{refused}");
    assert_eq!(throttle.refuses(at(0), peer("::ffff:192.0.2.1")), Some(refused), "the same address on a dual-stack listener");
    assert_eq!(throttle.refuses(at(0), peer("192.0.2.2")), None);
    assert!(throttle.refuses(at(MEMORY.as_secs() - 1), peer("192.0.2.1")).is_some());
    assert_eq!(throttle.refuses(at(MEMORY.as_secs()), peer("192.0.2.1")), None);
}

#[test]
fn a_slash_64_counts_as_one_address() {
    let mut throttle = Throttle::default();
    for nth in 0..ADDRESS_FAILURES_MAX {
        throttle.handle_failure(at(0), peer(&format!("2001:db8:1:2::{nth:x}")), "a");
    }
    assert!(throttle.refuses(at(0), peer("2001:db8:1:2:ffff::1")).is_some());
    assert!(throttle.refuses(at(0), peer("2001:db8:1:3::1")).is_none());
}

#[test]
fn success_forgives_the_name_and_not_the_address() {
    let mut throttle = Throttle::default();
    for nth in 0..USERNAME_FAILURES_MAX - 1 {
        let penalty = throttle.handle_failure(at(0), peer(&format!("192.0.2.{nth}")), "Alice.example ");
        assert!(matches!(penalty, Penalty::Delay(_)));
    }
    let mut guessed = Throttle::default();
    std::mem::swap(&mut guessed, &mut throttle);
    assert!(matches!(guessed.handle_failure(at(0), peer("198.51.100.1"), "alice.example"), Penalty::Close(..)));
    assert_eq!(guessed.refuses(at(0), peer("198.51.100.2")), None, "a member is not locked out by those who use its name");
    guessed.handle_success("alice.example");
    let penalty = guessed.handle_failure(at(0), peer("198.51.100.3"), "alice.example");
    assert_eq!(penalty, Penalty::Delay(Duration::from_millis(500)));
    for _ in 0..ADDRESS_FAILURES_MAX {
        throttle.handle_failure(at(0), peer("192.0.2.1"), "alice.example");
    }
    throttle.handle_success("alice.example");
    assert!(throttle.refuses(at(0), peer("192.0.2.1")).is_some());
}

#[test]
fn the_tables_are_bounded_and_forget_the_oldest_first() {
    let mut throttle = Throttle::default();
    let flood = |throttle: &mut Throttle, range: std::ops::Range<u32>| {
        for n in range {
            throttle.handle_failure(at(0), IpAddr::V4((0x0a00_0000 + n).into()), &format!("{n:>200}"));
        }
    };
    flood(&mut throttle, 0..100_000);
    assert!(throttle.entries() <= 2 * (1 << 16), "{}", throttle.entries());
    for _ in 0..ADDRESS_FAILURES_MAX {
        throttle.handle_failure(at(0), peer("192.0.2.1"), "a");
    }
    flood(&mut throttle, 100_000..130_000);
    assert!(throttle.refuses(at(0), peer("192.0.2.1")).is_some());
}

#[test]
fn the_records_to_publish() {
    use crate::sign::{Algorithm, SigningKey};
    let keys = [(Algorithm::Rsa, "tw20261123r"), (Algorithm::Ed25519, "tw20261123e")]
        .map(|(algorithm, selector)| Arc::new(SigningKey::generate("alice.example", selector, algorithm).unwrap()));
    let sources = [peer("192.0.2.1"), peer("2001:db8::1")];
    let records = dns_records("alice.example", "did:plc:alice", &keys, &sources).unwrap();
    let rows: Vec<_> = records.iter().map(|r| (r.name.as_str(), r.kind, r.value.as_str())).collect();
    assert_eq!((rows[0].0, rows[1].0), ("tw20261123r._domainkey.alice.example", "tw20261123e._domainkey.alice.example"));
    assert!(
        rows[0].2.starts_with("v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEF") && rows[1].2.starts_with("v=DKIM1; k=ed25519; p=")
    );
    assert_eq!(
        rows[2..],
        [
            ("alice.example", "TXT", "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 -all"),
            ("_dmarc.alice.example", "TXT", "v=DMARC1; p=reject; adkim=r; aspf=r; rua=mailto:postmaster@alice.example"),
            ("_atproto.alice.example", "TXT", "did=did:plc:alice"),
        ]
    );
    let json = serde_json::to_value(&records[2]).unwrap();
    assert_eq!(json["type"], "TXT");
    let zone = super::dns::zone_strings(rows[0].2);
    let strings: Vec<_> = zone.split("\" \"").map(|part| part.trim_matches('"')).collect();
    assert!(strings.len() == 2 && strings.iter().all(|part| part.len() <= 255));
    assert_eq!(strings.concat(), rows[0].2);
}
