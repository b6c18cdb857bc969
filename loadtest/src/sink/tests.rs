use std::time::Duration;

use super::session::{Session, Step};
use super::*;

const NOW: Duration = Duration::ZERO;

/// Plays the client's octets into a session and returns everything it said, `<close>`, `<hang>` or `<wait>` included.
fn play(session: &mut Session, octets: &str) -> String {
    play_at(session, NOW, octets)
}

fn play_at(session: &mut Session, now: Duration, octets: &str) -> String {
    session.handle_octets(octets.as_bytes());
    let mut said = String::new();
    loop {
        match session.poll(now) {
            Step::Write(octets) => said.push_str(std::str::from_utf8(&octets).unwrap()),
            Step::Read => return said.replace("\r\n", "|"),
            Step::Wait(_) => said.push_str("<wait>"),
            Step::StartTls => said.push_str("<tls>"),
            Step::Hang => return said.replace("\r\n", "|") + "<hang>",
            Step::Close => return said.replace("\r\n", "|") + "<close>",
        }
    }
}

fn session(provider: &std::sync::Arc<Provider>) -> Session {
    let mut session = Session::new(provider.clone(), "127.0.0.1:4000".parse().unwrap(), false);
    assert_eq!(play(&mut session, ""), "220 mx.sink.test ESMTP|");
    play(&mut session, "EHLO a.test\r\n");
    session
}

const MAIL: &str = "MAIL FROM:<a@a.test>\r\n";

#[test]
fn a_pipelined_transaction_is_kept_whole() {
    let provider = Provider::new(Script::accepts_all());
    let mut session = session(&provider);
    let said = play(&mut session, "MAIL FROM:<a@a.test> SIZE=10\r\nRCPT TO:<b@b.test>\r\nDATA\r\n");
    assert_eq!(said, "250 2.1.0 ok|250 2.1.5 ok|354 go ahead|");
    assert_eq!(provider.counts().open, 1);
    // The end of data is found across reads, and dots are unstuffed.
    assert_eq!(play(&mut session, "Subject: x\r\n\r\n..dot\r\n"), "");
    assert_eq!(play(&mut session, ".\r"), "");
    assert_eq!(play(&mut session, "\n"), "250 2.0.0 taken|");
    let messages = provider.messages();
    assert_eq!(messages[0].octets, "Subject: x\r\n\r\n.dot\r\n");
    assert_eq!((messages[0].reverse_path.as_str(), &messages[0].recipients[..]), ("a@a.test", &["b@b.test".to_owned()][..]));
    assert_eq!(provider.violations(), Vec::<String>::new());
    assert_eq!(provider.counts().open, 0);
}

#[test]
fn chunks_are_joined_and_refused_ones_swallowed() {
    let provider = Provider::new(Script { chunking: true, ..Script::default() });
    let mut session = session(&provider);
    assert_eq!(play(&mut session, "BDAT 3 LAST\r\nabc"), "554 5.5.1 no valid recipients|");
    let said = play(&mut session, "MAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\nBDAT 4\r\na\r\n.BDAT 3 LAST\r\n\r\nz");
    assert_eq!(said, "250 2.1.0 ok|250 2.1.5 ok|250 2.0.0 4 octets so far|250 2.0.0 taken|");
    assert_eq!(provider.messages()[0].octets, "a\r\n.\r\nz");
    assert_eq!(provider.counts().open, 0);
}

#[test]
fn greylisting_defers_each_envelope_once() {
    let provider = Provider::new(Script::greylists(Duration::from_secs(60)));
    let mut session = session(&provider);
    assert!(play(&mut session, &format!("{MAIL}RCPT TO:<b@b.test>\r\n")).contains("450 4.2.0"));
    assert!(play_at(&mut session, Duration::from_secs(59), "RCPT TO:<b@b.test>\r\n").starts_with("450 4.2.0"));
    assert!(play_at(&mut session, Duration::from_secs(60), "RCPT TO:<b@b.test>\r\n").starts_with("250"));
    assert!(play_at(&mut session, Duration::from_secs(60), "RCPT TO:<c@b.test>\r\n").starts_with("450"));
}

