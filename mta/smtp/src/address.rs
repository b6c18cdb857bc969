//! Addresses of the envelope: mailboxes, reverse-paths and forward-paths (RFC 5321 §4.1.2, RFC 6531 §3.3).
//!
//! A [`Mailbox`] is kept in one canonical spelling, so that equal addresses are equal values: the local part
//! with the least quoting, the domain in lower case and A-labels (RFC 5890). It never holds a control
//! character, hence it can be written into a command without injecting another.
//!
//! Not here: addresses in header fields (RFC 5322), which have comments and folding.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// RFC 5321 §4.5.3.1.1: octets of a local part.
pub const LOCAL_PART_MAX: usize = 64;
/// RFC 5321 §4.5.3.1.2: octets of a domain.
pub const DOMAIN_MAX: usize = 255;
/// RFC 5321 §4.5.3.1.3: octets of a path, its angle brackets counted.
pub const PATH_MAX: usize = 256;

/// A mailbox `local-part@domain` (RFC 5321 §4.1.2), canonical.
#[derive(Clone)]
pub struct Mailbox {
    text: Box<str>,
    /// Where the `@` stands in `text`.
    at: u16,
}

/// Why something is not a mailbox. `Display` names the reason in words fit for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressError {
    /// Not of the form of RFC 5321 §4.1.2.
    Syntax(&'static str),
    /// Longer than RFC 5321 §4.5.3.1 allows.
    TooLong(&'static str),
    /// Characters beyond ASCII where SMTPUTF8 was not asked for (RFC 6531 §3.3).
    NotAscii,
}

impl Mailbox {
    /// Reads `local-part@domain`, where the local part may be quoted and the domain an address literal.
    /// `utf8` allows what RFC 6531 adds to both.
    pub fn parse(text: &str, utf8: bool) -> Result<Self, AddressError> {
        if !utf8 && !text.is_ascii() {
            return Err(AddressError::NotAscii);
        }
        let (local, domain) = split_at_sign(text)?;
        let domain = canonical_domain(domain)?;
        Self::join(&canonical_local(local)?, &domain)
    }

    /// `postmaster` at our own domain: what `RCPT TO:<postmaster>` means (RFC 5321 §4.1.1.3).
    pub fn postmaster(domain: &str) -> Result<Self, AddressError> {
        Self::join("postmaster", &canonical_domain(domain)?)
    }

    fn join(local: &str, domain: &str) -> Result<Self, AddressError> {
        if local.len() > LOCAL_PART_MAX {
            return Err(AddressError::TooLong("local part longer than 64 octets"));
        }
        if local.len() + 1 + domain.len() > PATH_MAX - 2 {
            return Err(AddressError::TooLong("path longer than 256 octets"));
        }
        // At most LOCAL_PART_MAX, as was just checked.
        Ok(Self { text: format!("{local}@{domain}").into_boxed_str(), at: local.len() as u16 })
    }

    /// The local part, quoted where it has to be.
    pub fn local(&self) -> &str {
        &self.text[..usize::from(self.at)]
    }

    /// The domain in lower case and A-labels, or an address literal with its brackets.
    pub fn domain(&self) -> &str {
        &self.text[usize::from(self.at) + 1..]
    }

    /// The whole canonical mailbox, as it stands between angle brackets.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it can be used without SMTPUTF8 (RFC 6531). The domain always can: it is in A-labels.
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }

    /// The address of a domain such as `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3).
    pub fn address_literal(&self) -> Option<IpAddr> {
        literal(self.domain())
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailbox({})", self.text)
    }
}

impl FromStr for Mailbox {
    type Err = AddressError;

    /// As [`Mailbox::parse`] with SMTPUTF8.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text, true)
    }
}

// The place of the `@` follows from the text, so the text alone decides.
impl PartialEq for Mailbox {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for Mailbox {}
impl Hash for Mailbox {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}
impl PartialOrd for Mailbox {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
/// By domain first: mail of one domain stands together.
impl Ord for Mailbox {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.domain(), self.local()).cmp(&(other.domain(), other.local()))
    }
}

/// Where reports about a message go: the argument of `MAIL FROM` (RFC 5321 §4.1.1.2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReversePath {
    /// `<>`: a notification, which must not cause another (RFC 5321 §4.5.5).
    Null,
    /// A mailbox that wants to be told.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// The mailbox, if it is not the null reverse-path.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// What stands between the angle brackets; empty for the null reverse-path.
    pub fn as_str(&self) -> &str {
        self.mailbox().map_or("", Mailbox::as_str)
    }
}

/// With its angle brackets, as in the command.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

impl From<Mailbox> for ReversePath {
    fn from(mailbox: Mailbox) -> Self {
        Self::Mailbox(mailbox)
    }
}

impl FromStr for ReversePath {
    type Err = AddressError;

