//! A secret as settings write it: the text itself, or where to find it.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::{
    limits::{SETTING_DOCUMENT_MAX, SETTING_SECRET_MAX},
    secret::Secret,
};

/// Where secrets are looked up. A host uses [`Machine`]; a test brings its own.
pub trait Lookup {
    fn environment(&self, name: &str) -> Option<String>;

    /// At most `SETTING_DOCUMENT_MAX` bytes and one more, so that the caller notices a file that is too long.
    fn file(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// The environment and the files of this process.
pub struct Machine;

impl Lookup for Machine {
    fn environment(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        // A named pipe or a terminal would hold the caller for ever.
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(SETTING_DOCUMENT_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// `"text"`, `{"env": "NAME"}` or `{"file": "/path"}`.
#[derive(Clone)]
pub enum SecretRef {
    Literal(Secret),
    Environment(String),
    File(String),
}

impl SecretRef {
    /// The secret itself; `None` when it is the empty text, which means a public client.
    ///
    /// # Errors
    /// The first half of a sentence for the person, which never holds the secret.
    pub fn resolve(&self, lookup: &dyn Lookup) -> Result<Option<Secret>, String> {
        match self {
            Self::Literal(secret) if pasted(secret.expose()).is_empty() => Ok(None),
            Self::Literal(secret) => one_line(secret.expose()).map(Some).map_err(|why| format!("The text {why}")),
            _ => self.look_up(lookup, one_line).map(Some),
        }
    }

    /// A secret of many lines: a PEM file, a JSON key.
    ///
    /// # Errors
    /// As [`SecretRef::resolve`].
    pub fn resolve_document(&self, lookup: &dyn Lookup) -> Result<Secret, String> {
        match self {
            Self::Literal(secret) => Ok(secret.clone()),
            _ => self.look_up(lookup, document),
        }
    }

    fn look_up(
        &self,
        lookup: &dyn Lookup,
        checked: impl Fn(&str) -> Result<Secret, &'static str>,
    ) -> Result<Secret, String> {
        match self {
            Self::Literal(secret) => Ok(secret.clone()),
            Self::Environment(name) => match lookup.environment(name).map(Zeroizing::new) {
                Some(text) => checked(&text).map_err(|why| format!("The environment variable {name} {why}")),
                None => Err(format!("The environment variable {name} is not set")),
            },
            Self::File(path) => match lookup.file(Path::new(path)).map(Zeroizing::new) {
                Ok(bytes) => match std::str::from_utf8(&bytes) {
                    Ok(text) => checked(text).map_err(|why| format!("The file {path} {why}")),
                    Err(_) => Err(format!("The file {path} does not hold text")),
                },
                Err(error) => Err(format!("The file {path} cannot be read ({})", error.kind())),
            },
        }
    }
}

/// Without what comes along when a secret is copied or saved: spaces and line breaks at its ends, a byte order mark.
fn one_line(text: &str) -> Result<Secret, &'static str> {
    let text = pasted(text);
    match () {
        () if text.is_empty() => Err("is empty"),
        () if text.len() > SETTING_SECRET_MAX => Err("is too long for a secret"),
        () if text.chars().any(char::is_control) => Err("holds more than one line"),
        () if text.chars().any(is_invisible) => Err("holds an invisible character between the others"),
        () => Ok(Secret::new(text)),
    }
}

/// Without the white space and invisible characters at both ends that copying brings along. No provider gives out
/// secrets or client ids with them (RFC 6749 appendix A.1 and A.2: visible ASCII).
pub(super) fn pasted(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || is_invisible(c))
}

/// Zero-width space and joiners, word joiner, byte order mark, direction marks, soft hyphen.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{ad}')
}

fn document(text: &str) -> Result<Secret, &'static str> {
    match () {
        () if text.trim().is_empty() => Err("is empty"),
        () if text.len() > SETTING_DOCUMENT_MAX => Err("is too long for a certificate or a key"),
        () => Ok(Secret::new(text.trim_start_matches('\u{feff}'))),
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self::Literal(Secret::new(text))),
            Value::Object(map) if map.len() == 1 => match map.into_iter().next() {
                Some((key, Value::String(name))) if key == "env" => Ok(Self::Environment(name)),
                Some((key, Value::String(path))) if key == "file" => Ok(Self::File(path)),
                _ => Err(de::Error::custom("neither env nor file")),
            },
            _ => Err(de::Error::custom("not a secret")),
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for SecretRef {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretRef".into()
    }

    /// The generator writes the rule; see `schema/src`.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(content: &[u8]) -> (tempfile::TempDir, SecretRef) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, content).unwrap();
        let reference = SecretRef::File(path.to_str().unwrap().to_owned());
        (dir, reference)
    }

    #[test]
    fn the_line_break_that_an_editor_adds_is_not_part_of_the_secret() {
        let (_dir, reference) = file_with(b"s3cret\r\n");
        assert!(reference.resolve(&Machine).unwrap() == Some(Secret::new("s3cret")));
    }

    #[test]
    fn a_wrong_file_is_named_and_its_content_is_not() {
        for content in [
            &b""[..],
            b"canary\nsecond line",
            b"\xff\xfecanary",
            &[b'x'; SETTING_SECRET_MAX + 1],
            &[b'x'; SETTING_DOCUMENT_MAX + 1],
        ] {
            let (_dir, reference) = file_with(content);
            let Err(why) = reference.resolve(&Machine) else { panic!("accepted") };
            assert!(why.starts_with("The file /") && !why.contains("canary"), "{why}");
        }
        let Err(why) = SecretRef::File("/proc/self".into()).resolve(&Machine) else { panic!("accepted") };
        assert!(why.contains("cannot be read"), "{why}");
    }

    #[test]
    fn fault_21_what_copying_adds_is_not_part_of_the_secret() {
        for pasted in ["s3cret ", " s3cret", "s3cret\u{a0}", "\u{200b}s3cret\u{200b}", "\u{feff}s3cret\r\n", "s3cret\t"]
        {
            let literal = SecretRef::Literal(Secret::new(pasted));
            let (_dir, file) = file_with(pasted.as_bytes());
            for reference in [literal, file] {
                assert!(reference.resolve(&Machine).unwrap() == Some(Secret::new("s3cret")), "{pasted:?}");
            }
        }
        for wrong in ["s3\u{200b}cret", "s3\tcret"] {
            let Err(why) = SecretRef::Literal(Secret::new(wrong)).resolve(&Machine) else { panic!("{wrong:?}") };
            assert!(!why.contains("cret"), "{why}");
        }
        assert!(
            SecretRef::Literal(Secret::new(" \u{a0} ")).resolve(&Machine).unwrap().is_none(),
            "nothing was entered"
        );
        let (_dir, key) = file_with("\u{feff}{}".as_bytes());
        assert!(key.resolve_document(&Machine).unwrap() == Secret::new("{}"));
    }

    #[test]
    fn an_unset_variable_is_not_an_empty_secret() {
        let reference = SecretRef::Environment("OAUTH_MAIL_TEST_SURELY_UNSET".into());
        assert!(reference.resolve(&Machine).is_err());
    }
}
