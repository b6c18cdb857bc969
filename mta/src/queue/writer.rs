//! The writer: one actor, one batch at a time, one commit a batch.
//!
//! A batch is what has arrived since the last one, within bounds: OTP mail first, then everything
//! else in the order of arrival. Its bodies are written and synced, its rows committed, and only
//! then is anybody answered. What goes wrong with new mail does not keep settlements from being
//! committed: the batch is cut down and tried again without it.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use host::{Clock, disk};
use metrics::histogram;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::answering::{Done, Durable};
use super::apply::{EventRange, Transaction};
use super::codec::{Decoder, Encoder};
use super::duplicates::Duplicates;
use super::faults::Fault;
use super::handle::{Ids, Prepared, Queue, Request, Stats};
use super::operate::CHANGED_MAX;
use super::options::Options;
use super::reader::Reader;
use super::room::Room;
use super::rows::SegmentRow;
use super::segments::{Body, Segments, Stragglers, Written};
use super::tables::{Environment, TABLES_MAX, Tables};
use super::types::{Note, QueueError};
use super::usage::Usages;
use crate::control::metrics as names;

/// The row of `state` that holds the last id given out.
const LAST_ID: &[u8] = b"last_id";
const VERSION: u8 = 1;

/// So many messages that are being signed are a crowd: signing is what they wait for, and more hands would not help.
const CROWD: usize = 16;

/// While there is a crowd a batch is gathered for so long. That takes nothing from throughput, because signing goes on
/// meanwhile, and saves most of its commits, each of which costs as much as it holds. One-time codes do not wait for it.
const GATHERING: Duration = Duration::from_millis(2);

/// The only one that writes.
pub struct Writer {
    env: Environment,
    tables: Tables,
    segments: Segments,
    room: Room,
    clock: Clock,
    options: Options,
    pub(super) stats: Arc<Stats>,
    notes: mpsc::Sender<Vec<Note>>,
    urgent: mpsc::Receiver<Request>,
    normal: mpsc::Receiver<Request>,
    /// Arrived, and too much for the last batch.
    waiting: VecDeque<Request>,
    ids: Ids,
    /// Messages that are being signed.
    expected: Arc<AtomicUsize>,
    events: EventRange,
    usages: Usages,
    duplicates: Duplicates,
    /// Locked as long as we live: two daemons on one directory would overwrite each other's bodies.
    _lock: fs::File,
}

impl Writer {
    /// Opens the queue in `dir`, making it when absent. That takes as long with a million messages as with none: ask
    /// [`Reader::flows`] what waits, while new mail comes in. After each commit `notes` is told.
    ///
    /// A directory that is open already (here or in another process) is an error. To open it again in
    /// this process, drop the writer and every [`Reader`] first.
    pub fn open(
        dir: &Path,
        clock: Clock,
        options: Options,
        notes: mpsc::Sender<Vec<Note>>,
    ) -> Result<(Self, Queue, Reader), QueueError> {
        let (lmdb, bodies) = (dir.join("lmdb"), dir.join("segments"));
        for dir in [dir, &lmdb, &bodies] {
            disk::make_dir(dir)?;
        }
        let lock = lock(&dir.join("lock"))?;
        let env = disk::open_env(&lmdb, options.map_bytes, TABLES_MAX)?;
        let tables = Tables::open(&env)?;
        let txn = env.read_txn()?;
        let mut rows = Vec::new();
        for entry in tables.segments.iter(&txn)? {
            let (key, row) = entry?;
            match (<[u8; 4]>::try_from(key), SegmentRow::decode(row)) {
                (Ok(number), Ok(row)) => rows.push((u32::from_be_bytes(number), row)),
                _ => return Err(QueueError::Invalid("a row of the table `segments` is damaged")),
            }
        }
        // Ids must rise over restarts, even if the clock steps back.
        let saved = tables.state.get(&txn, LAST_ID)?;
        let saved = saved.and_then(|row| Decoder::new(row, VERSION).and_then(|mut fields| fields.u64()).ok());
        let newest = tables.messages.last(&txn)?.map_or(0, |(key, _)| number(key));
        let last_id = saved.unwrap_or(0).max(newest);
        let first = tables.events.first(&txn)?.map_or(1, |(key, _)| number(key));
        let next = tables.events.last(&txn)?.map_or(1, |(key, _)| number(key) + 1);
        let duplicates = Duplicates::open(&txn, &tables, options.submitted_max)?;
        drop(txn);
        tables.index_members(&env)?;
        let usages = Usages::open(&env, &tables)?;
        let faults = options.faults.clone();
        let segments = Segments::open(bodies, rows, options.segment_bytes, faults.clone())?;
        // The names of what was made above: LMDB syncs its file, not its directory.
        disk::sync_dir(&lmdb)?;
        disk::sync_dir(dir)?;
        let room = Room::new(dir, options.map_bytes, options.free_bytes_floor, faults);
        let reader = Reader::new(env.clone(), tables, segments.files());
        let stats = Arc::new(Stats::default());
        stats.events.ring(next - 1);
        let ids = Ids::after(last_id);
        let expected = Arc::new(AtomicUsize::new(0));
        let (queue, urgent, normal) =
            Queue::new(stats.clone(), ids.clone(), usages.counts(), duplicates.recent(), expected.clone());
        let (events, waiting) = (EventRange { first, next }, VecDeque::new());
        let writer = Self {
            env,
            tables,
            segments,
            room,
            clock,
            options,
            stats,
            notes,
            urgent,
            normal,
            waiting,
            ids,
            expected,
            events,
            usages,
            duplicates,
            _lock: lock,
        };
        Ok((writer, queue, reader))
    }

