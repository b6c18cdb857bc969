//! DKIM signatures over one message by several keys (RFC 6376, RFC 8463): the body is hashed once, the
//! header section is read and made canonical once, and only the last step is done for each key.
//!
//! relaxed/relaxed, because relays refold; never `l=`, because whoever can append to a signed body can
//! replace what the reader sees; From listed once more than it occurs, so that a second From breaks the
//! signature (RFC 6376 §5.4.2).
//!
//! Not here: the order and choice of keys (`signers.rs`), canonical forms and spelling (mail-auth).

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use mail_auth::common::crypto::{HashContext, HashImpl, Sha256, SigningKey as _};
use mail_auth::common::headers::{Writable, Writer};
use mail_auth::dkim::canonicalize::BodyHasher;
use mail_auth::dkim::{Canonicalization, Signature};

use super::header::Field;
use super::key::{KeyError, SigningKey};

/// The fields that we sign where they occur, and `List-*`: what a reader sees or a program acts on.
/// Trace fields are not among them: every hop adds one.
pub const SIGNED_FIELDS: [&str; 18] = [
    "From",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "Reply-To",
    "Sender",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "In-Reply-To",
    "References",
    "Auto-Submitted",
    "Feedback-ID",
    "X-Atmos-Member-Did",
    // By these a receiver of reports sorts them (RFC 8460 §5.3).
    "TLS-Report-Domain",
    "TLS-Report-Submitter",
];

/// Hashes a body as DKIM sees it. Chunks may come as they arrive.
pub struct BodyHash(BodyHasher<<Sha256 as HashImpl>::Context>);

impl BodyHash {
    /// Nothing hashed yet: the hash of an empty body, if nothing follows.
    pub fn begin() -> Self {
        Self(BodyHasher::new(Sha256::hasher(), Canonicalization::Relaxed, 0))
    }

    /// The next octets of the body.
    pub fn update(&mut self, octets: &[u8]) {
        self.0.write(octets);
    }

    /// What goes into `bh=`.
    pub fn finish(self) -> Vec<u8> {
        self.0.finish().0.complete().as_ref().to_vec()
    }
}

/// One `DKIM-Signature` field for each key, in the order of `keys` from the top.
pub fn sign<'a>(
    keys: &[Arc<SigningKey>],
    fields: impl DoubleEndedIterator<Item = Field<'a>>,
    body_hash: &[u8],
    now: SystemTime,
) -> Result<Vec<u8>, KeyError> {
    // Bottom first: that is how a verifier takes the instances of a field (RFC 6376 §5.4.2).
    let signed: Vec<Field<'_>> = fields.rev().filter(is_signed).collect();
    let mut canonical = Vec::with_capacity(2048);
    Canonicalization::Relaxed.canonicalize_headers(signed.iter().map(|f| (f.name, f.value)), &mut canonical);
    let mut names: Vec<String> = signed.iter().map(|f| String::from_utf8_lossy(f.name).into_owned()).collect();
    names.push("From".to_owned());

    let mut signature = Signature {
        v: 1,
        bh: body_hash.to_vec(),
        h: names,
        t: now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        ..Signature::default()
    };
    let mut written = Vec::with_capacity(1024 * keys.len());
    for key in keys {
        signature.a = mail_auth::common::crypto::SigningKey::algorithm(&**key);
        key.domain().clone_into(&mut signature.d);
        key.selector().clone_into(&mut signature.s);
        signature.b.clear();
        signature.b = key
            .sign(Signable { canonical: &canonical, signature: &signature })
            .map_err(|_| KeyError::Library("sign a message"))?;
        signature.write(&mut written, true);
    }
    Ok(written)
}

fn is_signed(field: &Field<'_>) -> bool {
    let list = field.name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"List-"));
    list || SIGNED_FIELDS.iter().any(|name| field.is(name))
}

/// The signed fields, then our own field without its signature (RFC 6376 §3.7).
struct Signable<'a> {
    canonical: &'a [u8],
    signature: &'a Signature,
}

impl Writable for Signable<'_> {
    fn write(self, writer: &mut impl Writer) {
        writer.write(self.canonical);
        self.signature.write(writer, false);
    }
}
