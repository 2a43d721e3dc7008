//! Sweeps over the steps of a scenario.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use oauth_mail_core::seam::control::How;

use super::{
    Line, Tally,
    scenario::{Before, Scenario, Server, Task, Verdicts},
    world::{Case, End, Seat, World},
};
use crate::{Error, Result, relay::Ending};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    Kill,
    FailOnce,
    FailForEver,
    /// Does not come back as long as the call lasts, which ends by its deadline.
    Stall,
    /// The same, and the host cancels the call.
    StallCancelled,
    /// Of what the server sent, decrypted: no more comes after so many bytes.
    Cut(How),
    /// After so many bytes that the host sent, before encryption, the connection is reset.
    CutSent,
    /// After so many encrypted bytes from the server the connection ends, once; where it stalls, each call is back by its
    /// deadline.
    Tls(Ending),
}

impl Disturbance {
    fn plan(self, step: usize) -> String {
        match self {
            Self::Kill => format!("abort:{step}"),
            Self::FailOnce => format!("fail:{step}"),
            Self::FailForEver => format!("fail-from:{step}"),
            Self::Stall => format!("stall:{step}"),
            Self::StallCancelled => format!("cancel:{step}"),
            Self::Cut(how) => format!("cut:{}:received:{}", format!("{how:?}").to_lowercase(), step - 1),
            Self::CutSent => format!("cut:reset:sent:{}", step - 1),
            Self::Tls(_) => format!("relay:{}", step - 1),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 at every step",
            Self::FailOnce => "every operation fails once",
            Self::FailForEver => "every operation fails for ever",
            Self::Stall => "every operation stalls to the deadline",
            Self::StallCancelled => "every operation stalls and its call is cancelled",
            Self::Cut(How::Fin) => "closed after every byte",
            Self::Cut(How::Reset) => "reset after every byte",
            Self::Cut(How::Stall) => "stalled after every byte",
            Self::CutSent => "reset after every byte that was sent",
            Self::Tls(Ending::Close) => "closed after bytes of TLS",
            Self::Tls(Ending::Reset) => "reset after bytes of TLS",
            Self::Tls(Ending::Stall) => "stalled after bytes of TLS",
        }
    }

    fn stalls(self) -> bool {
        matches!(self, Self::Stall | Self::StallCancelled)
    }

    /// How many places there are in a scenario.
    fn places(self, baseline: &Baseline) -> usize {
        match self {
            Self::Cut(_) => baseline.received,
            Self::CutSent => baseline.sent,
            Self::Tls(_) => baseline.encrypted,
            _ => baseline.steps.len(),
        }
    }
}

/// The deadline of each call while a connection may stall, and of those before and after. That a call is back by its
/// deadline + 250 ms is promised; but whoever shares the machine may need time, and without a deadline it would be 20 s.
pub const STALL_DEADLINE_MS: u64 = 1_500;
pub const CALM_DEADLINE_MS: u64 = 10_000;
const STALL_LIMIT_MS: u64 = 14_000;
/// How late a call may be whose operation hangs. Whoever shares the machine may hold up one run, not three.
const LATE_LIMIT_MS: u64 = 100;
const LATE_TRIES: usize = 3;

/// What an undisturbed run leaves.
struct Baseline {
    /// Bytes from the server: decrypted, and with all that TLS adds.
    received: usize,
    encrypted: usize,
    /// Bytes to the server, decrypted.
    sent: usize,
    steps: Vec<String>,
    tickets: Vec<String>,
    mailbox: Vec<Vec<(String, String)>>,
}

/// Sends whose copies are counted when all have arrived.
type Sent = Mutex<BTreeMap<String, String>>;

