//! Files of shaping: what receivers bear, and who they are. Read in layers, shipped ones first.
//!
//! The order in which values win is told in `scheduler::shaping`. A file is refused as a whole, with line and key, as
//! `mta.toml` is; and with it all others, so that no half of a change ever holds.
//!
//! Not here: merging and enforcing (`scheduler`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use scheduler::{From, Knob, Place, Rule, Set, Shaping, TlsNeed, Value};
use serde::Deserialize;
use smtp::address::Mailbox;

use super::settings::{Table, settings};
use super::value::{self, PerTime, Tls};
use super::{Config, ConfigError, Problem, check, error::Source};
use crate::egress::provider::{OTHER, Providers};

/// What the program brings along, as `tradewind config shaping` prints it.
pub const SHIPPED: [(&str, &str); 2] =
    [("providers.toml", include_str!("providers.toml")), ("shaping.toml", include_str!("shaping.toml"))];

/// Whose word a shipped value is.
pub const SHIPPED_LAYER: &str = "shipped";

/// Whose word a value is that operators keep through the API: the last layer, in [`kept_at`].
pub const KEPT_LAYER: &str = "kept";

/// Octets of what operators keep.
pub const KEPT_BYTES_MAX: usize = 64 << 10;

/// The file that operators keep through the API, and the one with what was there before the last change: what undo puts back.
pub fn kept_at(data_dir: &Path) -> (PathBuf, PathBuf) {
    (data_dir.join("shaping.toml"), data_dir.join("shaping.before"))
}

/// The texts that shaping came from, the shipped ones apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Texts {
    /// `[shaping]` files, in their order.
    pub files: Vec<(PathBuf, String)>,
    /// What operators keep; empty: nothing.
    pub kept: String,
}

/// The tables of such a file.
pub const TABLES: [Table; 2] = [ShapeTable::TABLE, ProviderTable::TABLE];

/// All files, read and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Shaped {
    /// What receivers bear.
    pub shaping: Arc<Shaping>,
    /// Who they are.
    pub providers: Arc<Providers>,
    /// What it was read from.
    pub texts: Arc<Texts>,
}

