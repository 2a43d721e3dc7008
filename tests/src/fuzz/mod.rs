//! Mutates inputs of every parser, deterministically, on stable Rust: the same seed tries the same inputs.
//!
//! A finding is a panic (also one that the library catches, but for those of imap-proto, which it is made to catch), a
//! broken promise that a target asserts, or a case that takes longer than [`SLOW`].

mod hostile;
mod mutate;
mod seeds;
pub mod targets;

use std::{
    fs::File,
    os::unix::fs::FileExt,
    panic::{self, AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use crate::Result;

use mutate::Mutator;

/// No real message, answer or document takes a hundredth of it.
pub const SLOW: Duration = Duration::from_secs(2);

/// One parser, and what to begin from.
pub struct Target {
    pub name: &'static str,
    pub seeds: Vec<Vec<u8>>,
    /// Words that mean something there.
    pub words: &'static [&'static str],
    /// Largest input, bytes.
    pub max_len: usize,
    pub run: Run,
}

/// Takes one input; panics when a promise is broken.
pub type Run = Box<dyn FnMut(&[u8])>;

/// How a target went.
pub struct Report {
    pub name: &'static str,
    pub cases: u64,
    pub bytes: u64,
    pub crash: Option<Crash>,
}

pub struct Crash {
    pub input: Vec<u8>,
    /// What happened, and where.
    pub what: String,
}

/// Cases begun so far: a watchdog sees whether they still go on.
pub static BEGUN: AtomicU64 = AtomicU64::new(0);

/// Where the input of the running case is kept, for whoever survives when the process does not.
pub struct Scratch(File);

impl Scratch {
    pub fn create(path: &Path) -> Result<Self> {
        Ok(Self(File::options().create(true).truncate(true).read(true).write(true).open(path)?))
    }

    pub fn read(path: &Path) -> Result<Vec<u8>> {
        let bytes = std::fs::read(path)?;
        let len = bytes.first_chunk().map_or(0, |len| u64::from_le_bytes(*len)) as usize;
        Ok(bytes.get(8..8 + len).unwrap_or_default().to_vec())
    }

    fn note(&self, input: &[u8]) -> Result<()> {
        self.0.write_all_at(input, 8)?;
        Ok(self.0.write_all_at(&(input.len() as u64).to_le_bytes(), 0)?)
    }
}

/// Mutates the seeds for this long, or until something is found. First come the seeds as they are.
pub fn run(target: &mut Target, seed: u64, duration: Duration, scratch: Option<&Scratch>) -> Result<Report> {
    let mut mutator = Mutator::new(seed, target.words, target.max_len);
    let mut report = Report { name: target.name, cases: 0, bytes: 0, crash: None };
    let end = Instant::now() + duration;
    while report.crash.is_none() && (report.cases < target.seeds.len() as u64 || Instant::now() < end) {
        let input = match target.seeds.get(report.cases as usize) {
            Some(seed) => seed.clone(),
            None => mutator.next(&target.seeds),
        };
        if let Some(scratch) = scratch {
            scratch.note(&input)?;
        }
        report.cases += 1;
        report.bytes += input.len() as u64;
        report.crash = case(target, &input);
    }
    Ok(report)
}

/// One input; what it did.
pub fn case(target: &mut Target, input: &[u8]) -> Option<Crash> {
    watch_panics();
    BEGUN.fetch_add(1, SeqCst);
    let crash = |what: String| Some(Crash { input: input.to_vec(), what });
    let begun = Instant::now();
    let escaped = catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err();
    let took = begun.elapsed();
    match FOUND.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(panic) => crash(panic),
        None if escaped => crash("a panic".to_owned()),
        // Each time: else it was whoever shares the machine.
        None if took > SLOW && (0..2).all(|_| is_slow(target, input)) => crash(format!("took {took:?}")),
        None => None,
    }
}

fn is_slow(target: &mut Target, input: &[u8]) -> bool {
    let begun = Instant::now();
    let _ = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    begun.elapsed() > SLOW
}

/// The first panic since the last case, on whatever thread.
static FOUND: Mutex<Option<String>> = Mutex::new(None);

fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let text = info.to_string();
            let thread = std::thread::current();
            if info.location().is_some_and(|at| at.file().contains("imap-proto")) {
                return;
            }
            // A test that fails beside us is not meant.
            let own = RUNNING.get() || thread.name().is_some_and(|name| name.starts_with("oauth-mail"));
            if own {
                FOUND.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
            } else {
                usual(info);
            }
        }));
    });
    RUNNING.set(true);
}

thread_local! {
    static RUNNING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(run: impl FnMut(&[u8]) + 'static) -> Target {
        Target { name: "test", seeds: vec![b"seed 1".to_vec()], words: &["boom"], max_len: 100, run: Box::new(run) }
    }

    /// One test: the hook is one for all.
    #[test]
    fn what_goes_wrong_is_found_and_what_goes_well_is_not() {
        let mut here = target(|input| assert!(!input.windows(4).any(|part| part == b"boom")));
        let report = run(&mut here, 1, Duration::from_secs(10), None).unwrap();
        let crash = report.crash.unwrap();
        assert!(String::from_utf8_lossy(&crash.input).contains("boom") && crash.what.contains("mod.rs"));
        assert!(report.cases > 1 && case(&mut here, b"seed 1").is_none());
        // The library catches a panic of its threads, and the fuzzer sees it all the same.
        let mut elsewhere = target(|_| {
            let thread = std::thread::Builder::new().name("oauth-mail-read".into());
            let _ = thread.spawn(|| panic!("caught")).map(std::thread::JoinHandle::join);
        });
        assert!(case(&mut elsewhere, b"").unwrap().what.contains("caught"));
        assert!(case(&mut target(|_| std::thread::sleep(SLOW * 2)), b"").unwrap().what.contains("took"));
    }
}
