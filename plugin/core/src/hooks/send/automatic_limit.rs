//! The brake: how many automatic mails one correspondent gets, so that two machines cannot answer each other without end.
//!
//! RFC 3834 asks both sides to mark automatic mail and not to answer it. A side that does neither is met here: whatever it
//! sends, after `advanced.automatic_mails_per_day` automatic mails it gets no more within a day. Mail that a person writes
//! is never counted and never held back.

use serde::{Deserialize, Serialize};

use super::super::{Context, swap::until_it_holds};
use crate::{
    clock::UnixSeconds,
    error::{Error, Kind, Result},
    limits,
    store::Table,
};

#[derive(Default, Serialize, Deserialize)]
struct Count {
    /// When the first of them was sent.
    since: UnixSeconds,
    sent: u32,
}

/// The right to send one automatic mail to each of some correspondents.
pub struct Reserved(Vec<String>);

/// # Errors
/// `Refused` when one of them had enough: nothing is counted then. Those of the store: without counting nothing automatic
/// is sent.
pub fn reserve<'a>(context: &Context, recipients: impl Iterator<Item = &'a str>, most: u32) -> Result<Reserved> {
    let mut reserved = Reserved(Vec::new());
    for recipient in recipients {
        let id = context.name()?.record_id(&recipient.to_lowercase());
        let taken = change(context, &id, |count, now| {
            if !(0..limits::BRAKE_WINDOW).contains(&(now - count.since)) {
                *count = Count { since: now, sent: 0 };
            }
            count.sent += 1;
            count.sent <= most
        });
        let wait = match taken {
            Ok(None) => {
                reserved.0.push(id);
                continue;
            }
            Ok(Some(since)) => since + limits::BRAKE_WINDOW - context.session.clock.now(),
            Err(error) => {
                reserved.give_back(context);
                return Err(error);
            }
        };
        reserved.give_back(context);
        return Err(Error::new(
            Kind::Refused,
            format!("{recipient} got {most} automatic mails already: this one would keep a loop going."),
        )
        .remedy(format!(
            "Leave it unsent: a person may always write. The next automatic one is possible in {} hours; \
             advanced › Automatic Mails per Day says how many are.",
            (wait.max(0) as u64).div_ceil(3_600)
        )));
    }
    Ok(reserved)
}

impl Reserved {
    /// Nothing was accepted.
    pub fn give_back(self, context: &Context) {
        for id in self.0 {
            let given = change(context, &id, |count, _| {
                count.sent = count.sent.saturating_sub(1);
                true
            });
            if let Err(error) = given {
                context
                    .session
                    .log
                    .warn(format_args!("An automatic mail stays counted, because the store failed: {error}"));
            }
        }
    }
}

/// `edit` says whether to write; when not, since when is counted.
fn change(context: &Context, id: &str, edit: impl Fn(&mut Count, UnixSeconds) -> bool) -> Result<Option<UnixSeconds>> {
    let now = context.session.clock.now();
    let busy = || {
        Error::new(Kind::Transient, "Many calls send automatic mail to one correspondent at this moment.")
            .remedy("Try again later; nothing was sent.")
    };
    until_it_holds(busy, || {
        let record = context.store.read(Table::Brake, id)?;
        // A record that cannot be understood counts anew: better one mail too many than none for ever.
        let mut count: Count =
            record.as_ref().and_then(|record| serde_json::from_slice(&record.bytes).ok()).unwrap_or_default();
        if !edit(&mut count, now) {
            return Ok(Some(Some(count.since)));
        }
        let bytes = serde_json::to_vec(&count)
            .map_err(|e| Error::new(Kind::Internal, "A count could not be written.").source_error(e))?;
        let written = context.store.write(Table::Brake, id, record.map(|record| record.version), &bytes)?;
        Ok(written.map(|_| None))
    })
}
