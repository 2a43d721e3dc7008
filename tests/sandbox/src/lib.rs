//! A provider on loopback to develop against, in one process: OAuth, IMAP, SMTP, EWS and Microsoft Graph over one set of
//! mailboxes, with faults on request. `README.md` beside this package says what the real providers do and this one does
//! not.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | people, mailboxes, clients; a default that needs no document |
//! | [`state`] | what all faces share; who a bearer token is |
//! | [`http`], [`server`] | request and response; HTTPS, and TLS for the other faces |
//! | [`oauth`] | discovery, sign-in and consent pages, tokens, device grant, revocation |
//! | [`mailbox`] | folders and messages |
//! | [`imap`], [`smtp`] | the faces that speak lines |
//! | [`ews`], [`graph`] | the faces over HTTP: functions from request to response |
//! | [`faults`] | throttling, refusals, slow, cut, malformed, a wrong clock |
//! | [`admin`] | `/_sandbox`: order faults, deliver mail, count requests |
//! | [`browser`], [`client`] | a person in front of a browser; a client that trusts this provider |
//! | [`ca`], [`error`] | certificates; one sentence |

pub mod admin;
pub mod browser;
pub mod ca;
pub mod client;
pub mod config;
pub mod error;
pub mod ews;
pub mod faults;
pub mod graph;
pub mod http;
pub mod imap;
pub mod mailbox;
pub mod oauth;
pub mod sasl;
pub mod server;
pub mod smtp;
pub mod state;

pub use config::Config;
pub use error::{Error, Result};
pub use server::Sandbox;
