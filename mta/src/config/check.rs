//! What the types cannot say about the settings: names that must exist, values that must fit together, files that must be there.
//!
//! Everything wrong is collected, so that one reading of the message is enough.

use std::{net::IpAddr, path::Path, time::Duration};

use super::{Config, Dnssec, Listen, Problem, Role, error::Source};
use crate::policy::rate::PER_HOUR_MAX;

/// After a day whoever submits the same again means it.
const DUPLICATES_WINDOW_MAX: Duration = Duration::from_secs(24 * 3600);

use scheduler::DEFAULT_POOL;

/// Layers of shaping beside the shipped one; nobody has so many hands.
const SHAPING_FILES_MAX: usize = 64;

/// Zones that are asked about each source in each round.
const DNSBL_ZONES_MAX: usize = 32;

/// What the file says, held against itself.
pub(super) fn meaning(config: &Config, source: &Source<'_>) -> Vec<Problem> {
    let mut problems = Problems::new(source);
    let it = &mut problems;
    it.host_name("hostname", &config.hostname);
    it.between("message_bytes_max", config.message_bytes_max, 64 << 10, 1 << 30);
    it.between("drain_secs", config.drain_secs, 1, 3600);
    it.between("recipients_max", config.recipients_max as u64, 100, crate::queue::RECIPIENTS_MAX as u64);
    it.at_most("future_release_max", config.future_release_max, 8760);
    it.at_most("deliver_by_min", config.deliver_by_min, 24);
    for (class, lifetime, delay_notice_after) in config.class.each() {
        let path = format!("class.{class}.lifetime");
        if lifetime < Duration::from_secs(60) {
            it.add(&path, "is shorter than a minute, in which mail is often tried only once; make it longer");
        }
        it.at_most(&path, lifetime, 720);
        it.nonzero(&format!("class.{class}.delay_notice_after"), delay_notice_after);
    }
    listeners(it, config);
    admin(it, config);
    sources(it, config);
    class_pools(it, config);
    shaping_files(it, config);
    dnsbl(it, config);
    tiers(it, config);
    it.nonzero("duplicates.window", config.duplicates.window);
    if config.duplicates.window > DUPLICATES_WINDOW_MAX {
        it.add("duplicates.window", "is longer than a client tries; choose at most \"24h\"");
    }
    if config.dns.nameservers.as_ref().is_some_and(Vec::is_empty) {
        it.add("dns.nameservers", "is empty; name one, or leave the line out to use /etc/resolv.conf");
    }
    let far = config.dns.nameservers.iter().flatten().find(|server| !server.ip().is_loopback());
    if let (Dnssec::TrustAd, Some(far)) = (config.dns.dnssec, far) {
        let text =
            format!("needs name servers on loopback: anybody between here and {far} could set the AD bit; write \"validate\"");
        it.add("dns.dnssec", &text);
    }
    if config.dns.trust_anchor.is_some() && config.dns.dnssec != Dnssec::Validate {
        it.add("dns.trust_anchor", "is used only when this daemon checks signatures; set dnssec = \"validate\"");
    }
    if let Some(domain) = &config.signing.domain {
        it.host_name("signing.domain", domain);
    }
    it.host_name("signing.selector", &config.signing.selector);
    if config.egress.port == 0 {
        it.add("egress.port", "must not be 0; receiving hosts listen on 25");
    }
    if config.egress.sts_port == 0 {
        it.add("egress.sts_port", "must not be 0; policies are published on 443");
    }
    tls_reports(it, config);
    if let Some(labeler) = &config.labeler {
        it.url("labeler.url", &labeler.url);
        it.did("labeler.did", &labeler.did);
        for (nth, label) in labeler.require.iter().enumerate() {
            if label.is_empty() || label.len() > 128 {
                it.add(&format!("labeler.require.{nth}"), "a label has 1 to 128 octets, such as \"relay-member\"");
            }
        }
        it.nonzero("labeler.poll_interval", labeler.poll_interval);
        if labeler.stale_after < labeler.poll_interval {
            it.add(
                "labeler.stale_after",
                "is shorter than poll_interval, so labels would be stale between two polls; make it longer",
            );
        }
    }
    if let Some(standing) = &config.standing {
        let is_host = standing.did.parse().is_ok_and(|did| atproto::did::web_origin(&did).is_some());
        if !is_host {
            let shown = standing.did.escape_debug();
            it.add("standing.did", format!("\"{shown}\" is not a did:web of a host, such as \"did:web:relay.example\""));
        }
        if config.labeler.is_none() {
            it.add("standing.did", "needs [labeler], who is told and asked");
        }
        it.nonzero("standing.read_interval", standing.read_interval);
        if standing.stale_after < standing.read_interval {
            it.add(
                "standing.stale_after",
                "is shorter than read_interval, so doubts would end between two reads; make it longer",
            );
        }
    }
    it.between("events.keep", config.events.keep.count, 1000, 100_000_000);
    if config.events.keep.age.is_some_and(|age| age < Duration::from_secs(60)) {
        it.add("events.keep", "keeps events for less than a minute, so that nobody could read them; such as \"30d\"");
    }
    it.url("identity.plc_url", &config.identity.plc_url);
    problems.take()
}

