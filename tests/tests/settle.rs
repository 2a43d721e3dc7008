//! Settling on a real Dovecot: what it does in the mailbox, that it can be repeated, and that it outlives a crash.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use oauth_mail_core::{
    Kind,
    hooks::{Handle, Plugin},
    log::Logger,
};
use oauth_mail_tests::{
    Options, Servers,
    fixture::{self, Fixture, parse},
    mailbox::{Shared, append, batch, flags, note, round, settle},
    mailgen::Generator,
};
use serde_json::{Value, json};

static SHARED: Shared = Shared::new();

const PEOPLE: [&str; 12] = [
    "leave", "seen", "move", "delete", "verdicts", "vanished", "crashed", "foreign", "other", "killed", "copies",
    "taken",
];
/// Where imported mail is moved: a name that has to be encoded.
const PROCESSED: &str = "Übernommen/2026";
/// The document by which the killed test starts itself once more.
const CHILD: &str = "OAUTH_MAIL_TESTS_CHILD";

fn servers() -> Arc<Servers> {
    SHARED.servers(|| options(None))
}

fn options(imap_capability: Option<&str>) -> Options {
    Options {
        users: PEOPLE.map(str::to_owned).to_vec(),
        imap_capability: imap_capability.map(str::to_owned),
        ..Options::default()
    }
}

fn incoming(settings: &mut Value, advanced: Value) {
    let into = &mut settings["incoming"]["advanced"];
    into["fetch_since"] = json!("all");
    for (name, value) in advanced.as_object().unwrap() {
        into[name] = value.clone();
    }
}

fn keys_of(handle: &Handle) -> Vec<String> {
    round(handle, &json!({})).unwrap().keys().into_iter().map(str::to_owned).collect()
}

fn borrowed(keys: &[String]) -> Vec<&str> {
    keys.iter().map(String::as_str).collect()
}

#[test]
fn every_action_with_all_abilities() {
    every_action(&servers(), Abilities { moves: true, expunges: true });
}

#[test]
fn every_action_without_move() {
    let servers = Servers::start(options(Some("IMAP4rev1 LITERAL+ SASL-IR ID UIDPLUS AUTH=XOAUTH2"))).unwrap();
    every_action(&servers, Abilities { moves: false, expunges: true });
}

#[test]
fn every_action_without_move_and_uidplus() {
    let servers = Servers::start(options(Some("IMAP4rev1 LITERAL+ ID AUTH=OAUTHBEARER"))).unwrap();
    every_action(&servers, Abilities { moves: false, expunges: false });
}

#[derive(Clone, Copy)]
struct Abilities {
    moves: bool,
    expunges: bool,
}

/// Five messages: three are imported, one nobody touches, one somebody else has marked as deleted.
fn every_action(servers: &Servers, abilities: Abilities) {
    let generator = Generator::new(1, 3);
    for (name, action, past) in [
        ("leave", "leave", "left"),
        ("seen", "mark_seen", "marked_seen"),
        ("move", "move", "moved"),
        ("delete", "delete", "deleted"),
    ] {
        let address = servers.address(name);
        servers.fill(name, 5, 3).unwrap();
        servers.doveadm(&["flags", "add", "-u", &address, "\\Deleted", "mailbox", "INBOX", "uid", "5"]).unwrap();
        let fixture = Fixture::new(servers);
        let handle = fixture.incoming(name, |settings| {
            incoming(settings, json!({"after_import": action}));
            if action == "move" {
                settings["incoming"]["advanced"]["processed_folder"] = json!(PROCESSED);
            }
            settings["incoming"]["enable_email_debug"] = json!(true);
        });
        let keys = keys_of(&handle);
        let chosen = borrowed(&keys[..3]);
        let done = settle(&handle, chosen.iter().copied(), "imported").unwrap();
        assert!(done.len() == 3 && done.values().all(|done| done == past), "{done:?}");

        let inbox = flags(servers, name, "INBOX").unwrap();
        let target = flags(servers, name, PROCESSED).unwrap_or_default();
        let gone = ["4", "5 \\Deleted"];
        let stays = |flag: &str| ["1", "2", "3"].map(|uid| format!("{uid} {flag}").trim().to_owned()).to_vec();
        let mut expected = match action {
            "leave" => stays(""),
            "mark_seen" => stays("\\Seen"),
            _ if abilities.moves && action == "move" || abilities.expunges => Vec::new(),
            // All that can be done without UIDPLUS: a plain EXPUNGE would take message 5, too.
            _ => stays("\\Deleted"),
        };
        expected.extend(gone.map(str::to_owned));
        assert_eq!(inbox, expected, "{action}");
        assert_eq!(target.len(), if action == "move" { 3 } else { 0 });
        if action == "move" {
            let mail = fixture_mail(servers, name);
            assert_eq!(mail, (0..3).map(|number| generator.message(number)).collect::<Vec<_>>());
        }

        // Once more, by the same handle and by another process: nothing changes. What is not there any more is "gone".
        let settings = {
            let mut settings = servers.incoming_settings(name);
            incoming(&mut settings, json!({"after_import": action, "processed_folder": PROCESSED}));
            settings
        };
        let other = fixture.plugin_again();
        let other = other.open(&settings.to_string()).unwrap();
        for handle in [&handle, &other] {
            let again = settle(handle, chosen.iter().copied(), "imported").unwrap();
            let expected = if expected.len() == 5 { past } else { "gone" };
            assert!(again.values().all(|done| done == expected), "{again:?}");
            assert_eq!(flags(servers, name, "INBOX").unwrap(), inbox, "{action}");
            assert_eq!(flags(servers, name, PROCESSED).unwrap_or_default(), target, "{action}");
            assert_eq!(keys_of(handle), keys[3..]);
        }

        let said = fixture.log().text();
        assert_eq!(said.contains(" UID MOVE "), action == "move" && abilities.moves, "{said}");
        let plain = |line: &str| line.contains("C: ") && line.trim_end().ends_with(" EXPUNGE");
        assert!(!said.lines().any(plain) && !said.contains(" CLOSE\n"), "{said}");
    }
}

