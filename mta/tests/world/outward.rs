//! Hosts as they are: what they lack, how slow they are, how they break, and what large providers say of too much.

use std::time::Duration;

use loadtest::sink::Script;

use super::HOUR;
use super::parts::World;

/// Takes no message of ours: the header section alone is larger.
fn tiny() -> Script {
    Script { message_bytes_max: Some(100), ..Script::default() }
}

#[test]
fn a_message_too_large_for_one_host_goes_to_the_next() {
    let mut world = World::seed(600).provider("big.example", tiny()).backup("big.example", "roomy", Script::accepts_all());
    world.live(HOUR, |day| async move {
        for n in 0..5 {
            day.submit(n, &["someone@big.example"]).await;
        }
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
    assert_eq!(world.arrived_at("roomy").len(), 5);
    assert_eq!(world.refusals(), 0, "SIZE is compared before anything is sent");
}

#[test]
fn a_message_too_large_for_all_hosts_fails_at_once() {
    let mut world = World::seed(601)
        .provider("big.example", tiny())
        .backup("big.example", "tiny", tiny())
        .provider("member.example", Script::accepts_all());
    world.live(Duration::from_secs(60), |day| async move {
        day.submit(1, &["someone@big.example"]).await;
    });
    world.check_queue_is_empty();
    let notices = world.arrived_at("member.example");
    let text = String::from_utf8_lossy(&notices[0].octets).into_owned();
    assert!(notices.len() == 1 && text.contains("Status: 5.3.4"), "{text}");
    assert_eq!(world.refusals(), 0, "SIZE is compared before anything is sent");
}

#[test]
fn an_address_that_needs_smtputf8_holds_up_no_other_and_finds_the_host_that_offers_it() {
    let ascii = Script { eight_bit: false, ..Script::default() };
    let mut world =
        World::seed(603).provider("big.example", ascii.clone()).backup("big.example", "modern", Script::accepts_all());
    world.live(HOUR, |day| async move {
        let recipients = ["<anna@big.example>", "<jürgen@big.example>"].map(str::to_owned);
        day.submit_as("member.example", 1, "<app@member.example> SMTPUTF8", &recipients, "").await;
    });
    world.check_queue_is_empty();
    let at = |name: &str| world.arrived_at(name).iter().flat_map(|message| message.recipients.clone()).collect::<Vec<_>>();
    assert_eq!((at("big.example"), at("modern")), (vec!["anna@big.example".to_owned()], vec!["jürgen@big.example".to_owned()]));
}

#[test]
fn an_address_that_needs_smtputf8_fails_alone_where_no_host_offers_it() {
    let ascii = Script { eight_bit: false, ..Script::default() };
    let mut world = World::seed(604).provider("big.example", ascii).provider("member.example", Script::accepts_all());
    world.live(Duration::from_secs(60), |day| async move {
        let recipients = ["<anna@big.example>", "<jürgen@big.example>"].map(str::to_owned);
        day.submit_as("member.example", 1, "<app@member.example> SMTPUTF8", &recipients, "").await;
    });
    world.check_queue_is_empty();
    let notices = world.arrived_at("member.example");
    let text = String::from_utf8_lossy(&notices[0].octets).into_owned();
    assert!(world.arrived_at("big.example").len() == 1 && notices.len() == 1 && text.contains("Status: 5.6.7"), "{text}");
    assert!(!text.contains("anna@big.example"), "{text}");
}

#[test]
fn while_another_host_cannot_be_asked_the_message_waits_for_it() {
    let mut world = World::seed(602).provider("big.example", tiny()).backup("big.example", "roomy", Script::accepts_all());
    world.live(12 * HOUR, |day| async move {
        day.cut("roomy");
        day.submit(1, &["someone@big.example"]).await;
        tokio::time::sleep(2 * HOUR).await;
        day.restore("roomy");
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
    assert_eq!(world.arrived_at("roomy").len(), 1);
}

#[test]
fn a_broken_path_by_ipv6_delays_nothing_while_there_is_one_by_ipv4() {
    let six = "[[source]]\nname = \"ip-6\"\naddress = \"2001:db8::6\"\nehlo = \"ip-6.relay.world.test\"\n";
    let mut world = World::seed(605).settings(six).provider("dual.example", Script::accepts_all());
    world.zone().address("mx.dual.example", "2001:db8:1::25".parse().unwrap());
    world.live(HOUR, |day| async move {
        day.silence("[2001:db8:1::25]:25".parse().unwrap());
        for n in 0..40 {
            day.submit(n, &[&format!("user{n}@dual.example")]).await;
        }
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
    let times: Vec<Duration> = world.arrived_at("dual.example").iter().map(|message| message.at).collect();
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(*last - *first < Duration::from_secs(15), "{first:?} to {last:?}");
}

#[test]
fn mail_to_large_providers_arrives_at_their_pace() {
    let mut world = World::seed(610);
    for (name, script) in Script::providers() {
        world = world.provider(&format!("{name}.example"), script);
    }
    world.live(24 * HOUR, |day| async move {
        for n in 0..400 {
            let domain = ["google", "microsoft", "yahoo", "gmx"][n as usize % 4];
            day.submit(n, &[&format!("user{n}@{domain}.example")]).await;
        }
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
    assert!(world.refusals() > 4, "no provider ever said that it was too much: nothing was tested");
}

#[test]
fn slow_and_broken_hosts_get_their_mail() {
    let mut world = World::seed(611)
        .provider("tarpit.example", Script::tarpit(Duration::from_millis(800)))
        .provider("slow.example", Script::drains_slowly(40))
        .provider("tls.example", Script::accepts_all().with_starttls())
        .provider("garbage.example", Script::breaks_tls())
        .provider("alert.example", Script::alerts_in_handshake())
        .provider("refuses.example", Script::refuses_starttls());
    let domains = ["tarpit.example", "slow.example", "tls.example", "garbage.example", "alert.example", "refuses.example"];
    world.live(6 * HOUR, move |day| async move {
        for n in 0..30 {
            day.submit(n, &[&format!("user{n}@{}", domains[n as usize % 6])]).await;
        }
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
    for domain in domains {
        let tls = world.arrived_at(domain).iter().filter(|message| message.tls).count();
        assert_eq!(tls > 0, domain == "tls.example", "{domain}: {tls} messages under TLS");
    }
}

#[test]
fn a_provider_that_takes_mail_and_reports_later_is_heard_by_the_sender_and_changes_nothing_here() {
    let mut world = World::seed(613)
        .provider("later.example", Script::reports_later(Duration::from_secs(600)))
        .provider("member.example", Script::accepts_all());
    let provider = world.provider_of("later.example");
    world.live(HOUR, |day| async move {
        day.submit(1, &["someone@later.example"]).await;
        tokio::time::sleep(Duration::from_secs(1200)).await;
        day.post(&provider, "member.example").await;
    });
    world.check_queue_is_empty();
    assert_eq!(world.arrived_at("later.example").len(), 1, "its 250 was the end of it");
    let told = world.arrived_at("member.example");
    let text = String::from_utf8_lossy(&told[0].octets).into_owned();
    assert_eq!(
        (told.len(), told[0].reverse_path.as_str(), &told[0].recipients[..]),
        (1, "", &["app@member.example".to_owned()][..])
    );
    assert!(text.contains("Final-Recipient: rfc822; someone@later.example") && text.contains("Status: 5.1.1"), "{text}");
}

#[test]
fn a_host_that_takes_mail_and_never_says_so_is_given_ten_minutes() {
    let mut world = World::seed(612).provider("mute.example", Script::accepts_and_hangs());
    world.live(3 * HOUR, |day| async move {
        day.submit(1, &["someone@mute.example"]).await;
    });
    let times: Vec<Duration> = world.arrived_at("mute.example").iter().map(|message| message.at).collect();
    // RFC 1047: every try leaves a copy; RFC 5321 §4.5.3.2.6 has us wait ten minutes before the next.
    assert!(times.len() > 1, "{times:?}");
    let pauses: Vec<Duration> = times.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses.iter().all(|pause| *pause >= Duration::from_secs(600)), "{pauses:?}");
}
