//! What a disk shows after the power went, made from the log of a process that was cut off.
//!
//! What becomes of the sectors that were not synced is decided by [`host::sim::disk`], as in the seeded world. Names that
//! were made, changed or removed since their folder's last sync are kept up to a point in time and lost after it, as a file
//! system with a journal does it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use host::Dice;
use host::sim::disk::{self, Change, Kindness, Sectors};

/// Octets of a record of the log without its payload; see `shim.c`.
const RECORD: usize = 40;

/// What became of what was not synced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Loss {
    /// The call at which the power went, if the log says one.
    pub cut: Option<String>,
    /// Sectors written and not synced.
    pub(super) sectors: Sectors,
    /// Names made, changed or removed, and not synced, that are there (or not) all the same.
    pub names_kept: u64,
    /// Those that are as before.
    pub names_lost: u64,
    /// Syncs that failed before.
    pub syncs_failed: u64,
}

/// Makes the files such as the disk might show them. The process that wrote `log` must be gone.
pub(super) fn after_power_cut(log: &Path, dice: &Dice, kindness: Kindness) -> Result<Loss> {
    let octets = read(log)?;
    let records = records(&octets)?;
    let syncs_failed = records.iter().filter(|record| record.kind == Kind::Failed).count() as u64;
    let mut loss = Loss { cut: cut(&records), syncs_failed, ..Loss::default() };
    for (number, path) in paths(&records) {
        let changes: Vec<_> = records.iter().filter(|record| record.file == number).filter_map(Record::change).collect();
        let file = File::options().read(true).write(true).open(&path);
        let shown = file.and_then(|file| disk::show(&file, &changes, dice, kindness));
        let Sectors { kept, lost, torn } = shown.with_context(|| format!("undo writes to {}", path.display()))?;
        loss.sectors.kept += kept;
        loss.sectors.lost += lost;
        loss.sectors.torn += torn;
    }
    undo_names(&records, dice, kindness, &mut loss).context("undo names")?;
    remove_kept(log)?;
    // What is undone is not undone again.
    may_be_absent(fs::remove_file(log))?;
    Ok(loss)
}

/// Whether the process was ended as it was told.
pub(super) fn was_cut(log: &Path) -> Result<bool> {
    Ok(cut(&records(&read(log)?)?).is_some())
}

/// A process that ended before it did anything has left no log.
fn read(log: &Path) -> Result<Vec<u8>> {
    match fs::read(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.with_context(|| format!("read {}", log.display())),
    }
}

fn cut(records: &[Record<'_>]) -> Option<String> {
    let cut = records.iter().find(|record| record.kind == Kind::Cut)?;
    Some(String::from_utf8_lossy(cut.payload).into_owned())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Named,
    Wrote,
    Synced,
    WroteSynced,
    Failed,
    Created,
    Renamed,
    Removed,
    MadeDir,
    DirSynced,
    Cut,
}

struct Record<'a> {
    kind: Kind,
    file: u32,
    offset: u64,
    length: u64,
    size: u64,
    payload: &'a [u8],
}

impl<'a> Record<'a> {
    fn change(&self) -> Option<Change<'a>> {
        let Record { offset, length, size, payload, .. } = *self;
        match self.kind {
            Kind::Wrote => Some(Change::Wrote { offset, length, size, before: payload }),
            Kind::Synced => Some(Change::Synced),
            Kind::WroteSynced => Some(Change::WroteSynced { offset, length }),
            Kind::Failed => Some(Change::SyncFailed),
            _ => None,
        }
    }
}

