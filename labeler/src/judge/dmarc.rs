//! DMARC: a policy that asks receivers to act, at the domain itself or, for a subdomain, at its organizational domain (RFC 7489
//! §6.6.3).
//!
//! The latter is found by the Public Suffix List (§3.2; `vouch::organization` says why): no names in between are asked, and nothing is
//! inherited from a public suffix. The co-op signs with the member's own domain, so both alignment modes hold; strict ones are
//! noted because mail signed for another domain of the organization would fail.

use super::{Answer, Check, Facts, Kind, advice, is_spoiled, shown, tag, twice, with_tag};

const WANTED: &str = "v=DMARC1; p=reject";

pub(super) fn check(facts: &Facts) -> Check {
    let own = format!("_dmarc.{}", facts.domain);
    for (nth, (name, answer)) in facts.dmarc.iter().enumerate() {
        let texts: &[String] = match answer {
            Answer::Unknown(why) => return Check::unanswered(Kind::Dmarc, name, why),
            Answer::Absent => &[],
            Answer::Found(texts) => texts,
        };
        let records: Vec<&String> = texts.iter().filter(|text| is_dmarc(text)).collect();
        match records.as_slice() {
            [] => {
                if let Some(spoiled) = texts.iter().find(|text| nth == 0 && is_spoiled(text, "v=DMARC1")) {
                    let why = format!("{name} has {:?}: a DMARC record begins with `v=DMARC1` exactly", shown(spoiled));
                    return Check::fail(Kind::Dmarc, name, why).seeing(texts).publish_txt(name, WANTED);
                }
            }
            [record] => return policy(name, record, nth > 0, &own),
            more => {
                let why = format!("{name} has {} DMARC records, which count as none (RFC 7489 §6.6.3); leave one", more.len());
                return Check::fail(Kind::Dmarc, name, why).seeing(records.iter().copied()).publish_txt(name, WANTED);
            }
        }
    }
    let parents = facts.dmarc.iter().skip(1).map(|(name, _)| format!(", nor has {name}"));
    let why = format!("{own} has no DMARC record{}", parents.collect::<String>());
    Check::fail(Kind::Dmarc, &own, why).publish_txt(&own, WANTED)
}

/// RFC 7489 §6.6.3: records that do not begin with the version are not DMARC.
pub(super) fn is_dmarc(text: &str) -> bool {
    text.split(';').next().is_some_and(|first| first.replace([' ', '\t'], "") == "v=DMARC1")
}

fn policy(name: &str, record: &String, inherited: bool, own: &str) -> Check {
    let of = |tag_name| tag(record, tag_name).map(str::to_ascii_lowercase);
    let acts = |policy: &Option<String>| matches!(policy.as_deref(), Some("quarantine" | "reject"));
    let (p, sp) = (of("p"), of("sp"));
    let (in_force, which) = match (inherited, &sp) {
        (true, Some(_)) => (&sp, "sp"),
        _ => (&p, "p"),
    };
    let wrong = |why: String, instead: String| Check::fail(Kind::Dmarc, name, why).seeing([record]).publish_txt(own, instead);
    let with = |name, value| advice(&with_tag(record, name, value), WANTED);
    let instead = || if inherited { WANTED.to_owned() } else { with("p", Some("reject")) };
    if let Some(tag) = twice(record) {
        let why = format!("{name} has `{}=` twice, which makes it invalid (RFC 6376 §3.2)", shown(tag));
        return wrong(why, WANTED.into());
    }
    if !acts(in_force) {
        let seen = shown(in_force.as_deref().unwrap_or("(nothing)"));
        return wrong(format!("{name} has {which}={seen}; it must be quarantine or reject"), instead());
    }
    // With `t=y` or `pct=0` the policy counts one step less: what was rejected is put aside, and what was put aside is delivered.
    if in_force.as_deref() == Some("quarantine") && (of("t").as_deref() == Some("y") || of("pct").as_deref() == Some("0")) {
        return wrong(format!("{name} does not ask for anything yet (`t=y` or `pct=0`)"), instead());
    }
    let passed = Check::pass(Kind::Dmarc, name).seeing([record]);
    if !inherited && sp.is_some() && !acts(&sp) {
        return passed
            .warn("subdomains are left open (`sp=none`): anybody can write in the name of one")
            .publish_txt(name, with("sp", Some("reject")));
    }
    if of("t").as_deref() == Some("y") || of("pct").is_some_and(|pct| pct != "100") {
        return passed.warn("it does not apply to all mail (`pct` or `t`)").publish_txt(name, {
            let without = with_tag(record, "pct", None);
            advice(&with_tag(&without, "t", None), WANTED)
        });
    }
    if of("adkim").as_deref() == Some("s") {
        return passed.note("strict alignment (`adkim=s`): mail signed for another domain of yours fails");
    }
    if inherited { passed.note("the policy is a parent's") } else { passed }
}
