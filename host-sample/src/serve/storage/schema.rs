//! The tables, and a known text that tells whether the key is the one they were written with.

use super::Storage;
use crate::{database::parameters, failure::Result};

pub const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS host_meta (name TEXT PRIMARY KEY, value {bytes} NOT NULL);
    CREATE TABLE IF NOT EXISTS mailboxes (
        id {id},
        name TEXT NOT NULL,
        incoming {bytes},
        outgoing {bytes},
        paused BIGINT NOT NULL DEFAULT 0,
        version BIGINT NOT NULL DEFAULT 1
    );
    CREATE TABLE IF NOT EXISTS runs (
        mailbox BIGINT PRIMARY KEY REFERENCES mailboxes (id) ON DELETE CASCADE,
        next_run BIGINT NOT NULL,
        lease_owner TEXT,
        lease_until BIGINT NOT NULL DEFAULT 0,
        node TEXT,
        rounds BIGINT NOT NULL DEFAULT 0,
        failures BIGINT NOT NULL DEFAULT 0,
        last_run BIGINT,
        last_success BIGINT,
        last_seconds BIGINT NOT NULL DEFAULT 0,
        result TEXT,
        error TEXT,
        created BIGINT NOT NULL DEFAULT 0,
        appended BIGINT NOT NULL DEFAULT 0,
        duplicate BIGINT NOT NULL DEFAULT 0,
        ignored BIGINT NOT NULL DEFAULT 0,
        skipped BIGINT NOT NULL DEFAULT 0,
        quarantined BIGINT NOT NULL DEFAULT 0,
        last_counts TEXT,
        health_incoming TEXT,
        health_outgoing TEXT,
        transcript {bytes}
    );
    CREATE INDEX IF NOT EXISTS runs_by_next_run ON runs (next_run);
    CREATE TABLE IF NOT EXISTS audit (
        id {id},
        at BIGINT NOT NULL DEFAULT ({now}),
        who TEXT NOT NULL,
        mailbox BIGINT,
        action TEXT NOT NULL,
        detail TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS admins (name TEXT PRIMARY KEY, password_hash TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS sessions (
        token_hash TEXT PRIMARY KEY,
        admin TEXT NOT NULL REFERENCES admins (name) ON DELETE CASCADE,
        csrf TEXT NOT NULL,
        expires BIGINT NOT NULL,
        seen BIGINT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS pending (
        state_hash TEXT PRIMARY KEY,
        mailbox BIGINT NOT NULL REFERENCES mailboxes (id) ON DELETE CASCADE,
        direction TEXT NOT NULL,
        admin TEXT NOT NULL,
        expires BIGINT NOT NULL
    );";

const KEY_CHECK: &str = "The key check";
const KEY_CHECK_TEXT: &[u8] = b"this database opens with this key";

impl Storage {
    pub(super) fn check_key(&self) -> Result<()> {
        let sealed = self.seal.seal(KEY_CHECK, KEY_CHECK_TEXT)?;
        self.database.execute(
            "INSERT INTO host_meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING",
            parameters![KEY_CHECK, sealed.as_slice()],
        )?;
        let row = self.database.first("SELECT value FROM host_meta WHERE name = ?1", parameters![KEY_CHECK])?;
        let kept = row.as_ref().map(|row| row.optional_bytes(0)).transpose()?.flatten().unwrap_or_default();
        self.seal.open(KEY_CHECK, kept).map(|_| ())
    }
}
