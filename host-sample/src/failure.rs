//! Why a command ended without what was asked: sentences for a person, and an exit code for a script.

use oauth_mail_abi::{Error, Kind, LoadError};
use serde_json::{Value, json};

/// As a shell reports SIGINT: 128 + 2.
pub const INTERRUPTED: u8 = 130;
/// sysexits.h
const EX_DATAERR: u8 = 65;
const EX_UNAVAILABLE: u8 = 69;
const EX_SOFTWARE: u8 = 70;
const EX_TEMPFAIL: u8 = 75;
const EX_CONFIG: u8 = 78;

#[derive(Debug)]
pub enum Failure {
    /// Exit code 2: the settings, or how the command was called.
    Settings(Vec<String>),
    /// Exit code 3: a person must open the consent window.
    Consent(String),
    /// Exit code 1.
    Other(String),
    /// What a hook said; the exit code follows from its kind.
    Hook(Error),
    /// The message will never be taken.
    Refused(String),
    /// The message is out, or may be: the same call again could send it twice.
    NotAgain(String),
    /// Of `sendmail`, with the exit codes of sysexits.h: its caller keeps the message and tries again, or gives it up.
    Sendmail(Box<Failure>),
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub fn settings(sentence: impl Into<String>) -> Self {
        Self::Settings(vec![sentence.into()])
    }

    pub fn other(sentence: impl Into<String>) -> Self {
        Self::Other(sentence.into())
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_) => 2,
            Self::Consent(_) => 3,
            Self::Other(_) | Self::Refused(_) | Self::NotAgain(_) => 1,
            Self::Sendmail(failure) => match **failure {
                Self::Settings(_) => EX_CONFIG,
                Self::Refused(_) => EX_UNAVAILABLE,
                Self::NotAgain(_) => EX_SOFTWARE,
                Self::Hook(ref error) if error.kind() == Kind::Settings => EX_CONFIG,
                Self::Hook(ref error) if error.kind() == Kind::Misuse => EX_DATAERR,
                _ => EX_TEMPFAIL,
            },
            Self::Hook(error) => match error.kind() {
                Kind::Settings => 2,
                Kind::ConsentRequired => 3,
                _ => 1,
            },
        }
    }

    /// One sentence with its remedy per thing that is wrong.
    pub fn sentences(&self) -> Vec<String> {
        match self {
            Self::Settings(sentences) => sentences.clone(),
            Self::Consent(sentence) | Self::Other(sentence) | Self::Refused(sentence) | Self::NotAgain(sentence) => {
                vec![sentence.clone()]
            }
            Self::Sendmail(failure) => failure.sentences(),
            Self::Hook(error) if error.faults().is_empty() => vec![error.to_string()],
            Self::Hook(error) => {
                let mut sentences: Vec<String> = error
                    .faults()
                    .iter()
                    .map(|fault| {
                        // Some sentences begin with the label already.
                        let label = if fault.message.starts_with(&fault.label) {
                            String::new()
                        } else {
                            format!("{}: ", fault.label)
                        };
                        format!("{label}{} ({})", fault.message, fault.pointer)
                    })
                    .collect();
                // A cure that the library knows goes with the marked fields, and the code for whoever looks it up.
                sentences.extend(error.remedy().map(str::to_owned));
                sentences.extend(error.provider_code().map(|code| format!("The provider says: {code}.")));
                sentences
            }
        }
    }

    pub fn to_json(&self) -> Value {
        let kind = match self {
            Self::Settings(_) => "settings",
            Self::Consent(_) => "consent_required",
            Self::Other(_) => "other",
            Self::Refused(_) => "refused",
            Self::NotAgain(_) => "not_again",
            Self::Sendmail(failure) => return failure.to_json(),
            Self::Hook(error) => return json!({"event": "error", "error": error.document()}),
        };
        json!({"event": "error", "error": {"kind": kind, "message": self.sentences().join(" ")}})
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Hook(error)
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Other(format!("The helpdesk's database failed: {error}. Check the disk and the file's permissions."))
    }
}
