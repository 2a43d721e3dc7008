//! What is fuzzed, from where, and what must hold whatever comes.

use std::{
    io::{self, Read},
    ops::ControlFlow,
    time::Duration,
};

use oauth_mail_core::{
    clock::Deadline,
    hooks::{Handle, Plugin},
    limits,
    log::{self, Logger},
    message::{
        self,
        compose::{self, Compose},
        wire,
    },
    net::{Egress, Net},
    secret::Secret,
    settings::{self, Account, Action, Fetching, Sending, Since},
    transport::{
        Envelope, Inbox, Login, Raw, Transcript,
        ews::{soap, splitter::Splitter, sync_folder_items},
        feed::Feed,
        imap::{self, answer, framer},
        smtp::{self, reply::ReplyBuffer},
    },
};
use serde_json::json;
use tempfile::TempDir;

use super::{
    Target,
    hostile::Hostile,
    seeds::{
        EWS_WORDS, IMAP_WORDS, JSON_WORDS, MAIL_WORDS, SMTP_WORDS, ews_answers, form, imap_lines, messages, turns,
    },
};
use crate::{
    Error, Result,
    fixture::{STORE_KEY, parse},
};

/// One connection to a hostile server, from the greeting to the end.
const SESSION: Duration = Duration::from_millis(500);

/// Every target. Some hold a server or a store of their own.
pub fn all() -> Result<Vec<Target>> {
    Ok(vec![
        imap_framer(),
        imap_answer(),
        imap_session()?,
        ews_answer(),
        smtp_reply(),
        smtp_session()?,
        message_parse()?,
        message_wire(),
        message_compose()?,
        message_raw()?,
        settings_parse(),
        hook_requests()?,
        redirect()?,
        redaction(),
    ])
}

fn target(
    name: &'static str,
    words: &'static [&'static str],
    seeds: Vec<Vec<u8>>,
    run: impl FnMut(&[u8]) + 'static,
) -> Target {
    Target { name, seeds, words, max_len: 64 * 1024, run: Box::new(run) }
}

