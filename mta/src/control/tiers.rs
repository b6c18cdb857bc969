//! Tiers as the settings have them, and the meters of members, which outlive every snapshot of the directory.

use std::{
    collections::HashMap,
    num::NonZeroU16,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use scheduler::{MemberPools, Weights};

use super::api::{self, Refusal};
use crate::{
    config::{self, Config},
    policy::{Account, Member, Meter, Tier, Tiers, rate::Rate},
    queue::{Held, QueueError, Reader},
};

/// Burst of a tier that does not say: ten minutes' worth, and enough for a morning's few.
const BURST_SHARE: u64 = 6;
const BURST_MIN: u64 = 50;

/// What each member has spent, by its number. One that leaves is forgotten: numbers are not given twice.
#[derive(Default)]
pub(super) struct Meters(Mutex<HashMap<u32, Arc<Meter>>>);

impl Meters {
    /// Today's counts as they are on disk.
    pub(super) fn open(reader: &Reader) -> Result<Self, QueueError> {
        let rows = reader.usages()?.into_iter();
        let meters = rows.map(|(member, row)| (member, Arc::new(Meter::resume(row.day, row.spent))));
        Ok(Self(Mutex::new(meters.collect())))
    }

    pub(super) fn of(&self, member: u32) -> Arc<Meter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(member).or_default().clone()
    }
}

/// The tiers of the settings.
pub(super) fn tiers(config: &Config) -> Tiers {
    Tiers::new(config.tier.iter().map(tier))
}

fn tier(tier: &config::Tier) -> Tier {
    let rate = tier.messages_per_hour.map(|hourly| {
        let burst = tier.burst.unwrap_or_else(|| (hourly / BURST_SHARE).max(BURST_MIN));
        Rate::per_hour(hourly, burst)
    });
    Tier {
        name: tier.name.clone(),
        weight: tier.weight,
        rate,
        messages_per_day: tier.messages_per_day,
        queue_messages_max: tier.queue_messages_max,
        queue_bytes_max: tier.queue_bytes_max,
    }
}

/// How long a submitted message is remembered; zero: not at all.
pub(super) fn window(config: &Config) -> Duration {
    if config.duplicates.suppress { config.duplicates.window } else { Duration::ZERO }
}

/// Members whose turns are larger than one.
pub(super) fn weights<'m>(tiers: &Tiers, members: impl Iterator<Item = &'m Member>) -> Weights {
    let weight = |member: &Member| NonZeroU16::new(tiers.of(member.tier.as_deref()).weight);
    members.filter_map(|member| Some((member.id, weight(member)?))).filter(|(_, weight)| weight.get() > 1).collect()
}

/// The pools that members were put into.
pub(super) fn pools<'m>(members: impl Iterator<Item = &'m Member>) -> MemberPools {
    members.filter_map(|member| Some((member.id, member.pool.as_deref()?.into()))).collect()
}

/// A pool that a member may be put into.
pub(super) fn known_pool(config: &Config, name: &str) -> Result<String, Refusal> {
    match config.pool_names().any(|pool| pool == name) {
        true => Ok(name.to_owned()),
        false => {
            let all: Vec<_> = config.pool_names().collect();
            Err(Refusal::Wrong(format!("there is no pool {name:?}; the settings have: {}", all.join(", "))))
        }
    }
}

/// A tier that a member may be put into.
pub(super) fn known(config: &Config, name: &str) -> Result<String, Refusal> {
    let tiers = tiers(config);
    let all = || tiers.names().collect::<Vec<_>>().join(", ");
    match tiers.named(name) {
        Some(tier) => Ok(tier.name.clone()),
        None => Err(Refusal::Wrong(format!("there is no tier {name:?}; the settings have: {}", all()))),
    }
}

/// A member whose tier or pool has left the settings is not refused for it, and the operator is told.
pub(super) fn tell_unknown<'m>(config: &Config, members: impl Iterator<Item = &'m Member>) {
    let tiers = tiers(config);
    for member in members {
        if let Some(name) = member.tier.as_deref().filter(|name| tiers.named(name).is_none()) {
            tracing::warn!(member = %member.did, tier = name, "no such tier in the settings: the default tier counts");
        }
        if let Some(name) = member.pool.as_deref().filter(|name| !config.pool_names().any(|pool| pool == *name)) {
            tracing::warn!(member = %member.did, pool = name, "no such pool in the settings: its classes' pools count");
        }
    }
}

/// What the operator is shown of it.
pub(super) fn view(member: &Member, account: &Account, held: Held, now: SystemTime) -> (String, api::Spending) {
    let tier = &account.tier;
    let name = match member.tier.as_deref().filter(|name| *name != tier.name) {
        Some(gone) => format!("{} ({gone} is not in the settings)", tier.name),
        None => tier.name.clone(),
    };
    let spending = api::Spending {
        weight: tier.weight,
        messages_per_hour: tier.rate.map(|rate| rate.hourly()),
        burst: tier.rate.map(|rate| rate.burst()),
        available: account.available(now),
        messages_per_day: tier.messages_per_day,
        sent_today: account.spent_today(now),
        queue_messages: held.messages,
        queue_messages_max: tier.queue_messages_max,
        queue_bytes: held.bytes,
        queue_bytes_max: tier.queue_bytes_max,
    };
    (name, spending)
}
