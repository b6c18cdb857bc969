//! Operators' tokens, as they lie in the table `operators`: a keyed hash each, and the key in a file beside those of members.
//!
//! A token is shown once. It has 256 random bits, so nobody finds one by trying, and neither a stolen database nor a stolen key
//! file alone lets anybody check a guess.

use std::fmt;
use std::path::Path;

use host::Dice;
use ring::hmac;
use serde::{Deserialize, Serialize};
use smtp::Secret;

use super::operator::Role;
use crate::sign::store::{StoreError, own_key};

/// Before every token, so that people and leak scanners know what they have found. Members' secrets begin with `tw_`.
pub(crate) const TOKEN_PREFIX: &str = "twop_";

/// 43 characters of 62 are 256 random bits.
const TOKEN_CHARS: usize = 43;

const TOKEN_ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Tokens at the same time; each request that shows one is compared with all of them. Past it: revoke one first.
pub(crate) const TOKENS_MAX: usize = 64;

/// A token, without its secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Never given twice.
    pub id: u32,
    /// Whose it is, for events and the audit.
    pub name: String,
    /// What it may.
    pub role: Role,
    /// HMAC-SHA-256 of the secret.
    pub hash: [u8; 32],
    /// When it was made, in Unix seconds.
    pub made_secs: u64,
    /// Who made it.
    pub made_by: String,
}

/// Shows everything but the hash.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} of {}, {})", self.id, self.name, self.role)
    }
}

/// The daemon's half of every token and cookie.
#[derive(Clone)]
pub struct OperatorKey(hmac::Key);

impl OperatorKey {
    /// Reads `data_dir/keys/operator.key` (32 octets, mode 0600), or makes it. `data_dir/keys` exists once a `KeyStore` was opened.
    pub fn open(data_dir: &Path, dice: &Dice) -> Result<Self, StoreError> {
        let path = data_dir.join("keys").join("operator.key");
        Ok(Self::new(&own_key(&path, "remove it and make all operators' tokens anew", Some(dice))?))
    }

    /// From octets; tests have no file.
    pub fn new(octets: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, octets))
    }

    /// What is kept of a secret. `of` keeps apart what it is for: a cookie is no token.
    pub(super) fn hash(&self, of: &str, secret: &str) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(hmac::sign(&self.0, said(of, secret).as_bytes()).as_ref());
        hash
    }

    /// Whether it is that, in a time that does not depend on how much of it is right.
    pub(super) fn verify(&self, of: &str, secret: &str, hash: &[u8; 32]) -> bool {
        hmac::verify(&self.0, said(of, secret).as_bytes(), hash).is_ok()
    }

    /// The one of `tokens` that has this secret. All are compared, so that the time does not tell which it is.
    pub(super) fn find<'a>(&self, tokens: &'a [Token], secret: &str) -> Option<&'a Token> {
        tokens.iter().fold(None, |found, token| if self.verify("token", secret, &token.hash) { Some(token) } else { found })
    }

    /// What is kept of a token's secret.
    pub fn hash_token(&self, secret: &Secret) -> [u8; 32] {
        self.hash("token", secret.expose())
    }
}

impl fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperatorKey(…)")
    }
}

fn said(of: &str, secret: &str) -> zeroize::Zeroizing<String> {
    zeroize::Zeroizing::new(format!("{of}:{secret}"))
}

/// A new token: needs no escaping anywhere.
pub(crate) fn new_token(dice: &Dice) -> Secret {
    Secret::new(format!("{TOKEN_PREFIX}{}", random(dice)))
}

/// 256 random bits as text.
pub(super) fn random(dice: &Dice) -> String {
    (0..TOKEN_CHARS).map(|_| char::from(TOKEN_ALPHABET[dice.below(62) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_secret_under_the_same_key_only_and_never_shown() {
        let (dice, key) = (Dice::seeded(1), OperatorKey::new(&[1; 32]));
        let secrets: Vec<_> = (0..3).map(|_| new_token(&dice)).collect();
        let token = |(id, secret): (usize, &Secret)| Token {
            id: id as u32,
            name: format!("operator {id}"),
            role: Role::Read,
            hash: key.hash_token(secret),
            made_secs: 0,
            made_by: "uid 0".into(),
        };
        let tokens: Vec<_> = secrets.iter().enumerate().map(token).collect();
        for (id, secret) in secrets.iter().enumerate() {
            let random = secret.expose().strip_prefix(TOKEN_PREFIX).unwrap();
            assert!(random.len() as f64 * 62f64.log2() >= 256.0);
            assert_eq!(key.find(&tokens, secret.expose()).map(|token| token.id), Some(id as u32));
            assert!(OperatorKey::new(&[2; 32]).find(&tokens, secret.expose()).is_none());
            assert!(key.find(&tokens, &secret.expose()[..40]).is_none());
            assert!(!format!("{:?} {key:?}", tokens[id]).contains(&format!("{:?}", &tokens[id].hash[..4])[1..]));
        }
        assert!(!key.verify("cookie", secrets[0].expose(), &tokens[0].hash), "a cookie is no token");
    }
}
