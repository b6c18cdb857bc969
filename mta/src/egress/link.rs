//! A link: a connection to a host with its SMTP session, opened as its demand wants it and driven over IO.
//!
//! Where nothing was promised, a failed handshake is followed by a second connection in clear text, since clear text is what
//! an attacker who can break the handshake would have seen anyway (RFC 7435). Where something was, the host is passed over.
//!
//! Not here: which host is tried for which message (`deliver.rs`), what is demanded (`tls_policy.rs`).

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use host::{Connection, Net, Stream, deadline_in, tls};
use scheduler::{Demand, Knob, Limits, Scope, TlsFailure};
use smtp::client::{Fate, Session, Settings, Stage, Step, Timeouts};
use smtp::reply::Reply;

use super::Source;
use super::dialogues::Dialogue;
use super::tls_policy::{Clients, TlsResult};
use super::trouble::Trouble;

/// RFC 5321 §4.5.3.2 gives no time for connecting; a host that does not answer a SYN in this time
/// is passed over, and the next one gets its turn. Shaping may say otherwise.
const CONNECT_WAIT: Duration = Duration::from_secs(30);
/// A TLS handshake takes two round trips; a peer that needs longer is broken or hostile.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(30);
/// A write has failed; the reply that may explain it has arrived by then, or does not come.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(1);

/// A session with a host, ready for a transaction.
pub struct Link {
    pub(super) connection: Connection,
    pub(super) session: Session,
    /// Name of the host.
    pub host: Arc<str>,
    /// Messages that crossed it.
    pub messages: u32,
    /// What was demanded when it was made, and is true of it.
    pub demand: Demand,
    tls: tls::Client,
    /// What one write may take (RFC 5321 §4.5.3.2.5).
    write_wait: Duration,
}

/// Where a link is to lead.
#[derive(Clone)]
pub struct Target {
    /// Name of the host.
    pub host: Arc<str>,
    /// One of its addresses.
    pub address: IpAddr,
    /// What is demanded of the link.
    pub demand: Demand,
    /// The host must offer REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// What a policy that is only tested says of it.
    pub tested: Tested,
    /// How long to wait for it.
    pub limits: Arc<Limits>,
    /// Wait no longer than this for a connection.
    pub patience: Duration,
    /// What the attempt leaves behind.
    pub trail: Rc<Trail>,
}

/// What an attempt leaves behind on its way, wherever it ends.
#[derive(Default)]
pub struct Trail {
    /// Connections that were begun, also those that failed.
    pub connections: Cell<u16>,
    /// The last dialogue in which something went wrong.
    pub dialogue: RefCell<Option<Dialogue>>,
}

impl Trail {
    /// Something went wrong over this link.
    pub(super) fn note(&self, link: &Link) {
        let text = link.session.dialogue();
        if !text.is_empty() {
            let tls = link.connection.tls().map(|tls| tls.version);
            let (host, address) = (link.host.clone(), link.connection.peer().ip());
            self.dialogue.replace(Some(Dialogue { host, address, tls, text: text.into() }));
        }
    }
}

/// What a policy that is only tested (RFC 8461 §5) says of a host. Mail goes there all the same; the report says how it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tested {
    /// There is no such policy, or it does not count for this message.
    No,
    /// It names the host, which should be verified.
    Named,
    /// It does not name the host.
    Unnamed,
}

/// What shaping says of times to wait, and the RFC's where it says nothing.
fn timeouts(limits: &Limits) -> Timeouts {
    let rfc = Timeouts::default();
    let reply = limits.wait(Knob::ReplyTimeout);
    let data = limits.wait(Knob::DataTimeout);
    Timeouts {
        greeting: limits.wait(Knob::GreetingTimeout).unwrap_or(rfc.greeting),
        command: reply.unwrap_or(rfc.command),
        mail: reply.unwrap_or(rfc.mail),
        rcpt: reply.unwrap_or(rfc.rcpt),
        data: data.unwrap_or(rfc.data),
        data_block: data.unwrap_or(rfc.data_block),
        data_done: limits.wait(Knob::DataDoneTimeout).unwrap_or(rfc.data_done),
        quit: rfc.quit,
    }
}

impl Target {
    /// A connection to the address, or none.
    pub async fn connect(&self, net: &Net, source: &Source, port: u16) -> io::Result<Connection> {
        self.trail.connections.set(self.trail.connections.get().saturating_add(1));
        let wait = self.limits.wait(Knob::ConnectTimeout).unwrap_or(CONNECT_WAIT).min(self.patience);
        net.connect(Some(source.address), SocketAddr::new(self.address, port), deadline_in(wait)).await
    }

