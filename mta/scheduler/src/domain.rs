//! A recipient domain: the way its mail travels, and who has mail for it.
//!
//! Memory follows activity. A member whose mail for the domain lies only on disk is a number and a due time; its flow
//! exists while something is going on, and so does what is known of the domain's route (`Active`).

use std::sync::Arc;

use smallvec::SmallVec;

use crate::time::Time;
use crate::types::{Route, RouteTrouble};

pub(crate) struct Domain {
    pub(crate) name: Arc<str>,
    /// Who has mail here, by member. Of the 50,000 domains of a large backlog most have one.
    members: SmallVec<[(u32, Stand); 1]>,
    /// When the timers will bring us back here; may be sooner than necessary, never later.
    pub(crate) wake: Time,
    pub(crate) active: Option<Box<Active>>,
    /// Times in a row that DNS did not answer.
    pub(crate) route_failures: u8,
}

/// How a member stands with a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// All of its mail lies on disk.
    Rests {
        next_due: Time,
        /// There may be one-time codes among it.
        otp: bool,
        /// It stands in the line for `Load`.
        wants: bool,
    },
    /// A flow of this number.
    Flows(u32),
}

pub(crate) struct Active {
    /// Flows there are.
    pub(crate) flows: u32,
    pub(crate) way: Way,
    /// The site of the route, while there is one.
    pub(crate) site: Option<u32>,
    /// A check that concerns only this domain holds it: it takes no turns until then.
    pub(crate) parked: Option<Time>,
    /// With nothing to do the route is still remembered until then.
    pub(crate) idle_until: Option<Time>,
}

/// Where a domain's mail goes, as far as it is known.
pub(crate) enum Way {
    Unknown,
    /// In the line for `Resolve`, or asked already; meanwhile the route that ran out still serves.
    Sought {
        old: Option<Arc<Route>>,
        asked: bool,
    },
    Known(Arc<Route>),
    /// Believed until then.
    Trouble {
        trouble: RouteTrouble,
        until: Time,
    },
}

impl Domain {
    pub(crate) fn new(name: Arc<str>) -> Domain {
        Domain { name, members: SmallVec::new(), wake: Time::NEVER, active: None, route_failures: 0 }
    }

    pub(crate) fn activate(&mut self) -> &mut Active {
        self.active
            .get_or_insert_with(|| Box::new(Active { flows: 0, way: Way::Unknown, site: None, parked: None, idle_until: None }))
    }

    /// Why there is no way.
    pub(crate) fn trouble(&self) -> Option<&RouteTrouble> {
        match &self.active.as_ref()?.way {
            Way::Trouble { trouble, .. } => Some(trouble),
            Way::Unknown | Way::Sought { .. } | Way::Known(_) => None,
        }
    }

    /// Nobody has mail here.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn stand(&self, member: u32) -> Option<Stand> {
        let nth = self.find(member).ok()?;
        Some(self.members[nth].1)
    }

    pub(crate) fn set_stand(&mut self, member: u32, stand: Option<Stand>) {
        match (self.find(member), stand) {
            (Ok(nth), Some(stand)) => self.members[nth].1 = stand,
            (Ok(nth), None) => drop(self.members.remove(nth)),
            (Err(nth), Some(stand)) => self.members.insert(nth, (member, stand)),
            (Err(_), None) => {}
        }
    }

    fn find(&self, member: u32) -> Result<usize, usize> {
        self.members.binary_search_by_key(&member, |(member, _)| *member)
    }

    /// Who has mail here.
    pub(crate) fn members(&self) -> Vec<u32> {
        self.members.iter().map(|(member, _)| *member).collect()
    }

    /// The flow of a member.
    pub(crate) fn flow(&self, member: u32) -> Option<u32> {
        match self.stand(member)? {
            Stand::Flows(key) => Some(key),
            Stand::Rests { .. } => None,
        }
    }

    /// All flows.
    pub(crate) fn flows(&self) -> impl Iterator<Item = u32> {
        self.members.iter().filter_map(|(_, stand)| match stand {
            Stand::Flows(key) => Some(*key),
            Stand::Rests { .. } => None,
        })
    }

    /// Members whose mail is due and who do not stand in the line for it yet.
    pub(crate) fn risen(&self, now: Time) -> SmallVec<[u32; 4]> {
        let due = |(member, stand): &(u32, Stand)| match stand {
            Stand::Rests { next_due, wants: false, .. } if *next_due <= now => Some(*member),
            Stand::Rests { .. } | Stand::Flows(_) => None,
        };
        self.members.iter().filter_map(due).collect()
    }

    /// When the first of what lies only on disk is due, flows not counted.
    pub(crate) fn rests_until(&self) -> Time {
        let due = |(_, stand): &(u32, Stand)| match stand {
            Stand::Rests { next_due, wants: false, .. } => Some(*next_due),
            Stand::Rests { .. } | Stand::Flows(_) => None,
        };
        self.members.iter().filter_map(due).min().unwrap_or(Time::NEVER)
    }

    /// When the first of what lies only on disk at all is due, beside what flows know.
    pub(crate) fn next_due(&self) -> Time {
        let due = |(_, stand): &(u32, Stand)| match stand {
            Stand::Rests { next_due, .. } => Some(*next_due),
            Stand::Flows(_) => None,
        };
        self.members.iter().filter_map(due).min().unwrap_or(Time::NEVER)
    }
}

impl Active {
    /// The route to use now.
    pub(crate) fn route(&self) -> Option<&Arc<Route>> {
        match &self.way {
            Way::Known(route) | Way::Sought { old: Some(route), .. } => Some(route),
            Way::Unknown | Way::Sought { old: None, .. } | Way::Trouble { .. } => None,
        }
    }
}
