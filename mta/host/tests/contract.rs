//! One contract on uring, epoll and sim: every case below runs on all three, and ends with nothing in flight and no
//! descriptor left over.
//!
//! Where io_uring is refused these tests fail; `TRADEWIND_WITHOUT_URING=1` says that this is known (and is printed).

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use host::{Connection, Net, Stream, spawn_local};
use support::{Certificates, drain, pair, pattern, soon};

support::contract! {
    what_is_said_comes_back,
    large_transfers_both_ways_at_once,
    a_read_ends_at_its_deadline,
    a_write_to_a_peer_that_does_not_read_ends_at_its_deadline,
    a_connect_that_nobody_answers_ends_at_its_deadline,
    a_long_deadline_after_a_short_one_holds,
    a_peer_that_closes_midway_ends_the_stream,
    a_reset_is_an_error,
    nobody_listening_is_refused,
    the_source_address_is_the_one_named,
    a_stopped_listener_accepts_no_more,
    what_waits_when_a_listener_is_stopped_is_accepted,
    what_waits_when_a_listener_is_gone_is_accepted_by_who_holds_the_socket,
    an_interrupted_read_ends_and_the_last_word_arrives,
    an_interrupted_read_hands_out_what_has_come,
    an_interrupted_tls_read_ends_and_the_last_word_arrives,
    an_abandoned_read_leaves_nothing_behind,
    an_abandoned_connect_leaves_nothing_behind,
    an_abandoned_accept_leaves_nothing_behind,
    the_first_octet_is_seen_and_left,
    no_first_octet_leaves_the_connection_alive,
    tls13_carries_octets_both_ways,
    tls12_carries_octets_both_ways,
    tls_starts_in_the_middle_of_a_stream,
    plaintext_sent_ahead_of_the_handshake_is_not_read_as_if_encrypted,
    the_second_connection_resumes_the_first,
    a_wrong_certificate_is_refused_only_by_those_who_verify,
    who_accepts_any_certificate_may_note_whether_it_was_right,
    garbage_instead_of_a_client_hello_is_an_error,
    a_client_that_never_says_hello_is_cut_off,
    a_truncated_tls_stream_is_told_from_a_finished_one,
}

