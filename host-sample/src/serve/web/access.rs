//! Who may come in: login by name and password, sessions, and the secret that each form of a session carries.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
    routing::MethodRouter,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use maud::html;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use url::{Url, form_urlencoded};

use super::{
    layout::Frame,
    visit::{Answer, Call, Problem, Visit, Web, open_page, open_posted, see_other},
};
use crate::{
    failure::{Failure, Result},
    serve::{password, storage::Session},
};

/// From the login on, and since it was used last.
const SESSION_SECONDS: i64 = 12 * 60 * 60;
const IDLE_SECONDS: i64 = 60 * 60;
/// 256 bits.
const TOKEN_BYTES: usize = 32;

/// Attempts that failed, of one address and for one name.
const ATTEMPTS_ADDRESS: u32 = 10;
const ATTEMPTS_NAME: u32 = 20;
const ATTEMPTS_WINDOW: Duration = Duration::from_secs(15 * 60);
/// Remembered at most; then those that ended go first.
const ATTEMPTS_KEYS_MAX: usize = 10_000;

pub fn show() -> MethodRouter<std::sync::Arc<Web>> {
    open_page(|visit| match session(visit)? {
        Some(_) => Ok(see_other(next(visit.query.get("next")))),
        None => {
            let why =
                "Your session ended while the consent was under way. Log in, open the mailbox and choose Re-authorize.";
            let wrong = visit.query.get("ended").map(|_| (StatusCode::OK, why.to_owned()));
            Ok(login_page(visit.query.get("next"), wrong, ""))
        }
    })
}

pub fn login() -> MethodRouter<std::sync::Arc<Web>> {
    open_posted(|visit| {
        let (name, typed) = (visit.form.get("name").unwrap_or_default().trim(), visit.form.get("password"));
        let typed = typed.unwrap_or_default();
        let target = visit.form.get("next");
        if let Some(wait) = visit.web.limiter.wait(visit.peer, name) {
            let minutes = wait.as_secs().div_ceil(60);
            let why = format!("Too many attempts to log in. Try again in {minutes} minutes.");
            return Ok(login_page(target, Some((StatusCode::TOO_MANY_REQUESTS, why)), name));
        }
        if !is_password(visit, name, typed)? {
            visit.app().log.warn("login refused", None, json!({"address": visit.peer.to_string()}));
            let why = "Name or password is wrong.".to_owned();
            return Ok(login_page(target, Some((StatusCode::UNAUTHORIZED, why)), name));
        }
        begin(visit, name, next(target))
    })
}

/// Counted as an attempt when it is not, and not looked at after too many.
pub fn is_password(visit: &Visit, name: &str, typed: &str) -> Result<bool> {
    let limiter = &visit.web.limiter;
    if limiter.wait(visit.peer, name).is_some() {
        return Ok(false);
    }
    // Counted before the password is looked at: attempts at the same time count, too.
    limiter.count(visit.peer, name);
    let hash = visit.app().storage.password_hash(name)?;
    let is_right = limiter.alone(|| password::verify(typed, hash.as_deref()));
    if is_right {
        limiter.forget(visit.peer, name);
    }
    Ok(is_right)
}

/// A new session, whose cookie the answer carries.
pub fn begin(visit: &Visit, name: &str, target: &str) -> Answer {
    let (token, secret) = (random()?, random()?);
    let storage = &visit.app().storage;
    storage.insert_session(&hashed(&token), name, &secret, SESSION_SECONDS)?;
    storage.audit(name, None, "login", &json!({"address": visit.peer.to_string()}))?;
    Ok(with_cookie(see_other(target), &visit.web, &token, SESSION_SECONDS))
}

pub fn logout(call: &Call) -> Answer {
    if let Some(token) = token(call) {
        call.app().storage.remove_session(&hashed(token))?;
    }
    call.app().storage.audit(&call.session.admin, None, "logout", &json!({}))?;
    Ok(with_cookie(see_other("/login"), &call.web, "", 0))
}

