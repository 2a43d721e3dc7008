//! The library on a scripted IMAP server that does what real ones do now and then. Each test names the fault it comes from.
#![allow(clippy::unwrap_used)]

use std::{env, fs, path::PathBuf, process::Command};

use oauth_mail_core::{
    clock::Clock,
    hooks::{Handle, Plugin},
    log::Logger,
};
use oauth_mail_sandbox::{Config, Sandbox};
use oauth_mail_tests::{
    ca::Ca,
    fixture::{STORE_KEY, authenticate, parse},
    mailbox::{Mail, batch, note, round, settle},
    sandboxed::{self, Protocol},
    scripted_imap::{Fate, Readable, ScriptedImap},
};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Desk {
    imap: ScriptedImap,
    sandbox: Sandbox,
    store: TempDir,
    clock: Clock,
}

impl Desk {
    /// With so many messages.
    fn new(messages: usize) -> Self {
        let sandbox = Sandbox::start(Config::default()).unwrap();
        let folder: PathBuf = sandbox.ca_file.parent().unwrap().into();
        let ca = Ca {
            ca_file: sandbox.ca_file.clone(),
            server_certificate: folder.join("server.pem"),
            server_key: folder.join("server.key"),
        };
        let imap = ScriptedImap::start(&ca).unwrap();
        let desk = Self { imap, sandbox, store: tempfile::tempdir().unwrap(), clock: Clock::default() };
        (0..messages).for_each(|number| desk.deliver(number));
        desk
    }

    fn deliver(&self, number: usize) {
        let id = format!("Message-ID: <{number}@outside.test>\r\n");
        self.imap.deliver(&[id.into_bytes(), note(number)].concat());
    }

    fn open(&self, change: impl FnOnce(&mut Value)) -> Handle {
        let mut settings = sandboxed::settings(&self.sandbox, Protocol::Imap, "alice", "incoming");
        let form = &mut settings["incoming"];
        form["port"] = json!(self.imap.port);
        form["client_id"] = json!("mail-app");
        form["client_secret"] = json!("mail-app-secret");
        form["scope"] = json!("https://outlook.office365.com/.default");
        form["advanced"]["grant"] = json!("client_credentials");
        change(&mut form["advanced"]);
        let store = format!("sqlite:{}", self.store.path().join("store.db").display());
        let config = json!({"store": store, "key": {"value": STORE_KEY}, "private_networks": "allow"});
        let plugin = Plugin::with_clock(&config.to_string(), Logger::silent(), None, self.clock.clone()).unwrap();
        let handle = plugin.open(&settings.to_string()).unwrap();
        authenticate(&handle, json!({"action": "start"})).unwrap();
        handle
    }

    /// What becomes of every message of the inbox when it is asked for.
    fn make(&self, readable: Readable) {
        self.imap.mailbox(|mailbox| {
            mailbox.folder("INBOX").messages.iter_mut().for_each(|message| message.readable = readable);
        });
    }

    fn count(&self, folder: &str) -> usize {
        self.imap.mailbox(|mailbox| mailbox.folders.get(folder).map_or(0, |folder| folder.messages.len()))
    }
}

fn leave(_: &mut Value) {}

fn fetch(handle: &Handle) -> Mail {
    round(handle, &json!({})).unwrap()
}

fn numbers(mail: &Mail) -> Vec<String> {
    let mut all: Vec<String> = mail.subjects().into_iter().map(|subject| subject.replace("note ", "")).collect();
    all.sort_by_key(|number| number.parse::<u64>().unwrap_or(u64::MAX));
    all
}

