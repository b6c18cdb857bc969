//! The machine: octets and answers in, steps out. What the commands mean is in `session/verbs.rs`.

mod verbs;

use std::mem;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Buf as _, Bytes};
use memchr::memchr2;

use super::auth::{self, Exchange};
use super::command::AUTH_LINE_MAX;
use super::data::Receiver;
use super::{Answer, Ask, Envelope, Greeted, RcptParameters, Settings, Step};
use crate::address::Mailbox;
use crate::reply::Reply;

/// Replies gathered for one write; past it they are written although more commands are at hand.
const REPLIES_BYTES_MAX: usize = 16 << 10;

/// One connection's dialogue (RFC 5321 §3). Between transactions it holds a few hundred octets.
pub struct Session {
    settings: Arc<Settings>,
    state: State,
    tls: bool,
    authenticated: bool,
    greeted: Option<Arc<Greeted>>,
    /// Octets of the last read that were not looked at yet. Empty whenever we ask for a read.
    input: Bytes,
    /// The beginning of a command line whose end has not come: at most `AUTH_LINE_MAX`.
    line: Vec<u8>,
    /// The line in progress was too long and is being skipped.
    skipping: bool,
    /// Replies to be written.
    output: Vec<u8>,
    phase: u64,
    /// Octets of a message since the phase began.
    phase_octets: u64,
    errors: u32,
    idle_commands: u32,
    mails: u32,
    shutdown: bool,
    /// As the driver told it last.
    now: Option<SystemTime>,
}

enum State {
    /// The greeting is still to be said.
    Start,
    /// Waiting for a command; inside a transaction or not.
    Command(Option<Box<Transaction>>),
    /// Waiting for a line of AUTH.
    Auth(Exchange),
    /// Reading the message after 354.
    Data(Box<Transaction>, Receiver),
    /// Reading the octets of a BDAT.
    Chunk(Chunk),
    /// A question to be asked, and what it is about.
    Ask(Box<Ask>, Pending),
    /// Asked; the answer is owed to us.
    Asked(Pending),
    /// 220 was said to STARTTLS; the handshake is to begin.
    StartTls,
    /// What is to be written is written, then the connection is closed.
    Closing,
}

/// Between an accepted MAIL and the end of the message.
struct Transaction {
    envelope: Envelope,
    rcpt_commands: usize,
    /// The chunks so far, once BDAT has begun (RFC 3030).
    chunks: Option<Receiver>,
}

struct Chunk {
    transaction: Option<Box<Transaction>>,
    left: u64,
    last: bool,
    /// The octets are only swallowed, and this is said at their end.
    refusal: Option<Reply>,
    /// Then the session ends.
    close: bool,
}

enum Pending {
    Auth,
    Mail(Box<Transaction>),
    Recipient(Box<Transaction>, Mailbox, RcptParameters),
    Message,
}

enum Line {
    Complete(Bytes),
    Partial,
    Bare(&'static str),
    TooLong,
}

impl Session {
    /// A session on a connection that has just been accepted (for `implicit_tls`: whose handshake is done).
    pub fn new(settings: Arc<Settings>) -> Self {
        let tls = settings.implicit_tls;
        Self {
            settings,
            state: State::Start,
            tls,
            authenticated: false,
            greeted: None,
            input: Bytes::new(),
            line: Vec::new(),
            skipping: false,
            output: Vec::new(),
            phase: 0,
            phase_octets: 0,
            errors: 0,
            idle_commands: 0,
            mails: 0,
            shutdown: false,
            now: None,
        }
    }

    /// A session inside TLS whatever the settings say: the peer began with a ClientHello where STARTTLS is usual.
    pub fn over_tls(settings: Arc<Settings>) -> Self {
        Self { tls: true, ..Self::new(settings) }
    }

    /// A session that is turned away in place of a greeting (RFC 5321 §3.1): 554, or 421 when busy.
    pub fn refused(settings: Arc<Settings>, reply: Reply) -> Self {
        let mut session = Self::new(settings);
        session.state = session.close_with(&reply);
        session
    }

