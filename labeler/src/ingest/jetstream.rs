//! Messages of a Jetstream, in both of its versions: JSON, unsigned, so hints at best.
//!
//! Version 1 (`/subscribe`) sends bare events whose cursor is a time in microseconds. Version 2 (`network.bsky.jetstream.subscribeEvents`)
//! frames them as `xrpc.v1.json` does, which it speaks without being asked to, and numbers them; its cursor is inclusive.

use atproto::Did;
use atproto::lexicon::ATTESTATION;
use serde::Deserialize;
use url::Url;

use super::Seen;
use crate::store::Touch;

/// The method of version 2, as the path of a URL ends in it.
pub(crate) const V2: &str = "/xrpc/network.bsky.jetstream.subscribeEvents";
/// From here on version 2 takes a cursor for a time in microseconds; this one is in 2001, and means the oldest event that it has.
const OLDEST: i64 = 1_000_000_000_000_000;

/// What version 1 is asked.
pub(super) fn ask_v1(url: &mut Url, cursor: Option<i64>) {
    // Without a cursor it begins now; with 0, at the oldest that it has.
    let cursor = cursor.unwrap_or(0).to_string();
    url.query_pairs_mut().append_pair("wantedCollections", ATTESTATION).append_pair("cursor", &cursor);
}

/// What version 2 is asked.
pub(super) fn ask_v2(url: &mut Url, cursor: Option<i64>) {
    let cursor = cursor.unwrap_or(OLDEST).to_string();
    let mut query = url.query_pairs_mut();
    for kind in ["commit", "identity", "account", "sync"] {
        query.append_pair("kinds", kind);
    }
    query.append_pair("collections", ATTESTATION).append_pair("cursor", &cursor);
}

/// A message of version 1.
pub(crate) fn read_v1(text: &str) -> Result<Seen, serde_json::Error> {
    #[derive(Deserialize)]
    struct Event {
        did: Did,
        time_us: i64,
        kind: String,
        commit: Option<Commit>,
    }
    #[derive(Deserialize)]
    struct Commit {
        collection: String,
        rkey: String,
    }
    let event: Event = serde_json::from_str(text)?;
    let touched = match (event.kind.as_str(), event.commit) {
        ("commit", Some(commit)) if commit.collection == ATTESTATION => vec![Touch::Record(event.did, commit.rkey)],
        ("identity" | "account", _) => vec![Touch::Account(event.did)],
        _ => Vec::new(),
    };
    Ok(Seen::Event { cursor: event.time_us, touched })
}

