//! Which messages of a folder are not settled yet.

use std::collections::VecDeque;

use time::{Date, Duration, OffsetDateTime};

use super::{
    answer::{self, Fetched},
    ask,
    conn::{Conn, Failure, Selected},
    cursor::{Anchor, Cursor},
    dates::{internal_date, received_since, search_date},
    framer::{Budget, Frame},
    set_back::{TRAITS, is_known, is_set_back, last_uid},
    sets::{self, Ranges},
};
use crate::{
    clock::UnixSeconds,
    error::{About, Result},
    limits,
    message::fingerprint::{Fingerprint, Traits},
    settings::Since,
    transport::{
        self, Covers, Entry, Key, Listing, Raw,
        moving::{Marks, resync_begin},
    },
};

/// How a folder is listed.
#[derive(Clone, Copy)]
pub struct How {
    /// Bounds the entries.
    pub max: usize,
    /// Ask for sizes. The server has to open each message whose size it does not keep, and one that it cannot open ends the
    /// listing of all.
    pub sizes: bool,
}

/// Lists `folder`.
pub fn list(
    conn: &mut Conn,
    folder: &str,
    stored: Option<&Cursor>,
    since: Since,
    now: UnixSeconds,
    how: How,
) -> Result<Listing> {
    let selected = conn.examine(folder)?;
    let last = last_uid(conn, &selected)?;
    let mut reset = None;
    let mut cursor = match stored {
        Some(cursor) if cursor.uidvalidity == selected.uidvalidity && !is_set_back(conn, &selected, cursor, last)? => {
            cursor.clone()
        }
        Some(old) => {
            let (begun, words) = begin_anew(conn, &selected, last, old, now)?;
            reset = Some(words);
            begun
        }
        None => {
            let marks = Marks::new(since, now);
            Cursor { marks, ..baseline(conn, &selected, last, since, now)? }
        }
    };

    cursor.highest = cursor.highest.max(Some(last));
    let is_note_due = now - cursor.resume_at >= limits::NOTE_INTERVAL;
    let (mut found, mut more, suspect) = unsettled(conn, &selected, &cursor, last, how, is_note_due)?;
    // Another message has the UID of one that was settled: new mail got UIDs of old.
    if let Some(suspect) = suspect.filter(|_| reset.is_none())
        && is_known(conn, &cursor, suspect, UnixSeconds::MIN)? == Some(false)
    {
        let (begun, words) = begin_anew(conn, &selected, last, &cursor, now)?;
        (cursor, reset) = (begun, Some(words));
        cursor.highest = Some(last);
        (found, more, _) = unsettled(conn, &selected, &cursor, last, how, false)?;
    }
    if let Some(newest) = found.last().and_then(Found::anchor).filter(|_| !more) {
        cursor.anchor = Some(newest);
    }
    // From the first UID on as many must come as there are. Fewer: the server hides some, and absence means nothing.
    let is_whole = cursor.floor > 0 || !cursor.done.is_empty() || found.len() as u64 >= u64::from(selected.exists);
    if !more && is_whole {
        let existing: Vec<u32> = found.iter().map(|found| found.uid).collect();
        cursor.compact(&existing, limits::IMAP_CURSOR_RANGES);
    }
    // A moment that is still to come was written by a clock that was wrong.
    cursor.resume_at = cursor.resume_at.min(now);
    if is_note_due && now - cursor.resume_at >= limits::NOTE_INTERVAL {
        // A folder that is never without unsettled mail: what is older than the oldest of it is settled.
        let settled_before = match found.is_empty() {
            true => Some(now).filter(|_| is_whole),
            // A new beginning has its moment already.
            false if stored.is_none() || reset.is_some() || more || found.len() > limits::IMAP_NOTE_UIDS => None,
            false => oldest(&found),
        };
        cursor.resume_at = cursor.resume_at.max(settled_before.unwrap_or_default().min(now));
    }
    found.truncate(how.max);
    let entries = found
        .into_iter()
        .map(|found| Entry {
            key: Key { folder: folder.to_owned(), id: cursor.id(found.uid) },
            size: found.size,
            received_at: found.received_at,
        })
        .collect();
    Ok(Listing {
        entries,
        more,
        covers: if more || !is_whole { Covers::Nothing } else { Covers::Uids(1, last.max(1)) },
        cursor: transport::Cursor::Imap(cursor),
        reset,
    })
}

