//! One DKIM signature: whether it verifies (RFC 6376 §6.1), and whether it is good for anything (RFC 8301, and what a careful
//! reader asks for besides).
//!
//! Canonical forms, keys and the arithmetic are mail-auth's. Its verifier is not used: it reads the system's clock, takes `l=0`
//! for no `l=`, and hashes the body once for every `l=` that a stranger writes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atproto::lexicon::{canonical_domain, check_domain, is_selector};
use mail_auth::common::crypto::{Algorithm, HashContext, HashImpl, Sha256};
use mail_auth::common::headers::{Writable, Writer};
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::dkim::Canonicalization;

use crate::message::Message;
use crate::organization::organizational;
use crate::report::Outcome;
use crate::tags::Tags;
use crate::{Answer, CLOCKS_DIFFER_MAX, SIGNATURES_MAX};

/// Verifiers must not accept shorter RSA keys (RFC 8301 §3.2).
const RSA_BITS_MIN: usize = 1024;
const RSA_BITS_WANTED: usize = 2048;
const RSA_BITS_MAX: usize = 8192;
/// Of several keys at one name a verifier may take any (RFC 6376 §3.6.2.2); so many are tried.
const KEYS_MAX: usize = 3;

/// A `DKIM-Signature` field.
#[derive(Debug, Clone)]
pub(crate) struct Signature {
    /// Which field of the message.
    at: usize,
    /// In its one spelling; as far as it could be read.
    pub(crate) domain: String,
    pub(crate) selector: String,
    pub(crate) algorithm: String,
    pub(crate) signed_at: Option<SystemTime>,
    pub(crate) expires_at: Option<SystemTime>,
    /// `l=`.
    pub(crate) covers: Option<u64>,
    /// Names in `h=`, in lower case.
    pub(crate) names: Vec<String>,
    terms: Result<Terms, String>,
}

/// What a sound signature says.
#[derive(Debug, Clone)]
struct Terms {
    algorithm: Algorithm,
    header: Canonicalization,
    body: Canonicalization,
    body_hash: Vec<u8>,
    signature: Vec<u8>,
    /// `i=` is below `d=`, which a key may forbid (`t=s`).
    below: bool,
}

/// What came of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) result: Outcome,
    pub(crate) why: Option<String>,
    pub(crate) key_bits: Option<usize>,
    pub(crate) weak: Vec<String>,
}

impl Checked {
    fn new(result: Outcome, why: impl Into<String>) -> Self {
        Self { result, why: Some(why.into()), key_bits: None, weak: Vec::new() }
    }
}

/// Hashes of the body, by canonical form and `l=`: each is made once.
#[derive(Default)]
pub(crate) struct Bodies(Vec<(Canonicalization, Option<u64>, Vec<u8>, u64)>);

impl Signature {
    /// The signatures of a message: those of `domain`, of its parents and of what is below it first, then from the top; and how
    /// many more there are.
    pub(crate) fn of(message: &Message, domain: &str) -> (Vec<Self>, usize) {
        let fields = message.fields().enumerate().filter(|(_, (name, _))| name.eq_ignore_ascii_case(b"DKIM-Signature"));
        let mut all: Vec<Self> = fields.map(|(at, (_, value))| Self::read(at, value)).collect();
        all.sort_by_key(|it| !(covers(&it.domain, domain) || covers(domain, &it.domain)));
        let passed_over = all.len().saturating_sub(SIGNATURES_MAX);
        all.truncate(SIGNATURES_MAX);
        (all, passed_over)
    }

    fn read(at: usize, value: &[u8]) -> Self {
        let mut read = Self {
            at,
            domain: String::new(),
            selector: String::new(),
            algorithm: String::new(),
            signed_at: None,
            expires_at: None,
            covers: None,
            names: Vec::new(),
            terms: Err("it is not US-ASCII".into()),
        };
        let Some(text) = std::str::from_utf8(value).ok().filter(|text| text.is_ascii()) else { return read };
        read.terms = Tags::read(text).map_err(str::to_owned).and_then(|tags| read.take(&tags));
        read
    }

