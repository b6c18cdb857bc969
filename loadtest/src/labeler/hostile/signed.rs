//! Tokens and labels that are forged, replayed, or for somebody else: against the library that both daemons use.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::labeler::replay::Used;
use atproto::did::{Did, Document};
use atproto::jwt::{Expected, Token};
use atproto::key::SigningKey;
use atproto::label::{Label, Signature, fold};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::Row;

const CALLER: &str = "did:plc:caller";
const LABELER: &str = "did:web:labeler.example.test";
const METHOD: &str = "coop.tradewind.reportSending";
const NOW: u64 = 1_790_000_000;

pub(super) fn rows() -> Vec<Row> {
    let mut rows = tokens();
    rows.extend(labels());
    rows
}

pub(super) fn key(octet: u8) -> SigningKey {
    match SigningKey::from_octets(&[octet; 32]) {
        Ok(key) => key,
        Err(_) => unreachable!("below the order"),
    }
}

pub(super) fn did(text: &str) -> Did {
    match text.parse() {
        Ok(did) => did,
        Err(_) => unreachable!("written here"),
    }
}

/// The same signature with the other s, which verifies wherever that is not looked at.
pub(super) fn high_s(signature: &[u8]) -> Vec<u8> {
    let Ok(low) = k256::ecdsa::Signature::from_slice(signature) else { return Vec::new() };
    k256::ecdsa::Signature::from_scalars(low.r(), -*low.s()).map(|high| high.to_bytes().to_vec()).unwrap_or_default()
}

