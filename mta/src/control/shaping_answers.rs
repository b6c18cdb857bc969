//! What is said about the shaping that operators keep; part of [`api`](super::api).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{answers::ShapingRow, plan_answers::PlanProblem};

/// The shaping that operators keep through the API: a file like those of `[shaping]`, which goes before all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShapingText {
    /// As TOML: tables `[[shape]]`. Empty: nothing is kept.
    pub text: String,
    /// What undo would put back; may be empty. None: there is nothing to undo.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<String>,
    /// The file in which it lies.
    pub file: String,
}

/// A text of shaping, to look at or to keep.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShapingWish {
    /// All of it, in place of what is kept.
    pub text: String,
    /// Why, for the record. Needed to apply it.
    #[serde(default)]
    pub why: String,
}

/// Whether a text can be kept, and what would be other then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShapingChecked {
    /// It can.
    pub ok: bool,
    /// Why not.
    pub problems: Vec<PlanProblem>,
    /// Values that would be other.
    pub changes: Vec<ShapingChange>,
}

/// A value that would be other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShapingChange {
    /// Of what, as in a [`ShapingRow`].
    pub of: String,
    /// The setting.
    pub key: String,
    /// What holds now. None: nothing is said of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<String>,
    /// What would hold. None: nothing would be said of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<String>,
}

/// What of `after` is not so `before`. Both are sorted.
pub(super) fn changes(before: &[ShapingRow], after: &[ShapingRow]) -> Vec<ShapingChange> {
    let find = |rows: &[ShapingRow], wanted: &ShapingRow| -> Option<String> {
        let found = rows.binary_search_by(|row| (&row.of, &row.key).cmp(&(&wanted.of, &wanted.key)));
        found.ok().and_then(|nth| rows.get(nth)).map(|row| row.value.clone())
    };
    let change = |row: &ShapingRow| {
        let (before, after) = (find(before, row), find(after, row));
        (before != after).then(|| ShapingChange { of: row.of.clone(), key: row.key.clone(), before, after })
    };
    let gone = before.iter().filter(|row| find(after, row).is_none());
    let mut all: Vec<_> = after.iter().chain(gone).filter_map(change).collect();
    all.sort_by(|one, other| (&one.of, &one.key).cmp(&(&other.of, &other.key)));
    all
}
