//! The shaping that operators keep: shown, looked at, applied, undone.
//!
//! It is one file, `data_dir/shaping.toml`, and the last layer: what it says goes before `[shaping]` files and what is shipped. A
//! restart and a reload find it there; `tradewind config check` names it.

use super::api::{PlanProblem, Reason, Refusal, ShapingChecked, ShapingText, ShapingWish};
use super::daemon::Daemon;
use super::kept::{in_words, keep, needs, read, refuse_text};
use super::shaping_answers::changes;
use super::views::{blocking, unable};
use crate::config::shaping::{KEPT_BYTES_MAX, Shaped, kept_at};
use crate::config::{Config, effective};

impl Daemon {
    /// What is kept.
    pub(super) async fn show_shaping(&self) -> Result<ShapingText, Refusal> {
        let config = self.config.load_full();
        let (at, before) = kept_at(&config.data_dir);
        let before = blocking(self, move |_| read(&before)).await?.map_err(unable)?;
        Ok(ShapingText { text: config.shaped.texts.kept.clone(), before, file: at.display().to_string() })
    }

    /// Whether a text could be kept, and what would be other then.
    pub(super) fn check_shaping(&self, wish: &ShapingWish) -> ShapingChecked {
        let config = self.config.load_full();
        match with(&config, &wish.text) {
            Ok(new) => {
                let changes = changes(&effective::effective(&config), &effective::effective(&new));
                ShapingChecked { ok: true, problems: Vec::new(), changes }
            }
            Err(problems) => ShapingChecked { ok: false, problems, changes: Vec::new() },
        }
    }

    /// Makes it so.
    pub(super) async fn apply_shaping(&self, wish: ShapingWish) -> Result<ShapingText, Refusal> {
        needs(&wish.why)?;
        self.keep_shaping(wish.text).await
    }

    /// Puts back what was there before the last change; asked again, what was there before that is there again.
    pub(super) async fn undo_shaping(&self, wish: Reason) -> Result<ShapingText, Refusal> {
        needs(&wish.why)?;
        let (_, before) = kept_at(&self.config.load().data_dir);
        let before = blocking(self, move |_| read(&before)).await?.map_err(unable)?;
        let before = before.ok_or_else(|| Refusal::Conflict("shaping was not changed: there is nothing to undo".to_owned()))?;
        self.keep_shaping(before).await
    }

    async fn keep_shaping(&self, text: String) -> Result<ShapingText, Refusal> {
        let _change = self.changing.lock().await;
        let config = self.config.load_full();
        let new = with(&config, &text).map_err(|problems| refuse_text("shaping", &problems))?;
        let places = kept_at(&config.data_dir);
        blocking(self, move |_| keep(&places, Some(text.as_str()).filter(|text| !text.is_empty())))
            .await?
            .map_err(|error| Refusal::Unable(format!("shaping cannot be written: {error}; nothing was changed")))?;
        self.take_settings(new);
        tracing::info!("an operator changed shaping");
        self.show_shaping().await
    }
}

/// The settings with this text kept, or what is wrong with it.
fn with(config: &Config, text: &str) -> Result<Config, Vec<PlanProblem>> {
    if text.len() > KEPT_BYTES_MAX {
        let message = format!("has more than {KEPT_BYTES_MAX} octets; put some of it into a file of [shaping]");
        return Err(vec![PlanProblem { line: None, key: String::new(), message }]);
    }
    let shaped = Shaped::with_kept(config, text).map_err(in_words)?;
    Ok(Config { shaped, ..Config::clone(config) })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::control::operations::tests::World;

    const MINE: &str = "[[shape]]\ndomain = \"big.example\"\nconnections = 3\n";

    fn wish(text: &str) -> ShapingWish {
        ShapingWish { text: text.to_owned(), why: "they asked".to_owned() }
    }

    #[tokio::test]
    async fn shaping_is_applied_undone_and_done_again_and_a_restart_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        let world = World::start(folder.path());
        let daemon = &world.daemon;
        let reason = || Reason { why: "it was too slow".to_owned() };
        assert_eq!((daemon.show_shaping().await.unwrap().text.as_str(), daemon.show_shaping().await.unwrap().before), ("", None));
        assert!(matches!(daemon.undo_shaping(reason()).await, Err(Refusal::Conflict(_))));
        let checked = daemon.check_shaping(&wish(MINE));
        assert_eq!(checked.changes.len(), 1, "{checked:?}");
        let change = &checked.changes[0];
        assert_eq!((change.of.as_str(), change.key.as_str(), &change.before), ("domain big.example", "connections", &None));
        assert_eq!(change.after.as_deref(), Some("3"));
        let applied = daemon.apply_shaping(wish(MINE)).await.unwrap();
        assert_eq!((applied.text.as_str(), applied.before.as_deref()), (MINE, Some("")));
        let rows = effective::effective(&daemon.config.load());
        let row = rows.iter().find(|row| row.of == "domain big.example").unwrap();
        assert_eq!((row.value.as_str(), row.by.as_str()), ("3", "kept:3"));
        let (at, _) = kept_at(folder.path());
        assert_eq!(fs::read_to_string(&at).unwrap(), MINE);
        let undone = daemon.undo_shaping(reason()).await.unwrap();
        assert_eq!((undone.text.as_str(), undone.before.as_deref(), at.exists()), ("", Some(MINE), false));
        assert!(!effective::effective(&daemon.config.load()).iter().any(|row| row.of == "domain big.example"));
        assert_eq!(daemon.undo_shaping(reason()).await.unwrap().text, MINE);
        assert!(matches!(
            daemon.apply_shaping(ShapingWish { text: MINE.to_owned(), why: " ".to_owned() }).await,
            Err(Refusal::Wrong(_))
        ));
        world.stop().await;
    }

    #[tokio::test]
    async fn what_is_wrong_with_shaping_is_told_by_line_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let world = World::start(folder.path());
        for (text, line, says) in [
            ("[[shape]]\ndomain = \"a.example\"\nconnections = 0\n", Some(3), "1"),
            ("[[shape]]\ncolour = 1\n", Some(2), "no such setting"),
            ("[[shape]\n", Some(1), ""),
            ("[[shape]]\nsource = \"nobody\"\nconnections = 1\n", Some(2), ""),
            ("\n[[provider]]\nname = \"mine\"\nmx = [\"a.example\"]\n", Some(3), "[shaping]"),
        ] {
            let checked = world.daemon.check_shaping(&wish(text));
            assert!(!checked.ok && checked.problems[0].line == line, "{text} {checked:?}");
            assert!(checked.problems[0].message.contains(says), "{text} {checked:?}");
            assert!(matches!(world.daemon.apply_shaping(wish(text)).await, Err(Refusal::Wrong(_))));
        }
        assert!(!kept_at(folder.path()).0.exists());
        world.stop().await;
    }
}
