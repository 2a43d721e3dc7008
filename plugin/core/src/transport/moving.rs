//! Moving house: a mailbox goes on over another protocol, under which every message has another key.
//!
//! Every settled message that stays in its folder leaves a fingerprint in the folder's cursor, for as long as a new beginning
//! could meet it ([`Marks`]). Taking over makes a [`Feed`] that begins where the old cursor may have left something open, and
//! passes over what it knows by its fingerprint: as many copies as were settled, the oldest, so that the second copy of a
//! mailing list's mail still comes. The old cursor is replaced by the new one in one write, before anything is handed out.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Cursor,
    feed::{self, Feed},
};
use crate::{
    clock::UnixSeconds,
    error::{Error, Kind, Result},
    limits,
    message::fingerprint::Fingerprint,
    settings::{Former, Since},
};

/// The fingerprints of what was settled lately.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Marks {
    /// What was received before this moment was never wanted.
    pub since: UnixSeconds,
    /// What was settled from this moment on is all here; `None` in records of versions that kept none.
    pub complete_from: Option<UnixSeconds>,
    /// By the moment of settling, ascending. A message was received before it was settled.
    lately: VecDeque<(UnixSeconds, Vec<Fingerprint>)>,
}

impl Marks {
    /// Of a folder that was never fetched.
    pub fn new(since: Since, now: UnixSeconds) -> Self {
        Self { since: since.moment(now), complete_from: Some(0), lately: VecDeque::new() }
    }

    /// The newest are kept, whenever they were settled: after a reset with wrong dates an old message is listed again, too.
    pub fn add(&mut self, now: UnixSeconds, marks: Vec<Fingerprint>) {
        self.complete_from.get_or_insert(now);
        if !marks.is_empty() {
            match self.lately.back_mut() {
                Some((at, last)) if *at >= now => last.extend(marks),
                _ => self.lately.push_back((now, marks)),
            }
        }
        let mut count: usize = self.lately.iter().map(|(_, marks)| marks.len()).sum();
        while count > limits::FINGERPRINTS_MAX
            && self.lately.len() > 1
            && let Some((at, dropped)) = self.lately.pop_front()
        {
            count -= dropped.len();
            self.complete_from = self.complete_from.max(Some(at + 1));
        }
    }

    /// A message that was received from this moment on is among them, if it was settled.
    pub(super) fn kept_from(&self) -> UnixSeconds {
        self.complete_from.map_or(UnixSeconds::MAX, |complete_from| complete_from.max(self.since))
    }

    /// Each with the moment of its settling, ascending.
    pub(super) fn with_moments(&self) -> Vec<(Fingerprint, UnixSeconds)> {
        let of = |(at, marks): &(UnixSeconds, Vec<Fingerprint>)| {
            let at = *at;
            marks.iter().map(move |mark| (*mark, at)).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = self.lately.iter().flat_map(of).collect();
        all.sort_unstable();
        all
    }

    /// Ascending.
    pub(super) fn all(&self) -> Vec<Fingerprint> {
        let mut all: Vec<_> = self.lately.iter().flat_map(|(_, marks)| marks.iter().copied()).collect();
        all.sort_unstable();
        all
    }
}

/// From when on mail is listed again, after a server lost what a cursor stands for. `resume_at`: when all was settled last.
pub fn resync_begin(resume_at: UnixSeconds, now: UnixSeconds) -> UnixSeconds {
    match resume_at > now {
        // A moment that is still to come was written by a clock that was wrong. How long ago, nobody can tell.
        true => now.saturating_sub(limits::RESYNC_CLOCK),
        false => resume_at.saturating_sub(limits::RESYNC_MARGIN),
    }
}

/// Goes on from the cursor of another protocol, and the sentence that tells of it.
///
/// # Errors
/// `Settings` unless `told` names the protocol that the cursor belongs to.
pub fn take_over(folder: &str, old: &Cursor, told: Option<Former>, to: &str) -> Result<(Feed, String)> {
    let (former, marks, resume_at, begin, oldest) = match old {
        Cursor::Imap(cursor) => (Some(Former::Imap), &cursor.marks, cursor.resume_at, None, None),
        Cursor::Ews(feed) => (Some(Former::Ews), &feed.marks, feed.resume_at, feed.begin, feed.oldest()),
        Cursor::Graph(feed) => (None, &feed.marks, feed.resume_at, feed.begin, feed.oldest()),
    };
    let Some(former) = former else { return Err(super::other_protocol(folder)) };
    if told != Some(former) {
        let name = former.label();
        return Err(Error::new(Kind::Settings, format!("{folder} was fetched over {name} before.")).remedy(format!(
            "Choose {} as Moved From under advanced, and what was imported over {name} is not imported again; or \
                 choose {name} as the connection protocol as before.",
            name.to_lowercase()
        )));
    }
    // As after a forgotten position; and what was listed and is still open may be older.
    let usual = resume_at.saturating_sub(limits::RESYNC_MARGIN).max(marks.since);
    let begin = begin.unwrap_or(usual).min(oldest.unwrap_or(UnixSeconds::MAX));
    let mut words = format!(
        "{folder} goes on over {to} where {} stopped: mail received since {} is listed, and what was settled is passed \
         over.",
        former.label(),
        shown(begin)
    );
    let complete_from = marks.complete_from.unwrap_or(UnixSeconds::MAX);
    if complete_from > begin {
        words
            .push_str(" Not all of it is known any more: some of it may come a second time, with the same Message-ID.");
    }
    let former = marks.all().into_iter().map(|fingerprint| feed::Former { fingerprint, found: None }).collect();
    let feed = Feed { begin: Some(begin), resume_at, former, marks: marks.clone(), ..Feed::default() };
    Ok((feed, words))
}

fn shown(moment: UnixSeconds) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(moment).ok();
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_else(|| "the beginning".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        message::fingerprint::Traits,
        transport::{Key, feed::Listed, imap},
    };

