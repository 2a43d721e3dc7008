//! Ending a grant (RFC 7009): at the provider when it offers that, here in any case.

use serde_json::{Value, json};
use url::Url;

use super::{
    Inner,
    answer::{Asked, refusal},
    discovery::Metadata,
    grant::Grant,
    grant_id, refresh,
};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    net::Net,
    secret::Secret,
    settings::Account,
    store::Table,
};

/// What became of a revocation. The tokens are gone from the store in any case.
#[derive(Debug)]
pub struct Revoked {
    /// The provider confirmed that the grant has ended.
    pub at_provider: bool,
    /// What is left for a person to do, when it did not.
    pub note: Option<String>,
}

impl Revoked {
    pub fn to_json(&self) -> Value {
        json!({"state": "revoked", "at_provider": self.at_provider, "note": self.note})
    }
}

pub(super) fn revoke(inner: &Inner, account: &Account, net: &Net, deadline: Deadline) -> Result<Revoked> {
    let id = grant_id(account);
    let mut memory = inner.flights.enter(&id, deadline)?;
    // A record that cannot be read can still be removed.
    let grant = refresh::load(inner, account, &id, &mut memory).unwrap_or_else(|e| {
        inner.log(account).warn(format_args!("The sign-in to revoke could not be read: {e}"));
        None
    });
    let outcome = grant.map(|(grant, _)| {
        let metadata = inner.metadata(account, net, deadline);
        at_provider(inner, account, net, &grant, owner(account, &grant), metadata.as_deref(), deadline)
    });
    inner.store.delete(Table::Grant, &id)?;
    memory.forget();
    Ok(match outcome {
        None => Revoked { at_provider: false, note: Some("There was no sign-in to revoke.".into()) },
        Some(Ok(())) => Revoked { at_provider: true, note: None },
        Some(Err(e)) => {
            inner.log(account).warn(format_args!("The provider did not confirm the revocation: {e}"));
            Revoked { at_provider: false, note: Some(e.to_string()) }
        }
    })
}

/// The refresh token first: with it a server ends the access tokens too, but need not (RFC 7009 2.1), so the last of
/// them is named after it. The refresh token decides: without it the access token ends by itself.
///
/// `owner`: whose account the grant is in, who can end it by hand.
pub(super) fn at_provider(
    inner: &Inner,
    account: &Account,
    net: &Net,
    grant: &Grant,
    owner: &str,
    metadata: Option<&Metadata>,
    deadline: Deadline,
) -> Result<()> {
    let configured = account.client.revocation_url.as_ref();
    let Some(url) = configured.or_else(|| metadata.and_then(|metadata| metadata.revocation_endpoint.as_ref())) else {
        return Err(Error::new(
            Kind::Unsupported,
            "The tokens were removed here, but the provider offers no way to revoke them.",
        )
        .remedy(by_hand(owner)));
    };
    let end = |token: &Secret, hint: &str| end_token(inner, account, net, grant, owner, url, (token, hint), deadline);
    let Some(refresh_token) = &grant.refresh_token else { return end(&grant.access_token, "access_token") };
    end(refresh_token, "refresh_token")?;
    for held in grant.others.values() {
        let _ = end(&held.access_token, "access_token");
    }
    // Not every server revokes access tokens (RFC 7009 2.2.1, unsupported_token_type).
    if let Err(e) = end(&grant.access_token, "access_token") {
        inner.log(account).info(format_args!("The sign-in has ended; its last access token runs out by itself. {e}"));
    }
    Ok(())
}

#[expect(clippy::too_many_arguments)]
fn end_token(
    inner: &Inner,
    account: &Account,
    net: &Net,
    grant: &Grant,
    owner: &str,
    url: &Url,
    (token, hint): (&Secret, &str),
    deadline: Deadline,
) -> Result<()> {
    let proof = grant.client_auth.still(&account.client).prove(&account.client, inner.clock.now())?;
    let fields = [("token", token.expose()), ("token_type_hint", hint)];
    let answer = proof.post(&account.client, net, url, &fields, deadline)?;
    if answer.is_success() {
        return Ok(());
    }
    let own = proof.secrets(&account.client);
    let secrets: Vec<_> = own.iter().chain([token]).map(Secret::expose).collect();
    let host = url.host_str().unwrap_or_default();
    let words = refusal(&answer, host, Asked::Revocation, &secrets).and_then(|failure| failure.words.provider_code);
    // An invalid token has ended already: RFC 7009 2.2 answers 200, Google 400 with `invalid_token`.
    if words.as_deref().is_some_and(|code| code.starts_with("invalid_token")) {
        return Ok(());
    }
    Err(Error::new(Kind::ServerMisbehaved, format!("{host} did not revoke the tokens."))
        .remedy(by_hand(owner))
        .provider_code(words.unwrap_or_else(|| format!("HTTP {}", answer.status))))
}

/// Who consented, as the provider named them.
pub(super) fn owner<'a>(account: &'a Account, grant: &'a Grant) -> &'a str {
    grant.identity.as_deref().unwrap_or(&account.consenting_user)
}

pub(super) fn by_hand(owner: &str) -> String {
    format!("End the access of this app in the account settings of {owner} at the provider.")
}
