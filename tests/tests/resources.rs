//! Grants per resource: at a provider whose access tokens are for one service each, IMAP in and
//! Graph out live on one consent, and neither puts the other out.

#![allow(clippy::unwrap_used)]

use oauth_mail_core::{
    clock::Clock,
    hooks::{Handle, Plugin},
    log::Logger,
};
use oauth_mail_sandbox::{Config, Sandbox, faults::Face};
use oauth_mail_tests::{
    fixture::{STORE_KEY, authenticate, complete, parse},
    mailbox::round,
    sandboxed::{self, Protocol},
};
use serde_json::{Value, json};

const HOUR: i64 = 3_600;

struct Desk {
    sandbox: Sandbox,
    folder: tempfile::TempDir,
    clock: Clock,
}

impl Desk {
    fn new() -> Self {
        let sandbox = Sandbox::start(Config::default()).unwrap();
        Self { sandbox, folder: tempfile::tempdir().unwrap(), clock: Clock::default() }
    }

    fn plugin(&self) -> Plugin {
        let config = json!({"store": format!("sqlite:{}/store.db", self.folder.path().display()),
            "key": {"value": STORE_KEY}, "private_networks": "allow"});
        Plugin::with_clock(&config.to_string(), Logger::silent(), None, self.clock.clone()).unwrap()
    }

    fn settings(&self, protocol: Protocol, form: &str) -> Value {
        sandboxed::settings(&self.sandbox, protocol, "alice", form)
    }

    /// Incoming over IMAP, outgoing over Graph.
    fn open(&self, plugin: &Plugin) -> (Handle, Handle) {
        let open = |protocol, form| plugin.open(&self.settings(protocol, form).to_string()).unwrap();
        (open(Protocol::Imap, "incoming"), open(Protocol::Graph, "outgoing"))
    }

    /// The window in which alice signs in; the scopes that it asked for.
    fn consent(&self, handle: &Handle, also: &[Value]) -> String {
        let started = authenticate(handle, json!({"action": "start", "also": also})).unwrap();
        let url: url::Url = started["authorize_url"].as_str().unwrap().parse().unwrap();
        let redirect = sandboxed::consent(&self.sandbox, url.as_str(), "alice").unwrap();
        complete(handle, redirect.as_str()).unwrap();
        url.query_pairs().find(|(name, _)| name == "scope").unwrap().1.into_owned()
    }

    /// How often the token endpoint was asked: renewing asks no other.
    fn token_requests(&self) -> u64 {
        self.sandbox.state.faults.counted(Face::Oauth).requests
    }
}

fn send(handle: &Handle, key: &str) -> Value {
    let request = json!({"to": ["bob@example.test"], "subject": key, "text": "x", "idempotency_key": key});
    parse(&handle.send_message(&request.to_string(), &[]).unwrap())["outcome"].clone()
}

fn status(handle: &Handle) -> Value {
    authenticate(handle, json!({"action": "status"})).unwrap()
}

#[test]
fn two_resources_on_one_grant_need_one_window() {
    let desk = Desk::new();
    let plugin = desk.plugin();
    let (incoming, outgoing) = desk.open(&plugin);
    let asked = desk.consent(&incoming, &[desk.settings(Protocol::Graph, "outgoing")]);
    assert!(asked.contains("IMAP.AccessAsUser.All") && asked.contains("graph.microsoft.com/Mail.Send"), "{asked}");
    assert_eq!(status(&outgoing)["state"], "authorized", "nobody is asked twice");
    let before = desk.token_requests();
    assert_eq!(send(&outgoing, "one"), "sent");
    assert_eq!(send(&outgoing, "two"), "sent");
    assert_eq!(desk.token_requests(), before + 1, "the first token for the other resource");
    // One refresh for each resource and expiry, from a restart on.
    drop((incoming, outgoing, plugin));
    let plugin = desk.plugin();
    let mut requests = desk.token_requests();
    for turn in 0..3 {
        desk.clock.advance(HOUR);
        let (incoming, outgoing) = desk.open(&plugin);
        for _ in 0..2 {
            round(&incoming, &json!({})).unwrap();
            assert_eq!(send(&outgoing, &format!("turn {turn}")), "sent");
        }
        assert_eq!(desk.token_requests(), requests + 2, "turn {turn}");
        requests += 2;
        assert_eq!(
            (&status(&incoming)["state"], &status(&outgoing)["state"]),
            (&json!("authorized"), &json!("authorized"))
        );
    }
}

#[test]
fn a_consent_for_one_resource_does_not_evict_the_other() {
    let desk = Desk::new();
    let plugin = desk.plugin();
    let (incoming, outgoing) = desk.open(&plugin);
    desk.consent(&incoming, &[]);
    // Save opens the window whenever a needed scope was never granted.
    let before = status(&outgoing);
    assert_eq!(before["state"], "consent_required");
    assert!(before["scopes"]["missing"].to_string().contains("Mail.Send"), "{before}");
    let asked = desk.consent(&outgoing, &[]);
    assert!(asked.contains("IMAP.AccessAsUser.All"), "the window asks for what it must not take away: {asked}");
    // Consenting again for either harms neither.
    for again in [&incoming, &outgoing, &incoming] {
        assert_eq!(send(&outgoing, "x"), "sent");
        round(&incoming, &json!({})).unwrap();
        desk.consent(again, &[]);
    }
    desk.clock.advance(HOUR);
    let (incoming, outgoing) = desk.open(&plugin);
    round(&incoming, &json!({})).unwrap();
    assert_eq!(send(&outgoing, "y"), "sent");
    assert_eq!(status(&outgoing)["state"], "authorized");
}

#[test]
fn a_scope_that_settings_gain_is_missing_until_somebody_consents() {
    let desk = Desk::new();
    let plugin = desk.plugin();
    let mut settings = desk.settings(Protocol::Graph, "incoming");
    settings["incoming"]["scope"] = json!("openid offline_access https://graph.microsoft.com/Mail.ReadWrite");
    let reading = plugin.open(&settings.to_string()).unwrap();
    desk.consent(&reading, &[]);
    assert_eq!(status(&reading)["scopes"]["missing"], json!([]));
    let outgoing = plugin.open(&desk.settings(Protocol::Graph, "outgoing").to_string()).unwrap();
    assert!(status(&outgoing)["scopes"]["missing"].to_string().contains("Mail.Send"));
    desk.consent(&outgoing, &[]);
    assert_eq!(status(&outgoing)["scopes"]["missing"], json!([]));
    round(&reading, &json!({})).unwrap();
}
