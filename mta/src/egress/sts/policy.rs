//! The policy file at `https://mta-sts.DOMAIN/.well-known/mta-sts.txt` (RFC 8461 §3.2), and which hosts it allows (§4.1).
//!
//! Pure. Of a field that stands there twice the first counts, but for `mx`; fields that we do not know are passed over.

use std::fmt;
use std::time::Duration;

use super::record::is_name;

/// The longest time that a policy may be kept (RFC 8461 §3.2): 31557600 s, about a year. More is taken for this much: who
/// promises more has promised this too.
pub const MAX_AGE: Duration = Duration::from_secs(31_557_600);
/// Patterns that one policy may have. A file of 64 KB has room for thousands; nobody runs so many hosts.
const PATTERNS_MAX: usize = 1000;

/// What a domain promises about the hosts that take its mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What to do about a host that does not keep it.
    pub mode: Mode,
    /// The hosts. Empty with mode `none` only.
    pub mx: Vec<Pattern>,
    /// How long it holds after it was fetched.
    pub max_age: Duration,
}

/// RFC 8461 §5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Do not deliver there.
    Enforce,
    /// Deliver, and report.
    Testing,
    /// There is no policy any more.
    None,
}

impl Mode {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Testing => "testing",
            Mode::None => "none",
        }
    }
}

