//! What atproto means to mail: who an operator is, what they declared, and what is said of them.
//!
//! Both daemons use this crate: the labeler to check attestations and to sign labels, the MTA to verify the labels that it
//! polls. Nothing here opens a socket, reads a clock or throws dice; `now` and key material are arguments.
//!
//! | module | what it answers |
//! |---|---|
//! | [`did`] | what a DID document says: keys, handle, PDS, labeler |
//! | [`jwt`] | who calls a method of ours? |
//! | [`key`] | `did:key` and Multikey; does this key vouch for these octets? |
//! | [`label`] | a label to the octet: CBOR, JSON, signature; which labels are in force |
//! | [`lexicon`] | what a member attests, and what may be said of them |
//! | [`proof`], [`car`] | is this record really in that repository? |
//! | [`firehose`] | which records and accounts changed |
//! | [`plc`] | what the next operation of a did:plc says |
//! | [`sending`] | what MTAs report of mail, and which doubts they are told |
//! | [`stream`] | which labels a labeler issued, as it streams them |
//!
//! The types are atrium's where they keep the wire exact; `label` says where they do not.

pub mod car;
pub mod did;
pub mod firehose;
pub mod jwt;
pub mod key;
pub mod label;
pub mod lexicon;
pub mod plc;
pub mod proof;
pub mod sending;
pub mod stream;

pub use atrium_api::types::string::{Datetime, Did, Handle, Nsid, RecordKey};

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The instant that an atproto datetime names, to the nanosecond.
pub fn instant(datetime: &Datetime) -> SystemTime {
    let parsed = datetime.as_ref();
    let (secs, nanos) = (parsed.timestamp(), Duration::from_nanos(u64::from(parsed.timestamp_subsec_nanos())));
    // The year 0 to 9999 that the format can say is within what SystemTime holds on Linux.
    let whole = Duration::from_secs(secs.unsigned_abs());
    if secs < 0 { UNIX_EPOCH - whole + nanos } else { UNIX_EPOCH + whole + nanos }
}

/// An instant as atproto writes it: UTC, with exactly three digits of milliseconds.
///
/// atrium's own `Datetime::now` prints microseconds, which other implementations cut; milliseconds are what all of them agree on.
pub fn datetime(at: SystemTime) -> Datetime {
    let millis = at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    let stamp = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    match format!("{stamp:.3}").parse() {
        Ok(datetime) => datetime,
        Err(_) => unreachable!("jiff prints RFC 3339, which atrium reads"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datetime_is_printed_with_milliseconds_and_read_back() {
        let at = UNIX_EPOCH + Duration::from_millis(1_795_426_937_070);
        let printed = datetime(at);
        assert_eq!(printed.as_str(), "2026-11-23T09:42:17.070Z");
        assert_eq!(instant(&printed), at);
        assert_eq!(datetime(UNIX_EPOCH + Duration::from_secs(7)).as_str(), "1970-01-01T00:00:07.000Z");
    }

    #[test]
    fn instants_before_1970_are_not_a_panic() {
        let before: Datetime = "1960-01-01T00:00:00.5Z".parse().unwrap();
        assert!(instant(&before) < UNIX_EPOCH);
        assert_eq!(datetime(instant(&before)).as_str(), "1970-01-01T00:00:00.000Z");
    }
}
