//! From nothing to a host that works: data folder, key, database, the first administrator, the library.

use std::{
    fs::{self, File, TryLockError},
    net::SocketAddr,
    path::Path,
    sync::Arc,
};

use serde_json::{Value, json};

use super::{
    App, Arguments,
    log::Log,
    mailboxes::Mailboxes,
    metrics::Metrics,
    password,
    queue::Queue,
    scheduler::Scheduler,
    seal::Seal,
    storage::{Change, Mailbox, Storage},
};
use crate::{
    database::Database,
    failure::{Failure, Result},
    host,
    output::Output,
};

const ADMIN: &str = "admin";
/// Who stands in the audit trail for what was done from the command line.
const OPERATOR: &str = "(command line)";

pub fn app(arguments: &Arguments, address: SocketAddr, library: Option<&Path>, output: &Output) -> Result<App> {
    let imports = arguments.import.iter().map(|path| import(path)).collect::<Result<Vec<_>>>()?;
    folder(&arguments.data)?;
    let key_file = arguments.key_file.clone().unwrap_or_else(|| arguments.data.join("serve.key"));
    let seal = Seal::from_file(&key_file)?;
    let (database, store, lock) = match &arguments.database {
        Some(url) => (Database::postgres(url)?, url.clone(), None),
        None => {
            let lock = lock(&arguments.data)?;
            let store = format!("sqlite:{}", arguments.data.join("store.db").display());
            (Database::sqlite(&arguments.data.join("helpdesk.db"))?, store, Some(lock))
        }
    };
    let storage = Storage::open(database, seal)?;
    administrator(&storage, arguments, output)?;
    let log = Log::new(output.log_level());
    let metrics = Arc::new(Metrics::default());
    let queue = Queue::new(storage.clone(), node()?, usize::from(arguments.threads));
    let config = json!({"store": store, "key": {"file": key_file}, "private_networks": arguments.private_networks});
    let library = host::load(library)?;
    let mailboxes = Arc::new(Mailboxes::start(library, &config, storage.clone(), queue, metrics.clone(), log)?);
    if !imports.is_empty() {
        let known = storage.mailboxes()?;
        for change in imports {
            take_in(&mailboxes, &known, &change, output)?;
        }
    }
    let scheduler = Scheduler::start(mailboxes.clone(), usize::from(arguments.threads), log)?;
    let public_url = match &arguments.public_url {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => format!("http://{address}"),
    };
    let trusted_proxies = arguments.trusted_proxy.clone();
    Ok(App { storage, mailboxes, log, public_url, trusted_proxies, _lock: lock, metrics, scheduler })
}

/// For its owner only; one that exists is left as it is.
fn folder(path: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(path)
        .map_err(|error| Failure::settings(format!("The data folder {} cannot be made: {error}.", path.display())))
}

/// Held until the process ends.
fn lock(data: &Path) -> Result<File> {
    let path = data.join("lock");
    let cannot =
        |error: String| Failure::settings(format!("The data folder {} cannot be used: {error}.", data.display()));
    let file = File::create(&path).map_err(|error| cannot(error.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(cannot("another host-sample works in it already".to_owned())),
        Err(TryLockError::Error(error)) => Err(cannot(error.to_string())),
    }
}

fn administrator(storage: &Storage, arguments: &Arguments, output: &Output) -> Result<()> {
    if storage.has_admins()? {
        return Ok(());
    }
    let given = match (&arguments.admin_password_file, &arguments.admin_password) {
        (Some(path), _) => {
            let text = fs::read_to_string(path).map_err(|error| {
                Failure::settings(format!("The password file {} cannot be read: {error}.", path.display()))
            })?;
            Some(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        (None, given) => given.clone(),
    };
    let password = match &given {
        Some(password) => password.clone(),
        None => password::random()?,
    };
    let is_new = storage.insert_admin(OPERATOR, ADMIN, &password::hash(&password)?)?;
    if is_new && given.is_none() {
        output.say_lines(
            &format!("The administrator is \"{ADMIN}\" with the password {password}\nIt is not shown again."),
            &json!({"event": "administrator", "name": ADMIN, "password": password}),
        );
    }
    Ok(())
}

/// Host, process, chance: no two nodes have the same name.
fn node() -> Result<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| Failure::other(format!("No random bytes can be had: {error}.")))?;
    let chance = u32::from_be_bytes(bytes);
    Ok(format!("{}-{}-{chance:08x}", if name.is_empty() { "node" } else { name }, std::process::id()))
}

/// A settings file as the other commands take it; its part `plugin` is the host's own matter here.
fn import(path: &Path) -> Result<Change> {
    let unusable = |why: String| Failure::settings(format!("The settings file {} {why}.", path.display()));
    let text = fs::read_to_string(path).map_err(|error| unusable(format!("cannot be read: {error}")))?;
    let document: Value = serde_json::from_str(&text).map_err(|error| unusable(format!("is not JSON: {error}")))?;
    let form = |name: &str| document.get(name).filter(|form| !form.is_null()).cloned();
    let (incoming, outgoing) = (form("incoming"), form("outgoing"));
    if incoming.is_none() && outgoing.is_none() {
        return Err(unusable("has neither incoming nor outgoing settings".into()));
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Change { name, incoming, outgoing, paused: false })
}

/// A new mailbox, or the one of this name with these settings; a form that the file does not have stays as it is.
fn take_in(mailboxes: &Mailboxes, known: &[Mailbox], change: &Change, output: &Output) -> Result<()> {
    for (direction, form) in [("incoming", &change.incoming), ("outgoing", &change.outgoing)] {
        if let Some(form) = form {
            mailboxes.validate(&json!({ direction: form }))?;
        }
    }
    let storage = &mailboxes.storage;
    let known = known.iter().find(|known| known.name == change.name);
    let id = match known {
        Some(known) => {
            let changed = Change {
                name: known.name.clone(),
                incoming: change.incoming.clone().or_else(|| known.incoming.clone()),
                outgoing: change.outgoing.clone().or_else(|| known.outgoing.clone()),
                paused: known.paused,
            };
            if (&changed.incoming, &changed.outgoing) != (&known.incoming, &known.outgoing)
                && storage.update_mailbox(OPERATOR, known.id, known.version, &changed)?.is_none()
            {
                let why = format!("Somebody else has just changed the mailbox {}. Start again.", change.name);
                return Err(Failure::settings(why));
            }
            known.id
        }
        None => storage.insert_mailbox(OPERATOR, change)?,
    };
    output.say(
        &format!("{} is mailbox {id}", change.name),
        &json!({"event": "imported", "name": change.name, "mailbox": id}),
    );
    Ok(())
}
