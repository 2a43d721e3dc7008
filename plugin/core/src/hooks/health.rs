//! How a mailbox stands, in one word and one sentence: what an operator looks at first, and is called for.
//!
//! | state | mail flows | |
//! |---|---|---|
//! | `ok` | yes | |
//! | `expiring` | yes | `what` ends at `when`: client_secret, certificate, sign_in, access_token |
//! | `degraded` | for now | `what`: renewal, store, scopes, connection, host (this machine). Nobody asked to wait; tried again at each call |
//! | `back_off` | no | until `when`: the provider asked to wait, or has not answered |
//! | `consent_needed` | no | a person signs in again; `why` says why |
//! | `admin_needed` | no | `who` does what `remedy` says |
//! | `misconfigured` | no | the `field` that is wrong, as pointer and label of the form |
//!
//! The worst one stands. It is made of what the store knows of the sign-in and of how the last calls ended, and told to
//! the host's watcher once per change: after the call that noticed it, or when the host asks (`status`). A mailbox begins
//! as `ok`, so a host that starts is told of what is not.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;

use super::{Context, mailbox::Place};
use crate::{
    call::{self, Call},
    clock::{Deadline, UnixSeconds},
    error::{Error, Kind, Result},
    limits,
    oauth::{About, Status},
    seam,
    settings::{Account, Direction},
    worker::FollowUp,
};

