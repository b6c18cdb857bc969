//! What the writer says of a batch: to those who wait for it, and to the scheduler.

use std::sync::Arc;

use scheduler::{Delivery, QueueId};

use super::apply::Settled;
use super::handle::{Answer, Prepared, PreparedSettlement, Request, Stats};
use super::operate::{Moved, Operated};
use super::types::{Note, QueueError, StoredDelivery};
use super::writer::Writer;

/// What a commit made true, for those who wait for it.
#[derive(Default)]
pub(super) struct Durable {
    /// For the scheduler.
    pub(super) notes: Vec<Note>,
    /// Whoever submitted a message, and its id.
    pub(super) accepted: Vec<(Answer<QueueId>, QueueId)>,
}

/// What the transaction has to say to a request.
pub(super) enum Done {
    Nothing,
    Settled(Vec<Settled>),
    Aside(Option<Vec<Arc<str>>>),
    Operated(Operated, Vec<Moved>),
}

impl Writer {
    /// Tells all but those who submitted, and makes the notes for the scheduler.
    pub(super) fn answer(&self, batch: Vec<Request>, done: Vec<Done>) -> Durable {
        let (mut notes, mut accepted) = (Vec::new(), Vec::new());
        let gone = |id, domain| Note::Settled { id, domain, member: 0, next_due: None };
        // Whoever asked may have gone meanwhile; the mail is ours all the same.
        for (request, done) in batch.into_iter().zip(done) {
            match (request, done) {
                (Request::Enqueue(mut message, answer), _) => {
                    let id = message.message.id;
                    accepted.extend(message.followers.drain(..).chain([answer]).map(|answer| (answer, id)));
                    Stats::add(&self.stats.enqueued, 1);
                    note_enqueued(*message, &mut notes);
                }
                (Request::Settle(settlements, answer), Done::Settled(settled)) => {
                    let _ = answer.send(Ok(()));
                    Stats::add(&self.stats.settled, settled.len());
                    for (PreparedSettlement { settlement, dsn }, settled) in settlements.into_iter().zip(settled) {
                        let id = settlement.id;
                        notes.extend(settled.aside.into_iter().map(|domain| gone(id, domain)));
                        let Settled { member, next_due, .. } = settled;
                        notes.push(Note::Settled { id, domain: settlement.domain, member, next_due });
                        if let Some(dsn) = dsn.filter(|_| settled.dsn) {
                            Stats::add(&self.stats.enqueued, 1);
                            note_enqueued(dsn, &mut notes);
                        }
                    }
                }
                (Request::SetAside(id, _, answer), Done::Aside(domains)) => {
                    let _ = answer.send(domains.is_some().then_some(()).ok_or(QueueError::Unknown(id)));
                    notes.extend(domains.into_iter().flatten().map(|domain| gone(id, domain)));
                }
                (Request::Operate(_, answer), Done::Operated(operated, moved)) => {
                    let _ = answer.send(Ok(operated));
                    notes.extend(moved.into_iter().map(|moved| match moved {
                        Moved::Until(id, domain, member, due) => Note::Settled { id, domain, member, next_due: Some(due) },
                        Moved::Due(domain, member, at) => Note::Due { domain, member, at },
                    }));
                }
                (Request::NoteActions(_, answer), _) => drop(answer.send(Ok(()))),
                (Request::Work(work), _) => work.finish(Ok(())),
                (Request::Settle(..) | Request::SetAside(..) | Request::Operate(..) | Request::Stop, _) => {}
            }
        }
        Durable { notes, accepted }
    }

    /// Answers some of the batch with an error and takes them out. False: there were none.
    pub(super) fn refuse(&self, batch: &mut Vec<Request>, error: &QueueError, which: fn(&Request) -> bool) -> bool {
        let refused: Vec<Request> = batch.extract_if(.., |request| which(request)).collect();
        let any = !refused.is_empty();
        for request in refused {
            match request {
                Request::Enqueue(message, answer) => {
                    if matches!(error, QueueError::Full(_)) {
                        Stats::add(&self.stats.refused_full, 1);
                    }
                    for answer in message.followers.into_iter().chain([answer]) {
                        let _ = answer.send(Err(error.clone()));
                    }
                }
                Request::Settle(_, answer) | Request::SetAside(_, _, answer) | Request::NoteActions(_, answer) => {
                    let _ = answer.send(Err(error.clone()));
                }
                Request::Operate(_, answer) => {
                    let _ = answer.send(Err(error.clone()));
                }
                Request::Work(work) => work.finish(Err(error.clone())),
                Request::Stop => {}
            }
        }
        any
    }
}

fn note_enqueued(new: Prepared, notes: &mut Vec<Note>) {
    let (message, due) = (Arc::new(new.message), new.due);
    for delivery in new.deliveries {
        notes.push(Note::Enqueued {
            delivery: Delivery {
                id: message.id,
                domain: delivery.domain.clone(),
                lane: message.lane,
                member: message.member,
                due,
                deadline: message.deadline,
                late_at: message.late_at(&delivery.recipients),
                attempts: 0,
                recipients: delivery.recipients.len() as u16,
                bytes: u32::try_from(message.octets.len()).unwrap_or(u32::MAX),
            },
            stored: Arc::new(StoredDelivery {
                message: message.clone(),
                domain: delivery.domain,
                attempts: 0,
                last_reply: String::new(),
                recipients: delivery.recipients,
            }),
        });
    }
}