fn records(mut octets: &[u8]) -> Result<Vec<Record<'_>>> {
    use Kind::{Created, Cut, DirSynced, Failed, MadeDir, Named, Removed, Renamed, Synced, Wrote, WroteSynced};
    const KINDS: [Kind; 11] = [Named, Wrote, Synced, WroteSynced, Failed, Created, Renamed, Removed, MadeDir, DirSynced, Cut];
    let mut records = Vec::new();
    while let Some((head, rest)) = octets.split_at_checked(RECORD) {
        let u32_at = |at: usize| head[at..at + 4].try_into().map(u32::from_ne_bytes);
        let u64_at = |at: usize| head[at..at + 8].try_into().map(u64::from_ne_bytes);
        let number = u32_at(0)? as usize;
        let Some(kind) = number.checked_sub(1).and_then(|nth| KINDS.get(nth)) else { bail!("the log is damaged") };
        // A record cut off was written before its call, which then never took place.
        let Some((payload, rest)) = rest.split_at_checked(usize::try_from(u64_at(32)?)?) else { break };
        records.push(Record {
            kind: *kind,
            file: u32_at(4)?,
            offset: u64_at(8)?,
            length: u64_at(16)?,
            size: u64_at(24)?,
            payload,
        });
        octets = rest;
    }
    Ok(records)
}

fn path_of(octets: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(octets))
}

/// The parts of a payload between NULs, as paths.
fn parts(payload: &[u8]) -> Vec<PathBuf> {
    payload.split(|octet| *octet == 0).map(path_of).collect()
}

/// Where each file lies at the end; one that was removed, where it is kept.
fn paths(records: &[Record<'_>]) -> BTreeMap<u32, PathBuf> {
    let mut paths: BTreeMap<u32, PathBuf> = BTreeMap::new();
    let change = |from: &Path, to: &Path, paths: &mut BTreeMap<u32, PathBuf>| {
        paths.values_mut().filter(|path| *path == from).for_each(|path| *path = to.to_owned());
    };
    for record in records {
        match record.kind {
            Kind::Named => drop(paths.insert(record.file, path_of(record.payload))),
            Kind::Renamed => {
                if let [old, new, kept] = &parts(record.payload)[..] {
                    change(new, kept, &mut paths);
                    change(old, new, &mut paths);
                }
            }
            Kind::Removed => {
                if let [path, kept] = &parts(record.payload)[..] {
                    change(path, kept, &mut paths);
                }
            }
            _ => {}
        }
    }
    paths
}

/// In each folder, what happened since its last sync is kept up to a point and undone after it.
fn undo_names(records: &[Record<'_>], dice: &Dice, kindness: Kindness, loss: &mut Loss) -> io::Result<()> {
    let mut open: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (nth, record) in records.iter().enumerate() {
        match record.kind {
            Kind::DirSynced => drop(open.remove(&record.file)),
            Kind::Created | Kind::Renamed | Kind::Removed | Kind::MadeDir => open.entry(record.file).or_default().push(nth),
            _ => {}
        }
    }
    let mut lost: Vec<usize> = Vec::new();
    for changes in open.values() {
        let kept = changes.iter().take_while(|_| kindness.keeps(dice)).count();
        loss.names_kept += kept as u64;
        lost.extend(&changes[kept..]);
    }
    lost.sort();
    loss.names_lost = lost.len() as u64;
    for record in lost.into_iter().rev().map(|nth| &records[nth]) {
        let parts = parts(record.payload);
        // What was never done need not be undone, and what lay in a folder that is lost is lost with it.
        match (record.kind, &parts[..]) {
            (Kind::Created, [path]) => may_be_absent(fs::remove_file(path))?,
            (Kind::MadeDir, [path]) => may_be_absent(fs::remove_dir_all(path))?,
            (Kind::Renamed, [old, new, kept]) => {
                may_be_absent(fs::rename(new, old))?;
                if !kept.as_os_str().is_empty() {
                    may_be_absent(fs::hard_link(kept, new))?;
                }
            }
            (Kind::Removed, [path, kept]) => may_be_absent(fs::hard_link(kept, path))?,
            _ => {}
        }
    }
    Ok(())
}

fn may_be_absent(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => Ok(()),
        done => done,
    }
}

/// Removed files were kept beside the log under its name with `.kept` and a number.
fn remove_kept(log: &Path) -> io::Result<()> {
    let prefix = [log.file_name().unwrap_or_default().as_bytes(), b".kept"].concat();
    for entry in fs::read_dir(log.parent().unwrap_or(Path::new(".")))? {
        let entry = entry?;
        if entry.file_name().as_bytes().starts_with(&prefix) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