settings! {
    /// What some receivers bear. One of provider, site and domain says which; none of them: everywhere. A source or a pool narrows
    /// it to mail from there. Each setting is looked for by itself: a domain's goes before a site's, that before a provider's, that
    /// before what is said of everywhere; then a source's before a pool's before any; then a later file's before an earlier's.
    pub struct ShapeTable as "[[shape]]" {
        /// A provider: one of `tradewind config shaping`, or of a [[provider]] table. `other` is whoever is in no list.
        #[serde(default)]
        pub provider: Option<String> = r#""google""#, Optional;
        /// Instead: sites that have a host of this name, or below it. Mail to an address literal goes to the site "[192.0.2.1]".
        #[serde(default)]
        pub site: Option<String> = r#""mx.example.net""#, Optional;
        /// Instead: a recipient domain, or an address literal such as "[IPv6:2001:db8::1]". It is then counted by itself, beside the site that it shares with others.
        #[serde(default)]
        pub domain: Option<String> = r#""example.org""#, Optional;
        /// Only from this source.
        #[serde(default)]
        pub source: Option<String> = r#""ip-a""#, Optional;
        /// Only mail of this pool.
        #[serde(default)]
        pub pool: Option<String> = r#""default""#, Optional;
        /// Deliveries at once, and so connections, from one source to one site; feedback keeps it below. 1 to 1000. The last
        /// one of four or more is for otp.
        #[serde(default)]
        pub connections: Option<u32> = "20", Optional;
        /// Deliveries at once at first. 1 to 1000.
        #[serde(default)]
        pub window_initial: Option<u32> = "10", Optional;
        /// Trouble narrows no further than to this. 1 to 1000.
        #[serde(default)]
        pub window_min: Option<u32> = "1", Optional;
        /// Messages over one connection, then another is made. 1 to 100000.
        #[serde(default)]
        pub messages_per_connection: Option<u32> = "100", Optional;
        /// Messages in an interval from one source to one site. The count starts afresh with the daemon.
        #[serde(default)]
        pub rate: Option<PerTime> = r#""100/1m""#, Optional;
        /// Connections begun in an interval from one source to one site.
        #[serde(default)]
        pub connect_rate: Option<PerTime> = r#""30/1m""#, Optional;
        /// What of each rate may go at once after a pause. Without it: a tenth of the rate.
        #[serde(default)]
        pub burst: Option<u32> = "20", Optional;
        /// Only with provider: deliveries at once from one source to all of its sites. 1 to 100000.
        #[serde(default)]
        pub provider_connections: Option<u32> = "20", Optional;
        /// Only with provider: messages in an interval from one source to all of its sites.
        #[serde(default)]
        pub provider_rate: Option<PerTime> = r#""1000/1h""#, Optional;
        /// How long to wait for a connection. 1s to 5m.
        #[serde(default, deserialize_with = "value::duration_or_none")]
        pub connect_timeout: Option<Duration> = r#""30s""#, Optional;
        /// How long to wait for the greeting. 5s to 30m (RFC 5321 §4.5.3.2.1: 5m).
        #[serde(default, deserialize_with = "value::duration_or_none")]
        pub greeting_timeout: Option<Duration> = r#""5m""#, Optional;
        /// How long to wait for the reply to a command. 5s to 30m (RFC 5321 §4.5.3.2.2: 5m).
        #[serde(default, deserialize_with = "value::duration_or_none")]
        pub reply_timeout: Option<Duration> = r#""5m""#, Optional;
        /// How long to wait for the reply to DATA, and for what is written to be taken. 5s to 30m (RFC 5321 §4.5.3.2.5: 3m).
        #[serde(default, deserialize_with = "value::duration_or_none")]
        pub data_timeout: Option<Duration> = r#""3m""#, Optional;
        /// How long to wait for the reply to a whole message. 1m to 30m (RFC 5321 §4.5.3.2.6: 10m): whoever gives up sooner
        /// often sends it twice.
        #[serde(default, deserialize_with = "value::duration_or_none")]
        pub data_done_timeout: Option<Duration> = r#""10m""#, Optional;
        /// What a connection must have: opportunistic (TLS where it is offered) or required (else mail waits). What a domain
        /// demands itself, by MTA-STS or DANE, is demanded on top.
        #[serde(default)]
        pub tls: Option<Tls> = r#""required""#, Optional;
    }
}

