//! FindFolder: a folder by its name.

use super::{
    client::{Client, Failure},
    soap::{FolderId, child, escape, id},
};
use crate::clock::Deadline;

/// The folder with this name right below `parent`.
fn request(client: &Client, parent: &FolderId, name: &str) -> String {
    format!(
        "<m:FindFolder Traversal=\"Shallow\"><m:FolderShape><t:BaseShape>IdOnly</t:BaseShape></m:FolderShape>\
         <m:IndexedPageFolderView MaxEntriesReturned=\"1\" Offset=\"0\" BasePoint=\"Beginning\"/><m:Restriction>\
         <t:IsEqualTo><t:FieldURI FieldURI=\"folder:DisplayName\"/><t:FieldURIOrConstant><t:Constant Value=\"{}\"/>\
         </t:FieldURIOrConstant></t:IsEqualTo></m:Restriction><m:ParentFolderIds>{}</m:ParentFolderIds></m:FindFolder>",
        escape(name),
        parent.xml(&client.identity)
    )
}

pub fn child_of(
    client: &Client,
    parent: &FolderId,
    name: &str,
    deadline: Deadline,
) -> Result<Option<FolderId>, Failure> {
    client.ask_one("FindFolder", &|_| request(client, parent, name), deadline, |message| {
        let folders = child(message, "RootFolder").and_then(|root| child(root, "Folders"));
        let first = folders.and_then(|folders| folders.children().find(|node| node.is_element()));
        Ok(first.and_then(|folder| id(folder, "FolderId")).map(|id| FolderId::Id(id.to_owned())))
    })
}
