//! The scheduler itself.

use std::collections::VecDeque;
use std::time::SystemTime;

use crate::config::Config;
use crate::types::{Action, Delivery, Outcome, QueueId, Routed, SourceId};

/// Owns every decision about what is sent next. Inputs are `handle_*`; then `poll` until it has nothing more to ask
/// for, and sleep until `next_timeout` or the next input.
pub struct Scheduler {
    config: Config,
    actions: VecDeque<Action>,
}

impl Scheduler {
    /// An empty scheduler; `seed` makes its jitter and choices repeatable.
    pub fn new(config: Config, _seed: u64) -> Scheduler {
        Scheduler { config, actions: VecDeque::new() }
    }

    /// Takes a new configuration and keeps all state.
    pub fn configure(&mut self, _now: SystemTime, config: Config) {
        self.config = config;
    }

    /// The source of such an index, also when it has been removed since.
    pub fn source(&self, id: SourceId) -> Option<&crate::Source> {
        self.config.sources.get(usize::from(id.0))
    }

    /// At start, once for each domain that has mail on disk: its earliest due time.
    pub fn handle_backlog(&mut self, _now: SystemTime, _domain: &str, _next_due: SystemTime) {}

    /// A delivery was committed. True: it is kept in memory, so its octets may be kept at hand too.
    pub fn handle_enqueued(&mut self, _now: SystemTime, _delivery: Delivery) -> bool {
        false
    }

    /// Answers `Action::Load`. `next_due` is the earliest due time among the domain's deliveries that are not in the answer.
    pub fn handle_window(&mut self, _now: SystemTime, _domain: &str, _window: Vec<Delivery>, _next_due: Option<SystemTime>) {}

    /// Answers `Action::Resolve`.
    pub fn handle_route(&mut self, _now: SystemTime, _domain: &str, _routed: Routed) {}

    /// Answers `Action::Deliver`.
    pub fn handle_outcome(&mut self, _now: SystemTime, _id: QueueId, _domain: &str, _outcome: Outcome) {}

    /// Answers `Action::Settle` after the commit: when it is due again, if it is still queued.
    pub fn handle_settled(&mut self, _now: SystemTime, _id: QueueId, _domain: &str, _due: Option<SystemTime>) {}

    /// What to do next; None: nothing until `next_timeout` or an input.
    pub fn poll(&mut self, _now: SystemTime) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to poll again without an input.
    pub fn next_timeout(&self) -> Option<SystemTime> {
        None
    }
}
