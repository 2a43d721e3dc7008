use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use super::*;
use crate::{
    net::{Http, Net},
    oauth::tests_support::Idp,
};

/// What the proxy does with a CONNECT.
#[derive(Clone, Copy)]
enum Act {
    /// To this port of loopback, whatever the name.
    Tunnel(u16),
    Answer(&'static [u8]),
    Silence,
    Close,
}

struct Fake {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Fake {
    fn start(act: Act) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heads, stop) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let thread = thread::spawn({
            let (heads, stop) = (heads.clone(), stop.clone());
            move || {
                let mut kept = Vec::new();
                for tcp in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(tcp) = tcp else { continue };
                    kept.push(tcp.try_clone().unwrap());
                    let heads = heads.clone();
                    thread::spawn(move || serve(tcp, act, &heads));
                }
            }
        });
        Self { port, heads, stop, thread: Some(thread) }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

fn serve(tcp: TcpStream, act: Act, heads: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(tcp.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    heads.lock().unwrap().push(head);
    let mut tcp = tcp;
    match act {
        Act::Tunnel(port) => {
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            let _ = tcp.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
            let (mut from, mut to) = (server.try_clone().unwrap(), tcp.try_clone().unwrap());
            let back = thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
            let mut server = server;
            let _ = io::copy(&mut reader, &mut server);
            let _ = server.shutdown(Shutdown::Both);
            let _ = back.join();
        }
        Act::Answer(bytes) => {
            let _ = tcp.write_all(bytes);
            let _ = tcp.shutdown(Shutdown::Both);
        }
        Act::Silence => {
            let _ = io::copy(&mut reader, &mut io::sink());
        }
        Act::Close => {
            let _ = tcp.shutdown(Shutdown::Both);
        }
    }
}

fn proxy(url: &str, by: NamedBy) -> Proxy {
    Proxy::new(url, None, None, None, by).unwrap()
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(5))
}

fn get(http: &Http, url: &str) -> Result<u16> {
    http.get(&url.parse().unwrap(), None, soon()).map(|answer| answer.status)
}

#[test]
fn mail_and_https_go_through_the_proxy_and_tls_is_verified_inside_it() {
    let idp = Idp::new(|_| (404, String::new(), String::new()));
    let port = idp.base.rsplit(':').next().unwrap().parse().unwrap();
    let fake = Fake::start(Act::Tunnel(port));
    let net = idp.net().through(Some(proxy(&fake.url(), NamedBy::Mailbox)));
    let facts = net.connect_tls("localhost", port, soon()).unwrap().facts();
    assert_eq!(facts.proxy, Some(format!("127.0.0.1:{}", fake.port)));
    assert_eq!(facts.to_json()["proxy"], facts.proxy.unwrap());
    assert_eq!(get(net.http(), &format!("{}/x", idp.base)).unwrap(), 404, "the server's own answer");
    assert_eq!(get(&net.http().kept(2), &format!("{}/x", idp.base)).unwrap(), 404);
    let heads = fake.heads();
    assert_eq!(heads.len(), 3);
    for head in &heads {
        assert!(head.starts_with(&format!("CONNECT localhost:{port} HTTP/1.1\r\n")), "{head}");
        assert!(!head.to_ascii_lowercase().contains("proxy-authorization"), "{head}");
    }
    // The tunnel ends at a server whose certificate is for another name.
    for error in [
        net.connect_tls("imap.other.invalid", 993, soon()).map(drop).unwrap_err(),
        get(net.http(), "https://login.other.invalid/").map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::AdminRequired, "{error}");
        assert!(error.message().contains("certificate"), "{error}");
    }
}

#[test]
fn no_proxy_is_direct() {
    let idp = Idp::new(|_| (404, String::new(), String::new()));
    let fake = Fake::start(Act::Close);
    let proxy = Proxy::new(&fake.url(), None, None, Some("localhost"), NamedBy::Environment).unwrap();
    let net = idp.net().through(Some(proxy));
    assert_eq!(get(net.http(), &format!("{}/x", idp.base)).unwrap(), 404);
    assert!(fake.heads().is_empty());
}

#[test]
fn the_password_is_read_at_each_use_and_sent_to_the_proxy_alone() {
    let idp = Idp::new(|_| (404, String::new(), String::new()));
    let port = idp.base.rsplit(':').next().unwrap().parse().unwrap();
    let fake = Fake::start(Act::Tunnel(port));
    let now = Arc::new(Mutex::new("first"));
    let password: Password = Arc::new({
        let now = now.clone();
        move || Ok(Some(Secret::new(*now.lock().unwrap())))
    });
    let proxy = Proxy::new(&fake.url(), Some("an:na@x".into()), Some(password), None, NamedBy::Mailbox);
    // RFC 7617 forbids a colon in a user; what the person typed is sent, and the proxy judges it.
    let net = idp.net().through(Some(proxy.unwrap()));
    for word in ["first", "second"] {
        *now.lock().unwrap() = word;
        get(net.http(), &format!("{}/x", idp.base)).unwrap();
        net.connect_tls("localhost", port, soon()).unwrap();
        let expected = BASE64_STANDARD.encode(format!("an:na@x:{word}"));
        for head in fake.heads().iter().rev().take(2) {
            assert!(head.contains(&format!("Basic {expected}\r\n")), "{head}");
        }
    }
    assert!(idp.all_asked().iter().all(|asked| asked.authorization.is_none()), "it stays with the proxy");
    let gone: Password = Arc::new(|| Err("The file /gone cannot be read (entity not found)".into()));
    let proxy = Proxy::new(&fake.url(), Some("anna".into()), Some(gone), None, NamedBy::Mailbox).unwrap();
    let net = idp.net().through(Some(proxy));
    for error in [
        net.connect_tls("localhost", port, soon()).map(drop).unwrap_err(),
        get(net.http(), &idp.base).map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::AdminRequired);
        assert!(error.message().contains("/gone"), "{error}");
    }
}

