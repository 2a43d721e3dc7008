//! GetFolder: is it there, and how much is in it?

use super::{
    client::{Client, Failure},
    soap::{FolderId, child, local, text},
};
use crate::clock::Deadline;

fn request(client: &Client, folder: &FolderId, properties: &str) -> String {
    format!(
        "<m:GetFolder><m:FolderShape><t:BaseShape>IdOnly</t:BaseShape>{properties}</m:FolderShape><m:FolderIds>{}\
         </m:FolderIds></m:GetFolder>",
        folder.xml(&client.identity)
    )
}

pub fn exists(client: &Client, folder: &FolderId, deadline: Deadline) -> Result<(), Failure> {
    client.ask_one("GetFolder", &|_| request(client, folder, ""), deadline, |_| Ok(()))
}

/// How many items are in it.
pub fn count(client: &Client, folder: &FolderId, deadline: Deadline) -> Result<u32, Failure> {
    let total = "<t:AdditionalProperties><t:FieldURI FieldURI=\"folder:TotalCount\"/></t:AdditionalProperties>";
    client.ask_one("GetFolder", &|_| request(client, folder, total), deadline, |message| {
        let folder = child(message, "Folders").and_then(|folders| folders.children().find(|node| node.is_element()));
        let count = folder.and_then(|folder| folder.children().find(|node| local(*node, "TotalCount")));
        Ok(count.and_then(|count| text(count).trim().parse().ok()).unwrap_or_default())
    })
}
