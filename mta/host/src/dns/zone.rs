//! Answers written by a test, for [`super::Resolver::scripted`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Answer, DnsError, Mx, Tlsa};

/// Aliases that are followed, as by a resolver.
const ALIASES_MAX: usize = 8;

/// A scripted DNS. Clones are the same zone, so a test that keeps one may change the answers while the world runs.
///
/// A name of which nothing was said does not exist; one of which something was said has no records of other kinds. Nothing
/// is signed but the zones of which it is said.
#[derive(Clone, Debug, Default)]
pub struct Zone(Arc<Mutex<Records>>);

#[derive(Debug)]
struct Records {
    names: BTreeMap<String, Entry>,
    pointers: BTreeMap<IpAddr, Vec<String>>,
    signed: BTreeSet<String>,
    latency: Duration,
    ttl: Duration,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    mx: Vec<Mx>,
    addresses: Vec<IpAddr>,
    txt: Vec<String>,
    tlsa: Vec<Tlsa>,
    alias: Option<String>,
    failing: Option<DnsError>,
}

impl Default for Records {
    fn default() -> Self {
        let (latency, ttl) = (Duration::from_millis(5), Duration::from_secs(300));
        Self { names: BTreeMap::new(), pointers: BTreeMap::new(), signed: BTreeSet::new(), latency, ttl }
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

    /// Adds a TLSA record.
    pub fn tlsa(&self, name: &str, tlsa: Tlsa) -> &Self {
        self.entry(name, |entry| entry.tlsa.push(tlsa))
    }

    /// Makes `name` an alias.
    pub fn alias(&self, name: &str, target: &str) -> &Self {
        self.entry(name, |entry| entry.alias = Some(key(target)))
    }

    /// From now on `zone` and all below it is signed.
    pub fn sign(&self, zone: &str) -> &Self {
        self.records().signed.insert(key(zone));
        self
    }

    /// Ends what `sign` began.
    pub fn unsign(&self, zone: &str) -> &Self {
        self.records().signed.remove(&key(zone));
        self
    }

    /// Adds a PTR record.
    pub fn ptr(&self, address: IpAddr, name: &str) -> &Self {
        self.records().pointers.entry(address).or_default().push(key(name));
        self
    }

    /// From now on questions about `name` fail for the time being, for this reason.
    pub fn fail(&self, name: &str, why: &str) -> &Self {
        self.entry(name, |entry| entry.failing = Some(DnsError::Temporary(why.to_owned())))
    }

    /// The same, and it is signatures that do not hold.
    pub fn forge(&self, name: &str, why: &str) -> &Self {
        self.entry(name, |entry| entry.failing = Some(DnsError::Bogus(why.to_owned())))
    }

    /// Ends what `fail` or `forge` began.
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

    pub(super) async fn mx_of(&self, name: &str) -> Result<Answer<Mx>, DnsError> {
        self.answer(name, |entry| entry.mx).await
    }

    pub(super) async fn host_of(&self, name: &str) -> Result<Answer<IpAddr>, DnsError> {
        let ipv4_first = |mut entry: Entry| {
            entry.addresses.sort_by_key(IpAddr::is_ipv6);
            entry.addresses
        };
        self.answer(name, ipv4_first).await
    }

    pub(super) async fn tlsa_of(&self, name: &str) -> Result<Answer<Tlsa>, DnsError> {
        self.answer(name, |entry| entry.tlsa).await
    }

    pub(super) async fn txt_of(&self, name: &str) -> Result<Answer<String>, DnsError> {
        self.answer(name, |entry| entry.txt).await
    }

    pub(super) async fn alias_of(&self, name: &str) -> Result<Answer<String>, DnsError> {
        self.wait().await;
        let (records, name) = (self.records(), key(name));
        let entry = records.names.get(&name).ok_or(DnsError::NoSuchName)?;
        if let Some(failing) = &entry.failing {
            return Err(failing.clone());
        }
        let target = entry.alias.clone().ok_or(DnsError::NoRecords)?;
        Ok(Answer { records: vec![target], ttl: records.ttl, secure: records.is_signed(&name), name })
    }

    pub(super) async fn ptr_of(&self, address: IpAddr) -> Result<Answer<String>, DnsError> {
        self.wait().await;
        let records = self.records();
        let names = records.pointers.get(&address).ok_or(DnsError::NoSuchName)?;
        Ok(Answer { records: names.clone(), ttl: records.ttl, secure: false, name: address.to_string() })
    }

    async fn answer<T>(&self, name: &str, pick: impl Fn(Entry) -> Vec<T>) -> Result<Answer<T>, DnsError> {
        self.wait().await;
        let records = self.records();
        let (mut name, mut secure) = (key(name), true);
        for _ in 0..ALIASES_MAX {
            secure &= records.is_signed(&name);
            let entry = records.names.get(&name).ok_or(DnsError::NoSuchName)?;
            if let Some(failing) = &entry.failing {
                return Err(failing.clone());
            }
            if let Some(target) = &entry.alias {
                name = target.clone();
                continue;
            }
            return match pick(entry.clone()) {
                found if found.is_empty() => Err(DnsError::NoRecords),
                found => Ok(Answer { records: found, ttl: records.ttl, secure, name }),
            };
        }
        Err(DnsError::Temporary(format!("{name} is an alias of aliases without end")))
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

impl Records {
    fn is_signed(&self, name: &str) -> bool {
        let below = |zone: &String| name.strip_suffix(zone.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        self.signed.iter().any(below)
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
        let answer = dns.mx("example.org").await.unwrap();
        assert_eq!((answer.records, answer.ttl), (vec![mx], Duration::from_secs(60)));
        assert_eq!(dns.mx("null.example").await.unwrap().records[0].exchange, ".");
        assert_eq!(dns.addresses("example.org").await, Err(DnsError::NoRecords));
        assert_eq!(dns.addresses("nowhere.example").await, Err(DnsError::NoSuchName));
        assert_eq!(dns.txt("broken.example").await, Err(DnsError::Temporary("SERVFAIL".to_owned())));
        zone.recover("broken.example").txt("broken.example", "v=spf1 -all");
        assert_eq!(dns.txt("broken.example").await.unwrap().0, ["v=spf1 -all"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_secure_when_every_name_on_the_way_is_signed() {
        let zone = Zone::new();
        zone.address("mx.signed.test", "192.0.2.1".parse().unwrap()).address("mx.plain.test", "192.0.2.2".parse().unwrap());
        zone.alias("in.signed.test", "mx.signed.test").alias("out.signed.test", "mx.plain.test");
        zone.alias("mx.plain-alias.test", "mx.signed.test").sign("signed.test");
        let dns = Resolver::scripted(zone.clone());
        let ask = async |name: &str| dns.host(name).await.map(|answer| (answer.secure, answer.name)).unwrap();
        assert_eq!(ask("mx.signed.test").await, (true, "mx.signed.test".to_owned()));
        assert_eq!(ask("in.signed.test").await, (true, "mx.signed.test".to_owned()));
        assert_eq!(ask("out.signed.test").await, (false, "mx.plain.test".to_owned()));
        assert_eq!(ask("mx.plain-alias.test").await, (false, "mx.signed.test".to_owned()));
        assert_eq!(ask("mx.plain.test").await, (false, "mx.plain.test".to_owned()));
        assert!(dns.alias("out.signed.test").await.unwrap().secure);
        zone.forge("mx.signed.test", "signature expired");
        assert_eq!(dns.host("in.signed.test").await, Err(DnsError::Bogus("signature expired".to_owned())));
    }
}
