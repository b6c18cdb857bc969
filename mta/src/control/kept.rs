//! Texts of settings that operators keep through the API: plans of warmup, shaping. Each is a file in `data_dir` before it holds, and
//! beside it lies what was there before, for undo.
//!
//! Not here: what a text may say (`plans.rs`, `shaping.rs`), which files there are (`config`).

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::api::{PlanProblem, Refusal};
use super::daemon::Daemon;
use crate::config::{Config, ConfigError};
use crate::egress::plan::Plan;

impl Daemon {
    /// New settings hold from now on; the scheduler takes them at one moment of its thread.
    pub(super) fn take_settings(&self, config: Config) {
        let config = Arc::new(config);
        // Without a scheduler, in tests, nobody listens.
        if let Some(plan) = &**self.plan.load() {
            plan.send_replace(Arc::new(Plan::of(&config)));
        }
        self.config.store(config);
    }
}

/// Writes a text to the first place, or removes it, and what was there to the second.
pub(super) fn keep((at, before): &(PathBuf, PathBuf), text: Option<&str>) -> io::Result<()> {
    fs::create_dir_all(at.parent().unwrap_or(Path::new(".")))?;
    // A crash in between leaves the present text in both: undo then changes nothing.
    write(before, read(at)?.unwrap_or_default().as_bytes())?;
    match text {
        Some(text) => write(at, text.as_bytes()),
        None => fs::remove_file(at).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }),
    }
}

/// What is there, if there is something.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whole or not at all.
fn write(path: &PathBuf, octets: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new)?;
    file.write_all(octets)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), host::disk::sync_dir)
}

/// A reason is.
pub(super) fn needs(why: &str) -> Result<(), Refusal> {
    match why.trim() {
        "" => Err(Refusal::Wrong("say why, for whoever reads the audit next year".to_owned())),
        _ => Ok(()),
    }
}

/// What is wrong with a text, for the API.
pub(super) fn in_words(error: ConfigError) -> Vec<PlanProblem> {
    let problems = error.problems.into_iter();
    problems.map(|it| PlanProblem { line: it.line, key: it.key, message: it.message }).collect()
}

/// The same as a refusal.
pub(super) fn refuse_text(what: &str, problems: &[PlanProblem]) -> Refusal {
    let say = |it: &PlanProblem| {
        let line = it.line.map_or(String::new(), |line| format!("line {line}: "));
        let key = if it.key.is_empty() { String::new() } else { format!("key `{}` ", it.key) };
        format!("{line}{key}{}", it.message)
    };
    Refusal::Wrong(format!("{what}: {}", problems.iter().map(say).collect::<Vec<_>>().join("; ")))
}
