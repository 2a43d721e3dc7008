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
    serde_json::from_str(request).map_err(|e| {
        Error::new(Kind::Misuse, format!("The request to {hook} cannot be understood: {e}."))
            .remedy("See the table of the hooks for its fields.")
    })
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
