//! GetFolder, FindFolder, CreateFolder, SyncFolderHierarchy.

use std::collections::BTreeMap;

use roxmltree::Node;

use super::{
    Answer, Outcome, Refusal,
    access::{Caller, Place, What, distinguished_name},
    invalid,
    message::additional,
    refuse, restriction,
    xml::{child, child_text, element, elements},
};
use crate::mailbox::{
    Folder, Mailbox,
    ids::{self, Root},
};

const TOP: &str = "Top of Information Store";

/// FolderShape.
struct Shape {
    default: bool,
    all: bool,
    more: Vec<String>,
}

impl Shape {
    fn parse(request: Node<'_, '_>) -> Self {
        let shape = child(request, "FolderShape");
        let base = shape.and_then(|shape| child_text(shape, "BaseShape")).unwrap_or_default();
        Self { default: base != "IdOnly", all: base == "AllProperties", more: additional(shape) }
    }

    fn wants(&self, uri: &str, is_default: bool) -> bool {
        self.all || (self.default && is_default) || self.more.iter().any(|more| more == uri)
    }
}

/// <https://learn.microsoft.com/exchange/client-developer/web-service-reference/getfolder-operation>
pub fn get_folder(caller: &Caller<'_>, request: Node<'_, '_>) -> Answer {
    let shape = Shape::parse(request);
    let ids = child(request, "FolderIds").ok_or_else(|| invalid("FolderIds is missing"))?;
    let one = |id| {
        let place = caller.place(id)?;
        let folder = caller.with(&place.mailbox, |mailbox| show(mailbox, &place.what, &shape))?;
        Ok(format!("<m:Folders>{folder}</m:Folders>"))
    };
    Ok(elements(ids).map(one).collect())
}

/// <https://learn.microsoft.com/exchange/client-developer/web-service-reference/findfolder-operation>
pub fn find_folder(caller: &Caller<'_>, request: Node<'_, '_>) -> Answer {
    let shape = Shape::parse(request);
    let deep = request.attribute("Traversal") == Some("Deep");
    let parents = child(request, "ParentFolderIds").ok_or_else(|| invalid("ParentFolderIds is missing"))?;
    let restriction = restriction::of(request)?;
    let fits = |what: &&What| {
        let plain = |uri: &str| match what {
            What::Folder(path) if uri == "folder:DisplayName" => path.rsplit('/').next().map(str::to_owned),
            _ => None,
        };
        restriction.is_none_or(|test| restriction::holds(test, &plain))
    };
    let one = |id| -> Outcome {
        let place = caller.place(id)?;
        let found = caller.with(&place.mailbox, |mailbox| {
            let below = below(mailbox, &place.what, deep);
            below.iter().filter(fits).map(|what| show(mailbox, what, &shape)).collect::<Vec<_>>()
        })?;
        let count = found.len();
        Ok(format!(
            "<m:RootFolder IndexedPagingOffset=\"{count}\" TotalItemsInView=\"{count}\" \
             IncludesLastItemInRange=\"true\"><t:Folders>{}</t:Folders></m:RootFolder>",
            found.concat()
        ))
    };
    Ok(elements(parents).map(one).collect())
}

/// <https://learn.microsoft.com/exchange/client-developer/web-service-reference/createfolder-operation>
pub fn create_folder(caller: &Caller<'_>, request: Node<'_, '_>) -> Answer {
    let parent = caller.place_in(child(request, "ParentFolderId"))?;
    let folders = child(request, "Folders").ok_or_else(|| invalid("Folders is missing"))?;
    let one = |folder| -> Outcome {
        let name = child_text(folder, "DisplayName").ok_or_else(|| invalid("DisplayName is missing"))?;
        let path = match &parent.what {
            What::Root(_) => name.to_owned(),
            What::Folder(above) => format!("{above}/{name}"),
        };
        let shape = Shape { default: false, all: false, more: Vec::new() };
        let shown = caller.with(&parent.mailbox, |mailbox| {
            mailbox.create_folder(&path).then(|| show(mailbox, &What::Folder(path.clone()), &shape))
        })?;
        let exists = || refuse("ErrorFolderExists", "A folder with the specified name already exists.");
        Ok(format!("<m:Folders>{}</m:Folders>", shown.ok_or_else(exists)?))
    };
    Ok(elements(folders).map(one).collect())
}

/// <https://learn.microsoft.com/exchange/client-developer/web-service-reference/syncfolderhierarchy-operation>
///
/// SyncState holds all that the client knows, so it grows with the number of folders.
pub fn sync_folder_hierarchy(caller: &Caller<'_>, request: Node<'_, '_>) -> Answer {
    let shape = Shape::parse(request);
    let place = match child(request, "SyncFolderId") {
        None => Place { mailbox: caller.own.clone(), what: What::Root(Root::Folders) },
        id => match caller.place_in(id) {
            Ok(place) => place,
            Err(refusal) => return Ok(vec![Err(refusal)]),
        },
    };
    let known = match child_text(request, "SyncState").map(|state| known(state, &place.mailbox)) {
        None => BTreeMap::new(),
        Some(Some(known)) => known,
        Some(None) => return Ok(vec![Err(invalid_state())]),
    };
    let changes = caller.with(&place.mailbox, |mailbox| {
        let mut now = BTreeMap::new();
        let mut changes = String::new();
        for what in below(mailbox, &place.what, true) {
            let What::Folder(name) = &what else { continue };
            let Some(id) = mailbox.folder(name).map(|folder| folder.id.clone()) else { continue };
            let change = match known.get(&id) {
                None => Some("Create"),
                Some(before) => (before != name).then_some("Update"),
            };
            if let Some(change) = change {
                changes.push_str(&format!("<t:{change}>{}</t:{change}>", show(mailbox, &what, &shape)));
            }
            now.insert(id, name.clone());
        }
        for id in known.keys().filter(|id| !now.contains_key(*id)) {
            let id = ids::ews_folder_id(id);
            changes.push_str(&format!("<t:Delete><t:FolderId Id=\"{id}\"/></t:Delete>"));
        }
        let document = serde_json::json!([place.mailbox.to_lowercase(), now]);
        format!(
            "<m:SyncState>{}</m:SyncState><m:IncludesLastFolderInRange>true</m:IncludesLastFolderInRange>\
             <m:Changes>{changes}</m:Changes>",
            ids::seal_state(&document.to_string())
        )
    });
    Ok(vec![changes])
}

