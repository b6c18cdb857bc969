//! The file of the signing key: 64 hexadecimal digits, for its owner only.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use atproto::key::SigningKey;
use data_encoding::HEXLOWER_PERMISSIVE as HEX;

use crate::outside;

/// Reads the key; makes one when there is no file.
pub(crate) fn open(path: &Path) -> Result<SigningKey, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            if std::fs::metadata(path).is_ok_and(|file| file.mode() & 0o077 != 0) {
                tracing::warn!(path = %path.display(), "others can read the signing key; chmod 600 it");
            }
            let octets = HEX.decode(text.trim().as_bytes()).map_err(|_| NOT_A_KEY)?;
            SigningKey::from_octets(&octets).map_err(|_| NOT_A_KEY.into())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => make(path).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

const NOT_A_KEY: &str = "not 64 hexadecimal digits of a secp256k1 key; restore it, or move it away to have a new one made";

fn make(path: &Path) -> std::io::Result<SigningKey> {
    let key = loop {
        // All but about one in 2^128 numbers are keys.
        if let Ok(key) = SigningKey::from_octets(&outside::random::<32>()) {
            break key;
        }
    };
    // Durable under its name before anything is signed with it: written aside first, so that a crash leaves a whole key or none.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let aside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    writeln!(file, "{}", HEX.encode(&key.to_octets()))?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    std::fs::File::open(folder)?.sync_all()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labeler.key");
        let made = open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(open(&path).unwrap().verifying_key(), made.verifying_key());
        std::fs::write(&path, "rubbish").unwrap();
        assert!(open(&path).is_err(), "a key that is there is never replaced");
    }
}
