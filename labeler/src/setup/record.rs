//! The records: what each label means, in words; lexicons.

use atproto::lexicon::CooperativeLabel;
use serde_json::{Value, json};

/// `app.bsky.labeler.service`: the values, and what each means. They inform; no post is hidden because of how somebody sends mail.
pub(super) fn service(created_at: &str) -> Value {
    let definition = |value: CooperativeLabel| {
        let (name, description) = words(value);
        json!({
            "identifier": value.as_str(),
            "severity": "inform",
            "blurs": "none",
            "defaultSetting": "ignore",
            "adultOnly": false,
            "locales": [{ "lang": "en", "name": name, "description": description }],
        })
    };
    json!({
        "$type": "app.bsky.labeler.service",
        "policies": {
            "labelValues": CooperativeLabel::ALL.map(CooperativeLabel::as_str),
            "labelValueDefinitions": CooperativeLabel::ALL.map(definition),
        },
        "createdAt": created_at,
    })
}

fn words(value: CooperativeLabel) -> (&'static str, &'static str) {
    match value {
        CooperativeLabel::VerifiedMailOperator => (
            "Verified mail operator",
            "This account runs mail for a domain: the domain points back at it, and its MX, SPF, DKIM and DMARC records are in order.",
        ),
        CooperativeLabel::RelayMember => {
            ("Relay member", "This verified operator asked to send through the co-op's relay, and may.")
        }
        CooperativeLabel::CleanSender => {
            ("Clean sender", "What this verified operator sends is wanted: few bounces, few complaints, for a while.")
        }
    }
}

/// The record of a lexicon, and its key: the lexicon's name. None if it is not one.
pub(super) fn lexicon(mut lexicon: Value) -> Option<(String, Value)> {
    let id = lexicon["id"].as_str().filter(|id| id.split('.').count() >= 3)?.to_owned();
    if lexicon["lexicon"] != 1 || !lexicon["defs"].is_object() {
        return None;
    }
    lexicon["$type"] = "com.atproto.lexicon.schema".into();
    Some((id, lexicon))
}

/// Where DNS says who publishes the lexicons of a name's group (lexicon spec, "Lexicon Publication and Resolution").
pub(super) fn lexicon_name(id: &str) -> String {
    let mut labels: Vec<&str> = id.split('.').collect();
    labels.pop();
    labels.reverse();
    format!("_lexicon.{}", labels.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_defined() {
        let record = service("2026-11-23T09:42:17.771Z");
        let values = record["policies"]["labelValues"].as_array().unwrap();
        let defined: Vec<_> =
            record["policies"]["labelValueDefinitions"].as_array().unwrap().iter().map(|of| &of["identifier"]).collect();
        assert_eq!(defined, values.iter().collect::<Vec<_>>());
        assert_eq!(values.len(), 3);
    }

    #[test]
    fn lexicons_are_named_by_who_holds_their_domain() {
        assert_eq!(lexicon_name("email.atmos.attestation"), "_lexicon.atmos.email");
        let (id, record) = lexicon(json!({ "lexicon": 1, "id": "coop.tradewind.getStatus", "defs": {} })).unwrap();
        assert_eq!((id.as_str(), &record["$type"]), ("coop.tradewind.getStatus", &json!("com.atproto.lexicon.schema")));
        for wrong in
            [json!({}), json!([]), json!({ "lexicon": 1, "id": "x", "defs": {} }), json!({ "lexicon": 1, "id": "a.b.c" })]
        {
            assert_eq!(lexicon(wrong), None);
        }
    }
}
