//! The right to send the message of one idempotency key, written down before the first byte is sent.
//!
//! ```text
//! (nothing) ──take──▶ begun, until a moment ──▶ sent
//!     ▲                  │          │
//!     └── nothing was ───┘          └──▶ unknown ──(found in the sent folder)──▶ sent
//!         accepted             ▲            └──(the host says: send it again)──▶ begun
//!                              └──────────── nothing was accepted ────────────────┘
//! ```
//! Who finds it begun waits for the end; when the moment has passed, whoever began it has died, and nobody knows. What could
//! not be given back, because the store failed, this process takes for given back.

use std::{collections::HashMap, sync::Mutex};

use serde_json::{Value, json};

use super::{super::Context, outcome::describe};
use crate::{
    call,
    clock::Deadline,
    error::{Error, Kind, Result},
    limits, seam,
    store::{Record, Table},
    transport::Outcome,
};

pub struct Claim {
    id: String,
    version: u64,
    /// Of what is sent under it.
    digest: String,
    /// What the key goes back to when nothing is accepted.
    before: Vec<u8>,
}

pub enum Taken {
    /// Ours to send.
    Mine(Claim),
    /// It was used before: what became of it, and the claim to say otherwise.
    Earlier(Value, Claim),
}

impl Claim {
    /// # Errors
    /// Those of the store; `Transient` when another call is still sending at the deadline; `Misuse` when the key was used
    /// for another message. Nothing was sent by this one.
    pub fn take(context: &Context, key: &str, digest: &str, message_id: &str, deadline: Deadline) -> Result<Taken> {
        let id = context.name()?.record_id(key);
        let mut poll = limits::PEER_POLL_FIRST;
        loop {
            let mut record = context.store.read(Table::Sent, &id)?;
            if let Some(record) = &mut record {
                context.shared.unreleased.see(&id, record);
            }
            let version = match &record {
                Some(record) if *record.bytes != FREE => None,
                free => Some(free.as_ref().map(|record| record.version)),
            };
            if let Some(expected) = version {
                let bytes = begun(context, digest, message_id, deadline);
                if let Some(version) = context.store.write(Table::Sent, &id, expected, &bytes)? {
                    let digest = digest.to_owned();
                    return Ok(Taken::Mine(Self { id, version, digest, before: FREE.to_vec() }));
                }
            }
            // Somebody was faster: what they do is looked at.
            let Some(record) = record.filter(|_| version.is_none()) else {
                deadline.check("another call with the same idempotency key")?;
                continue;
            };
            let mut earlier: Value = serde_json::from_slice(&record.bytes)
                .map_err(|_| Error::new(Kind::Internal, "The outcome stored for an idempotency key is damaged."))?;
            let members = earlier.as_object_mut();
            // Claims of before the digest have none, and stay good.
            let used_for = members.and_then(|answer| answer.remove(DIGEST));
            if used_for.is_some_and(|other| other.as_str() != Some(digest)) {
                return Err(Error::new(Kind::Misuse, "This idempotency key was used for another message.").remedy(
                    "Give each message a key of its own; the same key repeats the same content to the same recipients.",
                ));
            }
            let until =
                earlier.as_object_mut().and_then(|answer| answer.remove(BEGUN_UNTIL)).and_then(|at| at.as_i64());
            let left = until.map_or(0, |until| until - context.shared_now());
            // A moment that lies farther ahead than any call lasts is a clock's mistake.
            let longest = (limits::DEADLINE_MAX + limits::CLAIM_MARGIN).as_secs() as i64;
            if !(1..=longest).contains(&left) {
                let before = with_digest(&earlier, digest);
                let claim = Self { id, version: record.version, digest: digest.to_owned(), before };
                return Ok(Taken::Earlier(earlier, claim));
            }
            let left = deadline.left();
            if left.is_zero() {
                return Err(Error::new(
                    Kind::Transient,
                    "Another call is sending under this idempotency key and has not come back yet.",
                )
                .remedy("Repeat the call with the same key; it says then what became of the message."));
            }
            seam::sleep(poll.min(left));
            poll = (2 * poll).min(limits::PEER_POLL);
        }
    }

