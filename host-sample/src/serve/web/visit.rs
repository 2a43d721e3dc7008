//! One request. Whoever is not signed in is led to the login; a POST must come from a page of this session.

use std::{
    future::poll_fn,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Deref,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use axum::{
    body::{Body, HttpBody as _},
    extract::{ConnectInfo, RawPathParams, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use tokio::{task::spawn_blocking, time::timeout};
use url::form_urlencoded;

use super::{
    access::{self, Limiter},
    layout,
};
use crate::{
    failure::Failure,
    host::Direction,
    serve::{
        App,
        storage::{Mailbox, Session},
    },
};

/// Of what is posted: a form with a certificate and a service account is a tenth of it.
const BODY_MAX: usize = 512 * 1024;
/// What is larger is still taken, and thrown away: a browser that is cut off while it sends shows no answer.
const DISCARDED_MAX: usize = 16 * BODY_MAX;
/// To send it.
const BODY_PATIENCE: Duration = Duration::from_secs(20);

/// What all pages work on.
pub struct Web {
    pub app: Arc<App>,
    pub limiter: Limiter,
}

impl Web {
    pub fn new(app: Arc<App>) -> Self {
        Self { app, limiter: Limiter::default() }
    }

    /// Browsers reach the page over TLS.
    pub fn is_secure(&self) -> bool {
        self.app.public_url.starts_with("https:")
    }
}

/// Names and values, in order; names may repeat.
#[derive(Debug, Default)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    pub fn parse(encoded: &[u8]) -> Self {
        Self(form_urlencoded::parse(encoded).into_owned().collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// A request of anybody.
pub struct Visit {
    pub web: Arc<Web>,
    pub headers: HeaderMap,
    pub peer: IpAddr,
    /// Path and query as they were asked for.
    pub target: String,
    pub params: Vec<(String, String)>,
    pub query: Fields,
    pub form: Fields,
}

/// A request of an administrator.
pub struct Call {
    visit: Visit,
    pub session: Session,
}

impl Deref for Call {
    type Target = Visit;

    fn deref(&self) -> &Visit {
        &self.visit
    }
}

impl Call {
    /// The one in the path.
    pub fn mailbox(&self) -> Result<Mailbox, Problem> {
        self.app().storage.mailbox(self.number("id")?)?.ok_or(Problem::Unknown)
    }
}

impl Visit {
    pub fn app(&self) -> &App {
        &self.web.app
    }

    pub fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }

    /// A number in the path.
    pub fn number(&self, name: &str) -> Result<i64, Problem> {
        self.param(name).parse().map_err(|_| Problem::Unknown)
    }

    pub fn direction(&self) -> Result<Direction, Problem> {
        direction(self.param("direction")).ok_or(Problem::Unknown)
    }
}

pub fn direction(name: &str) -> Option<Direction> {
    [Direction::Incoming, Direction::Outgoing].into_iter().find(|direction| direction.name() == name)
}

/// Why there is no page.
pub enum Problem {
    /// 404.
    Unknown,
    /// 403: what to do instead.
    Forbidden(&'static str),
    Failed(Failure),
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

pub type Answer = Result<Response, Problem>;

/// A page for administrators.
pub fn page(handler: fn(&Call) -> Answer) -> MethodRouter<Arc<Web>> {
    get(move |State(web): State<Arc<Web>>, params: RawPathParams, request: Request| {
        answer(web, params, request, move |visit| signed_in(visit, handler))
    })
}

/// Takes a form of an administrator.
pub fn posted(handler: fn(&Call) -> Answer) -> MethodRouter<Arc<Web>> {
    post(move |State(web): State<Arc<Web>>, params: RawPathParams, request: Request| {
        answer(web, params, request, move |visit| {
            signed_in(visit, |call| {
                access::check_origin(call)?;
                access::check_secret(call)?;
                handler(call)
            })
        })
    })
}

/// A page for administrators, unless `first` knows the visit.
pub fn page_unless(first: fn(&Visit) -> Option<Answer>, handler: fn(&Call) -> Answer) -> MethodRouter<Arc<Web>> {
    get(move |State(web): State<Arc<Web>>, params: RawPathParams, request: Request| {
        answer(web, params, request, move |visit| match first(&visit) {
            Some(answer) => answer,
            None => signed_in(visit, handler),
        })
    })
}

/// A page for anybody.
pub fn open_page(handler: fn(&Visit) -> Answer) -> MethodRouter<Arc<Web>> {
    get(move |State(web): State<Arc<Web>>, params: RawPathParams, request: Request| {
        answer(web, params, request, move |visit| handler(&visit))
    })
}

/// Takes a form of anybody, from a page of this helpdesk.
pub fn open_posted(handler: fn(&Visit) -> Answer) -> MethodRouter<Arc<Web>> {
    post(move |State(web): State<Arc<Web>>, params: RawPathParams, request: Request| {
        answer(web, params, request, move |visit| {
            access::check_origin(&visit)?;
            handler(&visit)
        })
    })
}

pub async fn unknown() -> Response {
    layout::problem(None, StatusCode::NOT_FOUND, "Not found", &["There is no such page.".into()])
}

fn signed_in(visit: Visit, handler: impl FnOnce(&Call) -> Answer) -> Answer {
    let Some(session) = access::session(&visit)? else { return Ok(access::to_login(&visit)) };
    let call = Call { visit, session };
    let answer = handler(&call);
    // With the frame of the page around it, so that there is a way on.
    Ok(answer.unwrap_or_else(|problem| problem.page(Some(&call))))
}

/// The peer, or whom a trusted proxy names: the last one in its list that is no such proxy itself.
fn asking(peer: IpAddr, headers: &HeaderMap, trusted: &[IpAddr]) -> IpAddr {
    if !trusted.contains(&peer) {
        return peer;
    }
    let lines = headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok());
    let named: Vec<_> = lines.flat_map(|line| line.split(',')).map(|name| name.trim().parse().ok()).collect();
    named.into_iter().rev().find(|name| name.is_none_or(|name| !trusted.contains(&name))).flatten().unwrap_or(peer)
}

/// `None`: too much, or the connection ended.
async fn posted_bytes(mut body: Body) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut taken = 0_usize;
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let data = frame.ok()?.into_data().unwrap_or_default();
        taken = taken.saturating_add(data.len());
        if taken <= BODY_MAX {
            bytes.extend_from_slice(&data);
        } else if taken <= DISCARDED_MAX {
            bytes = Vec::new();
        } else {
            break;
        }
    }
    (taken <= BODY_MAX).then_some(bytes)
}

async fn answer(
    web: Arc<Web>,
    params: RawPathParams,
    request: Request,
    work: impl FnOnce(Visit) -> Answer + Send + 'static,
) -> Response {
    let (parts, body) = request.into_parts();
    let form = match parts.method {
        Method::POST => match timeout(BODY_PATIENCE, posted_bytes(body)).await {
            Ok(Some(body)) => Fields::parse(&body),
            Ok(None) => {
                let why = format!("More than {} KiB were sent; no form here is as large.", BODY_MAX / 1024);
                return layout::problem(None, StatusCode::PAYLOAD_TOO_LARGE, "Too large", &[why]);
            }
            Err(_) => {
                let why = "The form did not arrive in time. Send it again.".to_owned();
                return layout::problem(None, StatusCode::REQUEST_TIMEOUT, "Too slow", &[why]);
            }
        },
        _ => Fields::default(),
    };
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let visit = Visit {
        peer: asking(peer, &parts.headers, &web.app.trusted_proxies),
        web,
        target: parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
        params: params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        query: Fields::parse(parts.uri.query().unwrap_or_default().as_bytes()),
        form,
        headers: parts.headers,
    };
    match spawn_blocking(move || work(visit)).await {
        Ok(Ok(response)) => response,
        Ok(Err(problem)) => problem.page(None),
        Err(_) => layout::problem(
            None,
            StatusCode::INTERNAL_SERVER_ERROR,
            "A fault of this page",
            &["The page ended by a fault of its own. The log says more.".into()],
        ),
    }
}

impl Problem {
    fn page(&self, call: Option<&Call>) -> Response {
        match self {
            Self::Unknown => layout::problem(
                call,
                StatusCode::NOT_FOUND,
                "Not found",
                &["There is no such page, or what it showed was removed.".into()],
            ),
            Self::Forbidden(why) => layout::problem(call, StatusCode::FORBIDDEN, "Not accepted", &[(*why).to_owned()]),
            Self::Failed(failure) => {
                layout::problem(call, StatusCode::BAD_GATEWAY, "This did not work", &failure.sentences())
            }
        }
    }
}

/// 303: whatever was asked, look there.
pub fn see_other(target: &str) -> Response {
    let location = HeaderValue::try_from(target).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

/// Bytes to be saved, whatever they are: never shown by the browser.
pub fn download(name: &str, media_type: &str, bytes: Vec<u8>) -> Response {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._- ".contains(c) { c } else { '_' }).collect();
    let encoded: String = form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20");
    // RFC 6266: the plain one for whoever does not know the other.
    let disposition = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}");
    let disposition = HeaderValue::try_from(disposition).unwrap_or(HeaderValue::from_static("attachment"));
    let media_type = HeaderValue::try_from(media_type).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    ([(header::CONTENT_DISPOSITION, disposition), (header::CONTENT_TYPE, media_type)], Body::from(bytes))
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trusted_proxy_says_who_asks() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (proxy, inner, person) = (ip("10.0.0.1"), ip("10.0.0.2"), ip("192.0.2.7"));
        let asking = |peer: IpAddr, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", HeaderValue::try_from(*line).unwrap());
            }
            super::asking(peer, &headers, &[proxy, inner])
        };
        assert_eq!(asking(proxy, &["192.0.2.7"]), person);
        assert_eq!(
            asking(proxy, &["203.0.113.9, 192.0.2.7", "10.0.0.2"]),
            person,
            "what a person sends along is no proof"
        );
        assert_eq!(asking(proxy, &["192.0.2.7, nonsense"]), proxy);
        assert_eq!(asking(proxy, &[]), proxy);
        assert_eq!(asking(person, &["203.0.113.9"]), person);
    }
}
