//! Where the fields of a message are: a strict reading of the header section (RFC 5322 §2.2).
//!
//! Readers that disagree about what a field is are how a From gets past a check: one sees the field,
//! the next does not. So what the obsolete syntax allows and no mail program writes (blanks before the
//! colon, a first line that is a continuation, lines without a colon) is refused, not interpreted.
//!
//! Not here: what stands in a field (`policy::from`), and bare CR or LF (the dialogue refuses them).

use bytes::Bytes;

/// Octets of a header section. Real ones have a few KiB; past this the message is refused.
pub const HEADER_BYTES_MAX: usize = 256 * 1024;

/// Fields of a header section. Bounds what a hostile sender can make us remember of one message.
pub const FIELDS_MAX: usize = 1000;

/// The header section of a message: which octets are which field.
#[derive(Debug, Clone)]
pub struct Header {
    octets: Bytes,
    fields: Vec<Span>,
    body_at: usize,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    colon: usize,
    end: usize,
}

/// One field, as it was written.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// The name, in the sender's spelling.
    pub name: &'a [u8],
    /// Everything after the colon, with folds and the last CRLF.
    pub value: &'a [u8],
    /// The whole field, with the last CRLF.
    pub octets: &'a [u8],
}

impl Field<'_> {
    /// Field names are compared without regard to case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// Why a header section could not be read. The message is refused: `550 5.6.0`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// More octets than [`HEADER_BYTES_MAX`] before the empty line.
    #[error("the header section is longer than {HEADER_BYTES_MAX} octets")]
    TooLong,
    /// More fields than [`FIELDS_MAX`].
    #[error("the header section has more than {FIELDS_MAX} fields")]
    TooManyFields,
    /// Counted from 1.
    #[error("line {0} of the header section is neither a field nor the continuation of one")]
    NotAField(usize),
    /// RFC 5322 has no NUL anywhere.
    #[error("the header section has a NUL octet")]
    Nul,
}

impl Header {
    /// Reads up to the empty line, or to the end: a message without a body is legal (RFC 5322 §2.1).
    pub fn parse(octets: &Bytes) -> Result<Self, Malformed> {
        let mut fields: Vec<Span> = Vec::with_capacity(24);
        let (mut at, mut line) = (0, 0);
        let body_at = loop {
            let rest = &octets[at..];
            if rest.is_empty() {
                break at;
            }
            line += 1;
            let end = at + memchr::memchr(b'\n', rest).map_or(rest.len(), |lf| lf + 1);
            if end > HEADER_BYTES_MAX {
                return Err(Malformed::TooLong);
            }
            let text = &octets[at..end];
            if text == b"\r\n" || text == b"\n" {
                break end;
            }
            if memchr::memchr(0, text).is_some() {
                return Err(Malformed::Nul);
            }
            match (text[0], fields.last_mut()) {
                // RFC 5322 §3.2.2 forbids it, and some readers take it for the end of the section.
                (b' ' | b'\t', _) if text.trim_ascii().is_empty() => return Err(Malformed::NotAField(line)),
                (b' ' | b'\t', Some(field)) => field.end = end,
                (b' ' | b'\t', None) => return Err(Malformed::NotAField(line)),
                _ => {
                    let colon = memchr::memchr(b':', text).ok_or(Malformed::NotAField(line))?;
                    // RFC 5322 §2.2: printable US-ASCII except the colon. Blanks before it (§4.5) are obsolete.
                    if colon == 0 || !text[..colon].iter().all(u8::is_ascii_graphic) {
                        return Err(Malformed::NotAField(line));
                    }
                    if fields.len() == FIELDS_MAX {
                        return Err(Malformed::TooManyFields);
                    }
                    fields.push(Span { start: at, colon: at + colon, end });
                }
            }
            at = end;
        };
        Ok(Self { octets: octets.clone(), fields, body_at })
    }

    /// The fields from the top.
    pub fn fields(&self) -> impl DoubleEndedIterator<Item = Field<'_>> + ExactSizeIterator {
        self.fields.iter().map(|span| Field {
            name: &self.octets[span.start..span.colon],
            value: &self.octets[span.colon + 1..span.end],
            octets: &self.octets[span.start..span.end],
        })
    }

    /// The fields of one name, from the top.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Field<'a>> {
        self.fields().filter(move |field| field.is(name))
    }

    /// The message that this is the header section of.
    pub fn octets(&self) -> &Bytes {
        &self.octets
    }

    /// Where the body begins, past the empty line; the message's length when it has none.
    pub fn body_at(&self) -> usize {
        self.body_at
    }

    /// Where the last field ends: the empty line, if there is one, lies between here and the body.
    pub fn fields_end(&self) -> usize {
        self.fields.last().map_or(0, |span| span.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Header, Malformed> {
        Header::parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn fields_are_found_with_their_folds() {
        let header = parse("From: a@b\r\nSubject: one\r\n two\r\n\tthree\r\nX:\r\n\r\nbody: no field\r\n").unwrap();
        let fields: Vec<_> = header.fields().map(|f| (f.name, f.value)).collect();
        let expected: [(&[u8], &[u8]); 3] =
            [(b"From", b" a@b\r\n"), (b"Subject", b" one\r\n two\r\n\tthree\r\n"), (b"X", b"\r\n")];
        assert_eq!(fields, expected);
        assert_eq!(&header.octets()[header.body_at()..], b"body: no field\r\n");
    }

    #[test]
    fn a_message_may_have_no_body_and_no_field() {
        assert_eq!(parse("From: a@b\r\n").unwrap().body_at(), 11);
        assert_eq!(parse("\r\nbody").unwrap().fields().len(), 0);
        assert_eq!(parse("").unwrap().body_at(), 0);
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for (text, expected) in [
            ("From : a@b\r\n\r\n", Malformed::NotAField(1)),
            (" From: a@b\r\n\r\n", Malformed::NotAField(1)),
            ("To: a@b\r\nno colon here\r\n\r\n", Malformed::NotAField(2)),
            ("To: a@b\r\n \t\r\nFrom: c@d\r\n\r\n", Malformed::NotAField(2)),
            ("To: a@b\r\n: empty name\r\n\r\n", Malformed::NotAField(2)),
            ("Fr\u{00f6}m: a@b\r\n\r\n", Malformed::NotAField(1)),
            ("Subject: a\0b\r\n\r\n", Malformed::Nul),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_header_section_is_bounded() {
        assert_eq!(parse(&"X: y\r\n".repeat(FIELDS_MAX + 1)).unwrap_err(), Malformed::TooManyFields);
        let long = format!("X: {}\r\n\r\n", "y".repeat(HEADER_BYTES_MAX));
        assert_eq!(parse(&long).unwrap_err(), Malformed::TooLong);
    }
}
