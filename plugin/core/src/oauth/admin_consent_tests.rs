//! The administrator's link, its redirect, and the refusals that ask for it.

use url::Url;

use super::super::tests_support::{Bench, json, soon};
use super::*;

const PAGE: &str = "https://login.example.test/organizations/v2.0/adminconsent";

fn bench() -> Bench {
    let mut bench = Bench::new(|_| json(400, r#"{"error":"invalid_grant"}"#));
    bench.account.client.admin_consent_url = Some(Url::parse(PAGE).unwrap());
    bench
}

fn link_of(bench: &Bench) -> Url {
    bench.grants.admin_consent_url(&bench.account, &[]).unwrap()
}

fn redirect(bench: &Bench, parameters: &[(&str, &str)]) -> String {
    let mut url = bench.account.client.redirect_url.clone();
    url.query_pairs_mut().extend_pairs(parameters);
    url.into()
}

fn state(bench: &Bench) -> String {
    link_of(bench).query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned()
}

#[test]
fn the_link_names_client_scope_redirect_and_state_and_outlives_a_restart() {
    let bench = bench();
    let link = link_of(&bench);
    let get = |name: &str| link.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned());
    assert!(link.as_str().starts_with(PAGE));
    assert_eq!(get("client_id").unwrap(), "client-1");
    assert_eq!(get("scope").unwrap(), "openid mail offline_access");
    assert_eq!(get("redirect_uri").unwrap(), bench.account.client.redirect_text);
    assert!(get("state").unwrap().len() >= 32);
    assert_eq!(bench.another().admin_consent_url(&bench.account, &[]).unwrap(), link);
    // Another Redirect URL is another link.
    let mut other = bench.account.clone();
    other.client.redirect_text.push('x');
    assert_ne!(bench.grants.admin_consent_url(&other, &[]).unwrap(), link);
    // A provider without such a page.
    other.client.admin_consent_url = None;
    assert_eq!(bench.grants.admin_consent_url(&other, &[]), None);
}

#[test]
fn an_administrators_redirect_is_understood_and_may_come_twice() {
    let bench = bench();
    let state = state(&bench);
    for given in ["True", "true", "TRUE"] {
        let url = redirect(&bench, &[("admin_consent", given), ("tenant", "contoso.test"), ("state", &state)]);
        let judged = bench.grants.admin_consented(&bench.account, &url).unwrap().unwrap();
        assert_eq!(judged.tenant.as_deref(), Some("contoso.test"));
    }
    // It carries no code, and nothing was asked of the provider.
    assert!(bench.idp.all_asked().is_empty());
}

#[test]
fn what_is_no_administrators_consent_is_refused() {
    let bench = bench();
    let state = state(&bench);
    let cases: [(&[(&str, &str)], Kind); 7] = [
        (
            &[("error", "access_denied"), ("error_description", "AADSTS65004: no"), ("state", &state)],
            Kind::AdminRequired,
        ),
        (&[("admin_consent", "False"), ("state", &state)], Kind::AdminRequired),
        (&[("tenant", "t"), ("state", &state)], Kind::AdminRequired),
        (&[("admin_consent", "True"), ("tenant", "t")], Kind::Refused),
        (&[("admin_consent", "True"), ("tenant", "t"), ("state", "other")], Kind::Refused),
        (&[("admin_consent", "True"), ("code", "c"), ("state", &state)], Kind::Refused),
        (&[("admin_consent", "True"), ("admin_consent", "True"), ("state", &state)], Kind::Refused),
    ];
    for (parameters, kind) in cases {
        let error = bench.grants.admin_consented(&bench.account, &redirect(&bench, parameters)).unwrap_err();
        assert_eq!(error.kind(), kind, "{parameters:?}: {error}");
        assert!(error.remedy_text().is_some_and(|remedy| !remedy.is_empty()), "{error}");
        let has_link = error.link_text() == Some(link_of(&bench).as_str());
        assert_eq!(has_link, kind == Kind::AdminRequired, "{parameters:?}");
    }
    let elsewhere = format!("https://other.test/cb?admin_consent=True&state={state}");
    assert_eq!(bench.grants.admin_consented(&bench.account, &elsewhere).unwrap_err().kind(), Kind::Refused);
    // A person's redirect is not one.
    let of_a_person = redirect(&bench, &[("code", "c"), ("state", "s")]);
    assert_eq!(bench.grants.admin_consented(&bench.account, &of_a_person).unwrap(), None);
}

#[test]
fn a_refusal_that_only_an_administrator_can_lift_names_the_administrator_and_the_link() {
    for number in [65001, 90094, 90095] {
        for code in ["access_denied", "consent_required", "invalid_client"] {
            let bench = bench();
            let started = bench.grants.start(&bench.account, &bench.net, soon()).unwrap().authorize_url;
            let state = started.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
            let said = format!("AADSTS{number}: Admin consent is required.");
            let url = redirect(&bench, &[("error", code), ("error_description", &said), ("state", &state)]);
            assert_eq!(bench.grants.admin_consented(&bench.account, &url).unwrap(), None);
            let error = bench.grants.redeem(&bench.account, &bench.net, &url, soon()).err().unwrap();
            assert_eq!(error.who_acts(), Who::TenantAdministrator, "{number} {code}");
            assert_eq!(error.kind(), Kind::ConsentRequired, "{number} {code}");
            let link = link_of(&bench);
            assert!(error.remedy_text().unwrap().contains(link.as_str()), "{error}");
            assert_eq!(error.link_text(), Some(link.as_str()));
        }
    }
}

#[test]
fn a_refused_refresh_keeps_the_administrators_link() {
    let mut bench = bench();
    bench.idp.set(super::super::consent_tests::tokens);
    bench.consent();
    bench
        .idp
        .set(|_| json(400, r#"{"error":"invalid_grant","error_codes":[65001],"error_description":"AADSTS65001: no"}"#));
    bench.clock.advance(3_600);
    let error = bench.grants.access_token(&bench.account, &bench.net, soon()).err().unwrap();
    let link = link_of(&bench);
    assert_eq!((error.kind(), error.who_acts()), (Kind::ConsentRequired, Who::TenantAdministrator));
    assert!(error.remedy_text().unwrap().contains(link.as_str()), "{error}");
    // After a restart it is read from the record.
    let status = bench.another().status(&bench.account).unwrap();
    assert!(status.reason.unwrap().remedy_text().unwrap().contains(link.as_str()));
    bench.account.client.admin_consent_url = None;
    let error = bench.grants.access_token(&bench.account, &bench.net, soon()).err().unwrap();
    assert!(!error.remedy_text().unwrap().contains("http"), "{error}");
}

#[test]
fn scopes_that_are_left_to_administrators_are_known_beforehand() {
    let mut bench = bench();
    let mut of = |scopes: &str| {
        bench.account.client.scopes = scopes.split(' ').map(str::to_owned).collect();
        for_administrators(&bench.account).len()
    };
    assert_eq!(of("https://outlook.office.com/IMAP.AccessAsUser.All https://outlook.office.com/SMTP.Send"), 1);
    assert_eq!(of("Mail.ReadWrite.Shared https://graph.microsoft.us/Mail.Read"), 2);
    assert_eq!(of("https://outlook.office365.com/EWS.AccessAsUser.All offline_access"), 1);
    assert_eq!(of("https://graph.microsoft.com/Mail.Send openid"), 0);
    bench.account.client.scopes = vec!["Mail.Read".into()];
    bench.account.client.grant = GrantType::ClientCredentials;
    assert_eq!(for_administrators(&bench.account).len(), 0);
}
