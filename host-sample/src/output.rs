//! What is printed: lines for a person, or with `--json` one document per line on standard output.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use oauth_mail_abi::Level;
use serde_json::Value;

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
