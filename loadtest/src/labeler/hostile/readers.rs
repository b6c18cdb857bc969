//! Clients that ask for too much, ask in two voices, dawdle, or flood a stream.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Row;
use super::world::{Setup, World};

const QUERY: &str = "/xrpc/com.atproto.label.queryLabels";
const STREAM: &str = "/xrpc/com.atproto.label.subscribeLabels";
/// Labels of a store that is streamed to somebody who does not read: more than kernels and buffers hold.
const LABELS: usize = 4000;
/// A labeler gives a subscriber 30 seconds to take a page, and then its last words 2.
const STALL: Duration = Duration::from_secs(40);
/// A labeler gives a head 15 seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends octets, and reads what comes until the end, for a while.
pub(super) async fn exchange(address: SocketAddr, octets: &[u8], patience: Duration) -> Result<(String, bool)> {
    let mut stream = TcpStream::connect(address).await?;
    // Who is refused early cannot say everything.
    let _ = stream.write_all(octets).await;
    let mut answer = Vec::new();
    let ended = timeout(patience, async { while matches!(stream.read_buf(&mut answer).await, Ok(1..)) {} }).await.is_ok();
    Ok((String::from_utf8_lossy(&answer).into_owned(), ended))
}

/// The whole answer to GET.
pub(super) async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: labeler\r\nX-Forwarded-For: 192.0.2.200\r\nConnection: close\r\n\r\n");
    Ok(exchange(address, request.as_bytes(), PATIENCE).await?.0)
}

pub(super) fn line(answer: &str) -> String {
    answer.lines().next().unwrap_or("(nothing)").to_owned()
}

pub(super) async fn rows() -> Result<Vec<Row>> {
    let world = World::set_up(Setup {
        more: "[serve]\nrequests_per_minute = 100000\nsubscriptions_per_address = 8\n",
        ..Setup::default()
    })
    .await?;
    let (account, domain) = world.member("reader");
    world.net.attest(&account, &domain, &["s1"], true);
    let began = Instant::now();
    while world.labels(&account).await? < 2 && began.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let address = world.labeler.local_addr();
    let mut rows = questions(address).await?;
    rows.extend(heads(address).await?);
    rows.extend(streams(address).await?);
    let (health, labels) = (line(&get(address, "/xrpc/_health").await?), world.labels(&account).await?);
    rows.push(Row::new(
        "after all that",
        "200, 2 labels",
        format!("{health}, {labels} labels"),
        health.contains("200") && labels == 2,
    ));
    Ok(rows)
}

async fn questions(address: SocketAddr) -> Result<Vec<Row>> {
    let many = |count: usize| format!("{QUERY}?{}", "uriPatterns=a&".repeat(count));
    let table: Vec<(&str, String, &[&str])> = vec![
        ("10,000 patterns", many(10_000), &["400", "414", "431"]),
        ("1,001 patterns", many(1001), &["400"]),
        ("a star inside of a pattern", format!("{QUERY}?uriPatterns=a*b"), &["400"]),
        ("no pattern", QUERY.into(), &["400"]),
        ("limit 0", format!("{QUERY}?uriPatterns=*&limit=0"), &["400"]),
        ("limit -1", format!("{QUERY}?uriPatterns=*&limit=-1"), &["400"]),
        ("limit 10^9", format!("{QUERY}?uriPatterns=*&limit=1000000000"), &["400"]),
        ("a cursor that is none", format!("{QUERY}?uriPatterns=*&cursor=7"), &["400"]),
        ("a cursor of 60,000 octets", format!("{QUERY}?uriPatterns=*&cursor={}+b", "x".repeat(60_000)), &["400", "414", "431"]),
        ("a pattern of 5,000 octets", format!("{QUERY}?uriPatterns={}*", "x".repeat(5000)), &["200"]),
        ("octets that are no text in a pattern", format!("{QUERY}?uriPatterns=%ff%00*"), &["200", "400"]),
        ("a way up in a path", "/status/..%2f..%2fetc%2fpasswd".into(), &["400", "404"]),
        ("a status of a script", "/status/%3Cscript%3Ealert(1)%3C%2Fscript%3E".into(), &["400", "404"]),
        ("a method that is none", "/xrpc/com.example.other".into(), &["501"]),
        ("a stream's cursor below 0", format!("{STREAM}?cursor=-1"), &["400"]),
        ("a stream's cursor of words", format!("{STREAM}?cursor=x"), &["400"]),
        ("a stream's cursor of 2^64", format!("{STREAM}?cursor=18446744073709551616"), &["400"]),
    ];
    let mut rows = Vec::new();
    for (case, path, expected) in table {
        let answer = get(address, &path).await?;
        let fine = expected.iter().any(|code| line(&answer).contains(&format!(" {code} "))) && !answer.contains("<script>");
        rows.push(Row::new(case, expected.join(" or "), line(&answer), fine));
    }
    Ok(rows)
}

