//! A thread that owns a value and runs calls on it, one after the other.
//!
//! The host's threads may have small stacks, and a deadline must hold even when a library does not return: so the
//! work runs here, and the caller waits by its own deadline.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, SyncSender, TrySendError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    call::{self, Call},
    clock::Deadline,
    error::{Error, Kind, Result},
    guard::guarded,
    limits, machine, seam,
};

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;
/// What is still to be done when the caller may have its result already.
pub type FollowUp = Option<Box<dyn FnOnce() + Send>>;

pub struct Worker<S> {
    jobs: Option<SyncSender<Job<S>>>,
    thread: Option<JoinHandle<()>>,
    panicked: Arc<AtomicBool>,
    cancelled: Arc<AtomicU64>,
    bell: Arc<Bell>,
}

/// Why a caller went without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// The deadline passed; what was being waited for.
    TooLate(Option<&'static str>),
    Cancelled,
    Closed,
    /// Too many wait already.
    Full,
}

impl<S: Send + 'static> Worker<S> {
    pub fn start(name: &str, state: S) -> Result<Self> {
        let (jobs, queue) = mpsc::sync_channel::<Job<S>>(limits::CALLS_QUEUED_MAX);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .stack_size(limits::WORKER_STACK)
            .spawn(move || {
                let mut state = state;
                for job in queue {
                    job(&mut state);
                }
            })
            .map_err(|e| machine::no_thread("The call could not begin.", e))?;
        let (jobs, thread) = (Some(jobs), Some(thread));
        Ok(Self { jobs, thread, panicked: Arc::default(), cancelled: Arc::default(), bell: Arc::default() })
    }

    /// Runs `work` on the thread and waits for its result, at most until `deadline`. Work whose caller has given up
    /// before it began is not begun.
    pub fn call<R: Send + 'static>(
        &self,
        what: &'static str,
        deadline: Deadline,
        work: impl FnOnce(&mut S) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.call_then(what, deadline, work, |_| None).unwrap_or_else(|missed| Err(missed.into_error(what)))
    }

    /// As [`Worker::call`]. What `then` makes of the result is done on the thread, too; the caller
    /// waits a moment for it, and never beyond the deadline.
    ///
    /// # Errors
    /// Why there is no result.
    pub fn call_then<R: Send + 'static>(
        &self,
        what: &'static str,
        deadline: Deadline,
        work: impl FnOnce(&mut S) -> Result<R> + Send + 'static,
        then: impl FnOnce(&Result<R>) -> FollowUp + Send + 'static,
    ) -> std::result::Result<Result<R>, Missed> {
        let call = self.enter(deadline);
        let slot = Arc::new(Mutex::new(Slot::default()));
        let end = End { slot: slot.clone(), bell: self.bell.clone() };
        let (running, panicked) = (call.clone(), self.panicked.clone());
        self.post(Box::new(move |state| {
            let result = match running.is_cancelled() {
                true => Err(was_cancelled(what)),
                false => deadline.check(what).and_then(|_| {
                    let result = guarded(what, || Ok(running.run(|| work(state))));
                    result.unwrap_or_else(|panic| {
                        panicked.store(true, Ordering::Release);
                        Err(panic)
                    })
                }),
            };
            let follow_up = guarded(what, || Ok(then(&result))).unwrap_or(None);
            end.publish(result);
            if let Some(follow_up) = follow_up {
                let _ = guarded(what, || {
                    follow_up();
                    Ok(())
                });
            }
        }))?;
        call::waiting(what, || self.wait(&call, &slot, deadline))
    }

    /// A call of this worker that runs on the thread of the caller.
    pub fn enter(&self, deadline: Deadline) -> Call {
        Call::new(deadline, self.cancelled.clone())
    }

    fn wait<R>(
        &self,
        call: &Call,
        slot: &Mutex<Slot<R>>,
        deadline: Deadline,
    ) -> std::result::Result<Result<R>, Missed> {
        let outer = call::current();
        // A little longer than the work itself has: it knows better what it was waiting for. Whoever
        // waits for the one that waits here has a little more.
        let grace = if outer.is_some() { limits::INNER_GRACE } else { limits::CALLER_GRACE };
        let give_up = seam::instant() + deadline.left() + grace;
        let mut bell = seam::lock("worker.bell", &self.bell.0);
        loop {
            let now = seam::instant();
            let mut end = give_up;
            {
                let mut slot = seam::lock("worker.slot", slot);
                let is_cancelled = call.is_cancelled() || outer.as_ref().is_some_and(Call::is_cancelled);
                if let Some(published) = slot.published {
                    end = end.min(published + limits::FOLLOW_UP_WAIT);
                }
                if slot.has_ended || is_cancelled || now >= end {
                    return match slot.result.take() {
                        Some(result) => Ok(result),
                        None if slot.has_ended => Err(Missed::Closed),
                        None if is_cancelled => Err(Missed::Cancelled),
                        None => Err(Missed::TooLate(call.waiting_for())),
                    };
                }
            }
            let mut wait = end.saturating_duration_since(now);
            // The cancellation of an outer call, and the clock of a test, ring no bell.
            if outer.is_some() || cfg!(feature = "test-seam") {
                wait = wait.min(limits::CANCEL_POLL);
            }
            bell = self.bell.1.wait_timeout(bell, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// All calls that run or wait come back; what runs on the thread goes on to its own deadline, and nobody hears of it.
    pub fn cancel(&self) {
        self.cancelled.fetch_add(1, Ordering::AcqRel);
        self.bell.ring();
    }

    /// Runs `work` on the thread without waiting.
    pub fn start_job(&self, what: &'static str, work: impl FnOnce(&mut S) + Send + 'static) -> Result<()> {
        let panicked = self.panicked.clone();
        let job: Job<S> = Box::new(move |state| {
            let end = guarded(what, || {
                work(state);
                Ok(())
            });
            if end.is_err() {
                panicked.store(true, Ordering::Release);
            }
        });
        self.post(job).map_err(|missed| missed.into_error(what))
    }

    /// Did anything that ran here panic? Then the value is suspect and the handle must be closed.
    pub fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::Acquire)
    }

    /// `drop` will not wait for what is running.
    pub fn leave(&mut self) {
        self.thread = None;
    }

    fn post(&self, job: Job<S>) -> std::result::Result<(), Missed> {
        self.jobs.as_ref().ok_or(Missed::Closed)?.try_send(job).map_err(|e| match e {
            TrySendError::Full(_) => Missed::Full,
            TrySendError::Disconnected(_) => Missed::Closed,
        })
    }
}

