//! `settle_batch`: the host says what became of messages, and only now the mailbox and the cursor change.
//!
//! The mailbox first, then the cursor: a crash in between repeats a mailbox action, which does no harm; the other order
//! would forget it. Every step can be repeated.
//!
//! | verdict | the mailbox | the message |
//! |---|---|---|
//! | `imported` · `duplicate` | `advanced.after_import` | settled |
//! | `refused` | `advanced.after_refusal` | settled |
//! | `retry` | nothing | comes again; counts as a failure when others of the same call could be taken |
//! | `failed` | nothing; after the third failure as `refused`, once its bytes are stored | comes again, the third time it is put aside (quarantine.rs) |
//! | `replay` · `drop` | nothing | one that was put aside comes again, or is forgotten |
//!
//! The answer says for each key what was done: `left`, `marked_seen`, `moved`, `deleted`; `gone` when it was not there any more;
//! `kept` when the server refuses to do it to this one; `later` when it was not done through no fault of the message; else
//! the verdict's own word. For `kept` and `later` the error is in `reasons`, by key. What is `later` is not settled: repeat its
//! verdict after the error's `retry_after_seconds`, or wait until fetch_batch hands it out again.
//!
//! A fault of a folder, the account, the settings or the connection is an error of the call. What was done to other
//! messages counts all the same; the same call can be repeated.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Context, Work,
    cursor::{cursor_id, read_cursor, write_cursor},
    lease::Whose,
    plugin, quarantine, request,
    swap::until_it_holds,
};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    message::fingerprint::Fingerprint,
    settings::Action,
    transport::{Cursor, Key, Settled},
};

/// The answer to a call without results.
pub const NOTHING: &str = r#"{"done":{}}"#;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The host has it, safely.
    Imported,
    /// The host had it already.
    Duplicate,
    /// The host does not want it, now or later.
    Refused,
    /// The host could not take it now: hand it out again.
    Retry,
    /// The host cannot take this one: it breaks what it touches.
    Failed,
    /// Of one that was put aside: hand it out again.
    Replay,
    /// Of one that was put aside: forget it.
    Drop,
}

impl Verdict {
    fn is_taken(self) -> bool {
        matches!(self, Self::Imported | Self::Duplicate | Self::Refused)
    }
}

pub struct Request {
    pub results: BTreeMap<String, Verdict>,
    pub deadline: Deadline,
}

pub fn parse(text: &str) -> Result<Request> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        results: BTreeMap<String, Verdict>,
        deadline_ms: Option<u64>,
    }
    let fields: Fields = request::parse("settle_batch", text)?;
    Ok(Request { results: fields.results, deadline: request::deadline(fields.deadline_ms)? })
}

/// What a call came to.
pub struct Answer {
    pub text: String,
    /// Why something is left for later, if anything is.
    pub trouble: Option<Error>,
}

