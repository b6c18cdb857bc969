//! Is there room for more mail?
//!
//! New mail is refused while there is still room for settlements, because they are what makes room.
//! Three things are kept back: half of LMDB's map, a floor of free disk, and a reserve file that is
//! given up when the disk is full all the same (somebody else filled it).
//!
//! Half, because deferring makes rows longer: a row takes in the reply that deferred it, and pages that
//! were filled to the brim in order of arrival split. Address space costs nothing.

use std::path::{Path, PathBuf};

use host::disk;

use super::faults::{Fault, Faults};
use super::tables::{Environment, Tables};
use super::types::QueueError;

/// Size of the reserve file: pages for some thousand settlements.
const RESERVE_BYTES: u64 = 8 << 20;

/// With less, a commit cannot be expected to succeed.
const FREE_BYTES_MIN: u64 = 1 << 20;

/// Watches the disk and the map.
pub(crate) struct Room {
    dir: PathBuf,
    reserve: PathBuf,
    has_reserve: bool,
    map_bytes: usize,
    free_bytes_floor: u64,
    faults: Faults,
}

impl Room {
    pub(crate) fn new(dir: &Path, map_bytes: usize, free_bytes_floor: u64, faults: Faults) -> Self {
        let reserve = dir.join("reserve");
        let has_reserve = reserve.exists();
        Self { dir: dir.to_owned(), reserve, has_reserve, map_bytes, free_bytes_floor, faults }
    }

    /// Whether a batch may contain new mail.
    pub(crate) fn check(&mut self, env: &Environment, tables: &Tables) -> Result<(), QueueError> {
        let free = if self.faults.is(Fault::DiskFull) { 0 } else { disk::free_bytes(&self.dir)? };
        if free < self.free_bytes_floor {
            return Err(QueueError::Full("the disk has less free space than is kept back"));
        }
        if !self.has_reserve && free > self.free_bytes_floor + RESERVE_BYTES {
            self.has_reserve = self.keep_reserve();
        }
        // The file never shrinks: only when it has once grown so far must the pages be counted.
        let limit = self.map_bytes / 2;
        let grown = env.info().last_page_number.saturating_mul(4096);
        if grown > limit && tables.used_bytes(&env.read_txn()?)? > limit {
            return Err(QueueError::Full("the database has reached its size limit"));
        }
        Ok(())
    }

    /// Whether a failed write is best explained by want of space.
    pub(crate) fn is_disk_full(&self) -> bool {
        disk::free_bytes(&self.dir).is_ok_and(|free| free < FREE_BYTES_MIN)
    }

    fn keep_reserve(&self) -> bool {
        let made = disk::File::create(&self.reserve).and_then(|file| file.allocate(RESERVE_BYTES));
        if made.is_err() {
            let _ = std::fs::remove_file(&self.reserve);
        }
        made.is_ok()
    }

    /// Gives the reserve up; false when there is none.
    pub(crate) fn give_up_reserve(&mut self) -> bool {
        std::mem::take(&mut self.has_reserve) && std::fs::remove_file(&self.reserve).is_ok()
    }
}
