//! Messages: parsing into facts, disposition, composing.

pub mod address;
mod automatic;
mod body;
pub mod charset;
pub mod codec;
pub mod compose;
mod date;
pub mod disposition;
pub mod evidence;
pub mod facts;
pub mod field;
pub mod fingerprint;
mod html;
pub mod mime;
mod parameters;
pub mod parse;
mod people;
pub mod reply;
mod report;
pub mod signature;
pub mod verdict;
pub mod wire;
mod words;

pub use disposition::{Disposition, disposition};
pub use facts::Facts;
pub use parse::{attachment, parse};
pub use signature::Signer;

use lettre::Address;
use serde::Serialize;

use crate::{
    clock::UnixSeconds,
    error::{Error, Kind, Result},
    settings::Fetching,
};

/// The facts alone, of a message that the host kept.
///
/// # Errors
/// `Internal` when they cannot be written as JSON.
pub fn facts_json(raw: &[u8]) -> Result<String> {
    serde_json::to_string(&parse(raw)).map_err(|error| Error::new(Kind::Internal, error.to_string()))
}

/// Facts, disposition, the server's date, what the receiving server found of the sender (`sender_verdict`), and the answer
/// without history (`reply_text`, `reply_cut`) of one message: the JSON document that travels beside its raw bytes.
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
        sender_verdict: Option<verdict::SenderVerdict>,
        #[serde(flatten)]
        reply: reply::Reply,
        #[serde(flatten)]
        facts: &'a Facts,
    }
    let facts = parse(raw);
    let disposition = disposition(&facts, fetching, own_addresses, signer);
    let sender_verdict = verdict::sender_verdict(raw, &facts, &fetching.trusted_authserv_ids);
    let reply = reply::reply(&facts, fetching.reply_delimiter.as_deref());
    serde_json::to_string(&Document { disposition, received_at, sender_verdict, reply, facts: &facts })
        .unwrap_or_else(|_| "{}".to_owned())
}