/// # Errors
/// A fault of a folder, the account, the settings, the connection or the store.
pub fn run(work: &mut Work, request: &Request) -> Result<Answer> {
    let context = work.context.clone();
    let account = &context.session.account;
    let Some(fetching) = &account.fetching else {
        return Err(plugin::wrong_direction("settle_batch", "incoming"));
    };
    if let Whose::Elsewhere(seconds) = work.fetch.hold(&context, request.deadline)? {
        return Err(Error::new(Kind::Transient, "Another node is at work on this mailbox.")
            .remedy("Nothing was done: the messages are handed out again, there or here, under the same keys.")
            .retry_after(Duration::from_secs(seconds.unsigned_abs())));
    }
    let mut folders: BTreeMap<String, Vec<(String, Key, Verdict)>> = BTreeMap::new();
    for (text, verdict) in &request.results {
        let key = context.name()?.parse_key(text)?;
        folders.entry(key.folder.clone()).or_default().push((text.clone(), key, *verdict));
    }

    // Before anything is done in the mailbox.
    let mut checked = Vec::new();
    for (folder, results) in folders {
        let (cursor, _) = reached(&context, &folder, work.fetch.seen(&folder))?;
        let known = quarantine::read(&context, &folder)?;
        // A cursor forgets, what was put aside does not.
        let is_known = |key: &Key| cursor.listed(key) || known.get(&key.id).is_some_and(|failed| failed.aside);
        if let Some((text, _, _)) = results.iter().find(|(_, key, _)| !is_known(key)) {
            return Err(Error::new(Kind::Misuse, format!("{text} was never handed out."))
                .remedy("Give keys back exactly as fetch_batch handed them out."));
        }
        checked.push((folder, results, cursor, known));
    }

    let host_is_well = request.results.values().any(|verdict| verdict.is_taken());
    let (mut done, mut reasons) = (Map::new(), Map::new());
    // Of the whole call, and of some messages.
    let (mut fault, mut trouble) = (None, None);
    // Counted at the end: the call may be repeated.
    let mut failures = Vec::new();
    for (folder, results, cursor, known) in checked {
        let mut settled = Vec::new();
        let mut open = Vec::new();
        let mut released = Vec::new();
        for (text, key, verdict) in results {
            let failed = known.get(&key.id);
            let answer = match (failed.is_some_and(|failed| failed.aside), verdict) {
                (true, Verdict::Replay | Verdict::Retry | Verdict::Failed) => aside(&context, &key, verdict)?,
                // Whether the cursor heard of it or not.
                (true, _) => {
                    settled.push((key.clone(), None));
                    released.push(key);
                    if verdict == Verdict::Drop { "dropped" } else { "released" }
                }
                (false, Verdict::Replay | Verdict::Drop) => "not_put_aside",
                (false, Verdict::Failed | Verdict::Retry) if verdict == Verdict::Failed || host_is_well => {
                    let why = match verdict {
                        Verdict::Failed => "The helpdesk could not take the message.",
                        _ => "The helpdesk took other messages and asked for this one again.",
                    };
                    if !quarantine::is_last_try(failed) {
                        failures.push((key, why));
                        if verdict == Verdict::Failed { "failed" } else { "retry" }
                    } else {
                        let raw = work.fetch.read_one(&context, &key, request.deadline)?;
                        quarantine::count(&context, &key, 0, why)?;
                        if quarantine::put_aside(&context, &key, raw.as_deref())?.stored {
                            // In the mailbox it is as good as refused.
                            open.push((text, key, Verdict::Refused, Some("put_aside")));
                            continue;
                        }
                        // The mailbox has the only copy.
                        settled.push((key, None));
                        "put_aside"
                    }
                }
                (false, Verdict::Failed | Verdict::Retry) => "retry",
                (false, _) => {
                    open.push((text, key, verdict, None));
                    continue;
                }
            };
            done.insert(text, json!(answer));
        }
        let half_aside = work.fetch.take_half_aside(&folder);
        for (verdicts, action) in [
            (&[Verdict::Imported, Verdict::Duplicate][..], &fetching.after_import),
            (&[Verdict::Refused][..], &fetching.after_refusal),
        ] {
            let chosen: Vec<_> = open.iter().filter(|(_, _, verdict, _)| verdicts.contains(verdict)).collect();
            let mut keys: Vec<Key> = chosen.iter().map(|(_, key, _, _)| key.clone()).collect();
            let asked = keys.len();
            if verdicts.contains(&Verdict::Refused) {
                keys.extend(half_aside.iter().cloned());
            }
            // What leaves the folder comes back when the mailbox is restored; it is not read again for that.
            let fingerprints = match action {
                Action::Leave | Action::MarkSeen if !keys.is_empty() => {
                    work.fetch.fingerprints(&context, &cursor, &keys, request.deadline)
                }
                Action::Leave | Action::MarkSeen | Action::Move { .. } | Action::Delete => {
                    keys.iter().map(|key| work.fetch.known_fingerprint(key)).collect()
                }
            };
            let outcomes = if keys.is_empty() || *action == Action::Leave {
                Ok(keys.iter().map(|_| Settled::Done).collect())
            } else {
                settle_current(work, &context, &cursor, &keys, action, request.deadline)
            };
            let outcomes = match outcomes {
                Ok(outcomes) => outcomes,
                Err(error) => {
                    work.fetch.still_half_aside(&folder, keys.drain(asked..));
                    fault.get_or_insert(error);
                    continue;
                }
            };
            for (at, ((key, fingerprint), outcome)) in keys.into_iter().zip(fingerprints).zip(outcomes).enumerate() {
                let (word, reason) = match outcome {
                    Settled::Done | Settled::Copied => (past_tense(action), None),
                    Settled::Gone => ("gone", None),
                    Settled::Kept(error) => ("kept", Some(error)),
                    Settled::Later(error) => ("later", Some(error)),
                };
                let is_settled = word != "later";
                let told = chosen.get(at).map(|(text, _, _, instead)| (text, instead.unwrap_or(word)));
                if let Some(error) = reason {
                    let text = context.name()?.key(&key);
                    context.session.log.warn(format_args!("{text} stays as it is in the mailbox ({word}): {error}"));
                    if let Some((text, _)) = told.filter(|(_, told)| *told == word) {
                        reasons.insert(text.clone(), error.to_json());
                    }
                    if !is_settled {
                        trouble.get_or_insert(error);
                    }
                }
                if let Some((text, told)) = told {
                    done.insert(text.clone(), json!(told));
                } else if !is_settled {
                    work.fetch.still_half_aside(&folder, [key.clone()]);
                }
                if is_settled {
                    settled.push((key, fingerprint));
                }
            }
        }
        settled.extend(work.fetch.take_gone(&folder).into_iter().map(|key| (key, None)));
        if let Some(cursor) = advance(&context, &folder, work.fetch.seen(&folder), &settled)? {
            work.fetch.remember(&folder, cursor);
        }
        for (_, key, _, instead) in &open {
            // It stumbled before and is well now.
            let is_settled = settled.iter().any(|(settled, _)| settled == key);
            if instead.is_none() && is_settled && known.contains_key(&key.id) {
                quarantine::forget(&context, key)?;
            }
        }
        for key in &released {
            quarantine::forget(&context, key)?;
        }
        let settled: Vec<Key> = settled.into_iter().map(|(key, _)| key).collect();
        work.fetch.forget(&settled);
    }
    // A call that failed for a while is repeated, and counts then. What fails for good must not hold this up.
    if fault.as_ref().is_none_or(|fault| !fault.is_transient()) {
        for (key, why) in failures {
            quarantine::count(&context, &key, 0, why)?;
        }
    }
    if let Some(fault) = fault {
        return Err(fault);
    }
    let mut answer = json!({"done": Value::Object(done)});
    if !reasons.is_empty() {
        answer["reasons"] = Value::Object(reasons);
    }
    Ok(Answer { text: answer.to_string(), trouble })
}

