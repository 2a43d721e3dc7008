//! EWS, against the sandbox: what a helpdesk does with it, and what can go wrong. With EWS_XSD_DIR every request that the
//! library sent, and every answer, is checked by Microsoft's schema.
#![allow(clippy::unwrap_used)]

use std::ops::Deref;

use base64::{Engine, prelude::BASE64_STANDARD};
use oauth_mail_core::{
    Kind,
    hooks::{Handle, Plugin},
};
use oauth_mail_sandbox::{
    Config,
    faults::{Face, Fault},
    mailbox::Message,
};
use oauth_mail_tests::{
    ews_schema::Schema,
    fixture::{Log, STORE_KEY, authenticate, parse},
    mailbox::{self, note, round, settle},
    mailgen,
    sandboxed::{self, Protocol},
};
use serde_json::{Value, json};

/// Checks all that was said, when the test has passed.
struct Desk(sandboxed::Desk);

impl Desk {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        Self(sandboxed::Desk::new(Protocol::Ews, config))
    }

    fn order(&self, fault: Value) {
        let mut order = json!({"face": "ews"});
        order.as_object_mut().unwrap().extend(fault.as_object().unwrap().clone());
        self.sandbox.state.faults.order(serde_json::from_value::<Fault>(order).unwrap());
    }

    /// Operations that were asked for, in order.
    fn operations(&self) -> Vec<String> {
        let operation = |request: &str| {
            let body = request.split("<s:Body><m:").nth(1).unwrap_or_default();
            body.split([' ', '>']).next().unwrap_or_default().to_owned()
        };
        self.sandbox.state.ews.all().iter().map(|exchange| operation(&exchange.request)).collect()
    }
}

impl Deref for Desk {
    type Target = sandboxed::Desk;

    fn deref(&self) -> &sandboxed::Desk {
        &self.0
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let Some(schema) = Schema::find().unwrap() else { return };
        let all = self.sandbox.state.ews.all();
        let envelopes = all.iter().flat_map(|exchange| [exchange.request.as_str(), exchange.response.as_str()]);
        schema.validate_all(envelopes).unwrap_or_else(|error| panic!("{error}"));
    }
}

fn is_seen(message: &Message) -> bool {
    message.flags.contains("\\Seen")
}

fn send(outbox: &Handle, request: Value) -> Value {
    parse(&outbox.send_message(&request.to_string(), b"").unwrap())
}

fn a_message(key: &str) -> Value {
    json!({"to": ["bob@example.test"], "subject": key, "text": "A line.\n", "idempotency_key": key})
}

#[test]
fn mail_is_fetched_and_settled_in_every_way() {
    for (action, folder) in [("mark_seen", None), ("move", Some("Done/Deep & wide")), ("delete", None), ("leave", None)]
    {
        let desk = Desk::new();
        for number in 0..25 {
            desk.deliver("alice", &note(number));
        }
        let inbox = desk.open("alice", "incoming", |form| {
            form["advanced"]["after_import"] = json!(action);
            if let Some(folder) = folder {
                form["advanced"]["processed_folder"] = json!(folder);
            }
        });
        let mail = round(&inbox, &json!({})).unwrap();
        assert_eq!((mail.messages.len(), mail.has_no_key_twice()), (25, true));
        assert!(mail.messages.iter().all(|message| message.raw.ends_with(b"\r\n") && message.key.contains("INBOX")));
        assert!(!desk.look("alice", "INBOX", is_seen).contains(&true), "reading changes nothing");
        let (taken, left) = mail.messages.split_at(20);
        let done = settle(&inbox, taken.iter().map(|message| message.key.as_str()), "imported").unwrap();
        assert_eq!(done.len(), 20);
        let inbox_now = desk.look("alice", "INBOX", is_seen);
        match action {
            "mark_seen" => assert_eq!(inbox_now.iter().filter(|seen| **seen).count(), 20),
            "leave" => assert_eq!(inbox_now.len(), 25),
            _ => assert_eq!(inbox_now.len(), 5),
        }
        if let Some(folder) = folder {
            assert_eq!(desk.look("alice", folder, is_seen).len(), 20);
        }
        // Repeated, it changes nothing; what is left comes again, also after a restart, and what is new.
        settle(&inbox, taken.iter().map(|message| message.key.as_str()), "imported").unwrap();
        inbox.close();
        desk.deliver("alice", &note(99));
        let plugin = desk.plugin_again();
        let settings = sandboxed::settings(&desk.sandbox, Protocol::Ews, "alice", "incoming");
        let again = round(&plugin.open(&settings.to_string()).unwrap(), &json!({})).unwrap();
        assert_eq!((again.messages.len(), again.subjects().contains(&"note 99")), (6, true), "{action}");
        let comes_again = |message: &mailbox::Message| again.keys().contains(&message.key.as_str());
        assert!(left.iter().all(comes_again) && !taken.iter().any(comes_again), "{action}");
    }
}

