//! A scripted SMTP server on loopback, for tests.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
};

/// What the server does instead of its usual answer, when a line begins with a rule's word. `CONTENT` stands for the
/// first bytes of the message, `DOT` for its end, `GREETING` for the connection itself.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Say(String),
    SayAndClose(&'static str),
    Close,
    /// No answer, the connection stays open.
    Silence,
}

#[derive(Clone)]
pub(super) struct Script {
    pub(super) starttls: bool,
    pub(super) extensions: Vec<&'static str>,
    /// Each rule is used once.
    pub(super) rules: Vec<(&'static str, Act)>,
}

impl Script {
    pub(super) fn new(extensions: &[&'static str], rules: &[(&'static str, Act)]) -> Self {
        Self { starttls: false, extensions: extensions.to_vec(), rules: rules.to_vec() }
    }
}

pub(super) struct Fake {
    pub(super) port: u16,
    script: Arc<Mutex<Script>>,
    /// Lines as they came, content as one entry.
    seen: Arc<Mutex<Vec<String>>>,
}

/// The certificate of all fakes, and where a client finds it.
pub(super) struct Authority {
    config: Arc<ServerConfig>,
    file: tempfile::NamedTempFile,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(certificate.pem().as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(certificate.der().to_vec())],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        Self { config: Arc::new(config), file }
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }
}

impl Fake {
    pub(super) fn start(authority: &Authority, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(Mutex::new(script));
        let (config, log, shared) = (authority.config.clone(), seen.clone(), script.clone());
        thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let (config, script, log) = (config.clone(), shared.clone(), log.clone());
                thread::spawn(move || {
                    let _ = Session { script, log }.run(tcp, config);
                });
            }
        });
        Self { port, script, seen }
    }

    /// Adds a rule while the server runs.
    pub(super) fn then(&self, word: &'static str, act: Act) {
        self.script.lock().unwrap().rules.push((word, act));
    }

    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// How many lines began so.
    pub(super) fn count(&self, word: &str) -> usize {
        self.seen().iter().filter(|line| line.starts_with(word)).count()
    }

    /// The content of the messages that arrived, as it was on the wire (dots still stuffed).
    pub(super) fn contents(&self) -> Vec<String> {
        self.seen().iter().filter_map(|line| line.strip_prefix("CONTENT ").map(str::to_owned)).collect()
    }
}

trait Channel: Read + Write + Send {}
impl<T: Read + Write + Send> Channel for T {}

struct Session {
    script: Arc<Mutex<Script>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Session {
    fn run(&self, tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let secure = |tcp: TcpStream| -> Box<dyn Channel> {
            Box::new(StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), tcp))
        };
        let starttls = self.script.lock().unwrap().starttls;
        let mut channel = if starttls { Box::new(tcp.try_clone()?) } else { secure(tcp.try_clone()?) };
        self.answer(&mut channel, "GREETING", "220 fake ESMTP")?;
        let mut reader = BufReader::new(channel);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_owned();
            self.log.lock().unwrap().push(line.clone());
            let word = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let usual = match word.as_str() {
                "EHLO" => {
                    let lines: Vec<&str> = [&["fake"], self.script.lock().unwrap().extensions.as_slice()].concat();
                    let last = lines.len() - 1;
                    let reply: Vec<String> = lines
                        .iter()
                        .enumerate()
                        .map(|(i, line)| format!("250{}{line}", if i == last { ' ' } else { '-' }))
                        .collect();
                    reply.join("\r\n")
                }
                "STARTTLS" => {
                    self.answer(reader.get_mut(), &line, "220 go")?;
                    reader = BufReader::new(secure(tcp.try_clone()?));
                    continue;
                }
                "AUTH" => "235 2.7.0 welcome".to_owned(),
                "DATA" => {
                    let go = self.answer(reader.get_mut(), &line, "354 go on")?;
                    if go.starts_with("354") {
                        self.content(&mut reader)?;
                    }
                    continue;
                }
                "QUIT" => "221 bye".to_owned(),
                _ => "250 2.0.0 ok".to_owned(),
            };
            self.answer(reader.get_mut(), &line, &usual)?;
        }
    }

    fn content(&self, reader: &mut BufReader<Box<dyn Channel>>) -> io::Result<()> {
        if let Some(act) = self.rule("CONTENT") {
            let mut some = [0; 100];
            reader.read_exact(&mut some)?;
            return self.act(reader.get_mut(), act).map(drop);
        }
        let mut content = Vec::new();
        loop {
            let start = content.len();
            reader.read_until(b'\n', &mut content)?;
            if &content[start..] == b".\r\n" {
                content.truncate(start);
                break;
            }
            if content.len() == start {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.log.lock().unwrap().push(format!("CONTENT {}", String::from_utf8_lossy(&content)));
        self.answer(reader.get_mut(), "DOT", "250 2.0.0 Ok: queued as 4711").map(drop)
    }

    fn rule(&self, line: &str) -> Option<Act> {
        let rules = &mut self.script.lock().unwrap().rules;
        let at = rules.iter().position(|(word, _)| line.starts_with(word) && (!word.is_empty() || line.is_empty()))?;
        Some(rules.remove(at).1)
    }

    fn answer(&self, channel: &mut Box<dyn Channel>, line: &str, usual: &str) -> io::Result<String> {
        let act = self.rule(line).unwrap_or_else(|| Act::Say(usual.to_owned()));
        self.act(channel, act)
    }

    fn act(&self, channel: &mut Box<dyn Channel>, act: Act) -> io::Result<String> {
        let say = |channel: &mut Box<dyn Channel>, text: &str| {
            channel.write_all(format!("{text}\r\n").as_bytes())?;
            channel.flush()
        };
        match act {
            Act::Say(text) => say(channel, &text).map(|()| text),
            Act::SayAndClose(text) => {
                say(channel, text)?;
                // Let the client read it before the connection is torn down.
                thread::sleep(Duration::from_millis(20));
                Err(io::ErrorKind::Other.into())
            }
            Act::Close => Err(io::ErrorKind::Other.into()),
            Act::Silence => Ok(String::new()),
        }
    }
}