    /// What to do next.
    ///
    /// # Panics
    /// If the driver owes an answer to `Step::Ask`, or `handle_tls` to `Step::StartTls` that it was given before.
    pub fn poll(&mut self) -> Step {
        loop {
            self.state = match mem::replace(&mut self.state, State::Closing) {
                State::Start => {
                    let greeting = Reply::plain(220, format!("{} ESMTP ready", self.settings.hostname));
                    self.say(&greeting);
                    State::Command(None)
                }
                State::Command(None) if self.shutdown && self.line.is_empty() => {
                    self.close_with(&Reply::new(421, (4, 3, 2), "Shutting down; come again"))
                }
                state @ (State::Command(_) | State::Auth(_)) if self.output.len() >= REPLIES_BYTES_MAX => {
                    return self.write(state);
                }
                State::Command(open) => match self.take_line(self.command_line_max()) {
                    Line::Complete(line) => self.command_line(&line, open),
                    Line::Partial => return self.write_or_read(State::Command(open)),
                    Line::Bare(what) => self.bare(what),
                    Line::TooLong => self.refuse(Reply::new(500, (5, 5, 2), "Command line too long"), State::Command(open)),
                },
                State::Auth(exchange) => match self.take_line(AUTH_LINE_MAX) {
                    Line::Complete(line) => match std::str::from_utf8(&line) {
                        Ok(line) => self.auth_goes_on(auth::respond(exchange, line)),
                        Err(_) => self.refuse(Reply::new(501, (5, 5, 2), "Malformed response"), State::Command(None)),
                    },
                    Line::Partial => return self.write_or_read(State::Auth(exchange)),
                    Line::Bare(what) => self.bare(what),
                    // RFC 4954 §4.
                    Line::TooLong => self.refuse(Reply::new(500, (5, 5, 6), "Response too long"), State::Command(None)),
                },
                State::Data(transaction, mut receiver) => {
                    let (octets, ended) = receiver.feed(&self.input);
                    self.consume(octets);
                    if !ended {
                        return self.write_or_read(State::Data(transaction, receiver));
                    }
                    self.message_ended(*transaction, receiver)
                }
                State::Chunk(chunk) if chunk.left > 0 && self.input.is_empty() => {
                    return self.write_or_read(State::Chunk(chunk));
                }
                State::Chunk(chunk) => self.chunk_goes_on(chunk),
                State::Ask(ask, pending) => {
                    self.state = State::Asked(pending);
                    return Step::Ask(*ask);
                }
                State::Asked(_) => panic!("the driver polls although it owes an answer to Step::Ask"),
                State::StartTls if self.output.is_empty() => {
                    self.state = State::StartTls;
                    return Step::StartTls;
                }
                State::Closing if self.output.is_empty() => return Step::Close,
                state @ (State::StartTls | State::Closing) => return self.write(state),
            };
        }
    }

    /// What was read; empty at the end of the stream, which ends the session.
    pub fn handle_octets(&mut self, octets: Bytes) {
        if octets.is_empty() {
            self.close();
        } else if self.input.is_empty() {
            self.input = octets;
        } else {
            // Read without having been asked to; nothing is lost.
            self.input = [mem::take(&mut self.input), octets].concat().into();
        }
    }

    /// The answer to the last `Step::Ask`.
    ///
    /// # Panics
    /// If nothing was asked.
    pub fn handle_answer(&mut self, answer: Answer) {
        let State::Asked(pending) = mem::replace(&mut self.state, State::Closing) else {
            panic!("the driver answers although nothing was asked");
        };
        self.state = match answer {
            Answer::Accept => self.accepted(pending, None),
            Answer::AcceptWith(reply) => self.accepted(pending, Some(reply)),
            Answer::Refuse(reply) if reply.code() != 421 => self.refused_by_policy(pending, reply),
            Answer::Refuse(reply) | Answer::RefuseAndClose(reply) => self.close_with(&reply),
        };
    }

    /// The handshake of `Step::StartTls` is done. What was said before it is forgotten (RFC 3207 §4.2).
    pub fn handle_tls(&mut self) {
        assert!(matches!(self.state, State::StartTls), "handle_tls belongs to Step::StartTls");
        self.tls = true;
        self.authenticated = false;
        self.greeted = None;
        self.phase += 1;
        self.state = State::Command(None);
    }

    /// The peer has not kept to the deadline of a `Step::Read`: 421 (RFC 5321 §4.5.3.2), and the session ends.
    pub fn handle_deadline(&mut self) {
        self.state = self.close_with(&Reply::new(421, (4, 4, 2), "Timeout; come again"));
    }

    /// What time it is, for FUTURERELEASE (RFC 4865): it is offered once this was told. Tell it before `poll`
    /// whenever something was read.
    pub fn handle_time(&mut self, now: SystemTime) {
        self.now = Some(now);
    }

    /// We stop: a transaction in progress may end, then 421 4.3.2 is said (RFC 5321 §3.8). A driver that waits
    /// for the octets of an idle session can poll at once.
    pub fn handle_shutdown(&mut self) {
        self.shutdown = true;
    }

