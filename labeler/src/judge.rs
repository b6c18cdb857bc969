//! From what DNS says about a domain to whether its operator may be vouched for. Pure: the answers come in, the reasons go out.
//!
//! Five checks: the DID controls the domain; it receives mail (MX); SPF says who sends and not "everybody"; every selector that was
//! attested publishes a DKIM key; DMARC asks receivers to act on failures. A check that could not be made (a server did not answer) is neither passed
//! nor failed: nobody gains or loses a label by it.
//!
//! Each failed check says what to publish.

use std::collections::BTreeSet;

/// What a lookup gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// These records (for texts: each joined from its strings).
    Found(Vec<T>),
    /// The name or the kind of record does not exist: somebody who knows says so.
    Absent,
    /// Nobody who knows has answered.
    Unknown(String),
}

/// Everything that a judgement rests on.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Who attested.
    pub did: String,
    /// The domain, in its one spelling.
    pub domain: String,
    /// The handle that the DID document claims.
    pub handle: Option<String>,
    /// TXT of `_atproto.<domain>`.
    pub control: Answer<String>,
    /// `https://<domain>/.well-known/atproto-did`; asked only where the handle is the domain and the TXT is absent.
    pub well_known: Answer<String>,
    /// MX of the domain: preference and host (`.` is a null MX).
    pub mx: Answer<(u16, String)>,
    /// TXT of the domain.
    pub spf: Answer<String>,
    /// TXT of `<selector>._domainkey.<domain>`, for each selector.
    pub dkim: Vec<(String, Answer<String>)>,
    /// TXT of `_dmarc.<domain>`.
    pub dmarc: Answer<String>,
}

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// Not so; what is wrong and what to publish.
    Failed(String),
    /// It could not be found out; why.
    Unknown(String),
}

/// The outcome of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every check passed.
    Pass,
    /// One failed, at least.
    Fail,
    /// None failed, but not all could be made.
    Unknown,
}

/// The verdict, with a reason for every check that did not pass.
pub fn judge(facts: &Facts) -> (Verdict, Vec<String>) {
    let mut outcomes = vec![control(facts), mx(facts), spf(facts)];
    outcomes.extend(facts.dkim.iter().map(|(selector, answer)| dkim(facts, selector, answer)));
    outcomes.push(dmarc(facts));
    let failed = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Failed(_)));
    let unknown = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Unknown(_)));
    let verdict = match (failed, unknown) {
        (true, _) => Verdict::Fail,
        (false, true) => Verdict::Unknown,
        (false, false) => Verdict::Pass,
    };
    let reason = |outcome| match outcome {
        Outcome::Passed => None,
        Outcome::Failed(reason) | Outcome::Unknown(reason) => Some(reason),
    };
    (verdict, outcomes.into_iter().filter_map(reason).collect())
}

/// `_atproto.<domain>` names the DID, or the domain is the DID's handle and says so over HTTPS (atproto handle spec).
///
/// The handle in a DID document alone proves nothing: anybody can claim any.
fn control(facts: &Facts) -> Outcome {
    let (name, did) = (format!("_atproto.{}", facts.domain), &facts.did);
    let publish = format!("publish TXT `did={did}` at {name}");
    let named: BTreeSet<&str> = match &facts.control {
        Answer::Unknown(why) => return Outcome::Unknown(format!("control: {name} could not be looked up: {why}")),
        Answer::Absent => BTreeSet::new(),
        Answer::Found(texts) => texts.iter().filter_map(|text| text.strip_prefix("did=")).collect(),
    };
    if named.len() > 1 {
        return Outcome::Failed(format!("control: {name} names {} different DIDs; leave only `did={did}`", named.len()));
    }
    if let Some(other) = named.first() {
        let passed = *other == did;
        return if passed {
            Outcome::Passed
        } else {
            Outcome::Failed(format!("control: {name} names {}; {publish}", short(other)))
        };
    }
    if facts.handle.as_deref().is_some_and(|handle| handle.eq_ignore_ascii_case(&facts.domain)) {
        let url = format!("https://{}/.well-known/atproto-did", facts.domain);
        return match &facts.well_known {
            Answer::Found(bodies) if bodies.iter().any(|body| body.trim() == did) => Outcome::Passed,
            Answer::Unknown(why) => {
                Outcome::Unknown(format!("control: no TXT at {name}, and {url} could not be fetched: {why}; {publish}"))
            }
            _ => Outcome::Failed(format!("control: neither {name} nor {url} names this DID; {publish}")),
        };
    }
    Outcome::Failed(format!("control: nothing at {name} names a DID; {publish}"))
}

