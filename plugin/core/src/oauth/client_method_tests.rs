//! How the client proves itself (faults 4, 7, 18), and that what was typed is what is sent (faults 5, 6, 9, 13).

use std::{fs, sync::Arc};

use serde_json::json as value;

use super::{
    client_auth::ClientAuth,
    consent_tests::tokens,
    discovery::Metadata,
    tests_support::{Answer, Asked, Bench, CLIENT_SECRET, account, json, soon},
};
use crate::{
    error::{Kind, Who},
    secret::Secret,
    settings::{CertificateRef, ClientAuthentication, SecretRef},
};

/// Takes the secret in the body only.
fn post_only(refusal: (u16, &'static str)) -> impl Fn(&Asked) -> Answer + Send + Sync + 'static {
    move |asked| match asked.form.get("client_secret").map(String::as_str) {
        Some(CLIENT_SECRET) => tokens(asked),
        _ => json(refusal.0, refusal.1),
    }
}

#[test]
fn fault_4_after_a_refused_basic_the_body_is_tried_once_and_remembered() {
    for refusal in [
        (401, r#"{"error":"invalid_client"}"#),
        (400, r#"{"error":"invalid_client"}"#),
        (403, r#"{"error":"unauthorized_client"}"#),
        (400, r#"{"error":"incorrect_client_credentials"}"#),
        (401, ""),
        (403, ""),
    ] {
        let bench = Bench::new(post_only(refusal));
        bench.consent();
        let codes = bench.idp.asked("/token");
        assert_eq!(codes.len(), 2, "{refusal:?}");
        assert!(codes[0].authorization.is_some() && codes[1].authorization.is_none(), "{refusal:?}");
        assert_eq!(codes[0].form["code"], codes[1].form["code"]);
        bench.clock.advance(3_600);
        bench.grants.access_token(&bench.account, &bench.net, soon()).unwrap();
        assert_eq!(bench.idp.asked("/token").len(), 3, "{refusal:?}: the grant remembers what was taken");
    }
}

/// Canaille 0.3.6 lists both and takes the one that the client is registered for.
#[test]
fn fault_4_after_a_refused_body_basic_is_tried_once_and_remembered() {
    let mut bench = Bench::new(tokens);
    let base = bench.idp.base.clone();
    let metadata = format!(
        r#"{{"issuer":"{base}","authorization_endpoint":"{base}/authorize","token_endpoint":"{base}/token",
            "token_endpoint_auth_methods_supported":["client_secret_post"]}}"#
    );
    bench.account.client.issuer = Some(base);
    bench.idp.set(move |asked| match asked.path.as_str() {
        path if path.starts_with("/.well-known") => json(200, metadata.clone()),
        _ if asked.authorization.is_some() => tokens(asked),
        _ => json(401, r#"{"error":"invalid_client"}"#),
    });
    bench.consent();
    let codes = bench.idp.asked("/token");
    assert_eq!(codes.len(), 2);
    assert!(codes[0].authorization.is_none() && codes[1].authorization.is_some());
    bench.clock.advance(3_600);
    bench.grants.access_token(&bench.account, &bench.net, soon()).unwrap();
    assert_eq!(bench.idp.asked("/token").len(), 3, "the grant remembers what was taken");
}

#[test]
fn fault_4_a_refresh_learns_the_method_too_and_a_wrong_secret_is_asked_about_twice_at_most() {
    let bench = Bench::new(tokens);
    bench.consent();
    bench.idp.set(post_only((401, r#"{"error":"invalid_client"}"#)));
    for wanted in [3, 4] {
        bench.clock.advance(3_600);
        bench.grants.access_token(&bench.account, &bench.net, soon()).unwrap();
        assert_eq!(bench.idp.asked("/token").len(), wanted);
    }
    let bench = Bench::new(|_| json(401, r#"{"error":"invalid_client"}"#));
    let redirect = bench.redirect(&format!("state={}&code=c", bench.state()));
    let error = bench.grants.redeem(&bench.account, &bench.net, &redirect, soon()).err().unwrap();
    assert_eq!((error.kind(), bench.idp.asked("/token").len()), (Kind::Settings, 2));
    // A refused code says nothing about the client.
    let bench = Bench::new(|_| json(400, r#"{"error":"invalid_grant"}"#));
    let redirect = bench.redirect(&format!("state={}&code=c", bench.state()));
    assert!(bench.grants.redeem(&bench.account, &bench.net, &redirect, soon()).is_err());
    assert_eq!(bench.idp.asked("/token").len(), 1);
}

#[test]
fn fault_4_what_the_settings_choose_is_sent_and_nothing_else() {
    for (choice, is_basic) in [(ClientAuthentication::Basic, true), (ClientAuthentication::Post, false)] {
        let mut bench = Bench::new(|_| json(401, r#"{"error":"invalid_client"}"#));
        bench.account.client.client_authentication = choice;
        let redirect = bench.redirect(&format!("state={}&code=c", bench.state()));
        assert!(bench.grants.redeem(&bench.account, &bench.net, &redirect, soon()).is_err());
        let asked = bench.idp.asked("/token");
        assert_eq!((asked.len(), asked[0].authorization.is_some()), (1, is_basic), "{choice:?}");
    }
}

#[test]
fn fault_4_where_both_are_listed_a_secret_that_encoding_changes_goes_into_the_body() {
    let mut client = account("https://idp.test").client;
    let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    let both = Metadata { client_methods: list(&["client_secret_basic", "client_secret_post"]), ..Metadata::default() };
    let basic = Metadata { client_methods: list(&["client_secret_basic"]), ..Metadata::default() };
    assert_eq!(ClientAuth::decide(&client, Some(&both)), ClientAuth::ClientSecretBasic);
    for secret in ["s3cret+a/b=c%41", "abc~de", "with space", "gr\u{fc}n"] {
        client.client_secret = Some(Secret::new(secret));
        assert_eq!(ClientAuth::decide(&client, Some(&both)), ClientAuth::ClientSecretPost, "{secret}");
        assert_eq!(ClientAuth::decide(&client, Some(&basic)), ClientAuth::ClientSecretBasic, "{secret}");
        assert_eq!(ClientAuth::decide(&client, None), ClientAuth::ClientSecretBasic, "{secret}");
    }
}

#[test]
fn fault_7_rs256_unless_only_ps256_is_listed_or_it_is_microsoft() {
    let mut client = account("https://idp.test").client;
    let key = || Arc::new(SecretRef::File("/nowhere".into()));
    client.certificate =
        Some(CertificateRef { certificate: key(), private_key: key(), key_id: None, names_issuer: false });
    let decide = |client: &crate::settings::Client, names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        ClientAuth::decide(client, Some(&Metadata { signing_algorithms: Some(names), ..Metadata::default() }))
    };
    assert_eq!(decide(&client, &["RS256", "PS256"]), ClientAuth::PrivateKeyJwt);
    assert_eq!(decide(&client, &["PS256", "ES256"]), ClientAuth::PrivateKeyJwtPss);
    assert_eq!(decide(&client, &[]), ClientAuth::PrivateKeyJwt);
    client.token_url = "https://login.microsoftonline.com/x/oauth2/v2.0/token".parse().unwrap();
    assert_eq!(decide(&client, &["RS256"]), ClientAuth::PrivateKeyJwtPss);
}

#[test]
fn fault_18_a_secret_replaced_in_its_file_is_used_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    let mut bench = Bench::new(tokens);
    fs::write(&path, "old-secret").unwrap();
    bench.account.client.client_secret = Some(Secret::new("old-secret"));
    bench.account.client.client_secret_place = Some(Arc::new(SecretRef::File(path.to_str().unwrap().to_owned())));
    bench.account.client.client_authentication = ClientAuthentication::Post;
    bench.consent();
    bench.idp.set(|asked| match asked.form["client_secret"].as_str() {
        "new-secret" => tokens(asked),
        _ => json(401, r#"{"error":"invalid_client"}"#),
    });
    bench.clock.advance(3_600);
    let error = bench.grants.access_token(&bench.account, &bench.net, soon()).err().unwrap();
    assert_eq!(error.kind(), Kind::Settings);
    fs::write(&path, "new-secret\n").unwrap();
    // At once: another secret ends the pause.
    bench.grants.access_token(&bench.account, &bench.net, soon()).unwrap();
    // A file that is away for a moment costs nothing.
    fs::remove_file(&path).unwrap();
    assert!(bench.account.client.secret().unwrap() == Secret::new("old-secret"));
}

#[test]
fn fault_5_the_redirect_url_is_sent_byte_for_byte() {
    for typed in [
        "https://desk.example.test",
        "https://desk.example.test:443/cb",
        "https://DESK.example.test/cb",
        "http://127.0.0.1:80/cb",
        "http://localhost:8080",
        "https://desk.example.test/a/../cb",
        "https://desk.example.test/cb?x=%7e",
    ] {
        let mut bench = Bench::new(tokens);
        bench.account.client.redirect_text = typed.into();
        bench.account.client.redirect_url = typed.parse().unwrap();
        let url = bench.grants.start(&bench.account, &bench.net, soon()).unwrap().authorize_url;
        let get = |name: &str| url.query_pairs().find(|(n, _)| n == name).unwrap().1.into_owned();
        assert_eq!(get("redirect_uri"), typed);
        let mut redirect = bench.account.client.redirect_url.clone();
        redirect.query_pairs_mut().append_pair("state", &get("state")).append_pair("code", "c");
        bench.grants.redeem(&bench.account, &bench.net, redirect.as_str(), soon()).unwrap();
        assert_eq!(bench.idp.asked("/token")[0].form["redirect_uri"], typed);
    }
}

#[test]
fn fault_6_no_parameter_is_sent_twice() {
    let mut bench = Bench::new(tokens);
    let client = &mut bench.account.client;
    client.authorize_url =
        "https://idp.test/auth?access_type=offline&prompt=login&prompt=none&login_hint=x&state=evil".parse().unwrap();
    client.authorize_parameters = [("access_type", "online"), ("prompt", "consent"), ("hd", "a"), ("hd", "b")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    let url = bench.grants.start(&bench.account, &bench.net, soon()).unwrap().authorize_url;
    let mut names: Vec<_> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    let get = |name: &str| url.query_pairs().find(|(n, _)| n == name).unwrap().1.into_owned();
    let wanted = [get("access_type"), get("prompt"), get("login_hint"), get("hd")];
    assert_eq!(wanted, ["offline", "login", "x", "a"]);
    assert_ne!(get("state"), "evil");
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "{url}");
}

#[test]
fn fault_9_a_redirect_that_arrived_elsewhere_says_where_and_why() {
    let mut bench = Bench::new(tokens);
    for (registered, arrived, cause) in [
        ("https://desk.test/cb", "http://desk.test/cb", "X-Forwarded-Proto"),
        ("https://desk.test/cb", "https://desk.test/cb/", "slash"),
        ("https://desk.test/cb/", "https://desk.test/cb", "slash"),
        ("http://127.0.0.1:8080/cb", "http://localhost:8080/cb", "two names"),
        ("https://desk.test/cb", "https://other.test/cb", "host name differs"),
        ("https://desk.test/cb", "https://desk.test:8443/cb", "port differs"),
        ("https://desk.test/desk/cb", "https://desk.test/cb", "path differs"),
        ("https://desk.test/cb?tenant=7", "https://desk.test/cb", "own parameters"),
    ] {
        bench.account.client.redirect_url = registered.parse().unwrap();
        bench.account.client.redirect_text = registered.into();
        let redirect = format!("{arrived}?state=s&code=canary");
        let error = bench.grants.redeem(&bench.account, &bench.net, &redirect, soon()).err().unwrap();
        assert_eq!((error.kind(), error.who_acts()), (Kind::Refused, Who::HelpdeskAdministrator));
        let place = registered.split('?').next().unwrap();
        assert!(error.message().contains(arrived) && error.message().contains(place), "{error}");
        assert!(error.remedy_text().unwrap().contains(cause), "{arrived}: {error}");
        assert!(!error.to_json().to_string().contains("canary"), "{error}");
    }
}

#[test]
fn fault_9_a_refusal_without_state_shows_the_providers_words() {
    let bench = Bench::new(tokens);
    let rest = "error=access_denied&error_description=The+resource+owner+denied+the+request";
    let error = bench.grants.redeem(&bench.account, &bench.net, &bench.redirect(rest), soon()).err().unwrap();
    assert_eq!((error.kind(), error.who_acts()), (Kind::Refused, Who::MailboxOwner));
    assert!(error.message().contains("lacks the parameter state"), "{error}");
    let words = error.provider_code_text().unwrap();
    assert_eq!(words, "access_denied: The resource owner denied the request (unproven)");
    let long = format!("error=x&error_description={}", "y+".repeat(2_000));
    let error = bench.grants.redeem(&bench.account, &bench.net, &bench.redirect(&long), soon()).err().unwrap();
    assert!(error.message().len() < 1_500, "{}", error.message().len());
    // A declined consent of ours is not touched by it.
    bench.consent();
}

#[test]
fn fault_13_device_answers_are_read_leniently() {
    let base = value!({
        "device_code": "canary-device", "user_code": "AB-12", "verification_uri": "https://idp.test/device",
        "expires_in": 900, "interval": 5,
    });
    for (name, odd) in [
        ("expires_in", value!("900")),
        ("interval", value!("5")),
        ("interval", value!("soon")),
        ("expires_in", value!({})),
        ("user_code", value!(12345678)),
        ("verification_uri_complete", value!("")),
        ("verification_uri_complete", value!(5)),
        ("verification_url", value!("")),
        ("message", value!(["x"])),
    ] {
        let mut answer = base.clone();
        answer[name] = odd.clone();
        let mut bench = Bench::new(move |_| json(200, answer.to_string()));
        bench.account.client.device_authorization_url = Some(format!("{}/device", bench.idp.base).parse().unwrap());
        let code = bench.grants.start_device(&bench.account, &bench.net, soon());
        let code = code.unwrap_or_else(|error| panic!("{name} {odd}: {error}"));
        assert_eq!(code.interval_seconds, 5, "{name} {odd}");
    }
    let mut bench = Bench::new(|_| json(404, ""));
    bench.account.client.device_authorization_url = Some(format!("{}/device", bench.idp.base).parse().unwrap());
    let error = bench.grants.start_device(&bench.account, &bench.net, soon()).err().unwrap();
    assert!(error.message().contains("device authorization endpoint"), "{error}");
}

#[test]
fn fault_13_an_expired_device_code_ends_the_waiting_in_every_spelling() {
    for code in ["expired_token", "code_expired", "EXPIRED_TOKEN", "bad_verification_code", "invalid_grant"] {
        let base = value!({
            "device_code": "canary-device", "user_code": "AB-12", "verification_uri": "https://idp.test/device",
        });
        let mut bench = Bench::new(move |asked| match asked.path.as_str() {
            "/device" => json(200, base.to_string()),
            _ => json(400, value!({"error": code}).to_string()),
        });
        bench.account.client.device_authorization_url = Some(format!("{}/device", bench.idp.base).parse().unwrap());
        bench.grants.start_device(&bench.account, &bench.net, soon()).unwrap();
        bench.clock.advance(6);
        let error = bench.grants.poll_device(&bench.account, &bench.net, soon()).err().unwrap();
        assert_eq!(error.kind(), Kind::ConsentRequired, "{code}: {error}");
        let error = bench.grants.poll_device(&bench.account, &bench.net, soon()).err().unwrap();
        assert_eq!(error.kind(), Kind::Misuse, "{code}: nothing waits any more");
    }
}
