//! Against a scripted https server that answers as the published contract says; faults included.
#![allow(clippy::unwrap_used)]

use std::{
    io::Read,
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};

use super::{
    super::{Cursor as AnyCursor, Inbox, Item, Key, Login, OpenError, Raw, Settled, Transcript, feed::Feed, words},
    open,
};
use crate::{
    error::Kind,
    limits,
    log::Logger,
    oauth::tests_support::{Answer, Asked, Bench, Idp, account, json as answer, soon},
    secret::Secret,
    session::Session,
    settings::{Account, Action, GrantType, Protocol, Since},
};

pub(super) const OLD: &str = "2020-01-01T00:00:00Z";
pub(super) const NEW: &str = "2099-01-01T00:00:00Z";

pub(super) fn graph(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Idp, Account) {
    let server = Idp::new(handler);
    let mut account = account(&server.base);
    account.protocol = Protocol::Graph { base_url: format!("{}/v1.0", server.base).parse().unwrap() };
    (server, account)
}

pub(super) fn inbox(server: &Idp, account: &Account) -> Result<Box<dyn Inbox>, OpenError> {
    let token = Secret::new("token-1");
    open(account, &server.net(), &Login { username: &account.username, token: &token }, &Transcript::default(), soon())
}

pub(super) fn opened(server: &Idp, account: &Account) -> Box<dyn Inbox> {
    inbox(server, account).unwrap_or_else(|_| panic!("not opened"))
}

pub(super) fn page(items: &[(&str, &str)], link: (&str, String)) -> Answer {
    let items: Vec<Value> =
        items.iter().map(|(id, at)| json!({"id": id, "receivedDateTime": at, "odd": [{}]})).collect();
    answer(200, json!({"value": items, link.0: link.1}).to_string())
}

pub(super) fn cursor(listing: &super::Listing) -> &Feed {
    let AnyCursor::Graph(cursor) = &listing.cursor else { panic!("another protocol") };
    cursor
}

/// MIME as `$value` gives it.
pub(super) fn plain(status: u16, body: &str) -> Answer {
    (status, "Content-Type: text/plain\r\n".into(), body.to_owned())
}

pub(super) fn base_of(port: &AtomicUsize) -> String {
    format!("https://localhost:{}", port.load(Ordering::SeqCst))
}

