//! The limits of the machine: without file descriptors everything says so, and goes on when there are
//! some again. In a process of its own, whose limit nobody else feels.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::{env, fs::File, os::unix::fs::PermissionsExt, process::Command};

use oauth_mail_core::{Error, Kind, hooks::Plugin, log::Logger};
use oauth_mail_tests::fixture::STORE_KEY;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

const CHILD: &str = "OAUTH_MAIL_TEST_DESCRIPTORS";
const LIMIT: u64 = 200;

#[test]
fn out_of_file_descriptors_is_a_transient_failure_of_this_machine_wherever_it_is_met() {
    if env::var_os(CHILD).is_some() {
        return child();
    }
    let me = "out_of_file_descriptors_is_a_transient_failure_of_this_machine_wherever_it_is_met";
    let output = Command::new(env::current_exe().unwrap()).args([me, "--exact"]).env(CHILD, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn child() {
    let limit = Rlimit { current: Some(LIMIT), maximum: getrlimit(Resource::Nofile).maximum };
    setrlimit(Resource::Nofile, limit).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("key"), STORE_KEY).unwrap();
    std::fs::set_permissions(file("key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(file("ca.pem"), "not one").unwrap();
    let config =
        |name: &str, key: Value| json!({"store": format!("sqlite:{}", file(name).display()), "key": key}).to_string();
    let plugin = Plugin::new(&config("store.db", json!({"value": STORE_KEY})), Logger::silent()).unwrap();

    // Opened while nothing is left: its trusted roots cannot be read.
    let held = hold_all();
    told(plugin.open(&settings("localhost", json!({}))).err(), "trusted certificates");
    told(plugin.open(&settings("localhost", json!({"ca_file": file("ca.pem")}))).err(), "trusted certificates");
    drop(held);
    let handle = plugin.open(&settings("localhost", json!({}))).unwrap();
    let other = plugin.open(&settings("127.0.0.1", json!({}))).unwrap();
    let start = || handle.authenticate(r#"{"action":"start","deadline_ms":5000}"#).err().unwrap();
    assert_eq!(start().kind(), Kind::Transient);

    let held = hold_all();
    told(plugin.open(&settings("localhost", json!({"ca_file": file("ca.pem")}))).err(), "CA file");
    told(Plugin::new(&config("store.db", json!({"file": file("key")})), Logger::silent()).err(), "key file");
    told(Plugin::new(&config("other.db", json!({"value": STORE_KEY})), Logger::silent()).err(), "other.db");
    // By name, by address, and in an HTTP client that was never used.
    told(Some(start()), "localhost");
    told(other.authenticate(r#"{"action":"start","deadline_ms":5000}"#).err(), "");
    drop(held);

    // There is room again: each goes on, and nobody opened anything anew.
    for handle in [&handle, &other] {
        let error = handle.authenticate(r#"{"action":"start","deadline_ms":5000}"#).err().unwrap();
        assert!(error.kind() == Kind::Transient && error.message().contains("cannot be reached"), "{error}");
    }
    assert_eq!(
        plugin.open(&settings("localhost", json!({"ca_file": file("ca.pem")}))).err().unwrap().kind(),
        Kind::Settings
    );
}

fn hold_all() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

fn told(error: Option<Error>, about: &str) {
    let error = error.unwrap();
    assert_eq!(error.kind(), Kind::Transient, "{error}");
    assert!(error.message().contains(&format!("no file descriptor left (limit {LIMIT})")), "{error}");
    assert!(error.message().contains(about), "{error}");
    assert!(error.is_of_host(), "{error}");
}

/// An application, which asks for a token at once; nobody listens there.
fn settings(host: &str, more: Value) -> String {
    let mut advanced = json!({"grant": "client_credentials"});
    advanced.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"incoming": {
        "connection_protocol": "POP/IMAP/POPS/IMAPS", "authentication_type": "OAuth",
        "server_name": host, "username": "help@desk.test", "email_addresses": ["help@desk.test"],
        "client_id": "client", "client_secret": "secret",
        "authorize_url": format!("https://{host}:1/authorize"), "access_token_url": format!("https://{host}:1/token"),
        "scope": "mail", "redirect_url": "https://desk.test/callback", "advanced": advanced,
    }})
    .to_string()
}
