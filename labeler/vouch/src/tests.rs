//! Messages that our own MTA has signed, messages that dkimpy has signed (`samples/`), and what others do to them.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atproto::label::Label;
use atproto::{Did, datetime};
use bytes::Bytes;
use mail_auth::common::crypto::{Ed25519Key, HashContext, HashImpl, Sha256, SigningKey as _};
use mail_auth::common::headers::{Writable, Writer};
use mail_auth::dkim::Canonicalization;
use mta::sign::dkim::{BodyHash, sign};
use mta::sign::header::Header;
use mta::sign::prepare::{Trace, prepare};
use mta::sign::{Algorithm, SigningKey};

use super::*;

const ALICE: &str = "did:plc:alice";
const LABELER: &str = "did:web:labeler.example";
const DAY: Duration = Duration::from_secs(86_400);

/// When everything here is signed.
fn then() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_426_939)
}

fn did(text: &str) -> Did {
    text.parse().unwrap()
}

/// What DNS says here.
type Zone = HashMap<String, Answer>;

/// A member's keys and the co-op's, as the MTA makes them. RSA takes its time, so they are made once.
fn keys() -> &'static [Arc<SigningKey>] {
    static KEYS: OnceLock<Vec<Arc<SigningKey>>> = OnceLock::new();
    let make = |domain, selector, algorithm| Arc::new(SigningKey::generate(domain, selector, algorithm).unwrap());
    KEYS.get_or_init(|| {
        vec![
            make("pds.test", "s1", Algorithm::Rsa),
            make("pds.test", "s2", Algorithm::Ed25519),
            make("relay.example", "coop", Algorithm::Ed25519),
        ]
    })
}

fn zone() -> Zone {
    zone_of(keys())
}

fn zone_of(keys: &[Arc<SigningKey>]) -> Zone {
    let key = |key: &Arc<SigningKey>| {
        let name = key.dns_name().trim_end_matches('.').to_owned();
        (name, Answer::Found(vec![key.dns_value().unwrap()]))
    };
    keys.iter().map(key).collect()
}

/// As the MTA sends it for `member`.
fn sent(message: &[u8], member: Option<&str>) -> Vec<u8> {
    sent_with(keys(), message, member)
}

fn sent_with(keys: &[Arc<SigningKey>], message: &[u8], member: Option<&str>) -> Vec<u8> {
    let octets = Bytes::copy_from_slice(message);
    let trace = Trace {
        hostname: "relay.example",
        ehlo: "pds.test",
        with: "ESMTPSA",
        id: "1",
        only_recipient: None,
        domain: "pds.test",
        did: member,
        class: "otp",
        now: then(),
    };
    let prepared = prepare(&Header::parse(&octets).unwrap(), &trace).unwrap();
    let mut body = BodyHash::begin();
    body.update(&prepared.rest[prepared.body_at..]);
    let (ours, theirs) =
        (Header::parse(&prepared.head).unwrap(), Header::parse(&prepared.rest.slice(..prepared.body_at)).unwrap());
    let signatures = sign(keys, ours.fields().chain(theirs.fields()), &body.finish(), then()).unwrap();
    [&signatures[..], &prepared.head, &prepared.rest].concat()
}

const RESET: &[u8] = include_bytes!("../../../mta/cli/samples/pds-reset.eml");

fn reset() -> Vec<u8> {
    sent(RESET, Some(ALICE))
}

fn label(val: &str, from: SystemTime) -> Label {
    let mut label = Label::account(did(LABELER), &did(ALICE), val, datetime(from));
    label.exp = Some(datetime(from + 7 * DAY));
    label
}

fn account() -> Account {
    Account {
        did: did(ALICE),
        labeler: did(LABELER),
        attested: Attested::Yes { selectors: vec!["s1".into(), "s2".into()], since: Some(then() - 30 * DAY) },
        labels: Ok(vec![label("verified-mail-operator", then() - DAY)]),
    }
}

