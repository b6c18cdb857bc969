//! `tradewind warmup simulate`: what a plan would do with so much mail, before anybody relies on it. Needs no daemon.
//!
//! The work is done by the crate `simulate`; here are its files read, its answers printed and its charts written.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args as Arguments;
use mta::config::warmup;
use mta::egress::replies::Replies;
use simulate::{Model, Plan, Report, SOURCES_MAX, Trial, Volume};

/// What is tried out.
#[derive(Debug, Arguments)]
pub(crate) struct SimulateArgs {
    /// A plan: the name of a shipped one, a file with one, or FILE:NAME. Twice: both, side by side
    #[arg(long = "plan", required = true, value_name = "PLAN")]
    plans: Vec<String>,
    /// How much mail members submit: steady:N a day, or a file with a line for each day (2026-11-01,18250)
    #[arg(long, value_name = "VOLUME")]
    volume: String,
    /// For how many days
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// How receivers behave: typical, strict, open (takes everything), or csv:FILE with a line for each day's limit
    #[arg(long, value_name = "MODEL", default_value = "typical")]
    provider_model: String,
    /// How many young sources share the mail
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(SOURCES_MAX)))]
    sources: u16,
    /// At how many mailbox providers, the largest first
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=12))]
    providers: u16,
    /// The same number gives the same answer
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write plan and fact as a drawing into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

pub(crate) fn run(args: &SimulateArgs, json: bool) -> anyhow::Result<()> {
    if args.plans.len() > 2 {
        bail!("--plan is given {} times; two plans can stand side by side", args.plans.len());
    }
    let (volume, model) = (volume(&args.volume)?, model(&args.provider_model)?);
    let mut reports = Vec::new();
    for name in &args.plans {
        let mut trial = Trial::of(plan(name)?, volume.clone(), model.clone());
        trial.days = args.days;
        trial.sources = args.sources;
        trial.providers = usize::from(args.providers);
        trial.seed = args.seed;
        trial.config.rules = Replies::shipped().rules();
        reports.push(trial.run());
    }
    if let Some(file) = &args.svg {
        let names: Vec<&str> = reports.iter().map(|report| report.plan.as_str()).collect();
        let heading = format!("{} with {} a day, receivers {}", names.join(" and "), args.volume, args.provider_model);
        std::fs::write(file, simulate::chart(&heading, &reports))
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    print(&reports, json)
}

fn print(reports: &[Report], json: bool) -> anyhow::Result<()> {
    use std::io::Write as _;
    let text = if json { serde_json::to_string_pretty(reports)? + "\n" } else { simulate::table(reports) };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
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
        ("strict", _) => Ok(Model::Strict),
        ("open", _) => Ok(Model::Open),
        (_, Some(file)) => Model::from_csv(&read(Path::new(file))?).map_err(|why| anyhow!("{file}: {why}")),
        _ => bail!("--provider-model {text}: there are typical, strict, open and csv:FILE"),
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
        assert!(model("kind").unwrap_err().to_string().contains("typical, strict, open and csv:FILE"));
    }
}
