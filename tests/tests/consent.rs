//! Consent on a real authorization server, confirmed by a real mail server: who may, who may not, and what is said.

#![allow(clippy::unwrap_used)]

use std::{fs, thread};

use base64::{Engine, prelude::BASE64_STANDARD};
use oauth_mail_core::{Error, Kind, hooks::Handle};
use oauth_mail_tests::{
    Servers,
    fixture::{Fixture, Turn, authenticate, complete, consent, parse, redirect},
    idp,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

const SCOPE: &str = "openid email offline_access mail";

#[test]
fn every_kind_of_client_consents_fetches_and_refreshes() {
    let servers = Turn::wait();
    let clients = [(idp::NATIVE, None), (idp::BASIC.0, Some(idp::BASIC.1)), (idp::POST.0, Some(idp::POST.1))];
    for (client, secret) in clients {
        let fixture = Fixture::new(&servers);
        let settings = client_settings(&servers, "alice", client, secret);
        let handle = open(&fixture, &settings);
        let answer = consent(&servers, &handle, "alice").unwrap_or_else(|e| panic!("{client}: {e}"));
        assert_eq!(answer["state"], "authorized", "{client}: {answer}");
        handle.fetch_batch("{}").unwrap();
        // What was found out about the client at the consent serves the refresh, also after a restart.
        fixture.clock.advance(3_600);
        let refreshed = servers.idp.refreshes();
        let plugin = fixture.plugin_again();
        plugin.open(&settings.to_string()).unwrap().fetch_batch("{}").unwrap_or_else(|e| panic!("{client}: {e:?}"));
        assert_eq!(servers.idp.refreshes(), refreshed + 1, "{client}");
    }
}

#[test]
fn the_answer_says_who_what_and_how_safely() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let certificate = certificate_sha256(&servers);
    for (mut settings, protocol, port) in [
        (servers.incoming_settings("alice"), "IMAPS", servers.dovecot.port),
        (servers.outgoing_settings("bob"), "SMTPS", servers.postfix.smtps_port),
        (servers.outgoing_settings_starttls("carol"), "SMTP + STARTTLS", servers.postfix.submission_port),
    ] {
        let form = settings.as_object_mut().unwrap().values_mut().next().unwrap();
        form["scope"] = json!(SCOPE);
        let username = form["username"].as_str().unwrap().to_owned();
        let handle = open(&fixture, &settings);
        let answer = consent(&servers, &handle, username.split('@').next().unwrap()).unwrap();
        assert_eq!(answer["state"], "authorized");
        assert_eq!(answer["identity"], json!(username));
        assert!(answer["scopes"]["granted"].as_array().unwrap().contains(&json!("mail")), "{answer}");
        assert_eq!(answer["warnings"], json!([]), "{answer}");
        let proof = &answer["proof"];
        assert_eq!((&proof["protocol"], &proof["port"]), (&json!(protocol), &json!(port)), "{proof}");
        assert!(["XOAUTH2", "OAUTHBEARER"].contains(&proof["mechanism"].as_str().unwrap()), "{proof}");
        assert_eq!(proof["tls_version"], "TLS 1.3", "{proof}");
        assert_eq!(proof["server"], "localhost", "{proof}");
        assert_eq!(proof["certificate_sha256"], json!(certificate), "{proof}");
        let message = answer["message"].as_str().unwrap();
        for part in ["localhost", &username, protocol, "TLS"] {
            assert!(message.contains(part), "{message}");
        }
        let expires_in = answer["expires_at"].as_i64().unwrap() - fixture.clock.now();
        assert!((3_500..=3_600).contains(&expires_in), "{answer}");
        // The same, later, without the network.
        let status = status(&handle);
        assert_eq!((&status["state"], &status["identity"]), (&json!("authorized"), &answer["identity"]));
    }
}

