//! One scenario through the core, the Rust interface and the C interface: the same documents and the same bytes.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::Arc,
};

use oauth_mail_abi::{Account, Library};
use oauth_mail_core::{hooks::Plugin, log::Logger};
use oauth_mail_tests::{
    Options, Servers, built,
    fixture::{STORE_KEY, parse},
    mailbox::{self, Shared, note},
    scenario::{self, Face, World as _, message},
    sources::root,
};
use serde_json::{Value, json};

static SHARED: Shared = Shared::new();
const FACES: [&str; 3] = ["core", "rust", "c"];

fn servers() -> Arc<Servers> {
    SHARED.servers(|| Options { users: FACES.map(str::to_owned).to_vec(), ..Options::default() })
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
}

impl scenario::World for World {
    fn settings(&self, direction: &str) -> Value {
        let mut incoming = self.servers.incoming_settings(self.name);
        incoming["incoming"]["advanced"]["fetch_since"] = json!("all");
        incoming["incoming"]["advanced"]["after_import"] = json!("mark_seen");
        if direction == "incoming" { incoming } else { self.servers.outgoing_settings(self.name) }
    }

    fn user(&self) -> String {
        self.servers.address(self.name)
    }

    fn consent(&self, url: &str) -> String {
        self.servers.consent(url, self.name).unwrap().to_string()
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
        "library": built::library(), "plugin": world.config(), "user": world.user(), "scenario": scenario::file(),
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
            Some(url) => writeln!(stdin, "{}", world.consent(url)).unwrap(),
            None => answers.push(answer),
        }
    }
    assert!(child.wait().unwrap().success());
    scenario::plain(answers, &world.user())
}

#[test]
fn all_faces_answer_alike() {
    let [core, rust, c] = FACES.map(World::new);
    let through_core = scenario::walk(&Plugin::new(&core.config().to_string(), Logger::silent()).unwrap(), &core);
    let loaded = Library::load(built::library()).unwrap();
    let plugin = loaded.plugin(&rust.config(), |_, _, _| ()).unwrap();
    let through_rust = scenario::walk(&Rust(loaded, plugin), &rust);
    let through_c = through_c(&c);
    assert!(through_core.iter().filter(|answer| answer.get("ok").is_some()).count() >= 12, "{through_core:#?}");
    for (step, expected) in through_core.iter().enumerate() {
        assert_eq!(&through_rust[step], expected, "step {step}, Rust");
        assert_eq!(&through_c[step], expected, "step {step}, C");
    }
    assert_eq!((through_rust.len(), through_c.len()), (through_core.len(), through_core.len()));
}
