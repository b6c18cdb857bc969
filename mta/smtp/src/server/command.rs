//! Command lines (RFC 5321 §4.1) and their arguments. What is wrong with one is a [`Reply`].
//!
//! Lenient in one thing only: spaces after `FROM:` and `TO:` and at the end of a line, which many clients write.

use std::time::{Duration, SystemTime};

use super::{Body, MailParameters, RcptParameters};
use crate::address::{AddressError, Mailbox, ReversePath, split_path};
use crate::envelope::{self, ByMode, DeliverBy, Notify, Ret};
use crate::instant;
use crate::reply::Reply;

/// Octets of a command line with its CRLF: 512 (RFC 5321 §4.5.3.1.4), and what extensions add to MAIL: SIZE 26
/// (RFC 1870 §3), BODY 17 (RFC 6152 §2), SMTPUTF8 10 (RFC 6531 §3.1), AUTH 500 (RFC 4954 §5), RET 9 and ENVID 107
/// (RFC 3461 §4), BY 17 (RFC 2852 §2), HOLDFOR or HOLDUNTIL 34 (RFC 4865 §3), MT-PRIORITY 15 (RFC 6710 §3),
/// REQUIRETLS 11 (RFC 8689 §2). To RCPT they add less: NOTIFY 29 and ORCPT 507.
pub(super) const COMMAND_LINE_MAX: usize = 512 + 26 + 17 + 10 + 500 + 9 + 107 + 17 + 34 + 15 + 11;
/// Octets of a line of AUTH with its CRLF (RFC 4954 §4).
pub(super) const AUTH_LINE_MAX: usize = 12_288;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Ehlo,
    Helo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Vrfy,
    Expn,
    Help,
    Quit,
    StartTls,
    Auth,
    /// A browser was led here: its next lines are the attacker's (cross-protocol attack).
    Http,
    Unknown,
}

/// The verb of a line, and what follows it without the spaces around.
pub(super) fn split(line: &str) -> (Verb, &str) {
    let line = line.trim_end_matches([' ', '\t']);
    let (word, argument) = line.split_once(' ').unwrap_or((line, ""));
    const VERBS: [(&str, Verb); 17] = [
        ("MAIL", Verb::Mail),
        ("RCPT", Verb::Rcpt),
        ("DATA", Verb::Data),
        ("BDAT", Verb::Bdat),
        ("EHLO", Verb::Ehlo),
        ("HELO", Verb::Helo),
        ("RSET", Verb::Rset),
        ("NOOP", Verb::Noop),
        ("VRFY", Verb::Vrfy),
        ("EXPN", Verb::Expn),
        ("HELP", Verb::Help),
        ("QUIT", Verb::Quit),
        ("STARTTLS", Verb::StartTls),
        ("AUTH", Verb::Auth),
        ("GET", Verb::Http),
        ("POST", Verb::Http),
        ("CONNECT", Verb::Http),
    ];
    let verb = VERBS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map_or(Verb::Unknown, |&(_, verb)| verb);
    (verb, argument.trim_start_matches(' '))
}

/// The name in EHLO or HELO. Clients name themselves in many ways; it is only kept out of our logs' way.
pub(super) fn greeting(argument: &str) -> Result<String, Reply> {
    let ok = !argument.is_empty() && argument.len() <= 255 && argument.bytes().all(|octet| octet.is_ascii_graphic());
    if ok { Ok(argument.to_owned()) } else { Err(Reply::new(501, (5, 5, 4), "Say your domain or address literal")) }
}

/// What the session lets MAIL and RCPT declare.
pub(super) struct Offered<'a> {
    pub(super) hostname: &'a str,
    pub(super) bytes_max: usize,
    pub(super) auth: bool,
    pub(super) dsn: bool,
    /// The shortest time of a returning BY.
    pub(super) deliver_by: Option<u32>,
    pub(super) hold: Option<Hold>,
    pub(super) mt_priority: bool,
    pub(super) require_tls: bool,
}

/// FUTURERELEASE as it is offered: from now, and for how long at most.
#[derive(Clone, Copy)]
pub(super) struct Hold {
    pub(super) now: SystemTime,
    pub(super) max: Duration,
}

impl Hold {
    /// The latest time to hold a message until. None: no calendar reaches there, so nothing is offered.
    pub(super) fn latest(self) -> Option<SystemTime> {
        self.now.checked_add(self.max)
    }

    /// The parameters of the extension's keyword in the reply to EHLO (RFC 4865 §3).
    pub(super) fn announced(self) -> Option<String> {
        Some(format!("{} {}", self.max.as_secs(), instant::format(self.latest()?)))
    }

