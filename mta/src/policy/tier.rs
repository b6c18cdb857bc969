//! Tiers: how much the members of each may send and keep in the queue, and how large their turns are.
//!
//! A member names its tier; one that names none, or one that the settings no longer know, is in the tier `default`.
//!
//! Not here: what was spent (`account.rs`), what a turn is (`scheduler`).

use std::sync::Arc;

use super::rate::Rate;

/// The tier of members that have no other.
pub const DEFAULT: &str = "default";

/// What the members of a tier may do. None: without limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// What the operator calls it.
    pub name: String,
    /// Turns at a site, beside those of other members.
    pub weight: u16,
    /// Recipients an hour, and at once.
    pub rate: Option<Rate>,
    /// Recipients a day.
    pub messages_per_day: Option<u64>,
    /// Messages in the queue.
    pub queue_messages_max: Option<u64>,
    /// Their octets.
    pub queue_bytes_max: Option<u64>,
}

impl Tier {
    /// One without limits.
    pub fn unlimited(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            weight: 1,
            rate: None,
            messages_per_day: None,
            queue_messages_max: None,
            queue_bytes_max: None,
        }
    }
}

/// All tiers. There is always one called [`DEFAULT`].
#[derive(Debug, Clone)]
pub struct Tiers {
    all: Vec<Arc<Tier>>,
    default: Arc<Tier>,
}

impl Tiers {
    /// In the order of the settings. Without one called `default` there is one all the same, without limits.
    pub fn new(tiers: impl IntoIterator<Item = Tier>) -> Self {
        let mut all: Vec<Arc<Tier>> = tiers.into_iter().map(Arc::new).collect();
        let default = match all.iter().find(|tier| tier.name == DEFAULT) {
            Some(default) => default.clone(),
            None => {
                let default = Arc::new(Tier::unlimited(DEFAULT));
                all.push(default.clone());
                default
            }
        };
        Self { all, default }
    }

    /// The one of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Tier>> {
        self.all.iter().find(|tier| tier.name == name)
    }

    /// The tier of a member that names `name`, or none.
    pub fn of(&self, name: Option<&str>) -> &Arc<Tier> {
        name.and_then(|name| self.named(name)).unwrap_or(&self.default)
    }

    /// What they are called, in the order of the settings.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|tier| tier.name.as_str())
    }
}

impl Default for Tiers {
    fn default() -> Self {
        Self::new([])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_without_a_tier_and_one_whose_tier_is_gone_are_in_the_default_tier() {
        let tiers = Tiers::new([Tier { weight: 3, ..Tier::unlimited("large") }]);
        assert_eq!(tiers.names().collect::<Vec<_>>(), ["large", "default"]);
        assert_eq!(tiers.of(Some("large")).weight, 3);
        assert_eq!(tiers.of(Some("gone")), tiers.of(None));
        let tiers = Tiers::new([Tier { weight: 2, ..Tier::unlimited("default") }]);
        assert_eq!((tiers.names().count(), tiers.of(None).weight), (1, 2));
    }
}
