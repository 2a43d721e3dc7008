//! A small helpdesk in a process of its own: files every message under its key before it settles it, and writes down what
//! it was handed and what it said.

use std::{
    env,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use oauth_mail_core::{
    Kind,
    hooks::{Handle, Plugin},
    log::Logger,
    seam::{self, control},
};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Map, Value, json};

use super::PLANT;
use crate::{
    Error, Result,
    fixture::{STORE_KEY, parse},
    mailbox::{self, Mail, hash},
};

/// The order, as JSON: `store`, `desk`, `settings`, `plan`, `max_messages`, `verdicts`, `again`, `skip_seconds`, `sends`,
/// `deadline_ms`, and `stall_deadline_ms` while something is wrong.
pub const ORDER: &str = "OAUTH_MAIL_SWEEP_ORDER";

/// How often a host tries while something fails, and how often once nothing does.
const TRIES: usize = 4;

/// Does what the order says; the report, for standard output.
pub fn run() -> Result<Value> {
    let order = parse(&env::var(ORDER).unwrap_or_default());
    control::skip(Duration::from_secs(order["skip_seconds"].as_u64().unwrap_or(0)));
    let disturbance = order["plan"].as_str().unwrap_or_default();
    // A connection may fail more often than a host would try in one go.
    let (disturbed, tries) = match disturbance.split(':').next() {
        Some("fail" | "fail-from") => (true, TRIES),
        Some("cut" | "relay" | "stall" | "cancel") => (true, 1),
        _ => (false, 1),
    };
    disturb(disturbance);
    let desk = Desk::open(order["desk"].as_str().unwrap_or_default())?;
    let mut host = Host {
        order: &order,
        desk,
        errors: Vec::new(),
        slowest: Duration::ZERO,
        late: Duration::ZERO,
        is_impatient: disturbance.starts_with("cancel:"),
        calm: !disturbed,
    };
    let mut opened = None;
    let mut first = false;
    for _ in 0..tries {
        first = host.work(&mut opened);
        if first {
            break;
        }
    }
    let seen = control::seen();
    control::heal();
    host.calm = true;
    if disturbed {
        // In the same process, with the same handle: whatever failed must have left no trace in memory.
        for _ in 0..TRIES {
            first = host.work(&mut opened);
            if first {
                break;
            }
            control::skip(Duration::from_secs(1_000));
        }
        // What was handed out and could not be settled comes again in the next round.
        first = first && (host.work(&mut opened) || host.work(&mut opened));
    }
    drop(opened);
    let mut again = Value::Null;
    if order["again"] == json!(true) {
        let delivered = host.desk.count("delivery")?;
        // A byte at which a relay cuts may also be one of this run.
        let ended = host.work(&mut None) || disturbed && host.work(&mut None);
        again = json!({
            "ended": ended,
            "delivered": host.desk.count("delivery")? - delivered,
        });
    }
    Ok(json!({
        "ended": first,
        "errors": host.errors,
        "again": again,
        "steps": seen.steps,
        "received": seen.received,
        "sent": seen.sent,
        "slowest_ms": host.slowest.as_millis() as u64,
        "late_ms": host.late.as_millis() as u64,
    }))
}

/// `abort:STEP`, `fail:STEP`, `fail-from:STEP`, `stall:STEP`, `cancel:STEP`, `cut:HOW:WAY:BYTES`.
fn disturb(text: &str) {
    let words: Vec<_> = text.split(':').collect();
    let at = words.last().and_then(|number| number.parse().ok()).unwrap_or(0);
    match words[..] {
        ["abort", _] => control::set(control::Plan::Abort(at)),
        ["fail", _] => control::set(control::Plan::Fail(at)),
        ["fail-from", _] => control::set(control::Plan::FailFrom(at)),
        // The host loses patience with the second.
        ["stall" | "cancel", _] => control::set(control::Plan::Stall(at)),
        ["cut", how, way, _] => {
            let how = match how {
                "fin" => control::How::Fin,
                "reset" => control::How::Reset,
                _ => control::How::Stall,
            };
            let way = if way == "received" { seam::Way::Received } else { seam::Way::Sent };
            control::cut(control::Cut { way, after: at, how });
        }
        _ => control::set(control::Plan::Watch),
    }
}

