//! Reading: what is doubted about all members, at an interval, some hundred in one request.
//!
//! What was answered is kept in the table `standing`, so that it counts after a restart too, until it is too old
//! (`[standing] stale_after`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use atproto::sending::{DIDS_MAX, Standing};
use serde::{Deserialize, Serialize};

use super::Counterpart;
use crate::{
    config,
    control::{daemon::Daemon, fetch::escape, labels::Row, metrics},
    policy::doubts::{Doubted, Doubts},
    queue::{QueueError, Reader},
};

/// Octets of the query of a URL: nginx and many others take 8 KiB for a request line.
const QUERY_BYTES_MAX: usize = 6 << 10;

/// A row of the table `standing`, under the member's DID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    asked: SystemTime,
    standing: Standing,
}

/// Reads until dropped.
pub(super) async fn run(daemon: &Daemon, from: &impl Counterpart, settings: &config::Standing) {
    let mut well = true;
    loop {
        match daemon.read_standing(from, settings).await {
            Ok(()) if !well => {
                tracing::info!("standing is read again");
                well = true;
            }
            Ok(()) => {}
            Err(error) => {
                ::metrics::counter!(metrics::STANDING_READS_FAILED).increment(1);
                if well {
                    tracing::warn!(error, "standing cannot be read; what was known counts until it is too old");
                }
                well = false;
            }
        }
        tokio::time::sleep(settings.read_interval).await;
    }
}

impl Daemon {
    /// Asks about all members once. What was answered before a failure counts.
    pub(super) async fn read_standing(&self, from: &impl Counterpart, settings: &config::Standing) -> Result<(), String> {
        let reader = self.parts.reader.clone();
        let read = tokio::task::spawn_blocking(move || read_rows(&reader)).await.map_err(|error| error.to_string())?;
        let mut known = known(read.map_err(|error| error.to_string())?);
        let mut members: Vec<String> = self.rows().members.values().map(|member| member.did.clone()).collect();
        members.sort_unstable();
        members.dedup();
        let mut changes: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        let gone = known.extract_if(.., |did, _| members.binary_search(did).is_err());
        changes.extend(gone.map(|(did, _)| (did.into_bytes(), None)));
        let mut outcome = Ok(());
        for batch in batches(&members) {
            let now = self.now();
            let standings = match from.read(batch).await {
                Ok(standings) => standings,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            };
            // About whom we did not ask, we do not remember.
            for standing in standings.into_iter().filter(|it| batch.iter().any(|did| did == it.did.as_str())) {
                let did = standing.did.as_str().to_owned();
                let fresh = Known { asked: now, standing };
                // The time alone is kept on disk only as exactly as it needs to be: not a write a read.
                let old = known.get(&did).is_none_or(|before| {
                    let age = now.duration_since(before.asked).unwrap_or_default();
                    before.standing != fresh.standing || age > settings.stale_after / 8
                });
                if old {
                    let row = serde_json::to_vec(&fresh).map_err(|error| error.to_string())?;
                    changes.push((did.clone().into_bytes(), Some(row)));
                }
                known.insert(did, fresh);
            }
        }
        self.publish_doubts(Arc::new(doubts_of(known)));
        if changes.is_empty() {
            return outcome;
        }
        let written = self.parts.queue.transact(move |txn, tables| {
            for (did, row) in &changes {
                match row {
                    Some(row) => tables.standing.put(txn, did, row)?,
                    None => drop(tables.standing.delete(txn, did)?),
                }
            }
            Ok(())
        });
        written.await.map_err(|error| error.to_string())?;
        outcome
    }
}

/// For the time before the first answer.
pub(crate) fn kept_doubts(reader: &Reader) -> Result<Doubts, QueueError> {
    Ok(doubts_of(known(read_rows(reader)?)))
}

fn read_rows(reader: &Reader) -> Result<Vec<Row>, QueueError> {
    reader.read(|txn, tables| {
        let rows = tables.standing.iter(txn)?.map(|row| row.map(|(did, row)| (did.to_vec(), row.to_vec())));
        Ok(rows.collect::<Result<_, _>>()?)
    })
}

/// A row that cannot be read is a member not asked about yet.
fn known(rows: Vec<Row>) -> BTreeMap<String, Known> {
    let read = |(did, row): Row| Some((String::from_utf8(did).ok()?, serde_json::from_slice(&row).ok()?));
    rows.into_iter().filter_map(read).collect()
}

fn doubts_of(known: BTreeMap<String, Known>) -> Doubts {
    Doubts::new(known.into_iter().map(|(did, Known { asked, standing })| {
        let says = standing.doubts.iter().map(ToString::to_string).collect();
        let pause = standing.pause().map(ToString::to_string);
        (did, Doubted { asked, says, pause })
    }))
}

/// As many at a time as one request can ask about; at least one.
fn batches(mut members: &[String]) -> Vec<&[String]> {
    let mut batches = Vec::new();
    while !members.is_empty() {
        let mut octets = 0;
        let fits = members.iter().take(DIDS_MAX).take_while(|did| {
            octets += "dids=&".len() + escape(did).len();
            octets <= QUERY_BYTES_MAX
        });
        let (batch, rest) = members.split_at(fits.count().max(1));
        batches.push(batch);
        members = rest;
    }
    batches
}
