//! Device codes and tokens without a person, against a server that answers as ordered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json as value};

use super::{
    Polled,
    tests_support::{Answer, Bench, CLIENT_SECRET, json, soon},
};
use crate::{
    Error,
    error::Kind,
    secret::Secret,
    settings::{GrantType, SecretRef},
    store::Table,
};

const DEVICE: &str = r#"{"device_code":"canary-device","user_code":"WDJB-MJHT","expires_in":900,
    "verification_uri":"https://idp.test/device","verification_uri_complete":"https://idp.test/device?user_code=WDJB-MJHT"}"#;
const TOKEN: &str = r#"{"access_token":"canary-access","expires_in":3600}"#;

/// Device codes are given out; polls are answered by `poll`, which is told how many came before.
fn device(poll: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Bench {
    let polls = AtomicUsize::new(0);
    let mut bench = Bench::new(move |asked| match asked.path.as_str() {
        "/device" => json(200, DEVICE),
        "/token" => poll(polls.fetch_add(1, Ordering::SeqCst)),
        _ => json(404, ""),
    });
    bench.account.client.grant = GrantType::DeviceCode;
    bench.account.client.device_authorization_url = Some(format!("{}/device", bench.idp.base).parse().unwrap());
    bench
}

fn refusal(code: &str) -> Answer {
    json(400, format!(r#"{{"error":"{code}"}}"#))
}

fn start(bench: &Bench) -> super::DeviceCode {
    bench.grants.start_device(&bench.account, &bench.net, soon()).unwrap()
}

fn poll(bench: &Bench) -> Result<Polled, Error> {
    bench.grants.poll_device(&bench.account, &bench.net, soon())
}

#[track_caller]
fn pending(bench: &Bench) -> u64 {
    match poll(bench) {
        Ok(Polled::Pending { interval_seconds, .. }) => interval_seconds,
        Ok(Polled::Authorized(_)) => panic!("authorized"),
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn a_host_in_a_hurry_never_polls_faster_than_the_interval() {
    let bench = device(|number| refusal(if number == 1 { "slow_down" } else { "authorization_pending" }));
    let code = start(&bench);
    assert_eq!((code.user_code.as_str(), code.interval_seconds), ("WDJB-MJHT", 5));
    assert!(code.verification_uri_complete.is_some());
    let polls = || bench.idp.asked("/token").len();
    for _ in 0..20 {
        assert_eq!(pending(&bench), 5);
    }
    assert_eq!(polls(), 0, "the first poll comes an interval after the start");
    bench.clock.advance(5);
    assert_eq!((pending(&bench), polls()), (5, 1));
    bench.clock.advance(5);
    assert_eq!((pending(&bench), polls()), (10, 2), "slow_down adds five seconds");
    bench.clock.advance(9);
    assert_eq!((pending(&bench), polls()), (10, 2));
    bench.clock.advance(1);
    // Eight at once, in two processes: one asks.
    let other = bench.another();
    thread::scope(|scope| {
        for grants in [&bench.grants, &other].repeat(4) {
            let bench = &bench;
            scope.spawn(move || assert!(grants.poll_device(&bench.account, &bench.net, soon()).is_ok()));
        }
    });
    assert_eq!(polls(), 3);
    let asked = &bench.idp.asked("/token")[0];
    assert_eq!(asked.form["grant_type"], "urn:ietf:params:oauth:grant-type:device_code");
    assert_eq!(asked.form["device_code"], "canary-device");
    assert!(asked.authorization.is_some());
    assert!(!bench.log.lock().unwrap().contains("canary"));
}

#[test]
fn after_a_restart_polling_goes_on() {
    let bench = device(|number| if number == 0 { refusal("authorization_pending") } else { json(200, TOKEN) });
    start(&bench);
    bench.clock.advance(5);
    pending(&bench);
    bench.clock.advance(5);
    let Ok(Polled::Authorized(redeemed)) = bench.another().poll_device(&bench.account, &bench.net, soon()) else {
        panic!("not authorized")
    };
    assert_eq!(redeemed.access_token().secret().expose(), "canary-access");
    assert_eq!(poll(&bench).err().unwrap().kind(), Kind::Misuse, "the code is spent");
    assert_eq!(bench.store.count(Table::Consent), 0);
}

#[test]
fn an_end_is_told_once_and_forgotten() {
    for (code, words) in [
        ("access_denied", "declined"),
        ("authorization_declined", "declined"),
        ("expired_token", "in time"),
        ("invalid_grant", "does not know"),
    ] {
        let bench = device(move |_| refusal(code));
        start(&bench);
        bench.clock.advance(5);
        let error = poll(&bench).err().unwrap();
        assert_eq!(error.kind(), Kind::ConsentRequired);
        assert!(error.message().contains(words), "{code}: {error}");
        assert!(error.provider_code_text().is_some_and(|text| text.starts_with(code)), "{code}");
        assert_eq!(poll(&bench).err().unwrap().kind(), Kind::Misuse);
    }
    let bench = device(|_| refusal("authorization_pending"));
    start(&bench);
    bench.clock.advance(900);
    let error = poll(&bench).err().unwrap();
    assert!(error.message().contains("in time"), "{error}");
    assert!(bench.idp.asked("/token").is_empty());
}

#[test]
fn an_outage_ends_nothing_and_is_asked_less_often() {
    let bench = device(|number| if number == 0 { (503, String::new(), "<html>".into()) } else { json(200, TOKEN) });
    start(&bench);
    bench.clock.advance(5);
    assert_eq!(poll(&bench).err().unwrap().kind(), Kind::Transient);
    bench.clock.advance(5);
    assert_eq!(pending(&bench), 10);
    bench.clock.advance(5);
    assert!(matches!(poll(&bench), Ok(Polled::Authorized(_))));
}

#[test]
fn what_is_no_device_code_is_not_shown_to_a_person() {
    for body in [
        "{}",
        "[]",
        r#"{"device_code":"d","user_code":"c"}"#,
        r#"{"device_code":"d","user_code":"c","verification_uri":"javascript:alert(1)"}"#,
        r#"{"device_code":"d","user_code":"c","verification_uri":"http://idp.test/"}"#,
        r#"{"device_code":"d","user_code":"a\u001b[2J","verification_uri":"https://idp.test/"}"#,
        r#"{"device_code":"","user_code":"c","verification_uri":"https://idp.test/"}"#,
    ] {
        let bench = device(|_| refusal("authorization_pending"));
        bench.idp.set(move |_| json(200, body));
        let error = bench.grants.start_device(&bench.account, &bench.net, soon()).err().unwrap();
        assert_eq!(error.kind(), Kind::ServerMisbehaved, "{body}");
    }
    let mut bench = device(|_| refusal("authorization_pending"));
    bench.account.client.device_authorization_url = None;
    let error = bench.grants.start_device(&bench.account, &bench.net, soon()).err().unwrap();
    assert_eq!(error.faults()[0].pointer, "/advanced/device_authorization_url");
}

/// A client that signs in as itself; the tokens are numbered.
fn application() -> Bench {
    let tokens = AtomicUsize::new(0);
    let mut bench = Bench::new(move |_| {
        let number = tokens.fetch_add(1, Ordering::SeqCst);
        json(200, format!(r#"{{"access_token":"token-{number}","expires_in":3600,"refresh_token":"never"}}"#))
    });
    bench.account.client.grant = GrantType::ClientCredentials;
    bench
}

fn connect(bench: &Bench) {
    let redeemed = bench.grants.apply(&bench.account, &bench.net, soon()).unwrap();
    bench.grants.keep(&bench.account, redeemed).unwrap();
}

fn token(bench: &Bench) -> Result<String, Error> {
    let token = bench.grants.access_token(&bench.account, &bench.net, soon());
    token.map(|token| token.secret().expose().to_owned())
}

#[test]
fn an_application_asks_anew_once_at_each_expiry() {
    let bench = application();
    connect(&bench);
    let other = bench.another();
    assert_eq!(token(&bench).unwrap(), "token-0");
    for number in 1..=3 {
        // Past the end: near it, whoever comes second goes on with the token that is still good.
        bench.clock.advance(3_600);
        thread::scope(|scope| {
            for grants in [&bench.grants, &other].repeat(10) {
                let bench = &bench;
                scope.spawn(move || {
                    let token = grants.access_token(&bench.account, &bench.net, soon()).unwrap();
                    assert_eq!(token.secret().expose(), format!("token-{number}"));
                });
            }
        });
        assert_eq!(bench.idp.asked("/token").len(), number + 1);
    }
    let asked = &bench.idp.asked("/token")[3];
    assert_eq!((asked.form["grant_type"].as_str(), asked.form["scope"].as_str()), ("client_credentials", "mail"));
    let status = bench.grants.status(&bench.account).unwrap().to_json();
    assert_eq!((&status["state"], &status["warnings"]), (&value!("authorized"), &value!([])));
    bench.clock.advance(100_000);
    let status = bench.grants.status(&bench.account).unwrap().to_json();
    assert_eq!(status["state"], "authorized", "an old token is no reason to ask a person");
}

#[test]
fn nobody_is_sent_to_a_consent_window_for_an_application() {
    for code in ["invalid_grant", "consent_required", "access_denied", "interaction_required", "unauthorized_client"] {
        let bench = application();
        connect(&bench);
        bench.idp.set(move |_| refusal(code));
        bench.clock.advance(3_600);
        let error = token(&bench).unwrap_err();
        assert_eq!(error.kind(), Kind::AdminRequired, "{code}: {error}");
        // The refusal is not remembered for ever: the administrator mends it at the provider, and nobody here.
        bench.idp.set(|_| json(200, TOKEN));
        bench.clock.advance(600);
        assert_eq!(token(&bench).unwrap(), "canary-access", "{code}");
    }
    let bench = application();
    bench.idp.set(|_| refusal("invalid_client"));
    let error = bench.grants.apply(&bench.account, &bench.net, soon()).err().unwrap();
    assert_eq!(error.faults()[0].pointer, "/client_secret");
    assert!(!error.to_json().to_string().contains(CLIENT_SECRET));
}

#[test]
fn grants_with_and_without_a_person_do_not_meet() {
    let mut bench = application();
    let alone = super::grant_id(&bench.account);
    bench.account.consenting_user = "delegate@corp.test".into();
    assert_eq!(super::grant_id(&bench.account), alone, "nobody consents");
    bench.account.client.grant = GrantType::AuthorizationCode;
    assert_ne!(super::grant_id(&bench.account), alone);
}

fn service_account(bench: &mut Bench) {
    // Ring signs RS256 for Google; the test key is EC, which the library takes as well.
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let file = value!({
        "type": "service_account", "private_key_id": "key-7", "private_key": key,
        "client_email": "desk@project.iam.test", "client_id": "100", "token_uri": "https://evil.test/token",
    });
    bench.account.client.grant = GrantType::JwtBearer;
    bench.account.client.client_secret = None;
    bench.account.client.service_account = Some(Arc::new(SecretRef::Literal(Secret::new(file.to_string()))));
}

#[test]
fn a_service_account_speaks_for_the_mailbox_and_to_the_configured_server_only() {
    let mut bench = application();
    service_account(&mut bench);
    connect(&bench);
    let asked = &bench.idp.asked("/token")[0];
    assert_eq!(asked.form.len(), 2, "{:?}", asked.form.keys());
    assert_eq!(asked.form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let parts: Vec<Value> = asked.form["assertion"]
        .split('.')
        .take(2)
        .map(|part| serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
        .collect();
    assert_eq!(parts[0]["kid"], "key-7");
    let claims = &parts[1];
    assert_eq!((&claims["iss"], &claims["sub"]), (&value!("desk@project.iam.test"), &value!("helpdesk@corp.test")));
    assert_eq!((&claims["scope"], &claims["aud"]), (&value!("mail"), &value!(format!("{}/token", bench.idp.base))));
    assert!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() <= 3_600);
}

#[test]
fn a_missing_delegation_names_what_to_enter_where() {
    let mut bench = application();
    service_account(&mut bench);
    for (code, words) in [
        ("unauthorized_client", "Domain-wide delegation"),
        ("access_denied", "Domain-wide delegation"),
        ("invalid_grant", "clock"),
        ("deleted_client", "disabled"),
        ("org_internal", "rule"),
    ] {
        bench.idp.set(move |asked| {
            let assertion = &asked.form["assertion"];
            json(400, format!(r#"{{"error":"{code}","error_description":"no {assertion}"}}"#))
        });
        let error = bench.grants.apply(&bench.account, &bench.net, soon()).err().unwrap();
        assert_eq!(error.kind(), Kind::AdminRequired, "{code}");
        let document = error.to_json().to_string();
        assert!(document.contains(words) && document.contains(code), "{document}");
        assert!(!document.contains(&bench.idp.asked("/token").last().unwrap().form["assertion"]));
    }
}
