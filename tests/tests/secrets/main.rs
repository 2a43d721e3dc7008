//! No secret leaves its place: a whole life of two mailboxes is walked, and everything that came out of the library (log
//! lines at every level, answers, errors, the store's files, spool files) is searched for every secret that went in, in
//! each spelling in which protocols carry them.

#![allow(clippy::unwrap_used)]

mod heard;
mod search;

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error as _,
    fs,
    io::Write,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use oauth_mail_core::{
    hooks::{Handle, Plugin},
    log::Logger,
    oauth::grant_id,
    settings,
    store::{self, SealingKey, Table},
};
use oauth_mail_tests::{
    Options, Servers,
    fixture::{Fixture, STORE_KEY, parse},
    idp,
    mailgen::Generator,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use self::{heard::Everything, search::Secrets};

/// Set in the process that does the walk: where its temporary files are.
const WALK: &str = "OAUTH_MAIL_TESTS_WALK";
/// Where it leaves the secrets for the search through its own output.
const TOLD: &str = "OAUTH_MAIL_TESTS_TOLD";

#[test]
fn no_secret_is_found_in_what_the_library_says_and_writes() {
    if std::env::var_os(WALK).is_some() {
        return walk();
    }
    // A process of its own, whose temporary folder holds what the library puts there and nothing else.
    let (folder, told) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "no_secret_is_found_in_what_the_library_says_and_writes", "--nocapture"])
        .env(WALK, "1")
        .env(TOLD, told.path())
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("searched for"), "{said}");
    // Also what a panic wrote to the standard error of the process.
    let secrets = Secrets(serde_json::from_slice(&fs::read(told.path()).unwrap()).unwrap());
    assert!(said.contains("the host's log function failed"), "{said}");
    assert_eq!(secrets.found_in(said.as_bytes()), Vec::<String>::new());
    let summary = said.lines().filter(|line| line.starts_with("searched for")).collect::<String>();
    writeln!(std::io::stdout(), "{summary}, also in {} bytes of output: 0 hits", said.len()).unwrap();
}

