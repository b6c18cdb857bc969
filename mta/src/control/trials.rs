//! What would come of a plan: the scheduler in virtual time, with the mail of the last days, beside the plan that holds now.
//!
//! Not here: the simulation (`simulate`), and what a plan's text may say (`plans.rs`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use scheduler::warmup::{Climb, ClimbView};
use simulate::{Model, PROVIDERS_MAX, Report, SOURCES_MAX, Trial, Volume};
use tokio::sync::Semaphore;

use super::{
    api::{PlanWish, Refusal, Side, Simulated},
    daemon::Daemon,
    plans::text_as_plan,
    views::{blocking, unable},
};
use crate::{
    egress::replies::Replies,
    events::What,
    queue::{QueueError, Reader},
};

/// Days that are simulated, and whole days of mail that are looked back at.
const DAYS: u32 = 30;

/// Of the newest events so many are looked at: they are read within a second or two.
const EVENTS_MAX: u64 = 2_000_000;

/// Read in one piece.
const PIECE: usize = 10_000;

/// Recipients a day, when no day is over yet.
const WITHOUT_HISTORY: u64 = 1_000;

/// It takes a core for a second or so; two at once would only be slower.
static ROOM: Semaphore = Semaphore::const_new(1);

impl Daemon {
    /// A text as the plan of this name, and the plan of this name that holds, if there is one.
    pub(super) async fn simulate_plan(&self, name: &str, wish: PlanWish) -> Result<Simulated, Refusal> {
        let config = self.config.load_full();
        let (now, new) = text_as_plan(&config, name, &wish.text)?;
        // Without a scheduler all of them are new.
        let views = self.parts.scheduler.climbs().await.unwrap_or_default();
        let standing: Vec<ClimbView> = views.into_iter().filter(|view| *view.plan == *name).collect();
        let full = |_| Refusal::Unable("another simulation runs; ask again in a moment".to_owned());
        let _place = ROOM.try_acquire().map_err(full)?;
        blocking(self, move |daemon| {
            let providers = config.shaped.providers.clone();
            let seen = Seen::of(&daemon.parts.reader, |host| providers.of(host)).map_err(unable)?;
            let cast = Cast::of(&seen, &standing);
            let (volume, of) = seen.volume();
            let volume = cast.share_of(volume);
            let trial = |plan: &simulate::Plan| {
                let mut trial = cast.play(Trial::of(plan.clone(), volume.clone(), Model::Typical));
                trial.config.rules = Replies::shipped().rules();
                trial.run()
            };
            let mut reports = vec![trial(&new)];
            // The same once more would say nothing.
            if let Some(now) = now.filter(|now| now.stages != new.stages || **now != new) {
                reports.insert(0, trial(&now));
                reports[0].plan.push_str(" as it is");
                reports[1].plan.push_str(" as written");
            }
            let says = format!("{DAYS} days of {of}, {}, before typical receivers.", cast.says());
            let drawing = simulate::chart(&format!("{}: plan and what is sent", new.name), &reports);
            Ok(Simulated { says, drawing, sides: reports.iter().map(side).collect() })
        })
        .await?
    }
}

fn side(report: &Report) -> Side {
    Side {
        plan: report.plan.clone(),
        accepted: report.total(|day| day.sent),
        deferred: report.total(|day| day.deferred),
        refused: report.total(|day| day.refused),
        waiting: report.days.last().map_or(0, |day| day.waiting),
        finished: report.finished,
        outlook: report.outlook.clone(),
    }
}

/// What events tell of the last days.
#[derive(Default)]
struct Seen {
    /// Recipients that members submitted mail to, by day of UTC.
    days: BTreeMap<u64, u64>,
    /// Recipients that hosts answered about, by who operates them.
    providers: HashMap<Arc<str>, u64>,
}