    /// Commits what arrives until every [`Queue`] is gone or one said stop. An error means that the
    /// database is beyond use: restart.
    pub async fn run(mut self) -> Result<(), QueueError> {
        let (seconds, messages) = (histogram!(names::COMMIT_SECONDS), histogram!(names::COMMIT_REQUESTS));
        while let Some(batch) = self.gather().await {
            messages.record(batch.len() as f64);
            self.options.faults.wait().await;
            let began = self.clock.now();
            let Durable { notes, accepted } = self.commit(batch)?;
            seconds.record(self.clock.now().duration_since(began).unwrap_or_default().as_secs_f64());
            // The scheduler hears of it first: a one-time code is on its way while its 250 still is. Without a scheduler
            // nobody needs to know. With a slow one we wait, after all have their answers: it never waits for us.
            let unsent = if notes.is_empty() { None } else { self.notes.try_send(notes).err() };
            for (answer, id) in accepted {
                let _ = answer.send(Ok(id));
            }
            self.stats.events.ring(self.events.next - 1);
            if let Some(TrySendError::Full(notes)) = unsent {
                let _ = self.notes.send(notes).await;
            }
        }
        Ok(())
    }

    /// The next batch: waits for the first request, and for nothing more unless there is a crowd.
    async fn gather(&mut self) -> Option<Vec<Request>> {
        let most = self.options.batch_requests.max(1);
        let (mut batch, mut arrived) = (Vec::new(), Vec::new());
        if self.waiting.is_empty() {
            let received = tokio::select! {
                biased;
                received = self.urgent.recv_many(&mut batch, most) => received,
                received = self.normal.recv_many(&mut arrived, most) => received,
            };
            // Both ways end together, because both ends are in one handle; what is left comes first.
            if received == 0 {
                self.normal.recv_many(&mut arrived, most).await;
            }
            if batch.is_empty() && !arrived.is_empty() && self.expected.load(Relaxed) >= CROWD {
                tokio::select! {
                    biased;
                    _ = self.urgent.recv_many(&mut batch, most) => {}
                    () = tokio::time::sleep(GATHERING) => {}
                }
            }
        }
        self.waiting.extend(arrived);
        while batch.len() < most
            && let Ok(request) = self.urgent.try_recv()
        {
            batch.push(request);
        }
        while self.waiting.len() < most
            && let Ok(request) = self.normal.try_recv()
        {
            self.waiting.push_back(request);
        }
        let (mut rows, mut bytes) = batch.iter().map(size).fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        // At least one that is not urgent: nobody waits for ever.
        let mut any = false;
        while let Some(request) = self.waiting.front() {
            let (more_rows, more_bytes) = size(request);
            rows += more_rows;
            bytes += more_bytes;
            let fits = batch.len() < most && rows <= self.options.batch_rows && bytes <= self.options.batch_bytes;
            if any && !fits {
                break;
            }
            any = true;
            match self.waiting.pop_front() {
                Some(Request::Stop) => {
                    self.urgent.close();
                    self.normal.close();
                }
                Some(request) => batch.push(request),
                None => break,
            }
        }
        let ended = batch.is_empty() && self.urgent.is_closed() && self.urgent.is_empty() && self.normal.is_empty();
        (!ended).then_some(batch)
    }

