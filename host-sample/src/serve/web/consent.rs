//! Save's second half: a person consents in a window, the provider leads the browser back, the mailbox is connected.
//!
//! What came of it stands in the audit trail, where every node finds it: `consent asked`, `consent started`, `consent
//! given`, `consent failed`, `consent allowed` (by an administrator of the provider). The page that opened the window asks for it by `…/connect/{direction}/state`.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use serde_json::{Value, json};
use url::Url;

use super::{
    access,
    layout::{self, Frame, Tone, text},
    visit::{self, Answer, Call, Problem, Visit, see_other},
};
use crate::{
    failure::Failure,
    host::Direction,
    serve::{App, storage::Pending},
};

/// Longer than the library takes a redirect (ten minutes): so that one that is late is still known to be of a mailbox.
const PENDING_SECONDS: i64 = 60 * 60;
/// Entries of the audit trail that are looked at for the newest word about a consent.
const TRAIL_MAX: i64 = 200;

/// How long the link for an administrator is good: it is sent by mail, and waits for a person.
const ADMINISTRATOR_SECONDS: i64 = 30 * 24 * 60 * 60;
/// In the audit trail, for somebody who has no account here.
const ADMINISTRATOR: &str = "administrator at the provider";

const CALLBACK: &str = "/oauth/callback";

pub fn redirect_url(app: &App) -> String {
    format!("{}{CALLBACK}", app.public_url)
}

/// Where a person goes on after Save: to the consent window, to a device code, or straight to the provider's answer.
pub fn begin(id: i64, direction: Direction, form: &Value) -> String {
    let direction = direction.name();
    match form["advanced"]["grant"].as_str() {
        None | Some("authorization_code") => format!("/mailboxes/{id}/connect/{direction}"),
        Some("device_code") => format!("/mailboxes/{id}/device?direction={direction}"),
        Some(_) => format!("/mailboxes/{id}/consent/{direction}"),
    }
}

/// The page that waits for the window.
pub fn connect(call: &Call) -> Answer {
    let (mailbox, direction) = (call.mailbox()?, call.direction()?);
    if mailbox.form(direction).is_none() {
        return Err(Problem::Unknown);
    }
    let id = mailbox.id;
    let newest = newest(call, id, direction)?;
    let entry = number(newest.as_ref());
    let window = format!("/mailboxes/{id}/consent/{}", direction.name());
    let state = format!("/mailboxes/{id}/connect/{}/state", direction.name());
    let content = match newest.as_ref().map(|entry| (text(entry, "action"), &entry["detail"])) {
        Some(("consent given", detail)) => html! {
            (given(id, detail))
            @for other in [Direction::Incoming, Direction::Outgoing].into_iter().filter(|one| mailbox.form(*one).is_none()) {
                p {
                    a.button.main href={ "/mailboxes/" (id) "/" (other.name()) } data-testid="set-up-other" {
                        "Set up " (other.name()) " mail"
                    }
                }
            }
        },
        Some(("consent allowed", detail)) => html! {
            (layout::notice(Tone::Good, "consent-allowed", html! { p { (text(detail, "message")) } }))
            (opener(&window, &state, entry, "Open the consent window", false))
        },
        Some(("consent failed", detail)) => html! {
            (failed(detail))
            (opener(&window, &state, entry, "Try again", false))
        },
        started => html! {
            p.lead {
                "The settings are saved. Now somebody signs in at the provider as "
                strong { (consenting(mailbox.form(direction))) } " and consents, once."
            }
            @let opens_itself = started.is_none_or(|(action, _)| action != "consent started");
            (opener(&window, &state, entry, "Open the consent window", opens_itself))
        },
    };
    let status = call.app().mailboxes.authenticate(id, direction, &json!({"action": "status"}));
    let has_administrators =
        status.is_ok_and(|status| status["admin_consent_url"].is_string() && status["state"] != "authorized");
    let frame = Frame::new("Connect").below("/", "Admin").below(format!("/mailboxes/{id}"), &mailbox.name);
    Ok(frame.page(
        Some(call),
        html! {
            h1 { "Connect " (direction.name()) " mail" }
            (content)
            @if has_administrators {
                p {
                    "May only an administrator of your organisation consent? "
                    a.button data-testid="ask-administrator" href={ "/mailboxes/" (id) "/administrator/" (direction.name()) } {
                        "Ask an administrator"
                    }
                }
            }
            p { a href={ "/mailboxes/" (id) } data-testid="to-mailbox" { "To the mailbox" } }
        },
    ))
}