    /// The time that `HOLDFOR` or `HOLDUNTIL` names, if the value is of its form and not beyond what we offer.
    fn until(self, keyword: &str, value: &str) -> Result<SystemTime, Reply> {
        let bad_value = || Reply::new(501, (5, 5, 4), format!("Bad value of {keyword}"));
        let until = if keyword == "HOLDFOR" {
            // future-release-integer: one to nine digits, of which the first is not zero.
            let digits = Some(value).filter(|value| value.len() <= 9 && is_number(value) && !value.starts_with('0'));
            let secs = digits.and_then(|digits| digits.parse().ok()).ok_or_else(bad_value)?;
            self.now.checked_add(Duration::from_secs(secs))
        } else {
            Some(instant::parse(value).ok_or_else(bad_value)?)
        };
        until.filter(|until| self.latest().is_some_and(|latest| *until <= latest)).ok_or_else(|| {
            Reply::new(
                501,
                (5, 5, 4),
                format!("{keyword} is further away than the {} seconds that we hold mail", self.max.as_secs()),
            )
        })
    }
}

/// `FROM:<reverse-path> [parameters]` (RFC 5321 §4.1.1.2).
pub(super) fn mail(argument: &str, offered: &Offered<'_>) -> Result<(ReversePath, MailParameters), Reply> {
    let bad_path = |error| refuse_path(error, (5, 1, 7));
    let argument = after_keyword(argument, "FROM:").ok_or_else(|| syntax("MAIL FROM:<address>"))?;
    let (path, rest) = split_path(argument).map_err(bad_path)?;
    let mut parameters = MailParameters::default();
    let mut seen = Vec::new();
    for (keyword, value) in parameter_list(rest)? {
        if seen.iter().any(|other: &&str| other.eq_ignore_ascii_case(keyword)) {
            return Err(Reply::new(501, (5, 5, 4), format!("{keyword} is declared twice")));
        }
        seen.push(keyword);
        let bad_value = || Reply::new(501, (5, 5, 4), format!("Bad value of {keyword}"));
        match keyword.to_ascii_uppercase().as_str() {
            "SIZE" => {
                let digits = value.filter(|value| (1..=20).contains(&value.len()) && is_number(value)).ok_or_else(bad_value)?;
                // Twenty digits may be more than a u64, and are then surely too many octets.
                let size = digits.parse().unwrap_or(u64::MAX);
                if size > offered.bytes_max as u64 {
                    return Err(Reply::new(552, (5, 3, 4), format!("Message is larger than {} octets", offered.bytes_max)));
                }
                parameters.size = Some(size);
            }
            "BODY" => {
                parameters.body = match value {
                    Some(value) if value.eq_ignore_ascii_case("7BIT") => Body::SevenBit,
                    Some(value) if value.eq_ignore_ascii_case("8BITMIME") => Body::EightBitMime,
                    _ => return Err(bad_value()),
                }
            }
            "SMTPUTF8" if value.is_some() => return Err(bad_value()),
            "SMTPUTF8" => parameters.smtputf8 = true,
            // Who first submitted it is of no use to us; RFC 4954 §5 lets us take it for `<>`.
            "AUTH" if offered.auth => drop(value.ok_or_else(bad_value)?),
            "RET" if offered.dsn => parameters.ret = Some(value.and_then(Ret::parse).ok_or_else(bad_value)?),
            "ENVID" if offered.dsn => {
                let envid = value.filter(|value| envelope::is_envid(value)).ok_or_else(bad_value)?;
                parameters.envid = Some(envid.to_owned());
            }
            "BY" if offered.deliver_by.is_some() => {
                parameters.deliver_by = Some(value.and_then(DeliverBy::parse).ok_or_else(bad_value)?);
            }
            keyword @ ("HOLDFOR" | "HOLDUNTIL") if let Some(hold) = offered.hold => {
                if parameters.hold_until.is_some() {
                    return Err(Reply::new(501, (5, 5, 4), "HOLDFOR and HOLDUNTIL exclude each other"));
                }
                parameters.hold_until = Some(hold.until(keyword, value.ok_or_else(bad_value)?)?);
            }
            "MT-PRIORITY" if offered.mt_priority => {
                parameters.priority = Some(value.and_then(envelope::priority).ok_or_else(bad_value)?);
            }
            "REQUIRETLS" if offered.require_tls && value.is_some() => return Err(bad_value()),
            "REQUIRETLS" if offered.require_tls => parameters.require_tls = true,
            _ => return Err(unknown_parameter(keyword)),
        }
    }
    let path = match path {
        "" => ReversePath::Null,
        path => ReversePath::Mailbox(Mailbox::parse(path, parameters.smtputf8).map_err(bad_path)?),
    };
    if let (Some(by), Some(least)) = (parameters.deliver_by, offered.deliver_by)
        && by.mode == ByMode::Return
    {
        if by.secs < i64::from(least) {
            return Err(Reply::new(555, (5, 5, 4), format!("{} seconds are less than the {least} that BY needs here", by.secs)));
        }
        if path == ReversePath::Null {
            return Err(Reply::new(501, (5, 5, 4), "BY with R returns a message, and the null reverse-path takes none"));
        }
    }
    Ok((path, parameters))
}

