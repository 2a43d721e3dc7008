//! The Rust face: the root module that a host loads, and one line per shim.

use abi_stable::{
    erased_types::TD_Opaque,
    export_root_module,
    prefix_type::PrefixTypeTrait,
    sabi_extern_fn,
    std_types::{ROption, RResult, RSlice, RStr, RString, RVec},
};
use oauth_mail_abi::{
    health::{HEALTH_EXTENSION, HealthCallback, HealthTable},
    parts::{PARTS_EXTENSION, PartsTable},
    root::{
        ABI_VERSION, AccountHooks, AccountHooks_TO, AccountObject, BatchObject, BatchView, BatchView_TO, Extension,
        HookError, LogCallback, OauthMailModule, OauthMailModuleRef, PluginHooks, PluginHooks_TO, PluginObject,
    },
};
use oauth_mail_core::message;

use crate::{
    convert::{self, FetchedBatch},
    guard,
    handle::{OpenAccount, OpenPlugin},
};

#[export_root_module]
fn root() -> OauthMailModuleRef {
    OauthMailModule { abi_version: ABI_VERSION, describe, plugin_new, extension }.leak_into_prefix()
}

#[sabi_extern_fn]
fn describe() -> RString {
    convert::describe()
}

#[sabi_extern_fn]
fn plugin_new(config: RStr<'_>, log: LogCallback) -> RResult<PluginObject, HookError> {
    guard::quiet();
    convert::result(OpenPlugin::new(config.as_str(), convert::logger(log), None), plugin_object)
}

/// The abilities beyond the hooks.
#[sabi_extern_fn]
fn extension(id: RStr<'_>) -> ROption<Extension> {
    match id.as_str() {
        HEALTH_EXTENSION => ROption::RSome(Extension { table: (&raw const HEALTH).cast() }),
        PARTS_EXTENSION => ROption::RSome(Extension { table: (&raw const PARTS).cast() }),
        _ => ROption::RNone,
    }
}

static PARTS: PartsTable = PartsTable { facts, attachment };

#[sabi_extern_fn]
fn facts(raw: RSlice<'_, u8>) -> RResult<RString, HookError> {
    convert::result(guard::hook("facts", "", || message::facts_json(raw.as_slice())), RString::from)
}

#[sabi_extern_fn]
fn attachment(raw: RSlice<'_, u8>, part_index: u32) -> RResult<RVec<u8>, HookError> {
    let read = || message::attachment(raw.as_slice(), part_index);
    convert::result(guard::hook("attachment", "", read), RVec::from)
}

static HEALTH: HealthTable = HealthTable { plugin_new: watched_plugin_new };

#[sabi_extern_fn]
fn watched_plugin_new(config: RStr<'_>, log: LogCallback, health: HealthCallback) -> RResult<PluginObject, HookError> {
    guard::quiet();
    let watcher = Some(convert::watcher(health));
    convert::result(OpenPlugin::new(config.as_str(), convert::logger(log), watcher), plugin_object)
}

impl PluginHooks for OpenPlugin {
    fn open(&self, settings: RStr<'_>) -> RResult<AccountObject, HookError> {
        convert::result(self.open(settings.as_str()), account_object)
    }
}

impl AccountHooks for OpenAccount {
    fn authenticate(&self, request: RStr<'_>) -> RResult<RString, HookError> {
        convert::result(self.authenticate(request.as_str()), RString::from)
    }

    fn fetch_batch(&self, request: RStr<'_>) -> RResult<BatchObject, HookError> {
        convert::result(self.fetch_batch(request.as_str()).map(FetchedBatch::new), batch_object)
    }

    fn settle_batch(&self, request: RStr<'_>) -> RResult<RString, HookError> {
        convert::result(self.settle_batch(request.as_str()), RString::from)
    }

    fn send_message(&self, request: RStr<'_>, raw: RSlice<'_, u8>) -> RResult<RString, HookError> {
        convert::result(self.send_message(request.as_str(), raw.as_slice()), RString::from)
    }

    fn close(&self) {
        self.close();
    }
}

impl BatchView for FetchedBatch {
    fn header(&self) -> RStr<'_> {
        self.header().into()
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn key(&self, index: usize) -> RStr<'_> {
        self.key(index).into()
    }

    fn raw(&self, index: usize) -> RSlice<'_, u8> {
        self.raw(index).into()
    }

    fn facts(&self, index: usize) -> RStr<'_> {
        self.facts(index).into()
    }
}

fn plugin_object(plugin: OpenPlugin) -> PluginObject {
    PluginHooks_TO::from_value(plugin, TD_Opaque)
}

fn account_object(account: OpenAccount) -> AccountObject {
    AccountHooks_TO::from_value(account, TD_Opaque)
}

fn batch_object(batch: FetchedBatch) -> BatchObject {
    BatchView_TO::from_value(batch, TD_Opaque)
}
