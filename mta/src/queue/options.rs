//! How the queue is kept.

use std::time::Duration;

use super::duplicates::RECORDS_MAX;
use super::faults::Faults;

/// How the queue is kept. The defaults are meant for production.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address space for the database, and so the most it may ever hold; memory and disk are taken as
    /// it fills. At half of it new mail is refused. Default: 64 GiB.
    pub map_bytes: usize,
    /// Size of a segment file. A larger body gets a larger one. Default: 64 MiB.
    pub segment_bytes: u64,
    /// Most requests in a transaction; the others wait for the next. Default: 1024.
    pub batch_requests: usize,
    /// Most rows that new mail adds in a transaction, one request excepted. Default: 16,384.
    pub batch_rows: usize,
    /// Most octets of bodies in a transaction, one request excepted. Default: 8 MiB.
    pub batch_bytes: usize,
    /// Free disk below which new mail is refused. Default: 256 MiB.
    pub free_bytes_floor: u64,
    /// Events kept; older ones leave. Default: 500,000.
    pub events_max: u64,
    /// Events older than this leave with the next mail. Default: none for its age.
    pub events_age_max: Option<Duration>,
    /// Submitted messages remembered, so that they are not queued again; beyond it the oldest are forgotten before
    /// their time. Default: 262,144.
    pub submitted_max: usize,
    /// For tests.
    pub faults: Faults,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            map_bytes: 64 << 30,
            segment_bytes: 64 << 20,
            batch_requests: 1024,
            batch_rows: 16 << 10,
            batch_bytes: 8 << 20,
            free_bytes_floor: 256 << 20,
            events_max: 500_000,
            events_age_max: None,
            submitted_max: RECORDS_MAX,
            faults: Faults::default(),
        }
    }
}
