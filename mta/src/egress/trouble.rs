//! Trouble: turns what happened to an attempt into scope × verdict.
//!
//! The scope is the widest thing that a reply or a failure speaks of: a refused connection is not a
//! refused recipient. The scheduler narrows, suspends or retries by scope; the sender is told by
//! recipient. A verdict follows the first digit of the reply (RFC 5321 §4.2.1); what has no reply
//! is always worth another try. Where the table of replies knows the words (`replies`), they say more than the stage:
//! [`weigh`] corrects scope and verdict by the class. A block list that answers RCPT speaks of us and not of the recipient.

use std::time::Duration;

use scheduler::{ReplyClass, Scope, TlsFailure, Verdict};
use smtp::client::{Fate, Stage};
use smtp::reply::Reply;

use super::deliver::Attempt;
use super::replies::{Meaning, Replies};

/// What became of one recipient in one attempt.
#[derive(Clone, Debug)]
pub struct RecipientOutcome {
    /// Index of the recipient in the message's list.
    pub index: u16,
    /// Its fate.
    pub verdict: Verdict,
    /// The peer's last word, or ours where `from_peer` is false.
    pub reply: Reply,
    /// Whether `reply` is the peer's.
    pub from_peer: bool,
    /// What it came in answer to.
    pub stage: Stage,
    /// What it speaks of.
    pub scope: Scope,
}

/// What decided the scope of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its class.
    pub class: Option<ReplyClass>,
    /// The entry of the table that knows it.
    pub entry: Option<std::sync::Arc<str>>,
    /// The time that it names.
    pub after: Option<Duration>,
    /// The reply, verbatim, or our own words where there was none.
    pub reply: String,
}

/// Why a connection could not be used at all; no recipient was named yet.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// `Host` while other hosts may be tried, `Site` when there are none left, `Source` when our address is refused.
    pub scope: Scope,
    /// Deferred nearly always: a host that is wrong today may be mended tomorrow.
    pub verdict: Verdict,
    /// The peer's reply or our words.
    pub reply: Reply,
    /// Whether `reply` is the peer's.
    pub from_peer: bool,
}

impl Trouble {
    /// A failure without a reply: refused, reset, timed out, no route.
    pub fn unreachable(text: String) -> Self {
        Trouble { scope: Scope::Host, verdict: Verdict::Deferred, reply: Reply::new(451, (4, 4, 1), text), from_peer: false }
    }

    /// TLS that was promised to the recipient domain is not to be had at a host (RFC 3463: 4.7.4 where it is not offered,
    /// 4.7.5 where it fails). It speaks of this domain's mail and not of the site: other domains may demand less.
    pub fn insecure(failure: TlsFailure, text: String) -> Self {
        let code = if failure == TlsFailure::StarttlsNotSupported { (4, 7, 4) } else { (4, 7, 5) };
        Trouble { scope: Scope::Message, verdict: Verdict::Deferred, reply: Reply::new(451, code, text), from_peer: false }
    }

    /// No host of the domain may have a message with REQUIRETLS (RFC 8689 §4.2.1: its sender is told at once). Where it is the look-up
    /// of the policy that failed, nobody knows yet: it is made again, as one of MX records is (RFC 5321 §5.1).
    pub fn requiretls(failure: TlsFailure, text: String) -> Self {
        if failure == TlsFailure::StsPolicyFetchError {
            return Trouble::insecure(failure, text);
        }
        Trouble { scope: Scope::Message, verdict: Verdict::Failed, reply: Reply::new(550, (5, 7, 30), text), from_peer: false }
    }

    /// A refusal in the greeting or in answer to EHLO: it speaks of us, not of a message.
    pub fn refused_session(reply: Reply) -> Self {
        // 554 5.7.x at the door means this address, from whatever host it knocks (RFC 5321 §3.1 allows
        // 554 for "no SMTP service here", and then another host may serve).
        let policy = reply.enhanced().is_some_and(|code| code.1 == 7);
        let scope = if policy { Scope::Source } else { Scope::Host };
        Trouble { scope, verdict: Verdict::Deferred, reply, from_peer: true }
    }
}

