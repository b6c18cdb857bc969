//! The tally: what the sessions of a day came to for each recipient domain (RFC 8460 §4).
//!
//! Pure. The rows that it is kept in are the report's own JSON, so that what a newer daemon adds is read by an older one.
//! Everything is bounded: a domain whose hosts fail in more ways than a report lists is still counted in full.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mail_auth::report::tlsrpt::{FailureDetails, Policy, PolicyDetails, PolicyType, ResultType, Summary};
use scheduler::{PolicyKind, TlsFailure, TlsPolicy};
use serde::{Deserialize, Serialize};

use super::notes::Note;

/// Domains that are counted at the same time; past it sessions of others are not.
const DOMAINS_MAX: usize = 100_000;
/// Policies of one domain in a day: they change rarely.
const POLICIES_MAX: usize = 16;
/// Kinds of failure that a report tells apart for one policy; those beyond only count.
const DETAILS_MAX: usize = 100;
/// Characters of a text.
const TEXT_MAX: usize = 300;

/// A day of UTC, counted from 1970.
pub type Day = u32;

/// The day of `time`.
pub fn day(time: SystemTime) -> Day {
    let days = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
    Day::try_from(days).unwrap_or(Day::MAX)
}

/// When `day` begins; the one before ends there.
pub fn midnight(day: Day) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::from(day) * 86_400)
}

/// What one day came to for one domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// As they stand in the report.
    pub policies: Vec<Policy>,
    /// Places that have the report already, when others could not be reached.
    #[serde(default)]
    pub told: BTreeSet<String>,
}

/// All days that were not reported yet.
#[derive(Debug, Default)]
pub struct Tally {
    counts: BTreeMap<(Day, Arc<str>), Count>,
    /// What is not written down yet.
    changed: BTreeSet<(Day, Arc<str>)>,
}

impl Tally {
    /// Counts what was noted on `day`.
    pub fn add(&mut self, day: Day, note: &Note) {
        let key = (day, note.domain.clone());
        if note.results.is_empty() || self.counts.len() >= DOMAINS_MAX && !self.counts.contains_key(&key) {
            return;
        }
        let count = self.counts.entry(key.clone()).or_default();
        let Some(policy) = policy_of(&mut count.policies, &note.domain, &note.policy) else { return };
        for result in &note.results {
            match &result.failure {
                None => policy.summary.total_success = policy.summary.total_success.saturating_add(1),
                Some((failure, why)) => {
                    policy.summary.total_failure = policy.summary.total_failure.saturating_add(1);
                    let host = Some(result.host.to_string()).filter(|host| !host.is_empty());
                    detail(&mut policy.failure_details, *failure, note.source, host, result.address, why);
                }
            }
        }
        self.changed.insert(key);
    }

    /// Domains of days before `today` that wait for their report.
    pub fn over(&self, today: Day) -> Vec<(Day, Arc<str>)> {
        self.counts.range(..(today, Arc::from(""))).map(|(key, _)| key.clone()).collect()
    }

    /// What one of them came to.
    pub fn get(&self, key: &(Day, Arc<str>)) -> Option<&Count> {
        self.counts.get(key)
    }

    /// A place has its report.
    pub fn handle_told(&mut self, key: &(Day, Arc<str>), place: String) {
        if let Some(count) = self.counts.get_mut(key) {
            count.told.insert(place);
            self.changed.insert(key.clone());
        }
    }

    /// It has been reported, or nobody wants to know.
    pub fn remove(&mut self, key: &(Day, Arc<str>)) {
        self.counts.remove(key);
        self.changed.insert(key.clone());
    }

    /// The rows that have changed, to be written down; none of what is gone.
    pub fn changes(&self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let row = |count: &Count| serde_json::to_vec(count).ok();
        self.changed.iter().map(|key| (encode_key(key), self.counts.get(key).and_then(row))).collect()
    }

    /// They are written down.
    pub fn handle_written(&mut self) {
        self.changed.clear();
    }

