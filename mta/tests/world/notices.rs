//! Notices, deadlines and priorities, end to end: what the member's own provider is sent, and when.

use std::time::Duration;

use loadtest::sink::{Act, Message, Rule, Script, Stage};

use super::HOUR;
use super::parts::{Day, World};

const FROM: &str = "<app@member.example>";
const MINUTE: Duration = Duration::from_secs(60);

fn down() -> Script {
    Script::accepts_all().with(Rule::new(Stage::Connect, Act::ReplyAndClose("421 4.3.2 not now".into())))
}

fn text(message: &Message) -> String {
    assert_eq!(message.reverse_path, "", "a notice has a null reverse-path (RFC 5321 §6.1)");
    let text = String::from_utf8(message.octets.to_vec()).unwrap();
    assert!(text.contains("\r\nAuto-Submitted: auto-replied\r\n"), "{text}");
    text
}

async fn submit(day: &Day, n: u64, from: &str, recipients: &[String], fields: &str) {
    let said = day.submit_as("member.example", n, from, recipients, fields).await;
    assert!(said.is_some_and(|said| said.starts_with("250")));
}

fn paths<const N: usize>(paths: [&str; N]) -> Vec<String> {
    paths.map(str::to_owned).into()
}

/// That many seconds after the world began, give or take a few.
fn check_at(message: &Message, after: Duration) {
    let within = message.at >= after && message.at < after + Duration::from_secs(5);
    assert!(within, "{:?}, expected at {after:?}", message.at);
}

#[test]
fn success_is_told_once_for_all_where_the_next_host_does_not_tell_it() {
    let mut world = World::seed(20)
        .provider("plain.example", Script::accepts_all())
        .provider("dsn.example", Script { dsn: true, ..Script::default() })
        .provider("member.example", Script::accepts_all());
    world.live(HOUR, |day| async move {
        let recipients = paths([
            "<a@plain.example> NOTIFY=SUCCESS ORCPT=rfc822;A+2B1@plain.example",
            "<b@plain.example> NOTIFY=SUCCESS,FAILURE",
            "<c@plain.example> NOTIFY=NEVER",
            "<d@dsn.example> NOTIFY=SUCCESS ORCPT=rfc822;D@dsn.example",
            "<e@dsn.example>",
        ]);
        submit(&day, 1, &format!("{FROM} RET=FULL ENVID=QQ+2B1 BY=600;N MT-PRIORITY=2"), &recipients, "").await;
    });
    world.check_queue_is_empty();
    let notices = world.arrived_at("member.example");
    assert_eq!(notices.len(), 1, "one notice for both");
    let notice = text(&notices[0]);
    for words in [
        "Original-Envelope-Id: QQ+1\r\n",
        "Original-Recipient: rfc822; A+1@plain.example\r\nFinal-Recipient: rfc822; a@plain.example\r\nAction: relayed\r\n",
        "Final-Recipient: rfc822; b@plain.example\r\nAction: relayed\r\nStatus: 2.0.0\r\n",
    ] {
        assert!(notice.contains(words), "{words} in {notice}");
    }
    assert!(!notice.contains("c@plain.example") && !notice.contains("one-time code"), "{notice}");
    let passed_on = &world.arrived_at("dsn.example")[0];
    let (mail, rcpt) = &passed_on.parameters;
    let by = mail.split(' ').find_map(|word| word.strip_prefix("BY=")?.strip_suffix(";N")).unwrap();
    assert!((590..=600).contains(&by.parse::<i64>().unwrap()), "what is left of the time: {mail}");
    assert!(mail.contains("RET=FULL ENVID=QQ+2B1 ") && mail.ends_with(" MT-PRIORITY=2"), "{mail}");
    assert_eq!(*rcpt, ["NOTIFY=SUCCESS ORCPT=rfc822;D@dsn.example", ""]);
}

#[test]
fn a_delay_is_told_once_at_its_time_and_the_end_at_the_deadline() {
    let mut world = World::seed(21).provider("down.example", down()).provider("member.example", Script::accepts_all());
    world.live(60 * HOUR, |day| async move {
        let recipients = paths(["<a@down.example>", "<b@down.example> NOTIFY=FAILURE", "<c@down.example> NOTIFY=DELAY"]);
        submit(&day, 1, FROM, &recipients, "").await;
    });
    world.check_queue_is_empty();
    let notices = world.arrived_at("member.example");
    assert_eq!(notices.len(), 2);
    let (delayed, failed) = (text(&notices[0]), text(&notices[1]));
    check_at(&notices[0], 4 * HOUR);
    assert_eq!(delayed.matches("Action: delayed").count(), 2, "{delayed}");
    assert!(!delayed.contains("b@down.example") && delayed.contains("Will-Retry-Until: "), "{delayed}");
    assert!(notices[1].at <= 48 * HOUR + MINUTE && notices[1].at > 47 * HOUR, "{:?}", notices[1].at);
    assert_eq!(failed.matches("Action: failed").count(), 2, "{failed}");
    assert!(!failed.contains("c@down.example") && failed.contains("Status: 4.4.7"), "{failed}");
}

