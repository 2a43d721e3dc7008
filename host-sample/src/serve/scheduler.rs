//! Every mailbox at its interval: one thread that looks what is due each second, and a few that do the rounds.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::json;

use super::{log::Log, mailboxes::Mailboxes, storage::Due};
use crate::failure::{Failure, Result};

const TICK: Duration = Duration::from_secs(1);
/// Without a tick that succeeded for so long, the scheduler is not well.
const TICK_MAX: Duration = Duration::from_secs(15);
/// What was late when the host starts comes at most so fast, and within this time.
const SPREAD_PER_SECOND_AND_THREAD: i64 = 1;
const SPREAD_SECONDS: i64 = 300;
/// From the closing of accounts to the end of their calls.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

pub struct Scheduler {
    shared: Arc<Shared>,
    ticker: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    mailboxes: Arc<Mailboxes>,
    log: Log,
    stopping: AtomicBool,
    /// Wakes the ticker.
    woken: Condvar,
    pulse: Mutex<Pulse>,
}

struct Pulse {
    ticked: Instant,
    /// Why the last tick failed.
    trouble: Option<String>,
    /// The last tick left no thread free: the next free one is reason enough to look again.
    busy: bool,
    /// Look at once.
    wake: bool,
}

impl Scheduler {
    pub fn start(mailboxes: Arc<Mailboxes>, threads: usize, log: Log) -> Result<Self> {
        let now = mailboxes.storage.now()?;
        mailboxes.storage.spread_overdue(now, threads as i64 * SPREAD_PER_SECOND_AND_THREAD, SPREAD_SECONDS)?;
        let pulse = Mutex::new(Pulse { ticked: Instant::now(), trouble: None, busy: false, wake: false });
        let (stopping, woken) = (AtomicBool::new(false), Condvar::new());
        let shared = Arc::new(Shared { mailboxes, log, stopping, woken, pulse });
        let (sender, receiver) = mpsc::channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..threads {
            let (shared, receiver) = (shared.clone(), receiver.clone());
            spawn(&format!("round-{number}"), move || shared.work(&receiver))?;
        }
        let ticking = shared.clone();
        let ticker = spawn("scheduler", move || ticking.tick_on(&sender))?;
        Ok(Self { shared, ticker: Mutex::new(Some(ticker)) })
    }

    /// # Errors
    /// A sentence: why no round would begin.
    pub fn health(&self) -> Result<(), String> {
        let pulse = self.shared.pulse();
        match &pulse.trouble {
            Some(why) => Err(why.clone()),
            None if pulse.ticked.elapsed() <= TICK_MAX => Ok(()),
            None => Err("The scheduler has not looked for work for a while.".into()),
        }
    }

    /// No new rounds; those that run end within `patience`, else their calls are ended. Blocks.
    pub fn stop(&self, patience: Duration) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.woken.notify_all();
        let ticker = self.ticker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ticker) = ticker {
            let _ = ticker.join();
        }
        if !self.drained(patience) {
            self.shared.mailboxes.close_all();
            if !self.drained(CLOSE_WAIT) {
                // What still hangs ends with the process; another node may begin at once.
                for mailbox in self.shared.mailboxes.queue.abandon() {
                    self.shared.log.warn("round", Some(mailbox), json!({"result": "abandoned"}));
                }
            }
        }
        self.shared.mailboxes.close_all();
    }

    fn drained(&self, patience: Duration) -> bool {
        let (end, mut renewed) = (Instant::now() + patience, Instant::now());
        let mailboxes = &self.shared.mailboxes;
        while !mailboxes.queue.running().is_empty() {
            if Instant::now() >= end {
                return false;
            }
            if renewed.elapsed() >= TICK {
                renewed = Instant::now();
                // Without a database the leases end by themselves.
                let _ = mailboxes.storage.now().and_then(|now| mailboxes.queue.renew(now));
            }
            thread::sleep(LOOK_AGAIN);
        }
        true
    }
}

impl Shared {
    fn tick_on(&self, sender: &Sender<Due>) {
        while !self.stopping.load(Ordering::SeqCst) {
            let ticked = self.tick(sender);
            let mut pulse = self.pulse();
            match ticked {
                Ok(busy) => *pulse = Pulse { ticked: Instant::now(), trouble: None, busy, wake: false },
                Err(failure) => {
                    let why = failure.sentences().join(" ");
                    if pulse.trouble.as_ref() != Some(&why) {
                        self.log.error("scheduler", None, json!({ "why": why }));
                    }
                    (pulse.trouble, pulse.busy, pulse.wake) = (Some(why), false, false);
                }
            }
            let is_idle = |pulse: &mut Pulse| !pulse.wake && !self.stopping.load(Ordering::SeqCst);
            let _ = self.woken.wait_timeout_while(pulse, TICK, is_idle);
        }
    }

    /// Is every thread at work now?
    fn tick(&self, sender: &Sender<Due>) -> Result<bool> {
        let now = self.mailboxes.storage.now()?;
        let tick = self.mailboxes.queue.tick(now)?;
        for mailbox in tick.lost {
            self.log.warn("lease_lost", Some(mailbox), json!({}));
            self.mailboxes.close(mailbox);
        }
        for due in tick.claimed {
            // The threads live as long as the sender.
            let _ = sender.send(due);
        }
        Ok(tick.is_full)
    }

    fn work(&self, receiver: &Mutex<Receiver<Due>>) {
        loop {
            let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(due) = next else { return };
            let stop = || self.stopping.load(Ordering::SeqCst);
            if let Err(failure) = self.mailboxes.round(&due, &stop) {
                self.log.error("storage", Some(due.mailbox), json!({"why": failure.sentences().join(" ")}));
            }
            let mut pulse = self.pulse();
            pulse.wake = pulse.busy;
            drop(pulse);
            self.woken.notify_all();
        }
    }

    fn pulse(&self) -> MutexGuard<'_, Pulse> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| Failure::other(format!("No thread can be started: {error}.")))
}