settings! {
    /// Who operates hosts: adds to a provider, or makes one.
    pub struct ProviderTable as "[[provider]]" {
        /// Its name.
        pub name: String = r#""google""#, Required;
        /// Hosts of these names and below them. The longest name counts; of the same name the later file's word.
        pub mx: Vec<String> = r#"["mx.example.net"]"#, Required;
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    provider: Vec<ProviderTable>,
    #[serde(default)]
    shape: Vec<ShapeTable>,
}

/// Names that rules may use.
#[derive(Default)]
struct Names {
    sources: Vec<String>,
    pools: Vec<String>,
}

impl Names {
    fn of(config: &Config) -> Names {
        Names {
            sources: config.source.iter().map(|source| source.name.clone()).collect(),
            pools: config.pool_names().map(str::to_owned).collect(),
        }
    }
}

impl Default for Shaped {
    fn default() -> Shaped {
        Shaped::shipped()
    }
}

impl Shaped {
    /// The shipped layer alone.
    pub fn shipped() -> Shaped {
        let read = Shaped::of(Texts::default(), &Names::default());
        // A test reads them.
        assert!(read.is_ok(), "shipped shaping is in order");
        read.unwrap_or_else(|_| Shaped { shaping: Arc::default(), providers: Arc::default(), texts: Arc::default() })
    }

    /// The shipped layer, the files that `config` names, which are relative to `folder`, and what operators keep.
    pub(super) fn load(config: &Config, folder: &Path) -> Result<Shaped, ConfigError> {
        let cannot = |path: &Path, error: std::io::Error, see: &str| {
            let message = format!("cannot be read: {error}; {see}");
            ConfigError { file: path.to_owned(), problems: vec![Problem { line: None, key: String::new(), message }] }
        };
        let mut files = Vec::new();
        for name in &config.shaping.files {
            let path = folder.join(name);
            let text = std::fs::read_to_string(&path).map_err(|error| cannot(&path, error, "see [shaping] files"))?;
            files.push((name.clone(), text));
        }
        let (path, _) = kept_at(&config.data_dir);
        let kept = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|error| cannot(&path, error, "operators keep shaping there"))?,
        };
        let read = Shaped::of(Texts { files, kept }, &Names::of(config));
        read.map_err(|error| match error.file == Path::new(KEPT_LAYER) {
            true => ConfigError { file: path, ..error },
            false => error,
        })
    }

    /// What it would be if operators kept this text: tables `[[shape]]` only, because what makes a provider changes more than shaping.
    pub fn with_kept(config: &Config, text: &str) -> Result<Shaped, ConfigError> {
        let texts = Texts { kept: text.to_owned(), ..Texts::clone(&config.shaped.texts) };
        let shaped = Shaped::of(texts, &Names::of(config))?;
        let file: File = toml::from_str(text).unwrap_or_default();
        if file.provider.is_empty() {
            return Ok(shaped);
        }
        let line = Source::parse(text).ok().and_then(|source| source.line_of("provider.0.name"));
        let message = "is made in a file of [shaping]; here are tables [[shape]]".to_owned();
        Err(ConfigError { file: KEPT_LAYER.into(), problems: vec![Problem { line, key: "provider".to_owned(), message }] })
    }

    fn of(texts: Texts, names: &Names) -> Result<Shaped, ConfigError> {
        let (mut providers, mut rules) = (Providers::default(), Vec::new());
        let shipped = SHIPPED.iter().map(|(name, text)| (None, Path::new(name).to_owned(), (*text).to_owned()));
        let numbered =
            texts.files.iter().enumerate().map(|(nth, (name, text))| (Some(nth as u16 + 1), name.clone(), text.clone()));
        let kept = (Some(texts.files.len() as u16 + 1), PathBuf::from(KEPT_LAYER), texts.kept.clone());
        let files: Vec<(Option<u16>, PathBuf, String)> = shipped.chain(numbered).chain([kept]).collect();
        // A rule may speak of a provider that a later file makes.
        let mut read = Vec::new();
        for (layer, path, text) in &files {
            let fail = |problems| ConfigError { file: path.clone(), problems };
            let source = Source::parse(text).map_err(|problem| fail(vec![problem]))?;
            let file: File = toml::from_str(text).map_err(|error| fail(vec![source.refusal(&error)]))?;
            let mut it = check::Problems::new(&source);
            for (nth, table) in file.provider.iter().enumerate() {
                add_provider(&mut it, nth, table, &file.provider[..nth], &mut providers);
            }
            let problems = it.take();
            if !problems.is_empty() {
                return Err(fail(problems));
            }
            read.push((*layer, path, source, file.shape));
        }
        for (layer, path, source, shapes) in read {
            let mut it = check::Problems::new(&source);
            let mut seen: Vec<(Place, From)> = Vec::new();
            for (nth, table) in shapes.iter().enumerate() {
                let by = |key: &str| -> Arc<str> {
                    let line = source.line_of(&format!("shape.{nth}.{key}")).unwrap_or_default();
                    if layer.is_some() { format!("{}:{line}", path.display()).into() } else { SHIPPED_LAYER.into() }
                };
                let rule = Rule {
                    place: place(&mut it, nth, table, &providers),
                    from: from(&mut it, nth, table, names),
                    layer: layer.unwrap_or(0),
                    sets: sets(&mut it, nth, table, by),
                };
                let key = (rule.place.clone(), rule.from.clone());
                if seen.contains(&key) {
                    it.add(&format!("shape.{nth}"), "speaks of the same mail as a table before; write their settings into one");
                }
                seen.push(key);
                rules.push(rule);
            }
            let problems = it.take();
            if !problems.is_empty() {
                return Err(ConfigError { file: path.clone(), problems });
            }
        }
        Ok(Shaped { shaping: Arc::new(Shaping { rules }), providers: Arc::new(providers), texts: Arc::new(texts) })
    }
}

