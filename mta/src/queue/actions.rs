//! The table `actions`: what the scheduler does about trouble by itself, so that a restart goes on with it until it expires.
//!
//! A row is written, changed and removed by the transaction that appends the event of it. What only moves the end of an action
//! because its cause came again is written and is no event: an outage of a day is two events.

use std::sync::Arc;

use scheduler::{Change, Measure, MeasureKind, MeasureNews, Object, QueueId, ReplyClass};

use super::apply::Transaction;
use super::codec::{Damaged, Decoder, Encoder};
use super::handle::Queue;
use super::reader::Reader;
use super::types::QueueError;
use crate::events::{Event, What};

/// The row of `state` that holds the last id given out: no id is given twice.
const LAST_ID: &[u8] = b"last_action";
const VERSION: u8 = 1;

impl Transaction<'_> {
    /// Writes down what happened to actions.
    pub(crate) fn note_actions(&mut self, news: &[MeasureNews]) -> Result<(), QueueError> {
        let saved = self.tables.state.get(&self.txn, LAST_ID)?;
        let mut last = saved.and_then(number).unwrap_or(0);
        for MeasureNews { measure, change } in news {
            let key = measure.id.to_be_bytes();
            if change.is_end() {
                self.tables.actions.delete(&mut self.txn, &key)?;
            } else {
                self.tables.actions.put(&mut self.txn, &key, &encode(measure))?;
            }
            last = last.max(measure.id);
            let (what, reply) = match change {
                Change::Started => (What::ActionStarted, &measure.cause),
                Change::Extended(by) => (What::ActionExtended, by),
                Change::Cancelled(by) => (What::ActionCancelled, by),
                Change::Expired => (What::ActionExpired, &measure.cause),
                Change::Again => continue,
            };
            let event = self.blank(what, QueueId(measure.id), 0);
            self.event(Event { reply: reply.to_string(), ..about(measure, event) })?;
        }
        let mut row = Encoder::new(VERSION);
        row.u64(last);
        self.tables.state.put(&mut self.txn, LAST_ID, &row.done())?;
        Ok(())
    }
}

/// What an event says of an action: its kind stands where a recipient would.
fn about(measure: &Measure, event: Event) -> Event {
    let mut event = Event { recipient: measure.kind.to_string(), ..event };
    match &measure.object {
        Object::Site(site) => event.host = site.to_string(),
        Object::AtSite { source, site } => (event.source, event.host) = (source.to_string(), site.to_string()),
        Object::AtProvider { source, provider } => (event.source, event.host) = (source.to_string(), provider.to_string()),
        Object::Source(source) => event.source = source.to_string(),
        Object::Member(member) => event.member = *member,
        Object::Delivery { domain, source, .. } => (event.source, event.domain) = (source.to_string(), domain.to_string()),
    }
    event
}

impl Queue {
    /// Writes down what happened to actions, in one transaction.
    pub async fn note_actions(&self, news: Vec<MeasureNews>) -> Result<(), QueueError> {
        self.note(news).await
    }
}

impl Reader {
    /// The actions that run, and the last id that was given out. A damaged row is told and left out.
    pub fn actions(&self) -> Result<(Vec<Measure>, u64), QueueError> {
        let txn = self.env.read_txn()?;
        let mut measures = Vec::new();
        for entry in self.tables.actions.iter(&txn)? {
            match decode(entry?.1) {
                Ok(measure) => measures.push(measure),
                Err(Damaged) => tracing::error!("an action cannot be read and is left out: what it stopped goes on"),
            }
        }
        let last = self.tables.state.get(&txn, LAST_ID)?.and_then(number).unwrap_or(0);
        Ok((measures, last))
    }

    /// One of them, as of the last commit.
    pub fn action(&self, id: u64) -> Result<Option<Measure>, QueueError> {
        let txn = self.env.read_txn()?;
        Ok(self.tables.actions.get(&txn, &id.to_be_bytes())?.and_then(|row| decode(row).ok()))
    }
}

