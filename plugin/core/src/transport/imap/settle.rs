//! What settling does in the mailbox. Every step can be repeated.

use super::{
    answer, ask,
    conn::{Conn, Failure},
    cursor, sets,
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
        .map(|key| cursor::parse(&key.id).filter(|id| id.uidvalidity == selected.uidvalidity).map(|id| id.uid))
        .collect();
    let mut wanted: Vec<u32> = uids.iter().copied().flatten().collect();
    wanted.sort_unstable();
    wanted.dedup();
    let found = existing(conn, &wanted, "")?;
    let acted_on = match action {
        // What was copied may still be here, marked as deleted: copied again, it would be there twice.
        Action::Move { .. } if !can_move(conn) => {
            let mut left = existing(conn, &found, " UNDELETED")?;
            left.retain(|uid| !conn.copied.contains(&(folder.to_owned(), selected.uidvalidity, *uid)));
            left
        }
        _ => found.clone(),
    };
    let most = conn.message_limit().unwrap_or(usize::MAX);
    let pieces = acted_on.chunks(most.max(1)).flat_map(|part| sets::pieces(&sets::ranges(part)));
    for piece in pieces {
        let set = sets::text(&piece);
        match action {
            Action::Leave => {}
            Action::MarkSeen => store(conn, &set, "\\Seen")?,
            Action::Move { folder: target } => {
                move_to(conn, &set, target, log)?;
                if !can_move(conn) {
                    let copied = |uid: u32| (folder.to_owned(), selected.uidvalidity, uid);
                    if conn.copied.len() >= limits::LEFT_OUT_MAX {
                        conn.copied.clear();
                    }
                    conn.copied.extend(piece.iter().flat_map(|(first, last)| *first..=*last).map(copied));
                }
            }
            Action::Delete => {
                store(conn, &set, "\\Deleted")?;
                expunge(conn, &set, log)?;
            }
        }
    }
    Ok(uids.iter().map(|uid| uid.is_some_and(|uid| found.binary_search(&uid).is_ok())).collect())
}

fn can_move(conn: &Conn) -> bool {
    (conn.has("MOVE") || conn.has("IMAP4REV2")) && !conn.moves_by_copy
}

fn can_expunge(conn: &Conn) -> bool {
    conn.has("UIDPLUS") || conn.has("IMAP4REV2")
}

/// Those of `uids` (ascending) that are still there, and fulfil what else is asked.
fn existing(conn: &mut Conn, uids: &[u32], and: &str) -> Result<Vec<u32>> {
    let refused = |failure: Failure| failure.into_error("look for settled messages").or_about(About::Item);
    if uids.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(found) = ask::search(conn, sets::ranges(uids), and).map_err(refused)? {
        return Ok(found);
    }
    // OK and no result is no answer. What is there is named by FETCH.
    let mut found = Vec::with_capacity(uids.len());
    ask::fetch(conn, sets::ranges(uids), "UID FLAGS", &mut |one, frame| {
        let is_deleted = frame.line.to_ascii_uppercase().windows(8).any(|at| at == b"\\DELETED");
        if uids.binary_search(&one.uid).is_ok() && (and.is_empty() || !is_deleted) {
            found.push(one.uid);
        }
        Ok(())
    })
    .map_err(refused)?;
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
    let name = conn.name_of(target)?;
    if can_move(conn) {
        match into(conn, "MOVE", set, &name, target, log) {
            Ok(()) => return Ok(()),
            // Offered and not carried out, and the folder is there: this server copies.
            Err(Failure::No(words) | Failure::Bad(words)) if answer::response_code(&words).is_none() => {
                log.warn(format_args!("The mail server refuses to move messages ({words}): they are copied instead."));
                conn.moves_by_copy = true;
            }
            Err(failure) => return Err(cannot_move(failure, target)),
        }
    }
    into(conn, "COPY", set, &name, target, log).map_err(|failure| cannot_move(failure, target))?;
    // From here on the messages are in the target. A refusal of the rest must not copy them again.
    match store(conn, set, "\\Deleted").and_then(|()| expunge(conn, set, log)) {
        Err(error) if error.about() != About::Connection => {
            log.warn(format_args!("Messages were copied to {target} and stay in their folder, too: {error}"));
            Ok(())
        }
        done => done,
    }
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