fn add_provider(
    it: &mut check::Problems<'_>,
    nth: usize,
    table: &ProviderTable,
    before: &[ProviderTable],
    providers: &mut Providers,
) {
    let at = |key: &str| format!("provider.{nth}.{key}");
    it.word(&at("name"), &table.name, "example");
    if table.name == OTHER {
        it.add(&at("name"), "other is whoever is in no list; choose another name");
    }
    if table.mx.is_empty() {
        it.add(&at("mx"), "is empty; name hosts, such as [\"mx.example.net\"]");
    }
    for (item, suffix) in table.mx.iter().enumerate() {
        let at = format!("provider.{nth}.mx.{item}");
        let suffix = suffix.to_ascii_lowercase();
        it.host_name(&at, &suffix);
        if !suffix.contains('.') {
            it.add(&at, format!("\"{suffix}\" is a whole top-level domain; name hosts below it"));
        }
        if before.iter().any(|other| other.name != table.name && other.mx.iter().any(|name| name.eq_ignore_ascii_case(&suffix))) {
            it.add(&at, format!("\"{suffix}\" is another provider's in this file; leave it to one of them"));
        }
        providers.add(&suffix, &table.name);
    }
}

fn place(it: &mut check::Problems<'_>, nth: usize, table: &ShapeTable, providers: &Providers) -> Place {
    let at = |key: &str| format!("shape.{nth}.{key}");
    let host = |it: &mut check::Problems<'_>, key: &str, name: &String| -> Arc<str> {
        if name.starts_with('[') {
            return literal(it, &at(key), name);
        }
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        // The name of a site may be several hosts'.
        name.split(',').for_each(|name| it.host_name(&at(key), name));
        name.into()
    };
    match (&table.provider, &table.site, &table.domain) {
        (None, None, None) => Place::Everywhere,
        (Some(name), None, None) => {
            if name != OTHER && !providers.has(name) {
                let known: Vec<_> = providers.names().collect();
                it.add(
                    &at("provider"),
                    format!("no provider is named \"{}\"; there are: {}", name.escape_debug(), known.join(", ")),
                );
            }
            Place::Provider(name.as_str().into())
        }
        (None, Some(name), None) => Place::Site(host(it, "site", name)),
        (None, None, Some(name)) => Place::Domain(host(it, "domain", name)),
        (_, second, third) => {
            let key = if second.is_some() && third.is_none() { "site" } else { "domain" };
            it.add(&at(key), "a table speaks of one of provider, site and domain; make a table for each");
            Place::Everywhere
        }
    }
}

/// An address literal in the spelling that recipients' domains have.
fn literal(it: &mut check::Problems<'_>, at: &str, name: &str) -> Arc<str> {
    match Mailbox::parse(&format!("postmaster@{name}"), false) {
        Ok(mailbox) => mailbox.domain().into(),
        Err(_) => {
            it.add(at, "is no address literal; write \"[192.0.2.1]\" or \"[IPv6:2001:db8::1]\"");
            name.into()
        }
    }
}

fn from(it: &mut check::Problems<'_>, nth: usize, table: &ShapeTable, names: &Names) -> From {
    let at = |key: &str| format!("shape.{nth}.{key}");
    let known = |it: &mut check::Problems<'_>, key: &str, name: &String, all: &[String]| {
        if !all.contains(name) {
            it.add(&at(key), format!("no [[{key}]] is named \"{}\"; there are: {}", name.escape_debug(), all.join(", ")));
        }
    };
    match (&table.source, &table.pool) {
        (None, None) => From::Any,
        (Some(name), None) => {
            known(it, "source", name, &names.sources);
            From::Source(name.as_str().into())
        }
        (None, Some(name)) => {
            known(it, "pool", name, &names.pools);
            From::Pool(name.as_str().into())
        }
        (Some(_), Some(_)) => {
            it.add(&at("pool"), "a table speaks of a source or of a pool; make a table for each");
            From::Any
        }
    }
}

