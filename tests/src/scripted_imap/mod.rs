//! An IMAP server of this process that does on request what real servers do only now and then: partial answers, refusals,
//! renumbering, restored snapshots, foreign namespaces. It speaks XOAUTH2 over TLS and accepts any token.
//!
//! [`Behaviour`] holds what it always does, [`ScriptedImap::script`] decides command by command.

mod behaviour;
mod mailbox;
mod session;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use behaviour::{Behaviour, Command, Fate, Readable};
pub use mailbox::{Folder, Mailbox, Message};

use crate::{Result, ca::Ca, tls_server::TlsServer};

/// Decides what becomes of a command, before it is carried out.
pub type Script = Box<dyn FnMut(&Command<'_>) -> Fate + Send>;

/// Commands that are kept for [`ScriptedImap::commands`].
const LOG_MAX: usize = 1_000;

/// Ends when dropped.
pub struct ScriptedImap {
    pub port: u16,
    shared: Arc<Shared>,
    _server: TlsServer,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    mailbox: Mailbox,
    behaviour: Behaviour,
    script: Option<Script>,
    commands: VecDeque<String>,
    counted: u64,
    sessions: u64,
}

impl ScriptedImap {
    pub fn start(ca: &Ca) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let server = TlsServer::start(ca, {
            let shared = shared.clone();
            move |tcp, config| drop(session::serve(tcp, config, &shared))
        })?;
        Ok(Self { port: server.port, shared, _server: server })
    }

    /// Works on the mailbox while no command runs.
    pub fn mailbox<T>(&self, work: impl FnOnce(&mut Mailbox) -> T) -> T {
        work(&mut self.shared.lock().mailbox)
    }

    /// A message arrives in INBOX; its UID.
    pub fn deliver(&self, raw: &[u8]) -> u64 {
        self.mailbox(|mailbox| mailbox.append("INBOX", raw))
    }

    /// Changes what the server always does. Capabilities change with the next connection.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.lock().behaviour);
    }

    pub fn script(&self, script: impl FnMut(&Command<'_>) -> Fate + Send + 'static) {
        self.shared.lock().script = Some(Box::new(script));
    }

    pub fn no_script(&self) {
        self.shared.lock().script = None;
    }

    /// The last commands, without tags and without logins.
    pub fn commands(&self) -> Vec<String> {
        self.shared.lock().commands.iter().cloned().collect()
    }

    /// How many commands have come so far.
    pub fn counted(&self) -> u64 {
        self.shared.lock().counted
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, command: &Command<'_>) -> Fate {
        self.counted += 1;
        if self.commands.len() == LOG_MAX {
            self.commands.pop_front();
        }
        self.commands.push_back(command.line.to_owned());
        self.script.as_mut().map_or(Fate::Obey, |script| script(command))
    }
}