/// The verdict on one recipient, with the scope of what was said.
pub fn judge(index: u16, fate: &Fate) -> RecipientOutcome {
    match fate {
        Fate::Accepted(reply) => RecipientOutcome {
            index,
            verdict: Verdict::Delivered,
            reply: reply.clone(),
            from_peer: true,
            stage: Stage::Body,
            scope: Scope::Recipient,
        },
        Fate::Refused { reply, stage } => {
            let verdict = if reply.is_permanent() { Verdict::Failed } else { Verdict::Deferred };
            // At `Local` nothing was sent: the host lacks what the message needs, in our words.
            let from_peer = *stage != Stage::Local;
            let scope = scope_of(reply, *stage);
            RecipientOutcome { index, verdict, reply: reply.clone(), from_peer, stage: *stage, scope }
        }
        Fate::Untried => {
            let reply = Reply::new(451, (4, 4, 2), "the host took no more recipients on this connection");
            let (verdict, scope) = (Verdict::Deferred, Scope::Message);
            RecipientOutcome { index, verdict, reply, from_peer: false, stage: Stage::Mail, scope }
        }
        Fate::Broken { stage, reason } => {
            // RFC 1047: after the end of data the peer may have the message; trying again can make a
            // duplicate, not trying could lose it. Losing is worse.
            let code = if *stage == Stage::Body { (4, 4, 2) } else { (4, 4, 1) };
            let reply = Reply::new(451, code, format!("connection lost: {reason}"));
            let (verdict, scope) = (Verdict::Deferred, Scope::Host);
            RecipientOutcome { index, verdict, reply, from_peer: false, stage: *stage, scope }
        }
    }
}

/// The outcomes of one attempt, in the order of the recipients. An address that needs SMTPUTF8 (RFC 6531 §3.2) waits for another
/// host of the route, if there are `others`, while those that this host can serve are served.
pub fn judge_all(indexes: impl Iterator<Item = u16>, fates: &[Fate], others: bool) -> Vec<RecipientOutcome> {
    let waits = others && !lacks(fates);
    let judged = indexes.zip(fates).map(|(index, fate)| match fate {
        Fate::Refused { stage: Stage::Local, .. } if waits && lacks(std::slice::from_ref(fate)) => {
            let text = "the host does not offer SMTPUTF8, which the address needs; another one will be asked";
            judge(index, &Fate::Refused { reply: Reply::new(450, (4, 6, 7), text), stage: Stage::Local })
        }
        fate => judge(index, fate),
    });
    judged.collect()
}

/// How wide a refusal reaches, by where it came and what it says.
fn scope_of(reply: &Reply, stage: Stage) -> Scope {
    // 421: the peer closes the channel, whatever the command was (RFC 5321 §3.8).
    if reply.code() == 421 {
        return Scope::Site;
    }
    match stage {
        Stage::Rcpt => Scope::Recipient,
        // A transient refusal of MAIL by policy is about who we are or how fast we are.
        Stage::Mail if reply.is_transient() && reply.enhanced().is_some_and(|code| code.1 == 7) => Scope::Site,
        Stage::Local | Stage::Mail | Stage::Data | Stage::Body => Scope::Message,
        Stage::Greeting | Stage::Ehlo | Stage::StartTls | Stage::Auth => Scope::Host,
    }
}

/// Corrects an attempt by what the words of a provider's replies mean, and notes what decided its scope.
pub fn weigh(attempt: &mut Attempt, provider: &str, replies: &Replies) {
    // Most recipients of a refused message hear the same.
    let mut last: Option<(Reply, Stage, Option<Meaning>)> = None;
    let mut decided: Option<(u8, usize, Option<Meaning>)> = None;
    for (nth, outcome) in attempt.outcomes.iter_mut().enumerate() {
        if outcome.verdict == Verdict::Delivered {
            continue;
        }
        let meaning = match last.take() {
            Some((reply, stage, meaning)) if reply == outcome.reply && stage == outcome.stage => meaning,
            _ if outcome.from_peer => replies.classify(provider, outcome.stage, &outcome.reply),
            _ => Some(Meaning { class: our_own(&outcome.reply), defer: false, after: None, entry: None }),
        };
        last = Some((outcome.reply.clone(), outcome.stage, meaning.clone()));
        // What no entry knows means what the RFCs say.
        if let Some(known) = meaning.as_ref().filter(|meaning| meaning.entry.is_some()) {
            outcome.scope = scope_of_class(known.class, outcome.scope);
            if known.defer {
                outcome.verdict = Verdict::Deferred;
            }
        }
        let wide = width(outcome.scope);
        if decided.as_ref().is_none_or(|(other, ..)| *other < wide) {
            decided = Some((wide, nth, meaning));
        }
    }
    attempt.told = decided.and_then(|(_, nth, meaning)| {
        let reply = attempt.outcomes.get(nth)?.reply.to_string();
        let (class, after) = (meaning.as_ref().map(|meaning| meaning.class), meaning.as_ref().and_then(|meaning| meaning.after));
        Some(Told { class, entry: meaning.and_then(|meaning| meaning.entry), after, reply })
    });
    (attempt.scope, attempt.verdict) = summarize(&attempt.outcomes);
}

