use serde_json::json;

use super::lexicons::{hold, hold_required, lexicon};
use super::*;
use crate::judge::{Record, Status as Outcome};

fn did() -> Did {
    "did:plc:7tcx4xxjwidnicieiwtrpyal".parse().unwrap()
}

fn check() -> Check {
    Check {
        kind: Kind::Dmarc,
        name: "_dmarc.member.example".into(),
        status: Outcome::Fail,
        seen: vec!["v=DMARC1; p=none <script>alert(1)</script>".into()],
        why: Some("p=none & \"more\"".into()),
        publish: Some(Record { name: "_dmarc.member.example".into(), kind: "TXT".into(), value: "v=DMARC1; p=reject".into() }),
    }
}

fn status() -> Status {
    Status {
        did: did(),
        labels: vec![LabelStatus { val: "verified-mail-operator".into(), cts: datetime(0), exp: Some(datetime(1)) }],
        domains: vec![DomainStatus {
            domain: "xn--bcher-kva.example".into(),
            state: State::Fail,
            carries_labels: true,
            relay_member: false,
            checked_at: Some(datetime(1)),
            next_check_at: Some(datetime(2)),
            failures: 2,
            unconfirmed_since: Some(datetime(1)),
            checks: vec![check()],
        }],
    }
}

fn run() -> DryRun {
    DryRun { domain: "member.example".into(), did: Some(did()), verdict: Verdict::Fail, attested: false, checks: vec![check()] }
}

#[test]
fn what_is_answered_is_what_the_lexicons_say() {
    let defs = lexicon("defs");
    for name in ["defs", "getStatus", "checkDomain"] {
        assert_eq!(lexicon(name)["id"], format!("coop.tradewind.{name}"));
        assert_eq!(lexicon(name)["lexicon"], 1);
    }
    let output = |name: &str| lexicon(name)["defs"]["main"]["output"]["schema"].clone();
    let (status, run) = (serde_json::to_value(status()).unwrap(), serde_json::to_value(run()).unwrap());
    hold(&status, &output("getStatus"), &defs, "getStatus");
    hold(&run, &output("checkDomain"), &defs, "checkDomain");
    hold_required::<Status>(&status, &output("getStatus"));
    hold_required::<DryRun>(&run, &output("checkDomain"));
    hold_required::<DomainStatus>(&status["domains"][0], &defs["defs"]["domainStatus"]);
    hold_required::<LabelStatus>(&status["labels"][0], &defs["defs"]["labelStatus"]);
    hold_required::<Check>(&run["checks"][0], &defs["defs"]["check"]);
    hold_required::<Record>(&run["checks"][0]["publish"], &defs["defs"]["record"]);
}

#[test]
fn every_word_that_is_answered_is_in_the_lexicon() {
    let defs = lexicon("defs")["defs"].clone();
    let kinds = [
        Kind::Identity,
        Kind::Pds,
        Kind::Record,
        Kind::Control,
        Kind::Mx,
        Kind::Spf,
        Kind::SpfSources,
        Kind::Dkim,
        Kind::Dmarc,
        Kind::Ptr,
        Kind::MtaSts,
        Kind::TlsRpt,
        Kind::Bimi,
        Kind::Resolvers,
    ];
    assert_eq!(defs["check"]["properties"]["kind"]["knownValues"], json!(kinds));
    let outcomes = [Outcome::Pass, Outcome::Warn, Outcome::Fail, Outcome::Unknown, Outcome::Note];
    assert_eq!(defs["check"]["properties"]["status"]["knownValues"], json!(outcomes));
    let states = [State::New, State::Pass, State::Fail, State::Unknown];
    assert_eq!(defs["domainStatus"]["properties"]["state"]["knownValues"], json!(states));
    let verdicts = [Verdict::Pass, Verdict::Fail, Verdict::Unknown];
    let schema = &lexicon("checkDomain")["defs"]["main"]["output"]["schema"];
    assert_eq!(schema["properties"]["verdict"]["knownValues"], json!(verdicts));
    let parameters = &lexicon("checkDomain")["defs"]["main"]["parameters"]["properties"];
    assert_eq!(parameters["selectors"]["maxLength"], SELECTORS_MAX);
}

#[test]
fn a_page_says_all_of_it_and_lets_no_strangers_markup_through() {
    for page in [page::account(&status()), page::domain("xn--bcher-kva.example", &[status()]), page::dry_run(&run())] {
        assert!(page.starts_with("<!doctype html><html lang=\"en\">"));
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("p=none &lt;script&gt;alert(1)&lt;/script&gt;") && page.contains("p=none &amp; &quot;more&quot;"));
        assert!(page.contains("Publish TXT <code>v=DMARC1; p=reject</code> at <code>_dmarc.member.example</code>"));
        // For whoever hears the page rather than sees it: headings, captions, heads of columns and rows, labels of fields; no
        // meaning by colour.
        assert_eq!(page.matches("<h1>").count(), 1);
        assert!(page.contains("<caption>") && page.contains("scope=\"col\"") && page.contains("scope=\"row\""));
        assert_eq!(page.matches("<input").count(), page.matches("<label>").count());
        assert!(page.contains("<td>wrong</td>"));
    }
    let account = page::account(&status());
    assert!(account.contains("bücher.example (xn--bcher-kva.example)"), "{account}");
    assert!(account.contains("verified-mail-operator") && account.contains("The labels stand for now"));
    // What nobody could confirm: while labels stand, and when they do not any more.
    for (carries_labels, said) in [(true, "The labels stand for now"), (false, "so that this domain carries no label")] {
        let mut silent = status();
        (silent.domains[0].state, silent.domains[0].carries_labels) = (State::Unknown, carries_labels);
        let page = page::account(&silent);
        assert!(page.contains(said) && page.contains("No look has confirmed it since 1970-01-01T00:00:00.001Z."), "{page}");
    }
    let dressed = page::trouble("a\u{202e}b");
    assert!(!dressed.contains('\u{202e}'));
}

#[test]
fn a_request_is_put_into_its_one_spelling_or_refused() {
    let request = |domain: &str, selectors: &[&str]| {
        let selectors = selectors.iter().map(|it| (*it).to_owned()).collect();
        sound(Request { domain: domain.into(), did: None, selectors, relay: false })
    };
    assert_eq!(request("Bücher.Example.", &["s1"]).unwrap().domain, "xn--bcher-kva.example");
    for (domain, selectors) in [
        ("", &[][..]),
        ("localhost", &[]),
        ("192.0.2.1", &[]),
        ("a_b.example", &[]),
        ("member.example", &["a b"]),
        ("member.example", &["s"; 11]),
    ] {
        assert!(request(domain, selectors).is_err(), "{domain} {selectors:?}");
    }
}
