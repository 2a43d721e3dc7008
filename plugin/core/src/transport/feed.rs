//! What is settled in one folder of a server that tells changes since a position (Graph's delta link, EWS's sync state):
//! the position, and by id what it has passed and the host has not settled yet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Entry, Key,
    moving::{Marks, resync_begin},
};
use crate::{
    clock::UnixSeconds,
    error::{About, Error, Kind, Result},
    limits,
    message::fingerprint::{Fingerprint, Traits},
    settings::Since,
};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Feed {
    /// The whole nextLink, deltaLink or SyncState; `None`: the folder is gone through from its beginning.
    pub position: Option<String>,
    /// While it is gone through for the first time (or again, when the server forgot the position): what was received
    /// before this moment is settled.
    pub begin: Option<UnixSeconds>,
    /// When all was settled last.
    pub resume_at: UnixSeconds,
    /// Listed and not settled: at most `limits::FEED_OPEN_MAX`, beyond which the position stays.
    pub open: BTreeMap<String, Listed>,
    /// Settled lately: an item may be named more than once.
    pub settled: VecDeque<String>,
    /// Left the folder lately before the host had settled it. It may come back under the same id, and
    /// the host may still settle what it was handed.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub left: VecDeque<String>,
    /// While a folder is gone through again: open before, and not named since. What is still here at the
    /// end is not in the folder any more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unseen: BTreeSet<String>,
    /// For whoever takes over from here.
    #[serde(default)]
    pub marks: Marks,
    /// While a folder is gone through again, or taken over: what was settled before (over the former protocol),
    /// ascending by fingerprint. Ids may have changed: a restored mailbox has new ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<Former>,
    /// While a folder is gone through again: something came under the id that it had before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_ids: bool,
}

/// One message that was settled before; of several copies, one for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Former {
    pub fingerprint: Fingerprint,
    /// Which one it is here; `None`: it has not come up yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<(String, Listed)>,
}

/// What a listing says of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    pub received_at: Option<UnixSeconds>,
    /// Bytes; 0 where the server does not tell.
    #[serde(default)]
    pub size: u64,
}

/// What asking for one page came to.
pub enum Page {
    /// Taken in, and there is another.
    More,
    /// Taken in, and it was the last.
    Last,
    /// The server knows the position no more: what to tell of it, and its refusal.
    Forgotten { reset: String, error: Error },
}

/// How far the pages of one call led.
pub struct Walk {
    /// Not to the end.
    pub more: bool,
    pub reset: Option<String>,
}

/// A folder of the settings that Exchange does not have.
pub fn folder_missing(name: &str) -> Error {
    Error::new(Kind::Refused, format!("The mailbox has no folder {name}."))
        .with_about(About::Folder)
        .remedy("Correct the folders under advanced (names are as Outlook shows them), or create the folder.")
}

/// A time as listings write it (RFC 3339).
pub fn moment(text: &str) -> Option<UnixSeconds> {
    OffsetDateTime::parse(text.trim(), &Rfc3339).ok().map(OffsetDateTime::unix_timestamp)
}

impl Feed {
    /// Of a folder that was never fetched.
    pub fn new(since: Since, now: UnixSeconds) -> Self {
        let begin = since.moment(now);
        Self { begin: Some(begin), resume_at: begin, marks: Marks::new(since, now), ..Self::default() }
    }

    pub fn listed(&self, id: &str) -> bool {
        self.open.contains_key(id) || self.left.iter().any(|left| left == id) || self.is_settled(id)
    }

    pub fn is_settled(&self, id: &str) -> bool {
        self.settled.iter().any(|settled| settled == id) || self.former.iter().any(|former| former.is(id))
    }

    /// What a later listing reached, although it could not be stored. The position stays where it was.
    pub fn saw(&mut self, later: &Self) {
        for (id, listed) in &later.open {
            if !self.is_settled(id) {
                self.open.entry(id.clone()).or_insert(*listed);
            }
        }
    }

    /// Was it open until now?
    pub fn settle(&mut self, id: &str) -> bool {
        let was_open = self.open.remove(id).is_some() | self.forget_left(id);
        if was_open {
            self.unseen.remove(id);
            keep(&mut self.settled, id);
        }
        was_open
    }

    /// The server says that it is not in the folder any more. Whoever brings it back brings it back
    /// unsettled.
    pub fn leave(&mut self, id: &str) {
        self.unseen.remove(id);
        if self.open.remove(id).is_some() {
            keep(&mut self.left, id);
        }
    }

    fn forget_left(&mut self, id: &str) -> bool {
        let place = self.left.iter().position(|left| left == id);
        place.and_then(|place| self.left.remove(place)).is_some()
    }

