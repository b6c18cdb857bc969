//! Keys of atproto: secp256k1 and P-256, written as `did:key` or Multikey.
//!
//! A signature is 64 octets, r and s, over the SHA-256 of what was signed; s in the upper half of the order is refused, because
//! whoever sees a signature could otherwise make a second one. Our own signatures are RFC 6979, so the same octets and key always give the same signature.

use std::fmt;
use std::sync::{Arc, LazyLock};

pub use atrium_crypto::Algorithm;
use atrium_crypto::verify::Verifier;
use ipld_core::cid::multibase;
use ring::digest::{SHA256, digest};
use secp256k1::{Message, PublicKey, Secp256k1, SecretKey, SignOnly, VerifyOnly, ecdsa};

/// Longer than any Multikey of the two curves. Decoding base58 is quadratic, so the length is checked first.
const MULTIBASE_CHARS_MAX: usize = 200;

/// What libsecp256k1 verifies with; it holds nothing that changes.
static VERIFYING: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);

/// A public key that somebody's DID document names.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyingKey(Point);

/// Checked once to be on the curve, so that verifying need not take a square root.
#[derive(Clone, PartialEq, Eq)]
enum Point {
    Secp256k1(PublicKey),
    /// Uncompressed SEC1.
    P256(Vec<u8>),
}

/// Why a key or a signature is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a key that we can use: say so to whoever published it.
    #[error("not a secp256k1 or P-256 public key in multibase: {0}")]
    Malformed(String),
    /// The key did not make this signature over these octets.
    #[error("the signature is not of this key over these octets")]
    BadSignature,
}

impl VerifyingKey {
    /// Reads `did:key:z…`.
    pub fn from_did_key(text: &str) -> Result<Self, KeyError> {
        Self::from_multikey(text.strip_prefix("did:key:").ok_or_else(|| malformed(text))?)
    }

    /// Reads a Multikey: base58btc of a multicodec prefix and the compressed point.
    pub fn from_multikey(text: &str) -> Result<Self, KeyError> {
        // atrium-crypto slices the prefix off without looking at the length, so we look.
        if decode(text)?.len() < 3 {
            return Err(malformed(text));
        }
        let (algorithm, point) = atrium_crypto::did::parse_multikey(text).map_err(|_| malformed(text))?;
        Ok(Self(match algorithm {
            Algorithm::Secp256k1 => Point::Secp256k1(PublicKey::from_slice(&point).map_err(|_| malformed(text))?),
            Algorithm::P256 => Point::P256(point),
        }))
    }

    /// Reads the `publicKeyMultibase` of a verification method by its declared type. The types of 2019 carry the bare point, which the npm PLC server still emits.
    pub fn from_method(kind: &str, text: &str) -> Result<Self, KeyError> {
        match kind {
            "EcdsaSecp256k1VerificationKey2019" => Self::from_point(Algorithm::Secp256k1, &decode(text)?),
            "EcdsaSecp256r1VerificationKey2019" => Self::from_point(Algorithm::P256, &decode(text)?),
            _ => Self::from_multikey(text),
        }
    }

    fn from_point(algorithm: Algorithm, point: &[u8]) -> Result<Self, KeyError> {
        let reject = |_| malformed("not a point of the curve");
        Self::from_did_key(&atrium_crypto::did::format_did_key(algorithm, point).map_err(reject)?)
    }

    /// Of which curve it is.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Point::Secp256k1(_) => Algorithm::Secp256k1,
            Point::P256(_) => Algorithm::P256,
        }
    }

    /// Does this key vouch for `octets`?
    pub fn verify(&self, octets: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        match &self.0 {
            Point::Secp256k1(point) => {
                // libsecp256k1 takes exactly 64 octets, and refuses a high s by itself.
                let signature = ecdsa::Signature::from_compact(signature).map_err(|_| KeyError::BadSignature)?;
                VERIFYING.verify_ecdsa(hashed(octets), &signature, point).map_err(|_| KeyError::BadSignature)
            }
            Point::P256(point) => {
                Verifier::default().verify(Algorithm::P256, point, octets, signature).map_err(|_| KeyError::BadSignature)
            }
        }
    }

    /// The key as `did:key:z…`.
    pub fn did_key(&self) -> String {
        let text = match &self.0 {
            Point::Secp256k1(point) => atrium_crypto::did::format_did_key(Algorithm::Secp256k1, &point.serialize_uncompressed()),
            Point::P256(point) => atrium_crypto::did::format_did_key(Algorithm::P256, point),
        };
        match text {
            Ok(text) => text,
            Err(_) => unreachable!("the point was checked when the key was read"),
        }
    }

    /// The key as a DID document writes it (`type: Multikey`).
    pub fn multikey(&self) -> String {
        self.did_key().split_off("did:key:".len())
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.did_key())
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.did_key())
    }
}

