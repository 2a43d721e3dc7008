//! A thread that owns a value and runs calls on it, one after the other.
//!
//! The host's threads may have small stacks, and a deadline must hold even when a library does not return: so the
//! work runs here, and the caller waits by its own deadline.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError, SyncSender, TrySendError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    guard::guarded,
    limits, machine, seam,
};

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

pub struct Worker<S> {
    jobs: Option<SyncSender<Job<S>>>,
    thread: Option<JoinHandle<()>>,
    panicked: Arc<AtomicBool>,
    /// Counts cancellations: a call that sees it move has been cancelled.
    cancelled: Arc<AtomicU64>,
}

/// How often a waiting caller looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(50);

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
        Ok(Self { jobs: Some(jobs), thread: Some(thread), panicked: Arc::default(), cancelled: Arc::default() })
    }

    /// Runs `work` on the thread and waits for its result, at most until `deadline`. Work whose caller has given up
    /// before it began is not begun.
    pub fn call<R: Send + 'static>(
        &self,
        what: &'static str,
        deadline: Deadline,
        work: impl FnOnce(&mut S) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let (cancelled, before) = (self.cancelled.clone(), self.cancelled.load(Ordering::Acquire));
        self.post(
            what,
            move |state, result: &mut Option<Result<R>>| {
                let is_wanted = cancelled.load(Ordering::Acquire) == before;
                let begun = if is_wanted { deadline.check(what).map(drop) } else { Err(was_cancelled(what)) };
                *result = Some(begun.and_then(|()| work(state)));
            },
            sender,
        )?;
        // A little longer than the work itself has: it knows better what it was waiting for.
        let give_up = seam::instant() + deadline.left() + Duration::from_millis(200);
        loop {
            let patience = give_up.saturating_duration_since(seam::instant());
            match receiver.recv_timeout(patience.min(CANCEL_POLL)) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::new(Kind::Closed, "The handle was closed.")),
                Err(RecvTimeoutError::Timeout) if self.cancelled.load(Ordering::Acquire) != before => {
                    return Err(was_cancelled(what));
                }
                Err(RecvTimeoutError::Timeout) if patience.is_zero() => {
                    return Err(Error::new(Kind::Transient, format!("{what} did not end within its deadline."))
                        .remedy("It is tried again at the next interval."));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// All calls that run or wait come back; what runs on the thread goes on to its own deadline, and nobody hears of it.
    pub fn cancel(&self) {
        self.cancelled.fetch_add(1, Ordering::AcqRel);
    }

    /// Runs `work` on the thread without waiting.
    pub fn start_job(&self, what: &'static str, work: impl FnOnce(&mut S) + Send + 'static) -> Result<()> {
        let (sender, _) = mpsc::sync_channel(1);
        self.post(what, move |state, _: &mut Option<Result<()>>| work(state), sender)
    }

    /// Did anything that ran here panic? Then the value is suspect and the handle must be closed.
    pub fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::Acquire)
    }

    /// `drop` will not wait for what is running.
    pub fn leave(&mut self) {
        self.thread = None;
    }

    fn post<R: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut S, &mut Option<Result<R>>) + Send + 'static,
        sender: SyncSender<Result<R>>,
    ) -> Result<()> {
        let panicked = self.panicked.clone();
        let job: Job<S> = Box::new(move |state| {
            let mut result = None;
            let end = guarded(what, || {
                work(state, &mut result);
                Ok(())
            });
            if let Err(panic) = end {
                panicked.store(true, Ordering::Release);
                result = Some(Err(panic));
            }
            if let Some(result) = result {
                let _ = sender.send(result);
            }
        });
        let jobs = self.jobs.as_ref().ok_or_else(|| Error::new(Kind::Closed, "The handle was closed."))?;
        jobs.try_send(job).map_err(|e| match e {
            TrySendError::Full(_) => Error::new(Kind::Misuse, "Too many calls wait for this handle.")
                .remedy("A handle serves one call at a time: open one handle per thread."),
            TrySendError::Disconnected(_) => Error::new(Kind::Closed, "The handle was closed."),
        })
    }
}

fn was_cancelled(what: &str) -> Error {
    Error::new(Kind::Transient, format!("{what} was cancelled by the host.")).remedy("It can be called again.")
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
            assert!(error.kind() == Kind::Transient && error.message().contains("cancelled"), "{error}");
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
}
