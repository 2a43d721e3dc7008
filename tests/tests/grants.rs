//! Every grant on a real authorization server, down to mail that is fetched: device codes, applications with secret and
//! with certificate, service accounts. Time moves by the library's clock.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, process::Command, thread, time::Duration};

use oauth_mail_core::{
    Kind,
    hooks::{Handle, Plugin},
    limits,
};
use oauth_mail_tests::{
    Servers,
    browser::{self, Person},
    fixture::{Fixture, Turn, authenticate, consent},
    mailgen::Generator,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const HOUR: i64 = 3_600;
/// Where an assertion is signed, time cannot move: the server would find it made in the future.
const ACCESS_SECONDS: u64 = 6;
const DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

#[test]
fn a_device_code_is_pending_until_a_person_has_allowed_it() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let mut settings = with(servers.incoming_settings("alice"), json!({"grant": "device_code"}));
    settings["incoming"]["scope"] = json!("openid email offline_access mail");
    let handle = open(&fixture.plugin, &settings);
    let started = authenticate(&handle, json!({"action": "start"})).unwrap();
    assert_eq!((&started["state"], &started["interval_seconds"]), (&json!("device_code"), &json!(5)));
    let asked = || servers.idp.requests().iter().filter(|r| r.grant_type.as_deref() == Some(DEVICE)).count();
    let before = asked();
    for _ in 0..3 {
        assert_eq!(poll(&handle).unwrap()["state"], "device_code");
    }
    assert_eq!(asked(), before, "not before the interval is over");
    fixture.clock.advance(5);
    assert_eq!(poll(&handle).unwrap()["state"], "device_code");
    assert_eq!(asked(), before + 1);

    // The process ends; another one goes on asking for the same code.
    drop(handle);
    let again = fixture.plugin_again();
    let handle = open(&again, &settings);
    let page = enter(&servers, &started, "alice", false);
    assert!(page.contains("Success"), "{page}");
    fixture.clock.advance(5);
    let authorized = poll(&handle).unwrap();
    assert_eq!(authorized["state"], "authorized", "{authorized}");
    assert_eq!(authorized["identity"], servers.address("alice"));
    assert_eq!(authorized["proof"]["mechanism"], "XOAUTH2", "{authorized}");
    fetched(&servers, &handle, "alice");
    fixture.clock.advance(HOUR);
    let refreshes = servers.idp.refreshes();
    fetched(&servers, &open(&again, &settings), "alice");
    assert_eq!(servers.idp.refreshes(), refreshes + 1, "it lives on as any consent does");
    assert_eq!(poll(&handle).unwrap_err().kind(), Kind::Misuse, "no code is waiting any more");
}

#[test]
fn a_device_code_that_is_denied_forgotten_or_entered_by_somebody_else_opens_nothing() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let mut settings = with(servers.incoming_settings("alice"), json!({"grant": "device_code"}));
    settings["incoming"]["scope"] = json!("openid email offline_access mail");
    let handle = open(&fixture.plugin, &settings);
    let start = || authenticate(&handle, json!({"action": "start"})).unwrap();

    enter(&servers, &start(), "alice", true);
    fixture.clock.advance(5);
    let denied = poll(&handle).unwrap_err();
    assert_eq!(denied.kind(), Kind::ConsentRequired);
    assert!(denied.message().contains("declined"), "{denied}");

    start();
    fixture.clock.advance(600);
    let late = poll(&handle).unwrap_err();
    assert!(late.kind() == Kind::ConsentRequired && late.message().contains("in time"), "{late}");

    enter(&servers, &start(), "bob", false);
    fixture.clock.advance(5);
    let other = poll(&handle).unwrap_err();
    assert_eq!(other.kind(), Kind::Refused);
    assert!(other.message().contains("bob@"), "{other}");
    assert_eq!(status(&handle)["state"], "consent_required");

    let misuse = authenticate(&handle, json!({"action": "complete", "redirect": "http://127.0.0.1/callback?code=x"}));
    assert_eq!(misuse.unwrap_err().kind(), Kind::Misuse);
}

