//! What a host renders: the committed files, in the order and under the labels of the documented form.

use std::process::Command;

use oauth_mail_core::settings::Direction;
use oauth_mail_schema::schema;
use serde_json::{Value, json};

#[test]
fn the_committed_schemas_are_up_to_date() {
    let output = Command::new(env!("CARGO_BIN_EXE_oauth-mail-schema")).arg("--check").output().expect("generator runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn labels_stand_in_the_order_of_the_documented_form() {
    let labels = |direction| -> Vec<String> {
        let schema = schema(direction);
        let fields = schema["properties"].as_object().expect("properties");
        fields.values().map(|field| field["title"].as_str().expect("title").to_owned()).collect()
    };
    let oauth = ["Client ID", "Client Secret", "Authorize URL", "Access Token URL", "Scope", "Redirect URL"];
    let incoming = [
        &["Connection Protocol", "Authentication Type", "Server Name / IP Address", "Connect URL", "Username"][..],
        &["Email Address(es)", "Protocol", "Port"],
        &oauth,
        &["Fetch emails every (minutes)", "Enable Email Debug", "Disable new request creation by email", "Advanced"],
    ];
    let outgoing = [
        &["Connection Protocol", "Authentication Type", "Server Name / IP Address"][..],
        &["Alternate Server Name / IP Address", "Connect URL", "Username", "Sender Name", "Reply to", "Protocol"],
        &["Enable TLS", "Port"],
        &oauth,
        &["Advanced"],
    ];
    assert_eq!(labels(Direction::Incoming), incoming.concat());
    assert_eq!(labels(Direction::Outgoing), outgoing.concat());
}

#[test]
fn the_form_pre_fills_hides_and_locks_what_the_page_does() {
    let incoming = schema(Direction::Incoming);
    let at = |pointer: &str| incoming.pointer(pointer).cloned().unwrap_or(Value::Null);
    assert_eq!(at("/properties/port/default"), json!(993));
    assert_eq!(at("/properties/protocol/default"), json!("IMAPS"));
    assert_eq!(at("/properties/protocol/readOnly"), json!(true));
    assert_eq!(at("/properties/client_secret/writeOnly"), json!(true));
    assert_eq!(at("/properties/fetch_interval_minutes/default"), json!(5));
    assert_eq!(at("/properties/connection_protocol/default"), json!("POP/IMAP/POPS/IMAPS"));
    assert_eq!(at("/properties/advanced/properties/folders/default"), json!(["INBOX"]));
    assert_eq!(at("/properties/advanced/properties/fetch_since/default"), json!("now"));
    let outgoing = schema(Direction::Outgoing);
    assert_eq!(outgoing["properties"]["enable_tls"]["default"], json!(true));
    assert_eq!(outgoing["properties"]["protocol"]["default"], json!("SMTP"));

    for (schema, hidden_with_ews) in [
        (&incoming, &["server_name", "protocol", "port"][..]),
        (&outgoing, &["server_name", "alternate_server_name", "protocol", "enable_tls", "port"]),
    ] {
        let ews = schema["allOf"]
            .as_array()
            .expect("allOf")
            .iter()
            .find(|rule| rule.pointer("/if/properties/connection_protocol/const") == Some(&json!("EWS")));
        let shown = ews.and_then(|rule| rule["then"]["properties"].as_object()).expect("a rule for EWS");
        let hidden: Vec<&str> =
            shown.iter().filter(|(_, rule)| **rule == json!(false)).map(|(name, _)| name.as_str()).collect();
        assert_eq!(hidden, hidden_with_ews);
    }
}

#[test]
fn every_field_has_a_label_and_a_help_text() {
    fn walk(properties: &Value) {
        for (name, field) in properties.as_object().expect("properties") {
            for word in ["title", "description"] {
                assert!(field[word].as_str().is_some_and(|text| !text.is_empty()), "{name} has no {word}");
            }
            if let Some(inner) = field.get("properties") {
                walk(inner);
            }
        }
    }
    for direction in [Direction::Incoming, Direction::Outgoing] {
        walk(&schema(direction)["properties"]);
    }
}
