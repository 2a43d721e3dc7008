//! The helpdesk's own data: requests, and the messages in them. A fetched batch is imported in one transaction.
//!
//! Exactly once, from a source that delivers at least once: the key of each message is committed together with what
//! became of it, and only then is the batch settled. Killed in between, the same message comes again and is known.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use serde_json::{Map, Value, json};

use crate::{
    facts::{Facts, Proposal, bare_id},
    failure::Result,
    host,
};

pub struct Helpdesk {
    database: Connection,
}

/// One fetched message on its way in.
pub struct Incoming<'batch> {
    pub key: &'batch str,
    pub raw: &'batch [u8],
    pub facts: Value,
}

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Created(i64),
    Appended(i64),
    Duplicate,
    Ignored(String),
}

#[derive(Clone, Debug)]
pub struct Imported {
    pub key: String,
    pub from: String,
    pub subject: String,
    pub outcome: Outcome,
}

impl Imported {
    /// The word that `settle_batch` takes.
    pub fn result(&self) -> &'static str {
        match self.outcome {
            Outcome::Created(_) | Outcome::Appended(_) => "imported",
            Outcome::Duplicate => "duplicate",
            Outcome::Ignored(_) => "refused",
        }
    }
}

/// A message that the helpdesk sent.
pub struct Sent<'a> {
    pub request: i64,
    pub message_id: &'a str,
    pub from: &'a str,
    pub subject: &'a str,
    pub text: &'a str,
}

