//! A disk whose power can be cut: what was written and not synced may be there afterwards, or not.
//!
//! Files are ordinary files. The disk remembers, for each write, what was there before, until a sync makes it durable. When
//! the power has gone, every operation fails, and [`Disk::show`] makes the files such as a disk could show them. A sector
//! of 512 octets is what a disk writes whole: each one is, by dice, as it was written last, or as an earlier write left it,
//! or as it was when it was synced; in a write of several, one may be torn. [`show`] alone is the same for changes that
//! somebody else has noted.
//!
//! Not here: names (a segment file is made and its folder synced before it is used), and slowness.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::dice::Dice;

/// What a disk writes whole.
const SECTOR: u64 = 512;

/// Something that happened to a file, in order.
#[derive(Clone, Debug)]
pub enum Change<'a> {
    /// Octets or the length changed.
    Wrote {
        /// Where, a multiple of 512.
        offset: u64,
        /// How many octets, rounded up to sectors. 0: only the length changed.
        length: u64,
        /// The length of the file before.
        size: u64,
        /// What was there; beyond the old end there was nothing.
        before: &'a [u8],
    },
    /// All before is durable, but for what stood there when a sync failed.
    Synced,
    /// So much is durable.
    WroteSynced {
        /// From where.
        offset: u64,
        /// How many octets.
        length: u64,
    },
    /// A sync failed: the kernel forgets what it could not write, and no later sync makes it durable.
    SyncFailed,
}

/// How kind the disk is: of so many sectors not synced, this many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kindness {
    /// Of [`Kindness::of`].
    pub kept: u64,
    /// How many.
    pub of: u64,
}

impl Kindness {
    /// From "nothing" to "all of it".
    pub fn throw(dice: &Dice) -> Self {
        Self { kept: [0, 1, 5, 9, 10][dice.below(5) as usize], of: 10 }
    }

    /// Whether this one is kept.
    pub fn keeps(self, dice: &Dice) -> bool {
        dice.below(self.of) < self.kept
    }
}

/// Sectors that were written and not synced, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sectors {
    /// There all the same.
    pub kept: u64,
    /// As before.
    pub lost: u64,
    /// Half of each.
    pub torn: u64,
}

/// Makes `file`, to which `changes` happened, such as a disk might show it after the power went.
pub fn show(file: &fs::File, changes: &[Change<'_>], dice: &Dice, kindness: Kindness) -> io::Result<Sectors> {
    let mut size = file.metadata()?.len();
    let (mut size_decided, mut size_least) = (false, 0);
    // Decided is a sector that was kept, or that was durable: what was there before does not matter any more.
    let mut decided: HashSet<u64> = HashSet::new();
    let mut shown: HashMap<u64, [u8; SECTOR as usize]> = HashMap::new();
    let mut durable = false;
    let mut sectors = Sectors::default();
    // Back in time.
    for change in changes.iter().rev() {
        match *change {
            Change::Synced => (durable, size_decided) = (true, true),
            Change::SyncFailed => durable = false,
            Change::WroteSynced { offset, length } => {
                decided.extend(touched(offset, length));
                size_least = size_least.max(offset + length);
            }
            Change::Wrote { offset, length, .. } if durable => decided.extend(touched(offset, length)),
            Change::Wrote { offset, length, size: before_size, before } => {
                if !size_decided && before_size != size {
                    size_decided = kindness.keeps(dice);
                    size = if size_decided { size } else { before_size };
                }
                let range = touched(offset, length);
                let count = range.end - range.start;
                // One sector alone is written whole or not at all.
                let torn = (count > 1 && kindness.kept > 0).then(|| range.start + dice.below(count));
                for sector in range.filter(|sector| !decided.contains(sector)).collect::<Vec<_>>() {
                    let old = sector_of(before, sector * SECTOR - offset);
                    if kindness.keeps(dice) {
                        sectors.kept += 1;
                        decided.insert(sector);
                    } else if torn == Some(sector) {
                        let mut mixed = match shown.get(&sector) {
                            Some(newer) => *newer,
                            None => read_sector(file, sector)?,
                        };
                        let at = 1 + dice.below(SECTOR - 1) as usize;
                        mixed[at..].copy_from_slice(&old[at..]);
                        shown.insert(sector, mixed);
                        decided.insert(sector);
                        sectors.torn += 1;
                    } else {
                        shown.insert(sector, old);
                        sectors.lost += 1;
                    }
                }
            }
        }
    }
    let size = size.max(size_least);
    file.set_len(size)?;
    for (sector, octets) in shown {
        let length = size.saturating_sub(sector * SECTOR).min(SECTOR) as usize;
        file.write_all_at(&octets[..length], sector * SECTOR)?;
    }
    Ok(sectors)
}

fn touched(offset: u64, length: u64) -> std::ops::Range<u64> {
    offset / SECTOR..(offset + length).div_ceil(SECTOR)
}

/// The sector at `at` of `octets`, with zeros where they end.
fn sector_of(octets: &[u8], at: u64) -> [u8; SECTOR as usize] {
    let mut sector = [0; SECTOR as usize];
    let there = usize::try_from(at).ok().and_then(|at| octets.get(at..)).unwrap_or_default();
    let length = there.len().min(sector.len());
    sector[..length].copy_from_slice(&there[..length]);
    sector
}

fn read_sector(file: &fs::File, sector: u64) -> io::Result<[u8; SECTOR as usize]> {
    let octets = read_there(file, sector * SECTOR, SECTOR)?;
    Ok(sector_of(&octets, 0))
}

/// What is there of `length` octets: less at the end of the file.
fn read_there(file: &fs::File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut octets = vec![0; length as usize];
    let mut done = 0;
    while done < octets.len() {
        match file.read_at(&mut octets[done..], offset + done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    octets.truncate(done);
    Ok(octets)
}

/// A disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    dice: Dice,
    off: bool,
    lying: bool,
    /// Writes and syncs so far, and the one at which the power goes.
    operations: u64,
    cut_at: Option<u64>,
    /// The sync that fails.
    syncs: u64,
    fail_at: Option<u64>,
    files: BTreeMap<u64, Watched>,
    next_file: u64,
    /// Since somebody wanted to know.
    written: Option<Vec<Written>>,
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    file: Arc<fs::File>,
    noted: Vec<Noted>,
}

/// A write that took place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The name that the file was opened by.
    pub path: PathBuf,
    /// Where.
    pub offset: u64,
    /// How many octets.
    pub length: u64,
}

#[derive(Debug)]
enum Noted {
    Wrote { offset: u64, length: u64, size: u64, before: Vec<u8> },
    Synced,
    SyncFailed,
}

impl Noted {
    fn change(&self) -> Change<'_> {
        match self {
            Self::Wrote { offset, length, size, before } => {
                Change::Wrote { offset: *offset, length: *length, size: *size, before }
            }
            Self::Synced => Change::Synced,
            Self::SyncFailed => Change::SyncFailed,
        }
    }
}

