//! The account of a load: for every message when it was begun, when `250` came, and when and how often it arrived.
//!
//! The source writes `X-Load-Id: <number>` into each message; the sink reads it back. Both write into one [`Ledger`] of
//! atomics, so counting costs next to nothing and what is compared never passed through the daemon's own counters.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// The header that carries a message's number.
pub const HEADER: &str = "X-Load-Id";
const NEEDLE: &[u8] = b"X-Load-Id: ";

/// One load's messages, numbered from 0 or from what another load leaves free.
pub struct Ledger {
    began: Instant,
    first: u64,
    entries: Vec<Entry>,
    next: AtomicU64,
    arrived_total: AtomicU64,
}

/// Nanoseconds since the ledger began; 0: not yet.
#[derive(Default)]
struct Entry {
    begun: AtomicU64,
    accepted: AtomicU64,
    arrived_first: AtomicU64,
    arrived_last: AtomicU64,
    arrivals: AtomicU32,
}

impl Ledger {
    /// A ledger for at most `messages_max` messages.
    pub fn new(messages_max: u64) -> Self {
        Self::numbered_from(0, messages_max)
    }

    /// A ledger whose first number is `first`: two loads on one sink are told apart by their numbers.
    pub fn numbered_from(first: u64, messages_max: u64) -> Self {
        let entries = (0..messages_max).map(|_| Entry::default()).collect();
        Self { began: Instant::now(), first, entries, next: AtomicU64::new(0), arrived_total: AtomicU64::new(0) }
    }

    /// The number of its first message.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The next free number, `None` when all are used.
    pub fn take_id(&self) -> Option<u64> {
        let nth = self.next.fetch_add(1, Relaxed);
        (nth < self.entries.len() as u64).then(|| self.first + nth)
    }

    /// The number that stands in a message's header.
    pub fn id_in(octets: &[u8]) -> Option<u64> {
        let at = memchr::memmem::find(octets, NEEDLE)? + NEEDLE.len();
        let digits = octets[at..].iter().take(20).take_while(|octet| octet.is_ascii_digit());
        let mut id: Option<u64> = None;
        for digit in digits {
            id = Some(id.unwrap_or(0).checked_mul(10)?.checked_add(u64::from(digit - b'0'))?);
        }
        id
    }

    /// The source began to submit this message (in fixed-rate mode: should have begun, so that a slow peer cannot hide its
    /// delay by slowing the source down).
    pub fn begun(&self, id: u64, at: Instant) {
        self.write(id, |entry| entry.begun.store(self.nanos(at), Relaxed));
    }

    /// `250` came for this message.
    pub fn accepted(&self, id: u64) {
        self.write(id, |entry| entry.accepted.store(self.nanos(Instant::now()), Relaxed));
    }

    /// The sink took this message.
    pub fn arrived(&self, id: u64) {
        self.write(id, |entry| {
            self.arrived_total.fetch_add(1, Relaxed);
            let now = self.nanos(Instant::now());
            let _ = entry.arrived_first.compare_exchange(0, now, Relaxed, Relaxed);
            entry.arrived_last.store(now, Relaxed);
            entry.arrivals.fetch_add(1, Relaxed);
        });
    }

    /// Arrivals so far, copies included.
    pub fn arrivals(&self) -> u64 {
        self.arrived_total.load(Relaxed)
    }

    /// Waits until every accepted message has arrived or nothing has arrived for `quiet`.
    pub fn wait_for_all(&self, quiet: Duration) -> bool {
        let mut last = (self.arrivals(), Instant::now());
        loop {
            let missing = self.missing().len();
            if missing == 0 {
                return true;
            }
            let arrivals = self.arrivals();
            if arrivals != last.0 {
                last = (arrivals, Instant::now());
            } else if last.1.elapsed() > quiet {
                return false;
            }
            std::thread::sleep(Duration::from_millis(if missing < 50 { 1 } else { 10 }));
        }
    }

    /// Messages that got `250`.
    pub fn accepted_ids(&self) -> Vec<u64> {
        self.ids(|entry| entry.accepted.load(Relaxed) != 0)
    }

    /// Messages that got `250` and have not arrived.
    pub fn missing(&self) -> Vec<u64> {
        self.ids(|entry| entry.accepted.load(Relaxed) != 0 && entry.arrivals.load(Relaxed) == 0)
    }

