//! Logins of browsers: `POST /login` with a token gives a cookie that stands for it, `POST /logout` ends that.
//!
//! Both take a form or JSON, and answer a form with a redirection and JSON with JSON. A login takes the same time whether or not
//! the token is good, and is refused in the same words.

use std::time::Duration;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::gate::{Csrf, Login};
use super::handlers::Answer;
use super::{Admin, Operations, Operator, forms};
use crate::control::api::{Refusal, Session};
use crate::control::http::Peer;

/// No answer to a login comes sooner.
const LOGIN_TIME: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    token: String,
}

/// `POST /login`.
pub(super) async fn log_in<O: Operations>(
    State(admin): State<Admin<O>>,
    Extension(peer): Extension<Peer>,
    head: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    // A page of somebody else's could log its visitor in as somebody else.
    admin.gate.check_origin(&head, false)?;
    let is_form = forms::is_form(&head);
    let token = match is_form {
        true => forms::field(&body, "token"),
        false if forms::is_json(&head) => serde_json::from_slice::<Wish>(&body).ok().map(|wish| wish.token),
        false => return Err(Refusal::NotJson),
    };
    if let Some(wait) = admin.gate.must_wait(peer) {
        tracing::warn!(?peer, "too many logins have failed");
        let secs = HeaderValue::from(wait.as_secs().max(1));
        return Ok(([(header::RETRY_AFTER, secs)], Refusal::TooMany).into_response());
    }
    let (done, ()) = tokio::join!(
        async { token.ok_or(Refusal::Unproven).and_then(|token| admin.gate.log_in(peer, &token)) },
        tokio::time::sleep(LOGIN_TIME)
    );
    let to = if is_form { forms::field(&body, "to").filter(|to| forms::is_ours(to)) } else { None };
    match done {
        Ok(Login { cookie, operator, csrf }) => {
            tracing::info!(%operator, ?peer, "logged in");
            let cookie = [(header::SET_COOKIE, cookie)];
            if is_form {
                return Ok((cookie, see(to.as_deref().unwrap_or("/"))).into_response());
            }
            Ok((cookie, Json(session(operator, Some(csrf)))).into_response())
        }
        Err(refusal) => {
            tracing::warn!(?peer, "a login failed");
            if is_form { Ok(see("/login?failed=1").into_response()) } else { Err(refusal) }
        }
    }
}

/// `POST /logout`. Whoever asks from another site's page logs nobody out, and whoever has no login any more is content.
pub(super) async fn log_out<O: Operations>(State(admin): State<Admin<O>>, head: HeaderMap) -> Result<Response, Refusal> {
    admin.gate.check_origin(&head, true)?;
    let cookie = [(header::SET_COOKIE, admin.gate.log_out(&head))];
    if forms::is_form(&head) {
        return Ok((cookie, see("/login")).into_response());
    }
    Ok((StatusCode::NO_CONTENT, cookie).into_response())
}

/// `GET /v1/session`.
pub(super) async fn who_am_i(operator: Operator, csrf: Option<Extension<Csrf>>) -> Answer<Session> {
    Ok(Json(session(operator, csrf.map(|Extension(csrf)| csrf))))
}

fn session(operator: Operator, csrf: Option<Csrf>) -> Session {
    Session { name: operator.name, role: operator.role, csrf: csrf.map(|Csrf(word)| word) }
}

/// RFC 9110 §15.4.4: look there with GET.
fn see(path: &str) -> (StatusCode, [(header::HeaderName, String); 1]) {
    (StatusCode::SEE_OTHER, [(header::LOCATION, path.to_owned())])
}
