//! What a browser posts becomes the settings document.
//!
//! A control has the pointer of its field as its name. Beside it, `_shown` lists the fields that were on the page,
//! `_filled/…` what the form had filled in, `_shape/…` which shape of a secret, `_clear/…` that a saved one is to go.

use serde_json::{Map, Value};

use super::{
    fill,
    kind::{self, Kind},
    pointer,
};
use crate::{host::Direction, serve::web::visit::Fields};

/// `stored` gives what the page does not show: secrets that were left empty.
pub fn read(schema: &Value, direction: Direction, posted: &Fields, stored: &Value) -> Value {
    let mut values = Value::Object(Map::new());
    read_group(schema, "", posted, stored, &mut values);
    if let (Some(preset), Some(before)) = (posted.get("_preset"), posted.get("_filled_preset"))
        && preset != before
    {
        match preset {
            "" => pointer::remove(&mut values, fill::PROVIDER),
            preset => pointer::put(&mut values, fill::PROVIDER, preset.into()),
        }
    }
    fill::follow(schema, direction, &mut values, |field| posted.get(&format!("_filled{field}")).map(str::to_owned));
    values
}

fn read_group(group: &Value, at: &str, posted: &Fields, stored: &Value, values: &mut Value) {
    for (name, field) in group["properties"].as_object().into_iter().flatten() {
        let here = pointer::join(at, name);
        if kind::is_group(field) {
            read_group(field, &here, posted, stored, values);
            continue;
        }
        let was_shown = posted.all("_shown").any(|shown| shown == here);
        let value = if field["readOnly"] == true {
            field.get("default").cloned()
        } else if field["writeOnly"] == true {
            secret(field, &here, posted).or_else(|| {
                let is_kept = posted.get(&format!("_clear{here}")).is_none();
                stored.pointer(&here).filter(|_| is_kept).cloned()
            })
        } else if was_shown {
            shown(field, &here, posted)
        } else {
            stored.pointer(&here).cloned()
        };
        if let Some(value) = value {
            pointer::put(values, &here, value);
        }
    }
}

/// What a person typed. What is no number stays a text, so that it can be shown again and be found wrong.
fn shown(field: &Value, here: &str, posted: &Fields) -> Option<Value> {
    let typed = posted.get(here);
    let kind = Kind::of(field);
    if kind == Kind::Flag {
        return Some(typed.is_some().into());
    }
    let typed = match kind {
        Kind::Lines | Kind::Json => typed?,
        _ => typed?.trim(),
    };
    if typed.trim().is_empty() {
        return None;
    }
    Some(match kind {
        Kind::Number => number(typed),
        Kind::Choice => {
            let choices = field["enum"].as_array().into_iter().flatten();
            choices.into_iter().find(|one| kind::text(one) == typed).cloned().unwrap_or_else(|| typed.into())
        }
        Kind::List => {
            let is_text = field["items"]["type"] == "string";
            let lines = typed.lines().map(str::trim).filter(|line| !line.is_empty());
            lines.map(|line| if is_text { line.into() } else { number(line) }).collect()
        }
        Kind::Map => map(typed),
        Kind::Json => serde_json::from_str(typed).unwrap_or_else(|_| typed.into()),
        Kind::OneOf => shape(field, here, posted, typed),
        Kind::Lines => typed.replace("\r\n", "\n").into(),
        Kind::Text | Kind::Flag | Kind::Group => typed.into(),
    })
}

fn secret(field: &Value, here: &str, posted: &Fields) -> Option<Value> {
    let typed = posted.get(here).filter(|typed| !typed.trim().is_empty())?;
    // A PEM keeps its lines; of everything else, what a copy took along at its ends goes.
    let typed = if kind::has_lines(field) { typed.replace("\r\n", "\n") } else { typed.trim().to_owned() };
    Some(shape(field, here, posted, &typed))
}

fn shape(field: &Value, here: &str, posted: &Fields, typed: &str) -> Value {
    let chosen = posted.get(&format!("_shape{here}")).and_then(|number| number.parse::<usize>().ok()).unwrap_or(0);
    match kind::inner(&field["anyOf"][chosen]) {
        Some(name) => Map::from_iter([(name.to_owned(), typed.trim().into())]).into(),
        None => typed.into(),
    }
}

fn number(typed: &str) -> Value {
    let whole = typed.parse::<i64>().map(Value::from);
    whole.or_else(|_| typed.parse::<f64>().map(Value::from)).unwrap_or_else(|_| typed.into())
}

fn map(typed: &str) -> Value {
    let lines = typed.lines().map(str::trim).filter(|line| !line.is_empty());
    let pairs = lines.map(|line| {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        (name.trim().to_owned(), Value::from(value.trim()))
    });
    Value::Object(pairs.collect())
}
