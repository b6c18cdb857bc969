//! What would come of a plan: the scheduler in virtual time, with the mail of the last days, beside the plan that holds now.
//!
//! Not here: the simulation (`simulate`), and what a plan's text may say (`plans.rs`).

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use simulate::{Model, Report, Trial, Volume};
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
        let follows = config.climbs.iter().filter(|climb| *climb.plan.name == *name);
        let sources: std::collections::BTreeSet<_> = follows.map(|climb| climb.source.clone()).collect();
        let sources = u16::try_from(sources.len()).unwrap_or(u16::MAX).clamp(1, simulate::SOURCES_MAX);
        let full = |_| Refusal::Unable("another simulation runs; ask again in a moment".to_owned());
        let _place = ROOM.try_acquire().map_err(full)?;
        blocking(self, move |daemon| {
            let (volume, of) = volume(&daemon.parts.reader).map_err(unable)?;
            let trial = |plan: &simulate::Plan| {
                let mut trial =
                    Trial { days: DAYS, sources, providers: 12, ..Trial::of(plan.clone(), volume.clone(), Model::Typical) };
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
            let says = format!(
                "{DAYS} days of {of}, from {sources} young {} that all follow it at 12 providers, before typical receivers.",
                if sources == 1 { "source" } else { "sources" }
            );
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

/// What members submitted on the last whole days by UTC, as far as events tell; and that in words.
fn volume(reader: &Reader) -> Result<(Volume, String), QueueError> {
    let newest = reader.events(None, None, None, 1)?.next;
    let mut days: BTreeMap<u64, u64> = BTreeMap::new();
    let mut seen = newest.saturating_sub(EVENTS_MAX);
    loop {
        let events = reader.events_after(seen, PIECE)?;
        let Some((last, _)) = events.last() else { break };
        seen = *last;
        for (_, event) in &events {
            let day = event.at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
            *days.entry(day).or_default() += if event.what == What::Accepted { u64::from(event.recipients) } else { 0 };
        }
    }
    Ok(whole(&days))
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
}