    fn traits(id: &str) -> Traits {
        Traits { message_id: Some(id.to_owned()), ..Traits::default() }
    }

    fn mark(id: &str) -> Option<Fingerprint> {
        traits(id).fingerprint()
    }

    fn at(received_at: UnixSeconds) -> Listed {
        Listed { received_at: Some(received_at), size: 0 }
    }

    /// What the new protocol lists: id, Message-ID, received.
    fn walk(feed: &mut Feed, listed: &[(&str, &str, UnixSeconds)]) -> Vec<String> {
        for (id, message_id, received_at) in listed {
            let listed = at(*received_at);
            if !feed.recognise(id, listed, || traits(message_id)) {
                feed.add(id, listed);
            }
        }
        feed.open.keys().cloned().collect()
    }

    fn imap_cursor() -> Cursor {
        let mut cursor = imap::Cursor::new(7, 0, 100_000);
        cursor.marks = Marks::new(Since::Moment(1_000), 0);
        Cursor::Imap(cursor)
    }

    #[test]
    fn what_was_settled_over_imap_is_passed_over_copy_by_copy() {
        let mut old = imap_cursor();
        let key = |uid: u32| Key { folder: "INBOX".into(), id: format!("7.{uid}") };
        old.settle(&[(key(1), mark("<1@a>")), (key(2), mark("<list@a>")), (key(3), None)], 101_000);
        // Repeated, it leaves nothing more.
        old.settle(&[(key(2), mark("<list@a>"))], 101_001);
        let (mut feed, words) = take_over("INBOX", &old, Some(Former::Imap), "Microsoft Graph").unwrap();
        assert!(words.contains("IMAP") && !words.contains("second time"), "{words}");
        assert_eq!(feed.begin, Some(100_000 - limits::RESYNC_MARGIN));
        let open = walk(
            &mut feed,
            &[
                ("A", "1@a", 100_500),
                ("old", "<old@a>", 5),
                ("B", "<list@a>", 100_500),
                ("C", "<list@a>", 100_600),
                ("D", "<new@a>", 100_700),
            ],
        );
        assert_eq!(open, ["C", "D"]);
        // It dies here and goes on from what was written; a page comes again.
        let bytes = serde_json::to_vec(&Cursor::Graph(feed)).unwrap();
        let Cursor::Graph(mut feed) = serde_json::from_slice(&bytes).unwrap() else { panic!("another protocol") };
        assert_eq!(walk(&mut feed, &[("A", "1@a", 100_500), ("C", "<list@a>", 100_600)]), ["C", "D"]);
        assert!(feed.is_settled("B") && !feed.is_settled("C"));
        feed.reached("end".into(), true);
        assert!(feed.former.is_empty() && feed.begin.is_none() && feed.is_settled("B"));

        // Listed with the newest first, it is the same.
        let (mut feed, _) = take_over("INBOX", &old, Some(Former::Imap), "EWS").unwrap();
        assert_eq!(walk(&mut feed, &[("C", "<list@a>", 100_600), ("B", "<list@a>", 100_500)]), ["C"]);
    }

    #[test]
    fn what_is_open_is_old_enough_to_be_listed() {
        let mut ews = Feed { resume_at: 100_000, ..Feed::new(Since::Moment(2_000), 0) };
        ews.begin = None;
        ews.add("x", at(3_000));
        let (feed, _) = take_over("INBOX", &Cursor::Ews(ews.clone()), Some(Former::Ews), "Microsoft Graph").unwrap();
        assert_eq!(feed.begin, Some(3_000));
        // Still gone through for the first time: its own beginning.
        ews.begin = Some(2_000);
        let (feed, _) = take_over("INBOX", &Cursor::Ews(ews), Some(Former::Ews), "Microsoft Graph").unwrap();
        assert_eq!(feed.begin, Some(2_000));
        // Just set up: what lay there before was never wanted.
        let fresh = Feed { begin: None, ..Feed::new(Since::Now, 50_000) };
        let (feed, _) = take_over("INBOX", &Cursor::Ews(fresh), Some(Former::Ews), "Microsoft Graph").unwrap();
        assert_eq!(feed.begin, Some(50_000));
    }

    #[test]
    fn nobody_moves_without_saying_from_where() {
        for told in [None, Some(Former::Ews)] {
            let error = take_over("INBOX", &imap_cursor(), told, "Microsoft Graph").unwrap_err();
            assert_eq!(error.kind(), Kind::Settings);
            let words = error.to_string();
            assert!(words.contains("IMAP") && words.contains("Moved From") && words.contains("imap"), "{words}");
        }
    }

    #[test]
    fn marks_are_bounded_and_say_when_they_are_not_all() {
        let mut marks = Marks::default();
        marks.add(500, vec![1]);
        assert_eq!(marks.complete_from, Some(500), "an older version kept none");
        let mut marks = Marks::new(Since::Everything, 0);
        for now in 0..20 {
            marks.add(now, vec![now as u64; limits::FINGERPRINTS_MAX / 10]);
        }
        assert!(marks.all().len() <= limits::FINGERPRINTS_MAX);
        assert_eq!(marks.complete_from, Some(10));
        let mut cursor = imap::Cursor::new(7, 0, 0);
        cursor.marks = Marks { complete_from: None, ..marks };
        let (_, words) = take_over("INBOX", &Cursor::Imap(cursor), Some(Former::Imap), "Microsoft Graph").unwrap();
        assert!(words.contains("second time"), "{words}");
    }
}
