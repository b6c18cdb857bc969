//! `sites`: a site by its name, with the domains that are known to lead there and how their mail travels.

use super::api::{Refusal, SiteShown};
use super::daemon::Daemon;
use super::views::unable;

/// Domains that are told.
const DOMAINS_MAX: usize = 200;

impl Daemon {
    /// One of them. A domain that leads to a site is explained as `where` does; one that nobody has mail for is not known.
    pub(super) async fn show_site(&self, site: &str) -> Result<SiteShown, Refusal> {
        let known = self.parts.scheduler.domains_of_site(site).await.map_err(unable)?;
        let mut domains: Vec<String> = known.unwrap_or_default().iter().map(|domain| domain.to_string()).collect();
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
