//! DeleteItem.

use super::{
    client::{Client, Failure},
    soap::{Version, item_ids},
};
use crate::{clock::Deadline, error::Result, transport::Settled};

#[derive(Clone, Copy)]
pub enum How {
    /// Out of every folder that a person sees, and to be had back for as long as the server keeps deleted items: what an
    /// expunge over IMAP does at Exchange.
    Recoverable,
    /// A draft of ours that nobody ever saw.
    ForGood,
}

fn request(ids: &[&str], how: How, version: Version) -> String {
    let how = match how {
        How::Recoverable => "SoftDelete",
        How::ForGood => "HardDelete",
    };
    // Else the sender of a message that nobody has read may be told so.
    let quiet = if version.suppresses_receipts() { " SuppressReadReceipts=\"true\"" } else { "" };
    format!("<m:DeleteItem DeleteType=\"{how}\"{quiet}><m:ItemIds>{}</m:ItemIds></m:DeleteItem>", item_ids(ids))
}

/// What became of each.
pub fn run(client: &Client, ids: &[&str], how: How, deadline: Deadline) -> Result<Vec<Result<Settled>>, Failure> {
    client.ask_each("DeleteItem", ids, &|version| request(ids, how, version), deadline)
}