fn claim(message: &[u8], zone: &Zone, now: SystemTime) -> Claim {
    let message = Message::read(message).unwrap();
    let names = message.keys();
    message.verify(
        |name| {
            assert!(names.iter().any(|known| known == name), "{name} was wanted before");
            zone.get(name).cloned().unwrap_or(Answer::Absent)
        },
        now,
    )
}

/// The answer, an hour after it was signed, with a labeler for which all is in order.
fn report(message: &[u8]) -> Report {
    match Message::read(message) {
        Ok(_) => claim(message, &zone(), then() + Duration::from_secs(3600)).report(Bound::Account(account())),
        Err(refused) => Report::refused(&refused, then()),
    }
}

fn results(report: &Report) -> Vec<Outcome> {
    report.signatures.iter().map(|signature| signature.result).collect()
}

fn put_above(field: &str, message: &[u8]) -> Vec<u8> {
    [format!("{field}\r\n").as_bytes(), message].concat()
}

#[test]
fn what_the_mta_has_signed_is_vouched_for() {
    for sample in [
        RESET,
        include_bytes!("../../../mta/cli/samples/pds-confirm.eml"),
        include_bytes!("../../../mta/cli/samples/pds-delete.eml"),
        include_bytes!("../../../mta/cli/samples/pds-moderation.eml"),
        include_bytes!("../../../mta/cli/samples/pds-plc-operation.eml"),
    ] {
        let report = report(&sent(sample, Some(ALICE)));
        assert_eq!(report.verdict, Verdict::Vouched, "{report:#?}");
        assert_eq!(results(&report), [Outcome::Pass; 3]);
        let aligned: Vec<bool> = report.signatures.iter().map(|signature| signature.aligned).collect();
        assert_eq!(aligned, [true, true, false]);
        assert_eq!((report.signatures[0].key_bits, report.signatures[1].key_bits), (Some(2048), Some(256)));
        assert_eq!((report.named_by, report.did.clone()), (Some(NamedBy::SignedField), Some(did(ALICE))));
        assert!(report.from.as_deref().is_some_and(|from| from.ends_with("@pds.test")));
        assert_eq!(report.domain.as_deref(), Some("pds.test"));
        assert_eq!((report.reasons.len(), report.unsigned_fields.len()), (0, 0), "{report:#?}");
        assert!(report.does_not_prove.iter().any(|it| it.contains("replay")));
        assert_eq!(report.binding.unwrap().at_signature, When::Yes);
    }
}

#[test]
fn a_file_that_was_kept_with_lf_is_the_same_message() {
    let kept: Vec<u8> = reset().into_iter().filter(|octet| *octet != b'\r').collect();
    assert_eq!(report(&kept).verdict, Verdict::Vouched);
}

#[test]
fn a_message_that_names_no_account_is_asked_about_by_its_domain() {
    let message = sent(RESET, None);
    let claim = claim(&message, &zone(), then());
    let asked = claim.question().unwrap();
    assert_eq!((asked.domain.as_str(), &asked.did, asked.signed_at), ("pds.test", &None, Some(then())));
    assert_eq!(asked.selectors, ["s1", "s2"]);
    let report = claim.report(Bound::Account(account()));
    assert_eq!((report.verdict, report.named_by), (Verdict::Vouched, Some(NamedBy::Domain)));
}

