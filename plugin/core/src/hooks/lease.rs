//! The lease of a mailbox: of several nodes on one store, one at a time fetches it and acts in it.
//!
//! A lease is a record with its owner and its end, renewed by every call. Its version is the fencing number: whoever was
//! frozen beyond the end finds the record changed, and does nothing more until the lease is free again. Should a node
//! still be in the middle of something, the cursor is compared and swapped, and keys stay the same: nothing is lost.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    clock::UnixSeconds,
    error::{Error, Kind, Result},
    limits,
    store::{Store, Table},
};

/// What one handle knows of the lease of its mailbox.
#[derive(Default)]
pub struct Lease {
    held: Option<Held>,
}

struct Held {
    version: u64,
    until: UnixSeconds,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Whose {
    Ours,
    /// Ours, and it may have been another's since the last call: what is in memory may be old.
    OursAnew,
    /// For at most so many seconds.
    Elsewhere(i64),
}

#[derive(Serialize, Deserialize)]
struct Row {
    owner: String,
    until: UnixSeconds,
}

impl Lease {
    /// Takes the lease or renews it, for a call that lasts `left` and the host's work after it.
    ///
    /// # Errors
    /// Those of the store.
    pub fn hold(
        &mut self,
        store: &dyn Store,
        node: &str,
        mailbox: &str,
        now: UnixSeconds,
        left: Duration,
    ) -> Result<Whose> {
        let seconds = |time: Duration| time.as_secs() as i64;
        let until = now + seconds(left + limits::MAILBOX_LEASE);
        let is_alive = self.held.as_ref().is_some_and(|held| now < held.until);
        // A write for every call would cost more than it protects.
        if is_alive && self.held.as_ref().is_some_and(|held| until - held.until <= seconds(limits::MAILBOX_LEASE) / 2) {
            return Ok(Whose::Ours);
        }
        let row = Row { owner: node.to_owned(), until };
        let bytes = serde_json::to_vec(&row)
            .map_err(|e| Error::new(Kind::Internal, "A lease could not be written.").source_error(e))?;
        for _ in 0..limits::CLAIM_ATTEMPTS {
            let expected = match store.read(Table::Lease, mailbox)? {
                None => None,
                Some(record) => {
                    let row: Option<Row> = serde_json::from_slice(&record.bytes).ok();
                    // An end that lies farther ahead than any call lasts is a clock's mistake.
                    let longest = seconds(limits::DEADLINE_MAX + limits::MAILBOX_LEASE);
                    let wait = row.as_ref().map_or(0, |row| row.until - now);
                    if row.is_some_and(|row| row.owner != node) && (1..=longest).contains(&wait) {
                        self.held = None;
                        return Ok(Whose::Elsewhere(wait));
                    }
                    Some(record.version)
                }
            };
            if let Some(version) = store.write(Table::Lease, mailbox, expected, &bytes)? {
                let is_unbroken = is_alive && self.held.as_ref().is_some_and(|held| Some(held.version) == expected);
                self.held = Some(Held { version, until });
                return Ok(if is_unbroken { Whose::Ours } else { Whose::OursAnew });
            }
        }
        self.held = None;
        Ok(Whose::Elsewhere(1))
    }

    /// Gives it back before its end.
    pub fn release(&mut self, store: &dyn Store, node: &str, mailbox: &str) {
        let Some(held) = self.held.take() else { return };
        let row = Row { owner: node.to_owned(), until: 0 };
        if let Ok(bytes) = serde_json::to_vec(&row) {
            // If it fails, the lease ends by itself.
            let _ = store.write(Table::Lease, mailbox, Some(held.version), &bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::{SealingKey, SqliteStore};

    const CALL: Duration = Duration::from_secs(10);

    #[test]
    fn one_node_at_a_time_and_the_next_when_it_ends_or_is_given_back() {
        let key = SealingKey::from_config(&json!({"value": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}));
        let store = SqliteStore::in_memory(key.unwrap()).unwrap();
        let (mut one, mut two) = (Lease::default(), Lease::default());
        let hold = |lease: &mut Lease, node: &str, now| lease.hold(&store, node, "a@b.test", now, CALL).unwrap();
        assert_eq!(hold(&mut one, "one", 1_000), Whose::OursAnew);
        assert_eq!(hold(&mut one, "one", 1_001), Whose::Ours);
        let lasts = 10 + limits::MAILBOX_LEASE.as_secs() as i64;
        assert_eq!(hold(&mut two, "two", 1_002), Whose::Elsewhere(lasts - 2));
        // Renewed without a break.
        assert_eq!(hold(&mut one, "one", 1_000 + lasts - 1), Whose::Ours);
        // Frozen beyond its end: the other takes it, and it stays with the other.
        let later = 1_000 + 3 * lasts;
        assert_eq!(hold(&mut two, "two", later), Whose::OursAnew);
        assert_eq!(hold(&mut one, "one", later), Whose::Elsewhere(lasts));
        two.release(&store, "two", "a@b.test");
        assert_eq!(hold(&mut one, "one", later), Whose::OursAnew);
        // One that was lost gives nothing back.
        two.release(&store, "two", "a@b.test");
        assert_eq!(hold(&mut two, "two", later + 1), Whose::Elsewhere(lasts - 1));
        // Nobody else came while it was frozen; it cannot know.
        assert_eq!(hold(&mut one, "one", later + 2 * lasts), Whose::OursAnew);
    }
}
