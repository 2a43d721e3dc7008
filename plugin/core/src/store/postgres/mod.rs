//! One PostgreSQL database, shared by any number of nodes; a pooler in transaction mode may stand before it.
//!
//! Every change is one transaction that returns when the server has it on the disk, whatever `synchronous_commit` the
//! role has. No session state: unnamed statements, `SET LOCAL`, locks that end with the transaction.

mod address;
mod failure;
mod pool;
mod schema;

use std::sync::{
    Arc,
    mpsc::{self, RecvTimeoutError},
};

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{
    Row as PgRow,
    types::{ToSql, Type},
};

use self::{
    address::Address,
    failure::{Trouble, unanswered},
    pool::{Pool, Seat, is_gone},
};
use super::{
    Record, Replication, Store, Table, check_size, fault,
    reseal::{self, Resealed, Row, Rows},
    sealed::{KEY_CHECK, Place, SealingKey},
};
use crate::{
    call::{self, Call},
    error::Result,
    limits, machine, net, seam,
};

/// The settings hold for this transaction only: a pooler hands the session on as it was. The times are those of
/// `limits::STORE_TIMEOUT`, after which nobody waits for the answer any more.
const BEGIN: &str = "BEGIN; SET LOCAL synchronous_commit = on; SET LOCAL statement_timeout = '10s'; \
                     SET LOCAL lock_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '20s'";

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

pub struct PostgresStore {
    shared: Arc<Shared>,
    /// Has a thread of its own, so that a host may call from inside a runtime. `None` only while it is dropped.
    runtime: Option<Runtime>,
}

struct Shared {
    pool: Pool,
    key: SealingKey,
    shown: String,
}

impl PostgresStore {
    /// Connects, and creates the tables (names begin with `oauth_mail_`) when there are none.
    ///
    /// # Errors
    /// `Settings`: the URL cannot be used, the server refuses the login or the tables, or they belong to another key.
    /// `Unsupported`: a newer version of the library made them. `Transient`: the server cannot be reached.
    pub fn open(url: &str, key: SealingKey) -> Result<Self> {
        let Address { config, ca_file, shown } = Address::parse(url)?;
        let tls = net::tls::client_config(ca_file.as_deref()).map_err(|error| match error.is_transient() {
            true => error,
            false => fault(format!("sslrootcert cannot be used. {error}")),
        })?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("oauth-mail-store")
            .enable_all()
            .build()
            .map_err(|e| {
                let doing = "The store cannot be opened.";
                machine::or_else_now(doing, e, |e| machine::no_thread(doing, e))
            })?;
        let shared = Arc::new(Shared { pool: Pool::new(config, tls), key, shown });
        let store = Self { shared, runtime: Some(runtime) };
        store.run(|shared| async move { schema::prepare(&shared.pool, &shared.key, &shared.shown).await })?;
        Ok(store)
    }

