//! Real messages, signed as the MTA signs them and verified by mail-auth's verifier.

// Clippy takes the helpers of an integration test for product code.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use mail_auth::common::crypto;
use mail_auth::common::headers::Writable;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::dkim::{DkimSigner, Signature};
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt};
use mta::sign::header::Header;
use mta::sign::prepare::prepare;
use mta::sign::signers::sign;
use mta::sign::{Algorithm, Job, KeyRing, Prepared, SignError, Signed, Signers, SigningKey, Trace};

const SAMPLES: [&[u8]; 3] = [
    include_bytes!("samples/pds-confirm.eml"),
    include_bytes!("samples/pds-reset.eml"),
    include_bytes!("samples/pds-moderation.eml"),
];

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_426_939)
}

/// Made once: making RSA keys takes longer than all that is done with them here.
static RING: LazyLock<KeyRing> = LazyLock::new(|| {
    let key = |domain, selector, algorithm| SigningKey::generate(domain, selector, algorithm).unwrap();
    KeyRing::new(
        [
            key("pds.test", "tw20261123r", Algorithm::Rsa),
            key("pds.test", "tw20261123e", Algorithm::Ed25519),
            key("relay.example.test", "coop", Algorithm::Rsa),
        ],
        Some(("relay.example.test", "coop")),
    )
});

fn prepared(octets: &[u8]) -> Prepared {
    let trace = Trace {
        hostname: "relay.example.test",
        ehlo: "[127.0.0.1]",
        with: "ESMTPSA",
        id: "06abc",
        only_recipient: Some("alice@member.example"),
        domain: "pds.test",
        did: Some("did:plc:abc"),
        class: "otp",
        now: now(),
    };
    prepare(&Header::parse(&Bytes::copy_from_slice(octets)).unwrap(), &trace).unwrap()
}

fn job(octets: &[u8]) -> Job {
    Job { urgent: false, message: prepared(octets), domain: Some("pds.test".into()), now: now() }
}

fn whole(signed: &Signed) -> Vec<u8> {
    [&signed.head[..], &signed.rest[..]].concat()
}

/// Answers from what it was given: nothing is asked of the network.
struct Published(Mutex<HashMap<Box<str>, Txt>>);

impl Published {
    fn by(ring: &KeyRing) -> Self {
        let keys = ring.domains().flat_map(|domain| ring.member(domain)).chain(ring.coop());
        let record = |key: &Arc<SigningKey>| {
            let value = DomainKey::parse(key.dns_value().unwrap().as_bytes()).unwrap();
            (format!("{}.", key.dns_name()).into_boxed_str(), Txt::from(value))
        };
        Self(Mutex::new(keys.map(record).collect()))
    }
}

impl ResolverCache<Box<str>, Txt> for Published {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.lock().unwrap().get(name).cloned()
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}

/// From the top: domain, selector, and whether the signature verifies.
async fn verify(ring: &KeyRing, message: &[u8]) -> Vec<(String, String, bool)> {
    let resolver = mail_auth::hickory_resolver::config::ResolverConfig::default();
    let authenticator = MessageAuthenticator::new(resolver, Default::default()).unwrap();
    let published = Published::by(ring);
    let message = AuthenticatedMessage::parse(message).unwrap();
    let outputs = authenticator.verify_dkim(Parameters::new(&message).with_txt_cache(&published)).await;
    let row = |output: &mail_auth::DkimOutput<'_>| {
        let signature = output.signature().unwrap();
        (signature.d.clone(), signature.s.clone(), matches!(output.result(), DkimResult::Pass))
    };
    outputs.iter().map(row).collect()
}

async fn check_all(ring: &KeyRing, message: &[u8], expected: bool, what: &str) {
    let rows = verify(ring, message).await;
    assert_eq!(rows.len(), 3, "{what}: {rows:?}");
    assert!(rows.iter().all(|row| row.2 == expected), "{what}: {rows:?}");
}

