//! What settling does in the mailbox. Every step can be repeated.

use std::collections::HashMap;

use super::{
    answer, ask,
    conn::{Conn, Failure},
    cursor::{self, Cursor},
    set_back, sets,
};
use crate::{
    error::{About, Error, Kind, Result},
    limits,
    log::Logger,
    settings::Action,
    transport::{Key, Settled, special_use::moved_to_itself},
};

/// Carries out `action` on the `keys`, which all lie in `folder`. A message to which the server refuses it holds up no other:
/// whichever it is, is found by halves.
///
/// # Errors
/// When nothing was done: a fault of the folder, the account or the connection, or one that every message meets.
pub fn settle(
    conn: &mut Conn,
    folder: &str,
    keys: &[&Key],
    action: &Action,
    known: Option<&Cursor>,
    log: &Logger,
) -> Result<Vec<Settled>> {
    let selected = conn.select(folder)?;
    if let Some(cursor) = known
        && set_back::means_another(conn, &selected, cursor)?
    {
        let error = set_back::listed_first(folder);
        let became = |key: &&Key| match cursor.is_settled(&key.id) {
            true => Settled::Gone,
            false => Settled::Later(error.clone()),
        };
        return Ok(keys.iter().map(became).collect());
    }
    // Names were compared when the settings were checked; what a special use stands for is known here.
    if let Action::Move { folder: target } = action
        && target.starts_with('\\')
        && conn.name_of(target)?.eq_ignore_ascii_case(&conn.name_of(folder)?)
    {
        return Err(moved_to_itself(folder, target));
    }
    // A key of another UIDVALIDITY names a message that is not there any more.
    let uid_of =
        |key: &Key| cursor::parse(&key.id).filter(|id| id.uidvalidity == selected.uidvalidity).map(|id| id.uid);
    let mut wanted: Vec<u32> = keys.iter().filter_map(|key| uid_of(key)).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let found = existing(conn, &wanted)?;
    let most = conn.message_limit().unwrap_or(usize::MAX);
    let to_do = match action {
        // What was copied may still be here, marked as deleted, and under another number.
        Action::Move { .. } if !can_move(conn) => undeleted(conn, &found)?,
        _ => found.clone(),
    };
    let is_left = |uid: &&u32| to_do.binary_search(uid).is_err();
    let became = found.iter().filter(is_left).map(|uid| (*uid, Settled::Done)).collect();
    let mut acts = Acts { conn, action, log, all: &to_do, became, refused: 0, is_witnessed: false, end: None };
    for part in to_do.chunks(most.max(1)) {
        for piece in sets::pieces(&sets::ranges(part)) {
            let uids: Vec<u32> = piece.iter().flat_map(|(first, last)| *first..=*last).collect();
            acts.act(&uids);
        }
    }
    if let Some(error) = acts.end.take().filter(|_| !acts.is_witnessed) {
        return Err(error);
    }
    let became = |key: &&Key| uid_of(key).and_then(|uid| acts.became.get(&uid).cloned());
    Ok(keys.iter().map(|key| became(key).unwrap_or(Settled::Gone)).collect())
}

/// One action on many messages.
struct Acts<'a> {
    conn: &'a mut Conn,
    action: &'a Action,
    log: &'a Logger,
    /// Ascending.
    all: &'a [u32],
    became: HashMap<u32, Settled>,
    /// Messages in a row to which it was refused.
    refused: usize,
    /// It was done to one.
    is_witnessed: bool,
    /// Why the rest is not asked for any more.
    end: Option<Error>,
}