/// The files that it names.
pub(super) fn files(config: &Config, source: &Source<'_>) -> Vec<Problem> {
    let mut it = Problems::new(source);
    if let Some(tls) = &config.tls {
        it.file("tls.certificate", &tls.certificate);
        it.file("tls.private_key", &tls.private_key);
    }
    if let Some(tls) = config.admin.as_ref().and_then(|admin| admin.tls.as_ref()) {
        it.file("admin.tls.certificate", &tls.certificate);
        it.file("admin.tls.private_key", &tls.private_key);
        tls.client_ca.iter().for_each(|path| it.file("admin.tls.client_ca", path));
    }
    if let Some(path) = &config.dns.trust_anchor {
        it.file("dns.trust_anchor", path);
    }
    if let Some(path) = &config.egress.trust_anchors {
        it.file("egress.trust_anchors", path);
    }
    if config.data_dir.exists() && !config.data_dir.is_dir() {
        it.add("data_dir", format!("{} is not a folder; name one, or a path where it can be made", config.data_dir.display()));
    }
    it.take()
}

fn listeners(it: &mut Problems<'_>, config: &Config) {
    if config.listen.is_empty() {
        it.add("listen", "there is no [[listen]] table; add one with an address and a role");
    }
    for (nth, listen) in config.listen.iter().enumerate() {
        let Listen { address, role, trusted_networks, member } = listen;
        let at = |key: &str| format!("listen.{nth}.{key}");
        let again = config.listen[..nth].iter().any(|other| other.address == *address);
        if again && address.port() != 0 {
            it.add(&at("address"), format!("{address} has a listener already; give this one another port"));
        }
        if config.admin.as_ref().is_some_and(|admin| admin.address == *address) && address.port() != 0 {
            it.add("admin.address", format!("{address} is a [[listen]] address too; give one of them another port"));
        }
        match role {
            Role::Relay => {
                if trusted_networks.as_ref().is_none_or(Vec::is_empty) {
                    it.add(&at("trusted_networks"), "role relay needs it: who may connect, such as [\"127.0.0.0/8\"]");
                }
                match member {
                    Some(did) => it.did(&at("member"), did),
                    None => it.add(&at("member"), "role relay needs it: the DID of the member whose mail this is"),
                }
            }
            Role::Submission | Role::Submissions => {
                if trusted_networks.is_some() {
                    it.add(
                        &at("trusted_networks"),
                        format!("only role relay uses it; role {role} asks for AUTH: remove the line"),
                    );
                }
                if member.is_some() {
                    it.add(&at("member"), format!("only role relay uses it; role {role} asks for AUTH: remove the line"));
                }
                if config.tls.is_none() {
                    it.add(&at("role"), format!("role {role} needs a [tls] table with certificate and private_key"));
                }
            }
        }
    }
}

