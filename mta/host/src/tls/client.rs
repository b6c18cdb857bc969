//! The client's side of TLS: whose certificates are believed.
//!
//! Not here: TLSA records (`dane.rs`), the octets of a session (`tls.rs`).

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion, version,
};

use super::{BUFFERED_MAX, Error, Session, Tlsa, VERSIONS, certificates, dane, invalid, provider};

/// Hosts whose sessions one [`Client`] remembers; past it the oldest is forgotten and shakes hands in full again.
const SESSIONS_REMEMBERED: usize = 512;

/// The same where TLSA records are held against the certificate.
const DANE_SESSIONS_REMEMBERED: usize = 8;

/// The client's side, with the sessions that may be resumed. Make one for every thread: clones share a lock.
#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
    verifier: Arc<dyn ServerCertVerifier>,
    verifies: bool,
    /// For [`Info::trusted`] where any certificate is accepted.
    trust: Option<Trust>,
}

/// Trust anchors, read once for all threads.
#[derive(Clone)]
pub struct Trust(Arc<WebPkiServerVerifier>);

impl Trust {
    /// Those in a PEM file, or the system's.
    pub fn load(trust_anchors: Option<&Path>) -> Result<Self, Error> {
        match trust_anchors {
            Some(path) => {
                let name = path.display().to_string();
                let pem = std::fs::read(path).map_err(|error| Error(format!("{name}: {error}")))?;
                Self::of(certificates(&pem, &name)?, &name)
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                if found.certs.is_empty() {
                    let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
                    return Err(Error(format!(
                        "this system has no trust anchors{why}; install ca-certificates or name a PEM file"
                    )));
                }
                Self::of(found.certs, "the system's trust anchors")
            }
        }
    }

    pub(super) fn of(anchors: Vec<CertificateDer<'static>>, name: &str) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        // A system's store often has one that webpki does not read; the others serve.
        let (usable, _) = roots.add_parsable_certificates(anchors);
        if usable == 0 {
            return Err(Error(format!("{name}: none of the certificates can be a trust anchor")));
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map(Self)
            .map_err(|error| Error(format!("{name}: {error}")))
    }

    /// Whether this chain is `name`'s.
    pub(super) fn vouches_for(&self, chain: &[CertificateDer<'_>], name: &ServerName<'_>) -> bool {
        let Some((own, others)) = chain.split_first() else { return false };
        self.0.verify_server_cert(own, others, name, &[], UnixTime::now()).is_ok()
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tls::Trust(..)")
    }
}

impl Client {
    /// Accepts any certificate: encryption against those who only listen (RFC 7435).
    pub fn opportunistic() -> Result<Self, Error> {
        Self::build(Arc::new(AcceptAny { provider: provider(), checks_signatures: false }), false, None, VERSIONS)
    }

    /// The same, and notes in [`Info::trusted`] whether the certificate would have been accepted under `trust`.
    pub fn opportunistic_noting(trust: &Trust) -> Result<Self, Error> {
        let verifier = AcceptAny { provider: provider(), checks_signatures: true };
        Self::build(Arc::new(verifier), false, Some(trust.clone()), VERSIONS)
    }

    /// Accepts certificates for the peer's name, issued under `trust`.
    pub fn verifying(trust: &Trust) -> Result<Self, Error> {
        Self::build(trust.0.clone(), true, None, VERSIONS)
    }

    /// Accepts certificates for the peer's name, issued under the trust anchors in a PEM file, or under the system's.
    pub fn verified(trust_anchors: Option<&Path>) -> Result<Self, Error> {
        Self::build(Trust::load(trust_anchors)?.0, true, None, VERSIONS)
    }

    /// Accepts certificates that `records` vouch for (RFC 7672 §3); those under a trust anchor must have one of `names`.
    pub fn dane(records: Vec<Tlsa>, names: Vec<String>) -> Result<Self, Error> {
        let client = Self::build(Arc::new(dane::Verifier::new(records, names)), true, None, VERSIONS)?;
        let mut config = ClientConfig::clone(&client.config);
        // It speaks to one name.
        config.resumption = Resumption::in_memory_sessions(DANE_SESSIONS_REMEMBERED);
        Ok(Self { config: Arc::new(config), ..client })
    }

    /// The same with trust anchors in memory.
    pub fn verified_by_pem(trust_anchors: &[u8]) -> Result<Self, Error> {
        let name = "the trust anchors";
        Self::build(Trust::of(certificates(trust_anchors, name)?, name)?.0, true, None, VERSIONS)
    }

    /// The same client limited to TLS 1.2, for peers that fail at 1.3. It remembers no sessions yet.
    pub fn without_tls13(&self) -> Result<Self, Error> {
        Self::build(self.verifier.clone(), self.verifies, self.trust.clone(), &[&version::TLS12])
    }

    fn build(
        verifier: Arc<dyn ServerCertVerifier>,
        verifies: bool,
        trust: Option<Trust>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<Self, Error> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(|error| Error(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(SESSIONS_REMEMBERED);
        Ok(Self { config: Arc::new(config), verifier, verifies, trust })
    }

    /// The same for a protocol whose crate brings its own stream, such as HTTP. Sessions are remembered together.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    pub(crate) fn session(&self, name: &str, address: IpAddr) -> io::Result<Session> {
        let name = match ServerName::try_from(name.trim_end_matches('.')) {
            Ok(name) => name.to_owned(),
            // Not a name that a certificate can have: no SNI then, and nothing to verify.
            Err(_) if !self.verifies => ServerName::from(address),
            Err(_) => {
                let text = format!("{name:?} is not a name that a certificate can be verified for");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        };
        let note = self.trust.clone().map(|trust| (trust, name.clone()));
        let mut connection = ClientConnection::new(self.config.clone(), name).map_err(invalid)?;
        connection.set_buffer_limit(Some(BUFFERED_MAX));
        Ok(Session { verifies: self.verifies, note, ..Session::new(connection.into()) })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tls::Client(verifies: {})", self.verifies)
    }
}

/// Believes whoever answers. Without `checks_signatures` not even that the peer has the certificate's key: who can put
/// himself between us and the peer can show a certificate of his own, so checking it would keep nobody out. Where it is
/// noted whose the certificate is, the key must be there too.
#[derive(Debug)]
struct AcceptAny {
    provider: Arc<CryptoProvider>,
    checks_signatures: bool,
}

/// Only a signature that is wrong is refused. A certificate that cannot be read (an old version, a key that we do not
/// know) is no worse than any other that is not trusted, and nothing vouches for it afterwards.
fn lenient(verified: Result<HandshakeSignatureValid, rustls::Error>) -> Result<HandshakeSignatureValid, rustls::Error> {
    match verified {
        Err(rustls::Error::InvalidCertificate(rustls::CertificateError::BadSignature)) => verified,
        _ => Ok(HandshakeSignatureValid::assertion()),
    }
}

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !self.checks_signatures {
            return Ok(HandshakeSignatureValid::assertion());
        }
        lenient(verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !self.checks_signatures {
            return Ok(HandshakeSignatureValid::assertion());
        }
        lenient(verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
