//! What the daemon learns from the providers' own words, and what it does: listed sources, greylists, rates.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use loadtest::sink::{Act, Rule, Script, Stage};
use mta::control::admin::Operations;
use mta::control::api::{ActionFilter, ActionWish, QueueFilter};
use mta::events::{Event, What};
use scheduler::MeasureKind;

use super::HOUR;
use super::parts::World;

const MINUTE: Duration = Duration::from_secs(60);

/// Its MX host makes it Microsoft's.
const HOTMAIL: &str = "hotmail-test.olc.protection.outlook.com";

const LISTED: &str = "550 5.7.1 Unfortunately, messages from [192.0.2.11] weren't sent. Please contact your Internet service \
                      provider since part of their network is on our block list (S3150).";

/// A source beside ip-a, which is 192.0.2.11.
fn source(name: &str, last: u8) -> String {
    format!("[[source]]\nname = \"{name}\"\naddress = \"192.0.2.{last}\"\nehlo = \"{name}.relay.world.test\"\n")
}

fn ip_a() -> IpAddr {
    "192.0.2.11".parse().unwrap()
}

fn events_of_actions(world: &World) -> Vec<Event> {
    let events = world.read(|reader| reader.events_after(0, usize::MAX).unwrap());
    events.into_iter().map(|(_, event)| event).filter(|event| event.what.is_action()).collect()
}

fn count(events: &[Event], what: What, kind: MeasureKind) -> usize {
    events.iter().filter(|event| event.what == what && event.recipient == kind.as_str()).count()
}

