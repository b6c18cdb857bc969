//! The message part of a session: DATA with its dots, BDAT with its chunks, and the end of both.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{Barrier, Chunk, Envelope, Scan, Session, State};
use crate::sink::provider::{Keep, Message};
use crate::sink::script::{Act, Stage};

impl Session {
    pub(super) fn bdat(&mut self, now: Duration, rest: &str) {
        let mut words = rest.split_ascii_whitespace();
        let size = words.next().and_then(|size| size.parse::<usize>().ok());
        let last = words.next().is_some_and(|last| last.eq_ignore_ascii_case("LAST"));
        let Some(remaining) = size else {
            self.violation(&format!("BDAT that cannot be read: {rest:?}"));
            return self.refuse("501 5.5.4 syntax");
        };
        let (envelope, octets) = match std::mem::replace(&mut self.state, State::Commands) {
            State::Bdat(envelope, chunk) => (envelope, chunk.octets),
            State::Envelope(envelope) => (envelope, BytesMut::new()),
            // The octets of the chunk come whatever we say (RFC 3030 §2): take them, then refuse.
            _ => {
                self.provider.opened();
                (Envelope { eight_bit: true, tried: true, ..Envelope::default() }, BytesMut::new())
            }
        };
        self.state = State::Bdat(envelope, Chunk { octets, remaining, last });
        if remaining == 0 {
            self.chunk_done(now);
        }
    }

    pub(super) fn chunk(&mut self, now: Duration, envelope: Envelope, mut chunk: Chunk) -> bool {
        let take = chunk.remaining.min(self.inbox.len());
        chunk.octets.extend_from_slice(&self.inbox.split_to(take));
        chunk.remaining -= take;
        let done = chunk.remaining == 0;
        self.state = State::Bdat(envelope, chunk);
        if done {
            self.chunk_done(now);
        }
        done
    }

    fn chunk_done(&mut self, now: Duration) {
        let State::Bdat(envelope, chunk) = std::mem::replace(&mut self.state, State::Commands) else { return };
        if envelope.recipients.is_empty() {
            if !envelope.tried {
                self.violation("BDAT without RCPT");
            }
            self.state = State::Envelope(envelope);
            self.end_transaction();
            self.refuse("554 5.5.1 no valid recipients");
        } else if chunk.last {
            self.finish(now, envelope, chunk.octets.freeze());
        } else {
            let octets = chunk.octets.len();
            self.state = State::Bdat(envelope, chunk);
            self.say(&format!("250 2.0.0 {octets} octets so far"));
        }
    }

    pub(super) fn data(&mut self, now: Duration, envelope: Envelope, mut scan: Scan) -> bool {
        if !scan.body_act_asked && !self.inbox.is_empty() {
            scan.body_act_asked = true;
            if !self.script.rules.is_empty()
                && self
                    .provider
                    .act(&self.script, Stage::Body, self.peer.ip(), &envelope.reverse_path, &envelope.recipients)
                    .is_some_and(|act| {
                        self.barrier = Some(if act == Act::Hang { Barrier::Hang } else { Barrier::Close });
                        true
                    })
            {
                self.state = State::Data(envelope, scan);
                self.end_transaction();
                return false;
            }
        }
        let end = if self.inbox.starts_with(b".\r\n") {
            Some((0, 3))
        } else {
            let from = scan.seen.saturating_sub(4);
            memchr::memmem::find(&self.inbox[from..], b"\r\n.\r\n").map(|at| (from + at + 2, 3))
        };
        let Some((octets, mark)) = end else {
            scan.seen = self.inbox.len();
            self.state = State::Data(envelope, scan);
            return false;
        };
        let message = self.inbox.split_to(octets).freeze();
        let _ = self.inbox.split_to(mark);
        if !self.inbox.is_empty() && !self.script.pipelining {
            self.violation("pipelining that was not offered");
        }
        let message = if self.provider.keep() == Keep::Everything { unstuff(&message) } else { message };
        self.finish(now, envelope, message);
        true
    }

    fn finish(&mut self, now: Duration, envelope: Envelope, octets: Bytes) {
        if self.provider.keep() == Keep::Everything {
            self.check_message(&envelope, &octets);
        }
        self.provider.ended();
        if self.script.message_bytes_max.is_some_and(|max| octets.len() as u64 > max) {
            return self.refuse("552 5.3.4 too big");
        }
        let act = self.provider.act(&self.script, Stage::EndOfData, self.peer.ip(), &envelope.reverse_path, &envelope.recipients);
        let refused = match &act {
            Some(Act::Reply(text) | Act::ReplyAndClose(text)) => !text.starts_with('2'),
            Some(Act::Close | Act::Hang) => true,
            Some(Act::Delay(_) | Act::Drip(_) | Act::LoseReply | Act::TakeAndHang | Act::Retort(_)) | None => false,
        };
        if !refused {
            self.messages += 1;
            let message = Message {
                at: now,
                peer: self.peer,
                ehlo: self.ehlo.clone().unwrap_or_default(),
                tls: self.tls,
                reverse_path: envelope.reverse_path,
                recipients: envelope.recipients,
                parameters: envelope.parameters,
                octets: octets.clone(),
            };
            self.provider.accepted(message, octets.len());
        }
        self.perform(act, "250 2.0.0 taken");
    }

    fn check_message(&self, envelope: &Envelope, octets: &[u8]) {
        for end in memchr::memchr_iter(b'\n', octets) {
            if end == 0 || octets[end - 1] != b'\r' {
                return self.violation("bare LF in a message");
            }
        }
        for end in memchr::memchr_iter(b'\r', octets) {
            if octets.get(end + 1) != Some(&b'\n') {
                return self.violation("bare CR in a message");
            }
        }
        if octets.split(|octet| *octet == b'\n').any(|line| line.len() > 999) {
            self.violation("line of more than 998 octets");
        }
        if !envelope.eight_bit && !octets.is_ascii() {
            self.violation("eight-bit octets without BODY=8BITMIME");
        }
    }
}

/// Removes the dots that transparency added (RFC 5321 §4.5.2).
fn unstuff(octets: &Bytes) -> Bytes {
    if !octets.starts_with(b".") && memchr::memmem::find(octets, b"\r\n.").is_none() {
        return octets.clone();
    }
    let mut plain = BytesMut::with_capacity(octets.len());
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        plain.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    plain.freeze()
}
