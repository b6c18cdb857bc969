//! Replies (RFC 5321 §4.2) with enhanced status codes (RFC 2034, 3463): written by the server, read by the client.
//!
//! A reply's text is sanitized when the reply is made, so it can be logged, stored and sent: no control
//! character survives, whoever wrote it.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;

/// Octets of text in one reply line that we send; RFC 5321 §4.5.3.1.5 allows 512 with code and CRLF.
const LINE_TEXT_MAX: usize = 480;

/// `class.subject.detail` (RFC 3463).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnhancedCode(pub u8, pub u16, pub u16);

impl EnhancedCode {
    /// Reads the code at the front of a reply's text; gives it and what follows it.
    pub fn split(text: &str) -> Option<(Self, &str)> {
        let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut parts = code.split('.');
        let mut part = |digits_max: usize| {
            let part = parts.next()?;
            let ok = (1..=digits_max).contains(&part.len()) && part.bytes().all(|octet| octet.is_ascii_digit());
            ok.then(|| part.parse::<u16>().ok()).flatten()
        };
        let code = Self(u8::try_from(part(1)?).ok()?, part(3)?, part(3)?);
        let whole = parts.next().is_none() && matches!(code.0, 2 | 4 | 5);
        whole.then_some((code, rest))
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl From<(u8, u16, u16)> for EnhancedCode {
    fn from((class, subject, detail): (u8, u16, u16)) -> Self {
        Self(class, subject, detail)
    }
}

/// A reply (RFC 5321 §4.2): a code, maybe an enhanced code, and one or more lines of text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reply {
    code: u16,
    enhanced: Option<EnhancedCode>,
    /// Never empty.
    lines: Vec<Cow<'static, str>>,
}

impl Reply {
    /// A reply with an enhanced code. Control characters in `text` become spaces.
    pub fn new(code: u16, enhanced: impl Into<EnhancedCode>, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, enhanced: Some(enhanced.into()), lines: vec![sanitize(text.into())] }
    }

    /// A reply without one: greetings, the reply to EHLO, and 3yz (RFC 2034 §4).
    pub fn plain(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, enhanced: None, lines: vec![sanitize(text.into())] }
    }

    /// One more line of text.
    #[must_use]
    pub fn line(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.lines.push(sanitize(text.into()));
        self
    }

    /// The three digits.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced code, if the reply has one.
    pub fn enhanced(&self) -> Option<EnhancedCode> {
        self.enhanced
    }

    /// The text, line by line, without codes. There is at least one, maybe an empty one.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(AsRef::as_ref)
    }

    /// 2yz: done.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3yz: go on.
    pub fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// 4yz: try later.
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5yz: do not try again.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// As it goes over the wire, CRLF included; longer lines are split (RFC 5321 §4.5.3.1.5).
    pub fn to_octets(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(64);
        self.write_to(&mut octets);
        octets
    }

    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        let last = self.lines.len() - 1;
        for (number, line) in self.lines.iter().enumerate() {
            let mut rest: &str = line;
            loop {
                let (piece, after) = split_line(rest);
                rest = after;
                let more = if number < last || !rest.is_empty() { '-' } else { ' ' };
                // Writing to a Vec cannot fail.
                let _ = write!(out, "{}{more}", self.code);
                if let Some(enhanced) = self.enhanced {
                    let _ = write!(out, "{enhanced} ");
                }
                // RFC 6531 §3.7.4.2 lets UTF-8 into few replies only, to peers that asked for it: to none is simpler.
                out.extend(piece.chars().map(|c| if c.is_ascii() { c as u8 } else { b'?' }));
                out.extend_from_slice(b"\r\n");
                if rest.is_empty() {
                    break;
                }
            }
        }
    }

    /// From the lines that a peer sent, codes and CRLF taken off by the caller.
    pub(crate) fn received(code: u16, mut lines: Vec<Cow<'static, str>>) -> Self {
        let enhanced = lines
            .first()
            .and_then(|line| EnhancedCode::split(line))
            .map(|(enhanced, _)| enhanced)
            .filter(|enhanced| u16::from(enhanced.0) == code / 100);
        for line in &mut lines {
            let text = match EnhancedCode::split(line) {
                Some((code, rest)) if Some(code) == enhanced => rest.to_owned(),
                _ => std::mem::take(line).into_owned(),
            };
            *line = sanitize(Cow::Owned(text));
        }
        if lines.is_empty() {
            lines.push(Cow::Borrowed(""));
        }
        Self { code, enhanced, lines }
    }
}

/// On one line, for logs and for the `Diagnostic-Code` of a DSN (RFC 3464 §2.3.6).
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        self.lines.iter().filter(|line| !line.is_empty()).try_for_each(|line| write!(f, " {line}"))
    }
}

fn sanitize(text: Cow<'static, str>) -> Cow<'static, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    } else {
        text
    }
}

/// Splits what does not fit into a line off, at a space where there is one.
fn split_line(text: &str) -> (&str, &str) {
    if text.len() <= LINE_TEXT_MAX {
        return (text, "");
    }
    let end = text.floor_char_boundary(LINE_TEXT_MAX);
    let end = text[..end].rfind(' ').filter(|&space| space > 0).unwrap_or(end);
    let (piece, rest) = text.split_at(end);
    (piece, rest.trim_start_matches(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_written_with_their_codes_on_each_line() {
        let reply = Reply::new(550, (5, 7, 1), "no\r\n250 injected").line("see postmaster");
        assert_eq!(reply.to_octets(), b"550-5.7.1 no  250 injected\r\n550 5.7.1 see postmaster\r\n");
        assert_eq!(reply.to_string(), "550 5.7.1 no  250 injected see postmaster");
        assert_eq!(Reply::plain(354, "go on").to_octets(), b"354 go on\r\n");
    }

    #[test]
    fn long_texts_are_split_and_stay_below_512_octets() {
        for text in ["word ".repeat(300), "x".repeat(2000), "é".repeat(700)] {
            let octets = Reply::new(451, (4, 7, 1), text.clone()).to_octets();
            let lines: Vec<_> = std::str::from_utf8(&octets).unwrap().split_inclusive("\r\n").collect();
            assert!(lines.len() > 1 && lines.iter().all(|line| line.len() <= 512 && line.ends_with("\r\n")));
            let (last, first) = lines.split_last().unwrap();
            assert!(last.starts_with("451 4.7.1 ") && first.iter().all(|line| line.starts_with("451-4.7.1 ")));
        }
    }

    #[test]
    fn enhanced_codes_are_read_only_where_they_agree() {
        let read = |code, line: &'static str| Reply::received(code, vec![Cow::Borrowed(line)]);
        assert_eq!(read(550, "5.1.1 unknown").enhanced(), Some(EnhancedCode(5, 1, 1)));
        assert_eq!(read(550, "5.1.1 unknown").to_string(), "550 5.1.1 unknown");
        assert_eq!(read(550, "5.1.1").to_string(), "550 5.1.1");
        for text in ["2.1.1 odd", "5.1 odd", "5.1.1111 odd", "5.1.1.1 odd", "5.+1.1 odd", "odd"] {
            let reply = read(550, text);
            assert_eq!((reply.enhanced(), reply.to_string()), (None, format!("550 {text}")));
        }
    }
}
