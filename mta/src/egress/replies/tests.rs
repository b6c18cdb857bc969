use std::time::Duration;

use scheduler::{MeasureKind, ReplyClass, Threshold};
use smtp::client::Stage;
use smtp::reply::{EnhancedCode, Reply};

use super::*;
use crate::config::shaping::Shaped;

const SAMPLES: &str = include_str!("samples.txt");

struct Sample {
    provider: &'static str,
    stage: Stage,
    class: ReplyClass,
    defer: bool,
    reply: Reply,
    text: &'static str,
}

/// A reply in the form of the log: `550-5.7.1 first line 550 5.7.1 second`.
fn reply(text: &str) -> Reply {
    let (code, rest) = (text[..3].parse().unwrap(), &text[4..]);
    match EnhancedCode::split(rest) {
        Some((enhanced, rest)) => Reply::new(code, enhanced, rest.to_owned()),
        None => Reply::plain(code, rest.to_owned()),
    }
}

fn stage(word: &str) -> Stage {
    match word {
        "greeting" => Stage::Greeting,
        "mail" => Stage::Mail,
        "rcpt" => Stage::Rcpt,
        "body" => Stage::Body,
        other => panic!("{other}"),
    }
}

fn samples() -> Vec<Sample> {
    let lines = SAMPLES.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let read = |line: &'static str| {
        let mut fields = line.splitn(5, '|').map(str::trim);
        let mut next = || fields.next().unwrap_or_else(|| panic!("{line}"));
        let (provider, at, class, defer, text) = (next(), next(), next(), next(), next());
        let class = class.parse().unwrap_or_else(|()| panic!("{line}"));
        Sample { provider, stage: stage(at), class, defer: defer == "defer", reply: reply(text), text }
    };
    lines.map(read).collect()
}

