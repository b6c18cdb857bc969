//! Holds answers against the OpenAPI document, for tests: those of the API, and those of the seeded world, which include this file.

use serde_json::{Value, json};

/// What a reference leads to.
pub(crate) fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(at) => document.pointer(at.trim_start_matches('#')).unwrap_or_else(|| panic!("{at}")),
        None => schema,
    }
}

/// Holds a value against a schema: as much of JSON Schema as the document uses; a word that is not known here fails.
pub(crate) fn check(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Err(why) = fits(document, schema, value) {
        panic!("{at}: {why}\n{value}");
    }
}

/// The same as an answer.
pub(crate) fn fits(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let fields = match schema {
        Value::Bool(true) => return Ok(()),
        other => other.as_object().ok_or_else(|| format!("{other} is no schema"))?,
    };
    let must = |good: bool, why: &dyn Fn() -> String| if good { Ok(()) } else { Err(why()) };
    for (word, said) in fields {
        let list = said.as_array().cloned().unwrap_or_default();
        match word.as_str() {
            "description" | "format" | "default" | "title" => {}
            "$ref" => fits(document, resolved(document, schema), value)?,
            "type" => {
                let is = |name: &Value| match name.as_str().unwrap() {
                    "string" => value.is_string(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "number" => value.is_number(),
                    "boolean" => value.is_boolean(),
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "null" => value.is_null(),
                    other => panic!("type {other}"),
                };
                must(list.iter().any(is) || said.is_string() && is(said), &|| format!("{value} is not {said}"))?;
            }
            "properties" => {
                for (name, of) in said.as_object().unwrap() {
                    if let Some(field) = value.get(name) {
                        fits(document, of, field).map_err(|why| format!("{name}: {why}"))?;
                    }
                }
            }
            "required" => {
                let missing = list.iter().find(|name| value.is_object() && value.get(name.as_str().unwrap()).is_none());
                must(missing.is_none(), &|| format!("{missing:?} is missing"))?;
            }
            "additionalProperties" => {
                let known = fields.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
                for (name, field) in value.as_object().into_iter().flatten().filter(|(name, _)| !known.contains_key(*name)) {
                    must(*said != json!(false), &|| format!("{name} is not known"))?;
                    fits(document, said, field)?;
                }
            }
            "items" => value.as_array().into_iter().flatten().try_for_each(|item| fits(document, said, item))?,
            "minItems" => must(value.as_array().is_none_or(|it| it.len() as u64 >= said.as_u64().unwrap()), &|| "few".into())?,
            "maxItems" => must(value.as_array().is_none_or(|it| it.len() as u64 <= said.as_u64().unwrap()), &|| "many".into())?,
            "minimum" => must(value.as_f64().is_none_or(|it| it >= said.as_f64().unwrap()), &|| format!("{value} is little"))?,
            "maximum" => must(value.as_f64().is_none_or(|it| it <= said.as_f64().unwrap()), &|| format!("{value} is much"))?,
            "enum" => must(list.contains(value), &|| format!("{value} is none of {said}"))?,
            "const" => must(said == value, &|| format!("{value} is not {said}"))?,
            "anyOf" | "oneOf" => {
                let whys: Vec<_> = list.iter().filter_map(|one| fits(document, one, value).err()).collect();
                let fitting = list.len() - whys.len();
                must(if word == "anyOf" { fitting > 0 } else { fitting == 1 }, &|| whys.join("; "))?;
            }
            "allOf" => list.iter().try_for_each(|one| fits(document, one, value))?,
            other => return Err(format!("the checker does not know {other}")),
        }
    }
    Ok(())
}
