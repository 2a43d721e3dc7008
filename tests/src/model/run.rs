//! One run: a mailbox, a host, some hundred events, and then the account of every message.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use oauth_mail_core::{
    clock::Clock,
    hooks::{Handle, Plugin},
    log::Logger,
};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::{
    Options, Report, Rng,
    ledger::{Ledger, number_of},
    post::{PROCESSED, Post},
};
use crate::{
    Error, Result,
    fixture::{STORE_KEY, parse},
    mailbox::{self, Mail, hash},
};

/// Events of a run.
const EVENTS: usize = 150;
/// Rounds in which a calm mailbox must be through.
const CALM_ROUNDS: usize = 14;

pub fn run(seed: u64, options: &Options) -> Report {
    let outcome = catch_unwind(AssertUnwindSafe(|| Run::new(seed, options).map(Run::complete)));
    match outcome {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => broken(seed, format!("the run could not begin: {error}")),
        Err(panic) => broken(seed, format!("a promise was broken: {}", words(&*panic))),
    }
}

fn broken(seed: u64, why: String) -> Report {
    Report { runs: 1, stuck: 1, broken: vec![(seed, vec![why])], ..Report::default() }
}

fn words(panic: &dyn Any) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

struct Run {
    seed: u64,
    rng: Rng,
    post: Post,
    ledger: Ledger,
    /// The host's database: key and number, and what it decided.
    desk: BTreeMap<String, (u64, &'static str)>,
    /// What was handed out and not settled yet.
    pending: BTreeMap<String, u64>,
    /// Of what was put aside, as the host was told.
    aside: BTreeSet<u64>,
    settings: Value,
    after_import: &'static str,
    folder: TempDir,
    clock: Clock,
    truth: i64,
    skew: i64,
    open: Option<(Plugin, Handle)>,
    steps: u64,
    trace: Vec<String>,
    plant: Option<String>,
    /// Copies in the processed folder may be more than one: an answer or the host was lost.
    excused: BTreeSet<u64>,
    errors: Vec<String>,
    is_calm: bool,
    /// How often the mailbox had been renumbered when the round began, and whether the next fetch begins another.
    listed_in: u64,
    begins: bool,
    /// The same for each key that was handed out.
    handed_in: BTreeMap<String, u64>,
}

impl Run {
    fn new(seed: u64, options: &Options) -> Result<Self> {
        let mut rng = Rng::of(seed, &[0]);
        let kind = rng.pick(&options.kinds);
        let post = Post::start(kind, seed, &options.without)?;
        let after_import = rng.pick(&["leave", "leave", "mark_seen", "move", "delete"]);
        let since = rng.pick(&["all", "all", "now"]);
        let settings = post.settings(after_import, since);
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("om-model").tempdir_in(parent)?;
        let truth = time::OffsetDateTime::now_utc().unix_timestamp();
        let mut run = Self {
            seed,
            ledger: Ledger { same_ids: post.may("same-id"), ..Ledger::default() },
            post,
            desk: BTreeMap::new(),
            pending: BTreeMap::new(),
            aside: BTreeSet::new(),
            settings,
            after_import,
            folder,
            clock: Clock::default(),
            truth,
            skew: 0,
            open: None,
            steps: 0,
            trace: vec![format!("{kind:?}, after_import {after_import}, fetch_since {since}")],
            plant: options.plant.clone(),
            excused: BTreeSet::new(),
            errors: Vec::new(),
            is_calm: false,
            listed_in: 0,
            begins: true,
            handed_in: BTreeMap::new(),
            rng,
        };
        let old = run.rng.below(8);
        for _ in 0..old {
            // Days before the first fetch: no renumbering brings them back.
            let raw = run.ledger.write(&mut run.rng, since == "now", truth - 9 * 86_400);
            run.post.deliver(&raw, truth - 9 * 86_400);
        }
        let connected = run.handle().and_then(|handle| handle.authenticate(r#"{"action":"start"}"#));
        connected.map_err(Error::doing("connecting for the first time"))?;
        run.post.begin();
        Ok(run)
    }

    fn complete(mut self) -> Report {
        for _ in 0..EVENTS {
            self.event();
            if !self.ledger.told.is_empty() {
                break;
            }
        }
        let mut stuck = Vec::new();
        if self.ledger.told.is_empty() {
            stuck = self.settle_down();
        }
        let Ledger { lost, doubled, again, told, .. } = &self.ledger;
        let steps = self.steps + self.post.answered();
        let mut seen = told.clone();
        seen.extend(stuck.iter().cloned());
        let broken = match seen.is_empty() {
            true => Vec::new(),
            false => {
                let mut text = seen;
                text.push(format!("the last events: {}", self.trace.join("; ")));
                text.push(format!("the last errors: {:?}", self.errors));
                vec![(self.seed, text)]
            }
        };
        let (lost, doubled) = (lost.len() as u64, doubled.len() as u64);
        Report { steps, runs: 1, lost, doubled, stuck: stuck.len() as u64, again: *again, broken }
    }

    fn event(&mut self) {
        self.steps += 1;
        match self.rng.below(24) {
            0..=4 => {
                for _ in 0..=self.rng.below(5) {
                    self.steps += 1;
                    let raw = self.ledger.write(&mut self.rng, false, self.truth);
                    self.post.deliver(&raw, self.truth);
                }
                self.note("mail arrives".to_owned());
            }
            5 => {
                if let Some(number) = self.post.remove_one(&mut self.rng) {
                    if let Some(mail) = self.ledger.mails.get_mut(&number) {
                        mail.taken_away = true;
                    }
                    self.note(format!("another client removes note {number}"));
                }
            }
            6 => {
                let disturbed = self.post.disturb(&mut self.rng);
                if let Some(mail) = disturbed.and_then(|number| self.ledger.mails.get_mut(&number)) {
                    mail.was_unreadable = true;
                }
                self.note("the server stumbles".to_owned());
            }
            7 if self.rng.once_in(4) => self.renumber(),
            8 => {
                let seconds = self.rng.pick(&[60, 600, 3_600, 7_200, 86_400]);
                self.pass(seconds);
            }
            9 if self.post.may("clock") && self.rng.once_in(3) => {
                let skew = self.rng.pick(&[-86_400, 0, 0, 86_400]);
                self.clock.advance(skew - self.skew);
                self.skew = skew;
                self.note(format!("the clock is {skew} s off"));
            }
            10 => {
                self.open = None;
                self.excused.extend(self.pending.values());
                self.note("the host restarts".to_owned());
            }
            11..=13 => self.settle(false),
            _ => {
                let max = 1 + self.rng.below(12);
                if self.fetch(max).is_some() && !self.rng.once_in(5) {
                    let whole = !self.rng.once_in(4);
                    self.settle(whole);
                }
            }
        }
        self.check_open();
    }

    fn renumber(&mut self) {
        let before: BTreeSet<u64> = self.post.in_folder("INBOX").into_iter().collect();
        if !self.post.renumber(&mut self.rng) {
            return;
        }
        self.ledger.epoch += 1;
        let after: BTreeSet<u64> = self.post.in_folder("INBOX").into_iter().collect();
        for number in before.difference(&after) {
            if let Some(mail) = self.ledger.mails.get_mut(number) {
                mail.taken_away = true;
            }
        }
        for number in after.difference(&before) {
            if let Some(mail) = self.ledger.mails.get_mut(number) {
                mail.taken_away = false;
            }
        }
        self.excused.extend(after);
        self.pending.clear();
        self.note("the mailbox is renumbered or restored".to_owned());
    }

    fn pass(&mut self, seconds: i64) {
        self.steps += 1;
        self.truth += seconds;
        self.clock.advance(seconds);
    }

    /// One batch; `None`: it failed.
    fn fetch(&mut self, max: usize) -> Option<bool> {
        self.steps += 1;
        let request = json!({"max_messages": max, "deadline_ms": 60_000});
        if self.begins || self.open.is_none() {
            self.listed_in = self.ledger.epoch;
        }
        let answer = self.handle().and_then(|handle| mailbox::batch(handle, &request));
        let mail = match answer {
            Ok(mail) => mail,
            Err(error) => {
                self.failed(&error);
                return None;
            }
        };
        self.begins = !mail.more;
        self.take(&mail);
        self.note(format!("{} handed out{}", mail.messages.len(), if mail.resets.is_empty() { "" } else { ", reset" }));
        Some(mail.more)
    }

    fn take(&mut self, mail: &Mail) {
        for message in &mail.messages {
            self.steps += 1;
            let Some(number) = self.ledger.handed(&message.key, &message.raw) else { continue };
            if let Some((known, _)) = self.desk.get(&message.key)
                && *known != number
            {
                self.ledger.lost.insert(number);
                self.ledger.told.push(format!("{} was note {known} and is note {number} now", message.key));
            }
            self.handed_in.entry(message.key.clone()).or_insert(self.listed_in);
            self.pending.insert(message.key.clone(), number);
        }
    }

    /// `whole`: everything that is pending gets its verdict.
    fn settle(&mut self, whole: bool) {
        self.steps += 1;
        let mut results = Map::new();
        let pending: Vec<(String, u64)> = self.pending.iter().map(|(key, number)| (key.clone(), *number)).collect();
        for (key, number) in pending {
            if !whole && self.rng.once_in(2) {
                continue;
            }
            let verdict = self.verdict(&key, number);
            results.insert(key, json!(verdict));
        }
        if results.is_empty() {
            return;
        }
        if whole && self.rng.once_in(25) {
            // The host dies between its own commit and the call.
            self.open = None;
            self.note("the host dies before it settles".to_owned());
            return;
        }
        let request = json!({"results": results, "deadline_ms": 60_000}).to_string();
        let times = 1 + usize::from(self.rng.once_in(20));
        for _ in 0..times {
            let answer = self.handle().and_then(|handle| handle.settle_batch(&request));
            match answer {
                Ok(done) => self.settled(&results, &parse(&done)["done"]),
                Err(error) => {
                    self.excused.extend(results.keys().filter_map(|key| self.pending.get(key)));
                    self.failed(&error);
                }
            }
        }
        if self.rng.once_in(30) {
            self.open = None;
            self.note("the host dies after it settled".to_owned());
        }
        self.note(format!("{} settled", results.len()));
    }

    fn verdict(&mut self, key: &str, number: u64) -> &'static str {
        if let Some((_, verdict)) = self.desk.get(key) {
            return if *verdict == "imported" { "duplicate" } else { verdict };
        }
        let Some(mail) = self.ledger.mails.get(&number) else { return "retry" };
        let verdict = match (mail.is_indigestible, mail.is_refused) {
            (true, _) => return "failed",
            (_, true) => "refused",
            _ if self.rng.once_in(15) => return "retry",
            _ => "imported",
        };
        let epoch = self.handed_in.get(key).copied().unwrap_or_default();
        match self.plant.as_deref() {
            // Said to be imported, and forgotten.
            Some("swallow-mail") if self.rng.once_in(10) => {}
            // Two requests for one message.
            Some("forget-key") if self.rng.once_in(10) => {
                self.ledger.file(number, key, epoch);
                self.ledger.file(number, key, epoch);
            }
            // The host dies in between.
            Some("settle-before-import") => {
                let request = json!({"results": {key: verdict}}).to_string();
                let told = self.handle().and_then(|handle| handle.settle_batch(&request));
                if told.is_ok() && self.rng.once_in(10) {
                    self.open = None;
                    self.pending.remove(key);
                    return "retry";
                }
                self.ledger.file(number, key, epoch);
            }
            _ => self.ledger.file(number, key, epoch),
        }
        self.desk.insert(key.to_owned(), (number, verdict));
        verdict
    }

    fn settled(&mut self, results: &Map<String, Value>, done: &Value) {
        for (key, verdict) in results {
            self.steps += 1;
            let number = self.pending.get(key).copied();
            match done[key].as_str() {
                Some("put_aside") => self.aside.extend(number),
                Some("retry" | "failed") => {}
                Some("kept" | "later") => {}
                Some(_) if verdict != "failed" && verdict != "retry" => {
                    self.pending.remove(key);
                }
                _ => {}
            }
        }
    }

    fn handle(&mut self) -> oauth_mail_core::Result<&Handle> {
        if self.open.is_none() {
            let store = format!("sqlite:{}", self.folder.path().join("store.db").display());
            let config = json!({"store": store, "key": {"value": STORE_KEY}, "private_networks": "allow"});
            let plugin = Plugin::with_clock(&config.to_string(), Logger::silent(), None, self.clock.clone())?;
            let handle = plugin.open(&self.settings.to_string())?;
            self.open = Some((plugin, handle));
        }
        let opened = self.open.as_ref().map(|(_, handle)| handle);
        opened.ok_or_else(|| oauth_mail_core::Error::new(oauth_mail_core::Kind::Internal, "nothing is open"))
    }

    fn failed(&mut self, error: &oauth_mail_core::Error) {
        if self.errors.len() == 4 {
            self.errors.remove(0);
        }
        let code = error.provider_code_text().unwrap_or_default();
        self.errors.push(format!("{}: {} {code}", error.kind().name(), error.message()));
        self.note(format!("it fails ({})", error.kind().name()));
    }

    fn note(&mut self, text: String) {
        if self.is_calm {
            return;
        }
        if self.trace.len() > 60 {
            self.trace.remove(1);
        }
        self.trace.push(text);
    }

    /// What nobody filed and nobody took away lies in the mailbox, or was put aside.
    fn check_open(&mut self) {
        let there: BTreeSet<u64> = self.post.in_folder("INBOX").into_iter().collect();
        let missing: Vec<u64> =
            self.ledger.open().filter(|number| !there.contains(number) && !self.aside.contains(number)).collect();
        for number in missing {
            // Put aside by the library itself: the account at the end looks for its bytes.
            if !self.ledger.mails[&number].is_indigestible && self.ledger.lost.insert(number) {
                self.ledger.told.push(format!("note {number} was removed from the mailbox, and nobody has it"));
            }
        }
    }

    /// Everything is well from now on: is everything settled, and who is not? What is stuck.
    fn settle_down(&mut self) -> Vec<String> {
        self.post.calm();
        self.is_calm = true;
        self.clock.advance(-self.skew);
        self.skew = 0;
        let mut last_error = None;
        for _ in 0..CALM_ROUNDS {
            self.pass(1_200);
            last_error = None;
            for _ in 0..200 {
                match self.fetch(20) {
                    Some(more) => {
                        self.settle_calmly();
                        if !more {
                            break;
                        }
                    }
                    None => {
                        last_error = self.errors.last().cloned();
                        break;
                    }
                }
            }
        }
        if let Some(error) = last_error {
            return vec![format!("a calm mailbox cannot be fetched: {error}")];
        }
        self.account()
    }

    fn settle_calmly(&mut self) {
        let pending: Vec<(String, u64)> = std::mem::take(&mut self.pending).into_iter().collect();
        let mut results = Map::new();
        for (key, number) in &pending {
            let mut verdict = self.verdict(key, *number);
            while verdict == "retry" {
                verdict = self.verdict(key, *number);
            }
            results.insert(key.clone(), json!(verdict));
        }
        self.pending = pending.into_iter().collect();
        if !results.is_empty() {
            let request = json!({"results": results, "deadline_ms": 60_000}).to_string();
            match self.handle().and_then(|handle| handle.settle_batch(&request)) {
                Ok(done) => self.settled(&results, &parse(&done)["done"]),
                Err(error) => self.failed(&error),
            }
        }
        self.pending.clear();
    }

    fn account(&mut self) -> Vec<String> {
        let aside = match self.aside_with_bytes() {
            Ok(aside) => aside,
            Err(error) => return vec![format!("the quarantine cannot be read: {error}")],
        };
        let there: BTreeSet<u64> = self.post.in_folder("INBOX").into_iter().collect();
        let open: Vec<u64> = self.ledger.open().filter(|number| !aside.contains(number)).collect();
        for number in open {
            let why = match there.contains(&number) {
                true => "lies in the mailbox and is never handed out",
                false => "is nowhere",
            };
            if there.contains(&number) && self.ledger.may_be_passed_over(number) {
                continue;
            }
            self.ledger.lost.insert(number);
            self.ledger.told.push(format!("note {number} {why}"));
        }
        if self.after_import == "move" {
            let mut copies: BTreeMap<u64, usize> = BTreeMap::new();
            self.post.in_folder(PROCESSED).into_iter().for_each(|number| *copies.entry(number).or_default() += 1);
            for (number, count) in copies {
                if count > 1 && !self.excused.contains(&number) {
                    self.ledger.doubled.insert(number);
                    self.ledger.told.push(format!("note {number} lies {count} times in {PROCESSED}"));
                }
            }
        }
        Vec::new()
    }

    /// Numbers of what lies in quarantine, with bytes that are right.
    fn aside_with_bytes(&mut self) -> Result<BTreeSet<u64>> {
        let list = self.handle().and_then(|handle| handle.fetch_batch(r#"{"quarantine":"list"}"#));
        let list = parse(&list.map_err(Error::doing("the quarantine"))?.header);
        let mut found = BTreeSet::new();
        for entry in list["quarantine"].as_array().into_iter().flatten() {
            let request = json!({ "quarantine": entry["key"] }).to_string();
            let Ok(batch) = self.handle().and_then(|handle| handle.fetch_batch(&request)) else { continue };
            for message in batch.messages {
                let number = number_of(&message.raw).unwrap_or_default();
                if self.ledger.mails.get(&number).is_some_and(|mail| mail.hash == hash(&message.raw)) {
                    found.insert(number);
                }
            }
        }
        Ok(found)
    }
}
