//! Reads messages: many small ones to a command, a large one alone, and always some commands ahead.

use std::{
    collections::{HashMap, VecDeque},
    ops::ControlFlow,
};

use super::{
    answer,
    conn::{Conn, Failure, Selected, status_of, tag_of},
    cursor,
    framer::{Budget, Frame},
    sets,
};
use crate::{
    error::{About, Error, Kind, Result},
    limits,
    transport::{
        Entry, Item, Raw,
        intact::{Substitute, substitute},
        spool::Spool,
    },
};

/// RFC 5530: the server stumbled over something of its own. Said of a FETCH it is about what was asked for (Dovecot says it of
/// a file that it cannot read), and not about the connection.
const SERVERBUG: &str = "[SERVERBUG]";

/// Commands on their way, and what came before its turn. Survives from one call to the next: while the host looks at
/// one batch, the server already sends the next.
#[derive(Default)]
pub struct Pipeline {
    /// What the UIDs below belong to.
    folder: Option<Selected>,
    flights: VecDeque<Flight>,
    ready: HashMap<u32, Item>,
    /// Bytes of `ready` that are in memory.
    held_bytes: usize,
    /// UIDs whose command was refused: asked for again one by one, so that a bad message costs only itself.
    alone: VecDeque<u32>,
    frame: Frame,
}

/// One UID FETCH on its way.
struct Flight {
    tag: String,
    /// Ascending.
    uids: Vec<u32>,
    came: Vec<bool>,
}

impl Flight {
    fn place(&self, uid: u32) -> Option<usize> {
        self.uids.binary_search(&uid).ok()
    }

    fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        self.uids.iter().zip(&self.came).filter(|(_, came)| !**came).map(|(uid, _)| *uid)
    }
}

impl Pipeline {
    /// Hands `entries`, which all lie in `selected`, to `sink`; `offset` is the index of the first.
    /// Returns how many were handed over and whether the sink had enough.
    pub fn read(
        &mut self,
        conn: &mut Conn,
        selected: &Selected,
        entries: &[Entry],
        offset: usize,
        sink: &mut dyn FnMut(usize, Item) -> ControlFlow<()>,
    ) -> Result<(usize, ControlFlow<()>)> {
        if self.folder.as_ref().map(|at| (&at.folder, at.uidvalidity)) != Some((&selected.folder, selected.uidvalidity))
        {
            self.drain(conn)?;
            *self = Self { folder: Some(selected.clone()), ..Self::default() };
        }
        if self.held_bytes > limits::IMAP_HELD_BYTES {
            // Left over from entries that nobody named again.
            self.ready.clear();
            self.held_bytes = 0;
        }
        // A key of another UIDVALIDITY names a message that is not there any more; it will be listed anew.
        let uid_of = |entry: &Entry| {
            cursor::parse(&entry.key.id).filter(|id| id.uidvalidity == selected.uidvalidity).map(|id| id.uid)
        };
        let mut asked = entries.iter().take_while(|entry| uid_of(entry).is_some_and(|uid| self.knows(uid))).count();
        let mut next = 0;
        while next < entries.len() {
            let item = match uid_of(&entries[next]) {
                None => Some(Item::Gone),
                Some(uid) => self.take_ready(uid),
            };
            if let Some(item) = item {
                let item = plausible(item, entries[next].size);
                let flow = sink(offset + next, item);
                next += 1;
                if flow.is_break() {
                    return Ok((next, flow));
                }
                continue;
            }
            if self.flights.is_empty() && self.alone.is_empty() {
                // Named twice: it was handed over already and is asked for again.
                asked = asked.min(next);
            }
            self.ask(conn, entries, &uid_of, &mut asked)?;
            self.pump(conn, uid_of(&entries[next]))?;
        }
        Ok((next, ControlFlow::Continue(())))
    }

    /// Reads what is on its way, so that another command may be given. It is kept for the next `read`.
    pub fn drain(&mut self, conn: &mut Conn) -> Result<()> {
        while !self.flights.is_empty() {
            self.pump(conn, None)?;
        }
        Ok(())
    }

