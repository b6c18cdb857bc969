//! Where a flow takes its turns: the berth of its pool at its domain's site. And who stands in line at a provider.

use std::sync::Arc;
use std::time::SystemTime;

use crate::berth::Berth;
use crate::domain::Way;
use crate::machine::{Scheduler, Subject};
use crate::pools::MemberPools;
use crate::provider::{Held, LineId, Provider};
use crate::shape::Shape;
use crate::shaping::Destination;
use crate::time::Time;
use crate::types::{Lane, Route};

impl Scheduler {
    /// The pools that members were put into, from now on.
    pub fn handle_pools(&mut self, now: SystemTime, members: Arc<MemberPools>) {
        self.unmoor();
        self.pools.set_members(members);
        let domains: Vec<u32> = self.domains.iter().map(|(key, _)| key).collect();
        for key in domains {
            self.attend_domain(now.into(), key);
        }
    }

    /// What routes are made of beside DNS is another: they are looked up again, and serve meanwhile.
    pub fn refresh_routes(&mut self, now: SystemTime) {
        let domains: Vec<u32> = self.domains.iter().map(|(key, _)| key).collect();
        for key in domains {
            let Some(active) = self.domains.get_mut(key).and_then(|domain| domain.active.as_mut()) else { continue };
            match &mut active.way {
                Way::Known(route) if route.valid_until > now => {
                    *route = Arc::new(Route { valid_until: now, ..Route::clone(route) });
                }
                // It may be that a source of the right family was missing.
                Way::Trouble { until, .. } => *until = now.into(),
                Way::Known(_) | Way::Unknown | Way::Sought { .. } => {}
            }
            self.attend_domain(now.into(), key);
        }
    }

    /// All flows leave their turns, because pools change; `attend` brings them to their new berths.
    pub(crate) fn unmoor(&mut self) {
        let berths: Vec<u32> = self.berths.iter().map(|(key, _)| key).collect();
        for key in berths {
            let Some(mut berth) = self.berths.remove(key) else { continue };
            for lane in Lane::ALL {
                for flow in berth.turns[lane.index()].flows(&mut self.flows, lane) {
                    berth.turns[lane.index()].leave(&mut self.flows, lane, flow);
                }
            }
            if let Some(site) = self.sites.get_mut(berth.site) {
                site.berths.clear();
            }
        }
        self.ready = Default::default();
        self.open_lines = Default::default();
        for (key, provider) in self.providers.iter_mut().enumerate() {
            self.timers.remove(&(provider.wake, Subject::Provider(key as u32)));
            provider.reset_lines();
        }
    }

    /// The berth of a pool at a site, made if need be.
    pub(crate) fn berth(&mut self, site_key: u32, pool: u16) -> Option<u32> {
        let site = self.sites.get_mut(site_key)?;
        if let Some(key) = site.berth(pool) {
            return Some(key);
        }
        let key = self.berths.insert(Berth::new(site_key, pool));
        site.berths.push((pool, key));
        Some(key)
    }

    /// Nobody has mail for a site: its berths are empty, and go.
    pub(crate) fn remove_berths(&mut self, site_key: u32) {
        let Some(site) = self.sites.get_mut(site_key) else { return };
        for (_, key) in std::mem::take(&mut site.berths) {
            let Some(berth) = self.berths.remove(key) else { continue };
            for (nth, _) in berth.listed.iter().enumerate().filter(|(_, listed)| **listed) {
                self.ready[nth].retain(|listed| *listed != key);
            }
        }
    }

    /// Lets a flow of a site take turns in a lane, or no more.
    pub(crate) fn moor(&mut self, site_key: u32, lane: Lane, key: u32, wants: bool) {
        let Some(member) = self.flows.get(key).map(|flow| flow.member) else { return };
        let pool = self.pools.of(member, lane);
        let berth = if wants { self.berth(site_key, pool) } else { self.sites.get(site_key).and_then(|site| site.berth(pool)) };
        let Some(berth) = berth.and_then(|berth| self.berths.get_mut(berth)) else { return };
        let turns = &mut berth.turns[lane.index()];
        if wants { turns.join(&mut self.flows, lane, key) } else { turns.leave(&mut self.flows, lane, key) }
    }

