//! `serve`: a helpdesk with a web page that runs day and night.
//!
//! | file | what |
//! |---|---|
//! | `mod` | the command line, start, graceful stop; [`App`]: what the pages work on |
//! | `mailboxes` | [`Mailboxes`]: accounts of the library and their life; what a page may ask for |
//! | `scheduler`, `queue`, `pace`, `fetch` | threads; which mailboxes are this node's; when one is due; one round |
//! | `storage/`, `seal` | [`Storage`]: settings (sealed), administrators, sessions, audit trail, runs; requests in `helpdesk` |
//! | `ears` | what the library says: logs, transcripts, changes of health |
//! | `password`, `metrics`, `log` | argon2id; Prometheus; one JSON line per event |
//! | `web/` | the pages |
//!
//! For a page, with `app: Arc<App>` as the state of its router; everything blocks, so through `spawn_blocking`:
//!
//! | call | answer |
//! |---|---|
//! | `app.mailboxes.describe()` | name, version, grants, `schemas.incoming`, `schemas.outgoing` |
//! | `app.mailboxes.validate(&{"incoming":FORM})` | `Result<(), oauth_mail_abi::Error>`: `faults()` with pointer and label |
//! | `app.mailboxes.authenticate(id, direction, &REQUEST)` | as the library's hook; after a consent the mailbox is due at once |
//! | `app.mailboxes.fetch_now(id)` | counts: created, appended, duplicate, ignored, skipped, quarantined |
//! | `app.mailboxes.send_sample(id, to)`, `.reply(id, request, text)` | `{"outcome":…}` |
//! | `app.mailboxes.diagnose(id)` | `{"incoming":DIAGNOSIS,"outgoing":DIAGNOSIS}` |
//! | `app.mailboxes.quarantine(id)`, `.quarantine_raw(id, key)`, `.quarantine_replay(…)`, `.quarantine_drop(…)` | list; bytes; `()` |
//! | `app.mailboxes.state(id)`, `.overview()` | see there |
//! | `app.mailboxes.transcript(id)` | text |
//! | `app.mailboxes.close(id)` | after its settings were changed or removed |
//! | `app.storage.mailboxes()`, `.mailbox(id)` | [`storage::Mailbox`], secrets included: never hand a form to a browser whole |
//! | `app.storage.insert_mailbox(who, &Change)`, `.update_mailbox(who, id, version, &Change)`, `.remove_mailbox(who, id)` | id; new version or `None` on a conflict; bool. The audit trail is written with them |
//! | `app.storage.audit(who, mailbox, action, &detail)`, `.audit_trail(mailbox, before, limit)` | |
//! | `app.storage.password_hash(name)`, `.set_password(who, name, hash)`, `.insert_admin(…)`, `.admin_names()` | with [`password`] |
//! | `app.storage.insert_session(hash, admin, csrf, seconds)`, `.session(hash, idle_seconds)`, `.touch_session(hash)`, `.remove_session(hash)` | |
//! | `app.storage.insert_pending(state_hash, &Pending, seconds)`, `.take_pending(state_hash)` | which mailbox a redirect is for |
//! | `app.storage.helpdesk.requests_page(mailbox, before, limit)`, `.request(id)`, `.raw(message_id)` | |
//! | `app.metrics()`, `app.health()` | texts for /metrics and /healthz |
//! | `app.log`, `app.public_url` | |
//!
//! Errors are [`Failure`]: `sentences()` for a person, `Failure::Hook(error)` with `kind()`, `remedy()`, `faults()`.

