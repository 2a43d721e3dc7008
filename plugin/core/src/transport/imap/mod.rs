//! IMAPS.
//!
//! ```text
//! net::Stream ─▶ Framer ─▶ Wire ─┬─▶ Guard ─▶ imap::Client / Session      login, EXAMINE, STORE, MOVE, …
//!                                └─▶ list · fetch                          bulk: straight on the wire, pipelined
//! ```
//!
//! The `imap` crate never sees the network: what reaches it was cut into responses and bounded by [`framer`].

pub mod answer;
mod ask;
mod conn;
mod cursor;
mod dates;
mod fetch;
pub mod framer;
mod guard;
mod list;
mod login;
mod look;
mod names;
mod sent;
mod set_back;
mod sets;
mod settle;
mod special;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::{Arc, atomic::AtomicU64},
};

use super::{
    Cursor as AnyCursor, Entry, FolderLook, Inbox, Item, Key, Listing, Login, OpenError, Proof, Settled, Transcript,
};
use crate::{
    clock::{Clock, Deadline},
    error::{Error, Kind, Result},
    limits,
    log::Logger,
    net::{Net, TlsFacts},
    settings::{Account, Action, Endpoint, Mechanism, Protocol, Since},
};
use conn::Conn;
pub use cursor::{Cursor, uid_of};
use fetch::Pipeline;
use guard::Link;

/// Connects over TLS and logs in.
///
/// # Errors
/// `LoginRefused` when the server refused this token for this user; `Other` for everything that a fresh token would
/// not cure.
pub fn open(
    account: &Account,
    net: &Net,
    login: &Login<'_>,
    transcript: &Transcript,
    log: &Logger,
    deadline: Deadline,
) -> Result<Box<dyn Inbox>, OpenError> {
    let Protocol::Imap { server } = &account.protocol else {
        return Err(Error::new(Kind::Internal, "An account of another protocol was opened as IMAP.").into());
    };
    let stream = net.connect_tls(&server.host, server.port, deadline)?;
    let tls = stream.facts();
    let inbox = ImapInbox::log_in(Box::new(stream), tls, server, account.mechanism, login, transcript, log, deadline)?;
    Ok(Box::new(inbox))
}

/// One authenticated IMAP connection. After an error of kind `Transient`, `TooLarge`, `ServerMisbehaved` or `Internal`
/// it may be dead; [`Inbox::check`] tells.
pub struct ImapInbox {
    conn: Conn,
    pipeline: Pipeline,
    proof: Proof,
    log: Logger,
    /// What is known of folders that are opened next.
    expected: HashMap<String, Cursor>,
    /// List without sizes: asking for them ended the connection.
    without_sizes: bool,
}

impl ImapInbox {
    #[allow(clippy::too_many_arguments)] // one call; a struct for it would be its only use
    fn log_in(
        link: Box<dyn Link>,
        tls: TlsFacts,
        server: &Endpoint,
        insisted: Option<Mechanism>,
        login: &Login<'_>,
        transcript: &Transcript,
        log: &Logger,
        deadline: Deadline,
    ) -> Result<Self, OpenError> {
        let (conn, mechanism) = login::login(link, server, insisted, login, transcript, deadline)?;
        let proof = Proof { protocol: "IMAPS", mechanism: login::name(mechanism), port: server.port, tls };
        Ok(Self {
            conn,
            pipeline: Pipeline::default(),
            proof,
            log: log.clone(),
            expected: HashMap::new(),
            without_sizes: false,
        })
    }

    /// Before any command but a body FETCH: what is on its way is read and kept.
    fn ready(&mut self, deadline: Deadline) -> Result<()> {
        self.conn.set_deadline(deadline);
        self.pipeline.drain(&mut self.conn)
    }
}

impl Inbox for ImapInbox {
    fn proof(&self) -> Proof {
        self.proof.clone()
    }

