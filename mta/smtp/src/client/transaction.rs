//! One transaction: its commands, what the replies mean for each recipient, and the octets of its message.

use std::io::Write as _;

use bytes::Bytes;
use memchr::{memchr2_iter, memmem};

use super::{Extensions, Fate, Stage, Timeouts, Transaction};
use crate::address::ReversePath;
use crate::envelope::ByMode;
use crate::reply::Reply;

/// Octets of a message in one write: what a slow peer must take within [`Timeouts::data_block`].
const BLOCK_BYTES: usize = 256 << 10;
/// The largest message that is sent behind RCPT without waiting whether anybody wants it.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// A transaction in progress.
pub(super) struct Running {
    transaction: Transaction,
    recipients: Vec<Recipient>,
    /// Whose reply comes next.
    at: Command,
    /// MAIL, every RCPT and DATA or BDAT are sent together.
    pipelined: bool,
    chunked: bool,
    smtputf8: bool,
    body: Option<Body>,
    /// The end of the message may have reached the peer.
    ended: bool,
    /// Not all of what was to be written was: no reply can mean that the message was taken.
    cut_short: bool,
    rset_refused: bool,
    /// So far 2yz to MAIL and RCPT say by their codes that they speak of addresses.
    labelled: bool,
    /// What this transaction has shown of whether replies can be told apart, if anything.
    tells_apart: Option<bool>,
    /// The peer has a transaction open that it has not been told to end.
    open: bool,
    /// How many recipients the peer took before it said that there were too many.
    room_found: Option<usize>,
}

/// What is known of a recipient.
enum Recipient {
    /// RCPT is unanswered.
    Offered,
    /// RCPT was accepted; the message decides.
    Willing,
    Decided(Fate),
}

#[derive(Clone, Copy)]
enum Command {
    Rset,
    Mail,
    /// The recipient of this index.
    Rcpt(usize),
    Data,
    Body,
}

/// What a reply leads to.
pub(super) enum Next {
    /// Wait for the next reply of what was sent.
    Wait,
    /// Send this.
    Send(Vec<u8>),
    /// Send the message, block by block.
    SendBody,
    /// All recipients have their fates.
    Done { usable: bool, needs_rset: bool },
    /// This is no dialogue.
    Broken(String),
}

impl Running {
    /// Prepares a transaction and its first octets; with `chunking` by BDAT, if the peer offers it. `Err`: nothing is to be
    /// sent, these are the fates.
    pub(super) fn begin(
        transaction: Transaction,
        peer: &Extensions,
        chunking: bool,
        needs_rset: bool,
    ) -> Result<(Self, Vec<u8>), Vec<Fate>> {
        if let Some(reply) = local_refusal(&transaction, peer) {
            return Err(vec![Fate::Refused { reply, stage: Stage::Local }; transaction.recipients.len()]);
        }
        let mut room = peer.rcpt_max.unwrap_or(usize::MAX);
        let domains_max = peer.rcpt_domain_max.unwrap_or(usize::MAX);
        let mut domains: Vec<&str> = Vec::new();
        let mut smtputf8 = transaction.smtputf8 || transaction.reverse_path.mailbox().is_some_and(|mailbox| !mailbox.is_ascii());
        let mut recipients = Vec::with_capacity(transaction.recipients.len());
        for super::Recipient { mailbox, .. } in &transaction.recipients {
            recipients.push(if !mailbox.is_ascii() && !peer.smtputf8 {
                Recipient::Decided(Fate::Refused { reply: no_smtputf8(), stage: Stage::Local })
            } else if room == 0 || domains.len() >= domains_max && !domains.contains(&mailbox.domain()) {
                Recipient::Decided(Fate::Untried)
            } else {
                room -= 1;
                if peer.rcpt_domain_max.is_some() && !domains.contains(&mailbox.domain()) {
                    domains.push(mailbox.domain());
                }
                smtputf8 |= !mailbox.is_ascii();
                Recipient::Offered
            });
        }
        let offered = peer.chunking && peer.pipelining && peer.enhanced_status_codes;
        let chunked = chunking && offered && transaction.octets.len() <= CHUNK_BYTES_MAX;
        let at = if needs_rset { Command::Rset } else { Command::Mail };
        let mut running = Self {
            transaction,
            recipients,
            at,
            pipelined: peer.pipelining,
            chunked,
            smtputf8,
            body: None,
            ended: false,
            cut_short: false,
            rset_refused: false,
            labelled: true,
            tells_apart: None,
            open: false,
            room_found: None,
        };
        if running.next_offered(0).is_none() {
            return Err(running.into_fates());
        }
        let mut out = Vec::new();
        if needs_rset {
            out.extend_from_slice(b"RSET\r\n");
        }
        if running.pipelined || !needs_rset {
            running.write_mail(peer, &mut out);
        }
        if running.pipelined {
            running.write_rest(peer, &mut out);
        }
        Ok((running, out))
    }

