//! The mailbox of a case beside the library: filled, changed by "somebody else", looked at, cleared.

use std::collections::BTreeSet;

use oauth_mail_sandbox::{Sandbox, mailbox::Mailbox};
use time::OffsetDateTime;

use crate::{Error, Result, wire::Wire};

pub enum Beside<'a> {
    /// An IMAP session of its own.
    Imap(Box<Wire>),
    /// The mailbox of this address, in this process.
    Memory(&'a Sandbox, String),
}

impl Beside<'_> {
    pub fn create(&mut self, folder: &str) -> Result<()> {
        match self {
            Self::Imap(wire) => ok(wire, &format!("CREATE \"{folder}\"")).map(drop),
            Self::Memory(..) => self.memory(|mailbox| mailbox.create_folder(folder)).map(drop),
        }
    }

    pub fn append(&mut self, folder: &str, raw: &[u8]) -> Result<()> {
        let wire = match self {
            Self::Imap(wire) => wire,
            Self::Memory(..) => {
                let added = |mailbox: &mut Mailbox| {
                    mailbox.append(folder, raw.to_vec(), BTreeSet::new(), OffsetDateTime::now_utc())
                };
                return self.memory(added)?.map(drop).ok_or_else(|| Error::new(format!("there is no folder {folder}")));
            }
        };
        wire.write_line(&format!("t APPEND \"{folder}\" {{{}+}}", raw.len()))?;
        wire.write_all(raw)?;
        wire.write_line("")?;
        loop {
            let line = wire.read_line()?;
            if let Some(answer) = line.strip_prefix("t ") {
                return if answer.starts_with("OK") { Ok(()) } else { Err(Error::new(line)) };
            }
        }
    }

    pub fn expunge_newest(&mut self, folder: &str) -> Result<()> {
        match self {
            Self::Imap(wire) => {
                ok(wire, &format!("SELECT \"{folder}\""))?;
                ok(wire, "STORE * +FLAGS.SILENT (\\Deleted)")?;
                ok(wire, "CLOSE").map(drop)
            }
            Self::Memory(..) => self
                .memory(|mailbox| {
                    let newest = mailbox.folder(folder)?.messages.last()?.uid;
                    mailbox.remove(folder, newest)
                })
                .map(drop),
        }
    }

    /// If it is there.
    pub fn delete(&mut self, folder: &str) {
        let _ = match self {
            Self::Imap(wire) => {
                let _ = wire.imap("UNSELECT");
                wire.imap(&format!("DELETE \"{folder}\"")).map(drop)
            }
            Self::Memory(..) => self.memory(|mailbox| mailbox.folders.retain(|one| one.name != folder)),
        };
    }

    /// Subject and flags of each message; nothing when there is no such folder.
    pub fn look(&mut self, folder: &str) -> Result<Vec<(String, String)>> {
        let wire = match self {
            Self::Imap(wire) => wire,
            Self::Memory(..) => {
                return self.memory(|mailbox| {
                    let messages = mailbox.folder(folder).map_or(&[][..], |folder| &folder.messages);
                    messages
                        .iter()
                        .map(|one| (subject(&one.raw), flags(one.flags.iter().map(String::as_str))))
                        .collect()
                });
            }
        };
        let opened = wire.imap(&format!("EXAMINE \"{folder}\""))?;
        if !opened.last().is_some_and(|last| last.starts_with("t OK")) || opened.iter().any(|line| line == "* 0 EXISTS")
        {
            return Ok(Vec::new());
        }
        let mut found: Vec<(String, String)> = Vec::new();
        for line in ok(wire, "FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")? {
            if let Some((_, rest)) = line.split_once("FLAGS (") {
                found.push((String::new(), flags(rest.split(')').next().unwrap_or_default().split(' '))));
            } else if let (Some(subject), Some(last)) = (line.strip_prefix("Subject: "), found.last_mut()) {
                last.0 = subject.to_owned();
            }
        }
        Ok(found)
    }

    fn memory<T>(&self, work: impl FnOnce(&mut Mailbox) -> T) -> Result<T> {
        let Self::Memory(sandbox, address) = self else { return Err(Error::new("this mailbox lies elsewhere")) };
        sandbox.state.mail.with(address, work).ok_or_else(|| Error::new(format!("there is no mailbox {address}")))
    }
}

fn flags<'a>(flags: impl Iterator<Item = &'a str>) -> String {
    let mut flags: Vec<_> = flags.filter(|flag| !flag.is_empty() && *flag != "\\Recent").collect();
    flags.sort_unstable();
    flags.join(" ")
}

fn subject(raw: &[u8]) -> String {
    let header = String::from_utf8_lossy(raw);
    let line = header.lines().find_map(|line| line.strip_prefix("Subject: "));
    line.unwrap_or_default().to_owned()
}

fn ok(wire: &mut Wire, command: &str) -> Result<Vec<String>> {
    let lines = wire.imap(command)?;
    match lines.last() {
        Some(last) if last.starts_with("t OK") => Ok(lines),
        other => Err(Error::new(format!("{command}: {other:?}"))),
    }
}
