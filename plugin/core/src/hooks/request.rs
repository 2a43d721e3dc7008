//! What all requests have in common: they are bounded JSON objects, know their fields, and may carry `deadline_ms`.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    limits,
};

/// # Errors
/// `Misuse`, with what the JSON parser found and where.
pub fn parse<T: DeserializeOwned>(hook: &str, request: &str) -> Result<T> {
    if request.len() > limits::REQUEST_MAX {
        return Err(Error::new(
            Kind::TooLarge,
            format!("The request to {hook} is larger than {} bytes.", limits::REQUEST_MAX),
        ));
    }
    let request = if request.trim().is_empty() { "{}" } else { request };
    serde_json::from_str(request).map_err(|e| misuse(hook, &e))
}

/// What serde found wrong, in its words as far as they hold nothing of the request but names: a redirect with its code, or
/// a key, may stand in the wrong place.
pub fn misuse(hook: &str, e: &serde_json::Error) -> Error {
    Error::new(Kind::Misuse, format!("The request to {hook} cannot be understood: {}.", without_values(&e.to_string())))
        .remedy("See the table of the hooks for its fields.")
}

fn without_values(text: &str) -> String {
    // Longer than any field's name, and shorter than any token or key.
    const NAME_MAX: usize = 32;
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let harmless = text.chars().all(|c| is_word(c) || " `,.:".contains(c))
        && text.split(|c| !is_word(c)).all(|word| word.len() <= NAME_MAX);
    if harmless {
        return text.to_owned();
    }
    // After the last one stands serde's own text: types, names, line and column.
    let expected = text.rfind(", expected ").map_or("", |at| &text[at..]);
    format!("a value or name is not right{expected}")
}

/// `deadline_ms`: 1 to `limits::DEADLINE_MAX`; absent: `limits::DEADLINE_DEFAULT`.
pub fn deadline(deadline_ms: Option<u64>) -> Result<Deadline> {
    match deadline_ms {
        None => Ok(Deadline::after(limits::DEADLINE_DEFAULT)),
        Some(ms) if ms >= 1 && ms <= limits::DEADLINE_MAX.as_millis() as u64 => {
            Ok(Deadline::after(Duration::from_millis(ms)))
        }
        Some(ms) => Err(Error::new(
            Kind::Misuse,
            format!("deadline_ms is {ms}; it must be between 1 and {}.", limits::DEADLINE_MAX.as_millis()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        #[allow(dead_code)] // only parsed
        number: Option<u8>,
        #[allow(dead_code)]
        kind: Option<Choice>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Choice {
        One,
    }

    #[test]
    fn a_mistake_is_explained_without_repeating_what_stands_there() {
        let said = |request: &str| parse::<Fields>("a hook", request).unwrap_err().to_string();
        let text = said(r#"{"numbr": 1}"#);
        assert!(text.contains("unknown field `numbr`, expected `number` or `kind`"), "{text}");
        for request in [
            r#"{"kind": "https://host/?code=s3cret"}"#,
            r#"{"kind": "s3cretAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
            r#"{"number": "s3cret"}"#,
            r#"{"number": "s3cret, expected nothing"}"#,
            r#"{"s3cret=": 1}"#,
            r#""s3cret, expected""#,
        ] {
            let text = said(request);
            assert!(!text.contains("s3cret"), "{text}");
            assert!(text.contains("expected") && text.contains("line 1"), "{text}");
        }
    }
}
