//! <https://learn.microsoft.com/exchange/client-developer/web-service-reference/syncfolderitems-operation>

use std::collections::HashSet;

use roxmltree::Node;

use super::{
    Answer, Refusal,
    access::Caller,
    folders::invalid_state,
    invalid,
    message::{Shape, View},
    refuse,
    xml::{child, child_text, elements},
};
use crate::mailbox::{
    Folder, Message,
    ids::{self, open_state, seal_state},
};

const CHANGES_MAX: usize = 512;

/// What a SyncState stands for.
struct Position {
    /// [`Exchanges::epoch`](super::Exchanges::epoch).
    epoch: u64,
    /// [`Folder::id`].
    folder: String,
    /// Changes up to this number are known.
    sequence: u64,
    /// In a first sync, newest first: this UID and newer ones were shown; 1 when all were.
    shown_down_to: u32,
}

impl Position {
    fn seal(&self) -> String {
        seal_state(&format!("{}/{}/{}/{}", self.folder, self.sequence, self.shown_down_to, self.epoch))
    }

    fn open(state: &str) -> Option<Self> {
        let inner = open_state(state)?;
        let mut parts = inner.split('/');
        let (folder, sequence, shown, epoch) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let folder = folder.to_owned();
        let (sequence, shown_down_to, epoch) = (sequence.parse().ok()?, shown.parse().ok()?, epoch.parse().ok()?);
        Some(Self { epoch, folder, sequence, shown_down_to })
    }
}

enum Change<'m> {
    Create(&'m Message),
    Update(&'m Message),
    ReadFlag(&'m Message),
    Delete(u32),
}

pub fn sync_folder_items(caller: &Caller<'_>, request: Node<'_, '_>) -> Answer {
    let max = child_text(request, "MaxChangesReturned").and_then(|text| text.parse::<usize>().ok());
    let max = max.filter(|max| (1..=CHANGES_MAX).contains(max));
    let max = max.ok_or_else(|| invalid("MaxChangesReturned is not between 1 and 512"))?;
    Ok(vec![sync(caller, request, max)])
}

fn sync(caller: &Caller<'_>, request: Node<'_, '_>, max: usize) -> Result<String, Refusal> {
    let shape = Shape::parse(child(request, "ItemShape"));
    let place = caller.place_in(child(request, "SyncFolderId"))?;
    let name = place.folder()?;
    // Servers that are not Exchange begin anew for what they do not know, and say nothing of it (gromox 3.10).
    let is_lenient = caller.state.config.ews_any_sync_state;
    let opened = |state: &str| Position::open(state).filter(|state| state.epoch == caller.state.ews.epoch());
    let state = match child_text(request, "SyncState").map(opened) {
        Some(None) if !is_lenient => return Err(invalid_state()),
        state => state.flatten(),
    };
    let ignored: HashSet<&str> =
        child(request, "Ignore").into_iter().flat_map(elements).filter_map(|id| id.attribute("Id")).collect();
    caller.with(&place.mailbox, |mailbox| {
        let now = mailbox.sequence;
        let folder = mailbox.folder(name).ok_or_else(gone)?;
        let (state, is_other) = match state {
            Some(state) if state.folder != folder.id || state.sequence > now => (None, true),
            state => (state, false),
        };
        if is_other && !is_lenient {
            return Err(invalid_state());
        }
        let epoch = caller.state.ews.epoch();
        let mut position =
            state.unwrap_or(Position { epoch, folder: folder.id.clone(), sequence: now, shown_down_to: u32::MAX });
        let (changes, is_last) = step(folder, &mut position, max, now);
        let shown: String = changes.iter().map(|change| show(folder, change, &shape, &ignored)).collect();
        Ok(format!(
            "<m:SyncState>{}</m:SyncState><m:IncludesLastItemInRange>{is_last}</m:IncludesLastItemInRange>\
             <m:Changes>{shown}</m:Changes>",
            position.seal()
        ))
    })?
}

/// The next changes, at most `max`, and whether they are the last.
fn step<'m>(folder: &'m Folder, position: &mut Position, max: usize, now: u64) -> (Vec<Change<'m>>, bool) {
    if position.shown_down_to > 1 {
        let wanted = |message: &&Message| message.uid < position.shown_down_to && message.created <= position.sequence;
        let mut older = folder.messages.iter().rev().filter(wanted);
        let page: Vec<_> = older.by_ref().take(max).collect();
        let is_last = older.next().is_none();
        position.shown_down_to = if is_last { 1 } else { page.last().map_or(1, |message| message.uid) };
        return (page.into_iter().map(Change::Create).collect(), is_last);
    }
    let since = position.sequence;
    let mut changes: Vec<(u64, Change<'m>)> = Vec::new();
    for message in &folder.messages {
        if message.created > since {
            changes.push((message.created, Change::Create(message)));
        } else if message.changed > since && message.was_seen != message.is_seen() {
            changes.push((message.changed, Change::ReadFlag(message)));
        } else if message.changed > since {
            changes.push((message.changed, Change::Update(message)));
        }
    }
    let gone = folder.gone_uids.iter().filter(|(sequence, _)| *sequence > since);
    changes.extend(gone.map(|(sequence, uid)| (*sequence, Change::Delete(*uid))));
    changes.sort_by_key(|(sequence, _)| *sequence);
    let is_last = changes.len() <= max;
    changes.truncate(max);
    position.sequence = if is_last { now } else { changes.last().map_or(now, |(sequence, _)| *sequence) };
    (changes.into_iter().map(|(_, change)| change).collect(), is_last)
}

fn show(folder: &Folder, change: &Change<'_>, shape: &Shape, ignored: &HashSet<&str>) -> String {
    let (name, content) = match change {
        Change::Create(message) | Change::Update(message) => {
            if ignored.contains(ids::ews_id_of(folder, message).as_str()) {
                return String::new();
            }
            let name = if matches!(change, Change::Create(_)) { "Create" } else { "Update" };
            (name, View::new(folder, message).headline(shape))
        }
        Change::ReadFlag(message) => {
            let id = View::item_id(folder, message);
            ("ReadFlagChange", format!("{id}<t:IsRead>{}</t:IsRead>", message.is_seen()))
        }
        Change::Delete(uid) => {
            let id = ids::ews_item_id(&folder.id, *uid);
            ("Delete", format!("<t:ItemId Id=\"{id}\" ChangeKey=\"CQAAAA==\"/>"))
        }
    };
    format!("<t:{name}>{content}</t:{name}>")
}

fn gone() -> Refusal {
    refuse("ErrorSyncFolderNotFound", "The folder to synchronize was not found.")
}
