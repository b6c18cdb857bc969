//! TLS 1.2 and 1.3 by rustls, over buffers in memory: the sockets below never hear of it, and it never hears of sockets.
//!
//! Whatever rustls wants to send is gathered and sent in one write. After a TLS 1.3 handshake our last flight (tickets, or
//! the client's Finished) waits for the first thing that we say, or for the first read, and so costs no packet of its own.
//!
//! Not here: which peers must be verified; that is for `egress/tls_policy` to decide.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme, SupportedProtocolVersion, version,
};
use tokio::time::Instant;

use crate::wire::Wire;

/// Hosts whose sessions one [`Client`] remembers; past it the oldest is forgotten and shakes hands in full again.
const SESSIONS_REMEMBERED: usize = 512;

/// Ciphertext that rustls may hold for us. A longer write is encrypted and sent in pieces of this size.
const BUFFERED_MAX: usize = 64 << 10;

/// Why a certificate, a key or a trust anchor cannot be used. Names the file and what is wrong with it.
#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// What was negotiated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite by its IANA name.
    pub cipher: String,
    /// An earlier session was taken up again, without certificates or signatures.
    pub resumed: bool,
    /// Whether the peer's certificate names it and leads to a trust anchor; none where nobody looked, as in a session that
    /// was resumed.
    pub trusted: Option<bool>,
}

/// The server's side: certificate and key, and the tickets that it gives out. Clones share the tickets' keys, so that a
/// client may come back to another thread.
#[derive(Clone)]
pub struct Server(Arc<ServerConfig>);

impl Server {
    /// Reads a certificate chain and its private key (PKCS #8, SEC1 or PKCS #1) from PEM files.
    pub fn from_pem_files(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let read = |path: &Path| std::fs::read(path).map_err(|error| Error(format!("{}: {error}", path.display())));
        let pem = (read(certificate)?, read(key)?);
        Self::build(&pem.0, &certificate.display().to_string(), &pem.1, &key.display().to_string())
    }