fn replace(message: &[u8], from: &str, to: &str) -> Vec<u8> {
    let at = message.windows(from.len()).position(|window| window == from.as_bytes()).expect(from);
    [&message[..at], to.as_bytes(), &message[at + from.len()..]].concat()
}

#[tokio::test]
async fn three_signatures_verify_on_real_mail_and_stand_in_their_order() {
    let ring = &*RING;
    for sample in SAMPLES {
        let signed = sign(ring, true, job(sample)).unwrap();
        assert_eq!((signed.signatures, signed.member_unsigned), (3, false));
        let rows = verify(ring, &whole(&signed)).await;
        let expected = [("relay.example.test", "coop"), ("pds.test", "tw20261123e"), ("pds.test", "tw20261123r")];
        assert_eq!(rows, expected.map(|(domain, selector)| (domain.into(), selector.into(), true)));
        assert!(whole(&signed).ends_with(&sample[sample.len() - 300..]), "the body is as it was");
    }
}

#[tokio::test]
async fn what_a_reader_sees_cannot_be_altered() {
    let ring = &*RING;
    let message = whole(&sign(ring, true, job(SAMPLES[1])).unwrap());
    check_all(ring, &message, true, "unaltered").await;
    for (from, to) in [
        ("From: noreply@pds.test", "From: ceo@pds.test"),
        ("From: noreply@pds.test", "From: noreply@pds.test\r\nFrom: x@evil.example"),
        ("From: noreply@pds.test", "From: x@evil.example\r\nFrom: noreply@pds.test"),
        ("Subject: ", "Subject: Re: "),
        ("X-Atmos-Member-Did: did:plc:abc", "X-Atmos-Member-Did: did:plc:other"),
        ("Feedback-ID: otp", "Feedback-ID: notice"),
        ("MIME-Version: 1.0", "MIME-Version: 1.1"),
        ("boundary=\"", "boundary=\"x"),
        ("Content-Type: text/plain", "Content-Type: text/html"),
    ] {
        check_all(ring, &replace(&message, from, to), false, to).await;
    }
    check_all(ring, &[&message[..], b"one more line\r\n"].concat(), false, "longer body").await;
    // Relays do these: a field above, other blanks in a fold and at the ends of lines.
    check_all(ring, &[b"Received: from x by y; z\r\n", &message[..]].concat(), true, "next hop").await;
    check_all(ring, &replace(&message, "Content-Type: multipart", "Content-Type:  multipart"), true, "refolded").await;
}

#[tokio::test]
async fn every_field_that_a_reader_or_program_acts_on_is_signed() {
    let ring = &*RING;
    let names = [
        "From",
        "To",
        "Cc",
        "Subject",
        "Date",
        "Message-ID",
        "Reply-To",
        "Sender",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
        "In-Reply-To",
        "References",
        "Auto-Submitted",
        "List-Id",
        "list-unsubscribe",
        "List-Unsubscribe-Post",
    ];
    let field = |name: &&str| format!("{name}: <value@pds.test>\r\n");
    let submitted = names.iter().map(field).collect::<String>() + "X-Mailer: <value@pds.test>\r\n\r\nbody\r\n";
    let message = whole(&sign(ring, true, job(submitted.as_bytes())).unwrap());
    check_all(ring, &message, true, "unaltered").await;
    for name in names {
        let altered = replace(&message, &format!("\n{name}: <value@"), &format!("\n{name}: <other@"));
        check_all(ring, &altered, false, name).await;
    }
    check_all(ring, &replace(&message, "X-Mailer: <value@", "X-Mailer: <other@"), true, "not signed").await;
}

