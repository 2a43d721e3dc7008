//! Several openers of one store in one process: a second copy of the library, and the host with an
//! SQLite of its own. SQLite's usual locks belong to the process, and would be gone with the first of
//! them that closes the file.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use oauth_mail_abi::{Library, Plugin};
use oauth_mail_tests::{built, fixture::STORE_KEY};
use rusqlite::Connection;
use serde_json::json;

const THREADS: usize = 8;
const WRITES: usize = 10_000;

fn settings() -> serde_json::Value {
    json!({"incoming": {
        "connection_protocol": "POP/IMAP/POPS/IMAPS", "authentication_type": "OAuth",
        "server_name": "imap.desk.test", "username": "help@desk.test", "email_addresses": ["help@desk.test"],
        "client_id": "client", "client_secret": "secret",
        "authorize_url": "https://login.desk.test/authorize", "access_token_url": "https://login.desk.test/token",
        "scope": "mail", "redirect_url": "https://desk.test/callback",
    }})
}

/// Of a copy of the library in a file of its own: the system loads it beside the other.
fn copy(folder: &Path, name: &str, store: &Path) -> Plugin {
    let file = folder.join(name);
    fs::copy(built::library(), &file).unwrap();
    let config = json!({"store": format!("sqlite:{}", store.display()), "key": {"value": STORE_KEY}});
    Library::load(&file).unwrap().plugin(&config, |_, _, line| assert!(!line.contains("Store"), "{line}")).unwrap()
}

/// In memory where there is room: the promise is about locks, not about disks.
fn folder() -> tempfile::TempDir {
    let base = Path::new("/dev/shm");
    if base.is_dir() { tempfile::tempdir_in(base).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Each write is one consent that is begun: without the network, and durable before it returns.
#[test]
fn two_copies_of_the_library_and_the_hosts_own_sqlite_lose_no_write() {
    let folder = folder();
    let store = folder.path().join("store.db");
    let copies = [copy(folder.path(), "one.so", &store), copy(folder.path(), "two.so", &store)];
    let journal = || fs::metadata(folder.path().join("store.db-wal")).unwrap().ino();
    let first = journal();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let host = scope.spawn(|| {
            // As a host that counts and closes, and one that copies the file.
            while !done.load(Ordering::Acquire) {
                let own = Connection::open(&store).unwrap();
                own.busy_timeout(Duration::from_secs(10)).unwrap();
                own.query_row("SELECT count(*) FROM record", [], |row| row.get::<_, i64>(0)).unwrap();
                drop(own);
                fs::read(&store).unwrap();
                thread::sleep(Duration::from_millis(5));
            }
        });
        let writers: Vec<_> = (0..THREADS)
            .map(|number| {
                let plugin = &copies[number % 2];
                scope.spawn(move || {
                    let account = plugin.open(&settings()).unwrap();
                    for _ in 0..WRITES / THREADS {
                        account.authenticate(&json!({"action": "start"})).unwrap();
                    }
                })
            })
            .collect();
        let panicked = writers.into_iter().filter_map(|writer| writer.join().err()).count();
        done.store(true, Ordering::Release);
        host.join().unwrap();
        assert_eq!(panicked, 0);
    });
    assert_eq!(journal(), first, "somebody took the journal away");
    drop(copies);
    let own = Connection::open(&store).unwrap();
    let count = |sql: &str| own.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM record WHERE kind = 'consent'") as usize, WRITES);
    assert_eq!(own.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
}

/// By the sqlite3 of Python, which has its own copy of SQLite, in a process of its own; and by one in ours.
#[test]
fn a_host_that_opens_the_store_with_its_own_sqlite_leaves_the_journal_where_it_is() {
    let folder = folder();
    let store = folder.path().join("store.db");
    let plugin = copy(folder.path(), "one.so", &store);
    let account = plugin.open(&settings()).unwrap();
    for round in 1..=3 {
        account.authenticate(&json!({"action": "start"})).unwrap();
        drop(Connection::open(&store).map(|own| own.execute_batch("SELECT count(*) FROM record")).unwrap());
        assert!(folder.path().join("store.db-wal").exists() && folder.path().join("store.db-shm").exists());
        // Another process sees what was written last.
        let script = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute(\
                      \"SELECT count(*) FROM record WHERE kind = 'consent'\").fetchone()[0])";
        let seen = Command::new("python3").args(["-c", script]).arg(&store).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&seen.stdout).trim(), round.to_string(), "{seen:?}");
    }
}
