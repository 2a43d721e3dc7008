//! Reading ahead over HTTP: several requests at once, handed over in order, and what came too early kept for the next call.

use std::{ops::ControlFlow, thread};

use super::{Entry, Item, Key};
use crate::error::{Error, Kind, Result};

/// What one request brings: an item for each of its entries, in order.
pub type Fetch<'a> = dyn Fn(&[Entry]) -> Result<Vec<Item>> + Sync + 'a;

#[derive(Default)]
pub struct Ahead {
    /// Read, and not taken by the last call.
    held: Vec<(Key, Item)>,
}

impl Ahead {
    /// As [`super::Inbox::read`]. `width` requests at once; `group` says how many of the entries before it one request takes.
    ///
    /// # Errors
    /// What stopped a request, when nothing before it is left to hand over.
    pub fn read(
        &mut self,
        entries: &[Entry],
        width: usize,
        group: fn(&[Entry]) -> usize,
        fetch: &Fetch<'_>,
        sink: &mut dyn FnMut(usize, Item) -> ControlFlow<()>,
    ) -> Result<usize> {
        let mut handed = 0;
        while handed < entries.len() {
            if !self.held.iter().any(|(key, _)| *key == entries[handed].key) {
                self.fill(&entries[handed..], width, group, fetch)?;
            }
            let Some(at) = self.held.iter().position(|(key, _)| *key == entries[handed].key) else {
                return Err(Error::new(Kind::Internal, "A message was read and not kept."));
            };
            let (_, item) = self.held.remove(at);
            handed += 1;
            if sink(handed - 1, item).is_break() {
                break;
            }
        }
        Ok(handed)
    }

    fn fill(&mut self, entries: &[Entry], width: usize, group: fn(&[Entry]) -> usize, fetch: &Fetch<'_>) -> Result<()> {
        let mut groups = Vec::with_capacity(width);
        let mut rest = entries;
        while !rest.is_empty() && groups.len() < width {
            let (next, later) = rest.split_at(group(rest).clamp(1, rest.len()));
            groups.push(next);
            rest = later;
        }
        let results: Vec<Result<Vec<Item>>> = thread::scope(|scope| {
            let running: Vec<_> = groups
                .iter()
                .map(|group| {
                    let thread = thread::Builder::new().name("oauth-mail-read".into());
                    thread.spawn_scoped(scope, move || fetch(group))
                })
                .collect();
            let ended = |thread: thread::ScopedJoinHandle<'_, Result<Vec<Item>>>| {
                thread.join().unwrap_or_else(|_| Err(Error::new(Kind::Internal, "Reading a message panicked.")))
            };
            let failed = |e| Error::new(Kind::Transient, "No thread could be started to read mail.").source_error(e);
            running.into_iter().map(|thread| thread.map_err(failed).and_then(ended)).collect()
        });
        self.held.clear();
        for (group, items) in groups.into_iter().zip(results) {
            match items {
                Ok(items) => self.held.extend(group.iter().map(|entry| entry.key.clone()).zip(items)),
                // What came before the failure is handed over; the next call meets it again.
                Err(_) if !self.held.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