impl Missed {
    pub fn into_error(self, what: &str) -> Error {
        match self {
            Self::TooLate(waited_for) => {
                let message = match waited_for {
                    Some(other) => format!("{what} did not end within its deadline: it was waiting for {other}."),
                    None => format!("{what} did not end within its deadline."),
                };
                Error::new(Kind::Transient, message).remedy("Nothing is lost: call again later.")
            }
            Self::Cancelled => was_cancelled(what),
            Self::Closed => Error::new(Kind::Closed, "The handle was closed."),
            Self::Full => Error::new(Kind::Misuse, "Too many calls wait for this handle.")
                .remedy("A handle serves one call at a time: open one handle per thread."),
        }
    }
}

fn was_cancelled(what: &str) -> Error {
    Error::new(Kind::Transient, format!("{what} was cancelled by the host.")).remedy("It can be called again.")
}

/// Rung when something ended or was cancelled.
#[derive(Default)]
struct Bell(Mutex<()>, Condvar);

impl Bell {
    fn ring(&self) {
        // Whoever looked before it was rung is waiting by now.
        drop(seam::lock("worker.bell", &self.0));
        self.1.notify_all();
    }
}

struct Slot<R> {
    result: Option<Result<R>>,
    published: Option<Instant>,
    has_ended: bool,
}

impl<R> Default for Slot<R> {
    fn default() -> Self {
        Self { result: None, published: None, has_ended: false }
    }
}

/// Dropped with the job, also with one that never ran.
struct End<R> {
    slot: Arc<Mutex<Slot<R>>>,
    bell: Arc<Bell>,
}

impl<R> End<R> {
    fn publish(&self, result: Result<R>) {
        {
            let mut slot = seam::lock("worker.slot", &self.slot);
            (slot.result, slot.published) = (Some(result), Some(seam::instant()));
        }
        self.bell.ring();
    }
}

