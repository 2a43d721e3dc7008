//! A few connections to PostgreSQL, each used by one operation at a time. Nothing is kept in a session: behind a pooler
//! in transaction mode every transaction may meet another server process.

use std::{
    error::Error as StdError,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Semaphore, SemaphorePermit},
};
use tokio_postgres::{
    Client, Error, Socket,
    config::Config,
    error::SqlState,
    tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream},
};
use tokio_rustls::{TlsConnector, client};

use crate::{limits, seam};

pub struct Pool {
    config: Config,
    tls: Tls,
    idle: Mutex<Vec<Client>>,
    permits: Semaphore,
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
        Self { config, tls: Tls(tls), idle, permits }
    }

    /// A connection on which `first` was executed. One that died while it was idle is replaced: `first` is the only
    /// statement that is ever sent twice, and must bear it.
    pub async fn begin(&self, first: &str) -> Result<Seat<'_>, Error> {
        loop {
            let seat = self.seat().await?;
            match seat.client().batch_execute(first).await {
                Ok(()) => return Ok(seat),
                Err(error) if !seat.is_new && is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// An idle connection or a new one.
    pub async fn seat(&self) -> Result<Seat<'_>, Error> {
        // The semaphore is never closed.
        let permit = self.permits.acquire().await.ok();
        let idle = self.pop();
        let is_new = idle.is_none();
        let client = match idle {
            Some(client) => client,
            None => self.connect().await?,
        };
        Ok(Seat { pool: self, client: Some(client), is_new, _permit: permit })
    }

    fn pop(&self) -> Option<Client> {
        let mut idle = seam::lock("postgres.pool", &self.idle);
        idle.retain(|client| !client.is_closed());
        idle.pop()
    }

    async fn connect(&self) -> Result<Client, Error> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        // It ends with the client, or with the network: then the client says so.
        tokio::spawn(connection);
        Ok(client)
    }
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
struct Tls(Arc<ClientConfig>);

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Encrypted;
    type TlsConnect = Handshake;
    type Error = rustls::pki_types::InvalidDnsNameError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, Self::Error> {
        // A PostgreSQL that is asked for no ALPN gives none.
        Ok(Handshake { config: self.0.clone(), name: ServerName::try_from(host)?.to_owned() })
    }
}

struct Handshake {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            TlsConnector::from(self.config).connect(self.name, socket).await.map(Box::new).map(Encrypted)
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
