//! Receives the one redirect of a consent on loopback (RFC 8252 section 7.3), answers it with a page, and closes.
//!
//! The page is sent only once the host knows what became of the consent: the person reads the truth in the window in
//! which they consented.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use url::{Host, Url};

use crate::{
    failure::{Failure, Result},
    interrupt,
};

/// Microsoft's codes reach 2 KB; more than this is not a redirect.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// One request, from connect to its last header line.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Browsers open a few connections ahead of need and ask for an icon.
const CONNECTIONS_MAX: usize = 16;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

pub struct Listener {
    sockets: Vec<TcpListener>,
    redirect: Url,
}

impl Listener {
    /// Listens where `redirect` points to; `None` when that is not this machine.
    ///
    /// The port is the one in the settings, because the provider was told it; `http://127.0.0.1/…` means port 80.
    pub fn bind(redirect: &Url) -> Result<Option<Self>> {
        let addresses: Vec<IpAddr> = match redirect.host() {
            Some(Host::Ipv4(ip)) if ip.is_loopback() => vec![ip.into()],
            Some(Host::Ipv6(ip)) if ip.is_loopback() => vec![ip.into()],
            // A browser may try either; never the wildcard address, which the network can reach.
            Some(Host::Domain("localhost")) => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            _ => return Ok(None),
        };
        if redirect.scheme() != "http" {
            return Ok(None);
        }
        let port = redirect.port_or_known_default().unwrap_or(80);
        let bound: Vec<io::Result<TcpListener>> =
            addresses.into_iter().map(|ip| bind_one(SocketAddr::new(ip, port))).collect();
        // Without IPv6 one of two is enough.
        let mut refusal = None;
        let mut sockets = Vec::new();
        for result in bound {
            match result {
                Ok(socket) => sockets.push(socket),
                Err(error) => refusal = Some(error),
            }
        }
        match (sockets.is_empty(), refusal) {
            (true, Some(error)) => Err(Failure::other(format!(
                "Port {port} of the Redirect URL {redirect} cannot be listened on: {error}. Stop the program that uses \
                 it, or choose another port in the settings and at the provider."
            ))),
            _ => Ok(Some(Self { sockets, redirect: redirect.clone() })),
        }
    }

    /// The redirect, or a failure after `patience` or Ctrl-C.
    pub fn wait(self, patience: Duration) -> Result<Redirected> {
        let end = Instant::now() + patience;
        let (sender, receiver) = mpsc::channel();
        let serving = Arc::new(AtomicUsize::new(0));
        loop {
            interrupt::check()?;
            if Instant::now() >= end {
                return Err(Failure::Consent(format!(
                    "Nobody came back from the provider within {} seconds. Open the link again and consent there.",
                    patience.as_secs()
                )));
            }
            for stream in self.sockets.iter().filter_map(|socket| socket.accept().ok()).map(|(stream, _)| stream) {
                if serving.load(Ordering::SeqCst) < CONNECTIONS_MAX {
                    serve(stream, &self.redirect, &sender, &serving);
                }
            }
            if let Ok(redirected) = receiver.recv_timeout(LOOK_AGAIN) {
                return Ok(redirected);
            }
        }
    }
}

/// The person is back, and waits in front of an empty page.
pub struct Redirected {
    /// The whole redirect URL, as `authenticate` takes it.
    pub url: Url,
    stream: TcpStream,
}

impl Redirected {
    /// Shows the person what became of it.
    pub fn answer(mut self, title: &str, text: &str) {
        respond(&mut self.stream, "200 OK", title, text);
    }
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// On its own thread: a connection that says nothing must not hold up the one that does.
fn serve(mut stream: TcpStream, redirect: &Url, sender: &Sender<Redirected>, serving: &Arc<AtomicUsize>) {
    serving.fetch_add(1, Ordering::SeqCst);
    let (redirect, sender, serving) = (redirect.clone(), sender.clone(), serving.clone());
    thread::spawn(move || {
        let target = read_head(&mut stream).and_then(|head| target_of(&head));
        match target.map(|target| redirected_to(&redirect, &target)) {
            Some(Some(url)) => {
                // Refused only when another redirect was faster.
                let _ = sender.send(Redirected { url, stream });
            }
            Some(None) => respond(&mut stream, "404 Not Found", "Nothing here", "This page only receives a sign-in."),
            None => respond(&mut stream, "400 Bad Request", "Not understood", "This page only receives a sign-in."),
        }
        serving.fetch_sub(1, Ordering::SeqCst);
    });
}

/// Up to the empty line, within the limits of time and size.
fn read_head(stream: &mut TcpStream) -> Option<String> {
    stream.set_nonblocking(false).ok()?;
    let end = Instant::now() + HEAD_TIMEOUT;
    let mut head = Vec::new();
    let mut part = [0; 2048];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || head.len() > HEAD_BYTES_MAX {
            return None;
        }
        stream.set_read_timeout(Some(left)).ok()?;
        match stream.read(&mut part).ok()? {
            0 => return None,
            read => head.extend_from_slice(&part[..read]),
        }
    }
    String::from_utf8(head).ok()
}

