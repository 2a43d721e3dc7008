//! Which messages of a folder are not settled yet.

use std::collections::VecDeque;

use imap_proto::{MailboxDatum, Response};
use time::{Date, Duration, OffsetDateTime, macros::format_description};

use super::{
    answer,
    conn::{Conn, Failure, Selected},
    cursor::{self, Cursor},
    framer::Budget,
    names,
};
use crate::{
    clock::UnixSeconds,
    error::{About, Result},
    limits,
    settings::Since,
    transport::{self, Covers, Entry, Key, Listing, moving::Marks},
};

/// Lists `folder`. `max` bounds the entries.
pub fn list(
    conn: &mut Conn,
    folder: &str,
    stored: Option<&Cursor>,
    since: Since,
    now: UnixSeconds,
    max: usize,
) -> Result<Listing> {
    let selected = conn.examine(folder)?;
    let last = last_uid(conn, &selected)?;
    let mut reset = None;
    let mut cursor = match stored {
        Some(cursor) if cursor.uidvalidity == selected.uidvalidity => cursor.clone(),
        Some(old) => {
            reset = Some(format!(
                "The server renumbered the folder {folder} (UIDVALIDITY {} became {}): mail received since it was last \
                 settled is listed again.",
                old.uidvalidity, selected.uidvalidity
            ));
            let begin = old.resume_at.saturating_sub(limits::RESYNC_MARGIN);
            let marks = old.marks.clone();
            Cursor { marks, ..baseline(conn, &selected, last, Since::Moment(begin), now)? }
        }
        None => {
            let marks = Marks::new(since, now);
            Cursor { marks, ..baseline(conn, &selected, last, since, now)? }
        }
    };

    cursor.highest = cursor.highest.max(Some(last));
    let (mut found, more) = unsettled(conn, &selected, &cursor, last, max)?;
    if !more {
        let existing: Vec<u32> = found.iter().map(|(uid, _)| *uid).collect();
        cursor.compact(&existing, limits::IMAP_CURSOR_RANGES);
    }
    if now - cursor.resume_at >= limits::NOTE_INTERVAL {
        // A folder that is never without unsettled mail: what is older than the oldest of it is settled.
        let settled_before = match found.is_empty() {
            true => Some(now),
            // A new beginning has its moment already.
            false if stored.is_none() || reset.is_some() || more || found.len() > limits::IMAP_NOTE_UIDS => None,
            false => oldest(conn, &found)?,
        };
        cursor.resume_at = cursor.resume_at.max(settled_before.unwrap_or_default().min(now));
    }
    found.truncate(max);
    let entry = |(uid, size)| Entry {
        key: Key { folder: folder.to_owned(), id: cursor::id(selected.uidvalidity, uid) },
        size,
        received_at: None,
    };
    Ok(Listing {
        entries: found.into_iter().map(entry).collect(),
        more,
        covers: if more { Covers::Nothing } else { Covers::Uids(1, last.max(1)) },
        cursor: transport::Cursor::Imap(cursor),
        reset,
    })
}

/// When the oldest of these was received; `None`: of one of them it cannot be read.
fn oldest(conn: &mut Conn, found: &[(u32, u64)]) -> Result<Option<UnixSeconds>> {
    let mut uids: Vec<u32> = found.iter().map(|(uid, _)| *uid).collect();
    uids.sort_unstable();
    let mut oldest = Some(UnixSeconds::MAX);
    for set in names::uid_sets(&uids, limits::IMAP_COMMAND_LINE_MAX / 2) {
        conn.bulk(&format!("UID FETCH {set} (UID INTERNALDATE)"), Budget::CONTROL, &mut |frame| {
            if let Some(found) = answer::fetched(&frame.line).filter(|found| uids.binary_search(&found.uid).is_ok()) {
                let at = found.internal_date.as_deref().and_then(internal_date);
                oldest = oldest.zip(at).map(|(oldest, at)| oldest.min(at));
            }
            Ok(())
        })
        .map_err(|failure| failure.into_error("tell when mail was received"))?;
    }
    Ok(oldest.filter(|at| *at != UnixSeconds::MAX))
}

