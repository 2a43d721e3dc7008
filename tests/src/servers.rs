//! All servers at once.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use crate::{
    Error, Result,
    browser::{self, Person},
    ca::Ca,
    dovecot::Dovecot,
    idp::{self, Idp, User},
    mailgen::Generator,
    postfix::{self, Postfix},
    process::ProcessId,
};

/// The domain of every address. RFC 6761 keeps `.test` out of the real world.
pub const DOMAIN: &str = "example.test";
pub const SCOPE: &str = "openid offline_access mail";
/// In the settings; the provider accepts any port of 127.0.0.1 with this path (RFC 8252 section 7.3), and nobody listens.
pub const REDIRECT_URL: &str = "http://127.0.0.1:40123/callback";

/// A port is free when it is chosen and may be taken when it is used; then the server is started again elsewhere.
const START_ATTEMPTS: usize = 4;
/// Unix socket paths end at 108 bytes; the longest below the folder needs about 40.
const FOLDER_MAX: usize = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailboxFormat {
    Maildir,
    Mdbox,
}

/// What differs from one test to the next.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of the people; each has NAME@example.test with the password NAME-password.
    pub users: Vec<String>,
    /// Who may read whose mailbox by IMAP and send as it; SMTP knows the delegate only by the own name, as Exchange
    /// Online does.
    pub delegates: Vec<(String, String)>,
    pub format: MailboxFormat,
    /// Announced by IMAP instead of what Dovecot can do, for example without SASL-IR, MOVE or UIDPLUS.
    pub imap_capability: Option<String>,
    pub max_connections_per_user: usize,
    /// Postfix's SIZE, bytes.
    pub message_size_limit: u64,
    /// More lines of dovecot.conf and main.cf.
    pub dovecot_extra: String,
    pub postfix_extra: String,
    /// Where the temporary folder is made; the system's default when `None`. For benchmarks: /dev/shm.
    pub parent: Option<PathBuf>,
}

/// # Defaults
/// alice and bob with Maildirs, Dovecot's own capabilities, 100 connections each, messages up to 64 MiB.
impl Default for Options {
    fn default() -> Self {
        Self {
            users: vec!["alice".to_owned(), "bob".to_owned()],
            delegates: Vec::new(),
            format: MailboxFormat::Maildir,
            imap_capability: None,
            max_connections_per_user: 100,
            message_size_limit: 64 << 20,
            dovecot_extra: String::new(),
            postfix_extra: String::new(),
            parent: None,
        }
    }
}

/// Running servers. Fields are dropped in this order: whoever asks goes before who answers.
pub struct Servers {
    pub postfix: Postfix,
    pub dovecot: Dovecot,
    pub idp: Idp,
    pub ca: Ca,
    pub users: Vec<User>,
    dir: TempDir,
}

impl Servers {
    pub fn start(options: Options) -> Result<Self> {
        let dir = short_folder(options.parent.as_deref())?;
        let delegate_of = |name: &str| {
            let found = options.delegates.iter().find(|(delegate, _)| delegate == name);
            found.map(|(_, mailbox)| user(mailbox).address)
        };
        let users: Vec<_> =
            options.users.iter().map(|name| User { delegate_of: delegate_of(name), ..user(name) }).collect();
        let ca = Ca::create(dir.path())?;
        // The compiler works while node starts.
        let shim = thread::spawn({
            let folder = dir.path().to_owned();
            move || postfix::compile_shim(&folder)
        });
        let idp = Idp::start(&dir.path().join("idp"), &ca, &users)?;
        let shim = shim.join().map_err(|_| Error::new("compiling failed"))??;
        let dovecot = with_free_ports(|ports| {
            Dovecot::start(&dir.path().join("dovecot"), &ca, &idp, &users, &options, ports[0])
        })?;
        let postfix = with_free_ports(|ports| {
            Postfix::start(&dir.path().join("postfix"), &shim, &ca, &dovecot, &users, &options, (ports[0], ports[1]))
        })?;
        Ok(Self { postfix, dovecot, idp, ca, users, dir })
    }

