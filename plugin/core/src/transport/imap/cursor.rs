//! What is settled in one folder: UIDs below a floor, and ranges above it.

use serde::{Deserialize, Serialize};

use super::sets::{self, Ranges};
use crate::{clock::UnixSeconds, limits, transport::moving::Marks};

/// Settled messages of one folder under one UIDVALIDITY.
///
/// When the server changes UIDVALIDITY (a restored backup, a recreated folder), all UIDs lose their meaning. The folder
/// is then taken as if it was new, with mail received since `resume_at`: the last moment at which nothing was left to
/// settle. Mail that came meanwhile is found; years of settled mail are not replayed. The few messages between are
/// listed a second time under new keys; their Message-ID tells the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    pub uidvalidity: u64,
    /// How often the folder began anew under this UIDVALIDITY: a server that was set back to an earlier state gives the same
    /// UIDs to other messages. Part of the key, so that a new message never has the key of an old one.
    #[serde(default)]
    pub epoch: u32,
    /// Every UID up to this one is settled.
    pub floor: u32,
    /// Settled ranges above the floor, ascending, apart from each other.
    pub done: Vec<(u32, u32)>,
    /// Everything received before this moment is settled.
    pub resume_at: UnixSeconds,
    /// The highest UID that was listed: what lies above it was never handed out. `None` in records of older versions.
    #[serde(default)]
    pub highest: Option<u32>,
    /// The newest message that was listed: as long as it has its UID, the UIDs mean what they meant.
    #[serde(default)]
    pub anchor: Option<Anchor>,
    /// UIDs that were copied to the target of a move: ranges, ascending, apart from each other. The newest are kept: no copy is
    /// made twice, also of a message that could not be removed from here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copied: Vec<(u32, u32)>,
    /// Fingerprints of what was settled: after a reset, and for whoever takes over from here.
    #[serde(default)]
    pub marks: Marks,
}

/// By what a listing knows one message again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    pub uid: u32,
    /// INTERNALDATE.
    pub received_at: UnixSeconds,
    pub size: u64,
}

impl Cursor {
    pub fn new(uidvalidity: u64, floor: u32, resume_at: UnixSeconds) -> Self {
        Self {
            uidvalidity,
            epoch: 0,
            floor,
            done: Vec::new(),
            resume_at,
            highest: None,
            anchor: None,
            copied: Vec::new(),
            marks: Marks::default(),
        }
    }

    /// The id of a message's key.
    pub fn id(&self, uid: u32) -> String {
        match self.epoch {
            0 => id(self.uidvalidity, uid),
            epoch => format!("{}-{epoch}.{uid}", self.uidvalidity),
        }
    }

    /// Does this id belong to the folder as it is numbered now?
    pub fn is_current(&self, id: &str) -> bool {
        parse(id).is_some_and(|id| (id.uidvalidity, id.epoch) == (self.uidvalidity, self.epoch))
    }

    /// The UID of a current id.
    fn current_uid(&self, id: &str) -> Option<u32> {
        parse(id).filter(|id| (id.uidvalidity, id.epoch) == (self.uidvalidity, self.epoch)).map(|id| id.uid)
    }

    /// Counts a message as settled. `id` is the key's id, `UIDVALIDITY.UID`; one of another UIDVALIDITY is ignored.
    /// Returns whether something changed. `is_known_again`: by its fingerprint; what is not cannot be the anchor.
    pub fn settle(&mut self, id: &str, is_known_again: bool) -> bool {
        match self.current_uid(id) {
            Some(uid) if !self.is_done(uid) && self.listed(id) => {
                self.insert(uid, uid);
                self.anchor = self.anchor.filter(|anchor| is_known_again || anchor.uid != uid);
                true
            }
            _ => false,
        }
    }

    /// May this key have been handed out? One of another UIDVALIDITY may, before the folder was renumbered.
    pub fn listed(&self, id: &str) -> bool {
        parse(id)
            .is_some_and(|_| self.current_uid(id).is_none_or(|uid| self.highest.is_none_or(|highest| uid <= highest)))
    }

    /// What a later listing of the same folder reached, although it could not be stored.
    pub fn saw(&mut self, later: &Self) {
        if (self.uidvalidity, self.epoch) == (later.uidvalidity, later.epoch) && self.highest.is_some() {
            self.highest = self.highest.max(later.highest);
        }
    }