/// Every `stride`-th step of every scenario that `filter` names, beginning at a different one in each.
pub fn sweep(world: &World, workers: usize, scenarios: &[Scenario], how: Disturbance, stride: usize) -> Result<Line> {
    let begun = Instant::now();
    let sent = Sent::default();
    let baselines = in_parallel(world, workers, scenarios.len(), |seat, index| {
        baseline(seat, &scenarios[index], how, &sent)
            .map_err(|error| Error::new(format!("{}, undisturbed: {error}", scenarios[index].name)))
    })?
    .into_iter()
    .collect::<Result<Vec<_>>>()?;
    let cases: Vec<(usize, usize)> = baselines
        .iter()
        .enumerate()
        .flat_map(|(index, baseline)| {
            (1 + index % stride..=how.places(baseline)).step_by(stride).map(move |step| (index, step))
        })
        .filter(|(index, step)| !how.stalls() || is_ours(&baselines[*index].steps[step - 1]))
        .collect();
    let tallies = in_parallel(world, workers, cases.len(), |seat, number| {
        let (index, step) = cases[number];
        let (scenario, baseline) = (&scenarios[index], &baselines[index]);
        let at = match how {
            Disturbance::Kill
            | Disturbance::FailOnce
            | Disturbance::FailForEver
            | Disturbance::Stall
            | Disturbance::StallCancelled => baseline.steps.get(step - 1).map_or("", String::as_str),
            _ => "bytes",
        };
        let mut tally = disturbed(seat, scenario, baseline, how, step, &sent).unwrap_or_else(|error| {
            let mut tally = Tally::default();
            tally.note(format_args!("the sweep itself: {error}"));
            tally
        });
        for note in &mut tally.notes {
            *note = format!("{}, step {step} ({at}): {note}", scenario.name);
        }
        tally.case()
    })?;
    let mut tally = Tally::default();
    tallies.into_iter().for_each(|one| tally.add(one));
    count_copies(world, workers, &sent, &mut tally)?;
    let places: usize = baselines.iter().map(|baseline| how.places(baseline)).sum();
    Ok(Line {
        name: how.name().to_owned(),
        tally,
        about: format!("{}, {places} places, every {stride}. of them", scenarios_of(scenarios)),
        took: begun.elapsed(),
    })
}

/// Of a hook: not of the host's database, nor of the start, which has no deadline.
fn is_ours(step: &str) -> bool {
    !step.starts_with("host.") && step != "store.reseal"
}

fn scenarios_of(scenarios: &[Scenario]) -> String {
    match scenarios {
        [one] => one.name.to_owned(),
        many => format!("{} scenarios", many.len()),
    }
}