fn mx(facts: &Facts) -> Outcome {
    let domain = &facts.domain;
    match &facts.mx {
        Answer::Unknown(why) => Outcome::Unknown(format!("mx: {domain} could not be looked up: {why}")),
        // RFC 7505: the host "." says that the domain accepts no mail, so bounces and replies could not arrive.
        Answer::Found(hosts) if hosts.iter().any(|(_, host)| host != "." && !host.is_empty()) => Outcome::Passed,
        Answer::Found(_) => {
            Outcome::Failed(format!("mx: {domain} has a null MX; publish an MX that accepts replies and bounces"))
        }
        Answer::Absent => Outcome::Failed(format!("mx: {domain} has no MX; publish one that accepts replies and bounces")),
    }
}

fn spf(facts: &Facts) -> Outcome {
    let domain = &facts.domain;
    let texts = match &facts.spf {
        Answer::Unknown(why) => return Outcome::Unknown(format!("spf: {domain} could not be looked up: {why}")),
        Answer::Absent => &Vec::new(),
        Answer::Found(texts) => texts,
    };
    // RFC 7208 §4.5: the version is the whole first term, and two records are a permanent error.
    let is_spf = |text: &&String| text.split(' ').next().is_some_and(|version| version.eq_ignore_ascii_case("v=spf1"));
    let records: Vec<&String> = texts.iter().filter(is_spf).collect();
    match records.as_slice() {
        [] => Outcome::Failed(format!("spf: {domain} has no SPF record; publish TXT `v=spf1 … -all`")),
        [record] if record.split(' ').any(|term| term.eq_ignore_ascii_case("all") || term.eq_ignore_ascii_case("+all")) => {
            Outcome::Failed(format!("spf: {domain} lets everybody send (`+all`); end the record with `-all` or `~all`"))
        }
        [_] => Outcome::Passed,
        more => {
            Outcome::Failed(format!("spf: {domain} has {} SPF records, which is an error (RFC 7208 §4.5); leave one", more.len()))
        }
    }
}

fn dkim(facts: &Facts, selector: &str, answer: &Answer<String>) -> Outcome {
    let name = format!("{selector}._domainkey.{}", facts.domain);
    match answer {
        Answer::Unknown(why) => Outcome::Unknown(format!("dkim: {name} could not be looked up: {why}")),
        Answer::Absent => {
            Outcome::Failed(format!("dkim: {name} does not exist; publish the key, or take the selector out of the attestation"))
        }
        Answer::Found(texts) if texts.iter().any(|text| is_dkim_key(text)) => Outcome::Passed,
        Answer::Found(_) => Outcome::Failed(format!("dkim: {name} has no usable key; publish TXT `v=DKIM1; k=…; p=<key>`")),
    }
}

/// RFC 6376 §3.6.1: `v`, if there is one, is DKIM1; an empty `p` is a revoked key.
fn is_dkim_key(text: &str) -> bool {
    let version_fits = tag(text, "v").is_none_or(|version| version == "DKIM1");
    let is_base64 =
        |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/' | b'=') || octet.is_ascii_whitespace();
    version_fits && tag(text, "p").is_some_and(|key| !key.is_empty() && key.bytes().all(is_base64))
}

