//! The sample hosts in other languages, each over the C interface: consent, fetch, settle, send on real servers.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use oauth_mail_tests::{
    Options, Servers, built,
    fixture::STORE_KEY,
    mailbox::{self, Shared},
    sources::root,
};
use serde_json::json;

static SHARED: Shared = Shared::new();
/// Who has a mailbox, and which host reads it.
const LANGUAGES: [&str; 6] = ["c", "python", "java", "node", "php", "ruby"];
const PATIENCE: Duration = Duration::from_secs(120);

fn servers() -> Arc<Servers> {
    let users = LANGUAGES.iter().copied().chain(["bob"]).map(str::to_owned).collect();
    SHARED.servers(|| Options { users, ..Options::default() })
}

fn host(language: &str) -> PathBuf {
    root().join("host-sample").join(language)
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Ends with the test, whatever happens.
struct Walker(Child);

impl Drop for Walker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn letter(number: usize, attachment: &[u8]) -> Vec<u8> {
    let encoded = STANDARD.encode(attachment);
    let lines: Vec<&str> = encoded.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!(
        "From: <ada@outside.test>\r\nSubject: letter {number}\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; \
         boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nGr\u{fc}\u{df}e\r\n--b\r\nContent-Type: \
         application/octet-stream; name=a.bin\r\nContent-Disposition: attachment; filename=a.bin\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}\r\n--b--\r\n",
        lines.join("\r\n")
    )
    .into_bytes()
}

/// What every host says, whatever it is written in; only the name of its language differs.
fn walk(language: &str, name: &str, mut command: Command) {
    let servers = servers();
    let folder = tempfile::tempdir().unwrap();
    let letters = [letter(1, &[7; 1_000]), letter(2, &[9; 100_000])];
    let mut incoming = servers.incoming_settings(language)["incoming"].take();
    incoming["advanced"]["fetch_since"] = json!("all");
    incoming["advanced"]["after_import"] = json!("mark_seen");
    for letter in &letters {
        mailbox::append(&servers, language, "INBOX", "01-Jan-2026 10:00:00 +0000", "", letter).unwrap();
    }
    let document = json!({
        "library": built::library(),
        "plugin": {"store": format!("sqlite:{}", folder.path().join("store.db").display()), "key": {"value": STORE_KEY}},
        "incoming": incoming,
        "outgoing": servers.outgoing_settings(language)["outgoing"],
        "to": servers.address("bob"),
    });
    let file = folder.path().join("walk.json");
    fs::write(&file, document.to_string()).unwrap();

    let child = command.arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut walker = Walker(child.unwrap_or_else(|e| panic!("{command:?}: {e}")));
    let mut stdin = walker.0.stdin.take().unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(walker.0.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(url) = line.strip_prefix("consent ") {
            let redirect = servers.consent(url, language).unwrap();
            writeln!(stdin, "{redirect}").unwrap();
            said.push("consent".to_owned());
        } else {
            said.push(line);
        }
    }
    let end = Instant::now() + PATIENCE;
    let status = loop {
        match walker.0.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > end => panic!("{language} does not end; it said {said:?}"),
            None => thread::sleep(Duration::from_millis(10)),
        }
    };
    let expected = [
        "refused /incoming/connection_protocol".to_owned(),
        "consent".to_owned(),
        "authorized".to_owned(),
        format!("message {} letter 1 1000", letters[0].len()),
        format!("message {} letter 2 100000", letters[1].len()),
        "settled 2".to_owned(),
        "sent".to_owned(),
        "done".to_owned(),
    ];
    assert!(status.success() && said == expected, "{language} ended with {status} and said {said:#?}");
    let flags = mailbox::flags(&servers, language, "INBOX").unwrap();
    assert!(flags.len() == 2 && flags.iter().all(|flags| flags.contains("\\Seen")), "{flags:?}");
    let subject = format!("From {name}");
    let bob = servers.address("bob");
    let arrived =
        || servers.doveadm(&["search", "-u", &bob, "mailbox", "INBOX", "header", "Subject", &subject]).unwrap();
    while arrived().lines().count() == 0 {
        assert!(Instant::now() < end, "nothing from {language} arrived");
        thread::sleep(Duration::from_millis(50));
    }
}

fn skipped(language: &str, program: &str) -> bool {
    if is_there(program) {
        return false;
    }
    println!("SKIPPED: the host in {language}, because {program} is not installed (tests/install.sh installs it)");
    true
}

#[test]
fn python() {
    let mut command = Command::new("python3");
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(host("python").join("host.py"));
    walk("python", "Python", command);
}

#[test]
fn node() {
    if skipped("JavaScript", "node") {
        return;
    }
    let mut command = Command::new("node");
    command.arg(host("node").join("host.js"));
    walk("node", "JavaScript", command);
}

#[test]
fn php() {
    if skipped("PHP", "php") {
        return;
    }
    let mut command = Command::new("php");
    command.arg(host("php").join("host.php"));
    walk("php", "PHP", command);
}

#[test]
fn ruby() {
    if skipped("Ruby", "ruby") {
        return;
    }
    let mut command = Command::new("ruby");
    command.args(["-w"]).arg(host("ruby").join("host.rb"));
    walk("ruby", "Ruby", command);
}

#[test]
fn java() {
    const JNA: &str = "/usr/share/java/jna.jar";
    if skipped("Java", "javac") {
        return;
    }
    let classes = tempfile::tempdir().unwrap();
    let sources = ["Host.java", "Json.java", "OauthMail.java"].map(|file| host("java").join(file));
    let compiled = Command::new("javac").args(["-cp", JNA, "-d"]).arg(classes.path()).args(sources).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let mut command = Command::new("java");
    command.arg("-cp").arg(format!("{JNA}:{}", classes.path().display())).arg("Host");
    walk("java", "Java", command);
}

/// Under the address sanitizer, with its search for leaks.
#[test]
fn c() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("host");
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11", "-D_GNU_SOURCE", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-I"]);
    gcc.arg(root().join("plugin/include")).arg(host("c").join("host.c")).arg("-o").arg(&program);
    let compiled = gcc.args(["-lcjson", "-ldl"]).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    walk("c", "C", Command::new(program));
}
