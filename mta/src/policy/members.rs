//! Members and their credentials, as they lie in the tables `members` and `credentials`.
//!
//! A credential belongs to one domain of one member. Its secret is shown once and then known to the member
//! only: we keep a keyed hash of it, so neither a stolen database nor a stolen key file alone lets one guess.
//!
//! Not here: finding one by user name (`directory.rs`), the tables (`queue`).

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use host::Dice;
use ring::hmac;
use serde::{Deserialize, Serialize};
use smtp::Secret;

use crate::sign::store::{StoreError, own_key};

/// Before every secret that we make, so that people and leak scanners know what they have found.
pub const SECRET_PREFIX: &str = "tw_";

/// 31 characters of 62 are 184 random bits; 160 are promised.
const SECRET_CHARS: usize = 31;

/// Nothing that a URL, a shell or an .env file would treat in its own way.
const SECRET_ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// did:web is the longest kind we know: `did:web:`, a domain, a port.
const DID_BYTES_MAX: usize = 270;

/// What a message is for. Decides lane and lifetime. In order, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A one-time code: worthless after minutes.
    Otp,
    /// A person waits for it: confirmations, resets.
    Transactional,
    /// May arrive tomorrow.
    Notice,
}

impl Class {
    /// As in commands, rows and `Feedback-ID`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Otp => "otp",
            Self::Transactional => "transactional",
            Self::Notice => "notice",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Class {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Otp, Self::Transactional, Self::Notice]
            .into_iter()
            .find(|class| class.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no class: otp, transactional or notice"))
    }
}

/// An enrolled DID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Short, for the queue's rows. Never given twice.
    pub id: u32,
    /// Who it is.
    pub did: String,
    /// As it was at enrolment; a user name, never an authority.
    #[serde(default)]
    pub handle: Option<String>,
    /// The operator's reason, told to the member. None: may send.
    #[serde(default)]
    pub suspended: Option<String>,
    /// The tier that the operator put it into. None: the default.
    #[serde(default)]
    pub tier: Option<String>,
    /// The pool that the operator put it into. None: its classes'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Domains it sends from, canonical (lower case, A-labels).
    pub domains: Vec<String>,
}

/// What one sending system of a member logs in with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Never given twice.
    pub id: u32,
    /// Whose it is.
    pub member: u32,
    /// The only domain it may send from.
    pub domain: String,
    /// What its mail is unless it says otherwise.
    pub class: Class,
    /// What the operator allowed; mail that claims to be more urgent than all of these is not believed. None: anything.
    #[serde(default)]
    pub classes: Vec<Class>,
    /// HMAC-SHA-256 of the secret; see [`CredentialKey`].
    pub hash: [u8; 32],
}

/// Shows everything but the hash.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, member, domain, class, .. } = self;
        write!(f, "Credential({id} of member {member} for {domain}, {class})")
    }
}

/// A row that is not what we wrote. Set it aside and tell the operator.
#[derive(Debug, thiserror::Error)]
#[error("unreadable row: {0}")]
pub struct RowError(#[from] serde_json::Error);

macro_rules! rows {
    ($($type:ty)*) => { $(
        impl $type {
            /// The row as it is kept.
            pub fn encode(&self) -> Result<Vec<u8>, RowError> {
                Ok(serde_json::to_vec(self)?)
            }

            /// Reads a row.
            pub fn decode(row: &[u8]) -> Result<Self, RowError> {
                Ok(serde_json::from_slice(row)?)
            }
        }
    )* };
}
rows!(Member Credential);

/// The server's half of every credential: without it the hashes in the database say nothing.
#[derive(Clone)]
pub struct CredentialKey(hmac::Key);

impl CredentialKey {
    /// Reads `data_dir/keys/credential.key` (32 octets, mode 0600), or makes it. `data_dir/keys` exists
    /// once a `KeyStore` was opened.
    pub fn open(data_dir: &Path, dice: &Dice) -> Result<Self, StoreError> {
        let path = data_dir.join("keys").join("credential.key");
        // A shorter one was not written by us; hashes made with it would be worth less than they look.
        Ok(Self::new(&own_key(&path, "remove it and issue all credentials anew", Some(dice))?))
    }

    /// From octets; tests and the simulation have no file.
    pub fn new(octets: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, octets))
    }

    /// What is kept of a secret.
    pub fn hash(&self, secret: &str) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(hmac::sign(&self.0, secret.as_bytes()).as_ref());
        hash
    }

    /// Whether this is the credential's secret, in a time that does not depend on how much of it is right.
    pub fn verify(&self, credential: &Credential, secret: &str) -> bool {
        hmac::verify(&self.0, secret.as_bytes(), &credential.hash).is_ok()
    }
}