/// The cursor of a folder whose UIDs lost their meaning, and the sentence that tells of it. Mail received since all was settled
/// last is listed again; what was settled of it is known by its fingerprint, copy by copy, and stays settled.
fn begin_anew(
    conn: &mut Conn,
    selected: &Selected,
    last: u32,
    old: &Cursor,
    now: UnixSeconds,
) -> Result<(Cursor, String)> {
    let begin = resync_begin(old.resume_at, now);
    let marks = old.marks.clone();
    let mut cursor = Cursor { marks, ..baseline(conn, selected, last, Since::Moment(begin), now)? };
    let folder = &selected.folder;
    let why = if old.uidvalidity == selected.uidvalidity {
        cursor.epoch = old.epoch.saturating_add(1);
        format!("The server set the folder {folder} back to an earlier state, under the same UIDVALIDITY")
    } else {
        let (was, is) = (old.uidvalidity, selected.uidvalidity);
        format!("The server renumbered the folder {folder} (UIDVALIDITY {was} became {is})")
    };
    let known = recognised(conn, &cursor, last)?;
    for uid in &known {
        cursor.insert(*uid, *uid);
    }
    let words = format!(
        "{why}: mail received since it was last settled is listed again, except {} messages that are known as settled.",
        known.len()
    );
    Ok((cursor, words))
}

/// Open messages that were settled before, by their fingerprints.
fn recognised(conn: &mut Conn, cursor: &Cursor, last: u32) -> Result<Vec<u32>> {
    let settled = cursor.marks.with_moments();
    let open = cursor.open_ranges(last);
    if settled.is_empty() || open.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let uids =
        ask::uids(conn, open).map_err(|failure| failure.into_error("list the folder").or_about(About::Folder))?;
    let mut missing = uids;
    // A message that is there may be left out in silence (RFC 2180 section 4.1.2): it is asked for once more.
    for _ in 0..2 {
        for chunk in missing.chunks(limits::IMAP_GROUP_UIDS) {
            let asked = ask::fetch(conn, sets::ranges(chunk), TRAITS, &mut |one, frame| {
                if let [Raw::Memory(header)] = frame.literals.as_slice() {
                    let received_at = one.internal_date.as_deref().and_then(internal_date);
                    found.push((one.uid, received_at, Traits::of(header)));
                }
                Ok(())
            });
            match asked {
                // Which of them cannot be read is found when they are read.
                Ok(()) | Err(Failure::No(_) | Failure::Bad(_)) => {}
                Err(Failure::Fatal(error)) => return Err(error),
            }
        }
        found.sort_unstable_by_key(|(uid, ..)| *uid);
        found.dedup_by_key(|(uid, ..)| *uid);
        missing.retain(|uid| found.binary_search_by_key(uid, |(uid, ..)| *uid).is_err());
    }
    Ok(known_again(settled, found))
}

