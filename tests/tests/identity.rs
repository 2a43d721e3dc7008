//! Token owner, IMAP user, SMTP user and From are four values, and each is checked by who knows it: the provider, the
//! mail server at login, the mail server at the sender.

#![allow(clippy::unwrap_used)]

use oauth_mail_core::{Kind, hooks::Handle};
use oauth_mail_tests::{
    Options, Servers,
    fixture::{Fixture, authenticate, complete, consent, parse, redirect},
};
use serde_json::{Value, json};

/// With `email` the provider says who signed in.
const SCOPE: &str = "openid email offline_access mail";

/// alice may read and send for the mailbox `shared`; bob may not.
fn servers() -> Servers {
    let options = Options {
        users: ["alice", "bob", "shared"].map(str::to_owned).to_vec(),
        delegates: vec![("alice".into(), "shared".into())],
        ..Options::default()
    };
    Servers::start(options).unwrap()
}

#[test]
fn four_identities_are_checked_one_by_one() {
    let servers = servers();
    a_delegate_reads_the_shared_mailbox(&servers);
    the_token_owner_must_be_the_consenting_user(&servers);
    the_imap_user_must_accept_the_token_owner(&servers);
    the_smtp_user_is_the_token_owner_where_the_server_wants_it(&servers);
    the_sender_must_be_allowed(&servers);
    a_missing_scope_is_named_where_the_login_is_refused(&servers);
}

fn shared_incoming(servers: &Servers, consenting: Option<&str>) -> Value {
    let mut settings = servers.incoming_settings("shared");
    settings["incoming"]["scope"] = json!(SCOPE);
    settings["incoming"]["advanced"]["fetch_since"] = json!("all");
    if let Some(name) = consenting {
        settings["incoming"]["advanced"]["consenting_user"] = json!(servers.address(name));
    }
    settings
}

fn shared_outgoing(servers: &Servers, more: Value) -> Value {
    let mut settings = servers.outgoing_settings("shared");
    settings["outgoing"]["scope"] = json!(SCOPE);
    let advanced = &mut settings["outgoing"]["advanced"];
    advanced["consenting_user"] = json!(servers.address("alice"));
    for (name, value) in more.as_object().unwrap() {
        advanced[name] = value.clone();
    }
    settings
}

fn open(fixture: &Fixture<'_>, settings: &Value) -> Handle {
    fixture.plugin.open(&settings.to_string()).unwrap()
}

fn send(handle: &Handle, to: String) -> oauth_mail_core::Result<Value> {
    let request = json!({"to": [to], "subject": "Identity", "text": "From the shared mailbox."});
    handle.send_message(&request.to_string(), b"").map(|answer| parse(&answer))
}

fn a_delegate_reads_the_shared_mailbox(servers: &Servers) {
    let fixture = Fixture::new(servers);
    servers.deliver("shared", b"Subject: for the team\r\n\r\nHello.\r\n").unwrap();
    servers.deliver("alice", b"Subject: private\r\n\r\nHello.\r\n").unwrap();
    let handle = open(&fixture, &shared_incoming(servers, Some("alice")));
    let answer = consent(servers, &handle, "alice").unwrap();
    assert_eq!((&answer["state"], &answer["identity"]), (&json!("authorized"), &json!(servers.address("alice"))));
    assert!(answer["message"].as_str().unwrap().contains(&servers.address("shared")), "{answer}");
    assert_eq!(answer["scopes"]["needed"], json!(["mail"]), "{answer}");
    assert_eq!((&answer["scopes"]["missing"], &answer["scopes"]["excess"]), (&json!([]), &json!([])), "{answer}");
    let batch = handle.fetch_batch("{}").unwrap();
    let facts: Vec<_> = batch.messages.iter().map(|message| message.facts.to_string()).collect();
    assert!(facts.len() == 1 && facts[0].contains("for the team"), "{facts:?}");
    // What is granted stands in the status too, and the refresh keeps it all apart.
    fixture.clock.advance(3_600);
    let again = open(&fixture, &shared_incoming(servers, Some("alice")));
    again.fetch_batch("{}").unwrap();
    let status = authenticate(&again, json!({"action": "status"})).unwrap();
    assert!(status["scopes"]["granted"].as_array().unwrap().contains(&json!("mail")), "{status}");
}

