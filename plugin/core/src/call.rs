//! The call of the host that this thread works for: its deadline, whether the host gave it up, and
//! what it waits for at this moment. Whatever waits below a hook and takes no deadline of its own
//! (a store, above all) asks here.

use std::{
    cell::RefCell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{clock::Deadline, seam};

#[derive(Clone)]
pub struct Call(Arc<State>);

struct State {
    deadline: Deadline,
    /// Counts the cancellations of a handle: a call that sees it move was cancelled.
    cancelled: Arc<AtomicU64>,
    before: u64,
    waiting_for: Mutex<Option<&'static str>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Call>> = const { RefCell::new(None) };
}

impl Call {
    pub fn new(deadline: Deadline, cancelled: Arc<AtomicU64>) -> Self {
        let before = cancelled.load(Ordering::Acquire);
        Self(Arc::new(State { deadline, cancelled, before, waiting_for: Mutex::new(None) }))
    }

    /// Runs `work` as part of this call.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        within(Some(self.clone()), work)
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire) != self.0.before
    }

    pub fn waiting_for(&self) -> Option<&'static str> {
        *seam::lock("call.waiting", &self.0.waiting_for)
    }

    fn wait_for(&self, what: Option<&'static str>) -> Option<&'static str> {
        std::mem::replace(&mut *seam::lock("call.waiting", &self.0.waiting_for), what)
    }
}

/// Runs `work`, which writes down what has happened already: an outcome, a rotated token. It must reach the
/// store also when the deadline is over or the host gave the call up. The caller does not wait for it; the store's own bound
/// holds.
pub fn recording<R>(work: impl FnOnce() -> R) -> R {
    within(None, work)
}

fn within<R>(call: Option<Call>, work: impl FnOnce() -> R) -> R {
    /// Also after a panic.
    struct Restore(Option<Call>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _restore = Restore(CURRENT.replace(call));
    work()
}

/// How long may be waited now: `at_most`, and not beyond the deadline of the call.
pub fn left(at_most: Duration) -> Duration {
    current().map_or(at_most, |call| call.0.deadline.left().min(at_most))
}

/// The call that this thread works for, if any.
pub fn current() -> Option<Call> {
    CURRENT.with_borrow(Clone::clone)
}

/// Runs `work`, which waits for `what`: the caller says so if it does not come back.
pub fn waiting<R>(what: &'static str, work: impl FnOnce() -> R) -> R {
    let call = current();
    let before = call.as_ref().and_then(|call| call.wait_for(Some(what)));
    let done = work();
    if let Some(call) = call {
        call.wait_for(before);
    }
    done
}
