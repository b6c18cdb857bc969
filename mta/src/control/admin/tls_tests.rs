//! The admin port over TLS, with and without a certificate of the client.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::probe::Port;
use super::*;

/// A certificate by somebody, with its key.
fn issued(issuer: &Issuer<'_, KeyPair>, name: &str) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.signed_by(&key, issuer).unwrap(), key)
}

fn authority() -> (rcgen::Certificate, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    (certificate, Issuer::new(params, key))
}

async fn ask(
    port: &Port,
    trusted: &CertificateDer<'static>,
    own: Option<(&rcgen::Certificate, &KeyPair)>,
) -> std::io::Result<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
            builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
        }
    };
    let stream = TcpStream::connect(port.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

use tokio::net::TcpStream;

#[tokio::test]
async fn whoever_shows_no_certificate_of_the_operators_is_turned_away_where_one_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, pem: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let ((ca, issuer), (other_ca, other_issuer)) = (authority(), authority());
    let (certificate, key) = issued(&issuer, "localhost");
    let (operator, operator_key) = issued(&issuer, "anna");
    let (stranger, stranger_key) = issued(&other_issuer, "mallory");
    let (certificate, key) = (write("c.pem", &certificate.pem()), write("k.pem", &key.serialize_pem()));
    let client_ca = write("ca.pem", &ca.pem());

    let open = host::tls::Server::for_http(&certificate, &key, None).unwrap();
    let port = Port::start_with("", |port| port.with_tls(Arc::new(ArcSwap::from_pointee(open)))).await;
    assert!(ask(&port, ca.der(), None).await.unwrap().contains("200 OK"));
    assert!(ask(&port, other_ca.der(), None).await.is_err(), "it is the certificate that was given");
    assert_ne!(port.ask("GET /readyz", &[], "").await.status, 200, "clear text");
    port.world.stop().await;

    let closed = host::tls::Server::for_http(&certificate, &key, Some(&client_ca)).unwrap();
    let port = Port::start_with("", |port| port.with_tls(Arc::new(ArcSwap::from_pointee(closed)))).await;
    assert!(ask(&port, ca.der(), Some((&operator, &operator_key))).await.unwrap().contains("200 OK"));
    assert!(ask(&port, ca.der(), None).await.is_err());
    assert!(ask(&port, ca.der(), Some((&stranger, &stranger_key))).await.is_err());
    port.world.stop().await;
    let error = host::tls::Server::for_http(&certificate, &key, Some(&key)).unwrap_err().to_string();
    assert!(error.contains("k.pem: holds no certificate"), "{error}");
}

#[tokio::test]
async fn over_tls_a_cookie_is_bound_to_it_and_to_the_host() {
    let key = OperatorKey::new(&[7; 32]);
    let secret = smtp::Secret::new("twop_x".to_owned());
    let token = tokens::Token {
        id: 1,
        name: "anna".into(),
        role: Role::Read,
        hash: key.hash_token(&secret),
        made_secs: 0,
        made_by: "a test".into(),
    };
    let gate = Gate::new(key, Arc::new(vec![token]), host::Clock::system(), host::Dice::seeded(1), true);
    let peer = http::Peer::Remote { address: "192.0.2.1:1".parse().unwrap() };
    let login = gate.log_in(peer, "twop_x").map_err(|refusal| refusal.to_string()).unwrap();
    assert!(login.cookie.starts_with("__Host-tradewind=") && login.cookie.ends_with("; Secure"), "{}", login.cookie);
    let head = |origin: &'static str| {
        let mut head = axum::http::HeaderMap::new();
        head.insert("host", HeaderValue::from_static("a.example"));
        head.insert("origin", HeaderValue::from_static(origin));
        head
    };
    assert!(gate.check_origin(&head("https://a.example"), true).is_ok());
    assert!(gate.check_origin(&head("http://a.example"), true).is_err(), "a page in clear text may be anybody's");
}
