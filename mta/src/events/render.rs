//! Events rendered for people and for graphs: log lines and counters, in one place. The stream of `tradewind events` is
//! the third rendering (`control/stream`).
//!
//! This is a reader like any other: it goes through the table by number, on a thread of its own, and the writer does not
//! wait for it. Counters begin at the daemon's start; what a stop cuts off is in the table.
//!
//! An attempt has a line of its own, with what only the attempt knows (site, TLS, scope: `egress/dispatch`). So events that
//! tell of an attempt are repeated at debug level only.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::Counter;
use scheduler::MeasureKind;

use super::redact::Redaction;
use super::tally::Tally;
use super::{Event, What};
use crate::control::metrics as names;
use crate::egress::plan::Surroundings;
use crate::queue::{Queue, Reader};

/// Events read at a time.
const AT_ONCE: usize = 1000;

/// Events of before the start that are counted again: some seconds' work at most.
const RECOUNTED_MAX: u64 = 500_000;

/// A table that cannot be read is looked at again at this pace; whoever needs it more says why.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// The actor.
pub struct Renderer {
    queue: Queue,
    reader: Reader,
    seen: u64,
    count: Counters,
    tally: Tally,
    surroundings: Arc<ArcSwap<Surroundings>>,
    redaction: Arc<ArcSwap<Redaction>>,
}

struct Counters {
    delivered: Counter,
    failed: Counter,
    expired: Counter,
    cancelled: Counter,
    actions: [Counter; MeasureKind::ALL.len()],
}

impl Renderer {
    /// Begins with the next event.
    pub fn new(
        queue: Queue,
        reader: Reader,
        tally: Tally,
        surroundings: Arc<ArcSwap<Surroundings>>,
        redaction: Arc<ArcSwap<Redaction>>,
    ) -> Self {
        let seen = queue.stats().events.last();
        let count = Counters {
            delivered: metrics::counter!(names::DELIVERED),
            failed: metrics::counter!(names::FAILED),
            expired: metrics::counter!(names::EXPIRED),
            cancelled: metrics::counter!(names::CANCELLED),
            actions: MeasureKind::ALL.map(|kind| metrics::counter!(names::ACTIONS_STARTED, "kind" => kind.as_str())),
        };
        Self { queue, reader, seen, count, tally, surroundings, redaction }
    }

    /// Renders until it is dropped.
    pub async fn run(mut self) {
        self.recount().await;
        loop {
            self.queue.stats().events.beyond(self.seen).await;
            match self.reader.events(Some(self.seen), None, None, AT_ONCE) {
                Ok(found) => {
                    let (surroundings, redaction) = (self.surroundings.load(), self.redaction.load());
                    for (number, event) in &found.events {
                        self.count(event);
                        self.tally.add(event, &surroundings.providers);
                        log(*number, event, &redaction);
                    }
                    // Retention may have overtaken us, or a row cannot be read.
                    self.seen = found.next.max(self.seen + 1);
                }
                Err(_) => tokio::time::sleep(READ_AGAIN).await,
            }
        }
    }

    /// Counts again what was written down before the start.
    async fn recount(&self) {
        let mut seen = self.seen.saturating_sub(RECOUNTED_MAX);
        while seen < self.seen {
            // What cannot be read is told by those who need it more.
            let Ok(found) = self.reader.events(Some(seen), None, None, AT_ONCE) else { return };
            let surroundings = self.surroundings.load_full();
            let own = found.events.iter().take_while(|(number, _)| *number <= self.seen);
            own.for_each(|(_, event)| self.tally.add(event, &surroundings.providers));
            seen = found.next.max(seen + 1);
            tokio::task::yield_now().await;
        }
    }

    fn count(&self, event: &Event) {
        match event.what {
            What::Delivered => self.count.delivered.increment(1),
            What::Failed => self.count.failed.increment(1),
            What::Expired => self.count.expired.increment(1),
            What::Cancelled => self.count.cancelled.increment(1),
            What::ActionStarted => {
                let kind = MeasureKind::ALL.iter().position(|kind| kind.as_str() == event.recipient);
                if let Some(counter) = kind.and_then(|nth| self.count.actions.get(nth)) {
                    counter.increment(1);
                }
            }
            _ => {}
        }
    }
}

/// One line. The recipient's address stays in the event: logs travel further than the queue does.
fn log(number: u64, event: &Event, redaction: &Redaction) {
    if event.what.is_action() {
        tracing::info!(
            number,
            what = event.what.name(),
            action = event.id.0,
            kind = %event.recipient,
            member = event.member,
            domain = %event.domain,
            source = %event.source,
            at = %event.host,
            reply = %redaction.reply(&event.reply, None),
            "an automatic action"
        );
        return;
    }
    let attempted = !event.source.is_empty();
    // The line of an attempt has said it. What is over without one may repeat what a host said of its recipient.
    let recipient = event.recipient.parse().ok();
    let reply = (!attempted).then(|| redaction.reply(&event.reply, recipient.as_ref()));
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                number,
                what = event.what.name(),
                id = %event.id,
                member = event.member,
                domain = %event.domain,
                recipients = event.recipients,
                attempts = event.attempts,
                reply = reply.as_deref(),
                "event"
            )
        };
    }
    if attempted || event.what == What::Accepted { line!(debug) } else { line!(info) }
}