#[test]
fn small_messages_travel_together_and_a_large_one_alone() {
    let desk = Desk::new();
    let large = mailgen::large_message(30 << 20);
    for number in 0..30 {
        desk.deliver("alice", &note(number));
    }
    desk.deliver("alice", &large);
    let inbox = desk.open("alice", "incoming", |_| ());
    let mail = round(&inbox, &json!({"max_bytes": 64 << 20})).unwrap();
    assert_eq!(mail.messages.len(), 31);
    assert!(mail.messages.iter().any(|message| message.raw.ends_with(&large)));
    // The large answer is not kept among the exchanges.
    assert!(desk.operations().iter().filter(|name| *name == "GetItem").count() <= 4);
}

#[test]
fn a_message_goes_out_with_bcc_and_lies_in_sent_items() {
    let desk = Desk::new();
    let outbox = desk.open("alice", "outgoing", |form| form["sender_name"] = json!("Desk"));
    let answer = send(
        &outbox,
        json!({"to": ["bob@example.test"], "bcc": ["support@example.test"], "subject": "hello", "text": "A line.\n"}),
    );
    assert_eq!((&answer["outcome"], &answer["server"]), (&json!("sent"), &json!("localhost")));
    let raw = |message: &Message| String::from_utf8(message.raw.to_vec()).unwrap();
    for name in ["bob", "support"] {
        let got = desk.look(name, "INBOX", raw);
        assert_eq!(got.len(), 1, "{name}");
        assert!(got[0].contains("Subject: hello") && !got[0].contains("Bcc:"), "{got:?}");
    }
    let copies = desk.look("alice", "Sent Items", raw);
    assert!(copies.len() == 1 && copies[0].contains(answer["message_id"].as_str().unwrap()), "{copies:?}");
    assert!(desk.look("alice", "Drafts", raw).is_empty());
    // What a header cannot say.
    let request = json!({"envelope": {"to": ["bob@example.test"]}}).to_string();
    let refused = outbox.send_message(&request, b"To: other@example.test\r\nSubject: x\r\n\r\nx\r\n").unwrap();
    assert_eq!(parse(&refused)["outcome"], "rejected");
    assert_eq!(parse(&refused)["error"]["kind"], "unsupported");
}

#[test]
fn a_lost_answer_is_looked_up_and_nothing_is_sent_twice() {
    let desk = Desk::new();
    let outbox = desk.open("alice", "outgoing", |_| ());
    // Sent, and the answer is lost.
    desk.order(json!({"match": "<m:SendItem", "cut_after": 0}));
    let lost = send(&outbox, a_message("one"));
    assert_eq!(lost["outcome"], "unknown", "{lost}");
    let found = send(&outbox, a_message("one"));
    assert_eq!((&found["outcome"], &found["sent_folder"]["found"]), (&json!("sent"), &json!(true)), "{found}");
    // Lost before anything could go out: the same key sends it.
    desk.order(json!({"match": "<m:CreateItem", "cut_after": 0}));
    assert_eq!(send(&outbox, a_message("two"))["outcome"], "retry");
    assert_eq!(send(&outbox, a_message("two"))["outcome"], "sent");
    // Busy, with the time to wait; the draft is not left behind.
    desk.order(json!({"match": "<m:SendItem", "back_off_ms": 7000}));
    let busy = send(&outbox, a_message("three"));
    assert_eq!((&busy["outcome"], &busy["retry_after_seconds"]), (&json!("retry"), &json!(7)), "{busy}");
    assert_eq!(send(&outbox, a_message("three"))["outcome"], "sent");
    desk.order(json!({"match": "<m:SendItem", "response_code": "ErrorSendAsDenied"}));
    let denied = send(&outbox, a_message("four"));
    assert_eq!((&denied["outcome"], &denied["error"]["kind"]), (&json!("rejected"), &json!("refused")), "{denied}");
    assert_eq!(desk.look("bob", "INBOX", |_| ()).len(), 3);
    // That of "two", whose id was lost with the answer.
    assert_eq!(desk.look("alice", "Drafts", |_| ()).len(), 1);
}

