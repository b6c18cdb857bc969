//! Sockets handed over between two daemons, played here by two tasks of one process; the file descriptors that change
//! hands are real. Whole processes: `tradewind-loadtest handover`.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use host::handover::{Offer, Predecessor};
use host::{Io, Net, Stream, deadline_in};

fn soon() -> host::Instant {
    deadline_in(std::time::Duration::from_secs(20))
}

#[test]
fn sockets_that_are_asked_for_come_with_the_connections_that_wait_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("handover.sock");
    host::run(&Io::Epoll, async {
        let net = Net::new(Io::Epoll);
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        // More than go into one message.
        let sockets: Vec<_> = (0..100).map(|_| net.bind(anywhere, 8).unwrap()).collect();
        let addresses: Vec<_> = sockets.iter().map(host::Bound::local_addr).collect();
        let mut waiting = net.connect(None, addresses[99], soon()).await.unwrap();

        let offer = Offer::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let offering = host::spawn_local(async move {
            let successor = offer.taken(&sockets, |error| panic!("{error}")).await;
            drop((offer, sockets));
            successor
        });
        let predecessor = Predecessor::ask(&path).await.unwrap().unwrap();
        assert_eq!(predecessor.pid(), i32::try_from(std::process::id()).unwrap());
        let found: Vec<_> = predecessor.sockets().iter().map(host::Bound::local_addr).collect();
        assert_eq!(found, addresses);
        let mut listener = net.listen_on(predecessor.sockets()[99].try_clone().unwrap()).unwrap();
        // This process does not end, so this never comes back; what it has said is what counts.
        let relieving = host::spawn_local(predecessor.relieve());
        let successor = offering.await.unwrap();
        assert!(format!("{successor:?}").contains(&std::process::id().to_string()));
        assert!(!relieving.is_finished(), "the other process is still there");

        let (mut server, _) = listener.accept().await.unwrap();
        server.write(Bytes::from_static(b"220\r\n"), soon()).await.unwrap();
        assert_eq!(waiting.read(soon()).await.unwrap(), "220\r\n");
        relieving.abort();
    })
    .unwrap();
}

#[test]
fn nobody_there_is_no_error_and_a_dead_socket_is_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("handover.sock");
    host::run(&Io::Epoll, async {
        assert!(Predecessor::ask(&path).await.unwrap().is_none());
        drop(Offer::bind(&path).unwrap());
        assert!(Predecessor::ask(&path).await.unwrap().is_none());
        // What a dead daemon has left is replaced.
        drop(Offer::bind(&path).unwrap());
    })
    .unwrap();
}

#[test]
fn who_asks_and_does_not_take_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("handover.sock");
    host::run(&Io::Epoll, async {
        let net = Net::new(Io::Epoll);
        let bound = net.bind(SocketAddr::from(([127, 0, 0, 1], 0)), 8).unwrap();
        let address = bound.local_addr();
        let mut listener = net.listen_on(bound.try_clone().unwrap()).unwrap();
        let offer = Offer::bind(&path).unwrap();
        let (said, mut failures) = tokio::sync::mpsc::unbounded_channel();
        let offering = host::spawn_local(async move { offer.taken(&[bound], move |error| said.send(error).unwrap()).await });
        drop(Predecessor::ask(&path).await.unwrap().unwrap());
        assert_eq!(failures.recv().await.unwrap().kind(), std::io::ErrorKind::UnexpectedEof);
        assert!(!offering.is_finished());
        // The old one still serves.
        let mut client = net.connect(None, address, soon()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.write(Bytes::from_static(b"220\r\n"), soon()).await.unwrap();
        assert_eq!(client.read(soon()).await.unwrap(), "220\r\n");
        offering.abort();
    })
    .unwrap();
}
