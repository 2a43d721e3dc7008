//! The Rust face of oauth-mail: what a Rust host depends on, and nothing more.
//!
//! ```no_run
//! use oauth_mail_abi::Library;
//! use serde_json::json;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let library = Library::load("liboauth_mail.so")?;
//! let config = json!({"store": "sqlite:mail.db", "key": {"file": "mail.key"}});
//! let plugin = library.plugin(&config, |level, mailbox, line| eprintln!("{level:?} {mailbox} {line}"))?;
//! let settings: serde_json::Value = serde_json::from_str(&std::fs::read_to_string("incoming.json")?)?;
//! let account = plugin.open(&json!({ "incoming": settings }))?;
//! let batch = account.fetch_batch(&json!({"max_messages": 100}))?;
//! let mut results = serde_json::Map::new();
//! for message in &batch {
//!     // Commit the message and its key in one transaction here, then say so.
//!     println!("{} has {} bytes", message.key, message.raw.len());
//!     results.insert(message.key.to_owned(), "imported".into());
//! }
//! account.settle_batch(&json!({ "results": results }))?;
//! # Ok(())
//! # }
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`library`] | [`Library`]: checked loading; a mismatch is one sentence |
//! | [`handles`] | [`Plugin`], [`Account`], [`Batch`], [`Message`]: the hooks, safe and pleasant |
//! | [`health`] | the later ability to be called when the health of a mailbox changes; `Library::watched_plugin` uses it |
//! | [`parts`] | the later ability to read a raw message again; `Library::facts` and `Library::attachment` use it |
//! | [`error`] | [`Error`], [`Kind`]: what a hook answers when it cannot go on |
//! | [`root`] | the frozen root module and trait objects that cross; a host does not need it |
//!
//! Frozen: `layout-1.0.golden` holds the layout of all that crosses, and a test compares. A newer host must be able to
//! load an older library, and abi_stable refuses an older library whose root or vtable is shorter; so nothing is ever
//! appended here. A later ability is a new id of `extension(id)` with its own frozen table.

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

mod elf;
pub mod error;
pub mod handles;
pub mod health;
pub mod library;
pub mod parts;
pub mod root;

pub use error::{Error, Fault, Kind};
pub use handles::{Account, Batch, Message, Plugin};
pub use library::{Level, Library, LoadError};