fn dmarc(facts: &Facts) -> Outcome {
    let name = format!("_dmarc.{}", facts.domain);
    let texts = match &facts.dmarc {
        Answer::Unknown(why) => return Outcome::Unknown(format!("dmarc: {name} could not be looked up: {why}")),
        Answer::Absent => &Vec::new(),
        Answer::Found(texts) => texts,
    };
    // RFC 7489 §6.6.3: records that do not begin with the version are not DMARC; two are none.
    let is_dmarc = |text: &&String| text.split(';').next().is_some_and(|first| first.replace([' ', '\t'], "") == "v=DMARC1");
    let records: Vec<&String> = texts.iter().filter(is_dmarc).collect();
    match records.as_slice() {
        [] => Outcome::Failed(format!("dmarc: {name} has no DMARC record; publish TXT `v=DMARC1; p=reject`")),
        [record] => match tag(record, "p").map(str::to_ascii_lowercase).as_deref() {
            Some("quarantine" | "reject") => Outcome::Passed,
            other => Outcome::Failed(format!(
                "dmarc: {name} has p={}; publish p=quarantine or p=reject",
                short(other.unwrap_or("(nothing)"))
            )),
        },
        more => Outcome::Failed(format!(
            "dmarc: {name} has {} DMARC records, which count as none (RFC 7489 §6.6.3); leave one",
            more.len()
        )),
    }
}

/// The value of a tag of a tag list (RFC 6376 §3.2). The first counts.
fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split(';').filter_map(|part| part.split_once('=')).find(|(tag, _)| tag.trim() == name).map(|(_, value)| value.trim())
}