    /// Makes a batch durable and answers it. An error is for the daemon, not for the batch.
    fn commit(&mut self, batch: Vec<Request>) -> Result<Durable, QueueError> {
        let mut batch = self.duplicates.sift(batch, self.clock.now(), &self.stats);
        if batch.is_empty() {
            return Ok(Durable::default());
        }
        if batch.iter().any(is_enqueue)
            && let Err(full) = self.room.check(&self.env, &self.tables)
        {
            self.refuse(&mut batch, &full, is_enqueue);
        }
        let new_bytes = batch.iter().map(|request| size(request).1 as u64).sum();
        let mut stragglers = self.segments.stragglers(&self.env, &self.tables, new_bytes);
        let written = loop {
            match self.write_bodies(&mut batch, &stragglers) {
                Ok(written) => break written,
                // It may have failed for what need not be copied now.
                Err(error) if !stragglers.is_empty() => {
                    tracing::error!(%error, "bodies could not be copied forward");
                    stragglers = Stragglers::default();
                }
                Err(error) => {
                    tracing::error!(%error, "bodies could not be written");
                    Stats::add(&self.stats.failed, 1);
                    let error = QueueError::from(error);
                    // Notices wait for a better time with their settlements; the rest goes on.
                    if !self.refuse(&mut batch, &error, is_enqueue) && !self.refuse(&mut batch, &error, has_dsn) {
                        break Written::default();
                    }
                }
            }
        };
        if batch.is_empty() {
            return Ok(Durable::default());
        }
        if self.options.faults.is(Fault::StopBeforeCommit) {
            return Err(QueueError::Stopped);
        }
        let done = loop {
            match self.transaction(&mut batch, &written, &stragglers) {
                Ok(done) => break done,
                Err(error) => {
                    tracing::error!(%error, "a batch could not be committed");
                    Stats::add(&self.stats.failed, 1);
                    stragglers = Stragglers::default();
                    // LMDB reports a write cut short by a full disk as an error of its own.
                    let error = if self.room.is_disk_full() { QueueError::Full("no space is left on the disk") } else { error };
                    let full = matches!(error, QueueError::Full(_));
                    if full && (self.refuse(&mut batch, &error, is_enqueue) || self.room.give_up_reserve()) {
                        continue;
                    }
                    let broken = is_broken(&error);
                    self.refuse(&mut batch, &error, |_| true);
                    return if broken { Err(error) } else { Ok(Durable::default()) };
                }
            }
        };
        Stats::add(&self.stats.commits, 1);
        Stats::add(&self.stats.copied_bytes, stragglers.bytes());
        if self.options.faults.is(Fault::StopAfterCommit) {
            return Err(QueueError::Stopped);
        }
        Ok(self.answer(batch, done))
    }

    /// Gives every message of the batch its id, and its body a place on disk; stragglers come last.
    fn write_bodies(&mut self, batch: &mut [Request], stragglers: &Stragglers) -> io::Result<Written> {
        let mut messages: Vec<&mut Prepared> = Vec::new();
        for request in batch {
            match request {
                Request::Enqueue(message, _) => messages.push(message),
                Request::Settle(settlements, _) => messages.extend(settlements.iter_mut().filter_map(|s| s.dsn.as_mut())),
                _ => {}
            }
        }
        if messages.is_empty() && stragglers.is_empty() {
            return Ok(Written::default());
        }
        let now = self.clock.now();
        for message in &mut messages {
            if message.message.id.0 == 0 {
                message.message.id = self.ids.next(now);
            }
        }
        let body = |new: &&mut Prepared| Body { id: new.message.id, checksum: new.checksum, octets: new.message.octets.clone() };
        let bodies: Vec<Body> = messages.iter().map(body).chain(stragglers.bodies()).collect();
        let written = self.segments.write(&bodies)?;
        for (message, place) in messages.into_iter().zip(&written.places) {
            message.place = *place;
        }
        Ok(written)
    }

