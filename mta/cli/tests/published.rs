//! The schedules that SparkPost, SendGrid and Amazon have published, as plan files, against the published tables: the scheduler lets
//! 45 days pass with more mail than a plan can use, and a receiver that takes everything. The tables here are copies of what
//! they publish, made apart from the plan files.
//!
//! What was sent may fall short of the table by 1 % (one recipient in two hundred is unknown, and gives its place back; a pause
//! at midnight), and may never exceed it.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use mta::config::warmup;
use simulate::{Model, Plan, Report, Trial, Volume, table};

/// Days of each trial.
const DAYS: u32 = 45;

/// A stage a day, more than 90 % of it delivered: support-docs, `user-guide/automated-ip-warmup`, "Stage-Based Progression Schedule".
/// The 28th is printed as "7,50,000/day". Stage 30 is "DONE".
const SPARKPOST: [u64; 29] = [
    200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 50_000, 75_000, 100_000, 150_000, 200_000, 250_000, 325_000, 400_000,
    500_000, 600_000, 750_000, 1_000_000, 1_250_000, 1_750_000, 2_000_000, 3_000_000, 4_250_000, 5_000_000, 6_000_000, 7_500_000,
    10_000_000,
];

/// Emails an hour by days of age, the first being 0: "Automated IP warmup hourly send schedule".
const SENDGRID_AN_HOUR: [u64; 42] = [
    20, 28, 39, 55, 77, 108, 151, 211, 295, 413, 579, 810, 1_000, 1_587, 2_222, 3_111, 4_356, 6_098, 8_583, 11_953, 16_734,
    23_427, 32_798, 45_917, 64_284, 89_998, 125_997, 176_395, 246_953, 345_735, 484_029, 677_640, 948_696, 1_328_175, 1_859_444,
    2_603_222, 3_644_511, 5_102_316, 7_143_242, 10_000_539, 14_000_754, 19_601_056,
];

fn plan(name: &str) -> Plan {
    Plan::clone(&warmup::plans(&[], &[]).unwrap()[name])
}

/// 45 days with half as much again as `published`, and some, on each of its days.
fn run(plan: Plan, published: &[u64]) -> Report {
    let volume = Volume::Days(published.iter().map(|most| most * 3 / 2 + 2_000).collect());
    // Fewer deliveries, with more recipients, are the same to a plan and take less time.
    Trial { days: DAYS, deliveries: 8_000, ..Trial::of(plan, volume, Model::Open) }.run()
}

fn check_follows(report: &Report, published: &[u64]) {
    assert_eq!(report.days.len(), DAYS as usize);
    for (day, published) in report.days.iter().zip(published) {
        let text = || format!("day {}: {} of {published}\n{}", day.day, day.sent, table(std::slice::from_ref(report)));
        assert!(day.sent <= *published, "too many on {}", text());
        assert!(day.sent as f64 >= *published as f64 * 0.99, "too few on {}", text());
    }
}

/// Afterwards they bound nothing.
fn check_done(report: &Report, published: usize) {
    assert_eq!(report.finished, Some(published as u32));
    assert!(report.days[published..].iter().all(|day| day.allowance.is_none()), "{}", table(std::slice::from_ref(report)));
}

#[test]
fn sparkpost_s_29_stages_day_by_day() {
    let report = run(plan("sparkpost"), &SPARKPOST);
    check_follows(&report, &SPARKPOST);
    check_done(&report, SPARKPOST.len());
}

#[test]
fn sparkpost_stays_on_a_stage_of_which_less_than_nine_tenths_were_delivered() {
    // On the third day there is half of what the stage wants, on the fourth enough.
    let stages = [200, 500, 1_000, 1_000, 2_000];
    let volume = Volume::Days(vec![400, 800, 500, 2_000, 4_000]);
    let report = Trial { days: 5, ..Trial::of(plan("sparkpost"), volume, Model::Open) }.run();
    let allowed: Vec<_> = report.days.iter().map(|day| day.allowance.unwrap()).collect();
    assert_eq!(allowed, stages, "{}", table(&[report]));
}

#[test]
fn sendgrid_s_42_days_of_age_day_by_day_and_hour_by_hour() {
    let published = SENDGRID_AN_HOUR.map(|most| most * 24);
    let sendgrid = plan("sendgrid");
    let hourly: Vec<u64> = sendgrid.stages.list().iter().map(|day| sendgrid.pace.hourly(*day)).collect();
    assert_eq!(hourly, SENDGRID_AN_HOUR);
    let report = run(sendgrid, &published);
    check_follows(&report, &published);
    check_done(&report, published.len());
}

#[test]
fn ses_s_fifty_thousand_a_day_after_45_days() {
    // They publish where it ends and how long it takes; in between it "gradually increases".
    let ses = plan("ses");
    let stages = ses.stages.list();
    assert_eq!((stages.len(), stages.last()), (45, Some(&50_000)));
    let factor = |pair: &[u64]| pair[1] as f64 / pair[0] as f64;
    assert!(stages.windows(2).all(|pair| (1.1..1.25).contains(&factor(pair))), "{stages:?}");
    let report = run(ses, &stages);
    check_follows(&report, &stages);
    assert_eq!((report.days[44].allowance, report.finished), (Some(50_000), Some(45)));
}

#[test]
fn before_strict_receivers_gentle_delivers_more_than_a_published_calendar_with_fewer_deferrals() {
    // Both limits are below what the calendar sends on its first day, 480. The receiver begins to defer and punishes for a day.
    for first in [100, 300] {
        let run = |name: &str| Trial::of(plan(name), Volume::Steady(1_500), Model::Strict(first)).run();
        let (adaptive, fixed) = (run("gentle"), run("sendgrid"));
        let sums = |report: &Report| (report.total(|day| day.sent) as f64, report.total(|day| day.deferred));
        let (more, less) = (sums(&adaptive), sums(&fixed));
        assert!(more.0 >= 1.5 * less.0 && more.1 < less.1, "{first}\n{}", table(&[adaptive, fixed]));
    }
}
