//! Command lines (RFC 5321 §4.1) and their arguments. What is wrong with one is a [`Reply`].
//!
//! Lenient in one thing only: spaces after `FROM:` and `TO:` and at the end of a line, which many clients write.

use super::{Body, MailParameters, RcptParameters};
use crate::address::{AddressError, Mailbox, ReversePath, split_path};
use crate::reply::Reply;

/// Octets of a command line with its CRLF: 512 (RFC 5321 §4.5.3.1.4), and what extensions add to MAIL: SIZE 26
/// (RFC 1870 §3), BODY 17 (RFC 6152 §2), SMTPUTF8 10 (RFC 6531 §3.1), AUTH 500 (RFC 4954 §5).
pub(super) const COMMAND_LINE_MAX: usize = 512 + 26 + 17 + 10 + 500;
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

/// What the session lets MAIL declare.
pub(super) struct Offered {
    pub(super) bytes_max: usize,
    pub(super) auth: bool,
}

/// `FROM:<reverse-path> [parameters]` (RFC 5321 §4.1.1.2).
pub(super) fn mail(argument: &str, offered: &Offered) -> Result<(ReversePath, MailParameters), Reply> {
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
            _ => return Err(unknown_parameter(keyword)),
        }
    }
    let path = match path {
        "" => ReversePath::Null,
        path => ReversePath::Mailbox(Mailbox::parse(path, parameters.smtputf8).map_err(bad_path)?),
    };
    Ok((path, parameters))
}

/// `TO:<forward-path> [parameters]` (RFC 5321 §4.1.1.3).
pub(super) fn rcpt(argument: &str, smtputf8: bool, hostname: &str) -> Result<(Mailbox, RcptParameters), Reply> {
    let bad_path = |error| refuse_path(error, (5, 1, 3));
    let argument = after_keyword(argument, "TO:").ok_or_else(|| syntax("RCPT TO:<address>"))?;
    let (path, rest) = split_path(argument).map_err(bad_path)?;
    if let Some((keyword, _)) = parameter_list(rest)?.first() {
        return Err(unknown_parameter(keyword));
    }
    let mailbox =
        if path.eq_ignore_ascii_case("postmaster") { Mailbox::postmaster(hostname) } else { Mailbox::parse(path, smtputf8) };
    Ok((mailbox.map_err(bad_path)?, RcptParameters {}))
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
