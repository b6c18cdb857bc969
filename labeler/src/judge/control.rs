//! Whether the domain names the DID: `_atproto.<domain>`, or the domain is the DID's handle and says so over HTTPS (atproto
//! handle spec).
//!
//! The handle in a DID document alone proves nothing: anybody can claim any.

use std::collections::BTreeSet;

use super::{Answer, Check, Facts, Kind, is_spoiled, shown};

pub(super) fn check(facts: &Facts) -> Check {
    let (name, did) = (format!("_atproto.{}", facts.domain), &facts.did);
    let texts: &[String] = match &facts.control {
        Answer::Unknown(why) => return Check::unanswered(Kind::Control, &name, why),
        Answer::Absent => &[],
        Answer::Found(texts) => texts,
    };
    let wrong = |why: String| Check::fail(Kind::Control, &name, why).seeing(texts).publish_txt(&name, format!("did={did}"));
    // Records that do not begin with `did=` are somebody else's business, a wildcard's for example.
    let named: BTreeSet<&str> = texts.iter().filter_map(|text| text.strip_prefix("did=")).collect();
    if named.len() > 1 {
        return wrong(format!("{name} names {} different DIDs; leave only this one", named.len()));
    }
    if let Some(other) = named.first() {
        return match *other == did {
            true => Check::pass(Kind::Control, &name).seeing(texts),
            false => wrong(format!("{name} names {}", shown(other))),
        };
    }
    if facts.handle.as_deref().is_some_and(|handle| handle.eq_ignore_ascii_case(&facts.domain)) {
        let url = format!("https://{}/.well-known/atproto-did", facts.domain);
        return match &facts.well_known {
            Answer::Found(bodies) if bodies.iter().any(|body| body.trim() == did) => {
                Check::pass(Kind::Control, &url).seeing(bodies)
            }
            Answer::Unknown(why) => {
                let why = format!("no TXT at {name}, and {url} could not be fetched: {}", shown(why));
                Check::unknown(Kind::Control, &name, why).publish_txt(&name, format!("did={did}"))
            }
            _ => wrong(format!("neither {name} nor {url} names this DID")),
        };
    }
    match texts.iter().find(|text| is_spoiled(text, "did=") || text.get(..4).is_some_and(|it| it.eq_ignore_ascii_case("did="))) {
        Some(spoiled) => wrong(format!("{name} has {:?}, which must begin with `did=` exactly", shown(spoiled))),
        None => wrong(format!("nothing at {name} names a DID")),
    }
}
