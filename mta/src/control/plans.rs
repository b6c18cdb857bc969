//! Plans of warmup, as the operator lists, checks, applies and undoes them.
//!
//! What is applied is a file in `data_dir/plans` before it holds: a restart, and a reload, find it there. It goes before a plan of
//! its name in the settings, and what the settings say comes back when it is undone. The scheduler takes the new plan at one
//! moment of its thread; what was spent today stays spent.

use std::sync::Arc;

use super::api::{Follower, PlanChecked, PlanProblem, PlanRow, PlanShown, PlanWish, Reason, Refusal};
use super::daemon::Daemon;
use super::kept::{in_words, keep, needs, read, refuse_text};
use super::views::{blocking, unable};
use crate::config::plans::{KEPT_MAX, TEXT_BYTES_MAX, Texts, climbs_with, parts, places};
use crate::config::{Config, warmup};

/// Names of plans.
const NAME_BYTES_MAX: usize = 64;

impl Daemon {
    /// All plans.
    pub(super) fn list_plans(&self) -> Result<Vec<PlanRow>, Refusal> {
        let config = self.config.load_full();
        Ok(found(&config, &config.plan_texts)?.into_iter().map(|shown| shown.row).collect())
    }

    /// One of them.
    pub(super) async fn show_plan(&self, name: &str) -> Result<PlanShown, Refusal> {
        let config = self.config.load_full();
        let shown = found(&config, &config.plan_texts)?.into_iter().find(|shown| shown.row.name == name);
        let mut shown = shown.ok_or_else(|| unknown(name))?;
        let settings = found(&config, &Texts { kept: Vec::new(), ..config.plan_texts.clone() })?;
        if shown.row.from == "kept" {
            shown.settings = settings.into_iter().find(|it| it.row.name == name).map(|it| it.text);
        }
        let (_, before) = places(&config.data_dir, name);
        shown.before = blocking(self, move |_| read(&before)).await?.map_err(unable)?;
        Ok(shown)
    }

    /// Whether a text could be applied as the plan of this name.
    pub(super) fn check_plan(&self, name: &str, wish: &PlanWish) -> PlanChecked {
        let config = self.config.load_full();
        match with(&config, name, Some(&wish.text)) {
            Ok((texts, _)) => {
                let stages = found(&config, &texts).ok().and_then(|all| all.into_iter().find(|it| it.row.name == name));
                PlanChecked { ok: true, problems: Vec::new(), stages: stages.map(|it| it.row.stages).unwrap_or_default() }
            }
            Err(problems) => PlanChecked { ok: false, problems, stages: Vec::new() },
        }
    }

    /// Makes it so.
    pub(super) async fn apply_plan(&self, name: &str, wish: PlanWish) -> Result<PlanShown, Refusal> {
        needs(&wish.why)?;
        self.keep_plan(name, Some(wish.text)).await
    }

    /// Puts back what was there before the last change; asked again, what was there before that is there again.
    pub(super) async fn undo_plan(&self, name: &str, wish: Reason) -> Result<PlanShown, Refusal> {
        needs(&wish.why)?;
        let (_, before) = places(&self.config.load().data_dir, name);
        if !is_name(name) {
            return Err(unknown(name));
        }
        let before = blocking(self, move |_| read(&before)).await?.map_err(unable)?;
        let before = before.ok_or_else(|| Refusal::Conflict(format!("plan {name} was not changed: there is nothing to undo")))?;
        self.keep_plan(name, Some(before).filter(|text| !text.is_empty())).await
    }

    /// Keeps this text for the name, or none.
    async fn keep_plan(&self, name: &str, text: Option<String>) -> Result<PlanShown, Refusal> {
        let _change = self.changing.lock().await;
        let config = self.config.load_full();
        let (texts, climbs) = with(&config, name, text.as_deref()).map_err(|problems| refuse(name, &problems))?;
        let places = places(&config.data_dir, name);
        blocking(self, move |_| keep(&places, text.as_deref()))
            .await?
            .map_err(|error| Refusal::Unable(format!("the plan cannot be written: {error}; nothing was changed")))?;
        self.take_settings(Config { plan_texts: texts, climbs, ..Config::clone(&config) });
        tracing::info!(plan = name, "an operator changed a plan of warmup");
        self.show_plan(name).await.or_else(|refusal| match refusal {
            // It was nobody's but the operators'.
            Refusal::Unknown(_) => {
                Ok(PlanShown { row: PlanRow { name: name.to_owned(), ..PlanRow::default() }, ..PlanShown::default() })
            }
            refusal => Err(refusal),
        })
    }
}

