//! `overview`: how everything goes, and what needs a person, on one page. Cheap enough to ask for every few seconds: counts are kept
//! by hour (`events/tally.rs`), ages are found by id, and nothing walks the queue.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use host::dns::Health;
use scheduler::Lane;

use super::api::{
    ActionFilter, AgeRow, Attention, CountsOf, CountsRow, DnsHealth, HourRow, LabelerStatus, MEMBERS_MAX, Overview, Refusal,
    ResolverHealth,
};
use super::daemon::Daemon;
use super::metrics;
use super::views::{blocking, time, unable};
use crate::config;
use crate::egress::watch::Listing;
use crate::events::tally::{Counts, Hour};
use crate::queue::{OWN, QueueError};

/// A one-time code that waits for longer needs a person: its reader has asked for another one by now.
const CODE_WAITS: Duration = Duration::from_secs(120);

/// Fewer questions that fail are a domain's trouble, and not ours.
const FAILURES_TOLD: u64 = 10;

/// Actions that are told one by one.
const ACTIONS_TOLD: usize = 20;

impl Daemon {
    /// All of it.
    pub(super) async fn look_over(&self) -> Result<Overview, Refusal> {
        let now = self.now();
        let hours = self.tally.load().hours(now);
        let counts = blocking(self, |daemon| daemon.parts.reader.counts()).await?.map_err(unable)?;
        let oldest = self.oldest(now).await?;
        let age = |at: SystemTime| now.duration_since(at).unwrap_or_default();
        let ages: Vec<AgeRow> = (oldest.iter())
            .map(|(lane, (at, sure))| AgeRow {
                class: lane.to_string(),
                oldest_at: at.map(time),
                age_secs: at.map(|at| age(at).as_secs()),
                sure: *sure,
            })
            .collect();
        let today = midnight(now);
        let (all, members, providers) = sums(hours.iter().filter(|hour| hour.began() >= today));
        let directory = self.directory.load();
        let name = |id: u32| match directory.member(id) {
            _ if id == OWN => "own".to_owned(),
            Some(member) => member.did.clone(),
            None => format!("(former member {id})"),
        };
        let mut overview = Overview {
            asked_at: time(now),
            today: all.into(),
            hours: hours.iter().map(|hour| HourRow { at: time(hour.began()), counts: hour.all.into() }).collect(),
            providers: busiest(providers, |name| name.to_string()),
            members: busiest(members, name),
            messages: counts.messages,
            deliveries: counts.deliveries,
            held: counts.held,
            ages,
            labeler: self.labeler_status(),
            resolver: self.resolver_health(),
            dns: self.dns_health(),
            attention: Vec::new(),
        };
        overview.attention = self.attention(&overview, counts.aside).await;
        Ok(overview)
    }

    /// When the oldest message of each class came, and whether that is certain.
    pub(super) async fn oldest(&self, now: SystemTime) -> Result<Vec<(Lane, (Option<SystemTime>, bool))>, Refusal> {
        let lifetimes = self.config.load().class.each().map(|(_, lifetime, _)| lifetime);
        let found = blocking(self, move |daemon| {
            let oldest = Lane::ALL.into_iter().zip(lifetimes);
            let look = |(lane, lifetime)| Ok((lane, daemon.parts.reader.oldest(lane, now.checked_sub(lifetime))?));
            oldest.map(look).collect::<Result<Vec<_>, QueueError>>()
        });
        found.await?.map_err(unable)
    }

    /// Shows how old they are to whoever scrapes the metrics.
    pub(super) async fn gauge_ages(&self) {
        let now = self.now();
        // A database that cannot be read is told by those who need it.
        for (lane, (at, sure)) in self.oldest(now).await.unwrap_or_default() {
            let age = at.map(|at| now.duration_since(at).unwrap_or_default().as_secs_f64());
            let age = age.unwrap_or(if sure { 0.0 } else { f64::NAN });
            ::metrics::gauge!(metrics::OLDEST_SECONDS, "class" => lane.as_str()).set(age);
        }
    }

