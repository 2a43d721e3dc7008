//! Sweeps: the library is stopped, failed, cut off or robbed of its power at every step of a scenario, goes on, and must
//! end where an uninterrupted run ends. They need the feature `test-seam`; `make sweep` runs them all.
//!
//! | module | what |
//! |---|---|
//! | [`scenario`] | what a host does: fetches, settles, sends, with every action and answer |
//! | [`host`] | a small helpdesk in a process of its own, which writes down what it got and said |
//! | [`world`] | the servers, and a folder of its own for each case |
//! | [`beside`] | a look at the mailbox beside the library |
//! | [`steps`] | the sweeps over steps (kill -9 at each; each fails once, then for ever) and over bytes (cuts, stalls) |
//! | [`power`] | power lost at every sync of the store |

pub mod beside;
pub mod host;
pub mod power;
pub mod scenario;
pub mod steps;
pub mod world;

use std::{fmt, time::Duration};

/// Breaks the host or the measuring on purpose: the sweep must turn red.
pub const PLANT: &str = "OAUTH_MAIL_SWEEP_PLANT";

/// What the cases of one sweep came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub cases: usize,
    pub good: usize,
    /// Mail that the host never got, or that was said to be sent and was not.
    pub lost: usize,
    /// Handed out again after it was settled, or sent twice under one key.
    pub doubled: usize,
    pub hangs: usize,
    pub panics: usize,
    /// Mailbox actions on mail that the host had not yet taken.
    pub early: usize,
    /// What was wrong, for the first few.
    pub notes: Vec<String>,
}

impl Tally {
    const NOTES_MAX: usize = 12;

    pub fn is_good(&self) -> bool {
        self.good == self.cases && self.cases > 0
    }

    pub fn add(&mut self, other: Self) {
        self.cases += other.cases;
        self.good += other.good;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.hangs += other.hangs;
        self.panics += other.panics;
        self.early += other.early;
        self.notes.extend(other.notes);
        self.notes.truncate(Self::NOTES_MAX);
    }

    /// One case, in which nothing was wrong if there is nothing to note.
    pub fn case(mut self) -> Self {
        self.cases = 1;
        let faults = self.lost + self.doubled + self.hangs + self.panics + self.early + self.notes.len();
        self.good = usize::from(faults == 0);
        self
    }

    pub fn note(&mut self, note: impl fmt::Display) {
        self.notes.push(note.to_string());
    }
}

/// One sweep's line of the report.
pub struct Line {
    pub name: String,
    pub tally: Tally,
    pub about: String,
    pub took: Duration,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, tally, about, took } = self;
        let Tally { cases, good, lost, doubled, hangs, panics, early, notes } = tally;
        for note in notes {
            writeln!(f, "     {note}")?;
        }
        write!(
            f,
            "{} {name} {good}/{cases}: lost {lost}, doubled {doubled}, hangs {hangs}, panics {panics}, actions before \
             settle {early}; {about} ({:.0} s)",
            if tally.is_good() { "ok  " } else { "MISS" },
            took.as_secs_f64()
        )
    }
}
