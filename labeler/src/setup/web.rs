//! A did:web's document as the world sees it, held against the one that the labeler needs. Pure.
//!
//! Only what makes a labeler is compared: a document may name a PDS and other keys besides.

use serde_json::Value;

/// What is found where something else is wanted, in words for the operator; nothing when all is right.
pub(super) fn differences(found: &Value, wanted: &Value) -> Vec<String> {
    if !found.is_object() {
        return vec!["what is served is no JSON object".into()];
    }
    let mut differences = Vec::new();
    let did = wanted["id"].as_str().unwrap_or_default();
    if found["id"] != wanted["id"] {
        differences.push(format!("`id` is {}, not {did:?}", shown(&found["id"])));
    }
    for list in ["verificationMethod", "service"] {
        let (Some(entry), Some(list_found)) = (wanted[list].get(0), found[list].as_array()) else {
            differences.push(format!("there is no list `{list}`"));
            continue;
        };
        differences.extend(entries(did, list, list_found, entry));
    }
    differences
}

/// The entry of this name, by its whole id or the short one, is there once and says the same.
fn entries(did: &str, list: &str, found: &[Value], wanted: &Value) -> Vec<String> {
    let name = wanted["id"].as_str().unwrap_or_default();
    let name = name.strip_prefix(did).unwrap_or(name);
    let is_it = |entry: &&Value| entry["id"].as_str().is_some_and(|id| id.strip_prefix(did).unwrap_or(id) == name);
    let named: Vec<&Value> = found.iter().filter(is_it).collect();
    let one = match named.as_slice() {
        [one] => one,
        [] => return vec![format!("`{list}` has no `{name}`")],
        more => return vec![format!("`{list}` has `{name}` {} times: readers take one or the other", more.len())],
    };
    let fields = wanted.as_object().into_iter().flatten().filter(|(field, _)| *field != "id");
    let differ = fields.filter(|(field, wanted)| !is_same(&one[field.as_str()], wanted));
    differ.map(|(field, wanted)| format!("`{field}` of `{name}` is {}, not {wanted}", shown(&one[field.as_str()]))).collect()
}

/// An origin may end with a slash.
fn is_same(found: &Value, wanted: &Value) -> bool {
    match (found.as_str(), wanted.as_str()) {
        (Some(found), Some(wanted)) => found == wanted || (wanted.contains("://") && found.strip_suffix('/') == Some(wanted)),
        _ => found == wanted,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "missing".into(),
        value => value.to_string().chars().take(200).collect(),
    }
}

#[cfg(test)]
mod tests {
    use atproto::did::labeler_document;
    use atproto::key::SigningKey;
    use serde_json::json;

    use super::*;

    fn wanted() -> Value {
        let key = SigningKey::from_octets(&[0x11; 32]).unwrap().verifying_key();
        labeler_document(&"did:web:l.example".parse().unwrap(), &key, "https://l.example")
    }

    fn after(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut found = wanted();
        change(&mut found);
        differences(&found, &wanted())
    }

    #[test]
    fn a_document_with_more_in_it_is_right_and_so_are_short_ids() {
        assert_eq!(after(|_| {}), [""; 0]);
        let more = after(|found| {
            let pds =
                json!({ "id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "https://pds.example" });
            found["service"].as_array_mut().unwrap().insert(0, pds);
            found["alsoKnownAs"] = json!(["at://l.example"]);
            found["service"][1]["id"] = json!("did:web:l.example#atproto_labeler");
            found["service"][1]["serviceEndpoint"] = json!("https://l.example/");
            found["verificationMethod"][0]["id"] = json!("#atproto_label");
        });
        assert_eq!(more, [""; 0]);
    }

    #[test]
    fn each_difference_is_named() {
        type Change = fn(&mut Value);
        let table: [(Change, &str); 9] = [
            (|found| *found = json!("x"), "no JSON object"),
            (
                |found| found["id"] = json!("did:web:other.example"),
                "`id` is \"did:web:other.example\", not \"did:web:l.example\"",
            ),
            (|found| drop(found.as_object_mut().unwrap().remove("service")), "no list `service`"),
            (|found| found["verificationMethod"] = json!([]), "`verificationMethod` has no `#atproto_label`"),
            (
                |found| found["verificationMethod"][0]["publicKeyMultibase"] = json!("zQ3other"),
                "`publicKeyMultibase` of `#atproto_label` is \"zQ3other\", not \"zQ3",
            ),
            (|found| found["verificationMethod"][0]["type"] = json!("Other"), "`type` of `#atproto_label`"),
            (
                |found| found["service"][0]["serviceEndpoint"] = json!("https://other.example"),
                "`serviceEndpoint` of `#atproto_labeler` is \"https://other.example\", not \"https://l.example\"",
            ),
            (
                |found| drop(found["service"][0].as_object_mut().unwrap().remove("type")),
                "`type` of `#atproto_labeler` is missing",
            ),
            (
                |found| {
                    let twice = found["service"][0].clone();
                    found["service"].as_array_mut().unwrap().push(twice);
                },
                "`#atproto_labeler` 2 times",
            ),
        ];
        for (change, expected) in table {
            let found = after(change);
            assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
        }
        let both = after(|found| {
            found["service"][0]["serviceEndpoint"] = json!("x");
            found["verificationMethod"][0]["publicKeyMultibase"] = json!("y");
        });
        assert_eq!(both.len(), 2);
    }
}
