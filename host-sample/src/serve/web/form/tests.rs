//! The two published schemas, and one with a field of each type that nobody thought of when the page was made.

use std::sync::LazyLock;

use oauth_mail_abi::Fault;
use serde_json::{Value, json};

use super::{Form, fill, kind::Kind, pointer, read, rules::Rules, shared};
use crate::{host::Direction, serve::web::visit::Fields};

static INCOMING: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../../../schema/incoming.schema.json")).unwrap());
static OUTGOING: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../../../schema/outgoing.schema.json")).unwrap());

const REDIRECT: &str = "https://desk.test/oauth/callback";

#[test]
fn every_field_of_both_schemas_is_on_the_page_in_its_order() {
    for (direction, schema) in [(Direction::Incoming, &*INCOMING), (Direction::Outgoing, &*OUTGOING)] {
        for protocol in choices(schema, "connection_protocol") {
            let stored = json!({"connection_protocol": protocol});
            let page = opened(direction, schema, &stored);
            let rules = Rules::of(schema, &stored);
            let mut at = 0;
            for (here, field) in fields(schema, "") {
                let place = page.find(&format!("data-field=\"{here}\""));
                if rules.is_hidden(&here) {
                    assert_eq!(place, None, "{here} does not belong to {protocol}");
                    continue;
                }
                let place = place.unwrap_or_else(|| panic!("{here} is missing with {protocol}"));
                assert!(place > at, "{here} stands out of order");
                at = place;
                let title = field["title"].as_str().unwrap();
                assert!(page[place..].contains(&format!(">{}", escaped(title))), "{here} without its label");
            }
        }
    }
}

#[test]
fn a_field_that_is_added_to_the_schema_appears() {
    let fields = json!({
        "text": {"title": "A text", "description": "Says what.", "type": "string", "default": "x"},
        "long": {"title": "A long text", "type": "string", "maxLength": 100_000},
        "number": {"title": "A number", "type": "integer", "default": 7},
        "share": {"title": "A share", "type": "number"},
        "flag": {"title": "A flag", "type": "boolean", "default": true},
        "choice": {"title": "A choice", "type": "string", "enum": ["a", "b"], "default": "b"},
        "list": {"title": "A list", "type": "array", "items": {"type": "string"}},
        "numbers": {"title": "Numbers", "type": "array", "items": {"type": "integer"}},
        "map": {"title": "A map", "type": "object", "additionalProperties": {"type": "string"}},
        "fixed": {"title": "Fixed", "type": "string", "default": "so", "readOnly": true},
        "secret": {"title": "A secret", "type": "string", "writeOnly": true},
        "either": {"title": "Either", "anyOf": [{"type": "string"}, {"type": "object", "properties": {"file": {"type": "string"}}}]},
        "strange": {"title": "Strange", "type": ["array", "null"], "items": {"type": "object"}},
        "group": {"title": "A group", "type": "object", "properties": {
            "inner": {"title": "An inner group", "type": "object", "properties": {"deep": {"title": "Deep", "type": "string"}}}}},
    });
    let posted = [
        ("text", "t"),
        ("long", "1\r\n2"),
        ("number", "8"),
        ("share", "0.5"),
        ("choice", "a"),
        ("list", "a\r\n\r\n b "),
        ("numbers", "1\n2"),
        ("map", "a=1\nb = x=y"),
        ("secret", "s3cret"),
        ("either", "e"),
        ("strange", "[{}]"),
        ("group/inner/deep", "d"),
    ];
    let expected = json!({
        "text": "t", "long": "1\n2", "number": 8, "share": 0.5, "flag": false, "choice": "a", "list": ["a", "b"],
        "numbers": [1, 2], "map": {"a": "1", "b": "x=y"}, "fixed": "so", "secret": "s3cret", "either": "e",
        "strange": [{}], "group": {"inner": {"deep": "d"}},
    });
    for place in ["", "/advanced"] {
        let mut schema = INCOMING.clone();
        let into = if place.is_empty() { &mut schema } else { &mut schema["properties"]["advanced"] };
        for (name, field) in fields.as_object().unwrap() {
            into["properties"][name] = field.clone();
        }
        let page = opened(Direction::Incoming, &schema, &Value::Null);
        let mut form = format!("{place}/connection_protocol=EWS").replace("/advanced/", "/");
        for (name, field) in fields.as_object().unwrap() {
            let here = format!("{place}/{name}");
            let at = page.find(&format!("data-field=\"{here}\"")).unwrap_or_else(|| panic!("{here} is not there"));
            assert!(page[at..].contains(field["title"].as_str().unwrap()), "{here}");
            if Kind::of(field) != Kind::Group {
                let id = pointer::id(&here);
                assert!(page.contains(&format!("for=\"{id}\"")) && page.contains(&format!("id=\"{id}\"")), "{here}");
            }
            form.push_str(&format!("&_shown={here}"));
        }
        form.push_str(&format!("&_shown={place}/group/inner/deep"));
        for (name, value) in posted {
            let value: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
            form.push_str(&format!("&{place}/{name}={value}"));
        }
        let values = read(&schema, Direction::Incoming, &Fields::parse(form.as_bytes()), &Value::Null);
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(values.pointer(&format!("{place}/{name}")), Some(value), "{place}/{name}");
        }
    }
}

