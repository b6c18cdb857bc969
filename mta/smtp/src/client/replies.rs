//! Octets of a peer to replies (RFC 5321 §4.2), bounded.

use std::borrow::Cow;
use std::mem;

use bytes::Bytes;
use memchr::memchr;

use crate::reply::Reply;

/// Octets of a reply line. RFC 5321 §4.5.3.1.5 allows 512; some explain themselves at more length.
const LINE_BYTES_MAX: usize = 4096;
/// Octets of a whole reply; past it the peer is broken.
const REPLY_BYTES_MAX: usize = 32 << 10;

/// Collects replies. Empty between transactions.
#[derive(Default)]
pub(super) struct Replies {
    input: Bytes,
    /// Of a reply whose last line has not come.
    lines: Vec<Cow<'static, str>>,
    code: Option<u16>,
    bytes: usize,
}

impl Replies {
    pub(super) fn push(&mut self, octets: Bytes) {
        self.input = if self.input.is_empty() { octets } else { [mem::take(&mut self.input), octets].concat().into() };
    }

    /// Nothing was said that nobody asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.input.is_empty() && self.lines.is_empty()
    }

    pub(super) fn held(&self) -> usize {
        self.input.len() + self.bytes
    }

    /// The next reply, if it is complete; or why this is not SMTP.
    pub(super) fn next(&mut self) -> Result<Option<Reply>, String> {
        loop {
            let Some(end) = memchr(b'\n', &self.input) else {
                return if self.input.len() > LINE_BYTES_MAX { Err("reply line too long".to_owned()) } else { Ok(None) };
            };
            let line = self.input.split_to(end + 1);
            if self.input.is_empty() {
                self.input = Bytes::new();
            }
            self.bytes += line.len();
            if line.len() > LINE_BYTES_MAX || self.bytes > REPLY_BYTES_MAX {
                return Err("reply too long".to_owned());
            }
            let (code, more, text) = parse(&line)?;
            if self.code.is_some_and(|first| first != code) {
                return Err(format!("reply changes its code: {}", excerpt(&line)));
            }
            self.lines.push(Cow::Owned(text));
            self.code = Some(code);
            if !more {
                self.code = None;
                self.bytes = 0;
                return Ok(Some(Reply::received(code, mem::take(&mut self.lines))));
            }
        }
    }
}

/// The beginning of what cannot be understood, for the reason that is logged.
pub(super) fn excerpt(octets: &[u8]) -> String {
    let octets = &octets[..octets.len().min(80)];
    format!("{:?}", String::from_utf8_lossy(octets).trim_end())
}

fn parse(line: &[u8]) -> Result<(u16, bool, String), String> {
    let garbage = || format!("not a reply: {}", excerpt(line));
    let text = line.strip_suffix(b"\r\n").ok_or_else(|| format!("bare LF in a reply: {}", excerpt(line)))?;
    let (code, text) = text.split_at_checked(3).ok_or_else(garbage)?;
    let code = std::str::from_utf8(code).ok().filter(|code| code.bytes().all(|octet| octet.is_ascii_digit()));
    let code = code.and_then(|code| code.parse().ok()).filter(|code| (200..600).contains(code)).ok_or_else(garbage)?;
    match text.split_first() {
        None => Ok((code, false, String::new())),
        Some((b' ', text)) => Ok((code, false, String::from_utf8_lossy(text).into_owned())),
        Some((b'-', text)) => Ok((code, true, String::from_utf8_lossy(text).into_owned())),
        Some(_) => Err(garbage()),
    }
}
