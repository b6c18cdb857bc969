//! `tradewind warmup simulate`: what a plan would do with so much mail, before anybody relies on it. Needs no daemon.
//!
//! The work is done by the crate `simulate`; here are its files read, its answers printed and its charts written.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args as Arguments;
use mta::config::warmup;
use mta::egress::replies::Replies;
use serde_json::json;
use simulate::{DELIVERIES_A_DAY, Model, Plan, Report, SOURCES_MAX, Trial, Volume};

use crate::recorded;

/// Receivers that one question may be about.
const LIMITS_MAX: usize = 30;

/// What is tried out.
#[derive(Debug, Arguments)]
pub(crate) struct SimulateArgs {
    /// A plan: the name of a shipped one, a file with one, or FILE:NAME. Twice: both, side by side
    #[arg(long = "plan", required = true, value_name = "PLAN")]
    plans: Vec<String>,
    /// How much mail members submit: steady:N a day, a file with a line for each day (2026-11-01,18250), or from-events: as on
    /// the days that the running daemon's events tell of
    #[arg(long, value_name = "VOLUME")]
    volume: String,
    /// For how many days
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// How receivers behave: typical, strict (or strict:N, which takes N on the first day; strict:N,N,… one after the other),
    /// open (takes everything), or csv:FILE with a line for each day's limit
    #[arg(long, value_name = "MODEL", default_value = "typical")]
    provider_model: String,
    /// How many young sources share the mail
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(SOURCES_MAX)))]
    sources: u16,
    /// At how many mailbox providers, the largest first
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=12))]
    providers: u16,
    /// One delivery for each message, however many there are: takes minutes where it takes seconds
    #[arg(long)]
    exact: bool,
    /// The same number gives the same answer
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write plan and fact as a drawing into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

pub(crate) fn run(args: &SimulateArgs, config: Option<&Path>, json: bool) -> anyhow::Result<()> {
    if args.plans.len() > 2 {
        bail!("--plan is given {} times; two plans can stand side by side", args.plans.len());
    }
    let plans = args.plans.iter().map(|name| plan(name)).collect::<Result<Vec<_>, _>>()?;
    let volume = if args.volume == "from-events" { recorded::volume(config)? } else { volume(&args.volume)? };
    let reports = |model: &Model| -> Vec<Report> {
        let trial = |plan: &Plan| Trial {
            days: args.days,
            sources: args.sources,
            providers: usize::from(args.providers),
            deliveries: if args.exact { u64::MAX } else { DELIVERIES_A_DAY },
            seed: args.seed,
            ..Trial::of(plan.clone(), volume.clone(), model.clone())
        };
        let rules = Replies::shipped().rules();
        let trial = |plan: &Plan| {
            let mut trial = trial(plan);
            trial.config.rules = rules.clone();
            trial
        };
        plans.iter().map(|plan| trial(plan).run()).collect()
    };
    let names: Vec<&str> = plans.iter().map(|plan| &*plan.name).collect();
    let heading = |receivers: &str| format!("{} with {} messages a day, {receivers}", names.join(" and "), said(&args.volume));
    if let Some(limits) = limits(&args.provider_model)? {
        let range: Vec<(u64, Vec<Report>)> = limits.iter().map(|first| (*first, reports(&Model::Strict(*first)))).collect();
        draw(args, || simulate::range_chart(&heading(&format!("{} days, strict receivers", args.days)), &range))?;
        let rows =
            || range.iter().map(|(first, reports)| json!({ "first_limit": first, "reports": reports })).collect::<Vec<_>>();
        return if json { say(&(serde_json::to_string_pretty(&rows())? + "\n")) } else { say(&simulate::range_table(&range)) };
    }
    let reports = reports(&model(&args.provider_model)?);
    draw(args, || simulate::chart(&heading(&format!("receivers {}", args.provider_model)), &reports))?;
    if json { say(&(serde_json::to_string_pretty(&reports)? + "\n")) } else { say(&simulate::table(&reports)) }
}

fn draw(args: &SimulateArgs, svg: impl FnOnce() -> String) -> anyhow::Result<()> {
    let Some(file) = &args.svg else { return Ok(()) };
    std::fs::write(file, svg()).with_context(|| format!("{} cannot be written", file.display()))
}

