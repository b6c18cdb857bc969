//! Faults on demand: what a disk or a power cut may do to the writer, for tests and the simulated world.
//!
//! Without [`Faults::set`] none happens. A check costs one relaxed atomic load a batch. On a simulated disk segments lose
//! what was not synced; what LMDB has committed stands, because its file is a real one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use host::sim;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// The disk reports no free space, until the fault is cleared.
    DiskFull = 1,
    /// The next sync of a segment fails, once.
    SyncFails = 2,
    /// The writer dies after the bodies are synced and before LMDB commits.
    StopBeforeCommit = 3,
    /// The writer dies after the commit and before anybody is answered.
    StopAfterCommit = 4,
    /// Bodies cannot be written: an input/output error each time, until the fault is cleared.
    WritesFail = 5,
    /// LMDB finds no space when it commits, until the fault is cleared.
    CommitsFindNoSpace = 6,
    /// LMDB gets an input/output error when it commits, until the fault is cleared.
    CommitsFail = 7,
}

/// EIO and ENOSPC, on Linux.
const IO_ERROR: i32 = 5;
const NO_SPACE: i32 = 28;

/// A switch that the writer looks at; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    switch: Arc<AtomicU8>,
    /// Milliseconds that the disk takes for a batch.
    slow_millis: Arc<AtomicU64>,
    disk: Option<sim::Disk>,
}

impl Faults {
    /// Segments lie on this disk.
    pub fn of_disk(disk: sim::Disk) -> Self {
        Self { disk: Some(disk), ..Self::default() }
    }

    /// From now on this goes wrong.
    pub fn set(&self, fault: Fault) {
        self.switch.store(fault as u8, Ordering::Relaxed);
    }

    /// From now on each batch takes so long (in milliseconds) before it is committed.
    pub fn slow(&self, batch: Duration) {
        self.slow_millis.store(u64::try_from(batch.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// From now on nothing does.
    pub fn clear(&self) {
        self.switch.store(0, Ordering::Relaxed);
        self.slow_millis.store(0, Ordering::Relaxed);
    }

    /// Whether the writer dies by this now. Without power it dies before it commits.
    pub(crate) fn is(&self, fault: Fault) -> bool {
        let off = fault == Fault::StopBeforeCommit && self.disk.as_ref().is_some_and(sim::Disk::is_off);
        off || self.switch.load(Ordering::Relaxed) == fault as u8
    }

    /// Where segments lie, if it is not the machine's own disk.
    pub(crate) fn disk(&self) -> Option<&sim::Disk> {
        self.disk.as_ref()
    }

    /// Waits as long as the disk takes.
    pub(crate) async fn wait(&self) {
        let millis = self.slow_millis.load(Ordering::Relaxed);
        if millis > 0 {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }

    /// The error that a write of bodies must report, if any.
    pub(crate) fn write(&self) -> io::Result<()> {
        if self.is(Fault::WritesFail) { Err(io::Error::from_raw_os_error(IO_ERROR)) } else { Ok(()) }
    }

    /// The error that a commit of LMDB must report, if any.
    pub(crate) fn commit(&self) -> io::Result<()> {
        if self.is(Fault::CommitsFindNoSpace) {
            return Err(io::Error::from_raw_os_error(NO_SPACE));
        }
        if self.is(Fault::CommitsFail) { Err(io::Error::from_raw_os_error(IO_ERROR)) } else { Ok(()) }
    }

    /// The error that a sync must report, if any; happens once.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.is(Fault::SyncFails) {
            self.clear();
            return Err(io::Error::other("fault: sync"));
        }
        Ok(())
    }
}
