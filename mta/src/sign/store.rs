//! The keys on disk, and the snapshot of them that signers read.
//!
//! `data_dir/keys/<domain>/<selector>.pem`, PKCS#8, files 0600 and directories 0700; written beside and
//! renamed, so that a crash leaves the old key or the new one. All keys of a domain sign: a rotation adds
//! the new pair beside the old, and the old is removed once the new is published.
//!
//! Not here: what a key is (`key.rs`), who may ask for a change (`control`).

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use host::Dice;

use super::key::{Algorithm, KeyError, SigningKey, check_domain, check_selector};

/// A private key's file; an RSA-4096 key in PEM has 3.3 KiB.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Keys of one domain: two pairs during a rotation. Each costs a signature on every message.
pub const KEYS_MAX: usize = 4;

/// What went wrong with which file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Check the path's owner, mode and disk.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// Replace or remove the key.
    #[error("{0}: {1}")]
    Key(PathBuf, KeyError),
    /// From a name or key that was given to us.
    #[error(transparent)]
    Given(#[from] KeyError),
    /// Nothing is overwritten.
    #[error("{0} exists: remove it first, or choose another selector")]
    Exists(PathBuf),
    /// `tradewind key list` shows what there is.
    #[error("{0} does not exist")]
    Missing(PathBuf),
    /// Remove the old ones first.
    #[error("{0} has {KEYS_MAX} keys already: remove those that are no longer published (`tradewind key remove --domain {0} …`)")]
    TooMany(String),
}

/// The directory of keys.
#[derive(Debug, Clone)]
pub struct KeyStore {
    root: PathBuf,
}

impl KeyStore {
    /// `data_dir/keys`, made when absent.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let root = data_dir.join("keys");
        make_dir(&root)?;
        Ok(Self { root })
    }

    /// Writes a key that is not there yet.
    pub fn add(&self, key: &SigningKey) -> Result<(), StoreError> {
        let path = self.path(key.domain(), key.selector())?;
        if path.exists() {
            return Err(StoreError::Exists(path));
        }
        if self.selectors(key.domain())?.len() >= KEYS_MAX {
            return Err(StoreError::TooMany(key.domain().to_owned()));
        }
        make_dir(&self.root.join(key.domain()))?;
        sync_dir(&self.root)?;
        write_secret(&path, key.to_pem()?.as_bytes())
    }

    /// Makes and writes a domain's RSA and Ed25519 pair with the selectors of the day.
    pub fn rotate(&self, domain: &str, now: SystemTime) -> Result<Vec<SigningKey>, StoreError> {
        check_domain(domain)?;
        let taken = self.selectors(domain)?;
        let prefix = selector_prefix(now, &taken);
        let pair = [Algorithm::Rsa, Algorithm::Ed25519]
            .map(|algorithm| SigningKey::generate(domain, &format!("{prefix}{}", algorithm.letter()), algorithm));
        let pair = pair.into_iter().collect::<Result<Vec<_>, _>>()?;
        if taken.len() + pair.len() > KEYS_MAX {
            return Err(StoreError::TooMany(domain.to_owned()));
        }
        for key in &pair {
            self.add(key)?;
        }
        Ok(pair)
    }

    /// The key of that name, made (RSA) when there is none: the co-op's own.
    pub fn ensure(&self, domain: &str, selector: &str) -> Result<SigningKey, StoreError> {
        match self.load(domain, selector) {
            Err(StoreError::Missing(_)) => {
                let key = SigningKey::generate(domain, selector, Algorithm::Rsa)?;
                self.add(&key)?;
                Ok(key)
            }
            other => other,
        }
    }

    /// Reads one key.
    pub fn load(&self, domain: &str, selector: &str) -> Result<SigningKey, StoreError> {
        let path = self.path(domain, selector)?;
        let pem = read_secret(&path)?;
        SigningKey::from_pem(domain, selector, &pem).map_err(|error| StoreError::Key(path, error))
    }

    /// Removes one key.
    pub fn remove(&self, domain: &str, selector: &str) -> Result<(), StoreError> {
        let path = self.path(domain, selector)?;
        fs::remove_file(&path).map_err(|error| io_error(&path, error))?;
        sync_dir(&self.root.join(domain))
    }

    /// All keys that can be read, in order of domain and selector, and what is wrong with the others.
    pub fn load_all(&self) -> Result<(Vec<SigningKey>, Vec<StoreError>), StoreError> {
        let (mut keys, mut troubles) = (Vec::new(), Vec::new());
        for domain in names(&self.root)? {
            if check_domain(&domain).is_err() || !self.root.join(&domain).is_dir() {
                continue;
            }
            for selector in self.selectors(&domain)? {
                match self.load(&domain, &selector) {
                    Ok(key) => keys.push(key),
                    Err(trouble) => troubles.push(trouble),
                }
            }
        }
        Ok((keys, troubles))
    }

    /// The selectors of one domain, in order.
    pub fn selectors(&self, domain: &str) -> Result<Vec<String>, StoreError> {
        check_domain(domain)?;
        let files = match names(&self.root.join(domain)) {
            Err(StoreError::Missing(_)) => Vec::new(),
            other => other?,
        };
        let selectors = files.iter().filter_map(|file| file.strip_suffix(".pem"));
        Ok(selectors.filter(|selector| check_selector(selector).is_ok()).map(str::to_owned).collect())
    }

    fn path(&self, domain: &str, selector: &str) -> Result<PathBuf, KeyError> {
        check_domain(domain)?;
        check_selector(selector)?;
        Ok(self.root.join(domain).join(format!("{selector}.pem")))
    }
}

