//! Fetching from a real Dovecot: everything once, byte for byte, whatever happens on the way.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, thread, time::Duration};

use oauth_mail_core::{Kind, hooks::Handle};
use oauth_mail_tests::{
    MailboxFormat, Options, Servers,
    fixture::Fixture,
    mailbox::{Mail, Shared, append, batch, filled, flags, hash, note, round, settle, since_all},
    mailgen,
    relay::Relay,
};
use serde_json::{Value, json};

static SHARED: Shared = Shared::new();

/// Each scenario has a mailbox of its own.
const PEOPLE: [&str; 14] = [
    "one",
    "hundred",
    "thousands",
    "bounds",
    "cutoff",
    "since",
    "renumbered",
    "special",
    "large",
    "odd",
    "folders",
    "flags",
    "twins",
    "slow",
];

fn servers() -> Arc<Servers> {
    SHARED.servers(|| Options {
        users: PEOPLE.map(str::to_owned).to_vec(),
        format: MailboxFormat::Mdbox,
        // Quicker; the system's temporary folder will do.
        parent: Some(PathBuf::from("/dev/shm")).filter(|path| path.is_dir()),
        ..Options::default()
    })
}

#[test]
fn one_and_a_hundred_messages_arrive_once_and_unchanged() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    for (name, count) in [("one", 1), ("hundred", 100)] {
        servers.fill(name, count, 20).unwrap();
        let handle = fixture.incoming(name, since_all);
        let mail = round(&handle, &json!({})).unwrap();
        assert_eq!((mail.hashes(), mail.skipped.len()), (filled(count, 20), 0));
        assert!(mail.has_no_key_twice());
        // Nothing is settled: the next round has the same, under the same keys.
        let again = round(&handle, &json!({"max_messages": 30})).unwrap();
        assert_eq!((mail.keys(), again.batches), (again.keys(), count.div_ceil(30)));
        settle(&handle, mail.keys(), "imported").unwrap();
        assert!(round(&handle, &json!({})).unwrap().messages.is_empty());
    }
}

#[test]
fn ten_thousand_messages_arrive_once_and_unchanged() {
    let servers = servers();
    servers.fill("thousands", 10_000, 1).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("thousands", since_all);
    let mut all = Mail::default();
    loop {
        let mail = batch(&handle, &json!({"max_messages": 2_000})).unwrap();
        settle(&handle, mail.keys(), "imported").unwrap();
        all.extend(mail);
        if !all.more {
            break;
        }
    }
    assert!(all.hashes() == filled(10_000, 1), "{} messages", all.messages.len());
    assert!(all.has_no_key_twice() && all.batches >= 5);
    let rest = round(&handle, &json!({})).unwrap();
    assert_eq!((rest.messages.len(), rest.skipped.len()), (0, 0));
}

#[test]
fn a_batch_stays_within_what_the_host_asked_for() {
    let servers = servers();
    servers.fill("bounds", 90, 20).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("bounds", since_all);
    // The sizes are checked in `batch`.
    for request in [
        json!({"max_messages": 7}),
        json!({"max_bytes": 50_000}),
        json!({"max_bytes": 1}),
        json!({"max_messages": 7, "max_bytes": 100_000}),
    ] {
        let mail = round(&handle, &request).unwrap();
        assert_eq!(mail.hashes(), filled(90, 20), "{request}");
        assert!(mail.batches >= 13, "{} batches for {request}", mail.batches);
    }
    for request in [
        json!({"max_messages": 0}),
        json!({"max_messages": 5_001}),
        json!({"max_bytes": 0}),
        json!({"max_bytes": u64::MAX}),
        json!({"max_messages": -1}),
        json!({"deadline_ms": 0}),
        json!({"messages": 1}),
        json!([]),
    ] {
        assert_eq!(batch(&handle, &request).err().map(|error| error.kind()), Some(Kind::Misuse), "{request}");
    }
}

