//! Segment files: where bodies lie until they are delivered.
//!
//! A segment is a preallocated file that is filled from front to back and used again, in place,
//! when nothing in it is alive: no file grows, no block moves. Deleting a body is a matter of two
//! counters. LMDB alone says what is alive; what a crash leaves behind the append position of a
//! segment is free space, and nothing is replayed.
//!
//! A body is one record: a header (magic, checksum of the body, id, length, checksum of the header)
//! and the octets. Records of one batch follow each other; each batch begins on a page of its own, so a
//! page that holds an acknowledged body is never written again: neither a torn write nor a failed
//! sync of a later batch can touch it.
//!
//! A failed write or sync is not tried again on the same pages, because the kernel may have marked
//! them clean without their being on disk. The segment is *broken*: it takes no more bodies, and
//! goes when the last one in it is delivered.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use host::disk;
use scheduler::QueueId;

use super::faults::Faults;
use super::rows::{Place, SegmentRow};

mod stragglers;

pub(crate) use stragglers::Stragglers;
use stragglers::Walk;

/// Batches begin on multiples of this.
const PAGE: u64 = 4096;

/// Length of a record's header; records begin on multiples of 8.
pub(crate) const HEADER: u64 = 32;

const MAGIC: u32 = 0x5457_5331;

/// Empty segments kept for the next rush, beside a quarter of those in use. More are removed, one
/// a commit.
const SPARE: usize = 4;

/// The open files by number. Readers look; only the writer changes it, when a file comes or goes.
pub(crate) type Files = Arc<ArcSwap<HashMap<u32, Arc<disk::File>>>>;

/// A body to be written.
#[derive(Clone)]
pub(crate) struct Body {
    pub(crate) id: QueueId,
    pub(crate) checksum: u32,
    pub(crate) octets: Bytes,
}

/// What a batch wrote. It counts only when the commit that names it succeeds.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// One for each body, in order.
    pub(crate) places: Vec<Place>,
    /// New append positions.
    appends: Vec<(u32, u64)>,
}

/// Bodies that came alive or died in one transaction, by segment: (octets, count).
#[derive(Debug, Default, Clone)]
pub(crate) struct Changes(BTreeMap<u32, (i64, i64)>);

impl Changes {
    pub(crate) fn born(&mut self, place: Place) {
        self.add(place, 1);
    }

    pub(crate) fn died(&mut self, place: Place) {
        self.add(place, -1);
    }

    fn add(&mut self, place: Place, sign: i64) {
        let change = self.0.entry(place.segment).or_default();
        change.0 += sign * i64::try_from(record_bytes(place.length)).unwrap_or(i64::MAX);
        change.1 += sign;
    }
}

struct Segment {
    row: SegmentRow,
    broken: bool,
    /// Read through for what could be copied forward, since it was last empty.
    walked: bool,
}

impl Segment {
    fn is_empty(&self) -> bool {
        self.row.live_count == 0
    }
}

/// All segment files, as the writer sees them: the state as of the last commit.
pub(crate) struct Segments {
    dir: PathBuf,
    files: Files,
    segments: BTreeMap<u32, Segment>,
    /// The one being filled.
    active: Option<u32>,
    next_number: u32,
    segment_bytes: u64,
    /// The segment that is being emptied.
    walk: Option<Walk>,
    faults: Faults,
}