impl Acts<'_> {
    fn act(&mut self, uids: &[u32]) {
        let uids: Vec<u32> = uids.iter().copied().filter(|uid| !self.became.contains_key(uid)).collect();
        if uids.is_empty() {
            return;
        }
        if let Some(error) = &self.end {
            self.became.extend(uids.iter().map(|uid| (*uid, Settled::Later(error.clone()))));
            return;
        }
        match (once(self.conn, &uids, self.action, self.log), &uids[..]) {
            (Ok(done), _) => {
                self.refused = 0;
                self.is_witnessed = true;
                self.became.extend(uids.iter().map(|uid| (*uid, done.clone())));
            }
            (Err(error), [uid]) if error.is_of_item() => {
                self.became.insert(*uid, Settled::Kept(error.clone()));
                self.refused += 1;
                if self.refused == limits::SETTLE_REFUSED_IN_A_ROW {
                    self.refused_again(error);
                }
            }
            (Err(error), [_, _, ..]) if error.is_of_item() => {
                let (first, second) = uids.split_at(uids.len() / 2);
                self.act(first);
                self.act(second);
            }
            (Err(error), _) => {
                self.became.extend(uids.iter().map(|uid| (*uid, Settled::Later(error.clone()))));
                self.end = Some(error);
            }
        }
    }

    /// Several in a row were refused: these messages, or the action to all? The last one tells.
    fn refused_again(&mut self, error: Error) {
        if let Some(last) =
            self.all.last().copied().filter(|last| !self.is_witnessed && !self.became.contains_key(last))
        {
            self.act(&[last]);
        }
        if self.refused > 0 {
            self.end.get_or_insert(error);
        }
    }
}

/// What is done to these all at once.
fn once(conn: &mut Conn, uids: &[u32], action: &Action, log: &Logger) -> Result<Settled> {
    let set = sets::text(&sets::ranges(uids));
    match action {
        Action::Leave => {}
        Action::MarkSeen => store(conn, &set, "\\Seen")?,
        Action::Move { folder: target } => return move_to(conn, &set, target, log),
        Action::Delete => {
            store(conn, &set, "\\Deleted")?;
            expunge(conn, &set, log)?;
        }
    }
    Ok(Settled::Done)
}

fn can_move(conn: &Conn) -> bool {
    (conn.has("MOVE") || conn.has("IMAP4REV2")) && !conn.moves_by_copy
}

fn can_expunge(conn: &Conn) -> bool {
    conn.has("UIDPLUS") || conn.has("IMAP4REV2")
}

