//! What a peer really said: the octets of both directions, laid side by side.
//!
//! SMTP is positional: the nth reply answers the nth command (RFC 2920 §3.1). So the truth about a recipient follows from the
//! octets alone, and it is found here without a line of the client's code: replies are read strictly up to the first thing that
//! is none, commands as they came, and a message behind DATA only where the reply in that place was 3yz.

use std::collections::HashMap;
use std::fmt;

/// Both directions of a connection, up to STARTTLS or behind it.
#[derive(Clone, Default)]
pub(super) struct Segment {
    /// What the client sent.
    pub(super) heard: Vec<u8>,
    /// What the peer sent.
    pub(super) said: Vec<u8>,
    /// It begins with a greeting: it is not behind STARTTLS.
    pub(super) greeted: bool,
    /// Octets of `said` up to which everything was as the standard has it, and in time.
    pub(super) clean: usize,
    /// It said of a message that it had it, and had not yet.
    pub(super) lied: bool,
}

/// For whoever looks at a seed that failed.
impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (who, octets) in [("S:", &self.said), ("C:", &self.heard)] {
            octets[..octets.len().min(2_000)]
                .split_inclusive(|octet| *octet == b'\n')
                .try_for_each(|line| writeln!(f, "{who} {}", line.escape_ascii()))?;
        }
        writeln!(f, "({} of {} octets clean)", self.clean, self.said.len())
    }
}

/// What was said to one transaction.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) mail: Option<u16>,
    /// By forward-path.
    pub(super) rcpt: HashMap<String, Option<u16>>,
    pub(super) data: Option<u16>,
    /// The message as it came, if it came to its end.
    pub(super) message: Option<Vec<u8>>,
    /// The reply to its end.
    pub(super) last: Option<u16>,
    /// That reply lies within what was clean.
    pub(super) clean: bool,
    /// The host says of messages that it has them before it has.
    pub(super) lied: bool,
}

impl Told {
    /// A 2yz that says: I have this message for this recipient; and it has.
    pub(super) fn took(&self, recipient: &str, message: &[u8]) -> bool {
        self.promised(recipient) && self.message.as_deref() == Some(message)
    }

    /// A 2yz that says: I have this message for this recipient.
    pub(super) fn promised(&self, recipient: &str) -> bool {
        let rcpt = self.rcpt.get(recipient).copied().flatten();
        [self.mail, rcpt, self.last].iter().all(|code| code.is_some_and(|code| code / 100 == 2))
    }

    /// A 5yz that speaks of this recipient.
    pub(super) fn refused(&self, recipient: &str) -> bool {
        let rcpt = match self.rcpt.get(recipient) {
            Some(rcpt) => *rcpt,
            // Without PIPELINING nobody is named any more once MAIL is refused; it is about all.
            None if self.rcpt.is_empty() => None,
            None => return false,
        };
        [self.mail, rcpt, self.data, self.last].iter().flatten().any(|code| code / 100 == 5)
    }
}

/// The transactions of a segment.
pub(super) fn transactions(segment: &Segment) -> Vec<Told> {
    let replies = replies(&segment.said);
    let mut at = usize::from(segment.greeted);
    let mut told: Vec<Told> = Vec::new();
    let mut rest = segment.heard.as_slice();
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let line = String::from_utf8_lossy(&rest[..end]).trim_end().to_owned();
        rest = &rest[end + 1..];
        let reply = replies.get(at);
        let code = reply.map(|(code, _)| *code);
        at += 1;
        let words = line.to_ascii_uppercase();
        let open = told.last_mut();
        if words.starts_with("MAIL FROM:") {
            told.push(Told { mail: code, lied: segment.lied, ..Told::default() });
        } else if words.starts_with("RCPT TO:<") {
            let path = line.get(9..).and_then(|rest| rest.split_once('>')).map_or("", |(path, _)| path);
            if let Some(open) = open {
                open.rcpt.insert(path.to_owned(), code);
            }
        } else if words == "DATA" {
            let Some(open) = open else { continue };
            open.data = code;
            if code.is_some_and(|code| code / 100 == 3) {
                let whole = unstuffed(rest);
                rest = whole.as_ref().map_or(&[], |(_, behind)| behind);
                open.message = whole.map(|(message, _)| message);
                open.last = replies.get(at).map(|(code, _)| *code);
                open.clean = replies.get(at).is_some_and(|(_, end)| *end <= segment.clean);
                at += 1;
            }
        } else if let Some(size) = words.strip_prefix("BDAT ").and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok()) {
            let Some(open) = open else { continue };
            let whole = rest.split_at_checked(size);
            rest = whole.map_or(&[], |(_, behind)| behind);
            open.message = whole.map(|(message, _)| message.to_vec());
            open.last = code;
            open.clean = reply.is_some_and(|(_, end)| *end <= segment.clean);
        }
    }
    told
}

