//! MoveItem. Over there the message has another id.

use super::{
    client::{Client, Failure},
    soap::{FolderId, item_ids},
};
use crate::{clock::Deadline, error::Result, transport::Settled};

fn request(client: &Client, ids: &[&str], target: &FolderId) -> String {
    format!(
        "<m:MoveItem><m:ToFolderId>{}</m:ToFolderId><m:ItemIds>{}</m:ItemIds></m:MoveItem>",
        target.xml(&client.identity),
        item_ids(ids)
    )
}

/// What became of each.
pub fn run(
    client: &Client,
    ids: &[&str],
    target: &FolderId,
    deadline: Deadline,
) -> Result<Vec<Result<Settled>>, Failure> {
    client.ask_each("MoveItem", ids, &|_| request(client, ids, target), deadline)
}
