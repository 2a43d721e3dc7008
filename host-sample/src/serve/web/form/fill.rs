//! Defaults and presets. What a form filled in by itself follows the fields that it depends on (the port follows the
//! protocol); what a person typed stays.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::Value;

use super::{kind, pointer, rules::Rules};
use crate::host::Direction;

/// The library's own, as the schema package publishes it.
static PRESETS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../../../schema/presets.json")).unwrap_or_default());

/// Where the form says which preset it takes.
pub const PROVIDER: &str = "/advanced/provider";

/// Id and label of each.
pub fn presets() -> impl Iterator<Item = (&'static str, &'static str)> {
    let all = PRESETS.as_array().into_iter().flatten();
    all.filter_map(|one| Some((one["id"].as_str()?, one["label"].as_str()?)))
}

/// Fills what is empty, and what still holds what was filled in before (`was`, by pointer, as text).
pub fn follow(schema: &Value, direction: Direction, values: &mut Value, was: impl Fn(&str) -> Option<String>) {
    // Twice: what is filled in may decide what else there is.
    for _ in 0..2 {
        let rules = Rules::of(schema, values);
        let fills = fills(schema, &rules, direction, values);
        for field in fields(schema, "") {
            if rules.is_hidden(&field) {
                pointer::remove(values, &field);
                continue;
            }
            let now = values.pointer(&field).map(kind::text).filter(|text| !text.is_empty());
            let old = was(&field).filter(|text| !text.is_empty());
            let is_own = now.is_some() && now != old;
            match fills.get(&field) {
                _ if is_own => {}
                Some(fill) => pointer::put(values, &field, fill.clone()),
                None if old.is_some() => pointer::remove(values, &field),
                None => {}
            }
        }
    }
}

/// By pointer, what belongs into fields that nobody filled in.
pub fn fills(schema: &Value, rules: &Rules, direction: Direction, values: &Value) -> BTreeMap<String, Value> {
    let mut fills = rules.defaults().clone();
    let preset = PRESETS.as_array().into_iter().flatten().find(|one| Some(&one["id"]) == values.pointer(PROVIDER));
    if let Some(preset) = preset {
        let protocol = values["connection_protocol"].as_str().unwrap_or_default();
        let parts =
            [(&preset["oauth"], ""), (&preset[direction.name()][protocol], ""), (&preset["advanced"], "/advanced")];
        for (part, at) in parts {
            for (name, value) in part.as_object().into_iter().flatten() {
                // A name in braces is filled in by the library, which knows what stands for it.
                if !value.as_str().is_some_and(|text| text.contains('{')) {
                    fills.insert(pointer::join(at, name), value.clone());
                }
            }
        }
        if values.pointer("/advanced/grant").is_some_and(|grant| grant == "client_credentials")
            && let Some(scope) = preset["application_scope"].get(protocol)
        {
            fills.insert("/scope".into(), scope.clone());
        }
    }
    let known = fields(schema, "");
    fills.retain(|pointer, _| known.contains(pointer) && !rules.is_hidden(pointer));
    fills
}

/// Pointers of all fields that can be filled in: no groups, no secrets.
fn fields(schema: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let here = pointer::join(at, name);
        if kind::is_group(field) {
            found.extend(fields(field, &here));
        } else if field["writeOnly"] != true {
            found.push(here);
        }
    }
    found
}
