//! A reply finds its request by the Message-ID that we signed, whatever the mail program of the other side does.

use oauth_mail_core::hooks::Handle;
use oauth_mail_tests::{
    fixture::Fixture,
    mailbox::{self, since_all},
};
use serde_json::{Value, json};

use super::{send, send_raw, servers, settled, text_to};

/// Facts of the message with this subject.
fn received(handle: &Handle, subject: &str) -> Value {
    let mail = mailbox::round(handle, &json!({})).unwrap();
    let found = mail.messages.iter().find(|message| message.facts["subject"] == subject);
    found.unwrap_or_else(|| panic!("{:?}", mail.subjects())).facts.clone()
}

#[test]
fn a_reply_comes_home_and_a_forged_one_does_not() {
    let servers = servers();
    let fixture = Fixture::new(&servers);
    let desk = fixture.outgoing("alice", |_| ());
    let (frank, alice) = (servers.address("frank"), servers.address("alice"));
    let mut question = text_to(&frank, "Printer");
    question["request_id"] = json!("INC-4711");
    let sent = send(&desk, &question);
    let id = sent["message_id"].as_str().unwrap();
    assert!(sent["outcome"] == "sent" && id.contains(".INC-4711."), "{sent}");
    settled(&servers, "frank");

    // Frank's mail program answers, under an id of its own; he also changes the subject. And somebody guesses another request's number.
    let person = fixture.outgoing("frank", |_| ());
    let reply = |subject: &str, references: &str| {
        let raw = format!(
            "Message-ID: <{}@mailer.test>\r\nFrom: <{frank}>\r\nTo: <{alice}>\r\nSubject: {subject}\r\n\
             References: {references}\r\n\r\nIt burns.\r\n",
            subject.replace(' ', ".")
        );
        assert_eq!(send_raw(&person, &[&alice], raw.as_bytes())["outcome"], "sent");
    };
    reply("quite another matter", id);
    reply("forged", &id.replace("INC-4711", "INC-4712"));
    settled(&servers, "alice");

    let inbox = fixture.incoming("alice", since_all);
    let good = received(&inbox, "quite another matter");
    assert_eq!(good["disposition"]["action"], "append_to_request", "{good}");
    let reference = &good["disposition"]["request_reference"];
    assert_eq!((&reference["request_id"], &reference["proof"]), (&json!("INC-4711"), &json!("signed_message_id")));
    let bad = received(&inbox, "forged");
    assert_eq!(bad["disposition"]["action"], "create_request", "{bad}");
    assert_eq!(bad["disposition"]["evidence"][0]["field"], "forged Message-ID", "{bad}");

    // Another node over the same store has the same key.
    let other = fixture.plugin_again().open(&servers.incoming_settings("alice").to_string()).unwrap();
    let again = received(&other, "quite another matter");
    assert_eq!(again["disposition"]["request_reference"]["proof"], "signed_message_id");
}