impl Helpdesk {
    pub fn open(path: &Path) -> Result<Self> {
        // SQLite gives its journal files the mode of the database. When the file exists, its mode is its owner's choice.
        if path != Path::new(":memory:") {
            let _ = host::private_file(path);
        }
        let database = Connection::open(path)?;
        // FULL: once committed, a power cut must not forget a key whose message is about to be settled.
        database.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;
             PRAGMA busy_timeout = 10000;
             CREATE TABLE IF NOT EXISTS requests (
                 id INTEGER PRIMARY KEY,
                 subject TEXT NOT NULL,
                 requester TEXT NOT NULL,
                 created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
             );
             CREATE TABLE IF NOT EXISTS messages (
                 id INTEGER PRIMARY KEY,
                 key TEXT UNIQUE,
                 request_id INTEGER REFERENCES requests (id),
                 direction TEXT NOT NULL CHECK (direction IN ('in', 'out')),
                 message_id TEXT,
                 sender TEXT NOT NULL,
                 subject TEXT NOT NULL,
                 text TEXT NOT NULL,
                 attachments INTEGER NOT NULL DEFAULT 0,
                 ignored_because TEXT,
                 raw BLOB,
                 at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
             );
             CREATE INDEX IF NOT EXISTS messages_by_message_id ON messages (message_id);
             CREATE INDEX IF NOT EXISTS messages_by_request ON messages (request_id);",
        )?;
        Ok(Self { database })
    }

    /// Imports a whole batch or, on any failure, nothing of it.
    ///
    /// Without `new_requests`, only answers to what the helpdesk knows come in.
    pub fn import<'batch>(
        &mut self,
        batch: impl IntoIterator<Item = Incoming<'batch>>,
        new_requests: bool,
    ) -> Result<Vec<Imported>> {
        let transaction = self.database.transaction()?;
        let imported = batch
            .into_iter()
            .map(|message| import_one(&transaction, &message, new_requests))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        transaction.commit()?;
        Ok(imported)
    }

    /// Keeps what was sent in a request, so that the answer to it is recognised.
    pub fn record_sent(&mut self, sent: &Sent<'_>) -> Result<()> {
        self.database.execute(
            "INSERT INTO messages (request_id, direction, message_id, sender, subject, text)
             VALUES (?1, 'out', ?2, ?3, ?4, ?5)",
            params![sent.request, bare_id(sent.message_id), sent.from, sent.subject, sent.text],
        )?;
        Ok(())
    }

    /// Newest first.
    pub fn requests(&self) -> Result<Vec<Value>> {
        let mut query = self.database.prepare(
            "SELECT id, subject, requester, created_at, (SELECT count(*) FROM messages WHERE request_id = requests.id)
             FROM requests ORDER BY id DESC",
        )?;
        let rows = query.query_map([], |row| {
            Ok(json!({
                "id": row.get::<_, i64>(0)?,
                "subject": row.get::<_, String>(1)?,
                "requester": row.get::<_, String>(2)?,
                "created_at": row.get::<_, String>(3)?,
                "messages": row.get::<_, i64>(4)?,
            }))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// One request with its messages, oldest first.
    pub fn request(&self, id: i64) -> Result<Option<Value>> {
        let request = self
            .database
            .query_row("SELECT subject, requester, created_at FROM requests WHERE id = ?1", [id], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
            })
            .optional()?;
        let Some((subject, requester, created_at)) = request else {
            return Ok(None);
        };
        let mut query = self.database.prepare(
            "SELECT direction, message_id, sender, subject, text, attachments, length(raw), at, key
             FROM messages WHERE request_id = ?1 ORDER BY id",
        )?;
        let messages = query
            .query_map([id], |row| {
                Ok(json!({
                    "direction": row.get::<_, String>(0)?,
                    "message_id": row.get::<_, Option<String>>(1)?,
                    "from": row.get::<_, String>(2)?,
                    "subject": row.get::<_, String>(3)?,
                    "text": row.get::<_, String>(4)?,
                    "attachments": row.get::<_, i64>(5)?,
                    "raw_bytes": row.get::<_, Option<i64>>(6)?,
                    "at": row.get::<_, String>(7)?,
                    "key": row.get::<_, Option<String>>(8)?,
                }))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(Some(json!({
            "id": id, "subject": subject, "requester": requester, "created_at": created_at, "messages": messages,
        })))
    }

    /// How many messages came in, ignored ones included.
    pub fn known_keys(&self) -> Result<i64> {
        Ok(self.database.query_row("SELECT count(*) FROM messages WHERE key IS NOT NULL", [], |row| row.get(0))?)
    }
}

const UNKNOWN_REFERENCE: &str =
    "The message answers nothing that is known here, and new requests by email are disabled.";

/// What `settle_batch` takes for an imported batch.
pub fn results(imported: &[Imported]) -> Value {
    let results: Map<String, Value> =
        imported.iter().map(|message| (message.key.clone(), message.result().into())).collect();
    json!({ "results": results })
}

fn import_one(transaction: &Transaction<'_>, message: &Incoming<'_>, new_requests: bool) -> rusqlite::Result<Imported> {
    let facts = Facts::read(&message.facts);
    let known = transaction.prepare_cached("SELECT 1 FROM messages WHERE key = ?1")?.exists([message.key])?;
    let outcome = if known { Outcome::Duplicate } else { insert(transaction, message, &facts, new_requests)? };
    Ok(Imported { key: message.key.to_owned(), from: facts.from, subject: facts.subject, outcome })
}

fn insert(
    transaction: &Transaction<'_>,
    message: &Incoming<'_>,
    facts: &Facts,
    new_requests: bool,
) -> rusqlite::Result<Outcome> {
    let request = request_answered(transaction, facts)?;
    let outcome = match (&facts.proposal, request) {
        (Proposal::Ignore(reason), _) => Outcome::Ignored(reason.clone()),
        (_, Some(request)) => Outcome::Appended(request),
        // The library saw a reference; that nothing here carries that id, only the helpdesk can know.
        (_, None) if !new_requests => Outcome::Ignored(UNKNOWN_REFERENCE.to_owned()),
        (_, None) => {
            transaction
                .prepare_cached("INSERT INTO requests (subject, requester) VALUES (?1, ?2)")?
                .execute([&facts.subject, &facts.from])?;
            Outcome::Created(transaction.last_insert_rowid())
        }
    };
    let (request, ignored) = match &outcome {
        Outcome::Created(request) | Outcome::Appended(request) => (Some(*request), None),
        Outcome::Ignored(reason) => (None, Some(reason)),
        Outcome::Duplicate => (None, None),
    };
    transaction
        .prepare_cached(
            "INSERT INTO messages
                 (key, request_id, direction, message_id, sender, subject, text, attachments, ignored_because, raw)
             VALUES (?1, ?2, 'in', ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            message.key,
            request,
            facts.message_id,
            facts.from,
            facts.subject,
            facts.text,
            facts.attachments as i64,
            ignored,
            message.raw,
        ])?;
    Ok(outcome)
}

/// The request that a message belongs to: by what it answers, else by the tag in its subject.
fn request_answered(transaction: &Transaction<'_>, facts: &Facts) -> rusqlite::Result<Option<i64>> {
    let mut by_id = transaction.prepare_cached(
        "SELECT request_id FROM messages WHERE message_id = ?1 AND request_id IS NOT NULL ORDER BY id LIMIT 1",
    )?;
    for id in &facts.answers {
        if let Some(request) = by_id.query_row([id], |row| row.get(0)).optional()? {
            return Ok(Some(request));
        }
    }
    let Some(tagged) = facts.tagged_request else {
        return Ok(None);
    };
    transaction.query_row("SELECT id FROM requests WHERE id = ?1", [tagged], |row| row.get(0)).optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_comes_again_is_a_duplicate() {
        let mut desk = desk();
        let first = desk.import([message("k1", json!({"subject": "Help", "from": "a@x"}))], true).unwrap();
        assert_eq!(first[0].outcome, Outcome::Created(1));
        let again = desk.import([message("k1", json!({"subject": "Help", "from": "a@x"}))], true).unwrap();
        assert_eq!(again[0].outcome, Outcome::Duplicate);
        assert_eq!(results(&again), json!({"results": {"k1": "duplicate"}}));
        assert_eq!(desk.requests().unwrap().len(), 1);
    }

    #[test]
    fn a_message_twice_in_one_batch_makes_one_request() {
        let mut desk = desk();
        let imported = desk.import([message("k1", json!({})), message("k1", json!({}))], true).unwrap();
        assert_eq!(imported[1].outcome, Outcome::Duplicate);
        assert_eq!(desk.requests().unwrap().len(), 1);
    }

    #[test]
    fn a_batch_that_fails_in_the_middle_leaves_nothing() {
        let mut desk = desk();
        desk.database
            .execute_batch(
                "CREATE TRIGGER full BEFORE INSERT ON messages WHEN NEW.key = 'k2'
                 BEGIN SELECT RAISE(ABORT, 'disk full'); END",
            )
            .unwrap();
        desk.import([message("k1", json!({})), message("k2", json!({}))], true).unwrap_err();
        assert_eq!((desk.requests().unwrap().len(), desk.known_keys().unwrap()), (0, 0));
        desk.database.execute_batch("DROP TRIGGER full").unwrap();
        let imported = desk.import([message("k1", json!({})), message("k2", json!({}))], true).unwrap();
        assert_eq!(imported.iter().map(|one| one.result()).collect::<Vec<_>>(), ["imported", "imported"]);
    }

    #[test]
    fn an_answer_to_a_sent_reply_goes_into_its_request() {
        let mut desk = desk();
        desk.import([message("k1", json!({"message_id": "<q@x>"}))], true).unwrap();
        desk.record_sent(&Sent { request: 1, message_id: "<r@desk>", from: "desk@x", subject: "Re", text: "hm" })
            .unwrap();
        let answers = [
            message("k2", json!({"in_reply_to": "<r@desk>"})),
            message("k3", json!({"in_reply_to": ["unknown@y"], "references": ["<q@x>", "<unknown@y>"]})),
            message("k4", tagged("1")),
            message("k5", tagged("99")),
        ];
        let outcomes: Vec<_> = desk.import(answers, true).unwrap().into_iter().map(|one| one.outcome).collect();
        let (same, new) = (Outcome::Appended(1), Outcome::Created(2));
        assert_eq!(outcomes, [same.clone(), same.clone(), same, new], "a tag that names no request makes a new one");
    }

    #[test]
    fn an_ignored_message_is_remembered_but_makes_no_request() {
        let mut desk = desk();
        let bounce = || message("k1", json!({"disposition": {"action": "ignore", "reason": "A bounce."}}));
        let imported = desk.import([bounce()], true).unwrap();
        assert_eq!((imported[0].result(), desk.requests().unwrap().len()), ("refused", 0));
        assert_eq!(desk.import([bounce()], true).unwrap()[0].outcome, Outcome::Duplicate);
    }

    #[test]
    fn with_new_requests_disabled_only_answers_come_in() {
        let mut desk = desk();
        desk.import([message("k1", json!({"message_id": "q@x"}))], true).unwrap();
        let later =
            [message("k2", json!({"in_reply_to": ["q@x"]})), message("k3", json!({"in_reply_to": ["other@y"]}))];
        let results: Vec<_> = desk.import(later, false).unwrap().iter().map(Imported::result).collect();
        assert_eq!((results, desk.requests().unwrap().len()), (vec!["imported", "refused"], 1));
    }

    #[test]
    fn raw_bytes_are_kept_as_they_came() {
        let mut desk = desk();
        let raw = b"Subject: x\r\n\r\n\xff\0\r\n.\r\n";
        desk.import([Incoming { key: "k", raw, facts: json!({}) }], true).unwrap();
        let kept: Vec<u8> = desk.database.query_row("SELECT raw FROM messages", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, raw);
    }

    fn desk() -> Helpdesk {
        Helpdesk::open(Path::new(":memory:")).unwrap()
    }

    fn tagged(request: &str) -> Value {
        json!({"disposition": {"action": "append_to_request",
                               "request_reference": {"request_id": request, "message_ids": []}}})
    }

    fn message(key: &str, facts: Value) -> Incoming<'_> {
        Incoming { key, raw: b"Subject: x\r\n\r\n", facts }
    }
}