#[test]
fn a_wrong_account_is_named_and_nothing_of_it_is_kept() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let handle = open(&fixture, &incoming_settings(&servers, "alice"));
    let revocations = requests_to(&servers, "/token/revocation");
    let error = consent_fails(&servers, &handle, "bob");
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    for address in [servers.address("bob"), servers.address("alice")] {
        assert!(error.message().contains(&address), "{error}");
    }
    assert_eq!(status(&handle)["state"], "consent_required");
    assert_eq!(
        requests_to(&servers, "/token/revocation"),
        revocations + 2,
        "the provider was told to forget both tokens"
    );
    assert_eq!(handle.fetch_batch("{}").err().unwrap().kind(), Kind::ConsentRequired);
    // The right person sets it right.
    assert_eq!(consent(&servers, &handle, "alice").unwrap()["state"], "authorized");
}

#[test]
fn a_wrong_account_does_not_cost_its_own_mailbox_the_consent() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let bob = open(&fixture, &incoming_settings(&servers, "bob"));
    consent(&servers, &bob, "bob").unwrap();
    let alice = open(&fixture, &incoming_settings(&servers, "alice"));
    assert_eq!(consent_fails(&servers, &alice, "bob").kind(), Kind::Refused);
    servers.doveadm(&["kick", &servers.address("bob")]).unwrap();
    fixture.clock.advance(3_600);
    bob.fetch_batch("{}").unwrap();
}

#[test]
fn where_the_provider_names_nobody_the_mail_server_decides() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let settings = client_settings(&servers, "alice", idp::NO_EMAIL, None);
    let handle = open(&fixture, &settings);
    let error = consent_fails(&servers, &handle, "bob");
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert!(error.message().contains(&servers.address("alice")), "{error}");
    assert!(error.provider_code_text().is_some_and(|code| !code.is_empty()), "the server's own words: {error}");
    assert!(error.to_json()["remedy"].as_str().unwrap().contains("consented"), "{error}");
    assert_eq!(status(&handle)["state"], "consent_required");
    let answer = consent(&servers, &handle, "alice").unwrap();
    assert_eq!((&answer["state"], &answer["identity"]), (&json!("authorized"), &Value::Null));
}

/// Fault 8: a good consent is kept and proven later, or given back; never dropped.
#[test]
fn fault_8_a_consent_whose_mail_server_is_away_is_kept_or_given_back() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let away = |mut settings: Value| {
        // Nobody listens there any more.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        settings["incoming"]["port"] = json!(port);
        settings
    };
    let settings = incoming_settings(&servers, "alice");
    let handle = open(&fixture, &away(settings.clone()));
    let answer = consent(&servers, &handle, "alice").unwrap();
    assert_eq!((&answer["state"], &answer["proof"]), (&json!("authorized"), &Value::Null), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("The consent is kept"), "{answer}");
    // The wrong person's is refused all the same.
    assert_eq!(consent_fails(&servers, &handle, "bob").kind(), Kind::Refused);
    // The server is back: nobody is asked again.
    open(&fixture, &settings).fetch_batch("{}").unwrap();

    let revoked = requests_to(&servers, "/token/revocation");
    let handle = open(&fixture, &away(client_settings(&servers, "alice", idp::NO_EMAIL, None)));
    let error = consent_fails(&servers, &handle, "alice");
    assert_eq!((error.kind(), error.who_acts().name()), (Kind::Transient, "mailbox owner"), "{error:?}");
    assert!(error.remedy_text().unwrap().contains("in a few minutes"), "{error}");
    assert!(requests_to(&servers, "/token/revocation") > revoked, "what is not kept is given back");
    assert_eq!(status(&handle)["state"], "consent_required");
}

#[test]
fn userinfo_names_who_consented_when_the_id_token_does_not() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let settings = client_settings(&servers, "alice", idp::EMAIL_IN_USERINFO, None);
    let handle = open(&fixture, &settings);
    let error = consent_fails(&servers, &handle, "bob");
    assert!(error.message().contains(&servers.address("bob")), "{error}");
    let asked = requests_to(&servers, "/me");
    let answer = consent(&servers, &handle, "alice").unwrap();
    assert_eq!(answer["identity"], json!(servers.address("alice")));
    assert_eq!(requests_to(&servers, "/me"), asked + 1);

    // Down, it costs nothing but the name.
    servers.idp.fault(json!({"path": "/me", "times": 1, "status": 500})).unwrap();
    let answer = consent(&servers, &handle, "alice").unwrap();
    assert_eq!((&answer["state"], &answer["identity"]), (&json!("authorized"), &Value::Null));
}

