//! From what DNS says about a domain to whether its operator may be vouched for. Pure: the facts come in, a verdict of each
//! check goes out.
//!
//! What a label rests on: the DID controls the domain (`control`); it receives mail (`mx`); SPF says who sends, not "everybody",
//! and the co-op's sources are among them where the member asks for the relay (`spf`); every attested selector publishes a
//! usable key (`dkim`); DMARC asks receivers to act on failures (`dmarc`). A check that could not be made, because a server did
//! not answer, is neither passed nor failed: nobody gains or loses a label by it. Everything else is said to the member and
//! costs nothing: a [`Status::Warn`] ought to be put right, a [`Status::Note`] is only good to know (`noted`).
//!
//! Each check names what was seen and, where something is wrong, what to publish instead.
//!
//! What MTAs report of an account's mail has a rule of its own ([`sending`]).
//!
//! Not here: how the facts are collected (`verify`), and whether several resolvers agree (`quorum`).

mod control;
mod dkim;
mod dmarc;
mod noted;
pub mod sending;
mod spf;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Longer texts of strangers are cut where they are shown or kept.
const SHOWN_CHARS_MAX: usize = 300;
/// A record to publish is given whole or not at all. An RSA key of 4096 bits has some 740; longer ones nobody copies by hand.
const ADVICE_CHARS_MAX: usize = 1000;
/// Records of one name that are shown.
const SEEN_MAX: usize = 4;

/// What a lookup gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// These records (for texts: each joined from its strings).
    Found(Vec<T>),
    /// The name or the kind of record does not exist: somebody who knows says so.
    Absent,
    /// Nobody who knows has answered.
    Unknown(String),
}

/// Everything that a judgement rests on, as one resolver sees it.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Who attested.
    pub did: String,
    /// The domain, in its one spelling.
    pub domain: String,
    /// The handle that the DID document claims.
    pub handle: Option<String>,
    /// Whether the member asks for the relay.
    pub relay: bool,
    /// TXT of `_atproto.<domain>`.
    pub control: Answer<String>,
    /// `https://<domain>/.well-known/atproto-did`; asked only where the handle is the domain and the TXT is absent.
    pub well_known: Answer<String>,
    /// MX of the domain: preference and host (`.` is a null MX).
    pub mx: Answer<(u16, String)>,
    /// Addresses of the most preferred of these hosts.
    pub mx_addresses: Vec<(String, Answer<IpAddr>)>,
    /// How those greeted that were connected to (none, unless that is wanted), or why they did not; the last is the first that did.
    pub mx_greetings: Vec<(String, Result<String, String>)>,
    /// TXT of the domain.
    pub spf: Answer<String>,
    /// What SPF says of an address that nobody can send from: it fails, or the record lets everybody in.
    pub spf_probe: Option<Evaluated>,
    /// What SPF says of each of the co-op's sources.
    pub spf_sources: Vec<Evaluated>,
    /// TXT of `<selector>._domainkey.<domain>`, for each selector.
    pub dkim: Vec<(String, Answer<String>)>,
    /// TXT of `_dmarc.<domain>` and, where that has no policy, of its organizational domain.
    pub dmarc: Vec<(String, Answer<String>)>,
    /// Addresses that the SPF record names one by one, of a member who sends without the relay.
    pub senders: Vec<Sender>,
    /// TXT of `_mta-sts.<domain>`.
    pub mta_sts: Answer<String>,
    /// TXT of `_smtp._tls.<domain>`.
    pub tls_rpt: Answer<String>,
    /// TXT of `default._bimi.<domain>`.
    pub bimi: Answer<String>,
}

/// What SPF says of one address (RFC 7208 §2.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluated {
    /// The address.
    pub address: IpAddr,
    /// The result.
    pub result: SpfResult,
    /// Lookups that found nothing on the way (RFC 7208 §4.6.4).
    pub voids: u32,
    /// When it is an error: a name that the record asks for and DNS cannot hold, which will not be otherwise tomorrow.
    pub unaskable: Option<String>,
}

/// RFC 7208 §2.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of the RFC")]
pub enum SpfResult {
    Pass,
    Fail,
    SoftFail,
    Neutral,
    None,
    PermError,
    TempError,
}

/// An address that a member sends from, and whether its names lead back to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The address.
    pub address: IpAddr,
    /// PTR of the address.
    pub names: Answer<String>,
    /// Addresses of the first of these names.
    pub back: Answer<IpAddr>,
}

/// What a check is about. The text form is part of `coop.tradewind.getStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The DID and its document.
    Identity,
    /// The server that holds the account.
    Pds,
    /// The attestation.
    Record,
    /// Whether the domain names the DID.
    Control,
    /// Where the domain receives mail.
    Mx,
    /// Who may send.
    Spf,
    /// Whether the co-op's sources may.
    SpfSources,
    /// The keys of the attested selectors.
    Dkim,
    /// What receivers do with mail that fails.
    Dmarc,
    /// Names of the addresses that a member sends from.
    Ptr,
    /// Whether others must use TLS towards the domain (RFC 8461).
    MtaSts,
    /// Reports about TLS (RFC 8460).
    TlsRpt,
    /// A logo.
    Bimi,
    /// Whether the resolvers saw the same.
    Resolvers,
}