impl<R> Drop for End<R> {
    fn drop(&mut self) {
        seam::lock("worker.slot", &self.slot).has_ended = true;
        self.bell.ring();
    }
}

impl<S> Drop for Worker<S> {
    /// Joins the thread when it ends in time; else leaves it to its own deadlines.
    fn drop(&mut self) {
        self.jobs = None;
        let Some(thread) = self.thread.take() else { return };
        let give_up = seam::instant() + limits::CLOSE_WAIT;
        while !thread.is_finished() && seam::instant() < give_up {
            seam::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(5))
    }

    #[test]
    fn calls_run_in_order_on_one_value() {
        let worker = Worker::start("test", 0u32).unwrap();
        for expected in 1..=3 {
            let got = worker.call("a test", soon(), |n| {
                *n += 1;
                Ok(*n)
            });
            assert_eq!(got.unwrap(), expected);
        }
    }

    #[test]
    fn a_panic_is_an_internal_error_and_is_remembered() {
        let worker = Worker::start("test", ()).unwrap();
        let error = worker.call::<()>("a test", soon(), |_| panic!("boom")).unwrap_err();
        assert_eq!(error.kind(), Kind::Internal);
        assert!(worker.has_panicked());
    }

    #[test]
    fn a_cancelled_caller_is_back_at_once_and_what_waits_is_not_begun() {
        let worker = Worker::start("test", 0u32).unwrap();
        let (begun, has_begun) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let worker = &worker;
        thread::scope(|scope| {
            let running = scope.spawn(move || {
                worker.call("a test", soon(), move |_| {
                    begun.send(()).unwrap();
                    // Until the test lets it: a caller that waits for it would never be back.
                    let _ = may_go_on.recv();
                    Ok(())
                })
            });
            has_begun.recv().unwrap();
            let waiting = scope.spawn(|| {
                worker.call("a test", soon(), |n| {
                    *n += 1;
                    Ok(())
                })
            });
            worker.cancel();
            let error = running.join().unwrap().unwrap_err();
            assert_eq!((error.kind(), error.message()), (Kind::Transient, "a test was cancelled by the host."));
            go_on.send(()).unwrap();
            // It came before or after the cancellation: then it was cancelled, or it was done.
            let waited = waiting.join().unwrap();
            let done = worker.call("a test", soon(), |n| Ok(*n)).unwrap();
            assert_eq!(done, u32::from(waited.is_ok()));
        });
    }

    #[test]
    fn a_caller_is_back_by_its_deadline_even_if_the_work_is_not() {
        let worker = Worker::start("test", ()).unwrap();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let error = worker
            .call("a test", Deadline::after(Duration::from_millis(50)), move |_| {
                // Until the test is done: a caller that waits for it would never be back.
                let _ = may_go_on.recv();
                Ok(())
            })
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Transient);
        drop(go_on);
    }

    #[test]
    fn what_follows_a_call_neither_keeps_its_caller_beyond_a_moment_nor_changes_its_result() {
        let worker = Worker::start("test", ()).unwrap();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let follow_up = move |_: &Result<u32>| -> FollowUp {
            Some(Box::new(move || {
                let _ = may_go_on.recv();
            }))
        };
        let begun = Instant::now();
        let result = worker.call_then("a test", soon(), |()| Ok(7), follow_up);
        assert_eq!(result.unwrap().unwrap(), 7);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        // The next call waits its turn, and its deadline names what it waited for.
        let late = worker.call::<()>("a test", Deadline::after(Duration::from_millis(50)), |()| Ok(())).unwrap_err();
        assert_eq!(late.message(), "a test did not end within its deadline.");
        drop(go_on);
        worker.call("a test", soon(), |()| Ok(())).unwrap();
    }

    #[test]
    fn a_caller_hears_what_its_call_was_waiting_for() {
        let worker = Worker::start("test", ()).unwrap();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let late = worker.call("a test", Deadline::after(Duration::from_millis(50)), move |()| {
            call::waiting("the store", || {
                let _ = may_go_on.recv();
            });
            Ok(())
        });
        assert_eq!(
            late.unwrap_err().message(),
            "a test did not end within its deadline: it was waiting for the store."
        );
        drop(go_on);
    }
}
