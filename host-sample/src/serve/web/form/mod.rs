//! A form of settings, made from its JSON Schema and nothing else.
//!
//! | file | what |
//! |---|---|
//! | `rules` | which conditions of the schema hold for the values at hand: hidden, required, defaults |
//! | `kind` | which control a field gets |
//! | `read` | what a browser posts → the settings document |
//! | `fill` | defaults and presets follow the fields that they depend on |
//! | `render` | the settings document → HTML |
//! | `pointer` | JSON pointers (RFC 6901); also the names of the controls |

mod fill;
mod kind;
mod pointer;
mod read;
mod render;
mod rules;
#[cfg(test)]
mod tests;

use oauth_mail_abi::Fault;
use serde_json::Value;

use self::rules::Rules;
use crate::host::Direction;

pub use read::read;

/// What a person sees: the schema, what is typed in so far, and what is wrong with it.
pub struct Form<'a> {
    direction: Direction,
    schema: &'a Value,
    values: Value,
    /// What is saved; of its secrets the page says that they are there.
    stored: &'a Value,
    rules: Rules,
    /// Pointers begin at the form.
    faults: Vec<Fault>,
}

impl<'a> Form<'a> {
    /// As it is opened. `redirect_url` is filled in where none was saved.
    pub fn opened(direction: Direction, schema: &'a Value, stored: &'a Value, redirect_url: &str) -> Self {
        let mut values = if stored.is_object() { stored.clone() } else { Value::Object(Default::default()) };
        let redirect = "/redirect_url";
        if schema["properties"]["redirect_url"].is_object() && values.pointer(redirect).is_none() {
            pointer::put(&mut values, redirect, redirect_url.into());
        }
        fill::follow(schema, direction, &mut values, |_| None);
        Self::with(direction, schema, values, stored, Vec::new())
    }

    /// As it comes back with `values` from [`read`]. The faults' pointers begin at the settings document.
    pub fn with(direction: Direction, schema: &'a Value, values: Value, stored: &'a Value, faults: Vec<Fault>) -> Self {
        let prefix = format!("/{}", direction.name());
        let faults = faults
            .into_iter()
            .map(|fault| {
                let pointer = fault.pointer.strip_prefix(&prefix).unwrap_or(&fault.pointer).to_owned();
                Fault { pointer, ..fault }
            })
            .collect();
        let rules = Rules::of(schema, &values);
        Self { direction, schema, values, stored, rules, faults }
    }
}

/// The part of another form's values that means the same in this one: fields whose schemas are equal, and choices that this
/// form offers, too.
pub fn shared(schema: &Value, other_schema: &Value, other: &Value) -> Value {
    let (Some(own), Some(others)) = (schema["properties"].as_object(), other_schema["properties"].as_object()) else {
        return Value::Null;
    };
    let mut values = Value::Object(Default::default());
    for (name, field) in own {
        let (Some(twin), Some(value)) = (others.get(name), other.get(name)) else { continue };
        let is_offered = field["enum"].as_array().is_some_and(|choices| choices.contains(value));
        if field == twin || is_offered {
            values[name] = value.clone();
        } else if kind::is_group(field) && kind::is_group(twin) {
            let inside = shared(field, twin, value);
            if inside.as_object().is_some_and(|inside| !inside.is_empty()) {
                values[name] = inside;
            }
        }
    }
    values
}
