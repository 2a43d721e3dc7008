//! Going on where IMAP or EWS stopped.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::{
    super::{
        Cursor, Key, Listing,
        feed::{Feed, Listed},
        imap,
        moving::Marks,
    },
    tests::{NEW, OLD, cursor, linked, opened},
};
use crate::{
    clock::Clock,
    error::Kind,
    message::fingerprint::{Fingerprint, Traits},
    oauth::tests_support::{Answer, Asked, Idp, json as answer, soon},
    settings::{Account, Former, Since, parse},
};

fn key(id: &str) -> Key {
    Key { folder: "INBOX".into(), id: id.into() }
}

fn mark(id: &str) -> Option<Fingerprint> {
    Traits { message_id: Some(id.into()), ..Traits::default() }.fingerprint()
}

fn told(account: &Account, former: Option<Former>) -> Account {
    let form = json!({"incoming": {
        "connection_protocol": "EWS", "connect_url": "https://a.test", "username": "a@a.test", "client_id": "c",
        "client_secret": "s", "scope": "s", "redirect_url": "https://desk.test/cb", "email_addresses": ["a@a.test"],
        "authorize_url": "https://a.test/a", "access_token_url": "https://a.test/t",
    }});
    let mut fetching = parse(&form.to_string()).unwrap_or_else(|e| panic!("{e} {:?}", e.faults())).fetching.unwrap();
    fetching.moved_from = former;
    Account { fetching: Some(fetching), ..account.clone() }
}

fn list(server: &Idp, account: &Account, stored: &Cursor) -> crate::error::Result<Listing> {
    opened(server, account).list("INBOX", Some(stored), Since::Now, soon())
}

fn ids(listing: &Listing) -> Vec<&str> {
    listing.entries.iter().map(|entry| entry.key.id.as_str()).collect()
}

/// Settled: 1 and one copy of the list's mail, and one without Message-ID. Open: the other copy.
fn folder(asked: &Asked, base: &str) -> Answer {
    let message = |id: &str, message_id: &str, at: &str| {
        json!({"id": id, "receivedDateTime": at,
        "internetMessageId": message_id, "sentDateTime": "2026-11-27T07:00:00Z", "subject": if id == "bare" { "café" } else { id },
        "from": {"emailAddress": {"address": "Ann@A.test"}}})
    };
    let (items, link) = match asked.path.as_str() {
        "/v1.0/next" => {
            (json!([message("list2", "<list@a>", NEW), message("new", "<new@a>", NEW)]), ("@odata.deltaLink", "delta"))
        }
        "/v1.0/me/translateExchangeIds" => {
            let asked: Value = serde_json::from_slice(&asked.body).unwrap();
            let ids = asked["inputIds"].as_array().unwrap();
            let pairs: Vec<Value> = ids
                .iter()
                .filter(|id| *id != "gone")
                .map(|id| json!({"sourceId": id, "targetId": format!("{}-new", id.as_str().unwrap())}))
                .collect();
            return answer(200, json!({"value": pairs}).to_string());
        }
        path => {
            assert!(path.contains("internetMessageId"), "{path}");
            (
                json!([
                    message("one", "<1@a>", NEW),
                    message("list1", "<list@a>", NEW),
                    message("bare", "<made@by.exchange>", NEW),
                    message("old", "<0@a>", OLD)
                ]),
                ("@odata.nextLink", "next"),
            )
        }
    };
    answer(200, json!({"value": items, link.0: format!("{base}/v1.0/{}", link.1)}).to_string())
}

fn of_imap() -> Cursor {
    let now = Clock::default().now();
    let mut old = Cursor::Imap(imap::Cursor::new(7, 0, now));
    let Cursor::Imap(cursor) = &mut old else { unreachable!() };
    cursor.marks = Marks::new(Since::Everything, now);
    let bare = Traits::of(b"From: ann@a.test\r\nDate: Fri, 27 Nov 2026 08:00:00 +0100\r\nSubject: caf\xc3\xa9\r\n\r\n");
    old.settle(&[(key("7.1"), mark("1@a")), (key("7.2"), mark("<list@a>")), (key("7.3"), bare.fingerprint())], now);
    old
}

#[test]
fn from_imap_only_what_was_not_settled_comes() {
    let (server, account) = linked(folder);
    let account = told(&account, Some(Former::Imap));
    let listing = list(&server, &account, &of_imap()).unwrap();
    assert_eq!(ids(&listing), ["list2", "new"]);
    assert!(listing.reset.as_deref().unwrap().contains("goes on over Microsoft Graph where IMAP stopped"));
    assert!(cursor(&listing).former.is_empty());
    // Not stored, it begins again and comes to the same.
    assert_eq!(ids(&list(&server, &account, &of_imap()).unwrap()), ["list2", "new"]);
    // Stored, it is its own.
    let mut stored = listing.cursor.clone();
    stored.settle(&[(key("new"), mark("<new@a>"))], Clock::default().now());
    server.set(|_| answer(200, r#"{"value":[],"@odata.deltaLink":"DELTA"}"#.replace("DELTA", "x")));
    assert_eq!(cursor(&listing).settled.len(), 3);
    assert!(stored.is_settled(&key("new")) && stored.is_settled(&key("one")) && !stored.is_settled(&key("list2")));
}

#[test]
fn nobody_moves_by_accident() {
    let (server, account) = linked(folder);
    for former in [None, Some(Former::Ews)] {
        let error = list(&server, &told(&account, former), &of_imap()).err().unwrap();
        assert_eq!(error.kind(), Kind::Settings);
        assert!(error.to_string().contains("Moved From"), "{error}");
    }
    assert!(server.all_asked().iter().all(|asked| !asked.path.contains("delta")));
}

#[test]
fn from_ews_ids_are_translated() {
    let now = Clock::default().now();
    let mut ews = Feed { begin: None, ..Feed::new(Since::Everything, now) };
    ews.resume_at = now;
    for id in ["list2", "gone", "one"] {
        ews.add(id, Listed { received_at: Some(now - 10), size: 5 });
    }
    let mut old = Cursor::Ews(ews);
    old.settle(&[(key("one"), mark("<1@a>"))], now);
    let renamed = |asked: &Asked, base: &str| {
        let (status, headers, body) = folder(asked, base);
        (
            status,
            headers,
            body.replace(r#""id":"one""#, r#""id":"one-new""#).replace(r#""id":"list2""#, r#""id":"list2-new""#),
        )
    };
    let (server, account) = linked(renamed);
    let account = told(&account, Some(Former::Ews));
    let listing = list(&server, &account, &old).unwrap();
    // The first copy of the list's mail was never settled, either.
    assert_eq!(sorted(&listing), ["bare", "list1", "list2-new", "new"]);
    assert_eq!(cursor(&listing).settled, ["one-new"]);

    // Without the permission to translate the fingerprints are enough.
    let (server, account) = linked(|asked, base| match asked.path.contains("translate") {
        true => answer(403, r#"{"error":{"code":"Authorization_RequestDenied"}}"#),
        false => folder(asked, base),
    });
    let account = told(&account, Some(Former::Ews));
    assert_eq!(sorted(&list(&server, &account, &old).unwrap()), ["bare", "list1", "list2", "new"]);
    // Throttled, nothing is taken over yet.
    server.set(|asked| match asked.path.contains("translate") {
        true => answer(429, "{}"),
        false => answer(200, "{}"),
    });
    assert_eq!(list(&server, &account, &old).err().unwrap().kind(), Kind::Throttled);
}

fn sorted(listing: &Listing) -> Vec<&str> {
    let mut ids = ids(listing);
    ids.sort_unstable();
    ids
}