/// One `mx` of a policy, in lower case: `mx.example.org` or `*.example.org`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// None: it is no domain name, or has a star elsewhere than as its whole first label.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let domain = name.strip_prefix("*.").unwrap_or(name);
        let label = |label: &str| {
            let inside = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
            (1..=63).contains(&label.len()) && label.bytes().all(inside)
        };
        let good = name.len() <= 253 && domain.split('.').all(label);
        good.then(|| Pattern(name.to_ascii_lowercase()))
    }

    /// Whether it allows `host`. A star stands for one whole label, the leftmost (RFC 8461 §4.1, RFC 6125 §6.4).
    pub fn allows(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        match self.0.strip_prefix("*.") {
            None => host.eq_ignore_ascii_case(&self.0),
            Some(domain) => {
                host.split_once('.').is_some_and(|(first, rest)| !first.is_empty() && rest.eq_ignore_ascii_case(domain))
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a policy file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Octets that are not UTF-8.
    #[error("the policy is not text")]
    NotText,
    /// A line that is not `name: value`.
    #[error("line {0} of the policy is not \"name: value\"")]
    Line(usize),
    /// A field that must be there is not.
    #[error("the policy has no {0}")]
    Missing(&'static str),
    /// A field has a value that it cannot have.
    #[error("the policy has a bad {0}")]
    Bad(&'static str),
}

impl Policy {
    /// Reads a policy file.
    pub fn parse(octets: &[u8]) -> Result<Self, PolicyError> {
        let text = std::str::from_utf8(octets).map_err(|_| PolicyError::NotText)?;
        let (mut version, mut mode, mut max_age, mut mx) = (None, None, None, Vec::new());
        // Lines end in CRLF or LF, and the last one need not (RFC 8461 §3.2).
        let body = text.strip_suffix('\n').unwrap_or(text);
        for (nth, line) in body.split('\n').enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line).trim_end_matches([' ', '\t']);
            let (name, value) = line.split_once(':').filter(|(name, _)| is_name(name)).ok_or(PolicyError::Line(nth + 1))?;
            let value = value.trim_start_matches([' ', '\t']);
            if value.is_empty() || value.chars().any(char::is_control) {
                return Err(PolicyError::Line(nth + 1));
            }
            match name {
                "version" => _ = version.get_or_insert(value),
                "mode" => _ = mode.get_or_insert(value),
                "max_age" => _ = max_age.get_or_insert(value),
                "mx" if mx.len() < PATTERNS_MAX => mx.push(Pattern::parse(value).ok_or(PolicyError::Bad("mx"))?),
                "mx" => return Err(PolicyError::Bad("mx")),
                _ => {}
            }
        }
        if version.ok_or(PolicyError::Missing("version"))? != "STSv1" {
            return Err(PolicyError::Bad("version"));
        }
        let mode = match mode.ok_or(PolicyError::Missing("mode"))? {
            "enforce" => Mode::Enforce,
            "testing" => Mode::Testing,
            "none" => Mode::None,
            _ => return Err(PolicyError::Bad("mode")),
        };
        let digits = max_age.ok_or(PolicyError::Missing("max_age"))?;
        if digits.len() > 10 || !digits.bytes().all(|octet| octet.is_ascii_digit()) {
            return Err(PolicyError::Bad("max_age"));
        }
        let max_age = digits.parse().map(Duration::from_secs).map_err(|_| PolicyError::Bad("max_age"))?;
        if mx.is_empty() && mode != Mode::None {
            return Err(PolicyError::Missing("mx"));
        }
        Ok(Policy { mode, mx, max_age: max_age.min(MAX_AGE) })
    }

    /// Whether mail may go to the host of this name.
    pub fn allows(&self, host: &str) -> bool {
        self.mx.iter().any(|pattern| pattern.allows(host))
    }

    /// Its lines, for a report (RFC 8460 §4.4 `policy-string`) and for keeping: [`Policy::parse`] reads them back.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec!["version: STSv1".to_owned(), format!("mode: {}", self.mode.as_str())];
        lines.extend(self.mx.iter().map(|pattern| format!("mx: {pattern}")));
        lines.push(format!("max_age: {}", self.max_age.as_secs()));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n";

    fn parse(text: &str) -> Result<Policy, PolicyError> {
        Policy::parse(text.as_bytes())
    }

    #[test]
    fn the_policy_of_the_rfc_is_read() {
        let policy = parse(GOOD).unwrap();
        assert_eq!((policy.mode, policy.max_age), (Mode::Enforce, Duration::from_secs(604_800)));
        assert!(policy.allows("mail.example.com") && policy.allows("a.example.net"));
        assert_eq!(parse(&policy.lines().join("\n")), Ok(policy));
    }

    #[test]
    fn line_ends_spaces_unknown_fields_and_repetitions_do_no_harm() {
        for text in [
            GOOD.replace("\r\n", "\n"),
            GOOD.trim_end().to_owned(),
            GOOD.replace(": ", ":"),
            GOOD.replace(": ", ":\t "),
            GOOD.replace("\r\n", "  \r\n"),
            format!("{GOOD}mode: none\r\nmax_age: 1\r\nversion: STSv9\r\n"),
            format!("{GOOD}x-later: anything: at all, ünd so\r\n"),
        ] {
            assert_eq!(parse(&text), parse(GOOD), "{text:?}");
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (from, to, error) in [
            ("version: STSv1\r\n", "", PolicyError::Missing("version")),
            ("STSv1", "STSv2", PolicyError::Bad("version")),
            ("mode: enforce\r\n", "", PolicyError::Missing("mode")),
            ("enforce", "Enforce", PolicyError::Bad("mode")),
            ("max_age: 604800\r\n", "", PolicyError::Missing("max_age")),
            ("604800", "-1", PolicyError::Bad("max_age")),
            ("604800", "12345678901", PolicyError::Bad("max_age")),
            ("604800", "1 week", PolicyError::Bad("max_age")),
            ("mx: mail.example.com\r\nmx: *.example.net\r\n", "", PolicyError::Missing("mx")),
            ("mail.example.com", "*", PolicyError::Bad("mx")),
            ("mail.example.com", "*mail.example.com", PolicyError::Bad("mx")),
            ("mail.example.com", "a.*.example.com", PolicyError::Bad("mx")),
            ("mail.example.com", "mail..example.com", PolicyError::Bad("mx")),
            ("mx: mail.example.com", "mx:", PolicyError::Line(3)),
            ("mx: mail.example.com", "", PolicyError::Line(3)),
            ("mx: mail.example.com", "<html>", PolicyError::Line(3)),
            ("mx: mail", "mx : mail", PolicyError::Line(3)),
        ] {
            assert_eq!(parse(&GOOD.replacen(from, to, 1)), Err(error), "{from:?} as {to:?}");
        }
        assert_eq!(Policy::parse(b""), Err(PolicyError::Line(1)));
        assert_eq!(Policy::parse(b"version: \xff"), Err(PolicyError::NotText));
        let many = "mx: a.example\n".repeat(PATTERNS_MAX + 1);
        assert_eq!(parse(&format!("{GOOD}{many}")), Err(PolicyError::Bad("mx")));
    }

    #[test]
    fn a_policy_of_mode_none_needs_no_hosts_and_ages_have_a_bound() {
        let none = parse("version: STSv1\nmode: none\nmax_age: 86400\n").unwrap();
        assert_eq!((none.mode, none.mx.len()), (Mode::None, 0));
        assert_eq!(parse(&GOOD.replace("604800", "9999999999")).unwrap().max_age, MAX_AGE);
        assert_eq!(parse(&GOOD.replace("604800", "0")).unwrap().max_age, Duration::ZERO);
    }

    #[test]
    fn a_star_is_the_whole_leftmost_label_and_no_more() {
        let star = Pattern::parse("*.Example.com.").unwrap();
        for (host, allowed) in [
            ("mail.example.com", true),
            ("MAIL.example.COM.", true),
            ("example.com", false),
            (".example.com", false),
            ("a.b.example.com", false),
            ("mailexample.com", false),
            ("mail.example.com.evil.example", false),
        ] {
            assert_eq!(star.allows(host), allowed, "{host}");
        }
        let plain = Pattern::parse("mx.example.com").unwrap();
        assert!(plain.allows("MX.example.com.") && !plain.allows("a.mx.example.com") && !plain.allows("example.com"));
    }
}
