//! What the script says at a stage, done.

use bytes::BytesMut;

use super::{Barrier, Session};
use crate::sink::script::{Act, Pace, Stage};

impl Session {
    /// Does what the rules say at this stage; true when the usual reply was given.
    pub(super) fn say_by_rule(&mut self, stage: Stage, usual: &str) -> bool {
        self.act(stage, "", &[], usual)
    }

    pub(super) fn act(&mut self, stage: Stage, reverse_path: &str, recipients: &[String], usual: &str) -> bool {
        let act = self.provider.act(&self.script, stage, self.peer.ip(), reverse_path, recipients);
        self.perform(act, usual)
    }

    pub(super) fn perform(&mut self, act: Option<Act>, usual: &str) -> bool {
        match act {
            None => {
                self.say(usual);
                return true;
            }
            Some(Act::Delay(delay)) => {
                say_into(&mut self.held, usual);
                self.barrier = Some(Barrier::Wait(delay));
                return true;
            }
            Some(Act::Drip(pause)) => {
                say_into(&mut self.held, usual);
                self.barrier = Some(Barrier::Drip(pause, false));
                return true;
            }
            Some(Act::Retort(retort)) => {
                self.say(usual);
                self.barrier = Some(Barrier::Retort(retort.into()));
            }
            Some(Act::Reply(text)) => self.refuse(&text),
            Some(Act::ReplyAndClose(text)) => {
                self.end_transaction();
                self.refuse(&text);
                self.barrier = Some(Barrier::Close);
            }
            Some(Act::Close | Act::LoseReply) => {
                self.end_transaction();
                self.barrier = Some(Barrier::Close);
            }
            Some(Act::Hang | Act::TakeAndHang) => self.barrier = Some(Barrier::Hang),
        }
        false
    }

    pub(super) fn refuse(&mut self, text: &str) {
        if !text.starts_with('2') {
            self.provider.refused();
        }
        self.say(&text.replace("{ip}", &self.peer.ip().to_string()));
    }

    pub(super) fn say(&mut self, text: &str) {
        say_into(&mut self.outbox, text);
    }

    /// MAIL came too soon after others from this address.
    pub(super) fn out_of_pace(&mut self, pace: &Pace) {
        self.end_transaction();
        self.refuse(&pace.reply);
        if pace.reply.starts_with("421") {
            self.barrier = Some(Barrier::Close);
        }
    }
}

/// `250 a\nb` becomes `250-a`, `250 b`.
fn say_into(outbox: &mut BytesMut, text: &str) {
    let (code, rest) = text.split_at_checked(4).unwrap_or((text, ""));
    let mut lines = rest.split('\n').peekable();
    while let Some(line) = lines.next() {
        outbox.extend_from_slice(&code.as_bytes()[..code.len().min(3)]);
        outbox.extend_from_slice(if lines.peek().is_some() { b"-" } else { b" " });
        outbox.extend_from_slice(line.as_bytes());
        outbox.extend_from_slice(b"\r\n");
    }
}
