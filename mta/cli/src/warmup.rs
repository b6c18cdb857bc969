//! The verbs about warmup that ask the daemon; what a plan would do is in `simulate.rs`.

use std::fmt::Write;

use mta::control::api::{ClimbRow, ClimbShown, PacingRow, StepFilter, StepRow, WarmupPage, WarmupWish};

use crate::{
    args::{ClimbName, WarmupVerb},
    client::{Client, escape},
    mail::query,
    show::{Show, count_long, pairs, plain, print, table},
};

/// Characters of a day's bar.
const BAR: u64 = 12;

/// Steps shown when nobody says how many.
const STEPS_SHOWN: usize = 50;

pub(crate) async fn run(verb: WarmupVerb, daemon: &Client, json: bool) -> anyhow::Result<()> {
    let (name, verb, wish) = match verb {
        WarmupVerb::Simulate(_) => unreachable!("answered without the daemon"),
        WarmupVerb::Show { source: Some(source), provider: Some(provider), days } => {
            let days = days.map(|days| format!("?days={days}")).unwrap_or_default();
            return print(&daemon.get::<ClimbShown>(&format!("{}{days}", path(&source, &provider))).await?, json);
        }
        WarmupVerb::Show { source, .. } => {
            let mut page: WarmupPage = daemon.get("/v1/warmup").await?;
            if let Some(source) = source {
                page.climbs.retain(|climb| climb.source == source);
                page.attention.retain(|says| says.starts_with(&format!("{source} at ")));
                anyhow::ensure!(!page.climbs.is_empty(), "{source} does not warm up; `tradewind warmup show` lists what does");
            }
            return print(&page, json);
        }
        WarmupVerb::History { source, provider, limit } => {
            let filter = StepFilter { source, provider, limit: Some(limit.unwrap_or(STEPS_SHOWN)) };
            return print(&daemon.get::<Vec<StepRow>>(&format!("/v1/warmup/steps?{}", query(&filter)?)).await?, json);
        }
        WarmupVerb::Set { name, stage } => (name, "set", WarmupWish { stage: Some(stage), ..WarmupWish::default() }),
        WarmupVerb::Pin { name, recipients: Some(recipients), .. } => {
            (name, "pin", WarmupWish { recipients: Some(recipients), ..WarmupWish::default() })
        }
        WarmupVerb::Complaints { name, recipients } => {
            (name, "complaints", WarmupWish { recipients: Some(recipients), ..WarmupWish::default() })
        }
        WarmupVerb::Pin { name, .. } => (name, "unpin", WarmupWish::default()),
        WarmupVerb::Pause { name } => (name, "pause", WarmupWish::default()),
        WarmupVerb::Resume { name } => (name, "resume", WarmupWish::default()),
        WarmupVerb::Skip { name } => (name, "skip", WarmupWish::default()),
        WarmupVerb::Rewind { name, stages } => (name, "rewind", WarmupWish { stages, ..WarmupWish::default() }),
    };
    let ClimbName { source, provider, why } = name;
    let wish = WarmupWish { why, ..wish };
    print(&daemon.post::<ClimbRow>(&format!("{}/{verb}", path(&source, &provider)), &wish).await?, json)
}

fn path(source: &str, provider: &str) -> String {
    format!("/v1/warmup/{}/{}", escape(source), escape(provider))
}

impl Show for WarmupPage {
    fn show(&self) -> String {
        if self.climbs.is_empty() {
            return "no source warms up; see [[climb]] in `tradewind config describe`\n".to_owned();
        }
        let mut out = grid(&self.climbs);
        if !out.is_empty() {
            out.push('\n');
        }
        let rows = self
            .climbs
            .iter()
            .map(|it| [it.source.clone(), it.provider.clone(), it.plan.clone(), stage(it), planned(it), bar(it), today(it)]);
        let _ = write!(out, "{}", table(["SOURCE", "PROVIDER", "PLAN", "STAGE", "BY PLAN", "TODAY", ""], rows));
        if !self.outlook.is_empty() {
            let lines = self.outlook.iter().map(|says| format!("  {}\n", plain(says)));
            let _ = write!(out, "\nOutlook:\n{}", lines.collect::<String>());
        }
        out + &needs(&self.attention)
    }
}

