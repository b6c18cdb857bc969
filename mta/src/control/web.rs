//! HTTPS with hosts that recipients' domains name: policies are fetched (RFC 8461 §3.3) and reports handed over (RFC 8460 §5.4).
//!
//! Whoever publishes a record chooses whom we speak to, so nothing here trusts it: names are looked up like those of mail
//! hosts, private addresses are left out, the certificate must be the name's, redirects are not followed, and size and time
//! are bounded. A connection serves one request.
//!
//! Not here: what we ask of hosts that the operator names (`fetch.rs`), what a policy says (`egress/sts`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::dns::{DnsError, Resolver};
use host::tls;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{Method, Request, Response, StatusCode, Uri, body::Bytes, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config;
use crate::egress::route::is_public;

/// RFC 8461 §3.3 suggests a minute for a policy, from the look-up of the name to the last octet.
const WAIT: Duration = Duration::from_secs(60);
/// Of that, for one address to answer; the others get their turn.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 4;
/// RFC 8461 §3.3 suggests 64 KB for a policy. What a receiver of reports answers is not read further either.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What the others say over HTTPS. Cheap to clone.
#[derive(Clone)]
pub struct Web(Kind);

#[derive(Clone)]
enum Kind {
    Network(Arc<Network>),
    Scripted(Pages),
}

struct Network {
    resolver: Resolver,
    /// None: nothing can be verified, so nothing is asked.
    tls: Option<TlsConnector>,
    policy_port: u16,
    allow_private_addresses: bool,
}

/// Why there is no answer. In every case: try again later, and go on with what was known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebError {
    /// It is no https URL.
    #[error("not an https URL")]
    Url,
    /// The name has no address that may be used, or nobody could say.
    #[error("{0}")]
    Name(String),
    /// It did not connect, or the connection broke.
    #[error("{0}")]
    Io(String),
    /// The certificate is not the name's, or nobody vouches for it.
    #[error("the certificate is not good: {0}")]
    Certificate(String),
    /// It answered otherwise than with success. A redirect is not followed (RFC 8461 §3.3).
    #[error("answered {0}")]
    Status(u16),
    /// A policy must be text/plain (RFC 8461 §3.2).
    #[error("the policy is {0:?}, not text/plain")]
    ContentType(String),
    /// The answer has more octets than wanted.
    #[error("answered more than {0} octets")]
    TooLong(usize),
    /// It took longer than a minute.
    #[error("did not answer within {} s", WAIT.as_secs())]
    TimedOut,
}

impl Web {
    /// The world's, as the settings want it.
    pub fn of(egress: &config::Egress, resolver: Resolver, trust: Option<&tls::Trust>) -> Result<Self, tls::Error> {
        let client = trust.map(tls::Client::verifying).transpose()?;
        Ok(Web::network(resolver, client.as_ref(), egress.sts_port, egress.allow_private_addresses))
    }

    /// The world's. `verifying` decides whose certificates are good; `policy_port` is 443 but in tests.
    pub fn network(resolver: Resolver, verifying: Option<&tls::Client>, policy_port: u16, allow_private_addresses: bool) -> Self {
        let tls = verifying.map(|client| TlsConnector::from(client.config()));
        Web(Kind::Network(Arc::new(Network { resolver, tls, policy_port, allow_private_addresses })))
    }

    /// With answers written by a test.
    pub fn scripted(pages: Pages) -> Self {
        Web(Kind::Scripted(pages))
    }

    /// The policy file of `domain`.
    pub async fn policy(&self, domain: &str) -> Result<Bytes, WebError> {
        let host = format!("mta-sts.{domain}");
        match &self.0 {
            Kind::Network(network) => {
                let port = network.policy_port;
                let uri = Uri::try_from(format!("https://{host}:{port}/.well-known/mta-sts.txt")).map_err(|_| WebError::Url)?;
                let request = request(Method::GET, &uri, port == 443).body(Full::default()).map_err(|_| WebError::Url)?;
                timeout(WAIT, network.policy(&host, request)).await.unwrap_or(Err(WebError::TimedOut))
            }
            Kind::Scripted(pages) => pages.policy(&host).await,
        }
    }

    /// Hands a report over by POST (RFC 8460 §5.4).
    pub async fn post(&self, url: &str, content_type: &'static str, body: Bytes) -> Result<(), WebError> {
        let uri = Uri::try_from(url).map_err(|_| WebError::Url)?;
        if uri.scheme_str() != Some("https") {
            return Err(WebError::Url);
        }
        let host = uri.host().ok_or(WebError::Url)?.trim_end_matches('.').to_ascii_lowercase();
        match &self.0 {
            Kind::Network(network) => {
                let request = request(Method::POST, &uri, uri.port().is_none()).header(header::CONTENT_TYPE, content_type);
                let request = request.body(Full::new(body)).map_err(|_| WebError::Url)?;
                let exchange = async {
                    let response = network.exchange(&host, uri.port_u16().unwrap_or(443), request).await?;
                    if response.status().is_success() { Ok(()) } else { Err(WebError::Status(response.status().as_u16())) }
                };
                timeout(WAIT, exchange).await.unwrap_or(Err(WebError::TimedOut))
            }
            Kind::Scripted(pages) => pages.post(url, body).await,
        }
    }
}

