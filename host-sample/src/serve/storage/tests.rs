//! On SQLite; `tests/tests/serve.rs` meets PostgreSQL.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::host::Direction;

const NODE: &str = "one";
const OTHER: &str = "two";

pub fn storage() -> Storage {
    let folder = tempfile::tempdir().unwrap();
    let seal = Seal::from_file(&folder.path().join("key")).unwrap();
    Storage::open(Database::sqlite(Path::new(":memory:")).unwrap(), seal).unwrap()
}

pub fn change(name: &str) -> Change {
    Change { name: name.into(), incoming: Some(json!({"port": 993, "client_secret": "hunter2"})), ..Change::default() }
}

#[test]
fn settings_come_back_as_they_were_saved_and_only_once_per_version() {
    let storage = storage();
    let id = storage.insert_mailbox("ann", &change("desk")).unwrap();
    let kept = storage.mailbox(id).unwrap().unwrap();
    assert_eq!((kept.incoming, kept.outgoing, kept.version), (change("desk").incoming, None, 1));
    let mut new = change("desk");
    new.incoming = Some(json!({"port": 143, "client_secret": "another"}));
    assert_eq!(storage.update_mailbox("ann", id, 1, &new).unwrap(), Some(2));
    assert_eq!(storage.update_mailbox("bob", id, 1, &change("lost")).unwrap(), None, "somebody else was faster");
    assert_eq!(storage.mailbox(id).unwrap().unwrap().incoming, new.incoming);
    assert!(storage.remove_mailbox("ann", id).unwrap());
    assert!(!storage.remove_mailbox("ann", id).unwrap());
    assert!(storage.mailbox(id).unwrap().is_none() && storage.run(id).unwrap().is_none());
}

#[test]
fn no_secret_is_in_the_tables_or_in_the_audit_trail() {
    let storage = storage();
    let id = storage.insert_mailbox("ann", &change("desk")).unwrap();
    let mut new = change("desk");
    new.incoming = Some(json!({"port": 143, "client_secret": "hunter3", "advanced": {"issuer": "x", "port": 1}}));
    storage.update_mailbox("bob", id, 1, &new).unwrap();
    let row = storage.database.first("SELECT incoming FROM mailboxes", &[]).unwrap().unwrap();
    let sealed = row.optional_bytes(0).unwrap().unwrap();
    assert!(!sealed.windows(6).any(|bytes| bytes == b"hunter"));
    let trail = storage.audit_trail(Some(id), i64::MAX, 10).unwrap();
    assert!(!json!(trail).to_string().contains("hunter"), "{trail:?}");
    assert_eq!((&trail[0]["who"], &trail[0]["action"]), (&json!("bob"), &json!("mailbox changed")));
    let expected = json!([
        {"field": "/incoming/port", "from": 993, "to": 143},
        {"field": "/incoming/client_secret"},
        {"field": "/incoming/advanced/issuer"},
        {"field": "/incoming/advanced/port"},
    ]);
    assert_eq!(trail[0]["detail"]["changes"], expected);
    assert_eq!(storage.audit_trail(Some(id), trail[0]["id"].as_i64().unwrap(), 10).unwrap().len(), 1);
}

#[test]
fn a_mailbox_whose_settings_do_not_open_hides_no_other_and_can_be_mended() {
    let storage = storage();
    let (broken, well) = (
        storage.insert_mailbox("ann", &change("broken")).unwrap(),
        storage.insert_mailbox("ann", &change("well")).unwrap(),
    );
    let sql = "UPDATE mailboxes SET incoming = ?1 WHERE id = ?2";
    storage.database.execute(sql, crate::database::parameters![&b"damaged"[..], broken]).unwrap();
    let all = storage.mailboxes().unwrap();
    assert_eq!(all.iter().map(|one| (one.id, one.unreadable)).collect::<Vec<_>>(), [(broken, true), (well, false)]);
    assert_eq!(storage.update_mailbox("ann", broken, 1, &change("mended")).unwrap(), Some(2));
    assert!(!storage.mailbox(broken).unwrap().unwrap().unreadable);
}

