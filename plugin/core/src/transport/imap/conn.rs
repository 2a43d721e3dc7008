//! An authenticated connection: ordinary commands through the `imap` crate, bulk commands straight on the wire.

use std::collections::{BTreeSet, HashMap};

use imap_proto::{MailboxDatum, Response, ResponseCode, Status};

use super::{
    answer::{self, Limit},
    framer::{Budget, Frame},
    guard::{BULK_TAG, Guard, SharedWire},
    names, special,
};
use crate::{
    clock::Deadline,
    error::{About, Error, Kind, Result},
    guard,
};

/// How a command ended other than with OK.
pub enum Failure {
    No(String),
    Bad(String),
    /// The connection is gone, or cannot be trusted any more.
    Fatal(Error),
}

impl Failure {
    /// As an error of the whole call: the server refused to `what`.
    pub fn into_error(self, what: &str) -> Error {
        match self {
            Self::No(words) | Self::Bad(words) => answer::refused(what, &words),
            Self::Fatal(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

/// What SELECT or EXAMINE said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    pub folder: String,
    pub writable: bool,
    pub uidvalidity: u64,
    /// Some servers leave it out.
    pub uidnext: Option<u32>,
    pub exists: u32,
}

pub struct Conn {
    session: imap::Session<Guard>,
    wire: SharedWire,
    pub capabilities: BTreeSet<String>,
    selected: Option<Selected>,
    /// What special uses stand for here.
    special: HashMap<String, String>,
    /// Prefixes of the server's namespaces, the personal one first; `None`: not asked yet.
    namespaces: Option<Vec<String>>,
    /// MOVE was refused although it was offered.
    pub moves_by_copy: bool,
    bulk_tag: u64,
}

impl Conn {
    pub fn new(session: imap::Session<Guard>, wire: SharedWire, capabilities: BTreeSet<String>) -> Self {
        Self {
            session,
            wire,
            capabilities,
            selected: None,
            special: HashMap::new(),
            namespaces: None,
            moves_by_copy: false,
            bulk_tag: 0,
        }
    }

    pub fn wire(&self) -> &SharedWire {
        &self.wire
    }

    /// `name` in upper case.
    pub fn has(&self, name: &str) -> bool {
        self.capabilities.contains(name)
    }

    /// Most messages that one command may name (RFC 9738 section 3).
    pub fn message_limit(&self) -> Option<usize> {
        self.capabilities.iter().find_map(|name| name.strip_prefix("MESSAGELIMIT=")?.parse().ok())
    }

    pub fn set_deadline(&mut self, deadline: Deadline) {
        self.wire.lock().set_deadline(deadline);
    }

    /// Runs one command through the crate and returns its untagged lines.
    pub fn run(&mut self, command: &str) -> Result<Vec<u8>, Failure> {
        let outcome = guard::guarded("the IMAP client", || Ok(self.session.run_command_and_read_response(command)));
        let mut wire = self.wire.lock();
        match outcome {
            Ok(result) => settle(result, &mut wire),
            Err(panicked) => {
                wire.kill();
                Err(panicked.into())
            }
        }
    }

    /// Runs one command directly on the wire, each untagged response to `each`: for answers that can be large. Answers where
    /// the server stopped, when it carried the command out for a part of the messages only.
    pub fn bulk(
        &mut self,
        command: &str,
        budget: Budget,
        each: &mut dyn FnMut(&mut Frame) -> Result<()>,
    ) -> Result<Option<Limit>, Failure> {
        let tag = self.next_bulk_tag();
        let mut wire = self.wire.lock();
        wire.begin(budget);
        wire.send(format!("{tag} {command}\r\n").as_bytes())?;
        let mut frame = Frame::default();
        loop {
            wire.next(&mut frame)?;
            if frame.is_untagged() {
                if let Err(error) = each(&mut frame) {
                    // The rest of the answer would be taken for that of the next command.
                    wire.kill();
                    return Err(error.into());
                }
            } else if tag_of(&frame) == tag.as_bytes() {
                return status_of(wire.last_status()).map(|()| answer::limit(wire.last_status()));
            }
        }
    }

    pub fn next_bulk_tag(&mut self) -> String {
        self.bulk_tag += 1;
        format!("{BULK_TAG}{}", self.bulk_tag)
    }

    pub fn selected(&self) -> Option<&Selected> {
        self.selected.as_ref()
    }

    /// EXAMINE: nothing that is done afterwards changes the mailbox.
    pub fn examine(&mut self, folder: &str) -> Result<Selected> {
        self.enter("EXAMINE", folder)
    }

    /// SELECT, only to settle.
    pub fn select(&mut self, folder: &str) -> Result<Selected> {
        let selected = self.enter("SELECT", folder)?;
        if !selected.writable {
            return Err(Error::new(Kind::Refused, format!("The folder {folder} may only be read."))
                .with_about(About::Folder)
                .remedy("Give the account write access to the mailbox, or choose to leave fetched mail as it is."));
        }
        Ok(selected)
    }

    /// A folder's name as it is written into commands; one that begins with a backslash is found by its special use.
    ///
    /// # Errors
    /// `Refused` when the server has no such folder.
    pub fn name_of(&mut self, folder: &str) -> Result<String> {
        if !folder.starts_with('\\') {
            return names::quoted(&self.in_namespace(folder)?);
        }
        if let Some(name) = self.special.get(folder) {
            return names::quoted(name);
        }
        let name = special::folder(self, folder)?.ok_or_else(|| {
            Error::new(Kind::Refused, format!("The mailbox has no folder for {folder}."))
                .with_about(About::Folder)
                .remedy("Name the folder as the mail server calls it.")
        })?;
        let quoted = names::quoted(&name);
        self.special.insert(folder.to_owned(), name);
        quoted
    }

    /// The folder's name with the prefix of the personal namespace, unless it has the prefix of one already (RFC 2342). Without
    /// it such a server finds no folder and creates none.
    fn in_namespace(&mut self, folder: &str) -> Result<String> {
        if folder.eq_ignore_ascii_case("INBOX") || !self.has("NAMESPACE") {
            return Ok(folder.to_owned());
        }
        if self.namespaces.is_none() {
            let mut prefixes = Vec::new();
            let asked = self.bulk("NAMESPACE", Budget::CONTROL, &mut |frame| {
                prefixes.extend(names::namespace_prefixes(&frame.line));
                Ok(())
            });
            match asked {
                Ok(_) | Err(Failure::No(_) | Failure::Bad(_)) => {}
                Err(Failure::Fatal(error)) => return Err(error),
            }
            self.namespaces = Some(prefixes);
        }
        let prefixes = self.namespaces.as_deref().unwrap_or_default();
        let Some(personal) = prefixes.first().filter(|personal| !personal.is_empty()) else {
            return Ok(folder.to_owned());
        };
        let has_prefix = |prefix: &String| {
            !prefix.is_empty()
                && folder.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_str()))
        };
        Ok(if prefixes.iter().any(has_prefix) { folder.to_owned() } else { format!("{personal}{folder}") })
    }

    fn enter(&mut self, verb: &str, folder: &str) -> Result<Selected> {
        self.selected = None;
        let name = self.name_of(folder)?;
        let lines = self.run(&format!("{verb} {name}")).map_err(|failure| match failure {
            Failure::No(words) | Failure::Bad(words) => answer::meaning(&words).unwrap_or_else(|| {
                let error = Error::new(Kind::Refused, format!("The folder {folder} cannot be opened."))
                    .remedy("Check the folder's name and that the account may read it.")
                    .with_about(About::Folder);
                answer::said(error, &words)
            }),
            Failure::Fatal(error) => error,
        })?;
        let read_only = self.wire.lock().last_status().to_ascii_uppercase().contains("[READ-ONLY]");
        let mut selected =
            Selected { folder: folder.to_owned(), writable: verb == "SELECT" && !read_only, ..Selected::default() };
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            match answer::parse(line) {
                Some(Response::MailboxData(MailboxDatum::Exists(count))) => selected.exists = count,
                Some(Response::Data { status: Status::Ok, code: Some(ResponseCode::UidNext(value)), .. }) => {
                    selected.uidnext = Some(value);
                }
                _ => {}
            }
            if let Some(value) = answer::code_number(line, "UIDVALIDITY") {
                selected.uidvalidity = value;
            }
        }
        if selected.uidvalidity == 0 {
            return Err(Error::new(Kind::Unsupported, format!("The mail server gives {folder} no UIDVALIDITY."))
                .with_about(About::Folder)
                .remedy("Messages cannot be told apart safely there; use another folder or server."));
        }
        self.selected = Some(selected.clone());
        Ok(selected)
    }
}

