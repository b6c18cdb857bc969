//! One SMTP session of a scripted provider, without IO: octets go in, replies come out.
//!
//! A driver calls [`Session::poll`] and does what it says; see [`super::serve`] for the loop. `act.rs` does what the script says, `body.rs` receives
//! messages. Time is an argument: whatever has passed since the provider's beginning.

mod act;
mod body;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::{Bytes, BytesMut};

use super::provider::Provider;
use super::script::{Script, Stage};

/// Octets of one command line, CRLF included: generous, so that what a peer does wrong can be told.
const LINE_MAX: usize = 8 * 1024;

/// What the driver does next.
#[derive(Debug)]
pub enum Step {
    /// Read and call [`Session::handle_octets`], or [`Session::handle_end`] at the end of the stream.
    Read,
    /// Write all of it.
    Write(Bytes),
    /// Wait so long.
    Wait(Duration),
    /// Do the TLS handshake as a server, then call [`Session::handle_tls`].
    StartTls,
    /// Read and throw away until the peer goes.
    Hang,
    /// Close.
    Close,
}

/// One session.
pub struct Session {
    provider: Arc<Provider>,
    script: Arc<Script>,
    peer: SocketAddr,
    tls: bool,
    ehlo: Option<String>,
    esmtp: bool,
    authenticated: bool,
    messages: u32,
    state: State,
    inbox: BytesMut,
    outbox: BytesMut,
    /// Replies that leave after a delay, or octet by octet.
    held: BytesMut,
    barrier: Option<Barrier>,
}

enum State {
    Commands,
    /// After AUTH without an initial response.
    AuthResponse,
    Envelope(Envelope),
    Data(Envelope, Scan),
    Bdat(Envelope, Chunk),
}

#[derive(Default)]
struct Envelope {
    reverse_path: String,
    recipients: Vec<String>,
    parameters: (String, Vec<String>),
    eight_bit: bool,
    /// A recipient was given, accepted or not: DATA is then in order.
    tried: bool,
}

#[derive(Default)]
struct Scan {
    /// Octets of the inbox known to hold no end of data.
    seen: usize,
    body_act_asked: bool,
}

#[derive(Default)]
struct Chunk {
    octets: BytesMut,
    remaining: usize,
    last: bool,
}

/// Nothing more is read or said until the driver has done this.
enum Barrier {
    Wait(Duration),
    /// What is held leaves octet by octet; whether it is time to wait.
    Drip(Duration, bool),
    StartTls,
    /// Whatever comes next is answered so, and that is the end.
    Retort(Bytes),
    Hang,
    Close,
}

impl Session {
    /// A session that begins with its greeting; `tls` when the listener speaks TLS from the start.
    pub fn new(provider: Arc<Provider>, peer: SocketAddr, tls: bool) -> Self {
        let script = provider.script();
        provider.connected();
        if tls {
            provider.encrypted();
        }
        let mut session = Self {
            provider,
            script,
            peer,
            tls,
            ehlo: None,
            esmtp: false,
            authenticated: false,
            messages: 0,
            state: State::Commands,
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            held: BytesMut::new(),
            barrier: None,
        };
        let greeting = format!("220 {} ESMTP", session.script.hostname);
        session.say_by_rule(Stage::Connect, &greeting);
        session
    }

    /// What to do now.
    pub fn poll(&mut self, now: Duration) -> Step {
        loop {
            while self.barrier.is_none() && self.advance(now) {}
            if !self.outbox.is_empty() {
                return Step::Write(self.outbox.split().freeze());
            }
            match &mut self.barrier {
                None | Some(Barrier::Retort(_)) => return Step::Read,
                Some(Barrier::Drip(pause, waits)) if *waits => {
                    *waits = false;
                    return Step::Wait(*pause);
                }
                Some(Barrier::Drip(_, waits)) => {
                    *waits = true;
                    if self.held.is_empty() {
                        self.barrier = None;
                    } else {
                        self.outbox = self.held.split_to(1);
                    }
                }
                Some(Barrier::Hang) => return Step::Hang,
                Some(Barrier::Close) => return Step::Close,
                Some(Barrier::StartTls) => {
                    // What a client pipelined behind STARTTLS is an injection (RFC 3207 §4.2).
                    if !self.inbox.is_empty() {
                        self.inbox.clear();
                        self.violation("octets behind STARTTLS");
                    }
                    self.barrier = None;
                    return Step::StartTls;
                }
                Some(Barrier::Wait(delay)) => {
                    let delay = *delay;
                    self.barrier = None;
                    self.outbox = std::mem::take(&mut self.held);
                    if !delay.is_zero() {
                        return Step::Wait(delay);
                    }
                }
            }
        }
    }

