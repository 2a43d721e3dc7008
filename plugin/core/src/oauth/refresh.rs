//! Handing out access tokens, and renewing them: once per expiry among threads and processes, saved before they are
//! used, and never with a refresh token that is known to be spent.

use super::{
    AccessToken, Inner, application,
    flight::{Guard, Last},
    grant::{Grant, Lease},
    grant_id, resource, status, token_request,
};
use crate::{
    call,
    clock::Deadline,
    error::{Error, Kind, Result},
    limits,
    net::Net,
    seam,
    settings::Account,
};

/// `refused`: the access token that a mail server did not take, although it should be good.
pub(super) fn current(
    inner: &Inner,
    account: &Account,
    net: &Net,
    refused: Option<&AccessToken>,
    deadline: Deadline,
) -> Result<AccessToken> {
    let id = grant_id(account);
    let resource = resource::of_account(account);
    let mut memory = inner.flights.enter(&id, deadline)?;
    let mut poll = limits::PEER_POLL_FIRST;
    loop {
        deadline.check("a fresh access token")?;
        let (mut grant, version) = match load(inner, account, &id, &mut memory) {
            Ok(found) => found.ok_or_else(|| status::never_consented(account))?,
            Err(e) => return in_hand(inner, account, refused, &memory, e),
        };
        if let Some(words) = &grant.refusal {
            return Err(words.to_error(Kind::ConsentRequired));
        }
        grant.select(&resource);
        if !grant.covers(account) {
            return Err(status::never_asked(account));
        }
        let now = inner.clock.now();
        let is_refused = refused.is_some_and(|refused| refused.secret == grant.access_token);
        if !is_refused && grant.is_fresh(account, now) {
            return Ok(grant.token());
        }
        // Near its end, but still good: better than an error when the provider is away.
        let fallback = (!is_refused && grant.is_valid(now)).then(|| grant.token());
        match renew(inner, account, net, &id, grant, version, is_refused, &mut memory, deadline) {
            Ok(Renewal::Token(token)) => return Ok(token),
            Ok(Renewal::Changed) => {}
            Ok(Renewal::Leased) => {
                // Whoever renews it may be dead; what is still good need not wait for that.
                if let Some(token) = fallback {
                    return Ok(token);
                }
                seam::sleep(poll.min(deadline.left()));
                poll = (2 * poll).min(limits::PEER_POLL);
            }
            Err(e) if e.kind() == Kind::ConsentRequired => return fallback.ok_or(e),
            Err(e) => {
                let Some(token) = fallback else { return Err(e) };
                inner
                    .log(account)
                    .warn(format_args!("The access token could not be renewed yet; using it to its end. {e}"));
                return Ok(token);
            }
        }
    }
}

/// The store cannot be read: an access token that this process has is as good as before.
fn in_hand(
    inner: &Inner,
    account: &Account,
    refused: Option<&AccessToken>,
    memory: &Guard,
    error: Error,
) -> Result<AccessToken> {
    let now = inner.clock.now();
    let is_good = |grant: &Grant| {
        grant.refusal.is_none()
            && grant.is_valid(now)
            && refused.is_none_or(|refused| refused.secret != grant.access_token)
    };
    let last = memory.last().map(|last| {
        let mut grant = last.grant;
        grant.select(&resource::of_account(account));
        grant
    });
    let Some(grant) = last.filter(is_good).filter(|_| error.is_transient()) else { return Err(error) };
    inner
        .log(account)
        .warn(format_args!("The store cannot be read; going on with the access token that is in memory. {error}"));
    Ok(grant.token())
}

/// The record, or the newer tokens that could not be written.
pub(super) fn load(inner: &Inner, account: &Account, id: &str, memory: &mut Guard) -> Result<Option<(Grant, u64)>> {
    let found = load_newest(inner, account, id, memory)?;
    memory.remember(found.as_ref().map(|(grant, _)| last(inner, grant)));
    Ok(found)
}

fn last(inner: &Inner, grant: &Grant) -> Last {
    Last { grant: grant.clone(), epoch: inner.store.epoch() }
}

