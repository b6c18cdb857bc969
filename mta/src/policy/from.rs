//! The authors of a message, read as strictly as RFC 5322 §3.4 allows.
//!
//! A receiver may read a crooked From differently than we do, and show its reader another address than the one
//! we checked. So only what has one reading is accepted: no group, no source route, no quoted or encoded local
//! part, nothing after an address but a comma. A second reader, mail-parser, has to find the same addresses:
//! should the first ever be wrong, both must be wrong alike. A display name may say anything: it is not an address, and DMARC does not look at it.
//!
//! Not here: whose addresses they may be (`admit.rs`).

use mail_parser::parsers::MessageStream;
use smtp::address::Mailbox;

use crate::sign::header::Header;

/// Authors of one message.
pub const AUTHORS_MAX: usize = 16;

/// Nested comments: real ones have one level.
const COMMENT_DEPTH_MAX: usize = 8;

/// Why the authors cannot be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromError {
    /// No From field.
    Missing,
    /// So many From fields.
    Several(usize),
    /// It has more than one reading, or none; in words fit for a reply.
    Malformed(&'static str),
}

/// The mailboxes of the only From field, at least one.
pub fn authors(header: &Header) -> Result<Vec<Mailbox>, FromError> {
    let mut fields = header.named("From");
    let field = fields.next().ok_or(FromError::Missing)?;
    match fields.count() {
        0 => mailbox_list(field.value).map_err(FromError::Malformed),
        more => Err(FromError::Several(more + 1)),
    }
}

/// Reads a field's value with its folds.
fn mailbox_list(value: &[u8]) -> Result<Vec<Mailbox>, &'static str> {
    let authors = first_reading(std::str::from_utf8(value).map_err(|_| "it is not UTF-8")?)?;
    if second_reading(value).as_ref() == Some(&authors) { Ok(authors) } else { Err("it can be read in more than one way") }
}

/// RFC 5322 §3.4 without its obsolete forms.
fn first_reading(text: &str) -> Result<Vec<Mailbox>, &'static str> {
    let unfolded = text.replace("\r\n", "");
    if unfolded.contains(|c: char| c.is_control() && c != '\t') {
        return Err("it has a control character");
    }
    let mut reader = Reader { rest: &unfolded };
    let mut authors = Vec::new();
    loop {
        authors.push(reader.mailbox()?);
        match reader.next() {
            None => return Ok(authors),
            Some(',') if authors.len() < AUTHORS_MAX => {}
            Some(',') => return Err("it has too many addresses"),
            Some(_) => return Err("something other than a comma follows an address"),
        }
    }
}

