//! HTTP outwards: one request with a bound on its answer's size and its time. Redirects are not followed.

use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, header, http::request::Builder};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout;

/// How long a request may take from the name's resolution to the last octet.
const WAIT: Duration = Duration::from_secs(15);
/// Octets of a refusal that are read, and characters of it that are shown.
const REFUSAL_BYTES_MAX: usize = 4096;
const SAID_CHARS_MAX: usize = 300;
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(90);

/// Asks over HTTPS, or HTTP where the URL says so: the configuration allows that on loopback only.
#[derive(Clone)]
pub struct Fetch {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
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
    /// A method was refused, in these words.
    #[error("answered {0}: {1}")]
    Refused(StatusCode, String),
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
        match self.ask(Request::get(uri), Bytes::new(), bytes_max).await? {
            (StatusCode::OK, body) => Ok(body),
            (status, _) => Err(FetchError::Status(status)),
        }
    }

    /// The body of the answer to a method of XRPC, called with a token: POST where there is a body, else GET.
    pub async fn call(&self, url: &str, token: &str, body: Option<Vec<u8>>, bytes_max: usize) -> Result<Bytes, FetchError> {
        let uri: Uri = url.parse().map_err(|_| FetchError::Url)?;
        let request = if body.is_some() { Request::post(uri) } else { Request::get(uri) };
        let request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        let request = if body.is_some() { request.header(header::CONTENT_TYPE, "application/json") } else { request };
        match self.ask(request, body.unwrap_or_default().into(), bytes_max).await? {
            (StatusCode::OK, body) => Ok(body),
            (status, body) => {
                let said = String::from_utf8_lossy(&body).chars().filter(|it| !it.is_control()).take(SAID_CHARS_MAX).collect();
                Err(FetchError::Refused(status, said))
            }
        }
    }

    /// Status and body. The body of a refusal is read only as far as somebody may want to read it.
    async fn ask(&self, request: Builder, body: Bytes, bytes_max: usize) -> Result<(StatusCode, Bytes), FetchError> {
        let agent = concat!("tradewind/", env!("CARGO_PKG_VERSION"));
        let request = request.header(header::USER_AGENT, agent).header(header::ACCEPT, "application/json");
        let request = request.body(Full::new(body)).map_err(|_| FetchError::Url)?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| FetchError::Io(causes(&error)))?;
            let status = response.status();
            if status != StatusCode::OK {
                let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect().await;
                return Ok((status, body.map(|body| body.to_bytes()).unwrap_or_default()));
            }
            let body = Limited::new(response.into_body(), bytes_max).collect().await;
            let too_long = |error: Box<dyn std::error::Error + Send + Sync>| match error.downcast_ref::<LengthLimitError>() {
                Some(_) => FetchError::TooLong(bytes_max),
                None => FetchError::Io(causes(&*error)),
            };
            Ok((status, body.map_err(too_long)?.to_bytes()))
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