    /// Whether a transaction is in progress: from an accepted MAIL to the reply to its message.
    pub fn in_transaction(&self) -> bool {
        match &self.state {
            State::Command(open) => open.is_some(),
            State::Data(..) | State::Chunk(_) => true,
            State::Ask(_, pending) | State::Asked(pending) => !matches!(pending, Pending::Auth),
            State::Start | State::Auth(_) | State::StartTls | State::Closing => false,
        }
    }

    /// Whether the session runs inside TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Octets of the peer in memory: message, line, unread input.
    pub fn buffered_bytes(&self) -> usize {
        let message = match &self.state {
            State::Data(_, receiver) => receiver.held(),
            State::Command(Some(transaction)) | State::Chunk(Chunk { transaction: Some(transaction), .. }) => {
                transaction.chunks.as_ref().map_or(0, Receiver::held)
            }
            _ => 0,
        };
        message + self.line.capacity() + self.input.len()
    }

    fn say(&mut self, reply: &Reply) {
        reply.write_to(&mut self.output);
    }

    fn close(&mut self) {
        self.input = Bytes::new();
        self.line = Vec::new();
        self.output = Vec::new();
        self.state = State::Closing;
    }

    fn close_with(&mut self, reply: &Reply) -> State {
        self.input = Bytes::new();
        self.line = Vec::new();
        self.say(reply);
        State::Closing
    }

    /// A refusal, unless there were too many.
    fn refuse(&mut self, reply: Reply, state: State) -> State {
        self.errors += 1;
        if self.errors >= self.settings.limits.errors_max {
            return self.close_with(&Reply::new(421, (4, 7, 0), "Too many errors"));
        }
        self.say(&reply);
        state
    }

    /// On which side of it a command ends is what smuggling lives on (CVE-2023-51764).
    fn bare(&mut self, what: &'static str) -> State {
        self.close_with(&Reply::new(500, (5, 5, 2), format!("{what} in a command; lines end in CRLF")))
    }

    fn write(&mut self, state: State) -> Step {
        self.state = state;
        Step::Write(Bytes::from(mem::take(&mut self.output)))
    }

    fn write_or_read(&mut self, state: State) -> Step {
        if !self.output.is_empty() {
            return self.write(state);
        }
        let timeouts = &self.settings.limits.timeouts;
        let within = if matches!(state, State::Data(..) | State::Chunk(_)) { timeouts.data_block } else { timeouts.command };
        self.state = state;
        Step::Read { phase: self.phase, within }
    }

    /// Octets of a message were used up. Each block of them is a phase of its own.
    fn consume(&mut self, octets: usize) {
        self.input.advance(octets);
        if self.input.is_empty() {
            self.input = Bytes::new();
        }
        self.phase_octets += octets as u64;
        let block = self.settings.limits.timeouts.block_bytes();
        if self.phase_octets >= block {
            self.phase += 1;
            self.phase_octets %= block;
        }
    }

    fn take_line(&mut self, bytes_max: usize) -> Line {
        let mut input = mem::take(&mut self.input);
        let after_cr = self.line.last() == Some(&b'\r');
        let found = if after_cr { Some(0) } else { memchr2(b'\r', b'\n', &input) };
        let (text_end, line_end) = match found.map(|at| (at, input.get(at).copied(), input.get(at + 1).copied())) {
            Some((0, Some(b'\n'), _)) if after_cr => (0, 1),
            Some((_, Some(_), _)) if after_cr => return Line::Bare("bare CR"),
            Some((_, Some(b'\n'), _)) => return Line::Bare("bare LF"),
            Some((at, Some(_), Some(b'\n'))) => (at, at + 2),
            Some((_, Some(_), Some(_))) => return Line::Bare("bare CR"),
            // No end of line, or a CR at the very end whose LF is to come.
            _ => {
                if self.skipping || self.line.len() + input.len() > bytes_max {
                    self.skipping = true;
                    let cr = input.last().or(self.line.last()) == Some(&b'\r');
                    self.line = if cr { vec![b'\r'] } else { Vec::new() };
                } else {
                    self.line.extend_from_slice(&input);
                }
                return Line::Partial;
            }
        };
        let mut text = input.split_to(text_end);
        input.advance(line_end - text_end);
        if !self.line.is_empty() {
            let mut line = mem::take(&mut self.line);
            line.truncate(line.len() - usize::from(after_cr));
            line.extend_from_slice(&text);
            text = line.into();
        }
        if !input.is_empty() {
            self.input = input;
        }
        self.phase += 1;
        self.phase_octets = 0;
        if mem::take(&mut self.skipping) || text.len() + 2 > bytes_max { Line::TooLong } else { Line::Complete(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_idle_sessions_fit_in_half_a_megabyte() {
        assert!(size_of::<Session>() <= 512, "{}", size_of::<Session>());
    }
}