#[test]
fn an_application_with_a_secret_opens_its_mailbox_and_no_other() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    for method in ["client_secret_basic", "client_secret_post"] {
        register(
            &servers,
            method,
            json!({"token_endpoint_auth_method": method, "client_secret": "application+secret"}),
        );
        let mut settings = application(&servers, "alice", method, json!({}));
        settings["incoming"]["client_secret"] = json!("application+secret");
        let handle = open(&fixture.plugin, &settings);
        assert_eq!(status(&handle)["state"], "consent_required");
        let started = authenticate(&handle, json!({"action": "start"})).unwrap();
        assert_eq!(started["state"], "authorized", "{started}");
        assert_eq!(started["warnings"], json!([]));
        fetched(&servers, &handle, "alice");
        // No refresh token: asked anew, once.
        let before = servers.idp.granted("client_credentials");
        fixture.clock.advance(HOUR - limits::TOKEN_EARLY.as_secs() as i64 + 1);
        for _ in 0..3 {
            fetched(&servers, &open(&fixture.plugin, &settings), "alice");
        }
        assert_eq!(servers.idp.granted("client_credentials"), before + 1);

        // The token is for alice's mailbox; the mail server has the last word.
        let mut bob = application(&servers, "bob", method, json!({}));
        bob["incoming"]["client_secret"] = json!("application+secret");
        let handle = open(&fixture.plugin, &bob);
        let error = authenticate(&handle, json!({"action": "start"})).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error:?}");
        assert_eq!(status(&handle)["state"], "consent_required", "nothing is kept");

        settings["incoming"]["client_secret"] = json!("another secret");
        let handle = open(&fixture.plugin_again(), &settings);
        let error = authenticate(&handle, json!({"action": "start"})).unwrap_err();
        assert_eq!(error.faults()[0].pointer, "/incoming/client_secret", "{error:?}");
    }
}

#[test]
fn a_certificate_is_read_at_each_use_and_its_faults_are_named() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let keys = Keys::new();
    for kind in ["rsa", "ec"] {
        let certificate = keys.pair(kind, 2096);
        register(&servers, "certified", certified(&certificate));
        let settings = application(&servers, "alice", "certified", json!({"client_certificate": keys.references()}));
        let handle = open(&fixture.plugin, &settings);
        assert_eq!(authenticate(&handle, json!({"action": "start"})).unwrap()["state"], "authorized", "{kind}");
        fetched(&servers, &handle, "alice");

        // Both are replaced, at the provider and on disk, while the handle stays open.
        let certificate = keys.pair(kind, 2096);
        register(&servers, "certified", certified(&certificate));
        wait_for_the_end_of_a_token();
        fetched(&servers, &open(&fixture.plugin, &settings), "alice");

        let refused = || authenticate(&handle, json!({"action": "start"})).unwrap_err();
        // On disk only: the provider does not know the new one.
        keys.pair(kind, 2096);
        let error = refused();
        assert_eq!(error.faults()[0].pointer, "/incoming/advanced/client_certificate", "{kind}: {error:?}");
        let certificate = fs::read(keys.path("certificate.pem")).unwrap();
        keys.pair(kind, 2096);
        fs::write(keys.path("certificate.pem"), certificate).unwrap();
        let error = refused();
        assert_eq!(error.faults()[0].pointer, "/incoming/advanced/client_certificate/private_key");
        assert!(error.message().contains("does not belong"), "{error}");
    }
    let settings = application(&servers, "alice", "certified", json!({"client_certificate": keys.references()}));
    let handle = open(&fixture.plugin, &settings);
    keys.pair("ec", 2025);
    let before = servers.idp.requests().len();
    let error = authenticate(&handle, json!({"action": "start"})).unwrap_err();
    assert_eq!(error.faults()[0].pointer, "/incoming/advanced/client_certificate/certificate");
    assert!(error.message().contains("expired"), "{error}");
    assert!(servers.idp.requests().len() <= before + 1, "nothing but the metadata is asked for");
}