#[test]
fn throttling_is_told_with_its_wait_in_every_shape() {
    let desk = Desk::new();
    let inbox = desk.open("alice", "incoming", |_| ());
    for (fault, kind, wait) in [
        (json!({"match": "SyncFolderItems", "back_off_ms": 9000}), Kind::Throttled, Some(9)),
        (json!({"match": "SyncFolderItems", "response_code": "ErrorServerBusy"}), Kind::Throttled, None),
        (json!({"match": "", "times": 2, "status": 503, "retry_after": 5}), Kind::Throttled, Some(5)),
        (json!({"match": "", "times": 2, "status": 503}), Kind::Transient, None),
        (json!({"match": "", "times": 2, "malformed": true}), Kind::ServerMisbehaved, None),
        (json!({"match": "SyncFolderItems", "code": "ErrorAccessDenied"}), Kind::Refused, None),
        (json!({"match": "SyncFolderItems", "code": "ErrorOfTomorrow", "times": 3}), Kind::Transient, None),
    ] {
        let error = mailbox::batch(&inbox, &json!({})).err();
        assert!(error.is_none(), "{error:?}");
        desk.order(fault.clone());
        let error = mailbox::batch(&inbox, &json!({"deadline_ms": 5000})).err().unwrap_or_else(|| panic!("{fault}"));
        assert_eq!((error.kind(), error.wait().map(|wait| wait.as_secs())), (kind, wait), "{fault}: {error:?}");
        desk.sandbox.state.faults.clear();
    }
}

#[test]
fn a_forgotten_sync_state_resynchronises_without_a_flood() {
    let desk = Desk::new();
    for number in 0..6 {
        desk.deliver("alice", &note(number));
    }
    let inbox = desk.open("alice", "incoming", |_| ());
    let mail = round(&inbox, &json!({})).unwrap();
    let (taken, left) = mail.messages.split_at(4);
    settle(&inbox, taken.iter().map(|message| message.key.as_str()), "imported").unwrap();
    desk.deliver("alice", &note(6));
    desk.order(json!({"match": "SyncFolderItems", "response_code": "ErrorInvalidSyncStateData"}));
    let again = round(&inbox, &json!({})).unwrap();
    assert!(left.iter().all(|message| again.keys().contains(&message.key.as_str())));
    assert!(again.messages.len() == 3 && again.subjects().contains(&"note 6"), "{:?}", again.subjects());
    assert!(again.resets[0].contains("ErrorInvalidSyncStateData"), "{:?}", again.resets);
}

/// exchange.md F1: one poll in which every item is refused as if it were not there.
#[test]
fn a_poll_in_which_nothing_is_found_loses_no_mail() {
    for code in ["ErrorItemNotFound", "ErrorInvalidIdMalformed", "ErrorInsufficientResources"] {
        let desk = Desk::new();
        (0..5).for_each(|number| desk.deliver("alice", &note(number)));
        let inbox = desk.open("alice", "incoming", |_| {});
        desk.order(json!({"match": "IncludeMimeContent", "times": 1000, "response_code": code}));
        let _ = round(&inbox, &json!({}));
        desk.sandbox.state.faults.clear();
        let mail = round(&inbox, &json!({})).unwrap();
        assert_eq!((mail.messages.len(), mail.skipped.len()), (5, 0), "{code}");
    }
}

/// exchange.md F4: one item is refused to this account.
#[test]
fn one_item_that_may_not_be_moved_keeps_back_no_other() {
    let desk = Desk::new();
    (0..3).for_each(|number| desk.deliver("alice", &note(number)));
    let inbox = desk.open("alice", "incoming", |form| form["advanced"]["after_import"] = json!("delete"));
    let mail = round(&inbox, &json!({})).unwrap();
    desk.order(json!({"match": "DeleteItem", "times": 10, "response_code": "ErrorAccessDenied", "only": "note 1"}));
    let done = settle(&inbox, mail.keys(), "imported").unwrap();
    assert_eq!(done.values().filter(|word| *word == "deleted").count(), 2, "{done:?}");
    assert_eq!(done.values().filter(|word| *word == "kept").count(), 1, "{done:?}");
    assert!(round(&inbox, &json!({})).unwrap().messages.is_empty());
}