#[test]
fn old_mail_does_not_become_requests_and_what_comes_after_the_consent_does() {
    let servers = servers();
    servers.fill("cutoff", 30, 2).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("cutoff", |_| {});
    let late: Vec<_> = (0..3).map(note).collect();
    late.iter().for_each(|raw| servers.deliver("cutoff", raw).unwrap());
    let mail = round(&handle, &json!({})).unwrap();
    assert_eq!(mail.subjects(), ["note 0", "note 1", "note 2"]);
    // Also for whoever comes later, and although nothing was settled.
    let settings = servers.incoming_settings("cutoff").to_string();
    let later = fixture.plugin_again().open(&settings).unwrap();
    assert_eq!(round(&later, &json!({})).unwrap().keys(), mail.keys());
}

#[test]
fn fetch_since_takes_a_date_a_moment_or_all() {
    let servers = servers();
    for (number, date) in
        [(0, "01-Jan-2020 10:00:00 +0000"), (1, "01-Jun-2020 10:00:00 +0000"), (2, "02-Jun-2020 01:00:00 +0500")]
    {
        append(&servers, "since", "INBOX", date, "", &note(number)).unwrap();
    }
    for (since, expected) in [
        ("all", 3),
        ("2020-01-01", 3),
        ("2020-03-01", 2),
        ("2020-06-01T10:00:00Z", 2),
        ("2020-06-01T10:00:01Z", 1),
        ("2020-06-01T20:00:01Z", 0),
        ("2021-01-01", 0),
        ("now", 0),
    ] {
        let fixture = Fixture::new(&servers);
        let handle =
            fixture.incoming("since", |settings| settings["incoming"]["advanced"]["fetch_since"] = json!(since));
        assert_eq!(round(&handle, &json!({})).unwrap().messages.len(), expected, "{since}");
    }
}

#[test]
fn a_renumbered_folder_is_told_and_neither_floods_nor_loses() {
    let servers = servers();
    let address = servers.address("renumbered");
    servers.doveadm(&["mailbox", "create", "-u", &address, "Requests"]).unwrap();
    for number in 0..20 {
        let date = "01-Jan-2020 10:00:00 +0000";
        append(&servers, "renumbered", "Requests", date, "", &note(number)).unwrap();
    }
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("renumbered", |settings| {
        settings["incoming"]["advanced"]["folders"] = json!(["Requests"]);
    });
    let deliver = |numbers: std::ops::Range<usize>| {
        let messages: Vec<_> = numbers.map(note).collect();
        servers.dovecot.fill(&address, "Requests", messages.into_iter()).unwrap();
    };
    deliver(20..25);
    let first = round(&handle, &json!({})).unwrap();
    assert_eq!(first.messages.len(), 5);
    settle(&handle, first.keys().into_iter().take(3), "imported").unwrap();
    for uid_validity in ["1234567", "2345678"] {
        servers.doveadm(&["mailbox", "update", "-u", &address, "--uid-validity", uid_validity, "Requests"]).unwrap();
        let mail = round(&handle, &json!({})).unwrap();
        assert!(mail.resets.len() == 1 && mail.resets[0].contains(uid_validity), "{:?}", mail.resets);
        // The twenty of 2020 stay where they are. The new keys hold the new number.
        assert_eq!(mail.subjects(), ["note 20", "note 21", "note 22", "note 23", "note 24"]);
        assert!(mail.keys().iter().all(|key| key.contains(uid_validity)), "{:?}", mail.keys());
    }
    // Keys from before can still be given back, and do nothing.
    settle(&handle, first.keys(), "imported").unwrap();
    let mail = round(&handle, &json!({})).unwrap();
    assert_eq!((mail.messages.len(), mail.resets.len()), (5, 0));
    settle(&handle, mail.keys(), "imported").unwrap();
    // The folder is deleted and made anew, as a restored backup would.
    servers.doveadm(&["mailbox", "delete", "-u", &address, "Requests"]).unwrap();
    thread::sleep(Duration::from_millis(1_100));
    servers.doveadm(&["mailbox", "create", "-u", &address, "Requests"]).unwrap();
    deliver(30..32);
    let mail = round(&handle, &json!({})).unwrap();
    assert_eq!((mail.subjects(), mail.resets.len()), (vec!["note 30", "note 31"], 1));
}

