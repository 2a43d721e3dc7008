//! mailFolder: list, get, create.

use serde_json::{Value, json};

use super::{
    Answer, Refusal,
    access::{Caller, Place, Right, collection, place, rest_id},
    json_body, link, ok,
    query::Query,
    refuse,
};
use crate::mailbox::{
    Folder, Mailbox, Special,
    ids::{self, Root},
};

const PROPERTIES: [&str; 7] =
    ["id", "displayName", "parentFolderId", "childFolderCount", "unreadItemCount", "totalItemCount", "isHidden"];
const NAME_MAX: usize = 255;

/// <https://learn.microsoft.com/graph/api/user-list-mailfolders>
pub fn list(caller: &Caller<'_>, parent: Option<&str>) -> Answer {
    caller.may(Right::Read)?;
    let served = ["$select", "$top", "$skip", "$filter", "$count", "includeHiddenFolders"];
    let query = Query::parse(caller.request, &served)?;
    query.check_select(&PROPERTIES)?;
    let all = caller.with(|mailbox| {
        let parent = parent.map_or(Ok(Place::Top), |parent| place(mailbox, parent))?;
        let children = mailbox.folders.iter().filter(|folder| is_below(folder, &parent));
        Ok(children.map(|folder| whole(mailbox, folder)).collect::<Vec<_>>())
    })?;
    let all: Vec<Value> = all.into_iter().filter(|folder| query.matches(|name| folder.get(name).cloned())).collect();
    let page: Vec<Value> = all.iter().skip(query.skip).take(query.top).map(|folder| selected(folder, &query)).collect();
    let end = query.skip + page.len();
    let mut body = collection(caller.context(&format!("{}/mailFolders", caller.root)), page);
    if query.counts {
        body["@odata.count"] = json!(all.len());
    }
    if end < all.len() {
        body["@odata.nextLink"] = json!(next(caller, end));
    }
    Ok(ok(200, &body))
}

/// The same request, from this place on.
pub fn next(caller: &Caller<'_>, skip: usize) -> String {
    let mut query: Vec<_> = caller.request.query.iter().filter(|(name, _)| name != "$skip").cloned().collect();
    query.push(("$skip".into(), skip.to_string()));
    link(caller.state, caller.request, &query)
}

/// <https://learn.microsoft.com/graph/api/mailfolder-get>
pub fn get(caller: &Caller<'_>, id: &str) -> Answer {
    caller.may(Right::Read)?;
    let query = Query::parse(caller.request, &["$select"])?;
    query.check_select(&PROPERTIES)?;
    let folder = caller.with(|mailbox| match place(mailbox, id)? {
        Place::Top => Ok(top(mailbox)),
        Place::Folder(name) => {
            let missing = || refuse(404, "ErrorItemNotFound", "The specified folder could not be found in the store.");
            let folder = mailbox.folders.iter().find(|folder| folder.name == name).ok_or_else(missing)?;
            Ok(whole(mailbox, folder))
        }
    })?;
    let mut body = selected(&folder, &query);
    body["@odata.context"] = json!(caller.context(&format!("{}/mailFolders/$entity", caller.root)));
    Ok(ok(200, &body))
}

/// <https://learn.microsoft.com/graph/api/user-post-mailfolders>
pub fn create(caller: &Caller<'_>, parent: Option<&str>) -> Answer {
    caller.may(Right::Write)?;
    let body = json_body(caller.request)?;
    let name = body["displayName"].as_str().unwrap_or_default();
    // IMAP's separator cannot stand in a name here.
    if name.is_empty() || name.len() > NAME_MAX || name.contains('/') || name.chars().any(char::is_control) {
        return Err(refuse(400, "ErrorInvalidRequest", "The displayName of the folder is missing or cannot be used."));
    }
    let mut made = caller.with(|mailbox| {
        let path = match parent.map_or(Ok(Place::Top), |parent| place(mailbox, parent))? {
            Place::Top => name.to_owned(),
            Place::Folder(above) => format!("{above}/{name}"),
        };
        let exists = || refuse(409, "ErrorFolderExists", "A folder with the specified name already exists.");
        if !mailbox.create_folder(&path) {
            return Err(exists());
        }
        mailbox.folders.last().map(|folder| whole(mailbox, folder)).ok_or_else(exists)
    })?;
    made["@odata.context"] = json!(caller.context(&format!("{}/mailFolders/$entity", caller.root)));
    Ok(ok(201, &made))
}

pub fn id_of(folder: &Folder) -> String {
    rest_id(&ids::ews_folder_id_of(folder))
}

fn selected(folder: &Value, query: &Query) -> Value {
    let pairs = folder.as_object().into_iter().flatten().filter(|(name, _)| query.wants(name));
    Value::Object(pairs.map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn whole(mailbox: &Mailbox, folder: &Folder) -> Value {
    let (above, name) = match folder.name.rsplit_once('/') {
        Some((above, name)) => (mailbox.folders.iter().find(|other| other.name == above), name),
        None => (None, folder.name.as_str()),
    };
    let name = if folder.special == Some(Special::Inbox) { "Inbox" } else { name };
    let parent = above.map_or_else(|| rest_id(&Root::Folders.ews_id(&mailbox.address)), id_of);
    json!({
        "id": id_of(folder),
        "displayName": name,
        "parentFolderId": parent,
        "childFolderCount": count_below(mailbox, &Place::Folder(folder.name.clone())),
        "unreadItemCount": folder.messages.iter().filter(|message| !message.is_seen()).count(),
        "totalItemCount": folder.messages.len(),
        "isHidden": false,
    })
}

fn top(mailbox: &Mailbox) -> Value {
    json!({
        "id": rest_id(&Root::Folders.ews_id(&mailbox.address)),
        "displayName": "Top of Information Store",
        "parentFolderId": rest_id(&Root::Store.ews_id(&mailbox.address)),
        "childFolderCount": count_below(mailbox, &Place::Top),
        "unreadItemCount": 0,
        "totalItemCount": 0,
        "isHidden": false,
    })
}

fn count_below(mailbox: &Mailbox, parent: &Place) -> usize {
    mailbox.folders.iter().filter(|folder| is_below(folder, parent)).count()
}

/// A child, not a grandchild.
fn is_below(folder: &Folder, parent: &Place) -> bool {
    let above = folder.name.rsplit_once('/').map(|(above, _)| above);
    match parent {
        Place::Top => above.is_none(),
        Place::Folder(name) => above == Some(name),
    }
}

/// The refusal of a request that names no folder where it must.
pub fn no_destination() -> Refusal {
    refuse(400, "ErrorInvalidRequest", "destinationId is missing.")
}