/// exchange.md F7, in every answer that holds the mailbox's own words.
#[test]
fn forbidden_characters_in_old_mail_stop_nothing() {
    for forbidden in ["&#x1F;", "&#xFFFE;", "\u{B}"] {
        let desk = Desk::new();
        (0..2).for_each(|number| desk.deliver("alice", &note(number)));
        let inbox = desk.open("alice", "incoming", |_| {});
        desk.order(json!({"match": "SyncFolderItems", "times": 100,
            "replace": ["<m:ResponseCode>", format!("<m:MessageText>{forbidden}</m:MessageText><m:ResponseCode>")]}));
        assert_eq!(round(&inbox, &json!({})).unwrap().messages.len(), 2, "{forbidden:?}");
    }
}

/// As gromox: any SyncState passes, and one that is not known is a fresh start without a word.
#[test]
fn a_sync_state_forgotten_in_silence_brings_nothing_twice() {
    // In a restored folder every id is new: a message is known again by its Message-ID.
    let known = |number| [format!("Message-ID: <{number}@outside.test>\r\n").into_bytes(), note(number)].concat();
    for (any, restored) in [(true, false), (false, false), (false, true)] {
        let desk = Desk::with(Config { ews_any_sync_state: any, ..Config::default() });
        (0..30).for_each(|number| desk.deliver("alice", &known(number)));
        let inbox = desk.open("alice", "incoming", |_| {});
        let mail = round(&inbox, &json!({})).unwrap();
        // Mails of one second come in the order of their ids.
        let open = mail.subjects()[29].to_owned();
        settle(&inbox, mail.keys().into_iter().take(29), "imported").unwrap();
        match restored {
            true => drop(desk.sandbox.state.mail.with("alice@example.test", |mailbox| mailbox.restore("INBOX"))),
            false => desk.sandbox.state.ews.forget_sync_states(),
        }
        desk.deliver("alice", &known(30));
        let mail = round(&inbox, &json!({})).unwrap();
        let mut subjects = mail.subjects();
        subjects.sort_unstable();
        let mut expected = vec![open.as_str(), "note 30"];
        expected.sort_unstable();
        assert_eq!((subjects, mail.resets.len()), (expected, 1), "{any} {restored}");
        settle(&inbox, mail.keys(), "imported").unwrap();
        assert!(round(&inbox, &json!({})).unwrap().messages.is_empty());
    }
}

