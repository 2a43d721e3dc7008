//! The helpdesk's own data: requests, and the messages in them. A fetched batch is imported in one transaction.
//!
//! Exactly once, from a source that delivers at least once: the key of each message is committed together with what
//! became of it, and only then is the batch settled. Killed in between, the same message comes again and is known.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{
    database::{Database, Row, Transaction, parameters},
    facts::{Facts, Proposal, bare_id},
    failure::Result,
};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS requests (
        id {id},
        subject TEXT NOT NULL,
        requester TEXT NOT NULL,
        created_at TEXT NOT NULL DEFAULT {now_text}
    );
    CREATE TABLE IF NOT EXISTS messages (
        id {id},
        key TEXT UNIQUE,
        request_id BIGINT REFERENCES requests (id),
        direction TEXT NOT NULL CHECK (direction IN ('in', 'out')),
        message_id TEXT,
        sender TEXT NOT NULL,
        subject TEXT NOT NULL,
        text TEXT NOT NULL,
        attachments BIGINT NOT NULL DEFAULT 0,
        ignored_because TEXT,
        raw {bytes},
        at TEXT NOT NULL DEFAULT {now_text}
    );
    CREATE INDEX IF NOT EXISTS messages_by_message_id ON messages (message_id);
    CREATE INDEX IF NOT EXISTS messages_by_request ON messages (request_id);";

