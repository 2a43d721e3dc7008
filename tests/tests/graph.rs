//! The library against the Graph face of the sandbox: fetching, settling, sending, and what the provider throws at it.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, thread, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use oauth_mail_core::{
    Kind,
    hooks::{Handle, Plugin},
    log::Logger,
};
use oauth_mail_sandbox::{
    Config, Sandbox,
    mailbox::{Mailbox, Message as Stored},
};
use oauth_mail_tests::{
    fixture::{STORE_KEY, authenticate, complete, parse},
    mailbox::{batch, hash, note, round, settle},
    sandboxed::{self, Protocol},
};
use serde_json::{Value, json};
use time::OffsetDateTime;

const NAME: &str = "alice";

struct Desk {
    sandbox: Sandbox,
    plugin: Plugin,
    _folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let sandbox = Sandbox::start(Config::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store.db");
        let config = json!({"store": format!("sqlite:{}", store.display()), "key": {"value": STORE_KEY},
            "private_networks": "allow"});
        let plugin = Plugin::new(&config.to_string(), Logger::silent()).unwrap();
        Self { sandbox, plugin, _folder: folder }
    }

    fn with_notes(count: usize) -> Self {
        let desk = Self::new();
        (0..count).for_each(|number| desk.deliver(&note(number)));
        desk
    }

    fn deliver(&self, raw: &[u8]) {
        assert!(self.sandbox.state.mail.deliver("", &sandboxed::address(NAME), raw));
    }

    /// The form of NAME's mailbox, changed and opened; `consents`: who signs in.
    fn open(&self, form: &str, name: &str, consents: Option<&str>, change: impl FnOnce(&mut Value)) -> Handle {
        let mut settings = sandboxed::settings(&self.sandbox, Protocol::Graph, name, form);
        change(&mut settings[form]);
        let handle = self.plugin.open(&settings.to_string()).unwrap_or_else(|e| panic!("{e} {:?}", e.faults()));
        if let Some(person) = consents {
            let started = authenticate(&handle, json!({"action": "start"})).unwrap();
            let redirect =
                sandboxed::consent(&self.sandbox, started["authorize_url"].as_str().unwrap(), person).unwrap();
            let answer = complete(&handle, redirect.as_str()).unwrap();
            assert_eq!(answer["state"], "authorized", "{answer}");
        }
        handle
    }

    fn incoming(&self, change: impl FnOnce(&mut Value)) -> Handle {
        self.open("incoming", NAME, Some(NAME), change)
    }

    fn outgoing(&self) -> Handle {
        self.open("outgoing", NAME, Some(NAME), |_| {})
    }

    fn stored(&self, name: &str, folder: &str) -> Vec<Stored> {
        let list =
            |mailbox: &mut Mailbox| mailbox.folder(folder).map_or_else(Vec::new, |folder| folder.messages.clone());
        self.sandbox.state.mail.with(&sandboxed::address(name), list).unwrap()
    }

    fn order(&self, fault: Value) {
        self.sandbox.state.faults.order(serde_json::from_value(fault).unwrap());
    }
}

fn send(handle: &Handle, request: Value) -> Value {
    parse(&handle.send_message(&request.to_string(), &[]).unwrap())
}

fn mail(subject: &str) -> Value {
    json!({"to": ["bob@example.test"], "subject": subject, "text": "hello"})
}