fn say(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// `steady:20000` as a number in a heading.
fn said(volume: &str) -> &str {
    volume.strip_prefix("steady:").unwrap_or(volume)
}

/// First limits of strict receivers, if there are several.
fn limits(model: &str) -> anyhow::Result<Option<Vec<u64>>> {
    let Some(list) = model.strip_prefix("strict:").filter(|list| list.contains(',')) else { return Ok(None) };
    let mut limits = list.split(',').map(limit).collect::<Result<Vec<_>, _>>()?;
    limits.sort_unstable();
    limits.dedup();
    if limits.len() > LIMITS_MAX {
        bail!("--provider-model {model}: {} limits; {LIMITS_MAX} at most", limits.len());
    }
    Ok(Some(limits))
}

fn limit(text: &str) -> anyhow::Result<u64> {
    let number = text.trim().replace('_', "").parse::<u64>().ok().filter(|limit| (1..=1_000_000_000).contains(limit));
    number.ok_or_else(|| anyhow!("--provider-model strict:{text}: right is strict:300, or strict:100,300,1000"))
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
}

fn volume(text: &str) -> anyhow::Result<Volume> {
    match Volume::steady(text) {
        Some(volume) => volume.map_err(|why| anyhow!("--volume {why}")),
        None => Volume::from_csv(&read(Path::new(text))?).map_err(|why| anyhow!("{text}: {why}")),
    }
}

fn model(text: &str) -> anyhow::Result<Model> {
    match (text, text.strip_prefix("csv:")) {
        ("typical", _) => Ok(Model::Typical),
        ("strict", _) => Ok(Model::STRICT),
        (text, _) if text.starts_with("strict:") => limit(&text["strict:".len()..]).map(Model::Strict),
        ("open", _) => Ok(Model::Open),
        (_, Some(file)) => Model::from_csv(&read(Path::new(file))?).map_err(|why| anyhow!("{file}: {why}")),
        _ => bail!("--provider-model {text}: there are typical, strict, strict:N, open and csv:FILE"),
    }
}

/// A shipped plan by its name, or one of a file.
fn plan(text: &str) -> anyhow::Result<Plan> {
    let shipped = warmup::plans(&[], &[])?;
    if let Some(plan) = shipped.get(text) {
        return Ok(Plan::clone(plan));
    }
    let (file, name) = match text.rsplit_once(':') {
        Some((file, name)) if !Path::new(text).exists() => (file, Some(name)),
        _ => (text, None),
    };
    if !Path::new(file).exists() {
        let known: Vec<&str> = shipped.keys().map(String::as_str).collect();
        bail!("--plan {text}: there is no such file, and no such plan among: {}", known.join(", "));
    }
    let plans = warmup::plans(&[(file.into(), read(Path::new(file))?)], &[])?;
    if let Some(name) = name {
        let plan = plans.get(name).with_context(|| format!("{file}: no plan is named \"{name}\""))?;
        return Ok(Plan::clone(plan));
    }
    let mut own = plans.iter().filter(|(name, plan)| shipped.get(*name) != Some(*plan));
    match (own.next(), own.next()) {
        (Some((_, plan)), None) => Ok(Plan::clone(plan)),
        (None, _) => bail!("{file}: there is no [[plan]] in it that is not shipped as it is"),
        (Some(_), Some(_)) => bail!("{file}: there are several plans in it; choose with --plan {file}:NAME"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_named_or_read_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.toml");
        let path = file.display().to_string();
        let one = "[[plan]]\nname = \"mine\"\nstages = [10, 20]\n";
        std::fs::write(&file, one).unwrap();
        assert_eq!(plan(&path).unwrap().stages.list(), [10, 20]);
        std::fs::write(&file, format!("{one}[[plan]]\nname = \"other\"\nstages = [30]\n")).unwrap();
        assert!(plan(&path).unwrap_err().to_string().contains(":NAME"));
        assert_eq!(plan(&format!("{path}:other")).unwrap().stages.list(), [30]);
        assert!(plan(&format!("{path}:third")).is_err());
        assert_eq!(&*plan("gentle").unwrap().name, "gentle");
        assert!(plan("gentel").unwrap_err().to_string().contains("gentle"));
    }

    #[test]
    fn what_is_no_volume_and_no_model_is_refused_with_what_would_be_right() {
        assert!(volume("steady:x").unwrap_err().to_string().contains("steady:20000"));
        assert!(volume("/nowhere").unwrap_err().to_string().contains("/nowhere"));
        assert_eq!(model("strict:70").unwrap(), Model::Strict(70));
        assert_eq!(limits("strict:1_000,70").unwrap(), Some(vec![70, 1000]));
        assert_eq!(limits("strict:70").unwrap(), None);
        assert!(limits("strict:70,x").unwrap_err().to_string().contains("strict:100,300,1000"));
        assert!(model("kind").unwrap_err().to_string().contains("typical, strict, strict:N, open and csv:FILE"));
    }
}
