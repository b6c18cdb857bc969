//! Whether a site, or one source at a site, may be visited: open, left alone, or being probed by one delivery.
//!
//! One outage is one failure, however many deliveries were in flight when it struck: only what began after the last
//! change of state may change it again. Not here: for how long (`retry::backoff`).

use crate::time::Time;

#[derive(Debug)]
pub(crate) struct Health {
    state: State,
    /// Deliveries numbered up to this one began before the last change: what they report is old news.
    since: u64,
}

#[derive(Debug)]
enum State {
    Open,
    /// From `until` on one delivery may go and see.
    Suspended {
        until: Time,
        failures: u8,
    },
    /// It is on its way; nobody else goes.
    Probing {
        failures: u8,
    },
}

impl Health {
    pub(crate) fn open() -> Health {
        Health { state: State::Open, since: 0 }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Left alone until then; also after that time as long as no probe has gone.
    pub(crate) fn suspended_until(&self) -> Option<Time> {
        match self.state {
            State::Suspended { until, .. } => Some(until),
            State::Open | State::Probing { .. } => None,
        }
    }

    pub(crate) fn is_probing(&self) -> bool {
        matches!(self.state, State::Probing { .. })
    }

    /// Failures in a row.
    pub(crate) fn failures(&self) -> u8 {
        match self.state {
            State::Open => 0,
            State::Suspended { failures, .. } | State::Probing { failures } => failures,
        }
    }

    /// A delivery begins here; true: it is the probe.
    pub(crate) fn begin(&mut self) -> bool {
        match self.state {
            State::Suspended { failures, .. } => {
                self.state = State::Probing { failures };
                true
            }
            State::Open | State::Probing { .. } => false,
        }
    }

    /// A delivery found it well; true: that opened it. `latest` is the newest delivery that has begun.
    pub(crate) fn good(&mut self, probe: bool, latest: u64) -> bool {
        if !probe {
            return false;
        }
        *self = Health { state: State::Open, since: latest };
        true
    }

    /// Whether trouble reported by the `number`th delivery is news.
    pub(crate) fn heeds(&self, probe: bool, number: u64) -> bool {
        match self.state {
            State::Open => number > self.since,
            State::Probing { .. } => probe,
            State::Suspended { .. } => false,
        }
    }

    /// Somebody knows better than the clock: it need not be left alone any longer. One delivery still goes ahead of the
    /// others, because a site that is still down should cost one of them an attempt and not a windowful. True: it was
    /// left alone.
    pub(crate) fn lift(&mut self, now: Time) -> bool {
        match &mut self.state {
            State::Suspended { until, .. } if *until > now => {
                *until = now;
                true
            }
            State::Open | State::Suspended { .. } | State::Probing { .. } => false,
        }
    }

    /// It is to be left alone until then, if it is not well.
    pub(crate) fn prolong(&mut self, until: Time, latest: u64) {
        if !self.is_open() {
            *self = Health { state: State::Suspended { until, failures: self.failures() }, since: latest };
        }
    }

    /// As it was before a restart.
    pub(crate) fn restore(&mut self, until: Time, failures: u32, latest: u64) {
        let failures = u8::try_from(failures).unwrap_or(u8::MAX);
        *self = Health { state: State::Suspended { until, failures }, since: latest };
    }

    /// Trouble that is news: leave it alone until then.
    pub(crate) fn suspend(&mut self, until: Time, latest: u64) {
        let failures = self.failures().saturating_add(1);
        *self = Health { state: State::Suspended { until, failures }, since: latest };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_outage_is_one_failure() {
        let mut health = Health::open();
        assert!(health.heeds(false, 1));
        health.suspend(Time::ALWAYS, 10);
        assert!(!health.heeds(false, 2), "it began before the suspension");
        assert_eq!(health.failures(), 1);
    }

    #[test]
    fn what_began_before_the_probe_came_back_is_old_news() {
        let mut health = Health::open();
        health.suspend(Time::ALWAYS, 10);
        assert!(health.begin() && !health.begin(), "one probe");
        assert!(!health.heeds(false, 3) && health.heeds(true, 11));
        assert!(!health.good(false, 11) && health.is_probing(), "only the probe opens it");
        assert!(health.good(true, 11));
        assert!(!health.heeds(false, 3), "a slow one from before the outage");
        assert!(health.heeds(false, 12));
    }

    #[test]
    fn a_suspension_that_is_lifted_still_lets_one_go_first() {
        let mut health = Health::open();
        assert!(!health.lift(Time::ALWAYS), "there was none");
        health.suspend(Time::NEVER, 10);
        assert!(health.lift(Time::ALWAYS) && !health.lift(Time::ALWAYS));
        assert!(health.suspended_until() == Some(Time::ALWAYS) && health.begin() && !health.begin());
    }

    #[test]
    fn failures_in_a_row_are_counted_until_a_probe_succeeds() {
        let mut health = Health::open();
        for failures in 1..=300u16 {
            health.suspend(Time::ALWAYS, 0);
            assert_eq!(u16::from(health.failures()), failures.min(255));
            assert!(health.begin());
        }
        health.good(true, 0);
        assert_eq!(health.failures(), 0);
    }
}
