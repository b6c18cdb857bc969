//! Automatic actions, as the operator lists, ends and extends them, and how sources stand.
//!
//! The scheduler does what is wanted at once, and what it did is written down a moment later; the answer waits for that, so that
//! what was said to be done is still done after a crash.

use std::time::Duration;

use scheduler::{Measure, Object, QueueId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    answers::{EventRow, STORY_MAX},
    api::{PAGE_MAX, Refusal},
    daemon::Daemon,
    explain::event_row,
    views::{blocking, time, unable},
};

/// How long an answer waits for what was done to be written down, and between two looks at that.
const WRITTEN_WAIT: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Which actions to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionFilter {
    /// Only those of this kind.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kind: Option<String>,
    /// Those after this number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<u64>,
    /// At most so many, and at most [`PAGE_MAX`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<usize>,
}

/// Some actions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ActionPage {
    /// By number.
    pub actions: Vec<ActionRow>,
    /// Whether there are more: give the last number as `after`.
    pub more: bool,
}

/// An action that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ActionRow {
    /// Its number.
    pub id: u64,
    /// leave_site, pause_site, narrow, pause_provider, pause_source, degrade_source, other_source or hold_member.
    pub kind: String,
    /// What it does and to whom, in words.
    pub says: String,
    /// The site that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub site: Option<String>,
    /// The provider that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider: Option<String>,
    /// The source that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<String>,
    /// The DID of the member that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub member: Option<String>,
    /// The queue id of the message that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// The class of the reply that led to it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub class: Option<String>,
    /// The rule that asked for it; `suspend` for the built-in one, `watch` for news from outside.
    pub rule: String,
    /// The reply, verbatim, or our own words.
    pub cause: String,
    /// Since when.
    pub started_at: String,
    /// Until when. A site that is left alone is then visited by one delivery, and the action ends when that finds it well.
    pub expires_at: String,
    /// How often the cause came again.
    pub again: u32,
    /// narrow: the widest that the window may be.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub window: Option<u16>,
    /// The command that ends it.
    pub cancel: String,
}

/// One action, running or not, and what is kept of its story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ActionShown {
    /// None: it does not run any more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub action: Option<ActionRow>,
    /// What happened to it.
    pub events: Vec<EventRow>,
}

/// What is wanted of an action.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionWish {
    /// Why, for the record. Needed.
    pub why: String,
    /// Extend: how much longer, as "1h", from its end or from now, whichever is later.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none", default)]
    pub lasts: Option<String>,
}

/// How a source stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceHealthRow {
    /// Its name.
    pub source: String,
    /// With this provider. None: as a whole.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider: Option<String>,
    /// healthy, degraded or paused.
    pub health: String,
    /// The actions that make it so.
    pub actions: Vec<u64>,
}

impl Daemon {
    /// Actions that run.
    pub(super) async fn list_actions(&self, filter: ActionFilter) -> Result<ActionPage, Refusal> {
        let limit = filter.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
        let found = self.parts.scheduler.measures(filter.after.unwrap_or(0), filter.kind, limit + 1).await.map_err(unable)?;
        let more = found.len() > limit;
        Ok(ActionPage { actions: found.iter().take(limit).map(|measure| self.view_action(measure)).collect(), more })
    }

    /// One of them, and its story.
    pub(super) async fn show_action(&self, id: u64) -> Result<ActionShown, Refusal> {
        let running = self.parts.scheduler.measure(id).await.map_err(unable)?;
        let read = blocking(self, move |daemon| daemon.parts.reader.story(QueueId(id), STORY_MAX));
        let story = read.await?.map_err(unable)?;
        if running.is_none() && story.is_empty() {
            return Err(unknown(id));
        }
        let directory = self.directory.load_full();
        let events = story.iter().map(|(number, event)| event_row(&directory, *number, event)).collect();
        Ok(ActionShown { action: running.map(|measure| self.view_action(&measure)), events })
    }

    /// Ends one. Answers it as it was.
    pub(super) async fn cancel_action(&self, id: u64, wish: ActionWish, by: &str) -> Result<ActionRow, Refusal> {
        if wish.lasts.is_some() {
            return Err(Refusal::Wrong("only extend takes `for`; leave it out".to_owned()));
        }
        let by = reason(&wish, by)?;
        let ended = self.parts.scheduler.cancel_measure(id, &by).await.map_err(unable)?.ok_or_else(|| unknown(id))?;
        self.wait_until_written(id, |row| row.is_none()).await?;
        tracing::info!(action = id, by, "an operator ended an automatic action");
        Ok(self.view_action(&ended))
    }