async fn heads(address: SocketAddr) -> Result<Vec<Row>> {
    let host = "GET /xrpc/_health HTTP/1.1\r\nHost: labeler\r\n";
    let second = "GET /second HTTP/1.1\r\nHost: labeler\r\n\r\n";
    // What is expected: one answer at most and none of 200, nothing to what was smuggled, and an end within the time of a head.
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("length and chunks at once", format!("POST /xrpc/_health HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{second}").into()),
        ("two lengths", format!("POST /xrpc/_health HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{second}").into()),
        ("a length below 0", format!("POST /xrpc/_health HTTP/1.1\r\nHost: x\r\nContent-Length: -4\r\n\r\n{second}").into()),
        ("chunks of another name", format!("POST /xrpc/_health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{second}").into()),
        ("space before the colon", "GET /xrpc/_health HTTP/1.1\r\nHost : x\r\n\r\n".into()),
        ("a folded field", "GET /xrpc/_health HTTP/1.1\r\nHost: x\r\nA: b\r\n c: d\r\n\r\n".into()),
        ("zero in a field", b"GET /xrpc/_health HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n".to_vec()),
        ("no HTTP", b"EHLO labeler\r\n".to_vec()),
        ("HTTP/2 without being asked", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("a field of 100,000 octets", format!("{host}X: {}\r\n\r\n", "x".repeat(100_000)).into()),
        ("10,000 fields", format!("{host}{}\r\n", "X: y\r\n".repeat(10_000)).into()),
        ("a head without an end", host.into()),
    ];
    let tasks = table.into_iter().map(|(case, octets)| async move {
        let (answer, ended) = exchange(address, &octets, PATIENCE).await?;
        let fine = ended && !answer.contains("HTTP/1.1 200") && answer.matches("HTTP/1.1 ").count() <= 1;
        let seen = format!("{}, {}", line(&answer), if ended { "closed" } else { "still open" });
        anyhow::Ok(Row::new(case, "no 200, nothing for a second request, closed", seen, fine))
    });
    futures_util::future::try_join_all(tasks).await
}

