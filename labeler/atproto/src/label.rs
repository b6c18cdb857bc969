//! Labels (`com.atproto.label.defs#label`): to the octet, in CBOR and JSON, signed, verified, folded.
//!
//! What a signature covers is the label *as its issuer wrote it*: the fields that were sent, in DAG-CBOR, without `sig`. So nothing is
//! tidied between receiving and verifying: skyware sends and signs `neg: false` where Ozone leaves it out, and both verify here. Fields that the
//! specification does not know (`$type` among them) are never part of it.
//!
//! atrium's own `Label` cannot read the `{"$bytes": …}` of the JSON and writes `sig` as an array of numbers, hence this type over atrium's strings.
//! Its `Datetime` keeps the text that it was read from, which is what the signature needs; it refuses the negative offsets that end in a zero (`-10:00`), which no labeler writes.

use std::collections::BTreeMap;
use std::time::SystemTime;

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::key::{KeyError, SigningKey, VerifyingKey};
use crate::{Datetime, Did, instant};

/// Octets of a value (`com.atproto.label.defs`).
pub const VALUE_BYTES_MAX: usize = 128;
/// Octets of a subject: the at-uri limit of the specification.
pub const URI_BYTES_MAX: usize = 8 << 10;

/// A statement of `src` about `uri`. A field that was not sent is `None`, and stays so.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Label {
    /// Version of the format: 1. Required between services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ver: Option<i64>,
    /// Who says so.
    pub src: Did,
    /// About what; for an account, its DID.
    pub uri: String,
    /// Which version of a record, where it matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cid: Option<String>,
    /// What is said.
    pub val: String,
    /// Whether it takes back what was said. Ours leaves `false` out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neg: Option<bool>,
    /// Since when. The newest about the same thing counts.
    pub cts: Datetime,
    /// Until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<Datetime>,
    /// Signature over the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sig: Option<Signature>,
}

/// The octets of a signature: a byte string in CBOR, `{"$bytes": "…"}` in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature(pub Vec<u8>);

/// Why a label is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Not a label at all, or one beyond the limits of the specification.
    #[error("malformed label: {0}")]
    Malformed(String),
    /// It says to be from somebody else than who was asked.
    #[error("the label is from {0}, who was not asked")]
    OtherIssuer(String),
    /// It is in a version that we do not know, or does not say which (required between services).
    #[error("label version {0:?} is not 1")]
    Version(Option<i64>),
    /// It has no signature (required between services).
    #[error("the label is not signed")]
    Unsigned,
    /// The signature is not its issuer's. The key may have been rotated: resolve the DID again and retry once.
    #[error("the label's signature does not verify with the issuer's #atproto_label key")]
    BadSignature,
}

impl Label {
    /// An unsigned label about an account.
    pub fn account(src: Did, account: &Did, val: &str, cts: Datetime) -> Self {
        Self { ver: Some(1), src, uri: account.as_str().into(), cid: None, val: val.into(), neg: None, cts, exp: None, sig: None }
    }

    /// Reads one label of the JSON of `queryLabels`.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, LabelError> {
        Self::deserialize(value).map_err(malformed)?.within_limits()
    }

    /// The label as `queryLabels` gives it.
    pub fn to_json(&self) -> serde_json::Value {
        match serde_json::to_value(self) {
            Ok(value) => value,
            Err(_) => unreachable!("a label is strings, a number and a flag"),
        }
    }

    /// The same as text, without the detour over a tree.
    pub fn to_json_text(&self) -> String {
        match serde_json::to_string(self) {
            Ok(text) => text,
            Err(_) => unreachable!("a label is strings, a number and a flag"),
        }
    }

    /// Reads DAG-CBOR, with or without `sig`.
    pub fn from_cbor(octets: &[u8]) -> Result<Self, LabelError> {
        serde_ipld_dagcbor::from_slice::<Self>(octets).map_err(malformed)?.within_limits()
    }

    /// The whole label in DAG-CBOR, as `subscribeLabels` sends it.
    pub fn to_cbor(&self) -> Vec<u8> {
        match serde_ipld_dagcbor::to_vec(self) {
            Ok(octets) => octets,
            Err(_) => unreachable!("a label is strings, a number and a flag"),
        }
    }

    /// What the signature covers: every field that was sent, except `sig`.
    pub fn signed_octets(&self) -> Vec<u8> {
        Self { sig: None, ..self.clone() }.to_cbor()
    }

    /// Signs in place.
    pub fn sign(&mut self, key: &SigningKey) {
        self.sig = Some(Signature(key.sign(&self.signed_octets()).to_vec()));
    }

    /// Is this label what `issuer`, whose `#atproto_label` key this is, said?
    pub fn verify(&self, issuer: &Did, key: &VerifyingKey) -> Result<(), LabelError> {
        if self.src != *issuer {
            return Err(LabelError::OtherIssuer(self.src.as_str().into()));
        }
        if self.ver != Some(1) {
            return Err(LabelError::Version(self.ver));
        }
        let signature = self.sig.as_ref().ok_or(LabelError::Unsigned)?;
        key.verify(&self.signed_octets(), &signature.0).map_err(|_: KeyError| LabelError::BadSignature)
    }

    /// Whether the label takes back an earlier one.
    pub fn negates(&self) -> bool {
        self.neg == Some(true)
    }

    /// Whether the label, if it is the newest of its key, holds at `now`.
    pub fn in_force(&self, now: SystemTime) -> bool {
        !self.negates() && self.exp.as_ref().is_none_or(|exp| instant(exp) > now)
    }

    /// Two labels with the same key speak of the same thing; the newer one counts.
    pub fn key(&self) -> Key<'_> {
        (self.src.as_str(), &self.uri, &self.val)
    }

    fn within_limits(self) -> Result<Self, LabelError> {
        self.limits().map(|()| self)
    }

    fn limits(&self) -> Result<(), LabelError> {
        if self.val.is_empty() || self.val.len() > VALUE_BYTES_MAX {
            return Err(malformed("`val` is empty or longer than 128 octets"));
        }
        if self.uri.is_empty() || self.uri.len() > URI_BYTES_MAX {
            return Err(malformed("`uri` is empty or longer than 8192 octets"));
        }
        Ok(())
    }
}

