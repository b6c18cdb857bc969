//! The table `pins`: which source a greylisted delivery stays with, so that after a restart the host sees the pair of addresses that it
//! knows. Small: a row for each delivery that a host has put off, for some hours; the scheduler bounds them.

use scheduler::{Pinned, QueueId};

use super::codec::{Damaged, Decoder, Encoder};
use super::handle::Queue;
use super::reader::Reader;
use super::types::QueueError;

const VERSION: u8 = 1;

/// More rows than the scheduler remembers; past it they are left where they are, and those deliveries may come from any source.
const ROWS_MAX: usize = 32_768;

impl Queue {
    /// Writes down which source each of these stays with, in one transaction.
    pub async fn note_pins(&self, news: Vec<Pinned>) -> Result<(), QueueError> {
        self.transact(move |txn, tables| {
            for pinned in &news {
                let key = key(pinned);
                match encode(pinned) {
                    Some(row) => tables.pins.put(txn, &key, &row)?,
                    None => drop(tables.pins.delete(txn, &key)?),
                }
            }
            Ok(())
        })
        .await
    }
}

impl Reader {
    /// What was written down. A damaged row is left out: that delivery may come from any source.
    pub fn pins(&self) -> Result<Vec<Pinned>, QueueError> {
        let txn = self.env.read_txn()?;
        let mut pins = Vec::new();
        for entry in self.tables.pins.iter(&txn)?.take(ROWS_MAX) {
            let (key, row) = entry?;
            match decode(key, row) {
                Ok(pinned) => pins.push(pinned),
                Err(Damaged) => tracing::error!("which source a delivery stays with cannot be read: it may come from another"),
            }
        }
        Ok(pins)
    }
}

fn key(pinned: &Pinned) -> Vec<u8> {
    [&pinned.id.0.to_be_bytes()[..], pinned.domain.as_bytes()].concat()
}

/// None: there is nothing to be remembered.
fn encode(pinned: &Pinned) -> Option<Vec<u8>> {
    let mut row = Encoder::new(VERSION);
    row.text(pinned.source.as_deref()?).time(pinned.until);
    Some(row.done())
}

fn decode(key: &[u8], row: &[u8]) -> Result<Pinned, Damaged> {
    let (id, domain) = key.split_first_chunk().ok_or(Damaged)?;
    let domain = std::str::from_utf8(domain).map_err(|_| Damaged)?.into();
    let mut fields = Decoder::new(row, VERSION)?;
    let (source, until) = (Some(fields.text()?.into()), fields.time()?);
    fields.end()?;
    Ok(Pinned { id: QueueId(u64::from_be_bytes(*id)), domain, source, until })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn what_a_delivery_stays_with_reads_back_as_it_was_written() {
        let until = UNIX_EPOCH + Duration::from_millis(1_790_000_000_001);
        let pinned = Pinned { id: QueueId(9 << 20), domain: "a.test".into(), source: Some("ip-a".into()), until };
        let (key, row) = (key(&pinned), encode(&pinned).unwrap());
        assert_eq!(decode(&key, &row), Ok(pinned.clone()));
        assert_eq!((decode(&key[..7], &row), decode(&key, &row[..row.len() - 1])), (Err(Damaged), Err(Damaged)));
        assert_eq!(encode(&Pinned { source: None, ..pinned }), None);
    }
}
