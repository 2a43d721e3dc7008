//! What crosses the boundary. Frozen for ever: see the crate's page.
//!
//! Requests and answers are JSON documents, raw messages are bytes. Whoever made a value frees it: every owned value
//! carries its maker's vtable. Inputs are borrowed for the call.

// `#[sabi_trait]` expands to impls inside function bodies and to types named `…_TO`.
#![allow(non_local_definitions, non_camel_case_types, clippy::len_without_is_empty)]

use std::ffi::c_void;

use abi_stable::{
    StableAbi, declare_root_module_statics,
    library::RootModule,
    package_version_strings, sabi_trait,
    sabi_types::VersionStrings,
    std_types::{RBox, ROption, RResult, RSlice, RStr, RString},
};

/// `abi_version` of this major: raised only together with the package's major.
pub const ABI_VERSION: u32 = 1;

/// What the library exports. The root never grows.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = OauthMailModuleRef)))]
#[sabi(missing_field(panic))]
pub struct OauthMailModule {
    /// [`ABI_VERSION`] of the library.
    pub abi_version: u32,
    /// Name, version, protocols, grants, schemas, presets, extensions, as JSON. Any thread.
    pub describe: extern "C" fn() -> RString,
    /// Plugin configuration as JSON, and where log lines go. Any thread.
    ///
    /// The callee owns the callback: it calls `release` exactly once, whether it answers a plugin or an error.
    pub plugin_new: extern "C" fn(RStr<'_>, LogCallback) -> RResult<PluginObject, HookError>,
    /// A later ability by its id, or none. Any thread.
    #[sabi(last_prefix_field)]
    pub extension: extern "C" fn(RStr<'_>) -> ROption<Extension>,
}

impl RootModule for OauthMailModuleRef {
    declare_root_module_statics! {OauthMailModuleRef}

    const BASE_NAME: &'static str = "oauth_mail";
    const NAME: &'static str = "oauth-mail";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

pub type PluginObject = PluginHooks_TO<'static, RBox<()>>;
pub type AccountObject = AccountHooks_TO<'static, RBox<()>>;
pub type BatchObject = BatchView_TO<'static, RBox<()>>;

/// One per host process (or more; they never meet except in the store).
#[sabi_trait]
pub trait PluginHooks: Send + Sync {
    /// `{"incoming":{…}}` or `{"outgoing":{…}}`. Any thread.
    fn open(&self, settings: RStr<'_>) -> RResult<AccountObject, HookError>;
}

/// One mailbox in one direction. One call at a time; `close` may come from any thread at any time.
#[sabi_trait]
pub trait AccountHooks: Send + Sync {
    fn authenticate(&self, request: RStr<'_>) -> RResult<RString, HookError>;
    fn fetch_batch(&self, request: RStr<'_>) -> RResult<BatchObject, HookError>;
    fn settle_batch(&self, request: RStr<'_>) -> RResult<RString, HookError>;
    /// `raw` empty: the content of the request is composed.
    fn send_message(&self, request: RStr<'_>, raw: RSlice<'_, u8>) -> RResult<RString, HookError>;
    fn close(&self);
}

/// One fetched batch, read in place: nothing is copied on the way to the host. Any thread.
///
/// Past the end, each reader answers empty.
#[sabi_trait]
pub trait BatchView: Send + Sync {
    fn header(&self) -> RStr<'_>;
    fn len(&self) -> usize;
    fn key(&self, index: usize) -> RStr<'_>;
    fn raw(&self, index: usize) -> RSlice<'_, u8>;
    fn facts(&self, index: usize) -> RStr<'_>;
}

/// What a hook answers when it cannot go on.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct HookError {
    /// A number of [`crate::Kind`]; numbers are never reused.
    pub kind: u32,
    /// The whole error as JSON: kind, message, remedy, provider_code, correlation, retry_after_seconds, faults, chain.
    pub json: RString,
}

/// Where the library's log lines go. Redacted before they get here.
#[repr(C)]
#[derive(StableAbi)]
pub struct LogCallback {
    /// userdata, level (1 error, 2 warn, 3 info, 4 debug), mailbox (may be empty), line. Called from any thread,
    /// several at once; must not unwind.
    pub call: extern "C" fn(usize, u32, RStr<'_>, RStr<'_>),
    /// Called once, after the last `call`: from then on userdata may be freed.
    pub release: extern "C" fn(usize),
    /// The host's own; the library only hands it back.
    pub userdata: usize,
}

/// A table that an extension id names. What it points to is fixed by that id and lives as long as the process.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy)]
pub struct Extension {
    pub table: *const c_void,
}
