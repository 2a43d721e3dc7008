//! SendItem: the draft goes out, and a copy of it to Sent Items.

use super::{
    client::{Client, Failure},
    create_item::Draft,
    soap::FolderId,
};
use crate::clock::Deadline;

fn request(client: &Client, draft: &Draft) -> String {
    format!(
        "<m:SendItem SaveItemToFolder=\"true\"><m:ItemIds>{}</m:ItemIds><m:SavedItemFolderId>{}</m:SavedItemFolderId>\
         </m:SendItem>",
        draft.xml(),
        FolderId::SENT.xml(&client.identity)
    )
}

pub fn send(client: &Client, draft: &Draft, deadline: Deadline) -> Result<(), Failure> {
    client.ask_one("SendItem", &|_| request(client, draft), deadline, |_| Ok(()))
}
