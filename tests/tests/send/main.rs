//! `send_message` over real servers: what arrives, what is refused, and what happens when the connection, the token or
//! the server goes away in the middle.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod alternate;
mod broken;
mod content;
mod evidence;
mod once;
mod refused;
mod restraint;
mod threading;
mod token;

use std::{
    io::Read,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use oauth_mail_core::hooks::Handle;
use oauth_mail_tests::{
    Options, Servers,
    fixture::parse,
    janitor,
    relay::Relay,
    wire::{Mechanism, Wire},
};
use serde_json::{Value, json};

/// One recipient for each scenario, so that none sees another's mail; `alice` sends.
const USERS: [&str; 14] =
    ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "ken", "liam", "mia", "noah"];
/// From a server's 250 to the message in the mailbox takes milliseconds; this is how long nothing may come after.
const QUIET: Duration = Duration::from_millis(400);

/// The servers that all scenarios of this file share, one at a time: some of them order faults. Sink for mail to
/// `jürgen`, so that an address outside ASCII has somebody behind it.
fn servers() -> MutexGuard<'static, Servers> {
    static SERVERS: LazyLock<Mutex<Servers>> = LazyLock::new(|| {
        let options = Options {
            users: USERS.map(str::to_owned).to_vec(),
            postfix_extra:
                "virtual_mailbox_maps = texthash:$data_directory/../conf/users, inline:{ jürgen@example.test=ok }\n\
                            transport_maps = inline:{ sink@example.test=discard:, jürgen@example.test=discard: }\n"
                    .to_owned(),
            ..Options::default()
        };
        let servers = Servers::start(options).unwrap();
        janitor::remove_after_us(&servers).unwrap();
        Mutex::new(servers)
    });
    SERVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn send(handle: &Handle, request: &Value) -> Value {
    parse(&handle.send_message(&request.to_string(), &[]).unwrap())
}

fn send_raw(handle: &Handle, to: &[&str], raw: &[u8]) -> Value {
    parse(&handle.send_message(&json!({"envelope": {"to": to}}).to_string(), raw).unwrap())
}

fn text_to(to: &str, subject: &str) -> Value {
    json!({"to": [to], "subject": subject, "text": "A line.\n"})
}

/// Has a relay between the handle and SMTPS.
fn through(relay: &Relay) -> impl FnOnce(&mut Value) {
    let port = relay.port();
    move |settings| settings["outgoing"]["port"] = json!(port)
}

/// The same, and the sent folder can be looked into.
fn through_and_seen(relay: &Relay, servers: &Servers) -> impl FnOnce(&mut Value) {
    let (relayed, imap) = (through(relay), servers.dovecot.port);
    move |settings| {
        relayed(settings);
        settings["outgoing"]["advanced"]["sent_folder_server"] = json!("localhost");
        settings["outgoing"]["advanced"]["sent_folder_port"] = json!(imap);
    }
}

/// Everything in somebody's INBOX, byte for byte as IMAP gives it, read without the library.
fn inbox(servers: &Servers, name: &str) -> Vec<Vec<u8>> {
    let token = servers.access_token(name).unwrap();
    let mut wire = Wire::tls(servers.ca_file(), servers.dovecot.port).unwrap();
    wire.imap_login(Mechanism::Xoauth2, &servers.address(name), &token).unwrap().unwrap();
    wire.imap("EXAMINE INBOX").unwrap();
    wire.write_line("t UID FETCH 1:* BODY.PEEK[]").unwrap();
    let mut found = Vec::new();
    loop {
        let line = wire.read_line().unwrap();
        if line.starts_with("t ") {
            return found;
        }
        let Some(size) = line.strip_suffix('}').and_then(|line| line.rsplit_once('{')) else { continue };
        let mut raw = vec![0; size.1.parse().unwrap()];
        Reader(&mut wire).read_exact(&mut raw).unwrap();
        found.push(raw);
    }
}

struct Reader<'a>(&'a mut Wire);

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer).map_err(|e| std::io::Error::other(e.to_string()))
    }
}

/// The subjects that have come, once Postfix has delivered what it took and nothing more comes.
fn settled(servers: &Servers, name: &str) -> Vec<String> {
    let mut last = subjects(servers, name);
    let mut since = Instant::now();
    let patience = Instant::now() + Duration::from_secs(60);
    while since.elapsed() < QUIET || servers.postfix.is_delivering() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(50));
        let now = subjects(servers, name);
        if now.len() != last.len() {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

fn subjects(servers: &Servers, name: &str) -> Vec<String> {
    let found = servers.doveadm(&["fetch", "-u", &servers.address(name), "hdr.subject", "mailbox", "INBOX", "all"]);
    let lines = found.unwrap();
    lines.lines().filter_map(|line| line.strip_prefix("hdr.subject: ")).map(str::to_owned).collect()
}

fn times(subjects: &[String], wanted: &str) -> usize {
    subjects.iter().filter(|subject| *subject == wanted).count()
}
