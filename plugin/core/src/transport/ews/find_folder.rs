//! FindFolder: a folder by its name.

use roxmltree::Node;

use super::{
    client::{Client, Failure},
    soap::{FolderId, child, escape, id, text},
};
use crate::clock::Deadline;

/// The folder with this name right below `parent`.
fn request(client: &Client, parent: &FolderId, name: &str) -> String {
    format!(
        "<m:FindFolder Traversal=\"Shallow\"><m:FolderShape><t:BaseShape>IdOnly</t:BaseShape><t:AdditionalProperties>\
         <t:FieldURI FieldURI=\"folder:DisplayName\"/></t:AdditionalProperties></m:FolderShape><m:Restriction>\
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
        // Mail must not be moved to another folder because a server took the restriction lightly.
        let is_named = |folder: Node<'_, '_>| {
            child(folder, "DisplayName").is_some_and(|shown| text(shown).to_lowercase() == name.to_lowercase())
        };
        let found = folders.and_then(|folders| folders.children().find(|folder| is_named(*folder)));
        Ok(found.and_then(|folder| id(folder, "FolderId")).map(|id| FolderId::Id(id.to_owned())))
    })
}
