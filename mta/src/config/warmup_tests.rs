//! Plan files and who follows them.

use std::time::{Duration, UNIX_EPOCH};

use scheduler::warmup::{Climb, ClimbState, Figures, Rule, decide, strike};

use super::*;

fn refused(text: &str) -> String {
    match plans(&[("mine.toml".into(), text.to_owned())], &["default".to_owned()]) {
        Ok(_) => panic!("taken: {text}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_shipped_plans_are_in_order_and_the_published_ones_are_as_published() {
    let plans = plans(&[], &[]).unwrap();
    let names: Vec<_> = plans.keys().map(String::as_str).collect();
    assert_eq!(names, ["gentle", "ipv6", "re-warm", "sendgrid", "ses", "sparkpost", "transactional"]);
    // Day by day they are held to the published tables by `mta/cli/tests/published.rs`.
    assert_eq!((plans["sendgrid"].stages.list().len(), plans["sendgrid"].days), (42, Days::Calendar));
    assert_eq!((plans["sparkpost"].stages.list().len(), plans["sparkpost"].days), (29, Days::Sending));
    let ses = plans["ses"].stages.list();
    assert_eq!((ses.last(), ses.len()), (Some(&50_000), 45));
}

/// A plan day by day, each of them used up and otherwise as `day` says: stage and rule of each decision.
fn climbs(plan: &Plan, day: impl Fn(u64) -> Figures) -> Vec<(ClimbState, u32, Rule)> {
    let (stages, mut climb, mut steps) = (plan.stages.list(), Climb::new(0, 0), Vec::new());
    while climb.state != ClimbState::Warm && steps.len() < 1000 {
        let most = climb.allowance(&stages).unwrap();
        assert_eq!(most, stages[climb.stage as usize]);
        let hourly = plan.pace.hourly(most);
        assert!(
            hourly <= most && hourly * u64::from(plan.pace.hours) >= most,
            "{}: the hours have no room for {most}",
            plan.name
        );
        let decision = decide(plan, &climb, &day(most));
        assert!(decision.reason.len() < 300, "{}", decision.reason);
        climb = decision.next;
        steps.push((climb.state, climb.stage, decision.rule));
    }
    steps
}

#[test]
fn every_shipped_plan_leads_through_all_of_its_stages_and_stops_for_what_it_names() {
    for plan in plans(&[], &[]).unwrap().values() {
        let well = |most: u64| Figures { spent: most, tried: most, ..Figures::default() };
        let steps = climbs(plan, well);
        let last = plan.stages.list().len() - 1;
        assert_eq!(steps.len(), last + 1, "{}: a stage a day", plan.name);
        assert!(
            steps[..last].iter().enumerate().all(|(day, step)| *step == (ClimbState::Warming, day as u32 + 1, Rule::Advance))
        );
        assert_eq!(steps[last], (ClimbState::Warm, last as u32, Rule::Finish), "{}", plan.name);
        // What it names holds it at exactly that share and takes stages back at the other one; just below it goes on.
        let Troubles { deferred, refused, unknown, complained } = plan.hold;
        let back = plan.regress;
        let none = || Figures { spent: 1_000_000_000, tried: 1_000_000_000, ..Figures::default() };
        let fields = [
            (Rule::Deferred, deferred, back.deferred, 1_000_000),
            (Rule::Refused, refused, back.refused, 1_000_000),
            (Rule::Unknown, unknown, back.unknown, 1_000_000),
            (Rule::Complained, complained, back.complained, 10_000),
        ];
        let climb = Climb { stage: last as u32 / 2, ..Climb::new(0, 5) };
        for (rule, hold, back, part) in fields {
            for (limit, state) in [(hold, ClimbState::Holding), (back, ClimbState::Regressed)] {
                let Some(limit) = limit else { continue };
                let with = |count: u64| {
                    let mut figures = none();
                    let field = match rule {
                        Rule::Deferred => &mut figures.deferred,
                        Rule::Refused => &mut figures.refused,
                        Rule::Unknown => &mut figures.unknown,
                        _ => &mut figures.complained,
                    };
                    *field = count;
                    let decision = decide(plan, &climb, &figures);
                    (decision.next.state, decision.rule)
                };
                assert_eq!(with(u64::from(limit) * part), (state, rule), "{}", plan.name);
                assert_ne!(with(u64::from(limit) * part - 1).0, state, "{}", plan.name);
            }
        }
        for code in &plan.codes {
            let struck = strike(plan, &climb, &format!("421 4.7.0 [{code}] later")).unwrap();
            assert_eq!((struck.next.state, struck.rule), (ClimbState::Regressed, Rule::Code));
        }
    }
}

#[test]
fn every_setting_of_a_plan_is_read() {
    let text = "[[plan]]\nname = \"gentle\"\nstart = 10\nfactor = 1.5\ncap = 100\nper = \"hour\"\nburst = 7\nzone = \"UTC\"\n\
        days = \"sending\"\nutilisation = 0.8\nhold_deferred = 0.05\nhold_refused = 0.01\nhold_unknown = 0.02\n\
        hold_complaints = 0.0005\nregress_complaints = 0.003\ncomplaint_sample = 500\nregress_deferred = 0.15\nregress_refused = 0.05\nregress_unknown = 0.1\nsample = 20\nregress_stages = 3\ncool_days = 4\n\
        codes = [\"TSS04\"]\noverflow_pool = \"default\"\noversend_otp = true\nfirst = [\"otp\"]\nidle_days = 5\ncold_days = 9\n";
    let plans = plans(&[("mine.toml".into(), text.to_owned())], &["default".to_owned()]).unwrap();
    let plan = Plan {
        pace: Pace { hours: 24, burst: 7 },
        utilisation: 800,
        hold: Troubles { deferred: Some(50), refused: Some(10), unknown: Some(20), complained: Some(50) },
        regress: Troubles { deferred: Some(150), refused: Some(50), unknown: Some(100), complained: Some(300) },
        sample: 20,
        complaint_sample: 500,
        regress_stages: 3,
        cool_days: 4,
        codes: vec!["TSS04".into()],
        overflow_pool: Some("default".into()),
        oversend_otp: true,
        first: [true, false, false],
        idle: Some(Idle { after_days: 5, cold_days: 9 }),
        ..Plan::of("gentle", Stages::Daily([10, 15, 22, 33, 50, 75, 100].iter().map(|stage| stage * 24).collect()))
    };
    assert_eq!(*plans["gentle"], plan, "and takes the place of the shipped one");
}

#[test]
fn what_is_wrong_in_a_plan_is_named_with_its_line() {
    let head = "[[plan]]\nname = \"p\"\n";
    for (rest, line, says) in [
        ("", 1, "has either stages, or start, factor and cap"),
        ("stages = [5]\nfactor = 2.0", 1, "has either stages"),
        ("stages = []", 3, "has 0 stages"),
        ("stages = [5, 5]", 3, "stages rise"),
        ("stages = [5]\nzone = \"Mars/Base\"", 4, "no zone of this machine"),
        ("stages = [5]\nhours = 25", 4, "24"),
        ("stages = [5]\nhold_deferred = 5", 4, "a share of 0.001 to 1"),
        ("stages = [5]\nhold_complaints = 0.00001", 4, "a share of 0.0001 to 1"),
        ("stages = [5]\nhold_complaints = 0.003\nregress_complaints = 0.003", 4, "never hold"),
        ("stages = [5]\nhold_refused = 0.2\nregress_refused = 0.1", 4, "never hold"),
        ("stages = [5]\ndays = \"calendar\"\nutilisation = 0.5", 5, "counts only with days"),
        ("stages = [5]\nper = \"hour\"\nhours = 4", 5, "does not go with per"),
        ("stages = [5]\noverflow_pool = \"none\"", 4, "no [[pool]] is named"),
        ("stages = [5]\nfirst = [\"spam\"]", 4, "is no class"),
        ("stages = [5]\ncold_days = 5", 4, "only after idle_days"),
        ("start = 5\nfactor = 1.0\ncap = 9", 4, "choose 1.01 to 10"),
        ("stages = [5]\nspeed = 3", 4, "speed"),
    ] {
        let error = refused(&format!("{head}{rest}\n"));
        assert!(error.contains(says) && error.contains(&format!("mine.toml:{line}")), "{rest}: {error}");
    }
    assert!(refused(&format!("{head}stages = [5]\n{head}stages = [6]\n")).contains("twice"));
}

#[test]
fn a_source_follows_a_plan_with_all_providers_or_with_one() {
    let base = super::super::describe();
    let base = base.split("[[climb]]").next().unwrap();
    let read = |climbs: &str| {
        let text = format!("{base}\n{climbs}");
        let config = Config::parse(Path::new("mta.toml"), &text).unwrap();
        let source = Source::parse(&text).unwrap();
        load(&config, (Path::new("mta.toml"), &source)).map_err(|error| error.to_string())
    };
    let all = "[[climb]]\nsource = \"ip-a\"\nplan = \"gentle\"\n";
    let one = "[[climb]]\nsource = \"ip-a\"\nprovider = \"google\"\nplan = \"ses\"\nstart = 2026-11-26\n";
    let climbs = read(&format!("{all}{one}")).unwrap();
    assert!(climbs.len() > 5 && climbs.iter().any(|climb| &*climb.provider == "other"));
    for climb in climbs.iter() {
        let google = &*climb.provider == "google";
        assert_eq!((&*climb.plan.name, climb.start), if google { ("ses", 20_783) } else { ("gentle", 0) });
    }
    assert_eq!(read(&format!("{one}{all}")).unwrap(), climbs);
    for (text, says) in [
        (one.replace("ip-a", "ip-z"), "no [[source]] is named"),
        (one.replace("google", "nobody"), "no provider is named"),
        (one.replace("ses", "fast"), "there are: gentle, ipv6"),
        (one.replace("2026-11-26", "2026-11-26T10:00:00"), "without a time"),
        (format!("{one}{one}"), "already"),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.contains(says) && error.contains("mta.toml:"), "{error}");
    }
}

#[test]
fn a_zone_of_this_machine_has_its_days() {
    // Only where the machine has zones at all.
    let Some(zone) = zone("Europe/Berlin") else { return };
    let day = zone.day(UNIX_EPOCH + Duration::from_secs(1_792_890_000));
    assert_eq!(day.ends.duration_since(day.begins).unwrap(), Duration::from_secs(25 * 3600));
}
