//! What the library says while it works: log lines, transcripts of email debug, and changes of
//! health. It names a mailbox by the label that this host gave it: the host's number. One username
//! may be known at several servers, so only libraries without labels are asked for it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use oauth_mail_abi::Level;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    log::{Log, timestamp},
    storage::Storage,
};
use crate::{failure::Result, host::Direction};

/// Of one mailbox; the oldest lines are dropped first.
pub const TRANSCRIPT_MAX: usize = 256 * 1024;

pub struct Ears {
    storage: Storage,
    log: Log,
    /// Who has an account open under this label, in lower case.
    names: Mutex<HashMap<String, BTreeSet<(i64, Direction)>>>,
    /// Lines that are not in the storage yet.
    heard: Mutex<HashMap<i64, String>>,
    /// One at a time: what is there is read and written anew.
    flushing: Mutex<()>,
}

impl Ears {
    pub fn new(storage: Storage, log: Log) -> Self {
        Self { storage, log, names: Mutex::default(), heard: Mutex::default(), flushing: Mutex::default() }
    }

    pub fn knows(&self, label: &str, mailbox: i64, direction: Direction) {
        lock(&self.names).entry(label.trim().to_lowercase()).or_default().insert((mailbox, direction));
    }

    pub fn forgets(&self, mailbox: i64, direction: Direction) {
        lock(&self.names).retain(|_, known| {
            known.remove(&(mailbox, direction));
            !known.is_empty()
        });
    }

    fn named(&self, label: &str) -> Vec<(i64, Direction)> {
        let names = lock(&self.names);
        names.get(&label.trim().to_lowercase()).into_iter().flatten().copied().collect()
    }

    /// The log callback. Lines at debug are the transcript, which the library has redacted.
    pub fn line(&self, level: Level, label: &str, line: &str) {
        let known = self.named(label);
        let mailboxes: BTreeSet<i64> = known.iter().map(|(mailbox, _)| *mailbox).collect();
        if level == Level::Debug {
            for &mailbox in &mailboxes {
                let mut heard = lock(&self.heard);
                let text = heard.entry(mailbox).or_default();
                text.push_str(&format!("{} {line}\n", timestamp(OffsetDateTime::now_utc().unix_timestamp())));
                keep_end(text);
            }
        }
        if mailboxes.is_empty() {
            self.log.write(level, "library", None, json!({"line": line, "user": label}));
        }
        for mailbox in mailboxes {
            self.log.write(level, "library", Some(mailbox), json!({"line": line}));
        }
    }

    /// The health callback: all nodes see the change at once.
    pub fn health(&self, label: &str, health: &Value) {
        let direction = match health["direction"].as_str() {
            Some("outgoing") => Direction::Outgoing,
            _ => Direction::Incoming,
        };
        for (mailbox, _) in self.named(label).into_iter().filter(|(_, known)| *known == direction) {
            let fields = json!({"direction": direction.name(), "state": health["state"], "why": health["why"],
                                "remedy": health["remedy"], "who": health["who"]});
            self.log.warn("health", Some(mailbox), fields);
            if let Err(failure) = self.storage.set_health(mailbox, direction, health) {
                self.log.error("storage", Some(mailbox), json!({"why": failure.sentences().join(" ")}));
            }
        }
    }

    /// Into the storage, where every node finds it.
    pub fn flush(&self, mailbox: i64) -> Result<()> {
        let _alone = lock(&self.flushing);
        if !lock(&self.heard).contains_key(&mailbox) {
            return Ok(());
        }
        let mut text = self.storage.transcript(mailbox)?;
        let Some(new) = lock(&self.heard).remove(&mailbox) else { return Ok(()) };
        text.push_str(&new);
        keep_end(&mut text);
        self.storage.set_transcript(mailbox, &text)
    }
}

/// Whole lines.
fn keep_end(text: &mut String) {
    if text.len() <= TRANSCRIPT_MAX {
        return;
    }
    // Three quarters: cutting a little at each line would copy all of it at each line.
    let from = text.len() - TRANSCRIPT_MAX / 4 * 3;
    let cut = text.as_bytes()[from..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| from + at + 1);
    text.drain(..cut);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_keeps_whole_lines_of_its_end() {
        let mut text = String::new();
        for number in 0..40_000 {
            text.push_str(&format!("S: line {number} é\n"));
            keep_end(&mut text);
            assert!(text.len() <= TRANSCRIPT_MAX);
        }
        assert!(text.starts_with("S: line ") && text.ends_with("line 39999 é\n"));
        assert!(text.len() > TRANSCRIPT_MAX / 2);
        let mut one = "x".repeat(TRANSCRIPT_MAX + 1);
        keep_end(&mut one);
        assert_eq!(one, "");
    }
}
