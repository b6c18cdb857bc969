//! What an envelope carries besides its addresses: which notices are wanted (RFC 3461), until when the message
//! is of use (RFC 2852), how urgent it is (RFC 6710).
//!
//! Both sides of the dialogue read and write these values, and the queue keeps them in between. What a client
//! names itself (ENVID, ORCPT) stays as it was written, because a later hop must see it unchanged; only
//! characters beyond ASCII are put into the form that every hop takes (RFC 6533 §3).
//!
//! Not here: which command may have which parameter (`server/command.rs`, `client/transaction.rs`).

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// RFC 3461 §4.4: characters of ENVID as it is written.
pub const ENVID_MAX: usize = 100;
/// RFC 3461 §4.2: characters of ORCPT as it is written.
pub const ORCPT_MAX: usize = 500;
/// RFC 2852 §4: seconds of a by-time, before or after now.
pub const BY_SECS_MAX: i64 = 999_999_999;

/// How much of a message a notice of its failure returns (RFC 3461 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    /// The whole message.
    Full,
    /// The header section only.
    Headers,
}

impl Ret {
    /// `FULL` or `HDRS`.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Full, Self::Headers].into_iter().find(|ret| ret.as_str().eq_ignore_ascii_case(text))
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        }
    }
}

/// When the sender wants to hear about a recipient (RFC 3461 §4.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notify {
    /// Of its delivery.
    pub success: bool,
    /// Of its failure. All three false is `NOTIFY=NEVER`.
    pub failure: bool,
    /// Of an unusual delay.
    pub delay: bool,
}

impl Notify {
    /// Nothing is to be told, whatever happens.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };

    /// `NEVER`, or some of `SUCCESS`, `FAILURE` and `DELAY` with commas between them, each at most once.
    pub fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("NEVER") {
            return Some(Self::NEVER);
        }
        let mut notify = Self::NEVER;
        for word in text.split(',') {
            let wanted = match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => &mut notify.success,
                "FAILURE" => &mut notify.failure,
                "DELAY" => &mut notify.delay,
                _ => return None,
            };
            if std::mem::replace(wanted, true) {
                return None;
            }
        }
        Some(notify)
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER {
            return f.write_str("NEVER");
        }
        let words = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let mut between = "";
        for (_, word) in words.into_iter().filter(|(wanted, _)| *wanted) {
            write!(f, "{between}{word}")?;
            between = ",";
        }
        Ok(())
    }
}

/// `BY=` of MAIL (RFC 2852 §4): when the message should have been delivered, and what follows if it was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliverBy {
    /// From now. Zero or less: that time has passed, and somebody has told the sender.
    pub secs: i64,
    /// What follows.
    pub mode: ByMode,
    /// Every hop tells the sender that it has passed the message on.
    pub trace: bool,
}

/// What becomes of a message that is late (RFC 2852 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByMode {
    /// The sender is told, and the message is tried on.
    Notify,
    /// It fails.
    Return,
}

impl DeliverBy {
    /// `by-time;by-mode[by-trace]`. A time that has passed leaves nothing to return: with `R` it is no value.
    pub fn parse(text: &str) -> Option<Self> {
        let (time, mode) = text.split_once(';')?;
        let (sign, digits) = match time.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, time.strip_prefix('+').unwrap_or(time)),
        };
        let digits = Some(digits).filter(|digits| (1..=9).contains(&digits.len()))?;
        let secs = sign * number(digits)?;
        let (mode, trace) = match mode.to_ascii_uppercase().as_str() {
            "N" => (ByMode::Notify, false),
            "NT" => (ByMode::Notify, true),
            "R" => (ByMode::Return, false),
            "RT" => (ByMode::Return, true),
            _ => return None,
        };
        (secs > 0 || mode == ByMode::Notify).then_some(Self { secs, mode, trace })
    }
}

impl fmt::Display for DeliverBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.mode == ByMode::Return { "R" } else { "N" };
        let trace = if self.trace { "T" } else { "" };
        write!(f, "{};{mode}{trace}", self.secs.clamp(-BY_SECS_MAX, BY_SECS_MAX))
    }
}