    /// Octets of the message at the end of what [`begin`](Self::begin) gave.
    pub(super) fn bytes_sent_at_once(&self) -> usize {
        if self.chunked { self.message_bytes() } else { 0 }
    }

    /// Octets of the message.
    pub(super) fn message_bytes(&self) -> usize {
        self.transaction.octets.len()
    }

    pub(super) fn within(&self, timeouts: &Timeouts) -> std::time::Duration {
        match self.at {
            Command::Rset | Command::Mail => timeouts.mail,
            Command::Rcpt(_) => timeouts.rcpt,
            Command::Data => timeouts.data,
            Command::Body => timeouts.data_done,
        }
    }

    /// The next octets of the message, while it is being sent.
    pub(super) fn next_block(&mut self) -> Option<Bytes> {
        let body = self.body.as_mut()?;
        let block = body.next_block();
        if body.done {
            self.body = None;
            self.ended = true;
        }
        Some(block)
    }

    /// A reply to the command at which we are.
    pub(super) fn handle_reply(&mut self, reply: Reply, peer: &Extensions) -> Next {
        let stage = self.stage();
        if reply.code() == 421 {
            self.decide_all(&Fate::Refused { reply, stage });
            return Next::Done { usable: false, needs_rset: false };
        }
        if reply.is_intermediate() != (matches!(self.at, Command::Data) && !reply.is_transient() && !reply.is_permanent()) {
            return Next::Broken(format!("unexpected reply to {stage}: {reply}"));
        }
        let refused = !reply.is_positive() && !reply.is_intermediate();
        if matches!(self.at, Command::Mail | Command::Rcpt(_)) && !refused {
            // One without a code shows nothing, but it is no reply to a message either.
            self.labelled &= is_about_an_address(&reply) || self.chunked && reply.enhanced().is_none();
        }
        match self.at {
            // That says nothing of this message: with MAIL it begins anew over another connection.
            Command::Rset if refused && !self.pipelined => Next::Broken(format!("RSET refused: {reply}")),
            Command::Mail if refused && self.rset_refused => Next::Broken(format!("MAIL refused after RSET was: {reply}")),
            Command::Rset => {
                self.rset_refused = refused;
                self.at = Command::Mail;
                let mut out = Vec::new();
                if !self.pipelined {
                    self.write_mail(peer, &mut out);
                }
                self.send(out)
            }
            Command::Mail => {
                self.open = !refused;
                if refused {
                    self.decide_all(&Fate::Refused { reply, stage });
                    if !self.pipelined {
                        return self.done();
                    }
                }
                self.go_to_rcpt(0, peer)
            }
            Command::Rcpt(index) => {
                let willing = self.recipients.iter().filter(|recipient| matches!(recipient, Recipient::Willing)).count();
                if let Some(recipient @ Recipient::Offered) = self.recipients.get_mut(index) {
                    *recipient = match refused {
                        false => Recipient::Willing,
                        true if willing > 0 && is_one_too_many(&reply) => {
                            self.room_found.get_or_insert(willing);
                            Recipient::Decided(Fate::Untried)
                        }
                        true => Recipient::Decided(Fate::Refused { reply, stage }),
                    };
                }
                self.go_to_rcpt(index + 1, peer)
            }
            Command::Data if refused => {
                self.decide_all(&Fate::Refused { reply, stage });
                self.done()
            }
            Command::Data => {
                self.at = Command::Body;
                if self.anybody_willing() {
                    self.body = Some(Body::new(self.transaction.octets.clone()));
                    return Next::SendBody;
                }
                // RFC 2920 §3.1: 354 although nobody is to have it. An empty message; its reply does not matter.
                Next::Send(b".\r\n".to_vec())
            }
            Command::Body if self.cut_short && !refused => Next::Broken(format!("accepted before it was sent: {reply}")),
            Command::Body if !refused => {
                let tells_apart = self.labelled && reply.enhanced().is_some() && !is_about_an_address(&reply);
                self.tells_apart = Some(tells_apart);
                // This may be the reply to RCPT, which comes late because an earlier one was said twice.
                if self.chunked && !tells_apart {
                    return Next::Broken(format!("replies cannot be told apart any more: {reply}"));
                }
                self.open = false;
                self.decide_all(&Fate::Accepted(reply));
                self.done()
            }
            Command::Body => {
                // RFC 3030 §2: a refused BDAT leaves the transaction open. After DATA it has ended either way.
                self.open = self.chunked;
                self.decide_all(&Fate::Refused { reply, stage });
                self.done()
            }
        }
    }

