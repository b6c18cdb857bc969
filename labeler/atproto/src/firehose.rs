//! Frames of `com.atproto.sync.subscribeRepos`: which accounts and records changed.
//!
//! A frame is two DAG-CBOR items, a header and a body. What a relay says is only a hint (it could be anyone): whoever acts on it fetches the record
//! with its proof. So a frame is read for *where to look*, its blocks are passed over, and unknown kinds are ignored as the specification asks.

use serde::Deserialize;

use crate::Did;

/// Frames above this are refused; the specification allows 5 MB.
pub const FRAME_BYTES_MAX: usize = 5 << 20;

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Something happened to an account.
    Event {
        /// Position in the stream; remember it to go on from there.
        seq: i64,
        /// Whose account.
        did: Did,
        /// What happened.
        change: Change,
    },
    /// A remark of the server (`OutdatedCursor`).
    Info(String),
    /// The server ends the stream with an error (`FutureCursor`, `ConsumerTooSlow`).
    Error(String),
    /// A kind that we do not know: to be ignored.
    Unknown,
}

/// What happened to an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Records written or deleted; the keys in the wanted collection.
    Records(Vec<String>),
    /// Anything else about the account: handle, keys, PDS, status.
    Account,
    /// Its repository is in a state that the stream does not spell out (`#sync`, a commit that is `tooBig`): any record may be new, changed or gone.
    Repo,
}

/// Not a frame: the connection is of no use any more (spec: "drop the connection").
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed frame: {0}")]
pub struct FrameError(pub(crate) String);

/// Reads one frame; of commits, the keys of `collection`.
pub fn read(octets: &[u8], collection: &str) -> Result<Frame, FrameError> {
    #[derive(Deserialize)]
    struct Header {
        op: i64,
        t: Option<String>,
    }
    if octets.len() > FRAME_BYTES_MAX {
        return Err(FrameError(format!("longer than {FRAME_BYTES_MAX} octets")));
    }
    let length = item_length(octets).ok_or_else(|| FrameError("no header".into()))?;
    let (header, body) = octets.split_at(length);
    let header: Header = decode(header)?;
    match (header.op, header.t.as_deref()) {
        (1, Some("#commit")) => commit(body, collection),
        (1, Some("#identity" | "#account")) => account(body, Change::Account),
        (1, Some("#sync")) => account(body, Change::Repo),
        (1, Some("#info")) => Ok(Frame::Info(named(body)?)),
        (-1, _) => Ok(Frame::Error(named(body)?)),
        _ => Ok(Frame::Unknown),
    }
}

fn commit(body: &[u8], collection: &str) -> Result<Frame, FrameError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Commit<'a> {
        seq: i64,
        repo: Did,
        #[serde(borrow)]
        ops: Vec<Op<'a>>,
        #[serde(default)]
        too_big: bool,
    }
    #[derive(Deserialize)]
    struct Op<'a> {
        path: &'a str,
    }
    let commit: Commit<'_> = decode(body)?;
    let key = |op: &Op<'_>| op.path.strip_prefix(collection)?.strip_prefix('/').map(str::to_owned);
    let change = if commit.too_big { Change::Repo } else { Change::Records(commit.ops.iter().filter_map(key).collect()) };
    Ok(Frame::Event { seq: commit.seq, did: commit.repo, change })
}

fn account(body: &[u8], change: Change) -> Result<Frame, FrameError> {
    #[derive(Deserialize)]
    struct Account {
        seq: i64,
        did: Did,
    }
    let account: Account = decode(body)?;
    Ok(Frame::Event { seq: account.seq, did: account.did, change })
}

fn named(body: &[u8]) -> Result<String, FrameError> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(alias = "error")]
        name: String,
    }
    decode::<Named>(body).map(|named| named.name.chars().take(100).collect())
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(octets: &'a [u8]) -> Result<T, FrameError> {
    serde_ipld_dagcbor::from_slice(octets).map_err(|error| FrameError(error.to_string()))
}

/// Octets of the first CBOR item, without recursion: what is still to come is a number.
pub fn item_length(octets: &[u8]) -> Option<usize> {
    let (mut at, mut items) = (0usize, 1u64);
    while items > 0 {
        items -= 1;
        let first = *octets.get(at)?;
        at += 1;
        let extra = match first & 0x1f {
            0..=23 => 0,
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            // Lengths that are not known are not DAG-CBOR.
            _ => return None,
        };
        let argument = octets.get(at..at + extra)?.iter().fold(0u64, |value, octet| value << 8 | u64::from(*octet));
        let argument = if extra == 0 { u64::from(first & 0x1f) } else { argument };
        at += extra;
        match first >> 5 {
            2 | 3 => at = at.checked_add(usize::try_from(argument).ok()?)?,
            4 => items = items.checked_add(argument)?,
            5 => items = items.checked_add(argument.checked_mul(2)?)?,
            6 => items += 1,
            _ => {}
        }
        if at > octets.len() {
            return None;
        }
    }
    Some(at)
}