fn admin(it: &mut Problems<'_>, config: &Config) {
    let Some(admin) = &config.admin else { return };
    if !admin.address.ip().is_loopback() && admin.tls.is_none() && !admin.allow_clear_text {
        let text = format!(
            "{} can be reached by others, and operators' tokens would travel in clear text; add [admin.tls] with certificate and \
             private_key, or choose 127.0.0.1, or set allow_clear_text = true if the network is private",
            admin.address
        );
        it.add("admin.address", text);
    }
}

fn tls_reports(it: &mut Problems<'_>, config: &Config) {
    let reports = &config.tls_reports;
    let texts = [("organization", &reports.organization), ("contact", &reports.contact)];
    for (key, text) in texts.into_iter().filter_map(|(key, text)| Some((key, text.as_ref()?))) {
        let at = format!("tls_reports.{key}");
        if reports.from.is_none() {
            it.add(&at, "means nothing without tls_reports.from; add that, or remove this line");
        } else if text.trim().is_empty() || text.chars().any(char::is_control) {
            it.add(&at, "is empty, or has more than one line; name whom a receiver may ask");
        }
    }
    let Some(from) = &reports.from else { return };
    let Some(domain) = &config.signing.domain else {
        return it.add("tls_reports.from", "needs signing.domain: reports without the co-op's signature are not believed");
    };
    match from.parse::<smtp::address::Mailbox>() {
        Ok(mailbox) if mailbox.domain().eq_ignore_ascii_case(domain) => {}
        Ok(_) => it.add("tls_reports.from", format!("is not an address of signing.domain; use tls-reports@{domain}")),
        Err(_) => it.add("tls_reports.from", format!("is not a mail address; use tls-reports@{domain}")),
    }
}

fn sources(it: &mut Problems<'_>, config: &Config) {
    if config.source.is_empty() {
        it.add("source", "there is no [[source]] table; add one with the name, address and ehlo that mail leaves with");
    }
    for (nth, source) in config.source.iter().enumerate() {
        let at = |key: &str| format!("source.{nth}.{key}");
        let before = &config.source[..nth];
        it.word(&at("name"), &source.name, "ip-a");
        if before.iter().any(|other| other.name == source.name) {
            it.add(&at("name"), format!("\"{}\" names another source already; names are unique", source.name));
        }
        if before.iter().any(|other| other.address == source.address) {
            it.add(&at("address"), format!("{} is another source's address already; each has its own", source.address));
        }
        it.host_name(&at("ehlo"), &source.ehlo);
        if !config.pool.is_empty() && !config.pool.iter().any(|pool| pool.sources.contains(&source.name)) {
            it.add(&at("name"), format!("\"{}\" is in no pool; add it to one's sources, or remove it", source.name));
        }
    }
    for (nth, pool) in config.pool.iter().enumerate() {
        let at = |key: &str| format!("pool.{nth}.{key}");
        it.word(&at("name"), &pool.name, "default");
        if config.pool[..nth].iter().any(|other| other.name == pool.name) {
            it.add(&at("name"), format!("\"{}\" names another pool already; names are unique", pool.name));
        }
        if let Some(weights) = &pool.weights {
            if weights.len() != pool.sources.len() {
                let (many, of) = (weights.len(), pool.sources.len());
                it.add(&at("weights"), format!("has {many} numbers for {of} sources; write one for each, in their order"));
            }
            if weights.iter().all(|weight| *weight == 0) {
                it.add(&at("weights"), "lets no source send; give at least one more than 0");
            }
            for (item, weight) in weights.iter().enumerate() {
                it.between(&format!("pool.{nth}.weights.{item}"), (*weight).into(), 0, 1000);
            }
        }
        if pool.sources.is_empty() {
            it.add(&at("sources"), "is empty; name at least one source");
        }
        for (item, name) in pool.sources.iter().enumerate() {
            let at = format!("pool.{nth}.sources.{item}");
            if !config.source.iter().any(|source| source.name == *name) {
                let known: Vec<_> = config.source.iter().map(|it| it.name.as_str()).collect();
                it.add(&at, format!("no [[source]] is named \"{name}\"; there are: {}", known.join(", ")));
            }
            if pool.sources[..item].contains(name) {
                it.add(&at, format!("\"{name}\" is listed twice"));
            }
        }
    }
}

