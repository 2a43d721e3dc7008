//! Tokens that nobody consents to: of the application itself (client_credentials.rs), or of a service account
//! (jwt_bearer.rs). There is no refresh token; the next access token is asked for as the first one was.

use super::{
    Inner, Redeemed,
    answer::{Asked, TokenAnswer},
    client_auth::{ClientAuth, Proof},
    client_credentials,
    failure::Failure,
    grant::Grant,
    grant_id, jwt_bearer,
    token_request::{self, Trouble},
};
use crate::{
    clock::{Deadline, UnixSeconds},
    error::{Kind, Result},
    net::Net,
    secret::Secret,
    settings::{Account, GrantType},
};

pub(super) fn apply(inner: &Inner, account: &Account, net: &Net, deadline: Deadline) -> Result<Redeemed> {
    let mut auth = match account.client.grant {
        GrantType::JwtBearer => ClientAuth::None,
        _ => ClientAuth::decide(&account.client, inner.metadata(account, net, deadline).as_deref()),
    };
    let asked_at = inner.clock.now();
    let answer = send(account, net, &mut auth, asked_at, deadline).map_err(Trouble::into_error)?;
    let mut grant = Grant::consented(account, auth, &answer, asked_at)?;
    // Nobody issues one here (RFC 6749 4.4.3); who does, issues it for something we do not do.
    grant.refresh_token = None;
    Ok(Redeemed { grant, id: grant_id(account) })
}

/// Asks for a token. Certificate and keys are read here; `auth` becomes what the provider took.
pub(super) fn send(
    account: &Account,
    net: &Net,
    auth: &mut ClientAuth,
    now: UnixSeconds,
    deadline: Deadline,
) -> Result<TokenAnswer, Trouble> {
    let scope = scope(account);
    let ask = |proof: Option<&Proof>, fields: &[(&'static str, Secret)]| {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.expose())).collect();
        token_request::ask(account, net, proof, &fields, Asked::Application, deadline)
    };
    let answer = match account.client.grant {
        // The assertion is all the proof there is (RFC 7523 3.1), and the client has no other name (RFC 7521 4.1).
        GrantType::JwtBearer => ask(None, &jwt_bearer::fields(account, &scope, now).map_err(Trouble::Other)?),
        _ => {
            let fields = client_credentials::fields(&scope);
            auth.send(&account.client, now, |proof| ask(Some(proof), &fields))
        }
    };
    answer.map_err(|trouble| match trouble {
        Trouble::Answered(failure) => Trouble::Answered(Box::new(explained(*failure, account))),
        other => other,
    })
}

/// Can the client prove itself now?
///
/// # Errors
/// `Settings`, at what cannot be read or does not fit.
pub(super) fn check(account: &Account, auth: ClientAuth, now: UnixSeconds) -> Result<()> {
    match account.client.grant {
        GrantType::JwtBearer => jwt_bearer::fields(account, &scope(account), now).map(drop),
        _ => auth.prove(&account.client, now).map(drop),
    }
}

/// Nobody can be sent to a consent window: whoever must act is the administrator of the application.
fn explained(failure: Failure, account: &Account) -> Failure {
    if failure.is_transient() {
        return failure;
    }
    let code = failure.code.as_deref().unwrap_or_default();
    let advice = match account.client.grant {
        GrantType::JwtBearer => jwt_bearer::advice(code, &scope(account), account),
        _ => client_credentials::advice(code, account),
    };
    let words = match (advice, failure.kind) {
        (Some((message, remedy)), _) => Failure::new(Kind::AdminRequired, message, remedy),
        (None, Kind::ConsentRequired) => Failure::new(
            Kind::AdminRequired,
            "The provider wants a person's consent, and this grant has nobody to ask.",
            "Have the administrator grant the application its permissions (admin consent), or choose authorization_code as the grant.",
        ),
        (None, _) => return failure,
    };
    let mut explained = Failure { retry_after: failure.retry_after, ..words };
    explained.words.provider_code = failure.words.provider_code;
    explained.words.correlation = failure.words.correlation;
    explained
}

/// Without the scopes that concern a person who signs in.
fn scope(account: &Account) -> String {
    const PERSONAL: [&str; 4] = ["openid", "profile", "email", "offline_access"];
    let scopes = account.client.scopes.iter().map(String::as_str);
    scopes.filter(|scope| !PERSONAL.contains(scope)).collect::<Vec<_>>().join(" ")
}
