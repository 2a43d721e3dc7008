//! Through the loaded library, as a host sees it: what it says of itself, what it refuses to be, that a bug in it stays in
//! it, and that it does exactly what core does.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use oauth_mail_abi::{Account, Kind, Library, Plugin};
use oauth_mail_core::hooks;
use oauth_mail_tests::{
    Servers, built,
    fixture::{Fixture, STORE_KEY, Turn, parse},
    mailgen::Generator,
};
use serde_json::{Value, json};
use tempfile::TempDir;

#[test]
fn it_describes_itself_as_core_does() {
    let library = load(&built::library());
    let mut described = library.describe();
    // What only this face has.
    assert_eq!(described.as_object_mut().unwrap().remove("abi_version"), Some(json!(1)));
    assert_eq!(described, parse(&hooks::describe()));
    assert!(library.extension("nobody.knows/1").is_none());
}

#[test]
fn fault_04_an_attachment_is_the_octets_that_were_sent() {
    let library = load(&built::library());
    let raw = b"From: a@b.test\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n\r\nsee\r\n--m\r\n\
        Content-Type: text/csv; charset=iso-8859-1; name=t.csv\r\nContent-Disposition: attachment; filename=t.csv\r\n\
        Content-Transfer-Encoding: base64\r\n\r\nU3RyYd9lOzENCg==\r\n--m--\r\n";
    let facts = library.facts(raw).unwrap();
    assert_eq!((&facts["text"], &facts["attachments"][0]["name"]), (&json!("see"), &json!("t.csv")));
    let index = facts["attachments"][0]["part_index"].as_u64().unwrap() as u32;
    assert_eq!(library.attachment(raw, index).unwrap(), b"Stra\xdfe;1\r\n");
    assert_eq!(library.attachment(raw, 99).unwrap_err().kind(), Kind::Misuse);
}

#[test]
fn what_is_not_the_library_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.so");
    fs::write(&text, "not a library at all\n").unwrap();
    let cut = folder.path().join("cut.so");
    fs::write(&cut, &fs::read(built::library()).unwrap()[..100_000]).unwrap();
    let mut others = vec![text, cut, folder.path().join("missing.so"), folder.path().to_owned()];
    others.extend(libc());
    for path in others {
        let sentence = Library::load(&path).unwrap_err().to_string();
        assert!(sentence.contains(path.to_str().unwrap()), "{sentence}");
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
        assert!(sentence.ends_with('.') && sentence.len() < 600, "{sentence}");
    }
    // None of them stands in the way of the real one.
    load(&built::library());
}

#[test]
fn a_panic_in_any_hook_closes_that_handle_and_nothing_else() {
    let servers = Turn::wait();
    let library = load(&built_to_panic());
    let host = Host::new(&library);
    let order = json!({"test_panic": true});
    assert_eq!(library.plugin(&order, |_, _, _| ()).unwrap_err().kind(), Kind::Internal);
    assert_eq!(host.plugin.open(&order).unwrap_err().kind(), Kind::Internal);

    type Hook = fn(&Account, &Value) -> Result<(), oauth_mail_abi::Error>;
    let hooks: [(&str, Hook); 4] = [
        ("authenticate", |account, order| account.authenticate(order).map(drop)),
        ("fetch_batch", |account, order| account.fetch_batch(order).map(drop)),
        ("settle_batch", |account, order| account.settle_batch(order).map(drop)),
        ("send_message", |account, order| account.send_message(order, b"").map(drop)),
    ];
    let settings = servers.incoming_settings("alice");
    let bystander = host.plugin.open(&settings).unwrap();
    consent(&servers, &bystander, "alice");
    for (name, hook) in hooks {
        let broken = host.plugin.open(&settings).unwrap();
        broken.fetch_batch(&json!({})).unwrap();
        let error = hook(&broken, &order).unwrap_err();
        assert_eq!(error.kind(), Kind::Internal, "{name}: {error:?}");
        assert!(error.remedy().is_some() && error.message().contains(name), "{error}");
        for (_, hook) in hooks {
            assert_eq!(hook(&broken, &json!({})).unwrap_err().kind(), Kind::Closed, "{name}");
        }
        // Who was there before does not notice, and the next one works on the same grant.
        bystander.fetch_batch(&json!({})).unwrap();
        let next = host.plugin.open(&settings).unwrap();
        assert_eq!(next.authenticate(&json!({"action": "status"})).unwrap()["state"], "authorized", "{name}");
        next.fetch_batch(&json!({})).unwrap();
    }
}