#[test]
fn discovery_is_asked_once_and_a_server_without_it_works_as_well() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let well_known = "/.well-known/openid-configuration";
    let before = requests_to(&servers, well_known);
    for name in ["alice", "bob"] {
        fixture.incoming(name, |_| ());
    }
    assert_eq!(requests_to(&servers, well_known), before + 1);

    // No issuer: nothing is discovered, and nobody else is asked who it was.
    let asked = requests_to(&servers, "/me");
    let mut settings = client_settings(&servers, "alice", idp::EMAIL_IN_USERINFO, None);
    settings["incoming"]["advanced"].as_object_mut().unwrap().remove("issuer");
    let handle = open(&fixture, &settings);
    let answer = consent(&servers, &handle, "alice").unwrap();
    assert_eq!((&answer["state"], &answer["identity"]), (&json!("authorized"), &Value::Null));
    assert_eq!((requests_to(&servers, well_known), requests_to(&servers, "/me")), (before + 1, asked));

    // Named by hand instead.
    settings["incoming"]["advanced"]["userinfo_url"] = json!(format!("{}/me", servers.idp.issuer));
    let handle = open(&fixture, &settings);
    assert_eq!(consent(&servers, &handle, "alice").unwrap()["identity"], json!(servers.address("alice")));

    // Another issuer than the one that answers.
    let mut settings = servers.incoming_settings("carol");
    settings["incoming"]["advanced"]["issuer"] = json!(format!("{}/other", servers.idp.issuer));
    let error = consent_fails(&servers, &open(&fixture, &settings), "carol");
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert!(error.message().contains("another authorization server"), "{error}");
}

#[test]
fn a_denied_consent_says_so_and_can_be_started_anew() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let handle = open(&fixture, &servers.incoming_settings("alice"));
    let redirect = servers.deny(&authorize_url(&handle), "alice").unwrap();
    let error = complete(&handle, redirect.as_str()).unwrap_err();
    assert_eq!(error.kind(), Kind::ConsentRequired, "{error:?}");
    assert!(error.message().contains("declined"), "{error}");
    assert!(error.provider_code_text().unwrap().starts_with("access_denied"), "{error}");
    assert!(error.to_json()["remedy"].as_str().unwrap().contains(&servers.address("alice")), "{error}");
    assert_eq!(status(&handle)["state"], "consent_required");
    // The answer was for once.
    assert_eq!(complete(&handle, redirect.as_str()).unwrap_err().kind(), Kind::Refused);
    assert_eq!(consent(&servers, &handle, "alice").unwrap()["state"], "authorized");

    // Who denies later loses nothing.
    let redirect = servers.deny(&authorize_url(&handle), "alice").unwrap();
    complete(&handle, redirect.as_str()).unwrap_err();
    assert_eq!(status(&handle)["state"], "authorized");
    handle.fetch_batch("{}").unwrap();
}

#[test]
fn a_redirect_is_good_once_and_of_many_callers_for_one() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let settings = servers.incoming_settings("alice");
    let handle = open(&fixture, &settings);
    let url = redirect(&servers, &handle, "alice").unwrap();
    complete(&handle, url.as_str()).unwrap();
    let codes = servers.idp.granted("authorization_code");
    let error = complete(&handle, url.as_str()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert!(error.message().contains("completed already"), "{error}");
    assert_eq!(status(&handle)["state"], "authorized", "the first stays good");
    handle.fetch_batch("{}").unwrap();

    // Two browsers' worth of impatience, in two processes.
    let url = redirect(&servers, &handle, "alice").unwrap();
    let again = fixture.plugin_again();
    let handles: Vec<_> = (0..4)
        .map(|number| if number % 2 == 0 { &fixture.plugin } else { &again }.open(&settings.to_string()).unwrap())
        .collect();
    let good = thread::scope(|scope| {
        let callers: Vec<_> = handles.iter().map(|handle| scope.spawn(|| complete(handle, url.as_str()))).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).filter(Result::is_ok).count()
    });
    assert_eq!(good, 1);
    assert_eq!(servers.idp.granted("authorization_code"), codes + 1, "the code was redeemed once");
    handle.fetch_batch("{}").unwrap();
}