/// Sources against providers: stage, and how much of the day is used.
fn grid(climbs: &[ClimbRow]) -> String {
    let mut providers: Vec<&str> = climbs.iter().map(|it| it.provider.as_str()).collect();
    let mut sources: Vec<&str> = climbs.iter().map(|it| it.source.as_str()).collect();
    for names in [&mut providers, &mut sources] {
        names.sort_unstable();
        names.dedup();
    }
    // With one of either the rows below say it all.
    if providers.len() < 2 || sources.len() < 2 {
        return String::new();
    }
    let cell = |source: &str, provider: &str| {
        let found = climbs.iter().find(|it| it.source == source && it.provider == provider);
        found.map_or_else(|| "-".to_owned(), |it| format!("{} {}", stage(it), used(it)).trim_end().to_owned())
    };
    let head: Vec<String> = std::iter::once("").chain(providers.iter().copied()).map(str::to_owned).collect();
    let row = |source: &&str| std::iter::once((*source).to_owned()).chain(providers.iter().map(|it| cell(source, it))).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(sources.iter().map(row)).collect();
    let width = |nth: usize| rows.iter().filter_map(|row| row.get(nth)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..=providers.len()).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{:<width$}  ", plain(cell)));
        let _ = writeln!(out, "{}", cells.collect::<String>().trim_end());
    }
    out
}

fn stage(climb: &ClimbRow) -> String {
    match climb.state.as_str() {
        "warm" => "warm".to_owned(),
        state => format!("{state} {}/{}", climb.stage, climb.stages),
    }
}

fn planned(climb: &ClimbRow) -> String {
    let (planned, stage) = (climb.planned_stage, if climb.state == "warm" { climb.stages + 1 } else { climb.stage });
    let by_plan = if planned > climb.stages { "warm".to_owned() } else { planned.to_string() };
    match (planned.saturating_sub(stage), climb.state.as_str()) {
        (_, "planned") => format!("from {}", climb.began),
        (0, _) => by_plan,
        (behind, _) => format!("{by_plan}, {} behind", count_long(behind.into(), "day")),
    }
}

/// Accepted is full, under way is half.
fn bar(climb: &ClimbRow) -> String {
    let Some(allowance) = climb.allowance.filter(|allowance| *allowance > 0) else { return String::new() };
    let cells = |count: u64| (u128::from(count) * u128::from(BAR) / u128::from(allowance)).min(u128::from(BAR)) as usize;
    let (spent, taken) = (cells(climb.figures.spent), cells(climb.figures.spent.saturating_add(climb.reserved)));
    let full = BAR as usize;
    "█".repeat(spent) + &"▒".repeat(taken - spent) + &"░".repeat(full - taken)
}

fn today(climb: &ClimbRow) -> String {
    let most = climb.allowance.map_or_else(|| "no limit".to_owned(), |allowance| allowance.to_string());
    let mut out = format!("{} of {most}", climb.figures.spent);
    if climb.reserved > 0 {
        let _ = write!(out, ", {} under way", climb.reserved);
    }
    if climb.figures.over > 0 {
        let _ = write!(out, ", {} beyond it", climb.figures.over);
    }
    if climb.pinned.is_some() {
        out.push_str(", pinned");
    }
    if let Some(PacingRow { hourly, used, by_now, .. }) = &climb.pacing {
        let _ = write!(out, "; at most {by_now} by now, this hour {used} of {hourly}");
    }
    out
}

fn used(climb: &ClimbRow) -> String {
    match climb.allowance {
        Some(0) | None => String::new(),
        Some(allowance) => format!("{}%", u128::from(climb.figures.spent) * 100 / u128::from(allowance)),
    }
}

fn needs(attention: &[String]) -> String {
    if attention.is_empty() {
        return String::new();
    }
    let lines = attention.iter().map(|says| format!("  ! {}\n", plain(says)));
    format!("\nNeeds a person:\n{}", lines.collect::<String>())
}