    pub fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    fn knows(&self, uid: u32) -> bool {
        self.ready.contains_key(&uid)
            || self.alone.contains(&uid)
            || self.flights.iter().any(|flight| flight.place(uid).is_some_and(|at| !flight.came[at]))
    }

    fn take_ready(&mut self, uid: u32) -> Option<Item> {
        let item = self.ready.remove(&uid)?;
        if let Item::Read(Raw::Memory(bytes)) = &item {
            self.held_bytes = self.held_bytes.saturating_sub(bytes.len());
        }
        Some(item)
    }

    /// Sends commands until enough are on their way.
    fn ask(
        &mut self,
        conn: &mut Conn,
        entries: &[Entry],
        uid_of: &dyn Fn(&Entry) -> Option<u32>,
        asked: &mut usize,
    ) -> Result<()> {
        while self.flights.len() < limits::IMAP_PIPELINE {
            let mut uids = match self.alone.pop_front() {
                Some(uid) => vec![uid],
                None => next_group(entries, uid_of, asked, conn.message_limit()),
            };
            if uids.is_empty() {
                return Ok(());
            }
            uids.sort_unstable();
            uids.dedup();
            let tag = conn.next_bulk_tag();
            let set = sets::text(&sets::ranges(&uids));
            let mut wire = conn.wire().lock();
            if self.flights.is_empty() {
                wire.begin(Budget::BODIES);
            }
            wire.send(format!("{tag} UID FETCH {set} (UID BODY.PEEK[])\r\n").as_bytes())?;
            self.flights.push_back(Flight { tag, came: vec![false; uids.len()], uids });
        }
        Ok(())
    }

    /// Takes in one response. `turn` is the message that is going to be handed over next.
    fn pump(&mut self, conn: &mut Conn, turn: Option<u32>) -> Result<()> {
        let mut wire = conn.wire().lock();
        wire.next(&mut self.frame)?;
        if self.frame.is_untagged() {
            return self.arrived(turn);
        }
        let Some(at) = self.flights.iter().position(|flight| flight.tag.as_bytes() == tag_of(&self.frame)) else {
            return Ok(());
        };
        let Some(flight) = self.flights.remove(at) else { return Ok(()) };
        wire.begin(Budget::BODIES);
        match status_of(wire.last_status()) {
            // RFC 3501 section 6.4.8: a UID that does not exist is left out without a word. So is one whose file Cyrus cannot
            // open.
            Ok(()) if answer::limit(wire.last_status()).is_none() || flight.uids.len() == 1 => {
                self.ready.extend(flight.missing().map(|uid| (uid, Item::LeftOut)));
            }
            // The server looked at a part of them only (RFC 9738): the rest was not left out, it was not looked at.
            Ok(()) => self.alone.extend(flight.missing()),
            Err(Failure::No(words) | Failure::Bad(words)) => {
                if !words.contains(SERVERBUG)
                    && let Some(error) = answer::meaning(&words)
                {
                    wire.kill();
                    return Err(error);
                }
                if let [uid] = flight.uids[..] {
                    if !flight.came[0] {
                        self.ready.insert(uid, Item::Failed(not_given_out(&words)));
                    }
                } else {
                    self.alone.extend(flight.missing());
                }
            }
            Err(Failure::Fatal(error)) => return Err(error),
        }
        Ok(())
    }

    fn arrived(&mut self, turn: Option<u32>) -> Result<()> {
        let Some(found) = answer::fetched(&self.frame.line).filter(|found| found.has_body) else { return Ok(()) };
        let waiting = self.flights.iter_mut().find_map(|flight| {
            let at = flight.place(found.uid)?;
            (!flight.came[at]).then_some(&mut flight.came[at])
        });
        // Nobody asked for it, or it came twice.
        let Some(came) = waiting else { return Ok(()) };
        *came = true;
        let at = answer::body_literal(&self.frame.line);
        let mut raw = if at < self.frame.literals.len() {
            self.frame.literals.swap_remove(at)
        } else if let Some(bytes) = found.inline_body {
            Raw::Memory(bytes)
        } else {
            // NIL: expunged while others still have it open (RFC 2180 section 4.1).
            self.ready.insert(found.uid, Item::LeftOut);
            return Ok(());
        };
        if let Raw::Memory(bytes) = &raw {
            if turn != Some(found.uid) && self.held_bytes + bytes.len() > limits::IMAP_HELD_BYTES {
                raw = Spool::of(bytes)?;
            } else {
                self.held_bytes += bytes.len();
            }
        }
        self.ready.insert(found.uid, Item::Read(raw));
        Ok(())
    }
}

