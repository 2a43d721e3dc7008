//! Consent against a server on loopback: what must be refused, and what the server gets to see.

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::json as value;
use sha2::{Digest, Sha256};

use super::{
    State,
    tests_support::{Answer, Asked, Bench, CLIENT_SECRET, json, soon},
};
use crate::{error::Kind, store::Table};

pub const TOKENS: &str =
    r#"{"access_token":"canary-access-1","token_type":"Bearer","expires_in":3600,"refresh_token":"canary-refresh-1"}"#;

pub fn tokens(_: &Asked) -> Answer {
    json(200, TOKENS)
}

fn with_email(email: &str) -> Answer {
    let claims = value!({"aud": "client-1", "exp": 4e9, "email": email});
    id_token(claims)
}

/// With the `alg` among the claims in its header.
pub fn id_token(claims: serde_json::Value) -> Answer {
    let encode = |part: String| BASE64_URL_SAFE_NO_PAD.encode(part);
    let header = encode(value!({"alg": claims.get("alg").cloned().unwrap_or("RS256".into())}).to_string());
    let payload = encode(claims.to_string());
    let mut body: serde_json::Value = serde_json::from_str(TOKENS).unwrap();
    body["id_token"] = format!("{header}.{payload}.x").into();
    json(200, body.to_string())
}

/// Without `openid` no nonce is sent, which keeps the ID tokens here simple.
fn without_openid(bench: &mut Bench) {
    bench.account.client.scopes = vec!["mail".into()];
}

#[test]
fn the_authorize_url_carries_pkce_state_and_nonce_and_cannot_be_overridden() {
    let bench = Bench::new(tokens);
    let url = bench.grants.start(&bench.account, &bench.net, soon()).unwrap().authorize_url;
    let get = |name: &str| {
        let all: Vec<_> = url.query_pairs().filter(|(n, _)| n == name).map(|(_, v)| v.into_owned()).collect();
        assert!(all.len() <= 1, "{name} stands there twice");
        all.into_iter().next()
    };
    assert_eq!(get("response_type").unwrap(), "code");
    assert_eq!(get("code_challenge_method").unwrap(), "S256");
    assert_eq!(get("code_challenge").unwrap().len(), 43);
    assert_eq!(get("scope").unwrap(), "openid mail offline_access");
    assert_eq!(get("login_hint").unwrap(), "helpdesk@corp.test");
    assert_eq!(get("prompt").unwrap(), "consent");
    assert_eq!(get("redirect_uri").unwrap(), bench.account.client.redirect_url.as_str());
    assert!(get("nonce").unwrap().len() >= 22);
    let state = get("state").unwrap();
    assert!(state.len() >= 22 && state != "evil");
    assert_ne!(state, bench.state());
    assert!(!url.as_str().contains(CLIENT_SECRET));
}

#[test]
fn a_consent_becomes_a_grant_that_survives_a_restart() {
    let bench = Bench::new(tokens);
    assert_eq!(bench.grants.status(&bench.account).unwrap().state, State::ConsentRequired);
    let url = bench.grants.start(&bench.account, &bench.net, soon()).unwrap().authorize_url;
    let get = |name: &str| url.query_pairs().find(|(n, _)| n == name).unwrap().1.into_owned();
    let redirect = bench.redirect(&format!("state={}&code=canary-code&session_state=x", get("state")));
    let redeemed = bench.grants.redeem(&bench.account, &bench.net, &redirect, soon()).unwrap();
    assert_eq!(redeemed.access_token().secret().expose(), "canary-access-1");
    assert_eq!(bench.store.count(Table::Grant), 0, "nothing is kept before the mail server accepted");
    let status = bench.grants.keep(&bench.account, redeemed).unwrap();
    assert_eq!(status.state, State::Authorized);

    let asked = bench.idp.asked("/token").remove(0);
    assert_eq!(asked.method, "POST");
    assert_eq!(asked.form["grant_type"], "authorization_code");
    assert_eq!(asked.form["code"], "canary-code");
    assert_eq!(asked.form["redirect_uri"], bench.account.client.redirect_url.as_str());
    let hash = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&asked.form["code_verifier"]));
    assert_eq!(hash, get("code_challenge"));
    let basic = BASE64_STANDARD.encode(format!("client-1:{CLIENT_SECRET}"));
    assert_eq!(asked.authorization.unwrap(), format!("Basic {basic}"));
    assert!(!asked.form.contains_key("client_secret"));

    let token = bench.another().access_token(&bench.account, &bench.net, soon()).unwrap();
    assert_eq!(token.secret().expose(), "canary-access-1");
    assert_eq!(bench.idp.asked("/token").len(), 1, "a good token is not renewed");
}

