//! message: list, get, MIME, change, move, copy, delete.

use std::cmp::Reverse;

use serde_json::{Value, json};

use super::{
    Answer, Refusal,
    access::{Caller, Right, collection, folder_name, get, locate, no_item},
    attachments,
    draft::{self, Draft},
    folders, json_body, ok,
    query::Query,
    refuse, send,
    view::{View, properties},
};
use crate::{
    http::Response,
    mailbox::{Folder, Mailbox, mime},
};

/// `folder`: by id or name, when the path goes through one. A message is found by its id anyway.
pub fn dispatch(caller: &Caller<'_>, folder: Option<&str>, path: &[&str]) -> Answer {
    match (caller.request.method.as_str(), path) {
        ("GET", []) => list(caller, folder),
        ("GET", ["$count"]) => count(caller, folder),
        ("POST", []) => draft::create(caller, folder),
        ("GET", [id]) => read(caller, id),
        ("PATCH", [id]) => change(caller, id),
        ("DELETE", [id]) | ("POST", [id, "permanentDelete"]) => delete(caller, id),
        ("GET", [id, "$value"]) => value(caller, id),
        ("POST", [id, "move"]) => transfer(caller, id, Mailbox::move_to),
        ("POST", [id, "copy"]) => transfer(caller, id, Mailbox::copy_to),
        ("POST", [id, "send"]) => send::send_draft(caller, id),
        (_, [id, "attachments", rest @ ..]) => attachments::dispatch(caller, id, rest),
        (_, rest) => Err(super::no_segment(rest)),
    }
}

/// <https://learn.microsoft.com/graph/api/user-list-messages>
fn list(caller: &Caller<'_>, folder: Option<&str>) -> Answer {
    caller.may(Right::Read)?;
    let served = ["$select", "$top", "$skip", "$filter", "$orderby", "$count", "$expand"];
    let query = Query::parse(caller.request, &served)?;
    query.check_select(&properties())?;
    let (count, page) = caller.with(|mailbox| {
        let mut found = matching(caller, mailbox, folder, &query)?;
        let (property, is_descending) = query.order.clone().unwrap_or_else(|| ("receivedDateTime".into(), true));
        let key = |view: &View<'_>| view.property(&property).unwrap_or_default().to_string();
        match is_descending {
            true => found.sort_by_cached_key(|(view, uid)| Reverse((key(view), *uid))),
            false => found.sort_by_cached_key(|(view, uid)| (key(view), *uid)),
        }
        let page = found.iter().skip(query.skip).take(query.top);
        Ok((found.len(), page.map(|(view, _)| view.show(&query)).collect::<Vec<_>>()))
    })?;
    let end = query.skip + page.len();
    let mut body = collection(caller.context(&format!("{}/messages", caller.root)), page);
    if query.counts {
        body["@odata.count"] = json!(count);
    }
    if end < count {
        body["@odata.nextLink"] = json!(folders::next(caller, end));
    }
    Ok(ok(200, &body))
}

fn count(caller: &Caller<'_>, folder: Option<&str>) -> Answer {
    caller.may(Right::Read)?;
    let query = Query::parse(caller.request, &["$filter"])?;
    let count = caller.with(|mailbox| Ok(matching(caller, mailbox, folder, &query)?.len()))?;
    Ok(Response::text(200, count.to_string()))
}

/// With UIDs, which order what came in the same second.
fn matching<'m>(
    caller: &'m Caller<'_>,
    mailbox: &'m Mailbox,
    folder: Option<&str>,
    query: &Query,
) -> Result<Vec<(View<'m>, u32)>, Refusal> {
    let name = folder.map(|folder| folder_name(mailbox, folder)).transpose()?;
    let folders = mailbox.folders.iter().filter(|folder| name.as_ref().is_none_or(|name| folder.name == *name));
    let all = folders.flat_map(|folder| folder.messages.iter().map(move |message| (folder, message)));
    let views = all.map(|(folder, message)| (View::new(caller, folder, message), message.uid));
    Ok(views.filter(|(view, _)| query.matches(|name| view.property(name))).collect())
}

/// <https://learn.microsoft.com/graph/api/message-get>
fn read(caller: &Caller<'_>, id: &str) -> Answer {
    caller.may(Right::Read)?;
    let query = Query::parse(caller.request, &["$select", "$expand"])?;
    query.check_select(&properties())?;
    let mut shown = caller.with(|mailbox| {
        let (folder, uid) = locate(mailbox, id)?;
        shown(caller, mailbox, &folder, uid, &query)
    })?;
    shown["@odata.context"] = json!(caller.context(&format!("{}/messages/$entity", caller.root)));
    Ok(ok(200, &shown))
}

fn shown(caller: &Caller<'_>, mailbox: &Mailbox, folder: &str, uid: u32, query: &Query) -> Result<Value, Refusal> {
    let (folder, message) = get(mailbox, folder, uid)?;
    Ok(View::new(caller, folder, message).show(query))
}

