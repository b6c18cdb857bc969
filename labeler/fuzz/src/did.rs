//! DID documents, the keys in them, and what a did:web leads to.

use atproto::did::{DOCUMENT_BYTES_MAX, Did, Document, labeler_document, web_document_url, web_origin};
use atproto::key::VerifyingKey;

use crate::label::key;

pub(crate) fn fuzz(octets: &[u8]) {
    let named: Option<Did> =
        serde_json::from_slice::<serde_json::Value>(octets).ok().and_then(|value| value["id"].as_str()?.parse().ok());
    for did in named.into_iter().chain(["did:plc:abc".parse().unwrap()]) {
        if let Ok(document) = Document::parse(octets, &did) {
            check(&document, &did, octets);
        }
        web(&did);
    }
    if let Ok(text) = std::str::from_utf8(octets) {
        for kind in ["Multikey", "EcdsaSecp256k1VerificationKey2019", "EcdsaSecp256r1VerificationKey2019"] {
            if let Ok(key) = VerifyingKey::from_method(kind, text) {
                keys(&key);
            }
        }
        if let Ok(key) = VerifyingKey::from_did_key(text) {
            keys(&key);
        }
        if let Ok(did) = text.parse() {
            web(&did);
        }
        if let Ok(did) = format!("did:web:{text}").parse() {
            web(&did);
        }
    }
}

fn check(document: &Document, did: &Did, octets: &[u8]) {
    assert!(document.did() == did && octets.len() <= DOCUMENT_BYTES_MAX);
    assert_eq!(Document::parse(octets, did).as_ref(), Ok(document));
    let stranger = "did:plc:stranger".parse().unwrap();
    assert!(*did == stranger || Document::parse(octets, &stranger).is_err(), "it speaks for somebody else");
    for endpoint in [document.pds(), document.labeler()].into_iter().flatten() {
        assert!(bare_origin(&endpoint), "{endpoint}");
    }
    for found in [document.atproto_key(), document.label_key(), document.key("other")].into_iter().flatten() {
        keys(&found);
    }
}

/// Scheme, host, port, and nothing that could lead elsewhere when a path is put behind it.
fn bare_origin(text: &str) -> bool {
    let Some(host) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else { return false };
    !host.is_empty()
        && !host.contains(|it: char| matches!(it, '/' | '@' | '?' | '#' | '\\') || it.is_whitespace() || it.is_control())
}

/// Written and read it is the same key, and it does not vouch for what it has not signed.
fn keys(found: &VerifyingKey) {
    assert_eq!(VerifyingKey::from_multikey(&found.multikey()).as_ref(), Ok(found));
    assert_eq!(VerifyingKey::from_did_key(&found.did_key()).as_ref(), Ok(found));
    let ours = key(0x13);
    assert_eq!(found.verify(b"octets", &ours.sign(b"octets")).is_ok(), *found == ours.verifying_key());
}

/// A did:web leads to its own host by TLS, and to nothing but a host; `localhost` is spoken to as it is.
fn web(did: &Did) {
    let (origin, document) = (web_origin(did), web_document_url(did));
    assert_eq!(document, origin.as_ref().map(|origin| format!("{origin}/.well-known/did.json")));
    let Some(origin) = origin else { return };
    assert!(bare_origin(&origin), "{origin}");
    let host = did.as_str().strip_prefix("did:web:").expect("only a did:web has an origin");
    match origin.strip_prefix("https://") {
        Some(name) => assert!(name == host && !name.contains(':') && name.contains('.')),
        None => assert!(origin == "http://localhost" || origin.starts_with("http://localhost:")),
    }
    let ours = labeler_document(did, &key(0x11).verifying_key(), &origin).to_string();
    let ours = Document::parse(ours.as_bytes(), did).expect("our own document is read");
    assert_eq!(ours.label_key().unwrap(), key(0x11).verifying_key());
    // Port 80 need not be said.
    let plain = origin.strip_suffix(":80").unwrap_or(&origin);
    assert!(ours.labeler().is_some_and(|read| read.eq_ignore_ascii_case(plain)), "{:?} {origin}", ours.labeler());
}