#[test]
fn another_key_is_noticed_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let database = || Database::sqlite(&folder.path().join("helpdesk.db")).unwrap();
    let seal = |name: &str| Seal::from_file(&folder.path().join(name)).unwrap();
    Storage::open(database(), seal("a.key")).unwrap();
    Storage::open(database(), seal("a.key")).unwrap();
    let failure = Storage::open(database(), seal("b.key")).err().unwrap();
    assert!(failure.sentences()[0].contains("--key-file"), "{failure:?}");
}

#[test]
fn sessions_end_and_a_new_password_ends_them() {
    let storage = storage();
    assert!(!storage.has_admins().unwrap());
    assert!(storage.insert_admin("x", "ann", "hash").unwrap() && !storage.insert_admin("x", "ann", "hash").unwrap());
    storage.insert_session("t1", "ann", "csrf", 60).unwrap();
    storage.insert_session("t2", "ann", "csrf", 0).unwrap();
    let session = storage.session("t1", 60).unwrap().unwrap();
    assert_eq!((session.admin.as_str(), session.csrf.as_str()), ("ann", "csrf"));
    assert!(storage.session("t2", 60).unwrap().is_none() && storage.session("t1", 0).unwrap().is_none());
    assert!(storage.set_password("ann", "ann", "other").unwrap());
    assert!(storage.session("t1", 60).unwrap().is_none());
    storage.insert_session("t3", "ann", "csrf", 60).unwrap();
    storage.remove_session("t3").unwrap();
    assert!(storage.session("t3", 60).unwrap().is_none());
}

#[test]
fn a_state_is_good_for_one_redirect() {
    let storage = storage();
    let mailbox = storage.insert_mailbox("ann", &change("desk")).unwrap();
    let pending = |direction| Pending { mailbox, direction, admin: "ann".into() };
    storage.insert_pending("s1", &pending(Direction::Outgoing), 60).unwrap();
    storage.insert_pending("s2", &pending(Direction::Incoming), 0).unwrap();
    let taken = storage.take_pending("s1").unwrap().unwrap();
    assert_eq!((taken.mailbox, taken.direction, taken.admin.as_str()), (mailbox, Direction::Outgoing, "ann"));
    assert!(storage.take_pending("s1").unwrap().is_none() && storage.take_pending("s2").unwrap().is_none());
}

#[test]
fn one_node_at_a_time_until_its_lease_ends() {
    let storage = storage();
    let id = storage.insert_mailbox("ann", &change("desk")).unwrap();
    let now = storage.now().unwrap();
    assert!(storage.claim(now, NODE, id).unwrap());
    assert!(!storage.claim(now + LEASE_SECONDS - 1, OTHER, id).unwrap());
    assert!(storage.due(now, NODE, 9, 9).unwrap().is_empty());
    assert!(storage.renew(now + 40, NODE, &[id]).unwrap().is_empty());
    assert!(!storage.claim(now + 40 + LEASE_SECONDS - 1, OTHER, id).unwrap());
    // The first node is dead: what was due then is due still.
    let later = now + 40 + LEASE_SECONDS;
    assert_eq!(storage.due(later, OTHER, 9, 9).unwrap().len(), 1);
    assert!(storage.claim(later, OTHER, id).unwrap());
    // It was only frozen, and its round says nothing any more.
    assert_eq!(storage.renew(later, NODE, &[id]).unwrap(), [id]);
    storage.finish(NODE, id, now, &finished(later, later + 300, None)).unwrap();
    assert_eq!(storage.run(id).unwrap().unwrap().rounds, 0);
    storage.finish(OTHER, id, now, &finished(later, later + 300, None)).unwrap();
    let run = storage.run(id).unwrap().unwrap();
    assert_eq!((run.rounds, run.next_run, run.node.as_deref()), (1, later + 300, Some(OTHER)));
    // The node that has a connection comes first, for a while.
    assert!(storage.due(later + 300, NODE, 9, 9).unwrap().is_empty());
    assert_eq!(storage.due(later + 300, OTHER, 9, 9).unwrap().len(), 1);
    assert_eq!(storage.due(later + 306, NODE, 9, 9).unwrap().len(), 1);
}

