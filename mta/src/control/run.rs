//! The control thread: binds the operator's socket and the admin port, polls the labeler, and serves all three
//! until the process ends. Tells the service manager that the daemon lives while all its threads answer.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::gauge;
use arc_swap::ArcSwap;
use host::{Clock, tls};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{oneshot, watch};

use super::admin::{Admin, AdminPort, AdminSocket, Stage};
use super::daemon::Daemon;
use super::fetch::Fetch;
use super::handles;
use super::http::Certificate;
use super::labels::LabelPoll;
use super::metrics;
use super::standing::{self, Caller};
use crate::certificate::{LOOK, Watch};
use crate::config::{AdminTls, Config, Tls};
use crate::floor::Rounds;

/// Scrapes come every few seconds at the most.
const GAUGES: Duration = Duration::from_secs(5);

/// Mapped files that this process may hold in memory, program and database. The database is read in short transactions
/// that look at a few pages each, so what it needs again soon comes back from the page cache for little.
const MAPPED_BYTES_MAX: usize = 128 << 20;

/// How often that is looked at: a queue that drains touches some tens of megabytes a second.
const TRIM: Duration = Duration::from_secs(1);

/// The control thread, running.
pub struct Control {
    stage: watch::Sender<Stage>,
    address: Option<SocketAddr>,
}