#[test]
fn rules_refuse_defer_and_break_where_they_are_told() {
    let provider = Provider::new(Script::accepts_all().refuses("no@b.test").defers(2));
    let mut client = session(&provider);
    assert!(play(&mut client, &format!("{MAIL}RCPT TO:<no@b.test>\r\n")).contains("550 5.1.1"));
    for expected in ["451", "451", "250"] {
        assert!(play(&mut client, "RCPT TO:<b@b.test>\r\n").starts_with(expected));
    }
    for (act, said, accepted) in [
        (Act::Close, "<close>", 0),
        (Act::LoseReply, "<close>", 1),
        (Act::Hang, "<hang>", 0),
        (Act::ReplyAndClose("421 4.3.0 later".into()), "421 4.3.0 later|<close>", 0),
        (Act::Delay(Duration::from_secs(1)), "<wait>250 2.0.0 taken|", 1),
    ] {
        let provider = Provider::new(Script::accepts_all().with(Rule::new(Stage::EndOfData, act.clone()).to("@b.test")));
        let mut client = session(&provider);
        play(&mut client, &format!("{MAIL}RCPT TO:<b@b.test>\r\nDATA\r\n"));
        assert_eq!(play(&mut client, "x\r\n.\r\n"), said, "{act:?}");
        assert_eq!(provider.counts().messages, accepted, "{act:?}");
        assert_eq!(provider.counts().open, 0, "{act:?}");
    }
}

#[test]
fn a_connection_ends_with_421_after_its_messages() {
    let provider = Provider::new(Script { messages_per_connection_max: Some(1), ..Script::default() });
    let mut session = session(&provider);
    play(&mut session, &format!("{MAIL}RCPT TO:<b@b.test>\r\nDATA\r\n"));
    play(&mut session, "x\r\n.\r\n");
    assert_eq!(play(&mut session, MAIL), "421 4.7.0 enough for one connection|<close>");
}

#[test]
fn breaches_of_the_standards_are_counted() {
    for (script, octets, what) in [
        (Script::default(), "NOOP\n", "bare LF"),
        (Script::default(), "MAIL FROM:<a@a.test> RET=HDRS\r\n", "not offered"),
        (Script::default(), "DATA\r\nx", "last of a group"),
        (Script { pipelining: false, ..Script::default() }, "MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n", "pipelining"),
        (Script::default(), "MAIL FROM: <a@a.test>\r\n", "cannot be read"),
        (Script::default(), "MAIL FROM:<a@a.test>\r\nDATA\r\n", "DATA without RCPT"),
    ] {
        let provider = Provider::new(script);
        play(&mut session(&provider), octets);
        assert!(provider.violations().iter().any(|v| v.contains(what)), "{octets:?}: {:?}", provider.violations());
    }
    let provider = Provider::new(Script::default());
    let mut client = session(&provider);
    play(&mut client, &format!("{MAIL}RCPT TO:<b@b.test>\r\nDATA\r\n"));
    play(&mut client, "a\nb\r\n.\r\n");
    assert!(provider.violations()[0].contains("bare LF in a message"));
}

#[test]
fn octets_behind_starttls_are_thrown_away() {
    let provider = Provider::new(Script { starttls: true, ..Script::default() });
    let mut client = session(&provider);
    client.handle_octets(b"STARTTLS\r\nMAIL FROM:<evil@a.test>\r\n");
    assert!(matches!(client.poll(NOW), Step::Write(_)));
    assert!(matches!(client.poll(NOW), Step::StartTls));
    client.handle_tls();
    assert!(matches!(client.poll(NOW), Step::Read));
    assert_eq!(provider.violations().len(), 1);
}

