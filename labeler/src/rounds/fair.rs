//! Whose turn it is. Pure: told the time, and who begins and ends.
//!
//! Three lanes: members who stand and are looked at again, attestations that wait to become right, and those that nobody has
//! looked at yet. Each lane has places of its own and may borrow what the others do not reserve, so that no number of
//! attestations in one of them keeps another waiting.
//!
//! Within a lane: a host has only so many looks at a time; those of its accounts that do not stand come at a bounded rate, so
//! that a spammer with a hundred thousand accounts on one server is served at that rate and others in between; a host that fails
//! again and again is left alone for a while. A DID has a rate of its own. Whoever must wait is given a time, one after another:
//! the queue on disk is put in order by that, and here is memory only for hosts and DIDs that are ahead of their time.
//!
//! A host is known by the domain that was registered: names below one cost their owner nothing.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use crate::store::Lane;

/// Accounts of one host that do not stand and may come at once, before its rate holds.
const HOST_BURST: u32 = 100;
/// Looks at one host at a time, standing and other.
const HOST_RUNNING_MAX: [usize; 3] = [48, 8, 8];
/// Failures of a host in a row after which it is left alone: for a second, then twice as long, and so on.
const HOST_FAILURES: u32 = 8;
const HOST_PAUSE_MAX: Duration = Duration::from_secs(600);
/// Of one DID: all of its domains at once, then one in ten seconds.
const DID_SPACING: Duration = Duration::from_secs(10);
const DID_BURST: u32 = 64;
/// Hosts and DIDs that are remembered. Past it new ones share one entry, and its limits.
const KNOWN_MAX: usize = 1 << 16;

/// The answer to who wants to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Begin.
    Now,
    /// The place is taken for the moment: ask again when somebody has ended.
    Soon(SystemTime),
    /// Not before.
    Later(SystemTime),
}

/// Keeps count.
#[derive(Debug)]
pub(crate) struct Fair {
    places: usize,
    reserved: usize,
    spacing: Duration,
    hasher: RandomState,
    hosts: HashMap<u64, Host>,
    /// When each DID has used up what it may.
    dids: HashMap<u64, SystemTime>,
    running: HashMap<u64, Running>,
}

#[derive(Debug)]
struct Running {
    lane: Lane,
    host: Option<u64>,
    began: SystemTime,
}

#[derive(Debug, Default)]
struct Host {
    running: [usize; 3],
    /// How far it is ahead of its rate.
    ahead: Option<SystemTime>,
    /// Until when turns were promised to those who wait.
    promised: Option<SystemTime>,
    failures: u32,
    left_alone: Option<SystemTime>,
    took: Duration,
}

impl Fair {
    /// So many looks at a time, and so many accounts a second of one host that do not stand.
    pub(crate) fn new(places: usize, per_host: NonZeroU32) -> Self {
        let (reserved, spacing) = (places / 6, Duration::from_secs(1) / per_host.get());
        let (hosts, dids, running) = Default::default();
        Self { places, reserved, spacing, hasher: RandomState::new(), hosts, dids, running }
    }

    /// How many of a lane may begin now.
    pub(crate) fn room(&self, lane: Lane) -> usize {
        let count = |lane| self.running.values().filter(|running| running.lane == lane).count();
        let others = Lane::ALL.into_iter().filter(|other| *other != lane);
        let kept: usize = others.map(|other| self.reserved.saturating_sub(count(other))).sum();
        self.places.saturating_sub(self.running.len() + kept)
    }

    /// `id` wants to begin. For those whose host is not known yet, [`Fair::at_host`] follows when it is.
    pub(crate) fn begin(&mut self, now: SystemTime, id: u64, lane: Lane, did: &str, host: Option<&str>) -> Turn {
        let did = self.known_did(did);
        let ahead = self.dids.get(&did).copied().unwrap_or(now).max(now) + DID_SPACING;
        if ahead > now + DID_SPACING * DID_BURST {
            return Turn::Later(ahead - DID_SPACING * DID_BURST);
        }
        let host = host.map(|host| self.known_host(host));
        if let Some(host) = host {
            match self.take(now, lane, host) {
                Turn::Now => {}
                other => return other,
            }
        }
        self.dids.insert(did, ahead);
        self.running.insert(id, Running { lane, host, began: now });
        Turn::Now
    }

    /// The host of `id`, which has begun, is known now. When it must wait it has ended.
    pub(crate) fn at_host(&mut self, now: SystemTime, id: u64, host: &str) -> Turn {
        let host = self.known_host(host);
        let Some(lane) = self.running.get(&id).filter(|running| running.host != Some(host)).map(|running| running.lane) else {
            return Turn::Now;
        };
        match self.take(now, lane, host) {
            Turn::Now => {
                if let Some(before) = self.running.get_mut(&id).and_then(|running| running.host.replace(host)) {
                    self.leave(before, lane);
                }
                Turn::Now
            }
            other => {
                self.end(now, id, None);
                other
            }
        }
    }

