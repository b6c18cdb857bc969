//! Notices, read by somebody else: `mail-parser` knows MIME and the delivery-status fields are read line by line.

use std::collections::BTreeMap;
use std::time::Duration;

use mail_parser::{MessageParser, MimeHeaders};

use super::*;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_426_939)
}

fn report(recipient: &str, action: Action) -> Report {
    Report {
        recipient: recipient.into(),
        original_recipient: Some("rfc822;Bob+2B1@dest.example".into()),
        action,
        status: "5.1.1".into(),
        given_up: None,
        remote_mta: Some("mx.dest.example".into()),
        diagnostic: "550 5.1.1 no such user".into(),
        from_peer: true,
        last_attempt: Some(now()),
        will_retry_until: (action == Action::Delayed).then(|| now() + Duration::from_secs(3600)),
    }
}

fn notice<'a>(reports: &'a [Report], original: &'a [u8]) -> Notice<'a> {
    Notice {
        reporting_mta: "relay.example",
        message_id: "1@relay.example",
        to: "alice@member.example",
        queue_id: "abc",
        envid: Some("QQ+314159"),
        arrived: now(),
        now: now(),
        reports,
        original,
        ret: None,
        smtputf8: false,
    }
}

/// The parts of a notice as an independent reader sees them: (type, octets).
fn parts(octets: &[u8]) -> Vec<(String, String)> {
    for text in octets.split(|octet| *octet == b'\n') {
        assert!(text.len() <= 999 && (text.is_empty() || text.ends_with(b"\r")), "{}", text.escape_ascii());
    }
    let message = MessageParser::default().parse(octets).unwrap();
    assert!(message.date().is_some() && message.header("Auto-Submitted").is_some());
    let root = message.content_type().unwrap();
    assert_eq!((root.ctype(), root.subtype()), ("multipart", Some("report")));
    let boundary = format!("--{}", root.attribute("boundary").unwrap());
    let text = String::from_utf8(octets.to_vec()).unwrap();
    let pieces: Vec<_> = text.split(&boundary).skip(1).take(3).collect();
    assert_eq!(text.matches(&boundary).count(), 4, "three parts and an end");
    let part = |piece: &&str| {
        let (header, body) = piece.trim_start_matches("\r\n").split_once("\r\n\r\n").unwrap();
        let kind = header.strip_prefix("Content-Type: ").unwrap().split([';', '\r']).next().unwrap();
        (kind.to_owned(), body.to_owned())
    };
    let parts: Vec<_> = pieces.iter().map(part).collect();
    // The other reader agrees on how many there are.
    assert_eq!(message.parts.iter().filter(|part| !part.is_multipart()).count().min(3), 3);
    parts
}