    /// The row of a provider. There are as many as the driver knows names.
    pub(crate) fn provider(&mut self, name: &Arc<str>) -> u32 {
        if let Some(&key) = self.provider_by_name.get(name) {
            return key;
        }
        let key = self.providers.len() as u32;
        self.providers.push(Provider::default());
        self.provider_by_name.insert(name.clone(), key);
        key
    }

    /// What holds at a destination.
    pub(crate) fn shape(&mut self, to: Destination<'_>) -> Arc<Shape> {
        self.shapes.at(&self.config, &self.sources, &self.pools, to)
    }

    /// The line in which members of a berth wait for these sources.
    pub(crate) fn line_of(&self, berth_key: u32, held: Held) -> Option<(u32, LineId)> {
        let berth = self.berths.get(berth_key)?;
        Some((self.sites.get(berth.site)?.provider_key, LineId { pool: berth.pool, held }))
    }

    /// Members of a berth stand in line, one of them or all: until then at the earliest, if that is known.
    pub(crate) fn line_up_at_provider(
        &mut self,
        (berth_key, only): (u32, Option<u32>),
        (provider_key, id): (u32, LineId),
        otp: bool,
        until: Time,
    ) {
        let Some(berth) = self.berths.get(berth_key) else { return };
        if let Some(provider) = self.providers.get_mut(provider_key as usize) {
            for member in berth.members(otp).filter(|member| only.is_none_or(|only| only == *member)) {
                provider.push(id, otp, member, berth_key, self.domain_by_name.hasher());
            }
        }
        self.wake_provider(provider_key, until);
    }

    /// Whoever is first in an open line: provider and line, its member and berth.
    pub(crate) fn first_in_line(&mut self, otp: bool) -> Option<((u32, LineId), u32, u32)> {
        let list = usize::from(!otp);
        while let Some(&(key, id)) = self.open_lines[list].front() {
            let line = self.providers.get_mut(key as usize).and_then(|provider| provider.line(id, otp));
            if let Some((member, berth)) = line.and_then(|line| line.first()) {
                return Some(((key, id), member, berth));
            }
            self.close_line(otp);
        }
        None
    }

    /// It goes, or does not wait for these sources. Lines take turns too, because they may wait for the same source.
    pub(crate) fn leave_line(&mut self, (key, id): (u32, LineId), otp: bool) {
        if let Some(line) = self.providers.get_mut(key as usize).and_then(|provider| provider.line(id, otp)) {
            line.pop_by(&self.weights);
        }
        self.turn_lines(otp);
    }

    /// It goes, and has more: while there is room at the provider, members take turns here and not site by site.
    pub(crate) fn pass_line(&mut self, (key, id): (u32, LineId), otp: bool) {
        if let Some(line) = self.providers.get_mut(key as usize).and_then(|provider| provider.line(id, otp)) {
            line.pass_by(&self.weights);
        }
        self.turn_lines(otp);
    }

    fn turn_lines(&mut self, otp: bool) {
        let list = usize::from(!otp);
        if let Some(open) = self.open_lines[list].pop_front() {
            self.open_lines[list].push_back(open);
        }
    }

    /// The first open line stands still again.
    pub(crate) fn close_line(&mut self, otp: bool) {
        let list = usize::from(!otp);
        if let Some((key, id)) = self.open_lines[list].pop_front()
            && let Some(provider) = self.providers.get_mut(key as usize)
        {
            provider.set_open(id, otp, false);
        }
    }

    /// There may be room at a provider.
    pub(crate) fn open_provider(&mut self, key: u32) {
        let Some(provider) = self.providers.get_mut(key as usize) else { return };
        for (id, otp) in provider.waiting() {
            if provider.set_open(id, otp, true) {
                self.open_lines[usize::from(!otp)].push_back((key, id));
                self.pushed += 1;
            }
        }
    }

    pub(crate) fn wake_provider(&mut self, key: u32, at: Time) {
        let Some(provider) = self.providers.get_mut(key as usize) else { return };
        if at < provider.wake {
            self.timers.remove(&(provider.wake, Subject::Provider(key)));
            self.timers.insert((at, Subject::Provider(key)));
            provider.wake = at;
        }
    }
}