/// Consent, refresh, fetch, send, refusals, a talkative provider, revocation; and then the search.
fn walk() {
    Everything::listen();
    let servers = Servers::start(Options { parent: Some("/tmp".into()), ..Options::default() }).unwrap();
    let fixture = Fixture::new(&servers);
    let begun_at = fixture.clock.now();
    let mut walk = Walk { servers: &servers, fixture: &fixture, secrets: Secrets::default(), said: Vec::new() };
    walk.secrets.add("the store's key", STORE_KEY);
    walk.secrets.add("the client secret", idp::BASIC.1);

    let incoming_settings = confidential(servers.incoming_settings("alice"));
    let outgoing_settings = confidential(servers.outgoing_settings("alice"));
    let incoming = fixture.plugin.open(&incoming_settings.to_string()).unwrap();
    let outgoing = fixture.plugin.open(&outgoing_settings.to_string()).unwrap();
    walk.consent(&incoming, &incoming_settings);
    let generator = Generator::new(5, 20);
    for number in 0..20 {
        servers.deliver("alice", &generator.message(number)).unwrap();
    }
    // Larger than what is kept in memory: goes through spool files.
    let large = format!("Subject: large\r\n\r\n{}", "A line of a large message.\r\n".repeat(100_000));
    servers.dovecot.fill(&servers.address("alice"), "INBOX", (0..4).map(|_| large.clone().into_bytes())).unwrap();

    walk.fetch(&incoming);
    walk.send(&outgoing);
    walk.authenticate(&incoming, json!({"action": "status"}));

    // A refresh, and a login that is refused.
    fixture.clock.advance(3_600);
    walk.reconnect(&incoming, &incoming_settings);
    servers.idp.revoke_access_tokens(&servers.address("alice")).unwrap();
    walk.reconnect(&incoming, &incoming_settings);
    walk.send(&fixture.plugin.open(&outgoing_settings.to_string()).unwrap());
    // Another mailbox with alice's token: refused for good, in both protocols.
    for mut settings in [servers.incoming_settings("bob"), servers.outgoing_settings("bob")] {
        let form = settings.as_object_mut().unwrap().values_mut().next().unwrap();
        form["advanced"]["consenting_user"] = json!(servers.address("alice"));
        let bob = fixture.plugin.open(&confidential(settings).to_string()).unwrap();
        walk.fetch(&bob);
        walk.send(&bob);
        walk.note_tokens(&incoming_settings);
    }

    // A provider that repeats what it was told, in each answer that it can give.
    for status in [400, 401, 403, 429, 500, 200] {
        walk.note_tokens(&incoming_settings);
        let all: Vec<_> = walk.secrets.0.keys().cloned().collect();
        let echo = format!("you sent {} and Basic {}", all.join(" "), BASE64_STANDARD.encode(idp::BASIC.1));
        let body = json!({"error": "temporarily_unavailable", "error_description": echo, "trace_id": all[0]});
        servers.idp.fault(json!({"status": status, "body": body.to_string()})).unwrap();
        fixture.clock.advance(4_000);
        walk.reconnect(&incoming, &incoming_settings);
        walk.authenticate(&incoming, json!({"action": "status"}));
        servers.idp.reset_faults().unwrap();
        servers.idp.fault(json!({"status": status, "body": format!("<html>{echo}</html>")})).unwrap();
        fixture.clock.advance(4_000);
        walk.reconnect(&incoming, &incoming_settings);
        servers.idp.reset_faults().unwrap();
    }
    fixture.clock.advance(4_000);
    walk.reconnect(&incoming, &incoming_settings);

    // Redirects with codes that are good and are not taken; settings that are wrong. A provider's ID token is of the real
    // time.
    fixture.clock.advance(begun_at - fixture.clock.now());
    walk.misuse(&incoming, &incoming_settings);
    let mut wrong = incoming_settings.clone();
    wrong["incoming"]["client_secret"] = json!({"value": idp::BASIC.1});
    wrong["incoming"]["port"] = json!("993");
    walk.say(fixture.plugin.open(&wrong.to_string()).map(|_| String::new()));
    let store = format!("sqlite:{}", fixture.store_file().display());
    for config in [
        json!({"store": STORE_KEY, "key": {"value": STORE_KEY}}),
        json!({"store": store, "key": STORE_KEY}),
        json!({"store": store, "key": {STORE_KEY: "value"}}),
        json!({"store": store, "key": {"value": format!("{STORE_KEY}AAAA")}}),
        json!({"store": store, "key": {"value": STORE_KEY}, "private_networks": STORE_KEY}),
        json!({"store": store, "key": {"value": STORE_KEY}, STORE_KEY: true}),
    ] {
        let refused = Plugin::new(&config.to_string(), fixture.log().logger()).map(|_| String::new());
        assert!(refused.is_err());
        walk.say(refused);
    }

    walk.keys_and_passwords(&incoming_settings);
    walk.panics(&incoming_settings);

    // The store's files while they are in use, and all that lies in the temporary folder.
    walk.search();
    walk.authenticate(&incoming, json!({"action": "revoke"}));
    walk.fetch(&incoming);
    walk.search();
    let told = walk.secrets.0.len();
    assert!(told >= 16, "{:?}", walk.secrets.0.values());
    assert!(fixture.log().text().contains("AUTHENTICATE"), "the transcript was on");
    let lines = Everything::lines();
    let crates: BTreeSet<_> = lines.iter().filter_map(|line| line.split([':', ' ']).next()).collect();
    assert!(crates.contains("reqwest"), "other crates were heard: {crates:?}");
    fs::write(std::env::var_os(TOLD).unwrap(), serde_json::to_vec(&walk.secrets.0).unwrap()).unwrap();
    let mut out = std::io::stdout();
    let (own, others) = (fixture.log().lines().len(), lines.len());
    writeln!(out, "searched for {told} secrets in {own} lines of the library, {others} of {crates:?}").unwrap();
}