    /// Greets over a connection that was made, and upgrades to TLS as is demanded; where nothing is, it may take another
    /// connection. What there is to report of TLS is added to `results`.
    pub async fn open(
        &self,
        connection: io::Result<Connection>,
        net: &Net,
        clients: &Clients,
        port: u16,
        source: &Source,
        results: &mut Vec<TlsResult>,
    ) -> Result<Link, Trouble> {
        let connection = match self.tested {
            Tested::No => return self.open_demanded(connection, net, clients, port, source, results).await,
            Tested::Named => {
                let strict = Target { demand: Demand::Verified, ..self.clone() };
                match strict.open_demanded(connection, net, clients, port, source, results).await {
                    // It would not have been delivered to.
                    Err(trouble) if trouble.scope == Scope::Message => self.connect(net, source, port).await,
                    opened => return opened,
                }
            }
            Tested::Unnamed => {
                let failure = Some((TlsFailure::ValidationFailure, "the policy does not name this host".to_owned()));
                results.push(TlsResult { host: self.host.clone(), address: Some(self.address), failure });
                connection
            }
        };
        // That session is told already.
        self.open_demanded(connection, net, clients, port, source, &mut Vec::new()).await
    }

    async fn open_demanded(
        &self,
        connection: io::Result<Connection>,
        net: &Net,
        clients: &Clients,
        port: u16,
        source: &Source,
        results: &mut Vec<TlsResult>,
    ) -> Result<Link, Trouble> {
        let mut note = |failure: Option<(TlsFailure, String)>| {
            results.push(TlsResult { host: self.host.clone(), address: Some(self.address), failure });
        };
        let tls = match clients.of(&self.demand) {
            Ok(tls) => tls,
            Err(reason) => {
                if let Ok(connection) = connection {
                    connection.close().await;
                }
                return Err(self.insecure(TlsFailure::ValidationFailure, &reason));
            }
        };
        let opened = self.open_once(connection, &tls, source, true).await;
        let opened = match opened {
            Err(Failure::Tls(failure, reason)) => {
                note(Some((failure, reason.clone())));
                if !self.demand.allows_clear_text() {
                    return Err(self.insecure(failure, &reason));
                }
                tracing::info!(host = %self.host, address = %self.address, reason, "TLS handshake failed; trying in clear text");
                let connection = self.connect(net, source, port).await;
                return self.open_once(connection, &tls, source, false).await.map_err(|failure| self.trouble(failure));
            }
            opened => opened.map_err(|failure| self.trouble(failure))?,
        };
        note(match (opened.connection.tls(), opened.session.starttls_refusal()) {
            (Some(_), _) => None,
            (None, Some(reply)) => Some((TlsFailure::StarttlsNotSupported, reply.to_string())),
            (None, None) => Some((TlsFailure::StarttlsNotSupported, "STARTTLS is not offered".to_owned())),
        });
        if self.require_tls && !opened.session.peer_extensions().require_tls {
            self.trail.note(&opened);
            hang_up(opened).await;
            let text = format!("{} [{}] does not offer REQUIRETLS", self.host, self.address);
            return Err(Trouble::requiretls(TlsFailure::ValidationFailure, text));
        }
        Ok(opened)
    }

    async fn open_once(
        &self,
        connection: io::Result<Connection>,
        tls: &tls::Client,
        source: &Source,
        starttls: bool,
    ) -> Result<Link, Failure> {
        let connection = connection.map_err(|error| Failure::Connect(error.to_string()))?;
        let require_tls = !self.demand.allows_clear_text();
        let timeouts = timeouts(&self.limits);
        let write_wait = timeouts.data_block;
        let session = Session::new(Settings { starttls, require_tls, timeouts, ..Settings::new(&*source.ehlo) });
        let (host, demand, tls) = (self.host.clone(), self.demand.clone(), tls.clone());
        let mut link = Link { connection, session, host, messages: 0, demand, tls, write_wait };
        match drive(&mut link).await {
            // The session has seen to it; this is the promise itself.
            Event::Ready if require_tls && link.connection.tls().is_none() => {
                self.trail.note(&link);
                link.connection.close().await;
                Err(Failure::Tls(TlsFailure::StarttlsNotSupported, "the session is in clear text".to_owned()))
            }
            Event::Ready => Ok(link),
            Event::Handshake(error) => {
                link.session.handle_broken(format!("TLS handshake: {error}"));
                self.trail.note(&link);
                link.connection.close().await;
                Err(Failure::Tls(failure_of(&error), format!("TLS handshake: {error}")))
            }
            Event::Done(_) | Event::Closed => {
                let failure = match link.session.trouble() {
                    Some(Fate::Refused { reply, stage: Stage::StartTls }) => {
                        Failure::Tls(TlsFailure::StarttlsNotSupported, format!("STARTTLS was refused: {reply}"))
                    }
                    Some(Fate::Broken { stage: Stage::StartTls, reason }) => {
                        Failure::Tls(TlsFailure::StarttlsNotSupported, reason.clone())
                    }
                    Some(Fate::Refused { reply, .. }) => Failure::Refused(reply.clone()),
                    Some(Fate::Broken { reason, .. }) => Failure::Connect(reason.clone()),
                    _ => Failure::Connect("the host closed the connection".to_owned()),
                };
                self.trail.note(&link);
                link.connection.close().await;
                Err(failure)
            }
        }
    }

