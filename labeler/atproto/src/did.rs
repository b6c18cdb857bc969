//! DID documents: what the holder of a DID says about their keys, handle and servers.
//!
//! Read leniently, because PLC servers and hand-written did:web documents differ: `@context` in any shape, ids relative
//! (`#atproto`) or full (`did:plc:…#atproto`), entries that we do not understand passed over. What a document says binds only its own
//! subject: [`Document::parse`] refuses one whose `id` is another DID.

use atrium_api::did_doc::{DidDocument, Service, VerificationMethod};
use serde_json::Value;
use url::Url;

pub use crate::key::{KeyError, SigningKey, VerifyingKey};
pub use atrium_api::types::string::Did;

/// Larger documents are refused; the largest honest ones are a few kilobytes.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 10;

/// A DID document that speaks of the DID which was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    did: Did,
    inner: DidDocument,
}

/// Why a DID document is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, not an object, or too large.
    #[error("not a DID document: {0}")]
    Malformed(String),
    /// It is somebody else's: whoever served it is wrong or lying.
    #[error("the document is of {found}, not of {wanted}")]
    OtherSubject {
        /// The DID that was asked for.
        wanted: String,
        /// The `id` that the document has.
        found: String,
    },
    /// It does not name the key that was needed.
    #[error("the DID document has no key #{0}")]
    NoKey(String),
    /// It names the key, in a form that cannot be used.
    #[error("the key #{0} of the DID document cannot be used: {1}")]
    BadKey(String, KeyError),
}

impl Document {
    /// Reads the JSON of the document of `did`.
    pub fn parse(json: &[u8], did: &Did) -> Result<Self, DocumentError> {
        if json.len() > DOCUMENT_BYTES_MAX {
            return Err(DocumentError::Malformed(format!("longer than {DOCUMENT_BYTES_MAX} octets")));
        }
        let value: Value = serde_json::from_slice(json).map_err(|error| DocumentError::Malformed(error.to_string()))?;
        let Some(id) = value.get("id").and_then(Value::as_str) else {
            return Err(DocumentError::Malformed("no `id`".into()));
        };
        if id != did.as_str() {
            return Err(DocumentError::OtherSubject { wanted: did.as_str().into(), found: id.chars().take(200).collect() });
        }
        let inner = DidDocument {
            context: None,
            id: id.into(),
            also_known_as: Some(entries(&value, "alsoKnownAs")),
            verification_method: Some(entries::<VerificationMethod>(&value, "verificationMethod")),
            service: Some(entries::<Service>(&value, "service")),
        };
        Ok(Self { did: did.clone(), inner })
    }

    /// Whose document this is.
    pub fn did(&self) -> &Did {
        &self.did
    }

    /// The handle that the subject claims: the first `at://` of `alsoKnownAs`. A claim only: the handle must point back.
    pub fn handle(&self) -> Option<&str> {
        self.inner.also_known_as.iter().flatten().find_map(|name| name.strip_prefix("at://"))
    }

    /// The key that signs the subject's repository (`#atproto`).
    pub fn atproto_key(&self) -> Result<VerifyingKey, DocumentError> {
        self.key("atproto")
    }

    /// The key that signs the subject's labels (`#atproto_label`). `#atproto` does not stand in for it.
    pub fn label_key(&self) -> Result<VerifyingKey, DocumentError> {
        self.key("atproto_label")
    }

