//! The sample host as a process: what a person and a script see of it. Needs `host-sample` and the library built.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use oauth_mail_tests::{
    Options, Servers, browser, built, janitor, mailgen::Generator, process, process::ProcessId, relay::Relay,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Far beyond what any command here takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn every_fault_is_named_at_once_with_its_label() {
    let desk = Desk::empty();
    desk.write(&json!({
        "incoming": {"connection_protocol": "POP/IMAP/POPS/IMAPS", "server_name": "imap.example.com:993", "port": 0,
                     "username": "", "client_id": "x", "authorize_url": "http://idp.example/authorize"},
        "outgoing": {"connection_protocol": "SMTP/SMTPS", "server_name": "smtp.example.com", "enable_tls": false},
    }));
    let seen = desk.run(&["check"]);
    assert_eq!(seen.code, 2, "{seen:?}");
    for label in
        ["Server Name / IP Address", "Port", "Username", "Authorize URL", "Client ID", "Enable TLS", "Redirect URL"]
    {
        assert!(seen.stderr.contains(label), "{label}: {}", seen.stderr);
    }
    for line in seen.stderr.lines() {
        assert!(line.starts_with("incoming: ") || line.starts_with("outgoing: "), "{line}");
    }

    fs::write(desk.file(), "{\"incoming\": ").unwrap();
    one_sentence(&desk.run(&["check"]), 2);
    one_sentence(&desk.run(&["--library", "/nowhere/liboauth_mail.so", "fetch"]), 2);
    desk.write(&json!({"incoming": {}}));
    one_sentence(&desk.run(&["--library", "/nowhere/liboauth_mail.so", "check"]), 1);
}

#[test]
fn the_settings_of_the_readme_pass_the_check() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let example = readme.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let desk = Desk::empty();
    fs::write(desk.file(), example.replace('…', "00000000-1111-2222-3333-444444444444")).unwrap();
    let seen = desk.run(&["check"]);
    assert_eq!((seen.code, seen.stdout.as_str()), (0, "incoming: settings are fine\n"), "{seen:?}");
}

#[test]
fn consent_fetch_and_send_from_the_command_line() {
    let servers = servers();
    let desk = Desk::of(&servers, "alice");
    one_sentence(&desk.run(&["fetch"]), 3);
    assert_eq!(desk.run(&["status"]).code, 3);

    let (page, seen) = desk.consent(&servers, |url| servers.deny(url, "alice"));
    assert_eq!(seen.code, 3, "{seen:?}");
    assert!(page.contains("not connected"), "{page}");
    // One document says where to go, one says why it ended.
    assert_eq!((seen.documents().len(), seen.stderr.lines().count()), (2, 1), "{seen:?}");

    let (page, seen) = desk.consent(&servers, |url| servers.consent(url, "alice"));
    assert_eq!(seen.code, 0, "{seen:?}");
    assert!(page.contains("The mailbox is connected"), "{page}");
    let events: Vec<_> = seen.documents().iter().map(|document| document["event"].clone()).collect();
    assert_eq!(events, ["consent_required", "consent", "consent"], "one consent serves both forms");
    let status = desk.run(&["status"]);
    assert!(status.stdout.starts_with("incoming: authorized"), "{status:?}");

    for number in 0..3 {
        servers.deliver("alice", &Generator::new(7, 2).message(number)).unwrap();
    }
    let first = desk.run(&["--json", "fetch"]);
    assert_eq!((first.code, first.last()["created"].as_u64()), (0, Some(3)), "{first:?}");
    let second = desk.run(&["--json", "fetch"]);
    assert_eq!(
        (second.code, second.documents().len(), second.last()["created"].as_u64()),
        (0, 1, Some(0)),
        "{second:?}"
    );
    assert_eq!(desk.run(&["--json", "requests", "list"]).documents().len(), 3);

    let attachment = desk.folder.path().join("Übersicht.csv");
    fs::write(&attachment, "a;b\n").unwrap();
    let attachment = attachment.to_str().unwrap();
    let send = ["--json", "send", "--to", "Bob <bob@example.test>", "--subject", "Grüße", "--text", "It works"];
    let sent = desk.run(&[&send[..], &["--attachment", attachment, "--idempotency-key", "k"]].concat());
    assert_eq!((sent.code, sent.last()["result"]["outcome"].as_str()), (0, Some("sent")), "{sent:?}");
    let again = desk.run(&[&send[..], &["--attachment", attachment, "--idempotency-key", "k"]].concat());
    assert_eq!(again.last(), sent.last(), "the same key twice is one message");
    servers.wait_for("bob", "INBOX", 1).unwrap();
    let nobody = desk.run(&["send", "--to", "nobody@example.test", "--text", "x"]);
    assert_eq!(nobody.code, 1, "{nobody:?}");
    assert!(nobody.stdout.contains("Recipient: nobody@example.test."), "{nobody:?}");
    one_sentence(&desk.run(&["send", "--to", "no address", "--text", "x"]), 1);

    // A dead server: one sentence that says what to check.
    let mut settings = desk.settings();
    settings["incoming"]["port"] = json!(free_port());
    settings["outgoing"]["port"] = json!(free_port());
    desk.write(&settings);
    one_sentence(&desk.run(&["fetch"]), 1);
    assert_eq!(desk.run(&["send", "--to", "bob@example.test", "--text", "x"]).code, 1);
    assert_eq!(servers.count("bob", "INBOX").unwrap(), 1);
    let aside = desk.run(&["quarantine"]);
    assert_eq!((aside.code, &*aside.stdout), (0, "Nothing was put aside.\n"), "{aside:?}");
}

