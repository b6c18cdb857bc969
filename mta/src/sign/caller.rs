//! The key with which this MTA calls methods of the labeler (service auth), and the file it lives in: 64 hexadecimal digits, mode 0600.
//!
//! It has nothing to do with mail: no message is signed with it.

use std::path::Path;

use atproto::key::SigningKey;
use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use host::Dice;

use super::store::{StoreError, read_secret, write_secret};

/// Reads the key; makes one when there is no file. One that is there is never replaced.
pub fn open(path: &Path, dice: &Dice) -> Result<SigningKey, StoreError> {
    let octets = match read_secret(path) {
        Ok(text) => {
            let text = std::str::from_utf8(&text).unwrap_or_default().trim();
            zeroize::Zeroizing::new(HEX.decode(text.as_bytes()).unwrap_or_default())
        }
        Err(StoreError::Missing(_)) => make(path, dice)?,
        Err(error) => return Err(error),
    };
    let wrong = |_| {
        let why = "not 64 hexadecimal digits of a secp256k1 key; restore it, or move it away to have a new one made";
        StoreError::Io(path.to_owned(), std::io::Error::new(std::io::ErrorKind::InvalidData, why))
    };
    SigningKey::from_octets(&octets).map_err(wrong)
}

fn make(path: &Path, dice: &Dice) -> Result<zeroize::Zeroizing<Vec<u8>>, StoreError> {
    let mut octets = zeroize::Zeroizing::new(vec![0; 32]);
    // All but about one in 2^128 numbers are keys.
    loop {
        dice.fill(&mut octets);
        if SigningKey::from_octets(&octets).is_ok() {
            break;
        }
    }
    let text = zeroize::Zeroizing::new(HEX.encode(&octets));
    write_secret(path, text.as_bytes())?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("standing.key");
        let made = open(&path, &Dice::seeded(7)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(open(&path, &Dice::seeded(8)).unwrap().verifying_key(), made.verifying_key());
        for rubbish in ["", "rubbish", "00"] {
            std::fs::write(&path, rubbish).unwrap();
            assert!(open(&path, &Dice::seeded(7)).unwrap_err().to_string().contains("standing.key: not 64"), "{rubbish}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), rubbish, "one that is there is never replaced");
        }
    }
}