/// Runs `work` for each of `0..count` on as many threads as there are workers, each with its own seat.
pub fn in_parallel<T: Send>(
    world: &World,
    workers: usize,
    count: usize,
    work: impl Fn(&mut Seat<'_>, usize) -> T + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(count));
    let mut failed = None;
    thread::scope(|scope| {
        let running: Vec<_> = (0..workers)
            .map(|number| {
                let (next, results, work) = (&next, &results, &work);
                scope.spawn(move || -> Result<()> {
                    let mut seat = world.seat(number)?;
                    loop {
                        let index = next.fetch_add(1, Ordering::SeqCst);
                        if index >= count {
                            return Ok(());
                        }
                        let result = work(&mut seat, index);
                        results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                    }
                })
            })
            .collect();
        for thread in running {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failed = Some(error),
                Err(_) => failed = Some(Error::new("a worker of the sweep panicked")),
            }
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

fn baseline(seat: &mut Seat<'_>, scenario: &Scenario, how: Disturbance, sent: &Sent) -> Result<Baseline> {
    let mut case = seat.prepare(scenario)?;
    let relay = seat.relay(&mut case, how)?;
    let end = seat.run(&case, None, true, 0)?;
    let report = end.report.as_ref().ok_or_else(|| Error::new(format!("no report: {}", end.stderr)))?;
    if !end.is_complete() {
        return Err(Error::new(format!("{report}")));
    }
    let steps = report["steps"].as_array().into_iter().flatten();
    let baseline = Baseline {
        received: report["received"].as_u64().unwrap_or(0) as usize,
        sent: report["sent"].as_u64().unwrap_or(0) as usize,
        encrypted: relay.as_ref().map_or(0, |relay| relay.downstream() as usize),
        steps: steps.map(|name| name.as_str().unwrap_or_default().to_owned()).collect(),
        tickets: case.desk()?.tickets()?,
        mailbox: seat.look(&case)?,
    };
    let mut tally = Tally::default();
    after(seat, &case, &end, &baseline, &mut tally, sent)?;
    let expected = match scenario.task {
        Task::Send(_) => 0,
        _ if scenario.before == Before::Expunged => scenario.messages,
        _ => scenario.messages * scenario.folders,
    };
    if baseline.tickets.len() < expected || !tally.notes.is_empty() {
        return Err(Error::new(format!("{} tickets; {:?}; {report}", baseline.tickets.len(), tally.notes)));
    }
    seat.clear(&case);
    Ok(baseline)
}

fn disturbed(
    seat: &mut Seat<'_>,
    scenario: &Scenario,
    baseline: &Baseline,
    how: Disturbance,
    step: usize,
    sent: &Sent,
) -> Result<Tally> {
    if how.stalls() {
        return stalled(seat, scenario, baseline, how, step, sent);
    }
    let mut tally = Tally::default();
    let mut case = seat.prepare(scenario)?;
    let before = seat.look(&case)?;
    let relay = seat.relay(&mut case, how)?;
    if let (Some(relay), Disturbance::Tls(ending)) = (&relay, how) {
        relay.once_after(step as u64 - 1, ending);
    }
    let first = seat.run(&case, Some(&how.plan(step)), how != Disturbance::Kill, 0)?;
    judge(&first, &mut tally);
    let slowest = first.report.as_ref().and_then(|report| report["slowest_ms"].as_u64()).unwrap_or(0);
    if how == Disturbance::Tls(Ending::Stall) && slowest > STALL_LIMIT_MS {
        tally.hangs += 1;
        tally.note(format_args!("a call took {slowest} ms, its deadline was {STALL_DEADLINE_MS} ms"));
    }
    let mut last = first;
    if how == Disturbance::Kill {
        if !last.aborted && last.report.is_none() {
            tally.note(format_args!("it ended otherwise: {}", last.stderr));
        }
        early(seat, &case, &before, &mut tally)?;
        // A redirect lives ten minutes; leases and claims of the dead live less than the half hour of the others.
        last = seat.run(&case, None, true, usize::from(scenario.task != Task::Consent))?;
        judge(&last, &mut tally);
    }
    finish(seat, scenario, case, last, baseline, tally, sent)
}

/// How it stands at the end, with a person's help where only a person can help.
fn finish(
    seat: &mut Seat<'_>,
    scenario: &Scenario,
    mut case: Case,
    mut last: End,
    baseline: &Baseline,
    mut tally: Tally,
    sent: &Sent,
) -> Result<Tally> {
    // The answer to a code or a refresh was lost: only a person can help, once.
    if !last.is_complete() && scenario.task == Task::Consent {
        seat.consent_again(&mut case)?;
        last = seat.run(&case, None, true, 0)?;
        judge(&last, &mut tally);
    }
    if !last.is_complete() {
        tally.note(format_args!("it did not end well: {:?} {}", last.report, last.stderr));
    }
    after(seat, &case, &last, baseline, &mut tally, sent)?;
    seat.clear(&case);
    Ok(tally)
}

/// The same case again when it was late, in case that somebody else had the machine.
fn stalled(
    seat: &mut Seat<'_>,
    scenario: &Scenario,
    baseline: &Baseline,
    how: Disturbance,
    step: usize,
    sent: &Sent,
) -> Result<Tally> {
    let mut tries = 0;
    loop {
        tries += 1;
        let mut tally = Tally::default();
        let mut case = seat.prepare(scenario)?;
        seat.relay(&mut case, how)?;
        let last = seat.run(&case, Some(&how.plan(step)), true, 0)?;
        judge(&last, &mut tally);
        let late = last.report.as_ref().and_then(|report| report["late_ms"].as_u64()).unwrap_or(0);
        if late > LATE_LIMIT_MS && tries < LATE_TRIES {
            seat.clear(&case);
            continue;
        }
        if late > LATE_LIMIT_MS {
            tally.hangs += 1;
            tally.note(format_args!("a call was {late} ms late"));
        }
        return finish(seat, scenario, case, last, baseline, tally, sent);
    }
}

fn judge(end: &End, tally: &mut Tally) {
    if end.hung {
        tally.hangs += 1;
        tally.note("it hung");
    }
    if end.panicked() {
        tally.panics += 1;
        tally.note(format_args!("it panicked: {} {:?}", end.stderr, end.errors().collect::<Vec<_>>()));
    }
}

/// Nothing may have happened in the mailbox to mail of which the host has no ticket.
fn early(seat: &mut Seat<'_>, case: &Case<'_>, before: &[Vec<(String, String)>], tally: &mut Tally) -> Result<()> {
    let filed = case.desk()?.subjects()?;
    let now = seat.look(case)?;
    for (was, is) in before.iter().zip(&now).take(case.scenario.folders) {
        for message in was {
            // What was put aside lies in the store of the library, which the host reads later.
            let is_aside = case.scenario.verdicts == Verdicts::Failing && message.0 == "note 2";
            if !is.contains(message) && !filed.contains(&message.0) && !is_aside {
                tally.early += 1;
                tally.note(format_args!("{} was acted upon and has no ticket", message.0));
            }
        }
    }
    Ok(())
}

/// All is as after an undisturbed run, and running once more changed nothing.
fn after(
    seat: &mut Seat<'_>,
    case: &Case<'_>,
    end: &End,
    baseline: &Baseline,
    tally: &mut Tally,
    sent: &Sent,
) -> Result<()> {
    let desk = case.desk()?;
    if matches!(case.scenario.task, Task::Send(_)) {
        let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        let outcomes: BTreeMap<_, _> = desk.outcomes()?.into_iter().collect();
        for key in &case.keys {
            let outcome = outcomes.get(key).cloned().unwrap_or_default();
            if !["sent", "unknown"].contains(&outcome.as_str()) {
                tally.note(format_args!("in the end {key} is {outcome:?}"));
            }
            sent.insert(key.clone(), outcome);
        }
        return Ok(());
    }
    let tickets = desk.tickets()?;
    let missing = baseline.tickets.iter().filter(|ticket| !tickets.contains(ticket)).count();
    let doubled = desk.doubled()? as usize + tickets.len().saturating_sub(baseline.tickets.len() - missing);
    if missing > 0 || doubled > 0 {
        tally.lost += missing;
        tally.doubled += doubled;
        tally.note(format_args!("{tickets:?} instead of {:?}; {doubled} doubled", baseline.tickets));
    }
    let mut mailbox = seat.look(case)?;
    if case.scenario.server == Server::Old {
        // Without MOVE a message is copied and then deleted; whoever dies in between copies it once more.
        mailbox.iter_mut().skip(case.scenario.folders).for_each(Vec::dedup);
    }
    if mailbox != baseline.mailbox {
        tally.note(format_args!("the mailbox holds {mailbox:?} instead of {:?}", baseline.mailbox));
    }
    let again = end.report.as_ref().map(|report| report["again"].clone()).unwrap_or_default();
    if again["ended"] != true || again["delivered"] != 0 {
        tally.note(format_args!("run once more: {again}"));
    }
    Ok(())
}

/// One copy of what was sent, at most one of what nobody knows.
fn count_copies(world: &World, workers: usize, sent: &Sent, tally: &mut Tally) -> Result<()> {
    let sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
    if sent.is_empty() {
        return Ok(());
    }
    let end = Instant::now() + Duration::from_secs(60);
    let copies = |arrived: &[String], key: &str| arrived.iter().filter(|subject| *subject == key).count();
    loop {
        let arrived: Vec<_> = (0..workers).map(|number| world.arrived(number)).collect::<Result<Vec<_>>>()?.concat();
        let mut wrong = Tally::default();
        for (key, outcome) in sent.iter() {
            match (outcome.as_str(), copies(&arrived, key)) {
                ("sent", 1) | ("unknown", 0 | 1) | ("", _) => {}
                (_, 0) => {
                    wrong.lost += 1;
                    wrong.note(format_args!("{key} is said to be {outcome} and did not arrive"));
                }
                (_, count) => {
                    wrong.doubled += count - 1;
                    wrong.note(format_args!("{key} is {outcome} and arrived {count} times"));
                }
            }
        }
        if wrong.lost == 0 || Instant::now() > end {
            tally.good = tally.good.saturating_sub(wrong.notes.len());
            tally.add(wrong);
            return Ok(());
        }
        thread::sleep(Duration::from_millis(200));
    }
}
