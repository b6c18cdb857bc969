//! What every answer of the admin port tells a browser, so that no page of somebody else's can use it and none of ours can be made
//! to run what it did not bring along.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::control::api::Refusal;

/// Everything from this host, nothing inline, no frame around it.
const POLICY: &str = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Each with what is said of it unless the answer says something of its own.
const SAID: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // Answers are private; what is not (style, script) says so itself.
    (header::CACHE_CONTROL, "no-store"),
];

/// Fields that mean something else to somebody in between when they stand in a head twice.
const ONCE: [HeaderName; 9] = [
    header::HOST,
    header::AUTHORIZATION,
    header::COOKIE,
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::ORIGIN,
    HeaderName::from_static("sec-fetch-site"),
    HeaderName::from_static("x-csrf-token"),
    HeaderName::from_static("last-event-id"),
];

/// Refuses a head that can be read in two ways, or that does not say to which host it speaks (RFC 9112 §3.2).
pub(super) async fn only_once(request: Request, next: Next) -> Response {
    let head = request.headers();
    let host = head.get(header::HOST).is_some_and(|host| !host.is_empty());
    if !host || ONCE.iter().any(|name| head.get_all(name).iter().count() > 1) {
        return Refusal::Wrong("the head has no Host, or a field twice that may be there once".to_owned()).into_response();
    }
    next.run(request).await
}

/// Adds what is missing.
pub(super) async fn protect(request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    for (name, value) in SAID {
        answer.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    answer
}
