//! One session: the loop that carries octets and answers between a connection and `smtp::server`.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use host::{Connection, Stream, deadline_in};
use smtp::server::{Answer, Ask, Session, Step};

use super::answer::Submission;
use super::roll::Present;
use super::{Open, Service, Shared};
use crate::config::Role;

/// The first octet of a TLS record that holds a handshake message (RFC 8446 §5.1).
const CLIENT_HELLO: u8 = 22;
/// A TLS handshake with a client is two round trips; whoever needs longer is not a client.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(30);

/// Serves one connection to its end.
pub async fn serve(connection: Connection, service: Rc<Service>, shared: Arc<Shared>, present: Present, open: Open) {
    let peer = connection.peer();
    if let Err(error) = converse(connection, &service, &shared, &present).await {
        // The usual end of bots and of clients that hang up without QUIT.
        tracing::debug!(%peer, %error, "session ended");
    }
    drop((present, open));
}

async fn converse(mut connection: Connection, service: &Service, shared: &Arc<Shared>, present: &Present) -> std::io::Result<()> {
    let peer = connection.peer().ip();
    let mut first_tls = service.role == Role::Submissions;
    if service.role == Role::Submission {
        let wait = shared.manners.wait(peer, deadline_in(Duration::ZERO));
        // Zero too must look: a client that we have met as polite may have changed, and be early enough.
        first_tls = connection.first_octet(wait).await? == Some(CLIENT_HELLO);
        shared.manners.note(peer, first_tls, deadline_in(Duration::ZERO));
    }
    if first_tls && let Err(error) = start_tls(&mut connection, shared).await {
        connection.close().await;
        return Err(error);
    }
    let settings = service.settings.clone();
    let write_wait = settings.limits.timeouts.write;
    let mut submission = Submission::new(shared.clone(), service.role, service.member.clone(), peer);
    let mut session = if first_tls { Session::over_tls(settings) } else { Session::new(settings) };
    let mut busy = Busy { shared: shared.clone(), is: false };
    let mut phase = (u64::MAX, deadline_in(Duration::ZERO));
    let mut greeted = false;
    let mut interrupted = false;
    loop {
        present.note(session.in_transaction());
        if present.is_dismissed() {
            session.handle_shutdown();
        }
        busy.set(session.in_transaction());
        session.handle_time(shared.clock.now());
        match session.poll() {
            Step::Read { phase: number, within } => {
                if phase.0 != number {
                    phase = (number, deadline_in(within));
                }
                match connection.read(phase.1).await {
                    Ok(octets) => {
                        if greeted && octets.first() == Some(&CLIENT_HELLO) && connection.tls().is_none() {
                            // Too late for this connection; the next one from there will be waited for.
                            shared.manners.note(peer, true, deadline_in(Duration::ZERO));
                        }
                        greeted = false;
                        session.handle_octets(octets);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::TimedOut => session.handle_deadline(),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                        // We stop: between transactions it is told so, and in the middle of something that it took too long.
                        if std::mem::replace(&mut interrupted, true) {
                            session.handle_deadline();
                        } else {
                            session.handle_shutdown();
                        }
                    }
                    Err(error) => {
                        connection.close().await;
                        return Err(error);
                    }
                }
            }
            Step::Write(octets) => {
                greeted = phase.0 == u64::MAX;
                if let Err(error) = connection.write(octets, deadline_in(write_wait)).await {
                    connection.close().await;
                    return Err(error);
                }
            }
            Step::Ask(ask) => {
                let answer = answer(&mut submission, ask).await;
                session.handle_answer(answer);
            }
            Step::StartTls => {
                if let Err(error) = start_tls(&mut connection, shared).await {
                    connection.close().await;
                    return Err(error);
                }
                session.handle_tls();
            }
            Step::Close => {
                connection.close().await;
                return Ok(());
            }
        }
    }
}

async fn answer(submission: &mut Submission, ask: Ask) -> Answer {
    match ask {
        Ask::Auth { username, password, .. } => submission.authenticate(&username, &password).await,
        Ask::Mail { path, parameters } => submission.mail(&path, &parameters),
        Ask::Recipient { .. } => submission.recipient(),
        Ask::Message { envelope, octets } => submission.message(envelope, octets).await,
    }
}

async fn start_tls(connection: &mut Connection, shared: &Arc<Shared>) -> std::io::Result<()> {
    let Some(tls) = &shared.tls else {
        return Err(std::io::Error::other("this listener has no certificate"));
    };
    let server = host::tls::Server::clone(&tls.load());
    connection.start_tls_server(&server, deadline_in(HANDSHAKE_WAIT)).await?;
    Ok(())
}

/// Counts a session while it is inside a transaction: those are what a stop waits for.
struct Busy {
    shared: Arc<Shared>,
    is: bool,
}

impl Busy {
    fn set(&mut self, is: bool) {
        match (self.is, is) {
            (false, true) => drop(self.shared.transactions.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.shared.transactions.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        self.is = is;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.set(false);
    }
}
