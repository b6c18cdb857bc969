//! Tokens of the reference implementation, and a table of what must not pass.

use serde_json::json;

use super::*;
use crate::key::VerifyingKey;

const CALLER: &str = "did:plc:caller";
const LABELER: &str = "did:web:labeler.example.test";
const SERVICE: &str = "did:web:labeler.example.test#atproto_labeler";
const METHOD: &str = "coop.tradewind.reportSending";
const NOW: u64 = 1_790_000_000;

fn did(text: &str) -> Did {
    text.parse().unwrap()
}

fn key(octet: u8) -> SigningKey {
    SigningKey::from_octets(&[octet; 32]).unwrap()
}

fn document(of: &str, key: &VerifyingKey) -> Document {
    let method = |id: &str, key: &VerifyingKey| json!({"id": format!("{of}#{id}"), "type": "Multikey", "controller": of, "publicKeyMultibase": key.multikey()});
    let methods = [method("atproto", key), method("atproto_label", &self::key(0x44).verifying_key())];
    Document::parse(json!({"id": of, "verificationMethod": methods}).to_string().as_bytes(), &did(of)).unwrap()
}

fn at(secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(secs)
}

/// What the table's tokens are held against.
fn verify_at(token: &str, document: &Document, now: SystemTime) -> Result<Caller, JwtError> {
    let audience = did(LABELER);
    let expected = Expected { audience: &audience, service: "atproto_labeler", method: METHOD, now };
    let token = Token::parse(token)?;
    assert_eq!(token.issuer().as_str(), CALLER);
    token.verify(document, expected)
}

fn verify(token: &str) -> Result<Caller, JwtError> {
    verify_at(token, &document(CALLER, &key(0x11).verifying_key()), at(NOW))
}

/// Signs a header and claims, as text, with a key of ours.
fn signed(key: &SigningKey, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", BASE64URL_NOPAD.encode(header.as_bytes()), BASE64URL_NOPAD.encode(claims.as_bytes()));
    let signature = BASE64URL_NOPAD.encode(&key.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

const HEADER: &str = r#"{"typ":"JWT","alg":"ES256K"}"#;

fn claims() -> Value {
    json!({"iss": CALLER, "aud": SERVICE, "iat": NOW, "exp": NOW + 60, "lxm": METHOD, "jti": "one"})
}

/// The usual token with claims changed; `null` takes one away.
fn with(changes: Value) -> String {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name)
        } else {
            claims.as_object_mut().unwrap().insert(name.clone(), value.clone())
        };
    }
    signed(&key(0x11), HEADER, &claims.to_string())
}

fn headed(header: Value) -> String {
    signed(&key(0x11), &header.to_string(), &claims().to_string())
}

#[test]
fn tokens_of_the_reference_implementation_are_believed_with_their_key_until_they_expire() {
    let sample: Value = serde_json::from_str(include_str!("../tests/samples/jwt.json")).unwrap();
    for (name, algorithm, other) in [("ES256K", Algorithm::Secp256k1, "ES256"), ("ES256", Algorithm::P256, "ES256K")] {
        let (token, key) = (sample[name]["jwt"].as_str().unwrap(), sample[name]["did_key"].as_str().unwrap());
        let key = VerifyingKey::from_did_key(key).unwrap();
        assert_eq!(key.algorithm(), algorithm);
        let claims: Value = serde_json::from_str(sample[name]["claims"].as_str().unwrap()).unwrap();
        let jti = claims["jti"].as_str().unwrap().to_owned();
        let caller = Caller { did: did(CALLER), kid: "atproto".into(), jti, expires: at(NOW + 60) };
        assert_eq!(verify_at(token, &document(CALLER, &key), at(NOW + 59)), Ok(caller));
        assert_eq!(verify_at(token, &document(CALLER, &key), at(NOW + 60)), Err(JwtError::Expired));
        let other = VerifyingKey::from_did_key(sample[other]["did_key"].as_str().unwrap()).unwrap();
        assert_eq!(
            verify_at(token, &document(CALLER, &other), at(NOW)),
            Err(JwtError::Algorithm),
            "{name} by a key of the other curve"
        );
    }
    let token = sample["ES256"]["jwt"].as_str().unwrap();
    let flipped = token.replacen(".dSPs", ".dSPt", 1);
    assert_ne!(token, flipped);
    let key = VerifyingKey::from_did_key(sample["ES256"]["did_key"].as_str().unwrap()).unwrap();
    assert_eq!(verify_at(&flipped, &document(CALLER, &key), at(NOW)), Err(JwtError::BadSignature));
}