/// The raw messages of the folder of processed mail.
fn fixture_mail(servers: &Servers, name: &str) -> Vec<Vec<u8>> {
    let fixture = Fixture::new(servers);
    let handle = fixture.incoming(name, |settings| incoming(settings, json!({"folders": [PROCESSED]})));
    round(&handle, &json!({})).unwrap().messages.into_iter().map(|message| message.raw).collect()
}

#[test]
fn each_verdict_has_its_own_consequence() {
    let servers = servers();
    servers.fill("verdicts", 6, 2).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("verdicts", |settings| {
        let advanced = json!({"after_import": "mark_seen", "after_refusal": "move", "error_folder": "Refused"});
        incoming(settings, advanced);
    });
    let keys = keys_of(&handle);
    let verdicts = ["imported", "duplicate", "refused", "retry", "retry"];
    let results: Value = keys.iter().cloned().zip(verdicts.map(Value::from)).collect();
    let answer = parse(&handle.settle_batch(&json!({ "results": results }).to_string()).unwrap());
    let done: Vec<_> = keys[..5].iter().map(|key| answer["done"][key].as_str().unwrap()).collect();
    assert_eq!(done, ["marked_seen", "marked_seen", "moved", "retry", "retry"]);
    assert_eq!(flags(&servers, "verdicts", "INBOX").unwrap(), ["1 \\Seen", "2 \\Seen", "4", "5", "6"]);
    assert_eq!(flags(&servers, "verdicts", "Refused").unwrap().len(), 1);
    // Those that are to be tried again, and the one nobody spoke of, under the same keys.
    assert_eq!(keys_of(&handle), keys[3..]);
    // In the middle of a round, too.
    assert_eq!(batch(&handle, &json!({"max_messages": 1})).unwrap().keys(), [&keys[3]]);
    settle(&handle, [keys[3].as_str()], "retry").unwrap();
    assert_eq!(keys_of(&handle), keys[4..]);
    assert_eq!(keys_of(&handle), keys[3..]);
    settle(&handle, borrowed(&keys[3..]), "imported").unwrap();
    assert!(keys_of(&handle).is_empty());
}