/// Receives mailbox and the health as JSON, once per change; from any thread, several at once.
pub type Watcher = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// From good to bad: the worst one that is true stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Ok,
    Expiring,
    Degraded,
    BackOff,
    AdminNeeded,
    Misconfigured,
    ConsentNeeded,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Health {
    pub state: State,
    pub direction: &'static str,
    /// Where the mailbox is: one login name may be known at several servers.
    pub server: String,
    /// One sentence; `None` when all is well.
    pub why: Option<String>,
    /// What is to be done, and by whom.
    pub remedy: Option<String>,
    pub who: Option<&'static str>,
    pub link: Option<String>,
    /// The provider's own code, verbatim.
    pub provider_code: Option<String>,
    /// What ends or is amiss.
    pub what: Option<&'static str>,
    /// `expiring`: its end. `back_off`: nothing is asked of the provider before. Unix seconds.
    pub when: Option<UnixSeconds>,
    pub field: Option<Field>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Field {
    /// JSON pointer (RFC 6901) into the settings document.
    pub pointer: String,
    pub label: String,
}

/// The health of every mailbox of one plugin.
pub struct Book {
    watcher: Option<Watcher>,
    entries: Mutex<HashMap<Id, Entry>>,
}

/// Direction, login and place; and the label, because each label is told.
type Id = (Direction, String, Place, Option<String>);

#[derive(Clone, Default)]
struct Entry {
    /// What the host was last told; `None`: nothing yet, which says `ok`.
    told: Option<Health>,
    /// How the last call ended, when it failed.
    trouble: Option<Health>,
    /// Calls in a row that failed for reasons that waiting may cure.
    failures: u32,
    looked_at: UnixSeconds,
}

impl Book {
    pub fn new(watcher: Option<Watcher>) -> Self {
        Self { watcher, entries: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Id, Entry>> {
        seam::lock("hooks.health", &self.entries)
    }
}

/// After each call that used the mailbox. What follows looks at the sign-in, when something changed
/// or it is time: a store may be a network away, so the caller does not wait for it.
pub fn note<T>(context: &Arc<Context>, result: &Result<T>) -> FollowUp {
    follow_up(context, remember(context, result.as_ref().err()))
}

/// As [`note`], for an outcome of `send_message`: also a `retry` says how the server is.
pub fn note_outcome(context: &Arc<Context>, result: &Result<String>) -> FollowUp {
    let retry = result.as_ref().ok().and_then(|answer| {
        let answer: Value = serde_json::from_str(answer).ok()?;
        (answer["outcome"] == "retry").then(|| told_in(&answer))?
    });
    follow_up(context, remember(context, retry.as_ref().or(result.as_ref().err())))
}

/// As [`note`], for a call that answered and met an error besides.
pub fn note_trouble(context: &Arc<Context>, error: Option<&Error>) -> FollowUp {
    follow_up(context, remember(context, error))
}

fn follow_up(context: &Arc<Context>, due: bool) -> FollowUp {
    let context = context.clone();
    due.then(|| -> Box<dyn FnOnce() + Send> {
        Box::new(move || {
            // A store that says nothing keeps the next call waiting no longer than this.
            let call = Call::new(Deadline::after(limits::HEALTH_LOOK), Arc::default());
            call.run(|| look(&context, context.session.grants.status(&context.session.account).as_ref()));
        })
    })
}

fn told_in(answer: &Value) -> Option<Error> {
    let told = &answer["error"];
    let kind = serde_json::from_value(told["kind"].clone()).ok()?;
    let mut error = Error::new(kind, told["message"].as_str()?);
    if let Some(remedy) = told["remedy"].as_str() {
        error = error.remedy(remedy);
    }
    if let Some(code) = told["provider_code"].as_str() {
        error = error.provider_code(code);
    }
    match answer["retry_after_seconds"].as_u64() {
        Some(wait) => Some(error.retry_after(Duration::from_secs(wait))),
        None => Some(error),
    }
}

/// Takes note of how a call ended, in memory alone. Is it time to look at the sign-in?
pub fn remember(context: &Context, error: Option<&Error>) -> bool {
    // A call that cannot be meant says nothing about the mailbox.
    if error.is_some_and(|error| matches!(error.kind(), Kind::Misuse | Kind::Closed)) {
        return false;
    }
    let (account, now) = (&context.session.account, context.session.clock.now());
    {
        let mut entries = context.shared.health.lock();
        let entry = entries.entry(key(account)).or_default();
        entry.failures = if error.is_some() { entry.failures.saturating_add(1) } else { 0 };
        let trouble = error.and_then(|error| of_error(account, error, entry.failures, now));
        let due = trouble.is_some() || entry.trouble.is_some() || entry.told.as_ref().is_some_and(|told| !told.is_ok());
        entry.trouble = trouble;
        due || now - entry.looked_at >= limits::HEALTH_INTERVAL || now < entry.looked_at
    }
}

/// There is a new sign-in, proven by a connection, or none any more: whatever went wrong before is over.
pub fn sign_in_changed(context: &Context) {
    let session = &context.session;
    context.shared.health.lock().entry(key(&session.account)).or_default().trouble = None;
    look(context, session.grants.status(&session.account).as_ref());
}

/// How it stands now, from what is stored, without the network; the watcher hears of it when it is new.
pub fn look(context: &Context, status: Result<&Status, &Error>) -> Health {
    let (account, now) = (&context.session.account, context.session.clock.now());
    let (health, is_new) = {
        let mut entries = context.shared.health.lock();
        let entry = entries.entry(key(account)).or_default();
        entry.looked_at = now;
        let health = worst(account, status, entry.trouble.clone(), now);
        let is_new = match &entry.told {
            None => !health.is_ok(),
            Some(told) => !told.says_the_same(&health),
        };
        entry.told = Some(health.clone());
        (health, is_new)
    };
    if is_new && let Some(watcher) = &context.shared.health.watcher {
        let told = health.to_json().to_string();
        call::waiting("the host's health callback", || watcher(account.label(), &told));
    }
    health
}

fn key(account: &Account) -> Id {
    (account.direction, account.username.to_lowercase(), Place::of(account), account.label.clone())
}

fn worst(account: &Account, status: Result<&Status, &Error>, trouble: Option<Health>, now: UnixSeconds) -> Health {
    let mut all = vec![Health::of(account, State::Ok)];
    match status {
        Ok(status) => all.extend(of_status(account, status, now)),
        Err(error) => all.extend(of_error(account, error, u32::MAX, now)),
    }
    // What a wait was for is over with it; the next call shows what comes then.
    all.extend(trouble.filter(|trouble| trouble.state != State::BackOff || trouble.when.is_none_or(|when| when > now)));
    // Of two that are as bad the earlier stands: what the store knows of the sign-in, and what ends first.
    all.into_iter()
        .reduce(|worst, next| {
            let ends_first = next.state == worst.state && next.state == State::Expiring && next.when < worst.when;
            if next.state > worst.state || ends_first { next } else { worst }
        })
        .unwrap_or_else(|| Health::of(account, State::Ok))
}

fn of_status(account: &Account, status: &Status, now: UnixSeconds) -> Vec<Health> {
    let mut all = Vec::new();
    if let Some(reason) = &status.reason {
        all.push(Health::of(account, State::ConsentNeeded).because(reason));
    }
    if let Some((error, until)) = &status.paused {
        let is_good = status.expires_at.is_none_or(|end| end > now);
        match error.is_transient() {
            true if *until > now && !is_good => {
                let health = Health::of(account, State::BackOff).because(error);
                all.push(Health { when: Some(*until), what: Some(About::Renewal.name()), ..health });
            }
            true => all.push(Health {
                what: Some(About::Renewal.name()),
                ..Health::of(account, State::Degraded).because(error)
            }),
            false => all.extend(of_error(account, error, u32::MAX, now)),
        }
    }
    for warning in &status.warnings {
        let state = match warning.about {
            About::ClientSecret | About::Certificate | About::SignIn | About::AccessToken => State::Expiring,
            About::Scopes | About::Store => State::Degraded,
            // Said above, with its error; or a warning of the status alone, since nothing ends while mail is fetched.
            About::Renewal | About::SignInEnds => continue,
        };
        all.push(Health {
            why: Some(warning.sentence.clone()),
            who: Some(warning.about.who().name()),
            what: Some(warning.about.name()),
            when: warning.ends_at,
            ..Health::of(account, state)
        });
    }
    all
}

/// `None`: it is too early to say anything.
fn of_error(account: &Account, error: &Error, failures: u32, now: UnixSeconds) -> Option<Health> {
    let state = match error.kind() {
        Kind::Settings => State::Misconfigured,
        Kind::ConsentRequired => State::ConsentNeeded,
        Kind::AdminRequired | Kind::Refused => State::AdminNeeded,
        Kind::Throttled => State::BackOff,
        Kind::Transient if error.wait().is_some() => State::BackOff,
        // One lost connection in a night is no news.
        Kind::Transient if failures < limits::HEALTH_FAILURES => return None,
        Kind::Transient | Kind::TooLarge | Kind::ServerMisbehaved | Kind::Unsupported | Kind::Internal => {
            State::Degraded
        }
        Kind::Misuse | Kind::Closed => return None,
    };
    let mut health = Health::of(account, state).because(error);
    health.what = (state == State::Degraded).then_some(if error.is_of_host() { "host" } else { "connection" });
    if state == State::BackOff {
        health.when = Some(now + error.wait().unwrap_or(limits::HEALTH_BACK_OFF).as_secs() as i64);
    }
    Some(health)
}

impl Health {
    fn of(account: &Account, state: State) -> Self {
        Self {
            state,
            direction: account.direction.pointer().trim_start_matches('/'),
            server: Place::of(account).server().to_owned(),
            why: None,
            remedy: None,
            who: None,
            link: None,
            provider_code: None,
            what: None,
            when: None,
            field: None,
        }
    }

    fn because(mut self, error: &Error) -> Self {
        self.why = Some(error.message().to_owned());
        self.remedy = error.remedy_text().map(str::to_owned);
        self.who = Some(error.who_acts().name());
        self.link = error.link_text().map(str::to_owned);
        self.provider_code = error.provider_code_text().map(str::to_owned);
        self.field = error.faults().first().map(|fault| {
            let root = format!("/{}", self.direction);
            let pointer = match fault.pointer.starts_with(&root) {
                true => fault.pointer.clone(),
                false => format!("{root}{}", fault.pointer),
            };
            Field { pointer, label: fault.label.clone() }
        });
        self
    }

    fn is_ok(&self) -> bool {
        self.state == State::Ok
    }

    /// Would a person who knows one learn anything by the other? The words of a network fault differ from time to time.
    fn says_the_same(&self, other: &Self) -> bool {
        let who_acts = |health: &Self| match health.state >= State::AdminNeeded {
            true => health.why.clone(),
            false => None,
        };
        let end = |health: &Self| health.when.filter(|_| health.state == State::Expiring);
        (self.state, self.what, &self.field) == (other.state, other.what, &other.field)
            && who_acts(self) == who_acts(other)
            && end(self) == end(other)
    }

    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;

    const FORM: &str = include_str!("../../../../schema/examples/incoming/valid/imaps-smallest.json");

    fn account() -> Account {
        settings::parse(&format!(r#"{{"incoming": {FORM}}}"#)).unwrap()
    }

    fn error(kind: Kind) -> Error {
        Error::new(kind, "A sentence.").remedy("Do it.").provider_code("CODE 1")
    }

    fn of(error: &Error, failures: u32) -> Option<Health> {
        of_error(&account(), error, failures, 1_000)
    }

    #[test]
    fn each_kind_of_error_is_a_state() {
        for (kind, state) in [
            (Kind::Settings, State::Misconfigured),
            (Kind::ConsentRequired, State::ConsentNeeded),
            (Kind::AdminRequired, State::AdminNeeded),
            (Kind::Refused, State::AdminNeeded),
            (Kind::Throttled, State::BackOff),
            (Kind::ServerMisbehaved, State::Degraded),
        ] {
            let health = of(&error(kind), 1).unwrap();
            assert_eq!(health.state, state);
            assert_eq!(health.remedy.as_deref(), Some("Do it."));
            assert_eq!(health.provider_code.as_deref(), Some("CODE 1"));
        }
    }

    #[test]
    fn one_lost_connection_is_no_news_and_a_wait_that_was_asked_for_is_kept() {
        let lost = error(Kind::Transient);
        assert!(of(&lost, limits::HEALTH_FAILURES - 1).is_none());
        assert_eq!(of(&lost, limits::HEALTH_FAILURES).unwrap().state, State::Degraded);
        let asked = of(&lost.retry_after(Duration::from_secs(7)), 1).unwrap();
        assert_eq!((asked.state, asked.when), (State::BackOff, Some(1_007)));
        let account = account();
        let nobody = error(Kind::Internal);
        let during = worst(&account, Err(&nobody), Some(asked.clone()), 1_006);
        assert_eq!(during.state, State::BackOff);
        assert_eq!(worst(&account, Err(&nobody), Some(asked), 1_007).state, State::Degraded);
    }

    #[test]
    fn a_wrong_field_is_named_as_the_form_names_it() {
        let fault = crate::error::Fault {
            pointer: "/client_secret".into(),
            label: "Client Secret".into(),
            message: "wrong".into(),
        };
        let health = of(&Error::settings(vec![fault]), 1).unwrap();
        let field = health.field.unwrap();
        assert_eq!((&*field.pointer, &*field.label), ("/incoming/client_secret", "Client Secret"));
    }

    #[test]
    fn other_words_for_the_same_fault_are_no_news() {
        let health = |state| Health { why: Some("A sentence.".into()), ..Health::of(&account(), state) };
        let reset = Health { why: Some("Connection reset.".into()), when: Some(1), ..health(State::BackOff) };
        let timeout = Health { why: Some("Timed out.".into()), when: Some(9), ..health(State::BackOff) };
        assert!(reset.says_the_same(&timeout));
        let other_reason = Health { why: Some("Password changed.".into()), ..health(State::ConsentNeeded) };
        assert!(!health(State::ConsentNeeded).says_the_same(&other_reason));
        let soon = Health { when: Some(1), ..health(State::Expiring) };
        assert!(!soon.says_the_same(&Health { when: Some(2), ..soon.clone() }));
        assert!(!health(State::Degraded).says_the_same(&health(State::Ok)));
    }
}
