//! What a refusal speaks of: a table from codes and texts to classes, shipped as data and extended by the operator's file.
//!
//! RFC 3463 says what an enhanced code means, and hosts use it as they like: 5.7.1 is a block list here, a spam filter there,
//! and an unknown user elsewhere. The text tells, and each large provider has its own words, most of them published. So an entry
//! of the table (`replies.toml`) has a provider, codes and a regular expression, and the first that fits gives the class; what
//! fits none is classed by its code and where in the dialogue it came.
//!
//! Only refusals are classified, a few microseconds each: all expressions are one automaton (`regex::RegexSet`), which reads the
//! text once. Its size is bounded, and so is the text that it reads.
//!
//! Not here: what scope and verdict follow (`trouble.rs`), what is done about it (`rules.toml`, `scheduler::Reaction`).

mod read;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder, RegexSet};
use scheduler::{Reaction, ReplyClass};
use smtp::client::Stage;
use smtp::reply::Reply;

use super::provider::Providers;
use crate::config::ConfigError;

/// What comes with the program.
pub const SHIPPED_REPLIES: &str = include_str!("replies.toml");
/// What comes with the program.
pub const SHIPPED_RULES: &str = include_str!("rules.toml");

/// Octets of a reply's text that are looked at; what classes it stands at its beginning.
const TEXT_BYTES_MAX: usize = 1024;

/// The longest wait that is read out of a text.
const AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// What a refusal speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// The class.
    pub class: ReplyClass,
    /// It speaks of us although it says "never": try the recipient again.
    pub defer: bool,
    /// The time that it names, where the class is one of waiting.
    pub after: Option<Duration>,
    /// The entry of the table; None: by code alone.
    pub entry: Option<Arc<str>>,
}

/// The table, and the rules that act on its classes. Made once and shared.
#[derive(Debug)]
pub struct Replies {
    entries: Vec<Entry>,
    /// Of the entries that have an expression, in their order.
    texts: RegexSet,
    rules: Arc<[Reaction]>,
    /// The operator's file.
    own: String,
    listed: Vec<Listed>,
}

/// An entry or a rule as it was written, for those who want to see what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What it is, and its name.
    pub of: String,
    /// Whose word it is: the file with its line, or `shipped`.
    pub by: String,
    /// Its settings.
    pub sets: Vec<(&'static str, String)>,
}

/// The same files make the same table.
impl PartialEq for Replies {
    fn eq(&self, other: &Self) -> bool {
        self.own == other.own
    }
}

impl Default for Replies {
    fn default() -> Self {
        Self::of(read::File::default()).unwrap_or_else(|_| Self::empty())
    }
}

/// One line of the table.
#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    providers: Vec<String>,
    code: Option<Code>,
    enhanced: Option<Enhanced>,
    /// Its number among the expressions.
    text: Option<usize>,
    class: ReplyClass,
    defer: bool,
}

/// A pattern for the basic code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Is(u16),
    /// The first digit.
    Begins(u16),
}

/// A pattern for the enhanced code: each place from, to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Enhanced([(u16, u16); 3]);

impl Replies {
    /// The shipped table and rules, and what an operator's file adds: its entries come first, and a rule replaces the one of its
    /// name. A provider that is not one of `providers` is refused: it would never fit.
    pub fn load(file: &Path, providers: &Providers) -> Result<Self, ConfigError> {
        Self::of(read::File::open(file, providers)?)
    }

    /// The same from a file's text.
    pub fn parse(file: &Path, text: &str, providers: &Providers) -> Result<Self, ConfigError> {
        Self::of(read::File::parse(file, text, Some(providers))?)
    }

    /// The shipped table alone.
    pub fn shipped() -> Arc<Self> {
        static SHIPPED: OnceLock<Arc<Replies>> = OnceLock::new();
        // What is shipped is read by a test: it has no errors. Were it otherwise, codes alone would class.
        SHIPPED.get_or_init(Arc::default).clone()
    }

    fn empty() -> Self {
        Replies { entries: Vec::new(), texts: RegexSet::empty(), rules: Arc::default(), own: String::new(), listed: Vec::new() }
    }

    fn of(own: read::File) -> Result<Self, ConfigError> {
        let shipped = read::File::parse(Path::new("replies.toml (shipped)"), SHIPPED_REPLIES, None)?;
        let rules = read::File::parse(Path::new("rules.toml (shipped)"), SHIPPED_RULES, None)?;
        read::join(own, shipped, rules)
    }

    /// All entries and rules that count, the operator's first. An entry of his names the one before it in `after`: their order counts.
    pub fn listed(&self) -> &[Listed] {
        &self.listed
    }

