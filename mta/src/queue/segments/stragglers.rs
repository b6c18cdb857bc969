//! Stragglers: the few bodies that keep a segment from being used again are copied forward.
//!
//! Mail leaves in no particular order. A few messages that wait for days would keep many segments allocated, each for
//! the sake of some kilobytes. So while less than half of what is allocated is alive, each commit reads on through the
//! emptiest segment, from its front, and writes what is alive there together with its own bodies; the rows change
//! their places in the transaction that counts the segments. When the last one has moved, the segment is empty.
//!
//! A commit does a bounded part of it, in proportion to what it writes anyway: for an even mix of ages, taking the
//! emptiest segment at half means that about one octet is copied for four that are written new.
//!
//! A body that fails its check is not moved: it stays where whoever fetches it finds the damage.

use bytes::Bytes;
use scheduler::QueueId;

use super::{Body, HEADER, PAGE, SPARE, Segments, Written, header, read, read_header, record_bytes};
use crate::queue::keys::message_key;
use crate::queue::rows::{MessageRow, Place, SegmentRow};
use crate::queue::tables::{Environment, Tables};
use crate::queue::types::QueueError;

/// Octets of a segment that a commit reads at least, if there is need, and at most. In between, twice what it writes
/// itself: then the copying keeps pace.
const READ_BYTES: (u64, u64) = (256 << 10, 4 << 20);

/// Records that a commit looks at. Bodies are rarely so small that this is reached.
const RECORDS_MAX: usize = 2048;

/// A body on its way to another segment.
struct Straggler {
    body: Body,
    from: Place,
}

/// How far a segment has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walk {
    pub(super) segment: u32,
    at: u64,
}

/// A commit's part of the copying.
#[derive(Default)]
pub(crate) struct Stragglers {
    found: Vec<Straggler>,
    /// Where to go on when they have moved.
    walk: Option<Walk>,
}

impl Stragglers {
    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// To be written behind everything else that a batch writes.
    pub(crate) fn bodies(&self) -> impl Iterator<Item = Body> {
        self.found.iter().map(|straggler| straggler.body.clone())
    }

    /// What moves where: (message, from, to).
    pub(crate) fn moves(&self, written: &Written) -> impl Iterator<Item = (QueueId, Place, Place)> {
        let others = written.places.len().saturating_sub(self.found.len());
        self.found.iter().zip(&written.places[others..]).map(|(straggler, to)| (straggler.body.id, straggler.from, *to))
    }

    /// Octets of bodies.
    pub(crate) fn bytes(&self) -> usize {
        self.found.iter().map(|straggler| straggler.body.octets.len()).sum()
    }
}

impl Segments {
    /// What should move with a commit that writes `new_bytes` of its own. Nothing is changed before
    /// [`Segments::moved`]. What cannot be read now is not moved now.
    pub(crate) fn stragglers(&self, env: &Environment, tables: &Tables, new_bytes: u64) -> Stragglers {
        if !self.is_wasteful() {
            return Stragglers::default();
        }
        let walk = self.walk.filter(|walk| self.is_worth_emptying(walk.segment));
        let Some(walk) = walk.or_else(|| self.emptiest()) else { return Stragglers::default() };
        self.read_on(walk, env, tables, new_bytes).unwrap_or_else(|error| {
            tracing::error!(%error, segment = walk.segment, "a segment that is to be emptied cannot be read");
            Stragglers::default()
        })
    }