    /// The key of that fragment. The first entry of a fragment counts.
    pub fn key(&self, fragment: &str) -> Result<VerifyingKey, DocumentError> {
        let absent = || DocumentError::NoKey(fragment.into());
        let methods = self.inner.verification_method.iter().flatten();
        let method = methods.into_iter().find(|method| self.is(&method.id, fragment)).ok_or_else(absent)?;
        let text = method.public_key_multibase.as_deref().ok_or_else(absent)?;
        VerifyingKey::from_method(&method.r#type, text).map_err(|error| DocumentError::BadKey(fragment.into(), error))
    }

    /// Scheme, host and port of the subject's PDS, without a slash at the end.
    pub fn pds(&self) -> Option<String> {
        self.service("atproto_pds", "AtprotoPersonalDataServer")
    }

    /// Scheme, host and port of the labeler that the subject is, without a slash at the end.
    pub fn labeler(&self) -> Option<String> {
        self.service("atproto_labeler", "AtprotoLabeler")
    }

    fn service(&self, fragment: &str, kind: &str) -> Option<String> {
        let mut services = self.inner.service.iter().flatten();
        let service = services.find(|service| self.is(&service.id, fragment) && service.r#type == kind)?;
        let url = Url::parse(&service.service_endpoint).ok()?;
        let plain =
            matches!(url.scheme(), "http" | "https") && url.has_host() && url.username().is_empty() && url.password().is_none();
        // Only the origin counts (atproto DID spec, "Representation in DID documents").
        plain.then(|| url.origin().ascii_serialization())
    }

    fn is(&self, id: &str, fragment: &str) -> bool {
        let relative = id.strip_prefix(self.did.as_str()).unwrap_or(id);
        relative.strip_prefix('#') == Some(fragment)
    }
}

/// What can be read of an array; the rest is not for us.
fn entries<T: serde::de::DeserializeOwned>(value: &Value, name: &str) -> Vec<T> {
    let array = value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    array.iter().filter_map(|entry| serde_json::from_value(entry.clone()).ok()).collect()
}

/// The document that a labeler with a did:web serves of itself at `/.well-known/did.json`.
pub fn labeler_document(did: &Did, key: &VerifyingKey, endpoint: &str) -> Value {
    serde_json::json!({
        "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"],
        "id": did.as_str(),
        "verificationMethod": [{
            "id": format!("{}#atproto_label", did.as_str()),
            "type": "Multikey",
            "controller": did.as_str(),
            "publicKeyMultibase": key.multikey(),
        }],
        "service": [{ "id": "#atproto_labeler", "type": "AtprotoLabeler", "serviceEndpoint": endpoint }],
    })
}

/// The document of a service that calls methods of others and offers none: its key, as `#atproto`, and nothing else.
pub fn caller_document(did: &Did, key: &VerifyingKey) -> Value {
    serde_json::json!({
        "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"],
        "id": did.as_str(),
        "verificationMethod": [{
            "id": format!("{}#atproto", did.as_str()),
            "type": "Multikey",
            "controller": did.as_str(),
            "publicKeyMultibase": key.multikey(),
        }],
    })
}

/// Where the document of a did:web lies. `None` for other methods, and for paths and ports that atproto does not allow.
///
/// atproto allows a host only, and a port (`%3A`) only with `localhost`, which is then spoken to without TLS.
pub fn web_document_url(did: &Did) -> Option<String> {
    Some(format!("{}/.well-known/did.json", web_origin(did)?))
}