    /// A write failed: nothing more is sent.
    pub(super) fn cut_short(&mut self) {
        self.body = None;
        self.cut_short = true;
    }

    /// The dialogue has broken off.
    pub(super) fn handle_broken(mut self, reason: &str) -> Vec<Fate> {
        let stage = if self.ended { Stage::Body } else { self.stage() };
        self.decide_all(&Fate::Broken { stage, reason: reason.to_owned() });
        self.into_fates()
    }

    /// How many recipients the peer takes, if it has said that there were too many.
    pub(super) fn room_found(&self) -> Option<usize> {
        self.room_found
    }

    /// Whether the reply to the message differs from those to addresses, if the transaction has shown it.
    pub(super) fn tells_apart(&self) -> Option<bool> {
        self.tells_apart
    }

    pub(super) fn into_fates(self) -> Vec<Fate> {
        let fate = |recipient| match recipient {
            Recipient::Decided(fate) => fate,
            Recipient::Offered | Recipient::Willing => Fate::Untried,
        };
        self.recipients.into_iter().map(fate).collect()
    }

    fn stage(&self) -> Stage {
        match self.at {
            Command::Rset | Command::Mail => Stage::Mail,
            Command::Rcpt(_) => Stage::Rcpt,
            Command::Data => Stage::Data,
            Command::Body if !self.ended => Stage::Data,
            Command::Body => Stage::Body,
        }
    }

    fn done(&self) -> Next {
        Next::Done { usable: true, needs_rset: self.open }
    }

    fn send(&self, out: Vec<u8>) -> Next {
        if out.is_empty() { Next::Wait } else { Next::Send(out) }
    }

    fn go_to_rcpt(&mut self, from: usize, peer: &Extensions) -> Next {
        let mut out = Vec::new();
        // When pipelined each RCPT that was sent is answered, also those that MAIL's refusal has decided.
        let next = if self.pipelined { self.next_sent(from) } else { self.next_offered(from) };
        if let Some(index) = next {
            self.at = Command::Rcpt(index);
            if !self.pipelined {
                self.write_rcpt(index, peer, &mut out);
            }
        } else if !self.pipelined && !self.anybody_willing() {
            return self.done();
        } else if self.chunked {
            self.at = Command::Body;
        } else {
            self.at = Command::Data;
            if !self.pipelined {
                out.extend_from_slice(b"DATA\r\n");
            }
        }
        self.send(out)
    }

