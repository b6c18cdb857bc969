//! The labeler's settings: `labeler.toml`.
//!
//! What is not known is refused, never ignored, with the file, the line, the key and what would be right. Relative paths are
//! relative to the file's own folder.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atproto::Did;
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::Url;

pub use crate::admin::Admin;
pub use crate::standing::Standing;
use crate::store::Patience;

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who this labeler is: the `src` of its labels. A did:web is served at `/.well-known/did.json`.
    pub did: Did,
    /// File of the secp256k1 key that signs labels, 64 hexadecimal digits. Made when absent, mode 0600; its did:key is printed
    /// at start.
    pub signing_key: PathBuf,
    /// The store. Made when absent, mode 0700. One process at a time.
    pub data_dir: PathBuf,
    /// Address and port of the HTTP listener. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// How DIDs are looked up.
    #[serde(default)]
    pub identity: Identity,
    /// Where attestations are seen.
    #[serde(default)]
    pub ingest: Ingest,
    /// Whom to ask for members' records.
    #[serde(default)]
    pub dns: Dns,
    /// How often members are looked at again.
    #[serde(default)]
    pub verify: Verify,
    /// How long labels hold.
    #[serde(default)]
    pub labels: Labels,
    /// Who may ask how much.
    #[serde(default)]
    pub serve: Serve,
    /// The operator's listener. Absent: none.
    pub admin: Option<Admin>,
    /// What MTAs report and read. Absent: nothing.
    pub standing: Option<Standing>,
}

/// Who may ask how much.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Serve {
    /// Proxies of ours, whose `X-Forwarded-For` says who asks. Without it all that come through a proxy would count as one.
    /// Default: `["127.0.0.1", "::1"]`.
    pub trusted_proxies: Vec<IpAddr>,
    /// Requests of one address in a minute, or of one IPv6 network of /64; more are answered 429. An MTA that asks about 100,000
    /// members makes some 900 at a time. Default: 12000.
    #[serde(deserialize_with = "positive")]
    pub requests_per_minute: u32,
    /// Streams (`subscribeLabels`) of one address at a time. Default: 16.
    #[serde(deserialize_with = "positive")]
    pub subscriptions_per_address: u32,
    /// Streams of all at a time. Each holds some 40 KB. Default: 2000.
    #[serde(deserialize_with = "positive")]
    pub subscribers_max: u32,
}

impl Default for Serve {
    fn default() -> Self {
        let trusted_proxies = vec![std::net::Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()];
        Self { trusted_proxies, requests_per_minute: 12_000, subscriptions_per_address: 16, subscribers_max: 2000 }
    }
}

/// How long labels hold.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Labels {
    /// From its issue until a label runs out (`exp`), so that the word of a labeler which is dead ends. Labels in force are
    /// issued again when half of it has passed. At least `1h`; default: `168h`.
    #[serde(deserialize_with = "hours")]
    pub expires_after: Duration,
    /// How long labels that newer ones have superseded are still streamed to who was away. The newest of each kind are kept
    /// anyhow. At least `1h`; default: `720h`.
    #[serde(deserialize_with = "hours")]
    pub history: Duration,
}

impl Default for Labels {
    fn default() -> Self {
        let crate::store::Terms { expires_after, history } = crate::store::Terms::default();
        Self { expires_after, history }
    }
}

/// How DIDs are looked up.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// The PLC directory. Default: `https://plc.directory`.
    #[serde(deserialize_with = "http_url")]
    pub plc_url: Url,
    /// Whether a PDS, a did:web or a handle may be fetched from loopback and private addresses, which strangers' records could
    /// name to reach what is behind our firewall. Default: only when `plc_url` is itself on loopback, which is a test network.
    pub allow_private_addresses: Option<bool>,
}

/// Where attestations are seen. Both are only hints: each record is fetched again with its proof.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingest {
    /// `com.atproto.sync.subscribeRepos` of a relay or PDS, such as `wss://relay.example`.
    #[serde(deserialize_with = "optional_ws_url")]
    pub firehose: Option<Url>,
    /// A relay that lists who has attestations (`com.atproto.sync.listReposByCollection`), such as `https://relay.example`; it is
    /// asked once, for those from before the streams. Default: the host of `firehose`.
    #[serde(deserialize_with = "optional_http_url")]
    pub backfill: Option<Url>,
    /// A Jetstream: of version 1, such as `wss://jetstream.example/subscribe`, or of version 2, such as
    /// `wss://jetstream.example/xrpc/network.bsky.jetstream.subscribeEvents`.
    #[serde(deserialize_with = "jetstream_url")]
    pub jetstream: Option<Url>,
}

