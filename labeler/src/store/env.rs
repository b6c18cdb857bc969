//! Opening the LMDB environment and letting go of its pages: the labeler's only `unsafe`, which the tidy test names.
//!
//! The MTA's `host` wraps the same call; the labeler may not depend on it.
#![allow(unsafe_code)]

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, WithoutTls};

/// Address space, not memory or disk. When it is full, nothing new is taken in and what is there is served; about ten million labels.
const MAP_BYTES: usize = 16 << 30;

/// All tables. New ones are added at the end.
pub(super) const TABLES: [&str; 11] =
    ["meta", "attested", "due", "log", "current", "renew", "superseded", "checks", "domains", "sending", "standing"];
/// The file that is the store.
pub(super) const DATA: &str = "data.mdb";
/// What only holds locks.
pub(super) const LOCKS: [&str; 2] = ["lock.mdb", "in-use"];
/// More than there are; room for those of later versions.
const TABLES_MAX: u32 = 32;

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
    let lock = take(path)?;
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(MAP_BYTES).max_dbs(TABLES_MAX);
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

/// Makes the folder, and is the one process that may write in it for as long as the answer lives.
pub(super) fn take(path: &Path) -> Result<File, heed::Error> {
    make_folder(path)?;
    let lock = File::options().write(true).create(true).truncate(false).open(path.join("in-use"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process has it open").into()),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// For its owner only.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens the environment in `path` beside whoever writes it, to copy it.
pub(super) fn open_to_copy(path: &Path) -> Result<Env<WithoutTls>, heed::Error> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(MAP_BYTES).max_dbs(TABLES_MAX);
    // SAFETY: as in `open`; this handle only reads, and LMDB keeps readers and the writer of several processes apart.
    unsafe {
        options.flags(EnvFlags::READ_ONLY);
        options.open(path)
    }
}

/// Drops these pages from the process's memory.
pub(super) fn let_go(map: Range<usize>) -> io::Result<()> {
    let start = std::ptr::without_provenance_mut(map.start);
    // SAFETY: the addresses are those of LMDB's shared map of the store's file, which is never written through: for such a map
    // MADV_DONTNEED changes no octet (madvise(2)). Who reads in it just now has its page mapped again.
    match unsafe { libc::madvise(start, map.len(), libc::MADV_DONTNEED) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Octets of [`file_identity`].
pub(super) const IDENTITY_BYTES: usize = 16;

/// Which file the store is: another one, also a copy of this one, has another inode or was made at another time.
pub(super) fn file_identity(path: &Path) -> Result<[u8; IDENTITY_BYTES], heed::Error> {
    let file = std::fs::metadata(path.join(DATA))?;
    // Not every file system knows when; then the inode alone has to do.
    let made = file.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok()).map_or(0, |made| made.as_nanos());
    let made = u64::try_from(made).unwrap_or(u64::MAX);
    Ok((u128::from(file.ino()) << 64 | u128::from(made)).to_be_bytes())
}