/// Everything was fetched once, one message is never settled, and then the folder is renumbered.
#[test]
fn a_folder_that_is_never_without_open_mail_does_not_flood_either() {
    let servers = servers();
    let address = servers.address("renumbered");
    servers.doveadm(&["mailbox", "create", "-u", &address, "Busy"]).unwrap();
    for number in 0..20 {
        append(&servers, "renumbered", "Busy", "01-Jan-2020 10:00:00 +0000", "", &note(number)).unwrap();
    }
    append(&servers, "renumbered", "Busy", "01-Jan-2026 10:00:00 +0000", "", &note(20)).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("renumbered", |settings| {
        since_all(settings);
        settings["incoming"]["advanced"]["folders"] = json!(["Busy"]);
    });
    let all = round(&handle, &json!({})).unwrap();
    settle(&handle, all.keys().into_iter().take(20), "imported").unwrap();
    assert_eq!(round(&handle, &json!({})).unwrap().subjects(), ["note 20"]);
    servers.doveadm(&["mailbox", "update", "-u", &address, "--uid-validity", "7654321", "Busy"]).unwrap();
    let mail = round(&handle, &json!({})).unwrap();
    assert_eq!((mail.subjects(), mail.resets.len()), (vec!["note 20"], 1));
}

#[test]
fn messages_that_vanish_between_list_and_read_are_skipped_with_a_reason() {
    // A Maildir: whoever has an mdbox open still reads what is expunged there.
    let servers = Servers::start(Options { users: vec!["alice".into()], ..Options::default() }).unwrap();
    servers.fill("alice", 400, 40).unwrap();
    let address = servers.address("alice");
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("alice", since_all);
    let mut mail = batch(&handle, &json!({"max_messages": 10, "max_bytes": 200_000})).unwrap();
    servers.doveadm(&["expunge", "-u", &address, "mailbox", "INBOX", "uid", "351:400"]).unwrap();
    while mail.more {
        mail.extend(batch(&handle, &json!({"max_bytes": 200_000})).unwrap());
    }
    assert_eq!((mail.messages.len(), mail.skipped.len(), mail.quarantined.len()), (350, 50, 0));
    assert_eq!(mail.hashes(), filled(400, 40)[..350]);
    assert!(mail.skipped.iter().all(|skipped| skipped["reason"].as_str().unwrap().contains("expunged")));
    settle(&handle, mail.keys(), "imported").unwrap();
    let rest = round(&handle, &json!({})).unwrap();
    assert_eq!((rest.messages.len(), rest.skipped.len()), (0, 0));
}

#[test]
fn a_message_of_fifty_megabytes_is_delivered_whole() {
    let servers = servers();
    let large = mailgen::large_message(50 << 20);
    assert!(large.len() > 50 << 20);
    let messages = vec![note(0), large.clone(), note(1)];
    servers.dovecot.fill(&servers.address("large"), "INBOX", messages.into_iter()).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("large", since_all);
    let mail = round(&handle, &json!({"max_bytes": 1_000_000})).unwrap();
    assert_eq!(mail.batches, 3);
    assert_eq!(mail.hashes(), [hash(&note(0)), hash(&large), hash(&note(1))]);
    assert_eq!(mail.messages[1].facts["flags"], json!([]));
    assert_eq!(mail.messages[1].facts["attachments"][0]["name"], "Anhänge.bin");
}

