//! The mailboxes at work: accounts of the library, opened when they are needed, anew after a change of settings, and closed
//! with their mailbox. What the pages ask for is here; every call blocks.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use oauth_mail_abi::{Account, Error, Kind, Library, Plugin};
use serde_json::{Value, json};

use super::{
    ears::Ears,
    fetch::{self, Round},
    log::Log,
    metrics::Metrics,
    pace::End,
    queue::Queue,
    storage::{Due, Mailbox, Run, Storage},
};
use crate::{
    cli::{self, doctor, requests},
    failure::{Failure, Result},
    host::Direction,
};

/// Accounts that are kept open, with a thread and a connection each; beyond it the one that rested longest is closed.
const OPEN_MAX: usize = 400;
/// Of a call that a person waits for.
const PATIENCE_MS: u64 = 60_000;

pub struct Mailboxes {
    pub storage: Storage,
    pub queue: Queue,
    plugin: Plugin,
    library: Library,
    ears: Arc<Ears>,
    /// The library takes our name of a mailbox; older ones name it by its username alone.
    takes_label: bool,
    log: Log,
    metrics: Arc<Metrics>,
    open: Mutex<HashMap<(i64, Direction), Open>>,
}

/// With it, settings may carry a `label`.
const LABEL_EXTENSION: &str = "oauth-mail/label/1";

struct Open {
    version: i64,
    account: Arc<Account>,
    used: Instant,
}

impl Mailboxes {
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// `config`: what the library's plugin is made from.
    pub fn start(
        library: Library,
        config: &Value,
        storage: Storage,
        queue: Queue,
        metrics: Arc<Metrics>,
        log: Log,
    ) -> Result<Self> {
        let ears = Arc::new(Ears::new(storage.clone(), log));
        let (lines, health) = (ears.clone(), ears.clone());
        let plugin = library.watched_plugin(
            config,
            move |level, mailbox, line| lines.line(level, mailbox, line),
            move |mailbox, state| health.health(mailbox, state),
        )?;
        let extensions = library.describe()["extensions"].clone();
        let takes_label = extensions.as_array().is_some_and(|all| all.iter().any(|one| one == LABEL_EXTENSION));
        Ok(Self { storage, queue, plugin, library, ears, takes_label, log, metrics, open: Mutex::default() })
    }

    /// Name, version, protocols, grants, and both schemas under `schemas`.
    pub fn describe(&self) -> Value {
        self.library.describe()
    }

    /// Checks `{"incoming":{…}}` or `{"outgoing":{…}}`: all faults at once, with pointer and label. No network.
    pub fn validate(&self, settings: &Value) -> Result<(), Error> {
        self.plugin.open(settings).map(|account| account.close())
    }

    /// As the library's hook: status, start, complete, poll, revoke, diagnose. After a consent the mailbox is due at once.
    pub fn authenticate(&self, id: i64, direction: Direction, request: &Value) -> Result<Value> {
        let answer = self.call(id, direction, |account| Ok(account.authenticate(request)?))?;
        if ["start", "complete", "poll", "revoke"].iter().any(|action| request["action"] == *action) {
            if answer["state"] == "authorized" {
                self.storage.set_due(id)?;
            }
            // Both forms may share the consent.
            self.state(id)?;
        }
        Ok(answer)
    }

    /// Begins a consent; the same window asks for what the other form needs.
    pub fn start_consent(&self, id: i64, direction: Direction) -> Result<Value> {
        let mailbox = self.mailbox(id)?;
        let other = match direction {
            Direction::Incoming => Direction::Outgoing,
            Direction::Outgoing => Direction::Incoming,
        };
        let also: Vec<Value> = mailbox
            .form(other)
            .into_iter()
            .map(|form| {
                let mut settings = json!({ other.name(): form });
                if self.takes_label {
                    settings["label"] = id.to_string().into();
                }
                settings
            })
            .collect();
        let answer = self.call(id, direction, |account| Ok(cli::start_consent(account, &also)?))?;
        if answer["state"] == "authorized" {
            self.storage.set_due(id)?;
        }
        self.state(id)?;
        Ok(answer)
    }

    /// One round now, whether it is due or not; what came.
    pub fn fetch_now(&self, id: i64) -> Result<Value> {
        let now = self.storage.now()?;
        let run = self.storage.run(id)?.ok_or_else(|| unknown(id))?;
        let planned = Some(run.next_run);
        let due =
            Due { mailbox: id, next_run: now.min(run.next_run), failures: run.failures, troubled: false, planned };
        if !self.queue.begin(now, due.clone())? {
            return Err(Failure::other("This mailbox is being fetched right now. Look again in a moment."));
        }
        let round = self.round(&due, &|| false)?;
        match round.end {
            End::Failed(failure) => Err(failure),
            End::Elsewhere(seconds) => Err(Failure::other(format!(
                "Another node has this mailbox open, for at most {seconds} seconds. Try it again then."
            ))),
            End::Done | End::More => Ok(round.counts.to_json()),
        }
    }

