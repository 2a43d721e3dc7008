//! When each mailbox is due, which node is at it, and how it went.
//!
//! A lease is `lease_owner` until `lease_until`: one node at a time. It is renewed while the round runs; a node that died
//! loses it after [`LEASE_SECONDS`]. `next_run` stays as it was until the round has ended, so the mailbox is then due at
//! once. `now` is the time of [`Storage::now`], the same for all nodes.

use serde_json::{Value, json};

use super::Storage;
use crate::{
    database::{Row, parameters},
    failure::Result,
    host::Direction,
};

/// Above it, a node is taken for dead.
pub const LEASE_SECONDS: i64 = 45;
/// A mailbox stays with the node that fetched it last, which has a connection open, unless it is so late.
const STICKY_SECONDS: i64 = 5;
/// A round longer than this, or a failure, puts a mailbox among the troubled.
pub const SLOW_SECONDS: i64 = 30;
/// The result of a round that found the mailbox with another node.
pub const ELSEWHERE: &str = "elsewhere";

/// A mailbox that waits for its round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub mailbox: i64,
    pub next_run: i64,
    /// Rounds in a row that failed.
    pub failures: i64,
    /// It failed or was slow.
    pub troubled: bool,
    /// Somebody asked for this round before its time, which is this.
    pub planned: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub created: i64,
    pub appended: i64,
    pub duplicate: i64,
    pub ignored: i64,
    pub skipped: i64,
    pub quarantined: i64,
}

impl Counts {
    pub fn all(&self) -> [(&'static str, i64); 6] {
        [
            ("created", self.created),
            ("appended", self.appended),
            ("duplicate", self.duplicate),
            ("ignored", self.ignored),
            ("skipped", self.skipped),
            ("quarantined", self.quarantined),
        ]
    }

    pub fn to_json(self) -> Value {
        self.all().into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect()
    }
}

/// The end of a round.
pub struct Finished {
    /// A failure that makes the next ones wait longer; what somebody asked for before its time does not.
    pub counts_as_failure: bool,
    pub started: i64,
    pub ended: i64,
    pub next_run: i64,
    /// `ok`, `more`, `elsewhere`, or the kind of the error.
    pub result: String,
    /// `{"kind","message","remedy","faults"}`
    pub error: Option<Value>,
    pub counts: Counts,
}

/// How a mailbox stands, as far as all nodes know.
#[derive(Clone, Debug)]
pub struct Run {
    pub mailbox: i64,
    pub next_run: i64,
    /// The node at work on it right now.
    pub running_on: Option<String>,
    /// The node that fetched it last.
    pub node: Option<String>,
    pub rounds: i64,
    pub failures: i64,
    pub last_run: Option<i64>,
    pub last_success: Option<i64>,
    pub last_seconds: i64,
    pub result: Option<String>,
    pub error: Option<Value>,
    /// Since the mailbox was created.
    pub totals: Counts,
    pub last_counts: Option<Value>,
    /// As the library tells it; `None`: nothing but `ok` was heard.
    pub health_incoming: Option<Value>,
    pub health_outgoing: Option<Value>,
}

/// When a mailbox is due that is to be fetched at once. During a round a second later: later than what that round was due
/// at, so that its end leaves it.
pub const AT_ONCE: &str = "{now} + CASE WHEN lease_until > {now} THEN 1 ELSE 0 END";

const COLUMNS: &str = "mailbox, next_run, lease_owner, lease_until, node, rounds, failures, last_run, last_success, \
                       last_seconds, result, error, created, appended, duplicate, ignored, skipped, quarantined, \
                       last_counts, health_incoming, health_outgoing";

impl Storage {
    /// Those that wait longest first; at most `most`, and of the troubled at most `troubled`.
    pub fn due(&self, now: i64, node: &str, most: usize, troubled: usize) -> Result<Vec<Due>> {
        let is_troubled = format!("(failures > 0 OR last_seconds > {SLOW_SECONDS})");
        let mut due = Vec::new();
        for (condition, limit, is_troubled) in
            [(format!("NOT {is_troubled}"), most, false), (is_troubled.clone(), troubled, true)]
        {
            if limit == 0 {
                continue;
            }
            let rows = self.database.query(
                &format!(
                    "SELECT mailbox, next_run, failures FROM runs JOIN mailboxes ON id = mailbox
                     WHERE next_run <= ?1 AND lease_until <= ?1 AND paused = 0 AND incoming IS NOT NULL AND {condition}
                       AND (node IS NULL OR node = ?2 OR next_run <= ?1 - {STICKY_SECONDS})
                     ORDER BY next_run, mailbox LIMIT ?3"
                ),
                parameters![now, node, limit as i64],
            )?;
            for row in &rows {
                due.push(Due {
                    mailbox: row.integer(0)?,
                    next_run: row.integer(1)?,
                    failures: row.integer(2)?,
                    troubled: is_troubled,
                    planned: None,
                });
            }
        }
        due.sort_by_key(|due| (due.next_run, due.mailbox));
        due.truncate(most);
        Ok(due)
    }

