//! SPF: one record that says who sends, can be evaluated within its limits, does not say "everybody", and names the co-op's
//! sources (RFC 7208).
//!
//! The evaluation itself is mail-auth's and comes in as facts.

use std::net::IpAddr;

use mail_auth::common::parse::TxtRecordParser;
use mail_auth::spf::{Mechanism, Qualifier, Spf};

use super::{Answer, Check, Evaluated, Facts, Kind, SpfResult, advice, is_spoiled, shown};

/// RFC 7208 §4.6.4.
const VOIDS_MAX: u32 = 2;

pub(super) fn check(facts: &Facts) -> Vec<Check> {
    let record = match record(facts) {
        Ok(record) => record,
        Err(check) => return vec![*check],
    };
    let mut checks = vec![whole(facts, record)];
    if facts.relay && !facts.spf_sources.is_empty() {
        checks.push(sources(facts, record));
    }
    checks
}

/// RFC 7208 §4.5: the version is the whole first term, and two records are a permanent error.
fn record(facts: &Facts) -> Result<&String, Box<Check>> {
    let domain = &facts.domain;
    let texts: &[String] = match &facts.spf {
        Answer::Unknown(why) => return Err(Box::new(Check::unanswered(Kind::Spf, domain, why))),
        Answer::Absent => &[],
        Answer::Found(texts) => texts,
    };
    let records: Vec<&String> = texts.iter().filter(|text| is_spf(text)).collect();
    let wrong = |why: String| {
        let check = Check::fail(Kind::Spf, domain, why).seeing(records.iter().copied());
        Err(Box::new(check.publish_txt(domain, format!("v=spf1 {} -all", named(facts)))))
    };
    match records.as_slice() {
        [record] => Ok(record),
        [] => match texts.iter().find(|text| is_spoiled(text, "v=spf1")) {
            Some(spoiled) => wrong(format!("{domain} has {:?}: an SPF record begins with `v=spf1` exactly", shown(spoiled))),
            None => wrong(format!("{domain} has no SPF record")),
        },
        more => wrong(format!("{domain} has {} SPF records, which is an error (RFC 7208 §4.5); leave one", more.len())),
    }
}

fn whole(facts: &Facts, record: &String) -> Check {
    let domain = &facts.domain;
    let passed = || Check::pass(Kind::Spf, domain).seeing([record]);
    let plain = || format!("v=spf1 {} -all", named(facts));
    let wrong = |why: String, instead: String| {
        Check::fail(Kind::Spf, domain, why).seeing([record]).publish_txt(domain, advice(&instead, plain()))
    };
    let everybody = |term: &str| term.eq_ignore_ascii_case("all") || term.eq_ignore_ascii_case("+all");
    if record.split(' ').any(everybody) {
        let terms: Vec<&str> = record.split(' ').map(|term| if everybody(term) { "-all" } else { term }).collect();
        return wrong(format!("{domain} lets everybody send (`+all`)"), terms.join(" "));
    }
    let Ok(parsed) = Spf::parse(record.as_bytes()) else {
        return wrong(format!("the SPF record of {domain} cannot be read"), plain());
    };
    let Some(probe) = &facts.spf_probe else { return passed() };
    if let Some(name) = &probe.unaskable {
        let why = format!(
            "the SPF record of {domain} asks for {}, which is no name that DNS can hold (253 characters, 63 in a label): \
             receivers do not agree on what follows; leave that term out, or some of its macros",
            shown(name)
        );
        return wrong(why, plain());
    }
    match probe.result {
        SpfResult::TempError => {
            let why = format!("a record that the SPF record of {domain} refers to could not be looked up");
            return Check::unknown(Kind::Spf, domain, why).seeing([record]);
        }
        SpfResult::PermError => {
            let why = "cannot be evaluated: more than 10 lookups, or it includes a domain without SPF (RFC 7208 §4.6.4, §5.2)";
            return wrong(format!("the SPF record of {domain} {why}"), plain());
        }
        SpfResult::Pass => {
            let why = format!("{domain} lets everybody send: something that it includes or names covers every address");
            return wrong(why, plain());
        }
        SpfResult::Fail | SpfResult::SoftFail | SpfResult::Neutral | SpfResult::None => {}
    }
    if probe.voids > VOIDS_MAX {
        let why = format!("{} of its lookups find nothing; receivers may give up after two (RFC 7208 §4.6.4)", probe.voids);
        return passed().warn(why);
    }
    if parsed.directives.iter().any(|directive| matches!(directive.mechanism, Mechanism::Ptr { .. })) {
        return passed().warn("`ptr` should not be used: many receivers do not evaluate it (RFC 7208 §5.5)");
    }
    if probe.result == SpfResult::Neutral || probe.result == SpfResult::None {
        return passed().warn("it does not say what of others: end it with `-all` or `~all`");
    }
    passed()
}

