//! Schema and parser agree not only on the examples, but on what becomes of them when one field is spoilt.

mod common;

use std::collections::BTreeSet;

use common::{Example, examples, faults_of, validator};
use oauth_mail_core::settings::{Direction, form};
use serde_json::{Value, json};

/// Values that some field may hold and most may not.
#[rustfmt::skip] // one value a line would be a hundred lines
fn spoils() -> Vec<Value> {
    let long = "x".repeat(5_000);
    vec![
        json!(null), json!(true), json!(false), json!(0), json!(1), json!(-1), json!(2.0), json!(2.5), json!(465),
        json!(587), json!(65_535), json!(65_536), json!(1e300), json!([]), json!({}), json!([[]]), json!(["a"]),
        json!(["a@example.com"]), json!(["INBOX", ""]), json!([1]), json!(vec!["a@example.com"; 101]),
        json!({"env": "NAME"}), json!({"env": ""}), json!({"file": "/x"}), json!({"file": "x"}), json!({"env": 1}),
        json!({"env": "A", "file": "/b"}), json!({"password": "x"}), json!({"state": "x"}), json!({"a b": "x"}),
        json!({"a": ""}), json!({"a": 1}), json!({"a": "x\r\ny"}), json!(""), json!(" "), json!("x"), json!("\u{0}"),
        json!("x\ny"), json!("x\u{85}y"), json!("😀"), json!("ä@example.com"), json!("a@ä.example"),
        json!("a@example.com"), json!("a@b@example.com"), json!(".a@example.com"), json!("a@example"),
        json!("a@1.2.3.4"), json!("a@under_score.example"), json!("imap.example.com"), json!("IMAP.EXAMPLE.COM."),
        json!("1.2.3.4"), json!("1.2.3.400"), json!("1.2.3"), json!("::1"), json!("[::1]"), json!("fe80::1%eth0"),
        json!("a_b"), json!("3com"), json!("https://example.com"), json!("https://example.com:443/a?b=c"),
        json!("https://example.com:99999/"), json!("https://example.com/#f"), json!("https://u@example.com/"),
        json!("https://ex ample.com/"), json!("https://example.com/\\"), json!("https://1.2.3.4/"),
        json!("https://[::1]/"), json!("HTTPS://example.com/"), json!("http://example.com/"),
        json!("http://127.0.0.1:1/x"), json!("http://localhost"), json!("http://localhost.evil/"), json!("now"),
        json!("all"), json!("2026-01-31"), json!("2026-02-30"), json!("2026-01-31T23:59:59Z"),
        json!("2026-01-31T23:59:60Z"), json!("2026-01-31t23:59:59z"), json!("move"), json!("delete"), json!("auto"),
        json!("XOAUTH2"), json!("xoauth2"), json!("google"), json!("microsoft365"), json!("yahoo"), json!("generic"),
        json!("{id}"), json!("#{id}"), json!("#{id}{id}"), json!("#{id"), json!("/etc/x"), json!("EWS"),
        json!("SMTP"), json!("SMTPS"), json!("IMAPS"), json!("OAuth"), json!("Gmail API"), json!("SMTP/SMTPS"),
        json!("POP/IMAP/POPS/IMAPS"), json!(long), json!(format!("https://example.com/{long}")),
        json!(format!("{long}@example.com")),
    ]
}

#[test]
fn one_spoilt_field_never_divides_schema_and_parser_of_incoming_mail() {
    compare_all(Direction::Incoming);
}

#[test]
fn one_spoilt_field_never_divides_schema_and_parser_of_outgoing_mail() {
    compare_all(Direction::Outgoing);
}

fn compare_all(direction: Direction) {
    let validator = validator(direction);
    let spoils = spoils();
    let (mut compared, mut divided) = (0, BTreeSet::new());
    for Example { name, content } in examples(direction, "valid") {
        let mut compare = |settings: &Value, what: &str| {
            let (schema, parser) = (validator.is_valid(settings), faults_of(direction, settings));
            if schema != parser.is_empty() {
                divided.insert(format!("{direction:?} {what}: schema accepts: {schema}, parser: {parser:?} ({name})"));
            }
            compared += 1;
        };
        for section in ["", "/advanced"] {
            let fields = form::section(direction, section).iter().map(|field| field.name);
            for field in fields.chain(["unknown"]) {
                let spoilt = |value: Option<&Value>| {
                    let mut settings = content.clone();
                    if !section.is_empty() && settings.get("advanced").is_none() {
                        settings["advanced"] = json!({});
                    }
                    let map = settings.pointer_mut(section).and_then(Value::as_object_mut).expect("object");
                    match value {
                        Some(value) => map.insert(field.to_owned(), value.clone()),
                        None => map.remove(field),
                    };
                    settings
                };
                compare(&spoilt(None), &format!("{section}/{field} left out"));
                for value in &spoils {
                    let shown: String = value.to_string().chars().take(60).collect();
                    compare(&spoilt(Some(value)), &format!("{section}/{field} = {shown}"));
                }
            }
        }
    }
    let divided: Vec<String> = divided.into_iter().collect();
    assert!(divided.is_empty(), "{} divided:\n{}", divided.len(), divided.join("\n"));
    assert!(compared > 10_000, "only {compared} comparisons");
}
