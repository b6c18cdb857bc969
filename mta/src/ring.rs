//! A ring thread: listeners, sessions, deliveries and a connection cache of its own. Nothing is shared
//! with other ring threads but snapshots and counters.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use host::{Net, tls};
use tokio::sync::{mpsc, oneshot};

use crate::egress::deliver::{Attempt, Deliverer};
use crate::egress::{Finished, Job};
use crate::ingress::{self, Service, Shared};

/// Deliveries that are taken from the channel at once.
const JOBS_AT_ONCE: usize = 64;

/// What a ring thread is started with.
pub struct Ring {
    /// The network of this thread's back end.
    pub net: Net,
    /// Where it listens, and as what.
    pub services: Vec<(SocketAddr, Service)>,
    /// What sessions of all threads share.
    pub shared: Arc<Shared>,
    /// For connections to receiving hosts; its resumption store is this thread's own.
    pub tls: tls::Client,
    /// The port of receiving hosts.
    pub port: u16,
    /// Deliveries to try.
    pub jobs: mpsc::Receiver<Job>,
    /// What became of them; has room for all that may be in flight.
    pub finished: mpsc::Sender<Finished>,
}

/// A bound ring thread: where it listens, and how it is made to stop listening.
pub struct Bound {
    /// In the order of `services`; a port 0 has become a number.
    pub addresses: Vec<SocketAddr>,
    /// End the listeners.
    pub stoppers: Vec<host::Stopper>,
}

impl Ring {
    /// Binds, says so, and serves until the dispatcher hangs up.
    pub async fn run(self, bound: oneshot::Sender<std::io::Result<Bound>>) {
        let Ring { net, services, shared, tls, port, mut jobs, finished } = self;
        match bind(&net, services) {
            Ok((listeners, ready)) => {
                for (listener, service) in listeners {
                    host::spawn_local(ingress::listen(listener, Rc::new(service), shared.clone()));
                }
                if bound.send(Ok(ready)).is_err() {
                    return;
                }
            }
            Err(error) => {
                let _ = bound.send(Err(error));
                return;
            }
        }
        let deliverer = Deliverer::new(net, tls, port, shared.clock.clone());
        let sweeper = host::spawn_local({
            let deliverer = deliverer.clone();
            async move { deliverer.sweep().await }
        });
        let mut batch = Vec::with_capacity(JOBS_AT_ONCE);
        while jobs.recv_many(&mut batch, JOBS_AT_ONCE).await > 0 {
            for job in batch.drain(..) {
                let deliverer = deliverer.clone();
                let mut owed = Owed { job: Some(job.clone()), finished: finished.clone() };
                host::spawn_local(async move {
                    let attempt = deliverer.attempt(&job).await;
                    owed.pay(attempt);
                });
            }
        }
        // It only sleeps: no operation is cut off with it.
        sweeper.abort();
        deliverer.close().await;
    }
}

/// An answer that the dispatcher waits for. It gets one even if the attempt panics: a delivery that is never
/// answered would hold its slot for ever.
struct Owed {
    job: Option<Job>,
    finished: mpsc::Sender<Finished>,
}

impl Owed {
    fn pay(&mut self, attempt: Attempt) {
        if let Some(job) = self.job.take() {
            // It has room for all that may be in flight; closed, the dispatcher has ended and nobody waits.
            let _ = self.finished.try_send(Finished { job, attempt });
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(job) = &self.job {
            let attempt = Attempt::broken_off(job);
            self.pay(attempt);
        }
    }
}

type Listeners = Vec<(host::Listener, Service)>;

fn bind(net: &Net, services: Vec<(SocketAddr, Service)>) -> std::io::Result<(Listeners, Bound)> {
    let mut listeners = Vec::with_capacity(services.len());
    let mut ready = Bound { addresses: Vec::new(), stoppers: Vec::new() };
    for (address, service) in services {
        let listener = net
            .listen(address, ingress::BACKLOG)
            .map_err(|error| std::io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
        ready.addresses.push(listener.local_addr());
        ready.stoppers.push(listener.stopper());
        listeners.push((listener, service));
    }
    Ok((listeners, ready))
}
