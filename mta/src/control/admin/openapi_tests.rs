//! The document says what the daemon does: every path of the table is in it and no other, real answers are as it says, secrets are
//! kept out of the audit, and the copy for people is the same.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::probe::Port;
use super::schema_check::{check, fits, resolved};
use super::table::Rule;
use super::*;
use crate::control::daemon::Daemon;
use crate::control::operations::tests::{DID, DOMAIN};

fn document() -> Value {
    serde_json::from_str(&openapi::text::<Daemon>()).unwrap()
}

#[test]
fn every_path_of_the_table_is_in_the_document_and_the_other_way() {
    let document = document();
    let of_table: BTreeSet<(String, String)> = (table::table::<Daemon>().iter())
        .map(|route| (route.rule.path.to_owned(), route.rule.method.as_str().to_ascii_lowercase()))
        .collect();
    let paths = document["paths"].as_object().unwrap();
    let of_document: BTreeSet<(String, String)> = paths
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(|it| (path.clone(), it.clone())))
        .collect();
    assert_eq!(of_table, of_document);
    let operations: Vec<_> = paths.values().flat_map(|methods| methods.as_object().unwrap().values()).collect();
    let names: BTreeSet<_> = operations.iter().map(|it| it["operationId"].as_str().unwrap()).collect();
    assert_eq!(names.len(), operations.len(), "each has a name of its own");
    for route in table::table::<Daemon>() {
        let Rule { method, path, about, secret, edited, .. } = &route.rule;
        let operation = &document["paths"][path][method.as_str().to_ascii_lowercase()];
        if let Some(about) = about {
            assert!(path.starts_with(about), "{path} is about the beginning of itself");
            assert!(table::table::<Daemon>().iter().any(|it| it.rule.path == *about && !it.rule.edited.is_empty()), "{about}");
        }
        assert!(edited.is_empty() || *method == "GET", "{path}");
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        let fields = resolved(&document, body)["properties"].as_object().cloned().unwrap_or_default();
        for name in fields.keys().filter(|name| ["pem", "password", "token", "secret"].iter().any(|it| name.contains(it))) {
            assert!(secret.contains(&name.as_str()), "{method} {path}: {name} must not be in the audit");
        }
    }
}

#[test]
fn the_copy_for_people_is_the_same() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let text = openapi::text::<Daemon>();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let is_same = std::fs::read_to_string(&path).unwrap_or_default() == text;
    assert!(is_same, "mta/docs/openapi.json is older than the code; run this test with UPDATE_DOCS=1, and look at what changed");
}

#[tokio::test]
async fn real_answers_are_as_the_document_says() {
    let port = Port::start("[[tier]]\nname = \"small\"\n").await;
    port.world.add(DID, DOMAIN).await.unwrap();
    let id = port.world.enqueue("b@big.example").await;
    let token = port.token("anna", Role::Admin).await;
    let served = port.json("GET /v1/openapi.json", &token, &[], "").await;
    assert_eq!(served.body, openapi::text::<Daemon>());
    let document = served.json();
    let (member, queued, id) = (format!("/v1/members/{DID}"), format!("/v1/queue/{id}"), json!({ "id": id.to_string() }));
    let plan = "[[plan]]\nname = \"mine\"\nstages = [10, 20]\n";
    let asked: Vec<(&str, String, Value)> = vec![
        ("GET /v1/status", String::new(), json!(null)),
        ("GET /v1/overview", String::new(), json!(null)),
        ("GET /v1/members", String::new(), json!(null)),
        ("POST /v1/members", String::new(), json!({ "did": DID, "domain": "two.example.test" })),
        ("GET /v1/members/{member}", member.clone(), json!(null)),
        ("POST /v1/members/{member}", member.clone(), json!({ "tier": "small" })),
        ("POST /v1/members/{member}/suspend", format!("{member}/suspend"), json!({})),
        ("POST /v1/members/{member}/resume", format!("{member}/resume"), json!({})),
        ("GET /v1/members/{member}/credentials", format!("{member}/credentials"), json!(null)),
        ("POST /v1/members/{member}/credentials/{id}/rotate", format!("{member}/credentials/1/rotate"), json!({})),
        ("DELETE /v1/members/{member}/credentials/{id}", format!("{member}/credentials/1"), json!(null)),
        ("GET /v1/replies", String::new(), json!(null)),
        ("GET /v1/keys", String::new(), json!(null)),
        ("POST /v1/keys/rotate", String::new(), json!({ "domain": DOMAIN })),
        ("GET /v1/queue", String::new(), json!(null)),
        ("GET /v1/queue/{id}", queued, json!(null)),
        ("POST /v1/queue/release", String::new(), id),
        ("GET /v1/shaping", String::new(), json!(null)),
        ("GET /v1/warmup/steps", String::new(), json!(null)),
        ("GET /v1/events", String::new(), json!(null)),
        ("GET /v1/plans", String::new(), json!(null)),
        ("POST /v1/plans/{name}/check", "/v1/plans/mine/check".into(), json!({ "text": plan.replace("20", "2") })),
        ("POST /v1/plans/{name}", "/v1/plans/mine".into(), json!({ "text": plan, "why": "a test" })),
        ("GET /v1/plans/{name}", "/v1/plans/gentle".into(), json!(null)),
        ("POST /v1/plans/{name}/undo", "/v1/plans/mine/undo".into(), json!({ "why": "a test" })),
        ("GET /v1/session", String::new(), json!(null)),
        ("POST /v1/tokens", String::new(), json!({ "name": "bea", "role": "read" })),
        ("GET /v1/tokens", String::new(), json!(null)),
        ("DELETE /v1/tokens/{name}", "/v1/tokens/bea".into(), json!(null)),
        ("GET /v1/audit", String::new(), json!(null)),
        ("DELETE /v1/members/{member}", member.clone(), json!(null)),
    ];
    for (of, at, body) in asked {
        let (method, path) = of.split_once(' ').unwrap();
        let at = if at.is_empty() { path } else { &at };
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let reply = port.json(&format!("{method} {at}"), &token, &[("If-Match", "*")], &text).await;
        assert_eq!(reply.status, 200, "{method} {at}: {reply:?}");
        let operation = &document["paths"][path][method.to_ascii_lowercase()];
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        check(&document, schema, &reply.json(), of);
        if !body.is_null() && operation["requestBody"].is_object() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            check(&document, schema, &body, &format!("body of {of}"));
        }
    }
    let trouble = port.json("GET /v1/queue/x", &token, &[], "").await;
    check(&document, &json!({ "$ref": "#/components/schemas/Trouble" }), &trouble.json(), "a refusal");
    port.world.stop().await;
}

#[test]
fn the_checker_finds_what_does_not_fit() {
    let document = json!({ "components": { "schemas": { "A": { "type": "string" } } } });
    let schema = json!({
        "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": { "a": { "$ref": "#/components/schemas/A" }, "b": { "type": ["integer", "null"], "minimum": 0 } },
    });
    for (value, good) in [
        (json!({ "a": "x" }), true),
        (json!({ "a": "x", "b": null }), true),
        (json!({ "a": 1 }), false),
        (json!({}), false),
        (json!({ "a": "x", "c": 1 }), false),
        (json!({ "a": "x", "b": -1 }), false),
        (json!([]), false),
    ] {
        assert_eq!(fits(&document, &schema, &value).is_ok(), good, "{value}");
    }
}
