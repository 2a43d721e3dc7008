//! What a hook answers when it cannot go on: one sentence for the person who must act, and the remedy.

use std::fmt;

use serde_json::{Value, json};

use crate::root::HookError;

/// What the host should do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A field of the settings is wrong; [`Error::faults`] says which.
    Settings,
    /// A person must open the consent window (again).
    ConsentRequired,
    /// An administrator of the provider must change something.
    AdminRequired,
    /// The mailbox or the protocol was denied to this identity.
    Refused,
    /// The provider asks to slow down.
    Throttled,
    /// Nothing is wrong that waiting does not cure.
    Transient,
    /// A message or an answer is larger than the limit that protects the host.
    TooLarge,
    /// The server broke its protocol.
    ServerMisbehaved,
    /// The server, or the library, does not have what was asked for.
    Unsupported,
    /// The host called a hook with something that cannot be meant.
    Misuse,
    /// The handle was closed.
    Closed,
    /// A bug of the library. The handle is closed; others live on.
    Internal,
    /// A kind that a newer library has and this package does not know; its number.
    Other(u32),
}

impl Kind {
    /// From the number that crosses.
    pub fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Settings,
            2 => Self::ConsentRequired,
            3 => Self::AdminRequired,
            4 => Self::Refused,
            5 => Self::Throttled,
            6 => Self::Transient,
            7 => Self::TooLarge,
            8 => Self::ServerMisbehaved,
            9 => Self::Unsupported,
            10 => Self::Misuse,
            11 => Self::Closed,
            12 => Self::Internal,
            other => Self::Other(other),
        }
    }

    /// Stable name, as in the JSON documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::ConsentRequired => "consent_required",
            Self::AdminRequired => "admin_required",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Transient => "transient",
            Self::TooLarge => "too_large",
            Self::ServerMisbehaved => "server_misbehaved",
            Self::Unsupported => "unsupported",
            Self::Misuse => "misuse",
            Self::Closed => "closed",
            Self::Internal => "internal",
            Self::Other(_) => "other",
        }
    }
}

/// One wrong field of a settings document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer (RFC 6901) to the field.
    pub pointer: String,
    /// The label that the form shows for it.
    pub label: String,
    /// One sentence: what is wrong and what would be right.
    pub message: String,
}

/// A hook's error. `Display` is the sentence, the provider's own code in brackets, and the remedy.
pub struct Error {
    kind: Kind,
    faults: Vec<Fault>,
    document: Value,
}

impl Error {
    pub(crate) fn from_hook(error: &HookError) -> Self {
        let kind = Kind::from_number(error.kind);
        let document = serde_json::from_str::<Value>(&error.json)
            .ok()
            .filter(|document| document.is_object())
            .unwrap_or_else(|| json!({"kind": kind.name(), "message": error.json.as_str()}));
        Self { kind, faults: faults_in(&document), document }
    }

    /// For what goes wrong on this side of the boundary.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self { kind: Kind::Unsupported, ..Self::internal(message) }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        let kind = Kind::Internal;
        Self { kind, faults: Vec::new(), document: json!({"kind": kind.name(), "message": message.into()}) }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// One sentence for the person who must act.
    pub fn message(&self) -> &str {
        self.text("message").unwrap_or("The library gave no reason.")
    }

    /// What that person should do.
    pub fn remedy(&self) -> Option<&str> {
        self.text("remedy")
    }

    /// All wrong fields at once; empty unless the kind is [`Kind::Settings`].
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// The provider's own code or answer line, verbatim.
    pub fn provider_code(&self) -> Option<&str> {
        self.text("provider_code")
    }

    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.document["retry_after_seconds"].as_u64()
    }

    /// Will the same call succeed later without anybody doing anything?
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Transient | Kind::Throttled)
    }

    /// The whole document, with what is not named here (correlation ids, chain).
    pub fn document(&self) -> &Value {
        &self.document
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.document[field].as_str().filter(|text| !text.is_empty())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())?;
        if let Some(code) = self.provider_code() {
            write!(f, " [{code}]")?;
        }
        if let Some(remedy) = self.remedy() {
            write!(f, " {remedy}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.kind.name())?;
        for fault in &self.faults {
            write!(f, "; {} ({}): {}", fault.label, fault.pointer, fault.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

fn faults_in(document: &Value) -> Vec<Fault> {
    let text = |fault: &Value, field: &str| fault[field].as_str().unwrap_or_default().to_owned();
    document["faults"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|fault| Fault {
            pointer: text(fault, "pointer"),
            label: text(fault, "label"),
            message: text(fault, "message"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_a_newer_library_is_still_readable() {
        let json = json!({"kind": "quarantined", "message": "One sentence.", "remedy": "Do it.", "new_field": [1]});
        let error = Error::from_hook(&HookError { kind: 99, json: json.to_string().into() });
        assert_eq!(error.kind(), Kind::Other(99));
        assert_eq!(error.to_string(), "One sentence. Do it.");
    }

    #[test]
    fn an_error_that_is_not_json_keeps_its_text() {
        let error = Error::from_hook(&HookError { kind: 12, json: "plain".into() });
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Internal, "plain"));
    }

    #[test]
    fn every_fault_arrives() {
        let json = json!({"message": "2 settings need attention.", "faults": [
            {"pointer": "/incoming/port", "label": "Port", "message": "is 0."},
            {"pointer": "/incoming/scope", "label": "Scope", "message": "is empty."}]});
        let error = Error::from_hook(&HookError { kind: 1, json: json.to_string().into() });
        assert_eq!(error.faults().len(), 2);
        assert_eq!(error.faults()[1].pointer, "/incoming/scope");
    }
}
