//! The machine: octets and answers in, steps out.

use std::mem;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use memchr::memchr2;

use super::auth::{self, Exchange};
use super::command::{self, AUTH_LINE_MAX, COMMAND_LINE_MAX, Verb};
use super::data::{Fault, Receiver};
use super::{Answer, Ask, Auth, Envelope, Greeted, RcptParameters, Settings, Step};
use crate::address::Mailbox;
use crate::reply::Reply;

/// Replies gathered for one write; past it they are written although more commands are at hand.
const REPLIES_BYTES_MAX: usize = 16 << 10;
/// A BDAT of fewer octets counts as an idle command, so that a peer cannot feed us crumbs for ever.
const CHUNK_BYTES_MIN: u64 = 4096;

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

    /// Where AUTH is possible its initial response may come with it (RFC 4954 §4).
    fn command_line_max(&self) -> usize {
        let auth = self.settings.auth == Auth::Required && self.tls && !self.authenticated;
        if auth { AUTH_LINE_MAX } else { COMMAND_LINE_MAX }
    }

    fn command_line(&mut self, line: &[u8], open: Option<Box<Transaction>>) -> State {
        let Some(line) = std::str::from_utf8(line).ok().filter(|line| !line.contains('\0')) else {
            return self.refuse(Reply::new(500, (5, 5, 2), "Command has NUL or is not UTF-8"), State::Command(open));
        };
        let (verb, argument) = command::split(line);
        if verb != Verb::Auth && line.len() + 2 > COMMAND_LINE_MAX {
            return self.refuse(Reply::new(500, (5, 5, 2), "Command line too long"), State::Command(open));
        }
        if !matches!(verb, Verb::Rcpt | Verb::Data | Verb::Bdat) && self.is_idling() {
            return self.close_with(&Reply::new(421, (4, 7, 0), "Too many commands without a message"));
        }
        match verb {
            Verb::Mail => self.mail(argument, open),
            Verb::Rcpt => self.rcpt(argument, open),
            Verb::Data => self.data(argument, open),
            Verb::Bdat => self.bdat(argument, open),
            Verb::Ehlo | Verb::Helo => match command::greeting(argument) {
                Ok(name) => self.greet(Greeted { name, esmtp: verb == Verb::Ehlo }),
                Err(reply) => self.refuse(reply, State::Command(open)),
            },
            Verb::Auth => self.auth(argument, open),
            Verb::StartTls => self.start_tls(argument, open),
            Verb::Rset | Verb::Quit => match command::nothing(argument) {
                Ok(()) if verb == Verb::Quit => self.close_with(&Reply::new(221, (2, 0, 0), "Bye")),
                Ok(()) => {
                    self.say(&Reply::new(250, (2, 0, 0), "Ok"));
                    State::Command(None)
                }
                Err(reply) => self.refuse(reply, State::Command(open)),
            },
            Verb::Noop => {
                self.say(&Reply::new(250, (2, 0, 0), "Ok"));
                State::Command(open)
            }
            // RFC 5321 §7.3: whether an address exists is nobody's business.
            Verb::Vrfy => {
                self.say(&Reply::new(252, (2, 5, 0), "Cannot verify; send mail and see"));
                State::Command(open)
            }
            Verb::Help => {
                self.say(&Reply::new(214, (2, 0, 0), "See RFC 5321; EHLO says what is offered"));
                State::Command(open)
            }
            Verb::Expn => self.refuse(Reply::new(502, (5, 5, 1), "EXPN is not offered"), State::Command(open)),
            Verb::Http => self.close_with(&Reply::new(500, (5, 5, 1), "This is SMTP")),
            Verb::Unknown => self.refuse(Reply::new(500, (5, 5, 1), "Command unknown"), State::Command(open)),
        }
    }

    fn is_idling(&mut self) -> bool {
        self.idle_commands += 1;
        self.idle_commands > self.settings.limits.idle_commands_max
    }

    fn greet(&mut self, greeted: Greeted) -> State {
        let settings = &self.settings;
        let mut reply = Reply::plain(250, settings.hostname.clone());
        if greeted.esmtp {
            let limits = &settings.limits;
            reply = reply
                .line("PIPELINING")
                .line(format!("SIZE {}", limits.message_bytes_max))
                .line("8BITMIME")
                .line("SMTPUTF8")
                .line("ENHANCEDSTATUSCODES");
            if settings.chunking {
                reply = reply.line("CHUNKING");
            }
            if settings.starttls && !self.tls {
                reply = reply.line("STARTTLS");
            }
            if settings.auth == Auth::Required && self.tls {
                reply = reply.line("AUTH PLAIN LOGIN");
            }
            reply = reply.line(format!("LIMITS RCPTMAX={} MAILMAX={}", limits.recipients_max, limits.messages_max));
        }
        self.greeted = Some(Arc::new(greeted));
        self.say(&reply);
        // RFC 5321 §4.1.4: a transaction in progress is given up.
        State::Command(None)
    }

    fn start_tls(&mut self, argument: &str, open: Option<Box<Transaction>>) -> State {
        let reply = if !self.settings.starttls && !self.tls {
            Reply::new(502, (5, 5, 1), "STARTTLS is not offered")
        } else if self.tls {
            Reply::new(503, (5, 5, 1), "TLS is active already")
        } else if self.greeted.is_none() {
            Reply::new(503, (5, 5, 1), "Say EHLO first")
        } else if let Err(reply) = command::nothing(argument) {
            reply
        } else if !self.input.is_empty() {
            // What came in clear with STARTTLS would be obeyed as if it had come inside (CVE-2011-0411).
            return self.close_with(&Reply::new(554, (5, 5, 1), "Octets follow STARTTLS before the handshake"));
        } else {
            self.say(&Reply::new(220, (2, 0, 0), "Ready to start TLS"));
            return State::StartTls;
        };
        self.refuse(reply, State::Command(open))
    }

    fn auth(&mut self, argument: &str, open: Option<Box<Transaction>>) -> State {
        let reply = if self.settings.auth == Auth::Never {
            Reply::new(502, (5, 5, 1), "AUTH is not offered")
        } else if !self.tls {
            Reply::new(538, (5, 7, 11), "Encryption required; say STARTTLS first")
        } else if self.greeted.is_none() {
            Reply::new(503, (5, 5, 1), "Say EHLO first")
        } else if self.authenticated || open.is_some() {
            Reply::new(503, (5, 5, 1), "AUTH is possible once, before MAIL")
        } else {
            return self.auth_goes_on(auth::begin(argument));
        };
        self.refuse(reply, State::Command(open))
    }

    fn auth_goes_on(&mut self, next: auth::Next) -> State {
        match next {
            auth::Next::Challenge(exchange, challenge) => {
                self.say(&Reply::plain(334, challenge));
                State::Auth(exchange)
            }
            auth::Next::Check { username, password, mechanism } => {
                State::Ask(Box::new(Ask::Auth { username, password, mechanism }), Pending::Auth)
            }
            auth::Next::Refuse(reply) => self.refuse(reply, State::Command(None)),
        }
    }

    fn mail(&mut self, argument: &str, open: Option<Box<Transaction>>) -> State {
        let refusal = match &self.greeted {
            None => Reply::new(503, (5, 5, 1), "Say EHLO first"),
            _ if self.settings.auth == Auth::Required && !self.authenticated => {
                let what = if self.tls { "Authentication required" } else { "Say STARTTLS first, then AUTH" };
                Reply::new(530, (5, 7, 0), what)
            }
            _ if open.is_some() => Reply::new(503, (5, 5, 1), "A transaction is in progress; RSET ends it"),
            Some(greeted) => {
                let limits = &self.settings.limits;
                if self.mails >= limits.messages_max {
                    return self.close_with(&Reply::new(421, (4, 7, 0), "Enough messages for one session; connect again"));
                }
                let offered =
                    command::Offered { bytes_max: limits.message_bytes_max, auth: self.settings.auth == Auth::Required };
                match command::mail(argument, &offered) {
                    Ok((path, parameters)) => {
                        self.mails += 1;
                        let envelope = Envelope {
                            reverse_path: path.clone(),
                            parameters: parameters.clone(),
                            recipients: Vec::new(),
                            greeted: greeted.clone(),
                            tls: self.tls,
                            authenticated: self.authenticated,
                        };
                        let transaction = Box::new(Transaction { envelope, rcpt_commands: 0, chunks: None });
                        return State::Ask(Box::new(Ask::Mail { path, parameters }), Pending::Mail(transaction));
                    }
                    Err(reply) => reply,
                }
            }
        };
        self.refuse(refusal, State::Command(open))
    }

    fn rcpt(&mut self, argument: &str, open: Option<Box<Transaction>>) -> State {
        let Some(mut transaction) = open.filter(|transaction| transaction.chunks.is_none()) else {
            // RFC 3030 §2: after BDAT only BDAT. Giving the transaction up is the safe reading.
            return self.refuse(Reply::new(503, (5, 5, 1), "MAIL comes before RCPT"), State::Command(None));
        };
        let recipients_max = self.settings.limits.recipients_max;
        transaction.rcpt_commands += 1;
        if transaction.rcpt_commands > recipients_max.saturating_mul(10) {
            return self.close_with(&Reply::new(421, (4, 7, 0), "Too many recipients"));
        }
        match command::rcpt(argument, transaction.envelope.parameters.smtputf8, &self.settings.hostname) {
            Ok(_) if transaction.envelope.recipients.len() >= recipients_max => {
                self.say(&Reply::new(452, (4, 5, 3), "Too many recipients; send the rest in another transaction"));
                State::Command(Some(transaction))
            }
            Ok((path, parameters)) => {
                let ask = Ask::Recipient { path: path.clone(), parameters: parameters.clone() };
                State::Ask(Box::new(ask), Pending::Recipient(transaction, path, parameters))
            }
            Err(reply) => self.refuse(reply, State::Command(Some(transaction))),
        }
    }

    fn data(&mut self, argument: &str, open: Option<Box<Transaction>>) -> State {
        let (reply, open) = match open {
            None => (Reply::new(503, (5, 5, 1), "MAIL and RCPT come before DATA"), None),
            Some(transaction) if transaction.chunks.is_some() => (Reply::new(503, (5, 5, 1), "BDAT has begun"), None),
            Some(transaction) => match command::nothing(argument) {
                Err(reply) => (reply, Some(transaction)),
                // RFC 2920 §3.1: what a pipelining client is told when each of its recipients was refused.
                Ok(()) if transaction.envelope.recipients.is_empty() => {
                    (Reply::new(554, (5, 5, 1), "No valid recipients"), Some(transaction))
                }
                Ok(()) => {
                    self.say(&Reply::plain(354, "End data with <CR><LF>.<CR><LF>"));
                    return State::Data(transaction, self.receiver(true));
                }
            },
        };
        self.refuse(reply, State::Command(open))
    }

    fn bdat(&mut self, argument: &str, open: Option<Box<Transaction>>) -> State {
        let Some((octets, last)) = command::bdat(argument) else {
            // Where the next command begins cannot be known.
            return self.close_with(&Reply::new(501, (5, 5, 4), "Syntax: BDAT octets [LAST]"));
        };
        let bytes_max = self.settings.limits.message_bytes_max as u64;
        if octets > bytes_max.saturating_mul(2).saturating_add(1 << 16) {
            return self.close_with(&too_big(bytes_max as usize));
        }
        if octets < CHUNK_BYTES_MIN && !last && self.is_idling() {
            return self.close_with(&Reply::new(421, (4, 7, 0), "Too many small chunks"));
        }
        let refuse = |code, text| Some(Reply::new(code, (5, 5, 1), text));
        let (transaction, refusal) = match open {
            _ if !self.settings.chunking => (open, refuse(502, "CHUNKING is not offered")),
            None => (None, refuse(503, "MAIL and RCPT come before BDAT")),
            Some(transaction) if transaction.envelope.recipients.is_empty() => {
                (Some(transaction), refuse(554, "No valid recipients"))
            }
            Some(mut transaction) => {
                let held = transaction.chunks.get_or_insert_with(|| self.receiver(false)).len() as u64;
                if held + octets > bytes_max { (None, Some(too_big(bytes_max as usize))) } else { (Some(transaction), None) }
            }
        };
        State::Chunk(Chunk { transaction, left: octets, last, refusal, close: false })
    }

    fn receiver(&self, dots: bool) -> Receiver {
        let limits = &self.settings.limits;
        Receiver::new(limits.message_bytes_max, limits.text_line_bytes_max, dots)
    }

    fn chunk_goes_on(&mut self, mut chunk: Chunk) -> State {
        let octets = usize::try_from(chunk.left).map_or(self.input.len(), |left| left.min(self.input.len()));
        let receiver = match (&chunk.refusal, &mut chunk.transaction) {
            (None, Some(transaction)) => transaction.chunks.as_mut(),
            _ => None,
        };
        let fault = receiver.and_then(|receiver| {
            receiver.feed(&self.input[..octets]);
            receiver.fault()
        });
        self.consume(octets);
        chunk.left -= octets as u64;
        if let Some(fault) = fault {
            chunk.refusal = Some(self.fault_reply(fault));
            chunk.transaction = None;
            chunk.close = fault.is_suspect();
        }
        if chunk.left > 0 {
            return State::Chunk(chunk);
        }
        match (chunk.refusal, chunk.transaction) {
            (Some(reply), _) if chunk.close => self.close_with(&reply),
            (Some(reply), transaction) => self.refuse(reply, State::Command(transaction)),
            (None, Some(mut transaction)) if chunk.last => match transaction.chunks.take() {
                Some(receiver) => self.message_ended(*transaction, receiver),
                None => State::Command(None),
            },
            (None, transaction) => {
                self.say(&Reply::new(250, (2, 0, 0), "Chunk received"));
                State::Command(transaction)
            }
        }
    }

    fn message_ended(&mut self, transaction: Transaction, receiver: Receiver) -> State {
        self.phase += 1;
        self.phase_octets = 0;
        match receiver.finish() {
            Ok(octets) => {
                let ask = Ask::Message { envelope: transaction.envelope, octets };
                State::Ask(Box::new(ask), Pending::Message)
            }
            Err(fault) => self.refuse_fault(fault),
        }
    }

    fn refuse_fault(&mut self, fault: Fault) -> State {
        let reply = self.fault_reply(fault);
        if fault.is_suspect() { self.close_with(&reply) } else { self.refuse(reply, State::Command(None)) }
    }

    fn fault_reply(&self, fault: Fault) -> Reply {
        let limits = &self.settings.limits;
        match fault {
            Fault::BareCr => Reply::new(550, (5, 6, 0), "Message has a bare CR; lines end in CRLF (RFC 5321 2.3.8)"),
            Fault::BareLf => Reply::new(550, (5, 6, 0), "Message has a bare LF; lines end in CRLF (RFC 5321 2.3.8)"),
            Fault::LineTooLong => {
                Reply::new(550, (5, 6, 0), format!("Message has a line of more than {} octets", limits.text_line_bytes_max))
            }
            Fault::TooBig | Fault::Endless => too_big(limits.message_bytes_max),
        }
    }

    fn accepted(&mut self, pending: Pending, reply: Option<Reply>) -> State {
        let (code, state) = match pending {
            Pending::Auth => {
                self.authenticated = true;
                (Reply::new(235, (2, 7, 0), "Authentication succeeded"), State::Command(None))
            }
            Pending::Mail(transaction) => (Reply::new(250, (2, 1, 0), "Ok"), State::Command(Some(transaction))),
            Pending::Recipient(mut transaction, path, parameters) => {
                transaction.envelope.recipients.push((path, parameters));
                (Reply::new(250, (2, 1, 5), "Ok"), State::Command(Some(transaction)))
            }
            Pending::Message => {
                self.errors = 0;
                self.idle_commands = 0;
                (Reply::new(250, (2, 0, 0), "Ok"), State::Command(None))
            }
        };
        self.say(&reply.unwrap_or(code));
        state
    }

    fn refused_by_policy(&mut self, pending: Pending, reply: Reply) -> State {
        match pending {
            // Some unknown recipients among known ones are no attack.
            Pending::Recipient(transaction, ..) if !transaction.envelope.recipients.is_empty() => {
                self.say(&reply);
                State::Command(Some(transaction))
            }
            Pending::Recipient(transaction, ..) => self.refuse(reply, State::Command(Some(transaction))),
            Pending::Auth | Pending::Mail(_) | Pending::Message => self.refuse(reply, State::Command(None)),
        }
    }
}

fn too_big(bytes_max: usize) -> Reply {
    Reply::new(552, (5, 3, 4), format!("Message is larger than {bytes_max} octets"))
}
