//! Idempotency keys: one key, one message, whatever happens in between.

use std::{
    net::{Shutdown, TcpListener, TcpStream},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use oauth_mail_core::hooks::Handle;
use oauth_mail_tests::{fixture::Fixture, mailbox, relay::Relay};
use serde_json::{Value, json};

use super::{send, servers, settled, text_to, through, through_and_seen, times};

#[test]
fn one_key_is_one_message_for_one_caller_and_for_eight() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", |_| ());
    let mia = servers.address("mia");
    let first = send(&handle, &keyed(&mia, "twice", "key-1"));
    assert_eq!(first["outcome"], "sent", "{first}");
    // Also after a restart. Another message under the key is refused: see `evidence`.
    let restarted = fixture.plugin_again().open(&servers.outgoing_settings("alice").to_string()).unwrap();
    for again in [&handle, &restarted] {
        assert_eq!(send(again, &keyed(&mia, "twice", "key-1")), first);
    }

    let other = fixture.plugin_again();
    let settings = servers.outgoing_settings("alice").to_string();
    let handles: Vec<Handle> = (0..8)
        .map(|n| if n % 2 == 0 { fixture.plugin.open(&settings) } else { other.open(&settings) }.unwrap())
        .collect();
    for (subject, shared) in [("eight handles", false), ("one handle", true)] {
        let barrier = Barrier::new(handles.len());
        let request = keyed(&mia, subject, subject);
        let answers: Vec<Value> = thread::scope(|scope| {
            let calls: Vec<_> = handles
                .iter()
                .map(|own| {
                    let (handle, barrier, request) = (if shared { &handle } else { own }, &barrier, &request);
                    scope.spawn(move || {
                        barrier.wait();
                        send(handle, request)
                    })
                })
                .collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        // Whoever comes while another is at it waits for the end.
        assert_eq!(answers[0]["outcome"], "sent", "{answers:#?}");
        for answer in &answers {
            assert_eq!(answer, &answers[0]);
        }
        for handle in &handles {
            assert_eq!(send(handle, &request), answers[0]);
        }
    }
    let arrived = settled(&servers, "mia");
    assert_eq!(arrived.len(), 3, "{arrived:?}");
}

#[test]
fn unknown_stays_unknown_and_retry_may_be_sent() {
    let servers = servers();
    let relay = Relay::start(servers.postfix.smtps_port).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", through(&relay));
    let noah = servers.address("noah");

    let nothing = keyed(&noah, "after retry", "retry");
    relay.cut_after(0);
    for _ in 0..2 {
        assert_eq!(send(&handle, &nothing)["outcome"], "retry");
    }
    relay.heal();
    assert_eq!(send(&handle, &nothing)["outcome"], "sent");

    let (request, answer) = lose(&handle, &relay, &noah, "lost");
    // By the same port: another one is another server, and there the key is free.
    let mut settings = servers.outgoing_settings("alice");
    through(&relay)(&mut settings);
    let restarted = fixture.plugin_again().open(&settings.to_string()).unwrap();
    for again in [&handle, &restarted] {
        let again = send(again, &request);
        for field in ["outcome", "message_id", "error"] {
            assert_eq!(again[field], answer[field], "{again}");
        }
        assert!(again["sent_folder"]["why"].as_str().unwrap().contains("not known where"), "{again}");
    }
    let arrived = settled(&servers, "noah");
    assert_eq!(times(&arrived, "after retry"), 1, "{arrived:?}");
    assert!(times(&arrived, request["subject"].as_str().unwrap()) <= 1, "{arrived:?}");
}

#[test]
fn what_is_unknown_is_found_in_the_sent_folder_or_sent_again_on_demand() {
    let servers = servers();
    let relay = Relay::start(servers.postfix.smtps_port).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", through_and_seen(&relay, &servers));
    let bob = servers.address("bob");
    let (request, answer) = lose(&handle, &relay, &bob, "found");
    let look = json!({"look_up": answer["message_id"]});
    for request in [&request, &look] {
        let answer = send(&handle, request);
        assert_eq!(
            (&answer["outcome"], &answer["sent_folder"]["found"]),
            (&json!("unknown"), &json!(false)),
            "{answer}"
        );
    }
    // As a server does that keeps a copy of what it sends.
    let copy = format!("Message-ID: {}\r\nSubject: found\r\n\r\nA line.\r\n", answer["message_id"].as_str().unwrap());
    mailbox::append(&servers, "alice", "Sent", "01-Jan-2026 10:00:00 +0000", "\\Seen", copy.as_bytes()).unwrap();
    for request in [&look, &request, &request] {
        let answer = send(&handle, request);
        assert_eq!(
            (&answer["outcome"], &answer["sent_folder"]["folder"]),
            (&json!("sent"), &json!("Sent")),
            "{answer}"
        );
    }

    // Not there: sent again only when the host says so, and under the same Message-ID.
    let (mut request, lost) = lose(&handle, &relay, &bob, "again");
    let before = times(&settled(&servers, "bob"), "again");
    assert_eq!(send(&handle, &request)["outcome"], "unknown");
    request["resend_unknown"] = json!(true);
    // A second sending of which nothing was accepted leaves the first as unknown as it was.
    relay.cut_after(0);
    assert_eq!(send(&handle, &request)["outcome"], "retry");
    relay.heal();
    request["resend_unknown"] = json!(false);
    let still = send(&handle, &request);
    assert_eq!((&still["outcome"], &still["message_id"]), (&json!("unknown"), &lost["message_id"]), "{still}");
    assert_eq!(still["error"], lost["error"]);
    request["resend_unknown"] = json!(true);
    let sent = send(&handle, &request);
    assert_eq!((&sent["outcome"], &sent["message_id"]), (&json!("sent"), &lost["message_id"]), "{sent}");
    assert_eq!(send(&handle, &request), sent, "once more is not a third time");
    assert_eq!(times(&settled(&servers, "bob"), "again"), before + 1);
}

/// A call that was frozen beyond its deadline wakes and gives its key back: by then it is another's.
#[test]
fn a_late_caller_frees_nothing_of_the_one_who_took_over() {
    let servers = servers();
    let relay = Relay::start(servers.postfix.smtps_port).unwrap();
    let fixture = Fixture::new(&servers);
    let slow = fixture.outgoing("alice", through(&relay));
    let mut settings = servers.outgoing_settings("alice");
    through(&relay)(&mut settings);
    let other = fixture.plugin.open(&settings.to_string()).unwrap();
    let carol = servers.address("carol");
    let mut request = keyed(&carol, "late", "late caller");
    request["deadline_ms"] = json!(15_000);
    slow.send_message(&text_to("sink@example.test", "warm").to_string(), &[]).unwrap();
    relay.stall_after(0);
    let sent = thread::scope(|scope| {
        let frozen = scope.spawn(|| slow.send_message(&request.to_string(), &[]));
        let store = rusqlite::Connection::open(fixture.store_file()).unwrap();
        let claimed =
            || store.query_row("SELECT count(*) FROM record WHERE kind = 'sent'", [], |row| row.get::<_, i64>(0));
        while claimed().unwrap() == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        // New connections go through; the frozen one stays lost.
        relay.heal();
        // By the clock of the store's users it is dead.
        fixture.clock.advance(3_000);
        assert_eq!(send(&other, &request)["outcome"], "unknown");
        let mut again = request.clone();
        again["resend_unknown"] = json!(true);
        let sent = send(&other, &again);
        assert_eq!(sent["outcome"], "sent", "{sent}");
        // Whatever it says: nothing of it was accepted.
        let _ = frozen.join().unwrap();
        sent
    });
    relay.heal();
    assert_eq!(send(&other, &request), sent, "the key still knows");
    assert_eq!(times(&settled(&servers, "carol"), "late"), 1);
}

/// The caller heard that nothing was sent, and then the server answers: it gets nothing, and the key is free.
#[test]
fn a_call_that_was_cancelled_in_time_sends_nothing() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let gate = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = gate.local_addr().unwrap().port();
    let other = fixture.outgoing("alice", |_| ());
    let mut settings = servers.outgoing_settings("alice");
    settings["outgoing"]["port"] = json!(port);
    let handle = fixture.plugin.open(&settings.to_string()).unwrap();
    let liam = servers.address("liam");
    let cancelled = keyed(&liam, "cancelled", "cancelled");
    let (client, error) = thread::scope(|scope| {
        let call = scope.spawn(|| handle.send_message(&cancelled.to_string(), &[]));
        let (client, _) = gate.accept().unwrap();
        handle.cancel();
        (client, call.join().unwrap().unwrap_err())
    });
    assert!(error.message().contains("cancelled"), "{error}");
    let server = TcpStream::connect(("127.0.0.1", servers.postfix.smtps_port)).unwrap();
    thread::scope(|scope| {
        for (mut from, mut to) in [(&client, &server), (&server, &client)] {
            scope.spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
        // It waits for the end of the first.
        let sent = send(&other, &keyed(&liam, "after the cancelled one", "cancelled"));
        assert_eq!(sent["outcome"], "sent", "{sent}");
        handle.close();
    });
    let arrived = settled(&servers, "liam");
    assert_eq!((times(&arrived, "cancelled"), times(&arrived, "after the cancelled one")), (0, 1), "{arrived:?}");
}

/// Sends until the connection is cut after the final dot. The request and its answer `unknown`.
fn lose(handle: &Handle, relay: &Relay, to: &str, subject: &str) -> (Value, Value) {
    for downstream_bytes in (60..=280).step_by(20) {
        assert_eq!(send(handle, &text_to("sink@example.test", "warm"))["outcome"], "sent");
        relay.cut_after(downstream_bytes);
        let request = keyed(to, subject, &format!("{subject} {downstream_bytes}"));
        let answer = send(handle, &request);
        relay.heal();
        if answer["outcome"] == "unknown" {
            return (request, answer);
        }
    }
    panic!("no cut was answered by unknown");
}

/// Nothing was accepted, and the store failed when the key was to be given back.
#[test]
fn a_key_that_could_not_be_given_back_may_be_tried_again_all_the_same() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", |_| ());
    let store = rusqlite::Connection::open(fixture.store_file()).unwrap();
    store
        .execute_batch(
            "CREATE TRIGGER away BEFORE UPDATE ON record WHEN NEW.kind = 'sent'
             BEGIN SELECT RAISE(ABORT, 'away'); END",
        )
        .unwrap();
    let rejected = send(&handle, &keyed("nobody@example.test", "kept", "kept"));
    assert_eq!(rejected["outcome"], "rejected", "{rejected}");
    assert!(fixture.log().text().contains("stays taken"), "{}", fixture.log().text());
    store.execute_batch("DROP TRIGGER away").unwrap();
    for _ in 0..2 {
        let sent = send(&handle, &keyed("sink@example.test", "kept", "kept"));
        assert_eq!(sent["outcome"], "sent", "{sent}");
    }
}

/// The server has answered, and then the store keeps its writer waiting beyond the deadline: an error here would be read as
/// "nothing was sent", and `unknown` as "perhaps".
#[test]
fn a_message_that_was_answered_is_told_so_whatever_the_store_does() {
    let servers = servers();
    let relay = Relay::start(servers.postfix.smtps_port).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", through(&relay));
    relay.set_one_way_delay(Duration::from_millis(250));
    let send_over_a_busy_store = |request: &Value, kind: &str| {
        thread::scope(|scope| {
            let call = scope.spawn(|| handle.send_message(&request.to_string(), &[]));
            let store = rusqlite::Connection::open(fixture.store_file()).unwrap();
            store.busy_timeout(Duration::from_secs(30)).unwrap();
            let written = || {
                store
                    .query_row("SELECT count(*) FROM record WHERE kind = ?1", [kind], |row| row.get::<_, i64>(0))
                    .unwrap()
            };
            let end = Instant::now() + Duration::from_secs(60);
            while written() == 0 {
                assert!(Instant::now() < end, "the message was never begun");
                thread::sleep(Duration::from_millis(5));
            }
            store.execute_batch("BEGIN IMMEDIATE").unwrap();
            let answer = call.join().unwrap();
            store.execute_batch("ROLLBACK").unwrap();
            oauth_mail_tests::fixture::parse(&answer.unwrap())
        })
    };
    let mut automatic = text_to("nobody@example.test", "refused");
    (automatic["auto_submitted"], automatic["deadline_ms"]) = (json!(true), json!(8_000));
    let answer = send_over_a_busy_store(&automatic, "brake");
    assert_eq!(answer["outcome"], "rejected", "{answer}");

    let mut request = keyed("sink@example.test", "late", "late");
    request["deadline_ms"] = json!(8_000);
    let answer = send_over_a_busy_store(&request, "sent");
    assert_eq!(answer["outcome"], "sent", "{answer}");
    // Once the store answers again, so does the key.
    let end = Instant::now() + Duration::from_secs(60);
    request["deadline_ms"] = json!(20_000);
    loop {
        let again = send(&handle, &request);
        assert_eq!(again["message_id"], answer["message_id"], "{again}");
        if again["outcome"] == "sent" {
            break;
        }
        assert!(again["outcome"] == "unknown" && Instant::now() < end, "{again}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn keyed(to: &str, subject: &str, key: &str) -> Value {
    let mut request = text_to(to, subject);
    request["idempotency_key"] = json!(key);
    request
}
