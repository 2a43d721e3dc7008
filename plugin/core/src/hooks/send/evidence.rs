//! What a copy in the sent folder proves.
//!
//! A copy under a message's Message-ID proves this sending only when no other sending can have left it there. Most
//! Message-IDs are made for one message, and then one copy is proof. One that the host brought along may have been sent
//! before, by somebody else or under another key (a recipient who was put off gets the same message alone). So before such a
//! message is offered, two things are written down: how many copies lie there already, and under which keys it was offered.
//! Only more copies than all the others can have left prove anything. A server that keeps one copy per Message-ID leaves it
//! unknown, which it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    super::{Context, swap::until_it_holds},
    idempotency::Claim,
    outcome::describe,
};
use crate::{
    clock::Deadline,
    error::{Error, Kind, Result},
    limits,
    message::signature::Origin,
    session::Found,
    store::Table,
    transport::Outcome,
};

#[derive(Serialize, Deserialize)]
struct Offers {
    /// Copies that none of these offers left; `None`: not known.
    outside: Option<usize>,
    /// Under which claim how often.
    by_claim: BTreeMap<String, usize>,
}

impl Offers {
    fn of_others(&self, claim: &str) -> usize {
        self.by_claim.iter().filter(|(other, _)| *other != claim).map(|(_, times)| times).sum()
    }
}

/// Notes that `message_id`, which the host brought along, is about to be offered under `claim`.
///
/// # Errors
/// Those of the store: without the note a later look would prove too much.
pub fn note(context: &Context, message_id: &str, claim: &Claim, deadline: Deadline) -> Result<()> {
    // A fraction of the time: what is not counted now only stays unknown later.
    let counting = deadline.at_most((deadline.left() / 4).min(limits::SENT_COUNT_TIMEOUT));
    let counted = context.session.find_sent(message_id, counting).map(|found| found.copies);
    if let Err(error) = &counted {
        context.session.log.info(format_args!("Copies in the sent folder were not counted: {error}"));
    }
    // One of our own was sent before, whether its copy lies there yet or not.
    let signer = context.shared.signing.signer(&*context.store)?;
    let is_ours = matches!(signer.origin(message_id), Origin::Ours { .. });
    change(context, message_id, |offers| {
        let offers = offers.get_or_insert_with(|| Offers {
            outside: counted.as_ref().ok().map(|_| usize::from(is_ours)),
            by_claim: BTreeMap::new(),
        });
        let ours: usize = offers.by_claim.values().sum();
        if let (Some(outside), Ok(counted)) = (&mut offers.outside, &counted) {
            *outside = (*outside).max(counted.saturating_sub(ours));
        }
        if offers.by_claim.len() >= limits::OFFERS_MAX {
            let forgotten = std::mem::take(&mut offers.by_claim).into_values().sum();
            offers.outside = offers.outside.map(|outside| outside.saturating_add(forgotten));
        }
        *offers.by_claim.entry(claim.name().to_owned()).or_default() += 1;
    })
}

/// Nothing was accepted of what was noted last.
pub fn withdraw(context: &Context, message_id: &str, claim: &Claim) {
    let withdrawn = change(context, message_id, |offers| {
        let Some(offers) = offers else { return };
        if let Some(times) = offers.by_claim.get_mut(claim.name()) {
            *times = times.saturating_sub(1);
        }
        offers.by_claim.retain(|_, times| *times > 0);
    });
    if let Err(error) = withdrawn {
        context.session.log.warn(format_args!("An offer of a message stays noted, because the store failed: {error}"));
    }
}

/// What became of a message whose end was not known.
pub fn resolved(context: &Context, earlier: Value, claim: &Claim, deadline: Deadline) -> Value {
    let message_id = earlier["message_id"].as_str().filter(|_| earlier["outcome"] == "unknown");
    let Some(message_id) = message_id else { return earlier };
    let mut answer = look(context, message_id, Some(claim), deadline);
    if answer["outcome"] == "sent" {
        claim.store(context, &answer);
    } else {
        // The server's words of then say more than that nothing was found.
        answer["error"] = earlier["error"].clone();
    }
    answer
}

