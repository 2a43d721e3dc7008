//! Mailboxes: a name, and the two forms as they were saved, sealed.

use serde_json::Value;

use super::{Storage, audit, runs::AT_ONCE};
use crate::{
    database::{Row, Transaction, parameters},
    failure::Result,
    host::Direction,
};

#[derive(Clone)]
pub struct Mailbox {
    pub id: i64,
    pub name: String,
    /// The form, as the schema describes it; secrets included.
    pub incoming: Option<Value>,
    pub outgoing: Option<Value>,
    /// Not fetched by the scheduler.
    pub paused: bool,
    /// Grows with each change.
    pub version: i64,
    /// What was saved does not open with this key: both forms are `None`, and can be saved anew.
    pub unreadable: bool,
}

/// What a mailbox is to be.
#[derive(Clone, Default)]
pub struct Change {
    pub name: String,
    pub incoming: Option<Value>,
    pub outgoing: Option<Value>,
    pub paused: bool,
}

impl Mailbox {
    pub fn form(&self, direction: Direction) -> Option<&Value> {
        match direction {
            Direction::Incoming => self.incoming.as_ref(),
            Direction::Outgoing => self.outgoing.as_ref(),
        }
    }
}

impl Storage {
    /// All, by name.
    pub fn mailboxes(&self) -> Result<Vec<Mailbox>> {
        let sql = "SELECT id, name, incoming, outgoing, paused, version FROM mailboxes ORDER BY name, id";
        self.database.query(sql, &[])?.iter().map(|row| self.read(row)).collect()
    }

    pub fn mailbox(&self, id: i64) -> Result<Option<Mailbox>> {
        let sql = "SELECT id, name, incoming, outgoing, paused, version FROM mailboxes WHERE id = ?1";
        self.database.first(sql, parameters![id])?.map(|row| self.read(&row)).transpose()
    }

    /// Only the version: are open accounts still those of these settings?
    pub fn mailbox_version(&self, id: i64) -> Result<Option<i64>> {
        let row = self.database.first("SELECT version FROM mailboxes WHERE id = ?1", parameters![id])?;
        row.map(|row| row.integer(0)).transpose()
    }

    /// Its number. The first round is due at once.
    pub fn insert_mailbox(&self, who: &str, change: &Change) -> Result<i64> {
        self.database.transaction(|transaction| {
            let id = transaction.number(
                "INSERT INTO mailboxes (name, paused) VALUES (?1, ?2) RETURNING id",
                parameters![change.name.as_str(), change.paused],
            )?;
            self.write(transaction, id, change, 1)?;
            transaction.execute("INSERT INTO runs (mailbox, next_run) VALUES (?1, {now})", parameters![id])?;
            audit::write(transaction, who, Some(id), "mailbox created", &audit::differences(None, Some(change)))?;
            Ok(id)
        })
    }

    /// The new version; `None` when somebody else changed or removed it since `version`. The next round is due at once.
    pub fn update_mailbox(&self, who: &str, id: i64, version: i64, change: &Change) -> Result<Option<i64>> {
        self.database.transaction(|transaction| {
            let sql = "SELECT id, name, incoming, outgoing, paused, version FROM mailboxes WHERE id = ?1";
            let Some(row) = transaction.first(sql, parameters![id])? else { return Ok(None) };
            let old = self.read(&row)?;
            let before = Change { name: old.name, incoming: old.incoming, outgoing: old.outgoing, paused: old.paused };
            let new = version.saturating_add(1);
            let changed = transaction.execute(
                "UPDATE mailboxes SET name = ?3, paused = ?4, version = ?5 WHERE id = ?1 AND version = ?2",
                parameters![id, version, change.name.as_str(), change.paused, new],
            )?;
            if changed == 0 {
                return Ok(None);
            }
            self.write(transaction, id, change, new)?;
            let sql = format!(
                "UPDATE runs SET next_run = {AT_ONCE}, failures = 0, error = NULL, health_incoming = NULL,
                     health_outgoing = NULL WHERE mailbox = ?1"
            );
            transaction.execute(&sql, parameters![id])?;
            let differences = audit::differences(Some(&before), Some(change));
            audit::write(transaction, who, Some(id), "mailbox changed", &differences)?;
            Ok(Some(new))
        })
    }

    /// With its runs; its requests stay. `false`: there was none.
    pub fn remove_mailbox(&self, who: &str, id: i64) -> Result<bool> {
        self.database.transaction(|transaction| {
            let row = transaction.first("SELECT name FROM mailboxes WHERE id = ?1", parameters![id])?;
            let Some(row) = row else { return Ok(false) };
            transaction.execute("DELETE FROM mailboxes WHERE id = ?1", parameters![id])?;
            audit::write(transaction, who, Some(id), "mailbox removed", &serde_json::json!({"name": row.text(0)?}))?;
            Ok(true)
        })
    }

    fn write(&self, transaction: &mut dyn Transaction, id: i64, change: &Change, version: i64) -> Result<()> {
        let seal = |direction: Direction, form: &Option<Value>| {
            let place = place(id, direction, version);
            form.as_ref().map(|form| self.seal.seal(&place, form.to_string().as_bytes())).transpose()
        };
        let incoming = seal(Direction::Incoming, &change.incoming)?;
        let outgoing = seal(Direction::Outgoing, &change.outgoing)?;
        transaction.execute(
            "UPDATE mailboxes SET incoming = ?2, outgoing = ?3 WHERE id = ?1",
            parameters![id, incoming.as_deref(), outgoing.as_deref()],
        )?;
        Ok(())
    }

    fn read(&self, row: &Row) -> Result<Mailbox> {
        let (id, version) = (row.integer(0)?, row.integer(5)?);
        let mut unreadable = false;
        let mut open = |column: usize, direction: Direction| -> Result<Option<Value>> {
            let Some(sealed) = row.optional_bytes(column)? else { return Ok(None) };
            // One that does not open must not hide the others, and must be mendable.
            let text = self.seal.open(&place(id, direction, version), sealed).ok();
            let form = text.and_then(|text| serde_json::from_slice(&text).ok());
            unreadable |= form.is_none();
            Ok(form)
        };
        let (incoming, outgoing) = (open(2, Direction::Incoming)?, open(3, Direction::Outgoing)?);
        Ok(Mailbox { id, name: row.text(1)?, incoming, outgoing, paused: row.integer(4)? != 0, version, unreadable })
    }
}

fn place(id: i64, direction: Direction, version: i64) -> String {
    format!("The {} settings of mailbox {id}, version {version},", direction.name())
}
