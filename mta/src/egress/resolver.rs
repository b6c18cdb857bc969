//! The resolver: answers the dispatcher's questions for routes, many at a time, and now and then an operator's, on a
//! thread of its own.

use std::sync::Arc;
use std::time::Duration;

use host::Clock;
use scheduler::Routed;
use tokio::sync::{mpsc, oneshot};

use super::route::Router;
use super::sts::Policies;

/// Operators' questions that may wait; past it whoever asks waits.
const WAITING_MAX: usize = 16;

/// How long an operator's question may take: shorter than a request to the admin socket. Mail waits longer.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// The actor.
pub struct RouteFinder {
    /// Finds one route.
    pub router: Router,
    /// What domains promise about TLS.
    pub policies: Policies,
    /// What time it is.
    pub clock: Clock,
    /// Domains to find; the scheduler bounds how many are unanswered.
    pub lookups: mpsc::Receiver<Arc<str>>,
    /// The answers, in the order in which they come.
    pub routes: mpsc::Sender<(Arc<str>, Routed)>,
    /// What operators want to know.
    pub questions: mpsc::Receiver<RouteQuestion>,
}

/// One domain, and the way back.
pub struct RouteQuestion(String, oneshot::Sender<Routed>);

/// Asks for a route on an operator's behalf. Cheap to clone.
#[derive(Clone)]
pub struct RouteAsker(mpsc::Sender<RouteQuestion>);

/// The way in, and the end that the actor reads.
pub fn route_questions() -> (RouteAsker, mpsc::Receiver<RouteQuestion>) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (RouteAsker(sender), receiver)
}

impl RouteAsker {
    /// The route of a domain, looked up now. None: no name server answered in time, or the daemon is going down.
    pub async fn ask(&self, domain: &str) -> Option<Routed> {
        let (answer, answered) = oneshot::channel();
        let question = RouteQuestion(domain.to_owned(), answer);
        let asked = async {
            self.0.send(question).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout(ANSWER_WAIT, asked).await.ok().flatten()
    }
}

impl RouteFinder {
    /// Answers until the dispatcher is gone.
    pub async fn run(mut self) {
        host::spawn_local({
            let policies = self.policies.clone();
            async move { policies.keep_fresh().await }
        });
        loop {
            tokio::select! {
                biased;
                domain = self.lookups.recv() => {
                    let Some(domain) = domain else { return };
                    let (router, routes, now) = (self.router.clone(), self.routes.clone(), self.clock.now());
                    let policies = self.policies.clone();
                    host::spawn_local(async move {
                        let routed = policies.apply(&domain, router.route(&domain, now)).await;
                        // The dispatcher may have stopped; then nobody needs to know.
                        let _ = routes.send((domain, routed)).await;
                    });
                }
                Some(RouteQuestion(domain, mut answer)) = self.questions.recv() => {
                    let (router, policies, now) = (self.router.clone(), self.policies.clone(), self.clock.now());
                    host::spawn_local(async move {
                        let routed = async { policies.apply(&domain, router.route(&domain, now)).await };
                        // Whoever asked stops waiting in the end; then the lookup is of no use.
                        tokio::select! {
                            routed = routed => drop(answer.send(routed)),
                            () = answer.closed() => {}
                        }
                    });
                }
            }
        }
    }
}