#[test]
fn what_was_done_to_a_message_on_its_way_is_seen() {
    let text = String::from_utf8(reset()).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1).into_bytes()
    };
    let above = |field: &str| put_above(field, text.as_bytes());
    let other = |did: &str| format!("X-Atmos-Member-Did: {did}");
    for (what, message, reason) in [
        ("the body", changed("RESET PASSWORD", "RESET PASSW0RD"), "no signature of pds.test"),
        ("the body's end", [text.as_bytes(), b"more\r\n"].concat(), "no signature of pds.test"),
        ("the subject", changed("Subject: Password", "Subject: Passport"), "no signature of pds.test"),
        ("the author", changed("From: noreply@", "From: support@"), "no signature of pds.test"),
        ("the account", changed(ALICE, "did:plc:mallory"), "no signature of pds.test"),
        ("another From above", above("From: ceo@bank.example"), "2 From fields"),
        ("another From below", changed("\r\nSubject:", "\r\nFrom: ceo@bank.example\r\nSubject:"), "2 From fields"),
        ("another Subject above", above("Subject: Urgent"), "several Subject fields"),
        ("another Content-Type above", above("Content-Type: text/html"), "several Content-Type fields"),
        ("another account above", above(&other("did:plc:mallory")), "several X-Atmos-Member-Did fields"),
        ("the same account above", above(&other(ALICE)), "several X-Atmos-Member-Did fields"),
        ("no From at all", changed("From: noreply@pds.test\r\n", ""), "no From field"),
        (
            "an author in a comment",
            changed("From: noreply@pds.test", "From: x@bank.example (noreply@pds.test)"),
            "no signature of bank.example",
        ),
        ("two authors", changed("From: noreply@pds.test", "From: noreply@pds.test, ceo@bank.example"), "several addresses"),
        (
            "an international look-alike",
            changed("From: noreply@pds.test", "From: noreply@p\u{501}s.test"),
            "no signature of xn--ps-42c.test",
        ),
        ("a subdomain's parent", changed("From: noreply@pds.test", "From: noreply@test"), "no domain"),
        ("a neighbour", changed("From: noreply@pds.test", "From: noreply@evilpds.test"), "no signature of evilpds.test"),
        ("mixed line ends", changed("\r\nSubject:", "\nSubject:"), "some lines end with CRLF"),
        ("blank before the colon", above("From : ceo@bank.example"), "neither a field"),
    ] {
        let report = report(&message);
        assert_eq!(report.verdict, Verdict::NotVouched, "{what}: {report:#?}");
        assert!(report.reasons.iter().any(|it| it.contains(reason)), "{what}: {:?}", report.reasons);
    }
}

#[test]
fn what_is_not_signed_is_said() {
    let report = report(&put_above("Reply-To: thief@bank.example", &reset()));
    assert_eq!((report.verdict, report.unsigned_fields.as_slice()), (Verdict::Vouched, ["Reply-To".to_owned()].as_slice()));
    assert!(report.does_not_prove.iter().any(|it| it.contains("Reply-To")));
}

#[test]
fn an_account_that_somebody_else_wrote_into_the_message_is_passed_over() {
    let message = put_above("X-Atmos-Member-Did: did:plc:mallory", &sent(RESET, None));
    let report = report(&message);
    assert_eq!(
        (report.verdict, report.named_by, report.did.clone()),
        (Verdict::Vouched, Some(NamedBy::Domain), Some(did(ALICE)))
    );
    assert!(report.does_not_prove.iter().any(|it| it.contains("X-Atmos-Member-Did is not signed")), "{report:#?}");
}

#[test]
fn a_hundred_signatures_cost_no_more_than_a_few_and_hide_none() {
    let junk =
        |nth: usize| format!("DKIM-Signature: v=1; a=rsa-sha256; d=d{nth}.example; s=s; h=from; l={nth}; bh=YQ==; b=YQ==\r\n");
    let message = [(0..97).map(junk).collect::<String>().as_bytes(), &reset()].concat();
    let read = Message::read(&message).unwrap();
    assert_eq!(read.keys().len(), SIGNATURES_MAX);
    let report = report(&message);
    assert_eq!((report.verdict, report.signatures.len(), report.signatures_passed_over), (Verdict::Vouched, 8, 92));
    // Of one's own domain too: the limit holds, and the answer says what was not looked at.
    let own = |nth: usize| junk(nth).replace(&format!("d{nth}.example"), "pds.test");
    let message = [(0..97).map(own).collect::<String>().as_bytes(), &reset()].concat();
    assert_eq!((self::report(&message).verdict, self::report(&message).signatures_passed_over), (Verdict::NotVouched, 92));
}