    fn list(&mut self, folder: &str, cursor: Option<&AnyCursor>, since: Since, deadline: Deadline) -> Result<Listing> {
        self.ready(deadline)?;
        let cursor = match cursor {
            None => None,
            Some(AnyCursor::Imap(cursor)) => Some(cursor),
            Some(_) => return Err(super::other_protocol(folder)),
        };
        let how = list::How { max: limits::IMAP_LISTING_MAX, sizes: !self.without_sizes };
        list::list(&mut self.conn, folder, cursor, since, Clock::default().now(), how)
    }

    fn spare(&mut self) {
        self.without_sizes = true;
    }

    fn expect(&mut self, folder: &str, cursor: &AnyCursor) {
        if let AnyCursor::Imap(cursor) = cursor {
            self.expected.insert(folder.to_owned(), cursor.clone());
        }
    }

    fn read(
        &mut self,
        entries: &[Entry],
        deadline: Deadline,
        sink: &mut dyn FnMut(usize, Item) -> ControlFlow<()>,
    ) -> Result<usize> {
        self.conn.set_deadline(deadline);
        let mut handed = 0;
        for run in entries.chunk_by(|a, b| a.key.folder == b.key.folder) {
            let folder = &run[0].key.folder;
            let selected = match self.conn.selected() {
                Some(selected) if selected.folder == *folder && !selected.writable => selected.clone(),
                _ => {
                    self.ready(deadline)?;
                    let selected = self.conn.examine(folder)?;
                    if let Some(cursor) = self.expected.remove(folder)
                        && set_back::means_another(&mut self.conn, &selected, &cursor)?
                    {
                        return Err(set_back::listed_first(folder));
                    }
                    selected
                }
            };
            let (count, flow) = self.pipeline.read(&mut self.conn, &selected, run, handed, sink)?;
            handed += count;
            if flow.is_break() {
                break;
            }
        }
        Ok(handed)
    }

    fn settle(&mut self, keys: &[Key], action: &Action, deadline: Deadline) -> Result<Vec<Settled>> {
        if *action == Action::Leave {
            return Ok(keys.iter().map(|_| Settled::Done).collect());
        }
        self.ready(deadline)?;
        let mut settled: Vec<Settled> = keys.iter().map(|_| Settled::Gone).collect();
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by(|a, b| keys[*a].folder.cmp(&keys[*b].folder));
        for run in order.chunk_by(|a, b| keys[*a].folder == keys[*b].folder) {
            let of_run: Vec<&Key> = run.iter().map(|at| &keys[*at]).collect();
            let folder = &of_run[0].folder;
            let expected = self.expected.remove(folder);
            let of_run = settle::settle(&mut self.conn, folder, &of_run, action, expected.as_ref(), &self.log);
            let of_run = match of_run {
                Ok(of_run) => of_run,
                Err(error) if run[0] == order[0] => return Err(error),
                // What was done in other folders stays done.
                Err(error) => run.iter().map(|_| Settled::Later(error.clone())).collect(),
            };
            for (at, was) in run.iter().zip(of_run) {
                settled[*at] = was;
            }
        }
        Ok(settled)
    }

    fn received(&self) -> Arc<AtomicU64> {
        self.conn.wire().lock().received()
    }

    fn check(&mut self, deadline: Deadline) -> Result<()> {
        self.ready(deadline)?;
        self.conn.run("NOOP").map(drop).map_err(|failure| failure.into_error("answer"))
    }

    fn find_sent(&mut self, message_id: &str, deadline: Deadline) -> Result<Option<(String, usize)>> {
        self.ready(deadline)?;
        sent::find(&mut self.conn, message_id)
    }

    fn look(&mut self, folder: &str, deadline: Deadline) -> Result<Option<FolderLook>> {
        self.ready(deadline)?;
        look::look(&mut self.conn, folder)
    }
}

impl Drop for ImapInbox {
    /// Frees the connection at the server at once: providers count them. Nobody waits for the answer.
    fn drop(&mut self) {
        if self.pipeline.is_idle() {
            let tag = self.conn.next_bulk_tag();
            let mut wire = self.conn.wire().lock();
            wire.set_deadline(Deadline::after(limits::LOGOUT_TIMEOUT));
            // A dead connection refuses it by itself.
            let _ = wire.send(format!("{tag} LOGOUT\r\n").as_bytes());
        }
    }
}
