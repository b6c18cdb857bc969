//! `queryLabels` over the store: the newest label of each subject and value, in the order of their names.
//!
//! One row a key, as Ozone gives it: a row that is issued again while somebody pages keeps its place. `current` says how
//! a row becomes the JSON that is answered.

use std::ops::Bound;

use super::{Store, StoreError, current, current_key};

pub(super) const KEY_BYTES_MAX: usize = 511;

/// Subjects that are asked for: one, or all that begin like this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<u8>);

/// Where a page went on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(Vec<u8>);

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

impl Cursor {
    /// One that an answer of ours had: the subject and the value of its last label.
    pub fn parse(text: &str) -> Result<Self, String> {
        let key = text.rsplit_once(' ').map(|(subject, val)| current_key(subject, val));
        let key = key.filter(|key| key.len() <= KEY_BYTES_MAX);
        key.map(Self).ok_or_else(|| "the cursor is not one that this labeler gave".into())
    }
}

impl Store {
    /// The JSON of `queryLabels`: labels about these subjects after `cursor`, at most `limit`, and a cursor if there are more.
    pub fn query(&self, patterns: &[Pattern], cursor: Option<&Cursor>, limit: usize) -> Result<Vec<u8>, StoreError> {
        let mut prefixes: Vec<&[u8]> = patterns.iter().map(|pattern| pattern.0.as_slice()).collect();
        prefixes.sort_unstable();
        // In order, what a prefix covers comes right after it: each subject is visited once.
        prefixes.dedup_by(|next, before| next.starts_with(before));
        // LMDB refuses keys that it could not hold; nothing is behind them.
        prefixes.retain(|prefix| prefix.len() <= KEY_BYTES_MAX);
        let after = cursor.map(|cursor| cursor.0.as_slice());
        let txn = self.env.read_txn()?;
        let mut json = b"{\"labels\":[".to_vec();
        let (mut count, mut last) = (0, &b""[..]);
        for prefix in prefixes {
            let start = match after {
                Some(after) if after >= prefix => Bound::Excluded(after),
                _ if prefix.is_empty() => Bound::Unbounded,
                _ => Bound::Included(prefix),
            };
            let range: (Bound<&[u8]>, Bound<&[u8]>) = (start, Bound::Unbounded);
            for entry in self.current.range(&txn, &range)? {
                let (key, row) = entry?;
                if !key.starts_with(prefix) {
                    break;
                }
                if count == limit {
                    json.extend_from_slice(b"],\"cursor\":");
                    json.extend_from_slice(cursor_text(last).as_bytes());
                    json.push(b'}');
                    return Ok(json);
                }
                if count > 0 {
                    json.push(b',');
                }
                current::write_json(&mut json, row, self.issuer.as_str(), key)?;
                (count, last) = (count + 1, key);
            }
        }
        json.extend_from_slice(b"]}");
        Ok(json)
    }
}

/// As a string of JSON.
fn cursor_text(key: &[u8]) -> String {
    serde_json::Value::from(String::from_utf8_lossy(key).replacen('\0', " ", 1)).to_string()
}