#[test]
fn messages_that_no_parser_likes_are_delivered_with_flagged_facts() {
    let servers = servers();
    let parts = mailgen::many_parts(10_000);
    let nested = (0..40_000).fold(b"Subject: deep\r\n".to_vec(), |mut raw, level| {
        raw.extend_from_slice(
            format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n").as_bytes(),
        );
        raw
    });
    let mut hundred = (0..100).fold(b"Subject: hundred\r\n".to_vec(), |mut raw, level| {
        raw.extend_from_slice(
            format!("Content-Type: multipart/mixed; boundary=c{level}\r\n\r\n--c{level}\r\n").as_bytes(),
        );
        raw
    });
    hundred.extend_from_slice(b"\r\nAt the bottom.\r\n");
    hundred.extend((0..100).rev().flat_map(|level| format!("--c{level}--\r\n").into_bytes()));
    let noise: Vec<u8> = (0..20_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let messages = [parts, nested, hundred, noise, b"\r\n".to_vec(), b"no header at all".to_vec()];
    servers.dovecot.fill(&servers.address("odd"), "INBOX", messages.clone().into_iter()).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("odd", since_all);
    let mail = round(&handle, &json!({})).unwrap();
    assert_eq!(mail.messages.len(), messages.len());
    for (message, sent) in mail.messages.iter().zip(&messages).take(3) {
        assert!(message.raw == *sent, "{}", message.key);
    }
    // The first text of a message is its body, also when it has a file name.
    assert_eq!(mail.messages[0].facts["text"], "part 0");
    assert_eq!(mail.messages[0].facts["attachments"].as_array().unwrap().len(), 9_999);
    assert_eq!(mail.messages[1].facts["flags"], json!(["too_deep"]));
    settle(&handle, mail.keys(), "imported").unwrap();
    assert!(round(&handle, &json!({})).unwrap().messages.is_empty());
}

#[test]
fn a_folder_that_is_missing_does_not_keep_the_mail_of_the_others_back() {
    let servers = servers();
    let address = servers.address("folders");
    let folders = ["INBOX", "Entwürfe & Co/日本語", "Support \"1st\""];
    for (number, folder) in folders.iter().enumerate() {
        servers.dovecot.fill(&address, folder, [note(number), note(number + 10)].into_iter()).unwrap();
    }
    let fixture = Fixture::new(&servers);
    let with = |folders: &[&str]| {
        let folders = json!(folders);
        move |settings: &mut Value| {
            since_all(settings);
            settings["incoming"]["advanced"]["folders"] = folders;
        }
    };
    let handle = fixture.incoming("folders", with(&folders));
    let mail = round(&handle, &json!({})).unwrap();
    assert_eq!(mail.subjects(), ["note 0", "note 10", "note 1", "note 11", "note 2", "note 12"]);
    assert!(mail.has_no_key_twice());
    let keys: Vec<_> = mail.keys().into_iter().map(str::to_owned).collect();

    let mut settings = servers.incoming_settings("folders");
    with(&["Nowhere", folders[0], folders[1]])(&mut settings);
    let handle = fixture.plugin.open(&settings.to_string()).unwrap();
    for _ in 0..2 {
        let mail = batch(&handle, &json!({})).unwrap();
        assert_eq!((mail.keys(), mail.more), (keys[..4].iter().map(String::as_str).collect(), true));
        let error = batch(&handle, &json!({})).err().unwrap();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.message().contains("Nowhere") && error.to_json()["remedy"].is_string(), "{error}");
    }
    settle(&handle, keys[..4].iter().map(String::as_str), "imported").unwrap();
    assert!(batch(&handle, &json!({})).err().unwrap().message().contains("Nowhere"));
}

