//! What happens around every handler of the table: the role, and for what changes anything the version and the audit.
//!
//! A change is written down twice: before it is done, as `begun`, and after it, with what became of it. So whatever is done is in
//! the audit, also when the daemon dies in between; and without an audit nothing is done. What was there before and after is what
//! the path that the change is *about* answers to GET, of which the table says which fields an operator edits. The same fields are
//! the version (`ETag`, RFC 9110 §8.8.3): who comes over the network names the one that they saw (`If-Match`), and when it is not
//! the present one, is told what was changed since and by whom, and nothing is done.
//!
//! Changes about something are made one after the other, so that nobody comes between the look and the deed.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use ring::digest;
use serde_json::{Map, Value};
use tower::ServiceExt;

use super::operator::{By, Operator};
use super::table::Rule;
use super::{Admin, Operations, forms};
use crate::control::api::{AuditRow, Refusal, Trouble};
use crate::control::http::Peer;

/// An answer of our own that is looked at; a full page of the queue has less than 1 MiB.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What the audit keeps of what was asked, of what was before and of what is after: of each so much, else its length.
const KEPT_BYTES_MAX: usize = 8 << 10;

/// What is kept of a reason.
const WHY_BYTES_MAX: usize = 1000;

/// What a handler of the table is surrounded with.
pub(super) struct Guard<O> {
    pub(super) rule: Rule,
    pub(super) admin: Admin<O>,
    /// Answers what a change is about, and the fields of it that count.
    pub(super) look: Option<(Router, &'static [&'static str])>,
}

impl<O> Clone for Guard<O> {
    fn clone(&self) -> Self {
        Guard { rule: self.rule.clone(), admin: self.admin.clone(), look: self.look.clone() }
    }
}

/// What happens before and after every handler of the table.
pub(super) async fn guard<O: Operations>(
    State(guard): State<Guard<O>>,
    operator: Operator,
    request: Request,
    next: Next,
) -> Response {
    let rule = &guard.rule;
    if let Err(refusal) = operator.check(rule.role) {
        tracing::warn!(
            %operator, role = %operator.role, method = %rule.method, path = rule.path, what = rule.says,
            "refused: the role does not suffice"
        );
        return refusal.into_response();
    }
    if rule.method.is_safe() || rule.harmless {
        let answer = next.run(request).await;
        return if rule.edited.is_empty() { answer } else { with_version(answer, rule.edited).await };
    }
    // Whoever asks may go away; what was begun is finished and written down.
    match tokio::spawn(async move { guard.change(operator, request, next).await }).await {
        Ok(answer) => answer,
        Err(error) => Refusal::Unable(format!("it broke off: {error}; the audit says how far it came")).into_response(),
    }
}

impl<O: Operations> Guard<O> {
    async fn change(self, operator: Operator, request: Request, next: Next) -> Response {
        match self.try_change(operator, request, next).await {
            Ok(answer) => answer,
            Err(refusal) => refusal.into_response(),
        }
    }

    async fn try_change(self, operator: Operator, request: Request, next: Next) -> Result<Response, Refusal> {
        let (parts, body) = request.into_parts();
        let body = forms::read(&parts.headers, body).await?;
        let asked = self.asked(&parts.headers, &parts.uri, &body)?;
        let about = self.about(&parts.uri);
        let _one_at_a_time = match &self.look {
            Some(_) => Some(self.admin.changes.lock().await),
            None => None,
        };
        let before = self.seen(&about).await?;
        if let Some((_, version)) = &before
            && let Some(stale) = self.check_version(&operator, &parts.headers, &about, version).await?
        {
            return Ok(stale);
        }
        let (value, version) = before.unzip();
        let row = AuditRow {
            who: operator.name.clone(),
            by: by(&operator, parts.extensions.get::<Peer>()),
            what: format!("{} {}", self.rule.method, self.rule.path),
            about: about.clone(),
            why: asked.as_ref().and_then(why).or_else(|| why_of_head(&parts.headers)),
            asked: asked.map(|asked| kept(without(asked, self.rule.secret))),
            before: value.map(kept),
            before_version: version,
            outcome: "begun".to_owned(),
            ..AuditRow::default()
        };
        let number = self.admin.operations.begin_audit(row).await?;
        let answer = next.run(Request::from_parts(parts, Body::from(body))).await;
        // An error is the change's own: the row stays as begun, and says so.
        let after = self.seen(&about).await.unwrap_or_default();
        let version = after.as_ref().map(|(_, version)| version.clone());
        let end = AuditRow {
            number,
            outcome: if answer.status().is_success() { "done" } else { "refused" }.to_owned(),
            status: Some(answer.status().as_u16()),
            after: after.map(|(value, _)| kept(value)),
            after_version: version.clone(),
            ..AuditRow::default()
        };
        if let Err(error) = self.admin.operations.end_audit(end).await {
            tracing::error!(%error, number, "what became of a change is not in the audit");
        }
        let mut answer = answer;
        if let Some(version) = version.and_then(|version| HeaderValue::from_str(&version).ok()) {
            answer.headers_mut().insert(header::ETAG, version);
        }
        Ok(answer)
    }

    /// What was asked, as the audit may keep it: body and query.
    fn asked(&self, head: &HeaderMap, uri: &Uri, body: &Bytes) -> Result<Option<Value>, Refusal> {
        if !body.is_empty() {
            if !forms::is_json(head) {
                return Err(Refusal::NotJson);
            }
            let asked = serde_json::from_slice(body);
            return asked.map(Some).map_err(|error| Refusal::Wrong(format!("the body is not JSON: {error}")));
        }
        let query: Map<_, _> = form_urlencoded::parse(uri.query().unwrap_or("").as_bytes())
            .map(|(key, value)| (key.into_owned(), Value::String(value.into_owned())))
            .collect();
        Ok(Some(Value::Object(query)).filter(|query| query != &Value::Object(Map::new())))
    }