/// Which of these were settled, one copy for each copy. `settled` ascends, `found` is in the order of arrival.
///
/// A message that was received after its like was settled is another one with the same Message-ID; except where that is true of
/// most: then the folder was copied, and every date is that of the copy.
fn known_again(
    mut settled: Vec<(Fingerprint, UnixSeconds)>,
    found: Vec<(u32, Option<UnixSeconds>, Traits)>,
) -> Vec<u32> {
    let (mut known, mut late) = (Vec::new(), Vec::new());
    for (uid, received_at, traits) in found {
        let like = traits.candidates().find_map(|candidate| {
            let first = settled.partition_point(|(mark, _)| *mark < candidate);
            settled.get(first).is_some_and(|(mark, _)| *mark == candidate).then_some((candidate, first))
        });
        let Some((mark, first)) = like else { continue };
        let not_before = received_at.map_or(UnixSeconds::MIN, |at| at.saturating_sub(limits::CLOCKS_APART));
        let fitting = settled.partition_point(|one| *one < (mark, not_before));
        match settled.get(fitting).is_some_and(|(one, _)| *one == mark) {
            true => {
                settled.remove(fitting);
                known.push(uid);
            }
            false => {
                settled.remove(first);
                late.push(uid);
            }
        }
    }
    if late.len() > known.len() {
        known.append(&mut late);
        known.sort_unstable();
    }
    known
}

impl Anchor {
    /// Has another message its UID now? A size tells only of a settled one, which is known by its fingerprint then: servers
    /// estimate sizes.
    fn differs(&self, one: &Found, is_settled: bool) -> bool {
        let is_another_size = is_settled && one.size != 0 && self.size != 0 && one.size != self.size;
        one.uid == self.uid && (is_another_size || one.received_at.is_some_and(|at| at != self.received_at))
    }
}

/// When the oldest of these was received; `None`: of one of them it cannot be read.
fn oldest(found: &[Found]) -> Option<UnixSeconds> {
    found.iter().map(|found| found.received_at).reduce(|a, b| a.zip(b).map(|(a, b)| a.min(b))).flatten()
}

/// One message of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    uid: u32,
    /// 0: the server does not tell.
    size: u64,
    received_at: Option<UnixSeconds>,
}

impl Found {
    fn of(fetched: &Fetched) -> Self {
        Self {
            uid: fetched.uid,
            size: fetched.size.map_or(0, u64::from),
            received_at: fetched.internal_date.as_deref().and_then(internal_date),
        }
    }

    fn anchor(&self) -> Option<Anchor> {
        self.received_at.map(|received_at| Anchor { uid: self.uid, received_at, size: self.size })
    }
}

