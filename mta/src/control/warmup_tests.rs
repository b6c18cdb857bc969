//! What an operator may want of a climb, and what needs a person.

use std::time::Duration;

use super::*;

fn view(state: ClimbState, stage: u32) -> ClimbView {
    let stages: Arc<[u64]> = vec![100, 200, 400].into();
    let climb = Climb { state, stage, ..Climb::new(20_000, 20_010) };
    ClimbView {
        source: "ip-a".into(),
        provider: "google".into(),
        plan: "gentle".into(),
        allowance: climb.allowance(&stages),
        climb,
        stages,
        reserved: 0,
        figures: Figures::default(),
        day_ends: UNIX_EPOCH + Duration::from_secs(20_011 * 86_400),
        pacing: None,
    }
}

fn step(day: u32, rule: Rule, from: u32, to: u32) -> Step {
    let at = UNIX_EPOCH + Duration::from_secs(u64::from(day + 1) * 86_400);
    let (from, to) = ((ClimbState::Warming, from), (ClimbState::Warming, to));
    let figures = Figures { spent: 90, tried: 100, ..Figures::default() };
    Step { at, rule, reason: "because".into(), day, from, to, allowance: Some(100), figures, by: None }
}

fn ask(view: &ClimbView, verb: ClimbVerb, wish: WarmupWish) -> Result<ClimbWish, String> {
    wanted(view, verb, &wish).map_err(|refusal| refusal.to_string())
}

#[test]
fn a_wish_that_cannot_be_done_is_refused_with_what_would_be_right() {
    let none = WarmupWish::default;
    let climbing = view(ClimbState::Warming, 1);
    let stage = |stage| WarmupWish { stage: Some(stage), ..none() };
    assert_eq!(ask(&climbing, ClimbVerb::Set, stage(3)), Ok(ClimbWish::Set(2)));
    assert_eq!(ask(&climbing, ClimbVerb::Set, stage(4)).unwrap_err(), "there is no stage 4; plan gentle has stages 1 to 3");
    assert_eq!(ask(&climbing, ClimbVerb::Set, none()).unwrap_err(), "say which stage with `stage`, 1 to 3");
    assert_eq!(ask(&climbing, ClimbVerb::Pause, stage(1)).unwrap_err(), "`stage` does not go with this; leave it out");
    assert_eq!(ask(&climbing, ClimbVerb::Resume, none()).unwrap_err(), "ip-a at google is not paused: it is warming");
    assert_eq!(ask(&climbing, ClimbVerb::Unpin, none()).unwrap_err(), "ip-a at google is not pinned");
    assert_eq!(ask(&climbing, ClimbVerb::Skip, none()), Ok(ClimbWish::Skip));
    assert_eq!(ask(&climbing, ClimbVerb::Rewind, none()), Ok(ClimbWish::Rewind(1)));
    assert_eq!(ask(&climbing, ClimbVerb::Pin, WarmupWish { recipients: Some(0), ..none() }), Ok(ClimbWish::Pin(Some(0))));
    assert!(ask(&climbing, ClimbVerb::Pin, none()).unwrap_err().starts_with("say how many a day"));
    assert_eq!(
        ask(&view(ClimbState::Warming, 0), ClimbVerb::Rewind, none()).unwrap_err(),
        "ip-a at google is on its first stage"
    );
    assert_eq!(ask(&view(ClimbState::Warm, 2), ClimbVerb::Skip, none()).unwrap_err(), "ip-a at google is warm already");
    assert_eq!(ask(&view(ClimbState::Paused, 2), ClimbVerb::Pause, none()).unwrap_err(), "ip-a at google is paused already");
    assert_eq!(ask(&view(ClimbState::Paused, 2), ClimbVerb::Resume, none()), Ok(ClimbWish::Resume));
    assert_eq!(
        "stop".parse::<ClimbVerb>().unwrap_err().to_string().split(';').next(),
        Some("\"stop\" cannot be done to a climb")
    );
}

#[test]
fn plan_and_fact_lie_side_by_side_day_by_day() {
    let view = view(ClimbState::Holding, 1);
    let steps = [step(20_009, Rule::Utilisation, 1, 1), step(20_008, Rule::Over, 0, 0), step(20_008, Rule::Advance, 0, 1)];
    let ledger = [(20_008, 3, 60), (20_008, 20, 40), (20_009, 0, 7)];
    let days = day_rows(&view, (20_008, 20_008), &ledger, &steps);
    let words = |day: &ClimbDay| (day.day.clone(), day.planned, day.allowed, day.spent, day.rule.clone());
    assert_eq!(
        days.iter().map(words).collect::<Vec<_>>(),
        [
            ("2024-10-12".to_owned(), Some(100), Some(100), 100, Some("advance".to_owned())),
            ("2024-10-13".to_owned(), Some(200), Some(100), 7, Some("utilisation".to_owned())),
            ("2024-10-14".to_owned(), Some(400), Some(200), 0, None),
        ]
    );
    let row = row(&view, 20_008);
    assert_eq!((row.stage, row.planned_stage, row.stages, &*row.began), (2, 3, 3, "2024-10-12"));
    assert_eq!(super::row(&view, 19_000).planned_stage, 4, "it would be through");
}

#[test]
fn codes_beyond_the_allowance_stages_that_do_not_come_and_pauses_need_a_person() {
    let told = |view: &ClimbView, steps: &[Step]| attention(view, 20_000, steps);
    assert_eq!(told(&view(ClimbState::Warming, 1), &[step(20_001, Rule::Advance, 0, 1)]), Vec::<String>::new());
    let over = told(&view(ClimbState::Warming, 1), &[step(20_009, Rule::Over, 1, 1), step(20_001, Rule::Advance, 0, 1)]);
    assert!(
        over.len() == 1 && over[0].starts_with("ip-a at google: one-time codes went beyond") && over[0].contains("2024-10-13")
    );
    assert!(told(&view(ClimbState::Warming, 1), &[step(20_003, Rule::Over, 1, 1), step(20_001, Rule::Advance, 0, 1)]).is_empty());
    let stuck = told(&view(ClimbState::Holding, 0), &[step(20_009, Rule::Utilisation, 0, 0)]);
    assert_eq!(stuck, ["ip-a at google: no stage gained for 10 days; the last decision: because"]);
    let pause = Step { to: (ClimbState::Paused, 1), by: Some("uid 0: listed".into()), ..step(20_009, Rule::Operator, 1, 1) };
    let paused = told(&view(ClimbState::Paused, 1), &[pause]);
    assert!(paused[0].contains("paused since 2024-10-14T00:00:00.000Z, by uid 0: listed"), "{paused:?}");
}