/// The class of what we say ourselves, by the subject of our code (RFC 3463 §3.8: security; else network and routing).
fn our_own(reply: &Reply) -> ReplyClass {
    if reply.enhanced().is_some_and(|code| code.1 == 7) { ReplyClass::Tls } else { ReplyClass::Host }
}

/// What a class speaks of; the stage told `before`.
fn scope_of_class(class: ReplyClass, before: Scope) -> Scope {
    match class {
        ReplyClass::Mailbox | ReplyClass::Greylist => Scope::Recipient,
        ReplyClass::Content | ReplyClass::Auth => Scope::Message,
        ReplyClass::Reputation | ReplyClass::Rate => Scope::Source,
        ReplyClass::Policy | ReplyClass::Tls | ReplyClass::Host => before,
    }
}

fn width(scope: Scope) -> u8 {
    match scope {
        Scope::Recipient => 0,
        Scope::Message => 1,
        Scope::Host => 2,
        Scope::Site => 3,
        Scope::Source => 4,
    }
}

/// What an attempt means as a whole: the best fate of a recipient, and the widest scope of a trouble.
pub fn summarize(outcomes: &[RecipientOutcome]) -> (Scope, Verdict) {
    let scope = outcomes.iter().map(|outcome| outcome.scope).max_by_key(|scope| width(*scope)).unwrap_or(Scope::Message);
    let any = |verdict: Verdict| outcomes.iter().any(|outcome| outcome.verdict == verdict);
    let verdict = if any(Verdict::Delivered) {
        Verdict::Delivered
    } else if any(Verdict::Deferred) {
        Verdict::Deferred
    } else {
        Verdict::Failed
    };
    (scope, verdict)
}

/// Why a transaction cannot have reached the peer, if that is so. A 421 to MAIL over a connection that was
/// `used` before says that the peer had tired of that connection, not that it refuses this message.
pub(super) fn stale(fates: &[Fate], used: bool) -> Option<String> {
    let untouched = |fate: &Fate| match fate {
        Fate::Broken { stage, reason } if *stage != Stage::Body => Some(reason.clone()),
        Fate::Refused { reply, stage: Stage::Mail } if used && reply.code() == 421 => Some(reply.to_string()),
        _ => None,
    };
    let mut reasons = fates.iter().map(untouched).collect::<Option<Vec<_>>>()?;
    reasons.pop()
}