#[test]
fn a_message_says_what_it_is_for_and_an_old_code_is_told_instead_of_delivered() {
    let mut world = World::seed(22).provider("down.example", down()).provider("member.example", Script::accepts_all());
    world.live(6 * HOUR, |day| async move {
        submit(&day, 1, FROM, &paths(["<a@down.example>"]), "X-Atmos-Category: mfa-otp\r\n").await;
        submit(&day, 2, &format!("{FROM} MT-PRIORITY=4"), &paths(["<b@down.example>"]), "").await;
        tokio::time::sleep(30 * MINUTE).await;
        day.restore("down.example");
    });
    world.check_queue_is_empty();
    let notices: Vec<_> = world.arrived_at("member.example").into_iter().map(|notice| (text(&notice), notice)).collect();
    let told = |action: &str| notices.iter().filter(|(text, _)| text.contains(action)).map(|(_, it)| it.at).collect::<Vec<_>>();
    let (delayed, failed) = (told("Action: delayed"), told("Action: failed"));
    assert_eq!((delayed.len(), failed.len()), (2, 2));
    assert!(delayed.iter().all(|at| (5 * MINUTE..6 * MINUTE).contains(at)), "{delayed:?}");
    assert!(failed.iter().all(|at| *at <= 15 * MINUTE + Duration::from_secs(5)), "{failed:?}");
}

#[test]
fn a_returning_by_ends_a_message_at_its_time_and_a_notifying_one_goes_on() {
    let mut world = World::seed(23).provider("down.example", down()).provider("member.example", Script::accepts_all());
    world.live(60 * HOUR, |day| async move {
        submit(&day, 1, &format!("{FROM} BY=300;R"), &paths(["<a@down.example>"]), "").await;
        submit(&day, 2, &format!("{FROM} BY=300;N"), &paths(["<b@down.example>"]), "").await;
    });
    world.check_queue_is_empty();
    let notices = world.arrived_at("member.example");
    let of = |who: &str| notices.iter().filter(|notice| text(notice).contains(who)).collect::<Vec<_>>();
    let (returned, notified) = (of("a@down.example"), of("b@down.example"));
    assert_eq!((returned.len(), notified.len()), (1, 2));
    assert!(returned[0].at <= Duration::from_secs(305), "{:?}", returned[0].at);
    assert!(text(returned[0]).contains("Action: failed\r\nStatus: 5.4.7"));
    check_at(notified[0], 5 * MINUTE);
    assert!(text(notified[0]).contains("Action: delayed") && text(notified[1]).contains("Action: failed"));
}

#[test]
fn a_thousand_recipients_are_one_body_and_as_few_transactions_as_the_host_allows() {
    let each = [(24, true, true, None), (25, false, true, None), (26, false, false, None), (27, true, true, Some(2))];
    for (seed, limits, pipelining, messages_per_connection_max) in each {
        let recipients_max = Some(100);
        let script = Script { recipients_max, limits, pipelining, messages_per_connection_max, ..Script::default() };
        let mut world = World::seed(seed).provider("big.example", script).provider("other.example", Script::accepts_all());
        world.live(HOUR, |day| async move {
            let recipients: Vec<_> = (0..1000)
                .map(|n| if n % 10 == 9 { format!("<u{n}@other.example>") } else { format!("<u{n}@big.example>") })
                .collect();
            submit(&day, 1, FROM, &recipients, "").await;
        });
        world.check_queue_is_empty();
        let (big, other) = (world.arrived_at("big.example"), world.arrived_at("other.example"));
        assert_eq!((big.len(), other.len()), (9, 1), "transactions with limits {limits}, pipelining {pipelining}");
        assert!(big.iter().all(|message| message.recipients.len() == 100) && other[0].recipients.len() == 100);
        // Where nothing is announced the first transaction learns it: no recipient is refused a second time.
        let refusals = world.refusals();
        match messages_per_connection_max {
            None => assert_eq!(refusals, if limits { 0 } else { 800 }),
            // A host that has had enough of a connection gets the rest over others: most of it at once, and what the last one of them
            // left after the first retry, which comes after a minute, more or less.
            Some(_) => {
                let at_once = big.iter().filter(|message| message.at < big[0].at + Duration::from_secs(5)).count();
                assert!(at_once >= 7 && big.iter().all(|message| message.at < big[0].at + 2 * MINUTE) && refusals > 0);
            }
        }
    }
}
