//! FindItem: a message by its Message-ID, or the newest.

use roxmltree::Node;

use super::{
    client::{Client, Failure},
    soap::{FolderId, child, escape, id, text},
};
use crate::{
    clock::Deadline,
    error::{Error, Kind},
    limits,
    transport::{Entry, Key},
};

/// `restriction` and `order` as the schema has them, or empty.
fn request(client: &Client, folder: &FolderId, restriction: &str, order: &str) -> String {
    format!(
        "<m:FindItem Traversal=\"Shallow\"><m:ItemShape><t:BaseShape>IdOnly</t:BaseShape><t:AdditionalProperties>\
         <t:FieldURI FieldURI=\"item:Size\"/></t:AdditionalProperties></m:ItemShape>\
         <m:IndexedPageItemView MaxEntriesReturned=\"1\" Offset=\"0\" BasePoint=\"Beginning\"/>{restriction}{order}\
         <m:ParentFolderIds>{}</m:ParentFolderIds></m:FindItem>",
        folder.xml(&client.identity)
    )
}

/// Is a message with this Message-ID in the folder?
pub fn by_message_id(
    client: &Client,
    folder: &FolderId,
    message_id: &str,
    deadline: Deadline,
) -> Result<bool, Failure> {
    let message_id = message_id.trim();
    if message_id.is_empty()
        || message_id.len() > limits::MESSAGE_ID_MAX
        || !message_id.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(Error::new(Kind::Misuse, "What is looked for is not a Message-ID.").into());
    }
    let restriction = format!(
        "<m:Restriction><t:IsEqualTo><t:FieldURI FieldURI=\"message:InternetMessageId\"/><t:FieldURIOrConstant>\
         <t:Constant Value=\"{}\"/></t:FieldURIOrConstant></t:IsEqualTo></m:Restriction>",
        escape(message_id)
    );
    let body = |_| request(client, folder, &restriction, "");
    client.ask_one("FindItem", &body, deadline, |message| Ok(first(message).is_some()))
}

/// The message that came last.
pub fn newest(client: &Client, folder: &FolderId, name: &str, deadline: Deadline) -> Result<Option<Entry>, Failure> {
    let order = "<m:SortOrder><t:FieldOrder Order=\"Descending\"><t:FieldURI FieldURI=\"item:DateTimeReceived\"/>\
                 </t:FieldOrder></m:SortOrder>";
    client.ask_one("FindItem", &|_| request(client, folder, "", order), deadline, |message| {
        Ok(first(message).and_then(|item| {
            let key = Key { folder: name.to_owned(), id: id(item, "ItemId")?.to_owned() };
            let size = child(item, "Size").and_then(|size| text(size).trim().parse().ok()).unwrap_or_default();
            Some(Entry { key, size, received_at: None })
        }))
    })
}

fn first<'a>(message: Node<'a, 'a>) -> Option<Node<'a, 'a>> {
    child(message, "RootFolder").and_then(|root| child(root, "Items"))?.children().find(Node::is_element)
}
