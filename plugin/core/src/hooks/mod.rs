//! The hooks, as the host calls them. JSON in, JSON out; raw messages as bytes.
//!
//! | call | in | out |
//! |---|---|---|
//! | [`Plugin::new`] | `{"store":"sqlite:PATH","key":{"file"/"env":…}/{"value":BASE64},"private_networks":"allow"/"deny"}` | plugin |
//! | [`Plugin::open`] | `{"incoming":{…form…}}` or `{"outgoing":{…form…}}` | handle, or all faults at once |
//! | [`Handle::authenticate`] | `{"action":"status"/"start"/"complete"/"revoke","redirect":URL}` | `{"state":"authorized"/"consent_required"/"revoked",…}` |
//! | [`Handle::fetch_batch`] | `{"max_messages","max_bytes","deadline_ms"}` | [`Batch`] |
//! | [`Handle::settle_batch`] | `{"results":{KEY:"imported"/"duplicate"/"refused"/"retry"}}` | `{"done":{KEY:…},"cursor":…}` |
//! | [`Handle::send_message`] | `{"to","cc","bcc","subject","text","html","attachments","in_reply_to","references","envelope","idempotency_key"}` + raw MIME | `{"outcome":"sent"/"rejected"/"retry"/"unknown",…}` |
//!
//! Every request may carry `deadline_ms`. A handle serves one call at a time; any number of handles run side by side.

use crate::{error::Result, log::Logger};

/// Name, version, protocols, grants and both schemas, as JSON.
pub fn describe() -> String {
    String::new()
}

/// One per host process (or more; they never meet except in the store).
pub struct Plugin {}

impl Plugin {
    pub fn new(_config: &str, _logger: Logger) -> Result<Self> {
        Ok(Self {})
    }

    pub fn open(&self, _settings: &str) -> Result<Handle> {
        Ok(Handle {})
    }
}

/// One mailbox, in one direction.
pub struct Handle {}

impl Handle {
    pub fn authenticate(&self, _request: &str) -> Result<String> {
        Ok(String::new())
    }

    pub fn fetch_batch(&self, _request: &str) -> Result<Batch> {
        Ok(Batch { header: String::new(), messages: Vec::new() })
    }

    pub fn settle_batch(&self, _request: &str) -> Result<String> {
        Ok(String::new())
    }

    /// `raw` empty: the request's content is composed. Else it is sent as it is, to the request's envelope.
    pub fn send_message(&self, _request: &str, _raw: &[u8]) -> Result<String> {
        Ok(String::new())
    }

    /// Ends what the handle started. Later calls get a `Closed` error.
    pub fn close(&self) {}
}

/// What one `fetch_batch` hands over. `header`: `{"cursor","more","remaining","counts":{"listed","delivered","skipped",
/// "quarantined"},"skipped":[{"key","reason"}],"resets":[…]}`.
pub struct Batch {
    pub header: String,
    pub messages: Vec<Message>,
}

pub struct Message {
    /// Stable: mailbox + folder + the provider's own id.
    pub key: String,
    pub raw: Vec<u8>,
    /// Facts and disposition, as JSON.
    pub facts: String,
}
