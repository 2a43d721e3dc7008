//! What of a schema holds for the values at hand: its `if`, `then`, `else` and `allOf`, resolved.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::pointer;

#[derive(Debug, Default)]
pub struct Rules {
    hidden: BTreeSet<String>,
    required: BTreeSet<String>,
    defaults: BTreeMap<String, Value>,
}

impl Rules {
    pub fn of(schema: &Value, values: &Value) -> Self {
        let mut rules = Self::default();
        rules.apply(schema, values, "");
        rules
    }

    /// `false` stands in its place: it must not be sent.
    pub fn is_hidden(&self, pointer: &str) -> bool {
        self.hidden.contains(pointer)
    }

    /// It, and all that it lies in.
    pub fn is_required(&self, pointer: &str) -> bool {
        let mut here = pointer;
        while !here.is_empty() {
            if !self.required.contains(here) {
                return false;
            }
            here = here.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
        true
    }

    pub fn defaults(&self) -> &BTreeMap<String, Value> {
        &self.defaults
    }

    fn apply(&mut self, part: &Value, values: &Value, at: &str) {
        for name in part["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.required.insert(pointer::join(at, name));
        }
        for (name, field) in part["properties"].as_object().into_iter().flatten() {
            let here = pointer::join(at, name);
            match field {
                Value::Bool(false) => drop(self.hidden.insert(here)),
                field => {
                    if let Some(default) = field.get("default") {
                        self.defaults.insert(here.clone(), default.clone());
                    }
                    self.apply(field, &values[name], &here);
                }
            }
        }
        for one in part["allOf"].as_array().into_iter().flatten() {
            self.apply(one, values, at);
        }
        if let Some(condition) = part.get("if") {
            // A schema that is none holds for nothing.
            let holds = jsonschema::validator_for(condition).is_ok_and(|condition| condition.is_valid(values));
            let branch = if holds { "then" } else { "else" };
            self.apply(&part[branch], values, at);
        }
    }
}

/// The fields that some condition looks at.
pub fn controlling(schema: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    conditions(schema, "", &mut found);
    found
}

fn conditions(part: &Value, at: &str, found: &mut BTreeSet<String>) {
    if let Some(condition) = part.get("if") {
        leaves(condition, at, found);
    }
    for branch in ["then", "else"].into_iter().filter_map(|name| part.get(name)) {
        conditions(branch, at, found);
    }
    for one in part["allOf"].as_array().into_iter().flatten() {
        conditions(one, at, found);
    }
    for (name, field) in part["properties"].as_object().into_iter().flatten() {
        conditions(field, &pointer::join(at, name), found);
    }
}

fn leaves(condition: &Value, at: &str, found: &mut BTreeSet<String>) {
    match condition["properties"].as_object() {
        Some(fields) => {
            for (name, field) in fields {
                leaves(field, &pointer::join(at, name), found);
            }
        }
        None => drop(found.insert(at.to_owned())),
    }
}
