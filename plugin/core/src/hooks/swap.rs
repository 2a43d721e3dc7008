//! Compare-and-swap of a record that others change too.

use crate::{
    error::{Error, Result},
    limits,
};

/// Repeats `attempt` (read, change, write the version that was read) until it holds: `None` says that somebody else was
/// faster. `busy`: what is said when that goes on.
///
/// # Errors
/// Those of `attempt`; `busy` after `limits::SWAP_ATTEMPTS`.
pub fn until_it_holds<T>(busy: impl FnOnce() -> Error, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    for _ in 0..limits::SWAP_ATTEMPTS {
        if let Some(done) = attempt()? {
            return Ok(done);
        }
    }
    Err(busy())
}
