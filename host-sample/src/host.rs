//! From a settings file to open accounts.
//!
//! A settings file is `{"plugin":{…},"incoming":{…},"outgoing":{…}}`. `incoming` and `outgoing` are the two forms, as
//! the schemas describe them. `plugin` may be left out: the store and its key then lie beside the file.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use oauth_mail_abi::{Account, Library, Plugin};
use serde_json::{Value, json};

use crate::{
    failure::{Failure, Result},
    interrupt,
    output::Output,
};

/// 256 bits, as the store's cipher takes them.
pub const KEY_BYTES: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    Incoming,
    Outgoing,
}

impl Direction {
    pub fn name(self) -> &'static str {
        match self {
            Self::Incoming => "incoming",
            Self::Outgoing => "outgoing",
        }
    }
}

/// A settings file with its paths made absolute.
pub struct Settings {
    path: PathBuf,
    document: Value,
}

impl Settings {
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|error| {
            Failure::settings(format!("The settings file {} cannot be read: {error}. Check its path.", path.display()))
        })?;
        let document: Value = serde_json::from_str(&text).map_err(|error| {
            Failure::settings(format!("{} is not JSON: {error}. Correct it there.", path.display()))
        })?;
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        Self::new(path, document)
    }

    /// `path` says where what belongs to these settings lies; the file itself need not exist.
    pub fn new(path: PathBuf, mut document: Value) -> Result<Self> {
        let Some(parts) = document.as_object_mut() else {
            return Err(Failure::settings(format!("{} holds no JSON object.", path.display())));
        };
        if let Some(unknown) = parts.keys().find(|part| !["plugin", "incoming", "outgoing"].contains(&part.as_str())) {
            return Err(Failure::settings(format!(
                "{} has a part \"{unknown}\", which nobody knows: there are plugin, incoming and outgoing.",
                path.display()
            )));
        }
        if !parts.contains_key("incoming") && !parts.contains_key("outgoing") {
            return Err(Failure::settings(format!("{} has neither incoming nor outgoing settings.", path.display())));
        }
        let plugin = parts.entry("plugin").or_insert_with(|| json!({}));
        complete(plugin, &path)?;
        Ok(Self { path, document })
    }

    /// Which forms the file holds, in the order they are worked on.
    pub fn directions(&self) -> Vec<Direction> {
        let has = |direction: &Direction| self.document.get(direction.name()).is_some();
        [Direction::Incoming, Direction::Outgoing].into_iter().filter(has).collect()
    }

    /// One form as `open` takes it.
    pub fn form(&self, direction: Direction) -> Result<Value> {
        let form = self.document.get(direction.name()).ok_or_else(|| {
            Failure::settings(format!("{} has no {} settings.", self.path.display(), direction.name()))
        })?;
        Ok(json!({ direction.name(): form }))
    }

    pub fn field(&self, direction: Direction, name: &str) -> &Value {
        &self.document[direction.name()][name]
    }

    /// "Disable new request creation by email" is off.
    pub fn new_requests(&self) -> bool {
        self.field(Direction::Incoming, "disable_new_request_creation") != true
    }

    /// Where it is noted what was delivered elsewhere.
    pub fn deliveries(&self) -> PathBuf {
        beside(&self.path, "delivered.db")
    }

    /// Where the helpdesk keeps its requests.
    pub fn database(&self) -> PathBuf {
        beside(&self.path, "helpdesk.db")
    }
}

/// A loaded library with one plugin, and the settings it serves.
pub struct Host {
    plugin: Plugin,
    pub settings: Settings,
}

impl Host {
    pub fn start(library: &Library, settings: Settings, output: &Output) -> Result<Self> {
        let plugin = library.plugin(&settings.document["plugin"], output.logger())?;
        Ok(Self { plugin, settings })
    }

    /// For a host that stays: told of each change in the health of a mailbox.
    pub fn watching(library: &Library, settings: Settings, output: &Output) -> Result<Self> {
        let config = &settings.document["plugin"];
        let plugin = library.watched_plugin(config, output.logger(), output.health_watcher())?;
        Ok(Self { plugin, settings })
    }