#[test]
fn mail_is_fetched_and_settled() {
    for (action, done) in [("leave", "left"), ("mark_seen", "marked_seen"), ("move", "moved"), ("delete", "deleted")] {
        let desk = Desk::with_notes(3);
        let handle = desk.incoming(|form| {
            form["advanced"]["after_import"] = json!(action);
            if action == "move" {
                form["advanced"]["processed_folder"] = json!("Done/This year");
            }
        });
        let mail = round(&handle, &json!({"max_messages": 2})).unwrap();
        assert_eq!(mail.subjects(), ["note 0", "note 1", "note 2"]);
        assert!(desk.stored(NAME, "INBOX").iter().all(|message| !message.is_seen()), "reading changes nothing");
        let answer = settle(&handle, mail.keys(), "imported").unwrap();
        assert!(answer.len() == 3 && answer.values().all(|one| one == done), "{answer:?}");
        let (inbox, moved) = (desk.stored(NAME, "INBOX"), desk.stored(NAME, "Done/This year"));
        let seen = inbox.iter().filter(|message| message.is_seen()).count();
        let expected = match action {
            "leave" => (3, 0, 0),
            "mark_seen" => (3, 3, 0),
            "move" => (0, 0, 3),
            _ => (0, 0, 0),
        };
        assert_eq!((inbox.len(), seen, moved.len()), expected, "{action}");
        // Again it does no harm, and nothing comes twice.
        settle(&handle, mail.keys(), "imported").unwrap();
        desk.deliver(&note(3));
        assert_eq!(round(&handle, &json!({})).unwrap().subjects(), ["note 3"], "{action}");
    }
}

#[test]
fn a_message_goes_out_once_and_is_found_again() {
    let desk = Desk::new();
    let handle = desk.outgoing();
    let answer = send(&handle, mail("first"));
    assert_eq!(answer["outcome"], "sent", "{answer}");
    assert_eq!((desk.stored("bob", "INBOX").len(), desk.stored(NAME, "Sent Items").len()), (1, 1));
    assert!(desk.stored(NAME, "Drafts").is_empty());

    // The message is sent and the answer lost: the Message-ID tells.
    desk.order(json!({"face": "graph", "match": "/send", "slow_ms": 8000}));
    let mut lost = mail("lost answer");
    lost["idempotency_key"] = json!("k1");
    lost["deadline_ms"] = json!(5000);
    let answer = send(&handle, lost.clone());
    assert_eq!(answer["outcome"], "unknown", "{answer}");
    let mut again = answer.clone();
    for _ in 0..40 {
        again = send(&handle, lost.clone());
        if again["outcome"] == "sent" {
            break;
        }
        thread::sleep(Duration::from_millis(250));
    }
    assert_eq!((&again["outcome"], &again["message_id"]), (&json!("sent"), &answer["message_id"]), "{again}");
    assert_eq!(desk.stored("bob", "INBOX").len(), 2, "it was sent twice");

    // Nothing reached the mailbox: it is not found, and nobody sends it blindly.
    desk.order(json!({"face": "graph", "match": "/send", "status": 504}));
    let answer = send(&handle, mail("gateway"));
    assert_eq!(answer["outcome"], "unknown", "{answer}");
    let look = json!({"look_up": answer["message_id"]});
    let answer = send(&handle, look);
    assert_eq!((&answer["outcome"], &answer["sent_folder"]["found"]), (&json!("unknown"), &json!(false)), "{answer}");

    // Before the second step nothing can have gone out.
    desk.order(json!({"face": "graph", "match": "POST /v1.0/me/messages", "status": 503, "retry_after": 2}));
    let answer = send(&handle, mail("later"));
    assert_eq!((&answer["outcome"], &answer["retry_after_seconds"]), (&json!("retry"), &json!(2)), "{answer}");
}

#[test]
fn five_megabytes_go_out_in_parts_and_arrive_whole() {
    let desk = Desk::new();
    let file: Vec<u8> = (0..5_000_000_u32).map(|n| (n.wrapping_mul(n) >> 9) as u8).collect();
    let attachment = |name: &str, bytes: &[u8]| json!({"name": name, "type": "application/pdf", "content_base64": BASE64_STANDARD.encode(bytes)});
    let mut request = mail("café");
    request["html"] = json!("<p>café</p>");
    request["in_reply_to"] = json!("<question@outside.test>");
    request["references"] = json!(["<start@outside.test>", "<question@outside.test>"]);
    request["bcc"] = json!(["support@example.test"]);
    request["attachments"] = json!([attachment("large.pdf", &file), attachment("small.pdf", b"%PDF")]);
    let answer = send(&desk.outgoing(), request);
    assert_eq!(answer["outcome"], "sent", "{answer}");
    assert!(desk.stored(NAME, "Drafts").is_empty());
    assert_eq!(desk.stored("support", "INBOX").len(), 1, "Bcc");

    let arrived = desk.stored("bob", "INBOX").remove(0);
    let facts = oauth_mail_core::message::parse(&arrived.raw);
    assert_eq!(facts.subject.as_deref(), Some("café"));
    let id = answer["message_id"].as_str().unwrap().trim_matches(['<', '>']);
    assert_eq!(facts.message_id.as_deref(), Some(id));
    assert_eq!(facts.in_reply_to, ["question@outside.test"]);
    assert_eq!(facts.references, ["start@outside.test", "question@outside.test"]);
    assert!(facts.html.as_deref().unwrap().contains("<p>café</p>"));
    let names: Vec<_> = facts.attachments.iter().map(|one| one.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["large.pdf", "small.pdf"]);
    let large = oauth_mail_core::message::attachment(&arrived.raw, facts.attachments[0].part_index).unwrap();
    assert_eq!(hash(&large), hash(&file));
    assert!(facts.bcc.is_empty(), "{:?}", facts.bcc);
}

