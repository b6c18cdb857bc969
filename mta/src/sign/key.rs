//! One DKIM private key: made, imported, written as PEM, signed with.
//!
//! RSA is aws-lc-rs (twice ring's speed on our machines, and RSA is most of a message's cost), Ed25519 is
//! mail-auth's over ring. Both are behind mail-auth's `SigningKey`, so its canonical forms and header writer serve both.
//!
//! Not here: files and who uses which key (`store.rs`).

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use mail_auth::common::crypto::{self, Ed25519Key, Sha256};
use mail_auth::common::headers::{Writable, Writer};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

/// RFC 8301 §3.2: signers use at least 2048 bits.
pub const RSA_BITS_MIN: usize = 2048;

/// RFC 8301 §3.2: verifiers need not understand more, and longer keys do not fit DNS replies well.
pub const RSA_BITS_MAX: usize = 4096;

/// What a key signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// rsa-sha256: what every receiver verifies (RFC 6376).
    Rsa,
    /// ed25519-sha256: what some do (RFC 8463).
    Ed25519,
}

impl Algorithm {
    /// The letter that ends the selectors we make.
    pub fn letter(self) -> char {
        match self {
            Self::Rsa => 'r',
            Self::Ed25519 => 'e',
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa => "rsa",
            Self::Ed25519 => "ed25519",
        })
    }
}

impl std::str::FromStr for Algorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "rsa" => Ok(Self::Rsa),
            "ed25519" => Ok(Self::Ed25519),
            other => Err(format!("{other:?} is no algorithm for keys: rsa or ed25519")),
        }
    }
}

/// Why a key was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing that begins with `-----BEGIN … PRIVATE KEY-----`.
    #[error("no private key in PEM found: expected PKCS#8 (BEGIN PRIVATE KEY) or PKCS#1 (BEGIN RSA PRIVATE KEY)")]
    NotPem,
    /// We start without a person at the keyboard.
    #[error("the key is encrypted: decrypt it first, for instance with `openssl pkcs8 -in KEY -out PLAIN`")]
    Encrypted,
    /// RFC 8301 §3.2.
    #[error("the RSA key has fewer than {RSA_BITS_MIN} bits: receivers may ignore its signatures; make a new key")]
    Weak,
    /// RFC 8301 §3.2.
    #[error("the RSA key has more than {RSA_BITS_MAX} bits: not every receiver verifies it; make a shorter one")]
    TooLong,
    /// Elliptic curves of other kinds, or octets that are no key.
    #[error("not an RSA or Ed25519 private key, or a damaged one")]
    Unsupported,
    /// The library could not make a key or a signature.
    #[error("the cryptographic library failed to {0}")]
    Library(&'static str),
    /// RFC 6376 §3.1: labels of letters, digits and inner hyphens, separated by dots.
    #[error("{0:?} is no selector: letters, digits, hyphens and dots, at most 63 octets")]
    BadSelector(String),
    /// It becomes the name of a directory.
    #[error("{0:?} is no domain name in its canonical form (lower case A-labels, no final dot)")]
    BadDomain(String),
}

/// A private key that signs as `selector._domainkey.domain`.
pub struct SigningKey {
    domain: String,
    selector: String,
    material: Material,
}

enum Material {
    Rsa(RsaKeyPair),
    /// The library does not give the octets back, so they are kept for writing.
    Ed25519(Ed25519Key, Zeroizing<Vec<u8>>),
}