/// A client with a secret, and the transcript on.
fn confidential(mut settings: Value) -> Value {
    let is_incoming = settings.get("incoming").is_some();
    let form = settings.as_object_mut().unwrap().values_mut().next().unwrap();
    form["client_id"] = json!(idp::BASIC.0);
    form["client_secret"] = json!(idp::BASIC.1);
    form["scope"] = json!("openid email offline_access mail");
    if is_incoming {
        form["enable_email_debug"] = json!(true);
    }
    settings
}

struct Walk<'a> {
    servers: &'a Servers,
    fixture: &'a Fixture<'a>,
    secrets: Secrets,
    /// Answers and errors.
    said: Vec<String>,
}

impl Walk<'_> {
    fn consent(&mut self, handle: &Handle, settings: &Value) {
        let redirect = self.redirect(handle);
        self.authenticate(handle, json!({"action": "complete", "redirect": redirect.as_str()}));
        assert!(self.said.last().unwrap().contains("\"authorized\""), "{:?}", self.said.last());
        self.note_tokens(settings);
    }

    /// Start, sign in; notes code, verifier and nonce, which live until `complete`.
    fn redirect(&mut self, handle: &Handle) -> Url {
        self.authenticate(handle, json!({"action": "start"}));
        let started = parse(self.said.last().unwrap());
        let redirect = self.servers.consent(started["authorize_url"].as_str().unwrap(), "alice").unwrap();
        let parameter = |name: &str| redirect.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
        let (state, code) = (parameter("state"), parameter("code"));
        let pending = self.record(Table::Consent, &consent_id(&state));
        self.secrets.add("a code verifier", pending["code_verifier"].as_str().unwrap());
        self.secrets.add("a code", &code);
        redirect
    }

    fn misuse(&mut self, handle: &Handle, settings: &Value) {
        let redirect = self.redirect(handle);
        let mut elsewhere = redirect.clone();
        elsewhere.set_path("/elsewhere");
        let mut twice = redirect.clone();
        twice.query_pairs_mut().append_pair("code", "x");
        let mut foreign = redirect.clone();
        foreign.query_pairs_mut().clear().extend_pairs(redirect.query_pairs().filter(|(key, _)| key != "iss"));
        foreign.query_pairs_mut().append_pair("iss", "https://evil.test");
        let bare = redirect.query().unwrap().to_owned();
        for url in [elsewhere.as_str(), twice.as_str(), &bare, foreign.as_str(), redirect.as_str()] {
            self.authenticate(handle, json!({"action": "complete", "redirect": url}));
            self.authenticate(handle, json!({"action": "status", "redirect": url}));
        }
        self.say(handle.authenticate(redirect.as_str()));
        self.say(handle.authenticate(&json!({"action": redirect.as_str()}).to_string()));
        self.say(handle.authenticate(&json!({ redirect.as_str(): 1 }).to_string()));
        self.note_tokens(settings);
        self.consent(handle, settings);
    }

    /// Grants that sign, with keys that are good and keys that are not, and a store that wants a password.
    fn keys_and_passwords(&mut self, settings: &Value) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["app.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        let pem = key.serialize_pem();
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        self.secrets.add("the certificate's key", &body[..48]);
        self.secrets.add("the certificate's key, its end", &body[body.len() - 48..]);
        let broken = "Br0kenKeyCanary".repeat(3);
        self.secrets.add("a broken key", &broken);
        let account = |key: &str| {
            json!({"type": "service_account", "client_email": "app@project.test", "private_key_id": "1",
                "private_key": key, "token_uri": self.servers.idp.token_url()})
            .to_string()
        };
        for advanced in [
            json!({"client_certificate": {"certificate": certificate.pem(), "private_key": pem}}),
            json!({"client_certificate": {"certificate": certificate.pem(), "private_key": broken}}),
            json!({"client_certificate": {"certificate": broken, "private_key": pem}}),
            json!({"client_certificate": {"certificate": certificate.pem(), "private_key": {"value": broken}}}),
            json!({"client_certificate": {"certificate": certificate.pem(), "private_key": [broken]}}),
            json!({"grant": "jwt_bearer", "service_account": account(&pem)}),
            json!({"grant": "jwt_bearer", "service_account": account(&broken)}),
            json!({"grant": "jwt_bearer", "service_account": broken}),
            json!({"grant": "password", "service_account": broken, "password": broken}),
        ] {
            for grant in ["client_credentials", "authorization_code"] {
                let mut changed = settings.clone();
                let into = &mut changed["incoming"]["advanced"];
                into["grant"] = json!(grant);
                for (name, value) in advanced.as_object().unwrap() {
                    into[name] = value.clone();
                }
                match self.fixture.plugin.open(&changed.to_string()) {
                    Ok(handle) => {
                        self.authenticate(&handle, json!({"action": "start"}));
                        self.authenticate(&handle, json!({"action": "status"}));
                        self.fetch(&handle);
                    }
                    Err(error) => self.say(Err(error)),
                }
            }
        }
        let password = "St0rePasswordCanary";
        self.secrets.add("the store's password", password);
        for store in [
            format!("postgres://helpdesk:{password}@127.0.0.1:1/mail?sslmode=disable"),
            format!("postgres://helpdesk:{password}@127.0.0.1:99999/mail"),
            format!("postgres://helpdesk:{password}@localhost:1/mail?sslmode={password}"),
            format!("mysql://helpdesk:{password}@localhost/mail"),
            format!("sqlite:/{password}/missing/store.db"),
        ] {
            let config = json!({"store": store, "key": {"value": STORE_KEY}});
            // The path of a file is no secret.
            let refused = Plugin::new(&config.to_string(), self.fixture.log().logger()).map(|_| String::new());
            if !store.starts_with("sqlite") {
                self.say(refused);
            }
        }
    }

    /// A host whose log function panics with what it was told: the texts of panics say no more than the log does.
    fn panics(&mut self, settings: &Value) {
        let config = json!({
            "store": format!("sqlite:{}", self.fixture.store_file().display()),
            "key": {"value": STORE_KEY},
            "private_networks": "allow",
        });
        let settings = settings.to_string();
        for line_at in [0, 1, 4] {
            let (config, settings) = (config.to_string(), settings.clone());
            let seen = Arc::new(Mutex::new(0));
            let logger = Logger::new(move |_, _, line| {
                let number = {
                    let mut seen = seen.lock().unwrap();
                    *seen += 1;
                    *seen - 1
                };
                assert!(number != line_at, "the host's log function failed at {line}");
            });
            let outcome = thread::spawn(move || {
                let plugin = Plugin::new(&config, logger)?;
                let handle = plugin.open(&settings)?;
                handle.authenticate(&json!({"action": "start"}).to_string())?;
                handle.fetch_batch("{}").map(|_| String::new())
            })
            .join();
            match outcome {
                Ok(result) => self.say(result),
                Err(payload) => {
                    let text = payload.downcast_ref::<String>().cloned();
                    self.said.push(text.unwrap_or_else(|| "a panic without words".into()));
                }
            }
        }
    }

    fn reconnect(&mut self, handle: &Handle, settings: &Value) {
        // Whether it works or not: what is said is what counts.
        let _ = self.servers.doveadm(&["kick", &self.servers.address("alice")]);
        self.fetch(handle);
        let other = self.fixture.plugin.open(&settings.to_string()).unwrap();
        self.fetch(&other);
        self.note_tokens(settings);
    }

    fn fetch(&mut self, handle: &Handle) {
        let end = Arc::new(AtomicBool::new(false));
        // Spool files have no name: they are seen while they are open.
        let watcher = thread::spawn({
            let (end, secrets) = (end.clone(), self.secrets.clone());
            move || {
                let mut found = Vec::new();
                while !end.load(Ordering::SeqCst) {
                    found.extend(secrets.found_in_open_files());
                    thread::sleep(Duration::from_millis(50));
                }
                found
            }
        });
        let fetched = handle.fetch_batch(r#"{"max_messages": 12, "max_bytes": 4000000}"#);
        if let Ok(batch) = &fetched {
            self.said.push(batch.header.clone());
            self.said.extend(batch.messages.iter().map(|message| format!("{} {}", message.key, message.facts)));
        }
        let results: BTreeMap<_, _> =
            fetched.iter().flat_map(|batch| &batch.messages).map(|one| (one.key.clone(), "imported")).collect();
        self.say(fetched.map(|_| String::new()));
        self.say(handle.settle_batch(&json!({"results": results}).to_string()));
        end.store(true, Ordering::SeqCst);
        assert_eq!(watcher.join().unwrap(), Vec::<String>::new());
    }

    fn send(&mut self, handle: &Handle) {
        let request = json!({"to": [self.servers.address("bob")], "subject": "Walk", "text": "Nothing secret."});
        self.say(handle.send_message(&request.to_string(), b""));
    }

    fn authenticate(&mut self, handle: &Handle, request: Value) {
        self.say(handle.authenticate(&request.to_string()));
    }

    fn say(&mut self, result: oauth_mail_core::Result<String>) {
        match result {
            Ok(answer) => self.said.push(answer),
            Err(error) => {
                self.said.push(format!("{error} {error:?} {error:#?} {}", error.to_json()));
                let mut source = error.source();
                while let Some(error) = source {
                    self.said.push(format!("{error} {error:?}"));
                    source = error.source();
                }
            }
        }
    }

    /// The tokens that are in the store now.
    fn note_tokens(&mut self, settings: &Value) {
        let account = settings::parse(&settings.to_string()).unwrap();
        let grant = self.record(Table::Grant, &grant_id(&account));
        self.secrets.add("an access token", grant["access_token"].as_str().unwrap());
        self.secrets.add("a refresh token", grant["refresh_token"].as_str().unwrap());
    }

    /// A record, opened with the key that this test knows.
    fn record(&self, table: Table, id: &str) -> Value {
        let key = SealingKey::from_config(&json!({"value": STORE_KEY})).unwrap();
        let store = store::open(&format!("sqlite:{}", self.fixture.store_file().display()), key).unwrap();
        serde_json::from_slice(&store.read(table, id).unwrap().unwrap().bytes).unwrap()
    }

    fn search(&self) {
        let none = Vec::<String>::new();
        for (level, mailbox, line) in self.fixture.log().lines() {
            assert_eq!(self.secrets.found_in(line.as_bytes()), none, "{level:?} {mailbox}: {line}");
            assert_eq!(self.secrets.found_in(mailbox.as_bytes()), none);
        }
        for line in Everything::lines() {
            assert_eq!(self.secrets.found_in(line.as_bytes()), none, "{line}");
        }
        for text in &self.said {
            assert_eq!(self.secrets.found_in(text.as_bytes()), none, "{text}");
        }
        let files = files_below(&std::env::temp_dir());
        let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
        for name in ["store.db", "store.db-wal", "store.db-shm"] {
            assert!(names.iter().any(|one| one == name), "{names:?}");
        }
        for path in files {
            assert_eq!(self.secrets.found_in(&fs::read(&path).unwrap()), none, "{}", path.display());
        }
        assert_eq!(self.secrets.found_in_open_files(), none);
    }
}

/// As the store names a consent that waits: SHA-256 over the length and the text of its state.
fn consent_id(state: &str) -> String {
    let mut hash = Sha256::new();
    hash.update((state.len() as u64).to_be_bytes());
    hash.update(state);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries
        .flat_map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { vec![entry.path()] })
        .collect()
}
