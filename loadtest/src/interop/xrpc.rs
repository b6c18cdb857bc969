//! JSON over HTTP to the PDS, one request at a time.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, header};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// `POST` with a JSON body, authorized by a session's token if there is one.
pub(crate) fn post(url: &str, body: &Value, token: Option<&str>) -> Result<Value> {
    let octets = Bytes::from(serde_json::to_vec(body)?);
    let mut request = Request::post(url).header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    ask(url, request.body(Full::new(octets))?)
}

/// `GET`, of what anybody may read.
pub(crate) fn get(url: &str) -> Result<Value> {
    ask(url, Request::get(url).body(Full::new(Bytes::new()))?)
}

fn ask(url: &str, request: Request<Full<Bytes>>) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let response = client.request(request).await.with_context(|| url.to_owned())?;
        let status = response.status();
        let octets = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{url}: {status} {}", String::from_utf8_lossy(&octets));
        }
        if octets.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&octets).with_context(|| format!("{url}: the answer is not JSON"))
    })
}
