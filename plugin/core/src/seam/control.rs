//! What a test does at the seam. One plan per process: sweeps run each case in a process of its own, or one by one.

use std::{
    env, io, process,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::Way;

/// `abort:N`, `fail:N`, `fail-from:N` or `stall:N`: the plan of a process from its start.
pub const VARIABLE: &str = "OAUTH_MAIL_SEAM";

/// What happens at which step; steps count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plan {
    #[default]
    Watch,
    /// The process ends before this step, as with kill -9: nothing is unwound, closed or flushed.
    Abort(u64),
    /// This step fails, once.
    Fail(u64),
    /// This step fails, and all after it that have its name.
    FailFrom(u64),
    /// This step does not come back until the plan is another one: a disk, a network or a lock that hangs.
    Stall(u64),
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The peer closes in order.
    Fin,
    Reset,
    /// Nothing comes any more. The clock jumps to the end of the wait, so that a sweep over thousands of stalls waits
    /// for none.
    Stall,
}

/// After `after` bytes (of all connections together, from the moment the cut was set) in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub way: Way,
    pub after: u64,
    pub how: How,
}

/// What passed since the plan was set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub steps: Vec<&'static str>,
    pub locks: u64,
    pub received: u64,
    pub sent: u64,
}

#[derive(Default)]
struct State {
    plan: Plan,
    cut: Option<Cut>,
    failing: Option<&'static str>,
    seen: Seen,
}

static SKIPPED_MICROS: AtomicU64 = AtomicU64::new(0);

/// Begins anew with this plan.
pub fn set(plan: Plan) {
    *state() = State { plan, ..State::default() };
}

/// Cuts once, all connections that pass the byte; whole again with [`heal`].
pub fn cut(cut: Cut) {
    *state() = State { cut: Some(cut), ..State::default() };
}

/// Nothing fails and nothing is cut any more; what was seen stays.
pub fn heal() {
    let mut state = state();
    (state.plan, state.cut, state.failing) = (Plan::Watch, None, None);
}

pub fn seen() -> Seen {
    state().seen.clone()
}

/// Both clocks go on by this much at once.
pub fn skip(time: Duration) {
    SKIPPED_MICROS.fetch_add(u64::try_from(time.as_micros()).unwrap_or(0), Ordering::SeqCst);
}

pub(super) fn skipped() -> Duration {
    Duration::from_micros(SKIPPED_MICROS.load(Ordering::Relaxed))
}

pub(super) fn step(name: &'static str) -> io::Result<()> {
    let mut state = state();
    state.seen.steps.push(name);
    let now = state.seen.steps.len() as u64;
    match state.plan {
        Plan::Abort(at) if at == now => process::abort(),
        Plan::FailFrom(at) if at == now => state.failing = Some(name),
        Plan::Fail(at) if at == now => return Err(wanted(name)),
        // Threads may pass their steps in another order than before: a step of the host is no call that can end.
        Plan::Stall(at) if at <= now && !name.starts_with("host.") => {
            let plan = state.plan;
            while state.plan == plan {
                drop(state);
                thread::sleep(Duration::from_millis(2));
                state = self::state();
            }
        }
        _ => {}
    }
    if state.failing == Some(name) { Err(wanted(name)) } else { Ok(()) }
}

fn wanted(name: &str) -> io::Error {
    io::Error::other(format!("a test lets {name} fail"))
}

pub(super) fn count_lock(_: &'static str) {
    state().seen.locks += 1;
}

pub(super) fn passing(way: Way, count: usize, wait: impl FnOnce() -> io::Result<Duration>) -> io::Result<usize> {
    let state = state();
    let Some(cut) = state.cut.filter(|cut| cut.way == way) else { return Ok(count) };
    let before = if way == Way::Received { state.seen.received } else { state.seen.sent };
    let left = usize::try_from(cut.after.saturating_sub(before)).unwrap_or(usize::MAX);
    match cut.how {
        _ if left > 0 => Ok(count.min(left)),
        How::Fin if way == Way::Sent => Err(io::ErrorKind::BrokenPipe.into()),
        How::Fin => Ok(0),
        How::Reset => Err(io::ErrorKind::ConnectionReset.into()),
        How::Stall => {
            skip(wait()?);
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}

pub(super) fn passed(way: Way, count: usize) {
    let mut state = state();
    match way {
        Way::Received => state.seen.received += count as u64,
        Way::Sent => state.seen.sent += count as u64,
    }
}

fn state() -> MutexGuard<'static, State> {
    static STATE: OnceLock<Mutex<State>> = OnceLock::new();
    let mutex = STATE.get_or_init(|| {
        let plan = env::var(VARIABLE).ok().and_then(|text| parse(&text)).unwrap_or_default();
        Mutex::new(State { plan, ..State::default() })
    });
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parse(text: &str) -> Option<Plan> {
    let (what, number) = text.split_once(':')?;
    let at = number.parse().ok()?;
    match what {
        "abort" => Some(Plan::Abort(at)),
        "fail" => Some(Plan::Fail(at)),
        "fail-from" => Some(Plan::FailFrom(at)),
        "stall" => Some(Plan::Stall(at)),
        _ => None,
    }
}