/// What the cursor leaves open, ascending, and whether there is more; and the UID of the anchor, when what has it now looks like
/// another message. The anchor is looked at along with others, and before all counts as settled (`is_note_due`).
fn unsettled(
    conn: &mut Conn,
    selected: &Selected,
    cursor: &Cursor,
    last: u32,
    how: How,
    is_note_due: bool,
) -> Result<(Vec<Found>, bool, Option<u32>)> {
    let mut found: Vec<Found> = Vec::new();
    if selected.exists == 0 {
        return Ok((found, false, None));
    }
    let mut open: VecDeque<(u32, u32)> = cursor.open_ranges(last).into();
    // A settled message that is asked for along with the others costs no round trip.
    let is_settled = cursor.anchor.is_some_and(|anchor| cursor.is_done(anchor.uid));
    let anchor = cursor.anchor.filter(|_| !open.is_empty() || is_note_due);
    if let Some(anchor) = anchor.filter(|_| is_settled && how.sizes) {
        open.push_front((anchor.uid, anchor.uid));
    }
    let (mut suspect, mut is_dated) = (None, how.sizes);
    // No command may be answered by more lines than are accepted. Messages bound an answer, numbers do not: so in a large
    // folder the window grows without bound only when few messages are left above it.
    let narrow = limits::IMAP_RESPONSES_MAX as u64 / 2;
    let mut widest = if u64::from(selected.exists) < narrow { u64::from(u32::MAX) } else { narrow };
    let mut window = limits::IMAP_LISTING_MAX as u64;
    while !open.is_empty() && found.len() < how.max {
        let mut ranges = take_window(&mut open, window);
        ranges.sort_unstable();
        let before = found.len();
        let mut keep = |one: Fetched, _: &mut Frame| {
            // Unsolicited answers, and what `*` in a set drags in.
            let one = Found::of(&one);
            if one.uid <= last && !cursor.is_done(one.uid) {
                found.push(one);
            }
            if anchor.is_some_and(|anchor| anchor.differs(&one, is_settled)) {
                suspect = Some(one.uid);
            }
            Ok(())
        };
        let outcome = match how.sizes {
            true => match ask::fetch(conn, ranges.clone(), "UID RFC822.SIZE INTERNALDATE", &mut keep) {
                // One that cannot be opened refuses the sizes of all. Their UIDs need no message to be opened.
                Err(Failure::No(_) | Failure::Bad(_)) => {
                    is_dated = false;
                    ask::fetch(conn, ranges.clone(), "UID", &mut keep)
                }
                outcome => outcome,
            },
            false => ask::fetch(conn, ranges.clone(), "UID", &mut keep),
        };
        let outcome = match (outcome, ranges.first()) {
            // GNU imap4d 3.15 takes no UID that is not there as the end of a range.
            (Err(Failure::Bad(_)), Some((first, _))) => {
                let to_end = format!("UID FETCH {first}:* (UID RFC822.SIZE INTERNALDATE)");
                let asked = conn.bulk(&to_end, Budget::CONTROL, &mut |frame| match answer::fetched(&frame.line) {
                    Some(found) => keep(found, frame),
                    None => Ok(()),
                });
                open.clear();
                asked.map(drop)
            }
            (outcome, _) => outcome,
        };
        outcome.map_err(|failure| failure.into_error("list the folder").or_about(About::Folder))?;
        if ((found.len() - before) as u64) < window / 16 {
            if window == widest
                && found.len() == before
                && let Some((next, _)) = open.front().copied()
                && few_above(conn, selected, next, narrow)?
            {
                widest = u64::from(u32::MAX);
            }
            window = (window * 4).min(widest);
        }
    }
    if let Some(anchor) = anchor.filter(|_| !is_dated) {
        let asked = ask::fetch(conn, vec![(anchor.uid, anchor.uid)], "UID INTERNALDATE", &mut |one, _| {
            suspect =
                suspect.or(Some(Found::of(&one)).filter(|one| anchor.differs(one, is_settled)).map(|one| one.uid));
            Ok(())
        });
        if let Err(Failure::Fatal(error)) = asked {
            return Err(error);
        }
    }
    // A message may be named twice, once with its size.
    found.sort_unstable_by_key(|found| (found.uid, std::cmp::Reverse(found.size)));
    found.dedup_by_key(|found| found.uid);
    let more = !open.is_empty() || found.len() > how.max;
    Ok((found, more, suspect))
}

/// Do fewer than `few` messages lie from this UID on? Found by the sequence number of the first of them, in about seventeen
/// short questions.
fn few_above(conn: &mut Conn, selected: &Selected, uid: u32, few: u64) -> Result<bool> {
    let (mut low, mut high) = (1, u64::from(selected.exists) + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let mut at = None;
        conn.bulk(&format!("FETCH {middle} (UID)"), Budget::CONTROL, &mut |frame| {
            at = at.or(answer::fetched(&frame.line).map(|found| found.uid));
            Ok(())
        })
        .map_err(|failure| failure.into_error("name a message").or_about(About::Folder))?;
        match at {
            Some(at) if at < uid => low = middle + 1,
            Some(_) => high = middle,
            None => return Ok(false),
        }
    }
    Ok(u64::from(selected.exists) + 1 - low < few)
}

