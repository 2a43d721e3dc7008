//! Handing out access tokens, and renewing them: once per expiry among threads and processes, saved before they are
//! used, and never with a refresh token that is known to be spent.

use std::thread;

use super::{
    AccessToken, Inner,
    flight::{Guard, Memory},
    grant::{Grant, Lease},
    grant_id, status, token_request,
};
use crate::{
    clock::Deadline,
    error::{Kind, Result},
    limits,
    net::Net,
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
    let mut memory = inner.flights.enter(&id, deadline)?;
    loop {
        deadline.check("a fresh access token")?;
        let (grant, version) =
            load(inner, account, &id, &mut memory)?.ok_or_else(|| status::never_consented(account))?;
        if let Some(words) = &grant.refusal {
            return Err(words.to_error(Kind::ConsentRequired));
        }
        let now = inner.clock.now();
        let is_refused = refused.is_some_and(|refused| refused.secret == grant.access_token);
        if !is_refused && grant.is_fresh(now) {
            return Ok(grant.token());
        }
        // Near its end, but still good: better than an error when the provider is away.
        let fallback = (!is_refused && grant.is_valid(now)).then(|| grant.token());
        match renew(inner, account, net, &id, grant, version, is_refused, &mut memory, deadline) {
            Ok(Some(token)) => return Ok(token),
            Ok(None) => {}
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

/// The record, or the newer tokens that could not be written.
pub(super) fn load(inner: &Inner, account: &Account, id: &str, memory: &mut Memory) -> Result<Option<(Grant, u64)>> {
    let Some((grant, expected)) = memory.unsaved.take() else { return Grant::read(&*inner.store, id) };
    match grant.write(&*inner.store, id, Some(expected)) {
        Ok(Some(version)) => {
            inner.log(account).info(format_args!("The renewed sign-in is saved now."));
            Ok(Some((grant, version)))
        }
        Ok(None) => Grant::read(&*inner.store, id),
        Err(e) => {
            inner
                .log(account)
                .error(format_args!("The renewed sign-in still cannot be saved; a restart now would lose it. {e}"));
            memory.unsaved = Some((grant.clone(), expected));
            Ok(Some((grant, expected)))
        }
    }
}

/// `None`: somebody else changed the record meanwhile; look again.
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
) -> Result<Option<AccessToken>> {
    let Some(refresh_token) = grant.refresh_token.clone() else { return Err(status::no_refresh_token(account)) };
    let now = inner.clock.now();
    memory.check_pause(&account.client, now)?;
    if let Some(lease) = grant.lease.as_ref().filter(|lease| lease.until > now && lease.owner != inner.owner) {
        // A lease that ends later than any lease can is a clock's mistake.
        if lease.until <= now + 2 * limits::REFRESH_LEASE.as_secs() as i64 {
            thread::sleep(limits::REFRESH_POLL.min(deadline.left()));
            return Ok(None);
        }
    }
    if is_forced {
        memory.count_forced(now)?;
    }
    // With a store that cannot be written, a rotated token could be lost: nothing is asked then.
    grant.lease = Some(Lease { owner: inner.owner.clone(), until: now + limits::REFRESH_LEASE.as_secs() as i64 });
    let Some(version) = grant.write(&*inner.store, id, Some(version))? else { return Ok(None) };
    grant.lease = None;

    let auth = grant.client_auth.still(&account.client);
    let asked_at = inner.clock.now();
    let outcome = token_request::refresh(account, net, auth, &refresh_token, deadline)
        .and_then(|answer| grant.renew(&answer, asked_at).map_err(token_request::Trouble::Other));
    let Err(trouble) = outcome else {
        memory.pause = None;
        return Ok(save(inner, account, id, grant, version, memory)?.map(|grant| grant.token()));
    };
    let failure = trouble.failure();
    if failure.kind == Kind::ConsentRequired {
        grant.refusal = Some(failure.words);
    } else {
        // From the answer on: a server that took its time to fail would else be asked again at once.
        memory.pause(&failure, &account.client, inner.clock.now());
    }
    // Also gives the lease back. When somebody else wrote, the refusal was of an older refresh token.
    match save(inner, account, id, grant, version, memory)? {
        Some(_) => Err(trouble.into_error()),
        None => Ok(None),
    }
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
    match grant.write(&*inner.store, id, Some(version)) {
        Ok(Some(_)) => Ok(Some(grant)),
        Ok(None) => {
            inner
                .log(account)
                .warn(format_args!("The sign-in was changed by somebody else during its renewal; using theirs."));
            Ok(None)
        }
        Err(e) => {
            inner.log(account).error(format_args!(
                "The renewed sign-in could not be saved; it is kept in memory and saved at the next use. {e}"
            ));
            memory.unsaved = Some((grant.clone(), version));
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
            // Google gives a refresh token with the first consent only.
            if grant.refresh_token.is_none() && old.refusal.is_none() {
                let newest = memory.unsaved.as_ref().map_or(&old, |(newest, _)| newest);
                grant.refresh_token = newest.refresh_token.clone();
                grant.refresh_expires_at = newest.refresh_expires_at;
            }
        }
        if grant.write(&*inner.store, id, old)?.is_some() {
            *memory = Memory::default();
            return Ok(grant);
        }
    }
}
