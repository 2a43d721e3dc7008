use std::{
    collections::HashSet,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

struct Bed {
    folder: TempDir,
    key: SealingKey,
}

impl Bed {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), key: SealingKey::generate().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store.db")
    }

    fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.path(), self.key.clone()).unwrap()
    }

    /// What somebody with the file but without the key can do.
    fn tamper(&self, sql: &str) {
        assert!(Connection::open(self.path()).unwrap().execute(sql, []).unwrap() > 0, "{sql} changed nothing");
    }
}

fn read(store: &SqliteStore, id: &str) -> Option<(u64, Vec<u8>)> {
    store.read(Table::Grant, id).unwrap().map(|record| (record.version, record.bytes.to_vec()))
}

#[test]
fn a_stale_writer_never_overwrites() {
    let store = SqliteStore::in_memory(SealingKey::generate().unwrap()).unwrap();
    assert_eq!(store.write(Table::Grant, "a", Some(1), b"x").unwrap(), None);
    assert_eq!(store.write(Table::Grant, "a", None, b"one").unwrap(), Some(1));
    assert_eq!(store.write(Table::Grant, "a", None, b"x").unwrap(), None);
    assert_eq!(store.write(Table::Grant, "a", Some(1), b"two").unwrap(), Some(2));
    assert_eq!(store.write(Table::Grant, "a", Some(1), b"x").unwrap(), None);
    assert_eq!(read(&store, "a"), Some((2, b"two".to_vec())));
    assert!(store.read(Table::Consent, "a").unwrap().is_none());
}

#[test]
fn a_version_is_not_used_again_after_a_deletion() {
    let store = SqliteStore::in_memory(SealingKey::generate().unwrap()).unwrap();
    store.write(Table::Grant, "a", None, b"old").unwrap();
    store.delete(Table::Grant, "a").unwrap();
    store.delete(Table::Grant, "a").unwrap();
    assert_eq!(store.write(Table::Grant, "a", None, b"new").unwrap(), Some(2));
    assert_eq!(store.write(Table::Grant, "a", Some(1), b"slow refresh of the old grant").unwrap(), None);
    assert_eq!(store.write(Table::Cursor, "a", None, b"another table").unwrap(), Some(1));
}

#[test]
fn of_many_takers_in_threads_and_processes_one_gets_the_record() {
    let place = Bed::new();
    let stores = [place.open(), place.open()];
    for round in 0..20 {
        let id = round.to_string();
        stores[0].write(Table::Consent, &id, None, b"state").unwrap();
        let taken = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for taker in 0..8 {
                let (store, id, taken) = (&stores[taker % 2], &id, &taken);
                scope.spawn(move || {
                    if let Some(record) = store.take(Table::Consent, id).unwrap() {
                        assert_eq!(*record.bytes, b"state");
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 1);
    }
}

#[test]
fn no_increment_is_lost_between_two_connections() {
    let place = Bed::new();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let store = place.open();
                for _ in 0..100 {
                    loop {
                        let (version, count) = match read(&store, "n") {
                            Some((version, bytes)) => (Some(version), bytes[0]),
                            None => (None, 0),
                        };
                        if store.write(Table::Grant, "n", version, &[count + 1]).unwrap().is_some() {
                            break;
                        }
                    }
                }
            });
        }
    });
    assert_eq!(read(&place.open(), "n"), Some((200, vec![200])));
}