/// As an answer to a change: all properties.
pub fn whole(caller: &Caller<'_>, mailbox: &Mailbox, folder: &str, uid: u32) -> Result<Value, Refusal> {
    let mut shown = shown(caller, mailbox, folder, uid, &Query::default())?;
    shown["@odata.context"] = json!(caller.context(&format!("{}/messages/$entity", caller.root)));
    Ok(shown)
}

/// <https://learn.microsoft.com/graph/outlook-get-mime-message>
fn value(caller: &Caller<'_>, id: &str) -> Answer {
    caller.may(Right::Read)?;
    let raw = caller.with(|mailbox| {
        let (folder, uid) = locate(mailbox, id)?;
        Ok(get(mailbox, &folder, uid)?.1.raw.clone())
    })?;
    if mime::parse(&raw).is_some_and(|parsed| mime::is_poisoned(&parsed)) {
        return Err(refuse(500, "ErrorContentConversionFailed", "Content conversion failed."));
    }
    Ok(Response::text(200, raw.to_vec()))
}

/// <https://learn.microsoft.com/graph/api/message-update>
fn change(caller: &Caller<'_>, id: &str) -> Answer {
    caller.may(Right::Write)?;
    let body = json_body(caller.request)?;
    let text = |name: &str| body.get(name).map(|value| value.as_bool()).map(|value| value.ok_or_else(|| wrong(name)));
    let is_read = text("isRead").transpose()?;
    let flag = body.get("flag").map(|flag| flag["flagStatus"] == "flagged");
    let is_of_draft = |name: &str| !["isRead", "flag"].contains(&name) && !name.starts_with("@odata");
    let of_draft = body.as_object().into_iter().flatten().any(|(name, _)| is_of_draft(name));
    let changed = caller.with(|mailbox| {
        let (folder, uid) = locate(mailbox, id)?;
        let message = get(mailbox, &folder, uid)?.1;
        let mut raw = None;
        if of_draft {
            if !message.flags.contains("\\Draft") {
                let text = "Of a message that is no draft only isRead and flag can be changed.";
                return Err(refuse(400, "ErrorInvalidPropertySet", text));
            }
            let mut draft = Draft::of(&message.raw);
            draft.apply(&body, false)?;
            raw = Some(draft.mime());
        }
        let message = mailbox.change(&folder, uid).ok_or_else(no_item)?;
        for (name, wanted) in [("\\Seen", is_read), ("\\Flagged", flag)] {
            match wanted {
                Some(true) => drop(message.flags.insert(name.into())),
                Some(false) => drop(message.flags.remove(name)),
                None => {}
            }
        }
        if let Some(raw) = raw {
            message.raw = raw.into();
        }
        whole(caller, mailbox, &folder, uid)
    })?;
    Ok(ok(200, &changed))
}

fn wrong(name: &str) -> Refusal {
    refuse(400, "RequestBodyRead", format!("The value of the property '{name}' is of a wrong type."))
}

/// <https://learn.microsoft.com/graph/api/message-delete>: into the recoverable items, which are not shown here.
fn delete(caller: &Caller<'_>, id: &str) -> Answer {
    caller.may(Right::Write)?;
    caller.with(|mailbox| {
        let was_here = |folder: &Folder| folder.gone.iter().any(|(_, gone)| gone == id);
        let (folder, uid) = match locate(mailbox, id) {
            // By its immutable id it is found where nothing is deleted from (msgraph-sdk-dotnet 3047).
            Err(_) if caller.is_immutable && mailbox.folders.iter().any(was_here) => {
                return Err(refuse(403, "ErrorCannotDeleteObject", "Object cannot be deleted."));
            }
            located => located?,
        };
        mailbox.remove(&folder, uid).ok_or_else(no_item)
    })?;
    Ok(Response::new(204))
}

/// <https://learn.microsoft.com/graph/api/message-move> and copy.
fn transfer(caller: &Caller<'_>, id: &str, work: fn(&mut Mailbox, &str, u32, &str) -> Option<u32>) -> Answer {
    caller.may(Right::Write)?;
    let body = json_body(caller.request)?;
    let target = ["destinationId", "DestinationId"].into_iter().find_map(|name| body[name].as_str());
    let target = target.ok_or_else(folders::no_destination)?;
    let moved = caller.with(|mailbox| {
        let (folder, uid) = locate(mailbox, id)?;
        let target = folder_name(mailbox, target).map_err(|refusal| match refusal.status {
            404 => refuse(404, "ErrorToFolderNotFound", "The specified target folder could not be found in the store."),
            _ => refusal,
        })?;
        let uid = work(mailbox, &folder, uid, &target).ok_or_else(no_item)?;
        whole(caller, mailbox, &target, uid)
    })?;
    Ok(ok(201, &moved))
}