/// The origin that a did:web names: `https://host`, or `http://localhost:port`.
pub fn web_origin(did: &Did) -> Option<String> {
    let host = did.as_str().strip_prefix("did:web:")?;
    let (name, port) = match host.split_once("%3A").or_else(|| host.split_once("%3a")) {
        Some(("localhost", port)) => ("localhost", Some(port.parse::<u16>().ok()?)),
        Some(_) => return None,
        None => (host, None),
    };
    let scheme = if name == "localhost" { "http" } else { "https" };
    // An A-label that is of nothing (`xn--a`) is a host of no URL.
    let is_name = || matches!(url::Host::parse(name), Ok(url::Host::Domain(read)) if read.eq_ignore_ascii_case(name));
    let is_host = name == "localhost" || (atrium_api::types::string::Handle::new(name.into()).is_ok() && is_name());
    is_host.then(|| match port {
        Some(port) => format!("{scheme}://{name}:{port}"),
        None => format!("{scheme}://{name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn did(text: &str) -> Did {
        text.parse().unwrap()
    }

    fn parse(value: &Value) -> Result<Document, DocumentError> {
        Document::parse(value.to_string().as_bytes(), &did("did:plc:abc"))
    }

    #[test]
    fn ids_may_be_relative_or_full() {
        let key = SigningKey::from_octets(&[0x11; 32]).unwrap().verifying_key();
        for prefix in ["", "did:plc:abc"] {
            let document = parse(&json!({
                "@context": [{"odd": 1}],
                "id": "did:plc:abc",
                "alsoKnownAs": ["https://example.org", 7, "at://member.example", "at://second.example"],
                "verificationMethod": [
                    {"id": "did:plc:other#atproto", "type": "Multikey", "controller": "x", "publicKeyMultibase": "zQ"},
                    {"id": format!("{prefix}#atproto"), "type": "Multikey", "controller": "x", "publicKeyMultibase": key.multikey()},
                ],
                "service": [
                    {"id": "#odd", "type": "Odd", "serviceEndpoint": {"a": 1}},
                    {"id": format!("{prefix}#atproto_pds"), "type": "AtprotoPersonalDataServer", "serviceEndpoint": "https://pds.example:8443/path/"},
                ],
            }))
            .unwrap();
            assert_eq!(document.atproto_key().unwrap(), key);
            assert_eq!(document.label_key(), Err(DocumentError::NoKey("atproto_label".into())));
            assert_eq!(document.handle(), Some("member.example"));
            assert_eq!(document.pds().as_deref(), Some("https://pds.example:8443"));
            assert_eq!(document.labeler(), None);
        }
    }

    #[test]
    fn a_document_of_somebody_else_is_refused() {
        assert!(matches!(parse(&json!({"id": "did:plc:abd"})), Err(DocumentError::OtherSubject { .. })));
        assert!(matches!(parse(&json!({})), Err(DocumentError::Malformed(_))));
        assert!(matches!(parse(&json!([])), Err(DocumentError::Malformed(_))));
        assert!(matches!(
            Document::parse(&vec![b' '; DOCUMENT_BYTES_MAX + 1], &did("did:plc:abc")),
            Err(DocumentError::Malformed(_))
        ));
    }

    #[test]
    fn endpoints_that_are_no_plain_origin_are_none() {
        for endpoint in ["ftp://pds.example", "https://user:secret@pds.example", "pds.example", ""] {
            let document = parse(&json!({"id": "did:plc:abc", "service":
                [{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": endpoint}]}));
            assert_eq!(document.unwrap().pds(), None, "{endpoint}");
        }
    }

    #[test]
    fn a_labeler_document_reads_back() {
        let key = SigningKey::from_octets(&[0x11; 32]).unwrap().verifying_key();
        let did = did("did:web:labeler.example.test");
        let document = labeler_document(&did, &key, "https://labeler.example.test").to_string();
        let document = Document::parse(document.as_bytes(), &did).unwrap();
        assert_eq!(document.label_key().unwrap(), key);
        assert_eq!(document.labeler().as_deref(), Some("https://labeler.example.test"));
        assert!(document.atproto_key().is_err());
    }

    #[test]
    fn did_web_is_a_host_and_a_port_only_at_localhost() {
        let url = |text: &str| web_document_url(&did(text));
        assert_eq!(url("did:web:labeler.example.test").as_deref(), Some("https://labeler.example.test/.well-known/did.json"));
        assert_eq!(url("did:web:localhost%3A1234").as_deref(), Some("http://localhost:1234/.well-known/did.json"));
        for refused in [
            "did:web:example.test%3A8080",
            "did:web:example.test:path",
            "did:plc:abc",
            "did:web:127.0.0.1",
            "did:web:localhost%3A99999",
            "did:web:xn--a.example",
        ] {
            assert_eq!(url(refused), None, "{refused}");
        }
    }
}
