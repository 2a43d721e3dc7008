//! Lines for the host's log. One logger per plugin instance, no process-wide state; redaction happens here, at the sink.

use std::{fmt, sync::Arc};

use crate::call;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    Error = 1,
    Warn = 2,
    Info = 3,
    Debug = 4,
}

type Sink = dyn Fn(Level, &str, &str) + Send + Sync;

/// Cloned into everything that has something to say.
#[derive(Clone)]
pub struct Logger {
    sink: Arc<Sink>,
    /// Which mailbox the line is about; empty for the plugin itself.
    mailbox: Arc<str>,
}

impl Logger {
    /// `sink` receives level, mailbox and the line. It may be called from any thread.
    pub fn new(sink: impl Fn(Level, &str, &str) + Send + Sync + 'static) -> Self {
        Self { sink: Arc::new(sink), mailbox: "".into() }
    }

    pub fn silent() -> Self {
        Self::new(|_, _, _| {})
    }

    pub fn for_mailbox(&self, mailbox: &str) -> Self {
        Self { sink: self.sink.clone(), mailbox: mailbox.into() }
    }

    pub fn log(&self, level: Level, line: fmt::Arguments<'_>) {
        let line = redact(&line.to_string());
        call::waiting("the host's log callback", || (self.sink)(level, &self.mailbox, &line));
    }

    pub fn error(&self, line: fmt::Arguments<'_>) {
        self.log(Level::Error, line);
    }

    pub fn warn(&self, line: fmt::Arguments<'_>) {
        self.log(Level::Warn, line);
    }

    pub fn info(&self, line: fmt::Arguments<'_>) {
        self.log(Level::Info, line);
    }

    pub fn debug(&self, line: fmt::Arguments<'_>) {
        self.log(Level::Debug, line);
    }
}

/// Last line of defence: anything that looks like a credential is cut, whoever wrote it into the line.
///
/// Cut are: the word after `Bearer`, the values of the parameters that RFC 6749, 7636 and 7523 name as secret, the
/// argument of AUTH and AUTHENTICATE, and any run of 40 or more base64url characters (tokens, JWTs, SASL responses).
pub fn redact(line: &str) -> String {
    const PARAMETERS: [&str; 8] = [
        "access_token",
        "refresh_token",
        "id_token",
        "client_secret",
        "code_verifier",
        "client_assertion",
        "assertion",
        "code",
    ];
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    let mut hide_next = false;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_token_char(c)).unwrap_or(rest.len());
        if end == 0 {
            let c = rest.chars().next().unwrap_or_default();
            out.push(c);
            // `name=value`, `"name":"value"` and `Bearer value` keep hiding across their punctuation
            if !matches!(c, '=' | ':' | '"' | ' ' | '\'') {
                hide_next = false;
            }
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let word = &rest[..end];
        // An address as a parameter has its own long run of encoded characters.
        let is_address = word.get(..7).is_some_and(|start| start.to_ascii_lowercase().starts_with("http"))
            && word.contains("%3A%2F%2F");
        if hide_next || (word.len() >= 40 && !is_address && !word.bytes().all(|b| b.is_ascii_digit())) {
            out.push_str("[redacted]");
            hide_next = false;
        } else {
            out.push_str(word);
            let follows = rest[end..].chars().next();
            let scheme = |name: &str| word.eq_ignore_ascii_case(name);
            // In a capability line, `AUTH=XOAUTH2 AUTH=OAUTHBEARER`, the next word is no credential.
            let offered = out[..out.len() - word.len()].ends_with('=') || rest[end..].starts_with(" OAUTHBEARER");
            hide_next = scheme("bearer")
                || scheme("basic")
                || ((scheme("xoauth2") || scheme("oauthbearer")) && !offered)
                || (PARAMETERS.contains(&word) && matches!(follows, Some('=' | '"' | ':')));
        }
        rest = &rest[end..];
    }
    out
}

fn is_token_char(c: char) -> bool {
    // `%` begins a form-encoded character.
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '+' | '/' | '%')
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn credentials_are_cut() {
        for (line, expected) in [
            ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
            ("refresh_token=xyz&scope=mail", "refresh_token=[redacted]&scope=mail"),
            (r#"{"access_token":"t0k","x":1}"#, r#"{"access_token":"[redacted]","x":1}"#),
            ("AUTH XOAUTH2 dXNlcj1h", "AUTH XOAUTH2 [redacted]"),
            ("Authorization: Basic Zm9v", "Authorization: Basic [redacted]"),
            ("* CAPABILITY AUTH=XOAUTH2 AUTH=OAUTHBEARER ID", "* CAPABILITY AUTH=XOAUTH2 AUTH=OAUTHBEARER ID"),
            ("250 AUTH XOAUTH2 OAUTHBEARER", "250 AUTH XOAUTH2 OAUTHBEARER"),
            ("wrong code 535 5.7.8 refused", "wrong code 535 5.7.8 refused"),
            ("a1 OK FETCH completed", "a1 OK FETCH completed"),
            ("client_secret=ab%2Bcd%25&scope=m", "client_secret=[redacted]&scope=m"),
            ("100% of a", "100% of a"),
        ] {
            assert_eq!(redact(line), expected);
        }
        let long = "A".repeat(60);
        assert_eq!(redact(&format!("got {long}")), "got [redacted]");
    }
}