    /// `false`: another node has it, or it is gone.
    pub fn claim(&self, now: i64, node: &str, mailbox: i64) -> Result<bool> {
        let changed = self.database.execute(
            "UPDATE runs SET lease_owner = ?2, lease_until = ?3 WHERE mailbox = ?1 AND lease_until <= ?4",
            parameters![mailbox, node, now + LEASE_SECONDS, now],
        )?;
        Ok(changed > 0)
    }

    /// Those that are no longer this node's.
    pub fn renew(&self, now: i64, node: &str, mailboxes: &[i64]) -> Result<Vec<i64>> {
        self.database.transaction(|transaction| {
            let mut lost = Vec::new();
            for &mailbox in mailboxes {
                let changed = transaction.execute(
                    "UPDATE runs SET lease_until = ?3 WHERE mailbox = ?1 AND lease_owner = ?2",
                    parameters![mailbox, node, now + LEASE_SECONDS],
                )?;
                if changed == 0 {
                    lost.push(mailbox);
                }
            }
            Ok(lost)
        })
    }

    /// Gives the lease back without a round.
    pub fn release(&self, node: &str, mailbox: i64) -> Result<()> {
        self.database.execute(
            "UPDATE runs SET lease_owner = NULL, lease_until = 0 WHERE mailbox = ?1 AND lease_owner = ?2",
            parameters![mailbox, node],
        )?;
        Ok(())
    }

    /// Nothing happens when the lease was lost meanwhile. A change of settings during the round keeps its due time.
    pub fn finish(&self, node: &str, mailbox: i64, due: i64, finished: &Finished) -> Result<()> {
        // A mailbox that another node has is neither, and says nothing.
        let success = match (&finished.error, finished.result.as_str()) {
            (Some(_), _) if finished.counts_as_failure => 0,
            (Some(_), _) => 2,
            (None, ELSEWHERE) => -1,
            (None, _) => 1,
        };
        let counts = &finished.counts;
        let error = finished.error.as_ref().map(Value::to_string);
        let last_counts = counts.to_json().to_string();
        self.database.execute(
            "UPDATE runs SET lease_owner = NULL, lease_until = 0, node = CASE ?6 WHEN -1 THEN node ELSE ?2 END,
                 next_run = CASE WHEN next_run > ?15 AND next_run <= ?4 + 1 THEN next_run ELSE ?3 END,
                 last_run = CASE ?6 WHEN -1 THEN last_run ELSE ?4 END,
                 last_seconds = CASE ?6 WHEN -1 THEN last_seconds ELSE ?4 - ?5 END,
                 rounds = CASE ?6 WHEN -1 THEN rounds ELSE rounds + 1 END,
                 last_success = CASE WHEN ?6 = 1 THEN ?4 ELSE last_success END,
                 failures = CASE ?6 WHEN 1 THEN 0 WHEN 0 THEN failures + 1 ELSE failures END,
                 result = CASE ?6 WHEN -1 THEN result ELSE ?7 END,
                 error = CASE ?6 WHEN -1 THEN error ELSE ?8 END,
                 last_counts = CASE ?6 WHEN -1 THEN last_counts ELSE ?16 END,
                 created = created + ?9, appended = appended + ?10, duplicate = duplicate + ?11,
                 ignored = ignored + ?12, skipped = skipped + ?13, quarantined = quarantined + ?14
             WHERE mailbox = ?1 AND lease_owner = ?2",
            parameters![
                mailbox,
                node,
                finished.next_run,
                finished.ended,
                finished.started,
                success,
                finished.result.as_str(),
                error.as_deref(),
                counts.created,
                counts.appended,
                counts.duplicate,
                counts.ignored,
                counts.skipped,
                counts.quarantined,
                due,
                last_counts.as_str(),
            ],
        )?;
        Ok(())
    }

    /// The next tick of any node takes it.
    pub fn set_due(&self, mailbox: i64) -> Result<()> {
        let sql = format!("UPDATE runs SET next_run = {AT_ONCE}, failures = 0 WHERE mailbox = ?1");
        self.database.execute(&sql, parameters![mailbox])?;
        Ok(())
    }

