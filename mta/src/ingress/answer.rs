//! The answers to a session's questions: policy for who and from where, then signatures, then the queue.
//!
//! A `250` to the end of data is given when the commit is done and never before.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use scheduler::Lane;
use smtp::Secret;
use smtp::address::ReversePath;
use smtp::envelope::{self, ByMode};
use smtp::reply::Reply;
use smtp::server::{Answer, Body, Envelope, MailParameters, RcptParameters};

use super::{BODY_BYTES_MAX, Shared, spend};
use crate::config::Role;
use crate::control::metrics as names;
use crate::policy::class::{self, Classified, Lifetimes};
use crate::policy::throttle::Penalty;
use crate::policy::{Class, Sender, admit};
use crate::queue::{Admission, DeliverBy, NewMessage, NewRecipient, Parameters, QueueError, TlsWish};
use crate::sign::prepare::PrepareError;
use crate::sign::{self, SignError, Trace, header::Header};

/// What a message without a declared size is counted as until it is here.
const UNDECLARED_BYTES: usize = 64 << 10;

fn lane(class: Class) -> Lane {
    match class {
        Class::Otp => Lane::Otp,
        Class::Transactional => Lane::Transactional,
        Class::Notice => Lane::Notice,
    }
}

/// What one session has told us so far.
pub struct Submission {
    shared: Arc<Shared>,
    role: Role,
    on_behalf_of: Option<String>,
    peer: IpAddr,
    sender: Option<Sender>,
    reserved: usize,
    /// Of the transaction: what SIZE declared, and recipients so far.
    declared: u64,
    recipients: usize,
}

impl Submission {
    /// A session from `peer`; `on_behalf_of` is the member of a relay listener.
    pub fn new(shared: Arc<Shared>, role: Role, on_behalf_of: Option<String>, peer: IpAddr) -> Self {
        Submission { shared, role, on_behalf_of, peer, sender: None, reserved: 0, declared: 0, recipients: 0 }
    }

    /// AUTH. A failure is answered late, and at last with 421.
    pub async fn authenticate(&mut self, username: &str, password: &Secret) -> Answer {
        let now = self.shared.clock.now();
        if let Some(reply) = self.shared.throttle.if_any(|throttle| throttle.refuses(now, self.peer)) {
            return Answer::RefuseAndClose(reply);
        }
        let directory = self.shared.directory.load_full();
        match admit::authenticate(&directory, &self.shared.credential_key, username, password.expose()) {
            Ok(sender) => {
                self.shared.throttle.if_any(|throttle| {
                    throttle.handle_success(username);
                    Some(())
                });
                self.sender = Some(sender);
                Answer::Accept
            }
            Err(reply) => {
                tracing::info!(peer = %self.peer, "authentication failed");
                match self.shared.throttle.note(|throttle| throttle.handle_failure(now, self.peer, username)) {
                    Penalty::Delay(delay) => {
                        tokio::time::sleep(delay).await;
                        Answer::Refuse(reply)
                    }
                    Penalty::Close(delay, reply) => {
                        tokio::time::sleep(delay).await;
                        Answer::RefuseAndClose(reply)
                    }
                }
            }
        }
    }

    /// MAIL: may this member send, from this reverse-path, and is there room?
    pub fn mail(&mut self, path: &ReversePath, parameters: &MailParameters) -> Answer {
        self.release_body();
        let now = self.shared.clock.now();
        let directory = self.shared.directory.load();
        if let (Role::Relay, Some(did)) = (self.role, &self.on_behalf_of) {
            match admit::on_behalf_of(&directory, did) {
                Ok(sender) => self.sender = Some(sender),
                Err(reply) => return self.refuse(reply),
            }
        }
        let Some(sender) = &self.sender else {
            return Answer::Refuse(Reply::new(530, (5, 7, 0), "authentication required"));
        };
        if let Err(reply) = admit::may_send(&directory, sender, now).and_then(|()| admit::reverse_path(sender, path)) {
            return self.refuse(reply);
        }
        let granted = parameters.priority.map(|wanted| class::granted_priority(sender, wanted));
        (self.declared, self.recipients) = (parameters.size.unwrap_or(0), 0);
        if let Err(reply) = spend::look(&self.shared, sender, 1, self.declared) {
            return self.refuse(reply);
        }
        let bytes = parameters.size.map_or(UNDECLARED_BYTES, |size| usize::try_from(size).unwrap_or(usize::MAX));
        if !self.reserve(bytes) {
            return self.refuse(Reply::new(452, (4, 3, 1), "too much mail is being received at once; try again in a moment"));
        }
        match granted {
            Some(granted) if parameters.priority.is_some_and(|wanted| granted < wanted) => {
                // RFC 6710 §4.1 with X.3.6 of RFC 3463's registry: accepted, but not as urgent as it was asked.
                Answer::AcceptWith(Reply::new(250, (2, 3, 6), format!("{granted} is the highest priority of this credential")))
            }
            _ => Answer::Accept,
        }
    }

