//! Sources that warm up, lived through by the daemon: days, restarts, crashes, an edited plan, and what an operator wants.
//!
//! The checker counts what providers say that they accepted, by the day of UTC and the address that it came from. A crash may make
//! arrive twice what was in flight, which is not in any ledger: so many may be too many on its day.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use loadtest::sink::Script;
use mta::control::admin::Operations;
use mta::control::api::{ClimbFilter, ClimbRow, ClimbVerb, StepFilter, WarmupWish};
use mta::queue::Fault;

use super::HOUR;
use super::parts::{BEGINNING, Day, World};

const MINUTE: Duration = Duration::from_secs(60);
/// What the zone of a plan has by default.
const A_DAY: u64 = 24 * 3600;
const BIG: &str = "big.example";

/// ip-a, alone, with whoever is in no list of providers.
const CLIMB: &str = "[warmup]\nfiles = [\"plans.toml\"]\n[[climb]]\nsource = \"ip-a\"\nprovider = \"other\"\nplan = \"slow\"\n";

fn stages(stages: &str) -> String {
    format!("[[plan]]\nname = \"slow\"\nstages = [{stages}]\n")
}

fn young(seed: u64, plan: &str) -> World {
    World::seed(seed).plans(plan).settings(CLIMB).provider(BIG, Script::accepts_all())
}

impl World {
    /// A file of plans of warmup.
    pub(crate) fn plans(mut self, file: &str) -> Self {
        self.plans = Some(file.to_owned());
        self
    }

    /// Recipients that a domain's provider accepted, by the day of UTC since the world's first one, from ip-a.
    fn accepted_by_day(&self, domain: &str) -> BTreeMap<u64, u64> {
        let address: IpAddr = "192.0.2.11".parse().unwrap();
        let mut days = BTreeMap::new();
        for message in self.arrived_at(domain).iter().filter(|message| message.peer.ip() == address) {
            let day = (BEGINNING + message.at.as_secs()) / A_DAY - BEGINNING / A_DAY;
            *days.entry(day).or_default() += message.recipients.len() as u64;
        }
        days
    }
}

async fn climb(day: &Day) -> ClimbRow {
    let page = day.desk().warmup().await.unwrap();
    let [climb] = &page.climbs[..] else { panic!("{page:?}") };
    climb.clone()
}

async fn submit(day: &Day, from: u64, many: u64) {
    for n in from..from + many {
        day.submit(n, &[&format!("user{n}@{BIG}")]).await;
    }
}

async fn steer(day: &Day, verb: ClimbVerb, why: &str) -> Result<ClimbRow, String> {
    let wish = WarmupWish { why: why.to_owned(), ..WarmupWish::default() };
    day.desk().steer_climb(("ip-a", "other"), verb, wish, "uid 7").await.map_err(|refusal| refusal.to_string())
}

#[test]
fn a_climb_goes_on_through_days_and_restarts_and_each_day_has_its_allowance_once() {
    let mut world = young(80, &stages("5, 10, 20, 40"));
    world.live(7 * HOUR, |day| async move {
        submit(&day, 0, 3).await;
        tokio::time::sleep(MINUTE).await;
        let now = climb(&day).await;
        assert_eq!((now.figures.spent, now.allowance, now.reserved, now.stage), (3, Some(5), 0, 1));
    });
    // In the middle of the day: what was spent is spent, to the message.
    world.live(HOUR, |day| async move {
        let now = climb(&day).await;
        assert_eq!((now.figures.spent, now.allowance, now.stage), (3, Some(5), 1));
        submit(&day, 100, 10).await;
    });
    world.live_and_stop(|day| async move {
        let now = climb(&day).await;
        assert_eq!((now.figures.spent, &*now.state), (5, "warming"));
        tokio::time::sleep(3 * A_DAY as u32 * Duration::from_secs(1)).await;
        submit(&day, 200, 30).await;
        tokio::time::sleep(HOUR).await;
    });
    world.live(HOUR, |day| async move {
        let shown = day.desk().climb("ip-a", "other", ClimbFilter::default()).await.unwrap();
        let days: Vec<_> =
            shown.days.iter().map(|it| (it.planned, it.allowed, it.spent, it.rule.as_deref().unwrap_or("-"))).collect();
        assert_eq!(
            days,
            [
                (Some(5), Some(5), 5, "advance"),
                (Some(10), Some(10), 8, "utilisation"),
                (Some(20), Some(10), 0, "utilisation"),
                (Some(40), Some(10), 10, "-"),
            ]
        );
        assert_eq!((shown.climb.stage, shown.climb.planned_stage), (2, 4));
        let steps: Vec<_> = shown.steps.iter().map(|step| (&*step.rule, &*step.reason, step.figures.spent)).collect();
        assert_eq!(steps[2], ("advance", "5 of 5 used (100 %); warming, stage 1 to 2, 10 a day", 5));
        assert_eq!(steps[1].1, "8 of 10 used (80 %), less than 90 %; holding, 10 a day");
    });
    assert_eq!(world.accepted_by_day(BIG), BTreeMap::from([(0, 5), (1, 8), (3, 10)]));
}