/// The UIDs of the next command: one large message, or small ones up to the limits.
fn next_group(
    entries: &[Entry],
    uid_of: &dyn Fn(&Entry) -> Option<u32>,
    asked: &mut usize,
    most: Option<usize>,
) -> Vec<u32> {
    let most = most.unwrap_or(usize::MAX).clamp(1, limits::IMAP_GROUP_UIDS);
    let mut uids = Vec::new();
    let mut bytes = 0;
    while let Some(entry) = entries.get(*asked) {
        let large = entry.size > limits::SPOOL_THRESHOLD as u64;
        if !uids.is_empty() && (large || bytes + entry.size > limits::IMAP_GROUP_BYTES) {
            break;
        }
        *asked += 1;
        let Some(uid) = uid_of(entry) else { continue };
        uids.push(uid);
        bytes += entry.size;
        if large || uids.len() >= most {
            break;
        }
    }
    uids
}

/// Whether it is the message's fault or its store's, the words do not say.
fn not_given_out(words: &str) -> Error {
    answer::meaning(words).unwrap_or_else(|| {
        let error = Error::new(Kind::Transient, "The mail server did not give out one message.")
            .remedy("It is tried again; the server's own words say why.");
        answer::said(error, words)
    })
}

/// What a server gives in place of a message is not the message: nothing, or an apology of its own, for which IMAP has no
/// other way. The message is still there, and another try may give it.
fn plausible(item: Item, size: u64) -> Item {
    let Item::Read(Raw::Memory(bytes)) = &item else { return item };
    let what = match substitute(bytes, size) {
        _ if bytes.is_empty() && size > 0 => "nothing",
        Some(Substitute::Refusal) => "a text of its own",
        Some(Substitute::Absence) => return Item::LeftOut,
        None => return item,
    };
    Item::Failed(
        Error::new(Kind::Transient, format!("The mail server gave out {what} instead of a message."))
            .with_about(About::Item)
            .remedy("The message stays in the mailbox and is read again. If it stays so, look at it in the mailbox."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str, size: u64) -> &'static str {
        match plausible(Item::Read(Raw::Memory(text.into())), size) {
            Item::Read(_) => "read",
            Item::Failed(_) => "failed",
            Item::LeftOut => "left out",
            Item::Gone => "gone",
        }
    }

    #[test]
    fn an_apology_of_the_server_is_not_the_message() {
        let exchange = "MIME-Version: 1.0\r\nFrom: Microsoft Exchange Server 2010\r\nSubject: Retrieval using the IMAP4 \
            protocol failed for the following message:\r\n 3\r\n\r\nThe server couldn't retrieve it.\r\n";
        let courier = "From: System Administrator <root@localhost>\nSubject: message unavailable\n\nThis message is no longer \
            available on the server.\n";
        for (text, size, expected) in [
            (exchange, 40_000, "failed"),
            (exchange, 0, "failed"),
            (courier, 129, "left out"),
            ("", 10, "failed"),
            ("", 0, "read"),
            ("sorry", 100_000, "failed"),
            // A short message without any field that a delivery adds, as an APPEND may put it there.
            ("Subject: x\r\n\r\nx", 15, "read"),
            // Somebody quotes an apology, or forwards it.
            (&format!("Received: by x\r\nDate: Mon, 2 Nov 2026 10:00:00 +0000\r\n{exchange}"), 400, "read"),
            (&format!("Message-ID: <1@a.test>\n{courier}"), 150, "read"),
        ] {
            assert_eq!(seen(text, size), expected, "{text}");
        }
    }
}
