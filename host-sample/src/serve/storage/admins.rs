//! Administrators, their sessions, and consents that are under way. Tokens come in as hashes.

use super::{Storage, audit};
use crate::{database::parameters, failure::Result, host::Direction};

pub struct Session {
    pub admin: String,
    /// The secret that each form of this session carries.
    pub csrf: String,
    pub expires: i64,
}

/// Which mailbox a consent belongs to, whichever node the redirect meets.
pub struct Pending {
    pub mailbox: i64,
    pub direction: Direction,
    /// Who started it; empty: it waits for an administrator of the provider.
    pub admin: String,
}

impl Storage {
    pub fn has_admins(&self) -> Result<bool> {
        Ok(self.database.first("SELECT 1 FROM admins LIMIT 1", &[])?.is_some())
    }

    pub fn admin_names(&self) -> Result<Vec<String>> {
        self.database.query("SELECT name FROM admins ORDER BY name", &[])?.iter().map(|row| row.text(0)).collect()
    }

    /// The argon2 hash of the password, in PHC form.
    pub fn password_hash(&self, admin: &str) -> Result<Option<String>> {
        let row = self.database.first("SELECT password_hash FROM admins WHERE name = ?1", parameters![admin])?;
        row.map(|row| row.text(0)).transpose()
    }

    /// `false`: there is one of this name already.
    pub fn insert_admin(&self, who: &str, name: &str, password_hash: &str) -> Result<bool> {
        self.database.transaction(|transaction| {
            let inserted = transaction.execute(
                "INSERT INTO admins (name, password_hash) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING",
                parameters![name, password_hash],
            )?;
            if inserted > 0 {
                audit::write(transaction, who, None, "administrator created", &serde_json::json!({"name": name}))?;
            }
            Ok(inserted > 0)
        })
    }

    /// All sessions of this administrator end.
    pub fn set_password(&self, who: &str, name: &str, password_hash: &str) -> Result<bool> {
        self.database.transaction(|transaction| {
            let sql = "UPDATE admins SET password_hash = ?2 WHERE name = ?1";
            let changed = transaction.execute(sql, parameters![name, password_hash])?;
            transaction.execute("DELETE FROM sessions WHERE admin = ?1", parameters![name])?;
            if changed > 0 {
                audit::write(transaction, who, None, "password changed", &serde_json::json!({"name": name}))?;
            }
            Ok(changed > 0)
        })
    }

    /// Sessions that have ended are forgotten on the way.
    pub fn insert_session(&self, token_hash: &str, admin: &str, csrf: &str, seconds: i64) -> Result<()> {
        self.database.transaction(|transaction| {
            transaction.execute("DELETE FROM sessions WHERE expires <= {now}", &[])?;
            transaction.execute(
                "INSERT INTO sessions (token_hash, admin, csrf, expires, seen) VALUES (?1, ?2, ?3, {now} + ?4, {now})",
                parameters![token_hash, admin, csrf, seconds],
            )?;
            Ok(())
        })
    }

    /// One that has not ended. `idle_seconds`: ended also when nobody used it for so long.
    pub fn session(&self, token_hash: &str, idle_seconds: i64) -> Result<Option<Session>> {
        let row = self.database.first(
            "SELECT admin, csrf, expires FROM sessions
             WHERE token_hash = ?1 AND expires > {now} AND seen > {now} - ?2",
            parameters![token_hash, idle_seconds],
        )?;
        let session = |row: crate::database::Row| {
            Ok(Session { admin: row.text(0)?, csrf: row.text(1)?, expires: row.integer(2)? })
        };
        row.map(session).transpose()
    }

    /// It is in use. Written at most once a minute.
    pub fn touch_session(&self, token_hash: &str) -> Result<()> {
        self.database.execute(
            "UPDATE sessions SET seen = {now} WHERE token_hash = ?1 AND seen < {now} - 60",
            parameters![token_hash],
        )?;
        Ok(())
    }

    pub fn remove_session(&self, token_hash: &str) -> Result<()> {
        self.database.execute("DELETE FROM sessions WHERE token_hash = ?1", parameters![token_hash])?;
        Ok(())
    }

    /// `state_hash`: of the parameter `state` in the authorize_url.
    pub fn insert_pending(&self, state_hash: &str, pending: &Pending, seconds: i64) -> Result<()> {
        self.database.transaction(|transaction| {
            transaction.execute("DELETE FROM pending WHERE expires <= {now}", &[])?;
            transaction.execute(
                "INSERT INTO pending (state_hash, mailbox, direction, admin, expires)
                 VALUES (?1, ?2, ?3, ?4, {now} + ?5) ON CONFLICT (state_hash) DO NOTHING",
                parameters![state_hash, pending.mailbox, pending.direction.name(), pending.admin.as_str(), seconds],
            )?;
            Ok(())
        })
    }

    /// The one with which an administrator of the provider comes, who is nobody here; it may come again.
    pub fn provider_pending(&self, state_hash: &str) -> Result<Option<Pending>> {
        let row = self.database.first(
            "SELECT mailbox, direction, admin FROM pending WHERE state_hash = ?1 AND expires > {now} AND admin = ''",
            parameters![state_hash],
        )?;
        row.map(|row| pending(&row)).transpose()
    }

    /// Once only; `None` when it is not known or has ended.
    pub fn take_pending(&self, state_hash: &str) -> Result<Option<Pending>> {
        let row = self.database.transaction(|transaction| {
            transaction.first(
                "DELETE FROM pending WHERE state_hash = ?1 AND expires > {now} RETURNING mailbox, direction, admin",
                parameters![state_hash],
            )
        })?;
        row.map(|row| pending(&row)).transpose()
    }
}

fn pending(row: &crate::database::Row) -> Result<Pending> {
    let direction = match row.text(1)?.as_str() {
        "outgoing" => Direction::Outgoing,
        _ => Direction::Incoming,
    };
    Ok(Pending { mailbox: row.integer(0)?, direction, admin: row.text(2)? })
}
