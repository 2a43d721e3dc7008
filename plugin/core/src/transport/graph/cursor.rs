//! What is settled in one folder: a link of Graph's, and by id what the link has passed and the host has not settled yet.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{clock::UnixSeconds, limits};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    /// The whole nextLink or deltaLink; `None`: the folder is gone through from its beginning.
    pub link: Option<String>,
    /// While it is gone through for the first time (or again, when Graph forgot the link): what was received before this
    /// moment is settled.
    pub begin: Option<UnixSeconds>,
    /// When all was settled last.
    pub resume_at: UnixSeconds,
    /// Listed and not settled, with the moment of receipt: at most `limits::GRAPH_OPEN_MAX`, beyond which the link stays.
    pub open: BTreeMap<String, Option<UnixSeconds>>,
    /// Settled lately: a delta may name an item more than once.
    pub settled: VecDeque<String>,
}

impl Cursor {
    pub fn new(begin: UnixSeconds) -> Self {
        Self { begin: Some(begin), resume_at: begin, ..Self::default() }
    }

    pub fn listed(&self, id: &str) -> bool {
        self.open.contains_key(id) || self.is_settled(id)
    }

    pub fn is_settled(&self, id: &str) -> bool {
        self.settled.iter().any(|settled| settled == id)
    }

    /// What a later listing reached, although it could not be stored. The link stays where it was.
    pub fn saw(&mut self, later: &Self) {
        for (id, at) in &later.open {
            if !self.is_settled(id) {
                self.open.entry(id.clone()).or_insert(*at);
            }
        }
    }

    pub fn settle(&mut self, id: &str) {
        if self.open.remove(id).is_some() {
            self.settled.push_back(id.to_owned());
            if self.settled.len() > limits::GRAPH_SETTLED_MAX {
                self.settled.pop_front();
            }
        }
    }
}