#[test]
fn a_closed_handle_says_so() {
    let servers = Turn::wait();
    let library = load(&built::library());
    let host = Host::new(&library);
    let account = host.plugin.open(&servers.incoming_settings("alice")).unwrap();
    consent(&servers, &account, "alice");
    account.fetch_batch(&json!({})).unwrap();
    account.close();
    account.close();
    for error in [
        account.authenticate(&json!({"action": "status"})).unwrap_err(),
        account.fetch_batch(&json!({})).map(drop).unwrap_err(),
        account.settle_batch(&json!({"results": {}})).unwrap_err(),
        account.send_message(&json!({}), b"Subject: x\r\n\r\n").unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Closed, "{error:?}");
        assert!(error.remedy().is_some(), "{error:?}");
    }
    // Dovecot may hear of it a little later.
    let end = Instant::now() + Duration::from_secs(60);
    while let connected = servers.doveadm(&["who", "-1", &servers.address("alice")]).unwrap_or_default()
        && connected.contains("imap")
    {
        assert!(Instant::now() < end, "its connection has not ended: {connected}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn two_plugins_in_one_process_share_nothing_but_a_store() {
    let servers = Turn::wait();
    let library = load(&built::library());
    let (one, other) = (Host::new(&library), Host::new(&library));
    let settings = servers.incoming_settings("alice");
    let alice = one.plugin.open(&settings).unwrap();
    consent(&servers, &alice, "alice");
    assert_eq!(state(&other.plugin, &settings), "consent_required", "its store knows nobody");
    let again = one.again(&library);
    assert_eq!(state(&again.plugin, &settings), "authorized");
    // Each writes to the log it was given.
    assert!(
        one.lines().iter().any(|(_, mailbox, line)| *mailbox == servers.address("alice") && line.contains("IMAPS"))
    );
    assert_eq!(other.lines(), []);
    // One gone, the other goes on.
    drop(alice);
    drop(one);
    again.plugin.open(&settings).unwrap().fetch_batch(&json!({})).unwrap();
    let bob = other.plugin.open(&servers.incoming_settings("bob")).unwrap();
    consent(&servers, &bob, "bob");
    assert!(!other.lines().is_empty());
}

#[test]
fn core_and_library_give_equal_results() {
    let servers = Turn::wait();
    servers.doveadm(&["expunge", "-u", &servers.address("carol"), "mailbox", "INBOX", "all"]).unwrap();
    let fixture = Fixture::new(&servers);
    let direct = scenario(&servers, &|settings| Box::new(fixture.plugin.open(&settings.to_string()).unwrap()));
    let library = load(&built::library());
    let host = Host::new(&library);
    let loaded = scenario(&servers, &|settings| Box::new(host.plugin.open(settings).unwrap()));
    assert_eq!(direct.len(), loaded.len());
    for (direct, loaded) in direct.iter().zip(&loaded) {
        assert_eq!(direct, loaded);
    }
    // The log lines as well.
    let direct: Vec<_> = fixture.log().lines().into_iter().map(|(_, mailbox, line)| (mailbox, line)).collect();
    let loaded: Vec<_> = host.lines().into_iter().map(|(_, mailbox, line)| (mailbox, line)).collect();
    assert_eq!(direct, loaded);
}

/// Consent, fetch, settle, send, mistakes; what differs from one run to the next is named instead.
fn scenario(servers: &Servers, open: &dyn Fn(&Value) -> Box<dyn Face>) -> Vec<Value> {
    let mut results = Vec::new();
    let incoming = open(&servers.incoming_settings("carol"));
    let mut note = |what: &str, value: Value| results.push(json!({ what: steady(value) }));
    note("status", incoming.authenticate(&json!({"action": "status"})));
    let started = incoming.authenticate(&json!({"action": "start"}));
    let redirect = servers.consent(started["authorize_url"].as_str().unwrap(), "carol").unwrap();
    let complete = json!({"action": "complete", "redirect": redirect.as_str()});
    note("complete", incoming.authenticate(&complete));
    note("complete again", incoming.authenticate(&complete));

    let generator = Generator::new(11, 4);
    for number in 0..8 {
        // Unchanged bytes: LMTP would add a time.
        servers.dovecot.fill(&servers.address("carol"), "INBOX", std::iter::once(generator.message(number))).unwrap();
    }
    let (header, messages) = incoming.fetch(&json!({"max_messages": 5}));
    note("header", header);
    let mut results_of = json!({});
    for (number, (key, raw, facts)) in messages.into_iter().enumerate() {
        assert_eq!(raw, generator.message(number));
        results_of[key] = json!(if number == 0 { "retry" } else { "imported" });
        note("facts", facts);
    }
    let settled = incoming.settle(&json!({"results": results_of}));
    let mut done: Vec<_> = settled["done"].as_object().unwrap().values().cloned().collect();
    done.sort_by_key(Value::to_string);
    note("settled", json!(done));
    let (header, messages) = incoming.fetch(&json!({}));
    note("rest", json!([header, messages.len()]));
    let rest: Value = messages.into_iter().map(|(key, ..)| (key, json!("imported"))).collect();
    incoming.settle(&json!({"results": rest}));

    let outgoing = open(&servers.outgoing_settings("carol"));
    let message = json!({
        "to": [servers.address("bob")], "subject": "Grüße", "text": "One line.", "idempotency_key": "scenario",
        "attachments": [{"name": "a.txt", "type": "text/plain", "content_base64": "aGk="}],
    });
    let sent = outgoing.send(&message, b"");
    assert_eq!(sent, outgoing.send(&message, b""), "the same key, the same answer");
    note("sent", sent);
    let raw = b"From: carol@example.test\r\nTo: bob@example.test\r\nSubject: raw\r\n\r\nbody\r\n";
    let envelope = json!({"envelope": {"from": servers.address("carol"), "to": [servers.address("bob")]}});
    note("raw", outgoing.send(&envelope, raw));

    for mistake in [json!({"max_messages": 0}), json!({"deadline_ms": 0}), json!({"nobody_knows": 1})] {
        note("mistake", incoming.fetch(&mistake).0);
    }
    note("wrong direction", outgoing.fetch(&json!({})).0);
    note("wrong direction", incoming.send(&message, b""));
    note("foreign key", incoming.settle(&json!({"results": {"somebody@else.test/INBOX/1.1": "imported"}})));
    note("revoke", incoming.authenticate(&json!({"action": "revoke"})));
    note("after", incoming.fetch(&json!({})).0);
    results
}

/// A handle, whichever way it was opened. Errors as their documents.
trait Face {
    fn authenticate(&self, request: &Value) -> Value;
    fn fetch(&self, request: &Value) -> (Value, Vec<(String, Vec<u8>, Value)>);
    fn settle(&self, request: &Value) -> Value;
    fn send(&self, request: &Value, raw: &[u8]) -> Value;
}

impl Face for hooks::Handle {
    fn authenticate(&self, request: &Value) -> Value {
        direct(hooks::Handle::authenticate(self, &request.to_string()))
    }

    fn fetch(&self, request: &Value) -> (Value, Vec<(String, Vec<u8>, Value)>) {
        match self.fetch_batch(&request.to_string()) {
            Ok(batch) => {
                let messages = batch.messages.into_iter().map(|one| (one.key, one.raw, parse(&one.facts)));
                (parse(&batch.header), messages.collect())
            }
            Err(error) => (error.to_json(), Vec::new()),
        }
    }

    fn settle(&self, request: &Value) -> Value {
        direct(self.settle_batch(&request.to_string()))
    }

    fn send(&self, request: &Value, raw: &[u8]) -> Value {
        direct(self.send_message(&request.to_string(), raw))
    }
}

impl Face for Account {
    fn authenticate(&self, request: &Value) -> Value {
        Account::authenticate(self, request).unwrap_or_else(|error| error.document().clone())
    }

    fn fetch(&self, request: &Value) -> (Value, Vec<(String, Vec<u8>, Value)>) {
        match self.fetch_batch(request) {
            Ok(batch) => {
                let messages = batch.iter().map(|one| (one.key.to_owned(), one.raw.to_vec(), one.facts()));
                (batch.header(), messages.collect())
            }
            Err(error) => (error.document().clone(), Vec::new()),
        }
    }

    fn settle(&self, request: &Value) -> Value {
        self.settle_batch(request).unwrap_or_else(|error| error.document().clone())
    }

    fn send(&self, request: &Value, raw: &[u8]) -> Value {
        self.send_message(request, raw).unwrap_or_else(|error| error.document().clone())
    }
}

fn direct(answer: oauth_mail_core::Result<String>) -> Value {
    answer.map_or_else(|error| error.to_json(), |text| parse(&text))
}

/// Times, ids and queue numbers give way to their names: two runs agree in all else.
fn steady(mut value: Value) -> Value {
    const VOLATILE: [&str; 7] =
        ["expires_at", "consented_at", "renewed_at", "message_id", "reply", "received_at", "key"];
    match &mut value {
        Value::Object(fields) => {
            for (name, field) in fields {
                *field = if VOLATILE.contains(&name.as_str()) && !field.is_null() {
                    json!(format!("some {name}"))
                } else {
                    steady(field.take())
                };
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|one| *one = steady(one.take())),
        _ => {}
    }
    value
}

type Lines = Arc<Mutex<Vec<(oauth_mail_abi::Level, String, String)>>>;

/// A host with one plugin, a store and a log.
struct Host {
    plugin: Plugin,
    lines: Lines,
    folder: Arc<TempDir>,
}

impl Host {
    fn new(library: &Library) -> Self {
        let (folder, lines) = (Arc::new(tempfile::tempdir().unwrap()), Lines::default());
        Self { plugin: plugin(library, folder.path(), &lines), lines, folder }
    }

    /// Another plugin on the same store.
    fn again(&self, library: &Library) -> Self {
        let (folder, lines) = (self.folder.clone(), Lines::default());
        Self { plugin: plugin(library, folder.path(), &lines), lines, folder }
    }

    fn lines(&self) -> Vec<(oauth_mail_abi::Level, String, String)> {
        self.lines.lock().unwrap().clone()
    }
}

fn plugin(library: &Library, folder: &Path, lines: &Lines) -> Plugin {
    let config = json!({
        "store": format!("sqlite:{}", folder.join("store.db").display()),
        "key": {"value": STORE_KEY},
        "private_networks": "allow",
    });
    let lines = lines.clone();
    let log = move |level, mailbox: &str, line: &str| {
        lines.lock().unwrap().push((level, mailbox.to_owned(), line.to_owned()));
    };
    library.plugin(&config, log).unwrap()
}

fn consent(servers: &Servers, account: &Account, name: &str) {
    let started = account.authenticate(&json!({"action": "start"})).unwrap();
    let redirect = servers.consent(started["authorize_url"].as_str().unwrap(), name).unwrap();
    let complete = json!({"action": "complete", "redirect": redirect.as_str()});
    assert_eq!(account.authenticate(&complete).unwrap()["state"], "authorized");
}

fn state(plugin: &Plugin, settings: &Value) -> Value {
    plugin.open(settings).unwrap().authenticate(&json!({"action": "status"})).unwrap()["state"].clone()
}

/// Only builds with `test-seam` can be counted, failed and stopped (core/src/seam).
#[test]
fn the_library_holds_no_trace_of_the_seam() {
    let library = std::fs::read(built::library()).unwrap();
    let holds = |text: &str| library.windows(text.len()).any(|bytes| bytes == text.as_bytes());
    // What the search finds when it is there.
    assert!(holds("gave no answer in time"));
    for trace in ["OAUTH_MAIL_SEAM", "net.connect", "store.take", "sqlite.connection", "a test lets"] {
        assert!(!holds(trace), "{trace}");
    }
}

fn load(path: &Path) -> Library {
    Library::load(path).unwrap_or_else(|error| panic!("{error} `make test` builds it."))
}

/// target/PROFILE/deps/library-… → target/test-panics/debug/liboauth_mail.so
fn built_to_panic() -> PathBuf {
    let built = built::library();
    built.ancestors().nth(2).unwrap().join("test-panics/debug").join(file_name())
}

fn file_name() -> String {
    format!("{}oauth_mail{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// A good library that is not ours: the one that this very process runs on.
fn libc() -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps.lines().filter_map(|line| line.split_whitespace().last()).find(|path| path.contains("/libc.so"))?;
    Some(path.into())
}
