//! The tables `climbs` and `climb_steps`: where each source stands with each provider that it warms up at, and every step with
//! its reason. What was spent is in `ledger`, which commits with the settlements.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use scheduler::warmup::{Climb, ClimbNews, ClimbRow, ClimbState, Figures, Remembered, Rule, Step};

use super::codec::{Damaged, Decoder, Encoder, millis};
use super::handle::Queue;
use super::keys::ledger_prefix;
use super::reader::Reader;
use super::types::QueueError;

const VERSION: u8 = 2;
const STEP_VERSION: u8 = 3;

/// Steps older than this leave when there is a new one of the same climb, as rows of the ledger do.
const STEPS_KEPT: Duration = Duration::from_secs(400 * 24 * 3600);

/// Source and provider.
pub type ClimbName = (Arc<str>, Arc<str>);

impl Queue {
    /// Writes down where climbs stand and what was decided, in one transaction.
    pub async fn note_climbs(&self, news: Vec<ClimbNews>) -> Result<(), QueueError> {
        self.transact(move |txn, tables| {
            for ClimbNews { row, step, .. } in &news {
                let prefix = ledger_prefix(&row.source, &row.provider);
                tables.climbs.put(txn, &prefix, &encode(row))?;
                let Some(step) = step else { continue };
                let key = |millis: u64| [&prefix[..], &millis.to_be_bytes()].concat();
                let mut at = millis(step.at);
                while tables.climb_steps.get(txn, &key(at))?.is_some() {
                    at += 1;
                }
                let (first, oldest) = (key(0), key(at.saturating_sub(STEPS_KEPT.as_millis() as u64)));
                let old = (Bound::Included(&first[..]), Bound::Excluded(&oldest[..]));
                tables.climb_steps.delete_range(txn, &old)?;
                tables.climb_steps.put(txn, &key(at), &encode_step(step))?;
            }
            Ok(())
        })
        .await
    }
}

impl Reader {
    /// What is known of such climbs, (source, provider) each, and of all others that ever were. A damaged row is told and left out: that climb begins anew, and
    /// what it spent today it has spent.
    pub fn climbs(&self, of: impl IntoIterator<Item = (Arc<str>, Arc<str>)>) -> Result<Vec<Remembered>, QueueError> {
        let mut rows = HashMap::new();
        {
            let txn = self.env.read_txn()?;
            for entry in self.tables.climbs.iter(&txn)? {
                let (key, row) = entry?;
                match decode(row) {
                    Ok(row) => drop(rows.insert(key.to_vec(), row)),
                    Err(Damaged) => tracing::error!("a climb of warmup cannot be read: it begins at its first stage"),
                }
            }
        }
        let remember = |rows: &mut HashMap<Vec<u8>, ClimbRow>, (source, provider): (Arc<str>, Arc<str>)| {
            let row: Option<ClimbRow> = rows.remove(&ledger_prefix(&source, &provider));
            let ledger = self.ledger(&source, &provider, row.as_ref().map_or(0, |row| row.climb.day))?;
            Ok(Remembered { source, provider, row, ledger })
        };
        let mut all: Vec<(Arc<str>, Arc<str>)> = of.into_iter().collect();
        for row in rows.values() {
            let others = (row.source.clone(), row.provider.clone());
            if !all.contains(&others) {
                all.push(others);
            }
        }
        all.into_iter().map(|of| remember(&mut rows, of)).collect()
    }

    /// All climbs that were ever written down.
    pub fn climb_names(&self) -> Result<Vec<ClimbName>, QueueError> {
        let txn = self.env.read_txn()?;
        let mut names = Vec::new();
        for entry in self.tables.climbs.iter(&txn)? {
            if let Ok(row) = decode(entry?.1) {
                names.push((row.source, row.provider));
            }
        }
        Ok(names)
    }

    /// The first day on which a climb spent anything, as far as the ledger is kept.
    pub fn climb_first_day(&self, source: &str, provider: &str) -> Result<Option<u32>, QueueError> {
        let txn = self.env.read_txn()?;
        let prefix = ledger_prefix(source, provider);
        let first = self.tables.ledger.prefix_iter(&txn, &prefix)?.next().transpose()?;
        let day = first.and_then(|(key, _)| key.get(prefix.len()..)?.first_chunk::<4>().copied());
        Ok(day.map(u32::from_be_bytes))
    }

    /// The newest steps of a climb, the newest first.
    pub fn climb_steps(&self, source: &str, provider: &str, limit: usize) -> Result<Vec<Step>, QueueError> {
        let txn = self.env.read_txn()?;
        let prefix = ledger_prefix(source, provider);
        let mut steps = Vec::new();
        for entry in self.tables.climb_steps.rev_prefix_iter(&txn, &prefix)?.take(limit) {
            if let Ok(step) = decode_step(entry?.1) {
                steps.push(step);
            }
        }
        Ok(steps)
    }
}