#[test]
fn a_block_list_burns_no_recipient_and_the_other_source_takes_over() {
    let listed = Rule::new(Stage::Rcpt, Act::reply(LISTED)).from(ip_a());
    let mut world = World::seed(60).settings(&source("ip-b", 12)).provider(HOTMAIL, Script::accepts_all().with(listed.clone()));
    world.live(4 * HOUR, |day| async move {
        for n in 0..120 {
            day.submit(n, &[&format!("user{n}@{HOTMAIL}")]).await;
            tokio::time::sleep(MINUTE).await;
        }
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
    assert!(world.arrived_at(HOTMAIL).iter().all(|message| message.ehlo == "ip-b.relay.world.test"));
    // RCPT, and DATA that is left without a recipient.
    let refused = world.refusals() / 2;
    assert!((1..=20).contains(&refused), "{refused}: a source that is listed is left alone for longer and longer");
    let events = events_of_actions(&world);
    let first = events.iter().find(|event| event.recipient == MeasureKind::PauseSite.as_str()).unwrap();
    assert_eq!((first.what, first.source.as_str()), (What::ActionStarted, "ip-a"));
    assert_eq!(first.host, format!("mx.{HOTMAIL}"));
    assert_eq!(first.reply, LISTED, "the cause, verbatim");
    assert_eq!(count(&events, What::ActionStarted, MeasureKind::OtherSource), refused as usize, "each was tried elsewhere");
    assert_eq!(count(&events, What::ActionExpired, MeasureKind::OtherSource), refused as usize, "once");
}

#[test]
fn with_one_source_mail_waits_until_the_list_lets_it_go() {
    let listed = Rule::new(Stage::Mail, Act::reply(LISTED)).first(12);
    let mut world = World::seed(61).provider(HOTMAIL, Script::accepts_all().with(listed));
    world.live(12 * HOUR, |day| async move {
        for n in 0..10 {
            day.submit(n, &[&format!("user{n}@{HOTMAIL}")]).await;
        }
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
    let events = events_of_actions(&world);
    assert_eq!(count(&events, What::ActionStarted, MeasureKind::OtherSource), 0, "there is none");
    let started = count(&events, What::ActionStarted, MeasureKind::PauseSite);
    assert_eq!((started, count(&events, What::ActionExpired, MeasureKind::PauseSite)), (1, 1), "one trouble, one action");
}

#[test]
fn the_rules_of_the_operators_file_act_and_survive_a_restart() {
    let settings = |folder: &std::path::Path| format!("{}", folder.display());
    let rules = "[[rule]]\nname = \"disliked\"\nclass = \"reputation\"\ncount = 3\nwithin = \"1h\"\ndo = \"pause_provider\"\n\
                 for = \"6h\"\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("replies.toml");
    std::fs::write(&file, rules).unwrap();
    let listed = Rule::new(Stage::Rcpt, Act::reply(LISTED)).from(ip_a());
    let mut world = World::seed(62)
        .replies(&settings(&file))
        .settings(&source("ip-b", 12))
        .provider(HOTMAIL, Script::accepts_all().with(listed));
    world.live(HOUR, |day| async move {
        for n in 0..40 {
            day.submit(n, &[&format!("user{n}@{HOTMAIL}")]).await;
            tokio::time::sleep(MINUTE).await;
        }
    });
    let (running, last) = world.read(|reader| reader.actions().unwrap());
    let paused = running.iter().find(|measure| measure.kind == MeasureKind::PauseProvider).unwrap().clone();
    assert_eq!((&*paused.rule, &*paused.cause), ("disliked", LISTED));
    assert_eq!(paused.expires.duration_since(paused.started).unwrap(), 6 * HOUR);
    assert!(last >= paused.id);
    let refused = world.refusals();
    world.live(4 * HOUR, |day| async move {
        for n in 100..140 {
            day.submit(n, &[&format!("user{n}@{HOTMAIL}")]).await;
        }
    });
    assert_eq!(world.refusals(), refused, "the listed source stays away after a restart");
    assert!(world.read(|reader| reader.action(paused.id).unwrap()).is_some());
    world.live(2 * HOUR, |_| async {});
    assert!(world.read(|reader| reader.action(paused.id).unwrap()).is_none(), "and the action ends on time");
    world.check_all_arrived_once();
    world.check_queue_is_empty();
    let ids: Vec<_> = events_of_actions(&world).iter().filter(|event| event.what == What::ActionStarted).map(|e| e.id).collect();
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(ids.len(), distinct.len(), "no id is given twice");
}

#[test]
fn a_greylisted_message_comes_back_from_the_same_source() {
    let mut world = World::seed(63)
        .settings(&["ip-b", "ip-c", "ip-d"].iter().zip(12..).map(|(name, last)| source(name, last)).collect::<String>())
        .provider("grey.example", Script::greylists(Duration::from_secs(240)));
    world.live(2 * HOUR, |day| async move {
        for n in 0..40 {
            day.submit(n, &[&format!("user{n}@grey.example")]).await;
        }
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
    assert_eq!(world.refusals(), 2 * 40, "RCPT and DATA of each were refused once");
    let mut sources = BTreeMap::new();
    world.arrived_at("grey.example").iter().for_each(|message| *sources.entry(message.ehlo.clone()).or_insert(0) += 1);
    assert!(sources.len() == 4, "{sources:?}: all sources were used");
}

#[test]
fn a_greylisted_message_comes_back_from_the_same_source_after_a_restart() {
    let mut world = World::seed(66)
        .settings(&["ip-b", "ip-c", "ip-d"].iter().zip(12..).map(|(name, last)| source(name, last)).collect::<String>())
        .provider("grey.example", Script::greylists(Duration::from_secs(240)));
    world.live(2 * MINUTE, |day| async move {
        for n in 0..40 {
            day.submit(n, &[&format!("user{n}@grey.example")]).await;
        }
    });
    assert_eq!(world.read(|reader| reader.pins().unwrap()).len(), 40);
    world.live(2 * HOUR, |_| async {});
    world.check_all_arrived_once();
    world.check_queue_is_empty();
    assert_eq!(world.refusals(), 2 * 40, "RCPT and DATA of each were refused once");
    assert_eq!(world.read(|reader| reader.pins().unwrap()), [], "what is delivered is forgotten");
}

#[test]
fn a_provider_that_wants_less_gets_less() {
    let slow = "421 4.7.0 [TSS04] Messages from 192.0.2.11 temporarily deferred due to unexpected volume or user complaints";
    let yahoo = "yahoo-test.yahoodns.net";
    let mut world = World::seed(64)
        .provider(yahoo, Script::accepts_all().with(Rule::new(Stage::Mail, Act::ReplyAndClose(slow.to_owned())).first(14)));
    world.live(6 * HOUR, |day| async move {
        for n in 0..100 {
            day.submit(n, &[&format!("user{n}@{yahoo}")]).await;
        }
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
    let events = events_of_actions(&world);
    let narrowed = events.iter().find(|event| event.recipient == MeasureKind::Narrow.as_str()).unwrap();
    assert_eq!((narrowed.what, narrowed.reply.as_str()), (What::ActionStarted, slow));
    assert_eq!(count(&events, What::ActionStarted, MeasureKind::LeaveSite), 0, "it speaks of us and not of the site");
}

#[test]
fn what_was_said_with_a_host_that_did_not_take_a_message_is_shown_without_the_message() {
    let later = Rule::new(Stage::Rcpt, Act::reply("450 4.2.1 come back later")).first(1);
    let full = Rule::new(Stage::EndOfData, Act::reply("452 4.3.1 disk full")).first(1);
    let mut world = World::seed(67)
        .provider("mx.example", Script::accepts_all().with(later))
        .provider("full.example", Script::accepts_all().with(full))
        .provider("good.example", Script::accepts_all());
    world.live(2 * HOUR, |day| async move {
        for (n, to) in (1..).zip(["one@mx.example", "two@full.example", "three@good.example"]) {
            day.submit(n, &[to]).await;
        }
        tokio::time::sleep(10 * Duration::from_secs(1)).await;
        let desk = day.desk();
        let page = desk.queue(QueueFilter { limit: Some(10), ..QueueFilter::default() }).await.unwrap();
        let mut told = Vec::new();
        for delivery in &page.deliveries {
            let why = desk.why(&delivery.id).await.unwrap();
            told.extend(why.dialogues.into_iter().map(|it| (it.domain, it.host, it.lines.join("\n"))));
        }
        told.sort();
        let [(full, _, ended), (mx, host, refused)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((full.as_str(), mx.as_str(), host.as_str()), ("full.example", "mx.example", "mx.mx.example"));
        assert!(refused.contains("C: RCPT TO:<one@mx.example>\n"), "{refused}");
        assert!(refused.starts_with("S: 220 ") && refused.contains("\nS: 450 4.2.1 come back later"), "{refused}");
        assert!(ended.contains("\n* the message follows, ") && ended.ends_with("\nS: 452 4.3.1 disk full"), "{ended}");
        for text in [refused, ended] {
            assert!(!text.contains("X-World-Message") && !text.contains("Subject"), "the message is nobody's business: {text}");
        }
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
}

#[test]
fn an_operator_sees_why_mail_waits_and_ends_or_prolongs_that() {
    let rules = "[[rule]]\nname = \"disliked\"\nclass = \"reputation\"\ncount = 3\nwithin = \"1h\"\ndo = \"pause_provider\"\n\
                 for = \"6h\"\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("replies.toml");
    std::fs::write(&file, rules).unwrap();
    let listed = Rule::new(Stage::Rcpt, Act::reply(LISTED)).first(3);
    let mut world = World::seed(65).replies(&file.display().to_string()).provider(HOTMAIL, Script::accepts_all().with(listed));
    world.live(2 * HOUR, |day| async move {
        let wish = |why: &str, lasts: Option<&str>| ActionWish { why: why.to_owned(), lasts: lasts.map(str::to_owned) };
        for n in 0..20 {
            day.submit(n, &[&format!("user{n}@{HOTMAIL}")]).await;
        }
        tokio::time::sleep(10 * MINUTE).await;
        let desk = day.desk();
        let kind = Some("pause_provider".to_owned());
        let found = desk.actions(ActionFilter { kind, ..ActionFilter::default() }).await.unwrap();
        let [paused] = &found.actions[..] else { panic!("{found:?}") };
        assert_eq!(
            (paused.cause.as_str(), paused.class.as_deref(), paused.rule.as_str()),
            (LISTED, Some("reputation"), "disliked")
        );
        assert_eq!((paused.provider.as_deref(), paused.source.as_deref()), (Some("microsoft"), Some("ip-a")));
        // `where` names it, with the command that ends it.
        let place = desk.whereabouts(HOTMAIL).await.unwrap();
        let held = place.sources[0].held.as_ref().unwrap();
        assert_eq!((held.reason.as_str(), held.clears_at.as_deref()), ("source_paused", Some(paused.expires_at.as_str())));
        assert!(held.says.contains(&format!("tradewind actions cancel {}", paused.id)), "{}", held.says);
        let health = desk.source_health().await.unwrap();
        let with = health.iter().find(|row| row.provider.as_deref() == Some("microsoft")).unwrap();
        assert_eq!((with.health.as_str(), with.actions.contains(&paused.id)), ("paused", true));
        // A reason is needed, and a number that is known.
        for (id, why) in [(paused.id, " "), (paused.id + 1_000, "no such")] {
            assert!(desk.end_action(id, wish(why, None), "op").await.is_err());
        }
        let longer = desk.prolong_action(paused.id, wish("they asked", Some("1h")), "op").await.unwrap();
        assert!(longer.expires_at > paused.expires_at);
        desk.end_action(paused.id, wish("delisted", None), "op").await.unwrap();
        let shown = desk.action(paused.id).await.unwrap();
        assert!(shown.action.is_none());
        let story: Vec<_> = shown.events.iter().map(|event| (event.what.as_str(), event.reply.as_deref().unwrap())).collect();
        let expected = [("action_started", LISTED), ("action_extended", "op: they asked"), ("action_cancelled", "op: delisted")];
        assert_eq!(story, expected);
        // The pause of the site is an action of its own.
        let rest = desk.actions(ActionFilter::default()).await.unwrap();
        for action in &rest.actions {
            desk.end_action(action.id, wish("delisted", None), "op").await.unwrap();
        }
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
    assert!(world.read(|reader| reader.actions().unwrap().0).is_empty(), "what an operator ended is gone");
}