#[test]
fn a_message_of_ten_megabytes_is_hashed_once_a_form_and_a_longer_one_than_the_limit_is_refused() {
    let long =
        [RESET, "x".repeat(70).as_bytes(), b"\r\n".repeat(4).as_slice(), "0123456789\r\n".repeat(870_000).as_bytes()].concat();
    let mut message = sent(&long, Some(ALICE));
    assert!(message.len() > 10_000_000);
    assert_eq!(report(&message).verdict, Verdict::Vouched);
    let end = message.len() - 3;
    message[end] = b'!';
    assert_eq!(results(&report(&message)), [Outcome::Fail; 3]);
    assert_eq!(Message::read(&vec![b'a'; MESSAGE_BYTES_MAX + 1]).unwrap_err(), Refused::TooLong);
}

#[test]
fn what_another_program_has_signed_verifies_and_weak_spots_are_named() {
    let keys = include_str!("samples/dkimpy-keys.txt").lines().map(|line| line.split_once(' ').unwrap());
    let zone: Zone = keys.map(|(name, key)| (name.to_owned(), Answer::Found(vec![key.to_owned()]))).collect();
    for (sample, result, bits, says) in [
        (include_bytes!("samples/dkimpy-relaxed-simple.eml").as_slice(), Outcome::Pass, Some(2048), ""),
        (include_bytes!("samples/dkimpy-simple-relaxed.eml"), Outcome::Pass, Some(2048), ""),
        (include_bytes!("samples/dkimpy-simple-simple.eml"), Outcome::Pass, Some(2048), ""),
        (include_bytes!("samples/dkimpy-1024.eml"), Outcome::Pass, Some(1024), "1024 bits; 2048 are asked for"),
        (include_bytes!("samples/dkimpy-length.eml"), Outcome::Policy, Some(2048), "octets of the body (`l=`)"),
        (include_bytes!("samples/dkimpy-768.eml"), Outcome::Policy, Some(768), "only 768 bits"),
        (include_bytes!("samples/dkimpy-sha1.eml"), Outcome::Permerror, None, "rsa-sha1"),
    ] {
        let report = claim(sample, &zone, then()).report(Bound::Nobody("nobody".into()));
        let [signature] = report.signatures.as_slice() else { panic!("{report:#?}") };
        assert_eq!((signature.result, signature.key_bits), (result, bits), "{signature:?}");
        let said = signature.why.iter().chain(&signature.weak).any(|it| it.contains(says));
        assert!(said || says.is_empty(), "{signature:?}");
    }
    let longer = [include_bytes!("samples/dkimpy-length.eml").as_slice(), b"added\r\n"].concat();
    let report = claim(&longer, &zone, then()).report(Bound::Nobody("nobody".into()));
    assert_eq!(report.signatures[0].result, Outcome::Policy, "what was added is not seen by `l=`, so it is not relied on");
    assert!(report.question_was_none());
}

impl Report {
    fn question_was_none(&self) -> bool {
        self.reasons.iter().all(|reason| reason != "nobody")
    }
}

/// A signature with any tags, made here and not by the code that is tested.
struct Signer {
    key: Ed25519Key,
    public: String,
}

struct Text(Vec<u8>);

impl Writable for Text {
    fn write(self, writer: &mut impl Writer) {
        writer.write(&self.0);
    }
}

impl Signer {
    fn new() -> Self {
        let key = Ed25519Key::from_pkcs8_der(&Ed25519Key::generate_pkcs8().unwrap()).unwrap();
        let public = format!("v=DKIM1; k=ed25519; p={}", data_encoding::BASE64.encode(&key.public_key()));
        Self { key, public }
    }