    /// Reads a row back. One that is damaged is passed over: its counts are lost.
    pub fn restore(&mut self, key: &[u8], row: &[u8]) {
        if let (Some(key), Ok(count)) = (decode_key(key), serde_json::from_slice(row)) {
            self.counts.insert(key, count);
        }
    }
}

fn encode_key((day, domain): &(Day, Arc<str>)) -> Vec<u8> {
    [&day.to_be_bytes(), domain.as_bytes()].concat()
}

fn decode_key(key: &[u8]) -> Option<(Day, Arc<str>)> {
    let (day, domain) = key.split_first_chunk::<4>()?;
    Some((Day::from_be_bytes(*day), std::str::from_utf8(domain).ok()?.into()))
}

/// The entry of a policy, made when it is new.
fn policy_of<'a>(policies: &'a mut Vec<Policy>, domain: &str, applied: &TlsPolicy) -> Option<&'a mut Policy> {
    let policy_type = match applied.kind {
        PolicyKind::None => PolicyType::NoPolicyFound,
        PolicyKind::Dane => PolicyType::Tlsa,
        PolicyKind::Sts => PolicyType::Sts,
    };
    let same = |policy: &Policy| {
        policy.policy.policy_type == policy_type && policy.policy.policy_string.iter().eq(applied.strings.iter().map(|it| &**it))
    };
    let nth = match policies.iter().position(same) {
        Some(nth) => nth,
        None if policies.len() >= POLICIES_MAX => return None,
        None => {
            let texts = |texts: &[Arc<str>]| texts.iter().map(|text| text.to_string()).collect();
            policies.push(Policy {
                policy: PolicyDetails {
                    policy_type,
                    policy_string: texts(&applied.strings),
                    policy_domain: domain.to_owned(),
                    mx_host: texts(&applied.hosts),
                },
                summary: Summary { total_success: 0, total_failure: 0 },
                failure_details: Vec::new(),
            });
            policies.len() - 1
        }
    };
    policies.get_mut(nth)
}

fn detail(
    details: &mut Vec<FailureDetails>,
    failure: TlsFailure,
    source: Option<IpAddr>,
    host: Option<String>,
    address: Option<IpAddr>,
    why: &str,
) {
    let result_type = result_type(failure);
    let same = |it: &FailureDetails| {
        (it.result_type, it.sending_mta_ip, it.receiving_ip) == (result_type, source, address) && it.receiving_mx_hostname == host
    };
    if let Some(known) = details.iter_mut().find(|it| same(it)) {
        known.failed_session_count = known.failed_session_count.saturating_add(1);
    } else if details.len() < DETAILS_MAX {
        details.push(FailureDetails {
            result_type,
            sending_mta_ip: source,
            receiving_mx_hostname: host,
            receiving_mx_helo: None,
            receiving_ip: address,
            failed_session_count: 1,
            additional_information: None,
            failure_reason_code: Some(why.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect()),
        });
    }
}

