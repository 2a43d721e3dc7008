//! The host's callbacks, which end with its plugin: after `release` none is called, and none is running.

use std::{
    cell::Cell,
    sync::{Arc, PoisonError, RwLock},
};

use oauth_mail_core::{hooks::Watcher, log::Logger};

/// Open until the plugin is released. Whoever calls the host holds it open for that long.
pub struct Gate {
    callbacks: RwLock<Option<Host>>,
}

/// The host's callbacks; `userdata` only as a number, because it is only handed back.
#[derive(Clone, Copy)]
pub struct Host {
    pub userdata: usize,
    pub log: Option<super::LogFn>,
    pub health: Option<super::HealthFn>,
    pub release: Option<super::ReleaseFn>,
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Is the host inside a callback on this thread?
pub fn inside_callback() -> bool {
    INSIDE.get()
}

struct Inside(bool);

impl Inside {
    fn enter() -> Self {
        Self(INSIDE.replace(true))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(self.0);
    }
}

impl Gate {
    pub fn new(host: Option<Host>) -> Arc<Self> {
        Arc::new(Self { callbacks: RwLock::new(host) })
    }

    pub fn logger(self: &Arc<Self>) -> Logger {
        let gate = self.clone();
        Logger::new(move |level, mailbox, line| {
            gate.call(|host| {
                if let Some(log) = host.log {
                    super::call_log(log, host.userdata, level as u32, mailbox, line);
                }
            });
        })
    }

    pub fn watcher(self: &Arc<Self>) -> Watcher {
        let gate = self.clone();
        Arc::new(move |mailbox, health| {
            gate.call(|host| {
                if let Some(call) = host.health {
                    super::call_health(call, host.userdata, mailbox, health);
                }
            });
        })
    }

    fn call(&self, call: impl FnOnce(&Host)) {
        // A callback that makes the library say something is not called for that.
        if inside_callback() {
            return;
        }
        let callbacks = self.callbacks.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = &*callbacks {
            let _inside = Inside::enter();
            call(host);
        }
    }

    /// Waits for those that run; the host's `release` is the last one.
    pub fn close(&self) {
        let host = self.callbacks.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Host { release: Some(release), userdata, .. }) = host {
            let _inside = Inside::enter();
            super::call_release(release, userdata);
        }
    }
}
