//! Disk: opening an LMDB environment, files with positioned writes, and what makes their names durable.
//!
//! All calls block. They belong on the queue thread, never on a ring thread. A file may lie on a simulated disk, whose power can
//! be cut.
#![allow(unsafe_code)]

use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::sim;

/// Opens the LMDB environment in the directory `path`, with a map of `map_bytes` and up to `max_dbs` named databases.
///
/// Read transactions are not bound to threads. Open each environment once a process, with no other software writing to it.
pub fn open_env(path: &Path, map_bytes: usize, max_dbs: u32) -> heed::Result<heed::Env<heed::WithoutTls>> {
    let mut options = heed::EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(map_bytes).max_dbs(max_dbs);
    // SAFETY: the map is shared with the file, so nobody may change the file other than through LMDB's locks. The data
    // directory is ours alone (mode 0700), and heed refuses to open one path twice in a process.
    unsafe { options.open(path) }
}

/// Opens the environment in `path` beside a process that writes to it, only to read.
pub fn open_env_beside(path: &Path, map_bytes: usize, max_dbs: u32) -> heed::Result<heed::Env<heed::WithoutTls>> {
    let mut options = heed::EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(map_bytes).max_dbs(max_dbs);
    // SAFETY: as above; this handle only reads, and LMDB keeps the writer and the readers of several processes apart.
    unsafe {
        options.flags(heed::EnvFlags::READ_ONLY);
        options.open(path)
    }
}

/// Takes the pages of the environment in `path` out of this process's memory when there are more than `bytes_max` octets of
/// mapped files in it; true: it did. What was taken out is still in the page cache, and comes back when it is looked at.
///
/// LMDB maps its whole file, and the kernel leaves every page that was ever read in the map: after a drain of a large queue
/// hundreds of megabytes count as the process's own, for limits and for whoever looks, though nobody needs them.
///
/// An error says that /proc or the file cannot be read.
pub fn trim_env(path: &Path, bytes_max: usize) -> io::Result<bool> {
    // RssFile (proc(5)): the third number, in pages.
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split(' ').nth(2).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0);
    if pages.saturating_mul(rustix::param::page_size()) <= bytes_max {
        return Ok(false);
    }
    let inode = fs::metadata(path.join("data.mdb"))?.ino().to_string();
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut trimmed = false;
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights, its_inode) = (fields.next(), fields.next(), fields.nth(2));
        let hexadecimal = |text: &str| usize::from_str_radix(text, 16).ok();
        let Some((from, to)) = range.and_then(|range| range.split_once('-')) else { continue };
        let (Some(from), Some(to)) = (hexadecimal(from), hexadecimal(to)) else { continue };
        if its_inode != Some(inode.as_str()) || rights != Some("r--s") || !line.ends_with("data.mdb") {
            continue;
        }
        // SAFETY: a shared map of a file that we only read loses nothing: a page that is looked at again, even by a thread
        // that is looking right now, is mapped again from the page cache. No memory is freed and no address changes.
        trimmed |= unsafe { libc::madvise(from as *mut libc::c_void, to.saturating_sub(from), libc::MADV_DONTNEED) } == 0;
    }
    Ok(trimmed)
}

/// A file read and written at positions, and made durable when told.
#[derive(Debug)]
pub struct File {
    file: Arc<fs::File>,
    /// Its disk, and its number there, when that is simulated.
    disk: Option<(sim::Disk, u64)>,
}