fn the_token_owner_must_be_the_consenting_user(servers: &Servers) {
    let fixture = Fixture::new(servers);
    for (consenting, signs_in) in [(Some("alice"), "bob"), (None, "alice"), (None, "bob")] {
        let handle = open(&fixture, &shared_incoming(servers, consenting));
        let redirect = redirect(servers, &handle, signs_in).unwrap();
        let error = complete(&handle, redirect.as_str()).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error:?}");
        let wanted = servers.address(consenting.unwrap_or("shared"));
        assert!(error.message().contains(&servers.address(signs_in)) && error.message().contains(&wanted), "{error}");
        assert!(error.to_json()["remedy"].as_str().unwrap().contains("consenting user"), "{error}");
        assert_eq!(authenticate(&handle, json!({"action": "status"})).unwrap()["state"], "consent_required");
    }
}

fn the_imap_user_must_accept_the_token_owner(servers: &Servers) {
    let fixture = Fixture::new(servers);
    // The settings allow bob; the mail server does not.
    let handle = open(&fixture, &shared_incoming(servers, Some("bob")));
    let redirect = redirect(servers, &handle, "bob").unwrap();
    let error = complete(&handle, redirect.as_str()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    for address in ["bob", "shared"].map(|name| servers.address(name)) {
        assert!(error.message().contains(&address), "{error}");
    }
    assert!(error.to_json()["remedy"].as_str().unwrap().contains("full access"), "{error}");
    assert_eq!(authenticate(&handle, json!({"action": "status"})).unwrap()["state"], "consent_required");
}

fn the_smtp_user_is_the_token_owner_where_the_server_wants_it(servers: &Servers) {
    let fixture = Fixture::new(servers);
    // The incoming form has the consent of alice already: both directions share it.
    consent(servers, &open(&fixture, &shared_incoming(servers, Some("alice"))), "alice").unwrap();
    let handle = open(&fixture, &shared_outgoing(servers, json!({})));
    let error = send(&handle, servers.address("bob")).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert!(error.message().contains(&servers.address("alice")), "{error}");
    assert!(error.message().contains(&servers.address("shared")), "{error}");
    assert!(error.to_json()["remedy"].as_str().unwrap().contains("SMTP User"), "{error}");

    let settings = shared_outgoing(servers, json!({"smtp_user": servers.address("alice")}));
    let sent = send(&open(&fixture, &settings), servers.address("bob")).unwrap();
    assert_eq!(sent["outcome"], "sent", "{sent}");
    servers.wait_for("bob", "INBOX", 1).unwrap();
    let from = servers
        .doveadm(&["fetch", "-u", &servers.address("bob"), "hdr.from hdr.return-path", "mailbox", "INBOX", "all"])
        .unwrap();
    assert!(from.contains(&servers.address("shared")), "{from}");
    assert!(!from.contains(&servers.address("alice")), "{from}");
}

fn the_sender_must_be_allowed(servers: &Servers) {
    let fixture = Fixture::new(servers);
    consent(servers, &open(&fixture, &shared_incoming(servers, Some("alice"))), "alice").unwrap();
    let more = json!({"smtp_user": servers.address("alice"), "from_address": servers.address("bob")});
    let answer = send(&open(&fixture, &shared_outgoing(servers, more)), servers.address("bob"));
    // An outcome or an error: in both the sender is named as the reason.
    let told = match &answer {
        Ok(outcome) => outcome.to_string(),
        Err(error) => error.to_json().to_string(),
    };
    assert!(!told.contains("\"sent\""), "{told}");
    assert!(told.contains("From") && told.contains("refused") && told.contains("not owned by user"), "{told}");
}

fn a_missing_scope_is_named_where_the_login_is_refused(servers: &Servers) {
    let fixture = Fixture::new(servers);
    let handle = open(&fixture, &servers.incoming_settings("alice"));
    let redirect = redirect(servers, &handle, "alice").unwrap();
    let body = json!({"access_token": "good-for-nothing", "expires_in": 3600, "scope": "openid offline_access"});
    servers
        .idp
        .fault(json!({"path": "/token", "status": 200, "body": body.to_string(),
        "headers": {"content-type": "application/json"}}))
        .unwrap();
    let error = complete(&handle, redirect.as_str()).unwrap_err();
    assert_eq!(error.kind(), Kind::ConsentRequired, "{error:?}");
    assert!(error.message().contains("did not grant mail"), "{error}");
    assert!(error.to_json()["remedy"].as_str().unwrap().contains("every box"), "{error}");
    assert!(error.provider_code_text().is_some_and(|code| !code.is_empty()), "the server's own words: {error:?}");
}