/// The outcome of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Pass,
    /// Good enough for a label, and better put right.
    Warn,
    /// Not so: no label.
    Fail,
    /// It could not be found out.
    Unknown,
    /// Not asked for, but good to know.
    Note,
}

/// A record to publish instead of what was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name in DNS.
    pub name: String,
    /// `TXT`, `MX`, `PTR`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its value, with `<…>` where only the member knows it.
    pub value: String,
}

/// One check, as the member is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What it is about.
    pub kind: Kind,
    /// Where was looked: a name in DNS, a URL, a DID.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// What was found there, cut to a readable length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<String>,
    /// What is wrong, or what is worth knowing. Nothing when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What to publish instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Record>,
}

/// The outcome of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No check failed, and every one that counts could be made.
    Pass,
    /// One failed, at least.
    Fail,
    /// None failed, but not all could be made.
    Unknown,
}

/// A verdict and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// Of all checks together.
    pub verdict: Verdict,
    /// Every check that was made, in the order in which a member would put things right.
    pub checks: Vec<Check>,
}

/// Makes every check.
pub fn judge(facts: &Facts) -> Judgement {
    let mut checks: Vec<Check> = nobodys(&facts.domain).into_iter().collect();
    checks.extend([control::check(facts), noted::mx(facts)]);
    checks.extend(spf::check(facts));
    checks.extend(facts.dkim.iter().map(|(selector, answer)| dkim::check(&facts.domain, selector, answer)));
    checks.push(dmarc::check(facts));
    checks.extend(noted::checks(facts));
    Judgement::of(checks)
}

/// Below a registry's suffix everybody has a name, so that whoever gets records into the suffix itself speaks for none of them. (A private
/// suffix is its owner's, who may attest it.)
fn nobodys(domain: &str) -> Option<Check> {
    let why = || format!("{domain} is a public suffix, below which anybody may have a name: attest your own domain below it");
    vouch::organization::is_registry(domain).then(|| Check::fail(Kind::Record, domain, why()))
}

/// The policy that `_dmarc` records of a domain or a parent carry, if they do: where a search for one may stop.
pub fn has_dmarc(texts: &[String]) -> bool {
    texts.iter().any(|text| dmarc::is_dmarc(text))
}

/// Up to `max` addresses that an SPF record names one by one.
pub fn spf_senders(texts: &[String], max: usize) -> Vec<IpAddr> {
    spf::senders(texts, max)
}

impl Judgement {
    /// The verdict follows from the checks.
    pub fn of(checks: Vec<Check>) -> Self {
        let any = |status| checks.iter().any(|check| check.status == status);
        let verdict = match (any(Status::Fail), any(Status::Unknown)) {
            (true, _) => Verdict::Fail,
            (false, true) => Verdict::Unknown,
            (false, false) => Verdict::Pass,
        };
        Self { verdict, checks }
    }

    /// A judgement that was over before any record of the domain was looked at.
    pub fn only(check: Check) -> Self {
        Self::of(vec![check])
    }

    /// Whether it failed by what the account or the domain itself says, and not by a record that may be missing for a moment:
    /// the account or its record is gone or wrong, or the domain names somebody else.
    ///
    /// `pds` is the server that showed the record last. What another one says, that it does not serve the account, decides
    /// nothing yet: an account that moves is named at its new server in the directory first, and activated there afterwards.
    pub fn is_decisive(&self, pds: Option<&str>) -> bool {
        self.checks.iter().filter(|check| check.status == Status::Fail).any(|check| match check.kind {
            Kind::Identity | Kind::Record => true,
            Kind::Pds => pds.is_none_or(|pds| pds == check.name),
            Kind::Control => check.seen.iter().any(|seen| seen.starts_with("did=")),
            _ => false,
        })
    }

    /// The server that showed the record, if one did.
    pub fn pds(&self) -> Option<&str> {
        let shown = |check: &&Check| check.kind == Kind::Pds && check.status == Status::Pass;
        self.checks.iter().find(shown).map(|check| check.name.as_str())
    }

    /// A line for every check that stands in the way of a label.
    pub fn reasons(&self) -> Vec<String> {
        self.checks.iter().filter_map(Check::reason).collect()
    }
}

impl Check {
    fn new(kind: Kind, name: impl Into<String>, status: Status) -> Self {
        Self { kind, name: name.into(), status, seen: Vec::new(), why: None, publish: None }
    }

    /// As it should be.
    pub(crate) fn pass(kind: Kind, name: impl Into<String>) -> Self {
        Self::new(kind, name, Status::Pass)
    }

