//! A ring thread: listeners, sessions, deliveries and a connection cache of its own. Nothing is shared
//! with other ring threads but snapshots and counters.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use host::{Bound, Net, Stopper};
use tokio::sync::{mpsc, oneshot};

use crate::drain::{Drain, reached};
use crate::egress::deliver::{Attempt, Deliverer, Progress};
use crate::egress::replies::Replies;
use crate::egress::tls_policy::Clients;
use crate::egress::trouble;
use crate::egress::{Finished, Job};
use crate::ingress::roll::Roll;
use crate::ingress::{self, Service, Shared};

/// Deliveries that are taken from the channel at once.
const JOBS_AT_ONCE: usize = 64;
/// What sessions and idle connections may take for their last words once everything else is over. Past it they are
/// closed without.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a ring thread is started with.
pub struct Ring {
    /// The network of this thread's back end.
    pub net: Net,
    /// What it accepts from, and as what.
    pub listeners: Vec<(Bound, Service)>,
    /// What sessions of all threads share.
    pub shared: Arc<Shared>,
    /// For connections to receiving hosts; its resumption stores are this thread's own.
    pub tls: Clients,
    /// The port of receiving hosts.
    pub port: u16,
    /// What replies speak of; a reload replaces it.
    pub replies: Arc<ArcSwap<Replies>>,
    /// Deliveries to try.
    pub jobs: mpsc::Receiver<Job>,
    /// What became of them; has room for all that may be in flight.
    pub finished: mpsc::Sender<Finished>,
}

impl Ring {
    /// Accepts, says how to stop that, and serves until the stop is over (`drain.rs`).
    pub async fn run(self, started: oneshot::Sender<std::io::Result<Vec<Stopper>>>) {
        let Ring { net, listeners, shared, tls, port, replies, mut jobs, finished } = self;
        let roll = Rc::new(Roll::default());
        match listen(&net, listeners, &shared, &roll) {
            Ok(stoppers) => {
                if started.send(Ok(stoppers)).is_err() {
                    return;
                }
            }
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        }
        let deliverer = Deliverer::new(net, tls, port, shared.clock.clone());
        let sweeper = host::spawn_local({
            let deliverer = deliverer.clone();
            async move { deliverer.sweep().await }
        });
        let attempts = Rc::new(Attempts::default());
        let mut draining = shared.draining.clone();
        host::spawn_local(roll.clone().drain(draining.clone()));
        host::spawn_local({
            let (attempts, deliverer, mut draining) = (attempts.clone(), deliverer.clone(), draining.clone());
            async move {
                reached(&mut draining, Drain::Finish).await;
                attempts.recall();
                deliverer.retire();
            }
        });
        let mut batch = Vec::with_capacity(JOBS_AT_ONCE);
        while jobs.recv_many(&mut batch, JOBS_AT_ONCE).await > 0 {
            for job in batch.drain(..) {
                let owed = attempts.begin(job.clone(), finished.clone());
                let (deliverer, replies) = (deliverer.clone(), replies.clone());
                host::spawn_local(async move {
                    if let Some(mut attempt) = deliverer.attempt(&job, &owed.debt.progress).await {
                        trouble::weigh(&mut attempt, &job.route.provider, &replies.load());
                        owed.debt.pay(Some(attempt));
                    }
                });
            }
        }
        // The dispatcher has ended; sessions may have more to say.
        reached(&mut draining, Drain::Over).await;
        // They only sleep: no operation is cut off with them.
        sweeper.abort();
        let _ = tokio::time::timeout(LAST_WORDS, roll.empty()).await;
        let _ = tokio::time::timeout(LAST_WORDS, deliverer.close()).await;
    }
}

/// The attempts that are being made.
#[derive(Default)]
struct Attempts {
    open: RefCell<HashMap<u64, Rc<Debt>>>,
    next: Cell<u64>,
    recalled: Cell<bool>,
}

impl Attempts {
    fn begin(self: &Rc<Self>, job: Job, finished: mpsc::Sender<Finished>) -> Owed {
        let number = self.next.get();
        self.next.set(number + 1);
        let debt = Rc::new(Debt { job: RefCell::new(Some(job)), finished, progress: Progress::default() });
        if self.recalled.get() {
            debt.recall();
        }
        self.open.borrow_mut().insert(number, debt.clone());
        Owed { attempts: self.clone(), number, debt }
    }

    /// Gives back what has not begun its transaction: a host that does not answer takes half a minute to say so.
    fn recall(&self) {
        self.recalled.set(true);
        self.open.borrow().values().for_each(|debt| debt.recall());
    }
}

/// An answer that the dispatcher waits for.
struct Debt {
    job: RefCell<Option<Job>>,
    finished: mpsc::Sender<Finished>,
    progress: Progress,
}

impl Debt {
    fn pay(&self, attempt: Option<Attempt>) {
        if let Some(job) = self.job.take() {
            // It has room for all that may be in flight; closed, the dispatcher has ended and nobody waits.
            let _ = self.finished.try_send(Finished { job, attempt });
        }
    }

    fn recall(&self) {
        if self.progress.recall() {
            self.pay(None);
        }
    }
}

/// It is paid even if the attempt panics: a delivery that is never answered would hold its slot for ever.
struct Owed {
    attempts: Rc<Attempts>,
    number: u64,
    debt: Rc<Debt>,
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.attempts.open.borrow_mut().remove(&self.number);
        let attempt = match &*self.debt.job.borrow() {
            Some(job) if !self.debt.progress.is_recalled() => Some(Attempt::broken_off(job)),
            _ => None,
        };
        self.debt.pay(attempt);
    }
}

fn listen(net: &Net, listeners: Vec<(Bound, Service)>, shared: &Arc<Shared>, roll: &Rc<Roll>) -> std::io::Result<Vec<Stopper>> {
    let mut stoppers = Vec::with_capacity(listeners.len());
    for (bound, service) in listeners {
        let listener = net.listen_on(bound)?;
        stoppers.push(listener.stopper());
        host::spawn_local(ingress::listen(listener, Rc::new(service), shared.clone(), roll.clone()));
    }
    Ok(stoppers)
}
