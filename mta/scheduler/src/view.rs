//! What an operator may look at: counts, sites, domains, what is in flight. Why something waits is in `explain.rs`.
//!
//! Iterators borrow the machine, so a caller takes as many rows as it wants to show and no more.

use std::sync::Arc;
use std::time::SystemTime;

use crate::domain::Domain;
use crate::line::Line;
use crate::machine::Scheduler;
use crate::send::{Flight, FlightState};
use crate::site::Site;
use crate::time::Time;
use crate::types::{Lane, QueueId, SourceId};

/// How much there is of everything, now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Domains that have mail, in memory or on disk, or remember their route.
    pub domains: usize,
    /// Of these, domains without mail that remember their route.
    pub idle_domains: usize,
    /// Sites that are known.
    pub sites: usize,
    /// Of these, sites that no domain's route leads to now.
    pub unused_sites: usize,
    /// Deliveries waiting in memory.
    pub queued: usize,
    /// Deliveries being tried.
    pub in_flight: usize,
    /// Deliveries being settled.
    pub settling: usize,
    /// Flows that wait to be loaded, or are being loaded.
    pub loading: usize,
    /// Flows that wait for their domain to be resolved, and domains that are being resolved.
    pub resolving: usize,
}

/// A domain, as shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainView {
    /// Its name.
    pub name: Arc<str>,
    /// The site that its route leads to, if it is known.
    pub site: Option<Arc<str>>,
    /// Waiting in memory, by lane.
    pub queued: [usize; 3],
    /// Being tried.
    pub in_flight: usize,
    /// Being settled.
    pub settling: usize,
    /// When the first of what lies only on disk is due.
    pub next_due: Option<SystemTime>,
}

/// A site, as shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteView {
    /// Its name.
    pub name: Arc<str>,
    /// Who operates it.
    pub provider: Arc<str>,
    /// Domains whose route leads there.
    pub domains: usize,
    /// The last one whose route did; it may lead elsewhere now.
    pub last: Option<Arc<str>>,
    /// Deliveries being tried.
    pub in_flight: usize,
    /// Left alone until then.
    pub suspended_until: Option<SystemTime>,
    /// Failures in a row.
    pub failures: u8,
    /// Our sources that have sent there.
    pub sources: Vec<SiteSourceView>,
}

/// A site in a list, as shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteListed {
    /// Its place in the table; another site may have it later.
    pub place: u32,
    /// It.
    pub site: SiteView,
    /// When the first of the last domain's mail that lies only on disk is due.
    pub next_due: Option<SystemTime>,
    /// Attempts that delivered in this hour and the one before, by the clock.
    pub delivered: u64,
    /// Those that were deferred.
    pub deferred: u64,
}

/// One of our sources at a site, as shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteSourceView {
    /// Which.
    pub source: SourceId,
    /// How many deliveries at once the site bears from it.
    pub window: u16,
    /// Deliveries being tried.
    pub in_flight: u16,
    /// Left alone until then.
    pub suspended_until: Option<SystemTime>,
}

/// A delivery that is being tried, as shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlightView {
    /// The message.
    pub id: QueueId,
    /// Recipient domain.
    pub domain: Arc<str>,
    /// Its lane.
    pub lane: Lane,
    /// Where to.
    pub site: Arc<str>,
    /// Where from.
    pub source: SourceId,
    /// On which connection.
    pub slot: u16,
    /// Since when.
    pub began: Option<SystemTime>,
}

impl Scheduler {
    /// Counts, without looking at anything one by one.
    pub fn counts(&self) -> Counts {
        Counts {
            domains: self.domains.len(),
            idle_domains: self.idle_domains,
            sites: self.sites.len(),
            unused_sites: self.unused_sites,
            queued: self.queued,
            in_flight: self.trying,
            settling: self.flights.len() - self.trying,
            loading: self.loads.iter().map(Line::len).sum::<usize>() + self.loads_asked,
            resolving: self.resolves.iter().map(Line::len).sum::<usize>() + self.resolves_asked,
        }
    }

    /// All domains, in no order.
    pub fn domains(&self) -> impl Iterator<Item = DomainView> {
        self.domains.iter().map(|(_, domain)| self.view_domain(domain))
    }

    /// One domain.
    pub fn domain_view(&self, name: &str) -> Option<DomainView> {
        let domain = self.domains.get(*self.domain_by_name.get(name)?)?;
        Some(self.view_domain(domain))
    }

    /// All sites, in no order.
    pub fn sites(&self) -> impl Iterator<Item = SiteView> {
        self.sites.iter().map(|(_, site)| self.view_site(site))
    }