/// What mail-parser makes of it, which is lenient as mail programs are.
fn second_reading(value: &[u8]) -> Option<Vec<Mailbox>> {
    let parsed = MessageStream::new(value).parse_address();
    let mailbox = |addr: &mail_parser::Addr<'_>| addr.address.as_deref().and_then(|text| Mailbox::parse(text, true).ok());
    parsed.into_address()?.iter().map(mailbox).collect()
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// `name-addr` or `addr-spec`, with what surrounds it.
    fn mailbox(&mut self) -> Result<Mailbox, &'static str> {
        self.skip_blanks_and_comments()?;
        let start = self.rest;
        // A phrase, or the local part of a bare address: which, only what follows tells.
        loop {
            match self.peek() {
                Some('<') => {
                    self.next();
                    self.skip_blanks_and_comments()?;
                    let mailbox = self.addr_spec()?;
                    self.skip_blanks_and_comments()?;
                    if self.next() != Some('>') {
                        return Err("an address in angle brackets does not end");
                    }
                    self.skip_blanks_and_comments()?;
                    return Ok(mailbox);
                }
                Some('@') => {
                    self.rest = start;
                    let mailbox = self.addr_spec()?;
                    self.skip_blanks_and_comments()?;
                    return Ok(mailbox);
                }
                Some('"') => self.quoted_string()?,
                // RFC 5322 §4.1 lets dots into phrases, and everybody writes them.
                Some(c) if is_atext(c) || c == '.' => {
                    self.next();
                }
                Some(' ' | '\t' | '(') => self.skip_blanks_and_comments()?,
                Some(':') => return Err("it names a group; it must name addresses"),
                Some(_) => return Err("a display name has a character that must be quoted"),
                None => return Err("it has a name without an address"),
            }
        }
    }

    /// `local-part@domain` without anything between (RFC 5322 §4.4 allows blanks there; nobody needs them).
    fn addr_spec(&mut self) -> Result<Mailbox, &'static str> {
        if self.peek() == Some('"') {
            return Err("a quoted local part is not accepted here");
        }
        let local_end = self.rest.find(|c| !is_atext(c) && c != '.').unwrap_or(self.rest.len());
        let (local, rest) = self.rest.split_at(local_end);
        let Some(rest) = rest.strip_prefix('@') else { return Err("an address is not of the form local-part@domain") };
        // RFC 2047 §5 forbids it; a reader that decodes it sees another address.
        if local.contains("=?") {
            return Err("an encoded word stands in an address");
        }
        let is_domain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-' || !c.is_ascii();
        let domain_end = rest.find(|c| !is_domain(c)).unwrap_or(rest.len());
        let (domain, rest) = rest.split_at(domain_end);
        self.rest = rest;
        Mailbox::parse(&format!("{local}@{domain}"), true).map_err(|_| "an address is not of the form local-part@domain")
    }

    fn quoted_string(&mut self) -> Result<(), &'static str> {
        self.next();
        loop {
            match self.next() {
                Some('"') => return Ok(()),
                Some('\\') if self.next().is_some() => {}
                Some('\\') | None => return Err("a quotation does not end"),
                Some(_) => {}
            }
        }
    }

    fn skip_blanks_and_comments(&mut self) -> Result<(), &'static str> {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t']);
            if self.peek() != Some('(') {
                return Ok(());
            }
            let mut depth = 0;
            loop {
                match self.next() {
                    Some('(') if depth == COMMENT_DEPTH_MAX => return Err("comments are nested too deeply"),
                    Some('(') => depth += 1,
                    Some(')') if depth == 1 => break,
                    Some(')') => depth -= 1,
                    Some('\\') if self.next().is_some() => {}
                    Some('\\') | None => return Err("a comment does not end"),
                    Some(_) => {}
                }
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }
}

/// RFC 5322 §3.2.3, with RFC 6532's UTF-8.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traps_are_seen_by_the_first_reader_already() {
        for (value, reason) in [
            (" <=?utf-8?q?b=40evil.example=3E?=@a.example>\r\n", "an encoded word stands in an address"),
            (" <\"b@evil.example> \"@a.example>\r\n", "a quoted local part is not accepted here"),
            (" \"b@evil.example\"@a.example\r\n", "a quoted local part is not accepted here"),
            (" Team: a@a.example;\r\n", "it names a group; it must name addresses"),
            (" <@evil.example:a@a.example>\r\n", "an address is not of the form local-part@domain"),
            (" b@evil.example <a@a.example>\r\n", "something other than a comma follows an address"),
        ] {
            assert_eq!(first_reading(value), Err(reason), "{value}");
        }
    }

    /// Puts pieces of real and hostile fields together: what we accept, a lenient reader reads alike.
    #[test]
    fn whatever_is_accepted_has_one_reading() {
        const PIECES: [&str; 26] = [
            "a@a.ex",
            "b@b.ex",
            "<a@a.ex>",
            "<b@b.ex>",
            "=?utf-8?q?a=40b.ex?=",
            "=?utf-8?q?a=2C?=",
            "<",
            ">",
            "(",
            ")",
            "\"",
            ",",
            " ",
            "\r\n ",
            "\t",
            "x",
            "ü",
            ".",
            "\\",
            "@",
            ":",
            ";",
            "=",
            "?",
            "[",
            "]",
        ];
        let dice = host::Dice::seeded(42);
        let mut accepted = 0;
        for _ in 0..100_000 {
            let pieces = (0..1 + dice.below(9)).map(|_| PIECES[dice.below(PIECES.len() as u64) as usize]);
            let value = pieces.chain(["\r\n"]).collect::<String>();
            if let Ok(authors) = first_reading(&value) {
                assert_eq!(second_reading(value.as_bytes()), Some(authors), "{value:?}");
                accepted += 1;
            }
        }
        assert!(accepted > 1_000, "{accepted}");
    }
}
