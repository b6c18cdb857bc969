//! What is said about warmup; part of [`api`](super::api).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::api::Refusal;

/// Days that one climb is shown with, at most; the ledger keeps as many.
pub const DAYS_MAX: usize = 400;

/// Where all climbs stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WarmupPage {
    /// When this was true.
    pub asked_at: String,
    /// By source and provider.
    pub climbs: Vec<ClimbRow>,
    /// What needs a person, one sentence each.
    pub attention: Vec<String>,
    /// What the mail of the last days leads to, one sentence each.
    #[serde(default)]
    pub outlook: Vec<String>,
}

/// Where one source stands with one provider. Everything counts recipients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClimbRow {
    /// The source.
    pub source: String,
    /// The provider.
    pub provider: String,
    /// The plan.
    pub plan: String,
    /// planned, warming, holding, regressed, paused, warm or cooling.
    pub state: String,
    /// The stage, from 1.
    pub stage: u32,
    /// How many there are.
    pub stages: u32,
    /// The stage that the plan would be on today if every day had been used and none gone wrong; one more than there are: warm.
    pub planned_stage: u32,
    /// The first day.
    pub began: String,
    /// Today, in the plan's zone.
    pub day: String,
    /// When it ends.
    pub day_ends: String,
    /// What may be accepted today. None: as much as shaping lets through.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub allowance: Option<u64>,
    /// Under way.
    pub reserved: u64,
    /// How the hours of today go. None: there is no allowance, or all of it may go at once.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pacing: Option<PacingRow>,
    /// What today has brought.
    #[serde(flatten)]
    pub figures: FiguresRow,
    /// An operator's word on the allowance.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pinned: Option<u64>,
    /// Days in a row without an accepted recipient.
    pub idle_days: u32,
}

/// How the hours of a climb's day go. What an hour leaves is not added to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PacingRow {
    /// What may go in the hour that runs.
    pub hourly: u64,
    /// Accepted in it, or under way.
    pub used: u64,
    /// When it ends.
    pub hour_ends: String,
    /// What may have gone at most by then, of the whole day.
    pub by_now: u64,
}

/// What a day has brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FiguresRow {
    /// Accepted within the allowance.
    pub spent: u64,
    /// One-time codes accepted beyond it.
    pub over: u64,
    /// Tried.
    pub tried: u64,
    /// Deferred because of reputation or rate.
    pub deferred: u64,
    /// Refused by policy or because of reputation.
    pub refused: u64,
    /// Unknown or disabled mailboxes.
    pub unknown: u64,
    /// Accepted while there was no allowance, because it was warm.
    pub free: u64,
    /// Complaints that were heard of.
    pub complained: u64,
}

/// One climb with its days and its story.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClimbShown {
    /// Where it stands.
    pub climb: ClimbRow,
    /// The allowances of its plan, stage by stage.
    pub stages: Vec<u64>,
    /// Plan against fact, the last day last.
    pub days: Vec<ClimbDay>,
    /// What was decided, the newest first.
    pub steps: Vec<StepRow>,
    /// What needs a person.
    pub attention: Vec<String>,
}

/// A day of a climb.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClimbDay {
    /// The day, in the plan's zone.
    pub day: String,
    /// What the plan would have allowed had every day before been used. None: it would be through.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub planned: Option<u64>,
    /// What was allowed, where a decision tells. None: nothing was decided about that day, or there was no limit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub allowed: Option<u64>,
    /// Accepted within the allowance.
    pub spent: u64,
    /// The rule of the decision at its end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
}

/// Something that was decided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepRow {
    /// When.
    pub at: String,
    /// The source.
    pub source: String,
    /// The provider.
    pub provider: String,
    /// start, advance, finish, utilisation, deferred, refused, unknown, complained, code, cool, idle, operator or over.
    pub rule: String,
    /// The figures, what was asked, and what follows.
    pub reason: String,
    /// Who wanted it, and why. None: the daemon itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub by: Option<String>,
    /// The day that it was decided about, in the plan's zone.
    pub day: String,
    /// The state until then.
    pub state_before: String,
    /// The stage until then, from 1.
    pub stage_before: u32,
    /// The state from then on.
    pub state: String,
    /// The stage from then on.
    pub stage: u32,
    /// What could be accepted that day. None: as much as shaping lets through.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub allowance: Option<u64>,
    /// What that day had brought.
    #[serde(flatten)]
    pub figures: FiguresRow,
}

/// Which steps to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepFilter {
    /// Only of this source.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<String>,
    /// Only with this provider.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider: Option<String>,
    /// The newest ones, at most so many, and at most [`PAGE_MAX`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<usize>,
}

/// How much of a climb to show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClimbFilter {
    /// Days, at most [`DAYS_MAX`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub days: Option<usize>,
}

/// What is wanted of a climb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClimbVerb {
    /// A stage.
    Set,
    /// An allowance that holds until it is taken back.
    Pin,
    /// Takes that back.
    Unpin,
    /// Nothing more is sent.
    Pause,
    /// It goes on where it was.
    Resume,
    /// The next stage.
    Skip,
    /// Stages back.
    Rewind,
    /// Complaints were heard of.
    Complaints,
}

impl std::str::FromStr for ClimbVerb {
    type Err = Refusal;

    fn from_str(word: &str) -> Result<Self, Refusal> {
        Ok(match word {
            "set" => ClimbVerb::Set,
            "pin" => ClimbVerb::Pin,
            "unpin" => ClimbVerb::Unpin,
            "pause" => ClimbVerb::Pause,
            "resume" => ClimbVerb::Resume,
            "skip" => ClimbVerb::Skip,
            "rewind" => ClimbVerb::Rewind,
            "complaints" => ClimbVerb::Complaints,
            _ => {
                let says = format!(
                    "{word:?} cannot be done to a climb; there are: set, pin, unpin, pause, resume, skip, rewind, complaints"
                );
                return Err(Refusal::Unknown(says));
            }
        })
    }
}

/// The particulars of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WarmupWish {
    /// Why, for the record. Needed.
    pub why: String,
    /// Set: the stage, from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stage: Option<u32>,
    /// Pin: recipients that may be accepted in a day. Complaints: recipients who complained.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recipients: Option<u64>,
    /// Rewind: so many stages. None: one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stages: Option<u32>,
}