/// `MT-PRIORITY=` of MAIL (RFC 6710 §5): -9 to 9, without a plus sign or a leading zero.
pub fn priority(text: &str) -> Option<i8> {
    let value = text.parse::<i8>().ok().filter(|value| (-9..=9).contains(value))?;
    (value.to_string() == text).then_some(value)
}

/// Digits alone.
fn number(digits: &str) -> Option<i64> {
    if digits.bytes().all(|octet| octet.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// `ENVID=` of MAIL: whether it is xtext that stands for printable ASCII (RFC 3461 §4.4).
pub fn is_envid(text: &str) -> bool {
    (1..=ENVID_MAX).contains(&text.len()) && decode_xtext(text).is_some()
}

/// `ORCPT=` of RCPT, `type;address`, as it may be passed on; None if it is no such thing. `utf8`: the transaction
/// allows characters beyond ASCII, which are put into the form of RFC 6533 §3 (`\x{E9}`).
pub fn orcpt(text: &str, utf8: bool) -> Option<Cow<'_, str>> {
    let (kind, address) = text.split_once(';')?;
    if text.len() > ORCPT_MAX || kind.is_empty() || address.is_empty() || !kind.bytes().all(is_atom) {
        return None;
    }
    if !kind.eq_ignore_ascii_case("utf-8") {
        return decode_xtext(address).map(|_| Cow::Borrowed(text));
    }
    decode_utf8_address(address).filter(|_| utf8 || address.is_ascii())?;
    if address.is_ascii() {
        return Some(Cow::Borrowed(text));
    }
    let mut ascii = format!("{kind};");
    for c in address.chars() {
        // Writing to a String cannot fail.
        let _ = if c.is_ascii() { ascii.write_char(c) } else { write!(ascii, "\\x{{{:X}}}", u32::from(c)) };
    }
    // Longer than what the client wrote, but what the next hop must see; RFC 6533 gives no other bound.
    (ascii.len() <= ORCPT_MAX).then_some(Cow::Owned(ascii))
}

/// The address type of an ORCPT and the address in plain characters, for the `Original-Recipient` of a notice.
pub fn original_recipient(orcpt: &str) -> Option<(&str, String)> {
    let (kind, address) = orcpt.split_once(';')?;
    let plain = if kind.eq_ignore_ascii_case("utf-8") { decode_utf8_address(address) } else { decode_xtext(address) };
    Some((kind, plain?))
}

/// xtext (RFC 3461 §4) in plain characters. None: it is not xtext, or stands for what cannot be printed.
pub fn decode_xtext(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        let octet = match octet {
            // The digits are in upper case.
            b'+' => 16 * hex(rest.next()?)? + hex(rest.next()?)?,
            b'!'..=b'~' if octet != b'=' => octet,
            _ => return None,
        };
        if !matches!(octet, b' '..=b'~') {
            return None;
        }
        plain.push(char::from(octet));
    }
    Some(plain)
}

/// utf-8-addr-xtext or utf-8-addr-unitext (RFC 6533 §3) in plain characters.
fn decode_utf8_address(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c != '\\' {
            if matches!(c, '\0'..=' ' | '+' | '=' | '\x7f') || c.is_control() {
                return None;
            }
            plain.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let (digits, after) = rest.strip_prefix("\\x{")?.split_once('}')?;
        let upper = digits.bytes().all(|octet| octet.is_ascii_digit() || (b'A'..=b'F').contains(&octet));
        let shortest = (2..=6).contains(&digits.len()) && (digits.len() == 2 || !digits.starts_with('0'));
        let c = u32::from_str_radix(digits, 16).ok().filter(|_| upper && shortest).and_then(char::from_u32)?;
        // What can stand for itself must; what would tear the line apart may not come back to life.
        if (c.is_ascii() && !matches!(c, ' ' | '+' | '=' | '\\')) || c.is_control() {
            return None;
        }
        plain.push(c);
        rest = after;
    }
    Some(plain)
}

