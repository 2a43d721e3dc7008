//! How fast mail is sent: a budget per mailbox and one per app registration, kept by each process.
//!
//! Providers count by the minute and punish who overruns (Exchange Online: 30 messages a minute and mailbox, then 432
//! 4.3.2 for all of the tenant's mail). A message that would overrun is not offered at all; the host is told when to come
//! again.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
    time::Duration,
};

use crate::{clock::UnixSeconds, limits::RATE_WINDOW, seam, settings::Account};

use super::super::mailbox::Place;

/// When the messages of the last minute were offered, by who sends.
#[derive(Default)]
pub struct Rates(Mutex<HashMap<String, VecDeque<UnixSeconds>>>);

impl Rates {
    /// Counts one message, or says how long to wait for the next.
    ///
    /// # Errors
    /// The wait; nothing is counted then.
    pub fn take(&self, account: &Account, now: UnixSeconds) -> Result<(), Duration> {
        let Some(sending) = &account.sending else { return Ok(()) };
        let mailbox = format!(
            "{}\0{}\0{}",
            account.client.client_id,
            Place::of(account).server(),
            account.username.to_lowercase()
        );
        let budgets = [
            (mailbox, sending.messages_per_minute),
            (format!("{}\0", account.client.client_id), sending.app_messages_per_minute),
        ];
        let mut sent = seam::lock("hooks.rate", &self.0);
        let mut wait = None;
        for (who, most) in &budgets {
            let (Some(most), Some(times)) = (most, sent.get_mut(who)) else { continue };
            // Those of a clock that was set back would count for ever.
            times.retain(|at| (now - RATE_WINDOW + 1..=now).contains(at));
            if times.len() >= *most as usize
                && let Some(first) = times.get(times.len() - *most as usize)
            {
                wait = wait.max(Some(first + RATE_WINDOW - now));
            }
        }
        if let Some(wait) = wait {
            return Err(Duration::from_secs(wait.max(1) as u64));
        }
        for (who, most) in budgets {
            if most.is_some() {
                sent.entry(who).or_default().push_back(now);
            }
        }
        // Whoever has not sent for a minute is forgotten.
        sent.retain(|_, times| times.back().is_some_and(|last| (now - RATE_WINDOW + 1..=now).contains(last)));
        Ok(())
    }
}
