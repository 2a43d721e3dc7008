//! What every IMAP server is walked through. The mail is put in and looked at by another client; the product comes in
//! through [`Proxy`], because these servers know passwords alone.

use std::{collections::BTreeSet, path::Path};

use oauth_mail_core::hooks::{Handle, Plugin};
use oauth_mail_sandbox::{Config, Sandbox};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    Step, Tally,
    imap_servers::{PASSWORD, Server, USER},
    other_client::OtherClient,
    proxy::Proxy,
    same,
};
use crate::{
    Error, Result,
    ca::Ca,
    fixture::{self, STORE_KEY},
    mailbox::{self, Mail, note, round},
    sandboxed::{self, Protocol},
};

/// Of the first delivery.
const MESSAGES: usize = 50;
const TARGET: &str = "Büro/Erledigt & fertig";
const ODD: [&str; 5] = ["Größe", "日本語", "A & B", "quote\"d", "Ünïcode/Sub 1"];

struct Walk {
    sandbox: Sandbox,
    proxy: Proxy,
    other: OtherClient,
    store: TempDir,
    server: Server,
}

pub fn walk(start: fn(&Path) -> Result<Server>, tally: &mut Tally) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("om").tempdir_in("/tmp")?;
    // The server may be another user than we are.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let server = start(folder.path())?;
    let sandbox = Sandbox::start(Config::default())?;
    let certificates = sandbox.ca_file.parent().unwrap_or(&sandbox.ca_file);
    let ca = Ca {
        ca_file: sandbox.ca_file.clone(),
        server_certificate: certificates.join("server.pem"),
        server_key: certificates.join("server.key"),
    };
    let proxy = Proxy::start(&ca, server.port, USER, PASSWORD)?;
    tally.notes.push("TLS and OAuth are a proxy's, which logs in with a password".to_owned());
    let other = OtherClient { port: server.port, user: USER.to_owned(), password: PASSWORD.to_owned() };
    let store = tempfile::Builder::new().prefix("om-store").tempdir()?;
    let walk = Walk { sandbox, proxy, other, store, server };
    walk.all(tally)
}