/// Whether nothing was sent, because the host lacks what the message needs (SIZE of RFC 1870, 8BITMIME of RFC 6152, SMTPUTF8 of
/// RFC 6531 §3.2). Another host of the route may have it; one that is malformed (5.6.0) is so for all.
pub(super) fn lacks(fates: &[Fate]) -> bool {
    let lacking = |fate: &Fate| match fate {
        Fate::Refused { stage: Stage::Local, reply } => reply.enhanced().is_some_and(|code| (code.1, code.2) != (6, 0)),
        _ => false,
    };
    !fates.is_empty() && fates.iter().all(lacking)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, enhanced: (u8, u16, u16), stage: Stage) -> (Scope, Verdict) {
        let outcome = judge(0, &Fate::Refused { reply: Reply::new(code, enhanced, "text"), stage });
        (outcome.scope, outcome.verdict)
    }

    #[test]
    fn a_refusal_is_as_wide_as_what_it_speaks_of() {
        assert_eq!(refused(550, (5, 1, 1), Stage::Rcpt), (Scope::Recipient, Verdict::Failed));
        assert_eq!(refused(450, (4, 2, 0), Stage::Rcpt), (Scope::Recipient, Verdict::Deferred));
        assert_eq!(refused(552, (5, 3, 4), Stage::Mail), (Scope::Message, Verdict::Failed));
        assert_eq!(refused(451, (4, 7, 1), Stage::Mail), (Scope::Site, Verdict::Deferred));
        assert_eq!(refused(421, (4, 7, 0), Stage::Rcpt), (Scope::Site, Verdict::Deferred));
        assert_eq!(refused(554, (5, 7, 1), Stage::Body), (Scope::Message, Verdict::Failed));
    }

    #[test]
    fn one_delivered_recipient_makes_the_attempt_a_delivery() {
        let judged = [
            judge(0, &Fate::Accepted(Reply::new(250, (2, 0, 0), "ok"))),
            judge(1, &Fate::Refused { reply: Reply::new(550, (5, 1, 1), "no"), stage: Stage::Rcpt }),
        ];
        assert_eq!(summarize(&judged), (Scope::Recipient, Verdict::Delivered));
    }

    #[test]
    fn an_address_that_a_host_cannot_serve_waits_for_another_host_alone() {
        let needs = Fate::Refused { reply: Reply::new(550, (5, 6, 7), "needs SMTPUTF8"), stage: Stage::Local };
        let taken = Fate::Accepted(Reply::new(250, (2, 0, 0), "ok"));
        let verdicts = |fates: &[Fate], others| {
            judge_all(0.., fates, others).iter().map(|outcome| (outcome.index, outcome.verdict)).collect::<Vec<_>>()
        };
        let mixed = [needs.clone(), taken];
        assert_eq!(verdicts(&mixed, true), [(0, Verdict::Deferred), (1, Verdict::Delivered)]);
        assert_eq!(verdicts(&mixed, false), [(0, Verdict::Failed), (1, Verdict::Delivered)]);
        assert_eq!(verdicts(&[needs], true), [(0, Verdict::Failed)], "the others are asked at once, in the same attempt");
    }

    #[test]
    fn a_link_that_dies_after_the_data_is_tried_again() {
        let outcome = judge(0, &Fate::Broken { stage: Stage::Body, reason: "reset".into() });
        assert_eq!((outcome.scope, outcome.verdict), (Scope::Host, Verdict::Deferred));
    }

    /// As a provider's host says it, to the first of two recipients; the second is accepted if `accepts`.
    fn weighed(provider: &str, stage: Stage, reply: Reply, accepts: bool) -> Attempt {
        let mut outcomes = vec![judge(0, &Fate::Refused { reply, stage })];
        if accepts {
            outcomes.push(judge(1, &Fate::Accepted(Reply::new(250, (2, 0, 0), "ok"))));
        }
        let (scope, verdict) = summarize(&outcomes);
        let mut attempt = Attempt::of(outcomes, scope, verdict);
        weigh(&mut attempt, provider, &Replies::shipped());
        attempt
    }

    #[test]
    fn a_block_list_speaks_of_us_and_burns_no_recipient() {
        let reply = Reply::new(550, (5, 7, 1), "messages from [192.0.2.1] weren't sent: on our block list (S3150)");
        let attempt = weighed("microsoft", Stage::Rcpt, reply, false);
        assert_eq!((attempt.scope, attempt.verdict), (Scope::Source, Verdict::Deferred));
        assert_eq!(attempt.outcomes[0].verdict, Verdict::Deferred);
        let told = attempt.told.unwrap();
        assert_eq!((told.class, told.entry.as_deref()), (Some(ReplyClass::Reputation), Some("microsoft: blocked network")));
        assert!(told.reply.starts_with("550 5.7.1 messages from [192.0.2.1]"), "{}", told.reply);
    }

    #[test]
    fn what_the_table_does_not_know_means_what_the_rfcs_say() {
        let attempt = weighed("other", Stage::Rcpt, Reply::new(550, (5, 1, 1), "gone fishing"), false);
        assert_eq!((attempt.scope, attempt.verdict), (Scope::Recipient, Verdict::Failed));
        assert_eq!(attempt.told.unwrap().class, Some(ReplyClass::Mailbox));
        let attempt = weighed("other", Stage::Mail, Reply::new(451, (4, 7, 1), "hm"), false);
        assert_eq!((attempt.scope, attempt.verdict), (Scope::Site, Verdict::Deferred));
    }

    #[test]
    fn a_greylisted_recipient_leaves_the_site_open_even_by_421() {
        let attempt = weighed("other", Stage::Rcpt, Reply::new(421, (4, 7, 0), "Greylisted, try again in 90 seconds"), true);
        assert_eq!((attempt.scope, attempt.verdict), (Scope::Recipient, Verdict::Delivered));
        assert_eq!(attempt.told.unwrap().after, Some(Duration::from_secs(90)));
    }

    #[test]
    fn too_many_recipients_of_one_message_are_no_fault_of_the_source() {
        let attempt = weighed("other", Stage::Rcpt, Reply::new(452, (4, 5, 3), "Too many recipients"), true);
        assert_eq!((attempt.scope, attempt.told.unwrap().class), (Scope::Recipient, Some(ReplyClass::Host)));
    }
}
