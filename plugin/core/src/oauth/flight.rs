//! One refresh at a time per grant among the threads of this process, and what has to be remembered between refreshes.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    ops::{Deref, DerefMut},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use super::{
    failure::{Doubt, Failure},
    grant::Grant,
    resource::{self, Resource},
};
use crate::{
    clock::{Deadline, UnixSeconds},
    error::{Error, Kind, Result},
    limits, seam,
    secret::Secret,
    settings::{Account, Client},
};

#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<String, Arc<Flight>>>);

struct Flight {
    /// Empty while somebody flies.
    seat: Mutex<Option<Box<Memory>>>,
    freed: Condvar,
    /// What was read or saved last; used only while the store cannot be read, and to be seen also while somebody flies.
    last: Mutex<Option<Last>>,
}

/// A grant as it was read or saved last, and the epoch of the store then.
#[derive(Clone)]
pub(super) struct Last {
    pub grant: Grant,
    pub epoch: u64,
}

/// What this process knows of a grant beyond its record.
#[derive(Default)]
pub(super) struct Memory {
    /// New tokens whose write failed, and the version they are to replace. The old refresh token is spent: they are the
    /// truth now.
    pub unsaved: Option<(Grant, u64)>,
    pub pause: Option<Pause>,
    /// When refreshes were forced by a mail server's refusal, oldest first.
    forced: VecDeque<UnixSeconds>,
}

/// After a failed refresh.
#[derive(Clone)]
pub(super) struct Pause {
    pub until: UnixSeconds,
    pub failure: Failure,
    failures: u32,
    /// The first of the refusals in a row that may mean that the sign-in has ended, and how many there were.
    doubted: Option<(UnixSeconds, u32)>,
    /// Other credentials deserve another try at once.
    client: (String, Option<Secret>, String),
    /// What was asked for: a resource that is refused holds up no other.
    pub resource: Resource,
}

impl Flights {
    /// Waits until nobody else is in. The guard lets the next in when it is dropped, also by a panic.
    pub fn enter(&self, id: &str, deadline: Deadline) -> Result<Guard> {
        let flight = self.flight(id);
        let mut seat = seam::lock("oauth.flight", &flight.seat);
        let memory = loop {
            match seat.take() {
                Some(memory) => break memory,
                None => {
                    let left = deadline.check("another call that renews the same sign-in")?;
                    seat = flight.freed.wait_timeout(seat, left).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        };
        drop(seat);
        Ok(Guard { flight, memory })
    }

    /// Looks without waiting; `None` while somebody is in.
    pub fn peek<T>(&self, id: &str, look: impl FnOnce(&Memory) -> T) -> Option<T> {
        let flight = self.flight(id);
        let seat = seam::lock("oauth.flight", &flight.seat);
        seat.as_deref().map(look)
    }

    /// What was last known of a grant, also while somebody is in.
    pub fn last(&self, id: &str) -> Option<Grant> {
        self.flight(id).last().map(|last| last.grant)
    }

    fn flight(&self, id: &str) -> Arc<Flight> {
        let mut flights = seam::lock("oauth.flights", &self.0);
        flights
            .entry(id.to_owned())
            .or_insert_with(|| {
                let seat = Mutex::new(Some(Box::default()));
                Arc::new(Flight { seat, freed: Condvar::new(), last: Mutex::default() })
            })
            .clone()
    }
}

impl Flight {
    fn last(&self) -> Option<Last> {
        seam::lock("oauth.last", &self.last).clone()
    }
}

pub(super) struct Guard {
    flight: Arc<Flight>,
    memory: Box<Memory>,
}

impl Guard {
    pub fn last(&self) -> Option<Last> {
        self.flight.last()
    }

    pub fn remember(&self, last: Option<Last>) {
        *seam::lock("oauth.last", &self.flight.last) = last;
    }

    /// Nothing of what was known holds any more.
    pub fn forget(&mut self) {
        *self.memory = Memory::default();
        self.remember(None);
    }
}

impl Deref for Guard {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.memory
    }
}

impl DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        *seam::lock("oauth.flight", &self.flight.seat) = Some(mem::take(&mut self.memory));
        self.flight.freed.notify_one();
    }
}

