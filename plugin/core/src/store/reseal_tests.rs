//! A change of keys that is killed after each of its steps.

use std::{
    cell::Cell,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::json;

use super::*;
use crate::store::{SqliteStore, Store, Table};

const RECORDS: usize = 4;
const PATH: &str = "OAUTH_MAIL_TEST_RESEAL_STORE";
const STEPS: &str = "OAUTH_MAIL_TEST_RESEAL_STEPS";

fn key(digit: char) -> SealingKey {
    SealingKey::from_config(&json!({"value": String::from(digit).repeat(64)})).unwrap()
}

fn changing() -> SealingKey {
    key('2').with_previous([key('1')])
}

/// Says so after each change, and stays there after the last one that it may make.
struct Stopping<'a> {
    store: &'a SqliteStore,
    left: Cell<usize>,
}

impl Stopping<'_> {
    #[allow(clippy::print_stderr)]
    fn step(&self) {
        self.left.set(self.left.get().saturating_sub(1));
        if self.left.get() == 0 {
            eprintln!("stopped");
            loop {
                std::thread::park();
            }
        }
    }
}

impl Rows for Stopping<'_> {
    fn next_after(&self, kind: &str, id: &str) -> Result<Option<Row>> {
        self.store.next_after(kind, id)
    }

    fn replace(&self, row: &Row, sealed: &[u8]) -> Result<bool> {
        let done = self.store.replace(row, sealed);
        self.step();
        done
    }

    fn key_check(&self) -> Result<Vec<u8>> {
        self.store.key_check()
    }

    fn replace_key_check(&self, sealed: &[u8]) -> Result<()> {
        let done = self.store.replace_key_check(sealed);
        self.step();
        done
    }
}

fn fill(path: &Path) {
    let store = SqliteStore::open(path, key('1')).unwrap();
    for n in 0..RECORDS {
        let table = if n % 2 == 0 { Table::Grant } else { Table::Cursor };
        store.write(table, &n.to_string(), None, format!("record {n}").as_bytes()).unwrap();
    }
}

fn all_readable(store: &SqliteStore) {
    for n in 0..RECORDS {
        let table = if n % 2 == 0 { Table::Grant } else { Table::Cursor };
        let record = store.read(table, &n.to_string()).unwrap().unwrap();
        assert_eq!(*record.bytes, format!("record {n}").into_bytes());
        assert_eq!(record.version, 1, "a change of keys is no write");
    }
}

#[test]
fn killed_after_every_step_each_record_opens_and_the_change_goes_on() {
    const ME: &str = "store::reseal::tests::killed_after_every_step_each_record_opens_and_the_change_goes_on";
    if let Some(path) = std::env::var_os(PATH) {
        let store = SqliteStore::open(Path::new(&path), changing()).unwrap();
        let left = std::env::var(STEPS).unwrap().parse().unwrap();
        reseal(&Stopping { store: &store, left: Cell::new(left) }, &changing()).unwrap();
        return;
    }
    for steps in 1..=RECORDS + 1 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        fill(&path);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([ME, "--exact", "--nocapture"])
            .envs([(PATH, path.as_os_str()), (STEPS, steps.to_string().as_ref())])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line == "stopped"));
        child.kill().unwrap();
        child.wait().unwrap();

        all_readable(&SqliteStore::open(&path, changing()).unwrap());
        // The old key is needed until the last step.
        assert_eq!(SqliteStore::open(&path, key('2')).is_ok(), steps > RECORDS, "after {steps} steps");
        let store = SqliteStore::open(&path, changing()).unwrap();
        assert_eq!(store.reseal().unwrap().changed, (RECORDS - steps.min(RECORDS)) as u64);
        assert_eq!(store.reseal().unwrap(), Resealed::default());
        drop(store);
        all_readable(&SqliteStore::open(&path, key('2')).unwrap());
        assert!(SqliteStore::open(&path, key('1')).err().unwrap().message().contains("another key"));
    }
}

#[test]
fn a_damaged_record_does_not_stop_the_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    fill(&path);
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.execute("UPDATE record SET sealed = x'0102' WHERE id = '0'", []).unwrap();
    let store = SqliteStore::open(&path, changing()).unwrap();
    assert_eq!(store.reseal().unwrap(), Resealed { changed: RECORDS as u64 - 1, unreadable: 1 });
    assert!(SqliteStore::open(&path, key('2')).unwrap().read(Table::Cursor, "1").unwrap().is_some());
}