/// A frame of version 2. Kinds of frames and messages that we do not know are passed over, as proposal 0015 asks.
pub(crate) fn read_v2(text: &str) -> Result<Seen, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(tag = "$type")]
    enum Frame {
        #[serde(rename = "message")]
        Message { payload: Message },
        #[serde(rename = "error")]
        Error { error: String },
        #[serde(other)]
        Unknown,
    }
    #[derive(Deserialize)]
    #[serde(tag = "$type")]
    enum Message {
        #[serde(rename = "network.bsky.jetstream.subscribeEvents#commit")]
        Commit { seq: i64, did: Did, collection: String, rkey: String },
        #[serde(
            rename = "network.bsky.jetstream.subscribeEvents#identity",
            alias = "network.bsky.jetstream.subscribeEvents#account"
        )]
        Account { seq: i64, did: Did },
        #[serde(rename = "network.bsky.jetstream.subscribeEvents#sync")]
        Sync { seq: i64, did: Did },
        #[serde(rename = "network.bsky.jetstream.subscribeEvents#info")]
        Info { name: String },
        #[serde(other)]
        Unknown,
    }
    let short = |name: String| name.chars().take(100).collect();
    Ok(match serde_json::from_str(text)? {
        Frame::Message { payload: Message::Commit { seq, did, collection, rkey } } => {
            let touched = if collection == ATTESTATION { vec![Touch::Record(did, rkey)] } else { Vec::new() };
            Seen::Event { cursor: seq, touched }
        }
        Frame::Message { payload: Message::Account { seq, did } } => {
            Seen::Event { cursor: seq, touched: vec![Touch::Account(did)] }
        }
        Frame::Message { payload: Message::Sync { seq, did } } => Seen::Event { cursor: seq, touched: vec![Touch::Repo(did)] },
        // It goes on with what comes now, whose numbers are below ours: it is not the archive that they are from.
        Frame::Message { payload: Message::Info { name } } if name == "FutureCursor" => Seen::Error(name),
        Frame::Message { payload: Message::Info { name } } => Seen::Info(short(name)),
        Frame::Error { error } => Seen::Error(short(error)),
        Frame::Message { payload: Message::Unknown } | Frame::Unknown => Seen::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn did() -> Did {
        "did:plc:abc".parse().unwrap()
    }

    #[test]
    fn messages_of_version_1_are_hints_too() {
        let commit = r#"{"did":"did:plc:abc","time_us":1725911162329308,"kind":"commit","commit":{"rev":"3l3qo2vutsw2b",
            "operation":"create","collection":"email.atmos.attestation","rkey":"member.example","record":{},"cid":"b"}}"#;
        let event = |touched| Seen::Event { cursor: 1725911162329308, touched };
        assert_eq!(read_v1(commit).unwrap(), event(vec![Touch::Record(did(), "member.example".into())]));
        assert_eq!(read_v1(&commit.replace("email.atmos.attestation", "app.bsky.feed.post")).unwrap(), event(vec![]));
        for status in ["deactivated", "takendown", "suspended", "deleted"] {
            let account = format!(
                r#"{{"did":"did:plc:abc","time_us":1725911162329308,"kind":"account","account":{{"active":false,"did":"did:plc:abc",
                "seq":9,"status":"{status}","time":"2026-11-25T10:00:00.000Z"}}}}"#
            );
            assert_eq!(read_v1(&account).unwrap(), event(vec![Touch::Account(did())]));
        }
        let identity = r#"{"did":"did:plc:abc","time_us":1725911162329308,"kind":"identity","identity":{"did":"did:plc:abc",
            "handle":"alice.test","seq":9,"time":"2026-11-25T10:00:00.000Z"}}"#;
        assert_eq!(read_v1(identity).unwrap(), event(vec![Touch::Account(did())]));
        assert!(read_v1("{}").is_err());
    }

    fn message(fragment: &str, fields: &str) -> String {
        format!(r#"{{"$type":"message","payload":{{"$type":"network.bsky.jetstream.subscribeEvents#{fragment}"{fields}}}}}"#)
    }

    #[test]
    fn messages_of_version_2_are_numbered() {
        let event = |touched| Ok(Seen::Event { cursor: 42, touched });
        let read = |text: &str| read_v2(text).map_err(|error| error.to_string());
        let commit = message(
            "commit",
            r#","seq":42,"did":"did:plc:abc","time":"2026-11-25T10:00:00.000000Z","rev":"3l3qo2vutsw2b","operation":"delete",
            "collection":"email.atmos.attestation","rkey":"member.example""#,
        );
        assert_eq!(read(&commit), event(vec![Touch::Record(did(), "member.example".into())]));
        assert_eq!(read(&commit.replace("email.atmos.attestation", "app.bsky.feed.post")), event(vec![]));
        for kind in ["identity", "account", "sync"] {
            let fields = format!(
                r#","seq":42,"did":"did:plc:abc","time":"2026-11-25T10:00:00.000000Z","{kind}":{{"did":"did:plc:abc","seq":7,"active":false,
                "status":"suspended","time":"2026-11-25T10:00:00.000Z"}}"#
            );
            let touch = if kind == "sync" { Touch::Repo(did()) } else { Touch::Account(did()) };
            assert_eq!(read(&message(kind, &fields)), event(vec![touch]), "{kind}: with the number of the Jetstream");
        }
        assert_eq!(read(&message("info", r#","name":"OutdatedCursor","message":"x""#)), Ok(Seen::Info("OutdatedCursor".into())));
        assert_eq!(read(&message("info", r#","name":"FutureCursor""#)), Ok(Seen::Error("FutureCursor".into())));
        assert_eq!(read(r#"{"$type":"error","error":"ConsumerTooSlow"}"#), Ok(Seen::Error("ConsumerTooSlow".into())));
        assert_eq!(read(&message("new", r#","seq":43"#)), Ok(Seen::Nothing));
        assert_eq!(read(r#"{"$type":"new"}"#), Ok(Seen::Nothing));
        for rubbish in ["", "{}", r#"{"$type":"message"}"#, &message("commit", ""), &message("account", r#","seq":1,"did":"x""#)]
        {
            assert!(read_v2(rubbish).is_err(), "{rubbish}");
        }
    }

    #[test]
    fn each_version_is_asked_in_its_own_words() {
        let asked = |ask: fn(&mut Url, Option<i64>), cursor| {
            let mut url: Url = "wss://jetstream.example/x".parse().unwrap();
            ask(&mut url, cursor);
            url.query().unwrap().to_owned()
        };
        assert_eq!(asked(ask_v1, None), "wantedCollections=email.atmos.attestation&cursor=0");
        let kinds = "kinds=commit&kinds=identity&kinds=account&kinds=sync&collections=email.atmos.attestation";
        assert_eq!(asked(ask_v2, Some(42)), format!("{kinds}&cursor=42"));
        assert_eq!(asked(ask_v2, None), format!("{kinds}&cursor=1000000000000000"));
    }
}
