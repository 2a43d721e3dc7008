//! What every SMTP server is walked through: what arrived is compared byte for byte with what was to be sent.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use oauth_mail_core::hooks::{Handle, Plugin};
use oauth_mail_sandbox::{Config, Sandbox};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    Step, Tally, same,
    smtp_servers::{LARGEST, SmtpServer},
};
use crate::{
    Error, Result,
    ca::Ca,
    fixture::{self, STORE_KEY, parse},
    sandboxed::{self, Protocol},
};

/// From the last 250 to the file: Exim delivers in a process of its own, OpenSMTPD relays.
const ARRIVES: Duration = Duration::from_secs(20);

struct Walk {
    sandbox: Sandbox,
    server: SmtpServer,
    store: TempDir,
    _folder: TempDir,
}

pub fn walk_as_root(start: fn(&Path, &Ca) -> Result<SmtpServer>, tally: &mut Tally) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return walk(start, tally);
    }
    tally.skip("all", "this server wants to be started as root");
    Ok(())
}

pub fn walk(start: fn(&Path, &Ca) -> Result<SmtpServer>, tally: &mut Tally) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("om").tempdir_in("/tmp")?;
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let sandbox = Sandbox::start(Config::default())?;
    let certificates = sandbox.ca_file.parent().unwrap_or(&sandbox.ca_file);
    let ca = Ca {
        ca_file: sandbox.ca_file.clone(),
        server_certificate: certificates.join("server.pem"),
        server_key: certificates.join("server.key"),
    };
    let server = start(folder.path(), &ca)?;
    tally.notes.extend(server.note.map(str::to_owned));
    let store = tempfile::Builder::new().prefix("om-store").tempdir()?;
    Walk { sandbox, server, store, _folder: folder }.all(tally)
}

impl Walk {
    fn all(&self, tally: &mut Tally) -> Result<()> {
        let plugin = self.plugin()?;
        let handle = self.open(&plugin)?;
        for (name, raw) in raw_messages() {
            tally.step(name, || self.arrives_as_it_is(&handle, &raw));
        }
        tally.step("one MiB attached, whole", || self.attachment(&handle));
        tally.step("nobody sees who had a blind copy", || self.blind_copy(&handle));
        tally.step("a refused recipient is named, and costs the others nothing", || {
            let before = self.server.arrived("bob").len();
            let answer = self.send(
                &handle,
                &json!({"to": ["nobody@example.test", "bob@example.test"],
                "subject": "some", "text": "x"}),
            )?;
            same("outcome", answer["outcome"].as_str(), Some("sent"))?;
            same("refused", answer["refused"][0]["address"].as_str(), Some("nobody@example.test"))?;
            self.newest("bob", before).map(|_| Step::Passed)
        });
        tally.step("when all are refused it is rejected, and the connection goes on", || {
            let answer = self.send(&handle, &json!({"to": ["nobody@example.test"], "subject": "x", "text": "x"}))?;
            same("outcome", answer["outcome"].as_str(), Some("rejected"))?;
            self.arrives_as_it_is(&handle, b"From: <alice@example.test>\r\nSubject: after a refusal\r\n\r\nx\r\n")
        });
        tally.step("who is put off is tried again", || {
            if !self.server.puts_off {
                return Ok(Step::Skipped("its configuration knows no such answer".into()));
            }
            let answer = self.send(&handle, &json!({"to": ["later@example.test"], "subject": "x", "text": "x"}))?;
            same("outcome", answer["outcome"].as_str(), Some("retry")).map(|()| Step::Passed)
        });
        tally.step("too large for this server is refused as that", || {
            let raw = [b"Subject: large\r\n\r\n".to_vec(), b"0123456789abcdef\r\n".repeat(LARGEST / 16)].concat();
            let answer = self.send_raw(&handle, &["bob@example.test"], &raw)?;
            same("outcome", answer["outcome"].as_str(), Some("rejected"))?;
            same("kind", answer["error"]["kind"].as_str(), Some("too_large"))?;
            self.arrives_as_it_is(&handle, b"From: <alice@example.test>\r\nSubject: after a large one\r\n\r\nx\r\n")
        });
        tally.step("an address outside ASCII", || {
            let before = self.server.arrived("jürgen").len();
            let answer =
                self.send(&handle, &json!({"to": ["jürgen@example.test"], "subject": "Grüße", "text": "x"}))?;
            if answer["outcome"] == "rejected" {
                let message = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
                return Ok(Step::Skipped(format!("refused with a sentence: {message}")));
            }
            same("outcome", answer["outcome"].as_str(), Some("sent"))?;
            self.newest("jürgen", before).map(|_| Step::Passed)
        });
        tally.step("the same key twice is one message", || {
            let before = self.server.arrived("carol").len();
            let request =
                json!({"to": ["carol@example.test"], "subject": "once", "text": "x", "idempotency_key": "once"});
            let first = self.send(&handle, &request)?;
            same("again", self.send(&handle, &request)?, first)?;
            self.newest("carol", before)?;
            same("copies", self.server.arrived("carol").len(), before + 1).map(|()| Step::Passed)
        });
        tally.step("diagnose finds all well", || {
            let answer =
                fixture::authenticate(&handle, json!({"action": "diagnose"})).map_err(Error::doing("diagnose"))?;
            same(&format!("healthy ({})", answer["summary"]), answer["healthy"].as_bool(), Some(true))?;
            Ok(Step::Passed)
        });
        same("the server runs", self.server.is_running(), true)
    }

