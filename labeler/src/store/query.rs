//! `queryLabels` over the store: the newest label of each subject and value, in the order of their names.
//!
//! One row a key, as Ozone gives it: a row that is issued again while somebody pages keeps its place.

use std::ops::Bound;

use atproto::label::Label;

use super::{Store, StoreError, current_key};

const KEY_BYTES_MAX: usize = 511;

/// Subjects that are asked for: one, or all that begin like this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<u8>);

/// A page of labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The labels.
    pub labels: Vec<Label>,
    /// Where to go on; absent at the end.
    pub cursor: Option<String>,
}

impl Pattern {
    /// `com.atproto.label.queryLabels`: an exact subject, or a prefix with `*` at its end and nowhere else.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.strip_suffix('*') {
            Some(prefix) if !prefix.contains('*') => Ok(Self(prefix.as_bytes().to_vec())),
            None if !text.contains('*') && !text.is_empty() => Ok(Self(current_key(text, ""))),
            _ => {
                Err(format!("{:?} is not a subject or a prefix with `*` at its end", text.chars().take(100).collect::<String>()))
            }
        }
    }
}

impl Store {
    /// Labels about these subjects after `cursor`, at most `limit`.
    pub fn query(&self, patterns: &[Pattern], cursor: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let mut prefixes: Vec<&[u8]> = patterns.iter().map(|pattern| pattern.0.as_slice()).collect();
        prefixes.sort_unstable();
        // In order, what a prefix covers comes right after it: each subject is visited once.
        prefixes.dedup_by(|next, before| next.starts_with(before));
        // LMDB refuses keys that it could not hold; nothing is behind them.
        prefixes.retain(|prefix| prefix.len() <= KEY_BYTES_MAX);
        let after = cursor.and_then(|cursor| cursor.rsplit_once(' ')).map(|(subject, val)| current_key(subject, val));
        let after = after.filter(|after| after.len() <= KEY_BYTES_MAX);
        let txn = self.env.read_txn()?;
        let mut page = Page { labels: Vec::new(), cursor: None };
        for prefix in prefixes {
            let start = match &after {
                Some(after) if after.as_slice() >= prefix => Bound::Excluded(after.as_slice()),
                _ if prefix.is_empty() => Bound::Unbounded,
                _ => Bound::Included(prefix),
            };
            let range: (Bound<&[u8]>, Bound<&[u8]>) = (start, Bound::Unbounded);
            for entry in self.current.range(&txn, &range)? {
                let (key, seq) = entry?;
                if !key.starts_with(prefix) {
                    break;
                }
                if page.labels.len() == limit {
                    page.cursor = page.labels.last().map(|label| format!("{} {}", label.uri, label.val));
                    return Ok(page);
                }
                page.labels.push(self.label(&txn, seq)?);
            }
        }
        Ok(page)
    }
}
