//! The machine: octets and events in, steps out.

use std::mem;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::dialogue::Dialogue;
use super::replies::Replies;
use super::transaction::{Next, Running};
use super::{Extensions, Fate, Settings, Stage, Step, Transaction};
use crate::reply::Reply;

/// One connection's dialogue (RFC 5321 §3): a greeting, then any number of transactions.
pub struct Session {
    settings: Arc<Settings>,
    state: State,
    tls: bool,
    authenticated: bool,
    replies: Replies,
    output: Vec<u8>,
    phase: u64,
    greeting: Option<Reply>,
    peer: Extensions,
    starttls_refusal: Option<Reply>,
    /// A transaction was given up half-way, and the peer is to hear of it before the next.
    needs_rset: bool,
    /// The reply to a message differs from those to addresses, as the last transaction has shown.
    tells_apart: bool,
    transactions: u32,
    trouble: Option<Fate>,
    dialogue: Dialogue,
}

enum State {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    /// 220 was said to STARTTLS; the handshake is to be made.
    Handshake,
    Auth,
    Ready,
    Transaction(Box<Running>),
    Done {
        fates: Vec<Fate>,
        usable: bool,
    },
    Quit,
    /// What is to be written is written, then the connection is closed.
    Closing,
}

impl Session {
    /// A session on a connection that has just been made (for `implicit_tls`: whose handshake is done).
    pub fn new(settings: impl Into<Arc<Settings>>) -> Self {
        let settings = settings.into();
        Self {
            tls: settings.implicit_tls,
            settings,
            state: State::Greeting,
            authenticated: false,
            replies: Replies::default(),
            output: Vec::new(),
            phase: 0,
            greeting: None,
            peer: Extensions::default(),
            starttls_refusal: None,
            needs_rset: false,
            tells_apart: false,
            transactions: 0,
            trouble: None,
            dialogue: Dialogue::default(),
        }
    }

    /// What to do next.
    pub fn poll(&mut self) -> Step {
        loop {
            if !self.output.is_empty() {
                return Step::Write(mem::take(&mut self.output).into());
            }
            match mem::replace(&mut self.state, State::Closing) {
                State::Closing => return Step::Close,
                State::Ready => {
                    self.state = State::Ready;
                    return Step::Ready;
                }
                State::Handshake => {
                    self.state = State::Handshake;
                    return Step::StartTls;
                }
                State::Done { fates, usable } => {
                    self.done(usable);
                    return Step::Done(fates);
                }
                State::Transaction(mut running) => {
                    let block = running.next_block();
                    self.state = State::Transaction(running);
                    if let Some(block) = block {
                        return Step::Write(block);
                    }
                }
                waiting => self.state = waiting,
            }
            match self.replies.next() {
                Ok(Some(reply)) => {
                    self.phase += 1;
                    self.handle_reply(reply);
                }
                Ok(None) => return Step::Read { phase: self.phase, within: self.within() },
                Err(reason) => self.handle_broken(reason),
            }
        }
    }

    /// Starts a transaction.
    ///
    /// # Panics
    /// Unless the last step was `Step::Ready`.
    pub fn begin(&mut self, transaction: Transaction) {
        assert!(matches!(self.state, State::Ready), "begin belongs to Step::Ready");
        let chunking = self.settings.chunking && self.tells_apart;
        self.dialogue.begin();
        match Running::begin(transaction, &self.peer, chunking, self.needs_rset) {
            Ok((running, commands)) => {
                self.needs_rset = false;
                self.transactions += 1;
                self.phase += 1;
                let content = running.bytes_sent_at_once();
                self.dialogue.sent(&commands[..commands.len().saturating_sub(content)]);
                if content > 0 {
                    self.dialogue.note_message(content);
                }
                self.output = commands;
                self.state = State::Transaction(Box::new(running));
            }
            Err(fates) => {
                if let Some(Fate::Refused { reply, .. }) = fates.first() {
                    self.dialogue.note(&format!("nothing is sent: {reply}"));
                }
                self.state = State::Done { fates, usable: true };
            }
        }
    }

    /// Ends the session politely (RFC 5321 §4.1.1.10).
    ///
    /// # Panics
    /// Unless the last step was `Step::Ready`.
    pub fn quit(&mut self) {
        assert!(matches!(self.state, State::Ready), "quit belongs to Step::Ready");
        self.send("QUIT\r\n", State::Quit);
    }

    /// What was read; empty at the end of the stream. What an idle peer says at `Step::Ready` can only be good
    /// bye (421), and ends the session.
    pub fn handle_octets(&mut self, octets: Bytes) {
        if octets.is_empty() {
            self.handle_broken("the peer closed the connection");
        } else if matches!(self.state, State::Ready) {
            self.state = State::Closing;
        } else if !matches!(self.state, State::Closing) {
            self.replies.push(octets);
        }
    }

