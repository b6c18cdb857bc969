//! What was said in a session, for whoever asks later why a message waits: bounded, printable, without secrets and content.
//!
//! It is written down as it is said, into one buffer that a session keeps, because nobody knows before the end that it ends badly:
//! some hundred octets are copied for a message, and nothing is allocated for it. Whoever drives the session takes the text of
//! it when there is a reason to.
//!
//! Not here: which of them are kept (the driver).

use std::io::Write as _;

use memchr::memchr;

use crate::reply::Reply;

/// Octets of a whole dialogue. Beyond it the oldest lines of the transaction go.
const BYTES_MAX: usize = 2048;
/// Octets that are kept of what was said before the first transaction, which counts for each of them.
const OPENING_BYTES_MAX: usize = 768;
/// Octets of a line. A reply's line may have 512 (RFC 5321 §4.5.3.1.5), and some have more.
const LINE_BYTES_MAX: usize = 512;

/// The opening of a session and its last transaction.
#[derive(Default)]
pub(super) struct Dialogue {
    /// Lines that end in LF.
    said: Vec<u8>,
    /// Where the opening ends, once there was a transaction.
    opening: Option<usize>,
    /// Lines behind the opening are gone.
    cut: bool,
}

impl Dialogue {
    /// A transaction begins; the one before it is forgotten.
    pub(super) fn begin(&mut self) {
        let opening = match self.opening {
            Some(opening) => opening,
            None => {
                self.make_room(0, OPENING_BYTES_MAX);
                self.said.len()
            }
        };
        self.said.truncate(opening);
        self.opening = Some(opening);
        self.cut = false;
    }

    /// Commands, each with its CRLF.
    pub(super) fn sent(&mut self, mut commands: &[u8]) {
        while let Some(end) = memchr(b'\n', commands) {
            let (line, rest) = commands.split_at(end + 1);
            self.write(b"C: ", |said| said.extend_from_slice(line.trim_ascii_end()));
            commands = rest;
        }
    }

    /// A reply, line by line, each with the enhanced code of the whole.
    pub(super) fn heard(&mut self, reply: &Reply) {
        let (code, enhanced) = (reply.code(), reply.enhanced());
        let mut lines = reply.lines().peekable();
        while let Some(line) = lines.next() {
            let separator = if lines.peek().is_some() { '-' } else { ' ' };
            // Writing to a Vec cannot fail, here and below.
            self.write(b"S: ", |said| {
                let _ = match enhanced {
                    Some(enhanced) => write!(said, "{code}{separator}{enhanced} {line}"),
                    None => write!(said, "{code}{separator}{line}"),
                };
            });
        }
    }

    /// What happened that is neither.
    pub(super) fn note(&mut self, says: &str) {
        self.write(b"* ", |said| said.extend_from_slice(says.as_bytes()));
    }

    /// The message goes, of so many octets.
    pub(super) fn note_message(&mut self, bytes: usize) {
        self.write(b"* ", |said| drop(write!(said, "the message follows, {bytes} octets")));
    }

    /// All of it, a line each; what cannot be printed, or turns the direction of the text, is replaced.
    pub(super) fn text(&self) -> String {
        let (opening, transaction) = self.said.split_at(self.opening.unwrap_or(0).min(self.said.len()));
        let mut text = String::with_capacity(self.said.len() + 32);
        text.push_str(&String::from_utf8_lossy(opening));
        if self.cut {
            text.push_str("* lines are left out here\n");
        }
        text.push_str(&String::from_utf8_lossy(transaction));
        let printable = |c: char| match c {
            '\n' => c,
            '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        };
        text.chars().map(printable).collect()
    }

    fn write(&mut self, who: &[u8], line: impl FnOnce(&mut Vec<u8>)) {
        self.said.extend_from_slice(who);
        let start = self.said.len();
        line(&mut self.said);
        if self.said.len() - start > LINE_BYTES_MAX {
            self.said.truncate(start + LINE_BYTES_MAX);
            self.said.extend_from_slice("…".as_bytes());
        }
        self.said.push(b'\n');
        self.make_room(self.opening.unwrap_or(0), BYTES_MAX);
    }

    /// Takes out the oldest lines behind `from`, a quarter of all at a time, so that it is not done for every line.
    fn make_room(&mut self, from: usize, max: usize) {
        let Some(excess) = self.said.len().checked_sub(max).filter(|excess| *excess > 0) else { return };
        let least = from + (excess + max / 4).min(self.said.len() - from);
        let end = memchr(b'\n', &self.said[least..]).map_or(self.said.len(), |more| least + more + 1);
        self.said.drain(from..end);
        self.cut = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_takes_the_place_of_the_one_before_it_and_the_opening_stays() {
        let mut dialogue = Dialogue::default();
        dialogue.heard(&Reply::plain(220, "mx.example ready"));
        dialogue.begin();
        dialogue.sent(b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n");
        dialogue.note_message(1205);
        dialogue.begin();
        dialogue.sent(b"MAIL FROM:<c@a.example>\r\n");
        dialogue.heard(&Reply::new(450, (4, 2, 1), "slower").line("please"));
        dialogue.note("the peer closed the connection");
        dialogue.note_message(0);
        let text = "S: 220 mx.example ready\nC: MAIL FROM:<c@a.example>\nS: 450-4.2.1 slower\nS: 450 4.2.1 please\n* the peer closed the \
                    connection\n* the message follows, 0 octets\n";
        assert_eq!(dialogue.text(), text);
    }

    #[test]
    fn however_much_is_said_the_last_lines_stay_within_the_bound() {
        let mut dialogue = Dialogue::default();
        dialogue.heard(&Reply::plain(220, "mx.example ready"));
        dialogue.begin();
        for number in 0..1000 {
            dialogue.sent(format!("RCPT TO:<user{number}@b.example>\r\n").as_bytes());
            assert!(dialogue.said.len() <= BYTES_MAX);
        }
        dialogue.heard(&Reply::plain(550, "x".repeat(5000)));
        let text = dialogue.text();
        assert!(text.len() <= BYTES_MAX + 64 && text.starts_with("S: 220 mx.example ready\n* lines are left out"), "{text}");
        assert!(text.contains("<user999@b.example>\nS: 550 xxx") && text.ends_with("x…\n"), "{text}");
        let mut dialogue = Dialogue::default();
        (0..100).for_each(|_| dialogue.note(&"y".repeat(100)));
        dialogue.begin();
        assert!(dialogue.said.len() <= OPENING_BYTES_MAX);
    }

    #[test]
    fn what_cannot_be_printed_is_replaced() {
        let mut dialogue = Dialogue::default();
        dialogue.write(b"S: ", |said| said.extend_from_slice(b"550 a\x1b[2J\rb\xff\xe2\x80\xaec"));
        assert_eq!(dialogue.text(), "S: 550 a\u{fffd}[2J\u{fffd}b\u{fffd}\u{fffd}c\n");
    }
}
