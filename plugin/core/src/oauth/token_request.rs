//! Requests to the token endpoint: `oauth2` builds and reads them, our HTTP client carries them.

use std::fmt;

use oauth2::{
    AuthorizationCode, Client as OAuthClient, ClientId, ClientSecret, EndpointNotSet, EndpointSet, HttpRequest,
    HttpResponse, PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, StandardRevocableToken,
    SyncHttpClient, TokenUrl,
    basic::{BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse},
};
use url::form_urlencoded;

use super::{
    answer::{Asked, TokenAnswer, refusal},
    client_auth::Proof,
    failure::Failure,
};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    net::Net,
    secret::Secret,
    settings::{Account, Client},
};

/// Why there are no tokens.
pub(super) enum Trouble {
    /// The server said so.
    Answered(Box<Failure>),
    /// No answer, or one that breaks the protocol.
    Other(Error),
}

impl Trouble {
    pub fn failure(&self) -> Failure {
        match self {
            Self::Answered(failure) => (**failure).clone(),
            Self::Other(error) => Failure::of(error),
        }
    }

    pub fn into_error(self) -> Error {
        match self {
            Self::Answered(failure) => failure.to_error(),
            Self::Other(error) => error,
        }
    }
}

/// RFC 6749 4.1.3 with RFC 7636 4.5.
pub(super) fn exchange_code(
    account: &Account,
    net: &Net,
    proof: &Proof,
    code: &Secret,
    verifier: &Secret,
    scope: Option<&str>,
    deadline: Deadline,
) -> Result<TokenAnswer, Trouble> {
    let client = client(&account.client, proof);
    let mut request = client
        .exchange_code(AuthorizationCode::new(code.expose().to_owned()))
        .set_pkce_verifier(PkceCodeVerifier::new(verifier.expose().to_owned()));
    // The code was asked for with scopes of several resources; a token is for one.
    if let Some(scope) = scope {
        request = request.add_extra_param("scope", scope.to_owned());
    }
    for (name, value) in proof.assertion_fields() {
        request = request.add_extra_param(name, value);
    }
    request
        .request(&Carrier { account, net, proof, asked: Asked::Code, deadline })
        .map_err(|e| trouble(e, account))
        .map_err(|trouble| about_certificate(trouble, account))
}

/// RFC 6749 section 6. Without `scope` the grant keeps what it has.
pub(super) fn refresh(
    account: &Account,
    net: &Net,
    proof: &Proof,
    token: &Secret,
    scope: Option<&str>,
    deadline: Deadline,
) -> Result<TokenAnswer, Trouble> {
    let client = client(&account.client, proof);
    let token = RefreshToken::new(token.expose().to_owned());
    let mut request = client.exchange_refresh_token(&token);
    if let Some(scope) = scope {
        request = request.add_extra_param("scope", scope.to_owned());
    }
    for (name, value) in proof.assertion_fields() {
        request = request.add_extra_param(name, value);
    }
    request
        .request(&Carrier { account, net, proof, asked: Asked::Refresh, deadline })
        .map_err(|e| trouble(e, account))
        .map_err(|trouble| about_certificate(trouble, account))
}

/// A grant that `oauth2` does not know, or not as we need it: `fields` begin with its `grant_type`. `proof`: `None` where
/// the fields prove themselves.
pub(super) fn ask(
    account: &Account,
    net: &Net,
    proof: Option<&Proof>,
    fields: &[(&str, &str)],
    asked: Asked,
    deadline: Deadline,
) -> Result<TokenAnswer, Trouble> {
    let (client, http) = (&account.client, net.http());
    let answer = match proof {
        Some(proof) => proof.post(client, net, &client.token_url, fields, deadline),
        None => http.post_form(&client.token_url, fields, None, deadline),
    }
    .map_err(Trouble::Other)?;
    let own = proof.map_or_else(Vec::new, |proof| proof.secrets(&account.client));
    let sent = fields.iter().filter(|(name, _)| is_secret(name)).map(|(_, value)| *value);
    let secrets: Vec<_> = own.iter().map(Secret::expose).chain(sent).collect();
    if let Some(failure) = refusal(&answer, host(account), asked, &secrets) {
        return Err(about_certificate(Trouble::Answered(Box::new(failure)), account));
    }
    answer.json().ok_or_else(|| Trouble::Other(no_token_answer(account)))
}