    /// Sends once more what was begun before and whose end is not known.
    ///
    /// # Errors
    /// Those of the store; `Transient` when somebody else was faster.
    pub fn begin_again(&mut self, context: &Context, message_id: &str, deadline: Deadline) -> Result<()> {
        let bytes = begun(context, &self.digest, message_id, deadline);
        self.version = context.store.write(Table::Sent, &self.id, Some(self.version), &bytes)?.ok_or_else(|| {
            Error::new(Kind::Transient, "Another call uses this idempotency key at this moment.")
                .remedy("Repeat the call with the same key; it says then what became of the message.")
        })?;
        Ok(())
    }

    /// By which it is known beside the Message-ID.
    pub fn name(&self) -> &str {
        &self.id
    }

    pub fn store(&self, context: &Context, answer: &Value) {
        // The message is out, whatever the store says now: its answer must reach the host.
        let bytes = with_digest(answer, &self.digest);
        let stored = call::recording(|| context.store.write(Table::Sent, &self.id, Some(self.version), &bytes));
        if let Err(error) = stored {
            context.session.log.warn(format_args!("The outcome of an idempotency key was not stored: {error}"));
        }
    }

    /// Nothing was accepted: the same key may be tried again; one that was sent again stays unknown. Whoever was frozen so
    /// long that another has taken over frees nothing of theirs: the version is compared, which a deletion would not do.
    pub fn release(&self, context: &Context) {
        let given_back =
            call::recording(|| context.store.write(Table::Sent, &self.id, Some(self.version), &self.before));
        if let Err(error) = given_back {
            context.shared.unreleased.keep(self);
            context.session.log.warn(format_args!(
                "An idempotency key stays taken for other processes, because the store failed: {error}"
            ));
        }
    }
}

/// What keys go back to that could not be given back, and the version of the record that stands there instead.
#[derive(Default)]
pub struct Unreleased(Mutex<HashMap<String, (u64, Vec<u8>)>>);

impl Unreleased {
    fn keep(&self, claim: &Claim) {
        let mut kept = seam::lock("claim.unreleased", &self.0);
        if kept.len() < limits::CLAIMS_UNRELEASED_MAX {
            kept.insert(claim.id.clone(), (claim.version, claim.before.clone()));
        }
    }

    /// Reads a record as it would stand there; a version is never used twice.
    fn see(&self, id: &str, record: &mut Record) {
        let mut kept = seam::lock("claim.unreleased", &self.0);
        match kept.get(id) {
            Some((version, before)) if *version == record.version => record.bytes = before.clone().into(),
            Some(_) => drop(kept.remove(id)),
            None => {}
        }
    }
}

/// The record of a key that was given back.
const FREE: &[u8] = b"{}";
const BEGUN_UNTIL: &str = "begun_until";
/// Of the message that the key was used for.
const DIGEST: &str = "digest";

fn with_digest(answer: &Value, digest: &str) -> Vec<u8> {
    let mut record = answer.clone();
    record[DIGEST] = json!(digest);
    record.to_string().into_bytes()
}

/// What the host is told when nobody ever writes the end.
fn begun(context: &Context, digest: &str, message_id: &str, deadline: Deadline) -> Vec<u8> {
    let error = Error::new(Kind::Transient, "A message with this idempotency key was begun, and its end is not known.")
        .remedy("Look for its Message-ID in the sent folder before sending it again.");
    let mut answer = describe(&Outcome::Unknown(error), message_id);
    let until = context.shared_now() + (deadline.left() + limits::CLAIM_MARGIN).as_secs() as i64;
    answer[BEGUN_UNTIL] = json!(until);
    with_digest(&answer, digest)
}
