//! What is printed: lines for a person, or with `--json` one document per line on standard output.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use oauth_mail_abi::Level;
use serde_json::{Value, json};

use crate::{failure::Failure, progress::Progress};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Clone, Copy)]
pub struct Output {
    json: bool,
    log: LogLevel,
}

impl Output {
    pub fn new(json: bool, log: LogLevel) -> Self {
        Self { json, log }
    }

    pub fn log_level(&self) -> LogLevel {
        self.log
    }

    /// `text` for a person; `document` with `--json`.
    pub fn say(&self, text: &str, document: &Value) {
        let line = if self.json { document.to_string() } else { text.to_owned() };
        // A reader that went away (`| head`) is no reason to panic or to stop fetching.
        let _ = writeln!(io::stdout().lock(), "{line}");
    }

    pub fn failure(&self, failure: &Failure) {
        if self.json {
            let _ = writeln!(io::stdout().lock(), "{}", failure.to_json());
        }
        for sentence in failure.sentences() {
            Progress::above(&sentence);
        }
    }

    /// A bar only where somebody looks at it.
    pub fn progress(&self) -> Progress {
        Progress::new(!self.json && io::stderr().is_terminal())
    }

    /// Each change in the health of a mailbox, as it happens: what a helpdesk would call its operator for.
    pub fn health_watcher(&self) -> impl Fn(&str, &Value) + Send + Sync + 'static {
        let output = *self;
        move |mailbox, health| {
            let line = format!("health of {mailbox}, {}", health_line(health));
            output.say(&line, &json!({"event": "health", "mailbox": mailbox, "health": health}));
        }
    }

    /// The library's log lines, on standard error.
    pub fn logger(&self) -> impl Fn(Level, &str, &str) + Send + Sync + 'static {
        let most = self.log;
        move |level, mailbox, line| {
            let (rank, word) = match level {
                Level::Error => (LogLevel::Error, "error"),
                Level::Warn => (LogLevel::Warn, "warn"),
                Level::Info => (LogLevel::Info, "info"),
                Level::Debug => (LogLevel::Debug, "debug"),
            };
            if rank <= most {
                Progress::above(&format!("{word} {mailbox} {line}"));
            }
        }
    }
}

/// `incoming: consent needed. Why. What to do. (who)`
pub fn health_line(health: &Value) -> String {
    let text = |field: &str| health[field].as_str().unwrap_or_default();
    let mut line = format!("{}: {}.", text("direction"), text("state").replace('_', " "));
    for sentence in [text("why"), text("remedy")].into_iter().filter(|sentence| !sentence.is_empty()) {
        line.push(' ');
        line.push_str(sentence);
    }
    if let Some(who) = health["who"].as_str().filter(|who| *who != "nobody") {
        line.push_str(&format!(" ({who})"));
    }
    line
}