/// The mailbox action, for keys of the folder as it is numbered now. A key from before a reset names a message that is not
/// there any more; another one may have its UID.
fn settle_current(
    work: &mut Work,
    context: &Context,
    cursor: &Cursor,
    keys: &[Key],
    action: &Action,
    deadline: Deadline,
) -> Result<Vec<Settled>> {
    let current: Vec<Key> = keys.iter().filter(|key| cursor.is_current(key)).cloned().collect();
    if current.is_empty() {
        return Ok(keys.iter().map(|_| Settled::Gone).collect());
    }
    let outcomes = match action {
        Action::Move { .. } => move_all(work, context, cursor, &current, action, deadline)?,
        Action::Leave | Action::MarkSeen | Action::Delete => {
            work.fetch.settle(context, cursor, &current, action, deadline)?
        }
    };
    let mut outcomes = outcomes.into_iter();
    let outcome = |key: &Key| if cursor.is_current(key) { outcomes.next() } else { Some(Settled::Gone) };
    let missing = || Error::new(Kind::Internal, "A settled message has no outcome.");
    keys.iter().map(outcome).map(|outcome| outcome.ok_or_else(missing)).collect()
}

/// A server without MOVE copies, and then removes. That a message was copied is on the disk before it is removed, so that
/// whoever goes on after a crash, or after a refusal, makes no second copy. One window remains: a crash, or a lost answer, between the
/// server's COPY and this note.
fn move_all(
    work: &mut Work,
    context: &Context,
    cursor: &Cursor,
    keys: &[Key],
    action: &Action,
    deadline: Deadline,
) -> Result<Vec<Settled>> {
    let was_copied = |key: &&Key| cursor.is_copied(key) || work.fetch.is_copied(key);
    let (mut copied, to_move): (Vec<&Key>, Vec<&Key>) = keys.iter().partition(was_copied);
    let to_move: Vec<Key> = to_move.into_iter().cloned().collect();
    let mut became: HashMap<Key, Settled> = HashMap::new();
    if !to_move.is_empty() {
        match work.fetch.settle(context, cursor, &to_move, action, deadline) {
            Ok(outcomes) => became.extend(to_move.iter().cloned().zip(outcomes)),
            Err(error) if copied.is_empty() => return Err(error),
            Err(error) => became.extend(to_move.iter().map(|key| (key.clone(), Settled::Later(error.clone())))),
        }
    }
    let is_new = |key: &&Key| matches!(became.get(*key), Some(Settled::Copied));
    let new: Vec<Key> = to_move.iter().filter(is_new).cloned().collect();
    if !new.is_empty() {
        work.fetch.copied(&new);
        let id = cursor_id(context, &new[0].folder)?;
        until_it_holds(busy, || {
            let (mut cursor, version) = reached(context, &new[0].folder, work.fetch.seen(&new[0].folder))?;
            cursor.copied(&new);
            Ok(write_cursor(context, &id, Some(version), &cursor)?.then_some(()))
        })?;
    }
    copied.extend(&new);
    let copied: Vec<Key> = copied.into_iter().cloned().collect();
    if !copied.is_empty() {
        let removed = work.fetch.settle(context, cursor, &copied, &Action::Delete, deadline);
        let later = |error: &Error| copied.iter().map(|_| Settled::Later(error.clone())).collect();
        for (key, removed) in copied.iter().zip(removed.unwrap_or_else(|error| later(&error))) {
            let moved = match removed {
                // It was settled before.
                Settled::Gone if cursor.is_settled(key) => Settled::Gone,
                Settled::Done | Settled::Copied | Settled::Gone => Settled::Done,
                Settled::Later(error) if error.is_transient() => Settled::Later(error),
                Settled::Kept(error) | Settled::Later(error) => {
                    let text = context.name()?.key(key);
                    context.session.log.warn(format_args!("{text} was copied and stays in its folder, too: {error}"));
                    Settled::Done
                }
            };
            became.insert(key.clone(), moved);
        }
    }
    let missing = || Error::new(Kind::Internal, "A moved message has no outcome.");
    keys.iter().map(|key| became.remove(key).ok_or_else(missing)).collect()
}

