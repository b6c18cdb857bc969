//! The providers of the seeded world: scripted sessions on the simulated network.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use host::{Io, Net, Stream, deadline_in, tls};
use loadtest::sink::Provider;
use loadtest::sink::session::{Session, Step};

/// A provider's listener, as a task of the world. It began `age` ago.
pub(crate) fn provide(io: &Io, address: SocketAddr, provider: Arc<Provider>, tls: Option<tls::Server>, age: Duration) {
    let mut listener = Net::new(io.clone()).listen(address, 100).unwrap();
    host::spawn_local(async move {
        let began = tokio::time::Instant::now();
        while let Ok((connection, peer)) = listener.accept().await {
            let session = Session::new(provider.clone(), peer, false);
            host::spawn_local(converse(connection, session, tls.clone(), began, age));
        }
    });
}

async fn converse(
    mut connection: host::Connection,
    mut session: Session,
    tls: Option<tls::Server>,
    began: tokio::time::Instant,
    age: Duration,
) {
    let patience = || deadline_in(Duration::from_secs(600));
    loop {
        match session.poll(age + began.elapsed()) {
            Step::Read => match connection.read(patience()).await {
                Ok(octets) if !octets.is_empty() => session.handle_octets(&octets),
                _ => session.handle_end(),
            },
            Step::Write(octets) => {
                if connection.write(octets, patience()).await.is_err() {
                    session.handle_end();
                }
            }
            Step::Wait(delay) => tokio::time::sleep(delay).await,
            Step::StartTls => match &tls {
                Some(server) if connection.start_tls_server(server, patience()).await.is_ok() => session.handle_tls(),
                // Without a certificate the handshake breaks.
                _ => return connection.abort(),
            },
            Step::Hang => {
                while connection.read(patience()).await.is_ok_and(|octets| !octets.is_empty()) {}
                return;
            }
            Step::Close => return connection.close().await,
        }
    }
}
