//! Where a mailbox owner may not consent: the refusal, the administrator's part, and the way on.

#![allow(clippy::unwrap_used)]

use oauth_mail_core::{Kind, hooks::Handle};
use oauth_mail_sandbox::Config;
use oauth_mail_tests::{
    fixture::{authenticate, complete},
    mailbox::round,
    sandboxed::{self, Desk, Protocol},
};
use serde_json::{Value, json};

fn tenant(desk: &Desk) -> Handle {
    let facts = desk.sandbox.facts();
    desk.opened("alice", "incoming", |form| {
        form["client_id"] = facts["tenant_client_id"].clone();
        form["advanced"]["admin_consent_url"] = facts["admin_consent_url"].clone();
    })
}

fn start(handle: &Handle) -> Value {
    authenticate(handle, json!({"action": "start"})).unwrap()
}

fn visit(desk: &Desk, url: &Value, name: &str) -> String {
    sandboxed::consent(&desk.sandbox, url.as_str().unwrap(), name).unwrap().to_string()
}

#[test]
fn a_mailbox_owner_is_refused_until_an_administrator_has_consented() {
    for protocol in [Protocol::Imap, Protocol::Ews, Protocol::Graph] {
        let desk = Desk::new(protocol, Config::default());
        let handle = tenant(&desk);
        let before = authenticate(&handle, json!({"action": "diagnose"})).unwrap().to_string();
        assert!(before.contains("only an administrator of the organisation can"), "{before}");

        let started = start(&handle);
        let link = &started["admin_consent_url"];
        let status = authenticate(&handle, json!({"action": "status"})).unwrap();
        assert_eq!(&status["admin_consent_url"], link);
        let redirect = visit(&desk, &started["authorize_url"], "alice");
        let error = complete(&handle, &redirect).unwrap_err();
        assert_eq!(error.kind(), Kind::ConsentRequired);
        let document = error.to_json();
        assert_eq!(document["who"], "tenant administrator", "{document}");
        assert!(document["remedy"].as_str().unwrap().contains(link.as_str().unwrap()), "{document}");
        assert!(document["provider_code"].as_str().unwrap().contains("AADSTS90094"), "{document}");

        // Somebody who is none opens the administrator's link.
        let error = complete(&handle, &visit(&desk, link, "alice")).unwrap_err();
        assert_eq!(error.kind(), Kind::AdminRequired, "{error}");

        let redirect = visit(&desk, link, "bob");
        let answer = complete(&handle, &redirect).unwrap();
        assert_eq!(answer["admin_consent"], json!({"tenant": "example.test"}));
        assert_eq!(answer["state"], "consent_required", "the administrator signed in for nobody");
        // It opens nothing, so it may come again.
        complete(&handle, &redirect).unwrap();

        let redirect = visit(&desk, &start(&handle)["authorize_url"], "alice");
        assert_eq!(complete(&handle, &redirect).unwrap()["state"], "authorized");
        round(&handle, &json!({})).unwrap();
        let after = authenticate(&handle, json!({"action": "diagnose"})).unwrap().to_string();
        assert!(!after.contains("only an administrator of the organisation can"), "{after}");
    }
}

#[test]
fn providers_without_a_page_for_administrators_name_none() {
    let desk = Desk::new(Protocol::Imap, Config::default());
    let handle = desk.opened("alice", "incoming", |_| {});
    assert_eq!(start(&handle)["admin_consent_url"], Value::Null);
    let status = authenticate(&handle, json!({"action": "status"})).unwrap();
    assert_eq!(status.get("admin_consent_url"), None);
}
