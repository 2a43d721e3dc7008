//! The hooks, safe and pleasant: JSON values in and out, raw messages as byte slices that are read in place.

use std::fmt;

use abi_stable::std_types::{RResult, RString};
use serde_json::Value;

use crate::{
    error::Error,
    root::{AccountObject, BatchObject, HookError, PluginObject},
};

/// A configured plugin: opens accounts. Any thread.
pub struct Plugin {
    pub(crate) object: PluginObject,
}

impl Plugin {
    /// Checks one settings document, `{"incoming":{…}}` or `{"outgoing":{…}}`, and opens it. No network is touched.
    /// With the extension `oauth-mail/label/1`, `"label"` beside the form names the mailbox in log lines and changes of
    /// health; without it they name the username, which may be known at several servers.
    ///
    /// # Errors
    /// `Settings` with every fault at once.
    pub fn open(&self, settings: &Value) -> Result<Account, Error> {
        let object = checked(self.object.open(settings.to_string().as_str().into()))?;
        Ok(Account { object })
    }
}

/// One mailbox in one direction. One call at a time; any number of accounts side by side.
///
/// Dropping it closes it. [`Account::close`] may come from another thread while a call runs.
pub struct Account {
    object: AccountObject,
}

impl Account {
    /// `{"action":"status"/"start"/"complete"/"poll"/"revoke","redirect":URL}` → `{"state":…}`.
    ///
    /// # Errors
    /// Any kind; `ConsentRequired` when a person must open the consent window.
    pub fn authenticate(&self, request: &Value) -> Result<Value, Error> {
        answer(self.object.authenticate(request.to_string().as_str().into()))
    }

    /// `{"max_messages","max_bytes","deadline_ms"}` → the next messages. The mailbox is not changed.
    ///
    /// # Errors
    /// Any kind.
    pub fn fetch_batch(&self, request: &Value) -> Result<Batch, Error> {
        let object = checked(self.object.fetch_batch(request.to_string().as_str().into()))?;
        Ok(Batch { object })
    }

    /// `{"results":{KEY:"imported"/"duplicate"/"refused"/"retry"}}` → what was done. Can be repeated.
    ///
    /// # Errors
    /// Any kind.
    pub fn settle_batch(&self, request: &Value) -> Result<Value, Error> {
        answer(self.object.settle_batch(request.to_string().as_str().into()))
    }

    /// Envelope and content, or (when `raw` is not empty) envelope and a finished message →
    /// `{"outcome":"sent"/"rejected"/"retry"/"unknown",…}`; `sent` with `"refused":[{"address","reply","transient"}]`: who did
    /// not get it, `transient` who may get it when it is sent again to them alone.
    ///
    /// # Errors
    /// What prevents trying: settings, consent, misuse. A server's refusal is an outcome, not an error.
    pub fn send_message(&self, request: &Value, raw: &[u8]) -> Result<Value, Error> {
        answer(self.object.send_message(request.to_string().as_str().into(), raw.into()))
    }

    /// Ends what runs; later calls answer `Closed`. Can be repeated.
    pub fn close(&self) {
        self.object.close();
    }
}

/// What one `fetch_batch` handed over; lives in the library's memory and is freed there.
pub struct Batch {
    object: BatchObject,
}

impl Batch {
    /// `{"cursor","more","remaining","counts":{…},"skipped":[…],"resets":[…]}`.
    pub fn header(&self) -> Value {
        serde_json::from_str(self.object.header().as_str()).unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        self.object.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn message(&self, index: usize) -> Option<Message<'_>> {
        (index < self.len()).then(|| Message {
            key: self.object.key(index).as_str(),
            raw: self.object.raw(index).as_slice(),
            facts_json: self.object.facts(index).as_str(),
        })
    }

    pub fn iter(&self) -> Messages<'_> {
        Messages { batch: self, next: 0 }
    }
}

impl<'batch> IntoIterator for &'batch Batch {
    type Item = Message<'batch>;
    type IntoIter = Messages<'batch>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The messages of a [`Batch`], in mailbox order.
pub struct Messages<'batch> {
    batch: &'batch Batch,
    next: usize,
}

impl<'batch> Iterator for Messages<'batch> {
    type Item = Message<'batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let message = self.batch.message(self.next)?;
        self.next += 1;
        Some(message)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.batch.len().saturating_sub(self.next);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Messages<'_> {}

/// One message, read in place.
#[derive(Clone, Copy)]
pub struct Message<'batch> {
    /// Stable: mailbox (login and server), folder, and the provider's own id. Commit it with what becomes of the message.
    pub key: &'batch str,
    /// As the server has it, byte for byte.
    pub raw: &'batch [u8],
    /// Facts and disposition, as JSON text; parse it with [`Message::facts`].
    pub facts_json: &'batch str,
}

impl Message<'_> {
    /// Addresses, subject, dates, ids, texts, attachments, disposition.
    pub fn facts(&self) -> Value {
        serde_json::from_str(self.facts_json).unwrap_or_default()
    }
}

macro_rules! opaque_debug {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

opaque_debug! {Plugin Account Batch}

/// Message bodies stay out of logs.
impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("key", &self.key).field("bytes", &self.raw.len()).finish_non_exhaustive()
    }
}

pub(crate) fn checked<T>(result: RResult<T, HookError>) -> Result<T, Error> {
    result.into_result().map_err(|error| Error::from_hook(&error))
}

pub(crate) fn answer(result: RResult<RString, HookError>) -> Result<Value, Error> {
    let text = checked(result)?;
    serde_json::from_str(&text).map_err(|error| Error::internal(format!("The library answered broken JSON: {error}.")))
}
