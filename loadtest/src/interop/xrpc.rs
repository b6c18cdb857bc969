//! HTTP to the PDS and the directory, one request at a time: JSON mostly.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, header};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Nothing here takes that long unless something hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a repository travels as.
pub(crate) const CAR: &str = "application/vnd.ipld.car";

/// `POST` with a JSON body, authorized by a session's token if there is one.
pub(crate) fn post(url: &str, body: &Value, token: Option<&str>) -> Result<Value> {
    json(url, &post_octets(url, "application/json", serde_json::to_vec(body)?.into(), token.map(bearer))?)
}

/// `POST` of anything (of nothing where `kind` is empty), with this in `Authorization`.
pub(crate) fn post_octets(url: &str, kind: &str, body: Bytes, authorization: Option<String>) -> Result<Bytes> {
    let mut request = Request::post(url);
    if !kind.is_empty() {
        request = request.header(header::CONTENT_TYPE, kind);
    }
    ask(url, authorized(request, authorization).body(Full::new(body))?)
}

/// `GET`, of what anybody may read.
pub(crate) fn get(url: &str) -> Result<Value> {
    json(url, &get_octets(url, None)?)
}

/// `GET` of anything, authorized by a session's token if there is one.
pub(crate) fn get_octets(url: &str, token: Option<&str>) -> Result<Bytes> {
    ask(url, authorized(Request::get(url), token.map(bearer)).body(Full::new(Bytes::new()))?)
}

/// An answer as JSON; `null` for an empty one.
pub(crate) fn json(url: &str, octets: &[u8]) -> Result<Value> {
    if octets.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(octets).with_context(|| format!("{url}: the answer is not JSON"))
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn authorized(request: hyper::http::request::Builder, authorization: Option<String>) -> hyper::http::request::Builder {
    match authorization {
        Some(authorization) => request.header(header::AUTHORIZATION, authorization),
        None => request,
    }
}

fn ask(url: &str, request: Request<Full<Bytes>>) -> Result<Bytes> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exchange = async {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let response = client.request(request).await.with_context(|| url.to_owned())?;
        let status = response.status();
        let octets = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{url}: {status} {}", String::from_utf8_lossy(&octets));
        }
        anyhow::Ok(octets)
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange).await.with_context(|| format!("{url}: no answer"))? })
}