impl Walk {
    fn all(&self, tally: &mut Tally) -> Result<()> {
        let messages = odd_messages();
        let mut left_out = Vec::new();
        // What the server itself does not take is none of the product's business.
        if self.other.append("INBOX", &messages).is_err() {
            let existing = self.other.read("INBOX")?.len();
            for (number, raw) in messages.iter().enumerate().skip(existing) {
                if let Err(error) = self.other.append("INBOX", std::slice::from_ref(raw)) {
                    left_out.push(format!("message {number}: {error}"));
                }
            }
        }
        if !left_out.is_empty() {
            tally.notes.push(format!("refused at APPEND: {}", left_out.join("; ")));
        }
        let plugin = self.plugin()?;
        let handle = self.open(&plugin, "leave", |_| {})?;
        let before = self.other.read("INBOX")?;
        let mut first = None;
        tally.step("each of the 50 once, with the bytes that another client reads", || {
            let mail = first.insert(fetched(&handle)?);
            same("keys twice", mail.has_no_key_twice(), true)?;
            let mut hashes = mail.hashes();
            hashes.sort();
            let mut expected: Vec<String> = before.iter().map(|(hash, _)| hash.clone()).collect();
            expected.sort();
            same("messages", hashes.len(), expected.len())?;
            same("bytes", hashes, expected)?;
            Ok(Step::Passed)
        });
        tally.step("nothing skipped, nothing put aside", || {
            let mail = first.as_ref().ok_or_else(|| Error::new("nothing was fetched"))?;
            same("skipped", mail.skipped.len(), 0)?;
            same("put aside", mail.quarantined.len(), 0)?;
            Ok(Step::Passed)
        });
        tally.step("fetching leaves flags as they are", || {
            same("flags", self.other.read("INBOX")?, before)?;
            Ok(Step::Passed)
        });
        tally.step("leave: settled, and nothing comes again", || {
            let mail = first.as_ref().ok_or_else(|| Error::new("nothing was fetched"))?;
            settled(&handle, mail, "left")?;
            same("again", fetched(&handle)?.messages.len(), 0)?;
            Ok(Step::Passed)
        });
        handle.close();
        drop((handle, plugin));
        let plugin = self.plugin()?;
        let handle = self.open(&plugin, "leave", |_| {})?;
        tally.step("after a restart nothing comes again but what is new", || {
            same("again", fetched(&handle)?.messages.len(), 0)?;
            self.other.append("INBOX", &[note(1_000)])?;
            let mail = fetched(&handle)?;
            same("new", mail.subjects(), vec!["note 1000"])?;
            settled(&handle, &mail, "left")?;
            Ok(Step::Passed)
        });
        tally.step("mark_seen marks what was settled, and nothing else", || self.mark_seen(&plugin));
        tally.step("move into a new folder below a new parent", || self.move_away(&plugin));
        tally.step("delete leaves what another client marked as deleted", || self.delete(&plugin));
        tally.step("another client expunges in the middle of a round", || self.expunged_meanwhile(&plugin));
        tally.step("folders with odd names", || self.odd_folders(&plugin));
        tally.step("a folder deleted and made anew", || self.made_anew(&plugin));
        tally.step("the connection breaks three times in a round", || self.broken(&plugin));
        tally.step("diagnose finds all well", || {
            let handle = self.open(&plugin, "leave", |_| {})?;
            let answer =
                fixture::authenticate(&handle, json!({"action": "diagnose"})).map_err(Error::doing("diagnose"))?;
            same(&format!("healthy ({})", answer["summary"]), answer["healthy"].as_bool(), Some(true))?;
            Ok(Step::Passed)
        });
        same("the server runs", self.server.process.is_running(), true)
    }

    fn mark_seen(&self, plugin: &Plugin) -> Result<Step> {
        let handle = self.open(plugin, "mark_seen", |_| {})?;
        self.other.append("INBOX", &[note(2_000), note(2_001)])?;
        let mail = fetched(&handle)?;
        same("new", mail.subjects(), vec!["note 2000", "note 2001"])?;
        let seen = |all: &[(String, Vec<String>)]| {
            all.iter().filter(|(_, flags)| flags.iter().any(|flag| flag == "\\Seen")).count()
        };
        let before = seen(&self.other.read("INBOX")?);
        settled(&handle, &mail, "marked_seen")?;
        same("seen", seen(&self.other.read("INBOX")?), before + 2)?;
        Ok(Step::Passed)
    }

    fn move_away(&self, plugin: &Plugin) -> Result<Step> {
        let handle = self.open(plugin, "move", |form| form["advanced"]["processed_folder"] = json!(TARGET))?;
        self.other.append("INBOX", &[note(3_000), note(3_001), note(3_002)])?;
        let before = self.other.read("INBOX")?.len();
        let mail = fetched(&handle)?;
        same("new", mail.messages.len(), 3)?;
        settled(&handle, &mail, "moved")?;
        let mut expected = mail.hashes();
        expected.sort();
        same("moved", self.other.hashes(TARGET)?, expected)?;
        let after = self.other.read("INBOX")?;
        let marked = after.iter().filter(|(_, flags)| flags.iter().any(|flag| flag == "\\Deleted")).count();
        same("left behind", after.len() - marked, before - 3)?;
        if marked > 0 {
            self.other.expunge("INBOX")?;
            return Ok(Step::Skipped("without UIDPLUS what was moved stays behind, marked as deleted".into()));
        }
        Ok(Step::Passed)
    }

