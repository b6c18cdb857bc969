//! Plan files and who follows them.

use std::time::{Duration, UNIX_EPOCH};

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

#[test]
fn every_setting_of_a_plan_is_read() {
    let text = "[[plan]]\nname = \"gentle\"\nstart = 10\nfactor = 1.5\ncap = 100\nper = \"hour\"\nburst = 7\nzone = \"UTC\"\n\
        days = \"sending\"\nutilisation = 0.8\nhold_deferred = 0.05\nhold_refused = 0.01\nhold_unknown = 0.02\n\
        regress_deferred = 0.15\nregress_refused = 0.05\nregress_unknown = 0.1\nsample = 20\nregress_stages = 3\ncool_days = 4\n\
        codes = [\"TSS04\"]\noverflow_pool = \"default\"\noversend_otp = true\nfirst = [\"otp\"]\nidle_days = 5\ncold_days = 9\n";
    let plans = plans(&[("mine.toml".into(), text.to_owned())], &["default".to_owned()]).unwrap();
    let plan = Plan {
        pace: Pace { hours: 24, burst: 7 },
        utilisation: 800,
        hold: Troubles { deferred: Some(50), refused: Some(10), unknown: Some(20) },
        regress: Troubles { deferred: Some(150), refused: Some(50), unknown: Some(100) },
        sample: 20,
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
        load(&config, (Path::new("mta.toml"), &source), Path::new("")).map_err(|error| error.to_string())
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
