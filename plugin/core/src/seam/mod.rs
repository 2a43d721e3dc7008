//! The seam: every connection, every network read and write, every store operation, spool file, lock and clock passes
//! here, where a test can count it, name it, fail it, or stop the process at it.
//!
//! Only with the feature `test-seam`, which no build that is shipped has: without it each function is what it wraps and
//! nothing else, and the library holds no trace of the names.

#[cfg(feature = "test-seam")]
pub mod control;

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

/// A fallible operation is about to begin. To stop before the next one is to stop after this one.
///
/// `name`: `LAYER.OPERATION`, for example `net.read`, `store.write`.
///
/// # Errors
/// What a test wants this operation to end with.
#[inline(always)]
pub fn step(name: &'static str) -> io::Result<()> {
    #[cfg(feature = "test-seam")]
    control::step(name)?;
    let _ = name;
    Ok(())
}

/// The guarded value, also after a panic of another thread: whoever locks replaces it whole or can live with half.
#[inline(always)]
pub fn lock<'a, T>(name: &'static str, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
    #[cfg(feature = "test-seam")]
    control::count_lock(name);
    let _ = name;
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The monotonic clock.
#[inline(always)]
pub fn instant() -> Instant {
    #[cfg(feature = "test-seam")]
    return Instant::now() + control::skipped();
    #[cfg(not(feature = "test-seam"))]
    Instant::now()
}

/// The wall clock.
#[inline(always)]
pub fn wall() -> SystemTime {
    #[cfg(feature = "test-seam")]
    return SystemTime::now() + control::skipped();
    #[cfg(not(feature = "test-seam"))]
    SystemTime::now()
}

#[inline(always)]
pub fn sleep(wait: Duration) {
    #[cfg(feature = "test-seam")]
    control::count_lock("sleep");
    thread::sleep(wait);
}

/// How many of `wanted` bytes may pass a connection now. `wait`: how long its reader or writer would wait for a peer
/// that fell silent.
///
/// # Errors
/// The connection was cut here by a test: with a reset, or it stood still for `wait`. `Ok(0)`: the peer ended it.
#[inline(always)]
pub fn passing(way: Way, wanted: usize, wait: impl FnOnce() -> io::Result<Duration>) -> io::Result<usize> {
    #[cfg(feature = "test-seam")]
    return control::passing(way, wanted, wait);
    #[cfg(not(feature = "test-seam"))]
    {
        let _ = (way, wait);
        Ok(wanted)
    }
}

/// These bytes did pass.
#[inline(always)]
pub fn passed(way: Way, count: usize) {
    #[cfg(feature = "test-seam")]
    control::passed(way, count);
    let _ = (way, count);
}

/// Seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Received,
    Sent,
}
