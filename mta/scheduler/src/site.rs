//! A site: the MX hosts that several recipient domains share, with a window for each of our sources and a berth for the
//! mail of each pool (`berth.rs`). A recipient domain with a rule of its own has a site of its own (`shaping.rs`).

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::bucket::Bucket;
use crate::config::WindowLimits;
use crate::health::Health;
use crate::shape::Shape;
use crate::time::Time;
use crate::types::{SourceId, Verdict};
use crate::window::Window;

pub(crate) struct Site {
    pub(crate) name: Arc<str>,
    /// The hosts' names, joined by `,`: the name, but for a domain's own site.
    pub(crate) hosts: Arc<str>,
    /// Of the domain whose own site this is.
    pub(crate) domain: Option<Arc<str>>,
    pub(crate) provider: Arc<str>,
    /// Its row.
    pub(crate) provider_key: u32,
    /// What receivers bear.
    pub(crate) shape: Arc<Shape>,
    pub(crate) health: Health,
    /// By source; made when the source first sends there.
    paths: Vec<Option<Box<Path>>>,
    /// By pool; made when its mail comes.
    pub(crate) berths: SmallVec<[(u16, u32); 2]>,
    /// Domains whose route leads here.
    pub(crate) domains: u32,
    /// The last that did, also when all of its mail lies on disk and its route is forgotten.
    pub(crate) last: Option<Arc<str>>,
    pub(crate) in_flight: u32,
    /// Troubles of single hosts since anything went well.
    pub(crate) host_troubles: u8,
    /// When the timers will bring us back here; may be sooner than necessary, never later.
    pub(crate) wake: Time,
    /// Nobody has needed it since.
    pub(crate) unused_since: Option<Time>,
    /// What became of attempts, for whoever looks.
    pub(crate) lately: Lately,
}

/// Attempts in the hour of the clock that runs and in the one before: by which a person sees whether a site takes mail.
#[derive(Default)]
pub(crate) struct Lately {
    /// Of which the first figures are.
    hour: u32,
    delivered: [u32; 2],
    deferred: [u32; 2],
}

impl Lately {
    /// An attempt has ended; what failed for good counts as neither.
    pub(crate) fn note(&mut self, now: Time, verdict: Verdict) {
        self.turn(hour(now));
        match verdict {
            Verdict::Delivered => self.delivered[0] = self.delivered[0].saturating_add(1),
            Verdict::Deferred => self.deferred[0] = self.deferred[0].saturating_add(1),
            Verdict::Failed => {}
        }
    }

    /// Delivered and deferred.
    pub(crate) fn sums(&self, now: Time) -> (u64, u64) {
        let sum = |of: [u32; 2]| match hour(now).saturating_sub(self.hour) {
            0 => u64::from(of[0]) + u64::from(of[1]),
            1 => u64::from(of[0]),
            _ => 0,
        };
        (sum(self.delivered), sum(self.deferred))
    }

    fn turn(&mut self, hour: u32) {
        let passed = hour.saturating_sub(self.hour);
        if passed == 0 {
            return;
        }
        for of in [&mut self.delivered, &mut self.deferred] {
            *of = [0, if passed == 1 { of[0] } else { 0 }];
        }
        self.hour = hour;
    }
}

fn hour(now: Time) -> u32 {
    u32::try_from(now.since(Time::ALWAYS).as_secs() / 3600).unwrap_or(u32::MAX)
}

/// One of our sources at one site.
pub(crate) struct Path {
    pub(crate) window: Window,
    pub(crate) health: Health,
    /// Messages.
    pub(crate) rate: Bucket,
    /// Connections.
    pub(crate) connects: Bucket,
    /// Until when the connection of each slot is kept, in seconds since 1970; empty where connections are not counted.
    warm: Vec<u32>,
}

/// So long the driver surely keeps a connection that has nothing to do.
const CONNECTION_KEPT: Duration = Duration::from_secs(8);

fn seconds(time: Time) -> u32 {
    u32::try_from(time.since(Time::ALWAYS).as_secs()).unwrap_or(u32::MAX)
}

impl Path {
    fn new(limits: WindowLimits) -> Path {
        Path {
            window: Window::new(limits),
            health: Health::open(),
            rate: Bucket::default(),
            connects: Bucket::default(),
            warm: Vec::new(),
        }
    }

    /// Whether what goes in a slot needs a new connection.
    pub(crate) fn is_cold(&self, slot: u16, now: Time) -> bool {
        self.warm.get(usize::from(slot)).is_none_or(|until| *until <= seconds(now))
    }

    /// The connection of a slot is kept, or is gone.
    pub(crate) fn set_warm(&mut self, slot: u16, now: Time, warm: bool) {
        let nth = usize::from(slot);
        if self.warm.len() <= nth {
            self.warm.resize(nth + 1, 0);
        }
        self.warm[nth] = if warm { seconds(now.plus(CONNECTION_KEPT)) } else { 0 };
    }
}

