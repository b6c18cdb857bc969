//! Steps of a climb and days of a zone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;

fn plan() -> Plan {
    Plan {
        hold: Troubles { deferred: Some(50), refused: Some(10), unknown: Some(20), complained: Some(100) },
        regress: Troubles { deferred: Some(150), refused: Some(50), unknown: Some(50), complained: Some(300) },
        codes: vec!["TSS04".into(), "S3150".into()],
        regress_stages: 2,
        cool_days: 2,
        idle: Some(Idle { after_days: 7, cold_days: 30 }),
        ..Plan::of("p", Stages::Daily(vec![100, 200, 400, 800]))
    }
}

fn climb(state: ClimbState, stage: u32) -> Climb {
    Climb { state, stage, ..Climb::new(10, 20) }
}

fn well(spent: u64) -> Figures {
    Figures { spent, tried: spent, ..Figures::default() }
}

fn step(climb: &Climb, figures: Figures) -> (ClimbState, u32, Rule, String) {
    let decision = decide(&plan(), climb, &figures);
    assert_eq!(decision.next.day, climb.day + 1);
    (decision.next.state, decision.next.stage, decision.rule, decision.reason)
}

#[test]
fn a_day_that_was_used_and_went_well_brings_the_next_stage() {
    let (state, stage, rule, reason) = step(&climb(ClimbState::Warming, 1), well(180));
    assert_eq!((state, stage, rule), (ClimbState::Warming, 2, Rule::Advance));
    assert_eq!(reason, "180 of 200 used (90 %); warming, stage 2 to 3, 400 a day");
    let (state, stage, rule, reason) = step(&climb(ClimbState::Warming, 1), well(179));
    assert_eq!((state, stage, rule), (ClimbState::Holding, 1, Rule::Utilisation));
    assert_eq!(reason, "179 of 200 used (89.5 %), less than 90 %; holding, 200 a day");
    let (state, _, rule, reason) = step(&climb(ClimbState::Holding, 3), well(800));
    assert_eq!((state, rule), (ClimbState::Warm, Rule::Finish));
    assert_eq!(reason, "800 of 800 used (100 %) on the last stage; warm, no limit");
}

#[test]
fn calendar_days_count_whether_they_are_used_or_not() {
    let plan = Plan { days: Days::Calendar, idle: None, ..plan() };
    let decision = decide(&plan, &climb(ClimbState::Warming, 1), &well(0));
    assert_eq!((decision.next.stage, decision.rule), (2, Rule::Advance));
}

#[test]
fn trouble_holds_or_takes_back_and_a_small_sample_does_neither() {
    let with = |deferred, refused, unknown| Figures { spent: 190, tried: 200, deferred, refused, unknown, ..Figures::default() };
    for (figures, state, stage, rule) in [
        (with(9, 0, 0), ClimbState::Warming, 2, Rule::Advance),
        (with(10, 0, 0), ClimbState::Holding, 1, Rule::Deferred),
        (with(30, 0, 0), ClimbState::Regressed, 0, Rule::Deferred),
        (with(0, 2, 0), ClimbState::Holding, 1, Rule::Refused),
        (with(10, 10, 0), ClimbState::Regressed, 0, Rule::Refused),
        (with(0, 0, 4), ClimbState::Holding, 1, Rule::Unknown),
        (with(0, 0, 10), ClimbState::Regressed, 0, Rule::Unknown),
        (Figures { spent: 90, tried: 99, deferred: 50, ..Figures::default() }, ClimbState::Holding, 1, Rule::Utilisation),
    ] {
        let (next, at, why, reason) = step(&climb(ClimbState::Warming, 1), figures);
        assert_eq!((next, at, why), (state, stage, rule), "{figures:?}: {reason}");
    }
    let (.., reason) = step(&climb(ClimbState::Warming, 3), with(30, 0, 0));
    assert_eq!(reason, "30 of 200 deferred for reputation (15 %), 15 % is the limit; regressed, stage 4 to 2, 200 a day");
}

