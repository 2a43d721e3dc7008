//! The authorization server: npm oidc-provider behind `tests/idp/server.mjs`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::blocking;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    Error, Result,
    ca::Ca,
    process::{self, Process},
    wire,
};

/// Node begins slowly on a machine that has much to do.
const START_TIMEOUT: Duration = Duration::from_secs(150);

/// A public client with PKCE, loopback redirect on any port, one-hour access tokens, rotating refresh tokens.
pub const NATIVE: &str = "mail-native";
/// As [`NATIVE`], but access tokens live [`SHORT_SECONDS`].
pub const SHORT: &str = "mail-short";
/// How long its access tokens live.
pub const SHORT_SECONDS: u64 = 6;
/// As [`NATIVE`], but a refresh returns the refresh token it was given.
pub const NO_ROTATION: &str = "mail-norotate";
/// As [`NO_ROTATION`], but access tokens live one minute.
pub const MINUTE: &str = "mail-minute";
/// As [`NO_ROTATION`], but the answer to a refresh carries no refresh token at all: the old one stays good.
pub const OMITS_REFRESH: &str = "mail-omits-refresh";
/// As [`NATIVE`], but refresh tokens die after five seconds and access tokens after two.
pub const REFRESH_SHORT: &str = "mail-refresh-short";
/// As [`NATIVE`], but neither id_token nor userinfo names the address.
pub const NO_EMAIL: &str = "mail-noemail";
/// As [`NATIVE`], but only userinfo names the address.
pub const EMAIL_IN_USERINFO: &str = "mail-userinfo";
/// Confidential clients and their secrets; same redirects.
pub const BASIC: (&str, &str) = ("mail-basic", "basic-secret+with/odd:characters");
pub const POST: (&str, &str) = ("mail-post", "post-secret+with/odd:characters");

/// The client as which Dovecot introspects.
pub const DOVECOT: (&str, &str) = ("dovecot", "dovecot-secret");

/// Somebody with a mailbox.
#[derive(Clone, Debug)]
pub struct User {
    pub address: String,
    pub password: String,
    /// The shared mailbox that this person may read, as introspection says it.
    pub delegate_of: Option<String>,
}

pub struct Idp {
    process: Process,
    pub port: u16,
    /// `https://localhost:PORT`, no slash at the end.
    pub issuer: String,
    folder: PathBuf,
    config: Value,
    http: blocking::Client,
}

/// A request to the authorization server, as it wrote it down.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub status: u64,
    pub grant_type: Option<String>,
    pub client_id: Option<String>,
    pub error: Option<String>,
}

impl Idp {
    pub fn start(folder: &Path, ca: &Ca, users: &[User]) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let config = json!({
            "port": 0,
            "tls_certificate": ca.server_certificate,
            "tls_key": ca.server_key,
            "request_log": folder.join("requests.jsonl"),
            "users": users.iter().map(|u| json!({"address": u.address, "password": u.password, "delegate_of": u.delegate_of})).collect::<Vec<_>>(),
            "clients": clients(),
        });
        let http = wire::http_client(&ca.ca_file)?;
        let (process, port) = launch(folder, &config)?;
        Ok(Self { process, port, issuer: format!("https://localhost:{port}"), folder: folder.to_owned(), config, http })
    }

    pub fn authorize_url(&self) -> String {
        format!("{}/auth", self.issuer)
    }

    pub fn token_url(&self) -> String {
        format!("{}/token", self.issuer)
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// An HTTP client that trusts this server and follows no redirect.
    pub fn http(&self) -> &blocking::Client {
        &self.http
    }

    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// Comes back on the same port, having forgotten everything that was granted. For an outage that forgets nothing:
    /// [`Self::fault`].
    pub fn restart(&mut self) -> Result<()> {
        self.process.stop();
        self.config["port"] = json!(self.port);
        (self.process, _) = launch(&self.folder, &self.config)?;
        Ok(())
    }

    /// What the next requests to a path meet:
    /// `{"path":"/token","times":1,"status":503,"headers":{},"body":"","delay_ms":0}` (these are the defaults);
    /// `"status":0` only delays; `"drop":true` closes the connection unread; `"lose":true` works the request off and
    /// breaks the connection before the first byte of the answer.
    pub fn fault(&self, fault: Value) -> Result<()> {
        self.admin("fault", fault).map(drop)
    }

    /// Forgets the faults that are still waiting.
    pub fn reset_faults(&self) -> Result<()> {
        self.admin("reset", json!({})).map(drop)
    }

    /// The person withdraws consent: every token and grant is gone.
    pub fn revoke(&self, address: &str) -> Result<()> {
        self.admin("revoke", json!({"address": address})).map(drop)
    }

    /// Only the access tokens die; the refresh tokens stay good.
    pub fn revoke_access_tokens(&self, address: &str) -> Result<()> {
        self.admin("revoke", json!({"address": address, "only": "access"})).map(drop)
    }

    /// Only the refresh tokens die; a session that is open goes on until it needs a new access token.
    pub fn revoke_refresh_tokens(&self, address: &str) -> Result<()> {
        self.admin("revoke", json!({"address": address, "only": "refresh"})).map(drop)
    }

    /// Registers a client while the server runs: client metadata (RFC 7591), with `certificate` or `public_key` (PEM) in
    /// place of its jwks, `test_mailbox` (the address an application's own tokens are for) and `test_delegated` (those a
    /// service account may speak for). Again: replaces it.
    pub fn register(&self, client: Value) -> Result<()> {
        self.admin("client", client).map(drop)
    }

    pub fn device_authorization_url(&self) -> String {
        format!("{}/device/auth", self.issuer)
    }

    /// Every request so far, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        let text = fs::read_to_string(self.folder.join("requests.jsonl")).unwrap_or_default();
        let parse = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            let field = |name: &str| line[name].as_str().map(str::to_owned);
            Some(Request {
                path: field("path")?,
                status: line["status"].as_u64()?,
                grant_type: field("grant_type"),
                client_id: field("client_id"),
                error: field("error"),
            })
        };
        text.lines().filter_map(parse).collect()
    }

    /// How many token requests of this grant type were answered with success.
    pub fn granted(&self, grant_type: &str) -> usize {
        let fits = |r: &Request| r.path == "/token" && r.status == 200 && r.grant_type.as_deref() == Some(grant_type);
        self.requests().iter().filter(|request| fits(request)).count()
    }

    /// Successful refreshes.
    pub fn refreshes(&self) -> usize {
        self.granted("refresh_token")
    }

    /// Redeems a code at the token endpoint, or refreshes: form fields in, status and answer out. Public clients only.
    pub fn token_request(&self, form: &[(&str, &str)]) -> Result<(u16, Value)> {
        let answer = self.http.post(self.token_url()).form(form).send()?;
        let status = answer.status().as_u16();
        let text = answer.text()?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    fn admin(&self, what: &str, body: Value) -> Result<Value> {
        let answer = self.http.post(format!("{}/test/{what}", self.issuer)).body(body.to_string()).send()?;
        let (status, text) = (answer.status(), answer.text()?);
        if !status.is_success() {
            return Err(Error::new(format!("/test/{what} says {status}: {text}")));
        }
        serde_json::from_str(&text).map_err(Error::doing(format_args!("the answer of /test/{what}")))
    }
}

