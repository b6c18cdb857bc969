//! Certificates, keys and trust anchors that can and cannot be used.

use super::*;

fn pem(name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn an_error_names_the_file_and_what_is_wrong_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, other) = (pem("mx.example.org"), pem("mx.example.net"));
    let paths = ["cert.pem", "key.pem", "other.pem", "junk.pem"].map(|name| dir.path().join(name));
    for (path, text) in paths.iter().zip([&ours.0, &ours.1, &other.1, "hello"]) {
        std::fs::write(path, text).unwrap();
    }
    let [certificate, key, other, junk] = &paths;
    assert!(Server::from_pem_files(certificate, key).is_ok());
    let cases = [
        (&dir.path().join("none.pem"), key, "none.pem: No such file"),
        (certificate, other, "other.pem: is not the key of"),
        (certificate, certificate, "cert.pem: holds no private key"),
        (junk, key, "junk.pem: holds no certificate"),
        (key, key, "key.pem: holds no certificate"),
    ];
    for (certificate, key, expected) in cases {
        let error = Server::from_pem_files(certificate, key).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(Client::verified(Some(certificate)).is_ok());
    assert!(Client::verified(Some(junk)).unwrap_err().to_string().contains("junk.pem"));
}

#[test]
fn a_chain_is_noted_as_trusted_for_its_own_name_and_under_its_own_anchor_only() {
    let (ours, other) = (pem("mx.example.org"), pem("mx.example.org"));
    let chain = certificates(ours.0.as_bytes(), "ours").unwrap();
    let trust = Trust::of(chain.clone(), "ours").unwrap();
    let name = |text: &'static str| ServerName::try_from(text).unwrap();
    assert!(trust.vouches_for(&chain, &name("mx.example.org")));
    assert!(!trust.vouches_for(&chain, &name("mx.example.net")));
    assert!(!trust.vouches_for(&certificates(other.0.as_bytes(), "other").unwrap(), &name("mx.example.org")));
    assert!(!trust.vouches_for(&[], &name("mx.example.org")));
}

#[test]
fn nothing_secret_is_shown() {
    let (certificate, key) = pem("mx.example.org");
    let server = Server::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
    assert_eq!(format!("{server:?}"), "tls::Server(..)");
}