/// Whom to ask for members' records.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// Recursive name servers. Default: those of `/etc/resolv.conf`.
    pub nameservers: Option<Vec<SocketAddr>>,
    /// Further resolvers, which look from other places (another network, another operator): a label is given or taken only when
    /// enough of all of them see the same. Default: none.
    pub vantage: Vec<Vantage>,
    /// How many must see the same, `nameservers` counted as one. Default: all of two, all but one of three to five, all but two
    /// of more.
    pub quorum: Option<usize>,
}

/// A resolver that looks from another place.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vantage {
    /// What members are told of who saw what.
    pub name: String,
    /// Its recursive name servers.
    pub nameservers: Vec<SocketAddr>,
}

/// How often members are looked at again.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Verify {
    /// How long after a check that passed the next one is due. A check that did not pass is repeated after a second, then after twice as
    /// long, and so on, up to an hour while labels are in question and to six where there are none; a member who has put things right
    /// need not wait, when `coop.tradewind.checkDomain` or the status page's form finds all in order. Default: `24h`.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// Addresses that the co-op's relay sends from. SPF of whoever asks for the relay must pass for each. Default: none, and SPF
    /// is checked without.
    pub sources: Vec<IpAddr>,
    /// Whether a domain's exchanges are connected to (port 25) and must greet. Who is not greeted is warned, and keeps labels. It takes that nobody
    /// blocks such connections from here. Default: false, and only their addresses are looked up.
    pub mx_connect: bool,
    /// Definite failures in a row that take labels away. Servers that do not answer are none (see `silent_for`). What the account itself says (its
    /// record is gone) and a domain that names another DID counts at once. Default: 3.
    pub failures: NonZeroU32,
    /// and how much time must lie between the first and the last of them. Default: a 24th of `interval`, at most `1h`.
    #[serde(deserialize_with = "optional_duration")]
    pub failing_for: Option<Duration>,
    /// How long labels stand although no look can confirm them, because name servers, the PDS or the directory do not answer: from the
    /// first such look on, five at least. Days when the labeler itself did not run do not count. Default: `168h`.
    #[serde(deserialize_with = "hours")]
    pub silent_for: Duration,
    /// Attestations that are looked at at the same time, 12 to 1024. Further ones wait in the store. Default: 96.
    pub concurrency: usize,
    /// Accounts a second of one host (by the last labels of its name) that do not carry labels yet. Default: 10.
    pub per_host: NonZeroU32,
}

impl Default for Identity {
    fn default() -> Self {
        let Ok(plc_url) = Url::parse("https://plc.directory") else { unreachable!("a URL") };
        Self { plc_url, allow_private_addresses: None }
    }
}

impl Default for Verify {
    fn default() -> Self {
        let (three, ten) = (NonZeroU32::MIN.saturating_add(2), NonZeroU32::MIN.saturating_add(9));
        Self {
            interval: Duration::from_secs(24 * 3600),
            sources: Vec::new(),
            mx_connect: false,
            failures: three,
            failing_for: None,
            silent_for: Duration::from_secs(7 * 86_400),
            concurrency: 96,
            per_host: ten,
        }
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError::whole(file, format!("cannot be read: {error}")))?;
        let mut config = Self::parse(&text, file)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        config.signing_key = folder.join(&config.signing_key);
        config.data_dir = folder.join(&config.data_dir);
        Ok(config)
    }

    /// Checks a text; `file` is for the messages.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::found(file, text, &error))?;
        if config.ingest.firehose.is_none() && config.ingest.jetstream.is_none() {
            return Err(ConfigError::whole(
                file,
                "needs `firehose` or `jetstream` in [ingest], or no attestation is ever seen".into(),
            ));
        }
        if config.did.as_str().len() > crate::store::DID_BYTES_MAX {
            return Err(ConfigError::whole(file, "`did` is too long".into()));
        }
        if config.did.as_str().starts_with("did:web:") && atproto::did::web_origin(&config.did).is_none() {
            return Err(ConfigError::whole(file, "a did:web of `did` is a host only, or localhost%3A and a port".into()));
        }
        let resolvers = config.dns.vantage.len() + 1;
        if !(1..=resolvers).contains(&config.dns.quorum()) {
            return Err(ConfigError::whole(file, format!("`quorum` in [dns] is 1 to {resolvers}, the number of resolvers")));
        }
        if let Some(empty) = config.dns.vantage.iter().find(|vantage| vantage.nameservers.is_empty()) {
            return Err(ConfigError::whole(file, format!("`nameservers` of the vantage {:?} in [dns] is empty", empty.name)));
        }
        if !(12..=1024).contains(&config.verify.concurrency) {
            return Err(ConfigError::whole(file, "`concurrency` in [verify] is 12 to 1024".into()));
        }
        Ok(config)
    }

    /// See [`Identity::allow_private_addresses`].
    pub fn allows_private_addresses(&self) -> bool {
        self.identity.allows_private_addresses()
    }
}