/// `{"state": "waiting"|"given"|"failed", "entry": NUMBER}`: the number is that of the entry in the audit trail that says so,
/// 0 before there is one.
pub fn state(call: &Call) -> Answer {
    let newest = newest(call, call.number("id")?, call.direction()?)?;
    let state = match newest.as_ref().map(|entry| text(entry, "action")) {
        Some("consent given") => "given",
        Some("consent failed") => "failed",
        _ => "waiting",
    };
    let body = json!({"state": state, "entry": number(newest.as_ref())}).to_string();
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// What the consent window opens: the provider's page, or an answer at once.
pub fn window(call: &Call) -> Answer {
    let (id, direction) = (call.number("id")?, call.direction()?);
    not_from_elsewhere(call)?;
    begun(call, id, direction)
}

/// A code to enter on any device.
pub fn device(call: &Call) -> Answer {
    let direction = call.query.get("direction").and_then(visit::direction).ok_or(Problem::Unknown)?;
    not_from_elsewhere(call)?;
    begun(call, call.number("id")?, direction)
}

/// Has somebody entered the code by now?
pub fn poll(call: &Call) -> Answer {
    let id = call.number("id")?;
    let direction = call.form.get("direction").and_then(visit::direction).ok_or(Problem::Unknown)?;
    let shown = |name: &str| call.form.get(name).unwrap_or_default();
    match call.app().mailboxes.authenticate(id, direction, &json!({"action": "poll"})) {
        Ok(mut answer) if answer["state"] == "device_code" => {
            for name in ["user_code", "verification_uri"] {
                answer[name] = shown(name).into();
            }
            Ok(code(call, id, direction, &answer))
        }
        answer => {
            keep(call, id, direction, &answer)?;
            Ok(see_other(&format!("/mailboxes/{id}/connect/{}", direction.name())))
        }
    }
}

/// The link for somebody who may consent for the whole organisation.
pub fn administrator(call: &Call) -> Answer {
    let (mailbox, direction) = (call.mailbox()?, call.direction()?);
    let app = call.app();
    let status = app.mailboxes.authenticate(mailbox.id, direction, &json!({"action": "status"}))?;
    let link = text(&status, "admin_consent_url");
    let state = state_of(link).ok_or(Problem::Unknown)?;
    let pending = Pending { mailbox: mailbox.id, direction, admin: String::new() };
    app.storage.insert_pending(&access::hashed(&state), &pending, ADMINISTRATOR_SECONDS)?;
    let connect = format!("/mailboxes/{}/connect/{}", mailbox.id, direction.name());
    let frame = Frame::new("Ask an administrator")
        .below("/", "Admin")
        .below(format!("/mailboxes/{}", mailbox.id), &mailbox.name);
    Ok(frame.page(
        Some(call),
        html! {
            h1 { "Ask an administrator" }
            p.lead {
                "Send this link to an administrator of your organisation at the provider. The administrator opens it, "
                "signs in and accepts, once for the organisation. After that " strong { (consenting(mailbox.form(direction))) }
                " can consent."
            }
            p {
                label for="admin-consent-url" { "Link for the administrator" }
                input #admin-consent-url type="text" readonly value=(link) data-testid="admin-consent-url";
            }
            p {
                button type="button" data-copy="admin-consent-url" hidden data-testid="copy-link" { "Copy the link" }
                " " span role="status" data-copied {}
            }
            p { a href=(connect) data-testid="to-connect" { "Back to the consent" } }
        },
    ))
}

/// The redirect of the administrator's link: whoever opened it has no account here, and learns nothing of the mailbox.
pub fn by_administrator(visit: &Visit) -> Option<Answer> {
    let state = visit.query.get("state").unwrap_or_default();
    match visit.app().storage.provider_pending(&access::hashed(state)) {
        Ok(Some(pending)) => Some(allowed(visit, &pending)),
        Ok(None) => None,
        Err(failure) => Some(Err(failure.into())),
    }
}

fn allowed(visit: &Visit, pending: &Pending) -> Answer {
    let app = visit.app();
    let redirect = format!("{}{}", app.public_url, visit.target);
    let answer = app.mailboxes.authenticate(
        pending.mailbox,
        pending.direction,
        &json!({"action": "complete", "redirect": redirect}),
    );
    let (action, title, message) = match &answer {
        Ok(answer) if answer["admin_consent"].is_object() => {
            ("consent allowed", "Thank you", text(answer, "message").to_owned())
        }
        Ok(_) => ("consent failed", "Nothing was changed", "The provider's answer was not enough.".to_owned()),
        Err(failure) => ("consent failed", "Nothing was changed", failure.sentences().join(" ")),
    };
    let detail = json!({"direction": pending.direction.name(), "message": message});
    app.storage.audit(ADMINISTRATOR, Some(pending.mailbox), action, &detail)?;
    let sentence = match action {
        "consent allowed" => "Your consent for the organisation has arrived. You can close this window.",
        _ => "The consent for the organisation was not given. You can close this window; the link stays good.",
    };
    Ok(Frame::new(title).page(None, html! { h1 { (title) } p data-testid="administrator-done" { (sentence) } }))
}

fn state_of(address: &str) -> Option<String> {
    let url = Url::parse(address).ok()?;
    url.query_pairs().find(|(name, _)| name == "state").map(|(_, state)| state.into_owned())
}

/// Where the provider leads the browser back to.
pub fn callback(call: &Call) -> Answer {
    let app = call.app();
    let state = call.query.get("state").unwrap_or_default();
    let Some(pending) = app.storage.take_pending(&access::hashed(state))? else {
        let sentences = [
            "This consent is not known here: its window was opened too long ago, or it was completed already."
                .to_owned(),
            "Close this window, open the mailbox in the helpdesk and choose Re-authorize.".to_owned(),
        ];
        return Ok(layout::problem(None, StatusCode::BAD_REQUEST, "The consent has expired", &sentences));
    };
    let (id, direction) = (pending.mailbox, pending.direction);
    if pending.admin != call.session.admin {
        let why = "This consent was started by another administrator. Start it again under your own name.";
        return Err(Problem::Forbidden(why));
    }
    let redirect = format!("{}{}", app.public_url, call.target);
    let answer = app.mailboxes.authenticate(id, direction, &json!({"action": "complete", "redirect": redirect}));
    keep(call, id, direction, &answer)?;
    Ok(ended(id, direction, &answer))
}

fn begun(call: &Call, id: i64, direction: Direction) -> Answer {
    let app = call.app();
    let started = app.mailboxes.start_consent(id, direction);
    let word = started.as_ref().map_or("", |answer| text(answer, "state"));
    let by = json!({"direction": direction.name()});
    match (word, &started) {
        ("consent_required", Ok(answer)) => {
            let address = text(answer, "authorize_url");
            let state = state_of(address);
            let pending = Pending { mailbox: id, direction, admin: call.session.admin.clone() };
            app.storage.insert_pending(&access::hashed(&state.unwrap_or_default()), &pending, PENDING_SECONDS)?;
            app.storage.audit(&call.session.admin, Some(id), "consent started", &by)?;
            Ok(see_other(address))
        }
        ("device_code", Ok(answer)) => {
            app.storage.audit(&call.session.admin, Some(id), "consent started", &by)?;
            Ok(code(call, id, direction, answer))
        }
        _ => {
            keep(call, id, direction, &started)?;
            Ok(ended(id, direction, &started))
        }
    }
}

/// A page elsewhere has no business starting a consent.
fn not_from_elsewhere(call: &Call) -> Result<(), Problem> {
    match call.headers.get("sec-fetch-site") {
        Some(site) if site == "cross-site" => {
            Err(Problem::Forbidden("Open the consent window from the page of the mailbox."))
        }
        _ => Ok(()),
    }
}

/// Into the audit trail.
fn keep(call: &Call, id: i64, direction: Direction, answer: &Result<Value, Failure>) -> Result<(), Problem> {
    let (action, mut detail) = match answer {
        Ok(answer) if answer["state"] == "authorized" => {
            let shown = ["identity", "scopes", "proof", "message", "warnings"];
            ("consent given", shown.iter().map(|name| ((*name).to_owned(), answer[*name].clone())).collect())
        }
        Ok(answer) => (
            "consent failed",
            json!({"message": format!("The provider's answer was not enough; the library says {}.", answer["state"])}),
        ),
        Err(failure) => ("consent failed", json!({"message": failure.sentences().join(" ")})),
    };
    detail["direction"] = direction.name().into();
    Ok(call.app().storage.audit(&call.session.admin, Some(id), action, &detail)?)
}

/// The newest word about a consent; `None` when the settings were changed after it.
fn newest(call: &Call, id: i64, direction: Direction) -> Result<Option<Value>, Problem> {
    let trail = call.app().storage.audit_trail(Some(id), i64::MAX, TRAIL_MAX)?;
    let newest = trail.into_iter().find(|entry| match text(entry, "action") {
        "mailbox changed" | "mailbox created" | "revoke" => true,
        action => action.starts_with("consent ") && entry["detail"]["direction"] == direction.name(),
    });
    Ok(newest.filter(|entry| text(entry, "action").starts_with("consent ")))
}

fn number(entry: Option<&Value>) -> i64 {
    entry.and_then(|entry| entry["id"].as_i64()).unwrap_or(0)
}

fn consenting(form: Option<&Value>) -> &str {
    let form = form.unwrap_or(&Value::Null);
    match form["advanced"]["consenting_user"].as_str() {
        Some(user) if !user.is_empty() => user,
        _ => text(form, "username"),
    }
}

/// With the script the link opens a window, and this page looks how it ends; without it the link leads there.
/// `entry` is what this page knows: whatever ends a window is another one.
fn opener(window: &str, state: &str, entry: i64, label: &str, opens_itself: bool) -> Markup {
    html! {
        section #consent data-testid="consent" data-consent=(window) data-state=(state) data-entry=(entry)
            data-open[opens_itself] aria-label="Consent" {
            p role="status" #consent-waiting data-testid="consent-waiting" hidden {
                "Waiting for the consent window. Sign in there and accept; this page goes on by itself."
            }
            div.notice.bad #consent-blocked data-testid="consent-blocked" role="alert" hidden {
                p { "Your browser did not let this page open a window. Allow pop-ups for this address, or use the link below." }
            }
            div.notice.bad #consent-closed data-testid="consent-closed" role="alert" hidden {
                p { "The consent window was closed before the provider answered. Nothing was changed; try again." }
            }
            p { a.button.main #consent-link data-testid="consent-link" href=(window) { (label) } }
        }
    }
}

