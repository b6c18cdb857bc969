//! What is said about plans of warmup.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A plan, and who follows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanRow {
    /// Its name.
    pub name: String,
    /// `shipped`, the file that it stands in, or `kept`: by operators, through the API, which goes before all others.
    pub from: String,
    /// What may be accepted in a day, stage by stage.
    pub stages: Vec<u64>,
    /// Source and provider of each climb by it.
    pub followers: Vec<Follower>,
}

/// Who follows a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Follower {
    /// The source.
    pub source: String,
    /// With whom.
    pub provider: String,
}

/// One plan, with its text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanShown {
    /// What it is.
    #[serde(flatten)]
    pub row: PlanRow,
    /// As TOML: one table `[[plan]]`.
    pub text: String,
    /// What the settings say of this name, when operators keep another one. None: nothing, or it is theirs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub settings: Option<String>,
    /// What undo would put back: a text, or an empty one for what the settings say. None: there is nothing to undo.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<String>,
}

/// A plan's text, to look at or to apply.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanWish {
    /// One table `[[plan]]` as TOML; its `name` is that of the path.
    pub text: String,
    /// Why, for the record. Needed to apply it.
    #[serde(default)]
    pub why: String,
}

/// What would come of a plan, beside the one that holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Simulated {
    /// What was tried out, in words.
    pub says: String,
    /// Plan and fact by day, as SVG.
    pub drawing: String,
    /// The plan that holds, if another one does, and the text.
    pub sides: Vec<Side>,
}

/// One plan of them. Numbers are messages, over all days.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Side {
    /// The plan.
    pub plan: String,
    /// What receivers accepted.
    pub accepted: u64,
    /// Tries that were deferred.
    pub deferred: u64,
    /// Tries that were refused for good.
    pub refused: u64,
    /// In the queue when the last day ended.
    pub waiting: u64,
    /// The first day on which every source is warm everywhere.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finished: Option<u32>,
    /// What the volume means for the plan, one sentence each.
    pub outlook: Vec<String>,
}

/// Why something is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// For the record. Needed.
    pub why: String,
}

/// Whether a text is a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanChecked {
    /// Whether it could be applied.
    pub ok: bool,
    /// What is wrong with it.
    pub problems: Vec<PlanProblem>,
    /// What it says, if it says something.
    pub stages: Vec<u64>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanProblem {
    /// Counted from 1; none: the text as a whole.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<usize>,
    /// With its table, as `plan.stages`; may be empty.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}