#[test]
fn a_device_code_is_shown_and_waited_for() {
    let servers = servers();
    let desk = Desk::of(&servers, "bob");
    let mut settings = desk.settings();
    for form in ["incoming", "outgoing"] {
        settings[form]["advanced"]["grant"] = json!("device_code");
    }
    desk.write(&settings);
    let mut child = desk.spawn(&["--json", "consent"]);
    let stdout = lines_of(&mut child);
    let shown: Value = serde_json::from_str(&stdout.recv_timeout(PATIENCE).unwrap()).unwrap();
    let text = |name: &str| shown["device"][name].as_str().unwrap_or_else(|| panic!("{shown}"));
    let person = browser::Person { login: &servers.address("bob"), password: "bob-password", deny: false };
    browser::enter_device_code(servers.ca_file(), text("verification_uri"), text("user_code"), &person).unwrap();
    let seen = end_of(child, stdout.into_iter());
    assert_eq!((seen.code, seen.documents().len()), (0, 2), "one code serves both forms: {seen:?}");
    assert_eq!(desk.run(&["--json", "fetch"]).code, 0);
}

#[test]
fn an_application_is_connected_at_once() {
    let servers = servers();
    let client = json!({
        "client_id": "desk-application", "client_secret": "a-secret", "redirect_uris": [], "response_types": [],
        "grant_types": ["client_credentials"], "scope": "mail", "test_mailbox": servers.address("bob"),
    });
    servers.idp.register(client).unwrap();
    let desk = Desk::of(&servers, "bob");
    let mut settings = desk.settings();
    for form in ["incoming", "outgoing"] {
        settings[form]["advanced"]["grant"] = json!("client_credentials");
        settings[form]["client_id"] = json!("desk-application");
        settings[form]["client_secret"] = json!({"env": "MAIL_CLIENT_SECRET"});
    }
    desk.write(&settings);
    assert_eq!(desk.run(&["status"]).code, 3);
    let seen = desk.run(&["consent"]);
    assert!(seen.code == 0 && seen.stdout.starts_with("incoming: authorized. Connected to localhost"), "{seen:?}");
    assert_eq!(desk.run(&["--json", "fetch"]).code, 0);
}

