//! Providers: who operates the hosts that a domain's MX records name.
//!
//! A provider gathers many sites under one reputation: what Google thinks of a source it thinks at
//! every domain that it hosts. The list is data (`config/providers.toml`, and what operators add in a file of `[shaping]`).
//!
//! Not here: what a provider bears (`config/shaping.toml`), which the scheduler asks for by this name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The provider of whoever is not in the list: the long tail shares one name.
pub const OTHER: &str = "other";

/// Names of MX hosts and who operates them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Providers {
    by_suffix: HashMap<Box<str>, Arc<str>>,
    /// Also of those that another has taken all hosts from.
    names: BTreeSet<Arc<str>>,
}

impl Providers {
    /// Hosts of this name, or below it, are this provider's: A-labels in lower case. What was said of the name before is
    /// forgotten.
    pub fn add(&mut self, suffix: &str, provider: &str) {
        let name = self.names.get(provider).cloned().unwrap_or_else(|| provider.into());
        self.names.insert(name.clone());
        self.by_suffix.insert(suffix.into(), name);
    }

    /// Whose host that is. The longest suffix on a label boundary wins, so that `olc.protection.outlook.com` (consumers) is not
    /// taken for Microsoft 365.
    pub fn of(&self, host: &str) -> Arc<str> {
        let mut rest = Some(host);
        while let Some(suffix) = rest {
            if let Some(provider) = self.by_suffix.get(suffix) {
                return provider.clone();
            }
            rest = suffix.split_once('.').map(|(_, parent)| parent);
        }
        OTHER.into()
    }

    /// Whether there is a provider of this name.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Each provider, sorted, with its hosts' names.
    pub fn lists(&self) -> BTreeMap<Arc<str>, String> {
        let mut lists: BTreeMap<Arc<str>, Vec<&str>> = BTreeMap::new();
        for (suffix, provider) in &self.by_suffix {
            lists.entry(provider.clone()).or_default().push(suffix);
        }
        let sorted = |mut hosts: Vec<&str>| {
            hosts.sort_unstable();
            hosts.join(" ")
        };
        lists.into_iter().map(|(provider, hosts)| (provider, sorted(hosts))).collect()
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_suffix_on_a_label_boundary_wins() {
        let mut providers = Providers::default();
        for (suffix, name) in [("google.com", "google"), ("outlook.com", "a"), ("olc.protection.outlook.com", "b")] {
            providers.add(suffix, name);
        }
        for (host, name) in [
            ("aspmx.l.google.com", "google"),
            ("google.com", "google"),
            ("notgoogle.com", OTHER),
            ("com", OTHER),
            ("x.mail.protection.outlook.com", "a"),
            ("hotmail-com.olc.protection.outlook.com", "b"),
            ("[192.0.2.1]", OTHER),
        ] {
            assert_eq!(&*providers.of(host), name, "{host}");
        }
        providers.add("google.com", "mine");
        assert_eq!(&*providers.of("aspmx.l.google.com"), "mine");
        assert!(providers.has("mine") && providers.has("google") && !providers.has("none"));
    }
}
