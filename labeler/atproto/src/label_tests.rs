use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use super::*;
use crate::datetime;

const LABELER: &str = "did:web:labeler.example.test";

fn key() -> SigningKey {
    SigningKey::from_octets(&[0x11; 32]).unwrap()
}

fn at(secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + secs)
}

fn label(val: &str, secs: u64) -> Label {
    let account: Did = "did:plc:7tcx4xxjwidnicieiwtrpyal".parse().unwrap();
    let mut label = Label::account(LABELER.parse().unwrap(), &account, val, datetime(at(secs)));
    label.sign(&key());
    label
}

fn changed(mut label: Label, change: impl FnOnce(&mut Label)) -> Label {
    change(&mut label);
    label.sign(&key());
    label
}

fn check(label: &Label) -> Result<(), LabelError> {
    label.verify(&LABELER.parse().unwrap(), &key().verifying_key())
}

#[test]
fn the_octets_are_dag_cbor_with_short_keys_first() {
    let octets = label("relay-member", 0).signed_octets();
    let mut expected = vec![0xa5];
    for (name, value) in [
        ("cts", "2027-01-15T08:00:00.000Z"),
        ("src", LABELER),
        ("uri", "did:plc:7tcx4xxjwidnicieiwtrpyal"),
        ("val", "relay-member"),
    ] {
        expected.push(0x60 + u8::try_from(name.len()).unwrap());
        expected.extend(name.as_bytes());
        if value.len() >= 24 {
            expected.push(0x78);
            expected.push(u8::try_from(value.len()).unwrap());
        } else {
            expected.push(0x60 + u8::try_from(value.len()).unwrap());
        }
        expected.extend(value.as_bytes());
    }
    expected.extend(b"\x63ver\x01");
    assert_eq!(octets, expected);
}

#[test]
fn a_label_survives_json_and_cbor_and_still_verifies() {
    let full = changed(label("verified-mail-operator", 3), |label| {
        label.exp = Some("2028-01-01T00:00:00Z".parse().unwrap());
        label.cid = Some("bafyreifqkawyf5h227j5d6dye3rmpe57cramw3gcg7egvquc7yxtkcvzpy".into());
        label.neg = Some(true);
    });
    for label in [label("relay-member", 0), full] {
        check(&label).unwrap();
        let json = label.to_json();
        assert!(json["sig"]["$bytes"].is_string());
        assert_eq!(Label::from_json(&json).unwrap(), label);
        assert_eq!(Label::from_cbor(&label.to_cbor()).unwrap(), label);
        check(&Label::from_json(&json).unwrap()).unwrap();
    }
}

#[test]
fn a_false_negation_that_was_sent_is_verified_as_sent() {
    let skyware = changed(label("relay-member", 0), |label| label.neg = Some(false));
    check(&Label::from_json(&skyware.to_json()).unwrap()).unwrap();
    check(&Label::from_cbor(&skyware.to_cbor()).unwrap()).unwrap();
    let tidied = Label { neg: None, ..skyware };
    assert_eq!(check(&tidied), Err(LabelError::BadSignature), "leaving it out is another label");
}

#[test]
fn fields_that_the_specification_does_not_know_are_not_signed() {
    let mut json = label("relay-member", 0).to_json();
    json["$type"] = json!("com.atproto.label.defs#label");
    json["odd"] = json!({"a": [1]});
    check(&Label::from_json(&json).unwrap()).unwrap();
}

#[test]
fn padded_signatures_and_other_time_formats_are_read_as_they_are() {
    let label = changed(label("relay-member", 0), |label| label.cts = "2027-01-15T09:00:00.123456+01:00".parse().unwrap());
    let mut json = label.to_json();
    let padded = format!("{}==", json["sig"]["$bytes"].as_str().unwrap());
    json["sig"]["$bytes"] = json!(padded);
    check(&Label::from_json(&json).unwrap()).unwrap();
    assert_eq!(json["cts"], "2027-01-15T09:00:00.123456+01:00");
}

#[test]
fn what_is_not_the_issuers_word_is_refused() {
    assert_eq!(check(&Label { sig: None, ..label("a", 0) }), Err(LabelError::Unsigned));
    assert_eq!(check(&changed(label("a", 0), |label| label.ver = None)), Err(LabelError::Version(None)));
    assert_eq!(check(&changed(label("a", 0), |label| label.ver = Some(2))), Err(LabelError::Version(Some(2))));
    let other = changed(label("a", 0), |label| label.src = "did:plc:other".parse().unwrap());
    assert_eq!(check(&other), Err(LabelError::OtherIssuer("did:plc:other".into())));
    assert_eq!(check(&Label { val: "b".into(), ..label("a", 0) }), Err(LabelError::BadSignature));
    assert_eq!(check(&Label { sig: Some(Signature(vec![1; 63])), ..label("a", 0) }), Err(LabelError::BadSignature));
}

#[test]
fn every_flipped_bit_of_a_label_is_refused_or_changes_nothing() {
    let label = changed(label("relay-member", 0), |label| label.exp = Some(datetime(at(9))));
    let octets = label.to_cbor();
    for bit in 0..octets.len() * 8 {
        let mut flipped = octets.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = Label::from_cbor(&flipped) {
            assert!(check(&read).is_err(), "bit {bit} makes another label that verifies: {read:?}");
        }
    }
}