#[test]
fn a_crash_between_reservation_and_settlement_spends_no_day_twice() {
    let (mut crashes, mut overlaps) = (0, 0);
    for seed in 0..5 {
        let fault = [Fault::StopBeforeCommit, Fault::StopAfterCommit][seed as usize % 2];
        let mut world = young(1000 + seed, &stages("6, 12, 24"));
        let mut excess: BTreeMap<u64, u64> = BTreeMap::new();
        for life in 0..6 {
            let before = world.delivered_and_still_queued();
            world.live(5 * HOUR, move |day| async move {
                for n in 0..8 {
                    // The next commit is a settlement as often as a message.
                    if n == 1 + (seed + life) % 6 {
                        day.fault(fault);
                    }
                    submit(&day, 100 * life + n, 1).await;
                    tokio::time::sleep(Duration::from_millis((seed * 37 + life * 101) % 400)).await;
                }
            });
            crashes += 1;
            let overlap = world.delivered_and_still_queued().saturating_sub(before);
            overlaps += overlap;
            *excess
                .entry((BEGINNING + life * 5 * 3600) % A_DAY / A_DAY + (BEGINNING % A_DAY + life * 5 * 3600) / A_DAY)
                .or_default() += overlap as u64;
        }
        world.live(3 * HOUR, |_| async {});
        // The checker's own climb: the next stage after a day that used nine tenths. A day that it counts more on than the daemon
        // does, because of a crash, may lead on in its count only: so its stage is the highest there may be.
        let (mut allowed, accepted) = (6, world.accepted_by_day(BIG));
        for day in 0..3 {
            let (count, over) = (accepted.get(&day).copied().unwrap_or(0), excess.get(&day).copied().unwrap_or(0));
            assert!(
                count <= allowed + over,
                "seed {seed}: {count} on day {day}, {allowed} and {over} are explained: {accepted:?}"
            );
            if count * 10 >= allowed * 9 {
                allowed *= 2;
            }
        }
        world.live(3 * 24 * HOUR, |_| async {});
        world.check_none_lost();
    }
    assert!(crashes == 30 && overlaps > 1, "{overlaps} were in flight at a crash: nothing was tested");
}

#[test]
fn an_edited_plan_counts_what_was_spent_before_it() {
    let mut world = young(82, &stages("5, 10"));
    let plans = world.folder.path().join("plans.toml");
    world.live(5 * HOUR, |day| async move {
        submit(&day, 0, 30).await;
        tokio::time::sleep(HOUR).await;
        assert_eq!(climb(&day).await.figures.spent, 5);
        std::fs::write(&plans, stages("8, 10")).unwrap();
        day.reload("", "").await.unwrap();
        tokio::time::sleep(MINUTE).await;
        assert_eq!((climb(&day).await.figures.spent, climb(&day).await.allowance), (8, Some(8)), "three more");
        std::fs::write(&plans, stages("2, 3, 4")).unwrap();
        day.reload("", "").await.unwrap();
        tokio::time::sleep(HOUR).await;
        let now = climb(&day).await;
        assert_eq!((now.figures.spent, now.allowance, now.stages), (8, Some(2), 3), "nothing is given back");
        // One that is wrong is refused with its line, and the old one holds.
        std::fs::write(&plans, stages("4, 2")).unwrap();
        let told = day.reload("", "").await.unwrap_err();
        assert_eq!(told, "plans.toml:3: key `plan.stages`: is no more than the stage before; stages rise");
        assert_eq!(climb(&day).await.stages, 3);
    });
    world.plans = Some(stages("2, 3, 4"));
    world.live(24 * HOUR, |_| async {});
    assert_eq!(world.accepted_by_day(BIG), BTreeMap::from([(0, 8), (1, 3)]));
}