#[test]
fn thirty_megabytes_come_in_whole() {
    let desk = Desk::new();
    let line = "0123456789".repeat(7) + "\r\n";
    let raw = format!("From: <ada@outside.test>\r\nSubject: large\r\n\r\n{}", line.repeat(30_000_000 / line.len()));
    let received = OffsetDateTime::now_utc();
    let append = |mailbox: &mut oauth_mail_sandbox::mailbox::Mailbox| {
        mailbox.append("INBOX", raw.clone().into_bytes(), BTreeSet::new(), received)
    };
    desk.sandbox.state.mail.with(&sandboxed::address(NAME), append).unwrap();
    desk.deliver(&note(1));
    let mail = round(&desk.incoming(|_| {}), &json!({"max_bytes": 1_000_000})).unwrap();
    assert_eq!(mail.subjects(), ["large", "note 1"]);
    assert_eq!(mail.hashes()[0], hash(raw.as_bytes()));
    assert!(mail.batches >= 2, "the large one travels alone");
}

#[test]
fn throttling_is_waited_out_and_costs_no_mail() {
    let desk = Desk::with_notes(2);
    let handle = desk.incoming(|_| {});
    desk.order(json!({"face": "graph", "match": "/delta", "status": 429, "retry_after": 7}));
    let error = batch(&handle, &json!({})).err().unwrap();
    assert_eq!((error.kind(), error.wait().unwrap().as_secs()), (Kind::Throttled, 7));
    desk.order(json!({"face": "graph", "match": "/$value", "status": 429}));
    let error = batch(&handle, &json!({})).err();
    assert!(error.is_none_or(|error| error.kind() == Kind::Throttled));
    let mail = round(&handle, &json!({})).unwrap();
    assert!(mail.quarantined.is_empty());
    assert_eq!(desk.stored(NAME, "INBOX").len(), 2);
    settle(&handle, mail.keys(), "imported").unwrap();
}

#[test]
fn a_pause_that_was_asked_for_is_kept_when_the_batch_had_mail_already() {
    let desk = Desk::with_notes(2);
    let handle = desk.incoming(|_| {});
    let keys = round(&handle, &json!({})).unwrap();
    let id = keys.keys()[1].rsplit('/').next().unwrap().to_owned();
    desk.order(json!({"face": "graph", "match": format!("{id}/$value"), "times": 9, "status": 429, "retry_after": 60}));
    assert_eq!(batch(&handle, &json!({})).unwrap().subjects(), ["note 0"]);
    desk.sandbox.state.faults.clear();
    let error = batch(&handle, &json!({})).err().unwrap();
    assert_eq!(error.kind(), Kind::Throttled);
    assert!((1..=60).contains(&error.wait().unwrap().as_secs()), "{:?}", error.wait());
}

#[test]
fn what_comes_of_a_gateway_is_no_refusal_of_the_message() {
    let desk = Desk::new();
    let handle = desk.outgoing();
    desk.order(json!({"face": "graph", "match": "POST /v1.0/me/messages", "malformed": true}));
    let answer = send(&handle, mail("garbled"));
    assert_eq!(answer["outcome"], "retry", "{answer}");
    assert_eq!(send(&handle, mail("garbled"))["outcome"], "sent");
    assert_eq!(desk.stored("bob", "INBOX").len(), 1);
}