#[test]
fn a_secret_never_comes_back() {
    let secrets = json!({
        "connection_protocol": "EWS", "client_secret": "hunter2-literal",
        "advanced": {"client_certificate": {"certificate": "hunter2-pem", "private_key": {"file": "/hunter2"}},
                     "service_account": "{\"private_key\": \"hunter2\"}"},
    });
    let page = opened(Direction::Incoming, &INCOMING, &secrets);
    assert!(!page.contains("hunter2"), "{page}");
    for field in
        ["field-client_secret", "field-advanced-service_account", "field-advanced-client_certificate-private_key"]
    {
        assert!(page.contains(&format!("data-testid=\"{field}-stored\"")), "{field} is stored");
    }
    // Neither what was just typed.
    let typed = read_of(&INCOMING, "/client_secret=hunter2-new&_shown=/client_secret", &secrets);
    assert_eq!(typed["client_secret"], "hunter2-new");
    let form = Form::with(Direction::Incoming, &INCOMING, typed, &Value::Null, Vec::new());
    assert!(!form.fields().into_string().contains("hunter2"));
}

#[test]
fn an_empty_secret_is_kept_and_can_be_forgotten() {
    let stored = json!({"client_secret": "old", "advanced": {"service_account": {"file": "/sa.json"}}});
    assert_eq!(read_of(&INCOMING, "/client_secret=", &stored)["client_secret"], "old");
    assert_eq!(read_of(&INCOMING, "", &stored)["advanced"]["service_account"], json!({"file": "/sa.json"}));
    assert_eq!(read_of(&INCOMING, "/client_secret=+new+", &stored)["client_secret"], "new");
    let named = read_of(&INCOMING, "/client_secret=NAME&_shape/client_secret=1", &stored);
    assert_eq!(named["client_secret"], json!({"env": "NAME"}));
    let gone = read_of(&INCOMING, "/client_secret=&_clear/client_secret=true", &stored);
    assert!(gone.get("client_secret").is_none());
}

#[test]
fn the_port_follows_the_protocol_until_somebody_types_one() {
    let read = |form: &str| read_of_outgoing(form)["port"].clone();
    assert_eq!(read("/protocol=SMTP&/port="), 587);
    assert_eq!(read("/protocol=SMTPS&/port=587&_filled/port=587"), 465);
    assert_eq!(read("/protocol=SMTP&/port=465&_filled/port=465"), 587);
    assert_eq!(read("/protocol=SMTPS&/port=2465&_filled/port=587"), 2465);
    assert_eq!(read("/protocol=SMTPS&/port=25x&_filled/port=587"), "25x", "kept, to be found wrong");
}

#[test]
fn fields_come_and_go_with_the_protocol() {
    let form = "/connection_protocol=EWS&_shown=/connection_protocol&/server_name=imap.test&/port=993&_shown=/port&_shown=/server_name\
                &/advanced/sasl_mechanism=auto&_shown=/advanced/sasl_mechanism&/connect_url=https://x.test/&_shown=/connect_url";
    let values = read_of(&INCOMING, form, &Value::Null);
    assert!(values.get("server_name").is_none() && values.get("port").is_none() && values.get("protocol").is_none());
    assert_eq!(values.pointer("/advanced/sasl_mechanism"), None);
    assert_eq!(values["connect_url"], "https://x.test/");
    let page = opened(Direction::Incoming, &INCOMING, &values);
    assert!(page.contains("id=\"field-connect_url\"") && !page.contains("id=\"field-server_name\""));
    let back = form.replace("EWS", "POP/IMAP/POPS/IMAPS");
    let values = read_of(&INCOMING, &back, &Value::Null);
    assert_eq!((&values["port"], &values["protocol"]), (&json!(993), &json!("IMAPS")));
    assert!(values.get("connect_url").is_none());
}

#[test]
fn a_preset_fills_what_nobody_typed() {
    let chosen = "/connection_protocol=POP/IMAP/POPS/IMAPS&_shown=/connection_protocol&_shown=/server_name&_shown=/scope\
                  &_shown=/authorize_url&_preset=google&_filled_preset=";
    let values = read_of(&INCOMING, chosen, &Value::Null);
    assert_eq!(values.pointer(fill::PROVIDER), Some(&json!("google")));
    assert_eq!(values["server_name"], "imap.gmail.com");
    assert!(values["authorize_url"].as_str().unwrap().starts_with("https://accounts.google.com/"));
    let typed = read_of(&INCOMING, &format!("{chosen}&/server_name=own.test"), &Value::Null);
    assert_eq!(typed["server_name"], "own.test");
    let other = chosen.replace("_preset=google&_filled_preset=", "_preset=microsoft365&_filled_preset=google")
        + "&/server_name=imap.gmail.com&_filled/server_name=imap.gmail.com&/advanced/provider=google&_shown=/advanced/provider";
    let other = read_of(&INCOMING, &other, &Value::Null);
    assert_eq!(other["server_name"], "outlook.office365.com");
    assert!(!other.to_string().contains('{') || !other.to_string().contains("{tenant}"), "{other}");
}