/// A frame of `com.atproto.label.subscribeLabels` with these labels, as [`crate::label::Label::to_cbor`] gave them.
pub fn labels_frame(seq: i64, labels: &[crate::label::Label]) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Header {
        op: i64,
        t: &'static str,
    }
    #[derive(serde::Serialize)]
    struct Body<'a> {
        seq: i64,
        labels: &'a [crate::label::Label],
    }
    let header = serde_ipld_dagcbor::to_vec(&Header { op: 1, t: "#labels" });
    let body = serde_ipld_dagcbor::to_vec(&Body { seq, labels });
    match (header, body) {
        (Ok(header), Ok(body)) => [header, body].concat(),
        _ => unreachable!("a frame is numbers and labels"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipld_core::ipld;
    use ipld_core::ipld::Ipld;

    const COLLECTION: &str = "email.atmos.attestation";

    fn frame(header: &Ipld, body: &Ipld) -> Vec<u8> {
        [serde_ipld_dagcbor::to_vec(header).unwrap(), serde_ipld_dagcbor::to_vec(body).unwrap()].concat()
    }

    fn commit(too_big: bool) -> Vec<u8> {
        let header = ipld!({"op": 1, "t": "#commit"});
        let body = ipld!({
            "seq": 42, "repo": "did:plc:abc", "rev": "3n2xtohno522w", "tooBig": too_big, "blocks": Ipld::Bytes(vec![0; 500]), "since": null,
            "ops": [
                {"action": "create", "path": "email.atmos.attestation/member.example", "cid": null},
                {"action": "delete", "path": "email.atmos.attestationx/other.example"},
                {"action": "update", "path": "app.bsky.feed.post/3n2xtohno522w"},
            ],
        });
        frame(&header, &body)
    }

    fn event(change: Change) -> Frame {
        Frame::Event { seq: 42, did: "did:plc:abc".parse().unwrap(), change }
    }

    #[test]
    fn a_commit_names_the_keys_of_the_collection() {
        assert_eq!(read(&commit(false), COLLECTION), Ok(event(Change::Records(vec!["member.example".into()]))));
        assert_eq!(read(&commit(true), COLLECTION), Ok(event(Change::Repo)));
    }

    #[test]
    fn accounts_remarks_errors_and_the_unknown() {
        let body = ipld!({"seq": 42, "did": "did:plc:abc", "time": "x", "active": false});
        for (t, change) in [("#identity", Change::Account), ("#account", Change::Account), ("#sync", Change::Repo)] {
            assert_eq!(read(&frame(&ipld!({"op": 1, "t": t}), &body), COLLECTION), Ok(event(change)));
        }
        assert_eq!(read(&frame(&ipld!({"op": 1, "t": "#new"}), &body), COLLECTION), Ok(Frame::Unknown));
        assert_eq!(read(&frame(&ipld!({"op": 2}), &body), COLLECTION), Ok(Frame::Unknown));
        let info = frame(&ipld!({"op": 1, "t": "#info"}), &ipld!({"name": "OutdatedCursor", "message": "x"}));
        assert_eq!(read(&info, COLLECTION), Ok(Frame::Info("OutdatedCursor".into())));
        let error = frame(&ipld!({"op": -1}), &ipld!({"error": "FutureCursor"}));
        assert_eq!(read(&error, COLLECTION), Ok(Frame::Error("FutureCursor".into())));
    }

    /// What a real PDS (0.5) sends while an account is made, attests a domain, changes its handle, is deactivated and activated, is
    /// taken down and put back, and is deleted.
    #[test]
    fn the_life_of_an_account_as_a_pds_tells_it() {
        let hex = |line: &str| -> Vec<u8> {
            (0..line.len() / 2).map(|at| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).unwrap()).collect()
        };
        let records = |keys: &[&str]| Change::Records(keys.iter().map(|key| (*key).to_owned()).collect());
        let mut expected = vec![Change::Account; 13];
        (expected[2], expected[4]) = (records(&[]), records(&["member.example"]));
        // Said when it is made, and when it is activated again.
        (expected[3], expected[9]) = (Change::Repo, Change::Repo);
        let frames: Vec<Vec<u8>> = include_str!("../tests/samples/frames.hex").lines().map(hex).collect();
        assert_eq!(frames.len(), expected.len());
        for (seq, (frame, change)) in (1..).zip(frames.iter().zip(expected)) {
            let did = "did:plc:7sjikdv2eal2a63ig7n3tgpl".parse().unwrap();
            assert_eq!(read(frame, COLLECTION), Ok(Frame::Event { seq, did, change }), "frame {seq}");
        }
    }

    #[test]
    fn rubbish_is_an_error_and_never_a_panic() {
        let whole = commit(false);
        for length in 0..whole.len() {
            assert!(read(&whole[..length], COLLECTION).is_err(), "{length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _ = read(&flipped, COLLECTION);
        }
        for octets in [
            &[0xff; 9][..],
            &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x9b, 0x7f, 0, 0, 0, 0, 0, 0, 0],
            &[0x81; 100_000],
            &[0xdb; 100_000],
            &vec![0; FRAME_BYTES_MAX + 1],
        ] {
            assert!(read(octets, COLLECTION).is_err());
        }
    }
}
