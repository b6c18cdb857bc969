//! How the DNS does: what became of questions in the last minutes, for people.
//!
//! Counted without a lock, minute by minute in a ring. Two threads that enter a minute at once may lose a count of it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::DnsError;

/// Minutes that are told, the one that runs among them.
const MINUTES: u64 = 15;

/// One more than are told, so that none is told while it is begun anew.
const SLOTS: usize = MINUTES as usize + 1;

/// What became of questions in the last minutes. What was answered from the cache is not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Over so long.
    pub over: Duration,
    /// There were records.
    pub answered: u64,
    /// There are no such records, or there is no such name.
    pub absent: u64,
    /// Every name server failed, the first by an answer such as SERVFAIL.
    pub failed: u64,
    /// Every name server failed, and from the first there was no answer in time.
    pub silent: u64,
    /// Signatures did not hold.
    pub bogus: u64,
    /// The last that went wrong in that time, as [`DnsError`] says it.
    pub trouble: Option<String>,
}

/// Counts.
pub(super) struct Pulse {
    began: Instant,
    minutes: [Minute; SLOTS],
    trouble: Mutex<Option<(u64, String)>>,
}

#[derive(Default)]
struct Minute {
    /// Which it is of, from 1; 0: of none yet.
    number: AtomicU64,
    counts: [AtomicU64; 5],
}

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse { began: Instant::now(), minutes: Default::default(), trouble: Mutex::default() }
    }
}

impl Pulse {
    /// A question has ended.
    pub(super) fn note<T>(&self, found: &Result<T, DnsError>) {
        let number = self.minute();
        let minute = &self.minutes[(number % SLOTS as u64) as usize];
        if minute.number.swap(number, Relaxed) != number {
            minute.counts.iter().for_each(|count| count.store(0, Relaxed));
        }
        let which = match found {
            Ok(_) => 0,
            Err(DnsError::NoSuchName | DnsError::NoRecords) => 1,
            Err(DnsError::Temporary(why)) if why.starts_with(super::ANSWERED) => 2,
            Err(DnsError::Temporary(_)) => 3,
            Err(DnsError::Bogus(_)) => 4,
        };
        minute.counts[which].fetch_add(1, Relaxed);
        if let Err(error @ (DnsError::Temporary(_) | DnsError::Bogus(_))) = found {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, error.to_string()));
        }
    }

    /// What the last minutes came to.
    pub(super) fn health(&self) -> Health {
        let now = self.minute();
        let told = |number: u64| number > 0 && number <= now && now - number < MINUTES;
        let mut sums = [0; 5];
        for minute in self.minutes.iter().filter(|minute| told(minute.number.load(Relaxed))) {
            sums.iter_mut().zip(&minute.counts).for_each(|(sum, count)| *sum += count.load(Relaxed));
        }
        let [answered, absent, failed, silent, bogus] = sums;
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let trouble = trouble.filter(|(number, _)| told(*number)).map(|(_, says)| says);
        Health { over: Duration::from_secs(60 * MINUTES), answered, absent, failed, silent, bogus, trouble }
    }

    fn minute(&self) -> u64 {
        Instant::now().saturating_duration_since(self.began).as_secs() / 60 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_became_of_questions_is_told_for_some_minutes_and_forgotten() {
        let pulse = Pulse::default();
        pulse.note(&Ok(()));
        tokio::time::advance(Duration::from_secs(14 * 60)).await;
        pulse.note::<()>(&Err(DnsError::NoSuchName));
        pulse.note::<()>(&Err(DnsError::Temporary(format!("{}SERVFAIL", super::super::ANSWERED))));
        pulse.note::<()>(&Err(DnsError::Temporary("timed out".to_owned())));
        let seen = pulse.health();
        assert_eq!((seen.answered, seen.absent, seen.failed, seen.silent, seen.bogus), (1, 1, 1, 1, 0));
        assert_eq!(seen.trouble.as_deref(), Some("no answer now: timed out"));
        tokio::time::advance(Duration::from_secs(2 * 60)).await;
        pulse.note::<()>(&Err(DnsError::Bogus("x".to_owned())));
        let seen = pulse.health();
        assert_eq!((seen.answered, seen.absent, seen.bogus), (0, 1, 1));
        tokio::time::advance(Duration::from_secs(20 * 60)).await;
        assert_eq!(pulse.health(), Health { over: Duration::from_secs(900), ..Health::default() });
    }
}