    /// Octets that came.
    pub fn handle_octets(&mut self, octets: &[u8]) {
        if let Some(Barrier::Retort(retort)) = &self.barrier {
            self.outbox.extend_from_slice(retort);
            self.barrier = Some(Barrier::Close);
            return;
        }
        self.inbox.extend_from_slice(octets);
        if let (State::Data(..) | State::Bdat(..), Some(rate)) = (&self.state, self.script.drain_bytes_per_sec) {
            self.barrier = Some(Barrier::Wait(Duration::from_secs_f64(octets.len() as f64 / f64::from(rate.max(1)))));
        }
    }

    /// The stream ended, or broke.
    pub fn handle_end(&mut self) {
        self.end_transaction();
        self.barrier = Some(Barrier::Close);
    }

    /// The handshake after [`Step::StartTls`] is done: the dialogue begins anew (RFC 3207 §4.2).
    pub fn handle_tls(&mut self) {
        self.provider.encrypted();
        self.tls = true;
        self.ehlo = None;
        self.inbox.clear();
    }

    /// One command, or a piece of a message; false when the inbox holds nothing complete.
    fn advance(&mut self, now: Duration) -> bool {
        match std::mem::replace(&mut self.state, State::Commands) {
            State::Data(envelope, scan) => self.data(now, envelope, scan),
            State::Bdat(envelope, chunk) if chunk.remaining > 0 => self.chunk(now, envelope, chunk),
            state => {
                self.state = state;
                self.line(now)
            }
        }
    }

    fn line(&mut self, now: Duration) -> bool {
        let Some(end) = memchr::memchr(b'\n', &self.inbox) else {
            if self.inbox.len() > LINE_MAX {
                self.violation("endless command line");
                self.say("500 5.5.2 line too long");
                self.barrier = Some(Barrier::Close);
            }
            return false;
        };
        let line = self.inbox.split_to(end + 1);
        let Some(line) = line.strip_suffix(b"\r\n") else {
            self.violation("command ended by a bare LF");
            self.say("500 5.5.2 bare LF");
            return true;
        };
        let Ok(line) = std::str::from_utf8(line) else {
            self.violation("command is not UTF-8");
            self.say("500 5.5.2 syntax");
            return true;
        };
        if matches!(self.state, State::AuthResponse) {
            self.state = State::Commands;
            let line = line.to_owned();
            self.auth_plain(&line);
            return true;
        }
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let verb = verb.to_ascii_uppercase();
        let rest = rest.to_owned();
        self.check_pipelining(&verb);
        self.command(now, &verb, &rest);
        true
    }

    /// Which commands may stand before others in one packet (RFC 2920 §3.1).
    fn check_pipelining(&mut self, verb: &str) {
        if self.inbox.is_empty() {
            return;
        }
        let groupable = matches!(verb, "RSET" | "MAIL" | "RCPT") || (verb == "BDAT" && self.script.chunking);
        if !groupable && verb != "STARTTLS" {
            self.violation(&format!("octets behind {verb}, which must be the last of a group"));
        } else if !self.script.pipelining && verb != "BDAT" && verb != "STARTTLS" {
            self.violation("pipelining that was not offered");
        }
    }

    fn command(&mut self, now: Duration, verb: &str, rest: &str) {
        if !matches!(self.state, State::Envelope(_) | State::Bdat(..)) {
            self.script = self.provider.script();
        }
        match verb {
            "EHLO" | "HELO" => self.hello(verb == "EHLO", rest),
            "STARTTLS" if self.script.starttls && !self.tls => {
                if self.say_by_rule(Stage::StartTls, "220 2.0.0 go ahead") {
                    self.barrier = Some(Barrier::StartTls);
                }
            }
            "AUTH" if self.script.auth.is_some() => self.auth(rest),
            "MAIL" => self.mail(now, rest),
            "RCPT" => self.rcpt(now, rest),
            "DATA" => self.data_command(),
            "BDAT" if self.script.chunking => self.bdat(now, rest),
            "RSET" => {
                self.end_transaction();
                self.say_by_rule(Stage::Reset, "250 2.0.0 ok");
            }
            "NOOP" => self.say("250 2.0.0 ok"),
            "QUIT" => {
                self.end_transaction();
                if self.say_by_rule(Stage::Quit, "221 2.0.0 bye") {
                    self.barrier = Some(Barrier::Close);
                }
            }
            _ => {
                self.violation(&format!("command that was not offered: {verb}"));
                self.say("500 5.5.1 unknown command");
            }
        }
    }