    /// `id` has ended. Whether the host did its part; `None` says nothing of it.
    pub(crate) fn end(&mut self, now: SystemTime, id: u64, host_works: Option<bool>) {
        let Some(Running { lane, host: Some(key), began }) = self.running.remove(&id) else { return };
        self.leave(key, lane);
        let Some(host) = self.hosts.get_mut(&key) else { return };
        let took = now.duration_since(began).unwrap_or_default();
        host.took = (host.took * 7 + took) / 8;
        match host_works {
            Some(true) => (host.failures, host.left_alone) = (0, None),
            Some(false) => {
                host.failures = host.failures.saturating_add(1);
                if let Some(over) = host.failures.checked_sub(HOST_FAILURES) {
                    let pause = Duration::from_secs(1).saturating_mul(1 << over.min(16)).min(HOST_PAUSE_MAX);
                    host.left_alone = Some(now + pause);
                }
            }
            None => {}
        }
    }

    /// Forgets who is within their limits. Called now and then.
    pub(crate) fn tidy(&mut self, now: SystemTime) {
        let past = |at: Option<SystemTime>| at.is_none_or(|at| at <= now);
        self.hosts.retain(|_, host| {
            let idle = host.running == [0; 3] && host.failures == 0;
            !(idle && past(host.ahead) && past(host.promised) && past(host.left_alone))
        });
        self.dids.retain(|_, ahead| *ahead > now);
    }

    fn take(&mut self, now: SystemTime, lane: Lane, key: u64) -> Turn {
        let spacing = self.spacing;
        let host = self.hosts.entry(key).or_default();
        let mut promise = |from: SystemTime, spacing: Duration| {
            let at = host.promised.unwrap_or(now).max(from) + spacing;
            host.promised = Some(at);
            at
        };
        if let Some(until) = host.left_alone.filter(|until| *until > now) {
            return Turn::Later(promise(until, spacing));
        }
        if host.running[lane as usize] >= HOST_RUNNING_MAX[lane as usize] {
            let each = host.took / u32::try_from(HOST_RUNNING_MAX[lane as usize]).unwrap_or(1);
            return Turn::Soon(promise(now, each.max(Duration::from_millis(1))));
        }
        if lane != Lane::Standing {
            let ahead = host.ahead.unwrap_or(now).max(now) + spacing;
            if ahead > now + spacing * HOST_BURST {
                return Turn::Later(promise(now, spacing));
            }
            host.ahead = Some(ahead);
        }
        host.running[lane as usize] += 1;
        Turn::Now
    }

    fn leave(&mut self, key: u64, lane: Lane) {
        if let Some(host) = self.hosts.get_mut(&key) {
            host.running[lane as usize] = host.running[lane as usize].saturating_sub(1);
        }
    }

    fn known_host(&self, host: &str) -> u64 {
        let key = self.hasher.hash_one(site(host));
        if self.hosts.len() < KNOWN_MAX || self.hosts.contains_key(&key) { key } else { 0 }
    }

    fn known_did(&self, did: &str) -> u64 {
        let key = self.hasher.hash_one(did);
        if self.dids.len() < KNOWN_MAX || self.dids.contains_key(&key) { key } else { 0 }
    }
}

