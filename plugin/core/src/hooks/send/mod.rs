//! `send_message`: one message out, and what became of it.
//!
//! ```text
//! Claimed ─▶ Composed ─▶ Allowed ─▶ Offered ─▶ known          each value is made only from the one before it
//! ```

mod automatic_limit;
mod digest;
mod evidence;
mod expiry;
mod idempotency;
mod outcome;
mod progress;
mod rate;
mod request;
mod send_message;
mod signing;

pub use expiry::Expiry;
pub use idempotency::Unreleased;
pub use rate::Rates;
pub use request::parse;
pub use send_message::Send;
pub use signing::Signing;