#[test]
fn a_poison_message_costs_only_itself() {
    let desk = Desk::new();
    for number in 0..3 {
        desk.deliver("alice", &note(number));
        if number == 1 {
            desk.deliver("alice", b"X-Sandbox-Poison: yes\r\nSubject: poison\r\n\r\nx\r\n");
        }
    }
    let inbox = desk.open("alice", "incoming", |_| ());
    let mut aside = Vec::new();
    for number in 3..7 {
        // Only beside a message that can be read it is the fault of this one.
        desk.deliver("alice", &note(number));
        let mail = round(&inbox, &json!({})).unwrap();
        settle(&inbox, mail.keys(), "imported").unwrap();
        aside.extend(mail.quarantined.into_iter().filter(|one| one["aside"] == true));
    }
    assert_eq!(aside.len(), 1, "{aside:?}");
    let listed = parse(&inbox.fetch_batch(r#"{"quarantine": "list"}"#).unwrap().header);
    assert_eq!(listed["quarantine"][0]["reason"], "Exchange cannot hand out this one message.");
}

#[test]
fn what_has_no_such_id_any_more_is_skipped_and_what_was_not_worked_off_is_asked_for_again() {
    let desk = Desk::new();
    desk.deliver("alice", &note(0));
    desk.deliver("alice", &note(1));
    let inbox = desk.open("alice", "incoming", |_| ());
    desk.order(json!({"match": "GetItem", "response_code": "ErrorBatchProcessingStopped"}));
    let mail = mailbox::batch(&inbox, &json!({"max_messages": 1})).unwrap();
    assert!(mail.messages.len() == 1 && mail.quarantined.is_empty(), "{:?}", mail.quarantined);
    settle(&inbox, mail.keys(), "imported").unwrap();
    desk.deliver("alice", &note(2));
    let inbox = desk.open("alice", "incoming", |_| ());
    desk.order(json!({"match": "GetItem", "response_code": "ErrorInvalidId"}));
    let mail = mailbox::batch(&inbox, &json!({})).unwrap();
    // The code is about the id and not about the folder: nothing is gone by it.
    assert!(mail.skipped.is_empty() && !mail.quarantined.is_empty(), "{:?} {:?}", mail.skipped, mail.quarantined);
}

#[test]
fn one_message_that_cannot_be_moved_holds_up_no_other() {
    let desk = Desk::new();
    (0..5).for_each(|number| desk.deliver("alice", &note(number)));
    let inbox = desk.open("alice", "incoming", |form| {
        form["advanced"]["after_import"] = json!("move");
        form["advanced"]["processed_folder"] = json!("Done");
    });
    let mail = round(&inbox, &json!({})).unwrap();
    let stubborn = mail.keys()[2].to_owned();
    let subject = mail.subjects()[2].to_owned();
    desk.order(json!({"match": "MoveItem", "only": subject, "times": 99, "response_code": "ErrorMoveCopyFailed"}));
    let answer = settle(&inbox, mail.keys(), "imported").unwrap();
    for (key, done) in &answer {
        assert_eq!(done, if *key == stubborn { "kept" } else { "moved" }, "{answer:?}");
    }
    desk.sandbox.state.faults.clear();
    assert!(round(&inbox, &json!({})).unwrap().messages.is_empty(), "it was settled, too");
    assert_eq!((desk.look("alice", "INBOX", |_| ()).len(), desk.look("alice", "Done", |_| ()).len()), (1, 4));
}

#[test]
fn a_server_that_moves_nothing_is_not_asked_about_each_message() {
    let desk = Desk::new();
    (0..64).for_each(|number| desk.deliver("alice", &note(number)));
    let inbox = desk.open("alice", "incoming", |form| {
        form["advanced"]["after_import"] = json!("move");
        form["advanced"]["processed_folder"] = json!("Done");
    });
    let mail = round(&inbox, &json!({})).unwrap();
    desk.order(json!({"match": "MoveItem", "times": 999, "response_code": "ErrorMoveCopyFailed"}));
    let requests = || desk.sandbox.state.faults.counted(Face::Ews).requests;
    let before = requests();
    let answer = settle(&inbox, mail.keys(), "imported").unwrap();
    assert!(answer.len() == 64 && answer.values().all(|done| done == "kept"), "{answer:?}");
    assert!(requests() - before < 20, "{} requests", requests() - before);
    assert!(round(&inbox, &json!({})).unwrap().messages.is_empty());
}

#[test]
fn somebody_else_moves_and_deletes_in_between() {
    let desk = Desk::new();
    for number in 0..4 {
        desk.deliver("alice", &note(number));
    }
    let inbox = desk.open("alice", "incoming", |form| form["advanced"]["after_import"] = json!("delete"));
    let first = mailbox::batch(&inbox, &json!({"max_messages": 1})).unwrap();
    desk.sandbox.state.mail.with("alice@example.test", |mailbox| {
        let uids: Vec<u32> = mailbox.folder("INBOX").unwrap().messages.iter().map(|message| message.uid).collect();
        mailbox.move_to("INBOX", uids[0], "Archive");
        mailbox.remove("INBOX", uids[1]);
    });
    let rest = round(&inbox, &json!({})).unwrap();
    let all = [first.keys(), rest.keys()].concat();
    // What went meanwhile may have been read before.
    assert!((2..=4).contains(&all.len()), "{all:?}");
    let done = settle(&inbox, all.iter().copied(), "imported").unwrap();
    assert_eq!(done.len(), all.len());
    assert!(desk.look("alice", "INBOX", |_| ()).is_empty() && desk.look("alice", "Archive", |_| ()).len() == 1);
    assert!(round(&inbox, &json!({})).unwrap().messages.is_empty());
}

#[test]
fn a_shared_mailbox_and_an_application() {
    let desk = Desk::new();
    desk.deliver("support", &note(1));
    let shared = |form: &mut Value| {
        form["username"] = json!("support@example.test");
        form["advanced"]["consenting_user"] = json!("alice@example.test");
    };
    let inbox = desk.open("alice", "incoming", |form| {
        shared(form);
        form["email_addresses"] = json!(["support@example.test"]);
    });
    let mail = round(&inbox, &json!({})).unwrap();
    assert_eq!(mail.subjects(), ["note 1"]);
    settle(&inbox, mail.keys(), "imported").unwrap();
    let outbox = desk.open("alice", "outgoing", shared);
    assert_eq!(send(&outbox, a_message("by alice"))["outcome"], "sent");
    assert_eq!(desk.look("support", "Sent Items", |_| ()).len(), 1);

    let application = |form: &mut Value| {
        form["username"] = json!("support@example.test");
        form["client_id"] = json!("mail-app");
        form["client_secret"] = json!("mail-app-secret");
        form["scope"] = json!("https://outlook.office365.com/.default");
        form["advanced"]["grant"] = json!("client_credentials");
    };
    let outbox = desk.opened("alice", "outgoing", application);
    assert_eq!(authenticate(&outbox, json!({"action": "start"})).unwrap()["state"], "authorized");
    assert_eq!(send(&outbox, a_message("by the application"))["outcome"], "sent");
    let impersonated = desk.sandbox.state.ews.all().iter().any(|one| one.request.contains("ExchangeImpersonation"));
    assert!(impersonated && desk.look("support", "Sent Items", |_| ()).len() == 2);
}

#[test]
fn an_older_exchange_is_asked_in_its_own_words() {
    let desk = Desk::with(Config { ews_version: "Exchange2010_SP2".into(), ..Config::default() });
    desk.deliver("alice", &note(1));
    let inbox = desk.open("alice", "incoming", |form| form["advanced"]["after_import"] = json!("mark_seen"));
    let mail = round(&inbox, &json!({})).unwrap();
    settle(&inbox, mail.keys(), "imported").unwrap();
    assert_eq!(desk.look("alice", "INBOX", is_seen), [true]);
    let all = desk.sandbox.state.ews.all();
    let update = all.iter().find(|exchange| exchange.request.contains("<m:UpdateItem")).unwrap();
    assert!(update.request.contains("Exchange2010_SP2") && !update.request.contains("SuppressReadReceipts"));
}

#[test]
fn a_server_that_blocks_ews_says_who_must_act() {
    let desk = Desk::with(Config { ews_enabled: false, ..Config::default() });
    let inbox = desk.opened("alice", "incoming", |_| ());
    let error = refused_consent(&desk, &inbox);
    assert_eq!(error.kind(), Kind::AdminRequired, "{error:?}");
    assert!(error.to_string().contains("EwsEnabled"), "{error}");
}

#[test]
fn the_delegate_looks_into_the_sent_items_of_the_shared_mailbox() {
    let desk = Desk::new();
    let outbox = desk.open("alice", "outgoing", |form| {
        form["username"] = json!("support@example.test");
        form["advanced"]["consenting_user"] = json!("alice@example.test");
    });
    desk.order(json!({"match": "<m:SendItem", "cut_after": 0}));
    assert_eq!(send(&outbox, a_message("one"))["outcome"], "unknown");
    let found = send(&outbox, a_message("one"));
    assert_eq!((&found["outcome"], &found["sent_folder"]["found"]), (&json!("sent"), &json!(true)), "{found}");
    assert_eq!(["support", "alice"].map(|name| desk.look(name, "Sent Items", |_| ()).len()), [1, 0]);

    // alice may not open bob's mailbox, and hears what is missing.
    let bob = desk.opened("alice", "incoming", |form| {
        form["username"] = json!("bob@example.test");
        form["advanced"]["consenting_user"] = json!("alice@example.test");
    });
    let error = refused_consent(&desk, &bob);
    assert_eq!((error.kind(), error.provider_code_text()), (Kind::Refused, Some("ErrorAccessDenied")), "{error:?}");
}

#[test]
fn a_wrong_url_and_a_refused_token_are_told_apart() {
    let desk = Desk::new();
    let inbox = desk.opened("alice", "incoming", |form| {
        let url = form["connect_url"].as_str().unwrap().replace("Exchange.asmx", "Other.asmx");
        form["connect_url"] = json!(url);
    });
    let error = refused_consent(&desk, &inbox);
    assert!(error.kind() == Kind::Settings && error.to_string().contains("Connect URL"), "{error:?}");

    let inbox = desk.open("alice", "incoming", |_| ());
    desk.deliver("alice", &note(1));
    mailbox::batch(&inbox, &json!({"max_messages": 1})).unwrap();
    // Once in the middle: a fresh token and another connection.
    desk.order(json!({"match": "SyncFolderItems", "status": 401}));
    assert_eq!(round(&inbox, &json!({})).unwrap().messages.len(), 1);
    desk.order(json!({"match": "", "status": 401, "times": 9}));
    let error = mailbox::batch(&inbox, &json!({})).err().unwrap();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert!(error.to_string().contains("EWS") || error.to_string().contains("token"), "{error}");
}

fn refused_consent(desk: &Desk, handle: &Handle) -> oauth_mail_core::Error {
    let redirect =
        oauth_mail_tests::fixture::redirect_by(handle, |url| sandboxed::consent(&desk.sandbox, url, "alice")).unwrap();
    authenticate(handle, json!({"action": "complete", "redirect": redirect.as_str()})).unwrap_err()
}

#[test]
fn a_large_message_is_sent_and_one_that_is_too_large_is_rejected() {
    let with_attachment = |bytes: usize| {
        let attachment = json!({"name": "a.bin", "content_base64": BASE64_STANDARD.encode(vec![7_u8; bytes])});
        json!({"to": ["bob@example.test"], "subject": "large", "text": "x", "attachments": [attachment]})
    };
    let desk = Desk::new();
    let outbox = desk.open("alice", "outgoing", |_| ());
    assert_eq!(send(&outbox, with_attachment(20 << 20))["outcome"], "sent");
    assert!(desk.look("bob", "INBOX", |message| message.raw.len())[0] > 20 << 20);
    let desk = Desk::with(Config { message_size_max: 100_000, ..Config::default() });
    let outbox = desk.open("alice", "outgoing", |_| ());
    let rejected = send(&outbox, with_attachment(90_000));
    assert_eq!((&rejected["outcome"], &rejected["error"]["kind"]), (&json!("rejected"), &json!("too_large")));
    assert_eq!(rejected["error"]["provider_code"], "ErrorMessageSizeExceeded", "{rejected}");
}

#[test]
fn the_diagnosis_walks_through_and_the_transcript_says_what_was_asked() {
    let desk = Desk::new();
    desk.deliver("alice", &note(1));
    let log = Log::default();
    let store = tempfile::tempdir().unwrap();
    let config = json!({"store": format!("sqlite:{}", store.path().join("store.db").display()),
        "key": {"value": STORE_KEY}, "private_networks": "allow"});
    let plugin = Plugin::new(&config.to_string(), log.logger()).unwrap();
    for (form, options) in [("incoming", json!({"verbose": true})), ("outgoing", json!({"send": true}))] {
        let mut settings = sandboxed::settings(&desk.sandbox, Protocol::Ews, "alice", form);
        // Outgoing mail has no such field.
        if form == "incoming" {
            settings[form]["enable_email_debug"] = json!(true);
        }
        let handle = plugin.open(&settings.to_string()).unwrap();
        let redirect =
            oauth_mail_tests::fixture::redirect_by(&handle, |url| sandboxed::consent(&desk.sandbox, url, "alice"));
        authenticate(&handle, json!({"action": "complete", "redirect": redirect.unwrap().as_str()})).unwrap();
        let mut request = options;
        request["action"] = json!("diagnose");
        let diagnosis = authenticate(&handle, request).unwrap();
        assert!(diagnosis["healthy"] == true && diagnosis.to_string().contains("EWS"), "{diagnosis:#}");
    }
    let log = log.text();
    for operation in ["GetFolder", "FindItem", "GetItem"] {
        assert!(log.contains(&format!("C: {operation} {{")), "{operation}: {log}");
    }
    assert!(log.contains("S: 200 {") && !log.contains("Number 1"), "{log}");
}