fn hex(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

/// RFC 822's atom, of which address types are made.
fn is_atom(octet: u8) -> bool {
    octet.is_ascii_graphic() && !b"()<>@,;:\\\".[]".contains(&octet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_is_never_alone_or_a_set() {
        let all = Notify { success: true, failure: true, delay: true };
        for (text, expected) in [
            ("NEVER", Some(Notify::NEVER)),
            ("never", Some(Notify::NEVER)),
            ("Success,FAILURE,delay", Some(all)),
            ("DELAY", Some(Notify { delay: true, ..Notify::NEVER })),
            ("", None),
            ("NEVER,FAILURE", None),
            ("FAILURE,NEVER", None),
            ("FAILURE,FAILURE", None),
            ("FAILURE,", None),
            ("ALWAYS", None),
        ] {
            assert_eq!(Notify::parse(text), expected, "{text:?}");
        }
        for notify in [Notify::NEVER, all, Notify { failure: true, ..Notify::NEVER }] {
            assert_eq!(Notify::parse(&notify.to_string()), Some(notify));
        }
    }

    #[test]
    fn by_values_read_back_and_a_return_that_is_late_is_none() {
        for text in ["120;R", "120;RT", "0;N", "-17;NT", "999999999;N"] {
            assert_eq!(DeliverBy::parse(text).map(|by| by.to_string()).as_deref(), Some(text));
        }
        assert_eq!(DeliverBy::parse("+5;n").map(|by| by.to_string()).as_deref(), Some("5;N"));
        for text in ["0;R", "-1;R", "1234567890;N", ";N", "1", "1;", "1;X", "1;TR", "1;R T", "+-1;N", "--1;N", "1.5;N", "+;N"] {
            assert_eq!(DeliverBy::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn priorities_have_one_spelling() {
        assert_eq!(["-9", "0", "9"].map(priority), [Some(-9), Some(0), Some(9)]);
        for text in ["", "-", "10", "-10", "+1", "01", "-0", "1.0", "x"] {
            assert_eq!(priority(text), None, "{text:?}");
        }
    }

    #[test]
    fn xtext_stands_for_printable_ascii() {
        assert_eq!(decode_xtext("a+2Bb+3Dc+20d").as_deref(), Some("a+b=c d"));
        for text in ["+2b", "+2", "+", "a=b", "a b", "+00", "+0D", "+7F", "é", "+C3+A9"] {
            assert_eq!(decode_xtext(text), None, "{text:?}");
        }
        assert!(is_envid(&"x".repeat(100)) && !is_envid(&"x".repeat(101)) && !is_envid(""));
    }

    #[test]
    fn original_recipients_are_checked_and_kept_in_ascii() {
        for (text, utf8, expected) in [
            ("rfc822;a+2Bb@x.example", false, Some("rfc822;a+2Bb@x.example")),
            ("utf-8;a\\x{E9}@x.example", false, Some("utf-8;a\\x{E9}@x.example")),
            ("utf-8;aé@x.example", true, Some("utf-8;a\\x{E9}@x.example")),
            ("utf-8;aé@x.example", false, None),
            ("utf-8;a\\x{0A}@x.example", true, None),
            ("utf-8;a\\x{41}@x.example", true, None),
            ("utf-8;a\\x{e9}@x.example", true, None),
            ("utf-8;a\\x{D800}@x.example", true, None),
            ("utf-8;a\\x{E9", true, None),
            ("rfc822;é@x.example", true, None),
            ("rfc822;", false, None),
            (";a@x.example", false, None),
            ("rfc822", false, None),
            ("rfc 822;a@x.example", false, None),
            ("rfc822;a@x.example+0D+0ABcc:+20evil", false, None),
        ] {
            assert_eq!(orcpt(text, utf8).as_deref(), expected, "{text:?}");
        }
        assert_eq!(original_recipient("RFC822;a+2Bb@x.example"), Some(("RFC822", "a+b@x.example".to_owned())));
        assert_eq!(original_recipient("utf-8;a\\x{E9}@x.example"), Some(("utf-8", "aé@x.example".to_owned())));
        let long = format!("rfc822;{}", "a".repeat(493));
        assert!(orcpt(&long, false).is_some() && orcpt(&format!("{long}a"), false).is_none());
    }
}
