//! The account of a load: for every message when it was begun, when `250` came, and when and how often it arrived.
//!
//! The source writes `X-Load-Id: <number>` into each message; the sink reads it back. Both write into one [`Ledger`] of
//! atomics, so counting costs next to nothing and what is compared never passed through the daemon's own counters.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// The header that carries a message's number.
pub const HEADER: &str = "X-Load-Id";
const NEEDLE: &[u8] = b"X-Load-Id: ";
/// What stands before the queue id in a trace field.
const TRACE_ID: &[u8] = b" id ";
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// One load's messages, numbered from 0 or from what another load leaves free.
pub struct Ledger {
    began: Instant,
    first: u64,
    entries: Vec<Entry>,
    next: AtomicU64,
    arrived_total: AtomicU64,
    marked_bodies: bool,
    damaged: AtomicU64,
}

/// Nanoseconds since the ledger began; 0: not yet.
#[derive(Default)]
struct Entry {
    begun: AtomicU64,
    accepted: AtomicU64,
    arrived_first: AtomicU64,
    arrived_last: AtomicU64,
    arrivals: AtomicU32,
    /// The daemon's name for it, as its trace field says; 0: not known.
    queue_id: AtomicU64,
}

impl Ledger {
    /// A ledger for at most `messages_max` messages.
    pub fn new(messages_max: u64) -> Self {
        Self::numbered_from(0, messages_max)
    }

    /// A ledger whose first number is `first`: two loads on one sink are told apart by their numbers.
    pub fn numbered_from(first: u64, messages_max: u64) -> Self {
        let entries = (0..messages_max).map(|_| Entry::default()).collect();
        Self {
            began: Instant::now(),
            first,
            entries,
            next: AtomicU64::new(0),
            arrived_total: AtomicU64::new(0),
            marked_bodies: false,
            damaged: AtomicU64::new(0),
        }
    }

    /// The number of its first message.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The same, for messages of many sizes whose every line names its message and its place, so that what arrives
    /// can be told from anything else.
    pub fn with_marked_bodies(messages_max: u64) -> Self {
        Self { marked_bodies: true, ..Self::new(messages_max) }
    }