impl SigningKey {
    /// Makes a new key; RSA takes tenths of a second: not on a ring thread.
    pub fn generate(domain: &str, selector: &str, algorithm: Algorithm) -> Result<Self, KeyError> {
        let material = match algorithm {
            Algorithm::Rsa => {
                Material::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Library("make an RSA key"))?)
            }
            Algorithm::Ed25519 => {
                let der = Ed25519Key::generate_pkcs8().map_err(|_| KeyError::Library("make an Ed25519 key"))?;
                ed25519(&der).ok_or(KeyError::Library("read its own Ed25519 key"))?
            }
        };
        Self::new(domain, selector, material)
    }

    /// Reads PKCS#8 (RSA, Ed25519) or PKCS#1 (RSA).
    pub fn from_pem(domain: &str, selector: &str, pem: &[u8]) -> Result<Self, KeyError> {
        if contains(pem, b"BEGIN ENCRYPTED PRIVATE KEY") || contains(pem, b"Proc-Type: 4,ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let material = match PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyError::NotPem)? {
            PrivateKeyDer::Pkcs1(der) => rsa(RsaKeyPair::from_der(der.secret_pkcs1_der()))?,
            PrivateKeyDer::Pkcs8(der) => match ed25519(der.secret_pkcs8_der()) {
                Some(material) => material,
                None => rsa(RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()))?,
            },
            _ => return Err(KeyError::Unsupported),
        };
        Self::new(domain, selector, material)
    }

    fn new(domain: &str, selector: &str, material: Material) -> Result<Self, KeyError> {
        check_domain(domain)?;
        check_selector(selector)?;
        Ok(Self { domain: domain.to_owned(), selector: selector.to_owned(), material })
    }

    /// The domain that the signature speaks for (`d=`).
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Which of the domain's keys this is (`s=`).
    pub fn selector(&self) -> &str {
        &self.selector
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Rsa(_) => Algorithm::Rsa,
            Material::Ed25519(..) => Algorithm::Ed25519,
        }
    }

    /// Length of the modulus, or of the curve's points.
    pub fn bits(&self) -> usize {
        match &self.material {
            Material::Rsa(pair) => pair.public_modulus_len() * 8,
            Material::Ed25519(..) => 256,
        }
    }

    /// PKCS#8 in PEM: the only form that we write.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let der = match &self.material {
            Material::Rsa(pair) => {
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Library("write the RSA key"))?;
                Zeroizing::new(der.as_ref().to_vec())
            }
            Material::Ed25519(_, der) => der.clone(),
        };
        let text = Zeroizing::new(BASE64.encode(&*der));
        let mut pem = Zeroizing::new(String::with_capacity(text.len() + text.len() / 64 + 64));
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        for at in (0..text.len()).step_by(64) {
            pem.push_str(&text[at..text.len().min(at + 64)]);
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        Ok(pem)
    }

    /// The TXT record's name.
    pub fn dns_name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }

    /// The TXT record's whole value; a zone file splits it into strings of at most 255 octets (RFC 6376 §3.6.2.2).
    pub fn dns_value(&self) -> Result<String, KeyError> {
        Ok(match &self.material {
            Material::Rsa(pair) => {
                let public: PublicKeyX509Der<'_> =
                    pair.public_key().as_der().map_err(|_| KeyError::Library("write the public key"))?;
                format!("v=DKIM1; k=rsa; p={}", BASE64.encode(public.as_ref()))
            }
            // RFC 8463 §4.2: the bare 32 octets.
            Material::Ed25519(key, _) => format!("v=DKIM1; k=ed25519; p={}", BASE64.encode(key.public_key())),
        })
    }
}

/// Shows whose key it is and nothing of the key.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({} {})", self.algorithm(), self.dns_name())
    }
}

impl crypto::SigningKey for SigningKey {
    type Hasher = Sha256;

    fn sign(&self, input: impl Writable) -> mail_auth::Result<Vec<u8>> {
        match &self.material {
            Material::Ed25519(key, _) => crypto::SigningKey::sign(key, input),
            Material::Rsa(pair) => {
                let mut hash = Hash(digest::Context::new(&digest::SHA256));
                input.write(&mut hash);
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign_digest(&RSA_PKCS1_SHA256, &hash.0.finish(), &mut signature)
                    .map_err(|_| mail_auth::Error::Crypto(crypto::CryptoError::Library("RSA signature failed".into())))?;
                Ok(signature)
            }
        }
    }

    fn algorithm(&self) -> crypto::Algorithm {
        match self.material {
            Material::Rsa(_) => crypto::Algorithm::RsaSha256,
            Material::Ed25519(..) => crypto::Algorithm::Ed25519Sha256,
        }
    }
}

/// aws-lc-rs signs only what it has hashed itself.
struct Hash(digest::Context);

impl Writer for Hash {
    fn write(&mut self, octets: &[u8]) {
        self.0.update(octets);
    }
}

fn rsa(read: Result<RsaKeyPair, aws_lc_rs::error::KeyRejected>) -> Result<Material, KeyError> {
    let pair = read.map_err(|rejected| match rejected.description_() {
        "TooSmall" => KeyError::Weak,
        "TooLarge" => KeyError::TooLong,
        _ => KeyError::Unsupported,
    })?;
    // The library takes up to 8192 bits, and by itself none below RSA_BITS_MIN.
    if pair.public_modulus_len() * 8 > RSA_BITS_MAX { Err(KeyError::TooLong) } else { Ok(Material::Rsa(pair)) }
}

/// OpenSSL writes PKCS#8 v1, without the public key; ring v2, with it: both are read.
fn ed25519(der: &[u8]) -> Option<Material> {
    let key = Ed25519Key::from_pkcs8_maybe_unchecked_der(der).ok()?;
    Some(Material::Ed25519(key, Zeroizing::new(der.to_vec())))
}

fn contains(octets: &[u8], text: &[u8]) -> bool {
    memchr::memmem::find(octets, text).is_some()
}

/// A selector is also a file's name: nothing but letters, digits, inner hyphens and dots.
pub fn check_selector(selector: &str) -> Result<(), KeyError> {
    if selector.len() <= 63 && selector.split('.').all(|label| is_label(label, false)) {
        Ok(())
    } else {
        Err(KeyError::BadSelector(selector.to_owned()))
    }
}

/// A domain is also a directory's name.
pub fn check_domain(domain: &str) -> Result<(), KeyError> {
    if domain.len() <= 253 && domain.split('.').all(|label| is_label(label, true)) {
        Ok(())
    } else {
        Err(KeyError::BadDomain(domain.to_owned()))
    }
}

fn is_label(label: &str, lower_only: bool) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase() || b == b'-' || (!lower_only && b.is_ascii_uppercase()))
}
