//! Messages that fail are counted, put aside with their bytes and a reason, and block nobody; an operator gets them back.
#![allow(clippy::unwrap_used)]

use std::{collections::HashSet, sync::Arc};

use oauth_mail_core::{Kind, hooks::Handle};
use oauth_mail_sandbox::Config;
use oauth_mail_tests::{
    Options, Servers,
    fixture::{Fixture, parse},
    mailbox::{self, Shared, note, round, since_all},
    relay::Relay,
    sandboxed::{Desk, Protocol},
    wayward_imap::{Poison, WaywardImap},
};
use serde_json::{Value, json};

static SHARED: Shared = Shared::new();

fn servers() -> Arc<Servers> {
    let users = ["failed", "retry", "large", "poison", "away", "again"].map(str::to_owned).to_vec();
    SHARED.servers(|| Options { users, ..Options::default() })
}

fn deliver(servers: &Servers, name: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        mailbox::append(servers, name, "INBOX", "01-Jan-2026 10:00:00 +0000", "", &note(number)).unwrap();
    }
}

fn settle(handle: &Handle, results: Value) -> Value {
    parse(&handle.settle_batch(&json!({ "results": results }).to_string()).unwrap())["done"].take()
}

fn aside(handle: &Handle) -> Vec<Value> {
    let batch = handle.fetch_batch(r#"{"quarantine": "list"}"#).unwrap();
    parse(&batch.header)["quarantine"].as_array().unwrap().clone()
}

#[test]
fn what_the_helpdesk_cannot_take_is_put_aside_after_three_tries_and_can_be_replayed() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let change = |settings: &mut Value| {
        since_all(settings);
        settings["incoming"]["advanced"]["after_refusal"] = json!("move");
        settings["incoming"]["advanced"]["error_folder"] = json!("Errors");
    };
    let handle = fixture.incoming("failed", change);
    deliver(&servers, "failed", 0..2);
    let mail = round(&handle, &json!({})).unwrap();
    let (poison, raw) = (mail.messages[0].key.clone(), mail.messages[0].raw.clone());
    settle(&handle, json!({ mail.messages[1].key.clone(): "imported" }));
    for expected in ["failed", "failed", "put_aside"] {
        let mail = round(&handle, &json!({})).unwrap();
        assert_eq!(mail.keys(), [&poison], "until then it comes again");
        assert_eq!(settle(&handle, json!({ poison.clone(): "failed" }))[&poison], expected);
    }
    assert!(round(&handle, &json!({})).unwrap().messages.is_empty());
    assert_eq!(servers.count("failed", "Errors").unwrap(), 1);
    let [one] = &aside(&handle)[..] else { panic!("{:?}", aside(&handle)) };
    assert_eq!((&one["key"], &one["tries"], &one["stored"]), (&json!(poison), &json!(3), &json!(true)), "{one}");
    assert!(one["reason"].as_str().unwrap().contains("could not take"), "{one}");

    // Also after a restart: its bytes, and a replay under the same key.
    drop(handle);
    let mut settings = servers.incoming_settings("failed");
    change(&mut settings);
    let handle = fixture.plugin_again().open(&settings.to_string()).unwrap();
    let batch = handle.fetch_batch(&json!({ "quarantine": poison }).to_string()).unwrap();
    assert_eq!((&batch.messages[0].key, &batch.messages[0].raw), (&poison, &raw));
    assert_eq!(settle(&handle, json!({ poison.clone(): "replay" }))[&poison], "replay");
    let again = round(&handle, &json!({})).unwrap();
    assert_eq!((again.keys(), &again.messages[0].raw), (vec![&*poison], &raw));
    assert_eq!(settle(&handle, json!({ poison.clone(): "failed" }))[&poison], "put_aside", "no better than before");
    assert!(round(&handle, &json!({})).unwrap().messages.is_empty());
    settle(&handle, json!({ poison.clone(): "replay" }));
    assert_eq!(round(&handle, &json!({})).unwrap().keys(), [&poison]);
    assert_eq!(settle(&handle, json!({ poison.clone(): "imported" }))[&poison], "released");
    assert!(aside(&handle).is_empty() && round(&handle, &json!({})).unwrap().messages.is_empty());
    let error = handle.fetch_batch(&json!({ "quarantine": poison }).to_string()).err().unwrap();
    assert_eq!(error.kind(), Kind::Misuse);
    assert_eq!(servers.count("failed", "Errors").unwrap(), 1, "the mailbox was done with it");
}