    fn delete(&self, plugin: &Plugin) -> Result<Step> {
        let handle = self.open(plugin, "delete", |_| {})?;
        self.other.append("INBOX", &[note(4_000), note(4_001)])?;
        let mail = fetched(&handle)?;
        same("new", mail.subjects(), vec!["note 4000", "note 4001"])?;
        let all = self.other.read("INBOX")?;
        // The first of the two, marked by somebody else.
        self.other.visit(&[json!(["flag", "INBOX", all.len() - 1, "\\Deleted"])])?;
        let gone = Mail { messages: mail.messages[1..].to_vec(), ..Mail::default() };
        settled(&handle, &gone, "deleted")?;
        let after = self.other.read("INBOX")?;
        let marked = after.iter().filter(|(_, flags)| flags.iter().any(|flag| flag == "\\Deleted")).count();
        let outcome = match (after.len(), marked) {
            (there, 1) if there == all.len() - 1 => Step::Passed,
            (there, 2) if there == all.len() => {
                Step::Skipped("without UIDPLUS what was deleted stays, marked as deleted".into())
            }
            other => return Err(Error::new(format!("{other:?} messages and marked ones of {}", all.len()))),
        };
        let kept = Mail { messages: mail.messages[..1].to_vec(), ..Mail::default() };
        let handle = self.open(plugin, "leave", |_| {})?;
        settled(&handle, &kept, "left")?;
        self.other.expunge("INBOX")?;
        Ok(outcome)
    }

    fn expunged_meanwhile(&self, plugin: &Plugin) -> Result<Step> {
        let handle = self.open(plugin, "leave", |_| {})?;
        let large = |number| [note(number), vec![b'x'; 500_000], b"\r\n".to_vec()].concat();
        self.other.append("INBOX", &(5_000..5_030).map(large).collect::<Vec<_>>())?;
        let count = self.other.read("INBOX")?.len();
        let request = json!({"max_messages": 2, "max_bytes": 1_200_000});
        let mut mail = mailbox::batch(&handle, &request).map_err(Error::doing("the first batch"))?;
        // The last ten, which are not on their way yet.
        let numbers: Vec<usize> = (count - 9..=count).collect();
        self.other.visit(&[json!(["expunge", "INBOX", numbers])])?;
        for _ in 0..3 {
            mail.extend(round(&handle, &request).map_err(Error::doing("the rest"))?);
            settled(&handle, &mail, "left")?;
        }
        let subjects: BTreeSet<String> = mail.subjects().into_iter().map(str::to_owned).collect();
        let expected: Vec<String> = (5_000..5_020).map(|number| format!("note {number}")).collect();
        let missing: Vec<&String> = expected.iter().filter(|subject| !subjects.contains(*subject)).collect();
        same("missing", missing, Vec::new())?;
        let strange: Vec<&String> = subjects.iter().filter(|subject| !subject.starts_with("note 50")).collect();
        same("what nobody wrote", strange, Vec::new())?;
        same("keys twice", mail.has_no_key_twice(), true)?;
        Ok(Step::Passed)
    }

    fn odd_folders(&self, plugin: &Plugin) -> Result<Step> {
        let (mut there, mut refused) = (Vec::new(), Vec::new());
        for (number, name) in ODD.iter().enumerate() {
            let parent = name.split_once('/').map(|(parent, _)| json!(["create", parent]));
            let _ = parent.map(|parent| self.other.visit(&[parent]));
            let made = self.other.visit(&[json!(["create", name])]);
            match made.and_then(|_| self.other.append(name, &[note(6_000 + number)])) {
                Ok(()) => there.push(*name),
                Err(_) => refused.push(*name),
            }
        }
        let handle = self.open(plugin, "leave", |form| form["advanced"]["folders"] = json!(there))?;
        let mail = fetched(&handle)?;
        same("new", mail.messages.len(), there.len())?;
        settled(&handle, &mail, "left")?;
        same("again", fetched(&handle)?.messages.len(), 0)?;
        match refused.is_empty() {
            true => Ok(Step::Passed),
            false if there.is_empty() => Ok(Step::Skipped("the server takes none of these names".into())),
            false => Ok(Step::Skipped(format!("passed for {there:?}; the server refuses {refused:?}"))),
        }
    }