/// Somebody who subscribes to everything and reads nothing. What tells that he was let go is that his place is free again.
pub(super) async fn never_reads() -> Result<Vec<Row>> {
    let world =
        World::set_up(Setup { more: "[serve]\nsubscriptions_per_address = 1\n", labels: LABELS, ..Setup::default() }).await?;
    let address = world.labeler.local_addr();
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let mut deaf = socket.connect(address).await?;
    deaf.write_all(&upgrade("?cursor=0", "192.0.2.6")).await?;
    let began = Instant::now();
    let (mut first, mut open) = (String::new(), None);
    while open.is_none() && began.elapsed() < STALL {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&upgrade("", "192.0.2.6")).await?;
        let mut head = vec![0; 12];
        timeout(Duration::from_secs(5), stream.read_exact(&mut head)).await.context("no answer")??;
        let code = String::from_utf8_lossy(&head[9..]).into_owned();
        match code.as_str() {
            // The first may have come before the deaf one.
            "101" if !first.is_empty() => open = Some((began.elapsed(), stream)),
            "429" => first = code,
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let mut rest = Vec::new();
    let ended =
        timeout(Duration::from_secs(5), async { while matches!(deaf.read_buf(&mut rest).await, Ok(1..)) {} }).await.is_ok();
    let seen = format!(
        "{first} until {}; {} octets, {}",
        open.as_ref().map_or("the end".into(), |(after, _)| format!("{:.0} s", after.as_secs_f64())),
        rest.len(),
        if ended { "closed" } else { "still open" }
    );
    let fine = open.is_some() && ended;
    Ok(vec![Row::new("a subscriber that never reads", "429 to a second until it is let go", seen, fine)])
}

fn upgrade(query: &str, from: &str) -> Vec<u8> {
    format!(
        "GET {STREAM}{query} HTTP/1.1\r\nHost: labeler\r\nX-Forwarded-For: {from}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

async fn streams(address: SocketAddr) -> Result<Vec<Row>> {
    // Masked with zeros, so that what is sent can be read here.
    let frame = |first: u8, length: &[u8], body: &[u8]| [&[first], length, &[0; 4][..], body].concat();
    let mut rows = Vec::new();
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("a frame that is not masked", b"\x81\x02hi".to_vec()),
        ("a frame of 2^62 octets", frame(0x82, &[0xff, 0x40, 0, 0, 0, 0, 0, 0, 0], b"x")),
        ("a message of 100,000 octets", frame(0x82, &[0xff, 0, 0, 0, 0, 0, 1, 0x86, 0xa0], &vec![0; 100_000])),
        (
            "a message in 1,000 parts without an end",
            [frame(0x02, &[0xe4], &[0; 100]), frame(0x00, &[0xe4], &[0; 100]).repeat(1000)].concat(),
        ),
        ("a part of nothing", frame(0x00, &[0x81], b"x")),
        ("a bit that is reserved", frame(0xc1, &[0x81], b"x")),
        ("a control frame of 200 octets", frame(0x89, &[0xfe, 0, 200], &[0; 200])),
        ("a text that is none", frame(0x81, &[0x82], &[0xc3, 0x28])),
    ];
    for (case, octets) in table {
        let (answer, ended) = exchange(address, &[upgrade("", "192.0.2.1"), octets].concat(), Duration::from_secs(5)).await?;
        let seen = format!("{}, {}", line(&answer), if ended { "closed" } else { "still open" });
        rows.push(Row::new(case, "101, then closed", seen, line(&answer).contains("101") && ended));
    }
    for (case, query) in [("a cursor of 2^63", "?cursor=9223372036854775808"), ("a cursor of the future", "?cursor=1000000")] {
        let (answer, ended) = exchange(address, &upgrade(query, "192.0.2.2"), Duration::from_secs(5)).await?;
        let fine = answer.contains("FutureCursor") && ended;
        rows.push(Row::new(case, "FutureCursor, closed", if fine { "FutureCursor, closed".into() } else { line(&answer) }, fine));
    }
    let mut told = 0;
    for _ in 0..50 {
        let (answer, ended) = exchange(address, &upgrade("?cursor=1000000", "192.0.2.3"), Duration::from_secs(5)).await?;
        told += usize::from(answer.contains("FutureCursor") && ended);
    }
    rows.push(Row::new("50 times a cursor of the future", "50 times FutureCursor", format!("{told} times"), told == 50));
    let pings = [upgrade("?cursor=0", "192.0.2.4"), frame(0x89, &[0x81], b"x").repeat(20_000)].concat();
    let (answer, _) = exchange(address, &pings, Duration::from_secs(2)).await?;
    rows.push(Row::new("20,000 pings at once", "101, and labels", line(&answer), answer.contains("#labels")));
    let mut open = Vec::new();
    let mut codes = Vec::new();
    for _ in 0..9 {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&upgrade("", "192.0.2.5")).await?;
        let mut head = vec![0; 12];
        timeout(Duration::from_secs(5), stream.read_exact(&mut head)).await.context("no answer")??;
        codes.push(String::from_utf8_lossy(&head[9..]).into_owned());
        open.push(stream);
    }
    let fine = codes[..8].iter().all(|code| code == "101") && codes[8] == "429";
    rows.push(Row::new("a ninth stream of one address", "429", codes.last().cloned().unwrap_or_default(), fine));
    Ok(rows)
}