#[test]
fn a_helpdesk_that_is_down_puts_nothing_aside() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("retry", since_all);
    deliver(&servers, "retry", 0..2);
    for _ in 0..5 {
        let mail = round(&handle, &json!({})).unwrap();
        assert_eq!(mail.messages.len(), 2);
        mailbox::settle(&handle, mail.keys(), "retry").unwrap();
    }
    assert!(aside(&handle).is_empty());
    // It takes others, and this one never: then it is the message.
    let stubborn = round(&handle, &json!({})).unwrap().messages[0].key.clone();
    for expected in ["retry", "retry", "put_aside"] {
        deliver(&servers, "retry", 5..6);
        let mut results = json!({});
        for message in round(&handle, &json!({})).unwrap().messages {
            results[&message.key] = json!(if message.key == stubborn { "retry" } else { "imported" });
        }
        assert_eq!(settle(&handle, results)[&stubborn], expected);
    }
    assert_eq!(aside(&handle).len(), 1);
    assert_eq!(settle(&handle, json!({ stubborn.clone(): "drop" }))[&stubborn], "dropped");
    assert!(aside(&handle).is_empty() && round(&handle, &json!({})).unwrap().messages.is_empty());
    assert_eq!(settle(&handle, json!({ stubborn.clone(): "replay" }))[&stubborn], "not_put_aside");
}

#[test]
fn a_settlement_that_is_repeated_counts_once() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let relay = Relay::start(servers.dovecot.port).unwrap();
    let handle = fixture.incoming("again", |settings| {
        since_all(settings);
        settings["incoming"]["port"] = json!(relay.port());
        settings["incoming"]["advanced"]["after_import"] = json!("mark_seen");
    });
    deliver(&servers, "again", 0..2);
    let mail = round(&handle, &json!({})).unwrap();
    let (taken, other) = (mail.messages[0].key.clone(), mail.messages[1].key.clone());
    let results = json!({ taken.clone(): "imported", other.clone(): "retry" });
    relay.cut_after(0);
    for _ in 0..5 {
        let error = handle.settle_batch(&json!({ "results": results, "deadline_ms": 2_000 }).to_string()).unwrap_err();
        assert_eq!(error.kind(), Kind::Transient, "{error}");
    }
    relay.heal();
    assert_eq!(settle(&handle, results), json!({ taken: "marked_seen", other.clone(): "retry" }));
    assert!(aside(&handle).is_empty());
    // An operator drops what was put aside before the mailbox or the cursor heard of it.
    for _ in 0..2 {
        settle(&handle, json!({ other.clone(): "failed" }));
    }
    assert_eq!(aside(&handle).len(), 1);
    assert_eq!(settle(&handle, json!({ other.clone(): "drop" }))[&other], "dropped");
    assert!(round(&handle, &json!({})).unwrap().messages.is_empty());
}

#[test]
fn a_message_that_ends_the_connection_is_found_and_the_others_come_through() {
    for poison in [Poison::HangUp, Poison::Flood, Poison::Refused, Poison::LeftOut] {
        let servers = servers();
        let fixture = Fixture::new(&servers);
        let imap = WaywardImap::start(&servers.ca).unwrap();
        let handle = fixture.incoming("poison", |settings| {
            since_all(settings);
            settings["incoming"]["port"] = json!(imap.port);
        });
        for number in 0..40 {
            imap.deliver(&note(number), (number == 17).then_some(poison));
        }
        let mut subjects = Vec::new();
        let mut told = Vec::new();
        // At least one call gets on with each failure.
        for _ in 0..20 {
            match mailbox::batch(&handle, &json!({})) {
                Ok(mail) => {
                    subjects.extend(mail.subjects().into_iter().map(str::to_owned));
                    told.extend(mail.quarantined.iter().cloned());
                    mailbox::settle(&handle, mail.keys(), "imported").unwrap();
                }
                Err(error) => {
                    assert!(
                        matches!(error.kind(), Kind::Transient | Kind::ServerMisbehaved | Kind::TooLarge),
                        "{poison:?}: {error:?}"
                    )
                }
            }
            if subjects.len() == 39 {
                break;
            }
        }
        let mut expected: Vec<String> = (0..40).filter(|n| *n != 17).map(|n| format!("note {n}")).collect();
        expected.sort();
        subjects.sort();
        assert_eq!(subjects, expected, "{poison:?}: each of the others once");
        // It may be the server's fault: only time and other mail tell.
        for number in 50..60 {
            if !aside(&handle).is_empty() {
                break;
            }
            fixture.clock.advance(600);
            imap.deliver(&note(number), None);
            let mail = round(&handle, &json!({})).unwrap();
            assert_eq!(mail.subjects(), [format!("note {number}")]);
            told.extend(mail.quarantined.iter().cloned());
            mailbox::settle(&handle, mail.keys(), "imported").unwrap();
        }
        let [one] = &aside(&handle)[..] else { panic!("{poison:?}: {:?}", aside(&handle)) };
        assert!(one["key"].as_str().unwrap().ends_with("/INBOX/7.18"), "{poison:?}: {one}");
        assert!(one["last"].as_i64().unwrap() - one["first"].as_i64().unwrap() >= 1800, "{one}");
        assert_eq!(told.last().unwrap()["aside"], true, "{told:?}");
        assert!(round(&handle, &json!({})).unwrap().messages.is_empty(), "{poison:?}");

        // The server is mended: a replay reads it from the mailbox.
        imap.make(None);
        let key = one["key"].as_str().unwrap();
        settle(&handle, json!({ key: "replay" }));
        let again = round(&handle, &json!({})).unwrap();
        assert_eq!((again.keys(), again.subjects()), (vec![key], vec!["note 17"]), "{poison:?}");
        assert_eq!(settle(&handle, json!({ key: "imported" }))[key], "released");
    }
}

