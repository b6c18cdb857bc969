//! What became of mail lately, counted by hour: by member and by provider. For those who look; nothing is decided by it.
//!
//! Counted by the reader that renders events, so that mail does not wait for it. After a start the events of the last day are
//! counted again, as far as they are kept and are not too many.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Event, What};
use crate::egress::provider::Providers;

/// Hours kept, the one that runs among them.
pub const HOURS: usize = 25;

/// Members, and providers, that one hour counts by themselves. What is of others counts for all alone.
const NAMES_MAX: usize = 10_000;

/// Recipients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of messages that got their 250.
    pub accepted: u64,
    /// Taken over by a host.
    pub delivered: u64,
    /// Left open by an attempt, each time.
    pub deferred: u64,
    /// Refused for good, or given up when their time was over.
    pub failed: u64,
}

impl Counts {
    fn add(&mut self, what: What, recipients: u16) {
        let count = match what {
            What::Accepted => &mut self.accepted,
            What::Delivered => &mut self.delivered,
            What::Deferred => &mut self.deferred,
            What::Failed | What::Expired => &mut self.failed,
            _ => return,
        };
        *count += u64::from(recipients);
    }

    /// Both together.
    pub fn and(self, other: Counts) -> Counts {
        Counts {
            accepted: self.accepted + other.accepted,
            delivered: self.delivered + other.delivered,
            deferred: self.deferred + other.deferred,
            failed: self.failed + other.failed,
        }
    }
}

/// What one hour came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hour {
    /// Hours since 1970.
    pub nth: u64,
    /// Everything.
    pub all: Counts,
    /// By member's number; 0 is mail of our own.
    pub members: HashMap<u32, Counts>,
    /// By who operates the host that answered. Who accepted says nothing of it, and what no host answered is with none.
    pub providers: HashMap<Arc<str>, Counts>,
}

impl Hour {
    /// When it began.
    pub fn began(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.nth * 3600)
    }
}

/// The hours. Cheap to clone; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Mutex<VecDeque<Hour>>>);

impl Tally {
    /// One more.
    pub fn add(&self, event: &Event, providers: &Providers) {
        if event.what.is_action() {
            return;
        }
        let nth = nth(event.at);
        let mut hours = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = hours.back().map_or(nth, |hour| hour.nth.max(nth));
        while hours.front().is_some_and(|hour| hour.nth + HOURS as u64 <= newest) {
            hours.pop_front();
        }
        if nth + HOURS as u64 <= newest {
            return;
        }
        let at = hours.partition_point(|hour| hour.nth < nth);
        if hours.get(at).is_none_or(|hour| hour.nth != nth) {
            hours.insert(at, Hour { nth, ..Hour::default() });
        }
        let Some(hour) = hours.get_mut(at) else { return };
        hour.all.add(event.what, event.recipients);
        if hour.members.len() < NAMES_MAX || hour.members.contains_key(&event.member) {
            hour.members.entry(event.member).or_default().add(event.what, event.recipients);
        }
        if !event.host.is_empty() && event.what != What::Accepted {
            hour.providers.entry(providers.of(&event.host)).or_default().add(event.what, event.recipients);
        }
    }

    /// Those of the last day, the oldest first, without those that nothing happened in.
    pub fn hours(&self, now: SystemTime) -> Vec<Hour> {
        let hours = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hours.iter().filter(|hour| hour.nth + HOURS as u64 > nth(now)).cloned().collect()
    }
}

fn nth(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs() / 3600)
}

#[cfg(test)]
mod tests {
    use scheduler::QueueId;

    use super::*;

    fn event(hour: u64, what: What, member: u32, host: &str, recipients: u16) -> Event {
        Event {
            at: UNIX_EPOCH + Duration::from_secs(hour * 3600 + 59),
            what,
            id: QueueId(1),
            member,
            recipients,
            attempts: 1,
            domain: String::new(),
            recipient: String::new(),
            source: String::new(),
            host: host.to_owned(),
            reply: String::new(),
        }
    }

    #[test]
    fn recipients_are_counted_by_hour_member_and_provider_for_a_day() {
        let mut providers = Providers::default();
        providers.add("google.com", "google");
        let tally = Tally::default();
        let add =
            |hour, what, member, host: &str, recipients| tally.add(&event(hour, what, member, host, recipients), &providers);
        add(1000, What::Accepted, 7, "", 3);
        add(1001, What::Deferred, 7, "mx.google.com", 2);
        add(1001, What::Delivered, 7, "mx.google.com", 1);
        add(1001, What::Expired, 8, "", 1);
        add(1001, What::ActionStarted, 0, "mx.google.com", 1);
        add(1000, What::Failed, 7, "mx.other.example", 1);
        let hours = tally.hours(UNIX_EPOCH + Duration::from_secs(1001 * 3600));
        let [one, two] = &hours[..] else { panic!("{hours:?}") };
        assert_eq!(one.all, Counts { accepted: 3, failed: 1, ..Counts::default() });
        assert_eq!(two.members[&7], Counts { delivered: 1, deferred: 2, ..Counts::default() });
        assert_eq!(two.providers["google"], Counts { delivered: 1, deferred: 2, ..Counts::default() });
        assert_eq!(one.providers["other"].failed, 1);
        assert_eq!(two.members[&8].failed, 1);
        assert_eq!(two.began(), UNIX_EPOCH + Duration::from_secs(1001 * 3600));
        add(1000 + HOURS as u64, What::Delivered, 7, "mx.google.com", 1);
        add(1000, What::Delivered, 7, "mx.google.com", 1);
        let later = tally.hours(UNIX_EPOCH + Duration::from_secs((1000 + HOURS as u64) * 3600));
        assert_eq!(later.iter().map(|hour| hour.nth).collect::<Vec<_>>(), [1001, 1000 + HOURS as u64]);
        assert!(tally.hours(UNIX_EPOCH + Duration::from_secs(5000 * 3600)).is_empty());
    }
}