    /// Over From and Subject of a short message; `tags` come first.
    fn sign(&self, tags: &str) -> Vec<u8> {
        let (from, subject, body) = ("from:a@member.example\r\n", "subject:hello\r\n", "body\r\n");
        let mut hasher = Sha256::hasher();
        Canonicalization::Relaxed.canonical_body(body.as_bytes(), 0).write(&mut hasher);
        let hash = data_encoding::BASE64.encode(hasher.complete().as_ref());
        let field = format!("{tags}; c=relaxed/relaxed; h=from:subject:from; bh={hash}; b=");
        let signed = format!("{from}{subject}dkim-signature:{field}");
        let signature = data_encoding::BASE64.encode(&self.key.sign(Text(signed.into_bytes())).unwrap());
        let head = "From: a@member.example\r\nSubject: hello\r\n";
        format!("DKIM-Signature: {field}{signature}\r\n{head}\r\n{body}").into_bytes()
    }

    fn check(&self, tags: &str, key: Answer) -> SignatureReport {
        let zone = Zone::from([("s._domainkey.member.example".to_owned(), key)]);
        let report = claim(&self.sign(tags), &zone, then()).report(Bound::Nobody("nobody".into()));
        report.signatures[0].clone()
    }
}

#[test]
fn each_tag_of_a_signature_and_of_its_key_counts() {
    let signer = Signer::new();
    let found = |text: String| Answer::Found(vec![text]);
    let good = || found(signer.public.clone());
    let base = "v=1; a=ed25519-sha256; d=member.example; s=s";
    let at = 1_795_426_939_u64;
    for (tags, result, says) in [
        (format!("{base}; t={at}"), Outcome::Pass, ""),
        (format!("{base}; t={at}; x={}", at + 1), Outcome::Pass, ""),
        (base.to_owned(), Outcome::Pass, "does not say when"),
        (format!("{base}; i=@sub.member.example"), Outcome::Pass, ""),
        (format!("{base}; t={}", at + 200), Outcome::Pass, ""),
        (format!("{base}; t={}", at + 400), Outcome::Policy, "future"),
        (format!("{base}; t={}; x={at}", at - 1), Outcome::Policy, "expired"),
        (format!("{base}; t={at}; x={}", at - 9), Outcome::Permerror, "expires before"),
        (format!("{base}; t=soon"), Outcome::Permerror, "not a number"),
        (format!("{base}; l=0"), Outcome::Fail, "the body"),
        (format!("{base}; i=@evil.example"), Outcome::Permerror, "`i=`"),
        (format!("{base}; i=@evilmember.example"), Outcome::Permerror, "`i=`"),
        (format!("{base}; q=http"), Outcome::Permerror, "`q=`"),
        (format!("{base}; d=other.example"), Outcome::Permerror, "twice"),
        (base.replace("v=1", "v=2"), Outcome::Permerror, "version"),
        (base.replace("v=1; ", ""), Outcome::Permerror, "`v=`"),
        (base.replace("ed25519", "rsa"), Outcome::Permerror, "not an RSA key"),
        (base.replace("ed25519-sha256", "ed25519-sha512"), Outcome::Permerror, "algorithm"),
        (base.replace("member.example", "example"), Outcome::Permerror, "not a domain"),
        (base.replace("s=s", "s=s/../x"), Outcome::Permerror, "not a selector"),
    ] {
        let checked = signer.check(&tags, good());
        assert_eq!(checked.result, result, "{tags}: {checked:?}");
        assert!(checked.why.iter().chain(&checked.weak).any(|it| it.contains(says)) || says.is_empty(), "{tags}: {checked:?}");
    }
    let public = signer.public.as_str();
    let other = Signer::new().public;
    for (key, result, says) in [
        (Answer::Absent, Outcome::Permerror, "not in DNS"),
        (Answer::Unknown("SERVFAIL".into()), Outcome::Temperror, "SERVFAIL"),
        (found("v=spf1 -all".into()), Outcome::Permerror, "no key"),
        (found("v=DKIM1; k=ed25519; p=".into()), Outcome::Permerror, "revoked"),
        (found(format!("{public}; t=y")), Outcome::Policy, "testing"),
        (found(format!("{public}; h=sha1")), Outcome::Permerror, "sha256"),
        (found(format!("{public}; s=tlsrpt")), Outcome::Permerror, "not for e-mail"),
        (found(format!("{public}; s=*; h=sha1:sha256; n=x")), Outcome::Pass, ""),
        (found(public.replace("ed25519", "rsa")), Outcome::Permerror, "not an Ed25519 key"),
        (found(other.clone()), Outcome::Fail, "not what was signed"),
        (Answer::Found(vec![other.clone(), public.to_owned()]), Outcome::Pass, ""),
        (Answer::Found(vec![other.clone(), other.clone(), other, public.to_owned()]), Outcome::Fail, ""),
    ] {
        let shown = format!("{key:?}");
        let checked = signer.check(base, key);
        assert_eq!(checked.result, result, "{shown}: {checked:?}");
        assert!(checked.why.iter().any(|it| it.contains(says)) || says.is_empty(), "{shown}: {checked:?}");
    }
    let checked = signer.check(&format!("{base}; i=@sub.member.example"), found(format!("{public}; t=s")));
    assert_eq!(checked.result, Outcome::Permerror, "{checked:?}");
}