    pub fn open(&self, direction: Direction) -> Result<Arc<Account>> {
        interrupt::check()?;
        let account = Arc::new(self.plugin.open(&self.settings.form(direction)?)?);
        interrupt::watch(&account);
        Ok(account)
    }
}

/// `--library`, else OAUTH_MAIL_LIBRARY, else the file beside this program.
pub fn load(library: Option<&Path>) -> Result<Library> {
    let path = match library {
        Some(path) => path.to_owned(),
        None => env::current_exe()
            .map_err(|error| Failure::other(format!("This program does not know where it is: {error}.")))?
            .with_file_name(format!("{}oauth_mail{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX)),
    };
    Library::load(&path).map_err(|error| {
        let remedy = if library.is_none() { " Name it with --library or OAUTH_MAIL_LIBRARY." } else { "" };
        Failure::other(format!("{error}{remedy}"))
    })
}

/// Fills in store and key, and makes relative paths relative to the settings file.
fn complete(plugin: &mut Value, path: &Path) -> Result<()> {
    let Some(config) = plugin.as_object_mut() else {
        return Err(Failure::settings("The part plugin of the settings is not an object."));
    };
    let store = match config.get("store").and_then(Value::as_str) {
        None => Some(beside(path, "store.db")),
        Some(store) => store.strip_prefix("sqlite:").map(|file| relative_to(path, file)),
    };
    if let Some(store) = store {
        config.insert("store".into(), format!("sqlite:{}", store.display()).into());
    }
    match config.get_mut("key") {
        None => {
            let key = beside(path, "store.key");
            create_key(&key)?;
            config.insert("key".into(), json!({ "file": key }));
        }
        Some(key) => {
            if let Some(file) = key.get("file").and_then(Value::as_str) {
                *key = json!({ "file": relative_to(path, file) });
            }
        }
    }
    Ok(())
}

/// For a new file that is nobody else's business; fails when it exists.
pub fn private_file(path: &Path) -> std::io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A fresh random key, readable by its owner only; an existing file is left as it is.
pub fn create_key(path: &Path) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::other(format!("The key file {} cannot be created: {error}.", path.display()))
    };
    let mut file = match private_file(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(failed(&error)),
    };
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(|error| failed(&error))?;
    writeln!(file, "{}", STANDARD.encode(key)).and_then(|()| file.sync_all()).map_err(|error| failed(&error))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}.{suffix}"))
}

fn relative_to(path: &Path, file: &str) -> PathBuf {
    path.parent().unwrap_or(Path::new(".")).join(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("desk.json");
        Settings::new(path.clone(), json!({"incoming": {}})).unwrap();
        let key = folder.path().join("desk.store.key");
        let first = fs::read_to_string(&key).unwrap();
        assert_eq!(STANDARD.decode(first.trim()).unwrap().len(), KEY_BYTES);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        Settings::new(path, json!({"incoming": {}})).unwrap();
        assert_eq!(fs::read_to_string(&key).unwrap(), first, "a second start must not make the store unreadable");
    }

    #[test]
    fn relative_paths_follow_the_settings_file() {
        let settings = Settings::new(
            "/srv/desk/a.json".into(),
            json!({"outgoing": {}, "plugin": {"store": "sqlite:tokens.db", "key": {"file": "../key"}}}),
        )
        .unwrap();
        assert_eq!(settings.document["plugin"]["store"], "sqlite:/srv/desk/tokens.db");
        assert_eq!(settings.document["plugin"]["key"]["file"], "/srv/desk/../key");
        assert_eq!(settings.directions(), [Direction::Outgoing]);
    }

    #[test]
    fn a_misspelt_part_is_named() {
        let failure = Settings::new("a.json".into(), json!({"incomming": {}})).err().unwrap();
        assert!(failure.sentences()[0].contains("incomming"));
        assert_eq!(failure.exit_code(), 2);
    }
}