    /// The fate of each that has none.
    fn decide_all(&mut self, fate: &Fate) {
        for recipient in &mut self.recipients {
            if !matches!(recipient, Recipient::Decided(_)) {
                *recipient = Recipient::Decided(fate.clone());
            }
        }
    }

    fn anybody_willing(&self) -> bool {
        self.recipients.iter().any(|recipient| matches!(recipient, Recipient::Willing))
    }

    fn next_offered(&self, from: usize) -> Option<usize> {
        let mut rest = self.recipients.iter().enumerate().skip(from);
        rest.find(|(_, recipient)| matches!(recipient, Recipient::Offered)).map(|(index, _)| index)
    }

    fn next_sent(&self, from: usize) -> Option<usize> {
        // What is decided before its turn was not sent; only MAIL's refusal decides what was.
        let unsent = |fate: &Fate| matches!(fate, Fate::Untried | Fate::Refused { stage: Stage::Local, .. });
        let mut rest = self.recipients.iter().enumerate().skip(from);
        rest.find(|(_, recipient)| !matches!(recipient, Recipient::Decided(fate) if unsent(fate))).map(|(index, _)| index)
    }

    fn write_mail(&self, peer: &Extensions, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail, here and below.
        let _ = write!(out, "MAIL FROM:{}", self.transaction.reverse_path);
        if peer.size {
            let _ = write!(out, " SIZE={}", self.transaction.octets.len());
        }
        if self.transaction.eight_bit {
            out.extend_from_slice(b" BODY=8BITMIME");
        }
        if self.smtputf8 {
            out.extend_from_slice(b" SMTPUTF8");
        }
        let super::Parameters { ret, envid, deliver_by, priority, require_tls } = &self.transaction.parameters;
        if let Some(ret) = ret.filter(|_| peer.dsn) {
            let _ = write!(out, " RET={}", ret.as_str());
        }
        if let Some(envid) = envid.as_ref().filter(|_| peer.dsn) {
            let _ = write!(out, " ENVID={envid}");
        }
        // With R and less time than the peer's least it would refuse the message; our own deadline still holds.
        let heard =
            |by: &crate::envelope::DeliverBy| by.mode == ByMode::Notify || by.secs >= i64::from(peer.deliver_by_min.max(1));
        if let Some(by) = deliver_by.filter(|by| peer.deliver_by && heard(by)) {
            let _ = write!(out, " BY={by}");
        }
        if let Some(priority) = priority.filter(|_| peer.mt_priority) {
            let _ = write!(out, " MT-PRIORITY={priority}");
        }
        if *require_tls {
            out.extend_from_slice(b" REQUIRETLS");
        }
        out.extend_from_slice(b"\r\n");
    }

