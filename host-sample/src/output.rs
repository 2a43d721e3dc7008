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

    /// One line for a person; `document` with `--json`.
    pub fn say(&self, line: &str, document: &Value) {
        self.print(one_line(line), document);
    }

    /// The same for text of several lines. What comes of mail and is one line goes through [`one_line`] before.
    pub fn say_lines(&self, text: &str, document: &Value) {
        self.print(text.lines().map(one_line).collect::<Vec<_>>().join("\n"), document);
    }

    fn print(&self, text: String, document: &Value) {
        let line = if self.json { document.to_string() } else { text };
        // A reader that went away (`| head`) is no reason to panic or to stop fetching.
        let _ = writeln!(io::stdout().lock(), "{line}");
    }

    pub fn failure(&self, failure: &Failure) {
        if self.json {
            let _ = writeln!(io::stdout().lock(), "{}", failure.to_json());
        }
        for sentence in failure.sentences() {
            sentence.lines().for_each(Progress::above);
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

/// What a terminal may be shown of somebody else's text: no line end, no control character (CWE-150: ESC moves the cursor and
/// sets titles) and nothing that turns the direction of what follows (UAX #9). Each becomes U+FFFD, a tab stays.
pub fn one_line(text: &str) -> String {
    let is_harmless = |c: char| {
        c == '\t'
            || !c.is_control()
                && !matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.trim_end_matches(['\r', '\n'])
        .chars()
        .map(|c| if is_harmless(c) { c } else { char::REPLACEMENT_CHARACTER })
        .collect()
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

#[cfg(test)]
mod tests {
    use super::one_line;

    /// reliability.md 20.
    #[test]
    fn reliability_20_nothing_of_a_mail_steers_the_terminal() {
        assert_eq!(one_line("first\nrequest 99 created"), "first\u{fffd}request 99 created");
        assert_eq!(one_line("\u{1b}]0;title\u{7}\u{1b}[31m"), "\u{fffd}]0;title\u{fffd}\u{fffd}[31m");
        assert_eq!(one_line("a\u{202e}fdp.exe\u{2066}\u{9b}x"), "a\u{fffd}fdp.exe\u{fffd}\u{fffd}x");
        assert_eq!(one_line("caf\u{e9}\t\u{5d0}\r\n"), "caf\u{e9}\t\u{5d0}");
    }
}