#[test]
fn killed_between_commit_and_settle_makes_no_request_twice() {
    let servers = servers();
    let relay = Relay::start(servers.dovecot.port).unwrap();
    let desk = Desk::of(&servers, "carol");
    let mut settings = desk.settings();
    settings["incoming"]["port"] = json!(relay.port());
    settings["incoming"]["advanced"]["after_import"] = json!("mark_seen");
    desk.write(&settings);
    assert_eq!(desk.consent(&servers, |url| servers.consent(url, "carol")).1.code, 0);
    servers.fill("carol", 5, 2).unwrap();

    // Settling is a round trip of two seconds: long enough to see the commit and to kill before the answer.
    relay.set_one_way_delay(Duration::from_secs(1));
    let mut fetch = desk.spawn(&["fetch"]);
    let database = desk.file().with_file_name("desk.helpdesk.db");
    let end = Instant::now() + PATIENCE;
    while messages_in(&database) == 0 {
        assert!(Instant::now() < end && fetch.try_wait().unwrap().is_none(), "the commit was never seen");
        thread::sleep(Duration::from_millis(5));
    }
    fetch.kill().unwrap();
    assert!(!fetch.wait().unwrap().success(), "it had ended before it was killed");
    relay.set_one_way_delay(Duration::ZERO);
    assert_eq!(messages_in(&database), 5, "a batch is one transaction");

    let again = desk.run(&["--json", "fetch"]);
    let counts = ["created", "appended", "duplicate"].map(|name| again.last()[name].as_u64().unwrap());
    assert_eq!((again.code, counts), (0, [0, 0, 5]), "{again:?}");
    let third = desk.run(&["--json", "fetch"]);
    assert_eq!(third.last()["duplicate"], 0, "{third:?}");
}

#[test]
fn run_fetches_until_ctrl_c_and_leaves_nothing_behind() {
    let servers = servers();
    let desk = Desk::of(&servers, "dave");
    assert_eq!(desk.consent(&servers, |url| servers.consent(url, "dave")).1.code, 0);
    servers.fill("dave", 2, 2).unwrap();
    let mut run = desk.spawn(&["--json", "run"]);
    let lines = lines_of(&mut run);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|event| event != "waiting") {
        let line: Value = serde_json::from_str(&lines.recv_timeout(PATIENCE).unwrap()).unwrap();
        seen.push(line["event"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen, ["message", "message", "fetched", "waiting"]);
    let below = ProcessId::descendants(run.id());
    let begun = Instant::now();
    kill_process(Pid::from_raw(run.id().try_into().unwrap()).unwrap(), Signal::INT).unwrap();
    assert_eq!(wait(&mut run).code(), Some(130));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(below.iter().all(|child| !child.is_running()), "{below:?}");
}

#[test]
fn the_progress_bar_is_for_terminals_only() {
    let servers = servers();
    let desk = Desk::of(&servers, "erin");
    assert_eq!(desk.consent(&servers, |url| servers.consent(url, "erin")).1.code, 0);
    // More than two batches.
    servers.fill("erin", 1_200, 1).unwrap();
    let database = desk.file().with_file_name("desk.helpdesk.db");
    let piped = desk.run(&["fetch"]);
    assert_eq!((piped.code, piped.stderr.as_str()), (0, ""), "{}", piped.stderr);
    assert!(!piped.stdout.contains('\x1b'));

    let Ok(script) = process::on_path("script") else {
        eprintln!("SKIPPED: a progress bar on a terminal, script(1) is not installed");
        return;
    };
    fs::remove_file(database).unwrap();
    fs::remove_file(desk.file().with_file_name("desk.store.db")).unwrap();
    assert_eq!(desk.consent(&servers, |url| servers.consent(url, "erin")).1.code, 0);
    let command = format!("'{}' fetch '{}'", built::program("host-sample").display(), desk.file().display());
    let mut typed = Command::new(script);
    typed.args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).env("TERM", "xterm");
    let output = typed.output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && shown.contains("/1200 messages"),
        "{}",
        &shown[shown.len().saturating_sub(800)..]
    );
}

/// A settings file in a folder of its own, and the program that is run on it.
struct Desk {
    folder: TempDir,
}

