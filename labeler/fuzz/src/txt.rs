//! TXT records of a domain: parsed and judged. The input is lines; each is a record of the name that its first character says.

use std::sync::OnceLock;

use labeler::judge::{
    Answer, Check, Evaluated, Facts, Judgement, Kind, SpfResult, Status, Verdict, has_dmarc, judge, spf_senders,
};
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;

const DID: &str = "did:plc:abc";
const DOMAIN: &str = "member.example";
const SENDERS_MAX: usize = 3;
/// A record for advice is not longer than what a DNS editor takes.
const ADVICE_CHARS_MAX: usize = 1200;

pub(crate) fn fuzz(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    let facts = facts(&text);
    let judgement = judge(&facts);
    check(&judgement);
    for one in &judgement.checks {
        if one.kind == Kind::Dkim && matches!(one.status, Status::Pass | Status::Warn) {
            agrees(&facts, one);
        }
        advice(&facts, one);
    }
    let Answer::Found(texts) = &facts.spf else { return };
    assert!(spf_senders(texts, SENDERS_MAX).len() <= SENDERS_MAX);
}

/// `c`: control, `w`: well-known, `s`: SPF, `d`: DMARC, `p`: DMARC of the parent, `k`: a key, `m`, `t`, `b`: what is only noted.
fn facts(text: &str) -> Facts {
    let of = |name: char| {
        let texts: Vec<String> = text.split('\n').filter_map(|line| line.strip_prefix(name)).map(str::to_owned).collect();
        if texts.is_empty() { Answer::Absent } else { Answer::Found(texts) }
    };
    let dmarc = of('d');
    let mut asked = vec![(format!("_dmarc.{DOMAIN}"), dmarc.clone())];
    if !matches!(&dmarc, Answer::Found(texts) if has_dmarc(texts)) {
        asked.push(("_dmarc.example".into(), of('p')));
    }
    let evaluated = |result| Evaluated { address: [192, 0, 2, 1].into(), result, voids: 0, unaskable: None };
    Facts {
        did: DID.into(),
        domain: DOMAIN.into(),
        handle: text.contains('h').then(|| DOMAIN.into()),
        relay: text.len() % 2 == 1,
        control: of('c'),
        well_known: of('w'),
        mx: Answer::Found(vec![(10, "mx.member.example.".into())]),
        mx_addresses: Vec::new(),
        mx_greetings: match text.contains('g') {
            true => vec![("mx.member.example.".into(), if text.contains("220") { Ok(text.into()) } else { Err(text.into()) })],
            false => Vec::new(),
        },
        spf: of('s'),
        spf_probe: Some(evaluated(SpfResult::Fail)),
        spf_sources: vec![evaluated(if text.contains("192.0.2.1") { SpfResult::Pass } else { SpfResult::Fail })],
        dkim: vec![("s1".into(), of('k'))],
        dmarc: asked,
        senders: Vec::new(),
        mta_sts: of('m'),
        tls_rpt: of('t'),
        bimi: of('b'),
    }
}

/// The verdict follows from the checks, what is shown is short and clean, and it can be kept and read again.
fn check(judgement: &Judgement) {
    let any = |status| judgement.checks.iter().any(|check| check.status == status);
    let expected = if any(Status::Fail) {
        Verdict::Fail
    } else if any(Status::Unknown) {
        Verdict::Unknown
    } else {
        Verdict::Pass
    };
    assert_eq!(judgement.verdict, expected);
    assert_eq!(judgement.reasons().is_empty(), expected == Verdict::Pass);
    for check in &judgement.checks {
        let bad = matches!(check.status, Status::Fail | Status::Unknown | Status::Warn);
        assert!(!bad || check.why.is_some(), "{check:?}");
        let texts = check.seen.iter().chain(&check.why).chain(check.publish.iter().map(|record| &record.value));
        for text in texts {
            assert!(text.chars().count() <= ADVICE_CHARS_MAX && !text.contains(char::is_control), "{text:?}");
        }
    }
    let kept = serde_json::to_string(judgement).unwrap();
    assert_eq!(&serde_json::from_str::<Judgement>(&kept).unwrap(), judgement);
}

/// What passes here is a key for mail-auth as well, and not in testing mode.
fn agrees(facts: &Facts, check: &Check) {
    let Some((_, Answer::Found(texts))) = facts.dkim.first() else { panic!("passed without a record: {check:?}") };
    let usable = |text: &String| {
        let key = DomainKey::parse(text.as_bytes()).ok()?;
        let bits = key.p.public_key_bits();
        Some(bits >= 256 && key.f & testing() == 0)
    };
    assert!(texts.iter().any(|text| usable(text) == Some(true)), "{texts:?}");
}

/// The flag that mail-auth has for `t=y` (RFC 6376 §3.6.1), and does not name to others.
fn testing() -> u64 {
    static FLAG: OnceLock<u64> = OnceLock::new();
    *FLAG.get_or_init(|| {
        let flags = |t: &str| {
            let record = format!("v=DKIM1; {t}k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
            DomainKey::parse(record.as_bytes()).unwrap().f
        };
        let flag = flags("t=y; ") & !flags("");
        assert!(flag != 0);
        flag
    })
}

/// Who publishes what we say has no more of this trouble.
fn advice(facts: &Facts, check: &Check) {
    let Some(record) = &check.publish else { return };
    // Where only the member knows a part of it there is a `<…>`.
    if check.status != Status::Fail || record.kind != "TXT" || record.value.contains('<') {
        return;
    }
    let mut better = facts.clone();
    let instead = Answer::Found(vec![record.value.clone()]);
    match check.kind {
        Kind::Control => better.control = instead,
        Kind::Dkim => better.dkim = vec![("s1".into(), instead)],
        Kind::Dmarc => better.dmarc = vec![(record.name.clone(), instead)],
        Kind::Spf => better.spf = instead,
        _ => return,
    }
    let again = judge(&better);
    let still: Vec<&Check> = again.checks.iter().filter(|it| it.kind == check.kind && it.status == Status::Fail).collect();
    // A record may be wrong in two ways, and advice is given for one after the other: then it must be another one.
    assert!(still.iter().all(|it| it.why != check.why), "our own advice does not help: {check:?} then {still:?}");
}