#[test]
fn a_message_that_vanished_is_gone_and_settled() {
    let servers = servers();
    servers.fill("vanished", 4, 2).unwrap();
    let address = servers.address("vanished");
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("vanished", |settings| incoming(settings, json!({"after_import": "mark_seen"})));
    let keys = keys_of(&handle);
    servers.doveadm(&["expunge", "-u", &address, "mailbox", "INBOX", "uid", "2,3"]).unwrap();
    let done = settle(&handle, borrowed(&keys), "imported").unwrap();
    let done: Vec<_> = keys.iter().map(|key| done[key].as_str().unwrap()).collect();
    assert_eq!(done, ["marked_seen", "gone", "gone", "marked_seen"]);
    assert!(keys_of(&handle).is_empty());
    // All of them, and the folder renumbered: nothing that is there now is touched.
    servers.fill("vanished", 1, 2).unwrap();
    servers.doveadm(&["mailbox", "update", "-u", &address, "--uid-validity", "77", "INBOX"]).unwrap();
    let before = flags(&servers, "vanished", "INBOX").unwrap();
    let done = settle(&handle, borrowed(&keys), "imported").unwrap();
    assert!(done.values().all(|done| done == "gone"), "{done:?}");
    assert_eq!(flags(&servers, "vanished", "INBOX").unwrap(), before);
}

/// A mailing list's copy has the Message-ID of the mail that came directly; other mail has none at all.
#[test]
fn copies_and_mail_without_message_id_are_kept_apart_by_key() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("copies", |settings| incoming(settings, json!({"after_import": "delete"})));
    let copy = b"From: <ada@outside.test>\r\nMessage-ID: <one@outside.test>\r\nSubject: copy\r\n\r\nThe same.\r\n";
    let nameless = note(1);
    for raw in [&copy[..], &nameless, &copy[..], &nameless] {
        append(&servers, "copies", "INBOX", "01-Jan-2026 10:00:00 +0000", "", raw).unwrap();
    }
    let mail = round(&handle, &json!({})).unwrap();
    assert!(mail.messages.len() == 4 && mail.has_no_key_twice(), "{:?}", mail.keys());
    assert_eq!(
        (mail.hashes()[0].clone(), mail.hashes()[1].clone()),
        (mail.hashes()[2].clone(), mail.hashes()[3].clone())
    );
    // Each is settled by itself: its twin stays in the mailbox, and comes again.
    settle(&handle, mail.keys().into_iter().take(2), "imported").unwrap();
    assert_eq!(flags(&servers, "copies", "INBOX").unwrap(), ["3", "4"]);
    assert_eq!(keys_of(&handle), mail.keys()[2..]);
}

/// Another mail program moves messages away after they were handed out, one of them back again.
#[test]
fn what_another_client_moved_meanwhile_is_gone_and_is_not_touched_where_it_went() {
    let servers = servers();
    servers.fill("taken", 4, 2).unwrap();
    let address = servers.address("taken");
    let fixture = Fixture::new(&servers);
    let change = |settings: &mut Value| incoming(settings, json!({"after_import": "delete"}));
    let handle = fixture.incoming("taken", change);
    let keys = keys_of(&handle);
    servers.doveadm(&["move", "-u", &address, "Archive", "mailbox", "INBOX", "uid", "2,3"]).unwrap();
    servers.doveadm(&["move", "-u", &address, "INBOX", "mailbox", "Archive", "uid", "2"]).unwrap();
    let done = settle(&handle, borrowed(&keys), "imported").unwrap();
    let done: Vec<_> = keys.iter().map(|key| done[key].as_str().unwrap()).collect();
    assert_eq!(done, ["deleted", "gone", "gone", "deleted"]);
    assert_eq!(flags(&servers, "taken", "Archive").unwrap(), ["1"]);
    // What came back has a new number there, so it is new mail: not lost, and told apart by its key.
    assert_eq!(flags(&servers, "taken", "INBOX").unwrap(), ["5"]);
    let back = keys_of(&handle);
    assert!(back.len() == 1 && !keys.contains(&back[0]), "{back:?}");
}

#[test]
fn what_was_not_settled_comes_again_after_a_crash_and_can_be_settled_by_another() {
    let servers = servers();
    servers.fill("crashed", 8, 2).unwrap();
    let fixture = Fixture::new(&servers);
    let change = |settings: &mut Value| incoming(settings, json!({"after_import": "move", "processed_folder": "Done"}));
    let handle = fixture.incoming("crashed", change);
    let first = round(&handle, &json!({})).unwrap();
    drop(handle);
    let mut settings = servers.incoming_settings("crashed");
    change(&mut settings);
    let plugin = fixture.plugin_again();
    let handle = plugin.open(&settings.to_string()).unwrap();
    let second = round(&handle, &json!({})).unwrap();
    assert_eq!((second.keys(), second.hashes()), (first.keys(), first.hashes()));
    handle.close();
    assert_eq!(settle(&handle, first.keys(), "imported").unwrap_err().kind(), Kind::Closed);
    // A handle that never fetched.
    let handle = plugin.open(&settings.to_string()).unwrap();
    let done = settle(&handle, first.keys().into_iter().take(5), "imported").unwrap();
    assert!(done.len() == 5 && done.values().all(|done| done == "moved"), "{done:?}");
    assert_eq!(servers.count("crashed", "Done").unwrap(), 5);
    assert_eq!(keys_of(&handle), first.keys()[5..]);
}

