//! The watch over our own sources: what the world finds when it looks at the addresses that mail leaves from.
//!
//! Receivers ask for an address's name, whether that leads back, and whether it is what EHLO says (RFC 5321 §4.1.4 lets nobody
//! refuse mail for it; most do). And they ask block lists (RFC 5782). Both are asked here first, in rounds, in the background.
//! What changed is logged once, shown by `tradewind sources` and counted; a listing has the source send less, if others are free,
//! until it is gone: the scheduler keeps that as an action.
//!
//! Not here: what receivers say in replies (`replies`), what an action does (the scheduler).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use host::Clock;
use host::dns::{DnsError, Resolver};
use metrics::{counter, gauge};
use scheduler::SourceHealth;
use tokio::sync::watch;

use super::Source;
use super::plan::Plan;
use super::question::Asker;
use crate::control::metrics as names;

/// A listing keeps a source down for so many rounds without another word: a zone that does not answer keeps it no longer.
const ROUNDS_KEPT: u32 = 4;

/// Names of an address that are followed back; more is a hosting provider's dump.
const NAMES_MAX: usize = 8;

/// Which zones are asked, and how often anything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watching {
    /// Zones of block lists.
    pub zones: Vec<String>,
    /// Between two rounds.
    pub interval: Duration,
}

/// What is known of the sources, in the order of the settings. Swapped whole.
pub type Seen = Arc<ArcSwap<Vec<Sight>>>;

/// What is known of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Its name.
    pub source: Arc<str>,
    /// When it was looked at.
    pub at: SystemTime,
    /// Its name in the DNS.
    pub name: Verdict,
    /// What each zone says.
    pub zones: Vec<(Arc<str>, Listing)>,
    /// A zone lists it, or did and has not answered since.
    pub listed: bool,
}

/// What the DNS says of an address and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The address has the name of EHLO, and that leads back.
    Good,
    /// Only this machine sees it.
    Loopback,
    /// Nobody could say.
    Unknown(String),
    /// It has no name.
    Nameless,
    /// None of its names leads back.
    Unconfirmed(String),
    /// It has another name than it says in EHLO.
    OtherName(String),
    /// The name that it says in EHLO does not lead to it.
    EhloElsewhere,
}

/// What a zone says of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Nothing.
    Clean,
    /// It lists it, with this answer, since then.
    Listed(IpAddr, SystemTime),
    /// It answers no question of ours: too many from our resolver, or a key is needed (127.255.255.0/24).
    Refused(IpAddr),
    /// What came is no answer of such a zone, or nothing came.
    Unknown(String),
}

impl Verdict {
    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Good => "good",
            Verdict::Loopback => "loopback",
            Verdict::Unknown(_) => "unknown",
            Verdict::Nameless => "nameless",
            Verdict::Unconfirmed(_) => "unconfirmed",
            Verdict::OtherName(_) => "other_name",
            Verdict::EhloElsewhere => "ehlo_elsewhere",
        }
    }

    /// What is wrong, and what would be right; nothing: nothing is, or it is not known.
    pub fn trouble(&self, source: &Source) -> Option<String> {
        let Source { address, ehlo, .. } = source;
        match self {
            Verdict::Good | Verdict::Loopback | Verdict::Unknown(_) => None,
            Verdict::Nameless => {
                Some(format!("{address} has no PTR record; have its network's operator set one that says {ehlo}"))
            }
            Verdict::Unconfirmed(names) => Some(format!(
                "{address} is called {names}, and that does not lead back to it; give it the address record, or say {ehlo} in its PTR record"
            )),
            Verdict::OtherName(names) => {
                Some(format!("{address} is called {names} and says {ehlo} in EHLO; say the same in both"))
            }
            Verdict::EhloElsewhere => {
                Some(format!("{ehlo}, which it says in EHLO, does not lead to {address}; give it that address record"))
            }
        }
    }
}

/// The actor.
pub struct Watch {
    /// Where names are looked up.
    pub resolver: Resolver,
    /// What time it is.
    pub clock: Clock,
    /// Sources and zones, when the settings have been read again.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// Who hears of listings.
    pub scheduler: Asker,
    /// Where it is shown.
    pub seen: Seen,
}