    fn made_anew(&self, plugin: &Plugin) -> Result<Step> {
        const FOLDER: &str = "anew";
        self.other.visit(&[json!(["create", FOLDER])])?;
        self.other.append(FOLDER, &[note(7_000), note(7_001)])?;
        let handle = self.open(plugin, "leave", |form| form["advanced"]["folders"] = json!([FOLDER]))?;
        let mail = fetched(&handle)?;
        same("new", mail.messages.len(), 2)?;
        settled(&handle, &mail, "left")?;
        handle.close();
        let old = self.validity(FOLDER)?;
        self.other.visit(&[json!(["delete", FOLDER]), json!(["create", FOLDER])])?;
        self.other.append(FOLDER, &[note(7_002), note(7_003), note(7_004)])?;
        if self.validity(FOLDER)? == old {
            return Ok(Step::Skipped(format!("the new folder has the old UIDVALIDITY {old}")));
        }
        let handle = self.open(plugin, "leave", |form| form["advanced"]["folders"] = json!([FOLDER]))?;
        let mail = fetched(&handle)?;
        same("new", mail.subjects(), vec!["note 7002", "note 7003", "note 7004"])?;
        same("resets", mail.resets.len(), 1)?;
        settled(&handle, &mail, "left")?;
        Ok(Step::Passed)
    }

    fn broken(&self, plugin: &Plugin) -> Result<Step> {
        let handle = self.open(plugin, "leave", |_| {})?;
        let large = |number| [note(number), vec![b'y'; 20_000], b"\r\n".to_vec()].concat();
        self.other.append("INBOX", &(8_000..8_030).map(large).collect::<Vec<_>>())?;
        self.proxy.cut(3, 150_000);
        let mut all = Mail::default();
        for _ in 0..12 {
            let Ok(mail) = mailbox::batch(&handle, &json!({"max_messages": 5})) else { continue };
            settled(&handle, &mail, "left")?;
            all.extend(mail);
        }
        self.proxy.cut(0, 0);
        let mut subjects = all.subjects();
        subjects.sort_unstable();
        let expected: Vec<String> = (8_000..8_030).map(|number| format!("note {number}")).collect();
        same("each once", subjects, expected.iter().map(String::as_str).collect())?;
        same("cuts left", self.proxy.cuts_left(), 0)?;
        Ok(Step::Passed)
    }

