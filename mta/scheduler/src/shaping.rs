//! Shaping: what a receiver bears, as data in layers, and what of it holds for one site from one of our sources.
//!
//! # Which value wins
//! Each setting is looked for by itself among the rules that fit. Of two rules that have it, the one wins that
//! 1. is the more specific about where: the recipient domain, before a site, before a provider, before everywhere; of two
//!    sites the one with the longer name;
//! 2. then, is the more specific about from where: a source, before a pool, before any;
//! 3. then, stands in the later layer: shipped defaults, then the files in the order of the configuration.
//!
//! So a local file need only say what is different, and what it says everywhere does not undo what is known of a provider.
//!
//! # What is counted
//! Connections, `rate` and `connect_rate` are counted for each source at each site; what begins with `provider_` for each
//! source at all sites of the provider together. A recipient domain that has a rule of its own is a site of its own for all
//! that is counted, so that neither holds up the other.
//!
//! Merged values are made once for each set of rules that fits some site, and shared by the sites that it fits.
//!
//! Not here: reading the files (`mta/src/shaping`), counting (`bucket.rs`, `window.rs`), deciding (`evaluate.rs`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::WindowLimits;

/// One of the settings of shaping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Knob {
    /// Deliveries at once, and so connections, from one source to the site: the most that its window may reach.
    Connections,
    /// Where a window starts.
    WindowInitial,
    /// Trouble narrows a window no further.
    WindowMin,
    /// Messages over one connection, then another is made.
    MessagesPerConnection,
    /// Messages in an interval.
    Rate,
    /// Connections begun in an interval.
    ConnectRate,
    /// What of any rate may go at once after a pause.
    Burst,
    /// Deliveries at once from one source to all sites of the provider together.
    ProviderConnections,
    /// Messages in an interval to all sites of the provider together.
    ProviderRate,
    /// How long to wait for a connection.
    ConnectTimeout,
    /// How long to wait for the greeting.
    GreetingTimeout,
    /// How long to wait for the reply to a command.
    ReplyTimeout,
    /// How long to wait for the reply to DATA, and for a write to be taken.
    DataTimeout,
    /// How long to wait for the reply to the end of the message.
    DataDoneTimeout,
    /// What is demanded of the connection, at least.
    Tls,
}

impl Knob {
    /// All of them.
    pub const ALL: [Knob; 15] = [
        Knob::Connections,
        Knob::WindowInitial,
        Knob::WindowMin,
        Knob::MessagesPerConnection,
        Knob::Rate,
        Knob::ConnectRate,
        Knob::Burst,
        Knob::ProviderConnections,
        Knob::ProviderRate,
        Knob::ConnectTimeout,
        Knob::GreetingTimeout,
        Knob::ReplyTimeout,
        Knob::DataTimeout,
        Knob::DataDoneTimeout,
        Knob::Tls,
    ];

    /// The key in a file.
    pub fn name(self) -> &'static str {
        match self {
            Knob::Connections => "connections",
            Knob::WindowInitial => "window_initial",
            Knob::WindowMin => "window_min",
            Knob::MessagesPerConnection => "messages_per_connection",
            Knob::Rate => "rate",
            Knob::ConnectRate => "connect_rate",
            Knob::Burst => "burst",
            Knob::ProviderConnections => "provider_connections",
            Knob::ProviderRate => "provider_rate",
            Knob::ConnectTimeout => "connect_timeout",
            Knob::GreetingTimeout => "greeting_timeout",
            Knob::ReplyTimeout => "reply_timeout",
            Knob::DataTimeout => "data_timeout",
            Knob::DataDoneTimeout => "data_done_timeout",
            Knob::Tls => "tls",
        }
    }
}

/// So many in an interval, and so many of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: Duration,
    /// After a pause so many go at once. At least 1, at most `count`.
    pub burst: u32,
}

/// What a connection must have. A floor: what a domain demands of its own accord may only raise it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsNeed {
    /// TLS where it is offered, clear text elsewhere.
    Opportunistic,
    /// TLS, or the mail waits.
    Required,
}