    /// The rules, for the scheduler.
    pub fn rules(&self) -> Arc<[Reaction]> {
        self.rules.clone()
    }

    /// What a reply of a provider's host speaks of; None: it refuses nothing.
    pub fn classify(&self, provider: &str, stage: Stage, reply: &Reply) -> Option<Meaning> {
        if !reply.is_transient() && !reply.is_permanent() {
            return None;
        }
        let text = text_of(reply);
        let found = self.texts.matches(&text);
        let entry = self.entries.iter().find(|entry| {
            entry.text.is_none_or(|nth| found.matched(nth))
                && (entry.providers.is_empty() || entry.providers.iter().any(|known| known == provider))
                && entry.code.is_none_or(|code| code.fits(reply.code()))
                && entry.enhanced.is_none_or(|pattern| pattern.fits(reply))
        });
        let class = entry.map_or_else(|| by_code(stage, reply), |entry| entry.class);
        let waits = reply.is_transient() && matches!(class, ReplyClass::Greylist | ReplyClass::Rate);
        Some(Meaning {
            class,
            defer: entry.is_some_and(|entry| entry.defer),
            after: if waits { after(&text) } else { None },
            entry: entry.map(|entry| entry.name.clone()),
        })
    }
}

impl Code {
    fn fits(self, code: u16) -> bool {
        match self {
            Code::Is(other) => code == other,
            Code::Begins(digit) => code / 100 == digit,
        }
    }
}

impl Enhanced {
    fn fits(self, reply: &Reply) -> bool {
        reply.enhanced().is_some_and(|code| {
            self.0.iter().zip([u16::from(code.0), code.1, code.2]).all(|((from, to), place)| (*from..=*to).contains(&place))
        })
    }
}

/// All lines, on one.
fn text_of(reply: &Reply) -> Vec<u8> {
    let mut text = Vec::with_capacity(256);
    for line in reply.lines() {
        if !text.is_empty() {
            text.push(b' ');
        }
        text.extend_from_slice(line.as_bytes());
        if text.len() >= TEXT_BYTES_MAX {
            break;
        }
    }
    text.truncate(TEXT_BYTES_MAX);
    text
}

/// What no entry knows: by the subject of the enhanced code (RFC 3463 §3), or by the basic code and the stage (RFC 5321 §4.2).
fn by_code(stage: Stage, reply: &Reply) -> ReplyClass {
    if let Some(code) = reply.enhanced() {
        match (code.1, code.2) {
            // A bad sender's address or domain is not the recipient's.
            (1, 7 | 8) => return ReplyClass::Policy,
            (1 | 2, _) => return ReplyClass::Mailbox,
            (3, 4) | (6, _) => return ReplyClass::Content,
            (3..=5, _) => return ReplyClass::Host,
            (7, _) => return ReplyClass::Policy,
            _ => {}
        }
    }
    match (reply.code(), stage) {
        (454, Stage::StartTls) => ReplyClass::Tls,
        (450 | 550 | 551 | 553, Stage::Rcpt) | (552 | 452, Stage::Rcpt) => ReplyClass::Mailbox,
        (_, Stage::StartTls) => ReplyClass::Tls,
        (500..=599, Stage::Body | Stage::Data) => ReplyClass::Content,
        (500..=599, _) => ReplyClass::Policy,
        _ => ReplyClass::Host,
    }
}

/// The time that a text names, as greylisting hosts do: "in 300 seconds", "after 5 min", "00:04:59".
fn after(text: &[u8]) -> Option<Duration> {
    static TIMES: OnceLock<Option<[Regex; 2]>> = OnceLock::new();
    let build = |pattern: &str| RegexBuilder::new(pattern).unicode(false).case_insensitive(true).build().ok();
    let times = TIMES.get_or_init(|| {
        let clock = build(r"\b(\d\d):(\d\d):(\d\d)\b")?;
        Some([
            build(
                r"\b(?:in|after|for|wait|least|next)\s+(?:at least\s+)?(\d{1,5})\s*(s|sec|seconds?|m|mins?|minutes?|h|hours?)\b",
            )?,
            clock,
        ])
    });
    let [words, clock] = times.as_ref()?;
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u64>().ok();
    let secs = if let Some(found) = words.captures(text) {
        let unit = match found.get(2)?.as_bytes().first()?.to_ascii_lowercase() {
            b'm' => 60,
            b'h' => 3600,
            _ => 1,
        };
        number(found.get(1)?.as_bytes())? * unit
    } else {
        let found = clock.captures(text)?;
        let place = |nth| number(found.get(nth)?.as_bytes());
        place(1)? * 3600 + place(2)? * 60 + place(3)?
    };
    Some(Duration::from_secs(secs).min(AFTER_MAX)).filter(|wait| !wait.is_zero())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
