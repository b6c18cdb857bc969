//! Keys as operators bring them, and the files they are kept in.

// Clippy takes the helpers of an integration test for product code.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use mta::sign::store::{KEYS_MAX, StoreError, selector_prefix};
use mta::sign::{Algorithm, KeyError, KeyRing, KeyStore, SigningKey};

/// Made for this test by OpenSSL; 1024 bits.
const WEAK: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIICdwIBADANBgkqhkiG9w0BAQEFAASCAmEwggJdAgEAAoGBAMbYVtAPT5szTzBD\n\
FhIVgwBMEqW1eX8wTAp4+c89XIctevHFhy/yPuCK+RKK7kEpddm7yIp+LLNyJFI/\n\
493HkVb/Qz0jaei7u6J00e1IQynfFaarap7UXfZM7cr9sYwO0zf6SDNeiKHtYyFs\n\
cRDF66FKHeMcyETX9HSLaCxlWOFvAgMBAAECgYASZtj53kDeuwvcColTWRxLfb7I\n\
CRhaVezjlzh/Hk2e0O2szDvriv6YpyPPvH26GA0o/kDb2Dtoy+piljkPQDXJ7jgJ\n\
xvja+9bJFR89ZmHXP552NMY3UkPLhg2jy6lm6VRD5GBmvdHLi3BC5oBnWF43nV/J\n\
4plB1f41ALTB0O7wmQJBAP8qs/hb3uvTsSo36BfXSQnGsfIOINp0UapIBbPCxC8G\n\
fWAZlml4n7YcAneAmUfZArJ6u14PgBCxpSgOkjLZ5T0CQQDHfo5cCILBROQVckd5\n\
To7tduS3fHuXmiEo0waIJBv3eMPcewyiTzkUColABFqWswQUupzcF+65VH77nAST\n\
98QbAkEAgM3TjxkBDFYN5lvWQsKf0dmE1cUf/GYfGy/EARvd4EcMXshLzu3e4RR+\n\
gkheF5CJ9gJSNobohITH89J3JkgrmQJABGVBdb2qQ9/ktqRB9uZIN+s6tuBDSN/Y\n\
gzHDHxTMmPNMPXtol9rvAwYIaCSwakmfeWVzN1Y/qE24TortfuUiqQJBALWLAzh5\n\
r2brwOOQFghDBo1IuXCgbSZYy/UFS58GwnDOS+ZqMW0AhiN34N9XIJBYCpzuEmLE\n\
P0x3s1Ta+LS2szY=\n\
-----END PRIVATE KEY-----\n";

/// Test 1 of RFC 8032 §7.1.
const ED25519_SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const ED25519_PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_426_939)
}

fn octets(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der))
}

fn read(text: &str) -> Result<SigningKey, KeyError> {
    SigningKey::from_pem("a.example", "s1", text.as_bytes())
}

fn der(pem: &str) -> Vec<u8> {
    BASE64.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap()
}

#[test]
fn a_key_survives_being_written_and_read_in_each_form() {
    let rsa = SigningKey::generate("a.example", "s1", Algorithm::Rsa).unwrap();
    let written = rsa.to_pem().unwrap();
    assert!(written.lines().all(|line| line.len() <= 64));
    let again = read(&written).unwrap();
    assert_eq!(again.dns_value(), rsa.dns_value());
    assert_eq!((again.bits(), again.algorithm()), (2048, Algorithm::Rsa));
    // PKCS#8 is PKCS#1 behind 26 octets of header.
    let pkcs1 = pem("RSA PRIVATE KEY", &der(&written)[26..]);
    assert_eq!(read(&pkcs1).unwrap().dns_value(), rsa.dns_value());

    // As `openssl genpkey -algorithm ed25519` writes it: version 1, without the public key.
    let openssl = pem("PRIVATE KEY", &octets(&format!("302e020100300506032b657004220420{ED25519_SEED}")));
    let key = read(&openssl).unwrap();
    assert_eq!(key.dns_value().unwrap(), format!("v=DKIM1; k=ed25519; p={}", BASE64.encode(octets(ED25519_PUBLIC))));
    assert_eq!(read(&key.to_pem().unwrap()).unwrap().dns_value(), key.dns_value());
    let ours = SigningKey::generate("a.example", "s1", Algorithm::Ed25519).unwrap();
    assert_eq!(read(&ours.to_pem().unwrap()).unwrap().dns_value(), ours.dns_value());
    assert_eq!(ours.dns_name(), "s1._domainkey.a.example");
}

