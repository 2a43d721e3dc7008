//! One contract, four stores: SQLite in a file and in memory, PostgreSQL, PostgreSQL behind a pooler in transaction mode.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use oauth_mail_core::{
    Kind,
    store::{self, Resealed, SealingKey, Store, Table},
};
use oauth_mail_tests::{
    ca::Ca,
    janitor,
    postgres::{PgBouncer, Postgres},
    race,
};
use serde_json::json;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_refresh-race");
const CANARY: &str = "CANARY-refresh-token-0123456789";

/// One PostgreSQL for all scenarios of this file, one after the other: each begins with an empty database.
struct World {
    dir: TempDir,
    ca: Ca,
    postgres: Postgres,
    pgbouncer: PgBouncer,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("omstores").tempdir().unwrap();
        let ca = Ca::create(dir.path()).unwrap();
        let postgres = Postgres::start(&ca).unwrap();
        let pgbouncer = PgBouncer::start(&ca, &postgres).unwrap();
        for folder in [dir.path(), postgres.dir(), pgbouncer.dir()] {
            janitor::remove_folder_after_us(folder).unwrap();
        }
        Self { dir, ca, postgres, pgbouncer }
    }

    fn empty(&self) {
        self.postgres.store_sql("DROP TABLE IF EXISTS oauth_mail_record, oauth_mail_floor, oauth_mail_meta;").unwrap();
    }

    /// Name and URL of stores that are empty and that a second connection can share.
    fn shared(&self) -> [(&'static str, String); 3] {
        static FILES: AtomicUsize = AtomicUsize::new(0);
        let file = self.dir.path().join(format!("{}.db", FILES.fetch_add(1, Ordering::Relaxed)));
        [
            ("sqlite", format!("sqlite:{}", file.display())),
            ("postgres", self.postgres.url()),
            ("pgbouncer", self.pgbouncer.url()),
        ]
    }

    fn each(&self, contract: impl Fn(&str, &str)) {
        for (name, url) in self.shared() {
            self.empty();
            contract(name, &url);
        }
    }
}

fn world() -> MutexGuard<'static, World> {
    static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| Mutex::new(World::new()));
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(digit: char) -> SealingKey {
    SealingKey::from_config(&json!({"value": String::from(digit).repeat(64)})).unwrap()
}

fn open(url: &str) -> Arc<dyn Store> {
    store::open(url, key('1')).unwrap()
}

fn read(store: &dyn Store, table: Table, id: &str) -> Option<(u64, Vec<u8>)> {
    store.read(table, id).unwrap().map(|record| (record.version, record.bytes.to_vec()))
}

fn one_after_the_other(name: &str, store: &dyn Store) {
    assert_eq!(read(store, Table::Grant, "a"), None, "{name}");
    assert_eq!(store.write(Table::Grant, "a", Some(1), b"x").unwrap(), None, "{name}: nothing to replace");
    assert_eq!(store.write(Table::Grant, "a", None, b"one").unwrap(), Some(1), "{name}");
    assert_eq!(store.write(Table::Grant, "a", None, b"x").unwrap(), None, "{name}: is there already");
    assert_eq!(store.write(Table::Grant, "a", Some(1), b"two").unwrap(), Some(2), "{name}");
    assert_eq!(store.write(Table::Grant, "a", Some(1), b"x").unwrap(), None, "{name}: a stale writer");
    assert_eq!(read(store, Table::Grant, "a"), Some((2, b"two".to_vec())), "{name}");
    assert_eq!(read(store, Table::Consent, "a"), None, "{name}: another table");
    store.delete(Table::Grant, "a").unwrap();
    store.delete(Table::Grant, "a").unwrap();
    assert_eq!(store.write(Table::Grant, "a", None, b"new").unwrap(), Some(3), "{name}: a version was used again");
    assert_eq!(store.write(Table::Grant, "a", Some(2), b"x").unwrap(), None, "{name}: writer of a deleted record");
    assert_eq!(store.write(Table::Cursor, "a", None, b"").unwrap(), Some(1), "{name}: tables count apart");
    assert_eq!(store.take(Table::Cursor, "a").unwrap().unwrap().version, 1, "{name}");
    assert!(store.take(Table::Cursor, "a").unwrap().is_none(), "{name}: taken twice");
    let odd = "ü/'\"; DROP TABLE oauth_mail_record; --";
    store.write(Table::Cursor, odd, None, &[0, 255, 7]).unwrap();
    assert_eq!(read(store, Table::Cursor, odd), Some((2, vec![0, 255, 7])), "{name}");
    let large = vec![7; 3 << 20];
    assert_eq!(store.write(Table::Cursor, odd, Some(2), &large).unwrap(), Some(3), "{name}");
    assert_eq!(read(store, Table::Cursor, odd), Some((3, large)), "{name}");
    let too_large = vec![0; oauth_mail_core::limits::STORE_RECORD_MAX + 1];
    assert_eq!(store.write(Table::Cursor, odd, Some(3), &too_large).err().unwrap().kind(), Kind::TooLarge, "{name}");
}