fn decode(text: &str) -> Result<Vec<u8>, KeyError> {
    if text.len() > MULTIBASE_CHARS_MAX || !text.starts_with('z') {
        return Err(malformed(text));
    }
    multibase::decode(text).map(|(_, octets)| octets).map_err(|_| malformed(text))
}

fn malformed(text: &str) -> KeyError {
    KeyError::Malformed(text.chars().take(80).collect())
}

/// What a signature is of.
fn hashed(octets: &[u8]) -> Message {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, octets).as_ref());
    Message::from_digest(hash)
}

/// A secret secp256k1 key. `Debug` hides it, and it is wiped when dropped.
#[derive(Clone)]
pub struct SigningKey {
    secret: SecretKey,
    signing: Arc<Secp256k1<SignOnly>>,
}

impl SigningKey {
    /// 32 octets that are a number below the order and not zero; nearly all are.
    pub fn from_octets(octets: &[u8]) -> Result<Self, KeyError> {
        let refused = || KeyError::Malformed("(secret key)".into());
        let octets = <[u8; 32]>::try_from(octets).map_err(|_| refused())?;
        let secret = SecretKey::from_byte_array(octets).map_err(|_| refused())?;
        let mut signing = Secp256k1::signing_only();
        // Blinds what time and power could tell of the secret. The seed need be unknown to others, not new: signatures do not
        // depend on it.
        let mut seed = [0; 32];
        seed.copy_from_slice(digest(&SHA256, &[&octets[..], b"blinding"].concat()).as_ref());
        signing.seeded_randomize(&seed);
        Ok(Self { secret, signing: Arc::new(signing) })
    }

    /// The secret itself, for the one who stores it.
    pub fn to_octets(&self) -> [u8; 32] {
        self.secret.secret_bytes()
    }

    /// Signs the SHA-256 of `octets`: RFC 6979, low s. (A hash that is not below the order, one in 2^128, would have another
    /// nonce than RFC 6979's.)
    pub fn sign(&self, octets: &[u8]) -> [u8; 64] {
        self.signing.sign_ecdsa(hashed(octets), &self.secret).serialize_compact()
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(Point::Secp256k1(PublicKey::from_secret_key(&self.signing, &self.secret)))
    }
}

impl Drop for SigningKey {
    fn drop(&mut self) {
        self.secret.non_secure_erase();
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(secret of {})", self.verifying_key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_key_has_the_reference_name() {
        let key = SigningKey::from_octets(&[0x11; 32]).unwrap();
        assert_eq!(key.verifying_key().did_key(), "did:key:zQ3shjyJXUaRJC2GC43mX8aPrUhoTdoiongXhZjsdTzPKYZUM");
        assert_eq!(VerifyingKey::from_did_key(&key.verifying_key().did_key()).unwrap(), key.verifying_key());
    }

    #[test]
    fn a_signature_holds_for_its_octets_and_key_only() {
        let (key, other) = (SigningKey::from_octets(&[0x11; 32]).unwrap(), SigningKey::from_octets(&[0x12; 32]).unwrap());
        let signature = key.sign(b"octets");
        assert_eq!(signature, key.sign(b"octets"), "RFC 6979 leaves nothing to chance");
        assert_eq!(key.verifying_key().verify(b"octets", &signature), Ok(()));
        assert_eq!(key.verifying_key().verify(b"octetz", &signature), Err(KeyError::BadSignature));
        assert_eq!(other.verifying_key().verify(b"octets", &signature), Err(KeyError::BadSignature));
    }