/// `TO:<forward-path> [parameters]` (RFC 5321 §4.1.1.3).
pub(super) fn rcpt(argument: &str, smtputf8: bool, offered: &Offered<'_>) -> Result<(Mailbox, RcptParameters), Reply> {
    let bad_path = |error| refuse_path(error, (5, 1, 3));
    let argument = after_keyword(argument, "TO:").ok_or_else(|| syntax("RCPT TO:<address>"))?;
    let (path, rest) = split_path(argument).map_err(bad_path)?;
    let mut parameters = RcptParameters::default();
    for (keyword, value) in parameter_list(rest)? {
        let bad_value = || Reply::new(501, (5, 5, 4), format!("Bad value of {keyword}"));
        let twice = || Err(Reply::new(501, (5, 5, 4), format!("{keyword} is declared twice")));
        match keyword.to_ascii_uppercase().as_str() {
            "NOTIFY" if offered.dsn => {
                if parameters.notify.replace(value.and_then(Notify::parse).ok_or_else(bad_value)?).is_some() {
                    return twice();
                }
            }
            "ORCPT" if offered.dsn => {
                let orcpt = value.and_then(|value| envelope::orcpt(value, smtputf8)).ok_or_else(bad_value)?;
                if parameters.orcpt.replace(orcpt.into_owned()).is_some() {
                    return twice();
                }
            }
            _ => return Err(unknown_parameter(keyword)),
        }
    }
    let mailbox = match path {
        path if path.eq_ignore_ascii_case("postmaster") => Mailbox::postmaster(offered.hostname),
        path => Mailbox::parse(path, smtputf8),
    };
    Ok((mailbox.map_err(bad_path)?, parameters))
}

/// `n [LAST]` (RFC 3030 §2). `None`: it cannot be known how many octets follow.
pub(super) fn bdat(argument: &str) -> Option<(u64, bool)> {
    let mut words = argument.split(' ').filter(|word| !word.is_empty());
    let octets = words.next().filter(|word| is_number(word))?.parse().ok()?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return None,
    };
    words.next().is_none().then_some((octets, last))
}

/// Commands without an argument.
pub(super) fn nothing(argument: &str) -> Result<(), Reply> {
    if argument.is_empty() { Ok(()) } else { Err(Reply::new(501, (5, 5, 4), "This command takes no argument")) }
}

fn syntax(form: &str) -> Reply {
    Reply::new(501, (5, 5, 4), format!("Syntax: {form}"))
}

fn unknown_parameter(keyword: &str) -> Reply {
    Reply::new(555, (5, 5, 4), format!("Parameter {keyword} is not known here"))
}

fn refuse_path(error: AddressError, bad_address: (u8, u16, u16)) -> Reply {
    match error {
        // RFC 6531 §3.5 and RFC 3463 X.6.7.
        AddressError::NotAscii => Reply::new(553, (5, 6, 7), error.to_string()),
        AddressError::Syntax(_) | AddressError::TooLong(_) => Reply::new(501, bad_address, error.to_string()),
    }
}

fn after_keyword<'a>(argument: &'a str, keyword: &str) -> Option<&'a str> {
    let head = argument.get(..keyword.len())?;
    head.eq_ignore_ascii_case(keyword).then(|| argument[keyword.len()..].trim_start_matches(' '))
}

/// esmtp-params (RFC 5321 §4.1.2): ` KEYWORD[=value]` …
fn parameter_list(rest: &str) -> Result<Vec<(&str, Option<&str>)>, Reply> {
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(Reply::new(501, (5, 5, 4), "A space must follow the address"));
    }
    let malformed = || Reply::new(501, (5, 5, 4), "Malformed parameter");
    let mut list = Vec::new();
    for word in rest.split(' ').filter(|word| !word.is_empty()) {
        let (keyword, value) = word.split_once('=').map_or((word, None), |(keyword, value)| (keyword, Some(value)));
        let keyword_ok =
            keyword.bytes().enumerate().all(|(at, octet)| octet.is_ascii_alphanumeric() || (at > 0 && octet == b'-'));
        let value_ok = value.is_none_or(|value| !value.is_empty() && value.bytes().all(|octet| octet > b' ' && octet != b'='));
        if keyword.is_empty() || !keyword_ok || !value_ok {
            return Err(malformed());
        }
        list.push((keyword, value));
    }
    Ok(list)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit())
}
