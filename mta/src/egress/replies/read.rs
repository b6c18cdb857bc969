//! Reading the files of replies and rules. What is wrong is told with file, line, key and what would be right.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use regex::bytes::{RegexBuilder, RegexSetBuilder};
use scheduler::{MeasureKind, Reaction, ReplyClass, Threshold};
use serde::Deserialize;

use super::{Code, Enhanced, Entry, Listed, Replies};
use crate::config::shaping::SHIPPED_LAYER;
use crate::config::{ConfigError, Problem, SourceText as Source};
use crate::egress::provider::{OTHER, Providers};

/// Entries and rules of one file.
const ROWS_MAX: usize = 1_000;

/// Octets of one expression, as written.
const PATTERN_BYTES_MAX: usize = 2_000;

/// Octets of all expressions, compiled. The shipped ones take less than a quarter of it.
const COMPILED_BYTES_MAX: usize = 16 << 20;

/// Octets of memory in which the automaton keeps what it has worked out; past it it works it out again.
const CACHE_BYTES_MAX: usize = 8 << 20;

/// Rules act for a week at most, and count within a day.
const LASTS_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
const WITHIN_MAX: Duration = Duration::from_secs(24 * 3600);

/// A file, read.
#[derive(Default)]
pub(super) struct File {
    path: PathBuf,
    text: String,
    replies: Vec<(Entry, Option<String>, Problem)>,
    rules: Vec<(Arc<str>, Option<Reaction>)>,
    listed: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    #[serde(default)]
    reply: Vec<ReplyRow>,
    #[serde(default)]
    rule: Vec<RuleRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplyRow {
    name: String,
    #[serde(default)]
    provider: Vec<String>,
    code: Option<String>,
    enhanced: Option<String>,
    text: Option<String>,
    class: String,
    verdict: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleRow {
    name: String,
    class: Option<String>,
    provider: Option<String>,
    count: Option<u32>,
    share: Option<u8>,
    sample: Option<u32>,
    within: Option<String>,
    #[serde(rename = "do")]
    act: String,
    #[serde(rename = "for")]
    lasts: Option<String>,
    alone: Option<String>,
}

impl File {
    pub(super) fn open(path: &Path, providers: &Providers) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            file: path.to_owned(),
            problems: vec![Problem { line: None, key: String::new(), message: format!("cannot be read: {error}") }],
        })?;
        Self::parse(path, &text, Some(providers))
    }

    pub(super) fn parse(path: &Path, text: &str, providers: Option<&Providers>) -> Result<Self, ConfigError> {
        let fail = |problems| ConfigError { file: path.to_owned(), problems };
        let source = Source::parse(text).map_err(|problem| fail(vec![problem]))?;
        let rows: Rows = toml::from_str(text).map_err(|error| fail(vec![source.refusal(&error)]))?;
        let (mut problems, mut names) = (Vec::new(), BTreeSet::new());
        let unknown = |name: &str| match providers {
            Some(providers) if name != OTHER && !providers.has(name) => {
                let known = providers.names().collect::<Vec<_>>().join(", ");
                Some(format!("{name:?} is no provider; `tradewind config shaping` lists them: {known}, {OTHER}"))
            }
            _ => None,
        };
        let mut file = File { path: path.to_owned(), text: text.to_owned(), ..File::default() };
        if rows.reply.len() > ROWS_MAX || rows.rule.len() > ROWS_MAX {
            problems.push(source.problem("reply", format!("more than {ROWS_MAX} of them; leave some out")));
        }
        for (nth, row) in rows.reply.into_iter().enumerate().take(ROWS_MAX) {
            let at = |key: &str| format!("reply.{nth}.{key}");
            if !names.insert(row.name.clone()) {
                problems.push(source.problem(&at("name"), "this name is taken; give each entry its own"));
            }
            problems.extend(row.provider.iter().find_map(|name| unknown(name)).map(|why| source.problem(&at("provider"), why)));
            let before = file.replies.last().map(|(entry, ..)| entry.name.to_string());
            file.listed.push(row.listed(before, file.by(&source, &at("name"))));
            match row.read() {
                Ok((entry, text)) => file.replies.push((entry, text, source.problem(&at("text"), ""))),
                Err((key, message)) => problems.push(source.problem(&at(key), message)),
            }
        }
        names.clear();
        for (nth, row) in rows.rule.into_iter().enumerate().take(ROWS_MAX) {
            let at = |key: &str| format!("rule.{nth}.{key}");
            if !names.insert(row.name.clone()) {
                problems.push(source.problem(&at("name"), "this name is taken; give each rule its own"));
            }
            problems.extend(row.provider.as_deref().and_then(unknown).map(|why| source.problem(&at("provider"), why)));
            file.listed.push(row.listed(file.by(&source, &at("name"))));
            match row.read() {
                Ok(rule) => file.rules.push(rule),
                Err((key, message)) => problems.push(source.problem(&at(key), message)),
            }
        }
        if problems.is_empty() { Ok(file) } else { Err(fail(problems)) }
    }

    fn by(&self, source: &Source<'_>, key: &str) -> String {
        format!("{}:{}", self.path.display(), source.line_of(key).unwrap_or_default())
    }

    /// The same as what comes with the program: no line, and entries of the same names as the operator's stand beside them.
    fn shipped(mut self) -> Self {
        for listed in &mut self.listed {
            listed.by = SHIPPED_LAYER.to_owned();
            if listed.of.starts_with("reply ") {
                listed.of.insert_str(0, "shipped ");
                listed.sets.retain(|(key, _)| *key != "after");
            }
        }
        self
    }
}