#[test]
fn a_person_consents_to_a_client_with_a_certificate() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let keys = Keys::new();
    let code = |certificate: &str| {
        let client = json!({
            "client_id": "certified-code", "certificate": certificate, "token_endpoint_auth_method": "private_key_jwt",
            "application_type": "native", "redirect_uris": ["http://127.0.0.1/callback"], "response_types": ["code"],
            "grant_types": ["authorization_code", "refresh_token"], "test_access_seconds": ACCESS_SECONDS,
        });
        servers.idp.register(client).unwrap();
    };
    code(&keys.pair("rsa", 2096));
    let mut settings = with(servers.incoming_settings("alice"), json!({"client_certificate": keys.references()}));
    settings["incoming"]["client_id"] = json!("certified-code");
    let handle = open(&fixture.plugin, &settings);
    consent(&servers, &handle, "alice").unwrap();
    fetched(&servers, &handle, "alice");
    code(&keys.pair("rsa", 2096));
    wait_for_the_end_of_a_token();
    let before = servers.idp.refreshes();
    fetched(&servers, &open(&fixture.plugin, &settings), "alice");
    assert_eq!(servers.idp.refreshes(), before + 1);
    let revoked = authenticate(&handle, json!({"action": "revoke"})).unwrap();
    assert_eq!(revoked["at_provider"], true, "{revoked}");
}

#[test]
fn a_service_account_opens_the_mailboxes_it_was_given() {
    const EMAIL: &str = "desk@project.iam.example.test";
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let keys = Keys::new();
    let delegated = |key: &str, names: &[&str]| {
        let client = json!({
            "client_id": EMAIL, "public_key": key, "token_endpoint_auth_method": "none", "redirect_uris": [],
            "response_types": [], "grant_types": [JWT_BEARER],
            "test_access_seconds": ACCESS_SECONDS,
            "test_delegated": names.iter().map(|name| servers.address(name)).collect::<Vec<_>>(),
        });
        servers.idp.register(client).unwrap();
    };
    let settings = |name: &str| {
        let reference = json!({"file": keys.path("service-account.json")});
        with(servers.incoming_settings(name), json!({"grant": "jwt_bearer", "service_account": reference}))
    };
    delegated(&keys.service_account(EMAIL), &["alice", "carol"]);
    for name in ["alice", "carol"] {
        let handle = open(&fixture.plugin, &settings(name));
        let started = authenticate(&handle, json!({"action": "start"})).unwrap();
        assert_eq!(started["state"], "authorized", "{started}");
        fetched(&servers, &handle, name);
    }
    // A new key, on disk and at the provider: used for the next token.
    delegated(&keys.service_account(EMAIL), &["alice"]);
    wait_for_the_end_of_a_token();
    let before = servers.idp.granted(JWT_BEARER);
    fetched(&servers, &open(&fixture.plugin, &settings("alice")), "alice");
    assert_eq!(servers.idp.granted(JWT_BEARER), before + 1);

    // No longer delegated; never a mailbox; a key that the provider does not know.
    let error = open(&fixture.plugin, &settings("carol")).fetch_batch("{}").map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::AdminRequired, "{error:?}");
    assert!(error.to_json()["remedy"].as_str().unwrap().contains("Domain-wide delegation"), "{error:?}");
    let mut nobody = settings("alice");
    nobody["incoming"]["username"] = json!("nobody@example.test");
    let start = |settings: &Value| authenticate(&open(&fixture.plugin, settings), json!({"action": "start"}));
    let error = start(&nobody).unwrap_err();
    assert!(error.kind() == Kind::AdminRequired && error.message().contains("nobody@example.test"), "{error:?}");
    keys.service_account(EMAIL);
    assert_eq!(start(&settings("alice")).unwrap_err().kind(), Kind::AdminRequired);
    fs::write(keys.path("service-account.json"), "{}").unwrap();
    let error = start(&settings("alice")).unwrap_err();
    assert_eq!(error.faults()[0].pointer, "/incoming/advanced/service_account");
}

/// A certificate and its key, or a service account's key, on disk.
struct Keys(TempDir);

impl Keys {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn references(&self) -> Value {
        json!({
            "certificate": {"file": self.path("certificate.pem")},
            "private_key": {"file": self.path("key.pem")},
        })
    }

