//! Device authorization grant (RFC 8628): a person enters a short code on whatever device has a browser, and we ask
//! until they have.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;
use zeroize::Zeroizing;

use super::{
    Inner, Redeemed,
    answer::{Asked, refusal},
    client_auth::ClientAuth,
    failure::Failure,
    grant::{Grant, secret_text},
    grant_id, hex_sha256, redeem, token_request,
};
use crate::{
    clock::{Deadline, UnixSeconds},
    error::{Error, Kind, Result},
    limits,
    net::Net,
    secret::Secret,
    settings::Account,
    store::Table,
};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// What the person is told.
#[derive(Debug)]
pub struct DeviceCode {
    /// To be typed in at `verification_uri`.
    pub user_code: String,
    pub verification_uri: Url,
    /// With the code in it, for a link or a QR code, when the server offers that.
    pub verification_uri_complete: Option<Url>,
    /// Sooner than this many seconds after `start`, or after the last poll, nothing new is known.
    pub interval_seconds: u64,
    pub expires_at: UnixSeconds,
}

pub enum Polled {
    /// Not yet; ask again after so many seconds.
    Pending { interval_seconds: u64, expires_at: UnixSeconds },
    /// The person has consented. To be tried at the mail server and then kept.
    Authorized(Box<Redeemed>),
}

/// What is kept from `start` to the last poll, sealed by the store.
#[derive(Serialize, Deserialize)]
struct Waiting {
    #[serde(with = "secret_text")]
    device_code: Secret,
    client_auth: ClientAuth,
    token_url: String,
    interval_seconds: u64,
    next_poll_at: UnixSeconds,
    expires_at: UnixSeconds,
}

/// RFC 8628 3.2, read as real servers write it: numbers as texts and texts as numbers; Google writes `verification_url`.
struct Answer {
    device_code: Secret,
    user_code: String,
    verification_uri: Option<Url>,
    verification_uri_complete: Option<Url>,
    expires_in: Option<f64>,
    interval: Option<f64>,
}

