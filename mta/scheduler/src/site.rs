//! A site: the MX hosts that several recipient domains share, with a window for each of our sources and the turns
//! that members take there (`turns.rs`).

use std::sync::Arc;

use crate::config::WindowLimits;
use crate::health::Health;
use crate::time::Time;
use crate::turns::Turns;
use crate::types::{Lane, SourceId};
use crate::window::Window;

pub(crate) struct Site {
    pub(crate) name: Arc<str>,
    pub(crate) provider: Arc<str>,
    pub(crate) health: Health,
    /// By source; made when the source first sends there.
    paths: Vec<Option<Box<Path>>>,
    /// Of each lane.
    pub(crate) turns: [Turns; 3],
    /// Stands in the ready list for `otp`, and in the one for the rest.
    pub(crate) listed: [bool; 2],
    /// Domains whose route leads here.
    pub(crate) domains: u32,
    pub(crate) in_flight: u32,
    /// Troubles of single hosts since anything went well.
    pub(crate) host_troubles: u8,
    /// When the timers will bring us back here; may be sooner than necessary, never later.
    pub(crate) wake: Time,
    /// Nobody has needed it since.
    pub(crate) unused_since: Option<Time>,
}

/// One of our sources at one site.
pub(crate) struct Path {
    pub(crate) window: Window,
    pub(crate) health: Health,
}

impl Site {
    pub(crate) fn new(name: Arc<str>, provider: Arc<str>) -> Site {
        Site {
            name,
            provider,
            health: Health::open(),
            paths: Vec::new(),
            turns: Default::default(),
            listed: [false; 2],
            domains: 0,
            in_flight: 0,
            host_troubles: 0,
            wake: Time::NEVER,
            unused_since: None,
        }
    }

    /// None: the source has never sent there.
    pub(crate) fn path(&self, source: SourceId) -> Option<&Path> {
        self.paths.get(usize::from(source.0))?.as_deref()
    }

    pub(crate) fn path_mut(&mut self, source: SourceId, limits: WindowLimits) -> &mut Path {
        let nth = usize::from(source.0);
        if self.paths.len() <= nth {
            self.paths.resize_with(nth + 1, || None);
        }
        self.paths[nth].get_or_insert_with(|| Box::new(Path { window: Window::new(limits), health: Health::open() }))
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = (SourceId, &Path)> {
        self.paths.iter().enumerate().filter_map(|(nth, path)| Some((SourceId(nth as u16), path.as_deref()?)))
    }

    /// Site and sources need not be left alone any longer; true: one of them was.
    pub(crate) fn lift(&mut self, now: Time) -> bool {
        let mut lifted = self.health.lift(now);
        for path in self.paths.iter_mut().flatten() {
            lifted |= path.health.lift(now);
        }
        lifted
    }

    /// After a suspension little is risked from any source.
    pub(crate) fn start_again(&mut self, limits: WindowLimits) {
        for path in self.paths.iter_mut().flatten() {
            path.window.start_again(limits);
        }
    }

    /// The lane and the flow that come next; `otp` and the rest are asked for apart. With a `member` its own flow, if it
    /// has mail in the lane that comes next.
    pub(crate) fn next_turn(&self, otp: bool, member: Option<u32>) -> Option<(Lane, u32)> {
        lanes(otp).iter().find_map(|lane| {
            let turns = &self.turns[lane.index()];
            let next = turns.next()?;
            Some((*lane, member.and_then(|member| turns.next_of(member)).unwrap_or(next)))
        })
    }

    /// Who has mail here, some of them twice.
    pub(crate) fn members(&self, otp: bool) -> impl Iterator<Item = u32> {
        lanes(otp).iter().flat_map(|lane| self.turns[lane.index()].members())
    }
}

fn lanes(otp: bool) -> &'static [Lane] {
    if otp { &Lane::ALL[..1] } else { &Lane::ALL[1..] }
}
