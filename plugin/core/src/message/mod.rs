//! Messages: parsing into facts, disposition, composing.

pub mod address;
pub mod codec;
pub mod compose;
pub mod disposition;
pub mod facts;
pub mod field;
pub mod mime;
pub mod parse;
pub mod wire;

pub use disposition::{Disposition, disposition};
pub use facts::Facts;
pub use parse::{attachment, parse};

use lettre::Address;
use serde::Serialize;

use crate::{clock::UnixSeconds, settings::Fetching};

/// Facts, disposition and the server's date of one message: the JSON document that travels beside its raw bytes.
///
/// `own_addresses`: what is the helpdesk's besides `fetching.email_addresses`.
pub fn describe(
    raw: &[u8],
    fetching: &Fetching,
    own_addresses: &[Address],
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
    let disposition = disposition(&facts, fetching, own_addresses);
    serde_json::to_string(&Document { disposition, received_at, facts: &facts }).unwrap_or_else(|_| "{}".to_owned())
}
