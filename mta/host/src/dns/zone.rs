//! Answers written by a test, for [`super::Resolver::scripted`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{DnsError, Mx};

/// A scripted DNS. Clones are the same zone, so a test that keeps one may change the answers while the world runs.
///
/// A name of which nothing was said does not exist; one of which something was said has no records of other kinds.
#[derive(Clone, Debug, Default)]
pub struct Zone(Arc<Mutex<Records>>);

#[derive(Debug)]
struct Records {
    names: BTreeMap<String, Entry>,
    pointers: BTreeMap<IpAddr, Vec<String>>,
    latency: Duration,
    ttl: Duration,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    mx: Vec<Mx>,
    addresses: Vec<IpAddr>,
    txt: Vec<String>,
    failing: Option<String>,
}

impl Default for Records {
    fn default() -> Self {
        let (latency, ttl) = (Duration::from_millis(5), Duration::from_secs(300));
        Self { names: BTreeMap::new(), pointers: BTreeMap::new(), latency, ttl }
    }
}

impl Zone {
    /// An empty zone that answers in 5 ms with a TTL of 300 s.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an MX record. The exchange `.` is a null MX.
    pub fn mx(&self, domain: &str, preference: u16, exchange: &str) -> &Self {
        let exchange = if exchange == "." { exchange.to_owned() } else { key(exchange) };
        self.entry(domain, |entry| entry.mx.push(Mx { preference, exchange }))
    }

    /// Adds an A or AAAA record.
    pub fn address(&self, host: &str, address: IpAddr) -> &Self {
        self.entry(host, |entry| entry.addresses.push(address))
    }

    /// Adds a TXT record.
    pub fn txt(&self, name: &str, text: &str) -> &Self {
        self.entry(name, |entry| entry.txt.push(text.to_owned()))
    }

    /// Adds a PTR record.
    pub fn ptr(&self, address: IpAddr, name: &str) -> &Self {
        self.records().pointers.entry(address).or_default().push(key(name));
        self
    }

    /// From now on questions about `name` fail for the time being, for this reason.
    pub fn fail(&self, name: &str, why: &str) -> &Self {
        self.entry(name, |entry| entry.failing = Some(why.to_owned()))
    }

    /// Ends what `fail` began.
    pub fn recover(&self, name: &str) -> &Self {
        self.entry(name, |entry| entry.failing = None)
    }

    /// Forgets all that was said of `name`.
    pub fn remove(&self, name: &str) -> &Self {
        self.records().names.remove(&key(name));
        self
    }

    /// Answers take so long.
    pub fn set_latency(&self, latency: Duration) -> &Self {
        self.records().latency = latency;
        self
    }

    /// Answers may be kept for so long.
    pub fn set_ttl(&self, ttl: Duration) -> &Self {
        self.records().ttl = ttl;
        self
    }

    pub(super) async fn mx_of(&self, name: &str) -> Result<(Vec<Mx>, Duration), DnsError> {
        self.answer(name, |entry| entry.mx).await
    }

    pub(super) async fn addresses_of(&self, name: &str) -> Result<(Vec<IpAddr>, Duration), DnsError> {
        let ipv4_first = |mut entry: Entry| {
            entry.addresses.sort_by_key(IpAddr::is_ipv6);
            entry.addresses
        };
        self.answer(name, ipv4_first).await
    }

    pub(super) async fn txt_of(&self, name: &str) -> Result<(Vec<String>, Duration), DnsError> {
        self.answer(name, |entry| entry.txt).await
    }

    pub(super) async fn ptr_of(&self, address: IpAddr) -> Result<(Vec<String>, Duration), DnsError> {
        self.wait().await;
        let records = self.records();
        let names = records.pointers.get(&address).ok_or(DnsError::NoSuchName)?;
        Ok((names.clone(), records.ttl))
    }

    async fn answer<T>(&self, name: &str, pick: impl Fn(Entry) -> Vec<T>) -> Result<(Vec<T>, Duration), DnsError> {
        self.wait().await;
        let records = self.records();
        let entry = records.names.get(&key(name)).ok_or(DnsError::NoSuchName)?;
        if let Some(why) = &entry.failing {
            return Err(DnsError::Temporary(why.clone()));
        }
        match pick(entry.clone()) {
            found if found.is_empty() => Err(DnsError::NoRecords),
            found => Ok((found, records.ttl)),
        }
    }

    async fn wait(&self) {
        let latency = self.records().latency;
        tokio::time::sleep(latency).await;
    }

    fn entry(&self, name: &str, change: impl FnOnce(&mut Entry)) -> &Self {
        change(self.records().names.entry(key(name)).or_default());
        self
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// DNS knows no case, and we write no final dot.
fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Resolver;

    #[tokio::test(start_paused = true)]
    async fn a_scripted_zone_tells_absence_emptiness_and_failure_apart() {
        let zone = Zone::new();
        zone.mx("Example.ORG", 10, "MX1.example.org.").address("mx1.example.org", "192.0.2.1".parse().unwrap());
        zone.mx("null.example", 0, ".").fail("broken.example", "SERVFAIL").set_ttl(Duration::from_secs(60));
        let dns = Resolver::scripted(zone.clone());
        let mx = Mx { preference: 10, exchange: "mx1.example.org".to_owned() };
        assert_eq!(dns.mx("example.org").await, Ok((vec![mx], Duration::from_secs(60))));
        assert_eq!(dns.mx("null.example").await.unwrap().0[0].exchange, ".");
        assert_eq!(dns.addresses("example.org").await, Err(DnsError::NoRecords));
        assert_eq!(dns.addresses("nowhere.example").await, Err(DnsError::NoSuchName));
        assert_eq!(dns.txt("broken.example").await, Err(DnsError::Temporary("SERVFAIL".to_owned())));
        zone.recover("broken.example").txt("broken.example", "v=spf1 -all");
        assert_eq!(dns.txt("broken.example").await.unwrap().0, ["v=spf1 -all"]);
    }
}