/// The groups of fields of a delivery-status part.
fn groups(body: &str) -> Vec<BTreeMap<String, String>> {
    let groups = body.trim_end().split("\r\n\r\n");
    let group = |group: &str| {
        let fields = group.lines().map(|field| field.split_once(": ").unwrap());
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    groups.map(group).collect()
}

#[test]
fn a_notice_quotes_the_header_and_never_the_body() {
    let reports = [report("bob@dest.example", Action::Failed)];
    let original = b"From: a@member.example\r\nSubject: hello\r\n\r\nYour code is 123456\r\n";
    let text = String::from_utf8(write(&notice(&reports, original))).unwrap();
    assert!(text.contains("Subject: hello\r\n") && !text.contains("123456"), "{text}");
    let parts = parts(text.as_bytes());
    assert_eq!(
        parts.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>(),
        ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    );
    assert!(parts[0].1.contains("mx.dest.example answered:\r\n    550 5.1.1 no such user\r\n"), "{}", parts[0].1);
    let groups = groups(&parts[1].1);
    assert_eq!(groups[0]["Reporting-MTA"], "dns; relay.example");
    assert_eq!(groups[0]["Original-Envelope-Id"], "QQ+314159");
    assert_eq!(groups[0]["Arrival-Date"], "Mon, 23 Nov 2026 09:42:19 +0000");
    for (name, value) in [
        ("Original-Recipient", "rfc822; Bob+1@dest.example"),
        ("Final-Recipient", "rfc822; bob@dest.example"),
        ("Action", "failed"),
        ("Status", "5.1.1"),
        ("Remote-MTA", "dns; mx.dest.example"),
        ("Diagnostic-Code", "smtp; 550 5.1.1 no such user"),
        ("Last-Attempt-Date", "Mon, 23 Nov 2026 09:42:19 +0000"),
        ("Final-Log-ID", "abc"),
    ] {
        assert_eq!(groups[1][name], value, "{name}");
    }
    assert!(!groups[1].contains_key("Will-Retry-Until"));
}

#[test]
fn all_recipients_that_are_settled_together_stand_in_one_notice() {
    let reports = [
        report("late@dest.example", Action::Delayed),
        report("gone@dest.example", Action::Failed),
        report("there@dest.example", Action::Relayed),
    ];
    let octets = write(&notice(&reports, b"From: a@member.example\r\n\r\n"));
    let parts = parts(&octets);
    let groups = groups(&parts[1].1);
    let actions: Vec<_> = groups[1..].iter().map(|group| group["Action"].as_str()).collect();
    assert_eq!(actions, ["delayed", "failed", "relayed"]);
    assert_eq!(groups[1]["Will-Retry-Until"], "Mon, 23 Nov 2026 10:42:19 +0000");
    let subject = MessageParser::default().parse(&octets).unwrap().subject().unwrap().to_owned();
    assert_eq!(subject, "Undelivered mail returned to sender");
    let said = &parts[0].1;
    let at = |words: &str| said.find(words).unwrap_or_else(|| panic!("{words} in {said}"));
    assert!(
        at("could not be delivered") < at("<gone@")
            && at("<gone@") < at("has not been delivered")
            && at("<late@") < at("<there@")
    );
}

#[test]
fn the_whole_message_comes_back_where_it_was_asked_for_and_is_not_too_big() {
    let failed = [report("bob@dest.example", Action::Failed)];
    let late = [report("bob@dest.example", Action::Delayed)];
    let small = b"From: a@member.example\r\n\r\nbody \xc3\xbc\r\n".to_vec();
    let big = [b"From: a@member.example\r\n\r\n".to_vec(), b"body\r\n".repeat(FULL_QUOTED_MAX / 6)].concat();
    for (reports, original, ret, kind) in [
        (&failed, &small, Some(Ret::Full), "message/rfc822"),
        (&failed, &small, Some(Ret::Headers), "text/rfc822-headers"),
        (&failed, &small, None, "text/rfc822-headers"),
        (&late, &small, Some(Ret::Full), "text/rfc822-headers"),
        (&failed, &big, Some(Ret::Full), "text/rfc822-headers"),
    ] {
        let octets = write(&Notice { ret, ..notice(reports, original) });
        let parts = parts(&octets);
        assert_eq!(parts[2].0, kind);
        assert_eq!(parts[2].1.contains("body"), kind == "message/rfc822");
    }
}

#[test]
fn a_notice_in_ascii_stays_in_ascii_and_one_beyond_it_says_so() {
    let original = "From: a@member.example\r\nSubject: grün\r\n\r\n".as_bytes();
    let mut reports = [report("bob@dest.example", Action::Failed)];
    reports[0].diagnostic = "550 niemand heißt so".into();
    reports[0].original_recipient = Some("utf-8;b\\x{F6}b@dest.example".into());
    let octets = write(&notice(&reports, original));
    assert!(octets.is_ascii());
    let found = parts(&octets);
    assert!(found[2].1.contains("Subject: gr??n"));
    assert_eq!(groups(&found[1].1)[1]["Original-Recipient"], "utf-8; b\\x{F6}b@dest.example");

    reports[0].recipient = "böb@dest.example".into();
    let octets = write(&notice(&reports, original));
    let found = parts(&octets);
    assert_eq!(
        found.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>(),
        ["text/plain", "message/global-delivery-status", "message/global-headers"]
    );
    let group = &groups(found[1].1.trim_start_matches("Content-Transfer-Encoding: 8bit\r\n\r\n"))[1];
    assert_eq!(group["Final-Recipient"], "utf-8; böb@dest.example");
    assert_eq!(group["Original-Recipient"], "utf-8; böb@dest.example");
    assert_eq!(group["Diagnostic-Code"], "smtp; 550 niemand heißt so");
    assert!(found[2].1.contains("grün"));
}

#[test]
fn a_peer_s_reply_cannot_add_lines() {
    let mut reports = [report("bob@dest.example", Action::Failed)];
    for smtputf8 in [false, true] {
        for words in ["550 no\r\nBcc: evil@example.org\r\n\r\nbody", &"ü".repeat(2000)] {
            reports[0].diagnostic = words.into();
            let octets = write(&Notice { smtputf8, ..notice(&reports, b"From: a@member.example\r\n\r\n") });
            let text = String::from_utf8(octets).unwrap();
            assert!(!text.contains("\r\nBcc:"), "{text}");
            assert!(text.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n'])));
        }
    }
}