    /// Notes that a message was copied to the target of a move: no copy is made twice.
    pub fn copied(&mut self, id: &str) {
        let Some(uid) = self.current_uid(id) else { return };
        insert(&mut self.copied, uid, uid);
        if self.copied.len() > limits::IMAP_COPIED_RANGES {
            self.copied.remove(0);
        }
    }

    pub fn is_copied(&self, id: &str) -> bool {
        self.current_uid(id).is_some_and(|uid| sets::contains(&self.copied, uid))
    }

    pub fn is_settled(&self, id: &str) -> bool {
        self.current_uid(id).is_some_and(|uid| self.is_done(uid))
    }

    pub fn is_done(&self, uid: u32) -> bool {
        if uid <= self.floor {
            return true;
        }
        sets::contains(&self.done, uid)
    }

    /// Counts all from `first` to `last` as settled.
    pub fn insert(&mut self, first: u32, last: u32) {
        if last <= self.floor || first > last {
            return;
        }
        insert(&mut self.done, first.max(self.floor.saturating_add(1)), last);
        if self.done[0].0 == self.floor.saturating_add(1) {
            self.floor = self.done.remove(0).1;
        }
    }

    /// The unsettled ranges up to and including `up_to`, ascending.
    pub fn open_ranges(&self, up_to: u32) -> Vec<(u32, u32)> {
        let mut open = Vec::with_capacity(self.done.len() + 1);
        let mut next = u64::from(self.floor) + 1;
        for &(first, last) in &self.done {
            if u64::from(first) > next {
                open.push((next as u32, first - 1));
            }
            next = u64::from(last) + 1;
        }
        if next <= u64::from(up_to) {
            open.push((next as u32, up_to));
        }
        open.retain(|(first, _)| *first <= up_to);
        for range in &mut open {
            range.1 = range.1.min(up_to);
        }
        open
    }

    /// Closes the lowest gaps that hold none of `existing` (ascending: what the server just listed), until at most
    /// `max` ranges are left. A UID never comes back (RFC 3501 section 2.3.1.1), but a server may forget to answer:
    /// so gaps are only closed when they are many, the oldest first.
    pub fn compact(&mut self, existing: &[u32], max: usize) {
        let mut at = 0;
        while self.done.len() > max && at < self.done.len() {
            let (gap_first, gap_last) = match at {
                0 => (self.floor + 1, self.done[0].0 - 1),
                _ => (self.done[at - 1].1 + 1, self.done[at].0 - 1),
            };
            let from = existing.partition_point(|uid| *uid < gap_first);
            if existing.get(from).is_some_and(|uid| *uid <= gap_last) {
                at += 1;
            } else {
                self.insert(gap_first, gap_last);
            }
        }
    }
}

/// Everything that touches the new range is replaced by the union.
fn insert(ranges: &mut Ranges, mut first: u32, mut last: u32) {
    let begin = ranges.partition_point(|(_, end)| end.saturating_add(1) < first);
    let end = ranges.partition_point(|(start, _)| *start <= last.saturating_add(1));
    if begin < end {
        first = first.min(ranges[begin].0);
        last = last.max(ranges[end - 1].1);
    }
    ranges.splice(begin..end, [(first, last)]);
}

/// The id of a key of a folder that never began anew under its UIDVALIDITY.
pub fn id(uidvalidity: u64, uid: u32) -> String {
    format!("{uidvalidity}.{uid}")
}

/// The UID in a key's id.
pub fn uid_of(id: &str) -> Option<u32> {
    parse(id).map(|id| id.uid)
}

/// What a key's id says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    pub uidvalidity: u64,
    pub epoch: u32,
    pub uid: u32,
}

