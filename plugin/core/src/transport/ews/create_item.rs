//! CreateItem, SaveOnly: the MIME becomes a draft. Nothing goes out yet.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    client::{Client, Failure, misbehaved},
    soap::{FolderId, child, escape},
};
use crate::{clock::Deadline, limits};

/// A saved message in one of its states; SendItem wants both.
pub struct Draft {
    pub id: String,
    pub change_key: String,
}

fn request(client: &Client, raw: &[u8]) -> String {
    // Also for the envelope.
    let mut body = String::with_capacity(raw.len().div_ceil(3) * 4 + limits::EWS_REQUEST_ROOM);
    body.push_str("<m:CreateItem MessageDisposition=\"SaveOnly\"><m:SavedItemFolderId>");
    body.push_str(&FolderId::DRAFTS.xml(&client.identity));
    body.push_str("</m:SavedItemFolderId><m:Items><t:Message><t:MimeContent CharacterSet=\"UTF-8\">");
    BASE64_STANDARD.encode_string(raw, &mut body);
    body.push_str("</t:MimeContent></t:Message></m:Items></m:CreateItem>");
    body
}

pub fn save(client: &Client, raw: &[u8], deadline: Deadline) -> Result<Draft, Failure> {
    client.ask_one("CreateItem", &|_| request(client, raw), deadline, |message| {
        let item = child(message, "Items").and_then(|items| items.children().find(|node| node.is_element()));
        let id = item.and_then(|item| child(item, "ItemId"));
        let attribute = |name: &str| {
            let value = id.and_then(|id| id.attribute(name)).filter(|value| value.len() <= limits::EWS_ID_MAX);
            value.map(str::to_owned).ok_or_else(|| misbehaved("saved a draft without an id"))
        };
        Ok(Draft { id: attribute("Id")?, change_key: attribute("ChangeKey")? })
    })
}

impl Draft {
    pub fn xml(&self) -> String {
        format!("<t:ItemId Id=\"{}\" ChangeKey=\"{}\"/>", escape(&self.id), escape(&self.change_key))
    }
}