    /// Runs `work` on the store's thread and waits for it, but not for ever.
    fn run<T, F>(&self, work: impl FnOnce(Arc<Shared>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Trouble>> + Send + 'static,
    {
        let shown = &self.shared.shown;
        let Some(runtime) = &self.runtime else { return Err(unanswered(shown)) };
        let (sender, receiver) = mpsc::sync_channel(1);
        let work = work(self.shared.clone());
        let left = call::left(limits::STORE_TIMEOUT);
        runtime.spawn(async move {
            // Dropped at its end, `work` closes the connection that it was using.
            let _ = sender.send(tokio::time::timeout(left, work).await);
        });
        let caller = call::current();
        let give_up = seam::instant() + left + limits::INNER_GRACE;
        call::waiting("the store", || {
            loop {
                let patience = give_up.saturating_duration_since(seam::instant());
                match receiver.recv_timeout(patience.min(limits::CANCEL_POLL)) {
                    Ok(Ok(done)) => return done.map_err(|trouble| trouble.into_error(shown)),
                    Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => return Err(unanswered(shown)),
                    Err(RecvTimeoutError::Timeout) => {}
                }
                if patience.is_zero() || caller.as_ref().is_some_and(Call::is_cancelled) {
                    return Err(unanswered(shown));
                }
            }
        })
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        // Waiting for its thread is forbidden inside a runtime, and there is nothing to wait for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Store for PostgresStore {
    fn is_shared(&self) -> bool {
        true
    }

    fn read(&self, table: Table, id: &str) -> Result<Option<Record>> {
        let id = id.to_owned();
        self.run(|shared| async move {
            let sql = "SELECT version, sealed FROM oauth_mail_record WHERE kind = $1 AND id = $2";
            let row = shared.select(sql, &[(&table.name(), Type::TEXT), (&id, Type::TEXT)]).await?;
            row.map(|row| shared.open(table, &id, &row)).transpose()
        })
    }

    fn write(&self, table: Table, id: &str, expected: Option<u64>, bytes: &[u8]) -> Result<Option<u64>> {
        check_size(table, bytes)?;
        let key = &self.shared.key;
        let id = id.to_owned();
        let Some(expected) = expected else {
            let bytes = zeroize::Zeroizing::new(bytes.to_vec());
            return self.run(|shared| async move { shared.insert(table, &id, &bytes).await });
        };
        let version = expected.saturating_add(1);
        let sealed = key.seal(Place { table: table.name(), id: &id, version }, bytes)?;
        self.run(|shared| async move {
            let parameters: [Parameter<'_>; 5] = [
                (&table.name(), Type::TEXT),
                (&id, Type::TEXT),
                (&(expected as i64), Type::INT8),
                (&(version as i64), Type::INT8),
                (&sealed, Type::BYTEA),
            ];
            let seat = shared.pool.begin(BEGIN).await?;
            let changed = seat
                .client()
                .execute_typed(
                    "UPDATE oauth_mail_record SET version = $4, sealed = $5, written_at = now()
                     WHERE kind = $1 AND id = $2 AND version = $3",
                    &parameters,
                )
                .await?;
            commit(seat).await?;
            Ok((changed > 0).then_some(version))
        })
    }

    fn take(&self, table: Table, id: &str) -> Result<Option<Record>> {
        let id = id.to_owned();
        self.run(|shared| async move {
            let seat = shared.pool.begin(BEGIN).await?;
            let Some(row) = remove(&seat, table, &id).await? else {
                commit(seat).await?;
                return Ok(None);
            };
            // One that does not open stays: the transaction ends with the seat.
            let record = shared.open(table, &id, &row)?;
            commit(seat).await?;
            Ok(Some(record))
        })
    }

    fn delete(&self, table: Table, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.run(|shared| async move {
            let seat = shared.pool.begin(BEGIN).await?;
            remove(&seat, table, &id).await?;
            commit(seat).await
        })
    }

    fn forget_old(&self, table: Table, seconds: i64, most: u32) -> Result<u32> {
        self.run(|shared| async move { remove_old(&shared.pool, table, seconds, most).await })
    }

    fn reseal(&self) -> Result<Resealed> {
        reseal::reseal(self, &self.shared.key)
    }

    fn ahead(&self) -> i64 {
        self.shared.pool.server.ahead()
    }

    fn epoch(&self) -> u64 {
        self.shared.pool.server.epoch()
    }

    fn events(&self) -> Vec<String> {
        let shown = &self.shared.shown;
        self.shared.pool.server.events().into_iter().map(|event| format!("{event} ({shown})")).collect()
    }

    fn replication(&self) -> Result<Option<Replication>> {
        self.run(|shared| async move {
            let sql = "SELECT (SELECT count(*) FROM pg_stat_replication),
                              coalesce(current_setting('synchronous_standby_names', true), '') <> ''";
            let row = shared.select(sql, &[]).await?;
            let told = |row: PgRow| -> Result<Replication, tokio_postgres::Error> {
                Ok(Replication { standbys: row.try_get(0)?, is_synchronous: row.try_get(1)? })
            };
            Ok(row.map(told).transpose()?)
        })
    }
}

impl Rows for PostgresStore {
    fn next_after(&self, kind: &str, id: &str) -> Result<Option<Row>> {
        let (kind, id) = (kind.to_owned(), id.to_owned());
        self.run(|shared| async move {
            let sql = "SELECT kind, id, version, sealed FROM oauth_mail_record
                       WHERE (kind, id) > ($1, $2) ORDER BY kind, id LIMIT 1";
            let row = shared.select(sql, &[(&kind, Type::TEXT), (&id, Type::TEXT)]).await?;
            row.map(|row| {
                Ok(Row {
                    kind: row.try_get(0)?,
                    id: row.try_get(1)?,
                    version: row.try_get::<_, i64>(2)? as u64,
                    sealed: row.try_get(3)?,
                })
            })
            .transpose()
        })
    }

    fn replace(&self, row: &Row, sealed: &[u8]) -> Result<bool> {
        let (kind, id, version, sealed) = (row.kind.clone(), row.id.clone(), row.version as i64, sealed.to_vec());
        self.run(|shared| async move {
            let parameters: [Parameter<'_>; 4] =
                [(&kind, Type::TEXT), (&id, Type::TEXT), (&version, Type::INT8), (&sealed, Type::BYTEA)];
            let sql = "UPDATE oauth_mail_record SET sealed = $4 WHERE kind = $1 AND id = $2 AND version = $3";
            Ok(shared.change(sql, &parameters).await? > 0)
        })
    }

    fn key_check(&self) -> Result<Vec<u8>> {
        self.run(|shared| async move {
            let sealed = schema::read_key_check(&shared.pool).await?;
            sealed.ok_or_else(|| fault("The tables of the store are gone.").into())
        })
    }

    fn replace_key_check(&self, sealed: &[u8]) -> Result<()> {
        let sealed = sealed.to_vec();
        self.run(|shared| async move {
            let parameters: [Parameter<'_>; 2] = [(&KEY_CHECK.id, Type::TEXT), (&sealed, Type::BYTEA)];
            shared.change("UPDATE oauth_mail_meta SET value = $2 WHERE name = $1", &parameters).await.map(|_| ())
        })
    }
}

impl Shared {
    /// At most one row, outside of any transaction.
    async fn select(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Option<PgRow>, Trouble> {
        select(&self.pool, sql, parameters).await
    }

    async fn change(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64, Trouble> {
        let seat = self.pool.begin(BEGIN).await?;
        let changed = seat.client().execute_typed(sql, parameters).await?;
        commit(seat).await?;
        Ok(changed)
    }

    /// A new record begins above every version that a deleted one of its table had. The shared lock keeps deletions
    /// out until it stands.
    async fn insert(&self, table: Table, id: &str, bytes: &[u8]) -> Result<Option<u64>, Trouble> {
        let kind = table.name();
        let seat = self.pool.begin(BEGIN).await?;
        let floor = seat
            .client()
            .query_typed("SELECT version FROM oauth_mail_floor WHERE kind = $1 FOR SHARE", &[(&kind, Type::TEXT)])
            .await?;
        let floor: i64 = floor.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
        let version = floor.saturating_add(1);
        let sealed = self.key.seal(Place { table: kind, id, version: version as u64 }, bytes)?;
        let parameters: [Parameter<'_>; 4] =
            [(&kind, Type::TEXT), (&id, Type::TEXT), (&version, Type::INT8), (&sealed, Type::BYTEA)];
        let inserted = seat
            .client()
            .execute_typed(
                "INSERT INTO oauth_mail_record (kind, id, version, sealed) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (kind, id) DO NOTHING",
                &parameters,
            )
            .await?;
        commit(seat).await?;
        Ok((inserted > 0).then_some(version as u64))
    }

    /// `row`: version and sealed bytes.
    fn open(&self, table: Table, id: &str, row: &PgRow) -> Result<Record, Trouble> {
        let place = Place { table: table.name(), id, version: row.try_get::<_, i64>(0)? as u64 };
        let bytes = self.key.open(place, row.try_get(1)?).map_err(|broken| broken.into_error(place))?;
        Ok(Record { version: place.version, bytes })
    }
}

/// The floor is locked before the record, as by everybody, so that no two wait for each other.
async fn remove(seat: &Seat<'_>, table: Table, id: &str) -> Result<Option<PgRow>, Trouble> {
    let kind = table.name();
    let client = seat.client();
    client
        .query_typed("SELECT version FROM oauth_mail_floor WHERE kind = $1 FOR UPDATE", &[(&kind, Type::TEXT)])
        .await?;
    let sql = "WITH gone AS (DELETE FROM oauth_mail_record WHERE kind = $1 AND id = $2 RETURNING version, sealed),
                    raised AS (UPDATE oauth_mail_floor SET version = greatest(oauth_mail_floor.version, gone.version)
                               FROM gone WHERE kind = $1)
               SELECT version, sealed FROM gone";
    let rows = client.query_typed(sql, &[(&kind, Type::TEXT), (&id, Type::TEXT)]).await?;
    Ok(rows.into_iter().next())
}

/// Deletes what was written more than `seconds` ago, at most `most`; how many.
async fn remove_old(pool: &Pool, table: Table, seconds: i64, most: u32) -> Result<u32, Trouble> {
    let kind = table.name();
    let seat = pool.begin(BEGIN).await?;
    let client = seat.client();
    client
        .query_typed("SELECT version FROM oauth_mail_floor WHERE kind = $1 FOR UPDATE", &[(&kind, Type::TEXT)])
        .await?;
    let sql = "WITH old AS (SELECT id FROM oauth_mail_record
                            WHERE kind = $1 AND written_at < now() - make_interval(secs => $2) LIMIT $3),
                    gone AS (DELETE FROM oauth_mail_record
                             WHERE kind = $1 AND id IN (SELECT id FROM old) RETURNING version),
                    raised AS (UPDATE oauth_mail_floor
                               SET version = greatest(oauth_mail_floor.version, (SELECT max(version) FROM gone))
                               WHERE kind = $1 AND EXISTS (SELECT FROM gone))
               SELECT count(*) FROM gone";
    let parameters: [Parameter<'_>; 3] =
        [(&kind, Type::TEXT), (&(seconds as f64), Type::FLOAT8), (&i64::from(most), Type::INT8)];
    let rows = client.query_typed(sql, &parameters).await?;
    let gone: i64 = rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
    commit(seat).await?;
    Ok(u32::try_from(gone).unwrap_or(u32::MAX))
}

async fn commit(seat: Seat<'_>) -> Result<(), Trouble> {
    seat.client().batch_execute("COMMIT").await?;
    seat.keep();
    Ok(())
}

async fn select(pool: &Pool, sql: &str, parameters: &[Parameter<'_>]) -> Result<Option<PgRow>, Trouble> {
    loop {
        let seat = pool.seat().await?;
        match seat.client().query_typed(sql, parameters).await {
            Ok(rows) => {
                seat.keep();
                return Ok(rows.into_iter().next());
            }
            // An idle connection had died; reading twice changes nothing.
            Err(error) if !seat.is_new() && is_gone(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
