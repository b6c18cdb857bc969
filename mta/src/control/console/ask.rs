//! The pages' way to the admin API: the same router that others reach by HTTP, asked without a socket, so that roles, comparison
//! of versions and the audit log are the same for a form as for the operator's command.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode, header},
};
use serde::{Serialize, de::DeserializeOwned};
use tower::ServiceExt;

use crate::control::{
    admin::Operator,
    api::{AuditRow, Trouble},
    http::Peer,
};

/// Octets of an answer: a page of a thousand rows has a few hundred thousand.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Why something was not done or not found, as the API said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) says: String,
    /// What others have changed meanwhile.
    pub(super) since: Vec<AuditRow>,
}

impl Refused {
    /// Something is wrong with what was filled in.
    pub(super) fn wrong(says: impl Into<String>) -> Refused {
        Refused { status: StatusCode::BAD_REQUEST, says: says.into(), since: Vec::new() }
    }

    fn ours(says: impl std::fmt::Display) -> Refused {
        let says = format!("the daemon's own answer cannot be used: {says}");
        Refused { status: StatusCode::INTERNAL_SERVER_ERROR, says, since: Vec::new() }
    }
}

/// An answer, and the version of what it shows, for whoever wants to change it.
pub(super) struct Found<T> {
    pub(super) it: T,
    pub(super) etag: Option<String>,
}

/// What a change must say beside what it is.
#[derive(Default)]
pub(super) struct Change<'a> {
    /// Only if this is what is there: the version that its page showed.
    pub(super) version: Option<&'a str>,
    /// For the record, where the body has no place for it.
    pub(super) why: Option<&'a str>,
}

/// Asks on behalf of an operator.
pub(super) struct Api {
    pub(super) router: Router,
    pub(super) operator: Operator,
    pub(super) peer: Option<Peer>,
}

impl Api {
    /// `GET`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refused> {
        self.find(path).await.map(|found| found.it)
    }

    /// `GET`, with the version.
    pub(super) async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Found<T>, Refused> {
        self.exchange(Request::get(path), Body::empty()).await
    }

    /// `POST`.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
        change: Change<'_>,
    ) -> Result<T, Refused> {
        self.send(Method::POST, path, body, change).await
    }

    /// Another method that changes something.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
        change: Change<'_>,
    ) -> Result<T, Refused> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(version) = change.version {
            request = request.header(header::IF_MATCH, version);
        }
        if let Some(why) = change.why {
            request = request.header("x-why", why);
        }
        let body = match body {
            None => Body::empty(),
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(serde_json::to_vec(body).map_err(Refused::ours)?)
            }
        };
        self.exchange(request, body).await.map(|found| found.it)
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        request: axum::http::request::Builder,
        body: Body,
    ) -> Result<Found<T>, Refused> {
        let request = match self.peer {
            Some(peer) => request.extension(peer),
            None => request,
        };
        let request = request.extension(self.operator.clone()).body(body);
        let request = request.map_err(|_| Refused::wrong("that is nothing that can be asked for"))?;
        let Ok(response) = self.router.clone().oneshot(request).await;
        let status = response.status();
        let etag = response.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        let octets = to_bytes(response.into_body(), ANSWER_BYTES_MAX).await.map_err(Refused::ours)?;
        if !status.is_success() {
            let trouble = serde_json::from_slice::<Trouble>(&octets).map_err(Refused::ours)?;
            return Err(Refused { status, says: trouble.error, since: trouble.since });
        }
        let octets = if octets.is_empty() { &b"null"[..] } else { &octets };
        Ok(Found { it: serde_json::from_slice(octets).map_err(Refused::ours)?, etag })
    }
}

/// A path with a query of what was given.
pub(super) fn with_query(path: &str, pairs: &[(&str, Option<&str>)]) -> String {
    let mut out = path.to_owned();
    let given = pairs.iter().filter_map(|(name, value)| value.map(|value| (name, value)));
    for (at, (name, value)) in given.enumerate() {
        out.push(if at == 0 { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        out.push_str(&super::parts::segment(value));
    }
    out
}
