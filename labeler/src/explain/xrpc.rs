//! The methods and pages over HTTP.

use std::net::IpAddr;
use std::sync::Arc;

use atproto::Did;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde_json::json;

use super::{ATTESTERS_MAX, Explainer, Refusal, Request, page};
use crate::serve::Asker;

/// Nothing but text and its style.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Who asks, as the front has found out.
type Client = Option<Extension<Asker>>;

fn address(client: &Client) -> Option<IpAddr> {
    client.as_ref().map(|Extension(asker)| asker.0)
}

/// What is served beside the labels.
pub(crate) fn router(explainer: Arc<Explainer>) -> Router {
    Router::new()
        .route("/xrpc/coop.tradewind.getStatus", get(get_status))
        .route("/xrpc/coop.tradewind.checkDomain", get(check_domain))
        .route("/status", get(status_form))
        .route("/status/{subject}", get(status_page))
        .with_state(explainer)
}

/// The parameters by name.
struct Query(Vec<(String, String)>);

impl Query {
    fn read(query: Option<String>) -> Self {
        Self(url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    fn one(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }

    fn did(&self) -> Result<Option<Did>, String> {
        let parse = |text: &str| text.parse().map_err(|_| "did is not a DID".to_owned());
        self.one("did").map(parse).transpose()
    }

    fn request(&self) -> Result<Request, String> {
        let domain = self.one("domain").ok_or("domain is required")?.to_owned();
        let lists = self.0.iter().filter(|(name, _)| matches!(name.as_str(), "selectors" | "selectors[]"));
        // A form has one field for all of them.
        let selectors = lists.flat_map(|(_, value)| value.split([',', ' ']).map(str::to_owned)).filter(|it| !it.is_empty());
        let relay = match self.one("relay") {
            None | Some("false") => false,
            Some("true" | "on") => true,
            Some(_) => return Err("relay is true or false".into()),
        };
        Ok(Request { domain, did: self.did()?, selectors: selectors.collect(), relay })
    }
}

async fn get_status(State(explainer): State<Arc<Explainer>>, RawQuery(query): RawQuery) -> Response {
    let did = match Query::read(query).did() {
        Ok(Some(did)) => did,
        Ok(None) => return refused(&Refusal::Invalid("did is required".into())),
        Err(why) => return refused(&Refusal::Invalid(why)),
    };
    match explainer.status(&did) {
        Ok(status) => Json(status).into_response(),
        Err(error) => refused(&Refusal::Store(error)),
    }
}

async fn check_domain(State(explainer): State<Arc<Explainer>>, client: Client, RawQuery(query): RawQuery) -> Response {
    let request = match Query::read(query).request() {
        Ok(request) => request,
        Err(why) => return refused(&Refusal::Invalid(why)),
    };
    match explainer.check(request, address(&client)).await {
        Ok(run) => Json(run).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let (status, name) = match refusal {
        Refusal::Invalid(_) => (StatusCode::BAD_REQUEST, "InvalidRequest"),
        Refusal::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "RateLimitExceeded"),
        Refusal::Store(error) => {
            tracing::error!(%error, "cannot explain");
            (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError")
        }
    };
    let mut response = (status, Json(json!({ "error": name, "message": refusal.to_string() }))).into_response();
    if let Refusal::TooMany(wait) = refusal {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    response
}

/// The form, or what its fields ask for.
async fn status_form(State(explainer): State<Arc<Explainer>>, client: Client, RawQuery(query): RawQuery) -> Response {
    let query = Query::read(query);
    if let Some(subject) = query.one("subject") {
        let subject: String = url::form_urlencoded::byte_serialize(subject.as_bytes()).collect();
        return Redirect::to(&format!("/status/{subject}")).into_response();
    }
    if query.one("domain").is_none() {
        return html(StatusCode::OK, page::form());
    }
    match query.request() {
        Ok(request) => dry_run(&explainer, request, &client).await,
        Err(why) => html(StatusCode::BAD_REQUEST, page::trouble(&why)),
    }
}

/// Of a DID, or of a domain: by who attests it, and by a dry run where nobody does.
async fn status_page(State(explainer): State<Arc<Explainer>>, client: Client, Path(subject): Path<String>) -> Response {
    let failed = |error: crate::store::StoreError| {
        tracing::error!(%error, "cannot explain");
        html(StatusCode::INTERNAL_SERVER_ERROR, page::trouble("The store cannot be read just now."))
    };
    if let Ok(did) = subject.parse::<Did>() {
        return match explainer.status(&did) {
            Ok(status) => html(StatusCode::OK, page::account(&status)),
            Err(error) => failed(error),
        };
    }
    let Some(domain) = atproto::lexicon::canonical_domain(&subject) else {
        return html(StatusCode::BAD_REQUEST, page::trouble("This is neither a DID nor a domain."));
    };
    let statuses = explainer.store.attesters(&domain, ATTESTERS_MAX).and_then(|dids| {
        let statuses = dids.iter().map(|did| explainer.status(did));
        statuses.collect::<Result<Vec<_>, _>>()
    });
    match statuses {
        Err(error) => failed(error),
        Ok(statuses) if !statuses.is_empty() => html(StatusCode::OK, page::domain(&domain, &statuses)),
        Ok(_) => dry_run(&explainer, Request { domain, did: None, selectors: Vec::new(), relay: false }, &client).await,
    }
}

async fn dry_run(explainer: &Explainer, request: Request, client: &Client) -> Response {
    match explainer.check(request, address(client)).await {
        Ok(run) => html(StatusCode::OK, page::dry_run(&run)),
        Err(refusal @ Refusal::Invalid(_)) => html(StatusCode::BAD_REQUEST, page::trouble(&refusal.to_string())),
        Err(refusal @ Refusal::TooMany(_)) => html(StatusCode::TOO_MANY_REQUESTS, page::trouble(&refusal.to_string())),
        Err(Refusal::Store(error)) => {
            tracing::error!(%error, "cannot explain");
            html(StatusCode::INTERNAL_SERVER_ERROR, page::trouble("The store cannot be read just now."))
        }
    }
}

fn html(status: StatusCode, page: String) -> Response {
    let mut response = (status, Html(page)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