#[test]
fn what_cannot_be_meant_changes_nothing() {
    let servers = servers();
    servers.fill("foreign", 3, 2).unwrap();
    let fixture = Fixture::new(&servers);
    let other = fixture.incoming("other", |settings| incoming(settings, json!({"after_import": "delete"})));
    let handle = fixture.incoming("foreign", |settings| incoming(settings, json!({"after_import": "delete"})));
    let keys = keys_of(&handle);
    let key = keys[0].as_str();
    let elsewhere = key.replace("INBOX", "Archive");
    let (folder, uid) = key.rsplit_once('.').unwrap();
    let made_up = format!("{folder}.{}", uid.parse::<u32>().unwrap() + 1_000);
    for results in [
        json!({key: "imported", key.replace("foreign", "other"): "imported"}),
        json!({key: "imported", "": "imported"}),
        json!({key: "imported", "INBOX/1": "imported"}),
        json!({key: "imported", elsewhere: "imported"}),
        json!({key: "imported", made_up: "imported"}),
        json!({key: "import"}),
        json!([key]),
        json!(null),
    ] {
        let request = json!({ "results": results }).to_string();
        assert_eq!(handle.settle_batch(&request).unwrap_err().kind(), Kind::Misuse, "{request}");
    }
    assert_eq!(settle(&other, [key], "imported").unwrap_err().kind(), Kind::Misuse);
    assert_eq!(handle.settle_batch("{\"results\":{}}").unwrap(), "{\"done\":{}}");
    assert_eq!(servers.count("foreign", "INBOX").unwrap(), 3);
    assert_eq!(keys_of(&handle), keys);
    let outgoing = fixture.plugin.open(&servers.outgoing_settings("foreign").to_string()).unwrap();
    assert_eq!(settle(&outgoing, [key], "imported").unwrap_err().kind(), Kind::Misuse);
}

#[test]
fn what_was_settled_stays_settled_when_the_process_is_killed() {
    let servers = servers();
    servers.fill("killed", 150, 2).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("killed", |settings| incoming(settings, json!({})));
    let all: BTreeSet<_> = keys_of(&handle).into_iter().collect();
    assert_eq!(all.len(), 150);
    let mut settings = servers.incoming_settings("killed");
    incoming(&mut settings, json!({}));
    let settled_file = fixture.store_dir().join("settled");
    let document = json!({"store": fixture.store_file(), "settings": settings, "settled": settled_file});
    for kill in 1..=3 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "the_process_that_is_killed"])
            .env(CHILD, document.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while lines(&settled_file).len() < kill * 30 {
            assert!(Instant::now() < end && child.try_wait().unwrap().is_none(), "the child does not work");
            thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let settled = lines(&settled_file);
        let rest: BTreeSet<_> = keys_of(&handle).into_iter().collect();
        let done: BTreeSet<_> = all.difference(&rest).cloned().collect();
        assert!(settled.is_subset(&done), "{:?} came again", settled.difference(&done).collect::<Vec<_>>());
        // One more may have been settled each time before the child could write it down.
        assert!(done.len() <= settled.len() + kill, "{} of {}", done.len(), settled.len());
    }
}

/// Settles one message after the other and writes down which.
#[test]
fn the_process_that_is_killed() {
    let Ok(document) = env::var(CHILD) else { return };
    let document = parse(&document);
    let text = |name: &str| document[name].as_str().unwrap().to_owned();
    let config = json!({"store": format!("sqlite:{}", text("store")), "key": {"value": fixture::STORE_KEY}});
    let plugin = Plugin::new(&config.to_string(), Logger::silent()).unwrap();
    let handle = plugin.open(&document["settings"].to_string()).unwrap();
    let mut settled = fs::OpenOptions::new().create(true).append(true).open(text("settled")).unwrap();
    loop {
        for message in batch(&handle, &json!({"max_messages": 20})).unwrap().messages {
            settle(&handle, [message.key.as_str()], "imported").unwrap();
            writeln!(settled, "{}", message.key).unwrap();
        }
    }
}

fn lines(file: &std::path::Path) -> BTreeSet<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}