fn many_at_once(name: &str, url: &str) {
    // Whoever comes first makes the tables.
    let stores: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| open(url))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for round in 0..10 {
        let id = round.to_string();
        stores[0].write(Table::Consent, &id, None, b"state").unwrap();
        let taken = AtomicUsize::new(0);
        thread::scope(|scope| {
            for taker in 0..8 {
                let (store, id, taken) = (&stores[taker % 4], &id, &taken);
                scope.spawn(move || {
                    if store.take(Table::Consent, id).unwrap().is_some() {
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 1, "{name}: takers of one record");
    }
    // Each increment also deletes and makes the record anew now and then: no version may come twice, no count be lost.
    thread::scope(|scope| {
        for store in &stores {
            scope.spawn(move || {
                for _ in 0..25 {
                    loop {
                        let now = read(&**store, Table::Grant, "n");
                        let (version, count) = now.map_or((None, 0), |(version, bytes)| (Some(version), bytes[0]));
                        if store.write(Table::Grant, "n", version, &[count + 1]).unwrap().is_some() {
                            break;
                        }
                    }
                }
            });
        }
        scope.spawn(|| {
            for n in 0..25 {
                let id = format!("other {n}");
                stores[0].write(Table::Grant, &id, None, b"x").unwrap();
                stores[1].delete(Table::Grant, &id).unwrap();
            }
        });
    });
    assert_eq!(read(&*stores[0], Table::Grant, "n").unwrap().1, [100], "{name}: increments");
}

fn keys(name: &str, url: &str) {
    let old = open(url);
    for id in ["a", "b"] {
        old.write(Table::Grant, id, None, id.as_bytes()).unwrap();
    }
    let error = store::open(url, key('2')).err().unwrap();
    assert!(error.message().contains("another key"), "{name}: {error}");
    // A node with both keys, while another one still has the old key only.
    let changing = store::open(url, key('2').with_previous([key('1')])).unwrap();
    assert_eq!(read(&*changing, Table::Grant, "a"), Some((1, b"a".to_vec())), "{name}");
    assert_eq!(changing.reseal().unwrap(), Resealed { changed: 2, unreadable: 0 }, "{name}");
    assert_eq!(changing.reseal().unwrap(), Resealed::default(), "{name}");
    assert_eq!(old.read(Table::Grant, "a").err().unwrap().kind(), Kind::Internal, "{name}");
    let new = store::open(url, key('2')).unwrap();
    assert_eq!(read(&*new, Table::Grant, "b"), Some((1, b"b".to_vec())), "{name}");
    assert!(store::open(url, key('1')).is_err(), "{name}: the old key still opens the store");
}

#[test]
fn every_store_keeps_the_contract() {
    one_after_the_other("memory", &*open("sqlite::memory:"));
    let world = world();
    world.each(|name, url| one_after_the_other(name, &*open(url)));
    world.each(many_at_once);
    world.each(keys);
}

#[test]
fn old_consents_do_not_stay_in_postgres() {
    let world = world();
    world.empty();
    let store = open(&world.postgres.url());
    for id in ["old", "new"] {
        store.write(Table::Consent, id, None, b"state").unwrap();
    }
    store.write(Table::Grant, "old", None, b"tokens").unwrap();
    world
        .postgres
        .store_sql("UPDATE oauth_mail_record SET written_at = now() - interval '25 hours' WHERE id = 'old';")
        .unwrap();
    let store = open(&world.pgbouncer.url());
    assert_eq!(read(&*store, Table::Consent, "old"), None);
    assert!(read(&*store, Table::Consent, "new").is_some() && read(&*store, Table::Grant, "old").is_some());
    assert_eq!(store.write(Table::Consent, "old", None, b"again").unwrap(), Some(2));
}

/// reliability.md, growth: claims and counts of automatic mail expire, a few at a time.
#[test]
fn growth_old_records_of_sending_are_forgotten_in_postgres() {
    let world = world();
    world.empty();
    let store = open(&world.postgres.url());
    for number in 0..5 {
        store.write(Table::Sent, &format!("old {number}"), None, b"{}").unwrap();
    }
    store.write(Table::Sent, "new", None, b"{}").unwrap();
    store.write(Table::Brake, "old of another kind", None, b"{}").unwrap();
    world
        .postgres
        .store_sql("UPDATE oauth_mail_record SET written_at = now() - interval '366 days' WHERE id LIKE 'old%';")
        .unwrap();
    let year = 365 * 86_400;
    let forgotten: Vec<u32> = (0..4).map(|_| store.forget_old(Table::Sent, year, 2).unwrap()).collect();
    assert_eq!(forgotten, [2, 2, 1, 0]);
    assert!(
        read(&*store, Table::Sent, "new").is_some() && read(&*store, Table::Brake, "old of another kind").is_some()
    );
    assert_eq!(store.write(Table::Sent, "old 1", None, b"{}").unwrap(), Some(2), "a version was used twice");
}

#[test]
fn a_postgres_that_goes_and_comes_back_is_no_more_than_a_pause() {
    let mut world = world();
    world.empty();
    let stores = [open(&world.postgres.url()), open(&world.pgbouncer.url())];
    stores[0].write(Table::Grant, "a", None, b"one").unwrap();
    assert_eq!(read(&*stores[1], Table::Grant, "a"), Some((1, b"one".to_vec())));

    // Idle connections that the server has ended are replaced without anybody noticing.
    world.postgres.restart().unwrap();
    assert_eq!(stores[0].write(Table::Grant, "a", Some(1), b"two").unwrap(), Some(2));
    world
        .postgres
        .sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'mail';")
        .unwrap();
    assert_eq!(read(&*stores[0], Table::Grant, "a"), Some((2, b"two".to_vec())));

    // Gone: a transient error within bounds, which says where, and holds no password.
    let port = world.postgres.port.to_string();
    world.postgres.stop();
    for store in &stores {
        let begun = Instant::now();
        for error in [store.read(Table::Grant, "a").err(), store.write(Table::Grant, "a", Some(2), b"x").err()] {
            let error = error.unwrap();
            assert_eq!(error.kind(), Kind::Transient, "{error}");
            assert!(!format!("{error} {}", error.to_json()).contains("canary-database"), "{error}");
        }
        assert!(begun.elapsed() < Duration::from_secs(45));
    }
    let error = store::open(&world.postgres.url(), key('1')).err().unwrap();
    assert_eq!(error.kind(), Kind::Transient);
    assert!(error.message().contains(&port), "{error}");

    // The machine of the server loses power right after a write was acknowledged, although the administrator had
    // switched synchronous commits off.
    world.postgres.restart().unwrap();
    assert_eq!(stores[0].write(Table::Grant, "a", Some(2), b"three").unwrap(), Some(3));
    world.postgres.kill();
    world.postgres.restart().unwrap();
    for store in &stores {
        let end = Instant::now() + Duration::from_secs(20);
        let found = loop {
            // pgbouncer learns of it a moment later.
            match store.read(Table::Grant, "a") {
                Err(error) if error.is_transient() && Instant::now() < end => thread::sleep(Duration::from_millis(100)),
                other => break other.unwrap().unwrap(),
            }
        };
        assert_eq!((found.version, found.bytes.to_vec()), (3, b"three".to_vec()));
    }
}

#[test]
fn a_postgres_url_that_cannot_be_used_says_what_to_do() {
    let world = world();
    world.empty();
    let good = world.postgres.url();
    let error = |url: &str| store::open(url, key('1')).err().unwrap();
    let wrong_password = error(&good.replace("canary-database-password", "hunter2"));
    assert_eq!(wrong_password.kind(), Kind::Settings);
    assert!(wrong_password.message().contains("password"), "{wrong_password}");
    let no_database = error(&good.replace("/mail?", "/nowhere?"));
    assert!(no_database.message().contains("no such database"), "{no_database}");
    // Without the authority the certificate is worth nothing, whatever sslmode says.
    for mode in ["", "?sslmode=require", "?sslmode=prefer"] {
        let untrusted = error(&format!("{}{mode}", good.split('?').next().unwrap()));
        assert_eq!(untrusted.kind(), Kind::Settings, "{mode}");
        assert!(untrusted.message().contains("not trusted"), "{untrusted}");
    }
    assert!(error(&good.replace("localhost", "127.0.0.9")).is_transient());
    for error in [wrong_password, no_database] {
        let all = format!("{error} {}", error.to_json());
        assert!(!all.contains("hunter2") && !all.contains("canary-database"), "{all}");
    }
    world
        .postgres
        .store_sql("REVOKE ALL ON SCHEMA public FROM PUBLIC, mail; ALTER SCHEMA public OWNER TO admin;")
        .unwrap();
    let denied = error(&good);
    world.postgres.store_sql("GRANT ALL ON SCHEMA public TO mail;").unwrap();
    assert!(denied.message().contains("tables"), "{denied}");
}

#[test]
fn a_unix_socket_needs_no_tls_and_a_server_without_tls_is_a_wrong_setting() {
    let world = world();
    world.empty();
    let store = open(&world.postgres.socket_url());
    store.write(Table::Grant, "a", None, b"x").unwrap();
    assert_eq!(read(&*store, Table::Grant, "a"), Some((1, b"x".to_vec())));
    let ssl = |state: &str| {
        let sql = format!("ALTER SYSTEM SET ssl = {state}; SELECT pg_reload_conf();");
        world.postgres.sql("postgres", &sql).unwrap();
    };
    ssl("off");
    let end = Instant::now() + Duration::from_secs(10);
    let error = loop {
        match store::open(&world.postgres.url(), key('1')) {
            Ok(_) if Instant::now() < end => thread::sleep(Duration::from_millis(50)),
            outcome => break outcome.err().unwrap(),
        }
    };
    ssl("on");
    assert_eq!(error.kind(), Kind::Settings, "{error}");
    assert!(error.message().contains("does not speak TLS"), "{error}");
    let nul = store::open("postgres://u:hunter2@localhost/a%00b", key('1')).err().unwrap();
    assert!(nul.kind() == Kind::Settings && !nul.to_string().contains('\0'), "{nul}");
}

/// The standby is asynchronous and stops following before the last commits.
#[test]
fn a_fail_over_to_a_standby_that_is_behind_loses_no_sign_in_and_sends_nothing_twice() {
    let dir = tempfile::Builder::new().prefix("omfail").tempdir().unwrap();
    let ca = Ca::create(dir.path()).unwrap();
    let mut primary = Postgres::start(&ca).unwrap();
    let standby = primary.standby().unwrap();
    let store = open(&primary.url_with(&standby));
    let replication = || store.replication().unwrap().unwrap();
    assert_eq!((replication().standbys, replication().is_synchronous), (1, false));
    store.write(Table::Grant, "g", None, b"older").unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while standby.store_sql("SELECT count(*) FROM oauth_mail_record;").is_ok_and(|count| count.trim() != "1") {
        assert!(Instant::now() < end, "the standby does not follow");
        thread::sleep(Duration::from_millis(50));
    }
    standby.stop_following().unwrap();
    store.write(Table::Sent, "k1", None, b"begun").unwrap();
    store.write(Table::Sent, "k1", Some(1), b"sent").unwrap();
    assert_eq!(store.write(Table::Grant, "g", Some(1), b"newer").unwrap(), Some(2));
    assert_eq!((store.epoch(), store.went_back()), (0, None));
    primary.kill();
    standby.promote().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    let claim = loop {
        match store.read(Table::Sent, "k1") {
            Err(error) if error.is_transient() && Instant::now() < end => thread::sleep(Duration::from_millis(100)),
            other => break other.unwrap().unwrap(),
        }
    };
    // Sent stays sent, for the other nodes, too.
    assert_eq!(claim.bytes.to_vec(), b"sent");
    let other = open(&primary.url_with(&standby));
    assert_eq!(read(&*other, Table::Sent, "k1").unwrap().1, b"sent");
    // The sign-in went back; whoever has the newer one in memory hears that it did.
    assert_eq!(read(&*store, Table::Grant, "g").unwrap().1, b"older");
    assert!(store.epoch() > 0 && store.went_back().is_some());
}

#[test]
fn nothing_that_is_secret_reaches_postgres() {
    let world = world();
    world.empty();
    for url in [world.postgres.url(), world.pgbouncer.url()] {
        let store = open(&url);
        let version = read(&*store, Table::Grant, "a").map(|(version, _)| version);
        let version = store.write(Table::Grant, "a", version, CANARY.as_bytes()).unwrap();
        store.write(Table::Grant, "a", version, CANARY.as_bytes()).unwrap();
        store.write(Table::Consent, "s", None, CANARY.as_bytes()).unwrap();
        store.take(Table::Consent, "s").unwrap();
    }
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let (dump, log) = (world.postgres.dump().unwrap(), world.postgres.log().unwrap());
    assert!(dump.contains("oauth_mail_record") && log.contains("UPDATE oauth_mail_record"), "nothing was searched");
    for text in [&dump, &log] {
        for part in [&CANARY[..12], &CANARY[12..24], &hex[..24], &hex[24..48]] {
            assert!(!text.to_lowercase().contains(&part.to_lowercase()), "{part}");
        }
    }
}

/// The short form of `make refresh-race`.
#[test]
fn one_token_request_per_expiry_among_processes() {
    let world = world();
    world.empty();
    let program = Path::new(PROGRAM);
    let mut parts = vec![race::threads(&world.ca, 200).unwrap(), race::failing_store(&world.ca).unwrap()];
    for (name, url) in world.shared() {
        parts.push(race::processes(program, &world.ca, &url, name, 8, 100, name).unwrap());
    }
    let missed: Vec<_> = parts.iter().filter(|part| !part.is_complete()).map(race::Part::line).collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

/// SQLite and PostgreSQL side by side: each waits for the lease of the dead.
#[test]
fn a_holder_that_is_killed_is_made_up_for_within_thirty_seconds() {
    let world = world();
    world.empty();
    let program = Path::new(PROGRAM);
    let [(_, sqlite), _, (_, pgbouncer)] = world.shared();
    let parts = thread::scope(|scope| {
        let ca = &world.ca;
        [("sqlite", sqlite), ("pgbouncer", pgbouncer)]
            .map(|(name, url)| scope.spawn(move || race::killed(program, ca, &url, name).unwrap()))
            .map(|thread| thread.join().unwrap())
    });
    let missed: Vec<_> = parts.iter().filter(|part| !part.is_complete()).map(race::Part::line).collect();
    assert!(missed.is_empty(), "{missed:#?}");
}
