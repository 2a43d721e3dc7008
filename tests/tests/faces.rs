//! One scenario through the core, the Rust interface and the C interface: the same documents and the same bytes.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
};

use oauth_mail_abi::{Account, Library};
use oauth_mail_core::{
    hooks::{self, Handle, Plugin},
    log::Logger,
};
use oauth_mail_tests::{
    Options, Servers, built,
    fixture::{STORE_KEY, parse},
    mailbox::{self, Shared, note},
    sources::root,
};
use serde_json::{Map, Value, json};

static SHARED: Shared = Shared::new();
const FACES: [&str; 3] = ["core", "rust", "c"];

fn servers() -> Arc<Servers> {
    SHARED.servers(|| Options { users: FACES.map(str::to_owned).to_vec(), ..Options::default() })
}

fn scenario() -> PathBuf {
    root().join("tests/scenario/mail.json")
}

/// What one face needs to walk.
struct World {
    servers: Arc<Servers>,
    name: &'static str,
    folder: tempfile::TempDir,
}

impl World {
    fn new(name: &'static str) -> Self {
        let servers = servers();
        for number in 0..3 {
            mailbox::append(&servers, name, "INBOX", "01-Jan-2026 10:00:00 +0000", "", &note(number)).unwrap();
        }
        Self { servers, name, folder: tempfile::tempdir().unwrap() }
    }

    fn config(&self) -> Value {
        let store = self.folder.path().join("store.db");
        json!({"store": format!("sqlite:{}", store.display()), "key": {"value": STORE_KEY}})
    }

    fn settings(&self, direction: &str) -> Value {
        let mut incoming = self.servers.incoming_settings(self.name);
        incoming["incoming"]["advanced"]["fetch_since"] = json!("all");
        incoming["incoming"]["advanced"]["after_import"] = json!("mark_seen");
        if direction == "incoming" { incoming } else { self.servers.outgoing_settings(self.name) }
    }

    fn user(&self) -> String {
        self.servers.address(self.name)
    }

    /// Without what differs from one mailbox, moment and run to the next.
    fn plain(&self, answers: Vec<Value>) -> Vec<Value> {
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
        let found = answers.iter().find_map(|answer| answer["ok"]["messages"][0]["key"].as_str().map(str::to_owned));
        let validity = found.unwrap_or_else(|| panic!("no message was fetched: {answers:#?}"));
        let validity = validity.rsplit('/').next().and_then(|id| id.split('.').next()).unwrap().to_owned();
        let plain = |mut answer: Value| {
            without(&mut answer);
            parse(&answer.to_string().replace(&self.user(), "USER").replace(&validity, "VALIDITY"))
        };
        answers.into_iter().map(plain).collect()
    }
}

/// How a step is carried out by a face: describe, open, and the hooks of what is open.
trait Face {
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

fn walk<F: Face>(face: &F, world: &World) -> Vec<Value> {
    let steps: Vec<Value> = serde_json::from_slice(&fs::read(scenario()).unwrap()).unwrap();
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
                let redirect = world.servers.consent(started["authorize_url"].as_str().unwrap(), world.name).unwrap();
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
    world.plain(answers)
}

fn message(key: &str, raw: &[u8], facts: &str) -> Value {
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

struct Rust(Library, oauth_mail_abi::Plugin);

impl Face for Rust {
    type Account = Account;
    type Error = oauth_mail_abi::Error;

    fn describe(&self) -> Value {
        self.0.describe()
    }

    fn open(&self, settings: &Value) -> Result<Account, Self::Error> {
        self.1.open(settings)
    }

    fn authenticate(account: &Account, request: &Value) -> Result<Value, Self::Error> {
        account.authenticate(request)
    }

    fn fetch(account: &Account, request: &Value) -> Result<Value, Self::Error> {
        let batch = account.fetch_batch(request)?;
        let messages: Vec<Value> = batch.iter().map(|m| message(m.key, m.raw, m.facts_json)).collect();
        Ok(json!({"header": batch.header(), "messages": messages}))
    }

    fn settle(account: &Account, request: &Value) -> Result<Value, Self::Error> {
        account.settle_batch(request)
    }

    fn send(account: &Account, request: &Value, raw: &[u8]) -> Result<Value, Self::Error> {
        account.send_message(request, raw)
    }

    fn close(account: &Account) {
        account.close();
    }

    fn document(error: &Self::Error) -> Value {
        error.document().clone()
    }
}

/// By the wrapper of the Python host.
fn through_c(world: &World) -> Vec<Value> {
    let document = json!({
        "library": built::library(), "plugin": world.config(), "user": world.user(), "scenario": scenario(),
        "wrapper": root().join("host-sample/python"),
        "incoming": world.settings("incoming")["incoming"], "outgoing": world.settings("outgoing")["outgoing"],
    });
    let file = world.folder.path().join("walk.json");
    fs::write(&file, document.to_string()).unwrap();
    let mut command = Command::new("python3");
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(root().join("tests/scenario/c_face.py")).arg(file);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut answers = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let answer = parse(&line.unwrap());
        match answer["consent"].as_str() {
            Some(url) => writeln!(stdin, "{}", world.servers.consent(url, world.name).unwrap()).unwrap(),
            None => answers.push(answer),
        }
    }
    assert!(child.wait().unwrap().success());
    world.plain(answers)
}

#[test]
fn all_faces_answer_alike() {
    let [core, rust, c] = FACES.map(World::new);
    let through_core = walk(&Plugin::new(&core.config().to_string(), Logger::silent()).unwrap(), &core);
    let loaded = Library::load(built::library()).unwrap();
    let plugin = loaded.plugin(&rust.config(), |_, _, _| ()).unwrap();
    let through_rust = walk(&Rust(loaded, plugin), &rust);
    let through_c = through_c(&c);
    assert!(through_core.iter().filter(|answer| answer.get("ok").is_some()).count() >= 12, "{through_core:#?}");
    for (step, expected) in through_core.iter().enumerate() {
        assert_eq!(&through_rust[step], expected, "step {step}, Rust");
        assert_eq!(&through_c[step], expected, "step {step}, C");
    }
    assert_eq!((through_rust.len(), through_c.len()), (through_core.len(), through_core.len()));
}