/// The value of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number of something.
    Count(u32),
    /// So many in an interval.
    Rate(u32, Duration),
    /// A time to wait.
    Wait(Duration),
    /// What is demanded of a connection.
    Tls(TlsNeed),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Count(count) => write!(f, "{count}"),
            Value::Rate(count, per) => write!(f, "{count}/{}", short(*per)),
            Value::Wait(wait) => f.write_str(&short(*wait)),
            Value::Tls(TlsNeed::Opportunistic) => f.write_str("opportunistic"),
            Value::Tls(TlsNeed::Required) => f.write_str("required"),
        }
    }
}

/// In the largest unit that fits: `1h`, `90s`.
pub(crate) fn short(wait: Duration) -> String {
    match wait.as_secs() {
        secs if secs >= 3600 && secs.is_multiple_of(3600) => format!("{}h", secs / 3600),
        secs if secs >= 60 && secs.is_multiple_of(60) => format!("{}m", secs / 60),
        secs => format!("{secs}s"),
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The value.
    pub value: Value,
    /// `shaping.toml:12`, or `shipped:12`.
    pub by: Arc<str>,
}

/// Where to a rule applies. Names are A-labels in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Everywhere.
    Everywhere,
    /// All sites of a provider.
    Provider(Arc<str>),
    /// Sites that have a host of this name, or below it; or the site of this name.
    Site(Arc<str>),
    /// A recipient domain.
    Domain(Arc<str>),
}

/// Where from a rule applies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum From {
    /// From anywhere.
    Any,
    /// Mail of this pool.
    Pool(Arc<str>),
    /// From this source.
    Source(Arc<str>),
}

/// Some settings for some mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where to.
    pub place: Place,
    /// Where from.
    pub from: From,
    /// The number of its layer; later ones win.
    pub layer: u16,
    /// What it sets; each setting once.
    pub sets: Vec<(Knob, Set)>,
}

/// All rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shaping {
    /// In any order.
    pub rules: Vec<Rule>,
}

/// What holds for one site from one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    sets: [Option<Set>; Knob::ALL.len()],
    /// Bounds of the window.
    pub window: WindowLimits,
    /// Messages over one connection; none: as many as the driver thinks right.
    pub messages_per_connection: Option<u32>,
    /// Messages.
    pub rate: Option<Rate>,
    /// Connections begun.
    pub connect_rate: Option<Rate>,
    /// Messages to the whole provider.
    pub provider_rate: Option<Rate>,
    /// Deliveries at once to the whole provider.
    pub provider_connections: Option<u32>,
    /// At least this is demanded of a connection.
    pub tls: TlsNeed,
}

impl Limits {
    /// What was set, and by whom.
    pub fn get(&self, knob: Knob) -> Option<&Set> {
        self.sets[knob as usize].as_ref()
    }

    /// A time to wait; none: as long as the driver thinks right.
    pub fn wait(&self, knob: Knob) -> Option<Duration> {
        match self.get(knob)?.value {
            Value::Wait(wait) => Some(wait),
            Value::Count(_) | Value::Rate(..) | Value::Tls(_) => None,
        }
    }

    fn count(&self, knob: Knob) -> Option<u32> {
        match self.get(knob)?.value {
            Value::Count(count) => Some(count),
            Value::Wait(_) | Value::Rate(..) | Value::Tls(_) => None,
        }
    }

    /// Without a burst of its own a tenth of it may go at once.
    fn rate(&self, knob: Knob) -> Option<Rate> {
        let Value::Rate(count, per) = self.get(knob)?.value else { return None };
        let burst = self.count(Knob::Burst).unwrap_or(count / 10);
        Some(Rate { count, per, burst: burst.clamp(1, count.max(1)) })
    }

