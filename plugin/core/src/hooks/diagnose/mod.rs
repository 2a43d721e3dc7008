//! The diagnosis: walks from the settings to a sample of mail and says for each step what it saw, what that means, and
//! who does what. Changes nothing in the mailbox, and sends only when asked to.
//!
//! ```text
//! settings ─▶ dns ─▶ tcp ─▶ tls ──┐                          ┌─▶ mailbox ─▶ sample_in     incoming
//!             authorization ─▶ token ─▶ scopes   both ─▶ login ─┤
//!                                                            └─▶ alternate · sample_out   outgoing
//! ```
//!
//! A step whose prerequisite failed is skipped and says because of which; all others are still judged.

mod connection;
mod grant;
mod mail;
mod step;

use serde_json::{Value, json};

use self::step::Walk;
use super::Work;
use crate::{clock::Deadline, settings::Direction};

/// What the host asks for beyond looking.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Sends one short message there (outgoing handles only).
    pub send_to: Option<String>,
    /// Sends it to the From address.
    pub send: bool,
    /// Renews the access token even when it is good for long.
    pub refresh: bool,
    /// Shows the newest message's subject, too.
    pub verbose: bool,
}

/// `{"state","direction","mailbox","healthy","summary","steps":[{"step","status","saw","means","who","remedy","took_ms"}]}`.
/// Whatever goes wrong is a step of it.
pub fn run(work: &mut Work, options: &Options, deadline: Deadline) -> Value {
    let context = work.context.clone();
    let session = &context.session;
    let incoming = session.account.direction == Direction::Incoming;
    // What is left over brings the document back in time.
    let mut walk = Walk::new(session, deadline.at_most(deadline.left() / 10 * 9), if incoming { 9 } else { 10 });
    connection::settings(&mut walk);
    connection::walk(&mut walk);
    let server_time = grant::authorization(&mut walk);
    let token = grant::token(&mut walk, options.refresh, server_time);
    grant::scopes(&mut walk);
    if incoming {
        let inbox = mail::log_in(&mut walk, token.as_ref(), |token, deadline| session.try_inbox(token, deadline));
        mail::incoming(&mut walk, inbox, options.verbose);
    } else {
        connection::alternate(&mut walk);
        let outbox = mail::log_in(&mut walk, token.as_ref(), |token, deadline| session.try_outbox(token, deadline));
        mail::outgoing(&mut walk, work, outbox, options);
    }
    let healthy = walk.is_healthy();
    json!({
        "state": if healthy { "healthy" } else { "unhealthy" },
        "direction": session.account.direction.pointer().trim_start_matches('/'),
        "mailbox": session.account.username,
        "healthy": healthy,
        "summary": walk.summary(),
        "steps": walk.into_json(),
    })
}
