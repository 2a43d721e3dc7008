//! One sentence. `Debug` shows the same as `Display`, because tests unwrap.

use std::{fmt, io};

pub type Result<T, E = Error> = std::result::Result<T, E>;

pub struct Error(String);

impl Error {
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// Says what was being done when something failed.
    pub fn doing<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |cause| Self(format!("{what}: {cause}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(cause: io::Error) -> Self {
        Self(cause.to_string())
    }
}

impl From<reqwest::Error> for Error {
    fn from(cause: reqwest::Error) -> Self {
        // reqwest says only "error sending request"; the reason stands in its sources.
        let mut text = cause.to_string();
        let mut source = std::error::Error::source(&cause);
        while let Some(inner) = source {
            text.push_str(&format!(": {inner}"));
            source = inner.source();
        }
        Self(text)
    }
}

impl From<url::ParseError> for Error {
    fn from(cause: url::ParseError) -> Self {
        Self(cause.to_string())
    }
}
