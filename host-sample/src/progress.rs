//! One bar on standard error while a fetch is long; log lines go above it.

use std::{
    io::{self, Write as _},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::one_line;

/// The bar that is on the screen. There is one terminal, so there is one of these.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

pub struct Progress {
    enabled: bool,
    done: u64,
}

impl Progress {
    pub fn new(enabled: bool) -> Self {
        Self { enabled, done: 0 }
    }

    /// `delivered` messages more; `remaining` are known to wait. The bar appears with the first batch that is not all.
    pub fn add(&mut self, delivered: u64, remaining: u64) {
        self.done += delivered;
        let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.enabled || (shown.is_none() && remaining == 0) {
            return;
        }
        let bar = shown.get_or_insert_with(bar);
        bar.set_length(self.done + remaining);
        bar.set_position(self.done);
    }

    /// Prints a line on standard error without tearing the bar.
    pub fn above(line: &str) {
        let print = || {
            let _ = writeln!(io::stderr().lock(), "{}", one_line(line));
        };
        match &*SHOWN.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} messages, {per_sec}, {eta} left") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