    /// How the labeler is; none when labels are not consulted.
    pub(super) fn labeler_status(&self) -> Option<LabelerStatus> {
        let config = self.config.load();
        let poll = self.poll.load().load_full();
        config.labeler.as_ref().map(|labeler| LabelerStatus {
            did: labeler.did.clone(),
            polled_at: poll.polled_at.map(time),
            stale: poll.polled_at.is_none_or(|at| self.now().duration_since(at).is_ok_and(|age| age > labeler.stale_after)),
            trouble: poll.trouble.clone(),
        })
    }

    fn resolver_health(&self) -> Option<ResolverHealth> {
        let Health { over, answered, absent, failed, silent, bogus, trouble } = self.resolver.load_full()?.health();
        let dnssec = match self.config.load().dns.dnssec {
            config::Dnssec::Validate => "validate",
            config::Dnssec::TrustAd => "trust-ad",
            config::Dnssec::Off => "off",
        };
        let minutes = over.as_secs() / 60;
        Some(ResolverHealth { dnssec: dnssec.to_owned(), minutes, answered, absent, failed, silent, bogus, trouble })
    }

    fn dns_health(&self) -> DnsHealth {
        let seen = self.seen.load().load_full();
        let zones = || seen.iter().flat_map(|sight| &sight.zones);
        let unanswered = |listing: &Listing| matches!(listing, Listing::Refused(_) | Listing::Unknown(_));
        DnsHealth {
            sources_seen: seen.len() as u64,
            names_good: seen.iter().filter(|sight| sight.name.word() == "good").count() as u64,
            listed: zones().filter(|(_, listing)| matches!(listing, Listing::Listed(..))).count() as u64,
            unanswered: zones().filter(|(_, listing)| unanswered(listing)).count() as u64,
            seen_at: seen.iter().map(|sight| sight.at).max().map(time),
        }
    }

    /// What a person should look at. What cannot be asked now is left out: whoever needs it more says so.
    async fn attention(&self, overview: &Overview, aside: u64) -> Vec<Attention> {
        let mut all = Vec::new();
        let mut tell = |kind: &str, says: String, path: &str| {
            all.push(Attention { kind: kind.to_owned(), says, path: Some(path.to_owned()).filter(|path| !path.is_empty()) });
        };
        if let Some(code) = overview.ages.iter().find(|age| age.class == Lane::Otp.as_str())
            && let Some(age) = code.age_secs.filter(|age| *age >= CODE_WAITS.as_secs())
        {
            tell(
                "otp",
                format!("a one-time code has waited for {age} seconds; look at the queue for what holds it"),
                "/v1/queue",
            );
        }
        if aside > 0 {
            let says = format!("{aside} messages are damaged and were set aside; `tradewind queue list` shows them");
            tell("damaged", says, "/v1/queue");
        }
        if let Some(labeler) = &overview.labeler {
            let why = labeler.trouble.as_deref().map_or(String::new(), |trouble| format!(": {trouble}"));
            let polled = labeler.polled_at.as_deref().unwrap_or("never");
            if labeler.stale {
                tell("labeler", format!("the last good poll of the labeler was {polled}, new members wait{why}"), "/v1/status");
            } else if labeler.trouble.is_some() {
                tell("labeler", format!("the labeler does not answer as it should since {polled}{why}"), "/v1/status");
            }
        }
        if let Some(says) = overview.resolver.as_ref().and_then(unanswering) {
            tell("dns", says, "/v1/overview");
        }
        if let Ok(sources) = self.list_sources().await {
            for source in sources {
                let listed = source.zones.iter().filter(|zone| zone.says == "listed");
                listed.for_each(|zone| tell("source", format!("{} is listed by {}", source.name, zone.zone), "/v1/sources"));
                if let Some(trouble) = source.trouble {
                    tell("source", format!("{}: {trouble}", source.name), "/v1/sources");
                }
            }
        }
        if let Ok(warmup) = self.list_climbs().await {
            warmup.attention.into_iter().for_each(|says| tell("warmup", says, "/v1/warmup"));
        }
        let filter = ActionFilter { limit: Some(ACTIONS_TOLD), ..ActionFilter::default() };
        if let Ok(page) = self.list_actions(filter).await {
            for action in &page.actions {
                tell("action", format!("{} until {}", action.says, action.expires_at), &format!("/v1/actions/{}", action.id));
            }
            if page.more {
                tell("action", "and more automatic actions run".to_owned(), "/v1/actions");
            }
        }
        all
    }