fn dnsbl(it: &mut Problems<'_>, config: &Config) {
    let zones = &config.dnsbl.zones;
    if zones.len() > DNSBL_ZONES_MAX {
        it.add("dnsbl.zones", format!("names more than {DNSBL_ZONES_MAX} zones; choose those that receivers ask"));
    }
    for (nth, zone) in zones.iter().enumerate() {
        let at = format!("dnsbl.zones.{nth}");
        it.host_name(&at, zone.trim_end_matches('.'));
        if zones[..nth].contains(zone) {
            it.add(&at, format!("\"{zone}\" is listed twice"));
        }
    }
    let interval = config.dnsbl.interval;
    if interval < Duration::from_secs(60) || interval > Duration::from_secs(24 * 3600) {
        it.add("dnsbl.interval", "is out of range; choose \"1m\" to \"24h\"");
    }
}

fn shaping_files(it: &mut Problems<'_>, config: &Config) {
    let files = &config.shaping.files;
    if files.len() > SHAPING_FILES_MAX {
        it.add("shaping.files", format!("names more than {SHAPING_FILES_MAX} files; put some together"));
    }
    for (nth, file) in files.iter().enumerate() {
        if files[..nth].contains(file) {
            it.add(&format!("shaping.files.{nth}"), format!("{} is listed twice", file.display()));
        }
    }
}

/// The pools that classes go by.
fn class_pools(it: &mut Problems<'_>, config: &Config) {
    if !config.pool.is_empty() && !config.pool.iter().any(|pool| pool.name == DEFAULT_POOL) {
        it.add("pool.0.name", "no pool is named \"default\", by which mail goes that nothing gives another one; name one so");
    }
    for (class, pool) in config.class.pools() {
        if let Some(pool) = pool
            && !config.pool_names().any(|name| name == *pool)
        {
            let known: Vec<_> = config.pool_names().collect();
            let pool = pool.escape_debug();
            it.add(&format!("class.{class}.pool"), format!("no [[pool]] is named \"{pool}\"; there are: {}", known.join(", ")));
        }
    }
}

fn tiers(it: &mut Problems<'_>, config: &Config) {
    for (nth, tier) in config.tier.iter().enumerate() {
        let at = |key: &str| format!("tier.{nth}.{key}");
        it.word(&at("name"), &tier.name, "default");
        if config.tier[..nth].iter().any(|other| other.name == tier.name) {
            it.add(&at("name"), format!("\"{}\" names another tier already; names are unique", tier.name));
        }
        it.between(&at("weight"), tier.weight.into(), 1, 1000);
        let limits = [
            ("messages_per_hour", tier.messages_per_hour, PER_HOUR_MAX),
            ("burst", tier.burst, PER_HOUR_MAX),
            ("messages_per_day", tier.messages_per_day, 24 * PER_HOUR_MAX),
            ("queue_messages_max", tier.queue_messages_max, u64::MAX >> 1),
            ("queue_bytes_max", tier.queue_bytes_max, u64::MAX >> 1),
        ];
        for (key, limit, most) in limits {
            match limit {
                Some(0) => it.add(&at(key), "must not be 0; `tradewind member suspend` stops a member's mail"),
                Some(limit) => it.between(&at(key), limit, 1, most),
                None => {}
            }
        }
        if tier.burst.is_some() && tier.messages_per_hour.is_none() {
            it.add(&at("burst"), "means nothing without messages_per_hour; add that, or remove this line");
        }
        if let (Some(burst), Some(day)) = (tier.burst, tier.messages_per_day)
            && burst > day
        {
            it.add(&at("burst"), format!("is more than the {day} of messages_per_day; choose at most that"));
        }
    }
}