/// Gives its bytes in pieces, the way a network does.
struct Pieces<'a>(&'a [u8]);

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = (self.0.len() / 2).max(1).min(self.0.len()).min(into.len());
        into[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

fn imap_framer() -> Target {
    target("imap-framer", IMAP_WORDS, imap_lines(), |input| {
        let mut framer = framer::Framer::new(Pieces(input));
        let mut frame = framer::Frame::default();
        while framer.next(&mut frame).is_ok() {
            assert!(frame.line.ends_with(b"\r\n") && frame.line.len() <= oauth_mail_core::limits::IMAP_LINE_MAX);
            frame.display();
            answer::fetched(&frame.line);
        }
        assert!(framer.is_dead());
    })
}

fn imap_answer() -> Target {
    target("imap-answer", IMAP_WORDS, imap_lines(), |input| {
        let _ = answer::parse(input).is_some();
        answer::fetched(input);
        answer::body_literal(input);
        answer::bye(input);
        answer::meaning(&String::from_utf8_lossy(input));
        let mut text = input.to_vec();
        answer::to_ascii(&mut text);
        assert!(text.is_ascii());
    })
}

fn imap_session() -> Result<Target> {
    let hostile = Hostile::start()?;
    let (account, net) = account(&hostile, "incoming")?;
    let seeds = vec![turns(&[
        "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] hello\r\n",
        "TAG OK [CAPABILITY IMAP4rev1 UIDPLUS MOVE] in\r\n",
        "* FLAGS (\\Seen)\r\n* 3 EXISTS\r\n* 0 RECENT\r\n* OK [UIDVALIDITY 7] .\r\n* OK [UIDNEXT 9] .\r\nTAG OK [READ-ONLY] done\r\n",
        "* 1 FETCH (UID 1 RFC822.SIZE 14)\r\n* 2 FETCH (UID 5 RFC822.SIZE 14)\r\n* 3 FETCH (UID 8 RFC822.SIZE 14)\r\nTAG OK done\r\n",
        "* 1 FETCH (UID 1 BODY[] {14}\r\nSubject: a\r\n\r\n)\r\n* 2 FETCH (UID 5 BODY[] \"\")\r\n* 3 FETCH (UID 8 BODY[] NIL)\r\nTAG OK done\r\n",
        "* 3 EXISTS\r\n* OK [UIDVALIDITY 7] .\r\nTAG OK [READ-WRITE] done\r\n",
        "* SEARCH 1 5 8\r\nTAG OK done\r\n",
        "TAG NO [TRYCREATE] no such folder\r\n",
        "TAG OK made\r\n",
        "* OK [COPYUID 3 1,5,8 1:3] .\r\nTAG OK moved\r\n",
    ])];
    Ok(target("imap-session", IMAP_WORDS, seeds, move |input| {
        hostile.say(input);
        let token = Secret::new("token");
        let login = Login { username: "alice@example.test", token: &token };
        let deadline = Deadline::after(SESSION);
        let opened = imap::open(&account, &net, &login, &Transcript::default(), &Logger::silent(), deadline);
        let Ok(mut inbox) = opened else { return };
        let inbox: &mut dyn Inbox = inbox.as_mut();
        let Ok(listing) = inbox.list("INBOX", None, Since::Everything, deadline) else { return };
        let mut handed = 0;
        let total = listing.entries.len();
        let read = inbox.read(&listing.entries, deadline, &mut |at, _| {
            assert_eq!(at, handed);
            handed += 1;
            ControlFlow::Continue(())
        });
        assert!(read.is_err() || read.is_ok_and(|count| count == total) && handed == total);
        let keys: Vec<_> = listing.entries.into_iter().map(|entry| entry.key).collect();
        if let Ok(found) = inbox.settle(&keys, &Action::Move { folder: "Done".into() }, deadline) {
            assert_eq!(found.len(), keys.len());
        }
    }))
}

fn ews_answer() -> Target {
    type Split = Option<(String, Vec<Option<Vec<u8>>>)>;
    fn split(parts: &[&[u8]]) -> Split {
        let mut splitter = Splitter::default();
        parts.iter().try_for_each(|part| splitter.put(part)).ok()?;
        let (text, contents) = splitter.end().ok()?;
        let bytes = |raw| match raw {
            Ok(Raw::Memory(bytes)) => Some(bytes),
            Ok(Raw::Spool { .. }) | Err(_) => None,
        };
        Some((text, contents.into_iter().map(bytes).collect()))
    }
    target("ews-answer", EWS_WORDS, ews_answers(), |input| {
        let whole = split(&[input]);
        for pieces in [1, 7, input.len() / 2 + 1] {
            assert_eq!(split(&input.chunks(pieces).collect::<Vec<_>>()), whole, "wherever the network cuts it");
        }
        let Some((text, _)) = whole else { return };
        let Some(document) = soap::parse(&text) else { return };
        let Some(soap::Body::Messages(messages)) = soap::body(&document) else { return };
        for message in messages.into_iter().flatten() {
            let mut feed = Feed::new(Since::Everything, 0);
            let is_taken = sync_folder_items::take(&mut feed, message).is_ok();
            assert_eq!(is_taken, feed.position.is_some());
            assert!(feed.open.keys().all(|id| !id.is_empty() && id.len() <= limits::EWS_ID_MAX));
        }
    })
}

fn smtp_reply() -> Target {
    let seeds = [
        "250 ok\r\n",
        "250-mx.example.test hello\r\n250-SIZE 1000\r\n250-AUTH XOAUTH2 OAUTHBEARER\r\n250 SMTPUTF8\r\n",
        "421 4.7.0 try again in 300 seconds\r\n",
        "334 eyJzdGF0dXMiOiI0MDEifQ==\r\n535 5.7.8 no\r\n",
    ];
    target("smtp-reply", SMTP_WORDS, seeds.map(|seed| seed.as_bytes().to_vec()).to_vec(), |input| {
        let mut stream = Pieces(input);
        let mut buffer = ReplyBuffer::default();
        while let Ok(reply) = buffer.read(&mut stream) {
            assert!(!reply.text().contains(['\r', '\n']));
            reply.retry_after();
            reply.says("queued");
            let _ = (reply.is_done(), reply.is_transient(), reply.lines().count());
        }
    })
}

fn smtp_session() -> Result<Target> {
    let hostile = Hostile::start()?;
    let (account, net) = account(&hostile, "outgoing")?;
    let start = [
        "220 mx.example.test ESMTP\r\n",
        "250-mx.example.test\r\n250-SIZE 100000\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 AUTH XOAUTH2 OAUTHBEARER\r\n",
        "235 2.7.0 in\r\n",
    ];
    let seeds = vec![
        turns(&[&start[..], &["250 ok\r\n250 ok\r\n354 go\r\n", "250 2.0.0 queued as 1\r\n", "221 bye\r\n"]].concat()),
        turns(&[&start[..], &["250 ok\r\n550 5.1.1 nobody\r\n554 no\r\n", "250 ok\r\n"]].concat()),
        turns(&[&start[..2], &["334 eyJzdGF0dXMiOiI0MDEifQ==\r\n", "535 5.7.8 no\r\n"]].concat()),
    ];
    let envelope = Envelope {
        from: Some("alice@example.test".parse().map_err(Error::doing("an address"))?),
        to: vec!["bob@example.test".parse().map_err(Error::doing("an address"))?],
    };
    Ok(target("smtp-session", SMTP_WORDS, seeds, move |input| {
        hostile.say(input);
        let token = Secret::new("token");
        let login = Login { username: "alice@example.test", token: &token };
        let deadline = Deadline::after(SESSION);
        let opened = smtp::open(&account, &net, &login, &Transcript::default(), &Logger::silent(), deadline);
        let Ok(mut outbox) = opened else { return };
        for _ in 0..2 {
            outbox.send(&envelope, b"Subject: x\r\n\r\n.\r\nbody\r\n", deadline, &mut || Ok(()));
        }
    }))
}

fn message_parse() -> Result<Target> {
    let fetching = fetching()?;
    Ok(target("message-parse", MAIL_WORDS, messages(), move |input| {
        let facts = message::parse(input);
        assert_eq!(facts.size, input.len() as u64);
        for listed in facts.attachments.iter().take(50) {
            let bytes = message::attachment(input, listed.part_index).map(|bytes| bytes.len() as u64);
            assert_eq!(bytes.ok(), Some(listed.size), "{listed:?}");
        }
        let document = parse(&message::describe(input, &fetching, &[], None, None));
        assert!(document["disposition"]["action"].is_string());
    }))
}

fn message_wire() -> Target {
    target("message-wire", MAIL_WORDS, messages(), |input| {
        let _ = wire::verify(input);
        let Ok(normal) = wire::normalise(input) else { return };
        assert!(wire::normalise(&normal).is_ok_and(|twice| twice == normal));
        let (fields, end) = wire::fields(&normal);
        assert!(end <= normal.len() && fields.iter().all(|field| field.range.end <= end));
        if wire::verify(&normal).is_ok() {
            assert_only_crlf(&normal);
        }
    })
}

fn message_compose() -> Result<Target> {
    let sending = sending()?;
    let seeds = [
        json!({"to": ["Bob <bob@example.test>", {"name": "Zoë, \"Z\"", "address": "zoe@bücher.test"}], "cc": ["c@x.test"],
               "bcc": ["d@x.test"], "subject": "Grüße\u{1F600}", "text": "hello\r\n.\r\n", "html": "<p>hello</p>",
               "attachments": [{"name": "a\u{e4}.pdf", "type": "application/pdf", "content_base64": "aGVsbG8="},
                               {"name": "i.png", "type": "image/png", "content_base64": "aGk=", "content_id": "i@x", "inline": true}],
               "in_reply_to": "<a@b.test>", "references": ["<a@b.test>", "c@d.test"], "reply_to": "r@x.test",
               "headers": [{"name": "X-Ticket", "value": "7"}], "auto_submitted": true}),
        json!({"to": ["bob@example.test"], "subject": "", "text": ""}),
    ];
    Ok(target("message-compose", JSON_WORDS, seeds.map(|seed| seed.to_string().into_bytes()).to_vec(), move |input| {
        let Ok(request) = serde_json::from_slice::<Compose>(input) else { return };
        if let Ok(composed) = compose::compose(&request, &sending, 1_800_000_000, "<id@example.test>") {
            assert_sendable(&composed.raw);
        }
    }))
}

fn message_raw() -> Result<Target> {
    let sending = sending()?;
    Ok(target("message-raw", MAIL_WORDS, messages(), move |input| {
        if let Ok(composed) = compose::accept_raw(input, None, &sending, 1_800_000_000, "<id@example.test>") {
            assert_sendable(&composed.raw);
        }
    }))
}

fn settings_parse() -> Target {
    let seeds = [
        form("incoming", 993, "/etc/ssl/certs/ca-certificates.crt"),
        form("outgoing", 465, "/etc/ssl/certs/ca-certificates.crt"),
        json!({"incoming": {"connection_protocol": "EWS", "authentication_type": "OAuth", "username": "a@x.test",
               "email_addresses": ["a@x.test"], "client_id": "c", "client_secret": {"env": "NOT_SET"},
               "redirect_url": "https://x.test/r", "advanced": {"provider": "microsoft365", "subject_tag": "[#{id}]"}}}),
    ];
    target("settings", JSON_WORDS, seeds.map(|seed| seed.to_string().into_bytes()).to_vec(), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Err(error) = settings::parse(text) {
            assert!(!error.faults().is_empty() && error.faults().iter().all(|fault| !fault.message.is_empty()));
        }
    })
}

