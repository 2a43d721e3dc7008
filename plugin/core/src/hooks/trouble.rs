//! A message that could not be read: its own fault, or the server's?
//!
//! Blame needs a witness: whatever failed and whatever the server said of it, a failure counts against a message only in a
//! round in which another message of the mailbox could be read. A server in trouble blames every message by its name, too.
//! What this machine lacks counts against nothing.
//!
//! Several in a row end the round, with their error when nothing could be read at all. Messages that made trouble come
//! last; and after one at the beginning of a round the newest is tried, so that a few broken messages do not hide the rest.

use std::collections::VecDeque;

use crate::{
    limits,
    transport::{Entry, Key},
};

/// One message that could not be read.
#[derive(Clone)]
pub struct Failure {
    pub entry: Entry,
    /// A sentence.
    pub why: String,
    /// It may pass by itself.
    pub is_passing: bool,
}

/// What a handle remembers of it.
#[derive(Default)]
pub struct Trouble {
    /// Another message was read in this round.
    has_read: bool,
    /// Failures since then.
    in_a_row: usize,
    /// Of this round, not counted yet.
    open: Vec<Failure>,
    /// Of this round and those before, the latest last.
    met: VecDeque<Key>,
}

impl Trouble {
    pub fn begin_round(&mut self) {
        self.has_read = false;
        self.in_a_row = 0;
        self.open.clear();
    }

    /// A message was read. Those that could not be are to be counted now.
    pub fn read(&mut self, key: &Key) -> Vec<Failure> {
        self.has_read = true;
        self.in_a_row = 0;
        self.forget(key);
        std::mem::take(&mut self.open)
    }

    /// A message could not be read. Is it to be counted?
    pub fn counts(&mut self, failure: &Failure) -> bool {
        self.met(&failure.entry.key);
        if !self.has_read {
            self.open.push(failure.clone());
        }
        self.has_read
    }

    /// A message could not be read, through no fault of the message or the server.
    pub fn met(&mut self, key: &Key) {
        self.in_a_row += 1;
        self.forget(key);
        self.met.push_back(key.clone());
        if self.met.len() > limits::TROUBLED_MAX {
            self.met.pop_front();
        }
    }

    pub fn has_read(&self) -> bool {
        self.has_read
    }

    /// It is the server: the round is at its end.
    pub fn is_too_much(&self) -> bool {
        self.in_a_row >= limits::UNREAD_IN_A_ROW
    }

    /// Those that made trouble come last, in the order in which they did.
    pub fn sort(&self, entries: &mut [Entry]) {
        if self.met.is_empty() {
            return;
        }
        let rank = |entry: &Entry| self.met.iter().position(|met| *met == entry.key).map_or(0, |at| at + 1);
        entries.sort_by_cached_key(rank);
        if !self.has_read && self.in_a_row % 2 == 1 {
            let well = entries.iter().take_while(|entry| rank(entry) == 0).count();
            entries[..well].reverse();
        }
    }

    /// It was read, or put aside.
    pub fn forget(&mut self, key: &Key) {
        self.met.retain(|met| met != key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: usize) -> Entry {
        Entry { key: Key { folder: "INBOX".to_owned(), id: id.to_string() }, size: 1, received_at: None }
    }

    fn cut(id: usize) -> Failure {
        Failure { entry: entry(id), why: "cut".to_owned(), is_passing: true }
    }

    fn ids(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.key.id.as_str()).collect()
    }

    #[test]
    fn it_counts_once_another_is_read_before_or_after() {
        let mut trouble = Trouble::default();
        trouble.begin_round();
        assert!(!trouble.counts(&cut(1)));
        assert_eq!(trouble.read(&entry(2).key).len(), 1);
        assert!(trouble.read(&entry(3).key).is_empty(), "once");
        assert!(trouble.counts(&cut(4)));
        trouble.begin_round();
        assert!(!trouble.counts(&cut(1)), "in this round nothing was read");
    }

    /// What a round tries, when only messages from `well` on can be read.
    fn round(trouble: &mut Trouble, well: usize) -> String {
        let mut tried = Vec::new();
        let mut left: Vec<Entry> = (0..7).map(entry).collect();
        trouble.begin_round();
        trouble.sort(&mut left);
        while !trouble.is_too_much() && !left.is_empty() {
            let one = left.remove(0);
            tried.push(one.key.id.clone());
            if one.key.id.parse::<usize>().unwrap() >= well {
                trouble.read(&one.key);
            } else {
                trouble.counts(&Failure { entry: one, why: "cut".to_owned(), is_passing: true });
                // The connection ended: listed anew.
                left.sort_by_key(|entry| entry.key.id.clone());
                trouble.sort(&mut left);
            }
        }
        tried.join(" ")
    }

    #[test]
    fn a_server_that_gives_out_nothing_is_given_up_and_every_message_gets_its_turn() {
        let mut trouble = Trouble::default();
        assert_eq!(round(&mut trouble, 99), "0 6 1");
        assert_eq!(round(&mut trouble, 99), "2 5 3");
        assert_eq!(round(&mut trouble, 99), "4 0 6");
        assert!(!trouble.has_read());
    }

    #[test]
    fn old_messages_that_cannot_be_read_hide_no_new_ones() {
        let mut trouble = Trouble::default();
        assert_eq!(round(&mut trouble, 4), "0 6 5 4 3 1 2");
        assert_eq!(round(&mut trouble, 4), "4 5 6 0 3 1");
    }

    #[test]
    fn what_made_trouble_comes_last_until_it_is_read() {
        let mut trouble = Trouble::default();
        trouble.counts(&cut(1));
        trouble.counts(&cut(0));
        let mut plan: Vec<Entry> = (0..4).map(entry).collect();
        trouble.sort(&mut plan);
        assert_eq!(ids(&plan), ["2", "3", "1", "0"]);
        trouble.read(&entry(1).key);
        trouble.forget(&entry(0).key);
        let mut plan: Vec<Entry> = (0..4).map(entry).collect();
        trouble.sort(&mut plan);
        assert_eq!(ids(&plan), ["0", "1", "2", "3"]);
    }
}
