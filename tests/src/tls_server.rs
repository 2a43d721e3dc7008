//! A server on a port of loopback, with a certificate of the tests' authority: one thread for each connection, ended when
//! dropped. What it says is its owner's business.

use std::{
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustls::ServerConfig;

use crate::{Result, ca::Ca, strict_idp::tls_config};

pub struct TlsServer {
    pub port: u16,
    stop: Arc<AtomicBool>,
}

impl TlsServer {
    /// `serve` has each connection as it was accepted, before the handshake.
    pub fn start(ca: &Ca, serve: impl Fn(TcpStream, Arc<ServerConfig>) + Send + Sync + 'static) -> Result<Self> {
        let config = tls_config(ca)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let (stop, serve) = (Arc::new(AtomicBool::new(false)), Arc::new(serve));
        thread::spawn({
            let stop = stop.clone();
            move || {
                for tcp in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let (Ok(tcp), serve, config) = (tcp, serve.clone(), config.clone()) else { continue };
                    thread::spawn(move || serve(tcp, config));
                }
            }
        });
        Ok(Self { port, stop })
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes it, so that it sees.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}
