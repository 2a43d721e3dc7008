//! The plugin: one store, one way out, and handles made from settings.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Handle, Shared, Watcher,
    health::Book,
    memory::Memory,
    proxy, request,
    send::{Expiry, Rates, Signing, Unreleased},
};
use crate::{
    clock::Clock,
    error::{Error, Kind, Result},
    hex, limits,
    log::Logger,
    machine::Lack,
    net::{Egress, Net, Proxy},
    oauth::Grants,
    session::Session,
    settings::{self, ProxyForm, SecretRef},
    store::{self, Resealed, SealingKey, Store},
};

/// Of the name by which a plugin is known among those on the same store.
const NODE_BYTES: usize = 16;

/// One per host process (or more; they never meet except in the store).
pub struct Plugin {
    store: Arc<dyn Store>,
    grants: Grants,
    egress: Egress,
    proxy: Option<Proxy>,
    clock: Clock,
    log: Logger,
    shared: Arc<Shared>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    store: String,
    key: Value,
    /// Keys that `key` replaces: what they sealed is sealed anew.
    #[serde(default)]
    previous_keys: Vec<Value>,
    #[serde(default)]
    private_networks: PrivateNetworks,
    /// What large messages of all mailboxes may take at once.
    #[serde(default = "memory_mb")]
    memory_mb: u64,
    /// How long idempotency keys are known after their last use.
    #[serde(default = "idempotency_days")]
    idempotency_days: u16,
    /// How long counts of automatic mail are known after the last one.
    #[serde(default = "automatic_mail_days")]
    automatic_mail_days: u16,
    /// For mailboxes that say nothing themselves; a password in it is a text, `{"env"}` or `{"file"}`.
    proxy: Option<String>,
    proxy_user: Option<String>,
    proxy_password: Option<SecretRef>,
}

fn idempotency_days() -> u16 {
    limits::IDEMPOTENCY_DAYS
}

fn automatic_mail_days() -> u16 {
    limits::AUTOMATIC_MAIL_DAYS
}