/// The success message: who consented, to what, and how secure the connection is.
fn given(id: i64, detail: &Value) -> Markup {
    let scopes: Vec<_> =
        detail["scopes"]["granted"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let proof = &detail["proof"];
    html! {
        (layout::notice(Tone::Good, "consent-success", html! {
            h2 { "The mailbox is connected" }
            p { (text(detail, "message")) }
        }))
        dl.facts data-testid="consent-facts" {
            dt { "Who consented" } dd data-testid="consent-identity" {
                (identity(&detail["identity"]).as_deref().unwrap_or("not told; the mail server takes the token for this mailbox"))
            }
            dt { "Scopes" } dd data-testid="consent-scopes" { (scopes.join(" ")) }
            // Not yet: the mail server was away.
            @if proof.is_object() {
                dt { "Secure connection" }
                dd data-testid="consent-connection" {
                    (text(proof, "protocol")) " to " (text(proof, "server")) ", " (text(proof, "tls_version")) " ("
                    (text(proof, "cipher_suite")) "), signed in by " (text(proof, "mechanism"))
                }
                dt { "Certificate (SHA-256)" } dd.code { (text(proof, "certificate_sha256")) }
            }
        }
        @for warning in detail["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            div.notice { p { (warning) } }
        }
        p { "Next: " a href={ "/mailboxes/" (id) "#actions" } { "fetch or send a sample mail" } "." }
    }
}

/// Whatever the library calls a person: a text, or an object with names. `None`: an application, or a provider that does not
/// say.
pub fn identity(identity: &Value) -> Option<String> {
    match identity {
        Value::String(text) => Some(text.clone()),
        Value::Object(names) => {
            let mut known: Vec<&str> = Vec::new();
            for name in names.values().filter_map(Value::as_str) {
                if !known.contains(&name) {
                    known.push(name);
                }
            }
            Some(known.join(", "))
        }
        _ => None,
    }
}

fn failed(detail: &Value) -> Markup {
    layout::notice(
        Tone::Bad,
        "consent-failure",
        html! {
            h2 { "The mailbox is not connected" }
            p { (text(detail, "message")) }
        },
    )
}

/// What the window shows at its end; the page that opened it shows the same and more.
fn ended(id: i64, direction: Direction, answer: &Result<Value, Failure>) -> Response {
    let direction = direction.name();
    let sentence = match answer {
        Ok(answer) if answer["state"] == "authorized" => Ok(text(answer, "message").to_owned()),
        Ok(_) => Err("The provider's answer was not enough.".to_owned()),
        Err(failure) => Err(failure.sentences().join(" ")),
    };
    let title = if sentence.is_ok() { "The mailbox is connected" } else { "The mailbox is not connected" };
    let (tone, name) = if sentence.is_ok() { (Tone::Good, "window-success") } else { (Tone::Bad, "window-failure") };
    let is_failed = sentence.is_err();
    Frame::new(title).page(
        None,
        html! {
            h1 { (title) }
            (layout::notice(tone, name, html! { p { (sentence.unwrap_or_else(|why| why)) } }))
            p { "If this is a window of its own, you can close it: the page of the helpdesk goes on by itself." }
            p {
                @if is_failed {
                    a.button.main data-testid="try-again" href={ "/mailboxes/" (id) "/consent/" (direction) } { "Try again" } " "
                }
                button type="button" data-close hidden data-testid="close-window" { "Close this window" } " "
                a data-testid="back-to-mailbox" href={ "/mailboxes/" (id) "/connect/" (direction) } { "Back to the mailbox" }
            }
        },
    )
}

fn code(call: &Call, id: i64, direction: Direction, answer: &Value) -> Response {
    let (user_code, address) = (text(answer, "user_code"), text(answer, "verification_uri"));
    let interval = answer["interval_seconds"].as_u64().unwrap_or(5).clamp(1, 60);
    let is_link = Url::parse(address).is_ok_and(|url| matches!(url.scheme(), "https" | "http"));
    Frame::new("Device code").below("/", "Admin").below(format!("/mailboxes/{id}"), "Mailbox").page(
        Some(call),
        html! {
            h1 { "Connect " (direction.name()) " mail by a code" }
            p.lead { "Open this page on any device, sign in as the mailbox's user and enter the code:" }
            p {
                @if is_link {
                    a data-testid="verification-uri" href=(address) target="_blank" rel="noopener noreferrer" { (address) }
                } @else { (address) }
            }
            p { output.big-code data-testid="user-code" { (user_code) } }
            p { "It is good until " (layout::when(&answer["expires_at"])) "." }
            form method="post" action={ "/mailboxes/" (id) "/device" } data-poll=(interval) {
                (layout::secret(call))
                input type="hidden" name="direction" value=(direction.name());
                input type="hidden" name="user_code" value=(user_code);
                input type="hidden" name="verification_uri" value=(address);
                p role="status" data-testid="device-waiting" { "Waiting for the code to be entered." }
                div.buttons {
                    button.main type="submit" data-testid="device-check" { "I have entered it" }
                    a href={ "/mailboxes/" (id) "/device?direction=" (direction.name()) } data-testid="device-again" {
                        "Ask for a new code"
                    }
                }
            }
        },
    )
}