    /// The path that the change is about: as many parts of the request's own as the table says.
    fn about(&self, uri: &Uri) -> String {
        let parts = self.rule.about.unwrap_or(self.rule.path).split('/').count();
        uri.path().split('/').take(parts).collect::<Vec<_>>().join("/")
    }

    /// What that answers now, as far as it counts, and its version. None: it is not there, or there is nothing to look at.
    async fn seen(&self, about: &str) -> Result<Option<(Value, String)>, Refusal> {
        let Some((look, edited)) = &self.look else { return Ok(None) };
        let broken = |error: &dyn std::fmt::Display| Refusal::Unable(format!("{about} cannot be looked at: {error}"));
        let request = Request::get(about).body(Body::empty()).map_err(|error| broken(&error))?;
        let answer = match look.clone().oneshot(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        };
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(broken(&status)),
        }
        let body = to_bytes(answer.into_body(), ANSWER_BYTES_MAX).await.map_err(|error| broken(&error))?;
        let whole: Value = serde_json::from_slice(&body).map_err(|error| broken(&error))?;
        let value = edited_of(&whole, edited);
        let version = version_of(&value);
        Ok(Some((value, version)))
    }

    /// The answer to one who saw another version, or did not say which.
    async fn check_version(
        &self,
        operator: &Operator,
        head: &HeaderMap,
        about: &str,
        version: &str,
    ) -> Result<Option<Response>, Refusal> {
        let mut shown = head.get_all(header::IF_MATCH).iter().peekable();
        if shown.peek().is_none() {
            if !operator.is_remote() {
                return Ok(None);
            }
            let error =
                format!("say with If-Match which version of {about} you have seen: its ETag, or * for whichever there is");
            return Ok(Some((StatusCode::PRECONDITION_REQUIRED, Json(Trouble::of(error))).into_response()));
        }
        let shown: Vec<&str> =
            shown.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim).collect();
        if shown.iter().any(|shown| *shown == "*" || *shown == version) {
            return Ok(None);
        }
        let since = self.admin.operations.audit_since(about, &shown).await?;
        let says: Vec<_> = since.iter().map(AuditRow::says).collect();
        let says = if says.is_empty() {
            "by nobody in the audit: the daemon itself, or the settings".to_owned()
        } else {
            says.join("; ")
        };
        let error = format!("{about} is not as you saw it; nothing was done. Changed since: {says}. Look again, then decide");
        let trouble = Trouble { error, since };
        let mut stale = (StatusCode::PRECONDITION_FAILED, Json(trouble)).into_response();
        if let Ok(version) = HeaderValue::from_str(version) {
            stale.headers_mut().insert(header::ETAG, version);
        }
        Ok(Some(stale))
    }
}

async fn with_version(answer: Response, edited: &[&str]) -> Response {
    if answer.status() != StatusCode::OK {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let Ok(body) = to_bytes(body, ANSWER_BYTES_MAX).await else {
        return Refusal::Unable("the answer is longer than any may be".to_owned()).into_response();
    };
    let version = serde_json::from_slice::<Value>(&body).ok().map(|whole| version_of(&edited_of(&whole, edited)));
    if let Some(version) = version.and_then(|version| HeaderValue::from_str(&version).ok()) {
        parts.headers.insert(header::ETAG, version);
    }
    Response::from_parts(parts, Body::from(body))
}

/// The fields that an operator edits, by their pointers (RFC 6901); `""` is all.
fn edited_of(whole: &Value, edited: &[&str]) -> Value {
    if edited == [""] {
        return whole.clone();
    }
    let fields = edited.iter().filter_map(|at| Some((at.trim_start_matches('/').to_owned(), whole.pointer(at)?.clone())));
    Value::Object(fields.collect())
}

/// Objects are sorted by key, so that the same fields are the same octets.
fn version_of(edited: &Value) -> String {
    let hash = digest::digest(&digest::SHA256, edited.to_string().as_bytes());
    format!("\"{}\"", data_encoding::HEXLOWER.encode(&hash.as_ref()[..12]))
}

fn by(operator: &Operator, peer: Option<&Peer>) -> String {
    let from = match peer {
        Some(Peer::Remote { address }) => format!(" from {}", address.ip()),
        _ => String::new(),
    };
    match operator.by {
        By::Socket { .. } => "socket".to_owned(),
        By::Token(id) => format!("token {id}{from}"),
        By::Login(id) => format!("login with token {id}{from}"),
    }
}

fn why(asked: &Value) -> Option<String> {
    ["why", "reason"].iter().find_map(|name| cut(asked.get(name)?.as_str()?))
}

/// For what has no body to say it in.
fn why_of_head(head: &HeaderMap) -> Option<String> {
    cut(&String::from_utf8_lossy(head.get("x-why")?.as_bytes()))
}

fn cut(why: &str) -> Option<String> {
    let why = why.trim().replace(char::is_control, " ");
    Some(why[..why.floor_char_boundary(WHY_BYTES_MAX)].to_owned()).filter(|why| !why.is_empty())
}

/// Without what nobody may read later.
fn without(mut asked: Value, secret: &[&str]) -> Value {
    for name in secret {
        if let Some(value) = asked.get_mut(name) {
            *value = Value::String("(secret)".to_owned());
        }
    }
    asked
}

fn kept(value: Value) -> Value {
    let octets = value.to_string().len();
    if octets <= KEPT_BYTES_MAX { value } else { serde_json::json!({ "too_long_bytes": octets }) }
}

/// Changes, one at a time.
pub(super) type OneAtATime = Arc<tokio::sync::Mutex<()>>;
