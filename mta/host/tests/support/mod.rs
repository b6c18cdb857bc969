//! What the contract's cases stand on: the three back ends, pairs of connections, certificates.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use host::{Connection, Instant, Io, IoChoice, Net, Stream, spawn_local, tls};

/// Makes a test of each case on each back end.
macro_rules! contract {
    ($($case:ident),* $(,)?) => {
        mod uring { $(#[test] fn $case() { super::support::on_uring(super::$case) })* }
        mod epoll { $(#[test] fn $case() { super::support::on(host::Io::Epoll, super::$case) })* }
        mod sim { $(#[test] fn $case() { super::support::on(host::Io::Sim(host::sim::Net::new(7)), super::$case) })* }
    };
}
pub(crate) use contract;

/// The count of operations and the descriptors belong to the process: one case at a time.
static TURN: Mutex<()> = Mutex::new(());

pub(crate) fn on_uring<F: Future<Output = ()>>(case: fn(Net) -> F) {
    if let Some(io) = uring() {
        on(io, case);
    }
}

/// io_uring, unless its absence was declared.
pub(crate) fn uring() -> Option<Io> {
    // The probe opens a ring, which another case's count of descriptors must not see.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    match host::choose_io(IoChoice::Uring) {
        Ok((io, _)) => Some(io),
        Err(error) if std::env::var("TRADEWIND_WITHOUT_URING").is_ok_and(|value| value == "1") => {
            println!("NOT RUN on io_uring, as TRADEWIND_WITHOUT_URING=1 says: {error}");
            None
        }
        Err(error) => panic!("{error}; TRADEWIND_WITHOUT_URING=1 tests without it"),
    }
}

pub(crate) fn on<F: Future<Output = ()>>(io: Io, case: fn(Net) -> F) {
    leaves_nothing(&io.clone(), async move {
        // Only so that a broken back end fails instead of hanging.
        tokio::time::timeout(Duration::from_secs(60), case(Net::new(io))).await.expect("the case ends");
        nothing_in_flight().await;
    });
}

/// Runs `main`; when the runtime is gone, all operations and descriptors are too.
pub(crate) fn leaves_nothing(io: &Io, main: impl Future<Output = ()>) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // tokio opens a socket pair for signals with the first runtime, and keeps it.
    host::run(&Io::Epoll, async {}).unwrap();
    let open_before = descriptors();
    host::run(io, main).unwrap();
    assert_eq!(host::operations_in_flight(), 0);
    assert_eq!(descriptors(), open_before, "descriptors are left over");
}

pub(crate) async fn nothing_in_flight() {
    let end = host::deadline_in(Duration::from_secs(5));
    while host::operations_in_flight() > 0 {
        assert!(Instant::now() < end, "{} operations in flight", host::operations_in_flight());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn descriptors() -> Vec<String> {
    let mut open: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .map(|path| path.to_string_lossy().into_owned())
        // The directory being read is itself open.
        .filter(|path| !path.contains("/fd"))
        .collect();
    open.sort();
    open
}

/// A deadline that no case should reach.
pub(crate) fn soon() -> Instant {
    host::deadline_in(Duration::from_secs(20))
}

pub(crate) fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Both ends of a new connection: who connected, who accepted.
pub(crate) async fn pair(net: &Net) -> (Connection, Connection) {
    let mut listener = net.listen(anywhere(), 8).unwrap();
    let address = listener.local_addr();
    let accepting = spawn_local(async move { listener.accept().await.unwrap().0 });
    let client = net.connect(None, address, soon()).await.unwrap();
    (client, accepting.await.unwrap())
}

/// All that comes until the stream ends.
pub(crate) async fn drain(mut from: Connection) -> Bytes {
    let mut all = BytesMut::new();
    loop {
        match from.read(soon()).await.unwrap() {
            octets if octets.is_empty() => break,
            octets => all.extend_from_slice(&octets),
        }
    }
    from.close().await;
    all.freeze()
}

/// Octets of which no part looks like another.
pub(crate) fn pattern(length: usize, seed: u64) -> Bytes {
    let mut octets = vec![0; length];
    host::Dice::seeded(seed).fill(&mut octets);
    octets.into()
}

/// A certificate for one host, and the authority that issued it.
pub(crate) struct Certificates {
    authority: String,
    certificate: String,
    key: String,
}

impl Certificates {
    pub(crate) fn for_host(name: &str) -> Self {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Test authority");
        let authority = params.self_signed(&authority_key).unwrap();
        let issuer = rcgen::Issuer::new(params, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        Self { authority: authority.pem(), certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn server(&self) -> tls::Server {
        tls::Server::from_pem(self.certificate.as_bytes(), self.key.as_bytes()).unwrap()
    }

    pub(crate) fn verified(&self) -> tls::Client {
        tls::Client::verified_by_pem(self.authority.as_bytes()).unwrap()
    }

    pub(crate) fn trust(&self) -> tls::Trust {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, &self.authority).unwrap();
        tls::Trust::load(Some(&path)).unwrap()
    }

    pub(crate) fn opportunistic(&self) -> tls::Client {
        tls::Client::opportunistic().unwrap()
    }
}