/// The plan of this name that holds, if there is one, and the one that a text makes.
pub(super) fn text_as_plan(
    config: &Config,
    name: &str,
    text: &str,
) -> Result<(Option<Arc<scheduler::warmup::Plan>>, scheduler::warmup::Plan), Refusal> {
    let (texts, _) = with(config, name, Some(text)).map_err(|problems| refuse(name, &problems))?;
    let pools: Vec<String> = config.pool_names().map(str::to_owned).collect();
    let all = |texts: &Texts| warmup::plans(&texts.all(), &pools).map_err(unable);
    let now = all(&config.plan_texts)?.get(name).cloned();
    let new = all(&texts)?.get(name).map(|plan| scheduler::warmup::Plan::clone(plan));
    Ok((now, new.ok_or_else(|| unknown(name))?))
}

type Found = (Texts, Arc<[scheduler::warmup::Assignment]>);

/// The texts and climbs of a configuration in which this is kept for the name, or what is wrong with it.
fn with(config: &Config, name: &str, text: Option<&str>) -> Result<Found, Vec<PlanProblem>> {
    let problem = |message: String| vec![PlanProblem { line: None, key: String::new(), message }];
    if !is_name(name) {
        return Err(problem("a plan's name has 1 to 64 letters, digits, - and _".to_owned()));
    }
    let (at, _) = places(&config.data_dir, name);
    let mut texts = config.plan_texts.clone();
    texts.kept.retain(|(path, _)| *path != at);
    if let Some(text) = text {
        if text.len() > TEXT_BYTES_MAX {
            return Err(problem(format!("has more than {TEXT_BYTES_MAX} octets")));
        }
        if texts.kept.len() >= KEPT_MAX {
            return Err(problem(format!("{KEPT_MAX} plans are kept already; undo one, or put some into a file of [warmup]")));
        }
        let alone = Texts { files: Vec::new(), kept: vec![(at.clone(), text.to_owned())] };
        let pools: Vec<String> = config.pool_names().map(str::to_owned).collect();
        warmup::plans(&alone.all(), &pools).map_err(in_words)?;
        let names: Vec<String> = parts(text).into_iter().map(|(name, _)| name).collect();
        if names != [name] {
            return Err(problem(format!("must be one table [[plan]] with name = \"{name}\"")));
        }
        texts.kept.push((at, text.to_owned()));
        texts.kept.sort();
    }
    let climbs = climbs_with(config, &texts).map_err(in_words)?;
    Ok((texts, climbs))
}

/// All plans that these texts come to, with the last word on each name.
fn found(config: &Config, texts: &Texts) -> Result<Vec<PlanShown>, Refusal> {
    let pools: Vec<String> = config.pool_names().map(str::to_owned).collect();
    let plans = warmup::plans(&texts.all(), &pools).map_err(unable)?;
    let shipped = ("shipped".to_owned(), warmup::SHIPPED.1);
    let files = texts.files.iter().map(|(path, text)| (path.display().to_string(), text.as_str()));
    let kept = texts.kept.iter().map(|(_, text)| ("kept".to_owned(), text.as_str()));
    let mut all: Vec<PlanShown> = Vec::new();
    for (from, text) in [shipped].into_iter().chain(files).chain(kept) {
        for (name, text) in parts(text) {
            let Some(plan) = plans.get(&name) else { continue };
            let follows = config.climbs.iter().filter(|climb| *climb.plan.name == *name);
            let followers = follows
                .map(|climb| Follower { source: climb.source.to_string(), provider: climb.provider.to_string() })
                .collect();
            all.retain(|other| other.row.name != name);
            let row = PlanRow { name, from: from.clone(), stages: plan.stages.list(), followers };
            all.push(PlanShown { row, text, settings: None, before: None });
        }
    }
    all.sort_by(|one, other| one.row.name.cmp(&other.row.name));
    Ok(all)
}