impl Site {
    pub(crate) fn new(
        hosts: Arc<str>,
        domain: Option<Arc<str>>,
        provider: Arc<str>,
        provider_key: u32,
        shape: Arc<Shape>,
    ) -> Site {
        Site {
            name: name(&hosts, domain.as_deref()),
            hosts,
            domain,
            provider,
            provider_key,
            shape,
            health: Health::open(),
            paths: Vec::new(),
            berths: SmallVec::new(),
            domains: 0,
            last: None,
            in_flight: 0,
            host_troubles: 0,
            wake: Time::NEVER,
            unused_since: None,
            lately: Lately::default(),
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
        self.paths[nth].get_or_insert_with(|| Box::new(Path::new(limits)))
    }

    /// None: the source has never sent there.
    pub(crate) fn known_path_mut(&mut self, source: SourceId) -> Option<&mut Path> {
        self.paths.get_mut(usize::from(source.0))?.as_deref_mut()
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
    pub(crate) fn start_again(&mut self, pool: u16) {
        for (nth, path) in self.paths.iter_mut().enumerate() {
            if let Some(path) = path {
                path.window.start_again(self.shape.of(SourceId(nth as u16), pool).window);
            }
        }
    }

    /// Nobody has mail for it: what is only of use to the next delivery goes.
    pub(crate) fn rest(&mut self) {
        for path in self.paths.iter_mut().flatten() {
            path.warm = Vec::new();
        }
    }

    /// The berth of a pool, if it has mail here.
    pub(crate) fn berth(&self, pool: u16) -> Option<u32> {
        self.berths.iter().find(|(of, _)| *of == pool).map(|(_, berth)| *berth)
    }

    /// When no rate is spent any more: until then it must not be forgotten.
    pub(crate) fn rested_at(&self) -> Time {
        let paths = self.paths.iter().flatten();
        paths.flat_map(|path| [path.rate.full_at(), path.connects.full_at()]).max().unwrap_or(Time::ALWAYS)
    }
}

/// What a site is called: its hosts, and the domain if it is a domain's own.
pub(crate) fn name(hosts: &Arc<str>, domain: Option<&str>) -> Arc<str> {
    match domain {
        None => hosts.clone(),
        Some(domain) => format!("{hosts}/{domain}").into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::berth::Berth;
    use crate::config::Config;
    use crate::pools::Pools;
    use crate::source::Sources;

    #[test]
    fn attempts_are_counted_in_this_hour_and_the_one_before() {
        let at = |minutes: u64| Time::from(UNIX_EPOCH + Duration::from_secs(1_000_000 * 3600 + 60 * minutes));
        let mut lately = Lately::default();
        lately.note(at(1), Verdict::Delivered);
        lately.note(at(59), Verdict::Deferred);
        lately.note(at(59), Verdict::Failed);
        assert_eq!(lately.sums(at(59)), (1, 1));
        lately.note(at(61), Verdict::Deferred);
        assert_eq!((lately.sums(at(119)), lately.sums(at(121)), lately.sums(at(181))), ((1, 2), (0, 1), (0, 0)));
        lately.note(at(241), Verdict::Delivered);
        assert_eq!(lately.sums(at(241)), (1, 0));
    }

    /// Twenty connections to each site from each of ten sources, all of them counted; a name of three long hosts; a berth.
    #[test]
    fn an_idle_site_takes_less_than_four_kilobytes() {
        let config = Config::default();
        let shape = Arc::new(Shape::new(&config, &Sources::new(), &Pools::default(), &[]));
        let hosts: Arc<str> = ["a", "b", "c"].map(|host| format!("{host}{}.test", "x".repeat(60))).join(",").into();
        let mut site = Site::new(hosts.clone(), None, "other".into(), 0, shape);
        for source in 0..10 {
            let path = site.path_mut(SourceId(source), config.window);
            for _ in 0..20 {
                let slot = path.window.begin();
                path.set_warm(slot, Time::ALWAYS, true);
            }
        }
        let octets = |site: &Site| {
            let path = |path: &Path| size_of::<Path>() + path.warm.capacity() * size_of::<u32>();
            let paths = site.paths.capacity() * size_of::<Option<Box<Path>>>()
                + site.paths.iter().flatten().map(|it| path(it)).sum::<usize>();
            // The row, the name and its place in the table of names, one berth with a seat in each lane.
            size_of::<Option<Site>>() + paths + hosts.len() + 64 + size_of::<Option<Berth>>() + 3 * 64
        };
        assert!(octets(&site) < 4096, "{}", octets(&site));
        site.rest();
        assert!(octets(&site) < 3072, "{}", octets(&site));
    }

    /// With an open connection it costs more, and that is the driver's.
    #[test]
    fn a_site_with_nothing_to_do_takes_less_than_4_kib() {
        use crate::domain::{Active, Domain};
        use crate::types::{Host, Route};
        // Names of 64 octets behind two counts; a domain with its route of four hosts with two addresses each; one path; and places
        // in three tables that are half empty.
        let name = 2 * size_of::<usize>() + 64;
        let host = size_of::<Host>() + name + 2 * size_of::<std::net::IpAddr>();
        let route = 2 * size_of::<usize>() + size_of::<Route>() + 4 * host + 4 * name;
        let domain = size_of::<Domain>() + size_of::<Active>() + name;
        let site = size_of::<Site>() + size_of::<Path>() + size_of::<Option<Box<Path>>>() + 3 * name;
        let tables = 3 * 2 * (size_of::<Arc<str>>() + size_of::<u32>() + 1);
        let bytes = route + domain + site + tables;
        assert!(bytes <= 4096, "{bytes} octets");
    }
}
