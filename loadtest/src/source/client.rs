//! One SMTP client session, as a member's software holds it: plain, STARTTLS or TLS from the start, AUTH PLAIN.
//!
//! It waits for every reply before the next command, as nodemailer and smtplib do, and never pipelines.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longest reply line accepted; RFC 5321 §4.5.3.1.5 says 512.
const LINE_MAX: usize = 4096;

/// When a session becomes TLS.
#[derive(Clone)]
pub enum Tls {
    /// Never.
    None,
    /// By STARTTLS; it must be offered.
    StartTls(Arc<rustls::ClientConfig>),
    /// From the first octet.
    Implicit(Arc<rustls::ClientConfig>),
}

/// Where and how to submit.
#[derive(Clone)]
pub struct Target {
    /// The server.
    pub address: SocketAddr,
    /// When the session becomes TLS.
    pub tls: Tls,
    /// Name to verify the certificate against.
    pub server_name: String,
    /// User and password for AUTH PLAIN.
    pub credentials: Option<(String, String)>,
    /// Name in EHLO.
    pub ehlo: String,
    /// Longest wait for one reply.
    pub patience: Duration,
}

impl Target {
    /// A plain target on one address, no TLS, no AUTH.
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            tls: Tls::None,
            server_name: "localhost".to_owned(),
            credentials: None,
            ehlo: "[127.0.0.1]".to_owned(),
            patience: Duration::from_secs(60),
        }
    }

    /// This target with TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// This target with AUTH PLAIN.
    #[must_use]
    pub fn with_credentials(mut self, user: &str, password: &str) -> Self {
        self.credentials = Some((user.to_owned(), password.to_owned()));
        self
    }
}

/// A reply: its code and its text, lines joined by `\n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// The text after them.
    pub text: String,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text.replace('\n', " / "))
    }
}

/// Why a message was not accepted.
#[derive(Debug)]
pub enum Trouble {
    /// The connection failed or the peer took too long; the peer may have the message if that was after its end.
    Broken(io::Error),
    /// The peer said no; the session can go on unless the code is 421.
    Refused {
        /// To which command.
        command: &'static str,
        /// What it said.
        reply: Reply,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => write!(f, "connection: {error}"),
            Self::Refused { command, reply } => write!(f, "{command}: {reply}"),
        }
    }
}

impl std::error::Error for Trouble {}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// An open session, past EHLO and AUTH.
pub struct Client {
    transport: Transport,
    inbox: BytesMut,
    outbox: Vec<u8>,
    extensions: Vec<String>,
    patience: Duration,
}

impl Client {
    /// Connects, greets, secures and authenticates as the target says.
    pub async fn connect(target: &Target) -> Result<Self, Trouble> {
        Self::open(target).await?.introduce(target).await?.authenticate(target).await
    }

    /// Like [`Client::connect`], but stops before AUTH.
    pub async fn connect_before_auth(target: &Target) -> Result<Self, Trouble> {
        Self::open(target).await?.introduce(target).await
    }

    /// Connects and waits to be greeted.
    pub async fn open(target: &Target) -> Result<Self, Trouble> {
        let stream = within(target.patience, TcpStream::connect(target.address)).await?;
        stream.set_nodelay(true)?;
        let transport = match &target.tls {
            Tls::Implicit(config) => Transport::Tls(Box::new(handshake(target, config, stream).await?)),
            Tls::None | Tls::StartTls(_) => Transport::Plain(stream),
        };
        let mut client = Self {
            transport,
            inbox: BytesMut::with_capacity(1024),
            outbox: Vec::new(),
            extensions: Vec::new(),
            patience: target.patience,
        };
        client.expect("greeting", 220).await?;
        Ok(client)
    }

    /// Says who it is, and secures an open session that is to become TLS.
    pub async fn introduce(mut self, target: &Target) -> Result<Self, Trouble> {
        self.ehlo(&target.ehlo).await?;
        if let Tls::StartTls(config) = &target.tls {
            self.command("STARTTLS", "STARTTLS\r\n", 220).await?;
            let Transport::Plain(stream) = self.transport else {
                return Err(io::Error::other("STARTTLS inside TLS").into());
            };
            self.transport = Transport::Tls(Box::new(handshake(target, config, stream).await?));
            self.inbox.clear();
            self.ehlo(&target.ehlo).await?;
        }
        Ok(self)
    }

    /// AUTH, if the target has credentials.
    pub async fn authenticate(mut self, target: &Target) -> Result<Self, Trouble> {
        if let Some((user, password)) = &target.credentials {
            let response = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"));
            self.command("AUTH", &format!("AUTH PLAIN {response}\r\n"), 235).await?;
        }
        Ok(self)
    }