fn number(row: &[u8]) -> Option<u64> {
    Decoder::new(row, VERSION).and_then(|mut fields| fields.u64()).ok()
}

fn encode(measure: &Measure) -> Vec<u8> {
    let mut row = Encoder::new(VERSION);
    let kind = MeasureKind::ALL.iter().position(|kind| *kind == measure.kind).unwrap_or(0);
    row.u64(measure.id).u8(kind as u8);
    match &measure.object {
        Object::Site(site) => row.u8(0).text(site),
        Object::AtSite { source, site } => row.u8(1).text(source).text(site),
        Object::AtProvider { source, provider } => row.u8(2).text(source).text(provider),
        Object::Source(source) => row.u8(3).text(source),
        Object::Member(member) => row.u8(4).u32(*member),
        Object::Delivery { id, domain, source } => row.u8(5).u64(id.0).text(domain).text(source),
    };
    row.text_or_none(measure.class.map(ReplyClass::as_str)).text(&measure.rule).text(&measure.cause);
    row.time(measure.started).time(measure.expires).u32(measure.again).u16(measure.window.unwrap_or(0));
    row.done()
}

fn decode(row: &[u8]) -> Result<Measure, Damaged> {
    let mut fields = Decoder::new(row, VERSION)?;
    let id = fields.u64()?;
    let kind = *MeasureKind::ALL.get(usize::from(fields.u8()?)).ok_or(Damaged)?;
    let name = |fields: &mut Decoder<'_>| fields.text().map(Arc::<str>::from);
    let object = match fields.u8()? {
        0 => Object::Site(name(&mut fields)?),
        1 => Object::AtSite { source: name(&mut fields)?, site: name(&mut fields)? },
        2 => Object::AtProvider { source: name(&mut fields)?, provider: name(&mut fields)? },
        3 => Object::Source(name(&mut fields)?),
        4 => Object::Member(fields.u32()?),
        5 => Object::Delivery { id: QueueId(fields.u64()?), domain: name(&mut fields)?, source: name(&mut fields)? },
        _ => return Err(Damaged),
    };
    let class = fields.text_or_none()?.map(|class| class.parse().map_err(|()| Damaged)).transpose()?;
    let measure = Measure {
        id,
        kind,
        object,
        class,
        rule: name(&mut fields)?,
        cause: name(&mut fields)?,
        started: fields.time()?,
        expires: fields.time()?,
        again: fields.u32()?,
        window: Some(fields.u16()?).filter(|window| *window > 0),
    };
    fields.end()?;
    Ok(measure)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn every_kind_of_action_reads_back_as_it_was_written() {
        let (source, site): (Arc<str>, Arc<str>) = ("ip-a".into(), "mx1,mx2".into());
        let objects = [
            Object::Site(site.clone()),
            Object::AtSite { source: source.clone(), site: site.clone() },
            Object::AtProvider { source: source.clone(), provider: "google".into() },
            Object::Source(source.clone()),
            Object::Member(7),
            Object::Delivery { id: QueueId(9 << 20), domain: "a.test".into(), source },
        ];
        for (nth, (kind, object)) in MeasureKind::ALL.into_iter().zip(objects.into_iter().cycle()).enumerate() {
            let measure = Measure {
                id: 17 + nth as u64,
                kind,
                object,
                class: (nth % 2 == 0).then_some(ReplyClass::Reputation),
                rule: "disliked".into(),
                cause: "550 5.7.1 no (S3150)".into(),
                started: UNIX_EPOCH + Duration::from_millis(1_790_000_000_001),
                expires: UNIX_EPOCH + Duration::from_millis(1_790_000_900_001),
                again: 3,
                window: (nth % 3 == 0).then_some(4),
            };
            let row = encode(&measure);
            assert_eq!(decode(&row), Ok(measure));
            assert_eq!(decode(&row[..row.len() - 1]), Err(Damaged));
        }
    }
}
