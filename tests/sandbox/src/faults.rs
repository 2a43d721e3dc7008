//! Faults on request: what the next requests meet, by face and by what they ask for; and how many there were.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::http::Response;

#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Face {
    Oauth,
    Ews,
    Graph,
    Imap,
    Smtp,
    #[serde(skip)]
    Admin,
}

/// One order: `{"face": "graph", "match": "/messages", "skip": 1, "times": 2, "status": 429, "retry_after": 3}`.
///
/// What can be combined is combined: slow and cut, a status and slow.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub face: Face,
    /// Part of "METHOD /path", of SOAPAction, of the body's first 4 KB, or of the IMAP or SMTP command.
    #[serde(default, rename = "match")]
    pub matches: String,
    /// So many matching requests pass unharmed first.
    #[serde(default)]
    pub skip: u32,
    /// So many are harmed then.
    #[serde(default = "once")]
    pub times: u32,
    #[serde(flatten)]
    pub what: What,
}

fn once() -> u32 {
    1
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct What {
    /// HTTP: this status instead of the answer, with the body that the face's provider would put in it. IMAP and SMTP: any
    /// status refuses the command (`NO [UNAVAILABLE]`, `421`/`451`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The header Retry-After, seconds; left out without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// EWS: ErrorServerBusy with BackOffMilliseconds, in a SOAP fault with status 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_off_ms: Option<u64>,
    /// The body instead of the provider's. EWS: `code` in a SOAP fault is often enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Error code inside the body: `syncStateNotFound`, `ErrorAccessDenied`, `invalid_grant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// EWS: every item of the request is refused with this ResponseCode, inside HTTP 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_code: Option<String>,
    /// Only an answer that would hold this text is refused. EWS, with `response_code`: only the items whose message
    /// holds it; the others get what they asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
    /// Content-Type of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The answer comes compressed, although nobody asked for it.
    #[serde(default)]
    pub gzip: bool,
    /// In the body of the answer the first text is replaced by the second, wherever it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace: Option<(String, String)>,
    /// So long nothing is heard, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_ms: Option<u64>,
    /// The connection ends after so many bytes of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_after: Option<usize>,
    /// Half of the answer and then rubbish, with a length that agrees.
    #[serde(default)]
    pub malformed: bool,
}

/// What one request meets.
#[derive(Default)]
pub struct Plan {
    pub delay: Duration,
    pub cut_after: Option<usize>,
    pub malformed: bool,
    what: What,
}

#[derive(Default)]
pub struct Faults(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    orders: Vec<Fault>,
    counts: BTreeMap<Face, Count>,
    last: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Count {
    pub requests: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// Of the log of requests, the newest so many.
const LOG_MAX: usize = 200;

impl Faults {
    pub fn order(&self, fault: Fault) {
        self.lock().orders.push(fault);
    }

    /// Forgets all orders.
    pub fn clear(&self) {
        self.lock().orders.clear();
    }

    pub fn orders(&self) -> Vec<Fault> {
        self.lock().orders.clone()
    }

    /// The first order that fits; it counts down.
    pub fn take(&self, face: Face, line: &str) -> Option<Plan> {
        let orders = &mut self.lock().orders;
        let place = orders.iter().position(|order| order.face == face && line.contains(&order.matches))?;
        let order = &mut orders[place];
        if order.skip > 0 {
            order.skip -= 1;
            return None;
        }
        let what = order.what.clone();
        order.times = order.times.saturating_sub(1);
        if order.times == 0 {
            orders.remove(place);
        }
        Some(Plan {
            delay: Duration::from_millis(what.slow_ms.unwrap_or(0)),
            cut_after: what.cut_after,
            malformed: what.malformed,
            what,
        })
    }

    pub fn count(&self, face: Face, line: &str, bytes: usize) {
        let mut inner = self.lock();
        if face == Face::Admin {
            return;
        }
        let count = inner.counts.entry(face).or_default();
        count.requests += 1;
        count.bytes_in += bytes as u64;
        if inner.last.len() == LOG_MAX {
            inner.last.remove(0);
        }
        inner.last.push(line.to_owned());
    }

    pub fn sent(&self, face: Face, bytes: usize) {
        self.lock().counts.entry(face).or_default().bytes_out += bytes as u64;
    }

    pub fn counted(&self, face: Face) -> Count {
        self.lock().counts.get(&face).copied().unwrap_or_default()
    }

    /// Numbers by face, and the newest requests: method, path, never a token.
    pub fn report(&self) -> Value {
        let inner = self.lock();
        json!({"counts": inner.counts, "last": inner.last})
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    /// Does it refuse? For the faces that speak lines.
    pub fn refuses(&self) -> bool {
        self.what.status.is_some()
    }

    /// Refuses only what would hold this text.
    pub fn only(&self) -> Option<&str> {
        self.what.only.as_deref()
    }

    /// The ResponseCode for items, of EWS, and the text that their messages hold.
    pub fn response_code(&self) -> Option<(&str, Option<&str>)> {
        Some((self.what.response_code.as_deref()?, self.what.only.as_deref()))
    }

    /// What becomes of an answer, the right one or another.
    pub fn changed(&self, mut response: Response) -> Response {
        if let Some((from, to)) = &self.what.replace {
            response.body = String::from_utf8_lossy(&response.body).replace(from, to).into_bytes();
        }
        if let Some(kind) = &self.what.content_type {
            response.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
            response = response.header("Content-Type", kind.as_str());
        }
        if self.what.gzip {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            // Into memory: it cannot fail.
            if packed.write_all(&response.body).is_ok()
                && let Ok(body) = packed.finish()
            {
                response.body = body;
                response = response.header("Content-Encoding", "gzip");
            }
        }
        response
    }

    /// The answer instead of the right one.
    pub fn answer(&self, face: Face) -> Option<Response> {
        let What { status, retry_after, back_off_ms, body, code, .. } = &self.what;
        let status = match (status, back_off_ms, code) {
            (Some(status), ..) => *status,
            (None, Some(_), _) => 500,
            (None, None, Some(_)) => {
                if face == Face::Ews {
                    500
                } else {
                    400
                }
            }
            (None, None, None) => return None,
        };
        let mut response = match (body, face) {
            (Some(body), _) => Response::text(status, body.clone()),
            (None, Face::Graph) => graph_error(status, code.as_deref()),
            (None, Face::Ews) if back_off_ms.is_some() || code.is_some() => {
                ews_fault(status, code.as_deref().unwrap_or("ErrorServerBusy"), *back_off_ms)
            }
            (None, Face::Ews) => Response::html(status, "<html><body>The service is unavailable.</body></html>"),
            (None, _) => {
                let code =
                    code.as_deref().unwrap_or(if status >= 500 { "server_error" } else { "temporarily_unavailable" });
                Response::json(status, &json!({"error": code, "error_description": "A fault that was ordered."}))
            }
        };
        if let Some(seconds) = retry_after {
            response = response.header("Retry-After", seconds.to_string());
        }
        Some(response)
    }
}

/// <https://learn.microsoft.com/graph/errors>
fn graph_error(status: u16, code: Option<&str>) -> Response {
    let code = code.unwrap_or(match status {
        401 => "InvalidAuthenticationToken",
        403 => "ErrorAccessDenied",
        404 => "ErrorItemNotFound",
        410 => "syncStateNotFound",
        429 => "TooManyRequests",
        503 => "serviceNotAvailable",
        504 => "gatewayTimeout",
        _ if status >= 500 => "generalException",
        _ => "badRequest",
    });
    let inner = json!({"date": "2026-01-01T00:00:00", "request-id": "00000000-0000-0000-0000-000000000000"});
    Response::json(
        status,
        &json!({"error": {"code": code, "message": "A fault that was ordered.", "innerError": inner}}),
    )
}

/// <https://learn.microsoft.com/exchange/client-developer/exchange-web-services/ews-throttling-in-exchange>
fn ews_fault(status: u16, code: &str, back_off_ms: Option<u64>) -> Response {
    let back_off = back_off_ms.map_or_else(String::new, |ms| {
        format!(
            "<t:MessageXml xmlns:t=\"http://schemas.microsoft.com/exchange/services/2006/types\">\
             <t:Value Name=\"BackOffMilliseconds\">{ms}</t:Value></t:MessageXml>"
        )
    });
    let errors = "http://schemas.microsoft.com/exchange/services/2006/errors";
    Response::xml(
        status,
        format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\
             <s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body><s:Fault>\
             <faultcode xmlns:a=\"http://schemas.microsoft.com/exchange/services/2006/types\">a:{code}</faultcode>\
             <faultstring xml:lang=\"en-US\">A fault that was ordered.</faultstring>\
             <detail><e:ResponseCode xmlns:e=\"{errors}\">{code}</e:ResponseCode>\
             <e:Message xmlns:e=\"{errors}\">A fault that was ordered.</e:Message>{back_off}</detail>\
             </s:Fault></s:Body></s:Envelope>"
        ),
    )
}
