//! CreateFolder: where settled mail is moved to, when it is not there yet.

use super::{
    client::{Client, Failure, misbehaved},
    soap::{FolderId, child, escape, id},
};
use crate::clock::Deadline;

fn request(client: &Client, parent: &FolderId, name: &str) -> String {
    format!(
        "<m:CreateFolder><m:ParentFolderId>{}</m:ParentFolderId><m:Folders><t:Folder>\
         <t:FolderClass>IPF.Note</t:FolderClass><t:DisplayName>{}</t:DisplayName></t:Folder></m:Folders></m:CreateFolder>",
        parent.xml(&client.identity),
        escape(name)
    )
}

pub fn create(client: &Client, parent: &FolderId, name: &str, deadline: Deadline) -> Result<FolderId, Failure> {
    client.ask_one("CreateFolder", &|_| request(client, parent, name), deadline, |message| {
        let folder = child(message, "Folders").and_then(|folders| folders.children().find(|node| node.is_element()));
        let made = folder.and_then(|folder| id(folder, "FolderId"));
        Ok(FolderId::Id(made.ok_or_else(|| misbehaved("created a folder without an id"))?.to_owned()))
    })
}
