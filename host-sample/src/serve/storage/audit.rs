//! The audit trail: who changed what, and when. Values are shown where the field is known to hold no secret.

use serde_json::{Map, Value, json};

use super::{Change, Storage};
use crate::{
    database::{Row, Transaction, parameters},
    failure::Result,
};

/// Fields of the forms whose values may be shown. Of all others only the name is kept: what a later form asks for may be
/// a secret.
const SHOWN: [&str; 20] = [
    "authentication_type",
    "connection_protocol",
    "server_name",
    "username",
    "email_addresses",
    "protocol",
    "port",
    "client_id",
    "authorize_url",
    "access_token_url",
    "scope",
    "redirect_url",
    "fetch_interval_minutes",
    "enable_email_debug",
    "enable_tls",
    "sender_name",
    "reply_to",
    "disable_new_request_creation",
    "connect_url",
    "name",
];

impl Storage {
    /// Something that an administrator did which changes no settings: a login, a consent, a replay.
    pub fn audit(&self, who: &str, mailbox: Option<i64>, action: &str, detail: &Value) -> Result<()> {
        self.database.transaction(|transaction| write(transaction, who, mailbox, action, detail))
    }

    /// `{"id","at","who","mailbox","action","detail"}`, newest first, at most `limit` with a number below `before`.
    pub fn audit_trail(&self, mailbox: Option<i64>, before: i64, limit: i64) -> Result<Vec<Value>> {
        let rows = self.database.query(
            "SELECT id, at, who, mailbox, action, detail FROM audit
             WHERE id < ?1 AND (?2 IS NULL OR mailbox = ?2) ORDER BY id DESC LIMIT ?3",
            parameters![before, mailbox, limit],
        )?;
        let entry = |row: &Row| {
            Ok(json!({
                "id": row.integer(0)?,
                "at": row.integer(1)?,
                "who": row.text(2)?,
                "mailbox": row.optional_integer(3)?,
                "action": row.text(4)?,
                "detail": serde_json::from_str::<Value>(&row.text(5)?).unwrap_or_default(),
            }))
        };
        rows.iter().map(entry).collect()
    }
}

pub fn write(
    transaction: &mut dyn Transaction,
    who: &str,
    mailbox: Option<i64>,
    action: &str,
    detail: &Value,
) -> Result<()> {
    transaction.execute(
        "INSERT INTO audit (who, mailbox, action, detail) VALUES (?1, ?2, ?3, ?4)",
        parameters![who, mailbox, action, detail.to_string().as_str()],
    )?;
    Ok(())
}

/// `{"changes":[{"field":POINTER,"from":…,"to":…}]}`; without values where they are not to be shown.
pub fn differences(before: Option<&Change>, after: Option<&Change>) -> Value {
    let document = |change: Option<&Change>| match change {
        Some(change) => json!({"name": change.name, "paused": change.paused, "incoming": change.incoming,
                               "outgoing": change.outgoing}),
        None => Value::Null,
    };
    let mut changes = Vec::new();
    compare(&document(before), &document(after), "", &mut changes);
    json!({ "changes": changes })
}

fn compare(before: &Value, after: &Value, pointer: &str, changes: &mut Vec<Value>) {
    if before == after {
        return;
    }
    let empty = Map::new();
    let (old, new) = (before.as_object(), after.as_object());
    if old.is_none() && new.is_none() {
        let field = pointer.rsplit('/').next().unwrap_or_default();
        let depth = pointer.matches('/').count();
        let is_shown = field == "paused" || depth <= 2 && SHOWN.contains(&field);
        changes.push(match is_shown {
            true => json!({"field": pointer, "from": before, "to": after}),
            false => json!({"field": pointer}),
        });
        return;
    }
    let (old, new) = (old.unwrap_or(&empty), new.unwrap_or(&empty));
    for (name, value) in old {
        compare(value, new.get(name).unwrap_or(&Value::Null), &format!("{pointer}/{name}"), changes);
    }
    for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        compare(&Value::Null, value, &format!("{pointer}/{name}"), changes);
    }
}
