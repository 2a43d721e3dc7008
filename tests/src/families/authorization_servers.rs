//! Authorization servers with alice and bob (`NAME-password`), behind [`Front`], and the pages that a person sees there.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use reqwest::{
    blocking::{Client, Response},
    header::{CONTENT_TYPE, LOCATION, REFERER},
};
use serde_json::{Value, json};
use url::Url;

use super::{
    https_front::Front,
    imap_servers::{free_port, installed, ours},
};
use crate::{Error, Result, ca::Ca, process::Process, wire};

pub const REDIRECT_URL: &str = "https://desk.test/callback";
const START_TIMEOUT: Duration = Duration::from_secs(90);
const PAGES_MAX: usize = 12;

/// Ends when dropped.
pub struct Server {
    pub front: Front,
    /// Fields of the form, `advanced` among them.
    pub settings: Value,
    /// The same for a device; `Err`: why there is none.
    pub device: std::result::Result<Value, String>,
    /// For a client with a key in place of a secret.
    pub private_key_jwt: std::result::Result<Value, String>,
    /// Whether its pages let a person say no.
    pub refusal: std::result::Result<(), String>,
    pub userinfo: String,
    ca_file: PathBuf,
    name: &'static str,
    pages: Pages,
    command: Command,
    log: PathBuf,
    process: Process,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pages {
    /// HTML forms.
    Forms,
    /// A page of JavaScript over Glewlwyd's JSON interface.
    Glewlwyd,
}

#[derive(Clone, Copy, Debug)]
pub struct Person {
    pub name: &'static str,
    pub allows: bool,
}

pub const ALICE: Person = Person { name: "alice", allows: true };

pub fn django_oauth_toolkit(folder: &Path, ca: &Ca) -> Result<Server> {
    let port = free_port()?;
    let front = Front::start(ca, port)?;
    let mut command = Command::new(installed(".venv/bin/python")?);
    command.arg(ours().join("django_server.py")).args([&port.to_string(), &front.base]).arg(folder);
    let base = format!("{}/o", front.base);
    let settings = json!({
        "client_id": "desk",
        "client_secret": "desk-secret+with/odd:characters",
        "authorize_url": format!("{base}/authorize/"),
        "access_token_url": format!("{base}/token/"),
        "redirect_url": REDIRECT_URL,
        "scope": "openid mail",
        // Its metadata does not name this one, nor that of device codes.
        "advanced": {"issuer": base, "revocation_url": format!("{base}/revoke_token/")},
    });
    let mut device = settings.clone();
    device["client_id"] = json!("device");
    device.as_object_mut().map(|form| form.remove("client_secret"));
    device["advanced"]["grant"] = json!("device_code");
    device["advanced"]["device_authorization_url"] = json!(format!("{base}/device-authorization/"));
    let log = folder.join("server.out");
    let process = started("django-oauth-toolkit", &command, &log, &settings, &ca.ca_file)?;
    Ok(Server {
        refusal: Ok(()),
        pages: Pages::Forms,
        settings,
        device: Ok(device),
        private_key_jwt: Err("it knows secrets alone".to_owned()),
        userinfo: format!("{base}/userinfo/"),
        ca_file: ca.ca_file.clone(),
        name: "django-oauth-toolkit",
        front,
        command,
        log,
        process,
    })
}

/// Of the family of Authlib.
pub fn canaille(folder: &Path, ca: &Ca) -> Result<Server> {
    let port = free_port()?;
    let front = Front::start(ca, port)?;
    let mut command = Command::new(installed(".venv/bin/python")?);
    command.arg(ours().join("canaille_server.py")).args([&port.to_string(), &front.base]).arg(folder);
    command.arg(&ca.server_certificate);
    let base = format!("{}/oauth", front.base);
    let settings = json!({
        "client_id": "desk",
        "client_secret": "desk-secret+with/odd:characters",
        "authorize_url": format!("{base}/authorize"),
        "access_token_url": format!("{base}/token"),
        "redirect_url": REDIRECT_URL,
        "scope": "openid email",
        "advanced": {"issuer": front.base},
    });
    let mut certified = settings.clone();
    certified.as_object_mut().map(|form| form.remove("client_secret"));
    certified["client_id"] = json!("certified");
    certified["advanced"]["client_certificate"] = json!({
        "certificate": {"file": ca.server_certificate},
        "private_key": {"file": ca.server_key},
        "key_id": "desk-key",
    });
    let log = folder.join("server.out");
    let process = started("Canaille", &command, &log, &settings, &ca.ca_file)?;
    Ok(Server {
        refusal: Ok(()),
        pages: Pages::Forms,
        device: Err("it has no endpoint for them".to_owned()),
        private_key_jwt: Ok(certified),
        userinfo: format!("{base}/userinfo"),
        settings,
        ca_file: ca.ca_file.clone(),
        name: "Canaille",
        front,
        command,
        log,
        process,
    })
}

/// Unpacked from Debian's package.
pub fn glewlwyd(folder: &Path, ca: &Ca) -> Result<Server> {
    let port = free_port()?;
    let front = Front::start(ca, port)?;
    installed("debian/usr/bin/glewlwyd")?;
    let mut command = Command::new(installed(".venv/bin/python")?);
    command.arg(ours().join("glewlwyd_server.py")).arg(ours().join("debian")).args([&port.to_string(), &front.base]);
    command.arg(folder).arg(&ca.server_certificate);
    let base = format!("{}/api/oidc", front.base);
    let settings = json!({
        "client_id": "desk",
        "client_secret": "desk-secret",
        "authorize_url": format!("{base}/auth"),
        "access_token_url": format!("{base}/token"),
        "redirect_url": REDIRECT_URL,
        "scope": "openid mail",
        // It names the origin, and has its metadata below its plugin.
        "advanced": {"issuer": front.base, "revocation_url": format!("{base}/revoke"),
            "userinfo_url": format!("{base}/userinfo")},
    });
    let without_secret = |client_id: &str, advanced: Value| {
        let mut form = settings.clone();
        form.as_object_mut().map(|form| form.remove("client_secret"));
        form["client_id"] = json!(client_id);
        for (key, value) in advanced.as_object().into_iter().flatten() {
            form["advanced"][key] = value.clone();
        }
        form
    };
    let device = without_secret(
        "device",
        json!({
            "grant": "device_code",
            "device_authorization_url": format!("{base}/device_authorization"),
        }),
    );
    let certified = without_secret(
        "certified",
        json!({"client_certificate": {
            "certificate": {"file": ca.server_certificate},
            "private_key": {"file": ca.server_key},
            "key_id": "desk-key",
        }}),
    );
    let log = folder.join("server.out");
    let process = started("Glewlwyd", &command, &log, &settings, &ca.ca_file)?;
    Ok(Server {
        refusal: Err("its pages have no button for it".to_owned()),
        pages: Pages::Glewlwyd,
        device: Ok(device),
        private_key_jwt: Ok(certified),
        userinfo: format!("{base}/userinfo"),
        settings,
        ca_file: ca.ca_file.clone(),
        name: "Glewlwyd",
        front,
        command,
        log,
        process,
    })
}

impl Server {
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// With what was granted.
    pub fn restart(&mut self) -> Result<()> {
        self.process.stop();
        self.process = started(self.name, &self.command, &self.log, &self.settings, &self.ca_file)?;
        Ok(())
    }

