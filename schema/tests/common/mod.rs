//! What the tests of the schemas share.
#![allow(dead_code)] // each test binary uses its part

use std::{fs, io, path::Path};

use jsonschema::Validator;
use oauth_mail_core::settings::{Direction, INCOMING_SCHEMA, Lookup, OUTGOING_SCHEMA, parse_form};
use oauth_mail_schema::folder;
use serde_json::{Value, json};

pub struct Example {
    pub name: String,
    pub content: Value,
}

/// The examples of one kind (`valid` or `invalid`), by name.
pub fn examples(direction: Direction, kind: &str) -> Vec<Example> {
    let path = folder().join("examples").join(name(direction)).join(kind);
    let mut found: Vec<Example> = fs::read_dir(&path)
        .expect("examples")
        .map(|entry| {
            let path = entry.expect("entry").path();
            let text = fs::read_to_string(&path).expect("readable");
            Example { name: path.display().to_string(), content: serde_json::from_str(&text).expect("JSON") }
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

pub fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::Incoming => "incoming",
        Direction::Outgoing => "outgoing",
    }
}

/// Of the committed schema, as the library embeds it.
pub fn validator(direction: Direction) -> Validator {
    let text = match direction {
        Direction::Incoming => INCOMING_SCHEMA,
        Direction::Outgoing => OUTGOING_SCHEMA,
    };
    jsonschema::validator_for(&serde_json::from_str(text).expect("JSON")).expect("a valid schema")
}

/// The parser's faults, as the examples write them.
pub fn faults_of(direction: Direction, settings: &Value) -> Vec<Value> {
    parse_form(direction, settings, &Elsewhere)
        .err()
        .unwrap_or_default()
        .into_iter()
        .map(|fault| json!({"pointer": fault.pointer, "label": fault.label, "message": fault.message}))
        .collect()
}

/// A machine on which every secret is found but those that an example calls missing.
struct Elsewhere;

impl Lookup for Elsewhere {
    fn environment(&self, name: &str) -> Option<String> {
        (name != "NOT_SET_ANYWHERE").then(|| "example-client-secret".to_owned())
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path.starts_with("/missing") {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(b"example-client-secret\n".to_vec())
    }
}
