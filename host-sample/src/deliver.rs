//! Hands each message to a helpdesk that already has a way in: a program that reads it from standard input (Request Tracker's
//! `rt-mailgate`, osTicket's `pipe.php`), or a URL that takes it by POST.
//!
//! | the program ends with | the URL answers | so the message is |
//! |---|---|---|
//! | 0 | 2xx | imported |
//! | 65–70, 77 (sysexits.h: the message or its sender is refused) | 4xx but 408 and 429 | refused |
//! | 75 (EX_TEMPFAIL), a signal, anything else | 408, 429, 5xx, no answer | tried again |
//!
//! What was delivered is written down before the mailbox is settled, so that a crash in between delivers nothing twice.

use std::{
    io::Write as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use oauth_mail_abi::{Account, Message};
use rusqlite::Connection;
use serde_json::{Map, Value, json};

use crate::{
    failure::{Failure, Result},
    host::private_file,
    interrupt,
    output::Output,
    round,
};

/// A program or server that takes longer is tried again later.
const PATIENCE: Duration = Duration::from_secs(120);

pub enum To {
    /// Run by `sh -c`.
    Command(String),
    Url(String, ureq::Agent),
}

impl To {
    pub fn url(url: String) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .max_redirects(0)
            .build();
        Self::Url(url, config.into())
    }
}

/// What became of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Imported,
    Refused,
    Retry,
}

impl Verdict {
    /// As `settle_batch` calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Imported => "imported",
            Self::Refused => "refused",
            Self::Retry => "retry",
        }
    }
}

pub struct Delivery {
    to: To,
    done: Connection,
}

impl Delivery {
    /// `notes`: where delivered keys are kept until they are settled.
    pub fn new(to: To, notes: &Path) -> Result<Self> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::other(format!("The notes on deliveries {} cannot be opened: {error}.", notes.display()))
        };
        if !notes.exists() {
            private_file(notes).map_err(|error| failed(&error))?;
        }
        let done = Connection::open(notes).map_err(|error| failed(&error))?;
        done.execute_batch(
            "PRAGMA synchronous = FULL; CREATE TABLE IF NOT EXISTS delivered (key TEXT PRIMARY KEY, verdict TEXT)",
        )
        .map_err(|error| failed(&error))?;
        Ok(Self { to, done })
    }

    /// One round: everything that waits. How many were imported.
    pub fn round(&mut self, account: &Account, output: &Output) -> Result<u64> {
        let mut imported = 0;
        loop {
            interrupt::check()?;
            let batch = account.fetch_batch(&round::request())?;
            let mut results = Map::new();
            for message in &batch {
                let verdict = self.deliver(&message)?;
                imported += u64::from(verdict == Verdict::Imported);
                let facts = message.facts();
                let subject = facts["subject"].as_str().unwrap_or_default();
                output.say(
                    &format!("{} — {subject}", verdict.name()),
                    &json!({"event": "delivered", "key": message.key, "verdict": verdict.name(), "subject": subject}),
                );
                results.insert(message.key.to_owned(), verdict.name().into());
                if interrupt::requested() {
                    break;
                }
            }
            if !results.is_empty() {
                let keys: Vec<String> = results.keys().cloned().collect();
                account.settle_batch(&json!({ "results": results }))?;
                self.forget(&keys)?;
            }
            if batch.header()["more"] != json!(true) {
                return Ok(imported);
            }
        }
    }

    fn deliver(&self, message: &Message<'_>) -> Result<Verdict> {
        if let Some(verdict) = self.noted(message.key)? {
            return Ok(verdict);
        }
        let verdict = match &self.to {
            To::Command(command) => by_command(command, message)?,
            To::Url(url, agent) => by_url(agent, url, message),
        };
        if verdict != Verdict::Retry {
            let sql = "INSERT OR REPLACE INTO delivered (key, verdict) VALUES (?1, ?2)";
            self.done.execute(sql, (message.key, verdict.name())).map_err(|error| not_noted(&error))?;
        }
        Ok(verdict)
    }

    /// Delivered before a crash, and not settled.
    fn noted(&self, key: &str) -> Result<Option<Verdict>> {
        let found =
            self.done.query_row("SELECT verdict FROM delivered WHERE key = ?1", [key], |row| row.get::<_, String>(0));
        match found {
            Ok(verdict) if verdict == Verdict::Refused.name() => Ok(Some(Verdict::Refused)),
            Ok(_) => Ok(Some(Verdict::Imported)),
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
            Err(error) => Err(not_noted(&error)),
        }
    }

    fn forget(&self, keys: &[String]) -> Result<()> {
        for key in keys {
            self.done.execute("DELETE FROM delivered WHERE key = ?1", [key]).map_err(|error| not_noted(&error))?;
        }
        Ok(())
    }
}