    fn take(&mut self, tags: &Tags<'_>) -> Result<Terms, String> {
        let needed = |name: &str| tags.get(name).filter(|value| !value.is_empty()).ok_or_else(|| format!("it has no `{name}=`"));
        let domain = canonical_domain(needed("d")?).filter(|domain| check_domain(domain).is_ok());
        self.domain = domain.ok_or("`d=` is not a domain")?;
        let selector = needed("s")?.to_ascii_lowercase();
        self.selector = Some(selector).filter(|it| is_selector(it)).ok_or("`s=` is not a selector")?;
        self.algorithm = needed("a")?.to_ascii_lowercase().chars().take(30).collect();
        let time = |secs: u64| UNIX_EPOCH + Duration::from_secs(secs);
        self.signed_at = tags.number("t")?.map(time);
        self.expires_at = tags.number("x")?.map(time);
        self.covers = tags.number("l")?;
        if needed("v")? != "1" {
            return Err("its version is not 1".into());
        }
        let algorithm = match self.algorithm.as_str() {
            "rsa-sha256" => Algorithm::RsaSha256,
            "ed25519-sha256" => Algorithm::Ed25519Sha256,
            "rsa-sha1" => return Err("rsa-sha1 must not be relied on (RFC 8301 §3.1)".into()),
            _ => return Err("its algorithm is not rsa-sha256 or ed25519-sha256".into()),
        };
        self.names = tags.list("h").map(str::to_ascii_lowercase).collect();
        if !self.names.iter().any(|name| name == "from") {
            return Err("it does not cover From (RFC 6376 §5.4)".into());
        }
        if tags.get("q").is_some() && !tags.list("q").any(|method| method == "dns/txt") {
            return Err("`q=` asks for another way to the key than DNS".into());
        }
        if self.expires_at.is_some_and(|expires| self.signed_at.is_some_and(|signed| expires <= signed)) {
            return Err("it expires before it was made".into());
        }
        let (header, body) = canonical_forms(tags.get("c"))?;
        let below = match tags.get("i") {
            None => false,
            Some(identity) => {
                let of = identity.rsplit_once('@').and_then(|(_, domain)| canonical_domain(domain)).unwrap_or_default();
                if !covers(&self.domain, &of) {
                    return Err("`i=` is not of `d=` (RFC 6376 §3.5)".into());
                }
                of != self.domain
            }
        };
        let base64 = |name: &str| tags.base64(name).ok_or_else(|| format!("`{name}=` is not base64"));
        Ok(Terms { algorithm, header, body, body_hash: base64("bh")?, signature: base64("b")?, below })
    }

    /// Where its key is, if it is worth a look.
    pub(crate) fn key_name(&self) -> Option<String> {
        self.terms.as_ref().ok().map(|_| format!("{}._domainkey.{}", self.selector, self.domain))
    }

    /// Whether it speaks for mail of `domain`: made by that domain or by a parent of it, not across a public suffix. (Relaxed alignment, RFC 7489
    /// §3.1.1, would take a child's or a sibling's as well, which may be anybody's to whom the organization gave a name.)
    pub(crate) fn aligns_with(&self, domain: &str) -> bool {
        self.domain == domain
            || organizational(domain).is_some_and(|top| covers(&self.domain, domain) && covers(top, &self.domain))
    }

    pub(crate) fn check(&self, message: &Message, bodies: &mut Bodies, key: &Answer, now: SystemTime) -> Checked {
        let terms = match &self.terms {
            Ok(terms) => terms,
            Err(why) => return Checked::new(Outcome::Permerror, why),
        };
        if self.signed_at.is_some_and(|signed| signed > now + CLOCKS_DIFFER_MAX) {
            return Checked::new(Outcome::Policy, "it says to be made in the future");
        }
        if self.expires_at.is_some_and(|expires| expires <= now) {
            return Checked::new(Outcome::Policy, "it has expired (`x=`)");
        }
        let (hash, length) = bodies.hash(message.body(), terms.body, self.covers);
        if hash != terms.body_hash {
            return Checked::new(Outcome::Fail, "the body is not what was signed");
        }
        let texts = match key {
            Answer::Found(texts) => texts,
            Answer::Absent => return Checked::new(Outcome::Permerror, "its key is not in DNS"),
            Answer::Unknown(why) => return Checked::new(Outcome::Temperror, format!("its key could not be looked up: {why}")),
        };
        let signed = self.signed_octets(message, terms);
        let mut worst = None;
        for text in texts.iter().filter(|text| text.contains("p=")).take(KEYS_MAX) {
            let checked = check_key(text, terms, &signed);
            if checked.result == Outcome::Pass {
                return self.limited(checked, length);
            }
            worst.get_or_insert(checked);
        }
        worst.unwrap_or_else(|| Checked::new(Outcome::Permerror, "there is no key where it should be"))
    }