    fn validity(&self, folder: &str) -> Result<String> {
        let answers = self.other.visit(&[json!(["validity", folder])])?;
        Ok(answers.first().and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    fn plugin(&self) -> Result<Plugin> {
        let store = format!("sqlite:{}", self.store.path().join("store.db").display());
        let config = json!({"store": store, "key": {"value": STORE_KEY}, "private_networks": "allow"});
        Plugin::new(&config.to_string(), oauth_mail_core::log::Logger::silent()).map_err(Error::doing("a plugin"))
    }

    fn open(&self, plugin: &Plugin, after_import: &str, change: impl FnOnce(&mut Value)) -> Result<Handle> {
        let mut settings = sandboxed::settings(&self.sandbox, Protocol::Imap, "alice", "incoming");
        let form = &mut settings["incoming"];
        form["port"] = json!(self.proxy.port);
        form["client_id"] = json!("mail-app");
        form["client_secret"] = json!("mail-app-secret");
        form["scope"] = json!("https://outlook.office365.com/.default");
        form["advanced"]["grant"] = json!("client_credentials");
        form["advanced"]["after_import"] = json!(after_import);
        change(form);
        let handle = plugin.open(&settings.to_string()).map_err(Error::doing("opening"))?;
        fixture::authenticate(&handle, json!({"action": "start"})).map_err(Error::doing("connecting"))?;
        Ok(handle)
    }
}

impl OtherClient {
    /// Whatever is marked as deleted.
    fn expunge(&self, folder: &str) -> Result<()> {
        self.visit(&[json!(["expunge", folder, []])]).map(drop)
    }
}

fn fetched(handle: &Handle) -> Result<Mail> {
    round(handle, &json!({})).map_err(Error::doing("fetching"))
}

/// Imported, and `done` to each.
fn settled(handle: &Handle, mail: &Mail, done: &str) -> Result<()> {
    if mail.messages.is_empty() {
        return Ok(());
    }
    let answers = mailbox::settle(handle, mail.keys(), "imported").map_err(Error::doing("settling"))?;
    let others: Vec<_> = answers.values().filter(|answer| *answer != done).collect();
    same("done otherwise", others, Vec::new())
}

/// Mail as it should not be, and is.
fn odd_messages() -> Vec<Vec<u8>> {
    let mail = |subject: &str, more: &str, body: &[u8]| {
        let header = format!("From: <ada@outside.test>\r\nSubject: {subject}\r\n{more}\r\n");
        [header.as_bytes(), body].concat()
    };
    let text = |body: &str| mail("text", "", body.as_bytes());
    let fields: String = (0..800).map(|number| format!("X-Field-{number}: value {number}\r\n")).collect();
    let mebibyte = |size: usize| {
        let head = mail("exactly 1 MiB", "", b"");
        [head.clone(), "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(20_000).into_bytes()]
            .concat()[..size - 2]
            .iter()
            .copied()
            .chain(*b"\r\n")
            .collect::<Vec<u8>>()
    };
    let mut all = vec![
        mail("20 MB", "", "line of twenty megabytes, one of many of them all\r\n".repeat(400_000).as_bytes()),
        mail("empty body", "", b""),
        [b"From: <ada@outside.test>\r\nSubject: Gr\xc3\xb6\xc3\x9fe\r\n\r\n".to_vec(), b"UTF-8\r\n".to_vec()].concat(),
        [b"From: <ada@outside.test>\r\nSubject: Gr\xf6\xdfe\r\n\r\n".to_vec(), b"Latin-1\r\n".to_vec()].concat(),
        mail("header of 90 KB", &format!("X-Long: {}\r\n", "word \r\n ".repeat(11_000).trim_end()), b"long\r\n"),
        mail("800 fields", &fields, b"many\r\n"),
        mail("long line", "", &[vec![b'x'; 20_000], b"\r\n".to_vec()].concat()),
        mail("no final newline", "", b"no end of line"),
        text("one\r\n.\r\n..\r\n.dot\r\n\r\n.\r\n"),
        text(")\r\n* 1 FETCH (UID 1 RFC822.SIZE 1)\r\na1 OK done\r\n{5}\r\n* BYE\r\n"),
        mebibyte(1 << 20),
        mebibyte((1 << 20) + 1),
        mail("control bytes", "", b"\x01\x02\x07\x08\x0b\x0c\x1b\x7f\r\n"),
        mail("unclosed", "Content-Type: multipart/mixed; boundary=b\r\n", b"--b\r\n\r\nopen\r\n"),
        mail("same id", "Message-ID: <same@outside.test>\r\n", b"one\r\n"),
        mail("same id", "Message-ID: <same@outside.test>\r\n", b"two\r\n"),
        b"\r\nno header at all\r\n".to_vec(),
        b"no header, no empty line\r\n".to_vec(),
        mail("8 bits", "Content-Transfer-Encoding: 8bit\r\n", &(0x80..=0xff).collect::<Vec<u8>>()),
        mail("empty lines", "", b"\r\n\r\n\r\n\r\n"),
    ];
    let rest = MESSAGES - all.len();
    all.extend((0..rest).map(note));
    all
}
