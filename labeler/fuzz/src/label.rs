//! Labels: one label in DAG-CBOR, one in JSON, a page of `queryLabels`; what is signed, and what is folded.

use std::time::{Duration, UNIX_EPOCH};

use atproto::instant;
use atproto::key::{SigningKey, VerifyingKey};
use atproto::label::{Label, Signature, fold, newest, read_query_labels};
use ipld_core::ipld::Ipld;
use serde_json::Value;

const FIELDS: [&str; 9] = ["ver", "src", "uri", "cid", "val", "neg", "cts", "exp", "sig"];

pub(crate) fn fuzz(octets: &[u8]) {
    if let Ok(label) = Label::from_cbor(octets) {
        check(&label, octets.last().copied().unwrap_or(0));
        canonical(octets, &label);
    }
    if let Ok(value) = serde_json::from_slice::<Value>(octets) {
        if let Ok(label) = Label::from_json(&value) {
            check(&label, octets.len() as u8);
        }
        page(octets, &value);
    }
}

/// It reads back as it was in both forms, and a signature holds for it and for nothing else.
fn check(label: &Label, choice: u8) {
    let cbor = label.to_cbor();
    for again in [Label::from_cbor(&cbor), Label::from_json(&label.to_json())] {
        assert_eq!(again.expect("what was read is written so that it can be read").to_cbor(), cbor);
    }
    assert_eq!(serde_json::from_str::<Value>(&label.to_json_text()).unwrap(), label.to_json());

    let (key, other) = (key(0x11), key(0x12));
    if label.verify(&label.src, &key.verifying_key()).is_ok() {
        // Nobody else has this key, and signatures of RFC 6979 leave nothing to chance: there is one for each label.
        assert_eq!(label.sig, Some(Signature(key.sign(&label.signed_octets()).to_vec())), "a forged label verifies");
    }
    let mut signed = Label { ver: Some(1), ..label.clone() };
    signed.sign(&key);
    let holds = |label: &Label, key: &VerifyingKey| label.verify(&signed.src, key).is_ok();
    assert!(holds(&signed, &key.verifying_key()));
    match choice & 7 {
        0 => assert!(holds(&Label::from_cbor(&signed.to_cbor()).unwrap(), &key.verifying_key())),
        1 => assert!(holds(&Label::from_json(&signed.to_json()).unwrap(), &key.verifying_key())),
        2 => assert!(!holds(&signed, &other.verifying_key())),
        _ => {
            let mut changed = signed.clone();
            match choice >> 3 & 7 {
                0 => changed.val.push('x'),
                1 => changed.uri.push('x'),
                2 => changed.neg = if changed.neg == Some(true) { None } else { Some(true) },
                3 => changed.exp = if changed.exp.is_some() { None } else { Some(changed.cts.clone()) },
                4 => changed.cid = if changed.cid.is_some() { None } else { Some("bafy".into()) },
                5 => changed.src = "did:web:other.example".parse().unwrap(),
                _ => {
                    let sig = &mut changed.sig.as_mut().unwrap().0;
                    let at = label.val.len() % sig.len();
                    sig[at] ^= 1 << (choice >> 5);
                }
            }
            assert!(changed == signed || !holds(&changed, &key.verifying_key()), "changed, and the signature holds: {changed:?}");
        }
    }
}

/// What was in the only form of DAG-CBOR, with fields that we know, is written as it came.
fn canonical(octets: &[u8], label: &Label) {
    let Ok(Ipld::Map(map)) = serde_ipld_dagcbor::from_slice::<Ipld>(octets) else { return };
    let ours = map.iter().all(|(name, value)| FIELDS.contains(&name.as_str()) && *value != Ipld::Null);
    if ours && serde_ipld_dagcbor::to_vec(&Ipld::Map(map)).is_ok_and(|again| again == octets) {
        assert_eq!(label.to_cbor(), octets, "canonical, and written otherwise");
    }
}

/// The quick reading of a page and the slow one find the same.
fn page(octets: &[u8], value: &Value) {
    let Ok(page) = read_query_labels(octets) else { return };
    let all = value["labels"].as_array().expect("a page has labels");
    let slow: Vec<Label> = all.iter().filter_map(|label| Label::from_json(label).ok()).collect();
    assert_eq!(page.labels, slow);
    assert_eq!(page.labels.len() + page.refused.len(), all.len());

    let newest = newest(&page.labels);
    for label in &page.labels {
        assert!(instant(&newest[&label.key()].cts) >= instant(&label.cts));
    }
    let now = UNIX_EPOCH + Duration::from_secs(1_795_000_000);
    for label in fold(&page.labels, now) {
        assert!(!label.negates() && label.exp.as_ref().is_none_or(|exp| instant(exp) > now));
        assert_eq!(newest[&label.key()], label);
    }
}

pub(crate) fn key(octet: u8) -> SigningKey {
    SigningKey::from_octets(&[octet; 32]).unwrap()
}