/// The highest UID that may exist. Servers without UIDNEXT are asked for the last message's.
fn last_uid(conn: &mut Conn, selected: &Selected) -> Result<u32> {
    if let Some(next) = selected.uidnext {
        return Ok(next.saturating_sub(1));
    }
    let mut last = 0;
    if selected.exists > 0 {
        conn.bulk("UID FETCH * (UID)", Budget::CONTROL, &mut |frame| {
            last = last.max(answer::fetched(&frame.line).map_or(0, |found| found.uid));
            Ok(())
        })
        .map_err(|failure| failure.into_error("name the last message"))?;
    }
    Ok(last)
}

/// UID and size of what the cursor leaves open, ascending, and whether there is more.
fn unsettled(
    conn: &mut Conn,
    selected: &Selected,
    cursor: &Cursor,
    last: u32,
    max: usize,
) -> Result<(Vec<(u32, u64)>, bool)> {
    let mut found: Vec<(u32, u64)> = Vec::new();
    if selected.exists == 0 {
        return Ok((found, false));
    }
    let mut open: VecDeque<(u32, u32)> = cursor.open_ranges(last).into();
    // No command may be answered by more lines than are accepted: in a large folder that is a matter of the window.
    let narrow = limits::IMAP_RESPONSES_MAX as u64 / 2;
    let widest = if u64::from(selected.exists) < narrow { u64::from(u32::MAX) } else { narrow };
    let mut window = limits::IMAP_LISTING_MAX as u64;
    while !open.is_empty() && found.len() < max {
        let set = take_window(&mut open, window);
        let before = found.len();
        let outcome = conn.bulk(&format!("UID FETCH {set} (UID RFC822.SIZE)"), Budget::CONTROL, &mut |frame| {
            if let Some(entry) = answer::fetched(&frame.line)
                // Unsolicited answers, and what `*` in a set drags in.
                && entry.uid <= last && !cursor.is_done(entry.uid)
            {
                found.push((entry.uid, entry.size.map_or(0, u64::from)));
            }
            Ok(())
        });
        match outcome {
            // "NO Some messages could not be FETCHed" still lists the others.
            Err(Failure::No(_)) if found.len() > before => {}
            outcome => outcome.map_err(|failure| failure.into_error("list the folder").or_about(About::Folder))?,
        }
        if ((found.len() - before) as u64) < window / 16 {
            window = (window * 4).min(widest);
        }
    }
    found.sort_unstable();
    found.dedup_by_key(|(uid, _)| *uid);
    let more = !open.is_empty() || found.len() > max;
    Ok((found, more))
}

/// Takes ranges that span at most `window` UIDs and fit half a command line.
fn take_window(open: &mut VecDeque<(u32, u32)>, window: u64) -> String {
    let max_len = limits::IMAP_COMMAND_LINE_MAX / 2;
    let mut sets = vec![String::new()];
    let mut left = window;
    while left > 0 {
        let Some((first, last)) = open.pop_front() else { break };
        let end = last.min(u64::from(first).saturating_add(left - 1).min(u64::from(u32::MAX)) as u32);
        names::push_range(&mut sets, first, end, max_len);
        if sets.len() > 1 {
            open.push_front((first, last));
            break;
        }
        left -= u64::from(end - first) + 1;
        if end < last {
            open.push_front((end + 1, last));
        }
    }
    sets.swap_remove(0)
}

/// The cursor of a folder that has none: what is in the folder now and older than `since` counts as settled. What
/// arrives later counts as new, whatever its date: somebody may move old mail in on purpose.
fn baseline(conn: &mut Conn, selected: &Selected, last: u32, since: Since, now: UnixSeconds) -> Result<Cursor> {
    let uidvalidity = selected.uidvalidity;
    let moment = match since {
        Since::Now => return Ok(Cursor::new(uidvalidity, last, now)),
        Since::Everything => return Ok(Cursor::new(uidvalidity, 0, 0)),
        Since::Moment(moment) if moment <= 0 => return Ok(Cursor::new(uidvalidity, 0, 0)),
        Since::Moment(moment) => moment,
    };
    let mut wanted = Vec::new();
    if selected.exists > 0 {
        let day = OffsetDateTime::from_unix_timestamp(moment).map_or(Date::MAX, OffsetDateTime::date);
        // SEARCH compares the date as written in the message's own zone, up to a day off UTC (RFC 3501 section 6.4.4):
        // beyond that it is exact, and between the two INTERNALDATE decides.
        let (before, after) = (day.saturating_sub(Duration::DAY), day.saturating_add(Duration::days(2)));
        wanted = search(conn, &format!("SINCE {}", search_date(after)), last, selected.exists)?;
        let near = format!("SINCE {} BEFORE {}", search_date(before), search_date(after));
        let near = search(conn, &near, last, selected.exists)?;
        wanted.extend(received_since(conn, &near, moment)?);
        wanted.sort_unstable();
        wanted.dedup();
    }
    let mut cursor = Cursor::new(uidvalidity, 0, moment);
    let mut next = 1;
    for uid in wanted {
        cursor.insert(next, uid.saturating_sub(1));
        next = uid.saturating_add(1);
    }
    cursor.insert(next, last);
    Ok(cursor)
}

