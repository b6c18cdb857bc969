//! Types and words are those of the lexicons.

use atproto::sending::*;
use serde_json::{Value, json};

use crate::explain::lexicons::{hold, hold_required, lexicon};

fn did() -> atproto::Did {
    "did:plc:7tcx4xxjwidnicieiwtrpyal".parse().unwrap()
}

fn report() -> Report {
    let counts = Counts { complaints: Some(1), spam_traps: Some(0), ..Counts::default() };
    Report { did: did(), day: Day::from_number(20_783), revision: 7, counts }
}

#[test]
fn what_mtas_say_and_hear_is_what_the_lexicons_say() {
    let (defs, refused) = (lexicon("defs"), RefusedReport { did: did(), day: report().day, reason: Wrong::TooOld });
    for name in ["reportSending", "getStanding"] {
        assert_eq!(lexicon(name)["id"], format!("coop.tradewind.{name}"));
    }
    assert_eq!((REPORT_SENDING, GET_STANDING), ("coop.tradewind.reportSending", "coop.tradewind.getStanding"));
    let schema = |name: &str, way: &str| lexicon(name)["defs"]["main"][way]["schema"].clone();
    let sending = of(&Sending { reports: vec![report()] });
    let reported = of(&Reported { taken: 1, unchanged: 2, refused: vec![refused] });
    let doubt = Doubt { kind: DoubtKind::SpamTraps, severity: Severity::Watch, since: report().day, of: 9, count: 1 };
    let standings = of(&Standings { standings: vec![Standing { did: did(), doubts: vec![doubt] }] });
    hold(&sending, &schema("reportSending", "input"), &defs, "input");
    hold(&reported, &schema("reportSending", "output"), &defs, "output");
    hold(&standings, &schema("getStanding", "output"), &defs, "output");
    hold_required::<Sending>(&sending, &schema("reportSending", "input"));
    hold_required::<Reported>(&reported, &schema("reportSending", "output"));
    hold_required::<Standings>(&standings, &schema("getStanding", "output"));
    let defs = &defs["defs"];
    hold_required::<Report>(&sending["reports"][0], &defs["sendingReport"]);
    hold_required::<RefusedReport>(&reported["refused"][0], &defs["refusedReport"]);
    hold_required::<Standing>(&standings["standings"][0], &defs["standing"]);
    hold_required::<Doubt>(&standings["standings"][0]["doubts"][0], &defs["doubt"]);
}

fn of(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

#[test]
fn every_word_and_bound_is_in_the_lexicon() {
    let defs = lexicon("defs")["defs"].clone();
    let words = |def: &str, field: &str| defs[def]["properties"][field]["knownValues"].clone();
    let kinds = [DoubtKind::Complaints, DoubtKind::Failures, DoubtKind::SpamTraps, DoubtKind::Suspended];
    assert_eq!(words("doubt", "kind"), json!(kinds));
    assert_eq!(json!(kinds), json!(kinds.map(DoubtKind::as_str)));
    assert_eq!(words("doubt", "severity"), json!([Severity::Watch, Severity::Pause]));
    let reasons = [Wrong::UnknownAccount, Wrong::TooOld, Wrong::InTheFuture, Wrong::OutOfRange];
    assert_eq!(words("refusedReport", "reason"), json!(reasons));
    let input = &lexicon("reportSending")["defs"]["main"]["input"]["schema"]["properties"]["reports"];
    assert_eq!(input["maxLength"], REPORTS_MAX);
    let parameters = &lexicon("getStanding")["defs"]["main"]["parameters"]["properties"]["dids"];
    assert_eq!(parameters["maxLength"], DIDS_MAX);
    for (name, field) in defs["sendingReport"]["properties"].as_object().unwrap() {
        if field["type"] == "integer" && name != "revision" {
            assert_eq!(field["maximum"], Value::from(COUNT_MAX), "{name}");
        }
    }
}