    /// RCPT: may this member send to one more?
    pub fn recipient(&mut self) -> Answer {
        let Some(sender) = &self.sender else {
            return Answer::Refuse(Reply::new(530, (5, 7, 0), "authentication required"));
        };
        match spend::look(&self.shared, sender, self.recipients + 1, self.declared) {
            Ok(()) => {
                self.recipients += 1;
                Answer::Accept
            }
            Err(reply) => self.refuse(reply),
        }
    }

    /// The end of data: checks From, adds what an MSA adds, signs, commits.
    pub async fn message(&mut self, envelope: Envelope, octets: Bytes) -> Answer {
        let answer = match self.accept(envelope, octets).await {
            Ok(reply) => Answer::AcceptWith(reply),
            Err(reply) => self.refuse(reply),
        };
        self.release_body();
        answer
    }

    async fn accept(&mut self, envelope: Envelope, octets: Bytes) -> Result<Reply, Reply> {
        let now = self.shared.clock.now();
        let sender = self.sender.clone().ok_or_else(|| Reply::new(530, (5, 7, 0), "authentication required"))?;
        let header = Header::parse(&octets).map_err(|error| Reply::new(550, (5, 6, 0), error.to_string()))?;
        let domain = admit::header_from(&sender, &header)?;
        let declared = &envelope.parameters;
        let mut parameters = Parameters {
            ret: declared.ret,
            envid: declared.envid.clone(),
            // Many clients declare it always. Asked of the next host for nothing, it would make hosts without it unreachable; whether
            // the addresses need it is seen when they are sent.
            smtputf8: declared.smtputf8 && !octets[..header.body_at()].is_ascii(),
            priority: declared.priority.map(|priority| class::granted_priority(&sender, priority)),
            tls: tls_wish(declared, &header),
            ..Parameters::default()
        };
        let fingerprint =
            spend::fingerprint(&self.shared, &sender, &envelope, parameters.envid.as_deref(), &header, &octets).await;
        if let Some(id) = fingerprint.and_then(|fingerprint| self.shared.queue.recent().find(fingerprint, now)) {
            return Ok(spend::note_duplicate(&self.shared, &sender, id));
        }
        // Given back on every way out of here but the last.
        let spent = spend::take(&self.shared, &sender, envelope.recipients.len(), octets.len())?;
        let Classified { class, doubt } = class::classify(&sender, &header, declared.priority);
        if let Some(doubt) = doubt {
            metrics::counter!(names::CLASS_DOUBTED, "reason" => doubt.reason()).increment(1);
            tracing::warn!(member = sender.member.did, %class, reason = doubt.reason(), "a message has another class than it claims");
        }
        let times = Times::of(&self.shared.lifetimes, class, now, declared.hold_until, declared.deliver_by);
        parameters.deliver_by = times.deliver_by;
        let id = self.shared.queue.next_id(now);
        let only_recipient = match envelope.recipients.as_slice() {
            [(mailbox, _)] => Some(mailbox.to_string()),
            _ => None,
        };
        let trace = Trace {
            hostname: &self.shared.hostname,
            ehlo: &envelope.greeted.name,
            with: envelope.with_protocol(),
            id: &id.to_string(),
            only_recipient: only_recipient.as_deref(),
            domain: &domain,
            did: Some(&sender.member.did),
            class: class.as_str(),
            now,
        };
        let prepared = sign::prepare::prepare(&header, &trace).map_err(|error| match error {
            PrepareError::Malformed(_) => Reply::new(550, (5, 6, 0), error.to_string()),
            PrepareError::Loop(_) => Reply::new(554, (5, 4, 6), error.to_string()),
        })?;
        // Some clients send octets above 127 without saying so; the next host must hear of it.
        parameters.eight_bit = declared.body == Body::EightBitMime || !octets.is_ascii();
        let job = sign::Job { urgent: class == Class::Otp, message: prepared, domain: Some(domain), now };
        let expected = self.shared.queue.expect();
        let signed = self.shared.signers.sign(job).await.map_err(|error| sign_trouble(&error))?;
        drop(expected);
        if signed.member_unsigned {
            self.shared.count.unsigned.increment(1);
        }
        let message = NewMessage {
            id: Some(id),
            member: sender.member.id,
            credential: spend::credential(&sender),
            admission: Some(Admission {
                day: spent.day(),
                recipients: u32::try_from(envelope.recipients.len()).unwrap_or(u32::MAX),
                fingerprint,
            }),
            reverse_path: envelope.reverse_path,
            parameters,
            lane: lane(class),
            received_at: now,
            due: times.due,
            delay_notice_at: times.delay_notice_at,
            deadline: times.deadline,
            recipients: envelope
                .recipients
                .into_iter()
                .map(|(mailbox, RcptParameters { notify, orcpt })| NewRecipient { mailbox, notify, orcpt })
                .collect(),
            octets: vec![signed.head, signed.rest],
        };
        let queued = self.shared.queue.enqueue(message).await.map_err(|error| queue_trouble(&error))?;
        if queued != id {
            // The first was on its way to the disk when this one came.
            return Ok(spend::note_duplicate(&self.shared, &sender, queued));
        }
        spent.keep();
        self.shared.count.accepted.increment(1);
        self.shared.count.accept_seconds.record(elapsed(now, self.shared.clock.now()));
        Ok(Reply::new(250, (2, 0, 0), format!("queued as {id}")))
    }

