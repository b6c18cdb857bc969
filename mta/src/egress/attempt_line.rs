//! The line that an attempt leaves in the log: one each, with what only the attempt knows. Neither subject nor body, ever.
//!
//! Not here: what of people stands in it (`events/redact.rs`), and what became of recipients, which their events say.

use std::time::SystemTime;

use super::Job;
use super::deliver::Attempt;
use crate::events::redact::Redaction;

/// Says it. The reply is the last one that was heard.
pub(super) fn say(redaction: &Redaction, now: SystemTime, job: &Job, attempt: &Attempt) {
    if !tracing::enabled!(tracing::Level::INFO) {
        return;
    }
    let message = &job.stored.message;
    let last = attempt.outcomes.last();
    let reply = last.map(|outcome| outcome.reply.to_string()).unwrap_or_default();
    let of = last.and_then(|outcome| job.stored.recipients.iter().find(|recipient| recipient.index == outcome.index));
    tracing::info!(
        id = %message.id,
        member = message.member,
        from = %redaction.sender(&message.reverse_path),
        to = redaction.recipients(&job.stored.recipients),
        message_id = redaction.message_id(&message.octets),
        domain = %job.stored.domain,
        site = %job.route.site,
        provider = %job.route.provider,
        source = %job.source.name,
        host = attempt.host.as_deref().unwrap_or("-"),
        tls = attempt.tls.as_ref().map_or("-", |tls| tls.version),
        tls_trusted = attempt.tls.as_ref().and_then(|tls| tls.trusted),
        recipients = attempt.outcomes.len(),
        nth = u32::from(job.stored.attempts) + 1,
        age_secs = now.duration_since(message.received_at).unwrap_or_default().as_secs_f64(),
        verdict = ?attempt.verdict,
        scope = ?attempt.scope,
        class = attempt.told.as_ref().and_then(|told| told.class).map_or("-", |class| class.as_str()),
        entry = attempt.told.as_ref().and_then(|told| told.entry.as_deref()),
        reply = %redaction.reply(&reply, of.map(|recipient| &recipient.mailbox)),
        "attempt"
    );
}
