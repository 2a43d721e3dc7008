//! GetItem, UpdateItem, MoveItem, CopyItem, DeleteItem.

use roxmltree::Node;

use super::{
    Answer, Outcome, Refusal,
    access::{Caller, Item, Place, find, no_item},
    invalid,
    message::{Shape, View, change_key},
    refuse,
    xml::{child, child_text, elements, is_true},
};
use crate::mailbox::{Mailbox, Special};

/// <https://learn.microsoft.com/exchange/client-developer/web-service-reference/getitem-operation>
pub fn get_item(caller: &Caller<'_>, request: Node<'_, '_>) -> Answer {
    let shape = Shape::parse(child(request, "ItemShape"));
    each(caller, request, |item| {
        let shown = caller.with(&item.mailbox, |mailbox| {
            let (folder, message) = find(mailbox, item)?;
            View::new(folder, message).whole(&shape)
        })??;
        Ok(format!("<m:Items>{shown}</m:Items>"))
    })
}

/// `message:IsRead` only.
///
/// <https://learn.microsoft.com/exchange/client-developer/web-service-reference/updateitem-operation>
pub fn update_item(caller: &Caller<'_>, request: Node<'_, '_>) -> Answer {
    let resolution = request.attribute("ConflictResolution");
    let resolution = resolution.ok_or_else(|| invalid("the attribute ConflictResolution is missing"))?;
    let has_disposition = request.attribute("MessageDisposition").is_some();
    let changes = child(request, "ItemChanges").ok_or_else(|| invalid("ItemChanges is missing"))?;
    let one = |change| -> Outcome {
        if !has_disposition {
            return Err(refuse("ErrorMessageDispositionRequired", "MessageDisposition is required for messages."));
        }
        let id = child(change, "ItemId").ok_or_else(|| invalid("ItemId is missing"))?;
        let item = admitted(caller, id)?;
        let is_read = is_read(change)?;
        let id = caller.with(&item.mailbox, |mailbox| {
            check_change_key(mailbox, &item, resolution)?;
            let message = mailbox.change(&item.folder, item.uid).ok_or_else(no_item)?;
            if is_read {
                message.flags.insert("\\Seen".into());
            } else {
                message.flags.remove("\\Seen");
            }
            let (folder, message) = find(mailbox, &item)?;
            Ok::<_, Refusal>(View::item_id(folder, message))
        })??;
        Ok(format!(
            "<m:Items><t:Message>{id}</t:Message></m:Items><m:ConflictResults><t:Count>0</t:Count></m:ConflictResults>"
        ))
    };
    Ok(elements(changes).map(one).collect())
}

/// <https://learn.microsoft.com/exchange/client-developer/web-service-reference/moveitem-operation>
pub fn move_item(caller: &Caller<'_>, request: Node<'_, '_>) -> Answer {
    to_folder(caller, request, true)
}

/// <https://learn.microsoft.com/exchange/client-developer/web-service-reference/copyitem-operation>
pub fn copy_item(caller: &Caller<'_>, request: Node<'_, '_>) -> Answer {
    to_folder(caller, request, false)
}

/// <https://learn.microsoft.com/exchange/client-developer/web-service-reference/deleteitem-operation>
pub fn delete_item(caller: &Caller<'_>, request: Node<'_, '_>) -> Answer {
    let to_trash = match request.attribute("DeleteType") {
        Some("MoveToDeletedItems") => true,
        Some("HardDelete" | "SoftDelete") => false,
        _ => return Err(invalid("the attribute DeleteType is missing or unknown")),
    };
    each(caller, request, |item| {
        caller.with(&item.mailbox, |mailbox| {
            find(mailbox, item)?;
            let trash = mailbox.folders.iter().find(|folder| folder.special == Some(Special::Trash));
            let trash = trash.map(|folder| folder.name.clone()).filter(|_| to_trash);
            let done = match trash {
                Some(trash) => mailbox.move_to(&item.folder, item.uid, &trash).is_some(),
                None => mailbox.remove(&item.folder, item.uid).is_some(),
            };
            done.then(String::new).ok_or_else(no_item)
        })?
    })
}