/// The target of a GET in origin-form (RFC 9112 section 3.2.1).
fn target_of(head: &str) -> Option<String> {
    let mut words = head.lines().next()?.split(' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some("GET"), Some(target), Some(version), None)
            if target.starts_with('/') && version.starts_with("HTTP/1.") =>
        {
            Some(target.to_owned())
        }
        _ => None,
    }
}

/// The whole URL when the target is the redirect URL with an answer of the authorization endpoint (RFC 6749 4.1.2).
fn redirected_to(redirect: &Url, target: &str) -> Option<Url> {
    let (path, query) = target.split_once('?')?;
    if path != redirect.path() {
        return None;
    }
    let mut url = redirect.clone();
    url.set_query(Some(query));
    let answers = url
        .query_pairs()
        .any(|(name, value)| matches!(&*name, "code" | "error" | "admin_consent") && !value.is_empty());
    answers.then_some(url)
}

fn respond(stream: &mut TcpStream, status: &str, title: &str, text: &str) {
    let (title, text) = (escaped(title), escaped(text));
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1rem}}</style>\
         <h1>{title}</h1><p>{text}</p>"
    );
    // The URL of this page holds a code: it is neither kept nor told to anybody.
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\
         Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n\
         Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n\r\n{page}",
        page.len()
    );
    let _ = stream.set_write_timeout(Some(HEAD_TIMEOUT));
    let _ = stream.write_all(answer.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_redirect_is_received_and_answered_after_the_host_knows() {
        let (listener, redirect) = listener();
        let port = redirect.port().unwrap();
        let person = thread::spawn(move || get(port, "/callback?code=a%2Bb&state=s&iss=https%3A%2F%2Fidp"));
        let redirected = listener.wait(Duration::from_secs(10)).unwrap();
        assert_eq!(redirected.url.as_str(), format!("{redirect}?code=a%2Bb&state=s&iss=https%3A%2F%2Fidp"));
        redirected.answer("Connected", "<script>");
        let page = person.join().unwrap();
        assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
        assert!(page.contains("Connected") && page.contains("&lt;script&gt;"), "{page}");
    }

    #[test]
    fn icons_other_paths_and_silence_do_not_end_the_wait() {
        let (listener, redirect) = listener();
        let port = redirect.port().unwrap();
        let browser = thread::spawn(move || {
            let silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
            assert!(get(port, "/favicon.ico").starts_with("HTTP/1.1 404"));
            assert!(get(port, "/other?code=x").starts_with("HTTP/1.1 404"));
            assert!(get(port, "/callback?state=only").starts_with("HTTP/1.1 404"));
            let page = get(port, "/callback?error=access_denied&state=s");
            drop(silent);
            page
        });
        let redirected = listener.wait(Duration::from_secs(60)).unwrap();
        assert!(redirected.url.as_str().ends_with("?error=access_denied&state=s"));
        redirected.answer("No", "no");
        assert!(browser.join().unwrap().starts_with("HTTP/1.1 200"));
    }

    #[test]
    fn an_endless_request_is_cut() {
        let (listener, redirect) = listener();
        let port = redirect.port().unwrap();
        let flood = thread::spawn(move || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let _ = stream.write_all(&vec![b'a'; 2 * HEAD_BYTES_MAX]);
            let started = Instant::now();
            // An answer or a reset, both before the time for a whole request is over.
            let _ = stream.read_to_end(&mut Vec::new());
            started.elapsed()
        });
        let failure = listener.wait(Duration::from_secs(2)).err().unwrap();
        assert_eq!(failure.exit_code(), 3);
        assert!(flood.join().unwrap() < HEAD_TIMEOUT, "the connection must have been closed for its size");
    }

    #[test]
    fn only_loopback_is_listened_on() {
        for url in ["https://127.0.0.1:1/callback", "http://desk.example.com/callback", "http://0.0.0.0:8400/callback"]
        {
            assert!(Listener::bind(&url.parse().unwrap()).unwrap().is_none(), "{url}");
        }
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://127.0.0.1:{}/callback", taken.local_addr().unwrap().port());
        let failure = Listener::bind(&url.parse().unwrap()).err().unwrap();
        assert!(failure.sentences()[0].contains("choose another port"), "{failure:?}");
    }

    fn listener() -> (Listener, Url) {
        let socket = bind_one("127.0.0.1:0".parse().unwrap()).unwrap();
        let redirect: Url =
            format!("http://127.0.0.1:{}/callback", socket.local_addr().unwrap().port()).parse().unwrap();
        (Listener { sockets: vec![socket], redirect: redirect.clone() }, redirect)
    }

    fn get(port: u16, target: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n").unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }
}