#[test]
fn a_key_that_cannot_be_looked_up_is_no_failure() {
    let mut zone = zone();
    zone.insert("s1._domainkey.pds.test".into(), Answer::Unknown("timeout".into()));
    let claim = |zone: &Zone| claim(&reset(), zone, then()).report(Bound::Account(account()));
    assert_eq!(claim(&zone).verdict, Verdict::Vouched, "the other signature is enough");
    zone.insert("s2._domainkey.pds.test".into(), Answer::Unknown("timeout".into()));
    assert_eq!(claim(&zone).verdict, Verdict::Unknown);
    zone.insert("coop._domainkey.relay.example".into(), Answer::Absent);
    zone.insert("s1._domainkey.pds.test".into(), Answer::Absent);
    zone.insert("s2._domainkey.pds.test".into(), Answer::Absent);
    assert_eq!(claim(&zone).verdict, Verdict::NotVouched);
}

#[test]
fn what_the_labeler_and_the_account_say_decides() {
    let changed = |change: &dyn Fn(&mut Account)| {
        let mut account = account();
        change(&mut account);
        claim(&reset(), &zone(), then()).report(Bound::Account(account))
    };
    let yes = |since| Attested::Yes { selectors: vec!["s2".into()], since };
    let verified = |from| label("verified-mail-operator", from);
    let negated = || {
        let mut label = verified(then() - Duration::from_secs(60));
        (label.neg, label.exp) = (Some(true), None);
        label
    };
    let foreign = || Label { src: did("did:web:other.example"), ..verified(then() - DAY) };
    let about_other = || Label { uri: "did:plc:mallory".into(), ..verified(then() - DAY) };
    use Verdict::{NotVouched, Unknown, Vouched};
    type Change = Box<dyn Fn(&mut Account)>;
    let labels = |labels: Vec<Label>| -> Change { Box::new(move |it| it.labels = Ok(labels.clone())) };
    let attested = |attested: Attested| -> Change { Box::new(move |it| it.attested = attested.clone()) };
    for (what, change, verdict, says) in [
        ("one selector is enough", attested(yes(Some(then() - DAY))), Vouched, ""),
        ("bound within what clocks differ", attested(yes(Some(then() + Duration::from_secs(60)))), Vouched, ""),
        ("bound after it was signed", attested(yes(Some(then() + Duration::from_secs(900)))), NotVouched, "signed before"),
        ("since when is not known", attested(yes(None)), Vouched, ""),
        (
            "another selector",
            attested(Attested::Yes { selectors: vec!["s3".into()], since: None }),
            NotVouched,
            "does not name the selector s1, s2",
        ),
        ("no attestation", attested(Attested::No("no such record".into())), NotVouched, "no such record"),
        ("a PDS that is silent", attested(Attested::Unknown("timeout".into())), Unknown, "timeout"),
        ("no label", labels(vec![]), NotVouched, "does not call"),
        ("another label", labels(vec![label("relay-member", then() - DAY)]), NotVouched, "does not call"),
        ("one that has run out", labels(vec![verified(then() - 8 * DAY)]), NotVouched, "does not call"),
        ("one that was taken back", labels(vec![verified(then() - DAY), negated()]), NotVouched, "does not call"),
        ("another labeler's", labels(vec![foreign()]), NotVouched, "does not call"),
        ("about another account", labels(vec![about_other()]), NotVouched, "does not call"),
        ("a labeler that is silent", Box::new(|it| it.labels = Err("timeout".into())), Unknown, "timeout"),
        ("another account", Box::new(|it| it.did = did("did:plc:mallory")), NotVouched, "another account"),
    ] {
        let report = changed(&*change);
        assert_eq!(report.verdict, verdict, "{what}: {report:#?}");
        assert!(report.reasons.iter().any(|it| it.contains(says)) || says.is_empty(), "{what}: {:?}", report.reasons);
        assert_eq!(report.reasons.is_empty(), verdict == Vouched, "{what}");
    }
    // Both silent and refused: a refusal is an answer.
    let both = changed(&|it| (it.labels, it.attested) = (Err("timeout".into()), Attested::No("no such record".into())));
    assert_eq!(both.verdict, NotVouched);
    // A label that was issued anew says nothing of the time before.
    let anew = changed(&|it| {
        it.attested = yes(None);
        it.labels = Ok(vec![verified(then() + Duration::from_secs(1000))]);
    });
    assert_eq!((anew.verdict, anew.binding.unwrap().at_signature), (Vouched, When::Unknown));
    assert!(anew.does_not_prove.iter().any(|it| it.contains("already when it was signed")));
}