impl Answer {
    fn read(document: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| match document.get(name)? {
            Value::String(text) => Some(text.trim().to_owned()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let url = |name: &str| Url::parse(&text(name)?).ok();
        let number = |name: &str| text(name)?.parse().ok();
        Some(Self {
            device_code: Secret::new(text("device_code")?),
            user_code: text("user_code")?,
            verification_uri: url("verification_uri").or_else(|| url("verification_url")),
            verification_uri_complete: url("verification_uri_complete").or_else(|| url("verification_url_complete")),
            expires_in: number("expires_in"),
            interval: number("interval"),
        })
    }
}

pub(super) fn start(inner: &Inner, account: &Account, net: &Net, deadline: Deadline) -> Result<DeviceCode> {
    let client = &account.client;
    let metadata = inner.metadata(account, net, deadline);
    let discovered = metadata.as_deref().and_then(|metadata| metadata.device_authorization_endpoint.as_ref());
    let url = client.device_authorization_url.as_ref().or(discovered).ok_or_else(|| {
        let message = "Nothing is entered, and the provider does not say where it gives out device codes; enter that address, or choose another grant.";
        Failure::field("/advanced/device_authorization_url", "Device Authorization URL", message).to_error()
    })?;
    let mut client_auth = ClientAuth::decide(client, metadata.as_deref());
    let now = inner.clock.now();
    let scope = client.scopes.join(" ");
    let host = url.host_str().unwrap_or_default();
    let answer = client_auth
        .send(client, now, |proof| {
            let answer =
                proof.post(client, net, url, &[("scope", &scope)], deadline).map_err(token_request::Trouble::Other)?;
            let own = proof.secrets(client);
            let secrets: Vec<_> = own.iter().map(Secret::expose).collect();
            match refusal(&answer, host, Asked::Device, &secrets) {
                Some(failure) => Err(token_request::Trouble::Answered(Box::new(about_endpoint(failure)))),
                None => Ok(answer),
            }
        })
        .map_err(token_request::Trouble::into_error)?;
    let read = answer.json().as_ref().and_then(Answer::read);
    let (waiting, code) = read.and_then(|answer| understood(answer, client_auth, account, now)).ok_or_else(|| {
        Error::new(Kind::ServerMisbehaved, format!("{host} answered with something that is no device code."))
            .remedy("Check that Device Authorization URL is the provider's device authorization endpoint.")
    })?;
    let id = id(account);
    // In place of an earlier one: whoever starts again has given that up.
    while write(inner, &id, inner.store.read(Table::Consent, &id)?.map(|record| record.version), &waiting)?.is_none() {
        deadline.check("the store")?;
    }
    Ok(code)
}

pub(super) fn poll(inner: &Inner, account: &Account, net: &Net, deadline: Deadline) -> Result<Polled> {
    let id = id(account);
    let Some(record) = inner.store.read(Table::Consent, &id)? else {
        return Err(Error::new(Kind::Misuse, "No device code is waiting for these settings.")
            .remedy("Call `start` first; a code that was declined, used or too old is forgotten."));
    };
    let mut waiting: Waiting = serde_json::from_slice(&record.bytes)
        .map_err(|_| start_again("The record of the device code cannot be read."))?;
    let now = inner.clock.now();
    if now >= waiting.expires_at || waiting.token_url != account.client.token_url.as_str() {
        inner.store.delete(Table::Consent, &id)?;
        return Err(match now >= waiting.expires_at {
            true => too_late(),
            false => start_again("The settings were changed after the device code was given out."),
        });
    }
    let pending = |waiting: &Waiting| Polled::Pending {
        interval_seconds: waiting.interval_seconds,
        expires_at: waiting.expires_at,
    };
    // A wait longer than the interval is a clock that was set back.
    let wait = waiting.next_poll_at - now;
    if wait > 0 && wait <= waiting.interval_seconds as i64 {
        return Ok(pending(&waiting));
    }
    let mut client_auth = waiting.client_auth.still(&account.client);
    client_auth.prove(&account.client, now).map(drop)?;
    // Written before it is asked: of any number of pollers one asks, and none sooner than the interval.
    waiting.next_poll_at = now + waiting.interval_seconds as i64;
    let Some(version) = write(inner, &id, Some(record.version), &waiting)? else { return Ok(pending(&waiting)) };

    let fields = [("grant_type", GRANT_TYPE), ("device_code", waiting.device_code.expose())];
    let asked = client_auth.send(&account.client, now, |proof| {
        token_request::ask(account, net, Some(proof), &fields, Asked::Device, deadline)
    });
    waiting.client_auth = client_auth;
    let trouble = match asked {
        Ok(answer) => {
            // Spent, whatever comes of it. A record that stays ends at the next poll; the tokens must not end with it.
            if let Err(e) = inner.store.delete(Table::Consent, &id) {
                inner.log(account).warn(format_args!("The record of a used device code could not be removed: {e}"));
            }
            let grant = Grant::consented(account, client_auth, &answer, now)?;
            let redeemed = redeem::identified(inner, account, net, &answer, grant, None, deadline)?;
            return Ok(Polled::Authorized(Box::new(redeemed)));
        }
        Err(refused) => refused,
    };
    let code = trouble.failure().code;
    let ended = match code.as_deref() {
        Some("authorization_pending") => return Ok(pending(&waiting)),
        // RFC 8628 3.5: also after a timeout it is asked less often.
        Some("slow_down") => None,
        Some("access_denied" | "authorization_declined") => Some(
            Error::new(Kind::ConsentRequired, "The consent was declined where the device code was entered.")
                .remedy(format!("Start again, enter the new code, sign in as {} and accept.", account.consenting_user)),
        ),
        Some("expired_token") => Some(too_late()),
        Some("invalid_grant") => Some(start_again("The provider does not know the device code any more.")),
        _ if trouble.failure().is_transient() => None,
        _ => return Err(trouble.into_error()),
    };
    if let Some(error) = ended {
        inner.store.delete(Table::Consent, &id)?;
        return Err(match trouble.failure().words.provider_code {
            Some(words) => error.provider_code(words),
            None => error,
        });
    }
    let asked_for = trouble.failure().retry_after.map_or(0, |wait| wait.as_secs());
    waiting.interval_seconds =
        (waiting.interval_seconds + limits::DEVICE_SLOW_DOWN).max(asked_for).min(limits::DEVICE_INTERVAL_MAX);
    waiting.next_poll_at = now + waiting.interval_seconds as i64;
    // Lost to another poller: theirs counts.
    write(inner, &id, Some(version), &waiting)?;
    match code.as_deref() {
        Some("slow_down") => Ok(pending(&waiting)),
        _ => Err(trouble.into_error()),
    }
}

/// A code that waits for these settings is no longer asked about.
pub(super) fn forget(inner: &Inner, account: &Account) -> Result<()> {
    inner.store.delete(Table::Consent, &id(account))
}

fn understood(
    answer: Answer,
    client_auth: ClientAuth,
    account: &Account,
    now: UnixSeconds,
) -> Option<(Waiting, DeviceCode)> {
    // A person is sent there.
    let for_a_person = |url: Url| (url.scheme() == "https" && url.has_host()).then_some(url);
    let verification_uri = for_a_person(answer.verification_uri?)?;
    let printable = |c: char| !c.is_control();
    if answer.device_code.is_empty()
        || answer.user_code.trim().is_empty()
        || answer.user_code.chars().count() > limits::USER_CODE_MAX
        || !answer.user_code.chars().all(printable)
    {
        return None;
    }
    let seconds = |given: Option<f64>, usual: u64, most: u64| {
        given
            .filter(|seconds| seconds.is_finite() && *seconds >= 1.0)
            .map_or(usual, |seconds| seconds.ceil() as u64)
            .min(most)
    };
    let interval = seconds(answer.interval, limits::DEVICE_INTERVAL_DEFAULT, limits::DEVICE_INTERVAL_MAX);
    // REQUIRED by RFC 8628 3.2; who leaves it out is asked for as long as a consent may take.
    let lifetime = seconds(answer.expires_in, limits::CONSENT_LIFETIME.as_secs(), limits::DEVICE_LIFETIME_MAX);
    let expires_at = now + lifetime as i64;
    let waiting = Waiting {
        device_code: answer.device_code,
        client_auth,
        token_url: account.client.token_url.to_string(),
        interval_seconds: interval,
        next_poll_at: now + interval as i64,
        expires_at,
    };
    let code = DeviceCode {
        user_code: answer.user_code,
        verification_uri,
        verification_uri_complete: answer.verification_uri_complete.and_then(for_a_person),
        interval_seconds: interval,
        expires_at,
    };
    Some((waiting, code))
}

fn write(inner: &Inner, id: &str, expected: Option<u64>, waiting: &Waiting) -> Result<Option<u64>> {
    let bytes =
        Zeroizing::new(serde_json::to_vec(waiting).map_err(|e| {
            Error::new(Kind::Internal, "A device code could not be put into a record.").source_error(e)
        })?);
    inner.store.write(Table::Consent, id, expected, &bytes)
}

fn id(account: &Account) -> String {
    hex_sha256(&["device", &grant_id(account)])
}

/// The same words of `answer` mean another field here.
fn about_endpoint(mut failure: Failure) -> Failure {
    if failure.field.is_some_and(|(pointer, _)| pointer == "/access_token_url") {
        failure.field = Some(("/advanced/device_authorization_url", "Device Authorization URL"));
        failure.words.message = failure.words.message.replace("token endpoint", "device authorization endpoint");
    }
    failure
}

fn too_late() -> Error {
    start_again("The device code was not entered in time.")
}

fn start_again(message: &str) -> Error {
    Error::new(Kind::ConsentRequired, message).remedy("Start again and enter the new code.")
}