/// Looks for a Message-ID in the sent folder, for a host that asks for no key: a copy is what it asks for.
pub fn looked_up(context: &Context, message_id: &str, deadline: Deadline) -> Value {
    look(context, message_id, None, deadline)
}

/// Found, and nobody else's, it was sent; not found, it may still come to lie there, and not every server keeps a copy: that
/// is no proof of anything.
fn look(context: &Context, message_id: &str, claim: Option<&Claim>, deadline: Deadline) -> Value {
    let (found, copies, words) = match context.session.find_sent(message_id, deadline) {
        Ok(Found { folder, copies: 0, .. }) => {
            (json!(false), json!(0), json!(format!("It does not lie in the folder {folder}.")))
        }
        Ok(Found { folder, server, copies }) => match proves(context, message_id, claim, copies) {
            Ok(true) => {
                let reply = format!("found in the folder {folder}");
                let mut answer = describe(&Outcome::Sent { reply, server, refused: Vec::new() }, message_id);
                answer["sent_folder"] = json!({"found": true, "folder": folder, "copies": copies});
                return answer;
            }
            Ok(false) => {
                let words = format!("What lies in the folder {folder} may be of another sending of this Message-ID.");
                (json!(true), json!(copies), json!(words))
            }
            Err(error) => (Value::Null, json!(copies), json!(error.to_string())),
        },
        Err(error) => (Value::Null, Value::Null, json!(error.to_string())),
    };
    let error = Error::new(Kind::Transient, "Whether this message was sent is not known.")
        .remedy("Ask again in a few minutes; or send it again under the same key with \"resend_unknown\": true.");
    let mut answer = describe(&Outcome::Unknown(error), message_id);
    answer["sent_folder"] = json!({"found": found, "copies": copies, "why": words});
    answer
}

fn proves(context: &Context, message_id: &str, claim: Option<&Claim>, copies: usize) -> Result<bool> {
    let Some(claim) = claim else { return Ok(copies > 0) };
    let Some(record) = context.store.read(Table::Sent, &id(context, message_id)?)? else { return Ok(copies > 0) };
    // Damaged, it proves nothing.
    let Ok(offers) = serde_json::from_slice::<Offers>(&record.bytes) else { return Ok(false) };
    let others = offers.of_others(claim.name());
    Ok(offers.outside.is_some_and(|outside| copies > outside.saturating_add(others)))
}

fn change(context: &Context, message_id: &str, edit: impl Fn(&mut Option<Offers>)) -> Result<()> {
    let id = id(context, message_id)?;
    let busy = || {
        Error::new(Kind::Transient, "Many calls send messages with one Message-ID at this moment.")
            .remedy("Try again later; nothing was sent.")
    };
    until_it_holds(busy, || {
        let record = context.store.read(Table::Sent, &id)?;
        let damaged = || Offers { outside: None, by_claim: BTreeMap::new() };
        let mut offers =
            record.as_ref().map(|record| serde_json::from_slice(&record.bytes).unwrap_or_else(|_| damaged()));
        edit(&mut offers);
        let Some(offers) = offers else { return Ok(Some(())) };
        let bytes = serde_json::to_vec(&offers)
            .map_err(|e| Error::new(Kind::Internal, "A note could not be written.").source_error(e))?;
        let version = record.map(|record| record.version);
        Ok(context.store.write(Table::Sent, &id, version, &bytes)?.map(|_| ()))
    })
}

/// Apart from those of keys, which hold no NUL after the mailbox's.
fn id(context: &Context, message_id: &str) -> Result<String> {
    Ok(context.name()?.record_id(&format!("\0message-id\0{message_id}")))
}