#[test]
fn a_target_folder_that_was_deleted_meanwhile_is_made_again() {
    let desk = Desk::with_notes(1);
    let handle = desk.incoming(|form| {
        form["advanced"]["after_import"] = json!("move");
        form["advanced"]["processed_folder"] = json!("Done");
    });
    for number in 1..=2 {
        let mail = round(&handle, &json!({})).unwrap();
        let answer = settle(&handle, mail.keys(), "imported").unwrap();
        assert!(answer.len() == 1 && answer.values().all(|one| one == "moved"), "{answer:?}");
        assert!(desk.stored(NAME, "INBOX").is_empty() && desk.stored(NAME, "Done").len() == 1);
        let forget = |mailbox: &mut Mailbox| mailbox.folders.retain(|folder| folder.name != "Done");
        desk.sandbox.state.mail.with(&sandboxed::address(NAME), forget).unwrap();
        desk.deliver(&note(number));
    }
}

#[test]
fn a_forgotten_delta_link_brings_nothing_twice() {
    let desk = Desk::with_notes(4);
    let handle = desk.incoming(|_| {});
    let mail = round(&handle, &json!({})).unwrap();
    settle(&handle, mail.keys().into_iter().take(3), "imported").unwrap();
    desk.sandbox.state.graph.expire_delta_links(None);
    desk.deliver(&note(4));
    let mail = round(&handle, &json!({})).unwrap();
    assert_eq!(mail.subjects(), ["note 3", "note 4"]);
    assert_eq!(mail.resets.len(), 1, "{:?}", mail.resets);
    settle(&handle, mail.keys(), "imported").unwrap();
    assert!(round(&handle, &json!({})).unwrap().messages.is_empty());
}

#[test]
fn a_poison_message_is_put_aside_and_blocks_nobody() {
    let desk = Desk::with_notes(3);
    let handle = desk.incoming(|_| {});
    let id = desk.stored(NAME, "INBOX")[1].id.clone();
    let keys = round(&handle, &json!({})).unwrap();
    let key = keys.keys()[1].to_owned();
    let graph_id = key.rsplit('/').next().unwrap().to_owned();
    desk.order(json!({"face": "graph", "match": format!("{graph_id}/$value"), "times": 20, "status": 400,
        "code": "ErrorMimeContentConversionFailed"}));
    let mut quarantined = Vec::new();
    for _ in 0..3 {
        let mail = round(&handle, &json!({})).unwrap();
        assert_eq!(mail.subjects(), ["note 0", "note 2"], "{id}");
        quarantined.extend(mail.quarantined);
    }
    assert_eq!(quarantined.len(), 3);
    assert_eq!(quarantined[2]["aside"], json!(true), "{quarantined:?}");
    assert!(round(&handle, &json!({})).unwrap().quarantined.is_empty());
}

#[test]
fn what_is_gone_is_told_until_it_is_sure_also_when_nothing_is_settled() {
    let desk = Desk::with_notes(3);
    let handle = desk.incoming(|_| {});
    round(&handle, &json!({})).unwrap();
    let uid = desk.stored(NAME, "INBOX")[1].uid;
    desk.sandbox.state.mail.with(&sandboxed::address(NAME), |mailbox| mailbox.remove("INBOX", uid)).unwrap();
    // Said once it may be a mistake (exchange.md F1).
    for _ in 0..2 {
        let mail = round(&handle, &json!({})).unwrap();
        assert_eq!((mail.subjects(), mail.skipped.len()), (vec!["note 0", "note 2"], 1));
    }
    let mail = round(&handle, &json!({})).unwrap();
    assert_eq!((mail.messages.len(), mail.skipped.len()), (2, 0), "{:?}", mail.skipped);
}

fn ids(desk: &Desk, folder: &str) -> Vec<String> {
    desk.stored(NAME, folder).iter().map(|message| message.id.clone()).collect()
}