/// NeverOverwrite and AutoResolve need a ChangeKey; only the first minds an old one, for flags merge.
fn check_change_key(mailbox: &mut Mailbox, item: &Item, resolution: &str) -> Result<(), Refusal> {
    let (_, message) = find(mailbox, item)?;
    match (&item.change_key, resolution) {
        (_, "AlwaysOverwrite") => Ok(()),
        (None, _) => Err(refuse(
            "ErrorChangeKeyRequiredForWriteOperations",
            "The change key passed in the request does not exist, and is needed for this operation.",
        )),
        (Some(key), "NeverOverwrite") if *key != change_key(message) => Err(refuse(
            "ErrorIrresolvableConflict",
            "The send or update operation could not be performed because the change key passed in the request does not \
             match the current change key for the item.",
        )),
        _ => Ok(()),
    }
}

fn is_read(change: Node<'_, '_>) -> Result<bool, Refusal> {
    let mut wanted = None;
    for update in child(change, "Updates").into_iter().flat_map(elements) {
        let uri = child(update, "FieldURI").and_then(|path| path.attribute("FieldURI")).unwrap_or_default();
        let value = child(update, "Message").and_then(|message| child_text(message, "IsRead"));
        match (update.tag_name().name(), uri, value) {
            ("SetItemField", "message:IsRead", Some(value)) => wanted = Some(is_true(value)),
            _ => return Err(refuse("ErrorInvalidPropertySet", format!("Setting {uri:?} is not served here."))),
        }
    }
    wanted.ok_or_else(|| invalid("there are no Updates"))
}

fn to_folder(caller: &Caller<'_>, request: Node<'_, '_>, is_move: bool) -> Answer {
    let target = match caller.place_in(child(request, "ToFolderId")) {
        Ok(place) => place,
        Err(refusal) => return each(caller, request, |_| Err(refuse(&refusal.code, refusal.text.clone()))),
    };
    let shows = child_text(request, "ReturnNewItemIds").is_none_or(is_true);
    each(caller, request, |item| {
        let id = transfer(caller, item, &target, is_move)?.filter(|_| shows);
        let shown = id.map_or_else(String::new, |id| format!("<t:Message>{id}</t:Message>"));
        Ok(format!("<m:Items>{shown}</m:Items>"))
    })
}

/// The new ItemId; none comes back from another mailbox, as at Exchange.
pub fn transfer(caller: &Caller<'_>, item: &Item, target: &Place, is_move: bool) -> Result<Option<String>, Refusal> {
    let to = target.folder()?;
    if target.mailbox.eq_ignore_ascii_case(&item.mailbox) {
        return caller.with(&item.mailbox, |mailbox| {
            find(mailbox, item)?;
            let uid = match is_move {
                true => mailbox.move_to(&item.folder, item.uid, to),
                false => mailbox.copy_to(&item.folder, item.uid, to),
            };
            let there = Item {
                mailbox: item.mailbox.clone(),
                folder: to.to_owned(),
                uid: uid.ok_or_else(no_item)?,
                change_key: None,
            };
            let (folder, message) = find(mailbox, &there)?;
            Ok(Some(View::item_id(folder, message)))
        })?;
    }
    let message = caller.with(&item.mailbox, |mailbox| {
        let message = find(mailbox, item)?.1.clone();
        if is_move {
            mailbox.remove(&item.folder, item.uid);
        }
        Ok::<_, Refusal>(message)
    })??;
    caller.with(&target.mailbox, |mailbox| {
        mailbox.append(to, message.raw.to_vec(), message.flags.clone(), message.received)
    })?;
    Ok(None)
}

/// One outcome for each id in ItemIds.
fn each(caller: &Caller<'_>, request: Node<'_, '_>, work: impl Fn(&Item) -> Outcome) -> Answer {
    let ids = child(request, "ItemIds").ok_or_else(|| invalid("ItemIds is missing"))?;
    Ok(elements(ids).map(|id| work(&admitted(caller, id)?)).collect())
}

/// Unless a fault was ordered for it.
fn admitted(caller: &Caller<'_>, id: Node<'_, '_>) -> Result<Item, Refusal> {
    let item = caller.item(id)?;
    if let Some((code, text)) = &caller.refused {
        let holds = |mailbox: &mut Mailbox| {
            find(mailbox, &item).is_ok_and(|(_, message)| String::from_utf8_lossy(&message.raw).contains(text.as_str()))
        };
        if caller.with(&item.mailbox, holds)? {
            return Err(refuse(code, "A fault that was ordered."));
        }
    }
    Ok(item)
}
