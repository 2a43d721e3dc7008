//! What settling does in the mailbox. Every step can be repeated.

use imap_proto::{MailboxDatum, Response};

use super::{
    answer,
    conn::{Conn, Failure},
    cursor,
    framer::Budget,
    names,
};
use crate::{
    error::{About, Error, Kind, Result},
    limits,
    log::Logger,
    settings::Action,
    transport::{Key, Settled},
};

/// Carries out `action` on the `keys`, which all lie in `folder`. A message to which the server refuses it holds up no other:
/// whichever it is, is found by halves.
pub fn settle(conn: &mut Conn, folder: &str, keys: &[&Key], action: &Action, log: &Logger) -> Result<Vec<Settled>> {
    let mut settled = Vec::with_capacity(keys.len());
    let mut refused = None;
    by_halves(conn, folder, keys, action, log, &mut settled, &mut (0, &mut refused))?;
    Ok(settled)
}

fn by_halves(
    conn: &mut Conn,
    folder: &str,
    keys: &[&Key],
    action: &Action,
    log: &Logger,
    settled: &mut Vec<Settled>,
    refused: &mut (usize, &mut Option<Error>),
) -> Result<()> {
    // Then it is the action, and no single message.
    if refused.0 >= limits::SETTLE_REFUSED_IN_A_ROW
        && let Some(error) = &refused.1
    {
        settled.extend(keys.iter().map(|_| Settled::Kept(error.clone())));
        return Ok(());
    }
    match (together(conn, folder, keys, action, log), keys) {
        (Ok(found), _) => {
            refused.0 = 0;
            settled.extend(found.into_iter().map(|found| if found { Settled::Done } else { Settled::Gone }));
            Ok(())
        }
        (Err(error), [_]) if error.is_of_item() => {
            refused.0 += 1;
            *refused.1 = Some(error.clone());
            settled.push(Settled::Kept(error));
            Ok(())
        }
        (Err(error), [_, _, ..]) if error.is_of_item() => {
            let (first, second) = keys.split_at(keys.len() / 2);
            by_halves(conn, folder, first, action, log, settled, refused)?;
            by_halves(conn, folder, second, action, log, settled, refused)
        }
        (Err(error), _) => Err(error),
    }
}

/// For each whether it was found.
fn together(conn: &mut Conn, folder: &str, keys: &[&Key], action: &Action, log: &Logger) -> Result<Vec<bool>> {
    if matches!(action, Action::Move { folder: target } if target == folder) {
        return Err(Error::new(Kind::Misuse, format!("Mail of {folder} cannot be moved to {folder} itself.")));
    }
    let selected = conn.select(folder)?;
    // A key of another UIDVALIDITY names a message that is not there any more.
    let uids: Vec<Option<u32>> = keys
        .iter()
        .map(|key| cursor::parse_id(&key.id).filter(|(valid, _)| *valid == selected.uidvalidity).map(|(_, uid)| uid))
        .collect();
    let mut wanted: Vec<u32> = uids.iter().copied().flatten().collect();
    wanted.sort_unstable();
    wanted.dedup();
    let found = existing(conn, &wanted, "")?;
    let acted_on = match action {
        // What was moved stays here, marked as deleted: moved again, it would be there twice.
        Action::Move { .. } if !can_move(conn) && !can_expunge(conn) => existing(conn, &found, " UNDELETED")?,
        _ => found.clone(),
    };
    for set in names::uid_sets(&acted_on, limits::IMAP_COMMAND_LINE_MAX / 2) {
        match action {
            Action::Leave => {}
            Action::MarkSeen => store(conn, &set, "\\Seen")?,
            Action::Move { folder: target } => move_to(conn, &set, target, log)?,
            Action::Delete => {
                store(conn, &set, "\\Deleted")?;
                expunge(conn, &set, log)?;
            }
        }
    }
    Ok(uids.iter().map(|uid| uid.is_some_and(|uid| found.binary_search(&uid).is_ok())).collect())
}

fn can_move(conn: &Conn) -> bool {
    conn.has("MOVE") || conn.has("IMAP4REV2")
}

fn can_expunge(conn: &Conn) -> bool {
    conn.has("UIDPLUS") || conn.has("IMAP4REV2")
}

/// Those of `uids` (ascending) that are still there, and fulfil what else is asked.
fn existing(conn: &mut Conn, uids: &[u32], and: &str) -> Result<Vec<u32>> {
    let mut found = Vec::with_capacity(uids.len());
    for set in names::uid_sets(uids, limits::IMAP_COMMAND_LINE_MAX / 2) {
        conn.bulk(&format!("UID SEARCH UID {set}{and}"), Budget::CONTROL, &mut |frame| {
            if let Some(Response::MailboxData(MailboxDatum::Search(list))) = answer::parse(&frame.line) {
                found.extend(list.into_iter().filter(|uid| uids.binary_search(uid).is_ok()));
            }
            Ok(())
        })
        .map_err(|failure| failure.into_error("look for settled messages").or_about(About::Item))?;
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

fn move_to(conn: &mut Conn, set: &str, target: &str, log: &Logger) -> Result<()> {
    let atomic = can_move(conn);
    let verb = if atomic { "MOVE" } else { "COPY" };
    let name = conn.name_of(target)?;
    let command = format!("UID {verb} {set} {name}");
    match conn.run(&command) {
        Ok(_) => {}
        // RFC 3501 section 6.4.7 asks for [TRYCREATE]; not every server says it.
        Err(Failure::No(words)) if answer::meaning(&words).is_none() => {
            match conn.run(&format!("CREATE {name}")) {
                Ok(_) => log.info(format_args!("The folder {target} was created.")),
                // It exists: the refusal had another reason, which the second try will name.
                Err(Failure::No(_) | Failure::Bad(_)) => {}
                Err(Failure::Fatal(error)) => return Err(error),
            }
            conn.run(&command).map_err(|failure| {
                failure.into_error(&format!("move settled messages to {target}")).or_about(About::Item)
            })?;
        }
        Err(failure) => {
            return Err(failure.into_error(&format!("move settled messages to {target}")).or_about(About::Item));
        }
    }
    if atomic {
        return Ok(());
    }
    store(conn, set, "\\Deleted")?;
    expunge(conn, set, log)
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