fn tokens() -> Vec<Row> {
    let method = json!({"id": "#atproto", "type": "Multikey", "controller": CALLER, "publicKeyMultibase": key(0x11).verifying_key().multikey()});
    let document = json!({"id": CALLER, "verificationMethod": [method]}).to_string();
    let Ok(document) = Document::parse(document.as_bytes(), &did(CALLER)) else { unreachable!("written here") };
    let audience = did(LABELER);
    let expected =
        Expected { audience: &audience, service: "atproto_labeler", method: METHOD, now: UNIX_EPOCH + Duration::from_secs(NOW) };
    let sign = |octet: u8, header: &str, claims: &str| {
        let signed = format!("{}.{}", BASE64URL_NOPAD.encode(header.as_bytes()), BASE64URL_NOPAD.encode(claims.as_bytes()));
        let signature = key(octet).sign(signed.as_bytes());
        (signed, signature.to_vec())
    };
    let whole = |(signed, signature): (String, Vec<u8>)| format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature));
    let header = r#"{"typ":"JWT","alg":"ES256K"}"#;
    let claims = json!({"iss": CALLER, "aud": format!("{LABELER}#atproto_labeler"), "iat": NOW, "exp": NOW + 60, "lxm": METHOD, "jti": "one"});
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        whole(sign(0x11, header, &claims.to_string()))
    };
    let mut used = Used::default();
    let mut check = |token: &str| -> Result<String, String> {
        let caller =
            Token::parse(token).and_then(|token| token.verify(&document, expected)).map_err(|error| error.to_string())?;
        used.take(&caller, expected.now).map_err(|error| error.to_string())?;
        Ok("taken".into())
    };
    let plain = claims.to_string();
    let (signed, signature) = sign(0x11, header, &with_jti(&claims, "high"));
    let good = whole(sign(0x11, header, &plain));
    let none =
        format!("{}.{}.", BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"none"}"#), BASE64URL_NOPAD.encode(plain.as_bytes()));
    let twice = plain.replacen('{', "{\"jti\":\"two\",", 1);
    let table: Vec<(&str, &str, String)> = vec![
        ("a token in order", "taken", good.clone()),
        ("the same token again", "used before", good),
        ("a token of another key", "the signature is not", whole(sign(0x12, header, &plain))),
        ("alg none", "ES256K", none),
        ("alg HS256, signed with the public key's text", "ES256K", whole(sign(0x11, r#"{"typ":"JWT","alg":"HS256"}"#, &plain))),
        ("alg of another curve than the key's", "ES256K", whole(sign(0x11, r#"{"typ":"JWT","alg":"ES256"}"#, &plain))),
        ("a signature with high s", "signature", whole((signed, high_s(&signature)))),
        ("aud of another service", "`aud`", with("aud", json!("did:web:other.example"))),
        ("aud of another of our services", "`aud`", with("aud", json!(format!("{LABELER}#other")))),
        ("lxm of another method", "`lxm`", with("lxm", json!("com.atproto.server.getSession"))),
        ("lxm of any method", "`lxm`", with("lxm", json!(null))),
        ("a token that has expired", "expired", with("exp", json!(NOW))),
        ("a token for a year", "more than an hour", with("exp", json!(NOW + 31_536_000))),
        ("a token of tomorrow", "future", with("iat", json!(NOW + 86_400))),
        ("a token without jti", "`jti`", with("jti", json!(null))),
        ("a claim twice", "each name once", whole(sign(0x11, header, &twice))),
        ("a token in the name of another", "the document is of", with("iss", json!("did:plc:other"))),
        (
            "an extension that must be understood",
            "`crit`",
            whole(sign(0x11, r#"{"typ":"JWT","alg":"ES256K","crit":["x"]}"#, &plain)),
        ),
        ("a token of 100,000 octets", "longer than", with("jti", json!("x".repeat(100_000)))),
    ];
    table
        .into_iter()
        .map(|(case, expected, token)| {
            let seen = check(&token).unwrap_or_else(|why| why);
            Row::new(case, expected, seen.clone(), seen.contains(expected))
        })
        .collect()
}

fn with_jti(claims: &Value, jti: &str) -> String {
    let mut claims = claims.clone();
    claims["jti"] = json!(jti);
    claims.to_string()
}

/// What an MTA reads at its poll: each is verified, then the newest of each subject and value counts.
fn labels() -> Vec<Row> {
    let (issuer, member) = (did(LABELER), did("did:plc:7tcx4xxjwidnicieiwtrpyal"));
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let at = |secs: u64| atproto::datetime(UNIX_EPOCH + Duration::from_secs(secs));
    let label = |secs: u64, change: fn(&mut Label)| {
        let mut label = Label::account(issuer.clone(), &member, "relay-member", at(secs));
        change(&mut label);
        label.sign(&key(0x11));
        label
    };
    let holds = |labels: Vec<Label>| believed(&labels, &issuer, now);
    let mut other = label(NOW, |_| {});
    other.sign(&key(0x12));
    let mut high = label(NOW, |_| {});
    high.sig = high.sig.map(|sig| Signature(high_s(&sig.0)));
    let mut unsigned = label(NOW, |_| {});
    unsigned.sig = None;
    let mut of_another = label(NOW, |label| label.src = did("did:web:other.example"));
    of_another.sign(&key(0x11));
    let mut revived = label(NOW - 10, |label| label.neg = Some(true));
    revived.neg = None;
    let negated = label(NOW - 5, |label| label.neg = Some(true));
    vec![
        ("a label in order", 1, holds(vec![label(NOW - 10, |_| {})])),
        ("a label of another key", 0, holds(vec![other])),
        ("a label with high s", 0, holds(vec![high])),
        ("a label without signature", 0, holds(vec![unsigned])),
        ("a label of another labeler", 0, holds(vec![of_another])),
        ("a negation with its neg taken out", 0, holds(vec![revived])),
        ("a label that has run out", 0, holds(vec![label(NOW - 10, |label| label.exp = "2026-09-01T00:00:00Z".parse().ok())])),
        ("an old label after its negation", 0, holds(vec![negated.clone(), label(NOW - 10, |_| {})])),
        ("label and negation of one instant", 0, holds(vec![label(NOW - 5, |_| {}), negated])),
        ("version 2", 0, holds(vec![label(NOW, |label| label.ver = Some(2))])),
    ]
    .into_iter()
    .map(|(case, expected, seen)| Row::new(case, format!("{expected} in force"), format!("{seen} in force"), expected == seen))
    .collect()
}

fn believed(labels: &[Label], issuer: &Did, now: SystemTime) -> usize {
    let key = key(0x11).verifying_key();
    let believed: Vec<&Label> = labels.iter().filter(|label| label.verify(issuer, &key).is_ok()).collect();
    fold(believed, now).len()
}
