//! The pages: HTML from the server, one style sheet, one small script; everything works without the script, too.
//!
//! | file | pages |
//! |---|---|
//! | `mod` | which address leads where |
//! | `visit` | one request: who asks, what was sent, what is answered; every POST is checked here |
//! | `access` | `/login`, `/logout`; sessions, their secret for forms, how many attempts |
//! | `headers` | what each answer carries; `/static/…` |
//! | `layout` | the frame of a page, times, notices |
//! | `form/` | a form from its JSON Schema |
//! | `settings` | `/mailboxes/new`, `/mailboxes/{id}/incoming`, `…/outgoing` |
//! | `consent` | the consent window, `/oauth/callback`, device codes, applications that nobody consents to |
//! | `mailboxes` | `/`, `/mailboxes/{id}`, its actions and transcript |
//! | `quarantine` | `/mailboxes/{id}/quarantine` |
//! | `requests` | `/requests`, `/requests/{id}`; `mail` reads messages for it |
//! | `audit` | `/audit` |
//! | `account` | `/account`: passwords and administrators |

mod access;
mod account;
mod audit;
mod consent;
mod form;
mod headers;
mod layout;
mod mail;
mod mailboxes;
mod quarantine;
mod requests;
mod settings;
mod visit;

use std::sync::Arc;

use axum::{Router, middleware, routing::get};

use self::visit::{Web, page, page_unless, posted, unknown};
use super::App;

pub fn router(app: Arc<App>) -> Router {
    let web = Arc::new(Web::new(app));
    let consent = "/mailboxes/{id}/consent/{direction}";
    let quarantined = "/mailboxes/{id}/quarantine";
    Router::new()
        .route("/login", access::show().merge(access::login()))
        .route("/logout", posted(access::logout))
        .route("/", page(mailboxes::list))
        .route("/mailboxes/new", page(settings::new).merge(posted(settings::create)))
        .route("/mailboxes/{id}", page(mailboxes::show))
        .route("/mailboxes/{id}/{direction}", page(settings::edit).merge(posted(settings::save)))
        .route("/mailboxes/{id}/actions/{action}", posted(mailboxes::act))
        .route("/mailboxes/{id}/connect/{direction}", page(consent::connect))
        .route("/mailboxes/{id}/connect/{direction}/state", page(consent::state))
        .route(consent, page(consent::window))
        .route("/mailboxes/{id}/device", page(consent::device).merge(posted(consent::poll)))
        .route("/mailboxes/{id}/administrator/{direction}", page(consent::administrator))
        .route("/oauth/callback", page_unless(consent::by_administrator, consent::callback))
        .route("/mailboxes/{id}/transcript", page(mailboxes::transcript))
        .route("/mailboxes/{id}/transcript/download", page(mailboxes::transcript_download))
        .route(quarantined, page(quarantine::list).merge(posted(quarantine::decide)))
        .route("/mailboxes/{id}/quarantine/raw", page(quarantine::raw))
        .route("/requests", page(requests::list))
        .route("/requests/{id}", page(requests::show))
        .route("/requests/{id}/reply", posted(requests::reply))
        .route("/requests/{id}/messages/{message}/html", page(requests::html))
        .route("/requests/{id}/messages/{message}/raw", page(requests::raw))
        .route("/requests/{id}/messages/{message}/attachments/{number}", page(requests::attachment))
        .route("/audit", page(audit::list))
        .route("/account", page(account::show).merge(posted(account::change)))
        .route("/static/{file}", get(headers::file))
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(web.clone(), headers::guard))
        .with_state(web)
}