#[test]
fn a_server_that_gives_out_nothing_puts_nothing_aside_and_nothing_is_gone() {
    for trouble in [Poison::HangUp, Poison::Refused, Poison::LeftOut] {
        nothing_comes_out(trouble);
    }
}

fn nothing_comes_out(trouble: Poison) {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let imap = WaywardImap::start(&servers.ca).unwrap();
    let handle = fixture.incoming("away", |settings| {
        since_all(settings);
        settings["incoming"]["port"] = json!(imap.port);
    });
    for number in 0..20 {
        imap.deliver(&note(number), None);
    }
    imap.make(Some(trouble));
    if trouble == Poison::LeftOut {
        // As good as expunged, the first time.
        assert_eq!(round(&handle, &json!({})).unwrap().skipped.len(), 20);
    }
    // Hours: each round says that it is the server, after a few messages, and others each time.
    let mut told = HashSet::new();
    for _ in 0..12 {
        fixture.clock.advance(1800);
        let error = loop {
            match mailbox::batch(&handle, &json!({})) {
                Ok(mail) => {
                    assert!(mail.messages.is_empty() && mail.more);
                    for one in mail.quarantined {
                        assert_eq!((&one["aside"], &one["tries"]), (&json!(false), &json!(0)), "{one}");
                        told.insert(one["key"].as_str().unwrap().to_owned());
                    }
                }
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), Kind::Transient, "{error:?}");
    }
    assert!(told.len() > 10, "{}", told.len());
    assert!(aside(&handle).is_empty());
    imap.deliver(&note(20), None);
    let mail = round(&handle, &json!({})).unwrap();
    assert_eq!(mail.subjects(), ["note 20"], "whatever lies before it");
    mailbox::settle(&handle, mail.keys(), "imported").unwrap();

    imap.make(None);
    let mail = round(&handle, &json!({})).unwrap();
    let mut subjects = mail.subjects();
    subjects.sort_unstable_by_key(|subject| subject[5..].parse::<usize>().unwrap());
    assert_eq!(subjects, (0..20).map(|number| format!("note {number}")).collect::<Vec<_>>());
    assert!(mail.quarantined.is_empty());
}

/// exchange.md F6: each message is blamed by a code of its own while the server is at fault for all.
#[test]
fn a_code_for_every_mail_puts_nothing_aside() {
    let graph = json!({"face": "graph", "match": "/$value", "status": 400, "code": "BadRequest"});
    let of = |code: &str| json!({"face": "ews", "match": "GetItem", "response_code": code});
    for (protocol, mut fault) in [
        (Protocol::Ews, of("ErrorInsufficientResources")),
        (Protocol::Ews, of("ErrorCorruptData")),
        (Protocol::Ews, of("ErrorItemNotFound")),
        (Protocol::Graph, graph),
    ] {
        let desk = Desk::new(protocol, Config::default());
        let handle = desk.open("alice", "incoming", |_| {});
        (0..5).for_each(|number| desk.deliver("alice", &note(number)));
        fault["times"] = json!(10_000);
        desk.sandbox.state.faults.order(serde_json::from_value(fault.clone()).unwrap());
        for _ in 0..6 {
            let mail = round(&handle, &json!({})).unwrap_or_default();
            assert!(mail.messages.is_empty() && mail.quarantined.iter().all(|one| one["aside"] == false), "{fault}");
        }
        assert!(aside(&handle).is_empty(), "{fault}");
        desk.sandbox.state.faults.clear();
        assert_eq!(round(&handle, &json!({})).unwrap().messages.len(), 5, "{fault}");
    }
}

#[test]
fn what_no_record_holds_stays_in_the_mailbox_and_is_read_from_there() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("large", |settings| {
        since_all(settings);
        settings["incoming"]["advanced"]["after_refusal"] = json!("delete");
    });
    let mut raw = b"From: <ada@outside.test>\r\nSubject: large\r\n\r\n".to_vec();
    while raw.len() < 9 << 20 {
        raw.extend_from_slice(b"0123456789012345678901234567890123456789012345678901234567890123456789\r\n");
    }
    mailbox::append(&servers, "large", "INBOX", "01-Jan-2026 10:00:00 +0000", "", &raw).unwrap();
    let key = round(&handle, &json!({})).unwrap().messages[0].key.clone();
    for _ in 0..3 {
        settle(&handle, json!({ key.clone(): "failed" }));
    }
    assert_eq!(aside(&handle)[0]["stored"], false);
    let batch = handle.fetch_batch(&json!({ "quarantine": key }).to_string()).unwrap();
    assert!(batch.messages[0].raw == raw);
    settle(&handle, json!({ key.clone(): "replay" }));
    let again = round(&handle, &json!({})).unwrap();
    assert!(again.messages[0].raw == raw && again.messages.len() == 1);
}
