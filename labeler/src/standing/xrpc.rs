//! The two methods over HTTP.

use std::sync::Arc;

use atproto::Did;
use atproto::jwt::JwtError;
use atproto::sending::{DIDS_MAX, GET_STANDING, REPORT_SENDING, REPORTS_MAX, Sending, Standings};
use axum::body::{Body, to_bytes};
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use super::Keeper;
use super::gate::{Gate, Refused};
use crate::outside;
use crate::replay::ReplayError;
use crate::store::StoreError;

/// Octets of a report: 200 reports of 320.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 10;

/// Both methods, or that they are not offered.
pub(crate) type Desk = Option<Arc<(Gate, Box<dyn Keeper>)>>;

/// Serves what is asked by MTAs.
pub(crate) fn router(desk: Desk) -> Router {
    let reporting = post(report_sending).fallback(|| wrong_method("POST"));
    let reading = get(get_standing).fallback(|| wrong_method("GET"));
    let (report, read) = (format!("/xrpc/{REPORT_SENDING}"), format!("/xrpc/{GET_STANDING}"));
    Router::new().route(&report, reporting).route(&read, reading).with_state(desk)
}

async fn report_sending(State(desk): State<Desk>, request: Request) -> Response {
    let now = outside::now();
    let Some(desk) = desk else { return not_offered() };
    let caller = match desk.0.admit(request.headers(), REPORT_SENDING, now).await {
        Ok(caller) => caller,
        Err(why) => return refused(&why),
    };
    let sending = match body(request.into_body()).await {
        Ok(sending) => sending,
        Err(response) => return response,
    };
    let worker = move || desk.1.report(&caller.did, &sending.reports, now);
    answer(tokio::task::spawn_blocking(worker).await)
}

async fn get_standing(State(desk): State<Desk>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let now = outside::now();
    let Some(desk) = desk else { return not_offered() };
    if let Err(why) = desk.0.admit(&headers, GET_STANDING, now).await {
        return refused(&why);
    }
    let named = url::form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes());
    let dids = named.filter(|(name, _)| matches!(&**name, "dids" | "dids[]")).map(|(_, did)| did.parse::<Did>());
    let dids: Vec<Did> = match dids.take(DIDS_MAX + 1).collect::<Result<_, _>>() {
        Ok(dids) => dids,
        Err(_) => return error(StatusCode::BAD_REQUEST, "InvalidRequest", "dids are DIDs"),
    };
    if dids.is_empty() || dids.len() > DIDS_MAX {
        return error(StatusCode::BAD_REQUEST, "InvalidRequest", &format!("dids are 1 to {DIDS_MAX}"));
    }
    let worker = move || desk.1.standings(&dids, now).map(|standings| Standings { standings });
    let mut response = answer(tokio::task::spawn_blocking(worker).await);
    // It is for this caller only.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn body(body: Body) -> Result<Sending, Response> {
    let too_large = || error(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge", "a body has 64 KiB at most; send several");
    let octets = to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| too_large())?;
    let invalid = |why: String| error(StatusCode::BAD_REQUEST, "InvalidRequest", &why);
    let sending: Sending =
        serde_json::from_slice(&octets).map_err(|error| invalid(format!("not what {REPORT_SENDING} takes: {error}")))?;
    if sending.reports.len() > REPORTS_MAX {
        return Err(invalid(format!("at most {REPORTS_MAX} reports in one call")));
    }
    Ok(sending)
}

fn answer<T: serde::Serialize>(done: Result<Result<T, StoreError>, tokio::task::JoinError>) -> Response {
    match done {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(why)) => {
            tracing::error!(error = %why, "standing cannot be kept or read");
            error(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "the store cannot do it just now")
        }
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn refused(why: &Refused) -> Response {
    let (status, name) = match why {
        Refused::Token(_) => (StatusCode::UNAUTHORIZED, "AuthenticationRequired"),
        // The names that the reference implementation answers with.
        Refused::Jwt(JwtError::Audience) => (StatusCode::UNAUTHORIZED, "BadJwtAudience"),
        Refused::Jwt(JwtError::Method) => (StatusCode::UNAUTHORIZED, "BadJwtLexiconMethod"),
        Refused::Jwt(JwtError::Expired) => (StatusCode::UNAUTHORIZED, "JwtExpired"),
        Refused::Jwt(JwtError::BadSignature) => (StatusCode::UNAUTHORIZED, "BadJwtSignature"),
        Refused::Jwt(_) => (StatusCode::UNAUTHORIZED, "BadJwt"),
        Refused::NotPermitted(_) => (StatusCode::FORBIDDEN, "NotPermitted"),
        Refused::Replay(ReplayError::Replayed) => (StatusCode::UNAUTHORIZED, "TokenReplayed"),
        Refused::Replay(ReplayError::Full) => (StatusCode::TOO_MANY_REQUESTS, "RateLimitExceeded"),
        Refused::Store(why) => {
            tracing::error!(error = %why, "which tokens were used cannot be kept");
            (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError")
        }
        Refused::Unresolved(..) => (StatusCode::SERVICE_UNAVAILABLE, "CallerUnresolved"),
    };
    let mut response = error(status, name, &why.to_string());
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn not_offered() -> Response {
    error(StatusCode::NOT_IMPLEMENTED, "MethodNotImplemented", "this labeler keeps no standing: it has no table [standing]")
}

async fn wrong_method(right: &'static str) -> Response {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "InvalidRequest", &format!("this is asked with {right}"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(right));
    response
}

fn error(status: StatusCode, name: &str, message: &str) -> Response {
    (status, Json(json!({ "error": name, "message": message }))).into_response()
}
