//! Authorization servers with alice and bob (`NAME-password`), behind [`Front`], and the pages that a person sees there.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use reqwest::{
    blocking::{Client, Response},
    header::{LOCATION, REFERER},
};
use serde_json::{Value, json};
use url::Url;

use super::https_front::Front;
use crate::{Error, Result, ca::Ca, process::Process, sources::root, wire};

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
    pub userinfo: String,
    ca_file: PathBuf,
    name: &'static str,
    command: Command,
    log: PathBuf,
    port: u16,
    process: Process,
}

#[derive(Clone, Copy, Debug)]
pub struct Person {
    pub name: &'static str,
    pub allows: bool,
}

pub fn django_oauth_toolkit(folder: &Path, ca: &Ca) -> Result<Server> {
    let ours = root().join("tests/families");
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let front = Front::start(ca, port)?;
    let python = crate::process::installed(&[&ours.join(".venv/bin/python").to_string_lossy()])?;
    let mut command = Command::new(python);
    command.arg(ours.join("django_server.py")).args([&port.to_string(), &front.base]).arg(folder);
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
    let process = started("django-oauth-toolkit", &command, &log, port)?;
    Ok(Server {
        settings,
        device: Ok(device),
        private_key_jwt: Err("it knows secrets alone".to_owned()),
        userinfo: format!("{base}/userinfo/"),
        ca_file: ca.ca_file.clone(),
        name: "django-oauth-toolkit",
        front,
        command,
        log,
        port,
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
        self.process = started(self.name, &self.command, &self.log, self.port)?;
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
        let answer = self.browser()?.post(format!("{}/test/withdraw", self.front.base)).send()?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(Error::new(format!("withdrawing: {}", answer.status()))),
        }
    }

    /// Signs in, allows or denies: where the browser is sent, unopened.
    pub fn consent(&self, authorize_url: &str, person: Person) -> Result<Url> {
        let redirect = self.walk(authorize_url, &[], person)?;
        redirect.ok_or_else(|| Error::new("the pages end without a redirect"))
    }

    /// The same at the page for device codes.
    pub fn enter_device_code(&self, page: &str, code: &str, person: Person) -> Result<()> {
        self.walk(page, &[("user_code", code)], person).map(drop)
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
            "username" => person.name,
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
    if html.contains("name=\"action\"") {
        form.push(("action".to_owned(), if person.allows { "accept" } else { "deny" }.to_owned()));
    }
    // Django wants it beside its token where the page is https.
    Ok(Some(http.post(url.clone()).header(REFERER, url.as_str()).form(&form).send()?))
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let rest = &tag[tag.find(&format!(" {name}=\""))? + name.len() + 3..];
    rest.split('"').next()
}

fn started(name: &str, command: &Command, log: &Path, port: u16) -> Result<Process> {
    let process = Process::start(name, command, log)?;
    process.wait_until(START_TIMEOUT, || TcpStream::connect(("127.0.0.1", port)).ok())?;
    Ok(process)
}