/// Those of `uids` (ascending) that nobody marked as deleted.
fn undeleted(conn: &mut Conn, uids: &[u32]) -> Result<Vec<u32>> {
    if uids.is_empty() {
        return Ok(Vec::new());
    }
    let refused = |failure: Failure| failure.into_error("look for settled messages").or_about(About::Folder);
    if let Some(found) = ask::search(conn, sets::ranges(uids), " UNDELETED").map_err(refused)? {
        return Ok(found);
    }
    let mut found = Vec::with_capacity(uids.len());
    ask::fetch(conn, sets::ranges(uids), "UID FLAGS", &mut |one, frame| {
        let is_deleted = frame.line.to_ascii_uppercase().windows(8).any(|at| at == b"\\DELETED");
        if uids.binary_search(&one.uid).is_ok() && !is_deleted {
            found.push(one.uid);
        }
        Ok(())
    })
    .map_err(refused)?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Those of `uids` (ascending) that are still there. One answer is no proof of absence, and OK without a result is none at all:
/// what SEARCH does not name is gone when FETCH does not name it, either.
fn existing(conn: &mut Conn, uids: &[u32]) -> Result<Vec<u32>> {
    let refused = |failure: Failure| failure.into_error("look for settled messages").or_about(About::Folder);
    let mut found = match ask::search(conn, sets::ranges(uids), "") {
        Ok(found) => found.unwrap_or_default(),
        Err(Failure::No(words) | Failure::Bad(words)) if answer::meaning(&words).is_none() => Vec::new(),
        Err(failure) => return Err(refused(failure)),
    };
    let missing: Vec<u32> = uids.iter().copied().filter(|uid| found.binary_search(uid).is_err()).collect();
    if !missing.is_empty() {
        ask::fetch(conn, sets::ranges(&missing), "UID FLAGS", &mut |one, _| {
            found.extend(missing.binary_search(&one.uid).is_ok().then_some(one.uid));
            Ok(())
        })
        .map_err(refused)?;
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn store(conn: &mut Conn, set: &str, flag: &str) -> Result<()> {
    conn.run(&format!("UID STORE {set} +FLAGS.SILENT ({flag})"))
        .map(drop)
        .map_err(|failure| failure.into_error("mark settled messages").or_about(About::Item))
}

/// Without MOVE they are copied; whoever notes that removes them then, and a copy is never made twice.
fn move_to(conn: &mut Conn, set: &str, target: &str, log: &Logger) -> Result<Settled> {
    let name = conn.name_of(target)?;
    if can_move(conn) {
        match into(conn, "MOVE", set, &name, target, log) {
            Ok(()) => return Ok(Settled::Done),
            // Offered and not carried out, and the folder is there: this server copies.
            Err(Failure::No(words) | Failure::Bad(words)) if answer::response_code(&words).is_none() => {
                log.warn(format_args!("The mail server refuses to move messages ({words}): they are copied instead."));
                conn.moves_by_copy = true;
            }
            Err(failure) => return Err(cannot_move(failure, target)),
        }
    }
    into(conn, "COPY", set, &name, target, log).map_err(|failure| cannot_move(failure, target))?;
    Ok(Settled::Copied)
}

fn cannot_move(failure: Failure, target: &str) -> Error {
    failure.into_error(&format!("move settled messages to {target}")).or_about(About::Item)
}

/// MOVE or COPY. A target that is not there is created.
fn into(
    conn: &mut Conn,
    verb: &str,
    set: &str,
    name: &str,
    target: &str,
    log: &Logger,
) -> std::result::Result<(), Failure> {
    let command = format!("UID {verb} {set} {name}");
    let words = match conn.run(&command) {
        // RFC 3501 section 6.4.7 asks for [TRYCREATE]; not every server says it.
        Err(Failure::No(words) | Failure::Bad(words)) if answer::meaning(&words).is_none() => words,
        outcome => return outcome.map(drop),
    };
    let is_missing = match answer::response_code(&words).as_deref() {
        Some("TRYCREATE" | "NONEXISTENT") => true,
        None => !is_there(conn, name)?,
        Some(_) => false,
    };
    if !is_missing {
        return Err(Failure::No(words));
    }
    match conn.run(&format!("CREATE {name}")) {
        Ok(_) => {
            log.info(format_args!("The folder {target} was created."));
            conn.run(&command).map(drop)
        }
        Err(Failure::No(words) | Failure::Bad(words)) => {
            let error = Error::new(
                Kind::Refused,
                format!("The mailbox has no folder {target}, and it cannot be created."),
            )
            .remedy(
                "Correct the folder under advanced (After Import, After Refusal), or create it in the mailbox. The \
                     server's own words say why.",
            )
            .with_about(About::Folder);
            Err(Failure::Fatal(answer::said(error, &words)))
        }
        Err(fatal) => Err(fatal),
    }
}

fn is_there(conn: &mut Conn, name: &str) -> std::result::Result<bool, Failure> {
    match conn.run(&format!("STATUS {name} (MESSAGES)")) {
        Ok(_) => Ok(true),
        Err(Failure::No(_) | Failure::Bad(_)) => Ok(false),
        Err(fatal) => Err(fatal),
    }
}

/// Removes exactly these. A plain EXPUNGE would remove what others marked as deleted, too.
fn expunge(conn: &mut Conn, set: &str, log: &Logger) -> Result<()> {
    if !can_expunge(conn) {
        log.warn(format_args!(
            "This server cannot remove single messages (no UIDPLUS): they are marked as deleted and stay until the \
             folder is expunged."
        ));
        return Ok(());
    }
    conn.run(&format!("UID EXPUNGE {set}"))
        .map(drop)
        .map_err(|failure| failure.into_error("remove settled messages").or_about(About::Item))
}
