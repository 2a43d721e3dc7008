//! Tokens that end between two messages, and an authorization server that is away.

use std::{
    thread,
    time::{Duration, Instant},
};

use oauth_mail_core::hooks::Handle;
use oauth_mail_tests::{Servers, fixture::Fixture, relay::Relay};
use serde_json::{Value, json};

use super::{send, servers, text_to, through};

const SINK: &str = "sink@example.test";
/// Longer than any pause after a failed refresh.
const PAST_ANY_PAUSE: i64 = 600;

#[test]
fn a_warm_session_outlives_its_token_and_a_new_one_refreshes_once() {
    let servers = servers();
    let relay = Relay::start(servers.postfix.smtps_port).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", through(&relay));
    let before = servers.idp.refreshes();
    sent(&handle, "first");
    servers.idp.revoke_access_tokens(&servers.address("alice")).unwrap();
    sent(&handle, "on the session that was there");
    assert_eq!((servers.idp.refreshes() - before, relay.connections()), (0, 1));

    // Revoked, and the server says so: one refresh, one more login.
    let logins = failed_logins(&servers);
    break_connection(&relay);
    sent(&handle, "on a new session");
    assert_eq!(servers.idp.refreshes() - before, 1);

    // Postfix writes its log a little later.
    let end = Instant::now() + Duration::from_secs(60);
    while failed_logins(&servers) == logins {
        assert!(Instant::now() < end, "no login was refused");
        thread::sleep(Duration::from_millis(50));
    }

    // Expired, and we know: no login with a dead token is tried.
    let logins = failed_logins(&servers);
    fixture.clock.advance(3_600);
    sent(&handle, "warm, expired");
    assert_eq!(servers.idp.refreshes() - before, 1);
    break_connection(&relay);
    sent(&handle, "new, expired");
    assert_eq!((servers.idp.refreshes() - before, failed_logins(&servers)), (2, logins));
}

#[test]
fn an_authorization_server_that_is_down_is_never_a_reason_to_consent_again() {
    let servers = servers();
    let relay = Relay::start(servers.postfix.smtps_port).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", through(&relay));
    for fault in [
        json!({"times": 100, "status": 503, "headers": {"retry-after": "7"}}),
        json!({"times": 100, "status": 429, "body": "{\"error\":\"temporarily_unavailable\"}"}),
        json!({"times": 100, "drop": true}),
    ] {
        fixture.clock.advance(3_600);
        break_connection(&relay);
        servers.idp.fault(fault.clone()).unwrap();
        let down = retry(&send(&handle, &text_to(SINK, "while it is down")));
        assert!(down["error"]["message"].is_string(), "{down}");
        // Its pause: the server is not asked again, and the answer is the same.
        retry(&send(&handle, &text_to(SINK, "while it is down")));
        servers.idp.reset_faults().unwrap();
        fixture.clock.advance(PAST_ANY_PAUSE);
        sent(&handle, "it is back");
    }

    // The mail server cannot ask it: Postfix says 535, as for a bad token.
    break_connection(&relay);
    servers.idp.fault(json!({"path": "/token/introspection", "times": 100, "status": 503})).unwrap();
    let refreshes = servers.idp.refreshes();
    let blind = retry(&send(&handle, &text_to(SINK, "the server cannot tell")));
    assert_eq!(servers.idp.refreshes(), refreshes, "a token that nobody judged was thrown away: {blind}");
    servers.idp.reset_faults().unwrap();
    sent(&handle, "it can tell again");
}

#[test]
fn a_withdrawn_consent_is_said_and_nothing_is_sent() {
    let servers = servers();
    let relay = Relay::start(servers.postfix.smtps_port).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", through(&relay));
    servers.idp.revoke(&servers.address("alice")).unwrap();
    break_connection(&relay);
    let request = json!({"to": [SINK], "subject": "x", "text": "x", "idempotency_key": "withdrawn"});
    let error = handle.send_message(&request.to_string(), &[]).unwrap_err();
    assert_eq!(error.kind().name(), "consent_required", "{error}");
    // The same handle goes on after the person has consented again, and the key was not used up.
    oauth_mail_tests::fixture::consent(&servers, &handle, "alice").unwrap();
    assert_eq!(send(&handle, &request)["outcome"], "sent");
}

fn sent(handle: &Handle, subject: &str) {
    let answer = send(handle, &text_to(SINK, subject));
    assert_eq!(answer["outcome"], "sent", "{subject}: {answer}");
}

fn retry(answer: &Value) -> Value {
    let kind = answer["error"]["kind"].as_str().unwrap();
    assert!(answer["outcome"] == "retry" && ["transient", "throttled"].contains(&kind), "{answer}");
    answer.clone()
}

/// What is open breaks; what is opened next is whole.
fn break_connection(relay: &Relay) {
    relay.break_all();
}

fn failed_logins(servers: &Servers) -> usize {
    servers.postfix.log().matches("authentication failed").count()
}
