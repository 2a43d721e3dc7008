//! OAuth 2.0 mail: settings, tokens, transports, hooks. Knows no ABI.
//!
//! Calls go down only, and a file imports only from below:
//! hooks > session > transport > message > oauth > store > settings > net > leaves.
#![forbid(unsafe_code)]

pub mod hooks;
pub mod message;
pub mod net;
pub mod oauth;
pub mod session;
pub mod settings;
pub mod store;
pub mod transport;

pub mod call;
pub mod clock;
pub mod error;
pub mod guard;
pub mod hex;
pub mod limits;
pub mod log;
pub mod machine;
pub mod remedies;
pub mod seam;
pub mod secret;
pub mod worker;

pub use error::{Error, Kind, Result};