/// A record that is older than what this process last read or saved is not believed: its refresh token
/// is spent, and would end the sign-in. The newer one is written back.
fn stored(inner: &Inner, account: &Account, id: &str, memory: &Guard) -> Result<Option<(Grant, u64)>> {
    for _ in 0..limits::CLAIM_ATTEMPTS {
        let found = Grant::read(&*inner.store, id)?;
        let Some(known) = memory.last() else { return Ok(found) };
        let went_back = match &found {
            Some((theirs, _)) => known.grant.succeeds(theirs),
            // Somebody may have revoked it; but not while the store lost what was in it.
            None => inner.store.epoch() > known.epoch,
        };
        if !went_back {
            return Ok(found);
        }
        inner.log(account).error(format_args!(
            "The store has an older sign-in than this process, or none: it went back to an earlier state. The newer \
             sign-in is written back."
        ));
        let grant = Grant { lease: None, ..known.grant };
        if let Some(version) = grant.write(&*inner.store, id, found.map(|(_, version)| version))? {
            return Ok(Some((grant, version)));
        }
    }
    Grant::read(&*inner.store, id)
}

fn load_newest(inner: &Inner, account: &Account, id: &str, memory: &mut Guard) -> Result<Option<(Grant, u64)>> {
    while let Some((grant, expected)) = memory.unsaved.clone() {
        match grant.write(&*inner.store, id, Some(expected)) {
            Ok(Some(version)) => {
                inner.log(account).info(format_args!("The renewed sign-in is saved now."));
                memory.unsaved = None;
                return Ok(Some((grant, version)));
            }
            // A write that failed only for us, or somebody else's. They have no newer tokens than ours? Then ours stand.
            Ok(None) => match Grant::read(&*inner.store, id)? {
                Some((theirs, version)) if grant.succeeds(&theirs) => memory.unsaved = Some((grant, version)),
                found => {
                    memory.unsaved = None;
                    return Ok(found);
                }
            },
            Err(e) => {
                inner
                    .log(account)
                    .error(format_args!("The renewed sign-in still cannot be saved; a restart now would lose it. {e}"));
                return Ok(Some((grant, expected)));
            }
        }
    }
    stored(inner, account, id, memory)
}

enum Renewal {
    Token(AccessToken),
    /// Somebody else changed the record meanwhile: look again.
    Changed,
    /// Somebody else is renewing it: look again after a while.
    Leased,
}

#[expect(clippy::too_many_arguments)]
fn renew(
    inner: &Inner,
    account: &Account,
    net: &Net,
    id: &str,
    mut grant: Grant,
    version: u64,
    is_forced: bool,
    memory: &mut Guard,
    deadline: Deadline,
) -> Result<Renewal> {
    let refresh_token = grant.refresh_token.clone();
    if refresh_token.is_none() && !account.client.grant.is_app_only() {
        return Err(status::no_refresh_token(account));
    }
    let now = inner.clock.now();
    memory.check_pause(account, &grant, now)?;
    // Leases are judged by the clock that all nodes share.
    let shared_now = now + inner.store.ahead();
    if let Some(lease) = grant.lease.as_ref().filter(|lease| lease.until > shared_now && lease.owner != inner.owner) {
        // A lease that ends later than any lease can is a clock's mistake.
        if lease.until <= shared_now + 2 * limits::REFRESH_LEASE.as_secs() as i64 {
            return Ok(Renewal::Leased);
        }
    }
    // A key that cannot be read is not the provider's refusal: it is said at once, and looked for again at the next use.
    let mut auth = grant.client_auth.still(&account.client);
    // Without a person there is no refresh token: the next access token is asked for as the first one was.
    let refresh_token = refresh_token.filter(|_| !account.client.grant.is_app_only());
    match &refresh_token {
        Some(_) => auth.prove(&account.client, now).map(drop)?,
        None => application::check(account, auth, now)?,
    }
    if is_forced {
        memory.count_forced(now)?;
    }
    // With a store that cannot be written, a rotated token could be lost: nothing is asked then.
    // The request ends before the lease does, however long the store takes to write it.
    let request_deadline = deadline.at_most(limits::REFRESH_TIMEOUT);
    grant.lease =
        Some(Lease { owner: inner.owner.clone(), until: shared_now + limits::REFRESH_LEASE.as_secs() as i64 });
    let Some(version) = grant.write(&*inner.store, id, Some(version))? else { return Ok(Renewal::Changed) };
    grant.lease = None;

    let asked_at = inner.clock.now();
    let outcome = match &refresh_token {
        Some(token) => {
            let scope = grant.scope_of_renewal();
            auth.send(&account.client, asked_at, |proof| {
                token_request::refresh(account, net, proof, token, scope.as_deref(), request_deadline)
            })
        }
        None => application::send(account, net, &mut auth, asked_at, request_deadline),
    };
    grant.client_auth = auth;
    let outcome = outcome.and_then(|answer| grant.renew(&answer, asked_at).map_err(token_request::Trouble::Other));
    let Err(trouble) = outcome else {
        memory.pause = None;
        return Ok(match save_renewed(inner, account, id, grant, version, memory)? {
            Some(grant) => Renewal::Token(grant.token()),
            None => Renewal::Changed,
        });
    };
    let failure = trouble.failure();
    let mut told = None;
    if failure.kind == Kind::ConsentRequired {
        grant.refusal = Some(failure.words);
    } else {
        // From the answer on: a server that took its time to fail would else be asked again at once.
        let now = inner.clock.now();
        memory.pause(&failure, account, now);
        told = memory.pause.as_ref().and_then(|pause| pause.means_consent(&grant, now));
    }
    // Also gives the lease back. When somebody else wrote, the refusal was of an older refresh token.
    match save(inner, account, id, grant, version, memory)? {
        Some(_) => Err(told.map_or_else(|| trouble.into_error(), |failure| failure.to_error())),
        None => Ok(Renewal::Changed),
    }
}

