//! How many dry runs: of one domain, of one client, of all together. Pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

/// One domain: three at once, then one in ten seconds.
const DOMAIN: Rate = Rate { spacing: Duration::from_secs(10), burst: 3 };
/// One client (of IPv6: its /64): ten at once, then one in six seconds.
const CLIENT: Rate = Rate { spacing: Duration::from_secs(6), burst: 10 };
/// All together: fifty at once, then two a second.
const ALL: Rate = Rate { spacing: Duration::from_millis(500), burst: 50 };
/// Domains and clients that are remembered. Past it everybody waits until some are forgotten, which is seconds.
const KNOWN_MAX: usize = 4096;

#[derive(Clone, Copy)]
struct Rate {
    spacing: Duration,
    burst: u32,
}

/// Keeps count of who is ahead of their rate.
#[derive(Debug, Default)]
pub(super) struct Pace {
    domains: HashMap<String, SystemTime>,
    clients: HashMap<IpAddr, SystemTime>,
    all: Option<SystemTime>,
}

impl Pace {
    /// Takes a turn, or says how long there is none.
    pub(super) fn take(&mut self, now: SystemTime, domain: &str, client: Option<IpAddr>) -> Result<(), Duration> {
        self.domains.retain(|_, ahead| *ahead > now);
        self.clients.retain(|_, ahead| *ahead > now);
        let client = client.map(whole);
        let known = |ahead: Option<&SystemTime>| ahead.copied();
        let all = ALL.next(now, self.all)?;
        let of_domain = DOMAIN.next(now, known(self.domains.get(domain)))?;
        let of_client = CLIENT.next(now, client.and_then(|client| known(self.clients.get(&client))))?;
        if is_full(&self.domains, domain) || client.is_some_and(|client| is_full(&self.clients, &client)) {
            return Err(DOMAIN.spacing);
        }
        self.all = Some(all);
        self.domains.insert(domain.to_owned(), of_domain);
        if let Some(client) = client {
            self.clients.insert(client, of_client);
        }
        Ok(())
    }
}

impl Rate {
    fn next(self, now: SystemTime, ahead: Option<SystemTime>) -> Result<SystemTime, Duration> {
        let next = ahead.unwrap_or(now).max(now) + self.spacing;
        match next.duration_since(now + self.spacing * self.burst) {
            Ok(over) if !over.is_zero() => Err(over),
            _ => Ok(next),
        }
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
        pace.take(UNIX_EPOCH + Duration::from_secs(at), domain, client.map(|it| it.parse().unwrap())).is_ok()
    }

    #[test]
    fn one_domain_is_asked_about_three_times_and_then_every_ten_seconds() {
        let mut pace = Pace::default();
        let first: Vec<bool> = (0..5).map(|_| taken(&mut pace, 0, "a.example", None)).collect();
        assert_eq!(first, [true, true, true, false, false]);
        assert!(taken(&mut pace, 0, "b.example", None), "another domain is another");
        assert!(!taken(&mut pace, 9, "a.example", None));
        assert!(taken(&mut pace, 10, "a.example", None));
    }

    #[test]
    fn one_client_has_a_rate_whatever_it_asks_about_and_so_have_all() {
        let mut pace = Pace::default();
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
        let mut pace = Pace::default();
        for nth in 0..100_000_u64 {
            taken(&mut pace, nth, &format!("d{nth}.example"), None);
            assert!(pace.domains.len() <= KNOWN_MAX);
        }
        taken(&mut pace, 1_000_000, "a.example", None);
        assert_eq!(pace.domains.len(), 1);
    }
}
