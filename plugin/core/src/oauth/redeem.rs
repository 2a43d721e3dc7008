//! From an accepted redirect to tokens whose owner is known. Nothing is kept yet: the mail server has the last word.

use super::{
    AccessToken, Inner,
    answer::TokenAnswer,
    client_auth::ClientAuth,
    consent,
    discovery::Metadata,
    failure::provider_text,
    grant::Grant,
    grant_id, grant_id_of,
    identity::{Claims, matching, wrong_person},
    resource, revoke,
    token_request::{self, Trouble},
};
use crate::{clock::Deadline, error::Result, limits, net::Net, settings::Account};

/// Tokens of a consent that the mail server has not yet confirmed. Dropped, they are forgotten.
pub struct Redeemed {
    pub(super) grant: Grant,
    pub(super) id: String,
}

impl Redeemed {
    /// To try at the mail server.
    pub fn access_token(&self) -> AccessToken {
        self.grant.token()
    }

    /// Who consented; `None`: the provider does not say, and the mail server's acceptance of the username decides.
    pub fn identity(&self) -> Option<&str> {
        self.grant.identity.as_deref()
    }
}

pub(super) fn redeem(
    inner: &Inner,
    account: &Account,
    net: &Net,
    redirect: &str,
    deadline: Deadline,
) -> Result<Redeemed> {
    let accepted = consent::accept(inner, account, net, redirect, deadline)?;
    let metadata = inner.metadata(account, net, deadline);
    let mut auth = ClientAuth::decide(&account.client, metadata.as_deref());
    let asked_at = inner.clock.now();
    let consented =
        resource::union([&*account.client.scopes].into_iter().chain(accepted.asked.values().map(Vec::as_slice)));
    let own = resource::part(&consented, &resource::of_account(account));
    let scope = resource::are_several(&consented).then(|| own.join(" "));
    let (code, verifier) = (&accepted.code, &accepted.code_verifier);
    let answer = auth
        .send(&account.client, asked_at, |proof| {
            token_request::exchange_code(account, net, proof, code, verifier, scope.as_deref(), deadline)
        })
        .map_err(Trouble::into_error)?;
    let mut grant = Grant::consented(account, auth, &answer, asked_at)?;
    (grant.consented, grant.asked) = (consented, accepted.asked);
    identified(inner, account, net, &answer, grant, accepted.nonce.as_deref(), deadline)
}

/// Gives the tokens of a consent back that cannot be kept, unless this or another mailbox of the person lives by them.
pub(super) fn abandon(inner: &Inner, account: &Account, net: &Net, redeemed: &Redeemed, deadline: Deadline) {
    if !matches!(inner.store.read(crate::store::Table::Grant, &redeemed.id), Ok(None)) {
        return;
    }
    let metadata = inner.metadata(account, net, deadline);
    let owner = revoke::owner(account, &redeemed.grant);
    if let Err(e) = revoke::at_provider(inner, account, net, &redeemed.grant, owner, metadata.as_deref(), deadline) {
        inner.log(account).warn(format_args!("The tokens of a consent that was not kept could not be revoked: {e}"));
    }
}

/// Finds out who it was that consented, and gives the tokens of anybody else back.
pub(super) fn identified(
    inner: &Inner,
    account: &Account,
    net: &Net,
    answer: &TokenAnswer,
    mut grant: Grant,
    nonce: Option<&str>,
    deadline: Deadline,
) -> Result<Redeemed> {
    let metadata = inner.metadata(account, net, deadline);
    match identify(inner, account, net, answer, &grant, nonce, metadata.as_deref(), deadline) {
        Ok(identity) => grant.identity = identity,
        Err(refusal) => {
            let left = give_back(inner, account, net, &grant, refusal.other.as_deref(), metadata.as_deref(), deadline);
            return Err(match (left, refusal.error.remedy_text()) {
                (Some(left), Some(remedy)) => {
                    let remedy = format!("{remedy} {left}");
                    refusal.error.remedy(remedy)
                }
                _ => refusal.error,
            });
        }
    }
    Ok(Redeemed { grant, id: grant_id(account) })
}