/// As [`save`]. Where somebody took the lease over, because this process was held up, but got no tokens yet, ours are
/// the only good ones: the refresh token that they have is spent.
fn save_renewed(
    inner: &Inner,
    account: &Account,
    id: &str,
    grant: Grant,
    mut version: u64,
    memory: &mut Guard,
) -> Result<Option<Grant>> {
    call::recording(|| {
        loop {
            if let Some(saved) = save(inner, account, id, grant.clone(), version, memory)? {
                return Ok(Some(saved));
            }
            match Grant::read(&*inner.store, id) {
                Ok(Some((theirs, now))) if grant.succeeds(&theirs) => version = now,
                Ok(_) => return Ok(None),
                Err(_) => {
                    memory.unsaved = Some((grant.clone(), version));
                    return Ok(Some(grant));
                }
            }
        }
    })
}

/// `None`: somebody else was faster. A failed write keeps the tokens in memory: the old refresh token is spent.
fn save(
    inner: &Inner,
    account: &Account,
    id: &str,
    grant: Grant,
    version: u64,
    memory: &mut Guard,
) -> Result<Option<Grant>> {
    match call::recording(|| grant.write(&*inner.store, id, Some(version))) {
        Ok(Some(_)) => {
            memory.remember(Some(last(inner, &grant)));
            Ok(Some(grant))
        }
        Ok(None) => {
            inner.log(account).warn(format_args!("The sign-in was changed by somebody else during its renewal."));
            Ok(None)
        }
        Err(e) => {
            inner.log(account).error(format_args!(
                "The renewed sign-in could not be saved; it is kept in memory and saved at the next use. {e}"
            ));
            memory.unsaved = Some((grant.clone(), version));
            memory.remember(Some(last(inner, &grant)));
            Ok(Some(grant))
        }
    }
}

/// A new consent replaces whatever was there.
pub(super) fn keep(inner: &Inner, id: &str, mut grant: Grant) -> Result<Grant> {
    let mut memory = inner.flights.enter(id, Deadline::after(limits::DEADLINE_DEFAULT))?;
    loop {
        // An unreadable record is what a new consent mends: its version is all that is needed.
        let old = inner.store.read(crate::store::Table::Grant, id)?.map(|record| record.version);
        if let Ok(Some((old, _))) = Grant::read(&*inner.store, id) {
            grant.generation = grant.generation.max(old.generation + 1);
            let newest = memory.unsaved.as_ref().map_or(&old, |(newest, _)| newest);
            if old.refusal.is_none() {
                grant.take_over(newest);
            }
            // Google gives a refresh token with the first consent only.
            if grant.refresh_token.is_none() && old.refusal.is_none() {
                grant.refresh_token = newest.refresh_token.clone();
                grant.refresh_expires_at = newest.refresh_expires_at;
            }
        }
        if grant.write(&*inner.store, id, old)?.is_some() {
            memory.forget();
            return Ok(grant);
        }
    }
}
