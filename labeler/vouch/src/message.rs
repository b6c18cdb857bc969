//! The header section of a message and its author, read so that they have one reading: where two programs could see two things,
//! nobody is vouched for.
//!
//! The lines may end with CRLF, as they travelled, or all with LF, as files are often kept; then CRLF is put back, which is what
//! was signed.

use std::borrow::Cow;

use atproto::lexicon::{canonical_domain, check_domain};
use mail_parser::parsers::MessageStream;

use crate::dkim::Signature;

/// Longer messages are refused. What mail systems carry ends before.
pub const MESSAGE_BYTES_MAX: usize = 50 << 20;
/// Octets of a header section; real ones have a few kilobytes.
const HEADER_BYTES_MAX: usize = 256 << 10;
const FIELDS_MAX: usize = 1000;
/// Comments in comments.
const COMMENT_DEPTH_MAX: usize = 8;

/// Fields that a reader sees or a program acts on, and whether there may be only one of them (RFC 5322 §3.6, RFC 2045 §3).
pub(crate) const SEEN: [(&str, bool); 12] = [
    ("From", true),
    ("Sender", true),
    ("Reply-To", true),
    ("To", true),
    ("Cc", true),
    ("Subject", true),
    ("Date", true),
    ("Message-ID", true),
    ("MIME-Version", true),
    ("Content-Type", true),
    ("Content-Transfer-Encoding", true),
    ("List-Unsubscribe", true),
];

/// A message, taken apart.
#[derive(Debug)]
pub struct Message {
    octets: Vec<u8>,
    fields: Vec<Field>,
    body_at: usize,
    pub(crate) author: Result<Author, String>,
    /// Those that are looked at, and how many are not.
    pub(crate) signatures: Vec<Signature>,
    pub(crate) passed_over: usize,
}

/// Where a field is.
#[derive(Debug, Clone, Copy)]
struct Field {
    start: usize,
    colon: usize,
    end: usize,
}

/// The only author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Author {
    pub(crate) address: String,
    /// In its one spelling.
    pub(crate) domain: String,
    /// The display name has an address of its own in it.
    pub(crate) shows_another: bool,
}

/// Why a message cannot be looked at. Nobody vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("the message is longer than {MESSAGE_BYTES_MAX} octets")]
    TooLong,
    /// Its header section has more than one reading, or none.
    #[error("{0}")]
    Malformed(String),
}

impl Message {
    /// Takes a message apart.
    pub fn read(octets: &[u8]) -> Result<Self, Refused> {
        if octets.len() > MESSAGE_BYTES_MAX {
            return Err(Refused::TooLong);
        }
        let octets = with_crlf(octets).map_err(|why| Refused::Malformed(why.into()))?.into_owned();
        let (fields, body_at) = fields(&octets).map_err(Refused::Malformed)?;
        let mut message = Self { octets, fields, body_at, author: Err(String::new()), signatures: Vec::new(), passed_over: 0 };
        message.author = message.read_author();
        let domain = message.author.as_ref().map(|author| author.domain.clone()).unwrap_or_default();
        (message.signatures, message.passed_over) = Signature::of(&message, &domain);
        Ok(message)
    }