    /// The same from PEM in memory.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, Error> {
        Self::build(certificate, "the certificate", key, "the private key")
    }

    fn build(certificate: &[u8], certificate_name: &str, key: &[u8], key_name: &str) -> Result<Self, Error> {
        let chain = certificates(certificate, certificate_name)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| Error(format!("{key_name}: holds no private key in PEM (\"-----BEGIN PRIVATE KEY-----\")")))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .map_err(|error| Error(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => Error(format!("{key_name}: is not the key of {certificate_name}")),
                error => Error(format!("{certificate_name} with {key_name}: {error}")),
            })?;
        // The client keeps the session, encrypted to us: nothing to store here, nothing to bound. One ticket is enough for
        // peers that open one connection after another.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|error| Error(error.to_string()))?;
        config.send_tls13_tickets = 1;
        Ok(Self(Arc::new(config)))
    }

    pub(crate) fn session(&self) -> io::Result<Session> {
        let mut connection = ServerConnection::new(self.0.clone()).map_err(invalid)?;
        connection.set_buffer_limit(Some(BUFFERED_MAX));
        Ok(Session::new(connection.into()))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tls::Server(..)")
    }
}

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

    fn of(anchors: Vec<CertificateDer<'static>>, name: &str) -> Result<Self, Error> {
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
    fn vouches_for(&self, chain: &[CertificateDer<'_>], name: &ServerName<'_>) -> bool {
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

const VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(pem: &[u8], name: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| Error(format!("{name}: is not well-formed PEM: {error}")))?;
    if chain.is_empty() {
        return Err(Error(format!("{name}: holds no certificate in PEM (\"-----BEGIN CERTIFICATE-----\")")));
    }
    Ok(chain)
}

/// What about a certificate made a handshake fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not valid now.
    Expired,
    /// It is for other names.
    WrongName,
    /// It does not lead to a trust anchor.
    Untrusted,
    /// No TLSA record vouches for it.
    Unmatched,
    /// Something else failed, or it was not the certificate.
    Other,
}

/// What about the certificate was the reason for an error of [`crate::Connection::start_tls_client`].
pub fn fault(error: &io::Error) -> Fault {
    use rustls::CertificateError as Why;
    let Some(rustls::Error::InvalidCertificate(why)) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return Fault::Other;
    };
    match why {
        Why::Expired | Why::ExpiredContext { .. } | Why::NotValidYet | Why::NotValidYetContext { .. } => Fault::Expired,
        Why::NotValidForName | Why::NotValidForNameContext { .. } => Fault::WrongName,
        Why::UnknownIssuer => Fault::Untrusted,
        Why::ApplicationVerificationFailure => Fault::Unmatched,
        _ => Fault::Other,
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
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

/// One connection's TLS.
pub(crate) struct Session {
    connection: rustls::Connection,
    /// Decrypted and not read yet. Empty, and without room, between reads.
    plaintext: BytesMut,
    /// The peer has said close_notify: the stream ends well.
    closed: bool,
    info: Info,
    /// A client whose verifier has accepted the certificate.
    verifies: bool,
    /// Whose certificate it should be, for [`Info::trusted`].
    note: Option<(Trust, ServerName<'static>)>,
}

impl Session {
    fn new(connection: rustls::Connection) -> Self {
        let info = Info { version: "", cipher: String::new(), resumed: false, trusted: None };
        Self { connection, plaintext: BytesMut::new(), closed: false, info, verifies: false, note: None }
    }

    pub(crate) fn info(&self) -> &Info {
        &self.info
    }

    /// Shakes hands. A wire whose handshake failed is dead: nobody goes on in the clear by mistake.
    pub(crate) async fn handshake(&mut self, wire: &mut Wire, deadline: Instant) -> io::Result<()> {
        while self.connection.is_handshaking() {
            self.flush(wire, deadline).await?;
            let octets = wire.recv(deadline).await?;
            if octets.is_empty() {
                wire.fail();
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed during the TLS handshake"));
            }
            self.feed(wire, &octets, deadline).await?;
        }
        // In TLS 1.2 the peer waits for our Finished.
        if self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_2) {
            self.flush(wire, deadline).await?;
        }
        self.info = self.negotiated();
        Ok(())
    }

    pub(crate) async fn read(&mut self, wire: &mut Wire, deadline: Instant) -> io::Result<Bytes> {
        loop {
            if !self.plaintext.is_empty() {
                return Ok(std::mem::take(&mut self.plaintext).freeze());
            }
            if self.closed {
                return Ok(Bytes::new());
            }
            self.flush(wire, deadline).await?;
            let octets = wire.recv(deadline).await?;
            if octets.is_empty() {
                wire.fail();
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed without close_notify"));
            }
            self.feed(wire, &octets, deadline).await?;
        }
    }

    pub(crate) async fn write(&mut self, wire: &mut Wire, mut octets: Bytes, deadline: Instant) -> io::Result<()> {
        while octets.has_remaining() {
            let taken = self.connection.writer().write(&octets)?;
            if taken == 0 {
                wire.fail();
                return Err(io::ErrorKind::WriteZero.into());
            }
            octets.advance(taken);
            self.flush(wire, deadline).await?;
        }
        Ok(())
    }

    /// The last octets of a stream that ends well.
    pub(crate) fn farewell(mut self) -> Vec<u8> {
        self.connection.send_close_notify();
        self.outgoing()
    }

    /// Decrypts what came from the wire.
    async fn feed(&mut self, wire: &mut Wire, octets: &[u8], deadline: Instant) -> io::Result<()> {
        let Err(error) = self.decrypt(octets) else { return Ok(()) };
        // The alert that tells the peer why. Its failure is not the reason for ours.
        let _ = self.flush(wire, deadline).await;
        wire.fail();
        Err(error)
    }

    fn decrypt(&mut self, mut octets: &[u8]) -> io::Result<()> {
        while !octets.is_empty() && !self.closed {
            if self.connection.read_tls(&mut octets)? == 0 {
                break;
            }
            let state = self.connection.process_new_packets().map_err(invalid)?;
            let (filled, more) = (self.plaintext.len(), state.plaintext_bytes_to_read());
            if more > 0 {
                self.plaintext.resize(filled + more, 0);
                self.connection.reader().read_exact(&mut self.plaintext[filled..])?;
            }
            self.closed = state.peer_has_closed();
        }
        Ok(())
    }

    async fn flush(&mut self, wire: &mut Wire, deadline: Instant) -> io::Result<()> {
        let octets = self.outgoing();
        wire.send(octets.into(), deadline).await
    }

    fn outgoing(&mut self) -> Vec<u8> {
        let mut octets = Vec::new();
        while self.connection.wants_write() {
            // Writing to memory does not fail.
            if !matches!(self.connection.write_tls(&mut octets), Ok(1..)) {
                break;
            }
        }
        octets
    }

    fn negotiated(&self) -> Info {
        let version = match self.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "unknown",
        };
        // rustls tells the suites of 1.3 apart by a name of its own.
        let cipher =
            self.connection.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_"));
        let resumed = self.connection.handshake_kind() == Some(HandshakeKind::Resumed);
        // A resumed session shows no certificate; its first handshake was noted.
        let chain = self.connection.peer_certificates().unwrap_or_default();
        let noted = self.note.as_ref().filter(|_| !resumed).map(|(trust, name)| trust.vouches_for(chain, name));
        let trusted = if self.verifies { Some(true) } else { noted };
        Info { version, cipher: cipher.unwrap_or_default(), resumed, trusted }
    }
}

#[cfg(test)]
mod tests {
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
}