#[test]
fn what_the_proxy_refuses_names_the_proxy_and_who_acts_where() {
    let answers: [(&'static [u8], Kind, &str); 8] = [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", Kind::AdminRequired, "asks for a user"),
        (b"HTTP/1.1 403 Filtered\r\nContent-Length: 2\r\n\r\nno", Kind::AdminRequired, "does not allow"),
        (b"HTTP/1.0 405 No\r\n\r\n", Kind::AdminRequired, "does not allow"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", Kind::Transient, "cannot connect to"),
        (b"HTTP/1.1 503 x\r\n\r\n", Kind::Transient, "cannot connect to"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 504 x\r\n\r\n", Kind::Transient, "cannot connect to"),
        (b"* OK IMAP4rev1\r\n", Kind::ServerMisbehaved, "is not an HTTP proxy"),
        (b"HTTP/1.1 2", Kind::ServerMisbehaved, "is not an HTTP proxy"),
    ];
    for (answer, kind, words) in answers {
        let fake = Fake::start(Act::Answer(answer));
        for (by, place) in [(NamedBy::Mailbox, "advanced › Proxy"), (NamedBy::Environment, "HTTPS_PROXY")] {
            let net = Net::new(None, Egress::default()).unwrap().through(Some(proxy(&fake.url(), by)));
            let errors = [
                net.connect_tls("imap.test.invalid", 993, soon()).map(drop).unwrap_err(),
                get(net.http(), "https://login.test.invalid/").map(drop).unwrap_err(),
            ];
            for error in errors {
                let said = String::from_utf8_lossy(answer);
                // No server has answered: nothing may take the status of the proxy for its own.
                assert_eq!((error.kind(), error.status()), (kind, None), "{said}: {error}");
                assert_eq!((error.who_acts(), error.about()), (Who::HelpdeskAdministrator, About::Connection));
                assert!(error.message().contains(words), "{said}: {error}");
                assert!(error.message().contains(&format!("127.0.0.1:{}", fake.port)), "{error}");
                assert!(error.remedy_text().unwrap().contains(place), "{said}: {error}");
            }
        }
    }
}

#[test]
fn a_proxy_that_is_not_there_closes_or_is_silent_is_named_in_time() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let (silent, closing) = (Fake::start(Act::Silence), Fake::start(Act::Close));
    for port in [closed, silent.port, closing.port] {
        let proxy = proxy(&format!("http://127.0.0.1:{port}"), NamedBy::Mailbox);
        let net = Net::new(None, Egress::default()).unwrap().through(Some(proxy));
        let short = || Deadline::after(Duration::from_millis(900));
        let begun = Instant::now();
        let by_mail = net.connect_tls("imap.test.invalid", 993, short()).map(drop).unwrap_err();
        let https = "https://login.test.invalid/".parse().unwrap();
        let by_http = net.http().get(&https, None, short()).map(drop).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        for error in [by_mail, by_http] {
            assert_eq!(error.kind(), Kind::Transient, "{error}");
            assert!(error.message().contains(&format!("proxy 127.0.0.1:{port}")), "{error}");
        }
    }
}

#[test]
fn egress_rules_hold_behind_the_proxy() {
    let fake = Fake::start(Act::Answer(b"HTTP/1.1 502 x\r\n\r\n"));
    let strict = || Net::new(None, Egress { deny_private_networks: true }).unwrap();
    let by = |net: Net, named_by| net.through(Some(proxy(&fake.url(), named_by)));
    let kinds = |net: &Net, host: &str| {
        let of = |done: Result<()>| done.unwrap_err().kind();
        let shown = in_url(host);
        [of(net.connect_tls(host, 993, soon()).map(drop)), of(get(net.http(), &format!("https://{shown}/")).map(drop))]
    };
    // The operator's proxy is on loopback, and is allowed; private addresses and names of them are not.
    for named_by in [NamedBy::Configuration, NamedBy::Environment] {
        let net = by(strict(), named_by);
        for host in ["10.1.2.3", "localhost", "::1", "169.254.169.254"] {
            assert_eq!(kinds(&net, host), [Kind::Refused; 2], "{host}");
        }
        assert!(fake.heads().is_empty(), "nothing was asked of the proxy");
        assert_eq!(kinds(&net, "only.proxy.invalid"), [Kind::Transient; 2], "the proxy's to judge");
        assert!(!fake.heads().is_empty());
        fake.heads.lock().unwrap().clear();
    }
    // A mailbox cannot make a private address its proxy, and no proxy leads to a metadata service.
    assert_eq!(kinds(&by(strict(), NamedBy::Mailbox), "only.proxy.invalid"), [Kind::Refused; 2]);
    let lenient = by(Net::new(None, Egress::default()).unwrap(), NamedBy::Mailbox);
    assert_eq!(kinds(&lenient, "169.254.169.254"), [Kind::Refused; 2]);
    assert!(fake.heads().is_empty());
}

#[test]
fn not_a_byte_after_the_head_of_the_proxy_is_lost() {
    let fake = Fake::start(Act::Answer(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n220 smtp.test ready\r\n"));
    let net = Net::new(None, Egress::default()).unwrap().through(Some(proxy(&fake.url(), NamedBy::Mailbox)));
    let mut greeting = String::new();
    net.connect_plain("smtp.test.invalid", 587, soon()).unwrap().read_to_string(&mut greeting).unwrap();
    assert_eq!(greeting, "220 smtp.test ready\r\n");
}
