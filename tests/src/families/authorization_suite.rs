//! What every authorization server is walked through. Behind it is a mail server that asks it about each access token:
//! "authorized" means that this one was accepted.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use oauth_mail_core::{
    Kind,
    clock::Clock,
    hooks::{Handle, Plugin},
    log::Logger,
};
use oauth_mail_sandbox::{Config, Sandbox};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    Step, Tally,
    authorization_servers::{ALICE, Person, Server},
    same,
};
use crate::{
    Error, Result,
    ca::Ca,
    fixture::{STORE_KEY, authenticate, complete, redirect_by},
    mailbox::note,
    wayward_imap::WaywardImap,
};

const USER: &str = "alice@example.test";
/// Longer than any access token lives.
const LIFETIME: i64 = 3_700;

struct Walk {
    server: Server,
    imap: WaywardImap,
    /// Access tokens that the mail server accepted.
    accepted: Arc<Mutex<Vec<String>>>,
    ca: Ca,
    clock: Clock,
    store: TempDir,
}

pub fn walk(start: fn(&Path, &Ca) -> Result<Server>, tally: &mut Tally) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("om").tempdir_in("/tmp")?;
    // For its certificates.
    let sandbox = Sandbox::start(Config::default())?;
    let certificates = sandbox.ca_file.parent().unwrap_or(&sandbox.ca_file);
    let ca = Ca {
        ca_file: sandbox.ca_file.clone(),
        server_certificate: certificates.join("server.pem"),
        server_key: certificates.join("server.key"),
    };
    let server = start(folder.path(), &ca)?;
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let imap = WaywardImap::checking(&ca, {
        let (userinfo, ca_file, accepted) = (server.userinfo.clone(), ca.ca_file.clone(), accepted.clone());
        move |user, token| {
            let is_good = Server::email_of(&userinfo, &ca_file, token).is_some_and(|email| email == user);
            if is_good {
                accepted.lock().unwrap_or_else(PoisonError::into_inner).push(token.to_owned());
            }
            is_good
        }
    })?;
    imap.deliver(&note(1), None);
    let store = tempfile::Builder::new().prefix("om-store").tempdir()?;
    Walk { server, imap, accepted, ca, clock: Clock::default(), store }.all(tally)
}

impl Walk {
    fn all(mut self, tally: &mut Tally) -> Result<()> {
        let plugin = self.plugin()?;
        let settings = self.settings(self.server.settings.clone());
        let handle = open(&plugin, &settings)?;
        tally.step("another account is refused, and nothing of it is kept", || {
            let error = self.consent(&handle, Person { name: "bob", allows: true }).err();
            same("kind", error.as_ref().map(oauth_mail_core::Error::kind), Some(Kind::Refused))?;
            same("says who", format!("{error:?}").contains("bob@example.test"), true)?;
            same("state", state(&handle)?, json!("consent_required"))?;
            Ok(Step::Passed)
        });
        tally.step("the person says no", || {
            if let Err(why) = &self.server.refusal {
                return Ok(Step::Skipped(why.clone()));
            }
            let error = self.consent(&handle, Person { allows: false, ..ALICE }).err();
            same("kind", error.as_ref().map(oauth_mail_core::Error::kind), Some(Kind::ConsentRequired))?;
            same("says so", format!("{error:?}").contains("declined"), true)?;
            Ok(Step::Passed)
        });
        tally.step("consent ends in mail; the account is recognised", || {
            let answer = self.consent(&handle, ALICE).map_err(Error::doing("consent"))?;
            same("state", &answer["state"], &json!("authorized"))?;
            same("identity", &answer["identity"], &json!(USER))?;
            fetched(&handle)?;
            Ok(Step::Passed)
        });
        tally.step("diagnose finds all well, metadata included", || {
            let answer = authenticate(&handle, json!({"action": "diagnose"})).map_err(Error::doing("diagnose"))?;
            same(&format!("healthy ({answer})"), answer["healthy"].as_bool(), Some(true))?;
            Ok(Step::Passed)
        });
        tally.step("an access token that has ended is renewed once", || {
            let before = self.last_accepted();
            self.time_passes();
            fetched(&handle)?;
            fetched(&handle)?;
            same("renewals", self.renewals().len(), 1)?;
            same("another access token", self.last_accepted() != before, true)?;
            Ok(Step::Passed)
        });
        handle.close();
        drop((handle, plugin));
        let plugin = self.plugin()?;
        let handle = open(&plugin, &settings)?;
        tally.step("a rotated refresh token outlives the helpdesk's restart", || {
            self.time_passes();
            fetched(&handle)?;
            self.time_passes();
            fetched(&handle)?;
            let sent = self.renewals();
            same("renewals", sent.len(), 3)?;
            match sent[1] != sent[2] {
                true => Ok(Step::Passed),
                false => Ok(Step::Skipped("it does not rotate; renewing works".to_owned())),
            }
        });
        self.time_passes();
        self.server.stop();
        tally.step("while the server is away nobody is asked to sign in", || {
            let error = handle.fetch_batch("{}").err();
            same("kind", error.as_ref().map(oauth_mail_core::Error::kind), Some(Kind::Transient))?;
            same("state", state(&handle)?, json!("authorized"))?;
            Ok(Step::Passed)
        });
        self.server.restart()?;
        // Past the pause after a failure.
        self.time_passes();
        tally.step("the server was restarted, and the sign-in goes on", || {
            fetched(&handle)?;
            Ok(Step::Passed)
        });
        tally.step("revoking ends the tokens at the server", || {
            let token = self.last_accepted().ok_or_else(|| Error::new("no access token was accepted"))?;
            let good = || Server::email_of(&self.server.userinfo, &self.ca.ca_file, &token).is_some();
            same("good before", good(), true)?;
            authenticate(&handle, json!({"action": "revoke"})).map_err(Error::doing("revoke"))?;
            same("good after", good(), false)?;
            same("state", state(&handle)?, json!("consent_required"))?;
            Ok(Step::Passed)
        });
        handle.close();
        drop((handle, plugin));
        let (plugin, handle) = self.afresh(&settings)?;
        tally.step("what the person withdraws at the server asks for a new consent", || {
            self.consent(&handle, ALICE).map_err(Error::doing("consent"))?;
            fetched(&handle)?;
            self.server.withdraw()?;
            self.time_passes();
            let error = handle.fetch_batch("{}").err();
            same("kind", error.as_ref().map(oauth_mail_core::Error::kind), Some(Kind::ConsentRequired))?;
            Ok(Step::Passed)
        });
        drop((plugin, handle));
        let form = self.server.private_key_jwt.clone().map(|form| self.settings(form));
        let (_plugin, handle) = self.afresh(form.as_ref().unwrap_or(&settings))?;
        tally.step("private_key_jwt", || match &form {
            Err(why) => Ok(Step::Skipped(why.clone())),
            Ok(_) => {
                self.consent(&handle, ALICE).map_err(Error::doing("consent"))?;
                // Not renewed: what a clock an hour ahead signs is not valid yet.
                fetched(&handle)?;
                Ok(Step::Passed)
            }
        });
        let form = self.server.device.clone().map(|form| self.settings(form));
        let (_plugin, handle) = self.afresh(form.as_ref().unwrap_or(&settings))?;
        tally.step("device codes, on the page of the server", || match &form {
            Err(why) => Ok(Step::Skipped(why.clone())),
            Ok(_) => self.device(&handle),
        });
        Ok(())
    }

