//! The only `catch_unwind` of the library: foreign parsers and whole hooks run inside it.

use std::{
    any::Any,
    cell::RefCell,
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::Once,
};

use crate::error::{Error, Kind, Result};

/// Runs `work`; a panic in it becomes an `Internal` error that names where, and nothing else is lost.
///
/// The value that `work` was touching may be half-changed after a panic: callers drop it (a session, a parse) or
/// close the handle.
pub fn guarded<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(Error::new(Kind::Internal, format!("Something in {what} failed unexpectedly: {}.", text_of(&*panic)))
            .remedy("Please report it with the log; the mailbox can be opened again."))
    })
}

/// Keeps panics off the host's stderr, where their unredacted text would land; the place is kept for the error instead.
///
/// Called by the loadable library only: it has a standard library, and so a panic hook, of its own.
pub fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let place = info.location().map(|at| format!("{}:{}", at.file(), at.line()));
            PLACE.with_borrow_mut(|last| *last = place);
        }));
    });
}

thread_local! {
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no text".to_owned());
    // A panic message may quote its input (a slice, a string): keep it short and redacted.
    let text = crate::log::redact(&text.chars().take(120).collect::<String>());
    match PLACE.take() {
        Some(place) => format!("{text} (at {place})"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_internal_error() {
        let error = guarded::<()>("a test", || panic!("boom")).unwrap_err();
        assert_eq!(error.kind(), Kind::Internal);
        assert!(error.message().contains("boom"));
    }
}