/// Every key, as signers see it: replaced as a whole, never changed.
#[derive(Debug, Clone, Default)]
pub struct KeyRing {
    members: BTreeMap<String, Vec<Arc<SigningKey>>>,
    coop: Option<Arc<SigningKey>>,
}

impl KeyRing {
    /// `coop` names the co-op's own key by domain and selector; the others are members'.
    pub fn new(keys: impl IntoIterator<Item = SigningKey>, coop: Option<(&str, &str)>) -> Self {
        let mut ring = Self::default();
        for key in keys {
            if coop == Some((key.domain(), key.selector())) {
                ring.coop = Some(Arc::new(key));
            } else {
                ring.members.entry(key.domain().to_owned()).or_default().push(Arc::new(key));
            }
        }
        for keys in ring.members.values_mut() {
            keys.sort_by(|a, b| (a.algorithm(), a.selector()).cmp(&(b.algorithm(), b.selector())));
        }
        ring
    }

    /// A domain's keys: RSA first.
    pub fn member(&self, domain: &str) -> &[Arc<SigningKey>] {
        self.members.get(domain).map_or(&[], Vec::as_slice)
    }

    /// The co-op's own key.
    pub fn coop(&self) -> Option<&Arc<SigningKey>> {
        self.coop.as_ref()
    }

    /// Every domain that has a key of its own.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }
}

/// `tw20261123`, and with a letter behind it when that day has made keys already.
pub fn selector_prefix(now: SystemTime, taken: &[String]) -> String {
    let day =
        jiff::Timestamp::try_from(now).unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC).strftime("tw%Y%m%d").to_string();
    let free = |prefix: &String| {
        !taken.iter().any(|selector| selector.starts_with(prefix.as_str()) && selector.len() == prefix.len() + 1)
    };
    std::iter::once(day.clone()).chain(('a'..='z').map(|letter| format!("{day}-{letter}"))).find(free).unwrap_or(day)
}

/// Writes a secret to a new file of mode 0600: whole or not at all.
pub(crate) fn write_secret(path: &Path, octets: &[u8]) -> Result<(), StoreError> {
    let failed = |error| io_error(path, error);
    let beside = path.with_extension("new");
    // Left by a crash; ours, since we are the only writer.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(failed)?;
    file.write_all(octets).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// A key of the daemon's own for keyed hashes: 32 octets in a file of mode 0600. `dice` makes it where it is missing; `restore`
/// says what to do where it is not a key.
pub(crate) fn own_key(path: &Path, restore: &str, dice: Option<&Dice>) -> Result<zeroize::Zeroizing<Vec<u8>>, StoreError> {
    match (read_secret(path), dice) {
        (Ok(octets), _) if octets.len() == 32 => Ok(octets),
        (Ok(_), _) => {
            let says = format!("must hold 32 octets; restore it from a backup, or {restore}");
            Err(StoreError::Io(path.to_owned(), io::Error::other(says)))
        }
        (Err(StoreError::Missing(_)), Some(dice)) => {
            let mut octets = zeroize::Zeroizing::new(vec![0; 32]);
            dice.fill(&mut octets);
            write_secret(path, &octets)?;
            Ok(octets)
        }
        (Err(error), _) => Err(error),
    }
}

/// Reads a small file.
pub(crate) fn read_secret(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, StoreError> {
    let mut octets = zeroize::Zeroizing::new(Vec::new());
    let file = fs::File::open(path).map_err(|error| io_error(path, error))?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut octets).map_err(|error| io_error(path, error))?;
    Ok(octets)
}

fn make_dir(path: &Path) -> Result<(), StoreError> {
    host::disk::make_dir(path).map_err(|error| io_error(path, error))
}

fn sync_dir(path: &Path) -> Result<(), StoreError> {
    fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(|error| io_error(path, error))
}

fn names(path: &Path) -> Result<Vec<String>, StoreError> {
    let failed = |error| io_error(path, error);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn io_error(path: &Path, error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::NotFound => StoreError::Missing(path.to_owned()),
        _ => StoreError::Io(path.to_owned(), error),
    }
}
