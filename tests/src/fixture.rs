//! A plugin over running servers, and mailboxes whose owners have consented: where most scenarios begin.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use oauth_mail_core::{
    clock::Clock,
    hooks::{Handle, Plugin, Watcher},
    log::{Level, Logger},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use crate::{Error, Options, Result, Servers};

/// 32 bytes, in base64.
pub const STORE_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// One plugin with its own store. Dropped, its store is gone.
pub struct Fixture<'a> {
    pub servers: &'a Servers,
    pub plugin: Plugin,
    /// Moves the time of `plugin`, and of those that [`Fixture::plugin_again`] makes.
    pub clock: Clock,
    log: Log,
    health: Changes,
    dir: TempDir,
}

/// Level, mailbox, line.
pub type Line = (Level, String, String);

/// What plugins logged, at every level.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Line>>>);

impl Log {
    pub fn logger(&self) -> Logger {
        let lines = self.0.clone();
        Logger::new(move |level, mailbox, line| {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push((level, mailbox.to_owned(), line.to_owned()));
        })
    }

    pub fn lines(&self) -> Vec<Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All lines, one below the other.
    pub fn text(&self) -> String {
        self.lines().iter().map(|(level, mailbox, line)| format!("{level:?} {mailbox}: {line}\n")).collect()
    }
}

/// Mailbox and health, as a host is told of each change.
#[derive(Clone, Default)]
pub struct Changes(Arc<Mutex<Vec<(String, Value)>>>);

impl Changes {
    fn watcher(&self) -> Watcher {
        let changes = self.0.clone();
        Arc::new(move |mailbox, health| {
            changes.lock().unwrap_or_else(PoisonError::into_inner).push((mailbox.to_owned(), parse(health)));
        })
    }

    /// Those since the last call.
    pub fn take(&self) -> Vec<Value> {
        let mut changes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        changes.drain(..).map(|(_, health)| health).collect()
    }
}

impl<'a> Fixture<'a> {
    /// # Panics
    /// When the library cannot open a store in a temporary folder.
    pub fn new(servers: &'a Servers) -> Self {
        Self::try_new(servers).expect("a plugin with a store of its own")
    }

    fn try_new(servers: &'a Servers) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("om-store").tempdir()?;
        let (clock, log, health) = (Clock::default(), Log::default(), Changes::default());
        let plugin = open_plugin(dir.path(), &log, &health, &clock)?;
        Ok(Self { servers, plugin, clock, log, health, dir })
    }

    /// The folder of the store, and nothing else in it.
    pub fn store_dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn store_file(&self) -> PathBuf {
        store_file(self.dir.path())
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What the host was told of the health of mailboxes.
    pub fn health(&self) -> &Changes {
        &self.health
    }

    /// Another plugin over the same store, with the same clock: another process, or this one after a restart.
    pub fn plugin_again(&self) -> Plugin {
        open_plugin(self.dir.path(), &self.log, &self.health, &self.clock).expect("the store opens again")
    }

    /// Somebody's mailbox for reading: opened, consented, connected. `change` sees `{"incoming":{…}}` first.
    ///
    /// # Panics
    /// When the settings do not open or the consent fails: then the scenario cannot begin.
    pub fn incoming(&self, name: &str, change: impl FnOnce(&mut Value)) -> Handle {
        let mut settings = self.servers.incoming_settings(name);
        change(&mut settings);
        self.consented(name, &settings)
    }

    /// Somebody's mailbox for sending by SMTPS: opened, consented, connected. `change` sees `{"outgoing":{…}}` first.
    ///
    /// # Panics
    /// As [`Fixture::incoming`].
    pub fn outgoing(&self, name: &str, change: impl FnOnce(&mut Value)) -> Handle {
        let mut settings = self.servers.outgoing_settings(name);
        change(&mut settings);
        self.consented(name, &settings)
    }

    fn consented(&self, name: &str, settings: &Value) -> Handle {
        let handle = self.plugin.open(&settings.to_string()).unwrap_or_else(|e| panic!("open {name}: {e:?}"));
        consent(self.servers, &handle, name).unwrap_or_else(|e| panic!("consent of {name}: {e}"));
        handle
    }
}

/// The servers of this test program, for one test at a time: counts and faults are its own. Who waits keeps them running
/// for the next one, and the last one ends them.
pub struct Turn {
    // Dropped in this order.
    _alone: MutexGuard<'static, ()>,
    servers: Arc<Servers>,
}

impl Turn {
    /// alice, bob, carol and dave, empty of faults. Mail that an earlier test left is still there.
    ///
    /// # Panics
    /// When the servers do not start.
    pub fn wait() -> Self {
        static RUNNING: Mutex<Weak<Servers>> = Mutex::new(Weak::new());
        static ALONE: Mutex<()> = Mutex::new(());
        let servers = {
            let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
            running.upgrade().unwrap_or_else(|| {
                let users = ["alice", "bob", "carol", "dave"].map(str::to_owned).to_vec();
                let started = Arc::new(Servers::start(Options { users, ..Options::default() }).expect("servers"));
                *running = Arc::downgrade(&started);
                started
            })
        };
        // A test that failed has not hurt the servers.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        servers.idp.reset_faults().expect("the authorization server answers");
        Self { _alone: alone, servers }
    }
}

impl Deref for Turn {
    type Target = Servers;

    fn deref(&self) -> &Servers {
        &self.servers
    }
}

/// Start, sign in and allow, complete. The answer to `complete`.
pub fn consent(servers: &Servers, handle: &Handle, name: &str) -> Result<Value> {
    let redirect = redirect(servers, handle, name)?;
    complete(handle, redirect.as_str()).map_err(Error::doing("complete"))
}

/// Start, sign in and allow: where the browser is sent.
pub fn redirect(servers: &Servers, handle: &Handle, name: &str) -> Result<Url> {
    redirect_by(handle, |url| servers.consent(url, name))
}

/// The same, whoever leads the person through the pages.
pub fn redirect_by(handle: &Handle, walk: impl FnOnce(&str) -> Result<Url>) -> Result<Url> {
    let started = authenticate(handle, json!({"action": "start"})).map_err(Error::doing("start"))?;
    let url = started["authorize_url"].as_str().ok_or_else(|| Error::new(format!("no authorize_url: {started}")))?;
    walk(url)
}

/// # Errors
/// The hook's own.
pub fn complete(handle: &Handle, redirect: &str) -> oauth_mail_core::Result<Value> {
    authenticate(handle, json!({"action": "complete", "redirect": redirect}))
}

/// The hook, with its answer read.
///
/// # Errors
/// The hook's own.
pub fn authenticate(handle: &Handle, request: Value) -> oauth_mail_core::Result<Value> {
    handle.authenticate(&request.to_string()).map(|answer| parse(&answer))
}

/// An answer of the library. `Null` for what is no JSON, so that the test fails where it looks into it.
pub fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

fn open_plugin(dir: &Path, log: &Log, health: &Changes, clock: &Clock) -> Result<Plugin> {
    let config = json!({
        "store": format!("sqlite:{}", store_file(dir).display()),
        "key": {"value": STORE_KEY},
        "private_networks": "allow",
    });
    Plugin::with_clock(&config.to_string(), log.logger(), Some(health.watcher()), clock.clone())
        .map_err(Error::doing("a plugin"))
}

fn store_file(dir: &Path) -> PathBuf {
    dir.join("store.db")
}