impl Segments {
    /// Opens the files that `rows` name. Files without a row are left-overs of a crash and removed.
    /// A row whose file is missing stays: its bodies are reported as damaged one by one.
    pub(crate) fn open(dir: PathBuf, rows: Vec<(u32, SegmentRow)>, segment_bytes: u64, faults: Faults) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let mut files = HashMap::new();
        let mut segments = BTreeMap::new();
        let mut next_number = 1;
        for (number, row) in rows {
            let mut broken = false;
            match disk::File::open_on(faults.disk(), &path(&dir, number)) {
                Ok(file) => {
                    files.insert(number, Arc::new(file));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    tracing::error!(segment = number, bodies = row.live_count, "a segment file is missing");
                    broken = true;
                }
                Err(error) => return Err(error),
            }
            segments.insert(number, Segment { row, broken, walked: false });
            next_number = next_number.max(number.saturating_add(1));
        }
        for entry in std::fs::read_dir(&dir)? {
            let name = entry?.file_name();
            let Some(number) = name.to_str().and_then(|name| name.strip_suffix(".seg")?.parse::<u32>().ok()) else {
                continue;
            };
            next_number = next_number.max(number.saturating_add(1));
            if !segments.contains_key(&number) {
                std::fs::remove_file(dir.join(&name))?;
            }
        }
        // Go on filling the emptiest of those that are neither empty nor full.
        let active = segments
            .iter()
            .filter(|(_, segment)| !segment.broken && !segment.is_empty() && segment.row.append < segment.row.capacity)
            .min_by_key(|(_, segment)| segment.row.append)
            .map(|(number, _)| *number);
        let files = Arc::new(ArcSwap::from_pointee(files));
        let segment_bytes = segment_bytes.next_multiple_of(PAGE);
        Ok(Self { dir, files, segments, active, next_number, segment_bytes, walk: None, faults })
    }

    /// For readers.
    pub(crate) fn files(&self) -> Files {
        self.files.clone()
    }

    /// Writes the bodies and makes them durable. On an error none of them counts, and what was
    /// touched is never written again as if nothing had happened.
    pub(crate) fn write(&mut self, bodies: &[Body]) -> io::Result<Written> {
        let mut written = Written::default();
        let mut rest = bodies;
        while let Some(first) = rest.first() {
            let (number, begin) = self.room(record_bytes(first.octets.len() as u64), &written)?;
            let capacity = self.segments[&number].row.capacity;
            let mut end = begin;
            let mut count = 0;
            for body in rest {
                let length = body.octets.len() as u64;
                if end + record_bytes(length) > capacity {
                    break;
                }
                written.places.push(Place { segment: number, offset: end, length });
                end += record_bytes(length);
                count += 1;
            }
            let (now, later) = rest.split_at(count);
            let end = end.next_multiple_of(PAGE);
            if let Err(error) = self.write_run(number, begin, end, now) {
                self.give_up(number);
                // Earlier runs of this batch were synced; their pages are simply free again.
                return Err(error);
            }
            written.appends.push((number, end));
            rest = later;
        }
        Ok(written)
    }

    /// One piece of a batch: what lies in one segment.
    fn write_run(&self, number: u32, begin: u64, end: u64, bodies: &[Body]) -> io::Result<()> {
        const ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];
        let file = self.files.load().get(&number).cloned();
        let file = file.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let headers: Vec<[u8; HEADER as usize]> = bodies.iter().map(header).collect();
        let mut slices = Vec::with_capacity(bodies.len() * 3 + 1);
        let mut at = begin;
        for (body, header) in bodies.iter().zip(&headers) {
            let length = body.octets.len() as u64;
            slices.push(IoSlice::new(header));
            slices.push(IoSlice::new(&body.octets));
            let padding = record_bytes(length) - HEADER - length;
            if padding > 0 {
                slices.push(IoSlice::new(&ZEROS[..padding as usize]));
            }
            at += record_bytes(length);
        }
        // Whole pages: the kernel need not read the last one to fill it up.
        if end > at {
            slices.push(IoSlice::new(&ZEROS[..(end - at) as usize]));
        }
        self.faults.write()?;
        file.write_all_vectored_at(&mut slices, begin)?;
        self.faults.sync()?;
        file.sync_data()
    }

    /// Where `need` octets can be written: the active segment, else an empty one, else a new file.
    fn room(&mut self, need: u64, written: &Written) -> io::Result<(u32, u64)> {
        let taken = |number: u32| written.appends.iter().any(|(taken, _)| *taken == number);
        if let Some(number) = self.active
            && !taken(number)
            && let Some(segment) = self.segments.get(&number)
        {
            // All of it delivered: begin again at the front, whose pages are written and warm.
            let begin = if segment.is_empty() { 0 } else { segment.row.append };
            if begin + need <= segment.row.capacity {
                return Ok((number, begin));
            }
        }
        let empty = self
            .segments
            .iter()
            .filter(|(number, segment)| segment.is_empty() && !segment.broken && segment.row.capacity >= need && !taken(**number))
            .min_by_key(|(_, segment)| segment.row.capacity)
            .map(|(number, _)| *number);
        let number = match empty {
            Some(number) => number,
            None => self.create(need.next_multiple_of(PAGE).max(self.segment_bytes))?,
        };
        self.active = Some(number);
        Ok((number, 0))
    }

    fn create(&mut self, capacity: u64) -> io::Result<u32> {
        let number = self.next_number;
        let path = path(&self.dir, number);
        let made = disk::File::create_on(self.faults.disk(), &path).and_then(|file| {
            file.allocate(capacity)?;
            disk::sync_dir(&self.dir)?;
            Ok(file)
        });
        let file = match made {
            Ok(file) => file,
            Err(error) => {
                // Whatever was allocated goes back to the full disk.
                let _ = std::fs::remove_file(&path);
                return Err(error);
            }
        };
        self.next_number += 1;
        self.publish(|files| {
            files.insert(number, Arc::new(file));
        });
        let row = SegmentRow { capacity, append: 0, live_bytes: 0, live_count: 0 };
        self.segments.insert(number, Segment { row, broken: false, walked: false });
        Ok(number)
    }

    fn give_up(&mut self, number: u32) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.broken = true;
        }
        self.active = self.active.filter(|active| *active != number);
    }

    fn publish(&self, change: impl FnOnce(&mut HashMap<u32, Arc<disk::File>>)) {
        let mut files = HashMap::clone(&self.files.load());
        change(&mut files);
        self.files.store(Arc::new(files));
    }

    /// The rows to write in the transaction that makes `written` and `changes` true.
    pub(crate) fn rows(&self, written: &Written, changes: &Changes) -> Vec<(u32, SegmentRow)> {
        let mut rows = BTreeMap::new();
        let row = |number: u32| self.segments.get(&number).map(|segment| segment.row);
        for (number, append) in &written.appends {
            rows.extend(row(*number).map(|row| (*number, SegmentRow { append: *append, ..row })));
        }
        for (number, (bytes, count)) in &changes.0 {
            let Some(row) = rows.get(number).copied().or_else(|| row(*number)) else { continue };
            let live_bytes = row.live_bytes.saturating_add_signed(*bytes);
            let live_count = row.live_count.saturating_add_signed(*count);
            rows.insert(*number, SegmentRow { live_bytes, live_count, ..row });
        }
        rows.into_iter().collect()
    }

    /// The transaction with these rows is durable.
    pub(crate) fn commit(&mut self, rows: &[(u32, SegmentRow)]) {
        for (number, row) in rows {
            if let Some(segment) = self.segments.get_mut(number) {
                // Filled anew from the front: what was found in it before says nothing about it now.
                if segment.is_empty() {
                    segment.walked = false;
                    self.walk = self.walk.filter(|walk| walk.segment != *number);
                }
                segment.row = *row;
            }
        }
    }

    /// An empty segment that need not be kept, whose row may be removed in the next transaction.
    pub(crate) fn surplus(&self) -> Option<u32> {
        let spare = self.segments.iter().filter(|(number, segment)| segment.is_empty() && self.active != Some(**number));
        let mut empty = 0;
        let mut largest: Option<(u64, u32)> = None;
        for (number, segment) in spare {
            if segment.broken {
                return Some(*number);
            }
            empty += 1;
            largest = largest.max(Some((segment.row.capacity, *number)));
        }
        let in_use = self.segments.len() - empty;
        largest.filter(|_| empty > SPARE + in_use / 4).map(|(_, number)| number)
    }

    /// The transaction that removed its row is durable: the file goes.
    pub(crate) fn remove(&mut self, number: u32) {
        self.segments.remove(&number);
        self.active = self.active.filter(|active| *active != number);
        self.publish(|files| {
            files.remove(&number);
        });
        if let Err(error) = std::fs::remove_file(path(&self.dir, number))
            && error.kind() != io::ErrorKind::NotFound
        {
            // It has no row any more, so the next start removes it.
            tracing::warn!(segment = number, %error, "an empty segment file could not be removed");
        }
    }
}

