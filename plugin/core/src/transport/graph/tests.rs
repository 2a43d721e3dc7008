//! Against a scripted https server that answers as the published contract says; faults included.
#![allow(clippy::unwrap_used)]

use std::{
    io::Read,
    ops::ControlFlow,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use super::{
    super::{Cursor as AnyCursor, Envelope, Inbox, Item, Key, Login, OpenError, Outcome, Raw, Transcript, feed::Feed},
    open, open_outbox,
};
use crate::{
    error::Kind,
    limits,
    oauth::tests_support::{Answer, Asked, Idp, account, json as answer, soon},
    secret::Secret,
    settings::{Account, Action, Protocol, Since},
};

const OLD: &str = "2020-01-01T00:00:00Z";
const NEW: &str = "2099-01-01T00:00:00Z";

fn graph(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Idp, Account) {
    let server = Idp::new(handler);
    let mut account = account(&server.base);
    account.protocol = Protocol::Graph { base_url: format!("{}/v1.0", server.base).parse().unwrap() };
    (server, account)
}

fn inbox(server: &Idp, account: &Account) -> Result<Box<dyn Inbox>, OpenError> {
    let token = Secret::new("token-1");
    open(account, &server.net(), &Login { username: &account.username, token: &token }, &Transcript::default(), soon())
}

fn opened(server: &Idp, account: &Account) -> Box<dyn Inbox> {
    inbox(server, account).unwrap_or_else(|_| panic!("not opened"))
}

fn page(items: &[(&str, &str)], link: (&str, String)) -> Answer {
    let items: Vec<Value> =
        items.iter().map(|(id, at)| json!({"id": id, "receivedDateTime": at, "odd": [{}]})).collect();
    answer(200, json!({"value": items, link.0: link.1}).to_string())
}

fn cursor(listing: &super::Listing) -> &Feed {
    let AnyCursor::Graph(cursor) = &listing.cursor else { panic!("another protocol") };
    cursor
}

fn base_of(port: &AtomicUsize) -> String {
    format!("https://localhost:{}", port.load(Ordering::SeqCst))
}

/// A server that knows its own port, for the links that it gives out.
fn linked(handler: impl Fn(&Asked, &str) -> Answer + Send + Sync + 'static) -> (Idp, Account) {
    let port = std::sync::Arc::new(AtomicUsize::new(0));
    let of_handler = port.clone();
    let (server, account) = graph(move |asked| match asked.path.as_str() {
        "/v1.0/me/mailFolders/inbox?$select=id" => answer(200, r#"{"id":"I"}"#),
        _ => handler(asked, &base_of(&of_handler)),
    });
    port.store(server.base.rsplit(':').next().unwrap().parse().unwrap(), Ordering::SeqCst);
    (server, account)
}

#[test]
fn old_mail_is_passed_over_and_the_cursor_keeps_what_is_open() {
    let (server, account) = linked(|asked, base| {
        match asked.path.as_str() {
        "/v1.0/next" => page(&[("b", NEW), ("old", OLD)], ("@odata.deltaLink", format!("{base}/v1.0/delta1"))),
        // Replayed, and one moved away.
        "/v1.0/delta1" => answer(
            200,
            json!({"value": [{"id": "a", "receivedDateTime": NEW}, {"id": "b", "@removed": {"reason": "changed"}}, {"x": 1}],
                "@odata.deltaLink": format!("{base}/v1.0/delta2")})
            .to_string(),
        ),
        _ => page(&[("a", NEW), ("older", OLD)], ("@odata.nextLink", format!("{base}/v1.0/next"))),
    }
    });
    let mut inbox = opened(&server, &account);
    let first = inbox.list("INBOX", None, Since::Now, soon()).unwrap();
    let ids: Vec<_> = first.entries.iter().map(|entry| entry.key.id.as_str()).collect();
    assert_eq!((ids, first.more), (vec!["a", "b"], false));
    let mut stored = first.cursor.clone();
    let key = |id: &str| Key { folder: "INBOX".into(), id: id.into() };
    assert!(stored.listed(&key("a")) && !stored.listed(&key("old")));
    stored.settle(&[key("a")]);
    let second = inbox.list("INBOX", Some(&stored), Since::Now, soon()).unwrap();
    assert!(second.entries.is_empty(), "a was settled, b is gone");
    assert!(cursor(&second).position.as_ref().unwrap().ends_with("/delta2"));
    // Nobody settled: what the link has passed comes again.
    let again = inbox.list("INBOX", Some(&first.cursor), Since::Now, soon()).unwrap();
    assert_eq!(again.entries.iter().map(|entry| entry.key.id.as_str()).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_forgotten_link_resynchronises_without_a_flood() {
    for (status, code) in [(410, "syncStateNotFound"), (400, "SyncStateNotFound"), (410, "")] {
        let (server, account) = linked(move |asked, base| match asked.path.as_str() {
            "/v1.0/gone" => answer(status, json!({"error": {"code": code}}).to_string()),
            _ => page(&[("old", OLD), ("new", NEW)], ("@odata.deltaLink", format!("{base}/v1.0/delta"))),
        });
        let stored =
            Feed { position: Some(format!("{}/v1.0/gone", server.base)), resume_at: 1_772_625_600, ..Feed::default() };
        let listing =
            opened(&server, &account).list("INBOX", Some(&AnyCursor::Graph(stored)), Since::Now, soon()).unwrap();
        assert!(listing.reset.is_some());
        assert_eq!(listing.entries.iter().map(|entry| entry.key.id.as_str()).collect::<Vec<_>>(), ["new"]);
    }
}

#[test]
fn the_token_goes_nowhere_else() {
    let (elsewhere, _) = graph(|_| answer(200, "{}"));
    let link = format!("{}/v1.0/next", elsewhere.base);
    let given_out = link.clone();
    let (server, account) = linked(move |_, _| page(&[("a", NEW)], ("@odata.nextLink", given_out.clone())));
    let error = opened(&server, &account).list("INBOX", None, Since::Now, soon()).err().unwrap();
    assert_eq!(error.kind(), Kind::ServerMisbehaved);
    assert!(elsewhere.asked("/v1.0/next").is_empty());
}

#[test]
fn messages_come_in_order_and_large_ones_in_a_spool() {
    let large = "x".repeat(limits::SPOOL_THRESHOLD + 10);
    let (server, account) = linked(move |asked, _| match asked.path.as_str() {
        "/v1.0/me/messages/gone/$value" => answer(404, r#"{"error":{"code":"ErrorItemNotFound"}}"#),
        "/v1.0/me/messages/large/$value" => answer(200, large.clone()),
        path => answer(200, format!("Subject: {path}\r\n\r\n")),
    });
    let entries: Vec<_> = ["1", "gone", "large", "2", "3", "4"]
        .iter()
        .map(|id| super::Entry { key: Key { folder: "INBOX".into(), id: (*id).into() }, size: 0, received_at: None })
        .collect();
    let mut inbox = opened(&server, &account);
    let mut got = Vec::new();
    let mut take = |_, item| {
        got.push(match item {
            Item::Read(Raw::Memory(bytes)) => String::from_utf8(bytes).unwrap(),
            Item::Read(Raw::Spool { mut file, len }) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).unwrap();
                assert_eq!(bytes.len() as u64, len);
                "spooled".into()
            }
            Item::Gone => "gone".into(),
            Item::Failed(error) => error.to_string(),
        });
        ControlFlow::Break(())
    };
    let mut at = 0;
    while at < entries.len() {
        at += inbox.read(&entries[at..], soon(), &mut take).unwrap();
    }
    let subject = |id: &str| format!("Subject: /v1.0/me/messages/{id}/$value\r\n\r\n");
    assert_eq!(got, [subject("1"), "gone".into(), "spooled".into(), subject("2"), subject("3"), subject("4")]);
    // What was read ahead was kept: nothing was asked for twice.
    assert_eq!(server.asked("/v1.0/me/messages/2/$value").len(), 1);
}

#[test]
fn throttling_names_the_pause_and_a_refused_token_is_a_refused_login() {
    let (server, account) = linked(|_, _| {
        let body = r#"{"error":{"code":"ApplicationThrottled","message":"m"}}"#.to_owned();
        (429, "Retry-After: 7\r\nrequest-id: r-1\r\n".into(), body)
    });
    let error = opened(&server, &account).list("INBOX", None, Since::Now, soon()).err().unwrap();
    assert_eq!((error.kind(), error.wait().unwrap().as_secs()), (Kind::Throttled, 7));
    assert_eq!(error.provider_code_text(), Some("429 ApplicationThrottled"));
    assert_eq!(error.correlation_text(), Some("request-id=r-1"));

    let (server, account) = graph(|_| answer(401, r#"{"error":{"code":"InvalidAuthenticationToken"}}"#));
    assert!(matches!(inbox(&server, &account), Err(OpenError::LoginRefused(_))));
    // In the middle it counts as a lost connection, which is opened once more and there refreshed once.
    let (server, account) = linked(|_, _| answer(401, "{}"));
    let error = opened(&server, &account).list("INBOX", None, Since::Now, soon()).err().unwrap();
    assert_eq!(error.kind(), Kind::Transient);
}

#[test]
fn settling_is_batched_and_gone_counts_as_done() {
    let (server, account) =
        linked(|_, _| answer(200, r#"{"responses":[{"id":"1","status":404},{"id":"0","status":200,"body":{}}]}"#));
    let keys = ["a", "b"].map(|id| Key { folder: "INBOX".into(), id: id.into() });
    let mut inbox = opened(&server, &account);
    assert_eq!(inbox.settle(&keys, &Action::MarkSeen, soon()).unwrap(), [true, false]);
    assert_eq!(server.asked("/v1.0/$batch").len(), 1);
    server.set(|asked| match asked.path.as_str() {
        "/v1.0/$batch" => answer(
            200,
            r#"{"responses":[{"id":"0","status":200},{"id":"1","status":429,"headers":{"Retry-After":"9"}}]}"#,
        ),
        _ => answer(200, "{}"),
    });
    let error = inbox.settle(&keys, &Action::Delete, soon()).unwrap_err();
    assert_eq!((error.kind(), error.wait().unwrap().as_secs()), (Kind::Throttled, 9));
}

#[test]
fn a_shared_mailbox_is_named() {
    let (server, mut account) = graph(|_| answer(200, "{}"));
    account.consenting_user = "anna@corp.test".into();
    opened(&server, &account);
    assert_eq!(server.asked("/v1.0/users/helpdesk%40corp.test/mailFolders/inbox?$select=id").len(), 1);
}

#[test]
fn a_message_goes_out_as_a_draft_that_is_sent() {
    let send = |status: u16, body: &'static str| {
        let (server, account) = linked(move |asked, _| match (asked.method.as_str(), asked.path.as_str()) {
            ("POST", "/v1.0/me/messages") => answer(201, r#"{"id":"d1"}"#),
            ("POST", "/v1.0/me/messages/d1/send") => answer(status, body),
            _ => answer(204, ""),
        });
        let token = Secret::new("token-1");
        let login = Login { username: &account.username, token: &token };
        let mut outbox = open_outbox(&account, &server.net(), &login, &Transcript::default(), soon())
            .unwrap_or_else(|_| panic!("not opened"));
        let address = |text: &str| text.parse().unwrap();
        let envelope = Envelope { from: Some(address("helpdesk@corp.test")), to: vec![address("a@b.test")] };
        let outcome = outbox.send(&envelope, b"To: a@b.test\r\n\r\nhello\r\n", soon());
        (outcome, server.asked("/v1.0/me/messages/d1").len())
    };
    assert!(matches!(send(202, ""), (Outcome::Sent { .. }, 0)));
    let (outcome, discarded) = send(403, r#"{"error":{"code":"ErrorSendAsDenied"}}"#);
    assert!(matches!(outcome, Outcome::Rejected(_)) && discarded == 1);
    assert!(matches!(send(429, r#"{"error":{"code":"ApplicationThrottled"}}"#), (Outcome::Retry { .. }, 1)));
    assert!(matches!(send(401, "{}"), (Outcome::Retry { .. }, 1)));
    // A gateway's answer says nothing about what stands behind it.
    assert!(matches!(send(504, ""), (Outcome::Unknown(_), 0)));
}