    /// Writes a new pair, and returns the certificate.
    fn pair(&self, kind: &str, last_year: i32) -> String {
        let key = match kind {
            "rsa" => rcgen::KeyPair::from_pem(&rsa_key(&self.path("key.pem"))).unwrap(),
            _ => rcgen::KeyPair::generate().unwrap(),
        };
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2024, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(last_year, 1, 1);
        let certificate = parameters.self_signed(&key).unwrap().pem();
        fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
        fs::write(self.path("certificate.pem"), &certificate).unwrap();
        certificate
    }

    /// Writes Google's JSON key, and returns the public key.
    fn service_account(&self, email: &str) -> String {
        let pem = rsa_key(&self.path("service-account.pem"));
        let file = json!({
            "type": "service_account", "project_id": "project", "private_key_id": "0123456789", "private_key": pem,
            "client_email": email, "client_id": "100000000000000000001", "token_uri": "https://oauth2.googleapis.com/token",
        });
        fs::write(self.path("service-account.json"), file.to_string()).unwrap();
        rcgen::KeyPair::from_pem(&pem).unwrap().public_key_pem()
    }
}

/// PKCS #8, PEM. rcgen makes no RSA keys without aws-lc; openssl comes with Dovecot.
fn rsa_key(path: &Path) -> String {
    let made = Command::new("openssl")
        .args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out"])
        .arg(path)
        .status()
        .unwrap();
    assert!(made.success());
    fs::read_to_string(path).unwrap()
}

/// A client that signs in as itself, for alice's mailbox.
fn register(servers: &Servers, client_id: &str, more: Value) {
    let mut client = json!({
        "client_id": client_id, "redirect_uris": [], "response_types": [], "grant_types": ["client_credentials"],
        "scope": "mail", "test_mailbox": servers.address("alice"),
    });
    client.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    servers.idp.register(client).unwrap();
}

fn certified(certificate: &str) -> Value {
    json!({
        "token_endpoint_auth_method": "private_key_jwt", "certificate": certificate,
        "test_access_seconds": ACCESS_SECONDS,
    })
}

fn wait_for_the_end_of_a_token() {
    thread::sleep(Duration::from_secs(ACCESS_SECONDS) + Duration::from_millis(200));
}

fn application(servers: &Servers, name: &str, client_id: &str, advanced: Value) -> Value {
    let mut settings = with(servers.incoming_settings(name), json!({"grant": "client_credentials"}));
    settings["incoming"]["client_id"] = json!(client_id);
    with(settings, advanced)
}

fn with(mut settings: Value, advanced: Value) -> Value {
    settings["incoming"]["advanced"].as_object_mut().unwrap().extend(advanced.as_object().unwrap().clone());
    settings["incoming"]["advanced"]["fetch_since"] = json!("all");
    settings
}

fn enter(servers: &Servers, started: &Value, name: &str, deny: bool) -> String {
    let (login, password) = (servers.address(name), format!("{name}-password"));
    let text = |name: &str| started[name].as_str().unwrap();
    let person = Person { login: &login, password: &password, deny };
    browser::enter_device_code(servers.ca_file(), text("verification_uri"), text("user_code"), &person).unwrap()
}

/// A message that is delivered now comes in.
#[track_caller]
fn fetched(servers: &Servers, handle: &Handle, name: &str) {
    servers.deliver(name, &Generator::new(3, 1).message(0)).unwrap();
    assert!(!handle.fetch_batch("{}").unwrap().messages.is_empty());
}

fn open(plugin: &Plugin, settings: &Value) -> Handle {
    plugin.open(&settings.to_string()).unwrap()
}

fn poll(handle: &Handle) -> oauth_mail_core::Result<Value> {
    authenticate(handle, json!({"action": "poll"}))
}

fn status(handle: &Handle) -> Value {
    authenticate(handle, json!({"action": "status"})).unwrap()
}

#[test]
fn the_library_says_which_grants_it_has() {
    let described: Value = serde_json::from_str(&oauth_mail_core::hooks::describe()).unwrap();
    assert_eq!(described["grants"], json!(["authorization_code", "device_code", "client_credentials", "jwt_bearer"]));
}
