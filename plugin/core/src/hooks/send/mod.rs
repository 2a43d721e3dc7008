//! `send_message`: one message out, and what became of it.
//!
//! ```text
//! Claimed ─▶ Composed ─▶ Allowed ─▶ Offered ─▶ Known          each value is made only from the one before it
//! ```

mod automatic_limit;
mod idempotency;
mod outcome;
mod rate;
mod send_message;
mod signing;

pub use idempotency::Unreleased;
pub use rate::Rates;
pub use send_message::{Send, parse};
pub use signing::Signing;
