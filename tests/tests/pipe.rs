//! Helpdesks that exist already: mail handed to a program or a URL by the conventions of Request Tracker and osTicket, and
//! sent by the sendmail command. On real servers, with stand-ins that check how they are called.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use oauth_mail_tests::{
    Options, Servers, built,
    fixture::{Fixture, STORE_KEY},
    mailbox::{self, Shared, note, since_all},
    mailgen,
};
use serde_json::{Value, json};

static SHARED: Shared = Shared::new();

fn servers() -> Arc<Servers> {
    let users = ["rt", "osticket", "url", "crash", "large", "sender", "copy", "bob"].map(str::to_owned).to_vec();
    let postfix_extra =
        "smtpd_recipient_restrictions = check_recipient_access inline:{ { later@example.test = 450 4.2.0 not yet } }\n"
            .into();
    SHARED.servers(|| Options { users, postfix_extra, ..Options::default() })
}

/// A settings file over the store in which the mailbox's owner has consented.
fn settings(fixture: &Fixture<'_>, name: &str) -> PathBuf {
    let mut incoming = fixture.servers.incoming_settings(name);
    since_all(&mut incoming);
    incoming["incoming"]["advanced"]["after_import"] = json!("move");
    incoming["incoming"]["advanced"]["processed_folder"] = json!("Done");
    incoming["incoming"]["advanced"]["after_refusal"] = json!("move");
    incoming["incoming"]["advanced"]["error_folder"] = json!("Errors");
    let document = json!({
        "plugin": {"store": format!("sqlite:{}", fixture.store_file().display()), "key": {"value": STORE_KEY}},
        "incoming": incoming["incoming"],
        "outgoing": fixture.servers.outgoing_settings(name)["outgoing"],
    });
    let file = fixture.store_dir().join("desk.json");
    fs::write(&file, document.to_string()).unwrap();
    file
}

fn consented<'a>(servers: &'a Servers, name: &str) -> (Fixture<'a>, PathBuf) {
    let fixture = Fixture::new(servers);
    drop(fixture.incoming(name, since_all));
    let file = settings(&fixture, name);
    (fixture, file)
}

fn deliver(servers: &Servers, name: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        mailbox::append(servers, name, "INBOX", "01-Jan-2026 10:00:00 +0000", "", &note(number)).unwrap();
    }
}

fn host_sample(arguments: &[&str], settings: &Path, more: &[&str], stdin: &[u8]) -> Output {
    let mut command = Command::new(built::program("host-sample"));
    command.args(arguments).arg(settings).args(more).env_remove("OAUTH_MAIL_LIBRARY");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    child.wait_with_output().unwrap()
}

fn run(settings: &Path, more: &[&str]) -> String {
    let seen = host_sample(&["--json", "run"], settings, &[more, &["--rounds", "1"]].concat(), &[]);
    assert!(seen.status.success(), "{seen:?}");
    String::from_utf8(seen.stdout).unwrap()
}

/// A program that is called as the stand-in says, and checks it.
fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    fs::write(&file, format!("#!/bin/sh\n{text}")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    file
}

fn verdicts(said: &str) -> Vec<String> {
    let documents = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    documents.filter_map(|document| document["verdict"].as_str().map(str::to_owned)).collect()
}

#[test]
fn request_tracker_gets_mail_by_its_gateway() {
    let servers = servers();
    let (fixture, file) = consented(&servers, "rt");
    let folder = fixture.store_dir();
    // rt-mailgate(1): needs --queue, --action and --url; reads the message; 75 when RT cannot be reached.
    let gateway = script(
        folder,
        "rt-mailgate",
        "[ \"$1 $3 $5\" = '--queue --action --url' ] || exit 1\n\
         [ \"$2 $4 $6\" = 'General correspond https://rt.example.test/' ] || exit 1\n\
         cat > message || exit 75\n[ -e up ] || exit 75\ncat message >> ticket\necho \"$OAUTH_MAIL_KEY\" >> keys\n",
    );
    deliver(&servers, "rt", 0..2);
    let command = format!(
        "cd {} && {} --queue General --action correspond --url https://rt.example.test/",
        folder.display(),
        gateway.display()
    );
    assert_eq!(verdicts(&run(&file, &["--deliver", &command])), ["retry", "retry"], "RT is down");
    assert_eq!(servers.count("rt", "INBOX").unwrap(), 2, "nothing is settled");
    fs::write(folder.join("up"), "").unwrap();
    assert_eq!(verdicts(&run(&file, &["--deliver", &command])), ["imported", "imported"]);
    assert_eq!(fs::read(folder.join("ticket")).unwrap(), [note(0), note(1)].concat());
    assert_eq!(fs::read_to_string(folder.join("keys")).unwrap().lines().count(), 2);
    assert_eq!(servers.count("rt", "Done").unwrap(), 2);
    assert!(verdicts(&run(&file, &["--deliver", &command])).is_empty());
}