    /// The handshake of `Step::StartTls` is done: what was said before is forgotten (RFC 3207 §4.2).
    pub fn handle_tls(&mut self) {
        assert!(matches!(self.state, State::Handshake), "handle_tls belongs to Step::StartTls");
        self.tls = true;
        self.dialogue.note("TLS from here on");
        self.peer = Extensions::default();
        self.phase += 1;
        self.send_ehlo();
    }

    /// Something came between: a deadline, a reset, a failed handshake. Ends the session; recipients of a
    /// transaction in progress have their fates.
    pub fn handle_broken(&mut self, reason: impl Into<String>) {
        let reason = reason.into();
        if !matches!(self.state, State::Ready | State::Quit | State::Closing) {
            self.dialogue.note(&reason);
        }
        self.output = Vec::new();
        self.replies = Replies::default();
        let stage = match mem::replace(&mut self.state, State::Closing) {
            State::Transaction(running) => {
                self.state = State::Done { fates: running.handle_broken(&reason), usable: false };
                return;
            }
            State::Done { fates, .. } => {
                self.state = State::Done { fates, usable: false };
                return;
            }
            State::Greeting => Stage::Greeting,
            State::Ehlo | State::Helo => Stage::Ehlo,
            State::StartTls | State::Handshake => Stage::StartTls,
            State::Auth => Stage::Auth,
            State::Ready | State::Quit | State::Closing => return,
        };
        self.trouble = Some(Fate::Broken { stage, reason });
    }

    /// A write failed, for the `reason`; `said` is what the peer had sent by then, if anything. A host may refuse a message
    /// before it has all of it and hang up: its reply tells more than the broken connection. Ends the session.
    pub fn handle_unwritten(&mut self, said: Bytes, reason: impl Into<String>) {
        if let State::Transaction(running) = &mut self.state {
            running.cut_short();
            if !said.is_empty() {
                self.replies.push(said);
            }
        }
        while matches!(self.state, State::Transaction(_)) {
            let Ok(Some(reply)) = self.replies.next() else { break };
            self.handle_reply(reply);
        }
        self.handle_broken(reason);
    }

    /// Why the session ended before it was ever `Ready`; `Refused` or `Broken`.
    pub fn trouble(&self) -> Option<&Fate> {
        self.trouble.as_ref()
    }

    /// What the peer offers: after the last EHLO, that is inside TLS if there is TLS.
    pub fn peer_extensions(&self) -> &Extensions {
        &self.peer
    }

    /// The peer's greeting, once it was read.
    pub fn greeting(&self) -> Option<&Reply> {
        self.greeting.as_ref()
    }

    /// The reply by which the peer refused the STARTTLS that it had offered; we went on without.
    pub fn starttls_refusal(&self) -> Option<&Reply> {
        self.starttls_refusal.as_ref()
    }

    /// What was said on both sides since the last transaction began, and before the first one: a line each, at most some two
    /// thousand octets, without secrets and without the message.
    pub fn dialogue(&self) -> String {
        self.dialogue.text()
    }

    /// Whether the session runs inside TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Transactions begun. If a 421 answers the MAIL of a later one, the peer had tired of the session.
    pub fn transactions(&self) -> u32 {
        self.transactions
    }

    /// Octets of the peer in memory.
    pub fn buffered_bytes(&self) -> usize {
        self.replies.held()
    }

    fn within(&self) -> std::time::Duration {
        let timeouts = &self.settings.timeouts;
        match &self.state {
            State::Greeting => timeouts.greeting,
            State::Transaction(running) => running.within(timeouts),
            State::Quit => timeouts.quit,
            _ => timeouts.command,
        }
    }

    /// Sends a command, unless the peer has spoken out of turn: then its replies would be taken for others.
    fn send(&mut self, command: impl Into<Vec<u8>>, then: State) {
        self.state = then;
        if self.replies.is_empty() {
            self.output = command.into();
            match self.state {
                // The password is in it.
                State::Auth => self.dialogue.sent(b"AUTH PLAIN (secret)\r\n"),
                _ => self.dialogue.sent(&self.output),
            }
            return;
        }
        let reason = match self.replies.next() {
            Ok(Some(reply)) => format!("reply without a command: {reply}"),
            Ok(None) => "half a reply without a command".to_owned(),
            Err(reason) => reason,
        };
        self.handle_broken(reason);
    }

    fn send_ehlo(&mut self) {
        self.send(format!("EHLO {}\r\n", self.settings.ehlo), State::Ehlo);
    }

