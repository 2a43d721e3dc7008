//! Two readers, one verdict: the printed schema (by crate `jsonschema`) and the parser agree on every example.

mod common;

use std::collections::BTreeSet;

use common::{Example, examples, faults_of, validator};
use oauth_mail_core::settings::Direction;
use serde_json::Value;

#[test]
fn valid_examples_are_accepted_by_schema_and_parser() {
    let mut seen = 0;
    for direction in [Direction::Incoming, Direction::Outgoing] {
        let validator = validator(direction);
        for Example { name, content } in examples(direction, "valid") {
            let errors: Vec<String> = validator.iter_errors(&content).map(|error| error.masked().to_string()).collect();
            assert!(errors.is_empty(), "schema refuses {name}: {errors:?}");
            assert_eq!(faults_of(direction, &content), Vec::<Value>::new(), "parser refuses {name}");
            seen += 1;
        }
    }
    assert!(seen >= 12, "only {seen} valid examples");
}

#[test]
fn invalid_examples_are_refused_for_exactly_the_faults_they_name() {
    let (mut seen, mut beyond_the_schema) = (0, 0);
    for direction in [Direction::Incoming, Direction::Outgoing] {
        let validator = validator(direction);
        for Example { name, content } in examples(direction, "invalid") {
            let accepted = content["schema_accepts"].as_bool().expect("schema_accepts");
            assert_eq!(validator.is_valid(&content["settings"]), accepted, "schema on {name}");
            assert_eq!(content.get("why").is_some(), accepted, "{name}: what a schema cannot say needs its reason");
            let faults = faults_of(direction, &content["settings"]);
            assert!(!faults.is_empty(), "parser accepts {name}");
            assert_eq!(Value::Array(faults), content["faults"], "parser on {name}");
            seen += 1;
            beyond_the_schema += usize::from(accepted);
        }
    }
    assert!(seen >= 30, "only {seen} invalid examples");
    assert!(beyond_the_schema * 10 <= seen, "{beyond_the_schema} of {seen} say too much that the schema does not");
}

#[test]
fn every_fault_is_one_sentence_that_says_what_is_wrong_and_what_is_right() {
    for direction in [Direction::Incoming, Direction::Outgoing] {
        for Example { name, content } in examples(direction, "invalid") {
            for fault in content["faults"].as_array().expect("faults") {
                let message = fault["message"].as_str().expect("message");
                assert!(message.ends_with('.') && !message.contains(". "), "{name}: {message}");
                assert!(message.starts_with(char::is_uppercase) && message.contains(';'), "{name}: {message}");
                assert_ne!(fault["label"], "", "{name}");
            }
        }
    }
}

#[test]
fn every_field_of_the_form_is_wrong_in_some_example() {
    for direction in [Direction::Incoming, Direction::Outgoing] {
        let mut missing: BTreeSet<&str> =
            oauth_mail_core::settings::form::fields(direction).iter().map(|field| field.name).collect();
        // The rule is the same as in the other form, and shown there.
        let shared = ["authentication_type", "connect_url", "server_name", "scope", "redirect_url", "client_id"];
        if direction == Direction::Outgoing {
            missing.retain(|name| !shared.contains(name));
            missing.retain(|name| !["authorize_url", "access_token_url", "username"].contains(name));
        }
        for Example { content, .. } in examples(direction, "invalid") {
            for fault in content["faults"].as_array().expect("faults") {
                missing.remove(fault["pointer"].as_str().and_then(|pointer| pointer.split('/').nth(1)).unwrap_or(""));
            }
        }
        missing.remove("advanced");
        assert!(missing.is_empty(), "{direction:?}: no example where one of these is wrong: {missing:?}");
    }
}
