//! Servers that say what they like, over real sockets on loopback.

use loadtest::dns::{Record, Server, Zone};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const BYTES_MAX: usize = 1000;

/// One that answers each connection with these octets, then closes, or holds still.
async fn server(answer: Vec<u8>, then_closes: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(&answer).await;
                if !then_closes {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    address
}

struct Bench {
    zone: Zone,
    _dns: Server,
    fetcher: Fetcher,
}

fn bench(allow_private: bool) -> Bench {
    let zone = Zone::new();
    let server = Server::start("127.0.0.1:0".parse().unwrap(), zone.clone()).unwrap();
    let dns = Dns::new(Some(&[server.address()])).unwrap();
    Bench { zone, _dns: server, fetcher: Fetcher::new(dns, tls().unwrap(), allow_private) }
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn what_a_server_sends_beyond_measure_is_an_error() {
    let fetcher = bench(true).fetcher;
    let endless = "x".repeat(100_000);
    for (case, answer, expected) in [
        ("honest", ok("did:plc:x"), None),
        ("a long body", ok(&endless), Some("at most 1000 octets")),
        ("a long body without a length", format!("HTTP/1.1 200 OK\r\n\r\n{endless}").into_bytes(), Some("at most 1000 octets")),
        (
            "a long body in chunks",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n{endless}\r\n0\r\n\r\n").into_bytes(),
            Some("at most 1000 octets"),
        ),
        ("a long head", format!("HTTP/1.1 200 OK\r\nX: {endless}\r\n\r\n").into_bytes(), Some("")),
        ("less than it says", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nx".to_vec(), Some("")),
        ("not HTTP", b"220 mail.example ESMTP\r\n".to_vec(), Some("")),
        ("nothing", Vec::new(), Some("")),
    ] {
        let address = server(answer, true).await;
        let fetched = fetcher.get(&url(&format!("http://{address}/")), From::Stranger, BYTES_MAX).await;
        match (fetched, expected) {
            (Ok(fetched), None) => assert_eq!((fetched.status, &fetched.body[..]), (200, &b"did:plc:x"[..]), "{case}"),
            (Err(why), Some(expected)) => assert!(why.contains(expected), "{case}: {why}"),
            (fetched, _) => panic!("{case}: {fetched:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_holds_still_costs_no_more_than_the_time_of_one_answer() {
    let fetcher = bench(true).fetcher;
    for answer in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", b"HTTP/1.1 200 OK\r\nX-Y: "] {
        let address = server(answer.to_vec(), false).await;
        let began = crate::outside::moment();
        let fetched = fetcher.get(&url(&format!("http://{address}/")), From::Stranger, BYTES_MAX).await;
        assert!(fetched.is_err(), "{fetched:?}");
        assert!(began.elapsed() <= TIME_MAX + Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_name_is_looked_up_once_and_what_it_leads_to_is_vetted() {
    let bench = bench(false);
    let rows: &[(&str, &[&str], &str)] = &[
        ("loopback.example", &["127.0.0.1"], "127.0.0.1 is not a public address"),
        ("mixed.example", &["1.1.1.1", "192.168.0.1"], "192.168.0.1 is not a public address"),
        ("metadata.example", &["169.254.169.254"], "169.254.169.254 is not a public address"),
        ("mapped.example", &["::ffff:10.0.0.1"], "is not a public address"),
        ("shared.example", &["100.64.1.1"], "100.64.1.1 is not a public address"),
        ("nowhere.example", &[], "has no address"),
    ];
    for (name, addresses, expected) in rows {
        bench.zone.set(name, addresses.iter().map(|it| Record::address(it.parse().unwrap())).collect());
        let why = bench.fetcher.get(&url(&format!("https://{name}/")), From::Stranger, BYTES_MAX).await.unwrap_err();
        assert!(why.contains(expected), "{name}: {why}");
        let asked = bench.zone.queries_of(name, loadtest::dns::RecordType::A);
        assert!(asked <= 1, "{name}: a second look could find another address");
    }
    for text in ["http://1.1.1.1/", "https://1.1.1.1:25/", "https://127.0.0.1/", "https://localhost/", "https://[::1]/"] {
        assert!(bench.fetcher.get(&url(text), From::Stranger, BYTES_MAX).await.is_err(), "{text}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_unless_it_is_to_be_followed_and_then_each_step_is_vetted() {
    let target = server(ok("did:plc:x"), true).await;
    let to = |location: &str| format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into_bytes();
    let first = server(to(&format!("http://{target}/")), true).await;
    let first = url(&format!("http://{first}/"));

    let open = bench(true).fetcher;
    assert_eq!(open.get(&first, From::Stranger, BYTES_MAX).await.unwrap().status, 302);
    assert_eq!(&open.get_on(&first, From::Stranger, BYTES_MAX).await.unwrap().body[..], b"did:plc:x");

    // We may ask the first, which our operator has named; where it points is a stranger's wish.
    let strict = bench(false).fetcher;
    let why = strict.get_on(&first, From::Configuration, BYTES_MAX).await.unwrap_err();
    assert!(why.contains("only https"), "{why}");
    for (location, expected) in [
        ("https://127.0.0.1/", "127.0.0.1 is not a public address"),
        ("https://[::ffff:169.254.169.254]/", "is not a public address"),
        ("https://1.1.1.1:22/", "only port 443"),
        ("file:///etc/passwd", "file is not fetched"),
        ("//user:secret@1.1.1.1/", "credentials"),
    ] {
        let first = server(to(location), true).await;
        let why = strict.get_on(&url(&format!("http://{first}/")), From::Configuration, BYTES_MAX).await.unwrap_err();
        assert!(why.contains(expected), "{location}: {why}");
    }

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let itself = listener.local_addr().unwrap();
    drop(listener);
    let round = server(to("/again"), true).await;
    let why = open.get_on(&url(&format!("http://{round}/")), From::Stranger, BYTES_MAX).await.unwrap_err();
    assert!(why.contains("more than 3 redirects"), "{why}");
    assert!(open.get_on(&url(&format!("http://{itself}/")), From::Stranger, BYTES_MAX).await.is_err(), "nobody is there");
}