type TokenClient = OAuthClient<
    BasicErrorResponse,
    TokenAnswer,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

fn client(client: &Client, proof: &Proof) -> TokenClient {
    let mut built = OAuthClient::new(ClientId::new(client.client_id.clone()))
        .set_auth_type(proof.auth_type())
        .set_redirect_uri(as_typed(client))
        .set_token_uri(TokenUrl::from_url(client.token_url.clone()));
    if let Some(secret) = proof.secret() {
        built = built.set_client_secret(ClientSecret::new(secret.expose().to_owned()));
    }
    built
}

/// Servers compare it byte by byte with what is registered; a parsed URL would gain a slash or lose a port.
pub(super) fn as_typed(client: &Client) -> RedirectUrl {
    RedirectUrl::new(client.redirect_text.clone())
        .unwrap_or_else(|_| RedirectUrl::from_url(client.redirect_url.clone()))
}

/// Carries one request, and keeps refusals from `oauth2`, whose own types drop status, Retry-After and the codes, and
/// whose parse error holds the whole body.
struct Carrier<'a> {
    account: &'a Account,
    net: &'a Net,
    proof: &'a Proof,
    asked: Asked,
    deadline: Deadline,
}

impl SyncHttpClient for Carrier<'_> {
    type Error = Stopped;

    fn call(&self, request: HttpRequest) -> Result<HttpResponse, Stopped> {
        let (parts, body) = request.into_parts();
        let url = &self.account.client.token_url;
        let sent: Vec<_> = form_urlencoded::parse(&body).into_owned().filter(|(name, _)| is_secret(name)).collect();
        let answer =
            self.net.http().post(url, parts.headers, body, self.deadline).map_err(|e| Stopped(Trouble::Other(e)))?;
        let own = self.proof.secrets(&self.account.client);
        let secrets: Vec<_> =
            sent.iter().map(|(_, value)| value.as_str()).chain(own.iter().map(Secret::expose)).collect();
        if let Some(failure) = refusal(&answer, host(self.account), self.asked, &secrets) {
            return Err(Stopped(Trouble::Answered(Box::new(failure))));
        }
        // Status and type were judged above; `oauth2` accepts nothing but 200.
        Ok(HttpResponse::new(answer.body.to_vec()))
    }
}

fn is_secret(name: &str) -> bool {
    const SECRETS: [&str; 7] =
        ["code", "code_verifier", "refresh_token", "client_secret", "client_assertion", "assertion", "device_code"];
    SECRETS.contains(&name)
}

fn host(account: &Account) -> &str {
    account.client.token_url.host_str().unwrap_or("The authorization server")
}

struct Stopped(Trouble);

impl fmt::Debug for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Trouble::Answered(failure) => failure.fmt(f),
            Trouble::Other(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Stopped {}

fn trouble(e: RequestTokenError<Stopped, BasicErrorResponse>, account: &Account) -> Trouble {
    match e {
        RequestTokenError::Request(Stopped(trouble)) => trouble,
        // The rest may quote the answer: none of it goes on.
        RequestTokenError::ServerResponse(_) | RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            Trouble::Other(no_token_answer(account))
        }
    }
}

fn no_token_answer(account: &Account) -> Error {
    Error::new(Kind::ServerMisbehaved, format!("{} answered with something that is no token answer.", host(account)))
        .remedy("Check that Access Token URL is the provider's token endpoint.")
}

/// A client that proves itself by certificate has no secret that could be wrong.
fn about_certificate(trouble: Trouble, account: &Account) -> Trouble {
    match trouble {
        Trouble::Answered(mut failure)
            if account.client.certificate.is_some()
                && failure.field.is_some_and(|(pointer, _)| pointer == "/client_secret") =>
        {
            failure.field = Some(("/advanced/client_certificate", "Client Certificate"));
            failure.words.message = format!("{} does not accept this client or its certificate.", host(account));
            failure.words.remedy = Some(
                "The helpdesk administrator has this certificate registered for the client at the provider, and checks \
                 Client ID; some providers want the Key ID, or the issuer as Audience, too."
                    .to_owned(),
            );
            Trouble::Answered(failure)
        }
        other => other,
    }
}