impl Watch {
    /// Looks, round by round, until the daemon goes down.
    pub async fn run(mut self) {
        loop {
            let plan = self.plan.borrow_and_update().clone();
            let before = self.seen.load_full();
            let mut seen = Vec::with_capacity(plan.sources.len());
            for source in &plan.sources {
                let known = before.iter().find(|sight| sight.source == source.name);
                let sight = self.look(source, &plan.watching.zones, known).await;
                tell(source, &sight, known);
                if self.report(&sight, known, plan.watching.interval).await.is_err() {
                    return;
                }
                seen.push(sight);
            }
            self.seen.store(Arc::new(seen));
            tokio::select! {
                () = tokio::time::sleep(plan.watching.interval) => {}
                changed = self.plan.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn look(&self, source: &Source, zones: &[String], known: Option<&Sight>) -> Sight {
        let now = self.clock.now();
        let name = verdict(&self.resolver, source.address, &source.ehlo).await;
        let mut said = Vec::with_capacity(zones.len());
        for zone in zones {
            let before = known.and_then(|known| known.zones.iter().find(|(name, _)| **name == **zone));
            said.push((
                Arc::from(zone.as_str()),
                listing(&self.resolver, source.address, zone, before.map(|(_, was)| was), now).await,
            ));
        }
        let unknown = said.iter().any(|(_, listing)| matches!(listing, Listing::Unknown(_)));
        let listed = said.iter().any(|(_, listing)| matches!(listing, Listing::Listed(..)));
        let listed = listed || unknown && known.is_some_and(|known| known.listed);
        Sight { source: source.name.clone(), at: now, name, zones: said, listed }
    }

    /// Has the scheduler send less from a source that is listed, and as before from one that is no longer.
    async fn report(&self, sight: &Sight, known: Option<&Sight>, interval: Duration) -> Result<(), super::question::Stopped> {
        let listings = sight.listings();
        let (health, cause) = match listings.first() {
            Some((zone, answer)) => (SourceHealth::Degraded, format!("{zone} lists it ({answer})")),
            None if !sight.listed && known.is_some_and(|known| known.listed) => {
                (SourceHealth::Healthy, "no block list that we ask lists it any more".to_owned())
            }
            None => return Ok(()),
        };
        self.scheduler.set_source_health(&sight.source, health, &cause, interval * ROUNDS_KEPT).await
    }
}

impl Sight {
    /// The zones that list it.
    pub fn listings(&self) -> Vec<(Arc<str>, IpAddr)> {
        let listed = |(zone, listing): &(Arc<str>, Listing)| match listing {
            Listing::Listed(answer, _) => Some((zone.clone(), *answer)),
            Listing::Clean | Listing::Refused(_) | Listing::Unknown(_) => None,
        };
        self.zones.iter().filter_map(listed).collect()
    }
}

/// What is new goes to the log, once; how it stands, to the gauges.
fn tell(source: &Source, sight: &Sight, known: Option<&Sight>) {
    let trouble = sight.name.trouble(source);
    gauge!(names::SOURCE_NAME_TROUBLE, "source" => source.name.to_string()).set(if trouble.is_some() { 1.0 } else { 0.0 });
    if known.is_none_or(|known| known.name != sight.name) {
        match (&trouble, &sight.name) {
            (Some(trouble), _) => tracing::warn!(source = %source.name, verdict = sight.name.word(), "{trouble}"),
            (None, Verdict::Unknown(why)) => {
                tracing::info!(source = %source.name, why, "its name in the DNS cannot be checked now")
            }
            (None, _) => {
                tracing::info!(source = %source.name, verdict = sight.name.word(), "its name in the DNS is as it should be")
            }
        }
    }
    for (zone, listing) in &sight.zones {
        let before = known.and_then(|known| known.zones.iter().find(|(name, _)| name == zone)).map(|(_, listing)| listing);
        let listed = matches!(listing, Listing::Listed(..));
        gauge!(names::SOURCE_LISTED, "source" => source.name.to_string(), "zone" => zone.to_string()).set(if listed {
            1.0
        } else {
            0.0
        });
        if matches!(listing, Listing::Refused(_)) {
            counter!(names::DNSBL_REFUSED, "zone" => zone.to_string()).increment(1);
        }
        if before == Some(listing) {
            continue;
        }
        let (source, address) = (&source.name, source.address);
        match listing {
            Listing::Listed(answer, _) => tracing::warn!(%source, %address, %zone, %answer, "a block list lists this source"),
            Listing::Refused(answer) => tracing::warn!(
                %source, %zone, %answer,
                "the block list does not answer us: ask it through a resolver of your own, or with a key; this is no listing"
            ),
            Listing::Unknown(why) => tracing::info!(%source, %zone, why, "the block list cannot be asked now"),
            Listing::Clean if matches!(before, Some(Listing::Listed(..))) => {
                tracing::info!(%source, %address, %zone, "the block list lists this source no longer");
            }
            Listing::Clean => {}
        }
    }
}

async fn verdict(resolver: &Resolver, address: IpAddr, ehlo: &str) -> Verdict {
    if address.is_loopback() {
        return Verdict::Loopback;
    }
    let names = match resolver.ptr(address).await {
        Ok((names, _)) => names,
        Err(DnsError::NoSuchName | DnsError::NoRecords) => return Verdict::Nameless,
        Err(error @ (DnsError::Temporary(_) | DnsError::Bogus(_))) => return Verdict::Unknown(error.to_string()),
    };
    let names: Vec<String> = names.iter().take(NAMES_MAX).map(|name| name.trim_end_matches('.').to_ascii_lowercase()).collect();
    let mut confirmed = Vec::new();
    for name in &names {
        match leads_to(resolver, name, address).await {
            Ok(true) => confirmed.push(name.as_str()),
            Ok(false) => {}
            Err(why) => return Verdict::Unknown(why),
        }
    }
    let ehlo = ehlo.to_ascii_lowercase();
    match leads_to(resolver, &ehlo, address).await {
        Err(why) => Verdict::Unknown(why),
        Ok(_) if confirmed.is_empty() => Verdict::Unconfirmed(names.join(" and ")),
        Ok(false) => Verdict::EhloElsewhere,
        Ok(true) if confirmed.contains(&ehlo.as_str()) => Verdict::Good,
        Ok(true) => Verdict::OtherName(confirmed.join(" and ")),
    }
}

async fn leads_to(resolver: &Resolver, name: &str, address: IpAddr) -> Result<bool, String> {
    match resolver.addresses(name).await {
        Ok((addresses, _)) => Ok(addresses.contains(&address)),
        Err(DnsError::NoSuchName | DnsError::NoRecords) => Ok(false),
        Err(error @ (DnsError::Temporary(_) | DnsError::Bogus(_))) => Err(error.to_string()),
    }
}

/// RFC 5782 §2.1, §2.4: the octets, or nibbles, of the address in reverse, below the zone.
pub fn question(address: IpAddr, zone: &str) -> String {
    let labels: Vec<String> = match address {
        IpAddr::V4(address) => address.octets().iter().rev().map(u8::to_string).collect(),
        IpAddr::V6(address) => {
            address.octets().iter().rev().flat_map(|octet| [octet & 15, octet >> 4]).map(|nibble| format!("{nibble:x}")).collect()
        }
    };
    format!("{}.{}", labels.join("."), zone.trim_end_matches('.'))
}

async fn listing(resolver: &Resolver, address: IpAddr, zone: &str, before: Option<&Listing>, now: SystemTime) -> Listing {
    let answers = match resolver.addresses(&question(address, zone)).await {
        Ok((answers, _)) => answers,
        Err(DnsError::NoSuchName | DnsError::NoRecords) => return Listing::Clean,
        Err(error @ (DnsError::Temporary(_) | DnsError::Bogus(_))) => return Listing::Unknown(error.to_string()),
    };
    let octets = |answer: &IpAddr| match answer {
        IpAddr::V4(answer) => answer.octets(),
        IpAddr::V6(_) => [0; 4],
    };
    if let Some(refused) = answers.iter().find(|answer| octets(answer)[..3] == [127, 255, 255]) {
        return Listing::Refused(*refused);
    }
    // RFC 5782 §2.1: 127.0.0.2 and what else the zone says lies there; §5: 127.0.0.1 is listed nowhere.
    let listed = answers.iter().find(|answer| octets(answer)[0] == 127 && octets(answer) != [127, 0, 0, 1]);
    match (listed, before) {
        (Some(_), Some(before @ Listing::Listed(..))) => before.clone(),
        (Some(answer), _) => Listing::Listed(*answer, now),
        (None, _) => Listing::Unknown(
            "its answer lies outside of 127.0.0.0/8: the zone is gone, or somebody answers in its place".to_owned(),
        ),
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