struct Mistaken {
    error: crate::Error,
    /// The person who consented instead, when known.
    other: Option<String>,
}

#[expect(clippy::too_many_arguments)]
fn identify(
    inner: &Inner,
    account: &Account,
    net: &Net,
    answer: &TokenAnswer,
    grant: &Grant,
    nonce: Option<&str>,
    metadata: Option<&Metadata>,
    deadline: Deadline,
) -> Result<Option<String>, Mistaken> {
    let refused = |error| Mistaken { error, other: None };
    let found = |claims: &Option<Claims>| {
        let names = claims.as_ref().map(Claims::names).unwrap_or_default();
        matching(&names, account).map_err(|other| Mistaken { error: wrong_person(&other, account), other: Some(other) })
    };
    let claims = match answer.id_token() {
        Some(token) => Claims::of_id_token(token, &account.client, nonce, inner.clock.now()).map_err(refused)?,
        None => None,
    };
    if let Some(name) = found(&claims)? {
        return Ok(Some(name));
    }
    let userinfo = userinfo(inner, account, net, grant, metadata, deadline).map_err(refused)?;
    // Core 5.3.2: of another subject it must not be used.
    found(&userinfo.filter(|info| claims.as_ref().is_none_or(|claims| claims.is_same_subject(info))))
}

/// Not every token may ask (Microsoft's are for Outlook only): a refusal means that nothing is known.
///
/// # Errors
/// What was returned is signed, and not for us.
fn userinfo(
    inner: &Inner,
    account: &Account,
    net: &Net,
    grant: &Grant,
    metadata: Option<&Metadata>,
    deadline: Deadline,
) -> Result<Option<Claims>> {
    let configured = account.client.userinfo_url.as_ref();
    // Without the scope `openid` the endpoint refuses (OpenID Connect Core 5.3): asking would only show the token around.
    let asked_openid = account.client.scopes.iter().any(|scope| scope == "openid");
    let discovered = metadata.filter(|_| asked_openid).and_then(|metadata| metadata.userinfo_endpoint.as_ref());
    let Some(url) = configured.or(discovered) else { return Ok(None) };
    let log = inner.log(account);
    match net.http().get(url, Some(&grant.access_token), deadline.at_most(limits::DISCOVERY_TIMEOUT)) {
        Ok(answer) if answer.is_success() => {
            let claims = Claims::of_userinfo(&answer, &account.client, inner.clock.now())?;
            if claims.is_none() {
                log.info(format_args!("The userinfo endpoint returned nothing readable: the mail server decides."));
            }
            Ok(claims)
        }
        Ok(answer) => {
            log.info(format_args!(
                "The userinfo endpoint answered with HTTP {}: the mail server decides.",
                answer.status
            ));
            Ok(None)
        }
        Err(e) => {
            log.info(format_args!("The userinfo endpoint gave no answer ({}): the mail server decides.", e.message()));
            Ok(None)
        }
    }
}

/// A grant of the wrong person is not left behind at the provider, unless that person's own mailbox is served here too:
/// Google ends all grants of a person and client together. Returns what is left for that person to do.
fn give_back(
    inner: &Inner,
    account: &Account,
    net: &Net,
    grant: &Grant,
    other: Option<&str>,
    metadata: Option<&Metadata>,
    deadline: Deadline,
) -> Option<String> {
    // Who it is, nobody knows otherwise: it may be somebody whom we serve.
    let other = other?;
    let served = inner.store.read(crate::store::Table::Grant, &grant_id_of(&account.client, other));
    if !matches!(served, Ok(None)) {
        return None;
    }
    let other = provider_text(other, &[]);
    let e = revoke::at_provider(inner, account, net, grant, &other, metadata, deadline).err()?;
    inner.log(account).warn(format_args!("The tokens of the wrong account could not be revoked: {e}"));
    Some(revoke::by_hand(&other))
}
