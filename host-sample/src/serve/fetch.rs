//! One round over one mailbox: fetch, import, settle, until it has no more; and the entry in the book about it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use serde_json::{Value, json};

use super::{
    log::Log,
    mailboxes::Mailboxes,
    metrics::Metrics,
    pace::{End, INTERVAL_MINUTES_DEFAULT, Pace},
    storage::{Counts, Due, ELSEWHERE, Finished},
};
use crate::{
    failure::{Failure, Result},
    helpdesk::{self, Imported, Incoming, Outcome},
    host::Direction,
};

/// One transaction and one settle each.
const BATCH_MESSAGES: u32 = 500;
const BATCH_BYTES: u64 = 8 * 1024 * 1024;
/// Beyond it the mailbox stands in line again, behind those that wait.
const BATCHES_MAX: u32 = 40;
/// A batch of 8 MiB on a slow line takes a minute; twice that is a fault.
const DEADLINE_MS: u64 = 120_000;
/// Among several nodes: the library keeps a mailbox with its node until 30 s after this deadline, so a dead node is made up
/// for within a minute. A mailbox whose rounds fail gets more time, up to [`DEADLINE_MS`].
const DEADLINE_SHARED_MS: u64 = 20_000;

pub struct Round {
    pub counts: Counts,
    pub end: End,
}

/// The mailbox was claimed before. An error is the storage's.
pub fn run(mailboxes: &Mailboxes, due: &Due, stop: &dyn Fn() -> bool, metrics: &Metrics, log: Log) -> Result<Round> {
    let id = due.mailbox;
    let (began, mut counts, mut interval) = (Instant::now(), Counts::default(), 60 * INTERVAL_MINUTES_DEFAULT);
    let started = mailboxes.storage.now();
    // A bug in here costs this round, not the thread, and the next one waits as after any failure.
    let round = catch_unwind(AssertUnwindSafe(|| work(mailboxes, due, stop, &mut counts, &mut interval)));
    let end = round
        .unwrap_or_else(|_| Err(Failure::other("The round ended by a panic; the log says where.")))
        .unwrap_or_else(End::Failed);
    let result = match &end {
        End::Done => "ok",
        End::More => "more",
        End::Elsewhere(_) => ELSEWHERE,
        End::Failed(_) if stop() => "stopped",
        End::Failed(failure) => kind(failure),
    };
    metrics.add("host_fetch_rounds_total", Some(("result", result)), 1);
    metrics.add_seconds("host_round_seconds_total", began.elapsed());
    for (outcome, count) in counts.all().into_iter().filter(|(_, count)| *count > 0) {
        metrics.add("host_messages_total", Some(("outcome", outcome)), count);
    }
    report(log, id, result, &end, counts, began);
    if result == "stopped" {
        mailboxes.queue.end(due, None)?;
        return Ok(Round { counts, end });
    }
    if !matches!(end, End::Elsewhere(_))
        && let Err(failure) = mailboxes.tell_health(id)
    {
        log.error("storage", Some(id), json!({"why": failure.sentences().join(" ")}));
    }
    let written = mailboxes.storage.now().map(|now| {
        let pace = Pace { mailbox: id, due: due.next_run, now, interval, failures: due.failures };
        let next_run = match (&end, due.planned) {
            (End::Failed(failure), Some(planned)) if !asks_to_wait(failure) => pace.next(&end).min(planned.max(now)),
            _ => pace.next(&end),
        };
        let error = match &end {
            End::Failed(failure) => Some(document(failure)),
            _ => None,
        };
        let started = *started.as_ref().unwrap_or(&now);
        let counts_as_failure = due.planned.is_none();
        Finished { counts_as_failure, started, ended: now, next_run, result: result.to_owned(), error, counts }
    });
    match written {
        Ok(finished) => mailboxes.queue.end(due, Some(&finished))?,
        Err(failure) => {
            mailboxes.queue.end(due, None).ok();
            return Err(failure);
        }
    }
    Ok(Round { counts, end })
}