    /// After a pause of the whole host: those that are late come one after the other, `per_second` of them, within
    /// `most` seconds.
    pub fn spread_overdue(&self, now: i64, per_second: i64, most: i64) -> Result<()> {
        self.database.transaction(|transaction| {
            let late = transaction.query(
                "SELECT mailbox FROM runs WHERE next_run < ?1 - 60 AND lease_until <= ?1 ORDER BY next_run, mailbox",
                parameters![now],
            )?;
            let seconds = (late.len() as i64 / per_second.max(1)).min(most);
            for (number, row) in late.iter().enumerate() {
                let offset = number as i64 * seconds / late.len().max(1) as i64;
                transaction.execute(
                    "UPDATE runs SET next_run = ?2 WHERE mailbox = ?1",
                    parameters![row.integer(0)?, now + offset],
                )?;
            }
            Ok(())
        })
    }

    pub fn run(&self, mailbox: i64) -> Result<Option<Run>> {
        let now = self.now()?;
        let sql = format!("SELECT {COLUMNS} FROM runs WHERE mailbox = ?1");
        self.database.first(&sql, parameters![mailbox])?.map(|row| read(&row, now)).transpose()
    }

    pub fn runs(&self) -> Result<Vec<Run>> {
        let now = self.now()?;
        let rows = self.database.query(&format!("SELECT {COLUMNS} FROM runs ORDER BY mailbox"), &[])?;
        rows.iter().map(|row| read(row, now)).collect()
    }

    /// As the library's callback told it.
    pub fn set_health(&self, mailbox: i64, direction: Direction, health: &Value) -> Result<()> {
        let column = match direction {
            Direction::Incoming => "health_incoming",
            Direction::Outgoing => "health_outgoing",
        };
        let sql = format!("UPDATE runs SET {column} = ?2 WHERE mailbox = ?1 AND ({column} IS NULL OR {column} <> ?2)");
        self.database.execute(&sql, parameters![mailbox, health.to_string().as_str()])?;
        Ok(())
    }

    /// Seconds by which the mailbox that waits longest is late.
    pub fn lag(&self, now: i64) -> Result<i64> {
        let row = self.database.first(
            "SELECT min(next_run) FROM runs JOIN mailboxes ON id = mailbox
             WHERE lease_until <= ?1 AND paused = 0 AND incoming IS NOT NULL",
            parameters![now],
        )?;
        let earliest = row.map(|row| row.optional_integer(0)).transpose()?.flatten();
        Ok(earliest.map_or(0, |earliest| (now - earliest).max(0)))
    }

    /// The sealed transcript that a node left.
    pub fn transcript(&self, mailbox: i64) -> Result<String> {
        let row = self.database.first("SELECT transcript FROM runs WHERE mailbox = ?1", parameters![mailbox])?;
        let Some(sealed) = row.as_ref().map(|row| row.optional_bytes(0)).transpose()?.flatten() else {
            return Ok(String::new());
        };
        let text = self.seal.open(&transcript_place(mailbox), sealed)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    pub fn set_transcript(&self, mailbox: i64, text: &str) -> Result<()> {
        let sealed = self.seal.seal(&transcript_place(mailbox), text.as_bytes())?;
        let sql = "UPDATE runs SET transcript = ?2 WHERE mailbox = ?1";
        self.database.execute(sql, parameters![mailbox, sealed.as_slice()])?;
        Ok(())
    }
}

fn transcript_place(mailbox: i64) -> String {
    format!("The transcript of mailbox {mailbox}")
}

fn read(row: &Row, now: i64) -> Result<Run> {
    let document = |column: usize| -> Result<Option<Value>> {
        Ok(row.optional_text(column)?.and_then(|text| serde_json::from_str(&text).ok()))
    };
    let counts = |first: usize| -> Result<Counts> {
        Ok(Counts {
            created: row.integer(first)?,
            appended: row.integer(first + 1)?,
            duplicate: row.integer(first + 2)?,
            ignored: row.integer(first + 3)?,
            skipped: row.integer(first + 4)?,
            quarantined: row.integer(first + 5)?,
        })
    };
    Ok(Run {
        mailbox: row.integer(0)?,
        next_run: row.integer(1)?,
        running_on: row.optional_text(2)?.filter(|_| row.integer(3).is_ok_and(|until| until > now)),
        node: row.optional_text(4)?,
        rounds: row.integer(5)?,
        failures: row.integer(6)?,
        last_run: row.optional_integer(7)?,
        last_success: row.optional_integer(8)?,
        last_seconds: row.integer(9)?,
        result: row.optional_text(10)?,
        error: document(11)?,
        totals: counts(12)?,
        last_counts: document(18)?,
        health_incoming: document(19)?,
        health_outgoing: document(20)?,
    })
}