/// Tasks that still read, write, connect and accept when `main` ends do not outlive it.
#[test]
fn a_runtime_that_ends_takes_its_operations_with_it() {
    let ios = [support::uring(), Some(host::Io::Epoll), Some(host::Io::Sim(host::sim::Net::new(7)))];
    for io in ios.into_iter().flatten() {
        support::leaves_nothing(&io, async {
            let net = Net::new(io.clone());
            let ((mut reading, _keep), (mut writing, _too)) = (pair(&net).await, pair(&net).await);
            let (mut accepting, full) =
                (net.listen(support::anywhere(), 1).unwrap(), net.listen(support::anywhere(), 1).unwrap());
            spawn_local(async move { reading.read(soon()).await });
            spawn_local(async move { writing.write(vec![b'x'; 64 << 20].into(), soon()).await });
            spawn_local(async move { accepting.accept().await });
            for _ in 0..4 {
                let (net, address) = (net.clone(), full.local_addr());
                spawn_local(async move { net.connect(None, address, soon()).await });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(host::operations_in_flight() > 3);
        });
    }
}

async fn what_is_said_comes_back(net: Net) {
    let (mut client, mut server) = pair(&net).await;
    assert_eq!((client.peer(), client.local()), (server.local(), server.peer()));
    for text in ["EHLO a\r\n", "QUIT\r\n"] {
        client.write(Bytes::from(text), soon()).await.unwrap();
        let heard = server.read(soon()).await.unwrap();
        assert_eq!(heard, text);
        server.write(heard, soon()).await.unwrap();
        assert_eq!(client.read(soon()).await.unwrap(), text);
    }
    client.close().await;
    assert_eq!(server.read(soon()).await.unwrap(), "");
    server.close().await;
}

async fn large_transfers_both_ways_at_once(net: Net) {
    const LENGTH: usize = 8 << 20;
    let (up, down) = (pair(&net).await, pair(&net).await);
    let send = |mut from: Connection, seed| async move {
        from.write(pattern(LENGTH, seed), soon()).await.unwrap();
        from.close().await;
    };
    let senders = [spawn_local(send(up.0, 1)), spawn_local(send(down.1, 2))];
    let receivers = [spawn_local(drain(up.1)), spawn_local(drain(down.0))];
    for sender in senders {
        sender.await.unwrap();
    }
    for (receiver, seed) in receivers.into_iter().zip([1, 2]) {
        assert!(receiver.await.unwrap() == pattern(LENGTH, seed), "what came is not what was sent");
    }
}

async fn a_read_ends_at_its_deadline(net: Net) {
    let (mut client, mut server) = pair(&net).await;
    let began = tokio::time::Instant::now();
    let error = server.read(host::deadline_in(Duration::from_millis(80))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(began.elapsed() >= Duration::from_millis(80), "{:?}", began.elapsed());
    assert_eq!(host::operations_in_flight(), 0);
    // The peer is told at once, though nobody has closed yet.
    assert!(client.read(soon()).await.map_or(true, |octets| octets.is_empty()));
    assert_eq!(server.read(soon()).await.unwrap_err().kind(), ErrorKind::NotConnected);
}

async fn a_write_to_a_peer_that_does_not_read_ends_at_its_deadline(net: Net) {
    let (mut client, server) = pair(&net).await;
    let error = client.write(vec![b'x'; 64 << 20].into(), host::deadline_in(Duration::from_millis(80))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(host::operations_in_flight(), 0);
    drop(server);
}

async fn a_connect_that_nobody_answers_ends_at_its_deadline(net: Net) {
    let listener = net.listen(support::anywhere(), 1).unwrap();
    let mut waiting = Vec::new();
    // Nobody accepts: once the backlog is full the kernel answers no more.
    for _ in 0..10 {
        match net.connect(None, listener.local_addr(), host::deadline_in(Duration::from_millis(150))).await {
            Ok(connection) => waiting.push(connection),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::TimedOut);
                assert_eq!(host::operations_in_flight(), 0);
                return;
            }
        }
    }
    panic!("a backlog of one took ten connections");
}

async fn a_long_deadline_after_a_short_one_holds(net: Net) {
    let (mut client, mut server) = pair(&net).await;
    let speaker = spawn_local(async move {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            client.write(Bytes::from_static(b"x"), soon()).await.unwrap();
        }
        client
    });
    // The timer armed for the first read goes off while the second waits.
    server.read(host::deadline_in(Duration::from_millis(90))).await.unwrap();
    server.read(host::deadline_in(Duration::from_secs(20))).await.unwrap();
    server.read(soon()).await.unwrap();
    // And a shorter one after a longer is not late.
    let began = tokio::time::Instant::now();
    assert_eq!(server.read(host::deadline_in(Duration::from_millis(50))).await.unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(speaker.await.unwrap());
}

async fn a_peer_that_closes_midway_ends_the_stream(net: Net) {
    let (mut client, mut server) = pair(&net).await;
    server.write(Bytes::from_static(b"220 hel"), soon()).await.unwrap();
    server.close().await;
    assert_eq!(client.read(soon()).await.unwrap(), "220 hel");
    assert_eq!(client.read(soon()).await.unwrap(), "");
    // The first write may be taken before the reset comes back; in the end it is an error.
    let mut last = Ok(());
    for _ in 0..10 {
        last = client.write(Bytes::from_static(b"EHLO\r\n"), soon()).await;
        if last.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(last.is_err());
}

async fn a_reset_is_an_error(net: Net) {
    let (mut client, server) = pair(&net).await;
    server.abort();
    assert_eq!(client.read(soon()).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

async fn nobody_listening_is_refused(net: Net) {
    let gone = net.listen(support::anywhere(), 1).unwrap();
    let address = gone.local_addr();
    drop(gone);
    let error = net.connect(None, address, soon()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

async fn the_source_address_is_the_one_named(net: Net) {
    let mut listener = net.listen(support::anywhere(), 8).unwrap();
    let address = listener.local_addr();
    let accepting = spawn_local(async move { listener.accept().await.unwrap() });
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let client = net.connect(Some(source), address, soon()).await.unwrap();
    let (server, seen) = accepting.await.unwrap();
    assert_eq!((seen.ip(), client.local().ip()), (source, source));
    assert_eq!((server.peer(), server.local()), (client.local(), address));
    let other_family: IpAddr = "::1".parse().unwrap();
    assert!(
        matches!(net.connect(Some(other_family), address, soon()).await, Err(error) if error.kind() == ErrorKind::InvalidInput)
    );
}

async fn a_stopped_listener_accepts_no_more(net: Net) {
    let mut listener = net.listen(support::anywhere(), 8).unwrap();
    let (address, stopper) = (listener.local_addr(), listener.stopper());
    let accepting = spawn_local(async move {
        let first = listener.accept().await;
        let second = listener.accept().await.unwrap_err();
        let third = listener.accept().await.unwrap_err();
        (first.is_ok(), second.kind(), third.kind())
    });
    let before = net.connect(None, address, soon()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    std::thread::spawn(move || stopper.stop()).join().unwrap();
    assert_eq!(accepting.await.unwrap(), (true, ErrorKind::ConnectionAborted, ErrorKind::ConnectionAborted));
    assert!(net.connect(None, address, soon()).await.is_err());
    drop(before);
}

async fn what_waits_when_a_listener_is_stopped_is_accepted(net: Net) {
    let mut listener = net.listen(support::anywhere(), 8).unwrap();
    let (address, stopper) = (listener.local_addr(), listener.stopper());
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(net.connect(None, address, soon()).await.unwrap());
    }
    stopper.stop();
    for _ in 0..3 {
        let (mut server, _) = listener.accept().await.unwrap();
        server.write(Bytes::from_static(b"220 hello\r\n"), soon()).await.unwrap();
    }
    for mut client in clients {
        assert_eq!(client.read(soon()).await.unwrap(), "220 hello\r\n");
    }
    assert_eq!(listener.accept().await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    drop(listener);
    assert_eq!(net.connect(None, address, soon()).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

async fn what_waits_when_a_listener_is_gone_is_accepted_by_who_holds_the_socket(net: Net) {
    let bound = net.bind(support::anywhere(), 8).unwrap();
    let mut first = net.listen_on(bound.try_clone().unwrap()).unwrap();
    let stopper = first.stopper();
    let accepting = spawn_local(async move { first.accept().await.map(drop).map_err(|error| error.kind()) });
    tokio::time::sleep(Duration::from_millis(20)).await;
    stopper.stop();
    assert_eq!(accepting.await.unwrap(), Err(ErrorKind::ConnectionAborted));
    // Nobody accepts now, and yet nobody is refused.
    let mut client = net.connect(None, bound.local_addr(), soon()).await.unwrap();
    let mut second = net.listen_on(bound).unwrap();
    let (mut server, _) = second.accept().await.unwrap();
    server.write(Bytes::from_static(b"220 hello\r\n"), soon()).await.unwrap();
    assert_eq!(client.read(soon()).await.unwrap(), "220 hello\r\n");
}

async fn an_interrupted_read_ends_and_the_last_word_arrives(net: Net) {
    let (client, server) = pair(&net).await;
    interrupted(client, server).await;
}

async fn an_interrupted_tls_read_ends_and_the_last_word_arrives(net: Net) {
    let certificates = Certificates::for_host("mx.example.org");
    let (mut client, mut server) = pair(&net).await;
    let (accepts, connects) = (certificates.server(), certificates.verified());
    let shaking = spawn_local(async move {
        server.start_tls_server(&accepts, soon()).await.unwrap();
        assert_eq!(server.read(soon()).await.unwrap(), "EHLO a\r\n");
        server
    });
    client.start_tls_client(&connects, "mx.example.org", soon()).await.unwrap();
    client.write(Bytes::from_static(b"EHLO a\r\n"), soon()).await.unwrap();
    interrupted(client, shaking.await.unwrap()).await;
}

async fn interrupted(mut client: Connection, mut server: Connection) {
    let interrupter = server.interrupter();
    let reading = spawn_local(async move {
        let error = server.read(soon()).await.unwrap_err();
        (server, error.kind())
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    interrupter.interrupt();
    let (mut server, kind) = reading.await.unwrap();
    assert_eq!(kind, ErrorKind::Interrupted);
    assert_eq!(server.read(soon()).await.unwrap_err().kind(), ErrorKind::Interrupted, "and so is every later read");
    server.write(Bytes::from_static(b"421 4.3.2 bye\r\n"), soon()).await.unwrap();
    server.close().await;
    // What the client says meanwhile must not cost it our last word.
    let _ = client.write(Bytes::from_static(b"MAIL FROM:<a@example.org>\r\n"), soon()).await;
    assert_eq!(client.read(soon()).await.unwrap(), "421 4.3.2 bye\r\n");
    interrupter.interrupt();
}

async fn an_interrupted_read_hands_out_what_has_come(net: Net) {
    let (mut client, mut server) = pair(&net).await;
    client.write(Bytes::from_static(b"QUIT\r\n"), soon()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.interrupter().interrupt();
    assert_eq!(server.read(soon()).await.unwrap(), "QUIT\r\n");
    assert_eq!(server.read(soon()).await.unwrap_err().kind(), ErrorKind::Interrupted);
    server.write(Bytes::from_static(b"221 bye\r\n"), soon()).await.unwrap();
    assert_eq!(client.read(soon()).await.unwrap(), "221 bye\r\n");
}

async fn an_abandoned_read_leaves_nothing_behind(net: Net) {
    let (mut client, mut server) = pair(&net).await;
    let reading = spawn_local(async move { server.read(soon()).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(host::operations_in_flight(), 1);
    reading.abort();
    assert!(reading.await.unwrap_err().is_cancelled());
    assert_eq!(client.read(soon()).await.unwrap(), "", "the peer is told");

    // Who keeps the connection and drops the read finds out at the next one.
    let (client, mut server) = pair(&net).await;
    drop(tokio::time::timeout(Duration::from_millis(20), server.read(soon())).await);
    assert_eq!(server.read(soon()).await.unwrap_err().kind(), ErrorKind::NotConnected);
    drop(client);
}

async fn an_abandoned_connect_leaves_nothing_behind(net: Net) {
    let listener = net.listen(support::anywhere(), 1).unwrap();
    let address = listener.local_addr();
    // Enough to fill the backlog: the last ones wait.
    let connecting: Vec<_> = (0..6)
        .map(|_| {
            let net = net.clone();
            spawn_local(async move { net.connect(None, address, soon()).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(host::operations_in_flight() > 0);
    for attempt in connecting {
        attempt.abort();
        drop(attempt.await);
    }
    support::nothing_in_flight().await;
}

async fn an_abandoned_accept_leaves_nothing_behind(net: Net) {
    let mut listener = net.listen(support::anywhere(), 8).unwrap();
    let address = listener.local_addr();
    let accepting = spawn_local(async move { listener.accept().await.map(drop) });
    tokio::time::sleep(Duration::from_millis(20)).await;
    accepting.abort();
    assert!(accepting.await.unwrap_err().is_cancelled());
    support::nothing_in_flight().await;
    assert_eq!(net.connect(None, address, soon()).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

async fn the_first_octet_is_seen_and_left(net: Net) {
    let (mut client, mut server) = pair(&net).await;
    let speaking = spawn_local(async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        client.write(Bytes::from_static(b"\x16\x03\x01"), soon()).await.unwrap();
        client
    });
    assert_eq!(server.first_octet(Duration::from_secs(5)).await.unwrap(), Some(0x16));
    assert_eq!(server.first_octet(Duration::ZERO).await.unwrap(), Some(0x16));
    assert_eq!(server.read(soon()).await.unwrap(), &b"\x16\x03\x01"[..]);
    speaking.await.unwrap().close().await;
    assert_eq!(server.first_octet(Duration::from_secs(5)).await.unwrap(), None);
    assert_eq!(server.read(soon()).await.unwrap(), "");
}

async fn no_first_octet_leaves_the_connection_alive(net: Net) {
    let (mut client, mut server) = pair(&net).await;
    let began = tokio::time::Instant::now();
    assert_eq!(server.first_octet(Duration::from_millis(50)).await.unwrap(), None);
    assert!(began.elapsed() >= Duration::from_millis(50));
    assert_eq!(host::operations_in_flight(), 0);
    server.write(Bytes::from_static(b"220 hello\r\n"), soon()).await.unwrap();
    assert_eq!(client.read(soon()).await.unwrap(), "220 hello\r\n");
}

async fn tls13_carries_octets_both_ways(net: Net) {
    let certificates = Certificates::for_host("mx.example.org");
    tls_carries_octets(&net, &certificates, certificates.verified(), "TLSv1.3").await;
}

async fn tls12_carries_octets_both_ways(net: Net) {
    let certificates = Certificates::for_host("mx.example.org");
    let client = certificates.verified().without_tls13().unwrap();
    tls_carries_octets(&net, &certificates, client, "TLSv1.2").await;
}

async fn tls_carries_octets(net: &Net, certificates: &Certificates, client: host::tls::Client, version: &str) {
    let (mut near, mut far) = pair(net).await;
    let server = certificates.server();
    let answering = spawn_local(async move {
        let info = far.start_tls_server(&server, soon()).await.unwrap();
        let mut heard = 0;
        while heard < 1 << 20 {
            let octets = far.read(soon()).await.unwrap();
            assert!(!octets.is_empty());
            assert!(octets == pattern(1 << 20, 5)[heard..][..octets.len()]);
            heard += octets.len();
        }
        far.write(pattern(1 << 20, 6), soon()).await.unwrap();
        far.close().await;
        info
    });
    let info = near.start_tls_client(&client, "mx.example.org", soon()).await.unwrap();
    assert_eq!(near.tls(), Some(&info));
    assert_eq!(info.version, version);
    assert!(info.cipher.starts_with("TLS_"), "{}", info.cipher);
    assert!(near.start_tls_client(&client, "mx.example.org", soon()).await.is_err(), "TLS within TLS");
    near.write(pattern(1 << 20, 5), soon()).await.unwrap();
    assert!(drain(near).await == pattern(1 << 20, 6));
    assert_eq!(info.trusted, Some(true));
    // The server has seen the same, except that it was shown no certificate.
    assert_eq!(answering.await.unwrap(), host::tls::Info { trusted: None, ..info });
}

async fn tls_starts_in_the_middle_of_a_stream(net: Net) {
    let certificates = Certificates::for_host("mx.example.org");
    let (mut near, mut far) = pair(&net).await;
    let (server, client) = (certificates.server(), certificates.verified());
    let answering = spawn_local(async move {
        assert_eq!(far.read(soon()).await.unwrap(), "STARTTLS\r\n");
        far.write(Bytes::from_static(b"220 go\r\n"), soon()).await.unwrap();
        far.start_tls_server(&server, soon()).await.unwrap();
        assert_eq!(far.read(soon()).await.unwrap(), "EHLO a\r\n");
        far.write(Bytes::from_static(b"250 ok\r\n"), soon()).await.unwrap();
        assert_eq!(far.read(soon()).await.unwrap(), "", "close_notify ends the stream");
        far.close().await;
    });
    near.write(Bytes::from_static(b"STARTTLS\r\n"), soon()).await.unwrap();
    assert_eq!(near.read(soon()).await.unwrap(), "220 go\r\n");
    near.start_tls_client(&client, "mx.example.org", soon()).await.unwrap();
    near.write(Bytes::from_static(b"EHLO a\r\n"), soon()).await.unwrap();
    assert_eq!(near.read(soon()).await.unwrap(), "250 ok\r\n");
    near.close().await;
    answering.await.unwrap();
}

async fn plaintext_sent_ahead_of_the_handshake_is_not_read_as_if_encrypted(net: Net) {
    let certificates = Certificates::for_host("mx.example.org");
    let (mut near, mut far) = pair(&net).await;
    let (server, client) = (certificates.server(), certificates.opportunistic());
    near.write(Bytes::from_static(b"MAIL FROM:<evil@example.org>\r\n"), soon()).await.unwrap();
    let answering = spawn_local(async move {
        let error = far.start_tls_server(&server, soon()).await.unwrap_err();
        (error.kind(), far.read(soon()).await.map_err(|error| error.kind()))
    });
    assert!(near.start_tls_client(&client, "mx.example.org", soon()).await.is_err());
    // And a connection whose handshake failed is of no further use, in the clear least of all.
    assert_eq!(near.write(Bytes::from_static(b"secret"), soon()).await.unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(answering.await.unwrap(), (ErrorKind::InvalidData, Err(ErrorKind::NotConnected)));
}

async fn the_second_connection_resumes_the_first(net: Net) {
    let certificates = Certificates::for_host("mx.example.org");
    for client in [certificates.verified(), certificates.verified().without_tls13().unwrap(), certificates.opportunistic()] {
        let server = certificates.server();
        let mut resumed = Vec::new();
        for _ in 0..3 {
            let (mut near, mut far) = pair(&net).await;
            let server = server.clone();
            let answering = spawn_local(async move {
                let info = far.start_tls_server(&server, soon()).await.unwrap();
                let heard = far.read(soon()).await.unwrap();
                far.write(heard, soon()).await.unwrap();
                assert_eq!(far.read(soon()).await.unwrap(), "");
                info.resumed
            });
            let info = near.start_tls_client(&client, "mx.example.org", soon()).await.unwrap();
            near.write(Bytes::from_static(b"EHLO a\r\n"), soon()).await.unwrap();
            assert_eq!(near.read(soon()).await.unwrap(), "EHLO a\r\n");
            near.close().await;
            assert_eq!(answering.await.unwrap(), info.resumed);
            resumed.push(info.resumed);
        }
        assert_eq!(resumed, [false, true, true], "{client:?}");
    }
}

async fn a_wrong_certificate_is_refused_only_by_those_who_verify(net: Net) {
    let (ours, other) = (Certificates::for_host("mx.example.org"), Certificates::for_host("mx.example.org"));
    let attempts = [
        (ours.verified(), "mx.example.org", true),
        (ours.verified(), "mx.example.net", false),
        (other.verified(), "mx.example.org", false),
        (other.opportunistic(), "mx.example.org", true),
        (other.opportunistic(), "mx.example.net", true),
        (other.opportunistic(), "not a name", true),
        (ours.verified(), "not a name", false),
    ];
    for (client, name, accepted) in attempts {
        let (mut near, mut far) = pair(&net).await;
        let server = ours.server();
        let answering = spawn_local(async move {
            far.start_tls_server(&server, soon()).await?;
            far.read(soon()).await
        });
        let outcome = near.start_tls_client(&client, name, soon()).await;
        assert_eq!(outcome.is_ok(), accepted, "{client:?} {name} {outcome:?}");
        near.close().await;
        match answering.await.unwrap() {
            Ok(end) => assert!(accepted && end.is_empty()),
            // Nothing is sent to a host whose name cannot be verified anyway; others are sent the alert.
            Err(error) => assert!(!accepted && (error.kind() == ErrorKind::InvalidData || name == "not a name"), "{error}"),
        }
    }
}

async fn who_accepts_any_certificate_may_note_whether_it_was_right(net: Net) {
    let (ours, other) = (Certificates::for_host("mx.example.org"), Certificates::for_host("mx.example.org"));
    let noting = |of: &Certificates| host::tls::Client::opportunistic_noting(&of.trust()).unwrap();
    let cases = [
        (noting(&ours), "mx.example.org", Some(true)),
        (noting(&ours), "mx.example.net", Some(false)),
        (noting(&other), "mx.example.org", Some(false)),
        (ours.opportunistic(), "mx.example.org", None),
    ];
    for (client, name, trusted) in cases {
        let server = ours.server();
        // The second time the session is resumed, and shows no certificate to look at.
        for resumed in [false, true] {
            let (mut near, mut far) = pair(&net).await;
            let server = server.clone();
            let answering = spawn_local(async move {
                far.start_tls_server(&server, soon()).await.unwrap();
                far.write(Bytes::from_static(b"220\r\n"), soon()).await.unwrap();
                far.read(soon()).await.unwrap()
            });
            let info = near.start_tls_client(&client, name, soon()).await.unwrap();
            let expected = if resumed { None } else { trusted };
            assert_eq!((info.trusted, info.resumed), (expected, resumed), "{client:?} {name}");
            near.read(soon()).await.unwrap();
            near.close().await;
            answering.await.unwrap();
        }
    }
}

async fn garbage_instead_of_a_client_hello_is_an_error(net: Net) {
    let server = Certificates::for_host("mx.example.org").server();
    for garbage in [Bytes::from_static(b"EHLO a\r\n"), pattern(3000, 9), Bytes::from_static(&[22, 3, 1, 0xff, 0xff, 1])] {
        let (mut near, mut far) = pair(&net).await;
        near.write(garbage, soon()).await.unwrap();
        near.close().await;
        let kind = far.start_tls_server(&server, soon()).await.unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::InvalidData | ErrorKind::UnexpectedEof), "{kind}");
        assert_eq!(far.tls(), None);
    }
}

async fn a_client_that_never_says_hello_is_cut_off(net: Net) {
    let server = Certificates::for_host("mx.example.org").server();
    let (near, mut far) = pair(&net).await;
    let error = far.start_tls_server(&server, host::deadline_in(Duration::from_millis(60))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    drop(near);
}

async fn a_truncated_tls_stream_is_told_from_a_finished_one(net: Net) {
    let certificates = Certificates::for_host("mx.example.org");
    for finished in [true, false] {
        let (mut near, mut far) = pair(&net).await;
        let (server, client) = (certificates.server(), certificates.verified());
        let answering = spawn_local(async move {
            far.start_tls_server(&server, soon()).await.unwrap();
            far.write(Bytes::from_static(b"221 bye\r\n"), soon()).await.unwrap();
            if finished {
                far.close().await;
            }
        });
        near.start_tls_client(&client, "mx.example.org", soon()).await.unwrap();
        near.write(Bytes::new(), soon()).await.unwrap();
        assert_eq!(near.read(soon()).await.unwrap(), "221 bye\r\n");
        answering.await.unwrap();
        let end = near.read(soon()).await;
        match finished {
            true => assert_eq!(end.unwrap(), ""),
            false => assert_eq!(end.unwrap_err().kind(), ErrorKind::UnexpectedEof),
        }
    }
}