#[test]
fn a_redirect_of_another_consent_or_place_is_refused() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let alice = open(&fixture, &servers.incoming_settings("alice"));
    let bob = open(&fixture, &servers.incoming_settings("bob"));
    let codes = servers.idp.granted("authorization_code");
    let url = redirect(&servers, &alice, "alice").unwrap();
    let without = |name: &str| {
        let mut other = url.clone();
        other.query_pairs_mut().clear().extend_pairs(url.query_pairs().filter(|(key, _)| key != name));
        other
    };
    let with = |name: &str, value: &str| {
        let mut other = without(name);
        other.query_pairs_mut().append_pair(name, value);
        other
    };
    let change = |change: fn(&mut Url)| {
        let mut other = url.clone();
        change(&mut other);
        other
    };
    let refused = |handle: &Handle, url: &Url, word: &str| {
        let error = complete(handle, url.as_str()).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{word}: {error:?}");
        assert!(error.message().contains(word), "{word}: {error}");
        assert!(error.to_json()["remedy"].as_str().unwrap().contains("Start the consent again"), "{error}");
    };
    // None of these uses the waiting consent up.
    refused(&bob, &url, "another mailbox");
    refused(&alice, &without("state"), "state");
    refused(&alice, &with("state", "made-up"), "not known");
    refused(&alice, &change(|url| url.set_port(Some(40_124)).unwrap()), "Redirect URL");
    refused(&alice, &change(|url| url.set_host(Some("localhost")).unwrap()), "Redirect URL");
    refused(&alice, &change(|url| url.set_path("/other")), "Redirect URL");
    refused(&alice, &change(|url| url.set_scheme("https").unwrap()), "Redirect URL");
    let twice = |url: &mut Url| {
        url.query_pairs_mut().append_pair("code", "second");
    };
    refused(&alice, &change(twice), "twice");
    let error = complete(&alice, "yes, I did").unwrap_err();
    assert_eq!(error.kind(), Kind::Misuse, "{error:?}");
    assert_eq!(complete(&alice, url.as_str()).unwrap()["state"], "authorized");
    assert_eq!(servers.idp.granted("authorization_code"), codes + 1);

    // These do: somebody tampered with an answer that was ours.
    for (name, value, word) in [
        ("iss", Some("https://evil.test"), "another authorization server"),
        ("iss", None, "does not say which authorization server"),
        ("code", None, "code"),
    ] {
        let url = redirect(&servers, &alice, "alice").unwrap();
        let mut other = url.clone();
        other.query_pairs_mut().clear().extend_pairs(url.query_pairs().filter(|(key, _)| key != name));
        if let Some(value) = value {
            other.query_pairs_mut().append_pair(name, value);
        }
        refused(&alice, &other, word);
        refused(&alice, &url, "completed already");
    }
    // A code that the provider does not know.
    let url = redirect(&servers, &alice, "alice").unwrap();
    let mut other = url.clone();
    other.query_pairs_mut().clear().extend_pairs(url.query_pairs().filter(|(key, _)| key != "code"));
    other.query_pairs_mut().append_pair("code", "made-up");
    let error = complete(&alice, other.as_str()).unwrap_err();
    assert_eq!(error.kind(), Kind::ConsentRequired, "{error:?}");
    assert!(error.provider_code_text().unwrap().starts_with("invalid_grant"), "{error}");
    assert_eq!(status(&alice)["state"], "authorized", "what was consented before still stands");
}

