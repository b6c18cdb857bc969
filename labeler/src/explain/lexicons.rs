//! Holding what is answered against the lexicons.

use serde_json::{Value, json};

pub(crate) fn lexicon(name: &str) -> Value {
    let path = format!("{}/../lexicons/coop/tradewind/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Holds a value against a schema of a lexicon: the same fields, of the same types, and those that may be absent are not
/// required.
pub(crate) fn hold<'a>(value: &Value, schema: &'a Value, defs: &'a Value, at: &str) {
    let schema = match schema["ref"].as_str() {
        Some(name) => &defs["defs"][name.rsplit('#').next().unwrap()],
        None => schema,
    };
    match schema["type"].as_str().unwrap_or_else(|| panic!("{at}: {schema}")) {
        "object" => {
            let fields = value.as_object().unwrap_or_else(|| panic!("{at}: {value}"));
            let properties = schema["properties"].as_object().unwrap();
            let names = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
            let sorted = |mut names: Vec<String>| {
                names.sort();
                names
            };
            assert_eq!(
                sorted(names(fields)),
                sorted(names(properties)),
                "{at}: the type has the fields of the lexicon, and no others"
            );
            fields.iter().for_each(|(name, field)| hold(field, &properties[name], defs, &format!("{at}.{name}")));
        }
        "array" => {
            let items = value.as_array().unwrap_or_else(|| panic!("{at}: {value}"));
            assert!(!items.is_empty(), "{at}: the example shows one");
            items.iter().for_each(|item| hold(item, &schema["items"], defs, at));
        }
        "string" => {
            let text = value.as_str().unwrap_or_else(|| panic!("{at}: {value}"));
            if let Some(known) = schema["knownValues"].as_array() {
                assert!(known.contains(&json!(text)), "{at}: {text} is not in the lexicon");
            }
        }
        "boolean" => assert!(value.is_boolean(), "{at}"),
        "integer" => assert!(value.is_u64(), "{at}"),
        other => panic!("{at}: a type that is not looked at here: {other}"),
    }
}

/// What is not required may be absent, and what is required may not.
pub(crate) fn hold_required<T: serde::de::DeserializeOwned>(value: &Value, schema: &Value) {
    let required = schema["required"].as_array().unwrap();
    for name in value.as_object().unwrap().keys() {
        let mut without = value.clone();
        without.as_object_mut().unwrap().remove(name);
        assert_eq!(serde_json::from_value::<T>(without).is_err(), required.contains(&json!(name)), "{name}");
    }
}
