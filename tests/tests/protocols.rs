//! One scenario over every protocol, against the sandbox: the same hooks, the same answers, whatever stands behind.
#![allow(clippy::unwrap_used)]

use oauth_mail_core::{hooks::Plugin, log::Logger};
use oauth_mail_sandbox::{Config, Sandbox};
use oauth_mail_tests::{
    fixture::STORE_KEY,
    mailbox::note,
    sandboxed::{self, Protocol},
    scenario,
};
use serde_json::{Value, json};

const NAME: &str = "alice";

struct World {
    sandbox: Sandbox,
    protocol: Protocol,
    folder: tempfile::TempDir,
}

impl World {
    fn new(protocol: Protocol) -> Self {
        let sandbox = Sandbox::start(Config::default()).unwrap();
        for number in 0..3 {
            assert!(sandbox.state.mail.deliver("", &sandboxed::address(NAME), &note(number)));
        }
        Self { sandbox, protocol, folder: tempfile::tempdir().unwrap() }
    }

    fn walk(&self) -> Vec<Value> {
        let store = self.folder.path().join("store.db");
        let config = json!({"store": format!("sqlite:{}", store.display()), "key": {"value": STORE_KEY},
            "private_networks": "allow"});
        let plugin = Plugin::new(&config.to_string(), Logger::silent()).unwrap();
        scenario::walk(&plugin, self).into_iter().map(|answer| self.plain(answer)).collect()
    }

    /// Without what a protocol says of itself: names of protocols and mechanisms, the server's own words, scopes.
    fn plain(&self, answer: Value) -> Value {
        let Some(error) = answer.get("error") else { return without(answer) };
        json!({"error": error["kind"]})
    }
}

impl scenario::World for World {
    fn settings(&self, form: &str) -> Value {
        let mut settings = sandboxed::settings(&self.sandbox, self.protocol, NAME, form);
        if form == "incoming" {
            settings["incoming"]["advanced"]["after_import"] = json!("mark_seen");
        }
        settings
    }

    fn user(&self) -> String {
        sandboxed::address(NAME)
    }

    fn consent(&self, url: &str) -> String {
        sandboxed::consent(&self.sandbox, url, NAME).unwrap().to_string()
    }
}

fn without(mut value: Value) -> Value {
    const OWN: [&str; 6] = ["connection", "proof", "scopes", "server", "port", "size"];
    const NAMES: [&str; 4] = ["IMAPS", "SMTP + STARTTLS", "EWS", "Microsoft Graph"];
    match &mut value {
        Value::String(text) => *text = NAMES.iter().fold(text.clone(), |text, name| text.replace(name, "PROTOCOL")),
        Value::Object(map) => {
            // "Connected to … over IMAPS": the protocol is named in it.
            let is_proof = |name: &str, value: &Value| {
                name == "message" && value.as_str().is_some_and(|text| text.starts_with("Connected to "))
            };
            map.retain(|name, value| !OWN.contains(&name.as_str()) && !is_proof(name, value));
            map.values_mut().for_each(|value| *value = without(value.take()));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| *value = without(value.take())),
        _ => {}
    }
    value
}

#[test]
fn every_protocol_answers_alike() {
    let [imap, ews, graph] = Protocol::ALL.map(|protocol| World::new(protocol).walk());
    assert!(imap.iter().filter(|answer| answer.get("ok").is_some()).count() >= 12, "{imap:#?}");
    for (other, name) in [(ews, "EWS"), (graph, "Graph")] {
        for (step, expected) in imap.iter().enumerate() {
            assert_eq!(&other[step], expected, "step {step}, {name}");
        }
    }
}
