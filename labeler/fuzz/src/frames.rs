//! Frames: of a firehose, of label streams, of a Jetstream in both versions; and the parameters of `queryLabels`.

use atproto::firehose::{self, Change, item_length};
use atproto::label::Label;
use atproto::lexicon::ATTESTATION;
use atproto::stream::{self, Frame, SEQ_MAX, error_frame, info_frame, labels_frame};
use ipld_core::ipld::Ipld;
use labeler::strangers::{jetstream, query_labels};
use serde_json::Value;

pub(crate) fn fuzz(octets: &[u8]) {
    let Some((&kind, rest)) = octets.split_first() else { return };
    match kind & 3 {
        0 => of_a_firehose(rest),
        1 => of_labels(rest),
        2 => of_a_jetstream(rest),
        _ => parameters(rest),
    }
}

/// The length of an item is what a decoder takes, and nothing is read out of less than all.
fn items(octets: &[u8]) {
    let length = item_length(octets);
    assert!(length.is_none_or(|length| (1..=octets.len()).contains(&length)));
    if let Some(length) = length {
        assert_eq!(item_length(&octets[..length]), Some(length));
        assert_eq!(item_length(&octets[..length - 1]), None, "shorter, and whole");
    }
    // The decoder also takes strings of unknown length, which are not DAG-CBOR; a header with one is none.
    if let Ok(one) = serde_ipld_dagcbor::from_slice::<Ipld>(octets) {
        assert!(length.is_none_or(|length| length == octets.len()), "a decoder takes {one:?}");
        let strict = serde_ipld_dagcbor::to_vec(&one).is_ok_and(|again| again == octets);
        assert!(length.is_some() || !strict, "a decoder takes {one:?}");
    }
}

fn of_a_firehose(octets: &[u8]) {
    items(octets);
    let Ok(frame) = firehose::read(octets, ATTESTATION) else { return };
    assert!(
        octets.len() == 1
            || firehose::read(&octets[..octets.len() - 1], ATTESTATION) != Ok(frame.clone())
            || frame == firehose::Frame::Unknown
    );
    match frame {
        firehose::Frame::Event { change: Change::Records(rkeys), .. } => {
            assert!(rkeys.len() <= octets.len() && rkeys.iter().all(|rkey| rkey.len() <= octets.len()));
        }
        firehose::Frame::Info(name) | firehose::Frame::Error(name) => short(&name),
        _ => {}
    }
}

fn of_labels(octets: &[u8]) {
    items(octets);
    match stream::read(octets) {
        Ok(Frame::Labels { seq, labels }) => {
            assert!(seq <= SEQ_MAX && labels.len() <= octets.len());
            for label in labels.into_iter().flatten() {
                let again = labels_frame(seq, &label.to_cbor());
                assert_eq!(stream::read(&again), Ok(Frame::Labels { seq, labels: vec![Ok(label)] }));
            }
        }
        Ok(Frame::Info(name)) => {
            short(&name);
            assert_eq!(stream::read(&info_frame(&name, "x")), Ok(Frame::Info(name)));
        }
        Ok(Frame::Error(name)) => {
            short(&name);
            assert_eq!(stream::read(&error_frame(&name, "x")), Ok(Frame::Error(name)));
        }
        Ok(Frame::Unknown) | Err(_) => {}
    }
    // Whatever stands where a label should: the frame is read, or is none, and a label of it is what stands there.
    let seq = octets.len() as u64;
    if let (Ok(label), Ok(Frame::Labels { labels, .. })) = (Label::from_cbor(octets), stream::read(&labels_frame(seq, octets))) {
        assert_eq!(labels, [Ok(label)]);
    }
}

fn short(name: &str) {
    assert!(name.chars().count() <= 100);
}

/// What is read of a text is read of every other spelling of the same JSON.
fn of_a_jetstream(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    for version in [1, 2] {
        if let Ok(seen) = jetstream(version, text) {
            let Ok(value) = serde_json::from_str::<Value>(text) else { continue };
            assert_eq!(jetstream(version, &value.to_string()).as_ref(), Ok(&seen));
            assert_eq!(jetstream(version, &format!("{value:#}")).as_ref(), Ok(&seen));
        }
    }
}

fn parameters(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    if let Ok((patterns, limit)) = query_labels(text) {
        assert!((1..=1000).contains(&patterns) && (1..=250).contains(&limit));
        // What we do not know changes nothing.
        assert_eq!(query_labels(&format!("{text}&unknown=1")), Ok((patterns, limit)));
    }
}
