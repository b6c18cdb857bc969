//! How long large trials take, and whether deliveries with many recipients come to the same as one for each message:
//! `cargo run --release --example large`, or with `exact` at its end for the second question, which takes minutes.

use std::time::Instant;

use scheduler::warmup::{Plan, Stages, Troubles};
use simulate::{Model, Report, Trial, Volume};

fn main() {
    let exact = std::env::args().any(|word| word == "exact");
    let stages = Stages::Growth { start: 200, factor: 1500, cap: 50_000 };
    let plan = Plan {
        hold: Troubles { deferred: Some(50), ..Troubles::default() },
        regress: Troubles { deferred: Some(150), ..Troubles::default() },
        codes: vec!["TSS04".into()],
        ..Plan::of("adaptive", stages)
    };
    let month = |volume| Trial { days: 30, ..Trial::of(plan.clone(), Volume::Steady(volume), Model::STRICT) };
    let large = |model| Trial { sources: 20, providers: 12, ..Trial::of(plan.clone(), Volume::Steady(1_000_000), model) };
    let trials = [
        ("30 days, 3000 a day", month(3_000)),
        ("30 days, 20,000 a day", month(20_000)),
        ("30 days, 100,000 a day", month(100_000)),
        ("60 days, 20 sources, 12 providers, 1,000,000 a day, typical", large(Model::Typical)),
        ("the same, strict", large(Model::STRICT)),
    ];
    for (what, trial) in trials {
        let scaled = timed(what, &trial);
        if exact && scaled.grain > 1 {
            compare(&scaled, &timed("  one delivery a message", &Trial { deliveries: u64::MAX, ..trial }));
        }
    }
}

fn timed(what: &str, trial: &Trial) -> Report {
    let began = Instant::now();
    let report = trial.run();
    let (took, sent, deferred) = (began.elapsed(), report.total(|day| day.sent), report.total(|day| day.deferred));
    println!("{what}: {:.2} s, {sent} sent, {deferred} deferred", took.as_secs_f64());
    report
}

/// Days on which they differ by more than 2 %, and the largest difference of what was sent so far.
fn compare(scaled: &Report, exact: &Report) {
    let (mut sums, mut most) = ((0, 0), 0f64);
    for (one, other) in scaled.days.iter().zip(&exact.days) {
        sums = (sums.0 + one.sent, sums.1 + other.sent);
        most = most.max(100.0 * (sums.0 as f64 / sums.1.max(1) as f64 - 1.0).abs());
    }
    println!(
        "  sent so far, any day: at most {most:.2} % apart; all: {:+.2} %",
        100.0 * (sums.0 as f64 / sums.1.max(1) as f64 - 1.0)
    );
    for (one, other) in scaled.days.iter().zip(&exact.days) {
        let apart = 100.0 * (one.sent as f64 - other.sent as f64) / other.sent.max(1) as f64;
        let Some((a, b)) = one.allowance.zip(other.allowance).filter(|_| apart.abs() > 2.0) else { continue };
        println!(
            "  day {}: {} and {} sent ({apart:+.2} %), {a} and {b} allowed, {} and {} deferred",
            one.day, one.sent, other.sent, one.deferred, other.deferred
        );
    }
}