/// A server that knows its own port, for the links that it gives out.
pub(super) fn linked(handler: impl Fn(&Asked, &str) -> Answer + Send + Sync + 'static) -> (Idp, Account) {
    let port = Arc::new(AtomicUsize::new(0));
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
    stored.settle(&[(key("a"), None)], 0);
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
    let large = format!("Subject: large\r\n\r\n{}", "x".repeat(limits::SPOOL_THRESHOLD));
    let (server, account) = linked(move |asked, _| match asked.path.as_str() {
        "/v1.0/me/messages/gone/$value" | "/v1.0/me/messages/gone?$select=id" => {
            answer(404, r#"{"error":{"code":"ErrorItemNotFound"}}"#)
        }
        "/v1.0/me/messages/large/$value" => plain(200, &large),
        path => plain(200, &format!("Subject: {path}\r\n\r\n")),
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
            Item::Gone | Item::LeftOut => "gone".into(),
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

/// Each part of a $batch answered by itself: its method and URL, and then status, headers and body.
fn batched(asked: &Asked, part: impl Fn(&str, &str) -> (u16, Value, Value)) -> Answer {
    let all: Value = serde_json::from_slice(&asked.body).unwrap();
    let one = |one: &Value| {
        let (status, headers, body) = part(one["method"].as_str().unwrap(), one["url"].as_str().unwrap());
        json!({"id": one["id"], "status": status, "headers": headers, "body": body})
    };
    let mut responses: Vec<Value> = all["requests"].as_array().unwrap().iter().map(one).collect();
    // In whatever order they are done.
    responses.reverse();
    answer(200, json!({"responses": responses}).to_string())
}

fn said(status: u16, code: &str) -> (u16, Value, Value) {
    (status, json!({}), json!({"error": {"code": code}}))
}

fn keys<const N: usize>(ids: [&str; N]) -> [Key; N] {
    ids.map(|id| Key { folder: "INBOX".into(), id: id.into() })
}

#[test]
fn settling_is_batched_and_gone_is_looked_at_twice() {
    let (server, account) = linked(|asked, _| {
        batched(asked, |method, url| match (method, url) {
            (_, "/me/messages/a") => (200, json!({}), json!({})),
            // Not there at first sight, and there at the second.
            ("GET", "/me/messages/back?$select=id,parentFolderId") => (200, json!({}), json!({"parentFolderId": "I"})),
            ("PATCH", "/me/messages/other") => said(404, "MailboxNotEnabledForRESTAPI"),
            _ => said(404, "ErrorItemNotFound"),
        })
    });
    let mut inbox = opened(&server, &account);
    let settled = inbox.settle(&keys(["a", "gone", "back", "other"]), &Action::MarkSeen, soon()).unwrap();
    assert_eq!(words(&settled), ["done", "gone", "later", "kept"]);
    assert_eq!(server.asked("/v1.0/$batch").len(), 2);
    // Nothing was done to any, and the 404 speaks of all: the call fails.
    let error = inbox.settle(&keys(["other"]), &Action::MarkSeen, soon()).unwrap_err();
    assert_eq!(error.code(), Some("MailboxNotEnabledForRESTAPI"));
}

/// exchange.md F3: Exchange Online answers so for what is among the recoverable items already.
#[test]
fn what_was_deleted_already_is_gone_and_holds_up_no_other() {
    let (server, account) = linked(|asked, _| {
        batched(asked, |method, url| {
            let parent = |id: &str| (200, json!({}), json!({"id": "x", "parentFolderId": id}));
            match (method, url) {
                ("GET", url) if url.starts_with("/me/messages/deleted?") => parent("RecoverableItemsDeletions"),
                ("GET", url) if url.starts_with("/me/messages/held?") => parent("I"),
                ("GET", _) => said(404, "ErrorItemNotFound"),
                (_, "/me/messages/well") => (204, json!({}), Value::Null),
                (_, "/me/messages/held") => said(400, "ErrorCannotDeleteObject"),
                _ => said(403, "ErrorCannotDeleteObject"),
            }
        })
    });
    let mut inbox = opened(&server, &account);
    let settled = inbox.settle(&keys(["well", "deleted", "held", "none"]), &Action::Delete, soon()).unwrap();
    assert_eq!(words(&settled), ["done", "gone", "kept", "gone"]);
    let all = inbox.settle(&keys(["deleted", "none"]), &Action::Delete, soon()).unwrap();
    assert_eq!(words(&all), ["gone", "gone"], "a $batch whose answer was lost");
    // Of a move the same word says something else.
    let moved = inbox.settle(&keys(["well", "held"]), &Action::MarkSeen, soon()).unwrap();
    assert_eq!(words(&moved), ["done", "kept"]);
}

/// exchange.md F4: one of three answered 403, for ever.
#[test]
fn one_message_refused_for_want_of_a_right_keeps_back_no_other() {
    let (server, account) = linked(|asked, _| match asked.path.as_str() {
        "/v1.0/$batch" => batched(asked, |_, url| match url {
            "/me/messages/2" => said(403, "ErrorAccessDenied"),
            _ => (200, json!({}), json!({})),
        }),
        "/v1.0/me/messages/2/$value" => answer(403, r#"{"error":{"code":"ErrorAccessDenied"}}"#),
        "/v1.0/me/messages/3/$value" => answer(400, r#"{"error":{"code":"ErrorInvalidUser"}}"#),
        "/v1.0/me/messages/4/$value" => answer(500, r#"{"error":{"code":"ErrorContentConversionFailed"}}"#),
        _ => plain(200, "Subject: fine\r\n\r\n"),
    });
    let mut inbox = opened(&server, &account);
    let got = each(inbox.as_mut(), &["1", "2", "3", "4", "5"]);
    assert_eq!(got, ["read", "ErrorAccessDenied", "ErrorInvalidUser", "ErrorContentConversionFailed", "read"]);
    let settled = inbox.settle(&keys(["1", "2", "5"]), &Action::MarkSeen, soon()).unwrap();
    assert_eq!(words(&settled), ["done", "kept", "done"]);
    let error = inbox.settle(&keys(["2"]), &Action::MarkSeen, soon()).unwrap_err();
    assert_eq!(error.kind(), Kind::AdminRequired, "refused to all there are");
}

/// exchange.md F5: what was done counts, the rest waits for the longest pause, which may be a number in JSON.
#[test]
fn throttled_parts_of_a_batch_are_left_for_later() {
    let (server, account) = linked(|asked, _| {
        batched(asked, |_, url| match url {
            "/me/messages/2" => (429, json!({"Retry-After": 9}), json!({"error": {"code": "ApplicationThrottled"}})),
            "/me/messages/3" => (429, json!({"retry-after": "4"}), Value::Null),
            "/me/messages/4" => (503, json!({}), Value::Null),
            _ => (201, json!({}), json!({})),
        })
    });
    let mut inbox = opened(&server, &account);
    let settled = inbox.settle(&keys(["1", "2", "3", "4", "5"]), &Action::Delete, soon()).unwrap();
    assert_eq!(words(&settled), ["done", "later", "later", "later", "done"]);
    let wait = |one: &Settled| match one {
        Settled::Later(error) => error.wait().map(|wait| wait.as_secs()),
        _ => None,
    };
    assert_eq!(settled.iter().map(wait).collect::<Vec<_>>(), [None, Some(9), Some(9), None, None]);
    server.set(|asked| match asked.path.as_str() {
        "/v1.0/$batch" => batched(asked, |_, _| (429, json!({"Retry-After": 0.5}), Value::Null)),
        _ => answer(200, "{}"),
    });
    let settled = inbox.settle(&keys(["1"]), &Action::Delete, soon()).unwrap();
    assert_eq!(settled.iter().map(wait).collect::<Vec<_>>(), [Some(1)]);
}

/// What reading these comes to.
fn each(inbox: &mut dyn Inbox, ids: &[&str]) -> Vec<String> {
    let entry = |id: &&str| super::Entry {
        key: Key { folder: "INBOX".into(), id: (*id).into() },
        size: 0,
        received_at: Some(1_800_000_000),
    };
    let mut got = Vec::new();
    let mut take = |_, item| {
        got.push(match item {
            Item::Failed(error) => {
                error.code().map_or_else(|| error.provider_code_text().unwrap().into(), str::to_owned)
            }
            Item::Read(_) => "read".into(),
            Item::Gone | Item::LeftOut => "gone".into(),
        });
        ControlFlow::Continue(())
    };
    let entries: Vec<_> = ids.iter().map(entry).collect();
    inbox.read(&entries, soon(), &mut take).unwrap();
    got
}

/// exchange.md F1: a 404 of any code was taken as "deleted", and the mail settled for ever.
#[test]
fn a_404_is_not_the_end_of_a_message_until_the_folder_lacks_it() {
    let (server, account) = linked(|asked, _| match asked.path.as_str() {
        "/v1.0/me/messages/1/$value" => answer(404, r#"{"error":{"code":"MailboxNotEnabledForRESTAPI"}}"#),
        "/v1.0/me/messages/2/$value" => answer(404, r#"{"error":{"code":"ResourceNotFound"}}"#),
        "/v1.0/me/messages/3/$value" => answer(404, r#"{"error":{"code":"ErrorInvalidUser"}}"#),
        "/v1.0/me/messages/4/$value" => (404, "Content-Type: text/html\r\n".into(), "<html>Not found</html>".into()),
        "/v1.0/me/messages/listed/$value" | "/v1.0/me/messages/gone/$value" => {
            answer(404, r#"{"error":{"code":"ErrorItemNotFound"}}"#)
        }
        path if path.starts_with("/v1.0/me/mailFolders/inbox/messages?") => {
            assert!(path.contains("receivedDateTime%20ge%202027-01-15T08%3A00%3A00Z%20and"), "{path}");
            answer(200, r#"{"value":[{"id":"listed"}]}"#)
        }
        _ => plain(200, "Subject: fine\r\n\r\n"),
    });
    let mut inbox = opened(&server, &account);
    let got = each(inbox.as_mut(), &["1", "2", "3", "4", "listed", "gone", "well"]);
    let expected = [
        "MailboxNotEnabledForRESTAPI",
        "ResourceNotFound",
        "ErrorInvalidUser",
        "HTTP 404",
        "ErrorItemNotFound",
        "gone",
        "read",
    ];
    assert_eq!(got, expected);
}

/// exchange.md F12: with any code, for as long as the link is kept.
#[test]
fn a_link_that_is_refused_for_ever_is_given_up_when_the_folder_can_be_listed() {
    for code in ["BadRequest", "ErrorInvalidIdMalformed", ""] {
        let (server, account) = linked(move |asked, base| match asked.path.as_str() {
            "/v1.0/dead" => answer(400, json!({"error": {"code": code}}).to_string()),
            _ => page(&[("old", OLD), ("new", NEW)], ("@odata.deltaLink", format!("{base}/v1.0/delta"))),
        });
        let dead = format!("{}/v1.0/dead", server.base);
        let stored = AnyCursor::Graph(Feed { position: Some(dead), resume_at: 1_772_625_600, ..Feed::default() });
        let mut inbox = opened(&server, &account);
        let listing = inbox.list("INBOX", Some(&stored), Since::Now, soon()).unwrap();
        assert!(listing.reset.is_some(), "it is told");
        assert_eq!(listing.entries.iter().map(|entry| entry.key.id.as_str()).collect::<Vec<_>>(), ["new"]);
        assert_eq!(server.asked("/v1.0/dead").len(), 2, "once may be chance");
        // Everything is refused: nothing is given up.
        server.set(move |asked| match asked.path.as_str() {
            "/v1.0/me/mailFolders/inbox?$select=id" => answer(200, r#"{"id":"I"}"#),
            _ => answer(400, json!({"error": {"code": code}}).to_string()),
        });
        assert_eq!(
            inbox.list("INBOX", Some(&stored), Since::Now, soon()).err().unwrap().kind(),
            Kind::ServerMisbehaved
        );
    }
}

/// exchange.md F13, and a folder that came out of a backup: its link leads to one that is not there any more.
#[test]
fn a_404_of_the_list_speaks_of_the_folder_by_its_code_only() {
    let (server, account) = linked(|_, _| answer(404, r#"{"error":{"code":"MailboxNotEnabledForRESTAPI"}}"#));
    let mut inbox = opened(&server, &account);
    let error = inbox.list("INBOX", None, Since::Now, soon()).err().unwrap();
    assert_eq!((error.kind(), error.code()), (Kind::AdminRequired, Some("MailboxNotEnabledForRESTAPI")));
    assert!(error.remedy_text().unwrap().contains("licence"), "{error}");
    let (server, account) = linked(|_, _| answer(404, r#"{"error":{"code":"ErrorItemNotFound"}}"#));
    let error = opened(&server, &account).list("INBOX", None, Since::Now, soon()).err().unwrap();
    assert!(error.is_of_folder(), "{error}");

    let (server, account) = linked(|asked, base| match asked.path.as_str() {
        "/v1.0/other" => answer(404, r#"{"error":{"code":"ErrorItemNotFound"}}"#),
        _ => page(&[("new", NEW)], ("@odata.deltaLink", format!("{base}/v1.0/delta"))),
    });
    let position = Some(format!("{}/v1.0/other", server.base));
    let stored = AnyCursor::Graph(Feed { position, resume_at: 1_772_625_600, ..Feed::default() });
    let listing = opened(&server, &account).list("INBOX", Some(&stored), Since::Now, soon()).unwrap();
    assert!(listing.reset.unwrap().contains("another folder") && listing.entries.len() == 1);
}

/// exchange.md F8: there, and not listed under its name; and pages that are empty and go on.
#[test]
fn a_folder_whose_name_is_taken_is_looked_for_again() {
    let (server, account) = linked(|asked, base| match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", "/v1.0/me/mailFolders") => answer(409, r#"{"error":{"code":"ErrorFolderExists"}}"#),
        ("POST", _) => batched(asked, |_, _| (201, json!({}), json!({}))),
        ("GET", "/v1.0/page2") => {
            answer(200, r#"{"value":[{"id":"x","displayName":"Donet"},{"id":"D","displayName":"done"}]}"#)
        }
        ("GET", path) if path.contains("includeHiddenFolders=true") => {
            answer(200, json!({"value": [], "@odata.nextLink": format!("{base}/v1.0/page2")}).to_string())
        }
        // As if $filter meant nothing.
        ("GET", path) if path.contains("$filter") => answer(200, r#"{"value":[{"id":"I","displayName":"Inbox"}]}"#),
        _ => answer(200, r#"{"value":[]}"#),
    });
    let mut inbox = opened(&server, &account);
    let done = inbox.settle(&keys(["1"]), &Action::Move { folder: "Done".into() }, soon()).unwrap();
    assert_eq!(words(&done), ["done"]);
    let batch: Value = serde_json::from_slice(&server.asked("/v1.0/$batch")[0].body).unwrap();
    assert_eq!(batch["requests"][0]["body"], json!({"destinationId": "D"}));
    let error = inbox.settle(&keys(["1"]), &Action::Move { folder: "Nowhere".into() }, soon()).unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Settings, Some("ErrorFolderExists")));
}

/// exchange.md F16a: moved out and back by a rule.
#[test]
fn what_left_the_folder_and_came_back_is_handed_out() {
    let removed = |id: &str| json!({"id": id, "@removed": {"reason": "changed"}});
    let here = |id: &str| json!({"id": id, "receivedDateTime": NEW});
    let pages = [
        json!([here("a"), here("b"), removed("a"), removed("b")]),
        json!([here("a")]),
        json!([removed("a"), here("a"), removed("never")]),
    ];
    let next = AtomicUsize::new(0);
    let (server, account) = linked(move |_, base| {
        let at = next.fetch_add(1, Ordering::SeqCst);
        let value = pages.get(at).cloned().unwrap_or(json!([]));
        answer(200, json!({"value": value, "@odata.deltaLink": format!("{base}/v1.0/d{at}")}).to_string())
    });
    let mut inbox = opened(&server, &account);
    let ids = |listing: &super::Listing| listing.entries.iter().map(|entry| entry.key.id.clone()).collect::<Vec<_>>();
    let first = inbox.list("INBOX", None, Since::Now, soon()).unwrap();
    assert!(ids(&first).is_empty());
    let [b] = keys(["b"]);
    assert!(first.cursor.listed(&b), "whoever was handed it may settle it");
    let second = inbox.list("INBOX", Some(&first.cursor), Since::Now, soon()).unwrap();
    assert_eq!(ids(&second), ["a"]);
    let mut stored = second.cursor.clone();
    let third = inbox.list("INBOX", Some(&stored), Since::Now, soon()).unwrap();
    assert_eq!(ids(&third), ["a"]);
    // Settled, it stays so wherever it goes.
    stored.settle(&[(keys(["a"])[0].clone(), None)], 0);
    assert!(stored.is_settled(&keys(["a"])[0]));
}

#[test]
fn a_shared_mailbox_is_named() {
    let (server, mut account) = graph(|_| answer(200, "{}"));
    account.consenting_user = "anna@corp.test".into();
    opened(&server, &account);
    assert_eq!(server.asked("/v1.0/users/helpdesk%40corp.test/mailFolders/inbox?$select=id").len(), 1);
}

#[test]
fn refusals_keep_their_code_and_say_what_to_do() {
    let quota = r#"{"error":{"code":"ErrorQuotaExceeded","message":"The mailbox is full."}}"#;
    let busy =
        r#"{"error":{"code":"ApplicationThrottled","message":"Application is over its MailboxConcurrency limit."}}"#;
    for (status, headers, body, kind, wait, code) in [
        (429, "", busy, Kind::Throttled, None, "429 ApplicationThrottled"),
        (429, "Retry-After: 10\r\n", "", Kind::Throttled, Some(10), "HTTP 429"),
        (503, "Retry-After: 3\r\n", "<html>", Kind::Throttled, Some(3), "HTTP 503"),
        (504, "", "{}", Kind::Transient, None, "HTTP 504"),
        (503, "", r#"{"error":{"code":"serviceNotAvailable"}}"#, Kind::Transient, None, "503 serviceNotAvailable"),
        (403, "", quota, Kind::AdminRequired, None, "403 ErrorQuotaExceeded"),
        (400, "", r#"{"error":{"code":"ErrorNewlyMade"}}"#, Kind::ServerMisbehaved, None, "400 ErrorNewlyMade"),
        (403, "", r#"{"error":{"code":"ErrorNewlyMade"}}"#, Kind::Refused, None, "403 ErrorNewlyMade"),
        (403, "", r#"{"error":{"code":"ErrorAccessDenied"}}"#, Kind::AdminRequired, None, "403 ErrorAccessDenied"),
    ] {
        let (server, account) = linked(move |_, _| (status, headers.to_owned(), body.to_owned()));
        let error = opened(&server, &account).list("INBOX", None, Since::Now, soon()).err().unwrap();
        assert_eq!((error.kind(), error.wait().map(|wait| wait.as_secs())), (kind, wait), "{status} {body}");
        assert_eq!(error.provider_code_text(), Some(code));
    }
}

#[test]
fn one_message_that_is_not_given_out_keeps_back_no_other() {
    let (server, account) = linked(|asked, _| match asked.path.as_str() {
        "/v1.0/me/messages/poison/$value" => answer(400, r#"{"error":{"code":"ErrorMimeContentConversionFailed"}}"#),
        _ => plain(200, "Subject: fine\r\n\r\n"),
    });
    let entries = ["1", "poison", "2"].map(|id| super::Entry {
        key: Key { folder: "INBOX".into(), id: id.into() },
        size: 0,
        received_at: None,
    });
    let mut got = Vec::new();
    let mut take = |_, item| {
        got.push(match item {
            Item::Failed(error) => error.provider_code_text().unwrap().to_owned(),
            Item::Read(_) => "read".into(),
            Item::Gone | Item::LeftOut => "gone".into(),
        });
        ControlFlow::Continue(())
    };
    opened(&server, &account).read(&entries, soon(), &mut take).unwrap();
    assert_eq!(got, ["read", "400 ErrorMimeContentConversionFailed", "read"]);
}

/// exchange.md F2: whatever `$value` carried with 200 was handed out, and the mail itself then moved or deleted.
#[test]
fn what_is_not_the_message_is_not_handed_out_as_one() {
    let mail = "From: a@b\r\nSubject: x\r\n\r\nhello";
    for (status, headers, body, is_read) in [
        (200, "Content-Type: text/plain\r\n", mail, true),
        (200, "Content-Type: message/rfc822\r\nContent-Encoding: identity\r\n", mail, true),
        (200, "", mail, true),
        (200, "Content-Type: text/plain\r\n", "", false),
        (204, "", "", false),
        (200, "Content-Type: text/plain\r\n", "{}", false),
        (200, "Content-Type: application/json; charset=utf-8\r\n", mail, false),
        (200, "Content-Type: application/problem+json\r\n", mail, false),
        (200, "Content-Type: text/plain\r\n", r#"{"error":{"code":"ErrorItemNotFound"}}"#, false),
        (200, "Content-Type: text/html\r\n", mail, false),
        (200, "Content-Type: text/plain\r\n", "<html><title>Sign in</title></html>", false),
        (200, "Content-Type: text/plain\r\nContent-Encoding: gzip\r\n", mail, false),
        (200, "Content-Type: text/plain\r\n", "The message could not be read: try again.", false),
    ] {
        let (server, account) = linked(move |_, _| (status, headers.to_owned(), body.to_owned()));
        let entry = super::Entry { key: Key { folder: "INBOX".into(), id: "1".into() }, size: 0, received_at: None };
        let mut read = None;
        let mut take = |_, item| {
            read = Some(item);
            ControlFlow::Continue(())
        };
        opened(&server, &account).read(&[entry], soon(), &mut take).unwrap();
        match read.unwrap() {
            Item::Read(_) => assert!(is_read, "{headers} {body}"),
            Item::Failed(error) => assert!(!is_read && error.kind() == Kind::ServerMisbehaved, "{error}"),
            Item::Gone | Item::LeftOut => panic!("gone"),
        }
        let asked = server.asked("/v1.0/me/messages/1/$value");
        assert_eq!(asked[0].accept_encoding.as_deref(), Some("identity"));
    }
}

#[test]
fn folders_are_found_by_path_and_special_use_and_made_where_mail_is_moved_to() {
    let (server, account) = linked(|asked, _| match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", path) if path.contains("/mailFolders/inbox/childFolders?") => {
            answer(200, r#"{"value":[{"id":"other","displayName":"Client"},{"id":"C/1","displayName":"CLIENTS"}]}"#)
        }
        ("GET", path) if path.contains("/mailFolders/C%2F1/childFolders?") => answer(200, r#"{"value":[]}"#),
        ("POST", "/v1.0/me/mailFolders/C%2F1/childFolders") => answer(201, r#"{"id":"made"}"#),
        ("POST", _) => answer(200, r#"{"responses":[{"id":"0","status":201}]}"#),
        (_, path) if path.contains("totalItemCount") => answer(200, r#"{"totalItemCount":3}"#),
        (_, path) if path.contains("$top=1") => answer(200, r#"{"value":[{"id":"m"}]}"#),
        _ => answer(404, r#"{"error":{"code":"ErrorItemNotFound"}}"#),
    });
    let mut inbox = opened(&server, &account);
    let keys = [Key { folder: "INBOX".into(), id: "a".into() }];
    let action = Action::Move { folder: "Inbox/Clients/O'Brien".into() };
    assert_eq!(words(&inbox.settle(&keys, &action, soon()).unwrap()), ["done"]);
    let asked: Vec<String> = server.all_asked().into_iter().map(|asked| asked.path).collect();
    assert!(asked.iter().any(|path| path.ends_with("displayName%20eq%20%27O%27%27Brien%27")), "{asked:?}");
    let batch: Value = serde_json::from_slice(&server.asked("/v1.0/$batch")[0].body).unwrap();
    assert_eq!(batch["requests"][0]["body"], json!({"destinationId": "made"}));
    assert_eq!(batch["requests"][0]["headers"]["Prefer"], "IdType=\"ImmutableId\"");

    let look = inbox.look("\\Archive", soon()).unwrap().unwrap();
    assert_eq!((look.messages, look.newest.unwrap().key.id), (3, "m".into()));
    assert_eq!(server.asked("/v1.0/me/mailFolders/archive?$select=totalItemCount").len(), 1);
    assert!(inbox.look("Inbox/Clients/Nobody", soon()).unwrap().is_none());
}

#[test]
fn an_application_names_the_mailbox_and_asks_nobody() {
    let (server, mut account) = graph(|_| answer(200, "{}"));
    account.client.grant = GrantType::ClientCredentials;
    opened(&server, &account);
    assert_eq!(server.asked("/v1.0/users/helpdesk%40corp.test/mailFolders/inbox?$select=id").len(), 1);
}

#[test]
fn the_sent_folder_is_looked_into_by_message_id() {
    let (server, account) = linked(|asked, _| match asked.path.contains("%3Co%27%27brien%40a.test%3E") {
        true => answer(200, r#"{"value":[{"id":"s"}]}"#),
        false => answer(200, r#"{"value":[]}"#),
    });
    let mut inbox = opened(&server, &account);
    let mut find = |id: &str| inbox.find_sent(id, soon());
    assert_eq!(find("<o'brien@a.test>").unwrap(), Some(("sentitems".into(), 1)));
    assert_eq!(find("<other@a.test>").unwrap(), Some(("sentitems".into(), 0)));
    assert_eq!(find("<a b>").unwrap_err().kind(), Kind::Misuse);
}

#[test]
fn the_transcript_tells_what_was_asked_and_no_secret() {
    let lines = Arc::new(Mutex::new(String::new()));
    let sink = lines.clone();
    let log = Logger::new(move |_, _, line| sink.lock().unwrap().push_str(&format!("{line}\n")));
    let long = "AAMkAGI2".repeat(12);
    let (server, account) = graph(|asked| match asked.path.contains("deltatoken") {
        true => (429, "request-id: r-1\r\n".into(), r#"{"error":{"code":"ApplicationThrottled"}}"#.into()),
        false => answer(200, "{}"),
    });
    let token = Secret::new("canary-token");
    let login = Login { username: &account.username, token: &token };
    let mut inbox = open(&account, &server.net(), &login, &Transcript::new(Some(log)), soon())
        .unwrap_or_else(|_| panic!("not opened"));
    let link = format!("{}/v1.0/me/mailFolders/{long}/messages/delta?$deltatoken=canary-delta", server.base);
    let stored = AnyCursor::Graph(Feed { position: Some(link), ..Feed::default() });
    assert!(inbox.list("INBOX", Some(&stored), Since::Now, soon()).is_err());
    let lines = lines.lock().unwrap();
    for expected in [
        "C: GET /v1.0/me/mailFolders/inbox?$select {0 bytes}",
        "S: 200 {2 bytes}",
        "C: GET /v1.0/me/mailFolders/AAMkAGI2…AAMkAGI2/messages/delta?$deltatoken {0 bytes}",
        "S: 429 ApplicationThrottled {41 bytes} request-id=r-1",
    ] {
        assert!(lines.contains(expected), "{expected} is not in\n{lines}");
    }
    assert!(!lines.contains("canary"), "{lines}");
}

#[test]
fn a_token_that_was_revoked_is_replaced_once() {
    let given = Arc::new(AtomicUsize::new(0));
    let bench = Bench::new(move |asked| match asked.path.as_str() {
        "/token" => {
            let n = given.fetch_add(1, Ordering::SeqCst) + 1;
            answer(
                200,
                format!(r#"{{"access_token":"t{n}","token_type":"Bearer","expires_in":3600,"refresh_token":"r{n}"}}"#),
            )
        }
        _ if asked.authorization.as_deref() == Some("Bearer t2") => answer(200, "{}"),
        // Continuous access evaluation.
        _ => (
            401,
            "WWW-Authenticate: Bearer error=\"insufficient_claims\", claims=\"eyJ9\"\r\n".into(),
            r#"{"error":{"code":"InvalidAuthenticationToken","message":"TokenIssuedBeforeRevocationTimestamp"}}"#
                .into(),
        ),
    });
    bench.consent();
    let mut account = bench.account.clone();
    account.protocol = Protocol::Graph { base_url: format!("{}/v1.0", bench.idp.base).parse().unwrap() };
    let session = Session::new(account, bench.net.clone(), bench.another(), bench.clock.clone(), Logger::silent());
    assert!(session.open_inbox(soon()).is_ok());
    let inbox = "/v1.0/me/mailFolders/inbox?$select=id";
    assert_eq!(bench.idp.asked(inbox).len(), 2);
    // Refused again, it says so and asks for no third.
    bench.idp.set(|asked| match asked.path.as_str() {
        "/token" => answer(200, r#"{"access_token":"t9","token_type":"Bearer","expires_in":3600}"#),
        _ => answer(401, r#"{"error":{"code":"InvalidAuthenticationToken"}}"#),
    });
    let error = session.open_inbox(soon()).err().unwrap();
    assert_eq!(error.provider_code_text(), Some("401 InvalidAuthenticationToken"));
    assert_eq!(bench.idp.asked(inbox).len(), 4);
}