#[test]
fn what_is_right_is_believed_however_it_is_written() {
    let cases = [
        ("plain", with(json!({}))),
        ("bare DID as audience", with(json!({"aud": LABELER}))),
        ("without iat", with(json!({"iat": null}))),
        ("an hour", with(json!({"exp": NOW + 3600}))),
        ("a clock a little ahead", with(json!({"iat": NOW + 30, "exp": NOW + 90}))),
        ("claims that nobody knows", with(json!({"sub": "x", "deep": {"er": [1, 2.5]}}))),
        ("kid", headed(json!({"typ": "JWT", "alg": "ES256K", "kid": "atproto"}))),
        ("kid with #", headed(json!({"typ": "JWT", "alg": "ES256K", "kid": "#atproto"}))),
        ("kid in full", headed(json!({"typ": "jwt", "alg": "ES256K", "kid": "did:plc:caller#atproto"}))),
    ];
    for (what, token) in cases {
        let caller = verify(&token).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((caller.did.as_str(), &*caller.kid, &*caller.jti), (CALLER, "atproto", "one"), "{what}");
    }
    let labels = signed(&key(0x44), r##"{"typ":"JWT","alg":"ES256K","kid":"#atproto_label"}"##, &claims().to_string());
    assert_eq!(verify(&labels).unwrap().kid, "atproto_label", "and the method may refuse it");
}

#[test]
fn what_must_not_pass_does_not() {
    use JwtError::*;
    let good = with(json!({}));
    let [header, body, signature] = <[&str; 3]>::try_from(good.split('.').collect::<Vec<_>>()).unwrap();
    let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let hs256 = r#"{"typ":"JWT","alg":"HS256"}"#;
    // The classic: the public key, which everybody has, as the secret of an HMAC.
    let hmac = {
        let signed = format!("{}.{body}", encode(hs256));
        let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key(0x11).verifying_key().multikey().as_bytes());
        format!("{signed}.{}", BASE64URL_NOPAD.encode(ring::hmac::sign(&secret, signed.as_bytes()).as_ref()))
    };
    let high_s = {
        let octets = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        let low = k256::ecdsa::Signature::from_slice(&octets).unwrap();
        let high = k256::ecdsa::Signature::from_scalars(low.r(), -*low.s()).unwrap();
        format!("{header}.{body}.{}", BASE64URL_NOPAD.encode(&high.to_bytes()))
    };
    let der = {
        let octets = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        let der = k256::ecdsa::Signature::from_slice(&octets).unwrap().to_der();
        format!("{header}.{body}.{}", BASE64URL_NOPAD.encode(der.as_bytes()))
    };
    let twice = |name: &str, value: &str| {
        signed(&key(0x11), HEADER, &format!("{},\"{name}\":{value}}}", claims().to_string().trim_end_matches('}')))
    };
    let other_claims = {
        let mut claims = claims();
        claims["jti"] = "two".into();
        format!("{header}.{}.{signature}", encode(&claims.to_string()))
    };
    let cases: Vec<(&str, String, JwtError)> = vec![
        // The signature.
        ("another's key", signed(&key(0x22), HEADER, &claims().to_string()), BadSignature),
        ("other claims under a signature", other_claims, BadSignature),
        (
            "other header under a signature",
            format!("{}.{body}.{signature}", encode(r#"{"typ":"JWT","alg":"ES256K" }"#)),
            BadSignature,
        ),
        ("high s", high_s, BadSignature),
        ("DER", der, Malformed("the signature is not 64 octets")),
        ("no signature", format!("{header}.{body}."), Malformed("the signature is not 64 octets")),
        ("zeros", format!("{header}.{body}.{}", BASE64URL_NOPAD.encode(&[0; 64])), BadSignature),
        ("the key for labels without its kid", signed(&key(0x44), HEADER, &claims().to_string()), BadSignature),
        // The algorithm.
        ("none", format!("{}.{body}.", encode(r#"{"typ":"JWT","alg":"none"}"#)), Algorithm),
        ("None, signed", headed(json!({"typ": "JWT", "alg": "None"})), Algorithm),
        ("HS256 with the public key", hmac, Algorithm),
        ("ES256 of a key that is not", headed(json!({"typ": "JWT", "alg": "ES256"})), Algorithm),
        ("es256k", headed(json!({"typ": "JWT", "alg": "es256k"})), Algorithm),
        ("no alg", headed(json!({"typ": "JWT"})), Malformed("a claim is missing or of another type")),
        ("no typ", headed(json!({"alg": "ES256K"})), Malformed("a claim is missing or of another type")),
        ("an access token", headed(json!({"typ": "at+jwt", "alg": "ES256K"})), Malformed("`typ` is not JWT")),
        ("a DPoP proof", headed(json!({"typ": "dpop+jwt", "alg": "ES256K"})), Malformed("`typ` is not JWT")),
        ("crit", headed(json!({"typ": "JWT", "alg": "ES256K", "crit": ["x"]})), Malformed("`crit` and `b64` are not understood")),
        ("b64", headed(json!({"typ": "JWT", "alg": "ES256K", "b64": false})), Malformed("`crit` and `b64` are not understood")),
        // The key.
        (
            "kid that is not there",
            headed(json!({"typ": "JWT", "alg": "ES256K", "kid": "#other"})),
            DocumentError::NoKey("other".into()).into(),
        ),
        ("kid of somebody else", headed(json!({"typ": "JWT", "alg": "ES256K", "kid": "did:plc:evil#atproto"})), Malformed(KID)),
        ("kid that is a path", headed(json!({"typ": "JWT", "alg": "ES256K", "kid": "../../dev/null"})), Malformed(KID)),
        ("empty kid", headed(json!({"typ": "JWT", "alg": "ES256K", "kid": ""})), Malformed(KID)),
        (
            "a key in the header",
            headed(json!({"typ": "JWT", "alg": "ES256K", "kid": "x", "jwk": {"kty": "EC"}})),
            DocumentError::NoKey("x".into()).into(),
        ),
        // Time.
        ("expired", with(json!({"iat": NOW - 60, "exp": NOW})), Expired),
        ("never valid", with(json!({"exp": 0})), Expired),
        ("from the future", with(json!({"iat": NOW + 31, "exp": NOW + 91})), Future),
        ("not before the future", with(json!({"nbf": NOW + 31, "exp": NOW + 91})), Future),
        ("longer than an hour", with(json!({"exp": NOW + 3601})), Lifetime),
        ("longer than an hour, began before", with(json!({"iat": NOW - 3000, "exp": NOW + 3000})), Lifetime),
        ("longer than an hour, without iat", with(json!({"iat": null, "exp": NOW + 3631})), Lifetime),
        ("the end of time", with(json!({"exp": u64::MAX})), Lifetime),
        ("the end of time, twice", with(json!({"exp": u64::MAX, "iat": u64::MAX})), Lifetime),
        (
            "beyond the end of time",
            signed(&key(0x11), HEADER, &claims().to_string().replace("1790000060", "1e400")),
            Malformed(OBJECT),
        ),
        ("a float", with(json!({"exp": 1_790_000_060.5})), Malformed(CLAIM)),
        ("negative", with(json!({"exp": -1})), Malformed(CLAIM)),
        ("text", with(json!({"exp": "1790000060"})), Malformed(CLAIM)),
        ("no exp", with(json!({"exp": null})), Malformed(CLAIM)),
        // For whom and what.
        ("another labeler", with(json!({"aud": "did:web:other.example.test"})), Audience),
        ("another service of ours", with(json!({"aud": "did:web:labeler.example.test#atproto_pds"})), Audience),
        ("no service of ours", with(json!({"aud": "did:web:labeler.example.test#"})), Audience),
        ("more than our name", with(json!({"aud": "did:web:labeler.example.test.evil.example"})), Audience),
        ("several", with(json!({"aud": [SERVICE, "did:web:other.example.test"]})), Malformed(CLAIM)),
        ("another method", with(json!({"lxm": "coop.tradewind.getStanding"})), Method),
        ("any method", with(json!({"lxm": null})), Method),
        ("a wildcard", with(json!({"lxm": "*"})), Method),
        ("no jti", with(json!({"jti": null})), Jti),
        ("empty jti", with(json!({"jti": ""})), Malformed("`jti` is empty or longer than 128 octets")),
        ("long jti", with(json!({"jti": "j".repeat(129)})), Malformed("`jti` is empty or longer than 128 octets")),
        ("no issuer", with(json!({"iss": null})), Malformed(CLAIM)),
        ("issuer without a DID", with(json!({"iss": "alice.example"})), Malformed("`iss` is not a DID")),
        ("issuer with a service", with(json!({"iss": "did:plc:caller#atproto_labeler"})), Malformed("`iss` is not a DID")),
        // Names that stand twice, also those that we do not know.
        ("exp twice", twice("exp", "1790000060"), Malformed(OBJECT)),
        ("iss twice", twice("iss", "\"did:plc:other\""), Malformed(OBJECT)),
        ("iss twice, one escaped", twice("i\\u0073s", "\"did:plc:other\""), Malformed(OBJECT)),
        ("sub twice", signed(&key(0x11), HEADER, &twice_unknown()), Malformed(OBJECT)),
        (
            "alg twice",
            signed(&key(0x11), r#"{"typ":"JWT","alg":"none","alg":"ES256K"}"#, &claims().to_string()),
            Malformed(OBJECT),
        ),
        // Form.
        ("empty", String::new(), Malformed("not three parts")),
        ("one part", header.into(), Malformed("not three parts")),
        ("two parts", format!("{header}.{body}"), Malformed("not three parts")),
        ("four parts", format!("{header}.{body}.{signature}.{signature}"), Malformed("not base64url")),
        ("padding", format!("{header}.{body}.{signature}=="), Malformed("not base64url")),
        ("standard base64", format!("{header}.{body}.+/{}", &signature[2..]), Malformed("not base64url")),
        ("a space", format!("{header}. {body}.{signature}"), Malformed("not base64url")),
        ("bits beyond the end", format!("{header}.{body}.{}", beyond(signature)), Malformed("not base64url")),
        ("not JSON", signed(&key(0x11), HEADER, "{"), Malformed(OBJECT)),
        ("not UTF-8", format!("{header}.{}.{signature}", BASE64URL_NOPAD.encode(b"{\"iss\":\"\xff\"}")), Malformed(OBJECT)),
        ("an array", signed(&key(0x11), HEADER, "[]"), Malformed(OBJECT)),
        ("after the end", signed(&key(0x11), HEADER, &format!("{} {{}}", claims())), Malformed(OBJECT)),
        ("a deep hole", signed(&key(0x11), HEADER, &format!("{{\"x\":{}", "[".repeat(1500))), Malformed(OBJECT)),
        ("too large", with(json!({"pad": "x".repeat(4096)})), Malformed("longer than 4096 octets")),
    ];
    for (what, token, error) in &cases {
        assert_eq!(verify(token).as_ref(), Err(error), "{what}");
    }
    assert!(verify(&good).is_ok(), "and the token that they were made of passes");
}

const KID: &str = "`kid` is not a key of the issuer";
const OBJECT: &str = "not a JSON object with each name once";
const CLAIM: &str = "a claim is missing or of another type";

fn twice_unknown() -> String {
    format!("{},\"sub\":1,\"sub\":2}}", claims().to_string().trim_end_matches('}'))
}

/// 64 octets are 86 characters, of whose last four bits count for nothing: another last character, the same octets.
fn beyond(signature: &str) -> String {
    let last = match signature.as_bytes()[85] {
        b'A' => 'B',
        b'Q' => 'R',
        b'g' => 'h',
        _ => 'x',
    };
    format!("{}{last}", &signature[..85])
}

#[test]
fn a_document_of_somebody_else_proves_nothing() {
    let token = with(json!({}));
    let refused = verify_at(&token, &document("did:plc:evil", &key(0x11).verifying_key()), at(NOW));
    assert!(matches!(refused, Err(JwtError::Document(DocumentError::OtherSubject { .. }))), "{refused:?}");
}

#[test]
fn a_token_is_not_printed() {
    let token = with(json!({}));
    let printed = format!("{:?}", Token::parse(&token).unwrap());
    assert!(!printed.contains(token.rsplit_once('.').unwrap().1) && !printed.contains("one"), "{printed}");
    assert!(printed.contains(CALLER) && printed.contains(METHOD));
}

#[test]
fn a_token_of_ours_is_believed_for_a_minute_by_whom_it_is_for() {
    let token = issue(&key(0x11), &did(CALLER), SERVICE, METHOD, at(NOW), "one");
    let caller = verify(&token).unwrap();
    assert_eq!((caller.jti.as_str(), caller.kid.as_str(), caller.expires), ("one", "atproto", at(NOW + 60)));
    assert_eq!(verify_at(&token, &document(CALLER, &key(0x11).verifying_key()), at(NOW + 60)), Err(JwtError::Expired));
    assert_eq!(verify(&issue(&key(0x12), &did(CALLER), SERVICE, METHOD, at(NOW), "one")), Err(JwtError::BadSignature));
}