fn work(
    mailboxes: &Mailboxes,
    due: &Due,
    stop: &dyn Fn() -> bool,
    counts: &mut Counts,
    interval: &mut i64,
) -> Result<End> {
    let id = due.mailbox;
    let deadline_ms = match mailboxes.storage.is_shared() {
        true => (DEADLINE_SHARED_MS << due.failures.clamp(0, 8)).min(DEADLINE_MS),
        false => DEADLINE_MS,
    };
    let request = json!({"max_messages": BATCH_MESSAGES, "max_bytes": BATCH_BYTES, "deadline_ms": deadline_ms});
    for batch in 0..BATCHES_MAX {
        if stop() {
            return Err(Failure::other("The host stops."));
        }
        // They may change, or the mailbox be paused, while a long round is under way.
        let mailbox = mailboxes.mailbox(id)?;
        if mailbox.paused && batch > 0 {
            return Ok(End::Done);
        }
        let form = mailbox.incoming.as_ref().unwrap_or(&Value::Null);
        *interval = 60 * form["fetch_interval_minutes"].as_i64().unwrap_or(INTERVAL_MINUTES_DEFAULT).max(1);
        let new_requests = form["disable_new_request_creation"] != true;
        let header = mailboxes.call(id, Direction::Incoming, |account| {
            let batch = account.fetch_batch(&request)?;
            let messages =
                batch.iter().map(|message| Incoming { key: message.key, raw: message.raw, facts: message.facts() });
            let imported = match batch.is_empty() {
                true => Vec::new(),
                false => mailboxes.storage.helpdesk.import_from(Some(id), messages, new_requests)?,
            };
            count(counts, &imported);
            if !imported.is_empty() {
                let mut results = helpdesk::results(&imported);
                results["deadline_ms"] = deadline_ms.into();
                account.settle_batch(&results)?;
            }
            Ok(batch.header())
        })?;
        let listed = |name: &str| header[name].as_array().map_or(0, |list| list.len() as i64);
        // What is not put aside comes again.
        let failed = header["quarantined"].as_array().into_iter().flatten();
        let aside = failed.filter(|one| one["aside"] == true).count() as i64;
        counts.skipped += listed("skipped") + listed("quarantined") - aside;
        counts.quarantined += aside;
        if let Some(seconds) = header["elsewhere_seconds"].as_i64() {
            return Ok(End::Elsewhere(seconds));
        }
        if header["more"] != true {
            return Ok(End::Done);
        }
    }
    Ok(End::More)
}

fn asks_to_wait(failure: &Failure) -> bool {
    matches!(failure, Failure::Hook(error) if error.retry_after_seconds().is_some())
}

fn count(counts: &mut Counts, imported: &[Imported]) {
    for message in imported {
        match message.outcome {
            Outcome::Created(_) => counts.created += 1,
            Outcome::Appended(_) => counts.appended += 1,
            Outcome::Duplicate => counts.duplicate += 1,
            Outcome::Ignored(_) => counts.ignored += 1,
        }
    }
}

fn report(log: Log, id: i64, result: &str, end: &End, counts: Counts, began: Instant) {
    let mut fields = json!({"result": result, "ms": began.elapsed().as_millis() as u64});
    for (name, count) in counts.all().into_iter().filter(|(_, count)| *count > 0) {
        fields[name] = count.into();
    }
    match end {
        End::Failed(failure) => {
            fields["why"] = failure.sentences().join(" ").into();
            log.warn("round", Some(id), fields);
        }
        _ => log.info("round", Some(id), fields),
    }
}

fn kind(failure: &Failure) -> &'static str {
    match failure {
        Failure::Hook(error) => error.kind().name(),
        Failure::Settings(_) => "settings",
        _ => "other",
    }
}

/// `{"kind","message","remedy","faults":[{"pointer","label","message"}]}`
fn document(failure: &Failure) -> Value {
    let Failure::Hook(error) = failure else {
        return json!({"kind": kind(failure), "message": failure.sentences().join(" "), "remedy": null, "faults": []});
    };
    let faults: Vec<Value> = error
        .faults()
        .iter()
        .map(|fault| json!({"pointer": fault.pointer, "label": fault.label, "message": fault.message}))
        .collect();
    json!({"kind": error.kind().name(), "message": error.message(), "remedy": error.remedy(), "faults": faults})
}
