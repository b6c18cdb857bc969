//! Plans of warmup that operators keep through the API: a file for each in `data_dir/plans`, which goes before plans of its name in
//! all other files. `tradewind config check` names them.
//!
//! The file beside it that ends in `.before` is what was there before the last change, empty if nothing was: what undo puts back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use scheduler::warmup::Assignment;

use super::{Config, ConfigError, Problem, check, error::Source, warmup};

/// Plans that are kept so, at most.
pub const KEPT_MAX: usize = 64;

/// The text of one.
pub const TEXT_BYTES_MAX: usize = 32 << 10;

/// The texts that a configuration's plans came from, the shipped ones apart.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Texts {
    /// `[warmup]` files, in their order.
    pub files: Vec<(PathBuf, String)>,
    /// What operators keep, by name.
    pub kept: Vec<(PathBuf, String)>,
}

impl Texts {
    /// All of them: later plans go before earlier ones of their name.
    pub fn all(&self) -> Vec<(PathBuf, String)> {
        self.files.iter().chain(&self.kept).cloned().collect()
    }
}

/// Where the plan of this name is kept, and what was there before.
pub fn places(data_dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    let folder = data_dir.join("plans");
    (folder.join(format!("{name}.toml")), folder.join(format!("{name}.before")))
}

/// What operators keep, by name.
pub(crate) fn kept(data_dir: &Path) -> Result<Vec<(PathBuf, String)>, ConfigError> {
    let folder = data_dir.join("plans");
    let fail = |path: &Path, error: std::io::Error| {
        let message = format!("cannot be read: {error}; plans that operators keep are there");
        ConfigError { file: path.to_owned(), problems: vec![Problem { line: None, key: String::new(), message }] }
    };
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fail(&folder, error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| fail(&folder, error))?.path();
        if path.extension().is_some_and(|end| end == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.truncate(KEPT_MAX);
    paths
        .into_iter()
        .map(|path| std::fs::read_to_string(&path).map(|text| (path.clone(), text)).map_err(|e| fail(&path, e)))
        .collect()
}

/// What a running configuration's climbs would be with other plans kept.
pub fn climbs_with(config: &Config, texts: &Texts) -> Result<Arc<[Assignment]>, ConfigError> {
    let pools: Vec<String> = config.pool_names().map(str::to_owned).collect();
    let plans = warmup::plans(&texts.all(), &pools)?;
    let fail = |problems| ConfigError { file: config.data_dir.join("plans"), problems };
    let nowhere = Source::parse("").map_err(|problem| fail(vec![problem]))?;
    let mut it = check::Problems::new(&nowhere);
    let climbs = warmup::assignments(&mut it, config, &plans, &config.shaped.providers);
    let problems = it.take();
    if problems.is_empty() { Ok(climbs.into()) } else { Err(fail(problems)) }
}

/// The plans in a text, each with its own part of it.
pub fn parts(text: &str) -> Vec<(String, String)> {
    let mut parts: Vec<String> = Vec::new();
    for line in text.split_inclusive('\n') {
        let opens = line.trim_start().starts_with("[[");
        match parts.last_mut() {
            Some(part) if !opens => part.push_str(line),
            // What stands before the first table is a comment on all.
            None if !opens => {}
            _ => parts.push(line.to_owned()),
        }
    }
    let named = |part: String| {
        let table: toml::Table = toml::from_str(&part).ok()?;
        let name = table.get("plan")?.as_array()?.first()?.get("name")?.as_str()?.to_owned();
        // Comments at the end are about what follows.
        let lines: Vec<&str> = part.lines().collect();
        let is_said = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        let last = lines.iter().rposition(is_said).map_or(0, |last| last + 1);
        Some((name, lines[..last].join("\n") + "\n"))
    };
    parts.into_iter().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_plan_has_a_text_that_is_the_same_plan() {
        let parts = parts(warmup::SHIPPED.1);
        let all = warmup::plans(&[], &["default".to_owned()]).unwrap();
        assert_eq!(parts.len(), all.len());
        for (name, text) in parts {
            let file = [(PathBuf::from("one"), text.clone())];
            let again = warmup::plans(&file, &["default".to_owned()]).unwrap();
            assert_eq!(again[&name], all[&name], "{text}");
            assert!(text.starts_with("[[plan]]") && !text.trim_end().ends_with('#'), "{text}");
        }
    }
}
