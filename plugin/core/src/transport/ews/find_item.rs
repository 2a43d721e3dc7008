//! FindItem: a message by its Message-ID, or the newest.

use roxmltree::Node;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    client::{Client, Failure},
    soap::{FolderId, child, escape, id, text},
};
use crate::{
    clock::{Deadline, UnixSeconds},
    error::{Error, Kind},
    limits,
    transport::{Entry, Key},
};

/// `restriction` and `order` as the schema has them, or empty; at most `count` items.
fn request(client: &Client, folder: &FolderId, count: usize, restriction: &str, order: &str) -> String {
    format!(
        "<m:FindItem Traversal=\"Shallow\"><m:ItemShape><t:BaseShape>IdOnly</t:BaseShape><t:AdditionalProperties>\
         <t:FieldURI FieldURI=\"item:Size\"/></t:AdditionalProperties></m:ItemShape>\
         <m:IndexedPageItemView MaxEntriesReturned=\"{count}\" Offset=\"0\" BasePoint=\"Beginning\"/>{restriction}{order}\
         <m:ParentFolderIds>{}</m:ParentFolderIds></m:FindItem>",
        folder.xml(&client.identity)
    )
}

/// How many messages with this Message-ID are in the folder, up to [`limits::SENT_COPIES_MAX`].
pub fn by_message_id(
    client: &Client,
    folder: &FolderId,
    message_id: &str,
    deadline: Deadline,
) -> Result<usize, Failure> {
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
    let body = |_| request(client, folder, limits::SENT_COPIES_MAX, &restriction, "");
    client.ask_one("FindItem", &body, deadline, |message| Ok(items(message).count()))
}

/// The message that came last.
pub fn newest(client: &Client, folder: &FolderId, name: &str, deadline: Deadline) -> Result<Option<Entry>, Failure> {
    let order = "<m:SortOrder><t:FieldOrder Order=\"Descending\"><t:FieldURI FieldURI=\"item:DateTimeReceived\"/>\
                 </t:FieldOrder></m:SortOrder>";
    client.ask_one("FindItem", &|_| request(client, folder, 1, "", order), deadline, |message| {
        Ok(items(message).next().and_then(|item| {
            let key = Key { folder: name.to_owned(), id: id(item, "ItemId")?.to_owned() };
            let size = child(item, "Size").and_then(|size| text(size).trim().parse().ok()).unwrap_or_default();
            Some(Entry { key, size, received_at: None })
        }))
    })
}

/// Is the item in its folder? Looked for among those that were received in the same second. `None`: the answer is not all of
/// them.
pub fn is_there(
    client: &Client,
    folder: &FolderId,
    item: &str,
    received_at: UnixSeconds,
    deadline: Deadline,
) -> Result<Option<bool>, Failure> {
    let test = |name: &str, at: UnixSeconds| {
        let at = OffsetDateTime::from_unix_timestamp(at).ok().and_then(|at| at.format(&Rfc3339).ok());
        format!(
            "<t:{name}><t:FieldURI FieldURI=\"item:DateTimeReceived\"/><t:FieldURIOrConstant><t:Constant Value=\"{}\"/>\
             </t:FieldURIOrConstant></t:{name}>",
            at.unwrap_or_default()
        )
    };
    let restriction = format!(
        "<m:Restriction><t:And>{}{}</t:And></m:Restriction>",
        test("IsGreaterThanOrEqualTo", received_at - 1),
        test("IsLessThan", received_at + 2)
    );
    let body = |_| request(client, folder, limits::EWS_CHANGES, &restriction, "");
    client.ask_one("FindItem", &body, deadline, |message| {
        let root = child(message, "RootFolder");
        let items = root.and_then(|root| child(root, "Items")).into_iter().flat_map(|items| items.children());
        if items.filter(Node::is_element).any(|one| id(one, "ItemId") == Some(item)) {
            return Ok(Some(true));
        }
        let is_all = root.and_then(|root| root.attribute("IncludesLastItemInRange"));
        Ok(matches!(is_all, Some("true" | "1")).then_some(false))
    })
}

fn items<'a>(message: Node<'a, 'a>) -> impl Iterator<Item = Node<'a, 'a>> {
    let items = child(message, "RootFolder").and_then(|root| child(root, "Items"));
    items.into_iter().flat_map(|items| items.children().filter(Node::is_element))
}
