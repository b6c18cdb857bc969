//! A thousand sessions that say nothing are the daemon's usual company: they must cost little memory.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, unused_imports, unused_macros)]
mod support;

use bytes::Bytes;
use host::{Io, Net, Stream, spawn_local};
use support::{Certificates, pair, soon};

/// Both ends are in this process: what is measured is a server's session and a client's.
const BOTH_ENDS_KIB_MAX: usize = 64;

#[test]
fn an_idle_tls_session_holds_little_memory() {
    // On io_uring a waiting read holds a buffer, on epoll none: the dearer one is measured, and one only, because the
    // memory of the first would serve the second.
    let io = support::uring().unwrap_or(Io::Epoll);
    let kib = host::run(&io, kib_of_an_idle_pair(Net::new(io.clone()))).unwrap();
    println!("{io}: {kib} KiB for both ends of an idle TLS session");
    assert!(kib <= BOTH_ENDS_KIB_MAX, "{kib} KiB");
}

async fn kib_of_an_idle_pair(net: Net) -> usize {
    const WARM: usize = 20;
    const PAIRS: usize = 300;
    let certificates = Certificates::for_host("mx.example.org");
    let (server, client) = (certificates.server(), certificates.verified());
    let mut reading = Vec::new();
    let mut before = 0;
    for n in 0..WARM + PAIRS {
        if n == WARM {
            before = resident_kib();
        }
        let (mut near, mut far) = pair(&net).await;
        let server = server.clone();
        let answering = spawn_local(async move {
            far.start_tls_server(&server, soon()).await.unwrap();
            // As a session does: something long was read, something said, and now the next command is awaited.
            let mut heard = 0;
            while heard < 100_000 {
                heard += far.read(soon()).await.unwrap().len();
            }
            far.write(Bytes::from_static(b"250 ok\r\n"), soon()).await.unwrap();
            far
        });
        near.start_tls_client(&client, "mx.example.org", soon()).await.unwrap();
        near.write(vec![b'x'; 100_000].into(), soon()).await.unwrap();
        near.read(soon()).await.unwrap();
        for mut end in [near, answering.await.unwrap()] {
            let never = host::deadline_in(std::time::Duration::from_secs(600));
            reading.push(spawn_local(async move { end.read(never).await.map(drop) }));
        }
    }
    // The reads are pending now, with the buffers that they hold.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let held = resident_kib() - before;
    drop(reading);
    held / PAIRS
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
