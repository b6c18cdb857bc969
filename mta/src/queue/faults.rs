//! Faults on demand: what a disk or a power cut may do to the writer, for tests and the simulated world.
//!
//! Without [`Faults::set`] none happens. A check costs one relaxed atomic load a batch.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

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
pub struct Faults(Arc<AtomicU8>);

impl Faults {
    /// From now on this goes wrong.
    pub fn set(&self, fault: Fault) {
        self.0.store(fault as u8, Ordering::Relaxed);
    }

    /// From now on nothing does.
    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    pub(crate) fn is(&self, fault: Fault) -> bool {
        self.0.load(Ordering::Relaxed) == fault as u8
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