    fn hello(&mut self, esmtp: bool, name: &str) {
        self.end_transaction();
        if name.trim().is_empty() {
            self.violation("EHLO without a name");
        }
        let script = self.script.clone();
        let mut lines = vec![script.hostname.clone()];
        if esmtp {
            lines.push("ENHANCEDSTATUSCODES".to_owned());
            lines.extend(script.pipelining.then(|| "PIPELINING".to_owned()));
            lines.extend(script.chunking.then(|| "CHUNKING".to_owned()));
            if script.eight_bit {
                lines.extend(["8BITMIME".to_owned(), "SMTPUTF8".to_owned()]);
            }
            lines.extend((script.starttls && !self.tls).then(|| "STARTTLS".to_owned()));
            lines.extend((script.require_tls && self.tls).then(|| "REQUIRETLS".to_owned()));
            lines.extend(script.auth.as_ref().map(|_| "AUTH PLAIN".to_owned()));
            lines.extend(script.message_bytes_max.map(|max| format!("SIZE {max}")));
            lines.extend(script.recipients_max.filter(|_| script.limits).map(|max| format!("LIMITS RCPTMAX={max}")));
            if script.dsn {
                lines.extend(["DSN", "DELIVERBY", "MT-PRIORITY"].map(str::to_owned));
            }
        }
        if self.say_by_rule(Stage::Ehlo, &format!("250 {}", lines.join("\n"))) {
            self.ehlo = Some(name.trim().to_owned());
            self.esmtp = esmtp;
        }
    }

    fn auth(&mut self, rest: &str) {
        match rest.split_once(' ') {
            Some((mechanism, response)) if mechanism.eq_ignore_ascii_case("PLAIN") => self.auth_plain(response),
            None if rest.eq_ignore_ascii_case("PLAIN") => {
                self.state = State::AuthResponse;
                self.say("334 ");
            }
            _ => self.say("504 5.5.4 mechanism"),
        }
    }

    fn auth_plain(&mut self, response: &str) {
        let wanted = self.script.auth.as_ref().map(|(user, password)| format!("\0{user}\0{password}"));
        let given = base64::engine::general_purpose::STANDARD.decode(response.trim()).unwrap_or_default();
        self.authenticated = wanted.is_some_and(|wanted| wanted.as_bytes() == given);
        self.say(if self.authenticated { "235 2.7.0 welcome" } else { "535 5.7.8 wrong credentials" });
    }

    fn mail(&mut self, now: Duration, rest: &str) {
        if self.ehlo.is_none() {
            self.violation("MAIL before EHLO");
            return self.refuse("503 5.5.1 EHLO first");
        }
        if matches!(self.state, State::Envelope(_) | State::Bdat(..)) {
            self.violation("MAIL inside a transaction");
            return self.refuse("503 5.5.1 transaction in progress");
        }
        if self.script.auth.is_some() && !self.authenticated {
            return self.refuse("530 5.7.0 authentication required");
        }
        let Some((reverse_path, parameters)) = path(rest, "FROM:") else {
            self.violation(&format!("MAIL that cannot be read: {rest:?}"));
            return self.refuse("501 5.5.4 syntax");
        };
        let mut eight_bit = false;
        for parameter in parameters.split_ascii_whitespace() {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let offered = self.esmtp
                && match key.to_ascii_uppercase().as_str() {
                    "SIZE" => self.script.message_bytes_max.is_some(),
                    "BODY" | "SMTPUTF8" => {
                        eight_bit |= key.eq_ignore_ascii_case("BODY") && value.eq_ignore_ascii_case("8BITMIME");
                        self.script.eight_bit
                    }
                    "AUTH" => self.script.auth.is_some(),
                    "REQUIRETLS" => self.script.require_tls && self.tls && value.is_empty(),
                    "RET" | "ENVID" | "BY" | "MT-PRIORITY" => self.script.dsn,
                    _ => false,
                };
            if !offered {
                self.violation(&format!("parameter that was not offered: {parameter}"));
                return self.refuse("555 5.5.4 unknown parameter");
            }
            if let (Some(max), Ok(bytes)) = (self.script.message_bytes_max, value.parse::<u64>())
                && key.eq_ignore_ascii_case("SIZE")
                && bytes > max
            {
                return self.refuse("552 5.3.4 too big");
            }
        }
        let (reverse_path, parameters) = (reverse_path.to_owned(), (parameters.trim().to_owned(), Vec::new()));
        if self.script.messages_per_connection_max.is_some_and(|max| self.messages >= max) {
            self.refuse("421 4.7.0 enough for one connection");
            self.barrier = Some(Barrier::Close);
            return;
        }
        let script = self.script.clone();
        if let Some(pace) = script.pace.as_ref().filter(|pace| !self.provider.keeps_pace(now, pace, self.peer.ip())) {
            return self.out_of_pace(pace);
        }
        if self.act(Stage::Mail, &reverse_path, &[], "250 2.1.0 ok") {
            self.provider.opened();
            self.state = State::Envelope(Envelope { reverse_path, parameters, eight_bit, ..Envelope::default() });
        }
    }