    /// Not so.
    pub(crate) fn fail(kind: Kind, name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), ..Self::new(kind, name, Status::Fail) }
    }

    /// Not found out.
    pub(crate) fn unknown(kind: Kind, name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), ..Self::new(kind, name, Status::Unknown) }
    }

    /// Good to know.
    pub(crate) fn note_of(kind: Kind, name: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(kind, name, Status::Note).note(why)
    }

    fn unanswered(kind: Kind, name: &str, why: &str) -> Self {
        Self::unknown(kind, name, format!("{name} could not be looked up: {}", shown(why)))
    }

    fn warn(mut self, why: impl Into<String>) -> Self {
        (self.status, self.why) = (Status::Warn, Some(why.into()));
        self
    }

    fn note(mut self, why: impl Into<String>) -> Self {
        (self.status, self.why) = (Status::Note, Some(why.into()));
        self
    }

    pub(crate) fn seeing<'a>(mut self, texts: impl IntoIterator<Item = &'a String>) -> Self {
        self.seen = texts.into_iter().take(SEEN_MAX).map(|text| shown(text)).collect();
        self
    }

    fn publish_txt(self, name: &str, value: impl Into<String>) -> Self {
        self.publish("TXT", name, value)
    }

    fn publish(mut self, kind: &str, name: &str, value: impl Into<String>) -> Self {
        self.publish = Some(Record { name: name.into(), kind: kind.into(), value: value.into() });
        self
    }

    /// One line, when it stands in the way of a label: what is wrong and what to do.
    pub fn reason(&self) -> Option<String> {
        if !matches!(self.status, Status::Fail | Status::Unknown) {
            return None;
        }
        let mut line = format!("{}: {}", self.kind.as_str(), self.why.as_deref().unwrap_or("not as it should be"));
        if let Some(Record { name, kind, value }) = &self.publish {
            line.push_str(&format!("; publish {kind} `{value}` at {name}"));
        }
        Some(line)
    }
}

impl Kind {
    /// As JSON has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Pds => "pds",
            Self::Record => "record",
            Self::Control => "control",
            Self::Mx => "mx",
            Self::Spf => "spf",
            Self::SpfSources => "spf-sources",
            Self::Dkim => "dkim",
            Self::Dmarc => "dmarc",
            Self::Ptr => "ptr",
            Self::MtaSts => "mta-sts",
            Self::TlsRpt => "tls-rpt",
            Self::Bimi => "bimi",
            Self::Resolvers => "resolvers",
        }
    }
}

/// The value of a tag of a tag list (RFC 6376 §3.2). The first counts.
fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split(';').filter_map(|part| part.split_once('=')).find(|(tag, _)| tag.trim() == name).map(|(_, value)| value.trim())
}

/// A tag list with one tag set, or taken out; the others stay as they are.
fn with_tag(text: &str, name: &str, value: Option<&str>) -> String {
    let mut parts: Vec<String> = text.split(';').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
    let at = parts.iter().position(|part| part.split_once('=').is_some_and(|(tag, _)| tag.trim() == name));
    match (at, value) {
        (Some(at), Some(value)) => parts[at] = format!("{name}={value}"),
        (Some(at), None) => drop(parts.remove(at)),
        (None, Some(value)) => parts.insert(1.min(parts.len()), format!("{name}={value}")),
        (None, None) => {}
    }
    parts.join("; ")
}

/// The name of a tag that stands twice, which makes the whole list invalid (RFC 6376 §3.2): readers take one, the other, or none.
fn twice(text: &str) -> Option<&str> {
    let mut names: Vec<&str> = text.split(';').filter_map(|part| Some(part.split_once('=')?.0.trim())).collect();
    names.sort_unstable();
    names.windows(2).find(|two| two[0] == two[1]).map(|two| two[0])
}

/// A part of a tag list that is no `tag=value`, which makes the whole list invalid as well: what one reader passes over, another reads as the
/// beginning of the next part.
fn no_tag(text: &str) -> Option<&str> {
    let is_name = |name: &str| {
        name.starts_with(|it: char| it.is_ascii_alphabetic())
            && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_')
    };
    let mut parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
    parts.find(|part| !part.split_once('=').is_some_and(|(name, _)| is_name(name.trim())))
}

/// A stranger's record with something changed, as advice; `instead` where that is too long to be given whole.
fn advice(text: &str, instead: impl Into<String>) -> String {
    let clean: String = text.chars().filter(|it| !it.is_control()).take(ADVICE_CHARS_MAX + 1).collect();
    if clean.chars().count() > ADVICE_CHARS_MAX { instead.into() } else { clean }
}

/// Whether a text would be a record of this version, but for quotation marks or space that an editor of zones has put into it.
fn is_spoiled(text: &str, version: &str) -> bool {
    let bare = text.trim_matches(|it: char| it == '"' || it == '\'' || it == '\u{feff}' || it.is_whitespace());
    bare != text && bare.get(..version.len()).is_some_and(|start| start.eq_ignore_ascii_case(version))
}

/// A stranger's text, short enough to be shown.
fn shown(text: &str) -> String {
    let mut out: String = text.chars().filter(|it| !it.is_control()).take(SHOWN_CHARS_MAX).collect();
    if text.chars().count() > SHOWN_CHARS_MAX {
        out.push('…');
    }
    out
}
