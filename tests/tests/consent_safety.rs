//! Consent safety on real authorization servers; the table of everything that is refused stands beside the code
//! (plugin/core/src/oauth/consent_safety_tests.rs).

#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    thread,
};

use oauth_mail_core::{Kind, hooks::Handle};
use oauth_mail_tests::{
    Servers, browser,
    fixture::{Fixture, Turn, authenticate, complete, redirect},
    idp::Idp,
};
use serde_json::{Value, json};
use url::Url;

fn open(fixture: &Fixture<'_>, settings: &Value) -> Handle {
    fixture.plugin.open(&settings.to_string()).unwrap()
}

#[test]
fn a_loopback_redirect_comes_back_on_any_free_port() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    // RFC 8252 7.3: registered is http://127.0.0.1/callback without a port; the system chooses one for each consent.
    for _ in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut settings = servers.incoming_settings("alice");
        settings["incoming"]["redirect_url"] = json!(format!("http://{address}/callback"));
        let handle = open(&fixture, &settings);
        let browser_goes_to = redirect(&servers, &handle, "alice").unwrap();
        let received = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK");
            let path = line.split(' ').nth(1).unwrap().to_owned();
            format!("http://{address}{path}")
        });
        let _ = browser::follow(servers.ca_file(), &browser_goes_to);
        let redirect = received.join().unwrap();
        assert_eq!(complete(&handle, &redirect).unwrap()["state"], "authorized");
    }
}

#[test]
fn of_two_servers_neither_sees_the_others_code() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let other_folder = tempfile::tempdir().unwrap();
    let other = Idp::start(other_folder.path(), &servers.ca, &servers.users).unwrap();
    let codes = |servers: &Servers| servers.idp.requests().iter().filter(|one| one.path == "/token").count();
    let before = codes(&servers);
    let handle = open(&fixture, &servers.incoming_settings("alice"));

    // The person was led to the other server, with the state of ours.
    let started = authenticate(&handle, json!({"action": "start"})).unwrap();
    let mut led_astray = Url::parse(started["authorize_url"].as_str().unwrap()).unwrap();
    led_astray.set_port(Some(other.port)).unwrap();
    let redirect_of_other = servers.consent(led_astray.as_str(), "alice").unwrap();
    let error = complete(&handle, redirect_of_other.as_str()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert!(error.message().contains("another authorization server"), "{error}");

    // Between start and complete somebody enters the other server's address: for the token only, and for all of it.
    for fields in [&["access_token_url"][..], &["access_token_url", "authorize_url", "issuer"][..]] {
        let handle = open(&fixture, &servers.incoming_settings("alice"));
        let url = redirect(&servers, &handle, "alice").unwrap();
        let mut changed = servers.incoming_settings("alice");
        for field in fields {
            let value = match *field {
                "issuer" => &mut changed["incoming"]["advanced"]["issuer"],
                field => &mut changed["incoming"][field],
            };
            let text = value.as_str().unwrap().replace(&servers.idp.issuer, &other.issuer);
            *value = json!(text);
        }
        let error = complete(&open(&fixture, &changed), url.as_str()).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    }
    assert_eq!(codes(&servers), before, "no code was shown to our server");
    assert!(other.requests().iter().all(|one| one.path != "/token"), "nor to the other one");
}

#[test]
fn a_token_endpoint_that_points_elsewhere_is_not_followed() {
    let servers = Turn::wait();
    let fixture = Fixture::new(&servers);
    let other_folder = tempfile::tempdir().unwrap();
    let other = Idp::start(other_folder.path(), &servers.ca, &servers.users).unwrap();
    for status in [301, 302, 303, 307, 308] {
        let handle = open(&fixture, &servers.incoming_settings("alice"));
        let url = redirect(&servers, &handle, "alice").unwrap();
        let headers = json!({"location": other.token_url()});
        servers.idp.fault(json!({"path": "/token", "status": status, "headers": headers})).unwrap();
        let error = complete(&handle, url.as_str()).unwrap_err();
        assert_eq!(error.kind(), Kind::Settings, "{status}: {error:?}");
        assert!(error.message().contains("redirect"), "{status}: {error}");
        assert!(other.requests().is_empty(), "{status}");
    }
}