mod ears;
mod fetch;
mod log;
mod mailboxes;
#[cfg(test)]
mod mailboxes_tests;
mod metrics;
mod pace;
pub mod password;
mod queue;
mod scheduler;
mod seal;
mod start;
pub mod storage;
mod web;

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    net::{self, IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::{ConnectInfo, State},
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use clap::Args;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use serde_json::json;
use tokio::{net::TcpListener, runtime::Builder, sync::Semaphore, task::spawn_blocking};
use url::Url;

use self::{log::Log, metrics::Metrics, scheduler::Scheduler};
use crate::{
    failure::{Failure, Result},
    interrupt,
    output::Output,
};

pub use mailboxes::Mailboxes;
pub use storage::Storage;

/// For the head of a request, and for the next one on a connection that is kept.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// Whoever comes then waits until another one goes.
const CONNECTIONS_MAX: usize = 500;

#[derive(Args)]
pub struct Arguments {
    /// Where the database, the key and the library's store are kept; made when it is not there.
    #[arg(long, default_value = "helpdesk", value_name = "FOLDER")]
    data: PathBuf,
    /// Where the page is served.
    #[arg(long, default_value = "127.0.0.1:8025", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Several nodes on one PostgreSQL: postgres://USER:PASSWORD@HOST:PORT/DATABASE; all of them with the same key file.
    #[arg(long, env = "HOST_SAMPLE_DATABASE", hide_env_values = true, value_name = "URL")]
    database: Option<String>,
    /// The key that seals settings and tokens; by default serve.key in the data folder.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// How browsers reach the page, when it is not the address it listens on.
    #[arg(long, value_name = "URL")]
    public_url: Option<Url>,
    /// Address of a proxy before the page, whose X-Forwarded-For says who asks; may be repeated.
    #[arg(long, value_name = "IP")]
    trusted_proxy: Vec<IpAddr>,
    /// Mailboxes that are fetched at the same time.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// The first administrator's password; without it one is made up and printed once.
    #[arg(long, value_name = "FILE")]
    admin_password_file: Option<PathBuf>,
    #[arg(long, env = "HOST_SAMPLE_ADMIN_PASSWORD", hide = true, hide_env_values = true)]
    admin_password: Option<String>,
    /// Take in a mailbox from a settings file, under the file's name; may be repeated. The forms in the file replace what was
    /// changed on the page.
    #[arg(long, value_name = "FILE")]
    import: Vec<PathBuf>,
    /// Whether mail servers in private networks may be connected to.
    #[arg(long, default_value = "allow", value_parser = ["allow", "deny"], value_name = "allow|deny")]
    private_networks: String,
    /// How long rounds and requests that run may take when the host is asked to stop.
    #[arg(long, default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=600))]
    drain: u64,
}

/// What the pages work on.
pub struct App {
    pub storage: Storage,
    pub mailboxes: Arc<Mailboxes>,
    pub log: Log,
    /// Without a slash at its end.
    pub public_url: String,
    pub trusted_proxies: Vec<IpAddr>,
    /// No second process works in the same data folder.
    _lock: Option<File>,
    metrics: Arc<Metrics>,
    scheduler: Scheduler,
}

impl App {
    /// For /metrics.
    pub fn metrics(&self) -> Result<String> {
        let overview = self.mailboxes.overview()?;
        let mut states: BTreeMap<&str, i64> = BTreeMap::new();
        for state in overview.iter().filter_map(|mailbox| mailbox["state"].as_str()) {
            *states.entry(state).or_default() += 1;
        }
        let lag = self.storage.lag(self.storage.now()?)?;
        let mut gauges: Vec<_> =
            states.into_iter().map(|(state, count)| ("host_mailboxes", Some(("state", state)), count)).collect();
        gauges.push(("host_queue_lag_seconds", None, lag));
        gauges.push(("host_rounds_running", None, self.mailboxes.queue.running().len() as i64));
        Ok(self.metrics.render(&gauges))
    }

    /// For /healthz.
    ///
    /// # Errors
    /// Why this node does not work.
    pub fn health(&self) -> Result<(), String> {
        // It asks the database each second; asked from here, a database that hangs would take a thread for each question.
        self.scheduler.health()
    }
}

pub fn run(arguments: &Arguments, library: Option<&Path>, output: &Output) -> Result<()> {
    let drain = Duration::from_secs(arguments.drain);
    interrupt::grace(2 * drain + Duration::from_secs(10));
    // First of all: nothing is begun for an address that somebody else has.
    let taken = |error: io::Error| {
        let address = arguments.listen;
        Failure::settings(format!("{address} cannot be listened on: {error}. Choose another one by --listen."))
    };
    let listener = net::TcpListener::bind(arguments.listen).map_err(taken)?;
    listener.set_nonblocking(true).map_err(taken)?;
    let address = listener.local_addr().map_err(taken)?;
    let app = Arc::new(start::app(arguments, address, library, output)?);
    app.log.for_panics();
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(32)
        .thread_name("page")
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("The page's threads cannot be started: {error}.")))?;
    let served = runtime.block_on(serve(app.clone(), listener, drain, output));
    app.scheduler.stop(drain);
    app.log.info("stopped", None, json!({}));
    // Waiting for a request that hangs is what the drain was for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    interrupt::heeded();
    served
}

async fn serve(app: Arc<App>, listener: net::TcpListener, drain: Duration, output: &Output) -> Result<()> {
    let failed = |error: io::Error| Failure::other(format!("The page cannot be served any more: {error}."));
    let address = listener.local_addr().map_err(failed)?;
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    output.say(
        &format!("The helpdesk is at {}", app.public_url),
        &json!({"event": "serving", "url": app.public_url, "address": address.to_string(),
                "node": app.mailboxes.queue.node}),
    );
    app.log.info("started", None, json!({"address": address.to_string(), "node": app.mailboxes.queue.node}));
    let server = answer(listener, router(app.clone()));
    let drained = async {
        interrupted().await;
        // Rounds end beside the requests.
        spawn_blocking(move || app.scheduler.stop(drain));
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        () = server => {}
        () = drained => {}
    }
    Ok(())
}

/// Until an interrupt; requests that run come to their end. axum's own loop has no deadline for the head of a request.
async fn answer(listener: TcpListener, pages: Router) {
    let (gate, graceful) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), GracefulShutdown::new());
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
    let accepted = async || {
        let place = gate.clone().acquire_owned().await.ok();
        (place, listener.accept().await)
    };
    loop {
        let (place, accepted) = tokio::select! {
            accepted = accepted() => accepted,
            () = interrupted() => break,
        };
        let Ok((stream, peer)) = accepted else {
            // No file descriptor is left: some will be.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let service = TowerToHyperService::new(pages.clone().layer(Extension(ConnectInfo(peer))));
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

async fn interrupted() {
    while !interrupt::requested() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn router(app: Arc<App>) -> Router {
    let pages = web::router(app.clone());
    Router::new().route("/metrics", get(metrics)).route("/healthz", get(healthz)).with_state(app).merge(pages)
}

async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    match spawn_blocking(move || app.metrics()).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Ok(Err(failure)) => (StatusCode::SERVICE_UNAVAILABLE, failure.sentences().join(" ") + "\n").into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn healthz(State(app): State<Arc<App>>) -> impl IntoResponse {
    match spawn_blocking(move || app.health()).await {
        Ok(Ok(())) => (StatusCode::OK, "ok\n".to_owned()),
        Ok(Err(why)) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "It ended by a panic.\n".to_owned()),
    }
}
