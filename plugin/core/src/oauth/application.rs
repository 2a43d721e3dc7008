//! Tokens that nobody consents to: of the application itself (client_credentials.rs), or of a service account
//! (jwt_bearer.rs). There is no refresh token; the next access token is asked for as the first one was.

use super::{
    Inner, Redeemed,
    answer::TokenAnswer,
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

/// A request for a token, ready to be sent.
pub(super) struct Application {
    /// `None`: the fields prove themselves, and the client has no other name (RFC 7521 4.1 leaves `client_id` out).
    proof: Option<Proof>,
    fields: Vec<(&'static str, Secret)>,
}

pub(super) fn apply(inner: &Inner, account: &Account, net: &Net, deadline: Deadline) -> Result<Redeemed> {
    let auth = match account.client.grant {
        GrantType::JwtBearer => ClientAuth::None,
        _ => ClientAuth::decide(&account.client, inner.metadata(account, net, deadline).as_deref()),
    };
    let asked_at = inner.clock.now();
    let answer = prepare(account, auth, asked_at)?.send(account, net, deadline).map_err(Trouble::into_error)?;
    let mut grant = Grant::consented(account, auth, &answer, asked_at)?;
    // Nobody issues one here (RFC 6749 4.4.3); who does, issues it for something we do not do.
    grant.refresh_token = None;
    Ok(Redeemed { grant, id: grant_id(account) })
}

/// Certificate and keys are read here.
///
/// # Errors
/// `Settings`, at what cannot be read or does not fit.
pub(super) fn prepare(account: &Account, auth: ClientAuth, now: UnixSeconds) -> Result<Application> {
    let scope = scope(account);
    Ok(match account.client.grant {
        GrantType::JwtBearer => {
            // The assertion is all the proof there is (RFC 7523 3.1).
            Application { proof: None, fields: jwt_bearer::fields(account, &scope, now)? }
        }
        _ => Application { proof: Some(auth.prove(&account.client, now)?), fields: client_credentials::fields(&scope) },
    })
}

impl Application {
    pub fn send(&self, account: &Account, net: &Net, deadline: Deadline) -> Result<TokenAnswer, Trouble> {
        let fields: Vec<_> = self.fields.iter().map(|(name, value)| (*name, value.expose())).collect();
        token_request::ask(account, net, self.proof.as_ref(), &fields, deadline).map_err(
            |(trouble, code)| match trouble {
                Trouble::Answered(failure) => {
                    Trouble::Answered(Box::new(explained(*failure, code.as_deref().unwrap_or_default(), account)))
                }
                other => other,
            },
        )
    }
}

/// Nobody can be sent to a consent window: whoever must act is the administrator of the application.
fn explained(failure: Failure, code: &str, account: &Account) -> Failure {
    if failure.is_transient() {
        return failure;
    }
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