    fn write_rcpt(&self, index: usize, peer: &Extensions, out: &mut Vec<u8>) {
        let super::Recipient { mailbox, notify, orcpt } = &self.transaction.recipients[index];
        let _ = write!(out, "RCPT TO:<{mailbox}>");
        if let Some(notify) = notify.filter(|_| peer.dsn) {
            let _ = write!(out, " NOTIFY={notify}");
        }
        if let Some(orcpt) = orcpt.as_ref().filter(|_| peer.dsn) {
            let _ = write!(out, " ORCPT={orcpt}");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// What follows a pipelined MAIL.
    fn write_rest(&mut self, peer: &Extensions, out: &mut Vec<u8>) {
        let mut next = self.next_offered(0);
        while let Some(index) = next {
            self.write_rcpt(index, peer, out);
            next = self.next_offered(index + 1);
        }
        if self.chunked {
            let octets = &self.transaction.octets;
            let _ = write!(out, "BDAT {} LAST\r\n", octets.len());
            out.extend_from_slice(octets);
            self.ended = true;
        } else {
            out.extend_from_slice(b"DATA\r\n");
        }
    }
}

/// A message on its way by DATA: dots stuffed (RFC 5321 §4.5.2), in blocks.
struct Body {
    octets: Bytes,
    line_start: bool,
    done: bool,
}

impl Body {
    fn new(octets: Bytes) -> Self {
        Self { octets, line_start: true, done: false }
    }

    fn next_block(&mut self) -> Bytes {
        let octets = self.octets.split_to(self.octets.len().min(BLOCK_BYTES));
        let mut block = Vec::with_capacity(octets.len() + octets.len() / 64 + 8);
        if self.line_start && octets.first() == Some(&b'.') {
            block.push(b'.');
        }
        let mut copied = 0;
        for end in memmem::find_iter(&octets, b"\n.") {
            block.extend_from_slice(&octets[copied..=end]);
            block.push(b'.');
            copied = end + 1;
        }
        block.extend_from_slice(&octets[copied..]);
        self.line_start = octets.last().map_or(self.line_start, |&octet| octet == b'\n');
        if self.octets.is_empty() {
            block.extend_from_slice(if self.line_start { b".\r\n" } else { b"\r\n.\r\n" });
            self.done = true;
        }
        block.into()
    }
}

/// Why a message cannot be sent to this peer as it is. Only the sender could change it.
fn local_refusal(transaction: &Transaction, peer: &Extensions) -> Option<Reply> {
    let reverse_path_ascii = !matches!(&transaction.reverse_path, ReversePath::Mailbox(mailbox) if !mailbox.is_ascii());
    let bytes = transaction.octets.len() as u64;
    if transaction.parameters.require_tls && !peer.require_tls {
        // RFC 8689 §4.2.1; the driver has tried other hosts before it comes to this.
        Some(Reply::new(550, (5, 7, 30), "Message needs REQUIRETLS, which the peer does not offer"))
    } else if peer.size_max.is_some_and(|size_max| bytes > size_max) {
        let text = format!("Message of {bytes} octets is larger than the {} that the peer takes", peer.size_max.unwrap_or(0));
        Some(Reply::new(552, (5, 3, 4), text))
    } else if (transaction.smtputf8 || !reverse_path_ascii) && !peer.smtputf8 {
        Some(no_smtputf8())
    } else if transaction.eight_bit && !peer.eight_bit_mime {
        // Converting it would break its signatures (RFC 6152 §3 leaves the choice).
        Some(Reply::new(554, (5, 6, 3), "Message needs 8BITMIME, which the peer does not offer"))
    } else if has_bare_cr_or_lf(&transaction.octets) {
        // Our own doing, and the way to smuggle mail through us; never let it out.
        Some(Reply::new(554, (5, 6, 0), "Message has a bare CR or LF"))
    } else {
        None
    }
}

/// RFC 3463 §3.2: the subject is an address. So MAIL and RCPT are answered where codes are used with care (RFC 2034 §4), and
/// never a message.
fn is_about_an_address(reply: &Reply) -> bool {
    reply.enhanced().is_some_and(|code| code.1 == 1)
}

/// RFC 5321 §4.5.3.1.10: 452, by which old peers also mean 552, says that the others are to come in another
/// transaction. With an enhanced code of its own it says something else, such as 4.2.2 of a full mailbox.
fn is_one_too_many(reply: &Reply) -> bool {
    let count = reply.enhanced().is_none_or(|enhanced| (enhanced.1, enhanced.2) == (5, 3));
    count && matches!((reply.code(), reply.enhanced()), (452, _) | (552, Some(_)))
}

fn no_smtputf8() -> Reply {
    Reply::new(550, (5, 6, 7), "Message needs SMTPUTF8, which the peer does not offer")
}

fn has_bare_cr_or_lf(octets: &[u8]) -> bool {
    let mut last_cr = None;
    for at in memchr2_iter(b'\r', b'\n', octets) {
        if octets[at] == b'\r' {
            if last_cr.is_some() {
                return true;
            }
            last_cr = Some(at);
        } else if last_cr.take().map(|cr| cr + 1) != Some(at) {
            return true;
        }
    }
    last_cr.is_some()
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;