    /// DNS names whose TXT records hold the keys of the signatures that are looked at; each once.
    pub fn keys(&self) -> Vec<String> {
        let mut names: Vec<String> = self.signatures.iter().filter_map(Signature::key_name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    pub(crate) fn body(&self) -> &[u8] {
        self.octets.get(self.body_at..).unwrap_or_default()
    }

    /// Name and value of each field from the top; the value with its folds and the last CRLF.
    pub(crate) fn fields(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> + ExactSizeIterator {
        self.fields.iter().map(|field| {
            let part = |range: std::ops::Range<usize>| self.octets.get(range).unwrap_or_default();
            (part(field.start..field.colon), part(field.colon + 1..field.end))
        })
    }

    /// Values of the fields of one name, from the top.
    pub(crate) fn named(&self, name: &str) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.fields().filter(move |(known, _)| known.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    fn read_author(&self) -> Result<Author, String> {
        let mut fields = self.named("From");
        let value = fields.next().ok_or("the message has no From field")?;
        match fields.count() {
            0 => author(value).map_err(|why| format!("From: {why}")),
            more => Err(format!("the message has {} From fields: a reader may see any of them", more + 1)),
        }
    }
}

/// The same lines, each with CRLF.
fn with_crlf(octets: &[u8]) -> Result<Cow<'_, [u8]>, &'static str> {
    let lines = octets.iter().filter(|octet| **octet == b'\n').count();
    let whole = octets.windows(2).filter(|pair| *pair == b"\r\n").count();
    if lines == whole {
        return Ok(Cow::Borrowed(octets));
    }
    if whole > 0 {
        return Err("some lines end with CRLF and some with LF: programs differ about where they end");
    }
    let mut out = Vec::with_capacity(octets.len() + lines);
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(line) => out.extend_from_slice(&[line, b"\r\n"].concat()),
            None => out.extend_from_slice(line),
        }
    }
    Ok(Cow::Owned(out))
}

/// RFC 5322 §2.2 without its obsolete forms; and where the body begins.
fn fields(octets: &[u8]) -> Result<(Vec<Field>, usize), String> {
    let mut fields: Vec<Field> = Vec::new();
    let (mut at, mut number) = (0, 0);
    loop {
        let rest = octets.get(at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok((fields, at));
        }
        number += 1;
        let wrong = || format!("line {number} of the header section is neither a field nor the continuation of one");
        let length = rest.iter().position(|octet| *octet == b'\n').map_or(rest.len(), |lf| lf + 1);
        let (line, end) = (rest.get(..length).unwrap_or_default(), at + length);
        if end > HEADER_BYTES_MAX {
            return Err(format!("the header section is longer than {HEADER_BYTES_MAX} octets"));
        }
        if line == b"\r\n" {
            return Ok((fields, end));
        }
        let text = line.strip_suffix(b"\r\n").unwrap_or(line);
        if text.iter().any(|octet| matches!(octet, 0 | b'\r')) {
            return Err("the header section has a NUL or a bare CR".into());
        }
        match (text.first(), fields.last_mut()) {
            (Some(b' ' | b'\t'), Some(field)) if !text.trim_ascii().is_empty() => field.end = end,
            (Some(b' ' | b'\t'), _) => return Err(wrong()),
            _ => {
                let colon = text.iter().position(|octet| *octet == b':').filter(|colon| *colon > 0).ok_or_else(wrong)?;
                if !text.iter().take(colon).all(u8::is_ascii_graphic) {
                    return Err(wrong());
                }
                if fields.len() == FIELDS_MAX {
                    return Err(format!("the header section has more than {FIELDS_MAX} fields"));
                }
                fields.push(Field { start: at, colon: at + colon, end });
            }
        }
        at = end;
    }
}

/// One address, with a display name or without, and nothing that somebody could read otherwise: no group, no route, no quoted or
/// encoded local part. A second reader, mail-parser, has to find the same.
fn author(value: &[u8]) -> Result<Author, String> {
    let text = std::str::from_utf8(value).map_err(|_| "it is not UTF-8")?.replace("\r\n", "");
    let address = only_address(&text)?;
    let (local, domain) = address.rsplit_once('@').ok_or("it has no address")?;
    let is_atext = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c) || !c.is_ascii();
    if local.is_empty() || !local.chars().all(is_atext) || local.contains("=?") || local.contains(char::is_whitespace) {
        return Err("its address is not of the plain form local-part@domain".into());
    }
    let domain = canonical_domain(domain).filter(|domain| check_domain(domain).is_ok()).ok_or("its address has no domain")?;
    let second = MessageStream::new(value).parse_address();
    let second = second.into_address().ok_or("programs read it in different ways")?;
    let mut others = second.iter();
    let same = others.next().and_then(|other| other.address.as_deref()).is_some_and(|other| other.trim() == address);
    if !same || others.next().is_some() {
        return Err("programs read it in different ways".into());
    }
    let name = second.iter().next().and_then(|other| other.name.as_deref()).unwrap_or_default();
    Ok(Author { address: address.to_owned(), domain, shows_another: name.contains('@') })
}

/// The addr-spec, as it stands.
fn only_address(text: &str) -> Result<&str, String> {
    let (mut quoted, mut depth, mut skip, mut open, mut found) = (false, 0_usize, false, None, None);
    let (mut bare_start, mut bare_end) = (None, 0);
    for (at, c) in text.char_indices() {
        if c.is_control() && c != '\t' {
            return Err("it has a control character".into());
        }
        if std::mem::take(&mut skip) {
            continue;
        }
        match c {
            '\\' if quoted || depth > 0 => skip = true,
            '"' if depth == 0 && open.is_none() => quoted = !quoted,
            _ if quoted => {}
            '(' if depth == COMMENT_DEPTH_MAX => return Err("comments are nested too deeply".into()),
            '(' if open.is_none() => depth += 1,
            ')' if depth > 0 => depth -= 1,
            _ if depth > 0 => {}
            '<' if open.is_none() && found.is_none() => open = Some(at + 1),
            '>' => {
                let start = open.take().ok_or("an angle bracket stands alone")?;
                found = text.get(start..at);
            }
            _ if open.is_some() => {}
            ' ' | '\t' => {}
            ',' => return Err("it names several addresses".into()),
            ':' | ';' => return Err("it names a group".into()),
            '<' | ')' | '\\' | '[' | ']' => return Err("it has a character that must be quoted".into()),
            _ if found.is_some() => return Err("something follows the address".into()),
            _ => {
                bare_start.get_or_insert(at);
                bare_end = at + c.len_utf8();
            }
        }
    }
    if quoted || depth > 0 || open.is_some() || skip {
        return Err("a quotation, comment or bracket does not end".into());
    }
    let bare = bare_start.and_then(|start| text.get(start..bare_end)).unwrap_or_default();
    match found {
        // A display name with an address that is not quoted: obsolete at best, and readers differ.
        Some(_) if bare.contains('@') => Err("it has an address before the address".into()),
        Some(address) => Ok(address),
        None if bare.contains(['(', '"', ' ', '\t']) || !bare.contains('@') => Err("it has no address of one reading".into()),
        None => Ok(bare),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Author, String> {
        author(format!(" {value}\r\n").as_bytes())
    }

    #[test]
    fn an_author_has_one_reading() {
        for (value, address, domain) in [
            ("a@member.example", "a@member.example", "member.example"),
            ("<a@Member.Example>", "a@Member.Example", "member.example"),
            ("\"A, B\" <a@member.example> (c)", "a@member.example", "member.example"),
            ("=?utf-8?q?A=40b?= <a@b\u{fc}cher.example>", "a@b\u{fc}cher.example", "xn--bcher-kva.example"),
            ("PDS (a (nested) one)\r\n <no.reply+1@pds.test>", "no.reply+1@pds.test", "pds.test"),
            ("a@member.example (PDS)", "a@member.example", "member.example"),
        ] {
            let author = read(value).unwrap_or_else(|why| panic!("{value}: {why}"));
            assert_eq!((author.address.as_str(), author.domain.as_str()), (address, domain), "{value}");
        }
        assert!(read("\"bank@bank.example\" <a@member.example>").unwrap().shows_another);
        assert!(!read("Bank <a@member.example>").unwrap().shows_another);
    }

    #[test]
    fn what_could_be_read_otherwise_is_nobody() {
        for value in [
            "",
            "nobody",
            "a@a.example, b@b.example",
            "<a@a.example> <b@b.example>",
            "b@b.example <a@a.example>",
            "a@a.example b@b.example",
            "Team: a@a.example;",
            "<@b.example:a@a.example>",
            "\"b@b.example\"@a.example",
            "<\"b@b.example> \"@a.example>",
            "=?utf-8?q?b=40evil.example=3E?=@a.example",
            "a@[192.0.2.1]",
            "<a@a.example",
            "a@a.example (never ends",
            "a@(b.example)a.example",
            "a@a.example\0",
            "a@localhost",
            "a@a.example\\",
            "a@a.example>",
        ] {
            assert!(read(value).is_err(), "{value}: {:?}", read(value));
        }
    }

    #[test]
    fn lines_end_in_one_way() {
        assert_eq!(with_crlf(b"A: b\r\n\r\nc").unwrap(), b"A: b\r\n\r\nc".as_slice());
        assert_eq!(with_crlf(b"A: b\n\nc\n").unwrap(), b"A: b\r\n\r\nc\r\n".as_slice());
        assert!(with_crlf(b"A: b\r\n\nc").is_err());
    }

    #[test]
    fn a_header_section_has_one_reading() {
        let sound = b"A: b\r\n c\r\nB:\r\n\r\nbody";
        let (found, body_at) = fields(sound).unwrap();
        assert_eq!((found.len(), sound.get(body_at..)), (2, Some(b"body".as_slice())));
        assert_eq!(fields(b"A: b").unwrap().1, 4);
        for wrong in [" A: b\r\n", "A b\r\n", "A : b\r\n", ": b\r\n", "A: b\r\n \r\nC: d\r\n", "A: b\rC: d\r\n", "A: \0\r\n"] {
            assert!(fields(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        assert!(fields("A: b\r\n".repeat(FIELDS_MAX + 1).as_bytes()).is_err());
        assert!(fields(format!("A: {}\r\n", "b".repeat(HEADER_BYTES_MAX)).as_bytes()).is_err());
    }
}
