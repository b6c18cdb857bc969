//! Parsers of this crate that nobody else needs, for fuzz targets: a text in, what was understood of it out.

use std::fmt::Debug;

/// A message of a Jetstream of version 1 or 2.
pub fn jetstream(version: u8, text: &str) -> Result<String, String> {
    let seen = if version == 1 { crate::ingest::jetstream::read_v1(text) } else { crate::ingest::jetstream::read_v2(text) };
    said(seen)
}

/// The parameters of `queryLabels`: how many patterns, and the limit.
pub fn query_labels(text: &str) -> Result<(usize, usize), String> {
    crate::serve::query::Query::read(text).map(|query| (query.patterns.len(), query.limit))
}

fn said(result: Result<impl Debug, impl ToString>) -> Result<String, String> {
    result.map(|seen| format!("{seen:?}")).map_err(|error| error.to_string())
}
