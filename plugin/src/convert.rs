//! Core types to ABI types and back. The only file that names both.

use std::sync::Arc;

use abi_stable::std_types::{RResult, RString};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use oauth_mail_abi::{
    health::HealthCallback,
    root::{ABI_VERSION, HookError, LogCallback},
};
use oauth_mail_core::{
    Error, Result,
    guard::guarded,
    hooks::{self, Batch, Watcher},
    log::Logger,
    secret::Secret,
};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

pub fn result<T, U>(result: Result<T>, wrap: impl FnOnce(T) -> U) -> RResult<U, HookError> {
    match result {
        Ok(value) => RResult::ROk(wrap(value)),
        Err(error) => RResult::RErr(hook_error(&error)),
    }
}

/// The core's description, with what only this package knows.
pub fn describe() -> RString {
    let document = match guarded("describe", || Ok(hooks::describe())) {
        Ok(text) => serde_json::from_str(&text).unwrap_or_default(),
        Err(error) => json!({ "error": error.to_json() }),
    };
    let mut document = match document {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    document.entry("name").or_insert_with(|| "oauth-mail".into());
    document.entry("version").or_insert_with(|| env!("CARGO_PKG_VERSION").into());
    document.entry("extensions").or_insert_with(|| json!([]));
    document.insert("abi_version".into(), ABI_VERSION.into());
    Value::Object(document).to_string().into()
}

/// The host's callback as a logger; released with the last clone of it.
pub fn logger(callback: LogCallback) -> Logger {
    let callback = Callback(callback);
    Logger::new(move |level, mailbox, line| callback.line(level as u32, mailbox, line))
}

struct Callback(LogCallback);

impl Callback {
    fn line(&self, level: u32, mailbox: &str, line: &str) {
        (self.0.call)(self.0.userdata, level, mailbox.into(), line.into());
    }
}

impl Drop for Callback {
    fn drop(&mut self) {
        (self.0.release)(self.0.userdata);
    }
}

/// The host's callback for changes of health; released with the last clone of it.
pub fn watcher(callback: HealthCallback) -> Watcher {
    struct Owned(HealthCallback);

    impl Owned {
        fn call(&self, mailbox: &str, health: &str) {
            (self.0.call)(self.0.userdata, mailbox.into(), health.into());
        }
    }

    impl Drop for Owned {
        fn drop(&mut self) {
            (self.0.release)(self.0.userdata);
        }
    }

    let owned = Owned(callback);
    Arc::new(move |mailbox, health| owned.call(mailbox, health))
}

/// A key that the host writes, in base64 as the configuration takes it. Its copy here is wiped.
///
/// # Errors
/// What the host answered, when that is not 0.
pub fn key_from(write: impl FnOnce(&mut [u8]) -> u32) -> Result<Secret, u32> {
    let mut key = Zeroizing::new([0u8; KEY_BYTES]);
    match write(&mut key[..]) {
        0 => Ok(Secret::new(STANDARD.encode(&key[..]))),
        status => Err(status),
    }
}

/// As the store's cipher takes it.
const KEY_BYTES: usize = 32;

/// A batch that the host reads in place.
pub struct FetchedBatch(Batch);

impl FetchedBatch {
    pub fn new(batch: Batch) -> Self {
        Self(batch)
    }

    pub fn header(&self) -> &str {
        &self.0.header
    }

    pub fn len(&self) -> usize {
        self.0.messages.len()
    }

    pub fn key(&self, index: usize) -> &str {
        self.0.messages.get(index).map_or("", |message| &message.key)
    }

    pub fn raw(&self, index: usize) -> &[u8] {
        self.0.messages.get(index).map_or(&[], |message| &message.raw)
    }

    pub fn facts(&self, index: usize) -> &str {
        self.0.messages.get(index).map_or("", |message| &message.facts)
    }
}

fn hook_error(error: &Error) -> HookError {
    HookError { kind: error.kind() as u32, json: error.to_json().to_string().into() }
}
