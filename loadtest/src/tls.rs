//! Certificates made on the spot, and TLS settings for scripted peers.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

/// A server certificate with the authority that signed it, both made now.
pub struct Certificate {
    /// The authority's certificate, PEM: what clients trust.
    pub ca_pem: String,
    /// The server's certificate, PEM.
    pub cert_pem: String,
    /// The server's key, PEM.
    pub key_pem: String,
    config: Arc<rustls::ServerConfig>,
}

impl Certificate {
    /// A certificate for these names or addresses.
    pub fn generate(names: &[&str]) -> io::Result<Self> {
        Self::generate_with(names, |_| ())
    }

    /// One that has been good for a year, and is not any more.
    pub fn expired(names: &[&str]) -> io::Result<Self> {
        Self::generate_with(names, |server| {
            server.not_before = rcgen::date_time_ymd(2020, 1, 1);
            server.not_after = rcgen::date_time_ymd(2021, 1, 1);
        })
    }

    fn generate_with(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> io::Result<Self> {
        let mut ca = CertificateParams::new(Vec::<String>::new()).map_err(io::Error::other)?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        ca.distinguished_name.push(rcgen::DnType::CommonName, "tradewind test authority");
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().map_err(io::Error::other)?).map_err(io::Error::other)?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut server = CertificateParams::new(names).map_err(io::Error::other)?;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut server);
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let cert = server.signed_by(&key, &ca).map_err(io::Error::other)?;
        let chain = vec![cert.der().clone()];
        let config = server_config(chain, &key, false)?;
        Ok(Self { ca_pem: ca.pem(), cert_pem: cert.pem(), key_pem: key.serialize_pem(), config })
    }

    /// Writes `ca.pem`, `cert.pem` and `key.pem` (mode 0600) into a directory.
    pub fn write_to(&self, directory: &Path) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(directory.join("ca.pem"), &self.ca_pem)?;
        std::fs::write(directory.join("cert.pem"), &self.cert_pem)?;
        let key = directory.join("key.pem");
        std::fs::write(&key, &self.key_pem)?;
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600))
    }

    pub(crate) fn server_config(&self) -> Arc<rustls::ServerConfig> {
        self.config.clone()
    }
}

/// A server that shows this chain, whatever is wrong with it; of TLS 1.2 alone where that is wanted.
pub(crate) fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
    only_tls12: bool,
) -> io::Result<Arc<rustls::ServerConfig>> {
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let versions = if only_tls12 { &[&rustls::version::TLS12][..] } else { rustls::DEFAULT_VERSIONS };
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, der)
        .map_err(io::Error::other)?;
    Ok(Arc::new(config))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A client that accepts any certificate: the load is measured, not the trust. With `resume`, sessions are resumed.
pub fn client_that_trusts_all(resume: bool) -> io::Result<Arc<rustls::ClientConfig>> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll))
        .with_no_client_auth();
    if !resume {
        config.resumption = rustls::client::Resumption::disabled();
    }
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct TrustAll;

impl rustls::client::danger::ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
