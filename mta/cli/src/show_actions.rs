//! Answers about automatic actions and the health of sources, for people.

use mta::control::api::{ActionPage, ActionRow, ActionShown, SourceHealthRow};

use crate::show::{Show, pairs, table};
use crate::show_mail::events;

impl Show for ActionPage {
    fn show(&self) -> String {
        if self.actions.is_empty() {
            return "nothing is paused, narrowed or held by itself\n".to_owned();
        }
        let rows = self.actions.iter().map(|it| {
            let cause = it.cause.chars().take(70).collect::<String>();
            [it.id.to_string(), it.kind.clone(), it.expires_at.clone(), it.says.clone(), cause]
        });
        let mut out = table(["ID", "KIND", "UNTIL", "WHAT", "CAUSE"], rows);
        if self.more {
            out.push_str("… and more: --after the last number\n");
        }
        out
    }
}

impl Show for ActionRow {
    fn show(&self) -> String {
        pairs([
            ("id", self.id.to_string()),
            ("kind", self.kind.clone()),
            ("what", self.says.clone()),
            ("cause", self.cause.clone()),
            ("class", self.class.clone().unwrap_or_default()),
            ("rule", self.rule.clone()),
            ("since", self.started_at.clone()),
            ("until", self.expires_at.clone()),
            ("again", if self.again == 0 { String::new() } else { format!("{} times", self.again) }),
            ("cancel", self.cancel.clone()),
        ])
    }
}

impl Show for ActionShown {
    fn show(&self) -> String {
        let mut out = match &self.action {
            Some(action) => action.show(),
            None => "It does not run any more. What became of it:\n".to_owned(),
        };
        out.push('\n');
        out.push_str(&events(&self.events));
        out
    }
}

impl Show for Vec<SourceHealthRow> {
    fn show(&self) -> String {
        let actions = |it: &SourceHealthRow| it.actions.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
        let rows = self.iter().map(|it| {
            let provider = it.provider.clone().unwrap_or_else(|| "(all)".to_owned());
            [it.source.clone(), provider, it.health.clone(), actions(it)]
        });
        table(["SOURCE", "PROVIDER", "HEALTH", "ACTIONS"], rows)
    }
}
