//! `host-sample serve` as processes: from nothing, and two nodes on one PostgreSQL of which one dies. Needs `host-sample` and
//! the library built.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use oauth_mail_sandbox::{
    Config, Sandbox,
    faults::{Face, Fault, What},
};
use oauth_mail_tests::{built, ca::Ca, fixture::STORE_KEY, postgres::Postgres};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Far beyond what any step here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// From the death of a node to the first round of the other one over its mailbox: a minute is promised, the rest is for
/// whoever shares the machine.
const TAKE_OVER: Duration = Duration::from_secs(90);
const SECRETS: [&str; 4] = ["mail-app-secret", "canary-database-password", "canary-admin-password", "Bearer "];

#[test]
fn one_command_from_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("desk");
    let start = || Node::start(&["--data", data.to_str().unwrap()]);
    let node = start();
    let password = node.said("administrator")["password"].as_str().unwrap().to_owned();
    let url = node.said("serving")["url"].as_str().unwrap().to_owned();
    assert!(password.len() >= 20, "{password}");
    assert_eq!(get(&url, "/healthz"), (200, "ok\n".to_owned()));
    let (status, metrics) = get(&url, "/metrics");
    assert!(status == 200 && metrics.contains("# TYPE host_fetch_rounds_total counter"), "{metrics}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for file in ["serve.key", "helpdesk.db", "store.db"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
    let (status, log) = node.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains(&password), "{log}");

    let node = start();
    node.said("serving");
    let (status, _) = node.stop();
    assert_eq!(status.code(), Some(0));
    for file in fs::read_dir(&data).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(password.len()).any(|part| part == password.as_bytes()), "the password is on the disk");
    }
}

