//! Fetching and settling as a host does it; what every batch must fulfil is checked on the way.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use oauth_mail_core::hooks::{Batch, Handle};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    Error, Options, Result, Servers,
    fixture::parse,
    idp,
    mailgen::Generator,
    wire::{Mechanism, Wire},
};

/// One set of servers for the scenarios of a file: started by the first that asks, ended with the last that holds it.
pub struct Shared(Mutex<Weak<Servers>>);

impl Shared {
    pub const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// # Panics
    /// When the servers do not start.
    pub fn servers(&self, options: impl FnOnce() -> Options) -> Arc<Servers> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let servers = Arc::new(Servers::start(options()).expect("the servers start"));
            *shared = Arc::downgrade(&servers);
            servers
        })
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::new()
    }
}

/// What one or more batches handed over.
#[derive(Default)]
pub struct Mail {
    pub messages: Vec<Message>,
    pub skipped: Vec<Value>,
    pub quarantined: Vec<Value>,
    pub resets: Vec<String>,
    pub batches: usize,
    pub more: bool,
}

#[derive(Clone)]
pub struct Message {
    pub key: String,
    pub raw: Vec<u8>,
    pub facts: Value,
}

impl Mail {
    pub fn keys(&self) -> Vec<&str> {
        self.messages.iter().map(|message| message.key.as_str()).collect()
    }

    /// Each once?
    pub fn has_no_key_twice(&self) -> bool {
        self.keys().into_iter().collect::<BTreeSet<_>>().len() == self.messages.len()
    }

    /// SHA-256 of each, in order; the first 16 hex digits.
    pub fn hashes(&self) -> Vec<String> {
        self.messages.iter().map(|message| hash(&message.raw)).collect()
    }

    pub fn subjects(&self) -> Vec<&str> {
        self.messages.iter().map(|message| message.facts["subject"].as_str().unwrap_or_default()).collect()
    }

    pub fn bytes(&self) -> usize {
        self.messages.iter().map(|message| message.raw.len()).sum()
    }

    pub fn extend(&mut self, other: Self) {
        self.messages.extend(other.messages);
        self.skipped.extend(other.skipped);
        self.quarantined.extend(other.quarantined);
        self.resets.extend(other.resets);
        self.batches += other.batches;
        self.more = other.more;
    }
}

/// Hashes of what [`Servers::fill`] puts into a mailbox.
pub fn filled(count: usize, mean_kb: usize) -> Vec<String> {
    let generator = Generator::new(1, mean_kb);
    (0..count).map(|number| hash(&generator.message(number))).collect()
}

/// A small message with its number in the subject.
pub fn note(number: usize) -> Vec<u8> {
    format!("From: <ada@outside.test>\r\nSubject: note {number}\r\n\r\nNumber {number}.\r\n").into_bytes()
}

/// Settings that fetch old mail, too.
pub fn since_all(settings: &mut Value) {
    settings["incoming"]["advanced"]["fetch_since"] = json!("all");
}

pub fn hash(raw: &[u8]) -> String {
    Sha256::digest(raw).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// One call.
///
/// # Errors
/// The hook's own.
///
/// # Panics
/// When the counts of the batch do not add up, or it is larger than was asked for.
pub fn batch(handle: &Handle, request: &Value) -> oauth_mail_core::Result<Mail> {
    let Batch { header, messages, .. } = handle.fetch_batch(&request.to_string())?;
    let header = parse(&header);
    let list = |name: &str| header[name].as_array().cloned().unwrap_or_else(|| panic!("no {name}: {header}"));
    let mail = Mail {
        messages: messages.into_iter().map(|m| Message { key: m.key, raw: m.raw, facts: parse(&m.facts) }).collect(),
        skipped: list("skipped"),
        quarantined: list("quarantined"),
        resets: list("resets").iter().map(|text| text.as_str().unwrap_or_default().to_owned()).collect(),
        batches: 1,
        more: header["more"].as_bool().expect("more"),
    };
    let counts: Vec<_> =
        ["delivered", "skipped", "quarantined", "listed"].map(|name| header["counts"][name].as_u64()).to_vec();
    let counted = [mail.messages.len(), mail.skipped.len(), mail.quarantined.len()].map(|count| count as u64);
    assert_eq!(counts, [&counted[..], &[counted.iter().sum()]].concat().into_iter().map(Some).collect::<Vec<_>>());
    assert!(mail.more || header["remaining"] == 0, "{header}");
    if let Some(max) = request["max_messages"].as_u64() {
        assert!(counted[0] <= max, "{} messages, {max} asked for", counted[0]);
    }
    if let Some(max) = request["max_bytes"].as_u64() {
        assert!(mail.bytes() as u64 <= max || counted[0] == 1, "{} bytes, {max} asked for", mail.bytes());
    }
    for message in &mail.messages {
        assert_eq!(message.facts["size"], message.raw.len(), "{}", message.key);
    }
    Ok(mail)
}

/// Calls until `more` is false.
///
/// # Errors
/// Of the first call that fails.
pub fn round(handle: &Handle, request: &Value) -> oauth_mail_core::Result<Mail> {
    let mut all = batch(handle, request)?;
    while all.more {
        all.extend(batch(handle, request)?);
    }
    Ok(all)
}

/// The same verdict for all; what was done, by key.
///
/// # Errors
/// The hook's own.
pub fn settle<'a>(
    handle: &Handle,
    keys: impl IntoIterator<Item = &'a str>,
    verdict: &str,
) -> oauth_mail_core::Result<Map<String, Value>> {
    let results: Map<String, Value> = keys.into_iter().map(|key| (key.to_owned(), json!(verdict))).collect();
    let answer = handle.settle_batch(&json!({ "results": results }).to_string())?;
    Ok(parse(&answer)["done"].as_object().cloned().unwrap_or_default())
}

/// Puts one message into a folder as a mail program would: with a date of arrival and flags.
///
/// `date`: RFC 3501 date-time, `01-Jan-2020 10:00:00 +0000`.
pub fn append(servers: &Servers, name: &str, folder: &str, date: &str, flags: &str, raw: &[u8]) -> Result<()> {
    let mut wire = log_in(servers, name)?;
    wire.write_line(&format!("t APPEND \"{folder}\" ({flags}) \"{date}\" {{{}+}}", raw.len()))?;
    wire.write_all(raw)?;
    wire.write_line("")?;
    loop {
        let line = wire.read_line()?;
        if let Some(answer) = line.strip_prefix("t ") {
            return if answer.starts_with("OK") { Ok(()) } else { Err(Error::new(line)) };
        }
    }
}

/// A connection beside the library's.
pub fn log_in(servers: &Servers, name: &str) -> Result<Wire> {
    let mut wire = Wire::tls(servers.ca_file(), servers.dovecot.port)?;
    let token = servers.token(name, idp::NATIVE)?;
    let token = token["access_token"].as_str().ok_or_else(|| Error::new("no access_token"))?;
    match wire.imap_login(Mechanism::Xoauth2, &servers.address(name), token)? {
        Ok(()) => Ok(wire),
        Err(refusal) => Err(Error::new(refusal.join(" / "))),
    }
}

/// `uid flags`, a line for each message, as the server has them. `\Recent` belongs to a session, not to a message.
pub fn flags(servers: &Servers, name: &str, folder: &str) -> Result<Vec<String>> {
    let address = servers.address(name);
    let text = servers.doveadm(&["-f", "tab", "fetch", "-u", &address, "uid flags", "mailbox", folder, "all"])?;
    Ok(text.lines().skip(1).map(|line| line.replace("\\Recent", "").replace('\t', " ").trim().to_owned()).collect())
}