    fn of(sets: [Option<Set>; Knob::ALL.len()], base: WindowLimits) -> Limits {
        let mut limits = Limits {
            sets,
            window: base,
            messages_per_connection: None,
            rate: None,
            connect_rate: None,
            provider_rate: None,
            provider_connections: None,
            tls: TlsNeed::Opportunistic,
        };
        let places = |knob| limits.count(knob).map(|count| u16::try_from(count).unwrap_or(u16::MAX));
        let window = WindowLimits {
            max: places(Knob::Connections).unwrap_or(base.max),
            initial: places(Knob::WindowInitial).unwrap_or(base.initial),
            min: places(Knob::WindowMin).unwrap_or(base.min),
        };
        // Of three values from three layers the most is the word that counts.
        let max = window.max.max(1);
        limits.window = WindowLimits { max, initial: window.initial.min(max), min: window.min.min(max) };
        limits.messages_per_connection = limits.count(Knob::MessagesPerConnection);
        limits.rate = limits.rate(Knob::Rate);
        limits.connect_rate = limits.rate(Knob::ConnectRate);
        limits.provider_rate = limits.rate(Knob::ProviderRate);
        limits.provider_connections = limits.count(Knob::ProviderConnections);
        if let Some(Set { value: Value::Tls(need), .. }) = limits.get(Knob::Tls) {
            limits.tls = *need;
        }
        limits
    }

    /// What holds where nothing is set.
    pub fn without_rules(base: WindowLimits) -> Limits {
        Limits::of([const { None }; Knob::ALL.len()], base)
    }
}

/// Where mail goes to: what rules are held against.
#[derive(Clone, Copy)]
pub struct Destination<'a> {
    /// The provider.
    pub provider: &'a str,
    /// The site: its hosts' names, joined by `,`.
    pub site: &'a str,
    /// The recipient domain.
    pub domain: Option<&'a str>,
}

/// Whether `host` is `suffix` or a name below it.
pub fn ends_with(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

impl Rule {
    fn fits(&self, to: Destination<'_>) -> bool {
        match &self.place {
            Place::Everywhere => true,
            Place::Provider(name) => **name == *to.provider,
            Place::Site(name) => **name == *to.site || to.site.split(',').any(|host| ends_with(host, name)),
            Place::Domain(name) => to.domain == Some(&**name),
        }
    }

    /// See the top of this file.
    fn rank(&self) -> (u8, usize, u8, u16) {
        let (place, length) = match &self.place {
            Place::Everywhere => (0, 0),
            Place::Provider(_) => (1, 0),
            Place::Site(name) => (2, name.len()),
            Place::Domain(_) => (3, 0),
        };
        let from = match &self.from {
            From::Any => 0,
            From::Pool(_) => 1,
            From::Source(_) => 2,
        };
        (place, length, from, self.layer)
    }
}

impl Shaping {
    /// Whether a recipient domain has a rule of its own.
    pub fn names_domain(&self, domain: &str) -> bool {
        self.rules.iter().any(|rule| matches!(&rule.place, Place::Domain(name) if **name == *domain))
    }

    /// Numbers of the rules that fit a destination, from wherever.
    pub(crate) fn fitting(&self, to: Destination<'_>) -> Box<[u32]> {
        let fitting = self.rules.iter().enumerate().filter(|(_, rule)| rule.fits(to));
        fitting.map(|(nth, _)| nth as u32).collect()
    }

    /// Merges rules for one source and pool.
    pub(crate) fn merge(&self, rules: &[u32], source: &str, pool: &str, base: WindowLimits) -> Limits {
        let mut sets = [const { None::<((u8, usize, u8, u16), &Set)> }; Knob::ALL.len()];
        for rule in rules.iter().filter_map(|nth| self.rules.get(*nth as usize)) {
            let fits = match &rule.from {
                From::Any => true,
                From::Pool(name) => **name == *pool,
                From::Source(name) => **name == *source,
            };
            for (knob, set) in rule.sets.iter().filter(|_| fits) {
                let best = &mut sets[*knob as usize];
                if best.is_none_or(|(rank, _)| rank <= rule.rank()) {
                    *best = Some((rule.rank(), set));
                }
            }
        }
        Limits::of(sets.map(|best| best.map(|(_, set)| set.clone())), base)
    }

    /// What holds at a destination for one source and pool.
    pub fn limits(&self, to: Destination<'_>, source: &str, pool: &str, base: WindowLimits) -> Limits {
        self.merge(&self.fitting(to), source, pool, base)
    }
}
