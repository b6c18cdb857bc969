//! The resolver: answers the dispatcher's questions for routes, many at a time, on the control thread.

use std::sync::Arc;

use host::Clock;
use scheduler::Routed;
use tokio::sync::mpsc;

use super::route::Router;

/// The actor.
pub struct RouteFinder {
    /// Finds one route.
    pub router: Router,
    /// What time it is.
    pub clock: Clock,
    /// Domains to find; the scheduler bounds how many are unanswered.
    pub lookups: mpsc::Receiver<Arc<str>>,
    /// The answers, in the order in which they come.
    pub routes: mpsc::Sender<(Arc<str>, Routed)>,
}

impl RouteFinder {
    /// Answers until the dispatcher is gone.
    pub async fn run(mut self) {
        while let Some(domain) = self.lookups.recv().await {
            let (router, routes, now) = (self.router.clone(), self.routes.clone(), self.clock.now());
            host::spawn_local(async move {
                let routed = router.route(&domain, now).await;
                // The dispatcher may have stopped; then nobody needs to know.
                let _ = routes.send((domain, routed)).await;
            });
        }
    }
}