fn encode(row: &ClimbRow) -> Vec<u8> {
    let ClimbRow { source, provider, climb, figures } = row;
    let mut out = Encoder::new(VERSION);
    out.text(source).text(provider);
    out.u8(number(climb.state)).u32(climb.stage).u32(climb.day).u32(climb.start).u32(climb.cooled).u32(climb.idle);
    out.u8(climb.struck.into()).u8(climb.pinned.is_some().into()).u64(climb.pinned.unwrap_or(0));
    encode_figures(&mut out, figures);
    out.done()
}

fn number(state: ClimbState) -> u8 {
    ClimbState::ALL.iter().position(|it| *it == state).unwrap_or(0) as u8
}

fn encode_figures(out: &mut Encoder, figures: &Figures) {
    let Figures { spent, over, free, tried, deferred, refused, unknown, complained } = *figures;
    for count in [spent, over, free, tried, deferred, refused, unknown, complained] {
        out.u64(count);
    }
}

fn decode_state(fields: &mut Decoder<'_>) -> Result<ClimbState, Damaged> {
    ClimbState::ALL.get(usize::from(fields.u8()?)).copied().ok_or(Damaged)
}

fn decode_figures(fields: &mut Decoder<'_>) -> Result<Figures, Damaged> {
    Ok(Figures {
        spent: fields.u64()?,
        over: fields.u64()?,
        free: fields.u64()?,
        tried: fields.u64()?,
        deferred: fields.u64()?,
        refused: fields.u64()?,
        unknown: fields.u64()?,
        complained: fields.u64()?,
    })
}

fn decode(row: &[u8]) -> Result<ClimbRow, Damaged> {
    let mut fields = Decoder::new(row, VERSION)?;
    let (source, provider) = (fields.text()?.into(), fields.text()?.into());
    let climb = Climb {
        state: decode_state(&mut fields)?,
        stage: fields.u32()?,
        day: fields.u32()?,
        start: fields.u32()?,
        cooled: fields.u32()?,
        idle: fields.u32()?,
        struck: fields.flag()?,
        pinned: if fields.flag()? { Some(fields.u64()?) } else { fields.u64().map(|_| None)? },
    };
    let figures = decode_figures(&mut fields)?;
    fields.end()?;
    Ok(ClimbRow { source, provider, climb, figures })
}

fn encode_step(step: &Step) -> Vec<u8> {
    let mut out = Encoder::new(STEP_VERSION);
    let rule = Rule::ALL.iter().position(|rule| *rule == step.rule).unwrap_or(0);
    out.time(step.at).u8(rule as u8).text(&step.reason).u32(step.day);
    for (state, stage) in [step.from, step.to] {
        out.u8(number(state)).u32(stage);
    }
    out.u8(step.allowance.is_some().into()).u64(step.allowance.unwrap_or(0));
    encode_figures(&mut out, &step.figures);
    out.text_or_none(step.by.as_deref());
    out.done()
}

fn decode_step(row: &[u8]) -> Result<Step, Damaged> {
    let mut fields = Decoder::new(row, STEP_VERSION)?;
    let step = Step {
        at: fields.time()?,
        rule: *Rule::ALL.get(usize::from(fields.u8()?)).ok_or(Damaged)?,
        reason: fields.text()?.into(),
        day: fields.u32()?,
        from: (decode_state(&mut fields)?, fields.u32()?),
        to: (decode_state(&mut fields)?, fields.u32()?),
        allowance: if fields.flag()? { Some(fields.u64()?) } else { fields.u64().map(|_| None)? },
        figures: decode_figures(&mut fields)?,
        by: fields.text_or_none()?.map(Into::into),
    };
    fields.end()?;
    Ok(step)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn climbs_and_steps_read_back_as_they_were_written() {
        for (nth, state) in ClimbState::ALL.into_iter().enumerate() {
            let climb = Climb {
                state,
                stage: 3,
                cooled: 1,
                idle: 2,
                struck: nth % 2 == 0,
                pinned: (nth % 3 == 0).then_some(0),
                ..Climb::new(20_000, 20_010)
            };
            let figures = Figures { spent: 1, over: 2, free: 8, tried: 3, deferred: 4, refused: 5, unknown: 6, complained: 7 };
            let row = ClimbRow { source: "ip-a".into(), provider: "google".into(), climb, figures };
            assert_eq!(decode(&encode(&row)), Ok(row.clone()));
            assert_eq!(decode(&encode(&row)[..20]), Err(Damaged));
        }
        for rule in Rule::ALL {
            let step = Step {
                at: UNIX_EPOCH + Duration::from_millis(1_790_000_000_001),
                rule,
                reason: "because".into(),
                day: 20_010,
                from: (ClimbState::Warming, 2),
                to: (ClimbState::Holding, 1),
                allowance: (rule != Rule::Finish).then_some(7),
                figures: Figures { spent: 1, over: 2, free: 8, tried: 3, deferred: 4, refused: 5, unknown: 6, complained: 7 },
                by: (rule == Rule::Operator).then(|| "anna: why not".into()),
            };
            assert_eq!(decode_step(&encode_step(&step)), Ok(step));
        }
    }
}