    fn refuse(&self, reply: Reply) -> Answer {
        let member = self.sender.as_ref().map_or("-", |sender| sender.member.did.as_str());
        tracing::info!(peer = %self.peer, member, reply = %reply, "refused");
        let status =
            reply.enhanced().map_or_else(|| reply.code().to_string(), |code| format!("{}.{}.{}", code.0, code.1, code.2));
        metrics::counter!(names::REFUSED, "status" => status).increment(1);
        Answer::Refuse(reply)
    }

    fn reserve(&mut self, bytes: usize) -> bool {
        let before = self.shared.body_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.reserved += bytes;
        // A single message always fits, or one larger than the bound could never be sent.
        if before > 0 && before.saturating_add(bytes) > BODY_BYTES_MAX {
            self.release_body();
            return false;
        }
        true
    }

    fn release_body(&mut self) {
        self.shared.body_bytes.fetch_sub(std::mem::take(&mut self.reserved), Ordering::Relaxed);
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        self.release_body();
    }
}

/// When what happens to a message, if it is not delivered before.
struct Times {
    due: SystemTime,
    delay_notice_at: Option<SystemTime>,
    deadline: SystemTime,
    deliver_by: Option<DeliverBy>,
}

impl Times {
    /// All of it counts from the release of a held message (RFC 4865). BY shortens what the class gives and never
    /// lengthens it: with R the message fails then, with N the sender is told then that it is late (RFC 2852 §4).
    fn of(
        lifetimes: &Lifetimes,
        class: Class,
        now: SystemTime,
        hold_until: Option<SystemTime>,
        by: Option<envelope::DeliverBy>,
    ) -> Self {
        let due = hold_until.map_or(now, |until| until.max(now));
        let (mut delay_notice_at, mut deadline) = lifetimes.of(class, due);
        let deliver_by = by.map(|by| {
            let secs = Duration::from_secs(by.secs.unsigned_abs());
            let at = if by.secs < 0 { due.checked_sub(secs) } else { due.checked_add(secs) }.unwrap_or(due);
            match by.mode {
                ByMode::Return => deadline = deadline.min(at),
                // Somebody before us has told the sender of a time that has passed.
                ByMode::Notify if by.secs <= 0 => {}
                ByMode::Notify => delay_notice_at = Some(delay_notice_at.map_or(at, |late| late.min(at))),
            }
            DeliverBy { at, mode: by.mode, trace: by.trace }
        });
        Times { due, delay_notice_at: delay_notice_at.filter(|late| *late < deadline), deadline, deliver_by }
    }
}

/// REQUIRETLS outweighs the field (RFC 8689 §4.1). One that stands there twice, or says something else, says nothing.
fn tls_wish(declared: &MailParameters, header: &Header) -> TlsWish {
    let mut fields = header.named("TLS-Required");
    match (declared.require_tls, fields.next(), fields.next()) {
        (true, _, _) => TlsWish::Required,
        (false, Some(field), None) if field.value.trim_ascii().eq_ignore_ascii_case(b"No") => TlsWish::Waived,
        (false, _, _) => TlsWish::Policy,
    }
}

