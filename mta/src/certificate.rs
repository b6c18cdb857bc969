//! Our own certificate, watched: whoever renews it need not know us.
//!
//! Once a minute the two files are looked at. When they are others than before, and a look later still the same, they are read;
//! so a pair of which only one half has been replaced is not yet tried. If they do not fit together, or cannot be read, the old
//! certificate stays, and that is said once.
//!
//! Not here: SIGHUP, which reads them at once (`main.rs`).

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::config::Tls;

/// The files are looked at at this pace.
pub const LOOK: Duration = Duration::from_secs(60);

/// What tells one version of a file from another without reading it: device and inode, length, and times of change.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

/// Certificate and key. None: one is not there.
type Stamps = Option<(Stamp, Stamp)>;

/// How the files looked.
#[derive(Debug, Default)]
pub struct Watch {
    /// When they were read last.
    read: Stamps,
    /// At the last look, if they were others then.
    changing: Stamps,
}

impl Watch {
    /// The files are being read now.
    pub fn handle_read(&mut self, files: &Tls) {
        *self = Watch { read: stamps(files), changing: None };
    }

    /// Whether to read them again. Said once for each version.
    pub fn look(&mut self, files: &Tls) -> bool {
        let seen = stamps(files);
        if seen.is_none() || seen == self.read {
            self.changing = None;
            return false;
        }
        let settled = seen == self.changing;
        self.changing = seen;
        if settled {
            self.read = seen;
        }
        settled
    }
}

fn stamps(files: &Tls) -> Stamps {
    Some((stamp(&files.certificate)?, stamp(&files.private_key)?))
}

fn stamp(path: &Path) -> Option<Stamp> {
    let it = std::fs::metadata(path).ok()?;
    Some((it.dev(), it.ino(), it.len(), (it.mtime(), it.mtime_nsec()), (it.ctime(), it.ctime_nsec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_again_once_when_both_have_come_to_rest() {
        let dir = tempfile::tempdir().unwrap();
        let files = Tls { certificate: dir.path().join("cert.pem"), private_key: dir.path().join("key.pem") };
        let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
        write(&files.certificate, "one");
        write(&files.private_key, "one");
        let mut watch = Watch::default();
        watch.handle_read(&files);
        assert!(!watch.look(&files) && !watch.look(&files), "nothing has changed");
        write(&files.certificate, "second");
        assert!(!watch.look(&files), "it has just changed");
        write(&files.private_key, "second");
        assert!(!watch.look(&files), "so has the key");
        assert!(watch.look(&files));
        assert!(!watch.look(&files), "said once");
        std::fs::remove_file(&files.private_key).unwrap();
        assert!(!watch.look(&files) && !watch.look(&files), "a file that is gone is no new one");
        // As a link that is turned: the same length, and perhaps the same second.
        write(&dir.path().join("new"), "second");
        std::fs::rename(dir.path().join("new"), &files.private_key).unwrap();
        assert!(!watch.look(&files));
        assert!(watch.look(&files));
    }
}
