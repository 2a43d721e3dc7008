//! FindFolder: a folder by its name.

use roxmltree::Node;

use super::{
    client::{Client, Failure},
    soap::{FolderId, child, escape, id, text},
};
use crate::clock::Deadline;

/// Those right below `parent` that the restriction lets through.
fn request(client: &Client, parent: &FolderId, restriction: &str) -> String {
    format!(
        "<m:FindFolder Traversal=\"Shallow\"><m:FolderShape><t:BaseShape>IdOnly</t:BaseShape><t:AdditionalProperties>\
         <t:FieldURI FieldURI=\"folder:DisplayName\"/></t:AdditionalProperties></m:FolderShape>{restriction}\
         <m:ParentFolderIds>{}</m:ParentFolderIds></m:FindFolder>",
        parent.xml(&client.identity)
    )
}

/// The folder with this name right below `parent`.
pub fn child_of(
    client: &Client,
    parent: &FolderId,
    name: &str,
    deadline: Deadline,
) -> Result<Option<FolderId>, Failure> {
    let restriction = format!(
        "<m:Restriction><t:IsEqualTo><t:FieldURI FieldURI=\"folder:DisplayName\"/><t:FieldURIOrConstant>\
         <t:Constant Value=\"{}\"/></t:FieldURIOrConstant></t:IsEqualTo></m:Restriction>",
        escape(name)
    );
    find(client, parent, &restriction, name, deadline)
}

/// The same among all of them, when the server says that the name is taken and a restriction does not find it.
pub fn any_child_of(
    client: &Client,
    parent: &FolderId,
    name: &str,
    deadline: Deadline,
) -> Result<Option<FolderId>, Failure> {
    find(client, parent, "", name, deadline)
}

fn find(
    client: &Client,
    parent: &FolderId,
    restriction: &str,
    name: &str,
    deadline: Deadline,
) -> Result<Option<FolderId>, Failure> {
    client.ask_one("FindFolder", &|_| request(client, parent, restriction), deadline, |message| {
        let folders = child(message, "RootFolder").and_then(|root| child(root, "Folders"));
        // Mail must not be moved to another folder because a server took the restriction lightly.
        let is_named = |folder: Node<'_, '_>| {
            child(folder, "DisplayName").is_some_and(|shown| text(shown).to_lowercase() == name.to_lowercase())
        };
        let found = folders.and_then(|folders| folders.children().find(|folder| is_named(*folder)));
        Ok(found.and_then(|folder| id(folder, "FolderId")).map(|id| FolderId::Id(id.to_owned())))
    })
}