fn memory_mb() -> u64 {
    limits::MEMORY_MB_DEFAULT
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PrivateNetworks {
    #[default]
    Allow,
    Deny,
}

impl Plugin {
    /// # Errors
    /// `Misuse` for a configuration that cannot be understood; what the store or the key has to say.
    pub fn new(config: &str, log: Logger) -> Result<Self> {
        Self::with_clock(config, log, None, Clock::default())
    }

    /// As [`Plugin::new`], with a watcher that hears of each change in the health of a mailbox, and a clock that a test can
    /// move.
    ///
    /// # Errors
    /// As [`Plugin::new`].
    pub fn with_clock(config: &str, log: Logger, watcher: Option<Watcher>, clock: Clock) -> Result<Self> {
        let config: Config = request::parse("plugin_new", config)?;
        if config.memory_mb < limits::MEMORY_MB_MIN {
            let message = format!("memory_mb is {}; it must be {} or more.", config.memory_mb, limits::MEMORY_MB_MIN);
            return Err(Error::new(Kind::Misuse, message));
        }
        for (name, days) in
            [("idempotency_days", config.idempotency_days), ("automatic_mail_days", config.automatic_mail_days)]
        {
            if !limits::RECORD_DAYS.contains(&days) {
                let (least, most) = (limits::RECORD_DAYS.start(), limits::RECORD_DAYS.end());
                return Err(Error::new(Kind::Misuse, format!("{name} is {days}; it must be from {least} to {most}.")));
            }
        }
        let proxy = proxy::of_plugin(&ProxyForm {
            proxy: config.proxy,
            proxy_user: config.proxy_user,
            proxy_password: config.proxy_password,
        })?;
        let previous = config.previous_keys.iter().map(SealingKey::from_config).collect::<Result<Vec<_>>>()?;
        let key = SealingKey::from_config(&config.key)?.with_previous(previous);
        let store = store::open_logging(&config.store, key, log.clone())?;
        match store.reseal() {
            Ok(Resealed { changed: 0, unreadable: 0 }) => {}
            Ok(Resealed { changed, unreadable }) => log.info(format_args!(
                "Store: {changed} records were sealed with the new key; {unreadable} could not be read.",
            )),
            // Nothing is lost: everything opens under one key or the other.
            Err(error) => log.warn(format_args!("Store: the change of keys goes on at the next start. {error}")),
        }
        let grants = Grants::new(store.clone(), clock.clone(), log.clone());
        let egress = Egress { deny_private_networks: config.private_networks == PrivateNetworks::Deny };
        let shared = Arc::new(Shared {
            health: Book::new(watcher),
            signing: Signing::default(),
            rates: Rates::default(),
            unreleased: Unreleased::default(),
            expiry: Expiry::new(config.idempotency_days, config.automatic_mail_days),
            node: hex::random::<NODE_BYTES>()?,
            memory: Memory::new(config.memory_mb.saturating_mul(limits::MEMORY_MB)),
        });
        Ok(Self { store, grants, egress, proxy, clock, log, shared })
    }

    /// Turns a settings document into a handle. Nothing is connected yet.
    ///
    /// # Errors
    /// `Settings` with every fault at once, each with its JSON pointer and the form's label.
    pub fn open(&self, settings: &str) -> Result<Handle> {
        // Files that hold secrets cannot be read for want of a descriptor: then nothing is wrong with the settings.
        let account = settings::parse(settings).map_err(|faults| match Lack::of_now() {
            Some(lack) => lack.error("The settings cannot be checked now.").source_error(faults),
            None => faults,
        })?;
        let net = Net::new(account.ca_file.as_deref(), self.egress.clone())
            .and_then(|net| Ok(net.through(proxy::of_mailbox(&account.proxy, &self.proxy)?)))
            .map_err(|error| error.under(account.direction.pointer()))?;
        let log = self.log.for_mailbox(account.label());
        let session = Session::new(account, net, self.grants.clone(), self.clock.clone(), log);
        Ok(Handle::new(session, self.store.clone(), self.shared.clone()))
    }
}

/// Name, version, protocols, grants, both schemas, presets and extensions, as JSON.
pub fn describe() -> String {
    let schema = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
    json!({
        "name": "oauth-mail",
        "version": env!("CARGO_PKG_VERSION"),
        "protocols": {"incoming": ["IMAPS", "EWS", "Microsoft Graph"], "outgoing": ["SMTP", "SMTPS", "EWS", "Microsoft Graph"]},
        "grants": settings::GrantType::ALL.map(settings::GrantType::name),
        "schemas": {
            "incoming": schema(settings::INCOMING_SCHEMA),
            "outgoing": schema(settings::OUTGOING_SCHEMA),
        },
        "presets": settings::preset::described(),
        "extensions": ["oauth-mail/health/1", "oauth-mail/label/1", "oauth-mail/parts/1"],
    })
    .to_string()
}

/// The wrong direction for this hook.
pub(super) fn wrong_direction(hook: &str, needed: &str) -> Error {
    Error::new(Kind::Misuse, format!("{hook} needs a handle that was opened with {needed} settings."))
        .remedy("Open one handle for incoming and one for outgoing mail.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_configuration_may_say_has_bounds() {
        for (name, value) in
            [("memory_mb", 1), ("idempotency_days", 0), ("idempotency_days", 3_651), ("automatic_mail_days", 6)]
        {
            let config = json!({"store": "sqlite:none.db", "key": {"value": "none"}, name: value}).to_string();
            let error = Plugin::new(&config, Logger::silent()).err().map(|error| (error.kind(), error.to_string()));
            assert!(error.is_some_and(|(kind, text)| kind == Kind::Misuse && text.contains(name)), "{name} {value}");
        }
    }
}