    /// Who holds this access token; `None`: it is not good.
    pub fn email_of(userinfo: &str, ca_file: &Path, token: &str) -> Option<String> {
        let answer = wire::http_client(ca_file).ok()?.get(userinfo).bearer_auth(token).send().ok()?;
        let answer: Value = serde_json::from_str(&answer.text().ok()?).ok()?;
        Some(answer["email"].as_str()?.to_owned())
    }

    /// alice ends at the provider what she granted.
    pub fn withdraw(&self) -> Result<()> {
        let http = self.browser()?;
        if self.pages == Pages::Glewlwyd {
            self.log_in(&http, ALICE)?;
            let tokens = format!("{}/api/oidc/token", self.front.base);
            let list: Value =
                serde_json::from_str(&http.get(&tokens).send()?.text()?).map_err(Error::doing("tokens"))?;
            let list = list.as_array().ok_or_else(|| Error::new("no list of refresh tokens"))?;
            for hash in
                list.iter().filter(|token| token["enabled"] == true).filter_map(|token| token["token_hash"].as_str())
            {
                let mut url = Url::parse(&tokens).map_err(Error::doing("its address"))?;
                url.path_segments_mut().map_err(|()| Error::new("no path"))?.push(hash);
                succeeded("withdrawing", http.delete(url).send()?)?;
            }
            return Ok(());
        }
        succeeded("withdrawing", http.post(format!("{}/test/withdraw", self.front.base)).send()?)
    }

    /// At Glewlwyd.
    fn log_in(&self, http: &Client, person: Person) -> Result<()> {
        let body = json!({"username": person.name, "password": format!("{}-password", person.name)});
        let request = http.post(format!("{}/api/auth/", self.front.base)).header(CONTENT_TYPE, "application/json");
        succeeded("signing in", request.body(body.to_string()).send()?)
    }