    /// A round over a mailbox that was claimed; its end is written down. `stop`: whether it is to end early.
    pub fn round(&self, due: &Due, stop: &dyn Fn() -> bool) -> Result<Round> {
        fetch::run(self, due, stop, &self.metrics, self.log)
    }

    /// One message that says where it comes from; the outcome as the library's hook says it.
    pub fn send_sample(&self, id: i64, to: &str) -> Result<Value> {
        let request = json!({
            "to": [to],
            "subject": "A sample from the helpdesk",
            "text": "This message shows that the helpdesk can send mail through this mailbox.\n",
            "auto_submitted": true,
            "deadline_ms": PATIENCE_MS,
        });
        let answer = self.call(id, Direction::Outgoing, |account| Ok(account.send_message(&request, &[])?))?;
        self.sent(id, &answer);
        Ok(answer)
    }

    /// Answers a request by this mailbox, and keeps what was sent in it. The same text under the same `attempt` is one answer.
    pub fn reply(&self, id: i64, request: i64, text: &str, attempt: &str) -> Result<Value> {
        let mailbox = self.mailbox(id)?;
        let from = mailbox.outgoing.as_ref().map(|form| form["username"].as_str().unwrap_or_default().to_owned());
        let from = from.unwrap_or_default();
        let answer = self.call(id, Direction::Outgoing, |account| {
            requests::reply(account, &self.storage.helpdesk, request, &from, text, Some(attempt))
        })?;
        self.sent(id, &answer);
        Ok(answer)
    }

    fn sent(&self, id: i64, answer: &Value) {
        let outcome = answer["outcome"].as_str().unwrap_or("unknown");
        self.metrics.add("host_sends_total", Some(("outcome", outcome)), 1);
        self.log.info("send", Some(id), json!({"outcome": outcome, "kind": answer["error"]["kind"]}));
    }

    /// `{"incoming":DIAGNOSIS,"outgoing":DIAGNOSIS}`, as far as there are settings; redacted by the library.
    pub fn diagnose(&self, id: i64) -> Result<Value> {
        let mailbox = self.mailbox(id)?;
        let mut report = json!({});
        for direction in [Direction::Incoming, Direction::Outgoing] {
            if mailbox.form(direction).is_none() {
                continue;
            }
            let request = json!({"action": "diagnose", "deadline_ms": PATIENCE_MS});
            report[direction.name()] = match self.call(id, direction, |account| Ok(account.authenticate(&request)?)) {
                Ok(diagnosis) => diagnosis,
                Err(failure @ Failure::Hook(_)) => doctor::not_opened(&failure),
                Err(failure) => return Err(failure),
            };
        }
        Ok(report)
    }

    /// `[{"key","reason","tries","size",…}]`
    pub fn quarantine(&self, id: i64) -> Result<Vec<Value>> {
        let header = self.call(id, Direction::Incoming, |account| {
            Ok(account.fetch_batch(&json!({"quarantine": "list", "deadline_ms": PATIENCE_MS}))?.header())
        })?;
        Ok(header["quarantine"].as_array().cloned().unwrap_or_default())
    }

    pub fn quarantine_raw(&self, id: i64, key: &str) -> Result<Vec<u8>> {
        self.call(id, Direction::Incoming, |account| {
            let batch = account.fetch_batch(&json!({"quarantine": key, "deadline_ms": PATIENCE_MS}))?;
            let message = batch.message(0).map(|message| message.raw.to_vec());
            message.ok_or_else(|| Failure::other("The bytes of this message cannot be had."))
        })
    }

    /// It comes again with the next round, which is due at once.
    pub fn quarantine_replay(&self, id: i64, key: &str) -> Result<()> {
        self.decide(id, key, "replay")?;
        self.storage.set_due(id)
    }

    /// Forgotten; in the mailbox it stays as it is.
    pub fn quarantine_drop(&self, id: i64, key: &str) -> Result<()> {
        self.decide(id, key, "drop")
    }