    fn handle_reply(&mut self, reply: Reply) {
        self.dialogue.heard(&reply);
        match mem::replace(&mut self.state, State::Closing) {
            State::Greeting => {
                self.greeting = Some(reply.clone());
                if reply.is_positive() { self.send_ehlo() } else { self.refused(Stage::Greeting, reply) }
            }
            State::Ehlo if reply.is_positive() => {
                self.peer = Extensions::parse(&reply);
                // RFC 8689 §2: what is said of it in clear is not said by the peer.
                self.peer.require_tls &= self.tls;
                self.after_ehlo();
            }
            // RFC 5321 §3.2: an old server.
            State::Ehlo if reply.is_permanent() => self.send(format!("HELO {}\r\n", self.settings.ehlo), State::Helo),
            State::Helo if reply.is_positive() => self.after_ehlo(),
            State::Ehlo | State::Helo => self.refused(Stage::Ehlo, reply),
            State::StartTls if reply.is_positive() && !self.replies.is_empty() => {
                // Said in clear, it would be read as if said inside TLS (response injection, CVE-2011-0411's mirror).
                self.state = State::StartTls;
                self.handle_broken("octets follow the reply to STARTTLS before the handshake");
            }
            State::StartTls if reply.is_positive() => self.state = State::Handshake,
            State::StartTls if self.settings.require_tls || reply.code() == 421 => self.refused(Stage::StartTls, reply),
            State::StartTls => {
                self.starttls_refusal = Some(reply);
                self.after_ehlo();
            }
            State::Auth if reply.is_positive() => {
                self.authenticated = true;
                self.after_ehlo();
            }
            State::Auth => self.refused(Stage::Auth, reply),
            State::Transaction(mut running) => match running.handle_reply(reply, &self.peer) {
                Next::Wait => self.state = State::Transaction(running),
                Next::Send(commands) => self.send(commands, State::Transaction(running)),
                Next::SendBody => {
                    self.dialogue.note_message(running.message_bytes());
                    self.send(Vec::new(), State::Transaction(running));
                }
                Next::Done { usable, needs_rset } => {
                    self.needs_rset = needs_rset;
                    self.tells_apart = running.tells_apart().unwrap_or(self.tells_apart);
                    // What it has shown holds like what it has announced.
                    self.peer.rcpt_max = running.room_found().or(self.peer.rcpt_max);
                    self.state = State::Done { fates: running.into_fates(), usable };
                }
                Next::Broken(reason) => {
                    self.dialogue.note(&reason);
                    self.state = State::Done { fates: running.handle_broken(&reason), usable: false };
                }
            },
            State::Quit | State::Closing => {}
            // Nothing is read in these.
            state @ (State::Handshake | State::Ready | State::Done { .. }) => self.state = state,
        }
    }

    /// TLS first, then AUTH, then mail.
    fn after_ehlo(&mut self) {
        let settings = self.settings.clone();
        let wants_tls = (settings.starttls || settings.require_tls) && !self.tls;
        if wants_tls && self.peer.starttls && self.starttls_refusal.is_none() {
            return self.send("STARTTLS\r\n", State::StartTls);
        }
        if settings.require_tls && !self.tls {
            return self.give_up(Stage::StartTls, "the peer does not offer STARTTLS");
        }
        match &settings.credentials {
            Some(_) if self.authenticated => self.state = State::Ready,
            Some(_) if !self.tls => self.give_up(Stage::Auth, "AUTH only inside TLS, which the peer does not offer"),
            Some(_) if !self.peer.auth_plain => self.give_up(Stage::Auth, "the peer does not offer AUTH PLAIN"),
            Some(credentials) => {
                let response = STANDARD.encode(format!("\0{}\0{}", credentials.username, credentials.password.expose()));
                self.send(format!("AUTH PLAIN {response}\r\n"), State::Auth);
            }
            None => self.state = State::Ready,
        }
        if matches!(self.state, State::Ready) && !self.replies.is_empty() {
            self.state = State::Ehlo;
            self.handle_broken("reply without a command");
        }
    }

    fn give_up(&mut self, stage: Stage, reason: &str) {
        self.dialogue.note(reason);
        self.trouble = Some(Fate::Broken { stage, reason: reason.to_owned() });
        self.output = b"QUIT\r\n".to_vec();
        self.state = State::Closing;
    }

    fn refused(&mut self, stage: Stage, reply: Reply) {
        // After 421 nobody listens (RFC 5321 §3.8).
        if reply.code() != 421 {
            self.output = b"QUIT\r\n".to_vec();
        }
        self.state = State::Closing;
        self.trouble = Some(if reply.is_transient() || reply.is_permanent() {
            Fate::Refused { stage, reply }
        } else {
            Fate::Broken { stage, reason: format!("unexpected reply to {stage}: {reply}") }
        });
    }

    /// A transaction has ended; may there be another?
    fn done(&mut self, usable: bool) {
        let spent = self.peer.mail_max.is_some_and(|mail_max| self.transactions >= mail_max);
        self.state = if !usable || !self.replies.is_empty() {
            self.replies = Replies::default();
            State::Closing
        } else if spent {
            self.output = b"QUIT\r\n".to_vec();
            State::Quit
        } else {
            State::Ready
        };
    }
}