/// Takes ranges that span at most `window` UIDs and fit one command.
fn take_window(open: &mut VecDeque<(u32, u32)>, window: u64) -> Ranges {
    let (mut taken, mut len) = (Vec::new(), 0);
    let mut left = window;
    while left > 0 {
        let Some((first, last)) = open.pop_front() else { break };
        let end = last.min(u64::from(first).saturating_add(left - 1).min(u64::from(u32::MAX)) as u32);
        len += sets::width((first, end));
        if len > sets::TEXT_MAX && !taken.is_empty() {
            open.push_front((first, last));
            break;
        }
        taken.push((first, end));
        left -= u64::from(end - first) + 1;
        if end < last {
            open.push_front((end + 1, last));
        }
    }
    taken
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
        let sure = search(conn, &format!(" SINCE {}", search_date(after)), last, selected.exists)?;
        let near = format!(" SINCE {} BEFORE {}", search_date(before), search_date(after));
        let near = search(conn, &near, last, selected.exists)?;
        wanted = match (sure, near) {
            (Some(mut sure), Some(near)) => {
                sure.extend(received_since(conn, &near, moment)?);
                sure
            }
            // A search without a result is no answer: each message is asked for its date.
            _ => {
                let all = ask::uids(conn, vec![(1, last)])
                    .map_err(|failure| failure.into_error("list the folder").or_about(About::Folder))?;
                received_since(conn, &all, moment)?
            }
        };
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

/// `None`: the server named no result.
fn search(conn: &mut Conn, criteria: &str, last: u32, exists: u32) -> Result<Option<Vec<u32>>> {
    let window = if exists <= limits::IMAP_SEARCH_WINDOW { u32::MAX } else { limits::IMAP_SEARCH_WINDOW };
    let mut found = Vec::new();
    let mut first = 1_u32;
    while first <= last {
        let end = last.min(first.saturating_add(window - 1));
        match ask::search(conn, vec![(first, end)], criteria) {
            Ok(Some(uids)) => found.extend(uids),
            Ok(None) => return Ok(None),
            Err(failure) => return Err(failure.into_error("search by date")),
        }
        let Some(following) = end.checked_add(1) else { break };
        first = following;
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_after_its_like_was_settled_is_another_message() {
        let traits = |id: &str| Traits { message_id: Some(id.to_owned()), ..Traits::default() };
        let mark = |id: &str, at| (traits(id).fingerprint().unwrap(), at);
        let mut settled = vec![mark("<same@a>", 1_000), mark("<1@a>", 1_000), mark("<2@a>", 1_000)];
        settled.sort_unstable();
        let known = |found: &[(u32, i64, &str)]| {
            known_again(settled.clone(), found.iter().map(|(uid, at, id)| (*uid, Some(*at), traits(id))).collect())
        };
        // The settled one is older than what is listed again, or somebody removed it.
        assert_eq!(known(&[(1, 900, "<1@a>"), (2, 950, "<2@a>"), (3, 9_000, "<same@a>")]), [1, 2]);
        assert_eq!(known(&[(1, 900, "<1@a>"), (2, 900, "<same@a>"), (3, 9_000, "<same@a>")]), [1, 2]);
        // Copied without dates.
        assert_eq!(known(&[(1, 9_000, "<1@a>"), (2, 9_000, "<2@a>"), (3, 9_000, "<3@a>")]), [1, 2]);
    }

    #[test]
    fn windows_bound_the_answer() {
        let mut open: VecDeque<_> = [(1, 10), (20, 1_000_000)].into();
        assert_eq!(take_window(&mut open, 15), [(1, 10), (20, 24)]);
        assert_eq!(take_window(&mut open, 5), [(25, 29)]);
        assert_eq!(open, [(30, 1_000_000)]);
        let mut many: VecDeque<_> = (1..5_000).map(|n| (n * 2, n * 2)).collect();
        assert!(take_window(&mut many, u64::MAX).len() <= limits::IMAP_COMMAND_LINE_MAX / 4);
        let mut whole: VecDeque<_> = [(1, u32::MAX)].into();
        assert_eq!(take_window(&mut whole, u64::from(u32::MAX)), [(1, u32::MAX)]);
    }
}
