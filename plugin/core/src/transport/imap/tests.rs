//! The protocol against a scripted server on the other end of a socket pair.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    ops::ControlFlow,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{super::words, *};
use crate::{secret::Secret, transport::Raw};

struct Pair(UnixStream);

impl Read for Pair {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Pair {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Link for Pair {
    fn set_deadline(&mut self, deadline: Deadline) {
        let left = deadline.left().max(Duration::from_millis(1));
        self.0.set_read_timeout(Some(left)).unwrap();
    }
}

/// The server's side. Every method panics when the client says something else, and `Scripted::end` reports it.
struct Server {
    lines: BufReader<UnixStream>,
    tag: String,
}

impl Server {
    fn say(&mut self, text: &str) {
        self.lines.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// Reads one line; without line end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Reads one command and compares it, without its tag.
    fn expect(&mut self, command: &str) -> String {
        let line = self.line();
        let (tag, rest) = line.split_once(' ').unwrap_or((&line, ""));
        assert_eq!(rest, command);
        self.tag = tag.to_owned();
        self.tag.clone()
    }

    fn done(&mut self, status: &str) {
        let line = format!("{} {status}\r\n", self.tag);
        self.say(&line);
    }

    fn examine(&mut self, exists: u32, uidnext: Option<u32>) {
        self.enter("EXAMINE \"INBOX\"", exists, uidnext);
    }

    fn enter(&mut self, command: &str, exists: u32, uidnext: Option<u32>) {
        self.expect(command);
        let next = uidnext.map_or_else(String::new, |next| format!("* OK [UIDNEXT {next}] next\r\n"));
        self.say(&format!("* {exists} EXISTS\r\n* OK [ALERT]\u{e4}\r\n* OK [UIDVALIDITY 7] valid\r\n{next}"));
        self.done("OK done");
    }

    fn body(&mut self, uid: u32, text: &str) {
        self.say(&format!("* {uid} FETCH (UID {uid} BODY[] {{{}}}\r\n{text})\r\n", text.len()));
    }
}

struct Scripted(JoinHandle<()>);

impl Scripted {
    fn end(self) {
        if let Err(panic) = self.0.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

fn scripted(script: impl FnOnce(&mut Server) + Send + 'static) -> (Box<dyn Link>, Scripted) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let thread = thread::spawn(move || script(&mut Server { lines: BufReader::new(theirs), tag: String::new() }));
    (Box::new(Pair(ours)), Scripted(thread))
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

fn log_in(link: Box<dyn Link>, transcript: &Transcript, log: &Logger) -> Result<ImapInbox, OpenError> {
    let token = Secret::new("t0k-secret");
    let login = Login { username: "help@example.test", token: &token };
    let tls = TlsFacts {
        proxy: None,
        server: "localhost".into(),
        address: ([127, 0, 0, 1], 993).into(),
        version: "TLS 1.3".into(),
        cipher_suite: String::new(),
        certificate_sha256: String::new(),
    };
    let server = Endpoint { host: "localhost".into(), port: 993 };
    ImapInbox::log_in(link, tls, &server, None, &login, transcript, log, soon())
}

/// Logged in on a server with these capabilities, then `script`.
fn inbox(capabilities: &'static str, script: impl FnOnce(&mut Server) + Send + 'static) -> (ImapInbox, Scripted) {
    let (link, scripted) = scripted(move |server| {
        server.say("* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2 SASL-IR] hi\r\n");
        let line = server.line();
        assert!(line.starts_with("a1 AUTHENTICATE XOAUTH2 "), "{line}");
        server.say(&format!("a1 OK [CAPABILITY IMAP4rev1 {capabilities}] in\r\n"));
        script(server);
    });
    match log_in(link, &Transcript::default(), &Logger::silent()) {
        Ok(inbox) => (inbox, scripted),
        Err(OpenError::LoginRefused(error) | OpenError::Other(error)) => panic!("{error:?}"),
    }
}

fn refusal(script: impl FnOnce(&mut Server) + Send + 'static) -> (bool, Error) {
    let (link, scripted) = scripted(script);
    let result = log_in(link, &Transcript::default(), &Logger::silent());
    scripted.end();
    match result {
        Ok(_) => panic!("logged in"),
        Err(OpenError::LoginRefused(error)) => (true, error),
        Err(OpenError::Other(error)) => (false, error),
    }
}

fn entry(uid: u32, size: u64) -> Entry {
    Entry { key: Key { folder: "INBOX".into(), id: format!("7.{uid}") }, size, received_at: None }
}

/// Reads all and tells what became of each: its text, `gone`, or `failed: kind`.
fn read(inbox: &mut ImapInbox, entries: &[Entry], most: usize) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    inbox.read(entries, soon(), &mut |index, item| {
        assert_eq!(index, seen.len());
        seen.push(match item {
            Item::Read(Raw::Memory(bytes)) => String::from_utf8(bytes).unwrap(),
            Item::Read(Raw::Spool { len, .. }) => format!("spool {len}"),
            Item::Gone => "gone".into(),
            Item::LeftOut => "left out".into(),
            Item::Failed(error) => format!("failed: {}", error.kind().name()),
        });
        if seen.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(seen)
}

// base64 of the two initial responses for help@example.test and t0k-secret
const XOAUTH2: &str = "dXNlcj1oZWxwQGV4YW1wbGUudGVzdAFhdXRoPUJlYXJlciB0MGstc2VjcmV0AQE=";
const CHALLENGE: &str = "+ eyJzdGF0dXMiOiI0MDEifQ==\r\n"; // {"status":"401"}

#[test]
fn the_error_challenge_of_xoauth2_is_answered_by_an_empty_line() {
    // wire.md F16: some servers write words where the challenge should be.
    for (sasl_ir, go_on) in
        [(true, ""), (false, "+ \r\n"), (false, "+\r\n"), (false, "+ Ready\r\n"), (false, "+ go on, please\r\n")]
    {
        let (token_fault, error) = refusal(move |server| {
            server.say(if sasl_ir { "* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2 SASL-IR] hi\r\n" } else { "* OK hi\r\n" });
            if sasl_ir {
                server.expect(&format!("AUTHENTICATE XOAUTH2 {XOAUTH2}"));
            } else {
                server.expect("CAPABILITY");
                server.say("* CAPABILITY IMAP4rev1 AUTH=XOAUTH2\r\n");
                server.done("OK done");
                server.expect("AUTHENTICATE XOAUTH2");
                server.say(go_on);
                assert_eq!(server.line(), XOAUTH2, "{go_on}");
            }
            server.say(CHALLENGE);
            assert_eq!(server.line(), "");
            server.done("NO [AUTHENTICATIONFAILED] Authentication failed.");
        });
        assert!(token_fault);
        assert_eq!(
            error.provider_code_text(),
            Some("NO [AUTHENTICATIONFAILED] Authentication failed. {\"status\":\"401\"}")
        );
    }
}

#[test]
fn the_error_challenge_of_oauthbearer_is_answered_by_one_0x01() {
    for sasl_ir in [true, false] {
        let (token_fault, _) = refusal(move |server| {
            let ir = if sasl_ir { "SASL-IR" } else { "X" };
            server.say(&format!("* OK [CAPABILITY IMAP4rev1 AUTH=OAUTHBEARER {ir}] hi\r\n"));
            let line = server.line();
            assert_eq!(line.split(' ').count(), if sasl_ir { 4 } else { 3 }, "{line}");
            server.tag = "a1".into();
            if !sasl_ir {
                server.say("+\r\n");
                assert!(server.line().len() > 40);
            }
            server.say(CHALLENGE);
            assert_eq!(server.line(), "AQ==");
            server.done("NO AUTHENTICATE failed.");
        });
        assert!(token_fault);
    }
}

#[test]
fn a_server_in_trouble_is_not_the_tokens_fault() {
    for (answer, kind) in [
        ("a1 NO [UNAVAILABLE] Temporary authentication failure.\r\n", Kind::Transient),
        ("a1 NO [LIMIT] Maximum number of connections exceeded.\r\n", Kind::Throttled),
        ("* BYE Too many invalid commands\r\n", Kind::Throttled),
        ("* BYE going down\r\n", Kind::Transient),
        ("", Kind::Transient),
    ] {
        let (token_fault, error) = refusal(move |server| {
            server.say("* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2 SASL-IR] hi\r\n");
            server.line();
            server.say(answer);
        });
        assert_eq!((token_fault, error.kind()), (false, kind), "{answer}");
    }
}

#[test]
fn a_wrong_greeting_gets_no_token() {
    for (greeting, kind) in [
        ("* PREAUTH [CAPABILITY IMAP4rev1] you are root\r\n", Kind::ServerMisbehaved),
        ("* BYE [UNAVAILABLE] later\r\n", Kind::Transient),
        ("220 smtp.example.test ESMTP\r\n", Kind::ServerMisbehaved),
        ("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n", Kind::Unsupported),
    ] {
        let (_, error) = refusal(move |server| {
            server.say(greeting);
            let mut rest = String::new();
            let _ = server.lines.read_to_string(&mut rest);
            assert_eq!(rest, "");
        });
        assert_eq!(error.kind(), kind, "{greeting}");
    }
}

#[test]
fn the_transcript_holds_no_token() {
    let written = Arc::new(Mutex::new(String::new()));
    let sink = written.clone();
    let logger = Logger::new(move |_, _, line| {
        let mut written = sink.lock().unwrap();
        written.push_str(line);
        written.push('\n');
    });
    let (link, scripted) = scripted(|server| {
        server.say("* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2] hi\r\n");
        server.expect("AUTHENTICATE XOAUTH2");
        server.say("+ \r\n");
        server.line();
        server.done("OK [CAPABILITY IMAP4rev1] in");
        server.expect("NOOP");
        server.done("OK done");
    });
    let mut inbox = log_in(link, &Transcript::new(Some(logger)), &Logger::silent()).ok().unwrap();
    inbox.check(soon()).unwrap();
    scripted.end();
    let written = written.lock().unwrap();
    assert!(written.contains("C: a1 AUTHENTICATE XOAUTH2 [redacted]\nS: + [challenge]\nC: [redacted]\n"), "{written}");
    assert!(written.contains("C: a2 NOOP\nS: a2 OK done\n"), "{written}");
    assert!(!written.contains(&XOAUTH2[..20]) && !written.contains("t0k"));
}

#[test]
fn nobody_waits_for_the_answer_to_id() {
    let (mut inbox, scripted) = inbox("ID", |server| {
        assert!(
            server
                .expect(concat!("ID (\"name\" \"oauth-mail\" \"version\" \"", env!("CARGO_PKG_VERSION"), "\")"))
                .starts_with('b')
        );
        let id = server.tag.clone();
        server.expect("NOOP");
        server.say(&format!("* ID NIL\r\n{id} BAD no\r\n"));
        server.done("OK done");
    });
    inbox.check(soon()).unwrap();
    scripted.end();
}

#[test]
fn no_right_on_the_mailbox_is_said_so() {
    let (mut inbox, scripted) = inbox("IDLE", |server| {
        server.expect("EXAMINE \"INBOX\"");
        server.done("BAD User is authenticated but not connected.");
    });
    let error = inbox.list("INBOX", None, Since::Now, soon()).err().unwrap();
    scripted.end();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.message().contains("no right on this mailbox"));
}

#[test]
fn a_new_folder_begins_now_and_the_last_message_is_not_taken_for_new() {
    let (mut inbox, scripted) = inbox("IDLE", |server| {
        server.examine(3, None);
        server.expect("UID FETCH * (UID)");
        server.say("* 3 FETCH (UID 30)\r\n");
        server.done("OK done");
        // second listing: one new message; the server adds what nobody asked for
        server.examine(4, Some(32));
        server.expect("UID FETCH 31 (UID RFC822.SIZE INTERNALDATE)");
        server.say("* 3 FETCH (UID 30 RFC822.SIZE 5)\r\n* 4 FETCH (UID 31 RFC822.SIZE 9)\r\n* 4 FETCH (FLAGS ())\r\n");
        server.done("OK done");
    });
    let first = inbox.list("INBOX", None, Since::Now, soon()).unwrap();
    assert!(first.entries.is_empty() && first.reset.is_none());
    let second = inbox.list("INBOX", Some(&first.cursor), Since::Now, soon()).unwrap();
    scripted.end();
    assert_eq!(second.entries.len(), 1);
    assert_eq!((second.entries[0].key.id.as_str(), second.entries[0].size), ("7.31", 9));
}

#[test]
fn mail_since_a_moment_is_found_to_the_second() {
    let (mut inbox, scripted) = inbox("IDLE", |server| {
        server.examine(5, Some(51));
        // 2026-03-04 12:00:00 UTC
        server.expect("UID SEARCH UID 1:50 SINCE 6-Mar-2026");
        server.say("* SEARCH 50\r\n");
        server.done("OK done");
        server.expect("UID SEARCH UID 1:50 SINCE 3-Mar-2026 BEFORE 6-Mar-2026");
        server.say("* SEARCH 20 30 40\r\n");
        server.done("OK done");
        server.expect("UID FETCH 20,30,40 (UID INTERNALDATE)");
        server.say("* 2 FETCH (UID 20 INTERNALDATE \" 4-Mar-2026 12:59:59 +0100\")\r\n");
        server.say("* 3 FETCH (UID 30 INTERNALDATE \" 4-Mar-2026 13:00:00 +0100\")\r\n");
        server.say("* 4 FETCH (UID 40 INTERNALDATE NIL)\r\n");
        server.done("OK done");
        server.expect("UID FETCH 30,40,50 (UID RFC822.SIZE INTERNALDATE)");
        server.say("* 3 FETCH (UID 30 RFC822.SIZE 1)\r\n* 4 FETCH (UID 40 RFC822.SIZE 1)\r\n");
        server.say("* 5 FETCH (UID 50 RFC822.SIZE 1)\r\n");
        server.done("OK done");
    });
    let listing = inbox.list("INBOX", None, Since::Moment(1_772_625_600), soon()).unwrap();
    scripted.end();
    let ids: Vec<&str> = listing.entries.iter().map(|entry| entry.key.id.as_str()).collect();
    assert_eq!(ids, ["7.30", "7.40", "7.50"]);
}

#[test]
fn a_changed_uidvalidity_replays_only_what_came_since() {
    let (mut inbox, scripted) = inbox("IDLE", |server| {
        server.examine(2, Some(100));
        server.expect("UID SEARCH UID 1:99 SINCE 6-Mar-2026");
        server.say("* SEARCH 99\r\n");
        server.done("OK done");
        server.expect("UID SEARCH UID 1:99 SINCE 3-Mar-2026 BEFORE 6-Mar-2026");
        server.say("* SEARCH\r\n");
        server.done("OK done");
        server.expect("UID FETCH 99 (UID RFC822.SIZE INTERNALDATE)");
        server.say("* 2 FETCH (UID 99 RFC822.SIZE 1)\r\n");
        server.done("OK done");
    });
    let old = AnyCursor::Imap(Cursor::new(6, 5_000, 1_772_625_600));
    let listing = inbox.list("INBOX", Some(&old), Since::Now, soon()).unwrap();
    scripted.end();
    assert_eq!(listing.entries.len(), 1);
    assert!(listing.reset.unwrap().contains("UIDVALIDITY 6 became 7"));
    let AnyCursor::Imap(cursor) = listing.cursor else { panic!("another protocol") };
    assert_eq!((cursor.uidvalidity, cursor.floor), (7, 98));
}

#[test]
fn messages_come_in_order_whatever_the_server_does() {
    let (mut inbox, scripted) = inbox("IDLE", |server| {
        server.examine(9, Some(10));
        server.expect("UID FETCH 1:5 (UID BODY.PEEK[])");
        server.body(3, "three");
        server.say("* 5 EXPUNGE\r\n* 1 FETCH (FLAGS (\\Seen) UID 1)\r\n");
        server.body(1, "one");
        server.body(1, "one again");
        server.body(77, "nobody asked");
        server.say("* 2 FETCH (UID 2 BODY[] NIL)\r\n* 5 FETCH (UID 5 BODY[] \"five\")\r\n");
        server.done("OK done");
    });
    let entries: Vec<Entry> = (1..=5).map(|uid| entry(uid, 5)).collect();
    let seen = read(&mut inbox, &entries, usize::MAX).unwrap();
    scripted.end();
    assert_eq!(seen, ["one", "left out", "three", "left out", "five"]);
}

#[test]
fn one_bad_message_costs_only_itself() {
    let (mut inbox, scripted) = inbox("IDLE", |server| {
        server.examine(9, Some(10));
        server.expect("UID FETCH 1:3 (UID BODY.PEEK[])");
        server.body(1, "one");
        server.done("NO Some messages could not be FETCHed (Failure)");
        let two = server.expect("UID FETCH 2 (UID BODY.PEEK[])");
        let three = server.expect("UID FETCH 3 (UID BODY.PEEK[])");
        server.say(&format!("{two} NO Internal error\r\n"));
        server.body(3, "three");
        server.say(&format!("{three} OK done\r\n"));
        // an empty answer is a fault of the moment, too
        server.expect("UID FETCH 4 (UID BODY.PEEK[])");
        server.body(4, "");
        server.done("OK done");
    });
    let entries: Vec<Entry> = (1..=3).map(|uid| entry(uid, 5)).collect();
    let seen = read(&mut inbox, &entries, usize::MAX).unwrap();
    assert_eq!(seen, ["one", "failed: transient", "three"]);
    assert_eq!(read(&mut inbox, &[entry(4, 5)], usize::MAX).unwrap(), ["failed: transient"]);
    scripted.end();
}

#[test]
fn the_next_commands_are_on_their_way_before_the_first_is_answered() {
    let large = limits::SPOOL_THRESHOLD as u64 + 1;
    let ahead = limits::IMAP_PIPELINE as u32;
    let (mut inbox, scripted) = inbox("IDLE", move |server| {
        server.examine(9, Some(10));
        let text = "x".repeat(large as usize);
        let tags: Vec<String> =
            (1..=ahead).map(|uid| server.expect(&format!("UID FETCH {uid} (UID BODY.PEEK[])"))).collect();
        for (tag, uid) in tags.iter().zip(1..) {
            server.body(uid, &text);
            server.say(&format!("{tag} OK done\r\n"));
        }
        server.expect("NOOP");
        server.done("OK done");
        let (five, six) = (ahead + 1, ahead + 2);
        server.expect(&format!("UID FETCH {five}:{six} (UID BODY.PEEK[])"));
        server.body(five, "small");
        server.body(six, "last");
        server.done("OK done");
    });
    let entries: Vec<Entry> = (1..=ahead + 2).map(|uid| entry(uid, if uid <= ahead { large } else { 5 })).collect();
    // The host has enough after the first; nothing new is asked for, and nothing that was asked for is lost.
    let spooled = format!("spool {large}");
    assert_eq!(read(&mut inbox, &entries, 1).unwrap(), std::slice::from_ref(&spooled));
    inbox.check(soon()).unwrap();
    let rest = read(&mut inbox, &entries[1..], usize::MAX).unwrap();
    scripted.end();
    assert_eq!(rest[..rest.len() - 2], vec![spooled; ahead as usize - 1]);
    assert_eq!(rest[rest.len() - 2..], ["small", "last"]);
}

#[test]
fn keys_of_another_uidvalidity_are_gone() {
    let (mut inbox, scripted) = inbox("IDLE", |server| {
        server.examine(9, Some(10));
        server.expect("UID FETCH 2 (UID BODY.PEEK[])");
        server.body(2, "two");
        server.done("OK done");
    });
    let mut entries = vec![entry(1, 5), entry(2, 5), entry(3, 5)];
    entries[0].key.id = "6.1".into();
    entries[2].key.id = "nonsense".into();
    assert_eq!(read(&mut inbox, &entries, usize::MAX).unwrap(), ["gone", "two", "gone"]);
    scripted.end();
}

#[test]
fn a_lost_connection_ends_the_call() {
    let (mut inbox, scripted) = inbox("IDLE", |server| {
        server.examine(9, Some(10));
        server.expect("UID FETCH 1:2 (UID BODY.PEEK[])");
        server.body(1, "one");
        server.say("* 2 FETCH (UID 2 BODY[] {100}\r\nhalf");
    });
    let error = read(&mut inbox, &[entry(1, 5), entry(2, 5)], usize::MAX).unwrap_err();
    scripted.end();
    assert_eq!(error.kind(), Kind::Transient);
    assert!(inbox.check(soon()).is_err());
}

fn keys(uids: &[u32]) -> Vec<Key> {
    uids.iter().map(|uid| entry(*uid, 0).key).collect()
}

#[test]
fn settling_counts_vanished_messages_as_done() {
    let (mut inbox, scripted) = inbox("UIDPLUS", |server| {
        server.enter("SELECT \"INBOX\"", 3, Some(10));
        server.expect("UID SEARCH UID 1:3");
        server.say("* SEARCH 3 1\r\n");
        server.done("OK done");
        // Silence once is no proof.
        server.expect("UID FETCH 2 (UID FLAGS)");
        server.done("OK done");
        server.expect("UID STORE 1,3 +FLAGS.SILENT (\\Seen)");
        server.done("OK done");
    });
    let mut some = keys(&[3, 2, 1]);
    some.push(Key { folder: "INBOX".into(), id: "6.1".into() });
    assert_eq!(words(&inbox.settle(&some, &Action::MarkSeen, soon()).unwrap()), ["done", "gone", "done", "gone"]);
    assert_eq!(words(&inbox.settle(&some, &Action::Leave, soon()).unwrap()), ["done"; 4]);
    scripted.end();
}

#[test]
fn moving_creates_the_folder_and_removes_only_its_own() {
    let (mut inbox, scripted) = inbox("UIDPLUS", |server| {
        server.enter("SELECT \"INBOX\"", 3, Some(10));
        server.expect("UID SEARCH UID 1");
        server.say("* SEARCH 1\r\n");
        server.done("OK done");
        // What an earlier call copied is marked as deleted.
        server.expect("UID SEARCH UID 1 UNDELETED");
        server.say("* SEARCH 1\r\n");
        server.done("OK done");
        server.expect("UID COPY 1 \"Erl&AOQ-digt\"");
        server.done("NO [TRYCREATE] no such mailbox");
        server.expect("CREATE \"Erl&AOQ-digt\"");
        server.done("OK done");
        server.expect("UID COPY 1 \"Erl&AOQ-digt\"");
        server.done("OK [COPYUID 1 1 1] done");
        // Only when that is noted.
        server.enter("SELECT \"INBOX\"", 3, Some(10));
        server.expect("UID SEARCH UID 1");
        server.say("* SEARCH 1\r\n");
        server.done("OK done");
        server.expect("UID STORE 1 +FLAGS.SILENT (\\Deleted)");
        server.done("OK done");
        server.expect("UID EXPUNGE 1");
        server.done("OK done");
    });
    let action = Action::Move { folder: "Erlädigt".into() };
    assert_eq!(words(&inbox.settle(&keys(&[1]), &action, soon()).unwrap()), ["copied"]);
    assert_eq!(words(&inbox.settle(&keys(&[1]), &Action::Delete, soon()).unwrap()), ["done"]);
    scripted.end();
}

/// wire.md F3 in settling: the folder was set back between listing and settling, and another message has the UID.
#[test]
fn nothing_is_changed_in_a_folder_that_was_set_back() {
    let anchor = |date: &str| format!("* 3 FETCH (UID 10 INTERNALDATE \"{date}\")\r\n");
    // UIDNEXT fell; or it is as it was, and the newest message is another one; or all is well.
    for (uidnext, date) in
        [(7, None), (11, Some("18-Jul-1996 02:44:25 -0700")), (11, Some("17-Jul-1996 02:44:25 -0700"))]
    {
        let is_well = date == Some("17-Jul-1996 02:44:25 -0700");
        let (mut inbox, scripted) = inbox("MOVE", move |server| {
            server.enter("SELECT \"INBOX\"", 3, Some(uidnext));
            match date {
                None => {
                    server.expect("UID FETCH * (UID)");
                    server.say("* 3 FETCH (UID 6)\r\n");
                    server.done("OK done");
                }
                Some(date) => {
                    server.expect("UID FETCH 10 (UID INTERNALDATE)");
                    server.say(&anchor(date));
                    server.done("OK done");
                    if !is_well {
                        server.expect(
                            "UID FETCH 10 (UID INTERNALDATE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID FROM DATE SUBJECT)])",
                        );
                        server.done("OK done");
                    }
                }
            }
            if is_well {
                server.expect("UID SEARCH UID 5");
                server.say("* SEARCH 5\r\n");
                server.done("OK done");
                server.expect("UID MOVE 5 \"Done\"");
                server.done("OK done");
            }
            assert!(server.line().ends_with(" LOGOUT"));
        });
        let anchor = super::cursor::Anchor { uid: 10, received_at: 837_596_665, size: 9 };
        let known = Cursor { highest: Some(10), anchor: Some(anchor), ..Cursor::new(7, 4, 0) };
        inbox.expect("INBOX", &AnyCursor::Imap(known));
        let action = Action::Move { folder: "Done".into() };
        let settled = inbox.settle(&keys(&[5]), &action, soon()).unwrap();
        assert_eq!(words(&settled), [if is_well { "done" } else { "later" }], "{uidnext} {date:?}");
        drop(inbox);
        scripted.end();
    }
}

/// Silence of one SEARCH was taken for absence, and the message was never moved.
#[test]
fn what_one_answer_does_not_name_is_not_gone() {
    let (mut inbox, scripted) = inbox("MOVE", |server| {
        server.enter("SELECT \"INBOX\"", 3, Some(10));
        server.expect("UID SEARCH UID 1:3");
        server.say("* SEARCH\r\n");
        server.done("OK done");
        server.expect("UID FETCH 1:3 (UID FLAGS)");
        server.say("* 1 FETCH (UID 1 FLAGS ())\r\n* 3 FETCH (UID 3 FLAGS (\\Seen))\r\n");
        server.done("OK done");
        server.expect("UID MOVE 1,3 \"Done\"");
        server.done("OK done");
    });
    let action = Action::Move { folder: "Done".into() };
    assert_eq!(words(&inbox.settle(&keys(&[1, 2, 3]), &action, soon()).unwrap()), ["done", "gone", "done"]);
    scripted.end();
}

/// What earlier commands did was forgotten when a later one failed; and after three refusals the rest was settled unasked.
#[test]
fn what_was_done_stays_done_and_what_was_not_asked_for_is_later() {
    let (mut settling, scripted) = inbox("MESSAGELIMIT=2", |server| {
        server.enter("SELECT \"INBOX\"", 6, Some(10));
        server.expect("UID SEARCH UID 1:6");
        server.say("* SEARCH 1 2 3 4 5 6\r\n");
        server.done("OK done");
        server.expect("UID STORE 1:2 +FLAGS.SILENT (\\Seen)");
        server.done("OK done");
        server.expect("UID STORE 3:4 +FLAGS.SILENT (\\Seen)");
        server.done("NO [UNAVAILABLE] not now");
        assert!(server.line().ends_with(" LOGOUT"));
    });
    let all = keys(&[1, 2, 3, 4, 5, 6]);
    let settled = settling.settle(&all, &Action::MarkSeen, soon()).unwrap();
    assert_eq!(words(&settled), ["done", "done", "later", "later", "later", "later"]);
    drop(settling);
    scripted.end();

    // One to six are refused; the last one tells whether it is the action to all.
    for last_is_done in [true, false] {
        let (mut settling, scripted) = inbox("MESSAGELIMIT=1", move |server| {
            server.enter("SELECT \"INBOX\"", 6, Some(10));
            server.expect("UID SEARCH UID 1:6");
            server.say("* SEARCH 1 2 3 4 5 6\r\n");
            server.done("OK done");
            let refused: &[u32] = if last_is_done { &[1, 2, 3, 6, 4] } else { &[1, 2, 3, 6] };
            for uid in refused {
                server.expect(&format!("UID STORE {uid} +FLAGS.SILENT (\\Seen)"));
                server.done(if *uid == 6 && last_is_done { "OK done" } else { "NO it is locked" });
            }
            if last_is_done {
                server.expect("UID STORE 5 +FLAGS.SILENT (\\Seen)");
                server.done("NO it is locked");
            }
            assert!(server.line().ends_with(" LOGOUT"));
        });
        let settled = settling.settle(&all, &Action::MarkSeen, soon());
        match last_is_done {
            true => assert_eq!(words(&settled.unwrap()), ["kept", "kept", "kept", "kept", "kept", "done"]),
            false => assert_eq!(settled.unwrap_err().kind(), Kind::ServerMisbehaved),
        }
        drop(settling);
        scripted.end();
    }
}

/// wire.md F13: MOVE is announced and refused.
#[test]
fn a_server_that_offers_move_and_refuses_it_copies() {
    let (mut inbox, scripted) = inbox("UIDPLUS MOVE", |server| {
        server.enter("SELECT \"INBOX\"", 3, Some(10));
        server.expect("UID SEARCH UID 1");
        server.say("* SEARCH 1\r\n");
        server.done("OK done");
        server.expect("UID MOVE 1 \"Done\"");
        server.done("NO MOVE extension not supported");
        server.expect("STATUS \"Done\" (MESSAGES)");
        server.done("OK done");
        server.expect("UID COPY 1 \"Done\"");
        server.done("OK done");
        // Remembered for the connection.
        server.enter("SELECT \"INBOX\"", 3, Some(10));
        for and in ["", " UNDELETED"] {
            server.expect(&format!("UID SEARCH UID 2{and}"));
            server.say("* SEARCH 2\r\n");
            server.done("OK done");
        }
        server.expect("UID COPY 2 \"Done\"");
        server.done("NO [OVERQUOTA] full");
    });
    let action = Action::Move { folder: "Done".into() };
    assert_eq!(words(&inbox.settle(&keys(&[1]), &action, soon()).unwrap()), ["copied"]);
    // The account's fault, and nothing of the message's: an error of the call.
    let full = inbox.settle(&keys(&[2]), &action, soon()).unwrap_err();
    assert!(full.has_code(&["OVERQUOTA"]), "{full:?}");
    scripted.end();
}

/// wire.md F8: a folder without the prefix of the server's namespace was neither found nor created.
#[test]
fn the_prefix_of_the_namespace_is_added_and_a_folder_that_cannot_be_is_an_error_of_the_call() {
    let (mut inbox, scripted) = inbox("MOVE NAMESPACE", |server| {
        server.enter("SELECT \"INBOX\"", 3, Some(10));
        server.expect("UID SEARCH UID 1");
        server.say("* SEARCH 1\r\n");
        server.done("OK done");
        server.expect("NAMESPACE");
        server.say("* NAMESPACE ((\"INBOX.\" \".\")) NIL ((\"shared.\" \".\"))\r\n");
        server.done("OK done");
        server.expect("UID MOVE 1 \"INBOX.Done\"");
        server.done("NO nonexistent");
        server.expect("STATUS \"INBOX.Done\" (MESSAGES)");
        server.done("NO nonexistent");
        server.expect("CREATE \"INBOX.Done\"");
        server.done("NO no rights to create");
    });
    let action = Action::Move { folder: "Done".into() };
    let error = inbox.settle(&keys(&[1]), &action, soon()).unwrap_err();
    assert_eq!((error.kind(), error.about()), (Kind::Refused, crate::error::About::Folder), "{error:?}");
    scripted.end();
}

fn stored(highest: u32) -> AnyCursor {
    let cursor = Cursor { highest: Some(highest), ..Cursor::new(7, highest, 2_000_000_000) };
    let mut cursor = AnyCursor::Imap(cursor);
    let raw = b"From: a@b.test\r\nMessage-ID: <1@b.test>\r\nSubject: x\r\n\r\n";
    let mark = crate::message::fingerprint::Traits::of(raw).fingerprint();
    if let AnyCursor::Imap(cursor) = &mut cursor {
        cursor.marks.add(1, mark.into_iter().collect());
    }
    cursor
}

/// wire.md F3: UIDNEXT fell under the same UIDVALIDITY, and new mail was never seen.
#[test]
fn a_folder_that_was_set_back_is_listed_anew_under_new_keys_without_what_is_known() {
    let (mut inbox, scripted) = inbox("X", |server| {
        server.examine(2, Some(7));
        // The messages are really gone, and not only UIDNEXT wrong.
        server.expect("UID FETCH * (UID)");
        server.say("* 2 FETCH (UID 6)\r\n");
        server.done("OK done");
        for _ in 0..2 {
            let line = server.line();
            assert!(line.contains(" UID SEARCH UID 1:6 SINCE "), "{line}");
            server.tag = line.split(' ').next().unwrap().to_owned();
            server.say("* SEARCH 5 6\r\n");
            server.done("OK done");
        }
        server.expect("UID FETCH 5:6 (UID INTERNALDATE)");
        server.say("* 1 FETCH (UID 5 INTERNALDATE \"17-Jul-2033 02:44:25 +0000\")\r\n");
        server.say("* 2 FETCH (UID 6 INTERNALDATE \"17-Jul-2033 02:44:25 +0000\")\r\n");
        server.done("OK done");
        server.expect("UID FETCH 5:6 (UID)");
        server.say("* 1 FETCH (UID 5)\r\n* 2 FETCH (UID 6)\r\n");
        server.done("OK done");
        server.expect("UID FETCH 5:6 (UID INTERNALDATE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID FROM DATE SUBJECT)])");
        for uid in [5, 6] {
            let header = format!("Message-ID: <{}@b.test>\r\n\r\n", uid - 4);
            let name = "BODY[HEADER.FIELDS (MESSAGE-ID FROM DATE SUBJECT)]";
            server.say(&format!("* {uid} FETCH (UID {uid} {name} {{{}}}\r\n{header})\r\n", header.len()));
        }
        server.done("OK done");
        server.expect("UID FETCH 6 (UID RFC822.SIZE INTERNALDATE)");
        server.say("* 2 FETCH (UID 6 RFC822.SIZE 100)\r\n");
        server.done("OK done");
    });
    let listing = inbox.list("INBOX", Some(&stored(10)), Since::Now, soon()).unwrap();
    scripted.end();
    let ids: Vec<&str> = listing.entries.iter().map(|entry| entry.key.id.as_str()).collect();
    assert_eq!(ids, ["7-1.6"], "UID 5 is known as settled");
    assert!(listing.reset.is_some_and(|reset| reset.contains("set the folder INBOX back")));
    assert!(!listing.cursor.is_current(&entry(6, 0).key));
}

/// wire.md F4 and F11: no answer is not the answer zero, and a UID that cannot be read hides no mail.
#[test]
fn messages_that_are_counted_and_not_named_are_an_error() {
    let (mut inbox, scripted) = inbox("X", |server| {
        server.examine(30, None);
        server.expect("UID FETCH * (UID)");
        server.done("OK done");
        server.expect("STATUS \"INBOX\" (UIDNEXT)");
        server.done("OK done");
        server.examine(1, None);
        server.expect("UID FETCH * (UID)");
        server.done("OK done");
        server.expect("STATUS \"INBOX\" (UIDNEXT)");
        server.say("* STATUS INBOX (UIDNEXT 31)\r\n");
        server.done("OK done");
        server.examine(1, Some(31));
        server.expect("UID FETCH 1:30 (UID RFC822.SIZE INTERNALDATE)");
        server.say("* 1 FETCH (UID 19564493749 RFC822.SIZE 187)\r\n");
    });
    let error = inbox.list("INBOX", None, Since::Now, soon()).err().unwrap();
    assert_eq!(error.kind(), Kind::ServerMisbehaved, "{error:?}");
    let listing = inbox.list("INBOX", None, Since::Now, soon()).unwrap();
    assert!(listing.entries.is_empty() && matches!(listing.cursor, AnyCursor::Imap(cursor) if cursor.floor == 30));
    let error = inbox.list("INBOX", None, Since::Everything, soon()).err().unwrap();
    assert!(error.message().contains("19564493749"), "{error:?}");
    scripted.end();
}

/// wire.md F17: the answer to a part of the question was taken for the answer to all of it.
#[test]
fn a_limited_listing_is_asked_for_to_its_end() {
    let (mut inbox, scripted) = inbox("MESSAGELIMIT=2", |server| {
        server.examine(3, Some(4));
        server.expect("UID FETCH 1:3 (UID RFC822.SIZE INTERNALDATE)");
        server.say("* 3 FETCH (UID 3 RFC822.SIZE 1)\r\n* 2 FETCH (UID 2 RFC822.SIZE 1)\r\n");
        server.done("OK [MESSAGELIMIT 2 2] too many");
        server.expect("UID FETCH 1 (UID RFC822.SIZE INTERNALDATE)");
        server.say("* 1 FETCH (UID 1 RFC822.SIZE 1)\r\n");
        server.done("OK done");
    });
    let listing = inbox.list("INBOX", None, Since::Everything, soon()).unwrap();
    assert_eq!((listing.entries.len(), listing.more), (3, false));
    scripted.end();
}

/// wire.md F2: one message that cannot be opened ended the listing of all.
#[test]
fn sizes_that_are_refused_hide_no_message() {
    let (mut inbox, scripted) = inbox("X", |server| {
        server.examine(3, Some(4));
        server.expect("UID FETCH 1:3 (UID RFC822.SIZE INTERNALDATE)");
        server.say("* 1 FETCH (UID 1 RFC822.SIZE 65)\r\n");
        server.done("NO The requested message could not be converted");
        server.expect("UID FETCH 1:3 (UID)");
        server.say("* 1 FETCH (UID 1)\r\n* 2 FETCH (UID 2)\r\n* 3 FETCH (UID 3)\r\n");
        server.done("OK done");
        server.examine(3, Some(4));
        server.expect("UID FETCH 1:3 (UID)");
        server.say("* 1 FETCH (UID 1)\r\n* 2 FETCH (UID 2)\r\n* 3 FETCH (UID 3)\r\n");
        server.done("OK done");
    });
    let listing = inbox.list("INBOX", None, Since::Everything, soon()).unwrap();
    let sizes: Vec<u64> = listing.entries.iter().map(|entry| entry.size).collect();
    assert_eq!(sizes, [65, 0, 0]);
    // After a listing that ended the connection nothing is asked for which a message has to be opened.
    inbox.spare();
    assert_eq!(inbox.list("INBOX", None, Since::Everything, soon()).unwrap().entries.len(), 3);
    scripted.end();
}

/// wire.md F6: a server of IMAP4rev2 alone, whose answers to SEARCH are ESEARCH.
#[test]
fn a_server_of_rev2_alone_is_understood() {
    let (link, scripted) = scripted(|server| {
        server.say("* OK [CAPABILITY IMAP4rev2  SASL-IR AUTH=XOAUTH2] ready\r\n");
        assert!(server.line().starts_with("a1 AUTHENTICATE XOAUTH2 "));
        server.say("a1 OK [CAPABILITY IMAP4rev2 MOVE] in\r\n");
        server.enter("SELECT \"INBOX\"", 3, Some(10));
        server.expect("UID SEARCH UID 1:3");
        server.say("* ESEARCH (TAG \"b1\") UID ALL 1,3\r\n");
        server.done("OK done");
        server.expect("UID FETCH 2 (UID FLAGS)");
        server.done("OK done");
        server.expect("UID STORE 1,3 +FLAGS.SILENT (\\Seen)");
        server.done("OK done");
        // OK without a result is no answer: FETCH names what is there.
        server.enter("SELECT \"INBOX\"", 3, Some(10));
        server.expect("UID SEARCH UID 2");
        server.done("OK done");
        server.expect("UID FETCH 2 (UID FLAGS)");
        server.say("* 2 FETCH (UID 2 FLAGS ())\r\n");
        server.done("OK done");
        server.expect("UID STORE 2 +FLAGS.SILENT (\\Seen)");
        server.done("OK done");
    });
    let opened = log_in(link, &Transcript::default(), &Logger::silent());
    let Ok(mut inbox) = opened else { panic!("not logged in") };
    assert_eq!(words(&inbox.settle(&keys(&[1, 2, 3]), &Action::MarkSeen, soon()).unwrap()), ["done", "gone", "done"]);
    assert_eq!(words(&inbox.settle(&keys(&[2]), &Action::MarkSeen, soon()).unwrap()), ["done"]);
    scripted.end();
}

#[test]
fn other_peoples_deletions_are_never_expunged() {
    let (mut inbox, scripted) = inbox("IDLE", |server| {
        server.enter("SELECT \"INBOX\"", 3, Some(10));
        server.expect("UID SEARCH UID 1");
        server.say("* SEARCH 1\r\n");
        server.done("OK done");
        server.expect("UID STORE 1 +FLAGS.SILENT (\\Deleted)");
        server.done("OK done");
        assert!(server.line().ends_with(" LOGOUT"));
    });
    assert_eq!(words(&inbox.settle(&keys(&[1]), &Action::Delete, soon()).unwrap()), ["done"]);
    drop(inbox);
    scripted.end();
}

#[test]
fn a_look_tells_a_folder_that_is_missing_from_one_that_is_closed_and_changes_neither() {
    let (mut inbox, scripted) = inbox("ACL", |server| {
        server.examine(3, Some(10));
        server.expect("FETCH 3 (UID RFC822.SIZE)");
        server.say("* 3 FETCH (UID 9 RFC822.SIZE 120)\r\n");
        server.done("OK done");
        server.expect("MYRIGHTS \"INBOX\"");
        server.say("* MYRIGHTS INBOX lrs\r\n");
        server.done("OK done");
        for (name, listed) in [("Gone", ""), ("Parent", "* LIST (\\Noselect) \"/\" Parent\r\n")] {
            server.expect(&format!("EXAMINE \"{name}\""));
            server.done("NO no such mailbox");
            server.expect(&format!("LIST \"\" \"{name}\""));
            server.say(listed);
            server.done("OK done");
        }
        server.expect("EXAMINE \"Closed\"");
        server.done("NO [NOPERM] not yours");
        server.expect("LIST \"\" \"Closed\"");
        server.say("* LIST (\\HasNoChildren) \"/\" Closed\r\n");
        server.done("OK done");
        // Nobody may ask for rights here: that is no reason to give up.
        server.examine(0, Some(1));
        server.expect("MYRIGHTS \"INBOX\"");
        server.done("NO not for you");
    });
    let look = inbox.look("INBOX", soon()).unwrap().unwrap();
    assert_eq!((look.messages, look.rights.as_deref()), (3, Some("lrs")));
    assert_eq!(look.newest.map(|entry| (entry.key.id, entry.size)), Some(("7.9".into(), 120)));
    assert!(inbox.look("Gone", soon()).unwrap().is_none());
    assert!(inbox.look("Parent", soon()).unwrap().is_none());
    assert_eq!(inbox.look("Closed", soon()).unwrap_err().kind(), Kind::Refused);
    let empty = inbox.look("INBOX", soon()).unwrap().unwrap();
    assert!(empty.newest.is_none() && empty.rights.is_none());
    drop(inbox);
    scripted.end();
}
