//! Fetching what strangers' records point at: DID documents, proofs, handles.
//!
//! A stranger chooses the URL, so: no address of ours (unless the network is a test), no redirect, no more octets and no more time than an
//! honest answer needs. The address is looked up once, checked, and connected to: a name cannot change its mind between the two.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{HOST, USER_AGENT};
use hyper_rustls::ConfigBuilderExt;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::dns::Dns;
use crate::judge::Answer;

/// For a whole answer: PDSes that need longer are asked again later.
const TIME_MAX: Duration = Duration::from_secs(10);

/// An answer.
pub(crate) struct Fetched {
    pub(crate) status: u16,
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

    async fn exchange(&self, url: &Url, from: From, bytes_max: usize) -> Result<Fetched, String> {
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
        if self.allow_private || from == From::Configuration {
            return Ok(found);
        }
        match found.iter().find(|address| !is_public(**address)) {
            Some(private) => Err(format!("{private} is not a public address")),
            None => Ok(found),
        }
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
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let exchange = async {
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let request = hyper::Request::get(&url[url::Position::BeforePath..url::Position::AfterQuery])
            .header(HOST, host)
            .header(USER_AGENT, concat!("tradewind-labeler/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), bytes_max).collect().await;
        let body = body.map_err(|error| format!("{error} (at most {bytes_max} octets are read)"))?.to_bytes();
        Ok(Fetched { status, body })
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

/// Whether an address belongs to the open internet (RFC 6890 and its registries), also where it carries an IPv4 address inside.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let special = v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_documentation()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (18..20).contains(&b));
            !special
        }
        IpAddr::V6(v6) => {
            let embedded = |high: u16, low: u16| {
                let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
                is_public(Ipv4Addr::new(a, b, c, d).into())
            };
            match v6.segments() {
                [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
                    embedded(high, low)
                }
                [0x2001, 0x0db8 | 0..=0x01ff, ..] => false,
                [first, ..] => first & 0xe000 == 0x2000,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_behind_our_firewall_are_not_public() {
        for public in ["1.1.1.1", "100.128.0.1", "198.51.99.1", "2606:4700::1111", "::ffff:1.1.1.1", "2002:101:101::1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "192.0.0.1",
            "198.18.0.1",
            "192.0.2.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::7f00:1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "fc00::1",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }
}