impl Control {
    /// What `/readyz` says from now on.
    pub fn set_stage(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    /// Where the admin port listens, if there is one.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

/// Starts the thread; its sockets are bound when this returns. `sessions` tells how many are open,
/// `rounds` which threads answer.
pub async fn start(
    daemon: Daemon,
    config: Arc<Config>,
    clock: Clock,
    metrics: Option<PrometheusHandle>,
    sessions: impl Fn() -> usize + Send + 'static,
    rounds: Rounds,
) -> io::Result<Control> {
    let (stage, stage_rx) = watch::channel(Stage::Starting);
    let (bound_tx, bound) = oneshot::channel();
    let admin = Admin::new(Arc::new(daemon.clone()), metrics, stage_rx, daemon.gate());
    host::thread("control", move || run(daemon, config, clock, admin, bound_tx, sessions, rounds)).map(drop)?;
    let address = bound.await.map_err(|_| io::Error::other("the control thread ended before it listened"))??;
    Ok(Control { stage, address })
}

async fn run(
    daemon: Daemon,
    config: Arc<Config>,
    clock: Clock,
    admin: Admin<Daemon>,
    bound: oneshot::Sender<io::Result<Option<SocketAddr>>>,
    sessions: impl Fn() -> usize,
    rounds: Rounds,
) {
    let opened = bind(&config).await.and_then(|(socket, port, address, certificate, fetch)| {
        let caller = Caller::open(&config, fetch.clone(), clock.clone(), daemon.parts.dice.clone())?;
        Ok((socket, port, address, certificate, fetch, caller))
    });
    let (socket, port, address, certificate, fetch, caller) = match opened {
        Ok(ready) => ready,
        Err(error) => {
            // Whoever started us waits for this.
            let _ = bound.send(Err(error));
            return;
        }
    };
    let poll = LabelPoll::new(&config, fetch.clone(), clock, Arc::new(daemon.clone()), daemon.wake());
    let labels = async {
        if let Some(mut poll) = poll {
            daemon.watch_poll(poll.state());
            // Before the first mail is accepted: what was known before the restart serves.
            poll.restore().await;
            let _ = bound.send(Ok(address));
            poll.run().await;
        } else {
            let _ = bound.send(Ok(address));
        }
    };
    let public = async {
        if let Some(port) = port {
            port.serve(admin.clone()).await;
        }
    };
    let queue_dir = config.data_dir.join("queue");
    tokio::join!(
        socket.serve(admin.clone()),
        public,
        labels,
        gauges(&daemon, &queue_dir, sessions),
        trim(&config),
        watchdog(rounds, admin.stage.clone()),
        renew(&config, certificate),
        handles::run(&daemon, &fetch),
        standing::run(&daemon, &config, caller)
    );
}

/// What is counted by looking: now and then, so that mail does not pay for it.
async fn gauges(daemon: &Daemon, data_dir: &Path, sessions: impl Fn() -> usize) {
    let mut climbs = BTreeSet::new();
    gauge!(metrics::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let (open, operations, heap) = (gauge!(metrics::SESSIONS), gauge!(metrics::OPERATIONS), gauge!(metrics::HEAP_BYTES));
    let (queued, own) = (gauge!(metrics::QUEUED), gauge!(metrics::OWN_QUEUED));
    let (deliveries, held, aside) = (gauge!(metrics::DELIVERIES), gauge!(metrics::HELD), gauge!(metrics::ASIDE));
    let (bodies, segments) = (gauge!(metrics::BODIES_BYTES), gauge!(metrics::SEGMENTS_BYTES));
    let (used, size) = (gauge!(metrics::DATABASE_USED_BYTES), gauge!(metrics::DATABASE_SIZE_BYTES));
    let free = gauge!(metrics::DISK_FREE_BYTES);
    loop {
        open.set(sessions() as f64);
        operations.set(host::operations_in_flight() as f64);
        heap.set(host::memory::held() as f64);
        own.set(daemon.own_messages() as f64);
        // A database or a disk that cannot be read is told by those who need it.
        if let Some(counts) = daemon.counts() {
            queued.set(counts.messages as f64);
            deliveries.set(counts.deliveries as f64);
            held.set(counts.held as f64);
            aside.set(counts.aside as f64);
            bodies.set(counts.live_bytes as f64);
            segments.set(counts.segment_bytes as f64);
            used.set(counts.database_bytes as f64);
            size.set(counts.database_bytes_max as f64);
        }
        if let Ok(bytes) = host::disk::free_bytes(data_dir) {
            free.set(bytes as f64);
        }
        daemon.gauge_ages().await;
        daemon.gauge_climbs(&mut climbs).await;
        tokio::time::sleep(GAUGES).await;
    }
}

/// Tells the service manager, if it wants to know (`WatchdogSec=`), that we live: four times as often as it wants, so that one round
/// that comes late is none that is missed. A daemon that stops is watched by the time that it has for that.
async fn watchdog(rounds: Rounds, mut stage: watch::Receiver<Stage>) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    let alive = || {
        // Without it we are ended and started again; nothing better can be done from here.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
    };
    tokio::select! {
        () = rounds.run(patience / 4, alive) => {}
        _ = stage.wait_for(|stage| *stage == Stage::Draining) => {}
    }
}

/// Keeps what the process has mapped within bounds.
async fn trim(config: &Config) {
    let path = config.data_dir.join("queue/lmdb");
    loop {
        tokio::time::sleep(TRIM).await;
        if let Err(error) = host::disk::trim_env(&path, MAPPED_BYTES_MAX) {
            tracing::warn!(%error, "the database's pages stay in memory: /proc cannot be read");
            return;
        }
    }
}

/// Reads the admin port's certificate again when somebody has renewed it. The old one stays when the new one is no good.
async fn renew(config: &Config, certificate: Option<Certificate>) {
    let files = config.admin.as_ref().and_then(|admin| admin.tls.as_ref());
    let (Some(files), Some(certificate)) = (files, certificate) else { return };
    let watched = Tls { certificate: files.certificate.clone(), private_key: files.private_key.clone() };
    let mut watch = Watch::default();
    watch.handle_read(&watched);
    loop {
        tokio::time::sleep(LOOK).await;
        if watch.look(&watched) {
            match read_certificate(files) {
                Ok(new) => certificate.store(Arc::new(new)),
                Err(error) => tracing::error!(%error, "the admin port's certificate was renewed and cannot be used"),
            }
        }
    }
}

fn read_certificate(files: &AdminTls) -> Result<tls::Server, tls::Error> {
    tls::Server::for_http(&files.certificate, &files.private_key, files.client_ca.as_deref())
}

/// What is bound, and whatever else may fail at the start.
type Ready = (AdminSocket, Option<AdminPort>, Option<SocketAddr>, Option<Certificate>, Fetch);

async fn bind(config: &Config) -> io::Result<Ready> {
    let fetch = Fetch::new().map_err(io::Error::other)?;
    let path = config.admin_socket();
    let socket = AdminSocket::bind(&path)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("the operator's socket {}: {error}", path.display())))?;
    let Some(admin) = &config.admin else { return Ok((socket, None, None, None, fetch)) };
    let port = AdminPort::bind(admin.address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {}: {error}; see [admin]", admin.address)))?;
    let address = port.local_addr()?;
    let Some(files) = &admin.tls else { return Ok((socket, Some(port), Some(address), None, fetch)) };
    let certificate = read_certificate(files).map_err(|error| io::Error::other(format!("{error}; see [admin.tls]")))?;
    let certificate = Arc::new(ArcSwap::from_pointee(certificate));
    Ok((socket, Some(port.with_tls(certificate.clone())), Some(address), Some(certificate), fetch))
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