    /// Sites that are `wanted` by name and provider, found among the next `look_at` places from `from` on (0: the first); and where to
    /// go on, if there are more to look at.
    pub fn sites_from(
        &self,
        now: SystemTime,
        from: u32,
        look_at: u32,
        wanted: impl Fn(&str, &str) -> bool,
    ) -> (Vec<SiteListed>, Option<u32>) {
        let (until, end, now) = (from.saturating_add(look_at), self.sites.end(), Time::from(now));
        let sites = (from..until.min(end)).filter_map(|place| Some((place, self.sites.get(place)?)));
        let listed = |(place, site): (u32, &Site)| {
            let (delivered, deferred) = site.lately.sums(now);
            let next_due = site.last.as_ref().and_then(|name| self.domain_view(name)?.next_due);
            SiteListed { place, site: self.view_site(site), next_due, delivered, deferred }
        };
        let found = sites.filter(|(_, site)| wanted(&site.name, &site.provider)).map(listed).collect();
        (found, (until < end).then_some(until))
    }

    /// Domains whose route leads to one of the sites in these `places`, which rise, with the place, found among the next `look_at` domains from
    /// `from` on; and where to go on, if there are more to look at.
    pub fn domains_of_places(&self, places: &[u32], from: u32, look_at: u32) -> (Vec<(u32, DomainView)>, Option<u32>) {
        let (until, end) = (from.saturating_add(look_at), self.domains.end());
        let domains = (from..until.min(end)).filter_map(|key| self.domains.get(key));
        let found = domains.filter_map(|domain| {
            let place = domain.active.as_ref()?.site.filter(|place| places.binary_search(place).is_ok())?;
            Some((place, self.view_domain(domain)))
        });
        (found.collect(), (until < end).then_some(until))
    }

    /// One site.
    pub fn site_view(&self, name: &str) -> Option<SiteView> {
        let site = self.sites.get(*self.site_by_name.get(name)?)?;
        Some(self.view_site(site))
    }

    /// Names of the sources by number, those included that were removed from the configuration.
    pub fn source_names(&self) -> Vec<Arc<str>> {
        self.sources.iter().map(|(_, pooled)| pooled.source.name.clone()).collect()
    }

    /// Everything that is being tried, in no order.
    pub fn in_flight(&self) -> impl Iterator<Item = FlightView> {
        self.flights.iter().filter_map(|((id, key), flight)| self.view_flight(*id, *key, flight))
    }

    /// None: it is being settled.
    pub(crate) fn view_flight(&self, id: QueueId, key: u32, flight: &Flight) -> Option<FlightView> {
        let FlightState::InFlight(attempt) = &flight.state else { return None };
        Some(FlightView {
            id,
            domain: self.domains.get(key)?.name.clone(),
            lane: flight.lane,
            site: self.sites.get(attempt.site)?.name.clone(),
            source: attempt.source,
            slot: attempt.slot,
            began: attempt.began.system(),
        })
    }

    pub(crate) fn view_domain(&self, domain: &Domain) -> DomainView {
        let site = domain.active.as_ref().and_then(|active| self.sites.get(active.site?));
        let mut view = DomainView {
            name: domain.name.clone(),
            site: site.map(|site| site.name.clone()),
            queued: [0; 3],
            in_flight: 0,
            settling: 0,
            next_due: None,
        };
        let mut next_due = domain.next_due();
        for flow in domain.flows().filter_map(|key| self.flows.get(key)) {
            for (queued, queue) in view.queued.iter_mut().zip(&flow.lanes) {
                *queued += queue.len();
            }
            view.in_flight += flow.in_flight as usize;
            view.settling += flow.settling as usize;
            next_due = next_due.min(flow.next_due);
        }
        DomainView { next_due: next_due.system(), ..view }
    }

    pub(crate) fn view_site(&self, site: &Site) -> SiteView {
        let pool = self.pools.of_lane(Lane::Notice);
        SiteView {
            name: site.name.clone(),
            provider: site.provider.clone(),
            domains: site.domains as usize,
            last: site.last.clone(),
            in_flight: site.in_flight as usize,
            suspended_until: site.health.suspended_until().and_then(Time::system),
            failures: site.health.failures(),
            sources: (site.paths())
                .map(|(source, path)| SiteSourceView {
                    source,
                    window: path.window.size(site.shape.of(source, pool).window),
                    in_flight: path.window.in_flight(),
                    suspended_until: path.health.suspended_until().and_then(Time::system),
                })
                .collect(),
        }
    }
}
