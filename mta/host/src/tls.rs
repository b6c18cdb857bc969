//! TLS 1.2 and 1.3 by rustls, over buffers in memory: the sockets below never hear of it, and it never hears of sockets.
//!
//! Whatever rustls wants to send is gathered and sent in one write. After a TLS 1.3 handshake our last flight (tickets, or
//! the client's Finished) waits for the first thing that we say, or for the first read, and so costs no packet of its own.
//!
//! Not here: whose certificates are believed (`tls/client.rs`), and of which peers that is asked (`egress/tls_policy`).

mod client;
mod dane;
mod der;

use std::fmt;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier};
use rustls::{HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion, version};
use tokio::time::Instant;

use crate::wire::Wire;

pub use client::{Client, Trust};
pub use dane::Tlsa;

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

    /// The same, with HTTP/1.1 by ALPN, for whoever drives it over sockets of its own ([`Server::shared`]). With `authorities`, a PEM
    /// file, it turns away in the handshake whoever shows no certificate that leads to one of them.
    pub fn for_http(certificate: &Path, key: &Path, authorities: Option<&Path>) -> Result<Self, Error> {
        let read = |path: &Path| std::fs::read(path).map_err(|error| Error(format!("{}: {error}", path.display())));
        let (names, pem) = ((certificate.display().to_string(), key.display().to_string()), (read(certificate)?, read(key)?));
        let verifier = match authorities {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(path) => {
                let name = path.display().to_string();
                let mut roots = RootCertStore::empty();
                for root in certificates(&read(path)?, &name)? {
                    roots.add(root).map_err(|error| Error(format!("{name}: {error}")))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
                verifier.map_err(|error| Error(format!("{name}: {error}")))?
            }
        };
        let mut config = Self::config(&pem.0, &names.0, &pem.1, &names.1, verifier)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// For the HTTP of the control thread.
    pub fn shared(&self) -> Arc<ServerConfig> {
        self.0.clone()
    }

    /// The same from PEM in memory.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, Error> {
        Self::build(certificate, "the certificate", key, "the private key")
    }

    fn build(certificate: &[u8], certificate_name: &str, key: &[u8], key_name: &str) -> Result<Self, Error> {
        let nobody = WebPkiClientVerifier::no_client_auth();
        Ok(Self(Arc::new(Self::config(certificate, certificate_name, key, key_name, nobody)?)))
    }

    fn config(
        certificate: &[u8],
        certificate_name: &str,
        key: &[u8],
        key_name: &str,
        verifier: Arc<dyn ClientCertVerifier>,
    ) -> Result<ServerConfig, Error> {
        let chain = certificates(certificate, certificate_name)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| Error(format!("{key_name}: holds no private key in PEM (\"-----BEGIN PRIVATE KEY-----\")")))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .map_err(|error| Error(error.to_string()))?
            .with_client_cert_verifier(verifier)
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
        Ok(config)
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
    let Some(rustls::Error::InvalidCertificate(why)) =
        error.get_ref().and_then(|inner| inner.downcast_ref::<Failed>()).map(|failed| &failed.0)
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
    io::Error::new(io::ErrorKind::InvalidData, Failed(error))
}

/// An error of rustls, where its words would not tell an operator enough.
#[derive(Debug)]
struct Failed(rustls::Error);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use rustls::CertificateError as Why;
        let rustls::Error::InvalidCertificate(why) = &self.0 else { return self.0.fmt(f) };
        match why {
            Why::ApplicationVerificationFailure => f.write_str("no TLSA record vouches for the certificate"),
            Why::UnknownIssuer => f.write_str("the certificate does not lead to a trust anchor"),
            Why::NotValidForName => f.write_str("the certificate is for other names"),
            Why::Expired => f.write_str("the certificate, or one that it leads to, has expired"),
            Why::NotValidYet => f.write_str("the certificate, or one that it leads to, is not valid yet"),
            _ => self.0.fmt(f),
        }
    }
}

impl std::error::Error for Failed {}

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
#[path = "tls/tests.rs"]
mod tests;