fn refuse(name: &str, problems: &[PlanProblem]) -> Refusal {
    refuse_text(&format!("plan {name}"), problems)
}

/// What can be a file's name anywhere, and is none of a folder.
fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(fits)
}

fn unknown(name: &str) -> Refusal {
    Refusal::Unknown(format!("no plan is named {name:?}; GET /v1/plans shows them all"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::control::operations::tests::World;

    const MINE: &str = "[[plan]]\nname = \"gentle\"\nstages = [10, 20]\n";

    fn wish(text: &str) -> PlanWish {
        PlanWish { text: text.to_owned(), why: "a try".to_owned() }
    }

    #[tokio::test]
    async fn a_plan_is_applied_undone_and_done_again_and_a_restart_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        let climb = "[[climb]]\nsource = \"a\"\nprovider = \"other\"\nplan = \"gentle\"\n";
        let world = World::with(folder.path(), climb);
        let daemon = &world.daemon;
        let shipped = daemon.show_plan("gentle").await.unwrap();
        assert_eq!((shipped.row.from.as_str(), &shipped.before), ("shipped", &None));
        let applied = daemon.apply_plan("gentle", wish(MINE)).await.unwrap();
        assert_eq!((applied.row.from.as_str(), &applied.row.stages[..], applied.text.as_str()), ("kept", &[10, 20][..], MINE));
        assert_eq!((applied.settings, applied.before.as_deref()), (Some(shipped.text.clone()), Some("")));
        assert_eq!(applied.row.followers, [Follower { source: "a".into(), provider: "other".into() }]);
        assert_eq!(daemon.config.load().climbs[0].plan.stages.list(), [10, 20]);
        let (at, _) = places(folder.path(), "gentle");
        assert_eq!(fs::read_to_string(&at).unwrap(), MINE);
        let reason = || Reason { why: "it was too slow".to_owned() };
        let undone = daemon.undo_plan("gentle", reason()).await.unwrap();
        assert_eq!((undone.row.stages, undone.text, undone.before.as_deref()), (shipped.row.stages, shipped.text, Some(MINE)));
        assert!(!at.exists());
        let again = daemon.undo_plan("gentle", reason()).await.unwrap();
        assert_eq!((again.row.from.as_str(), again.text.as_str()), ("kept", MINE));
        assert_eq!(crate::config::plans::kept(folder.path()).unwrap(), [(at, MINE.to_owned())]);
        assert!(matches!(daemon.undo_plan("../x", reason()).await, Err(Refusal::Unknown(_))));
        assert!(matches!(daemon.undo_plan("transactional", reason()).await, Err(Refusal::Conflict(_))));
        assert!(matches!(daemon.apply_plan("gentle", PlanWish::default()).await, Err(Refusal::Wrong(_))));
        world.stop().await;
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_plan_is_told_by_line_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let world = World::start(folder.path());
        for (name, text, line, says) in [
            ("gentle", "[[plan]]\nname = \"gentle\"\nstages = [10, 5]\n", Some(3), "stages rise"),
            ("gentle", "[[plan]]\nname = \"gentle\"\nstages = [10]\ncolour = 1\n", Some(4), "no such setting"),
            ("gentle", "[[plan]\n", Some(1), ""),
            ("gentle", "[[plan]]\nname = \"other\"\nstages = [10]\n", None, "must be one table"),
            ("gentle", "", None, "must be one table"),
            ("gen/tle", MINE, None, "a plan's name"),
        ] {
            let checked = world.daemon.check_plan(name, &wish(text));
            assert!(!checked.ok && checked.problems[0].line == line, "{text} {checked:?}");
            assert!(checked.problems[0].message.contains(says), "{text} {checked:?}");
            assert!(matches!(world.daemon.apply_plan(name, wish(text)).await, Err(Refusal::Wrong(_))));
        }
        assert!(!folder.path().join("plans").exists());
        assert_eq!(world.daemon.check_plan("new", &wish(&MINE.replace("gentle", "new"))).stages, [10, 20]);
        world.stop().await;
    }
}