/// The session of the cookie, if it has not ended.
pub fn session(visit: &Visit) -> Result<Option<Session>> {
    let Some(token) = token(visit) else { return Ok(None) };
    let hash = hashed(token);
    let session = visit.app().storage.session(&hash, IDLE_SECONDS)?;
    if session.is_some() {
        visit.app().storage.touch_session(&hash)?;
    }
    Ok(session)
}

/// And back again afterwards, where that is a page.
pub fn to_login(visit: &Visit) -> Response {
    // A code of a provider is for nobody's history.
    if visit.target.starts_with("/oauth/") {
        return see_other("/login?ended=consent");
    }
    let is_page = visit.headers.get(header::ORIGIN).is_none();
    if !is_page || visit.target == "/" {
        return see_other("/login");
    }
    let next: String = form_urlencoded::byte_serialize(visit.target.as_bytes()).collect();
    see_other(&format!("/login?next={next}"))
}

/// A browser says where a form comes from. One that says nothing must still know the secret of the session.
pub fn check_origin(visit: &Visit) -> Result<(), Problem> {
    let why = "This form did not come from a page of this helpdesk. Open the page at its own address and try again.";
    if visit.headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return Err(Problem::Forbidden(why));
    }
    let Some(origin) = visit.headers.get(header::ORIGIN) else { return Ok(()) };
    let own = Url::parse(&visit.app().public_url).map(|url| url.origin().ascii_serialization()).unwrap_or_default();
    if origin.as_bytes() == own.as_bytes() { Ok(()) } else { Err(Problem::Forbidden(why)) }
}

pub fn check_secret(call: &Call) -> Result<(), Problem> {
    let sent = Sha256::digest(call.form.get("_csrf").unwrap_or_default());
    // Of digests: how long the comparison takes tells nothing.
    if sent == Sha256::digest(&call.session.csrf) {
        return Ok(());
    }
    Err(Problem::Forbidden("This form belongs to a session that has ended. Go back, reload the page and try again."))
}

pub fn hashed(token: &str) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn random() -> Result<String> {
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| Failure::other(format!("No random bytes can be had: {error}.")))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Browsers take a cookie with this prefix over TLS only, and from no other host of the domain.
fn cookie_name(web: &Web) -> &'static str {
    if web.is_secure() { "__Host-helpdesk" } else { "helpdesk" }
}

fn token(visit: &Visit) -> Option<&str> {
    let name = cookie_name(&visit.web);
    let lines = visit.headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).find_map(|cookie| {
        let (own, value) = cookie.trim().split_once('=')?;
        (own == name).then_some(value)
    })
}

