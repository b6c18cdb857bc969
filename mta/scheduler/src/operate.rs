//! What an operator wants done with queued mail, as far as the scheduler's own state is concerned.
//!
//! Holding, releasing and flushing change the queue's disk first, and the scheduler hears of it as of any other commit
//! (`handle_settled`, `handle_backlog`). Cancelling begins here, because only the scheduler knows what is in flight: that
//! ends by itself, and what it delivers is delivered.

use std::sync::Arc;
use std::time::SystemTime;

use crate::domain::Way;
use crate::machine::Scheduler;
use crate::measure::{Change, MeasureKind, Object};
use crate::send::FlightState;
use crate::time::Time;
use crate::types::{Cancellation, Cause, Lane, Next, QueueId};

/// What became of the wish to cancel a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It is out of the way, and a `Settle` for it follows.
    Withdrawn,
    /// It is being tried: what that leaves open is cancelled. The wish is not on disk and does not outlive a restart.
    InFlight,
    /// What became of it is being written down: it may be gone, or be due again, a moment from now.
    Settling,
}

impl Scheduler {
    /// Cancels a delivery of `member` that the queue holds in `lane`, wherever it waits.
    pub fn handle_cancel(
        &mut self,
        now: SystemTime,
        id: QueueId,
        domain: &str,
        member: u32,
        lane: Lane,
        wish: Cancellation,
    ) -> Cancelled {
        let now = Time::from(now);
        let key = self.domain(domain);
        match self.flights.get_mut(&(id, key)).map(|flight| &mut flight.state) {
            Some(FlightState::InFlight(attempt)) => {
                attempt.cancel(wish);
                return Cancelled::InFlight;
            }
            Some(FlightState::Settling { .. }) => return Cancelled::Settling,
            None => {}
        }
        self.withdraw(now, key, id);
        // From here on it is as if it had expired: no load brings it back before it is settled.
        let flow = self.flow(key, member);
        self.settle_unsent(flow, id, lane, Cause::Cancelled(wish), Next::Done);
        self.attend(now, flow);
        Cancelled::Withdrawn
    }

    /// Lifts the suspension of a site and of our sources there; one delivery still goes first and sees. True: there was
    /// something to lift.
    pub fn handle_lift(&mut self, now: SystemTime, site: &str) -> bool {
        let now = Time::from(now);
        let Some(&key) = self.site_by_name.get(site) else { return false };
        let lifted = self.sites.get_mut(key).is_some_and(|site| site.lift(now));
        let of_site: Vec<u64> = (self.measures.iter())
            .filter(|measure| match &measure.object {
                Object::Site(name) => **name == *site,
                Object::AtSite { site: name, .. } => **name == *site && measure.kind == MeasureKind::PauseSite,
                _ => false,
            })
            .map(|measure| measure.id)
            .collect();
        for id in of_site {
            self.measures.end(id, Change::Cancelled("lifted".into()), &self.sources);
        }
        if lifted {
            self.rouse(key);
            self.attend_site(now, key);
        }
        lifted
    }

    /// A domain's mail on disk has been made due now, so what is believed about its route is not waited for either.
    /// Answers the site that the route leads to, if it is known.
    pub fn handle_flush(&mut self, now: SystemTime, domain: &str) -> Option<Arc<str>> {
        let now = Time::from(now);
        let &key = self.domain_by_name.get(domain)?;
        let known = self.domains.get_mut(key)?;
        known.route_failures = 0;
        if let Some(active) = known.active.as_mut() {
            active.parked = None;
            // In the line for a lookup, or asked already, it need not wait.
            if matches!(active.way, Way::Trouble { .. }) {
                active.way = Way::Unknown;
            }
        }
        for member in known.members() {
            self.note_on_disk(key, member, None, now);
            self.attend_member(now, key, member);
        }
        let active = self.domains.get(key)?.active.as_ref()?;
        Some(self.sites.get(active.site?)?.name.clone())
    }
}