impl Seen {
    fn of(reader: &Reader, provider: impl Fn(&str) -> Arc<str>) -> Result<Seen, QueueError> {
        let newest = reader.events(None, None, None, 1)?.next;
        let mut all = Seen::default();
        let mut seen = newest.saturating_sub(EVENTS_MAX);
        loop {
            let events = reader.events_after(seen, PIECE)?;
            let Some((last, _)) = events.last() else { return Ok(all) };
            seen = *last;
            for (_, event) in &events {
                let day = event.at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
                let recipients = u64::from(event.recipients);
                *all.days.entry(day).or_default() += if event.what == What::Accepted { recipients } else { 0 };
                if matches!(event.what, What::Delivered | What::Failed) && !event.host.is_empty() {
                    *all.providers.entry(provider(&event.host)).or_default() += recipients;
                }
            }
        }
    }

    /// What members submitted on the last whole days by UTC, as far as events tell; and that in words.
    fn volume(&self) -> (Volume, String) {
        whole(&self.days)
    }
}

/// Who plays: sources as they stand, and the providers that mail has gone to.
struct Cast {
    sources: Vec<Arc<str>>,
    standing: Vec<(Arc<str>, Arc<str>, Climb)>,
    /// The largest first; empty: nothing is known.
    mix: Vec<(Arc<str>, u64)>,
    /// What of all mail goes to these, in thousandths.
    share: u64,
}

impl Cast {
    /// Of what was seen, and of the climbs that follow the plan now: providers where one does, if mail has gone to some of them.
    fn of(seen: &Seen, standing: &[ClimbView]) -> Cast {
        let mut all: Vec<(Arc<str>, u64)> = seen.providers.iter().map(|(name, count)| (name.clone(), *count)).collect();
        all.sort_by(|one, other| (other.1, &one.0).cmp(&(one.1, &other.0)));
        let sum = |of: &[(Arc<str>, u64)]| of.iter().map(|(_, count)| count).sum::<u64>();
        let followed = |(name, _): &&(Arc<str>, u64)| standing.iter().any(|view| view.provider == *name);
        let mut mix: Vec<_> = all.iter().filter(followed).cloned().collect();
        if mix.is_empty() {
            mix.clone_from(&all);
        }
        mix.truncate(PROVIDERS_MAX);
        let share = (1000 * sum(&mix)).checked_div(sum(&all)).unwrap_or(1000);
        let mut sources: Vec<_> = standing.iter().map(|view| view.source.clone()).collect();
        sources.sort();
        sources.dedup();
        sources.truncate(SOURCES_MAX.into());
        let standing = standing.iter().map(|view| (view.source.clone(), view.provider.clone(), view.climb)).collect();
        Cast { sources, standing, mix, share }
    }

    /// The part of the mail that goes to these providers.
    fn share_of(&self, volume: Volume) -> Volume {
        let part = |messages: u64| messages.saturating_mul(self.share) / 1000;
        match volume {
            Volume::Steady(messages) => Volume::Steady(part(messages)),
            Volume::Days(days) => Volume::Days(days.into_iter().map(part).collect()),
        }
    }

    fn play(&self, trial: Trial) -> Trial {
        let sources = u16::try_from(self.sources.len()).unwrap_or(u16::MAX).clamp(1, SOURCES_MAX);
        let providers = if self.mix.is_empty() { PROVIDERS_MAX } else { self.mix.len() };
        let (names, mix, standing) = (self.sources.clone(), self.mix.clone(), self.standing.clone());
        Trial { days: DAYS, sources, providers, names, mix, standing, ..trial }
    }