struct Host<'a> {
    order: &'a Value,
    desk: Desk,
    errors: Vec<Value>,
    slowest: Duration,
    /// Beyond its deadline, or after it was cancelled: the call that was the latest.
    late: Duration,
    /// Cancels each call after a while.
    is_impatient: bool,
    /// Nothing is wrong, or not any more.
    calm: bool,
}

/// Longer than any call takes when nothing is wrong.
const PATIENCE: Duration = Duration::from_millis(700);

impl Host<'_> {
    /// To the end, or to the first error, which is noted.
    fn work(&mut self, opened: &mut Option<(Plugin, Handle)>) -> bool {
        match self.try_work(opened) {
            Ok(()) => true,
            Err(error) => {
                self.errors.push(json!({"kind": error.kind().name(), "message": error.message()}));
                false
            }
        }
    }

    fn try_work(&mut self, opened: &mut Option<(Plugin, Handle)>) -> oauth_mail_core::Result<()> {
        if opened.is_none() {
            let config = json!({
                "store": format!("sqlite:{}", self.order["store"].as_str().unwrap_or_default()),
                "key": {"value": STORE_KEY},
            });
            let plugin = Plugin::new(&config.to_string(), Logger::silent())?;
            let handle = plugin.open(&self.order["settings"].to_string())?;
            *opened = Some((plugin, handle));
        }
        let Some((_, handle)) = opened else { return Ok(()) };
        if let Some(redirect) = self.order["redirect"].as_str() {
            self.consent(handle, redirect)?;
        }
        match self.order["sends"].as_array() {
            Some(sends) => sends.iter().try_for_each(|send| self.send(handle, send)),
            None => self.fetch(handle),
        }
    }

    /// One call of a hook, on time or not.
    fn timed<T>(
        &mut self,
        handle: &Handle,
        call: impl FnOnce(&Handle) -> oauth_mail_core::Result<T>,
    ) -> oauth_mail_core::Result<T> {
        let deadline = Duration::from_millis(self.deadline());
        let begun = seam::instant();
        let (is_back, goes_back) = mpsc::channel::<()>();
        let (result, end) = thread::scope(|scope| {
            let canceller = (self.is_impatient && !self.calm).then(|| {
                scope.spawn(move || match goes_back.recv_timeout(PATIENCE) {
                    Err(RecvTimeoutError::Timeout) => {
                        let at = seam::instant();
                        handle.cancel();
                        Some(at)
                    }
                    _ => None,
                })
            });
            let result = call(handle);
            let end = seam::instant();
            drop(is_back);
            let cancelled = canceller.and_then(|thread| thread.join().ok().flatten());
            self.late = self.late.max(end.saturating_duration_since(cancelled.unwrap_or(begun + deadline)));
            (result, end)
        });
        self.slowest = self.slowest.max(end - begun);
        result
    }

    fn deadline(&self) -> u64 {
        let stalling = self.order["stall_deadline_ms"].as_u64().filter(|_| !self.calm);
        stalling.or(self.order["deadline_ms"].as_u64()).unwrap_or(30_000)
    }

    fn consent(&mut self, handle: &Handle, redirect: &str) -> oauth_mail_core::Result<()> {
        let deadline = self.deadline();
        let ask = |request: Value| move |handle: &Handle| handle.authenticate(&request.to_string());
        let status = self.timed(handle, ask(json!({"action": "status", "deadline_ms": deadline})))?;
        if parse(&status)["state"] != "authorized" {
            let request = json!({"action": "complete", "redirect": redirect, "deadline_ms": deadline});
            self.timed(handle, ask(request))?;
        }
        Ok(())
    }

    fn fetch(&mut self, handle: &Handle) -> oauth_mail_core::Result<()> {
        let mut rounds = 0;
        loop {
            let request = json!({"max_messages": self.order["max_messages"], "deadline_ms": self.deadline()});
            let mail = self.timed(handle, |handle| mailbox::batch(handle, &request))?;
            let more = mail.more;
            let retried = self.take(handle, &mail)?;
            rounds += usize::from(!more);
            // What is to be tried again comes in the next round.
            if !more && (!retried || rounds > 4) {
                return if self.order["verdicts"] == "failing" { self.read_aside(handle) } else { Ok(()) };
            }
        }
    }

    /// Files what the library put aside, from the bytes that it kept.
    fn read_aside(&self, handle: &Handle) -> oauth_mail_core::Result<()> {
        let list = parse(&handle.fetch_batch(r#"{"quarantine":"list"}"#)?.header);
        for aside in list["quarantine"].as_array().into_iter().flatten() {
            let batch = handle.fetch_batch(&json!({"quarantine": aside["key"]}).to_string())?;
            for message in batch.messages {
                let facts = parse(&message.facts);
                self.desk.file(&mailbox::Message { key: message.key, raw: message.raw, facts }, "aside");
            }
        }
        // What was begun of a message put aside is brought to its end by the next settlement, whatever it is of.
        match self.desk.any_settled() {
            Some(key) => handle.settle_batch(&json!({"results": {key: "duplicate"}}).to_string()).map(drop),
            None => Ok(()),
        }
    }

    /// Files, then settles. Did anything have to be tried again?
    fn take(&mut self, handle: &Handle, mail: &Mail) -> oauth_mail_core::Result<bool> {
        let plant = env::var(PLANT).unwrap_or_default();
        let (mut results, mut retried) = (Map::new(), false);
        for message in &mail.messages {
            let verdict = self.desk.deliver(message, self.order["verdicts"].as_str().unwrap_or_default());
            retried |= ["retry", "failed"].contains(&verdict);
            results.insert(message.key.clone(), json!(verdict));
        }
        let request = json!({"results": results, "deadline_ms": self.deadline()}).to_string();
        if plant == "settle-before-import" {
            self.timed(handle, |handle| handle.settle_batch(&request))?;
        }
        for message in &mail.messages {
            seam::step("host.commit").map_err(|_| ours())?;
            self.desk.file(message, results[&message.key].as_str().unwrap_or_default());
        }
        let settled = self.timed(handle, |handle| handle.settle_batch(&request));
        if plant != "swallow-errors" {
            settled?;
        }
        seam::step("host.settled").map_err(|_| ours())?;
        for (key, verdict) in &results {
            self.desk.settled(key, verdict.as_str().unwrap_or_default());
        }
        Ok(retried)
    }

    fn send(&mut self, handle: &Handle, send: &Value) -> oauth_mail_core::Result<()> {
        let key = send["request"]["idempotency_key"].as_str().unwrap_or_default().to_owned();
        let mut request = send["request"].clone();
        request["deadline_ms"] = json!(self.deadline());
        let raw = send["raw"].as_str().unwrap_or_default().as_bytes();
        let answer = parse(&self.timed(handle, |handle| handle.send_message(&request.to_string(), raw))?);
        let outcome = answer["outcome"].as_str().unwrap_or_default();
        seam::step("host.outcome").map_err(|_| ours())?;
        self.desk.outcome(&key, outcome);
        match outcome {
            "retry" => Err(oauth_mail_core::Error::new(Kind::Transient, format!("nothing was accepted: {answer}"))),
            _ => Ok(()),
        }
    }
}

fn ours() -> oauth_mail_core::Error {
    oauth_mail_core::Error::new(Kind::Transient, "The host's own database failed.")
}

/// The host's database. Every function is one transaction.
pub struct Desk(Connection);

impl Desk {
    pub fn open(path: &str) -> Result<Self> {
        let connection = Connection::open(path).map_err(Error::doing(path))?;
        // Kills are what it must survive, not power losses.
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
                 CREATE TABLE IF NOT EXISTS delivery (key TEXT, hash TEXT, settled_before INTEGER);
                 CREATE TABLE IF NOT EXISTS ticket (key TEXT PRIMARY KEY, subject TEXT, hash TEXT, verdict TEXT);
                 CREATE TABLE IF NOT EXISTS settled (key TEXT PRIMARY KEY);
                 CREATE TABLE IF NOT EXISTS retried (key TEXT PRIMARY KEY);
                 CREATE TABLE IF NOT EXISTS outcome (key TEXT, outcome TEXT);",
            )
            .map_err(Error::doing(path))?;
        Ok(Self(connection))
    }

    fn is_in(&self, table: &str, key: &str) -> bool {
        let sql = format!("SELECT 1 FROM {table} WHERE key = ?1");
        self.0.query_row(&sql, [key], |_| Ok(())).optional().is_ok_and(|found| found.is_some())
    }

    fn execute(&self, sql: &str, parameters: impl rusqlite::Params) {
        if let Err(error) = self.0.execute(sql, parameters) {
            panic!("the desk: {error}");
        }
    }

    /// Notes that a message was handed out; what the host is going to say of it.
    fn deliver(&self, message: &mailbox::Message, verdicts: &str) -> &'static str {
        let settled = self.is_in("settled", &message.key);
        self.execute("INSERT INTO delivery VALUES (?1, ?2, ?3)", params![message.key, hash(&message.raw), settled]);
        let subject = message.facts["subject"].as_str().unwrap_or_default();
        let number: usize = subject.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        if self.is_in("ticket", &message.key) {
            // As it was decided the first time.
            let decided = self.decided(&message.key);
            return if decided == "imported" { "duplicate" } else { "refused" };
        }
        match (verdicts, number % 3) {
            ("refused", _) | ("mixed", 1) => "refused",
            ("failing", 2) => "failed",
            ("mixed", 2) if !self.is_in("retried", &message.key) => "retry",
            _ => "imported",
        }
    }

    fn decided(&self, key: &str) -> String {
        self.0.query_row("SELECT verdict FROM ticket WHERE key = ?1", [key], |row| row.get(0)).unwrap_or_default()
    }

    fn file(&self, message: &mailbox::Message, verdict: &str) {
        let subject = message.facts["subject"].as_str().unwrap_or_default();
        match verdict {
            "retry" => self.execute("INSERT OR IGNORE INTO retried VALUES (?1)", [&message.key]),
            "failed" => {}
            _ => self.execute(
                "INSERT OR IGNORE INTO ticket VALUES (?1, ?2, ?3, ?4)",
                params![message.key, subject, hash(&message.raw), verdict],
            ),
        }
    }

    fn any_settled(&self) -> Option<String> {
        self.0.query_row("SELECT key FROM settled LIMIT 1", [], |row| row.get(0)).ok()
    }

    fn settled(&self, key: &str, verdict: &str) {
        if !["retry", "failed"].contains(&verdict) {
            self.execute("INSERT OR IGNORE INTO settled VALUES (?1)", [key]);
        }
    }

    fn outcome(&self, key: &str, outcome: &str) {
        self.execute("INSERT INTO outcome VALUES (?1, ?2)", [key, outcome]);
    }

    pub fn count(&self, table: &str) -> Result<i64> {
        let sql = format!("SELECT count(*) FROM {table}");
        self.0.query_row(&sql, [], |row| row.get(0)).map_err(Error::doing(sql))
    }

    /// Handed out after they were settled.
    pub fn doubled(&self) -> Result<i64> {
        let sql = "SELECT count(*) FROM delivery WHERE settled_before";
        self.0.query_row(sql, [], |row| row.get(0)).map_err(Error::doing(sql))
    }

    /// `subject hash verdict` of each ticket, sorted.
    pub fn tickets(&self) -> Result<Vec<String>> {
        self.column("SELECT subject || ' ' || hash || ' ' || verdict FROM ticket ORDER BY 1")
    }

    pub fn subjects(&self) -> Result<Vec<String>> {
        self.column("SELECT DISTINCT subject FROM ticket")
    }

    /// What the host was told last of each key, `key outcome`.
    pub fn outcomes(&self) -> Result<Vec<(String, String)>> {
        let sql = "SELECT key, outcome FROM outcome GROUP BY key HAVING rowid = max(rowid) ORDER BY key";
        let mut query = self.0.prepare(sql).map_err(Error::doing(sql))?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(Error::doing(sql))?;
        rows.collect::<Result<_, _>>().map_err(Error::doing(sql))
    }

    fn column(&self, sql: &str) -> Result<Vec<String>> {
        let mut query = self.0.prepare(sql).map_err(Error::doing(sql))?;
        let rows = query.query_map([], |row| row.get(0)).map_err(Error::doing(sql))?;
        rows.collect::<Result<_, _>>().map_err(Error::doing(sql))
    }
}