#[test]
fn rubbish_is_an_error() {
    let fine = label("a", 0).to_json();
    for (field, value) in [
        ("src", json!("x")),
        ("cts", json!("now")),
        ("val", json!("")),
        ("val", json!("v".repeat(129))),
        ("sig", json!([1, 2])),
        ("sig", json!({"$bytes": "*"})),
        ("uri", json!(7)),
    ] {
        let mut json = fine.clone();
        json[field] = value;
        assert!(matches!(Label::from_json(&json), Err(LabelError::Malformed(_))), "{json}");
    }
    assert!(Label::from_cbor(&[0xa1; 4096]).is_err());
    assert!(Label::from_cbor(&[0x81; 1 << 20]).is_err(), "deep nesting is no stack overflow");
}

#[test]
fn the_newest_of_a_key_counts() {
    let (old, new) = (label("a", 1), label("a", 2));
    let negation = changed(label("a", 3), |label| label.neg = Some(true));
    let again = label("a", 4);
    let vals = |labels: &[&Label]| fold(labels.iter().copied(), at(10)).len();
    assert_eq!(vals(&[&new, &old]), 1);
    assert_eq!(newest([&new, &old]).into_values().next(), Some(&new));
    assert_eq!(vals(&[&negation, &old, &new]), 0, "in whatever order they come");
    assert_eq!(vals(&[&old, &negation, &new]), 0);
    assert_eq!(vals(&[&again, &negation, &old]), 1);
    assert_eq!(vals(&[&again, &label("b", 1)]), 2, "values do not touch each other");
    assert_eq!(vals(&[]), 0);
}

#[test]
fn a_negation_wins_at_the_same_instant() {
    let (plain, negation) = (label("a", 1), changed(label("a", 1), |label| label.neg = Some(true)));
    assert!(fold([&plain, &negation], at(10)).is_empty());
    assert!(fold([&negation, &plain], at(10)).is_empty());
}

#[test]
fn instants_are_compared_and_not_text() {
    let earlier = changed(label("a", 0), |label| label.cts = "2027-01-15T09:59:59+02:00".parse().unwrap());
    let later = changed(label("a", 0), |label| {
        label.cts = "2027-01-15T08:00:00Z".parse().unwrap();
        label.neg = Some(true);
    });
    assert!(fold([&later, &earlier], at(10)).is_empty());
}

#[test]
fn a_label_ends_at_its_expiry() {
    let ending = changed(label("a", 0), |label| label.exp = Some(datetime(at(60))));
    assert_eq!(fold([&ending], at(59)).len(), 1);
    assert_eq!(fold([&ending], at(60)).len(), 0);
    assert_eq!(
        fold([&label("a", 0), &changed(label("a", 1), |label| label.exp = Some(datetime(at(5))))], at(6)).len(),
        0,
        "an older one does not revive"
    );
}

#[test]
fn one_unreadable_label_does_not_hide_the_rest() {
    let page = json!({"cursor": "7", "labels": [label("a", 0).to_json(), {"val": 1}, label("b", 0).to_json()]});
    let page = read_query_labels(page.to_string().as_bytes()).unwrap();
    assert_eq!((page.labels.len(), page.refused.len(), page.cursor.as_deref()), (2, 1, Some("7")));
    assert!(read_query_labels(b"{}").is_err());
}

#[test]
fn octets_and_signatures_are_those_of_the_reference_implementation() {
    let sample: serde_json::Value = serde_json::from_str(include_str!("../tests/samples/labels.json")).unwrap();
    assert_eq!(sample["key"], key().verifying_key().did_key());
    let labels = sample["labels"].as_array().unwrap();
    assert_eq!(labels.len(), 6);
    for theirs in labels {
        let mut label = Label::from_json(&theirs["label"]).unwrap();
        check(&label).unwrap();
        assert_eq!(data_encoding::HEXLOWER.encode(&label.signed_octets()), theirs["cbor"]);
        let signature = label.sig.take();
        label.sign(&key());
        assert_eq!(label.sig, signature);
        assert_eq!(label.to_json(), theirs["label"]);
    }
}

/// Made by `tradewind-loadtest labeler vectors --count 40 --write …`, which tries a thousand, and ours with theirs.
#[test]
fn random_labels_of_the_reference_implementations_are_ours_to_the_octet() {
    let mut lines = include_str!("../tests/samples/vectors.jsonl").lines();
    assert!(lines.next().unwrap().contains(&key().verifying_key().did_key()));
    let (mut count, mut false_negations) = (0, 0);
    for line in lines {
        let theirs: serde_json::Value = serde_json::from_str(line).unwrap();
        let mut label = Label::from_json(&theirs["label"]).unwrap();
        label.verify(&label.src, &key().verifying_key()).unwrap();
        assert_eq!(data_encoding::HEXLOWER.encode(&label.signed_octets()), theirs["cbor"]);
        let frame = crate::stream::labels_frame(theirs["seq"].as_u64().unwrap(), &label.to_cbor());
        assert_eq!(data_encoding::HEXLOWER.encode(&frame), theirs["frame"]);
        let signature = label.sig.take();
        label.sign(&key());
        assert_eq!(label.sig, signature);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&label.to_json_text()).unwrap(), theirs["label"]);
        (count, false_negations) = (count + 1, false_negations + usize::from(label.neg == Some(false)));
    }
    assert!(count == 40 && false_negations > 4, "{count} {false_negations}");
}

#[test]
fn values_are_words_with_hyphens_between() {
    for value in crate::lexicon::CooperativeLabel::ALL {
        assert!(is_value(value.as_str()), "{value}");
    }
    for wrong in ["", "-", "a-", "-a", "a--b", "!hide", "A", "a_b", "ä", "a b", "a1", &"a".repeat(129)] {
        assert!(!is_value(wrong), "{wrong}");
    }
}