fn request(method: Method, uri: &Uri, usual_port: bool) -> hyper::http::request::Builder {
    let host = uri.host().unwrap_or_default();
    let authority = if usual_port { host } else { uri.authority().map_or(host, |authority| authority.as_str()) };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, concat!("tradewind/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
}

/// A response whose connection is driven by a task that ends with it.
struct Answered {
    response: Response<Incoming>,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Network {
    async fn policy(&self, host: &str, request: Request<Full<Bytes>>) -> Result<Bytes, WebError> {
        let mut answered = self.open(host, self.policy_port, request).await?;
        let response = &mut answered.response;
        // RFC 8461 §3.3: "Policies fetched via HTTPS are only valid if the HTTP response code is 200".
        if response.status() != StatusCode::OK {
            return Err(WebError::Status(response.status().as_u16()));
        }
        let kind = response.headers().get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let kind = kind.unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("text/plain") {
            return Err(WebError::ContentType(kind.chars().filter(|c| !c.is_control()).take(100).collect()));
        }
        let body = Limited::new(response.body_mut(), ANSWER_BYTES_MAX).collect().await;
        let too_long = |error: Box<dyn std::error::Error + Send + Sync>| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => WebError::TooLong(ANSWER_BYTES_MAX),
            None => WebError::Io(error.to_string()),
        };
        Ok(body.map_err(too_long)?.to_bytes())
    }

    async fn exchange(&self, host: &str, port: u16, request: Request<Full<Bytes>>) -> Result<Response<()>, WebError> {
        let answered = self.open(host, port, request).await?;
        let mut response = Response::new(());
        *response.status_mut() = answered.response.status();
        Ok(response)
    }

    async fn open(&self, host: &str, port: u16, request: Request<Full<Bytes>>) -> Result<Answered, WebError> {
        let tls = self.tls.as_ref().ok_or_else(|| WebError::Certificate("there are no trust anchors to verify it by".into()))?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| WebError::Url)?;
        let stream = self.connect(host, port).await?;
        let stream = tls.connect(name, stream).await.map_err(|error| {
            match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
                Some(rustls::Error::InvalidCertificate(why)) => WebError::Certificate(why.to_string()),
                _ => WebError::Io(format!("TLS handshake: {error}")),
            }
        })?;
        let broken = |error: hyper::Error| WebError::Io(error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = tokio::spawn(async move {
            // Whoever waits for the answer hears of it.
            let _ = connection.await;
        });
        match sender.send_request(request).await {
            Ok(response) => Ok(Answered { response, connection }),
            Err(error) => {
                connection.abort();
                Err(broken(error))
            }
        }
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, WebError> {
        let found = self.resolver.addresses(host).await;
        let (addresses, _) = found.map_err(|error| match error {
            DnsError::NoSuchName | DnsError::NoRecords => WebError::Name(format!("{host} has no address")),
            error => WebError::Name(format!("addresses of {host}: {error}")),
        })?;
        let mut last = WebError::Name(format!("{host} has no address that may be used"));
        let usable = addresses.into_iter().filter(|address| self.allow_private_addresses || is_public(address));
        for address in usable.take(ADDRESSES_MAX) {
            match timeout(CONNECT_WAIT, TcpStream::connect(SocketAddr::new(address, port))).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = WebError::Io(format!("{host} [{address}]: {error}")),
                Err(_) => last = WebError::Io(format!("{host} [{address}] did not answer")),
            }
        }
        Err(last)
    }
}

/// A web written by a test. Clones are the same one, so a test that keeps one may change it while the world runs.
#[derive(Clone, Default)]
pub struct Pages(Arc<Mutex<Written>>);

#[derive(Default)]
struct Written {
    policies: BTreeMap<String, (Duration, Result<String, WebError>)>,
    refusing: Option<WebError>,
    asked: usize,
    posted: Vec<(String, Bytes)>,
}

impl Pages {
    /// What `mta-sts.DOMAIN` says from now on, and how long it takes to say so.
    pub fn set_policy(&self, domain: &str, latency: Duration, answer: Result<&str, WebError>) {
        self.written().policies.insert(format!("mta-sts.{domain}"), (latency, answer.map(str::to_owned)));
    }

    /// Whether reports are refused from now on.
    pub fn set_refusing(&self, refusing: Option<WebError>) {
        self.written().refusing = refusing;
    }

    /// How often a policy was asked for.
    pub fn asked(&self) -> usize {
        self.written().asked
    }

    /// What was posted, and where to.
    pub fn posted(&self) -> Vec<(String, Bytes)> {
        self.written().posted.clone()
    }

    async fn policy(&self, host: &str) -> Result<Bytes, WebError> {
        let page = {
            let mut written = self.written();
            written.asked += 1;
            written.policies.get(host).cloned()
        };
        let (latency, answer) = page.ok_or_else(|| WebError::Name(format!("{host} has no address")))?;
        // As the network does it.
        timeout(WAIT, tokio::time::sleep(latency)).await.map_err(|_| WebError::TimedOut)?;
        answer.map(Bytes::from)
    }

    async fn post(&self, url: &str, body: Bytes) -> Result<(), WebError> {
        let mut written = self.written();
        match written.refusing.clone() {
            Some(error) => Err(error),
            None => {
                written.posted.push((url.to_owned(), body));
                Ok(())
            }
        }
    }

    fn written(&self) -> std::sync::MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
