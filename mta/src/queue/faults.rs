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
}

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

    /// The error that a sync must report, if any; happens once.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.is(Fault::SyncFails) {
            self.clear();
            return Err(io::Error::other("fault: sync"));
        }
        Ok(())
    }
}
