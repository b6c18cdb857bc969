use std::time::Duration;

use serde_json::json;
use vouch::{Binding, LabelSeen, NamedBy, Outcome, Report, SignatureReport, Verdict, When};

use super::xrpc::ENCODING;
use crate::explain::lexicons::{hold, hold_required, lexicon};

fn report() -> Report {
    let datetime = |secs| atproto::datetime(std::time::UNIX_EPOCH + Duration::from_secs(secs));
    Report {
        verdict: Verdict::Vouched,
        asked_at: datetime(2),
        from: Some("a@member.example".into()),
        domain: Some("member.example".into()),
        did: Some("did:plc:alice".parse().unwrap()),
        named_by: Some(NamedBy::SignedField),
        signatures: vec![SignatureReport {
            domain: "member.example".into(),
            selector: "s1".into(),
            algorithm: "rsa-sha256".into(),
            result: Outcome::Pass,
            why: Some("why".into()),
            key_bits: Some(2048),
            aligned: true,
            signed_at: Some(datetime(1)),
            expires_at: Some(datetime(3)),
            weak: vec!["weak".into()],
        }],
        signatures_passed_over: 1,
        unsigned_fields: vec!["Reply-To".into()],
        binding: Some(Binding {
            domain: "member.example".into(),
            labeler: "did:web:labeler.example".parse().unwrap(),
            attested: When::Yes,
            since: Some(datetime(0)),
            selectors: vec!["s1".into()],
            labels: vec![LabelSeen {
                val: "verified-mail-operator".into(),
                cts: datetime(0),
                exp: Some(datetime(9)),
                in_force: true,
            }],
            at_signature: When::Yes,
        }),
        reasons: vec!["reason".into()],
        proves: vec!["this".into()],
        does_not_prove: vec!["that".into()],
    }
}

#[test]
fn what_is_answered_is_what_the_lexicon_says() {
    let lexicon = lexicon("verifyMessage");
    assert_eq!(lexicon["id"], "coop.tradewind.verifyMessage");
    let main = &lexicon["defs"]["main"];
    assert_eq!((&main["type"], &main["input"]["encoding"]), (&json!("procedure"), &json!(ENCODING)));
    let schema = &main["output"]["schema"];
    let value = serde_json::to_value(report()).unwrap();
    hold(&value, schema, &lexicon, "verifyMessage");
    hold_required::<Report>(&value, schema);
    hold_required::<SignatureReport>(&value["signatures"][0], &lexicon["defs"]["signature"]);
    hold_required::<Binding>(&value["binding"], &lexicon["defs"]["binding"]);
    hold_required::<LabelSeen>(&value["binding"]["labels"][0], &lexicon["defs"]["labelSeen"]);
    let known = |def: &serde_json::Value, name: &str| def["properties"][name]["knownValues"].clone();
    assert_eq!(known(schema, "verdict"), json!([Verdict::Vouched, Verdict::NotVouched, Verdict::Unknown]));
    assert_eq!(known(schema, "namedBy"), json!([NamedBy::SignedField, NamedBy::Domain]));
    let outcomes = [Outcome::Pass, Outcome::Policy, Outcome::Fail, Outcome::Permerror, Outcome::Temperror];
    assert_eq!(known(&lexicon["defs"]["signature"], "result"), json!(outcomes));
    for name in ["attested", "atSignature"] {
        assert_eq!(known(&lexicon["defs"]["binding"], name), json!([When::Yes, When::No, When::Unknown]));
    }
}
