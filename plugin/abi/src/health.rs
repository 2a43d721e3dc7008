//! The ability `oauth-mail/health/1`: the host is called when the health of a mailbox changes. Frozen for ever.

use std::panic::{AssertUnwindSafe, catch_unwind};

use abi_stable::{
    StableAbi,
    std_types::{RResult, RStr},
};
use serde_json::Value;

use crate::root::{HookError, LogCallback, PluginObject};

/// Its id, as `describe` lists it.
pub const HEALTH_EXTENSION: &str = "oauth-mail/health/1";

/// What [`HEALTH_EXTENSION`] points to.
#[repr(C)]
#[derive(StableAbi)]
pub struct HealthTable {
    /// As `plugin_new` of the root, with somebody who is called. The callee owns both callbacks: it calls `release` of
    /// each exactly once, whether it answers a plugin or an error.
    pub plugin_new: extern "C" fn(RStr<'_>, LogCallback, HealthCallback) -> RResult<PluginObject, HookError>,
}

/// Who is called once per change.
#[repr(C)]
#[derive(StableAbi)]
pub struct HealthCallback {
    /// userdata, mailbox, health as JSON: `{"state","direction","why","remedy","who","what","when","field",…}`. Called on
    /// a thread of the library, before the hook that noticed the change returns, several at once; must not unwind. It may
    /// ask the same account for its status.
    pub call: extern "C" fn(usize, RStr<'_>, RStr<'_>),
    /// Called once, after the last `call`: from then on userdata may be freed.
    pub release: extern "C" fn(usize),
    /// The host's own; the library only hands it back.
    pub userdata: usize,
}

type Watcher = Box<dyn Fn(&str, &Value) + Send + Sync>;

impl HealthCallback {
    /// `watcher` receives mailbox and health; a panic in it is caught and dropped.
    pub(crate) fn new(watcher: impl Fn(&str, &Value) + Send + Sync + 'static) -> Self {
        let watcher: Box<Watcher> = Box::new(Box::new(watcher));
        Self { call, release, userdata: Box::into_raw(watcher).expose_provenance() }
    }
}

extern "C" fn call(userdata: usize, mailbox: RStr<'_>, health: RStr<'_>) {
    let watcher = std::ptr::with_exposed_provenance::<Watcher>(userdata);
    // SAFETY: `HealthCallback::new` made it from a Box, and the library calls no more once it called `release`.
    let watcher = unsafe { &*watcher };
    let health = serde_json::from_str(&health).unwrap_or_default();
    // Unwinding through `extern "C"` would abort the process for the sake of a notice.
    let _ = catch_unwind(AssertUnwindSafe(|| watcher(mailbox.as_str(), &health)));
}

extern "C" fn release(userdata: usize) {
    let watcher = std::ptr::with_exposed_provenance_mut::<Watcher>(userdata);
    // SAFETY: made by `Box::into_raw` in `HealthCallback::new`, and released exactly once (see [`HealthTable`]).
    let watcher = unsafe { Box::from_raw(watcher) };
    let _ = catch_unwind(AssertUnwindSafe(move || drop(watcher)));
}