fn not_noted(error: &rusqlite::Error) -> Failure {
    Failure::other(format!(
        "A delivery could not be written down: {error}. Free space on the disk, or correct its rights."
    ))
}

fn by_command(command: &str, message: &Message<'_>) -> Result<Verdict> {
    let disposition = message.facts()["disposition"].take();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .env("OAUTH_MAIL_KEY", message.key)
        .env("OAUTH_MAIL_DISPOSITION", text(&disposition["action"]))
        .env("OAUTH_MAIL_REQUEST_ID", text(&disposition["request_reference"]["request_id"]))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| Failure::other(format!("/bin/sh cannot be started: {error}.")))?;
    let stdin = child.stdin.take();
    let status = thread::scope(|scope| {
        // Beside the wait: a program that does not read must not hold us up beyond our patience.
        scope.spawn(|| {
            // One that ends without reading all decides by its exit code.
            stdin.map(|mut stdin| stdin.write_all(message.raw))
        });
        wait(&mut child)
    });
    Ok(verdict_of(status.and_then(|status| status.code())))
}

/// `None`: it was ended, because it took too long.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let end = Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < end && !interrupt::requested() => thread::sleep(Duration::from_millis(5)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

/// sysexits.h
fn verdict_of(code: Option<i32>) -> Verdict {
    match code {
        Some(0) => Verdict::Imported,
        Some(65..=70 | 77) => Verdict::Refused,
        _ => Verdict::Retry,
    }
}

fn by_url(agent: &ureq::Agent, url: &str, message: &Message<'_>) -> Verdict {
    let answer = agent
        .post(url)
        .header("Content-Type", "message/rfc822")
        // A key may hold any character of a folder's name.
        .header("X-OAuth-Mail-Key", header_value(message.key))
        .send(message.raw);
    match answer.map(|answer| answer.status().as_u16()) {
        Ok(200..=299) => Verdict::Imported,
        Ok(408 | 429) => Verdict::Retry,
        Ok(400..=499) => Verdict::Refused,
        _ => Verdict::Retry,
    }
}

/// Percent-encoded where it is no visible ASCII.
fn header_value(key: &str) -> String {
    key.bytes()
        .map(|byte| if byte.is_ascii_graphic() { (byte as char).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_mean_what_sysexits_says() {
        for (code, verdict) in [
            (Some(0), Verdict::Imported),
            (Some(65), Verdict::Refused),
            (Some(70), Verdict::Refused),
            (Some(77), Verdict::Refused),
            (Some(75), Verdict::Retry),
            (Some(71), Verdict::Retry),
            (Some(1), Verdict::Retry),
            (Some(127), Verdict::Retry),
            (None, Verdict::Retry),
        ] {
            assert_eq!(verdict_of(code), verdict, "{code:?}");
        }
    }

    #[test]
    fn a_key_fits_a_header() {
        assert_eq!(header_value("a@b/Entwürfe x/7.1"), "a@b/Entw%C3%BCrfe%20x/7.1");
    }
}
