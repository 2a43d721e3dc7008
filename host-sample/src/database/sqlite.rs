//! One file, for one process.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rusqlite::{
    Connection, TransactionBehavior,
    types::{ToSql, ToSqlOutput, Value as Cell, ValueRef},
};

use super::{Parameter, Row, Transaction, dialect};
use crate::{failure::Result, host};

const WORDS: [(&str, &str); 4] = [
    ("{id}", "INTEGER PRIMARY KEY AUTOINCREMENT"),
    ("{bytes}", "BLOB"),
    ("{now}", "unixepoch()"),
    ("{now_text}", "(strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))"),
];

pub struct Sqlite(Mutex<Connection>);

impl Sqlite {
    pub fn open(path: &Path) -> Result<Self> {
        // SQLite gives its journal files the mode of the database. When the file exists, its mode is its owner's choice.
        if path != Path::new(":memory:") {
            let _ = host::private_file(path);
        }
        let connection = Connection::open(path)?;
        // FULL: once committed, a power cut must not forget a key whose message is about to be settled.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;
             PRAGMA busy_timeout = 10000;",
        )?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Self(Mutex::new(connection)))
    }

    pub fn transaction<T>(&self, work: impl FnOnce(&mut dyn Transaction) -> Result<T>) -> Result<T> {
        let mut connection = self.lock();
        let mut open = Open(connection.transaction_with_behavior(TransactionBehavior::Immediate)?);
        let done = work(&mut open)?;
        open.0.commit()?;
        Ok(done)
    }

    pub fn query(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>> {
        query(&self.lock(), sql, parameters)
    }

    pub fn create(&self, statements: &str) -> Result<()> {
        Ok(self.lock().execute_batch(&dialect(statements, WORDS))?)
    }

    pub fn add_column(&self, table: &str, column: &str, kind: &str) -> Result<()> {
        let connection = self.lock();
        let known = "SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2";
        if connection.query_row(known, [table, column], |row| row.get::<_, i64>(0))? == 0 {
            connection.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"))?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A transaction that was left by a panic was rolled back.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Open<'a>(rusqlite::Transaction<'a>);

impl Transaction for Open<'_> {
    fn query(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>> {
        query(&self.0, sql, parameters)
    }

    fn execute(&mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64> {
        let mut statement = self.0.prepare_cached(&dialect(sql, WORDS))?;
        Ok(statement.execute(rusqlite::params_from_iter(parameters))? as u64)
    }
}

fn query(connection: &Connection, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>> {
    let mut statement = connection.prepare_cached(&dialect(sql, WORDS))?;
    let columns = statement.column_count();
    let mut rows = statement.query(rusqlite::params_from_iter(parameters))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Row((0..columns).map(|column| row.get(column)).collect::<rusqlite::Result<Vec<Cell>>>()?));
    }
    Ok(found)
}

impl ToSql for Parameter<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match self {
            Self::Integer(number) => number.map_or(ValueRef::Null, ValueRef::Integer),
            Self::Text(text) => text.map_or(ValueRef::Null, |text| ValueRef::Text(text.as_bytes())),
            Self::Bytes(bytes) => bytes.map_or(ValueRef::Null, ValueRef::Blob),
        };
        Ok(ToSqlOutput::Borrowed(value))
    }
}
