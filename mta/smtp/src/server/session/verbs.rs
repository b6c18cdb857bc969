//! What each command does, what each answer leads to, and the end of a message.

use std::sync::Arc;

use super::{Chunk, Pending, Session, State, Transaction};
use crate::reply::Reply;
use crate::server::command::{self, AUTH_LINE_MAX, COMMAND_LINE_MAX, Verb};
use crate::server::data::{Fault, Receiver};
use crate::server::{Ask, Auth, Envelope, Greeted, auth};

/// A BDAT of fewer octets counts as an idle command, so that a peer cannot feed us crumbs for ever.
const CHUNK_BYTES_MIN: u64 = 4096;

impl Session {
    /// Where AUTH is possible its initial response may come with it (RFC 4954 §4).
    pub(super) fn command_line_max(&self) -> usize {
        let auth = self.settings.auth == Auth::Required && self.tls && !self.authenticated;
        if auth { AUTH_LINE_MAX } else { COMMAND_LINE_MAX }
    }

    pub(super) fn command_line(&mut self, line: &[u8], open: Option<Box<Transaction>>) -> State {
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

    /// What MAIL and RCPT may declare. DELIVERBY promises notices, so it goes with DSN; FUTURERELEASE is for
    /// submission by those who have said who they are (RFC 4865 §3), which MAIL sees to.
    fn offered(&self) -> command::Offered<'_> {
        let settings = &self.settings;
        let auth = settings.auth == Auth::Required;
        let hold = self.now.filter(|_| auth && self.tls && !settings.hold_max.is_zero());
        command::Offered {
            hostname: &settings.hostname,
            bytes_max: settings.limits.message_bytes_max,
            auth,
            dsn: settings.dsn,
            deliver_by: settings.deliver_by.filter(|_| settings.dsn),
            hold: hold.map(|now| command::Hold { now, max: settings.hold_max }).filter(|hold| hold.latest().is_some()),
            mt_priority: settings.mt_priority,
            // RFC 8689 §2: inside TLS only.
            require_tls: settings.require_tls && self.tls,
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
            let offered = self.offered();
            if offered.dsn {
                reply = reply.line("DSN");
            }
            match offered.deliver_by {
                Some(0) => reply = reply.line("DELIVERBY"),
                Some(least) => reply = reply.line(format!("DELIVERBY {least}")),
                None => {}
            }
            if let Some(announced) = offered.hold.and_then(command::Hold::announced) {
                reply = reply.line(format!("FUTURERELEASE {announced}"));
            }
            if offered.mt_priority {
                reply = reply.line("MT-PRIORITY");
            }
            if offered.require_tls {
                reply = reply.line("REQUIRETLS");
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

    pub(super) fn auth_goes_on(&mut self, next: auth::Next) -> State {
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
                match command::mail(argument, &self.offered()) {
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
        match command::rcpt(argument, transaction.envelope.parameters.smtputf8, &self.offered()) {
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

    pub(super) fn chunk_goes_on(&mut self, mut chunk: Chunk) -> State {
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

    pub(super) fn message_ended(&mut self, transaction: Transaction, receiver: Receiver) -> State {
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

    pub(super) fn accepted(&mut self, pending: Pending, reply: Option<Reply>) -> State {
        let (usual, state) = match pending {
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
        self.say(&reply.unwrap_or(usual));
        state
    }

    pub(super) fn refused_by_policy(&mut self, pending: Pending, reply: Reply) -> State {
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
