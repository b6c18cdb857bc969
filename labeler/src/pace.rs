//! How many dry runs, messages that are asked about, or repositories of strangers: of one domain, of one client, of all together. Pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

/// Domains and clients that are remembered. Past it everybody waits until some are forgotten, which is seconds.
const KNOWN_MAX: usize = 4096;
/// For who comes when no more can be remembered.
const FULL_WAIT: Duration = Duration::from_secs(10);

/// Time between two, once as many as the number came at once.
pub(crate) type Rate = (Duration, u32);

/// For whom how many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    /// One domain.
    pub(crate) domain: Option<Rate>,
    /// One client; of IPv6, its /64.
    pub(crate) client: Rate,
    /// All together.
    pub(crate) all: Rate,
}

impl Rates {
    /// Dry runs. One domain: three at once, then one in ten seconds. One client: ten at once, then one in six seconds. All
    /// together: fifty at once, then two a second.
    pub(crate) const DRY_RUNS: Self = Self {
        domain: Some((Duration::from_secs(10), 3)),
        client: (Duration::from_secs(6), 10),
        all: (Duration::from_millis(500), 50),
    };
    /// Repositories of strangers whose state a stream does not spell out: an hour's worth at once, then one a second.
    pub(crate) const STRANGERS: Self =
        Self { domain: None, client: (Duration::from_secs(1), 3600), all: (Duration::from_secs(1), 3600) };
}

/// Keeps count of who is ahead of their rate.
#[derive(Debug)]
pub(crate) struct Pace {
    rates: Rates,
    domains: HashMap<String, SystemTime>,
    clients: HashMap<IpAddr, SystemTime>,
    all: Option<SystemTime>,
}

impl Pace {
    pub(crate) fn new(rates: Rates) -> Self {
        Self { rates, domains: HashMap::new(), clients: HashMap::new(), all: None }
    }

    /// Takes a turn, or says how long there is none.
    pub(crate) fn take(&mut self, now: SystemTime, domain: Option<&str>, client: Option<IpAddr>) -> Result<(), Duration> {
        self.domains.retain(|_, ahead| *ahead > now);
        self.clients.retain(|_, ahead| *ahead > now);
        let client = client.map(whole);
        let domain = domain.zip(self.rates.domain);
        let all = next(self.rates.all, now, self.all)?;
        let of_domain = domain.map(|(domain, rate)| next(rate, now, self.domains.get(domain).copied())).transpose()?;
        let of_client = next(self.rates.client, now, client.and_then(|client| self.clients.get(&client).copied()))?;
        let no_room = domain.is_some_and(|(domain, _)| is_full(&self.domains, domain));
        if no_room || client.is_some_and(|client| is_full(&self.clients, &client)) {
            return Err(FULL_WAIT);
        }
        self.all = Some(all);
        if let Some(((domain, _), until)) = domain.zip(of_domain) {
            self.domains.insert(domain.to_owned(), until);
        }
        if let Some(client) = client {
            self.clients.insert(client, of_client);
        }
        Ok(())
    }
}

/// How far ahead whoever takes a turn now will be.
fn next((spacing, burst): Rate, now: SystemTime, ahead: Option<SystemTime>) -> Result<SystemTime, Duration> {
    let next = ahead.unwrap_or(now).max(now) + spacing;
    match next.duration_since(now + spacing * burst) {
        Ok(over) if !over.is_zero() => Err(over),
        _ => Ok(next),
    }
}

fn is_full<K: Hash + Eq + std::borrow::Borrow<Q>, Q: Hash + Eq + ?Sized>(map: &HashMap<K, SystemTime>, key: &Q) -> bool {
    map.len() >= KNOWN_MAX && !map.contains_key(key)
}

/// Whoever has one address of IPv6 has a network of them.
fn whole(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn taken(pace: &mut Pace, at: u64, domain: &str, client: Option<&str>) -> bool {
        pace.take(UNIX_EPOCH + Duration::from_secs(at), Some(domain), client.map(|it| it.parse().unwrap())).is_ok()
    }

    #[test]
    fn one_domain_is_asked_about_three_times_and_then_every_ten_seconds() {
        let mut pace = Pace::new(Rates::DRY_RUNS);
        let first: Vec<bool> = (0..5).map(|_| taken(&mut pace, 0, "a.example", None)).collect();
        assert_eq!(first, [true, true, true, false, false]);
        assert!(taken(&mut pace, 0, "b.example", None), "another domain is another");
        assert!(!taken(&mut pace, 9, "a.example", None));
        assert!(taken(&mut pace, 10, "a.example", None));
    }

    #[test]
    fn one_client_has_a_rate_whatever_it_asks_about_and_so_have_all() {
        let mut pace = Pace::new(Rates::DRY_RUNS);
        let count = |pace: &mut Pace, from: usize, client: &str| {
            (from..from + 100).filter(|nth| taken(pace, 0, &format!("d{nth}.example"), Some(client))).count()
        };
        assert_eq!(count(&mut pace, 0, "2001:db8::1"), 10);
        assert_eq!(count(&mut pace, 100, "2001:db8::2"), 0, "its own network");
        let others: usize = (0..20).map(|nth| count(&mut pace, 1000 + nth * 100, &format!("192.0.2.{nth}"))).sum();
        assert_eq!(others, 40, "fifty of all together");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten() {
        let mut pace = Pace::new(Rates::DRY_RUNS);
        for nth in 0..100_000_u64 {
            taken(&mut pace, nth, &format!("d{nth}.example"), None);
            assert!(pace.domains.len() <= KNOWN_MAX);
        }
        taken(&mut pace, 1_000_000, "a.example", None);
        assert_eq!(pace.domains.len(), 1);
    }
}