impl Ingest {
    /// See `backfill`. None when there is neither.
    pub(crate) fn relay(&self) -> Option<Url> {
        self.backfill.clone().or_else(|| {
            let mut url = self.firehose.clone()?;
            let scheme = if url.scheme() == "wss" { "https" } else { "http" };
            url.set_scheme(scheme).ok()?;
            url.set_path("");
            url.set_query(None);
            Some(url)
        })
    }
}

impl Identity {
    pub(crate) fn allows_private_addresses(&self) -> bool {
        let on_loopback = match self.plc_url.host() {
            Some(url::Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
            Some(url::Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        };
        self.allow_private_addresses.unwrap_or(on_loopback)
    }
}

impl Verify {
    /// See [`Patience`].
    pub fn patience(&self) -> Patience {
        let usual = (self.interval / 24).min(Duration::from_secs(3600));
        let failing_for = self.failing_for.unwrap_or(usual);
        Patience { interval: self.interval, failures: self.failures.get(), failing_for, silent_for: self.silent_for }
    }
}

impl Dns {
    /// Every resolver, and how many of them must agree.
    pub fn quorum(&self) -> usize {
        self.quorum.unwrap_or_else(|| crate::quorum::usual(self.vantage.len() + 1))
    }
}

fn http_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    url_of(&String::deserialize(deserializer)?, &["http", "https"]).map_err(de::Error::custom)
}

fn optional_http_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    http_url(deserializer).map(Some)
}

fn optional_ws_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    url_of(&String::deserialize(deserializer)?, &["ws", "wss"]).map(Some).map_err(de::Error::custom)
}

fn jetstream_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let url = optional_ws_url(deserializer)?;
    let is_v2 = |url: &Url| url.path() == crate::ingest::JETSTREAM_V2;
    if url.as_ref().is_some_and(|url| url.path().starts_with("/xrpc") && !is_v2(url)) {
        let right = crate::ingest::JETSTREAM_V2;
        return Err(de::Error::custom(format!("version 2 of Jetstream is read at {right}, version 1 at /subscribe")));
    }
    Ok(url)
}

fn url_of(text: &str, schemes: &[&str]) -> Result<Url, String> {
    let right = format!("\"{text}\" is not a URL of {}; write it as \"{}://host:port\"", schemes.join(" or "), schemes[0]);
    let url = Url::parse(text).map_err(|_| right.clone())?;
    if schemes.contains(&url.scheme()) && url.has_host() && url.fragment().is_none() { Ok(url) } else { Err(right) }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let right =
        || de::Error::custom(format!("\"{text}\" is not a duration of at least one second; write \"30s\", \"15m\" or \"24h\""));
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| right())?;
    Duration::try_from(parsed).ok().filter(|parsed| *parsed >= Duration::from_secs(1)).ok_or_else(right)
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = u32::deserialize(deserializer)?;
    // More than a machine has descriptors or time for, and less than what counting could not hold.
    if (1..=100_000_000).contains(&number) { Ok(number) } else { Err(de::Error::custom("a number from 1 to 100000000")) }
}

fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