#[test]
fn a_state_is_good_once_for_ten_minutes_and_for_its_own_settings() {
    let mut bench = Bench::new(tokens);
    let redeem = |bench: &Bench, state: &str| {
        let redirect = bench.redirect(&format!("state={state}&code=c"));
        bench
            .grants
            .redeem(&bench.account, &bench.net, &redirect, soon())
            .map(|_| ())
            .map_err(|e| e.message().to_owned())
    };
    let state = bench.state();
    redeem(&bench, &state).unwrap();
    assert!(redeem(&bench, &state).unwrap_err().contains("not known"));

    let state = bench.state();
    let declined = bench.redirect(&format!("state={state}&error=access_denied"));
    assert!(bench.grants.redeem(&bench.account, &bench.net, &declined, soon()).is_err());
    assert!(redeem(&bench, &state).unwrap_err().contains("not known"), "a declined consent is over");

    let state = bench.state();
    let own = bench.account.clone();
    bench.account.consenting_user = "other@corp.test".into();
    assert!(redeem(&bench, &state).unwrap_err().contains("another mailbox"));
    bench.account = own.clone();
    redeem(&bench, &state).expect("the wrong handle does not use up another's consent");

    for change in 0..3 {
        let state = bench.state();
        match change {
            0 => bench.account.client.authorize_url.set_path("/elsewhere"),
            1 => bench.account.client.redirect_url.set_query(None),
            _ => bench.account.client.token_url.set_path("/elsewhere"),
        }
        let words = redeem(&bench, &state).unwrap_err();
        assert!(words.contains("settings were changed") || words.contains("another mailbox"), "{words}");
        bench.account = own.clone();
    }

    let state = bench.state();
    bench.clock.advance(601);
    assert!(redeem(&bench, &state).unwrap_err().contains("ten minutes"));
    bench.state();
    bench.clock.advance(601);
    bench.state();
    assert_eq!(bench.store.count(Table::Consent), 1, "consents that nobody completes are forgotten");
}

#[test]
fn of_fifty_redirects_with_one_state_one_is_redeemed() {
    let bench = Bench::new(tokens);
    let redirect = bench.redirect(&format!("state={}&code=c", bench.state()));
    let good = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..50)
            .map(|_| scope.spawn(|| bench.grants.redeem(&bench.account, &bench.net, &redirect, soon()).is_ok()))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).filter(|ok| *ok).count()
    });
    assert_eq!((good, bench.idp.asked("/token").len()), (1, 1));
}

#[test]
fn the_wrong_person_is_refused_and_their_tokens_are_given_back() {
    let mut bench = Bench::new(|asked| match asked.path.as_str() {
        "/token" => with_email("ceo@corp.test"),
        _ => json(200, ""),
    });
    without_openid(&mut bench);
    let redirect = bench.redirect(&format!("state={}&code=c", bench.state()));
    let error = bench.grants.redeem(&bench.account, &bench.net, &redirect, soon()).err().unwrap();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("ceo@corp.test") && error.to_string().contains("helpdesk@corp.test"));
    let given_back: Vec<_> = bench.idp.asked("/revoke").iter().map(|asked| asked.form["token"].clone()).collect();
    assert_eq!(given_back, ["canary-refresh-1", "canary-access-1"], "the refresh token first (RFC 7009 2.1)");

    // The same person has a mailbox of their own here: their grant must live on.
    let mut theirs = bench.account.clone();
    theirs.consenting_user = "ceo@corp.test".into();
    let own = std::mem::replace(&mut bench.account, theirs);
    bench.consent();
    bench.account = own;
    let redirect = bench.redirect(&format!("state={}&code=c", bench.state()));
    assert!(bench.grants.redeem(&bench.account, &bench.net, &redirect, soon()).is_err());
    assert_eq!(bench.idp.asked("/revoke").len(), given_back.len());
}

/// Fault 14 of the page: the log told the owner of the mailbox to end the app's access, and only the log.
#[test]
fn the_person_who_consented_by_mistake_is_told_to_end_the_access_where_nothing_can_be_revoked() {
    let mut bench = Bench::new(|_| with_email("ceo@corp.test"));
    without_openid(&mut bench);
    bench.account.client.revocation_url = None;
    let redirect = bench.redirect(&format!("state={}&code=c", bench.state()));
    let error = bench.grants.redeem(&bench.account, &bench.net, &redirect, soon()).err().unwrap();
    for told in [error.remedy_text().unwrap().to_owned(), bench.log.lock().unwrap().clone()] {
        assert!(told.contains("account settings of ceo@corp.test"), "{told}");
        assert!(!told.contains("account settings of helpdesk@corp.test"), "{told}");
    }
}

