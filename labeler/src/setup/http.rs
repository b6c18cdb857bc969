//! JSON over HTTP to a PDS and a directory that the operator named.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::SetupError;
use crate::fetch;

/// A PDS may have to send mail, or to wait for a directory.
const TIME_MAX: Duration = Duration::from_secs(60);
/// Octets of an answer.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Asks one at a time.
pub(super) struct Client(Legacy<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// An answer that was no success: the name of the error, as XRPC gives it, and the message.
pub(super) struct Refused {
    pub(super) name: String,
    pub(super) message: String,
}

impl Client {
    pub(super) fn new() -> Result<Self, SetupError> {
        let tls = fetch::tls().map_err(|error| SetupError::Http("TLS".into(), error.to_string()))?;
        let connector = HttpsConnectorBuilder::new().with_tls_config((*tls).clone()).https_or_http().enable_http1().build();
        Ok(Self(Legacy::builder(TokioExecutor::new()).build(connector)))
    }

    /// GET if there is no body, POST otherwise. An answer that is not JSON is null.
    pub(super) async fn ask(
        &self,
        url: &str,
        body: Option<&Value>,
        token: Option<&str>,
    ) -> Result<Result<Value, Refused>, SetupError> {
        let failed = |why: String| SetupError::Http(url.split('?').next().unwrap_or_default().into(), why);
        let mut request = Request::builder().method(if body.is_some() { Method::POST } else { Method::GET }).uri(url);
        request = request.header(header::USER_AGENT, concat!("tradewind-labeler/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let octets = match body {
            Some(Value::Null) | None => Bytes::new(),
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                body.to_string().into()
            }
        };
        let request = request.body(Full::new(octets)).map_err(|error| failed(error.to_string()))?;
        let exchange = async {
            let response = self.0.request(request).await.map_err(|error| error.to_string())?;
            let status = response.status();
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
            Ok((status, body.to_bytes()))
        };
        let answered = tokio::time::timeout(TIME_MAX, exchange).await;
        let (status, octets) = answered.unwrap_or_else(|_| Err("no answer in time".into())).map_err(failed)?;
        let value: Value = serde_json::from_slice(&octets).unwrap_or_default();
        if status.is_success() {
            return Ok(Ok(value));
        }
        let text = |field: &str| value[field].as_str().unwrap_or_default().chars().take(300).collect::<String>();
        let message = if text("message").is_empty() { status.to_string() } else { format!("{status}: {}", text("message")) };
        Ok(Err(Refused { name: text("error"), message }))
    }
}