/// Lax, not Strict: the provider leads the browser back to `/oauth/callback`.
fn with_cookie(mut response: Response, web: &Web, token: &str, seconds: i64) -> Response {
    let (name, secure) = (cookie_name(web), if web.is_secure() { "; Secure" } else { "" });
    let cookie = format!("{name}={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// A page of this helpdesk, whatever was asked for.
fn next(target: Option<&str>) -> &str {
    let is_own = |target: &&str| {
        target.starts_with('/') && !target.starts_with("//") && !target.contains(['\\', '\r', '\n', '\t'])
    };
    target.filter(is_own).unwrap_or("/")
}

fn login_page(target: Option<&str>, wrong: Option<(StatusCode, String)>, name: &str) -> Response {
    let (status, why) = wrong.map_or((StatusCode::OK, None), |(status, why)| (status, Some(why)));
    let described = why.as_ref().map(|_| "login-error");
    Frame::new("Log in").status(status).page(
        None,
        html! {
            section.narrow {
                h1 { "Log in" }
                @if let Some(why) = &why {
                    div.notice.bad #login-error data-testid="login-error" role="alert" tabindex="-1" autofocus {
                        p { (why) }
                    }
                }
                form method="post" action="/login" {
                    input type="hidden" name="next" value=(next(target));
                    div.field {
                        label for="name" { "Name" }
                        input type="text" #name name="name" value=(name) autocomplete="username" autocapitalize="none"
                            spellcheck="false" required autofocus[why.is_none()] aria-describedby=[described]
                            data-testid="login-name";
                    }
                    div.field {
                        label for="password" { "Password" }
                        input type="password" #password name="password" autocomplete="current-password" required
                            aria-describedby=[described] data-testid="login-password";
                    }
                    div.buttons { button.main type="submit" data-testid="login-button" { "Log in" } }
                }
            }
        },
    )
}

/// How many attempts failed lately. Of this process: a node more is another ten attempts.
#[derive(Default)]
pub struct Limiter {
    attempts: Mutex<HashMap<Key, (u32, Instant)>>,
    verifying: Mutex<()>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Address(IpAddr),
    Name(String),
}

impl Limiter {
    /// How long until the next attempt is looked at; `None`: at once.
    fn wait(&self, address: IpAddr, name: &str) -> Option<Duration> {
        let attempts = self.lock();
        keys(address, name)
            .into_iter()
            .filter_map(|(key, most)| {
                let (count, since) = attempts.get(&key)?;
                if *count < most { None } else { ATTEMPTS_WINDOW.checked_sub(since.elapsed()) }
            })
            .max()
    }

    fn count(&self, address: IpAddr, name: &str) {
        let mut attempts = self.lock();
        if attempts.len() >= ATTEMPTS_KEYS_MAX {
            attempts.retain(|_, (_, since)| since.elapsed() < ATTEMPTS_WINDOW);
        }
        for (key, _) in keys(address, name) {
            // Full of attempts that did not end yet: whoever is known already is still counted.
            if attempts.len() >= ATTEMPTS_KEYS_MAX && !attempts.contains_key(&key) {
                continue;
            }
            let entry = attempts.entry(key).or_insert((0, Instant::now()));
            if entry.1.elapsed() >= ATTEMPTS_WINDOW {
                *entry = (0, Instant::now());
            }
            entry.0 += 1;
        }
    }

    fn forget(&self, address: IpAddr, name: &str) {
        let mut attempts = self.lock();
        for (key, _) in keys(address, name) {
            attempts.remove(&key);
        }
    }

    /// One at a time: a password takes 19 MiB and a core for a while.
    fn alone<T>(&self, verify: impl FnOnce() -> T) -> T {
        let _alone = self.verifying.lock().unwrap_or_else(PoisonError::into_inner);
        verify()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, (u32, Instant)>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keys(address: IpAddr, name: &str) -> [(Key, u32); 2] {
    let name = name.chars().take(64).collect::<String>().to_lowercase();
    [(Key::Address(address), ATTEMPTS_ADDRESS), (Key::Name(name), ATTEMPTS_NAME)]
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn attempts_of_one_address_and_for_one_name_are_counted_apart() {
        let limiter = Limiter::default();
        let address = |last: u8| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        for number in 0..ATTEMPTS_ADDRESS {
            assert_eq!(limiter.wait(address(1), "admin"), None, "attempt {number}");
            limiter.count(address(1), &format!("name{number}"));
        }
        assert!(limiter.wait(address(1), "admin").is_some_and(|wait| wait <= ATTEMPTS_WINDOW));
        assert_eq!(limiter.wait(address(2), "admin"), None);
        for number in 0..ATTEMPTS_NAME {
            limiter.count(address(10 + number as u8), "Admin");
        }
        assert!(limiter.wait(address(2), "admin").is_some(), "from everywhere, for one name");
        assert_eq!(limiter.wait(address(2), "other"), None);
        limiter.forget(address(2), "admin");
        assert_eq!(limiter.wait(address(2), "admin"), None);
    }

    #[test]
    fn after_the_login_nobody_is_led_elsewhere() {
        assert_eq!(next(Some("/mailboxes/1?done=fetch")), "/mailboxes/1?done=fetch");
        for target in ["//evil.test", "https://evil.test", "/\\evil.test", "evil", "/a\r\nSet-Cookie: x", ""] {
            assert_eq!(next(Some(target)), "/", "{target:?}");
        }
        assert_eq!(next(None), "/");
    }
}
