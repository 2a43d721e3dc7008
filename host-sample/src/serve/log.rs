//! Structured logs: one JSON document per line on standard error.
//!
//! `{"at":"2026-01-31T12:00:00Z","level":"info","event":…,"mailbox":ID,…}`; `mailbox` is on every line that concerns one. The
//! lines of the library are redacted by it; nothing here logs a request, a form or a header.

use std::io::{self, Write as _};

use oauth_mail_abi::Level;
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::output::LogLevel;

#[derive(Clone, Copy)]
pub struct Log {
    most: LogLevel,
}

impl Log {
    pub fn new(most: LogLevel) -> Self {
        Self { most }
    }

    pub fn error(&self, event: &str, mailbox: Option<i64>, fields: Value) {
        self.write(Level::Error, event, mailbox, fields);
    }

    pub fn warn(&self, event: &str, mailbox: Option<i64>, fields: Value) {
        self.write(Level::Warn, event, mailbox, fields);
    }

    pub fn info(&self, event: &str, mailbox: Option<i64>, fields: Value) {
        self.write(Level::Info, event, mailbox, fields);
    }

    /// A panic is a line like any other. What it says may hold anything, so only its place is told.
    pub fn for_panics(self) {
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line()));
            self.error("panic", None, json!({ "where": place }));
        }));
    }

    /// `fields`: an object.
    pub fn write(&self, level: Level, event: &str, mailbox: Option<i64>, fields: Value) {
        let (rank, word) = match level {
            Level::Error => (LogLevel::Error, "error"),
            Level::Warn => (LogLevel::Warn, "warn"),
            Level::Info => (LogLevel::Info, "info"),
            Level::Debug => (LogLevel::Debug, "debug"),
        };
        if rank > self.most {
            return;
        }
        // One write: lines of several threads and processes do not mix.
        let line = line(word, event, mailbox, fields) + "\n";
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }
}

fn line(level: &str, event: &str, mailbox: Option<i64>, fields: Value) -> String {
    let mut document = Map::new();
    document.insert("at".into(), timestamp(OffsetDateTime::now_utc().unix_timestamp()).into());
    document.insert("level".into(), level.into());
    document.insert("event".into(), event.into());
    if let Some(mailbox) = mailbox {
        document.insert("mailbox".into(), mailbox.into());
    }
    if let Value::Object(fields) = fields {
        document.extend(fields);
    }
    Value::Object(document).to_string()
}

/// RFC 3339 in UTC, whole seconds.
pub fn timestamp(seconds: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_document_with_the_mailbox() {
        let line = line("warn", "round", Some(7), json!({"why": "two\nlines"}));
        assert_eq!(line.lines().count(), 1);
        let document: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&document["mailbox"], &document["why"]), (&json!(7), &json!("two\nlines")));
        assert_eq!(timestamp(1_769_860_800), "2026-01-31T12:00:00Z");
    }
}