    /// With or without angle brackets; nothing between them is the null reverse-path.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text) {
            "" => Ok(Self::Null),
            mailbox => mailbox.parse().map(Self::Mailbox),
        }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(reason) | Self::TooLong(reason) => f.write_str(reason),
            Self::NotAscii => f.write_str("address has characters beyond ASCII and SMTPUTF8 was not asked for"),
        }
    }
}

impl std::error::Error for AddressError {}

/// Splits `<…>` off the front of a command's argument: what stands inside, without a source route
/// (RFC 5321 §4.1.1.3: accepted and ignored), and what follows.
pub(crate) fn split_path(argument: &str) -> Result<(&str, &str), AddressError> {
    const BRACKETS: AddressError = AddressError::Syntax("address must stand in angle brackets");
    let inner = argument.strip_prefix('<').ok_or(BRACKETS)?;
    let mut quoted = false;
    let mut escaped = false;
    let end = inner.bytes().position(|octet| {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return true,
            _ => {}
        }
        false
    });
    let (inner, rest) = inner.split_at(end.ok_or(BRACKETS)?);
    Ok((without_source_route(inner)?, &rest[1..]))
}

/// `@one.example,@two.example:user@example.org` → `user@example.org`.
fn without_source_route(inner: &str) -> Result<&str, AddressError> {
    const ROUTE: AddressError = AddressError::Syntax("malformed source route");
    if !inner.starts_with('@') {
        return Ok(inner);
    }
    let (route, mailbox) = inner.split_once(':').ok_or(ROUTE)?;
    for hop in route.split(',') {
        canonical_domain(hop.strip_prefix('@').ok_or(ROUTE)?).map_err(|_| ROUTE)?;
    }
    Ok(mailbox)
}

fn split_at_sign(text: &str) -> Result<(&str, &str), AddressError> {
    const MISSING: AddressError = AddressError::Syntax("address must have the form local-part@domain");
    if !text.starts_with('"') {
        return text.split_once('@').ok_or(MISSING);
    }
    let mut escaped = false;
    for (at, octet) in text.bytes().enumerate().skip(1) {
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => {
                let domain = text[at + 1..].strip_prefix('@').ok_or(MISSING)?;
                return Ok((&text[..=at], domain));
            }
            _ => {}
        }
    }
    Err(AddressError::Syntax("quoted local part does not end"))
}

fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || is_utf8_text(c)
}

/// RFC 6531 adds all of UTF8-non-ascii; controls and separators would only serve to deceive a reader of logs.
fn is_utf8_text(c: char) -> bool {
    !c.is_ascii() && !c.is_control() && !c.is_whitespace()
}

fn is_dot_string(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// RFC 5321 §4.1.2: `"a\b"`, `"ab"` and `ab` are one local part, and the least quoting is to be sent.
fn canonical_local(local: &str) -> Result<Cow<'_, str>, AddressError> {
    let Some(quoted) = local.strip_prefix('"') else {
        return if is_dot_string(local) {
            Ok(Cow::Borrowed(local))
        } else {
            Err(AddressError::Syntax("local part has a character that must be quoted"))
        };
    };
    let quoted = quoted.strip_suffix('"').unwrap_or(quoted);
    let mut plain = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        let c = if c == '\\' { chars.next().filter(char::is_ascii).unwrap_or('\0') } else { c };
        if !(' '..='~').contains(&c) && !is_utf8_text(c) {
            return Err(AddressError::Syntax("quoted local part has a character that is not allowed"));
        }
        plain.push(c);
    }
    if is_dot_string(&plain) {
        return Ok(Cow::Owned(plain));
    }
    let mut text = String::with_capacity(plain.len() + 2);
    text.push('"');
    for c in plain.chars() {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
    Ok(Cow::Owned(text))
}

/// A domain (RFC 5321 §4.1.2) in lower case and A-labels, or an address literal in its shortest spelling.
/// The spelling that is used as a key everywhere.
pub fn canonical_domain(domain: &str) -> Result<Cow<'_, str>, AddressError> {
    if domain.starts_with('[') {
        return match literal(domain).ok_or(AddressError::Syntax("malformed address literal"))? {
            IpAddr::V4(address) => Ok(Cow::Owned(format!("[{address}]"))),
            IpAddr::V6(address) => Ok(Cow::Owned(format!("[IPv6:{address}]"))),
        };
    }
    if domain.len() > DOMAIN_MAX {
        return Err(AddressError::TooLong("domain longer than 255 octets"));
    }
    let domain = if domain.is_ascii() {
        if domain.bytes().any(|octet| octet.is_ascii_uppercase()) {
            Cow::Owned(domain.to_ascii_lowercase())
        } else {
            Cow::Borrowed(domain)
        }
    } else {
        Cow::Owned(idna::domain_to_ascii(domain).map_err(|_| AddressError::Syntax("malformed internationalized domain"))?)
    };
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !domain.split('.').all(label_ok) {
        return Err(AddressError::Syntax("malformed domain"));
    }
    // `user@192.0.2.1` would reach an address without asking DNS; no top-level domain is a number.
    if domain.rsplit('.').next().is_some_and(|label| label.bytes().all(|octet| octet.is_ascii_digit())) {
        return Err(AddressError::Syntax("domain ends in a number; an address literal stands in brackets"));
    }
    Ok(domain)
}