fn elapsed(from: SystemTime, to: SystemTime) -> f64 {
    to.duration_since(from).unwrap_or_default().as_secs_f64()
}

fn sign_trouble(error: &SignError) -> Reply {
    tracing::error!(%error, "a message could not be signed");
    match error {
        SignError::NoKey(domain) => {
            Reply::new(451, (4, 3, 5), format!("{domain} has no DKIM key here yet; the operator has been told"))
        }
        SignError::Stopped => Reply::new(421, (4, 3, 2), "shutting down; try again later"),
        SignError::Key(_) | SignError::Malformed(_) => {
            Reply::new(451, (4, 3, 5), "the message could not be signed; the operator has been told")
        }
    }
}

fn queue_trouble(error: &QueueError) -> Reply {
    match error {
        QueueError::Full(_) => {
            tracing::warn!(%error, "refused a message");
            Reply::new(452, (4, 3, 1), "the queue is full; try again later")
        }
        QueueError::Stopped => Reply::new(421, (4, 3, 2), "shutting down; try again later"),
        QueueError::Invalid(reason) => Reply::new(554, (5, 6, 0), (*reason).to_owned()),
        _ => {
            tracing::error!(%error, "a message could not be queued");
            Reply::new(451, (4, 3, 0), "the message could not be written to disk; try again later")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::class::Lifetime;

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    /// (due, delay_notice_at, deadline) of a message that comes at 1000 and whose class gives it 100 and 900.
    fn times(hold_until: Option<u64>, by: Option<&str>) -> (SystemTime, Option<SystemTime>, SystemTime) {
        let life = Lifetime { lifetime: Duration::from_secs(900), delay_notice_after: Duration::from_secs(100) };
        let by = by.map(|by| envelope::DeliverBy::parse(by).unwrap());
        let times = Times::of(&Lifetimes([life; 3]), Class::Otp, at(1000), hold_until.map(at), by);
        assert_eq!(times.deliver_by.map(|by| by.mode), by.map(|by| by.mode));
        (times.due, times.delay_notice_at, times.deadline)
    }

    #[test]
    fn the_sender_says_what_tls_is_worth_to_it() {
        for (require_tls, fields, wish) in [
            (false, "", TlsWish::Policy),
            (true, "", TlsWish::Required),
            (false, "TLS-Required: No\r\n", TlsWish::Waived),
            (false, "tls-required:no \r\n", TlsWish::Waived),
            (true, "TLS-Required: No\r\n", TlsWish::Required),
            (false, "TLS-Required: Yes\r\n", TlsWish::Policy),
            (false, "TLS-Required: No\r\nTLS-Required: No\r\n", TlsWish::Policy),
        ] {
            let header = Header::parse(&Bytes::from(format!("From: a@b\r\n{fields}\r\n"))).unwrap();
            let declared = MailParameters { require_tls, ..Default::default() };
            assert_eq!(tls_wish(&declared, &header), wish, "{require_tls} {fields:?}");
        }
    }

    #[test]
    fn a_held_message_lives_from_its_release_on() {
        assert_eq!(times(None, None), (at(1000), Some(at(1100)), at(1900)));
        assert_eq!(times(Some(5000), None), (at(5000), Some(at(5100)), at(5900)));
        assert_eq!(times(Some(10), None), (at(1000), Some(at(1100)), at(1900)), "a time that has passed");
        assert_eq!(times(Some(5000), Some("60;R")).2, at(5060));
    }

    #[test]
    fn by_shortens_what_the_class_gives_and_never_lengthens_it() {
        assert_eq!(times(None, Some("60;R")), (at(1000), None, at(1060)), "nobody is told late of what has failed by then");
        assert_eq!(times(None, Some("300;R")), (at(1000), Some(at(1100)), at(1300)));
        assert_eq!(times(None, Some("9000;R")), (at(1000), Some(at(1100)), at(1900)));
        assert_eq!(times(None, Some("60;N")), (at(1000), Some(at(1060)), at(1900)));
        assert_eq!(times(None, Some("300;N")), (at(1000), Some(at(1100)), at(1900)));
        assert_eq!(times(None, Some("-60;N")), (at(1000), Some(at(1100)), at(1900)), "somebody has told of it");
        assert_eq!(times(None, Some("-999999999;N")).0, at(1000));
    }
}
