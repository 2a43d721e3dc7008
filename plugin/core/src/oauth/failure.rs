//! A refusal of an authorization server, in a form that can be kept: in the grant's record, and beside its back-off.

use std::{fmt, time::Duration};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use serde::{Deserialize, Serialize};
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::{
    error::{Error, Fault, Kind, Who},
    hex::hex,
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
    /// What the provider's code means; see said.rs.
    pub code: Option<String>,
    /// May it mean that the sign-in has ended?
    pub doubt: Option<Doubt>,
    /// The server does not take the client's proof of itself: another method may do.
    pub refuses_client: bool,
}

/// A refused refresh whose code does not say whether the refresh token is what was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The rest of the answer says so.
    Likely,
    /// Nothing says so, and nothing else.
    Possible,
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
    /// Only an administrator's consent cures it.
    #[serde(default)]
    pub needs_admin_consent: bool,
    pub provider_code: Option<String>,
    pub correlation: Option<String>,
}

impl Words {
    /// What is to be done, in place of what stood here.
    pub fn advise(&mut self, remedy: Remedy) {
        self.remedy = Some(remedy.sentence().to_owned());
        self.who = Some(remedy.who());
        self.link = remedy.link();
        self.needs_admin_consent = remedy.needs_admin_consent();
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
        if self.needs_admin_consent {
            error = error.admin_consent();
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
        Self::with(kind, words)
    }

    /// As the table of remedies has it.
    pub fn known(remedy: Remedy, host: &str) -> Self {
        let mut words = Words { message: remedy.what(host).unwrap_or_default(), ..Words::default() };
        words.advise(remedy);
        Self { field: remedy.field(), ..Self::with(remedy.kind(), words) }
    }

    fn with(kind: Kind, words: Words) -> Self {
        Self { kind, words, retry_after: None, field: None, code: None, doubt: None, refuses_client: false }
    }

    /// A more particular row than the one of the `error`: sentence, remedy and marked field belong together. What is done
    /// stays as the `error` has it: a refusal that nobody has to act on, or a person by a consent, remains one.
    pub fn specify(&mut self, remedy: Remedy) {
        let is_of_settings = |kind| matches!(kind, Kind::Settings | Kind::AdminRequired);
        match (self.kind, remedy.kind()) {
            // While the provider is busy nobody has to act, whatever else it says.
            (Kind::Transient | Kind::Throttled, _) => return,
            (here, there) if is_of_settings(here) && is_of_settings(there) => self.kind = there,
            _ => {}
        }
        self.field = remedy.field().filter(|_| self.kind == Kind::Settings);
        if let Some(what) = remedy.what("The provider") {
            self.words.message = what;
        }
        self.words.advise(remedy);
    }

    /// A field of the form is wrong.
    pub fn field(pointer: &'static str, label: &'static str, message: impl Into<String>) -> Self {
        let words = Words { message: message.into(), ..Words::default() };
        Self { field: Some((pointer, label)), ..Self::with(Kind::Settings, words) }
    }

    /// The sentence of an error that has no provider behind it (no answer came).
    pub fn of(error: &Error) -> Self {
        let words = Words {
            message: error.message().to_owned(),
            remedy: error.remedy_text().map(str::to_owned),
            who: Some(error.who_acts()),
            link: error.link_text().map(str::to_owned),
            needs_admin_consent: error.needs_admin_consent(),
            provider_code: error.provider_code_text().map(str::to_owned),
            correlation: error.correlation_text().map(str::to_owned),
        };
        Self { retry_after: error.wait(), ..Self::with(error.kind(), words) }
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
/// echo its request, in any spelling) and without anything that looks like a credential.
pub(super) fn provider_text(text: &str, secrets: &[&str]) -> String {
    // Longest first: a shorter spelling may be a part of a longer one.
    let mut spelled: Vec<_> =
        secrets.iter().filter(|secret| secret.len() >= 4).flat_map(|one| spellings(one)).collect();
    spelled.sort_by_key(|spelling| std::cmp::Reverse(spelling.len()));
    let mut text = Zeroizing::new(text.to_owned());
    for spelling in spelled.iter().filter(|spelling| spelling.len() >= 4) {
        // Hex digits and percent codes come in both cases; ASCII case says nothing else in a spelling that is not raw.
        while let Some(at) = find(&text, spelling) {
            text.replace_range(at..at + spelling.len(), CUT);
        }
    }
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    redact(line.trim()).chars().take(limits::PROVIDER_TEXT_MAX).collect()
}

const CUT: &str = "[redacted]";

fn find(text: &str, spelling: &str) -> Option<usize> {
    let (text, spelling) = (text.as_bytes(), spelling.as_bytes());
    // At ASCII bytes only, so that a cut is always between characters; `CUT` itself is never found again.
    (0..(text.len() + 1).saturating_sub(spelling.len()))
        .find(|at| text[*at..at + spelling.len()].eq_ignore_ascii_case(spelling) && CUT.as_bytes() != spelling)
}

/// How a secret can stand in an echo: as it is, form- or percent-encoded, HTML-escaped, in hex, and in base64 wherever it
/// begins in what was encoded.
fn spellings(secret: &str) -> Vec<Zeroizing<String>> {
    let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let percent = form.replace('+', "%20");
    let unreserved = percent.replace("%7E", "~");
    let escaped = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let quoted = escaped.replace('"', "&quot;");
    let mut all = vec![
        secret.to_owned(),
        quoted.replace('\'', "&#39;"),
        quoted.replace('\'', "&#x27;"),
        quoted,
        escaped,
        hex(secret.as_bytes()),
        form,
        percent,
        unreserved,
    ];
    for skipped in 0..3 {
        let bytes = Zeroizing::new([&[0; 3][..skipped], secret.as_bytes()].concat());
        for encoded in [BASE64_STANDARD_NO_PAD.encode(&bytes), BASE64_URL_SAFE_NO_PAD.encode(&bytes)] {
            // Characters at both ends hold bits of the neighbours, too.
            let end = bytes.len() / 3 * 4;
            let from = if skipped == 0 { 0 } else { 4 };
            all.extend(encoded.get(from..end).map(str::to_owned));
        }
    }
    all.into_iter().map(Zeroizing::new).collect()
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

    #[test]
    fn fault_15_a_secret_is_cut_in_every_spelling() {
        let secret = "c4n+ary/S=ecr%et&X~'q\"<z>";
        let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let base64 = |text: &str| BASE64_STANDARD_NO_PAD.encode(text);
        for echo in [
            secret.to_owned(),
            form.clone(),
            form.to_lowercase(),
            form.replace("%7E", "~"),
            secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;"),
            secret
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&quot;")
                .replace('\'', "&#39;"),
            hex(secret.as_bytes()),
            hex(secret.as_bytes()).to_uppercase(),
            base64(secret),
            base64(&format!("id:{secret}")),
            base64(&format!("i:{secret}")),
            base64(&format!("client:{secret}")),
            BASE64_URL_SAFE_NO_PAD.encode(secret),
        ] {
            for text in [format!("secret '{echo}' is wrong"), format!("client_secret={echo}&x=1"), echo.clone()] {
                let told = provider_text(&text, &[secret]);
                for length in (8..=echo.len()).rev() {
                    assert!(!told.contains(&echo[echo.len() - length..]), "{told}: {echo}");
                }
                assert!(told.contains("[redacted]"), "{told}");
            }
        }
        // What is named a secret is cut to its end without being known.
        assert_eq!(provider_text("client_secret=abc%2Bdef&x=1", &[]), "client_secret=[redacted]&x=1");
    }
}
