//! Client credentials (RFC 6749 4.4): the application signs in as itself, by secret or certificate.

use crate::{secret::Secret, settings::Account};

pub(super) fn fields(scope: &str) -> Vec<(&'static str, Secret)> {
    vec![("grant_type", Secret::new("client_credentials")), ("scope", Secret::new(scope))]
}

/// Message and remedy for codes that mean something else here than where a person consented.
pub(super) fn advice(code: &str, account: &Account) -> Option<(String, String)> {
    let client_id = &account.client.client_id;
    Some(match code {
        "unauthorized_client" => (
            "The provider does not let this application sign in as itself.".to_owned(),
            format!(
                "Have the administrator allow client credentials for the application {client_id}, and grant its application permissions (at Microsoft IMAP.AccessAsApp, SMTP.SendAsApp) with admin consent."
            ),
        ),
        "invalid_grant" => (
            "The provider does not accept the application's credentials for what is asked.".to_owned(),
            format!(
                "Have the administrator check the application {client_id}: its certificate or secret, and the tenant in Access Token URL."
            ),
        ),
        _ => return None,
    })
}