/// `UIDVALIDITY.UID`, or `UIDVALIDITY-EPOCH.UID`.
pub fn parse(id: &str) -> Option<Id> {
    let (folder, uid) = id.split_once('.')?;
    let (uidvalidity, epoch) = match folder.split_once('-') {
        Some((uidvalidity, epoch)) => (uidvalidity, epoch.parse().ok().filter(|epoch| *epoch != 0)?),
        None => (folder, 0),
    };
    Some(Id { uidvalidity: uidvalidity.parse().ok()?, epoch, uid: uid.parse().ok().filter(|uid| *uid != 0)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settling_in_any_order_ends_at_one_floor() {
        let mut cursor = Cursor::new(7, 10, 0);
        for uid in [15, 12, 11, 14, 13, 13, 4] {
            cursor.settle(&id(7, uid), true);
        }
        assert_eq!((cursor.floor, cursor.done.len()), (15, 0));
        assert!(!cursor.settle(&id(8, 99), true) && !cursor.settle("x", true) && !cursor.settle("7.0", true));
    }

    #[test]
    fn what_was_never_listed_cannot_be_settled() {
        let mut cursor = Cursor { highest: Some(12), ..Cursor::new(7, 10, 0) };
        assert!(!cursor.settle(&id(7, 13), true) && !cursor.listed(&id(7, 13)) && !cursor.listed("x"));
        assert!(cursor.settle(&id(7, 12), true) && cursor.listed(&id(6, 99)));
    }

    #[test]
    fn an_epoch_keeps_new_messages_apart_from_old_ones() {
        let mut cursor = Cursor { epoch: 2, highest: Some(20), ..Cursor::new(7, 10, 0) };
        assert_eq!(cursor.id(12), "7-2.12");
        assert_eq!(parse("7-2.12"), Some(Id { uidvalidity: 7, epoch: 2, uid: 12 }));
        assert!(parse("7-0.12").is_none() && parse("7-.12").is_none() && parse("-1.12").is_none());
        // Handed out before, and a message that is not there any more.
        assert!(
            cursor.listed("7.99") && !cursor.is_current("7.99") && !cursor.settle("7.12", true) && !cursor.is_done(12)
        );
        assert!(cursor.settle("7-2.12", true) && cursor.is_settled("7-2.12") && !cursor.is_settled("7.12"));
        let old: Cursor = serde_json::from_str(r#"{"uidvalidity":7,"floor":1,"done":[],"resume_at":0}"#).unwrap();
        assert_eq!((old.epoch, old.id(3).as_str()), (0, "7.3"));
    }

    #[test]
    fn copies_are_noted_and_notes_are_bounded() {
        let mut cursor = Cursor::new(7, 10, 0);
        cursor.copied(&id(7, 12));
        cursor.copied(&id(7, 11));
        cursor.copied(&id(6, 13));
        assert!(cursor.is_copied("7.11") && cursor.is_copied("7.12") && !cursor.is_copied("6.13"));
        cursor.settle("7.12", true);
        assert_eq!(cursor.copied, [(11, 12)], "one that could not be removed may be settled again");
        (1..=limits::IMAP_COPIED_RANGES as u32).for_each(|uid| cursor.copied(&id(7, 100 + 2 * uid)));
        assert!(cursor.copied.len() == limits::IMAP_COPIED_RANGES && !cursor.is_copied("7.11"));
    }

    #[test]
    fn a_message_between_settled_ones_stays_open() {
        let mut cursor = Cursor::new(7, 10, 0);
        cursor.insert(12, 13);
        cursor.insert(15, 20);
        assert_eq!(cursor.open_ranges(25), [(11, 11), (14, 14), (21, 25)]);
        assert_eq!(cursor.open_ranges(13), [(11, 11)]);
        assert!(cursor.is_done(10) && !cursor.is_done(11) && cursor.is_done(12) && !cursor.is_done(21));
        cursor.insert(13, 16);
        assert_eq!(cursor.done, [(12, 20)]);
        cursor.insert(1, u32::MAX);
        assert_eq!((cursor.floor, cursor.open_ranges(u32::MAX).len()), (u32::MAX, 0));
    }

    #[test]
    fn gaps_are_closed_only_where_nothing_was_listed() {
        let mut cursor = Cursor::new(7, 0, 0);
        for uid in (2..=20).step_by(2) {
            cursor.insert(uid, uid);
        }
        cursor.compact(&[3, 9], 4);
        assert!(!cursor.is_done(3) && !cursor.is_done(9) && cursor.is_done(5));
        assert!(cursor.done.len() <= 4);
        let mut full = Cursor::new(7, 0, 0);
        for uid in (2..=20).step_by(2) {
            full.insert(uid, uid);
        }
        full.compact(&(1..20).step_by(2).collect::<Vec<_>>(), 2);
        assert_eq!(full.done.len(), 10);
    }
}