/// Octets that a body takes with its header.
pub(crate) fn record_bytes(length: u64) -> u64 {
    (HEADER + length).next_multiple_of(8)
}

fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:06}.seg"))
}

fn header(body: &Body) -> [u8; HEADER as usize] {
    let mut header = [0; HEADER as usize];
    header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4..8].copy_from_slice(&body.checksum.to_le_bytes());
    header[8..16].copy_from_slice(&body.id.0.to_le_bytes());
    header[16..24].copy_from_slice(&(body.octets.len() as u64).to_le_bytes());
    let own = crc32fast::hash(&header[..24]);
    header[24..28].copy_from_slice(&own.to_le_bytes());
    header
}

/// The message and the place that a record's header tells, if `octets` begin with one. Its body is not looked at.
fn read_header(octets: &[u8], segment: u32, offset: u64) -> Option<(QueueId, Place)> {
    let header = octets.get(..HEADER as usize)?;
    let number = |range: std::ops::Range<usize>| header[range].try_into().map(u64::from_le_bytes).ok();
    let own = crc32fast::hash(&header[..24]).to_le_bytes();
    if header[..4] != MAGIC.to_le_bytes() || header[24..28] != own {
        return None;
    }
    Some((QueueId(number(8..16)?), Place { segment, offset, length: number(16..24)? }))
}

/// Reads a body. `None`: what lies there is not that body (damaged, or overwritten meanwhile).
pub(crate) fn read(files: &Files, id: QueueId, place: Place) -> io::Result<Option<Bytes>> {
    let Some(file) = files.load().get(&place.segment).cloned() else { return Ok(None) };
    let Some(length) = usize::try_from(place.length).ok().filter(|_| fits(&file, place)) else { return Ok(None) };
    let mut record = vec![0; HEADER as usize + length];
    match file.read_exact_at(&mut record, place.offset) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let octets = Bytes::from(record);
    let body = octets.slice(HEADER as usize..);
    let checksum = crc32fast::hash(&body);
    let body = Body { id, checksum, octets: body };
    Ok((octets[..HEADER as usize] == header(&body)).then_some(body.octets))
}

/// A damaged place must not make us reserve what the file cannot hold.
fn fits(file: &disk::File, place: Place) -> bool {
    let end = place.offset.checked_add(HEADER).and_then(|begin| begin.checked_add(place.length));
    file.len().is_ok_and(|length| end.is_some_and(|end| end <= length))
}