impl Pause {
    /// A refresh was refused without a code that says why. Once the access token has ended, and the answer speaks of the
    /// grant or goes on like this, the sign-in is most likely what has ended: a person is asked, and the provider now and
    /// then, too, in case it was a proxy.
    pub fn means_consent(&self, grant: &Grant, now: UnixSeconds) -> Option<Failure> {
        let (since, times) = self.doubted?;
        let lasts = times >= limits::REFRESH_DOUBTED && now - since >= limits::REFRESH_DOUBTED_FOR;
        if grant.is_valid(now) || !(self.failure.doubt == Some(Doubt::Likely) || lasts) {
            return None;
        }
        let mut failure = Failure::new(
            Kind::ConsentRequired,
            "The sign-in cannot be renewed: the provider refuses it, without saying why by a known code.",
            "The mailbox owner opens the consent window again and signs in: that usually cures it.",
        );
        failure.words.provider_code = self.failure.words.provider_code.clone();
        failure.words.correlation = self.failure.words.correlation.clone();
        Some(failure)
    }
}

impl Memory {
    /// # Errors
    /// The last failure again, while its pause lasts.
    pub fn check_pause(&self, account: &Account, grant: &Grant, now: UnixSeconds) -> Result<()> {
        // A clock that was set back must not make a pause of days.
        let longest = limits::RETRY_AFTER_MAX.as_secs() as i64;
        let lasts = |pause: &&Pause| {
            (1..=longest).contains(&(pause.until - now))
                && pause.client == credentials(&account.client)
                && pause.resource == resource::of_account(account)
        };
        let Some(pause) = self.pause.as_ref().filter(lasts) else { return Ok(()) };
        if let Some(failure) = pause.means_consent(grant, now) {
            return Err(failure.to_error());
        }
        let mut failure = pause.failure.clone();
        if failure.is_transient() {
            failure.retry_after = Some(Duration::from_secs((pause.until - now).max(1) as u64));
        }
        Err(failure.to_error())
    }

    /// Doubles with each failure in a row, less up to half of it by chance, so that a thousand mailboxes do not come
    /// back together; never shorter than the server asked for.
    pub fn pause(&mut self, failure: &Failure, account: &Account, now: UnixSeconds) {
        let last = self.pause.take();
        let failures = last.as_ref().map_or(0, |pause| pause.failures);
        let doubted = last.and_then(|pause| pause.doubted).filter(|_| failure.doubt.is_some());
        let doubted = failure.doubt.map(|_| doubted.map_or((now, 1), |(since, times)| (since, times + 1)));
        let full = limits::REFRESH_PAUSE_FIRST.saturating_mul(1 << failures.min(16)).min(limits::REFRESH_PAUSE_MAX);
        let chance = getrandom::u32().unwrap_or(u32::MAX / 2) as f64 / u32::MAX as f64;
        let wait = full.mul_f64(0.5 + chance / 2.0).max(failure.retry_after.unwrap_or_default());
        let until = now + wait.as_secs_f64().ceil() as i64;
        self.pause = Some(Pause {
            until,
            failure: failure.clone(),
            failures: failures + 1,
            doubted,
            client: credentials(&account.client),
            resource: resource::of_account(account),
        });
    }

    /// Counts a refresh that only a mail server's refusal asks for.
    ///
    /// # Errors
    /// `Refused` when the last hour had enough of them: the token is not what is wrong.
    pub fn count_forced(&mut self, now: UnixSeconds) -> Result<()> {
        while self.forced.front().is_some_and(|at| *at <= now - 3_600) {
            self.forced.pop_front();
        }
        if self.forced.len() >= limits::REFRESH_FORCED_PER_HOUR {
            return Err(Error::new(Kind::Refused, "The mail server refuses each fresh token for this mailbox.")
                .remedy("Check that the account that consented may use this mailbox with this protocol, and that Scope names the protocol."));
        }
        self.forced.push_back(now);
        Ok(())
    }
}

fn credentials(client: &Client) -> (String, Option<Secret>, String) {
    (client.client_id.clone(), client.secret(), client.token_url.to_string())
}
