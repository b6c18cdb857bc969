//! Trials of whole plans: the schedules that others have published, and what an adaptive plan is worth before a strict receiver.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use scheduler::warmup::{Days, Pace, Plan, Stages, Troubles};
use simulate::{Model, Report, Trial, Volume, table};

/// Takes everything.
fn open() -> Model {
    Model::Days(vec![1_000_000_000])
}

/// More mail than a plan can use.
fn plenty(stages: &[u64]) -> Volume {
    Volume::Days(stages.iter().map(|most| most * 3 / 2 + 2_000).collect())
}

/// What was accepted follows the stages day by day; one recipient in two hundred is unknown, and gives its place back.
fn check_follows(report: &Report, stages: &[u64]) {
    for (day, stage) in report.days.iter().zip(stages) {
        assert_eq!(day.allowance, Some(*stage), "day {}", day.day);
        assert!(day.sent <= *stage, "day {}: {} of {stage}", day.day, day.sent);
        assert!(
            day.sent as f64 >= *stage as f64 * 0.99,
            "day {}: {} of {stage}\n{}",
            day.day,
            day.sent,
            table(std::slice::from_ref(report))
        );
    }
}

#[test]
fn sparkpost_s_stages_day_by_day() {
    let stages = [
        200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 50_000, 75_000, 100_000, 150_000, 200_000, 250_000, 325_000,
        400_000,
    ];
    let plan = Plan::of("sparkpost", Stages::Daily(stages.to_vec()));
    let report = Trial { days: 45, ..Trial::of(plan, plenty(&stages), open()) }.run();
    check_follows(&report, &stages);
    assert_eq!(report.finished, Some(16));
}

#[test]
fn sendgrid_s_hours_day_by_day() {
    let mut hourly: Vec<u64> = vec![20, 28, 39, 55, 77, 108, 151, 211, 295, 413, 579, 810, 1_000, 1_587, 2_222, 3_111];
    while hourly.len() < 36 {
        hourly.push((hourly[hourly.len() - 1] as f64 * 1.4).round() as u64);
    }
    let stages: Vec<u64> = hourly.iter().map(|most| most * 24).collect();
    let plan =
        Plan { pace: Pace { hours: 24, burst: 0 }, days: Days::Calendar, ..Plan::of("sendgrid", Stages::Daily(stages.clone())) };
    let report = Trial { days: 45, ..Trial::of(plan, plenty(&stages), open()) }.run();
    check_follows(&report, &stages);
    assert!((2_550_000..2_650_000).contains(hourly.last().unwrap()), "{hourly:?}");
}

#[test]
fn ses_s_fifty_thousand_a_day_after_45_days() {
    let growth = Stages::Growth { start: 50, factor: 1170, cap: 50_000 };
    let plan = Plan { days: Days::Calendar, ..Plan::of("ses", growth) };
    let stages = plan.stages.list();
    let report = Trial { days: 46, ..Trial::of(plan, plenty(&stages), open()) }.run();
    check_follows(&report, &stages);
    assert_eq!((report.days[44].allowance, report.finished), (Some(50_000), Some(45)));
}

fn fixed(start: u64, factor: u32) -> Plan {
    Plan { days: Days::Calendar, ..Plan::of("fixed", Stages::Growth { start, factor, cap: 50_000 }) }
}

fn adaptive(start: u64, factor: u32) -> Plan {
    Plan {
        name: "adaptive".into(),
        days: Days::Sending,
        hold: Troubles { deferred: Some(50), ..Troubles::default() },
        regress: Troubles { deferred: Some(150), ..Troubles::default() },
        codes: vec!["TSS04".into()],
        ..fixed(start, factor)
    }
}

#[test]
fn before_a_strict_receiver_the_adaptive_plan_delivers_more_with_fewer_deferrals() {
    let run = |plan| Trial::of(plan, Volume::Steady(3_000), Model::Strict).run();
    let (fixed, adaptive) = (run(fixed(200, 1500)), run(adaptive(200, 1500)));
    let sent = |report: &Report| report.total(|day| day.sent) as f64;
    let deferred = |report: &Report| report.total(|day| day.deferred);
    let text = table(&[adaptive.clone(), fixed.clone()]);
    eprintln!("{text}");
    assert!(sent(&adaptive) >= 1.5 * sent(&fixed), "{text}");
    assert!(deferred(&adaptive) < deferred(&fixed), "{text}");
}

#[test]
fn the_same_seed_gives_the_same_days_and_nothing_is_lost() {
    let trial =
        Trial { days: 6, sources: 3, providers: 4, ..Trial::of(adaptive(50, 1500), Volume::Steady(2_000), Model::Typical) };
    let report = trial.run();
    assert_eq!(report, trial.run());
    let settled: u64 = report.total(|day| day.sent + day.refused + day.expired);
    assert_eq!(report.total(|day| day.arrived), settled + report.days[5].waiting);
    for day in &report.days {
        assert!(day.sent <= day.allowance.unwrap(), "day {}: {} of {:?}", day.day, day.sent, day.allowance);
    }
}

#[test]
fn a_volume_that_cannot_sustain_its_sources_is_told_so_and_how_many_it_can() {
    let plan = Plan::of("small", Stages::Daily(vec![100, 1_000]));
    let report = Trial { days: 4, sources: 5, ..Trial::of(plan, Volume::Steady(2_000), open()) }.run();
    let text = report.outlook.join("\n");
    assert!(text.contains("cannot sustain 5 sources") && text.contains("google 2"), "{text}");
}
