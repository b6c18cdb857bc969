//! Rows of `current`: the number of a subject's newest label, and what its JSON is made of at once.
//!
//! Subject and value are in the row's key, and most of the rest of the JSON is the same in every label, so a row holds only times
//! and signature: less than half the octets. A label that does not come out of that as it was put in is kept as JSON, as earlier
//! versions kept all.

use atproto::label::Label;
use data_encoding::BASE64_NOPAD;

use super::{StoreError, number};

/// After the number, where JSON would have its brace.
const SHORT: u8 = b's';
const SIGNATURE_BYTES: usize = 64;

/// The number in a row.
pub(super) fn seq_of(row: &[u8]) -> Result<u64, StoreError> {
    number(row.get(..8).unwrap_or_default())
}

/// The row of a label, for the key `name`.
pub(super) fn row(seq: u64, label: &Label, issuer: &str, name: &[u8]) -> Vec<u8> {
    short(seq, label, issuer, name).unwrap_or_else(|| [&seq.to_be_bytes(), label.to_json_text().as_bytes()].concat())
}

/// None when [`write_json`] would not make this label of it again.
fn short(seq: u64, label: &Label, issuer: &str, name: &[u8]) -> Option<Vec<u8>> {
    let signature = &label.sig.as_ref().filter(|sig| sig.0.len() == SIGNATURE_BYTES)?.0;
    let (cts, exp) = (label.cts.as_str(), label.exp.as_ref().map_or("", |exp| exp.as_str()));
    let ours = label.ver == Some(1) && label.src.as_str() == issuer && label.cid.is_none() && label.neg != Some(false);
    let no_empty_exp = exp.is_empty() == label.exp.is_none();
    let named = name.strip_prefix(label.uri.as_bytes()).and_then(|rest| rest.strip_prefix(b"\0")) == Some(label.val.as_bytes());
    if !(ours && no_empty_exp && named && [issuer, &label.uri, &label.val, cts, exp].into_iter().all(is_itself_in_json)) {
        return None;
    }
    let head = [SHORT, u8::from(label.negates()), u8::try_from(cts.len()).ok()?, u8::try_from(exp.len()).ok()?];
    Some([&seq.to_be_bytes(), &head[..], cts.as_bytes(), exp.as_bytes(), signature].concat())
}

/// Nothing in it has to be escaped (RFC 8259 §7).
fn is_itself_in_json(text: &str) -> bool {
    text.bytes().all(|octet| octet >= b' ' && octet != b'"' && octet != b'\\')
}

/// Appends the JSON of the label in a row.
pub(super) fn write_json(out: &mut Vec<u8>, row: &[u8], issuer: &str, name: &[u8]) -> Result<(), StoreError> {
    let corrupt = || StoreError::Corrupt("the current labels".into());
    let rest = row.get(8..).ok_or_else(corrupt)?;
    let Some((&[SHORT, neg, cts_len, exp_len], rest)) = rest.split_first_chunk() else {
        out.extend_from_slice(rest);
        return Ok(());
    };
    let (cts, rest) = rest.split_at_checked(usize::from(cts_len)).ok_or_else(corrupt)?;
    let (exp, signature) = rest.split_at_checked(usize::from(exp_len)).ok_or_else(corrupt)?;
    let signature: &[u8; SIGNATURE_BYTES] = signature.try_into().map_err(|_| corrupt())?;
    let middle = name.iter().position(|octet| *octet == 0).ok_or_else(corrupt)?;
    let (uri, val) = (name.get(..middle).unwrap_or_default(), name.get(middle + 1..).unwrap_or_default());
    let mut sig = [0; (SIGNATURE_BYTES * 8).div_ceil(6)];
    BASE64_NOPAD.encode_mut(signature, &mut sig);
    let neg: &[u8] = if neg == 1 { b"\",\"neg\":true,\"cts\":\"" } else { b"\",\"cts\":\"" };
    let before_exp: &[u8] = if exp.is_empty() { b"" } else { b"\",\"exp\":\"" };
    let parts: [&[u8]; 13] = [
        b"{\"ver\":1,\"src\":\"",
        issuer.as_bytes(),
        b"\",\"uri\":\"",
        uri,
        b"\",\"val\":\"",
        val,
        neg,
        cts,
        before_exp,
        exp,
        b"\",\"sig\":{\"$bytes\":\"",
        &sig,
        b"\"}}",
    ];
    parts.into_iter().for_each(|part| out.extend_from_slice(part));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use atproto::key::SigningKey;

    use super::super::current_key;
    use super::*;

    #[test]
    fn the_json_of_a_row_is_that_of_its_label_to_the_octet() {
        let (issuer, key) = ("did:web:labeler.example.test", SigningKey::from_octets(&[0x11; 32]).unwrap());
        let at = |millis| atproto::datetime(UNIX_EPOCH + Duration::from_millis(millis));
        let plain =
            Label::account(issuer.parse().unwrap(), &"did:plc:m1".parse().unwrap(), "relay-member", at(1_790_000_000_001));
        let with = |edit: &dyn Fn(&mut Label)| {
            let mut label = plain.clone();
            edit(&mut label);
            label.sign(&key);
            label
        };
        let short = [
            with(&|_| {}),
            with(&|it| it.neg = Some(true)),
            with(&|it| it.exp = Some(at(1_790_000_000_000))),
            with(&|it| it.cts = "2026-09-21T14:13:20Z".parse().unwrap()),
        ];
        let whole = [
            with(&|it| it.neg = Some(false)),
            with(&|it| it.cid = Some("bafyreib2rxk3rh6kzwq".into())),
            with(&|it| it.ver = None),
            with(&|it| it.src = "did:web:other.example.test".parse().unwrap()),
            with(&|it| it.uri = "at://\"quoted\\\"/x".into()),
            with(&|it| it.uri = "at://tab\t/x".into()),
            plain.clone(),
        ];
        let rows = short.iter().map(|label| (label, true)).chain(whole.iter().map(|label| (label, false)));
        for (nth, (label, is_short)) in rows.enumerate() {
            let name = current_key(&label.uri, &label.val);
            let row = row(nth as u64, label, issuer, &name);
            assert_eq!((seq_of(&row).unwrap(), row[8] == SHORT), (nth as u64, is_short));
            let mut json = b"[".to_vec();
            write_json(&mut json, &row, issuer, &name).unwrap();
            assert_eq!(String::from_utf8(json).unwrap(), format!("[{}", label.to_json_text()));
            assert!(!is_short || row.len() * 2 < label.to_json_text().len() + 8, "{}", row.len());
        }
    }

    #[test]
    fn a_row_that_is_cut_off_is_corrupt() {
        let key = SigningKey::from_octets(&[0x11; 32]).unwrap();
        let mut label =
            Label::account("did:web:x".parse().unwrap(), &"did:plc:m1".parse().unwrap(), "a", atproto::datetime(UNIX_EPOCH));
        label.sign(&key);
        let name = current_key(&label.uri, &label.val);
        let row = row(1, &label, "did:web:x", &name);
        assert!(write_json(&mut Vec::new(), &row, "did:web:x", &name).is_ok());
        for length in [0, 7, 20, row.len() - 1] {
            assert!(write_json(&mut Vec::new(), &row[..length], "did:web:x", &name).is_err(), "{length}");
        }
        assert!(write_json(&mut Vec::new(), &row, "did:web:x", b"no value").is_err());
    }
}
