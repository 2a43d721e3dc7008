//! Against a scripted https server that answers as Exchange does; faults included.
#![allow(clippy::unwrap_used)]

use std::{
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    super::words,
    client::{Client, is_online},
    open, open_outbox,
};
use crate::{
    error::{Error, Kind},
    limits,
    log::Logger,
    message::fingerprint::Traits,
    oauth::tests_support::{Answer, Asked, Idp, account, soon},
    secret::Secret,
    settings::{Account, Action, GrantType, Protocol, Since},
    transport::{
        Cursor, Entry, Envelope, Inbox, Item, Key, Login, OpenError, Outcome, Raw, Transcript,
        feed::{Feed, Listed},
    },
};

const OLD: &str = "2020-01-01T00:00:00Z";
const NEW: &str = "2099-01-01T00:00:00Z";

fn xml(status: u16, body: &str) -> Answer {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns:m=\"m\" xmlns:t=\"t\"><s:Body>{body}</s:Body></s:Envelope>"
    );
    (status, "Content-Type: text/xml; charset=utf-8\r\nrequest-id: r-1\r\n".into(), text)
}

fn fault(status: u16, code: &str, more: &str) -> Answer {
    xml(
        status,
        &format!(
            "<s:Fault><faultcode xmlns:a=\"a\">a:{code}</faultcode><faultstring>x</faultstring><detail>\
             <e:ResponseCode xmlns:e=\"e\">{code}</e:ResponseCode>{more}</detail></s:Fault>"
        ),
    )
}

/// One response message for each of `messages`.
fn messages(messages: &[String]) -> Answer {
    xml(200, &format!("<m:R><m:ResponseMessages>{}</m:ResponseMessages></m:R>", messages.concat()))
}

fn done(inner: &str) -> String {
    format!("<m:M ResponseClass=\"Success\"><m:ResponseCode>NoError</m:ResponseCode>{inner}</m:M>")
}

fn refused(code: &str) -> String {
    format!("<m:M ResponseClass=\"Error\"><m:ResponseCode>{code}</m:ResponseCode></m:M>")
}

fn body(asked: &Asked) -> String {
    String::from_utf8(asked.body.clone()).unwrap()
}

