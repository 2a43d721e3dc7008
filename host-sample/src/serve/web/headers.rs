//! What each answer carries, how long it may take, and the files that the pages load.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Path, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::timeout;

use super::{layout, visit::Web};

/// A diagnosis of both directions takes at most two minutes.
const PATIENCE: Duration = Duration::from_secs(150);

/// `connect-src`: the script asks the helpdesk itself; `frame-src`: HTML mail stands in a frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      frame-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// HTML mail: no script, no form, nothing from elsewhere; links open beside the helpdesk.
pub const MAIL_POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'none'; frame-ancestors 'self'; \
                               base-uri 'none'; sandbox allow-popups allow-popups-to-escape-sandbox";

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

const ALWAYS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    // Not `no-referrer`: browsers would then hide the origin of a form, too.
    (header::REFERRER_POLICY, "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
    (RESOURCE_POLICY, "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

pub async fn guard(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    let mut response = timeout(PATIENCE, next.run(request)).await.unwrap_or_else(|_| {
        let why = "This took too long. It may still come to its end; look again in a moment.".to_owned();
        layout::problem(None, StatusCode::GATEWAY_TIMEOUT, "Too slow", &[why])
    });
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if web.is_secure() {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    response
}

const FILES: [(&str, &str, &str); 4] = [
    ("app.css", "text/css; charset=utf-8", include_str!("static/app.css")),
    ("mail.css", "text/css; charset=utf-8", include_str!("static/mail.css")),
    ("app.js", "text/javascript; charset=utf-8", include_str!("static/app.js")),
    ("icon.svg", "image/svg+xml", include_str!("static/icon.svg")),
];

pub async fn file(Path(name): Path<String>) -> Response {
    match FILES.into_iter().find(|(own, _, _)| *own == name) {
        Some((_, media_type, text)) => {
            let headers = [
                (header::CONTENT_TYPE, media_type),
                (header::CACHE_CONTROL, "no-cache"),
                // The frame of HTML mail is sandboxed, so its style sheet comes from elsewhere.
                (RESOURCE_POLICY, "cross-origin"),
            ];
            (headers, text).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