fn sources(facts: &Facts, record: &String) -> Check {
    let domain = &facts.domain;
    let with = |result| facts.spf_sources.iter().filter(move |source: &&Evaluated| source.result == result);
    let refused: Vec<&Evaluated> = facts
        .spf_sources
        .iter()
        .filter(|source| !matches!(source.result, SpfResult::Pass | SpfResult::TempError | SpfResult::PermError))
        .collect();
    if !refused.is_empty() {
        let addresses: Vec<String> = refused.iter().map(|source| source.address.to_string()).collect();
        let terms: Vec<String> = refused.iter().map(|source| term(source.address)).collect();
        let rest = record.get("v=spf1".len()..).unwrap_or_default().trim_start();
        let why = format!("the SPF record of {domain} does not let the co-op send for it from {}", addresses.join(", "));
        return Check::fail(Kind::SpfSources, domain, why)
            .seeing([record])
            .publish_txt(domain, advice(&format!("v=spf1 {} {rest}", terms.join(" ")), format!("v=spf1 {} -all", named(facts))));
    }
    if let Some(source) = with(SpfResult::TempError).chain(with(SpfResult::PermError)).next() {
        let why = format!("whether SPF of {domain} passes for {} could not be found out", source.address);
        // A permanent error is said, and fails, with the record as a whole; so is one that only looks temporary.
        let unknown = source.result == SpfResult::TempError && source.unaskable.is_none();
        let check = if unknown { Check::unknown } else { Check::fail };
        return check(Kind::SpfSources, domain.clone(), why).seeing([record]);
    }
    Check::pass(Kind::SpfSources, domain).seeing([record])
}

fn is_spf(text: &str) -> bool {
    text.split(' ').next().is_some_and(|version| version.eq_ignore_ascii_case("v=spf1"))
}

/// Terms for whoever has no record yet.
fn named(facts: &Facts) -> String {
    if facts.relay && !facts.spf_sources.is_empty() {
        facts.spf_sources.iter().map(|source| term(source.address)).collect::<Vec<_>>().join(" ")
    } else {
        "mx".into()
    }
}

fn term(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("ip4:{v4}"),
        IpAddr::V6(v6) => format!("ip6:{v6}"),
    }
}

/// Up to `max` addresses that a record names one by one.
pub(super) fn senders(texts: &[String], max: usize) -> Vec<IpAddr> {
    let Some(Ok(record)) = texts.iter().find(|text| is_spf(text)).map(|text| Spf::parse(text.as_bytes())) else {
        return Vec::new();
    };
    let named = record.directives.iter().filter(|directive| directive.qualifier == Qualifier::Pass);
    let single = |mechanism: &Mechanism| match mechanism {
        Mechanism::Ip4 { addr, mask: u32::MAX } => Some(IpAddr::V4(*addr)),
        Mechanism::Ip6 { addr, mask: u128::MAX } => Some(IpAddr::V6(*addr)),
        _ => None,
    };
    named.filter_map(|directive| single(&directive.mechanism)).take(max).collect()
}
