//! What the trait objects own. A handle in which something panicked is closed: its state may be half-changed.

use std::{
    mem::ManuallyDrop,
    sync::atomic::{AtomicBool, Ordering},
};

use oauth_mail_core::{
    Error, Kind, Result,
    clock::Clock,
    hooks::{self, Batch, Handle, Watcher},
    log::Logger,
};

use crate::{guard, sqlite_locks};

pub struct OpenPlugin {
    plugin: Guarded<hooks::Plugin>,
}

impl OpenPlugin {
    /// `watcher` hears of changes in the health of mailboxes.
    pub fn new(config: &str, logger: Logger, watcher: Option<Watcher>) -> Result<Self> {
        sqlite_locks::install();
        guard::hook("plugin_new", config, || hooks::Plugin::with_clock(config, logger, watcher, Clock::default()))
            .map(|plugin| Self { plugin: Guarded::new(plugin) })
    }

    pub fn open(&self, settings: &str) -> Result<OpenAccount> {
        guard::hook("open", settings, || self.plugin.open(settings)).map(OpenAccount::new)
    }
}

pub struct OpenAccount {
    handle: Guarded<Handle>,
    closed: AtomicBool,
}

impl OpenAccount {
    fn new(handle: Handle) -> Self {
        Self { handle: Guarded::new(handle), closed: AtomicBool::new(false) }
    }

    pub fn authenticate(&self, request: &str) -> Result<String> {
        self.call("authenticate", request, || self.handle.authenticate(request))
    }

    pub fn fetch_batch(&self, request: &str) -> Result<Batch> {
        self.call("fetch_batch", request, || self.handle.fetch_batch(request))
    }

    pub fn settle_batch(&self, request: &str) -> Result<String> {
        self.call("settle_batch", request, || self.handle.settle_batch(request))
    }

    pub fn send_message(&self, request: &str, raw: &[u8]) -> Result<String> {
        self.call("send_message", request, || self.handle.send_message(request, raw))
    }

    /// Whoever waits in a call of this account comes back.
    pub fn cancel(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        guard::quietly("cancel", || self.handle.cancel());
        Ok(())
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        guard::quietly("close", || self.handle.close());
    }

    fn call<T>(&self, name: &str, request: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        let answer = guard::hook(name, request, body);
        if matches!(&answer, Err(error) if error.kind() == Kind::Internal) {
            self.close();
        }
        answer
    }
}

fn closed() -> Error {
    Error::new(Kind::Closed, "The handle was closed.").remedy("Open the mailbox again.")
}

impl Drop for OpenAccount {
    fn drop(&mut self) {
        self.close();
    }
}

/// Dropped inside the guard: a destructor that panics must not end the host either.
struct Guarded<T>(ManuallyDrop<T>);

impl<T> Guarded<T> {
    fn new(value: T) -> Self {
        Self(ManuallyDrop::new(value))
    }
}

impl<T> std::ops::Deref for Guarded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: this is the only place that drops it, and it runs once.
        guard::quietly("drop", || unsafe { ManuallyDrop::drop(&mut self.0) });
    }
}
