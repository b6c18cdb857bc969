//! The last dialogue of each delivery that did not end in 250: what was said on both sides, for `why` and the console.
//!
//! They are kept in memory, by the scheduler's thread, and are gone with the process: what is durable about an attempt is its event.
//! An attempt that delivers to everybody costs nothing here; it is the common one, and nobody asks about it. No message's content
//! and no secret is in a dialogue (`smtp::client` leaves them out); recipients are, as they are in the queue.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use scheduler::QueueId;

/// Octets of all of them, with what each costs beside its text. Past it the oldest go.
pub const BYTES_MAX: usize = 8 << 20;

/// What one costs beside its text: two entries of maps, and the rest of it.
const OVERHEAD_BYTES: usize = 320;

/// Those of one message that are told.
pub const TOLD_MAX: usize = 50;

/// What was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialogue {
    /// The host's name.
    pub host: Arc<str>,
    /// Where it was reached.
    pub address: IpAddr,
    /// The version of TLS, if there was any.
    pub tls: Option<&'static str>,
    /// Lines, each behind `C: ` for us, `S: ` for the host, `* ` for what neither said; at most some 2 KiB.
    pub text: Arc<str>,
}

/// One that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The recipient domain.
    pub domain: Arc<str>,
    /// When the attempt ended.
    pub at: SystemTime,
    /// The source it was made from.
    pub source: Arc<str>,
    /// What was said in it.
    pub dialogue: Dialogue,
}

/// All that are kept.
#[derive(Default)]
pub struct Dialogues {
    /// By age.
    kept: BTreeMap<u64, (QueueId, Kept)>,
    /// Of a message the number of each; few domains each.
    of: HashMap<QueueId, Vec<u64>>,
    next: u64,
    bytes: usize,
}

impl Dialogues {
    /// Keeps one in the place of the delivery's former one.
    pub fn keep(&mut self, id: QueueId, kept: Kept) {
        let former = self.of.get(&id).into_iter().flatten().copied();
        let is_former = |number: &u64| self.kept.get(number).is_some_and(|(_, other)| other.domain == kept.domain);
        if let Some(former) = former.into_iter().find(is_former) {
            self.forget(former);
        }
        self.bytes += bytes_of(&kept);
        self.kept.insert(self.next, (id, kept));
        self.of.entry(id).or_default().push(self.next);
        self.next += 1;
        while self.bytes > BYTES_MAX
            && let Some((oldest, _)) = self.kept.first_key_value()
        {
            self.forget(*oldest);
        }
    }

    /// Those of a message, the newest last.
    pub fn of(&self, id: QueueId) -> Vec<Kept> {
        let numbers = self.of.get(&id).map_or(&[][..], Vec::as_slice);
        let newest = &numbers[numbers.len().saturating_sub(TOLD_MAX)..];
        newest.iter().filter_map(|number| Some(self.kept.get(number)?.1.clone())).collect()
    }

    fn forget(&mut self, number: u64) {
        let Some((id, kept)) = self.kept.remove(&number) else { return };
        self.bytes -= bytes_of(&kept);
        if let Some(numbers) = self.of.get_mut(&id) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.of.remove(&id);
            }
        }
    }
}

fn bytes_of(kept: &Kept) -> usize {
    kept.dialogue.text.len() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn kept(domain: &str, text: &str) -> Kept {
        let dialogue = Dialogue { host: "mx".into(), address: [192, 0, 2, 1].into(), tls: None, text: text.into() };
        Kept { domain: domain.into(), at: UNIX_EPOCH, source: "ip-a".into(), dialogue }
    }

    fn id(number: u32) -> QueueId {
        QueueId::new(UNIX_EPOCH, number)
    }

    #[test]
    fn the_last_one_of_each_delivery_is_kept() {
        let mut dialogues = Dialogues::default();
        for (domain, text) in [("a.example", "one"), ("b.example", "two"), ("a.example", "three")] {
            dialogues.keep(id(1), kept(domain, text));
        }
        assert_eq!(dialogues.of(id(1)), [kept("b.example", "two"), kept("a.example", "three")]);
        assert!(dialogues.of(id(2)).is_empty());
    }

    #[test]
    fn past_the_bound_the_oldest_go_and_nothing_is_left_of_them() {
        let mut dialogues = Dialogues::default();
        let text = "x".repeat(2000);
        let room = BYTES_MAX / (text.len() + OVERHEAD_BYTES);
        for number in 0..2 * room as u32 {
            dialogues.keep(id(number), kept("a.example", &text));
            assert!(dialogues.bytes <= BYTES_MAX);
        }
        assert_eq!((dialogues.kept.len(), dialogues.of.len()), (room, room));
        assert!(dialogues.of(id(room as u32 - 1)).is_empty() && !dialogues.of(id(room as u32)).is_empty());
    }
}
