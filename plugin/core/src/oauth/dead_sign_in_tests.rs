//! What a refused refresh means, whatever its spelling (fault 3), who must act (fault 10), and that the provider's words
//! are kept from every shape.

use serde_json::{Value, json as value};

use super::{
    State,
    consent_tests::tokens,
    tests_support::{Answer, Bench, json, soon},
};
use crate::{
    error::{Error, Kind, Who},
    limits,
};

/// A refresh after the end of the access token, refused like this.
fn refused(status: u16, body: &str) -> (Bench, Error) {
    let bench = Bench::new(tokens);
    bench.consent();
    bench.clock.advance(3_600);
    let body = body.to_owned();
    bench.idp.set(move |_| (status, String::new(), body.clone()));
    let error = bench.grants.access_token(&bench.account, &bench.net, soon()).err().unwrap();
    (bench, error)
}

fn redeemed(answer: Answer) -> Error {
    let bench = Bench::new(move |_| answer.clone());
    let redirect = bench.redirect(&format!("state={}&code=c", bench.state()));
    bench.grants.redeem(&bench.account, &bench.net, &redirect, soon()).err().unwrap()
}

#[test]
fn fault_3_a_dead_refresh_token_is_recognised_in_every_spelling() {
    for (status, body) in [
        (400, ""),
        (400, "  \r\n"),
        (400, r#"{"error":"invalid_grant"}"#),
        (400, r#"{"error":"INVALID_GRANT"}"#),
        (400, r#"{"error":"Invalid-Grant"}"#),
        (400, r#"{"error":"INVALID_REFRESH_TOKEN","error_description":"x"}"#),
        (400, r#"{"error":"invalidRefreshToken"}"#),
        (401, r#"{"error":"invalid_token"}"#),
        (403, r#"{"error":"invalid_code"}"#),
        (400, r#"{"error":"expired_token"}"#),
        (400, r#"{"error":"token_expired"}"#),
        (401, r#"{"error":"refresh_token_revoked"}"#),
        (400, r#"{"error":"session_not_active"}"#),
        (400, r#"{"error":"Invalid refresh token"}"#),
        (400, r#"{"error":{"code":400,"message":"Token has been expired or revoked.","status":"INVALID_ARGUMENT"}}"#),
        (400, r#"{"error":{"code":"invalid_grant"}}"#),
        (400, r#"{"errorCode":"invalid_grant","errorSummary":"The refresh token is invalid or expired."}"#),
        (400, r#"{"errors":[{"code":"INVALID_TOKEN"}]}"#),
        (400, r#"{"message":"The refresh token was revoked"}"#),
        (400, r#"{"title":"Bad Request","detail":"refresh token not found"}"#),
        (
            400,
            r#"{"fault":{"faultstring":"Invalid Refresh Token","detail":{"errorcode":"keymanagement.service.invalid_refresh_token"}}}"#,
        ),
        (400, "error=invalid_grant&error_description=expired"),
        (400, "<OAuth><error>invalid_grant</error></OAuth>"),
        (400, "\"Invalid refresh token\""),
        (400, "The refresh token has expired."),
        (400, r#"{"error":"invalid_request","error_description":"Refresh token is malformed"}"#),
        (400, r#"{"error":"invalid_grant","suberror":"bad_token","error_subtype":"invalid_rapt"}"#),
        (200, r#"{"error":"invalid_grant"}"#),
    ] {
        let (bench, error) = refused(status, body);
        assert_eq!(error.kind(), Kind::ConsentRequired, "{status} {body}: {error}");
        assert_eq!(
            error.who_acts(),
            if body.contains("rapt") { error.who_acts() } else { Who::MailboxOwner },
            "{body}"
        );
        let status = bench.grants.status(&bench.account).unwrap();
        assert_eq!(status.state, State::ConsentRequired, "{body}");
        assert!(status.reason.is_some(), "{body}");
    }
}

#[test]
fn fault_3_what_means_something_else_asks_nobody_for_a_consent() {
    for (status, body, kind) in [
        (400, r#"{"error":"invalid_client"}"#, Kind::Settings),
        (
            400,
            r#"{"errorCode":"invalid_client","errorSummary":"Invalid value for 'client_id' parameter."}"#,
            Kind::Settings,
        ),
        (401, r#"{"error":"incorrect_client_credentials"}"#, Kind::Settings),
        (400, r#"{"error":"invalid_scope"}"#, Kind::Settings),
        (400, r#"{"error":"unauthorized_client"}"#, Kind::AdminRequired),
        (400, r#"{"error":"invalid_request","error_description":"client_id is invalid"}"#, Kind::AdminRequired),
        (400, r#"{"error":"never_heard_of"}"#, Kind::AdminRequired),
        (403, "<html><title>403 Forbidden</title></html>", Kind::ServerMisbehaved),
        (400, "<html><head><title>Request Rejected</title></head></html>", Kind::ServerMisbehaved),
        (401, "", Kind::ServerMisbehaved),
        (403, "", Kind::ServerMisbehaved),
        (404, "", Kind::Settings),
        (503, r#"{"error":"invalid_grant"}"#, Kind::Transient),
        (500, "", Kind::Transient),
        (429, "", Kind::Throttled),
    ] {
        let (bench, error) = refused(status, body);
        assert_eq!(error.kind(), kind, "{status} {body}: {error}");
        assert_eq!(bench.grants.status(&bench.account).unwrap().state, State::Authorized, "{status} {body}");
    }
}

/// Silence of a proxy for a minute is no end of a sign-in; for ten minutes, without an access token, it most likely is.
#[test]
fn fault_3_a_lasting_refusal_without_words_becomes_consent_needed_and_heals() {
    let (bench, error) = refused(403, "<html>no</html>");
    assert_eq!(error.kind(), Kind::ServerMisbehaved);
    let mut kinds = Vec::new();
    for _ in 0..4 {
        bench.clock.advance(301);
        kinds.push(bench.grants.access_token(&bench.account, &bench.net, soon()).err().unwrap().kind());
    }
    assert_eq!(kinds[0], Kind::ServerMisbehaved, "{kinds:?}");
    assert_eq!(kinds[3], Kind::ConsentRequired, "{kinds:?}");
    let status = bench.grants.status(&bench.account).unwrap();
    assert_eq!(status.state, State::ConsentRequired);
    // It was a proxy after all.
    bench.idp.set(tokens);
    bench.clock.advance(301);
    assert!(bench.grants.access_token(&bench.account, &bench.net, soon()).is_ok());
    assert_eq!(bench.grants.status(&bench.account).unwrap().state, State::Authorized);
}

#[test]
fn fault_3_while_the_access_token_lives_a_silent_refusal_changes_nothing() {
    let bench = Bench::new(tokens);
    bench.consent();
    bench.clock.advance(3_500);
    bench.idp.set(|_| json(400, ""));
    assert!(bench.grants.access_token(&bench.account, &bench.net, soon()).is_ok());
    assert_eq!(bench.grants.status(&bench.account).unwrap().state, State::Authorized);
}

#[test]
fn fault_3_the_providers_words_are_kept_from_every_shape() {
    for (body, words) in [
        (r#"{"error":{"code":7,"message":"Nested words"}}"#, "Nested words"),
        (r#"{"errorCode":"E0000001","errorSummary":"Okta words"}"#, "E0000001: Okta words"),
        (r#"{"errors":["list words"]}"#, "list words"),
        (r#"[{"error":"list_code","message":"words"}]"#, "list_code: words"),
        (r#"{"detail":{"error":"deep_code"}}"#, "deep_code"),
        (r#"{"title":"Problem words","type":"https://x.test/p"}"#, "Problem words"),
        ("error=form_code&error_description=form+words", "form_code: form words"),
        (
            "<html><head><title>Blocked &amp; logged</title></head><h1>No entry</h1></html>",
            "Blocked & logged: No entry",
        ),
        ("<!DOCTYPE html><HTML><TITLE>\n Access   denied </TITLE>", "Access denied"),
        ("<?xml version='1.0'?><r><code>xml_code</code><message>xml words</message></r>", "xml_code: xml words"),
        ("plain words", "plain words"),
        ("\u{feff}{\"error\":\"with_bom\"}", "with_bom"),
        (r#"{"error":"e","error_description":{"x":1},"suberror":3,"error_codes":"7"}"#, "e (AADSTS7)"),
    ] {
        let (_, error) = refused(400, body);
        let told = error.provider_code_text().unwrap_or_default().to_owned();
        assert!(told.contains(words), "{body}: {told}");
    }
    let (_, error) = refused(400, &"x ".repeat(40_000));
    assert!(error.provider_code_text().unwrap().len() <= limits::PROVIDER_TEXT_MAX + 20);
    let deep = format!("{}{}", r#"{"error":"#.repeat(60), "1");
    let (_, error) = refused(400, &format!("{deep}{}", "}".repeat(60)));
    assert_eq!(error.kind(), Kind::ServerMisbehaved);
}

#[test]
fn fault_3_a_code_that_is_no_good_is_one_to_start_again_with() {
    for (status, body) in [
        (400, r#"{"error":"invalid_grant"}"#),
        (403, r#"{"error":"invalid_code"}"#),
        (400, r#"{"error":"bad_verification_code"}"#),
        (400, r#"{"error":"code_expired"}"#),
        (400, r#"{"error":"INVALID_AUTHORIZATION_CODE"}"#),
    ] {
        let error = redeemed(json(status, body));
        assert_eq!(error.kind(), Kind::ConsentRequired, "{body}: {error}");
        assert!(error.remedy_text().unwrap().contains("starts the consent again"), "{body}: {error}");
    }
}

#[test]
fn fault_8_a_passing_fault_inside_a_consent_is_to_be_started_again() {
    for (status, body) in [
        (500, ""),
        (503, ""),
        (429, ""),
        (408, ""),
        (400, r#"{"error":"temporarily_unavailable"}"#),
        (400, r#"{"error":"server_error"}"#),
    ] {
        let error = redeemed(json(status, body));
        assert!(error.is_transient(), "{status} {body}");
        assert_eq!(error.remedy_text(), Some("Start the consent again in a few minutes."), "{status} {body}");
        assert_eq!(error.who_acts(), Who::MailboxOwner);
    }
    let bench = Bench::new(tokens);
    let redirect = bench.redirect(&format!("state={}&error=temporarily_unavailable", bench.state()));
    let error = bench.grants.redeem(&bench.account, &bench.net, &redirect, soon()).err().unwrap();
    assert_eq!(error.remedy_text(), Some("Start the consent again in a few minutes."));
}

#[test]
fn fault_10_a_row_found_by_number_replaces_sentence_remedy_and_field_together() {
    let told = |code: &str, number: u32| {
        let error = redeemed(json(400, value!({"error": code, "error_codes": [number]}).to_string()));
        let field = error.faults().first().map(|fault| fault.pointer.clone());
        (
            error.kind(),
            field,
            error.message().to_owned(),
            error.remedy_text().unwrap_or_default().to_owned(),
            error.who_acts(),
        )
    };
    for (code, number, kind, field, message, remedy) in [
        ("invalid_client", 650052, Kind::AdminRequired, None, "licence", "tenant administrator adds"),
        ("invalid_client", 7000229, Kind::AdminRequired, None, "service principal", "admin consent"),
        ("invalid_client", 65006, Kind::AdminRequired, None, "permissions", "tenant administrator"),
        ("invalid_client", 700024, Kind::AdminRequired, None, "clock", "NTP"),
        ("invalid_client", 7000215, Kind::Settings, Some("/client_secret"), "wrong", "not its Secret ID"),
        ("invalid_client", 7000222, Kind::Settings, Some("/client_secret"), "has expired", "new one made"),
        ("unauthorized_client", 700016, Kind::Settings, Some("/client_id"), "unknown or disabled", "Client ID"),
        ("invalid_request", 9002346, Kind::Settings, Some("/access_token_url"), "personal accounts", "/consumers"),
        ("invalid_request", 9002327, Kind::Settings, Some("/redirect_url"), "single-page", "under Web"),
        ("invalid_request", 28000, Kind::Settings, Some("/scope"), "more than one service", "one service"),
        ("invalid_request", 90072, Kind::Settings, Some("/access_token_url"), "another tenant", "guest"),
        ("invalid_grant", 50034, Kind::ConsentRequired, None, "not in the directory", "another account"),
        ("invalid_grant", 500341, Kind::ConsentRequired, None, "deleted", "restores"),
        ("invalid_grant", 530003, Kind::ConsentRequired, None, "managed device", "Conditional Access"),
    ] {
        let (k, f, m, r, _) = told(code, number);
        assert_eq!((k, f.as_deref()), (kind, field), "{number}");
        assert!(m.contains(message), "{number}: {m}");
        assert!(r.contains(remedy), "{number}: {r}");
        assert!(!r.contains("valid Client Secret"), "{number}: {r}");
    }
    assert_eq!(told("invalid_client", 700024).4, Who::HelpdeskAdministrator);
    // While the provider is busy nobody has to act, whatever else it says.
    let error = redeemed(json(503, r#"{"error":"x","error_codes":[7000222]}"#));
    assert!(error.is_transient() && error.faults().is_empty());
}

#[test]
fn fault_11_scopes_separated_by_commas_are_scopes() {
    let mut answer: Value = serde_json::from_str(super::consent_tests::TOKENS).unwrap();
    answer["scope"] = "openid,mail,offline_access".into();
    let bench = Bench::new(move |_| json(200, answer.to_string()));
    bench.consent();
    let scopes = bench.grants.status(&bench.account).unwrap().scopes;
    assert_eq!((scopes.granted.len(), scopes.missing.len(), scopes.excess.len()), (3, 0, 0), "{scopes:?}");
}

#[test]
fn fault_17_a_sign_in_that_ends_with_the_session_is_warned_of_and_stays_healthy() {
    for name in ["refresh_expires_in", "refresh_token_timeout", "authorization_expires_in"] {
        let mut answer: Value = serde_json::from_str(super::consent_tests::TOKENS).unwrap();
        answer[name] = 1_800.into();
        let mut bench = Bench::new(move |_| json(200, answer.to_string()));
        bench.account.client.scopes = vec!["mail".into()];
        bench.consent();
        let status = bench.grants.status(&bench.account).unwrap();
        assert_eq!(status.state, State::Authorized);
        assert!(status.warnings.iter().any(|warning| warning.sentence.contains("30 minutes")), "{name}: {status:?}");
        assert!(status.warnings.iter().all(|warning| warning.ends_at.is_none()), "{name}: {status:?}");
    }
    let mut answer: Value = serde_json::from_str(super::consent_tests::TOKENS).unwrap();
    answer["x_refresh_token_expires_in"] = 86_400.into();
    let bench = Bench::new(move |_| json(200, answer.to_string()));
    bench.consent();
    let status = bench.grants.status(&bench.account).unwrap();
    assert!(status.warnings.iter().any(|warning| warning.ends_at.is_some()), "{status:?}");
}

#[test]
fn fault_14_advice_names_what_is_missing() {
    let no_refresh = r#"{"access_token":"canary-access-1","expires_in":3600}"#;
    let mut bench = Bench::new(move |_| json(200, no_refresh));
    let mut advice = |scope: &[&str], prompt: Option<&str>| {
        bench.account.client.scopes = scope.iter().map(|scope| (*scope).to_owned()).collect();
        bench.account.client.authorize_parameters =
            prompt.iter().map(|prompt| ("prompt".to_owned(), (*prompt).to_owned())).collect();
        bench.consent();
        let status = bench.grants.status(&bench.account).unwrap();
        status.warnings.iter().map(|warning| warning.sentence.clone()).collect::<String>()
    };
    assert!(advice(&["mail"], None).contains("add offline_access to Scope"));
    let told = advice(&["mail", "offline_access"], None);
    assert!(told.contains("prompt=consent") && !told.contains("to Scope"), "{told}");
    let told = advice(&["mail", "offline_access"], Some("login consent"));
    assert!(told.contains("allow this client refresh tokens") && !told.contains("prompt="), "{told}");
}

#[test]
fn fault_24_odd_members_do_not_cost_the_access_token() {
    for (name, odd) in [
        ("refresh_token", value!(false)),
        ("refresh_token", value!({})),
        ("token_type", value!(["Bearer"])),
        ("token_type", value!("Bearer ")),
        ("token_type", Value::Null),
        ("expires_in", value!({"x": 1})),
        ("expires_in", value!("soon")),
        ("scope", value!(5)),
        ("refresh_expires_in", value!("never")),
        ("id_token", Value::Null),
        ("id_token", value!("")),
    ] {
        let mut answer: Value = serde_json::from_str(super::consent_tests::TOKENS).unwrap();
        answer[name] = odd.clone();
        let bench = Bench::new(move |_| json(200, answer.to_string()));
        bench.consent();
        assert_eq!(bench.grants.status(&bench.account).unwrap().state, State::Authorized, "{name} {odd}");
    }
}
