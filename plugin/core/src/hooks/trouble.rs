//! A message that could not be read: its own fault, or the server's?
//!
//! A refusal that names the message is the message's. A broken connection, a deadline or a 5xx may be the server's, so it
//! counts against the message only in a round in which another one could be read. When the server gives out nothing at all,
//! the round ends with its error, and the next one begins with others: a few broken messages do not hide the rest.

use std::collections::VecDeque;

use crate::{
    limits,
    transport::{Entry, Key},
};

/// What a handle remembers of it.
#[derive(Default)]
pub struct Trouble {
    /// Another message was read in this round.
    has_read: bool,
    /// Of this round, with the reason; not counted.
    open: Vec<(Entry, String)>,
    /// Of this round and those before, the latest last.
    met: VecDeque<Key>,
}

impl Trouble {
    pub fn begin_round(&mut self) {
        self.has_read = false;
        self.open.clear();
    }

    /// A message was read. Those that could not be are to be counted now.
    pub fn read(&mut self, key: &Key) -> Vec<(Entry, String)> {
        self.has_read = true;
        self.met.retain(|met| met != key);
        std::mem::take(&mut self.open)
    }

    /// A message could not be read. Is it to be counted?
    pub fn counts(&mut self, entry: &Entry, why: &str) -> bool {
        self.met.retain(|met| *met != entry.key);
        self.met.push_back(entry.key.clone());
        if self.met.len() > limits::TROUBLED_MAX {
            self.met.pop_front();
        }
        if !self.has_read {
            self.open.push((entry.clone(), why.to_owned()));
        }
        self.has_read
    }

    /// Nothing could be read, whatever was tried.
    pub fn is_hopeless(&self) -> bool {
        self.open.len() >= limits::UNREAD_IN_A_ROW
    }

    /// Those that made trouble before come last, in the order in which they did.
    pub fn sort(&self, entries: &mut [Entry]) {
        if !self.met.is_empty() {
            entries.sort_by_key(|entry| self.met.iter().position(|met| *met == entry.key).map_or(0, |at| at + 1));
        }
    }

    /// Of a message that was put aside, nothing is to be remembered.
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

    fn ids(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.key.id.as_str()).collect()
    }

    #[test]
    fn it_counts_once_another_is_read_before_or_after() {
        let mut trouble = Trouble::default();
        trouble.begin_round();
        assert!(!trouble.counts(&entry(1), "cut"));
        assert_eq!(trouble.read(&entry(2).key).len(), 1);
        assert!(trouble.read(&entry(3).key).is_empty(), "once");
        assert!(trouble.counts(&entry(4), "cut"));
        trouble.begin_round();
        assert!(!trouble.counts(&entry(1), "cut"), "in this round nothing was read");
    }

    #[test]
    fn a_server_that_gives_out_nothing_is_given_up_and_every_message_gets_its_turn() {
        let mut trouble = Trouble::default();
        let mut tried = Vec::new();
        for _ in 0..3 {
            trouble.begin_round();
            let mut plan: Vec<Entry> = (0..7).map(entry).collect();
            trouble.sort(&mut plan);
            for one in plan {
                if trouble.is_hopeless() {
                    break;
                }
                trouble.counts(&one, "cut");
                tried.push(one.key.id.clone());
            }
            assert!(trouble.is_hopeless());
        }
        assert_eq!(tried.join(" "), "0 1 2 3 4 5 6 0 1");
    }

    #[test]
    fn what_made_trouble_comes_last_until_it_is_read() {
        let mut trouble = Trouble::default();
        trouble.counts(&entry(1), "cut");
        trouble.counts(&entry(0), "cut");
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
