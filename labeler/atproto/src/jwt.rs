//! Service auth: the token with which one service of atproto calls a method of another (atproto.com/specs/xrpc, "Inter-Service Authentication").
//!
//! A JWT (RFC 7519, compact form of RFC 7515) that the caller signed with a key of its DID document. It is bound to whom it is for
//! (`aud`), to one method (`lxm`) and to a short time. [`Token::parse`] says who claims to call, so that the caller's DID can be resolved;
//! nothing of it is to be believed before [`Token::verify`], whose answer has a number to refuse a second use by (`jti`).
//!
//! Stricter than PDSes need: `lxm` and `jti` are required, and a name that stands twice in an object is an error, since two readers could
//! take it for different things.
//!
//! Not here: resolving the DID, and the memory of what was used.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::did::{Did, Document, DocumentError};
use crate::key::{Algorithm, SigningKey};

/// Octets of a token; honest ones have some 400.
pub const TOKEN_BYTES_MAX: usize = 4 << 10;
/// Octets of a `jti`, which has to be remembered.
pub const JTI_BYTES_MAX: usize = 128;
/// From now until `exp` at most: what a PDS gives at most for a token with `lxm`.
pub const LIFETIME_MAX: Duration = Duration::from_secs(3600);
/// How far the caller's clock may be ahead of ours.
pub const SKEW_MAX: Duration = Duration::from_secs(30);
/// How long our own tokens hold: the default of a PDS.
const ISSUED_FOR: Duration = Duration::from_secs(60);
/// The key that signs when `kid` does not say otherwise.
const DEFAULT_KID: &str = "atproto";

/// A token that could be read. Nothing of it is proven yet.
#[derive(Clone)]
pub struct Token {
    issuer: Did,
    kid: String,
    algorithm: Algorithm,
    audience: String,
    method: Option<String>,
    issued: Option<u64>,
    expires: u64,
    jti: Option<String>,
    /// What the signature covers: header and claims, as they came.
    signed: String,
    signature: Vec<u8>,
}

/// What is expected of a token.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Our DID.
    pub audience: &'a Did,
    /// The id of our service in our DID document, without `#`: `atproto_labeler`. A bare DID as `aud` is the older form, and accepted.
    pub service: &'a str,
    /// The NSID of the method that is called.
    pub method: &'a str,
    /// When.
    pub now: SystemTime,
}

/// Who calls, proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The caller's DID.
    pub did: Did,
    /// Which of its keys signed, without `#`: `atproto` unless the token says otherwise. A method may want that one only.
    pub kid: String,
    /// Of this token alone. Refuse the call if (`did`, `jti`) was seen before.
    pub jti: String,
    /// Until when `jti` has to be remembered.
    pub expires: SystemTime,
}