fn result_type(failure: TlsFailure) -> ResultType {
    match failure {
        TlsFailure::StarttlsNotSupported => ResultType::StartTlsNotSupported,
        TlsFailure::CertificateHostMismatch => ResultType::CertificateHostMismatch,
        TlsFailure::CertificateExpired => ResultType::CertificateExpired,
        TlsFailure::CertificateNotTrusted => ResultType::CertificateNotTrusted,
        TlsFailure::ValidationFailure => ResultType::ValidationFailure,
        TlsFailure::TlsaInvalid => ResultType::TlsaInvalid,
        TlsFailure::DnssecInvalid => ResultType::DnssecInvalid,
        TlsFailure::DaneRequired => ResultType::DaneRequired,
        TlsFailure::StsPolicyFetchError => ResultType::StsPolicyFetchError,
        TlsFailure::StsPolicyInvalid => ResultType::StsPolicyInvalid,
        TlsFailure::StsWebpkiInvalid => ResultType::StsWebpkiInvalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::tls_policy::TlsResult;

    fn note(domain: &str, failures: &[Option<TlsFailure>]) -> Note {
        let result = |failure: &Option<TlsFailure>| TlsResult {
            host: "mx.example".into(),
            address: Some("192.0.2.1".parse().unwrap()),
            failure: failure.map(|failure| (failure, "be\r\ncause".to_owned())),
        };
        Note {
            domain: domain.into(),
            policy: TlsPolicy::default(),
            source: Some("192.0.2.9".parse().unwrap()),
            results: failures.iter().map(result).collect(),
        }
    }

    #[test]
    fn sessions_are_counted_by_day_domain_policy_and_kind_of_failure() {
        let mut tally = Tally::default();
        let (stripped, expired) = (Some(TlsFailure::StarttlsNotSupported), Some(TlsFailure::CertificateExpired));
        tally.add(7, &note("a.example", &[None, stripped]));
        tally.add(7, &note("a.example", &[stripped, expired, None]));
        let mut sts = note("a.example", &[None]);
        sts.policy = TlsPolicy { kind: PolicyKind::Sts, strings: ["version: STSv1".into()].into(), ..Default::default() };
        tally.add(7, &sts);
        tally.add(8, &note("a.example", &[None]));
        tally.add(7, &note("b.example", &[None]));
        tally.add(7, &note("c.example", &[]));
        assert_eq!(tally.over(8), [(7, "a.example".into()), (7, "b.example".into())]);
        let count = tally.get(&(7, "a.example".into())).unwrap();
        let summaries: Vec<_> = count.policies.iter().map(|it| (it.summary.total_success, it.summary.total_failure)).collect();
        assert_eq!(summaries, [(2, 3), (1, 0)]);
        let details: Vec<_> =
            count.policies[0].failure_details.iter().map(|it| (it.result_type, it.failed_session_count)).collect();
        assert_eq!(details, [(ResultType::StartTlsNotSupported, 2), (ResultType::CertificateExpired, 1)]);
        assert_eq!(count.policies[0].failure_details[0].failure_reason_code.as_deref(), Some("because"));
        assert_eq!(count.policies[1].policy.policy_type, PolicyType::Sts);
    }

    #[test]
    fn what_is_written_down_comes_back_and_what_is_removed_does_not() {
        let mut tally = Tally::default();
        tally.add(7, &note("a.example", &[None]));
        tally.add(7, &note("b.example", &[Some(TlsFailure::TlsaInvalid)]));
        tally.handle_told(&(7, "b.example".into()), "mailto:x@b.example".to_owned());
        let rows = tally.changes();
        tally.handle_written();
        assert_eq!(tally.changes(), []);
        tally.remove(&(7, "a.example".into()));
        assert_eq!(tally.changes(), [(encode_key(&(7, "a.example".into())), None)]);
        let mut again = Tally::default();
        for (key, row) in &rows {
            again.restore(key, row.as_ref().unwrap());
        }
        again.restore(b"\0\0\0\x07c.example", b"{\"policies\": 3}");
        again.restore(b"\0", b"{}");
        assert_eq!(again.over(8).len(), 2);
        let key = (7, "b.example".into());
        assert_eq!(again.get(&key), tally.get(&key));
    }

    #[test]
    fn failures_beyond_what_a_report_lists_still_count() {
        let mut tally = Tally::default();
        for n in 0..2 * DETAILS_MAX {
            let mut note = note("a.example", &[Some(TlsFailure::ValidationFailure)]);
            note.results[0].host = format!("mx{n}.example").into();
            tally.add(7, &note);
        }
        let policy = &tally.get(&(7, "a.example".into())).unwrap().policies[0];
        assert_eq!((policy.summary.total_failure as usize, policy.failure_details.len()), (2 * DETAILS_MAX, DETAILS_MAX));
    }

    #[test]
    fn a_day_is_one_of_utc() {
        assert_eq!(day(midnight(20_000)), 20_000);
        assert_eq!(day(midnight(20_001) - Duration::from_millis(1)), 20_000);
    }
}