/// exchange.md F1: one poll in which every `$value` is answered 404, with whatever code.
#[test]
fn a_poll_of_404_loses_no_mail() {
    for code in ["MailboxNotEnabledForRESTAPI", "ResourceNotFound", "ErrorInvalidUser", "ErrorItemNotFound"] {
        let desk = Desk::with_notes(5);
        let handle = desk.incoming(|_| {});
        desk.order(json!({"face": "graph", "match": "/$value", "times": 1000, "status": 404, "code": code}));
        for _ in 0..4 {
            let Err(_) = round(&handle, &json!({})) else { panic!("{code}: as if all were well") };
        }
        desk.sandbox.state.faults.clear();
        let mail = round(&handle, &json!({})).unwrap();
        assert_eq!((mail.messages.len(), mail.skipped.len(), mail.quarantined.len()), (5, 0, 0), "{code}");
    }
}

/// exchange.md F2: what is not the message, once for each.
#[test]
fn what_is_not_the_message_is_read_again() {
    for fault in [
        json!({"status": 200, "body": ""}),
        json!({"status": 200, "body": "{}"}),
        json!({"status": 200, "body": "<html><title>Sign in</title></html>", "content_type": "text/html"}),
        json!({"gzip": true}),
        json!({"content_type": "application/json"}),
    ] {
        let desk = Desk::with_notes(3);
        let handle = desk.incoming(|form| form["advanced"]["after_import"] = json!("delete"));
        let id = &ids(&desk, "INBOX")[1];
        let mut order = json!({"face": "graph", "match": format!("{id}/$value"), "times": 1});
        order.as_object_mut().unwrap().extend(fault.as_object().unwrap().clone());
        desk.order(order);
        let mail = round(&handle, &json!({})).unwrap();
        assert_eq!((mail.subjects(), mail.quarantined.len()), (vec!["note 0", "note 2"], 1), "{fault}");
        settle(&handle, mail.keys(), "imported").unwrap();
        assert_eq!(round(&handle, &json!({})).unwrap().subjects(), ["note 1"], "{fault}");
    }
}

/// exchange.md F3: the answer to the first `$batch` is lost, and a person deletes one.
#[test]
fn a_delete_that_was_done_already_is_done() {
    let desk = Desk::with_notes(3);
    let handle = desk.incoming(|form| form["advanced"]["after_import"] = json!("delete"));
    let mail = round(&handle, &json!({})).unwrap();
    let uid = desk.stored(NAME, "INBOX")[0].uid;
    desk.sandbox.state.mail.with(&sandboxed::address(NAME), |mailbox| mailbox.remove("INBOX", uid)).unwrap();
    let answer = settle(&handle, mail.keys(), "imported").unwrap();
    let words: Vec<_> = answer.values().cloned().collect();
    assert_eq!(words.iter().filter(|word| *word == "gone").count(), 1, "{answer:?}");
    assert!(desk.stored(NAME, "INBOX").is_empty());
    let again = settle(&handle, mail.keys(), "imported").unwrap();
    assert!(again.values().all(|word| word == "gone"), "{again:?}");
    desk.deliver(&note(3));
    assert_eq!(round(&handle, &json!({})).unwrap().subjects(), ["note 3"]);
}

/// exchange.md F5: four parts of each batch are throttled, and it comes to an end all the same.
#[test]
fn a_batch_in_parts_throttled_goes_on() {
    let desk = Desk::with_notes(20);
    let handle = desk.incoming(|form| form["advanced"]["after_import"] = json!("delete"));
    for left in [4, 0] {
        let mail = round(&handle, &json!({})).unwrap();
        if left > 0 {
            desk.order(json!({"face": "graph", "match": "DELETE /v1.0/me/messages/", "times": 4, "status": 429,
                "retry_after": 1}));
        }
        let answer = settle(&handle, mail.keys(), "imported").unwrap();
        assert_eq!(answer.values().filter(|word| *word == "later").count(), left, "{answer:?}");
        assert_eq!(desk.stored(NAME, "INBOX").len(), left);
    }
    assert!(round(&handle, &json!({})).unwrap().messages.is_empty());
}