    /// Good arithmetic is not all.
    fn limited(&self, mut checked: Checked, length: u64) -> Checked {
        if let Some(covered) = self.covers {
            // Whoever may add to the body may replace what the reader sees (RFC 6376 §8.2).
            checked.result = Outcome::Policy;
            checked.why = Some(format!("it covers {} of {length} octets of the body (`l=`)", covered.min(length)));
            checked.weak.push("`l=`: the body may have been added to".into());
        }
        if self.signed_at.is_none() {
            checked.weak.push("it does not say when it was made (`t=`)".into());
        }
        checked
    }

    /// What the signature is over: the fields that it names, each time from the bottom up, and itself without `b=` (RFC 6376
    /// §3.7, §5.4.2).
    fn signed_octets(&self, message: &Message, terms: &Terms) -> Vec<u8> {
        let fields: Vec<(&[u8], &[u8])> = message.fields().collect();
        let mut left: Vec<bool> = vec![true; fields.len()];
        let mut chosen = Vec::with_capacity(self.names.len() + 1);
        for name in self.names.iter().take(fields.len() + 64) {
            let is = |at: &usize| {
                left.get(*at) == Some(&true) && fields.get(*at).is_some_and(|(it, _)| it.eq_ignore_ascii_case(name.as_bytes()))
            };
            let Some(at) = (0..fields.len()).rev().find(is) else { continue };
            if let (Some(free), Some(field)) = (left.get_mut(at), fields.get(at)) {
                *free = false;
                chosen.push(*field);
            }
        }
        let (name, value) = fields.get(self.at).copied().unwrap_or_default();
        let bare = without_signature(value);
        chosen.push((name, &bare));
        let mut canonical = Vec::with_capacity(2048);
        terms.header.canonicalize_headers(chosen.into_iter(), &mut canonical);
        canonical
    }
}

