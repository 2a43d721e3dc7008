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

use self::step::{Finding, KEEPER, Walk};
use super::{Context, Work};
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
    let mut walk = Walk::new(session, deadline.at_most(deadline.left() / 10 * 9), if incoming { 10 } else { 11 });
    connection::settings(&mut walk);
    store(&mut walk, &context);
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

/// Only of a database that may fail over: would a standby that takes over have all that was committed?
fn store(walk: &mut Walk<'_>, context: &Context) {
    if !context.store.is_shared() {
        return;
    }
    let account = walk.account();
    walk.step("store", &[], |_| {
        let found = match context.store.replication() {
            Ok(found) => found,
            Err(error) => return (Finding::failed("", &error, account).by(KEEPER), None),
        };
        let Some(found) = found else { return (Finding::ok("", "The store answers."), Some(())) };
        let saw = match (found.standbys, found.is_synchronous) {
            (0, _) => "PostgreSQL without a standby".to_owned(),
            (count, true) => format!("PostgreSQL with {count} standby servers; a commit waits for one of them"),
            (count, false) => format!("PostgreSQL with {count} standby servers; synchronous_standby_names is empty"),
        };
        if found.standbys == 0 || found.is_synchronous {
            return (Finding::ok(saw, "The store answers."), Some(()));
        }
        let means = "When a standby takes over, it may lack the last sign-ins and sent messages.";
        let remedy = "Set synchronous_standby_names on the database server, so that a commit waits for a standby.";
        (Finding::warning(saw, means, "the administrator of the database", remedy), Some(()))
    });
}