#[test]
fn many_processes_may_create_the_file_at_once() {
    let place = Bed::new();
    let versions: HashSet<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                scope.spawn({
                    let place = &place;
                    move || place.open().write(Table::Grant, &n.to_string(), None, b"x").unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(versions, HashSet::from([Some(1)]));
}

#[test]
fn another_key_is_named_as_such_and_changes_nothing() {
    let place = Bed::new();
    place.open().write(Table::Grant, "a", None, b"x").unwrap();
    let error = SqliteStore::open(&place.path(), SealingKey::generate().unwrap()).err().unwrap();
    assert_eq!(error.kind(), Kind::Settings);
    assert!(error.message().contains("another key"), "{error}");
    assert_eq!(read(&place.open(), "a"), Some((1, b"x".to_vec())));
}

#[test]
fn swapped_truncated_replayed_and_foreign_records_are_refused() {
    let place = Bed::new();
    let store = place.open();
    let fill = || {
        for id in ["a", "b"] {
            store.delete(Table::Grant, id).unwrap();
            store.write(Table::Grant, id, None, id.as_bytes()).unwrap();
        }
    };
    let swap = "UPDATE record SET sealed = (SELECT sealed FROM record AS o WHERE o.id <> record.id)";
    for (sql, word) in [
        (swap, "another place"),
        ("UPDATE record SET sealed = substr(sealed, 1, 30)", "truncated"),
        ("UPDATE record SET sealed = substr(sealed, 1, length(sealed) - 1)", "damaged"),
        ("UPDATE record SET sealed = x''", "truncated"),
        ("UPDATE record SET version = version + 1", "another place or time"),
        ("UPDATE record SET sealed = CAST(x'07' || substr(sealed, 2) AS BLOB)", "unknown format 7"),
    ] {
        fill();
        place.tamper(sql);
        let error = store.read(Table::Grant, "a").err().unwrap();
        assert_eq!(error.kind(), Kind::Internal);
        assert!(error.message().contains(word), "{sql}: {error}");
        assert!(store.take(Table::Grant, "a").is_err(), "{sql}: taken");
    }
    // An older record put back under the newer version, as a thief of an old backup would do.
    fill();
    let connection = Connection::open(place.path()).unwrap();
    let old: Vec<u8> = connection.query_row("SELECT sealed FROM record WHERE id = 'a'", [], |row| row.get(0)).unwrap();
    let version = read(&store, "a").unwrap().0;
    store.write(Table::Grant, "a", Some(version), b"newer").unwrap();
    connection.execute("UPDATE record SET sealed = ?1 WHERE id = 'a'", [old]).unwrap();
    assert!(store.read(Table::Grant, "a").is_err());
}

#[test]
fn no_byte_of_a_secret_is_in_any_file() {
    let place = Bed::new();
    let store = place.open();
    let canary = b"CANARY-refresh-token-0123456789";
    let mut version = None;
    for _ in 0..50 {
        version = store.write(Table::Grant, "a", version, canary).unwrap();
    }
    store.write(Table::Consent, "s", None, canary).unwrap();
    store.take(Table::Consent, "s").unwrap();
    let search = || {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(place.folder.path()).unwrap() {
            let entry = entry.unwrap();
            let bytes = std::fs::read(entry.path()).unwrap();
            assert!(
                !bytes.windows(12).any(|window| canary.windows(12).any(|part| part == window)),
                "{:?}",
                entry.path()
            );
            #[cfg(unix)]
            assert_eq!(std::os::unix::fs::MetadataExt::mode(&entry.metadata().unwrap()) & 0o777, 0o600);
            names.push(entry.file_name().into_string().unwrap());
        }
        names.sort();
        names
    };
    assert_eq!(search(), ["store.db", "store.db-shm", "store.db-wal"]);
    drop(store);
    assert_eq!(search(), ["store.db"]);
}

#[test]
fn files_of_others_are_left_alone() {
    let place = Bed::new();
    let open = || SqliteStore::open(&place.path(), place.key.clone()).err().unwrap();
    std::fs::write(place.path(), "Dear diary, ".repeat(1000)).unwrap();
    assert!(open().message().contains("no SQLite file"));
    std::fs::remove_file(place.path()).unwrap();
    Connection::open(place.path()).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(open().message().contains("another program"));
    std::fs::remove_file(place.path()).unwrap();
    place.open();
    Connection::open(place.path()).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert_eq!(open().kind(), Kind::Unsupported);
    let nowhere = SqliteStore::open(Path::new("/nonexistent/store.db"), place.key.clone()).err().unwrap();
    assert_eq!(nowhere.kind(), Kind::Settings);
}

#[test]
fn urls_name_stores() {
    let folder = tempfile::tempdir().unwrap();
    let key = || SealingKey::generate().unwrap();
    let kind = |url: &str| super::super::open(url, key()).err().unwrap().kind();
    assert!(super::super::open("sqlite::memory:", key()).is_ok());
    assert!(super::super::open(&format!("sqlite:{}", folder.path().join("a.db").display()), key()).is_ok());
    assert!(super::super::open(&format!("sqlite://{}", folder.path().join("b.db").display()), key()).is_ok());
    assert!(folder.path().join("a.db").exists() && folder.path().join("b.db").exists());
    for url in
        ["", "postgres://h/d", "postgres://u:p@h/d?sslmode=disable", "sqlite:", "/var/lib/store.db", "mysql://u:p@h/d"]
    {
        assert_eq!(kind(url), Kind::Settings, "{url}");
    }
}

/// The child writes and reports each version; the parent kills it in the middle and finds every reported write.
#[test]
#[allow(clippy::print_stderr)]
fn what_was_acknowledged_survives_a_kill() {
    const ME: &str = "store::sqlite::tests::what_was_acknowledged_survives_a_kill";
    const PATH: &str = "OAUTH_MAIL_TEST_STORE";
    const KEY: [u8; 64] = [b'7'; 64];
    let key = || SealingKey::from_config(&serde_json::json!({"value": str::from_utf8(&KEY).unwrap()})).unwrap();
    if let Some(path) = std::env::var_os(PATH) {
        let store = SqliteStore::open(Path::new(&path), key()).unwrap();
        let mut version = None;
        loop {
            version = store.write(Table::Cursor, "inbox", version, &[7; 3000]).unwrap();
            eprintln!("wrote {}", version.unwrap());
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([ME, "--exact", "--nocapture"])
        .env(PATH, &path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = 0;
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
        if let Some(version) = line.strip_prefix("wrote ") {
            acknowledged = version.parse().unwrap();
        }
        if acknowledged == 50 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(acknowledged >= 50);
    let stored = SqliteStore::open(&path, key()).unwrap().read(Table::Cursor, "inbox").unwrap().unwrap();
    assert!(stored.version >= acknowledged, "{} < {acknowledged}", stored.version);
    assert_eq!(*stored.bytes, [7; 3000]);
}

#[test]
fn a_store_of_the_first_layout_is_taken_over() {
    let place = Bed::new();
    place.open().write(Table::Grant, "a", None, b"x").unwrap();
    Connection::open(place.path())
        .unwrap()
        .execute_batch("DROP INDEX record_by_age; ALTER TABLE record DROP COLUMN written_at; PRAGMA user_version = 1;")
        .unwrap();
    let store = place.open();
    assert_eq!(read(&store, "a"), Some((1, b"x".to_vec())));
    assert_eq!(store.write(Table::Grant, "a", Some(1), b"y").unwrap(), Some(2));
}

/// reliability.md, growth: claims and counts of automatic mail expire, a few at a time.
#[test]
fn growth_old_records_of_sending_are_forgotten() {
    let place = Bed::new();
    let store = place.open();
    for number in 0..5 {
        store.write(Table::Sent, &format!("old {number}"), None, b"{}").unwrap();
    }
    store.write(Table::Sent, "new", None, b"{}").unwrap();
    store.write(Table::Brake, "old of another kind", None, b"{}").unwrap();
    place.tamper("UPDATE record SET written_at = unixepoch() - 366 * 86400 WHERE id LIKE 'old%'");
    let kept = i64::from(limits::IDEMPOTENCY_DAYS) * limits::DAY;
    let forgotten: Vec<u32> = (0..4).map(|_| store.forget_old(Table::Sent, kept, 2).unwrap()).collect();
    assert_eq!(forgotten, [2, 2, 1, 0]);
    assert!(store.read(Table::Sent, "new").unwrap().is_some());
    assert!(store.read(Table::Brake, "old of another kind").unwrap().is_some());
    assert_eq!(store.write(Table::Sent, "old 1", None, b"{}").unwrap(), Some(2), "a version was used twice");
}

#[test]
fn consents_that_nobody_completed_do_not_stay_for_ever() {
    let place = Bed::new();
    let store = place.open();
    for id in ["old", "new"] {
        store.write(Table::Consent, id, None, b"state").unwrap();
    }
    store.write(Table::Grant, "old", None, b"tokens").unwrap();
    place.tamper("UPDATE record SET written_at = unixepoch() - 90000 WHERE id = 'old'");
    let store = place.open();
    assert!(store.read(Table::Consent, "old").unwrap().is_none());
    assert!(store.read(Table::Consent, "new").unwrap().is_some());
    assert!(store.read(Table::Grant, "old").unwrap().is_some());
    assert_eq!(store.write(Table::Consent, "old", None, b"again").unwrap(), Some(2), "a version was used twice");
}

#[test]
fn a_store_that_is_deleted_under_a_running_process_is_missed_and_made_anew() {
    let place = Bed::new();
    let store = place.open();
    store.write(Table::Grant, "a", None, b"tokens").unwrap();
    std::fs::remove_dir_all(place.folder.path()).unwrap();
    // Where the folder is gone, too, nothing is believed and nothing is written into nowhere.
    let error = store.read(Table::Grant, "a").err().unwrap();
    assert!(error.is_transient() && error.message().contains("was deleted"), "{error}");
    assert!(store.write(Table::Grant, "a", Some(1), b"newer").is_err());
    std::fs::create_dir(place.folder.path()).unwrap();
    assert_eq!(read(&store, "a"), Some((1, b"tokens".to_vec())));
    assert!(store.epoch() == 1 && store.events()[0].contains("deleted"));
    assert_eq!(store.write(Table::Grant, "a", Some(1), b"newer").unwrap(), Some(2));
    // It is on the disk, and the next process finds it.
    drop(store);
    assert_eq!(read(&place.open(), "a"), Some((2, b"newer".to_vec())));
    let names: Vec<_> = std::fs::read_dir(place.folder.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["store.db"]);
}

#[test]
fn a_store_that_is_replaced_under_a_running_process_is_noticed() {
    let place = Bed::new();
    let backup = place.folder.path().join("backup.db");
    let store = place.open();
    store.write(Table::Grant, "a", None, b"old").unwrap();
    Connection::open(place.path()).unwrap().execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    store.write(Table::Grant, "a", Some(1), b"new").unwrap();
    assert_eq!(store.epoch(), 0);
    for rest in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{rest}", place.path().display()));
    }
    std::fs::rename(&backup, place.path()).unwrap();
    assert_eq!(read(&store, "a"), Some((1, b"old".to_vec())));
    assert!(store.epoch() == 1 && store.events()[0].contains("replaced"));
    // What was in the unlinked journal is not written into the restored file.
    drop(store);
    assert_eq!(read(&place.open(), "a"), Some((1, b"old".to_vec())));
}

#[test]
fn a_journal_that_a_program_deleted_costs_nothing() {
    let place = Bed::new();
    let store = place.open();
    store.write(Table::Grant, "a", None, b"one").unwrap();
    for rest in ["-wal", "-shm"] {
        std::fs::remove_file(format!("{}{rest}", place.path().display())).unwrap();
    }
    assert_eq!(store.write(Table::Grant, "a", Some(1), b"two").unwrap(), Some(2));
    assert!(store.events()[0].contains("nothing is lost"));
    drop(store);
    assert_eq!(read(&place.open(), "a"), Some((2, b"two".to_vec())));
}

#[test]
fn a_store_that_another_process_keeps_locked_is_waited_for_by_the_deadline_of_the_call() {
    let place = Bed::new();
    let store = super::super::open(&format!("sqlite:{}", place.path().display()), place.key.clone()).unwrap();
    let locker = Connection::open(place.path()).unwrap();
    locker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let wait = Duration::from_millis(400);
    let begun = std::time::Instant::now();
    let call = crate::call::Call::new(crate::clock::Deadline::after(wait), Arc::default());
    let error = call.run(|| store.write(Table::Grant, "a", None, b"x")).unwrap_err();
    let late = begun.elapsed().saturating_sub(wait);
    assert!(error.is_transient() && error.message().contains("locked"), "{error}");
    assert!(late < Duration::from_millis(100), "{late:?}");
    // Cancelled by the host, it is back at once.
    let cancelled = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let call = crate::call::Call::new(crate::clock::Deadline::after(Duration::from_secs(9)), cancelled.clone());
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            cancelled.fetch_add(1, Ordering::Relaxed);
        });
        call.run(|| store.write(Table::Grant, "a", None, b"x")).unwrap_err();
    });
    assert!(begun.elapsed() < Duration::from_millis(300 + 100), "{:?}", begun.elapsed());
    locker.execute_batch("ROLLBACK").unwrap();
}
