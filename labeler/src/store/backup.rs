//! Copies of the store: made while the labeler runs, put in place while it does not.
//!
//! LMDB gives a second process a snapshot, so a backup needs nothing of the daemon and stops nobody. The copy is compact and says of itself
//! that it is one, so that whoever opens it goes on with numbers that the original never used. The signing key is not in it: keep that
//! apart, or every label is signed again with a new key.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use heed::{CompactionOption, Env, WithoutTls};

use super::{COPY, Store, env};

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Name another folder.
    #[error("{0} exists already; name a folder that does not")]
    Exists(PathBuf),
    /// A restore never replaces a store: it might be the better one.
    #[error("{0} holds a store; move it away first")]
    Occupied(PathBuf),
    /// There is nothing to copy.
    #[error("{0} holds no store")]
    NoStore(PathBuf),
    /// The disk refuses, or the labeler runs.
    #[error("{0}: {1}")]
    Store(PathBuf, heed::Error),
}

/// Copies the store in `data_dir` into a new folder, whether a labeler has it open or not.
pub fn backup(data_dir: &Path, to: &Path) -> Result<(), BackupError> {
    if !data_dir.join(env::DATA).exists() {
        return Err(BackupError::NoStore(data_dir.into()));
    }
    let source = env::open_to_copy(data_dir).map_err(|error| BackupError::Store(data_dir.into(), error))?;
    copy(&source, to)
}

impl Store {
    /// The same by the process that has it open.
    pub fn backup(&self, to: &Path) -> Result<(), BackupError> {
        copy(&self.env, to)
    }
}

fn copy(source: &Env<WithoutTls>, to: &Path) -> Result<(), BackupError> {
    if to.exists() {
        return Err(BackupError::Exists(to.into()));
    }
    // Under its name only when it is whole.
    let part = to.with_extension("part");
    copy_marked(source, &part, to).map_err(|error| {
        let _ = fs::remove_dir_all(&part);
        BackupError::Store(to.into(), error)
    })
}

fn copy_marked(source: &Env<WithoutTls>, part: &Path, to: &Path) -> Result<(), heed::Error> {
    match fs::remove_dir_all(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => env::make_folder(part)?,
    }
    drop(source.copy_to_path(part.join(env::DATA), CompactionOption::Enabled)?);
    let env::Opened { env, tables: [meta], lock } = env::open(part, ["meta"])?;
    let mut txn = env.write_txn()?;
    meta.put(&mut txn, COPY, b"1")?;
    txn.commit()?;
    env.prepare_for_closing().wait();
    drop(lock);
    for name in env::LOCKS {
        let _ = fs::remove_file(part.join(name));
    }
    File::open(part.join(env::DATA))?.sync_all()?;
    File::open(part)?.sync_all()?;
    fs::rename(part, to)?;
    sync_parent(to)
}

/// Puts the copy in `from` into `data_dir`, which no labeler may have open and which may hold no store.
pub fn restore(from: &Path, data_dir: &Path) -> Result<(), BackupError> {
    if !from.join(env::DATA).exists() {
        return Err(BackupError::NoStore(from.into()));
    }
    let refused = |error: heed::Error| BackupError::Store(data_dir.into(), error);
    let _lock = env::take(data_dir).map_err(refused)?;
    if data_dir.join(env::DATA).exists() {
        return Err(BackupError::Occupied(data_dir.into()));
    }
    put_in_place(from, data_dir).map_err(refused)
}

fn put_in_place(from: &Path, data_dir: &Path) -> Result<(), heed::Error> {
    let part = data_dir.join("data.part");
    fs::copy(from.join(env::DATA), &part)?;
    File::open(&part)?.sync_all()?;
    // Of a store that was here before.
    let _ = fs::remove_file(data_dir.join("lock.mdb"));
    fs::rename(&part, data_dir.join(env::DATA))?;
    Ok(File::open(data_dir)?.sync_all()?)
}

fn sync_parent(path: &Path) -> Result<(), heed::Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(File::open(folder)?.sync_all()?)
}