/// What was found wrong in one file.
pub(super) struct Problems<'a> {
    source: &'a Source<'a>,
    found: Vec<Problem>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(source: &'a Source<'a>) -> Self {
        Problems { source, found: Vec::new() }
    }

    /// In the order of the file.
    pub(super) fn take(mut self) -> Vec<Problem> {
        self.found.sort();
        self.found
    }

    pub(super) fn add(&mut self, path: &str, message: impl Into<String>) {
        self.found.push(self.source.problem(path, message));
    }

    pub(super) fn word(&mut self, path: &str, name: &str, such_as: &str) {
        if name.is_empty() || name.chars().any(|it| it.is_control() || it.is_whitespace()) {
            self.add(path, format!("is empty or has spaces in it; use a word, such as \"{such_as}\""));
        }
    }

    fn nonzero(&mut self, path: &str, duration: Duration) {
        if duration.is_zero() {
            self.add(path, "must be longer than zero, such as \"30s\"");
        }
    }

    fn at_most(&mut self, path: &str, duration: Duration, hours: u64) {
        if duration > Duration::from_secs(hours * 3600) {
            self.add(path, format!("is too long; at most \"{hours}h\""));
        }
    }

    pub(super) fn between(&mut self, path: &str, value: u64, least: u64, most: u64) {
        if !(least..=most).contains(&value) {
            self.add(path, format!("{value} is out of range; choose {least} to {most}"));
        }
    }

    /// RFC 5321 §2.3.5, RFC 1123 §2.1: labels of letters, digits and hyphens.
    pub(super) fn host_name(&mut self, path: &str, name: &str) {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() > 253 || !name.split('.').all(label) {
            let name = name.escape_debug();
            self.add(
                path,
                format!("\"{name}\" is not a host name: letters, digits and hyphens between dots, other scripts as xn--…"),
            );
        }
    }

    fn did(&mut self, path: &str, did: &str) {
        let rest = did.strip_prefix("did:plc:").or_else(|| did.strip_prefix("did:web:"));
        let known = |rest: &str| {
            !rest.is_empty() && rest.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'-' | b'_' | b'%'))
        };
        if !rest.is_some_and(known) {
            self.add(path, format!("\"{}\" is not a DID; it looks like did:plc:… or did:web:host.example", did.escape_debug()));
        }
    }

    /// What is fetched decides whose signature is believed, so plain HTTP stays on this machine.
    fn url(&mut self, path: &str, url: &str) {
        let Some((scheme, host)) = scheme_and_host(url) else {
            return self.add(path, format!("\"{}\" is not a URL, such as \"https://labeler.example\"", url.escape_debug()));
        };
        if url.contains(['?', '#']) {
            self.add(path, "has a query in it; end it with the path");
        }
        match scheme {
            "https" => {}
            "http" if is_loopback(host) => {}
            "http" => self.add(path, "http is for loopback only; use https"),
            other => self.add(path, format!("{other} is not supported; use https")),
        }
    }

    fn file(&mut self, path: &str, file: &Path) {
        if let Err(error) = std::fs::File::open(file) {
            self.add(path, format!("{}: {error}", file.display()));
        }
    }
}

/// `scheme://host[:port][/path]` in printable ASCII. A user and password have no business in it.
fn scheme_and_host(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://").filter(|_| url.bytes().all(|octet| octet.is_ascii_graphic()))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    // The colons of an IPv6 address are inside brackets.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let plain = !host.is_empty() && !host.contains('@') && port.is_none_or(|port| port.parse::<u16>().is_ok());
    plain.then_some((scheme, host))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|it| it.to_canonical().is_loopback())
}