    /// The temporary folder of these servers; gone after drop.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn ca_file(&self) -> &Path {
        &self.ca.ca_file
    }

    /// NAME@example.test.
    pub fn address(&self, name: &str) -> String {
        user(name).address
    }

    /// Every process that belongs to these servers.
    pub fn processes(&self) -> Vec<ProcessId> {
        [self.idp.process(), self.dovecot.process(), self.postfix.process()].iter().flat_map(|p| p.tree()).collect()
    }

    /// The incoming form for somebody's mailbox, as a person would fill it in: `{"incoming": {…}}`.
    pub fn incoming_settings(&self, name: &str) -> Value {
        let mut form = self.form(name, "POP/IMAP/POPS/IMAPS");
        let more = json!({
            "email_addresses": [self.address(name)],
            "protocol": "IMAPS",
            "port": self.dovecot.port,
            "fetch_interval_minutes": 1,
            "enable_email_debug": false,
            "disable_new_request_creation": false,
        });
        merge(&mut form, &more);
        json!({ "incoming": form })
    }

    /// The outgoing form, SMTPS: `{"outgoing": {…}}`.
    pub fn outgoing_settings(&self, name: &str) -> Value {
        let mut form = self.form(name, "SMTP/SMTPS");
        let more = json!({
            "sender_name": format!("Helpdesk of {name}"),
            "reply_to": self.address(name),
            "protocol": "SMTPS",
            "enable_tls": true,
            "port": self.postfix.smtps_port,
        });
        merge(&mut form, &more);
        json!({ "outgoing": form })
    }

    /// The outgoing form, submission with STARTTLS.
    pub fn outgoing_settings_starttls(&self, name: &str) -> Value {
        let mut settings = self.outgoing_settings(name);
        settings["outgoing"]["protocol"] = json!("SMTP");
        settings["outgoing"]["port"] = json!(self.postfix.submission_port);
        settings
    }

    /// What both forms share.
    fn form(&self, name: &str, connection_protocol: &str) -> Value {
        json!({
            "connection_protocol": connection_protocol,
            "authentication_type": "OAuth",
            "server_name": "localhost",
            "username": self.address(name),
            "client_id": idp::NATIVE,
            "authorize_url": self.idp.authorize_url(),
            "access_token_url": self.idp.token_url(),
            "scope": SCOPE,
            "redirect_url": REDIRECT_URL,
            "advanced": {
                "ca_file": self.ca_file(),
                "issuer": self.idp.issuer,
                // oidc-provider gives no refresh token without it (OpenID Connect Core section 11).
                "authorize_parameters": { "prompt": "consent" },
            },
        })
    }

    /// Somebody signs in and allows what is asked; the redirect URL, not opened.
    pub fn consent(&self, authorize_url: &str, name: &str) -> Result<Url> {
        let User { address, password, .. } = user(name);
        browser::walk(self.ca_file(), authorize_url, &Person { login: &address, password: &password, deny: false })
    }

    /// Somebody signs in and denies.
    pub fn deny(&self, authorize_url: &str, name: &str) -> Result<Url> {
        let User { address, password, .. } = user(name);
        browser::walk(self.ca_file(), authorize_url, &Person { login: &address, password: &password, deny: true })
    }

    /// A token of somebody for a public client, by the whole code flow: the token endpoint's answer.
    pub fn token(&self, name: &str, client_id: &str) -> Result<Value> {
        let redirect_uri = REDIRECT_URL;
        let verifier = "a-verifier-of-the-tests-that-is-long-enough-for-rfc-7636";
        let query = [
            ("client_id", client_id),
            ("response_type", "code"),
            ("redirect_uri", redirect_uri),
            ("scope", SCOPE),
            ("prompt", "consent"),
            ("state", "tests"),
            ("code_challenge", &idp::code_challenge(verifier)),
            ("code_challenge_method", "S256"),
        ];
        let url = Url::parse_with_params(&self.idp.authorize_url(), query)?;
        let redirect = self.consent(url.as_str(), name)?;
        let code = redirect.query_pairs().find(|(key, _)| key == "code").map(|(_, value)| value.into_owned());
        let code = code.ok_or_else(|| Error::new(format!("No code came back: {redirect}")))?;
        let (status, answer) = self.idp.token_request(&[
            ("grant_type", "authorization_code"),
            ("client_id", client_id),
            ("code", &code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ])?;
        if status == 200 { Ok(answer) } else { Err(Error::new(format!("The token endpoint says {status}: {answer}"))) }
    }

    /// An access token of somebody, one hour good.
    pub fn access_token(&self, name: &str) -> Result<String> {
        let answer = self.token(name, idp::NATIVE)?;
        answer["access_token"].as_str().map(str::to_owned).ok_or_else(|| Error::new("no access_token"))
    }

    /// Delivers one message as the outside world would.
    pub fn deliver(&self, name: &str, raw: &[u8]) -> Result<()> {
        self.dovecot.deliver(&self.address(name), raw)
    }

    /// Puts `count` generated messages of about `mean_kb` KB into somebody's INBOX; the same ones every time.
    pub fn fill(&self, name: &str, count: usize, mean_kb: usize) -> Result<()> {
        let generator = Generator::new(1, mean_kb);
        self.dovecot.fill(&self.address(name), "INBOX", (0..count).map(|number| generator.message(number)))
    }

    pub fn doveadm(&self, arguments: &[&str]) -> Result<String> {
        self.dovecot.doveadm(arguments)
    }

    pub fn count(&self, name: &str, folder: &str) -> Result<usize> {
        self.dovecot.count(&self.address(name), folder)
    }

    /// Waits until a folder holds `count` messages: delivery is asynchronous.
    pub fn wait_for(&self, name: &str, folder: &str, count: usize) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let now = self.count(name, folder)?;
            if now >= count {
                return Ok(());
            }
            if Instant::now() > end {
                let log = self.postfix.log();
                let tail: Vec<_> = log.lines().rev().take(10).collect();
                return Err(Error::new(format!("{folder} holds {now} of {count} messages; Postfix: {tail:#?}")));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn user(name: &str) -> User {
    User { address: format!("{name}@{DOMAIN}"), password: format!("{name}-password"), delegate_of: None }
}

fn merge(form: &mut Value, more: &Value) {
    for (key, value) in more.as_object().into_iter().flatten() {
        form[key] = value.clone();
    }
}

fn short_folder(parent: Option<&Path>) -> Result<TempDir> {
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
    let parent = if parent.as_os_str().len() > FOLDER_MAX { PathBuf::from("/tmp") } else { parent };
    let dir = tempfile::Builder::new().prefix("om").tempdir_in(&parent)?;
    // The servers may be another user than we are.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

/// Postfix and Dovecot cannot choose a port themselves and say which.
fn with_free_ports<T>(start: impl Fn([u16; 2]) -> Result<T>) -> Result<T> {
    let mut attempt = 1;
    loop {
        match start(free_ports()?) {
            Err(error) if attempt < START_ATTEMPTS && is_port_conflict(&error) => attempt += 1,
            other => return other,
        }
    }
}

fn is_port_conflict(error: &Error) -> bool {
    error.to_string().contains("in use")
}

fn free_ports() -> Result<[u16; 2]> {
    // Both are held until both are known: otherwise the second could be the first again.
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let ports = [listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()];
    Ok(ports)
}