/// The ids that a request names, in order.
fn ids(asked: &Asked) -> Vec<String> {
    let text = body(asked);
    text.split("<t:ItemId Id=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

/// `handler` gets every operation but GetFolder, by name.
fn exchange(handler: impl Fn(&str, &Asked) -> Answer + Send + Sync + 'static) -> (Idp, Account) {
    let server = Idp::new(move |asked| {
        let text = body(asked);
        let operation = text.split("<s:Body><m:").nth(1).unwrap().split([' ', '>']).next().unwrap();
        if operation == "GetFolder" { messages(&[done("")]) } else { handler(operation, asked) }
    });
    let mut account = account(&server.base);
    account.protocol = Protocol::Ews { url: format!("{}/EWS/Exchange.asmx", server.base).parse().unwrap() };
    (server, account)
}

fn inbox(server: &Idp, account: &Account) -> Result<Box<dyn Inbox>, OpenError> {
    let token = Secret::new("token-1");
    let login = Login { username: &account.username, token: &token };
    open(account, &server.net(), &login, &Transcript::default(), soon())
}

fn opened(server: &Idp, account: &Account) -> Box<dyn Inbox> {
    inbox(server, account).unwrap_or_else(|_| panic!("not opened"))
}

fn page(changes: &str, state: &str, is_end: bool) -> Answer {
    messages(&[done(&format!(
        "<m:SyncState>{state}</m:SyncState><m:IncludesLastItemInRange>{is_end}</m:IncludesLastItemInRange>\
         <m:Changes>{changes}</m:Changes>"
    ))])
}

fn create(kind: &str, id: &str, at: &str) -> String {
    format!(
        "<t:Create><t:{kind}><t:ItemId Id=\"{id}\" ChangeKey=\"k\"/><t:DateTimeReceived>{at}</t:DateTimeReceived>\
         <t:Size>1234</t:Size></t:{kind}></t:Create>"
    )
}

fn listed(inbox: &mut dyn Inbox, cursor: Option<&Cursor>, since: Since) -> (Vec<String>, Cursor) {
    let listing = inbox.list("INBOX", cursor, since, soon()).unwrap();
    (listing.entries.iter().map(|entry| entry.key.id.clone()).collect(), listing.cursor)
}

fn key(id: &str) -> Key {
    Key { folder: "INBOX".into(), id: id.into() }
}

fn entries(list: &[(&str, u64)]) -> Vec<Entry> {
    list.iter().map(|(id, size)| Entry { key: key(id), size: *size, received_at: None }).collect()
}

fn mime(id: &str, raw: &[u8]) -> String {
    let content = BASE64_STANDARD.encode(raw);
    done(&format!(
        "<m:Items><t:Message><t:MimeContent CharacterSet=\"UTF-8\">{content}</t:MimeContent>\
         <t:ItemId Id=\"{id}\" ChangeKey=\"k\"/></t:Message></m:Items>"
    ))
}

/// A message with this subject.
fn mail(id: &str, subject: &str) -> String {
    mime(id, format!("Subject: {subject}\r\n\r\n").as_bytes())
}

#[test]
fn changes_become_a_feed_and_what_is_no_mail_is_passed_over() {
    let (server, account) = exchange(|_, asked| match body(asked) {
        text if text.contains("<m:SyncState>s1&lt;</m:SyncState>") => page(
            &[create("MeetingRequest", "b", NEW), create("Contact", "c", NEW), create("RoleMember", "B", NEW)].concat(),
            "s2",
            true,
        ),
        text if text.contains("<m:SyncState>s2</m:SyncState>") => page(
            "<t:ReadFlagChange><t:ItemId Id=\"a\"/><t:IsRead>true</t:IsRead></t:ReadFlagChange>\
             <t:Update><t:Message><t:ItemId Id=\"a\"/></t:Message></t:Update><t:Delete><t:ItemId Id=\"b\"/></t:Delete>\
             <t:Create/><t:Create><t:Message/></t:Create><t:Odd/>",
            "s3",
            true,
        ),
        _ => page(
            &(create("Message", "a", NEW)
                + &create("Message", "old", OLD)
                + &create("Message", "draft", NEW).replace("<t:Size>", "<t:IsDraft>true</t:IsDraft><t:Size>")),
            "s1&lt;",
            false,
        ),
    });
    let mut inbox = opened(&server, &account);
    let (ids, mut cursor) = listed(inbox.as_mut(), None, Since::Now);
    // Case counts in ids; a type that nobody knows is handed out.
    assert_eq!(ids, ["B", "a", "b"]);
    assert!(!cursor.listed(&key("old")) && !cursor.listed(&key("c")) && !cursor.listed(&key("draft")));
    let Cursor::Ews(feed) = &cursor else { panic!("another protocol") };
    assert_eq!((feed.position.as_deref(), feed.open["a"].size), (Some("s2"), 1234));
    cursor.settle(&[(key("a"), None)], 0);
    let (ids, cursor) = listed(inbox.as_mut(), Some(&cursor), Since::Now);
    assert_eq!(ids, ["B"], "a was settled before somebody read it, b was deleted");
    let Cursor::Ews(feed) = cursor else { panic!("another protocol") };
    assert_eq!(feed.position.as_deref(), Some("s3"));
}

/// exchange.md F7: one old Subject with such a character stopped the folder for ever.
#[test]
fn characters_that_xml_forbids_stop_no_folder() {
    for forbidden in ["&#x1F;", "&#x0;", "&#xFFFE;", "\u{B}", "\u{FFFF}", "&#xD83D;", "&nbsp;", "&"] {
        let (server, account) = exchange(move |_, _| {
            let traits = format!(
                "<t:Subject>a{forbidden}b</t:Subject><t:From><t:Mailbox><t:Name>{forbidden}</t:Name></t:Mailbox>\
                 </t:From><t:Size>"
            );
            page(&create("Message", "a", NEW).replace("<t:Size>", &traits), "s", true)
        });
        let (ids, _) = listed(opened(&server, &account).as_mut(), None, Since::Now);
        assert_eq!(ids, ["a"], "{forbidden:?}");
    }
    let (server, account) = exchange(|_, asked| {
        let text = "<m:MessageText>\u{1}&#2;</m:MessageText><m:ResponseCode>";
        let refused = refused("ErrorItemCorrupt").replace("<m:ResponseCode>", text);
        messages(&[refused, mail(&ids(asked)[1], "fine")])
    });
    let got = Got::default();
    read(opened(&server, &account).as_mut(), &entries(&[("1", 1), ("2", 1)]), &got).unwrap();
    assert_eq!(*got.lock().unwrap(), ["ErrorItemCorrupt", "fine"]);
}

/// XML Schema part 2, 3.2.2: `1` is true, and white space does not count.
#[test]
fn a_boolean_has_two_spellings_and_white_space() {
    for (written, is_last) in [("true", true), (" 1\n", true), ("1", true), ("false", false), ("0", false)] {
        let asked = AtomicUsize::new(0);
        let (server, account) = exchange(move |_, _| {
            let draft = create("Message", "d", NEW).replace("<t:Size>", "<t:IsDraft> 1 </t:IsDraft><t:Size>");
            let state = format!("s{}", asked.fetch_add(1, Ordering::SeqCst));
            let answer = page(&(create("Message", "a", NEW) + &draft), &state, true);
            (answer.0, answer.1, answer.2.replace(">true<", &format!(">{written}<")))
        });
        let listing = opened(&server, &account).list("INBOX", None, Since::Now, soon()).unwrap();
        assert_eq!((listing.more, listing.entries.len()), (!is_last, 1), "{written:?}");
    }
}

#[test]
fn a_forgotten_state_is_listed_anew_without_a_flood() {
    for answer in [messages(&[refused("ErrorInvalidSyncStateData")]), fault(500, "ErrorInvalidSyncStateData", "")] {
        let (server, account) = exchange(move |_, asked| match body(asked).contains("<m:SyncState>") {
            true => answer.clone(),
            false => page(&[create("Message", "new", NEW), create("Message", "old", OLD)].concat(), "s", true),
        });
        let stored = Feed { position: Some("gone".into()), resume_at: 1_772_625_600, ..Feed::default() };
        let mut inbox = opened(&server, &account);
        let listing = inbox.list("INBOX", Some(&Cursor::Ews(stored)), Since::Now, soon()).unwrap();
        assert!(listing.reset.unwrap().contains("ErrorInvalidSyncStateData"));
        assert_eq!(listing.entries.iter().map(|entry| entry.key.id.as_str()).collect::<Vec<_>>(), ["new"]);
    }
}

/// gromox 3.10 takes any SyncState for a fresh start, in silence. `knows`: Exchange refuses it.
fn of_any_state(knows: bool, folder: Vec<String>, new: Vec<String>) -> (Idp, Account) {
    exchange(move |_, asked| match body(asked) {
        text if text.contains("<m:SyncState>AAAAAAAA") && knows => messages(&[refused("ErrorInvalidSyncStateData")]),
        text if text.contains("<m:SyncState>mine</m:SyncState>") => page(&new.concat(), "mine2", true),
        _ => page(&folder.concat(), "fresh", true),
    })
}

#[test]
fn a_state_that_was_forgotten_in_silence_is_one_told_resynchronisation() {
    let at = 1_768_464_000;
    let of = |number: usize| create("Message", &format!("m{number}"), "2026-01-10T08:00:00Z");
    let fresh = create("Message", "fresh", "2026-01-15T08:00:00Z");
    let all: Vec<String> = (0..500).map(of).chain([fresh.clone()]).collect();
    let mut stored = Feed { position: Some("mine".into()), resume_at: at - 60, ..Feed::default() };
    stored.settled.extend(["m498".to_owned(), "m499".to_owned()]);
    let stored = Cursor::Ews(stored);

    // It began anew: far more than is remembered, and nothing of it comes again.
    let (server, account) = of_any_state(false, all.clone(), all.clone());
    let listing = opened(&server, &account).list("INBOX", Some(&stored), Since::Now, soon()).unwrap();
    let ids: Vec<_> = listing.entries.iter().map(|entry| entry.key.id.as_str()).collect();
    assert_eq!(ids, ["fresh"]);
    assert!(listing.reset.unwrap().contains("began"), "it is told");

    // The same server kept the state: old mail that somebody moved in is new here.
    let (server, account) = of_any_state(false, all.clone(), vec![of(1000), fresh.clone()]);
    let listing = opened(&server, &account).list("INBOX", Some(&stored), Since::Now, soon()).unwrap();
    assert!(listing.reset.is_none() && listing.entries.len() == 2);
    // A server that refuses what it does not know is asked once.
    let (server, account) = of_any_state(true, all, vec![of(1000), fresh]);
    let mut inbox = opened(&server, &account);
    for _ in 0..2 {
        let listing = inbox.list("INBOX", Some(&stored), Since::Now, soon()).unwrap();
        assert!(listing.reset.is_none() && listing.entries.len() == 2);
    }
    let probes = server.all_asked().iter().filter(|asked| body(asked).contains("<m:SyncState>AAAAAAAA")).count();
    assert_eq!(probes, 1);
}

/// A folder that came out of a backup: all ids are new, and what was settled is known by its fingerprint.
#[test]
fn a_restored_folder_brings_nothing_twice() {
    let with_id = |id: &str, message_id: &str| {
        let trait_ = format!("<t:InternetMessageId>&lt;{message_id}&gt;</t:InternetMessageId><t:Size>");
        create("Message", id, "2026-01-15T08:00:00Z").replace("<t:Size>", &trait_)
    };
    let all = [with_id("new1", "settled@a"), with_id("new2", "open@a")].concat();
    let (server, account) = exchange(move |_, asked| match body(asked).contains("<m:SyncState>") {
        true => messages(&[refused("ErrorInvalidSyncStateData")]),
        false => page(&all, "s", true),
    });
    let mut cursor = Cursor::Ews(Feed { position: Some("x".into()), resume_at: 1_768_464_000, ..Feed::default() });
    let Cursor::Ews(feed) = &mut cursor else { unreachable!() };
    feed.open.insert("old1".into(), Listed { received_at: Some(1_768_464_000), size: 0 });
    feed.open.insert("old2".into(), Listed { received_at: Some(1_768_464_000), size: 0 });
    let traits = Traits { message_id: Some("<settled@a>".into()), ..Traits::default() };
    cursor.settle(&[(key("old1"), traits.fingerprint())], 1_768_464_100);
    let listing = opened(&server, &account).list("INBOX", Some(&cursor), Since::Now, soon()).unwrap();
    assert_eq!(listing.entries.iter().map(|entry| entry.key.id.as_str()).collect::<Vec<_>>(), ["new2"]);
    assert!(listing.reset.is_some());
    // What is not in the folder any more is not listed for ever, and whoever was handed it may settle it.
    assert!(listing.cursor.listed(&key("old2")));
    let asked = server.all_asked().iter().map(body).find(|text| text.contains("InternetMessageId"));
    assert!(asked.is_some(), "what they are known by is asked for");
}

#[test]
fn a_listing_is_bounded_and_goes_on() {
    let count = AtomicUsize::new(0);
    let (server, account) = exchange(move |_, _| {
        let n = count.fetch_add(1, Ordering::SeqCst);
        page(&create("Message", &format!("m{n}"), NEW), &format!("s{n}"), false)
    });
    let listing = opened(&server, &account).list("INBOX", None, Since::Everything, soon()).unwrap();
    assert!(listing.more && listing.entries.len() == limits::FEED_PAGES_MAX);
    let open = listing.entries.iter().map(|entry| (entry.key.id.clone(), Listed::default())).collect();
    let stored = Cursor::Ews(Feed { open, position: Some("same".into()), ..Feed::default() });
    server.set(|asked| if body(asked).contains("GetFolder") { messages(&[done("")]) } else { page("", "same", false) });
    let error = opened(&server, &account).list("INBOX", Some(&stored), Since::Now, soon()).err().unwrap();
    assert_eq!(error.kind(), Kind::ServerMisbehaved);
}

#[test]
fn an_older_server_is_asked_in_its_own_version() {
    let server = Idp::new(|asked| match body(asked) {
        text if text.contains("\"Exchange2013_SP1\"") => fault(500, "ErrorInvalidServerVersion", ""),
        text if text.contains("\"Exchange2010_SP2\"") => messages(&[refused("ErrorIncorrectSchemaVersion")]),
        text if text.contains("SuppressReadReceipts") => fault(500, "ErrorSchemaValidation", ""),
        _ => messages(&[done("")]),
    });
    let mut account = account(&server.base);
    account.protocol = Protocol::Ews { url: format!("{}/EWS/Exchange.asmx", server.base).parse().unwrap() };
    let mut inbox = opened(&server, &account);
    for action in [Action::MarkSeen, Action::Delete] {
        assert_eq!(words(&inbox.settle(&[key("a")], &action, soon()).unwrap()), ["done"]);
    }
    assert_eq!(server.all_asked().len(), 5, "tried once for each version, then remembered");
    server.set(|_| fault(500, "ErrorInvalidServerVersion", ""));
    let Err(OpenError::Other(error)) = self::inbox(&server, &account) else { panic!("opened") };
    assert_eq!(error.kind(), Kind::Unsupported);
}

type Got = Arc<Mutex<Vec<String>>>;

fn read(inbox: &mut dyn Inbox, entries: &[Entry], got: &Got) -> crate::Result<usize> {
    let got = got.clone();
    inbox.read(entries, soon(), &mut |_, item| {
        got.lock().unwrap().push(match item {
            Item::Read(Raw::Memory(bytes)) => {
                String::from_utf8(bytes).unwrap().trim().trim_start_matches("Subject: ").to_owned()
            }
            Item::Read(Raw::Spool { len, .. }) => format!("{len} spooled"),
            Item::Gone | Item::LeftOut => "gone".into(),
            Item::Failed(error) => error.provider_code_text().unwrap_or(error.message()).to_owned(),
        });
        ControlFlow::Continue(())
    })
}

#[test]
fn small_messages_travel_together_and_a_poisoned_one_stops_nobody() {
    let large = [b"From: a@b\r\n\r\n".to_vec(), vec![b'x'; limits::SPOOL_THRESHOLD]].concat();
    let (server, account) = exchange(move |_, asked| {
        let ids = ids(asked);
        let is_alone = ids.len() == 1;
        let one = |id: &String| match id.as_str() {
            "gone" => refused("ErrorItemNotFound"),
            "poison" => refused("ErrorMimeContentConversionFailed"),
            "slow" if !is_alone => refused("ErrorTimeoutExpired"),
            "sick" => refused("ErrorInternalServerError"),
            "odd" => refused("ErrorOfTheFuture"),
            "empty" => mime(id, b""),
            "none" => done(&format!("<m:Items><t:Message><t:ItemId Id=\"{id}\"/></t:Message></m:Items>")),
            "large" => mime(id, &large),
            id => mail(id, &format!("I am {id}")),
        };
        messages(&ids.iter().map(one).collect::<Vec<_>>())
    });
    let list = ["1", "gone", "poison", "slow", "sick", "odd", "empty", "none", "2", "3", "4", "5"];
    let mut wanted = entries(&list.map(|id| (id, 100)));
    wanted.extend(entries(&[("large", 2 << 20), ("7", 100)]));
    let got = Got::default();
    assert_eq!(read(opened(&server, &account).as_mut(), &wanted, &got).unwrap(), wanted.len());
    let no_mime = "Exchange handed out a message without its MIME.";
    let nothing = "Exchange gave out nothing instead of the message.";
    let expected = [
        "I am 1",
        "gone",
        "ErrorMimeContentConversionFailed",
        "I am slow",
        "ErrorInternalServerError",
        "ErrorOfTheFuture",
        nothing,
        no_mime,
        "I am 2",
        "I am 3",
        "I am 4",
        "I am 5",
        "1048589 spooled",
        "I am 7",
    ];
    assert_eq!(*got.lock().unwrap(), expected);
    let mut asked: Vec<_> = server.all_asked().iter().map(ids).filter(|ids| !ids.is_empty()).collect();
    asked.sort();
    assert!(asked.iter().all(|ids| ids.len() <= limits::EWS_BATCH));
    assert!(asked.contains(&vec!["large".to_owned()]), "a large one travels alone: {asked:?}");
    assert_eq!(asked.len(), 7, "four requests, and three that ask again: {asked:?}");
}

/// What FindItem says of the folder: these ids, and whether that is all.
fn found(ids: &[&str], is_all: bool) -> Answer {
    let items: String = ids.iter().map(|id| format!("<t:Message><t:ItemId Id=\"{id}\"/></t:Message>")).collect();
    messages(&[done(&format!(
        "<m:RootFolder IncludesLastItemInRange=\"{is_all}\"><t:Items>{items}</t:Items></m:RootFolder>"
    ))])
}

/// exchange.md F1: with such a code for all of them in one poll, all were settled for ever.
#[test]
fn no_message_is_gone_before_its_folder_lacks_it() {
    for (code, listed, is_all, expected) in [
        ("ErrorItemNotFound", &["1", "2"][..], true, ["ErrorItemNotFound", "ErrorItemNotFound"]),
        ("ErrorItemNotFound", &["2"], true, ["gone", "ErrorItemNotFound"]),
        ("ErrorItemNotFound", &["2"], false, ["ErrorItemNotFound", "ErrorItemNotFound"]),
        ("ErrorInvalidIdMalformed", &[], true, ["ErrorInvalidIdMalformed", "ErrorInvalidIdMalformed"]),
        ("ErrorInvalidId", &[], true, ["ErrorInvalidId", "ErrorInvalidId"]),
    ] {
        let listed: Vec<String> = listed.iter().map(|id| (*id).to_owned()).collect();
        let (server, account) = exchange(move |operation, asked| match operation {
            "FindItem" => found(&listed.iter().map(String::as_str).collect::<Vec<_>>(), is_all),
            _ => messages(&ids(asked).iter().map(|_| refused(code)).collect::<Vec<_>>()),
        });
        let mut wanted = entries(&[("1", 100), ("2", 100)]);
        wanted.iter_mut().for_each(|entry| entry.received_at = Some(1_800_000_000));
        let got = Got::default();
        read(opened(&server, &account).as_mut(), &wanted, &got).unwrap();
        assert_eq!(*got.lock().unwrap(), expected, "{code}");
        let asked = server.all_asked().iter().map(body).find(|text| text.contains("<m:FindItem"));
        assert!(asked.is_none_or(|text| text.contains("2027-01-15T07:59:59Z")), "around the second");
    }
}

/// exchange.md F6: the server is at fault for all of them, and none is blamed.
#[test]
fn what_stops_all_messages_is_no_messages_fault() {
    for code in ["ErrorInsufficientResources", "ErrorWrongServerVersion", "ErrorMailboxStoreUnavailable"] {
        let (server, account) =
            exchange(move |_, asked| messages(&ids(asked).iter().map(|_| refused(code)).collect::<Vec<_>>()));
        let wanted = entries(&["1", "2", "3", "4"].map(|id| (id, 100)));
        let error = read(opened(&server, &account).as_mut(), &wanted, &Got::default()).unwrap_err();
        assert_eq!((error.kind(), error.code()), (Kind::Transient, Some(code)));
        assert!(!error.is_of_item());
        // Of one alone it is that one's, and costs one more request.
        server.set(move |asked| match body(asked) {
            text if text.contains("GetFolder") => messages(&[done("")]),
            _ => {
                let one = |id: &String| if id == "2" { refused(code) } else { mail(id, id) };
                messages(&ids(asked).iter().map(one).collect::<Vec<_>>())
            }
        });
        let got = Got::default();
        read(opened(&server, &account).as_mut(), &wanted, &got).unwrap();
        assert_eq!(*got.lock().unwrap(), ["1", code, "3", "4"]);
    }
}

/// exchange.md F4 and F5, over EWS: what was done counts; what one may not is that one's own.
#[test]
fn one_item_refused_keeps_back_no_other() {
    let (server, account) = exchange(|operation, asked| {
        let one = |id: &String| match (operation, id.as_str()) {
            ("GetItem", "denied") => done(""),
            (_, "denied") => refused("ErrorAccessDenied"),
            (_, "busy") => refused("ErrorServerBusy"),
            (_, "corrupt") => refused("ErrorMoveCopyFailed"),
            (_, "gone") => refused("ErrorItemNotFound"),
            ("GetItem", _) => done(""),
            (_, "deleted") => refused("ErrorCannotDeleteObject"),
            (_, "back") => refused("ErrorItemNotFound"),
            _ => done(""),
        };
        messages(&ids(asked).iter().map(one).collect::<Vec<_>>())
    });
    let mut inbox = opened(&server, &account);
    let keys: Vec<Key> = ["1", "denied", "busy", "corrupt", "gone", "back", "2"].iter().map(|id| key(id)).collect();
    let settled = inbox.settle(&keys, &Action::Delete, soon()).unwrap();
    assert_eq!(words(&settled), ["done", "kept", "later", "kept", "gone", "later", "done"]);
    let error = inbox.settle(&[key("denied")], &Action::Delete, soon()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "refused to all there are");
}

#[test]
fn a_batch_that_takes_too_long_is_halved() {
    let (server, account) = exchange(|_, asked| {
        let ids = ids(asked);
        match ids.len() {
            0..=2 => messages(&ids.iter().map(|id| mail(id, id)).collect::<Vec<_>>()),
            _ => fault(500, "ErrorTimeoutExpired", ""),
        }
    });
    let got = Got::default();
    let wanted = entries(&["1", "2", "3", "4", "5"].map(|id| (id, 100)));
    assert_eq!(read(opened(&server, &account).as_mut(), &wanted, &got).unwrap(), 5);
    assert_eq!(*got.lock().unwrap(), ["1", "2", "3", "4", "5"]);
}

#[test]
fn throttled_in_the_middle_hands_over_what_came_before() {
    let busy = "<m:M ResponseClass=\"Error\"><m:ResponseCode>ErrorInternalServerError</m:ResponseCode><m:MessageXml>\
        <t:Value Name=\"InnerErrorResponseCode\">ErrorServerBusy</t:Value>\
        <t:Value Name=\"BackOffMilliseconds\">2500</t:Value></m:MessageXml></m:M>";
    let (server, account) = exchange(move |_, asked| {
        let one = |id: &String| if id == "2" { busy.to_owned() } else { mail(id, id) };
        messages(&ids(asked).iter().map(one).collect::<Vec<_>>())
    });
    let (got, mut inbox) = (Got::default(), opened(&server, &account));
    let wanted = entries(&["1", "2", "3"].map(|id| (id, 100)));
    let error = read(inbox.as_mut(), &wanted, &got).unwrap_err();
    assert_eq!((error.kind(), error.wait()), (Kind::Throttled, Some(Duration::from_millis(2500))));
    assert_eq!(
        (error.provider_code_text(), error.correlation_text()),
        (Some("ErrorServerBusy"), Some("request-id=r-1"))
    );
    assert_eq!(*got.lock().unwrap(), ["1"]);
}

#[test]
fn answers_in_another_order_are_no_answers() {
    let (server, account) =
        exchange(|_, asked| messages(&ids(asked).iter().rev().map(|id| mail(id, id)).collect::<Vec<_>>()));
    let wanted = entries(&[("1", 100), ("2", 100)]);
    let error = read(opened(&server, &account).as_mut(), &wanted, &Got::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::ServerMisbehaved);
}

/// What opening says of this answer.
fn opening(answer: Answer) -> Error {
    let server = Idp::new(move |_| answer.clone());
    let mut account = account(&server.base);
    account.protocol = Protocol::Ews { url: format!("{}/EWS/Exchange.asmx", server.base).parse().unwrap() };
    match inbox(&server, &account) {
        Err(OpenError::Other(error)) => error,
        Err(OpenError::LoginRefused(_)) => panic!("refused as a login"),
        Ok(_) => panic!("opened"),
    }
}

#[test]
fn every_refusal_has_its_meaning() {
    let page = |status, headers: &str| (status, headers.to_owned(), "<html><p>Sorry<br></html>".to_owned());
    let back_off = "<t:MessageXml><t:Value Name=\"BackOffMilliseconds\">7000</t:Value></t:MessageXml>";
    for (answer, kind, code, wait) in [
        (fault(500, "ErrorServerBusy", back_off), Kind::Throttled, "ErrorServerBusy", Some(7)),
        (fault(200, "ErrorServerBusy", back_off), Kind::Throttled, "ErrorServerBusy", Some(7)),
        (fault(500, "ErrorServerBusy", ""), Kind::Throttled, "ErrorServerBusy", None),
        (
            fault(500, "ErrorMailboxStoreUnavailable", back_off),
            Kind::Throttled,
            "ErrorMailboxStoreUnavailable",
            Some(7),
        ),
        (fault(500, "ErrorMailboxMoveInProgress", ""), Kind::Transient, "ErrorMailboxMoveInProgress", None),
        (fault(500, "ErrorOfTheFuture", ""), Kind::Transient, "ErrorOfTheFuture", None),
        (fault(400, "ErrorOfTheFuture", ""), Kind::ServerMisbehaved, "ErrorOfTheFuture", None),
        (messages(&[refused("ErrorOfTheFuture")]), Kind::ServerMisbehaved, "ErrorOfTheFuture", None),
        (messages(&[refused("ErrorAccessDenied")]), Kind::Refused, "ErrorAccessDenied", None),
        (fault(500, "ErrorImpersonateUserDenied", ""), Kind::Refused, "ErrorImpersonateUserDenied", None),
        (fault(500, "ErrorAccountDisabled", ""), Kind::AdminRequired, "ErrorAccountDisabled", None),
        (fault(500, "ErrorNonExistentMailbox", ""), Kind::Settings, "ErrorNonExistentMailbox", None),
        (page(503, "Retry-After: 9\r\n"), Kind::Throttled, "HTTP 503", Some(9)),
        (page(503, ""), Kind::Transient, "HTTP 503", None),
        (page(502, ""), Kind::Transient, "HTTP 502", None),
        (page(429, "Retry-After: 4\r\n"), Kind::Throttled, "HTTP 429", Some(4)),
        (page(403, ""), Kind::AdminRequired, "HTTP 403", None),
        (page(404, ""), Kind::Settings, "HTTP 404", None),
        (page(302, "Location: /ews/genericerrorpage.htm?aspxerrorpath=x\r\n"), Kind::Transient, "HTTP 302", None),
        (page(302, "Location: https://login.example/\r\n"), Kind::Settings, "HTTP 302", None),
    ] {
        let error = opening(answer);
        assert_eq!((error.kind(), error.provider_code_text()), (kind, Some(code)), "{error}");
        assert_eq!(error.wait().map(|wait| wait.as_secs()), wait, "{code}");
        assert!(error.remedy_text().is_some() || code == "ErrorOfTheFuture", "{error}");
    }
    let error = opening((503, "X-CasErrorCode: ServerNotFound\r\n".into(), String::new()));
    assert_eq!(error.correlation_text(), Some("x-caserrorcode=ServerNotFound"));
    let wrong = "<t:MessageXml><t:Value Name=\"Primary\">desk@corp.test</t:Value></t:MessageXml>";
    let error = opening(fault(500, "ErrorNonPrimarySmtpAddress", wrong));
    assert!(error.kind() == Kind::Settings && error.remedy_text().unwrap().contains("desk@corp.test"), "{error}");
    let on_premises = opening(page(403, ""));
    assert!(on_premises.remedy_text().unwrap().contains("Set-CASMailbox"), "{on_premises}");
    let online = crate::remedies::by_ews("HTTP 403").unwrap();
    assert!(online.what("h").unwrap().contains("blocked by your tenant"));
    assert!(["EwsAllowedAppIDs", "1 April 2027", "Graph"].iter().all(|word| online.sentence().contains(word)));
    for (host, expected) in [
        ("outlook.office365.com", true),
        ("Outlook.Office.com", true),
        ("outlook.office365.us", true),
        ("partner.outlook.cn", true),
        ("mail.corp.test", false),
        ("outlook.office365.com.evil.test", false),
    ] {
        assert_eq!(is_online(host), expected, "{host}");
    }
}

#[test]
fn what_is_no_answer_names_connect_url() {
    let entity = "<?xml version=\"1.0\"?><!DOCTYPE a [<!ENTITY b \"c\">]><s:Envelope xmlns:s=\"s\"><s:Body>&b;</s:Body>\
                  </s:Envelope>";
    let deep = "<a>".repeat(100_000);
    for body in ["", "<html><body><p>Welcome<br></body></html>", "{}", "<a/>", "<Envelope/>", entity, &deep] {
        let error = opening((200, String::new(), body.into()));
        assert_eq!(error.kind(), Kind::ServerMisbehaved, "{body:.30}");
        assert!(error.remedy_text().unwrap().contains("Connect URL"), "{error}");
    }
    let empty = "<Envelope><Body><X><ResponseMessages/></X></Body></Envelope>";
    assert_eq!(opening((200, String::new(), empty.into())).kind(), Kind::ServerMisbehaved);
    // Deep as well where no success is announced.
    assert_eq!(opening((500, String::new(), deep)).kind(), Kind::Transient);
}

#[test]
fn a_refused_token_is_a_refused_login_and_later_a_lost_connection() {
    let no = || (401, "WWW-Authenticate: Bearer\r\n".to_owned(), String::new());
    let server = Idp::new(move |_| no());
    let mut account = account(&server.base);
    account.protocol = Protocol::Ews { url: format!("{}/EWS/Exchange.asmx", server.base).parse().unwrap() };
    assert!(matches!(inbox(&server, &account), Err(OpenError::LoginRefused(_))));
    let (server, account) = exchange(move |_, _| no());
    let error = opened(&server, &account).list("INBOX", None, Since::Now, soon()).err().unwrap();
    assert_eq!(error.kind(), Kind::Transient);
}

#[test]
fn settling_is_batched_makes_its_folder_and_gone_counts_as_done() {
    let (server, account) = exchange(|operation, asked| match operation {
        "FindFolder" => messages(&[done("<m:RootFolder><t:Folders/></m:RootFolder>")]),
        "CreateFolder" if body(asked).contains(">Done<") => {
            messages(&[done("<m:Folders><t:Folder><t:FolderId Id=\"F\" ChangeKey=\"k\"/></t:Folder></m:Folders>")])
        }
        "MoveItem" if !body(asked).contains("<t:FolderId Id=\"F\"/>") => fault(500, "ErrorToFolderNotFound", ""),
        _ => {
            let one = |id: &String| match id.as_str() {
                "gone" => refused("ErrorItemNotFound"),
                "alien" => refused("ErrorInvalidIdMalformed"),
                _ => done(""),
            };
            messages(&ids(asked).iter().map(one).collect::<Vec<_>>())
        }
    });
    let mut inbox = opened(&server, &account);
    let keys: Vec<Key> = ["a", "gone", "alien", "b&<\""].map(key).into();
    for action in [Action::MarkSeen, Action::Delete, Action::Move { folder: "Done".into() }] {
        assert_eq!(
            words(&inbox.settle(&keys, &action, soon()).unwrap()),
            ["done", "gone", "kept", "done"],
            "{action:?}"
        );
    }
    assert_eq!(words(&inbox.settle(&keys, &Action::Leave, soon()).unwrap()), ["done"; 4]);
    let many: Vec<Key> = (0..limits::EWS_SETTLE_BATCH + 1).map(|n| key(&n.to_string())).collect();
    let before = server.all_asked().len();
    assert_eq!(inbox.settle(&many, &Action::MarkSeen, soon()).unwrap().len(), many.len());
    let asked = server.all_asked().split_off(before);
    assert_eq!(asked.len(), 2);
    let quiet = "ConflictResolution=\"AlwaysOverwrite\" MessageDisposition=\"SaveOnly\" SuppressReadReceipts=\"true\"";
    assert!(body(&asked[0]).contains(quiet));
    server.set(|_| messages(&[refused("ErrorAccessDenied")]));
    assert_eq!(inbox.settle(&[key("a")], &Action::Delete, soon()).unwrap_err().kind(), Kind::Refused);
}

#[test]
fn whose_mailbox_it_is_stands_in_the_request() {
    let (server, own) = exchange(|_, _| page("", "s", true));
    let mut shared = own.clone();
    shared.consenting_user = "anna@corp.test".into();
    let mut application = own.clone();
    application.client.grant = GrantType::ClientCredentials;
    let named = "<t:DistinguishedFolderId Id=\"inbox\"><t:Mailbox><t:EmailAddress>helpdesk@corp.test</t:EmailAddress>\
                 </t:Mailbox></t:DistinguishedFolderId>";
    let impersonated = "<t:ExchangeImpersonation><t:ConnectingSID><t:PrimarySmtpAddress>helpdesk@corp.test\
                        </t:PrimarySmtpAddress></t:ConnectingSID></t:ExchangeImpersonation>";
    for (account, is_named, is_impersonated) in
        [(&own, false, false), (&shared, true, false), (&application, false, true)]
    {
        let before = server.all_asked().len();
        opened(&server, account).list("INBOX", None, Since::Now, soon()).unwrap();
        for asked in server.all_asked().split_off(before) {
            let text = body(&asked);
            assert_eq!((text.contains(named), text.contains(impersonated)), (is_named, is_impersonated), "{text}");
            assert_eq!(asked.authorization.as_deref(), Some("Bearer token-1"));
        }
        let Protocol::Ews { url } = &account.protocol else { panic!("another protocol") };
        let client = Client::new(account, &server.net(), url, &Secret::new("token-1"), &Transcript::default());
        let headers = client.headers().unwrap();
        assert_eq!(headers["x-anchormailbox"], "helpdesk@corp.test");
        assert_eq!(headers["content-type"], "text/xml; charset=utf-8");
    }
}

#[test]
fn the_transcript_has_operations_and_sizes_and_no_bodies() {
    let (server, account) = exchange(|_, asked| mime_of_all(asked));
    let lines = Arc::new(Mutex::new(String::new()));
    let kept = lines.clone();
    let logger = Logger::new(move |_, _, line| kept.lock().unwrap().push_str(&format!("{line}\n")));
    let token = Secret::new("canary-token");
    let login = Login { username: &account.username, token: &token };
    let mut inbox = open(&account, &server.net(), &login, &Transcript::new(Some(logger)), soon())
        .unwrap_or_else(|_| panic!("not opened"));
    read(inbox.as_mut(), &entries(&[("1", 100)]), &Got::default()).unwrap();
    let lines = lines.lock().unwrap();
    assert!(
        lines.contains("C: GetItem {") && lines.contains("S: 200 {") && lines.contains("request-id=r-1"),
        "{lines}"
    );
    assert!(!lines.contains("canary"), "{lines}");
}

fn mime_of_all(asked: &Asked) -> Answer {
    messages(&ids(asked).iter().map(|id| mime(id, b"canary body")).collect::<Vec<_>>())
}

/// What comes of a message, with these answers to CreateItem and SendItem, and whether the draft was taken away.
fn sent(create: Answer, send: Answer) -> (Outcome, bool) {
    let (server, account) = exchange(move |operation, _| match operation {
        "CreateItem" => create.clone(),
        "SendItem" => send.clone(),
        _ => messages(&[done("")]),
    });
    let token = Secret::new("token-1");
    let login = Login { username: &account.username, token: &token };
    let mut outbox = open_outbox(&account, &server.net(), &login, &Transcript::default(), soon())
        .unwrap_or_else(|_| panic!("not opened"));
    let envelope = Envelope {
        from: Some("helpdesk@corp.test".parse().unwrap()),
        to: vec!["a@b.test".parse().unwrap(), "hidden@b.test".parse().unwrap()],
    };
    let outcome =
        outbox.send(&envelope, b"From: helpdesk@corp.test\r\nTo: a@b.test\r\n\r\nhello\r\n", soon(), &mut || Ok(()));
    let asked: Vec<String> = server.all_asked().iter().map(body).collect();
    let create = asked.iter().find(|text| text.contains("<m:CreateItem")).unwrap();
    let mime = create.split("CharacterSet=\"UTF-8\">").nth(1).unwrap().split('<').next().unwrap();
    assert!(BASE64_STANDARD.decode(mime).unwrap().starts_with(b"Bcc: hidden@b.test\r\nFrom: "));
    (outcome, asked.iter().any(|text| text.contains("<m:DeleteItem DeleteType=\"HardDelete\"")))
}

#[test]
fn a_message_becomes_a_draft_and_the_draft_is_sent() {
    let draft = || messages(&[done("<m:Items><t:Message><t:ItemId Id=\"d\" ChangeKey=\"k\"/></t:Message></m:Items>")]);
    let page = |status| (status, String::new(), "<html>".to_owned());
    let busy = || fault(500, "ErrorServerBusy", "<t:Value Name=\"BackOffMilliseconds\">3000</t:Value>");
    assert!(matches!(sent(draft(), messages(&[done("")])), (Outcome::Sent { .. }, false)));

    // Before SendItem nothing is unknown.
    for create in [busy(), page(503), page(200), page(401), fault(500, "ErrorOfTheFuture", "")] {
        let (outcome, _) = sent(create, page(500));
        assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");
    }
    for (code, kind) in [
        ("ErrorMessageSizeExceeded", Kind::TooLarge),
        ("ErrorSendAsDenied", Kind::Refused),
        ("ErrorMimeContentInvalid", Kind::ServerMisbehaved),
        ("ErrorQuotaExceeded", Kind::AdminRequired),
    ] {
        let (outcome, _) = sent(messages(&[refused(code)]), page(500));
        assert!(matches!(&outcome, Outcome::Rejected(error) if error.kind() == kind), "{outcome:?}");
    }
    for status in [404, 413] {
        let (outcome, _) = sent(page(status), page(500));
        assert!(matches!(&outcome, Outcome::Rejected(error) if error.kind() == Kind::TooLarge), "{outcome:?}");
    }

    // SendItem says no: the draft goes, and nothing went out.
    let (outcome, discarded) = sent(draft(), busy());
    assert!(matches!(outcome, Outcome::Retry { after: Some(wait), .. } if wait.as_secs() == 3) && discarded);
    for code in ["ErrorStaleObject", "ErrorExceededMessageLimit", "ErrorExceededMaxRecipientLimitBlock"] {
        assert!(matches!(sent(draft(), messages(&[refused(code)])), (Outcome::Retry { .. }, true)), "{code}");
    }
    for code in ["ErrorSendAsDenied", "ErrorMessageBlocked", "ErrorInvalidRecipients", "ErrorOfTheFuture"] {
        assert!(matches!(sent(draft(), messages(&[refused(code)])), (Outcome::Rejected(_), true)), "{code}");
    }
    assert!(matches!(sent(draft(), page(401)), (Outcome::Retry { .. }, true)));
    assert!(matches!(sent(draft(), page(403)), (Outcome::Rejected(_), true)));

    // Nobody knows, also when a pause is named.
    let sorry = (302, "Location: /ews/genericerrorpage.htm\r\n".to_owned(), String::new());
    let paused = (503, "Retry-After: 5\r\n".to_owned(), String::new());
    let cut = (200, String::new(), "<s:Envelope".to_owned());
    let backed_off = fault(500, "ErrorMailboxStoreUnavailable", "<t:Value Name=\"BackOffMilliseconds\">3000</t:Value>");
    for send in [page(500), page(504), page(408), page(200), sorry, paused, cut, backed_off] {
        let (outcome, discarded) = sent(draft(), send);
        assert!(matches!(outcome, Outcome::Unknown(_)) && !discarded, "{outcome:?}");
    }
    for code in ["ErrorItemNotFound", "ErrorTimeoutExpired", "ErrorInternalServerError"] {
        assert!(matches!(sent(draft(), messages(&[refused(code)])), (Outcome::Unknown(_), false)), "{code}");
    }
}

#[test]
fn what_a_header_cannot_say_is_not_sent() {
    let (server, account) = exchange(|operation, _| panic!("{operation}"));
    let token = Secret::new("token-1");
    let login = Login { username: &account.username, token: &token };
    let mut outbox = open_outbox(&account, &server.net(), &login, &Transcript::default(), soon())
        .unwrap_or_else(|_| panic!("not opened"));
    let raw = b"From: helpdesk@corp.test\r\nTo: a@b.test\r\nCc: c@b.test\r\n\r\nhello\r\n";
    for (from, to) in
        [(None, "a@b.test"), (Some("other@corp.test"), "a@b.test"), (Some("helpdesk@corp.test"), "a@b.test")]
    {
        let envelope = Envelope { from: from.map(|from| from.parse().unwrap()), to: vec![to.parse().unwrap()] };
        let outcome = outbox.send(&envelope, raw, soon(), &mut || Ok(()));
        assert!(matches!(&outcome, Outcome::Rejected(error) if error.kind() == Kind::Unsupported), "{outcome:?}");
    }
}

#[test]
fn sent_items_are_looked_into_by_message_id() {
    let (server, mut account) = exchange(|_, asked| {
        let text = body(asked);
        assert!(text.contains("\"message:InternetMessageId\"") && text.contains("Id=\"sentitems\""), "{text}");
        let found = text.contains("Value=\"&lt;here@x&gt;\"");
        let item = if found { "<t:Message><t:ItemId Id=\"i\"/></t:Message>" } else { "" };
        messages(&[done(&format!("<m:RootFolder><t:Items>{item}</t:Items></m:RootFolder>"))])
    });
    account.consenting_user = "anna@corp.test".into();
    let mut inbox = opened(&server, &account);
    for (id, found) in [("<here@x>", true), ("<away@x>", false)] {
        assert_eq!(inbox.find_sent(id, soon()).unwrap(), Some(("sentitems".into(), usize::from(found))));
    }
    assert_eq!(inbox.find_sent("no id", soon()).unwrap_err().kind(), Kind::Misuse);
    let asked = body(server.all_asked().last().unwrap());
    assert!(asked.contains("<t:EmailAddress>helpdesk@corp.test<"), "of the shared mailbox: {asked}");
}

/// exchange.md F17: what stands before EWS refuses large bodies in three ways; gromox names the answers otherwise.
#[test]
fn f17_large_bodies_and_other_names_of_answers_are_understood() {
    let page = |status| (status, String::new(), "<html>".to_owned());
    for status in [404, 405, 413] {
        let (outcome, _) = sent(page(status), page(500));
        let Outcome::Rejected(error) = &outcome else { panic!("{outcome:?}") };
        assert!(error.kind() == Kind::TooLarge && error.message().contains("no request as large"), "{error}");
    }
    let draft = || messages(&[done("<m:Items><t:Message><t:ItemId Id=\"d\" ChangeKey=\"k\"/></t:Message></m:Items>")]);
    let named = |inner: &str| {
        xml(
            200,
            &format!(
                "<m:SendItem><m:Responses><m:SendItemResponseMessage {inner}</m:SendItemResponseMessage>\
                           </m:Responses></m:SendItem>"
            ),
        )
    };
    let taken = named("ResponseClass=\"Success\"><m:ResponseCode>NoError</m:ResponseCode>");
    assert!(matches!(sent(draft(), taken), (Outcome::Sent { .. }, false)));
    let refused = named("ResponseClass=\"Error\"><m:ResponseCode>ErrorSendAsDenied</m:ResponseCode>");
    assert!(matches!(sent(draft(), refused), (Outcome::Rejected(_), true)));
}

/// exchange.md F18: on a server that shows Bcc to everybody no message with Bcc is sent.
#[test]
fn f18_a_server_that_shows_bcc_gets_none() {
    let (server, account) = exchange(|operation, _| {
        let (status, headers, text) = match operation {
            "CreateItem" => {
                messages(&[done("<m:Items><t:Message><t:ItemId Id=\"d\" ChangeKey=\"k\"/></t:Message></m:Items>")])
            }
            _ => messages(&[done("")]),
        };
        (
            status,
            headers,
            text.replace("s:Envelope", "SOAP:Envelope")
                .replace("s:Body", "SOAP:Body")
                .replace("xmlns:s=", "xmlns:SOAP="),
        )
    });
    let token = Secret::new("token-1");
    let login = Login { username: &account.username, token: &token };
    let mut outbox = open_outbox(&account, &server.net(), &login, &Transcript::default(), soon())
        .unwrap_or_else(|_| panic!("not opened"));
    let to = |all: &[&str]| Envelope {
        from: Some("helpdesk@corp.test".parse().unwrap()),
        to: all.iter().map(|one| one.parse().unwrap()).collect(),
    };
    let raw = b"From: helpdesk@corp.test\r\nTo: a@b.test\r\n\r\nhello\r\n";
    let outcome = outbox.send(&to(&["a@b.test", "hidden@b.test"]), raw, soon(), &mut || Ok(()));
    let Outcome::Rejected(error) = &outcome else { panic!("{outcome:?}") };
    assert!(error.kind() == Kind::Unsupported && error.message().contains("Bcc"), "{error}");
    let asked: Vec<String> = server.all_asked().iter().map(body).collect();
    assert!(!asked.iter().any(|text| text.contains("<m:SendItem")), "nothing went out");
    assert!(asked.last().unwrap().contains("<m:DeleteItem"), "the draft stays behind");
    assert!(outbox.caution().is_some());
    assert!(matches!(outbox.send(&to(&["a@b.test"]), raw, soon(), &mut || Ok(())), Outcome::Sent { .. }));
}