#[tokio::test]
async fn odd_but_legal_messages_verify() {
    let ring = &*RING;
    for message in [
        "From: a@pds.test\r\n\r\n",
        "From: a@pds.test\r\n",
        "From: a@pds.test\r\n\r\n\r\n\r\n",
        "From: a@pds.test\r\nSubject:\r\n\r\n.\r\n",
        "From: a@pds.test\r\nTo: x@y.example\r\nTo: z@y.example\r\nList-Id: <l.example>\r\nList-Unsubscribe: <mailto:a@b>\r\n\r\nb  b \r\n\r\n",
        "from: =?utf-8?q?=C3=BC?= <a@pds.test>\r\nSUBJECT: \u{fc}\r\n\r\n\u{fc}\r\n",
        "Bcc: x@y.example\r\nFrom: a@pds.test\r\n\r\nbody without an end",
    ] {
        check_all(ring, &whole(&sign(ring, true, job(message.as_bytes())).unwrap()), true, message).await;
    }
}

/// mail-auth's signer wants to own its key.
struct Shared(Arc<SigningKey>);

impl crypto::SigningKey for Shared {
    type Hasher = crypto::Sha256;

    fn sign(&self, input: impl Writable) -> mail_auth::Result<Vec<u8>> {
        crypto::SigningKey::sign(&*self.0, input)
    }

    fn algorithm(&self) -> crypto::Algorithm {
        crypto::SigningKey::algorithm(&*self.0)
    }
}

#[test]
fn we_sign_what_mail_auth_would_sign() {
    let ring = &*RING;
    for sample in SAMPLES {
        let message = whole(&sign(&KeyRing::default(), false, job(sample)).unwrap());
        let signed = sign(ring, true, job(sample)).unwrap();
        let ours = AuthenticatedMessage::parse(&signed.head).unwrap();
        let keys = [ring.coop().unwrap(), &ring.member("pds.test")[1], &ring.member("pds.test")[0]];
        assert_eq!(ours.dkim_headers.len(), 3);
        for (key, ours) in keys.into_iter().zip(&ours.dkim_headers) {
            let ours: &Signature = &ours.header;
            // Its list names a field that occurs once for each instance; one that does not occur is oversigned.
            let names = ours.h.iter().map(String::as_str);
            let theirs = DkimSigner::from_key(Shared(Arc::clone(key)))
                .domain(key.domain())
                .selector(key.selector())
                .headers(names)
                .sign(&message)
                .unwrap();
            assert_eq!(theirs.bh, ours.bh);
            assert_eq!(theirs.h, ours.h);
            assert_eq!(theirs.h.iter().filter(|name| name.eq_ignore_ascii_case("From")).count(), 2);
            assert_eq!(
                (&theirs.d, &theirs.s, theirs.a, theirs.ch, theirs.cb, 0),
                (&ours.d, &ours.s, ours.a, ours.ch, ours.cb, ours.l)
            );
            // Theirs bears the time of its making; with ours the octets to be signed, and so the signature, are the same.
            let mut again = theirs.clone();
            again.t = ours.t;
            let headers = Header::parse(&Bytes::from(message.clone())).unwrap();
            let mut canonical = Vec::new();
            let fields: Vec<_> = headers.fields().map(|field| (field.name, field.value)).collect();
            let signed = |field: &&(&[u8], &[u8])| ours.h.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(field.0));
            let signed: Vec<_> = fields.iter().rev().filter(signed).copied().collect();
            mail_auth::dkim::Canonicalization::Relaxed.canonicalize_headers(signed.into_iter(), &mut canonical);
            again.b.clear();
            again.write(&mut canonical, false);
            assert_eq!(crypto::SigningKey::sign(&**key, &canonical[..]).unwrap(), ours.b);
        }
    }
}

