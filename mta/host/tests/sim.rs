//! What only the simulated network can do: links that die, in virtual time, the same by the same seed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use host::{Clock, Connection, Dice, Io, Net, Stream, deadline_in, sim, spawn_local};

const MX: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 25)), 25);
const MINUTES: Duration = Duration::from_secs(300);

/// Runs `main` with the network of `seed` and a second handle on it, to do harm with.
fn simulate<F: Future>(seed: u64, main: impl FnOnce(Net, sim::Net) -> F) -> F::Output {
    let network = sim::Net::new(seed);
    let io = Io::Sim(network.clone());
    host::run(&io, main(Net::new(io.clone()), network)).unwrap()
}

/// A server at `MX` that repeats what it hears.
fn serve_echo(net: &Net) {
    let mut listener = net.listen(MX, 16).unwrap();
    spawn_local(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            spawn_local(async move {
                while let Ok(octets) = connection.read(deadline_in(MINUTES)).await {
                    if octets.is_empty() || connection.write(octets, deadline_in(MINUTES)).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
}

async fn says(connection: &mut Connection, text: &'static str) -> Result<Bytes, ErrorKind> {
    connection.write(Bytes::from(text), deadline_in(MINUTES)).await.map_err(|error| error.kind())?;
    connection.read(deadline_in(MINUTES)).await.map_err(|error| error.kind())
}

#[test]
fn a_cut_link_is_silent_and_then_reset() {
    simulate(1, |net, network| async move {
        serve_echo(&net);
        let mut connection = net.connect(None, MX, deadline_in(MINUTES)).await.unwrap();
        assert_eq!(says(&mut connection, "EHLO\r\n").await.unwrap(), "EHLO\r\n");
        network.cut(MX);
        assert_eq!(says(&mut connection, "MAIL\r\n").await, Err(ErrorKind::ConnectionReset));
        let error = net.connect(None, MX, deadline_in(MINUTES)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        network.restore(MX);
        let mut connection = net.connect(None, MX, deadline_in(MINUTES)).await.unwrap();
        assert_eq!(says(&mut connection, "EHLO\r\n").await.unwrap(), "EHLO\r\n");
    });
}

#[test]
fn a_pending_read_learns_of_the_cut_too() {
    simulate(2, |net, network| async move {
        serve_echo(&net);
        let mut connection = net.connect(None, MX, deadline_in(MINUTES)).await.unwrap();
        let reading = spawn_local(async move { connection.read(deadline_in(MINUTES)).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Port 0: the whole host.
        network.cut(SocketAddr::new(MX.ip(), 0));
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_refusing_host_keeps_the_connections_it_has() {
    simulate(3, |net, network| async move {
        serve_echo(&net);
        let mut connection = net.connect(None, MX, deadline_in(MINUTES)).await.unwrap();
        network.refuse(MX);
        let error = net.connect(None, MX, deadline_in(MINUTES)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(says(&mut connection, "NOOP\r\n").await.unwrap(), "NOOP\r\n");
        network.restore(MX);
        assert!(net.connect(None, MX, deadline_in(MINUTES)).await.is_ok());
    });
}

#[test]
fn the_same_seed_takes_the_same_time_and_another_seed_does_not() {
    let run = |seed| {
        simulate(seed, |net, _| async move {
            serve_echo(&net);
            let clock = Clock::simulated(std::time::SystemTime::UNIX_EPOCH);
            let dice = Dice::seeded(seed);
            let mut times = vec![clock.now()];
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(dice.below(50))).await;
                let mut connection = net.connect(None, MX, deadline_in(MINUTES)).await.unwrap();
                says(&mut connection, "EHLO\r\n").await.unwrap();
                times.push(clock.now());
            }
            times
        })
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn latency_is_paid_each_way() {
    simulate(4, |net, network| async move {
        network.set_latency_of(MX, Duration::from_millis(100));
        serve_echo(&net);
        let began = tokio::time::Instant::now();
        let mut connection = net.connect(None, MX, deadline_in(MINUTES)).await.unwrap();
        assert_eq!(began.elapsed().as_millis(), 200);
        says(&mut connection, "EHLO\r\n").await.unwrap();
        assert_eq!(began.elapsed().as_millis(), 400);
    });
}
