//! MoveItem. Over there the message has another id.

use super::{
    client::{Client, Failure},
    soap::{FolderId, item_ids},
};
use crate::clock::Deadline;

fn request(client: &Client, ids: &[&str], target: &FolderId) -> String {
    format!(
        "<m:MoveItem><m:ToFolderId>{}</m:ToFolderId><m:ItemIds>{}</m:ItemIds></m:MoveItem>",
        target.xml(&client.identity),
        item_ids(ids)
    )
}

/// Whether each was there.
pub fn run(client: &Client, ids: &[&str], target: &FolderId, deadline: Deadline) -> Result<Vec<bool>, Failure> {
    client.ask_each("MoveItem", ids, &|_| request(client, ids, target), deadline)
}
