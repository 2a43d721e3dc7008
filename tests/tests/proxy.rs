//! Everything of a mailbox goes through an HTTP proxy: tinyproxy, with a user and a password.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use oauth_mail_sandbox::Config;
use oauth_mail_tests::{
    fixture::authenticate,
    mailbox::note,
    process::Process,
    sandboxed::{Desk, Protocol},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const PASSWORD: &str = "pr0xy-pass";

struct Tinyproxy {
    process: Process,
    port: u16,
    folder: TempDir,
}

impl Tinyproxy {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("om-proxy").tempdir().unwrap();
        fs::write(folder.path().join("password"), format!("{PASSWORD}\n")).unwrap();
        // It takes no port 0; somebody else may take the free one in between.
        let launched = (0..3).find_map(|_| {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let config = folder.path().join("tinyproxy.conf");
            let lines = format!(
                "Port {port}\nListen 127.0.0.1\nTimeout 60\nLogLevel Connect\nBasicAuth desk {PASSWORD}\nDisableViaHeader Yes\n"
            );
            fs::write(&config, lines).unwrap();
            let mut command = Command::new("tinyproxy");
            command.arg("-d").arg("-c").arg(&config);
            let process = Process::start("tinyproxy", &command, &folder.path().join("log")).unwrap();
            let answers = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok();
            let is_up = process.wait_until(Duration::from_secs(10), answers).is_ok();
            is_up.then_some((process, port))
        });
        let (process, port) = launched.expect("tinyproxy starts (tests/install.sh installs it)");
        Self { process, port, folder }
    }

    /// What `advanced` says of it.
    fn enter(&self, form: &mut Value) {
        let advanced = &mut form["advanced"];
        advanced["proxy"] = json!(format!("http://127.0.0.1:{}", self.port));
        advanced["proxy_user"] = json!("desk");
        advanced["proxy_password"] = json!({"file": self.password()});
    }

    fn password(&self) -> PathBuf {
        self.folder.path().join("password")
    }

    /// Has it connected to this port of the sandbox?
    fn connected_to(&self, port: u16) -> bool {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap();
        log.contains(&format!("CONNECT localhost:{port} ")) || log.contains(&format!("CONNECT 127.0.0.1:{port} "))
    }
}

fn diagnose(handle: &oauth_mail_core::hooks::Handle, send: bool) -> Value {
    authenticate(handle, json!({"action": "diagnose", "send": send, "refresh": true})).unwrap()
}

fn step<'a>(diagnosis: &'a Value, name: &str) -> &'a Value {
    diagnosis["steps"].as_array().unwrap().iter().find(|step| step["step"] == name).unwrap()
}

#[test]
fn imap_smtp_ews_graph_and_tokens_go_through_a_real_proxy() {
    let mut proxy = Tinyproxy::start();
    for protocol in Protocol::ALL {
        let desk = Desk::new(protocol, Config::default());
        desk.deliver("alice", &note(1));
        let facts = desk.sandbox.facts();
        for form in ["incoming", "outgoing"] {
            let handle = desk.open("alice", form, |form| proxy.enter(form));
            let diagnosis = diagnose(&handle, form == "outgoing");
            assert_eq!(diagnosis["healthy"], true, "{protocol:?} {form}: {diagnosis:#}");
            let place = format!("the proxy 127.0.0.1:{}", proxy.port);
            for (name, member) in [("dns", "means"), ("tcp", "saw"), ("tls", "saw")] {
                let told = step(&diagnosis, name)[member].as_str().unwrap();
                assert!(told.to_lowercase().contains(&place), "{protocol:?} {name}: {told}");
            }
            let token_url = facts["token_url"].as_str().unwrap().parse::<url::Url>().unwrap();
            assert!(proxy.connected_to(token_url.port().unwrap()), "tokens");
            assert!(!diagnosis.to_string().contains(PASSWORD));
        }
        if protocol == Protocol::Imap {
            for port in ["imaps_port", "submission_port"] {
                assert!(proxy.connected_to(u16::try_from(facts[port].as_u64().unwrap()).unwrap()), "{port}");
            }
        }
    }
    // Nothing goes past it: with another password, and without it, nothing works, and the proxy is named.
    let desk = Desk::new(Protocol::Imap, Config::default());
    let handle = desk.open("alice", "incoming", |form| proxy.enter(form));
    fs::write(proxy.password(), "another\n").unwrap();
    let refused = diagnose(&handle, false);
    for name in ["tcp", "token"] {
        let step = step(&refused, name);
        assert_eq!(step["status"], "failed", "{name}: {refused:#}");
        assert!(step["means"].as_str().unwrap().contains("refuses the user and password"), "{name}: {refused:#}");
        assert!(step["remedy"].as_str().unwrap().contains("Proxy User and Proxy Password"), "{name}: {refused:#}");
    }
    proxy.process.stop();
    let error = handle.fetch_batch("{}").map(drop).unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(error.message().contains(&format!("The proxy 127.0.0.1:{} cannot be reached", proxy.port)), "{error}");
    let status = authenticate(&handle, json!({"action": "status"})).unwrap();
    assert_eq!(status["state"], "authorized", "the sign-in is not to blame: {status:#}");
}