#[test]
fn a_change_of_settings_during_a_round_is_tried_at_once() {
    let storage = storage();
    let id = storage.insert_mailbox("ann", &change("desk")).unwrap();
    let now = storage.now().unwrap();
    // Also in the second in which the round was due.
    assert!(storage.claim(now, NODE, id).unwrap());
    storage.update_mailbox("ann", id, 1, &change("desk")).unwrap();
    let error = json!({"kind": "settings", "message": "Port is 0."});
    let ended = storage.now().unwrap();
    storage.finish(NODE, id, now, &finished(ended, now + 3_600, Some(error.clone()))).unwrap();
    let run = storage.run(id).unwrap().unwrap();
    assert!(run.next_run <= ended + 1, "{run:?}");
    assert_eq!((run.failures, run.error), (1, Some(error)));
    storage.set_due(id).unwrap();
    let due = storage.run(id).unwrap().unwrap().next_run;
    assert!(due <= storage.now().unwrap(), "nobody is at work on it");
}

#[test]
fn what_another_node_has_and_what_was_asked_for_early_does_not_count() {
    let storage = storage();
    let id = storage.insert_mailbox("ann", &change("desk")).unwrap();
    let now = storage.now().unwrap();
    let error = json!({"kind": "transient", "message": "Connection reset."});
    let round = |at: i64, round: &Finished| {
        assert!(storage.claim(at, NODE, id).unwrap());
        let due = storage.run(id).unwrap().unwrap().next_run;
        storage.finish(NODE, id, due, round).unwrap();
        storage.run(id).unwrap().unwrap()
    };
    let failed = round(now, &finished(now + 1, now + 30, Some(error.clone())));
    let elsewhere = round(now + 30, &Finished { result: ELSEWHERE.into(), ..finished(now + 31, now + 60, None) });
    assert_eq!((elsewhere.rounds, elsewhere.failures, elsewhere.last_run), (1, 1, failed.last_run));
    assert_eq!((elsewhere.error, elsewhere.next_run), (Some(error.clone()), now + 60));
    let early = Finished { counts_as_failure: false, ..finished(now + 41, now + 60, Some(error.clone())) };
    let early = round(now + 40, &early);
    assert_eq!((early.rounds, early.failures, early.error), (2, 1, Some(error)));
}

/// Claiming this mailbox fails from now on, as it does when the database breaks down.
pub fn refuse_claims(storage: &Storage, mailbox: i64) {
    let sql = format!(
        "CREATE TRIGGER broken BEFORE UPDATE OF lease_owner ON runs WHEN NEW.mailbox = {mailbox}
         BEGIN SELECT RAISE(ABORT, 'broken'); END"
    );
    storage.database.execute(&sql, &[]).unwrap();
}

#[test]
fn a_thousand_late_mailboxes_do_not_start_at_once() {
    let storage = storage();
    for number in 0..1_000 {
        storage.insert_mailbox("ann", &change(&format!("{number}"))).unwrap();
    }
    let now = storage.now().unwrap() + 7_200;
    storage.spread_overdue(now, 8, 300).unwrap();
    let mut due: Vec<i64> = storage.runs().unwrap().iter().map(|run| run.next_run - now).collect();
    due.sort_unstable();
    assert_eq!((due[0], due[999]), (0, 124));
    for second in 0..125 {
        let count = due.iter().filter(|due| **due == second).count();
        assert!((7..=9).contains(&count), "{count} in second {second}");
    }
}

#[test]
fn a_transcript_is_sealed() {
    let storage = storage();
    let id = storage.insert_mailbox("ann", &change("desk")).unwrap();
    assert_eq!(storage.transcript(id).unwrap(), "");
    storage.set_transcript(id, "C: a1 LOGIN\n").unwrap();
    assert_eq!(storage.transcript(id).unwrap(), "C: a1 LOGIN\n");
    let row = storage.database.first("SELECT transcript FROM runs", &[]).unwrap().unwrap();
    assert!(!row.optional_bytes(0).unwrap().unwrap().windows(5).any(|bytes| bytes == b"LOGIN"));
}

fn finished(ended: i64, next_run: i64, error: Option<Value>) -> Finished {
    let result = if error.is_some() { "settings" } else { "ok" };
    let counts = Counts::default();
    Finished { counts_as_failure: true, started: ended, ended, next_run, result: result.into(), error, counts }
}