/// Requests of all hooks, on handles without consent: what passes the parser ends at the missing grant.
fn hook_requests() -> Result<Target> {
    let mut host = Host::start()?;
    let seeds = [
        json!({"max_messages": 10, "max_bytes": 1000, "deadline_ms": 400}),
        json!({"results": {"alice@example.test/INBOX/7.42": "imported", "alice@example.test/A%2FB/7.43": "retry"}}),
        json!({"action": "status"}),
        json!({"action": "revoke", "deadline_ms": 300}),
        json!({"to": ["bob@example.test"], "subject": "s", "text": "t", "idempotency_key": "k", "deadline_ms": 300}),
        json!({"envelope": {"from": "", "to": ["bob@example.test"]}}),
    ];
    Ok(target("hook-requests", JSON_WORDS, seeds.map(|seed| seed.to_string().into_bytes()).to_vec(), move |input| {
        let text = String::from_utf8_lossy(input);
        host.reopen();
        for handle in [&host.incoming, &host.outgoing] {
            let _ = handle.fetch_batch(&text);
            let _ = handle.settle_batch(&text);
            let _ = handle.authenticate(&text);
            let _ = handle.send_message(&text, b"");
            let _ = handle.send_message(&text, b"Subject: x\r\n\r\nbody\r\n");
        }
    }))
}