/// RFC 5321 §4.1.3. General-address-literals have no registered tag but IPv6.
fn literal(domain: &str) -> Option<IpAddr> {
    let inner = domain.strip_prefix('[')?.strip_suffix(']')?;
    match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => inner[5..].parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => inner.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, utf8: bool, expected: Result<&str, ()>) {
        let seen = Mailbox::parse(text, utf8);
        assert_eq!(seen.as_ref().map(Mailbox::as_str).map_err(|_| ()), expected, "{text:?}: {seen:?}");
        if let Ok(mailbox) = seen {
            assert_eq!(format!("{}@{}", mailbox.local(), mailbox.domain()), mailbox.to_string());
            assert_eq!(Mailbox::parse(mailbox.as_str(), utf8).as_ref(), Ok(&mailbox), "canonical is not stable");
        }
    }

    #[test]
    fn mailboxes_have_one_spelling() {
        for (text, expected) in [
            ("a@b.example", Ok("a@b.example")),
            ("A.b+c@B.EXAMPLE", Ok("A.b+c@b.example")),
            ("\"ab\"@b.example", Ok("ab@b.example")),
            ("\"a\\b\"@b.example", Ok("ab@b.example")),
            ("\"a b\"@b.example", Ok("\"a b\"@b.example")),
            ("\"a\\\"@b\"@b.example", Ok("\"a\\\"@b\"@b.example")),
            ("\"\"@b.example", Ok("\"\"@b.example")),
            ("a@[192.0.2.1]", Ok("a@[192.0.2.1]")),
            ("a@[ipv6:2001:DB8:0::1]", Ok("a@[IPv6:2001:db8::1]")),
            ("a@localhost", Ok("a@localhost")),
            ("", Err(())),
            ("a", Err(())),
            ("@b.example", Err(())),
            ("a@", Err(())),
            ("a@b..example", Err(())),
            ("a@b.example.", Err(())),
            ("a@-b.example", Err(())),
            ("a@b_c.example", Err(())),
            ("a@192.0.2.1", Err(())),
            ("a@[192.0.2]", Err(())),
            ("a@[tag:x]", Err(())),
            ("a@b@c.example", Err(())),
            (".a@b.example", Err(())),
            ("a..b@b.example", Err(())),
            ("a b@b.example", Err(())),
            ("a\r\nRCPT@b.example", Err(())),
            ("\"a\rb\"@b.example", Err(())),
            ("\"a\\\0b\"@b.example", Err(())),
            ("\"a@b.example", Err(())),
            ("a>b@b.example", Err(())),
            ("ü@b.example", Err(())),
        ] {
            check(text, false, expected);
        }
    }

    #[test]
    fn utf8_only_where_it_was_asked_for() {
        check("ü@b.example", true, Ok("ü@b.example"));
        check("\"ü \"@b.example", true, Ok("\"ü \"@b.example"));
        check("a@BÜCHER.example", true, Ok("a@xn--bcher-kva.example"));
        check("a\u{85}b@b.example", true, Err(()));
        check("a\u{2028}b@b.example", true, Err(()));
        assert_eq!(Mailbox::parse("a@bücher.example", false), Err(AddressError::NotAscii));
    }

    #[test]
    fn lengths_of_rfc_5321_4_5_3_1() {
        let local = "l".repeat(64);
        let domain = format!("{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(61));
        assert_eq!(local.len() + 1 + domain.len(), 254);
        check(&format!("{local}@{domain}"), false, Ok(&format!("{local}@{domain}")));
        for text in [format!("{local}@{domain}c"), format!("{local}l@b.example"), format!("a@{}.example", "a".repeat(64))] {
            check(&text, false, Err(()));
        }
    }

    #[test]
    fn paths_lose_their_source_route() {
        assert_eq!(split_path("<a@b.example> SIZE=1"), Ok(("a@b.example", " SIZE=1")));
        assert_eq!(split_path("<@x.example,@y.example:a@b.example>"), Ok(("a@b.example", "")));
        assert_eq!(split_path("<\"a>\\\"b\"@b.example>"), Ok(("\"a>\\\"b\"@b.example", "")));
        assert_eq!(split_path("<>"), Ok(("", "")));
        for bad in ["a@b.example", "<a@b.example", "<@x.example>", "<@x.example,y:a@b.example>", "<\"a>"] {
            assert!(split_path(bad).is_err(), "{bad}");
        }
    }
}