/// The tag of a tagged response; empty for a continuation request.
pub fn tag_of(frame: &Frame) -> &[u8] {
    let tag = frame.line.split(|byte| *byte == b' ').next().unwrap_or_default();
    if tag.starts_with(b"+") { b"" } else { tag }
}

/// `OK …`, `NO …` or `BAD …`.
pub fn status_of(status: &str) -> Result<(), Failure> {
    let word = status.split(' ').next().unwrap_or_default();
    if word.eq_ignore_ascii_case("OK") {
        Ok(())
    } else if word.eq_ignore_ascii_case("NO") {
        Err(Failure::No(status.to_owned()))
    } else {
        Err(Failure::Bad(status.to_owned()))
    }
}

/// Turns the crate's result into ours. Its errors may hold raw server bytes and are not kept.
pub fn settle<T>(result: imap::Result<T>, wire: &mut super::guard::Wire) -> Result<T, Failure> {
    let error = match result {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if let Some(failure) = wire.take_failure() {
        return Err(failure.into());
    }
    match error {
        imap::Error::No(_) => Err(Failure::No(wire.last_status().to_owned())),
        imap::Error::Bad(_) => Err(Failure::Bad(wire.last_status().to_owned())),
        imap::Error::ConnectionLost | imap::Error::Io(_) => {
            wire.kill();
            Err(super::framer::connection_error(std::io::ErrorKind::UnexpectedEof.into()).into())
        }
        _ => {
            wire.kill();
            Err(Error::new(Kind::ServerMisbehaved, "The mail server's answer could not be understood.")
                .remedy("Try again; the transcript shows what was said.")
                .into())
        }
    }
}