/// How a command ended.
#[derive(Debug)]
struct Seen {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Seen {
    /// What `--json` printed: one document per line, and nothing else.
    fn documents(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    fn last(&self) -> Value {
        self.documents().pop().unwrap_or_else(|| panic!("{self:?}"))
    }
}

impl Desk {
    fn empty() -> Self {
        Self { folder: tempfile::Builder::new().prefix("om-desk").tempdir().unwrap() }
    }

    /// Both forms of somebody's mailbox; all mail is fetched, and the redirect has a port of its own.
    fn of(servers: &Servers, name: &str) -> Self {
        let redirect = json!(format!("http://127.0.0.1:{}/callback", free_port()));
        let mut settings = servers.incoming_settings(name);
        settings["outgoing"] = servers.outgoing_settings(name)["outgoing"].clone();
        settings["incoming"]["advanced"]["fetch_since"] = json!("all");
        for form in ["incoming", "outgoing"] {
            settings[form]["redirect_url"] = redirect.clone();
        }
        let desk = Self::empty();
        desk.write(&settings);
        desk
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("desk.json")
    }

    fn settings(&self) -> Value {
        serde_json::from_slice(&fs::read(self.file()).unwrap()).unwrap()
    }

    fn write(&self, settings: &Value) {
        fs::write(self.file(), settings.to_string()).unwrap();
    }

    /// The settings file follows the command: `["--json", "fetch"]`, `["send", "--to", …]`.
    fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new(built::program("host-sample"));
        command.args(arguments).arg(self.file());
        command.env("MAIL_CLIENT_SECRET", "a-secret").env_remove("OAUTH_MAIL_LIBRARY");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Seen {
        let mut child = self.spawn(arguments);
        let stdout = lines_of(&mut child);
        end_of(child, stdout.into_iter())
    }

    /// `consent`, with a person who goes where it says; what the page showed them in the end.
    fn consent(
        &self,
        servers: &Servers,
        person: impl FnOnce(&str) -> oauth_mail_tests::Result<url::Url>,
    ) -> (String, Seen) {
        let mut child = self.spawn(&["--json", "consent"]);
        let stdout = lines_of(&mut child);
        let first = stdout.recv_timeout(PATIENCE).unwrap();
        let asked: Value = serde_json::from_str(&first).unwrap();
        let redirect = person(asked["authorize_url"].as_str().unwrap_or_else(|| panic!("{asked}"))).unwrap();
        let page = browser::follow(servers.ca_file(), &redirect).unwrap();
        (page, end_of(child, [first].into_iter().chain(stdout)))
    }
}

fn servers() -> MutexGuard<'static, Servers> {
    static SERVERS: LazyLock<Mutex<Servers>> = LazyLock::new(|| {
        let users = ["alice", "bob", "carol", "dave", "erin"].map(str::to_owned).to_vec();
        let servers = Servers::start(Options { users, ..Options::default() }).unwrap();
        janitor::remove_after_us(&servers).unwrap();
        Mutex::new(servers)
    });
    SERVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nothing on standard output, one line on standard error beside warnings, that code.
fn one_sentence(seen: &Seen, code: i32) {
    let lines = seen.stderr.lines().filter(|line| !line.starts_with("warn ")).count();
    assert_eq!((seen.code, seen.stdout.as_str(), lines), (code, "", 1), "{seen:?}");
    assert!(seen.stderr.trim_end().ends_with('.'), "{}", seen.stderr);
}

fn lines_of(child: &mut Child) -> mpsc::Receiver<String> {
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    receiver
}

fn end_of(mut child: Child, stdout: impl Iterator<Item = String>) -> Seen {
    let mut stderr = child.stderr.take().unwrap();
    let complaints = thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let code = wait(&mut child).code().unwrap_or(-1);
    Seen { code, stdout: stdout.map(|line| line + "\n").collect(), stderr: complaints.join().unwrap() }
}

fn wait(child: &mut Child) -> ExitStatus {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("no end within {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn messages_in(database: &Path) -> u64 {
    let Ok(connection) = rusqlite::Connection::open_with_flags(database, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
    else {
        return 0;
    };
    connection.query_row("SELECT count(*) FROM messages", [], |row| row.get(0)).unwrap_or(0)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