/// Why a token is refused: 401, and the caller needs another token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Not a JWT of service auth.
    #[error("not a service auth token: {0}")]
    Malformed(&'static str),
    /// `alg` is not one of atproto's, or not that of the key.
    #[error("`alg` is not ES256K or ES256, or not that of the key")]
    Algorithm,
    /// It is for another service.
    #[error("`aud` is not this service")]
    Audience,
    /// It is for another method, or for any.
    #[error("`lxm` is not this method")]
    Method,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// It was made in the future: a clock is wrong.
    #[error("`iat` is in the future")]
    Future,
    /// It would hold longer than an hour.
    #[error("`exp` is more than an hour ahead")]
    Lifetime,
    /// It has no `jti`, so a second use could not be told from the first.
    #[error("`jti` is missing")]
    Jti,
    /// The document that it was held against is somebody else's, or has no such key.
    #[error("the caller's {0}")]
    Document(#[from] DocumentError),
    /// The key that `kid` names did not sign it. It may have been rotated: resolve the DID again and retry once.
    #[error("the signature is not the caller's")]
    BadSignature,
}

#[derive(Deserialize)]
struct Header {
    typ: String,
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood (RFC 7515, section 4.1.11); we understand none.
    crit: Option<Value>,
    /// Octets that are signed in another form than they are sent in (RFC 7797).
    b64: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    exp: u64,
    iat: Option<u64>,
    nbf: Option<u64>,
    lxm: Option<String>,
    jti: Option<String>,
}

/// Makes a token that holds for a minute: short, because whoever reads it on its way may use it. `jti` is random and never used again.
pub fn issue(key: &SigningKey, issuer: &Did, audience: &str, method: &str, now: SystemTime, jti: &str) -> String {
    let issued = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let header = serde_json::json!({ "typ": "JWT", "alg": "ES256K" });
    let claims = serde_json::json!({
        "iss": issuer.as_str(), "aud": audience, "iat": issued, "exp": issued + ISSUED_FOR.as_secs(), "lxm": method, "jti": jti,
    });
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = BASE64URL_NOPAD.encode(&key.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

impl Token {
    /// Reads a token: what stands after `Bearer ` in the header `Authorization`.
    pub fn parse(text: &str) -> Result<Self, JwtError> {
        use JwtError::Malformed;
        if text.len() > TOKEN_BYTES_MAX {
            return Err(Malformed("longer than 4096 octets"));
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Malformed("not three parts"))?;
        let (header, claims) = signed.split_once('.').ok_or(Malformed("not three parts"))?;
        let header: Header = part(header)?;
        let claims: Claims = part(claims)?;
        // A token of OAuth (`at+jwt`) or of another kind, made for something else, does not count as one of these (RFC 8725, section 3.11).
        if !header.typ.eq_ignore_ascii_case("JWT") {
            return Err(Malformed("`typ` is not JWT"));
        }
        if header.crit.is_some() || header.b64.is_some() {
            return Err(Malformed("`crit` and `b64` are not understood"));
        }
        let algorithm = match header.alg.as_str() {
            "ES256K" => Algorithm::Secp256k1,
            "ES256" => Algorithm::P256,
            _ => return Err(JwtError::Algorithm),
        };
        // `did:…#service` as issuer is of older callers; what it would be allowed, no specification says.
        let issuer: Did = claims.iss.parse().map_err(|_| Malformed("`iss` is not a DID"))?;
        // Written with `#`, without, or as the full id of the verification method.
        let kid = header.kid.unwrap_or_else(|| DEFAULT_KID.into());
        let kid = match kid.split_once('#') {
            Some((did, fragment)) if did.is_empty() || did == issuer.as_str() => fragment,
            Some(_) => "",
            None => &kid,
        };
        if !is_fragment(kid) {
            return Err(Malformed("`kid` is not a key of the issuer"));
        }
        let signature = decode(signature)?;
        if signature.len() != 64 {
            return Err(Malformed("the signature is not 64 octets"));
        }
        if claims.jti.as_ref().is_some_and(|jti| jti.is_empty() || jti.len() > JTI_BYTES_MAX) {
            return Err(Malformed("`jti` is empty or longer than 128 octets"));
        }
        Ok(Self {
            kid: kid.into(),
            algorithm,
            audience: claims.aud,
            method: claims.lxm,
            issued: claims.iat.max(claims.nbf),
            expires: claims.exp,
            jti: claims.jti,
            signed: signed.into(),
            signature,
            issuer,
        })
    }

    /// Who claims to have signed it; to be resolved, and not yet to be believed.
    pub fn issuer(&self) -> &Did {
        &self.issuer
    }

    /// What can be told without the caller's document, so that nothing is resolved for a token that is of no use.
    pub fn check(&self, expected: Expected<'_>) -> Result<(), JwtError> {
        let audience = match self.audience.split_once('#') {
            Some((did, service)) => did == expected.audience.as_str() && service == expected.service,
            None => self.audience == expected.audience.as_str(),
        };
        if !audience {
            return Err(JwtError::Audience);
        }
        if self.method.as_deref() != Some(expected.method) {
            return Err(JwtError::Method);
        }
        let now = expected.now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let expires = Duration::from_secs(self.expires);
        if expires <= now {
            return Err(JwtError::Expired);
        }
        if expires > now + LIFETIME_MAX + SKEW_MAX {
            return Err(JwtError::Lifetime);
        }
        if let Some(issued) = self.issued.map(Duration::from_secs) {
            if issued > now + SKEW_MAX {
                return Err(JwtError::Future);
            }
            if expires > issued + LIFETIME_MAX {
                return Err(JwtError::Lifetime);
            }
        }
        if self.jti.is_none() {
            return Err(JwtError::Jti);
        }
        Ok(())
    }

    /// Proves the caller by its DID document: all of [`check`](Self::check), and the signature.
    pub fn verify(&self, document: &Document, expected: Expected<'_>) -> Result<Caller, JwtError> {
        self.check(expected)?;
        if document.did() != &self.issuer {
            let (wanted, found) = (self.issuer.as_str().into(), document.did().as_str().into());
            return Err(DocumentError::OtherSubject { wanted, found }.into());
        }
        let key = document.key(&self.kid)?;
        // The header only claims an algorithm; the key has one (RFC 8725, section 3.1).
        if key.algorithm() != self.algorithm {
            return Err(JwtError::Algorithm);
        }
        key.verify(self.signed.as_bytes(), &self.signature).map_err(|_| JwtError::BadSignature)?;
        let jti = self.jti.clone().ok_or(JwtError::Jti)?;
        let expires = UNIX_EPOCH + Duration::from_secs(self.expires);
        Ok(Caller { did: self.issuer.clone(), kid: self.kid.clone(), jti, expires })
    }
}

/// Whoever has the token may use it: no signature in logs.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(of {} for {} at {})", self.issuer.as_str(), self.method.as_deref().unwrap_or("any"), self.audience)
    }
}

fn is_fragment(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"_-.".contains(&octet))
}

/// Without padding, without other characters, and without bits beyond the end: one text for one content (RFC 7515, section 2).
fn decode(text: &str) -> Result<Vec<u8>, JwtError> {
    BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| JwtError::Malformed("not base64url"))
}

fn part<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, JwtError> {
    let once: Once =
        serde_json::from_slice(&decode(text)?).map_err(|_| JwtError::Malformed("not a JSON object with each name once"))?;
    let object = Value::Object(once.0.into_iter().collect());
    T::deserialize(object).map_err(|_| JwtError::Malformed("a claim is missing or of another type"))
}

/// An object whose names stand once each, also those that we do not know.
struct Once(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Once;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
                let mut names = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if names.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name stands twice"));
                    }
                }
                Ok(Once(names))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