/// The key that is wrong, and what would be right.
type Wrong = (&'static str, String);

impl ReplyRow {
    fn listed(&self, before: Option<String>, by: String) -> Listed {
        let provider = Some(self.provider.join(" ")).filter(|names| !names.is_empty());
        let sets = [
            ("after", Some(before.unwrap_or_default())),
            ("provider", provider),
            ("code", self.code.clone()),
            ("enhanced", self.enhanced.clone()),
            ("text", self.text.clone()),
            ("class", Some(self.class.clone())),
            ("verdict", self.verdict.clone()),
        ];
        let sets = sets.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        Listed { of: format!("reply {}", self.name), by, sets }
    }

    fn read(self) -> Result<(Entry, Option<String>), Wrong> {
        let code = self.code.map(|code| code.parse().map_err(|()| ("code", code_is_wrong(&code)))).transpose()?;
        let enhanced =
            self.enhanced.map(|code| enhanced(&code).ok_or_else(|| ("enhanced", enhanced_is_wrong(&code)))).transpose()?;
        if code.is_none() && enhanced.is_none() && self.text.is_none() {
            return Err(("name", "it would fit every reply; give it a code, an enhanced code or a text".to_owned()));
        }
        let defer = match self.verdict.as_deref() {
            None => false,
            Some("defer") => true,
            Some(other) => return Err(("verdict", format!("{other:?} is not known; write \"defer\", or leave it out"))),
        };
        if let Some(text) = &self.text {
            pattern(text)?;
        }
        let class = class(&self.class)?;
        Ok((Entry { name: self.name.into(), providers: self.provider, code, enhanced, text: None, class, defer }, self.text))
    }
}

impl RuleRow {
    fn listed(&self, by: String) -> Listed {
        let sets = [
            ("class", self.class.clone()),
            ("provider", self.provider.clone()),
            ("count", self.count.map(|it| it.to_string())),
            ("share", self.share.map(|it| it.to_string())),
            ("sample", self.sample.map(|it| it.to_string())),
            ("within", self.within.clone()),
            ("do", Some(self.act.clone())),
            ("for", self.lasts.clone()),
        ];
        let sets = sets.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        Listed { of: format!("rule {}", self.name), by, sets }
    }

    fn read(self) -> Result<(Arc<str>, Option<Reaction>), Wrong> {
        let name: Arc<str> = self.name.into();
        let act = match self.act.as_str() {
            "nothing" => return Ok((name, None)),
            "narrow" => MeasureKind::Narrow,
            "pause_site" => MeasureKind::PauseSite,
            "pause_provider" => MeasureKind::PauseProvider,
            "other_source" => MeasureKind::OtherSource,
            "hold_member" => MeasureKind::HoldMember,
            other => {
                let known = "narrow, pause_site, pause_provider, other_source, hold_member, nothing";
                return Err(("do", format!("{other:?} is not known; choose one of {known}")));
            }
        };
        let class = class(self.class.as_deref().ok_or(("class", "is missing and has no default".to_owned()))?)?;
        let lasts = self.lasts.ok_or(("for", "is missing; write how long it lasts, as \"30m\"".to_owned()))?;
        let lasts = duration("for", &lasts, LASTS_MAX)?;
        let alone = match (self.alone, act) {
            (Some(alone), MeasureKind::PauseSite | MeasureKind::PauseProvider) => Some(duration("alone", &alone, lasts)?),
            (Some(_), _) => return Err(("alone", "means something with pause_site and pause_provider only".to_owned())),
            (None, _) => None,
        };
        let threshold = match (self.count, self.share, self.sample) {
            _ if act == MeasureKind::OtherSource => {
                if self.count.is_some() || self.share.is_some() || self.sample.is_some() || self.within.is_some() {
                    return Err((
                        "do",
                        "other_source acts on each such reply; leave count, share, sample and within out".to_owned(),
                    ));
                }
                Threshold::Count(1)
            }
            (Some(1..), None, None) => Threshold::Count(self.count.unwrap_or(1)),
            (None, Some(percent @ 1..=100), Some(sample @ 1..)) => Threshold::Share { percent, sample },
            (None, Some(_), None) => {
                return Err(("share", "a share needs `sample`: attempts below which nothing is concluded".to_owned()));
            }
            (None, Some(0 | 101..), _) => return Err(("share", "write per cent, from 1 to 100".to_owned())),
            _ => return Err(("name", "needs either `count`, or `share` and `sample`; each at least 1".to_owned())),
        };
        let within = match (self.within, act) {
            (_, MeasureKind::OtherSource) => Duration::from_secs(1),
            (Some(within), _) => duration("within", &within, WITHIN_MAX)?,
            (None, _) => return Err(("within", "is missing; write the interval that is counted, as \"10m\"".to_owned())),
        };
        let provider = self.provider.map(Arc::from);
        Ok((name.clone(), Some(Reaction { name, class, provider, threshold, within, act, lasts, alone })))
    }
}

/// The tables that a daemon uses: the operator's entries, then shipped ones with a provider, then those without.
pub(super) fn join(own: File, shipped: File, rules: File) -> Result<Replies, ConfigError> {
    let (mut entries, mut patterns) = (Vec::new(), Vec::new());
    let by_provider = |file: File| file.replies.into_iter().partition::<Vec<_>, _>(|(entry, ..)| !entry.providers.is_empty());
    let (path, written) = (own.path.clone(), own.text.clone());
    let (mut active, mut listed) = (own.rules, own.listed);
    let (shipped, rules) = (shipped.shipped(), rules.shipped());
    let is_new = |new: &Listed, known: &[Listed]| known.iter().all(|known| known.of != new.of);
    let more: Vec<_> = shipped.listed.iter().chain(&rules.listed).filter(|it| is_new(it, &listed)).cloned().collect();
    listed.extend(more);
    let own = File { rules: Vec::new(), listed: Vec::new(), ..own };
    for part in [by_provider(own), by_provider(shipped)] {
        for (mut entry, text, _) in part.0.into_iter().chain(part.1) {
            if let Some(text) = text {
                entry.text = Some(patterns.len());
                patterns.push(text);
            }
            entries.push(entry);
        }
    }
    let texts = RegexSetBuilder::new(&patterns)
        .unicode(false)
        .case_insensitive(true)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(CACHE_BYTES_MAX)
        .build()
        .map_err(|error| ConfigError {
            file: path,
            problems: vec![Problem {
                line: None,
                key: "reply.text".to_owned(),
                message: format!("all expressions together are too much ({error}); leave some out, or write them simpler"),
            }],
        })?;
    for (name, rule) in rules.rules {
        if !active.iter().any(|(known, _)| *known == name) {
            active.push((name, rule));
        }
    }
    Ok(Replies { entries, texts, rules: active.into_iter().filter_map(|(_, rule)| rule).collect(), own: written, listed })
}

impl std::str::FromStr for Code {
    type Err = ();

    fn from_str(text: &str) -> Result<Code, ()> {
        match text {
            "4xx" => Ok(Code::Begins(4)),
            "5xx" => Ok(Code::Begins(5)),
            _ => text.parse().ok().filter(|code| (400..=599).contains(code)).map(Code::Is).ok_or(()),
        }
    }
}

fn enhanced(text: &str) -> Option<Enhanced> {
    let mut places = [(0, u16::MAX); 3];
    let mut parts = text.split('.');
    for (nth, place) in places.iter_mut().enumerate() {
        let part = parts.next()?;
        if part == "*" {
            continue;
        }
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        *place = (from.parse().ok()?, to.parse().ok()?);
        let most = if nth == 0 { 5 } else { 999 };
        if place.0 > place.1 || place.1 > most {
            return None;
        }
    }
    parts.next().is_none().then_some(Enhanced(places))
}

fn pattern(text: &str) -> Result<(), Wrong> {
    if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
        return Err(("text", format!("an expression has 1 to {PATTERN_BYTES_MAX} octets")));
    }
    let built = RegexBuilder::new(text).unicode(false).case_insensitive(true).size_limit(COMPILED_BYTES_MAX / 16).build();
    let built = built.map_err(|error| ("text", one_line(&format!("is no regular expression that can be used: {error}"))))?;
    if built.is_match(b"") {
        return Err(("text", "it would fit every text; leave it out, or say more".to_owned()));
    }
    Ok(())
}

fn class(text: &str) -> Result<ReplyClass, Wrong> {
    let known = || ReplyClass::ALL.map(ReplyClass::as_str).join(", ");
    text.parse().map_err(|()| ("class", format!("{text:?} is not known; choose one of {}", known())))
}

fn duration(key: &'static str, text: &str, most: Duration) -> Result<Duration, Wrong> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|it| Duration::try_from(it).ok());
    let parsed = parsed.filter(|it| *it >= Duration::from_secs(1) && *it <= most);
    parsed.ok_or_else(|| {
        (key, format!("{text:?} is not a time from 1s to {}h; write it as \"10m\" or \"6h\"", most.as_secs() / 3600))
    })
}

fn code_is_wrong(text: &str) -> String {
    format!("{text:?} is not the code of a refusal; write \"550\", \"4xx\" or \"5xx\"")
}

fn enhanced_is_wrong(text: &str) -> String {
    format!("{text:?} is not a pattern of enhanced codes; write \"5.7.1\", \"5.7.*\" or \"5.7.606-649\"")
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}
