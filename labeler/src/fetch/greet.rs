//! Whether a mail server answers: a connection to the port of mail, and its greeting (RFC 5321 §3.1). Nothing is sent but `QUIT`.
//!
//! A stranger chooses the host, so the addresses are vetted as those of a URL are; the port is not his to choose. Few are asked at a time, and
//! who comes when that many are asked is not asked.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::{Fetcher, From, connect, vet};

/// From the first octet of the connection to the last of the greeting. Servers that make strangers wait (RFC 5321 §4.5.3.2.1 would let them for
/// five minutes) mostly do for some seconds.
const TIME_MAX: Duration = Duration::from_secs(8);
/// RFC 5321 §4.5.3.1.5.
const LINE_BYTES_MAX: usize = 512;
/// Connections at a time.
const AT_A_TIME: usize = 16;

/// Asks for greetings.
#[derive(Clone)]
pub(crate) struct Greeter {
    port: u16,
    room: Arc<Semaphore>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Greeted {
    /// Its first line.
    Yes(String),
    /// Why not.
    No(String),
    /// Nobody was asked: too many are just now.
    NotAsked,
}

impl Greeter {
    /// Of servers at this port; mail's is 25.
    pub(crate) fn new(port: u16) -> Self {
        Self { port, room: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// Of a host that has these addresses.
    pub(crate) async fn ask(&self, fetcher: &Fetcher, addresses: &[IpAddr]) -> Greeted {
        let Ok(_place) = self.room.try_acquire() else { return Greeted::NotAsked };
        let addresses = match vet::addresses(addresses.to_vec(), From::Stranger, fetcher.allow_private) {
            Ok(addresses) => addresses,
            Err(why) => return Greeted::No(why),
        };
        let exchange = async {
            let mut stream = connect(&addresses, self.port).await?;
            let line = line(&mut stream).await?;
            // It need not be read, nor taken.
            let _ = stream.write_all(b"QUIT\r\n").await;
            Ok(line)
        };
        match tokio::time::timeout(TIME_MAX, exchange).await {
            Ok(Ok(line)) if line.starts_with("220") => Greeted::Yes(line),
            Ok(Ok(line)) => Greeted::No(format!("it says {line:?}")),
            Ok(Err(why)) => Greeted::No(why),
            Err(_) => Greeted::No(format!("no greeting within {} s", TIME_MAX.as_secs())),
        }
    }
}

async fn line(stream: &mut TcpStream) -> Result<String, String> {
    let mut octets = Vec::with_capacity(LINE_BYTES_MAX);
    while octets.len() < LINE_BYTES_MAX {
        let read = stream.take((LINE_BYTES_MAX - octets.len()) as u64).read_buf(&mut octets).await;
        if read.map_err(|error| error.to_string())? == 0 {
            break;
        }
        if let Some(end) = octets.iter().position(|octet| *octet == b'\n') {
            octets.truncate(end);
            return Ok(String::from_utf8_lossy(&octets).trim_end().to_owned());
        }
    }
    Err("what it says is no greeting".into())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;
    use crate::{dns, fetch};

    fn fetcher(allow_private: bool) -> Fetcher {
        let dns = dns::Dns::new(Some(&["127.0.0.1:1".parse().unwrap()])).unwrap();
        Fetcher::new(dns, fetch::tls().unwrap(), allow_private)
    }

    /// A server that says this to whoever comes, and then waits; answers its port and what it was told.
    async fn server(says: Vec<u8>) -> (u16, tokio::task::JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let told = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(&says).await;
            let mut told = Vec::new();
            let _ = stream.read_to_end(&mut told).await;
            told
        });
        (port, told)
    }

    async fn asked(says: &[u8]) -> (Greeted, Vec<u8>) {
        let (port, told) = server(says.to_vec()).await;
        let greeted = Greeter::new(port).ask(&fetcher(true), &[Ipv4Addr::LOCALHOST.into()]).await;
        (greeted, told.await.unwrap())
    }

    #[tokio::test]
    async fn a_greeting_is_a_line_that_begins_with_220() {
        let yes = |line: &str| Greeted::Yes(line.into());
        for (says, expected) in [
            (&b"220 mx.example ESMTP\r\n"[..], yes("220 mx.example ESMTP")),
            (b"220-mx.example\r\n220 more\r\n", yes("220-mx.example")),
            (b"554 no\r\n", Greeted::No("it says \"554 no\"".into())),
            (b"SSH-2.0-x\r\n", Greeted::No("it says \"SSH-2.0-x\"".into())),
            (&[b'2'; 4096], Greeted::No("what it says is no greeting".into())),
        ] {
            let (greeted, told) = asked(says).await;
            assert_eq!(greeted, expected);
            assert!(told.is_empty() || told == b"QUIT\r\n", "{told:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_is_not_waited_for_long() {
        let (greeted, _) = asked(b"220 an unfinished").await;
        assert_eq!(greeted, Greeted::No("no greeting within 8 s".into()));
    }

    #[tokio::test]
    async fn private_addresses_are_not_connected_to() {
        let (port, told) = server(b"220 inside\r\n".to_vec()).await;
        for addresses in [&[Ipv4Addr::LOCALHOST.into()][..], &["1.1.1.1".parse().unwrap(), "10.0.0.1".parse().unwrap()]] {
            let greeted = Greeter::new(port).ask(&fetcher(false), addresses).await;
            assert!(matches!(&greeted, Greeted::No(why) if why.contains("is not a public address")), "{greeted:?}");
        }
        assert!(!told.is_finished(), "nobody came");
        told.abort();
    }

    #[tokio::test]
    async fn only_so_many_are_asked_at_a_time() {
        let greeter = Greeter::new(1);
        let taken = greeter.room.acquire_many(AT_A_TIME as u32).await.unwrap();
        let ask = async || greeter.ask(&fetcher(true), &[Ipv4Addr::LOCALHOST.into()]).await;
        assert_eq!(ask().await, Greeted::NotAsked);
        drop(taken);
        assert!(matches!(ask().await, Greeted::No(_)));
    }
}
