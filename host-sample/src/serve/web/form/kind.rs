//! Which control a field gets.

use serde_json::Value;

/// Beyond it a text has lines of its own.
const ONE_LINE_MAX: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An object with named fields.
    Group,
    Choice,
    Flag,
    Number,
    Text,
    /// A text of several lines.
    Lines,
    /// One scalar per line.
    List,
    /// Names that nobody knows beforehand: one `name=value` per line.
    Map,
    /// One of several shapes, as a secret is: a text, or an object with one text in it.
    OneOf,
    /// Whatever else there may be: JSON.
    Json,
}

impl Kind {
    pub fn of(field: &Value) -> Self {
        let kind = field["type"].as_str();
        if field["enum"].is_array() {
            Self::Choice
        } else if is_group(field) {
            Self::Group
        } else if field["anyOf"].as_array().is_some_and(|shapes| shapes.iter().all(is_simple)) {
            Self::OneOf
        } else {
            match kind {
                Some("boolean") => Self::Flag,
                Some("integer" | "number") => Self::Number,
                Some("string") if field["maxLength"].as_u64().is_some_and(|max| max > ONE_LINE_MAX) => Self::Lines,
                Some("string") => Self::Text,
                Some("array") if is_scalar(&field["items"]) => Self::List,
                Some("object") if is_text(&field["additionalProperties"]) => Self::Map,
                _ => Self::Json,
            }
        }
    }
}

pub fn is_group(field: &Value) -> bool {
    field["properties"].as_object().is_some_and(|fields| !fields.is_empty())
}

fn is_text(field: &Value) -> bool {
    field["type"] == "string"
}

fn is_scalar(field: &Value) -> bool {
    matches!(field["type"].as_str(), Some("string" | "integer" | "number"))
}

fn is_simple(shape: &Value) -> bool {
    is_text(shape) || inner(shape).is_some()
}

/// The name of the one text in an object.
pub fn inner(shape: &Value) -> Option<&str> {
    let mut fields = shape["properties"].as_object()?.iter();
    match (fields.next(), fields.next()) {
        (Some((name, field)), None) if is_text(field) => Some(name),
        _ => None,
    }
}

/// Does any of its shapes need several lines?
pub fn has_lines(field: &Value) -> bool {
    let shapes = field["anyOf"].as_array();
    shapes
        .into_iter()
        .flatten()
        .chain([field])
        .any(|one| one["maxLength"].as_u64().is_some_and(|max| max > ONE_LINE_MAX))
}

/// A value as its control shows it.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.iter().all(|one| !one.is_object() && !one.is_array()) => {
            list.iter().map(text).collect::<Vec<_>>().join("\n")
        }
        Value::Object(map) if map.values().all(Value::is_string) => {
            map.iter().map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>().join("\n")
        }
        other => other.to_string(),
    }
}