impl Disk {
    /// A disk that works.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            dice: Dice::seeded(seed),
            off: false,
            lying: false,
            operations: 0,
            cut_at: None,
            syncs: 0,
            fail_at: None,
            files: BTreeMap::new(),
            next_file: 0,
            written: None,
        })))
    }

    /// The power goes in the so many-th write or sync from now (from 1).
    pub fn cut_in(&self, operations: u64) {
        let mut state = self.state();
        state.cut_at = Some(state.operations + operations);
    }

    /// The so many-th sync from now (from 1) fails.
    pub fn fail_sync_in(&self, syncs: u64) {
        let mut state = self.state();
        state.fail_at = Some(state.syncs + syncs);
    }

    /// From now on syncs succeed and make nothing durable.
    pub fn lie(&self) {
        self.state().lying = true;
    }

    /// Whether the power has gone. Nothing may be made durable by other ways then.
    pub fn is_off(&self) -> bool {
        self.state().off
    }

    /// What was written since this was asked last; the first time nothing, but from then on it is remembered.
    pub fn take_written(&self) -> Vec<Written> {
        self.state().written.replace(Vec::new()).unwrap_or_default()
    }

    /// The power is gone for certain, and everybody who had files open: makes them such as the disk might show them.
    pub fn show(&self) -> io::Result<Sectors> {
        let mut state = self.state();
        state.off = true;
        let kindness = Kindness::throw(&state.dice);
        let mut sum = Sectors::default();
        for Watched { file, noted, .. } in std::mem::take(&mut state.files).into_values() {
            let changes: Vec<_> = noted.iter().map(Noted::change).collect();
            let Sectors { kept, lost, torn } = show(&file, &changes, &state.dice, kindness)?;
            sum = Sectors { kept: sum.kept + kept, lost: sum.lost + lost, torn: sum.torn + torn };
        }
        Ok(sum)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to watch a file; the number is its name here.
    pub(crate) fn watch(&self, path: &Path, file: Arc<fs::File>) -> u64 {
        let mut state = self.state();
        state.next_file += 1;
        let number = state.next_file;
        state.files.insert(number, Watched { path: path.to_owned(), file, noted: Vec::new() });
        number
    }

    /// Does a write of `length` octets at `offset`, and remembers what was there.
    pub(crate) fn write(&self, number: u64, offset: u64, length: u64, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state();
        let cut = state.operation()?;
        let State { files, written, .. } = &mut *state;
        if let Some(Watched { path, file, noted }) = files.get_mut(&number) {
            if let Some(written) = written {
                written.push(Written { path: path.clone(), offset, length });
            }
            let range = touched(offset, length);
            let (offset, length) = (range.start * SECTOR, (range.end - range.start) * SECTOR);
            let before = read_there(file, offset, length)?;
            noted.push(Noted::Wrote { offset, length, size: file.metadata()?.len(), before });
        }
        write()?;
        if cut { state.cut() } else { Ok(()) }
    }

    /// Does a sync.
    pub(crate) fn sync(&self, number: u64) -> io::Result<()> {
        let mut state = self.state();
        let cut = state.operation()?;
        state.syncs += 1;
        let fails = state.fail_at == Some(state.syncs);
        // With the power, half of all syncs go before they are done and half after.
        let done = !(state.lying || cut && state.dice.below(2) == 0);
        if let Some(Watched { noted, .. }) = state.files.get_mut(&number) {
            if fails {
                noted.push(Noted::SyncFailed);
            } else if done && noted.iter().any(|noted| matches!(noted, Noted::SyncFailed)) {
                noted.push(Noted::Synced);
            } else if done {
                noted.clear();
            }
        }
        match (cut, fails) {
            (true, _) => state.cut(),
            (false, true) => Err(io::Error::other("simulated: the sync failed")),
            (false, false) => Ok(()),
        }
    }
}