#[test]
fn a_consent_waits_ten_minutes_and_for_the_same_settings() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let handle = open(&fixture, &servers.incoming_settings("alice"));
    let url = redirect(&servers, &handle, "alice").unwrap();
    fixture.clock.advance(601);
    let error = complete(&handle, url.as_str()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert!(error.message().contains("ten minutes"), "{error}");

    // Nine minutes are fine, and so is a restart in between.
    let url = redirect(&servers, &handle, "alice").unwrap();
    fixture.clock.advance(540);
    let again = fixture.plugin_again().open(&servers.incoming_settings("alice").to_string()).unwrap();
    assert_eq!(complete(&again, url.as_str()).unwrap()["state"], "authorized");

    let url = redirect(&servers, &handle, "alice").unwrap();
    let mut changed = servers.incoming_settings("alice");
    changed["incoming"]["access_token_url"] = json!(format!("{}?tenant=other", servers.idp.token_url()));
    let error = complete(&open(&fixture, &changed), url.as_str()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert!(error.message().contains("settings were changed"), "{error}");
}

#[test]
fn incoming_and_outgoing_share_one_consent() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let codes = servers.idp.granted("authorization_code");
    let incoming = fixture.incoming("alice", |_| ());
    let mut outgoing = Vec::new();
    for settings in [servers.outgoing_settings("alice"), servers.outgoing_settings_starttls("alice")] {
        let handle = open(&fixture, &settings);
        assert_eq!(status(&handle)["state"], "authorized");
        let request = json!({"to": [servers.address("bob")], "subject": "Shared", "text": "One consent for both."});
        let sent = parse(&handle.send_message(&request.to_string(), b"").unwrap());
        assert_eq!(sent["outcome"], "sent", "{sent}");
        outgoing.push(handle);
    }
    assert_eq!(servers.idp.granted("authorization_code"), codes + 1);
    // One refresh serves all, and one revocation ends all.
    fixture.clock.advance(3_600);
    let refreshed = servers.idp.refreshes();
    for settings in [servers.outgoing_settings("alice"), servers.incoming_settings("alice")] {
        let handle = open(&fixture, &settings);
        match settings.get("incoming") {
            Some(_) => drop(handle.fetch_batch("{}").unwrap()),
            None => {
                let request = json!({"to": [servers.address("bob")], "subject": "Shared", "text": "Again."});
                assert_eq!(parse(&handle.send_message(&request.to_string(), b"").unwrap())["outcome"], "sent");
            }
        }
    }
    assert_eq!(servers.idp.refreshes(), refreshed + 1);
    authenticate(&outgoing[0], json!({"action": "revoke"})).unwrap();
    assert_eq!(status(&incoming)["state"], "consent_required");
    // Another mailbox never shared it.
    assert_eq!(status(&open(&fixture, &servers.incoming_settings("bob")))["state"], "consent_required");
}

/// The incoming form, with a scope that lets the provider say who it was.
fn incoming_settings(servers: &Servers, name: &str) -> Value {
    let mut settings = servers.incoming_settings(name);
    settings["incoming"]["scope"] = json!(SCOPE);
    settings
}

fn client_settings(servers: &Servers, name: &str, client: &str, secret: Option<&str>) -> Value {
    let mut settings = incoming_settings(servers, name);
    settings["incoming"]["client_id"] = json!(client);
    if let Some(secret) = secret {
        settings["incoming"]["client_secret"] = json!(secret);
    }
    settings
}

fn open(fixture: &Fixture, settings: &Value) -> Handle {
    fixture.plugin.open(&settings.to_string()).unwrap()
}

fn status(handle: &Handle) -> Value {
    authenticate(handle, json!({"action": "status"})).unwrap()
}

fn authorize_url(handle: &Handle) -> String {
    let started = authenticate(handle, json!({"action": "start"})).unwrap();
    started["authorize_url"].as_str().unwrap().to_owned()
}

/// Somebody consents, and the library does not accept it.
fn consent_fails(servers: &Servers, handle: &Handle, name: &str) -> Error {
    let url = redirect(servers, handle, name).unwrap();
    complete(handle, url.as_str()).unwrap_err()
}

fn requests_to(servers: &Servers, path: &str) -> usize {
    servers.idp.requests().iter().filter(|request| request.path == path && request.status == 200).count()
}

/// Of the certificate that Dovecot and Postfix show.
fn certificate_sha256(servers: &Servers) -> String {
    let pem = fs::read_to_string(&servers.ca.server_certificate).unwrap();
    let base64: String = pem.lines().skip(1).take_while(|line| !line.starts_with("-----")).collect();
    Sha256::digest(BASE64_STANDARD.decode(base64).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}