/// What one has to pay for.
fn site(host: &str) -> &str {
    if host.parse::<std::net::IpAddr>().is_ok() { host } else { vouch::organization::registered(host) }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const START: SystemTime = UNIX_EPOCH;

    const SPACING: Duration = Duration::from_millis(100);

    fn fair(places: usize) -> Fair {
        Fair::new(places, NonZeroU32::new(10).unwrap())
    }

    fn secs(count: u64) -> SystemTime {
        START + Duration::from_secs(count)
    }

    #[test]
    fn no_lane_takes_the_places_that_another_reserves() {
        let mut fair = fair(96);
        let mut id = 0;
        while fair.room(Lane::Fresh) > 0 {
            assert_eq!(fair.begin(START, id, Lane::Fresh, &format!("did:plc:{id}"), None), Turn::Now);
            id += 1;
        }
        assert_eq!(id, 64, "what it has, and what nobody reserves");
        while fair.room(Lane::Waiting) > 0 {
            assert_eq!(fair.begin(START, id, Lane::Waiting, &format!("did:plc:{id}"), Some(&format!("{id}.example"))), Turn::Now);
            id += 1;
        }
        assert_eq!(id, 80);
        assert_eq!(fair.room(Lane::Standing), 16, "however many others there are");
    }

    #[test]
    fn accounts_of_one_host_come_at_its_rate_and_those_of_another_at_once() {
        let mut fair = fair(1 << 20);
        let mut later = Vec::new();
        for id in 0..1000 {
            match fair.begin(START, id, Lane::Waiting, &format!("did:plc:{id}"), Some(&format!("pds{id}.spam.example"))) {
                Turn::Now => fair.end(START, id, Some(true)),
                Turn::Later(at) => later.push(at),
                Turn::Soon(_) => panic!("nobody is at it"),
            }
        }
        assert_eq!(later.len(), 900, "names below one domain are one host");
        assert!(later.is_sorted_by(|a, b| a < b), "one after another");
        assert_eq!(*later.last().unwrap(), START + SPACING * 900);
        assert_eq!(fair.begin(START, 5000, Lane::Waiting, "did:plc:other", Some("pds.other.example")), Turn::Now);
        assert_eq!(
            fair.begin(START, 5001, Lane::Standing, "did:plc:old", Some("pds.spam.example")),
            Turn::Now,
            "who stands does not wait"
        );
        // Those who come when they were told to are let in.
        fair.end(START, 5000, Some(true));
        for (id, at) in later.into_iter().enumerate() {
            assert_eq!(fair.begin(at, 6000, Lane::Waiting, &format!("did:plc:{id}x"), Some("spam.example")), Turn::Now, "{id}");
            fair.end(at, 6000, Some(true));
        }
    }

    #[test]
    fn a_host_that_fails_is_left_alone_for_longer_and_longer_and_taken_back_at_once() {
        let mut fair = fair(96);
        let mut at = START;
        let mut pauses = Vec::new();
        for id in 0..30 {
            match fair.begin(at, id, Lane::Standing, &format!("did:plc:{id}"), Some("pds.example")) {
                Turn::Now => fair.end(at, id, Some(false)),
                Turn::Later(until) => {
                    pauses.push(until.duration_since(at).unwrap());
                    at = until;
                }
                Turn::Soon(_) => panic!("nobody is at it"),
            }
        }
        assert!(pauses.len() > 5 && pauses.is_sorted(), "{pauses:?}");
        assert!(pauses[0] < Duration::from_secs(2) && pauses.iter().all(|pause| *pause <= HOST_PAUSE_MAX + SPACING));
        assert_eq!(fair.begin(secs(100_000), 100, Lane::Standing, "did:plc:x", Some("pds.example")), Turn::Now);
        fair.end(secs(100_000), 100, Some(true));
        assert_eq!(fair.begin(secs(100_000), 101, Lane::Standing, "did:plc:y", Some("pds.example")), Turn::Now);
    }

    #[test]
    fn a_slow_host_has_only_so_many_places() {
        let mut fair = fair(96);
        let turns: Vec<Turn> =
            (0..10).map(|id| fair.begin(START, id, Lane::Waiting, &format!("did:plc:{id}"), Some("slow.example"))).collect();
        assert_eq!(turns.iter().filter(|turn| **turn == Turn::Now).count(), 8);
        assert!(matches!(turns[9], Turn::Soon(_)));
        fair.end(secs(10), 3, Some(true));
        assert_eq!(fair.begin(secs(10), 11, Lane::Waiting, "did:plc:z", Some("slow.example")), Turn::Now);
    }

    #[test]
    fn a_did_that_is_pointed_at_without_end_has_a_rate() {
        let mut fair = fair(96);
        let mut begun = 0;
        for id in 0..1000 {
            match fair.begin(START, id, Lane::Standing, "did:plc:one", None) {
                Turn::Now => {
                    begun += 1;
                    fair.end(START, id, None);
                }
                Turn::Later(at) => assert!(at > START),
                Turn::Soon(_) => panic!("nobody is at it"),
            }
        }
        assert_eq!(begun, DID_BURST);
    }

    #[test]
    fn a_host_that_becomes_known_on_the_way_counts_from_there() {
        let mut fair = fair(96);
        for id in 0..8 {
            assert_eq!(fair.begin(START, id, Lane::Fresh, &format!("did:plc:{id}"), None), Turn::Now);
            assert_eq!(fair.at_host(START, id, "pds.example"), Turn::Now);
        }
        assert_eq!(fair.begin(START, 8, Lane::Fresh, "did:plc:8", None), Turn::Now);
        assert!(matches!(fair.at_host(START, 8, "pds.example"), Turn::Soon(_)));
        assert_eq!(fair.running.len(), 8, "who must wait has ended");
        (0..8).for_each(|id| fair.end(START, id, Some(true)));
        fair.tidy(secs(1000));
        assert_eq!((fair.hosts.len(), fair.dids.len(), fair.running.len()), (0, 0, 0), "nothing is kept of who is within limits");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut fair = fair(96);
        for id in 0..u64::try_from(KNOWN_MAX).unwrap() + 1000 {
            fair.begin(START, id, Lane::Waiting, &format!("did:plc:{id}"), Some(&format!("h{id}.example{id}.test")));
            fair.end(START, id, Some(true));
        }
        assert!(fair.hosts.len() <= KNOWN_MAX + 1 && fair.dids.len() <= KNOWN_MAX + 1);
    }

    #[test]
    fn a_site_is_what_one_has_to_pay_for() {
        for (host, expected) in [
            ("pds.example.com", "example.com"),
            ("a.b.c.example.com", "example.com"),
            ("example.com", "example.com"),
            ("pds.example.co.uk", "example.co.uk"),
            ("example.co.uk", "example.co.uk"),
            ("pds.example.info", "example.info"),
            ("a.tunnel.github.io", "github.io"),
            ("localhost", "localhost"),
            ("127.0.0.1", "127.0.0.1"),
            ("", ""),
        ] {
            assert_eq!(site(host), expected, "{host}");
        }
    }
}