#[test]
fn a_signature_speaks_for_its_domain_and_below_and_not_across_a_public_suffix() {
    for (author, signer, aligned) in [
        ("mail.bank.co.uk", "mail.bank.co.uk", true),
        ("mail.bank.co.uk", "bank.co.uk", true),
        ("bank.co.uk", "co.uk", false),
        ("bank.co.uk", "uk", false),
        ("bank.co.uk", "mail.bank.co.uk", false),
        ("shop.com.au", "com.au", false),
        ("someone.github.io", "github.io", false),
        ("a.someone.github.io", "someone.github.io", true),
        ("github.io", "github.io", true),
        ("mail.xn--bcher-kva.xn--55qx5d.cn", "xn--bcher-kva.xn--55qx5d.cn", true),
        ("xn--bcher-kva.xn--55qx5d.cn", "xn--55qx5d.cn", false),
        ("member.example", "other.example", false),
    ] {
        let message = format!(
            "DKIM-Signature: v=1; a=ed25519-sha256; d={signer}; s=s1; h=From; bh=AAAA; b=AAAA\r\nFrom: a@{author}\r\n\r\nx\r\n"
        );
        let claim = claim(message.as_bytes(), &Zone::new(), then());
        assert_eq!(claim.report.signatures[0].aligned, aligned, "{signer} for {author}");
    }
}

#[test]
fn a_parents_signature_does_not_speak_where_the_domain_has_its_own() {
    let make = |domain, selector| Arc::new(SigningKey::generate(domain, selector, Algorithm::Ed25519).unwrap());
    let (parent, own) = (make("pds.test", "p1"), make("mail.pds.test", "o1"));
    let message = String::from_utf8(RESET.to_vec()).unwrap().replacen("noreply@pds.test", "noreply@mail.pds.test", 1);
    let asked = |keys: &[Arc<SigningKey>]| {
        let claim = claim(&sent_with(keys, message.as_bytes(), None), &zone_of(keys), then());
        claim.question().map(|it| (it.domain.clone(), it.selectors.clone())).unwrap()
    };
    let its_own = ("mail.pds.test".to_owned(), vec!["o1".to_owned()]);
    assert_eq!(asked(&[parent.clone(), own.clone()]), its_own);
    assert_eq!(asked(&[own, parent.clone()]), its_own);
    assert_eq!(asked(&[parent]), ("pds.test".to_owned(), vec!["p1".to_owned()]));
}