#[test]
fn an_operator_s_word_is_durable_when_it_is_answered_and_stands_in_the_history_with_who_and_why() {
    let mut world = young(83, &stages("5, 10, 20"));
    world.live(Duration::ZERO, |day| async move {
        submit(&day, 0, 2).await;
        tokio::time::sleep(MINUTE).await;
        assert_eq!(steer(&day, ClimbVerb::Resume, "x").await.unwrap_err(), "ip-a at other is not paused: it is warming");
        assert_eq!(steer(&day, ClimbVerb::Pause, " ").await.unwrap_err(), "say why, for whoever reads the history next year");
        let now = steer(&day, ClimbVerb::Pause, "a list names us").await.unwrap();
        assert_eq!((&*now.state, now.allowance), ("paused", Some(0)));
        // The daemon dies in this moment.
    });
    world.live(2 * HOUR, |day| async move {
        submit(&day, 100, 10).await;
        tokio::time::sleep(HOUR).await;
        let now = climb(&day).await;
        assert_eq!((&*now.state, now.figures.spent), ("paused", 2), "nothing leaves meanwhile");
        let attention = day.desk().warmup().await.unwrap().attention;
        assert!(
            attention[0].starts_with("ip-a at other: paused since 2026-11-23T")
                && attention[0].contains("uid 7: a list names us")
        );
        let now = steer(&day, ClimbVerb::Resume, "delisted").await.unwrap();
        assert_eq!((&*now.state, now.allowance, now.figures.spent), ("warming", Some(5), 2));
        tokio::time::sleep(MINUTE).await;
        assert_eq!(climb(&day).await.figures.spent, 5, "what was spent before the pause stays spent");
        steer(&day, ClimbVerb::Skip, "they know us").await.unwrap();
        tokio::time::sleep(MINUTE).await;
        assert_eq!(climb(&day).await.figures.spent, 10);
        let unknown = day.desk().steer_climb(("ip-a", "google"), ClimbVerb::Skip, WarmupWish::default(), "op").await;
        assert!(unknown.unwrap_err().to_string().starts_with("say why"));
        let wish = WarmupWish { why: "x".into(), ..WarmupWish::default() };
        let unknown = day.desk().steer_climb(("ip-a", "google"), ClimbVerb::Skip, wish, "op").await;
        let says = "ip-a does not warm up at google; sources that warm up: ip-a; providers where some do: other";
        assert_eq!(unknown.unwrap_err().to_string(), says);
        let steps = day.desk().climb_steps(StepFilter::default()).await.unwrap();
        let steps: Vec<_> = steps.iter().map(|step| (&*step.reason, step.by.as_deref().unwrap(), step.figures.spent)).collect();
        assert_eq!(
            steps,
            [
                ("skipped to stage 2", "uid 7: they know us", 5),
                ("resumed", "uid 7: delisted", 2),
                ("paused", "uid 7: a list names us", 2),
            ]
        );
    });
    assert_eq!(world.accepted_by_day(BIG), BTreeMap::from([(0, 10)]));
}

#[test]
fn codes_beyond_an_allowance_are_counted_apart_and_somebody_is_told() {
    let mut world = young(84, &format!("{}oversend_otp = true\n", stages("3, 6")));
    world.live(HOUR, |day| async move {
        for n in 0..7 {
            let to = [format!("<user{n}@{BIG}>")];
            day.submit_as("member.example", n, "<app@member.example>", &to, "X-Atmos-Category: mfa-otp\r\n").await;
        }
        tokio::time::sleep(10 * MINUTE).await;
        let page = day.desk().warmup().await.unwrap();
        let figures = page.climbs[0].figures;
        assert_eq!((figures.spent, figures.over), (3, 4));
        assert!(page.attention[0].contains("one-time codes went beyond the allowance"), "{:?}", page.attention);
        let steps = day.desk().climb_steps(StepFilter { limit: Some(5), ..StepFilter::default() }).await.unwrap();
        assert_eq!(steps.iter().map(|step| &*step.rule).collect::<Vec<_>>(), ["over"], "told once");
    });
    // A restart forgets none of it.
    world.live(HOUR, |day| async move {
        assert_eq!(climb(&day).await.figures.over, 4);
        assert_eq!(day.desk().warmup().await.unwrap().attention.len(), 1);
    });
    world.check_all_arrived_once();
}
