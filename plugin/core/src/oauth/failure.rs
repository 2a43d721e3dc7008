//! A refusal of an authorization server, in a form that can be kept: in the grant's record, and beside its back-off.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Fault, Kind, Who},
    limits,
    log::redact,
    remedies::Remedy,
};

/// What [`Error`] says, without its source chain: can be cloned and stored.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub kind: Kind,
    pub words: Words,
    pub retry_after: Option<Duration>,
    /// The form's field that is wrong, for `Kind::Settings`.
    pub field: Option<(&'static str, &'static str)>,
}

/// The part of a failure that is stored with a grant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Words {
    pub message: String,
    pub remedy: Option<String>,
    /// `None`, also in older records: who usually acts on this kind.
    #[serde(default)]
    pub who: Option<Who>,
    #[serde(default)]
    pub link: Option<String>,
    pub provider_code: Option<String>,
    pub correlation: Option<String>,
}

impl Words {
    /// What is to be done, in place of what stood here.
    pub fn advise(&mut self, remedy: Remedy) {
        self.remedy = Some(remedy.sentence().to_owned());
        self.who = Some(remedy.who());
        self.link = remedy.link();
    }

    pub fn to_error(&self, kind: Kind) -> Error {
        self.dress(Error::new(kind, self.message.clone()))
    }

    fn dress(&self, mut error: Error) -> Error {
        if let Some(remedy) = &self.remedy {
            error = error.remedy(remedy.clone());
        }
        if let Some(who) = self.who {
            error = error.who(who);
        }
        if let Some(link) = &self.link {
            error = error.link(link.clone());
        }
        if let Some(code) = &self.provider_code {
            error = error.provider_code(code.clone());
        }
        if let Some(ids) = &self.correlation {
            error = error.correlation(ids.clone());
        }
        error
    }
}

impl Failure {
    pub fn new(kind: Kind, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let words = Words { message: message.into(), remedy: Some(remedy.into()), ..Words::default() };
        Self { kind, words, retry_after: None, field: None }
    }

    /// As the table of remedies has it.
    pub fn known(remedy: Remedy, host: &str) -> Self {
        let mut words = Words { message: remedy.what(host).unwrap_or_default(), ..Words::default() };
        words.advise(remedy);
        Self { kind: remedy.kind(), words, retry_after: None, field: remedy.field() }
    }

    /// A field of the form is wrong.
    pub fn field(pointer: &'static str, label: &'static str, message: impl Into<String>) -> Self {
        let words = Words { message: message.into(), ..Words::default() };
        Self { kind: Kind::Settings, words, retry_after: None, field: Some((pointer, label)) }
    }

    /// The sentence of an error that has no provider behind it (no answer came).
    pub fn of(error: &Error) -> Self {
        let words = Words {
            message: error.message().to_owned(),
            remedy: error.remedy_text().map(str::to_owned),
            who: Some(error.who_acts()),
            link: error.link_text().map(str::to_owned),
            provider_code: error.provider_code_text().map(str::to_owned),
            correlation: error.correlation_text().map(str::to_owned),
        };
        Self { kind: error.kind(), words, retry_after: error.wait(), field: None }
    }

    pub fn to_error(&self) -> Error {
        let error = match self.field {
            Some((pointer, label)) => Error::settings(vec![Fault {
                pointer: pointer.into(),
                label: label.into(),
                message: self.words.message.clone(),
            }]),
            None => Error::new(self.kind, self.words.message.clone()),
        };
        let error = self.words.dress(error);
        match self.retry_after {
            Some(wait) => error.retry_after(wait),
            None => error,
        }
    }

    /// Waiting cures it, nobody has to act.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Transient | Kind::Throttled)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.message)
    }
}

impl std::error::Error for Failure {}

/// A provider's own words, fit to be shown: one line, bounded, without the `secrets` that were sent to it (a server may
/// echo its request) and without anything that looks like a credential.
pub(super) fn provider_text(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| secret.len() >= 4) {
        text = text.replace(secret, "[redacted]");
    }
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    redact(line.trim()).chars().take(limits::PROVIDER_TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echoed_secret_is_cut_from_the_providers_words() {
        let text = provider_text("client secret 'hunter2!' is\r\nwrong", &["hunter2!"]);
        assert_eq!(text, "client secret '[redacted]' is  wrong");
        assert!(provider_text(&"word ".repeat(1000), &[]).len() <= limits::PROVIDER_TEXT_MAX);
    }
}