impl Show for ClimbRow {
    fn show(&self) -> String {
        let figures = &self.figures;
        let tried = format!(
            "{} tried, {} deferred for reputation, {} refused by policy, {} unknown, {} complained",
            figures.tried, figures.deferred, figures.refused, figures.unknown, figures.complained
        );
        pairs([
            ("source", self.source.clone()),
            ("provider", self.provider.clone()),
            ("plan", format!("{}, since {}", self.plan, self.began)),
            ("stage", stage(self)),
            ("by plan", planned(self)),
            ("today", format!("{} {} {}", self.day, bar(self), today(self))),
            ("figures", tried),
            ("ends", self.day_ends.clone()),
        ])
    }
}

impl Show for ClimbShown {
    fn show(&self) -> String {
        let number = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let most = self.days.iter().map(|it| it.spent.max(it.planned.unwrap_or(0))).max().unwrap_or(0).max(1);
        let fact = |count: u64| "█".repeat((u128::from(count) * 30 / u128::from(most)) as usize);
        let days = self.days.iter().map(|it| {
            let rule = it.rule.clone().unwrap_or_default();
            [it.day.clone(), number(it.planned), number(it.allowed), it.spent.to_string(), rule, fact(it.spent)]
        });
        let days = table(["DAY", "BY PLAN", "ALLOWED", "SENT", "DECISION", ""], days);
        format!("{}\n{days}\n{}{}", self.climb.show(), self.steps.show(), needs(&self.attention))
    }
}

impl Show for Vec<StepRow> {
    fn show(&self) -> String {
        if self.is_empty() {
            return "nothing was decided yet\n".to_owned();
        }
        let rows = self.iter().map(|it| {
            let reason = it.by.as_ref().map_or_else(|| it.reason.clone(), |by| format!("{} ({by})", it.reason));
            let f = &it.figures;
            let figures = format!("{} sent, {} deferred, {} refused, {} unknown", f.spent, f.deferred, f.refused, f.unknown);
            [it.at.clone(), it.source.clone(), it.provider.clone(), it.rule.clone(), reason, figures]
        });
        table(["AT", "SOURCE", "PROVIDER", "RULE", "REASON", "OF THE DAY"], rows)
    }
}

#[cfg(test)]
mod tests {
    use mta::control::api::FiguresRow;

    use super::*;

    fn climb(source: &str, provider: &str, state: &str, spent: u64) -> ClimbRow {
        ClimbRow {
            source: source.into(),
            provider: provider.into(),
            plan: "gentle".into(),
            state: state.into(),
            stage: 3,
            stages: 20,
            planned_stage: 5,
            began: "2026-11-01".into(),
            allowance: (state != "warm").then_some(200),
            reserved: 20,
            figures: FiguresRow { spent, ..FiguresRow::default() },
            ..ClimbRow::default()
        }
    }

    #[test]
    fn the_grid_has_sources_and_providers_and_the_rows_plan_and_fact() {
        let climbs = vec![
            climb("ip-a", "google", "warming", 100),
            climb("ip-a", "yahoo", "holding", 0),
            climb("ip-b", "google", "warm", 700),
        ];
        let page = WarmupPage { climbs, attention: vec!["ip-a at yahoo: see\u{1b}".into()], ..WarmupPage::default() };
        assert_eq!(
            page.show(),
            "      google            yahoo\n\
             ip-a  warming 3/20 50%  holding 3/20 0%\n\
             ip-b  warm              -\n\
             \n\
             SOURCE  PROVIDER  PLAN    STAGE         BY PLAN           TODAY\n\
             ip-a    google    gentle  warming 3/20  5, 2 days behind  ██████▒░░░░░  100 of 200, 20 under way\n\
             ip-a    yahoo     gentle  holding 3/20  5, 2 days behind  ▒░░░░░░░░░░░  0 of 200, 20 under way\n\
             ip-b    google    gentle  warm          5                               700 of no limit, 20 under way\n\
             \n\
             Needs a person:\n  ! ip-a at yahoo: see?\n"
        );
        let alone = WarmupPage { climbs: vec![climb("ip-a", "google", "warming", 100)], ..WarmupPage::default() };
        assert!(alone.show().starts_with("SOURCE"), "{}", alone.show());
    }
}