#[test]
fn a_fault_stands_at_its_field_and_in_the_summary() {
    let fault =
        |pointer: &str| Fault { pointer: pointer.into(), label: "Label".into(), message: "It is wrong.".into() };
    let faults = vec![
        fault("/incoming/port"),
        fault("/incoming/email_addresses/0"),
        fault("/incoming/email_addresses/1"),
        fault("/incoming/advanced/client_certificate/private_key/file"),
        fault("/incoming/unknown"),
    ];
    let values =
        json!({"connection_protocol": "POP/IMAP/POPS/IMAPS", "port": "99999", "email_addresses": ["a@b.test", "c"]});
    let form = Form::with(Direction::Incoming, &INCOMING, values, &Value::Null, faults);
    let (summary, page) = (form.summary().into_string(), form.fields().into_string());
    assert!(summary.contains("4 settings need attention") && summary.contains("role=\"alert\""));
    for id in ["field-port", "field-email_addresses", "field-advanced-client_certificate-private_key"] {
        assert!(summary.contains(&format!("href=\"#{id}\"")), "{id}: {summary}");
        assert!(page.contains(&format!("id=\"{id}-error\"")), "{id}");
        let control = page.find(&format!(" id=\"{id}\"")).unwrap();
        let control = &page[control..control + page[control..].find('>').unwrap()];
        assert!(control.contains(&format!("{id}-error")) && control.contains("aria-invalid=\"true\""), "{control}");
    }
    for line in ["Line 1: It is wrong.", "Line 2: It is wrong."] {
        assert!(page.contains(line) && summary.contains(&format!("Label: {line}")), "{line}: {summary}");
    }
    assert!(page.contains("value=\"99999\"") && page.contains("a@b.test\nc"), "what was typed is kept");
    assert!(page.contains("<details class=\"nested\" open"), "what is wrong is not folded away");
}

#[test]
fn what_is_required_is_marked_by_the_conditions() {
    let is_required = |values: &Value, here: &str| Rules::of(&INCOMING, values).is_required(here);
    let plain = json!({"connection_protocol": "POP/IMAP/POPS/IMAPS"});
    assert!(
        is_required(&plain, "/username")
            && is_required(&plain, "/server_name")
            && !is_required(&plain, "/client_secret")
    );
    let preset = json!({"connection_protocol": "POP/IMAP/POPS/IMAPS", "advanced": {"provider": "google"}});
    assert!(!is_required(&preset, "/server_name"));
    assert!(!is_required(&plain, "/advanced/client_certificate/private_key"));
    let moved = json!({"connection_protocol": "EWS", "advanced": {"after_import": "move"}});
    assert!(is_required(&moved, "/advanced/processed_folder"));
}

#[test]
fn the_second_form_begins_with_what_it_shares_with_the_first() {
    let incoming = json!({
        "connection_protocol": "POP/IMAP/POPS/IMAPS", "server_name": "imap.test", "port": 993, "username": "u",
        "client_id": "c", "client_secret": "s", "email_addresses": ["a@b.test"],
        "advanced": {"ca_file": "/ca.pem", "folders": ["INBOX"]},
    });
    let expected = json!({"username": "u", "client_id": "c", "client_secret": "s", "advanced": {"ca_file": "/ca.pem"}});
    assert_eq!(shared(&OUTGOING, &INCOMING, &incoming), expected);
    let incoming = json!({"connection_protocol": "EWS", "connect_url": "https://x.test/EWS/Exchange.asmx"});
    assert_eq!(shared(&OUTGOING, &INCOMING, &incoming), incoming, "what goes by EWS comes by EWS");
}

#[test]
fn the_redirect_url_is_filled_in() {
    assert!(opened(Direction::Incoming, &INCOMING, &Value::Null).contains(REDIRECT));
    let own = json!({"redirect_url": "https://own.test/"});
    assert!(!opened(Direction::Incoming, &INCOMING, &own).contains(REDIRECT));
}

fn opened(direction: Direction, schema: &Value, stored: &Value) -> String {
    Form::opened(direction, schema, stored, REDIRECT).fields().into_string()
}

fn read_of(schema: &Value, form: &str, stored: &Value) -> Value {
    read(schema, Direction::Incoming, &Fields::parse(form.as_bytes()), stored)
}

fn read_of_outgoing(form: &str) -> Value {
    let form =
        format!("/connection_protocol=SMTP/SMTPS&_shown=/connection_protocol&_shown=/protocol&_shown=/port&{form}");
    read(&OUTGOING, Direction::Outgoing, &Fields::parse(form.as_bytes()), &Value::Null)
}

fn fields(schema: &Value, at: &str) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let here = pointer::join(at, name);
        found.push((here.clone(), field.clone()));
        found.extend(fields(field, &here));
    }
    found
}

fn choices(schema: &Value, name: &str) -> Vec<String> {
    let choices = schema["properties"][name]["enum"].as_array().unwrap();
    choices.iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
