//! Service auth tokens: texts as they come, tokens made of any claims and signed, and the memory of those that were used.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atproto::did::{Did, Document};
use atproto::jwt::{Caller, Expected, JwtError, LIFETIME_MAX, SKEW_MAX, TOKEN_BYTES_MAX, Token};
use data_encoding::BASE64URL_NOPAD;
use labeler::replay::{ReplayError, Used};
use serde_json::{Map, Value, json};

use crate::draw::Draw;
use crate::label::key;

const CALLER: &str = "did:plc:caller";
const LABELER: &str = "did:web:labeler.example.test";
const METHOD: &str = "coop.tradewind.reportSending";
const NOW: u64 = 1_790_000_000;

pub(crate) fn fuzz(octets: &[u8]) {
    let Some((&kind, rest)) = octets.split_first() else { return };
    match kind & 3 {
        0 => text(rest),
        1 => any_parts(&mut Draw(rest)),
        2 => any_claims(&mut Draw(rest)),
        _ => used(&mut Draw(rest)),
    }
}

fn at(secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(secs)
}

fn document() -> &'static Document {
    static DOCUMENT: OnceLock<Document> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let method = |id: &str, octet| {
            let key = key(octet).verifying_key().multikey();
            json!({"id": format!("{CALLER}#{id}"), "type": "Multikey", "controller": CALLER, "publicKeyMultibase": key})
        };
        let document = json!({"id": CALLER, "verificationMethod": [method("atproto", 0x11), method("other", 0x12)]});
        Document::parse(document.to_string().as_bytes(), &CALLER.parse().unwrap()).unwrap()
    })
}

fn verify(token: &Token) -> Result<Caller, JwtError> {
    let audience: Did = LABELER.parse().unwrap();
    let expected = Expected { audience: &audience, service: "atproto_labeler", method: METHOD, now: at(NOW) };
    let verified = token.verify(document(), expected);
    assert!(verified.is_err() || token.check(expected).is_ok());
    verified
}

