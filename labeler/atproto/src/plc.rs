//! Operations of did:plc: what the next one says, and its signature (did:plc specification v0.2, "Operation Serialization, Signing, and Validation").
//!
//! An operation holds the whole state of a DID and names the one before it by its CID. It is signed by one of the rotation keys of that one.

use data_encoding::BASE64URL_NOPAD;
use ipld_core::cid::Cid;
use ipld_core::cid::multihash::Multihash;
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use crate::key::{SigningKey, VerifyingKey};

const DAG_CBOR: u64 = 0x71;
const SHA2_256: u64 = 0x12;

/// Why there is no next operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlcError {
    /// The directory gave something that is no operation.
    #[error("the last operation of the DID cannot be read: {0}")]
    Malformed(&'static str),
    /// An operation of the first days, or the last one of a DID that was given up.
    #[error("the last operation of the DID is a {0}, which this cannot follow")]
    Kind(String),
    /// Its holder has to sign.
    #[error("{0} is not among the DID's rotation keys {1}")]
    NotRotationKey(String, String),
}

/// What a labeler's DID has to say besides what it says already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labeler {
    /// Its `#atproto_label` key.
    pub key: VerifyingKey,
    /// Scheme, host and port.
    pub endpoint: String,
}

impl Labeler {
    /// Whether a state (of an operation, or `/data` of a directory) says so already.
    pub fn is_in(&self, state: &Value) -> bool {
        state["verificationMethods"]["atproto_label"] == self.key.did_key()
            && state["services"]["atproto_labeler"] == self.service()
    }

    /// The fields `verificationMethods` and `services` with this among them; the rest stays.
    pub fn added_to(&self, state: &Value) -> (Value, Value) {
        let with = |field: &str, name: &str, value: Value| {
            let mut map = state[field].as_object().cloned().unwrap_or_else(Map::new);
            map.insert(name.into(), value);
            Value::Object(map)
        };
        let methods = with("verificationMethods", "atproto_label", self.key.did_key().into());
        (methods, with("services", "atproto_labeler", self.service()))
    }

    /// The operation after `last` that adds this, signed.
    pub fn operation(&self, last: &Value, rotation_key: &SigningKey) -> Result<Value, PlcError> {
        match last["type"].as_str() {
            Some("plc_operation") => {}
            Some(kind) => return Err(PlcError::Kind(kind.chars().take(40).collect())),
            None => return Err(PlcError::Malformed("it has no type")),
        }
        let keys = last["rotationKeys"].as_array().ok_or(PlcError::Malformed("it has no rotation keys"))?;
        let ours = rotation_key.verifying_key().did_key();
        if !keys.iter().any(|key| *key == ours) {
            return Err(PlcError::NotRotationKey(ours, last["rotationKeys"].to_string()));
        }
        let (methods, services) = self.added_to(last);
        let mut operation = json!({
            "type": "plc_operation",
            "rotationKeys": last["rotationKeys"],
            "verificationMethods": methods,
            "alsoKnownAs": last["alsoKnownAs"],
            "services": services,
            "prev": cid(last).to_string(),
        });
        operation["sig"] = BASE64URL_NOPAD.encode(&rotation_key.sign(&octets(&operation))).into();
        Ok(operation)
    }

    fn service(&self) -> Value {
        json!({ "type": "AtprotoLabeler", "endpoint": self.endpoint })
    }
}

/// The name of an operation: of its DAG-CBOR, with its signature.
fn cid(operation: &Value) -> Cid {
    let digest = digest(&SHA256, &octets(operation));
    match Multihash::wrap(SHA2_256, digest.as_ref()) {
        Ok(hash) => Cid::new_v1(DAG_CBOR, hash),
        Err(_) => unreachable!("32 octets fit"),
    }
}

fn octets(operation: &Value) -> Vec<u8> {
    match serde_ipld_dagcbor::to_vec(operation) {
        Ok(octets) => octets,
        Err(_) => unreachable!("an operation is strings, lists and maps"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the first operation of an account of a PDS.
    fn last(rotation_key: &SigningKey) -> Value {
        json!({
            "type": "plc_operation",
            "rotationKeys": [rotation_key.verifying_key().did_key()],
            "verificationMethods": { "atproto": "did:key:zQ3shjyJXUaRJC2GC43mX8aPrUhoTdoiongXhZjsdTzPKYZUM" },
            "alsoKnownAs": ["at://labeler.test"],
            "services": { "atproto_pds": { "type": "AtprotoPersonalDataServer", "endpoint": "https://pds.example" } },
            "prev": null,
            "sig": "x",
        })
    }

    fn labeler() -> Labeler {
        let key = SigningKey::from_octets(&[0x22; 32]).unwrap().verifying_key();
        Labeler { key, endpoint: "https://labeler.example".into() }
    }

    #[test]
    fn the_next_operation_keeps_what_was_and_adds_key_and_service() {
        let key = SigningKey::from_octets(&[0x11; 32]).unwrap();
        let last = last(&key);
        let mut next = labeler().operation(&last, &key).unwrap();
        assert!(labeler().is_in(&next) && !labeler().is_in(&last));
        for field in ["rotationKeys", "alsoKnownAs"] {
            assert_eq!(next[field], last[field]);
        }
        assert_eq!(next["verificationMethods"]["atproto"], last["verificationMethods"]["atproto"]);
        assert_eq!(next["services"]["atproto_pds"], last["services"]["atproto_pds"]);
        assert!(next["prev"].as_str().unwrap().starts_with("bafyrei"), "{next}");
        let signature = next.as_object_mut().unwrap().remove("sig").unwrap();
        let signature = BASE64URL_NOPAD.decode(signature.as_str().unwrap().as_bytes()).unwrap();
        assert_eq!(key.verifying_key().verify(&octets(&next), &signature), Ok(()));
    }

    #[test]
    fn who_may_not_sign_or_what_cannot_be_followed_is_refused() {
        let (key, other) = (SigningKey::from_octets(&[0x11; 32]).unwrap(), SigningKey::from_octets(&[0x12; 32]).unwrap());
        assert!(matches!(labeler().operation(&last(&key), &other), Err(PlcError::NotRotationKey(..))));
        for (field, value) in
            [("type", json!("plc_tombstone")), ("type", json!("create")), ("type", json!(7)), ("rotationKeys", json!(null))]
        {
            let mut last = last(&key);
            last[field] = value;
            assert!(labeler().operation(&last, &key).is_err(), "{last}");
        }
    }

    #[test]
    fn maps_are_written_shorter_keys_first() {
        assert_eq!(octets(&json!({ "bb": 1, "a": null, "c": "x" })), b"\xa3\x61a\xf6\x61c\x61x\x62bb\x01");
    }
}