#[test]
fn a_member_without_keys_is_refused_or_counted() {
    let coop_only = || {
        let key = SigningKey::generate("relay.example.test", "coop", Algorithm::Rsa).unwrap();
        KeyRing::new([key], Some(("relay.example.test", "coop")))
    };
    let error = sign(&coop_only(), true, job(SAMPLES[2])).unwrap_err();
    assert_eq!(error, SignError::NoKey("pds.test".into()));
    assert!(error.reply().is_transient());
    let signed = sign(&coop_only(), false, job(SAMPLES[2])).unwrap();
    assert_eq!((signed.signatures, signed.member_unsigned), (1, true));
    let signed = sign(&KeyRing::default(), false, job(SAMPLES[2])).unwrap();
    assert_eq!((signed.signatures, signed.member_unsigned), (0, true));
    let notice = sign(&coop_only(), true, Job { domain: None, ..job(SAMPLES[2]) }).unwrap();
    assert_eq!((notice.signatures, notice.member_unsigned), (1, false));
}

async fn until_waiting(signers: &Signers, count: usize) {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(signers.waiting(), count);
}

#[tokio::test]
async fn one_time_codes_overtake_what_waits() {
    let keys = Arc::new(ArcSwap::from_pointee(KeyRing::default()));
    let (signers, mut pool) = Signers::new(1, keys, false);
    let done = Arc::new(Mutex::new(Vec::new()));
    let submissions = [("notice 1", false), ("notice 2", false), ("code", true)].map(|(name, urgent)| {
        let (signers, done) = (signers.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            signers.sign(Job { urgent, ..job(SAMPLES[2]) }).await.unwrap();
            done.lock().unwrap().push(name);
        })
    });
    // Handed over while nobody signs yet: then the signer chooses.
    until_waiting(&signers, 3).await;
    tokio::spawn(pool.remove(0).run());
    for submission in submissions {
        submission.await.unwrap();
    }
    assert_eq!(*done.lock().unwrap(), ["code", "notice 1", "notice 2"]);
    assert_eq!(signers.waiting(), 0);
}

#[tokio::test]
async fn two_idle_signers_share_a_one_time_code_and_sign_it_as_one_would() {
    let (signers, pool) = Signers::new(2, Arc::new(ArcSwap::from_pointee(RING.clone())), true);
    let submission = tokio::spawn({
        let signers = signers.clone();
        async move { signers.sign(Job { urgent: true, ..job(SAMPLES[2]) }).await }
    });
    // One job for each of the two.
    until_waiting(&signers, 2).await;
    pool.into_iter().for_each(|signer| drop(tokio::spawn(signer.run())));
    let (shared, alone) = (submission.await.unwrap().unwrap(), sign(&RING, true, job(SAMPLES[2])).unwrap());
    assert_eq!(shared.signatures, 3);
    assert_eq!(String::from_utf8(whole(&shared)).unwrap(), String::from_utf8(whole(&alone)).unwrap());
    assert_eq!(shared.signature_bytes, alone.signature_bytes);
}

#[tokio::test]
async fn a_full_pool_makes_submitters_wait_and_spreads_its_load() {
    let keys = Arc::new(ArcSwap::from_pointee(KeyRing::default()));
    let (signers, pool) = Signers::new(2, keys, false);
    let submissions: Vec<_> = (0..200)
        .map(|_| {
            let signers = signers.clone();
            tokio::spawn(async move { signers.sign(job(SAMPLES[2])).await })
        })
        .collect();
    // In a channel, or for a place in one.
    until_waiting(&signers, 200).await;
    assert!(submissions.iter().all(|submission| !submission.is_finished()));
    let pool: Vec<_> = pool.into_iter().map(|signer| tokio::spawn(signer.run())).collect();
    for submission in submissions {
        submission.await.unwrap().unwrap();
    }
    assert_eq!(signers.waiting(), 0);
    drop(signers);
    for signer in pool {
        signer.await.unwrap();
    }
}

#[tokio::test]
async fn a_stopped_pool_says_so() {
    let keys = Arc::new(ArcSwap::from_pointee(KeyRing::default()));
    let (signers, pool) = Signers::new(2, keys, false);
    drop(pool);
    assert_eq!(signers.sign(job(SAMPLES[2])).await.unwrap_err(), SignError::Stopped);
}
