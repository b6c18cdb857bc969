//! The clock: the machine's, or one that follows tokio's paused time in the simulation.
//!
//! Decisions take `now: SystemTime` from here; waits are bounded by a [`tokio::time::Instant`], see [`deadline_in`].

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Tells the time. Cheap to clone; every actor gets its own.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    /// The origin is fixed at the first look, which happens inside the simulation's runtime.
    Simulated {
        start: SystemTime,
        origin: Arc<OnceLock<Instant>>,
    },
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that says `start` when first asked and then follows tokio's (paused) time.
    pub fn simulated(start: SystemTime) -> Self {
        Self(Source::Simulated { start, origin: Arc::default() })
    }

    /// The time of day.
    pub fn now(&self) -> SystemTime {
        match &self.0 {
            Source::System => SystemTime::now(),
            Source::Simulated { start, origin } => *start + origin.get_or_init(Instant::now).elapsed(),
        }
    }
}

/// The instant at which something that may take `within` from now must be over.
pub fn deadline_in(within: Duration) -> Instant {
    let now = Instant::now();
    // A wait too long to be represented is as good as a year.
    now.checked_add(within).unwrap_or(now + Duration::from_secs(365 * 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_follows_paused_time() {
        let clock = Clock::simulated(SystemTime::UNIX_EPOCH);
        let copy = clock.clone();
        assert_eq!(clock.now(), SystemTime::UNIX_EPOCH);
        tokio::time::sleep(Duration::from_secs(86_400)).await;
        let passed = copy.now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(passed.as_secs(), 86_400);
    }

    #[test]
    fn an_absurd_wait_is_still_an_instant() {
        assert!(deadline_in(Duration::MAX) > deadline_in(Duration::from_secs(60)));
    }
}