    /// Whether the peer offers this extension; lines of its EHLO reply begin so.
    pub fn offers(&self, extension: &str) -> bool {
        self.extensions.iter().any(|line| line.split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case(extension)))
    }

    /// Submits one message; `octets` are its header and body with CRLF line ends. Returns the final reply.
    pub async fn send(&mut self, reverse_path: &str, recipients: &[&str], octets: &[u8]) -> Result<Reply, Trouble> {
        self.send_with(reverse_path, "", recipients, octets).await
    }

    /// The same with parameters of MAIL, such as ` BODY=8BITMIME`.
    pub async fn send_with(
        &mut self,
        reverse_path: &str,
        parameters: &str,
        recipients: &[&str],
        octets: &[u8],
    ) -> Result<Reply, Trouble> {
        self.command("MAIL", &format!("MAIL FROM:<{reverse_path}>{parameters}\r\n"), 250).await?;
        for recipient in recipients {
            self.command("RCPT", &format!("RCPT TO:<{recipient}>\r\n"), 250).await?;
        }
        self.command("DATA", "DATA\r\n", 354).await?;
        let mut outbox = std::mem::take(&mut self.outbox);
        outbox.clear();
        stuff_into(&mut outbox, octets);
        let written = self.write(&outbox).await;
        self.outbox = outbox;
        written?;
        self.expect("end of data", 250).await
    }

    /// Ends the transaction after a refusal.
    pub async fn reset(&mut self) -> Result<Reply, Trouble> {
        self.command("RSET", "RSET\r\n", 250).await
    }

    /// Says goodbye and closes.
    pub async fn quit(mut self) -> Result<(), Trouble> {
        self.command("QUIT", "QUIT\r\n", 221).await.map(drop)
    }

    /// Sends any line (with its CRLF) and returns the reply, whatever it is.
    pub async fn say(&mut self, line: &str) -> Result<Reply, Trouble> {
        self.write(line.as_bytes()).await?;
        Ok(self.reply().await?)
    }

    /// Writes raw octets.
    pub async fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        within(self.patience, async {
            match &mut self.transport {
                Transport::Plain(stream) => stream.write_all(octets).await,
                Transport::Tls(stream) => {
                    stream.write_all(octets).await?;
                    stream.flush().await
                }
            }
        })
        .await
    }

    /// Waits until a plain connection has something to be read, or has ended. May be dropped.
    pub async fn wait(&self) {
        match &self.transport {
            Transport::Plain(stream) => drop(stream.readable().await),
            Transport::Tls(stream) => drop(stream.get_ref().0.readable().await),
        }
    }

    /// The next reply.
    pub async fn reply(&mut self) -> io::Result<Reply> {
        let mut text = String::new();
        loop {
            let line = self.line().await?;
            let malformed = || io::Error::other(format!("not a reply: {line:?}"));
            let code = line.get(..3).and_then(|code| code.parse::<u16>().ok()).ok_or_else(malformed)?;
            text.push_str(line.get(4..).unwrap_or_default());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, text });
            }
            text.push('\n');
        }
    }

    async fn ehlo(&mut self, name: &str) -> Result<(), Trouble> {
        let reply = self.command("EHLO", &format!("EHLO {name}\r\n"), 250).await?;
        self.extensions = reply.text.lines().skip(1).map(str::to_owned).collect();
        Ok(())
    }

    async fn command(&mut self, command: &'static str, line: &str, code: u16) -> Result<Reply, Trouble> {
        self.write(line.as_bytes()).await?;
        self.expect(command, code).await
    }

    async fn expect(&mut self, command: &'static str, code: u16) -> Result<Reply, Trouble> {
        let reply = self.reply().await?;
        if reply.code == code { Ok(reply) } else { Err(Trouble::Refused { command, reply }) }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.inbox) {
                let line = self.inbox.split_to(end + 1);
                return Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
            }
            if self.inbox.len() > LINE_MAX {
                return Err(io::Error::other("endless reply line"));
            }
            self.inbox.reserve(512);
            let octets = within(self.patience, async {
                match &mut self.transport {
                    Transport::Plain(stream) => stream.read_buf(&mut self.inbox).await,
                    Transport::Tls(stream) => stream.read_buf(&mut self.inbox).await,
                }
            })
            .await?;
            if octets == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

async fn handshake(target: &Target, config: &Arc<rustls::ClientConfig>, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(target.server_name.clone()).map_err(io::Error::other)?;
    within(target.patience, TlsConnector::from(config.clone()).connect(name, stream)).await
}

async fn within<T>(patience: Duration, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(patience, what).await?
}

/// The octets with dots doubled (RFC 5321 §4.5.2) and the end of data.
fn stuff_into(outbox: &mut Vec<u8>, octets: &[u8]) {
    if octets.starts_with(b".") || memchr::memmem::find(octets, b"\n.").is_some() {
        for line in octets.split_inclusive(|octet| *octet == b'\n') {
            if line.starts_with(b".") {
                outbox.push(b'.');
            }
            outbox.extend_from_slice(line);
        }
    } else {
        outbox.extend_from_slice(octets);
    }
    if !octets.ends_with(b"\r\n") {
        outbox.extend_from_slice(b"\r\n");
    }
    outbox.extend_from_slice(b".\r\n");
}