#[test]
fn what_cannot_sign_well_is_refused_with_its_reason() {
    let curve = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let cut = {
        let whole = SigningKey::generate("a.example", "s1", Algorithm::Rsa).unwrap().to_pem().unwrap();
        pem("PRIVATE KEY", &der(&whole)[..600])
    };
    for (text, expected) in [
        (WEAK.to_owned(), KeyError::Weak),
        (pem("RSA PRIVATE KEY", &der(WEAK)[26..]), KeyError::Weak),
        (curve, KeyError::Unsupported),
        (cut, KeyError::Unsupported),
        (pem("PRIVATE KEY", b"octets"), KeyError::Unsupported),
        (pem("ENCRYPTED PRIVATE KEY", b"octets"), KeyError::Encrypted),
        (pem("PUBLIC KEY", b"octets"), KeyError::NotPem),
        ("no key at all".to_owned(), KeyError::NotPem),
        (String::new(), KeyError::NotPem),
    ] {
        assert_eq!(read(&text).map(|_| ()), Err(expected), "{text}");
    }
    assert!(KeyError::Weak.to_string().contains("2048"));
}

#[test]
fn names_that_are_paths_are_refused() {
    for selector in ["", "..", "a/b", "../x", ".hidden", "a..b", "a b", "-a", "a-", &"a".repeat(64), "ä"] {
        assert!(
            matches!(SigningKey::generate("a.example", selector, Algorithm::Ed25519), Err(KeyError::BadSelector(_))),
            "{selector}"
        );
    }
    for domain in ["", "..", "a/b", "A.example", "a.example.", "bücher.example", "a_b.example"] {
        assert!(matches!(SigningKey::generate(domain, "s1", Algorithm::Ed25519), Err(KeyError::BadDomain(_))), "{domain}");
    }
    let store = KeyStore::open(tempfile::tempdir().unwrap().path()).unwrap();
    assert!(
        store.load("../etc", "passwd").is_err() && store.remove("a.example", "../x").is_err() && store.selectors("..").is_err()
    );
}

#[test]
fn debug_shows_no_key() {
    let key = SigningKey::generate("a.example", "s1", Algorithm::Ed25519).unwrap();
    assert_eq!(format!("{key:?}"), "SigningKey(ed25519 s1._domainkey.a.example)");
}

#[test]
fn keys_are_kept_privately_rotated_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = KeyStore::open(dir.path()).unwrap();
    let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;

    let first = store.rotate("a.example", now()).unwrap();
    assert_eq!(first.iter().map(SigningKey::selector).collect::<Vec<_>>(), ["tw20261123r", "tw20261123e"]);
    assert_eq!((mode("keys"), mode("keys/a.example"), mode("keys/a.example/tw20261123r.pem")), (0o700, 0o700, 0o600));
    assert_eq!(fs::read_dir(dir.path().join("keys/a.example")).unwrap().count(), 2, "nothing is left beside");

    // The same day again: other names, and both pairs sign until the old is removed.
    let second = store.rotate("a.example", now()).unwrap();
    assert_eq!(second.iter().map(SigningKey::selector).collect::<Vec<_>>(), ["tw20261123-ar", "tw20261123-ae"]);
    assert!(matches!(store.rotate("a.example", now()), Err(StoreError::TooMany(_))));
    assert_eq!(store.selectors("a.example").unwrap().len(), KEYS_MAX);
    assert!(matches!(store.add(&first[0]), Err(StoreError::Exists(_))));
    for key in &first {
        store.remove(key.domain(), key.selector()).unwrap();
    }
    assert!(matches!(store.remove("a.example", "tw20261123r"), Err(StoreError::Missing(_))));
    assert_eq!(store.selectors("a.example").unwrap(), ["tw20261123-ae", "tw20261123-ar"]);
    assert_eq!(store.selectors("b.example").unwrap(), Vec::<String>::new());
}

#[test]
fn one_damaged_file_does_not_cost_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = KeyStore::open(dir.path()).unwrap();
    let coop = store.ensure("relay.example", "coop").unwrap();
    assert_eq!(store.ensure("relay.example", "coop").unwrap().dns_value(), coop.dns_value(), "made once");
    store.rotate("a.example", now()).unwrap();
    fs::write(dir.path().join("keys/a.example/broken.pem"), "not a key").unwrap();
    fs::write(dir.path().join("keys/a.example/half.new"), "left by a crash").unwrap();
    fs::write(dir.path().join("keys/credential.key"), [0; 32]).unwrap();

    let (keys, troubles) = store.load_all().unwrap();
    assert_eq!((keys.len(), troubles.len()), (3, 1));
    assert!(troubles[0].to_string().contains("a.example/broken.pem: no private key in PEM found"), "{}", troubles[0]);
    let ring = KeyRing::new(keys, Some(("relay.example", "coop")));
    assert_eq!(ring.domains().collect::<Vec<_>>(), ["a.example"]);
    assert_eq!(
        ring.member("a.example").iter().map(|key| key.algorithm()).collect::<Vec<_>>(),
        [Algorithm::Rsa, Algorithm::Ed25519]
    );
    assert_eq!(ring.coop().unwrap().dns_value(), coop.dns_value());
    assert!(ring.member("relay.example").is_empty());
}

#[test]
fn selectors_tell_their_day() {
    assert_eq!(selector_prefix(now(), &[]), "tw20261123");
    assert_eq!(selector_prefix(now(), &["tw20261122r".into(), "coop".into()]), "tw20261123");
    assert_eq!(selector_prefix(now(), &["tw20261123e".into()]), "tw20261123-a");
}