#[test]
fn complaints_count_against_what_was_accepted_from_a_larger_sample_on_and_one_is_none() {
    let with = |spent, over, complained| Figures { spent, over, complained, tried: spent + over, ..Figures::default() };
    let climb = Climb { stage: 3, ..climb(ClimbState::Warming, 3) };
    for (figures, state, rule) in [
        (with(2000, 0, 1), ClimbState::Warm, Rule::Finish),
        (with(2001, 0, 2), ClimbState::Warm, Rule::Finish),
        (with(2000, 0, 2), ClimbState::Holding, Rule::Complained),
        (with(1500, 501, 2), ClimbState::Warm, Rule::Finish),
        (with(1500, 500, 2), ClimbState::Holding, Rule::Complained),
        (with(2000, 0, 6), ClimbState::Regressed, Rule::Complained),
        (with(999, 0, 900), ClimbState::Warm, Rule::Finish),
    ] {
        let (next, _, why, reason) = step(&climb, figures);
        assert_eq!((next, why), (state, rule), "{figures:?}: {reason}");
    }
    let (.., reason) = step(&climb, with(8000, 0, 11));
    assert_eq!(reason, "11 of 8000 accepted complained about (0.137 %), 0.1 % is the limit; holding, 800 a day");
}

#[test]
fn a_named_reply_takes_stages_back_at_once_and_once_a_day_and_the_lower_stage_is_kept_for_some_days() {
    let reply = "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred";
    let struck = strike(&plan(), &climb(ClimbState::Warming, 3), reply).unwrap();
    assert_eq!((struck.next.state, struck.next.stage, struck.next.day), (ClimbState::Regressed, 1, 20));
    assert!(struck.reason.contains("TSS04") && struck.reason.ends_with("stage 4 to 2, 200 a day"), "{}", struck.reason);
    assert_eq!(strike(&plan(), &struck.next, reply), None);
    assert_eq!(strike(&plan(), &climb(ClimbState::Warming, 3), "451 4.3.0 later"), None);
    assert_eq!(strike(&plan(), &climb(ClimbState::Paused, 3), reply), None);
    let first = decide(&plan(), &struck.next, &well(200));
    assert_eq!((first.next.state, first.next.stage, first.rule), (ClimbState::Regressed, 1, Rule::Cool));
    let second = decide(&plan(), &first.next, &well(200));
    assert_eq!((second.next.state, second.next.stage, second.rule), (ClimbState::Warming, 2, Rule::Advance));
    assert!(strike(&plan(), &second.next, reply).is_some());
    let warm = strike(&plan(), &climb(ClimbState::Warm, 3), reply).unwrap();
    assert_eq!((warm.next.state, warm.next.stage), (ClimbState::Regressed, 1));
}

#[test]
fn who_does_not_send_loses_a_stage_a_day_and_then_all() {
    let mut now = climb(ClimbState::Warm, 3);
    let mut seen = Vec::new();
    for _ in 0..31 {
        now = decide(&plan(), &now, &well(0)).next;
        seen.push((now.state, now.stage));
    }
    assert_eq!(seen[5], (ClimbState::Warm, 3));
    assert_eq!(seen[6..9], [(ClimbState::Cooling, 2), (ClimbState::Cooling, 1), (ClimbState::Cooling, 0)]);
    assert_eq!(seen[30], (ClimbState::Cooling, 0));
    let again = decide(&plan(), &now, &well(100));
    assert_eq!((again.next.state, again.next.stage, again.next.idle), (ClimbState::Warming, 1, 0));
}

#[test]
fn what_an_operator_said_stands() {
    assert_eq!(step(&climb(ClimbState::Paused, 2), well(0)).0, ClimbState::Paused);
    let pinned = Climb { pinned: Some(250), ..climb(ClimbState::Warming, 2) };
    assert_eq!(pinned.allowance(&plan().stages.list()), Some(250));
    let (state, stage, rule, _) = step(&pinned, well(250));
    assert_eq!((state, stage, rule), (ClimbState::Warming, 2, Rule::Operator));
    let planned = Climb::new(22, 20);
    assert_eq!((planned.state, planned.allowance(&[100])), (ClimbState::Planned, Some(0)));
    let next = decide(&plan(), &planned, &well(0)).next;
    assert_eq!(next.state, ClimbState::Planned);
    assert_eq!(decide(&plan(), &next, &well(0)).next.state, ClimbState::Warming);
}

