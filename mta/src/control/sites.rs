//! `sites`: those that are known now, a page at a time; and one by its name, with the domains that are known to lead there and how
//! their mail travels.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use scheduler::{DomainView, SiteListed, SiteSourceView};

use super::api::{Refusal, SITE_COUNTED_MAX, SITES_MAX, SiteRow, SiteShown, SiteSource, SitesFilter, SitesPage};
use super::daemon::Daemon;
use super::views::{blocking, time, unable};
use crate::queue::{QueueError, Reader};

/// Domains that are told.
const DOMAINS_MAX: usize = 200;

/// Domains of a site whose mail a list counts.
const DOMAINS_COUNTED: usize = 20;

/// What is known of the domains of a site.
#[derive(Default)]
struct Leading {
    count: u64,
    some: Vec<Arc<str>>,
    next_due: Option<SystemTime>,
}

impl Leading {
    fn add(&mut self, domain: DomainView) {
        self.count += 1;
        self.next_due = self.next_due.into_iter().chain(domain.next_due).min();
        if self.some.len() < DOMAINS_COUNTED {
            self.some.push(domain.name);
        }
    }

    /// Where none leads there now, because all of its mail lies on disk, the last one that did stands for them.
    fn or_last(mut self, site: &SiteListed) -> Leading {
        if self.some.is_empty() {
            self.some.extend(site.site.last.clone());
            self.next_due = site.next_due;
        }
        self
    }

    /// Deliveries in the queue, and whether that is all.
    fn queued(&self, reader: &Reader) -> Result<(u64, bool), QueueError> {
        let (mut all, mut sure) = (0, self.count == self.some.len() as u64);
        for domain in &self.some {
            let left = SITE_COUNTED_MAX.saturating_sub(all as usize);
            if left == 0 {
                return Ok((all, false));
            }
            let (queued, _, counted_all) = reader.count_domain(domain, left)?;
            all += queued;
            sure &= counted_all;
        }
        Ok((all, sure))
    }
}

impl Daemon {
    /// A page of those that are known. The scheduler's thread looks at some at a time, with time for mail in between.
    pub(super) async fn list_sites(&self, filter: SitesFilter) -> Result<SitesPage, Refusal> {
        let limit = filter.limit.unwrap_or(SITES_MAX).clamp(1, SITES_MAX);
        let asker = &self.parts.scheduler;
        let find = filter.find.unwrap_or_default();
        let (listed, next) = asker.sites(&find, filter.after.unwrap_or(0), limit).await.map_err(unable)?;
        let places: Arc<[u32]> = listed.iter().map(|it| it.place).collect();
        let mut leading: BTreeMap<u32, Leading> = BTreeMap::new();
        let mut from = Some(0).filter(|_| !places.is_empty());
        while let Some(part) = from {
            let (domains, next) = asker.domains_of_places(places.clone(), part).await.map_err(unable)?;
            domains.into_iter().for_each(|(place, domain)| leading.entry(place).or_default().add(domain));
            from = next;
        }
        let names = asker.source_names().await.map_err(unable)?;
        let rows = blocking(self, move |daemon| {
            let row = |it: SiteListed| {
                let leads = leading.remove(&it.place).unwrap_or_default().or_last(&it);
                Ok(row(it, &leads, leads.queued(&daemon.parts.reader)?, &names))
            };
            listed.into_iter().map(row).collect::<Result<Vec<_>, QueueError>>()
        });
        Ok(SitesPage { sites: rows.await?.map_err(unable)?, next })
    }

    /// One of them. A domain that leads to a site is explained as `where` does; one that nobody has mail for is not known. Where all
    /// mail lies on disk, the last domain that led there stands for them.
    pub(super) async fn show_site(&self, site: &str) -> Result<SiteShown, Refusal> {
        let known = self.parts.scheduler.domains_of_site(site).await.map_err(unable)?;
        let mut domains: Vec<String> = known.unwrap_or_default().iter().map(|domain| domain.to_string()).collect();
        if domains.is_empty() {
            let last = self.parts.scheduler.last_domain_of_site(site).await.map_err(unable)?;
            domains.extend(last.map(|domain| domain.to_string()));
        }
        domains.sort();
        let unknown = || {
            let says = format!(
                "no domain that has mail here is known to lead to {site}; `tradewind where DOMAIN` names a domain's site"
            );
            Refusal::Unknown(says)
        };
        let first = domains.first().ok_or_else(unknown)?;
        let how = self.explain_domain(first).await?;
        let count = domains.len() as u64;
        domains.truncate(DOMAINS_MAX);
        Ok(SiteShown { site: site.to_owned(), count, domains, how })
    }
}

fn row(it: SiteListed, leads: &Leading, (queued, counted_all): (u64, bool), names: &[Arc<str>]) -> SiteRow {
    let SiteListed { site, delivered, deferred, .. } = it;
    let source = |at: &SiteSourceView| SiteSource {
        source: names.get(usize::from(at.source.0)).map_or_else(String::new, |name| name.to_string()),
        window: at.window,
        in_flight: at.in_flight,
        suspended_until: at.suspended_until.map(time),
    };
    SiteRow {
        site: site.name.to_string(),
        provider: site.provider.to_string(),
        domain: leads.some.first().map(|domain| domain.to_string()),
        domains: leads.count,
        queued,
        counted_all,
        next_due_at: leads.next_due.map(time),
        in_flight: site.in_flight as u64,
        delivered,
        deferred,
        failures: site.failures.into(),
        suspended_until: site.suspended_until.map(time),
        sources: site.sources.iter().map(source).collect(),
    }
}
