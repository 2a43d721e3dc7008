//! What a server will not take, and whose move it is then.

use oauth_mail_tests::fixture::{Fixture, parse};
use serde_json::{Value, json};

use super::{inbox, send, send_raw, servers, text_to};

#[test]
fn an_unknown_recipient_does_not_cost_the_others_their_mail() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", |_| ());
    let ivan = servers.address("ivan");
    let answer = send(
        &handle,
        &json!({"to": ["nobody@example.test", ivan], "cc": ["nothing@example.test"], "subject": "some", "text": "x"}),
    );
    assert_eq!(answer["outcome"], "sent", "{answer}");
    let refused: Vec<_> = answer["refused"].as_array().unwrap().iter().map(|one| one["address"].as_str()).collect();
    assert_eq!(refused, [Some("nobody@example.test"), Some("nothing@example.test")], "{answer}");
    assert!(answer["refused"][0]["reply"].as_str().unwrap().starts_with("550 5.1.1"), "{answer}");
    servers.wait_for("ivan", "INBOX", 1).unwrap();
    assert_eq!(inbox(&servers, "ivan").len(), 1);
}

#[test]
fn nobody_left_is_rejected_and_the_connection_goes_on() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let handle = fixture.outgoing("alice", |_| ());
    let answer =
        send(&handle, &json!({"to": ["nobody@example.test", "no.one@example.test"], "subject": "x", "text": "x"}));
    sentence(&answer, "refused");
    assert!(answer["error"]["provider_code"].as_str().unwrap().starts_with("550 5.1.1"), "{answer}");
    assert_eq!(send(&handle, &text_to("sink@example.test", "next"))["outcome"], "sent");
}

#[test]
fn somebody_elses_sender_is_refused_in_one_sentence() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let bob = servers.address("bob");
    let handle = fixture.outgoing("alice", |settings| settings["outgoing"]["advanced"]["from_address"] = json!(bob));
    let answer = send(&handle, &text_to("sink@example.test", "not mine"));
    sentence(&answer, "refused");
    assert!(answer["error"]["message"].as_str().unwrap().contains("From address"), "{answer}");
    assert!(answer["error"]["provider_code"].as_str().unwrap().contains("not owned by user"), "{answer}");

    let own = fixture.outgoing("alice", |_| ());
    let request = json!({"envelope": {"from": bob, "to": ["sink@example.test"]}}).to_string();
    sentence(&parse(&own.send_message(&request, b"Subject: x\r\n\r\nx\r\n").unwrap()), "refused");
    assert_eq!(send_raw(&own, &["sink@example.test"], b"Subject: x\r\n\r\nx\r\n")["outcome"], "sent");
}

#[test]
fn a_handle_for_reading_does_not_send() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let handle = fixture.incoming("alice", |_| ());
    let error = handle.send_message(&text_to("sink@example.test", "x").to_string(), &[]).unwrap_err();
    assert_eq!(error.kind().name(), "misuse", "{error}");
}

fn sentence(answer: &Value, kind: &str) {
    assert_eq!((&answer["outcome"], &answer["error"]["kind"]), (&json!("rejected"), &json!(kind)), "{answer}");
    let (message, remedy) = (answer["error"]["message"].as_str().unwrap(), answer["error"]["remedy"].as_str().unwrap());
    assert!(message.ends_with('.') && remedy.ends_with('.') && !message.contains('\n'), "{answer}");
}