#[test]
fn growth_reaches_its_cap_and_never_stands_still() {
    let growth = |start, factor, cap| Stages::Growth { start, factor, cap }.list();
    assert_eq!(growth(20, 1400, 100), [20, 28, 39, 54, 76, 100]);
    assert_eq!(growth(1, 1010, 4), [1, 2, 3, 4]);
    assert_eq!(growth(5, 2000, 5), [5]);
    assert_eq!(growth(0, 2000, 0), [1]);
    assert_eq!(growth(1, 1001, u64::MAX).len(), STAGES_MAX);
}

#[test]
fn an_hour_has_its_share_and_at_least_the_burst() {
    let hourly = |hours, burst, allowance| Pace { hours, burst }.hourly(allowance);
    assert_eq!([hourly(24, 0, 480), hourly(24, 0, 481), hourly(1, 0, 480)], [20, 21, 480]);
    assert_eq!([hourly(10, 30, 200), hourly(10, 300, 200), hourly(10, 5, 200), hourly(24, 0, 0)], [30, 200, 20, 0]);
    let until = |hour| Pace { hours: 10, burst: 0 }.until(95, hour);
    assert_eq!([until(0), until(8), until(9), until(23)], [10, 90, 95, 95]);
}

fn at(secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(secs)
}

#[test]
fn a_day_of_a_zone_has_23_to_25_hours_and_one_beginning() {
    // Berlin in 2026: summer time from 29 March 01:00 UTC to 25 October 01:00 UTC.
    let (summer, winter) = (1_774_746_000, 1_792_890_000);
    let zone = Zone::new("Europe/Berlin", vec![(0, 3600), (summer as i64, 7200), (winter as i64, 3600)]);
    for (noon, hours) in [(summer, 23), (winter, 25), (summer + 5 * 86_400, 24), (summer - 86_400, 24)] {
        let day = zone.day(at(noon));
        assert_eq!(day.ends.duration_since(day.begins).unwrap(), Duration::from_secs(hours * 3600));
        assert_eq!(zone.day(day.begins), day);
        assert_eq!(zone.day(day.ends - Duration::from_secs(1)), day);
        assert_eq!(zone.day(day.ends).number, day.number + 1);
        assert_eq!(u64::from(day.hour(day.ends - Duration::from_secs(1))), hours - 1);
        assert_eq!(zone.numbered(day.number), day);
    }
    assert_eq!(Zone::utc().day(at(86_400 * 7 + 5)).number, 7);
    assert_eq!(Zone::utc().day(at(86_400 * 7 + 5)).begins, at(86_400 * 7));
}

#[test]
fn midnight_that_comes_twice_or_not_at_all_begins_one_day() {
    // Clocks go from 00:30 back to 23:30, and from 00:00 forward to 01:00.
    let back = Zone::new("back", vec![(0, 3600), (10 * 86_400 - 1800, 0)]);
    for secs in [0, 1799, 1800, 2400, 3600] {
        let day = back.day(at(10 * 86_400 - 3600 + secs));
        assert_eq!((day.number, day.begins, day.ends), (10, at(10 * 86_400 - 3600), at(11 * 86_400)));
    }
    assert_eq!(back.day(at(10 * 86_400 - 3601)).number, 9);
    let forth = Zone::new("forth", vec![(0, 0), (10 * 86_400, 3600)]);
    assert_eq!(forth.day(at(10 * 86_400)).begins, at(10 * 86_400));
    assert_eq!(forth.day(at(10 * 86_400)).ends, at(11 * 86_400 - 3600));
    assert_eq!(forth.day(at(10 * 86_400 - 1)).number, 9);
}
