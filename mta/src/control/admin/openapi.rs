//! `GET /v1/openapi.json`: the API as an OpenAPI 3.1 document, made from the table and from the types of its handlers. A copy for
//! people who have no daemon at hand is `mta/docs/openapi.json`, which a test holds equal.

use std::sync::OnceLock;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::shapes::Shape;
use super::table::{Rule, table};
use super::{Admin, Operations, Role};
use crate::control::api::{Refusal, Trouble};

/// What holds of all paths.
const ABOUT: &str = "\
What the operator's command and the console ask of the daemon.

**Who asks.** On `data_dir/admin.sock` the kernel says who it is, and all is allowed. On the admin port: `Authorization: Bearer` \
with a token of `tradewind token add`, or the cookie of `POST /login`. Each path says the least role that may ask (`x-role`).

**Changes.** What a change is about (`x-about`) answers GET with an `ETag`. Over the network a change names with `If-Match` the one \
that was seen, or `*`: 428 without it, and 412 when it is not the present one, with what was changed since and by whom. A cookie needs \
`X-CSRF-Token` besides, which `GET /v1/session` tells. Each change is in `GET /v1/audit`; why it is made is said with `why` or \
`reason` in the body, else with the field `X-Why`.

**Versions.** Paths begin with the version. Within it paths, fields and words are added, and nothing is renamed, removed, or given \
another meaning: whoever reads answers passes over fields and words that they do not know. Requests with unknown fields are refused. \
What has to be otherwise is /v2, and /v1 stays beside it for a year.

Times are RFC 3339 in UTC. What goes wrong is a `Trouble` with a status that fits.";

/// The document, as it is served.
pub(super) async fn document<O: Operations>(_: State<Admin<O>>) -> Result<Response, Refusal> {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(text::<O>).clone();
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// The document, for people too.
pub(super) fn text<O: Operations>() -> String {
    // A value of our own making has no keys that are no text.
    let mut text = serde_json::to_string_pretty(&make::<O>()).unwrap_or_default();
    text.push('\n');
    text
}

fn make<O: Operations>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|it| {
        it.definitions_path = "/components/schemas".into();
        it.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let trouble = schemas.subschema_for::<Trouble>();
    let mut paths: Map<String, Value> = Map::new();
    for route in table::<O>() {
        let shape = (route.shape)(&mut schemas);
        let path = paths.entry(route.rule.path).or_insert_with(|| json!({}));
        path[route.rule.method.as_str().to_ascii_lowercase()] = operation(&route.rule, shape, &trouble);
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "tradewind", "version": "1", "description": ABOUT },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }, { "login": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "A token of `tradewind token add`." },
                "login": {
                    "type": "apiKey", "in": "cookie", "name": "tradewind",
                    "description": "Of `POST /login`; over TLS it is called `__Host-tradewind`.",
                },
            },
        },
    })
}

fn operation(rule: &Rule, shape: Shape, trouble: &Schema) -> Value {
    let mut parameters = Vec::new();
    for name in rule.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    }
    parameters.extend(shape.query.iter().flat_map(of_query));
    if rule.about.is_some() {
        let says = "Over the network: the ETag that was seen, or * for whichever there is.";
        parameters.push(json!({ "name": "If-Match", "in": "header", "description": says, "schema": { "type": "string" } }));
    }
    let content = match shape.answer {
        Some(schema) => json!({ "application/json": { "schema": schema } }),
        None if rule.path == "/v1/stream" => json!({ "text/event-stream": { "schema": { "type": "string" } } }),
        None => json!({ "application/json": {} }),
    };
    let mut good = json!({ "description": "Done.", "content": content });
    if !rule.edited.is_empty() || rule.about.is_some() {
        good["headers"] = json!({ "ETag": { "description": "The version.", "schema": { "type": "string" } } });
    }
    let troubles = json!({ "description": "Not done.", "content": { "application/json": { "schema": trouble } } });
    let mut operation = json!({
        "operationId": name_of(rule),
        "summary": rule.says,
        "tags": [rule.path.split('/').nth(2).unwrap_or_default()],
        "x-role": rule.role,
        "responses": { "200": good, "default": troubles },
    });
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    if let Some(about) = rule.about {
        operation["x-about"] = json!(about);
    }
    if let Some(body) = shape.body {
        operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": body } } });
    }
    operation
}

/// A query's fields are parameters each.
fn of_query(schema: &Schema) -> Vec<Value> {
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(fields) = schema.get("properties").and_then(Value::as_object) else { return Vec::new() };
    let parameter = |(name, field): (&String, &Value)| {
        let mut field = field.clone();
        let says = field.as_object_mut().and_then(|field| field.remove("description")).unwrap_or_default();
        let is_required = required.iter().any(|it| it == name);
        json!({ "name": name, "in": "query", "required": is_required, "description": says, "schema": field })
    };
    fields.iter().map(parameter).collect()
}

/// `post_members_member_suspend`.
fn name_of(rule: &Rule) -> String {
    let parts = rule.path.split('/').skip(2).map(|part| part.trim_matches(['{', '}']).replace(['.', '-'], "_"));
    let parts: Vec<String> = [rule.method.as_str().to_ascii_lowercase()].into_iter().chain(parts).collect();
    parts.join("_")
}

/// As the document has it.
impl schemars::JsonSchema for Role {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Role".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string", "enum": Role::ALL.map(Role::as_str) })
    }
}
