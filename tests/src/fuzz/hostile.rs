//! A TLS server that says what it is told to, whoever asks whatever.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tempfile::TempDir;

use crate::{Error, Result, ca::Ca};

/// Between what is said at once and what is said after the client's next words.
pub const TURN: &str = "\n~~~\n";
/// In a script: the first word of what the client said last.
pub const TAG: &str = "TAG";
/// A client that says nothing for so long has nothing more to say.
const PATIENCE: Duration = Duration::from_millis(40);

pub struct Hostile {
    pub port: u16,
    pub ca_file: PathBuf,
    script: Arc<Mutex<Vec<u8>>>,
    _dir: TempDir,
}

impl Hostile {
    pub fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let ca = Ca::create(dir.path())?;
        let config = Arc::new(tls(&ca.server_certificate, &ca.server_key)?);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let script = Arc::<Mutex<Vec<u8>>>::default();
        // Ends with the process: it only waits for the next connection.
        thread::Builder::new().name("hostile".into()).spawn({
            let script = script.clone();
            move || {
                for tcp in listener.incoming().flatten() {
                    let script = script.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let _ = serve(tcp, &config, &script);
                }
            }
        })?;
        Ok(Self { port, ca_file: ca.ca_file, script, _dir: dir })
    }

    pub fn say(&self, script: &[u8]) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = script.to_vec();
    }
}

fn serve(tcp: TcpStream, config: &Arc<ServerConfig>, script: &[u8]) -> Result<()> {
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_write_timeout(Some(PATIENCE))?;
    let mut tls = StreamOwned::new(ServerConnection::new(config.clone()).map_err(Error::doing("TLS"))?, tcp);
    let mut buffer = [0; 1 << 16];
    let mut tag = Vec::new();
    for turn in split(script, TURN.as_bytes()) {
        tls.write_all(&replaced(turn, TAG.as_bytes(), &tag))?;
        tls.flush()?;
        let count = tls.read(&mut buffer)?;
        let line = buffer[..count].split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).unwrap_or_default();
        tag = line.split(|byte| matches!(byte, b' ' | b'\r')).next().unwrap_or_default().to_vec();
    }
    Ok(())
}

fn split<'a>(mut text: &'a [u8], by: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = text.windows(by.len()).position(|window| window == by) {
        parts.push(&text[..at]);
        text = &text[at + by.len()..];
    }
    parts.push(text);
    parts
}

fn replaced(text: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    split(text, what).join(with)
}

fn tls(certificate: &Path, key: &Path) -> Result<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(Error::doing("the certificate"))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(Error::doing("the key"))?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(Error::doing("TLS"))
}