impl State {
    /// True: the power goes in this one.
    fn operation(&mut self) -> io::Result<bool> {
        if self.off {
            return Err(power_is_off());
        }
        self.operations += 1;
        Ok(self.cut_at == Some(self.operations))
    }

    fn cut(&mut self) -> io::Result<()> {
        self.off = true;
        Err(power_is_off())
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("simulated: the power is off")
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::path::Path;

    use super::*;
    use crate::disk;

    fn write(file: &disk::File, octets: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_vectored_at(&mut [IoSlice::new(octets)], offset)
    }

    /// A file of 8 synced sectors `o`, then `story`, then the power goes; what it is afterwards.
    fn after(seed: u64, story: impl FnOnce(&Disk, &disk::File)) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let disk = Disk::new(seed);
        let file = disk::File::create_on(Some(&disk), &path).unwrap();
        write(&file, &[b'o'; 4096], 0).unwrap();
        file.sync_data().unwrap();
        story(&disk, &file);
        drop(file);
        disk.show().unwrap();
        read(&path)
    }

    fn read(path: &Path) -> Vec<u8> {
        fs::read(path).unwrap()
    }

    #[test]
    fn what_was_synced_is_there_whatever_the_disk_does() {
        for seed in 0..50 {
            let octets = after(seed, |_, file| {
                write(file, &[b'n'; 1024], 512).unwrap();
                file.sync_data().unwrap();
            });
            assert_eq!(octets, [[b'o'; 512].as_slice(), &[b'n'; 1024], &[b'o'; 2560]].concat(), "seed {seed}");
        }
    }

    #[test]
    fn what_was_not_synced_is_old_or_new_by_sector_and_torn_in_one_at_most() {
        let mut different = HashSet::new();
        for seed in 0..200 {
            let octets = after(seed, |_, file| write(file, &[b'n'; 2048], 1024).unwrap());
            assert!(octets[..1024].iter().chain(&octets[3072..]).all(|octet| *octet == b'o'), "seed {seed}: written elsewhere");
            let whole = |sector: &&[u8]| sector.iter().all(|octet| *octet == sector[0]);
            assert!(octets.chunks(512).filter(|sector| !whole(sector)).count() <= 1, "seed {seed}");
            different.insert(octets);
        }
        assert!(different.len() > 20, "{} outcomes of 200", different.len());
    }

    #[test]
    fn the_power_goes_where_it_was_told_and_nothing_works_afterwards() {
        let mut durable = HashSet::new();
        for seed in 0..20 {
            let octets = after(seed, |disk, file| {
                disk.cut_in(2);
                write(file, &[b'n'; 512], 0).unwrap();
                assert!(!disk.is_off());
                file.sync_data().unwrap_err();
                assert!(disk.is_off());
                write(file, b"x", 0).unwrap_err();
                file.sync_data().unwrap_err();
            });
            durable.insert(octets[0]);
        }
        assert_eq!(durable, HashSet::from([b'o', b'n']));
    }

    #[test]
    fn a_sync_after_one_that_failed_does_not_make_up_for_it() {
        let lost = (0..50).any(|seed| {
            let octets = after(seed, |disk, file| {
                disk.fail_sync_in(1);
                write(file, &[b'n'; 512], 0).unwrap();
                file.sync_data().unwrap_err();
                write(file, &[b'N'; 512], 512).unwrap();
                file.sync_data().unwrap();
            });
            assert_eq!(octets[512..1024], [b'N'; 512], "seed {seed}: what came after the failure is durable");
            octets[0] == b'o'
        });
        assert!(lost);
    }

    #[test]
    fn a_disk_that_lies_loses_what_was_synced() {
        let lie = |disk: &Disk, file: &disk::File| {
            disk.lie();
            write(file, &[b'n'; 512], 0).unwrap();
            file.sync_data().unwrap();
        };
        assert!((0..50).any(|seed| after(seed, lie)[0] == b'o'));
    }
}
