//! Opening the LMDB environment: the labeler's only `unsafe`, which the tidy test names.
//!
//! The MTA's `host` wraps the same call; the labeler may not depend on it.
#![allow(unsafe_code)]

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, WithoutTls};

/// Address space, not memory or disk. When it is full, nothing new is taken in and what is there is served; about ten million labels.
const MAP_BYTES: usize = 16 << 30;

pub(super) type Table = Database<'static, Bytes, Bytes>;

/// An open environment. It is this process's alone while the lock is held.
#[derive(Debug)]
pub(super) struct Opened<const N: usize> {
    pub(super) env: Env<WithoutTls>,
    pub(super) tables: [Table; N],
    pub(super) lock: File,
}

/// Opens the environment in `path` with these tables; makes what is absent.
pub(super) fn open<const N: usize>(path: &Path, names: [&str; N]) -> Result<Opened<N>, heed::Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let lock = File::options().write(true).create(true).truncate(false).open(path.join("in-use"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process has it open").into());
        }
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(MAP_BYTES).max_dbs(u32::try_from(N).unwrap_or(u32::MAX));
    // SAFETY: the map is shared with the file, so nobody may change the file other than through LMDB. The folder is ours (mode 0700),
    // the lock above keeps a second labeler out, and heed refuses to open one path twice in a process.
    let env = unsafe { options.open(path) }?;
    let txn = env.write_txn()?;
    let opened = env.create_databases_and_commit(txn, |opener, txn| -> heed::Result<_> {
        let mut tables = Vec::with_capacity(N);
        for name in names {
            tables.push(opener.create_database::<Bytes, Bytes>(txn, Some(name))?);
        }
        match <[_; N]>::try_from(tables) {
            Ok(tables) => Ok(CommitOrAbort::<_, ()>::Commit(tables)),
            Err(_) => unreachable!("one table for each name"),
        }
    })?;
    Ok(Opened { tables: opened.unwrap_commit(), env, lock })
}