/// Cheap to clone.
#[derive(Clone)]
pub struct Helpdesk {
    database: Database,
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
        Self::on(Database::sqlite(path)?)
    }

    pub fn on(database: Database) -> Result<Self> {
        database.create(TABLES)?;
        // Which mailbox it came through, where there are several.
        database.add_column("requests", "mailbox", "BIGINT")?;
        // Where an answer to a message goes when not to the requester; between commas.
        database.add_column("messages", "reply_to", "TEXT")?;
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
        self.import_from(None, batch, new_requests)
    }

    /// As [`Self::import`], for a helpdesk with several mailboxes.
    pub fn import_from<'batch>(
        &self,
        mailbox: Option<i64>,
        batch: impl IntoIterator<Item = Incoming<'batch>>,
        new_requests: bool,
    ) -> Result<Vec<Imported>> {
        self.database.transaction(|transaction| {
            batch.into_iter().map(|message| import_one(transaction, mailbox, &message, new_requests)).collect()
        })
    }

    /// Keeps what was sent in a request, so that the answer to it is recognised. The same message twice is kept once.
    pub fn record_sent(&self, sent: &Sent<'_>) -> Result<()> {
        let message_id = bare_id(sent.message_id);
        self.database.execute(
            "INSERT INTO messages (request_id, direction, message_id, sender, subject, text)
             SELECT ?1, 'out', ?2, ?3, ?4, ?5
             WHERE NOT EXISTS (SELECT 1 FROM messages WHERE request_id = ?1 AND direction = 'out' AND message_id = ?2)",
            parameters![sent.request, message_id.as_str(), sent.from, sent.subject, sent.text],
        )?;
        Ok(())
    }

    /// Newest first.
    pub fn requests(&self) -> Result<Vec<Value>> {
        self.requests_page(None, i64::MAX, i64::MAX)
    }

    /// At most `limit` requests with a number below `before`, newest first; of one mailbox or of all.
    pub fn requests_page(&self, mailbox: Option<i64>, before: i64, limit: i64) -> Result<Vec<Value>> {
        let rows = self.database.query(
            "SELECT id, subject, requester, created_at, mailbox,
                    (SELECT count(*) FROM messages WHERE request_id = requests.id)
             FROM requests WHERE id < ?1 AND (?2 IS NULL OR mailbox = ?2) ORDER BY id DESC LIMIT ?3",
            parameters![before, mailbox, limit],
        )?;
        let request = |row: &Row| {
            let mut request = json!({
                "id": row.integer(0)?,
                "subject": row.text(1)?,
                "requester": row.text(2)?,
                "created_at": row.text(3)?,
                "messages": row.integer(5)?,
            });
            if let Some(mailbox) = row.optional_integer(4)? {
                request["mailbox"] = mailbox.into();
            }
            Ok(request)
        };
        rows.iter().map(request).collect()
    }

    /// One request with its messages, oldest first.
    pub fn request(&self, id: i64) -> Result<Option<Value>> {
        let sql = "SELECT subject, requester, created_at, mailbox FROM requests WHERE id = ?1";
        let Some(row) = self.database.first(sql, parameters![id])? else {
            return Ok(None);
        };
        let rows = self.database.query(
            "SELECT direction, message_id, sender, subject, text, attachments, length(raw), at, key, id, reply_to
             FROM messages WHERE request_id = ?1 ORDER BY id",
            parameters![id],
        )?;
        let message = |row: &Row| {
            Ok(json!({
                "direction": row.text(0)?,
                "message_id": row.optional_text(1)?,
                "from": row.text(2)?,
                "subject": row.text(3)?,
                "text": row.text(4)?,
                "attachments": row.integer(5)?,
                "raw_bytes": row.optional_integer(6)?,
                "at": row.text(7)?,
                "key": row.optional_text(8)?,
                "id": row.integer(9)?,
                "reply_to": row.optional_text(10)?.map(|list| list.split(',').map(str::to_owned).collect::<Vec<_>>()),
            }))
        };
        let messages = rows.iter().map(message).collect::<Result<Vec<_>>>()?;
        let newest = messages.iter().rev().find(|message| message["direction"] == "in");
        let answer_to = newest.map(|message| message["reply_to"].clone()).filter(Value::is_array);
        let mut request = json!({
            "id": id, "subject": row.text(0)?, "requester": row.text(1)?, "created_at": row.text(2)?,
            "answer_to": answer_to.unwrap_or_else(|| json!([row.text(1).unwrap_or_default()])),
            "messages": messages,
        });
        if let Some(mailbox) = row.optional_integer(3)? {
            request["mailbox"] = mailbox.into();
        }
        Ok(Some(request))
    }

    /// The raw bytes of one message as it came; `None` for one that was sent, or is not there.
    pub fn raw(&self, message: i64) -> Result<Option<Vec<u8>>> {
        let row = self.database.first("SELECT raw FROM messages WHERE id = ?1", parameters![message])?;
        Ok(row.as_ref().map(|row| row.optional_bytes(0)).transpose()?.flatten().map(<[u8]>::to_vec))
    }

    /// How many messages came in, ignored ones included.
    pub fn known_keys(&self) -> Result<i64> {
        self.database.transaction(|all| all.number("SELECT count(*) FROM messages WHERE key IS NOT NULL", &[]))
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

fn import_one(
    transaction: &mut dyn Transaction,
    mailbox: Option<i64>,
    message: &Incoming<'_>,
    new_requests: bool,
) -> Result<Imported> {
    let facts = Facts::read(&message.facts);
    let known = transaction.first("SELECT 1 FROM messages WHERE key = ?1", parameters![message.key])?.is_some();
    let outcome = if known { Outcome::Duplicate } else { insert(transaction, mailbox, message, &facts, new_requests)? };
    Ok(Imported { key: message.key.to_owned(), from: facts.from, subject: facts.subject, outcome })
}

fn insert(
    transaction: &mut dyn Transaction,
    mailbox: Option<i64>,
    message: &Incoming<'_>,
    facts: &Facts,
    new_requests: bool,
) -> Result<Outcome> {
    let request = request_answered(transaction, facts)?;
    let outcome = match (&facts.proposal, request) {
        (Proposal::Ignore(reason), _) => Outcome::Ignored(reason.clone()),
        (_, Some(request)) => Outcome::Appended(request),
        // The library saw a reference; that nothing here carries that id, only the helpdesk can know.
        (_, None) if !new_requests => Outcome::Ignored(UNKNOWN_REFERENCE.to_owned()),
        (_, None) => Outcome::Created(transaction.number(
            "INSERT INTO requests (subject, requester, mailbox) VALUES (?1, ?2, ?3) RETURNING id",
            parameters![facts.subject.as_str(), facts.reply_to.first().unwrap_or(&facts.from).as_str(), mailbox],
        )?),
    };
    let (request, ignored) = match &outcome {
        Outcome::Created(request) | Outcome::Appended(request) => (Some(*request), None),
        Outcome::Ignored(reason) => (None, Some(reason.as_str())),
        Outcome::Duplicate => (None, None),
    };
    // A quoted local part may hold a comma; such an address is answered through From.
    let plain = facts.reply_to.iter().filter(|address| !address.contains(',')).map(String::as_str);
    let reply_to = Some(plain.collect::<Vec<_>>().join(",")).filter(|list| !list.is_empty());
    transaction.execute(
        "INSERT INTO messages
             (key, request_id, direction, message_id, sender, subject, text, attachments, ignored_because, raw, reply_to)
         VALUES (?1, ?2, 'in', ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        parameters![
            message.key,
            request,
            facts.message_id.as_deref(),
            facts.from.as_str(),
            facts.subject.as_str(),
            facts.text.as_str(),
            facts.attachments as i64,
            ignored,
            message.raw,
            reply_to.as_deref(),
        ],
    )?;
    Ok(outcome)
}

/// The request that a message belongs to: by what it answers, else by the tag in its subject.
fn request_answered(transaction: &mut dyn Transaction, facts: &Facts) -> Result<Option<i64>> {
    for id in &facts.answers {
        let sql =
            "SELECT request_id FROM messages WHERE message_id = ?1 AND request_id IS NOT NULL ORDER BY id LIMIT 1";
        if let Some(row) = transaction.first(sql, parameters![id.as_str()])? {
            return row.optional_integer(0);
        }
    }
    let Some(tagged) = facts.tagged_request else {
        return Ok(None);
    };
    let row = transaction.first("SELECT id FROM requests WHERE id = ?1", parameters![tagged])?;
    row.map(|row| row.integer(0)).transpose()
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
            .create(
                "CREATE TRIGGER full BEFORE INSERT ON messages WHEN NEW.key = 'k2'
                 BEGIN SELECT RAISE(ABORT, 'disk full'); END",
            )
            .unwrap();
        desk.import([message("k1", json!({})), message("k2", json!({}))], true).unwrap_err();
        assert_eq!((desk.requests().unwrap().len(), desk.known_keys().unwrap()), (0, 0));
        desk.database.create("DROP TRIGGER full").unwrap();
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
    fn fault_07_the_request_says_whom_an_answer_goes_to() {
        let mut desk = desk();
        let shop = json!({"from": [{"address": "noreply@shop.test"}],
                          "reply_to": [{"address": "cust@real.test"}, {"address": "cc@real.test"}], "message_id": "q@x"});
        desk.import([message("k1", shop)], true).unwrap();
        let request = desk.request(1).unwrap().unwrap();
        assert_eq!(request["answer_to"], json!(["cust@real.test", "cc@real.test"]));
        assert_eq!(
            (&request["requester"], &request["messages"][0]["from"]),
            (&json!("cust@real.test"), &json!("noreply@shop.test"))
        );
        let later = json!({"from": [{"address": "cust@real.test"}], "in_reply_to": ["q@x"]});
        desk.import([message("k2", later)], true).unwrap();
        assert_eq!(desk.request(1).unwrap().unwrap()["answer_to"], json!(["cust@real.test"]));
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
        assert_eq!(desk.raw(1).unwrap().unwrap(), raw);
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