    /// Arrivals beyond the first, all messages together.
    pub fn duplicates(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.arrivals.load(Relaxed).saturating_sub(1))).sum()
    }

    /// Messages that arrived more than once although their first arrival lies in none of these spans.
    pub fn doubled_outside(&self, spans: &[(Instant, Instant)]) -> u64 {
        let spans: Vec<_> = spans.iter().map(|(from, to)| self.nanos(*from)..=self.nanos(*to)).collect();
        let doubled = self.ids(|entry| {
            let first = entry.arrived_first.load(Relaxed);
            entry.arrivals.load(Relaxed) > 1 && !spans.iter().any(|span| span.contains(&first))
        });
        doubled.len() as u64
    }

    /// How long before the next of these instants the first copy of a message arrived that came more than once: the
    /// longest such time. `None` when nothing came twice.
    pub fn oldest_doubled(&self, kills: &[Instant]) -> Option<Duration> {
        let kills: Vec<_> = kills.iter().map(|at| self.nanos(*at)).collect();
        let age = |entry: &Entry| {
            let first = entry.arrived_first.load(Relaxed);
            kills.iter().filter(|kill| **kill >= first).min().map_or(0, |kill| kill - first)
        };
        let doubled = self.entries.iter().filter(|entry| entry.arrivals.load(Relaxed) > 1);
        doubled.map(age).max().map(Duration::from_nanos)
    }

    /// Messages whose latest arrival lies between the two instants.
    pub fn arrived_between(&self, from: Instant, to: Instant) -> u64 {
        let range = self.nanos(from)..=self.nanos(to);
        self.ids(|entry| range.contains(&entry.arrived_last.load(Relaxed))).len() as u64
    }

    /// From the beginning of a submission to its `250`, in microseconds.
    pub fn accept_latency(&self) -> Histogram<u64> {
        self.latency(|entry| entry.accepted.load(Relaxed))
    }

    /// From the beginning of a submission to the first arrival, in microseconds.
    pub fn delivery_latency(&self) -> Histogram<u64> {
        self.latency(|entry| entry.arrived_first.load(Relaxed))
    }

    /// From the first submission to the last arrival.
    pub fn span(&self) -> Duration {
        let first = self.entries.iter().map(|entry| entry.begun.load(Relaxed)).filter(|at| *at != 0).min().unwrap_or(0);
        let last = self.entries.iter().map(|entry| entry.arrived_last.load(Relaxed)).max().unwrap_or(0);
        Duration::from_nanos(last.saturating_sub(first))
    }

    fn latency(&self, until: impl Fn(&Entry) -> u64) -> Histogram<u64> {
        let mut histogram = new_histogram();
        for entry in &self.entries {
            let (from, to) = (entry.begun.load(Relaxed), until(entry));
            if from != 0 && to != 0 {
                histogram.saturating_record(to.saturating_sub(from) / 1_000);
            }
        }
        histogram
    }

    fn ids(&self, which: impl Fn(&Entry) -> bool) -> Vec<u64> {
        let given = usize::try_from(self.next.load(Relaxed)).unwrap_or(usize::MAX);
        (self.first..).zip(self.entries.iter().take(given)).filter(|(_, entry)| which(entry)).map(|(id, _)| id).collect()
    }

    fn write(&self, id: u64, how: impl FnOnce(&Entry)) {
        let nth = id.checked_sub(self.first).and_then(|nth| usize::try_from(nth).ok());
        if let Some(entry) = nth.and_then(|nth| self.entries.get(nth)) {
            how(entry);
        }
    }

    /// Never 0, which means "not yet".
    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX).max(1)
    }
}

/// Microseconds from 1 µs to 10 minutes, three figures.
#[expect(clippy::expect_used, reason = "the bounds are constants")]
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("constant bounds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_tells_lost_from_doubled() {
        let ledger = Ledger::new(3);
        for id in 0..3 {
            assert_eq!(ledger.take_id(), Some(id));
            ledger.begun(id, Instant::now());
        }
        assert_eq!(ledger.take_id(), None);
        ledger.accepted(0);
        ledger.accepted(1);
        ledger.arrived(1);
        ledger.arrived(1);
        ledger.arrived(2); // Arrived although its 250 was lost: neither missing nor a duplicate.
        assert_eq!((ledger.missing(), ledger.duplicates(), ledger.arrivals()), (vec![0], 1, 3));
        let now = Instant::now();
        assert_eq!(ledger.doubled_outside(&[(now - Duration::from_secs(9), now)]), 0);
        assert_eq!(ledger.doubled_outside(&[(now, now + Duration::from_secs(9))]), 1);
        ledger.arrived(99);
        assert_eq!(ledger.duplicates(), 1, "a number that was never given out counts for nobody");
    }

    #[test]
    fn the_number_is_read_from_the_header() {
        assert_eq!(Ledger::id_in(b"Subject: x\r\nX-Load-Id: 417\r\n\r\nbody"), Some(417));
        assert_eq!(Ledger::id_in(b"X-Load-Id: \r\n"), None);
        assert_eq!(Ledger::id_in(b"X-Load-Id: 99999999999999999999999\r\n"), None);
    }
}
