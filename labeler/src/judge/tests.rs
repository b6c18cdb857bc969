use super::*;

const DID: &str = "did:plc:7tcx4xxjwidnicieiwtrpyal";
const ED25519: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const SOURCE: &str = "198.51.100.7";
const PROBE: &str = "192.0.0.8";

fn found<T>(record: T) -> Answer<T> {
    Answer::Found(vec![record])
}

fn text(record: &str) -> Answer<String> {
    found(record.into())
}

fn texts(records: &[&str]) -> Answer<String> {
    Answer::Found(records.iter().map(|&record| record.into()).collect())
}

fn unknown<T>() -> Answer<T> {
    Answer::Unknown("SERVFAIL".into())
}

fn evaluated(address: &str, result: SpfResult) -> Evaluated {
    Evaluated { address: address.parse().unwrap(), result, voids: 0, unaskable: None }
}

fn right() -> Facts {
    Facts {
        did: DID.into(),
        domain: "member.example".into(),
        handle: Some("alice.test".into()),
        relay: true,
        control: text(&format!("did={DID}")),
        well_known: Answer::Absent,
        mx: found((10, "mx.member.example.".into())),
        mx_addresses: vec![("mx.member.example.".into(), found("203.0.113.1".parse().unwrap()))],
        mx_greetings: Vec::new(),
        spf: texts(&["google-site-verification=x", "v=spf1 ip4:198.51.100.7 -all"]),
        spf_probe: Some(evaluated(PROBE, SpfResult::Fail)),
        spf_sources: vec![evaluated(SOURCE, SpfResult::Pass)],
        dkim: vec![("s1".into(), text(&rsa(2048)))],
        dmarc: vec![("_dmarc.member.example".into(), text("v=DMARC1; p=reject; adkim=r"))],
        senders: Vec::new(),
        mta_sts: Answer::Absent,
        tls_rpt: Answer::Absent,
        bimi: Answer::Absent,
    }
}

fn judged(change: impl FnOnce(&mut Facts)) -> Judgement {
    let mut facts = right();
    change(&mut facts);
    judge(&facts)
}

fn handle_is_the_domain(facts: &mut Facts) {
    (facts.control, facts.handle) = (Answer::Absent, Some("member.example".into()));
}

fn key(facts: &mut Facts, record: &str) {
    facts.dkim[0].1 = text(record);
}

fn dmarc(facts: &mut Facts, record: &str) {
    facts.dmarc[0].1 = text(record);
}

fn parent_dmarc(facts: &mut Facts, record: &str) {
    facts.domain = "mail.member.example".into();
    facts.dmarc = vec![("_dmarc.mail.member.example".into(), Answer::Absent), ("_dmarc.member.example".into(), text(record))];
}

fn spf(facts: &mut Facts, record: &str) {
    facts.spf = text(record);
}

#[test]
fn what_is_right_passes_without_reasons() {
    let judgement = judge(&right());
    assert_eq!((judgement.verdict, judgement.reasons()), (Verdict::Pass, vec![]));
    assert!(judgement.checks.iter().all(|check| matches!(check.status, Status::Pass | Status::Note)), "{judgement:#?}");
}

type Change = fn(&mut Facts);

