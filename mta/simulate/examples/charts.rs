//! Draws the charts of `mta/docs/warmup.md` into a folder, and prints their tables and that of a large trial:
//! `cargo run --release --example charts -- mta/docs`.

// A program for the desk: it says what went wrong by panicking.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use scheduler::warmup::{Days, Pace, Plan, Stages, Troubles};
use simulate::{Model, Report, Trial, Volume, chart, table};

fn main() {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| ".".to_owned()));
    let draw = |name: &str, heading: &str, reports: &[Report]| {
        std::fs::write(folder.join(format!("warmup-{name}.svg")), chart(heading, reports)).unwrap();
        println!("{}", table(reports));
    };
    let open = || Model::Days(vec![1_000_000_000]);
    let follow = |plan: Plan| {
        let list = plan.stages.list();
        let volume = Volume::Days(list.iter().map(|most| most * 3 / 2 + 2_000).collect());
        // Afterwards nothing bounds it, and there is nothing to compare.
        Trial { days: list.len() as u32, ..Trial::of(plan, volume, open()) }.run()
    };
    let sparkpost = [
        200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 50_000, 75_000, 100_000, 150_000, 200_000, 250_000, 325_000,
        400_000,
    ];
    let plan = Plan::of("SparkPost's stages", Stages::Daily(sparkpost.to_vec()));
    draw("sparkpost", "SparkPost's published stages, and what the scheduler sends", &[follow(plan)]);
    let mut hourly: Vec<u64> = vec![20, 28, 39, 55, 77, 108, 151, 211, 295, 413, 579, 810, 1_000, 1_587, 2_222, 3_111];
    while hourly.len() < 36 {
        hourly.push((hourly[hourly.len() - 1] as f64 * 1.4).round() as u64);
    }
    let stages = Stages::Daily(hourly.iter().map(|most| most * 24).collect());
    let pace = Pace { hours: 24, burst: 0 };
    let plan = Plan { pace, days: Days::Calendar, ..Plan::of("SendGrid's hours, 24 a day", stages) };
    draw("sendgrid", "SendGrid's published hourly caps, and what the scheduler sends", &[follow(plan)]);
    let stages = Stages::Growth { start: 50, factor: 1170, cap: 50_000 };
    let plan = Plan { days: Days::Calendar, ..Plan::of("SES: 50 000 a day in 45 days", stages) };
    draw("ses", "SES: 50 000 a day after 45 days, and what the scheduler sends", &[follow(plan)]);

    let stages = Stages::Growth { start: 200, factor: 1500, cap: 50_000 };
    let fixed = Plan { days: Days::Calendar, ..Plan::of("fixed", stages) };
    let adaptive = Plan {
        name: "adaptive".into(),
        days: Days::Sending,
        hold: Troubles { deferred: Some(50), ..Troubles::default() },
        regress: Troubles { deferred: Some(150), ..Troubles::default() },
        codes: vec!["TSS04".into()],
        ..fixed.clone()
    };
    let run = |plan: &Plan| Trial::of(plan.clone(), Volume::Steady(3_000), Model::Strict).run();
    draw("strict", "3 000 messages a day before a strict receiver", &[run(&adaptive), run(&fixed)]);

    // 60 days, 20 sources, 12 providers, 1,000,000 messages a day.
    let large = Trial { sources: 20, providers: 12, ..Trial::of(adaptive, Volume::Steady(1_000_000), Model::Typical) };
    println!("{}", table(&[large.run()]));
}