#[test]
fn a_provider_serves_on_a_simulated_network_and_hours_pass_at_once() {
    use host::Stream as _;
    let io = host::Io::Sim(host::sim::Net::new(7));
    let provider = Provider::new(Script::greylists(Duration::from_secs(3600)));
    let seen = provider.clone();
    host::run(&io.clone(), async move {
        let net = host::Net::new(io);
        let address = "192.0.2.1:25".parse().unwrap();
        let stopper = listen_on(&net, address, provider, None).unwrap();
        for expected in ["450", "250"] {
            let deadline = || host::deadline_in(Duration::from_secs(60));
            let mut client = net.connect(None, address, deadline()).await.unwrap();
            let mut said = client.read(deadline()).await.unwrap().to_vec();
            for line in ["EHLO a.test\r\n", MAIL, "RCPT TO:<b@b.test>\r\n"] {
                client.write(line.into(), deadline()).await.unwrap();
                said = client.read(deadline()).await.unwrap().to_vec();
            }
            assert!(said.starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(&said));
            client.close().await;
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        stopper.stop();
    })
    .unwrap();
    assert_eq!((seen.counts().connections, seen.counts().open), (2, 0));
}

#[test]
fn providers_speak_their_own_words_past_their_pace_and_of_unknown_mailboxes() {
    for (name, script) in Script::providers() {
        let pace = script.pace.clone().unwrap();
        let hello = format!("220 {} ESMTP|", script.hostname);
        let provider = Provider::new(script);
        let mut session = Session::new(provider.clone(), "192.0.2.9:4000".parse().unwrap(), false);
        assert_eq!(play(&mut session, ""), hello);
        play(&mut session, "EHLO a.test\r\n");
        let said = play(&mut session, "MAIL FROM:<a@a.test>\r\nRCPT TO:<nobody@b.test>\r\nRCPT TO:<x@b.test>\r\n");
        let replies: Vec<&str> = said.split('|').collect();
        assert!(replies[1].starts_with('5') && replies.contains(&"250 2.1.5 ok"), "{name}: {said}");
        for nth in 1..pace.messages {
            assert!(play(&mut session, "RSET\r\nMAIL FROM:<a@a.test>\r\n").ends_with("250 2.1.0 ok|"), "{name}: message {nth}");
        }
        let said = play(&mut session, "RSET\r\nMAIL FROM:<a@a.test>\r\n");
        assert!(said.contains("|4") && !said.contains("{ip}"), "{name}: {said}");
        assert_eq!(said.ends_with("<close>"), pace.reply.starts_with("421"), "{name}: {said}");
        // An hour later it may go on, over another connection.
        let mut session = Session::new(provider.clone(), "192.0.2.9:4001".parse().unwrap(), false);
        let said = play_at(&mut session, pace.within, "EHLO a.test\r\nMAIL FROM:<a@a.test>\r\n");
        assert!(said.ends_with("250 2.1.0 ok|"), "{name}: {said}");
    }
}

#[test]
fn a_tarpit_says_one_octet_at_a_time() {
    let provider = Provider::new(Script::tarpit(Duration::from_secs(1)));
    let mut session = Session::new(provider, "127.0.0.1:4000".parse().unwrap(), false);
    let said = play(&mut session, "");
    assert!(said.starts_with("2<wait>2<wait>0<wait>") && said.ends_with("<wait>"), "{said}");
}

#[test]
fn a_slow_host_reads_no_faster_than_it_says() {
    let provider = Provider::new(Script::drains_slowly(1000));
    let mut session = session(&provider);
    play(&mut session, "MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n");
    session.handle_octets(&[b'x'; 3000]);
    assert!(matches!(session.poll(NOW), Step::Wait(time) if time == Duration::from_secs(3)));
    assert_eq!(play(&mut session, "\r\n.\r\n"), "<wait>250 2.0.0 taken|");
}

#[test]
fn a_broken_handshake_answers_the_first_octets_and_ends() {
    let provider = Provider::new(Script::alerts_in_handshake());
    let mut session = session(&provider);
    assert_eq!(play(&mut session, "STARTTLS\r\n"), "220 2.0.0 go ahead|");
    session.handle_octets(&[22, 3, 1]);
    assert!(matches!(session.poll(NOW), Step::Write(octets) if octets[..] == [21, 3, 3, 0, 2, 2, 40]));
    assert!(matches!(session.poll(NOW), Step::Close));
}

#[test]
fn a_provider_reports_later_to_whoever_sent_and_never_to_a_null_reverse_path() {
    let provider = Provider::new(Script::reports_later(Duration::from_secs(60)));
    let mut session = session(&provider);
    for from in ["a@a.test", ""] {
        let said =
            play(&mut session, &format!("MAIL FROM:<{from}>\r\nRCPT TO:<b@b.test>\r\nDATA\r\nSubject: x\r\n\r\ny\r\n.\r\n"));
        assert!(said.ends_with("250 2.0.0 taken|"), "{said}");
    }
    assert!(provider.take_reports(Duration::from_secs(59)).is_empty());
    let sink = Provider::new(Script::accepts_all());
    let listening = Sink::start("127.0.0.1:0".parse().unwrap(), sink.clone(), None).unwrap();
    let due = provider.take_reports(Duration::from_secs(60));
    assert!(due.len() == 1 && due[0].to == "a@a.test" && provider.take_reports(Duration::MAX).is_empty(), "{due:?}");
    // Over a socket: one that is due at once.
    let provider = Provider::new(Script::reports_later(Duration::ZERO));
    let mut session = self::session(&provider);
    play(&mut session, "MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\nSubject: x\r\n\r\ny\r\n.\r\n");
    let _post = post_to(provider, listening.address()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(runtime.block_on(sink.wait_for(1, Duration::from_secs(60))));
    let told = &sink.messages()[0];
    assert_eq!((told.reverse_path.as_str(), &told.recipients[..]), ("", &["a@a.test".to_owned()][..]));
    assert!(String::from_utf8_lossy(&told.octets).contains("Subject: x\r\n\r\n--=_later--"), "{told:?}");
}