/// exchange.md F12.
#[test]
fn a_delta_link_that_is_refused_with_400_is_given_up() {
    let desk = Desk::with_notes(3);
    let handle = desk.incoming(|_| {});
    settle(&handle, round(&handle, &json!({})).unwrap().keys(), "imported").unwrap();
    desk.sandbox.state.graph.expire_delta_links(Some((400, "BadRequest".into())));
    desk.deliver(&note(3));
    let mail = round(&handle, &json!({})).unwrap();
    assert_eq!((mail.subjects(), mail.resets.len()), (vec!["note 3"], 1));
}

#[test]
fn while_nothing_can_be_read_nothing_is_put_aside() {
    let desk = Desk::with_notes(6);
    let handle = desk.incoming(|_| {});
    desk.order(json!({"face": "graph", "match": "/$value", "times": 1000, "status": 502}));
    for _ in 0..6 {
        let error = round(&handle, &json!({})).err().unwrap();
        assert_eq!(error.kind(), Kind::Transient, "{error:?}");
    }
    let aside = handle.fetch_batch(r#"{"quarantine": "list"}"#).unwrap();
    assert_eq!(parse(&aside.header)["quarantine"], json!([]));
    desk.sandbox.state.faults.clear();
    let mail = round(&handle, &json!({})).unwrap();
    assert_eq!((mail.messages.len(), mail.quarantined.len()), (6, 0));
}

#[test]
fn a_shared_mailbox_is_opened_by_a_delegate() {
    let desk = Desk::new();
    assert!(desk.sandbox.state.mail.deliver("", "support@example.test", &note(1)));
    let shared = |form: &mut Value| {
        form["advanced"]["consenting_user"] = json!("alice@example.test");
        form["scope"] = json!(
            "openid offline_access https://graph.microsoft.com/Mail.ReadWrite.Shared \
             https://graph.microsoft.com/Mail.Send.Shared"
        );
    };
    let handle = desk.open("incoming", "support", Some(NAME), shared);
    let mail = round(&handle, &json!({})).unwrap();
    assert_eq!(mail.subjects(), ["note 1"]);
    settle(&handle, mail.keys(), "imported").unwrap();
    let sender = desk.open("outgoing", "support", None, shared);
    let answer = send(&sender, mail_to_bob());
    assert_eq!(answer["outcome"], "sent", "{answer}");
    let facts = oauth_mail_core::message::parse(&desk.stored("bob", "INBOX")[0].raw);
    assert_eq!(facts.from[0].address, "support@example.test");
}

fn mail_to_bob() -> Value {
    mail("from the desk")
}

#[test]
fn an_application_needs_nobody() {
    let desk = Desk::with_notes(1);
    let application = |form: &mut Value| {
        form["client_id"] = json!("mail-app");
        form["client_secret"] = json!("mail-app-secret");
        form["scope"] = json!("https://graph.microsoft.com/.default");
        form["advanced"]["grant"] = json!("client_credentials");
    };
    let handle = desk.open("incoming", NAME, None, application);
    let answer = authenticate(&handle, json!({"action": "start"})).unwrap();
    assert_eq!(answer["state"], "authorized", "{answer}");
    assert_eq!(answer["scopes"]["missing"], json!([]), "{answer}");
    assert_eq!(round(&handle, &json!({})).unwrap().subjects(), ["note 0"]);
    let answer = send(&desk.open("outgoing", NAME, None, application), mail("app"));
    assert_eq!(answer["outcome"], "sent", "{answer}");
    assert_eq!(desk.stored("bob", "INBOX").len(), 1);
}

#[test]
fn mail_send_alone_is_enough_to_send() {
    let desk = Desk::new();
    let handle = desk.open("outgoing", NAME, Some(NAME), |form| {
        form["scope"] = json!("openid offline_access https://graph.microsoft.com/Mail.Send");
    });
    let answer = send(&handle, mail("one step"));
    assert_eq!(answer["outcome"], "sent", "{answer}");
    assert_eq!((desk.stored("bob", "INBOX").len(), desk.stored(NAME, "Sent Items").len()), (1, 1));
}
