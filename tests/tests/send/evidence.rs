//! What proves that a message was sent: its own copy in the sent folder, and only the key of this message.

use oauth_mail_core::hooks::Handle;
use oauth_mail_tests::{fixture::Fixture, mailbox, relay::Relay};
use serde_json::{Value, json};

use super::{send, servers, settled, text_to, through_and_seen, times};

fn send_under(handle: &Handle, key: &str, to: &str, raw: &[u8], more: &Value) -> Value {
    let mut request = json!({"envelope": {"to": [to]}, "idempotency_key": key});
    for (name, value) in more.as_object().into_iter().flatten() {
        request[name] = value.clone();
    }
    serde_json::from_str(&handle.send_message(&request.to_string(), raw).unwrap()).unwrap()
}

/// Sends until the answer is lost after the final dot: the key, and the answer `unknown`.
fn lose(handle: &Handle, relay: &Relay, to: &str, raw: &[u8]) -> String {
    for downstream_bytes in (60..=280).step_by(20) {
        assert_eq!(send(handle, &text_to("sink@example.test", "warm"))["outcome"], "sent");
        relay.cut_after(downstream_bytes);
        let key = format!("{to} {} {downstream_bytes}", raw.len());
        let answer = send_under(handle, &key, to, raw, &Value::Null);
        relay.heal();
        if answer["outcome"] == "unknown" {
            return key;
        }
    }
    panic!("no cut was answered by unknown");
}

/// reliability.md 3: bob's copy is no proof of what was sent to carol under the same Message-ID.
#[test]
fn reliability_3_a_copy_of_another_sending_proves_nothing() {
    let servers = servers();
    let relay = Relay::start(servers.postfix.smtps_port).unwrap();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", through_and_seen(&relay, &servers));
    let (bob, carol) = (servers.address("bob"), servers.address("carol"));
    // Whether the copy lies there before carol's message is offered, or comes later than that.
    for late in [false, true] {
        let id = format!("<evidence-{late}@example.test>");
        let raw = format!("Message-ID: {id}\r\nTo: {bob}, {carol}\r\nSubject: evidence {late}\r\n\r\nA line.\r\n");
        let raw = raw.as_bytes();
        let keep = || mailbox::append(&servers, "alice", "Sent", "01-Jan-2026 10:00:00 +0000", "\\Seen", raw).unwrap();
        assert_eq!(send_under(&handle, &format!("bob {late}"), &bob, raw, &Value::Null)["outcome"], "sent");
        if !late {
            keep();
        }
        let key = lose(&handle, &relay, &carol, raw);
        if late {
            keep();
        }
        let answer = send_under(&handle, &key, &carol, raw, &Value::Null);
        assert_eq!((&answer["outcome"], &answer["sent_folder"]["copies"]), (&json!("unknown"), &json!(1)), "{answer}");
        // Whoever asks about the Message-ID alone is told what lies there.
        assert_eq!(send(&handle, &json!({"look_up": id}))["outcome"], "sent");
        let before = times(&settled(&servers, "carol"), &format!("evidence {late}"));
        let again = send_under(&handle, &key, &carol, raw, &json!({"resend_unknown": true}));
        assert_eq!(again["outcome"], "sent", "{again}");
        assert_eq!(times(&settled(&servers, "carol"), &format!("evidence {late}")), before + 1);
    }

    // Her own copy beside bob's is proof.
    let raw = format!("Message-ID: <both@example.test>\r\nTo: {carol}\r\nSubject: both\r\n\r\nA line.\r\n");
    let keep =
        || mailbox::append(&servers, "alice", "Sent", "01-Jan-2026 10:00:00 +0000", "\\Seen", raw.as_bytes()).unwrap();
    assert_eq!(send_under(&handle, "both bob", &bob, raw.as_bytes(), &Value::Null)["outcome"], "sent");
    keep();
    let key = lose(&handle, &relay, &carol, raw.as_bytes());
    keep();
    assert_eq!(send_under(&handle, &key, &carol, raw.as_bytes(), &Value::Null)["outcome"], "sent");
}

/// reliability.md 9: the second message under a key would be lost in silence.
#[test]
fn reliability_9_a_key_that_was_used_for_another_message_is_refused() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", |_| ());
    let (bob, carol) = (servers.address("bob"), servers.address("carol"));
    let request = |to: &str, subject: &str| {
        let mut request = text_to(to, subject);
        request["idempotency_key"] = json!("reply-17");
        request
    };
    let sent = send(&handle, &request(&bob, "seventeen"));
    assert_eq!(sent["outcome"], "sent", "{sent}");
    let mut same = request(&bob, "seventeen");
    same["cc"] = json!([]);
    same["deadline_ms"] = json!(60_000);
    assert_eq!(send(&handle, &same), sent, "the same message, written otherwise");
    let mut copied = request(&bob, "seventeen");
    copied["bcc"] = json!([carol]);
    let mut named = request(&bob, "seventeen");
    named["request_id"] = json!("18");
    for other in [request(&carol, "seventeen"), request(&bob, "eighteen"), copied, named] {
        let error = handle.send_message(&other.to_string(), &[]).unwrap_err();
        assert_eq!(error.kind().name(), "misuse", "{error}");
        assert!(error.message().contains("used for another message"), "{error}");
    }
    let raw = b"Message-ID: <17@example.test>\r\nSubject: raw\r\n\r\none\r\n";
    assert_eq!(send_under(&handle, "raw-17", &bob, raw, &Value::Null)["outcome"], "sent");
    for (to, raw) in [(&carol, &raw[..]), (&bob, b"Message-ID: <17@example.test>\r\nSubject: raw\r\n\r\ntwo\r\n")] {
        let request = json!({"envelope": {"to": [to]}, "idempotency_key": "raw-17"});
        let error = handle.send_message(&request.to_string(), raw).unwrap_err();
        assert_eq!(error.kind().name(), "misuse", "{error}");
    }
}