    /// What Glewlwyd's page does: sign in, grant what is asked for, and go back to where it came from.
    fn sign_in_at_glewlwyd(&self, http: &Client, page: &Url, person: Person) -> Result<Url> {
        let query = |name: &str| page.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        let (Some(client), Some(scope), Some(back)) = (query("client_id"), query("scope"), query("callback_url"))
        else {
            return Err(Error::new(format!("a page nobody knows: {page}")));
        };
        self.log_in(http, person)?;
        let grant = http.put(format!("{}/api/auth/grant/{client}", self.front.base));
        let grant = grant.header(CONTENT_TYPE, "application/json").body(json!({"scope": scope}).to_string());
        succeeded("granting", grant.send()?)?;
        let mut back = Url::parse(&back).map_err(Error::doing("callback_url"))?;
        back.query_pairs_mut().append_key_only("g_continue");
        Ok(back)
    }

    /// Signs in, allows or denies: where the browser is sent, unopened.
    pub fn consent(&self, authorize_url: &str, person: Person) -> Result<Url> {
        let redirect = self.walk(authorize_url, &[], person)?;
        redirect.ok_or_else(|| Error::new("the pages end without a redirect"))
    }

    /// The same at the page for device codes.
    pub fn enter_device_code(&self, page: &str, code: &str, person: Person) -> Result<()> {
        match self.pages {
            Pages::Forms => self.walk(page, &[("user_code", code)], person).map(drop),
            Pages::Glewlwyd => self.walk(&format!("{page}?code={code}"), &[], person).map(drop),
        }
    }

    /// Fills in form after form. `None`: a page without one is the last.
    fn walk(&self, first: &str, fields: &[(&str, &str)], person: Person) -> Result<Option<Url>> {
        let http = self.browser()?;
        let mut page = http.get(first).send()?;
        for _ in 0..PAGES_MAX {
            let url = page.url().clone();
            if let Some(location) = page.headers().get(LOCATION) {
                let next = url.join(location.to_str().map_err(Error::doing("a redirect"))?)?;
                if next.as_str().starts_with(REDIRECT_URL) {
                    return Ok(Some(next));
                }
                page = http.get(next).send()?;
                continue;
            }
            if self.pages == Pages::Glewlwyd {
                if !url.path().ends_with("/login.html") || url.query_pairs().any(|(key, _)| key == "prompt") {
                    return Ok(None);
                }
                page = http.get(self.sign_in_at_glewlwyd(&http, &url, person)?).send()?;
                continue;
            }
            match submitted(&http, page, fields, person)? {
                Some(next) => page = next,
                None => return Ok(None),
            }
        }
        Err(Error::new(format!("the pages of {} go on for ever", self.name)))
    }

    fn browser(&self) -> Result<Client> {
        wire::http_client(&self.ca_file)
    }
}

fn submitted(http: &Client, page: Response, fields: &[(&str, &str)], person: Person) -> Result<Option<Response>> {
    let (status, url, html) = (page.status(), page.url().clone(), page.text()?);
    if !status.is_success() {
        return Err(Error::new(format!("{}: {status}: {}", url.path(), html.chars().take(400).collect::<String>())));
    }
    if !html.contains("<form") {
        return Ok(None);
    }
    let mut form: Vec<(String, String)> = Vec::new();
    for input in html.split("<input").skip(1).filter_map(|rest| rest.split('>').next()) {
        let Some(name) = attribute(input, "name") else { continue };
        let password = format!("{}-password", person.name);
        let value = match name {
            "username" | "login" => person.name,
            "password" => &password,
            "allow" if !person.allows => continue,
            _ => fields
                .iter()
                .find(|(field, _)| *field == name)
                .map(|(_, value)| *value)
                .unwrap_or_else(|| attribute(input, "value").unwrap_or_default()),
        };
        form.push((name.to_owned(), value.replace("&amp;", "&").replace("&quot;", "\"")));
    }
    // Buttons.
    for name in ["action", "answer"].into_iter().filter(|name| html.contains(&format!("name=\"{name}\""))) {
        form.push((name.to_owned(), if person.allows { "accept" } else { "deny" }.to_owned()));
    }
    // Django wants it beside its token where the page is https.
    Ok(Some(http.post(url.clone()).header(REFERER, url.as_str()).form(&form).send()?))
}

fn succeeded(what: &str, answer: Response) -> Result<()> {
    match answer.status().is_success() {
        true => Ok(()),
        false => Err(Error::new(format!("{what}: {}: {}", answer.status(), answer.text()?))),
    }
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let rest = &tag[tag.find(&format!(" {name}=\""))? + name.len() + 3..];
    rest.split('"').next()
}

/// Ready when the token endpoint answers.
fn started(name: &str, command: &Command, log: &Path, settings: &Value, ca_file: &Path) -> Result<Process> {
    let process = Process::start(name, command, log)?;
    let http = wire::http_client(ca_file)?;
    let token_url = settings["access_token_url"].as_str().unwrap_or_default();
    process.wait_until(START_TIMEOUT, || {
        let answer = http.post(token_url).form(&[("grant_type", "none")]).send().ok()?;
        (answer.status().as_u16() != 404).then_some(())
    })?;
    Ok(process)
}