    /// The transaction of a batch. What it answers for each request, in order.
    fn transaction(
        &mut self,
        batch: &mut [Request],
        written: &Written,
        stragglers: &Stragglers,
    ) -> Result<Vec<Done>, QueueError> {
        let now = self.clock.now();
        let mut txn = Transaction::begin(&self.env, self.tables, self.events, now)?;
        let mut done = Vec::with_capacity(batch.len());
        for request in batch {
            done.push(match request {
                Request::Enqueue(message, _) => {
                    txn.insert(message)?;
                    Done::Nothing
                }
                Request::Settle(settlements, _) => {
                    let settled = settlements.iter().map(|settlement| txn.settle(settlement));
                    Done::Settled(settled.collect::<Result<_, _>>()?)
                }
                Request::SetAside(id, reason, _) => Done::Aside(txn.set_aside(*id, reason)?),
                Request::Operate(operation, _) => {
                    let (operated, moved) = txn.operate(operation)?;
                    Done::Operated(operated, moved)
                }
                Request::NoteActions(news, _) => {
                    txn.note_actions(news)?;
                    Done::Nothing
                }
                Request::Work(work) => {
                    // Nested, so that its error undoes its own writes alone.
                    let mut nested = self.env.nested_write_txn(&mut txn.txn)?;
                    match work.apply(&mut nested, &self.tables) {
                        Ok(()) => nested.commit()?,
                        Err(_) => nested.abort(),
                    }
                    Done::Nothing
                }
                Request::Stop => Done::Nothing,
            });
        }
        for (id, from, to) in stragglers.moves(written) {
            txn.relocate(id, from, to)?;
        }
        if !written.places.is_empty() {
            let mut row = Encoder::new(VERSION);
            row.u64(self.ids.last());
            self.tables.state.put(&mut txn.txn, LAST_ID, &row.done())?;
        }
        let rows = self.segments.rows(written, &txn.changes);
        for (number, row) in &rows {
            self.tables.segments.put(&mut txn.txn, &number.to_be_bytes(), &row.encode())?;
        }
        let surplus = self.segments.surplus().filter(|surplus| rows.iter().all(|(number, _)| number != surplus));
        if let Some(number) = surplus {
            self.tables.segments.delete(&mut txn.txn, &number.to_be_bytes())?;
        }
        txn.trim_events(self.options.events_max, self.options.events_age_max)?;
        self.duplicates.trim(&mut txn.records, now, &mut txn.txn, &self.tables)?;
        let usages = self.usages.write(&txn.usage, &mut txn.txn, &self.tables)?;
        let (events, usage, records) = (txn.events, txn.usage, txn.records);
        self.options.faults.commit()?;
        txn.txn.commit()?;
        // From here on it is true.
        self.events = events;
        self.usages.commit(usages, &usage, now);
        self.duplicates.commit(records);
        self.segments.commit(&rows);
        self.segments.moved(stragglers);
        if let Some(number) = surplus {
            self.segments.remove(number);
        }
        Ok(done)
    }
}

fn is_enqueue(request: &Request) -> bool {
    matches!(request, Request::Enqueue(..))
}

fn has_dsn(request: &Request) -> bool {
    matches!(request, Request::Settle(settlements, _) if settlements.iter().any(|settlement| settlement.dsn.is_some()))
}

/// Rows and octets that a request adds, roughly.
fn size(request: &Request) -> (usize, usize) {
    let message = |message: &Prepared| (message.rows(), message.message.octets.len());
    match request {
        Request::Enqueue(new, _) => message(new),
        Request::Settle(settlements, _) => settlements.iter().fold((0, 0), |(rows, bytes), settlement| {
            let (more_rows, more_bytes) = settlement.dsn.as_ref().map_or((0, 0), message);
            (rows + 4 + settlement.settlement.fates.len() + more_rows, bytes + more_bytes)
        }),
        Request::Operate(..) => (5 * CHANGED_MAX, 0),
        Request::NoteActions(news, _) => (3 * news.len(), 0),
        _ => (4, 0),
    }
}

fn lock(path: &Path) -> Result<fs::File, QueueError> {
    let file = fs::OpenOptions::new().create(true).write(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            Err(QueueError::Invalid("another process has this queue open; stop it, or start with --take-over"))
        }
        Err(fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Keys of `messages` and `events` are numbers.
fn number(key: &[u8]) -> u64 {
    key.try_into().map_or(0, u64::from_be_bytes)
}

/// LMDB will not work again before it is opened anew.
fn is_broken(error: &QueueError) -> bool {
    matches!(error, QueueError::Database(error)
        if matches!(**error, heed::Error::Mdb(heed::MdbError::Panic | heed::MdbError::Corrupted | heed::MdbError::PageNotFound)))
}
