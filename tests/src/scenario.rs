//! One scenario (`scenario/mail.json`), walked through whatever carries out its steps.
#![allow(clippy::unwrap_used)]

use std::{collections::HashMap, fs, path::PathBuf};

use oauth_mail_core::hooks::{self, Handle, Plugin};
use serde_json::{Map, Value, json};

use crate::{fixture::parse, sources::root};

pub fn file() -> PathBuf {
    root().join("tests/scenario/mail.json")
}

/// Whose mailbox it is, and where it lies.
pub trait World {
    /// `{"incoming": …}` or `{"outgoing": …}`.
    fn settings(&self, form: &str) -> Value;
    fn user(&self) -> String;
    /// The person consents; the redirect.
    fn consent(&self, url: &str) -> String;
}

/// Without what differs from one mailbox, moment and run to the next; keys are counted.
pub fn plain(answers: Vec<Value>, user: &str) -> Vec<Value> {
    const VOLATILE: [&str; 9] = [
        "message_id",
        "expires_at",
        "consented_at",
        "renewed_at",
        "received_at",
        "reply",
        "extensions",
        "abi_version",
        "remaining",
    ];
    fn without(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|name, _| !VOLATILE.contains(&name.as_str()));
                map.values_mut().for_each(without);
            }
            Value::Array(list) => list.iter_mut().for_each(without),
            _ => {}
        }
    }
    let mut keys: Vec<String> = Vec::new();
    for message in answers.iter().filter_map(|answer| answer["ok"]["messages"].as_array()).flatten() {
        let key = message["key"].to_string();
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    assert!(!keys.is_empty(), "no message was fetched: {answers:#?}");
    let plain = |mut answer: Value| {
        without(&mut answer);
        let mut text = answer.to_string();
        for (number, key) in keys.iter().enumerate() {
            text = text.replace(key, &format!("\"KEY{number}\""));
        }
        parse(&text.replace(user, "USER"))
    };
    answers.into_iter().map(plain).collect()
}

/// How a step is carried out by a face: describe, open, and the hooks of what is open.
pub trait Face {
    type Account;
    type Error;
    fn describe(&self) -> Value;
    fn open(&self, settings: &Value) -> Result<Self::Account, Self::Error>;
    fn authenticate(account: &Self::Account, request: &Value) -> Result<Value, Self::Error>;
    fn fetch(account: &Self::Account, request: &Value) -> Result<Value, Self::Error>;
    fn settle(account: &Self::Account, request: &Value) -> Result<Value, Self::Error>;
    fn send(account: &Self::Account, request: &Value, raw: &[u8]) -> Result<Value, Self::Error>;
    fn close(account: &Self::Account);
    fn document(error: &Self::Error) -> Value;
}

/// The steps in order, and what each of them answered; plain, so that walks can be compared.
///
/// # Panics
/// When the scenario file asks for what nobody knows.
pub fn walk<F: Face>(face: &F, world: &impl World) -> Vec<Value> {
    let steps: Vec<Value> = serde_json::from_slice(&fs::read(file()).unwrap()).unwrap();
    let mut open: HashMap<String, F::Account> = HashMap::new();
    let mut keys: Vec<String> = Vec::new();
    let mut answers = Vec::new();
    for step in steps {
        let request = parse(&step["request"].to_string().replace("USER", &world.user()));
        let on = step["on"].as_str().unwrap().to_owned();
        let account = open.get(&on);
        let answer = match step["call"].as_str().unwrap() {
            "describe" => Ok(face.describe()),
            "open" => {
                let settings =
                    step["settings"].as_str().map_or_else(|| step["settings"].clone(), |form| world.settings(form));
                face.open(&settings).map(|account| {
                    open.insert(on, account);
                    json!("open")
                })
            }
            "authenticate" => F::authenticate(account.unwrap(), &request),
            "consent" => F::authenticate(account.unwrap(), &json!({"action": "start"})).and_then(|started| {
                let redirect = world.consent(started["authorize_url"].as_str().unwrap());
                F::authenticate(account.unwrap(), &json!({"action": "complete", "redirect": redirect}))
            }),
            "fetch_batch" => F::fetch(account.unwrap(), &request).inspect(|batch| {
                for message in batch["messages"].as_array().unwrap() {
                    let key = message["key"].as_str().unwrap().to_owned();
                    if !keys.contains(&key) {
                        keys.push(key);
                    }
                }
            }),
            "settle_batch" => {
                let chosen = step["results"]
                    .as_array()
                    .map(|verdicts| keys.iter().cloned().zip(verdicts.iter().cloned()).collect::<Map<_, _>>());
                F::settle(account.unwrap(), &chosen.map_or(request, |results| json!({ "results": results })))
            }
            "send_message" => F::send(account.unwrap(), &request, step["raw"].as_str().unwrap_or_default().as_bytes()),
            "close" => {
                F::close(account.unwrap());
                Ok(json!("closed"))
            }
            other => panic!("{other}"),
        };
        answers.push(match answer {
            Ok(answer) => json!({"ok": answer}),
            Err(error) => json!({"error": F::document(&error)}),
        });
    }
    plain(answers, &world.user())
}

/// One message of a batch.
pub fn message(key: &str, raw: &[u8], facts: &str) -> Value {
    json!({"key": key, "raw": String::from_utf8(raw.to_vec()).unwrap(), "facts": parse(facts)})
}

impl Face for Plugin {
    type Account = Handle;
    type Error = oauth_mail_core::Error;

    fn describe(&self) -> Value {
        parse(&hooks::describe())
    }

    fn open(&self, settings: &Value) -> Result<Handle, Self::Error> {
        Plugin::open(self, &settings.to_string())
    }

    fn authenticate(account: &Handle, request: &Value) -> Result<Value, Self::Error> {
        account.authenticate(&request.to_string()).map(|text| parse(&text))
    }

    fn fetch(account: &Handle, request: &Value) -> Result<Value, Self::Error> {
        let batch = account.fetch_batch(&request.to_string())?;
        let messages: Vec<Value> = batch.messages.iter().map(|m| message(&m.key, &m.raw, &m.facts)).collect();
        Ok(json!({"header": parse(&batch.header), "messages": messages}))
    }

    fn settle(account: &Handle, request: &Value) -> Result<Value, Self::Error> {
        account.settle_batch(&request.to_string()).map(|text| parse(&text))
    }

    fn send(account: &Handle, request: &Value, raw: &[u8]) -> Result<Value, Self::Error> {
        account.send_message(&request.to_string(), raw).map(|text| parse(&text))
    }

    fn close(account: &Handle) {
        account.close();
    }

    fn document(error: &Self::Error) -> Value {
        error.to_json()
    }
}