fn hours<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let parsed = duration(deserializer)?;
    // Ten years: times that a label can say.
    let right = Duration::from_secs(3600)..=Duration::from_secs(10 * 366 * 86_400);
    if right.contains(&parsed) { Ok(parsed) } else { Err(de::Error::custom("at least \"1h\", at most ten years")) }
}

/// Why a configuration cannot be used. The program prints it and exits 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file as it was named.
    pub file: PathBuf,
    /// Counted from 1; none when it concerns the file as a whole.
    pub line: Option<usize>,
    /// With its table: `verify.interval`. Empty for a syntax error.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl ConfigError {
    fn whole(file: &Path, message: String) -> Self {
        Self { file: file.into(), line: None, key: String::new(), message }
    }

    fn found(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().map(|span| span.start);
        let line = at.map(|at| 1 + text.bytes().take(at).filter(|octet| *octet == b'\n').count());
        let mut path = Vec::new();
        if let (Some(at), Ok(root)) = (at, DeTable::parse(text)) {
            descend(root.get_ref(), at, &mut path);
        }
        Self { file: file.into(), line, key: path.join("."), message: error.message().replace('\n', "; ") }
    }
}

/// The names of the keys around a place in the file.
fn descend(table: &DeTable<'_>, at: usize, path: &mut Vec<String>) -> bool {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        if key.span().contains(&at) || reaches(value, at, path) {
            return true;
        }
        path.pop();
    }
    false
}