    /// Moves its end.
    pub(super) async fn extend_action(&self, id: u64, wish: ActionWish, by: &str) -> Result<ActionRow, Refusal> {
        let wrong = || Refusal::Wrong("say how much longer with `for`, as \"30m\" or \"6h\"".to_owned());
        let lasts = wish.lasts.as_deref().ok_or_else(wrong)?;
        let lasts = lasts.parse::<jiff::SignedDuration>().ok().and_then(|it| Duration::try_from(it).ok());
        let lasts = lasts.filter(|it| !it.is_zero()).ok_or_else(wrong)?;
        let by = reason(&wish, by)?;
        let moved = self.parts.scheduler.extend_measure(id, lasts, &by).await.map_err(unable)?.ok_or_else(|| unknown(id))?;
        let expires = moved.expires;
        self.wait_until_written(id, move |row| row.is_none_or(|row| row.expires >= expires)).await?;
        tracing::info!(action = id, by, "an operator moved the end of an automatic action");
        Ok(self.view_action(&moved))
    }

    /// How sources stand.
    pub(super) async fn list_source_health(&self) -> Result<Vec<SourceHealthRow>, Refusal> {
        let views = self.parts.scheduler.source_health().await.map_err(unable)?;
        let row = |view: scheduler::SourceHealthView| SourceHealthRow {
            source: view.source.to_string(),
            provider: view.provider.map(|provider| provider.to_string()),
            health: view.health.as_str().to_owned(),
            actions: view.measures,
        };
        Ok(views.into_iter().map(row).collect())
    }

    async fn wait_until_written(&self, id: u64, is_so: impl Fn(Option<Measure>) -> bool) -> Result<(), Refusal> {
        let began = self.now();
        loop {
            let row = blocking(self, move |daemon| daemon.parts.reader.action(id)).await?.map_err(unable)?;
            if is_so(row) || self.now().duration_since(began).is_ok_and(|waited| waited > WRITTEN_WAIT) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn view_action(&self, measure: &Measure) -> ActionRow {
        let directory = self.directory.load();
        let mut row = ActionRow {
            id: measure.id,
            kind: measure.kind.to_string(),
            says: String::new(),
            site: None,
            provider: None,
            source: None,
            member: None,
            message: None,
            class: measure.class.map(|class| class.to_string()),
            rule: measure.rule.to_string(),
            cause: measure.cause.to_string(),
            started_at: time(measure.started),
            expires_at: time(measure.expires),
            again: measure.again,
            window: measure.window,
            cancel: format!("tradewind actions cancel {} --why …", measure.id),
        };
        use scheduler::MeasureKind as Kind;
        row.says = match &measure.object {
            Object::Site(site) => {
                row.site = Some(site.to_string());
                format!("{site} is left alone by all sources")
            }
            Object::AtSite { source, site } => {
                (row.site, row.source) = (Some(site.to_string()), Some(source.to_string()));
                match measure.window {
                    Some(window) => format!("{source} has no more than {window} in flight to {site}"),
                    None => format!("{source} leaves {site} alone"),
                }
            }
            Object::AtProvider { source, provider } => {
                (row.provider, row.source) = (Some(provider.to_string()), Some(source.to_string()));
                format!("{source} sends nothing to {provider}")
            }
            Object::Source(source) => {
                row.source = Some(source.to_string());
                let paused = measure.kind == Kind::PauseSource;
                format!("{source} {}", if paused { "sends nothing" } else { "has a quarter of its share" })
            }
            Object::Member(member) => {
                row.member = directory.member(*member).map(|member| member.did.clone());
                format!("nothing of {} is sent", row.member.as_deref().unwrap_or("a member that is no longer one"))
            }
            Object::Delivery { id, domain, source } => {
                (row.message, row.source) = (Some(id.to_string()), Some(source.to_string()));
                format!("{id} to {domain} is tried once from another source than {source}")
            }
        };
        row
    }
}

fn reason(wish: &ActionWish, by: &str) -> Result<String, Refusal> {
    match wish.why.trim() {
        "" => Err(Refusal::Wrong("say why, for whoever reads the events next year".to_owned())),
        why => Ok(format!("{by}: {}", why.replace(char::is_control, " "))),
    }
}

fn unknown(id: u64) -> Refusal {
    Refusal::Unknown(format!("action {id} does not run (any more); `tradewind actions show {id}` may tell its story"))
}