    fn trouble(&self, failure: Failure) -> Trouble {
        let Target { host, address, .. } = self;
        match failure {
            Failure::Connect(reason) | Failure::Tls(_, reason) => Trouble::unreachable(format!("{host} [{address}]: {reason}")),
            Failure::Refused(reply) => Trouble::refused_session(reply),
        }
    }

    fn insecure(&self, failure: TlsFailure, reason: &str) -> Trouble {
        let Target { host, address, demand, .. } = self;
        let demand = demand.name();
        Trouble::insecure(failure, format!("{host} [{address}]: the TLS that its domain demands ({demand}) failed: {reason}"))
    }
}

/// Why a link could not be opened.
enum Failure {
    Connect(String),
    Tls(TlsFailure, String),
    Refused(Reply),
}

fn failure_of(error: &io::Error) -> TlsFailure {
    match tls::fault(error) {
        tls::Fault::Expired => TlsFailure::CertificateExpired,
        tls::Fault::WrongName => TlsFailure::CertificateHostMismatch,
        tls::Fault::Untrusted => TlsFailure::CertificateNotTrusted,
        tls::Fault::Unmatched => TlsFailure::TlsaInvalid,
        tls::Fault::Other => TlsFailure::ValidationFailure,
    }
}

/// What a drive ended with.
pub(super) enum Event {
    /// A transaction may begin.
    Ready,
    /// One is over.
    Done(Vec<Fate>),
    /// The handshake failed; the connection is dead.
    Handshake(io::Error),
    /// The session is over.
    Closed,
}

/// All IO of a client dialogue is this loop; its rules are in `smtp::client`.
pub(super) async fn drive(link: &mut Link) -> Event {
    let mut phase = (u64::MAX, deadline_in(Duration::ZERO));
    loop {
        match link.session.poll() {
            Step::Read { phase: number, within } => {
                if phase.0 != number {
                    phase = (number, deadline_in(within));
                }
                match link.connection.read(phase.1).await {
                    Ok(octets) => link.session.handle_octets(octets),
                    Err(error) => link.session.handle_broken(error.to_string()),
                }
            }
            Step::Write(octets) => {
                if let Err(error) = link.connection.write(octets, deadline_in(link.write_wait)).await {
                    let said = link.connection.last_words(deadline_in(LAST_WORDS_WAIT)).await;
                    link.session.handle_unwritten(said, error.to_string());
                }
            }
            Step::StartTls => {
                // RFC 7672 §8.1: SNI is the TLSA base domain.
                let name = match &link.demand {
                    Demand::Dane(dane) => dane.base.clone(),
                    _ => link.host.clone(),
                };
                match link.connection.start_tls_client(&link.tls, &name, deadline_in(HANDSHAKE_WAIT)).await {
                    Ok(_) => link.session.handle_tls(),
                    Err(error) => return Event::Handshake(error),
                }
            }
            Step::Ready => return Event::Ready,
            Step::Done(fates) => return Event::Done(fates),
            Step::Close => return Event::Closed,
        }
    }
}

/// QUIT, and wait for the answer as RFC 5321 §4.1.1.10 asks, but not for long.
pub(super) async fn hang_up(mut link: Link) {
    link.session.quit();
    let wait = || deadline_in(Duration::from_secs(5));
    loop {
        match link.session.poll() {
            Step::Write(octets) => {
                if link.connection.write(octets, wait()).await.is_err() {
                    break;
                }
            }
            Step::Read { .. } => match link.connection.read(wait()).await {
                Ok(octets) => link.session.handle_octets(octets),
                Err(_) => break,
            },
            _ => break,
        }
    }
    link.connection.close().await;
}
