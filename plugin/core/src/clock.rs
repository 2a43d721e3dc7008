//! The one place that knows what time it is, and how long is left.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

use crate::{
    error::{About, Error, Kind, Result},
    seam,
};

/// Seconds since 1970-01-01 UTC.
pub type UnixSeconds = i64;

/// Wall clock, shiftable so that a test can let a token expire without waiting.
#[derive(Clone, Default)]
pub struct Clock {
    shift_seconds: Arc<AtomicI64>,
}

impl Clock {
    pub fn now(&self) -> UnixSeconds {
        let now = seam::wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        now + self.shift_seconds.load(Ordering::Relaxed)
    }

    /// Moves this clock (and all its clones) forward.
    pub fn advance(&self, seconds: i64) {
        self.shift_seconds.fetch_add(seconds, Ordering::Relaxed);
    }
}

/// The moment by which a call must be back. Every wait below a hook takes one.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    pub fn after(wait: Duration) -> Self {
        Self(seam::instant() + wait)
    }

    /// Time left; zero when it has passed.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(seam::instant())
    }

    /// Time left, or a transient error that says what was being waited for.
    pub fn check(self, waiting_for: &str) -> Result<Duration> {
        let left = self.left();
        if left.is_zero() {
            return Err(Error::new(Kind::Transient, format!("The deadline passed while waiting for {waiting_for}."))
                .with_about(About::Connection)
                .remedy("Try again; if it keeps happening, check the server and the network."));
        }
        Ok(left)
    }

    /// The earlier of this and `wait` from now.
    pub fn at_most(self, wait: Duration) -> Self {
        Self(self.0.min(seam::instant() + wait))
    }
}
