//! How often somebody may try to log in: by address, and all together.
//!
//! A token of 256 bits is not found by trying; this keeps the log readable and the processor free. Tokens in `Authorization` and the
//! operator's socket are not slowed by it, so nobody is locked out of the machine by a stranger who tries.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

/// Attempts are counted in spans of this length.
pub(super) const SPAN: Duration = Duration::from_secs(15 * 60);

/// Failures of one address in a span.
pub(super) const OF_ADDRESS_MAX: u32 = 10;

/// Failures of all together in a span.
pub(super) const OF_ALL_MAX: u32 = 300;

/// Failures in one span.
#[derive(Debug)]
pub(super) struct Attempts {
    began: SystemTime,
    all: u32,
    /// No more than [`OF_ALL_MAX`] entries, since each failure makes at most one.
    of: HashMap<IpAddr, u32>,
}

impl Default for Attempts {
    fn default() -> Self {
        Attempts { began: SystemTime::UNIX_EPOCH, all: 0, of: HashMap::new() }
    }
}

impl Attempts {
    /// How long this address must wait before it may try; none: it may.
    pub(super) fn wait(&mut self, now: SystemTime, address: IpAddr) -> Option<Duration> {
        let spent = now.duration_since(self.began).unwrap_or(SPAN);
        if spent >= SPAN {
            *self = Attempts { began: now, ..Attempts::default() };
            return None;
        }
        let of = self.of.get(&network(address)).copied().unwrap_or(0);
        (of >= OF_ADDRESS_MAX || self.all >= OF_ALL_MAX).then(|| SPAN.saturating_sub(spent))
    }

    /// It has failed.
    pub(super) fn handle_failure(&mut self, address: IpAddr) {
        self.all += 1;
        *self.of.entry(network(address)).or_default() += 1;
    }
}

/// One customer has a /64 of IPv6 (RFC 6177), so that is what counts.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_all_together_wait_for_the_next_span_when_they_have_failed_often() {
        let at = |secs: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + secs);
        let address = |nth: u32| IpAddr::V4((0x0a00_0000 + nth).into());
        let mut attempts = Attempts::default();
        for nth in 0..OF_ADDRESS_MAX {
            assert_eq!(attempts.wait(at(0), address(1)), None, "{nth}");
            attempts.handle_failure(address(1));
        }
        assert_eq!(attempts.wait(at(60), address(1)), Some(SPAN - Duration::from_secs(60)));
        assert_eq!(attempts.wait(at(60), address(2)), None);
        (OF_ADDRESS_MAX..OF_ALL_MAX).for_each(|nth| attempts.handle_failure(address(nth)));
        assert!(attempts.wait(at(60), address(9999)).is_some());
        assert_eq!(attempts.wait(at(SPAN.as_secs()), address(1)), None);
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        (0..OF_ADDRESS_MAX).for_each(|_| attempts.handle_failure(v6("2001:db8::1")));
        assert!(attempts.wait(at(SPAN.as_secs()), v6("2001:db8::ffff")).is_some());
    }
}
