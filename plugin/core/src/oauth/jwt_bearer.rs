//! JWT bearer grant (RFC 7523 2.1): a Google service account acts for a mailbox of its organisation, by domain-wide
//! delegation. Source of the refusals: Google, "Using OAuth 2.0 for Server to Server Applications", error codes.

use super::assertion;
use crate::{clock::UnixSeconds, error::Result, secret::Secret, settings::Account};

/// # Errors
/// `Settings`, at the service account's key.
pub(super) fn fields(account: &Account, scope: &str, now: UnixSeconds) -> Result<Vec<(&'static str, Secret)>> {
    Ok(vec![
        ("grant_type", Secret::new("urn:ietf:params:oauth:grant-type:jwt-bearer")),
        ("assertion", assertion::of_service_account(account, scope, now)?),
    ])
}

/// Message and remedy for codes that mean something else here than where a person consented.
pub(super) fn advice(code: &str, scope: &str, account: &Account) -> Option<(String, String)> {
    let (user, client_id) = (&account.username, &account.client.client_id);
    Some(match code {
        "unauthorized_client" | "access_denied" | "invalid_scope" => (
            format!("The service account may not act for {user} with this scope."),
            format!(
                "Have the administrator of the organisation open Security › API controls › Domain-wide delegation and enter the numeric client id of the service account ({client_id}) with exactly this scope: {scope}"
            ),
        ),
        "invalid_grant" => (
            format!("The provider does not accept the service account's statement about {user}."),
            format!(
                "Check that {user} is a mailbox of the organisation, that the key of the service account was not deleted, and that this machine's clock is right."
            ),
        ),
        "invalid_client" | "disabled_client" | "deleted_client" => (
            "The service account does not exist any more, or it is disabled.".to_owned(),
            "Have the administrator check the service account in the Google Cloud console, and enter a new key."
                .to_owned(),
        ),
        "org_internal" | "admin_policy_enforced" => (
            format!("A rule of the organisation keeps the service account out of {user}."),
            "Have the administrator allow the application under Security › API controls.".to_owned(),
        ),
        _ => return None,
    })
}
