//! Messages: parsing into facts, disposition, composing.

pub mod address;
mod automatic;
pub mod codec;
pub mod compose;
pub mod disposition;
pub mod evidence;
pub mod facts;
pub mod field;
pub mod fingerprint;
pub mod mime;
pub mod parse;
pub mod signature;
pub mod wire;

pub use disposition::{Disposition, disposition};
pub use facts::Facts;
pub use parse::{attachment, parse};
pub use signature::Signer;

use lettre::Address;
use serde::Serialize;

use crate::{clock::UnixSeconds, settings::Fetching};

/// Facts, disposition and the server's date of one message: the JSON document that travels beside its raw bytes.
///
/// `own_addresses`: what is the helpdesk's besides `fetching.email_addresses`. `signer`: tells our Message-IDs from others;
/// `None` while its key cannot be read, then none counts as ours or as forged.
pub fn describe(
    raw: &[u8],
    fetching: &Fetching,
    own_addresses: &[Address],
    signer: Option<&Signer>,
    received_at: Option<UnixSeconds>,
) -> String {
    #[derive(Serialize)]
    struct Document<'a> {
        disposition: Disposition,
        received_at: Option<UnixSeconds>,
        #[serde(flatten)]
        facts: &'a Facts,
    }
    let facts = parse(raw);
    let disposition = disposition(&facts, fetching, own_addresses, signer);
    serde_json::to_string(&Document { disposition, received_at, facts: &facts }).unwrap_or_else(|_| "{}".to_owned())
}