    /// With the clock of the server again: its statements about who signed in live as long as access tokens do.
    fn afresh(&mut self, settings: &Value) -> Result<(Plugin, Handle)> {
        self.clock = Clock::default();
        let plugin = self.plugin()?;
        let handle = open(&plugin, settings)?;
        Ok((plugin, handle))
    }

    fn device(&self, handle: &Handle) -> Result<Step> {
        let entered = |person| -> Result<oauth_mail_core::Result<Value>> {
            let started = authenticate(handle, json!({"action": "start"})).map_err(Error::doing("start"))?;
            let text = |name: &str| started[name].as_str().unwrap_or_default();
            self.clock.advance(6);
            let pending = authenticate(handle, json!({"action": "poll"})).map_err(Error::doing("the first poll"))?;
            same("pending", &pending["state"], &json!("device_code"))?;
            self.server.enter_device_code(text("verification_uri"), text("user_code"), person)?;
            // Longer than the server may have stretched the pause.
            self.clock.advance(30);
            Ok(authenticate(handle, json!({"action": "poll"})))
        };
        if self.server.refusal.is_ok() {
            let denied = entered(Person { allows: false, ..ALICE })?.err();
            same("denied", denied.as_ref().map(oauth_mail_core::Error::kind), Some(Kind::ConsentRequired))?;
        }
        let answer = entered(ALICE)?.map_err(Error::doing("poll"))?;
        same("state", &answer["state"], &json!("authorized"))?;
        fetched(handle)?;
        Ok(Step::Passed)
    }

    fn consent(&self, handle: &Handle, person: Person) -> oauth_mail_core::Result<Value> {
        match redirect_by(handle, |url| self.server.consent(url, person)) {
            Ok(redirect) => complete(handle, redirect.as_str()),
            // Of the walk through the pages: the suite looks at kinds, and this one is none that it expects.
            Err(error) => Err(oauth_mail_core::Error::new(Kind::Internal, error.to_string())),
        }
    }

    /// Access tokens end, and so do the sessions that they opened.
    fn time_passes(&self) {
        // Canaille answers 500 to two renewals in one second: its access tokens are alike then.
        thread::sleep(Duration::from_millis(1_100));
        self.clock.advance(LIFETIME);
        self.imap.end_sessions();
    }

    fn renewals(&self) -> Vec<String> {
        self.server.front.sent("refresh_token", "refresh_token")
    }

    fn last_accepted(&self) -> Option<String> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    fn plugin(&self) -> Result<Plugin> {
        let config = json!({
            "store": format!("sqlite:{}", self.store.path().join("store.db").display()),
            "key": {"value": STORE_KEY},
            "private_networks": "allow",
        });
        Plugin::with_clock(&config.to_string(), Logger::silent(), None, self.clock.clone())
            .map_err(Error::doing("a plugin"))
    }

    fn settings(&self, mut form: Value) -> Value {
        let mail = json!({
            "connection_protocol": "POP/IMAP/POPS/IMAPS",
            "authentication_type": "OAuth",
            "server_name": "localhost",
            "username": USER,
            "email_addresses": [USER],
            "protocol": "IMAPS",
            "port": self.imap.port,
            "fetch_interval_minutes": 1,
        });
        for (key, value) in mail.as_object().into_iter().flatten() {
            form[key] = value.clone();
        }
        form["advanced"]["ca_file"] = json!(self.ca.ca_file);
        form["advanced"]["fetch_since"] = json!("all");
        json!({"incoming": form})
    }
}

fn open(plugin: &Plugin, settings: &Value) -> Result<Handle> {
    plugin.open(&settings.to_string()).map_err(Error::doing("open"))
}

fn state(handle: &Handle) -> Result<Value> {
    Ok(authenticate(handle, json!({"action": "status"})).map_err(Error::doing("status"))?["state"].clone())
}

fn fetched(handle: &Handle) -> Result<()> {
    handle.fetch_batch("{}").map(drop).map_err(Error::doing("fetching"))
}
