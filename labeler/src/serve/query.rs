//! `com.atproto.label.queryLabels`: parameters in, a page of the store out.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{Answers, error};
use crate::store::{Cursor, Pattern};

/// `limit`: least, default and most (its lexicon).
const LIMITS: (usize, usize, usize) = (1, 50, 250);
/// A URL holds no more subjects of the usual length than about this.
const PATTERNS_MAX: usize = 1000;

pub(super) async fn query_labels(State(answers): State<Arc<Answers>>, RawQuery(query): RawQuery) -> Response {
    let query = match Query::read(query.as_deref().unwrap_or_default()) {
        Ok(query) => query,
        Err(why) => return error(StatusCode::BAD_REQUEST, "InvalidRequest", &why),
    };
    if !query.sources.is_empty() && !query.sources.contains(&answers.did) {
        return json(b"{\"labels\":[]}".to_vec());
    }
    match answers.store.query(&query.patterns, query.cursor.as_ref(), query.limit) {
        Ok(page) => json(page),
        Err(why) => {
            tracing::error!(error = %why, "cannot answer queryLabels");
            error(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "the store cannot be read")
        }
    }
}

fn json(octets: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], octets).into_response()
}

/// The parameters. Lists repeat their name, which axum's own reader does not know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) patterns: Vec<Pattern>,
    sources: Vec<String>,
    pub(crate) limit: usize,
    cursor: Option<Cursor>,
}

impl Query {
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut query = Self { patterns: Vec::new(), sources: Vec::new(), limit: LIMITS.1, cursor: None };
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "uriPatterns" | "uriPatterns[]" => query.patterns.push(Pattern::parse(&value)?),
                "sources" | "sources[]" => query.sources.push(value.into_owned()),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (LIMITS.0..=LIMITS.2).contains(limit));
                    query.limit = limit.ok_or_else(|| format!("limit is {} to {}", LIMITS.0, LIMITS.2))?;
                }
                "cursor" if !value.is_empty() => query.cursor = Some(Cursor::parse(&value)?),
                _ => {}
            }
        }
        match query.patterns.len() {
            0 => Err("uriPatterns is required".into()),
            1..=PATTERNS_MAX => Ok(query),
            _ => Err(format!("at most {PATTERNS_MAX} uriPatterns")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_the_lexicon_says() {
        let query =
            Query::read("uriPatterns=did%3Aplc%3Aa&uriPatterns=did:plc:b*&sources=did:web:x&limit=250&cursor=did:plc:a+b&odd=1")
                .unwrap();
        let cursor = Some(Cursor::parse("did:plc:a b").unwrap());
        assert_eq!((query.patterns.len(), query.sources.len(), query.limit, query.cursor), (2, 1, 250, cursor));
        assert_eq!(Query::read("uriPatterns=*&cursor=").unwrap().limit, 50);
        for wrong in [
            "",
            "limit=5",
            "uriPatterns=a*b",
            "uriPatterns=*&limit=0",
            "uriPatterns=*&limit=251",
            "uriPatterns=*&limit=x",
            "uriPatterns=*&cursor=7",
            &"uriPatterns=a&".repeat(1001),
        ] {
            assert!(Query::read(wrong).is_err(), "{wrong:.40}");
        }
    }
}