/// Whether `domain` is `parent` or below it.
pub(crate) fn covers(parent: &str, domain: &str) -> bool {
    !parent.is_empty() && domain.strip_suffix(parent).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Verifies with one key, and says what the key is worth (RFC 6376 §3.6.1).
fn check_key(text: &str, terms: &Terms, signed: &[u8]) -> Checked {
    let wrong = |why: &str| Checked::new(Outcome::Permerror, why);
    let tags = match Tags::read(text) {
        Ok(tags) => tags,
        Err(why) => return Checked::new(Outcome::Permerror, format!("its key cannot be read: {why}")),
    };
    if tags.get("v").is_some_and(|version| version != "DKIM1") {
        return wrong("its key is not of version DKIM1");
    }
    if tags.get("p").is_some_and(str::is_empty) {
        return wrong("its key was revoked");
    }
    let Some(octets) = tags.base64("p") else { return wrong("its key is not base64") };
    if tags.get("h").is_some() && !tags.list("h").any(|hash| hash == "sha256") {
        return wrong("its key is not for sha256");
    }
    if tags.get("s").is_some() && !tags.list("s").any(|service| service == "*" || service == "email") {
        return wrong("its key is not for e-mail");
    }
    if terms.below && tags.list("t").any(|flag| flag == "s") {
        return wrong("its key is not for subdomains (`t=s`)");
    }
    let kind = tags.get("k").unwrap_or("rsa");
    let (matches, wanted) = match terms.algorithm {
        Algorithm::Ed25519Sha256 => (kind == "ed25519" && octets.len() == 32, "Ed25519"),
        _ => (kind == "rsa", "RSA"),
    };
    if !matches {
        return Checked::new(Outcome::Permerror, format!("its key is not an {wanted} key"));
    }
    let Ok(key) = DomainKey::parse(text.as_bytes()) else { return wrong("its key cannot be read") };
    let bits = if wanted == "RSA" { key.p.public_key_bits() } else { 256 };
    let mut checked = Checked { result: Outcome::Pass, why: None, key_bits: Some(bits), weak: Vec::new() };
    let mut end = |result, why: String| (checked.result, checked.why) = (result, Some(why));
    if wanted == "RSA" && !(1..=RSA_BITS_MAX).contains(&bits) {
        return wrong("its key is not an RSA key");
    }
    if wanted == "RSA" && bits < RSA_BITS_MIN {
        end(Outcome::Policy, format!("its RSA key has only {bits} bits (RFC 8301 §3.2)"));
        return checked;
    }
    if key.p.verify_bytes(signed, &terms.signature, terms.algorithm).is_err() {
        end(Outcome::Fail, "the fields that it covers are not what was signed".into());
        return checked;
    }
    if tags.list("t").any(|flag| flag == "y") {
        end(Outcome::Policy, "its key is in testing mode, which is as if it were not there (RFC 6376 §3.6.1)".into());
    }
    if wanted == "RSA" && bits < RSA_BITS_WANTED {
        checked.weak.push(format!("its RSA key has {bits} bits; {RSA_BITS_WANTED} are asked for (RFC 8301 §3.2)"));
    }
    checked
}

/// `c=`: absent means simple, and a body's that is not named is simple too (RFC 6376 §3.5).
fn canonical_forms(text: Option<&str>) -> Result<(Canonicalization, Canonicalization), String> {
    let one = |text: &str| match text.trim() {
        "relaxed" => Ok(Canonicalization::Relaxed),
        "simple" => Ok(Canonicalization::Simple),
        _ => Err("its canonical form is not simple or relaxed".to_owned()),
    };
    let (header, body) = text.unwrap_or("simple").split_once('/').unwrap_or((text.unwrap_or("simple"), "simple"));
    Ok((one(header)?, one(body)?))
}

/// The field's value with nothing in `b=` and no CRLF at its end.
fn without_signature(value: &[u8]) -> Vec<u8> {
    let value = value.strip_suffix(b"\r\n").unwrap_or(value);
    let mut out = Vec::with_capacity(value.len());
    for (nth, part) in value.split(|octet| *octet == b';').enumerate() {
        if nth > 0 {
            out.push(b';');
        }
        let equals = part.iter().position(|octet| *octet == b'=').unwrap_or(0);
        let (name, _) = part.split_at(equals);
        match name.trim_ascii() {
            b"b" => out.extend(part.iter().take(equals + 1)),
            _ => out.extend(part),
        }
    }
    out
}

impl Bodies {
    /// The hash, and how long the whole body is in its canonical form.
    fn hash(&mut self, body: &[u8], form: Canonicalization, covers: Option<u64>) -> (Vec<u8>, u64) {
        if let Some((_, _, hash, length)) = self.0.iter().find(|(known, limit, ..)| (known, limit) == (&form, &covers)) {
            return (hash.clone(), *length);
        }
        let mut limited = Limited { hasher: Sha256::hasher(), left: covers.unwrap_or(u64::MAX), length: 0 };
        form.canonical_body(body, 0).write(&mut limited);
        let hash = limited.hasher.complete().as_ref().to_vec();
        self.0.push((form, covers, hash.clone(), limited.length));
        (hash, limited.length)
    }
}

/// Takes as much as `l=` says. It counts octets of the canonical form (RFC 6376 §3.4.5).
struct Limited<H> {
    hasher: H,
    left: u64,
    length: u64,
}

impl<H: Writer> Writer for Limited<H> {
    fn write(&mut self, octets: &[u8]) {
        let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(octets.len());
        self.hasher.write(octets.get(..take).unwrap_or_default());
        (self.left, self.length) = (self.left - take as u64, self.length + octets.len() as u64);
    }
}
