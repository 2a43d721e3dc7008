//! Ctrl-C and SIGTERM: what runs is closed, and the process ends with 130 soon, whatever a server does.

use std::{
    process, ptr,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use oauth_mail_abi::Account;

use crate::failure::{Failure, INTERRUPTED, Result};

/// From the signal to the end of the process at the latest. Nothing is lost by it: what is not settled comes again.
const GRACE_MS: u64 = 3_000;
/// How long a wait may sleep before it looks at the flag again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

static GRACE: AtomicU64 = AtomicU64::new(GRACE_MS);
static REQUESTED: AtomicBool = AtomicBool::new(false);
static OPEN: Mutex<Vec<Weak<Account>>> = Mutex::new(Vec::new());

pub fn install() -> Result<()> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            // Asked twice: somebody is in a hurry.
            process::exit(i32::from(INTERRUPTED));
        }
        thread::spawn(|| {
            thread::sleep(Duration::from_millis(GRACE.load(Ordering::SeqCst)));
            process::exit(i32::from(INTERRUPTED));
        });
        thread::spawn(close_all);
    })
    .map_err(|error| Failure::other(format!("Ctrl-C cannot be handled here: {error}.")))
}

/// For a host that ends its work in order: so long from the signal to the end at the latest.
pub fn grace(grace: Duration) {
    GRACE.store(grace.as_millis() as u64, Ordering::SeqCst);
}

/// The work has ended in order: the process says success, as a service does that was asked to stop.
pub fn heeded() {
    REQUESTED.store(false, Ordering::SeqCst);
}

pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// An error when somebody asked to stop: between two steps of a command.
pub fn check() -> Result<()> {
    if requested() { Err(Failure::other("Interrupted.")) } else { Ok(()) }
}

/// Sleeps, or returns at once when somebody asks to stop.
pub fn sleep(wait: Duration) {
    let end = Instant::now() + wait;
    while !requested() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(LOOK_AGAIN));
    }
}

/// The account is closed on Ctrl-C even while a call on it runs.
pub fn watch(account: &Arc<Account>) {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|known| known.strong_count() > 0 && !ptr::eq(known.as_ptr(), Arc::as_ptr(account)));
    open.push(Arc::downgrade(account));
}

fn close_all() {
    let open = std::mem::take(&mut *OPEN.lock().unwrap_or_else(PoisonError::into_inner));
    for account in open.iter().filter_map(Weak::upgrade) {
        account.close();
    }
}