/// What a browser is sent back with, to a consent that waits for it.
fn redirect() -> Result<Target> {
    let mut host = Host::start()?;
    let base = "http://127.0.0.1:40123/callback?";
    let seeds = [
        "code=abc&state=STATE&iss=https%3A%2F%2Flocalhost%3A1",
        "error=access_denied&error_description=The%20person%20said%20no&state=STATE",
        "error=server_error&state=STATE#fragment",
        "state=STATE&code=",
    ];
    let words = &[
        "code=",
        "state=STATE",
        "STATE",
        "&",
        "iss=",
        "error=",
        "%",
        "%00",
        "%0d%0a",
        "#",
        "?",
        "=",
        "+",
        "https://",
        "[",
        "@",
    ];
    let seeds = seeds.map(|seed| format!("{base}{seed}").into_bytes()).to_vec();
    Ok(target("redirect", words, seeds, move |input| {
        host.reopen();
        let started = host.incoming.authenticate("{\"action\":\"start\",\"deadline_ms\":500}").unwrap_or_default();
        let started = parse(&started);
        let url = url::Url::parse(started["authorize_url"].as_str().unwrap_or_default());
        let state = url
            .ok()
            .and_then(|url| url.query_pairs().find(|(name, _)| name == "state").map(|(_, state)| state.into_owned()));
        let state = state.expect("a state");
        let redirect = String::from_utf8_lossy(input).replace("STATE", &state);
        let request = json!({"action": "complete", "redirect": redirect, "deadline_ms": 500});
        let error = host.incoming.authenticate(&request.to_string()).expect_err("nobody answers at the token URL");
        assert!(!error.to_json().to_string().contains(&state), "the state stands in {error}");
    }))
}

