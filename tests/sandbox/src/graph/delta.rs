//! messages/delta of one folder. A link holds all that it stands for; an [`Epoch`] later it stands for nothing.
//!
//! Source: <https://learn.microsoft.com/graph/api/message-delta>

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Answer, Refusal,
    access::{Caller, Right, collection, ews_id, folder_name, rest_id},
    link, ok,
    query::Query,
    refuse,
    view::{View, properties},
};
use crate::{
    mailbox::{Folder, Mailbox, Message, ids},
    oauth,
};

const PAGE_DEFAULT: usize = 10;
const PAGE_MAX: usize = 1000;

/// Links of another one are unknown.
pub struct Epoch(Mutex<(String, Option<(u16, String)>)>);

impl Epoch {
    pub fn new() -> Self {
        Self(Mutex::new((oauth::random(), None)))
    }

    /// `refusal`: how links of before are refused, where it is not the usual way.
    pub fn renew(&self, refusal: Option<(u16, String)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (oauth::random(), refusal);
    }

    fn now(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    fn refusal(&self) -> Option<(u16, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}

/// What a link stands for; the numbers are of [`Mailbox::sequence`].
#[derive(Deserialize, Serialize)]
struct Token {
    epoch: String,
    /// [`Folder::id`].
    folder: String,
    /// `$select` of the first request.
    select: Option<String>,
    /// `changeType` of the first request.
    kind: Option<String>,
    /// What came into the folder later is created, what was there is updated.
    since: u64,
    /// What left the folder before is not told.
    gone_since: u64,
    /// Told up to here.
    at: u64,
    /// Is it a deltaLink?
    ends: bool,
}

enum Change<'m> {
    Here(&'m Message),
    Gone(Value),
}

/// <https://learn.microsoft.com/graph/delta-query-messages>
pub fn delta(caller: &Caller<'_>, folder: &str) -> Answer {
    caller.may(Right::Read)?;
    let of = |name: &str| caller.request.parameter(name).filter(|value| !value.is_empty());
    let handed = of("$deltatoken").or(of("$skiptoken"));
    let size = caller.prefers("odata.maxpagesize").and_then(|size| size.parse::<usize>().ok());
    let size = size.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
    let (page, token) = caller.with(|mailbox| {
        let name = folder_name(mailbox, folder)?;
        let known = |folder: &&Folder| folder.name == name;
        let folder_now = mailbox.folders.iter().find(known).ok_or_else(|| forgotten(caller))?;
        let mut token = match handed {
            Some(handed) => open(caller, folder_now, handed)?,
            None => begin(caller, mailbox, folder_now)?,
        };
        if token.ends {
            (token.since, token.gone_since, token.ends) = (token.at, token.at, false);
        }
        let query = Query { select: token.select.as_ref().map(|select| names(select)), ..Query::default() };
        let wants = |kind: &str| token.kind.as_deref().is_none_or(|wanted| wanted.split(',').any(|one| one == kind));
        let mut told: Vec<(u64, Change<'_>)> = Vec::new();
        for message in folder_now.messages.iter().filter(|message| message.changed > token.at) {
            if wants(if message.created > token.since { "created" } else { "updated" }) {
                told.push((message.changed, Change::Here(message)));
            }
        }
        if wants("deleted") {
            told.extend(gone(caller, mailbox, folder_now, token.at.max(token.gone_since)));
        }
        told.sort_by_key(|(sequence, _)| *sequence);
        token.ends = told.len() <= size;
        told.truncate(size);
        token.at = match told.last() {
            Some((sequence, _)) if !token.ends => *sequence,
            _ => mailbox.sequence,
        };
        let show = |(_, change): (u64, Change<'_>)| match change {
            Change::Here(message) => View::new(caller, folder_now, message).show(&query),
            Change::Gone(value) => value,
        };
        Ok((told.into_iter().map(show).collect::<Vec<_>>(), token))
    })?;
    let mut body = collection(caller.context("Collection(message)"), page);
    let (name, parameter) =
        if token.ends { ("@odata.deltaLink", "$deltatoken") } else { ("@odata.nextLink", "$skiptoken") };
    let sealed = rest_id(&ids::seal_state(&json!(token).to_string()));
    body[name] = json!(link(caller.state, caller.request, &[(parameter.to_owned(), sealed)]));
    Ok(ok(200, &body))
}

fn begin(caller: &Caller<'_>, mailbox: &Mailbox, folder: &Folder) -> Result<Token, Refusal> {
    let query = Query::parse(caller.request, &["$select", "$top", "$deltatoken", "$skiptoken"])?;
    query.check_select(&properties())?;
    let kind = caller.request.parameter("changeType").map(str::to_owned);
    if let Some(kind) = kind.iter().flat_map(|kinds| kinds.split(',')).find(|kind| !KINDS.contains(kind)) {
        return Err(refuse(400, "ErrorInvalidRequest", format!("changeType '{kind}' is none of {KINDS:?}.")));
    }
    Ok(Token {
        epoch: caller.state.graph.delta.now(),
        folder: folder.id.clone(),
        select: query.select.map(|select| select.join(",")),
        kind,
        since: 0,
        gone_since: mailbox.sequence,
        at: 0,
        ends: false,
    })
}

const KINDS: [&str; 3] = ["created", "updated", "deleted"];

fn open(caller: &Caller<'_>, folder: &Folder, handed: &str) -> Result<Token, Refusal> {
    let token: Option<Token> = ids::open_state(&ews_id(handed)).and_then(|inner| serde_json::from_str(&inner).ok());
    token
        .filter(|token| token.epoch == caller.state.graph.delta.now() && token.folder == folder.id)
        .ok_or_else(|| forgotten(caller))
}

/// Begin again there.
fn forgotten(caller: &Caller<'_>) -> Refusal {
    let location = link(caller.state, caller.request, &[("$deltatoken".to_owned(), String::new())]);
    if let Some((status, code)) = caller.state.graph.delta.refusal() {
        return refuse(status, code, "The link is refused.");
    }
    let text = "The sync state generation is not found.";
    Refusal { location: Some(location), ..refuse(410, "syncStateNotFound", text) }
}

/// `changed`: it is elsewhere in the mailbox; `deleted`: it is not.
fn gone<'m>(caller: &Caller<'_>, mailbox: &Mailbox, folder: &Folder, since: u64) -> Vec<(u64, Change<'m>)> {
    let has = |folder: &Folder, id: &str| folder.messages.iter().any(|message| message.id == id);
    let left = folder.gone.iter().zip(&folder.gone_uids).filter(|((sequence, _), _)| *sequence > since);
    let mut told = Vec::new();
    for ((sequence, id), (_, uid)) in left {
        // By its immutable id it is here again; the other id is gone for ever.
        if caller.is_immutable && has(folder, id) {
            continue;
        }
        let is_elsewhere = mailbox.folders.iter().any(|folder| has(folder, id));
        let reason = if is_elsewhere { "changed" } else { "deleted" };
        let id = if caller.is_immutable { id.clone() } else { rest_id(&ids::ews_item_id(&folder.id, *uid)) };
        let kind = "#microsoft.graph.message";
        let removed = json!({"@odata.type": kind, "id": id, "@removed": {"reason": reason}});
        told.push((*sequence, Change::Gone(removed)));
    }
    told
}

fn names(select: &str) -> Vec<String> {
    select.split(',').map(str::to_owned).collect()
}