    fn decide(&self, id: i64, key: &str, verdict: &str) -> Result<()> {
        let answer = self.call(id, Direction::Incoming, |account| {
            Ok(account.settle_batch(&json!({"results": {key: verdict}, "deadline_ms": PATIENCE_MS}))?)
        })?;
        match answer["done"][key].as_str() {
            Some("not_put_aside") => Err(Failure::other("This message is not in quarantine any more.")),
            _ => Ok(()),
        }
    }

    /// `{"mailbox":{"id","name","paused","version","unreadable"},"state":WORD,"run":{…},"incoming":STATUS,"outgoing":STATUS}`; a status
    /// as `authenticate` answers it, or `{"error":{…}}`, or null without settings.
    pub fn state(&self, id: i64) -> Result<Value> {
        let mailbox = self.mailbox(id)?;
        let mut statuses = json!({"incoming": null, "outgoing": null});
        for direction in [Direction::Incoming, Direction::Outgoing] {
            if mailbox.form(direction).is_none() {
                continue;
            }
            let request = json!({"action": "status"});
            statuses[direction.name()] = match self.call(id, direction, |account| Ok(account.authenticate(&request)?)) {
                Ok(status) => {
                    // What one form brought about the library tells of the other one when it is asked.
                    self.keep_health(id, direction, &status)?;
                    status
                }
                Err(failure) => json!({"error": failure.to_json()["error"]}),
            };
        }
        let mut state = overview(&mailbox, &self.storage.run(id)?.ok_or_else(|| unknown(id))?);
        for direction in ["incoming", "outgoing"] {
            state[direction] = statuses[direction].take();
        }
        Ok(state)
    }

    /// After a round: what another node found wrong before may be over.
    pub(super) fn tell_health(&self, id: i64) -> Result<()> {
        let status =
            self.call(id, Direction::Incoming, |account| Ok(account.authenticate(&json!({"action": "status"}))?));
        let Ok(status) = status else { return Ok(()) };
        self.storage.set_health(id, Direction::Incoming, &status["health"])
    }

    /// Each node's library knows of its own calls only: the node that fetches the mailbox has the word.
    fn keep_health(&self, id: i64, direction: Direction, status: &Value) -> Result<()> {
        let node = self.storage.run(id)?.and_then(|run| run.node);
        match node.is_none_or(|node| node == self.queue.node) {
            true => self.storage.set_health(id, direction, &status["health"]),
            false => Ok(()),
        }
    }

    /// As [`Self::state`] for all mailboxes, without the two statuses: nothing is opened for it.
    pub fn overview(&self) -> Result<Vec<Value>> {
        let runs: HashMap<i64, Run> = self.storage.runs()?.into_iter().map(|run| (run.mailbox, run)).collect();
        let mailboxes = self.storage.mailboxes()?;
        Ok(mailboxes.iter().filter_map(|one| Some(overview(one, runs.get(&one.id)?))).collect())
    }

    /// What email debug heard of this mailbox, on all nodes; oldest first, at most 256 KiB, without secrets.
    pub fn transcript(&self, id: i64) -> Result<String> {
        self.ears.flush(id)?;
        self.storage.transcript(id)
    }

    /// After its settings were changed or removed: what is open of it ends. Without it, the next call notices.
    pub fn close(&self, id: i64) {
        for direction in [Direction::Incoming, Direction::Outgoing] {
            let closed = self.lock().remove(&(id, direction));
            self.ears.forgets(id, direction);
            if let Some(open) = closed {
                open.account.close();
            }
        }
    }

    /// Calls that run come back with an error.
    pub fn close_all(&self) {
        let open: Vec<Open> = self.lock().drain().map(|(_, open)| open).collect();
        for one in open {
            one.account.close();
        }
    }

    pub(super) fn mailbox(&self, id: i64) -> Result<Mailbox> {
        self.storage.mailbox(id)?.ok_or_else(|| unknown(id))
    }

    /// `work` on the account of these settings; what it made the library say is kept.
    pub(super) fn call<T>(&self, id: i64, direction: Direction, work: impl FnOnce(&Account) -> Result<T>) -> Result<T> {
        let account = self.account(id, direction)?;
        let done = work(&account);
        // Nothing works with a handle that a panic has closed; the next call opens another one.
        if let Err(Failure::Hook(error)) = &done
            && matches!(error.kind(), Kind::Closed | Kind::Internal)
        {
            self.close_if(id, direction, &account);
        }
        if let Err(failure) = self.ears.flush(id) {
            self.log.error("storage", Some(id), json!({"why": failure.sentences().join(" ")}));
        }
        done
    }