impl fmt::Debug for CredentialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialKey(…)")
    }
}

/// A new secret: survives URLs without escaping, and holds no colon (see `directory.rs` for why).
pub fn new_secret(dice: &Dice) -> Secret {
    let chars = (0..SECRET_CHARS).map(|_| char::from(SECRET_ALPHABET[dice.below(62) as usize]));
    Secret::new(SECRET_PREFIX.chars().chain(chars).collect::<String>())
}

/// DID syntax, for the two methods that atproto uses; what passes may stand in a header field.
pub fn is_did(text: &str) -> bool {
    let Some((method, rest)) = text.strip_prefix("did:").and_then(|rest| rest.split_once(':')) else { return false };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'%' | b'-');
    matches!(method, "plc" | "web")
        && text.len() <= DID_BYTES_MAX
        && rest.bytes().all(allowed)
        && rest.ends_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_survive_urls_and_differ() {
        let dice = Dice::seeded(1);
        let secrets: Vec<_> = (0..100).map(|_| new_secret(&dice)).collect();
        for secret in &secrets {
            let chars = secret.expose().strip_prefix("tw_").unwrap();
            assert!(chars.len() as f64 * 62f64.log2() >= 160.0);
            assert!(chars.bytes().all(|b| b.is_ascii_alphanumeric()), "{chars}");
            assert!(!format!("{secret:?}").contains(chars));
        }
        let distinct: std::collections::HashSet<_> = secrets.iter().map(|s| s.expose().to_owned()).collect();
        assert_eq!(distinct.len(), 100);
    }

    #[test]
    fn a_secret_is_known_by_its_hash_under_the_same_key_only() {
        let key = CredentialKey::new(&[1; 32]);
        let hash = key.hash("tw_right");
        let credential = Credential { id: 1, member: 1, domain: "a.example".into(), class: Class::Otp, classes: vec![], hash };
        assert!(key.verify(&credential, "tw_right"));
        for wrong in ["tw_righ", "tw_rightt", "tw_Right", ""] {
            assert!(!key.verify(&credential, wrong), "{wrong}");
        }
        assert!(!CredentialKey::new(&[2; 32]).verify(&credential, "tw_right"));
        assert!(!format!("{credential:?} {key:?}").contains(&format!("{:?}", &hash[..4])[1..]));
    }

    #[test]
    fn rows_come_back_as_they_were_and_damage_is_an_error() {
        let member = Member {
            id: 7,
            did: "did:plc:abc".into(),
            handle: Some("a.example".into()),
            suspended: None,
            tier: Some("small".into()),
            pool: Some("apart".into()),
            domains: vec!["a.example".into()],
        };
        let credential = Credential {
            id: 1,
            member: 7,
            domain: "a.example".into(),
            class: Class::Transactional,
            classes: vec![Class::Otp],
            hash: [9; 32],
        };
        assert_eq!(Member::decode(&member.encode().unwrap()).unwrap(), member);
        assert_eq!(Credential::decode(&credential.encode().unwrap()).unwrap(), credential);
        let old = br#"{"id":7,"did":"did:plc:abc","domains":[]}"#;
        assert_eq!(Member::decode(old).unwrap().tier, None, "a row from before there were tiers");
        assert!(Credential::decode(b"{\"id\":1").is_err());
    }

    #[test]
    fn the_key_is_made_once_and_read_again() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        crate::sign::KeyStore::open(dir.path()).unwrap();
        let first = CredentialKey::open(dir.path(), &Dice::seeded(1)).unwrap();
        let second = CredentialKey::open(dir.path(), &Dice::seeded(2)).unwrap();
        assert_eq!(first.hash("x"), second.hash("x"));
        let path = dir.path().join("keys/credential.key");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, b"short").unwrap();
        assert!(CredentialKey::open(dir.path(), &Dice::seeded(3)).is_err());
    }

    #[test]
    fn dids() {
        for good in ["did:plc:ewvi7nxzyoun6zhxrhs64oiz", "did:web:host.example", "did:web:localhost%3A2583"] {
            assert!(is_did(good), "{good}");
        }
        for bad in ["did:plc:", "did:key:zQ3", "plc:abc", "did:plc:a b", "did:plc:a\r\nX: y", "did:web:a:", "did:web:ä"] {
            assert!(!is_did(bad), "{bad}");
        }
    }
}
