//! Fetching what strangers' records point at: DID documents, proofs, handles.
//!
//! A stranger chooses the URL, so: only what [`vet`] lets through (unless the network is a test), no more octets and no more
//! time than an honest answer needs. The address is looked up once, vetted, and connected to: a name cannot change its mind
//! between the two. A redirect is an answer like any other, except to [`Fetcher::get_on`], where each step is vetted as the
//! first one was.

mod greet;
#[cfg(test)]
mod tests;
mod vet;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{HOST, LOCATION, USER_AGENT};
use hyper_rustls::ConfigBuilderExt;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::dns::Dns;
use crate::judge::Answer;
pub(crate) use greet::{Greeted, Greeter};

/// For a whole answer: PDSes that need longer are asked again later.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Steps of a redirect that are followed where they are.
const REDIRECTS_MAX: usize = 3;
/// Octets of an answer's head.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// An answer.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) status: u16,
    /// Where a redirect points, from where it was asked.
    onward: Option<Url>,
    pub(crate) body: Bytes,
}

/// Fetches by HTTP/1.1, one connection each.
#[derive(Clone)]
pub(crate) struct Fetcher {
    dns: Dns,
    tls: TlsConnector,
    allow_private: bool,
}

/// Who chose the URL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// Our operator.
    Configuration,
    /// Anybody.
    Stranger,
}

impl Fetcher {
    pub(crate) fn new(dns: Dns, tls: Arc<ClientConfig>, allow_private: bool) -> Self {
        Self { dns, tls: TlsConnector::from(tls), allow_private }
    }

    /// The answer to GET, whatever its status, or why there is none.
    pub(crate) async fn get(&self, url: &Url, from: From, bytes_max: usize) -> Result<Fetched, String> {
        match tokio::time::timeout(TIME_MAX, self.exchange(url, from, bytes_max)).await {
            Ok(answer) => answer.map_err(|why| format!("{}: {why}", shown(url))),
            Err(_) => Err(format!("{}: no answer within {} s", shown(url), TIME_MAX.as_secs())),
        }
    }

    /// The same, and on to where it is redirected: `https` only, a few steps, each as a stranger's wish, in the time of one.
    pub(crate) async fn get_on(&self, url: &Url, from: From, bytes_max: usize) -> Result<Fetched, String> {
        let steps = async {
            let (mut url, mut from) = (url.clone(), from);
            for _ in 0..=REDIRECTS_MAX {
                let answer = self.exchange(&url, from, bytes_max).await.map_err(|why| format!("{}: {why}", shown(&url)))?;
                match answer.onward {
                    Some(onward) => (url, from) = (onward, From::Stranger),
                    None => return Ok(answer),
                }
            }
            Err(format!("{}: more than {REDIRECTS_MAX} redirects", shown(&url)))
        };
        match tokio::time::timeout(TIME_MAX, steps).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("{}: no answer within {} s", shown(url), TIME_MAX.as_secs())),
        }
    }

    async fn exchange(&self, url: &Url, from: From, bytes_max: usize) -> Result<Fetched, String> {
        vet::url(url, from, self.allow_private)?;
        let port = url.port_or_known_default().ok_or("no port")?;
        let stream = connect(&self.addresses(url, from).await?, port).await?;
        match url.scheme() {
            "https" => {
                let name =
                    ServerName::try_from(url.host_str().unwrap_or_default().to_owned()).map_err(|error| error.to_string())?;
                request(self.tls.connect(name, stream).await.map_err(|error| error.to_string())?, url, bytes_max).await
            }
            "http" => request(stream, url, bytes_max).await,
            other => Err(format!("{other} is not fetched")),
        }
    }

    async fn addresses(&self, url: &Url, from: From) -> Result<Vec<IpAddr>, String> {
        let found = match url.host().ok_or("no host")? {
            Host::Ipv4(address) => vec![address.into()],
            Host::Ipv6(address) => vec![address.into()],
            // RFC 6761 §6.3: never asked of DNS.
            Host::Domain("localhost") => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            Host::Domain(name) => match self.dns.addresses(name).await {
                Answer::Found(addresses) => addresses,
                Answer::Absent => return Err("the host has no address".into()),
                Answer::Unknown(why) => return Err(why),
            },
        };
        vet::addresses(found, from, self.allow_private)
    }
}

/// The first address that takes the connection.
async fn connect(addresses: &[IpAddr], port: u16) -> Result<TcpStream, String> {
    let mut last = "the host has no address".to_owned();
    for address in addresses.iter().take(4) {
        match tokio::time::timeout(TIME_MAX / 3, TcpStream::connect(SocketAddr::new(*address, port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => last = format!("{address} does not take the connection"),
        }
    }
    Err(last)
}

async fn request<S>(stream: S, url: &Url, bytes_max: usize) -> Result<Fetched, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let request = hyper::Request::get(&url[url::Position::BeforePath..url::Position::AfterQuery])
            .header(HOST, host)
            .header(USER_AGENT, concat!("tradewind-labeler/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let onward = match status {
            301 | 302 | 303 | 307 | 308 => response.headers().get(LOCATION).and_then(|to| url.join(to.to_str().ok()?).ok()),
            _ => None,
        };
        let body = Limited::new(response.into_body(), bytes_max).collect().await;
        let body = body.map_err(|error| format!("{error} (at most {bytes_max} octets are read)"))?.to_bytes();
        Ok(Fetched { status, onward, body })
    };
    // The connection is driven here and dropped with the answer: nothing outlives the deadline.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    let mut open = true;
    loop {
        tokio::select! {
            answer = &mut exchange => return answer,
            _ = &mut connection, if open => open = false,
        }
    }
}

/// Scheme, host and path: a query may be long.
fn shown(url: &Url) -> String {
    url[..url::Position::AfterPath].chars().take(200).collect()
}

/// Roots of the web's certificates.
pub(crate) fn tls() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_webpki_roots().with_no_client_auth()))
}
