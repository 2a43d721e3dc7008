//! The tables, made once, by whoever comes first.

use tokio_postgres::types::Type;

use super::{
    super::{
        Table,
        sealed::{KEY_CHECK, SealingKey},
    },
    BEGIN, Parameter, commit,
    failure::Trouble,
    pool::Pool,
    remove_old, select,
};
use crate::error::{Error, Kind, Result};

const LAYOUT: &[u8] = b"1";
const LAYOUT_NAME: &str = "layout";
/// "OAML", so that nobody else's lock is met. It ends with the transaction.
const LOCK: &str = "SELECT pg_advisory_xact_lock(1329679692)";
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS oauth_mail_meta (name text PRIMARY KEY, value bytea NOT NULL);
    CREATE TABLE IF NOT EXISTS oauth_mail_floor (kind text PRIMARY KEY, version bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS oauth_mail_record (
        kind text COLLATE \"C\" NOT NULL,
        id text COLLATE \"C\" NOT NULL,
        version bigint NOT NULL,
        sealed bytea NOT NULL,
        written_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (kind, id)
    );";

/// Older versions of this library do without it.
const INDEX: &str = "CREATE INDEX IF NOT EXISTS oauth_mail_record_by_age ON oauth_mail_record (kind, written_at)";

pub async fn prepare(pool: &Pool, key: &SealingKey, shown: &str) -> Result<(), Trouble> {
    let exists = select(pool, "SELECT to_regclass('oauth_mail_meta') IS NOT NULL", &[]).await?;
    let exists: bool = exists.map(|row| row.try_get(0)).transpose()?.unwrap_or(false);
    if !exists {
        create(pool, key).await?;
    }
    let layout = read_meta(pool, LAYOUT_NAME).await?;
    if layout.as_deref().is_some_and(|layout| layout != LAYOUT) {
        let newer = format!("The store ({shown}) was written by a newer version of this library.");
        return Err(Error::new(Kind::Unsupported, newer).remedy("Update the plugin, or name another database.").into());
    }
    key.check(read_key_check(pool).await?.as_deref(), &format!("({shown})"))?;
    // Asked for first: making it takes a lock, even where it is there.
    let has_index = select(pool, "SELECT to_regclass('oauth_mail_record_by_age') IS NOT NULL", &[]).await?;
    if !has_index.map(|row| row.try_get(0)).transpose()?.unwrap_or(false) {
        let seat = pool.begin(BEGIN).await?;
        seat.client().batch_execute(LOCK).await?;
        seat.client().batch_execute(INDEX).await?;
        commit(seat).await?;
    }
    remove_old(pool, Table::Consent, crate::limits::CONSENT_KEPT, u32::MAX).await.map(drop)
}

pub async fn read_key_check(pool: &Pool) -> Result<Option<Vec<u8>>, Trouble> {
    read_meta(pool, KEY_CHECK.id).await
}

async fn create(pool: &Pool, key: &SealingKey) -> Result<(), Trouble> {
    let seat = pool.begin(BEGIN).await?;
    let client = seat.client();
    client.batch_execute(LOCK).await?;
    client.batch_execute(TABLES).await?;
    for table in Table::ALL {
        let sql = "INSERT INTO oauth_mail_floor (kind, version) VALUES ($1, 0) ON CONFLICT DO NOTHING";
        client.execute_typed(sql, &[(&table.name(), Type::TEXT)]).await?;
    }
    // Somebody who was faster has chosen the key.
    for (name, value) in [(LAYOUT_NAME, LAYOUT.to_vec()), (KEY_CHECK.id, key.seal_check()?)] {
        let parameters: [Parameter<'_>; 2] = [(&name, Type::TEXT), (&value, Type::BYTEA)];
        let sql = "INSERT INTO oauth_mail_meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        client.execute_typed(sql, &parameters).await?;
    }
    commit(seat).await
}

async fn read_meta(pool: &Pool, name: &str) -> Result<Option<Vec<u8>>, Trouble> {
    let row = select(pool, "SELECT value FROM oauth_mail_meta WHERE name = $1", &[(&name, Type::TEXT)]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}