    /// RFC 6979 by another hand: signatures that were made with k256 before are made again.
    #[test]
    fn signatures_are_those_of_rfc_6979() {
        for nth in 1..200_u8 {
            let secret: [u8; 32] = digest(&SHA256, &[nth]).as_ref().try_into().unwrap();
            let (ours, other) =
                (SigningKey::from_octets(&secret).unwrap(), k256::ecdsa::SigningKey::from_slice(&secret).unwrap());
            let octets = vec![nth; usize::from(nth)];
            let signature: k256::ecdsa::Signature = k256::ecdsa::signature::Signer::sign(&other, &octets);
            let signature = signature.normalize_s().unwrap_or(signature);
            assert_eq!(ours.sign(&octets)[..], signature.to_bytes()[..]);
            let point = ours.verifying_key().0;
            assert!(matches!(point, Point::Secp256k1(point) if point.serialize_uncompressed()
                == *other.verifying_key().to_encoded_point(false).as_bytes()));
            assert_eq!(ours.to_octets(), secret);
        }
    }

    #[test]
    fn what_is_no_secret_and_no_signature_is_refused() {
        let order = data_encoding::HEXLOWER.decode(b"fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap();
        for wrong in [&[0; 32][..], &[0xff; 32], &order, &[1; 31], &[1; 33], &[]] {
            assert!(SigningKey::from_octets(wrong).is_err());
        }
        let key = SigningKey::from_octets(&[0x11; 32]).unwrap();
        let (signature, known) = (key.sign(b"octets"), key.verifying_key());
        let with = |part: &[u8], at: usize| {
            let mut wrong = signature;
            wrong[at..at + 32].copy_from_slice(part);
            wrong
        };
        for wrong in [with(&[0; 32], 0), with(&[0; 32], 32), with(&order, 0), with(&order, 32), with(&[0xff; 32], 0), [0; 64]] {
            assert_eq!(known.verify(b"octets", &wrong), Err(KeyError::BadSignature));
        }
        for wrong in [&signature[..63], &[&signature[..], &[0]].concat(), &[]] {
            assert_eq!(known.verify(b"octets", wrong), Err(KeyError::BadSignature));
        }
    }

    #[test]
    fn high_s_and_der_are_refused() {
        let key = SigningKey::from_octets(&[0x11; 32]).unwrap();
        let low = k256::ecdsa::Signature::from_slice(&key.sign(b"octets")).unwrap();
        let high = k256::ecdsa::Signature::from_scalars(low.r(), -*low.s()).unwrap();
        assert_eq!(key.verifying_key().verify(b"octets", &high.to_bytes()), Err(KeyError::BadSignature));
        assert_eq!(key.verifying_key().verify(b"octets", low.to_der().as_bytes()), Err(KeyError::BadSignature));
    }

    #[test]
    fn both_curves_and_both_ages_of_key_are_read() {
        let p256 = "zDnaeTiq1PdzvZXUaMdezchcMJQpBdH2VN4pgrrEhMCCbmwSb";
        assert_eq!(VerifyingKey::from_method("Multikey", p256).unwrap().multikey(), p256);
        let key = SigningKey::from_octets(&[0x11; 32]).unwrap();
        for compressed in [true, false] {
            let Point::Secp256k1(point) = key.verifying_key().0 else { unreachable!("it signs with secp256k1") };
            let point = if compressed { point.serialize().to_vec() } else { point.serialize_uncompressed().to_vec() };
            let text = multibase::encode(multibase::Base::Base58Btc, point);
            assert_eq!(VerifyingKey::from_method("EcdsaSecp256k1VerificationKey2019", &text).unwrap(), key.verifying_key());
            assert!(VerifyingKey::from_method("Multikey", &text).is_err(), "without the multicodec it is no Multikey");
        }
    }

    #[test]
    fn rubbish_is_refused_and_never_a_panic() {
        let long = format!("z{}", "1".repeat(100_000));
        for text in ["", "z", "z1", "z11", "zz", "mAAAA", "é", "zQ3sh", "z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK", &long]
        {
            assert!(VerifyingKey::from_multikey(text).is_err(), "{text:.20}");
            assert!(VerifyingKey::from_did_key(text).is_err());
            assert!(VerifyingKey::from_method("EcdsaSecp256k1VerificationKey2019", text).is_err());
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let printed = format!("{:?}", SigningKey::from_octets(&[0x11; 32]).unwrap());
        assert!(!printed.contains("1111") && !printed.contains("17, 17"), "{printed}");
    }
}
