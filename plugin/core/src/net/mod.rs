//! The one way out: name lookup, egress policy, TCP, TLS, HTTP. Nothing else in the library opens a connection.

mod connect;
pub mod egress;
pub mod http;
pub mod probe;
mod proxy;
pub mod stream;
pub mod tls;
mod wait;

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
    sync::{Arc, mpsc},
    thread,
};

use rustls::ClientConfig;

use crate::{
    clock::Deadline,
    error::{About, Error, Kind, Result},
    limits, machine, seam,
};

pub use connect::Silent;
pub use egress::Egress;
pub use http::Http;
pub use proxy::{NamedBy, Password, Proxy};
pub use stream::{Plain, Stream, TlsFacts};

/// Everything that an account needs to reach its servers. Cheap to clone.
#[derive(Clone)]
pub struct Net {
    tls: Arc<ClientConfig>,
    egress: Egress,
    http: Http,
    ca_file: Option<Arc<Path>>,
    proxy: Option<Proxy>,
}

impl Net {
    /// `ca_file`: a PEM bundle whose certificates are trusted in addition to the platform's roots.
    pub fn new(ca_file: Option<&Path>, egress: Egress) -> Result<Self> {
        let tls = tls::client_config(ca_file)?;
        let http = Http::new(tls.clone(), egress.clone())?;
        Ok(Self { tls, egress, http, ca_file: ca_file.map(Arc::from), proxy: None })
    }

    /// The same, through a proxy.
    pub fn through(self, proxy: Option<Proxy>) -> Self {
        Self { http: self.http.through(proxy.clone()), proxy, ..self }
    }

    /// The proxy through which this server is reached.
    pub fn proxy_for(&self, host: &str) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|proxy| proxy.is_for(host))
    }

    pub fn http(&self) -> &Http {
        &self.http
    }

    /// Opens a TLS connection (implicit TLS: IMAPS 993, SMTPS 465).
    pub fn connect_tls(&self, host: &str, port: u16, deadline: Deadline) -> Result<Stream> {
        let deadline = deadline.at_most(limits::CONNECT_TIMEOUT);
        self.connect(host, port, deadline)?.into_tls(&self.tls, host, deadline)
    }

    /// Opens a plain connection that is going to be upgraded by STARTTLS before anything secret is said.
    pub fn connect_plain(&self, host: &str, port: u16, deadline: Deadline) -> Result<Plain> {
        self.connect(host, port, deadline.at_most(limits::CONNECT_TIMEOUT))
    }

    /// Upgrades after the server agreed to STARTTLS. Nothing that was buffered before survives.
    pub fn upgrade(&self, plain: Plain, host: &str, deadline: Deadline) -> Result<Stream> {
        plain.into_tls(&self.tls, host, deadline.at_most(limits::CONNECT_TIMEOUT))
    }

    fn connect(&self, host: &str, port: u16, deadline: Deadline) -> Result<Plain> {
        if let Some(proxy) = self.proxy_for(host) {
            return proxy.connect(&self.egress, host, port, deadline);
        }
        let addresses = self.egress.permitted(host, resolve(host, port, deadline)?)?;
        deadline.check(&format!("a connection to {host}:{port}"))?;
        let connected = connect::race(&addresses, deadline).map_err(|silent| unreachable_error(host, port, silent))?;
        // Without it every small command waits for the peer's delayed ACK (40 ms).
        connected.tcp.set_nodelay(true).map_err(|e| cannot_connect(host, port, e))?;
        Ok(Plain::new(connected.tcp, connected.address, deadline))
    }
}

/// `getaddrinfo` knows no deadline: it runs on a thread of its own, and is left behind when it takes too long.
fn resolve(host: &str, port: u16, deadline: Deadline) -> Result<Vec<SocketAddr>> {
    seam::step("net.resolve").map_err(|e| not_found(host, e))?;
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    if let Ok(ip) = name.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("oauth-mail-dns".into())
        .stack_size(limits::RESOLVER_STACK)
        .spawn({
            let name = name.clone();
            move || {
                let _ = sender.send((name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>));
            }
        })
        .map_err(|e| machine::no_thread(&format!("The name {host} could not be looked up."), e))?;
    match receiver.recv_timeout(deadline.check(&format!("the address of {host}"))?) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(e)) => Err(not_found(host, e)),
        Err(_) => Err(Error::new(Kind::Transient, format!("The name lookup of {host} gave no answer in time."))
            .remedy("Check this machine's DNS.")),
    }
}

fn not_found(host: &str, e: std::io::Error) -> Error {
    // getaddrinfo answers "not found" when it could open no file.
    machine::or_else_now(&format!("The name {host} could not be looked up."), e, |e| {
        Error::new(Kind::Transient, format!("The name {host} could not be found."))
            .remedy("Check the server name and this machine's DNS.")
            .with_about(About::Connection)
            .source_error(e)
    })
}

/// What is wrong with this machine says more than what one address said.
fn unreachable_error(host: &str, port: u16, mut silent: Vec<Silent>) -> Error {
    let ours = silent.iter().position(|one| machine::Lack::of(&one.why).is_some());
    let told = ours.or(silent.len().checked_sub(1)).map(|at| silent.swap_remove(at).why);
    cannot_connect(host, port, told.unwrap_or_else(|| std::io::ErrorKind::TimedOut.into()))
}

fn cannot_connect(host: &str, port: u16, e: std::io::Error) -> Error {
    machine::or_else(&format!("{host}:{port} cannot be connected to."), e, |e| {
        Error::new(Kind::Transient, format!("{host}:{port} cannot be reached."))
            .remedy("Check the server name, the port and the firewall.")
            .with_about(About::Connection)
            .source_error(e)
    })
}