    fn account(&self, id: i64, direction: Direction) -> Result<Arc<Account>> {
        let version = self.storage.mailbox_version(id)?;
        let known = self.lock().get_mut(&(id, direction)).map(|open| {
            open.used = Instant::now();
            (open.version, open.account.clone())
        });
        match known {
            Some((opened, account)) if Some(opened) == version => return Ok(account),
            // Whoever is at work with the old settings comes to the end.
            Some((_, stale)) => self.close_if(id, direction, &stale),
            None => {}
        }
        let mailbox = self.mailbox(id)?;
        let Some(form) = mailbox.form(direction) else {
            return Err(Failure::settings(match mailbox.unreadable {
                true => "The settings of this mailbox cannot be read with this key. Save them again.".to_owned(),
                false => format!("This mailbox has no {} settings.", direction.name()),
            }));
        };
        // Before it is opened: nothing that it says may be lost.
        let mut settings = json!({ direction.name(): form });
        let label = match self.takes_label {
            true => id.to_string(),
            false => form["username"].as_str().unwrap_or_default().to_owned(),
        };
        self.ears.knows(&label, id, direction);
        if self.takes_label {
            settings["label"] = label.into();
        }
        let account = Arc::new(self.plugin.open(&settings)?);
        let open = Open { version: mailbox.version, account: account.clone(), used: Instant::now() };
        let mut table = self.lock();
        if let Some(first) = table.get(&(id, direction)).filter(|first| first.version == open.version) {
            // Somebody else was faster.
            return Ok(first.account.clone());
        }
        let other = table.insert((id, direction), open);
        drop(table);
        drop(other);
        // The callback tells of changes only; what holds from the beginning is asked for once.
        if let Ok(status) = account.authenticate(&json!({"action": "status"})) {
            self.keep_health(id, direction, &status)?;
        }
        self.close_one_too_many();
        Ok(account)
    }

    fn close_if(&self, id: i64, direction: Direction, account: &Arc<Account>) {
        let mut open = self.lock();
        let closed = match open.get(&(id, direction)) {
            Some(known) if Arc::ptr_eq(&known.account, account) => open.remove(&(id, direction)),
            _ => None,
        };
        drop(open);
        drop(closed);
    }

    fn close_one_too_many(&self) {
        let mut open = self.lock();
        if open.len() <= OPEN_MAX {
            return;
        }
        // Nobody is at work with one that only the table holds.
        let resting = open.iter().filter(|(_, open)| Arc::strong_count(&open.account) == 1);
        let oldest = resting.min_by_key(|(_, open)| open.used).map(|(key, _)| *key);
        let closed = oldest.and_then(|key| open.remove(&key));
        drop(open);
        drop(closed);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(i64, Direction), Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(id: i64) -> Failure {
    Failure::settings(format!("There is no mailbox {id} any more."))
}

/// From bad to good: the worst that is true stands.
const STATES: [&str; 6] = ["consent_needed", "misconfigured", "admin_needed", "back_off", "degraded", "expiring"];

/// One word: `paused`, one of the library's health, `failed` (the last round), `waiting` (no round yet), `ok`.
fn state_word(mailbox: &Mailbox, run: &Run) -> &'static str {
    let told = [&run.health_incoming, &run.health_outgoing];
    let has = |word: &str| told.iter().any(|health| health.as_ref().is_some_and(|health| health["state"] == word));
    if mailbox.paused {
        return "paused";
    }
    if mailbox.unreadable {
        return "misconfigured";
    }
    if let Some(worst) = STATES.into_iter().find(|word| has(word)) {
        return worst;
    }
    match &run.error {
        Some(error) => match error["kind"].as_str() {
            Some("consent_required") => "consent_needed",
            Some("settings") => "misconfigured",
            Some("admin_required" | "refused") => "admin_needed",
            _ => "failed",
        },
        None if run.rounds == 0 && mailbox.incoming.is_some() => "waiting",
        None => "ok",
    }
}

fn overview(mailbox: &Mailbox, run: &Run) -> Value {
    json!({
        "mailbox": {"id": mailbox.id, "name": mailbox.name, "paused": mailbox.paused, "version": mailbox.version,
                    "unreadable": mailbox.unreadable},
        "state": state_word(mailbox, run),
        "run": {
            "next_run": run.next_run,
            "running_on": run.running_on,
            "node": run.node,
            "rounds": run.rounds,
            "failures": run.failures,
            "last_run": run.last_run,
            "last_success": run.last_success,
            "last_seconds": run.last_seconds,
            "result": run.result,
            "error": run.error,
            "counts": run.last_counts,
            "totals": run.totals.to_json(),
            "health": {"incoming": run.health_incoming, "outgoing": run.health_outgoing},
        },
        "incoming": null,
        "outgoing": null,
    })
}
