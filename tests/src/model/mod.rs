//! A model-based test of fetching and settling: a random mailbox, a random host, and a server that answers in parts, refuses,
//! renumbers, restores old states and hangs up, over IMAP, EWS and Graph. The library runs whole, with its store, its
//! tokens and real TLS; only the servers are of this process.
//!
//! A *step* is one thing that happens: an event in the mailbox or to the clock, a call of the host, a message that it is
//! handed, a command or request that the server answers. Nothing depends on time that passes: the clock is the model's.
//!
//! After each run everything becomes calm. Then each message must have been settled once, be open, or lie in quarantine
//! with its bytes.

mod ledger;
mod post;
mod rng;
mod run;

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

pub use post::Kind;
pub use rng::Rng;

/// What the servers of a model may do beside refusing and hanging up. `--without` leaves some out.
pub const WAYS: [&str; 11] = [
    "message-limit",
    "rev2",
    "no-uidnext",
    "no-move",
    "no-expunge",
    "substitutes",
    "unreadable",
    "renumber",
    "restore",
    "clock",
    "same-id",
];

/// Faults of the host that turn the model red: `--plant`.
pub const PLANTS: [&str; 3] = ["settle-before-import", "forget-key", "swallow-mail"];

#[derive(Clone, Debug)]
pub struct Options {
    pub steps: u64,
    pub seed: u64,
    pub jobs: usize,
    pub kinds: Vec<Kind>,
    pub without: Vec<String>,
    pub plant: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Report {
    pub steps: u64,
    pub runs: u64,
    pub lost: u64,
    pub doubled: u64,
    pub stuck: u64,
    /// Handed out again after a renumbering or a restored state.
    pub again: u64,
    /// Seed of each run that broke a promise, and what it saw.
    pub broken: Vec<(u64, Vec<String>)>,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.broken.is_empty()
    }

    fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.runs += other.runs;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.stuck += other.stuck;
        self.again += other.again;
        self.broken.extend(other.broken);
    }
}

/// The last line of `make model`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { steps, lost, doubled, stuck, .. } = self;
        write!(f, "model: {steps}/{steps} steps, lost {lost}, doubled {doubled}, stuck {stuck}")
    }
}

/// Runs until so many steps were made. Each run has a seed of its own, `seed` plus its number, and with that seed alone it
/// can be repeated.
pub fn model(options: &Options) -> Report {
    let (next, made, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let report = Mutex::new(Report::default());
    thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && made.load(Ordering::Relaxed) < options.steps {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let one = run::run(options.seed.wrapping_add(number), options);
                    made.fetch_add(one.steps, Ordering::Relaxed);
                    // Ten examples are enough.
                    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                    report.add(one);
                    if report.broken.len() >= 10 {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    report.into_inner().unwrap_or_else(PoisonError::into_inner)
}