impl File {
    /// Makes a new file, readable by its owner only; an error if it exists. Its name is durable after [`sync_dir`].
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::create_on(None, path)
    }

    /// The same on a simulated disk, if there is one.
    pub fn create_on(disk: Option<&sim::Disk>, path: &Path) -> io::Result<Self> {
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self::on(disk, path, file))
    }

    /// Opens a file that exists.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_on(None, path)
    }

    /// The same on a simulated disk, if there is one.
    pub fn open_on(disk: Option<&sim::Disk>, path: &Path) -> io::Result<Self> {
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self::on(disk, path, file))
    }

    fn on(disk: Option<&sim::Disk>, path: &Path, file: fs::File) -> Self {
        let file = Arc::new(file);
        let disk = disk.map(|disk| (disk.clone(), disk.watch(path, file.clone())));
        Self { file, disk }
    }

    /// Reserves the first `bytes`, so that writes to them later neither fail for want of space nor change metadata.
    pub fn allocate(&self, bytes: u64) -> io::Result<()> {
        let length = libc::off_t::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        loop {
            // SAFETY: the descriptor is open as long as `self`; no memory is passed.
            if unsafe { libc::fallocate(self.file.as_raw_fd(), 0, 0, length) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // A file system without reservations: then at least the length stands.
                Some(libc::EOPNOTSUPP) if self.len()? >= bytes => return Ok(()),
                Some(libc::EOPNOTSUPP) => return self.file.set_len(bytes),
                _ => return Err(error),
            }
        }
    }

    /// Writes all `octets` at `offset`.
    pub fn write_all_at(&self, octets: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_vectored_at(&mut [IoSlice::new(octets)], offset)
    }

    /// Writes all `slices`, one after another, at `offset`, in as few calls as the kernel allows.
    pub fn write_all_vectored_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        match &self.disk {
            None => self.write_vectored(slices, offset),
            Some((disk, number)) => {
                let length = slices.iter().map(|slice| slice.len() as u64).sum();
                disk.write(*number, offset, length, || self.write_vectored(slices, offset))
            }
        }
    }

    fn write_vectored(&self, mut slices: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        /// IOV_MAX on Linux.
        const AT_ONCE: usize = 1024;
        IoSlice::advance_slices(&mut slices, 0); // Drops empty slices at the front.
        while !slices.is_empty() {
            let position = libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            let count = slices.len().min(AT_ONCE) as libc::c_int;
            // SAFETY: IoSlice has the layout of iovec; `slices` holds at least `count` of them and outlives the call.
            let written = unsafe { libc::pwritev(self.file.as_raw_fd(), slices.as_ptr().cast(), count, position) };
            match usize::try_from(written) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut slices, written);
                }
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Fills `octets` from `offset`; an error if the file ends before.
    pub fn read_exact_at(&self, octets: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(octets, offset)
    }

    /// Returns once what was written would survive a loss of power (fdatasync). After an error nothing is known about
    /// what was written since the last success: the kernel does not report it twice. Write it elsewhere.
    pub fn sync_data(&self) -> io::Result<()> {
        match &self.disk {
            None => self.file.sync_data(),
            Some((disk, number)) => disk.sync(*number),
        }
    }

    /// Length of the file.
    pub fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Whether the file has no octets.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Makes the names in the directory `path` durable: of files created, renamed or removed there.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Makes the directory `path` and those above it that are missing, for its owner only, if it is not there; its name is durable
/// then. It is made durable even if it was there: whoever made it may have been cut off before.
pub fn make_dir(path: &Path) -> io::Result<()> {
    let missing = path.ancestors().skip(1).take_while(|above| !above.as_os_str().is_empty() && !above.exists()).count();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    for (nth, made) in path.ancestors().take(missing + 1).enumerate() {
        let above = made.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match sync_dir(above) {
            // A directory that we may not look into: somebody else made ours, and saw to it.
            Err(error) if nth == missing && error.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// Free space of the file system that `path` is on, as an ordinary user may use it.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends with NUL; `found` has room for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded and has filled it.
    let found = unsafe { found.assume_init() };
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_written_together_are_read_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        let file = File::create(&path).unwrap();
        file.allocate(1 << 20).unwrap();
        sync_dir(dir.path()).unwrap();
        let pieces: Vec<Vec<u8>> = (0..3000u32).map(|n| vec![n as u8; n as usize % 7]).collect();
        let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        file.write_all_vectored_at(&mut slices, 100).unwrap();
        file.sync_data().unwrap();
        let expected = pieces.concat();
        let mut found = vec![0; expected.len()];
        File::open(&path).unwrap().read_exact_at(&mut found, 100).unwrap();
        assert_eq!(found, expected);
        assert_eq!(file.len().unwrap(), 1 << 20);
        assert!(File::create(&path).is_err(), "a file that exists is not made again");
    }

    #[test]
    fn a_directory_is_made_with_those_above_it_and_may_be_there_already() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        make_dir(&path).unwrap();
        make_dir(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(dir.path().join("file"), "").unwrap();
        make_dir(&dir.path().join("file/x")).unwrap_err();
    }

    #[test]
    fn reading_past_the_end_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(&dir.path().join("short")).unwrap();
        file.write_all_at(b"abc", 0).unwrap();
        assert_eq!(file.read_exact_at(&mut [0; 4], 0).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_environment_opens_and_space_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let env = open_env(dir.path(), 1 << 20, 4).unwrap();
        use heed::{CommitOrAbort, Database, types::Bytes};
        let db: Database<Bytes, Bytes> = env
            .create_databases_and_commit(env.write_txn().unwrap(), |opener, txn| {
                opener.create_database(txn, Some("a")).map(CommitOrAbort::<_, ()>::Commit)
            })
            .unwrap()
            .unwrap_commit();
        let mut txn = env.write_txn().unwrap();
        db.put(&mut txn, b"k", b"v").unwrap();
        txn.commit().unwrap();
        let txn = env.read_txn().unwrap();
        assert_eq!(db.get(&txn, b"k").unwrap(), Some(&b"v"[..]));
        assert!(free_bytes(dir.path()).unwrap() > 0);
        assert!(free_bytes(Path::new("/no/such/place")).is_err());
    }
}
