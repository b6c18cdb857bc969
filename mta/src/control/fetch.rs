//! HTTP outwards: one GET with a bound on its size and its time. Redirects are not followed.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout;

/// How long a request may take from the name's resolution to the last octet.
const WAIT: Duration = Duration::from_secs(15);
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(90);

/// Asks over HTTPS, or HTTP where the URL says so: the configuration allows that on loopback only.
#[derive(Clone)]
pub struct Fetch {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

/// Why there is no answer; in every case: try again later, and go on with what was known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// What was asked for is no URL.
    #[error("not a URL")]
    Url,
    /// It did not connect, or the connection broke.
    #[error("{0}")]
    Io(String),
    /// It answered otherwise than with 200.
    #[error("answered {0}")]
    Status(StatusCode),
    /// The answer has more octets than wanted.
    #[error("answered more than {0} octets")]
    TooLong(usize),
    /// It took longer than 15 seconds.
    #[error("did not answer within 15 s")]
    TimedOut,
}

impl Fetch {
    /// With the certificate authorities that Mozilla trusts.
    pub fn new() -> Result<Fetch, rustls::Error> {
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(2)
            .build(connector);
        Ok(Fetch { client })
    }

    /// The body of the answer to a GET.
    pub async fn get(&self, url: &str, bytes_max: usize) -> Result<Bytes, FetchError> {
        let uri: Uri = url.parse().map_err(|_| FetchError::Url)?;
        let agent = concat!("tradewind/", env!("CARGO_PKG_VERSION"));
        let request = Request::get(uri).header(header::USER_AGENT, agent).header(header::ACCEPT, "application/json");
        let request = request.body(Empty::new()).map_err(|_| FetchError::Url)?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| FetchError::Io(causes(&error)))?;
            if response.status() != StatusCode::OK {
                return Err(FetchError::Status(response.status()));
            }
            let body = Limited::new(response.into_body(), bytes_max).collect().await;
            let too_long = |error: Box<dyn std::error::Error + Send + Sync>| match error.downcast_ref::<LengthLimitError>() {
                Some(_) => FetchError::TooLong(bytes_max),
                None => FetchError::Io(causes(&*error)),
            };
            Ok(body.map_err(too_long)?.to_bytes())
        };
        timeout(WAIT, exchange).await.unwrap_or(Err(FetchError::TimedOut))
    }
}

/// hyper tells what happened only in the cause of the cause.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut out = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        out = format!("{out}: {error}");
        cause = error.source();
    }
    out
}

/// `text` with everything escaped that could mean something in a query or in one segment of a path.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(octet)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
