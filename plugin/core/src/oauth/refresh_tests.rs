//! Renewal against a server on loopback that rotates refresh tokens and ends the family when one is used twice.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use super::{
    State,
    tests_support::{Answer, Asked, Bench, json, soon},
};
use crate::{error::Kind, store::Table};

/// Answers with the n-th tokens; a refresh token that is not the newest is an attack.
#[derive(Clone, Default)]
struct Rotating {
    issued: Arc<AtomicUsize>,
    replays: Arc<AtomicUsize>,
    slow: bool,
}

impl Rotating {
    fn answer(&self, asked: &Asked) -> Answer {
        if self.slow {
            thread::sleep(Duration::from_millis(150));
        }
        let newest = self.issued.fetch_add(1, Ordering::SeqCst);
        if asked.form["grant_type"] == "refresh_token" && asked.form["refresh_token"] != format!("refresh-{newest}") {
            self.replays.fetch_add(1, Ordering::SeqCst);
            return json(400, r#"{"error":"invalid_grant"}"#);
        }
        let n = newest + 1;
        json(
            200,
            format!(
                r#"{{"access_token":"access-{n}","token_type":"bearer","expires_in":"3600","refresh_token":"refresh-{n}"}}"#
            ),
        )
    }
}

fn rotating(slow: bool) -> (Bench, Rotating) {
    let server = Rotating { slow, ..Rotating::default() };
    let bench = Bench::new({
        let server = server.clone();
        move |asked| server.answer(asked)
    });
    bench.consent();
    (bench, server)
}

fn token(bench: &Bench) -> crate::Result<String> {
    bench.grants.access_token(&bench.account, &bench.net, soon()).map(|token| token.secret().expose().to_owned())
}

#[test]
fn fifty_threads_at_one_expiry_make_one_request() {
    let (bench, server) = rotating(true);
    bench.clock.advance(3500);
    thread::scope(|scope| {
        let calls: Vec<_> = (0..50).map(|_| scope.spawn(|| token(&bench).unwrap())).collect();
        for call in calls {
            assert_eq!(call.join().unwrap(), "access-2");
        }
    });
    assert_eq!(bench.idp.asked("/token").len(), 2, "the code and one refresh");
    assert_eq!(server.replays.load(Ordering::SeqCst), 0);
}

#[test]
fn two_processes_never_present_the_same_refresh_token() {
    let (bench, server) = rotating(true);
    let processes: Vec<_> = (0..4).map(|_| bench.another()).collect();
    for round in 0..3 {
        bench.clock.advance(3600);
        thread::scope(|scope| {
            for grants in &processes {
                for _ in 0..3 {
                    scope.spawn(|| grants.access_token(&bench.account, &bench.net, soon()).unwrap());
                }
            }
        });
        assert_eq!(bench.idp.asked("/token").len(), 2 + round);
    }
    assert_eq!(server.replays.load(Ordering::SeqCst), 0);
}

#[test]
fn a_lease_left_by_a_dead_process_ends() {
    let (bench, _) = rotating(false);
    bench.clock.advance(3600);
    let id = super::grant_id(&bench.account);
    let (mut grant, version) = super::grant::Grant::read(&*bench.store, &id).unwrap().unwrap();
    grant.lease = Some(super::grant::Lease { owner: "dead".into(), until: bench.clock.now() + 45 });
    grant.write(&*bench.store, &id, Some(version)).unwrap().unwrap();
    let short = crate::clock::Deadline::after(Duration::from_millis(500));
    let error = bench.grants.access_token(&bench.account, &bench.net, short).err().unwrap();
    assert_eq!(error.kind(), Kind::Transient);
    assert_eq!(bench.idp.asked("/token").len(), 1);
    bench.clock.advance(46);
    assert_eq!(token(&bench).unwrap(), "access-2");
}

#[test]
fn a_token_is_used_until_near_its_end() {
    let (bench, _) = rotating(false);
    bench.clock.advance(3600 - 130);
    assert_eq!(token(&bench).unwrap(), "access-1");
    bench.clock.advance(20);
    assert_eq!(token(&bench).unwrap(), "access-2");
    // One-minute tokens are not renewed at each use.
    bench.idp.set(|_| json(200, r#"{"access_token":"brief","expires_in":60}"#));
    bench.clock.advance(3600);
    for _ in 0..5 {
        assert_eq!(token(&bench).unwrap(), "brief");
        bench.clock.advance(10);
    }
    assert_eq!(bench.idp.asked("/token").len(), 3);
}

#[test]
fn an_answer_without_refresh_token_keeps_the_old_one() {
    let (bench, _) = rotating(false);
    bench.idp.set(|_| json(200, r#"{"access_token":"a","expires_in":3600}"#));
    for _ in 0..3 {
        bench.clock.advance(3600);
        token(&bench).unwrap();
    }
    let sent: Vec<_> = bench.idp.asked("/token")[1..].iter().map(|asked| asked.form["refresh_token"].clone()).collect();
    assert_eq!(sent, ["refresh-1"; 3]);
}

#[test]
fn a_failed_write_after_rotation_never_replays_the_old_token() {
    let (bench, server) = rotating(false);
    bench.clock.advance(3600);
    // The lease is the first write, the rotated tokens are the second.
    bench.store.fail_write_in.store(2, Ordering::SeqCst);
    assert_eq!(token(&bench).unwrap(), "access-2");
    assert!(bench.log.lock().unwrap().contains("could not be saved"));
    assert!(bench.grants.status(&bench.account).unwrap().warnings[0].sentence.contains("could not be saved"));
    // Still no disk: the tokens in memory serve, and no refresh is asked for that could not be saved.
    bench.store.fail_writes.store(true, Ordering::SeqCst);
    assert_eq!(token(&bench).unwrap(), "access-2");
    bench.clock.advance(3600);
    assert_eq!(token(&bench).unwrap_err().kind(), Kind::Transient);
    assert_eq!(bench.idp.asked("/token").len(), 2);
    // The disk is back: the pair is saved first, then used.
    bench.store.fail_writes.store(false, Ordering::SeqCst);
    assert_eq!(token(&bench).unwrap(), "access-3");
    assert_eq!(server.replays.load(Ordering::SeqCst), 0);
    assert_eq!(bench.another().access_token(&bench.account, &bench.net, soon()).unwrap().generation(), 3);
}

#[test]
fn a_store_that_cannot_be_written_stops_the_refresh_before_the_rotation() {
    let (bench, server) = rotating(false);
    bench.clock.advance(3600);
    bench.store.fail_writes.store(true, Ordering::SeqCst);
    assert!(token(&bench).is_err());
    assert_eq!(server.issued.load(Ordering::SeqCst), 1);
    bench.store.fail_writes.store(false, Ordering::SeqCst);
    assert_eq!(token(&bench).unwrap(), "access-2");
}

#[test]
fn a_transient_fault_pauses_and_heals_by_itself() {
    let (bench, server) = rotating(false);
    let at = Arc::new(Mutex::new(0));
    bench.idp.set({
        let at = at.clone();
        move |_| {
            let mut at = at.lock().unwrap();
            *at += 1;
            match *at {
                1 => (503, "Retry-After: 90\r\n".into(), "<html>down".into()),
                2 => json(429, "{}"),
                _ => json(500, r#"{"error":"invalid_grant"}"#),
            }
        }
    });
    bench.clock.advance(3600);
    let error = token(&bench).unwrap_err();
    assert_eq!(error.kind(), Kind::Transient);
    for _ in 0..20 {
        let error = token(&bench).unwrap_err();
        assert!(error.is_transient());
        assert!(error.to_json()["retry_after_seconds"].as_u64().unwrap() >= 88);
    }
    assert_eq!(*at.lock().unwrap(), 1, "Retry-After is honoured, whatever the host does");
    bench.clock.advance(91);
    assert_eq!(token(&bench).unwrap_err().kind(), Kind::Throttled);
    for _ in 0..50 {
        assert!(token(&bench).unwrap_err().is_transient());
        bench.clock.advance(10);
    }
    let tries = *at.lock().unwrap();
    assert!((4..=14).contains(&tries), "{tries} requests in 500 s");
    assert_eq!(bench.grants.status(&bench.account).unwrap().state, State::Authorized);
    assert!(
        bench
            .grants
            .status(&bench.account)
            .unwrap()
            .warnings
            .iter()
            .any(|warning| warning.sentence.contains("renewal failed"))
    );
    bench.clock.advance(400);
    bench.idp.set(move |asked| server.answer(asked));
    assert_eq!(token(&bench).unwrap(), "access-2");
    assert!(bench.grants.status(&bench.account).unwrap().warnings.is_empty());
}

#[test]
fn a_token_near_its_end_is_used_while_the_provider_is_away() {
    let (bench, _) = rotating(false);
    bench.idp.set(|_| json(503, ""));
    bench.clock.advance(3550);
    assert_eq!(token(&bench).unwrap(), "access-1");
    bench.clock.advance(100);
    assert_eq!(token(&bench).unwrap_err().kind(), Kind::Transient);
}

#[test]
fn an_ended_grant_is_remembered_and_asked_for_no_more() {
    let (bench, _) = rotating(false);
    bench.idp.set(|_| json(400, r#"{"error":"invalid_grant","error_codes":[700082],"trace_id":"t-9"}"#));
    bench.clock.advance(3600);
    for _ in 0..10 {
        let error = token(&bench).unwrap_err();
        assert_eq!(error.kind(), Kind::ConsentRequired);
        assert!(error.provider_code_text().unwrap().contains("AADSTS700082"));
        assert_eq!(error.to_json()["correlation"], "trace_id=t-9");
        bench.clock.advance(3600);
    }
    assert!(bench.another().access_token(&bench.account, &bench.net, soon()).is_err());
    assert_eq!(bench.idp.asked("/token").len(), 2, "also by another process");
    let status = bench.grants.status(&bench.account).unwrap();
    assert_eq!(
        (status.state, status.to_json()["state"].as_str().unwrap()),
        (State::ConsentRequired, "consent_required")
    );
    // A new consent mends it.
    bench.idp.set(|_| json(200, r#"{"access_token":"new","expires_in":3600,"refresh_token":"r"}"#));
    bench.consent();
    assert_eq!(token(&bench).unwrap(), "new");
}

#[test]
fn a_corrected_secret_is_tried_at_once() {
    let (mut bench, server) = rotating(false);
    bench.idp.set(|_| json(401, r#"{"error":"invalid_client"}"#));
    bench.clock.advance(3600);
    for _ in 0..5 {
        let error = token(&bench).unwrap_err();
        assert_eq!((error.kind(), error.faults()[0].pointer.as_str()), (Kind::Settings, "/client_secret"));
    }
    assert_eq!(bench.idp.asked("/token").len(), 3, "the code, and one refresh with the secret in header and body");
    bench.idp.set(move |asked| server.answer(asked));
    bench.account.client.client_secret = Some(crate::secret::Secret::new("corrected"));
    assert_eq!(token(&bench).unwrap(), "access-2");
}

#[test]
fn a_refused_token_is_replaced_once_however_many_ask() {
    let (bench, _) = rotating(true);
    let refused = bench.grants.access_token(&bench.account, &bench.net, soon()).unwrap();
    let replace = || bench.grants.replace(&bench.account, &bench.net, &refused, soon());
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| assert_eq!(replace().unwrap().secret().expose(), "access-2"));
        }
    });
    assert_eq!(bench.idp.asked("/token").len(), 2);
    // A mail server that takes no token at all does not turn into a refresh at each poll.
    let mut last = replace().unwrap();
    let error = loop {
        match bench.grants.replace(&bench.account, &bench.net, &last, soon()) {
            Ok(next) => last = next,
            Err(e) => break e,
        }
    };
    assert_eq!(error.kind(), Kind::Refused);
    assert_eq!(bench.idp.asked("/token").len(), 1 + crate::limits::REFRESH_FORCED_PER_HOUR);
    bench.clock.advance(3601);
    assert!(token(&bench).is_ok());
}

#[test]
fn a_new_consent_during_a_refresh_wins() {
    let (bench, _) = rotating(false);
    bench.clock.advance(3600);
    let other = bench.another();
    let (asks, has_asked) = mpsc::channel();
    let (kept, is_kept) = mpsc::channel();
    let (asks, is_kept) = (Mutex::new(asks), Mutex::new(is_kept));
    bench.idp.set(move |asked| match asked.form["grant_type"].as_str() {
        "refresh_token" => {
            asks.lock().unwrap().send(()).unwrap();
            is_kept.lock().unwrap().recv().unwrap();
            json(400, r#"{"error":"invalid_grant"}"#)
        }
        _ => json(200, r#"{"access_token":"consented","expires_in":3600,"refresh_token":"r"}"#),
    });
    let redirect = bench.redirect(&format!("state={}&code=c", bench.state()));
    thread::scope(|scope| {
        let refresh = scope.spawn(|| token(&bench));
        has_asked.recv().unwrap();
        let redeemed = other.redeem(&bench.account, &bench.net, &redirect, soon()).unwrap();
        other.keep(&bench.account, redeemed).unwrap();
        kept.send(()).unwrap();
        assert_eq!(refresh.join().unwrap().unwrap(), "consented");
    });
    assert_eq!(bench.grants.status(&bench.account).unwrap().state, State::Authorized);
}

#[test]
fn a_revocation_removes_the_grant_even_when_the_provider_fails() {
    let (bench, server) = rotating(false);
    let revoke = || bench.grants.revoke(&bench.account, &bench.net, soon()).unwrap();
    bench.idp.set(|_| json(200, ""));
    assert!(revoke().at_provider);
    let asked = bench.idp.asked("/revoke").remove(0);
    assert_eq!((asked.form["token"].as_str(), asked.form["token_type_hint"].as_str()), ("refresh-1", "refresh_token"));
    assert!(asked.authorization.unwrap().starts_with("Basic "));
    assert_eq!(token(&bench).unwrap_err().kind(), Kind::ConsentRequired);

    bench.idp.set({
        let server = server.clone();
        move |asked| if asked.path == "/revoke" { json(503, "<html>") } else { server.answer(asked) }
    });
    bench.consent();
    let revoked = revoke();
    assert!(!revoked.at_provider && revoked.note.unwrap().contains("did not revoke"));
    assert_eq!(bench.store.count(Table::Grant), 0);
    assert!(!revoke().at_provider);
}

#[test]
fn ungranted_scopes_and_a_missing_refresh_token_are_warned_of() {
    let mut bench = Bench::new(|_| json(200, r#"{"access_token":"a","expires_in":3600,"scope":"openid other"}"#));
    bench.consent();
    let warnings = bench.grants.status(&bench.account).unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.sentence.contains("did not grant mail")), "{warnings:?}");
    assert!(warnings.iter().any(|warning| warning.sentence.contains("offline_access")), "{warnings:?}");
    bench.clock.advance(3600);
    assert_eq!(token(&bench).unwrap_err().kind(), Kind::ConsentRequired);
    assert_eq!(bench.grants.status(&bench.account).unwrap().state, State::ConsentRequired);
    bench.account.consenting_user = "HELPDESK@corp.test".into();
    assert_eq!(bench.grants.status(&bench.account).unwrap().scopes.granted, ["openid", "other"]);
}

#[test]
fn http_keeps_its_promises() {
    let bench = Bench::new(|asked| match asked.path.as_str() {
        "/large" => json(200, "x".repeat(crate::limits::HTTP_BODY_MAX + 1)),
        "/slow" => {
            thread::sleep(Duration::from_secs(20));
            json(200, "")
        }
        _ => (302, "Location: https://localhost:1/\r\nX-Ms-Request-Id: id-1\r\n".into(), String::new()),
    });
    let url = |path: &str| url::Url::parse(&format!("{}{path}", bench.idp.base)).unwrap();
    let http = bench.net.http();
    assert_eq!(http.get(&url("/large"), None, soon()).err().unwrap().kind(), Kind::TooLarge);
    let redirect = http.get(&url("/elsewhere"), None, soon()).unwrap();
    assert_eq!((redirect.status, redirect.correlation.as_deref()), (302, Some("x-ms-request-id=id-1")));
    let begun = std::time::Instant::now();
    let error = http.get(&url("/slow"), None, crate::clock::Deadline::after(Duration::from_secs(1))).err().unwrap();
    assert_eq!(error.kind(), Kind::Transient);
    assert!(begun.elapsed() < Duration::from_secs(10));
    let plain = bench.idp.base.replace("https", "http").parse().unwrap();
    assert_eq!(http.get(&plain, None, soon()).err().unwrap().kind(), Kind::Settings);
    let literal = bench.idp.base.replace("localhost", "127.0.0.1").parse().unwrap();
    let error = http.get(&literal, None, soon()).err().unwrap();
    assert_eq!(error.kind(), Kind::AdminRequired, "the certificate is for localhost: {error}");
    let strict = crate::net::Egress { deny_private_networks: true };
    let strict = crate::net::Net::new(Some(bench.idp.ca.path()), strict).unwrap();
    for url in [url("/"), literal] {
        assert_eq!(strict.http().get(&url, None, soon()).err().unwrap().kind(), Kind::Refused);
    }
}

#[test]
fn a_store_that_cannot_be_read_leaves_the_token_in_hand() {
    let (bench, _) = rotating(false);
    assert_eq!(token(&bench).unwrap(), "access-1");
    bench.store.fail_reads.store(true, Ordering::SeqCst);
    assert_eq!(token(&bench).unwrap(), "access-1");
    assert!(bench.log.lock().unwrap().contains("in memory"));
    // Another process has nothing in hand, and what has expired is of no use.
    assert_eq!(bench.another().access_token(&bench.account, &bench.net, soon()).err().unwrap().kind(), Kind::Transient);
    bench.clock.advance(3600);
    assert_eq!(token(&bench).unwrap_err().kind(), Kind::Transient);
    bench.store.fail_reads.store(false, Ordering::SeqCst);
    assert_eq!(token(&bench).unwrap(), "access-2");
}

#[test]
fn tokens_whose_answer_came_after_the_lease_are_not_lost() {
    let (bench, _) = rotating(false);
    bench.clock.advance(3600);
    let (store, account) = (bench.store.clone(), bench.account.clone());
    let (first, clock) = (AtomicBool::new(true), bench.clock.clone());
    let id = super::grant_id(&account);
    // While the answer is on its way the lease ends, and another process takes it over.
    bench.idp.set(move |_| {
        if first.swap(false, Ordering::SeqCst) {
            clock.advance(crate::limits::REFRESH_LEASE.as_secs() as i64 + 1);
            let (mut grant, version) = super::grant::Grant::read(&*store, &id).unwrap().unwrap();
            grant.lease = Some(super::grant::Lease { owner: "another".into(), until: clock.now() + 25 });
            grant.write(&*store, &id, Some(version)).unwrap().unwrap();
        }
        json(200, r#"{"access_token":"access-late","refresh_token":"refresh-late","expires_in":3600}"#)
    });
    assert_eq!(token(&bench).unwrap(), "access-late");
    assert_eq!(bench.another().access_token(&account, &bench.net, soon()).unwrap().generation(), 2);
    assert_eq!(bench.idp.asked("/token").len(), 2);
}

/// A fail-over to a standby that was behind, or a backup put back.
#[test]
fn a_store_that_went_back_is_not_believed_and_gets_the_newer_sign_in_again() {
    let (bench, server) = rotating(false);
    let older = bench.store.backup();
    bench.clock.advance(3600);
    assert_eq!(token(&bench).unwrap(), "access-2");
    bench.store.restore(&older);
    // The older record would be fresh to nobody who knows better: its refresh token is spent.
    assert_eq!(token(&bench).unwrap(), "access-2");
    bench.clock.advance(3600);
    assert_eq!(token(&bench).unwrap(), "access-3");
    assert_eq!(server.replays.load(Ordering::SeqCst), 0, "a spent refresh token was presented");
    // For everybody.
    assert_eq!(bench.another().access_token(&bench.account, &bench.net, soon()).unwrap().generation(), 3);

    // The consent itself is among what was lost.
    bench.store.restore(&Default::default());
    assert_eq!(token(&bench).err().unwrap().kind(), Kind::ConsentRequired, "somebody may have revoked it");
    let (bench, _) = rotating(false);
    assert_eq!(token(&bench).unwrap(), "access-1");
    bench.store.restore(&Default::default());
    bench.store.epoch.store(1, Ordering::SeqCst);
    assert_eq!(token(&bench).unwrap(), "access-1");
    assert_eq!(bench.store.count(Table::Grant), 1);
}