/// The host cannot take a message that was put aside, or asks for it again.
fn aside(context: &Context, key: &Key, verdict: Verdict) -> Result<&'static str> {
    if verdict == Verdict::Failed {
        quarantine::count(context, key, 0, "The helpdesk could not take the message.")?;
        return Ok("put_aside");
    }
    quarantine::replay(context, key)?;
    Ok("replay")
}

fn past_tense(action: &Action) -> &'static str {
    match action {
        Action::Leave => "left",
        Action::MarkSeen => "marked_seen",
        Action::Move { .. } => "moved",
        Action::Delete => "deleted",
    }
}

/// Another handle or node may settle other messages of the same folder.
fn advance(
    context: &Context,
    folder: &str,
    seen: Option<&Cursor>,
    settled: &[(Key, Option<Fingerprint>)],
) -> Result<Option<Cursor>> {
    if settled.is_empty() {
        return Ok(None);
    }
    let id = cursor_id(context, folder)?;
    until_it_holds(busy, || {
        let (mut cursor, version) = reached(context, folder, seen)?;
        cursor.settle(settled, context.session.clock.now());
        Ok(write_cursor(context, &id, Some(version), &cursor)?.then_some(cursor))
    })
    .map(Some)
}

fn busy() -> Error {
    Error::new(Kind::Transient, "Other processes keep changing the cursor of this mailbox.")
        .remedy("The same settle_batch can be repeated.")
}

/// The stored cursor, and what was listed since while the store was away.
fn reached(context: &Context, folder: &str, seen: Option<&Cursor>) -> Result<(Cursor, u64)> {
    let (mut cursor, version) = read_cursor(context, folder)?.ok_or_else(|| never_fetched(folder))?;
    if let Some(seen) = seen {
        cursor.saw(seen);
    }
    Ok((cursor, version))
}

fn never_fetched(folder: &str) -> Error {
    Error::new(Kind::Misuse, format!("{folder} was never fetched, so nothing in it can be settled."))
        .remedy("Give keys back exactly as fetch_batch handed them out, to a plugin over the same store.")
}