/// A start takes one or two seconds.
const START_PATIENCE: Duration = Duration::from_secs(25);

fn launch(folder: &Path, config: &Value) -> Result<(Process, u16)> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("idp");
    process::installed(&[&scripts.join("node_modules/oidc-provider").to_string_lossy()])?;
    let node = process::on_path("node")?;
    let config_file = folder.join("idp.json");
    fs::write(&config_file, config.to_string())?;
    let log = folder.join("idp.log");
    let _ = fs::remove_file(&log);
    let mut command = Command::new(node);
    command.arg(scripts.join("server.mjs")).arg(&config_file);
    // Node.js has been seen to stand still while it starts, about once in some hundred starts; another one does not.
    for patience in [START_PATIENCE, START_PATIENCE, START_TIMEOUT] {
        let process = Process::start("the authorization server", &command, &log)?;
        let port = process.wait_until(patience, || {
            let text = fs::read_to_string(&log).ok()?;
            let ready = text.lines().find_map(|line| serde_json::from_str::<Value>(line).ok())?;
            u16::try_from(ready["port"].as_u64()?).ok()
        });
        match port {
            Ok(port) => return Ok((process, port)),
            Err(error) if patience == START_TIMEOUT => return Err(error),
            Err(_) => {
                drop(process);
                let _ = fs::remove_file(&log);
            }
        }
    }
    Err(Error::new("The authorization server did not start."))
}

fn clients() -> Value {
    let base = json!({
        "redirect_uris": ["http://127.0.0.1/callback", "http://127.0.0.1/oauth/callback", "http://localhost/callback"],
        "response_types": ["code"],
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        // RFC 8252 section 7.3: any port of the loopback redirect is accepted.
        "application_type": "native",
        "token_endpoint_auth_method": "none",
    });
    let with = |client_id: &str, more: Value| {
        let mut client = base.clone();
        client["client_id"] = json!(client_id);
        for (key, value) in more.as_object().into_iter().flatten() {
            client[key] = value.clone();
        }
        client
    };
    let confidential = |(client_id, secret): (&str, &str), method: &str| {
        with(client_id, json!({"client_secret": secret, "token_endpoint_auth_method": method}))
    };
    json!([
        with(NATIVE, json!({})),
        with(SHORT, json!({"test_access_seconds": SHORT_SECONDS})),
        with(NO_ROTATION, json!({"test_rotate": false})),
        with(MINUTE, json!({"test_rotate": false, "test_access_seconds": 60})),
        with(OMITS_REFRESH, json!({"test_rotate": false, "test_omit_refresh": true})),
        with(REFRESH_SHORT, json!({"test_access_seconds": 2, "test_refresh_seconds": 5})),
        with(NO_EMAIL, json!({"test_email_in": "nowhere"})),
        with(EMAIL_IN_USERINFO, json!({"test_email_in": "userinfo"})),
        confidential(BASIC, "client_secret_basic"),
        confidential(POST, "client_secret_post"),
        {"client_id": DOVECOT.0, "client_secret": DOVECOT.1, "redirect_uris": [], "response_types": [], "grant_types": []},
    ])
}

/// RFC 7636 section 4.2.
pub fn code_challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}