fn sets(it: &mut check::Problems<'_>, nth: usize, table: &ShapeTable, by: impl Fn(&str) -> Arc<str>) -> Vec<(Knob, Set)> {
    let at = |key: &str| format!("shape.{nth}.{key}");
    let mut sets = Vec::new();
    let mut set = |knob: Knob, value: Value| sets.push((knob, Set { value, by: by(knob.name()) }));
    let counts = [
        (Knob::Connections, table.connections, 1000),
        (Knob::WindowInitial, table.window_initial, 1000),
        (Knob::WindowMin, table.window_min, 1000),
        (Knob::MessagesPerConnection, table.messages_per_connection, 100_000),
        (Knob::Burst, table.burst, 1_000_000),
        (Knob::ProviderConnections, table.provider_connections, 100_000),
    ];
    for (knob, count, most) in counts {
        let Some(count) = count else { continue };
        it.between(&at(knob.name()), count.into(), 1, most);
        set(knob, Value::Count(count));
    }
    let rates = [(Knob::Rate, table.rate), (Knob::ConnectRate, table.connect_rate), (Knob::ProviderRate, table.provider_rate)];
    for (knob, rate) in rates {
        let Some(PerTime { count, per }) = rate else { continue };
        if table.burst.is_some_and(|burst| burst > count) {
            it.add(&at("burst"), format!("is more than the {count} of {}; choose at most that", knob.name()));
        }
        set(knob, Value::Rate(count, per));
    }
    let minute = 60;
    let waits = [
        (Knob::ConnectTimeout, table.connect_timeout, 1, 5 * minute),
        (Knob::GreetingTimeout, table.greeting_timeout, 5, 30 * minute),
        (Knob::ReplyTimeout, table.reply_timeout, 5, 30 * minute),
        (Knob::DataTimeout, table.data_timeout, 5, 30 * minute),
        (Knob::DataDoneTimeout, table.data_done_timeout, minute, 30 * minute),
    ];
    for (knob, wait, least, most) in waits {
        let Some(wait) = wait else { continue };
        if !(Duration::from_secs(least)..=Duration::from_secs(most)).contains(&wait) {
            it.add(&at(knob.name()), format!("is out of range; choose \"{least}s\" to \"{}m\"", most / 60));
        }
        set(knob, Value::Wait(wait));
    }
    if let Some(need) = table.tls {
        let need = match need {
            Tls::Opportunistic => TlsNeed::Opportunistic,
            Tls::Required => TlsNeed::Required,
        };
        set(Knob::Tls, Value::Tls(need));
    }
    for (key, window) in [("window_initial", table.window_initial), ("window_min", table.window_min)] {
        if let (Some(window), Some(most)) = (window, table.connections)
            && window > most
        {
            it.add(&at(key), format!("is more than the {most} of connections; choose at most that"));
        }
    }
    let whole =
        [(Knob::ProviderConnections, table.provider_connections.is_some()), (Knob::ProviderRate, table.provider_rate.is_some())];
    for (knob, _) in whole.into_iter().filter(|(_, given)| *given) {
        match table.provider.as_deref() {
            None => it.add(&at(knob.name()), "counts a whole provider; name one with provider"),
            Some(OTHER) => it.add(&at(knob.name()), "counts a whole provider, and other is many; name one with provider"),
            Some(_) => {}
        }
    }
    if sets.is_empty() {
        it.add(&format!("shape.{nth}"), "sets nothing; add a setting, or remove the table");
    }
    sets
}

/// What `tradewind config shaping` prints: every setting explained, then the shipped files.
pub fn print_shipped() -> String {
    let mut out = super::describe::commented(&TABLES);
    for (name, text) in SHIPPED {
        out.push_str(&format!("\n# ---- {SHIPPED_LAYER}: {name}\n\n{text}"));
    }
    out
}

#[cfg(test)]
#[path = "shaping_tests.rs"]
mod tests;