fn signed(octet: u8, header: &[u8], claims: &[u8]) -> String {
    let signed = format!("{}.{}", BASE64URL_NOPAD.encode(header), BASE64URL_NOPAD.encode(claims));
    let signature = BASE64URL_NOPAD.encode(&key(octet).sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// Any text. One that is believed is a token that the caller's key made; signing again gives it to the letter.
fn text(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    let Ok(token) = Token::parse(text) else { return };
    assert!(text.len() <= TOKEN_BYTES_MAX && text.is_ascii() && text.matches('.').count() == 2);
    assert!(!format!("{token:?}").contains(text.rsplit('.').next().unwrap()), "the signature is shown");
    if verify(&token).is_ok() {
        let parts: Vec<Vec<u8>> = text.split('.').map(|part| BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).collect();
        assert!([0x11, 0x12].iter().any(|octet| signed(*octet, &parts[0], &parts[1]) == text), "a forged token is believed");
    }
}

/// Any octets for header and claims, signed: a token with a name twice, or of no JSON, is none.
fn any_parts(draw: &mut Draw<'_>) {
    let header = if draw.is() { draw.octets().to_vec() } else { br#"{"typ":"JWT","alg":"ES256K"}"#.to_vec() };
    let claims = draw.0;
    let token = signed(0x11, &header, claims);
    let Ok(read) = Token::parse(&token) else { return };
    let object = |octets: &[u8]| serde_json::from_slice::<Map<String, Value>>(octets).expect("what was read is an object");
    let (header, claims) = (object(&header), object(claims));
    agrees(&read, &header, &claims, true);
    mutated(&token, claims.len() + header.len());
}

/// Claims of choice: what passes is what a second reading of the rules lets pass.
fn any_claims(draw: &mut Draw<'_>) {
    let service = format!("{LABELER}#atproto_labeler");
    let numbers = [NOW, NOW + 60, NOW - 1, NOW + 3600, NOW + 3631, NOW + 30, NOW + 31, 0, u64::MAX];
    let mut claims = Map::new();
    let mut put = |name: &str, value: Option<Value>| value.map(|value| claims.insert(name.into(), value));
    put("iss", draw.one(&[Some(json!(CALLER)), Some(json!("did:plc:other")), Some(json!(7)), None]));
    put(
        "aud",
        draw.one(&[
            Some(json!(service)),
            Some(json!(LABELER)),
            Some(json!(format!("{LABELER}#x"))),
            Some(json!([LABELER])),
            None,
        ]),
    );
    put("exp", draw.one(&[Some(1), Some(3), Some(4), Some(0), Some(2), Some(8), Some(7), None]).map(|at| json!(numbers[at])));
    put("iat", draw.one(&[Some(0), Some(5), Some(6), Some(2), Some(8), Some(7), None]).map(|at| json!(numbers[at])));
    put("nbf", draw.one(&[None, Some(0), Some(6), Some(8)]).map(|at| json!(numbers[at])));
    put("lxm", draw.one(&[Some(json!(METHOD)), Some(json!("coop.tradewind.getStanding")), Some(json!("*")), None]));
    put(
        "jti",
        draw.one(&[Some(json!("one")), Some(json!("")), Some(json!("x".repeat(128))), Some(json!("x".repeat(129))), None]),
    );
    if draw.is() {
        put(&draw.text(), Some(json!(draw.text())));
    }
    let mut header = Map::new();
    header.insert("typ".into(), draw.one(&[json!("JWT"), json!("jwt"), json!("at+jwt"), json!(null)]));
    header.insert("alg".into(), draw.one(&[json!("ES256K"), json!("ES256"), json!("none"), json!("HS256")]));
    if let Some(kid) =
        draw.one(&[None, Some("#other"), Some("other"), Some("did:plc:caller#atproto"), Some("did:plc:other#atproto")])
    {
        header.insert("kid".into(), json!(kid));
    }
    if draw.below(8) == 7 {
        header.insert(draw.one(&["crit", "b64"]).into(), json!(["x"]));
    }
    let octet = draw.one(&[0x11, 0x12, 0x13]);
    let token = signed(octet, json!(header).to_string().as_bytes(), json!(claims).to_string().as_bytes());
    let kid = header.get("kid").and_then(Value::as_str).unwrap_or("atproto");
    let right_key = octet == if kid.ends_with("other") { 0x12 } else { 0x11 };
    match Token::parse(&token) {
        Ok(read) => agrees(&read, &header, &claims, right_key),
        Err(_) => assert!(!passes(&header, &claims, right_key), "refused: {header:?} {claims:?}"),
    }
    mutated(&token, usize::from(draw.octet()) * 3);
}

fn agrees(token: &Token, header: &Map<String, Value>, claims: &Map<String, Value>, right_key: bool) {
    let found = verify(token);
    let kid = header.get("kid").and_then(Value::as_str).unwrap_or("atproto");
    // Tokens of any parts are signed with the first key, whatever they name.
    let known = ["atproto", "#atproto", "did:plc:caller#atproto", "other", "#other", "did:plc:caller#other"].contains(&kid);
    if found.is_ok() {
        assert!(known && passes(header, claims, right_key), "believed: {header:?} {claims:?}");
    } else if known && !kid.ends_with("other") || (right_key && kid == "other") {
        assert!(!passes(header, claims, right_key), "refused for {:?}: {header:?} {claims:?}", found.err());
    }
}

/// The rules a second time, over values.
fn passes(header: &Map<String, Value>, claims: &Map<String, Value>, right_key: bool) -> bool {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let number = |name: &str| claims.get(name).map(|value| value.as_u64());
    let limit = LIFETIME_MAX.as_secs();
    let (Some(exp), iat, nbf) = (number("exp").flatten(), number("iat"), number("nbf")) else { return false };
    let times = [iat, nbf].into_iter().flatten().all(|time| time.is_some_and(|time| time <= NOW + SKEW_MAX.as_secs()));
    let issued = [iat, nbf].into_iter().flatten().flatten().max();
    let optional = |name: &str, map: &Map<String, Value>| map.get(name).is_none_or(Value::is_null);
    let times = times || ["iat", "nbf"].iter().all(|name| optional(name, claims));
    header.get("typ").and_then(Value::as_str).is_some_and(|typ| typ.eq_ignore_ascii_case("jwt"))
        && header.get("alg") == Some(&json!("ES256K"))
        && header.get("kid") != Some(&json!("did:plc:other#atproto"))
        && optional("crit", header)
        && optional("b64", header)
        && text("iss") == Some(CALLER)
        && text("aud").is_some_and(|aud| aud == LABELER || aud == format!("{LABELER}#atproto_labeler"))
        && text("lxm") == Some(METHOD)
        && text("jti").is_some_and(|jti| (1..=128).contains(&jti.len()))
        && exp > NOW
        && exp <= NOW + limit + SKEW_MAX.as_secs()
        && times
        && issued.is_none_or(|issued| exp <= issued + limit)
        && right_key
}

/// One octet changed, and it is another token or none, but not a believed one.
fn mutated(token: &str, at: usize) {
    let mut octets = token.as_bytes().to_vec();
    let at = at % octets.len();
    octets[at] ^= 1;
    if let Some(changed) = std::str::from_utf8(&octets).ok().and_then(|text| Token::parse(text).ok()) {
        assert!(verify(&changed).is_err(), "changed at {at}, and believed");
    }
}

/// The memory against a list of everything that was ever taken.
fn used(draw: &mut Draw<'_>) {
    let (mut used, mut taken, mut now) = (Used::default(), BTreeMap::<(u8, u8), u64>::new(), NOW);
    while !draw.is_empty() {
        now += draw.below(40) as u64;
        let (who, jti, lasts) = (draw.octet() % 4, draw.octet() % 8, 1 + draw.below(90) as u64);
        let expires = now + lasts;
        let caller = Caller {
            did: format!("did:plc:m{who}").parse().unwrap(),
            kid: "atproto".into(),
            jti: jti.to_string(),
            expires: at(expires),
        };
        let held = taken.get(&(who, jti)).is_some_and(|until| *until > now);
        match used.take(&caller, at(now)) {
            Ok(()) => {
                assert!(!held, "used twice");
                taken.insert((who, jti), expires);
            }
            Err(ReplayError::Replayed) => assert!(held, "refused the first time"),
            Err(ReplayError::Full) => panic!("there is room for these few"),
        }
    }
}
