//! Copies of what lasts: members, credentials, operators, labels, warmup, events, the audit, the keys, and plans and
//! shaping that operators keep. Made while the daemon runs or not.
//!
//! **Mail is not in a copy.** It would be sent a second time by whoever goes back to it, and what has come since would be lost anyway: a
//! copy is always older than the queue. LMDB gives a second process a snapshot, so a backup needs nothing of the daemon and stops
//! nobody. The tables of mail are emptied in the copy; the last id given out stays, so that ids go on rising.
//!
//! A copy is a data directory: to go back to it, put it in the place of the other one. Keys are in it, so it is as secret as that.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use heed::CompactionOption;
use host::disk;

use super::options::Options;
use super::tables::{TABLES_MAX, Tables};
use super::types::QueueError;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Name another folder.
    #[error("{0} exists already; name a folder that does not")]
    Exists(PathBuf),
    /// See `data_dir`.
    #[error("{0} holds no queue")]
    NoQueue(PathBuf),
    /// The disk refuses.
    #[error("the copy {0} cannot be made: {1}")]
    Disk(PathBuf, QueueError),
}

/// Copies what lasts of `data_dir` into the new folder `to`, which appears when all of it is on disk.
pub fn backup(data_dir: &Path, to: &Path) -> Result<(), BackupError> {
    let lmdb = data_dir.join("queue/lmdb");
    if !lmdb.join("data.mdb").exists() {
        return Err(BackupError::NoQueue(data_dir.into()));
    }
    if to.exists() {
        return Err(BackupError::Exists(to.into()));
    }
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let made = copy(data_dir, &lmdb, &part).and_then(|()| {
        fs::rename(&part, to)?;
        Ok(disk::sync_dir(to.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new(".")))?)
    });
    made.map_err(|error| {
        let _ = fs::remove_dir_all(&part);
        BackupError::Disk(to.into(), error)
    })
}

fn copy(data_dir: &Path, lmdb: &Path, part: &Path) -> Result<(), QueueError> {
    // Of a backup that was cut off.
    match fs::remove_dir_all(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let (whole, target) = (part.join("whole"), part.join("queue/lmdb"));
    for folder in [part, &whole, &part.join("queue"), &target] {
        disk::make_dir(folder)?;
    }
    let map_bytes = Options::default().map_bytes;
    let source = disk::open_env_beside(lmdb, map_bytes, TABLES_MAX)?;
    drop(source.copy_to_path(whole.join("data.mdb"), CompactionOption::Enabled)?);
    drop(source);
    let env = disk::open_env(&whole, map_bytes, TABLES_MAX)?;
    let tables = Tables::open(&env)?;
    let mut txn = env.write_txn()?;
    for table in tables.of_mail() {
        table.clear(&mut txn)?;
    }
    txn.commit()?;
    // Without the room that mail had.
    env.copy_to_path(target.join("data.mdb"), CompactionOption::Enabled)?.sync_all()?;
    env.prepare_for_closing().wait();
    fs::remove_dir_all(&whole)?;
    disk::sync_dir(&target)?;
    copy_folder(&data_dir.join("keys"), &part.join("keys"))?;
    let plans = data_dir.join("plans");
    if plans.is_dir() {
        copy_folder(&plans, &part.join("plans"))?;
    }
    for kept in ["shaping.toml", "shaping.before"] {
        copy_file(&data_dir.join(kept), &part.join(kept))?;
    }
    disk::sync_dir(part)?;
    Ok(())
}

/// Two levels of small files, for their owner only. One that is removed meanwhile is not in the copy.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    disk::make_dir(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, target) = match entry {
            Ok(entry) => (entry.path(), to.join(entry.file_name())),
            Err(error) => return Err(error),
        };
        if entry.is_dir() {
            copy_folder(&entry, &target)?;
            continue;
        }
        copy_file(&entry, &target)?;
    }
    disk::sync_dir(to)
}

/// One that is not there is not in the copy.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    match fs::copy(from, to) {
        Ok(_) => File::open(to)?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