#[test]
fn identity_comes_from_the_id_token_or_userinfo_or_stays_open() {
    let mut bench = Bench::new(|_| with_email("HelpDesk@corp.test"));
    without_openid(&mut bench);
    bench.consent();
    assert_eq!(bench.grants.status(&bench.account).unwrap().identity.as_deref(), Some("HelpDesk@corp.test"));

    bench.account.client.userinfo_url = Some(format!("{}/userinfo", bench.idp.base).parse().unwrap());
    bench.idp.set(|asked| match asked.path.as_str() {
        "/userinfo" if asked.authorization.as_deref() == Some("Bearer canary-access-1") => {
            json(200, r#"{"upn":"helpdesk@corp.test"}"#)
        }
        "/token" => id_token(value!({"aud": "client-1", "exp": 4e9, "sub": "1"})),
        _ => json(500, ""),
    });
    bench.consent();
    assert_eq!(bench.grants.status(&bench.account).unwrap().identity.as_deref(), Some("helpdesk@corp.test"));

    for userinfo in [json(401, "{}"), json(200, "<html>"), json(200, r#"{"sub":"2","email":"ceo@corp.test"}"#)] {
        bench.idp.set(move |asked| match asked.path.as_str() {
            "/userinfo" => userinfo.clone(),
            _ => id_token(value!({"aud": "client-1", "exp": 4e9, "sub": "1"})),
        });
        bench.consent();
        assert_eq!(bench.grants.status(&bench.account).unwrap().identity, None);
    }
}

#[test]
fn an_id_token_of_another_consent_is_refused() {
    let bench = Bench::new(|_| {
        id_token(value!({"aud": "client-1", "exp": 4e9, "nonce": "replayed", "email": "helpdesk@corp.test"}))
    });
    let redirect = bench.redirect(&format!("state={}&code=c", bench.state()));
    let error = bench.grants.redeem(&bench.account, &bench.net, &redirect, soon()).err().unwrap();
    assert!(error.message().contains("another consent"), "{error}");
}

#[test]
fn the_nonce_of_this_consent_is_accepted() {
    let bench = Bench::new(tokens);
    let url = bench.grants.start(&bench.account, &bench.net, soon()).unwrap().authorize_url;
    let get = |name: &str| url.query_pairs().find(|(n, _)| n == name).unwrap().1.into_owned();
    let claims = value!({"aud": "client-1", "exp": 4e9, "nonce": get("nonce"), "email": "helpdesk@corp.test"});
    bench.idp.set(move |_| id_token(claims.clone()));
    let redirect = bench.redirect(&format!("state={}&code=c", get("state")));
    let redeemed = bench.grants.redeem(&bench.account, &bench.net, &redirect, soon()).unwrap();
    assert_eq!(redeemed.identity(), Some("helpdesk@corp.test"));
}

#[test]
fn no_secret_reaches_an_error_or_the_log() {
    // A server that echoes everything it was told, in every place an error is built from.
    let echo = |asked: &Asked| {
        let all: Vec<_> = asked.form.values().cloned().chain(asked.authorization.clone()).collect();
        let all = all.join(" ").replace('"', "'");
        json(
            400,
            format!(
                r#"{{"error":"{all}","error_description":"you sent {all}","trace_id":"{all}","suberror":"{all}"}}"#
            ),
        )
    };
    let mut bench = Bench::new(echo);
    let mut told = String::new();
    for secret in [true, false] {
        bench.account.client.scopes = vec!["mail".into()];
        let redirect = bench.redirect(&format!("state={}&code=canary-code", bench.state()));
        let error = bench.grants.redeem(&bench.account, &bench.net, &redirect, soon()).err().unwrap();
        told += &format!("{error} {error:?} {}", error.to_json());
        bench.idp.set(tokens);
        bench.consent();
        bench.clock.advance(4000);
        for answer in [
            echo as fn(&Asked) -> Answer,
            |_| json(200, r#"{"access_token":["canary-x"],"refresh_token":"canary-y"}"#),
            |_| json(200, "canary-z"),
            |_| json(200, r#"{"access_token":"canary-\u0001x"}"#),
            |_| json(500, "some words"),
        ] {
            bench.idp.set(answer);
            let error = bench.grants.access_token(&bench.account, &bench.net, soon()).err().unwrap();
            told += &format!("{error} {error:?} {}", error.to_json());
            bench.clock.advance(400);
        }
        bench.idp.set(echo);
        let revoked = bench.grants.revoke(&bench.account, &bench.net, soon()).unwrap();
        told += &format!("{revoked:?} {}", revoked.to_json());
        if secret {
            bench.account.client.client_secret = None;
        }
    }
    told += &bench.log.lock().unwrap();
    assert!(!told.contains("canary"), "{told}");
    let basic = BASE64_STANDARD.encode(format!("client-1:{CLIENT_SECRET}"));
    assert!(!told.contains(&basic[..24]), "{told}");
}

#[test]
fn a_public_client_and_a_post_only_server_get_the_secret_their_way() {
    let mut bench = Bench::new(tokens);
    bench.account.client.issuer = Some(bench.idp.base.clone());
    let metadata =
        format!(r#"{{"issuer":"{}","token_endpoint_auth_methods_supported":["client_secret_post"]}}"#, bench.idp.base);
    bench.idp.set(move |asked| if asked.path == "/token" { tokens(asked) } else { json(200, metadata.clone()) });
    bench.consent();
    let asked = bench.idp.asked("/token").remove(0);
    assert_eq!((asked.form["client_secret"].as_str(), asked.authorization), (CLIENT_SECRET, None));

    bench.account.client.client_secret = None;
    bench.consent();
    let asked = bench.idp.asked("/token").remove(1);
    assert_eq!(
        (asked.form["client_id"].as_str(), asked.form.get("client_secret"), asked.authorization),
        ("client-1", None, None)
    );
}