fn search(conn: &mut Conn, criteria: &str, last: u32, exists: u32) -> Result<Vec<u32>> {
    let window = if exists <= limits::IMAP_SEARCH_WINDOW { u32::MAX } else { limits::IMAP_SEARCH_WINDOW };
    let mut found = Vec::new();
    let mut first = 1_u32;
    while first <= last {
        let end = last.min(first.saturating_add(window - 1));
        conn.bulk(&format!("UID SEARCH UID {first}:{end} {criteria}"), Budget::CONTROL, &mut |frame| {
            if let Some(Response::MailboxData(MailboxDatum::Search(uids))) = answer::parse(&frame.line) {
                found.extend(uids.into_iter().filter(|uid| (first..=end).contains(uid)));
            }
            Ok(())
        })
        .map_err(|failure| failure.into_error("search by date"))?;
        let Some(following) = end.checked_add(1) else { break };
        first = following;
    }
    Ok(found)
}

/// Those of `uids` whose INTERNALDATE is `moment` or later, or cannot be read.
fn received_since(conn: &mut Conn, uids: &[u32], moment: UnixSeconds) -> Result<Vec<u32>> {
    let mut sorted = uids.to_vec();
    sorted.sort_unstable();
    let mut wanted = Vec::new();
    for set in names::uid_sets(&sorted, limits::IMAP_COMMAND_LINE_MAX / 2) {
        conn.bulk(&format!("UID FETCH {set} (UID INTERNALDATE)"), Budget::CONTROL, &mut |frame| {
            if let Some(found) = answer::fetched(&frame.line)
                && sorted.binary_search(&found.uid).is_ok()
                && found.internal_date.as_deref().and_then(internal_date).is_none_or(|at| at >= moment)
            {
                wanted.push(found.uid);
            }
            Ok(())
        })
        .map_err(|failure| failure.into_error("tell when mail was received"))?;
    }
    Ok(wanted)
}

/// `17-Jul-1996 02:44:25 -0700`, the day padded with a space or a zero.
fn internal_date(text: &str) -> Option<UnixSeconds> {
    let format = format_description!(
        "[day padding:none]-[month repr:short]-[year] [hour]:[minute]:[second] [offset_hour sign:mandatory][offset_minute]"
    );
    let text = text.trim();
    let text = text.strip_prefix('0').unwrap_or(text);
    OffsetDateTime::parse(text, format).ok().map(OffsetDateTime::unix_timestamp)
}

fn search_date(date: Date) -> String {
    let format = format_description!("[day padding:none]-[month repr:short]-[year]");
    date.format(format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_dates_of_real_servers_are_read() {
        for (text, expected) in [
            ("17-Jul-1996 02:44:25 -0700", Some(837_596_665)),
            (" 7-Jul-1996 02:44:25 +0000", Some(836_707_465)),
            ("07-Jul-1996 02:44:25 +0000", Some(836_707_465)),
            ("yesterday", None),
        ] {
            assert_eq!(internal_date(text), expected, "{text}");
        }
        assert_eq!(search_date(Date::from_calendar_date(2026, time::Month::March, 4).unwrap()), "4-Mar-2026");
    }

    #[test]
    fn windows_bound_the_answer() {
        let mut open: VecDeque<_> = [(1, 10), (20, 1_000_000)].into();
        assert_eq!(take_window(&mut open, 15), "1:10,20:24");
        assert_eq!(take_window(&mut open, 5), "25:29");
        assert_eq!(open, [(30, 1_000_000)]);
        let mut many: VecDeque<_> = (1..5_000).map(|n| (n * 2, n * 2)).collect();
        assert!(take_window(&mut many, u64::MAX).len() <= limits::IMAP_COMMAND_LINE_MAX / 2);
        let mut whole: VecDeque<_> = [(1, u32::MAX)].into();
        assert_eq!(take_window(&mut whole, u64::from(u32::MAX)), "1:4294967295");
    }
}