/// Kind of the check, how it ends, what it says, what is to be published (part of `value`; empty: not asked).
#[rustfmt::skip]
const CASES: &[(&str, Change, Kind, Status, &str, &str)] = &[
    // Control.
    ("no TXT", |f| f.control = Answer::Absent, Kind::Control, Status::Fail, "nothing at _atproto.member.example names a DID", "did=did:plc:7tcx4xxjwidnicieiwtrpyal"),
    ("another DID", |f| f.control = text("did=did:plc:other"), Kind::Control, Status::Fail, "names did:plc:other", "did=did:plc:7"),
    ("two DIDs", |f| f.control = texts(&["did=did:plc:7tcx4xxjwidnicieiwtrpyal", "did=did:plc:other"]), Kind::Control, Status::Fail, "2 different DIDs", "did="),
    ("the same DID twice", |f| f.control = texts(&["x", "did=did:plc:7tcx4xxjwidnicieiwtrpyal", "did=did:plc:7tcx4xxjwidnicieiwtrpyal"]), Kind::Control, Status::Pass, "", ""),
    ("upper case", |f| f.control = text("DID=did:plc:7tcx4xxjwidnicieiwtrpyal"), Kind::Control, Status::Fail, "must begin with `did=`", "did="),
    ("quotation marks inside", |f| f.control = text("\"did=did:plc:7tcx4xxjwidnicieiwtrpyal\""), Kind::Control, Status::Fail, "must begin with `did=`", "did="),
    ("a wildcard's TXT", |f| f.control = text("v=spf1 -all"), Kind::Control, Status::Fail, "nothing at", "did="),
    ("lookup fails", |f| f.control = unknown(), Kind::Control, Status::Unknown, "could not be looked up: SERVFAIL", ""),
    ("handle without any word", handle_is_the_domain, Kind::Control, Status::Fail, "neither _atproto.member.example nor https://member.example", "did="),
    ("handle, and well-known names it", |f| { handle_is_the_domain(f); f.well_known = text("did:plc:7tcx4xxjwidnicieiwtrpyal\n") }, Kind::Control, Status::Pass, "", ""),
    ("handle in capitals", |f| { handle_is_the_domain(f); f.handle = Some("Member.Example".into()); f.well_known = text(DID) }, Kind::Control, Status::Pass, "", ""),
    ("handle, well-known names another", |f| { handle_is_the_domain(f); f.well_known = text("did:plc:other") }, Kind::Control, Status::Fail, "neither", "did="),
    ("handle, well-known fails", |f| { handle_is_the_domain(f); f.well_known = unknown() }, Kind::Control, Status::Unknown, "could not be fetched", "did="),
    ("well-known without the handle", |f| (f.control, f.well_known) = (Answer::Absent, text(DID)), Kind::Control, Status::Fail, "nothing at", "did="),
    // MX.
    ("no MX", |f| f.mx = Answer::Absent, Kind::Mx, Status::Fail, "no MX", "10 <host>"),
    ("null MX", |f| f.mx = found((0, ".".into())), Kind::Mx, Status::Fail, "null MX", "10 <host>"),
    ("null MX beside another", |f| f.mx = Answer::Found(vec![(0, ".".into()), (10, "mx.example.".into())]), Kind::Mx, Status::Pass, "", ""),
    ("MX lookup fails", |f| f.mx = unknown(), Kind::Mx, Status::Unknown, "SERVFAIL", ""),
    ("MX host without address", |f| f.mx_addresses[0].1 = Answer::Absent, Kind::Mx, Status::Warn, "mx.member.example. has no address", ""),
    ("MX host that cannot be looked up", |f| f.mx_addresses[0].1 = unknown(), Kind::Mx, Status::Pass, "", ""),
    ("MX host that greets, after one that did not", |f| f.mx_greetings = vec![("a.".into(), Err("refused".into())), ("b.".into(), Ok("220 b".into()))], Kind::Mx, Status::Pass, "", ""),
    ("MX host that does not greet", |f| f.mx_greetings = vec![("a.".into(), Err("it says \"554 no\"".into()))], Kind::Mx, Status::Warn, "no mail server answers: a.: it says \"554 no\"", ""),
    // SPF, the record.
    ("no SPF", |f| f.spf = Answer::Absent, Kind::Spf, Status::Fail, "no SPF record", "v=spf1 ip4:198.51.100.7 -all"),
    ("no SPF, no relay", |f| { f.spf = Answer::Absent; f.relay = false }, Kind::Spf, Status::Fail, "no SPF record", "v=spf1 mx -all"),
    ("another version", |f| spf(f, "v=spf10 -all"), Kind::Spf, Status::Fail, "no SPF record", "v=spf1"),
    ("space before it", |f| spf(f, " v=spf1 mx -all"), Kind::Spf, Status::Fail, "begins with `v=spf1` exactly", "v=spf1"),
    ("two records", |f| f.spf = texts(&["v=spf1 -all", "v=spf1 mx -all"]), Kind::Spf, Status::Fail, "2 SPF records", "v=spf1"),
    ("everybody", |f| spf(f, "v=spf1 mx +all"), Kind::Spf, Status::Fail, "+all", "v=spf1 mx -all"),
    ("everybody without a sign", |f| spf(f, "v=spf1 mx ALL"), Kind::Spf, Status::Fail, "+all", "v=spf1 mx -all"),
    ("everybody by a network", |f| { spf(f, "v=spf1 ip4:0.0.0.0/0 -all"); f.spf_probe = Some(evaluated(PROBE, SpfResult::Pass)) }, Kind::Spf, Status::Fail, "covers every address", "v=spf1 ip4:198.51.100.7"),
    ("not to be read", |f| spf(f, "v=spf1 ip4:1.2.3 -all"), Kind::Spf, Status::Fail, "cannot be read", "v=spf1"),
    ("too many lookups", |f| f.spf_probe = Some(evaluated(PROBE, SpfResult::PermError)), Kind::Spf, Status::Fail, "more than 10 lookups", "v=spf1"),
    ("an include that fails", |f| f.spf_probe = Some(evaluated(PROBE, SpfResult::TempError)), Kind::Spf, Status::Unknown, "could not be looked up", ""),
    ("a name that cannot be", |f| f.spf_probe = Some(Evaluated { unaskable: Some("x".repeat(300)), ..evaluated(PROBE, SpfResult::TempError) }), Kind::Spf, Status::Fail, "no name that DNS can hold", "v=spf1 ip4:198.51.100.7 -all"),
    ("void lookups", |f| f.spf_probe = Some(Evaluated { voids: 3, ..evaluated(PROBE, SpfResult::Fail) }), Kind::Spf, Status::Warn, "3 of its lookups", ""),
    ("ptr", |f| spf(f, "v=spf1 ptr ip4:198.51.100.7 -all"), Kind::Spf, Status::Warn, "`ptr`", ""),
    ("no end", |f| { spf(f, "v=spf1 ip4:198.51.100.7"); f.spf_probe = Some(evaluated(PROBE, SpfResult::Neutral)) }, Kind::Spf, Status::Warn, "end it with", ""),
    ("soft end, version in capitals", |f| { spf(f, "V=SPF1 include:relay.example ~all"); f.spf_probe = Some(evaluated(PROBE, SpfResult::SoftFail)) }, Kind::Spf, Status::Pass, "", ""),
    ("SPF lookup fails", |f| f.spf = unknown(), Kind::Spf, Status::Unknown, "SERVFAIL", ""),
    // SPF, the co-op's sources.
    ("source refused", |f| { spf(f, "v=spf1 mx -all"); f.spf_sources[0].result = SpfResult::Fail }, Kind::SpfSources, Status::Fail, "from 198.51.100.7", "v=spf1 ip4:198.51.100.7 mx -all"),
    ("source of IPv6 only soft", |f| { spf(f, "v=spf1 mx ~all"); f.spf_sources.push(evaluated("2001:db8::7", SpfResult::SoftFail)) }, Kind::SpfSources, Status::Fail, "from 2001:db8::7", "v=spf1 ip6:2001:db8::7 mx ~all"),
    ("source refused by a long record", |f| { spf(f, &format!("v=spf1{} -all", " ip4:192.0.2.1".repeat(40))); f.spf_sources[0].result = SpfResult::Fail }, Kind::SpfSources, Status::Fail, "from 198.51.100.7", "ip4:192.0.2.1 -all"),
    ("source not found out", |f| f.spf_sources[0].result = SpfResult::TempError, Kind::SpfSources, Status::Unknown, "could not be found out", ""),
    ("source passes", |_| {}, Kind::SpfSources, Status::Pass, "", ""),
    // DKIM.
    ("no key", |f| f.dkim[0].1 = Answer::Absent, Kind::Dkim, Status::Fail, "s1._domainkey.member.example does not exist", "v=DKIM1"),
    ("revoked", |f| key(f, "v=DKIM1; k=rsa; p="), Kind::Dkim, Status::Fail, "revoked", "v=DKIM1"),
    ("another version", |f| key(f, "v=DKIM2; p=AAAA"), Kind::Dkim, Status::Fail, "version", "v=DKIM1"),
    ("a placeholder", |f| key(f, "v=DKIM1; p=<key>"), Kind::Dkim, Status::Fail, "not base64", "v=DKIM1"),
    ("no p at all", |f| key(f, "v=DKIM1; k=rsa"), Kind::Dkim, Status::Fail, "it has no `p=`", "v=DKIM1"),
    ("rubbish in base64", |f| key(f, "v=DKIM1; k=rsa; p=AAAA"), Kind::Dkim, Status::Fail, "not an RSA key", "v=DKIM1"),
    ("a wildcard's TXT", |f| key(f, "v=spf1 -all"), Kind::Dkim, Status::Fail, "only other texts", "v=DKIM1"),
    ("quotation marks inside", |f| key(f, "\"v=DKIM1; x\""), Kind::Dkim, Status::Fail, "quotation marks", "v=DKIM1"),
    ("512 bits", |f| key(f, &rsa(512)), Kind::Dkim, Status::Fail, "512 bits is too short", "2048 bits"),
    ("1024 bits", |f| key(f, &rsa(1024)), Kind::Dkim, Status::Warn, "1024 bits", "2048 bits"),
    ("2048 bits", |f| key(f, &rsa(2048)), Kind::Dkim, Status::Pass, "", ""),
    ("4096 bits without version and kind", |f| key(f, &rsa(4096).replace("v=DKIM1; k=rsa; ", "")), Kind::Dkim, Status::Pass, "", ""),
    ("space inside of the key", |f| key(f, &rsa(2048).replace("IjAN", "Ij AN")), Kind::Dkim, Status::Pass, "", ""),
    ("Ed25519", |f| key(f, &format!("k=ed25519;p={ED25519}")), Kind::Dkim, Status::Pass, "", ""),
    ("Ed25519 of another length", |f| key(f, "v=DKIM1; k=ed25519; p=AAAA"), Kind::Dkim, Status::Fail, "32 octets, this one 3", "v=DKIM1"),
    ("another algorithm", |f| key(f, &format!("v=DKIM1; k=dsa; p={ED25519}")), Kind::Dkim, Status::Fail, "no usable key", "v=DKIM1"),
    ("testing", |f| key(f, &format!("v=DKIM1; k=ed25519; t=y; p={ED25519}")), Kind::Dkim, Status::Fail, "testing mode", "v=DKIM1; k=ed25519; p=11q"),
    ("testing, and strict", |f| key(f, &format!("v=DKIM1; k=ed25519; t=y:s; p={ED25519}")), Kind::Dkim, Status::Fail, "testing mode", "v=DKIM1; k=ed25519; t=s; p=11q"),
    ("testing, with a long key", |f| key(f, &rsa(4096).replace("p=", "t=y; p=")), Kind::Dkim, Status::Fail, "testing mode", "v=DKIM1; k=rsa; p=MII"),
    ("a part that is no tag", |f| key(f, &format!("vnDKIM1; k=ed25519; p={ED25519}")), Kind::Dkim, Status::Fail, "`vnDKIM1` in it is no", "v=DKIM1"),
    ("testing, said second", |f| key(f, &format!("v=DKIM1; k=ed25519; t=s; t=y; p={ED25519}")), Kind::Dkim, Status::Fail, "`t=` stands twice", "v=DKIM1"),
    ("strict", |f| key(f, &format!("v=DKIM1; k=ed25519; t=s; p={ED25519}")), Kind::Dkim, Status::Pass, "", ""),
    ("sha1 only", |f| key(f, &format!("v=DKIM1; k=ed25519; h=sha1; p={ED25519}")), Kind::Dkim, Status::Fail, "sha256", "v=DKIM1; k=ed25519; p="),
    ("for another service", |f| key(f, &format!("v=DKIM1; k=ed25519; s=tlsrpt; p={ED25519}")), Kind::Dkim, Status::Fail, "e-mail", "v=DKIM1; k=ed25519; p="),
    ("rubbish beside the key", |f| f.dkim[0].1 = texts(&["rubbish", "v=DKIM1;k=ed25519;p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]), Kind::Dkim, Status::Pass, "", ""),
    ("two keys", |f| f.dkim[0].1 = texts(&["k=ed25519;p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", "v=DKIM1;p="]), Kind::Dkim, Status::Warn, "several keys", ""),
    ("key lookup fails", |f| f.dkim[0].1 = unknown(), Kind::Dkim, Status::Unknown, "SERVFAIL", ""),
    // DMARC.
    ("no DMARC", |f| f.dmarc[0].1 = Answer::Absent, Kind::Dmarc, Status::Fail, "_dmarc.member.example has no DMARC record", "v=DMARC1; p=reject"),
    ("policy none", |f| dmarc(f, "v=DMARC1; p=none; rua=mailto:a@b.example"), Kind::Dmarc, Status::Fail, "_dmarc.member.example has p=none", "v=DMARC1; p=reject; rua=mailto:a@b.example"),
    ("no policy", |f| dmarc(f, "v=DMARC1"), Kind::Dmarc, Status::Fail, "(nothing)", "v=DMARC1; p=reject"),
    ("version not first", |f| dmarc(f, "p=reject; v=DMARC1"), Kind::Dmarc, Status::Fail, "no DMARC record", "v=DMARC1; p=reject"),
    ("quotation marks inside", |f| dmarc(f, "\"v=DMARC1; p=reject\""), Kind::Dmarc, Status::Fail, "begins with `v=DMARC1` exactly", "v=DMARC1; p=reject"),
    ("two records", |f| f.dmarc[0].1 = texts(&["v=DMARC1; p=reject", "v=DMARC1; p=none"]), Kind::Dmarc, Status::Fail, "count as none", "v=DMARC1"),
    ("quarantine in capitals", |f| dmarc(f, "v=DMARC1;p=QUARANTINE"), Kind::Dmarc, Status::Pass, "", ""),
    ("space everywhere, rubbish beside", |f| f.dmarc[0].1 = texts(&["rubbish", "v = DMARC1 ; p = reject"]), Kind::Dmarc, Status::Pass, "", ""),
    ("subdomains open", |f| dmarc(f, "v=DMARC1; p=reject; sp=none"), Kind::Dmarc, Status::Warn, "sp=none", "v=DMARC1; p=reject; sp=reject"),
    ("a part of the mail", |f| dmarc(f, "v=DMARC1; p=reject; pct=20"), Kind::Dmarc, Status::Warn, "not apply to all mail", "v=DMARC1; p=reject"),
    ("nothing asked yet", |f| dmarc(f, "v=DMARC1; p=quarantine; t=y"), Kind::Dmarc, Status::Fail, "does not ask for anything yet", "v=DMARC1; p=reject"),
    ("two policies in one record", |f| dmarc(f, "v=DMARC1; p=reject; p=none"), Kind::Dmarc, Status::Fail, "`p=` twice", "v=DMARC1; p=reject"),
    ("strict alignment", |f| dmarc(f, "v=DMARC1; p=reject; adkim=s"), Kind::Dmarc, Status::Note, "strict alignment", ""),
    ("a parent's policy", |f| parent_dmarc(f, "v=DMARC1; p=reject"), Kind::Dmarc, Status::Note, "a parent's", ""),
    ("a parent's policy for subdomains", |f| parent_dmarc(f, "v=DMARC1; p=reject; sp=none"), Kind::Dmarc, Status::Fail, "_dmarc.member.example has sp=none", "v=DMARC1; p=reject"),
    ("a parent that asks only for subdomains", |f| parent_dmarc(f, "v=DMARC1; p=none; sp=reject"), Kind::Dmarc, Status::Note, "a parent's", ""),
    ("a parent that cannot be looked up", |f| { parent_dmarc(f, ""); f.dmarc[1].1 = unknown() }, Kind::Dmarc, Status::Unknown, "SERVFAIL", ""),
    ("DMARC lookup fails", |f| f.dmarc[0].1 = unknown(), Kind::Dmarc, Status::Unknown, "SERVFAIL", ""),
    // Noted.
    ("MTA-STS", |f| f.mta_sts = text("v=STSv1; id=1"), Kind::MtaSts, Status::Pass, "", ""),
    ("no MTA-STS", |_| {}, Kind::MtaSts, Status::Note, "not required", ""),
    ("TLS-RPT", |f| f.tls_rpt = text("v=TLSRPTv1; rua=mailto:a@b.example"), Kind::TlsRpt, Status::Pass, "", ""),
    ("TLS-RPT lookup fails", |f| f.tls_rpt = unknown(), Kind::TlsRpt, Status::Note, "could not be looked up", ""),
    ("BIMI from a wildcard", |f| f.bimi = text("v=spf1 -all"), Kind::Bimi, Status::Note, "not required", ""),
    ("names that lead back", |f| f.senders = vec![sender(text("a.member.example."), found("192.0.2.9".parse().unwrap()))], Kind::Ptr, Status::Pass, "", ""),
    ("no name", |f| f.senders = vec![sender(Answer::Absent, Answer::Absent)], Kind::Ptr, Status::Warn, "has no name", "<name"),
    ("a name that leads elsewhere", |f| f.senders = vec![sender(text("a.member.example."), found("192.0.2.10".parse().unwrap()))], Kind::Ptr, Status::Warn, "does not lead back", "<name"),
    ("a name that cannot be looked up", |f| f.senders = vec![sender(unknown(), Answer::Absent)], Kind::Ptr, Status::Note, "could not be looked up", ""),
];

fn sender(names: Answer<String>, back: Answer<IpAddr>) -> Sender {
    Sender { address: "192.0.2.9".parse().unwrap(), names, back }
}

#[test]
fn each_case_ends_as_the_table_says_and_says_what_to_publish() {
    for (case, change, kind, status, why, publish) in CASES {
        let judgement = judged(change);
        let check = judgement.checks.iter().find(|check| check.kind == *kind).unwrap_or_else(|| panic!("{case}: no {kind:?}"));
        assert_eq!(check.status, *status, "{case}: {check:?}");
        let said = check.why.as_deref().unwrap_or_default();
        assert!(said.contains(why) && (!why.is_empty() || said.is_empty()), "{case}: {said}");
        let value = check.publish.as_ref().map(|record| record.value.as_str()).unwrap_or_default();
        assert!(value.contains(publish) && (!publish.is_empty() || value.is_empty()), "{case}: publish {value:?}");
        // Only this check is touched, so that the whole follows from it.
        let verdict = match status {
            Status::Fail => Verdict::Fail,
            Status::Unknown => Verdict::Unknown,
            Status::Pass | Status::Warn | Status::Note => Verdict::Pass,
        };
        assert_eq!(judgement.verdict, verdict, "{case}: {:?}", judgement.reasons());
        assert_eq!(judgement.reasons().len(), usize::from(verdict != Verdict::Pass), "{case}: {:?}", judgement.reasons());
    }
}

#[test]
fn a_registrys_suffix_is_nobodys_and_a_private_one_is_its_owners() {
    for (domain, refused) in [
        ("co.uk", true),
        ("com.au", true),
        ("xn--55qx5d.cn", true),
        ("github.io", false),
        ("bank.co.uk", false),
        ("member.example", false),
    ] {
        let judgement = judged(|f| f.domain = domain.into());
        assert_eq!(judgement.verdict == Verdict::Fail, refused, "{domain}: {:?}", judgement.reasons());
        assert_eq!(judgement.is_decisive(None), refused, "{domain}: it was never right, so it counts at once");
        assert_eq!(judgement.reasons().iter().any(|why| why.contains("is a public suffix")), refused, "{domain}");
    }
}

#[test]
fn a_failure_is_a_failure_whatever_else_is_unknown() {
    let judgement = judged(|f| {
        f.mx = unknown();
        f.dmarc[0].1 = Answer::Absent;
    });
    assert_eq!((judgement.verdict, judgement.reasons().len()), (Verdict::Fail, 2));
}

#[test]
fn what_to_publish_passes_once_it_is_published() {
    // The member does exactly what he is told. What only he can know (`<…>`) is left out here.
    for (case, change, kind, ..) in CASES {
        let mut facts = right();
        change(&mut facts);
        let judgement = judge(&facts);
        let Some(check) = judgement.checks.iter().find(|check| check.kind == *kind) else { continue };
        let Some(record) = check.publish.as_ref().filter(|record| record.kind == "TXT" && !record.value.contains('<')) else {
            continue;
        };
        match kind {
            Kind::Control => facts.control = text(&record.value),
            Kind::Spf | Kind::SpfSources => {
                facts.spf = text(&record.value);
                facts.spf_probe = Some(evaluated(PROBE, SpfResult::Fail));
                facts.spf_sources.iter_mut().for_each(|source| source.result = SpfResult::Pass);
            }
            Kind::Dkim => facts.dkim[0].1 = text(&record.value),
            Kind::Dmarc => facts.dmarc = vec![(record.name.clone(), text(&record.value))],
            _ => continue,
        }
        assert_eq!(judge(&facts).reasons(), [""; 0], "{case}: {record:?}");
    }
}

#[test]
fn strangers_texts_are_cut() {
    let judgement = judged(|f| f.control = text(&format!("did={}\n", "x".repeat(10_000))));
    let check = &judgement.checks[0];
    assert!(check.seen[0].chars().count() <= SHOWN_CHARS_MAX + 1);
    assert!(!check.why.as_deref().unwrap().contains('\n'));
}

#[test]
fn json_of_a_check_is_what_its_lexicon_says() {
    let check = judged(|f| f.dmarc[0].1 = text("v=DMARC1; p=none")).checks.into_iter().find(|it| it.kind == Kind::Dmarc).unwrap();
    let json = serde_json::to_value(&check).unwrap();
    assert_eq!(json["kind"], "dmarc");
    assert_eq!(json["status"], "fail");
    assert_eq!(json["publish"]["type"], "TXT");
    assert_eq!(serde_json::from_value::<Check>(json).unwrap(), check);
    for kind in [Kind::SpfSources, Kind::MtaSts, Kind::TlsRpt, Kind::Control] {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
    }
}

/// A record with an RSA key of so many bits: any odd number of that length is one as far as a verifier of keys can tell.
fn rsa(bits: usize) -> String {
    let length = |octets: &mut Vec<u8>, value: usize| match value {
        0..=127 => octets.push(u8::try_from(value).unwrap()),
        128..=255 => octets.extend([0x81, u8::try_from(value).unwrap()]),
        _ => {
            octets.push(0x82);
            octets.extend(u16::try_from(value).unwrap().to_be_bytes());
        }
    };
    let wrap = |tag: u8, inner: &[u8]| {
        let mut octets = vec![tag];
        length(&mut octets, inner.len());
        octets.extend(inner);
        octets
    };
    let modulus = wrap(2, &[&[0][..], &vec![0xc5; bits / 8]].concat());
    let key = wrap(0x30, &[modulus, wrap(2, &[1, 0, 1])].concat());
    let algorithm = wrap(0x30, &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00]);
    let info = wrap(0x30, &[algorithm, wrap(3, &[&[0][..], &key].concat())].concat());
    format!("v=DKIM1; k=rsa; p={}", data_encoding::BASE64.encode(&info))
}

/// Octets that follow from a number, so that a failure can be had again.
struct Noise(u64);

impl Noise {
    fn next(&mut self, below: usize) -> usize {
        // Knuth's multiplier; the high half is good enough here.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }

    /// A record with some letters changed, left out, doubled or cut.
    fn spoil(&mut self, record: &str) -> String {
        const LETTERS: &[char] =
            &[';', '=', ' ', '"', 'v', 'p', ':', '/', '%', '{', '}', '\0', '\n', 'ä', '\u{feff}', '9', '-', '+', '?', '~', '.'];
        let mut letters: Vec<char> = record.chars().collect();
        for _ in 0..=self.next(6) {
            let at = self.next(letters.len().max(1));
            let letter = LETTERS[self.next(LETTERS.len())];
            match self.next(4) {
                0 if at < letters.len() => letters[at] = letter,
                1 if at < letters.len() => drop(letters.remove(at)),
                2 => letters.truncate(at),
                _ => letters.insert(at.min(letters.len()), letter),
            }
        }
        letters.into_iter().collect()
    }
}

#[test]
fn no_record_of_a_stranger_is_a_panic_and_every_failure_has_a_reason() {
    let mut noise = Noise(7);
    let sound = right();
    let of = |answer: &Answer<String>| match answer {
        Answer::Found(texts) => texts.last().cloned().unwrap(),
        _ => String::new(),
    };
    for _ in 0..3000 {
        let mut facts = right();
        facts.control = text(&noise.spoil(&of(&sound.control)));
        facts.spf = text(&noise.spoil("v=spf1 a:%{d}.example/24 mx include:x.example ip4:192.0.2.0/24 exists:%{i}._x.%{d} ~all"));
        facts.dkim[0].1 = text(&noise.spoil(&of(&sound.dkim[0].1)));
        facts.dmarc[0].1 = text(&noise.spoil("v=DMARC1; p=reject; sp=none; pct=20; adkim=s; rua=mailto:a@b.example!10m"));
        facts.mta_sts = text(&noise.spoil("v=STSv1; id=1"));
        let judgement = judge(&facts);
        for check in &judgement.checks {
            assert!(check.status != Status::Fail || check.reason().is_some_and(|reason| reason.len() < 2000), "{check:?}");
            assert!(check.seen.iter().chain(&check.why).all(|text| !text.contains(char::is_control)), "{check:?}");
        }
        spf_senders(&[of(&facts.spf)], 3);
    }
}