fn aside(handle: &Handle) -> usize {
    let list = handle.fetch_batch(r#"{"quarantine": "list"}"#).unwrap();
    parse(&list.header)["quarantine"].as_array().unwrap().len()
}

fn to(end: usize) -> Vec<String> {
    (0..end).map(|number| number.to_string()).collect()
}

#[test]
fn messagelimit_is_no_whole_answer() {
    for since in ["all", "2020-01-01"] {
        let desk = Desk::new(12);
        desk.imap.behave(|behaviour| behaviour.message_limit = Some(5));
        let handle = desk.open(|form| form["fetch_since"] = json!(since));
        let mut mail = fetch(&handle);
        for _ in 0..4 {
            settle(&handle, mail.keys(), "imported").unwrap();
            mail.extend(fetch(&handle));
        }
        assert_eq!(numbers(&mail), to(12), "{since}");
    }
}

#[test]
fn imap4rev2_alone_is_understood() {
    let desk = Desk::new(3);
    desk.imap.behave(|behaviour| behaviour.rev2_only = true);
    let handle = desk.open(|form| form["after_import"] = json!("delete"));
    let mail = fetch(&handle);
    assert_eq!(numbers(&mail), to(3));
    let done = settle(&handle, mail.keys(), "imported").unwrap();
    assert!(done.values().all(|done| done == "deleted"), "{done:?}");
    assert_eq!(desk.count("INBOX"), 0);
}

#[test]
fn what_a_server_gives_in_place_of_a_message_is_no_message() {
    for readable in [Readable::ExchangeSubstitute, Readable::CourierSubstitute] {
        let desk = Desk::new(3);
        desk.imap.mailbox(|mailbox| mailbox.folder("INBOX").message(2).unwrap().readable = readable);
        let handle = desk.open(|form| form["after_import"] = json!("delete"));
        let mail = fetch(&handle);
        assert_eq!(numbers(&mail), ["0", "2"], "{readable:?}");
        settle(&handle, mail.keys(), "imported").unwrap();
        assert_eq!(desk.count("INBOX"), 1);
        desk.imap.mailbox(|mailbox| mailbox.folder("INBOX").message(2).unwrap().readable = Readable::Whole);
        assert_eq!(numbers(&fetch(&handle)), ["1"]);
    }
}

/// exchange.md F6: a fault of all was counted as a fault of each, and the mail was put aside without its bytes.
#[test]
fn what_happens_to_every_message_is_no_messages_fault() {
    for readable in [Readable::ExchangeSubstitute, Readable::CourierSubstitute, Readable::LeftOut, Readable::Refused] {
        let desk = Desk::new(5);
        let handle = desk.open(|form| form["after_import"] = json!("delete"));
        desk.make(readable);
        for _ in 0..6 {
            desk.clock.advance(3_600);
            let mail = round(&handle, &json!({})).unwrap_or_default();
            assert!(mail.messages.is_empty() && mail.quarantined.iter().all(|one| one["aside"] == false));
        }
        assert_eq!(aside(&handle), 0, "{readable:?}");
        desk.make(Readable::Whole);
        assert_eq!(numbers(&fetch(&handle)), to(5), "{readable:?}");
    }
}

#[test]
fn a_text_in_place_of_one_message_counts_once_others_are_read() {
    let desk = Desk::new(1);
    let handle = desk.open(|form| form["after_refusal"] = json!("delete"));
    desk.make(Readable::ExchangeSubstitute);
    for number in 1..6 {
        assert_eq!(aside(&handle), 0, "{number}");
        desk.deliver(number);
        let mail = fetch(&handle);
        assert_eq!(numbers(&mail), [number.to_string()]);
        settle(&handle, mail.keys(), "imported").unwrap();
        if aside(&handle) == 1 {
            assert!(number > 3, "three failures, and half an hour");
            assert_eq!(desk.count("INBOX"), number + 1, "the only copy is never deleted");
            return;
        }
        desk.clock.advance(600);
    }
    panic!("it is read for ever");
}

const WITHOUT_SPACE: &str = "OAUTH_MAIL_TEST_WITHOUT_SPACE";

/// reliability.md 8: what this machine lacks was held against the message.
#[test]
fn a_temporary_folder_that_takes_nothing_is_no_messages_fault() {
    // In a process of its own: the temporary folder is the process's.
    if env::var_os(WITHOUT_SPACE).is_some() {
        return without_space();
    }
    let me = "a_temporary_folder_that_takes_nothing_is_no_messages_fault";
    let child = Command::new(env::current_exe().unwrap()).args([me, "--exact"]).env(WITHOUT_SPACE, "1").output();
    let child = child.unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}

fn without_space() {
    let desk = Desk::new(1);
    let large = [note(77), vec![b'x'; 3 << 20], b"\r\n".to_vec()].concat();
    desk.imap.deliver(&large);
    let handle = desk.open(leave);
    let spool = desk.store.path().join("spool");
    tempfile::env::override_temp_dir(&spool).unwrap();
    for number in 1..8 {
        desk.deliver(number);
        let (mut small, mut error) = (Mail::default(), None);
        // Until the round is through, which ends with the machine's fault.
        while error.is_none() {
            match batch(&handle, &json!({})) {
                Ok(mail) => {
                    assert!(mail.quarantined.is_empty(), "{:?}", mail.quarantined);
                    settle(&handle, mail.keys(), "imported").unwrap();
                    small.extend(mail);
                }
                Err(told) => error = Some(told),
            }
        }
        let error = error.unwrap();
        assert!(error.is_of_host() && error.message().contains("temporary file"), "{error:?}");
        assert_eq!(small.messages.len(), if number == 1 { 2 } else { 1 }, "the others come through");
        desk.clock.advance(1_800);
    }
    assert_eq!(aside(&handle), 0);
    for _ in 0..4 {
        let error = batch(&handle, &json!({})).err().unwrap();
        assert!(error.is_of_host(), "{error:?}");
    }
    let status = authenticate(&handle, json!({"action": "status"})).unwrap();
    assert_eq!(status["health"]["what"], "host", "{status}");
    fs::create_dir(&spool).unwrap();
    let mail = fetch(&handle);
    assert_eq!(mail.messages.len(), 1);
    assert_eq!(mail.messages[0].raw.len(), large.len());
}

#[test]
fn one_message_that_ends_the_listing_holds_up_no_other() {
    for readable in [Readable::EndsListing, Readable::RefusesListing] {
        let desk = Desk::new(5);
        desk.imap.mailbox(|mailbox| mailbox.folder("INBOX").message(3).unwrap().readable = readable);
        let handle = desk.open(leave);
        let mut mail = Mail::default();
        for _ in 0..4 {
            mail.extend(round(&handle, &json!({})).unwrap_or_default());
            settle(&handle, mail.keys(), "imported").unwrap();
        }
        assert_eq!(numbers(&mail), ["0", "1", "3", "4"], "{readable:?}");
    }
}

#[test]
fn a_restored_mailbox_gives_its_new_mail() {
    let desk = Desk::new(5);
    let handle = desk.open(leave);
    settle(&handle, fetch(&handle).keys(), "imported").unwrap();
    let old = desk.imap.mailbox(|mailbox| mailbox.clone());
    (5..10).for_each(|number| desk.deliver(number));
    settle(&handle, fetch(&handle).keys(), "imported").unwrap();
    desk.imap.mailbox(|mailbox| *mailbox = old);
    (20..27).for_each(|number| desk.deliver(number));
    let mail = fetch(&handle);
    let new: Vec<String> = numbers(&mail).into_iter().filter(|number| number.len() == 2).collect();
    assert_eq!(new, (20..27).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(mail.resets.len(), 1);
}

#[test]
fn no_uidnext_and_no_answer_are_not_zero() {
    let desk = Desk::new(30);
    desk.imap.behave(|behaviour| {
        behaviour.no_uidnext = true;
        behaviour.empty_fetches_of_last = 1;
    });
    let handle = desk.open(|form| form["fetch_since"] = json!("now"));
    let mut mail = round(&handle, &json!({})).unwrap_or_default();
    mail.extend(fetch(&handle));
    assert_eq!(numbers(&mail), Vec::<String>::new());
    desk.deliver(30);
    assert_eq!(numbers(&fetch(&handle)), ["30"]);
}

#[test]
fn a_copy_that_succeeded_is_not_repeated() {
    for right in ["e", "t"] {
        let desk = Desk::new(8);
        desk.imap.behave(|behaviour| {
            behaviour.no_move = true;
            behaviour.expunge_refused = right == "e";
            behaviour.deleted_flag_refused = right == "t";
        });
        let handle = desk.open(|form| {
            form["after_import"] = json!("move");
            form["processed_folder"] = json!("Done");
        });
        let mail = fetch(&handle);
        // Whether the missing right is an error of the call or a warning: the copies are made once.
        for _ in 0..2 {
            let _ = settle(&handle, mail.keys(), "imported");
        }
        assert_eq!(desk.count("Done"), 8, "the right {right} is missing");
    }
}

/// A process that ended between COPY and the removal left two copies in the processed folder.
#[test]
fn a_copy_is_noted_before_its_message_is_removed() {
    let desk = Desk::new(8);
    desk.imap.behave(|behaviour| behaviour.no_move = true);
    let moves = |form: &mut Value| {
        form["after_import"] = json!("move");
        form["processed_folder"] = json!("Done");
    };
    let handle = desk.open(moves);
    let mail = fetch(&handle);
    desk.imap.script(|command| if command.verb == "UID STORE" { Fate::HangUp } else { Fate::Obey });
    let _ = settle(&handle, mail.keys(), "imported");
    assert_eq!((desk.count("Done"), desk.count("INBOX")), (8, 8));
    drop(handle);
    desk.imap.no_script();
    let done = settle(&desk.open(moves), mail.keys(), "imported").unwrap();
    assert!(done.values().all(|done| done == "moved"), "{done:?}");
    assert_eq!((desk.count("Done"), desk.count("INBOX")), (8, 0));
}

/// The folder was set back between listing and settling, and a new message has the UID of the one that is settled.
#[test]
fn a_new_message_with_an_old_uid_is_never_settled() {
    for (new, action) in [(3, "delete"), (6, "delete"), (6, "move")] {
        let desk = Desk::new(2);
        let handle = desk.open(|form| {
            form["after_import"] = json!(action);
            form["processed_folder"] = json!("Done");
        });
        settle(&handle, fetch(&handle).keys(), "imported").unwrap();
        let old = desk.imap.mailbox(|mailbox| mailbox.clone());
        (2..6).for_each(|number| desk.deliver(number));
        let mail = fetch(&handle);
        assert_eq!(mail.messages.len(), 4);
        desk.imap.mailbox(|mailbox| {
            *mailbox = old;
            mailbox.now += 600;
        });
        // Fewer than were lost, and more.
        (20..20 + new).for_each(|number| desk.deliver(number));
        let done = settle(&handle, mail.keys(), "imported").unwrap();
        assert!(done.values().all(|done| done == "later"), "{new}: {done:?}");
        assert_eq!(desk.count("INBOX"), new, "nothing was touched");
        let mail = fetch(&handle);
        assert_eq!(mail.resets.len(), 1, "{new}");
        let expected: Vec<String> = (20..20 + new).map(|number| number.to_string()).collect();
        assert_eq!(numbers(&mail), expected, "{new}");
        settle(&handle, mail.keys(), "imported").unwrap();
        assert_eq!(desk.count("INBOX"), 0, "{new}");
    }
}

#[test]
fn the_namespace_gives_the_prefix() {
    let desk = Desk::new(3);
    desk.imap.behave(|behaviour| behaviour.prefix = Some("INBOX."));
    let handle = desk.open(|form| {
        form["after_import"] = json!("move");
        form["processed_folder"] = json!("Done");
    });
    let done = settle(&handle, fetch(&handle).keys(), "imported").unwrap();
    assert!(done.values().all(|done| done == "moved"), "{done:?}");
    assert_eq!((desk.count("INBOX"), desk.count("INBOX.Done")), (0, 3));
}

#[test]
fn numbers_beyond_32_bits_are_read_or_refused_and_never_nothing() {
    let desk = Desk::new(0);
    desk.imap.mailbox(|mailbox| mailbox.folder("INBOX").uidnext = 19_564_493_749);
    (0..3).for_each(|number| desk.deliver(number));
    let handle = desk.open(leave);
    match round(&handle, &json!({})) {
        Ok(mail) => assert_eq!(numbers(&mail), to(3)),
        Err(error) => assert_eq!(error.kind().name(), "server_misbehaved"),
    }
}

#[test]
fn a_jump_in_uids_costs_few_commands() {
    let desk = Desk::new(100);
    let handle = desk.open(leave);
    settle(&handle, fetch(&handle).keys(), "imported").unwrap();
    desk.imap.mailbox(|mailbox| mailbox.folder("INBOX").uidnext = 2_206_238_881);
    desk.deliver(100);
    let before = desk.imap.counted();
    assert_eq!(numbers(&fetch(&handle)), ["100"]);
    assert!(desk.imap.counted() - before < 20, "{} commands", desk.imap.counted() - before);
}

#[test]
fn move_announced_and_refused_becomes_copy() {
    let desk = Desk::new(4);
    desk.imap.behave(|behaviour| behaviour.move_refused = true);
    let handle = desk.open(|form| {
        form["after_import"] = json!("move");
        form["processed_folder"] = json!("Done");
    });
    let done = settle(&handle, fetch(&handle).keys(), "imported").unwrap();
    assert!(done.values().all(|done| done == "moved"), "{done:?}");
    assert_eq!((desk.count("INBOX"), desk.count("Done")), (0, 4));
}

#[test]
fn a_special_use_folder_may_have_its_name_as_a_literal() {
    let desk = Desk::new(2);
    desk.imap.mailbox(|mailbox| mailbox.folder("My \"Archive\"").attributes = "\\Archive");
    desk.imap.behave(|behaviour| behaviour.literal_names = true);
    let handle = desk.open(|form| {
        form["after_import"] = json!("move");
        form["processed_folder"] = json!("\\Archive");
    });
    let done = settle(&handle, fetch(&handle).keys(), "imported").unwrap();
    assert!(done.values().all(|done| done == "moved"), "{done:?}");
    assert_eq!(desk.count("My \"Archive\""), 2);
}

#[test]
fn new_numbers_at_each_login_bring_nothing_again() {
    let desk = Desk::new(4);
    desk.imap.behave(|behaviour| behaviour.renumbers_at_login = true);
    for number in 0..3 {
        let handle = desk.open(leave);
        let mail = fetch(&handle);
        assert_eq!(mail.messages.len(), if number == 0 { 4 } else { 0 }, "fetch {number}");
        settle(&handle, mail.keys(), "imported").unwrap();
    }
}

#[test]
fn a_search_without_an_answer_is_no_empty_answer() {
    let desk = Desk::new(3);
    let handle = desk.open(|form| form["after_import"] = json!("delete"));
    let mail = fetch(&handle);
    desk.imap.behave(|behaviour| behaviour.search_says_nothing = true);
    let done = settle(&handle, mail.keys(), "imported").unwrap_or_default();
    assert!(done.values().all(|done| done != "gone"), "{done:?}");
    desk.imap.behave(|behaviour| behaviour.search_says_nothing = false);
    settle(&handle, mail.keys(), "imported").unwrap();
    assert_eq!(desk.count("INBOX"), 0);
}

#[test]
fn what_a_partial_listing_left_out_is_not_settled_by_a_renumbering() {
    let desk = Desk::new(5);
    let handle = desk.open(leave);
    let mail = fetch(&handle);
    settle(&handle, mail.keys().into_iter().skip(1), "imported").unwrap();
    // The only open message does not come, and the round is told nothing of it.
    desk.imap.script(|command| match command.verb {
        "UID FETCH" => Fate::Partial(0, Some("NO [UNAVAILABLE] not now")),
        _ => Fate::Obey,
    });
    for _ in 0..3 {
        let _ = round(&handle, &json!({}));
    }
    desk.imap.no_script();
    desk.imap.mailbox(|mailbox| mailbox.renumber("INBOX"));
    assert!(numbers(&fetch(&handle)).contains(&"0".to_owned()));
}

#[test]
fn the_log_of_commands_is_kept() {
    let desk = Desk::new(1);
    fetch(&desk.open(leave));
    assert!(desk.imap.commands().iter().any(|command| command.starts_with("EXAMINE")), "{:?}", desk.imap.commands());
    assert!(fs::exists(desk.store.path().join("store.db")).unwrap());
}