    fn rcpt(&mut self, now: Duration, rest: &str) {
        let State::Envelope(mut envelope) = std::mem::replace(&mut self.state, State::Commands) else {
            // Pipelined behind a MAIL that we refused: in order, and answered so.
            return self.refuse("503 5.5.1 no transaction");
        };
        envelope.tried = true;
        match path(rest, "TO:") {
            None => {
                self.violation(&format!("RCPT that cannot be read: {rest:?}"));
                self.refuse("501 5.5.4 syntax");
            }
            Some((_, parameters)) if !self.script.dsn && !parameters.trim().is_empty() => {
                self.violation(&format!("parameter that was not offered: {parameters}"));
                self.refuse("555 5.5.4 unknown parameter");
            }
            Some((recipient, parameters)) => {
                let (recipient, parameters) = (recipient.to_owned(), parameters.trim().to_owned());
                let (from, peer) = (&envelope.reverse_path, self.peer.ip());
                let too_soon =
                    self.script.greylist.is_some_and(|wait| !self.provider.greylist(now, wait, peer, from, &recipient));
                if self.script.recipients_max.is_some_and(|max| envelope.recipients.len() >= max) {
                    self.refuse("452 4.5.3 too many recipients");
                } else if too_soon {
                    self.refuse("450 4.2.0 greylisted, come again");
                } else if self.act(Stage::Rcpt, &envelope.reverse_path, std::slice::from_ref(&recipient), "250 2.1.5 ok") {
                    envelope.recipients.push(recipient);
                    envelope.parameters.1.push(parameters);
                }
            }
        }
        self.state = State::Envelope(envelope);
    }

    fn data_command(&mut self) {
        match std::mem::replace(&mut self.state, State::Commands) {
            State::Envelope(envelope) if !envelope.recipients.is_empty() => {
                if self.act(Stage::Data, &envelope.reverse_path, &envelope.recipients, "354 go ahead") {
                    self.state = State::Data(envelope, Scan::default());
                } else {
                    self.state = State::Envelope(envelope);
                    self.end_transaction();
                }
            }
            State::Envelope(envelope) => {
                if !envelope.tried {
                    self.violation("DATA without RCPT");
                }
                self.state = State::Envelope(envelope);
                self.refuse("554 5.5.1 no valid recipients");
            }
            _ => self.refuse("503 5.5.1 no transaction"),
        }
    }

    fn end_transaction(&mut self) {
        if let State::Envelope(_) | State::Data(..) | State::Bdat(..) = std::mem::replace(&mut self.state, State::Commands) {
            self.provider.ended();
        }
    }

    fn violation(&self, what: &str) {
        self.provider.violated(format!("{}: {what}", self.peer));
    }
}

impl Drop for Session {
    /// A driver that went away (its runtime stopped) leaves no transaction counted as open.
    fn drop(&mut self) {
        self.end_transaction();
        self.provider.disconnected();
    }
}

/// `FROM:<a@b> SIZE=1` → (`a@b`, `SIZE=1`). Strict: no space after the colon (RFC 5321 §3.3).
fn path<'a>(rest: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let (head, rest) = rest.split_at_checked(keyword.len())?;
    let (path, parameters) = rest.strip_prefix('<')?.split_once('>')?;
    let readable = head.eq_ignore_ascii_case(keyword) && (parameters.is_empty() || parameters.starts_with(' '));
    readable.then_some((path, parameters.trim()))
}
