//! Trials of whole plans: what an adaptive plan is worth before a strict receiver. Plans that others have published are held to their
//! tables in `mta/cli/tests/published.rs`.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use scheduler::warmup::{Climb, ClimbState, Days, Plan, Stages, Troubles};
use simulate::{Model, Report, Trial, Volume, table};

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
    let run = |plan| Trial::of(plan, Volume::Steady(3_000), Model::STRICT).run();
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
fn a_climb_goes_on_from_where_it_stands_at_the_providers_that_there_are() {
    let plan = Plan::of("p", Stages::Daily(vec![100, 1_000, 10_000]));
    let climb = |state, stage| Climb { state, stage, pinned: None, ..Climb::new(20_000, 20_500) };
    let at = |provider: &str, climb| ("ip-a".into(), provider.into(), climb);
    let trial = Trial {
        days: 2,
        providers: 3,
        names: vec!["ip-a".into()],
        mix: vec![("mine".into(), 600), ("theirs".into(), 300), ("rest".into(), 100)],
        standing: vec![at("mine", climb(ClimbState::Warming, 2)), at("theirs", climb(ClimbState::Paused, 1))],
        ..Trial::of(plan, Volume::Steady(2_000), Model::Open)
    };
    let report = trial.run();
    // A paused one sends nothing, a new one what its first stage says, the third has more than there is.
    let first = &report.days[0];
    assert_eq!(first.state, "2 warming, 1 paused");
    assert!((1_250..=1_350).contains(&first.sent), "{first:?}");
    assert_eq!(Trial { standing: Vec::new(), ..trial }.run().days[0].allowance, Some(300));
}

#[test]
fn a_volume_that_cannot_sustain_its_sources_is_told_so_and_how_many_it_can() {
    let plan = Plan::of("small", Stages::Daily(vec![100, 1_000]));
    let report = Trial { days: 4, sources: 5, ..Trial::of(plan, Volume::Steady(2_000), Model::Open) }.run();
    let text = report.outlook.join("\n");
    assert!(text.contains("cannot sustain 5 sources") && text.contains("google 2"), "{text}");
}

/// What was sent up to any day differs by so much of what was sent in all, at most.
fn apart(one: &Report, other: &Report) -> f64 {
    let (mut sums, mut most) = ((0f64, 0f64), 0f64);
    for (one, other) in one.days.iter().zip(&other.days) {
        sums = (sums.0 + one.sent as f64, sums.1 + other.sent as f64);
        most = most.max((sums.0 - sums.1).abs());
    }
    most / sums.1.max(1.0)
}

/// Before typical receivers only: a strict one punishes eleven tries above its limit and not ten, and how many there are depends on how
/// large deliveries are.
#[test]
fn deliveries_with_many_recipients_come_to_the_same_as_one_for_each_message() {
    let plan = adaptive(200, 1500);
    let volume = Volume::Steady(20_000);
    let exact = Trial { days: 12, sources: 2, providers: 3, deliveries: u64::MAX, ..Trial::of(plan, volume, Model::Typical) };
    let (scaled, exact) = (Trial { deliveries: 2_000, ..exact.clone() }.run(), exact.run());
    assert!(scaled.grain >= 10 && exact.grain == 1, "{} {}", scaled.grain, exact.grain);
    let apart = apart(&scaled, &exact);
    assert!(apart < 0.02, "{apart}\n{}", table(&[scaled, exact]));
}