/// `Datetime` compares instants; a label is also its exact text.
impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        self.to_cbor() == other.to_cbor()
    }
}
impl Eq for Label {}

/// Whether a value is one that a labeler should define (label spec, "Label values"): `a` to `z` and hyphens between them, at most 128 octets.
/// What begins with `!` is the protocol's own.
pub fn is_value(text: &str) -> bool {
    let parts = |text: &str| text.split('-').all(|part| !part.is_empty() && part.bytes().all(|octet| octet.is_ascii_lowercase()));
    text.len() <= VALUE_BYTES_MAX && parts(text)
}

/// `src`, `uri`, `val`.
pub type Key<'a> = (&'a str, &'a str, &'a str);

/// The newest label of each key, whatever it says and however the issuer ordered them.
///
/// Servers differ: Ozone has one row a key, skyware gives all of history, oldest first. At the same instant a negation wins: between
/// vouching and not, the doubt goes to the one who would have to trust.
pub fn newest<'a>(labels: impl IntoIterator<Item = &'a Label>) -> BTreeMap<Key<'a>, &'a Label> {
    let mut newest: BTreeMap<Key<'a>, &'a Label> = BTreeMap::new();
    for label in labels {
        let kept = newest.entry(label.key()).or_insert(label);
        if (instant(&label.cts), label.negates()) > (instant(&kept.cts), kept.negates()) {
            *kept = label;
        }
    }
    newest
}

/// The labels in force at `now`: of each key the newest, unless it negates or has run out.
///
/// Give it only labels that [`Label::verify`] accepted.
pub fn fold<'a>(labels: impl IntoIterator<Item = &'a Label>, now: SystemTime) -> Vec<&'a Label> {
    newest(labels).into_values().filter(|label| label.in_force(now)).collect()
}

/// The answer of `com.atproto.label.queryLabels`, read label by label: one that cannot be read does not hide the others.
pub fn read_query_labels(json: &[u8]) -> Result<QueryLabels, LabelError> {
    #[derive(Deserialize)]
    struct Output<L> {
        cursor: Option<String>,
        labels: Vec<L>,
    }
    // Nearly every page is sound from end to end and needs no tree in between.
    if let Ok(Output::<Label> { cursor, labels }) = serde_json::from_slice(json)
        && labels.iter().all(|label| label.limits().is_ok())
    {
        return Ok(QueryLabels { labels, refused: Vec::new(), cursor });
    }
    let output: Output<serde_json::Value> = serde_json::from_slice(json).map_err(malformed)?;
    let (mut labels, mut refused) = (Vec::with_capacity(output.labels.len()), Vec::new());
    for value in &output.labels {
        match Label::from_json(value) {
            Ok(label) => labels.push(label),
            Err(error) => refused.push(error),
        }
    }
    Ok(QueryLabels { labels, refused, cursor: output.cursor })
}

/// One page of `queryLabels`. Page until it has no labels, no cursor, or the cursor that was sent: Ozone leaves it out at the end, skyware repeats it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryLabels {
    /// The labels that could be read; not yet verified.
    pub labels: Vec<Label>,
    /// What could not be read.
    pub refused: Vec<LabelError>,
    /// Where the next page begins.
    pub cursor: Option<String>,
}

fn malformed(error: impl ToString) -> LabelError {
    LabelError::Malformed(error.to_string())
}

/// The data model says unpadded; padded is common too.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Serialize, Deserialize)]
struct Bytes {
    #[serde(rename = "$bytes")]
    base64: String,
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            Bytes { base64: BASE64.encode(&self.0) }.serialize(serializer)
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let bytes = Bytes::deserialize(deserializer)?;
            BASE64.decode(bytes.base64).map(Self).map_err(de::Error::custom)
        } else {
            serde_bytes::ByteBuf::deserialize(deserializer).map(|bytes| Self(bytes.into_vec()))
        }
    }
}

#[cfg(test)]
#[path = "label_tests.rs"]
mod tests;