/// Whatever the server calls them; mailing-list copies, and mail without Message-ID, are kept apart by their keys.
#[test]
fn folders_are_found_by_their_special_use_and_copies_stay_apart() {
    let servers = servers();
    let copy = b"From: <ada@outside.test>\r\nMessage-ID: <same@outside.test>\r\nSubject: copy\r\n\r\nTwice.\r\n";
    for _ in 0..2 {
        append(&servers, "special", "Archive", "01-Jan-2026 10:00:00 +0000", "", copy).unwrap();
        append(&servers, "special", "Archive", "01-Jan-2026 10:00:00 +0000", "", &note(7)).unwrap();
    }
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("special", |settings| {
        since_all(settings);
        settings["incoming"]["advanced"]["folders"] = json!(["\\Archive"]);
        settings["incoming"]["advanced"]["after_import"] = json!("move");
        settings["incoming"]["advanced"]["processed_folder"] = json!("\\Trash");
    });
    let mail = round(&handle, &json!({})).unwrap();
    assert_eq!(mail.subjects(), ["copy", "note 7", "copy", "note 7"]);
    assert!(mail.has_no_key_twice(), "{:?}", mail.keys());
    settle(&handle, mail.keys(), "imported").unwrap();
    assert_eq!((servers.count("special", "Archive").unwrap(), servers.count("special", "Trash").unwrap()), (0, 4));
}

#[test]
fn fetching_changes_nothing_in_the_mailbox() {
    let servers = servers();
    let date = "01-Jan-2026 10:00:00 +0000";
    for (number, flags) in ["", "\\Seen", "\\Flagged $Forwarded", "\\Deleted"].into_iter().enumerate() {
        append(&servers, "flags", "INBOX", date, flags, &note(number)).unwrap();
    }
    let before = flags(&servers, "flags", "INBOX").unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("flags", since_all);
    for _ in 0..2 {
        assert_eq!(round(&handle, &json!({"max_messages": 3})).unwrap().messages.len(), 4);
    }
    drop(handle);
    assert_eq!(flags(&servers, "flags", "INBOX").unwrap(), before);
    assert!(before.len() == 4 && before[3].contains("\\Deleted"), "{before:?}");
}

#[test]
fn two_handles_on_one_mailbox_lose_nothing() {
    let servers = servers();
    servers.fill("twins", 300, 5).unwrap();
    let fixture = Fixture::new(&servers);
    let first = fixture.incoming("twins", since_all);
    let mut settings = servers.incoming_settings("twins");
    since_all(&mut settings);
    let other = fixture.plugin_again();
    let second = other.open(&settings.to_string()).unwrap();
    let work = |handle: &Handle| {
        let mut mail = Mail { more: true, ..Mail::default() };
        while mail.more {
            // Both may meet while the folder is new.
            let next = match batch(handle, &json!({"max_messages": 20})) {
                Err(error) if error.kind() == Kind::Transient => continue,
                next => next.unwrap(),
            };
            settle(handle, next.keys(), "imported").unwrap();
            mail.extend(next);
        }
        mail
    };
    let (one, two) = thread::scope(|scope| {
        let two = scope.spawn(|| work(&second));
        (work(&first), two.join().unwrap())
    });
    assert!(one.has_no_key_twice() && two.has_no_key_twice());
    let all: BTreeSet<_> = one.hashes().into_iter().chain(two.hashes()).collect();
    assert_eq!(all, filled(300, 5).into_iter().collect());
    let keys: BTreeSet<_> = one.keys().into_iter().chain(two.keys()).collect();
    assert_eq!(keys.len(), 300);
    for handle in [&first, &second] {
        assert!(round(handle, &json!({})).unwrap().messages.is_empty());
    }
}

#[test]
fn a_slow_host_finds_the_next_batch_ready_and_in_order() {
    let servers = servers();
    servers.fill("slow", 300, 20).unwrap();
    let relay = Relay::start(servers.dovecot.port).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("slow", |settings| {
        since_all(settings);
        settings["incoming"]["port"] = json!(relay.port());
    });
    relay.set_one_way_delay(Duration::from_millis(20));
    let mut mail = Mail { more: true, ..Mail::default() };
    while mail.more {
        let next = batch(&handle, &json!({"max_bytes": 700_000})).unwrap();
        thread::sleep(Duration::from_millis(40));
        settle(&handle, next.keys(), "imported").unwrap();
        mail.extend(next);
    }
    assert_eq!((mail.hashes(), relay.connections()), (filled(300, 20), 1));
}