    fn says(&self) -> String {
        let providers = match &self.mix[..] {
            [] => format!("{PROVIDERS_MAX} providers of a usual mix, because events tell of none yet"),
            mix => {
                let names: Vec<&str> = mix.iter().map(|(name, _)| &**name).collect();
                let share = if self.share < 995 { format!(", which get {} % of it", self.share / 10) } else { String::new() };
                format!("the providers that mail has gone to ({}){share}", names.join(", "))
            }
        };
        match (self.sources.len(), self.standing.len()) {
            (0, _) => format!("from 1 young source at {providers}"),
            (1, _) => format!("from {} as it stands now, at {providers}", self.sources[0]),
            (sources, climbs) => format!("from {sources} sources with {climbs} climbs as they stand now, at {providers}"),
        }
    }
}

/// The days between the first and the last, which are not whole; one without any event is a day without mail.
fn whole(days: &BTreeMap<u64, u64>) -> (Volume, String) {
    let (first, last) = (days.keys().next().copied().unwrap_or(0), days.keys().next_back().copied().unwrap_or(0));
    let from = (first + 1).max(last.saturating_sub(u64::from(DAYS)));
    let mail: Vec<u64> = (from..last).map(|day| days.get(&day).copied().unwrap_or(0)).collect();
    let sum: u64 = mail.iter().sum();
    if sum == 0 {
        let says = format!("{WITHOUT_HISTORY} recipients each, because events tell of no whole day with mail yet");
        return (Volume::Steady(WITHOUT_HISTORY), says);
    }
    let says = format!("the mail of the last {} whole days ({} recipients a day)", mail.len(), sum / mail.len().max(1) as u64);
    (Volume::Days(mail), says)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_that_are_not_whole_do_not_count_and_quiet_ones_do() {
        let days = BTreeMap::from([(10, 900), (11, 30), (13, 60), (14, 5)]);
        assert_eq!(whole(&days).0, Volume::Days(vec![30, 0, 60]));
        assert_eq!(whole(&BTreeMap::from([(10, 900), (11, 5)])).0, Volume::Steady(WITHOUT_HISTORY));
        assert_eq!(whole(&BTreeMap::new()).0, Volume::Steady(WITHOUT_HISTORY));
        let many: BTreeMap<u64, u64> = (0..100).map(|day| (day, day)).collect();
        assert_eq!(whole(&many).0, Volume::Days((69..99).collect()));
    }

    #[test]
    fn climbs_play_as_they_stand_at_the_providers_that_mail_has_gone_to() {
        let providers = [("google", 600), ("other", 300), ("microsoft", 100)].map(|(name, count)| (Arc::from(name), count));
        let seen = Seen { days: BTreeMap::new(), providers: providers.into_iter().collect() };
        let view = |source: &str, provider: &str, stage| ClimbView {
            source: source.into(),
            provider: provider.into(),
            plan: "p".into(),
            climb: Climb { stage, ..Climb::new(0, 10) },
            stages: [1, 2, 3].into(),
            allowance: None,
            reserved: 0,
            figures: scheduler::warmup::Figures::default(),
            day_ends: UNIX_EPOCH,
            pacing: None,
        };
        let cast = Cast::of(&seen, &[view("ip-b", "google", 2), view("ip-a", "google", 0), view("ip-a", "yahoo", 1)]);
        assert_eq!((&cast.sources[..], &cast.mix[..]), (&["ip-a".into(), "ip-b".into()][..], &[("google".into(), 600)][..]));
        assert_eq!(cast.share_of(Volume::Days(vec![1000, 10])), Volume::Days(vec![600, 6]));
        let says = "from 2 sources with 3 climbs as they stand now, at the providers that mail has gone to (google), which get 60 % of it";
        assert_eq!(cast.says(), says);
        let new = Cast::of(&seen, &[]);
        assert_eq!(
            (
                new.mix.len(),
                new.share,
                new.play(Trial::of(simulate::Plan::of("p", simulate::Stages::Daily(vec![1])), Volume::Steady(1), Model::Open))
                    .sources
            ),
            (3, 1000, 1)
        );
        assert_eq!(
            Cast::of(&Seen::default(), &[]).says(),
            "from 1 young source at 12 providers of a usual mix, because events tell of none yet"
        );
    }
}
