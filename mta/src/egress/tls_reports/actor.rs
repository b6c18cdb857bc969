//! The reporter: counts what it is told, writes it down once a minute, and sees that each day that is over is reported.
//!
//! A day of UTC is reported some time within four hours of its end, another time in each daemon, so that receivers do not hear
//! of all the world at midnight (RFC 8460 §4.1). Where a report cannot be handed over it is tried every hour for a day.
//!
//! Not here: what is counted (`tally.rs`), what a report says (`report.rs`), how it is handed over (`send.rs`).

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use host::{Clock, Dice};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::notes::Note;
use super::send::{Handed, Sender};
use super::tally::{Day, Tally, day, midnight};
use crate::control::metrics as names;
use crate::drain::{Drain, reached};
use crate::egress::tls_memory::Table;

/// What was counted is written down at this pace; a crash loses no more.
const WRITE: Duration = Duration::from_secs(60);
/// Days that are over are looked for at this pace, and what could not be handed over is tried again.
const ROUND: Duration = Duration::from_secs(3600);
/// RFC 8460 §4.1: reports of a day are spread over so long after its end.
const SPREAD: Duration = Duration::from_secs(4 * 3600);
/// RFC 8460 §5.5: a report is tried for a day, and then there is a newer one.
pub(super) const TRIED: Duration = Duration::from_secs(24 * 3600);
/// Reports that are handed over at the same time; the others wait, and slow receivers hold up no more than these.
const SENDING_MAX: usize = 16;
/// Notes that are taken at once.
const AT_ONCE: usize = 256;

/// The actor.
pub struct ReportWriter {
    /// Hands reports over.
    pub sender: Sender,
    /// What was noted.
    pub notes: mpsc::Receiver<Note>,
    /// Where it is kept.
    pub table: Table,
    /// What time it is.
    pub clock: Clock,
    /// For the time of day.
    pub dice: Dice,
    /// How far a stop is.
    pub draining: watch::Receiver<Drain>,
}

impl ReportWriter {
    /// Counts and reports until the daemon is over, and writes down what it has.
    pub async fn run(self) {
        let ReportWriter { sender, mut notes, table, clock, dice, draining } = self;
        let sender = Rc::new(sender);
        let mut tally = Tally::default();
        if let Err(error) = table.each(|key, row| {
            tally.restore(key, row);
            true
        }) {
            tracing::error!(%error, "what was counted for TLS reports cannot be read");
        }
        let spread = Duration::from_secs(dice.below(SPREAD.as_secs()));
        let mut writes = tokio::time::interval(WRITE);
        writes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut next_round = clock.now();
        let mut waiting: VecDeque<(Day, Arc<str>)> = VecDeque::new();
        let mut sending = JoinSet::new();
        let mut batch = Vec::new();
        let mut over = draining.clone();
        loop {
            while sending.len() < SENDING_MAX
                && *draining.borrow() == Drain::No
                && let Some(key) = waiting.pop_front()
            {
                let Some(count) = tally.get(&key).cloned() else { continue };
                let sender = sender.clone();
                sending.spawn_local(async move {
                    let handed = sender.send(&key, &count).await;
                    (key, handed)
                });
            }
            tokio::select! {
                biased;
                () = reached(&mut over, Drain::Over) => break,
                n = notes.recv_many(&mut batch, AT_ONCE) => {
                    if n == 0 {
                        break;
                    }
                    let today = day(clock.now());
                    batch.drain(..).for_each(|note| tally.add(today, &note));
                }
                Some(Ok((key, handed))) = sending.join_next() => {
                    settle(&mut tally, &key, handed, clock.now() >= due(key.0, spread) + TRIED);
                    write(&table, &mut tally);
                }
                _ = writes.tick() => {
                    write(&table, &mut tally);
                    let now = clock.now();
                    if now >= next_round && waiting.is_empty() && sending.is_empty() {
                        next_round = now + ROUND;
                        waiting.extend(tally.over(day(now)).into_iter().filter(|key| now >= due(key.0, spread)));
                    }
                }
            }
        }
        // What is on its way to us still counts.
        while let Ok(note) = notes.try_recv() {
            tally.add(day(clock.now()), &note);
        }
        write(&table, &mut tally);
    }
}

/// When the report of a day is due.
fn due(day: Day, spread: Duration) -> SystemTime {
    midnight(day.saturating_add(1)) + spread
}

fn settle(tally: &mut Tally, key: &(Day, Arc<str>), handed: Handed, late: bool) {
    let count = |result| metrics::counter!(names::TLS_REPORTS, "result" => result).increment(1);
    for place in handed.told {
        tracing::info!(domain = %key.1, to = place, "sent a TLS report");
        count("sent");
        tally.handle_told(key, place);
    }
    if !handed.again {
        tally.remove(key);
    } else if late {
        tracing::warn!(domain = %key.1, "a TLS report could not be handed over in a day and is dropped");
        count("dropped");
        tally.remove(key);
    }
}

fn write(table: &Table, tally: &mut Tally) {
    let changes = tally.changes();
    if changes.is_empty() {
        return;
    }
    match table.put(changes.iter().map(|(key, row)| (&key[..], row.as_deref()))) {
        Ok(()) => tally.handle_written(),
        Err(error) => tracing::error!(%error, "what was counted for TLS reports cannot be kept; trying again in a minute"),
    }
}
