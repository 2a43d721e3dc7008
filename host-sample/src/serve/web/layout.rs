//! The frame of a page, and what several pages show in the same way.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

use super::visit::Call;

/// What is around `main`.
pub struct Frame<'a> {
    title: &'a str,
    status: StatusCode,
    /// Address and name of the pages above this one.
    above: Vec<(String, &'a str)>,
}

impl<'a> Frame<'a> {
    pub fn new(title: &'a str) -> Self {
        Self { title, status: StatusCode::OK, above: Vec::new() }
    }

    pub fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    pub fn below(mut self, address: impl Into<String>, name: &'a str) -> Self {
        self.above.push((address.into(), name));
        self
    }

    pub fn page(self, call: Option<&Call>, main: Markup) -> Response {
        let document = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) " · Helpdesk" }
                    link rel="stylesheet" href="/static/app.css";
                    link rel="icon" href="/static/icon.svg";
                    script src="/static/app.js" defer {}
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    header.top {
                        a.brand href="/" { "Helpdesk" }
                        @if let Some(call) = call {
                            nav aria-label="Main" {
                                a href="/" data-testid="nav-mailboxes" { "Mailboxes" }
                                a href="/requests" data-testid="nav-requests" { "Requests" }
                                a href="/audit" data-testid="nav-audit" { "Audit trail" }
                            }
                            form.logout method="post" action="/logout" {
                                (secret(call))
                                a.who href="/account" data-testid="nav-account" { span.hidden { "Account of " } (call.session.admin) }
                                button.quiet type="submit" data-testid="logout-button" { "Log out" }
                            }
                        }
                    }
                    main #main tabindex="-1" {
                        @if !self.above.is_empty() {
                            nav.path aria-label="Where you are" {
                                @for (address, name) in &self.above {
                                    @if address.is_empty() { span { (name) } } @else { a href=(address) { (name) } }
                                    span aria-hidden="true" { " › " }
                                }
                                span aria-current="page" { (self.title) }
                            }
                        }
                        (main)
                    }
                }
            }
        };
        let kind = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
        (self.status, kind, document.into_string()).into_response()
    }
}

/// What each form of a session carries.
pub fn secret(call: &Call) -> Markup {
    html! { input type="hidden" name="_csrf" value=(call.session.csrf); }
}

pub fn problem(call: Option<&Call>, status: StatusCode, title: &str, sentences: &[String]) -> Response {
    Frame::new(title).status(status).page(
        call,
        html! {
            h1 { (title) }
            div.notice.bad #problem data-testid="problem" role="alert" tabindex="-1" autofocus {
                @for sentence in sentences { p { (sentence) } }
            }
            p { a href="/" { "To the mailboxes" } }
        },
    )
}

#[derive(Clone, Copy)]
pub enum Tone {
    Good,
    Bad,
}

/// Something that just happened.
pub fn notice(tone: Tone, id: &str, content: Markup) -> Markup {
    let (class, role) = match tone {
        Tone::Good => ("notice good", "status"),
        Tone::Bad => ("notice bad", "alert"),
    };
    html! { div class=(class) id=(id) data-testid=(id) role=(role) tabindex="-1" autofocus { (content) } }
}

/// Of seconds since 1970, or a time as RFC 3339 writes it.
pub fn when(time: &Value) -> Markup {
    let time = match time {
        Value::String(text) => OffsetDateTime::parse(text, &Rfc3339).ok(),
        seconds => seconds.as_i64().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok()),
    };
    let Some(time) = time else { return html! { "—" } };
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    html! { time datetime=(time.format(&Rfc3339).unwrap_or_default()) { (time.format(&format).unwrap_or_default()) } }
}

pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
