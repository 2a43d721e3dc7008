//! What a person writes into the "Mail Server Settings" form, and its proven form, the [`Account`].
//!
//! ```text
//! JSON ──fill──▶ presets ──check──▶ every fault at once, or ──typed──▶ Incoming / Outgoing ──prove──▶ Account
//! ```
//!
//! The tables in [`form`] hold labels and rules; the parser and the schema generator both read them.

pub mod account;
pub mod advanced;
pub mod form;
pub mod incoming;
pub mod outgoing;
pub mod pattern;
pub mod preset;
pub mod secret_ref;

mod check;
mod filling;
mod oauth_fields;
mod prove;

use serde_json::Value;

use crate::{
    error::{Error, Fault, Result},
    limits::{LABEL_MAX, SETTINGS_MAX},
};

pub use account::*;
pub use check::{MANY_TENANTS, MICROSOFT_HOSTS};
pub use secret_ref::{Lookup, Machine, SecretRef};

/// JSON Schema (2020-12) of the incoming form, as generated into `schema/`.
pub const INCOMING_SCHEMA: &str = include_str!("../../../../schema/incoming.schema.json");
/// JSON Schema (2020-12) of the outgoing form.
pub const OUTGOING_SCHEMA: &str = include_str!("../../../../schema/outgoing.schema.json");

/// Reads a settings document: `{"incoming": {…}}` or `{"outgoing": {…}}`, with the fields of the form inside. Secrets
/// given by reference are looked up now. `"label"` beside it is what the host calls the mailbox in log lines and
/// changes of health: one line of at most 200 characters; else they name the username.
///
/// # Errors
/// `Kind::Settings`, with every fault at once; pointers are those of `document`. No fault repeats a value.
pub fn parse(document: &str) -> Result<Account> {
    let whole = |message: &str| {
        let fault = Fault { pointer: String::new(), label: "Settings".to_owned(), message: message.to_owned() };
        Error::settings(vec![fault])
    };
    if document.len() > SETTINGS_MAX {
        return Err(whole("The document is larger than any settings; hand in the fields of one form."));
    }
    let value: Value = serde_json::from_str(document).map_err(|error| {
        // Line and column only: the words of the parser could repeat a part of the document.
        whole(&format!("It is not valid JSON at line {}, column {}; correct it there.", error.line(), error.column()))
    })?;
    let label = match value.get("label") {
        None | Some(Value::Null) => None,
        Some(Value::String(label)) if is_label(label) => Some(label.clone()),
        Some(_) => {
            let message = format!("It is not one line of 1 to {LABEL_MAX} characters; correct it or leave it out.");
            return Err(Error::settings(vec![Fault { pointer: "/label".into(), label: "Label".into(), message }]));
        }
    };
    let mut members = value.as_object().into_iter().flatten().filter(|(key, _)| *key != "label");
    let (key, parsed) = match (members.next(), members.next()) {
        (Some((key, form)), None) if key == "incoming" => (key, parse_incoming(form)),
        (Some((key, form)), None) if key == "outgoing" => (key, parse_outgoing(form)),
        _ => {
            return Err(whole("It is not an object with one member; hand in one, named \"incoming\" or \"outgoing\"."));
        }
    };
    parsed.map(|account| Account { label, ..account }).map_err(|mut faults| {
        for fault in &mut faults {
            fault.pointer.insert_str(0, &format!("/{key}"));
        }
        Error::settings(faults)
    })
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_MAX).contains(&label.chars().count()) && !label.chars().any(char::is_control)
}

/// Checks the incoming form after filling in the preset it names.
///
/// # Errors
/// Every fault at once; pointers begin at the form.
pub fn parse_incoming(form: &Value) -> Result<Account, Vec<Fault>> {
    parse_form(Direction::Incoming, form, &Machine)
}

/// Checks the outgoing form after filling in the preset it names.
///
/// # Errors
/// As [`parse_incoming`].
pub fn parse_outgoing(form: &Value) -> Result<Account, Vec<Fault>> {
    parse_form(Direction::Outgoing, form, &Machine)
}

/// As [`parse_incoming`] and [`parse_outgoing`], with another place to look secrets up.
///
/// # Errors
/// As [`parse_incoming`].
pub fn parse_form(direction: Direction, form: &Value, lookup: &dyn Lookup) -> Result<Account, Vec<Fault>> {
    let mut form = form.clone();
    preset::fill(direction, &mut form);
    let checked = check::check(direction, &form, lookup)?;
    match direction {
        Direction::Incoming => prove::incoming(checked),
        Direction::Outgoing => prove::outgoing(checked),
    }
}

#[cfg(test)]
mod tests;