/// A table's own span is its header only, so its contents are asked too.
fn reaches(value: &Spanned<DeValue<'_>>, at: usize, path: &mut Vec<String>) -> bool {
    match value.get_ref() {
        DeValue::Table(inner) => descend(inner, at, path) || value.span().contains(&at),
        _ => value.span().contains(&at),
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": key `{}`", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTRACT: &str = r#"
did         = "did:web:labeler.example.test"
signing_key = "labeler.key"
data_dir    = "labeler-data"
listen      = "127.0.0.1:3100"
[identity]
plc_url = "http://127.0.0.1:12582"
[ingest]
firehose  = "ws://127.0.0.1:12583"
jetstream = "ws://127.0.0.1:12608/subscribe"
[dns]
nameservers = ["127.0.0.53:53"]
[verify]
interval = "24h"
"#;

    fn refused(from: &str, to: &str) -> String {
        let text = CONTRACT.replace(from, to);
        assert_ne!(text, CONTRACT, "{from} is in the file");
        Config::parse(&text, Path::new("labeler.toml")).unwrap_err().to_string()
    }

    #[test]
    fn the_example_of_the_contract_is_read() {
        let config = Config::parse(CONTRACT, Path::new("labeler.toml")).unwrap();
        assert_eq!(config.verify.interval, Duration::from_secs(86_400));
        assert!(config.allows_private_addresses(), "its directory is on loopback");
    }

    #[test]
    fn who_lists_attestations_is_the_firehoses_host_unless_said_otherwise() {
        let relay = |firehose: &str| {
            let text = CONTRACT.replace("firehose  = \"ws://127.0.0.1:12583\"", firehose);
            Config::parse(&text, Path::new("x")).unwrap().ingest.relay().map(String::from)
        };
        let url = |text: &str| Some(text.to_owned());
        assert_eq!(relay("firehose = \"wss://relay.example/xrpc/x?y=z\""), url("https://relay.example/"));
        assert_eq!(relay("firehose = \"ws://127.0.0.1:1\""), url("http://127.0.0.1:1/"));
        assert_eq!(relay("firehose = \"ws://127.0.0.1:1\"\nbackfill = \"https://list.example\""), url("https://list.example/"));
        assert_eq!(relay(""), None);
        assert!(refused("firehose ", "backfill = \"wss://x\"\nfirehose ").contains("key `ingest.backfill`: "));
    }

    #[test]
    fn resolvers_that_look_from_other_places_have_a_quorum() {
        let dns = |text: &str| {
            let text = CONTRACT.replace("[verify]", &format!("{text}\n[verify]"));
            Config::parse(&text, Path::new("x")).map(|config| config.dns.quorum()).map_err(|error| error.to_string())
        };
        let vantage = "[[dns.vantage]]\nname = \"far\"\nnameservers = [\"192.0.2.1:53\"]\n";
        assert_eq!(dns(""), Ok(1));
        assert_eq!(dns(vantage), Ok(2));
        assert_eq!(dns(&vantage.repeat(2)), Ok(2));
        assert_eq!(dns(&format!("quorum = 1\n{vantage}")), Ok(1));
        assert!(dns(&format!("quorum = 3\n{vantage}")).unwrap_err().contains("`quorum` in [dns] is 1 to 2"));
        assert!(dns("quorum = 0").unwrap_err().contains("`quorum`"));
        assert!(dns(&vantage.replace("\"192.0.2.1:53\"", "")).unwrap_err().contains("is empty"));
        assert!(dns("[[dns.vantage]]\nname = \"x\"").unwrap_err().contains("missing field `nameservers`"));
    }

    #[test]
    fn a_failure_counts_after_a_24th_of_the_interval_unless_said_otherwise() {
        let patience =
            |text: &str| Config::parse(&CONTRACT.replace("interval = \"24h\"", text), Path::new("x")).unwrap().verify.patience();
        let secs = Duration::from_secs;
        assert_eq!(patience("").failing_for, secs(3600));
        let week = secs(7 * 86_400);
        let expected = Patience { interval: secs(48), failures: 3, failing_for: secs(2), silent_for: week };
        assert_eq!(patience("interval = \"48s\""), expected);
        assert_eq!(patience("silent_for = \"36h\"").silent_for, secs(36 * 3600));
        assert_eq!(patience("failures = 1\nfailing_for = \"5m\"").failing_for, secs(300));
    }

    #[test]
    fn strangers_addresses_must_be_public_unless_the_network_is_a_test() {
        let allows =
            |from: &str, to: &str| Config::parse(&CONTRACT.replace(from, to), Path::new("x")).unwrap().allows_private_addresses();
        assert!(!allows("http://127.0.0.1:12582", "https://plc.directory"));
        assert!(!allows("plc_url = \"http://127.0.0.1:12582\"", ""));
        assert!(!allows("[identity]", "[identity]\nallow_private_addresses = false"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_key() {
        for (from, to, expected) in [
            (
                "interval = ",
                "intervall = ",
                "labeler.toml:14: key `verify.intervall`: unknown field `intervall`, expected one of `interval`, `sources`, ",
            ),
            ("\"24h\"", "\"often\"", "labeler.toml:14: key `verify.interval`: \"often\" is not a duration"),
            ("\"24h\"", "\"0s\"", "at least one second"),
            (
                "[verify]",
                "[labels]\nexpires_after = \"10m\"\n[verify]",
                "labeler.toml:14: key `labels.expires_after`: at least \"1h\"",
            ),
            ("127.0.0.1:3100", "here", "labeler.toml:5: key `listen`: "),
            ("did:web:labeler.example.test", "labeler", "labeler.toml:2: key `did`: "),
            ("did:web:labeler.example.test", "did:web:host:path", "host only"),
            ("http://127.0.0.1:12582", "127.0.0.1:12582", "labeler.toml:7: key `identity.plc_url`: "),
            ("ws://127.0.0.1:12583", "http://127.0.0.1:12583", "labeler.toml:9: key `ingest.firehose`: "),
            ("/subscribe", "/xrpc/network.bsky.jetstream.subscribe", "is read at /xrpc/network.bsky.jetstream.subscribeEvents"),
            ("interval = \"24h\"", "silent_for = \"5m\"", "labeler.toml:14: key `verify.silent_for`: at least \"1h\""),
            ("listen ", "liste ", "unknown field `liste`"),
            ("listen      = \"127.0.0.1:3100\"", "", "missing field `listen`"),
            ("[dns]", "[dns", "labeler.toml:11"),
            ("nameservers = [\"127.0.0.53:53\"]", "nameservers = [\"127.0.0.53\"]", "labeler.toml:12: key `dns.nameservers`: "),
        ] {
            let said = refused(from, to);
            assert!(said.contains(expected), "{said}\n  does not say\n{expected}");
        }
        let none = CONTRACT.lines().filter(|line| !line.contains("ws://")).collect::<Vec<_>>().join("\n");
        assert!(Config::parse(&none, Path::new("labeler.toml")).unwrap_err().to_string().contains("[ingest]"));
    }
}