fn redaction() -> Target {
    let seeds = [
        "C: a1 AUTHENTICATE XOAUTH2 dXNlcj1hQGIuYwFhdXRoPUJlYXJlciB0b2tlbgEB",
        "Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "{\"access_token\":\"ya29.a0Af\",\"refresh_token\":\"1//0g\",\"client_secret\":\"s\"}",
        "code=4/0AX&state=xyz&code_verifier=abc",
    ];
    let words =
        &["Bearer ", "Basic ", "token", "\"", "=", "&", ":", " ", "\u{e4}", "\u{1F600}", "AUTH ", "XOAUTH2 ", "code="];
    target("redaction", words, seeds.map(|seed| seed.as_bytes().to_vec()).to_vec(), |input| {
        log::redact(&String::from_utf8_lossy(input));
    })
}

/// Two handles over an empty store, and nobody to talk to.
struct Host {
    plugin: Plugin,
    ca_file: String,
    incoming: Handle,
    outgoing: Handle,
    cases: u64,
    _hostile: Hostile,
    _dir: TempDir,
}

impl Host {
    fn start() -> Result<Self> {
        let (hostile, dir) = (Hostile::start()?, tempfile::tempdir()?);
        let store = format!("sqlite:{}", dir.path().join("store.db").display());
        let config = json!({"store": store, "key": {"value": STORE_KEY}});
        let plugin = Plugin::new(&config.to_string(), Logger::silent()).map_err(Error::doing("a plugin"))?;
        let ca_file = hostile.ca_file.display().to_string();
        let (incoming, outgoing) = (open(&plugin, "incoming", &ca_file)?, open(&plugin, "outgoing", &ca_file)?);
        Ok(Self { plugin, ca_file, incoming, outgoing, cases: 0, _hostile: hostile, _dir: dir })
    }

    /// Now and then new handles, as a panic would have closed them without a word.
    fn reopen(&mut self) {
        self.cases += 1;
        if self.cases.is_multiple_of(500) {
            self.incoming = open(&self.plugin, "incoming", &self.ca_file).expect("the settings open");
            self.outgoing = open(&self.plugin, "outgoing", &self.ca_file).expect("the settings open");
        }
    }
}

fn open(plugin: &Plugin, direction: &str, ca_file: &str) -> Result<Handle> {
    // Port 1: nobody listens there.
    plugin.open(&form(direction, 1, ca_file).to_string()).map_err(Error::doing("settings"))
}

fn account(hostile: &Hostile, direction: &str) -> Result<(Account, Net)> {
    let form = form(direction, hostile.port, &hostile.ca_file.display().to_string());
    let account = settings::parse(&form.to_string()).map_err(Error::doing("settings"))?;
    let net = Net::new(account.ca_file.as_deref(), Egress::default()).map_err(Error::doing("TLS"))?;
    Ok((account, net))
}

fn fetching() -> Result<Fetching> {
    let account = settings::parse(&form("incoming", 993, "/x").to_string()).map_err(Error::doing("settings"))?;
    account.fetching.ok_or_else(|| Error::new("no fetching"))
}

fn sending() -> Result<Sending> {
    let account = settings::parse(&form("outgoing", 465, "/x").to_string()).map_err(Error::doing("settings"))?;
    account.sending.ok_or_else(|| Error::new("no sending"))
}

/// What goes over the wire, whoever wrote it.
fn assert_sendable(raw: &[u8]) {
    wire::verify(raw).expect("the finished message can be sent");
    assert_only_crlf(raw);
    let (fields, _) = wire::fields(raw);
    assert!(!fields.iter().any(|field| field.name.eq_ignore_ascii_case("bcc")), "Bcc is told to everybody");
}

fn assert_only_crlf(raw: &[u8]) {
    let mut before = 0;
    for (at, &byte) in raw.iter().enumerate() {
        assert!(byte != b'\n' || before == b'\r', "a bare LF at {at}");
        assert!(before != b'\r' || byte == b'\n', "a bare CR before {at}");
        assert!(byte != 0, "a NUL at {at}");
        before = byte;
    }
}