/// Codes of complete replies, each with where it ends; up to the first octets that are no reply.
fn replies(said: &[u8]) -> Vec<(u16, usize)> {
    let (mut codes, mut first, mut at, mut began) = (Vec::new(), None, 0, 0);
    while let Some(end) = memchr::memchr(b'\n', &said[at..]) {
        let line = &said[at..at + end];
        at += end + 1;
        let Some(line) = line.strip_suffix(b"\r") else { break };
        let Some(code) = line.get(..3).and_then(|code| std::str::from_utf8(code).ok()?.parse::<u16>().ok()) else { break };
        let digits = line[..3].iter().all(u8::is_ascii_digit);
        let known = digits && (200..600).contains(&code) && *first.get_or_insert(code) == code;
        // Longer than the client's bounds, which are generous: it hangs up there.
        if !known || line.len() > 4094 || at - began > 32 << 10 {
            break;
        }
        match line.get(3) {
            Some(b'-') => {}
            Some(b' ') | None => {
                codes.push((code, at));
                // Who says 421 closes (RFC 5321 §3.8): what a host that does not says behind it nobody has to hear.
                if code == 421 {
                    break;
                }
                first = None;
                began = at;
            }
            Some(_) => break,
        }
    }
    codes
}

/// A message behind DATA and what follows its end (RFC 5321 §4.5.2).
fn unstuffed(octets: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut message = Vec::new();
    let mut rest = octets;
    while let Some(end) = memchr::memmem::find(rest, b"\r\n") {
        let line = &rest[..end + 2];
        rest = &rest[end + 2..];
        if line == b".\r\n" {
            return Some((message, rest));
        }
        message.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(heard: &str, said: &str) -> Vec<Told> {
        let (heard, said) = (heard.replace('\n', "\r\n").into_bytes(), said.replace('\n', "\r\n").into_bytes());
        let clean = said.len();
        transactions(&Segment { heard, said, greeted: true, clean, lied: false })
    }

    const HEARD: &str = "EHLO x\nMAIL FROM:<a@b>\nRCPT TO:<x@y>\nRCPT TO:<z@y>\nDATA\n..x\n.\nQUIT\n";

    #[test]
    fn replies_belong_to_commands_by_their_place() {
        let said = "220 hi\n250-x\n250 y\n250 ok\n550 no\n250 ok\n354 go\n250 queued\n221 bye\n";
        let told = told(HEARD, said);
        assert!(told[0].took("z@y", b".x\r\n") && !told[0].took("x@y", b".x\r\n") && !told[0].took("z@y", b"x\r\n"));
        assert!(told[0].refused("x@y") && !told[0].refused("z@y") && !told[0].refused("other@y"));
    }

    #[test]
    fn nothing_counts_behind_what_is_no_reply() {
        for broken in ["2xx ok\n", "250-a\n251 b\n", "650 x\n", "25\n", "250+x\n"] {
            let said = format!("220 hi\n250 x\n250 ok\n{broken}250 ok\n250 ok\n354 go\n250 queued\n");
            assert!(
                told(HEARD, &said).iter().all(|told| told.rcpt.values().all(Option::is_none) && told.last.is_none()),
                "{broken}"
            );
        }
    }
}