/// A stranger's text, short enough for a log line.
fn short(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DID: &str = "did:plc:7tcx4xxjwidnicieiwtrpyal";

    fn found<T>(record: T) -> Answer<T> {
        Answer::Found(vec![record])
    }

    fn text(record: &str) -> Answer<String> {
        found(record.into())
    }

    fn unknown<T>() -> Answer<T> {
        Answer::Unknown("SERVFAIL".into())
    }

    fn right() -> Facts {
        Facts {
            did: DID.into(),
            domain: "member.example".into(),
            handle: Some("alice.test".into()),
            control: text(&format!("did={DID}")),
            well_known: Answer::Absent,
            mx: found((10, "mx.member.example".into())),
            spf: Answer::Found(vec!["google-site-verification=x".into(), "v=spf1 ip4:192.0.2.1 -all".into()]),
            dkim: vec![("s1".into(), text("v=DKIM1; k=rsa; p=MIIB"))],
            dmarc: text("v=DMARC1; p=reject; adkim=r"),
        }
    }

    fn verdict(change: impl FnOnce(&mut Facts)) -> (Verdict, String) {
        let mut facts = right();
        change(&mut facts);
        let (verdict, reasons) = judge(&facts);
        (verdict, reasons.join("\n"))
    }

    #[test]
    fn what_is_right_passes_without_reasons() {
        assert_eq!(judge(&right()), (Verdict::Pass, vec![]));
    }

    #[test]
    fn every_record_that_is_wrong_fails_with_what_to_publish() {
        type Change = fn(&mut Facts);
        let cases: &[(Change, &str)] = &[
            (|f| f.control = Answer::Absent, "publish TXT `did=did:plc:7tcx4xxjwidnicieiwtrpyal` at _atproto.member.example"),
            (|f| f.control = text("did=did:plc:other"), "names did:plc:other"),
            (|f| f.control = text(&format!("DID={DID}")), "control:"),
            (|f| f.control = Answer::Found(vec![format!("did={DID}"), "did=did:plc:other".into()]), "2 different DIDs"),
            (|f| (f.control, f.handle) = (Answer::Absent, Some("member.example".into())), "neither"),
            (
                |f| {
                    (f.control, f.handle) = (Answer::Absent, Some("member.example".into()));
                    f.well_known = text("did:plc:other");
                },
                "neither",
            ),
            (|f| (f.control, f.well_known) = (Answer::Absent, text(DID)), "control:"),
            (|f| f.mx = Answer::Absent, "no MX"),
            (|f| f.mx = found((0, ".".into())), "null MX"),
            (|f| f.spf = Answer::Absent, "no SPF"),
            (|f| f.spf = text("v=spf10 -all"), "no SPF"),
            (|f| f.spf = text("v=spf1 mx +all"), "+all"),
            (|f| f.spf = text("v=spf1 mx ALL"), "+all"),
            (|f| f.spf = Answer::Found(vec!["v=spf1 -all".into(), "v=spf1 mx -all".into()]), "2 SPF records"),
            (|f| f.dkim[0].1 = Answer::Absent, "s1._domainkey.member.example does not exist"),
            (|f| f.dkim[0].1 = text("v=DKIM1; p="), "no usable key"),
            (|f| f.dkim[0].1 = text("v=DKIM2; p=MIIB"), "no usable key"),
            (|f| f.dkim[0].1 = text("v=DKIM1; p=<key>"), "no usable key"),
            (|f| f.dkim.push(("s2".into(), Answer::Absent)), "s2._domainkey"),
            (|f| f.dmarc = Answer::Absent, "no DMARC"),
            (|f| f.dmarc = text("v=DMARC1; p=none"), "p=none"),
            (|f| f.dmarc = text("v=DMARC1"), "(nothing)"),
            (|f| f.dmarc = text("p=reject; v=DMARC1"), "no DMARC"),
            (|f| f.dmarc = Answer::Found(vec!["v=DMARC1; p=reject".into(), "v=DMARC1; p=reject".into()]), "count as none"),
        ];
        for (nth, (change, expected)) in cases.iter().enumerate() {
            let (verdict, reasons) = verdict(change);
            assert_eq!(verdict, Verdict::Fail, "case {nth}: {reasons}");
            assert!(reasons.contains(expected), "case {nth}: {reasons}");
            assert_eq!(reasons.lines().count(), 1, "case {nth}: {reasons}");
        }
    }

    #[test]
    fn other_spellings_that_are_right_pass() {
        type Change = fn(&mut Facts);
        let cases: &[Change] = &[
            |f| f.control = Answer::Found(vec!["unrelated".into(), format!("did={DID}"), format!("did={DID}")]),
            |f| {
                (f.control, f.handle) = (text("unrelated"), Some("Member.Example".into()));
                f.well_known = text(&format!("{DID}\n"));
            },
            |f| f.mx = Answer::Found(vec![(0, ".".into()), (10, "mx.example".into())]),
            |f| f.spf = text("V=SPF1 include:relay.example ~all"),
            |f| f.dkim[0].1 = text("k=ed25519;p=AAAA"),
            |f| f.dkim[0].1 = Answer::Found(vec!["rubbish".into(), "v=DKIM1;p=AAAA".into()]),
            |f| f.dkim = vec![],
            |f| f.dmarc = text("v=DMARC1;p=QUARANTINE"),
            |f| f.dmarc = Answer::Found(vec!["rubbish".into(), "v = DMARC1 ; p = reject".into()]),
        ];
        for (nth, change) in cases.iter().enumerate() {
            assert_eq!(verdict(change), (Verdict::Pass, String::new()), "case {nth}");
        }
    }

    #[test]
    fn what_could_not_be_found_out_neither_passes_nor_fails() {
        type Change = fn(&mut Facts);
        let cases: &[Change] = &[
            |f| f.control = unknown(),
            |f| (f.control, f.handle, f.well_known) = (Answer::Absent, Some("member.example".into()), unknown()),
            |f| f.mx = unknown(),
            |f| f.spf = unknown(),
            |f| f.dkim[0].1 = unknown(),
            |f| f.dmarc = unknown(),
        ];
        for (nth, change) in cases.iter().enumerate() {
            let (verdict, reasons) = verdict(change);
            assert_eq!(verdict, Verdict::Unknown, "case {nth}");
            assert!(reasons.contains("SERVFAIL"), "case {nth}: {reasons}");
        }
        let (verdict, reasons) = verdict(|f| (f.mx, f.dmarc) = (unknown(), Answer::Absent));
        assert_eq!((verdict, reasons.lines().count()), (Verdict::Fail, 2), "a failure is a failure whatever else is unknown");
    }
}
