//! MX and whether it answers, and what is only noted: names of sending addresses (FCrDNS), MTA-STS, TLS-RPT, BIMI.
//!
//! None of the latter is asked for. A member who sends without the relay is warned when an address has no name that leads back
//! to it, because large receivers refuse such mail.

use std::net::IpAddr;

use super::{Answer, Check, Facts, Kind, SEEN_MAX, Sender, Status, shown};

pub(super) fn mx(facts: &Facts) -> Check {
    let domain = &facts.domain;
    let wrong = |why: String| Check::fail(Kind::Mx, domain, why).publish("MX", domain, format!("10 <host>.{domain}"));
    let hosts = match &facts.mx {
        Answer::Unknown(why) => return Check::unanswered(Kind::Mx, domain, why),
        Answer::Absent => return wrong(format!("{domain} has no MX, so that replies and bounces would not arrive")),
        Answer::Found(hosts) => hosts,
    };
    let seen: Vec<String> = hosts.iter().map(|(preference, host)| format!("{preference} {host}")).collect();
    // RFC 7505: the host "." says that the domain accepts no mail, so bounces and replies could not arrive.
    if !hosts.iter().any(|(_, host)| host != "." && !host.is_empty()) {
        return wrong(format!("{domain} has a null MX, so that replies and bounces would not arrive")).seeing(&seen);
    }
    let passed = Check::pass(Kind::Mx, domain).seeing(&seen);
    let reachable = |answer: &Answer<IpAddr>| !matches!(answer, Answer::Absent);
    if !facts.mx_addresses.is_empty() && !facts.mx_addresses.iter().any(|(_, answer)| reachable(answer)) {
        let hosts: Vec<&str> = facts.mx_addresses.iter().map(|(host, _)| host.as_str()).collect();
        return passed.warn(format!("{} has no address", shown(&hosts.join(", "))));
    }
    match facts.mx_greetings.last() {
        None => passed,
        Some((host, Ok(line))) => {
            Check::pass(Kind::Mx, domain).seeing(seen.iter().take(SEEN_MAX - 1).chain([&format!("{host}: {line}")]))
        }
        Some((_, Err(_))) => {
            let whys =
                facts.mx_greetings.iter().filter_map(|(host, greeted)| Some(format!("{host}: {}", greeted.as_ref().err()?)));
            passed.warn(format!("no mail server answers: {}", shown(&whys.collect::<Vec<_>>().join("; "))))
        }
    }
}

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let mut checks: Vec<Check> = facts.senders.iter().map(ptr).collect();
    let domain = &facts.domain;
    let texts = [
        (Kind::MtaSts, format!("_mta-sts.{domain}"), &facts.mta_sts, "v=STSv1"),
        (Kind::TlsRpt, format!("_smtp._tls.{domain}"), &facts.tls_rpt, "v=TLSRPTv1"),
        (Kind::Bimi, format!("default._bimi.{domain}"), &facts.bimi, "v=BIMI1"),
    ];
    checks.extend(texts.into_iter().map(|(kind, name, answer, version)| noted(kind, &name, answer, version)));
    checks
}

fn noted(kind: Kind, name: &str, answer: &Answer<String>, version: &str) -> Check {
    let begins = |text: &&String| text.split(';').next().is_some_and(|first| first.trim() == version);
    match answer {
        Answer::Found(texts) => match texts.iter().find(begins) {
            Some(record) => Check::pass(kind, name).seeing([record]),
            None => Check::new(kind, name, Status::Note).seeing(texts).note("there is none (it is not required)"),
        },
        Answer::Absent => Check::new(kind, name, Status::Note).note("there is none (it is not required)"),
        Answer::Unknown(why) => Check::new(kind, name, Status::Note).note(format!("could not be looked up: {}", shown(why))),
    }
}

fn ptr(sender: &Sender) -> Check {
    let name = sender.address.to_string();
    let publish = |check: Check| check.publish("PTR", &sender.address.to_string(), "<name that leads back to this address>");
    let names: &[String] = match &sender.names {
        Answer::Found(names) => names,
        Answer::Absent => &[],
        Answer::Unknown(why) => {
            return Check::new(Kind::Ptr, name, Status::Note).note(format!("could not be looked up: {}", shown(why)));
        }
    };
    let Some(first) = names.first() else {
        return publish(
            Check::new(Kind::Ptr, &name, Status::Warn).warn("the address has no name: large receivers refuse its mail"),
        );
    };
    match &sender.back {
        Answer::Found(addresses) if addresses.contains(&sender.address) => Check::pass(Kind::Ptr, name).seeing(names),
        Answer::Unknown(why) => Check::new(Kind::Ptr, name, Status::Note).seeing(names).note(shown(why)),
        _ => {
            let why = format!("{} does not lead back to the address: large receivers refuse its mail", shown(first));
            publish(Check::new(Kind::Ptr, name, Status::Warn).seeing(names).warn(why))
        }
    }
}
