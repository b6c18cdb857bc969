//! Frames of `com.atproto.label.subscribeLabels`: written by a labeler, read by whoever follows one.
//!
//! A frame is two DAG-CBOR items, a header (`{op: 1, t: "#labels"}`, or `{op: -1}` before an error) and a body (event stream spec, "Framing").
//! Labels are put into a frame as the octets that they were kept in: what was signed is what is sent.

use serde::{Deserialize, Serialize};

pub use crate::firehose::{FRAME_BYTES_MAX, FrameError};
use crate::firehose::{decode, item_length};
use crate::label::{Label, LabelError};

/// The largest number of a frame: readers may hold it in a double (event stream spec, "Sequence numbers").
pub const SEQ_MAX: u64 = (1 << 53) - 1;

/// The cursor is older than what is kept; everything that is kept follows.
pub const OUTDATED_CURSOR: &str = "OutdatedCursor";
/// The cursor is beyond what was ever sent. The stream ends.
pub const FUTURE_CURSOR: &str = "FutureCursor";
/// The reader does not keep up. The stream ends.
pub const CONSUMER_TOO_SLOW: &str = "ConsumerTooSlow";

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Labels were issued. They are as they came: verify each.
    Labels {
        /// Position in the stream; remember it to go on from there.
        seq: u64,
        /// The labels, and why one of them cannot be read.
        labels: Vec<Result<Label, LabelError>>,
    },
    /// A remark of the server, such as [`OUTDATED_CURSOR`].
    Info(String),
    /// The server ends the stream: [`FUTURE_CURSOR`], [`CONSUMER_TOO_SLOW`].
    Error(String),
    /// A kind that we do not know: to be ignored.
    Unknown,
}

#[derive(Serialize, Deserialize)]
struct Header {
    op: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    t: Option<String>,
}

/// A frame with one label, given in DAG-CBOR with its signature.
pub fn labels_frame(seq: u64, label: &[u8]) -> Vec<u8> {
    // {op: 1, t: "#labels"}, then {seq, labels: [label]}: maps of two, keys in the order of DAG-CBOR, shorter ones first.
    const HEADER: &[u8] = b"\xa2\x61t\x67#labels\x62op\x01";
    let mut frame = Vec::with_capacity(HEADER.len() + 24 + label.len());
    frame.extend_from_slice(HEADER);
    frame.extend_from_slice(b"\xa2\x63seq");
    number(seq, &mut frame);
    frame.extend_from_slice(b"\x66labels\x81");
    frame.extend_from_slice(label);
    frame
}

/// A remark.
pub fn info_frame(name: &str, message: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        name: &'a str,
        message: &'a str,
    }
    frame(&Header { op: 1, t: Some("#info".into()) }, &Body { name, message })
}

/// The end of a stream.
pub fn error_frame(error: &str, message: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        error: &'a str,
        message: &'a str,
    }
    frame(&Header { op: -1, t: None }, &Body { error, message })
}

fn frame(header: &Header, body: &impl Serialize) -> Vec<u8> {
    match (serde_ipld_dagcbor::to_vec(header), serde_ipld_dagcbor::to_vec(body)) {
        (Ok(header), Ok(body)) => [header, body].concat(),
        _ => unreachable!("strings and a number"),
    }
}

/// Reads one frame.
pub fn read(octets: &[u8]) -> Result<Frame, FrameError> {
    #[derive(Deserialize)]
    struct Labels {
        seq: u64,
        labels: Vec<ipld_core::ipld::Ipld>,
    }
    #[derive(Deserialize)]
    struct Named {
        #[serde(alias = "error")]
        name: String,
    }
    if octets.len() > FRAME_BYTES_MAX {
        return Err(FrameError(format!("longer than {FRAME_BYTES_MAX} octets")));
    }
    let length = item_length(octets).ok_or_else(|| FrameError("no header".into()))?;
    let (header, body) = octets.split_at(length);
    let header: Header = decode(header)?;
    let named = || decode::<Named>(body).map(|named| named.name.chars().take(100).collect());
    match (header.op, header.t.as_deref()) {
        (1, Some("#labels")) => {
            let Labels { seq, labels } = decode(body)?;
            if seq > SEQ_MAX {
                return Err(FrameError("a number beyond 2^53".into()));
            }
            // One that cannot be read does not hide the others.
            let label = |ipld| serde_ipld_dagcbor::to_vec(&ipld).map_err(|error| LabelError::Malformed(error.to_string()));
            let labels = labels.into_iter().map(|ipld| Label::from_cbor(&label(ipld)?)).collect();
            Ok(Frame::Labels { seq, labels })
        }
        (1, Some("#info")) => Ok(Frame::Info(named()?)),
        (-1, _) => Ok(Frame::Error(named()?)),
        _ => Ok(Frame::Unknown),
    }
}

/// An unsigned integer in its shortest form (RFC 8949 §4.2.1).
fn number(value: u64, out: &mut Vec<u8>) {
    let octets = value.to_be_bytes();
    match value {
        0..=0x17 => out.push(octets[7]),
        0x18..=0xff => out.extend_from_slice(&[0x18, octets[7]]),
        0x100..=0xffff => out.extend_from_slice(&[&[0x19], &octets[6..]].concat()),
        0x1_0000..=0xffff_ffff => out.extend_from_slice(&[&[0x1a], &octets[4..]].concat()),
        _ => out.extend_from_slice(&[&[0x1b], &octets[..]].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SigningKey;

    fn label() -> Label {
        let mut label = Label::account(
            "did:web:labeler.example.test".parse().unwrap(),
            &"did:plc:7tcx4xxjwidnicieiwtrpyal".parse().unwrap(),
            "relay-member",
            "2026-11-23T09:42:17.771Z".parse().unwrap(),
        );
        label.sign(&SigningKey::from_octets(&[0x11; 32]).unwrap());
        label
    }

    #[test]
    fn a_frame_is_what_an_encoder_would_write() {
        #[derive(Serialize)]
        struct Body {
            seq: u64,
            labels: Vec<Label>,
        }
        for seq in [0, 1, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, SEQ_MAX] {
            let written = labels_frame(seq, &label().to_cbor());
            let header = Header { op: 1, t: Some("#labels".into()) };
            assert_eq!(written, frame(&header, &Body { seq, labels: vec![label()] }), "{seq}");
            assert_eq!(read(&written).unwrap(), Frame::Labels { seq, labels: vec![Ok(label())] });
        }
    }

    #[test]
    fn remarks_and_errors_are_read_back() {
        assert_eq!(read(&info_frame(OUTDATED_CURSOR, "some are gone")).unwrap(), Frame::Info(OUTDATED_CURSOR.into()));
        assert_eq!(read(&error_frame(FUTURE_CURSOR, "beyond")).unwrap(), Frame::Error(FUTURE_CURSOR.into()));
    }

    #[test]
    fn rubbish_is_an_error_and_an_unknown_kind_is_none() {
        for wrong in [&b""[..], b"\xa2", b"\xff", &[0x81; 10_000], &labels_frame(1, b"\xff"), &labels_frame(1 << 53, b"\xa0")] {
            assert!(read(wrong).is_err(), "{wrong:x?}");
        }
        assert_eq!(read(b"\xa2\x61t\x64#new\x62op\x01\xa0").unwrap(), Frame::Unknown);
        assert_eq!(read(b"\xa1\x62op\x07\xa0").unwrap(), Frame::Unknown);
        let Frame::Labels { labels, .. } = read(&labels_frame(1, b"\xa0")).unwrap() else { panic!("labels") };
        assert!(labels[0].is_err());
    }
}