    fn read_on(&self, walk: Walk, env: &Environment, tables: &Tables, new_bytes: u64) -> Result<Stragglers, QueueError> {
        let Walk { segment, at: begin } = walk;
        let mut stragglers = Stragglers::default();
        let (Some(file), Some(found)) = (self.files.load().get(&segment).cloned(), self.segments.get(&segment)) else {
            return Ok(stragglers);
        };
        let row = found.row;
        // Nobody else writes, so what is alive now is alive when the transaction begins.
        let txn = env.read_txn()?;
        let is_alive = |id: QueueId, place: Place| -> Result<bool, QueueError> {
            let row = tables.messages.get(&txn, &message_key(id))?.map(MessageRow::decode);
            Ok(matches!(row, Some(Ok(row)) if row.place == place))
        };
        let end = row.append.min(begin + (2 * new_bytes).clamp(READ_BYTES.0, READ_BYTES.1));
        let mut octets = vec![0; (end - begin) as usize];
        file.read_exact_at(&mut octets, begin)?;
        let octets = Bytes::from(octets);
        let mut at = begin;
        let mut records = 0;
        while at < end && records < RECORDS_MAX {
            let rest = octets.slice((at - begin) as usize..);
            if (rest.len() as u64) < HEADER && end < row.append {
                break;
            }
            let inside = |place: Place| place.length < row.append && at + record_bytes(place.length) <= row.append;
            let Some((id, place)) = read_header(&rest, segment, at).filter(|(_, place)| inside(*place)) else {
                // What a batch leaves of its last page; or damage, behind which the next batch begins on a page.
                at = (at + 1).next_multiple_of(PAGE);
                continue;
            };
            records += 1;
            if is_alive(id, place)? {
                let (from, to) = (HEADER as usize, (HEADER + place.length) as usize);
                let body = if to <= rest.len() {
                    checked(id, &rest, from, to)
                } else if at == begin {
                    // Larger than what is read at once.
                    read(&self.files, id, place)?
                } else {
                    // Cut off by the end of what was read: first the next time.
                    break;
                };
                match body {
                    Some(octets) => {
                        let body = Body { id, checksum: crc32fast::hash(&octets), octets };
                        stragglers.found.push(Straggler { body, from: place });
                    }
                    None => tracing::error!(%id, segment, "a damaged body stays where it is"),
                }
            }
            at += record_bytes(place.length);
        }
        stragglers.walk = Some(Walk { segment, at });
        Ok(stragglers)
    }

    /// The transaction in which they moved is durable.
    pub(crate) fn moved(&mut self, stragglers: &Stragglers) {
        self.walk = stragglers.walk.or(self.walk);
        if let Some(Walk { segment, at }) = self.walk
            && let Some(found) = self.segments.get_mut(&segment)
            && at >= found.row.append
        {
            // What is still alive in it cannot be moved.
            found.walked = true;
            self.walk = None;
        }
    }

    /// Less than half of what is allocated is alive, beyond what is always kept.
    fn is_wasteful(&self) -> bool {
        let full = self.segments.iter().filter(|(number, segment)| !segment.is_empty() && self.active != Some(**number));
        let (live, all) =
            full.fold((0, 0), |(live, all), (_, segment)| (live + segment.row.live_bytes, all + segment.row.capacity));
        all > SPARE as u64 * self.segment_bytes && live < all / 2
    }

    fn is_worth_emptying(&self, number: u32) -> bool {
        self.active != Some(number)
            && self.segments.get(&number).is_some_and(|segment| {
                // Moving a segment that is nearly all alive gains nothing.
                !segment.is_empty() && !segment.walked && segment.row.live_bytes < segment.row.capacity / 4 * 3
            })
    }

    fn emptiest(&self) -> Option<Walk> {
        let worth = self.segments.iter().filter(|(number, _)| self.is_worth_emptying(**number));
        let share = |row: SegmentRow| row.live_bytes.saturating_mul(1 << 16) / row.capacity.max(1);
        let number = worth.min_by_key(|(_, segment)| share(segment.row)).map(|(number, _)| *number)?;
        Some(Walk { segment: number, at: 0 })
    }
}

/// The body of a record, if it is what its header says.
fn checked(id: QueueId, record: &Bytes, from: usize, to: usize) -> Option<Bytes> {
    let octets = record.slice(from..to);
    let body = Body { id, checksum: crc32fast::hash(&octets), octets };
    (record[..from] == header(&body)).then_some(body.octets)
}
