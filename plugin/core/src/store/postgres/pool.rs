//! A few connections to PostgreSQL, each used by one operation at a time. Nothing is kept in a session: behind a pooler
//! in transaction mode every transaction may meet another server process.

use std::{
    error::Error as StdError,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Instant, UNIX_EPOCH},
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Semaphore, SemaphorePermit},
};
use tokio_postgres::{
    Client, Error, SimpleQueryMessage, Socket,
    config::{Config, SslMode},
    error::SqlState,
    tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream},
};
use tokio_rustls::{TlsConnector, client};

use super::failure::Trouble;
use crate::{limits, seam};

pub struct Pool {
    config: Config,
    tls: Arc<ClientConfig>,
    idle: Mutex<Vec<Client>>,
    permits: Semaphore,
    pub server: Server,
}

/// A connection in use. Dropped, it is closed, and the server rolls back; [`Seat::keep`] after all went well.
pub struct Seat<'a> {
    pool: &'a Pool,
    client: Option<Client>,
    is_new: bool,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Pool {
    pub fn new(config: Config, tls: Arc<ClientConfig>) -> Self {
        let (idle, permits) = (Mutex::default(), Semaphore::new(limits::STORE_CONNECTIONS));
        Self { config, tls, idle, permits, server: Server::default() }
    }

    /// A connection on which `first` was executed. One that died while it was idle is replaced: `first` is the only
    /// statement that is ever sent twice, and must bear it.
    pub async fn begin(&self, first: &str) -> Result<Seat<'_>, Trouble> {
        loop {
            let seat = self.seat().await?;
            match seat.client().batch_execute(first).await {
                Ok(()) => return Ok(seat),
                Err(error) if !seat.is_new && is_gone(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// An idle connection or a new one.
    pub async fn seat(&self) -> Result<Seat<'_>, Trouble> {
        // The semaphore is never closed.
        let permit = self.permits.acquire().await.ok();
        let idle = self.pop();
        let is_new = idle.is_none();
        let client = match idle {
            Some(client) => client,
            None => self.connect().await?,
        };
        if is_new || self.server.is_due() {
            self.server.look(&client).await;
        }
        Ok(Seat { pool: self, client: Some(client), is_new, _permit: permit })
    }

    fn pop(&self) -> Option<Client> {
        let mut idle = seam::lock("postgres.pool", &self.idle);
        idle.retain(|client| !client.is_closed());
        idle.pop()
    }

    async fn connect(&self) -> Result<Client, Trouble> {
        let tls = Tls { config: self.tls.clone(), was_reached: Arc::default() };
        let (client, connection) = self.config.connect(tls.clone()).await.map_err(|error| {
            // The driver has no kind for a server that answers "no" to the request for TLS. It has
            // not asked our TLS then, and nothing failed below it.
            let was_reached = tls.was_reached.load(Ordering::Acquire);
            let wants_tls = self.config.get_ssl_mode() == SslMode::Require;
            match wants_tls && !was_reached && error.as_db_error().is_none() && !has_io(&error) {
                true => Trouble::NoTls(Box::new(error)),
                false => error.into(),
            }
        })?;
        // It ends with the client, or with the network: then the client says so.
        tokio::spawn(connection);
        Ok(client)
    }
}

fn has_io(error: &Error) -> bool {
    let mut next = StdError::source(error);
    while let Some(error) = next {
        if error.is::<io::Error>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// What is known of the server behind the connections: its clock, and which life of the database it
/// serves. A standby that takes over begins a new timeline, and may lack what was committed last.
#[derive(Default)]
pub struct Server {
    seen: Mutex<Seen>,
    epoch: AtomicU64,
    events: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Seen {
    timeline: Option<String>,
    /// The server's clock at one moment of ours.
    clock: Option<(f64, Instant)>,
}

impl Server {
    const CLOCK: &str = "SELECT extract(epoch FROM clock_timestamp())";
    /// The first eight digits of the name of a WAL file.
    const TIMELINE: &str = "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)";

    fn is_due(&self) -> bool {
        let seen = seam::lock("postgres.server", &self.seen);
        let is_old = |(_, at): (f64, Instant)| seam::instant().saturating_duration_since(at) > limits::STORE_CLOCK_KEPT;
        seen.clock.is_none_or(is_old)
    }

    /// Not every service that speaks PostgreSQL tells; then nothing is known.
    async fn look(&self, client: &Client) {
        let begun = seam::instant();
        let clock = text(client, Self::CLOCK).await.and_then(|seconds| seconds.parse::<f64>().ok());
        let took = seam::instant().saturating_duration_since(begun);
        let timeline = text(client, Self::TIMELINE).await;
        let mut seen = seam::lock("postgres.server", &self.seen);
        if let Some(clock) = clock {
            seen.clock = Some((clock + took.as_secs_f64() / 2.0, begun + took));
        }
        let Some(timeline) = timeline else { return };
        if seen.timeline.as_ref().is_some_and(|before| *before != timeline) {
            self.epoch.fetch_add(1, Ordering::AcqRel);
            let event =
                "Another PostgreSQL server took over as the store. What was committed last may be missing there.";
            seam::lock("postgres.events", &self.events).push(event.to_owned());
        }
        seen.timeline = Some(timeline);
    }

    /// Seconds by which the server's clock is ahead of ours now.
    pub fn ahead(&self) -> i64 {
        let Some((clock, at)) = seam::lock("postgres.server", &self.seen).clock else { return 0 };
        let there = clock + seam::instant().saturating_duration_since(at).as_secs_f64();
        let here = seam::wall().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        (there - here).round() as i64
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub fn events(&self) -> Vec<String> {
        std::mem::take(&mut *seam::lock("postgres.events", &self.events))
    }
}

async fn text(client: &Client, sql: &str) -> Option<String> {
    let rows = client.simple_query(sql).await.ok()?;
    rows.into_iter().find_map(|row| match row {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}

impl Seat<'_> {
    #[allow(clippy::expect_used, reason = "taken by `keep` only, which consumes the seat")]
    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("a seat has a client")
    }

    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// For the next operation.
    pub fn keep(mut self) {
        if let Some(client) = self.client.take() {
            seam::lock("postgres.pool", &self.pool.idle).push(client);
        }
    }
}

/// The server, or what stands before it, has ended this connection: another one may do.
pub fn is_gone(error: &Error) -> bool {
    error.is_closed()
        || error.code().is_some_and(|code| {
            [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::IDLE_SESSION_TIMEOUT].contains(code)
                || code.code().starts_with("08")
        })
        || StdError::source(error).is_some_and(|source| source.is::<io::Error>())
}

/// Our TLS for the driver. No channel binding: the certificate is verified.
#[derive(Clone)]
struct Tls {
    config: Arc<ClientConfig>,
    /// The server was ready for TLS.
    was_reached: Arc<AtomicBool>,
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Encrypted;
    type TlsConnect = Handshake;
    type Error = rustls::pki_types::InvalidDnsNameError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, Self::Error> {
        // The driver asks also for a Unix socket, which has no name and needs no TLS.
        let name = if host.is_empty() { None } else { Some(ServerName::try_from(host)?.to_owned()) };
        Ok(Handshake { tls: self.clone(), name })
    }
}

struct Handshake {
    tls: Tls,
    name: Option<ServerName<'static>>,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            self.tls.was_reached.store(true, Ordering::Release);
            // A PostgreSQL that is asked for no ALPN gives none.
            let name = self.name.ok_or_else(|| io::Error::other("a socket has no name to verify"))?;
            TlsConnector::from(self.tls.config).connect(name, socket).await.map(Box::new).map(Encrypted)
        })
    }
}

struct Encrypted(Box<client::TlsStream<Socket>>);

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
