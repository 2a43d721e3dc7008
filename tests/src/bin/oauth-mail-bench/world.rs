//! The servers, the consents, and fresh settings for each run. Everything lies in memory.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use oauth_mail_abi::Library;
use oauth_mail_tests::{Error, MailboxFormat, Options, Result, Servers};

/// Owner of the mailbox of many messages, of the one large message, and of the outgoing form.
pub const MANY: &str = "alice";
pub const LARGE: &str = "bob";
pub const SENDER: &str = "carol";

pub struct World {
    pub servers: Servers,
    programs: PathBuf,
}

impl World {
    pub fn start() -> Result<Self> {
        let memory = PathBuf::from("/dev/shm");
        let options = Options {
            users: [MANY, LARGE, SENDER].map(str::to_owned).to_vec(),
            format: MailboxFormat::Mdbox,
            parent: memory.is_dir().then_some(memory),
            ..Options::default()
        };
        let programs = env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
        let world = Self { servers: Servers::start(options)?, programs };
        fs::create_dir(world.consents())?;
        world.consent()?;
        Ok(world)
    }

    /// A program that was built beside this one.
    pub fn program(&self, name: &str) -> Command {
        Command::new(self.programs.join(name))
    }

    /// An empty folder.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.servers.dir().join("bench").join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// The incoming form: all mail, through `port` when it is another than the server's own.
    pub fn incoming(&self, name: &str, port: Option<u16>) -> Value {
        let mut settings = self.servers.incoming_settings(name);
        settings["incoming"]["advanced"]["fetch_since"] = json!("all");
        if let Some(port) = port {
            settings["incoming"]["port"] = json!(port);
        }
        settings
    }

    /// Writes a settings file into `folder`, with a store that knows the consents and has never fetched.
    pub fn settings(&self, folder: &Path, form: &Value) -> Result<PathBuf> {
        for file in fs::read_dir(self.consents())? {
            let file = file?;
            fs::copy(file.path(), folder.join(file.file_name()))?;
        }
        let mut settings = form.clone();
        settings["plugin"] = plugin(folder);
        let path = folder.join("settings.json");
        fs::write(&path, settings.to_string())?;
        Ok(path)
    }

    fn consents(&self) -> PathBuf {
        self.servers.dir().join("consents")
    }

    /// Every person signs in once, through the loaded library.
    fn consent(&self) -> Result<()> {
        let folder = self.consents();
        let key = folder.join("store.key");
        // 32 bytes that protect nothing.
        fs::write(&key, format!("{}\n", STANDARD.encode([7; 32])))?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        let file = format!("{}oauth_mail{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
        let library = Library::load(self.programs.join(file)).map_err(Error::doing("loading the library"))?;
        let plugin = library.plugin(&plugin(&folder), |_, _, _| {}).map_err(Error::doing("the plugin"))?;
        let forms = [
            (MANY, self.incoming(MANY, None)),
            (LARGE, self.incoming(LARGE, None)),
            (SENDER, self.servers.outgoing_settings(SENDER)),
        ];
        for (name, form) in forms {
            let account = plugin.open(&form).map_err(Error::doing("opening an account"))?;
            let asked = account.authenticate(&json!({"action": "start"})).map_err(Error::doing("the consent"))?;
            let url = asked["authorize_url"].as_str().ok_or_else(|| Error::new(format!("no URL: {asked}")))?;
            let redirect = self.servers.consent(url, name)?;
            let done = account
                .authenticate(&json!({"action": "complete", "redirect": redirect.as_str()}))
                .map_err(Error::doing("the consent"))?;
            if done["state"] != "authorized" {
                return Err(Error::new(format!("no consent: {done}")));
            }
            account.close();
        }
        Ok(())
    }
}

fn plugin(folder: &Path) -> Value {
    let store = format!("sqlite:{}", folder.join("store.db").display());
    json!({"store": store, "key": {"file": folder.join("store.key")}})
}
