//! Was a folder set back to an earlier state, as by a restored backup? Then new messages get UIDs that old ones had, which
//! RFC 3501 section 2.3.1.1 forbids and a restored server cannot know. Two things tell: UIDNEXT fell, or the newest message that was
//! listed has another date. A listing then begins anew; settling changes nothing before one did.

use imap_proto::{MailboxDatum, Response, StatusAttribute};

use super::{
    answer, ask,
    conn::{Conn, Failure, Selected},
    cursor::Cursor,
    dates,
    framer::Budget,
};
use crate::{
    clock::UnixSeconds,
    error::{About, Error, Kind, Result},
    message::fingerprint::Traits,
    transport::Raw,
};

/// Do the UIDs of the folder mean something else than what the cursor knows? Asked when it was opened, before anything is
/// read or changed by them. It sees what a listing sees, so that the next listing resynchronises.
///
/// # Errors
/// Those of the connection.
pub fn means_another(conn: &mut Conn, selected: &Selected, cursor: &Cursor) -> Result<bool> {
    if cursor.uidvalidity != selected.uidvalidity {
        return Ok(true);
    }
    let last = last_uid(conn, selected)?;
    if is_set_back(conn, selected, cursor, last)? {
        return Ok(true);
    }
    let Some(anchor) = cursor.anchor else { return Ok(false) };
    let dates = dates::dates(conn, &[anchor.uid])?;
    let is_another = dates.iter().any(|(_, at)| at.is_some_and(|at| at != anchor.received_at));
    Ok(is_another && is_known(conn, cursor, anchor.uid, UnixSeconds::MIN)? != Some(true))
}

/// What to say instead of settling or reading.
pub fn listed_first(folder: &str) -> Error {
    Error::new(
        Kind::Transient,
        format!("The server renumbered the folder {folder}, or set it back to an earlier state."),
    )
    .with_about(About::Folder)
    .remedy("Nothing was changed. Fetch again: the folder is compared with what was settled.")
}

/// Was the folder set back to an earlier state? Then UIDNEXT is below what was listed already (RFC 3501 section 2.3.1.1 forbids
/// it; a restored backup cannot know), and new messages get UIDs that old ones had.
pub fn is_set_back(conn: &mut Conn, selected: &Selected, cursor: &Cursor, last: u32) -> Result<bool> {
    let Some(highest) = cursor.highest.filter(|highest| last < *highest) else { return Ok(false) };
    match selected.uidnext {
        // A server whose UIDNEXT is wrong still has the messages. While it does not say, nothing counts as settled.
        Some(_) => Ok(highest_uid(conn, selected)? < highest),
        // Without UIDNEXT the newest may have been expunged. If not, a settled UID is a message that nobody settled, and
        // it came after all that were listed.
        None => {
            let listed = cursor.anchor.map_or(UnixSeconds::MIN, |anchor| anchor.received_at);
            let kept_from = listed.max(cursor.marks.kept_from());
            Ok(cursor.is_done(last) && is_known(conn, cursor, last, kept_from)? == Some(false))
        }
    }
}

/// What a fingerprint is made of, and when it came.
pub const TRAITS: &str = "UID INTERNALDATE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID FROM DATE SUBJECT)]";

/// Was the message with this UID settled, by its fingerprint, or received before `kept_from`? `None`: the server says nothing
/// of it.
pub fn is_known(conn: &mut Conn, cursor: &Cursor, uid: u32, kept_from: UnixSeconds) -> Result<Option<bool>> {
    let settled = cursor.marks.all();
    let mut is_known = None;
    ask::fetch(conn, vec![(uid, uid)], TRAITS, &mut |found, frame| {
        let is_asked = found.uid == uid;
        if let [Raw::Memory(header)] = frame.literals.as_slice()
            && is_asked
        {
            let received_at = found.internal_date.as_deref().and_then(dates::internal_date);
            // What nothing is known by may be any of many.
            let traits = Traits::of(header);
            let is_old = received_at.is_some_and(|at| at < kept_from);
            let is_settled = || traits.candidates().any(|one| settled.binary_search(&one).is_ok());
            is_known = Some(is_old || traits.fingerprint().is_none() || is_settled());
        }
        Ok(())
    })
    .map_err(|failure| failure.into_error("look at a settled message").or_about(About::Folder))?;
    Ok(is_known)
}

/// The highest UID that may exist. Servers without UIDNEXT are asked for the last message's, and for STATUS.
pub fn last_uid(conn: &mut Conn, selected: &Selected) -> Result<u32> {
    if let Some(next) = selected.uidnext {
        return Ok(next.saturating_sub(1));
    }
    highest_uid(conn, selected)
}

pub fn highest_uid(conn: &mut Conn, selected: &Selected) -> Result<u32> {
    if selected.exists == 0 {
        return Ok(0);
    }
    let mut last = 0;
    conn.bulk("UID FETCH * (UID)", Budget::CONTROL, &mut |frame| {
        last = last.max(answer::fetched(&frame.line).map_or(0, |found| found.uid));
        Ok(())
    })
    .map_err(|failure| failure.into_error("name the last message"))?;
    if last > 0 {
        return Ok(last);
    }
    // There are messages and none was named: zero would make all of them new mail.
    let mut next = None;
    let name = conn.name_of(&selected.folder)?;
    let asked = conn.bulk(&format!("STATUS {name} (UIDNEXT)"), Budget::CONTROL, &mut |frame| {
        if let Some(Response::MailboxData(MailboxDatum::Status { status, .. })) = answer::parse(&frame.line) {
            next = next.or(status.iter().find_map(|one| match one {
                StatusAttribute::UidNext(next) => Some(*next),
                _ => None,
            }));
        }
        Ok(())
    });
    if let Err(Failure::Fatal(error)) = asked {
        return Err(error);
    }
    match next {
        Some(next) if next > 1 => Ok(next - 1),
        _ => {
            let (folder, exists) = (&selected.folder, selected.exists);
            let words = format!("The mail server says that {folder} has {exists} messages, and names none of them.");
            Err(Error::new(Kind::ServerMisbehaved, words)
                .with_about(About::Folder)
                .remedy("Nothing was lost: fetch again. Ask the server's administrator if it stays so."))
        }
    }
}
