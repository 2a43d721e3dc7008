//! An administrator consents for the whole organisation, where a mailbox owner must not.
//!
//! The redirect of such a consent carries no code: it opens nothing, and says only that a mailbox owner can
//! consent now. Its state is therefore kept nowhere: it names the grant, and the link stays good for days, after
//! restarts, and on every node.
//!
//! Source: Microsoft identity platform, "Admin consent on the Microsoft identity platform" (v2.0/adminconsent).

use url::Url;

use super::{Inner, consent, failure::provider_text, grant_id, hex_sha256, resource};
use crate::{
    error::{Error, Kind, Result, Who},
    settings::{Account, GrantType},
};

/// What an administrator's redirect reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConsented {
    /// The organisation, as the provider names it.
    pub tenant: Option<String>,
}

/// `None`: the provider has no such page. `also`: see [`consent::start`].
pub(super) fn link(inner: &Inner, account: &Account, also: &[Account]) -> Option<Url> {
    let client = &account.client;
    let mut url = consent::without_reserved(client.admin_consent_url.as_ref()?);
    let asked = consent::asked(inner, account, also);
    let scopes = resource::union([&*client.scopes].into_iter().chain(asked.values().map(Vec::as_slice)));
    url.query_pairs_mut()
        .append_pair("client_id", &client.client_id)
        .append_pair("scope", &scopes.join(" "))
        .append_pair("redirect_uri", &client.redirect_text)
        .append_pair("state", &state_of(account));
    Some(url)
}

/// `None`: this is not the redirect of an administrator's consent.
pub(super) fn judge(inner: &Inner, account: &Account, redirect: &str) -> Result<Option<AdminConsented>> {
    let state = state_of(account);
    let is_one = Url::parse(redirect.trim()).is_ok_and(|url| {
        let says = |name: &str, value: &str| url.query_pairs().any(|(n, v)| n == name && v == value);
        let has = |name: &str| url.query_pairs().any(|(n, _)| n == name);
        says("state", &state) || (has("admin_consent") && !has("code"))
    });
    if !is_one {
        return Ok(None);
    }
    let parameters = consent::parameters(&account.client, redirect, &["tenant"])?;
    let text = |name: &str| parameters.get(name).map(|value| value.as_str()).filter(|value| !value.is_empty());
    if text("state") != Some(&*state) {
        return Err(Error::new(
            Kind::Refused,
            "This redirect reports the consent of an administrator, but it does not belong to this mailbox.",
        )
        .remedy("Use the administrator's link of this mailbox; or start its consent, which shows whether it was given.")
        .who(Who::HelpdeskAdministrator));
    }
    if text("code").is_some() {
        return Err(Error::new(Kind::Refused, "The redirect of an administrator's consent carries a code.")
            .remedy("Start the consent again.")
            .who(Who::HelpdeskAdministrator));
    }
    if let Some(code) = text("error") {
        let mut words = provider_text(code, &[]);
        if let Some(description) = text("error_description") {
            words = format!("{words}: {}", provider_text(description, &[]));
        }
        let error = Error::new(Kind::AdminRequired, "The administrator did not consent for the organisation.")
            .remedy("An administrator of the organisation opens the link and accepts.")
            .who(Who::TenantAdministrator)
            .provider_code(words)
            .admin_consent();
        return Err(with_link(inner, account, error));
    }
    match text("admin_consent") {
        Some(given) if given.eq_ignore_ascii_case("true") => {
            let tenant = text("tenant").map(|tenant| provider_text(tenant, &[]).chars().take(TENANT_MAX).collect());
            Ok(Some(AdminConsented { tenant }))
        }
        _ => Err(with_link(
            inner,
            account,
            Error::new(Kind::AdminRequired, "The redirect does not say that an administrator has consented.")
                .remedy("An administrator of the organisation opens the link and accepts.")
                .who(Who::TenantAdministrator)
                .admin_consent(),
        )),
    }
}

/// A GUID or a domain name.
const TENANT_MAX: usize = 253;

/// Puts the administrator's link into a remedy that needs it.
pub(super) fn with_link(inner: &Inner, account: &Account, error: Error) -> Error {
    if !error.needs_admin_consent() {
        return error;
    }
    let Some(link) = link(inner, account, &[]) else { return error };
    let remedy = format!("{} The administrator's link: {link}", error.remedy_text().unwrap_or_default());
    error.remedy(remedy.trim_start()).link(link)
}

/// What Microsoft's managed consent policy leaves to administrators since November 2025; `*` ends a beginning. Older
/// consents go on, and sending is not among them.
const ADMIN_SCOPES: [&str; 5] =
    ["IMAP.AccessAsUser.All", "POP.AccessAsUser.All", "EAS.AccessAsUser.All", "EWS.AccessAsUser.All", "Mail.Read*"];

/// Of the scopes, those to which a mailbox owner cannot consent in an organisation that left its policy as it was.
pub(crate) fn for_administrators(account: &Account) -> Vec<&str> {
    let is_of_a_person = !account.client.grant.is_app_only();
    let has_page = account.client.admin_consent_url.is_some();
    let of_managed_policy = |scope: &&str| {
        let name = scope.rsplit('/').next().unwrap_or_default();
        ADMIN_SCOPES.iter().any(|own| match own.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *own,
        })
    };
    let scopes = account.client.scopes.iter().map(String::as_str);
    scopes.filter(|_| is_of_a_person && has_page).filter(of_managed_policy).collect()
}

/// What comes next, said to whoever sees that the administrator has consented.
pub(super) fn next(account: &Account) -> String {
    match account.client.grant {
        GrantType::AuthorizationCode => {
            format!("Open the consent window now and sign in as {}.", account.consenting_user)
        }
        GrantType::DeviceCode => format!("Ask for a code now and enter it as {}.", account.consenting_user),
        GrantType::ClientCredentials | GrantType::JwtBearer => "Connect the mailbox now.".to_owned(),
    }
}

fn state_of(account: &Account) -> String {
    hex_sha256(&["administrator's consent", &grant_id(account), &account.client.redirect_text])
}

#[cfg(test)]
#[path = "admin_consent_tests.rs"]
mod tests;
