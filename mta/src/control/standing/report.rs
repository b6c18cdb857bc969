//! Reporting: the sums of days that are over, and of those that changed since they were reported.

use std::ops::Bound;

use atproto::sending::{Day, REPORTS_MAX, Report, Reported, Wrong};

use super::Counterpart;
use super::count::{Sum, day_and_member, key, read_sum, write_sum};
use crate::{
    control::{daemon::Daemon, metrics},
    queue::{QueueError, Reader},
};

/// Rows looked at in one read transaction.
const LOOKED_AT: usize = 5000;
/// Octets of a call; the labeler takes 64 KiB.
const BODY_BYTES_MAX: usize = 60_000;
/// Octets of a report beside its DID, at the most.
const REPORT_BYTES: usize = 256;

/// A sum to be reported: whose day, and the revision that is told.
type Due = (Day, u32, Sum);

impl Daemon {
    /// Reports all of the days before `until` that is not told yet, and drops what is too old to be. Whether that was all: the
    /// labeler may think that a day is not over.
    pub(super) async fn report_sending(&self, to: &impl Counterpart, until: Day) -> Result<bool, String> {
        self.drop_old_sending().await?;
        let mut all = true;
        let mut from = Some(Vec::new());
        while let Some(begin) = from.take() {
            let reader = self.parts.reader.clone();
            let found = tokio::task::spawn_blocking(move || due(&reader, &begin, until)).await;
            let (due, next) = found.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            from = next;
            let mut due = &due[..];
            while !due.is_empty() {
                let (reports, taken) = self.reports(due);
                let (batch, rest) = due.split_at(taken);
                due = rest;
                let reported = if reports.is_empty() { Reported::default() } else { to.report(reports).await? };
                all &= self.note_reported(batch, &reported).await?;
            }
        }
        Ok(all)
    }

    /// As many as fit into one call, and how many rows those are. Of who is no longer a member nothing is told.
    fn reports(&self, due: &[Due]) -> (Vec<Report>, usize) {
        let rows = self.rows();
        let (mut reports, mut octets, mut taken) = (Vec::new(), 0, 0);
        for (day, member, sum) in due {
            let member = rows.members.get(member);
            if let Some((member, did)) = member.and_then(|member| Some((member, member.did.parse().ok()?))) {
                octets += REPORT_BYTES + member.did.len();
                if octets > BODY_BYTES_MAX || reports.len() == REPORTS_MAX {
                    break;
                }
                let counts = atproto::sending::Counts { suspended: member.suspended.is_some(), ..sum.counts };
                reports.push(Report { did, day: *day, revision: sum.revision, counts });
            }
            taken += 1;
        }
        (reports, taken.max(1))
    }

    /// Everything but what the labeler thinks is not over yet is done with, refused or not.
    async fn note_reported(&self, batch: &[Due], reported: &Reported) -> Result<bool, String> {
        ::metrics::counter!(metrics::SENDING_REPORTED).increment(reported.taken);
        let unknown = reported.refused.iter().filter(|refused| refused.reason != Wrong::InTheFuture).count();
        if unknown > 0 {
            tracing::info!(reports = unknown, "the labeler does not want some reports: no attestation, or too old");
        }
        let early: Vec<Day> =
            reported.refused.iter().filter(|it| it.reason == Wrong::InTheFuture).map(|refused| refused.day).collect();
        let all = early.is_empty();
        let done: Vec<Due> = batch.iter().filter(|(day, ..)| !early.contains(day)).copied().collect();
        let written = self.parts.queue.transact(move |txn, tables| {
            for (day, member, told) in &done {
                let key = key(*day, *member);
                // Gone meanwhile, with its member.
                let Some(mut sum) = tables.sending.get(txn, &key)?.map(read_sum) else { continue };
                sum.reported = sum.reported.max(told.revision);
                tables.sending.put(txn, &key, &write_sum(&sum)?)?;
            }
            Ok(())
        });
        written.await.map(|()| all).map_err(|error| error.to_string())
    }
}

/// Sums of days before `until` that were not told as they are, in a part of the table, and where the next part begins.
fn due(reader: &Reader, begin: &[u8], until: Day) -> Result<(Vec<Due>, Option<Vec<u8>>), QueueError> {
    reader.read(|txn, tables| {
        let end = key(until, 0);
        let begin = if begin.is_empty() { Bound::Unbounded } else { Bound::Excluded(begin) };
        let (mut due, mut next) = (Vec::new(), None);
        for (nth, entry) in tables.sending.range(txn, &(begin, Bound::Excluded(&end[..])))?.enumerate() {
            let (key, row) = entry?;
            let sum = read_sum(row);
            if let Some((day, member)) = day_and_member(key).filter(|_| sum.revision > sum.reported) {
                due.push((day, member, sum));
            }
            if nth + 1 == LOOKED_AT {
                next = Some(key.to_vec());
                break;
            }
        }
        Ok((due, next))
    })
}