#[test]
fn osticket_gets_mail_by_its_pipe() {
    let servers = servers();
    let (fixture, file) = consented(&servers, "osticket");
    // api/pipe.php ends with 0, 65 (malformed), 66 (empty), 69 (unavailable), 75 (try later), 77 (denied).
    let pipe = script(
        fixture.store_dir(),
        "pipe.php",
        "case \"$(cat)\" in\n*'note 0'*) exit 0;;\n*'note 1'*) exit 65;;\n*'note 2'*) exit 75;;\n*'note 3'*) exit 77;;\n\
         *'note 4'*) kill -9 $$;;\nesac\nexit 70\n",
    );
    deliver(&servers, "osticket", 0..6);
    let said = run(&file, &["--deliver", &pipe.display().to_string()]);
    assert_eq!(verdicts(&said), ["imported", "refused", "retry", "refused", "retry", "refused"]);
    let counts = ["Done", "Errors", "INBOX"].map(|folder| servers.count("osticket", folder).unwrap());
    assert_eq!(counts, [1, 3, 2]);
}

#[test]
fn a_url_gets_mail_by_post() {
    let servers = servers();
    let (_fixture, file) = consented(&servers, "url");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let server = thread::spawn({
        let seen = seen.clone();
        move || {
            for status in [202, 422, 503, 429] {
                let (mut tcp, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut chunk = [0; 4096];
                let end = |request: &[u8]| request.windows(4).position(|window| window == b"\r\n\r\n");
                while end(&request).is_none() || !request.ends_with(b".\r\n") {
                    let count = tcp.read(&mut chunk).unwrap();
                    request.extend_from_slice(&chunk[..count]);
                }
                seen.lock().unwrap().push(String::from_utf8(request).unwrap());
                write!(tcp, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            }
        }
    });
    deliver(&servers, "url", 0..4);
    let said = run(&file, &["--deliver-url", &format!("http://127.0.0.1:{port}/mail")]);
    server.join().unwrap();
    assert_eq!(verdicts(&said), ["imported", "refused", "retry", "retry"]);
    for (number, request) in seen.lock().unwrap().iter().enumerate() {
        let lower = request.to_lowercase();
        assert!(request.starts_with("POST /mail HTTP/1.1\r\n"), "{request}");
        assert!(
            lower.contains("content-type: message/rfc822\r\n") && lower.contains("x-oauth-mail-key: url@"),
            "{request}"
        );
        assert!(request.ends_with(std::str::from_utf8(&note(number)).unwrap()), "{request}");
    }
}

/// The largest message that Exchange Online takes, from the mail server to the helpdesk: one copy of it in memory.
#[test]
fn a_message_of_150_megabytes_passes_within_its_own_size() {
    const SIZE: usize = 150 << 20;
    const REST: usize = 96 << 20;
    let servers = servers();
    let (fixture, file) = consented(&servers, "large");
    let raw = mailgen::large_message(SIZE);
    servers.dovecot.fill(&servers.address("large"), "INBOX", [raw.clone()].into_iter()).unwrap();
    let taken = fixture.store_dir().join("taken");
    let mut command = Command::new(built::program("host-sample"));
    command.arg("run").arg(&file).args(["--rounds", "1", "--deliver", &format!("cat > {}", taken.display())]);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    let status = loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let kib =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(|kib| kib.trim_end_matches("kB").trim());
        peak = kib.and_then(|kib| kib.parse::<usize>().ok()).map_or(peak, |kib| peak.max(kib << 10));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        thread::sleep(std::time::Duration::from_millis(5));
    };
    assert!(status.success());
    assert!(fs::read(&taken).unwrap() == raw, "it arrived as it was");
    assert!(peak > SIZE && peak < SIZE + REST, "{} MiB of memory for {} MiB of mail", peak >> 20, SIZE >> 20);
}

#[test]
fn what_was_delivered_before_a_crash_is_not_delivered_again() {
    let servers = servers();
    let (fixture, file) = consented(&servers, "crash");
    deliver(&servers, "crash", 0..2);
    // Takes the first message, and then the host with it.
    let killer = script(
        fixture.store_dir(),
        "killer",
        "cd \"$(dirname \"$0\")\"\ncat >> taken\n[ -e second ] && [ ! -e killed ] && touch killed && kill -9 $PPID\ntouch second\nexit 0\n",
    );
    let command = format!("exec {}", killer.display());
    let seen = host_sample(&["run"], &file, &["--deliver", &command, "--rounds", "1"], &[]);
    assert!(!seen.status.success(), "it was killed during the second message: {seen:?}");
    assert_eq!(servers.count("crash", "INBOX").unwrap(), 2, "nothing was settled");
    run(&file, &["--deliver", &command]);
    let taken = String::from_utf8(fs::read(fixture.store_dir().join("taken")).unwrap()).unwrap();
    // The second may come twice: nobody knows whether it was taken. The first must not.
    assert_eq!(taken.matches("Subject: note 0").count(), 1, "{taken}");
    assert!((1..=2).contains(&taken.matches("Subject: note 1").count()), "{taken}");
    assert_eq!(servers.count("crash", "Done").unwrap(), 2);
}

#[test]
fn the_sendmail_command_sends_once_and_says_why_not() {
    let servers = servers();
    let (_fixture, file) = consented(&servers, "sender");
    let bob = servers.address("bob");
    let raw = format!("To: {bob}\nBcc: {}\nSubject: by sendmail\n\nA line.\n.\nAnother.\n", servers.address("copy"));
    let named = format!("Message-ID: <sendmail@example.test>\n{raw}");
    // An alarm that says the same next month is another one.
    let alarm = format!("To: {bob}\nSubject: alarm\n\nThe disk is full.\n");
    for raw in [&named, &named, &alarm, &alarm] {
        let seen = host_sample(&["sendmail"], &file, &["-t", "-i"], raw.as_bytes());
        assert!(seen.status.success(), "{seen:?}");
    }
    let named = host_sample(
        &["sendmail"],
        &file,
        &["-oi", "-f", &servers.address("sender"), "--", &bob],
        b"Subject: named\n\nx\n",
    );
    assert!(named.status.success(), "{named:?}");
    let arrived = |name: &str, subject: &str, expected: usize| {
        let address = servers.address(name);
        let found = || {
            let found = servers.doveadm(&["search", "-u", &address, "mailbox", "INBOX", "header", "Subject", subject]);
            found.unwrap().lines().count()
        };
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while found() < expected {
            assert!(std::time::Instant::now() < end, "{subject} did not arrive at {name}");
            thread::sleep(std::time::Duration::from_millis(50));
        }
        assert_eq!(found(), expected, "{subject} at {name}");
    };
    arrived("bob", "by sendmail", 1);
    arrived("copy", "by sendmail", 1);
    arrived("bob", "named", 1);
    arrived("bob", "alarm", 2);
    // The server puts off one of two: that one is tried alone, now and by the same call again.
    let partly = format!("To: {bob}, later@example.test\nSubject: partly\n\nx\n");
    let named = format!("Message-ID: <partly@example.test>\n{partly}");
    for (raw, expected) in [(&named, 75), (&named, 75), (&partly, 70)] {
        let seen = host_sample(&["sendmail"], &file, &["-t"], raw.as_bytes());
        let said = String::from_utf8_lossy(&seen.stdout);
        assert!(seen.status.code() == Some(expected) && said.contains("sent as"), "{seen:?}");
        assert_eq!(said.contains("retry:"), expected == 75, "{seen:?}");
    }
    arrived("bob", "partly", 2);
    let code = |more: &[&str], raw: &[u8]| host_sample(&["sendmail"], &file, more, raw).status.code();
    assert_eq!(code(&["nobody-here@example.test"], b"Subject: x\n\nx\n"), Some(69), "EX_UNAVAILABLE");
    assert_eq!(code(&["-i"], b"Subject: x\n\nx\n"), Some(78), "EX_CONFIG: nobody is to get it");
    assert_eq!(code(&["-t"], b"Subject: nobody\n\nx\n"), Some(65), "EX_DATAERR");
}