#[test]
fn replies_of_the_big_providers_are_what_they_speak_of() {
    let (replies, samples) = (Replies::shipped(), samples());
    assert!(samples.len() >= 120, "{}", samples.len());
    let mut wrong = Vec::new();
    for sample in &samples {
        let found = replies.classify(sample.provider, sample.stage, &sample.reply).unwrap();
        let defers = found.defer && sample.reply.is_permanent();
        let expected = sample.defer && sample.reply.is_permanent();
        if found.class != sample.class || defers != expected {
            wrong.push(format!("{} and not {}: {} by {:?}", found.class, sample.class, sample.text, found.entry));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_speaks_of_a_mailbox_is_never_tried_again_because_of_us() {
    for sample in samples().iter().filter(|sample| sample.class == ReplyClass::Mailbox) {
        for provider in
            ["google", "microsoft", "microsoft365", "yahoo", "apple", "gmx", "comcast", "orange", "mailru", "yandex", "other"]
        {
            let found = Replies::shipped().classify(provider, sample.stage, &sample.reply).unwrap();
            assert!(!found.defer, "{} at {provider} by {:?}", sample.text, found.entry);
        }
    }
}

#[test]
fn acceptance_has_no_class() {
    let replies = Replies::shipped();
    assert_eq!(replies.classify("google", Stage::Body, &Reply::new(250, (2, 0, 0), "spam accepted")), None);
    assert_eq!(replies.classify("google", Stage::Data, &Reply::plain(354, "go ahead")), None);
}

#[test]
fn a_greylisting_host_may_name_its_time() {
    let replies = Replies::shipped();
    for (text, secs) in [
        ("451 4.7.1 Greylisting in action, please come back in 00:04:59", Some(299)),
        ("450 4.2.0 Greylisted, please try again in 300 seconds", Some(300)),
        ("450 4.2.0 Greylisted, try again after 5 min", Some(300)),
        ("451 4.7.1 Greylisted: wait at least 2 hours", Some(7_200)),
        ("450 4.2.0 Greylisted, see http://postgrey.schweikert.ch/help/example.net.html", None),
        ("450 4.2.0 Greylisted, retry in 99999 hours", Some(86_400)),
        ("450 4.2.0 Greylisted, retry in 0 seconds", None),
    ] {
        let found = replies.classify("other", Stage::Rcpt, &reply(text)).unwrap();
        assert_eq!((found.class, found.after), (ReplyClass::Greylist, secs.map(Duration::from_secs)), "{text}");
    }
    let other = replies.classify("other", Stage::Rcpt, &reply("550 5.1.1 user unknown since 00:04:59")).unwrap();
    assert_eq!(other.after, None);
}

#[test]
fn an_operators_entry_comes_first_and_a_rule_of_the_same_name_is_replaced() {
    let file = r#"
        [[reply]]
        name = "theirs"
        provider = ["yahoo"]
        code = "4xx"
        enhanced = "4.7.0-9"
        text = 'tss04'
        class = "host"

        [[rule]]
        name = "bad mail"
        do = "nothing"

        [[rule]]
        name = "ours"
        class = "tls"
        provider = "apple"
        count = 3
        within = "10m"
        do = "pause_site"
        for = "1h"
    "#;
    let replies =
        Replies::parse(Path::new("replies.toml"), file, &Shaped::default().providers).unwrap_or_else(|error| panic!("{error}"));
    let class = |provider, text| replies.classify(provider, Stage::Mail, &reply(text)).unwrap();
    assert_eq!(class("yahoo", "421 4.7.0 [TSS04] later").class, ReplyClass::Host);
    assert_eq!(class("yahoo", "421 4.7.0 [TSS04] later").entry.as_deref(), Some("theirs"));
    assert_eq!(class("yahoo", "421 4.7.10 [TSS04] later").class, ReplyClass::Rate);
    assert_eq!(class("other", "421 4.7.0 [TSS04] later").class, ReplyClass::Policy);
    let rules = replies.rules();
    assert!(rules.iter().all(|rule| &*rule.name != "bad mail"));
    let ours = rules.iter().find(|rule| &*rule.name == "ours").unwrap();
    assert_eq!((ours.act, ours.threshold, ours.lasts), (MeasureKind::PauseSite, Threshold::Count(3), Duration::from_secs(3600)));
    assert!(Replies::shipped().rules().iter().any(|rule| &*rule.name == "bad mail"));
}

#[test]
fn what_is_wrong_in_a_file_is_told_with_line_and_key() {
    let reply = |lines: &str| format!("[[reply]]\nname = \"a\"\n{lines}\n");
    let rule = |lines: &str| format!("[[rule]]\nname = \"a\"\nclass = \"rate\"\n{lines}\n");
    for (text, line, key, says) in [
        (reply("text = 'a('\nclass = \"rate\""), 3, "reply.text", "regular expression"),
        (reply("text = 'a*'\nclass = \"rate\""), 3, "reply.text", "fit every text"),
        (reply("text = '(a{500}){500}'\nclass = \"rate\""), 3, "reply.text", "regular expression"),
        (reply("class = \"rate\""), 2, "reply.name", "fit every reply"),
        (reply("code = \"250\"\nclass = \"rate\""), 3, "reply.code", "4xx"),
        (reply("enhanced = \"5.7\"\nclass = \"rate\""), 3, "reply.enhanced", "5.7.606-649"),
        (reply("provider = [\"yahoo\", \"gogle\"]\ncode = \"550\"\nclass = \"rate\""), 3, "reply.provider", "google"),
        (rule("provider = \"gogle\"\ncount = 3\nwithin = \"10m\"\ndo = \"narrow\"\nfor = \"1h\""), 4, "rule.provider", "other"),
        (reply("code = \"550\"\nclass = \"spam\""), 4, "reply.class", "mailbox, content"),
        (reply("code = \"550\"\nclass = \"rate\"\nverdict = \"fail\""), 5, "reply.verdict", "defer"),
        (reply("code = \"550\"\nclass = \"rate\"\ncolour = 1"), 5, "reply.colour", "no such setting"),
        (rule("count = 3\nwithin = \"10m\"\ndo = \"stop\"\nfor = \"1h\""), 6, "rule.do", "hold_member"),
        (rule("share = 10\nwithin = \"10m\"\ndo = \"narrow\"\nfor = \"1h\""), 4, "rule.share", "sample"),
        (rule("count = 5\nwithin = \"10m\"\ndo = \"narrow\"\nfor = \"1h\"\nalone = \"5m\""), 8, "rule.alone", "pause_site"),
        (rule("count = 5\nwithin = \"10m\"\ndo = \"pause_site\"\nfor = \"1h\"\nalone = \"2h\""), 8, "rule.alone", "1h"),
        (rule("share = 101\nsample = 5\nwithin = \"10m\"\ndo = \"narrow\"\nfor = \"1h\""), 4, "rule.share", "per cent"),
        (rule("count = 3\nwithin = \"10m\"\ndo = \"narrow\"\nfor = \"900h\""), 7, "rule.for", "168h"),
        (rule("count = 3\ndo = \"narrow\"\nfor = \"1h\""), 1, "rule.within", "interval"),
        (rule("count = 3\ndo = \"other_source\"\nfor = \"1h\""), 5, "rule.do", "leave count"),
        (
            format!("{}{}", reply("code = \"550\"\nclass = \"rate\""), reply("code = \"551\"\nclass = \"rate\"")),
            6,
            "reply.name",
            "taken",
        ),
    ] {
        let error = Replies::parse(Path::new("r.toml"), &text, &Shaped::default().providers)
            .err()
            .unwrap_or_else(|| panic!("{text} is taken"));
        let problem = &error.problems[0];
        assert!(problem.message.contains(says), "{text}: {error}");
        assert_eq!((problem.line, problem.key.as_str()), (Some(line), key), "{text}: {error}");
    }
}

#[test]
fn the_shipped_table_names_known_providers_and_known_rules() {
    let providers = Shaped::default().providers;
    for entry in &Replies::shipped().entries {
        assert!(entry.providers.iter().all(|name| providers.has(name)), "{}", entry.name);
    }
    assert_eq!((Replies::shipped().entries.len() > 80, Replies::shipped().rules().len()), (true, 5));
}