    /// Is this one of those that were settled before? Of several copies the oldest are, in whatever order they are listed.
    pub fn recognise(&mut self, id: &str, listed: Listed, traits: impl FnOnce() -> Traits) -> bool {
        self.see(id);
        if self.former.is_empty() || self.open.contains_key(id) {
            return false;
        }
        let range = |candidate| {
            let begin = self.former.partition_point(|former| former.fingerprint < candidate);
            begin..self.former.partition_point(|former| former.fingerprint <= candidate)
        };
        let Some(copies) = traits().candidates().map(range).find(|copies| !copies.is_empty()) else { return false };
        let copies = &mut self.former[copies];
        if copies.iter().any(|former| former.is(id)) {
            return true;
        }
        let found = Some((id.to_owned(), listed));
        if let Some(free) = copies.iter_mut().find(|former| former.found.is_none()) {
            free.found = found;
            return true;
        }
        // What is known by its id stays settled.
        let received = |former: &Former| {
            let (id, listed) = former.found.as_ref()?;
            listed.received_at.filter(|_| !self.settled.contains(id))
        };
        let newest = copies.iter_mut().max_by_key(|former| received(former));
        match newest.filter(|newest| listed.received_at < received(newest)) {
            Some(newest) => {
                self.open.extend(std::mem::replace(&mut newest.found, found));
                true
            }
            None => false,
        }
    }

    fn see(&mut self, id: &str) {
        self.keeps_ids |= self.unseen.remove(id);
    }

    /// When the oldest of those that are open was received.
    pub fn oldest(&self) -> Option<UnixSeconds> {
        self.open.values().filter_map(|listed| listed.received_at).min()
    }

    /// Page after page from the position on, as far as one call goes. `take` asks for one and takes it in; it is told whether
    /// it is the first of this call.
    ///
    /// # Errors
    /// Of the first page any, and of the first after a restart: nothing is given up before the folder can be
    /// listed anew. Of a later one what no waiting cures.
    pub fn walk(&mut self, now: UnixSeconds, mut take: impl FnMut(&mut Self, bool) -> Result<Page>) -> Result<Walk> {
        let (mut reset, mut is_begun) = (None, false);
        for page in 0..limits::FEED_PAGES_MAX {
            if self.is_full() {
                break;
            }
            let error = match take(self, page == 0) {
                Ok(Page::More) => {
                    is_begun = true;
                    continue;
                }
                Ok(Page::Last) => {
                    self.rest(now);
                    return Ok(Walk { more: false, reset });
                }
                Ok(Page::Forgotten { reset: words, .. }) if reset.is_none() => {
                    self.restart(now);
                    reset = Some(words);
                    is_begun = false;
                    continue;
                }
                Ok(Page::Forgotten { error, .. }) | Err(error) => error,
            };
            if !is_begun || !error.is_transient() {
                return Err(error);
            }
            // What the pages before said is kept; the next listing meets it again.
            break;
        }
        Ok(Walk { more: true, reset })
    }

    fn is_full(&self) -> bool {
        self.open.len() >= limits::FEED_OPEN_MAX
    }

    /// The server names a message of the folder, perhaps again.
    pub fn add(&mut self, id: &str, listed: Listed) {
        self.see(id);
        let old = self.begin.is_some_and(|begin| listed.received_at.is_some_and(|at| at < begin));
        if !old && !self.is_settled(id) {
            self.forget_left(id);
            self.open.insert(id.to_owned(), listed);
        }
    }

    /// The folder has been gone through up to here.
    pub fn reached(&mut self, position: String, is_end: bool) {
        self.position = Some(position);
        if is_end {
            self.begin = None;
            for id in std::mem::take(&mut self.unseen) {
                self.leave(&id);
            }
            self.know_again();
        }
    }

    /// What looks like a message that was settled is that one under a new id. Where ids were kept and all that were
    /// settled are known, it is another one: two mails may share a Message-ID.
    fn know_again(&mut self) {
        let found: Vec<_> = self.former.drain(..).filter_map(|former| former.found).collect();
        let keeps_ids = self.keeps_ids || found.iter().any(|(id, _)| self.settled.contains(id));
        let is_all_known = self.settled.len() < limits::FEED_SETTLED_MAX;
        for (id, listed) in found {
            match self.settled.contains(&id) {
                true => {}
                false if keeps_ids && is_all_known => drop(self.open.insert(id, listed)),
                false => self.settled.push_back(id),
            }
        }
        self.keeps_ids = false;
    }

    /// The server forgot the position: what came since all was settled last is listed again, and compared with what
    /// was settled: by id, and by fingerprint where the ids are new ones. A folder that was still gone through for
    /// the first time keeps its own beginning.
    pub fn restart(&mut self, now: UnixSeconds) {
        let begin = resync_begin(self.resume_at, now);
        self.begin = Some(self.begin.unwrap_or(begin));
        self.position = None;
        self.unseen = self.open.keys().cloned().collect();
        self.keeps_ids = false;
        if self.former.is_empty() {
            let known = self.marks.all();
            self.former = known.into_iter().map(|fingerprint| Former { fingerprint, found: None }).collect();
        }
    }