fn known(state: &str, mailbox: &str) -> Option<BTreeMap<String, String>> {
    let (of, known): (String, _) = serde_json::from_str(&ids::open_state(state)?).ok()?;
    (of == mailbox.to_lowercase()).then_some(known)
}

pub fn invalid_state() -> Refusal {
    refuse("ErrorInvalidSyncStateData", "Synchronization state data is corrupt or otherwise invalid.")
}

/// Children, or all descendants, in the order they were made.
fn below(mailbox: &Mailbox, what: &What, deep: bool) -> Vec<What> {
    let named = |folder: &Folder| What::Folder(folder.name.clone());
    match what {
        What::Root(Root::Store) => {
            let top = std::iter::once(What::Root(Root::Folders));
            if deep { top.chain(mailbox.folders.iter().map(named)).collect() } else { top.collect() }
        }
        What::Root(Root::Folders) => {
            mailbox.folders.iter().filter(|folder| deep || parent(mailbox, folder).is_none()).map(named).collect()
        }
        What::Folder(name) => {
            let prefix = format!("{name}/");
            let is_below = |folder: &&Folder| {
                if deep {
                    folder.name.starts_with(&prefix)
                } else {
                    parent(mailbox, folder).is_some_and(|parent| parent.name == *name)
                }
            };
            mailbox.folders.iter().filter(is_below).map(named).collect()
        }
    }
}

/// `None`: it lies at the top.
fn parent<'m>(mailbox: &'m Mailbox, folder: &Folder) -> Option<&'m Folder> {
    let (above, _) = folder.name.rsplit_once('/')?;
    mailbox.folders.iter().find(|other| other.name == above)
}

fn show(mailbox: &mut Mailbox, what: &What, shape: &Shape) -> String {
    let mailbox = &*mailbox;
    let folder = match what {
        What::Root(_) => None,
        What::Folder(name) => mailbox.folders.iter().find(|folder| folder.name == *name),
    };
    let top = Root::Folders.ews_id(&mailbox.address);
    let (id, above, class, name, special) = match (what, folder) {
        (What::Root(Root::Store), _) => (Root::Store.ews_id(&mailbox.address), None, "", "root", Some("root")),
        (_, None) => {
            let above = Root::Store.ews_id(&mailbox.address);
            (top, Some(above), "IPF.Note", TOP, Some("msgfolderroot"))
        }
        (_, Some(folder)) => {
            let above = parent(mailbox, folder).map_or(top, ids::ews_folder_id_of);
            let name = match folder.special {
                Some(crate::mailbox::Special::Inbox) => "Inbox",
                _ if parent(mailbox, folder).is_some() => folder.name.rsplit('/').next().unwrap_or_default(),
                _ => folder.name.as_str(),
            };
            let special = folder.special.and_then(distinguished_name);
            (ids::ews_folder_id_of(folder), Some(above), "IPF.Note", name, special)
        }
    };
    let messages = folder.map_or(&[][..], |folder| &folder.messages);
    let mut output = format!("<t:Folder><t:FolderId Id=\"{id}\" ChangeKey=\"AQAAAA==\"/>");
    if let (Some(above), true) = (above, shape.wants("folder:ParentFolderId", false)) {
        output.push_str(&format!("<t:ParentFolderId Id=\"{above}\" ChangeKey=\"AQAAAA==\"/>"));
    }
    if !class.is_empty() && shape.wants("folder:FolderClass", false) {
        output.push_str(&element("FolderClass", class));
    }
    if shape.wants("folder:DisplayName", true) {
        output.push_str(&element("DisplayName", name));
    }
    if shape.wants("folder:TotalCount", true) {
        output.push_str(&element("TotalCount", &messages.len().to_string()));
    }
    if shape.wants("folder:ChildFolderCount", true) {
        output.push_str(&element("ChildFolderCount", &below(mailbox, what, false).len().to_string()));
    }
    if shape.wants("folder:EffectiveRights", false) {
        let rights = ["CreateAssociated", "CreateContents", "CreateHierarchy", "Delete", "Modify", "Read"];
        let rights: String = rights.iter().map(|right| element(right, "true")).collect();
        output.push_str(&format!("<t:EffectiveRights>{rights}</t:EffectiveRights>"));
    }
    if let (Some(special), true) = (special, shape.wants("folder:DistinguishedFolderId", false)) {
        output.push_str(&element("DistinguishedFolderId", special));
    }
    if shape.wants("folder:UnreadCount", true) {
        let unread = messages.iter().filter(|message| !message.is_seen()).count();
        output.push_str(&element("UnreadCount", &unread.to_string()));
    }
    output + "</t:Folder>"
}