    /// The number of the newest event, as soon as it is beyond `seen`, or after a while.
    pub(super) async fn wait_for_news(&self, seen: u64, wait: Duration) -> u64 {
        let news = &self.parts.queue.stats().events;
        // When the time is over nothing has happened, which the number says.
        let _ = tokio::time::timeout(wait, news.beyond(seen)).await;
        news.last()
    }
}

/// Name servers that fail more often than not.
fn unanswering(it: &ResolverHealth) -> Option<String> {
    let (bad, good) = (it.failed + it.silent, it.answered + it.absent);
    let why = it.trouble.as_deref().map_or(String::new(), |trouble| format!(", the last time: {trouble}"));
    let says = format!("name servers failed at {bad} of {} questions in {} minutes{why}; see [dns]", bad + good, it.minutes);
    (bad > good && bad >= FAILURES_TOLD).then_some(says)
}

impl From<Counts> for CountsRow {
    fn from(counts: Counts) -> Self {
        let Counts { accepted, delivered, deferred, failed } = counts;
        CountsRow { accepted, delivered, deferred, failed }
    }
}

type By<K> = HashMap<K, Counts>;

fn sums<'a>(hours: impl Iterator<Item = &'a Hour>) -> (Counts, By<u32>, By<Arc<str>>) {
    fn put<K: Hash + Eq + Clone>(into: &mut By<K>, from: &By<K>) {
        for (key, counts) in from {
            let sum = into.entry(key.clone()).or_default();
            *sum = sum.and(*counts);
        }
    }
    let (mut all, mut members, mut providers) = (Counts::default(), By::new(), By::new());
    for hour in hours {
        all = all.and(hour.all);
        put(&mut members, &hour.members);
        put(&mut providers, &hour.providers);
    }
    (all, members, providers)
}

fn busiest<K>(counts: By<K>, name: impl Fn(K) -> String) -> Vec<CountsOf> {
    let mut rows: Vec<CountsOf> =
        counts.into_iter().map(|(key, counts)| CountsOf { name: name(key), counts: counts.into() }).collect();
    let busy = |row: &CountsOf| row.counts.accepted + row.counts.delivered + row.counts.deferred + row.counts.failed;
    rows.sort_by(|one, other| (busy(other), &one.name).cmp(&(busy(one), &other.name)));
    rows.truncate(MEMBERS_MAX);
    rows
}

/// The last one by UTC.
fn midnight(now: SystemTime) -> SystemTime {
    let secs = now.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
    UNIX_EPOCH + Duration::from_secs(secs - secs % 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_told_of_name_servers_that_fail_more_often_than_not() {
        let health = |answered, silent| ResolverHealth { answered, silent, minutes: 15, ..ResolverHealth::default() };
        assert_eq!((unanswering(&health(0, 9)), unanswering(&health(20, 20))), (None, None));
        let says = unanswering(&ResolverHealth { failed: 30, trouble: Some("SERVFAIL".to_owned()), ..health(10, 5) }).unwrap();
        assert!(says.starts_with("name servers failed at 35 of 45 questions in 15 minutes, the last time: SERVFAIL"), "{says}");
    }
}