    /// All is listed: what is older than the oldest that is left is settled. Noted now and then only, because each note is a
    /// durable write.
    fn rest(&mut self, now: UnixSeconds) {
        self.resume_at = self.resume_at.min(now);
        if now - self.resume_at >= limits::NOTE_INTERVAL {
            let settled_before = if self.open.is_empty() { Some(now) } else { self.oldest() };
            self.resume_at = self.resume_at.max(settled_before.unwrap_or_default().min(now));
        }
    }

    /// What is left to settle, oldest first.
    pub fn entries(&self, folder: &str) -> Vec<Entry> {
        let entry = |(id, listed): (&String, &Listed)| Entry {
            key: Key { folder: folder.to_owned(), id: id.clone() },
            size: listed.size,
            received_at: listed.received_at,
        };
        let mut entries: Vec<Entry> = self.open.iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.received_at);
        entries
    }
}

/// The newest are enough: as many as one call can settle.
fn keep(ids: &mut VecDeque<String>, id: &str) {
    ids.push_back(id.to_owned());
    while ids.len() > limits::FEED_SETTLED_MAX {
        ids.pop_front();
    }
}

impl Former {
    fn is(&self, id: &str) -> bool {
        self.found.as_ref().is_some_and(|(found, _)| found == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = 1_800_000_000;

    fn error(kind: Kind) -> Error {
        Error::new(kind, "The server had enough.")
    }

    fn page(feed: &mut Feed, id: &str) -> Result<Page> {
        feed.add(id, Listed { received_at: Some(NOW), size: 0 });
        feed.reached(format!("after {id}"), false);
        Ok(Page::More)
    }

    #[test]
    fn what_earlier_pages_said_is_kept_when_a_later_one_fails() {
        for (kind, is_kept) in [(Kind::Transient, true), (Kind::Throttled, true), (Kind::ServerMisbehaved, false)] {
            let mut feed = Feed::new(Since::Everything, NOW);
            let mut asked = 0;
            let walk = feed.walk(NOW, |feed, is_first| {
                asked += 1;
                assert_eq!(is_first, asked == 1);
                if is_first { page(feed, "one") } else { Err(error(kind)) }
            });
            assert_eq!((walk.is_ok_and(|walk| walk.more), asked), (is_kept, 2), "{kind:?}");
            let first = Feed::new(Since::Everything, NOW).walk(NOW, |_, _| Err(error(kind)));
            assert!(first.is_err(), "{kind:?}: nothing was said yet");
        }
    }

    #[test]
    fn a_position_that_is_forgotten_is_begun_anew_once() {
        let forgotten = || Page::Forgotten { reset: "It forgot.".to_owned(), error: error(Kind::ServerMisbehaved) };
        let mut feed = Feed { position: Some("old".to_owned()), ..Feed::new(Since::Everything, NOW) };
        let walk = feed.walk(NOW, |feed, is_first| {
            if is_first {
                return Ok(forgotten());
            }
            assert_eq!(feed.position, None);
            feed.reached("new".to_owned(), true);
            Ok(Page::Last)
        });
        assert!(walk.is_ok_and(|walk| !walk.more && walk.reset.is_some_and(|reset| reset == "It forgot.")));
        assert!(Feed::new(Since::Everything, NOW).walk(NOW, |_, _| Ok(forgotten())).is_err());
    }

    /// A mail that shares its Message-ID with a settled one came while the position was forgotten.
    #[test]
    fn a_second_mail_of_one_message_id_is_told_by_its_id_where_ids_are_kept() {
        let listed = Listed { received_at: Some(NOW), size: 0 };
        let traits = || Traits { message_id: Some("<same@a>".into()), ..Traits::default() };
        for (named, is_new) in [("open", true), ("other", false)] {
            let mut feed = Feed::new(Since::Everything, NOW);
            feed.add("first", listed);
            feed.add("open", listed);
            feed.reached("end".into(), true);
            assert!(feed.settle("first"));
            feed.marks.add(NOW, traits().fingerprint().into_iter().collect());
            feed.restart(NOW);
            for (id, traits) in [("second", traits()), (named, Traits::default())] {
                if !feed.recognise(id, listed, || traits) {
                    feed.add(id, listed);
                }
            }
            feed.reached("end".into(), true);
            assert_eq!(feed.open.contains_key("second"), is_new, "{named}");
            assert!(feed.is_settled("first") && feed.open.contains_key(named));
        }
    }
}