    /// Below the trace fields that servers put above it (RFC 5321 section 4.4).
    fn arrives_as_it_is(&self, handle: &Handle, raw: &[u8]) -> Result<Step> {
        let before = self.server.arrived("bob").len();
        let answer = self.send_raw(handle, &["bob@example.test"], raw)?;
        same(&format!("outcome ({})", answer["error"]), answer["outcome"].as_str(), Some("sent"))?;
        let arrived = self.newest("bob", before)?;
        let (arrived, mut expected) = (in_lines(&arrived), in_lines(raw));
        if expected.last() != Some(&b'\n') {
            // The end of the content is a line of its own.
            expected.push(b'\n');
        }
        let place = arrived.len().checked_sub(expected.len()).filter(|place| arrived[*place..] == expected[..]);
        let Some(place) = place else {
            let tail = |bytes: &[u8]| String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(300)..]).into_owned();
            return Err(Error::new(format!("{:?} instead of {:?}", tail(&arrived), tail(&expected))));
        };
        let above = String::from_utf8_lossy(&arrived[..place]).to_lowercase();
        let is_trace = |line: &str| {
            let fields = ["received:", "return-path:", "x-peer:", "x-mailfrom:", "x-rcptto:", "message-id:", "date:"];
            line.starts_with([' ', '\t']) || fields.iter().any(|field| line.starts_with(field))
        };
        same("above the message", above.lines().find(|line| !is_trace(line)), None)?;
        Ok(Step::Passed)
    }

    fn attachment(&self, handle: &Handle) -> Result<Step> {
        let content: Vec<u8> =
            (0..1_u32 << 20).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let before = self.server.arrived("dave").len();
        let request = json!({"to": ["dave@example.test"], "subject": "a file", "text": "See.",
            "attachments": [{"name": "noise.bin", "type": "application/octet-stream", "content_base64": base64(&content)}]});
        let answer = self.send(handle, &request)?;
        same(&format!("outcome ({})", answer["error"]), answer["outcome"].as_str(), Some("sent"))?;
        let arrived = self.newest("dave", before)?;
        let text: String = String::from_utf8_lossy(&arrived).split_whitespace().collect();
        same("the file", text.contains(&base64(&content)), true)?;
        Ok(Step::Passed)
    }

    fn blind_copy(&self, handle: &Handle) -> Result<Step> {
        let before = (self.server.arrived("bob").len(), self.server.arrived("carol").len());
        let raw = b"Subject: blind\r\nTo: <bob@example.test>\r\nBcc: <carol@example.test>\r\n\r\nx\r\n";
        let answer = self.send_raw(handle, &["bob@example.test", "carol@example.test"], raw)?;
        same("outcome", answer["outcome"].as_str(), Some("sent"))?;
        for arrived in [self.newest("bob", before.0)?, self.newest("carol", before.1)?] {
            let text = String::from_utf8_lossy(&arrived).to_lowercase();
            same("a Bcc field", text.lines().any(|line| line.starts_with("bcc:")), false)?;
        }
        let request = json!({"to": ["bob@example.test"], "bcc": ["carol@example.test"], "subject": "b", "text": "x"});
        let before = (before.0 + 1, before.1 + 1);
        same("outcome", self.send(handle, &request)?["outcome"].as_str(), Some("sent"))?;
        for arrived in [self.newest("bob", before.0)?, self.newest("carol", before.1)?] {
            let (header, _) = split(&arrived);
            let fields = header.lines().filter(|line| !line.starts_with([' ', '\t', 'r', 'x', 'd']));
            same("named", fields.filter(|line| line.contains("carol")).count(), 0)?;
        }
        Ok(Step::Passed)
    }

    /// The one that came after `before` others.
    fn newest(&self, user: &str, before: usize) -> Result<Vec<u8>> {
        let end = Instant::now() + ARRIVES;
        loop {
            let arrived = self.server.arrived(user);
            if arrived.len() > before + 1 {
                return Err(Error::new(format!("{} came for {user} instead of one", arrived.len() - before)));
            }
            if arrived.len() == before + 1 {
                return self.server.newest(user);
            }
            if Instant::now() > end {
                return Err(Error::new(format!("nothing came for {user}")));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn send(&self, handle: &Handle, request: &Value) -> Result<Value> {
        let answer = handle.send_message(&request.to_string(), &[]).map_err(Error::doing("sending"))?;
        Ok(parse(&answer))
    }

    fn send_raw(&self, handle: &Handle, to: &[&str], raw: &[u8]) -> Result<Value> {
        let request = json!({"envelope": {"to": to}}).to_string();
        Ok(parse(&handle.send_message(&request, raw).map_err(Error::doing("sending"))?))
    }

    fn plugin(&self) -> Result<Plugin> {
        let store = format!("sqlite:{}", self.store.path().join("store.db").display());
        let config = json!({"store": store, "key": {"value": STORE_KEY}, "private_networks": "allow"});
        Plugin::new(&config.to_string(), oauth_mail_core::log::Logger::silent()).map_err(Error::doing("a plugin"))
    }

    fn open(&self, plugin: &Plugin) -> Result<Handle> {
        let mut settings = sandboxed::settings(&self.sandbox, Protocol::Imap, "alice", "outgoing");
        let form = &mut settings["outgoing"];
        form["port"] = json!(self.server.port);
        if self.server.is_smtps {
            form["protocol"] = json!("SMTPS");
            form.as_object_mut().map(|form| form.remove("enable_tls"));
        }
        form["client_id"] = json!("mail-app");
        form["client_secret"] = json!("mail-app-secret");
        form["scope"] = json!("https://outlook.office365.com/.default");
        form["advanced"]["grant"] = json!("client_credentials");
        let handle = plugin.open(&settings.to_string()).map_err(Error::doing("opening"))?;
        fixture::authenticate(&handle, json!({"action": "start"})).map_err(Error::doing("connecting"))?;
        Ok(handle)
    }
}

/// Messages that must not change on the way.
fn raw_messages() -> Vec<(&'static str, Vec<u8>)> {
    let mail = |body: &[u8]| [b"From: <alice@example.test>\r\nSubject: raw\r\n\r\n", body].concat();
    vec![
        ("a message arrives, byte for byte", mail(b"A line.\r\n")),
        ("lines of dots", mail(b".\r\n..\r\n.dot\r\n...\r\n\r\n.\r\n")),
        ("white space at the ends of lines", mail(b"one \r\ntwo\t\r\n   \r\n\r\n\r\n")),
        ("8 bits", mail("Grüße aus Köln, 日本語\r\n".as_bytes())),
        ("a line of 998 octets", mail(&[vec![b'x'; 998], b"\r\n".to_vec()].concat())),
        ("words of the protocol", mail(b"QUIT\r\nRSET\r\nMAIL FROM:<a@b>\r\nDATA\r\nFrom here\r\n>From there\r\n")),
        ("no body", b"From: <alice@example.test>\r\nSubject: none\r\n\r\n".to_vec()),
        ("no end of line at the end", mail(b"no end of line")),
        ("2 MB", mail(&b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(32_768))),
    ]
}

/// With the line ends of a file.
fn in_lines(bytes: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        if *byte != b'\r' || bytes.get(at + 1) != Some(&b'\n') {
            lines.push(*byte);
        }
    }
    lines
}

fn split(message: &[u8]) -> (String, Vec<u8>) {
    let lines = in_lines(message);
    let end = lines.windows(2).position(|pair| pair == b"\n\n").unwrap_or(lines.len());
    (String::from_utf8_lossy(&lines[..end]).to_lowercase(), lines[end..].to_vec())
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