    /// The body for this message, at most about `bytes_max` long; `None` where bodies are all the same.
    pub fn marked_body(&self, id: u64, bytes_max: usize) -> Option<String> {
        // From a twohundredth of the longest to the longest, short ones more often.
        let share = [200, 60, 20, 8, 8, 3, 1][(id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % 7];
        self.marked_bodies.then(|| marked_body(id, bytes_max / share / LINE_BYTES))
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

    /// The daemon's queue id, from the trace field that it put in front: 13 digits in Crockford's base 32.
    pub fn queue_id_in(octets: &[u8]) -> Option<u64> {
        let at = memchr::memmem::find(octets, TRACE_ID)? + TRACE_ID.len();
        let digits = octets.get(at..at + 13)?;
        let digit = |octet: &u8| ALPHABET.iter().position(|digit| digit == octet);
        digits.iter().try_fold(0_u64, |id, octet| Some(id << 5 | digit(octet)? as u64))
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

    /// The sink took this message, as it is; the daemon's name for it is read from its trace field.
    pub fn handle_arrival(&self, octets: &[u8]) {
        let Some(id) = Self::id_in(octets) else { return };
        if self.marked_bodies && !is_marked_body(id, octets) {
            self.damaged.fetch_add(1, Relaxed);
        }
        self.arrived(id, Self::queue_id_in(octets));
    }

    /// Arrivals whose body was not what was submitted; always 0 where bodies are not marked.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Relaxed)
    }

    /// The sink took this message, which the daemon calls `queue_id`.
    pub fn arrived(&self, id: u64, queue_id: Option<u64>) {
        self.write(id, |entry| {
            self.arrived_total.fetch_add(1, Relaxed);
            entry.queue_id.store(queue_id.unwrap_or(0), Relaxed);
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

    /// Messages that arrived more than once, with the number of copies beyond the first.
    pub fn doubled(&self) -> Vec<(u64, u32)> {
        let copies = |id: u64| self.entry(id).map(|entry| entry.arrivals.load(Relaxed) - 1);
        let doubled = self.ids(|entry| entry.arrivals.load(Relaxed) > 1);
        doubled.into_iter().filter_map(|id| Some((id, copies(id)?))).collect()
    }

    /// Messages with one of these queue ids whose latest arrival is not before `since`, with that arrival.
    pub fn arrived_of(&self, queue_ids: &HashSet<u64>, since: Instant) -> Vec<(u64, Instant)> {
        let since = self.nanos(since);
        let at = |id: u64| self.entry(id).map(|entry| entry.arrived_last.load(Relaxed));
        let found = self.ids(|entry| {
            let last = entry.arrived_last.load(Relaxed);
            last != 0 && last >= since && queue_ids.contains(&entry.queue_id.load(Relaxed))
        });
        found.into_iter().filter_map(|id| Some((id, self.began + Duration::from_nanos(at(id)?)))).collect()
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

    fn entry(&self, id: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(id.checked_sub(self.first)?).ok()?)
    }

    fn write(&self, id: u64, how: impl FnOnce(&Entry)) {
        if let Some(entry) = self.entry(id) {
            how(entry);
        }
    }

    /// Never 0, which means "not yet".
    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX).max(1)
    }
}

/// Octets of each line of a marked body.
const LINE_BYTES: usize = 64;

/// Lines of one length, each with the message's number, its own, and how many there are.
fn marked_body(id: u64, lines: usize) -> String {
    let lines = lines.max(1);
    (1..=lines).map(|line| format!("{id:012} {line:08} of {lines:08} {:.<28}\r\n", "")).collect()
}

fn is_marked_body(id: u64, octets: &[u8]) -> bool {
    let Some(at) = memchr::memmem::find(octets, b"\r\n\r\n") else { return false };
    let body = &octets[at + 4..];
    body.len().is_multiple_of(LINE_BYTES) && body == marked_body(id, body.len() / LINE_BYTES).as_bytes()
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
        ledger.arrived(1, None);
        ledger.arrived(1, None);
        ledger.arrived(2, None); // Arrived although its 250 was lost: neither missing nor a duplicate.
        assert_eq!((ledger.missing(), ledger.duplicates(), ledger.arrivals()), (vec![0], 1, 3));
        assert_eq!(ledger.doubled(), [(1, 1)]);
        ledger.arrived(99, None);
        assert_eq!(ledger.duplicates(), 1, "a number that was never given out counts for nobody");
    }

    #[test]
    fn the_number_is_read_from_the_header() {
        assert_eq!(Ledger::id_in(b"Subject: x\r\nX-Load-Id: 417\r\n\r\nbody"), Some(417));
        assert_eq!(Ledger::id_in(b"X-Load-Id: \r\n"), None);
        assert_eq!(Ledger::id_in(b"X-Load-Id: 99999999999999999999999\r\n"), None);
    }

    #[test]
    fn the_queue_id_is_read_from_the_trace_field() {
        let trace = b"Received: from [127.0.0.1]\r\n\tby relay.test with ESMTP id 0000000000z10\r\n\tfor <a@b.test>;";
        assert_eq!(Ledger::queue_id_in(trace), Some(31 << 10 | 1 << 5));
        assert_eq!(Ledger::queue_id_in(b"Received: by relay.test with ESMTP id short"), None);
    }

    #[test]
    fn arrivals_are_found_by_queue_id_and_time() {
        let ledger = Ledger::new(2);
        (0..2).for_each(|id| assert_eq!(ledger.take_id(), Some(id)));
        let before = Instant::now();
        ledger.arrived(0, Some(50));
        ledger.arrived(1, Some(51));
        let ids = |found: Vec<(u64, Instant)>| found.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(ledger.arrived_of(&HashSet::from([50, 99]), before)), [0]);
        assert_eq!(ids(ledger.arrived_of(&HashSet::from([50]), Instant::now() + Duration::from_secs(1))), Vec::<u64>::new());
    }

    #[test]
    fn a_body_that_is_not_its_messages_own_whole_body_is_damaged() {
        let ledger = Ledger::with_marked_bodies(2);
        (0..2).for_each(|id| assert_eq!(ledger.take_id(), Some(id)));
        let body = (0..).find_map(|id| ledger.marked_body(id, 4096).filter(|body| body.len() > 200).map(|body| (id, body)));
        let (id, body) = body.unwrap();
        let message = |body: &str| format!("X-Load-Id: {id}\r\n\r\n{body}");
        let mut damaged = 0;
        let mut check = |text: &str, good: bool| {
            ledger.handle_arrival(text.as_bytes());
            damaged += u64::from(!good);
            assert_eq!(ledger.damaged(), damaged, "{text}");
        };
        check(&message(&body), true);
        check(&message(&body[..64]), false);
        check(&message(&body.replacen('.', "\0", 1)), false);
        check(&message(&marked_body(id + 1, 4)), false);
        check(&message(""), false);
    }
}
