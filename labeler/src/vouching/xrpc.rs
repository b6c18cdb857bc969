//! The method over HTTP.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use serde_json::json;

use super::{ARRIVAL_MAX, POSTED_BYTES_MAX, Vouching};
use crate::serve::Asker;

/// `input.encoding` of the lexicon.
pub(super) const ENCODING: &str = "message/rfc822";

pub(crate) fn router(vouching: Arc<Vouching>) -> Router {
    Router::new().route("/xrpc/coop.tradewind.verifyMessage", post(verify_message)).with_state(vouching)
}

async fn verify_message(
    State(vouching): State<Arc<Vouching>>,
    client: Option<Extension<Asker>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(ENCODING)) {
        return error(StatusCode::BAD_REQUEST, "InvalidRequest", &format!("the body is a whole message, as {ENCODING}"));
    }
    // Before anything of it is read: who may not, costs nothing.
    let _place = match vouching.enter(client.map(|Extension(asker)| asker.0)) {
        Ok(place) => place,
        Err(wait) => {
            let mut response = error(StatusCode::TOO_MANY_REQUESTS, "RateLimitExceeded", "too many messages; try again later");
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
            return response;
        }
    };
    let octets = match tokio::time::timeout(ARRIVAL_MAX, to_bytes(body, POSTED_BYTES_MAX)).await {
        Ok(Ok(octets)) => octets,
        Ok(Err(_)) => {
            let why =
                format!("the message did not come whole, or has more than {POSTED_BYTES_MAX} octets: use `tradewind verify`");
            return error(StatusCode::PAYLOAD_TOO_LARGE, "MessageTooLarge", &why);
        }
        Err(_) => return error(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", "the message did not come whole in time"),
    };
    match vouching.answer(octets.into()).await {
        Ok(report) => {
            let mut response = Json(report).into_response();
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(why) => {
            tracing::error!(error = %why, "cannot answer verifyMessage");
            error(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "the store cannot be read")
        }
    }
}

fn error(status: StatusCode, name: &str, message: &str) -> Response {
    (status, Json(json!({ "error": name, "message": message }))).into_response()
}