#[test]
fn a_node_that_dies_is_made_up_for_and_no_request_is_doubled() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let postgres = Postgres::start(&Ca::create(folder.path()).unwrap()).unwrap();
    let sandbox = Sandbox::start(Config::default()).unwrap();
    let settings = settings(&sandbox, &postgres.url(), &path("desk.key"));
    fs::write(path("alice.json"), settings.to_string()).unwrap();
    fs::write(path("desk.key"), STORE_KEY).unwrap();
    fs::set_permissions(path("desk.key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(path("admin"), "canary-admin-password\n").unwrap();
    let consent = Command::new(built::program("host-sample")).args(["consent", &path("alice.json")]).output().unwrap();
    assert!(consent.status.success(), "{consent:?}");

    let node = |data: &str, more: &[&str]| {
        let url = postgres.url();
        let key = path("desk.key");
        let fixed = ["--data", data, "--database", &url, "--key-file", &key, "--threads", "2"];
        Node::start(&[&fixed[..], more].concat())
    };
    let admin = path("admin");
    let first = node(&path("one"), &["--import", &path("alice.json"), "--admin-password-file", &admin]);
    let second = node(&path("two"), &[]);
    let nodes = [first, second].map(|node| {
        let serving = node.said("serving");
        (serving["node"].as_str().unwrap().to_owned(), serving["url"].as_str().unwrap().to_owned(), node)
    });
    let number = |sql: &str| postgres.store_sql(sql).unwrap().trim().parse::<i64>().unwrap();
    let due = || postgres.store_sql("UPDATE runs SET next_run = floor(extract(epoch FROM now()))::bigint").unwrap();
    deliver(&sandbox, 1..=3);
    wait("the first messages are requests", || {
        due();
        number("SELECT count(*) FROM requests") == 3
    });

    // Settling hangs: what was committed is not settled, and the lease is held.
    let slow = What { slow_ms: Some(600_000), ..What::default() };
    wait("no round runs", || number("SELECT count(*) FROM runs WHERE lease_owner IS NOT NULL") == 0);
    for verb in ["UID STORE", "UID MOVE", "UID COPY"] {
        let fault = Fault { face: Face::Imap, matches: verb.into(), skip: 0, times: 9, what: slow.clone() };
        sandbox.state.faults.order(fault);
    }
    deliver(&sandbox, 4..=8);
    due();
    wait("the next messages are committed", || number("SELECT count(*) FROM requests") == 8);
    let owner = postgres.store_sql("SELECT lease_owner FROM runs").unwrap().trim().to_owned();
    let (dead, alive): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|(name, ..)| *name == owner);
    let [(dead, dead_url, dead_node)] = <[_; 1]>::try_from(dead).ok().expect("one of the two holds the lease");
    let (alive, url, alive_node) = alive.into_iter().next().unwrap();
    let died = Instant::now();
    dead_node.kill();
    sandbox.state.faults.clear();
    assert!(ureq::get(format!("{dead_url}/healthz")).call().is_err());

    while postgres.store_sql("SELECT node FROM runs WHERE result = 'ok'").unwrap().trim() != alive {
        assert_eq!(get(&url, "/healthz").0, 200, "any node serves the page meanwhile");
        assert!(died.elapsed() < TAKE_OVER, "{dead} is not made up for after {TAKE_OVER:?}");
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(number("SELECT duplicate FROM runs"), 5, "they came again and were known");
    deliver(&sandbox, 9..=9);
    wait("new mail is a request", || {
        due();
        number("SELECT count(*) FROM requests") == 9
    });
    assert_eq!(number("SELECT count(DISTINCT subject) FROM requests"), 9);
    assert_eq!(number("SELECT count(*) FROM messages"), 9);
    let (status, metrics) = get(&url, "/metrics");
    assert_eq!(status, 200);
    for sample in ["host_messages_total{outcome=\"duplicate\"} 5", "host_mailboxes{state=\"ok\"} 1"] {
        assert!(metrics.contains(sample), "{sample}: {metrics}");
    }

    let (status, log) = alive_node.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(number("SELECT count(*) FROM runs WHERE lease_owner IS NOT NULL"), 0, "nothing is held any more");
    for line in log.lines() {
        let document: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let concerns_one = ["round", "health", "send", "lease_lost"].contains(&document["event"].as_str().unwrap());
        assert!(!concerns_one || document["mailbox"] == 1, "{line}");
    }
    assert!(log.contains("\"event\":\"round\""), "{log}");
    let dump = postgres.dump().unwrap();
    for secret in SECRETS {
        assert!(!log.contains(secret) && !dump.contains(secret), "{secret} is in the log or in the database");
    }
}

#[test]
fn a_stop_ends_what_hangs_and_a_restart_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let sandbox = Sandbox::start(Config::default()).unwrap();
    let settings = settings(&sandbox, &format!("sqlite:{}", path("store.db")), &path("serve.key"));
    fs::write(path("alice.json"), settings.to_string()).unwrap();
    fs::write(path("serve.key"), STORE_KEY).unwrap();
    fs::set_permissions(path("serve.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let consent = Command::new(built::program("host-sample")).args(["consent", &path("alice.json")]).output().unwrap();
    assert!(consent.status.success(), "{consent:?}");
    let slow = What { slow_ms: Some(600_000), ..What::default() };
    sandbox.state.faults.order(Fault { face: Face::Imap, matches: "UID FETCH".into(), skip: 0, times: 9, what: slow });
    deliver(&sandbox, 1..=1);
    let data = path("");
    let node = Node::start(&["--data", &data, "--import", &path("alice.json")]);
    let url = node.said("serving")["url"].as_str().unwrap().to_owned();
    wait("a round runs", || get(&url, "/metrics").1.contains("host_rounds_running 1\n"));
    let began = Instant::now();
    let (status, log) = node.stop();
    // The drain of five seconds, two for calls to end, and what a busy machine adds.
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let results = ["abandoned", "stopped"].map(|result| format!("\"result\":\"{result}\""));
    assert!(results.iter().any(|result| log.contains(result)), "{log}");
    let kept = |sql: &str| {
        let database = rusqlite::Connection::open(path("helpdesk.db")).unwrap();
        database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(kept("SELECT count(*) FROM runs WHERE lease_until = 0 AND rounds = 0 AND next_run <= unixepoch()"), 1);

    sandbox.state.faults.clear();
    let node = Node::start(&["--data", &data]);
    node.said("serving");
    wait("the message is a request", || kept("SELECT count(*) FROM requests") == 1);
    let (status, log) = node.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(kept("SELECT count(*) FROM runs WHERE rounds = 1 AND result = 'ok' AND failures = 0"), 1, "{log}");
}

#[test]
fn the_health_endpoint_says_when_the_database_is_away_and_work_goes_on_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut postgres = Postgres::start(&Ca::create(folder.path()).unwrap()).unwrap();
    let data = folder.path().join("desk");
    let node = Node::start(&["--data", data.to_str().unwrap(), "--database", &postgres.url()]);
    let url = node.said("serving")["url"].as_str().unwrap().to_owned();
    wait("all is well", || get(&url, "/healthz").0 == 200);
    postgres.stop();
    wait("the database is missed", || get(&url, "/healthz").0 == 503);
    let (status, why) = get(&url, "/healthz");
    assert!(status == 503 && why.contains("PostgreSQL") && !why.contains("canary"), "{status} {why}");
    assert_eq!(get(&url, "/metrics").0, 503);
    postgres.restart().unwrap();
    wait("all is well again", || get(&url, "/healthz").0 == 200);
    assert_eq!(get(&url, "/metrics").0, 200);
    let (status, log) = node.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("canary"), "{log}");
}

/// One process, what it said on standard output, and its log.
struct Node {
    child: Child,
    said: Mutex<mpsc::Receiver<Value>>,
    log: Arc<Mutex<String>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Node {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(built::program("host-sample"));
        command.args(["--json", "--log", "info", "serve", "--listen", "127.0.0.1:0", "--drain", "5"]).args(arguments);
        command.env_remove("OAUTH_MAIL_LIBRARY").env_remove("HOST_SAMPLE_DATABASE");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, said) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            let documents = stdout.lines().map_while(Result::ok).map(|line| serde_json::from_str(&line).unwrap());
            documents.for_each(|document| drop(sender.send(document)));
        });
        let (log, stderr) = (Arc::new(Mutex::new(String::new())), BufReader::new(child.stderr.take().unwrap()));
        let kept = log.clone();
        let reader = thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| *kept.lock().unwrap() += &(line + "\n"));
        });
        Self { child, said: Mutex::new(said), log, reader: Some(reader) }
    }

    /// The next document of this event.
    fn said(&self, event: &str) -> Value {
        let said = self.said.lock().unwrap();
        loop {
            match said.recv_timeout(PATIENCE) {
                Ok(document) if document["event"] == event => return document,
                Ok(_) => {}
                Err(error) => panic!("no {event} was said ({error}): {}", self.log.lock().unwrap()),
            }
        }
    }

    /// As a service manager does it.
    fn stop(mut self) -> (ExitStatus, String) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "it does not stop: {}", self.log.lock().unwrap());
            thread::sleep(Duration::from_millis(10));
        };
        self.reader.take().unwrap().join().unwrap();
        (status, self.log.lock().unwrap().clone())
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{}", self.log.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// An application that needs nobody's consent; what was imported is marked as seen.
fn settings(sandbox: &Sandbox, store: &str, key: &str) -> Value {
    let facts = sandbox.facts();
    json!({
        "plugin": {"store": store, "key": {"file": key}},
        "incoming": {
            "authentication_type": "OAuth",
            "connection_protocol": "POP/IMAP/POPS/IMAPS",
            "server_name": "localhost",
            "username": "alice@example.test",
            "client_id": "mail-app",
            "client_secret": "mail-app-secret",
            "authorize_url": facts["authorize_url"],
            "access_token_url": facts["token_url"],
            "scope": "mail",
            "redirect_url": "http://127.0.0.1:1/callback",
            "email_addresses": ["alice@example.test"],
            "protocol": "IMAPS",
            "port": sandbox.imaps_port,
            "fetch_interval_minutes": 5,
            "advanced": {
                "grant": "client_credentials",
                "ca_file": sandbox.ca_file,
                "issuer": facts["issuer"],
                "fetch_since": "all",
                "after_import": "mark_seen",
            },
        },
    })
}

fn deliver(sandbox: &Sandbox, numbers: std::ops::RangeInclusive<u32>) {
    for number in numbers {
        let raw = format!(
            "From: bob@example.test\r\nTo: alice@example.test\r\nSubject: Question {number}\r\n\
             Message-ID: <q{number}@example.test>\r\n\r\nHello\r\n"
        );
        assert!(sandbox.state.mail.deliver("bob@example.test", "alice@example.test", raw.as_bytes()));
    }
}

fn get(url: &str, path: &str) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent.get(format!("{url}{path}")).call().unwrap();
    (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "{what}: not after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(300));
    }
}
